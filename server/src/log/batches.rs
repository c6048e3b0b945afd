//! What a caller appends: records encoded as they will lie in the log, but for what only the committer knows, which are
//! their counters, their time, and the headers of their frames. So a large append is written from where its caller put it.

#![warn(
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::arithmetic_side_effects
)]

use crate::log::LogShard;
use crate::log::frame::{ALIGNMENT, FramePlace, HEADER_BYTES, shrink};
use crate::log::records::{RECORD_HEAD_BYTES, RUN_HEAD_BYTES, RunHead};
use crate::log::tail_cache::DETACHED_PART;
use std::convert::Infallible;

/// What stands before the records of a run that is a frame.
const HEAD_ROOM_BYTES: usize = HEADER_BYTES + RUN_HEAD_BYTES;

/// Records of one shard.
#[derive(Debug, Clone, Default)]
pub struct RecordBatch {
    /// From `begin` on: room for what stands before the records in the log, once there are some; then the records.
    bytes: Vec<u8>,
    begin: usize,
    count: u32,
}

impl RecordBatch {
    /// An empty batch.
    pub fn new() -> Self {
        RecordBatch::default()
    }

    /// Adds a record.
    ///
    /// # Panics
    /// If the key is over 65,535 bytes or the data over 4 GiB: the caller checks its limits first.
    pub fn push(&mut self, partition_key: &str, data: &[u8]) {
        self.push_head(partition_key, data.len());
        self.bytes.extend_from_slice(data);
    }

    /// Adds a record of `data_bytes` bytes that `append` writes behind what is there; nothing is added if it fails.
    ///
    /// # Errors
    /// What `append` fails with.
    ///
    /// # Panics
    /// As [`RecordBatch::push`], and if something else than so many bytes was appended.
    pub fn push_with<E>(
        &mut self,
        partition_key: &str,
        data_bytes: usize,
        append: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let before = (self.bytes.len(), self.count);
        self.push_head(partition_key, data_bytes);
        let end = self.bytes.len().saturating_add(data_bytes);
        let appended = append(&mut self.bytes);
        if appended.is_err() {
            self.bytes.truncate(before.0);
            self.count = before.1;
        } else {
            assert_eq!(
                self.bytes.len(),
                end,
                "a record is as long as it was said to be"
            );
        }
        appended
    }

    fn push_head(&mut self, partition_key: &str, data_bytes: usize) {
        let key_bytes = u16::try_from(partition_key.len());
        assert!(key_bytes.is_ok(), "a partition key is at most 65,535 bytes");
        let data_bytes = u32::try_from(data_bytes);
        assert!(data_bytes.is_ok(), "a record's data is below 4 GiB");
        self.make_head_room();
        self.bytes.push(0);
        self.bytes
            .extend_from_slice(&key_bytes.unwrap_or_default().to_be_bytes());
        self.bytes
            .extend_from_slice(&data_bytes.unwrap_or_default().to_be_bytes());
        self.bytes.extend_from_slice(partition_key.as_bytes());
        self.count = self.count.saturating_add(1);
    }

    /// How many records.
    pub fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    /// True without records.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Its records, encoded.
    pub(crate) fn records(&self) -> &[u8] {
        let records = self.begin.saturating_add(HEAD_ROOM_BYTES);
        self.bytes.get(records..).unwrap_or_default()
    }

    fn append(&mut self, other: &RecordBatch) {
        if !other.is_empty() {
            self.make_head_room();
            self.bytes.extend_from_slice(other.records());
            self.count = self.count.saturating_add(other.count);
        }
    }

    fn make_head_room(&mut self) {
        if self.bytes.len() == self.begin {
            self.bytes
                .resize(self.begin.saturating_add(HEAD_ROOM_BYTES), 0);
        }
    }
}

/// A batch of this size shares its buffer with so few others that readers leave its run where it is; smaller ones they copy. In
/// tests records are small.
const LARGE_BATCH_BYTES: usize = if cfg!(test) { 128 } else { 16 << 10 };
const LARGE_BATCHES: usize = DETACHED_PART - 1;

/// Records of one shard or several, for one commit.
#[derive(Debug, Clone, Default)]
pub struct Batches {
    /// A frame for each part, one behind the other, padded. None lies in two buffers.
    buffers: Vec<Vec<u8>>,
    parts: Vec<Part>,
    /// Bytes of all buffers, and those that are still expected.
    len_bytes: usize,
    left_bytes: usize,
}

/// The records of one shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) shard: LogShard,
    pub(crate) count: u32,
    place: FramePlace,
}

impl Part {
    /// Bytes of its records.
    pub(crate) fn len_bytes(&self) -> usize {
        self.place.length.saturating_sub(HEAD_ROOM_BYTES)
    }
}

impl Batches {
    /// Bytes that a batch takes which has so many records, and so many bytes of keys and data in them, at most.
    pub fn batch_bytes(records: usize, bytes: usize) -> usize {
        let heads = records.saturating_mul(RECORD_HEAD_BYTES);
        let around = HEAD_ROOM_BYTES.saturating_add(ALIGNMENT);
        around.saturating_add(heads).saturating_add(bytes)
    }

    /// None yet, with room for so many, and as many [bytes](Batches::batch_bytes) in all of them.
    pub fn with_capacity(batches: usize, bytes: usize) -> Self {
        Batches {
            parts: Vec::with_capacity(batches),
            left_bytes: bytes,
            ..Batches::default()
        }
    }

    /// Adds what `fill` pushes, as the records of this shard, which take [so many](Batches::batch_bytes) bytes; nothing is added
    /// if it fails.
    ///
    /// # Errors
    /// What `fill` fails with.
    pub fn add<E>(
        &mut self,
        shard: LogShard,
        bytes: usize,
        fill: impl FnOnce(&mut RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        let buffer = self.buffer_for(bytes);
        self.left_bytes = self.left_bytes.saturating_sub(bytes);
        let begin = buffer.len();
        let mut batch = RecordBatch {
            bytes: buffer,
            begin,
            count: 0,
        };
        let filled = fill(&mut batch);
        if filled.is_ok() {
            self.push(shard, batch);
        } else if begin > 0 {
            batch.bytes.truncate(begin);
            self.buffers.push(batch.bytes);
        }
        filled
    }

    /// A buffer with room for so many bytes: the last, or a new one.
    fn buffer_for(&mut self, bytes: usize) -> Vec<u8> {
        let fits = |last: &mut Vec<u8>| last.capacity().saturating_sub(last.len()) >= bytes;
        self.buffers.pop_if(fits).unwrap_or_else(|| {
            if let Some(last) = self.buffers.last_mut() {
                shrink(last);
            }
            let most = bytes.max(LARGE_BATCH_BYTES).saturating_mul(LARGE_BATCHES);
            Vec::with_capacity(self.left_bytes.min(most).max(bytes))
        })
    }

    /// Takes a buffer, whose last records are those of a part.
    fn push(&mut self, shard: LogShard, batch: RecordBatch) {
        let RecordBatch {
            mut bytes,
            begin,
            count,
        } = batch;
        let length = bytes.len().saturating_sub(begin);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        let at = self.len_bytes;
        self.len_bytes = at.saturating_add(bytes.len().saturating_sub(begin));
        let place = FramePlace {
            buffer: self.buffers.len(),
            begin,
            length,
            at,
        };
        self.parts.push(Part {
            shard,
            count,
            place,
        });
        self.buffers.push(bytes);
    }

    /// The parts, in the order they were added.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Bytes that their frames take, each a run of its own.
    pub(crate) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// The records of a part.
    pub(crate) fn records_of(&self, part: &Part) -> &[u8] {
        let place = &part.place;
        let buffer = self.buffers.get(place.buffer);
        let frame = buffer.and_then(|buffer| buffer.get(place.begin..));
        let frame = frame.and_then(|frame| frame.get(..place.length));
        let records = frame.and_then(|frame| frame.get(HEAD_ROOM_BYTES..));
        records.unwrap_or_default()
    }

    /// Completes the body of each part, and gives the frames without their headers: the buffers, and where each is.
    pub(crate) fn into_frames(
        mut self,
        heads: impl Iterator<Item = RunHead>,
    ) -> (Vec<Vec<u8>>, Vec<FramePlace>) {
        let places: Vec<_> = self.parts.iter().map(|part| part.place).collect();
        for (place, head) in places.iter().zip(heads) {
            let buffer = self.buffers.get_mut(place.buffer);
            let frame = buffer.and_then(|buffer| buffer.get_mut(place.begin..));
            let room = frame.and_then(|frame| frame.get_mut(HEADER_BYTES..HEAD_ROOM_BYTES));
            room.unwrap_or_default().copy_from_slice(&head.encoded());
        }
        (self.buffers, places)
    }
}

impl From<(LogShard, RecordBatch)> for Batches {
    fn from(one: (LogShard, RecordBatch)) -> Batches {
        let (shard, batch) = one;
        let mut batches = Batches::default();
        batches.push(shard, batch);
        batches
    }
}

impl FromIterator<(LogShard, RecordBatch)> for Batches {
    fn from_iter<T: IntoIterator<Item = (LogShard, RecordBatch)>>(several: T) -> Batches {
        let several: Vec<_> = several.into_iter().collect();
        let bytes = |batch: &RecordBatch| Batches::batch_bytes(0, batch.records().len());
        let capacity = several.iter().map(|(_, batch)| bytes(batch));
        let mut batches = Batches::with_capacity(several.len(), capacity.sum());
        for (shard, batch) in several {
            let Ok(()) = batches.add(shard, bytes(&batch), |into| {
                into.append(&batch);
                Ok::<(), Infallible>(())
            });
        }
        batches
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_that_cannot_be_filled_leaves_no_trace() {
        let mut batch = RecordBatch::new();
        let fail = |bytes: &mut Vec<u8>| {
            bytes.push(b'x');
            Err("no")
        };
        assert_eq!(batch.push_with("b", 10, fail), Err("no"));
        assert_eq!((batch.len(), batch.records()), (0, &b""[..]));
        batch.push("a", b"1");
        let before = batch.records().to_vec();
        assert_eq!(batch.push_with("b", 10, fail), Err("no"));
        assert_eq!((batch.len(), batch.records()), (1, &before[..]));
        batch
            .push_with("c", 3, |bytes| {
                bytes.extend_from_slice(b"xyz");
                Ok::<(), ()>(())
            })
            .unwrap();
        assert_eq!(batch.len(), 2);
    }

    #[test]
    fn a_batch_that_cannot_be_filled_leaves_no_trace() {
        let mut batches = Batches::default();
        let push = |batch: &mut RecordBatch| {
            batch.push("a", b"1");
            Ok::<(), &str>(())
        };
        batches.add(LogShard(1), 100, push).unwrap();
        let before = batches.buffers.clone();
        let failed = batches.add(LogShard(2), 10, |batch| push(batch).and(Err("no")));
        assert_eq!(failed, Err("no"));
        assert_eq!(batches.buffers.concat(), before.concat());
        assert_eq!(
            (batches.len_bytes(), batches.parts.len()),
            (before.concat().len(), 1)
        );
        batches.add(LogShard(3), 100, push).unwrap();
        assert_eq!(batches.parts[1].shard, LogShard(3));
    }

    proptest! {
        /// However batches come together, the frames and the records are those of each by itself, and fit what was said.
        #[test]
        fn frames_are_those_of_each_batch(
            several in prop::collection::vec(prop::collection::vec(("\\PC{0,9}", prop::collection::vec(any::<u8>(), 0..30)), 1..5), 1..6),
        ) {
            let single = |records: &[(String, Vec<u8>)]| {
                let mut batch = RecordBatch::new();
                for (key, data) in records {
                    batch.push(key, data);
                }
                batch
            };
            let shards = || (7..).map(LogShard);
            let batches = || shards().zip(several.iter().map(|records| single(records)));
            let apart: Vec<_> = batches().flat_map(|one| Batches::from(one).buffers).collect();
            let collected: Batches = batches().collect();
            let needed = several.iter().map(|records| {
                let bytes = records.iter().map(|(key, data)| key.len() + data.len());
                Batches::batch_bytes(records.len(), bytes.sum())
            });
            let needed: Vec<_> = needed.collect();
            let capacity = needed.iter().sum();
            let mut added = Batches::with_capacity(several.len(), capacity);
            for ((shard, records), needed) in shards().zip(&several).zip(&needed) {
                added.add(shard, *needed, |batch| {
                    for (key, data) in records {
                        batch.push(key, data);
                    }
                    Ok::<(), ()>(())
                }).unwrap();
            }
            prop_assert!(added.len_bytes() <= capacity);
            prop_assert_eq!(added.len_bytes(), apart.concat().len());
            prop_assert_eq!(added.buffers.concat(), apart.concat());
            prop_assert_eq!(collected.buffers, added.buffers.clone());
            prop_assert_eq!(collected.parts.len(), several.len());
            // Readers need not copy a large one, unless a larger one is beside it.
            for part in added.parts() {
                let beside = added.parts().iter().filter(|other| other.place.buffer == part.place.buffer);
                let largest = beside.map(|other| other.place.length).max().unwrap_or(0);
                if part.place.length == largest && largest >= LARGE_BATCH_BYTES {
                    prop_assert!(added.buffers[part.place.buffer].len() / DETACHED_PART < largest);
                }
            }
            // And small ones share buffers.
            let full = added.buffers.windows(2).all(|two| two[0].len() + two[1].len() > LARGE_BATCH_BYTES);
            prop_assert!(full);
            let reserved: usize = added.buffers.iter().map(Vec::capacity).sum();
            prop_assert!(reserved <= capacity * 2, "{reserved} of {capacity}");
            let heads: Vec<_> = added.parts().iter().map(|part| RunHead {
                shard: part.shard,
                first: 5,
                time_ms: 6,
                count: part.count,
            }).collect();
            for ((part, records), head) in added.parts().iter().zip(&several).zip(&heads) {
                let batch = single(records);
                prop_assert_eq!(added.records_of(part), batch.records());
                prop_assert_eq!(part.len_bytes(), batch.records().len());
                prop_assert_eq!(head.count, batch.count());
            }
            let (buffers, places) = added.into_frames(heads.iter().copied());
            let whole = buffers.concat();
            for (head, place) in heads.iter().zip(places) {
                let FramePlace { buffer, begin, length, at } = place;
                prop_assert_eq!(at % ALIGNMENT, 0);
                let frame = &buffers[buffer][begin..begin + length];
                prop_assert_eq!(frame, &whole[at..at + length]);
                prop_assert_eq!(RunHead::decode(&frame[HEADER_BYTES..]), Some(*head));
            }
        }
    }
}
