//! What the shard consumers of one stream have in common: how the stream is called, read, and what is done about failures.

use crate::client::KinesisApi;
use crate::config::{ForeignRecords, InitialPosition};
use crate::fetch::registration::Consumer;
use crate::shard::deliver::FailureHandling;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// A stream that a worker serves.
#[derive(Debug)]
pub(crate) struct ServedStream {
    /// Its name or ARN, as it was configured: what calls name it by.
    pub(crate) called: String,
    /// Its name.
    pub(crate) name: String,
    /// `ARN@creation-milliseconds` (K13).
    pub(crate) identity: String,
    /// Gives no iterator of another stream of the same name.
    pub(crate) client: Arc<dyn KinesisApi>,
    /// The consumer to read by, under enhanced fan-out.
    pub(crate) consumer: Option<Arc<Consumer>>,
    pub(crate) reading: Reading,
    pub(crate) failures: FailureHandling,
    /// Asks for the shards to be listed again.
    pub(crate) sync: Arc<Notify>,
}

/// Where a stream is begun and how it is read: its settings, those of the worker where it has none of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) initial: InitialPosition,
    /// By enhanced fan-out, as this consumer.
    pub(crate) consumer_name: Option<String>,
    pub(crate) poll_interval: Duration,
    pub(crate) max_records: u32,
    pub(crate) max_batch_bytes: usize,
    pub(crate) batch_window: Duration,
    pub(crate) foreign_records: ForeignRecords,
}
