//! Where a shard's records lie, whatever form they are stored in: what readers, trimming and rewriting
//! see of an index. Plain data.

use crate::log::LogShard;
use crate::log::packed_index::{PackedIndex, PackedShard};
use crate::log::segment_index::{Run, SegmentIndex, ShardRuns};

/// A run, or a block of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) first: u64,
    /// One more than the last counter. Between them some may be left out.
    pub(crate) end: u64,
    pub(crate) count: u32,
    /// Of the first record, and of the last.
    pub(crate) time_ms: u64,
    pub(crate) last_time_ms: u64,
    pub(crate) offset: u64,
    /// Bytes of the frame, header included, padding not.
    pub(crate) length: u32,
    pub(crate) form: Form,
}

/// How an extent is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it was committed.
    Run,
    /// A block of that many bytes once unpacked.
    Packed { unpacked_bytes: u32 },
}

impl From<&Run> for Extent {
    fn from(run: &Run) -> Extent {
        Extent {
            first: run.first,
            end: run.end(),
            count: run.count,
            time_ms: run.time_ms,
            last_time_ms: run.time_ms,
            offset: run.offset,
            length: run.length,
            form: Form::Run,
        }
    }
}

impl Extent {
    /// Bytes its records take in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        let bytes = match self.form {
            Form::Run => self.length,
            Form::Packed { unpacked_bytes } => unpacked_bytes,
        };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

/// Every extent of a sealed segment, by shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Index {
    /// As the committer left it.
    Runs(SegmentIndex),
    /// Rewritten.
    Packed(PackedIndex),
}

impl Index {
    pub(crate) fn view(&self) -> IndexView<'_> {
        match self {
            Index::Runs(index) => IndexView::Runs(index),
            Index::Packed(index) => IndexView::Packed(index),
        }
    }

    /// How often the segment has been rewritten.
    pub(crate) fn generation(&self) -> u32 {
        match self {
            Index::Runs(_) => 0,
            Index::Packed(index) => index.generation,
        }
    }

    /// Bytes it takes in memory, about.
    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            Index::Runs(index) => index.memory_bytes(),
            Index::Packed(index) => index.memory_bytes(),
        }
    }
}

/// A look at an index, of the active segment or of a sealed one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum IndexView<'a> {
    Runs(&'a SegmentIndex),
    Packed(&'a PackedIndex),
}

impl<'a> IndexView<'a> {
    /// `None`: there is nothing of the shard in this segment, and nothing that counts before it.
    pub(crate) fn get(self, shard: LogShard) -> Option<ShardView<'a>> {
        match self {
            IndexView::Runs(index) => index.get(shard).map(ShardView::Runs),
            IndexView::Packed(index) => index.shards.get(&shard).map(ShardView::Packed),
        }
    }

    /// All shards, in order.
    pub(crate) fn iter(self) -> Box<dyn Iterator<Item = (LogShard, ShardView<'a>)> + 'a> {
        match self {
            IndexView::Runs(index) => Box::new(
                index
                    .iter()
                    .map(|(shard, runs)| (shard, ShardView::Runs(runs))),
            ),
            IndexView::Packed(index) => {
                let shards = index.shards.iter();
                Box::new(shards.map(|(shard, blocks)| (*shard, ShardView::Packed(blocks))))
            }
        }
    }
}

/// One shard's share of a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ShardView<'a> {
    Runs(&'a ShardRuns),
    Packed(&'a PackedShard),
}

impl<'a> ShardView<'a> {
    /// The shard's next counter when the segment began.
    pub(crate) fn start(self) -> u64 {
        match self {
            ShardView::Runs(runs) => runs.start,
            ShardView::Packed(shard) => shard.start,
        }
    }

    /// The shard's last time when the segment began.
    pub(crate) fn start_time_ms(self) -> u64 {
        match self {
            ShardView::Runs(runs) => runs.start_time_ms,
            ShardView::Packed(shard) => shard.start_time_ms,
        }
    }

    /// The time of its newest record here; `None` without records.
    pub(crate) fn newest_ms(self) -> Option<u64> {
        match self {
            ShardView::Runs(runs) => runs.runs.last().map(|run| run.time_ms),
            ShardView::Packed(shard) => shard.blocks.last().map(|block| block.last_time_ms),
        }
    }

    /// Its extents, beginning with the one that has the first record at or after a counter.
    pub(crate) fn since_counter(self, counter: u64) -> Extents<'a> {
        let at = match self {
            ShardView::Runs(runs) => runs.runs.partition_point(|run| run.end() <= counter),
            ShardView::Packed(shard) => shard.blocks.partition_point(|block| block.end <= counter),
        };
        Extents { shard: self, at }
    }

    /// Its extents, beginning with the one that has the first record at or after a time.
    pub(crate) fn since_time(self, time_ms: u64) -> Extents<'a> {
        let at = match self {
            ShardView::Runs(runs) => runs.runs.partition_point(|run| run.time_ms < time_ms),
            ShardView::Packed(shard) => shard
                .blocks
                .partition_point(|block| block.last_time_ms < time_ms),
        };
        Extents { shard: self, at }
    }

    /// All of them.
    pub(crate) fn extents(self) -> Extents<'a> {
        Extents { shard: self, at: 0 }
    }
}

/// See [`ShardView::extents`].
#[derive(Debug)]
pub(crate) struct Extents<'a> {
    shard: ShardView<'a>,
    at: usize,
}

impl Iterator for Extents<'_> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        let extent = match self.shard {
            ShardView::Runs(runs) => runs.runs.get(self.at).map(Extent::from),
            ShardView::Packed(shard) => shard.blocks.get(self.at).copied(),
        };
        self.at += 1;
        extent
    }
}
