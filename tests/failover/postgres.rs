//! Fleets whose leases and sums are in PostgreSQL, while that is stopped, crashes, or stands still.

use crate::books::Books;
use crate::scene::{PATIENCE, Scene, Setup};
use millstream_test_postgres::{Cluster, Durability};
use std::time::Duration;
use support::clock::now_us;
use support::history::{EventKind, deliveries, outstanding_at_losses, refusals};
use support::{Store, WorkerProcess, check, wait_until};

const FAILOVER: Duration = Duration::from_secs(1);
/// Longer than the fail-over time.
const OUTAGE: Duration = Duration::from_millis(1500);

/// Lasts until nobody can believe in a lease any more, and a second longer; when that second was.
async fn outage() -> std::ops::Range<u64> {
    tokio::time::sleep(OUTAGE).await;
    let paused_from = now_us();
    tokio::time::sleep(Duration::from_secs(1)).await;
    paused_from..now_us()
}

/// Waits until every worker has checkpointed something from now on.
async fn at_work(workers: &[WorkerProcess]) {
    let since_us = now_us();
    let gets_on = |one: &WorkerProcess| {
        one.hear(|events| {
            let mut new = events
                .iter()
                .rev()
                .take_while(|event| event.at_us > since_us);
            new.any(|event| matches!(event.kind, EventKind::Checkpointed { .. }))
        })
    };
    wait_until("every worker gets on", PATIENCE, || async {
        workers.iter().all(gets_on).then_some(())
    })
    .await;
}

/// The server is stopped and started, killed and recovered, and suspended, each time for longer than the fail-over time. Nothing is
/// delivered on leases that could not be renewed (K2), the same processes go on, nothing is lost (K4), nobody works beside another
/// (K1, K2), the table only moves forward (K3), and sums in the transactions of checkpoints are exact.
#[tokio::test(flavor = "multi_thread")]
async fn k1_to_k4_and_sums_hold_through_outages_of_postgres() {
    let _alone = support::alone().await;
    let cluster = Cluster::start(Durability::System).await;
    let store = Store::Postgres(cluster.database().await);
    let mut scene = Scene::with(Setup {
        failover: FAILOVER,
        store: Some(store.clone()),
        ..Setup::default()
    })
    .await;
    scene.fleet = scene.fleet.with("--sums", &1);
    let books = Books::open(store).await;
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(scene.fleet.start().await);
    }
    let mut silences = Vec::new();
    for _ in 0..support::scaled(1, 10) {
        at_work(&workers).await;
        cluster.stop().await;
        silences.push(outage().await);
        cluster.start_again().await;
        at_work(&workers).await;
        books.audit().await;

        cluster.kill().await;
        silences.push(outage().await);
        cluster.start_again().await;
        at_work(&workers).await;
        books.audit().await;

        cluster.pause().await;
        silences.push(outage().await);
        cluster.resume().await;
        at_work(&workers).await;
        books.audit().await;
    }
    for worker in &mut workers {
        assert!(worker.is_running(), "{}", worker.log());
    }
    let acked = scene.stop_writers().await.to_vec();
    books.complete(&acked).await.unwrap();
    let running: Vec<_> = workers.iter().collect();
    let (expected, parents, events) = scene.finish(&running).await;
    books.complete(&acked).await.unwrap();
    for silence in &silences {
        let late = events.iter().find(|event| {
            matches!(event.kind, EventKind::Delivered { .. }) && silence.contains(&event.at_us)
        });
        assert_eq!(late, None, "K2: on a lease that could not be renewed");
    }
    let counts = deliveries(&events);
    check::all_delivered(&expected, &counts).unwrap();
    check::one_owner(&events).unwrap();
    let again = counts.values().filter(|count| **count > 1).count();
    println!(
        "{} records, {again} came again, {} leases lost, {} tenures of {} shards; refused {:?}",
        acked.len(),
        outstanding_at_losses(&events).len(),
        events
            .iter()
            .filter(|event| matches!(event.kind, EventKind::Initialized { .. }))
            .count(),
        parents.len(),
        refusals(&events)
    );
}
