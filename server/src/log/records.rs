//! The body of a *run*: one shard's share of one commit.
//!
//! ```text
//!  0  u64  log shard
//!  8  u64  counter of the first record; the others follow one by one
//! 16  u64  time in milliseconds since 1970, of all of them
//! 24  u32  number of records
//! 28       per record: u8 flags = 0, u16 partition key length, u32 data length, key, data
//! ```

#![warn(
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::arithmetic_side_effects
)]

use std::ops::{ControlFlow, Deref};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::log::LogShard;
use crate::log::cursor::Cursor;
use crate::log::frame::HEADER_BYTES;

/// Bytes of a run's body before its records.
pub(crate) const RUN_HEAD_BYTES: usize = 28;

/// What a record takes beside its key and its data.
pub(crate) const RECORD_HEAD_BYTES: usize = 7;

/// A record as read: slices of the run it lies in, not copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRecord {
    /// Its position in the shard.
    pub counter: u64,
    /// When it arrived, milliseconds since 1970.
    pub time_ms: u64,
    key_bytes: usize,
    /// As it is stored: one slice, so one reference to the run.
    bytes: Bytes,
}

impl ReadRecord {
    /// A record that is a slice of `bytes`.
    pub(crate) fn in_bytes(bytes: &Bytes, record: &Encoded<'_>) -> ReadRecord {
        ReadRecord {
            counter: record.counter,
            time_ms: record.time_ms,
            key_bytes: record.key.len(),
            bytes: bytes.slice_ref(record.bytes),
        }
    }

    fn key_and_data(&self) -> (&[u8], &[u8]) {
        let stored = self.bytes.get(RECORD_HEAD_BYTES..);
        let split = stored.and_then(|stored| stored.split_at_checked(self.key_bytes));
        split.unwrap_or_default()
    }

    /// The producer's key.
    pub fn partition_key(&self) -> &str {
        // Checked when the run was decoded.
        std::str::from_utf8(self.key_bytes()).unwrap_or_default()
    }

    /// The producer's key, in UTF-8.
    pub fn key_bytes(&self) -> &[u8] {
        self.key_and_data().0
    }

    /// What was put.
    pub fn data(&self) -> &[u8] {
        self.key_and_data().1
    }

    /// Size of key and data, as [`crate::log::ReadLimit`] counts it.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len().saturating_sub(RECORD_HEAD_BYTES)
    }
}

/// Records as they were read, and what they take of the budget for reading files.
#[derive(Debug, Default)]
pub struct ReadRecords {
    pub(crate) records: Vec<ReadRecord>,
    pub(crate) share: ReadShare,
}

/// A share of the budget for reading files; it comes back when all copies of it are dropped. Whoever keeps the records
/// longer has another budget that they count against.
#[derive(Debug, Clone, Default)]
pub struct ReadShare {
    _permit: Option<Arc<OwnedSemaphorePermit>>,
}

impl ReadShare {
    pub(crate) fn new(permit: OwnedSemaphorePermit) -> ReadShare {
        ReadShare {
            _permit: Some(Arc::new(permit)),
        }
    }
}

impl ReadRecords {
    /// Records that were in memory already.
    pub(crate) fn without_share(records: Vec<ReadRecord>) -> ReadRecords {
        let share = ReadShare::default();
        ReadRecords { records, share }
    }

    /// The records, and their share.
    pub fn into_parts(self) -> (Vec<ReadRecord>, ReadShare) {
        (self.records, self.share)
    }
}

impl Deref for ReadRecords {
    type Target = [ReadRecord];

    fn deref(&self) -> &[ReadRecord] {
        &self.records
    }
}

/// The fixed part of a run's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunHead {
    pub(crate) shard: LogShard,
    pub(crate) first: u64,
    pub(crate) time_ms: u64,
    pub(crate) count: u32,
}

impl RunHead {
    pub(crate) fn encode(&self, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(&self.encoded());
    }

    /// What a run's body begins with.
    pub(crate) fn encoded(&self) -> [u8; RUN_HEAD_BYTES] {
        let mut encoded = [0; RUN_HEAD_BYTES];
        let (numbers, count) = encoded.split_at_mut(RUN_HEAD_BYTES - 4);
        let (numbers, _) = numbers.as_chunks_mut();
        for (place, number) in numbers
            .iter_mut()
            .zip([self.shard.0, self.first, self.time_ms])
        {
            *place = number.to_be_bytes();
        }
        count.copy_from_slice(&self.count.to_be_bytes());
        encoded
    }

    /// Reads the head of a body and checks that its records fill the rest exactly.
    pub(crate) fn decode(body: &[u8]) -> Option<RunHead> {
        let mut cursor = Cursor::new(body);
        let head = RunHead::take(&mut cursor)?;
        for _ in 0..head.count {
            take_record(&mut cursor)?;
        }
        cursor.rest().is_empty().then_some(head)
    }

    /// One more than the last counter.
    pub(crate) fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }

    fn take(cursor: &mut Cursor<'_>) -> Option<RunHead> {
        let shard = LogShard(cursor.u64()?);
        let first = cursor.u64()?;
        let time_ms = cursor.u64()?;
        let count = cursor.u32()?;
        first.checked_add(u64::from(count))?;
        (count > 0).then_some(RunHead {
            shard,
            first,
            time_ms,
            count,
        })
    }
}

/// Goes over a record and gives its key, behind which its data lie.
fn take_record<'a>(cursor: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let flags = cursor.u8()?;
    let key_bytes = usize::from(cursor.u16()?);
    let data_bytes = usize::try_from(cursor.u32()?).ok()?;
    let key = cursor.take(key_bytes)?;
    cursor.take(data_bytes)?;
    // Most are ASCII, which is found out sooner.
    let is_text = key.is_ascii() || std::str::from_utf8(key).is_ok();
    (flags == 0 && is_text).then_some(key)
}

/// A record as it is stored, and where it belongs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoded<'a> {
    pub(crate) counter: u64,
    pub(crate) time_ms: u64,
    /// All of it: flags, lengths, key, data.
    pub(crate) bytes: &'a [u8],
    pub(crate) key: &'a [u8],
}

/// Shows `visit` each record of a run's body. `None` if it is garbled.
pub(crate) fn visit_run<'a>(body: &'a [u8], mut visit: impl FnMut(Encoded<'a>)) -> Option<RunHead> {
    let mut cursor = Cursor::new(body);
    let head = RunHead::take(&mut cursor)?;
    let _ = visit_records(&mut cursor, &head, &mut |record| {
        visit(record);
        ControlFlow::Continue(())
    })?;
    cursor.rest().is_empty().then_some(head)
}

/// Shows `visit` the records after a head until it has seen enough. `None` if they are garbled.
pub(crate) fn visit_records<'a>(
    cursor: &mut Cursor<'a>,
    head: &RunHead,
    visit: &mut impl FnMut(Encoded<'a>) -> ControlFlow<()>,
) -> Option<ControlFlow<()>> {
    for counter in head.first..head.end() {
        let record = take_encoded(cursor, counter, head.time_ms)?;
        if visit(record).is_break() {
            return Some(ControlFlow::Break(()));
        }
    }
    Some(ControlFlow::Continue(()))
}

fn take_encoded<'a>(cursor: &mut Cursor<'a>, counter: u64, time_ms: u64) -> Option<Encoded<'a>> {
    let before = cursor.rest();
    let key = take_record(cursor)?;
    let length = before.len().checked_sub(cursor.rest().len())?;
    Some(Encoded {
        counter,
        time_ms,
        bytes: before.get(..length)?,
        key,
    })
}

/// Appends the records of a run with a counter of at least `from`, while `take` says so. `frame` is the run's whole
/// frame, header included. `None` if it is garbled.
pub(crate) fn decode_run(
    frame: &Bytes,
    from: u64,
    records: &mut Vec<ReadRecord>,
    mut take: impl FnMut(&ReadRecord) -> bool,
) -> Option<RunHead> {
    let mut cursor = Cursor::new(frame.get(HEADER_BYTES..)?);
    let head = RunHead::take(&mut cursor)?;
    for counter in head.first..head.end() {
        let encoded = take_encoded(&mut cursor, counter, head.time_ms)?;
        if counter < from {
            continue;
        }
        let record = ReadRecord::in_bytes(frame, &encoded);
        if !take(&record) {
            break;
        }
        records.push(record);
    }
    Some(head)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
    use super::*;
    use crate::log::RecordBatch;
    use proptest::prelude::*;

    fn run_frame(head: RunHead, batch: &RecordBatch) -> Bytes {
        let mut bytes = vec![0; HEADER_BYTES];
        head.encode(&mut bytes);
        bytes.extend_from_slice(batch.records());
        Bytes::from(bytes)
    }

    proptest! {
        #[test]
        fn runs_round_trip(
            shard: u64, first in 0..u64::MAX - 100, time_ms: u64,
            records in prop::collection::vec(("\\PC{0,9}", prop::collection::vec(any::<u8>(), 0..30)), 1..9),
            skip in 0u64..9,
        ) {
            let mut batch = RecordBatch::new();
            for (key, data) in &records {
                batch.push(key, data);
            }
            let head = RunHead { shard: LogShard(shard), first, time_ms, count: batch.count() };
            let frame = run_frame(head, &batch);
            prop_assert_eq!(RunHead::decode(&frame[HEADER_BYTES..]), Some(head));
            let mut read = Vec::new();
            let read_head = decode_run(&frame, first + skip, &mut read, |_| true);
            prop_assert_eq!(read_head, Some(head));
            let expected: Vec<_> = records.iter().enumerate().skip(usize::try_from(skip).unwrap()).collect();
            prop_assert_eq!(read.len(), expected.len());
            for (record, (number, (key, data))) in read.iter().zip(expected) {
                prop_assert_eq!(record.counter, first + u64::try_from(number).unwrap());
                prop_assert_eq!(record.partition_key(), key.as_str());
                prop_assert_eq!(record.data(), &data[..]);
                prop_assert_eq!(record.time_ms, time_ms);
            }
        }

        #[test]
        fn s9_any_bytes_decode_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = RunHead::decode(&bytes);
            let _ = decode_run(&Bytes::from(bytes), 0, &mut Vec::new(), |_| true);
        }

        #[test]
        fn s9_a_cut_run_is_refused(cut in 0usize..60) {
            let mut batch = RecordBatch::new();
            batch.push("key", b"data that is long enough to be cut");
            let head = RunHead { shard: LogShard(1), first: 5, time_ms: 6, count: 1 };
            let frame = run_frame(head, &batch);
            prop_assume!(HEADER_BYTES + cut < frame.len());
            prop_assert_eq!(RunHead::decode(&frame[HEADER_BYTES..HEADER_BYTES + cut]), None);
        }
    }
}
