//! Blocks that a page ended in, unpacked, so that the next page does not read them again. Bounded in bytes; knows no
//! shards.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

/// What an entry costs beside its bytes, so that small ones are bounded as well.
const ENTRY_COST_BYTES: usize = 4096;

/// Where a block lies: segment, its generation, offset. The same place of another generation is another block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BlockPlace {
    pub(crate) segment: u64,
    pub(crate) generation: u32,
    pub(crate) offset: u64,
}

/// Unpacked blocks, least recently used dropped first.
#[derive(Debug)]
pub(crate) struct BlockCache {
    blocks: HashMap<BlockPlace, Cached>,
    by_use: BTreeMap<u64, BlockPlace>,
    used_bytes: usize,
    limit_bytes: usize,
    clock: u64,
}

#[derive(Debug)]
struct Cached {
    pieces: Bytes,
    used_at: u64,
}

impl BlockCache {
    pub(crate) fn new(limit_bytes: usize) -> BlockCache {
        BlockCache {
            blocks: HashMap::new(),
            by_use: BTreeMap::new(),
            used_bytes: 0,
            limit_bytes,
            clock: 0,
        }
    }

    pub(crate) fn get(&mut self, place: BlockPlace) -> Option<Bytes> {
        self.clock += 1;
        let cached = self.blocks.get_mut(&place)?;
        self.by_use.remove(&cached.used_at);
        cached.used_at = self.clock;
        self.by_use.insert(self.clock, place);
        Some(cached.pieces.clone())
    }

    pub(crate) fn insert(&mut self, place: BlockPlace, pieces: Bytes) {
        self.clock += 1;
        self.remove(place);
        self.used_bytes += cost(&pieces);
        self.by_use.insert(self.clock, place);
        let used_at = self.clock;
        self.blocks.insert(place, Cached { pieces, used_at });
        while self.used_bytes > self.limit_bytes {
            let Some((_, oldest)) = self.by_use.first_key_value() else {
                break;
            };
            self.remove(*oldest);
        }
    }

    fn remove(&mut self, place: BlockPlace) {
        if let Some(cached) = self.blocks.remove(&place) {
            self.by_use.remove(&cached.used_at);
            self.used_bytes -= cost(&cached.pieces);
        }
    }
}

fn cost(pieces: &Bytes) -> usize {
    pieces.len() + ENTRY_COST_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> BlockPlace {
        BlockPlace {
            segment: 1,
            generation: 1,
            offset,
        }
    }

    #[test]
    fn s6_keeps_what_was_used_last_within_its_bytes() {
        let mut cache = BlockCache::new(3 * (ENTRY_COST_BYTES + 100));
        for offset in 1..=3 {
            cache.insert(at(offset), vec![0; 100].into());
        }
        assert!(cache.get(at(1)).is_some());
        cache.insert(at(4), vec![4; 100].into());
        cache.insert(at(4), vec![5; 100].into());
        let kept: Vec<_> = (1..=4)
            .filter(|offset| cache.get(at(*offset)).is_some())
            .collect();
        assert_eq!(kept, [1, 3, 4]);
        assert_eq!(cache.get(at(4)).unwrap()[0], 5);
        assert_eq!(cache.used_bytes, cache.limit_bytes);
        let other = BlockPlace {
            generation: 2,
            ..at(4)
        };
        assert_eq!(cache.get(other), None);
        cache.insert(at(9), vec![0; 20_000].into());
        assert_eq!(
            (cache.used_bytes, cache.by_use.len(), cache.blocks.len()),
            (0, 0, 0)
        );
    }
}
