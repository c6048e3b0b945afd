//! Leases: who processes which shard, and how far it has got.
//!
//! Invariants (design note 0002): the counter strictly increases and every change is one conditional
//! transaction (K1); a checkpoint never moves back and `SHARD_END` is final (K3); a failed write leaves
//! everything as it was (K11); a repeated write whose first reply was lost succeeds (K12).

pub mod assign;
pub mod audit;
#[cfg(test)]
mod contract;
pub mod expiry;
#[cfg(feature = "_fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod glance;
mod inspect;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
pub(crate) mod renew;
mod reset;
mod rules;
mod sql;
mod sqlite;
mod transaction;
pub mod why;
mod worker;

use crate::checkpoint::Position;
use crate::error::Error;
use async_trait::async_trait;
use millstream_wire::HashKeyRange;
use std::fmt;

pub use glance::{Glance, Mark};
pub use inspect::{Inspection, TROUBLE_MAX_CHARS, TROUBLES_MAX, Trouble};
pub use memory::MemoryLeaseStore;
#[cfg(feature = "postgres")]
pub use postgres::PostgresLeaseStore;
pub use reset::{RESETS_KEPT, Reset, ResetChange, ResetCondition, ResetNote};
pub use sqlite::SqliteLeaseStore;
pub use transaction::{CheckpointStep, LeaseDatabase};
pub use worker::{Load, Loads, Registration, WorkerProfile, WorkerRow};

/// What a lease is about: a shard of one incarnation of a stream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    /// `ARN@creation-milliseconds` (K13).
    pub stream: String,
    /// The shard's id.
    pub shard_id: String,
}

impl fmt::Display for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.shard_id)
    }
}

/// One row: a shard, its owner and its checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The shard.
    pub key: LeaseKey,
    /// Worker that holds it, if any.
    pub owner: Option<String>,
    /// Fencing token: grows at every change of owner.
    pub counter: u64,
    /// Worker that asks for it, if any.
    pub wanted_by: Option<String>,
    /// How far the application has got.
    pub checkpoint: Position,
    /// A checkpoint in the first of its two phases.
    pub pending: Option<PendingCheckpoint>,
    /// Changes of owner since the lease was created.
    pub owner_switches: u64,
    /// Shards that must have ended first.
    pub parents: Vec<String>,
    /// The shard's share of the hash key space, where known.
    pub hash_key_range: Option<HashKeyRange>,
}

/// A prepared checkpoint, and what the application needs to finish or undo its part.
#[derive(Clone, PartialEq, Eq)]
pub struct PendingCheckpoint {
    /// Where the shard is to be checkpointed.
    pub position: Position,
    /// The application's own; at most 65,536 bytes.
    pub state: Vec<u8>,
}

impl fmt::Debug for PendingCheckpoint {
    /// Leaves the state out: logs never carry data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingCheckpoint")
            .field("position", &self.position)
            .field("state_bytes", &self.state.len())
            .finish()
    }
}

/// A lease to be created, unowned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLease {
    /// The shard.
    pub key: LeaseKey,
    /// Where to start.
    pub checkpoint: Position,
    /// Shards that must have ended first.
    pub parents: Vec<String>,
    /// The shard's share of the hash key space, where known.
    pub hash_key_range: Option<HashKeyRange>,
}

/// Proof of tenure: the owner and the counter it was given.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LeaseToken {
    /// The shard.
    pub key: LeaseKey,
    /// The holder's worker id.
    pub owner: String,
    /// The counter of this tenure.
    pub counter: u64,
}

/// A wish to take one lease, with what was observed; it fails if anything of that has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The shard.
    pub key: LeaseKey,
    /// The counter observed.
    pub counter: u64,
    /// For an expired lease: the owner and its heartbeat as observed (`None`: the owner has no row).
    pub expired: Option<ExpiredOwner>,
}

/// The owner of an expired lease, as observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiredOwner {
    /// The owner's worker id.
    pub worker_id: String,
    /// Its heartbeat, `None` if it has no row.
    pub heartbeat: Option<u64>,
}

/// Everything a worker plans from, read in one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// All leases of the application, ended ones included, ordered by key.
    pub leases: Vec<Lease>,
    /// All registered workers, ordered by id.
    pub workers: Vec<WorkerRow>,
    /// Leases whose rows make no sense (K10). They are never handed out, and because nobody can tell whether their
    /// shards have ended, they hold back their children (K6). Each is logged with what is wrong with it.
    pub damaged: Vec<LeaseKey>,
}

/// Where leases live. Every method is one transaction that happens wholly or not at all; a call that
/// returns an error with [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) may or may not have
/// happened and can be repeated.
///
/// `application` is the application name: one store serves many applications.
///
/// # Errors
/// Beside those that stand with a method: `Unavailable` if the store is busy or out of reach, `Store` if it cannot be used (a schema that is newer, a
/// damaged row, no permission to write).
///
/// # Cancel safety
/// A call whose future is dropped may or may not have happened, wholly or not at all, and can be repeated.
#[async_trait]
pub trait LeaseStore: Send + Sync + fmt::Debug + 'static {
    /// Registers a worker. Whatever an earlier run under this id still holds is released (K1: with new counters),
    /// what it asked for is withdrawn, and that run's next heartbeat fails. The heartbeat of a new row starts anywhere,
    /// so that nobody mistakes it for the one of an earlier run.
    async fn register(
        &self,
        application: &str,
        worker_id: &str,
        profile: &WorkerProfile,
    ) -> Result<Registration, Error>;

    /// Stores what a worker says of itself now, in the place of what it said before.
    ///
    /// # Errors
    /// `WorkerReplaced` when another run registered under this id or its row was removed.
    async fn announce(
        &self,
        application: &str,
        worker: &Registration,
        profile: &WorkerProfile,
    ) -> Result<(), Error>;

    /// Renews every lease of the worker by moving its heartbeat on by one, and notes how busy its shards are and what troubles them.
    ///
    /// # Errors
    /// `WorkerReplaced` when another run registered under this id or its row was removed.
    async fn heartbeat(
        &self,
        application: &str,
        worker: &Registration,
        loads: &Loads,
        troubles: &[Trouble],
    ) -> Result<(), Error>;

    /// Removes a worker's row, releases whatever it holds and withdraws what it asked for. Nothing happens for a
    /// replaced incarnation.
    async fn deregister(&self, application: &str, worker: &Registration) -> Result<(), Error>;

    /// Removes the rows of dead workers that hold nothing, if their heartbeats are still as observed.
    async fn forget_workers(&self, application: &str, dead: &[WorkerRow]) -> Result<(), Error>;

    /// Leases and workers.
    async fn snapshot(&self, application: &str) -> Result<Snapshot, Error>;

    /// The same for a worker that looks again and again: only what has changed since the look that gave `seen`. A store that cannot tell gives everything, as this
    /// does.
    async fn glance(&self, application: &str, _seen: Option<&Mark>) -> Result<Glance, Error> {
        let snapshot = self.snapshot(application).await?;
        Ok(Glance::Changed {
            mark: None,
            snapshot,
        })
    }

    /// One lease as it is now; `None` if there is none or its row is damaged.
    async fn lease(&self, application: &str, key: &LeaseKey) -> Result<Option<Lease>, Error>;

    /// Creates the leases that do not exist; says how many were created.
    async fn create_leases(&self, application: &str, leases: &[NewLease]) -> Result<usize, Error>;

    /// Takes leases that are free, or expired as claimed, and returns those it got, with their new counters.
    /// A lease at `SHARD_END`, or with a parent lease that is not there yet (K6), is never taken. A lease that a repeated
    /// call finds taken by its first try counts as taken (K12).
    ///
    /// # Errors
    /// `WorkerReplaced` if the registration is not current: two runs under one id must not share tokens.
    async fn take(
        &self,
        application: &str,
        worker: &Registration,
        claims: &[Claim],
    ) -> Result<Vec<Lease>, Error>;

    /// Asks the owners of leases to hand them over; says how many were asked. A request of another worker that still stands is left,
    /// unless `replace_wanted_by` names it (a dead asker). A request holds until the lease changes owner.
    ///
    /// # Errors
    /// `WorkerReplaced` if the registration is not current.
    async fn ask(
        &self,
        application: &str,
        worker: &Registration,
        asks: &[Ask],
    ) -> Result<usize, Error>;

    /// Stores a checkpoint, and removes a pending one that it covers.
    ///
    /// # Errors
    /// `LeaseLost` if the token is not current; `InvalidPosition` if it would move back (K3) or is `SHARD_END`, which
    /// only [`LeaseStore::end_shard`] may store, because the children's leases come with it.
    async fn checkpoint(
        &self,
        application: &str,
        token: &LeaseToken,
        position: &Position,
    ) -> Result<(), Error>;

    /// Stores a pending checkpoint in the place of the one before.
    ///
    /// # Errors
    /// As for [`LeaseStore::checkpoint`].
    async fn prepare(
        &self,
        application: &str,
        token: &LeaseToken,
        pending: &PendingCheckpoint,
    ) -> Result<(), Error>;

    /// Stores `SHARD_END`, gives the lease up, and creates the children's leases. Repeated with the same token it
    /// succeeds and does nothing (K12): children that have been finished and deleted since are not created again.
    ///
    /// # Errors
    /// `LeaseLost` if the token is neither current nor the one that ended the shard.
    async fn end_shard(
        &self,
        application: &str,
        token: &LeaseToken,
        children: &[NewLease],
    ) -> Result<(), Error>;

    /// Gives leases up in one transaction, each with a last checkpoint if there is one, to the worker that asked (`to`) or to nobody.
    /// A lease whose token is not current any more is left alone; says how many were given up. If the worker that asked
    /// is not registered any more, nobody gets the lease.
    ///
    /// # Errors
    /// `InvalidPosition` if a last checkpoint would move back or is `SHARD_END`: then no lease was given up.
    async fn release(&self, application: &str, releases: &[Release]) -> Result<usize, Error>;

    /// Deletes those of the leases that have ended; says how many.
    async fn delete_ended(&self, application: &str, keys: &[LeaseKey]) -> Result<usize, Error>;

    /// The applications that have leases or workers, in the order of their names.
    async fn applications(&self) -> Result<Vec<String>, Error>;

    /// What operators look at: everything that workers see and what they tell.
    async fn inspect(&self, application: &str) -> Result<Inspection, Error>;

    /// Puts leases where they are to start, whatever they were at, and says which it changed. Nobody holds them afterwards: with
    /// new counters, so that an owner that lives loses them (K1) and whoever takes them begins there. Pending checkpoints go. A note of it is
    /// kept, of the last [`RESETS_KEPT`] for each application.
    ///
    /// # Errors
    /// `InUse` if the condition does not hold; `Unavailable` if leases came since it was planned; `Store` if a row is damaged. Then nothing was changed.
    async fn reset(&self, application: &str, reset: &Reset) -> Result<Vec<ResetChange>, Error>;

    /// The notes of the last resets, the latest first.
    async fn resets(&self, application: &str) -> Result<Vec<ResetNote>, Error>;
}

/// A request for a lease that another worker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The shard.
    pub key: LeaseKey,
    /// The counter observed.
    pub counter: u64,
    /// The asker whose request may be replaced.
    pub replace_wanted_by: Option<String>,
}

/// A lease to be given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Proof of tenure.
    pub token: LeaseToken,
    /// Last checkpoint, stored in the same transaction (K9).
    pub checkpoint: Option<Position>,
    /// Worker that gets the lease.
    pub to: Option<String>,
}
