//! Operations on whole applications against a fake Kinesis with paused time.

mod lag;
mod listing;
mod property;
mod reset;
mod why;

use super::*;
use crate::fake::recorder::Journal;
use crate::fake::{FakeKinesis, shard_id};
use crate::lease::MemoryLeaseStore;
use crate::worker::{Worker, WorkerBuilder, WorkerHandle};
use tokio::task::JoinHandle;

const SECOND: Duration = Duration::from_secs(1);
const FAILOVER: Duration = Duration::from_secs(3);
/// More than enough to know of every worker whether it lives.
const PATIENCE: Duration = Duration::from_secs(10);

struct Started {
    handle: WorkerHandle,
    task: JoinHandle<Result<(), Error>>,
}

impl Started {
    async fn stop(self) {
        self.handle.shutdown();
        self.task.await.unwrap().unwrap();
    }

    /// As a crash would.
    async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

fn builder(kinesis: &FakeKinesis, store: impl LeaseStore, id: &str) -> WorkerBuilder {
    Worker::builder("app", "orders")
        .client(Arc::new(kinesis.clone()))
        .lease_store(store)
        .worker_id(id)
        .failover_time(FAILOVER)
        .max_records(10)
}

async fn launch(builder: WorkerBuilder, journal: &Journal, id: &str) -> Started {
    let worker = builder.build(journal.factory(id)).await.unwrap();
    Started {
        handle: worker.handle(),
        task: tokio::spawn(worker.run()),
    }
}

async fn start(
    kinesis: &FakeKinesis,
    store: impl LeaseStore,
    journal: &Journal,
    id: &str,
) -> Started {
    launch(builder(kinesis, store, id), journal, id).await
}

/// The application as its operators see it.
fn app(kinesis: &FakeKinesis, store: impl LeaseStore) -> Operations {
    Operations::new(store, "app").client(Arc::new(kinesis.clone()))
}
