//! Where runs are: the active segment's index in memory, the sealed ones' footers in a cache.
//! Plain data; whoever holds it locks it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::log::disk::DiskFile;
use crate::log::extent::{Index, IndexView};
use crate::log::segment_index::SegmentIndex;

/// Open files are bounded with the footers they belong to.
const FOOTERS: usize = 256;
/// What a footer takes beside its index.
const FOOTER_COST_BYTES: usize = 256;

/// The segments there are. Sealed ones are `first..active.number`: only the oldest are ever removed.
#[derive(Debug)]
pub(crate) struct Segments {
    pub(crate) first: u64,
    pub(crate) active: Segment,
}

/// The active segment and what is in it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) index: SegmentIndex,
}

/// A sealed segment and what is in it. The index is the file's own: another file takes the number's place
/// only together with its index.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) index: Index,
}

/// A look at a segment, active or sealed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentView<'a> {
    pub(crate) number: u64,
    pub(crate) generation: u32,
    pub(crate) file: &'a Arc<dyn DiskFile>,
    pub(crate) index: IndexView<'a>,
}

impl Segment {
    pub(crate) fn view(&self) -> SegmentView<'_> {
        SegmentView {
            number: self.number,
            generation: 0,
            file: &self.file,
            index: IndexView::Runs(&self.index),
        }
    }
}

impl Sealed {
    pub(crate) fn view(&self) -> SegmentView<'_> {
        SegmentView {
            number: self.number,
            generation: self.index.generation(),
            file: &self.file,
            index: self.index.view(),
        }
    }
}

/// Footers of sealed segments, least recently used dropped first. The latest is kept whatever its size: several readers may wait
/// for it, and each would read it again.
#[derive(Debug)]
pub(crate) struct FooterCache {
    footers: HashMap<u64, Cached>,
    used_bytes: usize,
    limit_bytes: usize,
    clock: u64,
}

#[derive(Debug)]
struct Cached {
    segment: Arc<Sealed>,
    cost_bytes: usize,
    used_at: u64,
}

impl FooterCache {
    pub(crate) fn new(limit_bytes: usize) -> FooterCache {
        FooterCache {
            footers: HashMap::new(),
            used_bytes: 0,
            limit_bytes,
            clock: 0,
        }
    }

    /// Lets a segment take the place of what there is of it; what nobody has asked for is not kept.
    pub(crate) fn replace(&mut self, segment: Arc<Sealed>) {
        if self.footers.contains_key(&segment.number) {
            self.insert(segment);
        }
    }

    pub(crate) fn get(&mut self, segment: u64) -> Option<Arc<Sealed>> {
        self.clock += 1;
        let cached = self.footers.get_mut(&segment)?;
        cached.used_at = self.clock;
        Some(Arc::clone(&cached.segment))
    }

    pub(crate) fn insert(&mut self, segment: Arc<Sealed>) {
        self.clock += 1;
        self.remove(segment.number);
        let cost_bytes = segment.index.memory_bytes() + FOOTER_COST_BYTES;
        self.used_bytes += cost_bytes;
        let number = segment.number;
        self.footers.insert(
            number,
            Cached {
                segment,
                cost_bytes,
                used_at: self.clock,
            },
        );
        while (self.used_bytes > self.limit_bytes && self.footers.len() > 1)
            || self.footers.len() > FOOTERS
        {
            let oldest = self.footers.iter().min_by_key(|(_, cached)| cached.used_at);
            let Some(oldest) = oldest.map(|(number, _)| *number) else {
                break;
            };
            self.remove(oldest);
        }
    }

    pub(crate) fn remove(&mut self, segment: u64) {
        if let Some(cached) = self.footers.remove(&segment) {
            self.used_bytes -= cached.cost_bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::LogShard;
    use crate::log::disk::Disk;
    use crate::log::memory_disk::MemoryDisk;

    #[test]
    fn s6_footers_stay_within_their_bytes() {
        let file = MemoryDisk::new().create("a", 1).unwrap();
        let segment = |number| {
            let mut index = SegmentIndex::default();
            index.create(LogShard(1));
            Arc::new(Sealed {
                number,
                file: Arc::clone(&file),
                index: Index::Runs(index),
            })
        };
        let mut cache = FooterCache::new(3 * (segment(0).index.memory_bytes() + FOOTER_COST_BYTES));
        for number in 1..=3 {
            cache.insert(segment(number));
        }
        assert!(cache.get(1).is_some());
        cache.insert(segment(4));
        let kept: Vec<_> = (1..=4)
            .filter(|number| cache.get(*number).is_some())
            .collect();
        assert_eq!(kept, [1, 3, 4]);
        assert_eq!(cache.used_bytes, cache.limit_bytes);
        cache.limit_bytes = 1;
        cache.insert(segment(5));
        assert!(cache.get(5).is_some(), "the latest stays");
        assert_eq!(cache.footers.len(), 1);
    }
}
