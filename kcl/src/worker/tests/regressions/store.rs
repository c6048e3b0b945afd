//! Lease tables that were changed by hand, are damaged, or do not answer.

use super::troubled::{Callback, Mischief, Troubles};
use super::*;
use crate::error::ErrorKind;
use crate::fake::store::FaultyStore;

/// #461: a lease deleted while its holder runs is not created again before a restart, and the shard is silent. Here the holder stops, and the next
/// listing of the shards brings it back, also where it was the only one.
#[tokio::test(start_paused = true)]
async fn k7_the_only_lease_comes_back_with_the_next_listing_when_it_is_deleted() {
    let scene = Scene::new(1);
    let settings = scene.builder("w").shard_sync_interval(SECOND * 10);
    let worker = launch(settings, &scene.journal, "w").await;
    scene.kinesis.put_many(0, 5);
    scene.until_processed(SECOND).await;
    scene.leases.tear_out("app", &shard_id(0));
    scene.kinesis.put_many(0, 5);
    scene.until_processed(SECOND * 12).await;
    assert_eq!(scene.journal.count(&Event::LeaseLost), 1);
    worker.stop().await.unwrap();
    scene.check();
}

/// #461 for leases that nobody holds: here they are back when a worker starts.
#[tokio::test(start_paused = true)]
async fn k7_leases_deleted_while_free_are_there_when_a_worker_starts() {
    let scene = Scene::new(3);
    let worker = scene.start("w").await;
    sleep(SECOND).await;
    worker.stop().await.unwrap();
    scene.leases.tear_out("app", &shard_id(1));
    (0..3).for_each(|shard| scene.kinesis.put_many(shard, 5));
    let worker = scene.start("w").await;
    scene.until_processed(SECOND).await;
    worker.stop().await.unwrap();
    scene.check_each_once();
}

/// #150 ("No lease found for shard. Not blocking"): a parent whose lease is *gone* keeps nobody waiting, one whose row is *damaged* does: nobody can
/// tell whether it has ended. It is not created again or taken, and when the row is mended all goes on.
#[tokio::test(start_paused = true)]
async fn k6_a_damaged_parent_holds_back_its_children_and_a_missing_one_does_not() {
    let scene = Scene::new(2);
    let store = FaultyStore::new(scene.leases.clone());
    let settings = || builder(&scene.kinesis, store.clone(), "w").shard_sync_interval(SECOND * 5);
    let worker = launch(settings(), &scene.journal, "w").await;
    scene.kinesis.put_many(0, 5);
    scene.until_processed(SECOND).await;
    let (lower, upper) = scene.kinesis.split(0);
    store.damage(&[shard_id(0)]);
    scene.kinesis.put_many(lower, 5);
    scene.kinesis.put_many(1, 5);
    sleep(SECOND * 20).await;
    assert_eq!(
        scene.journal.processed().len(),
        10,
        "the sound shard goes on"
    );
    assert_eq!(scene.first_delivery(lower), None);
    store.damage(&[]);
    scene.until_processed(SECOND * 6).await;
    assert!(scene.has_ended(0));
    scene.leases.tear_out("app", &shard_id(0));
    sleep(SECOND * 10).await;
    worker.stop().await.unwrap();
    let worker = launch(settings(), &scene.journal, "w").await;
    scene.kinesis.put_many(upper, 5);
    scene.until_processed(SECOND).await;
    assert_eq!(scene.leases.leases("app").len(), 3, "it does not come back");
    worker.stop().await.unwrap();
    scene.check();
}

/// #1354, #1788: KCL changed its lease in memory before the write to the table, or took the change back outside the lock, so that later writes went by
/// what was never stored. Method: checkpoints fail while everything else works; what the store holds is what the next run begins with.
#[tokio::test(start_paused = true)]
async fn k11_a_checkpoint_that_fails_counts_for_nothing() {
    let scene = Scene::new(1);
    let store = FaultyStore::new(scene.leases.clone());
    let settings = || builder(&scene.kinesis, store.clone(), "w");
    let worker = launch(settings(), &scene.journal, "w").await;
    scene.kinesis.put_many(0, 5);
    scene.until_processed(SECOND).await;
    store.set(|faults| faults.down = &["checkpoint"]);
    let last = scene.kinesis.put(0, "x");
    sleep(SECOND * 2).await;
    assert_ne!(scene.lease(0).checkpoint, Position::after(last));
    store.set(|faults| faults.down = &[]);
    sleep(SECOND * 3).await;
    let stored = scene.lease(0);
    assert_eq!(
        stored.checkpoint,
        Position::after(last),
        "it is tried again"
    );
    store.set(|faults| faults.down = &["checkpoint"]);
    scene.kinesis.put_many(0, 5);
    scene.until_processed(SECOND).await;
    sleep(SECOND * 5).await;
    assert_eq!(scene.lease(0), stored);
    worker.stop().await.unwrap();
    let released = scene.lease(0);
    assert_eq!(
        released.checkpoint, stored.checkpoint,
        "the batch never succeeded"
    );
    store.set(|faults| faults.down = &[]);
    let delivered = scene.journal.deliveries();
    let worker = launch(settings(), &scene.journal, "w").await;
    sleep(SECOND).await;
    worker.stop().await.unwrap();
    let again = scene.journal.deliveries();
    let once_more = |put: &millstream_wire::SequenceNumber| again[put] - delivered[put];
    let put = scene.kinesis.put_so_far();
    assert!(put[..6].iter().all(|put| once_more(put) == 0));
    assert!(put[6..].iter().all(|put| once_more(put) == 1));
    assert_eq!(scene.lease(0).checkpoint, Position::after(put[10]));
    scene.check();
}

/// #1788: the revert of a failed write raced with other writes of the same lease. Method: many checkpoints at once, the first of which fail.
#[tokio::test(start_paused = true)]
async fn k11_concurrent_checkpoints_agree_with_the_store() {
    let scene = Scene::new(1);
    scene.journal.behave(|behaviour| {
        behaviour.checkpoints = false;
        behaviour.takes = SECOND * 2;
    });
    let store = FaultyStore::new(scene.leases.clone());
    let settings = builder(&scene.kinesis, store.clone(), "w");
    let worker = launch(settings, &scene.journal, "w").await;
    let put: Vec<_> = (0..5).map(|_| scene.kinesis.put(0, "x")).collect();
    sleep(SECOND).await;
    let checkpointer = scene.journal.checkpointers().remove(0);
    store.set(|faults| faults.down = &["checkpoint"]);
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let checkpointer = checkpointer.clone();
            tokio::spawn(async move { checkpointer.checkpoint().await })
        })
        .collect();
    sleep(SECOND / 2).await;
    store.set(|faults| faults.down = &[]);
    let (mut stored, mut failed) = (0, 0);
    for call in calls {
        match call.await.unwrap() {
            Ok(()) => stored += 1,
            Err(_) => failed += 1,
        }
    }
    assert!(stored > 0 && failed > 0, "{stored} stored, {failed} failed");
    assert_eq!(scene.lease(0).checkpoint, Position::after(put[4]));
    worker.stop().await.unwrap();
    scene.check_each_once();
}

/// #1302, #1700, #1702: a graceful shutdown that never ends. Here it ends within the grace period and a few fail-over times, with the store out of
/// reach or silent; the leases expire, and nothing is lost.
#[tokio::test(start_paused = true)]
async fn k9_a_shutdown_ends_while_the_store_does_not_answer() {
    for silent in [false, true] {
        let scene = Scene::new(20);
        let store = FaultyStore::new(scene.leases.clone());
        let settings = builder(&scene.kinesis, store.clone(), "a").shutdown_grace(SECOND * 5);
        let a = launch(settings, &scene.journal, "a").await;
        sleep(SECOND).await;
        scene.journal.behave(|behaviour| behaviour.takes = SECOND);
        (0..20).for_each(|shard| scene.kinesis.put_many(shard, 5));
        sleep(SECOND / 2).await;
        store.set(|faults| {
            faults.unreachable = !silent;
            faults.request_takes = if silent {
                SECOND * 3600
            } else {
                Duration::ZERO
            };
        });
        let asked = Instant::now();
        a.stop().await.unwrap();
        let took = asked.elapsed();
        assert!(took < SECOND * 5 + FAILOVER * 3, "{took:?}");
        let b = scene.start("b").await;
        scene.until_processed(FAILOVER + SECOND * 3).await;
        b.stop().await.unwrap();
        scene.check();
    }
}

/// #1302: the shutdown of KCL 2.5 skipped consumers. Here every processor is asked once, every lease is released with its last checkpoint, and
/// the worker's row goes.
#[tokio::test(start_paused = true)]
async fn k9_a_shutdown_is_complete() {
    let scene = Scene::new(10);
    let troubles = Troubles::default();
    // One in its batch, one whose batch fails, one that has not begun, one that has ended; the others at rest.
    troubles.set(0, Callback::ProcessRecords, Mischief::Take(SECOND), 1);
    troubles.set(1, Callback::ProcessRecords, Mischief::Fail, u32::MAX);
    troubles.set(2, Callback::Initialize, Mischief::Fail, u32::MAX);
    let worker = launch_with(scene.builder("w"), troubles.factory(&scene.journal, "w")).await;
    scene.kinesis.close(3);
    sleep(SECOND).await;
    (0..3).for_each(|shard| scene.kinesis.put_many(shard, 5));
    (4..10).for_each(|shard| scene.kinesis.put_many(shard, 5));
    sleep(SECOND / 2).await;
    worker.stop().await.unwrap();
    let asked: Vec<usize> = (0..10)
        .map(|shard| scene.count(shard, &Event::ShutdownRequested))
        .collect();
    assert_eq!(asked, [1, 1, 1, 0, 1, 1, 1, 1, 1, 1]);
    let snapshot = scene.leases.snapshot("app").await.unwrap();
    assert!(snapshot.workers.is_empty());
    assert!(snapshot.leases.iter().all(|lease| lease.owner.is_none()));
    for shard in [0, 4, 9] {
        assert!(matches!(
            scene.lease(shard).checkpoint,
            Position::Sequence { .. }
        ));
    }
    for shard in [1, 2] {
        assert_eq!(
            scene.lease(shard).checkpoint,
            Position::TrimHorizon,
            "nothing was done"
        );
    }
}

/// Two processes under one id, by a mistake in a deployment; KCL lets both renew the same leases, and work on. Here the later one wins, and the earlier
/// ends with an error that says so: at its next look it stops, it never begins a shard of the later one, and it checkpoints nothing.
#[tokio::test(start_paused = true)]
async fn k1_of_two_processes_under_one_id_the_later_one_works() {
    let scene = Scene::new(4);
    let run = |number: u32| {
        let builder = scene.builder("twin");
        let journal = scene.journal.clone();
        async move { launch(builder, &journal, &format!("run {number}")).await }
    };
    let feeder = scene.feed(0..4);
    let mut former = run(0).await;
    for number in 1..6 {
        sleep(SECOND * 2).await;
        let began = Instant::now();
        let later = run(number).await;
        let error = end_of(former).await;
        assert_eq!(error.kind(), ErrorKind::WorkerReplaced);
        assert!(began.elapsed() < FAILOVER / 2);
        let entries = scene.journal.entries().clone();
        let name = format!("run {}", number - 1);
        let of_former = entries.iter().filter(|entry| entry.worker == name);
        let last = of_former
            .clone()
            .filter(|entry| matches!(entry.event, Event::Delivered(_)))
            .map(|entry| entry.at)
            .max();
        assert!(
            last.unwrap() < began + SECOND / 4,
            "it stops at its next look"
        );
        let begun = of_former.filter(|entry| entry.event == Event::Initialized);
        assert_eq!(begun.count(), 4);
        former = later;
    }
    feeder.abort();
    scene.until_processed(SECOND).await;
    former.stop().await.unwrap();
    scene
        .journal
        .check_no_loss(&scene.kinesis.put_so_far())
        .unwrap();
    scene.journal.check_order().unwrap();
}

/// A damaged row under LATEST: the children of its shard have no lease yet, and nobody can tell from the row that they come after one. Method: the row
/// is damaged, the shard is split, and the worker starts again after records came to the children.
#[tokio::test(start_paused = true)]
async fn k4_children_of_a_damaged_lease_begin_at_their_beginning_under_latest() {
    let scene = Scene::new(1);
    let store = FaultyStore::new(scene.leases.clone());
    let start = || {
        let settings = latest(builder(&scene.kinesis, store.clone(), "w"));
        launch(
            settings.shard_sync_interval(SECOND * 5),
            &scene.journal,
            "w",
        )
    };
    let worker = start().await;
    sleep(SECOND).await;
    scene.kinesis.put_many(0, 5);
    scene.until_processed(SECOND).await;
    worker.stop().await.unwrap();
    store.damage(&[shard_id(0)]);
    let (lower, upper) = scene.kinesis.split(0);
    scene.kinesis.put_many(lower, 5);
    scene.kinesis.put_many(upper, 5);
    sleep(SECOND * 10).await;
    let worker = start().await;
    sleep(SECOND * 10).await;
    store.damage(&[]);
    scene.until_processed(SECOND * 2).await;
    worker.stop().await.unwrap();
    scene.check_each_once();
}
