//! Batches that grow while they are in work: whatever a processor asks for, takes, leaves, and fails with, every record comes once and in order.

use super::policy::SECOND;
use super::*;
use crate::checkpoint::Checkpointer;
use crate::lease::MemoryLeaseStore;
use crate::processor::{ProcessorError, Record, RecordBatch, RecordProcessor, ShardInfo};
use async_trait::async_trait;
use millstream_wire::SequenceNumber;
use std::sync::Mutex;

/// Asks for more and changes its mind, and fails at times.
struct Fickle {
    /// What calls have succeeded with, in order.
    processed: Arc<Mutex<Vec<SequenceNumber>>>,
    largest: Arc<Mutex<usize>>,
    random: fastrand::Rng,
}

fn numbers(records: &[Record]) -> Vec<SequenceNumber> {
    records.iter().map(Record::sequence_number).collect()
}

impl Fickle {
    async fn pause(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.random.u64(0..700))).await;
    }
}

#[async_trait]
impl RecordProcessor for Fickle {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        let mut seen = numbers(batch.records());
        for _ in 0..self.random.u8(0..4) {
            // Asks; what it gets is there when it asks again, or is left.
            let asked = Duration::from_millis(self.random.u64(0..300));
            if let Ok(more) = tokio::time::timeout(asked, checkpointer.more()).await {
                seen.extend(numbers(&more));
            }
            self.pause().await;
        }
        let largest = self.largest.lock().unwrap().max(seen.len());
        *self.largest.lock().unwrap() = largest;
        if self.random.u8(..5) == 0 {
            return Err("at times".into());
        }
        self.processed.lock().unwrap().extend(seen);
        if self.random.bool() {
            checkpointer.checkpoint().await?;
        }
        Ok(())
    }
}

/// Goal: K4, K5 and K6. Method: processors that take more at random and fail at random, one after the other, on a shard that is written to, fails to be
/// read, and is split at last.
#[tokio::test(start_paused = true)]
async fn k4_k5_k6_whatever_is_taken_comes_once_and_in_order() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let kinesis = FakeKinesis::new(1);
        let store = MemoryLeaseStore::new();
        let processed = Arc::new(Mutex::new(Vec::new()));
        let largest = Arc::new(Mutex::new(0));
        for _ in 0..3 {
            let (done, most, forked) =
                (Arc::clone(&processed), Arc::clone(&largest), random.u64(..));
            let worker = builder(&kinesis, store.clone(), "w")
                .max_records(7)
                .build(move |shard: &ShardInfo| Fickle {
                    processed: Arc::clone(&done),
                    largest: Arc::clone(&most),
                    random: fastrand::Rng::with_seed(forked ^ shard.shard_id.len() as u64),
                })
                .await
                .unwrap();
            let handle = worker.handle();
            let running = tokio::spawn(worker.run());
            for _ in 0..30 {
                kinesis.put_many(0, random.usize(0..4));
                if random.u8(..10) == 0 {
                    kinesis.fail(&[crate::ErrorKind::Unavailable]);
                }
                tokio::time::sleep(Duration::from_millis(random.u64(0..400))).await;
            }
            handle.shutdown();
            running.await.unwrap().unwrap();
        }
        kinesis.split(0);
        let (done, most) = (Arc::clone(&processed), Arc::clone(&largest));
        let worker = builder(&kinesis, store, "w")
            .max_records(7)
            .build(move |_: &ShardInfo| Fickle {
                processed: Arc::clone(&done),
                largest: Arc::clone(&most),
                random: fastrand::Rng::with_seed(seed),
            })
            .await
            .unwrap();
        let started = Started {
            handle: worker.handle(),
            task: tokio::spawn(worker.run()),
        };
        let put = kinesis.put_so_far();
        until("all is processed", 300 * SECOND, || {
            processed.lock().unwrap().len() >= put.len()
        })
        .await;
        started.stop().await.unwrap();
        assert_eq!(*processed.lock().unwrap(), put, "seed {seed}");
        let largest = *largest.lock().unwrap();
        assert!((4..=7).contains(&largest), "seed {seed}: {largest} records");
    }
}
