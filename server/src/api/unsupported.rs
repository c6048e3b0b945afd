//! Operations that AWS has and this server does not: the request is checked like any other, then refused
//! in a way that an SDK knows.

use crate::api::{Body, Output, parse};
use crate::error::ApiError;
use millstream_wire::Operation;
use millstream_wire::shapes::{
    AcknowledgeDeadLetterQueueRecordsRequest, AcknowledgeQueueRecordsRequest, CreateChannelRequest,
    CreateQueueRequest, DeleteChannelRequest, DeleteQueueRequest, DescribeChannelRequest,
    DescribeQueueRequest, ListChannelsRequest, ListQueuesRequest,
    ReceiveDeadLetterQueueRecordsRequest, ReceiveQueueRecordsRequest, Request,
    RestoreDeadLetterQueueRecordsRequest, UpdateChannelRequest,
    UpdateDeadLetterQueueRecordsVisibilityRequest, UpdateQueueRecordsVisibilityRequest,
    UpdateQueueRequest,
};
use serde::de::DeserializeOwned;

/// The answer to an operation that nothing else answers.
pub(super) fn answer(operation: Operation, body: Body<'_>) -> Result<Box<dyn Output>, ApiError> {
    let refuse = match operation {
        Operation::AcknowledgeDeadLetterQueueRecords => {
            refuse::<AcknowledgeDeadLetterQueueRecordsRequest>
        }
        Operation::AcknowledgeQueueRecords => refuse::<AcknowledgeQueueRecordsRequest>,
        Operation::CreateChannel => refuse::<CreateChannelRequest>,
        Operation::CreateQueue => refuse::<CreateQueueRequest>,
        Operation::DeleteChannel => refuse::<DeleteChannelRequest>,
        Operation::DeleteQueue => refuse::<DeleteQueueRequest>,
        Operation::DescribeChannel => refuse::<DescribeChannelRequest>,
        Operation::DescribeQueue => refuse::<DescribeQueueRequest>,
        Operation::ListChannels => refuse::<ListChannelsRequest>,
        Operation::ListQueues => refuse::<ListQueuesRequest>,
        Operation::ReceiveDeadLetterQueueRecords => refuse::<ReceiveDeadLetterQueueRecordsRequest>,
        Operation::ReceiveQueueRecords => refuse::<ReceiveQueueRecordsRequest>,
        Operation::RestoreDeadLetterQueueRecords => refuse::<RestoreDeadLetterQueueRecordsRequest>,
        Operation::UpdateChannel => refuse::<UpdateChannelRequest>,
        Operation::UpdateDeadLetterQueueRecordsVisibility => {
            refuse::<UpdateDeadLetterQueueRecordsVisibilityRequest>
        }
        Operation::UpdateQueue => refuse::<UpdateQueueRequest>,
        Operation::UpdateQueueRecordsVisibility => refuse::<UpdateQueueRecordsVisibilityRequest>,
        // The enum may grow in `wire` before an operation is served here.
        _ => return Err(ApiError::unknown_operation()),
    };
    refuse(body)
}

fn refuse<R: Request + DeserializeOwned>(body: Body<'_>) -> Result<Box<dyn Output>, ApiError> {
    parse::<R>(body)?;
    Err(ApiError::not_supported(R::OPERATION))
}
