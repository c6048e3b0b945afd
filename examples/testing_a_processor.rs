//! How a record processor is tested: by itself with a probe, and in workers that share a stream in memory, where a fail-over of ten seconds takes none.
//! What is in `main` would be two functions with `#[tokio::test(start_paused = true)]`.

use async_trait::async_trait;
use kcl::testing::{InMemoryKinesis, ShardProbe, eventually};
use kcl::{
    Checkpointer, ErrorKind, MemoryLeaseStore, ProcessorError, RecordBatch, RecordProcessor,
    ShardInfo, Worker,
};
use millstream_examples::Failure;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What is to be tested: collects numbers.
#[derive(Clone, Default)]
struct Collector {
    seen: Arc<Mutex<BTreeSet<u64>>>,
}

impl Collector {
    fn count(&self) -> usize {
        self.seen.lock().map_or(0, |seen| seen.len())
    }
}

#[async_trait]
impl RecordProcessor for Collector {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        for record in batch.records() {
            let number = std::str::from_utf8(record.data())?.parse()?;
            self.seen.lock().map_err(|_| "poisoned")?.insert(number);
        }
        checkpointer.checkpoint().await?;
        Ok(())
    }
}

/// The processor by itself: each call, what it returns, and what it checkpoints.
async fn by_itself() -> Result<(), Failure> {
    let mut probe = ShardProbe::new(Collector::default());
    probe.deliver([("key", "1"), ("key", "2")]).await?;
    assert_eq!(probe.checkpointed(), 2);
    let refused = probe.deliver([("key", "3"), ("key", "four")]).await;
    assert!(refused.is_err_and(|error| error.is::<std::num::ParseIntError>()));
    assert_eq!(probe.checkpointed(), 2, "nothing of a batch that failed");
    probe.request_shutdown().await?;
    assert_eq!(probe.calls().len(), 4); // initialize, two batches, shutdown_requested
    Ok(())
}

/// Two workers, one of which dies.
async fn in_workers() -> Result<usize, Failure> {
    let (kinesis, store) = (InMemoryKinesis::new(4), MemoryLeaseStore::new());
    let collector = Collector::default();
    let start = async |id: &str| {
        let made = collector.clone();
        let builder = Worker::builder("collecting", "numbers").worker_id(id);
        let builder = builder.client(kinesis.client()).lease_store(store.clone());
        let worker = builder.build(move |_: &ShardInfo| made.clone()).await?;
        Ok::<_, Failure>(tokio::spawn(worker.run()))
    };
    let first = start("first").await?;
    for number in 0..50 {
        kinesis.put(&format!("key {number}"), number.to_string());
    }
    let (second, minute) = (start("second").await?, Duration::from_secs(60));
    eventually("half of it is seen", minute, || collector.count() == 50).await;

    first.abort(); // a crash
    kinesis.fail_next(&[ErrorKind::Unavailable; 3]);
    for number in 50..100 {
        kinesis.put(&format!("key {number}"), number.to_string());
    }
    eventually("all of it is seen", minute, || collector.count() == 100).await;
    second.abort();
    Ok(collector.count())
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Failure> {
    by_itself().await?;
    let records = in_workers().await?;
    println!("result: {records} records processed, a crash and 10 s of fail-over included");
    Ok(())
}
