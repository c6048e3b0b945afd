//! What goes wrong with single shards and calls of the fake Kinesis, on demand.

use super::{FakeKinesis, FakeShard};
use crate::client::{RecordsPage, Shard};
use crate::error::{Error, ErrorKind};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that is wrong for the moment; nothing by default.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// Shards whose reads fail.
    failing: BTreeMap<usize, ErrorKind>,
    /// Shards that are not listed, though they are there.
    hidden: BTreeSet<usize>,
    /// Closed shards that are listed as open.
    shown_open: BTreeSet<usize>,
    /// Pages of open shards that look like the last, still to be given.
    false_ends: BTreeMap<usize, u32>,
    /// Children are named without their parents.
    orphans: bool,
    /// Calls that panic, still to be made.
    panics: BTreeMap<&'static str, u32>,
    /// Calls of `ListShards`.
    listings: u64,
}

impl Trouble {
    /// Panics if the call is to.
    pub(super) fn trip(&mut self, call: &'static str) {
        let left = self.panics.entry(call).or_default();
        let due = *left > 0;
        *left = left.saturating_sub(1);
        assert!(!due, "a panic in {call} on demand");
    }

    /// The listing of the shards as it is told.
    pub(super) fn listing(&mut self, shards: &[FakeShard]) -> Vec<Shard> {
        self.listings += 1;
        let listed = shards.iter().enumerate();
        let listed =
            listed.filter(|(index, shard)| !shard.outlived && !self.hidden.contains(index));
        listed
            .map(|(index, found)| Shard {
                closed: found.shard.closed && !self.shown_open.contains(&index),
                ..found.shard.clone()
            })
            .collect()
    }

    /// Whether the shard can be read.
    pub(super) fn check(&self, shard: usize) -> Result<(), Error> {
        match self.failing.get(&shard) {
            None => Ok(()),
            Some(kind) => Err(Error::new(*kind, "this shard fails on demand")),
        }
    }

    /// The page as it is told.
    pub(super) fn page(&mut self, shard: usize, mut page: RecordsPage) -> RecordsPage {
        if let Some(left) = self.false_ends.get_mut(&shard).filter(|left| **left > 0) {
            *left -= 1;
            page.next_iterator = None;
        }
        if self.orphans {
            page.children
                .iter_mut()
                .for_each(|child| child.parents.clear());
        }
        page
    }
}

impl FakeKinesis {
    /// Reads of the shard fail like this until told otherwise.
    pub(crate) fn fail_shard(&self, shard: usize, failure: Option<ErrorKind>) {
        let failing = &mut self.lock().trouble.failing;
        match failure {
            Some(kind) => failing.insert(shard, kind),
            None => failing.remove(&shard),
        };
    }

    /// Leaves shards out of listings.
    pub(crate) fn hide(&self, shards: impl IntoIterator<Item = usize>) {
        self.lock().trouble.hidden.extend(shards);
    }

    /// Lists every shard again.
    pub(crate) fn show_all(&self) {
        self.lock().trouble.hidden.clear();
    }

    /// Lists a closed shard as an open one, or as it is.
    pub(crate) fn show_as_open(&self, shard: usize, open: bool) {
        let shown = &mut self.lock().trouble.shown_open;
        if open {
            shown.insert(shard);
        } else {
            shown.remove(&shard);
        }
    }

    /// The next pages of the shard say that it ends with them.
    pub(crate) fn end_falsely(&self, shard: usize, times: u32) {
        self.lock().trouble.false_ends.insert(shard, times);
    }

    /// Pages name children without their parents.
    pub(crate) fn name_orphans(&self) {
        self.lock().trouble.orphans = true;
    }

    /// The next calls panic: `list_shards` or `get_records`.
    pub(crate) fn panic_in(&self, call: &'static str, times: u32) {
        self.lock().trouble.panics.insert(call, times);
    }

    /// Calls of `ListShards` so far.
    pub(crate) fn listings(&self) -> u64 {
        self.lock().trouble.listings
    }

    /// Closes a shard that gets no children.
    pub(crate) fn close(&self, shard: usize) {
        let mut state = self.lock();
        state.shards[shard].shard.closed = true;
        state.wake();
    }

    /// The oldest records of the shard have outlived the retention.
    pub(crate) fn trim(&self, shard: usize, count: usize) {
        let mut state = self.lock();
        state.generation += 1;
        let gone: BTreeSet<_> = state.shards[shard]
            .records
            .drain(..count)
            .map(|record| record.sequence_number)
            .collect();
        state.put.retain(|put| !gone.contains(put));
    }
}
