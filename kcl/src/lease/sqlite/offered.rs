//! A checkpoint in a transaction of the application, on the SQLite file that holds the leases.

use super::fault::explain;
use super::transaction::lease_on;
use crate::error::Error;
use crate::lease::transaction::sealed::Sealed;
use crate::lease::{CheckpointStep, LeaseDatabase};
use sqlx::{Sqlite, SqliteConnection};
use std::path::Path;

/// What errors call the database: the connection is the application's, and so is its path.
const DATABASE: &str = "in the transaction's database";

impl Sealed for Sqlite {}

impl LeaseDatabase for Sqlite {
    async fn store_checkpoint(
        connection: &mut SqliteConnection,
        step: CheckpointStep<'_>,
    ) -> Result<(), Error> {
        step.moves_forward()?;
        let path = Path::new(DATABASE);
        let token = step.token;
        // The write comes first, so that the transaction waits for other writers here or not at all.
        let done = sqlx::query(
            "UPDATE leases SET checkpoint = ?1
             WHERE application = ?2 AND stream = ?3 AND lease_key = ?4
                   AND lease_counter = ?5 AND lease_owner = ?6 AND checkpoint = ?7",
        )
        .bind(step.position.to_string())
        .bind(step.application)
        .bind(&token.key.stream)
        .bind(&token.key.shard_id)
        .bind(token.counter.cast_signed())
        .bind(&token.owner)
        .bind(step.base.to_string())
        .execute(&mut *connection)
        .await
        .map_err(|fault| explain(path, fault))?;
        let lease = lease_on(&mut *connection, path, step.application, &token.key).await?;
        if done.rows_affected() != 1 {
            return Err(step.refusal(lease.as_ref()));
        }
        if lease
            .and_then(|lease| lease.pending)
            .is_some_and(|pending| step.covers(&pending))
        {
            forget_pending(connection, step)
                .await
                .map_err(|fault| explain(path, fault))?;
        }
        Ok(())
    }
}

async fn forget_pending(
    connection: &mut SqliteConnection,
    step: CheckpointStep<'_>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE leases SET pending_checkpoint = NULL, pending_state = NULL
         WHERE application = ?1 AND stream = ?2 AND lease_key = ?3",
    )
    .bind(step.application)
    .bind(&step.token.key.stream)
    .bind(&step.token.key.shard_id)
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::lease::contract::{APP, at, claim, new_lease, token};
    use crate::lease::{
        LeaseStore, LeaseToken, PendingCheckpoint, SqliteLeaseStore, WorkerProfile,
    };
    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::{ConnectOptions, Connection};
    use std::time::Duration;

    async fn held(store: &SqliteLeaseStore) -> LeaseToken {
        let worker = store
            .register(APP, "w", &WorkerProfile::default())
            .await
            .unwrap();
        store
            .create_leases(APP, &[new_lease("a", &[])])
            .await
            .unwrap();
        token(&store.take(APP, &worker, &[claim("a", 0)]).await.unwrap()[0])
    }

    async fn application(path: &Path) -> SqliteConnection {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true);
        options.connect().await.unwrap()
    }

    fn step(token: &LeaseToken, base: u64, position: u64) -> CheckpointStep<'_> {
        let or_start = |number| match number {
            0 => crate::Position::TrimHorizon,
            number => at(number),
        };
        CheckpointStep {
            application: APP,
            token,
            base: or_start(base),
            position: at(position),
            patience: Duration::from_secs(9),
        }
    }

    async fn offer(
        connection: &mut SqliteConnection,
        step: CheckpointStep<'_>,
        commit: bool,
    ) -> Result<(), Error> {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
        Sqlite::store_checkpoint(&mut transaction, step).await?;
        if commit {
            transaction.commit().await.unwrap();
        }
        Ok(())
    }

    /// Goal: the checkpoint is stored with the application's transaction, or not at all; from a known place, by the holder only.
    #[tokio::test]
    async fn k1_a_transaction_checkpoints_for_the_holder_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("leases.db");
        let store = SqliteLeaseStore::open(&path).await.unwrap();
        let mine = held(&store).await;
        let mut connection = application(&path).await;
        let stored = async || store.snapshot(APP).await.unwrap().leases.remove(0);

        let pending = PendingCheckpoint {
            position: at(5),
            state: vec![1],
        };
        store.prepare(APP, &mine, &pending).await.unwrap();
        offer(&mut connection, step(&mine, 0, 4), false)
            .await
            .unwrap();
        assert_eq!(
            stored().await.checkpoint,
            crate::Position::TrimHorizon,
            "rolled back"
        );
        offer(&mut connection, step(&mine, 0, 4), true)
            .await
            .unwrap();
        assert_eq!(
            (stored().await.checkpoint, stored().await.pending),
            (at(4), Some(pending))
        );
        offer(&mut connection, step(&mine, 4, 6), true)
            .await
            .unwrap();
        assert_eq!(
            (stored().await.checkpoint, stored().await.pending),
            (at(6), None)
        );

        let stale = LeaseToken {
            counter: mine.counter - 1,
            ..mine.clone()
        };
        let elsewhere = LeaseToken {
            key: crate::lease::contract::key("b"),
            ..mine.clone()
        };
        for (step, kind) in [
            (step(&mine, 4, 8), ErrorKind::InvalidPosition),
            (step(&mine, 9, 8), ErrorKind::InvalidPosition),
            (step(&mine, 6, 5), ErrorKind::InvalidPosition),
            (step(&stale, 6, 8), ErrorKind::LeaseLost),
            (step(&elsewhere, 6, 8), ErrorKind::Store),
        ] {
            let refused = offer(&mut connection, step, true).await.unwrap_err();
            assert_eq!(refused.kind(), kind, "{refused}");
            assert_eq!(stored().await.checkpoint, at(6), "K11");
        }
        let mut other = application(&directory.path().join("other.db")).await;
        let refused = offer(&mut other, step(&mine, 6, 8), true)
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Store, "{refused}");
    }
}
