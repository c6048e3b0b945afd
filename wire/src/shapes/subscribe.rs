//! Pushed records: `SubscribeToShard` and its events.

use serde::{Deserialize, Serialize};

use super::constraint::{
    BOOLEAN, CONSUMER_ARN, Constraint, SEQUENCE_NUMBER, SHARD_ID, SHARD_ITERATOR_TYPE, STREAM_ID,
    TIMESTAMP,
};
use super::lenient;
use super::open_enum::ShardIteratorType;
use super::read::{ChildShard, Record};
use super::validate::Declared;
use super::value::Timestamp;

static POSITION: Constraint = Constraint::structure(StartingPosition::MEMBERS);

shape! {
    /// Asks for a shard's records as they come.
    SubscribeToShardRequest {
        /// The consumer, by ARN.
        consumer_arn: String = "ConsumerARN", required CONSUMER_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
        /// The shard.
        shard_id: String = "ShardId", required SHARD_ID;
        /// Where to begin.
        #[serde(deserialize_with = "lenient::structure")]
        starting_position: StartingPosition = "StartingPosition", required POSITION;
        /// Whether to check the request only.
        #[serde(deserialize_with = "lenient::boolean")]
        dry_run: bool = "DryRun", optional BOOLEAN;
    }
}

shape! {
    /// Where a subscription begins.
    StartingPosition {
        /// The kind of place. In Rust `position_type`, on the wire `Type`.
        position_type: ShardIteratorType = "Type", required SHARD_ITERATOR_TYPE;
        /// The place, for the kinds that name a sequence number.
        sequence_number: String = "SequenceNumber", optional SEQUENCE_NUMBER;
        /// The place, for `AT_TIMESTAMP`.
        timestamp: Timestamp = "Timestamp", optional TIMESTAMP;
    }
}

/// One event of a subscription.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SubscribeToShardEvent {
    /// Records in order; none while there is nothing new.
    pub records: Vec<Record>,
    /// Where the next subscription goes on; absent at the end of a closed shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continuation_sequence_number: Option<String>,
    /// How far behind the newest record this event ends, in milliseconds.
    pub millis_behind_latest: u64,
    /// At the end of a closed shard: the shards that follow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_shards: Option<Vec<ChildShard>>,
}
