//! Sixty slow records of six keys in one shard: the keys at once, each key in order, with a closure instead of a record processor.

use kcl::{MemoryLeaseStore, Record, Worker};
use millstream_examples::{Failure, put, serve};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

const RECORDS: usize = 60;
const KEYS: usize = 6;

/// What was handled, and how.
#[derive(Debug, Default)]
struct Log {
    by_key: BTreeMap<String, Vec<u32>>,
    running: usize,
    most: usize,
    handled: usize,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let server = serve("slow", 1).await?;
    for number in 0..RECORDS {
        let (key, text) = (format!("key {}", number % KEYS), number.to_string());
        put(&server.url(), "slow", &key, &text).await?;
    }

    let log = Arc::new(Mutex::new(Log::default()));
    let complete = Arc::new(Notify::new());
    let (noted, notify) = (Arc::clone(&log), Arc::clone(&complete));
    let worker = Worker::builder("parallel", "slow")
        .endpoint(server.url())
        .lease_store(MemoryLeaseStore::new())
        .build(kcl::by_key(16, move |record: Record| {
            let (log, complete) = (Arc::clone(&noted), Arc::clone(&notify));
            async move {
                begin(&log);
                tokio::time::sleep(Duration::from_millis(20)).await; // a slow service
                let number = std::str::from_utf8(record.data())?.parse()?;
                if end(&log, record.partition_key(), number) == RECORDS {
                    complete.notify_one();
                }
                Ok(())
            }
        }))
        .await?;
    let handle = worker.handle();
    let running = tokio::spawn(worker.run());
    complete.notified().await;
    handle.shutdown_and_wait().await;
    running.await??;
    server.shutdown().await;

    let log = log.lock().map_err(|error| error.to_string())?;
    let in_order = log.by_key.values().all(|numbers| numbers.is_sorted());
    let order = if in_order { "in" } else { "out of" };
    println!(
        "result: {} records of {} keys, each key {order} order, {} at once",
        log.handled,
        log.by_key.len(),
        log.most
    );
    Ok(())
}

fn begin(log: &Mutex<Log>) {
    if let Ok(mut log) = log.lock() {
        log.running += 1;
        log.most = log.most.max(log.running);
    }
}

/// Gives how many records are handled.
fn end(log: &Mutex<Log>, key: &str, number: u32) -> usize {
    let Ok(mut log) = log.lock() else { return 0 };
    log.running -= 1;
    log.handled += 1;
    log.by_key.entry(key.to_owned()).or_default().push(number);
    log.handled
}
