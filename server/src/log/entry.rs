//! The bodies of all frames but runs (see `records`): snapshot, transaction, opened, footer. Pure.
//!
//! ```text
//! snapshot     log id [16], u64 epoch, u32 metadata length, metadata, u32 shards,
//!              per shard: u64 number, u64 next counter, u64 last time ms, u8 sealed
//! transaction  u32 created, u32 sealed, u32 dropped, then that many u64 each, then the event
//! opened       u64 epoch
//! footer       u32 shards, per shard: u64 number, u64 next counter and u64 last time ms at the
//!              start of the segment, u32 runs, per run: u64 first, u64 offset, u32 frame length,
//!              u32 count, u64 time ms
//! closed       nothing
//! ```

#![warn(
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::log::LogShard;
use crate::log::cursor::Cursor;

/// Bytes at the very end of a sealed segment: footer offset, its CRC-32C, magic.
pub(crate) const TRAILER_BYTES: usize = 16;
const TRAILER_MAGIC: [u8; 4] = *b"MSE\x01";

const SNAPSHOT_SHARD_BYTES: usize = 25;
const FOOTER_SHARD_BYTES: usize = 28;
const FOOTER_RUN_BYTES: usize = 32;
/// What a shard takes in an index in memory beside its runs: its share of a tree's nodes, and an allocation.
const SHARD_MEMORY_BYTES: usize = 112;

/// What the committer knows of a live shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ShardState {
    /// One more than the last record's counter; 0 before the first.
    pub(crate) next: u64,
    pub(crate) last_time_ms: u64,
    pub(crate) sealed: bool,
}

/// The first frame of a segment: everything recovery needs of what came before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot<'a> {
    pub(crate) log_id: [u8; 16],
    pub(crate) epoch: u64,
    pub(crate) metadata: &'a [u8],
    pub(crate) shards: Vec<(LogShard, ShardState)>,
}

impl<'a> Snapshot<'a> {
    /// Encoded size of one with so much metadata and so many shards.
    pub(crate) fn len_bytes_of(metadata_bytes: usize, shards: usize) -> usize {
        let shards_bytes = shards.saturating_mul(SNAPSHOT_SHARD_BYTES);
        shards_bytes
            .saturating_add(metadata_bytes)
            .saturating_add(16 + 8 + 4 + 4)
    }

    pub(crate) fn encode(&self, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(&self.log_id);
        buffer.extend_from_slice(&self.epoch.to_be_bytes());
        put_count(buffer, self.metadata.len());
        buffer.extend_from_slice(self.metadata);
        put_count(buffer, self.shards.len());
        for (shard, state) in &self.shards {
            for number in [shard.0, state.next, state.last_time_ms] {
                buffer.extend_from_slice(&number.to_be_bytes());
            }
            buffer.push(u8::from(state.sealed));
        }
    }

    pub(crate) fn decode(body: &'a [u8]) -> Option<Snapshot<'a>> {
        let mut cursor = Cursor::new(body);
        let log_id = cursor.array()?;
        let epoch = cursor.u64()?;
        let metadata_bytes = cursor.count(1)?;
        let metadata = cursor.take(metadata_bytes)?;
        let count = cursor.count(SNAPSHOT_SHARD_BYTES)?;
        let mut shards = Vec::with_capacity(count);
        for _ in 0..count {
            let shard = LogShard(cursor.u64()?);
            let (next, last_time_ms) = (cursor.u64()?, cursor.u64()?);
            let sealed = match cursor.u8()? {
                0 => false,
                1 => true,
                _ => return None,
            };
            shards.push((
                shard,
                ShardState {
                    next,
                    last_time_ms,
                    sealed,
                },
            ));
        }
        cursor.rest().is_empty().then_some(Snapshot {
            log_id,
            epoch,
            metadata,
            shards,
        })
    }
}

/// A change of metadata and of the set of shards, applied together or not at all.
///
/// Created shards must be unknown, sealed ones must be there and open, dropped ones must be there.
/// A number that was dropped must not be created again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transaction {
    /// The metadata event, opaque here.
    pub event: Bytes,
    /// Shards that begin to exist.
    pub create: Vec<LogShard>,
    /// Shards that take no more records.
    pub seal: Vec<LogShard>,
    /// Shards that stop existing: their records can no longer be read.
    pub drop: Vec<LogShard>,
}

impl Transaction {
    pub(crate) fn encode(&self, buffer: &mut Vec<u8>) {
        let lists = [&self.create, &self.seal, &self.drop];
        for list in lists {
            put_count(buffer, list.len());
        }
        for shard in lists.into_iter().flatten() {
            buffer.extend_from_slice(&shard.0.to_be_bytes());
        }
        buffer.extend_from_slice(&self.event);
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Transaction> {
        let mut cursor = Cursor::new(body);
        let counts = [cursor.u32()?, cursor.u32()?, cursor.u32()?];
        let mut lists = [Vec::new(), Vec::new(), Vec::new()];
        for (list, count) in lists.iter_mut().zip(counts) {
            for _ in 0..count {
                list.push(LogShard(cursor.u64()?));
            }
        }
        let [create, seal, drop] = lists;
        Some(Transaction {
            event: Bytes::copy_from_slice(cursor.rest()),
            create,
            seal,
            drop,
        })
    }

    /// Encoded size.
    pub(crate) fn len_bytes(&self) -> usize {
        let shards = self.create.len().saturating_add(self.seal.len());
        let shards = shards.saturating_add(self.drop.len());
        shards
            .saturating_mul(8)
            .saturating_add(12)
            .saturating_add(self.event.len())
    }
}

/// The body of an opened frame.
pub(crate) fn encode_opened(epoch: u64, buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(&epoch.to_be_bytes());
}

/// The epoch of an opened frame.
pub(crate) fn decode_opened(body: &[u8]) -> Option<u64> {
    let mut cursor = Cursor::new(body);
    let epoch = cursor.u64()?;
    cursor.rest().is_empty().then_some(epoch)
}

/// Where one run lies in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) offset: u64,
    /// Bytes of the frame, header included, padding not.
    pub(crate) length: u32,
    pub(crate) count: u32,
    pub(crate) time_ms: u64,
}

impl Run {
    /// One more than the last counter.
    pub(crate) fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }
}

/// One shard's share of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ShardRuns {
    /// The shard's next counter when the segment began.
    pub(crate) start: u64,
    /// The shard's last time when the segment began.
    pub(crate) start_time_ms: u64,
    pub(crate) runs: Vec<Run>,
}

/// Every run of a segment, by shard: what a footer holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SegmentIndex {
    shards: BTreeMap<LogShard, ShardRuns>,
    run_count: usize,
}

impl SegmentIndex {
    /// The index of a segment that begins with these shards.
    pub(crate) fn starting_with<'a>(
        shards: impl IntoIterator<Item = (&'a LogShard, &'a ShardState)>,
    ) -> Self {
        let shards = shards.into_iter().map(|(shard, state)| {
            let runs = ShardRuns {
                start: state.next,
                start_time_ms: state.last_time_ms,
                runs: Vec::new(),
            };
            (*shard, runs)
        });
        SegmentIndex {
            shards: shards.collect(),
            run_count: 0,
        }
    }

    pub(crate) fn create(&mut self, shard: LogShard) {
        self.shards.entry(shard).or_default();
    }

    pub(crate) fn push(&mut self, shard: LogShard, run: Run) {
        self.shards.entry(shard).or_default().runs.push(run);
        self.run_count = self.run_count.saturating_add(1);
    }

    pub(crate) fn get(&self, shard: LogShard) -> Option<&ShardRuns> {
        self.shards.get(&shard)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (LogShard, &ShardRuns)> {
        self.shards.iter().map(|(shard, runs)| (*shard, runs))
    }

    /// Bytes of the encoded body with that much more in it.
    pub(crate) fn len_bytes_with(&self, more_shards: usize, more_runs: usize) -> usize {
        let shards = self.shards.len().saturating_add(more_shards);
        let runs = self.run_count.saturating_add(more_runs);
        Self::len_bytes_of(shards, runs)
    }

    /// Bytes of the encoded body of one with so many shards and runs.
    pub(crate) fn len_bytes_of(shards: usize, runs: usize) -> usize {
        let shards_bytes = shards.saturating_mul(FOOTER_SHARD_BYTES);
        runs.saturating_mul(FOOTER_RUN_BYTES)
            .saturating_add(shards_bytes)
            .saturating_add(4)
    }

    /// How many runs.
    pub(crate) fn run_count(&self) -> usize {
        self.run_count
    }

    /// Bytes that it takes in memory, about.
    pub(crate) fn memory_bytes(&self) -> usize {
        let runs = self.shards.values().map(|runs| runs.runs.capacity());
        let runs = runs.fold(0_usize, usize::saturating_add);
        let shards_bytes = self.shards.len().saturating_mul(SHARD_MEMORY_BYTES);
        runs.saturating_mul(size_of::<Run>())
            .saturating_add(shards_bytes)
    }

    pub(crate) fn encode(&self, buffer: &mut Vec<u8>) {
        put_count(buffer, self.shards.len());
        for (shard, runs) in &self.shards {
            for number in [shard.0, runs.start, runs.start_time_ms] {
                buffer.extend_from_slice(&number.to_be_bytes());
            }
            put_count(buffer, runs.runs.len());
            for run in &runs.runs {
                buffer.extend_from_slice(&run.first.to_be_bytes());
                buffer.extend_from_slice(&run.offset.to_be_bytes());
                buffer.extend_from_slice(&run.length.to_be_bytes());
                buffer.extend_from_slice(&run.count.to_be_bytes());
                buffer.extend_from_slice(&run.time_ms.to_be_bytes());
            }
        }
    }

    pub(crate) fn decode(body: &[u8]) -> Option<SegmentIndex> {
        let mut cursor = Cursor::new(body);
        let mut index = SegmentIndex::default();
        for _ in 0..cursor.count(FOOTER_SHARD_BYTES)? {
            let shard = LogShard(cursor.u64()?);
            let (start, start_time_ms) = (cursor.u64()?, cursor.u64()?);
            let count = cursor.count(FOOTER_RUN_BYTES)?;
            let mut runs: Vec<Run> = Vec::with_capacity(count);
            for _ in 0..count {
                let run = Run {
                    first: cursor.u64()?,
                    offset: cursor.u64()?,
                    length: cursor.u32()?,
                    count: cursor.u32()?,
                    time_ms: cursor.u64()?,
                };
                let after = runs.last().map_or(start, Run::end);
                if run.first < after || run.count == 0 {
                    return None;
                }
                runs.push(run);
            }
            index.run_count = index.run_count.saturating_add(count);
            if index
                .shards
                .insert(
                    shard,
                    ShardRuns {
                        start,
                        start_time_ms,
                        runs,
                    },
                )
                .is_some()
            {
                return None;
            }
        }
        cursor.rest().is_empty().then_some(index)
    }
}

/// The trailer of a segment whose footer frame begins at `footer_offset`.
pub(crate) fn encode_trailer(footer_offset: u64) -> [u8; TRAILER_BYTES] {
    let offset = footer_offset.to_be_bytes();
    let crc = crc32c::crc32c(&offset).to_be_bytes();
    let mut trailer = [0; TRAILER_BYTES];
    let (head, tail) = trailer.split_at_mut(8);
    head.copy_from_slice(&offset);
    let (middle, magic) = tail.split_at_mut(4);
    middle.copy_from_slice(&crc);
    magic.copy_from_slice(&TRAILER_MAGIC);
    trailer
}

/// The footer's offset, if these bytes are a trailer.
pub(crate) fn decode_trailer(trailer: &[u8]) -> Option<u64> {
    let mut cursor = Cursor::new(trailer);
    let offset: [u8; 8] = cursor.array()?;
    let sound = cursor.u32()? == crc32c::crc32c(&offset) && cursor.rest() == TRAILER_MAGIC;
    sound.then_some(u64::from_be_bytes(offset))
}

fn put_count(buffer: &mut Vec<u8>, count: usize) {
    let Ok(count) = u32::try_from(count) else {
        unreachable!("a body is below 4 GiB, so are its counts");
    };
    buffer.extend_from_slice(&count.to_be_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
    use super::*;
    use proptest::prelude::*;

    fn shards() -> impl Strategy<Value = Vec<LogShard>> {
        prop::collection::vec(any::<u64>().prop_map(LogShard), 0..5)
    }

    fn states() -> impl Strategy<Value = Vec<(LogShard, ShardState)>> {
        let state = (any::<u64>(), any::<u64>(), any::<u64>(), any::<bool>());
        let one = state.prop_map(|(shard, next, last_time_ms, sealed)| {
            (
                LogShard(shard),
                ShardState {
                    next,
                    last_time_ms,
                    sealed,
                },
            )
        });
        prop::collection::vec(one, 0..5)
    }

    fn index() -> impl Strategy<Value = SegmentIndex> {
        let run = (0u64..9, any::<u64>(), any::<u32>(), 1u32..9, any::<u64>());
        let runs = (
            0..u64::MAX / 2,
            any::<u64>(),
            prop::collection::vec(run, 0..5),
        );
        prop::collection::btree_map(any::<u64>().prop_map(LogShard), runs, 0..5).prop_map(
            |shards| {
                let mut index = SegmentIndex::default();
                for (shard, (start, start_time_ms, runs)) in shards {
                    index.shards.insert(
                        shard,
                        ShardRuns {
                            start,
                            start_time_ms,
                            runs: Vec::new(),
                        },
                    );
                    let mut next = start;
                    for (gap, offset, length, count, time_ms) in runs {
                        let run = Run {
                            first: next + gap,
                            offset,
                            length,
                            count,
                            time_ms,
                        };
                        next = run.end();
                        index.push(shard, run);
                    }
                }
                index
            },
        )
    }

    fn encoded(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut buffer = Vec::new();
        write(&mut buffer);
        buffer
    }

    proptest! {
        #[test]
        fn snapshots_round_trip(log_id: [u8; 16], epoch: u64, metadata in prop::collection::vec(any::<u8>(), 0..40), shards in states()) {
            let snapshot = Snapshot { log_id, epoch, metadata: &metadata, shards };
            let bytes = encoded(|buffer| snapshot.encode(buffer));
            prop_assert_eq!(bytes.len(), Snapshot::len_bytes_of(metadata.len(), snapshot.shards.len()));
            prop_assert_eq!(Snapshot::decode(&bytes), Some(snapshot.clone()));
            prop_assert_eq!(Snapshot::decode(&bytes[..bytes.len() - 1]), None);
        }

        #[test]
        fn transactions_round_trip(event in prop::collection::vec(any::<u8>(), 0..40), create in shards(), seal in shards(), drop in shards()) {
            let transaction = Transaction { event: Bytes::from(event), create, seal, drop };
            let bytes = encoded(|buffer| transaction.encode(buffer));
            prop_assert_eq!(bytes.len(), transaction.len_bytes());
            prop_assert_eq!(Transaction::decode(&bytes), Some(transaction));
        }

        #[test]
        fn footers_round_trip(index in index()) {
            let bytes = encoded(|buffer| index.encode(buffer));
            prop_assert_eq!(bytes.len(), index.len_bytes_with(0, 0));
            prop_assert_eq!(SegmentIndex::decode(&bytes), Some(index));
            prop_assert_eq!(SegmentIndex::decode(&bytes[..bytes.len() - 1]), None);
        }

        #[test]
        fn opened_and_trailer_round_trip(number: u64) {
            prop_assert_eq!(decode_opened(&encoded(|buffer| encode_opened(number, buffer))), Some(number));
            prop_assert_eq!(decode_trailer(&encode_trailer(number)), Some(number));
        }

        #[test]
        fn s8_a_flipped_trailer_is_refused(number: u64, bit in 0usize..128) {
            let mut trailer = encode_trailer(number);
            trailer[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(decode_trailer(&trailer), None);
        }

        #[test]
        fn s9_any_bytes_decode_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Snapshot::decode(&bytes);
            let _ = Transaction::decode(&bytes);
            let _ = SegmentIndex::decode(&bytes);
            let _ = decode_opened(&bytes);
            let _ = decode_trailer(&bytes);
        }
    }
}
