//! What an operation on the log can fail with. Coarse on purpose: one variant per thing a caller
//! would do differently.

use std::io;
use std::sync::Arc;

use crate::log::LogShard;

/// Why the log refused or could not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The shard takes no more records.
    #[error("log shard {} is sealed", .0.0)]
    Sealed(LogShard),
    /// No such shard.
    #[error("log shard {} does not exist", .0.0)]
    Unknown(LogShard),
    /// A transaction creates a shard that is there already.
    #[error("log shard {} exists already", .0.0)]
    Exists(LogShard),
    /// The byte budget of the queue, or of reads, stayed full; try again later.
    #[error("the log's budget of {queue_bytes} bytes has no room for {wanted_bytes} more; retry")]
    Overloaded {
        /// What the entry needed.
        wanted_bytes: usize,
        /// The whole budget.
        queue_bytes: usize,
    },
    /// The entry is larger than the queue can ever hold.
    #[error("an entry of {bytes} bytes is over the limit of {limit_bytes}; send less at once")]
    TooLarge {
        /// What the entry needed.
        bytes: usize,
        /// The most an entry may need.
        limit_bytes: usize,
    },
    /// A write or a sync failed earlier: nothing more is written until a restart. Reads go on.
    #[error(
        "the log takes no writes since {operation} failed ({reason}); fix the disk and restart"
    )]
    Poisoned {
        /// The operation that failed first.
        operation: &'static str,
        /// What it failed with.
        reason: String,
    },
    /// The disk has no room for another segment. Nothing was written; free space and retry.
    #[error("no space for another segment of {segment_bytes} bytes: {source}")]
    NoSpace {
        /// The size of the segment that did not fit.
        segment_bytes: u64,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// What is on disk is not what was written there.
    #[error("segment {segment} is damaged at byte {offset}: {reason}; restore it from a copy")]
    Corrupt {
        /// The segment's number.
        segment: u64,
        /// Where in the segment.
        offset: u64,
        /// What does not hold.
        reason: String,
    },
    /// Another process serves this directory.
    #[error("data directory {directory} is in use by another process; stop it or choose another")]
    InUse {
        /// The directory.
        directory: String,
    },
    /// The directory was written by a newer version.
    #[error("{name} has the format {found:?}, this version reads {known:?}; use a newer version")]
    NewerFormat {
        /// The file or directory.
        name: String,
        /// What it says.
        found: String,
        /// What would be understood.
        known: String,
    },
    /// The directory holds something, but no log.
    #[error("{directory} is not a data directory: {reason}; choose an empty or a new one")]
    NotADataDirectory {
        /// The directory.
        directory: String,
        /// What was found.
        reason: String,
    },
    /// A file operation failed.
    #[error("{operation} of {name} failed: {source}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On which file.
        name: String,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// The metadata refused an event, or its stored state could not be understood.
    #[error("metadata: {0}")]
    Metadata(#[from] MetadataError),
}

/// Why a metadata event or a stored state was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MetadataError(pub String);

impl Error {
    pub(crate) fn io(operation: &'static str, name: &str, source: io::Error) -> Error {
        Error::Io {
            operation,
            name: name.to_owned(),
            source: Arc::new(source),
        }
    }

    pub(crate) fn corrupt(segment: u64, offset: u64, reason: impl Into<String>) -> Error {
        Error::Corrupt {
            segment,
            offset,
            reason: reason.into(),
        }
    }
}
