//! One worker, many streams: each with a starting position of its own, and one that comes and goes while the worker runs.

use async_trait::async_trait;
use kcl::{
    Checkpointer, InitialPosition, MemoryLeaseStore, ProcessorError, RecordBatch, RecordProcessor,
    ShardInfo, StreamConfig, Worker,
};
use millstream_examples::{Failure, call, put, serve};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How many records of each stream were processed.
type Counts = Arc<Mutex<BTreeMap<String, usize>>>;

struct Counter {
    stream: String,
    counts: Counts,
}

#[async_trait]
impl RecordProcessor for Counter {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        checkpointer.checkpoint().await?;
        let mut counts = self.counts.lock().map_err(|error| error.to_string())?;
        *counts.entry(self.stream.clone()).or_default() += batch.records().len();
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let server = serve("orders", 2).await?;
    for stream in ["clicks", "returns"] {
        let request = json!({ "StreamName": stream, "ShardCount": 2 });
        call(&server.url(), "CreateStream", &request).await?;
    }
    let put_to = async |stream: &str, count: usize| -> Result<(), Failure> {
        for number in 0..count {
            put(&server.url(), stream, &number.to_string(), "something").await?;
        }
        Ok(())
    };
    put_to("orders", 10).await?;
    put_to("clicks", 10).await?;
    tokio::time::sleep(Duration::from_millis(1100)).await; // LATEST goes by full seconds

    let counts = Counts::default();
    let made_with = Arc::clone(&counts);
    let worker = Worker::builder("many", "orders")
        .also_stream(StreamConfig::new("clicks").initial_position(InitialPosition::Latest))
        .endpoint(server.url())
        .lease_store(MemoryLeaseStore::new())
        .build(move |shard: &ShardInfo| Counter {
            stream: shard.stream_name.clone(),
            counts: Arc::clone(&made_with),
        })
        .await?;
    let handle = worker.handle();
    let running = tokio::spawn(worker.run());
    put_to("clicks", 5).await?;
    put_to("returns", 7).await?;

    handle.add_stream("returns").await?;
    let expected = [("clicks", 5), ("orders", 10), ("returns", 7)];
    let expected: BTreeMap<String, usize> = expected.map(|(s, n)| (s.to_owned(), n)).into();
    while *counts.lock().map_err(|error| error.to_string())? != expected {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    handle.remove_stream("returns").await?;
    let left: Vec<String> = handle.streams().into_iter().map(|s| s.name).collect();
    handle.shutdown_and_wait().await;
    running.await??;
    server.shutdown().await;
    println!("result: {expected:?}, and {} are left", left.join(" and "));
    Ok(())
}
