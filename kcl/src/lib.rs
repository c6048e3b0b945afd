//! A native Kinesis Client Library: process every record of a stream at least once, on as many
//! workers as you like.

pub mod checkpoint;
pub mod client;
pub mod clock;
pub mod error;
pub mod lease;
pub mod processor;

pub use checkpoint::{Checkpointer, Position};
pub use error::{Error, ErrorKind};
pub use lease::{Lease, LeaseStore};
pub use processor::{
    ProcessorError, RecordBatch, RecordProcessor, RecordProcessorFactory, ShardInfo,
};
