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
use std::sync::Mutex;

/// Stores what it is given, each record with the checkpoint in one transaction.
#[derive(Clone)]
struct Ledger {
    pool: SqlitePool,
    poison: BTreeSet<SequenceNumber>,
    /// Poison fails before anything is written, and not after.
    early: bool,
    /// Every so many commits lose their reply; 0: none does.
    loses_every: u32,
    commits: u32,
    /// Once, a transaction is rolled back without a word.
    forgets: Arc<Mutex<Option<SequenceNumber>>>,
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
            if self.early && self.poison.contains(&number) {
                return Err(Poison(number).into());
            }
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
            if self
                .forgets
                .lock()
                .unwrap()
                .take_if(|it| *it == number)
                .is_some()
            {
                drop(transaction);
                continue;
            }
            transaction.commit().await?;
            self.commits += 1;
            if self.loses_every > 0 && self.commits.is_multiple_of(self.loses_every) {
                return Err("the reply of the commit was lost".into());
            }
        }
        Ok(())
    }
}

/// Runs a ledger under a policy that skips, until so many records are skipped; gives what is stored, in the order of storing.
async fn run(
    kinesis: &FakeKinesis,
    skipped: u64,
    ledger: impl FnOnce(SqlitePool) -> Ledger,
) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.db");
    let store = SqliteLeaseStore::open(&path).await.unwrap();
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&path));
    let pool = pool.await.unwrap();
    sqlx::query("CREATE TABLE ledger (number TEXT PRIMARY KEY)")
        .execute(&pool)
        .await
        .unwrap();
    let ledger = ledger(pool.clone());
    let worker = builder(kinesis, store, "w")
        .on_error(ErrorPolicy::skip().after(1))
        .build(move |_: &ShardInfo| ledger.clone());
    let worker = worker.await.unwrap();
    let handle = worker.handle();
    let task = tokio::spawn(worker.run());
    until("all poison is skipped", Duration::from_secs(20), || {
        handle.counts().skipped == skipped
    })
    .await;
    handle.shutdown();
    task.await.unwrap().unwrap();
    sqlx::query_scalar("SELECT number FROM ledger ORDER BY rowid")
        .fetch_all(&pool)
        .await
        .unwrap()
}

fn good(put: &[SequenceNumber], journal: &Journal) -> Vec<String> {
    let bad = poison(journal);
    let good = put.iter().filter(|number| !bad.contains(number));
    good.map(SequenceNumber::to_string).collect()
}

/// Goal: no record is stored twice, and none is skipped because its commit was not answered: the store tells that it is done.
#[tokio::test]
async fn k4_skip_and_lost_commits_store_every_good_record_exactly_once() {
    let (kinesis, journal) = (FakeKinesis::new(1), Journal::default());
    let put = put_poisoned(&kinesis, &journal, (0, 40), &[0, 8, 14, 15, 39]);
    let stored = run(&kinesis, 5, |pool| Ledger {
        pool,
        poison: poison(&journal),
        early: false,
        loses_every: 3,
        commits: 0,
        forgets: Arc::default(),
    });
    assert_eq!(stored.await, good(&put, &journal));
}

/// Goal: a record given up does not carry a checkpoint over a transaction before it that was rolled back though its batch succeeded. Method: the
/// poison is the last record, so that the release stores what counts as handled.
#[tokio::test]
async fn k4_no_record_is_given_up_over_a_transaction_that_was_rolled_back() {
    let (kinesis, journal) = (FakeKinesis::new(1), Journal::default());
    let put = put_poisoned(&kinesis, &journal, (0, 11), &[10]);
    let stored = run(&kinesis, 1, |pool| Ledger {
        pool,
        poison: poison(&journal),
        early: true,
        loses_every: 0,
        commits: 0,
        forgets: Arc::new(Mutex::new(Some(put[9]))),
    });
    assert_eq!(stored.await, good(&put, &journal));
}
