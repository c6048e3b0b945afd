//! K8 (fail-over bound), K9 (graceful exit and hand-over), K5 (bounded duplicates), K1 (fencing).

use super::*;
use crate::checkpoint::Position;
use crate::error::ErrorKind;
use crate::fake::recorder::{Entry, Event};
use crate::fake::store::FaultyStore;
use crate::lease::{Lease, MemoryLeaseStore};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn first_by(journal: &Journal, worker: &str, since: Instant) -> Option<Entry> {
    let entries = journal.entries();
    let theirs =
        |e: &&Entry| e.worker == worker && e.at >= since && matches!(e.event, Event::Delivered(_));
    entries.iter().find(theirs).cloned()
}

async fn owned_by(store: &MemoryLeaseStore, worker: &str) -> usize {
    let leases = store.snapshot("app").await.unwrap().leases;
    leases
        .iter()
        .filter(|lease| lease.owner.as_deref() == Some(worker))
        .count()
}

/// Goal: a worker that leaves gives everything up in one transaction, each lease with its last checkpoint.
#[tokio::test(start_paused = true)]
async fn k9_graceful_exit_is_one_transaction() {
    let (kinesis, journal) = (FakeKinesis::new(100), Journal::default());
    let store = FaultyStore::new(MemoryLeaseStore::new());
    journal.behave(|behaviour| behaviour.checkpoints = false);
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    for shard in 0..100 {
        kinesis.put_many(shard, 3);
    }
    until_processed(&kinesis, &journal, SECOND * 5).await;
    worker.stop().await.unwrap();
    assert_eq!(store.released(), [100]);
    let leases = store.inner.snapshot("app").await.unwrap().leases;
    let done = |lease: &Lease| matches!(lease.checkpoint, Position::Sequence { .. });
    assert!(
        leases
            .iter()
            .all(|lease| lease.owner.is_none() && done(lease))
    );
}

/// Feeds all shards until the test ends.
fn feed(kinesis: &FakeKinesis, shards: usize) -> tokio::task::JoinHandle<()> {
    let kinesis = kinesis.clone();
    tokio::spawn(async move {
        loop {
            for shard in 0..shards {
                kinesis.put(shard, "fed");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}

#[tokio::test(start_paused = true)]
async fn two_workers_share_the_shards_evenly() {
    let (kinesis, store, journal) = (
        FakeKinesis::new(4),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    let a = start(&kinesis, store.clone(), &journal, "a").await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(owned_by(&store, "a").await, 4);
    let b = start(&kinesis, store.clone(), &journal, "b").await;
    tokio::time::sleep(SECOND * 3).await;
    assert_eq!(
        (owned_by(&store, "a").await, owned_by(&store, "b").await),
        (2, 2)
    );
    a.stop().await.unwrap();
    b.stop().await.unwrap();
}

/// Goal: crash to first record on the survivor within the fail-over time and 2 s. Method: one of two workers is dropped,
/// fail-over times from 1 s up.
#[tokio::test(start_paused = true)]
async fn k8_takeover_within_failover_time_plus_2s() {
    for failover in [1, 3, 10] {
        let (kinesis, store, journal) = (
            FakeKinesis::new(4),
            MemoryLeaseStore::new(),
            Journal::default(),
        );
        let with = |id| builder(&kinesis, store.clone(), id).failover_time(SECOND * failover);
        let a = launch(with("a"), &journal, "a").await;
        let b = launch(with("b"), &journal, "b").await;
        let feeder = feed(&kinesis, 4);
        tokio::time::sleep(SECOND * 5).await;
        assert_eq!(
            (owned_by(&store, "a").await, owned_by(&store, "b").await),
            (2, 2)
        );
        let orphaned: Vec<String> = {
            let leases = store.snapshot("app").await.unwrap().leases;
            let of_a = leases
                .iter()
                .filter(|lease| lease.owner.as_deref() == Some("a"));
            of_a.map(|lease| lease.key.shard_id.clone()).collect()
        };
        a.task.abort();
        let crashed = Instant::now();
        let limit = SECOND * failover + SECOND * 2;
        until("the orphaned shards are processed", limit, || {
            orphaned.iter().all(|shard| {
                journal.entries().iter().any(|e| {
                    e.worker == "b" && e.shard == *shard && matches!(e.event, Event::Delivered(_))
                })
            })
        })
        .await;
        assert!(
            crashed.elapsed() >= SECOND * failover / 2,
            "it was not waited for the owner"
        );
        feeder.abort();
        until_processed(&kinesis, &journal, SECOND * 5).await;
        b.stop().await.unwrap();
    }
}

/// Goal: a worker that joins gets its share within 500 ms of asking, and no record is delivered twice.
#[tokio::test(start_paused = true)]
async fn k9_graceful_handover_without_duplicates() {
    let (kinesis, store, journal) = (
        FakeKinesis::new(4),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    let a = start(&kinesis, store.clone(), &journal, "a").await;
    let feeder = feed(&kinesis, 4);
    tokio::time::sleep(SECOND).await;
    // Not checkpointed batch by batch: what counts is the checkpoint that goes with the release.
    journal.behave(|behaviour| behaviour.checkpoints = false);
    let b = start(&kinesis, store.clone(), &journal, "b").await;
    let joined = Instant::now();
    until("b has a record", SECOND, || {
        first_by(&journal, "b", joined).is_some()
    })
    .await;
    let took = joined.elapsed();
    assert!(
        took < Duration::from_millis(700),
        "asking and hand-over took {took:?}"
    );
    tokio::time::sleep(SECOND * 2).await;
    feeder.abort();
    until_processed(&kinesis, &journal, SECOND * 5).await;
    a.stop().await.unwrap();
    b.stop().await.unwrap();
    journal.check_no_duplicates().unwrap();
    assert_eq!(journal.count(&Event::LeaseLost), 0);
}

/// Goal: after a graceful shutdown another worker goes on within 500 ms, without duplicates.
#[tokio::test(start_paused = true)]
async fn k9_graceful_exit_is_taken_over_within_500_ms() {
    let (kinesis, store, journal) = (
        FakeKinesis::new(2),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    journal.behave(|behaviour| behaviour.checkpoints = false);
    let a = start(&kinesis, store.clone(), &journal, "a").await;
    let b = start(&kinesis, store.clone(), &journal, "b").await;
    let feeder = feed(&kinesis, 2);
    tokio::time::sleep(SECOND * 3).await;
    a.stop().await.unwrap();
    let stopped = Instant::now();
    until("b has both", Duration::from_millis(500), || {
        let entries = journal.entries();
        let mut shards: Vec<_> = entries
            .iter()
            .filter(|e| e.worker == "b" && e.at >= stopped)
            .filter(|e| matches!(e.event, Event::Delivered(_)))
            .map(|e| e.shard.clone())
            .collect();
        shards.sort();
        shards.dedup();
        shards.len() == 2
    })
    .await;
    feeder.abort();
    until_processed(&kinesis, &journal, SECOND * 5).await;
    b.stop().await.unwrap();
    journal.check_no_duplicates().unwrap();
}

/// Goal: a second run under the same id takes over at once, and the first ends with a clear error. The first never works on the
/// second's leases, though they are under its own id (K1).
#[tokio::test(start_paused = true)]
async fn k1_a_worker_replaced_under_its_id_ends() {
    let (kinesis, store, journal) = (
        FakeKinesis::new(2),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    let first = builder(&kinesis, store.clone(), "w");
    let first = launch(first, &journal, "first run").await;
    tokio::time::sleep(SECOND).await;
    let second = builder(&kinesis, store.clone(), "w");
    let second = launch(second, &journal, "second run").await;
    let error = first.task.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WorkerReplaced);
    assert_eq!(
        journal.count(&Event::LeaseLost),
        2,
        "the processors are told"
    );
    assert_eq!(
        journal.count(&Event::Initialized),
        4,
        "two shards, two runs"
    );
    kinesis.put_many(0, 5);
    until_processed(&kinesis, &journal, SECOND).await;
    second.stop().await.unwrap();
}

/// Goal: a checkpointer of an earlier tenure is refused, even when kept (K1).
#[tokio::test(start_paused = true)]
async fn k1_a_checkpointer_of_an_earlier_tenure_is_refused() {
    let (kinesis, store, journal) = (
        FakeKinesis::new(1),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    journal.behave(|behaviour| behaviour.checkpoints = false);
    kinesis.put_many(0, 5);
    let crashed = start(&kinesis, store.clone(), &journal, "a").await;
    tokio::time::sleep(SECOND).await;
    let kept = journal.checkpointers()[0].clone();
    crashed.task.abort();
    let b = start(&kinesis, store.clone(), &journal, "b").await;
    tokio::time::sleep(FAILOVER * 2).await;
    let before = store.snapshot("app").await.unwrap().leases;
    assert_eq!(
        kept.checkpoint().await.unwrap_err().kind(),
        ErrorKind::LeaseLost
    );
    assert_eq!(store.snapshot("app").await.unwrap().leases, before);
    b.stop().await.unwrap();
    let released = journal.checkpointers().pop().unwrap();
    assert_eq!(
        released.checkpoint().await.unwrap_err().kind(),
        ErrorKind::LeaseLost
    );
}

/// Goal: a processor that never returns does not keep the worker from ending, and its records are delivered again.
#[tokio::test(start_paused = true)]
async fn a_hanging_processor_is_cancelled_after_the_grace_period() {
    let (kinesis, store, journal) = (
        FakeKinesis::new(2),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    kinesis.put_many(0, 5);
    journal.behave(|behaviour| behaviour.takes = Duration::from_secs(1_000_000));
    let builder = builder(&kinesis, store.clone(), "a").shutdown_grace(SECOND * 2);
    let a = launch(builder, &journal, "a").await;
    tokio::time::sleep(SECOND).await;
    let asked = Instant::now();
    a.stop().await.unwrap();
    assert!(asked.elapsed() < SECOND * 3);
    journal.behave(|behaviour| behaviour.takes = Duration::ZERO);
    let b = start(&kinesis, store, &journal, "b").await;
    until_processed(&kinesis, &journal, SECOND).await;
    b.stop().await.unwrap();
}

/// Goal: workers of one application on different streams are not in each other's way: a stream's free shards do not wait for
/// workers that never come for them.
#[tokio::test(start_paused = true)]
async fn k8_workers_on_another_stream_have_no_share() {
    let (kinesis, store, journal) = (
        FakeKinesis::new(4),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    let (payments, other) = (FakeKinesis::new(4), Journal::default());
    let client: Arc<dyn KinesisApi> = Arc::new(payments.clone());
    let of_payments = Worker::builder("app", "payments")
        .client(client)
        .lease_store(store.clone())
        .worker_id("p")
        .failover_time(SECOND * 10);
    let p = launch(of_payments, &other, "p").await;
    tokio::time::sleep(SECOND).await;
    let with = |id| builder(&kinesis, store.clone(), id).failover_time(SECOND * 10);
    let a = launch(with("a"), &journal, "a").await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(owned_by(&store, "a").await, 4, "taken at once");
    assert_eq!(owned_by(&store, "p").await, 4);
    let b = launch(with("b"), &journal, "b").await;
    tokio::time::sleep(SECOND * 3).await;
    assert_eq!(
        (owned_by(&store, "a").await, owned_by(&store, "b").await),
        (2, 2)
    );
    a.task.abort();
    tokio::time::sleep(SECOND * 12).await;
    assert_eq!(owned_by(&store, "b").await, 4, "K8");
    b.stop().await.unwrap();
    p.stop().await.unwrap();
}

/// Goal: while one processor keeps a worker from leaving, its other shards are taken over within 500 ms. Method: one of the
/// leaving worker's shards is in a batch that takes long.
#[tokio::test(start_paused = true)]
async fn k9_a_slow_processor_keeps_no_other_shard_waiting() {
    let (kinesis, store, journal) = (
        FakeKinesis::new(8),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    let with = |id| builder(&kinesis, store.clone(), id).failover_time(SECOND * 10);
    let a = launch(with("a"), &journal, "a").await;
    let b = launch(with("b"), &journal, "b").await;
    tokio::time::sleep(SECOND * 5).await;
    let leases = store.snapshot("app").await.unwrap().leases;
    let slow = leases
        .iter()
        .find(|lease| lease.owner.as_deref() == Some("a"))
        .unwrap();
    journal.behave(|behaviour| {
        behaviour.takes = SECOND * 20;
        behaviour.only_shard = Some(slow.key.shard_id.clone());
    });
    for shard in 0..8 {
        kinesis.put(shard, "x");
    }
    tokio::time::sleep(SECOND).await;
    a.handle.shutdown();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        (owned_by(&store, "a").await, owned_by(&store, "b").await),
        (1, 7)
    );
    a.stop().await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(owned_by(&store, "b").await, 8);
    b.stop().await.unwrap();
    journal.check_no_duplicates().unwrap();
}
