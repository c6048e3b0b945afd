//! Answers made beforehand.

use crate::body::Entry;
use crate::client::Encoding;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use millstream_wire::shapes::{
    GetRecordsResponse, PutRecordResponse, PutRecordsResponse, PutRecordsResultEntry, Record,
    Timestamp,
};
use millstream_wire::{Encoding as Wire, ShardId};
use serde_json::json;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

/// Records of one PutRecords at most.
pub(super) const BATCH_MAX: usize = 500;
/// Keys and data of one `GetRecords` at most.
const PAGE_MAX_BYTES: usize = 10 << 20;
/// Records of one `GetRecords` at most.
const PAGE_MAX_RECORDS: usize = 10_000;

/// A body in two pieces.
#[derive(Debug, Default)]
pub(super) struct Pieces(Bytes, Bytes);

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Pieces {
        Pieces(bytes, Bytes::new())
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Pieces(first, second) = &mut *self;
        let next = std::mem::take(if first.is_empty() { second } else { first });
        Poll::Ready((!next.is_empty()).then(|| Ok(Frame::data(next))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty() && self.1.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact((self.0.len() + self.1.len()) as u64)
    }
}

/// A full page: it lacks its end, in which the next iterator is.
#[derive(Debug)]
struct Prepared {
    put_record: Bytes,
    page: Bytes,
}

#[derive(Debug)]
pub(super) struct Answers {
    json: Prepared,
    cbor: Prepared,
    pages: u32,
    /// Of `PutRecords`, by encoding and number of records: 500 each at most.
    batches: Mutex<BTreeMap<(bool, usize), Bytes>>,
}

impl Answers {
    pub(super) fn prepare(record_bytes: usize, pages: u32) -> io::Result<Answers> {
        let full = full_page(record_bytes)?;
        Ok(Answers {
            json: Prepared::of(Encoding::Json, &full)?,
            cbor: Prepared::of(Encoding::Cbor, &full)?,
            pages,
            batches: Mutex::default(),
        })
    }

    fn of(&self, encoding: Encoding) -> &Prepared {
        match encoding {
            Encoding::Json => &self.json,
            Encoding::Cbor => &self.cbor,
        }
    }

    pub(super) fn put_record(&self, encoding: Encoding) -> Pieces {
        Pieces::from(self.of(encoding).put_record.clone())
    }

    pub(super) fn put_records(&self, encoding: Encoding, records: usize) -> Pieces {
        let records = records.min(BATCH_MAX);
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let prepared = batches.entry((encoding == Encoding::Cbor, records));
        // Shapes have a form in both encodings.
        let prepared = prepared.or_insert_with(|| batch(encoding, records).unwrap_or_default());
        Pieces::from(prepared.clone())
    }

    /// A full page while `pages` are left; then nothing more.
    pub(super) fn get_records(&self, encoding: Encoding, pages: u32) -> Pieces {
        let next = pages.saturating_sub(1);
        let behind = u32::from(pages > 1);
        match (encoding, pages) {
            (Encoding::Json, 0) => Pieces::from(Bytes::from_static(
                br#"{"Records":[],"NextShardIterator":"0","MillisBehindLatest":0}"#,
            )),
            (Encoding::Cbor, 0) => Pieces::from(Bytes::from_static(
                b"\xa3\x67Records\x80\x71NextShardIterator\x610\x72MillisBehindLatest\x00",
            )),
            (Encoding::Json, _) => {
                let end =
                    format!(r#"],"NextShardIterator":"{next}","MillisBehindLatest":{behind}}}"#);
                Pieces(self.json.page.clone(), Bytes::from(end))
            }
            (Encoding::Cbor, _) => {
                let mut end = minicbor::Encoder::new(vec![0xff]);
                let _ = end
                    .str("NextShardIterator")
                    .and_then(|end| end.str(&next.to_string()))
                    .and_then(|end| end.str("MillisBehindLatest"))
                    .and_then(|end| end.u32(behind))
                    .and_then(minicbor::Encoder::end);
                Pieces(self.cbor.page.clone(), Bytes::from(end.into_writer()))
            }
        }
    }

    /// What comes before and after a load, of a stream of so many shards.
    pub(super) fn control(&self, operation: &str, shards: u32) -> Option<Pieces> {
        let answer = match operation {
            "CreateStream" | "DeleteStream" => return Some(Pieces::default()),
            "ListStreams" => json!({ "StreamNames": [], "HasMoreStreams": false }),
            "DescribeStreamSummary" => {
                json!({ "StreamDescriptionSummary": { "StreamStatus": "ACTIVE", "OpenShardCount": shards } })
            }
            "ListShards" => {
                let ids = (0..shards).map(|n| json!({ "ShardId": format!("shardId-{n:012}") }));
                json!({ "Shards": ids.collect::<Vec<_>>() })
            }
            "GetShardIterator" => json!({ "ShardIterator": self.pages.to_string() }),
            _ => return None,
        };
        Some(Pieces::from(Bytes::from(answer.to_string())))
    }
}

impl Prepared {
    fn of(encoding: Encoding, full: &GetRecordsResponse) -> io::Result<Prepared> {
        let mut page = encode(encoding, full)?;
        // What ends the list and the map.
        let end = match encoding {
            Encoding::Json => &b"]}"[..],
            Encoding::Cbor => &b"\xff\xff"[..],
        };
        if !page.ends_with(end) {
            return Err(io::Error::other("a page does not end with its records"));
        }
        page.truncate(page.len() - 2);
        let put = PutRecordResponse {
            shard_id: ShardId(0),
            sequence_number: SEQUENCE.parse().map_err(io::Error::other)?,
            encryption_type: None,
        };
        Ok(Prepared {
            put_record: encode(encoding, &put)?.into(),
            page: page.into(),
        })
    }
}

const SEQUENCE: &str = "49600000000000000000000000000000000000000000000000000000";

fn batch(encoding: Encoding, records: usize) -> io::Result<Bytes> {
    let result = PutRecordsResultEntry {
        sequence_number: Some(SEQUENCE.parse().map_err(io::Error::other)?),
        shard_id: Some(ShardId(0)),
        ..PutRecordsResultEntry::default()
    };
    let answer = PutRecordsResponse {
        failed_record_count: 0,
        records: vec![result; records],
        encryption_type: None,
    };
    encode(encoding, &answer).map(Bytes::from)
}

fn full_page(record_bytes: usize) -> io::Result<GetRecordsResponse> {
    let sample = Entry::random(record_bytes);
    let each = sample.key.len() + record_bytes;
    let records = (PAGE_MAX_BYTES / each).clamp(1, PAGE_MAX_RECORDS);
    let record = |_| {
        let Entry { key, data } = Entry::random(record_bytes);
        Ok(Record {
            sequence_number: SEQUENCE.parse().map_err(io::Error::other)?,
            approximate_arrival_timestamp: Some(Timestamp::from_millis(1_764_500_000_123)),
            data: Bytes::from(data),
            partition_key: key,
            encryption_type: None,
        })
    };
    Ok(GetRecordsResponse {
        records: (0..records).map(record).collect::<io::Result<_>>()?,
        ..GetRecordsResponse::default()
    })
}

fn encode<T: serde::Serialize>(encoding: Encoding, answer: &T) -> io::Result<Vec<u8>> {
    let wire = match encoding {
        Encoding::Json => Wire::Json,
        Encoding::Cbor => Wire::Cbor,
    };
    wire.encode(answer).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{page, scan};

    fn bytes(pieces: Pieces) -> Vec<u8> {
        [pieces.0, pieces.1].concat()
    }

    /// Goal: a reader takes the answers for a real server's, and gets to an end.
    #[test]
    fn pages_are_full_until_the_last() {
        let answers = Answers::prepare(1024, 2).unwrap();
        for encoding in [Encoding::Json, Encoding::Cbor] {
            let full = bytes(answers.get_records(encoding, 2));
            let read = page::read(&full, encoding).unwrap();
            assert_eq!(read.records.len(), scan::records(&full));
            assert_eq!(read.records.len(), PAGE_MAX_RECORDS);
            assert_eq!(read.next_shard_iterator.as_deref(), Some("1"));
            assert_eq!(read.millis_behind_latest, Some(1));
            let last = page::read(&bytes(answers.get_records(encoding, 1)), encoding).unwrap();
            assert_eq!(last.millis_behind_latest, Some(0));
            let empty = page::read(&bytes(answers.get_records(encoding, 0)), encoding).unwrap();
            assert!(empty.records.is_empty());
            let batch = bytes(answers.put_records(encoding, 3));
            assert_eq!(scan::records(&batch), 3);
            assert_eq!(scan::number(&batch, encoding, "FailedRecordCount"), Some(0));
        }
    }
}
