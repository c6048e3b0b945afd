//! One function per operation: typed input, engine call, typed output. No locks, no files, no HTTP.

mod consumer;
mod put;
mod read;
mod shard;
mod stream;
mod subscribe;
mod tags;
#[cfg(test)]
mod tests;
mod token;

pub use subscribe::{Event, Events};

use crate::engine::Engine;
use crate::error::{ApiError, Named};
use bytes::Bytes;
use millstream_wire::shapes::{self, Empty, Request};
use millstream_wire::{AccountId, Operation, Region, StreamArn, StreamName};
use serde::{Deserialize, Serialize};

/// A request whose operation and caller are known; its body has not been looked at yet.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is asked for.
    pub operation: Operation,
    /// The JSON body, as it was sent. Memory that is accounted for is held as long as this is.
    pub body: Bytes,
    /// Who asks.
    pub caller: Caller,
    /// The id in the answer's `x-amzn-RequestId`, for the log.
    pub request_id: String,
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
    /// The answer.
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
        self(call).await.map(Answer::Body)
    }
}

/// What a call is answered with.
#[derive(Debug)]
pub enum Answer {
    /// The JSON body, empty where the operation has nothing to say.
    Body(Vec<u8>),
    /// Events as they come.
    Events(Box<Events>),
}

/// The operations over an engine.
#[derive(Debug, Clone)]
pub struct Api {
    engine: Engine,
}

impl Api {
    /// The operations over `engine`.
    pub fn new(engine: Engine) -> Api {
        Api { engine }
    }
}

impl Dispatch for Api {
    async fn dispatch(&self, call: Call) -> Result<Answer, ApiError> {
        let answer = if call.operation == Operation::SubscribeToShard {
            let events = subscribe::subscribe(&self.engine, parse(&call.body)?).await;
            events.map(|events| Answer::Events(Box::new(events)))
        } else {
            let body = run(&self.engine, call.operation, &call.caller, &call.body).await;
            body.map(Answer::Body)
        };
        if let Err(error) = &answer
            && error.code == millstream_wire::ErrorCode::InternalFailure
        {
            tracing::error!(request_id = call.request_id, operation = %call.operation, "failed");
        }
        answer
    }

    fn is_ready(&self) -> bool {
        !self.engine.is_poisoned()
    }
}

/// Runs an operation and gives the JSON body of its answer; empty for operations without output.
async fn run(
    engine: &Engine,
    operation: Operation,
    caller: &Caller,
    body: &[u8],
) -> Result<Vec<u8>, ApiError> {
    match operation {
        Operation::AddTagsToStream => json(tags::add_tags(engine, caller, parse(body)?).await),
        Operation::CreateStream => json(stream::create_stream(engine, caller, parse(body)?).await),
        Operation::DecreaseStreamRetentionPeriod => {
            json(stream::decrease_retention(engine, caller, parse(body)?).await)
        }
        Operation::DeleteStream => json(stream::delete_stream(engine, caller, parse(body)?).await),
        Operation::DeregisterStreamConsumer => {
            json(consumer::deregister(engine, &parse(body)?).await)
        }
        Operation::DescribeStreamConsumer => json(consumer::describe(engine, &parse(body)?)),
        Operation::DescribeStream => json(stream::describe_stream(engine, caller, &parse(body)?)),
        Operation::DescribeStreamSummary => json(stream::describe_stream_summary(
            engine,
            caller,
            &parse(body)?,
        )),
        Operation::GetRecords => json(read::get_records(engine, parse(body)?).await),
        Operation::GetShardIterator => {
            json(read::get_shard_iterator(engine, caller, parse(body)?).await)
        }
        Operation::IncreaseStreamRetentionPeriod => {
            json(stream::increase_retention(engine, caller, parse(body)?).await)
        }
        Operation::ListShards => json(shard::list_shards(engine, caller, &parse(body)?)),
        Operation::ListStreamConsumers => json(consumer::list(engine, &parse(body)?)),
        Operation::ListStreams => json(stream::list_streams(engine, caller, &parse(body)?)),
        Operation::ListTagsForStream => json(tags::list_tags(engine, caller, &parse(body)?)),
        Operation::MergeShards => json(shard::merge_shards(engine, caller, parse(body)?).await),
        Operation::PutRecord => json(put::put_record(engine, caller, parse(body)?).await),
        Operation::PutRecords => json(put::put_records(engine, caller, parse(body)?).await),
        Operation::RegisterStreamConsumer => json(consumer::register(engine, parse(body)?).await),
        Operation::RemoveTagsFromStream => {
            json(tags::remove_tags(engine, caller, parse(body)?).await)
        }
        Operation::SplitShard => json(shard::split_shard(engine, caller, parse(body)?).await),
        // The enum may grow in `wire` before an operation is served here.
        _ => Err(ApiError::unknown_operation()),
    }
}

fn parse<'de, R: Request + Deserialize<'de>>(body: &'de [u8]) -> Result<R, ApiError> {
    Ok(shapes::parse(body)?)
}

/// The JSON of an output.
fn json<T: Output>(result: Result<T, ApiError>) -> Result<Vec<u8>, ApiError> {
    result?.encode()
}

/// What an operation answers with.
trait Output {
    /// The body.
    fn encode(&self) -> Result<Vec<u8>, ApiError>;
}

impl Output for Empty {
    fn encode(&self) -> Result<Vec<u8>, ApiError> {
        Ok(Vec::new())
    }
}

macro_rules! outputs {
    ($($output:ident,)+) => {
        $(impl Output for shapes::$output {
            fn encode(&self) -> Result<Vec<u8>, ApiError> {
                to_json(self)
            }
        })+
    };
}

outputs! {
    DescribeStreamConsumerResponse,
    DescribeStreamResponse,
    DescribeStreamSummaryResponse,
    GetRecordsResponse,
    GetShardIteratorResponse,
    ListShardsResponse,
    ListStreamConsumersResponse,
    ListStreamsResponse,
    ListTagsForStreamResponse,
    PutRecordResponse,
    PutRecordsResponse,
    RegisterStreamConsumerResponse,
}

fn to_json<T: Serialize>(output: &T) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(output).map_err(|error| {
        tracing::error!(%error, "an answer could not be encoded");
        ApiError::internal()
    })
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
