//! Closures alone, with a probe, and in whole workers.

use super::*;
use crate::checkpoint::Position;
use crate::decode::DecodeError;
use crate::error::{Error, ErrorKind};
use crate::fake::store::FaultyStore;
use crate::lease::{LeaseStore, MemoryLeaseStore};
use crate::policy::{ErrorAction, ErrorPolicy};
use crate::testing::{InMemoryKinesis, ShardProbe, eventually, pass, record};
use crate::worker::{Worker, WorkerBuilder};
use millstream_wire::SequenceNumber;
use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

const SECOND: Duration = Duration::from_secs(1);

mod keys;

/// How often each record was handled, by sequence number.
#[derive(Debug, Clone, Default)]
struct Counts(Arc<Mutex<BTreeMap<SequenceNumber, u32>>>);

impl Counts {
    /// Counts a record; gives how often it came.
    fn add(&self, record: &Record) -> u32 {
        let mut counts = self.0.lock().unwrap();
        let count = counts.entry(record.sequence_number()).or_default();
        *count += 1;
        *count
    }

    fn all(&self) -> Vec<u32> {
        self.0.lock().unwrap().values().copied().collect()
    }
}

fn records(count: u64) -> impl Iterator<Item = (&'static str, String)> {
    (0..count).map(|index| ("key", index.to_string()))
}

fn text(record: &Record) -> &str {
    std::str::from_utf8(record.data()).unwrap()
}

fn builder(kinesis: &InMemoryKinesis, store: impl LeaseStore) -> WorkerBuilder {
    Worker::builder("app", "orders")
        .client(kinesis.client())
        .lease_store(store)
        .failover_time(3 * SECOND)
        .max_records(10)
}

async fn stored(store: &MemoryLeaseStore) -> Vec<Position> {
    let leases = store.snapshot("app").await.unwrap().leases;
    leases.iter().map(|lease| lease.checkpoint).collect()
}

/// Goal: K5, what was done before a failure is checkpointed and does not come again.
#[tokio::test(start_paused = true)]
async fn k5_records_before_a_failure_are_done() {
    let counts = Counts::default();
    let counting = counts.clone();
    let factory = for_each(move |record: Record| {
        let count = counting.add(&record);
        async move {
            match text(&record) {
                "3" if count < 3 => Err("not yet".into()),
                _ => Ok(()),
            }
        }
    });
    let mut probe = ShardProbe::of(&factory);
    assert!(probe.deliver(records(6)).await.is_err());
    assert_eq!(probe.checkpointed(), 3);
    assert!(probe.redeliver().await.is_err());
    probe.redeliver().await.unwrap();
    assert_eq!(counts.all(), [1, 1, 1, 3, 1, 1]);
    assert_eq!(probe.checkpointed(), 6);
    probe.request_shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure_of_its_record() {
    let factory = for_each(|record: Record| async move {
        assert_ne!(text(&record), "1", "a panic on demand");
        Ok(())
    });
    let mut probe = ShardProbe::of(&factory);
    let failed = probe.deliver(records(3)).await.unwrap_err();
    assert!(failed.to_string().contains("a panic on demand"), "{failed}");
    assert_eq!(probe.checkpointed(), 1);
}

/// Goal: K9, what was done of a batch that failed is not undone by the release.
#[tokio::test(start_paused = true)]
async fn k9_a_release_after_a_failure_keeps_what_was_done() {
    let factory = for_each(|record: Record| async move {
        match text(&record) {
            "4" => Err("never".into()),
            _ => Ok(()),
        }
    });
    let mut probe = ShardProbe::of(&factory);
    probe.deliver(records(2)).await.unwrap();
    let more = (2..6).map(|index| ("key", index.to_string()));
    probe.deliver(more).await.unwrap_err();
    probe.request_shutdown().await.unwrap();
    assert_eq!(probe.checkpointed(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_long_batch_is_checkpointed_each_second() {
    let factory = for_each(|_: Record| pass_and_succeed(SECOND / 2));
    let mut probe = ShardProbe::of(&factory);
    let store = probe.store();
    let watching = tokio::spawn(async move {
        pass(5 * SECOND + SECOND / 4).await;
        store.snapshot(crate::testing::probe::APPLICATION).await
    });
    probe.deliver(records(20)).await.unwrap();
    let midway = watching.await.unwrap().unwrap().leases[0].checkpoint;
    let done = record(10, "key", "").position();
    assert!(
        record(7, "key", "").position() <= midway && midway <= done,
        "{midway}"
    );
}

async fn pass_and_succeed(time: Duration) -> Result<(), ProcessorError> {
    pass(time).await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn checkpoints_are_as_rare_as_asked_for() {
    let factory = for_each(|_: Record| async { Ok(()) }).checkpoint_every(10 * SECOND);
    let mut probe = ShardProbe::of(&factory);
    for _ in 0..9 {
        probe.deliver(records(1)).await.unwrap();
        assert_eq!(probe.checkpointed(), 0);
        pass(SECOND).await;
    }
    pass(2 * SECOND).await;
    probe.deliver(records(1)).await.unwrap();
    assert_eq!(
        probe.checkpointed(),
        9,
        "when the time came, all but the last were done"
    );
    pass(8 * SECOND).await;
    probe.deliver(records(1)).await.unwrap();
    assert_eq!(probe.checkpointed(), 9);
    probe.request_shutdown().await.unwrap();
    assert_eq!(probe.checkpointed(), 11, "K9");
}

#[tokio::test(start_paused = true)]
async fn checkpoints_come_after_so_many_records() {
    let factory = for_each_batch(|_: RecordBatch| async { Ok(()) }).checkpoint_every_records(5);
    let mut probe = ShardProbe::of(&factory);
    let mut checkpointed = Vec::new();
    for _ in 0..5 {
        probe.deliver(records(2)).await.unwrap();
        checkpointed.push(probe.checkpointed());
    }
    assert_eq!(checkpointed, [0, 0, 6, 6, 6]);
    probe.end_shard().await.unwrap();
    assert_eq!(probe.checkpoint(), Position::ShardEnd);
}

/// Goal: K2, none is begun when the lease is gone in the middle of a batch.
#[tokio::test(start_paused = true)]
async fn k2_nothing_is_begun_when_the_lease_is_gone() {
    let gone: Arc<OnceLock<crate::Checkpointer>> = Arc::default();
    let counts = Counts::default();
    let (end, counting) = (Arc::clone(&gone), counts.clone());
    let handle = move |record: Record| {
        counting.add(&record);
        if text(&record) == "2" {
            end.get().unwrap().end("gone in this test");
        }
        std::future::ready(Ok(()))
    };
    let mut probe = ShardProbe::of(&for_each(handle));
    gone.set(probe.checkpointer().await).unwrap();
    let failed = probe.deliver(records(6)).await.unwrap_err();
    let failed = failed.downcast_ref::<Error>().map(Error::kind);
    assert_eq!(failed, Some(ErrorKind::LeaseLost));
    assert_eq!(counts.all(), [1, 1, 1]);
}

/// Goal: K4, a store that is out of reach repeats checkpoints, not the work. Method: checkpoints that fail for a while.
#[tokio::test(start_paused = true)]
async fn k5_a_checkpoint_that_fails_repeats_no_work() {
    let kinesis = InMemoryKinesis::new(1);
    let memory = MemoryLeaseStore::new();
    let store = FaultyStore::new(memory.clone());
    store.set(|faults| faults.down = &["checkpoint"]);
    let counts = Counts::default();
    let counting = counts.clone();
    let worker = builder(&kinesis, store.clone())
        .on_error(ErrorPolicy::skip().after(1))
        .build(for_each_batch(move |batch: RecordBatch| {
            batch.records().iter().for_each(|record| {
                counting.add(record);
            });
            std::future::ready(Ok(()))
        }))
        .await
        .unwrap();
    let handle = worker.handle();
    let running = tokio::spawn(worker.run());
    for _ in 0..15 {
        kinesis.put("key", "x");
    }
    pass(10 * SECOND).await;
    assert_eq!(counts.all().len(), 10, "the first batch");
    assert_eq!(stored(&memory).await, [Position::TrimHorizon]);
    store.set(|faults| faults.down = &[]);
    eventually("all is done", 30 * SECOND, || counts.all().len() == 15).await;
    handle.shutdown_and_wait().await;
    running.await.unwrap().unwrap();
    assert_eq!(counts.all(), [1; 15]);
    assert_eq!(handle.counts().skipped, 0);
}

#[derive(Debug, serde::Deserialize)]
struct Order {
    amount: u64,
}

/// Goal: what does not decode is told from what failed, and given up without its data being shown.
#[tokio::test(start_paused = true)]
async fn what_does_not_decode_is_recognised() {
    let kinesis = InMemoryKinesis::new(1);
    for data in [
        r#"{"amount": 1}"#,
        r#"{"amount": "secret"}"#,
        r#"{"amount": 5}"#,
    ] {
        kinesis.put("key", data);
    }
    let sum = Arc::new(Mutex::new(0));
    let errors = Arc::new(Mutex::new(Vec::new()));
    let (adding, noting) = (Arc::clone(&sum), Arc::clone(&errors));
    let worker = builder(&kinesis, MemoryLeaseStore::new())
        .on_error(ErrorPolicy::decide(move |failure| {
            match failure.error.downcast_ref::<DecodeError>() {
                Some(error) => {
                    noting.lock().unwrap().push(error.to_string());
                    ErrorAction::Skip
                }
                None => ErrorAction::Retry,
            }
        }))
        .build(for_each_json(move |order: Order, _: Record| {
            *adding.lock().unwrap() += order.amount;
            std::future::ready(Ok(()))
        }))
        .await
        .unwrap();
    let handle = worker.handle();
    let running = tokio::spawn(worker.run());
    eventually("the orders are added", 10 * SECOND, || {
        *sum.lock().unwrap() == 6
    })
    .await;
    handle.shutdown_and_wait().await;
    running.await.unwrap().unwrap();
    assert_eq!(handle.counts().skipped, 1);
    let expected = "record 2 of shardId-000000000000 is not as expected: found string, expected u64 at line 1 column 19";
    let errors = errors.lock().unwrap();
    assert!(errors.iter().all(|error| error == expected), "{errors:?}");
}
