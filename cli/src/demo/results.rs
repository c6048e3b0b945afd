//! The database that the workers of the demo write and the proof is read from.
//!
//! A worker stores a batch in one transaction: a row per record it had not seen, the aggregates of those, and a row
//! about the batch. A record is known by shard and sequence number, so one that is delivered again changes
//! nothing but a count; a line that was *put* twice has two sequence numbers, and only the first is aggregated.

use crate::clock;
use crate::demo::aggregate::Aggregate;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row as _, Sqlite, SqlitePool, Transaction};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const SCHEMA: &str = "
    CREATE TABLE records (
        id INTEGER PRIMARY KEY,
        shard TEXT NOT NULL,
        sequence TEXT NOT NULL,
        ordinal INTEGER NOT NULL,
        key TEXT NOT NULL,
        fingerprint INTEGER NOT NULL,
        worker TEXT NOT NULL,
        UNIQUE (shard, sequence)
    );
    CREATE INDEX records_by_ordinal ON records (ordinal);
    CREATE TABLE aggregates (
        key TEXT PRIMARY KEY,
        records INTEGER NOT NULL,
        numbers INTEGER NOT NULL,
        sum TEXT NOT NULL,
        min INTEGER,
        max INTEGER
    );
    CREATE TABLE batches (
        id INTEGER PRIMARY KEY,
        worker TEXT NOT NULL,
        shard TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        inserted INTEGER NOT NULL,
        redelivered INTEGER NOT NULL
    );";

/// How long a writer waits for its turn.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// The database; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Results {
    pool: SqlitePool,
}

/// A record as a worker got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// Its sequence number.
    pub(crate) sequence: String,
    /// Its line in the file, from 0.
    pub(crate) ordinal: i64,
    /// Its partition key.
    pub(crate) key: String,
    /// Of the line's text.
    pub(crate) fingerprint: i64,
    /// The line's number in millionths.
    pub(crate) value: Option<i64>,
}

/// A record that was processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// Shard it came from.
    pub(crate) shard: String,
    /// Its sequence number.
    pub(crate) sequence: String,
    /// Its line in the file, from 0.
    pub(crate) ordinal: i64,
    /// Its partition key.
    pub(crate) key: String,
    /// Of the line's text.
    pub(crate) fingerprint: i64,
}

/// What one worker did on one shard so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    /// The worker.
    pub(crate) worker: String,
    /// The shard.
    pub(crate) shard: String,
    /// Records it was the first to process.
    pub(crate) processed: u64,
    /// Records that it was given although they had been processed.
    pub(crate) redelivered: u64,
    /// Its latest batch; the greatest of a shard is the latest of all workers.
    pub(crate) last_batch: i64,
}

impl Results {
    /// Makes the database.
    pub(crate) async fn create(path: &Path) -> Result<Results, sqlx::Error> {
        let results = Results::connect(path, true).await?;
        sqlx::raw_sql(SCHEMA).execute(&results.pool).await?;
        Ok(results)
    }

    /// Opens the database that another process made.
    pub(crate) async fn open(path: &Path) -> Result<Results, sqlx::Error> {
        Results::connect(path, false).await
    }

    async fn connect(path: &Path, create: bool) -> Result<Results, sqlx::Error> {
        // A killed process loses nothing that was committed; only a power cut could.
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(create)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await?;
        Ok(Results { pool })
    }

    /// Stores a batch, wholly or not at all.
    pub(crate) async fn store(
        &self,
        worker: &str,
        shard: &str,
        records: &[Delivered],
    ) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let mut aggregates: BTreeMap<&str, Aggregate> = BTreeMap::new();
        let mut inserted = 0i64;
        let mut redelivered = 0i64;
        for record in records {
            let stored = sqlx::query(
                "INSERT OR IGNORE INTO records (shard, sequence, ordinal, key, fingerprint, worker)
                 VALUES (?, ?, ?, ?, ?, ?)",
            )
            .bind(shard)
            .bind(&record.sequence)
            .bind(record.ordinal)
            .bind(&record.key)
            .bind(record.fingerprint)
            .bind(worker)
            .execute(&mut *transaction)
            .await?;
            if stored.rows_affected() == 0 {
                redelivered += 1;
                continue;
            }
            inserted += 1;
            let copies: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM records WHERE ordinal = ?")
                .bind(record.ordinal)
                .fetch_one(&mut *transaction)
                .await?;
            if copies == 1 {
                aggregates.entry(&record.key).or_default().add(record.value);
            }
        }
        for (key, aggregate) in aggregates {
            merge(&mut transaction, key, &aggregate).await?;
        }
        sqlx::query(
            "INSERT INTO batches (worker, shard, at_ms, inserted, redelivered) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(worker)
        .bind(shard)
        .bind(i64::try_from(clock::unix_ms()).unwrap_or(i64::MAX))
        .bind(inserted)
        .bind(redelivered)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    /// Lines that were processed at least once.
    pub(crate) async fn lines_processed(&self) -> Result<usize, sqlx::Error> {
        let count: i64 = sqlx::query_scalar("SELECT COALESCE(SUM(records), 0) FROM aggregates")
            .fetch_one(&self.pool)
            .await?;
        Ok(usize::try_from(count).unwrap_or_default())
    }

    /// Who did what, by worker and shard.
    pub(crate) async fn shares(&self) -> Result<Vec<Share>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT worker, shard, SUM(inserted), SUM(redelivered), MAX(id) FROM batches
             GROUP BY worker, shard ORDER BY worker, shard",
        )
        .fetch_all(&self.pool)
        .await?;
        let share = |row: &sqlx::sqlite::SqliteRow| {
            Ok(Share {
                worker: row.try_get(0)?,
                shard: row.try_get(1)?,
                processed: unsigned(row.try_get(2)?),
                redelivered: unsigned(row.try_get(3)?),
                last_batch: row.try_get(4)?,
            })
        };
        rows.iter().map(share).collect()
    }

    /// When another worker first got something done on `shard` at or after `since_ms`.
    pub(crate) async fn taken_over_ms(
        &self,
        shard: &str,
        dead: &str,
        since_ms: u64,
    ) -> Result<Option<u64>, sqlx::Error> {
        let first: Option<i64> = sqlx::query_scalar(
            "SELECT MIN(at_ms) FROM batches WHERE shard = ? AND worker <> ? AND at_ms >= ?",
        )
        .bind(shard)
        .bind(dead)
        .bind(i64::try_from(since_ms).unwrap_or(i64::MAX))
        .fetch_one(&self.pool)
        .await?;
        Ok(first.map(unsigned))
    }

    /// Every record that was processed, in the order of processing.
    pub(crate) async fn rows(&self) -> Result<Vec<Row>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT shard, sequence, ordinal, key, fingerprint FROM records ORDER BY id",
        )
        .fetch_all(&self.pool)
        .await?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            Ok(Row {
                shard: row.try_get(0)?,
                sequence: row.try_get(1)?,
                ordinal: row.try_get(2)?,
                key: row.try_get(3)?,
                fingerprint: row.try_get(4)?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// The aggregates as the workers left them.
    pub(crate) async fn aggregates(&self) -> Result<BTreeMap<String, Aggregate>, sqlx::Error> {
        let rows = sqlx::query("SELECT key, records, numbers, sum, min, max FROM aggregates")
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, read_aggregate(row)?)))
            .collect()
    }

    /// Closes the database.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

async fn merge(
    transaction: &mut Transaction<'_, Sqlite>,
    key: &str,
    more: &Aggregate,
) -> Result<(), sqlx::Error> {
    let row =
        sqlx::query("SELECT key, records, numbers, sum, min, max FROM aggregates WHERE key = ?")
            .bind(key)
            .fetch_optional(&mut **transaction)
            .await?;
    let before = row
        .as_ref()
        .map_or(Ok(Aggregate::default()), read_aggregate)?;
    let sum = before.sum + more.sum;
    // None is smaller than every number: right for the maximum, wrong for the minimum.
    let min = [before.min, more.min].into_iter().flatten().min();
    sqlx::query(
        "INSERT OR REPLACE INTO aggregates (key, records, numbers, sum, min, max) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(key)
    .bind(i64::try_from(before.records + more.records).unwrap_or(i64::MAX))
    .bind(i64::try_from(before.values + more.values).unwrap_or(i64::MAX))
    .bind(sum.to_string())
    .bind(min)
    .bind(before.max.max(more.max))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

fn read_aggregate(row: &sqlx::sqlite::SqliteRow) -> Result<Aggregate, sqlx::Error> {
    let sum: String = row.try_get(3)?;
    Ok(Aggregate {
        records: unsigned(row.try_get(1)?),
        values: unsigned(row.try_get(2)?),
        sum: sum
            .parse()
            .map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
        min: row.try_get(4)?,
        max: row.try_get(5)?,
    })
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(sequence: &str, ordinal: i64, value: i64) -> Delivered {
        let key = format!("k{}", ordinal % 2);
        Delivered {
            sequence: sequence.into(),
            ordinal,
            key,
            fingerprint: ordinal,
            value: Some(value),
        }
    }

    #[tokio::test]
    async fn what_is_delivered_again_is_counted_and_changes_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results.db");
        let results = Results::create(&path).await.unwrap();
        results
            .store("w1", "s0", &[delivered("1", 0, 5), delivered("2", 2, -7)])
            .await
            .unwrap();
        let other = Results::open(&path).await.unwrap();
        // Sequence 2 again, line 2 put a second time as sequence 3, and a new one.
        let again = [
            delivered("2", 2, -7),
            delivered("3", 2, -7),
            delivered("4", 1, 1),
        ];
        other.store("w2", "s0", &again).await.unwrap();

        assert_eq!(results.lines_processed().await.unwrap(), 3);
        let ordinals: Vec<i64> = results
            .rows()
            .await
            .unwrap()
            .iter()
            .map(|row| row.ordinal)
            .collect();
        assert_eq!(ordinals, [0, 2, 2, 1], "in the order of processing");
        let aggregates = results.aggregates().await.unwrap();
        let even = Aggregate {
            records: 2,
            values: 2,
            sum: -2,
            min: Some(-7),
            max: Some(5),
        };
        assert_eq!(aggregates["k0"], even);
        assert_eq!(aggregates["k1"].records, 1);
        let shares = results.shares().await.unwrap();
        let counts: Vec<_> = shares
            .iter()
            .map(|s| (s.worker.as_str(), s.processed, s.redelivered))
            .collect();
        assert_eq!(counts, [("w1", 2, 0), ("w2", 2, 1)]);
        assert!(shares[1].last_batch > shares[0].last_batch);
        assert!(
            results
                .taken_over_ms("s0", "w1", 0)
                .await
                .unwrap()
                .is_some()
        );
        assert_eq!(
            results.taken_over_ms("s0", "w1", u64::MAX).await.unwrap(),
            None
        );
        assert_eq!(results.taken_over_ms("s1", "w1", 0).await.unwrap(), None);
    }

    #[tokio::test]
    async fn aggregates_of_several_batches_add_up_to_those_of_all_records() {
        let directory = tempfile::tempdir().unwrap();
        let results = Results::create(&directory.path().join("results.db"))
            .await
            .unwrap();
        let mut direct: BTreeMap<String, Aggregate> = BTreeMap::new();
        for batch in 0..5i64 {
            let records: Vec<Delivered> = (0..7)
                .map(|index| {
                    let ordinal = batch * 7 + index;
                    let value = (ordinal % 3 != 0).then_some((ordinal - 15) * 1_000_003);
                    Delivered {
                        value,
                        ..delivered(&ordinal.to_string(), ordinal, 0)
                    }
                })
                .collect();
            for record in &records {
                direct
                    .entry(record.key.clone())
                    .or_default()
                    .add(record.value);
            }
            results.store("w", "s", &records).await.unwrap();
        }
        assert_eq!(results.aggregates().await.unwrap(), direct);
    }
}
