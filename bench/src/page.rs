//! Answers of `GetRecords` and events of subscriptions, read in full.

use crate::client::Encoding;
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use std::fmt;
use std::io;

/// Records that were read, and where to go on.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Page {
    /// In order.
    #[serde(default)]
    pub records: Vec<Record>,
    /// Where to go on; nothing at the end of a closed shard.
    #[serde(default)]
    pub next_shard_iterator: Option<String>,
    /// How far behind the newest record.
    #[serde(default)]
    pub millis_behind_latest: Option<u64>,
}

/// A record that was read.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Record {
    /// Its place in its shard.
    pub sequence_number: String,
    /// Its bytes.
    pub data: Data,
}

/// The same page in JSON, its texts left where they lie.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Glance<'a> {
    #[serde(borrow)]
    pub(crate) records: Vec<GlanceRecord<'a>>,
    #[serde(borrow)]
    pub(crate) next_shard_iterator: Option<&'a str>,
    pub(crate) millis_behind_latest: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct GlanceRecord<'a> {
    #[serde(rename = "Data")]
    _data: &'a str,
}

/// Bytes: Base64 in JSON, a byte string in CBOR.
#[derive(Debug, PartialEq, Eq)]
pub struct Data(pub Vec<u8>);

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Data, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

struct DataVisitor;

impl Visitor<'_> for DataVisitor {
    type Value = Data;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Base64 or bytes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Data, E> {
        let decoded = base64_simd::STANDARD.decode_to_vec(text);
        decoded
            .map(Data)
            .map_err(|error| E::custom(format!("data are no Base64: {error}")))
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Data, E> {
        Ok(Data(bytes.to_vec()))
    }
}

/// Reads an answer to `GetRecords`, or an event.
pub fn read(answer: &[u8], encoding: Encoding) -> io::Result<Page> {
    decode(answer, encoding)
}

/// Reads an answer.
pub(crate) fn decode<'a, T: Deserialize<'a>>(
    answer: &'a [u8],
    encoding: Encoding,
) -> io::Result<T> {
    match encoding {
        Encoding::Json => serde_json::from_slice(answer).map_err(io::Error::other),
        Encoding::Cbor => millstream_wire::cbor::from_slice(answer).map_err(io::Error::other),
    }
}

/// A sequence number as a number, of however many digits: by length, then by digits.
pub fn order(sequence_number: &str) -> (usize, &str) {
    let digits = sequence_number.trim_start_matches('0');
    (digits.len(), digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_encodings_say_the_same() {
        let json = br#"{"Records":[{"SequenceNumber":"7","Data":"QUI=","PartitionKey":"k","ApproximateArrivalTimestamp":1.5}],"NextShardIterator":"i","MillisBehindLatest":3}"#;
        let cbor = b"\xa3\x67Records\x9f\xa3\x6eSequenceNumber\x617\x64Data\x42AB\x6cPartitionKey\x61k\xff\x71NextShardIterator\x61i\x72MillisBehindLatest\x03";
        for page in [read(json, Encoding::Json), read(cbor, Encoding::Cbor)] {
            let page = page.unwrap();
            let expected = Record {
                sequence_number: "7".to_owned(),
                data: Data(b"AB".to_vec()),
            };
            assert_eq!(page.records, [expected]);
            assert_eq!(page.next_shard_iterator.as_deref(), Some("i"));
            assert_eq!(page.millis_behind_latest, Some(3));
        }
        read(
            br#"{"Records":[{"SequenceNumber":"7","Data":"QUI"}]}"#,
            Encoding::Json,
        )
        .unwrap_err();
    }

    proptest! {
        #[test]
        fn sequence_numbers_have_the_order_of_numbers(a: u128, b: u128) {
            let (a_text, b_text) = (a.to_string(), format!("00{b}"));
            prop_assert_eq!(order(&a_text).cmp(&order(&b_text)), a.cmp(&b));
        }

        #[test]
        fn hostile_answers_are_refused(bytes: Vec<u8>) {
            let _ = read(&bytes, Encoding::Json);
            let _ = read(&bytes, Encoding::Cbor);
        }
    }
}
