//! RegisterStreamConsumer, DeregisterStreamConsumer, DescribeStreamConsumer and ListStreamConsumers.

use crate::api::named;
use crate::api::token::{self, ListConsumersToken};
use crate::engine::catalog::{Consumer, Status, Stream};
use crate::engine::{Engine, NewConsumer};
use crate::error::ApiError;
use millstream_wire::limits::LIST_CONSUMERS_TOKEN_TTL_SECONDS;
use millstream_wire::shapes::{
    self, ConsumerDescription, ConsumerStatus, DeregisterStreamConsumerRequest,
    DescribeStreamConsumerRequest, DescribeStreamConsumerResponse, Empty,
    ListStreamConsumersRequest, ListStreamConsumersResponse, RegisterStreamConsumerRequest,
    RegisterStreamConsumerResponse, Timestamp,
};
use millstream_wire::{ConsumerArn, ConsumerName, Operation, StreamArn};

/// Consumers in one ListStreamConsumers answer unless the request says otherwise (model).
const LIST_CONSUMERS_DEFAULT_COUNT: usize = 100;

pub(super) async fn register(
    engine: &Engine,
    request: RegisterStreamConsumerRequest,
) -> Result<RegisterStreamConsumerResponse, ApiError> {
    let stream = parse_stream(&request.stream_arn.unwrap_or_default())?;
    let new = NewConsumer {
        stream: stream.clone(),
        name: parse_name(&request.consumer_name.unwrap_or_default())?,
        tags: request.tags.unwrap_or_default(),
    };
    let consumer = engine.register_consumer(new).await?;
    // AWS says CREATING here however short it is.
    let consumer = shapes::Consumer {
        consumer_status: ConsumerStatus::Creating,
        ..summary(&consumer, &stream, engine.now_ms())
    };
    Ok(RegisterStreamConsumerResponse { consumer })
}

pub(super) async fn deregister(
    engine: &Engine,
    request: &DeregisterStreamConsumerRequest,
) -> Result<Empty, ApiError> {
    let (stream, consumer) = find(
        engine,
        request.stream_arn.as_deref(),
        request.consumer_name.as_deref(),
        request.consumer_arn.as_deref(),
    )?;
    engine.count_call_on(Operation::DeregisterStreamConsumer, &stream)?;
    engine.deregister_consumer(&stream, &consumer.name).await?;
    Ok(Empty {})
}

pub(super) fn describe(
    engine: &Engine,
    request: &DescribeStreamConsumerRequest,
) -> Result<DescribeStreamConsumerResponse, ApiError> {
    let (stream, consumer) = find(
        engine,
        request.stream_arn.as_deref(),
        request.consumer_name.as_deref(),
        request.consumer_arn.as_deref(),
    )?;
    engine.count_call_on(Operation::DescribeStreamConsumer, &stream)?;
    let shapes::Consumer {
        consumer_name,
        consumer_arn,
        consumer_status,
        consumer_creation_timestamp,
    } = summary(&consumer, &stream, engine.now_ms());
    Ok(DescribeStreamConsumerResponse {
        consumer_description: ConsumerDescription {
            consumer_name,
            consumer_arn,
            consumer_status,
            consumer_creation_timestamp,
            stream_arn: stream.to_string(),
        },
    })
}

pub(super) fn list(
    engine: &Engine,
    request: &ListStreamConsumersRequest,
) -> Result<ListStreamConsumersResponse, ApiError> {
    let now_ms = engine.now_ms();
    let arn = parse_stream(request.stream_arn.as_deref().unwrap_or_default())?;
    // The model names the error; that it is about these states is ours, as of ListShards.
    let stream = engine.ready_stream(&arn)?;
    engine.count_call_on(Operation::ListStreamConsumers, &arn)?;
    let after = after(request, &stream, now_ms)?;
    let max = request
        .max_results
        .and_then(|max| usize::try_from(max).ok());
    let mut consumers = stream.listed_consumers(now_ms).filter(|consumer| {
        let name = consumer.name.as_str();
        after.as_deref().is_none_or(|after| name > after)
    });
    let page: Vec<&Consumer> = consumers
        .by_ref()
        .take(max.unwrap_or(LIST_CONSUMERS_DEFAULT_COUNT))
        .collect();
    let next_token = match (consumers.next(), page.last()) {
        (Some(_), Some(last)) => Some(token::encode(&ListConsumersToken {
            arn: arn.to_string(),
            after_consumer: last.name.to_string(),
            minted_ms: now_ms,
        })?),
        _ => None,
    };
    let listed = page.into_iter().map(|one| summary(one, &arn, now_ms));
    Ok(ListStreamConsumersResponse {
        consumers: listed.collect(),
        next_token,
    })
}

/// The name after which the page begins.
fn after(
    request: &ListStreamConsumersRequest,
    stream: &Stream,
    now_ms: u64,
) -> Result<Option<String>, ApiError> {
    let other_stream = request.stream_creation_timestamp.is_some_and(|at| {
        u64::try_from(at.millis).is_ok_and(|ms| ms / 1_000 != stream.created_ms / 1_000)
    });
    if other_stream {
        return Err(ApiError::stream_not_found(named(&stream.arn)));
    }
    let Some(text) = request.next_token.as_deref() else {
        return Ok(None);
    };
    if request.stream_creation_timestamp.is_some() {
        return Err(ApiError::list_consumers_token_and_time());
    }
    let token: ListConsumersToken = token::decode(text).ok_or_else(ApiError::invalid_next_token)?;
    if token.arn != stream.arn.to_string() {
        return Err(ApiError::invalid_next_token());
    }
    token::check_age(token.minted_ms, LIST_CONSUMERS_TOKEN_TTL_SECONDS, now_ms)?;
    Ok(Some(token.after_consumer))
}

/// The consumer a request names, by its ARN, or by stream and name; where both are given they must agree.
fn find(
    engine: &Engine,
    stream: Option<&str>,
    name: Option<&str>,
    arn: Option<&str>,
) -> Result<(StreamArn, Consumer), ApiError> {
    let stream = stream.map(parse_stream).transpose()?;
    let name = name.map(parse_name).transpose()?;
    let Some(arn) = arn else {
        let (Some(stream), Some(name)) = (stream, name) else {
            return Err(ApiError::consumer_not_named());
        };
        let consumer = engine.consumer(&stream, &name)?;
        return Ok((stream, consumer));
    };
    let arn = parse_consumer(arn)?;
    let agree = stream.is_none_or(|stream| stream == arn.stream)
        && name.is_none_or(|name| name == arn.name);
    if !agree {
        return Err(ApiError::consumer_named_twice());
    }
    let consumer = engine.consumer_of(&arn)?;
    Ok((arn.stream, consumer))
}

fn parse_stream(text: &str) -> Result<StreamArn, ApiError> {
    text.parse::<StreamArn>()
        .map_err(|error| ApiError::invalid_argument(error.to_string()))
}

pub(super) fn parse_consumer(text: &str) -> Result<ConsumerArn, ApiError> {
    text.parse::<ConsumerArn>()
        .map_err(|error| ApiError::invalid_argument(error.to_string()))
}

fn parse_name(text: &str) -> Result<ConsumerName, ApiError> {
    text.parse::<ConsumerName>()
        .map_err(|error| ApiError::invalid_argument(error.to_string()))
}

fn summary(consumer: &Consumer, stream: &StreamArn, now_ms: u64) -> shapes::Consumer {
    // One that is gone was not found in the first place.
    let status = consumer.status(now_ms).unwrap_or(Status::Deleting);
    shapes::Consumer {
        consumer_name: consumer.name.to_string(),
        consumer_arn: consumer.arn(stream).to_string(),
        consumer_status: ConsumerStatus::from(status.name()),
        consumer_creation_timestamp: Timestamp::from_millis(consumer.created_ms),
    }
}
