//! The plan of UpdateShardCount: shards are split at the boundaries of an even division, and the pieces
//! of each target are merged. Pure; the whole plan is one event and one log transaction (S4, S5).
//!
//! As on AWS, every shard comes from one parent by a split or from two neighbours by a merge, and shards
//! that exist only on the way are left behind closed. From n to 2n shards that is n splits, from 2n to n
//! it is n merges, and in between the n shards become about 2n pieces before they are merged.
//!
//! Boundaries of different divisions that mean the same point can differ by a few of the 2^128 keys,
//! because widths are rounded down. Such a boundary is kept where it is: nobody wants a shard of two keys.

use crate::engine::catalog::{Catalog, Event, Shard, Stream};
use crate::engine::reshard::Moment;
use crate::log::{LogShard, Transaction};
use millstream_wire::limits::SHARDS_PER_NODE;
use millstream_wire::{HashKey, HashKeyRange, hash_key};
use std::num::NonZeroU32;

/// Keys that two boundaries which mean the same may lie apart: each is rounded by less than the number of
/// shards.
#[expect(clippy::as_conversions, reason = "a small constant")]
pub(super) const ROUNDING_KEYS: u128 = 2 * SHARDS_PER_NODE as u128;

/// What UpdateShardCount does to the shards.
#[derive(Debug)]
pub(super) struct Scaling {
    parents: Vec<u32>,
    sealed: Vec<LogShard>,
    shards: Vec<Shard>,
}

/// The way from the open shards of `stream` to `target` shards of one width; `None` if it is there.
pub(super) fn plan(
    catalog: &Catalog,
    stream: &Stream,
    target: NonZeroU32,
    moment: Moment,
) -> Option<Scaling> {
    let open: Vec<Shard> = stream.open_shards().cloned().collect();
    let starts = target_starts(&open, target);
    let mut builder = Builder {
        first_index: stream.next_shard,
        next_log_shard: catalog.next_log_shard(),
        moment,
        scaling: Scaling {
            parents: Vec::new(),
            sealed: Vec::new(),
            shards: Vec::new(),
        },
    };
    let mut pieces = Vec::new();
    for shard in open {
        let from = starts.partition_point(|start| *start <= shard.start);
        let to = starts.partition_point(|start| *start <= shard.end);
        builder.split(shard, &starts[from..to], &mut pieces);
    }
    let mut after = Vec::new();
    let mut rest = pieces.into_iter().peekable();
    for next in starts.iter().map(Some).chain([None]) {
        let mut group = Vec::new();
        while let Some(piece) = rest.next_if(|piece| next.is_none_or(|next| piece.start < *next)) {
            group.push(piece);
        }
        after.extend(builder.merge(group));
    }
    let ranges: Vec<_> = after.iter().map(Shard::range).collect();
    assert!(
        hash_key::tiles(&ranges),
        "S4: a scaling plan keeps the hash key space tiled"
    );
    (!builder.scaling.shards.is_empty()).then_some(builder.scaling)
}

/// Where the targets begin, the first one aside.
fn target_starts(open: &[Shard], target: NonZeroU32) -> Vec<HashKey> {
    let ideal = HashKeyRange::divide(target).into_iter().skip(1);
    let kept = |ideal: HashKey| {
        let at = open.partition_point(|shard| shard.start < ideal);
        let neighbours = open[at.saturating_sub(1)..].iter().take(2);
        neighbours
            .map(|shard| shard.start)
            .filter(|start| start.0 > 0 && start.0.abs_diff(ideal.0) <= ROUNDING_KEYS)
            .min_by_key(|start| start.0.abs_diff(ideal.0))
    };
    ideal
        .map(|range| kept(range.start).unwrap_or(range.start))
        .collect()
}

struct Builder {
    first_index: u32,
    next_log_shard: u64,
    moment: Moment,
    scaling: Scaling,
}

impl Builder {
    /// Splits `shard` at `cuts`, halving their number each time.
    fn split(&mut self, shard: Shard, cuts: &[HashKey], pieces: &mut Vec<Shard>) {
        let middle = cuts.len() / 2;
        let Some(cut) = cuts.get(middle) else {
            pieces.push(shard);
            return;
        };
        let (left, right) = (
            HashKeyRange {
                start: shard.start,
                end: HashKey(cut.0 - 1),
            },
            HashKeyRange {
                start: *cut,
                end: shard.end,
            },
        );
        let children = [left, right].map(|range| self.open(range, &[&shard]));
        self.close(&shard);
        let [left, right] = children;
        self.split(left, &cuts[..middle], pieces);
        self.split(right, &cuts[middle + 1..], pieces);
    }

    /// Merges neighbours two by two until one is left.
    fn merge(&mut self, mut group: Vec<Shard>) -> Option<Shard> {
        while group.len() > 1 {
            let mut merged = Vec::with_capacity(group.len().div_ceil(2));
            let mut rest = group.into_iter();
            while let Some(first) = rest.next() {
                let Some(second) = rest.next() else {
                    merged.push(first);
                    break;
                };
                let range = HashKeyRange {
                    start: first.start,
                    end: second.end,
                };
                merged.push(self.open(range, &[&first, &second]));
                self.close(&first);
                self.close(&second);
            }
            group = merged;
        }
        group.pop()
    }

    fn open(&mut self, range: HashKeyRange, parents: &[&Shard]) -> Shard {
        let created = parents.iter().map(|parent| parent.created_seconds).max();
        let count = u32::try_from(self.scaling.shards.len()).unwrap_or(u32::MAX);
        let shard = Shard {
            index: self.first_index.saturating_add(count),
            log_shard: self.next_log_shard,
            start: range.start,
            end: range.end,
            parent: parents.first().map(|parent| parent.index),
            adjacent_parent: parents.get(1).map(|parent| parent.index),
            // Later than its parents, which is what orders its records after theirs (S2).
            created_seconds: created.unwrap_or(0).max(self.moment.now_ms / 1_000) + 1,
            closed_ms: None,
        };
        self.next_log_shard += 1;
        self.scaling.shards.push(shard.clone());
        shard
    }

    fn close(&mut self, shard: &Shard) {
        self.scaling.sealed.push(shard.log_shard());
        let made_here = shard.index.checked_sub(self.first_index);
        let made_here = made_here.and_then(|at| usize::try_from(at).ok());
        match made_here.and_then(|at| self.scaling.shards.get_mut(at)) {
            Some(own) => {
                own.closed_ms = Some(self.moment.closing_ms);
            }
            None => self.scaling.parents.push(shard.index),
        }
    }
}

impl Scaling {
    /// Shards it makes, those that exist only on the way included.
    pub(super) fn made(&self) -> usize {
        self.shards.len()
    }

    /// The transaction that does it, with other events about the stream.
    pub(super) fn transaction(
        self,
        stream: &Stream,
        mut events: Vec<Event>,
        moment: Moment,
    ) -> Transaction {
        let create = self.shards.iter().map(Shard::log_shard).collect();
        let resharded = Event::Resharded {
            arn: stream.arn.clone(),
            parents: self.parents,
            children: self.shards,
            closed_ms: moment.closing_ms,
            active_ms: moment.settled_ms(),
        };
        events.insert(0, resharded);
        Transaction {
            event: Event::Several(events).encode().into(),
            create,
            seal: self.sealed,
            drop: Vec::new(),
        }
    }
}
