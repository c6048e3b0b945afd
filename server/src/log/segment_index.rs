//! Where the runs of a segment lie, by shard: in memory while it is written, and as its footer. Pure.
//!
//! ```text
//! footer  u32 shards, per shard, in order: u64 number, u64 next counter and u64 last time ms at the
//!         start of the segment, u32 runs, per run: u64 first, u64 offset, u32 frame length,
//!         u32 count, u64 time ms
//! ```

#![warn(
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::arithmetic_side_effects
)]

use crate::log::LogShard;
use crate::log::cursor::Cursor;
use crate::log::entry::{ShardState, put_count};

const FOOTER_SHARD_BYTES: usize = 28;
const FOOTER_RUN_BYTES: usize = 32;
/// What a shard takes in memory beside its runs: a place in two lists, which may have grown to twice their length, and an
/// allocation.
const SHARD_MEMORY_BYTES: usize = 112;

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

/// Every run of a segment, by shard.
///
/// A commit looks hundreds of shards up here, and of ten thousand hardly any is in the processor's cache. Their numbers are
/// counted up, so where none was dropped between them a shard's place is known from its number; where some were, it is guessed
/// from that, or looked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SegmentIndex {
    /// In order.
    shards: Vec<LogShard>,
    /// Each at its shard's place.
    runs: Vec<ShardRuns>,
    run_count: usize,
}

impl SegmentIndex {
    /// The index of a segment that begins with these shards.
    pub(crate) fn starting_with<'a>(
        shards: impl IntoIterator<Item = (&'a LogShard, &'a ShardState)>,
    ) -> Self {
        let mut shards: Vec<_> = shards.into_iter().collect();
        shards.sort_unstable_by_key(|(shard, _)| **shard);
        let runs = shards.iter().map(|(_, state)| ShardRuns {
            start: state.next,
            start_time_ms: state.last_time_ms,
            runs: Vec::new(),
        });
        SegmentIndex {
            runs: runs.collect(),
            shards: shards.into_iter().map(|(shard, _)| *shard).collect(),
            run_count: 0,
        }
    }

    pub(crate) fn create(&mut self, shard: LogShard) {
        self.place_or_insert(shard);
    }

    pub(crate) fn push(&mut self, shard: LogShard, run: Run) {
        let place = self.place_or_insert(shard);
        if let Some(runs) = self.runs.get_mut(place) {
            runs.runs.push(run);
            self.run_count = self.run_count.saturating_add(1);
        }
    }

    /// Where the shard is now, at the latest.
    fn place_or_insert(&mut self, shard: LogShard) -> usize {
        self.place(shard).unwrap_or_else(|place| {
            self.shards.insert(place, shard);
            self.runs.insert(place, ShardRuns::default());
            place
        })
    }

    /// Where the shard is, or would be.
    fn place(&self, shard: LogShard) -> Result<usize, usize> {
        let (Some(first), Some(last)) = (self.shards.first(), self.shards.last()) else {
            return Err(0);
        };
        if let Some(guess) = distance(*first, shard) {
            let none_is_missing = distance(*first, *last) == self.shards.len().checked_sub(1);
            let is_there = none_is_missing && shard <= *last;
            if is_there || self.shards.get(guess) == Some(&shard) {
                return Ok(guess);
            }
        }
        self.shards.binary_search(&shard)
    }

    pub(crate) fn get(&self, shard: LogShard) -> Option<&ShardRuns> {
        self.runs.get(self.place(shard).ok()?)
    }

    /// All shards, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (LogShard, &ShardRuns)> {
        self.shards.iter().copied().zip(&self.runs)
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
        let runs = self.runs.iter().map(|runs| runs.runs.capacity());
        let runs = runs.fold(0_usize, usize::saturating_add);
        let shards_bytes = self.shards.len().saturating_mul(SHARD_MEMORY_BYTES);
        runs.saturating_mul(size_of::<Run>())
            .saturating_add(shards_bytes)
    }

    pub(crate) fn encode(&self, buffer: &mut Vec<u8>) {
        put_count(buffer, self.shards.len());
        for (shard, runs) in self.iter() {
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
            if index.shards.last().is_some_and(|last| *last >= shard) {
                return None;
            }
            let runs = decode_runs(&mut cursor)?;
            index.run_count = index.run_count.saturating_add(runs.runs.len());
            index.shards.push(shard);
            index.runs.push(runs);
        }
        cursor.rest().is_empty().then_some(index)
    }
}

/// How far the number of one shard is above another's.
fn distance(from: LogShard, to: LogShard) -> Option<usize> {
    usize::try_from(to.0.checked_sub(from.0)?).ok()
}

fn decode_runs(cursor: &mut Cursor<'_>) -> Option<ShardRuns> {
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
    Some(ShardRuns {
        start,
        start_time_ms,
        runs,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn run(first: u64) -> Run {
        Run {
            first,
            offset: first,
            length: 1,
            count: 1,
            time_ms: 7,
        }
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
                let states = shards.iter().map(|(shard, (next, last_time_ms, _))| {
                    let state = ShardState {
                        next: *next,
                        last_time_ms: *last_time_ms,
                        sealed: false,
                    };
                    (*shard, state)
                });
                let states: Vec<_> = states.rev().collect();
                let states = states.iter().map(|(shard, state)| (shard, state));
                let mut index = SegmentIndex::starting_with(states);
                for (shard, (start, _, runs)) in shards {
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

    proptest! {
        #[test]
        fn footers_round_trip(index in index()) {
            let mut bytes = Vec::new();
            index.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), index.len_bytes_with(0, 0));
            prop_assert_eq!(SegmentIndex::decode(&bytes), Some(index));
            prop_assert_eq!(SegmentIndex::decode(&bytes[..bytes.len() - 1]), None);
        }

        /// With gaps between their numbers and without, in whatever order they come.
        #[test]
        fn shards_are_found_as_in_a_tree(pushed in prop::collection::vec((0u64..40, any::<bool>()), 0..80)) {
            let mut index = SegmentIndex::default();
            let mut tree: BTreeMap<LogShard, Vec<Run>> = BTreeMap::new();
            for (first, (shard, has_run)) in (0..).zip(pushed) {
                let shard = LogShard(shard);
                let runs = tree.entry(shard).or_default();
                if has_run {
                    index.push(shard, run(first));
                    runs.push(run(first));
                } else {
                    index.create(shard);
                }
            }
            for shard in (0..41).map(LogShard) {
                prop_assert_eq!(index.get(shard).map(|runs| &runs.runs), tree.get(&shard));
            }
            prop_assert_eq!(index.run_count(), tree.values().map(Vec::len).sum::<usize>());
            let listed: Vec<_> = index.iter().map(|(shard, runs)| (shard, runs.runs.clone())).collect();
            prop_assert_eq!(listed, tree.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn s9_any_bytes_decode_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = SegmentIndex::decode(&bytes);
        }
    }

    #[test]
    fn a_footer_whose_shards_are_not_in_order_is_refused() {
        let mut index = SegmentIndex::default();
        index.create(LogShard(2));
        index.create(LogShard(3));
        for shards in [[3, 2], [2, 2]] {
            index.shards = shards.map(LogShard).to_vec();
            let mut bytes = Vec::new();
            index.encode(&mut bytes);
            assert_eq!(SegmentIndex::decode(&bytes), None, "{shards:?}");
        }
    }
}
