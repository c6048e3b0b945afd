//! Consumers with throughput of their own (enhanced fan-out).

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::constraint::{
    CONSUMER_ARN, CONSUMER_NAME, LIST_LIMIT, NEXT_TOKEN, STREAM_ARN, STREAM_ID, TAG_MAP, TIMESTAMP,
};
use super::lenient;
use super::open_enum::ConsumerStatus;
use super::tags::KEEP_TAGS;
use super::value::Timestamp;

shape! {
    /// Registers a consumer with a stream.
    RegisterStreamConsumerRequest {
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", required STREAM_ARN;
        /// Its name, the only one of it in the stream.
        consumer_name: String = "ConsumerName", required CONSUMER_NAME;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
        /// Its tags.
        #[serde(deserialize_with = "lenient::map::<_, KEEP_TAGS>")]
        tags: BTreeMap<String, String> = "Tags", optional TAG_MAP;
    }
}

/// The consumer that was registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RegisterStreamConsumerResponse {
    /// The consumer.
    pub consumer: Consumer,
}

/// A consumer in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Consumer {
    /// Its name.
    pub consumer_name: String,
    /// Its ARN.
    #[serde(rename = "ConsumerARN")]
    pub consumer_arn: String,
    /// What it is doing.
    pub consumer_status: ConsumerStatus,
    /// When it was registered.
    pub consumer_creation_timestamp: Timestamp,
}

shape! {
    /// Takes a consumer away from its stream.
    DeregisterStreamConsumerRequest {
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", optional STREAM_ARN;
        /// The consumer, by name.
        consumer_name: String = "ConsumerName", optional CONSUMER_NAME;
        /// The consumer, by ARN.
        consumer_arn: String = "ConsumerARN", optional CONSUMER_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}

shape! {
    /// Describes a consumer.
    DescribeStreamConsumerRequest {
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", optional STREAM_ARN;
        /// The consumer, by name.
        consumer_name: String = "ConsumerName", optional CONSUMER_NAME;
        /// The consumer, by ARN.
        consumer_arn: String = "ConsumerARN", optional CONSUMER_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}

/// A consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeStreamConsumerResponse {
    /// The consumer.
    pub consumer_description: ConsumerDescription,
}

/// A consumer and its stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ConsumerDescription {
    /// Its name.
    pub consumer_name: String,
    /// Its ARN.
    #[serde(rename = "ConsumerARN")]
    pub consumer_arn: String,
    /// What it is doing.
    pub consumer_status: ConsumerStatus,
    /// When it was registered.
    pub consumer_creation_timestamp: Timestamp,
    /// The stream it reads.
    #[serde(rename = "StreamARN")]
    pub stream_arn: String,
}

shape! {
    /// Lists a stream's consumers, page by page.
    ListStreamConsumersRequest {
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", required STREAM_ARN;
        /// Where the previous page ended.
        next_token: String = "NextToken", optional NEXT_TOKEN;
        /// How many at most.
        #[serde(deserialize_with = "lenient::integer")]
        max_results: i64 = "MaxResults", optional LIST_LIMIT;
        /// Which of the streams that ever had this name.
        stream_creation_timestamp: Timestamp = "StreamCreationTimestamp", optional TIMESTAMP;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}

/// A page of consumers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListStreamConsumersResponse {
    /// The consumers, by name.
    #[serde(default)]
    pub consumers: Vec<Consumer>,
    /// Where to go on, if there are more; good for 300 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}
