//! The SQLite store alone: files it must refuse, rows it must survive, and writes that fail half-way.

use super::*;
use crate::checkpoint::Position;
use crate::lease::contract::{APP, STREAM, at, claim, key, new_lease, token};
use crate::lease::sql::Rows;
use crate::lease::{
    Claim, LeaseKey, LeaseStore, Loads, NewLease, Registration, Release, WorkerProfile, rules,
};
use sqlx::AssertSqlSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

const SHORT: Duration = Duration::from_millis(60);

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.db");
    (directory, path)
}

/// A connection of another program.
async fn outsider(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .connect()
        .await
        .unwrap()
}

async fn run(connection: &mut SqliteConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .unwrap();
}

async fn refused(path: &Path, kind: ErrorKind, words: &[&str]) {
    let error = SqliteLeaseStore::open_with_busy_timeout(path, SHORT)
        .await
        .unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for word in words.iter().chain(&[path.display().to_string().as_str()]) {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

#[tokio::test]
async fn opens_again_what_it_wrote() {
    let (_directory, path) = place();
    let store = SqliteLeaseStore::open(&path).await.unwrap();
    let worker = store
        .register(APP, "w", &WorkerProfile::default())
        .await
        .unwrap();
    store
        .create_leases(APP, &[new_lease("a", &["b", "c"])])
        .await
        .unwrap();
    let taken = store.take(APP, &worker, &[claim("a", 0)]).await.unwrap();
    store
        .checkpoint(APP, &token(&taken[0]), &at(5))
        .await
        .unwrap();
    let before = store.snapshot(APP).await.unwrap();
    drop(store);
    let again = SqliteLeaseStore::open(&path).await.unwrap();
    assert_eq!(again.snapshot(APP).await.unwrap(), before);
    again
        .checkpoint(APP, &token(&taken[0]), &at(6))
        .await
        .unwrap();
    let mut raw = outsider(&path).await;
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(&mut raw)
        .await
        .unwrap();
    let version: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut raw)
        .await
        .unwrap();
    assert_eq!((mode.as_str(), version), ("wal", schema::VERSION));
    let mut writer = again.database.writer().await.unwrap();
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous")
        .fetch_one(&mut *writer)
        .await
        .unwrap();
    assert_eq!(synchronous, 2, "FULL");
}

#[tokio::test]
async fn a_name_sqlite_would_read_otherwise_is_a_file() {
    let error = SqliteLeaseStore::open("").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    let (directory, _) = place();
    let path = directory.path().join("file:leases?mode=memory");
    SqliteLeaseStore::open(&path).await.unwrap();
    assert!(path.is_file());
}

#[tokio::test]
async fn k14_a_schema_of_another_version_is_refused_and_not_touched() {
    for version in ["4", "99", "-1"] {
        let (_directory, path) = place();
        let mut raw = outsider(&path).await;
        run(
            &mut raw,
            &format!("CREATE TABLE leases (x); PRAGMA user_version = {version}"),
        )
        .await;
        raw.close().await.unwrap();
        let before = std::fs::read(&path).unwrap();
        let words = [
            &format!("found schema version {version}"),
            "expected 3",
            "nothing was touched",
        ];
        refused(&path, ErrorKind::Store, &words).await;
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}

/// Goal: a file of the first version opens with all it holds, and workers of that version are told. Method: its tables as they were.
#[tokio::test]
async fn k14_a_file_of_the_first_version_is_migrated() {
    let (_directory, path) = place();
    let mut raw = outsider(&path).await;
    run(&mut raw, schema::MIGRATIONS[0]).await;
    let stream = STREAM;
    run(
        &mut raw,
        &format!(
            "INSERT INTO leases VALUES ('app', '{stream}', 'a', 'w', 4, '77', NULL, 2, '[]', NULL, NULL);
             INSERT INTO workers VALUES ('app', 'w', 5, 6)"
        ),
    )
    .await;
    let store = SqliteLeaseStore::open(&path).await.unwrap();
    let snapshot = store.snapshot(APP).await.unwrap();
    let lease = &snapshot.leases[0];
    assert_eq!(
        (lease.owner.as_deref(), lease.counter, lease.checkpoint),
        (Some("w"), 4, at(77))
    );
    assert_eq!((lease.pending.clone(), snapshot.damaged), (None, vec![]));
    assert_eq!(snapshot.workers[0].heartbeat, 6);
    assert_eq!(snapshot.workers[0].profile, WorkerProfile::default());
    let me = Registration {
        worker_id: "w".to_owned(),
        incarnation: 5,
    };
    store.heartbeat(APP, &me, &Loads::new(), &[]).await.unwrap();
}

/// Goal: a file of the second version, as a fleet of it left it, opens with all it holds; those who only look do not migrate it.
/// Method: a file written by that version: five leases each of two applications, one with a worker that was killed.
#[tokio::test]
async fn k14_a_file_of_the_second_version_is_migrated_but_not_by_those_who_only_look() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/leases-2.db");
    let (_directory, path) = place();
    std::fs::copy(fixture, &path).unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = SqliteLeaseStore::open_existing(&path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    assert!(
        error.to_string().contains("found schema version 2"),
        "{error}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);

    let store = SqliteLeaseStore::open(&path).await.unwrap();
    assert_eq!(store.applications().await.unwrap(), ["app", "other"]);
    let inspection = store.inspect(APP).await.unwrap();
    let snapshot = &inspection.snapshot;
    assert_eq!((snapshot.leases.len(), snapshot.damaged.len()), (5, 0));
    assert_eq!(snapshot.leases[0].checkpoint, Position::ShardEnd);
    assert_eq!(snapshot.leases[3].parents, ["shardId-000000000000"]);
    let row = &snapshot.workers[0];
    assert_eq!(row.profile.failover, Some(Duration::from_secs(3)));
    assert!(inspection.owned_since_ms.is_empty() && inspection.troubles.is_empty());
    assert_eq!(store.resets(APP).await.unwrap(), []);
    // And it works on.
    let me = store
        .register(APP, &row.worker_id, &WorkerProfile::default())
        .await
        .unwrap();
    let claim = Claim {
        key: snapshot.leases[1].key.clone(),
        counter: snapshot.leases[1].counter + 1,
        expired: None,
    };
    let taken = store.take(APP, &me, &[claim]).await.unwrap();
    let inspection = store.inspect(APP).await.unwrap();
    assert!(inspection.owned_since_ms.contains_key(&taken[0].key));
    SqliteLeaseStore::open_existing(&path).await.unwrap();
}

/// Goal: whoever only looks creates nothing, neither a file nor tables.
#[tokio::test]
async fn a_store_that_is_not_there_is_not_made_by_those_who_only_look() {
    let (_directory, path) = place();
    let error = SqliteLeaseStore::open_existing(&path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("no such file"), "{error}");
    assert!(!path.exists());
    run(&mut outsider(&path).await, "CREATE TABLE mine (x)").await;
    let before = std::fs::read(&path).unwrap();
    let error = SqliteLeaseStore::open_existing(&path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn k14_tables_of_another_program_are_not_touched() {
    let cases = [
        ("CREATE TABLE leases (tenant TEXT)", "found 1"),
        ("CREATE TABLE mine (x); PRAGMA user_version = 1", "found 0"),
        (
            "CREATE TABLE leases (x); CREATE TABLE workers (x); CREATE TABLE resets (x); PRAGMA user_version = 2",
            "found 3",
        ),
    ];
    for (sql, found) in cases {
        let (_directory, path) = place();
        let mut raw = outsider(&path).await;
        run(&mut raw, sql).await;
        raw.close().await.unwrap();
        let before = std::fs::read(&path).unwrap();
        refused(&path, ErrorKind::Store, &[found, "nothing was touched"]).await;
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
    // Tables with other names are good neighbours.
    let (_directory, path) = place();
    run(
        &mut outsider(&path).await,
        "CREATE TABLE mine (x); INSERT INTO mine VALUES (1)",
    )
    .await;
    SqliteLeaseStore::open(&path).await.unwrap();
    let mut raw = outsider(&path).await;
    let kept: i64 = sqlx::query_scalar("SELECT x FROM mine")
        .fetch_one(&mut raw)
        .await
        .unwrap();
    assert_eq!(kept, 1);
}

#[tokio::test]
async fn k14_an_open_store_notices_that_a_newer_version_has_migrated() {
    let (_directory, path) = place();
    let store = SqliteLeaseStore::open(&path).await.unwrap();
    let worker = store
        .register(APP, "w", &WorkerProfile::default())
        .await
        .unwrap();
    run(&mut outsider(&path).await, "PRAGMA user_version = 4").await;
    for error in [
        store
            .heartbeat(APP, &worker, &Loads::new(), &[])
            .await
            .unwrap_err(),
        store.snapshot(APP).await.map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Store);
        assert!(
            error.to_string().contains("found schema version 4"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn k14_unknown_columns_tables_and_rows_are_tolerated() {
    let (_directory, path) = place();
    let store = SqliteLeaseStore::open(&path).await.unwrap();
    run(
        &mut outsider(&path).await,
        "ALTER TABLE leases ADD COLUMN mood TEXT DEFAULT 'good';
         ALTER TABLE workers ADD COLUMN host TEXT;
         CREATE TABLE extra (x);",
    )
    .await;
    let again = SqliteLeaseStore::open(&path).await.unwrap();
    for store in [&store, &again] {
        let worker = store
            .register(APP, "w", &WorkerProfile::default())
            .await
            .unwrap();
        store
            .create_leases(APP, &[new_lease("a", &[])])
            .await
            .unwrap();
        let lease = store.snapshot(APP).await.unwrap().leases.remove(0);
        let won = store
            .take(APP, &worker, &[claim("a", lease.counter)])
            .await
            .unwrap();
        store
            .checkpoint(APP, &token(&won[0]), &at(won[0].counter))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_file_that_is_not_a_database_is_refused_and_not_touched() {
    let (directory, path) = place();
    let text = "not a database. ".repeat(100);
    std::fs::write(&path, &text).unwrap();
    refused(
        &path,
        ErrorKind::Store,
        &["not an SQLite database", "another path"],
    )
    .await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);

    refused(directory.path(), ErrorKind::Store, &["cannot be opened"]).await;
    let nowhere = directory.path().join("absent/leases.db");
    refused(
        &nowhere,
        ErrorKind::Store,
        &["check that the directory exists"],
    )
    .await;
}

#[tokio::test]
async fn a_damaged_database_is_refused() {
    let (_directory, path) = place();
    let store = SqliteLeaseStore::open(&path).await.unwrap();
    let many: Vec<NewLease> = (0..300)
        .map(|index| new_lease(&format!("s{index}"), &[]))
        .collect();
    store.create_leases(APP, &many).await.unwrap();
    let mut writer = store.database.writer().await.unwrap();
    sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(&mut *writer)
        .await
        .unwrap();
    drop(writer);
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096..].fill(0xa5);
    std::fs::write(&path, &bytes).unwrap();
    let error = match SqliteLeaseStore::open(&path).await {
        Ok(store) => store.snapshot(APP).await.map(drop).unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Store, "{error}");
    assert!(error.to_string().contains("damaged"), "{error}");
}

/// Permissions do not hold for root, so the connection itself is read-only here.
#[tokio::test]
async fn a_file_that_cannot_be_written_says_so() {
    let (_directory, path) = place();
    SqliteLeaseStore::open(&path).await.unwrap();
    let read_only = SqliteConnectOptions::new().filename(&path).read_only(true);
    let mut connection = schema::prepare(&read_only, &path, SHORT).await.unwrap();
    let error = Transaction::write(&mut connection, &path, APP)
        .await
        .map(drop);
    let error = match error {
        Ok(()) => {
            let mut transaction = Transaction::write(&mut connection, &path, APP)
                .await
                .unwrap();
            transaction
                .create(&[rules::create(&new_lease("a", &[]))])
                .await
                .unwrap_err()
        }
        Err(error) => error,
    };
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Store, "{text}");
    assert!(
        text.contains("write access") && text.contains("leases.db"),
        "{text}"
    );
}

#[tokio::test]
async fn a_file_that_stays_locked_is_unavailable_and_works_afterwards() {
    let (_directory, path) = place();
    let mut raw = outsider(&path).await;
    run(&mut raw, "CREATE TABLE mine (x); BEGIN EXCLUSIVE").await;
    refused(
        &path,
        ErrorKind::Unavailable,
        &["another process", "try again"],
    )
    .await;
    run(&mut raw, "COMMIT").await;

    let store = SqliteLeaseStore::open_with_busy_timeout(&path, SHORT)
        .await
        .unwrap();
    let worker = store
        .register(APP, "w", &WorkerProfile::default())
        .await
        .unwrap();
    run(&mut raw, "BEGIN IMMEDIATE").await;
    let error = store
        .heartbeat(APP, &worker, &Loads::new(), &[])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.is_retryable());
    assert_eq!(
        store.snapshot(APP).await.unwrap().workers.len(),
        1,
        "readers do not wait"
    );
    run(&mut raw, "COMMIT").await;
    store
        .heartbeat(APP, &worker, &Loads::new(), &[])
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_processes_may_create_the_file_at_once() {
    let (_directory, path) = place();
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..12 {
        let path = path.clone();
        tasks.spawn(async move {
            let store = SqliteLeaseStore::open(&path).await?;
            store
                .register(APP, &format!("w{index}"), &WorkerProfile::default())
                .await
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap().unwrap();
    }
    let store = SqliteLeaseStore::open(&path).await.unwrap();
    assert_eq!(store.snapshot(APP).await.unwrap().workers.len(), 12);
}

/// Damages one column of lease `bad` at a time; the others work, and `bad` goes to nobody and ends nothing.
#[tokio::test]
async fn k10_a_corrupt_row_stalls_no_other() {
    let damages = [
        "checkpoint = 'LATEST'",
        "checkpoint = ''",
        "lease_counter = -1",
        "lease_counter = 9223372036854775807",
        "owner_switches = -7",
        "parents = 'not json'",
        "parents = '[1]'",
        "hash_range_start = NULL",
        "hash_range_end = '340282366920938463463374607431768211456'",
        "hash_range_start = '5', hash_range_end = '4'",
        "checkpoint = CAST(x'ff' AS TEXT)",
    ];
    for damage in damages {
        let (_directory, path) = place();
        let store = SqliteLeaseStore::open(&path).await.unwrap();
        let worker = store
            .register(APP, "w", &WorkerProfile::default())
            .await
            .unwrap();
        let leases = [
            new_lease("bad", &[]),
            new_lease("child", &["bad"]),
            new_lease("good", &[]),
        ];
        store.create_leases(APP, &leases).await.unwrap();
        let held = store.take(APP, &worker, &[claim("bad", 0)]).await.unwrap();
        let sql = format!("UPDATE leases SET {damage} WHERE lease_key = 'bad'");
        run(&mut outsider(&path).await, &sql).await;

        let snapshot = store.snapshot(APP).await.unwrap();
        let seen: Vec<_> = snapshot
            .leases
            .iter()
            .map(|lease| &*lease.key.shard_id)
            .collect();
        assert_eq!(
            (seen, snapshot.damaged),
            (vec!["child", "good"], vec![key("bad")]),
            "{damage}"
        );
        let claims = [
            claim("bad", 0),
            claim("bad", 1),
            claim("child", 0),
            claim("good", 0),
        ];
        let taken = store.take(APP, &worker, &claims).await.unwrap();
        assert_eq!(taken.len(), 1, "{damage}");
        assert_eq!(taken[0].key, key("good"));
        // Its holder stops; release and cleanup pass it by.
        let lost = store
            .checkpoint(APP, &token(&held[0]), &at(1))
            .await
            .unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::LeaseLost, "{damage}");
        let all = [token(&held[0]), token(&taken[0])];
        let releases = all.map(|token| Release {
            token,
            checkpoint: Some(at(4)),
            to: None,
        });
        assert_eq!(store.release(APP, &releases).await.unwrap(), 1, "{damage}");
        assert_eq!(store.delete_ended(APP, &[key("bad")]).await.unwrap(), 0);
        assert_eq!(
            store.create_leases(APP, &leases).await.unwrap(),
            0,
            "the row is still there"
        );
        store.deregister(APP, &worker).await.unwrap();
    }
}

#[tokio::test]
async fn an_expired_owner_without_a_row_loses_its_lease() {
    let (_directory, path) = place();
    let store = SqliteLeaseStore::open(&path).await.unwrap();
    store
        .create_leases(APP, &[new_lease("a", &[])])
        .await
        .unwrap();
    let gone = store
        .register(APP, "gone", &WorkerProfile::default())
        .await
        .unwrap();
    store.take(APP, &gone, &[claim("a", 0)]).await.unwrap();
    run(&mut outsider(&path).await, "DELETE FROM workers").await;
    let heir = store
        .register(APP, "heir", &WorkerProfile::default())
        .await
        .unwrap();
    let claim = |heartbeat| {
        let expired = crate::lease::ExpiredOwner {
            worker_id: "gone".to_owned(),
            heartbeat,
        };
        [Claim {
            expired: Some(expired),
            ..claim("a", 1)
        }]
    };
    assert_eq!(store.take(APP, &heir, &claim(Some(1))).await.unwrap(), []);
    assert_eq!(
        store.take(APP, &heir, &claim(None)).await.unwrap()[0].counter,
        2
    );
}

/// The last statement of a transaction fails: nothing of it is there, and the store goes on working.
#[tokio::test]
async fn k11_failed_write_leaves_everything_as_it_was_when_sqlite_fails_half_way() {
    let (_directory, path) = place();
    let store = SqliteLeaseStore::open(&path).await.unwrap();
    let worker = store
        .register(APP, "w", &WorkerProfile::default())
        .await
        .unwrap();
    store
        .create_leases(APP, &[new_lease("a", &[]), new_lease("b", &[])])
        .await
        .unwrap();
    let taken = store
        .take(APP, &worker, &[claim("a", 0), claim("b", 0)])
        .await
        .unwrap();
    let mut raw = outsider(&path).await;
    run(
        &mut raw,
        "CREATE TRIGGER no_child BEFORE INSERT ON leases WHEN NEW.lease_key = 'child2'
             BEGIN SELECT RAISE(ABORT, 'disk on fire'); END;
         CREATE TRIGGER no_b BEFORE UPDATE ON leases WHEN NEW.lease_key = 'b'
             BEGIN SELECT RAISE(ABORT, 'disk on fire'); END;",
    )
    .await;
    let before = store.snapshot(APP).await.unwrap();
    let children = [new_lease("child1", &["a"]), new_lease("child2", &["a"])];
    let release = |lease| Release {
        token: token(lease),
        checkpoint: Some(at(1)),
        to: None,
    };
    for error in [
        store
            .end_shard(APP, &token(&taken[0]), &children)
            .await
            .unwrap_err(),
        store
            .release(APP, &[release(&taken[0]), release(&taken[1])])
            .await
            .map(drop)
            .unwrap_err(),
        store.deregister(APP, &worker).await.unwrap_err(),
        store
            .register(APP, "w", &WorkerProfile::default())
            .await
            .map(drop)
            .unwrap_err(),
    ] {
        assert!(error.to_string().contains("disk on fire"), "{error}");
        assert_eq!(store.snapshot(APP).await.unwrap(), before);
    }
    run(&mut raw, "DROP TRIGGER no_child; DROP TRIGGER no_b").await;
    store
        .heartbeat(APP, &worker, &Loads::new(), &[])
        .await
        .unwrap();
    store
        .end_shard(APP, &token(&taken[0]), &children)
        .await
        .unwrap();
    assert_eq!(store.snapshot(APP).await.unwrap().leases.len(), 4);
}

/// A caller that gives up at any point leaves either the whole write or nothing, and no lock behind.
#[tokio::test]
async fn k11_a_cancelled_write_happens_wholly_or_not_at_all() {
    let (_directory, path) = place();
    let store = SqliteLeaseStore::open(&path).await.unwrap();
    let worker = store
        .register(APP, "w", &WorkerProfile::default())
        .await
        .unwrap();
    for index in 0..60u64 {
        let shard = format!("s{index:02}");
        let parent = new_lease(&shard, &[]);
        store
            .create_leases(APP, std::slice::from_ref(&parent))
            .await
            .unwrap();
        let taken = store.take(APP, &worker, &[claim(&shard, 0)]).await.unwrap();
        let child = new_lease(&format!("{shard}-child"), &[&shard]);
        let patience = Duration::from_micros(index * 20);
        let end = [child.clone()];
        let mine = token(&taken[0]);
        let write = store.end_shard(APP, &mine, &end);
        let finished = tokio::time::timeout(patience, write).await;

        let other = SqliteLeaseStore::open(&path).await.unwrap();
        // The rollback is queued before the next write of the same store.
        store
            .heartbeat(APP, &worker, &Loads::new(), &[])
            .await
            .unwrap();
        let leases = other.snapshot(APP).await.unwrap().leases;
        let find = |key: &LeaseKey| leases.iter().find(|lease| lease.key == *key);
        let ended = find(&parent.key).unwrap().checkpoint == Position::ShardEnd;
        assert_eq!(
            ended,
            find(&child.key).is_some(),
            "half a transaction after {patience:?}"
        );
        assert!(ended || finished.is_err());
        assert!(leases.iter().all(|lease| lease.key.stream == STREAM));
        store.end_shard(APP, &mine, &end).await.unwrap();
    }
}

/// Goal: heartbeats come through while all processes checkpoint as fast as they can. Method: three connections of their own,
/// as three processes have them, with eight shards each; what counts is how many checkpoints go before a heartbeat, since what one takes is up to
/// the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_are_not_starved_by_the_checkpoints_of_other_processes() {
    let (_directory, path) = place();
    let mut tasks = tokio::task::JoinSet::new();
    let done = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let until = crate::clock::now() + Duration::from_secs(2);
    for process in 0..3 {
        let store = SqliteLeaseStore::open(&path).await.unwrap();
        let worker = store
            .register(APP, &format!("w{process}"), &WorkerProfile::default())
            .await
            .unwrap();
        for shard in 0..8 {
            let name = format!("{process}-{shard}");
            store
                .create_leases(APP, &[new_lease(&name, &[])])
                .await
                .unwrap();
            let taken = store.take(APP, &worker, &[claim(&name, 0)]).await.unwrap();
            let (store, token, done) = (store.clone(), token(&taken[0]), Arc::clone(&done));
            tasks.spawn(async move {
                for number in 1.. {
                    if crate::clock::now() > until {
                        break;
                    }
                    store.checkpoint(APP, &token, &at(number)).await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let (done, most) = (Arc::clone(&done), Arc::clone(&most));
        tasks.spawn(async move {
            while crate::clock::now() < until {
                let before = done.load(Ordering::Relaxed);
                store
                    .heartbeat(APP, &worker, &Loads::new(), &[])
                    .await
                    .unwrap();
                let passed = done.load(Ordering::Relaxed) - before;
                most.fetch_max(passed, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let (done, most) = (done.load(Ordering::Relaxed), most.load(Ordering::Relaxed));
    // Each turn is drawn anew among three: a dozen or two are usual.
    assert!(
        most < 80,
        "{most} of {done} checkpoints went before a heartbeat"
    );
}

/// Goal: a transaction that SQLite has rolled back by itself (the disk was full) ends nothing but itself. Method: the rollback is
/// made behind the driver's back.
#[tokio::test]
async fn k10_a_connection_stuck_in_a_transaction_is_replaced() {
    let (_directory, path) = place();
    let store = SqliteLeaseStore::open(&path).await.unwrap();
    let worker = store
        .register(APP, "w", &WorkerProfile::default())
        .await
        .unwrap();
    store
        .heartbeat(APP, &worker, &Loads::new(), &[])
        .await
        .unwrap();
    store.snapshot(APP).await.unwrap();
    let database = &store.database;
    for place in [&database.writer, &database.pulse, &database.reader] {
        let mut guard = place.lock().await;
        let connection = guard.as_mut().unwrap();
        let mut transaction = connection.begin().await.unwrap();
        run(&mut transaction, "ROLLBACK").await;
    }
    store
        .heartbeat(APP, &worker, &Loads::new(), &[])
        .await
        .unwrap();
    store
        .create_leases(APP, &[new_lease("a", &[])])
        .await
        .unwrap();
    assert_eq!(store.snapshot(APP).await.unwrap().leases.len(), 1);
}
