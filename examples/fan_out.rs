//! Enhanced fan-out: records are pushed to the worker as they arrive. Polling is set to once a minute here, so whatever comes sooner was
//! pushed.

use async_trait::async_trait;
use kcl::{
    Checkpointer, MemoryLeaseStore, ProcessorError, RecordBatch, RecordProcessor, Retrieval,
    Retrieving, ShardInfo, Worker,
};
use millstream_examples::{Failure, put, serve};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

const RECORDS: usize = 50;

struct Receiver(mpsc::Sender<Instant>);

#[async_trait]
impl RecordProcessor for Receiver {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        for _ in batch.records() {
            self.0.send(now()).await?;
        }
        checkpointer.checkpoint().await?;
        Ok(())
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let server = serve("ticks", 2).await?;
    let url = server.url();
    let (arrived, mut arrivals) = mpsc::channel(RECORDS);
    let worker = Worker::builder("dashboard", "ticks")
        .endpoint(&url)
        // The consumer is registered under the application's name, unless another is given.
        .retrieval(Retrieval::FanOut {
            consumer_name: None,
        })
        .poll_interval(Duration::from_secs(60))
        .lease_store(MemoryLeaseStore::new())
        .build(move |_: &ShardInfo| Receiver(arrived.clone()))
        .await?;
    let handle = worker.handle();
    let running = tokio::spawn(worker.run());

    // While a shard has no subscription it is polled; how it is read can be asked for.
    let is_pushed = |status: &kcl::ShardStatus| status.retrieving == Retrieving::FanOut;
    while handle.shards().iter().filter(|one| is_pushed(one)).count() < 2 {
        sleep(Duration::from_millis(10)).await;
    }

    let mut latencies = Vec::new();
    for number in 0..RECORDS {
        let began = now();
        put(&url, "ticks", &format!("key {number}"), "tick").await?;
        let arrived = timeout(Duration::from_secs(10), arrivals.recv()).await?;
        latencies.push(arrived.ok_or("the worker ended")? - began);
    }
    latencies.sort();
    println!(
        "half of the records took {:?} or less",
        latencies[RECORDS / 2]
    );

    handle.shutdown_and_wait().await;
    running.await??;
    server.shutdown().await;
    println!("result: {RECORDS} records pushed as they arrived");
    Ok(())
}
