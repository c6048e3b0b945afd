//! Request and response structs by operation family, and what a request's members may hold.
//!
//! A request is read in two steps, as AWS does it: [`decode`] gives the struct or a
//! `SerializationException`, [`validate`] checks it against the table declared beside the struct.
//! [`parse`] does both. Every member of a request is optional, so that a missing one is answered for
//! by validation. Members that are not given are left out of the JSON; there are no nulls.
//!
//! ```
//! use millstream_wire::shapes::{self, PutRecordRequest};
//!
//! let body = br#"{"StreamName":"orders","PartitionKey":"a","Data":"aGVsbG8="}"#;
//! let request: PutRecordRequest<'_> = shapes::parse(body)?;
//! assert_eq!(request.data.map(|data| data.to_bytes()).unwrap_or_default(), "hello");
//!
//! let body = br#"{"StreamName":"","PartitionKey":"a","Data":true}"#;
//! let error = shapes::parse::<PutRecordRequest<'_>>(body).unwrap_err();
//! assert_eq!(error.to_string(), "class java.lang.Boolean can not be converted to a Blob");
//! # Ok::<(), shapes::Refused>(())
//! ```

/// Declares a structure of a request once: its members, their names on the wire, their constraints,
/// and whether they are required. Members stand in the order AWS checks them.
macro_rules! shape {
    (@is_required required) => { true };
    (@is_required optional) => { false };
    (
        $(#[$doc:meta])*
        $name:ident $(<$lifetime:lifetime>)? {
            $(
                $(#[$attribute:meta])*
                $field:ident: $type:ty = $wire:literal, $required:ident $constraint:expr;
            )*
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $name $(<$lifetime>)? {
            $(
                $(#[$attribute])*
                #[serde(rename = $wire, default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>,
            )*
        }

        impl $(<$lifetime>)? $crate::shapes::validate::Declared for $name $(<$lifetime>)? {
            const MEMBERS: &'static [$crate::shapes::constraint::Member] = &[
                $($crate::shapes::constraint::Member {
                    name: $wire,
                    required: shape!(@is_required $required),
                    constraint: &$constraint,
                },)*
            ];
        }

        impl $(<$lifetime>)? $crate::shapes::validate::Shape for $name $(<$lifetime>)? {
            fn each_member(
                &self,
                each: &mut dyn FnMut(
                    &$crate::shapes::constraint::Member,
                    $crate::shapes::validate::View<'_>,
                ),
            ) {
                let values = [$($crate::shapes::validate::Viewed::view(&self.$field),)*];
                let members = <Self as $crate::shapes::validate::Declared>::MEMBERS;
                for (member, value) in members.iter().zip(values) {
                    each(member, value);
                }
            }
        }

        impl $(<$lifetime>)? $crate::shapes::validate::Viewed for $name $(<$lifetime>)? {
            fn view(&self) -> $crate::shapes::validate::View<'_> {
                $crate::shapes::validate::View::Structure(self)
            }
        }
    };
}

mod account;
mod channel;
mod constraint;
mod consumer;
mod lenient;
mod open_enum;
mod pattern;
mod put;
mod queue;
mod read;
mod records;
mod resource;
mod settings;
mod shard;
mod stream;
mod subscribe;
mod tags;
#[cfg(test)]
mod tests;
mod types;
mod validate;
mod value;

use serde::{Deserialize, Serialize};

use crate::{Encoding, Operation, cbor};

pub use account::{
    AccountSettingsResponse, Commitment, CommitmentInput, DescribeAccountSettingsRequest,
    DescribeLimitsRequest, DescribeLimitsResponse, UpdateAccountSettingsRequest,
};
pub use channel::{
    CreateChannelRequest, DeleteChannelRequest, DescribeChannelRequest, ListChannelsRequest,
    UpdateChannelRequest,
};
pub use consumer::{
    Consumer, ConsumerDescription, DeregisterStreamConsumerRequest, DescribeStreamConsumerRequest,
    DescribeStreamConsumerResponse, ListStreamConsumersRequest, ListStreamConsumersResponse,
    RegisterStreamConsumerRequest, RegisterStreamConsumerResponse,
};
pub use open_enum::{
    ConsumerStatus, EncryptionType, RecordDistributionStrategy, ShardFilterType, ShardIteratorType,
    StreamMode, StreamStatus,
};
pub use put::{
    PutRecordRequest, PutRecordResponse, PutRecordsRequest, PutRecordsRequestEntry,
    PutRecordsResponse, PutRecordsResultEntry,
};
pub use queue::{
    AcknowledgeDeadLetterQueueRecordsRequest, AcknowledgeQueueRecordsRequest, CreateQueueRequest,
    DeleteQueueRequest, DescribeQueueRequest, ListQueuesRequest,
    ReceiveDeadLetterQueueRecordsRequest, ReceiveQueueRecordsRequest,
    RestoreDeadLetterQueueRecordsRequest, UpdateDeadLetterQueueRecordsVisibilityRequest,
    UpdateQueueRecordsVisibilityRequest, UpdateQueueRequest,
};
pub use read::{
    ChildShard, GetRecordsRequest, GetRecordsResponse, GetShardIteratorRequest,
    GetShardIteratorResponse, Record,
};
pub use records::{RecordView, RecordWriter};
pub use resource::{
    DeleteResourcePolicyRequest, GetResourcePolicyRequest, GetResourcePolicyResponse,
    ListTagsForResourceRequest, ListTagsForResourceResponse, PutResourcePolicyRequest,
    TagResourceRequest, UntagResourceRequest,
};
pub use settings::{
    DisableEnhancedMonitoringRequest, EnableEnhancedMonitoringRequest, EnhancedMonitoringResponse,
    StartStreamEncryptionRequest, StopStreamEncryptionRequest, UpdateMaxRecordSizeRequest,
    UpdateShardCountRequest, UpdateShardCountResponse, UpdateStreamModeRequest,
    UpdateStreamRecordDistributionStrategyRequest, UpdateStreamWarmThroughputRequest,
    UpdateStreamWarmThroughputResponse,
};
pub use shard::{
    KeyRange, ListShardsRequest, ListShardsResponse, MergeShardsRequest, SequenceNumberRange,
    Shard, ShardFilter, SplitShardRequest,
};
pub use stream::{
    CreateStreamRequest, DecreaseStreamRetentionPeriodRequest, DeleteStreamRequest,
    DescribeStreamRequest, DescribeStreamResponse, DescribeStreamSummaryRequest,
    DescribeStreamSummaryResponse, EnhancedMetrics, IncreaseStreamRetentionPeriodRequest,
    ListStreamsRequest, ListStreamsResponse, StreamDescription, StreamDescriptionSummary,
    StreamModeDetails, StreamModeDetailsInput, StreamSummary, WarmThroughput,
};
pub use subscribe::{StartingPosition, SubscribeToShardEvent, SubscribeToShardRequest};
pub use tags::{
    AddTagsToStreamRequest, ListTagsForStreamRequest, ListTagsForStreamResponse,
    RemoveTagsFromStreamRequest, Tag,
};
pub use value::{Blob, Text, Timestamp};

/// The answer of an operation that has nothing to say: no body at all in JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// A request's struct: which operation it belongs to, and its table.
pub trait Request: validate::Declared + Serialize {
    /// The operation.
    const OPERATION: Operation;
}

macro_rules! requests {
    ($($request:ty = $operation:ident,)+) => {
        $(impl Request for $request {
            const OPERATION: Operation = Operation::$operation;
        })+
    };
}

requests! {
    AcknowledgeDeadLetterQueueRecordsRequest = AcknowledgeDeadLetterQueueRecords,
    AcknowledgeQueueRecordsRequest = AcknowledgeQueueRecords,
    AddTagsToStreamRequest = AddTagsToStream,
    CreateChannelRequest = CreateChannel,
    CreateQueueRequest = CreateQueue,
    CreateStreamRequest = CreateStream,
    DecreaseStreamRetentionPeriodRequest = DecreaseStreamRetentionPeriod,
    DeleteChannelRequest = DeleteChannel,
    DeleteQueueRequest = DeleteQueue,
    DeleteResourcePolicyRequest = DeleteResourcePolicy,
    DeleteStreamRequest = DeleteStream,
    DeregisterStreamConsumerRequest = DeregisterStreamConsumer,
    DescribeAccountSettingsRequest = DescribeAccountSettings,
    DescribeChannelRequest = DescribeChannel,
    DescribeLimitsRequest = DescribeLimits,
    DescribeQueueRequest = DescribeQueue,
    DescribeStreamConsumerRequest = DescribeStreamConsumer,
    DescribeStreamRequest = DescribeStream,
    DescribeStreamSummaryRequest = DescribeStreamSummary,
    DisableEnhancedMonitoringRequest = DisableEnhancedMonitoring,
    EnableEnhancedMonitoringRequest = EnableEnhancedMonitoring,
    GetRecordsRequest = GetRecords,
    GetResourcePolicyRequest = GetResourcePolicy,
    GetShardIteratorRequest = GetShardIterator,
    IncreaseStreamRetentionPeriodRequest = IncreaseStreamRetentionPeriod,
    ListChannelsRequest = ListChannels,
    ListQueuesRequest = ListQueues,
    ListShardsRequest = ListShards,
    ListStreamConsumersRequest = ListStreamConsumers,
    ListStreamsRequest = ListStreams,
    ListTagsForResourceRequest = ListTagsForResource,
    ListTagsForStreamRequest = ListTagsForStream,
    MergeShardsRequest = MergeShards,
    PutRecordRequest<'_> = PutRecord,
    PutRecordsRequest<'_> = PutRecords,
    PutResourcePolicyRequest = PutResourcePolicy,
    ReceiveDeadLetterQueueRecordsRequest = ReceiveDeadLetterQueueRecords,
    ReceiveQueueRecordsRequest = ReceiveQueueRecords,
    RegisterStreamConsumerRequest = RegisterStreamConsumer,
    RemoveTagsFromStreamRequest = RemoveTagsFromStream,
    RestoreDeadLetterQueueRecordsRequest = RestoreDeadLetterQueueRecords,
    SplitShardRequest = SplitShard,
    StartStreamEncryptionRequest = StartStreamEncryption,
    StopStreamEncryptionRequest = StopStreamEncryption,
    SubscribeToShardRequest = SubscribeToShard,
    TagResourceRequest = TagResource,
    UntagResourceRequest = UntagResource,
    UpdateAccountSettingsRequest = UpdateAccountSettings,
    UpdateChannelRequest = UpdateChannel,
    UpdateDeadLetterQueueRecordsVisibilityRequest = UpdateDeadLetterQueueRecordsVisibility,
    UpdateMaxRecordSizeRequest = UpdateMaxRecordSize,
    UpdateQueueRecordsVisibilityRequest = UpdateQueueRecordsVisibility,
    UpdateQueueRequest = UpdateQueue,
    UpdateShardCountRequest = UpdateShardCount,
    UpdateStreamModeRequest = UpdateStreamMode,
    UpdateStreamRecordDistributionStrategyRequest = UpdateStreamRecordDistributionStrategy,
    UpdateStreamWarmThroughputRequest = UpdateStreamWarmThroughput,
}

/// Why a body is not a request; the text is AWS's message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A type differs from the declared one (`SerializationException`).
    #[error("{0}")]
    Type(String),
    /// The body is not a structure; AWS gives no message (`SerializationException`).
    #[error("the body is not a structure of the operation's shape")]
    Malformed,
    /// A member is outside its constraint (`ValidationException`).
    #[error("{0}")]
    Constraint(String),
}

/// Reads a JSON body into the request's struct, borrowing from the body where the struct does.
///
/// # Errors
/// [`Refused::Type`] or [`Refused::Malformed`].
pub fn decode<'de, R: Request + Deserialize<'de>>(body: &'de [u8]) -> Result<R, Refused> {
    // A derived struct also reads itself from a list of its members; AWS does not.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Refused::Malformed);
    }
    serde_json::from_slice(body)
        .map_err(|_| types::explain(body, R::MEMBERS).map_or(Refused::Malformed, Refused::Type))
}

/// Reads a body in an encoding into the request's struct, borrowing from the body where the struct
/// does.
///
/// # Errors
/// [`Refused::Type`] or [`Refused::Malformed`].
pub fn decode_as<'de, R>(encoding: Encoding, body: &'de [u8]) -> Result<R, Refused>
where
    R: Request + Deserialize<'de>,
{
    match encoding {
        Encoding::Json => decode(body),
        Encoding::Cbor => cbor::from_slice(body).map_err(|_| {
            types::explain_cbor(body, R::MEMBERS).map_or(Refused::Malformed, Refused::Type)
        }),
    }
}

/// Checks a request against its table.
///
/// # Errors
/// [`Refused::Constraint`], listing what is wrong with it.
pub fn validate<R: Request>(request: &R) -> Result<(), Refused> {
    validate::validate(request).map_err(Refused::Constraint)
}

/// Reads and checks a JSON body.
///
/// # Errors
/// As [`decode`], then as [`validate`].
pub fn parse<'de, R: Request + Deserialize<'de>>(body: &'de [u8]) -> Result<R, Refused> {
    parse_as(Encoding::Json, body)
}

/// Reads and checks a body in an encoding.
///
/// # Errors
/// As [`decode_as`], then as [`validate`].
pub fn parse_as<'de, R>(encoding: Encoding, body: &'de [u8]) -> Result<R, Refused>
where
    R: Request + Deserialize<'de>,
{
    let request = decode_as(encoding, body)?;
    validate(&request)?;
    Ok(request)
}
