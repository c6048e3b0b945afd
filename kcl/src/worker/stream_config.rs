//! What a worker is told about one of its streams. What is not said is as the worker's builder says.

use crate::config::{ForeignRecords, InitialPosition, Retrieval, WorkerConfig};
use crate::dead_letter::DeadLetterQueue;
use crate::error::Error;
use crate::policy::ErrorPolicy;
use crate::shard::served::Reading;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A stream for a worker to process, with settings of its own where they differ from the worker's.
///
/// ```
/// use kcl::{ErrorPolicy, InitialPosition, StreamConfig};
///
/// let clicks = StreamConfig::new("clicks")
///     .initial_position(InitialPosition::Latest)
///     .on_error(ErrorPolicy::stop().after(3));
/// assert_eq!(clicks.stream(), "clicks");
/// ```
#[derive(Clone)]
pub struct StreamConfig {
    stream: String,
    initial_position: Option<InitialPosition>,
    retrieval: Option<Retrieval>,
    poll_interval: Option<Duration>,
    max_records: Option<u32>,
    max_batch_bytes: Option<usize>,
    batch_window: Option<Duration>,
    foreign_records: Option<ForeignRecords>,
    pub(super) policy: Option<ErrorPolicy>,
    pub(super) dead_letters: Option<Arc<dyn DeadLetterQueue>>,
}

impl fmt::Debug for StreamConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamConfig")
            .field("stream", &self.stream)
            .field("initial_position", &self.initial_position)
            .field("retrieval", &self.retrieval)
            .field("poll_interval", &self.poll_interval)
            .field("max_records", &self.max_records)
            .field("max_batch_bytes", &self.max_batch_bytes)
            .field("batch_window", &self.batch_window)
            .field("foreign_records", &self.foreign_records)
            .field("policy", &self.policy)
            .field("dead_letters", &self.dead_letters.is_some())
            .finish()
    }
}

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $kind:ty;)+) => {
        $($(#[$doc])* #[must_use]
        pub fn $name(mut self, $name: $kind) -> Self {
            self.$name = Some($name);
            self
        })+
    };
}

impl StreamConfig {
    /// A stream by name or ARN, with the worker's settings. An ARN's region is that of its endpoint.
    pub fn new(stream: impl Into<String>) -> Self {
        StreamConfig {
            stream: stream.into(),
            initial_position: None,
            retrieval: None,
            poll_interval: None,
            max_records: None,
            max_batch_bytes: None,
            batch_window: None,
            foreign_records: None,
            policy: None,
            dead_letters: None,
        }
    }

    settings! {
        /// Where to start without leases; see [`WorkerConfig::initial_position`].
        initial_position: InitialPosition;
        /// Polling or enhanced fan-out; see [`WorkerConfig::retrieval`].
        retrieval: Retrieval;
        /// Pause at the tip of a shard; see [`WorkerConfig::poll_interval`].
        poll_interval: Duration;
        /// Records asked for in one read and handed over in one batch; see [`WorkerConfig::max_records`].
        max_records: u32;
        /// Bytes in one batch at most, a single record apart; see [`WorkerConfig::max_batch_bytes`].
        max_batch_bytes: usize;
        /// How long a batch may wait to be filled; see [`WorkerConfig::batch_window`].
        batch_window: Duration;
        /// User records of aggregates that belong to another shard; see [`WorkerConfig::foreign_records`].
        foreign_records: ForeignRecords;
    }

    /// What becomes of records of this stream whose processing fails.
    #[must_use]
    pub fn on_error(mut self, policy: ErrorPolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Where this stream's dead letters go.
    #[must_use]
    pub fn dead_letters(mut self, queue: impl DeadLetterQueue) -> Self {
        self.dead_letters = Some(Arc::new(queue));
        self
    }

    /// The stream's name or ARN.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// The stream's settings, those of the worker where it has none.
    ///
    /// # Errors
    /// `Configuration`, naming what is out of range.
    pub(super) fn reading(&self, worker: &WorkerConfig) -> Result<Reading, Error> {
        let with_worker = WorkerConfig {
            stream: self.stream.clone(),
            initial_position: self.initial_position.unwrap_or(worker.initial_position),
            retrieval: self
                .retrieval
                .clone()
                .unwrap_or_else(|| worker.retrieval.clone()),
            poll_interval: self.poll_interval.unwrap_or(worker.poll_interval),
            max_records: self.max_records.unwrap_or(worker.max_records),
            max_batch_bytes: self.max_batch_bytes.unwrap_or(worker.max_batch_bytes),
            batch_window: self.batch_window.unwrap_or(worker.batch_window),
            foreign_records: self.foreign_records.unwrap_or(worker.foreign_records),
            ..worker.clone()
        };
        with_worker.validate()?;
        Ok(Reading {
            initial: with_worker.initial_position,
            consumer_name: with_worker.consumer_name().map(str::to_owned),
            poll_interval: with_worker.poll_interval,
            max_records: with_worker.max_records,
            max_batch_bytes: with_worker.max_batch_bytes,
            batch_window: with_worker.batch_window,
            foreign_records: with_worker.foreign_records,
        })
    }
}

impl From<&str> for StreamConfig {
    fn from(stream: &str) -> Self {
        StreamConfig::new(stream)
    }
}

impl From<String> for StreamConfig {
    fn from(stream: String) -> Self {
        StreamConfig::new(stream)
    }
}
