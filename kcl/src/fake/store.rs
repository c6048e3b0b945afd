//! A lease store that is slow, out of reach, or loses its replies, around a sound one.

use crate::checkpoint::Position;
use crate::error::{Error, ErrorKind};
use crate::lease::{
    Ask, Claim, Lease, LeaseKey, LeaseStore, LeaseToken, Loads, MemoryLeaseStore, NewLease,
    PendingCheckpoint, Registration, Release, Snapshot, WorkerProfile, WorkerRow,
};
use async_trait::async_trait;
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
}

#[derive(Debug, Clone)]
pub(crate) struct FaultyStore {
    pub(crate) inner: MemoryLeaseStore,
    faults: Arc<Mutex<Faults>>,
    calls: Arc<Mutex<u32>>,
    /// How many leases each call of `release` gave up.
    released: Arc<Mutex<Vec<usize>>>,
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
        }
    }

    pub(crate) fn released(&self) -> Vec<usize> {
        self.released.lock().unwrap().clone()
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.faults.lock().unwrap());
    }

    fn faults(&self) -> Faults {
        *self.faults.lock().unwrap()
    }

    async fn through<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let number = {
            let mut calls = self.calls.lock().unwrap();
            *calls += 1;
            *calls
        };
        let faults = self.faults();
        tokio::time::sleep(faults.request_takes).await;
        let hits = |every: Option<u32>| every.is_some_and(|every| number.is_multiple_of(every));
        if self.faults().unreachable || hits(faults.fail_every) {
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
        self.through(self.inner.register(application, worker_id, profile))
            .await
    }
    async fn heartbeat(
        &self,
        application: &str,
        worker: &Registration,
        loads: &Loads,
    ) -> Result<(), Error> {
        if self.faults().no_heartbeats {
            return Err(unavailable("no heartbeat gets through"));
        }
        self.through(self.inner.heartbeat(application, worker, loads))
            .await
    }
    async fn deregister(&self, application: &str, worker: &Registration) -> Result<(), Error> {
        self.through(self.inner.deregister(application, worker))
            .await
    }
    async fn forget_workers(&self, application: &str, dead: &[WorkerRow]) -> Result<(), Error> {
        self.through(self.inner.forget_workers(application, dead))
            .await
    }
    async fn snapshot(&self, application: &str) -> Result<Snapshot, Error> {
        self.through(self.inner.snapshot(application)).await
    }
    async fn lease(&self, application: &str, key: &LeaseKey) -> Result<Option<Lease>, Error> {
        self.through(self.inner.lease(application, key)).await
    }
    async fn create_leases(&self, application: &str, leases: &[NewLease]) -> Result<usize, Error> {
        self.through(self.inner.create_leases(application, leases))
            .await
    }
    async fn take(
        &self,
        application: &str,
        worker: &Registration,
        claims: &[Claim],
    ) -> Result<Vec<Lease>, Error> {
        self.through(self.inner.take(application, worker, claims))
            .await
    }
    async fn ask(
        &self,
        application: &str,
        worker: &Registration,
        asks: &[Ask],
    ) -> Result<usize, Error> {
        self.through(self.inner.ask(application, worker, asks))
            .await
    }
    async fn checkpoint(
        &self,
        application: &str,
        token: &LeaseToken,
        position: &Position,
    ) -> Result<(), Error> {
        self.through(self.inner.checkpoint(application, token, position))
            .await
    }
    async fn prepare(
        &self,
        application: &str,
        token: &LeaseToken,
        pending: &PendingCheckpoint,
    ) -> Result<(), Error> {
        self.through(self.inner.prepare(application, token, pending))
            .await
    }
    async fn end_shard(
        &self,
        application: &str,
        token: &LeaseToken,
        children: &[NewLease],
    ) -> Result<(), Error> {
        self.through(self.inner.end_shard(application, token, children))
            .await
    }
    async fn release(&self, application: &str, releases: &[Release]) -> Result<usize, Error> {
        self.released.lock().unwrap().push(releases.len());
        self.through(self.inner.release(application, releases))
            .await
    }
    async fn delete_ended(&self, application: &str, keys: &[LeaseKey]) -> Result<usize, Error> {
        self.through(self.inner.delete_ended(application, keys))
            .await
    }
}
