//! Leases that change hands: requests that outlive their owner or their asker, and workers that come and go.

use super::troubled::{Callback, Mischief, Troubles};
use super::*;

impl Scene {
    /// One worker with all shards, each in a batch that takes `takes`.
    async fn busy_owner(&self, shards: usize, takes: Duration) -> Started {
        let owner = self.start("a").await;
        sleep(SECOND).await;
        self.journal.behave(|behaviour| behaviour.takes = takes);
        for shard in 0..shards {
            self.kinesis.put(shard, "slow");
        }
        sleep(MS * 250).await;
        self.journal
            .behave(|behaviour| behaviour.takes = Duration::ZERO);
        owner
    }

    fn wanted_by(&self, id: &str) -> usize {
        let leases = self.leases.leases("app");
        let theirs = leases
            .iter()
            .filter(|lease| lease.wanted_by.as_deref() == Some(id));
        theirs.count()
    }

    async fn until_wanted_by(&self, id: &str) {
        until("it has asked", SECOND * 2, || self.wanted_by(id) > 0).await;
    }

    async fn until_held(&self, shares: &[(&str, usize)], limit: Duration) {
        until("the shards are shared", limit, || {
            shares
                .iter()
                .all(|(id, share)| self.held_by(id).len() == *share)
        })
        .await;
    }
}

/// #1718: after a restart of the owner a hand-over that had been asked for was never finished: the asker waited for the owner, the owner
/// had no consumer, and renewed the lease for ever. A new run of the owner gives everything up first, requests included.
#[tokio::test(start_paused = true)]
async fn k10_an_owner_restarted_with_a_request_outstanding_leaves_no_shard_behind() {
    let scene = Scene::new(4);
    let first = scene.busy_owner(4, SECOND * 1000).await;
    let b = scene.start("b").await;
    scene.until_wanted_by("b").await;
    first.task.abort();
    let second = scene.start("a").await;
    scene.until_processed(SECOND).await;
    scene.until_held(&[("a", 2), ("b", 2)], SECOND * 2).await;
    assert_eq!(scene.wanted_by("b"), 0);
    second.stop().await.unwrap();
    b.stop().await.unwrap();
    scene.check();
}

/// #1718 the other way round: the asker is restarted. Its request is withdrawn, made again, and granted once.
#[tokio::test(start_paused = true)]
async fn k10_an_asker_restarted_with_its_request_outstanding_gets_its_share() {
    let scene = Scene::new(4);
    let a = scene.busy_owner(4, SECOND * 3).await;
    let first = scene.start("b").await;
    scene.until_wanted_by("b").await;
    first.task.abort();
    let second = scene.start("b").await;
    scene.until_held(&[("a", 2), ("b", 2)], SECOND * 4).await;
    (0..4).for_each(|shard| scene.kinesis.put_many(shard, 5));
    scene.until_processed(SECOND).await;
    a.stop().await.unwrap();
    second.stop().await.unwrap();
    scene.check_each_once();
}

/// #1765: the asker dies before the hand-over. The owner, told of the request already, hands over to it all the same; the shard is taken from the
/// dead as soon as its heartbeat tells, and nothing is delivered twice.
#[tokio::test(start_paused = true)]
async fn k8_a_lease_handed_to_a_worker_that_died_is_taken_from_it() {
    let scene = Scene::new(4);
    let a = scene.busy_owner(4, SECOND * 2).await;
    let b = scene.start("b").await;
    scene.until_wanted_by("b").await;
    b.task.abort();
    let died = Instant::now();
    until("shards were handed to the dead", SECOND * 3, || {
        scene.held_by("b").len() == 2
    })
    .await;
    (0..4).for_each(|shard| scene.kinesis.put_many(shard, 5));
    let limit = (FAILOVER + SECOND * 2).saturating_sub(died.elapsed());
    scene.until_processed(limit).await;
    a.stop().await.unwrap();
    scene.check_each_once();
}

/// #1765: a request whose asker died long ago stood in the way of all others. Another worker asks in its place, and gets the shards.
#[tokio::test(start_paused = true)]
async fn k10_a_request_of_a_dead_asker_is_replaced() {
    let scene = Scene::new(4);
    let a = scene.busy_owner(4, FAILOVER * 5).await;
    let b = scene.start("b").await;
    scene.until_wanted_by("b").await;
    b.task.abort();
    sleep(FAILOVER).await;
    let c = scene.start("c").await;
    until("c asks in the place of b", FAILOVER * 2, || {
        scene.wanted_by("c") == 2
    })
    .await;
    (0..4).for_each(|shard| scene.kinesis.put_many(shard, 5));
    scene.until_processed(FAILOVER * 5).await;
    scene
        .until_held(&[("a", 2), ("b", 0), ("c", 2)], SECOND * 3)
        .await;
    a.stop().await.unwrap();
    c.stop().await.unwrap();
    scene.check_each_once();
}

/// #1765: the asker leaves in order while the owner is still in its batch. Its request goes with it, and the owner keeps or takes back the shard
/// at once.
#[tokio::test(start_paused = true)]
async fn k9_a_request_goes_with_its_asker() {
    let scene = Scene::new(2);
    let a = scene.busy_owner(2, SECOND * 2).await;
    let b = scene.start("b").await;
    scene.until_wanted_by("b").await;
    b.stop().await.unwrap();
    assert_eq!(scene.wanted_by("b"), 0);
    scene.kinesis.put_many(0, 5);
    scene.kinesis.put_many(1, 5);
    scene.until_processed(SECOND * 3).await;
    assert_eq!(scene.held_by("a").len(), 2);
    a.stop().await.unwrap();
    scene.check_each_once();
}

/// #1729: a hand-over asked for before the consumer had got as far as initialized was never done. And a shard with a poisonous batch can move,
/// too: to where it may go better.
#[tokio::test(start_paused = true)]
async fn k10_a_shard_that_cannot_begin_or_go_on_can_be_handed_over() {
    for callback in [Callback::Initialize, Callback::ProcessRecords] {
        let scene = Scene::new(2);
        let troubles = Troubles::default();
        (0..2).for_each(|shard| troubles.set(shard, callback, Mischief::Fail, u32::MAX));
        let a = launch_with(scene.builder("a"), troubles.factory(&scene.journal, "a")).await;
        scene.kinesis.put_many(0, 5);
        scene.kinesis.put_many(1, 5);
        sleep(SECOND * 10).await;
        let b = scene.start("b").await;
        scene.until_held(&[("a", 1), ("b", 1)], SECOND).await;
        a.stop().await.unwrap();
        scene.until_processed(SECOND).await;
        b.stop().await.unwrap();
        scene.check_each_once();
    }
}

/// #265, #639, #108, #537: duplicates at every deployment, and holders whose counter was off by one, so that they could not checkpoint.
/// Method: every worker is replaced, one after the other, while records come in.
#[tokio::test(start_paused = true)]
async fn k5_a_rolling_deployment_delivers_nothing_twice() {
    let scene = Scene::new(4);
    let mut running = vec![scene.start("0").await, scene.start("1").await];
    let feeder = scene.feed(0..4);
    for deployed in 2..12 {
        // Either every batch is checkpointed, or only what goes with the release counts.
        let each = deployed % 2 == 0;
        scene
            .journal
            .behave(|behaviour| behaviour.checkpoints = each);
        sleep(SECOND * 2).await;
        running.push(scene.start(&deployed.to_string()).await);
        sleep(MS * 130 * deployed).await;
        running.remove(0).stop().await.unwrap();
    }
    feeder.abort();
    scene.until_processed(SECOND).await;
    for worker in running {
        worker.stop().await.unwrap();
    }
    scene.check_each_once();
}

/// #1501, and idle standbys in general: more workers than shards. Those without a shard ask for none and move none, and one of them
/// takes over when an owner dies, until only one is left.
#[tokio::test(start_paused = true)]
async fn k8_more_workers_than_shards() {
    let scene = Scene::new(2);
    let names = ["a", "b", "c", "d", "e"];
    let mut workers = Vec::new();
    for name in names {
        workers.push((name, scene.start(name).await));
    }
    sleep(SECOND * 3).await;
    for left in (1..5).rev() {
        let switches = scene.owner_switches();
        sleep(SECOND * 20).await;
        assert_eq!(scene.owner_switches(), switches, "nothing moves");
        let owner = scene.lease(0).owner.unwrap();
        let position = workers.iter().position(|(name, _)| *name == owner).unwrap();
        workers.remove(position).1.task.abort();
        scene.kinesis.put_many(0, 5);
        scene.kinesis.put_many(1, 5);
        scene.until_processed(FAILOVER + SECOND * 2).await;
        assert_eq!(workers.len(), left);
    }
    for (_, worker) in workers {
        worker.stop().await.unwrap();
    }
    scene.check();
}

/// KCL transfers a lease after 30 s even if the processor does not answer; without a limit a `shutdown_requested` that never returns would keep the
/// shard silent for ever, since its worker lives. The grace period is the limit.
#[tokio::test(start_paused = true)]
async fn k10_a_hand_over_does_not_wait_for_ever_for_the_processor() {
    let scene = Scene::new(2);
    let troubles = Troubles::default();
    (0..2).for_each(|shard| troubles.set(shard, Callback::ShutdownRequested, Mischief::Hang, 1));
    let settings = scene.builder("a").shutdown_grace(SECOND * 2);
    let a = launch_with(settings, troubles.factory(&scene.journal, "a")).await;
    scene.kinesis.put_many(0, 5);
    scene.kinesis.put_many(1, 5);
    scene.until_processed(SECOND).await;
    let b = scene.start("b").await;
    scene.until_held(&[("a", 1), ("b", 1)], SECOND * 3).await;
    scene.kinesis.put_many(0, 5);
    scene.kinesis.put_many(1, 5);
    scene.until_processed(SECOND).await;
    let asked = Instant::now();
    a.stop().await.unwrap();
    assert!(asked.elapsed() < SECOND * 3);
    b.stop().await.unwrap();
    scene.check_each_once();
}

/// The same for `lease_lost`: while it does not return, the worker cannot take the shard again; it is not waited for longer than the grace period.
#[tokio::test(start_paused = true)]
async fn k10_a_lease_lost_that_never_returns_keeps_no_shard() {
    let scene = Scene::new(2);
    let troubles = Troubles::default();
    troubles.set(0, Callback::LeaseLost, Mischief::Hang, 1);
    let settings = scene.builder("w").shutdown_grace(SECOND * 2);
    let worker = launch_with(settings, troubles.factory(&scene.journal, "w")).await;
    sleep(SECOND).await;
    scene.leases.tear_out("app", &shard_id(0));
    sleep(SECOND).await;
    scene.kinesis.put_many(0, 5);
    scene.kinesis.put_many(1, 5);
    scene.until_processed(SECOND * 3).await;
    worker.stop().await.unwrap();
    scene.check();
}

/// #1729, #1743: a shard is handed to a worker that has been told to leave and waits for a slow batch of another shard. It has no use for the
/// shard, and renewed its lease all the while: the shard was silent. Here it gives it on at once.
#[tokio::test(start_paused = true)]
async fn k9_a_lease_handed_to_a_worker_that_leaves_is_given_on() {
    let scene = Scene::new(4);
    let troubles = Troubles::default();
    let a = scene.start("a").await;
    let b = launch_with(scene.builder("b"), troubles.factory(&scene.journal, "b")).await;
    scene.until_held(&[("a", 2), ("b", 2)], SECOND * 3).await;
    let (handed, slow) = (scene.held_by("a")[0], scene.held_by("b")[0]);
    troubles.set(
        slow,
        Callback::ProcessRecords,
        Mischief::Take(SECOND * 20),
        1,
    );
    scene.kinesis.put(slow, "slow");
    sleep(SECOND).await;
    scene.leases.want("app", &shard_id(handed), "b");
    b.handle.shutdown();
    until("it is handed over", SECOND, || {
        !scene.held_by("a").contains(&handed)
    })
    .await;
    scene.kinesis.put(handed, "x");
    until("it is processed", SECOND, || {
        scene.journal.processed().len() == 1
    })
    .await;
    assert_eq!(scene.held_by("b"), [slow], "the batch is still at work");
    b.stop().await.unwrap();
    scene.until_processed(SECOND).await;
    a.stop().await.unwrap();
    scene.check_each_once();
}
