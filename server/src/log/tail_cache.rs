//! The bytes of the latest commits, so that those who follow a shard read no file. Bounded in
//! bytes; knows no shards.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::log::segment::as_u64;

/// What a commit takes beside its bytes: its place in the queue, which may have grown to twice what is in it, and an
/// allocation. Without it a cache of small commits would be several times as large as it says.
const COMMIT_COST_BYTES: usize = 128;

/// A smaller part of a commit than one in so many is copied for who reads it.
pub(crate) const DETACHED_PART: usize = 4;

/// Commits, or pieces of them, in the order they were written, oldest dropped first.
#[derive(Debug)]
pub(crate) struct TailCache {
    commits: VecDeque<Commit>,
    used_bytes: usize,
    limit_bytes: usize,
}

#[derive(Debug)]
struct Commit {
    segment: u64,
    offset: u64,
    bytes: Bytes,
}

impl TailCache {
    pub(crate) fn new(limit_bytes: usize) -> TailCache {
        TailCache {
            commits: VecDeque::new(),
            used_bytes: 0,
            limit_bytes,
        }
    }

    /// Adds the pieces of a commit, which lie one behind the other, after all added before. No run lies in two of them.
    pub(crate) fn push(&mut self, segment: u64, mut offset: u64, pieces: Vec<Bytes>) {
        for bytes in pieces {
            self.used_bytes += bytes.len() + COMMIT_COST_BYTES;
            let length = as_u64(bytes.len());
            self.commits.push_back(Commit {
                segment,
                offset,
                bytes,
            });
            offset += length;
        }
        while self.used_bytes > self.limit_bytes {
            let Some(oldest) = self.commits.pop_front() else {
                break;
            };
            self.used_bytes -= oldest.bytes.len() + COMMIT_COST_BYTES;
        }
    }

    /// These bytes of that segment, if they are all here.
    pub(crate) fn get(&self, segment: u64, offset: u64, length: usize) -> Option<Cached> {
        let place = (segment, offset);
        let after = self
            .commits
            .partition_point(|commit| (commit.segment, commit.offset) <= place);
        let commit = self.commits.get(after.checked_sub(1)?)?;
        if commit.segment != segment {
            return None;
        }
        let start = usize::try_from(offset - commit.offset).ok()?;
        let end = start.checked_add(length)?;
        (end <= commit.bytes.len()).then(|| Cached {
            bytes: commit.bytes.slice(start..end),
            commit_bytes: commit.bytes.len(),
        })
    }
}

/// A part of a commit.
#[derive(Debug)]
pub(crate) struct Cached {
    bytes: Bytes,
    commit_bytes: usize,
}

impl Cached {
    /// The bytes, on their own if they are a small part of their commit: a reader that is slow must not keep all of it when
    /// the cache has let it go.
    pub(crate) fn detached(self) -> Bytes {
        if self.bytes.len() < self.commit_bytes / DETACHED_PART {
            return Bytes::copy_from_slice(&self.bytes);
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s6_keeps_the_latest_within_its_bytes() {
        const COMMIT: usize = 40 + COMMIT_COST_BYTES;
        let mut cache = TailCache::new(2 * COMMIT + 20);
        for commit in 0..10u8 {
            cache.push(
                1 + u64::from(commit / 5),
                u64::from(commit % 5) * 40,
                vec![vec![commit; 40].into()],
            );
        }
        assert_eq!(cache.used_bytes, 2 * COMMIT);
        let get = |cache: &TailCache, segment, offset, length| {
            let cached = cache.get(segment, offset, length);
            cached.map(Cached::detached)
        };
        assert_eq!(get(&cache, 2, 160, 40).unwrap()[..], [9; 40]);
        assert_eq!(get(&cache, 2, 130, 10).unwrap()[..], [8; 10]);
        assert_eq!(get(&cache, 2, 125, 3).unwrap()[..], [8; 3], "a copy");
        assert_eq!(get(&cache, 2, 150, 20), None, "never across two commits");
        assert_eq!(get(&cache, 2, 80, 10), None, "dropped");
        assert_eq!(get(&cache, 1, 160, 10), None);
        cache.push(3, 0, vec![vec![0; 2 * COMMIT].into()]);
        assert_eq!(
            (cache.used_bytes, get(&cache, 3, 0, 1)),
            (0, None),
            "larger than the whole cache"
        );
    }
}
