//! Writing: `PutRecord` and `PutRecords`. Requests borrow from the body.

use serde::{Deserialize, Serialize};

use super::constraint::{
    BOOLEAN, Constraint, DATA, HASH_KEY, PARTITION_KEY, SEQUENCE_NUMBER, STREAM_ARN, STREAM_ID,
    STREAM_NAME,
};
use super::lenient;
use super::open_enum::EncryptionType;
use super::validate::Declared;
use super::value::{self, Blob, Text};
use crate::digits::Places;
use crate::encoding::EncodeError;
use crate::limits::PUT_RECORDS_MAX_COUNT;
use crate::{Encoding, SequenceNumber, ShardId};

shape! {
    /// Puts one record.
    ///
    /// Only a stream that spreads records by itself takes one without a partition key; which one it is
    /// is known only where the stream is.
    PutRecordRequest<'a> {
        /// The sequence number of the previous record, which this one must follow.
        #[serde(borrow)]
        sequence_number_for_ordering: Text<'a> = "SequenceNumberForOrdering", optional SEQUENCE_NUMBER;
        /// What decides on the shard.
        #[serde(borrow)]
        partition_key: Text<'a> = "PartitionKey", optional PARTITION_KEY;
        /// A hash key to use instead of the partition key's hash.
        #[serde(borrow)]
        explicit_hash_key: Text<'a> = "ExplicitHashKey", optional HASH_KEY;
        /// The record's bytes.
        #[serde(borrow)]
        data: Blob<'a> = "Data", required DATA;
        /// The stream, by name.
        #[serde(borrow)]
        stream_name: Text<'a> = "StreamName", optional STREAM_NAME;
        /// The stream, by ARN.
        #[serde(borrow)]
        stream_arn: Text<'a> = "StreamARN", optional STREAM_ARN;
        /// Reserved by AWS.
        #[serde(borrow)]
        stream_id: Text<'a> = "StreamId", optional STREAM_ID;
        /// Whether to check the request only.
        #[serde(deserialize_with = "lenient::boolean")]
        dry_run: bool = "DryRun", optional BOOLEAN;
    }
}

/// Where the record is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PutRecordResponse {
    /// Its shard.
    #[serde(with = "value::place")]
    pub shard_id: ShardId,
    /// Its sequence number.
    #[serde(with = "value::place")]
    pub sequence_number: SequenceNumber,
    /// How it is encrypted at rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_type: Option<EncryptionType>,
}

/// Keeps one entry more than is allowed: enough to refuse the request.
const KEEP: usize = PUT_RECORDS_MAX_COUNT + 1;

static ENTRY: Constraint = Constraint::structure(PutRecordsRequestEntry::MEMBERS);
static ENTRIES: Constraint = Constraint::put_records_entries(&ENTRY);

shape! {
    /// Puts up to 500 records; each succeeds or fails by itself.
    PutRecordsRequest<'a> {
        /// The records. Never more than 501 are kept of what was sent.
        #[serde(borrow, deserialize_with = "lenient::structures::<_, _, KEEP>")]
        records: Vec<PutRecordsRequestEntry<'a>> = "Records", required ENTRIES;
        /// The stream, by name.
        #[serde(borrow)]
        stream_name: Text<'a> = "StreamName", optional STREAM_NAME;
        /// The stream, by ARN.
        #[serde(borrow)]
        stream_arn: Text<'a> = "StreamARN", optional STREAM_ARN;
        /// Reserved by AWS.
        #[serde(borrow)]
        stream_id: Text<'a> = "StreamId", optional STREAM_ID;
        /// Whether to check the request only.
        #[serde(deserialize_with = "lenient::boolean")]
        dry_run: bool = "DryRun", optional BOOLEAN;
    }
}

shape! {
    /// One record of a [`PutRecordsRequest`].
    PutRecordsRequestEntry<'a> {
        /// What decides on the shard.
        #[serde(borrow)]
        partition_key: Text<'a> = "PartitionKey", optional PARTITION_KEY;
        /// The record's bytes.
        #[serde(borrow)]
        data: Blob<'a> = "Data", required DATA;
        /// A hash key to use instead of the partition key's hash.
        #[serde(borrow)]
        explicit_hash_key: Text<'a> = "ExplicitHashKey", optional HASH_KEY;
    }
}

/// What became of the records, in the order they were sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PutRecordsResponse {
    /// How many failed.
    #[serde(default)]
    pub failed_record_count: u32,
    /// One entry for each record.
    pub records: Vec<PutRecordsResultEntry>,
    /// How the records are encrypted at rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_type: Option<EncryptionType>,
}

/// What became of one record: a place, or an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PutRecordsResultEntry {
    /// Its sequence number.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "value::optional_place"
    )]
    pub sequence_number: Option<SequenceNumber>,
    /// Its shard.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "value::optional_place"
    )]
    pub shard_id: Option<ShardId>,
    /// `ProvisionedThroughputExceededException` or `InternalFailure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
}

impl PutRecordsResponse {
    /// Its bytes. What serde makes of it in JSON, written straight for the records that were taken: their places are
    /// texts without anything to escape, 500 of them in an answer.
    ///
    /// # Errors
    /// None: every answer has a form in both encodings.
    pub fn encode(&self, encoding: Encoding) -> Result<Vec<u8>, EncodeError> {
        match encoding {
            Encoding::Json => self.to_json().map_err(EncodeError::new),
            Encoding::Cbor => encoding.encode(self),
        }
    }

    fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let mut body = Vec::with_capacity(64 + self.records.len() * ENTRY_BYTES);
        body.extend_from_slice(b"{\"FailedRecordCount\":");
        serde_json::to_writer(&mut body, &self.failed_record_count)?;
        body.extend_from_slice(b",\"Records\":[");
        let mut places = Places::default();
        for (number, entry) in self.records.iter().enumerate() {
            if number > 0 {
                body.push(b',');
            }
            match entry {
                PutRecordsResultEntry {
                    sequence_number: Some(sequence_number),
                    shard_id: Some(shard_id),
                    error_code: None,
                    error_message: None,
                } => {
                    body.extend_from_slice(b"{\"SequenceNumber\":\"");
                    let digits = places.digits(*shard_id, *sequence_number);
                    body.extend_from_slice(digits.as_bytes());
                    body.extend_from_slice(b"\",\"ShardId\":\"");
                    body.extend_from_slice(shard_id.text().as_bytes());
                    body.extend_from_slice(b"\"}");
                }
                other => serde_json::to_writer(&mut body, other)?,
            }
        }
        body.push(b']');
        if let Some(encryption_type) = &self.encryption_type {
            body.extend_from_slice(b",\"EncryptionType\":");
            serde_json::to_writer(&mut body, encryption_type)?;
        }
        body.push(b'}');
        Ok(body)
    }
}

/// Bytes of an entry in JSON, about.
const ENTRY_BYTES: usize = 116;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry() -> impl Strategy<Value = PutRecordsResultEntry> {
        let place = ("[1-9][0-9]{0,55}", 0..u32::MAX / 2).prop_map(|(number, shard)| {
            PutRecordsResultEntry {
                sequence_number: number.parse().ok(),
                shard_id: Some(ShardId(shard)),
                ..PutRecordsResultEntry::default()
            }
        });
        let error = ("\\PC{0,9}", prop::option::of("\\PC{0,9}")).prop_map(|(code, message)| {
            PutRecordsResultEntry {
                error_code: Some(code),
                error_message: message,
                ..PutRecordsResultEntry::default()
            }
        });
        prop_oneof![4 => place, 1 => error, 1 => Just(PutRecordsResultEntry::default())]
    }

    proptest! {
        #[test]
        fn results_are_written_as_serde_writes_them(
            records in prop::collection::vec(entry(), 0..6),
            failed_record_count: u32,
            is_encrypted: bool,
        ) {
            let answer = PutRecordsResponse {
                failed_record_count,
                records,
                encryption_type: is_encrypted.then_some(EncryptionType::Kms),
            };
            for encoding in [Encoding::Json, Encoding::Cbor] {
                prop_assert_eq!(answer.encode(encoding).unwrap(), encoding.encode(&answer).unwrap());
            }
        }
    }
}
