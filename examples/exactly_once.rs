//! Exactly once: account balances and the checkpoint are written in one SQLite transaction. Transactions are rolled back, commits go
//! through without an answer, the worker crashes; the balances are exact.

use async_trait::async_trait;
use kcl::sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use kcl::sqlx::{self, ConnectOptions, Connection};
use kcl::{
    Checkpointer, ProcessorError, RecordBatch, RecordProcessor, ShardInfo, SqliteLeaseStore, Worker,
};
use millstream_examples::{Failure, put, serve};
use std::path::{Path, PathBuf};
use std::time::Duration;

const PAYMENTS: i64 = 200;

struct Ledger {
    database: PathBuf,
    batches: u32,
}

async fn open(database: &Path) -> Result<SqliteConnection, sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(database);
    options.busy_timeout(Duration::from_secs(5)).connect().await
}

#[async_trait]
impl RecordProcessor for Ledger {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        self.batches += 1;
        let mut connection = open(&self.database).await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        for record in batch.records() {
            let amount: i64 = std::str::from_utf8(record.data())?.parse()?;
            sqlx::query("UPDATE accounts SET balance = balance + ?1 WHERE name = ?2")
                .bind(amount)
                .bind(record.partition_key())
                .execute(&mut *transaction)
                .await?;
        }
        checkpointer.checkpoint_in(&mut transaction).await?;
        if self.batches % 3 == 1 {
            return Err("the transaction is rolled back".into());
        }
        transaction.commit().await?;
        if self.batches % 3 == 2 {
            return Err("it was committed, but nobody heard of it".into());
        }
        Ok(())
    }
}

async fn balances(database: &Path) -> Result<i64, Failure> {
    let query = sqlx::query_scalar("SELECT total(balance) FROM accounts");
    let total: f64 = query.fetch_one(&mut open(database).await?).await?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a sum of 200 small numbers"
    )]
    Ok(total as i64)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let server = serve("payments", 2).await?;
    let folder = tempfile::tempdir()?;
    let database = folder.path().join("ledger.db");
    let leases = SqliteLeaseStore::open(&database).await?;
    sqlx::raw_sql(
        "CREATE TABLE accounts (name TEXT PRIMARY KEY, balance INTEGER NOT NULL);
         INSERT INTO accounts VALUES ('alice', 0), ('bob', 0), ('carol', 0)",
    )
    .execute(&mut open(&database).await?)
    .await?;

    let expected: i64 = (0..PAYMENTS).sum();
    let mut runs = 0;
    while balances(&database).await? < expected {
        for payment in (0..PAYMENTS).filter(|_| runs == 0) {
            let account = ["alice", "bob", "carol"][usize::try_from(payment % 3)?];
            put(&server.url(), "payments", account, &payment.to_string()).await?;
        }
        runs += 1;
        let database = database.clone();
        let worker = Worker::builder("ledger", "payments")
            .endpoint(server.url())
            .lease_store(leases.clone())
            .worker_id("ledger")
            .max_records(20)
            .build(move |_: &ShardInfo| Ledger {
                database: database.clone(),
                batches: 0,
            })
            .await?;
        // Dropped in the middle of its work, which is as good as a crash.
        let _ = tokio::time::timeout(Duration::from_millis(700), worker.run()).await;
    }
    server.shutdown().await;
    let total = balances(&database).await?;
    println!("it took {runs} runs of the worker");
    println!("result: {total} of {expected} paid, each once");
    Ok(())
}
