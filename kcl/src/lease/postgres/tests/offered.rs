//! Checkpoints in transactions of the application.

use super::*;
use crate::lease::{CheckpointStep, LeaseDatabase, PendingCheckpoint};
use sqlx::{Connection, Postgres};

fn step(token: &LeaseToken, base: u64, position: u64) -> CheckpointStep<'_> {
    let or_start = |number| match number {
        0 => Position::TrimHorizon,
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

enum End {
    Commit,
    Rollback,
}

/// A transaction that adds to a sum of the application's own and checkpoints.
async fn add(url: &str, step: CheckpointStep<'_>, end: End) -> Result<(), Error> {
    let mut connection = outsider(url).await;
    let mut transaction = connection.begin().await.unwrap();
    sqlx::query("UPDATE sums SET sum = sum + 1")
        .execute(&mut *transaction)
        .await
        .unwrap();
    Postgres::store_checkpoint(&mut transaction, step).await?;
    match end {
        End::Commit => transaction.commit().await.unwrap(),
        End::Rollback => transaction.rollback().await.unwrap(),
    }
    Ok(())
}

async fn with_sums() -> (String, PostgresLeaseStore, LeaseToken) {
    let url = place().await;
    let store = open(&url).await;
    let (_, mut held) = holder(&store, "w", &["a"]).await;
    let sums = "CREATE TABLE sums (sum bigint NOT NULL); INSERT INTO sums VALUES (0)";
    run(&mut outsider(&url).await, sums).await;
    (url, store, held.remove(0))
}

/// Goal: the checkpoint is stored with the application's transaction, or not at all; from a known place, by the holder only.
#[tokio::test]
async fn k1_a_transaction_checkpoints_for_the_holder_only() {
    let (url, store, mine) = with_sums().await;
    let mut raw = outsider(&url).await;
    let pending = PendingCheckpoint {
        position: at(5),
        state: vec![1],
    };
    store.prepare(APP, &mine, &pending).await.unwrap();
    add(&url, step(&mine, 0, 4), End::Rollback).await.unwrap();
    let stored = lease(&store, "a").await;
    assert_eq!(stored.checkpoint, Position::TrimHorizon, "rolled back");
    assert_eq!(text(&mut raw, "SELECT sum::text FROM sums").await, "0");
    add(&url, step(&mine, 0, 4), End::Commit).await.unwrap();
    let stored = lease(&store, "a").await;
    assert_eq!((stored.checkpoint, stored.pending), (at(4), Some(pending)));
    add(&url, step(&mine, 4, 6), End::Commit).await.unwrap();
    let stored = lease(&store, "a").await;
    assert_eq!((stored.checkpoint, stored.pending), (at(6), None));

    let stale = LeaseToken {
        counter: mine.counter - 1,
        ..mine.clone()
    };
    let elsewhere = LeaseToken {
        key: key("b"),
        ..mine.clone()
    };
    for (step, kind) in [
        (step(&mine, 4, 8), ErrorKind::InvalidPosition),
        (step(&mine, 9, 8), ErrorKind::InvalidPosition),
        (step(&mine, 6, 5), ErrorKind::InvalidPosition),
        (step(&stale, 6, 8), ErrorKind::LeaseLost),
        (step(&elsewhere, 6, 8), ErrorKind::Store),
    ] {
        let refused = add(&url, step, End::Commit).await.unwrap_err();
        assert_eq!(refused.kind(), kind, "{refused}");
        assert_eq!(lease(&store, "a").await.checkpoint, at(6), "K11");
    }
    assert_eq!(text(&mut raw, "SELECT sum::text FROM sums").await, "2");
}

#[tokio::test]
async fn a_transaction_of_another_database_is_refused() {
    let (_, _, mine) = with_sums().await;
    let strange = place().await;
    let mut connection = outsider(&strange).await;
    let mut transaction = connection.begin().await.unwrap();
    let refused = Postgres::store_checkpoint(&mut transaction, step(&mine, 0, 1)).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Store, "{refused}");
    assert!(
        refused.to_string().contains("transaction's database"),
        "{refused}"
    );
    let (url, _, _) = with_sums().await;
    run(
        &mut outsider(&url).await,
        "UPDATE millstream.schema_version SET version = 3",
    )
    .await;
    let refused = add(&url, step(&mine, 0, 1), End::Commit).await.unwrap_err();
    assert!(
        refused.to_string().contains("found schema version 3"),
        "{refused}"
    );
}

/// Goal: nobody takes a lease while a transaction checkpoints it, and whoever takes it afterwards starts where that ended; then the
/// former owner's next transaction is refused.
#[tokio::test]
async fn k1_fenced_a_lease_changes_hands_between_transactions_only() {
    let (url, store, mine) = with_sums().await;
    let heir = join(&store, "heir").await;
    let claims = [as_expired(&store, &lease(&store, "a").await).await];
    let mut connection = outsider(&url).await;
    let mut transaction = connection.begin().await.unwrap();
    Postgres::store_checkpoint(&mut transaction, step(&mine, 0, 3))
        .await
        .unwrap();
    assert_eq!(store.take(APP, &heir, &claims).await.unwrap(), []);
    transaction.commit().await.unwrap();
    let taken = store.take(APP, &heir, &claims).await.unwrap();
    assert_eq!(taken[0].checkpoint, at(3));
    let refused = add(&url, step(&mine, 3, 4), End::Commit).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LeaseLost, "{refused}");
}

/// Goal: of two transactions from one place, as after a commit whose answer was lost, one is applied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_waits_for_the_one_before_and_is_not_applied_twice() {
    let (url, store, mine) = with_sums().await;
    let mut connection = outsider(&url).await;
    let mut first = connection.begin().await.unwrap();
    Postgres::store_checkpoint(&mut first, step(&mine, 0, 3))
        .await
        .unwrap();
    let second = {
        let (url, mine) = (url.clone(), mine.clone());
        tokio::spawn(async move { add(&url, step(&mine, 0, 3), End::Commit).await })
    };
    super::collisions::waiting(&mut outsider(&url).await).await;
    first.commit().await.unwrap();
    let refused = second.await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidPosition, "{refused}");
    assert_eq!(lease(&store, "a").await.checkpoint, at(3));
}

/// Goal: a transaction that stands still for longer than leases live is ended, and its shard is free (K10).
#[tokio::test]
async fn k10_a_transaction_that_stands_still_is_ended() {
    let (url, store, mine) = with_sums().await;
    let heir = join(&store, "heir").await;
    let claims = [as_expired(&store, &lease(&store, "a").await).await];
    let mut connection = outsider(&url).await;
    let mut transaction = connection.begin().await.unwrap();
    let short = CheckpointStep {
        patience: Duration::from_millis(200),
        ..step(&mine, 0, 3)
    };
    Postgres::store_checkpoint(&mut transaction, short)
        .await
        .unwrap();
    let taken = async {
        loop {
            let taken = store.take(APP, &heir, &claims).await.unwrap();
            if let Some(taken) = taken.into_iter().next() {
                break taken;
            }
        }
    };
    let taken = tokio::time::timeout(Duration::from_secs(10), taken).await;
    assert_eq!(taken.unwrap().checkpoint, Position::TrimHorizon);
    transaction.commit().await.unwrap_err();
}

/// Goal: the limit is for this transaction only, and a stricter one of the application's own stays.
#[tokio::test]
async fn a_transactions_limit_is_the_stricter_one() {
    let (url, _, mine) = with_sums().await;
    let mut connection = outsider(&url).await;
    for (own, expected) in [
        ("0", "9s"),
        ("'100ms'", "100ms"),
        ("'8s'", "8s"),
        ("'2min'", "9s"),
        ("'1d'", "9s"),
    ] {
        let show = "SHOW idle_in_transaction_session_timeout";
        let set = format!("SET idle_in_transaction_session_timeout = {own}");
        run(&mut connection, &set).await;
        let before = text(&mut connection, show).await;
        let mut transaction = connection.begin().await.unwrap();
        let offered = Postgres::store_checkpoint(&mut transaction, step(&mine, 0, 3)).await;
        offered.unwrap();
        assert_eq!(text(&mut transaction, show).await, expected, "of {own}");
        transaction.rollback().await.unwrap();
        assert_eq!(text(&mut connection, show).await, before);
    }
}
