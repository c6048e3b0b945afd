//! K4 (no loss), K6 (order), K7 (coverage) and the life of one worker.

use super::*;
use crate::checkpoint::Position;
use crate::error::ErrorKind;
use crate::fake::recorder::Event;
use crate::fake::shard_id;
use crate::lease::MemoryLeaseStore;
use crate::seeded_bug::{Bug, make};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn processes_every_record_and_resumes_after_the_checkpoint() {
    let (kinesis, store, journal) = (
        FakeKinesis::new(3),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    for shard in 0..3 {
        kinesis.put_many(shard, 25);
    }
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    until_processed(&kinesis, &journal, SECOND).await;
    worker.stop().await.unwrap();
    kinesis.put_many(1, 5);
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    until_processed(&kinesis, &journal, SECOND).await;
    worker.stop().await.unwrap();
    journal.check_no_duplicates().unwrap();
    journal.check_order().unwrap();
    let snapshot = store.snapshot("app").await.unwrap();
    assert!(snapshot.workers.is_empty());
    assert!(snapshot.leases.iter().all(|lease| lease.owner.is_none()));
}

/// A run with failing and panicking batches, judged by the K4 checker.
async fn run_with_failures(panics: bool) -> Result<(), String> {
    let (kinesis, journal) = (FakeKinesis::new(2), Journal::default());
    kinesis.put_many(0, 30);
    kinesis.put_many(1, 30);
    journal.behave(|behaviour| {
        behaviour.failures = 5;
        behaviour.panics = panics;
    });
    let worker = start(&kinesis, MemoryLeaseStore::new(), &journal, "w").await;
    tokio::time::sleep(SECOND * 30).await;
    worker.stop().await.unwrap();
    journal
        .check_no_loss(&kinesis.put_so_far())
        .and_then(|()| journal.check_order())
}

#[tokio::test(start_paused = true)]
async fn k4_no_loss_when_the_processor_fails() {
    run_with_failures(false).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn k4_no_loss_when_the_processor_panics() {
    run_with_failures(true).await.unwrap();
}

/// A checker that cannot fail proves nothing: with a consumer that skips failed batches it must.
#[tokio::test(start_paused = true)]
async fn k4_the_checker_catches_a_consumer_that_skips_a_failed_batch() {
    let making = make(Bug::SkipFailedBatch);
    let judged = run_with_failures(false).await;
    drop(making);
    assert!(judged.unwrap_err().starts_with("K4: lost"));
}

/// Goal: under LATEST, records that arrive between the first acquisition and the first checkpoint survive a crash. Method: the first
/// worker never checkpoints and is dropped.
#[tokio::test(start_paused = true)]
async fn k4_no_loss_when_crashing_before_the_first_checkpoint_under_latest() {
    let (kinesis, store, journal) = (
        FakeKinesis::new(2),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    let before = kinesis.put(0, "before the application");
    tokio::time::sleep(SECOND * 5).await;
    let first = launch(latest(builder(&kinesis, store.clone(), "a")), &journal, "a").await;
    tokio::time::sleep(SECOND).await;
    journal.behave(|behaviour| behaviour.failures = u32::MAX);
    kinesis.put_many(0, 7);
    kinesis.put_many(1, 7);
    tokio::time::sleep(SECOND).await;
    first.task.abort();
    kinesis.put_many(0, 7);
    journal.behave(|behaviour| behaviour.failures = 0);
    let second = launch(latest(builder(&kinesis, store.clone(), "b")), &journal, "b").await;
    tokio::time::sleep(SECOND * 10).await;
    second.stop().await.unwrap();
    let put = kinesis.put_so_far();
    journal.check_no_loss(&put[1..]).unwrap();
    assert!(
        !journal.processed().contains(&before),
        "it was put before the application began"
    );
}

/// Goal: a starting time is read once: when the server's clock is set back afterwards, a restart still begins with the first record
/// that was found. Method: LATEST, a worker that never checkpoints, a crash, and a clock ten minutes behind.
#[tokio::test(start_paused = true)]
async fn k4_no_loss_when_the_clock_is_set_back_before_the_first_checkpoint() {
    let (kinesis, store, journal) = (
        FakeKinesis::new(1),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    journal.behave(|behaviour| behaviour.failures = u32::MAX);
    let first = launch(latest(builder(&kinesis, store.clone(), "a")), &journal, "a").await;
    tokio::time::sleep(SECOND * 2).await;
    kinesis.set_clock_back(SECOND * 600);
    kinesis.put_many(0, 3);
    tokio::time::sleep(SECOND).await;
    first.task.abort();
    let lease = store.snapshot("app").await.unwrap().leases.remove(0);
    let put = kinesis.put_so_far();
    assert_eq!(lease.checkpoint, Position::AtSequence(put[0]));
    journal.behave(|behaviour| behaviour.failures = 0);
    let second = launch(latest(builder(&kinesis, store, "b")), &journal, "b").await;
    tokio::time::sleep(SECOND * 10).await;
    second.stop().await.unwrap();
    journal.check_no_loss(&put).unwrap();
}

#[tokio::test(start_paused = true)]
async fn k4_no_loss_when_iterators_expire() {
    let (kinesis, journal) = (FakeKinesis::new(1), Journal::default());
    let worker = launch(
        latest(builder(&kinesis, MemoryLeaseStore::new(), "w")),
        &journal,
        "w",
    )
    .await;
    tokio::time::sleep(SECOND).await;
    // Before the first record, in between, and several at once.
    for _ in 0..5 {
        kinesis.expire_iterators();
        kinesis.put_many(0, 13);
        tokio::time::sleep(Duration::from_millis(37)).await;
        kinesis.expire_iterators();
        tokio::time::sleep(SECOND).await;
    }
    worker.stop().await.unwrap();
    journal.check_no_loss(&kinesis.put_so_far()).unwrap();
    journal.check_no_duplicates().unwrap();
}

#[tokio::test(start_paused = true)]
async fn k4_no_loss_when_reads_are_throttled_and_fail() {
    let (kinesis, journal) = (FakeKinesis::new(2), Journal::default());
    kinesis.put_many(0, 40);
    kinesis.put_many(1, 40);
    kinesis.fail(&[
        ErrorKind::Unavailable,
        ErrorKind::Protocol,
        ErrorKind::NotFound,
        ErrorKind::Unavailable,
        ErrorKind::AccessDenied,
        ErrorKind::Unavailable,
    ]);
    let worker = start(&kinesis, MemoryLeaseStore::new(), &journal, "w").await;
    until_processed(&kinesis, &journal, SECOND * 20).await;
    worker.stop().await.unwrap();
    journal.check_no_duplicates().unwrap();
}

/// Goal: no loss and parents first through splits and merges, whether pages name the children or not. K7: the leases that have not ended
/// cover the whole hash key space afterwards.
async fn reshard(names_children: bool) {
    let (kinesis, store, journal) = (
        FakeKinesis::new(2),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    if !names_children {
        kinesis.name_no_children();
    }
    kinesis.put_many(0, 25);
    kinesis.put_many(1, 5);
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    let (lower, upper) = kinesis.split(0);
    kinesis.put_many(lower, 12);
    kinesis.put_many(upper, 12);
    tokio::time::sleep(SECOND * 2).await;
    kinesis.put_many(1, 15);
    let merged = kinesis.merge(upper, 1);
    kinesis.put_many(merged, 12);
    until_processed(&kinesis, &journal, SECOND * 5).await;
    journal.check_order().unwrap();
    journal.check_no_duplicates().unwrap();
    assert_eq!(journal.count(&Event::ShardEnded), 3);
    let snapshot = store.snapshot("app").await.unwrap();
    let open: Vec<_> = snapshot
        .leases
        .iter()
        .filter(|l| l.checkpoint != Position::ShardEnd)
        .collect();
    let ranges: Vec<_> = open
        .iter()
        .map(|lease| lease.hash_key_range.unwrap())
        .collect();
    assert!(millstream_wire::hash_key::tiles(&ranges), "K7: {open:?}");
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn k6_k7_children_start_after_their_parents_and_the_leases_cover_the_stream() {
    reshard(true).await;
}

#[tokio::test(start_paused = true)]
async fn k6_k7_the_same_with_a_server_that_names_no_children() {
    reshard(false).await;
}

/// Goal: a poison record stalls no other shard (K10), and its own batch is never skipped.
#[tokio::test(start_paused = true)]
async fn k10_a_poison_batch_stalls_only_its_shard() {
    let (kinesis, journal) = (FakeKinesis::new(2), Journal::default());
    journal.behave(|behaviour| {
        behaviour.failures = u32::MAX;
        behaviour.only_shard = Some(shard_id(0));
    });
    kinesis.put_many(0, 5);
    let worker = start(&kinesis, MemoryLeaseStore::new(), &journal, "w").await;
    for _ in 0..20 {
        kinesis.put_many(1, 5);
        tokio::time::sleep(SECOND).await;
    }
    assert_eq!(journal.processed().len(), 100, "the other shard went on");
    journal.behave(|behaviour| behaviour.failures = 0);
    until_processed(&kinesis, &journal, SECOND * 15).await;
    worker.stop().await.unwrap();
}

/// Goal: what was delivered but failed is not checkpointed by a shutdown.
#[tokio::test(start_paused = true)]
async fn k4_no_loss_when_shutting_down_while_a_batch_is_retried() {
    let (kinesis, store, journal) = (
        FakeKinesis::new(1),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    kinesis.put_many(0, 5);
    let worker = start(&kinesis, store.clone(), &journal, "a").await;
    until_processed(&kinesis, &journal, SECOND).await;
    journal.behave(|behaviour| behaviour.failures = u32::MAX);
    kinesis.put_many(0, 5);
    tokio::time::sleep(SECOND).await;
    worker.stop().await.unwrap();
    assert_eq!(journal.count(&Event::ShutdownRequested), 1);
    journal.behave(|behaviour| behaviour.failures = 0);
    let worker = start(&kinesis, store, &journal, "b").await;
    until_processed(&kinesis, &journal, SECOND).await;
    worker.stop().await.unwrap();
}

/// Goal: a recreated stream ends the worker with a clear error, and is not taken for one whose shards have ended (K13).
#[tokio::test(start_paused = true)]
async fn k13_a_recreated_stream_ends_the_worker() {
    let (kinesis, store, journal) = (
        FakeKinesis::new(1),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    kinesis.put_many(0, 5);
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    until_processed(&kinesis, &journal, SECOND).await;
    kinesis.recreate();
    let error = worker.task.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("created anew"), "{error}");
    assert_eq!(journal.count(&Event::ShardEnded), 0);
    // The new stream has leases of its own and starts from its beginning.
    kinesis.put_many(0, 3);
    let worker = start(&kinesis, store, &journal, "w").await;
    until_processed(&kinesis, &journal, SECOND).await;
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn k13_a_missing_stream_is_never_the_end_of_its_shards() {
    let (kinesis, store, journal) = (
        FakeKinesis::new(1),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    tokio::time::sleep(SECOND).await;
    kinesis.set_missing(true);
    let error = worker.task.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(journal.count(&Event::ShardEnded), 0);
    let left = store.snapshot("app").await.unwrap();
    assert_eq!(left.leases[0].checkpoint, Position::TrimHorizon);
    assert_eq!(
        left.leases[0].owner, None,
        "a worker that ends with an error gives its leases up"
    );
    assert!(left.workers.is_empty());
}

/// Goal: a shard that outlived the retention before it was finished does not hold back its children for ever; a shard that
/// is only missing does not end.
#[tokio::test(start_paused = true)]
async fn k10_a_shard_that_outlived_the_retention_lets_its_children_start() {
    let (kinesis, store, journal) = (
        FakeKinesis::new(2),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    kinesis.put_many(0, 5);
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    until_processed(&kinesis, &journal, SECOND).await;
    worker.stop().await.unwrap();
    kinesis.put_many(0, 5);
    kinesis.outlive(0);
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    tokio::time::sleep(SECOND * 60).await;
    assert_eq!(journal.count(&Event::ShardEnded), 0, "no child, no end");
    let (lower, upper) = kinesis.split(0);
    kinesis.put_many(lower, 5);
    kinesis.put_many(upper, 5);
    until_processed(&kinesis, &journal, SECOND * 40).await;
    assert_eq!(journal.count(&Event::ShardEnded), 1);
    worker.stop().await.unwrap();
}

/// Goal: the same when the children have outlived it too: an application that was away for that long goes on with the oldest
/// records there are, also under LATEST, and holds no lease that leads nowhere.
#[tokio::test(start_paused = true)]
async fn k4_k10_goes_on_after_generations_of_shards_outlived_the_retention() {
    let (kinesis, store, journal) = (
        FakeKinesis::new(1),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    let start = |journal: &Journal| {
        let builder = latest(builder(&kinesis, store.clone(), "w"));
        let journal = journal.clone();
        async move { launch(builder, &journal, "w").await }
    };
    let worker = start(&journal).await;
    tokio::time::sleep(SECOND).await;
    kinesis.put_many(0, 5);
    until_processed(&kinesis, &journal, SECOND).await;
    worker.stop().await.unwrap();
    let (lower, upper) = kinesis.split(0);
    let grandchildren = [kinesis.split(lower), kinesis.split(upper)];
    for gone in [0, lower, upper] {
        kinesis.outlive(gone);
    }
    for (first, second) in grandchildren {
        kinesis.put_many(first, 5);
        kinesis.put_many(second, 5);
    }
    tokio::time::sleep(SECOND * 5).await;
    let worker = start(&journal).await;
    until_processed(&kinesis, &journal, SECOND * 40).await;
    tokio::time::sleep(SECOND * 40).await;
    assert_eq!(journal.count(&Event::ShardEnded), 1);
    let leases = store.snapshot("app").await.unwrap().leases;
    let held = leases.iter().filter(|lease| lease.owner.is_some()).count();
    assert_eq!(held, 4, "{leases:?}");
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_missing_stream_or_store_is_said_at_the_start() {
    let (kinesis, journal) = (FakeKinesis::new(1), Journal::default());
    kinesis.set_missing(true);
    let build = builder(&kinesis, MemoryLeaseStore::new(), "w").build(journal.factory("w"));
    assert_eq!(build.await.unwrap_err().kind(), ErrorKind::NotFound);
    let none = Worker::builder("app", "orders")
        .client(Arc::new(kinesis))
        .build(journal.factory("w"));
    assert_eq!(none.await.unwrap_err().kind(), ErrorKind::Configuration);
}

/// Goal: a worker may be started while the stream is being created, and under LATEST misses nothing of it.
#[tokio::test(start_paused = true)]
async fn k4_no_loss_from_a_stream_that_is_being_created() {
    let (kinesis, journal) = (FakeKinesis::new(2), Journal::default());
    kinesis.set_creating(true);
    let worker = launch(
        latest(builder(&kinesis, MemoryLeaseStore::new(), "w")),
        &journal,
        "w",
    )
    .await;
    tokio::time::sleep(SECOND * 30).await;
    kinesis.set_creating(false);
    kinesis.put_many(0, 5);
    kinesis.put_many(1, 5);
    until_processed(&kinesis, &journal, SECOND * 2).await;
    worker.stop().await.unwrap();
}

/// Goal: at the tip a shard is read no more than five times a second, with or without records coming in; behind it without pauses.
#[tokio::test(start_paused = true)]
async fn reads_no_more_often_than_kinesis_allows() {
    let (kinesis, journal) = (FakeKinesis::new(1), Journal::default());
    kinesis.put_many(0, 500);
    let worker = start(&kinesis, MemoryLeaseStore::new(), &journal, "w").await;
    until_processed(&kinesis, &journal, SECOND).await;
    let before = kinesis.reads();
    for _ in 0..100 {
        kinesis.put(0, "x");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let reads = kinesis.reads() - before;
    assert!((40..=51).contains(&reads), "{reads} reads in 10 s");
    worker.stop().await.unwrap();
}

/// Goal: a factory that panics is called again at a decent pace, and stalls no other shard (K10).
#[tokio::test(start_paused = true)]
async fn k10_a_factory_that_panics_is_called_again_after_a_pause() {
    let (kinesis, journal) = (FakeKinesis::new(2), Journal::default());
    kinesis.put_many(0, 5);
    kinesis.put_many(1, 5);
    let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let (inner, counted) = (journal.factory("w"), Arc::clone(&calls));
    let worker = builder(&kinesis, MemoryLeaseStore::new(), "w")
        .build(move |shard: &crate::ShardInfo| {
            let broken = shard.shard_id == shard_id(0);
            let call = counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            assert!(!broken || call > 20, "a panic on demand");
            inner(shard)
        })
        .await
        .unwrap();
    let handle = worker.handle();
    let task = tokio::spawn(worker.run());
    tokio::time::sleep(SECOND * 5).await;
    assert_eq!(journal.processed().len(), 5, "the other shard went on");
    let calls = calls.load(std::sync::atomic::Ordering::SeqCst);
    assert!(calls < 12, "{calls} calls in five seconds");
    until_processed(&kinesis, &journal, SECOND * 200).await;
    handle.shutdown();
    task.await.unwrap().unwrap();
}

/// Goal: under LATEST nothing that comes in after the worker was built is lost, also not from a shard that is closed before the
/// worker first lists the shards.
#[tokio::test(start_paused = true)]
async fn k4_no_loss_under_latest_when_a_shard_is_closed_before_the_worker_runs() {
    let (kinesis, journal) = (FakeKinesis::new(1), Journal::default());
    let before = kinesis.put(0, "before the application");
    tokio::time::sleep(SECOND * 5).await;
    let worker = latest(builder(&kinesis, MemoryLeaseStore::new(), "w"))
        .build(journal.factory("w"))
        .await
        .unwrap();
    kinesis.put_many(0, 5);
    let (lower, upper) = kinesis.split(0);
    kinesis.put_many(lower, 5);
    kinesis.put_many(upper, 5);
    let handle = worker.handle();
    let task = tokio::spawn(worker.run());
    tokio::time::sleep(SECOND * 5).await;
    handle.shutdown();
    task.await.unwrap().unwrap();
    journal.check_no_loss(&kinesis.put_so_far()[1..]).unwrap();
    journal.check_order().unwrap();
    assert!(!journal.processed().contains(&before));
}

/// Goal: a worker that cannot begin leaves no row that others would take for a worker.
#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_begin_leaves_nothing_behind() {
    let (kinesis, store, journal) = (
        FakeKinesis::new(1),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    let worker = builder(&kinesis, store.clone(), "w")
        .build(journal.factory("w"))
        .await
        .unwrap();
    kinesis.set_missing(true);
    let error = worker.run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(store.snapshot("app").await.unwrap().workers.is_empty());
}
