//! A lease database that cannot be used: said clearly at the start, waited for while running.

use crate::scene::{FAILOVER, Scene};
use crate::{SERVER, WORKER};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, SqliteConnection};
use std::fs;
use std::path::Path;
use std::time::Duration;
use support::history::{EventKind, deliveries, outstanding_at_losses};
use support::process::Ended;
use support::worker::Fleet;
use support::{ServerProcess, check};

const STREAM: &str = "orders";
/// How long a worker may try before it gives up.
const GIVES_UP: Duration = Duration::from_secs(30);

async fn fleet() -> (ServerProcess, Fleet) {
    let server = ServerProcess::start(SERVER).await;
    server.client().create_stream(STREAM, 1).await;
    let fleet = Fleet::new(WORKER, &server.url(), STREAM, FAILOVER);
    (server, fleet)
}

async fn raw(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true);
    options.connect().await.unwrap()
}

/// A database that a worker made and left.
async fn used(fleet: &mut Fleet) {
    let mut worker = fleet.start().await;
    assert_eq!(worker.terminate().await.code, Some(0), "{}", worker.log());
}

/// Brings everything from the write-ahead log into the file itself.
async fn folded(mut database: SqliteConnection) {
    database
        .execute("PRAGMA wal_checkpoint(TRUNCATE)")
        .await
        .unwrap();
    database.close().await.unwrap();
}

fn assert_refused(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    for word in words {
        assert!(
            ended.stderr.contains(word),
            "{word:?} is not in: {}",
            ended.stderr
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_lease_database_is_named() {
    let (_server, mut fleet) = fleet().await;
    used(&mut fleet).await;
    let mut holder = raw(&fleet.leases()).await;
    holder.execute("BEGIN EXCLUSIVE").await.unwrap();
    assert_refused(
        &fleet.start_refused(GIVES_UP).await,
        &["Unavailable", "lease store"],
    );
    holder.execute("ROLLBACK").await.unwrap();
    used(&mut fleet).await;
}

/// `SQLite` writes to no file whose header asks for a later version of its own write format. (Permissions would
/// not do: the tests may run as root.)
#[tokio::test(flavor = "multi_thread")]
async fn read_only_lease_database_is_named() {
    let (_server, mut fleet) = fleet().await;
    used(&mut fleet).await;
    folded(raw(&fleet.leases()).await).await;
    let mut bytes = fs::read(fleet.leases()).unwrap();
    assert_eq!(&bytes[..15], b"SQLite format 3");
    bytes[18] = 3;
    fs::write(fleet.leases(), &bytes).unwrap();
    assert_refused(
        &fleet.start_refused(GIVES_UP).await,
        &["Store", "leases.db"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_lease_schema_is_refused_and_not_touched() {
    let (_server, mut fleet) = fleet().await;
    used(&mut fleet).await;
    let mut newer = raw(&fleet.leases()).await;
    newer.execute("PRAGMA user_version = 999").await.unwrap();
    folded(newer).await;
    let before = fs::read(fleet.leases()).unwrap();
    assert_refused(
        &fleet.start_refused(GIVES_UP).await,
        &["Store", "999", "leases.db"],
    );
    assert!(
        fs::read(fleet.leases()).unwrap() == before,
        "the file was changed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn file_that_is_no_database_is_refused_and_not_touched() {
    let (_server, mut fleet) = fleet().await;
    let text = "not a database ".repeat(1000);
    fs::write(fleet.leases(), &text).unwrap();
    assert_refused(
        &fleet.start_refused(GIVES_UP).await,
        &["Store", "leases.db"],
    );
    assert_eq!(fs::read_to_string(fleet.leases()).unwrap(), text);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_stream_is_named() {
    let server = ServerProcess::start(SERVER).await;
    let mut fleet = Fleet::new(WORKER, &server.url(), "nobody", FAILOVER);
    let ended = fleet.start_refused(GIVES_UP).await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("NotFound") && ended.stderr.contains("nobody"),
        "{}",
        ended.stderr
    );
}

/// Somebody holds the database locked for longer than the fail-over time while two workers run: nobody may
/// believe in a lease any more, so delivery pauses; then it goes on, with nothing lost, by the same processes.
#[tokio::test(flavor = "multi_thread")]
async fn k2_lease_database_locked_while_running_is_waited_for() {
    let _alone = support::alone().await;
    let mut scene = Scene::start(Duration::from_millis(5)).await;
    let (mut one, mut other) = scene.two_workers().await;
    let mut holder = raw(&scene.fleet.leases()).await;
    holder.execute("PRAGMA busy_timeout = 5000").await.unwrap();
    holder.execute("BEGIN IMMEDIATE").await.unwrap();
    tokio::time::sleep(FAILOVER + Duration::from_millis(500)).await;
    let paused_from = support::clock::now_us();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let paused_until = support::clock::now_us();
    holder.execute("ROLLBACK").await.unwrap();
    holder.close().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(one.is_running(), "{}", one.log());
    assert!(other.is_running(), "{}", other.log());
    let (expected, _, events) = scene.finish(&[&one, &other]).await;
    let late = events.iter().find(|event| {
        let records = matches!(event.kind, EventKind::Delivered { .. });
        records && (paused_from..paused_until).contains(&event.at_us)
    });
    assert_eq!(
        late, None,
        "K2: nothing is delivered on a lease that could not be renewed"
    );
    let counts = deliveries(&events);
    check::all_delivered(&expected, &counts).unwrap();
    check::one_owner(&events).unwrap();
    let again = counts.values().filter(|count| **count > 1).count();
    println!(
        "{again} records came again, {} leases lost",
        outstanding_at_losses(&events).len()
    );
}
