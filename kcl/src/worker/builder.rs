//! Settings and components in, a worker out.

use super::{Beginning, Components, Worker, WorkerHandle};
use crate::client::{HttpClient, KinesisApi};
use crate::config::{ForeignRecords, InitialPosition, WorkerConfig};
use crate::dead_letter::DeadLetterQueue;
use crate::error::{Error, ErrorKind};
use crate::lease::LeaseStore;
use crate::policy::ErrorPolicy;
use crate::processor::RecordProcessorFactory;
use crate::shard::deliver::FailureHandling;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Collects a worker's settings; see [`WorkerConfig`] for what each means, its default and its range.
#[derive(Clone)]
pub struct WorkerBuilder {
    config: WorkerConfig,
    store: Option<Arc<dyn LeaseStore>>,
    client: Option<Arc<dyn KinesisApi>>,
    policy: ErrorPolicy,
    dead_letters: Option<Arc<dyn DeadLetterQueue>>,
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("config", &self.config)
            .field("store", &self.store)
            .field("client", &self.client)
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
            store: None,
            client: None,
            policy: ErrorPolicy::retry(),
            dead_letters: None,
        }
    }

    settings! {
        /// Where to start without leases; default trim horizon.
        initial_position: InitialPosition;
        /// A worker that showed no life for this long loses its shards; default 10 s.
        failover_time: Duration;
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

    /// Checks the settings and finds the stream, and the dead letter stream.
    ///
    /// # Errors
    /// `Configuration`: a setting is missing or out of range. `NotFound`: there is no such stream. `Unavailable`: the
    /// endpoint cannot be reached. `AccessDenied`: it refuses the credentials.
    pub async fn build<F: RecordProcessorFactory>(self, factory: F) -> Result<Worker<F>, Error> {
        let WorkerBuilder {
            config,
            store,
            client,
            policy,
            dead_letters,
        } = self;
        config.validate()?;
        if policy.needs_dead_letters() && dead_letters.is_none() {
            let message = "the error policy asks for dead letters and there is no queue: call .dead_letters(DeadLetterStream::new(\"...\"))";
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        let store = store.ok_or_else(|| {
            Error::new(
                ErrorKind::Configuration,
                "no lease store: call .lease_store(SqliteLeaseStore::open(\"leases.db\").await?)",
            )
        })?;
        let client = match client {
            Some(client) => client,
            None => Arc::new(HttpClient::new(
                config.endpoint.as_deref(),
                config.region.as_deref(),
                &config.stream,
                config.effective_request_timeout(),
            )?),
        };
        let beginning = Beginning::of(&*client, &config).await?;
        if let Some(queue) = &dead_letters {
            queue.open(&client, &beginning.stream).await?;
        }
        let handle = WorkerHandle::new();
        let failures = FailureHandling {
            policy,
            dead_letters,
            given_up: Arc::clone(&handle.given_up),
        };
        let done = handle.done.clone().drop_guard();
        let components = Components {
            client,
            store,
            failures,
            board: Arc::clone(&handle.board),
        };
        Ok(Worker {
            config,
            components,
            factory: Arc::new(factory),
            beginning,
            handle,
            done,
        })
    }
}
