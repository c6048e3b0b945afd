//! The checker: pure functions of what happened, what producers put and what the store did, one for each guarantee.

pub(super) mod bounds;
mod delivery;
mod lease;
mod loss;

use super::history::{Change, Entry, Event, History, What};
use super::kinesis::Kinesis;
use super::scenario::Scenario;
use super::world::{Beginning, TORN_OUT};
use crate::checkpoint::Position;
use crate::lease::{Lease, LeaseKey};
use millstream_wire::HashKey;
use std::collections::{BTreeMap, BTreeSet};

/// What a run left to be judged.
pub(super) struct Facts {
    pub(super) scenario: Scenario,
    pub(super) history: History,
    pub(super) kinesis: Kinesis,
    pub(super) beginnings: BTreeMap<String, Beginning>,
    pub(super) clock_stepped: bool,
}

/// A guarantee that did not hold, and the entry that shows it.
#[derive(Debug, Clone)]
pub(super) struct Violation {
    pub(super) guarantee: &'static str,
    pub(super) entry: usize,
    pub(super) what: String,
}

type Verdict = Result<(), Violation>;

fn violated(guarantee: &'static str, entry: usize, what: impl Into<String>) -> Verdict {
    Err(Violation {
        guarantee,
        entry,
        what: what.into(),
    })
}

/// Every guarantee that did not hold, each where it first did not.
pub(super) fn check(facts: &Facts) -> Vec<Violation> {
    let checks: [fn(&Facts) -> Verdict; 16] = [
        lease::k1_tokens_grow_and_fence,
        lease::k1_acknowledged_checkpoints_are_stored,
        lease::k3_checkpoints_never_go_back,
        lease::what_was_prepared_is_found,
        lease::k5_a_tenure_begins_where_the_store_says,
        lease::k12_a_lease_that_is_held_is_not_lost,
        delivery::k2_one_holder_delivers,
        delivery::k5_what_was_checkpointed_is_not_delivered_again,
        delivery::k6_records_come_in_order,
        delivery::k6_children_wait_for_their_parents,
        loss::k4_nothing_is_lost,
        loss::k13_no_stream_is_taken_for_another,
        loss::k13_only_what_is_finished_ends,
        bounds::k7_leases_cover_the_hash_keys,
        bounds::k8_and_k9_takeover_is_quick,
        bounds::everything_comes_to_rest,
    ];
    checks
        .iter()
        .filter_map(|check| check(facts).err())
        .collect()
}

/// The leases as they were at any entry.
#[derive(Default)]
struct Leases<'a>(BTreeMap<&'a LeaseKey, &'a Lease>);

impl<'a> Leases<'a> {
    fn take_in(&mut self, entry: &'a Entry) {
        let What::Lease(Change { before, after, .. }) = &entry.what else {
            return;
        };
        match (before, after) {
            (_, Some(lease)) => {
                self.0.insert(&lease.key, lease);
            }
            (Some(lease), None) => {
                self.0.remove(&lease.key);
            }
            (None, None) => {}
        }
    }

    fn get(&self, key: &LeaseKey) -> Option<&'a Lease> {
        self.0.get(key).copied()
    }
}

impl Facts {
    fn entries(&self) -> impl Iterator<Item = (usize, &Entry)> {
        self.history.entries.iter().enumerate()
    }

    /// The leases that an operator has deleted: nobody can tell their tokens apart from those of their successors.
    fn torn_out(&self) -> BTreeSet<&LeaseKey> {
        let torn = self.changes().filter(|(_, change)| change.verb == TORN_OUT);
        torn.filter_map(|(_, change)| Some(&change.before.as_ref()?.key))
            .collect()
    }

    fn changes(&self) -> impl Iterator<Item = (usize, &Change)> {
        self.entries()
            .filter_map(|(index, entry)| match &entry.what {
                What::Lease(change) => Some((index, change)),
                _ => None,
            })
    }

    /// The stream that is there at an entry.
    fn identity_after<'a>(before: &mut Option<&'a str>, entry: &'a Entry) {
        match &entry.what {
            What::World(Event::StreamCreated { identity }) => *before = Some(identity),
            What::World(Event::StreamDeleted { .. }) => *before = None,
            _ => {}
        }
    }
}

/// A hash key that no lease covers which has not ended.
pub(super) fn gap<'a>(leases: impl Iterator<Item = &'a Lease>) -> Option<HashKey> {
    let open = leases.filter(|lease| lease.checkpoint != Position::ShardEnd);
    let mut ranges: Vec<_> = open
        .filter_map(|lease| lease.hash_key_range)
        .map(|range| (range.start, range.end))
        .collect();
    ranges.sort();
    let mut next = HashKey::MIN;
    for (start, end) in ranges {
        if start > next {
            return Some(next);
        }
        if end == HashKey::MAX {
            return None;
        }
        next = next.max(HashKey(end.0 + 1));
    }
    Some(next)
}
