//! What a fleet costs its lease store, and how it settles: twenty idle workers in one process, on virtual time, against a stream that
//! has shards and no records.

use async_trait::async_trait;
use kcl::client::{IteratorStart, KinesisApi, PutRecord, RecordsPage, Shard, StreamSummary};
use kcl::lease::{
    Ask, Claim, Inspection, LeaseKey, LeaseToken, Loads, NewLease, Registration, Release, Reset,
    ResetChange, ResetNote, Snapshot, Trouble, WorkerProfile, WorkerRow,
};
use kcl::{
    Checkpointer, Error, Lease, LeaseStore, MemoryLeaseStore, PendingCheckpoint, Position,
    ProcessorError, RecordBatch, RecordProcessor, ShardInfo, SqliteLeaseStore, Worker,
    WorkerHandle,
};
use millstream_wire::{HashKeyRange, SequenceNumber};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const APPLICATION: &str = "app";
const FAILOVER: Duration = Duration::from_secs(10);
const WORKERS: usize = 20;
/// How long the store takes over a call.
const LATENCY: Duration = Duration::from_millis(2);
const BETWEEN_STARTS: Duration = Duration::from_millis(100);
/// Within this a fleet that starts, or that a worker joins or leaves, is at rest.
const SETTLED: Duration = Duration::from_secs(5);

/// A stream of shards that nobody writes to.
#[derive(Debug)]
struct Silence(Vec<Shard>);

impl Silence {
    fn of(shards: u32) -> Arc<Silence> {
        let ranges = HashKeyRange::divide(NonZeroU32::new(shards).unwrap());
        let shard = |(index, hash_key_range)| Shard {
            shard_id: format!("shardId-{index:012}"),
            parents: Vec::new(),
            hash_key_range,
            closed: false,
        };
        Arc::new(Silence(ranges.into_iter().enumerate().map(shard).collect()))
    }
}

#[async_trait]
impl KinesisApi for Silence {
    async fn describe_stream(&self, stream: &str) -> Result<StreamSummary, Error> {
        Ok(StreamSummary {
            arn: format!("arn:aws:kinesis:us-east-1:123456789012:stream/{stream}"),
            name: stream.to_owned(),
            created_ms: 1_700_000_000_000,
            status: "ACTIVE".to_owned(),
            server_time_ms: 1_700_000_001_000,
        })
    }

    async fn list_shards(&self, _stream: &str) -> Result<Vec<Shard>, Error> {
        Ok(self.0.clone())
    }

    async fn shard_iterator(
        &self,
        _stream: &str,
        shard_id: &str,
        _start: IteratorStart,
    ) -> Result<String, Error> {
        Ok(shard_id.to_owned())
    }

    async fn get_records(&self, iterator: &str, _limit: u32) -> Result<RecordsPage, Error> {
        Ok(RecordsPage {
            next_iterator: Some(iterator.to_owned()),
            ..RecordsPage::default()
        })
    }

    async fn put_record(&self, record: PutRecord<'_>) -> Result<SequenceNumber, Error> {
        panic!("an idle fleet puts nothing: {record:?}")
    }
}

struct Idle;

#[async_trait]
impl RecordProcessor for Idle {
    async fn process_records(
        &mut self,
        _batch: RecordBatch,
        _checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        Ok(())
    }
}

/// A store that counts its calls by verb, takes its time over each, and is otherwise the one inside.
#[derive(Debug, Clone)]
struct Counting<S> {
    inner: S,
    calls: Arc<Calls>,
    latency: Duration,
}

#[derive(Debug, Default)]
struct Calls {
    writes: Mutex<BTreeMap<&'static str, u64>>,
    reads: AtomicU64,
}

impl Calls {
    fn writes(&self) -> u64 {
        self.writes.lock().unwrap().values().sum()
    }
}

impl<S> Counting<S> {
    async fn writes(&self, verb: &'static str) -> &S {
        *self.calls.writes.lock().unwrap().entry(verb).or_default() += 1;
        self.takes_its_time().await
    }

    async fn reads(&self) -> &S {
        self.calls.reads.fetch_add(1, Ordering::Relaxed);
        self.takes_its_time().await
    }

    async fn takes_its_time(&self) -> &S {
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
        &self.inner
    }
}

#[async_trait]
impl<S: LeaseStore> LeaseStore for Counting<S> {
    async fn register(
        &self,
        application: &str,
        worker_id: &str,
        profile: &WorkerProfile,
    ) -> Result<Registration, Error> {
        let inner = self.writes("register").await;
        inner.register(application, worker_id, profile).await
    }

    async fn heartbeat(
        &self,
        application: &str,
        worker: &Registration,
        loads: &Loads,
        troubles: &[Trouble],
    ) -> Result<(), Error> {
        let inner = self.writes("heartbeat").await;
        inner.heartbeat(application, worker, loads, troubles).await
    }

    async fn deregister(&self, application: &str, worker: &Registration) -> Result<(), Error> {
        let inner = self.writes("deregister").await;
        inner.deregister(application, worker).await
    }

    async fn forget_workers(&self, application: &str, dead: &[WorkerRow]) -> Result<(), Error> {
        let inner = self.writes("forget_workers").await;
        inner.forget_workers(application, dead).await
    }

    async fn snapshot(&self, application: &str) -> Result<Snapshot, Error> {
        self.reads().await.snapshot(application).await
    }

    async fn lease(&self, application: &str, key: &LeaseKey) -> Result<Option<Lease>, Error> {
        self.reads().await.lease(application, key).await
    }

    async fn create_leases(&self, application: &str, leases: &[NewLease]) -> Result<usize, Error> {
        let inner = self.writes("create_leases").await;
        inner.create_leases(application, leases).await
    }

    async fn take(
        &self,
        application: &str,
        worker: &Registration,
        claims: &[Claim],
    ) -> Result<Vec<Lease>, Error> {
        let inner = self.writes("take").await;
        inner.take(application, worker, claims).await
    }

    async fn ask(
        &self,
        application: &str,
        worker: &Registration,
        asks: &[Ask],
    ) -> Result<usize, Error> {
        let inner = self.writes("ask").await;
        inner.ask(application, worker, asks).await
    }

    async fn checkpoint(
        &self,
        application: &str,
        token: &LeaseToken,
        position: &Position,
    ) -> Result<(), Error> {
        let inner = self.writes("checkpoint").await;
        inner.checkpoint(application, token, position).await
    }

    async fn prepare(
        &self,
        application: &str,
        token: &LeaseToken,
        pending: &PendingCheckpoint,
    ) -> Result<(), Error> {
        let inner = self.writes("prepare").await;
        inner.prepare(application, token, pending).await
    }

    async fn end_shard(
        &self,
        application: &str,
        token: &LeaseToken,
        children: &[NewLease],
    ) -> Result<(), Error> {
        let inner = self.writes("end_shard").await;
        inner.end_shard(application, token, children).await
    }

    async fn release(&self, application: &str, releases: &[Release]) -> Result<usize, Error> {
        let inner = self.writes("release").await;
        inner.release(application, releases).await
    }

    async fn delete_ended(&self, application: &str, keys: &[LeaseKey]) -> Result<usize, Error> {
        let inner = self.writes("delete_ended").await;
        inner.delete_ended(application, keys).await
    }

    async fn applications(&self) -> Result<Vec<String>, Error> {
        self.reads().await.applications().await
    }

    async fn inspect(&self, application: &str) -> Result<Inspection, Error> {
        self.reads().await.inspect(application).await
    }

    async fn reset(&self, application: &str, reset: &Reset) -> Result<Vec<ResetChange>, Error> {
        let inner = self.writes("reset").await;
        inner.reset(application, reset).await
    }

    async fn resets(&self, application: &str) -> Result<Vec<ResetNote>, Error> {
        self.reads().await.resets(application).await
    }
}

/// Workers of one application on stores of one kind, which share what they count.
struct Fleet<F> {
    stream: Arc<Silence>,
    store: F,
    calls: Arc<Calls>,
    workers: Vec<Running>,
    started: usize,
}

struct Running {
    handle: WorkerHandle,
    task: JoinHandle<Result<(), Error>>,
}

impl<S: LeaseStore, F: AsyncFn() -> S> Fleet<F> {
    fn new(shards: u32, store: F) -> Self {
        Fleet {
            stream: Silence::of(shards),
            store,
            calls: Arc::default(),
            workers: Vec::new(),
            started: 0,
        }
    }

    async fn join(&mut self, latency: Duration) {
        self.started += 1;
        let client: Arc<dyn KinesisApi> = Arc::clone(&self.stream) as _;
        let store = Counting {
            inner: (self.store)().await,
            calls: Arc::clone(&self.calls),
            latency,
        };
        let worker = Worker::builder(APPLICATION, "orders")
            .client(client)
            .lease_store(store)
            .worker_id(format!("worker-{:02}", self.started))
            .failover_time(FAILOVER)
            .poll_interval(Duration::from_secs(1))
            .build(|_: &ShardInfo| Idle)
            .await
            .unwrap();
        self.workers.push(Running {
            handle: worker.handle(),
            task: tokio::spawn(worker.run()),
        });
    }

    async fn leave(&mut self) {
        let worker = self.workers.remove(0);
        worker.handle.shutdown();
        worker.task.await.unwrap().unwrap();
    }

    async fn leases(&self) -> Vec<Lease> {
        (self.store)()
            .await
            .snapshot(APPLICATION)
            .await
            .unwrap()
            .leases
    }

    /// Waits until all leases are held, by workers that hold equally many give or take one; how long that took.
    async fn converged(&self, limit: Duration) -> Duration {
        let start = Instant::now();
        loop {
            let leases = self.leases().await;
            let mut held: BTreeMap<&str, usize> = BTreeMap::new();
            for lease in &leases {
                if let Some(owner) = &lease.owner {
                    *held.entry(owner).or_default() += 1;
                }
            }
            let (total, workers) = (self.stream.0.len(), self.workers.len());
            let fair = total / workers..=total.div_ceil(workers);
            let settled = held.values().sum::<usize>() == total
                && held.len() == workers.min(total)
                && held.values().all(|count| fair.contains(count));
            let took = start.elapsed();
            if settled {
                return took;
            }
            assert!(
                took < limit,
                "after {took:?} {total} leases are held like this: {held:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Watches a fleet at rest for a while; writes and reads per second. Nothing may move.
    async fn at_rest(&self, while_resting: Duration) -> (f64, f64) {
        let switches =
            |leases: Vec<Lease>| -> u64 { leases.iter().map(|lease| lease.owner_switches).sum() };
        // What was under way when the fleet settled.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let switched = switches(self.leases().await);
        let (writes, reads) = (
            self.calls.writes(),
            self.calls.reads.load(Ordering::Relaxed),
        );
        let start = Instant::now();
        tokio::time::sleep(while_resting).await;
        let seconds = start.elapsed().as_secs_f64();
        let per_second = |count: u64| u32::try_from(count).map(f64::from).unwrap() / seconds;
        let rates = (
            per_second(self.calls.writes() - writes),
            per_second(self.calls.reads.load(Ordering::Relaxed) - reads),
        );
        assert_eq!(switches(self.leases().await), switched, "leases moved");
        rates
    }

    async fn end(mut self) {
        for worker in &self.workers {
            worker.handle.shutdown();
        }
        for worker in self.workers.drain(..) {
            worker.task.await.unwrap().unwrap();
        }
    }
}

/// How many changes of owner each lease went through from `before` to `after`: in all, and the most of one.
fn moves(before: &[Lease], after: &[Lease]) -> (u64, u64) {
    let pairs = before.iter().zip(after);
    let each = pairs.map(|(then, now)| {
        assert_eq!(then.key, now.key);
        now.owner_switches - then.owner_switches
    });
    let each: Vec<u64> = each.collect();
    (
        each.iter().sum(),
        each.iter().copied().max().unwrap_or_default(),
    )
}

/// Twenty workers share 10, 100 and 1,000 leases, fairly and within five seconds; at rest they write less than fifty times a second in
/// all, whatever the number of leases.
#[tokio::test(start_paused = true)]
async fn idle_fleet_writes_little_whatever_the_number_of_leases() {
    let _alone = support::alone().await;
    let resting = Duration::from_secs(if support::scaled(0, 1) == 0 { 4 } else { 60 });
    for shards in [10, 100, 1000] {
        let memory = MemoryLeaseStore::new();
        let mut fleet = Fleet::new(shards, async || memory.clone());
        for _ in 0..WORKERS {
            fleet.join(LATENCY).await;
            // So that the first has everything, and the others ask for it.
            tokio::time::sleep(BETWEEN_STARTS).await;
        }
        let took = fleet.converged(SETTLED).await;
        let (writes, reads) = fleet.at_rest(resting).await;
        println!(
            "{shards} leases, {WORKERS} workers: fair after {took:?}; at rest {writes:.1} writes/s, {reads:.0} reads/s"
        );
        assert!(writes < 50.0, "{writes} writes/s: {:?}", fleet.calls);
        fleet.end().await;
    }
}

/// A worker that joins gets its share and no lease moves besides; the leases of one that leaves move and no others. Each moves once.
#[tokio::test(start_paused = true)]
async fn joining_and_leaving_moves_no_more_leases_than_needed() {
    let _alone = support::alone().await;
    let shards = support::scaled(300, 1000);
    let afterwards = Duration::from_secs(if support::scaled(0, 1) == 0 { 2 } else { 40 });
    let memory = MemoryLeaseStore::new();
    let mut fleet = Fleet::new(u32::try_from(shards).unwrap(), async || memory.clone());
    for _ in 0..WORKERS {
        fleet.join(LATENCY).await;
    }
    fleet.converged(SETTLED).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = fleet.leases().await;
    fleet.join(LATENCY).await;
    let took = fleet.converged(SETTLED).await;
    tokio::time::sleep(afterwards).await;
    let (moved, most) = moves(&before, &fleet.leases().await);
    println!("one of 21 joined: fair after {took:?}, {moved} leases moved");
    let share = u64::try_from(shards.div_ceil(WORKERS + 1)).unwrap();
    assert!(
        moved <= share && most == 1,
        "{moved} moves, up to {most} of one lease"
    );

    let before = fleet.leases().await;
    let held = |id: &str| {
        let of = |lease: &&Lease| lease.owner.as_deref() == Some(id);
        u64::try_from(before.iter().filter(of).count()).unwrap()
    };
    let orphans = held("worker-01");
    fleet.leave().await;
    let took = fleet.converged(SETTLED).await;
    tokio::time::sleep(afterwards).await;
    let (moved, most) = moves(&before, &fleet.leases().await);
    println!("one of 21 left: fair after {took:?}, {moved} leases moved");
    assert!(
        moved == orphans && most == 1,
        "{moved} moves of {orphans}, up to {most} of one lease"
    );
    fleet.end().await;
}

/// The long variant: the same in real time with twenty stores on one file.
#[tokio::test(flavor = "multi_thread")]
async fn idle_fleet_on_one_sqlite_file() {
    let (shards, resting) = match support::scaled(0, 1) {
        0 => return,
        _ => ([10, 100, 1000], Duration::from_secs(30)),
    };
    let _alone = support::alone().await;
    for shards in shards {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("leases.db");
        let mut fleet = Fleet::new(shards, async || {
            SqliteLeaseStore::open(&path).await.unwrap()
        });
        for _ in 0..WORKERS {
            fleet.join(Duration::ZERO).await;
        }
        let took = fleet.converged(SETTLED * 6).await;
        let (writes, reads) = fleet.at_rest(resting).await;
        println!(
            "SQLite, {shards} leases, {WORKERS} workers: fair after {took:?}; at rest {writes:.1} writes/s, {reads:.0} reads/s"
        );
        assert!(writes < 50.0, "{writes} writes/s: {:?}", fleet.calls);
        fleet.end().await;
    }
}
