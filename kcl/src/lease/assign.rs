//! Which leases a worker takes and asks for: a pure function of what all workers read from the same rows.
//!
//! Every worker works out the same division of all leases and acts on its own part of it, so workers that plan at the
//! same moment neither compete for a lease nor ask for more than the surplus. Each live worker's quota is the floor or
//! the ceiling of the fair share, as far as workers are not full; the ceilings go to those who have most already, so nothing
//! moves unless that makes two loads that differ by two or more more alike. Once all differ by one at most, leases move only because some
//! shards are much busier than others (`busy`).

mod busy;

use super::expiry::{Expired, Overdue};
use super::{Ask, Claim, ExpiredOwner, Lease, LeaseKey, Snapshot, WorkerRow};
use crate::checkpoint::Position;
#[cfg(test)]
use crate::seeded_bug::{Bug, made};
use busy::{Costs, Even};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The rows.
    pub snapshot: &'a Snapshot,
    /// The stream ([`LeaseKey::stream`]) whose leases count.
    pub stream: &'a str,
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
    let live = live_workers(situation);
    let eligible = eligible_leases(situation);
    let caps = caps(situation, &live);
    let division = Division::new(situation, &eligible, &caps);
    let load = division.loads.get(situation.me).copied().unwrap_or(0);
    let mut room = situation.max_leases.saturating_sub(load);

    let mut mine = division.mine(situation);
    mine.free.truncate(room);
    room -= mine.free.len();
    mine.surplus.truncate(room);
    if room > 0
        && mine.surplus.is_empty()
        && let Some(shift) = division.shift(situation, &caps)
        && shift.to == situation.me
    {
        mine.surplus.push(shift.lease);
    }
    Plan {
        take: mine
            .free
            .iter()
            .map(|lease| claim(lease, situation.expired))
            .collect(),
        ask: mine.surplus.iter().map(|lease| request(lease)).collect(),
        eligible: eligible.len(),
        quota: division.quotas.get(situation.me).copied().unwrap_or(0),
    }
}

/// The leases of the stream that somebody can work on: not ended, and every parent ended or absent (K6). A parent
/// whose row is damaged has not ended.
pub fn eligible_leases<'a>(situation: &Situation<'a>) -> Vec<&'a Lease> {
    let snapshot = situation.snapshot;
    let in_stream = |key: &LeaseKey| key.stream == situation.stream;
    let unfinished = snapshot
        .leases
        .iter()
        .filter(|lease| lease.checkpoint != Position::ShardEnd)
        .map(|lease| &lease.key);
    let blocking: BTreeSet<&str> = unfinished
        .chain(&snapshot.damaged)
        .filter(|key| in_stream(key))
        .map(|key| key.shard_id.as_str())
        .collect();
    #[cfg(test)]
    let blocking = if made(Bug::IgnoreParents) {
        BTreeSet::new()
    } else {
        blocking
    };
    let is_eligible = |lease: &&Lease| {
        lease.checkpoint != Position::ShardEnd
            && !lease
                .parents
                .iter()
                .any(|parent| blocking.contains(parent.as_str()))
    };
    snapshot
        .leases
        .iter()
        .filter(|lease| in_stream(&lease.key))
        .filter(is_eligible)
        .collect()
}

/// The workers that may take leases of the stream. The row of an older version does not say which stream its worker is there for: one that holds leases of
/// another stream only is not counted, and neither waited for nor given a share.
fn live_workers<'a>(situation: &Situation<'a>) -> BTreeSet<&'a str> {
    let (mut here, mut elsewhere) = (BTreeSet::new(), BTreeSet::new());
    for lease in &situation.snapshot.leases {
        if let Some(owner) = lease.owner.as_deref() {
            if lease.key.stream == situation.stream {
                here.insert(owner);
            } else {
                elsewhere.insert(owner);
            }
        }
    }
    let is_here = |row: &&'a WorkerRow| {
        let worker = row.worker_id.as_str();
        let by_its_leases = || here.contains(worker) || !elsewhere.contains(worker);
        let stated = row.profile.stream.as_ref();
        stated.map_or_else(by_its_leases, |stream| stream == situation.stream)
    };
    let rows = situation.snapshot.workers.iter();
    rows.filter(|row| !situation.expired.contains_key(&row.worker_id))
        .filter(is_here)
        .map(|row| row.worker_id.as_str())
        .chain([situation.me])
        .collect()
}

/// The most leases each live worker holds, as far as it says so.
fn caps<'a>(situation: &Situation<'a>, live: &BTreeSet<&'a str>) -> BTreeMap<&'a str, usize> {
    let most = |cap: u64| usize::try_from(cap).unwrap_or(usize::MAX);
    let mut caps: BTreeMap<&str, usize> = live.iter().map(|w| (*w, usize::MAX)).collect();
    for row in &situation.snapshot.workers {
        if let (Some(place), Some(cap)) =
            (caps.get_mut(row.worker_id.as_str()), row.profile.max_leases)
        {
            *place = most(cap);
        }
    }
    caps.insert(situation.me, situation.max_leases);
    caps
}

/// Everybody's loads and quotas, and the leases that are to change hands.
struct Division<'a> {
    /// Leases held or asked for.
    loads: BTreeMap<&'a str, usize>,
    quotas: BTreeMap<&'a str, usize>,
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
        let quotas = quotas(&loads, caps, loads.values().sum::<usize>() + free.len());
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

/// Divides `total` leases as evenly as the caps allow, with the fewest moves.
fn quotas<'a>(
    loads: &BTreeMap<&'a str, usize>,
    caps: &BTreeMap<&'a str, usize>,
    mut total: usize,
) -> BTreeMap<&'a str, usize> {
    let mut quotas = BTreeMap::new();
    let mut workers: Vec<(&str, usize)> = loads.iter().map(|(name, load)| (*name, *load)).collect();
    workers.sort_by_key(|(name, load)| (Reverse(*load), *name));
    // Those who are full below the fair share leave more to the others, which may fill some of them, too.
    loop {
        let share = total / workers.len().max(1);
        let is_full = |worker: &str| caps[worker] <= share;
        let full: Vec<&str> = workers
            .iter()
            .map(|(w, _)| *w)
            .filter(|w| is_full(w))
            .collect();
        if full.is_empty() {
            break;
        }
        for worker in full {
            total -= caps[worker];
            quotas.insert(worker, caps[worker]);
        }
        workers.retain(|(worker, _)| !quotas.contains_key(worker));
    }
    let (floor, remainder) = (total / workers.len().max(1), total % workers.len().max(1));
    let quota = |rank: usize| floor + usize::from(rank < remainder);
    let rest = workers.into_iter().enumerate();
    quotas.extend(rest.map(|(rank, (name, _))| (name, quota(rank))));
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
