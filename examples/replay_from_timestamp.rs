//! Replays a stream from a moment in the past: a new application name starts there, whatever others have done.

use async_trait::async_trait;
use kcl::{
    Checkpointer, InitialPosition, MemoryLeaseStore, ProcessorError, RecordBatch, RecordProcessor,
    ShardInfo, Worker,
};
use millstream_examples::{Failure, put, serve};
use std::time::Duration;
use tokio::sync::mpsc;

struct Sender(mpsc::Sender<(String, u64)>);

#[async_trait]
impl RecordProcessor for Sender {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        for record in batch.records() {
            let text = String::from_utf8_lossy(record.data()).into_owned();
            self.0.send((text, record.arrival_ms())).await?;
        }
        checkpointer.checkpoint().await?;
        Ok(())
    }
}

/// Processes the stream from `start` under `application` until `last` has come.
async fn process(
    url: &str,
    application: &str,
    start: InitialPosition,
    last: &str,
) -> Result<Vec<(String, u64)>, Failure> {
    let (sender, mut records) = mpsc::channel(100);
    let worker = Worker::builder(application, "ticks")
        .endpoint(url)
        .lease_store(MemoryLeaseStore::new())
        .initial_position(start)
        .build(move |_: &ShardInfo| Sender(sender.clone()))
        .await?;
    let handle = worker.handle();
    let running = tokio::spawn(worker.run());
    let mut seen = Vec::new();
    while let Some(record) = records.recv().await {
        let ended = record.0 == last;
        seen.push(record);
        if ended {
            break;
        }
    }
    handle.shutdown_and_wait().await;
    running.await??;
    Ok(seen)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let server = serve("ticks", 1).await?;
    for number in 0..10 {
        put(&server.url(), "ticks", "clock", &format!("tick {number}")).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let all = process(
        &server.url(),
        "live",
        InitialPosition::TrimHorizon,
        "tick 9",
    )
    .await?;
    println!("live: {} records", all.len());

    // Arrival times are the server's; the seventh record's is a moment to go back to.
    let (_, moment) = all.get(6).ok_or("no seventh record")?;
    let start = InitialPosition::AtTimestamp(*moment);
    let replayed = process(&server.url(), "replay", start, "tick 9").await?;
    for (text, arrival_ms) in &replayed {
        println!("replay: {text}, arrived at {arrival_ms}");
    }
    server.shutdown().await;
    println!(
        "result: {} of {} records replayed",
        replayed.len(),
        all.len()
    );
    Ok(())
}
