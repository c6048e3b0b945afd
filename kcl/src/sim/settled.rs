//! Whether everything is in its place: what a fleet must come to once nothing fails any more.

use super::check::gap;
use super::history::short;
use super::kinesis::Put;
use super::scenario::Scenario;
use super::world::{Beginning, World};
use crate::checkpoint::Position;
use crate::config::InitialPosition;
use crate::lease::{Lease, LeaseKey};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Whether the application must see a record, given where it began.
pub(super) fn is_wanted(
    put: &Put,
    initial: InitialPosition,
    beginning: Option<&Beginning>,
    clock_stepped: bool,
) -> bool {
    if put.excused {
        return false;
    }
    match (initial, beginning) {
        (InitialPosition::TrimHorizon, _) => true,
        (InitialPosition::AtTimestamp(ms), _) => put.arrival_ms >= ms,
        (InitialPosition::Latest, None) => false,
        // A position in time means the times that the server stamps: where its clock has gone back, later records may bear
        // earlier times.
        (InitialPosition::Latest, Some(beginning)) => {
            let in_time = beginning.from_ms.is_none_or(|from| put.arrival_ms >= from);
            put.after >= beginning.after && (in_time || !clock_stepped)
        }
    }
}

impl World {
    /// What is not in its place, with the workers and the most leases each may hold: a record older than `fresh` that is not processed, a lease that no worker holds, loads
    /// that differ, a hole in the hash key space.
    pub(super) fn unsettled(
        &self,
        workers: &BTreeMap<String, usize>,
        scenario: &Scenario,
        fresh: Duration,
    ) -> Option<String> {
        if !self.kinesis.exists || self.now < self.kinesis.creating_until {
            return Some("there is no stream".to_owned());
        }
        self.unprocessed(scenario, fresh)
            .or_else(|| self.unheld(workers, fresh))
    }

    fn unprocessed(&self, scenario: &Scenario, fresh: Duration) -> Option<String> {
        let stream = self.kinesis.current();
        let beginning = self.beginnings.get(&stream.identity());
        for shard in &stream.shards {
            let waiting = shard.records.iter().find(|put| {
                put.at + fresh <= self.now
                    && !put.is_in(&self.handled)
                    && is_wanted(put, scenario.initial, beginning, self.clock_stepped)
            });
            if let Some(put) = waiting {
                let shard = short(&shard.shard.shard_id);
                return Some(format!(
                    "record {} of {shard} is not processed",
                    put.sequence
                ));
            }
        }
        None
    }

    fn unheld(&self, workers: &BTreeMap<String, usize>, fresh: Duration) -> Option<String> {
        let stream = self.kinesis.current();
        let identity = stream.identity();
        let own: BTreeMap<&str, &Lease> = self
            .leases
            .values()
            .filter(|lease| lease.key.stream == identity)
            .map(|lease| (lease.key.shard_id.as_str(), lease))
            .collect();
        if own.is_empty() {
            return Some("there are no leases".to_owned());
        }
        if let Some(hole) = gap(own.values().copied()) {
            return Some(format!("no lease covers {hole}"));
        }
        let ended = |id: &String| {
            own.get(id.as_str())
                .is_none_or(|lease| lease.checkpoint == Position::ShardEnd)
        };
        let mut loads: BTreeMap<&str, usize> =
            workers.keys().map(|worker| (worker.as_str(), 0)).collect();
        for lease in own
            .values()
            .filter(|lease| lease.checkpoint != Position::ShardEnd)
        {
            let id = &lease.key.shard_id;
            let closed = stream.shard(id).is_some_and(|shard| shard.shard.closed);
            if closed && fresh.is_zero() {
                return Some(format!("closed shard {} has not ended", short(id)));
            }
            if !lease.parents.iter().all(ended) {
                continue;
            }
            let load = lease
                .owner
                .as_deref()
                .and_then(|owner| loads.get_mut(owner));
            match load {
                Some(load) => *load += 1,
                None => return Some(format!("{} is held by {:?}", short(id), lease.owner)),
            }
        }
        // A full worker may have less than the others.
        let room = |(worker, load): &(&&str, &usize)| **load < workers[**worker];
        let least = loads.iter().filter(room).map(|(_, load)| load).min()?;
        let most = loads.values().max()?;
        (most - least > 1).then(|| format!("the loads are {loads:?}"))
    }
}

/// The leases that a worker holds and that have not ended.
pub(super) fn held_by<'a>(
    leases: impl Iterator<Item = &'a Lease>,
    worker: &str,
) -> BTreeSet<LeaseKey> {
    leases
        .filter(|lease| lease.owner.as_deref() == Some(worker))
        .map(|lease| lease.key.clone())
        .collect()
}
