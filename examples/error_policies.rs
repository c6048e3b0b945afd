//! A hundred amounts, one of which is no number, and a database that is down at first. The error policy retries what may pass, finds the
//! poison record by bisection, and puts it to another stream; all others are processed.

use async_trait::async_trait;
use base64_simd::STANDARD as BASE64;
use kcl::{
    Checkpointer, DeadLetterStream, ErrorAction, ErrorPolicy, MemoryLeaseStore, ProcessorError,
    RecordBatch, RecordProcessor, ShardInfo, Worker,
};
use millstream_examples::{Failure, call, put, serve};
use serde_json::{Value, json};
use std::num::ParseIntError;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

const RECORDS: usize = 100;

static CALLS: AtomicUsize = AtomicUsize::new(0);
static PROCESSED: AtomicUsize = AtomicUsize::new(0);
static COMPLETE: Notify = Notify::const_new();

struct Bookkeeper;

#[async_trait]
impl RecordProcessor for Bookkeeper {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        if CALLS.fetch_add(1, Ordering::SeqCst) < 2 {
            return Err(std::io::Error::other("the database is down").into());
        }
        for record in batch.records() {
            std::str::from_utf8(record.data())?.parse::<u64>()?;
        }
        checkpointer.checkpoint().await?;
        let count = batch.records().len();
        if PROCESSED.fetch_add(count, Ordering::SeqCst) + count == RECORDS - 1 {
            COMPLETE.notify_one();
        }
        Ok(())
    }
}

/// The documents in the dead letter stream.
async fn letters(url: &str) -> Result<Vec<Value>, Failure> {
    let first = json!({ "StreamName": "amounts-dead", "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON" });
    let iterator = call(url, "GetShardIterator", &first).await?;
    let page = call(url, "GetRecords", &iterator).await?;
    let records = page["Records"].as_array().ok_or("no records")?;
    let data = records.iter().filter_map(|record| record["Data"].as_str());
    data.map(|text| Ok(serde_json::from_slice(&BASE64.decode_to_vec(text)?)?))
        .collect()
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let server = serve("amounts", 1).await?;
    let url = server.url();
    let other = json!({ "StreamName": "amounts-dead", "ShardCount": 1 });
    call(&url, "CreateStream", &other).await?;
    for number in 0..RECORDS {
        let numeral = number.to_string();
        let text = if number == 42 { "forty-two" } else { &numeral };
        put(&url, "amounts", "till 1", text).await?;
    }

    let worker = Worker::builder("bookkeeping", "amounts")
        .endpoint(&url)
        .lease_store(MemoryLeaseStore::new())
        .on_error(ErrorPolicy::decide(|failure| {
            if failure.error.is::<ParseIntError>() {
                ErrorAction::DeadLetter // it will not become a number
            } else {
                ErrorAction::Retry // the database may come back
            }
        }))
        .dead_letters(DeadLetterStream::new("amounts-dead"))
        .build(|_: &ShardInfo| Bookkeeper)
        .await?;
    let handle = worker.handle();
    let running = tokio::spawn(worker.run());
    COMPLETE.notified().await;
    handle.shutdown_and_wait().await;
    running.await??;

    for letter in letters(&url).await? {
        println!("{}: {}", letter["sequence_number"], letter["error"]);
    }
    server.shutdown().await;
    let (done, dead) = (
        PROCESSED.load(Ordering::SeqCst),
        handle.counts().dead_letters,
    );
    println!("result: {done} of {RECORDS} amounts processed, {dead} dead letter");
    Ok(())
}
