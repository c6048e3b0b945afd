//! A loop over the records of all shards. Each is acknowledged by itself, from other tasks and in any order; one fails at first and comes again.

use kcl::{Delivery, MemoryLeaseStore, Worker};
use millstream_examples::{Failure, put, serve};
use std::time::Duration;
use tokio::task::JoinSet;

const RECORDS: u64 = 40;

/// Handles a record; gives whether that worked.
async fn handle(delivery: Delivery, attempts_at_17: u32) -> bool {
    let number: u64 = String::from_utf8_lossy(delivery.record().data())
        .parse()
        .unwrap_or_default();
    tokio::time::sleep(Duration::from_millis(40 - number)).await; // later ones are faster
    if number == 17 && attempts_at_17 == 1 {
        delivery.failed("the service is busy");
        return false;
    }
    delivery.done();
    true
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let server = serve("greetings", 2).await?;
    for number in 0..RECORDS {
        let (key, text) = (format!("key {number}"), number.to_string());
        put(&server.url(), "greetings", &key, &text).await?;
    }

    let mut records = Worker::builder("loop", "greetings")
        .endpoint(server.url())
        .lease_store(MemoryLeaseStore::new())
        .stream()
        .await?;
    let (mut working, mut done, mut failed) = (JoinSet::new(), 0, 0);
    let mut attempts_at_17 = 0;
    while done < RECORDS {
        tokio::select! {
            biased;
            Some(handled) = working.join_next() => {
                if handled? { done += 1 } else { failed += 1 }
            }
            Some(delivery) = records.next() => {
                let delivery = delivery?; // else what the worker ended with
                if &delivery.record().data()[..] == b"17" {
                    attempts_at_17 += 1;
                }
                working.spawn(handle(delivery, attempts_at_17));
            }
        }
    }
    records.handle().shutdown();
    while let Some(delivery) = records.next().await {
        delivery?.failed("too late"); // none: all are done
    }
    server.shutdown().await;
    println!("result: {done} records done, {failed} of them at the second attempt");
    Ok(())
}
