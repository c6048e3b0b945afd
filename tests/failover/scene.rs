//! What every test here begins with: a server, a stream of four shards that is written to all the time, and a
//! fleet of workers on one lease database, which is watched.

use crate::{SERVER, WORKER};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use support::history::{Acked, Event, Place, deliveries, holders, outstanding};
use support::load::{Load, Shape};
use support::reader::read_stream;
use support::worker::Fleet;
use support::{RawClient, ServerProcess, Store, WorkerProcess, leases, wait_until};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) const STREAM: &str = "orders";
pub(crate) const FAILOVER: Duration = Duration::from_secs(2);
/// How long anything may take that has no bound of its own.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Scene {
    pub(crate) client: RawClient,
    pub(crate) fleet: Fleet,
    load: Option<Load>,
    acked: Vec<Acked>,
    watcher: Watcher,
    pub(crate) server: ServerProcess,
}

/// What differs from scene to scene.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// What each worker takes over a batch of at most five hundred records.
    pub(crate) delay: Duration,
    pub(crate) failover: Duration,
    /// Where the leases are; else in a file.
    pub(crate) store: Option<Store>,
    /// How long each of sixteen writers waits from one put to the next.
    pub(crate) pause: Duration,
    /// Workers read by enhanced fan-out.
    pub(crate) fan_out: bool,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            delay: Duration::from_millis(5),
            failover: FAILOVER,
            store: None,
            pause: Duration::from_millis(50),
            fan_out: false,
        }
    }
}

impl Scene {
    /// Each worker takes `delay` over a batch.
    pub(crate) async fn start(delay: Duration) -> Scene {
        Scene::with(Setup {
            delay,
            ..Setup::default()
        })
        .await
    }

    pub(crate) async fn with(setup: Setup) -> Scene {
        let server = ServerProcess::start(SERVER).await;
        let client = server.client();
        client.create_stream(STREAM, 4).await;
        let shape = Shape {
            writers: 16,
            pause: setup.pause,
            batch: 2,
            padding_bytes: 0,
        };
        let load = Some(Load::start(&client, STREAM, shape));
        // Who polls although records should be pushed is slow.
        let poll_ms = if setup.fan_out { 10_000 } else { 50 };
        let mut fleet = Fleet::new(WORKER, &server.url(), STREAM, setup.failover)
            .with("--delay-ms", &setup.delay.as_millis())
            .with("--max-records", &500)
            .with("--fan-out", &u8::from(setup.fan_out))
            .with("--poll-ms", &poll_ms);
        if let Some(store) = setup.store {
            fleet = fleet.on(store);
        }
        let watcher = Watcher::start(fleet.store().clone());
        Scene {
            client,
            fleet,
            load,
            acked: Vec::new(),
            watcher,
            server,
        }
    }

    /// Stops the writers; what was put and acknowledged.
    pub(crate) async fn stop_writers(&mut self) -> &[Acked] {
        if let Some(load) = self.load.take() {
            let (acked, refusals) = load.stop().await;
            assert_eq!(refusals, []);
            self.acked = acked;
        }
        &self.acked
    }

    /// Two workers that share the shards, both at work.
    pub(crate) async fn two_workers(&mut self) -> (WorkerProcess, WorkerProcess) {
        let pair = (self.fleet.start().await, self.fleet.start().await);
        self.balanced(&pair.0, &pair.1).await;
        pair
    }

    /// Waits until each of two workers holds two shards.
    pub(crate) async fn balanced(&self, one: &WorkerProcess, other: &WorkerProcess) {
        wait_until("each worker holds two shards", PATIENCE, || async {
            let holders = holders(&self.fleet.history([one, other]));
            let count =
                |worker: &WorkerProcess| holders.values().filter(|id| *id == worker.id()).count();
            (count(one) == 2 && count(other) == 2).then_some(())
        })
        .await;
        // Moves of shards come to rest.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    /// Shards that `worker` holds by the account of all.
    pub(crate) fn held_by(&self, worker: &WorkerProcess, other: &WorkerProcess) -> Vec<String> {
        let holders = holders(&self.fleet.history([worker, other]));
        holders
            .into_iter()
            .filter(|(_, id)| id == worker.id())
            .map(|(shard, _)| shard)
            .collect()
    }

    /// Stops the writers and waits until the workers have got and checkpointed everything; what there was to
    /// get, the parents of each shard, and the whole history.
    pub(crate) async fn finish(
        mut self,
        running: &[&WorkerProcess],
    ) -> (BTreeSet<Place>, BTreeMap<String, Vec<String>>, Vec<Event>) {
        self.stop_writers().await;
        let whole = read_stream(&self.client, STREAM).await.unwrap();
        let places = |shard: &support::history::ReadShard| {
            let of = shard.shard.clone();
            shard
                .records
                .iter()
                .map(move |record| (of.clone(), record.sequence.clone()))
                .collect::<Vec<_>>()
        };
        let expected: BTreeSet<Place> = whole.iter().flat_map(places).collect();
        let parents = whole
            .into_iter()
            .map(|shard| (shard.shard, shard.parents))
            .collect();
        wait_until("the workers have done everything", PATIENCE, || async {
            let events = self.fleet.history(running.iter().copied());
            let all = expected.is_subset(&deliveries(&events).into_keys().collect());
            let done = running
                .iter()
                .all(|one| outstanding(&events, one.id()).is_empty());
            (all && done).then_some(())
        })
        .await;
        let events = self.end(running.iter().copied()).await;
        println!("{} records, {} events", expected.len(), events.len());
        (expected, parents, events)
    }

    /// Ends without waiting for anything; the whole history.
    pub(crate) async fn end<'a>(
        self,
        workers: impl IntoIterator<Item = &'a WorkerProcess>,
    ) -> Vec<Event> {
        self.watcher.stop().await;
        self.fleet.history(workers)
    }
}

/// Looks at the lease table all the time; K1 and K3 must hold from each look to the next.
struct Watcher {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Watcher {
    fn start(store: Store) -> Watcher {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut before = leases::LeaseTable::new();
            let (mut connection, mut looks) = (None, 0);
            while stopped.try_recv().is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
                if connection.is_none() {
                    connection = store.look().await;
                    continue;
                }
                // A connection that was cut off is opened anew; in between nobody can be blamed for anything.
                let Some(now) = leases::look(connection.as_mut().unwrap()).await else {
                    connection = None;
                    continue;
                };
                leases::moves_forward(&before, &now).unwrap();
                before.extend(now);
                looks += 1;
            }
            assert!(
                before.len() >= 4 && looks > 50,
                "{looks} looks at {before:?}"
            );
        });
        Watcher { stop, task }
    }

    async fn stop(self) {
        // A watcher that failed has ended already; its panic comes with the task.
        let _ = self.stop.send(());
        self.task.await.unwrap();
    }
}
