//! Which leases a worker takes and asks for: a pure function of what all workers read from the same rows.
//!
//! Every worker works out the same division of all leases and acts on its own part of it, so workers that plan at the
//! same moment neither compete for a lease nor ask for more than the surplus. Each live worker's quota is the floor or
//! the ceiling of the fair share, as far as workers are not full; the ceilings go to those who have most already, so nothing
//! moves unless that makes two loads that differ by two or more more alike. Once all differ by one at most, leases move only because some
//! shards are much busier than others (`busy`).
//!
//! Where workers are there for different streams, the leases of all streams that the same workers serve are divided together, pool by pool; each
//! pool makes up for what the ones before it gave its workers.

mod busy;
mod pools;

use super::expiry::{Expired, Overdue};
use super::{Ask, Claim, ExpiredOwner, Lease, LeaseKey, Snapshot};
use busy::{Costs, Even};
use pools::Given;
pub use pools::eligible_leases;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The rows.
    pub snapshot: &'a Snapshot,
    /// The streams ([`LeaseKey::stream`]) that the planning worker serves.
    pub streams: &'a BTreeSet<String>,
    /// The planning worker's id. It counts as alive whatever the observer says.
    pub me: &'a str,
    /// The workers that have stopped, from [`Observer::expired`](super::expiry::Observer::expired).
    pub expired: &'a Expired,
    /// Leases nobody came for, from [`Observer::overdue`](super::expiry::Observer::overdue).
    pub overdue: &'a Overdue,
    /// Workers that have lately won or lost leases, from [`Observer::unsettled`](super::expiry::Observer::unsettled).
    pub unsettled: &'a BTreeSet<String>,
    /// The most leases the planning worker may hold.
    pub max_leases: usize,
}

/// What a worker does next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Leases to take now.
    pub take: Vec<Claim>,
    /// Leases to ask their owners for.
    pub ask: Vec<Ask>,
    /// How many leases are to be divided: those that have not ended and whose parents have.
    pub eligible: usize,
    /// The planning worker's quota of them.
    pub quota: usize,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.take.is_empty() && self.ask.is_empty()
    }
}

/// Plans one worker's next moves.
pub fn plan(situation: &Situation<'_>) -> Plan {
    let pools = pools::pools(situation);
    let mut given = Given::default();
    let mut plan = Plan::default();
    let held: usize = pools.iter().map(|pool| pool.held_by(situation.me)).sum();
    let mut room = situation.max_leases.saturating_sub(held);
    for pool in &pools {
        let caps = caps(situation, &pool.workers, &given);
        let division = Division::new(situation, &pool.leases, &caps, &given);
        if pool.workers.contains(situation.me) {
            let mut mine = division.mine(situation);
            mine.free.truncate(room);
            room -= mine.free.len();
            mine.surplus.truncate(room);
            room -= mine.surplus.len();
            if room > 0
                && mine.surplus.is_empty()
                && let Some(shift) = division.shift(situation, &caps)
                && shift.to == situation.me
            {
                mine.surplus.push(shift.lease);
                room -= 1;
            }
            let claims = mine
                .free
                .iter()
                .map(|lease| claim(lease, situation.expired));
            plan.take.extend(claims);
            plan.ask
                .extend(mine.surplus.iter().map(|lease| request(lease)));
            plan.eligible += pool.leases.len();
            plan.quota += division.quotas.get(situation.me).copied().unwrap_or(0);
        }
        given.add(&division.quotas);
    }
    plan
}

/// The most leases of the pool that each of its workers holds, as far as it says so.
fn caps<'a>(
    situation: &Situation<'a>,
    workers: &BTreeSet<&'a str>,
    given: &Given<'a>,
) -> BTreeMap<&'a str, usize> {
    let rows = situation.snapshot.workers.iter();
    let stated: BTreeMap<&str, u64> = rows
        .filter_map(|row| Some((row.worker_id.as_str(), row.profile.max_leases?)))
        .collect();
    let cap = |worker: &'a str| {
        let most = match stated.get(worker) {
            _ if worker == situation.me => situation.max_leases,
            Some(cap) => usize::try_from(*cap).unwrap_or(usize::MAX),
            None => usize::MAX,
        };
        (worker, most.saturating_sub(given.to(worker)))
    };
    workers.iter().map(|worker| cap(worker)).collect()
}

/// Everybody's loads and quotas, and the leases that are to change hands.
struct Division<'a> {
    /// Leases held or asked for.
    loads: BTreeMap<&'a str, usize>,
    quotas: BTreeMap<&'a str, usize>,
    /// What earlier pools gave the workers.
    bases: BTreeMap<&'a str, usize>,
    free: Vec<&'a Lease>,
    surplus: Vec<&'a Lease>,
    /// The leases of each live worker, those it gave away in its mind included; `None` while one waits for its asker.
    held: Option<BTreeMap<&'a str, Vec<&'a Lease>>>,
    costs: Costs<'a>,
}

/// What one worker is meant to get.
struct Share<'a> {
    free: Vec<&'a Lease>,
    surplus: Vec<&'a Lease>,
}

impl<'a> Division<'a> {
    /// Leases of an owner that has no row and may still believe it holds them are nobody's for now.
    fn new(
        situation: &Situation<'a>,
        eligible: &[&'a Lease],
        caps: &BTreeMap<&'a str, usize>,
        given: &Given<'a>,
    ) -> Self {
        let expired = situation.expired;
        let costs = Costs::new(situation, eligible);
        let mut loads: BTreeMap<&str, usize> = caps.keys().map(|worker| (*worker, 0)).collect();
        let mut movable: BTreeMap<&str, Vec<&Lease>> =
            caps.keys().map(|worker| (*worker, Vec::new())).collect();
        let mut free = Vec::new();
        let mut waiting = false;
        for lease in eligible.iter().copied() {
            let live = |worker: &&str| loads.contains_key(worker);
            let holder = match lease.owner.as_deref() {
                Some(owner) if loads.contains_key(owner) => owner,
                Some(owner) if !expired.contains_key(owner) => continue,
                Some(_) | None => {
                    free.push(lease);
                    continue;
                }
            };
            let asker = lease
                .wanted_by
                .as_deref()
                .filter(live)
                .filter(|asker| *asker != holder);
            waiting |= asker.is_some();
            if asker.is_none() {
                movable.entry(holder).or_default().push(lease);
            }
            *loads.entry(asker.unwrap_or(holder)).or_default() += 1;
        }
        let bases: BTreeMap<&str, usize> = caps.keys().map(|w| (*w, given.to(w))).collect();
        let total = loads.values().sum::<usize>() + free.len();
        let quotas = quotas(&loads, &bases, caps, total);
        let surplus: Vec<&Lease> = movable
            .iter()
            .flat_map(|(owner, leases)| {
                let excess = loads[owner].saturating_sub(quotas[owner]);
                if excess == 0 {
                    return Vec::new();
                }
                let mut leases = leases.clone();
                // The same ones whoever plans.
                costs.give_up_order(owner, &mut leases);
                leases.truncate(excess);
                leases
            })
            .collect();
        let even = !waiting && free.is_empty() && surplus.is_empty();
        Division {
            loads,
            quotas,
            bases,
            free,
            surplus,
            held: even.then_some(movable),
            costs,
        }
    }

    /// The lease that is to move because its owner has too much to do.
    fn shift(
        &self,
        situation: &Situation<'a>,
        caps: &BTreeMap<&'a str, usize>,
    ) -> Option<busy::Shift<'a>> {
        let even = Even {
            held: self.held.as_ref()?,
            unsettled: situation.unsettled,
            caps,
        };
        busy::shift(&self.costs, &even)
    }

    /// The planning worker's part: what everybody lacks is filled with free leases first, then with surplus.
    fn mine(&self, situation: &Situation<'_>) -> Share<'a> {
        let lack = |worker: &str| self.quotas[worker].saturating_sub(self.loads[worker]);
        let mut lacks: BTreeMap<&str, usize> = self
            .loads
            .keys()
            .map(|worker| (*worker, lack(worker)))
            .collect();
        let free = distribute(&self.free, &mut lacks);
        let surplus = distribute(&self.surplus, &mut lacks);
        let of_me = |shares: &[(&'a str, &'a Lease)]| -> Vec<&'a Lease> {
            let part = shares.iter().filter(|(worker, _)| *worker == situation.me);
            part.map(|(_, lease)| *lease).collect()
        };
        let mut share = Share {
            free: of_me(&free),
            surplus: of_me(&surplus),
        };
        share.free.extend(self.left_over(situation, &free));
        share
    }

    /// My part of the leases nobody came for: whoever they were meant for is full or has just died. They go to the
    /// other workers by load, beyond quotas: a lease is never left free because everybody has their share. Nobody knows
    /// who is full, so the longer a lease waits, the more workers may try: 1, 2, 4 and so on.
    fn left_over(
        &self,
        situation: &Situation<'_>,
        free: &[(&'a str, &'a Lease)],
    ) -> Vec<&'a Lease> {
        let missed: Vec<(&str, &Lease, u32)> = free
            .iter()
            .filter(|(worker, _)| *worker != situation.me)
            .filter_map(|(worker, lease)| {
                Some((*worker, *lease, *situation.overdue.get(&lease.key)?))
            })
            .collect();
        let mut loads = self.loads.clone();
        for (worker, load) in &mut loads {
            *load += self.bases[worker];
        }
        loads.retain(|worker, _| missed.iter().all(|(absent, _, _)| absent != worker));
        for (worker, _) in free {
            loads.entry(worker).and_modify(|load| *load += 1);
        }
        let mut mine = Vec::new();
        for (_, lease, waits) in missed {
            let mut candidates: Vec<(&str, usize)> = loads
                .iter()
                .map(|(worker, load)| (*worker, *load))
                .collect();
            candidates.sort_by_key(|(worker, load)| (*load, Reverse(weight(worker, &lease.key))));
            let tries = 1usize
                .checked_shl(waits.saturating_sub(1))
                .unwrap_or(usize::MAX);
            if candidates
                .iter()
                .take(tries)
                .any(|(worker, _)| *worker == situation.me)
            {
                mine.push(lease);
            }
            if let Some((first, _)) = candidates.first() {
                loads.entry(first).and_modify(|load| *load += 1);
            }
        }
        mine
    }
}

/// Divides `total` leases so that all, with what they were given before, have as even a number as the caps allow, with the fewest moves.
fn quotas<'a>(
    loads: &BTreeMap<&'a str, usize>,
    bases: &BTreeMap<&'a str, usize>,
    caps: &BTreeMap<&'a str, usize>,
    total: usize,
) -> BTreeMap<&'a str, usize> {
    let fill = |worker: &str, level: usize| level.saturating_sub(bases[worker]).min(caps[worker]);
    let needed = |level: usize| {
        let each = loads.keys().map(|worker| fill(worker, level));
        each.fold(0, usize::saturating_add)
    };
    // The highest level to which all can be filled; it is below `high`.
    let (mut low, mut high) = (0, bases.values().max().copied().unwrap_or(0) + total + 1);
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if needed(middle) <= total {
            low = middle;
        } else {
            high = middle;
        }
    }
    let mut quotas: BTreeMap<&str, usize> = loads.keys().map(|w| (*w, fill(w, low))).collect();
    // What is left goes to those who have most already.
    let mut next: Vec<&str> = loads.keys().copied().collect();
    next.retain(|worker| fill(worker, low) < fill(worker, low + 1));
    next.sort_by_key(|worker| (Reverse(loads[worker] + bases[worker]), *worker));
    for worker in next.into_iter().take(total - needed(low).min(total)) {
        quotas.entry(worker).and_modify(|quota| *quota += 1);
    }
    quotas
}

/// Gives each lease to the worker it suits best among those that still lack some.
fn distribute<'a>(
    leases: &[&'a Lease],
    lacks: &mut BTreeMap<&'a str, usize>,
) -> Vec<(&'a str, &'a Lease)> {
    let mut shares = Vec::with_capacity(leases.len());
    for lease in leases {
        let best = lacks
            .iter_mut()
            .filter(|(_, lack)| **lack > 0)
            .max_by_key(|(worker, _)| weight(worker, &lease.key));
        let Some((worker, lack)) = best else { break };
        *lack -= 1;
        shares.push((*worker, *lease));
    }
    shares
}

/// How well a lease suits a worker: rendezvous hashing. Every version and every process must agree on it.
fn weight(worker: &str, key: &LeaseKey) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = [worker, "\0", &key.stream, "\0", &key.shard_id];
    let fnv = bytes
        .iter()
        .flat_map(|part| part.bytes())
        .fold(OFFSET, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(PRIME)
        });
    // The end of MurmurHash3: spreads what the last bytes changed over all bits.
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

fn claim(lease: &Lease, expired: &Expired) -> Claim {
    let observed = |owner: &String| ExpiredOwner {
        worker_id: owner.clone(),
        heartbeat: expired.get(owner).copied().flatten(),
    };
    Claim {
        key: lease.key.clone(),
        counter: lease.counter,
        expired: lease.owner.as_ref().map(observed),
    }
}

/// Surplus has no living asker: one that is noted is dead and may be replaced.
fn request(lease: &Lease) -> Ask {
    Ask {
        key: lease.key.clone(),
        counter: lease.counter,
        replace_wanted_by: lease.wanted_by.clone(),
    }
}

#[cfg(test)]
mod tests;
