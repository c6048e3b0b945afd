//! Exactly once: sums by key in the database that holds the leases, in one transaction with the checkpoint.

use crate::mishap::{Ending, Mishap, Verdict, plan};
use crate::voice::Voice;
use kcl::lease::LeaseDatabase;
use kcl::{Checkpointer, ProcessorError, Record, RecordBatch};
use sqlx::{Connection as _, Encode, Executor, IntoArguments, Transaction, Type};
use std::path::PathBuf;
use std::time::Duration;
use support::Store;
use support::history::Written;
use support::store::Connection;
use support::sums;

/// Sums of one shard's records, on a connection of their own.
#[derive(Debug)]
pub(crate) struct SumsInTransaction {
    store: Store,
    connection: Option<Connection>,
    /// While this file is there, things go wrong.
    mishaps_while: Option<PathBuf>,
}

/// One transaction.
struct Step<'a> {
    records: &'a [Record],
    ending: Ending,
}

impl SumsInTransaction {
    pub(crate) fn new(store: Store, mishaps_while: Option<PathBuf>) -> Self {
        SumsInTransaction {
            store,
            connection: None,
            mishaps_while,
        }
    }

    /// Adds the batch and checkpoints, or goes wrong on purpose.
    pub(crate) async fn add(
        &mut self,
        batch: &RecordBatch,
        checkpointer: &Checkpointer,
        voice: &Voice,
    ) -> Result<(), ProcessorError> {
        let goes_wrong = self
            .mishaps_while
            .as_ref()
            .is_some_and(|file| file.exists());
        let mishap = (goes_wrong && fastrand::u8(..3) == 0).then(Mishap::by_chance);
        if let Some(mishap) = mishap {
            voice.note(mishap.name());
        }
        let (steps, verdict) = plan(mishap, batch.records().len());
        for (range, ending) in steps {
            let step = Step {
                records: &batch.records()[range],
                ending,
            };
            // A connection is used again only after a transaction that went well.
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => self.store.connect().await?,
            };
            match &mut connection {
                Connection::Sqlite(connection) => {
                    let begun = connection.begin_with("BEGIN IMMEDIATE").await?;
                    step.make(begun, checkpointer, voice).await?;
                }
                Connection::Postgres(connection) => {
                    let begun = connection.begin().await?;
                    step.make(begun, checkpointer, voice).await?;
                }
            }
            self.connection = Some(connection);
        }
        match verdict {
            Verdict::Done => {
                if mishap != Some(Mishap::BelievedDone) {
                    voice.report("checkpointed", &[]);
                }
                Ok(())
            }
            Verdict::Failed => {
                self.connection = None;
                Err("on purpose".into())
            }
        }
    }
}

impl Step<'_> {
    async fn make<D>(
        self,
        mut transaction: Transaction<'_, D>,
        checkpointer: &Checkpointer,
        voice: &Voice,
    ) -> Result<(), ProcessorError>
    where
        D: LeaseDatabase,
        for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
        D::Arguments: IntoArguments<D>,
        for<'q> String: Encode<'q, D> + Type<D>,
        for<'q> i64: Encode<'q, D> + Type<D>,
    {
        let Step { records, ending } = self;
        let written: Vec<Written> = records
            .iter()
            .map(|record| Written::parse(record.data()))
            .collect();
        for (key, sum) in sums::of(&written) {
            sqlx::query(sums::ADD)
                .bind(key)
                .bind(sum.count)
                .bind(sum.sum)
                .execute(&mut *transaction)
                .await?;
        }
        let (Some(last), true) = (records.last(), ending != Ending::NoCheckpoint) else {
            return Ok(transaction.rollback().await?);
        };
        if let Err(error) = checkpointer.checkpoint_at_in(last, &mut transaction).await {
            voice.refused(&error);
            return Err(error.into());
        }
        match ending {
            Ending::Commit => transaction.commit().await?,
            Ending::Unanswered => {
                let patience = Duration::from_micros(fastrand::u64(..3000));
                // Whether it was committed is anybody's guess.
                let _ = tokio::time::timeout(patience, transaction.commit()).await;
            }
            Ending::Rollback | Ending::NoCheckpoint => transaction.rollback().await?,
        }
        Ok(())
    }
}
