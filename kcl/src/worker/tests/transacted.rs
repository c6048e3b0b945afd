//! Exactly once: checkpoints in transactions of the application, on a real SQLite file and so in real time.

use super::*;
use crate::lease::SqliteLeaseStore;
use crate::processor::{ProcessorError, RecordBatch, RecordProcessor, ShardInfo};
use crate::{Checkpointer, Position};
use async_trait::async_trait;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Adds up records in the leases' database; believes in the first so many commits that never were.
#[derive(Debug, Clone)]
struct Adder {
    path: PathBuf,
    lies: Arc<AtomicUsize>,
}

async fn connect(path: &PathBuf) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path);
    options.connect().await.unwrap()
}

#[async_trait]
impl RecordProcessor for Adder {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        let mut connection = connect(&self.path).await;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        for record in batch.records() {
            sqlx::query("INSERT INTO counted VALUES (?1)")
                .bind(record.sequence_number().to_string())
                .execute(&mut *transaction)
                .await?;
        }
        checkpointer.checkpoint_in(&mut transaction).await?;
        let lie = |left: usize| left.checked_sub(1);
        let lies = self
            .lies
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, lie);
        match lies {
            Ok(_) => transaction.rollback().await?,
            Err(_) => transaction.commit().await?,
        }
        Ok(())
    }
}

/// Goal: a shard does not end on the word of a commit that was answered and is not there (a database that lost its last
/// transactions in a crash): what it should have stored is delivered again first.
#[tokio::test]
async fn k4_a_shard_ends_only_when_the_store_holds_what_its_last_batch_relied_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.db");
    let store = SqliteLeaseStore::open(&path).await.unwrap();
    let mut database = connect(&path).await;
    sqlx::query("CREATE TABLE counted (sequence TEXT PRIMARY KEY)")
        .execute(&mut database)
        .await
        .unwrap();
    let kinesis = FakeKinesis::new(1);
    for _ in 0..3 {
        kinesis.put(0, "x");
    }
    kinesis.split(0);
    let adder = Adder {
        path,
        lies: Arc::new(AtomicUsize::new(1)),
    };
    let worker = builder(&kinesis, store.clone(), "a")
        .build(move |_: &ShardInfo| adder.clone())
        .await
        .unwrap();
    let handle = worker.handle();
    let task = tokio::spawn(worker.run());
    let deadline = tokio::time::Instant::now() + FAILOVER * 4;
    loop {
        let leases = store.snapshot("app").await.unwrap().leases;
        if leases
            .iter()
            .any(|lease| lease.checkpoint == Position::ShardEnd)
        {
            break;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "the shard does not end: {leases:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let counted: i64 = sqlx::query_scalar("SELECT count(*) FROM counted")
        .fetch_one(&mut database)
        .await
        .unwrap();
    assert_eq!(counted, 3);
    handle.shutdown();
    task.await.unwrap().unwrap();
}
