//! A worker that was believed dead and comes back.

use crate::scene::{FAILOVER, PATIENCE, Scene};
use std::time::Duration;
use support::clock::now_us;
use support::history::{EventKind, deliveries, first_delivery, outstanding, outstanding_at_losses};
use support::process::Signal;
use support::{check, wait_until};

/// A worker is suspended with batches in its hands until the other has its shards, then wakes up. Its
/// checkpoint of a batch from before is refused or not tried (K1), and it gets nothing more of those shards
/// (K2) until it holds them anew.
#[tokio::test(flavor = "multi_thread")]
async fn k1_k2_zombie_checkpoints_nothing_and_gets_nothing_more() {
    let _alone = support::alone().await;
    let mut scene = Scene::start(Duration::from_millis(400)).await;
    let (zombie, other) = scene.two_workers().await;
    let shards = scene.held_by(&zombie, &other);
    assert_eq!(shards.len(), 2, "{shards:?}");
    // In the middle of a batch: its checkpoint is what must be refused.
    wait_until(
        "every shard of the worker has a fresh batch in work",
        PATIENCE,
        || async {
            let events = zombie.events();
            let open = outstanding(&events, zombie.id());
            let fresh = |shard: &String| {
                let since_us = now_us() - 200_000;
                let begun = first_delivery(&events, zombie.id(), shard, since_us).is_some();
                begun && open.iter().any(|(of, _)| of == shard)
            };
            shards.iter().all(fresh).then_some(())
        },
    )
    .await;
    zombie.suspend(&[scene.fleet.store()]).await;
    let stopped_us = now_us();
    for shard in &shards {
        wait_until("the other has the shards", PATIENCE, || async {
            first_delivery(&other.events(), other.id(), shard, stopped_us)
        })
        .await;
    }
    let woken_us = now_us();
    zombie.signal(Signal::Cont).await;
    for shard in &shards {
        wait_until("the zombie knows that it lost its shards", PATIENCE, || async {
            let events = zombie.events();
            let lost = |kind: &EventKind| matches!(kind, EventKind::LeaseLost { shard: of } if of == shard);
            events.iter().any(|event| event.at_us > woken_us && lost(&event.kind)).then_some(())
        })
        .await;
    }
    tokio::time::sleep(FAILOVER).await;
    let (expected, _, events) = scene.finish(&[&zombie, &other]).await;
    let counts = deliveries(&events);
    check::one_owner(&events).unwrap();
    check::all_delivered(&expected, &counts).unwrap();
    check::duplicates_bounded(&counts, &outstanding_at_losses(&events)).unwrap();
    let refused = events
        .iter()
        .filter(|event| matches!(event.kind, EventKind::Refused { .. }))
        .count();
    println!(
        "woke after {} ms, {refused} checkpoints refused",
        (woken_us - stopped_us) / 1000
    );
}
