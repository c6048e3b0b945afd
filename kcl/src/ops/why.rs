//! Why a shard does not move: one answer in words, from the lease, the workers' heartbeats, what the owner tells, and the endpoint (K10).

use super::lag::{Probed, probe};
use super::leases::{max_leases_of, streams_of};
use super::watch::{Life, Until, Watched, failover_of, watch};
use super::{Operations, arn_of, name_of, readable, rfc3339, span};
use crate::checkpoint::Position;
use crate::client::{KinesisApi, Shard, StreamSummary};
use crate::error::{Error, ErrorKind};
use crate::lease::why::{Standing, why as standing};
use crate::lease::{Lease, LeaseKey, Trouble, WorkerRow};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// What is no further behind than this keeps up.
const KEEPS_UP_MS: u64 = 1_000;
/// How old the next record may be without being called behind, although nothing comes after it.
const OLDEST_MS: u64 = 10_000;

/// Why a shard is where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Why {
    /// The shard.
    pub shard_id: String,
    /// The stream's identity that its lease belongs to, where there is one.
    pub stream: Option<String>,
    /// The answer for scripts.
    pub reason: Reason,
    /// The answer in words.
    pub sentence: String,
    /// What else is worth knowing.
    pub details: Vec<String>,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.shard_id, self.sentence)?;
        for detail in &self.details {
            write!(f, "\n  {detail}")?;
        }
        Ok(())
    }
}

/// The answer for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// There is no stream of that name.
    StreamGone,
    /// The stream was deleted and created anew: the lease belongs to the former one.
    StreamRecreated,
    /// The row of the lease makes no sense.
    DamagedRow,
    /// Neither the endpoint nor the application knows the shard.
    NoSuchShard,
    /// The application has no lease for it.
    NoLease,
    /// Everything in it is done.
    Ended,
    /// Its parents come first.
    WaitsForParents,
    /// Its owner is dead.
    OwnerDead,
    /// Its owner was not heard, and may live.
    OwnerSilent,
    /// Its owner tells what fails.
    Failing,
    /// It is read faster than its limits allow.
    Throttled,
    /// Its records outlived the retention.
    ShardExpired,
    /// Nobody holds it, and no worker runs that could.
    NobodyRuns,
    /// Nobody holds it, and all workers hold as many as they may.
    NoRoom,
    /// Nobody holds it; a worker takes it within moments.
    SoonTaken,
    /// It is behind, and its owner tells of no trouble.
    Behind,
    /// It keeps up.
    KeepingUp,
    /// Its owner lives and tells of no trouble; more is not known, because the endpoint could not be asked.
    Held,
}

/// What the endpoint says.
struct Asked {
    summary: StreamSummary,
    shards: Vec<Shard>,
}

async fn ask(client: &dyn KinesisApi, stream: &str) -> Result<Asked, Error> {
    let summary = client.describe_stream(stream).await?;
    let shards = match client.list_shards(stream).await {
        // A stream that is being created has none yet.
        Err(error) if error.kind() == ErrorKind::Unavailable && summary.status == "CREATING" => {
            Vec::new()
        }
        listed => listed?,
    };
    Ok(Asked { summary, shards })
}

/// Everything that the answer is made from.
struct Facts {
    key: LeaseKey,
    watched: Watched,
    asked: Result<Asked, Error>,
    /// What one read at the checkpoint found.
    probed: Option<Result<Probed, Error>>,
}

type Answer = (Reason, String);

impl Operations {
    /// Why the shard is where it is: one clear answer. `shard` is its id, or the number in it. Heartbeats are listened for until of every worker
    /// it is known whether it lives, for `patience` at most.
    ///
    /// # Errors
    /// `NotFound`: the application has no leases and no stream is named. `Configuration`: it has leases of several streams and none is
    /// named. Others of the store. What the endpoint refuses is part of the answer.
    pub async fn why(&self, shard: &str, patience: Duration) -> Result<Why, Error> {
        let shard_id = full_id(shard);
        let watched = watch(&*self.store, &self.application, Until::AllKnown, patience).await?;
        let stream = self.stream_asked(&watched.last.snapshot)?;
        let client = self.client_for(&stream);
        let asked = match &client {
            Ok(client) => ask(&**client, &stream).await,
            Err(error) => Err(Error::new(error.kind(), error.to_string())),
        };
        let now = asked.as_ref().ok().map(|asked| asked.summary.identity());
        let key = self.key_of(&watched, &shard_id, now.as_deref());
        let mut facts = Facts {
            key,
            watched,
            asked,
            probed: None,
        };
        if let (Ok(client), Ok(asked), Some(lease)) = (&client, &facts.asked, facts.lease())
            && asked.summary.identity() == facts.key.stream
            && asked.shards.iter().any(|shard| shard.shard_id == shard_id)
        {
            let probed = probe(&**client, &stream, &shard_id, lease.checkpoint, 0).await;
            facts.probed = Some(probed);
        }
        let (reason, sentence) = facts.answer(&stream);
        let known = facts.lease().is_some() || now.is_some();
        Ok(Why {
            details: facts.details(),
            shard_id,
            stream: known.then(|| facts.key.stream.clone()),
            reason,
            sentence,
        })
    }

    /// The lease that is meant: of the stream as it is now, else of the latest former one.
    fn key_of(&self, watched: &Watched, shard_id: &str, now: Option<&str>) -> LeaseKey {
        let snapshot = &watched.last.snapshot;
        let leases = snapshot.leases.iter().map(|lease| &lease.key);
        let known: BTreeSet<&str> = leases
            .chain(&snapshot.damaged)
            .filter(|key| key.shard_id == shard_id && self.concerns(&key.stream))
            .map(|key| key.stream.as_str())
            .collect();
        let current = now.filter(|now| known.contains(now) || known.is_empty());
        let stream = current
            .or_else(|| known.last().copied())
            .unwrap_or_default();
        LeaseKey {
            stream: stream.to_owned(),
            shard_id: shard_id.to_owned(),
        }
    }
}

/// A shard's id, of which the number is enough.
fn full_id(shard: &str) -> String {
    match shard.parse::<u64>() {
        Ok(number) => format!("shardId-{number:012}"),
        Err(_) => shard.to_owned(),
    }
}

fn ms(ms: u64) -> String {
    span(Duration::from_millis(ms))
}

impl Facts {
    fn lease(&self) -> Option<&Lease> {
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

    fn answer(&self, stream: &str) -> Answer {
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
            None => (
                Reason::Held,
                format!("worker {owner:?} holds it{since} and tells of no trouble"),
            ),
            Some(Err(error)) if error.kind() == ErrorKind::Throttled => {
                let sentence = format!(
                    "worker {owner:?} holds it{since}; the shard is read faster than its limits allow: {error}"
                );
                (Reason::Throttled, sentence)
            }
            Some(Err(_)) => (
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
        let mut open = vec![self.key.shard_id.as_str()];
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            let children = shards
                .iter()
                .filter(|shard| shard.parents.iter().any(|parent| parent == id));
            for child in children {
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

    /// What else is worth knowing.
    fn details(&self) -> Vec<String> {
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

fn in_trouble(owner: &str, since: &str, trouble: &Trouble) -> Answer {
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
