//! Twenty records of JSON, one of which is no order: the others arrive as values, and that one is told by its error and put aside.

use kcl::{
    DeadLetter, DecodeError, ErrorAction, ErrorPolicy, MemoryLeaseStore, ProcessorError, Record,
    Worker,
};
use millstream_examples::{Failure, put, serve};
use serde::Deserialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

const RECORDS: u64 = 20;

#[derive(Debug, Deserialize)]
struct Order {
    amount: u64,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let server = serve("orders", 1).await?;
    for number in 0..RECORDS {
        let order = if number == 7 {
            r#"{"amount": "a dozen"}"#
        } else {
            r#"{"amount": 10}"#
        };
        put(&server.url(), "orders", "customer", order).await?;
    }

    let (orders, worth) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let complete = Arc::new(Notify::new());
    let (counted, summed, notify) = (orders.clone(), worth.clone(), complete.clone());
    let worker = Worker::builder("sales", "orders")
        .endpoint(server.url())
        .lease_store(MemoryLeaseStore::new())
        .on_error(ErrorPolicy::decide(|failure| {
            if failure.error.is::<DecodeError>() {
                ErrorAction::DeadLetter // it will not become an order
            } else {
                ErrorAction::Retry
            }
        }))
        .dead_letters(|letter: DeadLetter| async move {
            println!("refused: {}", letter.error);
            Ok::<(), ProcessorError>(())
        })
        .build(kcl::for_each_json(move |order: Order, _record: Record| {
            summed.fetch_add(order.amount, Ordering::SeqCst);
            if counted.fetch_add(1, Ordering::SeqCst) + 1 == RECORDS - 1 {
                notify.notify_one();
            }
            async { Ok(()) }
        }))
        .await?;
    let handle = worker.handle();
    let running = tokio::spawn(worker.run());
    complete.notified().await;
    handle.shutdown_and_wait().await;
    running.await??;
    server.shutdown().await;
    println!(
        "result: {} orders worth {}, {} refused",
        orders.load(Ordering::SeqCst),
        worth.load(Ordering::SeqCst),
        handle.counts().dead_letters
    );
    Ok(())
}
