//! Whole workers against a fake Kinesis with paused time. Each module holds the tests of some guarantees.

mod aggregates;
mod balance;
mod batching;
mod dead_letters;
mod failover;
mod fan_out;
mod growth;
mod loss;
mod observed;
mod policy;
mod policy_in_transactions;
mod regressions;
mod status;
mod store;
mod streams;
mod transacted;

use crate::client::KinesisApi;
use crate::config::InitialPosition;
use crate::error::Error;
use crate::fake::FakeKinesis;
use crate::fake::recorder::Journal;
use crate::lease::LeaseStore;
use crate::worker::{Worker, WorkerBuilder, WorkerHandle};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

const FAILOVER: Duration = Duration::from_secs(3);

/// A worker in a task of its own.
struct Started {
    handle: WorkerHandle,
    task: JoinHandle<Result<(), Error>>,
}

impl Started {
    async fn stop(self) -> Result<(), Error> {
        self.handle.shutdown();
        self.task.await.unwrap()
    }
}

fn builder(kinesis: &FakeKinesis, store: impl LeaseStore, id: &str) -> WorkerBuilder {
    let client: Arc<dyn KinesisApi> = Arc::new(kinesis.clone());
    Worker::builder("app", "orders")
        .client(client)
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

/// Waits until `condition` holds, up to a deadline on the paused clock.
async fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + limit;
    while !condition() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "not within {limit:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until every record put so far was processed.
async fn until_processed(kinesis: &FakeKinesis, journal: &Journal, limit: Duration) {
    until("every record is processed", limit, || {
        journal.check_no_loss(&kinesis.put_so_far()).is_ok()
    })
    .await;
}

fn latest(builder: WorkerBuilder) -> WorkerBuilder {
    builder.initial_position(InitialPosition::Latest)
}
