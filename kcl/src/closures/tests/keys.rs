//! The keys of a shard at once.

use super::*;
use crate::testing::probe::APPLICATION;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A record of the property: its key, how long it takes, and how often it fails.
#[derive(Debug, Clone)]
struct Planned {
    key: u8,
    takes: Duration,
    failures: u32,
}

fn planned() -> impl Strategy<Value = Planned> {
    let failures = prop_oneof![8 => Just(0u32), 1 => 1u32..3];
    (0u8..5, 0u64..1500, failures).prop_map(|(key, takes, failures)| Planned {
        key,
        takes: Duration::from_millis(takes),
        failures,
    })
}

/// What happened, by the index of the record.
#[derive(Debug, Default)]
struct Log {
    begun: BTreeMap<usize, u32>,
    running: BTreeSet<usize>,
    done: BTreeSet<usize>,
    most_running: usize,
    /// What was wrong.
    wrong: Vec<String>,
}

impl Log {
    fn begin(&mut self, index: usize, plan: &[Planned], stored: Position) -> u32 {
        let key = plan[index].key;
        let of_key = |other: &usize| plan[*other].key == key;
        if let Some(other) = self.running.iter().find(|other| of_key(other)) {
            self.wrong
                .push(format!("K6: {index} began while {other} of its key ran"));
        }
        if let Some(missing) = (0..index)
            .filter(of_key)
            .find(|one| !self.done.contains(one))
        {
            self.wrong
                .push(format!("K6: {index} began before {missing} of its key"));
        }
        if self.done.contains(&index) {
            self.wrong.push(format!("K5: {index} began again"));
        }
        self.check(stored);
        self.running.insert(index);
        self.most_running = self.most_running.max(self.running.len());
        let begun = self.begun.entry(index).or_default();
        *begun += 1;
        *begun
    }

    fn end(&mut self, index: usize, done: bool, stored: Position) {
        self.check(stored);
        self.running.remove(&index);
        if done {
            self.done.insert(index);
        }
    }

    /// K4: everything at or before the checkpoint is done.
    fn check(&mut self, stored: Position) {
        let number = |index: usize| u64::try_from(index).unwrap() + 1;
        let covered = |index: &usize| {
            record(number(*index), "", "")
                .position()
                .may_advance_to(&stored)
        };
        let missing = (0..1000)
            .take_while(covered)
            .find(|one| !self.done.contains(one));
        if let Some(missing) = missing {
            self.wrong.push(format!(
                "K4: {missing} is checkpointed at {stored} and not done"
            ));
        }
    }
}

/// Runs the records in batches, each until it succeeds.
async fn run(plan: Vec<Planned>, concurrency: usize, batch: usize) -> (Log, usize) {
    let log = Arc::new(Mutex::new(Log::default()));
    let store: Arc<OnceLock<MemoryLeaseStore>> = Arc::default();
    let plan = Arc::new(plan);
    let handle = {
        let (log, store, plan) = (Arc::clone(&log), Arc::clone(&store), Arc::clone(&plan));
        move |record: Record| {
            let (log, store, plan) = (Arc::clone(&log), Arc::clone(&store), Arc::clone(&plan));
            async move {
                let checkpoint = async || {
                    let snapshot = store.get().unwrap().snapshot(APPLICATION).await.unwrap();
                    snapshot.leases[0].checkpoint
                };
                let index: usize = text(&record).parse()?;
                let Planned {
                    takes, failures, ..
                } = plan[index];
                let stored = checkpoint().await;
                let begun = log.lock().unwrap().begin(index, &plan, stored);
                pass(takes).await;
                let stored = checkpoint().await;
                let done = begun > failures;
                log.lock().unwrap().end(index, done, stored);
                if done { Ok(()) } else { Err("not yet".into()) }
            }
        }
    };
    let mut probe = ShardProbe::of(&by_key(concurrency, handle));
    store.set(probe.store()).unwrap();
    for (number, records) in plan.chunks(batch).enumerate() {
        let indexes = number * batch..;
        let records = records.iter().zip(indexes);
        let records = records.map(|(one, index)| (format!("key {}", one.key), index.to_string()));
        let mut answer = probe.deliver(records).await;
        for _ in 0..200 {
            if answer.is_ok() {
                break;
            }
            answer = probe.redeliver().await;
        }
        answer.unwrap();
    }
    let checkpointed = probe.checkpointed();
    drop(probe);
    let log = std::mem::take(&mut *log.lock().unwrap());
    (log, checkpointed)
}

fn paused<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build();
    runtime.unwrap().block_on(work)
}

proptest! {
    /// Goal: order per key, each record done once and begun once more than it fails, and no checkpoint beyond an unfinished record, whatever takes
    /// how long and fails how often.
    #[test]
    fn k4_k5_k6_keys_at_once_are_in_order_and_done_once(
        plan in prop::collection::vec(planned(), 1..60),
        concurrency in 1usize..9,
        batch in 1usize..40,
    ) {
        let (log, checkpointed) = paused(run(plan.clone(), concurrency, batch));
        prop_assert!(log.wrong.is_empty(), "{:?}", log.wrong);
        let expected: Vec<_> = plan.iter().map(|one| one.failures + 1).collect();
        prop_assert_eq!(log.begun.into_values().collect::<Vec<_>>(), expected);
        prop_assert!(log.most_running <= concurrency, "{} at once", log.most_running);
        prop_assert_eq!(checkpointed, plan.len());
    }
}

/// Goal: a slow key holds back the checkpoint, not the other keys.
#[tokio::test(start_paused = true)]
async fn a_slow_key_holds_back_the_checkpoint_only() {
    let counts = Counts::default();
    let counting = counts.clone();
    let factory = by_key(4, move |record: Record| {
        let counting = counting.clone();
        async move {
            pass(if record.partition_key() == "slow" {
                60 * SECOND
            } else {
                SECOND / 10
            })
            .await;
            counting.add(&record);
            Ok(())
        }
    });
    let mut probe = ShardProbe::of(&factory);
    let store = probe.store();
    let keys = ["a", "b", "slow", "c"]
        .into_iter()
        .cycle()
        .take(3)
        .chain((0..40).map(|_| "d"));
    let began = tokio::time::Instant::now();
    let watching = {
        let counts = counts.clone();
        tokio::spawn(async move {
            pass(30 * SECOND).await;
            let lease = store.snapshot(APPLICATION).await.unwrap().leases.remove(0);
            (counts.all().len(), lease.checkpoint)
        })
    };
    probe.deliver(keys.map(|key| (key, "x"))).await.unwrap();
    let (done, checkpoint) = watching.await.unwrap();
    assert_eq!(done, 42, "all others");
    assert_eq!(checkpoint, record(2, "", "").position());
    assert!(began.elapsed() < 61 * SECOND);
    assert_eq!(probe.checkpointed(), 43);
}

/// Goal: K10, a key that fails holds up no other: the rest of the batch is done when the policy decides.
#[tokio::test(start_paused = true)]
async fn k10_a_failing_key_holds_up_no_other() {
    let counts = Counts::default();
    let counting = counts.clone();
    let factory = by_key(2, move |record: Record| {
        counting.add(&record);
        std::future::ready(match record.partition_key() {
            "bad" => Err("always".into()),
            _ => Ok(()),
        })
    });
    let mut probe = ShardProbe::of(&factory);
    let keys = ["a", "bad", "bad", "b", "a", "c"];
    probe.deliver(keys.map(|key| (key, "x"))).await.unwrap_err();
    assert_eq!(
        counts.all(),
        [1, 1, 1, 1, 1],
        "all but the second of the bad key"
    );
    probe.redeliver().await.unwrap_err();
    assert_eq!(counts.all(), [1, 2, 1, 1, 1]);
    assert_eq!(probe.checkpointed(), 1);
}

/// Processes 200 records, every twentieth of which may be poison, through a reshard and a graceful restart; gives how often each good one was done.
async fn run_workers(poison: &'static str) -> Vec<u32> {
    let kinesis = InMemoryKinesis::new(2);
    let (counts, store) = (Counts::default(), MemoryLeaseStore::new());
    let factory = || {
        let counting = counts.clone();
        by_key(8, move |record: Record| {
            let counting = counting.clone();
            async move {
                pass(Duration::from_millis(fastrand::u64(..200))).await;
                if text(&record) == "poison" {
                    return Err("poison".into());
                }
                counting.add(&record);
                Ok(())
            }
        })
    };
    let put = |count: usize| {
        for index in 0..count {
            let data = if index % 20 == 7 { poison } else { "good" };
            kinesis.put(&format!("key {}", index % 13), data);
        }
    };
    put(100);
    kinesis.split(0);
    put(100);
    for round in 1..=2 {
        let worker = builder(&kinesis, store.clone())
            .on_error(ErrorPolicy::skip().after(1))
            .build(factory())
            .await
            .unwrap();
        let handle = worker.handle();
        let running = tokio::spawn(worker.run());
        let enough = if round == 1 { 60 } else { 190 }; // all but the poison
        eventually("enough is done", 300 * SECOND, || {
            counts.all().len() >= enough
        })
        .await;
        pass(if round == 1 {
            Duration::ZERO
        } else {
            20 * SECOND
        })
        .await;
        handle.shutdown_and_wait().await;
        running.await.unwrap().unwrap();
    }
    counts.all()
}

/// Goal: K5 and K9, a graceful restart repeats nothing.
#[tokio::test(start_paused = true)]
async fn k5_k9_each_record_is_done_once_over_a_restart() {
    assert_eq!(run_workers("good").await, [1; 200]);
}

/// Goal: K4, poison is found and skipped, everything else is done; K5, only what came after poison in the batches that failed at the moment of the restart
/// is done again.
#[tokio::test(start_paused = true)]
async fn k4_k5_poison_is_skipped_and_all_others_done() {
    let counts = run_workers("poison").await;
    assert_eq!(counts.len(), 190);
    let twice = counts.iter().filter(|count| **count == 2).count();
    let once = counts.iter().filter(|count| **count == 1).count();
    let in_work = 3 * 9; // in three shards, with one poison each
    assert!(twice <= in_work && once + twice == 190, "{counts:?}");
}

/// A worker whose records take as long as their data say, in seconds, or fail; in a task of its own.
async fn slow_worker(
    kinesis: &InMemoryKinesis,
    store: &MemoryLeaseStore,
    (counts, policy, most): (&Counts, ErrorPolicy, u32),
) -> (
    crate::WorkerHandle,
    tokio::task::JoinHandle<Result<(), Error>>,
) {
    let counts = counts.clone();
    let worker = builder(kinesis, store.clone())
        .max_records(most)
        .on_error(policy)
        .build(by_key(8, move |record: Record| {
            let counts = counts.clone();
            async move {
                let takes = text(&record).parse::<u32>()?;
                pass(SECOND * takes).await;
                counts.add(&record);
                Ok(())
            }
        }))
        .await
        .unwrap();
    (worker.handle(), tokio::spawn(worker.run()))
}

/// Goal: a slow key holds back the checkpoint and nothing else, also of records that come later than it. Method: a record that takes a minute, and others that
/// come one by one meanwhile.
#[tokio::test(start_paused = true)]
async fn a_slow_key_holds_back_no_record_that_comes_later() {
    let kinesis = InMemoryKinesis::new(1);
    let (counts, store) = (Counts::default(), MemoryLeaseStore::new());
    let work = (&counts, ErrorPolicy::retry(), 100);
    let (handle, running) = slow_worker(&kinesis, &store, work).await;
    kinesis.put("before", "0");
    kinesis.put("slow", "60");
    for number in 0..25 {
        pass(SECOND).await;
        kinesis.put(&format!("key {}", number % 3), "0");
    }
    pass(3 * SECOND).await;
    assert_eq!(counts.all(), [1; 26], "all but the slow one");
    assert_eq!(stored(&store).await, [record(1, "", "").position()], "K4");
    pass(60 * SECOND).await;
    assert_eq!(counts.all(), [1; 27]);
    assert_eq!(stored(&store).await, [record(27, "", "").position()]);
    handle.shutdown_and_wait().await;
    running.await.unwrap().unwrap();
    assert_eq!(counts.all(), [1; 27]);
}

/// Goal: what is done beside a slow key is bounded by the size of a batch.
#[tokio::test(start_paused = true)]
async fn a_batch_grows_to_its_size() {
    let kinesis = InMemoryKinesis::new(1);
    let (counts, store) = (Counts::default(), MemoryLeaseStore::new());
    kinesis.put("slow", "60");
    let work = (&counts, ErrorPolicy::retry(), 10);
    let (handle, running) = slow_worker(&kinesis, &store, work).await;
    for number in 0..25 {
        pass(SECOND).await;
        kinesis.put(&format!("key {number}"), "0");
    }
    pass(5 * SECOND).await;
    assert_eq!(counts.all(), [1; 9]);
    pass(60 * SECOND).await;
    assert_eq!(counts.all(), [1; 26]);
    handle.shutdown_and_wait().await;
    running.await.unwrap().unwrap();
}

/// Goal: K9, a hand-over waits for what was begun, and for nothing that comes later.
#[tokio::test(start_paused = true)]
async fn k9_a_shutdown_ends_a_batch_that_grows() {
    let kinesis = InMemoryKinesis::new(1);
    let (counts, store) = (Counts::default(), MemoryLeaseStore::new());
    let work = (&counts, ErrorPolicy::retry(), 1000);
    let (handle, running) = slow_worker(&kinesis, &store, work).await;
    let putting = tokio::spawn({
        let kinesis = kinesis.clone();
        async move {
            for number in 0..300 {
                kinesis.put(&format!("key {}", number % 5), "1");
                pass(SECOND / 4).await;
            }
        }
    });
    pass(20 * SECOND).await;
    let before = tokio::time::Instant::now();
    handle.shutdown_and_wait().await;
    running.await.unwrap().unwrap();
    assert!(before.elapsed() < 20 * SECOND, "{:?}", before.elapsed());
    let done = counts.all().len();
    assert!((50..250).contains(&done), "{done}");
    putting.await.unwrap();
    let work = (&counts, ErrorPolicy::retry(), 1000);
    let (handle, running) = slow_worker(&kinesis, &store, work).await;
    eventually("the rest is done", 200 * SECOND, || {
        counts.all().len() == 300
    })
    .await;
    handle.shutdown_and_wait().await;
    running.await.unwrap().unwrap();
    assert_eq!(counts.all(), [1; 300], "K5");
}

/// Goal: K4, K5 and K6 in batches that grow: poison among what was taken later is found, reads fail, and shards end, while everything is done once.
#[tokio::test(start_paused = true)]
async fn k4_k5_poison_and_reshards_in_batches_that_grow() {
    let kinesis = InMemoryKinesis::new(2);
    let (counts, store) = (Counts::default(), MemoryLeaseStore::new());
    let work = (&counts, ErrorPolicy::skip().after(1), 40);
    let (handle, running) = slow_worker(&kinesis, &store, work).await;
    let mut poison = 0;
    for number in 0..400 {
        let data = match number % 50 {
            7 => "poison",
            20 => "15",
            _ => "0",
        };
        poison += u64::from(data == "poison");
        kinesis.put(&format!("key {}", number % 23), data);
        pass(SECOND / 5).await;
        match number {
            100 => drop(kinesis.split(0)),
            150 => kinesis.expire_iterators(),
            200 => kinesis.fail_next(&[ErrorKind::Unavailable, ErrorKind::Protocol]),
            300 => drop(kinesis.merge(2, 3)),
            _ => {}
        }
    }
    eventually("all but the poison is done", 300 * SECOND, || {
        counts.all().len() == 392 && handle.counts().skipped == poison
    })
    .await;
    handle.shutdown_and_wait().await;
    running.await.unwrap().unwrap();
    assert_eq!(counts.all(), [1; 392]);
    assert_eq!(poison, 8);
}
