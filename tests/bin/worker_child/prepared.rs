//! Exactly once into another system, by checkpoints in two phases: work is staged there, prepared here, applied there, and
//! committed here. Whoever finds a prepared checkpoint finishes it or undoes it, by chance.

use crate::voice::Voice;
use kcl::{Checkpointer, PendingCheckpoint, Position, ProcessorError, Record, RecordBatch};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use std::time::Duration;
use support::history::Written;
use support::sums;

/// A database that holds no leases.
#[derive(Debug)]
pub(crate) struct OtherSystem {
    connection: SqliteConnection,
}

/// What became of staged work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Applied,
    Gone,
}

impl OtherSystem {
    async fn open(path: &str) -> Result<OtherSystem, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(20));
        let mut connection = options.connect().await?;
        for table in [
            sums::TABLE,
            "CREATE TABLE IF NOT EXISTS staged (id TEXT, key TEXT, count BIGINT, sum BIGINT, PRIMARY KEY (id, key))",
            "CREATE TABLE IF NOT EXISTS applied (id TEXT PRIMARY KEY)",
        ] {
            sqlx::query(table).execute(&mut connection).await?;
        }
        Ok(OtherSystem { connection })
    }

    async fn stage(&mut self, id: &str, records: &[Record]) -> Result<(), sqlx::Error> {
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        let written: Vec<Written> = records
            .iter()
            .map(|record| Written::parse(record.data()))
            .collect();
        for (key, sum) in sums::of(&written) {
            sqlx::query("INSERT INTO staged VALUES ($1, $2, $3, $4)")
                .bind(id)
                .bind(key)
                .bind(sum.count)
                .bind(sum.sum)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await
    }

    /// Adds what is staged to the sums, unless somebody has, or has thrown it away.
    async fn apply(&mut self, id: &str) -> Result<Fate, sqlx::Error> {
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        let staged = sqlx::query("DELETE FROM staged WHERE id = $1 RETURNING key, count, sum")
            .bind(id)
            .fetch_all(&mut *transaction)
            .await?;
        if staged.is_empty() {
            let applied = sqlx::query("SELECT id FROM applied WHERE id = $1")
                .bind(id)
                .fetch_optional(&mut *transaction)
                .await?;
            return Ok(applied.map_or(Fate::Gone, |_| Fate::Applied));
        }
        for row in staged {
            sqlx::query(sums::ADD)
                .bind(row.get::<String, _>("key"))
                .bind(row.get::<i64, _>("count"))
                .bind(row.get::<i64, _>("sum"))
                .execute(&mut *transaction)
                .await?;
        }
        sqlx::query("INSERT INTO applied VALUES ($1)")
            .bind(id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Fate::Applied)
    }

    /// Throws away what is staged; it may have been applied before.
    async fn discard(&mut self, id: &str) -> Result<Fate, sqlx::Error> {
        let deleted = sqlx::query("DELETE FROM staged WHERE id = $1")
            .bind(id)
            .execute(&mut self.connection)
            .await?;
        if deleted.rows_affected() > 0 {
            return Ok(Fate::Gone);
        }
        let applied = sqlx::query("SELECT id FROM applied WHERE id = $1")
            .bind(id)
            .fetch_optional(&mut self.connection)
            .await?;
        Ok(applied.map_or(Fate::Gone, |_| Fate::Applied))
    }
}

/// One shard's way through the phases.
#[derive(Debug)]
pub(crate) struct InTwoPhases {
    path: String,
    /// How long it stands still after each phase.
    pause: Duration,
    other: Option<OtherSystem>,
    /// Prepared, and not known to be committed.
    open: Option<PendingCheckpoint>,
    /// What the other system has, beyond the checkpoint.
    applied: Option<Position>,
}

impl InTwoPhases {
    pub(crate) fn new(path: String, pause: Duration) -> Self {
        InTwoPhases {
            path,
            pause,
            other: None,
            open: None,
            applied: None,
        }
    }

    async fn other(&mut self) -> Result<&mut OtherSystem, sqlx::Error> {
        if self.other.is_none() {
            self.other = Some(OtherSystem::open(&self.path).await?);
        }
        self.other.as_mut().ok_or(sqlx::Error::WorkerCrashed)
    }

    /// Takes over what an earlier owner left between its phases.
    pub(crate) async fn inherit(
        &mut self,
        pending: Option<&PendingCheckpoint>,
        voice: &Voice,
    ) -> Result<(), ProcessorError> {
        self.open = pending.cloned();
        if pending.is_some() {
            voice.note("inherited");
        }
        self.resolve(voice).await
    }

    async fn resolve(&mut self, voice: &Voice) -> Result<(), ProcessorError> {
        let Some(open) = self.open.clone() else {
            return Ok(());
        };
        let id = String::from_utf8(open.state)?;
        let finishes = fastrand::bool();
        let other = self.other().await?;
        let fate = if finishes {
            other.apply(&id).await?
        } else {
            other.discard(&id).await?
        };
        match fate {
            Fate::Applied => self.applied = Some(open.position),
            Fate::Gone => {}
        }
        voice.note(match fate {
            Fate::Applied => "finished",
            Fate::Gone => "undone",
        });
        self.open = None;
        Ok(())
    }

    pub(crate) async fn add(
        &mut self,
        batch: &RecordBatch,
        checkpointer: &Checkpointer,
        voice: &Voice,
    ) -> Result<(), ProcessorError> {
        self.resolve(voice).await?;
        let applied = self.applied;
        let is_known = |record: &&Record| {
            let position = Position::after(record.sequence_number());
            applied.is_some_and(|applied| position.may_advance_to(&applied))
        };
        // What was finished for an earlier owner is checkpointed before anything else is prepared: a new preparation takes the place
        // of the one that tells of it.
        let known = batch.records().iter().filter(is_known).count();
        let (known, records) = batch.records().split_at(known);
        if let Some(last) = known.last() {
            let stored = checkpointer.checkpoint_at(last).await;
            checkpointed(stored, voice)?;
        }
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Ok(());
        };
        let id = format!(
            "{} {} {:016x}",
            voice.shard,
            first.sequence_number(),
            fastrand::u64(..)
        );
        self.other().await?.stage(&id, records).await?;
        let prepared = match checkpointer.prepare(id.clone()).await {
            Ok(prepared) => prepared,
            Err(error) => return checkpointed(Err(error), voice),
        };
        self.open = Some(PendingCheckpoint {
            position: prepared.position(),
            state: id.clone().into_bytes(),
        });
        voice.note("prepared");
        tokio::time::sleep(self.pause).await;
        if self.other().await?.apply(&id).await? == Fate::Gone {
            voice.note("too late");
            return Err(format!("{id} was undone by another").into());
        }
        self.applied = Some(Position::after(last.sequence_number()));
        voice.note("applied");
        tokio::time::sleep(self.pause).await;
        let committed = prepared.commit().await;
        if committed.is_ok() {
            self.open = None;
        }
        checkpointed(committed, voice)
    }
}

/// Reports what became of a checkpoint.
fn checkpointed(answer: Result<(), kcl::Error>, voice: &Voice) -> Result<(), ProcessorError> {
    match answer {
        Ok(()) => {
            voice.report("checkpointed", &[]);
            Ok(())
        }
        Err(error) => {
            voice.refused(&error);
            Err(error.into())
        }
    }
}
