//! Shards: `ListShards`, `SplitShard` and `MergeShards`.

use serde::{Deserialize, Serialize};

use super::constraint::{
    Constraint, HASH_KEY, LIST_LIMIT, NEXT_TOKEN, SHARD_FILTER_TYPE, SHARD_ID, STREAM_ARN,
    STREAM_ID, STREAM_NAME, TIMESTAMP,
};
use super::lenient;
use super::open_enum::ShardFilterType;
use super::validate::Declared;
use super::value::{Timestamp, as_text};
use crate::hash_key::{HashKey, HashKeyRange};

static FILTER: Constraint = Constraint::structure(ShardFilter::MEMBERS);

shape! {
    /// Lists a stream's shards, page by page.
    ListShardsRequest {
        /// The shard after which to begin.
        exclusive_start_shard_id: String = "ExclusiveStartShardId", optional SHARD_ID;
        /// How many at most.
        #[serde(deserialize_with = "lenient::integer")]
        max_results: i64 = "MaxResults", optional LIST_LIMIT;
        /// Where the previous page ended; instead of the stream's name.
        next_token: String = "NextToken", optional NEXT_TOKEN;
        /// Which of the streams that ever had this name.
        stream_creation_timestamp: Timestamp = "StreamCreationTimestamp", optional TIMESTAMP;
        /// Which shards.
        #[serde(deserialize_with = "lenient::structure")]
        shard_filter: ShardFilter = "ShardFilter", optional FILTER;
        /// The stream, by name.
        stream_name: String = "StreamName", optional STREAM_NAME;
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", optional STREAM_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}

shape! {
    /// Which shards to list.
    ShardFilter {
        /// The kind of choice. In Rust `filter_type`, on the wire `Type`.
        filter_type: ShardFilterType = "Type", required SHARD_FILTER_TYPE;
        /// The shard id, for the kind that needs one.
        shard_id: String = "ShardId", optional SHARD_ID;
        /// The time, for the kinds that need one.
        timestamp: Timestamp = "Timestamp", optional TIMESTAMP;
    }
}

/// A page of shards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListShardsResponse {
    /// The shards, by id.
    #[serde(default)]
    pub shards: Vec<Shard>,
    /// Where to go on, if there are more; good for 300 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// A shard, open or closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Shard {
    /// Its id.
    pub shard_id: String,
    /// The shard it came from by a split, or the first of the two it came from by a merge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_shard_id: Option<String>,
    /// The second of the two shards it came from by a merge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adjacent_parent_shard_id: Option<String>,
    /// Its share of the hash keys.
    pub hash_key_range: KeyRange,
    /// Its sequence numbers.
    pub sequence_number_range: SequenceNumberRange,
}

/// A [`HashKeyRange`] as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyRange {
    /// The first hash key.
    #[serde(with = "as_text")]
    pub starting_hash_key: HashKey,
    /// The last hash key.
    #[serde(with = "as_text")]
    pub ending_hash_key: HashKey,
}

impl From<HashKeyRange> for KeyRange {
    fn from(range: HashKeyRange) -> Self {
        KeyRange {
            starting_hash_key: range.start,
            ending_hash_key: range.end,
        }
    }
}

impl From<KeyRange> for HashKeyRange {
    fn from(range: KeyRange) -> Self {
        HashKeyRange {
            start: range.starting_hash_key,
            end: range.ending_hash_key,
        }
    }
}

/// A shard's sequence numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SequenceNumberRange {
    /// No record has a smaller one.
    pub starting_sequence_number: String,
    /// No record has a greater one; absent while the shard is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending_sequence_number: Option<String>,
}

shape! {
    /// Splits a shard in two.
    SplitShardRequest {
        /// Where the second child begins.
        new_starting_hash_key: String = "NewStartingHashKey", required HASH_KEY;
        /// The stream, by name.
        stream_name: String = "StreamName", optional STREAM_NAME;
        /// The shard.
        shard_to_split: String = "ShardToSplit", required SHARD_ID;
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", optional STREAM_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}

shape! {
    /// Merges two adjacent shards.
    MergeShardsRequest {
        /// The shard with the lower hash keys.
        shard_to_merge: String = "ShardToMerge", required SHARD_ID;
        /// The shard that begins where the other ends.
        adjacent_shard_to_merge: String = "AdjacentShardToMerge", required SHARD_ID;
        /// The stream, by name.
        stream_name: String = "StreamName", optional STREAM_NAME;
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", optional STREAM_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}
