//! Batches by bytes and by time, and that nothing that waits for its batch is lost, counted as done, or in the way.

use super::policy::{SECOND, good, poison, put_poisoned, until_good_processed};
use super::*;
use crate::fake::recorder::Event;
use crate::lease::MemoryLeaseStore;
use crate::policy::ErrorPolicy;

const WINDOW: Duration = Duration::from_mins(1);

/// Sizes of the batches, in the order of their delivery.
fn batches(journal: &Journal) -> Vec<usize> {
    let size = |event: &Event| match event {
        Event::Delivered(records) => Some(records.len()),
        _ => None,
    };
    let entries = journal.entries();
    entries
        .iter()
        .filter_map(|entry| size(&entry.event))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_batch_holds_so_many_bytes() {
    let kinesis = FakeKinesis::new(1);
    for _ in 0..9 {
        kinesis.put(0, "seven b");
    }
    let journal = Journal::default();
    let builder = builder(&kinesis, MemoryLeaseStore::new(), "w").max_batch_bytes(49);
    let worker = launch(builder, &journal, "w").await;
    until_processed(&kinesis, &journal, 10 * SECOND).await;
    assert_eq!(batches(&journal), [4, 4, 1]);
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_trickle_is_delivered_in_few_batches() {
    let kinesis = FakeKinesis::new(2);
    let journal = Journal::default();
    let builder = builder(&kinesis, MemoryLeaseStore::new(), "w").batch_window(SECOND);
    let worker = launch(builder, &journal, "w").await;
    for _ in 0..50 {
        kinesis.put(0, "x");
        kinesis.put(1, "x");
        tokio::time::sleep(SECOND / 4).await;
    }
    until_processed(&kinesis, &journal, 10 * SECOND).await;
    let batches = batches(&journal);
    assert!((15..=30).contains(&batches.len()), "{batches:?}");
    journal.check_no_duplicates().unwrap();
    journal.check_order().unwrap();
    worker.stop().await.unwrap();
}

/// Goal: K9 and K4, a shutdown waits for no window, and what waited is neither delivered late nor counted as done.
#[tokio::test(start_paused = true)]
async fn k9_a_shutdown_waits_for_no_window() {
    let kinesis = FakeKinesis::new(1);
    kinesis.put_many(0, 7);
    let (journal, store) = (Journal::default(), MemoryLeaseStore::new());
    let first = builder(&kinesis, store.clone(), "a").batch_window(WINDOW);
    let first = launch(first, &journal, "a").await;
    tokio::time::sleep(5 * SECOND).await;
    let before = tokio::time::Instant::now();
    first.stop().await.unwrap();
    assert!(before.elapsed() < SECOND, "{:?}", before.elapsed());
    assert_eq!(batches(&journal), [] as [usize; 0]);
    let second = start(&kinesis, store, &journal, "b").await;
    until_processed(&kinesis, &journal, 10 * SECOND).await;
    journal.check_no_duplicates().unwrap();
    second.stop().await.unwrap();
}

/// Goal: K9, a hand-over waits for no window either. Method: a second worker asks for half of the shards while both wait.
#[tokio::test(start_paused = true)]
async fn k9_a_hand_over_waits_for_no_window() {
    let kinesis = FakeKinesis::new(2);
    kinesis.put_many(0, 3);
    kinesis.put_many(1, 3);
    let (journal, store) = (Journal::default(), MemoryLeaseStore::new());
    let first = builder(&kinesis, store.clone(), "a").batch_window(WINDOW);
    let first = launch(first, &journal, "a").await;
    tokio::time::sleep(3 * SECOND).await;
    let second = start(&kinesis, store, &journal, "b").await;
    until("the second worker has a shard", WINDOW / 4, || {
        journal.entries().iter().any(|entry| entry.worker == "b")
    })
    .await;
    until_processed(&kinesis, &journal, 2 * WINDOW).await;
    journal.check_no_duplicates().unwrap();
    journal.check_order().unwrap();
    first.stop().await.unwrap();
    second.stop().await.unwrap();
}

/// Goal: K4 and K6 with windows: poison is found by bisection, and a shard that ends begins its children.
#[tokio::test(start_paused = true)]
async fn k4_policies_and_reshards_work_with_windows() {
    let kinesis = FakeKinesis::new(1);
    let journal = Journal::default();
    put_poisoned(&kinesis, &journal, (0, 25), &[3, 17]);
    let builder = builder(&kinesis, MemoryLeaseStore::new(), "w")
        .batch_window(2 * SECOND)
        .on_error(ErrorPolicy::skip().after(1));
    let worker = launch(builder, &journal, "w").await;
    tokio::time::sleep(SECOND).await;
    let (lower, upper) = kinesis.split(0);
    kinesis.put_many(lower, 4);
    kinesis.put_many(upper, 4);
    until_good_processed(&kinesis, &journal, 20 * SECOND).await;
    assert_eq!(worker.handle.counts().skipped, 2);
    assert_eq!(good(&kinesis, &journal).len(), 31);
    assert_eq!(poison(&journal).len(), 2);
    worker.stop().await.unwrap();
}
