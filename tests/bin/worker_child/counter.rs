//! At least once: records counted by a CSV column in a database beside the leases.

use kcl::{ProcessorError, RecordBatch};
use serde_json::{Value, json};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use std::time::Duration;

/// Where records are counted by one CSV column of their payload: a row per record, keyed by its place, so
/// that a record delivered twice counts once.
#[derive(Debug, Clone)]
pub(crate) struct Counter {
    pool: SqlitePool,
    column: usize,
}

impl Counter {
    pub(crate) async fn open(path: &str, column: usize) -> Result<Counter, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(20));
        let pool = SqlitePool::connect_with(options).await?;
        sqlx::query(
            "CREATE TABLE IF NOT EXISTS counted (shard TEXT, sequence TEXT, value TEXT, \
             PRIMARY KEY (shard, sequence)) WITHOUT ROWID",
        )
        .execute(&pool)
        .await?;
        Ok(Counter { pool, column })
    }

    pub(crate) async fn add(&self, shard: &str, batch: &RecordBatch) -> Result<(), ProcessorError> {
        let mut rows = Vec::with_capacity(batch.records().len());
        for record in batch.records() {
            let row = std::str::from_utf8(record.data())?;
            let value = row
                .split(',')
                .nth(self.column)
                .ok_or_else(|| format!("short row {row:?}"))?;
            rows.push(json!([record.sequence_number().to_string(), value]));
        }
        // One statement for the batch is one transaction.
        sqlx::query(
            "INSERT OR IGNORE INTO counted \
             SELECT ?1, value ->> 0, value ->> 1 FROM json_each(?2)",
        )
        .bind(shard)
        .bind(Value::from(rows).to_string())
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
