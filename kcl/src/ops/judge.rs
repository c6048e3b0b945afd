//! One answer from everything that is known about a shard: its lease, the workers' heartbeats, what its owner tells, and the endpoint.

use super::lag::Probed;
use super::leases::{max_leases_of, streams_of};
use super::watch::{Life, Watched, failover_of};
use super::why::Reason;
use super::{arn_of, name_of, readable, rfc3339, span};
use crate::checkpoint::Position;
use crate::client::{Shard, StreamSummary};
use crate::error::{Error, ErrorKind};
use crate::lease::why::{Standing, why as standing};
use crate::lease::{Lease, LeaseKey, Trouble, WorkerRow};
use std::collections::BTreeSet;
use std::time::Duration;

/// What is no further behind than this keeps up.
const KEEPS_UP_MS: u64 = 1_000;
/// How old the next record may be without being called behind, although nothing comes after it.
const OLDEST_MS: u64 = 10_000;

/// What the endpoint says.
pub(super) struct Asked {
    pub(super) summary: StreamSummary,
    pub(super) shards: Vec<Shard>,
}

/// Everything that the answer is made from.
pub(super) struct Facts {
    pub(super) key: LeaseKey,
    pub(super) watched: Watched,
    pub(super) asked: Result<Asked, Error>,
    /// What one read at the checkpoint found.
    pub(super) probed: Option<Result<Probed, Error>>,
}

pub(super) type Answer = (Reason, String);

fn ms(ms: u64) -> String {
    span(Duration::from_millis(ms))
}

impl Facts {
    pub(super) fn lease(&self) -> Option<&Lease> {
        let leases = &self.watched.last.snapshot.leases;
        leases.iter().find(|lease| lease.key == self.key)
    }

    fn shard(&self) -> Option<&Shard> {
        let asked = self.asked.as_ref().ok()?;
        asked
            .shards
            .iter()
            .find(|shard| shard.shard_id == self.key.shard_id)
    }

    /// Whether the endpoint lists the stream and not the shard.
    fn is_unlisted(&self) -> bool {
        self.asked
            .as_ref()
            .is_ok_and(|asked| !asked.shards.is_empty())
            && self.shard().is_none()
    }

    pub(super) fn answer(&self, stream: &str) -> Answer {
        match &self.asked {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let sentence = format!(
                    "stream {stream} does not exist at this endpoint: its leases mean nothing, and workers end; check the endpoint, or create the stream"
                );
                return (Reason::StreamGone, sentence);
            }
            Ok(asked) if asked.summary.identity() != self.key.stream => {
                let created = |identity: &str| {
                    let at = identity
                        .rsplit_once('@')
                        .and_then(|(_, ms)| ms.parse().ok());
                    at.map_or_else(|| "at an unknown time".to_owned(), rfc3339)
                };
                let sentence = format!(
                    "stream {} was deleted and created anew: the lease belongs to the one created {}, now there is one created {}; start the workers again to begin with it",
                    name_of(arn_of(&self.key.stream)),
                    created(&self.key.stream),
                    created(&asked.summary.identity()),
                );
                return (Reason::StreamRecreated, sentence);
            }
            _ => {}
        }
        match standing(&self.watched.last.snapshot, &self.key) {
            Standing::Ended => {
                let sentence = "everything in it is done".to_owned();
                (Reason::Ended, sentence)
            }
            Standing::Damaged => {
                let sentence = "the row of its lease is damaged, and nobody takes it until the row is repaired or deleted; the log of every worker says what is wrong with it".to_owned();
                (Reason::DamagedRow, sentence)
            }
            Standing::Held { owner, .. } => self.held(&owner),
            Standing::WaitsForParents { parents } => {
                let clauses: Vec<String> =
                    parents.iter().map(|parent| self.clause(parent)).collect();
                let sentence = format!(
                    "it begins when its parents have ended: {}",
                    clauses.join("; ")
                );
                (Reason::WaitsForParents, sentence)
            }
            Standing::Free { .. } => self.free(),
            Standing::Unknown => self.without_lease(),
        }
    }

    /// A parent in a few words.
    fn clause(&self, shard_id: &str) -> String {
        let key = LeaseKey {
            stream: self.key.stream.clone(),
            shard_id: shard_id.to_owned(),
        };
        let words = match standing(&self.watched.last.snapshot, &key) {
            Standing::Held { owner, .. } => {
                let trouble = self.watched.last.trouble(&owner, &key);
                match (self.watched.life(&owner), trouble) {
                    (Life::Dead { .. }, _) => format!("its worker {owner:?} is dead"),
                    (_, Some(trouble)) => format!(
                        "worker {owner:?} holds it, in trouble for {}: {}",
                        ms(trouble.for_ms),
                        trouble.what
                    ),
                    (_, None) => format!("worker {owner:?} is at work on it"),
                }
            }
            other => other.to_string(),
        };
        format!("{shard_id} ({words})")
    }

    fn held(&self, owner: &str) -> Answer {
        let looked = &self.watched.last;
        let since = looked.owned_since_ms.get(&self.key);
        let since = since.map_or_else(String::new, |ms| format!(" since {}", rfc3339(*ms)));
        match self.watched.life(owner) {
            Life::Dead { so_far } => return self.owner_dead(owner, &since, so_far),
            Life::Silent { so_far } => {
                let sentence = format!(
                    "worker {owner:?} holds it{since} and was not heard within {}: it may live; listen for longer to know",
                    span(so_far)
                );
                return (Reason::OwnerSilent, sentence);
            }
            Life::Heard { .. } => {}
        }
        if let Some(trouble) = looked.trouble(owner, &self.key) {
            return in_trouble(owner, &since, trouble);
        }
        if self.is_unlisted() {
            let sentence = format!(
                "its records outlived the retention before they were done: it is not listed any more; worker {owner:?} holds it{since} and ends it as soon as its children are listed"
            );
            return (Reason::ShardExpired, sentence);
        }
        match &self.probed {
            Some(Err(error)) if error.kind() == ErrorKind::Throttled => {
                let sentence = format!(
                    "worker {owner:?} holds it{since}; the shard is read faster than its limits allow: {error}"
                );
                (Reason::Throttled, sentence)
            }
            None | Some(Err(_)) => (
                Reason::Held,
                format!("worker {owner:?} holds it{since} and tells of no trouble"),
            ),
            Some(Ok(probed)) => self.progress(owner, &since, *probed),
        }
    }

    fn owner_dead(&self, owner: &str, since: &str, so_far: Duration) -> Answer {
        let row = self
            .watched
            .last
            .snapshot
            .workers
            .iter()
            .find(|row| row.worker_id == owner);
        let how = match row {
            Some(row) => format!(
                "was not heard within {}, its fail-over time is {}",
                span(so_far),
                span(failover_of(row))
            ),
            None => "has no row any more".to_owned(),
        };
        let takers: Vec<&str> = self.takers().map(|row| row.worker_id.as_str()).collect();
        let heirs = if takers.is_empty() {
            "no other worker runs: start one".to_owned()
        } else {
            format!("{} may take it over", takers.join(", "))
        };
        let sentence = format!("its owner {owner:?}{since} is dead: it {how}; {heirs}");
        (Reason::OwnerDead, sentence)
    }

    fn progress(&self, owner: &str, since: &str, probed: Probed) -> Answer {
        let asked = self.asked.as_ref().ok();
        let now = asked.map_or(0, |asked| asked.summary.server_time_ms);
        let waited = probed
            .oldest_ms
            .map_or(0, |oldest| now.saturating_sub(oldest));
        if probed.behind_ms <= KEEPS_UP_MS && waited <= OLDEST_MS {
            let sentence = format!("worker {owner:?} holds it{since} and keeps up");
            return (Reason::KeepingUp, sentence);
        }
        let before = &self.watched.first.snapshot.leases;
        let before = before.iter().find(|lease| lease.key == self.key);
        let moved =
            before.map(|lease| lease.checkpoint) != self.lease().map(|lease| lease.checkpoint);
        let pace = if moved {
            "its checkpoint moved while it was watched: it is working off what it is behind"
        } else {
            "its checkpoint did not move while it was watched: a batch is in work, or its processor does not checkpoint"
        };
        let sentence = format!(
            "worker {owner:?} holds it{since}, tells of no trouble, and is {} behind; {pace}",
            ms(probed.behind_ms.max(waited))
        );
        (Reason::Behind, sentence)
    }

    /// Workers that live, or may live, and process the stream.
    fn takers(&self) -> impl Iterator<Item = &WorkerRow> {
        self.watched.may_live().filter(|row| {
            let streams = streams_of(row);
            streams.is_empty() || streams.contains(&self.key.stream)
        })
    }

    fn free(&self) -> Answer {
        if self.is_unlisted() {
            let sentence = "its records outlived the retention before they were done: it is not listed any more; whoever takes it ends it as soon as its children are listed".to_owned();
            return (Reason::ShardExpired, sentence);
        }
        let takers: Vec<&WorkerRow> = self.takers().collect();
        if takers.is_empty() {
            let rows = self.watched.last.snapshot.workers.len();
            let sentence = match (rows, self.watched.may_live().count()) {
                (0, _) => "nobody holds it: no worker is running, start one".to_owned(),
                (rows, 0) => {
                    format!("nobody holds it: all {rows} registered workers are dead, start one")
                }
                (_, living) => format!(
                    "nobody holds it: {living} workers run, for other streams; start one for this stream"
                ),
            };
            return (Reason::NobodyRuns, sentence);
        }
        let leases = &self.watched.last.snapshot.leases;
        let is_full = |row: &&WorkerRow| {
            let held = leases
                .iter()
                .filter(|lease| lease.owner.as_ref() == Some(&row.worker_id));
            let held = u64::try_from(held.count()).unwrap_or(u64::MAX);
            max_leases_of(row).is_some_and(|most| held >= most)
        };
        let names: Vec<&str> = takers.iter().map(|row| row.worker_id.as_str()).collect();
        let names = names.join(", ");
        if takers.iter().all(is_full) {
            let sentence = format!(
                "nobody holds it: each running worker ({names}) holds as many leases as it may; raise max_leases, or start another worker"
            );
            return (Reason::NoRoom, sentence);
        }
        (
            Reason::SoonTaken,
            format!(
                "nobody holds it now; one of the running workers ({names}) takes it within moments"
            ),
        )
    }

    fn without_lease(&self) -> Answer {
        let Some(shard) = self.shard() else {
            let sentence = match &self.asked {
                Ok(asked) => format!(
                    "there is no such shard: the application has no lease for it, and stream {} does not list it",
                    asked.summary.name
                ),
                Err(_) => "the application has no lease for it".to_owned(),
            };
            let reason = if self.asked.is_ok() {
                Reason::NoSuchShard
            } else {
                Reason::NoLease
            };
            return (reason, sentence);
        };
        let sentence = if self.has_leased_descendant() {
            "it has no lease and needs none: it was done with, or closed before the application began; shards that came of it have leases"
        } else if self.watched.may_live().next().is_none() {
            "it has no lease, because no worker runs: a worker makes one when it starts"
        } else if shard.closed {
            "it has no lease: it closed before the place where the application began, or a worker makes one with its next listing of the shards"
        } else {
            "it has no lease yet: a worker makes one with its next listing of the shards, every 30 s by default"
        };
        (Reason::NoLease, sentence.to_owned())
    }

    fn has_leased_descendant(&self) -> bool {
        let shards = self.asked.as_ref().map_or(&[][..], |asked| &asked.shards);
        let leases = &self.watched.last.snapshot.leases;
        let is_leased = |id: &str| {
            leases
                .iter()
                .any(|lease| lease.key.stream == self.key.stream && lease.key.shard_id == id)
        };
        needs_none(shards, &self.key.shard_id, is_leased)
    }

    /// What else is worth knowing.
    pub(super) fn details(&self) -> Vec<String> {
        let mut details = Vec::new();
        if let Some(lease) = self.lease() {
            details.push(format!("checkpoint: {}", readable(&lease.checkpoint)));
            if let Some(asker) = &lease.wanted_by {
                details.push(format!("worker {asker:?} has asked for it"));
            }
            if let Some(pending) = &lease.pending {
                details.push(format!(
                    "a checkpoint is prepared: {}",
                    readable(&pending.position)
                ));
            }
            if let Some(load) = self.load(lease) {
                details.push(load);
            }
        }
        if let Some(Ok(probed)) = &self.probed
            && let Some(oldest) = probed.oldest_ms
            && self
                .lease()
                .is_some_and(|lease| lease.checkpoint != Position::ShardEnd)
        {
            let behind = ms(probed.behind_ms);
            details.push(format!(
                "the next record arrived {}; the tip of the shard is {behind} further",
                rfc3339(oldest)
            ));
        }
        match (&self.asked, &self.probed) {
            (Err(error), _) => details.push(format!("the endpoint could not be asked: {error}")),
            (_, Some(Err(error))) => details.push(format!("the shard could not be read: {error}")),
            _ => {}
        }
        details
    }

    /// How busy the shard is, by the account of its owner.
    fn load(&self, lease: &Lease) -> Option<String> {
        let owner = lease.owner.as_deref()?;
        let workers = &self.watched.last.snapshot.workers;
        let row = workers.iter().find(|row| row.worker_id == owner)?;
        let load = row.loads.get(&lease.key.stream)?.get(&lease.key.shard_id)?;
        Some(format!(
            "lately {} KiB/s were processed",
            load.bytes_per_second / 1024
        ))
    }
}

/// Whether a shard needs no lease although it has none: shards that came of it have leases, so it was done with, or closed before the application
/// began.
pub(super) fn needs_none(
    shards: &[Shard],
    shard_id: &str,
    is_leased: impl Fn(&str) -> bool,
) -> bool {
    let mut open = vec![shard_id];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        let is_child = |shard: &&Shard| shard.parents.iter().any(|parent| parent == id);
        for child in shards.iter().filter(is_child) {
            if is_leased(&child.shard_id) {
                return true;
            }
            if seen.insert(child.shard_id.as_str()) {
                open.push(&child.shard_id);
            }
        }
    }
    false
}

pub(super) fn in_trouble(owner: &str, since: &str, trouble: &Trouble) -> Answer {
    let Trouble { what, for_ms, .. } = trouble;
    let reason = if what.contains("ThroughputExceeded") {
        Reason::Throttled
    } else {
        Reason::Failing
    };
    let sentence = format!(
        "worker {owner:?} holds it{since} and has been in trouble for {}: it is {what}",
        ms(*for_ms)
    );
    (reason, sentence)
}
