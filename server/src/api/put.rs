//! PutRecord and PutRecords.

use crate::api::{Caller, named, stream_arn};
use crate::engine::catalog::Stream;
use crate::engine::options::Distribution;
use crate::engine::{Engine, Placed, PutEntry, Refusal};
use crate::error::ApiError;
use millstream_wire::limits::PUT_RECORDS_MAX_BYTES;
use millstream_wire::shapes::{
    Blob, EncryptionType, PutRecordRequest, PutRecordResponse, PutRecordsRequest,
    PutRecordsRequestEntry, PutRecordsResponse, PutRecordsResultEntry, Text,
};
use millstream_wire::{ErrorCode, HashKey, SequenceNumber, StreamArn};

pub(super) async fn put_record(
    engine: &Engine,
    caller: &Caller,
    request: PutRecordRequest<'_>,
) -> Result<PutRecordResponse, ApiError> {
    let arn = stream_arn(
        caller,
        request.stream_name.as_deref(),
        request.stream_arn.as_deref(),
    )?;
    let stream = engine.writable_stream(&arn)?;
    check_key(&stream, request.partition_key.is_some(), || {
        "partitionKey".to_owned()
    })?;
    let entry = entry(
        request.partition_key.as_deref(),
        request.data.as_ref(),
        request.explicit_hash_key.as_ref(),
    )?;
    if let Some(text) = request.sequence_number_for_ordering.as_deref()
        && !can_precede(text, &stream, engine.now_ms())
    {
        return Err(ApiError::bad_ordering_sequence(text, named(&arn)));
    }
    if request.dry_run == Some(true) {
        return Err(ApiError::dry_run());
    }
    check_sizes(&stream, &[entry], |_| "data".to_owned())?;
    match engine.put(&stream, &[entry]).await?.pop() {
        Some(Ok(Placed { shard, sequence })) => Ok(PutRecordResponse {
            shard_id: shard,
            sequence_number: sequence,
            encryption_type: encryption(engine, &stream),
        }),
        Some(Err(refusal)) => Err(ApiError::of_record(&refusal, named(&arn))),
        None => unreachable!("a put of one record has one outcome"),
    }
}

pub(super) async fn put_records(
    engine: &Engine,
    caller: &Caller,
    request: PutRecordsRequest<'_>,
) -> Result<PutRecordsResponse, ApiError> {
    let arn = stream_arn(
        caller,
        request.stream_name.as_deref(),
        request.stream_arn.as_deref(),
    )?;
    let stream = engine.writable_stream(&arn)?;
    let records = request.records.as_deref().unwrap_or_default();
    let keyless = records
        .iter()
        .position(|record| record.partition_key.is_none());
    check_key(&stream, keyless.is_none(), || {
        let place = keyless.map_or(0, |n| n + 1);
        format!("records.{place}.member.partitionKey")
    })?;
    let entries = records.iter().map(|record: &PutRecordsRequestEntry<'_>| {
        entry(
            record.partition_key.as_deref(),
            record.data.as_ref(),
            record.explicit_hash_key.as_ref(),
        )
    });
    let entries = entries.collect::<Result<Vec<_>, _>>()?;
    let total: usize = entries
        .iter()
        .map(|e| e.data.decoded_len() + e.partition_key.len())
        .sum();
    if total > PUT_RECORDS_MAX_BYTES {
        return Err(ApiError::records_too_large(total, PUT_RECORDS_MAX_BYTES));
    }
    if request.dry_run == Some(true) {
        return Err(ApiError::dry_run());
    }
    check_sizes(&stream, &entries, |n| {
        format!("records.{}.member.data", n + 1)
    })?;
    let outcomes = engine.put(&stream, &entries).await?;
    let records: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| result(outcome, &arn))
        .collect();
    let failed = records
        .iter()
        .filter(|record| record.error_code.is_some())
        .count();
    Ok(PutRecordsResponse {
        failed_record_count: u32::try_from(failed).unwrap_or(u32::MAX),
        records,
        encryption_type: encryption(engine, &stream),
    })
}

fn entry<'a>(
    partition_key: Option<&'a str>,
    data: Option<&'a Blob<'a>>,
    explicit_hash_key: Option<&Text<'a>>,
) -> Result<PutEntry<'a>, ApiError> {
    let Some(data) = data else {
        unreachable!("validation requires a record's data");
    };
    let explicit_hash_key = match explicit_hash_key {
        None => None,
        Some(text) => Some(
            text.parse::<HashKey>()
                .map_err(|_| ApiError::explicit_hash_key_too_large(text))?,
        ),
    };
    Ok(PutEntry {
        partition_key: partition_key.unwrap_or_default(),
        explicit_hash_key,
        data,
    })
}

/// A record needs a partition key unless its stream spreads records by itself.
fn check_key(stream: &Stream, has_key: bool, path: impl Fn() -> String) -> Result<(), ApiError> {
    if has_key || stream.options.distribution == Distribution::Auto {
        return Ok(());
    }
    Err(ApiError::member_missing(&path()))
}

/// Whether a record can come after this sequence number, which orders a producer's own puts; the log
/// orders them anyway. AWS refuses one of the future. What this stream gave out is never one, whatever the
/// clock did since.
fn can_precede(text: &str, stream: &Stream, now_ms: u64) -> bool {
    let number = text.parse().ok();
    let Some(origin) = number.and_then(SequenceNumber::origin) else {
        return false;
    };
    let shard = stream.shards.get(&origin.shard_index.cast_unsigned());
    shard.is_some_and(|shard| shard.created_seconds == origin.shard_created_seconds)
        || origin
            .record_seconds
            .is_none_or(|seconds| seconds <= now_ms / 1_000)
}

/// How records that are put now are encrypted; nothing is said where they are not.
fn encryption(engine: &Engine, stream: &Stream) -> Option<EncryptionType> {
    let key = stream.options.key_at(engine.now_ms());
    key.map(|_| EncryptionType::Kms)
}

/// Refuses the whole request if one record is larger than its stream takes.
fn check_sizes(
    stream: &Stream,
    entries: &[PutEntry<'_>],
    path: impl Fn(usize) -> String,
) -> Result<(), ApiError> {
    let limit = stream.max_record_bytes;
    match entries
        .iter()
        .enumerate()
        .find(|(_, entry)| entry.counted_bytes() > limit)
    {
        None => Ok(()),
        Some((n, entry)) => Err(ApiError::record_too_large(
            &path(n),
            entry.data.decoded_len(),
            limit,
        )),
    }
}

fn result(outcome: Result<Placed, Refusal>, arn: &StreamArn) -> PutRecordsResultEntry {
    match outcome {
        Ok(Placed { shard, sequence }) => PutRecordsResultEntry {
            sequence_number: Some(sequence),
            shard_id: Some(shard),
            ..PutRecordsResultEntry::default()
        },
        Err(refusal) => {
            let error = ApiError::of_record(&refusal, named(arn));
            // API reference: a record's code is one of two, whatever went wrong.
            let code = match error.code {
                ErrorCode::ProvisionedThroughputExceeded => error.code,
                _ => ErrorCode::InternalFailure,
            };
            let message = Some(error.message).filter(|message| !message.is_empty());
            PutRecordsResultEntry {
                error_code: Some(code.name().to_owned()),
                // The text is the one that AWS gives for it.
                error_message: message.or_else(|| Some("Internal service failure.".to_owned())),
                ..PutRecordsResultEntry::default()
            }
        }
    }
}
