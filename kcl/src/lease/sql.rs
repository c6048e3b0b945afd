//! What lease stores in SQL databases share: the verbs, written once over operations on rows, and how a row is read.
//!
//! A store owns its statements, connections, locks and faults.

pub(in crate::lease) mod row;
pub(in crate::lease) mod verbs;

use super::{
    Ask, Claim, Inspection, Lease, LeaseKey, LeaseStore, LeaseToken, Loads, NewLease,
    PendingCheckpoint, Registration, Release, Reset, ResetChange, ResetNote, Snapshot, Trouble,
    WorkerProfile, WorkerRow,
};
use crate::checkpoint::Position;
use crate::error::Error;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Leases by their keys.
pub(in crate::lease) type Leases = BTreeMap<LeaseKey, Lease>;

/// The rows of one application within one transaction. Everything read for a write stays as it is until the transaction ends.
/// A damaged row is logged and counts as no lease (K10).
///
/// A transaction reads leases before it reads workers, each in the order of their keys, so that transactions that wait for
/// each other do so in one order.
pub(in crate::lease) trait Rows: Send {
    /// Those of the leases that are there.
    fn leases(
        &mut self,
        keys: &BTreeSet<LeaseKey>,
        hold: Hold,
    ) -> impl Future<Output = Result<Leases, Error>> + Send;

    /// The leases that one of the workers holds or asks for.
    fn leases_of(
        &mut self,
        worker_ids: &BTreeSet<&str>,
    ) -> impl Future<Output = Result<Leases, Error>> + Send;

    /// Those of the keys that have a row, damaged or not, whose shard has not ended.
    fn unended(
        &mut self,
        keys: &BTreeSet<LeaseKey>,
    ) -> impl Future<Output = Result<BTreeSet<LeaseKey>, Error>> + Send;

    /// Leases and workers.
    fn everything(&mut self) -> impl Future<Output = Result<Snapshot, Error>> + Send;

    /// Creates the leases whose rows are not there; says how many.
    fn create(&mut self, leases: &[Lease]) -> impl Future<Output = Result<usize, Error>> + Send;

    /// Replaces leases, but for their parents and ranges. A pending checkpoint is kept or removed; [`Rows::note`] stores one.
    fn replace(&mut self, changes: &[Change]) -> impl Future<Output = Result<(), Error>> + Send;

    /// Stores a pending checkpoint.
    fn note(
        &mut self,
        lease: &Lease,
        pending: &PendingCheckpoint,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Deletes leases.
    fn delete(
        &mut self,
        keys: &BTreeSet<LeaseKey>,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// The current runs of those of the workers that have a row.
    fn runs(
        &mut self,
        worker_ids: &BTreeSet<&str>,
    ) -> impl Future<Output = Result<BTreeMap<String, Run>, Error>> + Send;

    /// Writes the row of a worker that registers.
    fn put_run(
        &mut self,
        worker_id: &str,
        run: Run,
        profile: &WorkerProfile,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Writes what a worker says of itself into its row.
    fn put_profile(
        &mut self,
        worker_id: &str,
        profile: &WorkerProfile,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Moves a worker's heartbeat on.
    fn beat(
        &mut self,
        worker_id: &str,
        heartbeat: u64,
        signs: Signs<'_>,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Deletes the rows of workers.
    fn delete_runs(
        &mut self,
        worker_ids: &BTreeSet<&str>,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// The names of all applications in the database.
    fn applications(&mut self) -> impl Future<Output = Result<Vec<String>, Error>> + Send;

    /// What [`Rows::everything`] leaves out.
    fn details(&mut self) -> impl Future<Output = Result<Details, Error>> + Send;

    /// Keeps a note of a reset, and removes the oldest ones.
    fn note_reset(
        &mut self,
        reset: &Reset,
        changes: &[ResetChange],
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// The notes of resets, the latest first.
    fn resets(&mut self) -> impl Future<Output = Result<Vec<ResetNote>, Error>> + Send;
}

/// What a worker tells of its shards with a heartbeat.
#[derive(Debug, Clone, Copy)]
pub(in crate::lease) struct Signs<'a> {
    pub(in crate::lease) loads: &'a Loads,
    pub(in crate::lease) troubles: &'a [Trouble],
}

/// What only operators look at.
#[derive(Debug, Default)]
pub(in crate::lease) struct Details {
    pub(in crate::lease) owned_since_ms: BTreeMap<LeaseKey, u64>,
    pub(in crate::lease) troubles: BTreeMap<String, Vec<Trouble>>,
}

/// What becomes of the rows that are read, in a store where transactions run side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lease) enum Hold {
    /// Nothing: they are looked at.
    Not,
    /// They are held until the transaction ends; a row that another one holds is waited for.
    Wait,
    /// They are held; a row that another one holds counts as not there.
    Skip,
}

/// One lease before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::lease) struct Change {
    pub(in crate::lease) before: Lease,
    pub(in crate::lease) after: Lease,
}

/// A worker's row with what tells its runs apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lease) struct Run {
    pub(in crate::lease) incarnation: u64,
    pub(in crate::lease) heartbeat: u64,
}

/// What a verb touches, and so whom it must wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lease) enum Scope {
    /// It reads.
    Look,
    /// The row of one worker, and nothing may hold it up.
    Heartbeat,
    /// The row of one lease.
    Lease,
    /// Whatever rows the application has.
    Application,
}

/// A verb of [`LeaseStore`] with what it was given.
pub(in crate::lease) trait Verb: Sync {
    /// What it gives.
    type Answer: Send;
    /// What it touches.
    const SCOPE: Scope;
    /// Does it. An error leaves it to the store to undo what was written.
    fn perform<R: Rows>(
        &self,
        rows: &mut R,
    ) -> impl Future<Output = Result<Self::Answer, Error>> + Send;
}

/// A store that performs verbs, each in a transaction of its own.
pub(in crate::lease) trait SqlStore: fmt::Debug + Send + Sync + 'static {
    fn perform<V: Verb>(
        &self,
        application: &str,
        verb: &V,
    ) -> impl Future<Output = Result<V::Answer, Error>> + Send;
}

#[async_trait]
impl<S: SqlStore> LeaseStore for S {
    async fn register(
        &self,
        application: &str,
        worker_id: &str,
        profile: &WorkerProfile,
    ) -> Result<Registration, Error> {
        let verb = verbs::Register::new(worker_id, profile)?;
        self.perform(application, &verb).await
    }

    async fn announce(
        &self,
        application: &str,
        worker: &Registration,
        profile: &WorkerProfile,
    ) -> Result<(), Error> {
        let verb = verbs::Announce { worker, profile };
        self.perform(application, &verb).await
    }

    async fn heartbeat(
        &self,
        application: &str,
        worker: &Registration,
        loads: &Loads,
        troubles: &[Trouble],
    ) -> Result<(), Error> {
        let signs = Signs { loads, troubles };
        let verb = verbs::Heartbeat { worker, signs };
        self.perform(application, &verb).await
    }

    async fn deregister(&self, application: &str, worker: &Registration) -> Result<(), Error> {
        self.perform(application, &verbs::Deregister { worker })
            .await
    }

    async fn forget_workers(&self, application: &str, dead: &[WorkerRow]) -> Result<(), Error> {
        self.perform(application, &verbs::ForgetWorkers { dead })
            .await
    }

    async fn snapshot(&self, application: &str) -> Result<Snapshot, Error> {
        self.perform(application, &verbs::TakeSnapshot).await
    }

    async fn lease(&self, application: &str, key: &LeaseKey) -> Result<Option<Lease>, Error> {
        self.perform(application, &verbs::Look { key }).await
    }

    async fn create_leases(&self, application: &str, leases: &[NewLease]) -> Result<usize, Error> {
        self.perform(application, &verbs::Create { leases }).await
    }

    async fn take(
        &self,
        application: &str,
        worker: &Registration,
        claims: &[Claim],
    ) -> Result<Vec<Lease>, Error> {
        let verb = verbs::Take { worker, claims };
        self.perform(application, &verb).await
    }

    async fn ask(
        &self,
        application: &str,
        worker: &Registration,
        asks: &[Ask],
    ) -> Result<usize, Error> {
        self.perform(application, &verbs::AskFor { worker, asks })
            .await
    }

    async fn checkpoint(
        &self,
        application: &str,
        token: &LeaseToken,
        position: &Position,
    ) -> Result<(), Error> {
        let verb = verbs::Checkpoint { token, position };
        self.perform(application, &verb).await
    }

    async fn prepare(
        &self,
        application: &str,
        token: &LeaseToken,
        pending: &PendingCheckpoint,
    ) -> Result<(), Error> {
        let verb = verbs::Prepare { token, pending };
        self.perform(application, &verb).await
    }

    async fn end_shard(
        &self,
        application: &str,
        token: &LeaseToken,
        children: &[NewLease],
    ) -> Result<(), Error> {
        let verb = verbs::EndShard { token, children };
        self.perform(application, &verb).await
    }

    async fn release(&self, application: &str, releases: &[Release]) -> Result<usize, Error> {
        self.perform(application, &verbs::GiveUp { releases }).await
    }

    async fn delete_ended(&self, application: &str, keys: &[LeaseKey]) -> Result<usize, Error> {
        self.perform(application, &verbs::DeleteEnded { keys })
            .await
    }

    async fn applications(&self) -> Result<Vec<String>, Error> {
        self.perform("", &verbs::NameApplications).await
    }

    async fn inspect(&self, application: &str) -> Result<Inspection, Error> {
        self.perform(application, &verbs::Inspect).await
    }

    async fn reset(&self, application: &str, reset: &Reset) -> Result<Vec<ResetChange>, Error> {
        let verb = verbs::ResetLeases { application, reset };
        self.perform(application, &verb).await
    }

    async fn resets(&self, application: &str) -> Result<Vec<ResetNote>, Error> {
        self.perform(application, &verbs::ListResets).await
    }
}
