//! Creating, deleting, describing and listing streams, and their retention.

use crate::api::token::{self, ListStreamsToken};
use crate::api::{Caller, named, own_arn, parse_name, settings, shard, stream_arn, tags};
use crate::engine::catalog::{self, Stream};
use crate::engine::options::{Distribution, Options};
use crate::engine::{Engine, NewStream, RetentionChange, shards_for};
use crate::error::ApiError;
use millstream_wire::limits::{
    LIST_STREAMS_TOKEN_TTL_SECONDS, ON_DEMAND_INITIAL_SHARDS, RECORD_DEFAULT_MAX_BYTES,
    RETENTION_DEFAULT_HOURS,
};
use millstream_wire::shapes::{
    CreateStreamRequest, DecreaseStreamRetentionPeriodRequest, DeleteStreamRequest,
    DescribeStreamRequest, DescribeStreamResponse, DescribeStreamSummaryRequest,
    DescribeStreamSummaryResponse, Empty, EncryptionType, EnhancedMetrics,
    IncreaseStreamRetentionPeriodRequest, ListStreamsRequest, ListStreamsResponse,
    StreamDescription, StreamDescriptionSummary, StreamMode, StreamModeDetails, StreamStatus,
    StreamSummary, Timestamp, WarmThroughput,
};
use millstream_wire::{Operation, ShardId, StreamArn};
use sha2::{Digest, Sha256};
use std::num::NonZeroU32;

/// Shards in one DescribeStream answer unless the request asks for fewer (API reference).
const DESCRIBE_STREAM_MAX_SHARDS: usize = 100;
/// Streams in one ListStreams answer unless the request asks for fewer (API reference).
const LIST_STREAMS_MAX_COUNT: usize = 100;

pub(super) async fn create_stream(
    engine: &Engine,
    caller: &Caller,
    request: CreateStreamRequest,
) -> Result<Empty, ApiError> {
    let name = parse_name(&request.stream_name.unwrap_or_default())?;
    let mode = request
        .stream_mode_details
        .and_then(|details| details.stream_mode);
    let warm = request.warm_throughput_mibps.map(settings::mibps);
    let options = Options {
        warm_mibps: warm,
        distribution: request
            .record_distribution_strategy
            .map_or(Distribution::default(), |strategy| {
                settings::distribution(&strategy)
            }),
        ..Options::default()
    };
    let (mode, shards) = match (mode, request.shard_count) {
        (Some(StreamMode::OnDemand) | None, None) => (
            catalog::StreamMode::OnDemand,
            warm.map_or(i64::from(ON_DEMAND_INITIAL_SHARDS), |mibps| {
                i64::from(shards_for(mibps))
            }),
        ),
        (Some(StreamMode::OnDemand), Some(_)) => {
            return Err(ApiError::invalid_argument(
                "ShardCount must not be given for a stream in ON_DEMAND mode.",
            ));
        }
        (Some(_), None) => {
            return Err(ApiError::invalid_argument(
                "ShardCount must be given for a stream in PROVISIONED mode.",
            ));
        }
        (_, Some(count)) => (catalog::StreamMode::Provisioned, count),
    };
    let in_range = u32::try_from(shards).ok().and_then(NonZeroU32::new);
    let too_many = || ApiError::invalid_argument(format!("ShardCount {shards} is out of range."));
    let shards = in_range.ok_or_else(too_many)?;
    let kibibytes = request
        .max_record_size_in_kib
        .and_then(|size| usize::try_from(size).ok());
    let new = NewStream {
        arn: own_arn(caller, name),
        shards,
        mode,
        retention_hours: RETENTION_DEFAULT_HOURS,
        max_record_bytes: kibibytes.map_or(RECORD_DEFAULT_MAX_BYTES, |size| size * 1024),
        tags: request.tags.unwrap_or_default(),
    };
    tags::check_added(&new.tags, named(&new.arn))?;
    engine.create_stream_with(new, options).await?;
    Ok(Empty {})
}

pub(super) async fn delete_stream(
    engine: &Engine,
    caller: &Caller,
    request: DeleteStreamRequest,
) -> Result<Empty, ApiError> {
    let arn = stream_arn(
        caller,
        request.stream_name.as_deref(),
        request.stream_arn.as_deref(),
    )?;
    if request.enforce_consumer_deletion == Some(true) {
        engine.delete_stream_and_consumers(&arn).await?;
    } else {
        engine.delete_stream(&arn).await?;
    }
    Ok(Empty {})
}

pub(super) async fn increase_retention(
    engine: &Engine,
    caller: &Caller,
    request: IncreaseStreamRetentionPeriodRequest,
) -> Result<Empty, ApiError> {
    let arn = stream_arn(
        caller,
        request.stream_name.as_deref(),
        request.stream_arn.as_deref(),
    )?;
    let hours = request.retention_period_hours.unwrap_or_default();
    retain(engine, &arn, hours, RetentionChange::Increase).await
}

pub(super) async fn decrease_retention(
    engine: &Engine,
    caller: &Caller,
    request: DecreaseStreamRetentionPeriodRequest,
) -> Result<Empty, ApiError> {
    let arn = stream_arn(
        caller,
        request.stream_name.as_deref(),
        request.stream_arn.as_deref(),
    )?;
    let hours = request.retention_period_hours.unwrap_or_default();
    retain(engine, &arn, hours, RetentionChange::Decrease).await
}

async fn retain(
    engine: &Engine,
    arn: &StreamArn,
    hours: i64,
    change: RetentionChange,
) -> Result<Empty, ApiError> {
    engine.stream(arn)?;
    let operation = match change {
        RetentionChange::Increase => Operation::IncreaseStreamRetentionPeriod,
        RetentionChange::Decrease => Operation::DecreaseStreamRetentionPeriod,
    };
    engine.count_call_on(operation, arn)?;
    engine.set_retention(arn, hours, change).await?;
    Ok(Empty {})
}

pub(super) fn describe_stream(
    engine: &Engine,
    caller: &Caller,
    request: &DescribeStreamRequest,
) -> Result<DescribeStreamResponse, ApiError> {
    let arn = stream_arn(
        caller,
        request.stream_name.as_deref(),
        request.stream_arn.as_deref(),
    )?;
    let stream = engine.stream(&arn)?;
    let now_ms = engine.now_ms();
    let after = match request.exclusive_start_shard_id.as_deref() {
        None => None,
        Some(text) => {
            let id: ShardId = text
                .parse()
                .map_err(|_| ApiError::shard_not_found(text, named(&arn)))?;
            Some(id.0)
        }
    };
    let limit = request.limit.and_then(|limit| usize::try_from(limit).ok());
    let listed = stream.listed_shards(now_ms);
    let mut shards = listed.filter(|shard| after.is_none_or(|after| shard.index > after));
    let page = shards
        .by_ref()
        .take(limit.map_or(DESCRIBE_STREAM_MAX_SHARDS, |limit| {
            limit.min(DESCRIBE_STREAM_MAX_SHARDS)
        }));
    let described = page.map(shard::describe).collect();
    Ok(DescribeStreamResponse {
        stream_description: StreamDescription {
            stream_name: stream.arn.name.to_string(),
            stream_arn: stream.arn.to_string(),
            stream_status: status(&stream, now_ms),
            stream_mode_details: Some(mode(&stream)),
            shards: described,
            has_more_shards: shards.next().is_some(),
            retention_period_hours: stream.retention_hours,
            stream_creation_timestamp: Timestamp::from_millis(stream.created_ms),
            enhanced_monitoring: metrics(&stream),
            encryption_type: Some(encryption(&stream)),
            key_id: stream.options.key().map(str::to_owned),
        },
    })
}

pub(super) fn describe_stream_summary(
    engine: &Engine,
    caller: &Caller,
    request: &DescribeStreamSummaryRequest,
) -> Result<DescribeStreamSummaryResponse, ApiError> {
    let arn = stream_arn(
        caller,
        request.stream_name.as_deref(),
        request.stream_arn.as_deref(),
    )?;
    let stream = engine.stream(&arn)?;
    let now_ms = engine.now_ms();
    let on_demand = stream.mode == catalog::StreamMode::OnDemand;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Ok(DescribeStreamSummaryResponse {
        stream_description_summary: StreamDescriptionSummary {
            stream_name: stream.arn.name.to_string(),
            stream_arn: stream.arn.to_string(),
            stream_id: Some(stream_id(&stream)),
            stream_status: status(&stream, now_ms),
            stream_mode_details: Some(mode(&stream)),
            retention_period_hours: stream.retention_hours,
            stream_creation_timestamp: Timestamp::from_millis(stream.created_ms),
            enhanced_monitoring: metrics(&stream),
            encryption_type: Some(encryption(&stream)),
            key_id: stream.options.key().map(str::to_owned),
            open_shard_count: if stream.is_creating(now_ms) {
                0
            } else {
                count(stream.open_shard_count())
            },
            consumer_count: Some(count(stream.listed_consumers(now_ms).count())),
            warm_throughput: warm_throughput(engine, &stream),
            max_record_size_in_kib: Some(count(stream.max_record_bytes / 1024)),
            channel_count: Some(0),
            record_distribution_strategy: on_demand.then(|| settings::strategy(&stream)),
            queue_count: Some(0),
        },
    })
}

pub(super) fn list_streams(
    engine: &Engine,
    caller: &Caller,
    request: &ListStreamsRequest,
) -> Result<ListStreamsResponse, ApiError> {
    let now_ms = engine.now_ms();
    let after = match request.next_token.as_deref() {
        None => request.exclusive_start_stream_name.clone(),
        Some(text) => {
            let token: ListStreamsToken =
                token::decode(text).ok_or_else(ApiError::invalid_next_token)?;
            token::check_age(token.minted_ms, LIST_STREAMS_TOKEN_TTL_SECONDS, now_ms)?;
            Some(token.after_stream)
        }
    };
    let catalog = engine.catalog();
    let limit = request.limit.and_then(|limit| usize::try_from(limit).ok());
    let mut streams = catalog
        .streams_of(&caller.account, &caller.region, now_ms)
        .filter(|stream| {
            after
                .as_deref()
                .is_none_or(|after| stream.arn.name.as_str() > after)
        });
    let page: Vec<_> = streams
        .by_ref()
        .take(limit.map_or(LIST_STREAMS_MAX_COUNT, |limit| {
            limit.min(LIST_STREAMS_MAX_COUNT)
        }))
        .collect();
    let has_more_streams = streams.next().is_some();
    let last = page.last().map(|stream| stream.arn.name.to_string());
    let next_token = match last.filter(|_| has_more_streams) {
        None => None,
        Some(after_stream) => Some(token::encode(&ListStreamsToken {
            after_stream,
            minted_ms: now_ms,
        })?),
    };
    Ok(ListStreamsResponse {
        stream_names: page
            .iter()
            .map(|stream| stream.arn.name.to_string())
            .collect(),
        has_more_streams,
        next_token,
        stream_summaries: Some(page.iter().map(|stream| summary(stream, now_ms)).collect()),
    })
}

fn summary(stream: &Stream, now_ms: u64) -> StreamSummary {
    let arn: &StreamArn = &stream.arn;
    StreamSummary {
        stream_name: arn.name.to_string(),
        stream_arn: arn.to_string(),
        stream_status: status(stream, now_ms),
        stream_mode_details: Some(mode(stream)),
        stream_creation_timestamp: Some(Timestamp::from_millis(stream.created_ms)),
    }
}

fn status(stream: &Stream, now_ms: u64) -> StreamStatus {
    // A stream that is gone was not found in the first place.
    stream
        .status(now_ms)
        .map_or(StreamStatus::Deleting, |status| {
            StreamStatus::from(status.name())
        })
}

fn metrics(stream: &Stream) -> Vec<EnhancedMetrics> {
    vec![EnhancedMetrics {
        shard_level_metrics: settings::names(&stream.options.metrics),
    }]
}

/// Recorded on AWS: an unencrypted stream says so when it is described, its records say nothing.
fn encryption(stream: &Stream) -> EncryptionType {
    match stream.options.key() {
        Some(_) => EncryptionType::Kms,
        None => EncryptionType::None,
    }
}

/// Only on-demand streams of accounts with a commitment have one.
fn warm_throughput(engine: &Engine, stream: &Stream) -> Option<WarmThroughput> {
    let commitment = engine.commitment(&stream.arn.account, &stream.arn.region);
    let shown = stream.mode == catalog::StreamMode::OnDemand && commitment.holds(engine.now_ms());
    let current = u32::try_from(stream.open_shard_count()).unwrap_or(u32::MAX);
    shown.then(|| WarmThroughput {
        target_mibps: Some(stream.options.warm_mibps.unwrap_or(current)),
        current_mibps: Some(current),
    })
}

/// An id of AWS's form that another stream, or a later one of this name, does not have.
fn stream_id(stream: &Stream) -> String {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let digest = Sha256::digest(format!("{}@{}", stream.arn, stream.created_ms));
    let letters = digest
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]));
    let mut id: String = letters.take(23).collect();
    id.insert(20, '-');
    id
}

fn mode(stream: &Stream) -> StreamModeDetails {
    let stream_mode = match stream.mode {
        catalog::StreamMode::Provisioned => StreamMode::Provisioned,
        catalog::StreamMode::OnDemand => StreamMode::OnDemand,
    };
    StreamModeDetails { stream_mode }
}
