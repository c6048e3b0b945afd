//! A shard is split while it is processed: the order per key holds, because the parent is finished before its children
//! start.

use async_trait::async_trait;
use kcl::{
    Checkpointer, MemoryLeaseStore, ProcessorError, RecordBatch, RecordProcessor, ShardInfo, Worker,
};
use millstream_examples::{Failure, call, put, serve};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::mpsc;

const RECORDS: usize = 120;
const KEYS: usize = 8;

struct Sender {
    shard: String,
    records: mpsc::Sender<(String, String, usize)>,
}

#[async_trait]
impl RecordProcessor for Sender {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        for record in batch.records() {
            let number = std::str::from_utf8(record.data())?.parse()?;
            let key = record.partition_key().to_owned();
            self.records.send((self.shard.clone(), key, number)).await?;
        }
        checkpointer.checkpoint().await?;
        Ok(())
    }

    async fn shard_ended(&mut self, _: &Checkpointer) -> Result<(), ProcessorError> {
        println!("{} has ended, its children start", self.shard);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let server = serve("clicks", 1).await?;
    let url = server.url();
    let (records, mut processed) = mpsc::channel(RECORDS);
    let worker = Worker::builder("resharding", "clicks")
        .endpoint(&url)
        .lease_store(MemoryLeaseStore::new())
        .build(move |shard: &ShardInfo| Sender {
            shard: shard.shard_id.clone(),
            records: records.clone(),
        })
        .await?;
    let handle = worker.handle();
    let running = tokio::spawn(worker.run());

    for number in 0..RECORDS {
        if number == RECORDS / 2 {
            let split = json!({
                "StreamName": "clicks",
                "ShardToSplit": "shardId-000000000000",
                "NewStartingHashKey": (1_u128 << 127).to_string(),
            });
            call(&url, "SplitShard", &split).await?;
        }
        put(
            &url,
            "clicks",
            &format!("key {}", number % KEYS),
            &number.to_string(),
        )
        .await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let mut latest: BTreeMap<String, usize> = BTreeMap::new();
    let mut shards = BTreeSet::new();
    for _ in 0..RECORDS {
        let (shard, key, number) = processed.recv().await.ok_or("the worker ended")?;
        shards.insert(shard);
        if latest
            .insert(key.clone(), number)
            .is_some_and(|before| before >= number)
        {
            return Err(format!("{key}: {number} came too late").into());
        }
    }
    handle.shutdown_and_wait().await;
    running.await??;
    server.shutdown().await;
    println!(
        "result: {RECORDS} records over {} shards, each key in order",
        shards.len()
    );
    Ok(())
}
