//! GetShardIterator and GetRecords.

use crate::api::output::{Encoded, Output, of_items, of_records};
use crate::api::{Caller, named, shard::key_range, stream_arn};
use crate::engine::catalog::Shard;
use crate::engine::{Engine, Error, Page, ReadRecord, Start};
use crate::error::{ApiError, SequenceFault};
use millstream_wire::limits::GET_RECORDS_MAX_COUNT;
use millstream_wire::shapes::{
    ChildShard, GetRecordsRequest, GetRecordsResponse, GetShardIteratorRequest,
    GetShardIteratorResponse, RecordView, ShardIteratorType, Timestamp,
};
use millstream_wire::{Encoding, SequenceNumber, ShardId, StreamArn};

pub(super) async fn get_shard_iterator(
    engine: &Engine,
    caller: &Caller,
    request: GetShardIteratorRequest,
) -> Result<GetShardIteratorResponse, ApiError> {
    let arn = stream_arn(
        caller,
        request.stream_name.as_deref(),
        request.stream_arn.as_deref(),
    )?;
    let text = request.shard_id.as_deref().unwrap_or_default();
    let shard: ShardId = text
        .parse()
        .map_err(|_| ApiError::shard_not_found(text, named(&arn)))?;
    // Of an unknown stream AWS says here what it says of an unknown shard.
    let missing = |error| match error {
        Error::StreamNotFound(_) | Error::ShardNotFound { .. } => {
            ApiError::shard_does_not_exist(shard, named(&arn))
        }
        other => other.into(),
    };
    engine.check_readable(&arn, shard).map_err(missing)?;
    let start = start(&request, shard, &arn)?;
    let minted = engine.shard_iterator(&arn, text, start).await;
    let shard_iterator = minted.map_err(missing)?;
    if request.dry_run == Some(true) {
        return Err(ApiError::dry_run());
    }
    Ok(GetShardIteratorResponse { shard_iterator })
}

/// The kind of start with the member it needs, and without those it does not take.
fn start(
    request: &GetShardIteratorRequest,
    shard: ShardId,
    arn: &StreamArn,
) -> Result<Start, ApiError> {
    let Some(kind) = request.shard_iterator_type.as_ref() else {
        unreachable!("validation requires an iterator type");
    };
    let sequence = request.starting_sequence_number.as_deref();
    let timestamp = request.timestamp;
    let numbered = |make: fn(SequenceNumber) -> Start| {
        let text = sequence.ok_or_else(|| ApiError::iterator_needs_sequence(kind))?;
        let malformed = || {
            let fault = SequenceFault::Malformed;
            ApiError::bad_starting_sequence(text, shard, named(arn), fault)
        };
        sequence_number(text).map(make).ok_or_else(malformed)
    };
    match kind {
        ShardIteratorType::AtSequenceNumber => numbered(Start::AtSequence),
        ShardIteratorType::AfterSequenceNumber => numbered(Start::AfterSequence),
        ShardIteratorType::TrimHorizon if sequence.is_none() => Ok(Start::TrimHorizon),
        ShardIteratorType::Latest if sequence.is_none() => Ok(Start::Latest),
        ShardIteratorType::AtTimestamp if sequence.is_none() => match timestamp {
            // A time before 1970 is before every record.
            Some(timestamp) => Ok(Start::AtTimestamp(
                u64::try_from(timestamp.millis).unwrap_or(0),
            )),
            None => Err(ApiError::iterator_needs_timestamp()),
        },
        kind => Err(ApiError::iterator_takes_no_sequence(kind)),
    }
}

/// The number that a text stands for, if AWS ever gave out such a one.
pub(super) fn sequence_number(text: &str) -> Option<SequenceNumber> {
    let number: SequenceNumber = text.parse().ok()?;
    number.origin().map(|_| number)
}

pub(super) async fn get_records(
    engine: &Engine,
    request: GetRecordsRequest,
) -> Result<Page, ApiError> {
    let limit = request.limit.and_then(|limit| usize::try_from(limit).ok());
    let token = request.shard_iterator.unwrap_or_default();
    if request.dry_run == Some(true) {
        engine.check_iterator(&token)?;
        return Err(ApiError::dry_run());
    }
    let page = engine
        .records(&token, limit.unwrap_or(GET_RECORDS_MAX_COUNT))
        .await?;
    Ok(page)
}

impl Output for Page {
    fn encode(self: Box<Self>, encoding: Encoding) -> Result<Encoded, ApiError> {
        let answer = GetRecordsResponse {
            records: Vec::new(),
            millis_behind_latest: Some(self.millis_behind_latest),
            child_shards: children(&self.children),
            next_shard_iterator: self.next_iterator,
        };
        Encoded::with_records(&answer, self.records, encoding)
    }

    fn is_piecewise(&self) -> bool {
        true
    }

    fn max_bytes(&self) -> usize {
        of_records(&self.records) + of_items(self.children.len())
    }
}

/// A record as it is shown.
pub(super) fn shown(record: &ReadRecord) -> RecordView<'_> {
    RecordView {
        sequence_number: record.sequence,
        approximate_arrival_timestamp: Timestamp::from_millis(record.arrival_ms),
        partition_key: record.key_bytes(),
        data: record.data(),
        encryption_type: record.encrypted.then_some("KMS"),
    }
}

/// The children of a closed shard as they are shown, if there are any.
pub(super) fn children(children: &[Shard]) -> Option<Vec<ChildShard>> {
    let shown = children.iter().map(|child| ChildShard {
        shard_id: child.id().to_string(),
        parent_shards: child
            .parents()
            .map(|parent| ShardId(parent).to_string())
            .collect(),
        hash_key_range: key_range(child),
    });
    (!children.is_empty()).then(|| shown.collect())
}
