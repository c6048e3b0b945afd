//! One function per operation: typed input, engine call, typed output. No locks, no files, no HTTP.

mod account;
mod consumer;
mod latency;
mod output;
mod put;
mod read;
mod request_id;
mod resource;
mod settings;
mod shard;
mod stream;
mod subscribe;
mod tags;
#[cfg(test)]
mod tests;
mod token;
mod unsupported;

pub use latency::{LATENCY_MAX_MS, Latency};
pub use output::{Encoded, PIECE_BYTES, Unencoded};
pub use request_id::RequestId;
pub use subscribe::{Event, Events};

use crate::api::output::{Output, answer, encode};
use crate::engine::Engine;
use crate::error::{ApiError, Named};
use crate::patience::Patience;
use bytes::Bytes;
use millstream_wire::shapes::{self, Request};
use millstream_wire::{AccountId, Encoding, Operation, Region, StreamArn, StreamName};
use serde::Deserialize;

/// A request whose operation and caller are known; its body has not been looked at yet.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is asked for.
    pub operation: Operation,
    /// How the body is encoded, and the answer shall be.
    pub encoding: Encoding,
    /// The body, as it was sent. Memory that is accounted for is held as long as this is.
    pub body: Bytes,
    /// Who asks.
    pub caller: Caller,
    /// The id in the answer's `x-amzn-RequestId`, for the log.
    pub request_id: RequestId,
    /// How long it may wait for room.
    pub patience: Patience,
}

/// Who asks, and where: names are looked up in the caller's account and region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The account the request is on.
    pub account: AccountId,
    /// The region the request was signed for, or the configured one.
    pub region: Region,
}

/// Runs calls.
pub trait Dispatch: Send + Sync + 'static {
    /// The answer, its body or its events in the encoding of the call.
    ///
    /// # Errors
    /// What the operation failed with.
    ///
    /// # Cancel safety
    /// The future is dropped when the client goes away. What it has handed on must finish, or not
    /// happen at all, without it.
    fn dispatch(&self, call: Call) -> impl Future<Output = Result<Answer, ApiError>> + Send;

    /// Whether calls can succeed at the moment, for `GET /ready`.
    fn is_ready(&self) -> bool {
        true
    }
}

impl<F, Outcome> Dispatch for F
where
    F: Fn(Call) -> Outcome + Send + Sync + 'static,
    Outcome: Future<Output = Result<Vec<u8>, ApiError>> + Send,
{
    async fn dispatch(&self, call: Call) -> Result<Answer, ApiError> {
        let body = self(call).await?;
        Ok(Answer::Body(Unencoded::raw(body)))
    }
}

/// What a call is answered with.
#[derive(Debug)]
pub enum Answer {
    /// The body, empty where the operation has nothing to say.
    Body(Unencoded),
    /// Events as they come.
    Events(Box<Events>),
}

/// The operations over an engine.
#[derive(Debug, Clone)]
pub struct Api {
    engine: Engine,
    latency: Latency,
}

impl Api {
    /// The operations over `engine`, each begun when a `latency` has passed.
    pub fn new(engine: Engine, latency: Latency) -> Api {
        Api { engine, latency }
    }
}

impl Dispatch for Api {
    async fn dispatch(&self, call: Call) -> Result<Answer, ApiError> {
        self.latency.pass().await;
        let engine = self.engine.within(call.patience);
        let body = Body {
            encoding: call.encoding,
            bytes: &call.body,
            asked: Asked {
                engine: &engine,
                operation: call.operation,
                caller: &call.caller,
            },
        };
        let answer = if call.operation == Operation::SubscribeToShard {
            let events = subscribe::subscribe(&engine, call.encoding, parse(body)?).await;
            events.map(|events| Answer::Events(Box::new(events)))
        } else {
            let output = run(&engine, call.operation, &call.caller, body).await;
            output.map(|output| Answer::Body(Unencoded::new(output, call.encoding)))
        };
        if let Err(error) = &answer
            && error.code == millstream_wire::ErrorCode::InternalFailure
        {
            tracing::error!(request_id = %call.request_id, operation = %call.operation, "failed");
        }
        answer
    }

    fn is_ready(&self) -> bool {
        !self.engine.is_poisoned()
    }
}

/// A request's body, which only [`parse`] looks into.
#[derive(Clone, Copy)]
struct Body<'b> {
    encoding: Encoding,
    bytes: &'b [u8],
    asked: Asked<'b>,
}

/// What is asked of whom by whom: all there is to know before the body is read.
#[derive(Clone, Copy)]
struct Asked<'b> {
    engine: &'b Engine,
    operation: Operation,
    caller: &'b Caller,
}

/// Runs an operation.
async fn run(
    engine: &Engine,
    operation: Operation,
    caller: &Caller,
    body: Body<'_>,
) -> Result<Box<dyn Output>, ApiError> {
    match operation {
        Operation::AddTagsToStream => answer(tags::add_tags(engine, caller, parse(body)?).await),
        Operation::CreateStream => {
            answer(stream::create_stream(engine, caller, parse(body)?).await)
        }
        Operation::DecreaseStreamRetentionPeriod => {
            answer(stream::decrease_retention(engine, caller, parse(body)?).await)
        }
        Operation::DeleteStream => {
            answer(stream::delete_stream(engine, caller, parse(body)?).await)
        }
        Operation::DeregisterStreamConsumer => {
            answer(consumer::deregister(engine, &parse(body)?).await)
        }
        Operation::DescribeStreamConsumer => answer(consumer::describe(engine, &parse(body)?)),
        Operation::DescribeStream => answer(stream::describe_stream(engine, caller, &parse(body)?)),
        Operation::DescribeStreamSummary => answer(stream::describe_stream_summary(
            engine,
            caller,
            &parse(body)?,
        )),
        Operation::GetRecords => answer(read::get_records(engine, parse(body)?).await),
        Operation::GetShardIterator => {
            answer(read::get_shard_iterator(engine, caller, parse(body)?).await)
        }
        Operation::IncreaseStreamRetentionPeriod => {
            answer(stream::increase_retention(engine, caller, parse(body)?).await)
        }
        Operation::ListShards => answer(shard::list_shards(engine, caller, &parse(body)?)),
        Operation::ListStreamConsumers => answer(consumer::list(engine, &parse(body)?)),
        Operation::ListStreams => answer(stream::list_streams(engine, caller, &parse(body)?)),
        Operation::ListTagsForStream => answer(tags::list_tags(engine, caller, &parse(body)?)),
        Operation::MergeShards => answer(shard::merge_shards(engine, caller, parse(body)?).await),
        Operation::PutRecord => answer(put::put_record(engine, caller, parse(body)?).await),
        Operation::PutRecords => answer(put::put_records(engine, caller, parse(body)?).await),
        Operation::RegisterStreamConsumer => answer(consumer::register(engine, parse(body)?).await),
        Operation::RemoveTagsFromStream => {
            answer(tags::remove_tags(engine, caller, parse(body)?).await)
        }
        Operation::SplitShard => answer(shard::split_shard(engine, caller, parse(body)?).await),
        other => settings_and_resources(engine, other, caller, body).await,
    }
}

/// The operations on settings, on resources by ARN, and on accounts.
async fn settings_and_resources(
    engine: &Engine,
    operation: Operation,
    caller: &Caller,
    body: Body<'_>,
) -> Result<Box<dyn Output>, ApiError> {
    match operation {
        Operation::DeleteResourcePolicy => {
            answer(resource::delete_policy(engine, parse(body)?).await)
        }
        Operation::DescribeAccountSettings => answer(Ok(account::describe_settings(
            engine,
            caller,
            &parse(body)?,
        ))),
        Operation::DescribeLimits => {
            answer(Ok(account::describe_limits(engine, caller, &parse(body)?)))
        }
        Operation::DisableEnhancedMonitoring => {
            answer(settings::disable_monitoring(engine, caller, parse(body)?).await)
        }
        Operation::EnableEnhancedMonitoring => {
            answer(settings::enable_monitoring(engine, caller, parse(body)?).await)
        }
        Operation::GetResourcePolicy => answer(resource::get_policy(engine, &parse(body)?)),
        Operation::ListTagsForResource => answer(resource::list_tags(engine, &parse(body)?)),
        Operation::PutResourcePolicy => answer(resource::put_policy(engine, parse(body)?).await),
        Operation::StartStreamEncryption => {
            answer(settings::start_encryption(engine, caller, parse(body)?).await)
        }
        Operation::StopStreamEncryption => {
            answer(settings::stop_encryption(engine, caller, parse(body)?).await)
        }
        Operation::TagResource => answer(resource::tag(engine, parse(body)?).await),
        Operation::UntagResource => answer(resource::untag(engine, parse(body)?).await),
        Operation::UpdateAccountSettings => {
            answer(account::update_settings(engine, caller, parse(body)?).await)
        }
        Operation::UpdateMaxRecordSize => {
            answer(settings::update_max_record_size(engine, caller, parse(body)?).await)
        }
        Operation::UpdateShardCount => {
            answer(settings::update_shard_count(engine, caller, parse(body)?).await)
        }
        Operation::UpdateStreamMode => {
            answer(settings::update_mode(engine, caller, parse(body)?).await)
        }
        Operation::UpdateStreamRecordDistributionStrategy => {
            answer(settings::update_distribution(engine, caller, parse(body)?).await)
        }
        Operation::UpdateStreamWarmThroughput => {
            answer(settings::update_warm_throughput(engine, caller, parse(body)?).await)
        }
        other => unsupported::answer(other, body),
    }
}

/// The only reader of bodies; a call with a valid one counts against its account's rate.
fn parse<'de, R: Request + Deserialize<'de>>(body: Body<'de>) -> Result<R, ApiError> {
    let request = shapes::parse_as(body.encoding, body.bytes)?;
    let Asked {
        engine,
        operation,
        caller,
    } = body.asked;
    engine.count_call(operation, &caller.account, &caller.region)?;
    Ok(request)
}

/// The stream a request names. Where name and ARN are given they must agree.
fn stream_arn(
    caller: &Caller,
    name: Option<&str>,
    arn: Option<&str>,
) -> Result<StreamArn, ApiError> {
    // Validation has checked the patterns; an ARN that is no stream's names nothing that exists.
    let parse_arn = |text: &str| {
        text.parse::<StreamArn>()
            .map_err(|error| ApiError::invalid_argument(error.to_string()))
    };
    let arn = arn.map(parse_arn).transpose()?;
    match (name, arn) {
        (None, None) => Err(ApiError::stream_not_named()),
        (None, Some(arn)) => Ok(arn),
        (Some(name), None) => Ok(own_arn(caller, parse_name(name)?)),
        (Some(name), Some(arn)) if name == arn.name.as_str() => Ok(arn),
        (Some(_), Some(_)) => Err(ApiError::stream_named_twice()),
    }
}

fn own_arn(caller: &Caller, name: StreamName) -> StreamArn {
    StreamArn {
        region: caller.region.clone(),
        account: caller.account.clone(),
        name,
    }
}

fn parse_name(name: &str) -> Result<StreamName, ApiError> {
    name.parse::<StreamName>()
        .map_err(|error| ApiError::invalid_argument(error.to_string()))
}

/// A stream as messages name it.
fn named(arn: &StreamArn) -> Named<'_> {
    Named::from(arn)
}
