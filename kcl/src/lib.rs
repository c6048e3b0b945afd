//! A native Kinesis Client Library: process every record of a stream at least once, on as many
//! workers as you like.

pub mod checkpoint;
pub mod client;
pub mod clock;
pub mod config;
pub mod error;
#[cfg(test)]
mod fake;
mod fetch;
pub mod lease;
pub mod processor;
mod shard;
pub mod worker;

pub use checkpoint::{Checkpointer, Position};
pub use config::{InitialPosition, WorkerConfig};
pub use error::{Error, ErrorKind};
pub use lease::{Lease, LeaseStore, MemoryLeaseStore, SqliteLeaseStore};
pub use processor::{
    ProcessorError, RecordBatch, RecordProcessor, RecordProcessorFactory, ShardInfo,
};
pub use worker::{Worker, WorkerBuilder, WorkerHandle};
