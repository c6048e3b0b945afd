//! Starting: how long it takes, where it begins, and which stream it is about.

use super::*;
use crate::fake::store::FaultyStore;

/// Leases that nobody holds.
fn free(scene: &Scene) -> usize {
    let leases = scene.leases.leases("app");
    let open = leases
        .iter()
        .filter(|lease| lease.checkpoint != Position::ShardEnd);
    open.filter(|lease| lease.owner.is_none()).count()
}

/// #1432, #1786, #1790: KCL 3.x takes minutes from an empty table to the first record, or appears to start and takes no lease. Here less than a
/// second, whether one worker starts or several do.
#[tokio::test(start_paused = true)]
async fn k8_a_cold_start_takes_less_than_a_second() {
    for workers in [1, 3] {
        let scene = Scene::new(8);
        (0..8).for_each(|shard| scene.kinesis.put_many(shard, 5));
        let mut running = Vec::new();
        for worker in 0..workers {
            running.push(scene.start(&worker.to_string()).await);
        }
        // Several workers divide what is free between them, and give each other half the fail-over time to come for it.
        let limit = if workers == 1 {
            SECOND
        } else {
            FAILOVER / 2 + SECOND
        };
        scene.until_processed(limit).await;
        for worker in running {
            worker.stop().await.unwrap();
        }
        scene.check_each_once();
    }
}

/// Section 2.4 of KCL's timings: even a restart of the only worker leaves a gap of 21 to 52 s. Under a stable id the next run gets its shards back at
/// once, crash or not.
#[tokio::test(start_paused = true)]
async fn k8_a_stable_id_gets_its_shards_back_at_once() {
    let scene = Scene::new(4);
    let with = || scene.builder("w").failover_time(SECOND * 60);
    let crashed = launch(with(), &scene.journal, "w").await;
    sleep(SECOND).await;
    (0..4).for_each(|shard| scene.kinesis.put_many(shard, 5));
    scene.until_processed(SECOND).await;
    crashed.task.abort();
    (0..4).for_each(|shard| scene.kinesis.put_many(shard, 5));
    let restarted = launch(with(), &scene.journal, "w").await;
    scene.until_processed(SECOND).await;
    restarted.stop().await.unwrap();
    scene.check_each_once();
}

/// #1320, #848, #1464: leases without an owner waited for the next round of the taker, or until they "expired". Here whoever they are meant for takes
/// them at its next look. Method: children that appear, and a worker that leaves, among three.
#[tokio::test(start_paused = true)]
async fn k8_leases_without_an_owner_are_taken_at_once() {
    let scene = Scene::new(6);
    let mut workers = Vec::new();
    for name in ["a", "b", "c"] {
        workers.push(scene.start(name).await);
    }
    sleep(SECOND * 5).await;
    for shard in 0..6 {
        scene.kinesis.split(shard);
    }
    until("the children are held", SECOND, || {
        (0..6).all(|shard| scene.has_ended(shard)) && free(&scene) == 0
    })
    .await;
    sleep(SECOND * 5).await;
    workers.remove(0).stop().await.unwrap();
    until("what it left is held", SECOND / 2, || free(&scene) == 0).await;
    for worker in workers {
        worker.stop().await.unwrap();
    }
    scene.check_each_once();
}

/// Sections 0.9 and 3.0.2 (#1406, #1443, #750): a thousand leases cost KCL 302 writes a second, renewed one by one. Here a worker at rest writes its
/// heartbeat and nothing else, however many shards it has, and looks five times a second. All are taken at once when it starts.
#[tokio::test(start_paused = true)]
async fn a_thousand_shards_cost_one_write_per_heartbeat() {
    let scene = Scene::new(1000);
    (0..1000).for_each(|shard| {
        scene.kinesis.put(shard, "x");
    });
    let store = FaultyStore::new(scene.leases.clone());
    let settings = builder(&scene.kinesis, store.clone(), "a");
    let a = launch(settings, &scene.journal, "a").await;
    scene.until_processed(SECOND * 2).await;
    assert_eq!(store.calls()["take"], 1);
    sleep(FAILOVER).await;
    let before = store.calls();
    sleep(SECOND * 60).await;
    let during = |verb| store.calls()[verb] - before[verb];
    let heartbeats = during("heartbeat");
    assert!((60..=67).contains(&heartbeats), "{heartbeats} in a minute");
    assert!(during("snapshot") <= 60 * 6, "{}", during("snapshot"));
    for (verb, count) in store.calls() {
        let reads_or_heartbeats = ["heartbeat", "snapshot"].contains(&verb);
        assert!(
            reads_or_heartbeats || before.get(verb) == Some(&count),
            "{verb}"
        );
    }
    let b = scene.start("b").await;
    until("the shards are shared", SECOND * 2, || {
        scene.held_by("b").len() == 500
    })
    .await;
    a.stop().await.unwrap();
    b.stop().await.unwrap();
    scene.check_each_once();
}

/// A stream whose shards are all closed and have no children: they are read to their ends, and then there is nothing to do, without any hurry.
#[tokio::test(start_paused = true)]
async fn a_stream_without_open_shards_is_finished_and_left_alone() {
    let scene = Scene::new(2);
    scene.kinesis.put_many(0, 5);
    scene.kinesis.close(0);
    scene.kinesis.close(1);
    for _ in 0..2 {
        let worker = scene.start("w").await;
        scene.until_processed(SECOND).await;
        until("both have ended", SECOND, || {
            scene.has_ended(0) && scene.has_ended(1)
        })
        .await;
        let (listings, reads) = (scene.kinesis.listings(), scene.kinesis.reads());
        sleep(SECOND * 60).await;
        assert_eq!(scene.kinesis.reads(), reads);
        let listings = scene.kinesis.listings() - listings;
        assert!(listings <= 4, "{listings} listings in a minute");
        worker.stop().await.unwrap();
    }
    assert_eq!(scene.journal.count(&Event::ShardEnded), 2);
    scene.check_each_once();
}

/// Section 2.7 (three tries for a complete listing): a shard that the first listing leaves out under LATEST loses nothing that came after
/// the application began (#327, #449, #580).
#[tokio::test(start_paused = true)]
async fn k4_a_shard_missing_from_the_first_listing_is_read_from_the_start_under_latest() {
    let scene = Scene::new(2);
    scene.kinesis.hide([1]);
    let settings = latest(scene.builder("w")).shard_sync_interval(SECOND * 5);
    let worker = launch(settings, &scene.journal, "w").await;
    sleep(SECOND).await;
    scene.kinesis.put_many(0, 5);
    scene.kinesis.put_many(1, 5);
    sleep(SECOND * 8).await;
    scene.kinesis.show_all();
    scene.until_processed(SECOND * 7).await;
    worker.stop().await.unwrap();
    scene.check_each_once();
}

/// #145, #196: people change the initial position of an application that has leases and expect it to move. The checkpoint wins, always; nothing is
/// lost or read again.
#[tokio::test(start_paused = true)]
async fn k4_the_initial_position_is_for_the_first_start_only() {
    let scene = Scene::new(2);
    for position in [
        InitialPosition::TrimHorizon,
        InitialPosition::Latest,
        InitialPosition::AtTimestamp(crate::fake::EPOCH_MS + 3_600_000),
        InitialPosition::TrimHorizon,
    ] {
        scene.kinesis.put_many(0, 5);
        scene.kinesis.put_many(1, 5);
        let settings = scene.builder("w").initial_position(position);
        let worker = launch(settings, &scene.journal, "w").await;
        scene.until_processed(SECOND).await;
        worker.stop().await.unwrap();
        sleep(SECOND).await;
    }
    scene.check_each_once();
}

/// Section 1.4: in KCL a stream given in another way (single or multi-stream, name or ARN) has other leases, and begins anew. Here its identity is the
/// ARN and the time of its creation, however it is given.
#[tokio::test(start_paused = true)]
async fn k13_a_stream_given_by_its_arn_is_the_same_stream() {
    let scene = Scene::new(2);
    for stream in [
        "orders",
        "arn:aws:kinesis:us-east-1:000000000000:stream/orders",
        "orders",
    ] {
        scene.kinesis.put_many(0, 5);
        scene.kinesis.put_many(1, 5);
        let client: Arc<dyn KinesisApi> = Arc::new(scene.kinesis.clone());
        let settings = Worker::builder("app", stream)
            .client(client)
            .lease_store(scene.leases.clone())
            .worker_id("w");
        let worker = launch(settings, &scene.journal, "w").await;
        scene.until_processed(SECOND).await;
        worker.stop().await.unwrap();
    }
    assert_eq!(scene.leases.leases("app").len(), 2);
    scene.check_each_once();
}

/// #187, #510, #764, #1401: one application on two streams with the same shard ids. In KCL they overwrite each other's checkpoints, delete each
/// other's leases after a reshard, and hand-over breaks. Here each has its own.
#[tokio::test(start_paused = true)]
async fn k13_one_application_on_two_streams_keeps_them_apart() {
    let orders = Scene::new(2);
    let payments = Scene {
        leases: orders.leases.clone(),
        ..Scene::new(2)
    };
    let on_payments = |id: &str| {
        let client: Arc<dyn KinesisApi> = Arc::new(payments.kinesis.clone());
        let builder = Worker::builder("app", "payments").client(client);
        let builder = builder.lease_store(payments.leases.clone());
        launch(
            builder.worker_id(id).failover_time(FAILOVER),
            &payments.journal,
            "p",
        )
    };
    let mut running = vec![
        orders.start("o1").await,
        on_payments("p1").await,
        orders.start("o2").await,
        on_payments("p2").await,
    ];
    for scene in [&orders, &payments] {
        scene.kinesis.put_many(0, 5);
        scene.kinesis.put_many(1, 5);
    }
    sleep(SECOND * 3).await;
    let (lower, upper) = orders.kinesis.split(0);
    orders.kinesis.put_many(lower, 5);
    orders.kinesis.put_many(upper, 5);
    payments.kinesis.put_many(0, 5);
    sleep(SECOND * 2).await;
    running.remove(0).stop().await.unwrap();
    running.remove(0).stop().await.unwrap();
    orders.kinesis.outlive(0);
    sleep(SECOND * 40).await;
    payments.kinesis.put_many(0, 5);
    payments.kinesis.put_many(1, 5);
    payments.until_processed(SECOND).await;
    for worker in running {
        worker.stop().await.unwrap();
    }
    payments.check_each_once();
    orders.check_each_once();
}

/// #187, #510: a stream deleted and created anew while nobody worked: KCL goes on with checkpoints of the former one, and shards that had ended there
/// stay ended. Here the new stream has leases of its own.
#[tokio::test(start_paused = true)]
async fn k13_a_stream_created_anew_while_nobody_worked_starts_afresh() {
    let scene = Scene::new(1);
    scene.kinesis.put_many(0, 5);
    let worker = scene.start("w").await;
    let (lower, upper) = scene.kinesis.split(0);
    scene.kinesis.put_many(lower, 5);
    scene.until_processed(SECOND * 2).await;
    worker.stop().await.unwrap();
    scene.kinesis.recreate();
    scene.kinesis.put_many(lower, 5);
    scene.kinesis.put_many(upper, 5);
    let worker = scene.start("w").await;
    scene.until_processed(SECOND * 2).await;
    worker.stop().await.unwrap();
    scene.check_each_once();
    assert_eq!(scene.count(0, &Event::ShardEnded), 2, "once in each stream");
}

/// An application that was away for longer than the retention goes on with the oldest record there is; what is gone is gone, and nothing stalls.
#[tokio::test(start_paused = true)]
async fn k4_an_application_away_for_longer_than_the_retention_goes_on_with_the_oldest_record() {
    let scene = Scene::new(1);
    scene.kinesis.put_many(0, 5);
    let worker = scene.start("w").await;
    scene.until_processed(SECOND).await;
    worker.stop().await.unwrap();
    scene.kinesis.put_many(0, 20);
    scene.kinesis.trim(0, 15);
    let worker = scene.start("w").await;
    scene.until_processed(SECOND).await;
    assert_eq!(scene.journal.processed().len(), 5 + 10);
    worker.stop().await.unwrap();
    scene.check_each_once();
}

/// LATEST kept as a time meets a clock that is set back: the children of a shard without a record would begin at that time, and what comes to them in the
/// next minutes would be "before" it. Everything in them came after the application began. Found by the listing, too.
#[tokio::test(start_paused = true)]
async fn k4_no_loss_when_the_clock_is_set_back_before_the_first_record_and_a_reshard() {
    for listed_late in [false, true] {
        let scene = Scene::new(1);
        if listed_late {
            scene.kinesis.name_no_children();
            scene.kinesis.hide([1, 2]);
        }
        let settings = latest(scene.builder("w")).shard_sync_interval(SECOND * 5);
        let worker = launch(settings, &scene.journal, "w").await;
        sleep(SECOND * 5).await;
        scene.kinesis.set_clock_back(SECOND * 600);
        let (lower, upper) = scene.kinesis.split(0);
        scene.kinesis.put_many(lower, 5);
        scene.kinesis.put_many(upper, 5);
        sleep(SECOND * 2).await;
        assert!(scene.has_ended(0));
        scene.kinesis.show_all();
        scene.until_processed(SECOND * 7).await;
        worker.stop().await.unwrap();
        scene.check_each_once();
    }
}
