//! Error policies together with exactly once: a batch that fails, is halved and is skipped in parts is stored record by record once.

use super::policy::{poison, put_poisoned};
use super::*;
use crate::checkpoint::Checkpointer;
use crate::fake::recorder::Poison;
use crate::lease::SqliteLeaseStore;
use crate::policy::ErrorPolicy;
use crate::processor::{ProcessorError, RecordBatch, RecordProcessor, ShardInfo};
use async_trait::async_trait;
use millstream_wire::SequenceNumber;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use std::collections::BTreeSet;

/// Stores what it is given, each record with the checkpoint in one transaction; loses the reply of every third commit.
struct Ledger {
    pool: SqlitePool,
    poison: BTreeSet<SequenceNumber>,
    commits: u32,
}

#[async_trait]
impl RecordProcessor for Ledger {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        for record in batch.records() {
            let number = record.sequence_number();
            let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
            sqlx::query("INSERT INTO ledger VALUES (?)")
                .bind(number.to_string())
                .execute(&mut *transaction)
                .await?;
            checkpointer
                .checkpoint_at_in(record, &mut transaction)
                .await?;
            if self.poison.contains(&number) {
                return Err(Poison(number).into());
            }
            transaction.commit().await?;
            self.commits += 1;
            if self.commits.is_multiple_of(3) {
                return Err("the reply of the commit was lost".into());
            }
        }
        Ok(())
    }
}

/// Goal: no record is stored twice, and none is skipped because its commit was not answered: the store tells that it is done.
#[tokio::test]
async fn k4_skip_and_lost_commits_store_every_good_record_exactly_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.db");
    let store = SqliteLeaseStore::open(&path).await.unwrap();
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&path));
    let pool = pool.await.unwrap();
    sqlx::query("CREATE TABLE ledger (number TEXT PRIMARY KEY)")
        .execute(&pool)
        .await
        .unwrap();
    let (kinesis, journal) = (FakeKinesis::new(1), Journal::default());
    let put = put_poisoned(&kinesis, &journal, (0, 40), &[0, 8, 14, 15, 39]);
    let (inner, bad) = (pool.clone(), poison(&journal));
    let worker = builder(&kinesis, store, "w")
        .on_error(ErrorPolicy::skip().after(1))
        .build(move |_: &ShardInfo| Ledger {
            pool: inner.clone(),
            poison: bad.clone(),
            commits: 0,
        })
        .await
        .unwrap();
    let handle = worker.handle();
    let task = tokio::spawn(worker.run());
    until("all poison is skipped", Duration::from_secs(20), || {
        handle.counts().skipped == 5
    })
    .await;
    handle.shutdown();
    task.await.unwrap().unwrap();
    let rows: Vec<(String,)> = sqlx::query_as("SELECT number FROM ledger ORDER BY rowid")
        .fetch_all(&pool)
        .await
        .unwrap();
    let bad = poison(&journal);
    let good = put.iter().filter(|number| !bad.contains(number));
    let good: Vec<_> = good.map(|number| (number.to_string(),)).collect();
    assert_eq!(rows, good);
}
