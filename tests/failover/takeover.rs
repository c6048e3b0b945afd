//! How long it takes until somebody else goes on: after a crash (K8), after an orderly end (K9).

use crate::scene::{FAILOVER, PATIENCE, Scene};
use std::time::Duration;
use support::clock::now_us;
use support::history::{EventKind, deliveries, first_delivery};
use support::{check, wait_until};

/// From SIGTERM, whose handling and the batch in work are within it, to the first record elsewhere.
const HAND_OVER: Duration = Duration::from_millis(500);

/// A worker is killed; each of its shards goes on at the survivor within the fail-over time and two seconds,
/// and not before the fail-over time minus a heartbeat has passed. Several times.
#[tokio::test(flavor = "multi_thread")]
async fn k8_survivor_goes_on_within_failover_time_and_two_seconds() {
    let _alone = support::alone().await;
    let mut scene = Scene::start(Duration::from_millis(5)).await;
    let (mut dies, mut survives) = scene.two_workers().await;
    for round in 0..support::scaled(3, 30) {
        let orphans = scene.held_by(&dies, &survives);
        assert_eq!(orphans.len(), 2, "{orphans:?}");
        let killed_us = now_us();
        dies.kill9().await;
        for shard in &orphans {
            let gone_on_us = wait_until("the survivor goes on", PATIENCE, || async {
                first_delivery(&survives.events(), survives.id(), shard, killed_us)
            })
            .await;
            let took = Duration::from_micros(gone_on_us - killed_us);
            println!("round {round}: {shard} went on after {took:?}");
            assert!(
                took <= FAILOVER + Duration::from_secs(2),
                "K8: {shard} after {took:?}"
            );
            assert!(
                took >= FAILOVER / 3,
                "K2: {shard} taken after {took:?}, its owner was valid"
            );
        }
        scene.fleet.retire(&dies);
        dies = scene.fleet.start().await;
        scene.balanced(&dies, &survives).await;
        std::mem::swap(&mut dies, &mut survives);
    }
    let (expected, _, events) = scene.finish(&[&dies, &survives]).await;
    check::all_delivered(&expected, &deliveries(&events)).unwrap();
    check::one_owner(&events).unwrap();
}

/// A worker is asked to stop: it checkpoints and releases, ends with code 0, and the other goes on within half
/// a second. No record comes twice. Several times.
#[tokio::test(flavor = "multi_thread")]
async fn k9_sigterm_hands_over_at_once_and_without_duplicates() {
    let _alone = support::alone().await;
    let mut scene = Scene::start(Duration::from_millis(5)).await;
    let (mut stops, mut goes_on) = scene.two_workers().await;
    for round in 0..support::scaled(4, 40) {
        let shards = scene.held_by(&stops, &goes_on);
        assert_eq!(shards.len(), 2, "{shards:?}");
        let asked_us = now_us();
        let ended = stops.terminate().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(
            stops.events().last().map(|event| event.kind.clone()),
            Some(EventKind::Stopped)
        );
        for shard in &shards {
            let gone_on_us = wait_until("the other goes on", PATIENCE, || async {
                first_delivery(&goes_on.events(), goes_on.id(), shard, asked_us)
            })
            .await;
            let took = Duration::from_micros(gone_on_us - asked_us);
            println!("round {round}: {shard} went on {took:?} after SIGTERM");
            assert!(took < HAND_OVER, "K9: {shard} went on after {took:?}");
        }
        scene.fleet.retire(&stops);
        stops = scene.fleet.start().await;
        scene.balanced(&stops, &goes_on).await;
        std::mem::swap(&mut stops, &mut goes_on);
    }
    let (expected, _, events) = scene.finish(&[&stops, &goes_on]).await;
    let counts = deliveries(&events);
    check::all_delivered(&expected, &counts).unwrap();
    check::duplicates_bounded(&counts, &[]).unwrap();
    check::order_kept(&events, &std::collections::BTreeMap::new()).unwrap();
    check::one_owner(&events).unwrap();
}
