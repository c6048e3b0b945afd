//! Settings of a stream: shard count, mode, encryption, monitoring, record size, throughput.

use serde::{Deserialize, Serialize};

use super::constraint::{
    Constraint, ENCRYPTION_TYPE, KEY_ID, MAX_RECORD_SIZE, METRICS, NATURAL_INTEGER,
    POSITIVE_INTEGER, RECORD_DISTRIBUTION, SCALING_TYPE, STREAM_ARN, STREAM_ID, STREAM_NAME,
};
use super::lenient;
use super::open_enum::{EncryptionType, RecordDistributionStrategy};
use super::stream::{StreamModeDetailsInput, WarmThroughput};
use super::validate::Declared;

static MODE_DETAILS: Constraint = Constraint::structure(StreamModeDetailsInput::MEMBERS);

/// Keeps one metric more than is allowed: enough to refuse the request.
const KEEP_METRICS: usize = 8;

shape! {
    /// Gives a stream another number of shards, all of the same width.
    UpdateShardCountRequest {
        /// How; there is one way.
        scaling_type: String = "ScalingType", required SCALING_TYPE;
        /// The stream, by name.
        stream_name: String = "StreamName", optional STREAM_NAME;
        /// How many shards.
        #[serde(deserialize_with = "lenient::integer")]
        target_shard_count: i64 = "TargetShardCount", required POSITIVE_INTEGER;
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", optional STREAM_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}

/// The number of shards before and after.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateShardCountResponse {
    /// The stream's name.
    pub stream_name: String,
    /// Open shards before.
    pub current_shard_count: u32,
    /// Open shards after.
    pub target_shard_count: u32,
    /// The stream's ARN.
    #[serde(rename = "StreamARN")]
    pub stream_arn: String,
}

shape! {
    /// Changes who decides on a stream's number of shards.
    UpdateStreamModeRequest {
        /// The stream.
        stream_arn: String = "StreamARN", required STREAM_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
        /// The mode.
        #[serde(deserialize_with = "lenient::structure")]
        stream_mode_details: StreamModeDetailsInput = "StreamModeDetails", required MODE_DETAILS;
        /// Write throughput to be ready for, in MiB per second.
        #[serde(deserialize_with = "lenient::integer")]
        warm_throughput_mibps: i64 = "WarmThroughputMiBps", optional NATURAL_INTEGER;
    }
}

shape! {
    /// Makes an on-demand stream ready for a write throughput.
    UpdateStreamWarmThroughputRequest {
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", optional STREAM_ARN;
        /// The stream, by name.
        stream_name: String = "StreamName", optional STREAM_NAME;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
        /// The throughput, in MiB per second.
        #[serde(deserialize_with = "lenient::integer")]
        warm_throughput_mibps: i64 = "WarmThroughputMiBps", required NATURAL_INTEGER;
    }
}

/// The throughput a stream is made ready for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateStreamWarmThroughputResponse {
    /// The stream's ARN.
    #[serde(rename = "StreamARN")]
    pub stream_arn: String,
    /// The stream's name.
    pub stream_name: String,
    /// What was asked for and what there is.
    pub warm_throughput: WarmThroughput,
}

shape! {
    /// Changes the largest record a stream takes.
    UpdateMaxRecordSizeRequest {
        /// The stream.
        stream_arn: String = "StreamARN", optional STREAM_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
        /// Data and partition key, in KiB.
        #[serde(deserialize_with = "lenient::integer")]
        max_record_size_in_kib: i64 = "MaxRecordSizeInKiB", required MAX_RECORD_SIZE;
    }
}

shape! {
    /// Changes what spreads an on-demand stream's records over its shards.
    UpdateStreamRecordDistributionStrategyRequest {
        /// The stream.
        stream_arn: String = "StreamARN", required STREAM_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
        /// The strategy.
        record_distribution_strategy: RecordDistributionStrategy =
            "RecordDistributionStrategy", required RECORD_DISTRIBUTION;
    }
}

shape! {
    /// Has a stream's records encrypted from now on, or with another key.
    StartStreamEncryptionRequest {
        /// The stream, by name.
        stream_name: String = "StreamName", optional STREAM_NAME;
        /// With what.
        encryption_type: EncryptionType = "EncryptionType", required ENCRYPTION_TYPE;
        /// The key: an id, an ARN, or an alias.
        key_id: String = "KeyId", required KEY_ID;
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", optional STREAM_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}

shape! {
    /// Ends the encryption of new records.
    StopStreamEncryptionRequest {
        /// The stream, by name.
        stream_name: String = "StreamName", optional STREAM_NAME;
        /// With what they were encrypted.
        encryption_type: EncryptionType = "EncryptionType", required ENCRYPTION_TYPE;
        /// The key: an id, an ARN, or an alias.
        key_id: String = "KeyId", required KEY_ID;
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", optional STREAM_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}

shape! {
    /// Has metrics kept by shard.
    EnableEnhancedMonitoringRequest {
        /// The stream, by name.
        stream_name: String = "StreamName", optional STREAM_NAME;
        /// The metrics, or `ALL`.
        #[serde(deserialize_with = "lenient::list::<_, _, KEEP_METRICS>")]
        shard_level_metrics: Vec<String> = "ShardLevelMetrics", required METRICS;
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", optional STREAM_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}

shape! {
    /// Ends metrics by shard.
    DisableEnhancedMonitoringRequest {
        /// The stream, by name.
        stream_name: String = "StreamName", optional STREAM_NAME;
        /// The metrics, or `ALL`.
        #[serde(deserialize_with = "lenient::list::<_, _, KEEP_METRICS>")]
        shard_level_metrics: Vec<String> = "ShardLevelMetrics", required METRICS;
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", optional STREAM_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}

/// The metrics kept by shard, before and after.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EnhancedMonitoringResponse {
    /// The stream's name.
    pub stream_name: String,
    /// Before.
    #[serde(default)]
    pub current_shard_level_metrics: Vec<String>,
    /// After.
    #[serde(default)]
    pub desired_shard_level_metrics: Vec<String>,
    /// The stream's ARN.
    #[serde(rename = "StreamARN")]
    pub stream_arn: String,
}
