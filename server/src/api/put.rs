//! PutRecord and PutRecords.

use crate::api::{Caller, named, stream_arn};
use crate::engine::{Engine, Placed, PutEntry, Refusal};
use crate::error::ApiError;
use millstream_wire::limits::PUT_RECORDS_MAX_BYTES;
use millstream_wire::shapes::{
    Blob, PutRecordRequest, PutRecordResponse, PutRecordsRequest, PutRecordsRequestEntry,
    PutRecordsResponse, PutRecordsResultEntry, Text,
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
    // The number orders a producer's own puts; the log orders them anyway, so it is only checked.
    if let Some(text) = request.sequence_number_for_ordering.as_deref()
        && text.parse::<SequenceNumber>().is_err()
    {
        return Err(ApiError::bad_ordering_sequence(text, named(&arn)));
    }
    let entry = entry(
        request.partition_key.as_ref(),
        request.data.as_ref(),
        request.explicit_hash_key.as_ref(),
    )?;
    if request.dry_run == Some(true) {
        engine.stream(&arn)?;
        return Err(ApiError::dry_run());
    }
    check_sizes(engine, &arn, &[entry], |_| "data".to_owned())?;
    match engine.put(&arn, &[entry]).await?.pop() {
        Some(Ok(Placed { shard, sequence })) => Ok(PutRecordResponse {
            shard_id: shard.to_string(),
            sequence_number: sequence.to_string(),
            encryption_type: None,
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
    let records = request.records.as_deref().unwrap_or_default();
    let entries = records.iter().map(|record: &PutRecordsRequestEntry<'_>| {
        entry(
            record.partition_key.as_ref(),
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
        engine.stream(&arn)?;
        return Err(ApiError::dry_run());
    }
    check_sizes(engine, &arn, &entries, |n| {
        format!("records.{}.member.data", n + 1)
    })?;
    let outcomes = engine.put(&arn, &entries).await?;
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
        encryption_type: None,
    })
}

fn entry<'a>(
    partition_key: Option<&'a Text<'a>>,
    data: Option<&'a Blob<'a>>,
    explicit_hash_key: Option<&Text<'a>>,
) -> Result<PutEntry<'a>, ApiError> {
    let (Some(partition_key), Some(data)) = (partition_key, data) else {
        unreachable!("validation requires a record's key and data");
    };
    let explicit_hash_key = match explicit_hash_key {
        None => None,
        Some(text) => Some(
            text.parse::<HashKey>()
                .map_err(|_| ApiError::explicit_hash_key_too_large(text))?,
        ),
    };
    Ok(PutEntry {
        partition_key,
        explicit_hash_key,
        data,
    })
}

/// Refuses the whole request if one record is larger than its stream takes.
fn check_sizes(
    engine: &Engine,
    arn: &StreamArn,
    entries: &[PutEntry<'_>],
    path: impl Fn(usize) -> String,
) -> Result<(), ApiError> {
    let limit = engine.stream(arn)?.max_record_bytes;
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
            sequence_number: Some(sequence.to_string()),
            shard_id: Some(shard.to_string()),
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
