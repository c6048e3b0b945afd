//! What the user writes: a record processor per shard, and what it is given.

use crate::checkpoint::Position;
use crate::key::Key;
use crate::lease::PendingCheckpoint;
use async_trait::async_trait;
use bytes::Bytes;
use millstream_wire::{HashKeyRange, SequenceNumber};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// The shard a processor works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardInfo {
    /// Name of the stream.
    pub stream_name: String,
    /// Id of the shard, `shardId-000000000007`.
    pub shard_id: String,
    /// Where processing starts: after this position.
    pub position: Position,
    /// The shard's share of the hash key space, where known.
    pub hash_key_range: Option<HashKeyRange>,
    /// Shards that this one was split or merged from.
    pub parents: Vec<String>,
    /// A checkpoint that an earlier owner prepared and did not commit: finish or undo what its state says before anything else. It
    /// stays until a checkpoint at or after it. Its records are delivered again all the same: if you finished it, skip them, and
    /// checkpoint the last of them before you prepare anew, because a new preparation takes its place.
    pub pending: Option<PendingCheckpoint>,
}

/// One record as the producer's user put it. A record into which the Kinesis Producer Library packed several arrives as those; they have
/// its sequence number and arrival in common and differ in their sub-sequence number.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    pub(crate) sequence_number: SequenceNumber,
    pub(crate) sub_sequence_number: u64,
    pub(crate) partition_key: Key,
    pub(crate) explicit_hash_key: Option<Arc<str>>,
    pub(crate) data: Bytes,
    pub(crate) arrival_ms: u64,
    pub(crate) part: Part,
}

/// What of a stored record a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// A user record with more to come.
    Inside,
    /// The last user record that is delivered.
    Last,
}

impl Record {
    /// A record as it is stored.
    pub(crate) fn stored(
        sequence_number: SequenceNumber,
        partition_key: impl Into<Key>,
        data: Bytes,
        arrival_ms: u64,
    ) -> Self {
        Record {
            sequence_number,
            sub_sequence_number: 0,
            partition_key: partition_key.into(),
            explicit_hash_key: None,
            data,
            arrival_ms,
            part: Part::Whole,
        }
    }

    /// Position in the shard.
    pub fn sequence_number(&self) -> SequenceNumber {
        self.sequence_number
    }
    /// Index within an aggregated record, from 0; 0 for plain records.
    pub fn sub_sequence_number(&self) -> u64 {
        self.sub_sequence_number
    }
    /// Whether the record came in an aggregated one.
    pub fn is_aggregated(&self) -> bool {
        self.part != Part::Whole
    }
    /// The producer's partition key.
    pub fn partition_key(&self) -> &str {
        self.partition_key.as_str()
    }
    /// The explicit hash key that came with a record of an aggregate, as its producer wrote it. Kinesis does not tell that of a plain record.
    pub fn explicit_hash_key(&self) -> Option<&str> {
        self.explicit_hash_key.as_deref()
    }
    /// The payload: a slice of the answer that it was read with. Kept for long it keeps all of that in memory, up to 10 MiB, so copy it then.
    pub fn data(&self) -> &Bytes {
        &self.data
    }
    /// Approximate arrival at the server, milliseconds since 1970 by the server's clock.
    pub fn arrival_ms(&self) -> u64 {
        self.arrival_ms
    }
}

impl Record {
    /// The position of an application that has finished this record and everything before it.
    pub(crate) fn position(&self) -> Position {
        match self.part {
            Part::Whole | Part::Last => Position::after(self.sequence_number),
            Part::Inside => Position::Sequence {
                sequence: self.sequence_number,
                sub_sequence: self.sub_sequence_number,
            },
        }
    }

    /// What a batch's bytes are counted by.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.data.len() + self.partition_key.len()
    }

    /// For people: the sequence number, with the sub-sequence number in an aggregate.
    pub(crate) fn place(&self) -> String {
        match self.part {
            Part::Whole => self.sequence_number.to_string(),
            Part::Inside | Part::Last => {
                format!("{}:{}", self.sequence_number, self.sub_sequence_number)
            }
        }
    }
}

impl fmt::Debug for Record {
    /// Leaves the payload out: logs never carry data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("sequence_number", &self.sequence_number)
            .field("sub_sequence_number", &self.sub_sequence_number)
            .field("data_bytes", &self.data.len())
            .finish_non_exhaustive()
    }
}

/// The records of one call, in order; never empty, and at most [`WorkerConfig::max_records`](crate::WorkerConfig::max_records) and
/// [`WorkerConfig::max_batch_bytes`](crate::WorkerConfig::max_batch_bytes). The records
/// of an aggregate may be spread over several batches.
#[derive(Debug, Clone)]
pub struct RecordBatch {
    /// Shared, so that a batch can be delivered again without copying it.
    pub(crate) records: Arc<Vec<Record>>,
    pub(crate) millis_behind_latest: u64,
}

impl RecordBatch {
    /// The records in the order of sequence and sub-sequence numbers.
    pub fn records(&self) -> &[Record] {
        &self.records
    }
    /// How many of its records, the first ones, are done at `position`.
    pub(crate) fn done_at(&self, position: Position) -> usize {
        self.records
            .partition_point(|record| record.position().may_advance_to(&position))
    }
    /// A part of it, as a batch of its own; the whole where there is no such part: more, never less.
    pub(crate) fn part(&self, range: Range<usize>) -> RecordBatch {
        let records = match self.records.get(range) {
            Some(part) if part.len() < self.records.len() => Arc::new(part.to_vec()),
            _ => Arc::clone(&self.records),
        };
        RecordBatch {
            records,
            millis_behind_latest: self.millis_behind_latest,
        }
    }
    /// Takes more records in, those that come after its own.
    pub(crate) fn grow(&mut self, more: Vec<Record>) {
        Arc::make_mut(&mut self.records).extend(more);
    }
    /// How far the end of this batch is behind the tip of the shard.
    pub fn behind_latest(&self) -> Duration {
        Duration::from_millis(self.millis_behind_latest)
    }
}

/// What a processor fails with: any error. Its type may tell the [`ErrorPolicy`](crate::ErrorPolicy) what to do.
pub type ProcessorError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Processes the records of one shard, one batch at a time.
///
/// Only [`process_records`](RecordProcessor::process_records) must be written. A batch whose call
/// fails (or panics) is delivered again, unchanged, until it succeeds: it is never skipped, unless an
/// [`ErrorPolicy`](crate::ErrorPolicy) says so. The calls for one shard never overlap; those for different shards do, each with a processor of its own.
///
/// # Errors
/// A callback may fail with any error, and a panic is one. [`ErrorPolicy`](crate::ErrorPolicy) decides about those of `initialize`,
/// `process_records` and `shard_ended`, by default that they are called again after a pause of 0.1 s at first and 10 s at most; those of
/// `shutdown_requested` are logged.
///
/// # Cancel safety
/// The future of a callback is dropped in the middle when [`Worker::run`](crate::Worker::run) is dropped, and when it lasts longer than
/// [`shutdown_grace`](crate::WorkerConfig::shutdown_grace) after the shard was to be given up or the worker to stop. Then its batch counts as not done.
#[async_trait]
pub trait RecordProcessor: Send + 'static {
    /// Called once before the first batch, again after it failed.
    async fn initialize(&mut self, _shard: &ShardInfo) -> Result<(), ProcessorError> {
        Ok(())
    }

    /// Handles a batch. Checkpoint when its effects are durable; what is not checkpointed is delivered
    /// again to the next owner of the shard.
    ///
    /// When the lease is lost meanwhile, the call is not interrupted: it may finish, and its checkpoints are refused with `LeaseLost`.
    ///
    /// It must not block its thread: on the same threads the worker renews its leases, and a worker that cannot is taken for
    /// dead after the fail-over time. Run what blocks in `tokio::task::spawn_blocking`.
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &crate::Checkpointer,
    ) -> Result<(), ProcessorError>;

    /// The lease went to another worker: stop, checkpoint nothing. Cancelled after
    /// [`shutdown_grace`](crate::WorkerConfig::shutdown_grace).
    async fn lease_lost(&mut self) {}

    /// Every record of a closed shard was handled, or what was left had outlived the stream's retention. After it returns `Ok`, the library stores the end of the
    /// shard and the children start. The default does nothing.
    async fn shard_ended(
        &mut self,
        _checkpointer: &crate::Checkpointer,
    ) -> Result<(), ProcessorError> {
        Ok(())
    }

    /// The worker is shutting down or handing the shard over. The default checkpoints what was handled. Cancelled after
    /// [`shutdown_grace`](crate::WorkerConfig::shutdown_grace): nobody else can have the shard before it returns.
    async fn shutdown_requested(
        &mut self,
        checkpointer: &crate::Checkpointer,
    ) -> Result<(), ProcessorError> {
        checkpointer.checkpoint().await?;
        Ok(())
    }
}

/// Makes a processor for each shard; any `Fn(&ShardInfo) -> impl RecordProcessor` is one.
pub trait RecordProcessorFactory: Send + Sync + 'static {
    /// The processor type.
    type Processor: RecordProcessor;
    /// A processor for `shard`; called each time this worker gets the shard.
    fn create(&self, shard: &ShardInfo) -> Self::Processor;
}

impl<P: RecordProcessor, F: Fn(&ShardInfo) -> P + Send + Sync + 'static> RecordProcessorFactory
    for F
{
    type Processor = P;
    fn create(&self, shard: &ShardInfo) -> P {
        self(shard)
    }
}
