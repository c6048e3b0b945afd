//! Maps by log shard. Their numbers are counted up by the server, no client chooses them, so one multiplication spreads
//! them well enough: a commit over hundreds of shards looks each of them up several times.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::log::LogShard;

/// A map by log shard.
pub(crate) type ShardMap<T> = HashMap<LogShard, T, BuildHasherDefault<ShardHasher>>;

/// The golden ratio in 64 bits: its multiples lie far apart.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Hashes the one number that a [`LogShard`] is.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct ShardHasher(u64);

impl Hasher for ShardHasher {
    fn write_u64(&mut self, number: u64) {
        let product = (self.0 ^ number).wrapping_mul(GOLDEN);
        // The map looks at the lowest and the highest bits; the highest of a product are the better ones.
        self.0 = product ^ product.rotate_left(32);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::hash::BuildHasher;

    /// Numbers that count up, in steps of any power of two, fill the slots of a table nearly as evenly as chance would,
    /// which takes 2,589 of 4,096.
    #[test]
    fn numbers_that_count_up_are_spread() {
        let hasher = BuildHasherDefault::<ShardHasher>::default();
        for step in (0..20).map(|shift| 1_u64 << shift) {
            let hashes: Vec<u64> = (0..4096)
                .map(|n| hasher.hash_one(LogShard(n * step)))
                .collect();
            let slots: BTreeSet<u64> = hashes.iter().map(|hash| hash % 4096).collect();
            let tags: BTreeSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
            assert!(slots.len() > 1_800, "step {step}: {} slots", slots.len());
            assert!(tags.len() > 100, "step {step}: {} tags", tags.len());
        }
    }
}
