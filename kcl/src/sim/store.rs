//! The lease store as a host sees it: the memory store's rules behind a link.

use super::world::{Link, ready};
use crate::checkpoint::Position;
use crate::error::Error;
use crate::lease::{
    Ask, Claim, Inspection, Lease, LeaseKey, LeaseStore, LeaseToken, Loads, MemoryLeaseStore,
    NewLease, PendingCheckpoint, Registration, Release, Reset, ResetChange, ResetNote, Snapshot,
    Trouble, WorkerProfile, WorkerRow,
};
use async_trait::async_trait;

#[derive(Debug, Clone)]
pub(super) struct SimStore(pub(super) Link);

#[async_trait]
impl LeaseStore for SimStore {
    async fn register(
        &self,
        application: &str,
        worker_id: &str,
        profile: &WorkerProfile,
    ) -> Result<Registration, Error> {
        let (app, id, profile) = (
            application.to_owned(),
            worker_id.to_owned(),
            profile.clone(),
        );
        let call = move |store: &MemoryLeaseStore| ready(store.register(&app, &id, &profile));
        self.0.register(worker_id.to_owned(), call).await
    }

    async fn announce(
        &self,
        application: &str,
        worker: &Registration,
        profile: &WorkerProfile,
    ) -> Result<(), Error> {
        let (app, worker, profile) = (application.to_owned(), worker.clone(), profile.clone());
        let call = move |store: &MemoryLeaseStore| ready(store.announce(&app, &worker, &profile));
        self.0.look(call).await
    }

    async fn heartbeat(
        &self,
        application: &str,
        worker: &Registration,
        loads: &Loads,
        troubles: &[Trouble],
    ) -> Result<(), Error> {
        let (app, worker, loads) = (application.to_owned(), worker.clone(), loads.clone());
        let troubles = troubles.to_vec();
        let call = move |store: &MemoryLeaseStore| {
            ready(store.heartbeat(&app, &worker, &loads, &troubles))
        };
        self.0.look(call).await
    }

    async fn deregister(&self, application: &str, worker: &Registration) -> Result<(), Error> {
        let (app, worker) = (application.to_owned(), worker.clone());
        let call = move |store: &MemoryLeaseStore| ready(store.deregister(&app, &worker));
        self.0.change("deregister", Vec::new(), call).await
    }

    async fn forget_workers(&self, application: &str, dead: &[WorkerRow]) -> Result<(), Error> {
        let (app, dead) = (application.to_owned(), dead.to_vec());
        self.0
            .change("forget", Vec::new(), move |store| {
                ready(store.forget_workers(&app, &dead))
            })
            .await
    }

    async fn snapshot(&self, application: &str) -> Result<Snapshot, Error> {
        let app = application.to_owned();
        self.0.look(move |store| ready(store.snapshot(&app))).await
    }

    async fn lease(&self, application: &str, key: &LeaseKey) -> Result<Option<Lease>, Error> {
        let (app, key) = (application.to_owned(), key.clone());
        self.0
            .look(move |store| ready(store.lease(&app, &key)))
            .await
    }

    async fn create_leases(&self, application: &str, leases: &[NewLease]) -> Result<usize, Error> {
        let (app, leases) = (application.to_owned(), leases.to_vec());
        self.0
            .change("create", Vec::new(), move |store| {
                ready(store.create_leases(&app, &leases))
            })
            .await
    }

    async fn take(
        &self,
        application: &str,
        worker: &Registration,
        claims: &[Claim],
    ) -> Result<Vec<Lease>, Error> {
        let (app, worker, claims) = (application.to_owned(), worker.clone(), claims.to_vec());
        self.0
            .change("take", Vec::new(), move |store| {
                ready(store.take(&app, &worker, &claims))
            })
            .await
    }

    async fn ask(
        &self,
        application: &str,
        worker: &Registration,
        asks: &[Ask],
    ) -> Result<usize, Error> {
        let (app, worker, asks) = (application.to_owned(), worker.clone(), asks.to_vec());
        self.0
            .change("ask", Vec::new(), move |store| {
                ready(store.ask(&app, &worker, &asks))
            })
            .await
    }

    async fn checkpoint(
        &self,
        application: &str,
        token: &LeaseToken,
        position: &Position,
    ) -> Result<(), Error> {
        let (app, token, position) = (application.to_owned(), token.clone(), *position);
        let by = vec![token.clone()];
        self.0
            .change("checkpoint", by, move |store| {
                ready(store.checkpoint(&app, &token, &position))
            })
            .await
    }

    async fn prepare(
        &self,
        application: &str,
        token: &LeaseToken,
        pending: &PendingCheckpoint,
    ) -> Result<(), Error> {
        let (app, token, pending) = (application.to_owned(), token.clone(), pending.clone());
        let by = vec![token.clone()];
        self.0
            .change("prepare", by, move |store| {
                ready(store.prepare(&app, &token, &pending))
            })
            .await
    }

    async fn end_shard(
        &self,
        application: &str,
        token: &LeaseToken,
        children: &[NewLease],
    ) -> Result<(), Error> {
        let (app, token, children) = (application.to_owned(), token.clone(), children.to_vec());
        let by = vec![token.clone()];
        self.0
            .change("end", by, move |store| {
                ready(store.end_shard(&app, &token, &children))
            })
            .await
    }

    async fn release(&self, application: &str, releases: &[Release]) -> Result<usize, Error> {
        let (app, releases) = (application.to_owned(), releases.to_vec());
        let by = releases
            .iter()
            .map(|release| release.token.clone())
            .collect();
        self.0
            .change("release", by, move |store| {
                ready(store.release(&app, &releases))
            })
            .await
    }

    async fn delete_ended(&self, application: &str, keys: &[LeaseKey]) -> Result<usize, Error> {
        let (app, keys) = (application.to_owned(), keys.to_vec());
        self.0
            .change("delete", Vec::new(), move |store| {
                ready(store.delete_ended(&app, &keys))
            })
            .await
    }

    async fn applications(&self) -> Result<Vec<String>, Error> {
        self.0.look(|store| ready(store.applications())).await
    }

    async fn inspect(&self, application: &str) -> Result<Inspection, Error> {
        let app = application.to_owned();
        self.0.look(move |store| ready(store.inspect(&app))).await
    }

    async fn reset(&self, application: &str, reset: &Reset) -> Result<Vec<ResetChange>, Error> {
        let (app, reset) = (application.to_owned(), reset.clone());
        self.0
            .change("reset", Vec::new(), move |store| {
                ready(store.reset(&app, &reset))
            })
            .await
    }

    async fn resets(&self, application: &str) -> Result<Vec<ResetNote>, Error> {
        let app = application.to_owned();
        self.0.look(move |store| ready(store.resets(&app))).await
    }
}
