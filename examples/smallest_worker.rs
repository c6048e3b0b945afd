//! The smallest worker: prints what comes and checkpoints it.

use async_trait::async_trait;
use kcl::{
    Checkpointer, MemoryLeaseStore, ProcessorError, RecordBatch, RecordProcessor, ShardInfo, Worker,
};
use millstream_examples::{Failure, put, serve};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

const RECORDS: usize = 10;

struct Printer {
    seen: Arc<AtomicUsize>,
    done: Arc<Notify>,
}

#[async_trait]
impl RecordProcessor for Printer {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        for record in batch.records() {
            println!(
                "{}: {}",
                record.partition_key(),
                String::from_utf8_lossy(record.data())
            );
        }
        checkpointer.checkpoint().await?; // everything delivered so far is done
        let count = batch.records().len();
        if self.seen.fetch_add(count, Ordering::SeqCst) + count >= RECORDS {
            self.done.notify_one();
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let server = serve("greetings", 1).await?;
    for number in 0..RECORDS {
        put(
            &server.url(),
            "greetings",
            "somebody",
            &format!("hello {number}"),
        )
        .await?;
    }

    let (seen, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (seen_there, done_there) = (Arc::clone(&seen), Arc::clone(&done));
    let worker = Worker::builder("smallest", "greetings")
        .endpoint(server.url())
        .lease_store(MemoryLeaseStore::new())
        .build(move |_shard: &ShardInfo| Printer {
            seen: Arc::clone(&seen_there),
            done: Arc::clone(&done_there),
        })
        .await?;
    let handle = worker.handle();
    let running = tokio::spawn(worker.run());

    done.notified().await;
    handle.shutdown_and_wait().await;
    running.await??;
    server.shutdown().await;
    println!("result: {} records processed", seen.load(Ordering::SeqCst));
    Ok(())
}
