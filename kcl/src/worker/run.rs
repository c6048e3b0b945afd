//! The one loop that decides: look at the leases, tell the consumers, release, take, ask; then wait a little.

use super::held::{Held, Work};
use super::{Beginning, Components};
use crate::client::retry::backoff;
use crate::client::same_stream::SameStream;
use crate::clock;
use crate::config::WorkerConfig;
use crate::error::{Error, ErrorKind};
use crate::fetch::collect::Batching;
use crate::lease::assign::{self, Situation};
use crate::lease::audit::Audit;
use crate::lease::expiry::{Expired, Observer};
use crate::lease::renew::{OwnerWindow, bounded, keep_alive};
use crate::lease::{LeaseStore, Loads, Registration, Release, Snapshot, WorkerProfile, WorkerRow};
use crate::processor::RecordProcessorFactory;
#[cfg(test)]
use crate::seeded_bug::{Bug, made};
use crate::shard::consumer::Shared;
use crate::shard::sync::{SyncReport, Syncer};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Attempts of a store call at the start, before the worker gives up.
const START_ATTEMPTS: u32 = 4;
const LONGEST_LOOK_PAUSE: Duration = Duration::from_millis(200);
/// How long a shutdown waits for more consumers to end before it releases the leases of those that have.
const RELEASED_TOGETHER: Duration = Duration::from_millis(50);
/// Pause between listings while a stream that is being created has no shards.
const NO_SHARDS_PAUSE: Duration = Duration::from_millis(500);

/// A registered worker at work.
pub(super) struct Run<F> {
    config: WorkerConfig,
    shared: Arc<Shared>,
    registration: Registration,
    held: Held<F>,
    observer: Observer,
    audit: Audit,
    /// The stream's identity (K13).
    identity: String,
    /// Heartbeat and shard listing; each ends only with what the worker cannot survive.
    background: JoinSet<Error>,
    failed_looks: u32,
}

impl<F: RecordProcessorFactory> Run<F> {
    /// Registers, brings the leases up to date, and starts the heartbeat.
    pub(super) async fn start(
        config: WorkerConfig,
        components: Components,
        factory: Arc<F>,
        beginning: Beginning,
    ) -> Result<Self, Error> {
        let stream = beginning.stream.clone();
        let Components {
            client,
            store,
            failures,
            board,
        } = components;
        let client = SameStream::new(client, stream.identity());
        let (sent, registration) = register(&*store, &config, &stream.identity()).await?;
        let shared = Arc::new(Shared {
            application: config.application.clone(),
            store,
            client: Arc::new(client),
            window: OwnerWindow::open(sent, config.failover_time),
            read_ahead: Arc::new(Semaphore::new(config.read_ahead_bytes)),
            failures,
            grace: config.shutdown_grace,
            initial: config.initial_position,
            foreign_records: config.foreign_records,
            batching: Batching::of(&config),
            sync: Arc::new(Notify::new()),
            meters: Arc::default(),
            board,
        });
        let syncer = syncer(&config, &shared, beginning);
        let mut background = JoinSet::new();
        background.spawn(keep_alive(
            Arc::clone(&shared.store),
            config.application.clone(),
            registration.clone(),
            shared.window.clone(),
            config.failover_time,
            Arc::clone(&shared.meters),
        ));
        let first = match first_sync(&syncer).await {
            Ok(report) => report,
            Err(error) => {
                background.shutdown().await;
                let call = shared.store.deregister(&config.application, &registration);
                if let Err(error) = bounded(config.failover_time, call).await {
                    tracing::debug!(%error, "the worker's row could not be removed");
                }
                return Err(error);
            }
        };
        background.spawn(keep_synced(
            syncer,
            Arc::clone(&shared.sync),
            config.shard_sync_interval,
            first.shards,
        ));
        let identity = stream.identity();
        let work = Work {
            config: &config,
            stream: identity.clone(),
            stream_name: stream.name,
        };
        Ok(Run {
            held: Held::new(Arc::clone(&shared), factory, work),
            observer: Observer::new(config.failover_time),
            audit: Audit::default(),
            config,
            shared,
            registration,
            identity,
            background,
            failed_looks: 0,
        })
    }

    /// Works until asked to shut down, or until the worker cannot go on.
    pub(super) async fn until(mut self, asked: CancellationToken) -> Result<(), Error> {
        let mut look_at = clock::now();
        loop {
            tokio::select! {
                biased;
                () = asked.cancelled() => return self.shut_down().await,
                Some(ended) = self.background.join_next() => {
                    let error = ended.unwrap_or_else(|panic| {
                        Error::with_source(ErrorKind::Protocol, "a task of the worker panicked", panic)
                    });
                    return self.give_in(error).await;
                }
                () = self.held.ended(), if !self.held.is_empty() => {
                    if let Some(error) = self.held.failure() {
                        return self.give_in(error).await;
                    }
                    if !self.held.has_died() {
                        look_at = clock::now();
                    }
                }
                () = tokio::time::sleep_until(look_at) => {
                    // Asking must not wait for a store that does not answer.
                    let looked = tokio::select! {
                        biased;
                        () = asked.cancelled() => Ok(Duration::ZERO),
                        looked = self.look() => looked,
                    };
                    match looked {
                        Ok(pause) => look_at = clock::now() + pause,
                        Err(error) => return self.give_in(error).await,
                    }
                }
            }
        }
    }

    /// One step; gives the pause until the next, or the error that the worker cannot survive.
    async fn look(&mut self) -> Result<Duration, Error> {
        let pause = LONGEST_LOOK_PAUSE.min(self.config.failover_time / 4);
        match self.step().await {
            Ok(()) => self.failed_looks = 0,
            Err(error) if error.kind() == ErrorKind::WorkerReplaced => return Err(error),
            Err(error) => {
                self.failed_looks = self.failed_looks.saturating_add(1);
                let failures = self.failed_looks;
                tracing::warn!(%error, failures, "the leases cannot be managed, it is tried again");
                return Ok(backoff(pause, self.config.failover_time / 4, failures)
                    .mul_f64(0.5 + 0.5 * fastrand::f64()));
            }
        }
        Ok(pause.mul_f64(0.9 + 0.1 * fastrand::f64()))
    }

    async fn step(&mut self) -> Result<(), Error> {
        self.release().await?;
        let begun = self.shared.window.begin_verification();
        let call = self.shared.store.snapshot(&self.config.application);
        let snapshot = bounded(self.config.failover_time, call).await?;
        self.observer.observe(&snapshot, clock::now());
        for hole in self.audit.look(&snapshot.leases, &self.identity) {
            tracing::warn!(from = %hole.start, to = %hole.end, "no lease covers these hash keys, the shards are listed again");
            self.shared.sync.notify_one();
        }
        let expired = self.observer.expired(clock::now());
        self.held.reconcile(&snapshot, &expired);
        self.shared.window.verified(begun);
        self.adopt(&snapshot).await?;
        if self.shared.window.is_open() {
            let mut staying = snapshot;
            let is_leaving = |row: &WorkerRow| self.observer.is_leaving(&row.worker_id);
            staying.workers.retain(|row| !is_leaving(row));
            self.balance(&staying, &expired).await?;
        }
        self.forget_dead().await
    }

    /// Starts on leases that the snapshot shows as ours.
    async fn adopt(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        if self.has_new(snapshot).await? {
            for lease in &snapshot.leases {
                self.held.adopt(lease);
            }
        }
        Ok(())
    }

    /// Gives on what is handed to a worker that leaves: it has no use for it, and while it lives nobody can take it (K10).
    async fn pass_on(&mut self) -> Result<(), Error> {
        let call = self.shared.store.snapshot(&self.config.application);
        let snapshot = bounded(self.config.failover_time, call).await?;
        if self.has_new(&snapshot).await? {
            for lease in &snapshot.leases {
                self.held.pass_on(lease);
            }
        }
        Ok(())
    }

    /// Whether there are leases under our id without a consumer. They could be those of a later run under the same id: a heartbeat that is accepted
    /// after the snapshot proves that there was none (K1).
    async fn has_new(&self, snapshot: &Snapshot) -> Result<bool, Error> {
        if !snapshot.leases.iter().any(|lease| self.held.is_new(lease)) {
            return Ok(false);
        }
        let Shared {
            store, application, ..
        } = &*self.shared;
        let loads = Loads::new();
        let proof = store.heartbeat(application, &self.registration, &loads);
        bounded(self.config.failover_time, proof).await?;
        Ok(true)
    }

    /// Takes and asks for what the plan says.
    async fn balance(&mut self, snapshot: &Snapshot, expired: &Expired) -> Result<(), Error> {
        let mut plan = assign::plan(&Situation {
            snapshot,
            stream: &self.identity,
            me: &self.config.worker_id,
            expired,
            overdue: &self.observer.overdue(clock::now()),
            unsettled: &self.observer.unsettled(clock::now()),
            max_leases: self.config.max_leases,
        });
        plan.take.retain(|claim| !self.held.is_busy(&claim.key));
        let Shared {
            store, application, ..
        } = &*self.shared;
        let limit = self.config.failover_time;
        if !plan.take.is_empty() {
            let call = store.take(application, &self.registration, &plan.take);
            for lease in bounded(limit, call).await? {
                self.held.adopt(&lease);
            }
        }
        if !plan.ask.is_empty() {
            bounded(limit, store.ask(application, &self.registration, &plan.ask)).await?;
        }
        Ok(())
    }

    /// Removes the rows of workers that have been silent for very long.
    async fn forget_dead(&self) -> Result<(), Error> {
        let dead = self.observer.forgettable(clock::now());
        if dead.is_empty() {
            return Ok(());
        }
        let call = self
            .shared
            .store
            .forget_workers(&self.config.application, &dead);
        bounded(self.config.failover_time, call).await
    }

    /// Stores what the consumers gave up, all of it in one transaction (K9).
    async fn release(&mut self) -> Result<(), Error> {
        let releases = self.held.releases();
        if releases.is_empty() {
            return Ok(());
        }
        match self.release_in_store(&releases).await {
            Ok(()) => self.held.released(&releases),
            Err(error) if error.is_retryable() => return Err(error),
            Err(error) => {
                // One that the store refuses must not hold up the others; without its checkpoint it is only
                // delivered again.
                tracing::error!(%error, "a release was refused, the leases are given up one by one");
                for release in releases {
                    let one = std::slice::from_ref(&release);
                    match self.release_in_store(one).await {
                        Ok(()) => {}
                        Err(error) if error.is_retryable() => return Err(error),
                        Err(_) => {
                            let bare = Release {
                                checkpoint: None,
                                ..release.clone()
                            };
                            self.release_in_store(&[bare]).await?;
                        }
                    }
                    self.held.released(&[release]);
                }
            }
        }
        Ok(())
    }

    async fn release_in_store(&self, releases: &[Release]) -> Result<(), Error> {
        let call = self
            .shared
            .store
            .release(&self.config.application, releases);
        bounded(self.config.failover_time, call).await.map(|_| ())
    }

    /// Ends in order with the error that the worker cannot survive.
    async fn give_in(mut self, error: Error) -> Result<(), Error> {
        if error.kind() == ErrorKind::WorkerReplaced {
            self.held.lose_all();
            self.drain().await;
        } else if let Err(second) = self.shut_down().await {
            tracing::error!(error = %second, "another failure on the way out");
        }
        Err(error)
    }

    /// Every consumer finishes its batch, the leases are released, the worker's row goes. An error is one that a processor's last
    /// batch ended with.
    async fn shut_down(mut self) -> Result<(), Error> {
        self.held.give_up_all();
        self.drain().await;
        #[cfg(test)]
        if made(Bug::KeepAtExit) {
            return Ok(());
        }
        let ended = self.held.failure().map_or(Ok(()), Err);
        let mut failures = 0;
        while let Err(error) = self.release().await {
            failures += 1;
            if failures >= START_ATTEMPTS || !self.shared.window.is_open() {
                tracing::warn!(%error, "leases could not be released, they will expire");
                return ended;
            }
            tokio::time::sleep(LONGEST_LOOK_PAUSE).await;
        }
        self.background.shutdown().await;
        let call = self
            .shared
            .store
            .deregister(&self.config.application, &self.registration);
        if let Err(error) = bounded(self.config.failover_time, call).await {
            tracing::warn!(%error, "the worker's row could not be removed, others will forget it");
        }
        ended
    }

    /// Waits for the consumers, and cancels them after the grace period; releases what they gave up: all that end at once
    /// in one transaction, then each as it ends.
    async fn drain(&mut self) {
        let deadline = clock::now() + self.config.shutdown_grace;
        let together = clock::now() + RELEASED_TOGETHER.min(self.config.shutdown_grace);
        let mut look_at = clock::now() + LONGEST_LOOK_PAUSE;
        while !self.held.is_empty() {
            tokio::select! {
                biased;
                () = self.held.ended() => {
                    if clock::now() < together && !self.held.is_empty() {
                        continue;
                    }
                }
                () = tokio::time::sleep_until(together), if clock::now() < together => {}
                () = tokio::time::sleep_until(deadline) => {
                    tracing::warn!(grace = ?self.config.shutdown_grace, "processors still run, they are cancelled");
                    self.held.abort_all();
                    while !self.held.is_empty() {
                        self.held.ended().await;
                    }
                }
                () = tokio::time::sleep_until(look_at) => {
                    if let Ok(Err(error)) = tokio::time::timeout_at(deadline, self.pass_on()).await {
                        tracing::debug!(%error, "the leases cannot be looked at");
                    }
                    look_at = clock::now() + LONGEST_LOOK_PAUSE;
                }
            }
            #[cfg(test)]
            if made(Bug::KeepAtExit) {
                continue;
            }
            // One slow processor keeps no other shard waiting. What fails is tried again at the end.
            if let Err(error) = self.release().await {
                tracing::debug!(%error, "a release failed");
            }
        }
    }
}

/// What keeps the leases of the stream in line with its shards.
fn syncer(config: &WorkerConfig, shared: &Shared, beginning: Beginning) -> Syncer {
    Syncer {
        client: Arc::clone(&shared.client),
        store: Arc::clone(&shared.store),
        application: config.application.clone(),
        stream: config.stream.clone(),
        identity: beginning.stream.identity(),
        initial: config.initial_position,
        started_ms: beginning.stream.server_time_ms,
        open_at_start: beginning.open,
        store_timeout: config.failover_time,
    }
}

/// Registers the worker; gives the time before the registration was sent, from which its leases hold.
async fn register(
    store: &dyn LeaseStore,
    config: &WorkerConfig,
    stream: &str,
) -> Result<(clock::Instant, Registration), Error> {
    let profile = WorkerProfile {
        stream: Some(stream.to_owned()),
        failover: Some(config.failover_time),
        max_leases: u64::try_from(config.max_leases).ok(),
    };
    let mut attempt = 1;
    loop {
        let sent = clock::now();
        let call = store.register(&config.application, &config.worker_id, &profile);
        match bounded(config.failover_time, call).await {
            Ok(registration) => return Ok((sent, registration)),
            Err(error) if error.is_retryable() && attempt < START_ATTEMPTS => {
                tracing::warn!(%error, attempt, "registering is tried again");
                tokio::time::sleep(LONGEST_LOOK_PAUSE).await;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The first look at the shards; a store or endpoint that is out of reach is tried a few times.
async fn first_sync(syncer: &Syncer) -> Result<SyncReport, Error> {
    let mut attempt = 1;
    loop {
        match syncer.sync().await {
            Err(error) if error.is_retryable() && attempt < START_ATTEMPTS => {
                tracing::warn!(%error, attempt, "listing the shards is tried again");
                tokio::time::sleep(LONGEST_LOOK_PAUSE).await;
                attempt += 1;
            }
            ended => return ended,
        }
    }
}

/// Lists the shards at intervals, and when nudged; ends when the stream is gone or another one.
async fn keep_synced(
    syncer: Syncer,
    nudge: Arc<Notify>,
    interval: Duration,
    mut shards: usize,
) -> Error {
    let mut failures = 0u32;
    loop {
        let usual = interval.mul_f64(0.9 + 0.2 * fastrand::f64());
        let pause = match failures {
            0 if shards == 0 => NO_SHARDS_PAUSE.min(usual),
            0 => usual,
            _ => backoff(NO_SHARDS_PAUSE, interval.max(NO_SHARDS_PAUSE), failures),
        };
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => {}
            () = nudge.notified(), if failures == 0 => tokio::time::sleep(LONGEST_LOOK_PAUSE).await,
        }
        match syncer.sync().await {
            Ok(report) => {
                failures = 0;
                shards = report.shards;
                for lease in &report.vanished {
                    tracing::error!(%lease, "the shard is not listed any more, though its lease has not ended: its records outlived the retention");
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return error,
            Err(error) => {
                failures = failures.saturating_add(1);
                tracing::warn!(%error, failures, "the shards cannot be listed, it is tried again");
            }
        }
    }
}
