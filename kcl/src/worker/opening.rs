//! Opening a stream: it is found, its settings are worked out, and its leases are brought up to date. When a worker starts, and when a stream is
//! added to one that runs.

use super::stream_config::StreamConfig;
use crate::client::retry::backoff;
use crate::client::same_stream::SameStream;
use crate::client::{HttpClient, KinesisApi, StreamSummary};
use crate::config::{InitialPosition, WorkerConfig};
use crate::dead_letter::DeadLetterQueue;
use crate::error::{Error, ErrorKind};
use crate::lease::LeaseStore;
use crate::policy::ErrorPolicy;
use crate::shard::deliver::{FailureHandling, GivenUp};
use crate::shard::served::{Reading, ServedStream};
use crate::shard::sync::{SyncReport, Syncer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

/// Attempts of a call at the start, before it is given up.
pub(super) const START_ATTEMPTS: u32 = 4;
/// Pause between them.
pub(super) const START_PAUSE: Duration = Duration::from_millis(200);
/// Streams opened at the same time.
const OPENED_TOGETHER: usize = 8;
/// Pause between listings while a stream that is being created has no shards.
const NO_SHARDS_PAUSE: Duration = Duration::from_millis(500);

/// What streams are opened with.
pub(super) struct Opener {
    pub(super) config: WorkerConfig,
    pub(super) store: Arc<dyn LeaseStore>,
    pub(super) clients: Clients,
    pub(super) policy: ErrorPolicy,
    pub(super) dead_letters: Option<Arc<dyn DeadLetterQueue>>,
    pub(super) given_up: Arc<GivenUp>,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// One client for all streams, or one for each region.
pub(super) enum Clients {
    Given(Arc<dyn KinesisApi>),
    /// By region. A short lock around plain data, never held across an await.
    Made(Mutex<BTreeMap<String, Arc<dyn KinesisApi>>>),
}

impl Clients {
    fn of(&self, config: &WorkerConfig, stream: &str) -> Result<Arc<dyn KinesisApi>, Error> {
        let made = match self {
            Clients::Given(client) => return Ok(Arc::clone(client)),
            Clients::Made(made) => made,
        };
        let (endpoint, region) = (config.endpoint.as_deref(), config.region.as_deref());
        let timeout = config.effective_request_timeout();
        let client = HttpClient::new(endpoint, region, stream, timeout)?;
        let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
        let known = made.entry(client.region().to_owned());
        Ok(Arc::clone(known.or_insert_with(|| Arc::new(client))))
    }
}

/// A stream that is there, and what is to be done with it.
pub(super) struct Found {
    /// Name or ARN, as configured.
    called: String,
    pub(super) summary: StreamSummary,
    /// Under LATEST the shards that were open before `summary.server_time_ms`: each may hold records that came after it,
    /// even if it is closed by the time the shards are listed (K4).
    open: BTreeSet<String>,
    client: Arc<dyn KinesisApi>,
    reading: Reading,
    failures: FailureHandling,
}

/// A stream whose leases are up to date.
pub(super) struct Opened {
    pub(super) stream: Arc<ServedStream>,
    pub(super) syncer: Syncer,
    /// Shards listed.
    pub(super) shards: usize,
}

impl Opener {
    /// Looks for the stream, and for where its dead letters go.
    pub(super) async fn find(&self, stream: &StreamConfig) -> Result<Found, Error> {
        let reading = stream.reading(&self.config)?;
        let failures = self.failures(stream)?;
        let called = stream.stream().to_owned();
        let client = self.clients.of(&self.config, &called)?;
        let mut summary = client.describe_stream(&called).await?;
        let mut open = BTreeSet::new();
        if reading.initial == InitialPosition::Latest && summary.status != "CREATING" {
            let shards = client.list_shards(&called).await?;
            let are_open = shards.into_iter().filter(|shard| !shard.closed);
            open = are_open.map(|shard| shard.shard_id).collect();
            summary = client.describe_stream(&called).await?;
        }
        if let Some(queue) = &failures.dead_letters {
            queue.open(&client, &summary).await?;
        }
        Ok(Found {
            called,
            summary,
            open,
            client,
            reading,
            failures,
        })
    }

    fn failures(&self, stream: &StreamConfig) -> Result<FailureHandling, Error> {
        let policy = stream.policy.as_ref().unwrap_or(&self.policy).clone();
        let queue = stream.dead_letters.as_ref().or(self.dead_letters.as_ref());
        if policy.needs_dead_letters() && queue.is_none() {
            let message = format!(
                "the error policy of stream {} asks for dead letters and there is no queue: call .dead_letters(DeadLetterStream::new(\"...\"))",
                stream.stream()
            );
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        Ok(FailureHandling {
            policy,
            dead_letters: queue.cloned(),
            given_up: Arc::clone(&self.given_up),
        })
    }

    /// Creates the leases that the stream needs.
    pub(super) async fn open(&self, found: Found) -> Result<Opened, Error> {
        let identity = found.summary.identity();
        let client: Arc<dyn KinesisApi> = Arc::new(SameStream::new(found.client, identity.clone()));
        let syncer = Syncer {
            client: Arc::clone(&client),
            store: Arc::clone(&self.store),
            application: self.config.application.clone(),
            stream: found.called.clone(),
            identity: identity.clone(),
            initial: found.reading.initial,
            started_ms: found.summary.server_time_ms,
            open_at_start: found.open,
            store_timeout: self.config.failover_time,
        };
        let report = first_sync(&syncer).await?;
        let stream = ServedStream {
            called: found.called,
            name: found.summary.name,
            identity,
            client,
            reading: found.reading,
            failures: found.failures,
            sync: Arc::new(Notify::new()),
        };
        Ok(Opened {
            stream: Arc::new(stream),
            syncer,
            shards: report.shards,
        })
    }

    /// Finds all streams; none may be named twice.
    pub(super) async fn find_all(
        self: &Arc<Self>,
        streams: Vec<StreamConfig>,
    ) -> Result<Vec<Found>, Error> {
        let opener = Arc::clone(self);
        let found = all(streams, move |stream| {
            let opener = Arc::clone(&opener);
            async move { opener.find(&stream).await }
        })
        .await?;
        let mut names: BTreeMap<String, &str> = BTreeMap::new();
        for stream in &found {
            if let Some(other) = names.insert(stream.summary.identity(), &stream.called) {
                return Err(twice(other, &stream.called));
            }
        }
        Ok(found)
    }

    /// Opens all streams.
    pub(super) async fn open_all(
        self: &Arc<Self>,
        found: Vec<Found>,
    ) -> Result<Vec<Opened>, Error> {
        let opener = Arc::clone(self);
        all(found, move |found| {
            let opener = Arc::clone(&opener);
            async move { opener.open(found).await }
        })
        .await
    }
}

/// A stream that the worker would serve under two names.
pub(super) fn twice(one: &str, other: &str) -> Error {
    let message = if one == other {
        format!("stream {one} is given twice to one worker: leave one out")
    } else {
        format!("streams {one} and {other} of one worker are the same stream: leave one out")
    };
    Error::new(ErrorKind::Configuration, message)
}

/// Runs a step for each item, a few at the same time; the results in order, or the first failure.
async fn all<T, R, F>(items: Vec<T>, step: impl Fn(T) -> F) -> Result<Vec<R>, Error>
where
    R: Send + 'static,
    F: Future<Output = Result<R, Error>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(OPENED_TOGETHER));
    let mut running = JoinSet::new();
    for (index, item) in items.into_iter().enumerate() {
        let (places, step) = (Arc::clone(&places), step(item));
        running.spawn(async move {
            let _place = places.acquire_owned().await.ok();
            (index, step.await)
        });
    }
    let mut results = BTreeMap::new();
    while let Some(ended) = running.join_next().await {
        let (index, result) = ended.map_err(|panic| {
            Error::with_source(ErrorKind::Protocol, "opening a stream panicked", panic)
        })?;
        results.insert(index, result?);
    }
    Ok(results.into_values().collect())
}

/// The first look at the shards; a store or endpoint that is out of reach is tried a few times.
async fn first_sync(syncer: &Syncer) -> Result<SyncReport, Error> {
    let mut attempt = 1;
    loop {
        match syncer.sync().await {
            Err(error) if error.is_retryable() && attempt < START_ATTEMPTS => {
                tracing::warn!(%error, attempt, "listing the shards is tried again");
                tokio::time::sleep(START_PAUSE).await;
                attempt += 1;
            }
            ended => return ended,
        }
    }
}

/// Lists the shards at intervals, and when nudged; ends when the stream is gone or another one.
pub(super) async fn keep_synced(
    syncer: Syncer,
    nudge: Arc<Notify>,
    interval: Duration,
    mut shards: usize,
) -> Error {
    let mut failures = 0u32;
    loop {
        let usual = interval.mul_f64(0.9 + 0.2 * fastrand::f64());
        let pause = match failures {
            0 if shards == 0 => NO_SHARDS_PAUSE.min(usual),
            0 => usual,
            _ => backoff(NO_SHARDS_PAUSE, interval.max(NO_SHARDS_PAUSE), failures),
        };
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => {}
            () = nudge.notified(), if failures == 0 => tokio::time::sleep(START_PAUSE).await,
        }
        match syncer.sync().await {
            Ok(report) => {
                failures = 0;
                shards = report.shards;
                for lease in &report.vanished {
                    tracing::error!(%lease, "the shard is not listed any more, though its lease has not ended: its records outlived the retention");
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return error,
            Err(error) => {
                failures = failures.saturating_add(1);
                tracing::warn!(%error, failures, "the shards cannot be listed, it is tried again");
            }
        }
    }
}
