//! Processors that panic, hang or take their time, and parts of the library that die: no other shard may stand still, and nothing may live on half.

use super::troubled::{Callback, Mischief, Troubles};
use super::*;
use crate::error::ErrorKind;
use crate::fake::store::FaultyStore;

/// #10, #702, and KCL's tasks in general: an exception in one callback skips a batch, loses a shard's end, or stops the worker. Here each callback that
/// panics is called again, the others do not notice, and nothing is skipped.
#[tokio::test(start_paused = true)]
async fn k10_a_panic_in_any_callback_stalls_no_other_shard() {
    let scene = Scene::new(2);
    let troubles = Troubles::default();
    for callback in [
        Callback::Initialize,
        Callback::ProcessRecords,
        Callback::ShardEnded,
    ] {
        troubles.set(0, callback, Mischief::Panic, 6);
    }
    let worker = launch_with(scene.builder("w"), troubles.factory(&scene.journal, "w")).await;
    scene.kinesis.put_many(0, 5);
    let (lower, upper) = scene.kinesis.split(0);
    scene.kinesis.put_many(lower, 5);
    scene.kinesis.put_many(upper, 5);
    let mut slowest = Duration::ZERO;
    for _ in 0..30 {
        let put = scene.kinesis.put(1, "x");
        let at = Instant::now();
        until("the other shard goes on", SECOND, || {
            scene.journal.processed().contains(&put)
        })
        .await;
        slowest = slowest.max(at.elapsed());
        sleep(SECOND).await;
    }
    assert!(slowest < SECOND / 2, "{slowest:?}");
    scene.until_processed(SECOND * 15).await;
    troubles.set(1, Callback::LeaseLost, Mischief::Panic, 1);
    scene.leases.tear_out("app", &shard_id(1));
    sleep(SECOND * 2).await;
    scene.kinesis.put_many(1, 5);
    scene.until_processed(SECOND).await;
    for shard in [1, lower, upper] {
        troubles.set(shard, Callback::ShutdownRequested, Mischief::Panic, 1);
    }
    worker.stop().await.unwrap();
    assert!(
        scene
            .leases
            .leases("app")
            .iter()
            .all(|lease| lease.owner.is_none())
    );
    scene.check();
}

/// A shard that is throttled for ever (other consumers take its five reads a second): the others go on, it can still be handed over and shut down at
/// once, and it catches up when it is let.
#[tokio::test(start_paused = true)]
async fn k10_a_shard_throttled_for_ever_stalls_only_itself() {
    let scene = Scene::new(2);
    scene.kinesis.fail_shard(0, Some(ErrorKind::Throttled));
    let a = scene.start("a").await;
    for _ in 0..60 {
        scene.kinesis.put(0, "x");
        scene.kinesis.put(1, "x");
        sleep(SECOND).await;
    }
    assert!(
        scene.journal.processed().len() >= 59,
        "the other shard goes on"
    );
    let b = scene.start("b").await;
    until("the shards are shared", SECOND, || {
        scene.held_by("b").len() == 1
    })
    .await;
    let asked = Instant::now();
    a.stop().await.unwrap();
    assert!(asked.elapsed() < SECOND / 2);
    scene.kinesis.fail_shard(0, None);
    scene.until_processed(SECOND * 10).await;
    b.stop().await.unwrap();
    scene.check_each_once();
}

/// #108, #677, #973: leases lost to the others while a batch took longer than the fail-over time. Heartbeats do not wait for processors.
#[tokio::test(start_paused = true)]
async fn k5_a_batch_that_takes_longer_than_the_failover_time_keeps_its_lease() {
    let scene = Scene::new(4);
    let a = scene.start("a").await;
    let b = scene.start("b").await;
    sleep(SECOND * 3).await;
    scene
        .journal
        .behave(|behaviour| behaviour.takes = FAILOVER * 10);
    let switches = scene.owner_switches();
    (0..4).for_each(|shard| scene.kinesis.put_many(shard, 5));
    sleep(FAILOVER * 11).await;
    scene.until_processed(SECOND).await;
    assert_eq!(scene.owner_switches(), switches);
    a.stop().await.unwrap();
    b.stop().await.unwrap();
    scene.check_each_once();
}

/// #1669: after an unexpected error KCL's leader did nothing any more, but renewed its lock. Here a part of the worker that panics ends the worker in
/// order, with an error, and its shards go to others at once.
#[tokio::test(start_paused = true)]
async fn k10_a_worker_that_loses_a_part_of_itself_ends() {
    let scene = Scene::new(2);
    let settings = scene.builder("a").shard_sync_interval(SECOND * 5);
    let a = launch(settings, &scene.journal, "a").await;
    let settings = scene.builder("b").shard_sync_interval(SECOND * 600);
    let b = launch(settings, &scene.journal, "b").await;
    sleep(SECOND * 2).await;
    scene.kinesis.panic_in("list_shards", 1);
    let error = end_of(a).await;
    assert!(error.to_string().contains("panicked"), "{error}");
    scene.kinesis.put_many(0, 5);
    scene.kinesis.put_many(1, 5);
    scene.until_processed(SECOND).await;
    b.stop().await.unwrap();
    scene.check_each_once();
}

/// #1669 for one shard: a consumer that dies, here of a panic in the client, is started again where it was; nobody else notices.
#[tokio::test(start_paused = true)]
async fn k10_a_consumer_that_dies_is_started_again() {
    let scene = Scene::new(2);
    let worker = scene.start("w").await;
    sleep(SECOND).await;
    let feeder = scene.feed(0..2);
    for _ in 0..5 {
        sleep(SECOND).await;
        scene.kinesis.panic_in("get_records", 3);
    }
    sleep(SECOND).await;
    feeder.abort();
    scene.until_processed(SECOND).await;
    let starts = scene.journal.count(&Event::Initialized);
    assert!((3..=2 + 15).contains(&starts), "{starts} starts");
    worker.stop().await.unwrap();
    scene.check();
}

/// A consumer that dies again and again is started at a decent pace: five times a second, not as fast as the store can write.
#[tokio::test(start_paused = true)]
async fn k10_a_consumer_that_dies_again_and_again_costs_little() {
    let scene = Scene::new(1);
    let store = FaultyStore::new(scene.leases.clone());
    let settings = builder(&scene.kinesis, store.clone(), "w");
    let worker = launch(settings, &scene.journal, "w").await;
    sleep(SECOND).await;
    let before = store.calls();
    scene.kinesis.panic_in("get_records", u32::MAX);
    sleep(SECOND * 10).await;
    let starts = scene.journal.count(&Event::Initialized);
    assert!(
        (20..=60).contains(&starts),
        "{starts} starts in ten seconds"
    );
    for (verb, count) in store.calls() {
        let during = count - before.get(verb).copied().unwrap_or(0);
        assert!(during <= 75, "{during} calls of {verb} in ten seconds");
    }
    scene.kinesis.panic_in("get_records", 0);
    scene.kinesis.put_many(0, 5);
    scene.until_processed(SECOND).await;
    worker.stop().await.unwrap();
    scene.check_each_once();
}
