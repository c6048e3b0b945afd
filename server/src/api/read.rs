//! GetShardIterator and GetRecords.

use crate::api::{Caller, shard::key_range, stream_arn};
use crate::engine::{Engine, Page, Start};
use crate::error::ApiError;
use millstream_wire::SequenceNumber;
use millstream_wire::limits::GET_RECORDS_MAX_COUNT;
use millstream_wire::shapes::{
    ChildShard, GetRecordsRequest, GetRecordsResponse, GetShardIteratorRequest,
    GetShardIteratorResponse, Record, ShardIteratorType, Timestamp,
};
use millstream_wire::ShardId;

pub(super) async fn get_shard_iterator(
    engine: &Engine,
    caller: &Caller,
    request: GetShardIteratorRequest,
) -> Result<GetShardIteratorResponse, ApiError> {
    let arn = stream_arn(caller, request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    let start = start(&request)?;
    let shard = request.shard_id.unwrap_or_default();
    let shard_iterator = engine.shard_iterator(&arn, &shard, start).await?;
    if request.dry_run == Some(true) {
        return Err(ApiError::dry_run());
    }
    Ok(GetShardIteratorResponse { shard_iterator })
}

/// The kind of start with the member it needs, and without those it does not take.
fn start(request: &GetShardIteratorRequest) -> Result<Start, ApiError> {
    let kind = request.shard_iterator_type.as_ref();
    let sequence = request.starting_sequence_number.as_deref();
    let timestamp = request.timestamp;
    let numbered = |make: fn(SequenceNumber) -> Start| match (sequence, timestamp) {
        (Some(text), None) => match text.parse() {
            Ok(sequence) => Ok(make(sequence)),
            Err(_) => Err(ApiError::invalid_starting_sequence_number(text)),
        },
        _ => Err(ApiError::iterator_needs_sequence_number(kind.map_or("", |k| k.as_str()))),
    };
    match kind {
        Some(ShardIteratorType::AtSequenceNumber) => numbered(Start::AtSequence),
        Some(ShardIteratorType::AfterSequenceNumber) => numbered(Start::AfterSequence),
        Some(ShardIteratorType::TrimHorizon) if sequence.is_none() => Ok(Start::TrimHorizon),
        Some(ShardIteratorType::Latest) if sequence.is_none() => Ok(Start::Latest),
        Some(ShardIteratorType::AtTimestamp) if sequence.is_none() => match timestamp {
            Some(timestamp) => Ok(Start::AtTimestamp(timestamp.millis)),
            None => Err(ApiError::iterator_needs_timestamp()),
        },
        Some(kind) => Err(ApiError::iterator_takes_no_sequence_number(kind.as_str())),
        None => Err(ApiError::internal("validation let an absent type pass".to_owned())),
    }
}

pub(super) async fn get_records(
    engine: &Engine,
    request: GetRecordsRequest,
) -> Result<GetRecordsResponse, ApiError> {
    let limit = request.limit.and_then(|limit| usize::try_from(limit).ok());
    let token = request.shard_iterator.unwrap_or_default();
    if request.dry_run == Some(true) {
        engine.check_iterator(&token)?;
        return Err(ApiError::dry_run());
    }
    let page = engine.records(&token, limit.unwrap_or(GET_RECORDS_MAX_COUNT)).await?;
    Ok(response(page))
}

fn response(page: Page) -> GetRecordsResponse {
    let records = page.records.into_iter().map(|record| Record {
        sequence_number: record.sequence,
        approximate_arrival_timestamp: Some(Timestamp::from_millis(record.arrival_ms)),
        partition_key: record.partition_key().to_owned(),
        data: record.data,
        encryption_type: None,
    });
    let children = page.children.iter().map(|child| ChildShard {
        shard_id: child.id().to_string(),
        parent_shards: child.parents().map(|parent| ShardId(parent).to_string()).collect(),
        hash_key_range: key_range(child),
    });
    let children: Vec<_> = children.collect();
    GetRecordsResponse {
        records: records.collect(),
        millis_behind_latest: Some(page.millis_behind_latest),
        child_shards: (!children.is_empty()).then_some(children),
        next_shard_iterator: page.next_iterator,
    }
}
