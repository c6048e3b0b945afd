//! The end of a shard and the start of its children: where most stuck shards and lost records of other libraries come from.

use super::troubled::{Callback, Mischief, Troubles};
use super::*;
use crate::checkpoint::Checkpointer;
use crate::error::ErrorKind;
use crate::fake::recorder::Recorder;
use crate::fake::store::FaultyStore;
use crate::processor::{ProcessorError, Record, RecordBatch, RecordProcessor, ShardInfo};
use async_trait::async_trait;

/// When a processor checkpoints the last record of a shard, besides all others in their batches.
#[derive(Debug, Clone, Copy)]
enum Habit {
    Never,
    InTheBatch,
    AtTheEnd,
    Twice,
    EverythingAtTheEnd,
}

struct Thrifty {
    habit: Habit,
    last: Option<Record>,
    inner: Recorder,
}

#[async_trait]
impl RecordProcessor for Thrifty {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        self.last = batch.records().last().cloned();
        self.inner.process_records(batch, checkpointer).await?;
        if matches!(self.habit, Habit::InTheBatch | Habit::Twice) {
            checkpointer
                .checkpoint_at(self.last.as_ref().unwrap())
                .await?;
        }
        Ok(())
    }

    async fn shard_ended(&mut self, checkpointer: &Checkpointer) -> Result<(), ProcessorError> {
        match (self.habit, &self.last) {
            (Habit::AtTheEnd | Habit::Twice, Some(last)) => {
                checkpointer.checkpoint_at(last).await?;
            }
            (Habit::EverythingAtTheEnd, _) => checkpointer.checkpoint().await?,
            _ => {}
        }
        self.inner.shard_ended(checkpointer).await
    }
}

/// #211, #1733, #63: the last record was checkpointed in its batch; checkpointed again at the shard's end it counted as done already, `SHARD_END`
/// was never stored, and the children never began. Here the library stores the end, whatever the processor checkpoints.
#[tokio::test(start_paused = true)]
async fn k6_a_shard_ends_whenever_its_last_record_is_checkpointed() {
    for habit in [
        Habit::Never,
        Habit::InTheBatch,
        Habit::AtTheEnd,
        Habit::Twice,
        Habit::EverythingAtTheEnd,
    ] {
        let scene = Scene::new(1);
        scene
            .journal
            .behave(|behaviour| behaviour.checkpoints = false);
        let inner = scene.journal.factory("w");
        let thrifty = move |shard: &ShardInfo| Thrifty {
            habit,
            last: None,
            inner: inner(shard),
        };
        let worker = launch_with(scene.builder("w"), thrifty).await;
        scene.kinesis.put_many(0, 15);
        scene.until_processed(SECOND).await;
        let (lower, upper) = scene.kinesis.split(0);
        scene.kinesis.put_many(lower, 5);
        scene.kinesis.put_many(upper, 5);
        scene.until_processed(SECOND * 2).await;
        assert!(scene.has_ended(0), "{habit:?}");
        assert_eq!(scene.count(0, &Event::ShardEnded), 1, "{habit:?}");
        worker.stop().await.unwrap();
        scene.check_each_once();
    }
}

/// #211, too: a crash after the last record was checkpointed and before the end was stored. The next run has no record left to read, and ends the
/// shard all the same.
#[tokio::test(start_paused = true)]
async fn k6_a_shard_whose_last_record_was_checkpointed_before_a_crash_ends() {
    let scene = Scene::new(1);
    let store = FaultyStore::new(scene.leases.clone());
    store.set(|faults| faults.down = &["end_shard"]);
    let a = launch(builder(&scene.kinesis, store, "a"), &scene.journal, "a").await;
    let last = scene.kinesis.put(0, "x");
    scene.until_processed(SECOND).await;
    let (lower, upper) = scene.kinesis.split(0);
    scene.kinesis.put_many(lower, 5);
    scene.kinesis.put_many(upper, 5);
    sleep(SECOND).await;
    assert_eq!(scene.lease(0).checkpoint, Position::after(last));
    assert_eq!(
        scene.count(0, &Event::ShardEnded),
        1,
        "said before it is stored"
    );
    a.task.abort();
    let b = scene.start("b").await;
    scene.until_processed(FAILOVER + SECOND).await;
    assert!(scene.has_ended(0));
    b.stop().await.unwrap();
    scene.check_each_once();
}

/// KCL 2.x and 3.x: a page without a next iterator and without children is no shard end, and was taken for one before #623. The shard goes on.
#[tokio::test(start_paused = true)]
async fn k4_an_end_of_a_shard_that_is_open_is_not_believed() {
    let scene = Scene::new(2);
    let worker = scene.start("w").await;
    for _ in 0..3 {
        scene.kinesis.put_many(0, 25);
        scene.kinesis.end_falsely(0, 2);
        sleep(SECOND * 2).await;
    }
    scene.until_processed(SECOND * 5).await;
    assert_eq!(scene.journal.count(&Event::ShardEnded), 0);
    worker.stop().await.unwrap();
    scene.check_each_once();
}

/// LATEST and late listings (#327, #449, #1095): neither the last page nor the listing names the children when their parent ends. They begin at their
/// beginning when they are found, also by a worker that started after their first records.
#[tokio::test(start_paused = true)]
async fn k4_children_that_are_found_late_begin_at_their_beginning() {
    for restarted in [false, true] {
        let scene = Scene::new(1);
        scene.kinesis.name_no_children();
        let settings = || latest(scene.builder("w")).shard_sync_interval(SECOND * 5);
        let mut worker = launch(settings(), &scene.journal, "w").await;
        sleep(SECOND).await;
        scene.kinesis.put_many(0, 5);
        scene.until_processed(SECOND).await;
        scene.kinesis.hide([1, 2]);
        let (lower, upper) = scene.kinesis.split(0);
        scene.kinesis.put_many(lower, 5);
        scene.kinesis.put_many(upper, 5);
        sleep(SECOND * 10).await;
        assert!(scene.has_ended(0));
        if restarted {
            worker.stop().await.unwrap();
            sleep(SECOND * 10).await;
            worker = launch(settings(), &scene.journal, "w").await;
        }
        scene.kinesis.show_all();
        scene.until_processed(SECOND * 7).await;
        worker.stop().await.unwrap();
        scene.check_each_once();
    }
}

/// KCL fails over "inconsistent" listings, a child beside a parent that is listed as open (`ignoreUnexpectedChildShards`). Here the child waits, and
/// the parent ends when the listing says so.
#[tokio::test(start_paused = true)]
async fn k6_a_child_listed_beside_an_open_parent_waits() {
    let scene = Scene::new(1);
    scene.kinesis.name_no_children();
    let settings = scene.builder("w").shard_sync_interval(SECOND);
    let worker = launch(settings, &scene.journal, "w").await;
    sleep(SECOND).await;
    scene.kinesis.put_many(0, 5);
    let (lower, upper) = scene.kinesis.split(0);
    scene.kinesis.show_as_open(0, true);
    scene.kinesis.put_many(lower, 5);
    scene.kinesis.put_many(upper, 5);
    sleep(SECOND * 20).await;
    assert!(!scene.has_ended(0));
    assert_eq!(scene.journal.processed().len(), 5, "the parent's");
    scene.kinesis.show_as_open(0, false);
    scene.until_processed(SECOND * 10).await;
    worker.stop().await.unwrap();
    scene.check_each_once();
}

/// A crash between the end of a shard and the start of its children. Their leases come with the end, in one transaction, so the next worker
/// takes them at once; in KCL only the owner of the parent creates them (#185, #662).
#[tokio::test(start_paused = true)]
async fn k4_no_loss_when_crashing_between_a_shards_end_and_its_children() {
    let scene = Scene::new(1);
    let store = FaultyStore::new(scene.leases.clone());
    let crashing = builder(&scene.kinesis, store.clone(), "a");
    let a = launch(crashing, &scene.journal, "a").await;
    sleep(SECOND).await;
    store.set(|faults| faults.down = &["take"]);
    scene.kinesis.put_many(0, 5);
    let (lower, upper) = scene.kinesis.split(0);
    scene.kinesis.put_many(lower, 5);
    scene.kinesis.put_many(upper, 5);
    until("the shard has ended", SECOND, || scene.has_ended(0)).await;
    a.task.abort();
    assert_eq!(scene.journal.processed().len(), 5, "no child has begun");
    let b = scene.start("b").await;
    // Half of them is left to the dead worker for half the fail-over time.
    scene.until_processed(FAILOVER / 2 + SECOND).await;
    b.stop().await.unwrap();
    scene.check_each_once();
}

/// #548, #1744: a worker that started on a lease at `SHARD_END` read the shard again, from its newest record, and stuck. Ended leases are not taken.
#[tokio::test(start_paused = true)]
async fn k3_an_ended_shard_is_not_read_again() {
    let scene = Scene::new(1);
    scene.kinesis.put_many(0, 5);
    let (lower, upper) = scene.kinesis.split(0);
    scene.kinesis.put_many(lower, 5);
    for _ in 0..3 {
        let worker = scene.start("w").await;
        sleep(SECOND * 2).await;
        scene.kinesis.put_many(upper, 5);
        scene.until_processed(SECOND).await;
        worker.stop().await.unwrap();
    }
    let ended = scene.lease(0);
    assert_eq!(scene.count(0, &Event::Initialized), 1);
    assert_eq!((ended.owner, ended.owner_switches), (None, 1));
    scene.check_each_once();
}

/// #1319 (issue #837): shards without a record end while their consumer is still starting; the end was lost between two threads, and the children
/// waited for ever. Method: generations of shards that nobody ever wrote to.
#[tokio::test(start_paused = true)]
async fn k6_shards_without_a_record_end_at_once() {
    for named in [true, false] {
        let scene = Scene::new(1);
        if !named {
            scene.kinesis.name_no_children();
        }
        let before = scene.start("w").await;
        let mut shard = 0;
        for _ in 0..6 {
            let (lower, upper) = scene.kinesis.split(shard);
            shard = scene.kinesis.merge(lower, upper);
        }
        scene.kinesis.put(shard, "x");
        scene.until_processed(SECOND * 10).await;
        assert_eq!(scene.journal.count(&Event::ShardEnded), 18);
        before.stop().await.unwrap();
        scene.check_each_once();
    }
}

/// KCL retries a failing shard end for ever, too, but loses it when the lease moves meanwhile. Here: the children wait until the processor has
/// accepted the end, on whatever worker.
#[tokio::test(start_paused = true)]
async fn k6_children_wait_until_the_processor_has_accepted_the_end() {
    let scene = Scene::new(1);
    let troubles = Troubles::default();
    troubles.set(0, Callback::ShardEnded, Mischief::Fail, u32::MAX);
    let factory = troubles.factory(&scene.journal, "a");
    let a = launch_with(scene.builder("a"), factory).await;
    scene.kinesis.put_many(0, 5);
    let (lower, upper) = scene.kinesis.split(0);
    scene.kinesis.put_many(lower, 5);
    scene.kinesis.put_many(upper, 5);
    sleep(SECOND * 20).await;
    assert!(!scene.has_ended(0));
    assert_eq!(scene.journal.processed().len(), 5);
    a.stop().await.unwrap();
    troubles.set(0, Callback::ShardEnded, Mischief::Fail, 2);
    let b = launch_with(scene.builder("b"), troubles.factory(&scene.journal, "b")).await;
    scene.until_processed(SECOND * 2).await;
    b.stop().await.unwrap();
    scene.check_each_once();
}

/// #1354 and #1788 at a shard's end: it cannot be stored for a while. The processor hears of the end once, and nothing is forgotten.
#[tokio::test(start_paused = true)]
async fn k11_an_end_that_cannot_be_stored_is_stored_later() {
    let scene = Scene::new(1);
    let store = FaultyStore::new(scene.leases.clone());
    let w = launch(
        builder(&scene.kinesis, store.clone(), "w"),
        &scene.journal,
        "w",
    )
    .await;
    sleep(SECOND).await;
    store.set(|faults| faults.down = &["end_shard"]);
    scene.kinesis.put_many(0, 5);
    let (lower, upper) = scene.kinesis.split(0);
    scene.kinesis.put_many(lower, 5);
    scene.kinesis.put_many(upper, 5);
    sleep(FAILOVER * 10).await;
    assert_eq!(scene.journal.processed().len(), 5);
    store.set(|faults| faults.down = &[]);
    scene.until_processed(SECOND * 12).await;
    assert_eq!(scene.count(0, &Event::ShardEnded), 1);
    w.stop().await.unwrap();
    scene.check_each_once();
}

/// #463, #185: a parent that is stuck keeps its own children waiting and nobody else, and all goes on once it is mended.
#[tokio::test(start_paused = true)]
async fn k10_a_stuck_parent_holds_back_its_own_children_only() {
    let scene = Scene::new(3);
    let worker = scene.start("w").await;
    sleep(SECOND).await;
    scene.kinesis.put_many(0, 5);
    scene.kinesis.fail_shard(0, Some(ErrorKind::Protocol));
    let (first, _) = scene.kinesis.split(0);
    let (second, third) = scene.kinesis.split(1);
    for shard in [first, second, third, 2] {
        scene.kinesis.put_many(shard, 5);
    }
    sleep(SECOND * 60).await;
    assert_eq!(
        scene.journal.processed().len(),
        15,
        "of the shards that can be read"
    );
    assert_eq!(scene.first_delivery(first), None);
    scene.kinesis.fail_shard(0, None);
    scene.until_processed(SECOND * 12).await;
    worker.stop().await.unwrap();
    scene.check_each_once();
}

/// #1319, #185, #339, #662: a reshard while workers come, leave and die. Method: one of the three happens at many moments around a split and a merge.
#[tokio::test(start_paused = true)]
async fn k4_k6_no_loss_when_workers_change_at_a_reshard() {
    for step in 0..60u64 {
        let scene = Scene::new(2);
        let a = scene.start("a").await;
        let b = scene.start("b").await;
        sleep(SECOND * 3).await;
        let at = Instant::now() + MS * 500;
        let resharding = tokio::spawn({
            let kinesis = scene.kinesis.clone();
            async move {
                tokio::time::sleep_until(at).await;
                kinesis.put_many(0, 12);
                kinesis.put_many(1, 12);
                let (lower, upper) = kinesis.split(0);
                kinesis.put_many(upper, 3);
                sleep(MS * 100).await;
                let merged = kinesis.merge(upper, 1);
                kinesis.put_many(merged, 12);
                kinesis.put_many(lower, 12);
            }
        });
        sleep(MS * 450 + MS * 10 * u32::try_from(step / 3).unwrap()).await;
        match step % 3 {
            0 => {
                let c = scene.start("c").await;
                finish(&scene, resharding, [a, b, c].into()).await;
                scene.check_each_once();
            }
            1 => {
                a.stop().await.unwrap();
                finish(&scene, resharding, vec![b]).await;
                scene.check_each_once();
            }
            _ => {
                a.task.abort();
                finish(&scene, resharding, vec![b]).await;
                scene.check();
            }
        }
    }
}

async fn finish(scene: &Scene, resharding: JoinHandle<()>, workers: Vec<Started>) {
    resharding.await.unwrap();
    scene.until_processed(FAILOVER * 2 + SECOND).await;
    for worker in workers {
        worker.stop().await.unwrap();
    }
    assert!([0, 1, 3].iter().all(|shard| scene.has_ended(*shard)));
}

/// KCL creates the lease of a merged shard only if both parents have leases or neither has. A parent without a lease holds back nobody; but here it
/// has none only because its own parent is still in work, and its records come first.
#[tokio::test(start_paused = true)]
async fn k6_a_merged_shard_waits_for_a_parent_that_has_no_lease_yet() {
    let scene = Scene::new(2);
    let troubles = Troubles::default();
    let factory = troubles.factory(&scene.journal, "w");
    let settings = scene.builder("w").shard_sync_interval(SECOND * 3600);
    let worker = launch_with(settings, factory).await;
    sleep(SECOND).await;
    troubles.set(0, Callback::ProcessRecords, Mischief::Take(SECOND * 5), 1);
    scene.kinesis.put_many(0, 5);
    let (lower, upper) = scene.kinesis.split(0);
    scene.kinesis.put_many(lower, 5);
    scene.kinesis.put_many(upper, 5);
    let merged = scene.kinesis.merge(upper, 1);
    scene.kinesis.put_many(merged, 5);
    sleep(SECOND * 4).await;
    assert!(scene.has_ended(1) && !scene.has_ended(0));
    assert_eq!(scene.first_delivery(merged), None);
    scene.until_processed(SECOND * 4).await;
    worker.stop().await.unwrap();
    scene.check_each_once();
}

/// KCL checks the children that a page names: those without parents are invalid. A child of a merge that was leased without its parents would begin
/// while the other parent is still in work.
#[tokio::test(start_paused = true)]
async fn k6_children_named_without_their_parents_wait_for_them() {
    let scene = Scene::new(2);
    scene.kinesis.name_orphans();
    let troubles = Troubles::default();
    let factory = troubles.factory(&scene.journal, "w");
    let worker = launch_with(scene.builder("w"), factory).await;
    sleep(SECOND).await;
    troubles.set(1, Callback::ProcessRecords, Mischief::Take(SECOND * 10), 1);
    scene.kinesis.put_many(0, 5);
    scene.kinesis.put_many(1, 5);
    let child = scene.kinesis.merge(0, 1);
    scene.kinesis.put_many(child, 5);
    sleep(SECOND * 8).await;
    assert!(scene.has_ended(0) && !scene.has_ended(1));
    assert_eq!(scene.lease(child).parents, [shard_id(0), shard_id(1)]);
    assert_eq!(
        scene.first_delivery(child),
        None,
        "its other parent is in work"
    );
    scene.until_processed(SECOND * 5).await;
    worker.stop().await.unwrap();
    scene.check_each_once();
}

/// KCL ranks the reasons to stop: a shard that has ended ends, even if the worker is told to leave in the same moment. Otherwise the processor hears
/// that the shard has ended, then that it is handed over, and the next one hears of the end once more.
#[tokio::test(start_paused = true)]
async fn k6_an_accepted_end_is_stored_by_a_worker_that_leaves() {
    let scene = Scene::new(1);
    let troubles = Troubles::default();
    troubles.set(0, Callback::ShardEnded, Mischief::Take(SECOND), 1);
    let factory = troubles.factory(&scene.journal, "a");
    let a = launch_with(scene.builder("a"), factory).await;
    scene.kinesis.put_many(0, 5);
    scene.kinesis.split(0);
    sleep(SECOND / 2).await;
    a.stop().await.unwrap();
    assert!(scene.has_ended(0));
    assert_eq!(scene.count(0, &Event::ShutdownRequested), 0);
    let b = scene.start("b").await;
    sleep(SECOND).await;
    assert_eq!(scene.count(0, &Event::ShardEnded), 1);
    b.stop().await.unwrap();
    scene.check_each_once();
}
