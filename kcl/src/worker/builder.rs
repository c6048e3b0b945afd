//! Settings and components in, a worker out.

use super::opening::{Clients, Opener};
use super::stream_config::StreamConfig;
use super::{Worker, WorkerHandle};
use crate::client::KinesisApi;
use crate::config::{ForeignRecords, InitialPosition, Retrieval, STREAMS_MAX, WorkerConfig};
use crate::dead_letter::DeadLetterQueue;
use crate::error::{Error, ErrorKind};
use crate::lease::LeaseStore;
use crate::policy::ErrorPolicy;
use crate::processor::RecordProcessorFactory;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

/// Changes of streams that wait for the worker at most.
const ORDERS_WAITING: usize = 16;

/// Collects a worker's settings; see [`WorkerConfig`] for what each means, its default and its range.
#[derive(Clone)]
pub struct WorkerBuilder {
    config: WorkerConfig,
    /// Beside the one in the configuration.
    more_streams: Vec<StreamConfig>,
    store: Option<Arc<dyn LeaseStore>>,
    client: Option<Arc<dyn KinesisApi>>,
    credentials: Option<SharedCredentialsProvider>,
    policy: ErrorPolicy,
    dead_letters: Option<Arc<dyn DeadLetterQueue>>,
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("config", &self.config)
            .field("more_streams", &self.more_streams)
            .field("store", &self.store)
            .field("client", &self.client)
            .field("credentials", &self.credentials)
            .field("policy", &self.policy)
            .field("dead_letters", &self.dead_letters.is_some())
            .finish()
    }
}

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $kind:ty;)+) => {
        $($(#[$doc])* #[must_use]
        pub fn $name(mut self, $name: $kind) -> Self {
            self.config.$name = $name;
            self
        })+
    };
}

impl WorkerBuilder {
    pub(super) fn new(application: impl Into<String>, stream: impl Into<String>) -> Self {
        WorkerBuilder {
            config: WorkerConfig::new(application, stream),
            more_streams: Vec::new(),
            store: None,
            client: None,
            credentials: None,
            policy: ErrorPolicy::retry(),
            dead_letters: None,
        }
    }

    settings! {
        /// Where to start without leases; default trim horizon.
        initial_position: InitialPosition;
        /// A worker that showed no life for this long loses its shards; default 10 s.
        failover_time: Duration;
        /// Polling or enhanced fan-out; default polling.
        retrieval: Retrieval;
        /// Pause at the tip of a shard; default 200 ms.
        poll_interval: Duration;
        /// Records asked for in one read and handed over in one batch; default 10,000.
        max_records: u32;
        /// Bytes in one batch at most, a single record apart; default 10 MiB.
        max_batch_bytes: usize;
        /// How long a batch may wait to be filled; default zero.
        batch_window: Duration;
        /// User records of aggregates that belong to another shard; default: delivered.
        foreign_records: ForeignRecords;
        /// Shards this worker processes at most; default no limit.
        max_leases: usize;
        /// Bytes read ahead by all shards together; default 64 MiB.
        read_ahead_bytes: usize;
        /// How often the shards are listed; default 30 s.
        shard_sync_interval: Duration;
        /// How long a graceful shutdown waits for processors; default 30 s.
        shutdown_grace: Duration;
    }

    /// One more stream to process: by name, by ARN, or with settings of its own. The shards of all streams are shared by the workers of the application that
    /// serve them; at most 1,000 streams. [`WorkerHandle::add_stream`] and [`WorkerHandle::remove_stream`] do the same while the worker runs.
    ///
    /// ```no_run
    /// # async fn example<P: kcl::RecordProcessor>(store: kcl::SqliteLeaseStore, processor: fn(&kcl::ShardInfo) -> P) -> Result<(), kcl::Error> {
    /// use kcl::{InitialPosition, StreamConfig, Worker};
    ///
    /// let worker = Worker::builder("my-app", "orders")
    ///     .also_stream("payments")
    ///     .also_stream(StreamConfig::new("clicks").initial_position(InitialPosition::Latest))
    ///     .lease_store(store)
    ///     .build(processor) // it is told the stream's name in ShardInfo
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn also_stream(mut self, stream: impl Into<StreamConfig>) -> Self {
        self.more_streams.push(stream.into());
        self
    }

    /// The endpoint's URL, `http://127.0.0.1:4567`.
    #[must_use]
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.config.endpoint = Some(url.into());
        self
    }

    /// The region requests are signed for.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.config.region = Some(region.into());
        self
    }

    /// This worker's id; default host, process and a random part.
    #[must_use]
    pub fn worker_id(mut self, id: impl Into<String>) -> Self {
        self.config.worker_id = id.into();
        self
    }

    /// How long the endpoint may be silent during a request; default 10 s, but less than the fail-over time.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.config.request_timeout = Some(timeout);
        self
    }

    /// Where the leases live; it must be given.
    #[must_use]
    pub fn lease_store(mut self, store: impl LeaseStore) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// A client to use instead of one made for the endpoint.
    #[must_use]
    pub fn client(mut self, client: Arc<dyn KinesisApi>) -> Self {
        self.client = Some(client);
        self
    }

    /// Where credentials come from, instead of the environment and (with the feature `aws-config`) AWS's own configuration: see
    /// [`HttpClientBuilder::credentials_provider`](crate::client::HttpClientBuilder::credentials_provider). It makes no difference to a [`client`](WorkerBuilder::client) of one's own.
    #[must_use]
    pub fn credentials_provider(mut self, provider: impl ProvideCredentials + 'static) -> Self {
        self.credentials = Some(SharedCredentialsProvider::new(provider));
        self
    }

    /// What becomes of records whose processing fails; default [`ErrorPolicy::retry`], for ever.
    #[must_use]
    pub fn on_error(mut self, policy: ErrorPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Where dead letters go: a [`DeadLetterStream`](crate::DeadLetterStream), or any `async fn(DeadLetter) -> Result<(), ProcessorError>`.
    #[must_use]
    pub fn dead_letters(mut self, queue: impl DeadLetterQueue) -> Self {
        self.dead_letters = Some(Arc::new(queue));
        self
    }

    /// Checks the settings and finds the streams, and the dead letter streams. Under enhanced fan-out it registers the consumer of each stream; where
    /// that fails, its shards are polled, and it is tried again later.
    ///
    /// # Errors
    /// `Configuration`: a setting is missing or out of range, or a stream is given twice. `NotFound`: there is no such stream. `Unavailable`: the
    /// endpoint cannot be reached. `AccessDenied`: it refuses the credentials.
    ///
    /// # Cancel safety
    /// Nothing was begun, but a consumer may have been registered.
    pub async fn build<F: RecordProcessorFactory>(self, factory: F) -> Result<Worker<F>, Error> {
        let WorkerBuilder {
            config,
            more_streams,
            store,
            client,
            credentials,
            policy,
            dead_letters,
        } = self;
        config.validate()?;
        let mut streams = vec![StreamConfig::new(config.stream.clone())];
        streams.extend(more_streams);
        if streams.len() > STREAMS_MAX {
            let count = streams.len();
            let message = format!(
                "a worker was given {count} streams, allowed are {STREAMS_MAX}: use several workers"
            );
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        let store = store.ok_or_else(|| {
            Error::new(
                ErrorKind::Configuration,
                "no lease store: call .lease_store(SqliteLeaseStore::open(\"leases.db\").await?)",
            )
        })?;
        let clients = match client {
            Some(client) => Clients::Given(client),
            None => Clients::Made(credentials, Mutex::default()),
        };
        let (orders, ordered) = mpsc::channel(ORDERS_WAITING);
        let opener = Opener {
            config,
            store,
            clients,
            policy,
            dead_letters,
            given_up: Arc::default(),
        };
        let opener = Arc::new(opener);
        let found = opener.find_all(streams).await?;
        let handle = WorkerHandle::new(Arc::clone(&opener), orders);
        let done = handle.done.clone().drop_guard();
        Ok(Worker {
            opener,
            factory: Arc::new(factory),
            found,
            ordered,
            handle,
            done,
        })
    }
}
