//! What the hosts share: time, the network between them and their peers, and those peers.
//!
//! A call is a message that travels, takes effect, and is answered by another message; each may be late, lost or doubled. Messages
//! under way belong to the world: a caller that crashes, or gives up waiting, does not call them back.

use super::history::{Change, Event, History, What};
use super::kinesis::Kinesis;
use super::processor::Mood;
use crate::checkpoint::Position;
use crate::clock::Instant;
use crate::error::{Error, ErrorKind};
use crate::lease::{Lease, LeaseKey, LeaseStore, LeaseToken, MemoryLeaseStore};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::oneshot;

pub(super) const APPLICATION: &str = "app";

/// The verb of whoever deletes leases by hand.
pub(super) const TORN_OUT: &str = "torn out";

/// How the network behaves towards all.
#[derive(Debug, Clone)]
pub(super) struct Weather {
    /// How long a message takes, milliseconds, from and to.
    pub(super) quick_ms: (u64, u64),
    /// How many requests and how many replies take longer, and how long the longest does.
    pub(super) slow_request: f64,
    pub(super) slow_reply: f64,
    pub(super) slowest: Duration,
    pub(super) lose_request: f64,
    pub(super) lose_reply: f64,
    /// How many losses nobody is told of, so that the caller waits.
    pub(super) silent: f64,
    /// How many requests arrive twice.
    pub(super) again: f64,
    pub(super) store_down: bool,
    pub(super) kinesis_down: bool,
}

/// Which of a host's messages do not arrive, or late.
#[expect(clippy::struct_excessive_bools, reason = "four ways, each cut or not")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cuts {
    pub(super) to_store: bool,
    pub(super) from_store: bool,
    pub(super) to_kinesis: bool,
    pub(super) from_kinesis: bool,
    /// How much longer the store's replies take.
    pub(super) lag: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Store,
    Kinesis,
}

/// Whether the network may deliver a request twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    Perhaps,
    Never,
}

/// The first leases of an application on a stream.
#[derive(Debug, Clone)]
pub(super) struct Beginning {
    /// The number of history entries before it.
    pub(super) after: usize,
    /// The time from which on records are wanted, where it is stored.
    pub(super) from_ms: Option<u64>,
}

impl Beginning {
    fn of(after: usize, lease: Option<&Lease>) -> Self {
        let from_ms = match lease.map(|lease| lease.checkpoint) {
            Some(Position::AtTimestamp(ms)) => Some(ms),
            _ => None,
        };
        Beginning { after, from_ms }
    }
}

type Due = Box<dyn FnOnce(&mut World) + Send>;

pub(super) struct World {
    /// Since the beginning; hosts are at most one tick ahead.
    pub(super) now: Duration,
    /// For what the network and the peers do.
    pub(super) rng: Rng,
    pub(super) weather: Weather,
    pub(super) cuts: Vec<Cuts>,
    pub(super) mood: Mood,
    /// For what processors do.
    pub(super) mood_rng: Rng,
    pub(super) kinesis: Kinesis,
    pub(super) history: History,
    /// Every record some processor declared done.
    pub(super) handled: BTreeSet<super::history::RecordId>,
    /// Whether the server's clock has ever stepped.
    pub(super) clock_stepped: bool,
    pub(super) most_skew_ms: i64,
    pub(super) leases: BTreeMap<LeaseKey, Lease>,
    /// When each stream got its first leases.
    pub(super) beginnings: BTreeMap<String, Beginning>,
    store: MemoryLeaseStore,
    due: BTreeMap<(Duration, u64), Due>,
    scheduled: u64,
    /// The clock of the host that runs, as it was when its tick began.
    turn: Option<Instant>,
}

#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub(super) fn new(world: World) -> Self {
        Shared(Arc::new(Mutex::new(world)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

impl World {
    pub(super) fn new(seed: u64, kinesis: Kinesis, weather: Weather, mood: Mood) -> Self {
        World {
            now: Duration::ZERO,
            rng: Rng::with_seed(seed ^ 0x6e65_7477_6f72_6b00),
            weather,
            cuts: Vec::new(),
            mood,
            mood_rng: Rng::with_seed(seed ^ 0x6d6f_6f64_0000_0000),
            kinesis,
            history: History::default(),
            handled: BTreeSet::new(),
            clock_stepped: false,
            most_skew_ms: 0,
            leases: BTreeMap::new(),
            beginnings: BTreeMap::new(),
            store: MemoryLeaseStore::new(),
            due: BTreeMap::new(),
            scheduled: 0,
            turn: None,
        }
    }

    /// The time of whoever acts just now.
    pub(super) fn time(&self) -> Duration {
        let ahead = self
            .turn
            .map_or(Duration::ZERO, |began| crate::clock::now() - began);
        self.now + ahead
    }

    pub(super) fn begin_turn(&mut self, local: Instant) {
        self.turn = Some(local);
    }

    pub(super) fn end_turn(&mut self) {
        self.turn = None;
    }

    pub(super) fn event(&mut self, event: Event) {
        let at = self.time();
        self.history.note(at, What::World(event));
    }

    pub(super) fn fault(&mut self, what: impl Into<String>) {
        self.event(Event::Fault(what.into()));
    }

    fn at(&mut self, when: Duration, due: Due) {
        self.scheduled += 1;
        self.due.insert((when, self.scheduled), due);
    }

    /// Lets everything arrive that is due.
    pub(super) fn deliver_due(&mut self) {
        while let Some(first) = self.due.first_entry() {
            if first.key().0 > self.now {
                return;
            }
            let due = first.remove();
            due(self);
        }
    }

    fn takes(&mut self, slow: f64) -> Duration {
        let (from, to) = self.weather.quick_ms;
        if self.rng.f64() < slow {
            return self.weather.slowest.mul_f64(self.rng.f64());
        }
        Duration::from_millis(self.rng.u64(from..=to))
    }

    fn is_cut(&self, host: usize, peer: Peer, there: bool) -> bool {
        let cuts = self.cuts[host];
        match (peer, there) {
            (Peer::Store, true) => self.weather.store_down || cuts.to_store,
            (Peer::Store, false) => cuts.from_store,
            (Peer::Kinesis, true) => self.weather.kinesis_down || cuts.to_kinesis,
            (Peer::Kinesis, false) => cuts.from_kinesis,
        }
    }

    /// Deletes a lease, as nobody may but an operator.
    pub(super) fn tear_out(&mut self, shard_id: &str) {
        self.store.tear_out(APPLICATION, shard_id);
        self.note_changes(0, TORN_OUT, &[]);
    }

    /// Looks what a call of the store has changed.
    fn note_changes(&mut self, host: usize, verb: &'static str, by: &[LeaseToken]) {
        let now = ready(self.store.snapshot(APPLICATION)).unwrap();
        let after: BTreeMap<LeaseKey, Lease> = now
            .leases
            .into_iter()
            .map(|lease| (lease.key.clone(), lease))
            .collect();
        if after == self.leases {
            return;
        }
        let before = std::mem::replace(&mut self.leases, after);
        let keys: BTreeSet<&LeaseKey> = before.keys().chain(self.leases.keys()).collect();
        for key in keys {
            let (was, is) = (before.get(key), self.leases.get(key));
            if was != is {
                let after = self.history.entries.len();
                self.beginnings
                    .entry(key.stream.clone())
                    .or_insert_with(|| Beginning::of(after, is));
                let change = Change {
                    verb,
                    host,
                    by: by.iter().find(|token| token.key == *key).cloned(),
                    before: was.cloned(),
                    after: is.cloned(),
                };
                self.history.note(self.now, What::Lease(change));
            }
        }
    }
}

/// What a message does where it arrives; more than once if it is doubled.
type Apply<T> = Arc<dyn Fn(&mut World) -> Result<T, Error> + Send + Sync>;

struct Call<T> {
    host: usize,
    peer: Peer,
    apply: Apply<T>,
    answer: oneshot::Sender<Result<T, Error>>,
}

fn unavailable(what: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("simulated: {what}"))
}

impl World {
    fn send<T: Send + 'static>(&mut self, call: Call<T>, repeat: Repeat) {
        let sent = self.time();
        let takes = self.takes(self.weather.slow_request);
        if repeat == Repeat::Perhaps && self.rng.f64() < self.weather.again {
            let apply = Arc::clone(&call.apply);
            let (host, peer) = (call.host, call.peer);
            let later = sent + takes + self.takes(self.weather.slow_request);
            self.at(
                later,
                Box::new(move |world| {
                    if !world.is_cut(host, peer, true) {
                        let _nobody_listens = apply(world);
                    }
                }),
            );
        }
        let lost = self.rng.f64() < self.weather.lose_request;
        self.at(
            sent + takes,
            Box::new(move |world| world.arrive(call, lost)),
        );
    }

    fn arrive<T: Send + 'static>(&mut self, call: Call<T>, lost: bool) {
        let Call {
            host,
            peer,
            apply,
            answer,
        } = call;
        if lost || self.is_cut(host, peer, true) {
            return self.fail(answer, "the request was lost");
        }
        let result = apply(self);
        let lost = self.rng.f64() < self.weather.lose_reply;
        let lag = match peer {
            Peer::Store => self.cuts[host].lag,
            Peer::Kinesis => Duration::ZERO,
        };
        let back = self.now + self.takes(self.weather.slow_reply) + lag;
        self.at(
            back,
            Box::new(move |world| {
                if lost || world.is_cut(host, peer, false) {
                    world.fail(answer, "the reply was lost");
                } else {
                    let _gone = answer.send(result);
                }
            }),
        );
    }

    /// The caller learns of it now, or never.
    fn fail<T>(&mut self, answer: oneshot::Sender<Result<T, Error>>, what: &str) {
        if self.rng.f64() >= self.weather.silent {
            let _gone = answer.send(Err(unavailable(what)));
        }
    }
}

/// One host's connection to the world.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) world: Shared,
    pub(super) host: usize,
    /// After this the client of the stream gives up waiting; the store's callers have limits of their own.
    pub(super) request_timeout: Duration,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link of host {}", self.host)
    }
}

impl Link {
    async fn call<T: Send + 'static>(
        &self,
        peer: Peer,
        repeat: Repeat,
        apply: Apply<T>,
    ) -> Result<T, Error> {
        let (answer, reply) = oneshot::channel();
        let call = Call {
            host: self.host,
            peer,
            apply,
            answer,
        };
        self.world.lock().send(call, repeat);
        match reply.await {
            Ok(result) => result,
            Err(_) => std::future::pending().await,
        }
    }

    /// Calls the stream's endpoint.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        apply: impl Fn(&mut World) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        let call = self.call(Peer::Kinesis, Repeat::Perhaps, Arc::new(apply));
        tokio::time::timeout(self.request_timeout, call)
            .await
            .unwrap_or_else(|_| Err(unavailable("the endpoint did not answer in time")))
    }

    /// Calls the lease store with something that changes nothing the checker looks at.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        apply: impl Fn(&MemoryLeaseStore) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        let apply = move |world: &mut World| apply(&world.store);
        self.call(Peer::Store, Repeat::Perhaps, Arc::new(apply))
            .await
    }

    /// Calls the lease store with something that may change leases.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        verb: &'static str,
        by: Vec<LeaseToken>,
        apply: impl Fn(&MemoryLeaseStore) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        let host = self.host;
        let apply = move |world: &mut World| {
            let result = apply(&world.store);
            world.note_changes(host, verb, &by);
            result
        };
        self.call(Peer::Store, Repeat::Perhaps, Arc::new(apply))
            .await
    }

    /// Registers with the lease store. No database runs a transaction twice for one request, and this is the one that
    /// would not bear it.
    pub(super) async fn register<T: Send + 'static>(
        &self,
        worker: String,
        apply: impl Fn(&MemoryLeaseStore) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        let host = self.host;
        let apply = move |world: &mut World| {
            let result = apply(&world.store);
            let worker = worker.clone();
            world.event(Event::Registered { worker });
            world.note_changes(host, "register", &[]);
            result
        };
        self.call(Peer::Store, Repeat::Never, Arc::new(apply)).await
    }
}

/// The result of a future that never waits.
pub(super) fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("the memory store does not wait"),
    }
}
