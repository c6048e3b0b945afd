//! Error policies: retry, stop, skip, per error; bisection; and that K4, K5 and K6 hold meanwhile.

use super::*;
use crate::checkpoint::{Checkpointer, Position};
use crate::error::ErrorKind;
use crate::fake::recorder::{Event, Poison};
use crate::fake::shard_id;
use crate::fake::store::FaultyStore;
use crate::lease::{Lease, MemoryLeaseStore};
use crate::policy::{Callback, ErrorAction, ErrorPolicy};
use crate::processor::{ProcessorError, RecordBatch, RecordProcessor, ShardInfo};
use async_trait::async_trait;
use millstream_wire::SequenceNumber;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// Puts records and makes some of them poison; gives all of them.
pub(super) fn put_poisoned(
    kinesis: &FakeKinesis,
    journal: &Journal,
    (shard, count): (usize, usize),
    poison: &[usize],
) -> Vec<SequenceNumber> {
    let put: Vec<_> = (0..count)
        .map(|index| kinesis.put(shard, &index.to_string()))
        .collect();
    journal.behave(|behaviour| {
        let poison = poison.iter().map(|index| put[*index]);
        behaviour.poison.extend(poison);
    });
    put
}

pub(super) fn poison(journal: &Journal) -> BTreeSet<SequenceNumber> {
    let mut poison = BTreeSet::new();
    journal.behave(|behaviour| poison.clone_from(&behaviour.poison));
    poison
}

/// What is to be processed when poison is given up.
pub(super) fn good(kinesis: &FakeKinesis, journal: &Journal) -> BTreeSet<SequenceNumber> {
    let poison = poison(journal);
    let put = kinesis.put_so_far().into_iter();
    put.filter(|record| !poison.contains(record)).collect()
}

pub(super) async fn until_good_processed(
    kinesis: &FakeKinesis,
    journal: &Journal,
    limit: Duration,
) {
    until("all but the poison is processed", limit, || {
        journal.processed() == good(kinesis, journal)
    })
    .await;
}

/// K6 while parts of batches are delivered: each delivery is a run of the shard's records without a gap, and begins right after what
/// is handled: processed, or poison that failed alone.
pub(super) fn check_parts(journal: &Journal, put: &[SequenceNumber]) -> Result<(), String> {
    let poison = poison(journal);
    let index: BTreeMap<_, _> = put.iter().zip(0usize..).collect();
    // Per tenure: the first record not handled, and the last delivery.
    let mut tenures: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for entry in journal.entries().iter() {
        let Event::Delivered(records) = &entry.event else {
            if let Event::Processed(records) = &entry.event
                && let Some(first) = index.get(&records[0])
            {
                tenures.insert(entry.tenure, (first + records.len(), 0));
            }
            continue;
        };
        let Some(first) = index.get(&records[0]).copied() else {
            continue;
        };
        if put.get(first..first + records.len()) != Some(records) {
            return Err(format!("K6: a gap in {records:?}"));
        }
        let (next, last) = tenures.entry(entry.tenure).or_insert((first, 0));
        let gave_up = *last == 1 && first == *next + 1 && poison.contains(&put[*next]);
        if first != *next && !gave_up {
            return Err(format!("K6: {records:?}, though {} is next", put[*next]));
        }
        (*next, *last) = (first, records.len());
    }
    Ok(())
}

pub(super) async fn lease(store: &MemoryLeaseStore, shard: usize) -> Lease {
    let leases = store.snapshot("app").await.unwrap().leases;
    let mut leases = leases.into_iter();
    leases
        .find(|lease| lease.key.shard_id == shard_id(shard))
        .unwrap()
}

/// A shared scene: a stream, a store, a journal.
pub(super) fn scene(shards: u32) -> (FakeKinesis, MemoryLeaseStore, Journal) {
    (
        FakeKinesis::new(shards),
        MemoryLeaseStore::new(),
        Journal::default(),
    )
}

/// Goal: Skip leaves out the records that fail, and only those, wherever they are in a batch; the checkpoint covers them.
#[tokio::test(start_paused = true)]
async fn k4_k6_skip_gives_up_exactly_the_poison() {
    for panics in [false, true] {
        let (kinesis, store, journal) = scene(2);
        // Batches of ten: the first record, two neighbours, the last of a batch, and the very last.
        let put = put_poisoned(&kinesis, &journal, (0, 40), &[0, 14, 15, 29, 39]);
        kinesis.put_many(1, 20);
        journal.behave(|behaviour| behaviour.panics = panics);
        let builder = builder(&kinesis, store.clone(), "w").on_error(ErrorPolicy::skip());
        let worker = launch(builder, &journal, "w").await;
        until_good_processed(&kinesis, &journal, SECOND * 10).await;
        tokio::time::sleep(SECOND).await;
        let counts = worker.handle.counts();
        assert_eq!((counts.skipped, counts.dead_letters), (5, 0));
        check_parts(&journal, &put).unwrap();
        worker.stop().await.unwrap();
        assert_eq!(lease(&store, 0).await.checkpoint, Position::after(put[39]));
        assert_eq!(journal.processed(), good(&kinesis, &journal));
    }
}

/// Goal: three poison records among a thousand in one batch are found with few calls.
#[tokio::test(start_paused = true)]
async fn bisection_finds_the_poison_among_a_thousand_with_few_calls() {
    let (kinesis, store, journal) = scene(1);
    let put = put_poisoned(&kinesis, &journal, (0, 1000), &[3, 500, 501]);
    let builder = builder(&kinesis, store, "w")
        .max_records(1000)
        .on_error(ErrorPolicy::skip());
    let worker = launch(builder, &journal, "w").await;
    until_good_processed(&kinesis, &journal, SECOND * 10).await;
    let is_call = |event: &Event| matches!(event, Event::Delivered(_));
    let calls = journal
        .entries()
        .iter()
        .filter(|entry| is_call(&entry.event))
        .count();
    // Three attempts at the whole, then two halves for each level and poison record.
    assert!(calls <= 3 + 2 * 3 * 10, "{calls} calls");
    check_parts(&journal, &put).unwrap();
    worker.stop().await.unwrap();
}

/// Goal: a policy tells errors apart, also in the middle of a bisection: what may pass is retried though it hits a single record.
#[tokio::test(start_paused = true)]
async fn k4_a_policy_per_error_gives_up_only_what_fails_for_good() {
    let (kinesis, store, journal) = scene(1);
    let put = put_poisoned(&kinesis, &journal, (0, 30), &[4, 17]);
    let policy = ErrorPolicy::decide(|failure| match failure.error.downcast_ref() {
        Some(Poison(_)) => ErrorAction::Skip,
        None => ErrorAction::Retry,
    });
    let builder = builder(&kinesis, store, "w").on_error(policy);
    let worker = launch(builder, &journal, "w").await;
    // Whatever is being called, and however small: it fails five times in a row now and then.
    for _ in 0..200 {
        journal.behave(|behaviour| behaviour.failures = 5);
        tokio::time::sleep(SECOND).await;
    }
    until_good_processed(&kinesis, &journal, SECOND * 60).await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(worker.handle.counts().skipped, 2);
    check_parts(&journal, &put).unwrap();
    worker.stop().await.unwrap();
}

/// Goal: what a policy is told is right: attempts count up through the levels of a bisection, and panics are named.
#[tokio::test(start_paused = true)]
async fn a_policy_is_told_what_failed_and_how_often() {
    let (kinesis, store, journal) = scene(1);
    put_poisoned(&kinesis, &journal, (0, 8), &[0]);
    journal.behave(|behaviour| behaviour.panics = true);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let policy = ErrorPolicy::decide(move |failure| {
        assert_eq!(failure.callback, Callback::ProcessRecords);
        assert_eq!(failure.shard.shard_id, shard_id(0));
        assert_eq!(failure.error.to_string(), "panicked: a panic on demand");
        let seen = (failure.records.len(), failure.attempt, failure.panicked);
        kept.lock().unwrap().push(seen);
        ErrorAction::Skip
    });
    let builder = builder(&kinesis, store, "w").on_error(policy.after(2));
    let worker = launch(builder, &journal, "w").await;
    until_good_processed(&kinesis, &journal, SECOND * 10).await;
    let expected = [(8, 2, true), (4, 3, true), (2, 4, true), (1, 5, true)];
    assert_eq!(*seen.lock().unwrap(), expected);
    worker.stop().await.unwrap();
}

/// Goal: a lease store that is out of reach costs no record, whatever the policy: the records are not at fault. Method: a processor
/// that checkpoints every batch, and outages shorter and longer than the owner window.
#[tokio::test(start_paused = true)]
async fn k4_no_record_is_given_up_because_the_lease_store_is_out_of_reach() {
    for outage in [FAILOVER / 2, FAILOVER * 5] {
        let (kinesis, memory, journal) = scene(1);
        let store = FaultyStore::new(memory);
        let builder = builder(&kinesis, store.clone(), "w").on_error(ErrorPolicy::skip().after(1));
        let worker = launch(builder, &journal, "w").await;
        for _ in 0..5 {
            tokio::time::sleep(SECOND).await;
            kinesis.put_many(0, 10);
            store.set(|faults| faults.unreachable = true);
            tokio::time::sleep(outage).await;
            store.set(|faults| faults.unreachable = false);
        }
        until_processed(&kinesis, &journal, SECOND * 20).await;
        assert_eq!(worker.handle.counts().skipped, 0);
        worker.stop().await.unwrap();
    }
}

/// Goal: wherever a worker dies while it bisects, nothing is lost, and the next one gives up the same records.
#[tokio::test(start_paused = true)]
async fn k4_no_loss_when_crashing_in_the_middle_of_a_bisection() {
    for step in 0..40u32 {
        let (kinesis, store, journal) = scene(1);
        let put = put_poisoned(&kinesis, &journal, (0, 30), &[6, 7, 25]);
        journal.behave(|behaviour| behaviour.takes = Duration::from_millis(50));
        let start = |id: &str| {
            let policy = ErrorPolicy::skip().after(1);
            builder(&kinesis, store.clone(), id).on_error(policy)
        };
        let first = launch(start("a"), &journal, "a").await;
        tokio::time::sleep(Duration::from_millis(37) * step).await;
        first.task.abort();
        let second = launch(start("b"), &journal, "b").await;
        until_good_processed(&kinesis, &journal, SECOND * 20).await;
        check_parts(&journal, &put).unwrap();
        second.stop().await.unwrap();
    }
}

/// Goal: a hand-over in the middle of a bisection is as good as any: what was processed is not processed again, nothing is lost. Method: a second
/// worker asks for one of two shards while both are being bisected.
#[tokio::test(start_paused = true)]
async fn k5_a_hand_over_in_the_middle_of_a_bisection_repeats_and_loses_nothing() {
    for step in 0..10u32 {
        let (kinesis, store, journal) = scene(2);
        let puts = [0, 1].map(|shard| put_poisoned(&kinesis, &journal, (shard, 30), &[6, 7, 25]));
        journal.behave(|behaviour| behaviour.takes = Duration::from_millis(250));
        let start = |id: &str| {
            let policy = ErrorPolicy::skip().after(1);
            builder(&kinesis, store.clone(), id).on_error(policy)
        };
        let first = launch(start("a"), &journal, "a").await;
        tokio::time::sleep(Duration::from_millis(123) * step).await;
        let second = launch(start("b"), &journal, "b").await;
        until_good_processed(&kinesis, &journal, SECOND * 60).await;
        let workers: BTreeSet<_> = journal.entries().iter().map(|e| e.worker.clone()).collect();
        assert_eq!(workers.len(), 2, "step {step}: a shard was handed over");
        let mut times: BTreeMap<SequenceNumber, usize> = BTreeMap::new();
        for entry in journal.entries().iter() {
            if let Event::Processed(records) = &entry.event {
                for record in records {
                    *times.entry(*record).or_default() += 1;
                }
            }
        }
        assert!(times.values().all(|times| *times == 1), "{times:?}");
        for put in puts {
            check_parts(&journal, &put).unwrap();
        }
        first.stop().await.unwrap();
        second.stop().await.unwrap();
    }
}

/// Goal: a record given up at the very end of a closed shard does not keep its children waiting.
#[tokio::test(start_paused = true)]
async fn k6_a_shard_ends_after_its_last_record_was_given_up() {
    let (kinesis, store, journal) = scene(1);
    put_poisoned(&kinesis, &journal, (0, 12), &[11]);
    let (lower, upper) = kinesis.split(0);
    kinesis.put_many(lower, 5);
    kinesis.put_many(upper, 5);
    let builder = builder(&kinesis, store, "w").on_error(ErrorPolicy::skip());
    let worker = launch(builder, &journal, "w").await;
    until_good_processed(&kinesis, &journal, SECOND * 10).await;
    assert_eq!(journal.count(&Event::ShardEnded), 1);
    worker.stop().await.unwrap();
}

/// Goal: Stop ends the worker in order. The error says what failed and has the processor's as its source; the other shard's batch in work is
/// finished; the next worker begins with the batch that failed, and nothing is processed twice.
#[tokio::test(start_paused = true)]
async fn k9_stop_releases_everything_and_the_next_worker_begins_with_the_failed_batch() {
    let (kinesis, store, journal) = scene(2);
    let put = put_poisoned(&kinesis, &journal, (0, 30), &[14]);
    kinesis.put_many(1, 200);
    journal.behave(|behaviour| {
        behaviour.takes = Duration::from_millis(70);
        // The release alone tells how far the shards have got.
        behaviour.checkpoints = false;
    });
    let policy = ErrorPolicy::stop().after(2);
    let builder_a = builder(&kinesis, store.clone(), "a").on_error(policy);
    let worker = launch(builder_a, &journal, "a").await;
    let error = worker.task.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Processor);
    let text = error.to_string();
    let expected = format!(
        "process_records failed 2 times for {} of orders at 10 records from {} to {}",
        shard_id(0),
        put[10],
        put[19]
    );
    assert!(text.starts_with(&expected), "{text}");
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.downcast_ref::<Poison>().unwrap().0, put[14]);
    let snapshot = store.snapshot("app").await.unwrap();
    assert!(snapshot.workers.is_empty());
    assert!(snapshot.leases.iter().all(|lease| lease.owner.is_none()));
    assert_eq!(lease(&store, 0).await.checkpoint, Position::after(put[9]));
    let before = journal.entries().len();
    journal.behave(|behaviour| behaviour.poison.clear());
    let second = start(&kinesis, store.clone(), &journal, "b").await;
    until_processed(&kinesis, &journal, SECOND * 10).await;
    second.stop().await.unwrap();
    let first = journal.entries()[before..]
        .iter()
        .find_map(|entry| match &entry.event {
            Event::Delivered(records) if entry.shard == shard_id(0) => Some(records.clone()),
            _ => None,
        });
    assert_eq!(first.unwrap(), put[10..20]);
    // Only the failed batch was seen more than once: twice by the first worker, once by the second.
    for (record, times) in journal.deliveries() {
        let failed = put[10..20].contains(&record);
        assert_eq!(times, if failed { 3 } else { 1 }, "{record}");
    }
}

/// Goal: when the last batch of a graceful shutdown fails and the policy says to stop, the error is not swallowed.
#[tokio::test(start_paused = true)]
async fn stop_is_reported_by_a_worker_that_is_shutting_down() {
    let (kinesis, store, journal) = scene(1);
    let put = put_poisoned(&kinesis, &journal, (0, 10), &[3]);
    journal.behave(|behaviour| behaviour.takes = SECOND);
    let policy = ErrorPolicy::stop().after(1);
    let builder = builder(&kinesis, store.clone(), "w").on_error(policy);
    let worker = launch(builder, &journal, "w").await;
    until("the batch is in work", SECOND * 5, || {
        journal.deliveries().contains_key(&put[0])
    })
    .await;
    let error = worker.stop().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Processor);
    let lease = lease(&store, 0).await;
    assert_eq!(
        (lease.owner, lease.checkpoint),
        (None, Position::TrimHorizon)
    );
}

/// Fails in one callback, as often as told.
struct Fragile {
    breaks_in: Callback,
    failures: Arc<AtomicU32>,
}

impl Fragile {
    fn call(&self, callback: Callback) -> Result<(), ProcessorError> {
        let left = |count: u32| count.checked_sub(1);
        let fails = callback == self.breaks_in
            && self
                .failures
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, left)
                .is_ok();
        if fails {
            return Err(format!("{callback} fails on demand").into());
        }
        Ok(())
    }
}

#[async_trait]
impl RecordProcessor for Fragile {
    async fn initialize(&mut self, _: &ShardInfo) -> Result<(), ProcessorError> {
        self.call(Callback::Initialize)
    }

    async fn process_records(
        &mut self,
        _: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        checkpointer.checkpoint().await?;
        Ok(())
    }

    async fn shard_ended(&mut self, _: &Checkpointer) -> Result<(), ProcessorError> {
        self.call(Callback::ShardEnded)
    }
}

/// How a worker ends whose `breaks_in` fails so often, on a shard that is closed; and whether the shard's end was stored.
async fn run_fragile(
    breaks_in: Callback,
    failures: u32,
    policy: ErrorPolicy,
) -> (Result<(), Error>, bool) {
    let (kinesis, store, _) = scene(1);
    kinesis.put_many(0, 5);
    kinesis.split(0);
    let failures = Arc::new(AtomicU32::new(failures));
    let worker = builder(&kinesis, store.clone(), "w")
        .on_error(policy)
        .build(move |_: &ShardInfo| {
            let processor = Fragile {
                breaks_in,
                failures: Arc::clone(&failures),
            };
            processor.call(Callback::Create).unwrap();
            processor
        });
    let worker = worker.await.unwrap();
    let handle = worker.handle();
    let task = tokio::spawn(worker.run());
    tokio::time::sleep(SECOND * 30).await;
    handle.shutdown();
    let ended = task.await.unwrap();
    let lease = lease(&store, 0).await;
    assert_eq!(lease.owner, None);
    (ended, lease.checkpoint == Position::ShardEnd)
}

/// Goal: Stop applies to every call that is repeated; Skip and `DeadLetter` make no sense without records and mean to retry.
#[tokio::test(start_paused = true)]
async fn stop_applies_to_the_other_callbacks_and_skip_retries_them() {
    for callback in [Callback::Create, Callback::Initialize, Callback::ShardEnded] {
        let (ended, at_end) = run_fragile(callback, 2, ErrorPolicy::stop()).await;
        ended.unwrap();
        assert!(at_end, "{callback}: two failures are within the attempts");
        let (ended, at_end) = run_fragile(callback, 3, ErrorPolicy::stop()).await;
        let error = ended.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Processor);
        let expected = format!("{callback} failed 3 times for {} of orders,", shard_id(0));
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert!(!at_end);
        let (ended, at_end) = run_fragile(callback, 6, ErrorPolicy::skip().after(1)).await;
        ended.unwrap();
        assert!(at_end, "{callback}: retried until it succeeds");
    }
}

/// Goal: a policy that panics costs nothing but time.
#[tokio::test(start_paused = true)]
async fn k10_a_policy_that_panics_means_retry() {
    let (kinesis, store, journal) = scene(2);
    kinesis.put_many(0, 10);
    kinesis.put_many(1, 10);
    journal.behave(|behaviour| {
        behaviour.failures = 4;
        behaviour.only_shard = Some(shard_id(0));
    });
    let policy = ErrorPolicy::decide(|_| unreachable!("a panic on demand"));
    let builder = builder(&kinesis, store, "w").on_error(policy);
    let worker = launch(builder, &journal, "w").await;
    until_processed(&kinesis, &journal, SECOND * 10).await;
    worker.stop().await.unwrap();
    journal.check_order().unwrap();
}
