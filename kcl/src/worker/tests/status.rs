//! K10: every stall has a reason that can be asked for.

use super::*;
use crate::error::ErrorKind;
use crate::fake::shard_id;
use crate::fake::store::FaultyStore;
use crate::lease::MemoryLeaseStore;
use crate::status::{Activity, ShardStatus};

const SECOND: Duration = Duration::from_secs(1);

fn of(worker: &Started, shard: usize) -> ShardStatus {
    let shards = worker.handle.shards().into_iter();
    let mut found = shards.filter(|status| status.shard_id == shard_id(shard));
    found.next().unwrap()
}

/// Goal: what holds a shard up is told, with its text, since when, and how often. Method: a shard that fails, one whose batch takes
/// long, and one without records; then a store out of reach.
#[tokio::test(start_paused = true)]
async fn k10_a_stall_has_a_reason_that_can_be_asked_for() {
    let (kinesis, journal) = (FakeKinesis::new(3), Journal::default());
    let store = FaultyStore::new(MemoryLeaseStore::new());
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    tokio::time::sleep(SECOND).await;
    for shard in 0..3 {
        assert_eq!(of(&worker, shard).activity, Activity::Reading);
    }
    journal.behave(|behaviour| {
        behaviour.failures = u32::MAX;
        behaviour.only_shard = Some(shard_id(0));
    });
    kinesis.put_many(0, 3);
    kinesis.put_many(2, 3);
    tokio::time::sleep(SECOND * 30).await;
    let failing = of(&worker, 0);
    let Activity::Retrying {
        what,
        attempts,
        error,
    } = &failing.activity
    else {
        panic!("{failing:?}")
    };
    assert_eq!(what, "process_records");
    assert!(*attempts > 3 && !error.is_empty(), "{failing:?}");
    assert!(failing.for_how_long > SECOND * 25, "{failing:?}");
    assert_eq!(of(&worker, 2).activity, Activity::Reading);
    assert_ne!(of(&worker, 2).handled, crate::Position::TrimHorizon);

    journal.behave(|behaviour| {
        behaviour.failures = 0;
        behaviour.takes = SECOND * 600;
        behaviour.only_shard = Some(shard_id(1));
    });
    kinesis.put_many(1, 5);
    tokio::time::sleep(SECOND * 60).await;
    let slow = of(&worker, 1);
    assert_eq!(slow.activity, Activity::Processing { records: 5 });
    assert!(slow.for_how_long > SECOND * 55);

    store.set(|faults| faults.unreachable = true);
    tokio::time::sleep(SECOND * 10).await;
    kinesis.put_many(2, 3);
    tokio::time::sleep(SECOND * 10).await;
    assert_eq!(of(&worker, 2).activity, Activity::WaitingForRenewal);
    worker.task.abort();
}

/// Goal: a shard that cannot be read says so, and one that is not held is not listed.
#[tokio::test(start_paused = true)]
async fn k10_a_shard_that_cannot_be_read_says_why() {
    let (kinesis, journal) = (FakeKinesis::new(1), Journal::default());
    let worker = start(&kinesis, MemoryLeaseStore::new(), &journal, "w").await;
    tokio::time::sleep(SECOND).await;
    kinesis.fail(&[ErrorKind::AccessDenied; 100]);
    tokio::time::sleep(SECOND * 10).await;
    let status = of(&worker, 0);
    let told = status.activity.to_string();
    assert!(told.starts_with("trying reading the shard again"), "{told}");
    worker.handle.shutdown();
    let handle = worker.handle.clone();
    worker.task.await.unwrap().unwrap();
    assert_eq!(handle.shards(), []);
}

/// Goal: a failure that is over is told no more, also of a shard without records. Method: some reads fail, the next ones find nothing.
#[tokio::test(start_paused = true)]
async fn k10_a_read_that_succeeds_ends_the_failure_though_it_is_empty() {
    let (kinesis, journal) = (FakeKinesis::new(1), Journal::default());
    let worker = start(&kinesis, MemoryLeaseStore::new(), &journal, "w").await;
    tokio::time::sleep(SECOND).await;
    let mut told = vec![of(&worker, 0).activity];
    kinesis.fail(&[ErrorKind::AccessDenied; 3]);
    for _ in 0..100 {
        tokio::time::sleep(SECOND / 50).await;
        let activity = of(&worker, 0).activity;
        if told.last() != Some(&activity) {
            told.push(activity);
        }
    }
    let [Activity::Reading, failed @ .., Activity::Reading] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(failed.len(), 3, "{told:?}");
    assert!(journal.deliveries().is_empty());
    worker.task.abort();
}
