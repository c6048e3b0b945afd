//! Kinesis data types: what travels between a client and a stream server, and the arithmetic on it.
//!
//! A *stream* is a set of *shards*. Each open shard owns an inclusive range of 128-bit *hash keys*;
//! the ranges of all open shards tile the whole space. A record's *partition key* is hashed with MD5
//! to a hash key, which chooses the shard; inside a shard, records are ordered by *sequence number*.
//!
//! This crate does no I/O and owns no state. The server and the client library both build on it and
//! never on each other.

pub mod aggregation;
pub mod b64;
pub mod cbor;
mod digits;
pub mod encoding;
pub mod error_code;
pub mod hash_key;
pub mod limits;
pub mod names;
pub mod operation;
pub mod sequence;
pub mod shapes;

pub use encoding::Encoding;
pub use error_code::ErrorCode;
pub use hash_key::{HashKey, HashKeyRange};
pub use names::{AccountId, ConsumerArn, ConsumerName, Region, ShardId, StreamArn, StreamName};
pub use operation::Operation;
pub use sequence::SequenceNumber;
