//! Which leases are divided among which workers: the leases of all streams that the same live workers serve are one pool.
//!
//! Every worker works out the same pools in the same order: those that few workers share come first, so that the others make up for them.

use super::Situation;
use crate::checkpoint::Position;
use crate::lease::{Lease, LeaseKey, WorkerRow};
#[cfg(test)]
use crate::seeded_bug::{Bug, made};
use std::collections::{BTreeMap, BTreeSet};

/// Leases, and the workers that share them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pool<'a> {
    pub(super) workers: BTreeSet<&'a str>,
    pub(super) leases: Vec<&'a Lease>,
}

impl Pool<'_> {
    /// How many of the leases the worker holds or asks for.
    pub(super) fn held_by(&self, worker: &str) -> usize {
        let has = |lease: &&&Lease| match (&lease.owner, &lease.wanted_by) {
            (Some(_), Some(asker)) if self.workers.contains(asker.as_str()) => asker == worker,
            (Some(owner), _) => owner == worker,
            (None, _) => false,
        };
        self.leases.iter().filter(has).count()
    }
}

/// How many leases of earlier pools each worker is meant to have.
#[derive(Debug, Default)]
pub(super) struct Given<'a>(BTreeMap<&'a str, usize>);

impl<'a> Given<'a> {
    pub(super) fn to(&self, worker: &str) -> usize {
        self.0.get(worker).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, quotas: &BTreeMap<&'a str, usize>) {
        for (worker, quota) in quotas {
            *self.0.entry(worker).or_default() += quota;
        }
    }
}

/// All pools, those of streams that the planning worker does not serve included.
pub(super) fn pools<'a>(situation: &Situation<'a>) -> Vec<Pool<'a>> {
    let live = LiveWorkers::of(situation);
    let mut of_stream: BTreeMap<&str, Vec<&Lease>> = BTreeMap::new();
    for lease in eligible_leases(situation) {
        of_stream.entry(&lease.key.stream).or_default().push(lease);
    }
    let mut pools: BTreeMap<BTreeSet<&str>, Vec<&Lease>> = BTreeMap::new();
    for (stream, leases) in of_stream {
        let workers = live.of_stream(stream);
        if !workers.is_empty() {
            pools.entry(workers).or_default().extend(leases);
        }
    }
    let pool = |(workers, leases)| Pool { workers, leases };
    let mut pools: Vec<Pool<'_>> = pools.into_iter().map(pool).collect();
    pools.sort_by_key(|pool| pool.workers.len());
    pools
}

/// The leases that somebody can work on: not ended, and every parent ended or absent (K6). A parent whose row is damaged has not
/// ended.
pub fn eligible_leases<'a>(situation: &Situation<'a>) -> Vec<&'a Lease> {
    let snapshot = situation.snapshot;
    let unfinished = snapshot
        .leases
        .iter()
        .filter(|lease| lease.checkpoint != Position::ShardEnd)
        .map(|lease| &lease.key);
    let place = |key: &'a LeaseKey| (key.stream.as_str(), key.shard_id.as_str());
    let blocking: BTreeSet<(&str, &str)> = unfinished.chain(&snapshot.damaged).map(place).collect();
    #[cfg(test)]
    let blocking = if made(Bug::IgnoreParents) {
        BTreeSet::new()
    } else {
        blocking
    };
    let is_eligible = |lease: &&Lease| {
        let is_blocking =
            |parent: &String| blocking.contains(&(lease.key.stream.as_str(), parent.as_str()));
        lease.checkpoint != Position::ShardEnd && !lease.parents.iter().any(is_blocking)
    };
    snapshot.leases.iter().filter(is_eligible).collect()
}

/// The workers that have not stopped, with the streams they serve.
struct LiveWorkers<'a> {
    situation: Situation<'a>,
    rows: Vec<&'a WorkerRow>,
    /// The streams that each worker holds leases of.
    held: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> LiveWorkers<'a> {
    fn of(situation: &Situation<'a>) -> Self {
        let mut held: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for lease in &situation.snapshot.leases {
            if let Some(owner) = lease.owner.as_deref() {
                held.entry(owner).or_default().insert(&lease.key.stream);
            }
        }
        let expired = |row: &&WorkerRow| situation.expired.contains_key(&row.worker_id);
        let rows = situation.snapshot.workers.iter();
        LiveWorkers {
            situation: *situation,
            rows: rows.filter(|row| !expired(row)).collect(),
            held,
        }
    }

    /// The workers that may take leases of the stream. The row of an older version does not say which streams its worker is there for: one that holds leases of
    /// other streams only is not counted, and neither waited for nor given a share.
    fn of_stream(&self, stream: &str) -> BTreeSet<&'a str> {
        let me = self.situation.me;
        let serves = |row: &&&WorkerRow| {
            if let Some(streams) = &row.profile.streams {
                return streams.contains(stream);
            }
            let held = self.held.get(row.worker_id.as_str());
            held.is_none_or(|held| held.contains(stream))
        };
        let others = self.rows.iter().filter(|row| row.worker_id != me);
        let mut workers: BTreeSet<&str> = others
            .filter(serves)
            .map(|row| row.worker_id.as_str())
            .collect();
        if self.situation.streams.contains(stream) {
            workers.insert(me);
        }
        workers
    }
}
