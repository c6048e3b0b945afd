//! Records as a stream: acknowledged in any order, lost by no kind of end.

use super::*;
use crate::checkpoint::Position;
use crate::fake::store::FaultyStore;
use crate::lease::{LeaseStore, MemoryLeaseStore};
use crate::policy::{ErrorAction, ErrorPolicy};
use crate::testing::{InMemoryKinesis, pass};
use crate::worker::Worker;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;

const SECOND: Duration = Duration::from_secs(1);

fn builder(kinesis: &InMemoryKinesis, store: impl LeaseStore) -> WorkerBuilder {
    Worker::builder("app", "orders")
        .client(kinesis.client())
        .lease_store(store)
        .failover_time(3 * SECOND)
        .max_records(10)
}

fn put(kinesis: &InMemoryKinesis, count: usize) {
    for index in 0..count {
        kinesis.put(&format!("key {index}"), index.to_string());
    }
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.record().data()).into_owned()
}

async fn take(stream: &mut RecordStream) -> Delivery {
    let next = timeout(60 * SECOND, stream.next()).await;
    next.expect("a record comes").unwrap().unwrap()
}

async fn take_many(stream: &mut RecordStream, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    for _ in 0..count {
        taken.push(take(stream).await);
    }
    taken
}

async fn stored(store: &MemoryLeaseStore) -> Position {
    store.snapshot("app").await.unwrap().leases[0].checkpoint
}

/// Counts how often each record was done.
#[derive(Debug, Default)]
struct Counts(BTreeMap<String, u32>);

impl Counts {
    fn done(&mut self, delivery: Delivery) {
        *self.0.entry(text(&delivery)).or_default() += 1;
        delivery.done();
    }
}

/// Goal: K5 and K9, acknowledged in any order every record comes once, also over a shutdown in the middle. Method: random acknowledgements, some kept back
/// until their batch ends.
#[tokio::test(start_paused = true)]
async fn k5_k9_each_record_comes_once_in_whatever_order_they_are_done() {
    let kinesis = InMemoryKinesis::new(3);
    let store = MemoryLeaseStore::new();
    put(&kinesis, 300);
    let mut counts = Counts::default();
    for round in 0..2 {
        let mut stream = builder(&kinesis, store.clone()).stream().await.unwrap();
        let mut kept = Vec::new();
        while let Ok(Some(delivery)) = timeout(10 * SECOND, stream.next()).await {
            kept.push(delivery.unwrap());
            let is_last = kept.last().is_some_and(Delivery::ends_batch);
            while kept.len() > 20 || (is_last || fastrand::bool()) && !kept.is_empty() {
                counts.done(kept.swap_remove(fastrand::usize(..kept.len())));
            }
            if round == 0 && counts.0.len() > 100 {
                stream.handle().shutdown();
            }
        }
        assert!(kept.is_empty());
        if round == 1 {
            stream.handle().shutdown();
            assert!(stream.next().await.is_none());
        }
        assert!(stream.next().await.is_none(), "it has ended");
    }
    assert_eq!(counts.0.len(), 300);
    assert!(counts.0.values().all(|count| *count == 1), "{counts:?}");
}

/// Goal: K4, the checkpoint stays before the first record that is not done.
#[tokio::test(start_paused = true)]
async fn k4_the_checkpoint_is_the_low_water_mark() {
    let kinesis = InMemoryKinesis::new(1);
    let store = MemoryLeaseStore::new();
    put(&kinesis, 10);
    let mut stream = builder(&kinesis, store.clone()).stream().await.unwrap();
    let mut taken = take_many(&mut stream, 10).await;
    let positions: Vec<_> = taken.iter().map(|one| one.record().position()).collect();
    assert!(taken[9].ends_batch() && !taken[8].ends_batch());
    let third = taken.remove(2);
    taken.into_iter().for_each(Delivery::done);
    pass(5 * SECOND).await;
    assert_eq!(stored(&store).await, positions[1]);
    third.done();
    pass(SECOND).await;
    assert_eq!(stored(&store).await, positions[9]);
}

#[tokio::test(start_paused = true)]
async fn k4_a_delivery_that_is_dropped_comes_again() {
    let kinesis = InMemoryKinesis::new(1);
    put(&kinesis, 4);
    let mut stream = builder(&kinesis, MemoryLeaseStore::new())
        .stream()
        .await
        .unwrap();
    for delivery in take_many(&mut stream, 4).await {
        match text(&delivery).as_str() {
            "1" => drop(delivery),
            "2" => delivery.failed("not yet"),
            _ => delivery.done(),
        }
    }
    let again = take_many(&mut stream, 2).await;
    let texts: Vec<_> = again.iter().map(text).collect();
    assert_eq!(texts, ["1", "2"]);
    again.into_iter().for_each(Delivery::done);
    let more = timeout(20 * SECOND, stream.next()).await;
    assert!(more.is_err(), "nothing else comes");
}

#[tokio::test(start_paused = true)]
async fn failures_are_for_the_error_policy() {
    let kinesis = InMemoryKinesis::new(1);
    let store = MemoryLeaseStore::new();
    put(&kinesis, 10);
    let mut stream = builder(&kinesis, store.clone())
        .on_error(ErrorPolicy::decide(|failure| {
            if failure.error.is::<std::fmt::Error>() {
                ErrorAction::Skip
            } else {
                ErrorAction::Retry
            }
        }))
        .stream()
        .await
        .unwrap();
    let mut done = Vec::new();
    while let Ok(next) = timeout(20 * SECOND, stream.next()).await {
        let delivery = next.unwrap().unwrap();
        match text(&delivery).as_str() {
            "3" => delivery.failed(std::fmt::Error),
            other => {
                done.push(other.to_owned());
                delivery.done();
            }
        }
    }
    assert_eq!(done, ["0", "1", "2", "4", "5", "6", "7", "8", "9"]);
    assert_eq!(stream.handle().counts().skipped, 1);
}

#[tokio::test(start_paused = true)]
async fn the_stream_ends_with_the_error_of_its_worker() {
    let kinesis = InMemoryKinesis::new(1);
    put(&kinesis, 1);
    let mut stream = builder(&kinesis, MemoryLeaseStore::new())
        .on_error(ErrorPolicy::stop().after(1))
        .stream()
        .await
        .unwrap();
    take(&mut stream).await.failed("never");
    let error = stream.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Processor);
    assert!(stream.next().await.is_none());
}

/// Goal: K4 and K8, dropping the stream is like a crash: nothing is lost, and the leases are free when they have expired.
#[tokio::test(start_paused = true)]
async fn k4_a_stream_that_is_dropped_loses_nothing() {
    let kinesis = InMemoryKinesis::new(1);
    let store = MemoryLeaseStore::new();
    put(&kinesis, 5);
    let mut first = builder(&kinesis, store.clone()).stream().await.unwrap();
    let mut taken = take_many(&mut first, 3).await;
    taken.remove(0).done();
    pass(2 * SECOND).await;
    drop(first);
    taken.into_iter().for_each(Delivery::done);
    let before = crate::clock::now();
    let mut second = builder(&kinesis, store).stream().await.unwrap();
    let texts: Vec<_> = take_many(&mut second, 4).await.iter().map(text).collect();
    assert_eq!(texts, ["1", "2", "3", "4"], "acknowledged too late");
    assert!(crate::clock::now() - before < 5 * SECOND);
}

/// Goal: K2, nothing is given out while the lease cannot be proven, also what waited already; and it all comes afterwards, once.
#[tokio::test(start_paused = true)]
async fn k2_nothing_is_given_out_outside_the_owner_window() {
    let kinesis = InMemoryKinesis::new(1);
    let store = FaultyStore::new(MemoryLeaseStore::new());
    put(&kinesis, 8);
    let mut stream = builder(&kinesis, store.clone()).stream().await.unwrap();
    let mut counts = Counts::default();
    counts.done(take(&mut stream).await);
    store.set(|faults| faults.unreachable = true);
    pass(4 * SECOND).await;
    let given = timeout(SECOND, stream.next()).await;
    assert!(given.is_err(), "{given:?}");
    store.set(|faults| faults.unreachable = false);
    for delivery in take_many(&mut stream, 7).await {
        counts.done(delivery);
    }
    assert!(counts.0.values().all(|count| *count == 1), "{counts:?}");
    assert_eq!(counts.0.len(), 8);
}

/// Goal: it is a `Stream` for those who use its combinators.
#[tokio::test(start_paused = true)]
async fn it_is_a_stream() {
    let kinesis = InMemoryKinesis::new(1);
    put(&kinesis, 1);
    let builder = builder(&kinesis, MemoryLeaseStore::new());
    let stream = builder.stream().await.unwrap();
    let mut stream: Pin<Box<dyn Stream<Item = Result<Delivery, Error>> + Send>> = Box::pin(stream);
    let next = std::future::poll_fn(|context| stream.as_mut().poll_next(context));
    next.await.unwrap().unwrap().done();
}

/// Goal: who gathers deliveries gets more of a shard while none of them is done, up to the size of a batch.
#[tokio::test(start_paused = true)]
async fn k10_deliveries_can_be_gathered() {
    let kinesis = InMemoryKinesis::new(1);
    let store = MemoryLeaseStore::new();
    let mut stream = builder(&kinesis, store.clone())
        .max_records(50)
        .stream()
        .await
        .unwrap();
    let putting = tokio::spawn({
        let kinesis = kinesis.clone();
        async move {
            for index in 0..70 {
                kinesis.put("key", index.to_string());
                pass(SECOND / 2).await;
            }
        }
    });
    let gathered = take_many(&mut stream, 50).await;
    assert!(gathered[49].ends_batch());
    let more = timeout(30 * SECOND, stream.next()).await;
    assert!(more.is_err(), "the batch is full");
    assert_eq!(stored(&store).await, Position::TrimHorizon);
    gathered.into_iter().for_each(Delivery::done);
    let rest = take_many(&mut stream, 20).await;
    assert_eq!(text(&rest[0]), "50");
    putting.await.unwrap();
}
