//! What must happen within a time: K7, K8, K9, and that everything comes to rest.

use super::{Facts, Leases, Verdict, gap, violated};
use crate::lease::{Lease, LeaseKey};
use crate::sim::history::{Change, Entry, Event, Step, What};
use crate::sim::settled::held_by;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// What K8 allows on top of the fail-over time, and K9 altogether.
const K8_MOST: Duration = Duration::from_secs(2);
const K9_MOST: Duration = Duration::from_millis(500);

/// How long takeovers took in calm times.
#[derive(Debug, Clone, Default)]
pub(in crate::sim) struct Takeovers {
    /// From the crash to the first record on another worker, less the fail-over time; negative ones are zero.
    pub(in crate::sim) crashes: Vec<Duration>,
    /// From the release to the take.
    pub(in crate::sim) exits: Vec<Duration>,
}

/// The leases that have not ended cover the hash keys, but for a moment; in calm times holes are closed at once.
pub(super) fn k7_leases_cover_the_hash_keys(facts: &Facts) -> Verdict {
    let mut leases = Leases::default();
    let mut current = None;
    let mut since: Option<Duration> = None;
    let mut bound = None;
    for (index, entry) in facts.entries() {
        leases.take_in(entry);
        Facts::identity_after(&mut current, entry);
        match &entry.what {
            What::World(Event::FaultsBegin) => bound = None,
            What::World(Event::FaultsEnd) => {
                bound = Some(facts.scenario.sync_interval * 3 + SECOND * 10);
            }
            What::World(Event::Calm) => bound = Some(SECOND * 3),
            _ => {}
        }
        if let What::Lease(_) | What::World(_) = &entry.what {
            let is_own = |lease: &&Lease| Some(lease.key.stream.as_str()) == current;
            let own = || leases.0.values().copied().filter(is_own);
            let hole = own().next().and_then(|_| gap(own()));
            let counts = hole.is_some() && bound.is_some();
            since = counts.then(|| since.unwrap_or(entry.at));
        }
        if let (Some(since), Some(bound)) = (since, bound)
            && entry.at > since + bound
        {
            return violated("K7", index, "hash keys are not covered for too long");
        }
    }
    Ok(())
}

fn owner(lease: Option<&Lease>) -> Option<&str> {
    lease?.owner.as_deref()
}

/// In calm times: the shards of a process that died are read on within the fail-over time and 2 s, those of a worker that
/// shut down are taken within 500 ms after they were released, with their last checkpoint; and otherwise nothing moves.
pub(super) fn k8_and_k9_takeover_is_quick(facts: &Facts) -> Verdict {
    takeovers(facts).map(|_| ())
}

/// The times, or the first one that is too long.
pub(in crate::sim) fn takeovers(facts: &Facts) -> Result<Takeovers, super::Violation> {
    let mut takeovers = Takeovers::default();
    let mut leases = Leases::default();
    // Whether it is calm, and nothing has happened since.
    let (mut calm, mut still) = (false, false);
    for (index, entry) in facts.entries() {
        leases.take_in(entry);
        let mut held = |worker: &str| {
            still = false;
            let held = held_by(leases.0.values().copied(), worker);
            open_at(facts, index, held)
        };
        match &entry.what {
            What::World(Event::Calm) => (calm, still) = (true, true),
            What::World(Event::FaultsBegin | Event::FaultsEnd) => (calm, still) = (false, false),
            What::World(Event::Crashed {
                worker, failover, ..
            }) if calm => {
                let times = k8_read_on(facts, index, worker, *failover, held(worker))?;
                takeovers.crashes.extend(times);
            }
            What::World(Event::ShutdownAsked { worker, .. }) if calm => {
                let times = k9_released_and_taken(facts, index, worker, &held(worker))?;
                takeovers.exits.extend(times);
            }
            What::World(Event::Reshard { .. }) => still = false,
            What::Lease(Change { verb, .. }) if *verb == crate::sim::world::TORN_OUT => {
                still = false;
            }
            What::Lease(Change { before, after, .. })
                if still && owner(before.as_ref()) != owner(after.as_ref()) =>
            {
                violated(
                    "balance",
                    index,
                    "a lease moved though all was in its place",
                )?;
            }
            _ => {}
        }
    }
    Ok(takeovers)
}

/// Without the shards that were closed by then: these may have nothing left to deliver.
fn open_at(facts: &Facts, index: usize, held: BTreeSet<LeaseKey>) -> BTreeSet<LeaseKey> {
    let current = facts.kinesis.current();
    let is_open = |key: &LeaseKey| {
        let closed_later = facts
            .entries()
            .skip(index)
            .any(|(_, entry)| match &entry.what {
                What::World(Event::Reshard { closed, .. }) => closed.contains(&key.shard_id),
                _ => false,
            });
        let open = current
            .shard(&key.shard_id)
            .is_some_and(|shard| !shard.shard.closed);
        key.stream == current.identity() && (closed_later || open)
    };
    held.into_iter().filter(is_open).collect()
}

/// What the simulation itself may add: hosts differ by a tick, and by how fast their clocks run.
fn with_slack(facts: &Facts, limit: Duration) -> Duration {
    limit.mul_f64(1.0 + 2.0 * facts.scenario.drift) + facts.scenario.tick * 3
}

fn k8_read_on(
    facts: &Facts,
    index: usize,
    dead: &str,
    failover: Duration,
    mut orphans: BTreeSet<LeaseKey>,
) -> Result<Vec<Duration>, super::Violation> {
    let crashed = facts.history.entries[index].at;
    let limit = with_slack(facts, failover + K8_MOST);
    let mut times = Vec::new();
    for entry in &facts.history.entries[index..] {
        if entry.at > crashed + limit || orphans.is_empty() {
            break;
        }
        if let What::Step {
            tenure,
            step: Step::Began(_),
        } = &entry.what
            && let Some(token) = &facts.history.tenures[*tenure].token
            && token.owner != dead
            && orphans.remove(&token.key)
        {
            times.push(entry.at.saturating_sub(crashed + failover));
        }
    }
    if let Some(key) = orphans.first() {
        let text = format!("{} is not read within {limit:?}", key.shard_id);
        violated("K8", index, text)?;
    }
    Ok(times)
}

fn k9_released_and_taken(
    facts: &Facts,
    index: usize,
    leaver: &str,
    held: &BTreeSet<LeaseKey>,
) -> Result<Vec<Duration>, super::Violation> {
    let limit = with_slack(facts, K9_MOST);
    let mut waiting = held.clone();
    let mut released: BTreeMap<&LeaseKey, Duration> = BTreeMap::new();
    let mut asked: BTreeSet<&LeaseKey> = BTreeSet::new();
    let mut times = Vec::new();
    for (at, entry) in facts.entries().skip(index) {
        if let Some((key, _)) = released
            .iter()
            .find(|(_, since)| entry.at > **since + limit)
        {
            let text = format!(
                "{} is not taken within {limit:?} of its release",
                key.shard_id
            );
            violated("K9", at, text)?;
        }
        match &entry.what {
            What::World(Event::FaultsBegin | Event::FaultsEnd) => break,
            What::World(Event::Ended { worker, .. }) if worker == leaver && !waiting.is_empty() => {
                violated("K9", at, format!("it left without releasing {waiting:?}"))?;
            }
            What::Step {
                tenure,
                step: Step::ShutdownRequested,
            } => {
                let token = facts.history.tenures[*tenure].token.as_ref();
                asked.extend(token.map(|token| &token.key));
            }
            What::Lease(Change {
                verb,
                after: Some(lease),
                ..
            }) if held.contains(&lease.key) => {
                let key = &lease.key;
                if waiting.contains(key) && *verb == "checkpoint" && asked.contains(key) {
                    violated("K9", at, "the last checkpoint came before the release")?;
                }
                match lease.owner.as_deref() {
                    None if waiting.remove(key) => {
                        released.insert(key, entry.at);
                    }
                    Some(owner) if owner != leaver => {
                        // Handed over, or taken after the release.
                        let since = if waiting.remove(key) {
                            Some(entry.at)
                        } else {
                            released.remove(key)
                        };
                        times.extend(since.map(|since| entry.at.saturating_sub(since)));
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
    if let Some(key) = waiting.first() {
        violated("K9", index, format!("{} was never released", key.shard_id))?;
    }
    Ok(times)
}

/// Once nothing fails any more, everything is processed and held within a bound; no worker panics; after all have shut down nobody
/// holds a lease.
pub(super) fn everything_comes_to_rest(facts: &Facts) -> Verdict {
    let mut leases = Leases::default();
    let mut quiet = false;
    for (index, entry) in facts.entries() {
        leases.take_in(entry);
        let Entry {
            what: What::World(event),
            ..
        } = entry
        else {
            continue;
        };
        match event {
            Event::NeverQuiet { why } => violated("liveness", index, why.clone())?,
            Event::Panicked { worker, .. } => {
                violated("panic", index, format!("{worker} panicked"))?;
            }
            Event::Quiet => quiet = true,
            _ => {}
        }
    }
    // The leases of a stream that is gone are nobody's business any more.
    let current = facts.kinesis.current().identity();
    let held = leases
        .0
        .values()
        .filter(|lease| lease.key.stream == current);
    let last = facts.history.entries.len().saturating_sub(1);
    match held.filter(|lease| lease.owner.is_some()).find(|_| quiet) {
        Some(lease) => {
            let text = format!("{} is held by {:?} after the end", lease.key, lease.owner);
            violated("K9", last, text)
        }
        None => Ok(()),
    }
}
