//! One function per operation: typed input, engine call, typed output. No locks, no files, no HTTP.

mod put;
mod read;
mod shard;
mod stream;
mod tags;
mod token;

use crate::engine::Engine;
use crate::error::ApiError;
use millstream_wire::shapes::{self, Empty, Request};
use millstream_wire::{AccountId, Operation, Region, StreamArn, StreamName};
use serde::{Deserialize, Serialize};

/// Who asks, as far as it matters: names are looked up in the caller's account and region.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The account.
    pub account: AccountId,
    /// The region.
    pub region: Region,
}

/// Runs an operation and returns the JSON body of its answer; empty for operations without output.
///
/// # Errors
/// AWS's code and message; nothing has changed then, unless the message says otherwise.
pub async fn dispatch(
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
        Operation::DescribeStream => json(stream::describe_stream(engine, caller, &parse(body)?)),
        Operation::DescribeStreamSummary => {
            json(stream::describe_stream_summary(engine, caller, &parse(body)?))
        }
        Operation::GetRecords => json(read::get_records(engine, parse(body)?).await),
        Operation::GetShardIterator => {
            json(read::get_shard_iterator(engine, caller, parse(body)?).await)
        }
        Operation::IncreaseStreamRetentionPeriod => {
            json(stream::increase_retention(engine, caller, parse(body)?).await)
        }
        Operation::ListShards => json(shard::list_shards(engine, caller, &parse(body)?)),
        Operation::ListStreams => json(stream::list_streams(engine, caller, &parse(body)?)),
        Operation::ListTagsForStream => json(tags::list_tags(engine, caller, &parse(body)?)),
        Operation::MergeShards => json(shard::merge_shards(engine, caller, parse(body)?).await),
        Operation::PutRecord => json(put::put_record(engine, caller, parse(body)?).await),
        Operation::PutRecords => json(put::put_records(engine, caller, parse(body)?).await),
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
    DescribeStreamResponse,
    DescribeStreamSummaryResponse,
    GetRecordsResponse,
    GetShardIteratorResponse,
    ListShardsResponse,
    ListStreamsResponse,
    ListTagsForStreamResponse,
    PutRecordResponse,
    PutRecordsResponse,
}

fn to_json<T: Serialize>(output: &T) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(output).map_err(|error| ApiError::internal(format!("encoding: {error}")))
}

/// The stream a request names. Where both are given they must agree, as AWS demands.
fn stream_arn(
    caller: &Caller,
    name: Option<&str>,
    arn: Option<&str>,
) -> Result<StreamArn, ApiError> {
    let arn = match arn {
        None => None,
        Some(text) => {
            Some(text.parse::<StreamArn>().map_err(|_| ApiError::invalid_stream_arn(text))?)
        }
    };
    match (name, arn) {
        (None, None) => Err(ApiError::missing_stream()),
        (None, Some(arn)) => Ok(arn),
        (Some(name), None) => Ok(own_arn(caller, parse_name(name)?)),
        (Some(name), Some(arn)) if name == arn.name.as_str() => Ok(arn),
        (Some(name), Some(arn)) => Err(ApiError::stream_name_and_arn_differ(name, &arn)),
    }
}

fn own_arn(caller: &Caller, name: StreamName) -> StreamArn {
    StreamArn { region: caller.region.clone(), account: caller.account.clone(), name }
}

fn parse_name(name: &str) -> Result<StreamName, ApiError> {
    // Validation has checked the pattern; an odd name that passed it cannot exist.
    name.parse().map_err(|_| ApiError::invalid_stream_arn(name))
}
