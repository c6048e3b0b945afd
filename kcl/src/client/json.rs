//! The JSON of the five calls: what is sent, and what is read of the answers. Members this library does not need, or does not
//! know, are ignored, so that newer servers are understood.

use crate::client::{
    IteratorStart, PutRecord, RecordsPage, Shard, StreamSummary, SubscriptionEvent,
};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::processor::Record;
use bytes::Bytes;
use millstream_wire::limits::GET_RECORDS_MAX_COUNT;
use millstream_wire::{ErrorCode, HashKeyRange, SequenceNumber};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::Range;

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StreamRequest<'a> {
    #[serde(rename = "StreamARN", skip_serializing_if = "Option::is_none")]
    stream_arn: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard_iterator_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    starting_sequence_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<f64>,
}

impl<'a> StreamRequest<'a> {
    /// Names a stream by its name or ARN.
    pub(crate) fn of(stream: &'a str) -> Self {
        let is_arn = stream.starts_with("arn:");
        StreamRequest {
            stream_arn: is_arn.then_some(stream),
            stream_name: (!is_arn).then_some(stream),
            ..StreamRequest::default()
        }
    }

    /// A next page: its token stands for the stream, whose ARN may be repeated but not its name.
    pub(crate) fn next_page(self, token: &'a str) -> Self {
        StreamRequest {
            next_token: Some(token),
            stream_name: None,
            ..self
        }
    }

    /// Asks for an iterator.
    pub(crate) fn iterator(self, shard_id: &'a str, start: IteratorStart) -> Self {
        let (kind, sequence, timestamp) = match start {
            IteratorStart::TrimHorizon => ("TRIM_HORIZON", None, None),
            IteratorStart::AtTimestamp(ms) => ("AT_TIMESTAMP", None, Some(seconds(ms))),
            IteratorStart::AtSequence(number) => ("AT_SEQUENCE_NUMBER", Some(number), None),
            IteratorStart::AfterSequence(number) => ("AFTER_SEQUENCE_NUMBER", Some(number), None),
        };
        StreamRequest {
            shard_id: Some(shard_id),
            shard_iterator_type: Some(kind),
            starting_sequence_number: sequence.map(|number| number.to_string()),
            timestamp,
            ..self
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "times are far below 2^53 ms")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// Milliseconds of a JSON timestamp, which is a number of seconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and a time before 1970 is as good as 1970"
)]
pub(super) fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0).round() as u64
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StreamsRequest {
    pub(crate) limit: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StreamsAnswer {
    pub(crate) stream_names: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RecordsRequest<'a> {
    pub(crate) shard_iterator: &'a str,
    pub(crate) limit: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PutRequest<'a> {
    #[serde(flatten)]
    stream: StreamRequest<'a>,
    partition_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    explicit_hash_key: Option<String>,
    data: String,
}

impl<'a> PutRequest<'a> {
    pub(crate) fn of(record: PutRecord<'a>) -> Self {
        PutRequest {
            stream: StreamRequest::of(record.stream),
            partition_key: record.partition_key,
            explicit_hash_key: record.explicit_hash_key.map(|key| key.to_string()),
            data: base64_simd::STANDARD.encode_to_string(record.data),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PutAnswer {
    sequence_number: String,
}

impl PutAnswer {
    pub(crate) fn sequence_number(&self) -> Result<SequenceNumber, Error> {
        let number = self.sequence_number.parse();
        number.map_err(|error| senseless("a sequence number", error))
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SummaryAnswer {
    stream_description_summary: Summary,
}

#[derive(Debug, Deserialize)]
struct Summary {
    #[serde(rename = "StreamARN")]
    arn: String,
    #[serde(rename = "StreamName")]
    name: String,
    #[serde(rename = "StreamStatus")]
    status: String,
    #[serde(rename = "StreamCreationTimestamp")]
    created: f64,
}

impl SummaryAnswer {
    pub(crate) fn summary(self, server_time_ms: u64) -> StreamSummary {
        let summary = self.stream_description_summary;
        StreamSummary {
            arn: summary.arn,
            name: summary.name,
            created_ms: milliseconds(summary.created),
            status: summary.status,
            server_time_ms,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ShardsAnswer {
    #[serde(default)]
    pub(crate) shards: Vec<ListedShard>,
    #[serde(default)]
    pub(crate) next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListedShard {
    shard_id: String,
    parent_shard_id: Option<String>,
    adjacent_parent_shard_id: Option<String>,
    hash_key_range: HashKeys,
    sequence_number_range: Option<SequenceRange>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HashKeys {
    starting_hash_key: String,
    ending_hash_key: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SequenceRange {
    ending_sequence_number: Option<String>,
}

impl HashKeys {
    fn parse(&self) -> Result<HashKeyRange, Error> {
        let key = |text: &str| text.parse().map_err(|error| senseless("a hash key", error));
        Ok(HashKeyRange {
            start: key(&self.starting_hash_key)?,
            end: key(&self.ending_hash_key)?,
        })
    }
}

impl ListedShard {
    pub(crate) fn shard(self) -> Result<Shard, Error> {
        let closed = self
            .sequence_number_range
            .is_some_and(|range| range.ending_sequence_number.is_some());
        Ok(Shard {
            hash_key_range: self.hash_key_range.parse()?,
            parents: self
                .parent_shard_id
                .into_iter()
                .chain(self.adjacent_parent_shard_id)
                .collect(),
            shard_id: self.shard_id,
            closed,
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct IteratorAnswer {
    pub(crate) shard_iterator: String,
}

/// The answer to `GetRecords`. Its texts are read where they lie, and each is copied once: see [`RecordsAnswer::page`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RecordsAnswer<'a> {
    #[serde(default, borrow)]
    records: Vec<ReadRecord<'a>>,
    millis_behind_latest: Option<u64>,
    next_shard_iterator: Option<String>,
    child_shards: Option<Vec<ChildShard>>,
    /// In the events of a subscription only.
    continuation_sequence_number: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReadRecord<'a> {
    #[serde(borrow)]
    sequence_number: Cow<'a, str>,
    /// A stream may be without partition keys.
    #[serde(default, borrow)]
    partition_key: Cow<'a, str>,
    #[serde(borrow)]
    data: Cow<'a, str>,
    approximate_arrival_timestamp: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ChildShard {
    shard_id: String,
    #[serde(default)]
    parent_shards: Vec<String>,
    hash_key_range: HashKeys,
}

impl RecordsAnswer<'_> {
    pub(crate) fn page(self) -> Result<RecordsPage, Error> {
        let child = |child: ChildShard| {
            Ok(Shard {
                hash_key_range: child.hash_key_range.parse()?,
                shard_id: child.shard_id,
                parents: child.parent_shards,
                closed: false,
            })
        };
        Ok(RecordsPage {
            records: records(&self.records)?,
            millis_behind_latest: self.millis_behind_latest.unwrap_or(0),
            next_iterator: self.next_shard_iterator,
            children: self
                .child_shards
                .unwrap_or_default()
                .into_iter()
                .map(child)
                .collect::<Result<_, Error>>()?,
        })
    }
}

impl RecordsAnswer<'_> {
    /// The same as an event of a subscription.
    pub(crate) fn event(mut self) -> Result<SubscriptionEvent, Error> {
        let continuation = self.continuation_sequence_number.take();
        let parse = |text: String| text.parse();
        let continuation = continuation.map(parse).transpose();
        let continuation = continuation.map_err(|error| senseless("a sequence number", error))?;
        let page = self.page()?;
        Ok(SubscriptionEvent {
            records: page.records,
            continuation,
            millis_behind_latest: page.millis_behind_latest,
            children: page.children,
        })
    }
}

/// The records of an answer: payloads and keys are decoded one after the other into one buffer, of which each record has its slices.
fn records(read: &[ReadRecord<'_>]) -> Result<Vec<Record>, Error> {
    if read.len() > GET_RECORDS_MAX_COUNT {
        return Err(too_many("records"));
    }
    let bytes = |record: &ReadRecord<'_>| record.data.len() / 4 * 3 + record.partition_key.len();
    let mut page = Vec::with_capacity(read.iter().map(bytes).sum());
    let mut places: Vec<(Range<usize>, Range<usize>)> = Vec::with_capacity(read.len());
    for record in read {
        let begin = page.len();
        base64_simd::STANDARD
            .decode_append(&*record.data, &mut page)
            .map_err(|_| Error::new(ErrorKind::Protocol, "a record's data are not Base64"))?;
        let middle = page.len();
        page.extend_from_slice(record.partition_key.as_bytes());
        places.push((begin..middle, middle..page.len()));
    }
    let page = Bytes::from(page);
    let record = |(read, (data, key)): (&ReadRecord<'_>, (Range<usize>, Range<usize>))| {
        let number = read.sequence_number.parse();
        let number = number.map_err(|error| senseless("a sequence number", error))?;
        let arrival_ms = read.approximate_arrival_timestamp.map_or(0, milliseconds);
        let key = Key::slice(page.slice(key));
        Ok(Record::stored(number, key, page.slice(data), arrival_ms))
    };
    read.iter().zip(places).map(record).collect()
}

pub(super) fn too_many(what: &str) -> Error {
    let message = format!(
        "the endpoint answered with more than {GET_RECORDS_MAX_COUNT} {what}, which is the most that GetRecords gives"
    );
    Error::new(ErrorKind::Protocol, message)
}

pub(super) fn senseless(
    what: &str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::with_source(
        ErrorKind::Protocol,
        format!("the endpoint answered with {what} that is none"),
        error,
    )
}

/// An error answer.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ErrorAnswer {
    #[serde(rename = "__type", default)]
    pub(crate) code: String,
    #[serde(alias = "Message", default)]
    pub(crate) message: String,
}

/// What a caller can do about a code.
pub(crate) fn kind_of(code: ErrorCode) -> ErrorKind {
    match code {
        ErrorCode::ResourceNotFound => ErrorKind::NotFound,
        ErrorCode::ExpiredIterator | ErrorCode::ExpiredNextToken => ErrorKind::Expired,
        ErrorCode::AccessDenied
        | ErrorCode::IncompleteSignature
        | ErrorCode::InvalidSignature
        | ErrorCode::MissingAuthenticationToken => ErrorKind::AccessDenied,
        ErrorCode::InternalFailure
        | ErrorCode::LimitExceeded
        | ErrorCode::ResourceInUse
        | ErrorCode::ServiceUnavailable => ErrorKind::Unavailable,
        ErrorCode::ProvisionedThroughputExceeded => ErrorKind::Throttled,
        // A code that the wire crate learns later has not been asked for by these five calls.
        _ => ErrorKind::Protocol,
    }
}

/// Milliseconds since 1970 of an HTTP date, `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(crate) fn http_date_ms(text: &str) -> Option<u64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let mut words = text.split_once(", ")?.1.split(' ');
    let day: u64 = words.next()?.parse().ok()?;
    let month = u64::try_from(MONTHS.find(words.next()?)? / 3).ok()? + 1;
    let year: u64 = words.next()?.parse().ok()?;
    let mut clock = words
        .next()?
        .split(':')
        .map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let sound = (1970..=9999).contains(&year)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !sound {
        return None;
    }
    // Days since 1970 of a civil date, counted in years that begin in March.
    let shifted = if month > 2 { year } else { year - 1 };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + day_of_year - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60_000 + second * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_http_dates() {
        assert_eq!(
            http_date_ms("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(784_111_777_000)
        );
        assert_eq!(http_date_ms("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(
            http_date_ms("Thu, 29 Feb 2024 23:59:59 GMT"),
            Some(1_709_251_199_000)
        );
        for text in [
            "",
            "Sun, 06 Nov 1994",
            "Sun, x Nov 1994 08:49:37 GMT",
            "Sun, 00 Jan 1970 00:00:00 GMT",
        ] {
            assert_eq!(http_date_ms(text), None, "{text:?}");
        }
    }

    #[test]
    fn reads_a_page_and_ignores_what_it_does_not_know() {
        let text = r#"{"Records":[{"SequenceNumber":"5","PartitionKey":"k","Data":"aGVsbG8=",
            "ApproximateArrivalTimestamp":1.700000001234E9,"EncryptionType":"NONE","New":{"a":[1]}}],
            "MillisBehindLatest":7,"NextShardIterator":null,"Other":1,"ChildShards":[{"ShardId":"c",
            "ParentShards":["a","b"],"HashKeyRange":{"StartingHashKey":"0","EndingHashKey":"9"}}]}"#;
        let page = serde_json::from_str::<RecordsAnswer<'_>>(text)
            .unwrap()
            .page()
            .unwrap();
        assert_eq!(&page.records[0].data[..], b"hello");
        assert_eq!(page.records[0].arrival_ms, 1_700_000_001_234);
        assert_eq!(page.next_iterator, None);
        assert_eq!(page.children[0].parents, ["a", "b"]);
    }

    #[test]
    fn senseless_answers_are_errors() {
        let record = |data: &str, sequence: &str| {
            format!(
                r#"{{"Records":[{{"SequenceNumber":"{sequence}","PartitionKey":"k","Data":"{data}"}}]}}"#
            )
        };
        for (data, sequence) in [("!", "5"), ("AA=", "5"), ("", "-5")] {
            let text = record(data, sequence);
            let answer: RecordsAnswer<'_> = serde_json::from_str(&text).unwrap();
            assert_eq!(answer.page().unwrap_err().kind(), ErrorKind::Protocol);
        }
        let many = vec![
            record("", "5")
                .replace(r#"{"Records":["#, "")
                .replace("]}", "");
            10_001
        ];
        let many = format!(r#"{{"Records":[{}]}}"#, many.join(","));
        let answer: RecordsAnswer<'_> = serde_json::from_str(&many).unwrap();
        assert_eq!(answer.page().unwrap_err().kind(), ErrorKind::Protocol);
    }

    #[test]
    fn requests_say_what_the_api_expects() {
        let json = |request: &StreamRequest<'_>| serde_json::to_string(request).unwrap();
        let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
        assert_eq!(json(&StreamRequest::of("s")), r#"{"StreamName":"s"}"#);
        assert_eq!(
            json(&StreamRequest::of(arn)),
            format!(r#"{{"StreamARN":"{arn}"}}"#)
        );
        assert_eq!(
            json(&StreamRequest::of("s").next_page("t")),
            r#"{"NextToken":"t"}"#
        );
        assert_eq!(
            json(&StreamRequest::of("s").iterator("x", IteratorStart::AtTimestamp(1_500))),
            r#"{"StreamName":"s","ShardId":"x","ShardIteratorType":"AT_TIMESTAMP","Timestamp":1.5}"#
        );
    }

    #[test]
    fn every_code_has_a_kind_that_agrees_on_retrying() {
        for code in ErrorCode::ALL {
            let kind = kind_of(*code);
            if code.is_retryable() {
                assert!(kind.is_retryable(), "{code}");
            }
        }
    }
}
