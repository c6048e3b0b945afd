//! An application seen and steered from outside: how far it is behind, why a shard does not move, a reset while its worker runs, a replay
//! under another name. `millstream app` does the same from the command line.

use async_trait::async_trait;
use kcl::ops::{Force, Operations, Reason, ResetRequest, StartAt, applications};
use kcl::{
    Checkpointer, MemoryLeaseStore, ProcessorError, RecordBatch, RecordProcessor, ShardInfo, Worker,
};
use millstream_examples::{Failure, put, serve};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const ORDERS: usize = 25;

#[derive(Clone, Default)]
struct Shop {
    shipped: Arc<AtomicUsize>,
    strike: Arc<AtomicBool>,
}

#[async_trait]
impl RecordProcessor for Shop {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        if self.strike.load(Ordering::SeqCst) {
            return Err("the carrier is on strike".into());
        }
        self.shipped
            .fetch_add(batch.records().len(), Ordering::SeqCst);
        checkpointer.checkpoint().await?;
        Ok(())
    }
}

impl Shop {
    async fn shipped(&self, count: usize) {
        while self.shipped.load(Ordering::SeqCst) < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let server = serve("orders", 2).await?;
    let (shop, store) = (Shop::default(), MemoryLeaseStore::new());
    let processor = shop.clone();
    let worker = Worker::builder("shop", "orders")
        .endpoint(server.url())
        .lease_store(store.clone())
        .failover_time(Duration::from_secs(1))
        .build(move |_: &ShardInfo| processor.clone())
        .await?;
    let handle = worker.handle();
    let running = tokio::spawn(worker.run());
    for number in 0..ORDERS {
        put(
            &server.url(),
            "orders",
            &format!("customer {number}"),
            "a book",
        )
        .await?;
        if number == ORDERS / 2 {
            shop.shipped(number + 1).await;
            shop.strike.store(true, Ordering::SeqCst);
        }
    }

    let app = Operations::new(store.clone(), "shop").endpoint(server.url());
    let patience = Duration::from_secs(2);
    let why = loop {
        let why = app.why("0", patience).await?;
        if why.reason == Reason::Failing {
            break why;
        }
    };
    println!("{why}");
    println!("{} records behind", app.lag(100).await?.records);
    shop.strike.store(false, Ordering::SeqCst);
    shop.shipped(ORDERS).await;

    // Everything again. A worker that lives refuses that, unless it is told to begin again.
    let again = ResetRequest::new(StartAt::TrimHorizon, "anna");
    println!(
        "{}",
        app.plan_reset(&again).await?.refusal.unwrap_or_default()
    );
    let report = app.reset(&again.force(Force::TakeFromTheLiving)).await?;
    println!("{}: {} leases changed", report.asked, report.changes.len());
    shop.shipped(2 * ORDERS).await;

    // Another application starts where it likes; this one goes on.
    app.replay("audit", StartAt::TrimHorizon, "anna").await?;
    let names = applications(&store).await?;
    let resets = app.history().await?.len();
    handle.shutdown_and_wait().await;
    running.await??;
    server.shutdown().await;
    println!(
        "result: {ORDERS} orders shipped again by {resets} reset; applications: {}",
        names.join(", ")
    );
    Ok(())
}
