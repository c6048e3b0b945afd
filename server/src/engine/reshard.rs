//! Plans for creating, splitting and merging shards. Pure: a plan is an event and what the log must do
//! with it; one log transaction applies both (S4, S5).

use crate::engine::catalog::{Catalog, Event, Shard, Stream};
use crate::log::{LogShard, Transaction};
use millstream_wire::{HashKey, HashKeyRange, ShardId, hash_key};
use std::num::NonZeroU32;

/// When a change happens and how long the stream says so.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_field_names, reason = "the unit comes last")]
pub(super) struct Moment {
    /// Now, milliseconds since 1970.
    pub now_ms: u64,
    /// How long the stream stays in the transitional state, milliseconds.
    pub state_delay_ms: u64,
    /// When shards are closed that are closed now: not before their newest record, nor before they were opened, though the
    /// clock was set back since. So at every time, and for every key, one shard is open.
    pub closing_ms: u64,
}

impl Moment {
    /// When the transitional state ends. Without a delay there is none, not even for a clock that is
    /// set back later.
    pub(super) fn settled_ms(self) -> u64 {
        match self.state_delay_ms {
            0 => 0,
            delay_ms => self.now_ms.saturating_add(delay_ms),
        }
    }
}

/// Why a split or merge is not possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// No such shard, or one that expired.
    UnknownShard(ShardId),
    /// The shard is closed already.
    Closed(ShardId),
    /// The new starting hash key does not leave two non-empty ranges of a width AWS accepts.
    BadSplitKey(HashKey, HashKeyRange),
    /// The second shard's range does not begin where the first one's ends.
    NotAdjacent(ShardId, ShardId),
}

/// The first shards of a new stream: the whole space in `count` equal ranges.
pub(super) fn first_shards(catalog: &Catalog, count: NonZeroU32, now_ms: u64) -> Vec<Shard> {
    let ranges = HashKeyRange::divide(count);
    (0u32..)
        .zip(catalog.next_log_shard()..)
        .zip(ranges)
        .map(|((index, log_shard), range)| Shard {
            index,
            log_shard,
            start: range.start,
            end: range.end,
            parent: None,
            adjacent_parent: None,
            created_seconds: now_ms / 1_000,
            closed_ms: None,
        })
        .collect()
}

/// Closes `shard` and opens two in its place, the second one starting at `new_start`.
pub(super) fn split(
    catalog: &Catalog,
    stream: &Stream,
    shard: ShardId,
    new_start: HashKey,
    moment: Moment,
) -> Result<Transaction, Refused> {
    let parent = open_shard(stream, shard)?;
    // AWS takes a key only strictly inside: greater than start + 1 and below the end.
    let inside = parent
        .start
        .0
        .checked_add(1)
        .is_some_and(|floor| new_start.0 > floor);
    if !inside || new_start >= parent.end {
        return Err(Refused::BadSplitKey(new_start, parent.range()));
    }
    let ranges = [
        HashKeyRange {
            start: parent.start,
            end: HashKey(new_start.0 - 1),
        },
        HashKeyRange {
            start: new_start,
            end: parent.end,
        },
    ];
    Ok(replace(catalog, stream, &[parent], &ranges, moment))
}

/// Closes two neighbours and opens one in their place.
pub(super) fn merge(
    catalog: &Catalog,
    stream: &Stream,
    shards: (ShardId, ShardId),
    moment: Moment,
) -> Result<Transaction, Refused> {
    let (first, second) = (open_shard(stream, shards.0)?, open_shard(stream, shards.1)?);
    if !first.range().is_followed_by(&second.range()) {
        return Err(Refused::NotAdjacent(shards.0, shards.1));
    }
    let range = HashKeyRange {
        start: first.start,
        end: second.end,
    };
    Ok(replace(catalog, stream, &[first, second], &[range], moment))
}

fn open_shard(stream: &Stream, id: ShardId) -> Result<&Shard, Refused> {
    match stream.shards.get(&id.0) {
        None => Err(Refused::UnknownShard(id)),
        Some(shard) if !shard.is_open() => Err(Refused::Closed(id)),
        Some(shard) => Ok(shard),
    }
}

fn replace(
    catalog: &Catalog,
    stream: &Stream,
    parents: &[&Shard],
    ranges: &[HashKeyRange],
    moment: Moment,
) -> Transaction {
    let newest_parent = parents
        .iter()
        .map(|shard| shard.created_seconds)
        .max()
        .unwrap_or(0);
    let created_seconds = (moment.now_ms / 1_000).max(newest_parent) + 1;
    let children: Vec<Shard> = (stream.next_shard..)
        .zip(catalog.next_log_shard()..)
        .zip(ranges)
        .map(|((index, log_shard), range)| Shard {
            index,
            log_shard,
            start: range.start,
            end: range.end,
            parent: parents.first().map(|shard| shard.index),
            adjacent_parent: parents.get(1).map(|shard| shard.index),
            created_seconds,
            closed_ms: None,
        })
        .collect();
    let untouched = stream
        .open_shards()
        .filter(|s| parents.iter().all(|p| p.index != s.index));
    let after: Vec<_> = untouched.chain(&children).map(Shard::range).collect();
    assert!(
        hash_key::tiles(&after),
        "S4: a reshard plan keeps the hash key space tiled"
    );
    Transaction {
        create: children.iter().map(Shard::log_shard).collect(),
        seal: parents
            .iter()
            .map(|shard| shard.log_shard())
            .collect::<Vec<LogShard>>(),
        drop: Vec::new(),
        event: Event::Resharded {
            arn: stream.arn.clone(),
            parents: parents.iter().map(|shard| shard.index).collect(),
            children,
            closed_ms: moment.closing_ms,
            active_ms: moment.settled_ms(),
        }
        .encode()
        .into(),
    }
}
