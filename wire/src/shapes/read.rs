//! Reading: `GetShardIterator` and `GetRecords`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::constraint::{
    BOOLEAN, LIST_LIMIT, SEQUENCE_NUMBER, SHARD_ID, SHARD_ITERATOR, SHARD_ITERATOR_TYPE,
    STREAM_ARN, STREAM_ID, STREAM_NAME, TIMESTAMP,
};
use super::lenient;
use super::open_enum::{EncryptionType, ShardIteratorType};
use super::shard::KeyRange;
use super::value::{self, Timestamp};
use crate::SequenceNumber;

shape! {
    /// Asks for a token to read a shard from a place on.
    GetShardIteratorRequest {
        /// The shard.
        shard_id: String = "ShardId", required SHARD_ID;
        /// The kind of place.
        shard_iterator_type: ShardIteratorType = "ShardIteratorType", required SHARD_ITERATOR_TYPE;
        /// The place, for the kinds that name a sequence number.
        starting_sequence_number: String = "StartingSequenceNumber", optional SEQUENCE_NUMBER;
        /// The place, for `AT_TIMESTAMP`.
        timestamp: Timestamp = "Timestamp", optional TIMESTAMP;
        /// The stream, by name.
        stream_name: String = "StreamName", optional STREAM_NAME;
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", optional STREAM_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
        /// Whether to check the request only.
        #[serde(deserialize_with = "lenient::boolean")]
        dry_run: bool = "DryRun", optional BOOLEAN;
    }
}

/// The token, good for 300 seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetShardIteratorResponse {
    /// The token.
    pub shard_iterator: String,
}

shape! {
    /// Reads records from a shard iterator on.
    GetRecordsRequest {
        /// How many records at most.
        #[serde(deserialize_with = "lenient::integer")]
        limit: i64 = "Limit", optional LIST_LIMIT;
        /// The token of the previous answer, or of `GetShardIterator`.
        shard_iterator: String = "ShardIterator", required SHARD_ITERATOR;
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", optional STREAM_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
        /// Whether to check the request only.
        #[serde(deserialize_with = "lenient::boolean")]
        dry_run: bool = "DryRun", optional BOOLEAN;
    }
}

/// Records, and where to go on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetRecordsResponse {
    /// The records in order; none is no sign of the end.
    pub records: Vec<Record>,
    /// The token to go on with; absent at the end of a closed shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_shard_iterator: Option<String>,
    /// How far behind the newest record this answer ends, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub millis_behind_latest: Option<u64>,
    /// At the end of a closed shard: the shards that follow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_shards: Option<Vec<ChildShard>>,
}

/// One record as it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Record {
    /// Its place in the shard.
    #[serde(with = "value::as_text")]
    pub sequence_number: SequenceNumber,
    /// When it arrived, about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approximate_arrival_timestamp: Option<Timestamp>,
    /// Its bytes.
    #[serde(with = "value::blob")]
    pub data: Bytes,
    /// What decided on its shard; empty where the producer gave none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub partition_key: String,
    /// How it is encrypted at rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_type: Option<EncryptionType>,
}

/// A shard that follows a closed one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ChildShard {
    /// Its id.
    pub shard_id: String,
    /// The shards it follows: one after a split, two after a merge.
    pub parent_shards: Vec<String>,
    /// Its share of the hash keys.
    pub hash_key_range: KeyRange,
}
