//! What is known of one segment after it was looked through, and what of that the next one builds on. Plain data.

use std::collections::BTreeMap;

use crate::log::entry::ShardState;
use crate::log::extent::{Index, ShardView};
use crate::log::frame::Place;
use crate::log::packed_index::PackedShard;
use crate::log::plan::Shards;
use crate::log::recovery::State;
use crate::log::segment_index::SegmentIndex;
use crate::log::{Finding, LogShard, Metadata, MetadataError, Note};

/// Metadata that may not be known: then every event applies, and nothing comes of it.
#[derive(Debug, Clone)]
pub(crate) struct Perhaps<M>(pub(crate) Option<M>);

impl<M: Metadata> Metadata for Perhaps<M> {
    fn apply(&mut self, event: &[u8]) -> Result<(), MetadataError> {
        self.0.as_mut().map_or(Ok(()), |known| known.apply(event))
    }

    fn encode(&self) -> Vec<u8> {
        self.0.as_ref().map(M::encode).unwrap_or_default()
    }

    fn decode(bytes: &[u8]) -> Result<Self, MetadataError> {
        Ok(Perhaps(Some(M::decode(bytes)?)))
    }
}

/// One more than the last counter of a shard, and the last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct End {
    pub(crate) next: u64,
    pub(crate) time_ms: u64,
}

/// The end of a segment, on which the next one builds.
#[derive(Debug)]
pub(crate) struct Before<M> {
    pub(crate) number: u64,
    /// The last commit, the footer's included.
    pub(crate) commit: u64,
    /// Of each shard of which anything lies here or before.
    pub(crate) ends: BTreeMap<LogShard, End>,
    /// What the next snapshot must say; without the index.
    pub(crate) state: Option<State<Perhaps<M>>>,
    /// Nothing of it is missing.
    pub(crate) is_whole: bool,
}

/// What a segment's snapshot says.
#[derive(Debug)]
pub(crate) struct Begins {
    pub(crate) log_id: [u8; 16],
    pub(crate) commit: u64,
    pub(crate) shards: Shards,
    pub(crate) metadata: Vec<u8>,
}

/// One segment.
#[derive(Debug)]
pub(crate) struct Examined<M> {
    pub(crate) number: u64,
    pub(crate) findings: Vec<Finding>,
    pub(crate) notes: Vec<Note>,
    /// Padding that is not zero: all there is to mend if there are no findings beside.
    pub(crate) padding: Vec<(usize, usize)>,
    pub(crate) begins: Option<Begins>,
    /// Where the footer is, or should have been, in the log.
    pub(crate) place: Place,
    /// What holds.
    pub(crate) index: Index,
    pub(crate) state: Option<State<Perhaps<M>>>,
    pub(crate) is_sealed: bool,
    /// The index is the one that was written: what is missing of it has been told.
    pub(crate) is_indexed: bool,
    /// Nothing but padding is damaged.
    pub(crate) is_whole: bool,
    /// No epoch that was begun here or before is greater.
    pub(crate) epoch: u64,
    pub(crate) records: u64,
    pub(crate) transactions: u64,
}

impl<M> Examined<M> {
    pub(crate) fn before(self) -> Before<M> {
        Before {
            number: self.number,
            commit: self.place.commit,
            ends: ends(&self.index),
            state: self.state,
            is_whole: self.is_whole,
        }
    }
}

/// Where each shard of an index ends.
pub(crate) fn ends(index: &Index) -> BTreeMap<LogShard, End> {
    let end = |part: ShardView<'_>| {
        let last = match part {
            ShardView::Runs(runs) => runs.runs.last().map(|run| (run.end(), run.time_ms)),
            ShardView::Packed(shard) => {
                let last = shard.blocks.last();
                last.map(|block| (block.end, block.last_time_ms))
            }
        };
        let (next, time_ms) = last.unwrap_or((part.start(), part.start_time_ms()));
        End { next, time_ms }
    };
    let parts = index.view().iter();
    parts.map(|(shard, part)| (shard, end(part))).collect()
}

/// An index without records of a segment that begins where these shards end.
pub(crate) fn index_after(ends: &BTreeMap<LogShard, End>) -> SegmentIndex {
    let states: Vec<_> = ends
        .iter()
        .map(|(shard, end)| (*shard, state_at(*end)))
        .collect();
    SegmentIndex::starting_with(states.iter().map(|(shard, state)| (shard, state)))
}

/// The same for a rewritten one.
pub(crate) fn shards_after(ends: &BTreeMap<LogShard, End>) -> BTreeMap<LogShard, PackedShard> {
    let part = |end: &End| PackedShard {
        start: end.next,
        start_time_ms: end.time_ms,
        blocks: Vec::new(),
    };
    ends.iter()
        .map(|(shard, end)| (*shard, part(end)))
        .collect()
}

pub(crate) fn state_at(end: End) -> ShardState {
    ShardState {
        next: end.next,
        last_time_ms: end.time_ms,
        sealed: false,
    }
}
