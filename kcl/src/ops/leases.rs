//! Every lease of an application and every worker, in words.

use super::watch::{Life, Until, Watched, failover_of, watch};
use super::{Operations, arn_of, name_of, readable, rfc3339, span};
use crate::checkpoint::Position;
use crate::error::Error;
use crate::lease::{Lease, WorkerRow};
use serde::Serialize;
use std::time::Duration;

/// The leases and workers of an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeaseReport {
    /// The application.
    pub application: String,
    /// Its leases, ended ones included, in order of streams and shards.
    pub leases: Vec<LeaseLine>,
    /// Leases whose rows make no sense, `stream identity/shard`: nobody takes them until they are repaired or deleted.
    pub damaged: Vec<String>,
    /// Its registered workers, in order of their ids.
    pub workers: Vec<WorkerLine>,
}

/// One lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeaseLine {
    /// The stream's identity: `ARN@creation-milliseconds`.
    pub stream: String,
    /// The stream's name.
    pub stream_name: String,
    /// The shard.
    pub shard_id: String,
    /// Worker that holds it.
    pub owner: Option<String>,
    /// Since when, RFC 3339, by the clock of the database.
    pub owned_since: Option<String>,
    /// The fencing token.
    pub counter: u64,
    /// How far the application has got, as it is stored.
    pub checkpoint: String,
    /// The same for people.
    pub checkpoint_readable: String,
    /// A prepared checkpoint, as it is stored.
    pub pending: Option<String>,
    /// Worker that asks for it.
    pub wanted_by: Option<String>,
    /// Shards that must have ended first.
    pub parents: Vec<String>,
    /// The first hash key of the shard.
    pub hash_range_start: Option<String>,
    /// The last one.
    pub hash_range_end: Option<String>,
    /// Whether everything in the shard is done.
    pub ended: bool,
    /// Changes of owner since the lease was created.
    pub owner_switches: u64,
    /// What troubles the shard, by the account of its owner.
    pub trouble: Option<String>,
}

/// Whether a worker lives, as far as its heartbeats tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// A heartbeat was heard.
    Alive,
    /// None was heard yet.
    Silent,
    /// None was heard for its fail-over time.
    Dead,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkerLine {
    /// Its id.
    pub worker_id: String,
    /// Whether it lives.
    pub state: WorkerState,
    /// How long ago its last heartbeat was heard; for one that was not heard, for how long it was listened for. Milliseconds.
    pub last_heard_ms: u64,
    /// Its fail-over time, milliseconds.
    pub failover_ms: u64,
    /// The most leases that it takes, if it has a limit.
    pub max_leases: Option<u64>,
    /// The names of the streams that it processes.
    pub streams: Vec<String>,
    /// How many leases it holds.
    pub leases: usize,
}

impl WorkerLine {
    /// Its last sign of life for people.
    pub fn last_heard(&self) -> String {
        let time = span(Duration::from_millis(self.last_heard_ms));
        match self.state {
            WorkerState::Alive => format!("{time} ago"),
            WorkerState::Silent => format!("not within {time}, it may live"),
            WorkerState::Dead => format!("not within {time}, it is dead"),
        }
    }
}

/// The identities of the streams that a worker processes.
pub(super) fn streams_of(row: &WorkerRow) -> Vec<String> {
    row.profile.streams.iter().flatten().cloned().collect()
}

/// The most leases of a worker, if it has a limit: `i64::MAX` is what a column holds of none.
pub(super) fn max_leases_of(row: &WorkerRow) -> Option<u64> {
    row.profile
        .max_leases
        .filter(|most| *most < i64::MAX.unsigned_abs())
}

impl Operations {
    /// Every lease and every worker. Heartbeats are listened for until all workers were heard, for `patience` at most: a worker
    /// sends three within its fail-over time.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn leases(&self, patience: Duration) -> Result<LeaseReport, Error> {
        let watched = watch(&*self.store, &self.application, Until::AllKnown, patience).await?;
        let snapshot = &watched.last.snapshot;
        let leases = snapshot.leases.iter();
        let concerned = leases.filter(|lease| self.concerns(&lease.key.stream));
        let damaged = snapshot.damaged.iter();
        let damaged = damaged.filter(|key| self.concerns(&key.stream));
        Ok(LeaseReport {
            application: self.application.clone(),
            leases: concerned.map(|lease| line(&watched, lease)).collect(),
            damaged: damaged.map(ToString::to_string).collect(),
            workers: snapshot
                .workers
                .iter()
                .map(|row| worker(&watched, row))
                .collect(),
        })
    }
}

fn line(watched: &Watched, lease: &Lease) -> LeaseLine {
    let looked = &watched.last;
    let since = looked.owned_since_ms.get(&lease.key);
    let owner = lease.owner.as_deref();
    let trouble = owner.and_then(|owner| looked.trouble(owner, &lease.key));
    let range = lease.hash_key_range;
    LeaseLine {
        stream: lease.key.stream.clone(),
        stream_name: name_of(arn_of(&lease.key.stream)).to_owned(),
        shard_id: lease.key.shard_id.clone(),
        owner: lease.owner.clone(),
        owned_since: since.map(|ms| rfc3339(*ms)),
        counter: lease.counter,
        checkpoint: lease.checkpoint.to_string(),
        checkpoint_readable: readable(&lease.checkpoint),
        pending: lease
            .pending
            .as_ref()
            .map(|pending| pending.position.to_string()),
        wanted_by: lease.wanted_by.clone(),
        parents: lease.parents.clone(),
        hash_range_start: range.map(|range| range.start.to_string()),
        hash_range_end: range.map(|range| range.end.to_string()),
        ended: lease.checkpoint == Position::ShardEnd,
        owner_switches: lease.owner_switches,
        trouble: trouble.map(|trouble| trouble.what.clone()),
    }
}

fn worker(watched: &Watched, row: &WorkerRow) -> WorkerLine {
    let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let (state, heard) = match watched.life(&row.worker_id) {
        Life::Heard { ago } => (WorkerState::Alive, ago),
        Life::Silent { so_far } => (WorkerState::Silent, so_far),
        Life::Dead { so_far } => (WorkerState::Dead, so_far),
    };
    let leases = watched.last.snapshot.leases.iter();
    let held = leases.filter(|lease| lease.owner.as_ref() == Some(&row.worker_id));
    let streams = streams_of(row);
    WorkerLine {
        worker_id: row.worker_id.clone(),
        state,
        last_heard_ms: ms(heard),
        failover_ms: ms(failover_of(row)),
        max_leases: max_leases_of(row),
        streams: streams
            .iter()
            .map(|one| name_of(arn_of(one)).to_owned())
            .collect(),
        leases: held.count(),
    }
}
