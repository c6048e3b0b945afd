//! Records that other producers' libraries packed, through the real server to a worker that dies inside them.

use crate::SERVER;
use async_trait::async_trait;
use kcl::{
    Checkpointer, ForeignRecords, ProcessorError, RecordBatch, RecordProcessor, ShardInfo,
    SqliteLeaseStore, Worker, WorkerBuilder,
};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::client::{decode_base64, text};
use support::{RawClient, ServerProcess, wait_until};

/// What other libraries packed, and what they were given.
const FIXTURES: &str = include_str!("../fixtures/aggregated.json");
const STREAM: &str = "aggregated";
const PATIENCE: Duration = Duration::from_secs(30);

/// Partition key, explicit hash key, payload: what a producer's user gave.
type Given = (String, Option<String>, Vec<u8>);

fn fixtures() -> Vec<Value> {
    serde_json::from_str(FIXTURES).unwrap()
}

fn contents(fixture: &Value) -> Vec<Given> {
    let given = |record: &Value| {
        let explicit = record["explicit_hash_key"].as_str().map(str::to_owned);
        let payload = decode_base64(record["data"].as_str().unwrap());
        (text(record, "partition_key"), explicit, payload)
    };
    let records = fixture["user_records"].as_array().unwrap();
    records.iter().map(given).collect()
}

/// Puts a fixture as it is on the shard of the lowest hash key.
async fn put(client: &RawClient, fixture: &Value) {
    let input = json!({
        "StreamName": STREAM, "PartitionKey": fixture["partition_key"],
        "ExplicitHashKey": "0", "Data": fixture["data"],
    });
    client.must("PutRecord", input).await;
}

/// What processors acknowledged, and how many they may.
#[derive(Debug, Clone, Default)]
struct Ledger {
    acknowledged: Arc<Mutex<Vec<Given>>>,
    allowed: Arc<Mutex<usize>>,
}

impl Ledger {
    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    async fn until(&self, count: usize) {
        wait_until("user records are acknowledged", PATIENCE, || async {
            (self.count() >= count).then_some(())
        })
        .await;
    }
}

/// Checkpoints every user record; stops for ever where it may go no further.
#[async_trait]
impl RecordProcessor for Ledger {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        for record in batch.records() {
            if self.count() >= *self.allowed.lock().unwrap() {
                std::future::pending::<()>().await;
            }
            checkpointer.checkpoint_at(record).await?;
            let given = (
                record.partition_key().to_owned(),
                record.explicit_hash_key().map(str::to_owned),
                record.data().to_vec(),
            );
            self.acknowledged.lock().unwrap().push(given);
        }
        Ok(())
    }
}

/// Every run has the same id, so that it need not wait until the one before is taken for dead.
async fn builder(server: &ServerProcess, leases: &Path) -> WorkerBuilder {
    Worker::builder("app", STREAM)
        .endpoint(server.url())
        .region("us-east-1")
        .worker_id("w")
        .poll_interval(Duration::from_millis(20))
        .lease_store(SqliteLeaseStore::open(leases).await.unwrap())
}

/// Goal: every user record arrives as its producer gave it, once, in order, through owners that die inside the aggregates. Method:
/// blobs of three other libraries between plain records; each owner acknowledges seven user records and dies.
#[tokio::test(flavor = "multi_thread")]
async fn k4_k5_aggregates_of_other_libraries_survive_owners_that_die_in_them() {
    let server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 1).await;
    let mut expected = Vec::new();
    for fixture in fixtures() {
        put(&client, &fixture).await;
        expected.extend(contents(&fixture));
        client.put(STREAM, "plain", b"between").await.unwrap();
        expected.push(("plain".to_owned(), None, b"between".to_vec()));
    }
    assert!(expected.len() > 70, "{} user records", expected.len());
    let directory = tempfile::tempdir().unwrap();
    let leases = directory.path().join("leases.db");
    let ledger = Ledger::default();
    while ledger.count() < expected.len() {
        let goal = expected.len().min(ledger.count() + 7);
        *ledger.allowed.lock().unwrap() = goal;
        let of_this = ledger.clone();
        let owner = builder(&server, &leases).await;
        let owner = owner
            .build(move |_: &ShardInfo| of_this.clone())
            .await
            .unwrap();
        let owner = tokio::spawn(owner.run());
        ledger.until(goal).await;
        owner.abort();
        assert!(owner.await.unwrap_err().is_cancelled());
    }
    assert_eq!(*ledger.acknowledged.lock().unwrap(), expected);
}

/// Goal: what a producer packed for the wrong shard is told by the hash key ranges that the server lists.
#[tokio::test(flavor = "multi_thread")]
async fn user_records_of_the_other_shard_are_dropped_where_that_is_asked_for() {
    let server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 2).await;
    let fixture = &fixtures()[0];
    put(&client, fixture).await;
    // Where there is no explicit hash key, by `printf user-1 | md5sum`: d6d77053..., and 3d58ce20... of user-2.
    let is_own = |(key, explicit, _): &Given| match explicit.as_deref() {
        Some(explicit) => explicit == "0",
        None => key == "user-2",
    };
    let mut expected = contents(fixture);
    expected.retain(is_own);
    assert_eq!(expected.len(), 3, "of five");
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::default();
    *ledger.allowed.lock().unwrap() = usize::MAX;
    let of_worker = ledger.clone();
    let worker = builder(&server, &directory.path().join("leases.db")).await;
    let worker = worker
        .foreign_records(ForeignRecords::Drop)
        .build(move |_: &ShardInfo| of_worker.clone())
        .await
        .unwrap();
    let handle = worker.handle();
    let worker = tokio::spawn(worker.run());
    client.put(STREAM, "user-2", b"after it").await.unwrap();
    expected.push(("user-2".to_owned(), None, b"after it".to_vec()));
    ledger.until(expected.len()).await;
    handle.shutdown();
    worker.await.unwrap().unwrap();
    assert_eq!(*ledger.acknowledged.lock().unwrap(), expected);
}
