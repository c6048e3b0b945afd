//! Bodies of puts: records of random bytes, in JSON and CBOR, written without a detour.

use crate::client::Encoding;
use bytes::Bytes;
use minicbor::Encoder;
use minicbor::encode::{Error, Write};
use serde_json::json;
use std::convert::Infallible;

/// A record to put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its partition key: printable ASCII without quotes and backslashes.
    pub key: String,
    /// Its data.
    pub data: Vec<u8>,
}

impl Entry {
    /// Of so many random bytes, which nothing can compress, and with a key that spreads over shards.
    pub fn random(bytes: usize) -> Entry {
        let mut data = vec![0; bytes];
        fastrand::fill(&mut data);
        Entry {
            key: random_key(),
            data,
        }
    }
}

/// A partition key that spreads over shards.
pub fn random_key() -> String {
    format!("key-{:016x}", fastrand::u64(..))
}

/// The operation that puts so many records at once.
pub fn operation(records: usize) -> &'static str {
    if records == 1 {
        "PutRecord"
    } else {
        "PutRecords"
    }
}

/// The body that puts the entries into the stream: of PutRecord for one, of PutRecords for more.
pub fn put(encoding: Encoding, stream: &str, entries: &[Entry]) -> Bytes {
    match (encoding, entries) {
        (Encoding::Json, [entry]) => json_record(stream, entry),
        (Encoding::Json, _) => json_records(stream, entries),
        (Encoding::Cbor, _) => {
            let mut encoder = Encoder::new(Vec::new());
            // Writing to a vector does not fail.
            let _: Result<(), Error<Infallible>> = cbor(&mut encoder, stream, entries);
            Bytes::from(encoder.into_writer())
        }
    }
}

/// The body of `GetRecords`.
pub fn get_records(encoding: Encoding, iterator: &str) -> Bytes {
    match encoding {
        Encoding::Json => Bytes::from(json!({ "ShardIterator": iterator }).to_string()),
        Encoding::Cbor => {
            let mut encoder = Encoder::new(Vec::new());
            let _: Result<(), Error<Infallible>> = (|| {
                encoder.map(1)?.str("ShardIterator")?.str(iterator)?;
                Ok(())
            })();
            Bytes::from(encoder.into_writer())
        }
    }
}

fn json_record(stream: &str, entry: &Entry) -> Bytes {
    let mut body = Vec::with_capacity(base64_len(entry) + stream.len() + 64);
    body.extend_from_slice(br#"{"StreamName":""#);
    body.extend_from_slice(stream.as_bytes());
    body.extend_from_slice(b"\",");
    json_members(&mut body, entry);
    body.push(b'}');
    Bytes::from(body)
}

fn json_records(stream: &str, entries: &[Entry]) -> Bytes {
    let len: usize = entries.iter().map(|entry| base64_len(entry) + 32).sum();
    let mut body = Vec::with_capacity(len + stream.len() + 64);
    body.extend_from_slice(br#"{"StreamName":""#);
    body.extend_from_slice(stream.as_bytes());
    body.extend_from_slice(br#"","Records":["#);
    for (at, entry) in entries.iter().enumerate() {
        body.extend_from_slice(if at == 0 { b"{" } else { b",{" });
        json_members(&mut body, entry);
        body.push(b'}');
    }
    body.extend_from_slice(b"]}");
    Bytes::from(body)
}

fn base64_len(entry: &Entry) -> usize {
    entry.data.len().div_ceil(3) * 4 + entry.key.len()
}

fn json_members(body: &mut Vec<u8>, entry: &Entry) {
    body.extend_from_slice(br#""Data":""#);
    base64_simd::STANDARD.encode_append(&entry.data, body);
    body.extend_from_slice(br#"","PartitionKey":""#);
    body.extend_from_slice(entry.key.as_bytes());
    body.push(b'"');
}

fn cbor<W: Write>(
    out: &mut Encoder<W>,
    stream: &str,
    entries: &[Entry],
) -> Result<(), Error<W::Error>> {
    let members = |out: &mut Encoder<W>, entry: &Entry| {
        out.str("Data")?.bytes(&entry.data)?;
        out.str("PartitionKey")?.str(&entry.key)?;
        Ok(())
    };
    if let [entry] = entries {
        out.map(3)?.str("StreamName")?.str(stream)?;
        return members(out, entry);
    }
    out.map(2)?.str("StreamName")?.str(stream)?.str("Records")?;
    out.array(entries.len() as u64)?;
    for entry in entries {
        out.map(2)?;
        members(out, entry)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_wire::shapes::{PutRecordRequest, PutRecordsRequest};
    use proptest::prelude::*;

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let entry = (
            "[a-zA-Z0-9-]{1,40}",
            prop::collection::vec(any::<u8>(), 0..200),
        );
        prop::collection::vec(entry.prop_map(|(key, data)| Entry { key, data }), 1..9)
    }

    proptest! {
        /// Goal: a server reads what was meant. Method: the bodies are read with the server's own shapes.
        #[test]
        fn bodies_say_what_was_meant(entries in entries(), cbor: bool) {
            let encoding = if cbor { Encoding::Cbor } else { Encoding::Json };
            let body = put(encoding, "a-stream", &entries);
            let read: Vec<(String, Vec<u8>)> = if let [_] = entries[..] {
                let read: PutRecordRequest<'_> = decode(encoding, &body);
                prop_assert_eq!(read.stream_name.as_deref(), Some("a-stream"));
                vec![(read.partition_key.as_deref().unwrap().to_owned(), read.data.unwrap().to_bytes().to_vec())]
            } else {
                let read: PutRecordsRequest<'_> = decode(encoding, &body);
                prop_assert_eq!(read.stream_name.as_deref(), Some("a-stream"));
                let records = read.records.unwrap().into_iter();
                records.map(|one| (one.partition_key.as_deref().unwrap().to_owned(), one.data.unwrap().to_bytes().to_vec())).collect()
            };
            let meant: Vec<_> = entries.into_iter().map(|entry| (entry.key, entry.data)).collect();
            prop_assert_eq!(read, meant);
        }
    }

    fn decode<'b, T: serde::Deserialize<'b>>(encoding: Encoding, body: &'b [u8]) -> T {
        match encoding {
            Encoding::Json => serde_json::from_slice(body).unwrap(),
            Encoding::Cbor => millstream_wire::cbor::from_slice(body).unwrap(),
        }
    }
}
