//! Records on their way into an answer, written straight into its body: the hot path of reading. What is written is
//! what serde makes of [`Record`](super::Record); a test compares the two.

use serde::Serialize;

use super::value::Timestamp;
use crate::digits::Successive;
use crate::encoding::EncodeError;
use crate::{Encoding, SequenceNumber, b64, cbor};

/// A record as an answer shows it. Borrows what it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'r> {
    /// Its place in the shard.
    pub sequence_number: SequenceNumber,
    /// When it arrived.
    pub approximate_arrival_timestamp: Timestamp,
    /// Its bytes.
    pub data: &'r [u8],
    /// What decided on its shard, in UTF-8; empty where the producer gave none.
    pub partition_key: &'r [u8],
    /// How it is encrypted at rest.
    pub encryption_type: Option<&'static str>,
}

/// What an answer begins with whose first member is an empty list of records; the records go behind it.
const JSON_HEAD: &[u8] = b"{\"Records\":[";
const CBOR_HEAD: &[u8] = b"\xbf\x67Records\x9f";

impl Encoding {
    /// What stands before and behind the records in the body of `answer`, whose list of records comes first and is
    /// empty. A [`RecordWriter`] writes what stands between.
    ///
    /// # Errors
    /// For an answer that does not begin with an empty list `Records`; no answer with records does.
    pub fn around_records<T: Serialize>(
        self,
        answer: &T,
    ) -> Result<(&'static [u8], Vec<u8>), EncodeError> {
        let mut empty = self.encode(answer)?;
        let head = match self {
            Encoding::Json => JSON_HEAD,
            Encoding::Cbor => CBOR_HEAD,
        };
        if !empty.starts_with(head) {
            let shown = String::from_utf8_lossy(&empty);
            return Err(EncodeError::new(format!(
                "an answer begins with an empty list of records, not so: {shown}"
            )));
        }
        Ok((head, empty.split_off(head.len())))
    }
}

const SEQUENCE_NUMBER: &[u8] = b"{\"SequenceNumber\":\"";
const ARRIVAL: &[u8] = b"\",\"ApproximateArrivalTimestamp\":";
const DATA: &[u8] = b",\"Data\":\"";
const PARTITION_KEY: &[u8] = b",\"PartitionKey\":";
const ENCRYPTION_TYPE: &[u8] = b",\"EncryptionType\":";

/// Writes the records of one list, one behind the other. What most of them have in common with the one before is not worked
/// out anew: they are of one commit, and so of one time and at the same distance.
#[derive(Debug)]
pub struct RecordWriter {
    encoding: Encoding,
    is_first: bool,
    numbers: Successive,
    /// The latest time, and its text.
    time: Option<Timestamp>,
    time_text: Vec<u8>,
}

impl RecordWriter {
    /// One that has written nothing yet.
    pub fn new(encoding: Encoding) -> RecordWriter {
        RecordWriter {
            encoding,
            is_first: true,
            numbers: Successive::default(),
            time: None,
            time_text: Vec::new(),
        }
    }

    /// Appends the next record: [`RecordView::encoded_len`] bytes.
    pub fn append(&mut self, record: &RecordView<'_>, body: &mut Vec<u8>) {
        match self.encoding {
            Encoding::Json => self.append_json(record, body),
            Encoding::Cbor => self.append_cbor(record, body),
        }
        self.is_first = false;
    }

    fn append_json(&mut self, record: &RecordView<'_>, body: &mut Vec<u8>) {
        if !self.is_first {
            body.push(b',');
        }
        body.extend_from_slice(SEQUENCE_NUMBER);
        body.extend_from_slice(self.numbers.digits(record.sequence_number).as_bytes());
        body.extend_from_slice(ARRIVAL);
        body.extend_from_slice(self.seconds(record.approximate_arrival_timestamp));
        body.extend_from_slice(DATA);
        b64::append(record.data, body);
        body.push(b'"');
        if !record.partition_key.is_empty() {
            body.extend_from_slice(PARTITION_KEY);
            write_text(record.partition_key, body);
        }
        if let Some(encryption_type) = record.encryption_type {
            body.extend_from_slice(ENCRYPTION_TYPE);
            write_text(encryption_type.as_bytes(), body);
        }
        body.push(b'}');
    }

    fn seconds(&mut self, time: Timestamp) -> &[u8] {
        if self.time != Some(time) {
            self.time_text.clear();
            write_seconds(time, &mut self.time_text);
            self.time = Some(time);
        }
        &self.time_text
    }

    fn append_cbor(&mut self, record: &RecordView<'_>, body: &mut Vec<u8>) {
        let text = |text: &[u8], body: &mut Vec<u8>| {
            cbor::append_head(CBOR_TEXT, text.len() as u64, body);
            body.extend_from_slice(text);
        };
        body.push(CBOR_MAP_BEGINS);
        text(b"SequenceNumber", body);
        text(self.numbers.digits(record.sequence_number).as_bytes(), body);
        text(b"ApproximateArrivalTimestamp", body);
        body.push(CBOR_TIME_TAG);
        let millis = record.approximate_arrival_timestamp.millis;
        match u64::try_from(millis) {
            Ok(millis) => cbor::append_head(CBOR_UNSIGNED, millis, body),
            // Below zero it counts from -1 on.
            Err(_) => cbor::append_head(CBOR_NEGATIVE, (!millis).cast_unsigned(), body),
        }
        text(b"Data", body);
        cbor::append_head(CBOR_BYTES, record.data.len() as u64, body);
        body.extend_from_slice(record.data);
        if !record.partition_key.is_empty() {
            text(b"PartitionKey", body);
            text(record.partition_key, body);
        }
        if let Some(encryption_type) = record.encryption_type {
            text(b"EncryptionType", body);
            text(encryption_type.as_bytes(), body);
        }
        body.push(CBOR_ENDS);
    }
}

const CBOR_UNSIGNED: u8 = 0;
const CBOR_NEGATIVE: u8 = 1;
const CBOR_BYTES: u8 = 2;
const CBOR_TEXT: u8 = 3;
const CBOR_MAP_BEGINS: u8 = 0xbf;
const CBOR_TIME_TAG: u8 = 0xc1;
const CBOR_ENDS: u8 = 0xff;

impl RecordView<'_> {
    /// Bytes that [`RecordWriter::append`] writes behind `before` others of the same list.
    pub fn encoded_len(&self, encoding: Encoding, before: usize) -> usize {
        match encoding {
            Encoding::Json => usize::from(before > 0) + self.json_len(),
            Encoding::Cbor => self.cbor_len(),
        }
    }

    fn json_len(&self) -> usize {
        let fixed = SEQUENCE_NUMBER.len() + ARRIVAL.len() + DATA.len() + "\"}".len();
        let mut variable = self.sequence_number.digits_len() + self.data.len().div_ceil(3) * 4;
        let (_, fraction) = fraction(self.approximate_arrival_timestamp);
        if EXACT.contains(&self.approximate_arrival_timestamp.millis) {
            let seconds = self.approximate_arrival_timestamp.millis / 1000;
            variable += decimal_len(seconds) + 1 + fraction;
        } else {
            let mut text = Vec::new();
            write_seconds(self.approximate_arrival_timestamp, &mut text);
            variable += text.len();
        }
        if !self.partition_key.is_empty() {
            variable += PARTITION_KEY.len() + text_len(self.partition_key);
        }
        if let Some(encryption_type) = self.encryption_type {
            variable += ENCRYPTION_TYPE.len() + text_len(encryption_type.as_bytes());
        }
        fixed + variable
    }

    /// Every item is a head, which tells its length, and so many bytes.
    fn cbor_len(&self) -> usize {
        let text = |len: usize| cbor::head_len(len) + len;
        let millis = self.approximate_arrival_timestamp.millis;
        let mut len = 2 // begin and end of a map
            + text("SequenceNumber".len())
            + text(self.sequence_number.digits_len())
            + text("ApproximateArrivalTimestamp".len())
            + 1 // the tag of a time
            + cbor::integer_len(millis)
            + text("Data".len())
            + text(self.data.len());
        if !self.partition_key.is_empty() {
            len += text("PartitionKey".len()) + text(self.partition_key.len());
        }
        if let Some(encryption_type) = self.encryption_type {
            len += text("EncryptionType".len()) + text(encryption_type.len());
        }
        len
    }
}

/// Milliseconds whose seconds have fifteen digits at most: so far a decimal number and the nearest double stand for
/// each other.
const EXACT: std::ops::Range<i64> = 0..1_000_000_000_000_000;

/// The fraction of a second without zeros at its end, and its digits.
fn fraction(time: Timestamp) -> (i64, usize) {
    match time.millis % 1000 {
        millis if millis % 100 == 0 => (millis / 100, 1),
        millis if millis % 10 == 0 => (millis / 10, 2),
        millis => (millis, 3),
    }
}

/// Digits of a number that is not negative.
fn decimal_len(number: i64) -> usize {
    let digits = number.checked_ilog10().map_or(0, |below| below);
    usize::try_from(digits).unwrap_or_default() + 1
}

/// Bytes that [`write_text`] writes.
fn text_len(text: &[u8]) -> usize {
    if is_plain(text) {
        return text.len() + 2;
    }
    let mut written = Vec::new();
    write_text(text, &mut written);
    written.len()
}

/// Whether nothing of a text is escaped, eight bytes at once: keys are short, and there are many.
fn is_plain(text: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (words, rest) = text.as_chunks::<8>();
    let mut last = [b'a'; 8];
    last[..rest.len()].copy_from_slice(rest);
    // Has high bits where a byte is below a limit of at most 128, and none where no byte is.
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word;
    let is = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let escaped = |word: &[u8; 8]| {
        let word = u64::from_le_bytes(*word);
        (below(word, b' ') | is(word, b'"') | is(word, b'\\')) & HIGH
    };
    words
        .iter()
        .fold(escaped(&last), |all, word| all | escaped(word))
        == 0
}

/// Seconds with a fraction, as serde writes them: the shortest text that is the same number.
fn write_seconds(time: Timestamp, body: &mut Vec<u8>) {
    let written = if EXACT.contains(&time.millis) {
        let seconds = time.millis / 1000;
        let (fraction, digits) = fraction(time);
        std::io::Write::write_fmt(body, format_args!("{seconds}.{fraction:0digits$}"))
    } else {
        serde_json::to_writer(&mut *body, &time).map_err(std::io::Error::from)
    };
    debug_assert!(written.is_ok(), "writing to memory does not fail");
}

/// Writes UTF-8 as a JSON string.
fn write_text(text: &[u8], body: &mut Vec<u8>) {
    if is_plain(text) {
        body.push(b'"');
        body.extend_from_slice(text);
        body.push(b'"');
    } else {
        let text = std::str::from_utf8(text).unwrap_or_default();
        let written = serde_json::to_writer(&mut *body, text);
        debug_assert!(written.is_ok(), "writing to memory does not fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::{
        ChildShard, EncryptionType, GetRecordsResponse, KeyRange, Record, SubscribeToShardEvent,
    };
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = Record> {
        let millis = prop_oneof![
            Just(0),
            0i64..100_000,
            1_000_000_000_000i64..2_000_000_000_000,
            any::<i64>(),
        ];
        let number = "[1-9][0-9]{0,55}".prop_map(|text| text.parse().unwrap());
        let data = prop::collection::vec(any::<u8>(), 0..100);
        let key = prop_oneof!["[a-z0-9-]{0,12}", "\\PC{0,8}", "[\"\\\\\n\t\0 ]{1,4}"];
        (number, millis, data, key, any::<bool>()).prop_map(
            |(sequence_number, millis, data, partition_key, is_encrypted)| Record {
                sequence_number,
                approximate_arrival_timestamp: Some(Timestamp { millis }),
                data: data.into(),
                partition_key,
                encryption_type: is_encrypted.then_some(EncryptionType::Kms),
            },
        )
    }

    fn views(records: &[Record]) -> impl Iterator<Item = RecordView<'_>> {
        records.iter().map(|record| RecordView {
            sequence_number: record.sequence_number,
            approximate_arrival_timestamp: record.approximate_arrival_timestamp.unwrap(),
            data: &record.data,
            partition_key: record.partition_key.as_bytes(),
            encryption_type: record.encryption_type.as_ref().map(|_| "KMS"),
        })
    }

    /// The whole body; each record is as long as it was said to be.
    fn written((head, rest): (&[u8], Vec<u8>), records: &[Record], encoding: Encoding) -> Vec<u8> {
        let mut body = head.to_vec();
        let mut writer = RecordWriter::new(encoding);
        for (before, view) in views(records).enumerate() {
            let len = body.len() + view.encoded_len(encoding, before);
            writer.append(&view, &mut body);
            assert_eq!(body.len(), len, "{view:?} in {encoding:?}");
        }
        body.extend_from_slice(&rest);
        body
    }

    proptest! {
        #[test]
        fn records_are_written_as_serde_writes_them(
            records in prop::collection::vec(record(), 0..5),
            is_last in any::<bool>(),
        ) {
            let children = is_last.then(|| vec![ChildShard {
                shard_id: "shardId-000000000007".to_owned(),
                parent_shards: vec!["shardId-000000000003".to_owned()],
                hash_key_range: KeyRange {
                    starting_hash_key: crate::HashKey(0),
                    ending_hash_key: crate::HashKey(9),
                },
            }]);
            let page = GetRecordsResponse {
                records: records.clone(),
                next_shard_iterator: (!is_last).then(|| "next".to_owned()),
                millis_behind_latest: Some(7),
                child_shards: children.clone(),
            };
            let empty_page = GetRecordsResponse { records: Vec::new(), ..page.clone() };
            let event = SubscribeToShardEvent {
                records: records.clone(),
                continuation_sequence_number: Some("1".to_owned()),
                millis_behind_latest: 7,
                child_shards: children,
            };
            let empty_event = SubscribeToShardEvent { records: Vec::new(), ..event.clone() };
            for encoding in [Encoding::Json, Encoding::Cbor] {
                let around = encoding.around_records(&empty_page).unwrap();
                let body = written(around, &records, encoding);
                prop_assert_eq!(body, encoding.encode(&page).unwrap());
                let around = encoding.around_records(&empty_event).unwrap();
                let body = written(around, &records, encoding);
                prop_assert_eq!(body, encoding.encode(&event).unwrap());
            }
        }
    }

    #[test]
    fn an_answer_without_a_list_of_records_in_front_is_refused() {
        for encoding in [Encoding::Json, Encoding::Cbor] {
            let refused = encoding.around_records(&super::super::Empty {});
            assert!(refused.unwrap_err().to_string().contains("empty list"));
        }
    }
}
