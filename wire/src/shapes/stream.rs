//! Streams: creating, deleting, describing, listing, and how long they retain.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::constraint::{
    BOOLEAN, Constraint, INTEGER, LIST_LIMIT, MAX_RECORD_SIZE, NATURAL_INTEGER, NEXT_TOKEN,
    POSITIVE_INTEGER, RECORD_DISTRIBUTION, SHARD_ID, STREAM_ARN, STREAM_ID, STREAM_MODE,
    STREAM_NAME, TAG_MAP,
};
use super::lenient;
use super::open_enum::{EncryptionType, RecordDistributionStrategy, StreamMode, StreamStatus};
use super::shard::Shard;
use super::tags::KEEP_TAGS;
use super::validate::Declared;
use super::value::Timestamp;

static MODE_DETAILS: Constraint = Constraint::structure(StreamModeDetailsInput::MEMBERS);

shape! {
    /// Creates a stream.
    CreateStreamRequest {
        /// How many shards; may be absent for an on-demand stream.
        #[serde(deserialize_with = "lenient::integer")]
        shard_count: i64 = "ShardCount", optional POSITIVE_INTEGER;
        /// Its name.
        stream_name: String = "StreamName", required STREAM_NAME;
        /// Who decides on the number of shards.
        #[serde(deserialize_with = "lenient::structure")]
        stream_mode_details: StreamModeDetailsInput = "StreamModeDetails", optional MODE_DETAILS;
        /// Its first tags.
        #[serde(deserialize_with = "lenient::map::<_, KEEP_TAGS>")]
        tags: BTreeMap<String, String> = "Tags", optional TAG_MAP;
        /// Write throughput to be ready for, in MiB per second.
        #[serde(deserialize_with = "lenient::integer")]
        warm_throughput_mibps: i64 = "WarmThroughputMiBps", optional NATURAL_INTEGER;
        /// The largest record it takes, data and partition key, in KiB.
        #[serde(deserialize_with = "lenient::integer")]
        max_record_size_in_kib: i64 = "MaxRecordSizeInKiB", optional MAX_RECORD_SIZE;
        /// What spreads its records over shards.
        record_distribution_strategy: RecordDistributionStrategy =
            "RecordDistributionStrategy", optional RECORD_DISTRIBUTION;
    }
}

shape! {
    /// Who decides on the number of shards, in a request.
    StreamModeDetailsInput {
        /// The mode.
        stream_mode: StreamMode = "StreamMode", required STREAM_MODE;
    }
}

/// Who decides on the number of shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StreamModeDetails {
    /// The mode.
    pub stream_mode: StreamMode,
}

shape! {
    /// Deletes a stream with its records.
    DeleteStreamRequest {
        /// The stream, by name.
        stream_name: String = "StreamName", optional STREAM_NAME;
        /// Whether its consumers are deleted with it; otherwise they keep it.
        #[serde(deserialize_with = "lenient::boolean")]
        enforce_consumer_deletion: bool = "EnforceConsumerDeletion", optional BOOLEAN;
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", optional STREAM_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}

shape! {
    /// Describes a stream and its shards, page by page.
    DescribeStreamRequest {
        /// How many shards at most.
        #[serde(deserialize_with = "lenient::integer")]
        limit: i64 = "Limit", optional LIST_LIMIT;
        /// The shard after which to begin.
        exclusive_start_shard_id: String = "ExclusiveStartShardId", optional SHARD_ID;
        /// The stream, by name.
        stream_name: String = "StreamName", optional STREAM_NAME;
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", optional STREAM_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}

/// A stream with shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeStreamResponse {
    /// The stream.
    pub stream_description: StreamDescription,
}

/// A stream with shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StreamDescription {
    /// Its name.
    pub stream_name: String,
    /// Its ARN.
    #[serde(rename = "StreamARN")]
    pub stream_arn: String,
    /// What it is doing.
    pub stream_status: StreamStatus,
    /// Who decides on the number of shards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_mode_details: Option<StreamModeDetails>,
    /// Its shards, by id.
    #[serde(default)]
    pub shards: Vec<Shard>,
    /// Whether there are more.
    pub has_more_shards: bool,
    /// How long records stay readable.
    pub retention_period_hours: u32,
    /// When it was created.
    #[serde(default)]
    pub stream_creation_timestamp: Timestamp,
    /// Metrics by shard.
    #[serde(default)]
    pub enhanced_monitoring: Vec<EnhancedMetrics>,
    /// How its records are encrypted at rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_type: Option<EncryptionType>,
    /// The key they are encrypted with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
}

/// Which metrics are kept by shard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EnhancedMetrics {
    /// Their names.
    #[serde(default)]
    pub shard_level_metrics: Vec<String>,
}

shape! {
    /// Describes a stream without its shards.
    DescribeStreamSummaryRequest {
        /// The stream, by name.
        stream_name: String = "StreamName", optional STREAM_NAME;
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", optional STREAM_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}

/// A stream without shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeStreamSummaryResponse {
    /// The stream.
    pub stream_description_summary: StreamDescriptionSummary,
}

/// A stream without shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StreamDescriptionSummary {
    /// Its name.
    pub stream_name: String,
    /// Its ARN.
    #[serde(rename = "StreamARN")]
    pub stream_arn: String,
    /// Reserved by AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
    /// What it is doing.
    pub stream_status: StreamStatus,
    /// Who decides on the number of shards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_mode_details: Option<StreamModeDetails>,
    /// How long records stay readable.
    pub retention_period_hours: u32,
    /// When it was created.
    #[serde(default)]
    pub stream_creation_timestamp: Timestamp,
    /// Metrics by shard.
    #[serde(default)]
    pub enhanced_monitoring: Vec<EnhancedMetrics>,
    /// How its records are encrypted at rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_type: Option<EncryptionType>,
    /// The key they are encrypted with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// Shards that take records.
    pub open_shard_count: u32,
    /// Registered consumers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer_count: Option<u32>,
    /// Throughput it is ready for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_throughput: Option<WarmThroughput>,
    /// The largest record it takes, data and partition key, in KiB.
    #[serde(
        default,
        rename = "MaxRecordSizeInKiB",
        skip_serializing_if = "Option::is_none"
    )]
    pub max_record_size_in_kib: Option<u32>,
    /// Delivery channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_count: Option<u32>,
    /// What spreads its records over shards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_distribution_strategy: Option<RecordDistributionStrategy>,
    /// Queues over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_count: Option<u32>,
}

/// Throughput a stream is ready for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmThroughput {
    /// What was asked for, in MiB per second.
    #[serde(
        default,
        rename = "TargetMiBps",
        skip_serializing_if = "Option::is_none"
    )]
    pub target_mibps: Option<u32>,
    /// What there is, in MiB per second.
    #[serde(
        default,
        rename = "CurrentMiBps",
        skip_serializing_if = "Option::is_none"
    )]
    pub current_mibps: Option<u32>,
}

shape! {
    /// Lists streams by name, page by page.
    ListStreamsRequest {
        /// How many at most.
        #[serde(deserialize_with = "lenient::integer")]
        limit: i64 = "Limit", optional LIST_LIMIT;
        /// The name after which to begin.
        exclusive_start_stream_name: String = "ExclusiveStartStreamName", optional STREAM_NAME;
        /// Where the previous page ended.
        next_token: String = "NextToken", optional NEXT_TOKEN;
    }
}

/// A page of streams.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListStreamsResponse {
    /// Their names.
    pub stream_names: Vec<String>,
    /// Whether there are more.
    pub has_more_streams: bool,
    /// Where to go on, if there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
    /// The same streams with more of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_summaries: Option<Vec<StreamSummary>>,
}

/// A stream in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StreamSummary {
    /// Its name.
    pub stream_name: String,
    /// Its ARN.
    #[serde(rename = "StreamARN")]
    pub stream_arn: String,
    /// What it is doing.
    pub stream_status: StreamStatus,
    /// Who decides on the number of shards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_mode_details: Option<StreamModeDetails>,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_creation_timestamp: Option<Timestamp>,
}

shape! {
    /// Makes a stream retain its records longer.
    IncreaseStreamRetentionPeriodRequest {
        /// How long they stay readable, in hours.
        #[serde(deserialize_with = "lenient::integer")]
        retention_period_hours: i64 = "RetentionPeriodHours", required INTEGER;
        /// The stream, by name.
        stream_name: String = "StreamName", optional STREAM_NAME;
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", optional STREAM_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}

shape! {
    /// Makes a stream retain its records for a shorter time.
    DecreaseStreamRetentionPeriodRequest {
        /// How long they stay readable, in hours.
        #[serde(deserialize_with = "lenient::integer")]
        retention_period_hours: i64 = "RetentionPeriodHours", required INTEGER;
        /// The stream, by name.
        stream_name: String = "StreamName", optional STREAM_NAME;
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", optional STREAM_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}
