//! How the shards are shared: by number, by what there is to do; and K7, what happens when a lease is gone.

use super::*;
use crate::fake::shard_id;
use crate::lease::MemoryLeaseStore;
use std::collections::BTreeSet;

const SECOND: Duration = Duration::from_secs(1);

async fn held_by(store: &MemoryLeaseStore, worker: &str) -> BTreeSet<String> {
    let leases = store.snapshot("app").await.unwrap().leases;
    let mine = leases
        .into_iter()
        .filter(|lease| lease.owner.as_deref() == Some(worker));
    mine.map(|lease| lease.key.shard_id).collect()
}

/// Goal: shards that are much busier than the others are not left with one worker, and once they are parted nothing moves. Method:
/// the two shards that the first worker holds after the second has joined get all the traffic.
#[tokio::test(start_paused = true)]
async fn busy_shards_are_parted_and_stay() {
    let (kinesis, store, journal) = (
        FakeKinesis::new(4),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    let a = start(&kinesis, store.clone(), &journal, "a").await;
    let b = start(&kinesis, store.clone(), &journal, "b").await;
    tokio::time::sleep(SECOND * 5).await;
    let busy = held_by(&store, "a").await;
    assert_eq!((busy.len(), held_by(&store, "b").await.len()), (2, 2));
    let payload = "x".repeat(100_000);
    let mut parted_for = 0;
    for _ in 0..120 {
        for shard in (0..4).filter(|shard| busy.contains(&shard_id(*shard))) {
            for _ in 0..4 {
                kinesis.put(shard, &payload);
            }
        }
        tokio::time::sleep(SECOND).await;
        let (of_a, of_b) = (held_by(&store, "a").await, held_by(&store, "b").await);
        let parted = !busy.is_subset(&of_a) && !busy.is_subset(&of_b);
        assert!(
            parted || parted_for < 3,
            "they came together again: {of_a:?} {of_b:?}"
        );
        parted_for += u32::from(parted);
    }
    assert!(parted_for > 60, "parted for {parted_for} of 120 s");
    let switches: u64 = store
        .snapshot("app")
        .await
        .unwrap()
        .leases
        .iter()
        .map(|lease| lease.owner_switches)
        .sum();
    assert_eq!(switches, 4 + 2, "taken, and one exchanged for another");
    a.stop().await.unwrap();
    b.stop().await.unwrap();
    journal.check_no_duplicates().unwrap();
}

/// Goal: K7, a lease that somebody deleted comes back at once, not with the next listing.
#[tokio::test(start_paused = true)]
async fn k7_a_lease_that_was_deleted_is_created_again() {
    let (kinesis, store, journal) = (
        FakeKinesis::new(3),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    let settings = builder(&kinesis, store.clone(), "w").shard_sync_interval(SECOND * 3600);
    let worker = launch(settings, &journal, "w").await;
    tokio::time::sleep(SECOND * 2).await;
    for shard in 0..3 {
        store.tear_out("app", &shard_id(shard));
        tokio::time::sleep(SECOND * 2).await;
        assert_eq!(
            held_by(&store, "w").await.len(),
            3,
            "2 s after shard {shard} was deleted"
        );
    }
    kinesis.put_many(1, 5);
    tokio::time::sleep(SECOND).await;
    worker.stop().await.unwrap();
    journal.check_no_loss(&kinesis.put_so_far()).unwrap();
}
