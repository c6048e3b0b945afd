//! What must happen within a time: K7, K8, K9, and that everything comes to rest.

use super::{Facts, Leases, Verdict, gap, violated};
use crate::lease::LeaseKey;
use crate::sim::history::{Event, Step, What};
use crate::sim::settled::held_by;
use std::collections::BTreeSet;
use std::time::Duration;

/// The leases that have not ended cover the hash keys, but for a moment.
pub(super) fn k7_leases_cover_the_hash_keys(facts: &Facts) -> Verdict {
    let bound = facts.scenario.sync_interval * 3 + Duration::from_secs(10);
    let mut leases = Leases::default();
    let mut current = None;
    let mut since: Option<Duration> = None;
    let mut faulty = false;
    for (index, entry) in facts.entries() {
        leases.take_in(entry);
        Facts::identity_after(&mut current, entry);
        match &entry.what {
            What::World(Event::FaultsBegin) => faulty = true,
            What::World(Event::FaultsEnd) => faulty = false,
            _ => {}
        }
        if let What::Lease(_) | What::World(_) = &entry.what {
            let own = || {
                leases
                    .0
                    .values()
                    .copied()
                    .filter(|lease| Some(lease.key.stream.as_str()) == current)
            };
            let hole = (own().count() > 0).then(|| gap(own())).flatten();
            since = if hole.is_some() && !faulty {
                since.or(Some(entry.at))
            } else {
                None
            };
        }
        if since.is_some_and(|since| entry.at > since + bound) {
            return violated("K7", index, "hash keys are not covered for too long");
        }
    }
    Ok(())
}

/// In calm times: the shards of a process that died are read on within the fail-over time and 2 s, those of a worker that
/// shut down are taken within 500 ms after they were released, with their last checkpoint.
pub(super) fn k8_and_k9_takeover_is_quick(facts: &Facts) -> Verdict {
    let mut leases = Leases::default();
    let mut calm = false;
    for (index, entry) in facts.entries() {
        leases.take_in(entry);
        match &entry.what {
            What::World(Event::Calm) => calm = true,
            What::World(Event::FaultsBegin | Event::FaultsEnd) => calm = false,
            What::World(Event::Crashed { worker, .. }) if calm => {
                let held = held_by(leases.0.values().copied(), worker);
                k8_read_on(facts, index, worker, open_at(facts, index, held))?;
            }
            What::World(Event::ShutdownAsked { worker, .. }) if calm => {
                let held = held_by(leases.0.values().copied(), worker);
                k9_released_and_taken(facts, index, worker, &open_at(facts, index, held))?;
            }
            What::Lease(change) if calm => {
                let owners = |lease: &Option<crate::lease::Lease>| {
                    lease.as_ref().and_then(|l| l.owner.clone())
                };
                let moved = owners(&change.before) != owners(&change.after);
                if moved
                    && change.verb == "take"
                    && owners(&change.before).is_some()
                    && !trouble_since_calm(facts, index)
                {
                    return violated(
                        "balance",
                        index,
                        "a lease moved though all was in its place",
                    );
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether anything has happened to the hosts since it became calm.
fn trouble_since_calm(facts: &Facts, index: usize) -> bool {
    facts.history.entries[..index]
        .iter()
        .rev()
        .take_while(|entry| !matches!(entry.what, What::World(Event::Calm)))
        .any(|entry| {
            matches!(
                entry.what,
                What::World(
                    Event::Crashed { .. } | Event::ShutdownAsked { .. } | Event::Reshard { .. }
                )
            )
        })
}

/// Without the shards that were closed by then: these may have nothing left to deliver.
fn open_at(facts: &Facts, index: usize, held: BTreeSet<LeaseKey>) -> BTreeSet<LeaseKey> {
    let current = facts.kinesis.current();
    let is_open = |key: &LeaseKey| {
        let closed_later = facts.entries().any(|(at, entry)| match &entry.what {
            What::World(Event::Reshard { closed, .. }) => {
                at > index && closed.contains(&key.shard_id)
            }
            _ => false,
        });
        let shard = current.shard(&key.shard_id);
        key.stream == current.identity()
            && (closed_later || shard.is_some_and(|shard| !shard.shard.closed))
    };
    held.into_iter().filter(is_open).collect()
}

fn slack(facts: &Facts) -> Duration {
    facts.scenario.tick * 3
}

fn k8_read_on(facts: &Facts, index: usize, dead: &str, mut orphans: BTreeSet<LeaseKey>) -> Verdict {
    let crashed = facts.history.entries[index].at;
    let limit = facts.scenario.failover.mul_f64(1.0 + facts.scenario.drift)
        + Duration::from_secs(2)
        + slack(facts);
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
        {
            orphans.remove(&token.key);
        }
    }
    match orphans.first() {
        None => Ok(()),
        Some(key) => violated(
            "K8",
            index,
            format!("{} is not read within {limit:?}", key.shard_id),
        ),
    }
}

fn k9_released_and_taken(
    facts: &Facts,
    index: usize,
    leaver: &str,
    held: &BTreeSet<LeaseKey>,
) -> Verdict {
    let limit = Duration::from_millis(500).mul_f64(1.0 + facts.scenario.drift) + slack(facts);
    let mut waiting = held.clone();
    let mut released: Vec<(&LeaseKey, Duration)> = Vec::new();
    for (at, entry) in facts.entries().skip(index) {
        match &entry.what {
            What::World(Event::FaultsBegin | Event::FaultsEnd) => break,
            What::World(Event::Ended { worker, .. }) if worker == leaver && !waiting.is_empty() => {
                return violated("K9", at, format!("it left without releasing {waiting:?}"));
            }
            What::Lease(change) => {
                let Some(lease) = change
                    .after
                    .as_ref()
                    .filter(|lease| held.contains(&lease.key))
                else {
                    continue;
                };
                if waiting.contains(&lease.key)
                    && change.verb == "checkpoint"
                    && asked_before(facts, index, at, &lease.key)
                {
                    return violated("K9", at, "the last checkpoint came before the release");
                }
                if lease.owner.is_none() && waiting.remove(&lease.key) {
                    released.push((&lease.key, entry.at));
                } else if lease.owner.as_deref().is_some_and(|owner| owner != leaver) {
                    waiting.remove(&lease.key);
                    released.retain(|(key, _)| **key != lease.key);
                }
            }
            _ => {}
        }
        if let Some((key, _)) = released.iter().find(|(_, since)| entry.at > *since + limit) {
            let text = format!(
                "{} is not taken within {limit:?} of its release",
                key.shard_id
            );
            return violated("K9", at, text);
        }
    }
    match waiting.first() {
        Some(key) => violated("K9", index, format!("{} was never released", key.shard_id)),
        None => Ok(()),
    }
}

/// Whether the shard's processor was told to shut down between two entries.
fn asked_before(facts: &Facts, from: usize, to: usize, key: &LeaseKey) -> bool {
    facts.history.entries[from..to]
        .iter()
        .any(|entry| match &entry.what {
            What::Step {
                tenure,
                step: Step::ShutdownRequested,
            } => {
                let token = facts.history.tenures[*tenure].token.as_ref();
                token.is_some_and(|token| token.key == *key)
            }
            _ => false,
        })
}

/// Once nothing fails any more, everything is processed and held within a bound; no worker panics; after all have shut down nobody
/// holds a lease.
pub(super) fn everything_comes_to_rest(facts: &Facts) -> Verdict {
    let mut leases = Leases::default();
    let mut quiet = false;
    for (index, entry) in facts.entries() {
        leases.take_in(entry);
        match &entry.what {
            What::World(Event::NeverQuiet { why }) => {
                return violated("liveness", index, why.clone());
            }
            What::World(Event::Panicked { worker, .. }) => {
                return violated("panic", index, format!("{worker} panicked"));
            }
            What::World(Event::Quiet) => quiet = true,
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
