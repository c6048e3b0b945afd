//! Resets: the only thing that lowers a checkpoint (K3). What one comes to is a pure function of what is stored; a store applies
//! it in one transaction and keeps a note of it.

use super::rules;
use super::{Lease, LeaseKey, NewLease, Snapshot};
use crate::checkpoint::Position;
use crate::error::{Error, ErrorKind};
use std::collections::{BTreeMap, BTreeSet};

/// Notes of resets that a store keeps for an application: the latest.
pub const RESETS_KEPT: u32 = if cfg!(test) { 20 } else { 1_000 };

/// A wish to put leases elsewhere, with what must hold for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reset {
    /// Who asks for it, for the note.
    pub by: String,
    /// What is asked for, in words, for the note.
    pub asked: String,
    /// When it may happen.
    pub condition: ResetCondition,
    /// The stream ([`LeaseKey::stream`]) that it is about as a whole: it fails if that has a lease which is not among `starts`.
    pub whole_stream: Option<String>,
    /// Where each shard is to start; `ShardEnd` ends it. A lease that is not there is created.
    pub starts: Vec<NewLease>,
}

/// When a reset may happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResetCondition {
    /// Every registered worker is one of these and has the heartbeat observed: it has not lived since.
    NobodyLives {
        /// Heartbeats by worker.
        silent: BTreeMap<String, u64>,
    },
    /// Whoever lives loses the leases, and begins again where they are put.
    Forced,
    /// The application has no leases.
    NoLeases,
}

/// What a reset did to one lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetChange {
    /// The shard.
    pub key: LeaseKey,
    /// Where it was; `None` for a lease that was created.
    pub from: Option<Position>,
    /// Where it is.
    pub to: Position,
    /// Who held it.
    pub taken_from: Option<String>,
}

/// The note of a reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetNote {
    /// Counts the resets of the application.
    pub number: u64,
    /// When, milliseconds since 1970 by the clock of the database; a store in memory goes by the process's.
    pub at_ms: u64,
    /// Who asked for it.
    pub by: String,
    /// What was asked for.
    pub asked: String,
    /// What it did.
    pub changes: Vec<ResetChange>,
}

/// What a reset comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) create: Vec<Lease>,
    /// Leases before and after.
    pub(crate) replace: Vec<(Lease, Lease)>,
    pub(crate) changes: Vec<ResetChange>,
}

impl Reset {
    /// The leases named.
    pub(crate) fn keys(&self) -> BTreeSet<LeaseKey> {
        self.starts.iter().map(|start| start.key.clone()).collect()
    }

    /// What it does to what is stored. A lease that is where it is to be, and that nobody holds, is left alone.
    pub(crate) fn plan(&self, application: &str, stored: &Snapshot) -> Result<Planned, Error> {
        self.allowed(application, stored)?;
        let starts: BTreeMap<&LeaseKey, &NewLease> = self
            .starts
            .iter()
            .map(|start| (&start.key, start))
            .collect();
        if let Some(damaged) = stored.damaged.iter().find(|key| starts.contains_key(key)) {
            return Err(Error::new(
                ErrorKind::Store,
                format!(
                    "the row of lease {damaged} is damaged: repair or delete it, then reset again; nothing was changed"
                ),
            ));
        }
        let leases: BTreeMap<&LeaseKey, &Lease> = stored
            .leases
            .iter()
            .map(|lease| (&lease.key, lease))
            .collect();
        let of_stream = |key: &LeaseKey| self.whole_stream.as_ref() == Some(&key.stream);
        let mut present = leases.keys().copied().chain(&stored.damaged);
        if let Some(new) = present.find(|key| of_stream(key) && !starts.contains_key(key)) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "lease {new} came while the reset was planned; nothing was changed, try again"
                ),
            ));
        }
        let mut planned = Planned::default();
        for (key, start) in starts {
            match leases.get(key) {
                None if start.checkpoint == Position::ShardEnd => continue,
                None => planned.create.push(rules::create(start)),
                Some(lease) => match rules::reset(lease, start.checkpoint) {
                    Some(after) => planned.replace.push(((*lease).clone(), after)),
                    None => continue,
                },
            }
            planned.changes.push(ResetChange {
                key: key.clone(),
                from: leases.get(key).map(|lease| lease.checkpoint),
                to: start.checkpoint,
                taken_from: leases.get(key).and_then(|lease| lease.owner.clone()),
            });
        }
        Ok(planned)
    }

    fn allowed(&self, application: &str, stored: &Snapshot) -> Result<(), Error> {
        let refused = |message: String| Err(Error::new(ErrorKind::InUse, message));
        match &self.condition {
            ResetCondition::Forced => Ok(()),
            ResetCondition::NobodyLives { silent } => {
                let lives =
                    |row: &&super::WorkerRow| silent.get(&row.worker_id) != Some(&row.heartbeat);
                match stored.workers.iter().find(lives) {
                    None => Ok(()),
                    Some(row) => refused(format!(
                        "worker {:?} of application {application:?} is at work: stop the workers first, or force the reset, which takes their leases away; nothing was changed",
                        row.worker_id
                    )),
                }
            }
            ResetCondition::NoLeases if stored.leases.is_empty() && stored.damaged.is_empty() => {
                Ok(())
            }
            ResetCondition::NoLeases => refused(format!(
                "application {application:?} has leases already: choose another name, or reset that application; nothing was changed"
            )),
        }
    }
}

/// The column `changes`.
pub(in crate::lease) fn changes_text(changes: &[ResetChange]) -> String {
    let entry = |change: &ResetChange| {
        let from = change.from.map(|from| from.to_string());
        let to = change.to.to_string();
        (
            change.key.stream.clone(),
            change.key.shard_id.clone(),
            from,
            to,
            change.taken_from.clone(),
        )
    };
    let entries: Vec<_> = changes.iter().map(entry).collect();
    serde_json::json!(entries).to_string()
}

/// What the column `changes` says; an entry that makes no sense is left out.
pub(in crate::lease) fn changes_of(text: &str) -> Vec<ResetChange> {
    let entries: Vec<serde_json::Value> = serde_json::from_str(text).unwrap_or_default();
    let change = |entry: serde_json::Value| {
        type Entry = (String, String, Option<String>, String, Option<String>);
        let (stream, shard_id, from, to, taken_from): Entry = serde_json::from_value(entry).ok()?;
        Some(ResetChange {
            key: LeaseKey { stream, shard_id },
            from: from.and_then(|from| from.parse().ok()),
            to: to.parse().ok()?,
            taken_from,
        })
    };
    entries.into_iter().filter_map(change).collect()
}
