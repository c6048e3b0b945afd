//! Which lease moves because its owner has more to do than others: by throughput and lag, where the numbers of leases are even already.
//!
//! Hysteresis, so that nothing swings: only the busiest of the workers that have lately neither won nor lost a lease gives one
//! up, one at a time in the whole fleet, if it has a quarter more to do than the average, and only if the busier of the two workers is better off
//! by a tenth of the average afterwards. Every move lowers the larger of two loads, so with steady loads the moves come to an end.

use super::{Situation, weight};
use crate::lease::{Lease, Load, Loads};
use std::collections::{BTreeMap, BTreeSet};

/// Total throughput below which it is no reason to move anything, bytes per second.
const NOTABLE_BYTES_PER_SECOND: u64 = 256 * 1024;
/// Lag below which a shard counts as keeping up, milliseconds.
const NOTABLE_LAG_MS: u64 = 10_000;
/// Lag beyond which more makes no difference, milliseconds.
const GREATEST_LAG_MS: u64 = 600_000;
/// All of a kind of work, in parts.
const WHOLE: u64 = 1_000_000;

/// How much of the fleet's work each lease is. In integers, so that every worker works out the same.
#[derive(Debug, Default)]
pub(super) struct Costs<'a> {
    /// By stream and shard.
    loads: BTreeMap<(&'a str, &'a str), Load>,
    bytes: u64,
    lag: u64,
}

fn lag(load: Load) -> u64 {
    match load.behind_ms {
        behind if behind < NOTABLE_LAG_MS => 0,
        behind => behind.min(GREATEST_LAG_MS),
    }
}

fn place(lease: &Lease) -> (&str, &str) {
    (&lease.key.stream, &lease.key.shard_id)
}

impl<'a> Costs<'a> {
    /// What the owners of the leases say of them.
    pub(super) fn new(situation: &Situation<'a>, eligible: &[&'a Lease]) -> Self {
        let rows = situation.snapshot.workers.iter();
        let told: BTreeMap<&str, &Loads> = rows
            .map(|row| (row.worker_id.as_str(), &row.loads))
            .collect();
        let mut costs = Costs::default();
        for lease in eligible {
            let owner = lease.owner.as_deref().and_then(|owner| told.get(owner));
            let told = owner.and_then(|loads| loads.get(&lease.key.stream));
            if let Some(load) = told.and_then(|loads| loads.get(&lease.key.shard_id)) {
                costs.bytes = costs.bytes.saturating_add(load.bytes_per_second);
                costs.lag = costs.lag.saturating_add(lag(*load));
                costs.loads.insert(place(lease), *load);
            }
        }
        if costs.bytes < NOTABLE_BYTES_PER_SECOND {
            costs.bytes = 0;
        }
        costs
    }

    /// The lease's part of the throughput and of the lag, in millionths of each.
    pub(super) fn of(&self, lease: &Lease) -> u64 {
        let Some(load) = self.loads.get(&place(lease)) else {
            return 0;
        };
        let part = |amount: u64, whole: u64| {
            let parts = u128::from(amount) * u128::from(WHOLE);
            u64::try_from(parts.checked_div(u128::from(whole)).unwrap_or(0)).unwrap_or(WHOLE)
        };
        part(load.bytes_per_second, self.bytes) + part(lag(*load), self.lag)
    }

    fn is_idle(&self) -> bool {
        self.bytes == 0 && self.lag == 0
    }

    /// The order in which a worker gives leases up: the lightest first, then those that suit it least.
    pub(super) fn give_up_order(&self, owner: &str, leases: &mut [&'a Lease]) {
        leases.sort_by_cached_key(|lease| (self.of(lease), weight(owner, &lease.key), &lease.key));
    }
}

/// Who holds what, where the numbers are even and nobody waits for a lease.
#[derive(Debug)]
pub(super) struct Even<'a, 'b> {
    pub(super) held: &'b BTreeMap<&'a str, Vec<&'a Lease>>,
    /// Workers that have lately won or lost a lease: what their load is, is not known yet.
    pub(super) unsettled: &'b BTreeSet<String>,
    /// The most leases each worker holds.
    pub(super) caps: &'b BTreeMap<&'a str, usize>,
}

/// A lease that is to go from the busiest worker to the least busy one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shift<'a> {
    pub(super) lease: &'a Lease,
    pub(super) to: &'a str,
}

/// The next lease to move, if any.
pub(super) fn shift<'a>(costs: &Costs<'a>, even: &Even<'a, '_>) -> Option<Shift<'a>> {
    if costs.is_idle() || even.held.len() < 2 {
        return None;
    }
    let load = |leases: &[&Lease]| leases.iter().map(|lease| costs.of(lease)).sum::<u64>();
    let loads: BTreeMap<&str, u64> = even.held.iter().map(|(w, l)| (*w, load(l))).collect();
    let average = loads.values().sum::<u64>() / u64::try_from(loads.len()).unwrap_or(u64::MAX);
    let settled = || {
        let known = loads.iter().map(|(worker, load)| (*worker, *load));
        known.filter(|(worker, _)| !even.unsettled.contains(*worker))
    };
    let (busiest, most) = settled().max_by_key(|(worker, load)| (*load, *worker))?;
    let has_room = |worker: &str| even.held[worker].len() < even.caps[worker];
    let (idlest, least) = settled()
        .filter(|(worker, _)| has_room(worker))
        .min_by_key(|(worker, load)| (*load, *worker))?;
    if busiest == idlest || most <= average + average / 4 {
        return None;
    }
    let back = in_return(costs, even, busiest, idlest);
    let returned = back.map_or(0, |lease| costs.of(lease));
    let candidates = even.held[busiest].iter().copied();
    let after = |lease: &Lease| {
        let cost = costs.of(lease);
        let (from, to) = (most - cost + returned, least + cost - returned);
        from.max(to)
    };
    let best = candidates.min_by_key(|lease| (after(lease), &lease.key))?;
    (after(best) + average / 10 <= most).then_some(Shift {
        lease: best,
        to: idlest,
    })
}

/// The lease that the numbers will send the other way, where the idlest holds no fewer than the busiest.
fn in_return<'a>(
    costs: &Costs<'a>,
    even: &Even<'a, '_>,
    busiest: &str,
    idlest: &str,
) -> Option<&'a Lease> {
    let mut theirs = even.held[idlest].clone();
    if theirs.len() < even.held[busiest].len() {
        return None;
    }
    costs.give_up_order(idlest, &mut theirs);
    theirs.first().copied()
}
