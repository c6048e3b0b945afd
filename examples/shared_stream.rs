//! Three workers share six shards: each gets its part, and every record is processed.

use async_trait::async_trait;
use kcl::{
    Checkpointer, MemoryLeaseStore, ProcessorError, RecordBatch, RecordProcessor, ShardInfo, Worker,
};
use millstream_examples::{Failure, put, serve};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const WORKERS: usize = 3;

/// The texts that each worker has processed.
type Seen = Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>;

struct Collector {
    worker: String,
    seen: Seen,
}

#[async_trait]
impl RecordProcessor for Collector {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        {
            let mut seen = self.seen.lock().map_err(|error| error.to_string())?;
            let mine = seen.entry(self.worker.clone()).or_default();
            mine.extend(
                batch
                    .records()
                    .iter()
                    .map(|r| String::from_utf8_lossy(r.data()).into()),
            );
        }
        checkpointer.checkpoint().await?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let server = serve("orders", 6).await?;
    let leases = MemoryLeaseStore::new(); // one table for all; SqliteLeaseStore between processes
    let seen = Seen::default();
    let mut workers = Vec::new();
    for number in 1..=WORKERS {
        let (worker, seen) = (format!("worker-{number}"), Arc::clone(&seen));
        let built = Worker::builder("sharing", "orders")
            .endpoint(server.url())
            .lease_store(leases.clone())
            .worker_id(worker.clone())
            .failover_time(Duration::from_secs(2))
            .build(move |_: &ShardInfo| Collector {
                worker: worker.clone(),
                seen: seen.clone(),
            })
            .await?;
        workers.push((built.handle(), tokio::spawn(built.run())));
    }

    // Put until every worker has got something, then until all of it is processed.
    let mut put_so_far = 0;
    loop {
        let (at_work, processed) = {
            let seen = seen.lock().map_err(|error| error.to_string())?;
            (
                seen.len(),
                seen.values().flatten().collect::<BTreeSet<_>>().len(),
            )
        };
        if at_work < WORKERS {
            let text = format!("order {put_so_far}");
            put(&server.url(), "orders", &text, &text).await?;
            put_so_far += 1;
        } else if processed < put_so_far {
            tokio::time::sleep(Duration::from_millis(50)).await;
        } else {
            break;
        }
    }
    for (handle, running) in workers {
        handle.shutdown_and_wait().await;
        running.await??;
    }
    for (worker, texts) in seen.lock().map_err(|error| error.to_string())?.iter() {
        println!("{worker}: {} records", texts.len());
    }
    server.shutdown().await;
    println!("result: {WORKERS} workers shared {put_so_far} records, none is missing");
    Ok(())
}
