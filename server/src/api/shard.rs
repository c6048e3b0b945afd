//! ListShards, SplitShard and MergeShards.

use crate::api::token::{self, ListShardsToken};
use crate::api::{Caller, named, stream_arn};
use crate::engine::Engine;
use crate::engine::catalog::{Shard, Stream};
use crate::error::ApiError;
use millstream_wire::limits::{LIST_SHARDS_MAX_COUNT, LIST_SHARDS_TOKEN_TTL_SECONDS};
use millstream_wire::shapes::{
    self, Empty, KeyRange, ListShardsRequest, ListShardsResponse, MergeShardsRequest,
    SequenceNumberRange, ShardFilter, ShardFilterType, SplitShardRequest,
};
use millstream_wire::{HashKey, HashKeyRange, Operation, ShardId, StreamArn};
use std::sync::Arc;

pub(super) async fn split_shard(
    engine: &Engine,
    caller: &Caller,
    request: SplitShardRequest,
) -> Result<Empty, ApiError> {
    let arn = stream_arn(
        caller,
        request.stream_name.as_deref(),
        request.stream_arn.as_deref(),
    )?;
    let shard = shard_id(&request.shard_to_split.unwrap_or_default(), &arn)?;
    let stream = with_shards(engine, &arn, &[shard])?;
    let text = request.new_starting_hash_key.unwrap_or_default();
    let Ok(key) = text.parse::<HashKey>() else {
        // 2^128 or more: outside of every shard.
        let range = stream.shards.get(&shard.0).map(Shard::range);
        let range = range.unwrap_or(HashKeyRange::ALL);
        return Err(ApiError::bad_split_key(text, shard, named(&arn), range));
    };
    engine.split_shard(&arn, shard, key).await?;
    Ok(Empty {})
}

pub(super) async fn merge_shards(
    engine: &Engine,
    caller: &Caller,
    request: MergeShardsRequest,
) -> Result<Empty, ApiError> {
    let arn = stream_arn(
        caller,
        request.stream_name.as_deref(),
        request.stream_arn.as_deref(),
    )?;
    let first = shard_id(&request.shard_to_merge.unwrap_or_default(), &arn)?;
    let second = shard_id(&request.adjacent_shard_to_merge.unwrap_or_default(), &arn)?;
    with_shards(engine, &arn, &[first, second])?;
    engine.merge_shards(&arn, (first, second)).await?;
    Ok(Empty {})
}

/// The id that a text stands for; AWS reads it before it looks for the stream.
fn shard_id(text: &str, arn: &StreamArn) -> Result<ShardId, ApiError> {
    let malformed = |_| ApiError::shard_not_found(text, named(arn));
    text.parse().map_err(malformed)
}

/// The stream, which must be ACTIVE and then have these shards, before anything else is looked at.
fn with_shards(
    engine: &Engine,
    arn: &StreamArn,
    shards: &[ShardId],
) -> Result<Arc<Stream>, ApiError> {
    let stream = engine.active_stream(arn)?;
    match shards.iter().find(|id| !stream.shards.contains_key(&id.0)) {
        None => Ok(stream),
        Some(id) => Err(ApiError::shard_not_found(&id.to_string(), named(arn))),
    }
}

pub(super) fn list_shards(
    engine: &Engine,
    caller: &Caller,
    request: &ListShardsRequest,
) -> Result<ListShardsResponse, ApiError> {
    let now_ms = engine.now_ms();
    let page = page(engine, caller, request, now_ms)?;
    let arn: StreamArn = page
        .arn
        .parse()
        .map_err(|_| ApiError::invalid_next_token())?;
    // The KCL waits when AWS says that the stream is neither ACTIVE nor UPDATING.
    let stream = engine.ready_stream(&arn)?;
    engine.count_call_on(Operation::ListShards, &arn)?;
    if request.stream_creation_timestamp.is_some_and(|at| {
        u64::try_from(at.millis).is_ok_and(|ms| ms / 1_000 != stream.created_ms / 1_000)
    }) {
        return Err(ApiError::stream_not_found(named(&arn)));
    }
    let max = request
        .max_results
        .and_then(|max| usize::try_from(max).ok());
    let max = max
        .unwrap_or(LIST_SHARDS_MAX_COUNT)
        .min(LIST_SHARDS_MAX_COUNT);
    // What was before the trim horizon or the stream itself is answered for by what came first.
    let first_ms = stream.shards.values().map(|s| stream.opened_ms(s)).min();
    let oldest_ms = stream
        .trim_horizon_ms(now_ms)
        .max(first_ms.unwrap_or_default());
    let mut shards = stream
        .listed_shards(now_ms)
        .filter(|shard| page.after.is_none_or(|after| shard.index > after))
        .filter(|shard| page.filter.keeps(shard, &stream, oldest_ms))
        .peekable();
    let listed: Vec<&Shard> = shards.by_ref().take(max).collect();
    let next_token = match (shards.peek(), listed.last()) {
        (Some(_), Some(last)) => {
            let next = ListShardsToken {
                after: Some(last.index),
                minted_ms: now_ms,
                ..page
            };
            Some(token::encode(&next)?)
        }
        _ => None,
    };
    Ok(ListShardsResponse {
        shards: listed.into_iter().map(describe).collect(),
        next_token,
    })
}

/// What to list: from the token of the page before, or from the request's own members.
fn page(
    engine: &Engine,
    caller: &Caller,
    request: &ListShardsRequest,
    now_ms: u64,
) -> Result<ListShardsToken, ApiError> {
    let Some(text) = request.next_token.as_deref() else {
        if request.stream_name.is_none() && request.stream_arn.is_none() {
            return Err(ApiError::list_shards_needs_stream());
        }
        let arn = stream_arn(
            caller,
            request.stream_name.as_deref(),
            request.stream_arn.as_deref(),
        )?;
        // A stream that is not there or not ready is said before a shard that is none.
        engine.ready_stream(&arn)?;
        let start = request.exclusive_start_shard_id.as_deref();
        let after = match start {
            None => None,
            Some(text) => {
                let id: ShardId = text
                    .parse()
                    .map_err(|_| ApiError::shard_not_found(text, named(&arn)))?;
                Some(id.0)
            }
        };
        let filter = Filter::from_request(request.shard_filter.as_ref(), &arn)?;
        return Ok(ListShardsToken {
            arn: arn.to_string(),
            after,
            filter,
            minted_ms: now_ms,
        });
    };
    let others = request.stream_name.is_some()
        || request.exclusive_start_shard_id.is_some()
        || request.stream_creation_timestamp.is_some();
    if others {
        return Err(ApiError::list_shards_token_and_stream());
    }
    let token: ListShardsToken = token::decode(text).ok_or_else(ApiError::invalid_next_token)?;
    token::check_age(token.minted_ms, LIST_SHARDS_TOKEN_TTL_SECONDS, now_ms)?;
    Ok(token)
}

/// Which shards ListShards shows (model: `ShardFilterType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Filter {
    /// All that are not expired.
    All,
    /// Those with a greater id.
    After(u32),
    /// Those that were open at the trim horizon.
    AtTrimHorizon,
    /// Those that are open.
    AtLatest,
    /// Those that were open at a time, milliseconds since 1970.
    At(u64),
    /// Those that were open at or after a time.
    From(u64),
}

impl Filter {
    fn from_request(filter: Option<&ShardFilter>, arn: &StreamArn) -> Result<Filter, ApiError> {
        let Some(filter) = filter else {
            return Ok(Filter::All);
        };
        let time = || {
            filter
                .timestamp
                .map(|at| u64::try_from(at.millis).unwrap_or(0))
                .ok_or_else(|| {
                    ApiError::invalid_argument("ShardFilter of this type needs a Timestamp.")
                })
        };
        match filter.filter_type {
            Some(ShardFilterType::AfterShardId) => {
                let text = filter.shard_id.as_deref().ok_or_else(|| {
                    ApiError::invalid_argument(
                        "ShardFilter of type AFTER_SHARD_ID needs a ShardId.",
                    )
                })?;
                let id: ShardId = text
                    .parse()
                    .map_err(|_| ApiError::shard_not_found(text, named(arn)))?;
                Ok(Filter::After(id.0))
            }
            Some(ShardFilterType::AtTrimHorizon) => Ok(Filter::AtTrimHorizon),
            Some(ShardFilterType::AtLatest) => Ok(Filter::AtLatest),
            Some(ShardFilterType::AtTimestamp) => Ok(Filter::At(time()?)),
            Some(ShardFilterType::FromTimestamp) => Ok(Filter::From(time()?)),
            // Everything since the trim horizon is everything that is not expired.
            Some(ShardFilterType::FromTrimHorizon) | None => Ok(Filter::All),
            Some(_) => unreachable!("validation allows the known filters only"),
        }
    }

    fn keeps(self, shard: &Shard, stream: &Stream, oldest_ms: u64) -> bool {
        let open_at = |at_ms: u64| {
            let at_ms = at_ms.max(oldest_ms);
            stream.opened_ms(shard) <= at_ms && shard.closed_ms.is_none_or(|closed| closed > at_ms)
        };
        match self {
            Filter::All => true,
            Filter::After(index) => shard.index > index,
            Filter::AtTrimHorizon => open_at(oldest_ms),
            Filter::AtLatest => shard.is_open(),
            Filter::At(at_ms) => open_at(at_ms),
            Filter::From(at_ms) => shard.closed_ms.is_none_or(|closed| closed >= at_ms),
        }
    }
}

/// A shard as it is shown.
pub(super) fn describe(shard: &Shard) -> shapes::Shard {
    let id = |index: u32| ShardId(index).to_string();
    shapes::Shard {
        shard_id: shard.id().to_string(),
        parent_shard_id: shard.parent.map(id),
        adjacent_parent_shard_id: shard.adjacent_parent.map(id),
        hash_key_range: key_range(shard),
        sequence_number_range: SequenceNumberRange {
            starting_sequence_number: shard.starting_sequence().to_string(),
            ending_sequence_number: shard.ending_sequence().map(|number| number.to_string()),
        },
    }
}

pub(super) fn key_range(shard: &Shard) -> KeyRange {
    shard.range().into()
}
