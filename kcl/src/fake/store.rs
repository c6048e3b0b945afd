//! A lease store that is slow, out of reach, or loses its replies, around a sound one.

use crate::checkpoint::Position;
use crate::error::{Error, ErrorKind};
use crate::lease::{
    Ask, Claim, Inspection, Lease, LeaseKey, LeaseStore, LeaseToken, Loads, MemoryLeaseStore,
    NewLease, PendingCheckpoint, Registration, Release, Reset, ResetChange, ResetNote, Snapshot,
    Trouble, WorkerProfile, WorkerRow,
};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What goes wrong.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Nothing gets through.
    pub(crate) unreachable: bool,
    /// Every n-th write takes place, but its reply is lost.
    pub(crate) lose_reply_every: Option<u32>,
    /// Every n-th call fails before it does anything.
    pub(crate) fail_every: Option<u32>,
    /// Every call takes this long to arrive.
    pub(crate) request_takes: Duration,
    /// Every reply takes this long.
    pub(crate) reply_takes: Duration,
    /// Heartbeats do not get through.
    pub(crate) no_heartbeats: bool,
    /// These verbs do not get through.
    pub(crate) down: &'static [&'static str],
}

#[derive(Debug, Clone)]
pub(crate) struct FaultyStore {
    pub(crate) inner: MemoryLeaseStore,
    faults: Arc<Mutex<Faults>>,
    /// Calls by verb.
    calls: Arc<Mutex<BTreeMap<&'static str, u32>>>,
    /// How many leases each call of `release` gave up.
    released: Arc<Mutex<Vec<usize>>>,
    /// Shards whose rows make no sense.
    damaged: Arc<Mutex<BTreeSet<String>>>,
}

fn unavailable(what: &str) -> Error {
    Error::new(ErrorKind::Unavailable, what)
}

impl FaultyStore {
    pub(crate) fn new(inner: MemoryLeaseStore) -> Self {
        FaultyStore {
            inner,
            faults: Arc::default(),
            calls: Arc::default(),
            released: Arc::default(),
            damaged: Arc::default(),
        }
    }

    pub(crate) fn released(&self) -> Vec<usize> {
        self.released.lock().unwrap().clone()
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.faults.lock().unwrap());
    }

    /// Calls so far, by verb.
    pub(crate) fn calls(&self) -> BTreeMap<&'static str, u32> {
        self.calls.lock().unwrap().clone()
    }

    /// Makes the rows of these shards senseless, and all others sound.
    pub(crate) fn damage(&self, shard_ids: &[String]) {
        *self.damaged.lock().unwrap() = shard_ids.iter().cloned().collect();
    }

    fn is_damaged(&self, key: &LeaseKey) -> bool {
        self.damaged.lock().unwrap().contains(&key.shard_id)
    }

    fn without_damaged(&self, mut snapshot: Snapshot) -> Snapshot {
        let (damaged, sound): (Vec<_>, Vec<_>) = snapshot
            .leases
            .into_iter()
            .partition(|lease| self.is_damaged(&lease.key));
        snapshot.leases = sound;
        snapshot.damaged = damaged.into_iter().map(|lease| lease.key).collect();
        snapshot
    }

    fn faults(&self) -> Faults {
        *self.faults.lock().unwrap()
    }

    async fn through<T>(
        &self,
        verb: &'static str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let number = {
            let mut calls = self.calls.lock().unwrap();
            *calls.entry(verb).or_default() += 1;
            calls.values().sum::<u32>()
        };
        let faults = self.faults();
        tokio::time::sleep(faults.request_takes).await;
        let hits = |every: Option<u32>| every.is_some_and(|every| number.is_multiple_of(every));
        let is_down = || {
            let now = self.faults();
            now.unreachable || now.down.contains(&verb)
        };
        if is_down() || hits(faults.fail_every) {
            return Err(unavailable("the store is out of reach"));
        }
        let answer = call.await;
        tokio::time::sleep(faults.reply_takes).await;
        if self.faults().unreachable || hits(faults.lose_reply_every) {
            return Err(unavailable("the reply was lost"));
        }
        answer
    }
}

#[async_trait]
impl LeaseStore for FaultyStore {
    async fn register(
        &self,
        application: &str,
        worker_id: &str,
        profile: &WorkerProfile,
    ) -> Result<Registration, Error> {
        self.through(
            "register",
            self.inner.register(application, worker_id, profile),
        )
        .await
    }
    async fn announce(
        &self,
        application: &str,
        worker: &Registration,
        profile: &WorkerProfile,
    ) -> Result<(), Error> {
        self.through(
            "announce",
            self.inner.announce(application, worker, profile),
        )
        .await
    }

    async fn heartbeat(
        &self,
        application: &str,
        worker: &Registration,
        loads: &Loads,
        troubles: &[Trouble],
    ) -> Result<(), Error> {
        if self.faults().no_heartbeats {
            return Err(unavailable("no heartbeat gets through"));
        }
        self.through(
            "heartbeat",
            self.inner.heartbeat(application, worker, loads, troubles),
        )
        .await
    }
    async fn deregister(&self, application: &str, worker: &Registration) -> Result<(), Error> {
        self.through("deregister", self.inner.deregister(application, worker))
            .await
    }
    async fn forget_workers(&self, application: &str, dead: &[WorkerRow]) -> Result<(), Error> {
        self.through(
            "forget_workers",
            self.inner.forget_workers(application, dead),
        )
        .await
    }
    async fn snapshot(&self, application: &str) -> Result<Snapshot, Error> {
        let snapshot = self.through("snapshot", self.inner.snapshot(application));
        Ok(self.without_damaged(snapshot.await?))
    }
    async fn lease(&self, application: &str, key: &LeaseKey) -> Result<Option<Lease>, Error> {
        let lease = self.through("lease", self.inner.lease(application, key));
        Ok(lease.await?.filter(|lease| !self.is_damaged(&lease.key)))
    }
    async fn create_leases(&self, application: &str, leases: &[NewLease]) -> Result<usize, Error> {
        self.through(
            "create_leases",
            self.inner.create_leases(application, leases),
        )
        .await
    }
    async fn take(
        &self,
        application: &str,
        worker: &Registration,
        claims: &[Claim],
    ) -> Result<Vec<Lease>, Error> {
        let sound = |claim: &&Claim| !self.is_damaged(&claim.key);
        let claims: Vec<Claim> = claims.iter().filter(sound).cloned().collect();
        self.through("take", self.inner.take(application, worker, &claims))
            .await
    }
    async fn ask(
        &self,
        application: &str,
        worker: &Registration,
        asks: &[Ask],
    ) -> Result<usize, Error> {
        self.through("ask", self.inner.ask(application, worker, asks))
            .await
    }
    async fn checkpoint(
        &self,
        application: &str,
        token: &LeaseToken,
        position: &Position,
    ) -> Result<(), Error> {
        self.through(
            "checkpoint",
            self.inner.checkpoint(application, token, position),
        )
        .await
    }
    async fn prepare(
        &self,
        application: &str,
        token: &LeaseToken,
        pending: &PendingCheckpoint,
    ) -> Result<(), Error> {
        self.through("prepare", self.inner.prepare(application, token, pending))
            .await
    }
    async fn end_shard(
        &self,
        application: &str,
        token: &LeaseToken,
        children: &[NewLease],
    ) -> Result<(), Error> {
        self.through(
            "end_shard",
            self.inner.end_shard(application, token, children),
        )
        .await
    }
    async fn release(&self, application: &str, releases: &[Release]) -> Result<usize, Error> {
        self.released.lock().unwrap().push(releases.len());
        self.through("release", self.inner.release(application, releases))
            .await
    }
    async fn delete_ended(&self, application: &str, keys: &[LeaseKey]) -> Result<usize, Error> {
        self.through("delete_ended", self.inner.delete_ended(application, keys))
            .await
    }
    async fn applications(&self) -> Result<Vec<String>, Error> {
        self.through("applications", self.inner.applications())
            .await
    }
    async fn inspect(&self, application: &str) -> Result<Inspection, Error> {
        let mut inspection = self
            .through("inspect", self.inner.inspect(application))
            .await?;
        inspection.snapshot = self.without_damaged(inspection.snapshot);
        Ok(inspection)
    }
    async fn reset(&self, application: &str, reset: &Reset) -> Result<Vec<ResetChange>, Error> {
        self.through("reset", self.inner.reset(application, reset))
            .await
    }
    async fn resets(&self, application: &str) -> Result<Vec<ResetNote>, Error> {
        self.through("resets", self.inner.resets(application)).await
    }
}
