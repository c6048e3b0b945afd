//! The open shards of a stream in the order of their ranges, with what putting a record needs of each: of ten thousand, a
//! request meets hundreds, none of which is in the processor's cache.

use crate::log::LogShard;
use millstream_wire::sequence::Parts;
use millstream_wire::{HashKey, SequenceNumber, ShardId};

/// See the module. Found by a shard's place in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::engine) struct OpenShards(Vec<Owner>);

/// One of them, and its hash keys from the first to the last: a line of the processor's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(align(64))]
struct Owner {
    first: HashKey,
    last: HashKey,
    shard: OpenShard,
}

/// An open shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct OpenShard {
    pub(in crate::engine) index: u32,
    pub(in crate::engine) log_shard: LogShard,
    pub(in crate::engine) created_seconds: u64,
}

impl OpenShard {
    pub(in crate::engine) fn id(self) -> ShardId {
        ShardId(self.index)
    }

    /// The sequence number of one of its records (layout: `wire::sequence`).
    pub(in crate::engine) fn sequence_number(self, counter: u64, time_ms: u64) -> SequenceNumber {
        Parts {
            shard_created_seconds: self.created_seconds,
            counter,
            record_seconds: time_ms / 1_000,
            shard_index: self.index,
        }
        .pack()
    }
}

impl OpenShards {
    /// These, given with the first hash key of each.
    pub(super) fn new(shards: impl Iterator<Item = (HashKey, OpenShard)>) -> OpenShards {
        let mut shards: Vec<_> = shards.collect();
        shards.sort_unstable_by_key(|(start, shard)| (*start, shard.index));
        let next = shards.iter().skip(1).map(|(first, _)| first.0);
        let last = next.map(|next| HashKey(next.saturating_sub(1)));
        let last = last.chain([HashKey(u128::MAX)]);
        let owners = shards.iter().zip(last).map(|((first, shard), last)| Owner {
            first: *first,
            last,
            shard: *shard,
        });
        OpenShards(owners.collect())
    }

    /// The place of the one that owns `key`.
    pub(in crate::engine) fn place_of(&self, key: HashKey) -> Option<usize> {
        let guess = self.place_if_even(key);
        let owns = |owner: &Owner| owner.first <= key && key <= owner.last;
        if self.0.get(guess).is_some_and(owns) {
            return Some(guess);
        }
        let after = self.0.partition_point(|owner| owner.first <= key);
        after.checked_sub(1)
    }

    /// Where it would be if all had as much of the space, which those of most streams have.
    fn place_if_even(&self, key: HashKey) -> usize {
        let high = key.0 >> 64;
        let shards = u128::try_from(self.0.len()).unwrap_or_default();
        usize::try_from((high * shards) >> 64).unwrap_or_default()
    }

    pub(in crate::engine) fn get(&self, place: usize) -> Option<OpenShard> {
        self.0.get(place).map(|owner| owner.shard)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = OpenShard> {
        self.0.iter().map(|owner| owner.shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn open(starts: impl IntoIterator<Item = u128>) -> OpenShards {
        OpenShards::new((0..).zip(starts).map(|(index, start)| {
            let shard = OpenShard {
                index,
                log_shard: LogShard(u64::from(index)),
                created_seconds: 1,
            };
            (HashKey(start), shard)
        }))
    }

    proptest! {
        /// Whether the space is split evenly or not, a key belongs to the last that begins at or before it.
        #[test]
        fn a_key_is_owned_by_the_last_that_begins_before_it(
            even: bool,
            shards in 1u32..60,
            starts in prop::collection::btree_set(any::<u128>(), 1..60),
            keys in prop::collection::vec(any::<u128>(), 1..9),
        ) {
            let part = u128::MAX / u128::from(shards);
            let even: Vec<_> = (0..shards).map(|place| u128::from(place) * part).filter(|_| even).collect();
            let starts: Vec<_> = if even.is_empty() { starts.into_iter().collect() } else { even };
            let open = open(starts.iter().rev().copied());
            let near = starts.iter().flat_map(|start| [start.saturating_sub(1), *start, start.saturating_add(1)]);
            for key in keys.into_iter().chain(near) {
                let owner = starts.iter().rposition(|start| *start <= key);
                prop_assert_eq!(open.place_of(HashKey(key)), owner);
            }
        }
    }
}
