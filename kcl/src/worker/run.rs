//! The one loop that decides: look at the leases, tell the consumers, release, take, ask; then wait a little.

use super::Boards;
use super::held::Held;
use super::opening::{
    Found, Opened, Opener, START_ATTEMPTS, START_PAUSE, keep_synced, listing_of, twice,
};
use super::streams::{Order, Reply, StreamBoard};
use crate::client::retry::backoff;
use crate::clock;
use crate::config::{STREAMS_MAX, WorkerConfig};
use crate::error::{Error, ErrorKind};
use crate::lease::assign::{self, Situation};
use crate::lease::audit::Audit;
use crate::lease::expiry::{Expired, Observer};
use crate::lease::renew::{OwnerWindow, Signs, bounded, keep_alive};
use crate::lease::{
    Glance, LeaseStore, Loads, Mark, Registration, Release, Snapshot, WorkerProfile, WorkerRow,
};
use crate::processor::RecordProcessorFactory;
#[cfg(test)]
use crate::seeded_bug::{Bug, made};
use crate::shard::consumer::Shared;
use crate::shard::served::ServedStream;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// What a worker's health names.
const LOOKING: &str = "the leases cannot be managed";
const ENDING: &str = "the worker cannot go on";
/// The leases are read anew after this, also where the store says that they are as they were.
const READ_ANEW_AFTER: Duration = Duration::from_secs(5);
const LONGEST_LOOK_PAUSE: Duration = Duration::from_millis(200);
/// How long a shutdown waits for more consumers to end before it releases the leases of those that have.
const RELEASED_TOGETHER: Duration = Duration::from_millis(50);

/// A registered worker at work.
pub(super) struct Run<F> {
    config: WorkerConfig,
    shared: Arc<Shared>,
    registration: Registration,
    held: Held<F>,
    observer: Observer,
    /// The streams that are served, by identity (K13).
    serving: BTreeMap<String, Serving>,
    /// Streams that are given up, until the last of their leases is released, and who waits for it.
    leaving: BTreeMap<String, Option<Reply>>,
    shown: Arc<StreamBoard>,
    orders: Option<mpsc::Receiver<Order>>,
    /// Heartbeat and shard listings; each ends only with what the worker, or its stream, cannot survive.
    background: JoinSet<Ended>,
    failed_looks: u32,
    /// The last look at the leases, if it was carried through.
    seen: Option<Seen>,
}

/// A look at the leases.
struct Seen {
    mark: Option<Mark>,
    snapshot: Snapshot,
    /// When the leases themselves were read.
    read_at: clock::Instant,
}

impl Seen {
    fn now(mark: Option<Mark>, snapshot: Snapshot) -> Self {
        let read_at = clock::now();
        Seen {
            mark,
            snapshot,
            read_at,
        }
    }
}

/// What is kept about a stream that is served.
struct Serving {
    stream: Arc<ServedStream>,
    audit: Audit,
    listing: AbortHandle,
}

/// How a background task ended.
enum Ended {
    Heartbeat(Error),
    /// The stream with this identity is gone.
    Listing(String, Error),
}

impl<F: RecordProcessorFactory> Run<F> {
    /// Registers, brings the leases up to date, and starts the heartbeat.
    pub(super) async fn start(
        opener: Arc<Opener>,
        factory: Arc<F>,
        found: Vec<Found>,
        boards: Boards,
    ) -> Result<Self, Error> {
        let config = opener.config.clone();
        let streams = found.iter().map(|stream| stream.summary.identity());
        let profile = profile(&config, streams.collect());
        let (sent, registration) = register(&*opener.store, &config, &profile).await?;
        let shared = Arc::new(Shared {
            application: config.application.clone(),
            store: Arc::clone(&opener.store),
            window: OwnerWindow::open(sent, config.failover_time),
            read_ahead: Arc::new(Semaphore::new(config.read_ahead_bytes)),
            grace: config.shutdown_grace,
            meters: Arc::default(),
            board: boards.shards,
        });
        let mut background = JoinSet::new();
        let heartbeat = keep_alive(
            Arc::clone(&shared.store),
            config.application.clone(),
            registration.clone(),
            shared.window.clone(),
            config.failover_time,
            Signs::new(&shared.meters, &shared.board),
        );
        background.spawn(async move { Ended::Heartbeat(heartbeat.await) });
        let opened = match opener.open_all(found).await {
            Ok(opened) => opened,
            Err(error) => {
                background.shutdown().await;
                let call = shared.store.deregister(&config.application, &registration);
                if let Err(error) = bounded(config.failover_time, call).await {
                    tracing::debug!(%error, "the worker's row could not be removed");
                }
                return Err(error);
            }
        };
        let window = shared.window.clone();
        shared.board.vitals.begin(window, config.failover_time);
        let mut run = Run {
            held: Held::new(Arc::clone(&shared), factory, &config.worker_id),
            observer: Observer::new(config.failover_time),
            serving: BTreeMap::new(),
            leaving: BTreeMap::new(),
            shown: boards.streams,
            orders: None,
            config,
            shared,
            registration,
            background,
            failed_looks: 0,
            seen: None,
        };
        for stream in opened {
            run.serve(stream);
        }
        Ok(run)
    }

    /// Orders that come from now on are carried out.
    pub(super) fn take_orders(&mut self, orders: mpsc::Receiver<Order>) {
        self.orders = Some(orders);
    }

    /// Works on a stream whose leases are there.
    fn serve(&mut self, opened: Opened) {
        let Opened {
            stream,
            syncer,
            shards,
        } = opened;
        let identity = stream.identity.clone();
        let interval = self.config.shard_sync_interval;
        let listing = keep_synced(
            syncer,
            Arc::clone(&stream.sync),
            interval,
            shards,
            Arc::clone(&self.shared.board),
        );
        let listed = identity.clone();
        let listing = self
            .background
            .spawn(async move { Ended::Listing(listed, listing.await) });
        self.shown.serving(&stream);
        self.shared.board.vitals.well(&gone(&stream.name));
        self.held.serve(Arc::clone(&stream));
        let serving = Serving {
            stream,
            audit: Audit::default(),
            listing,
        };
        self.serving.insert(identity, serving);
    }

    /// Works on a stream no more; `reply` is answered when its last lease is released.
    fn cease(&mut self, identity: String, reply: Option<Reply>) {
        if let Some(serving) = self.serving.remove(&identity) {
            serving.listing.abort();
            let vitals = &self.shared.board.vitals;
            vitals.well(&listing_of(&serving.stream.called));
        }
        self.held.cease(&identity);
        self.leaving.insert(identity, reply);
    }

    /// Tells the other workers which streams are served.
    async fn announce(&self, streams: BTreeSet<String>) -> Result<(), Error> {
        let profile = profile(&self.config, streams);
        let Shared {
            store, application, ..
        } = &*self.shared;
        let call = store.announce(application, &self.registration, &profile);
        bounded(self.config.failover_time, call).await
    }

    async fn carry_out(&mut self, order: Order) {
        match order {
            Order::Add(opened, reply) => {
                let added = self.add(opened).await;
                // Whoever asked may have stopped waiting.
                let _ = reply.send(added);
            }
            Order::Remove(stream, reply) => self.remove(&stream, reply).await,
        }
    }

    async fn add(&mut self, opened: Opened) -> Result<(), Error> {
        let stream = &opened.stream;
        if let Some(known) = self.serving.get(&stream.identity) {
            return Err(twice(&known.stream.called, &stream.called));
        }
        if self.serving.len() >= STREAMS_MAX {
            let message = format!(
                "stream {} cannot be added: the worker serves {STREAMS_MAX} already",
                stream.called
            );
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        if self.leaving.contains_key(&stream.identity) {
            let message = format!("stream {} is still being removed", stream.called);
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let mut streams = self.held.served();
        streams.insert(stream.identity.clone());
        self.announce(streams).await?;
        tracing::info!(stream = %stream.identity, "the stream is added");
        self.serve(opened);
        Ok(())
    }

    async fn remove(&mut self, wanted: &str, reply: Reply) {
        let is_wanted = |stream: &ServedStream| {
            let arn = stream.identity.rsplit_once('@').map(|(arn, _)| arn);
            let names = [&*stream.called, &*stream.name, &*stream.identity];
            names.contains(&wanted) || arn == Some(wanted)
        };
        let mut served = self.serving.values().map(|serving| &serving.stream);
        let Some(stream) = served.find(|stream| is_wanted(stream)).cloned() else {
            let message = format!("this worker serves no stream {wanted}");
            let _ = reply.send(Err(Error::new(ErrorKind::NotFound, message)));
            return;
        };
        let mut streams = self.held.served();
        streams.remove(&stream.identity);
        if let Err(error) = self.announce(streams).await {
            let _ = reply.send(Err(error));
            return;
        }
        tracing::info!(stream = %stream.identity, "the stream is removed");
        self.shown.removing(&stream.identity);
        self.cease(stream.identity.clone(), Some(reply));
    }

    /// Those streams have been left whose last lease is released.
    fn note_left(&mut self) {
        let held = &self.held;
        let left = |identity: &String| !held.is_busy_with(identity);
        let left: Vec<String> = self.leaving.keys().filter(|id| left(id)).cloned().collect();
        for identity in left {
            self.shown.removed(&identity);
            if let Some(reply) = self.leaving.remove(&identity).flatten() {
                let _ = reply.send(Ok(()));
            }
        }
    }

    /// A background task has ended; gives the error that the worker cannot survive.
    async fn take_note(&mut self, ended: Result<Ended, JoinError>) -> Result<(), Error> {
        let (identity, error) = match ended {
            Ok(Ended::Heartbeat(error)) => return Err(error),
            Ok(Ended::Listing(identity, error)) => (identity, error),
            Err(ended) if ended.is_cancelled() => return Ok(()),
            Err(panic) => {
                let message = "a task of the worker panicked";
                return Err(Error::with_source(ErrorKind::Protocol, message, panic));
            }
        };
        if !self.serving.contains_key(&identity) {
            return Ok(());
        }
        self.shown.gone(&identity, &error);
        if self.serving.len() == 1 {
            return Err(error);
        }
        if let Some(serving) = self.serving.get(&identity) {
            let gone = gone(&serving.stream.name);
            self.shared.board.vitals.trouble(&gone, &error);
        }
        tracing::error!(stream = %identity, %error, "the stream is gone, the others go on");
        self.cease(identity, None);
        if let Err(error) = self.announce(self.held.served()).await {
            // Others go on counting on this worker for a stream that has no shards any more.
            tracing::warn!(%error, "the other workers could not be told");
        }
        Ok(())
    }

    /// Works until asked to shut down, or until the worker cannot go on.
    pub(super) async fn until(mut self, asked: CancellationToken) -> Result<(), Error> {
        let mut look_at = clock::now();
        loop {
            self.shared.board.vitals.turned();
            tokio::select! {
                biased;
                () = asked.cancelled() => return self.shut_down().await,
                Some(ended) = self.background.join_next() => {
                    if let Err(error) = self.take_note(ended).await {
                        return self.give_in(error).await;
                    }
                }
                Some(order) = next(&mut self.orders) => {
                    self.carry_out(order).await;
                    look_at = clock::now();
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
            Ok(()) => {
                self.failed_looks = 0;
                self.shared.board.vitals.well(LOOKING);
            }
            Err(error) if error.kind() == ErrorKind::WorkerReplaced => return Err(error),
            Err(error) => {
                self.failed_looks = self.failed_looks.saturating_add(1);
                let failures = self.failed_looks;
                self.shared.board.vitals.trouble(LOOKING, &error);
                tracing::warn!(%error, failures, "the leases cannot be managed, it is tried again");
                return Ok(backoff(pause, self.config.failover_time / 4, failures)
                    .mul_f64(0.5 + 0.5 * fastrand::f64()));
            }
        }
        Ok(pause.mul_f64(0.9 + 0.1 * fastrand::f64()))
    }

    async fn step(&mut self) -> Result<(), Error> {
        self.release().await?;
        self.note_left();
        let begun = self.shared.window.begin_verification();
        let Seen {
            mark,
            snapshot,
            read_at,
        } = self.read_leases().await?;
        self.observer.observe(&snapshot, clock::now());
        self.shared.board.vitals.turned();
        let free = self.shared.read_ahead.available_permits();
        let used = self.config.read_ahead_bytes.saturating_sub(free);
        let used = u32::try_from(used).unwrap_or(u32::MAX);
        self.held.metrics.read_ahead.set(used);
        for (identity, serving) in &mut self.serving {
            for hole in serving.audit.look(&snapshot.leases, identity) {
                tracing::warn!(stream = %identity, from = %hole.start, to = %hole.end, "no lease covers these hash keys, the shards are listed again");
                serving.stream.sync.notify_one();
            }
        }
        let expired = self.observer.expired(clock::now());
        self.held.reconcile(&snapshot, &expired);
        self.shared.window.verified(begun);
        self.adopt(&snapshot).await?;
        let mut staying = snapshot;
        if self.shared.window.is_open() {
            let is_leaving = |row: &WorkerRow| self.observer.is_leaving(&row.worker_id);
            staying.workers.retain(|row| !is_leaving(row));
            self.balance(&staying, &expired).await?;
        }
        self.seen = Some(Seen {
            mark,
            snapshot: staying,
            read_at,
        });
        self.forget_dead().await
    }

    /// Leases and workers as they are. Of leases that are as they were in the last look the checkpoints may have moved on: where one matters, because a
    /// consumer is to begin there, they are read anew.
    async fn read_leases(&mut self) -> Result<Seen, Error> {
        let fresh = |seen: &Seen| clock::now() < seen.read_at + READ_ANEW_AFTER;
        let seen = self.seen.take().filter(fresh);
        let mark = seen.as_ref().and_then(|seen| seen.mark.as_ref());
        match (self.glance(mark).await?, seen) {
            (Glance::Same { workers }, Some(mut seen))
                if !seen
                    .snapshot
                    .leases
                    .iter()
                    .any(|lease| self.held.is_new(lease)) =>
            {
                seen.snapshot.workers = workers;
                Ok(seen)
            }
            (Glance::Changed { mark, snapshot }, _) => Ok(Seen::now(mark, snapshot)),
            (Glance::Same { .. }, _) => match self.glance(None).await? {
                Glance::Changed { mark, snapshot } => Ok(Seen::now(mark, snapshot)),
                Glance::Same { .. } => Err(Error::new(
                    ErrorKind::Store,
                    "the lease store says that leases are as before to a worker that has not seen any",
                )),
            },
        }
    }

    async fn glance(&self, seen: Option<&Mark>) -> Result<Glance, Error> {
        let call = self.shared.store.glance(&self.config.application, seen);
        bounded(self.config.failover_time, call).await
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
        let (loads, troubles) = (Loads::new(), self.shared.board.troubles());
        let proof = store.heartbeat(application, &self.registration, &loads, &troubles);
        bounded(self.config.failover_time, proof).await?;
        Ok(true)
    }

    /// Takes and asks for what the plan says.
    async fn balance(&mut self, snapshot: &Snapshot, expired: &Expired) -> Result<(), Error> {
        let mut plan = assign::plan(&Situation {
            snapshot,
            streams: &self.held.served(),
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
        self.shared.board.vitals.trouble(ENDING, &error);
        self.shared.board.vitals.stopping();
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
        self.shared.board.vitals.stopping();
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

/// What a worker's health names when one of its streams is gone.
fn gone(stream: &str) -> String {
    format!("stream {stream} is gone")
}

/// What the worker says of itself.
fn profile(config: &WorkerConfig, streams: BTreeSet<String>) -> WorkerProfile {
    WorkerProfile {
        streams: Some(streams),
        failover: Some(config.failover_time),
        max_leases: u64::try_from(config.max_leases).ok(),
    }
}

/// The next order; none while nobody can give one.
async fn next(orders: &mut Option<mpsc::Receiver<Order>>) -> Option<Order> {
    orders.as_mut()?.recv().await
}

/// Registers the worker; gives the time before the registration was sent, from which its leases hold.
async fn register(
    store: &dyn LeaseStore,
    config: &WorkerConfig,
    profile: &WorkerProfile,
) -> Result<(clock::Instant, Registration), Error> {
    let mut attempt = 1;
    loop {
        let sent = clock::now();
        let call = store.register(&config.application, &config.worker_id, profile);
        match bounded(config.failover_time, call).await {
            Ok(registration) => return Ok((sent, registration)),
            Err(error) if error.is_retryable() && attempt < START_ATTEMPTS => {
                tracing::warn!(%error, attempt, "registering is tried again");
                tokio::time::sleep(START_PAUSE).await;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}
