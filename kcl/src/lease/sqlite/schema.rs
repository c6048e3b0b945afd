//! The tables, their versions, and how a file is opened: look first, touch only what is ours.
//!
//! The schema version is `PRAGMA user_version`. Migrations go forward only and run by themselves (K14).

use super::fault::explain;
use crate::error::{Error, ErrorKind};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use std::path::Path;
use std::time::Duration;

/// `MIGRATIONS[n]` leads from version n to n + 1. Entries are never changed once released.
///
/// The tables are STRICT, so that a column holds what its type says whoever wrote it.
pub(super) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE leases (
        application TEXT NOT NULL,
        stream TEXT NOT NULL,
        lease_key TEXT NOT NULL,
        lease_owner TEXT,
        lease_counter INTEGER NOT NULL,
        checkpoint TEXT NOT NULL,
        wanted_by TEXT,
        owner_switches INTEGER NOT NULL,
        parents TEXT NOT NULL,
        hash_range_start TEXT,
        hash_range_end TEXT,
        PRIMARY KEY (application, stream, lease_key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE workers (
        application TEXT NOT NULL,
        worker_id TEXT NOT NULL,
        incarnation INTEGER NOT NULL,
        heartbeat INTEGER NOT NULL,
        PRIMARY KEY (application, worker_id)
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 1;
    ",
    // Prepared checkpoints; what workers say of themselves.
    "
    ALTER TABLE leases ADD COLUMN pending_checkpoint TEXT;
    ALTER TABLE leases ADD COLUMN pending_state BLOB;
    ALTER TABLE workers ADD COLUMN stream TEXT;
    ALTER TABLE workers ADD COLUMN failover_ms INTEGER;
    ALTER TABLE workers ADD COLUMN max_leases INTEGER;
    ALTER TABLE workers ADD COLUMN loads TEXT;
    PRAGMA user_version = 2;
    ",
    // Workers with many streams: a JSON list of them in the place of the one stream. For operators: since when a lease has its owner,
    // what troubles a worker's shards, and which checkpoints were reset.
    "
    ALTER TABLE workers ADD COLUMN streams TEXT;
    UPDATE workers SET streams = json_array(stream) WHERE stream IS NOT NULL;
    ALTER TABLE workers ADD COLUMN troubles TEXT;
    ALTER TABLE leases ADD COLUMN owned_since_ms INTEGER;
    CREATE TABLE resets (
        application TEXT NOT NULL,
        number INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        made_by TEXT NOT NULL,
        asked TEXT NOT NULL,
        changes TEXT NOT NULL,
        PRIMARY KEY (application, number)
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 3;
    ",
];

/// The version this program reads and writes.
pub(super) const VERSION: i64 = 3;
const _: () = assert!(MIGRATIONS.len() == 3, "one migration per version");

/// How often a switch to WAL is tried again while other processes open the same file.
const WAL_RETRY: Duration = Duration::from_millis(10);

/// Opens the file, creates it if it is not there, and brings it to this version.
pub(super) async fn prepare(
    options: &SqliteConnectOptions,
    path: &Path,
    patience: Duration,
) -> Result<SqliteConnection, Error> {
    let sql = |fault| explain(path, fault);
    let mut connection = options.connect().await.map_err(sql)?;
    let version = recognise(&mut connection, path).await?;
    write_ahead(&mut connection, patience).await.map_err(sql)?;
    if version < VERSION {
        migrate(&mut connection, path).await?;
    }
    Ok(connection)
}

/// Looks whether there is a lease store of this version, and touches nothing: whoever only looks must not shut out the workers of
/// an older version.
pub(super) async fn look(options: &SqliteConnectOptions, path: &Path) -> Result<(), Error> {
    if !path.exists() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "lease store {}: there is no such file; give the path that the workers are given",
                path.display()
            ),
        ));
    }
    let mut connection = options
        .connect()
        .await
        .map_err(|fault| explain(path, fault))?;
    let found = recognise(&mut connection, path).await?;
    // It is closed either way.
    let _ = connection.close().await;
    match found {
        VERSION => Ok(()),
        0 => Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "lease store {}: no leases are in this database; give the path that the workers are given",
                path.display()
            ),
        )),
        older => Err(Error::new(
            ErrorKind::Store,
            format!(
                "lease store {}: found schema version {older}, expected {VERSION}; nothing was touched; start a worker of this version, which migrates it, when those of the older version have ended",
                path.display()
            ),
        )),
    }
}

/// Refuses an open connection's database if another version has changed it since.
pub(super) async fn still_ours(
    connection: &mut SqliteConnection,
    path: &Path,
) -> Result<(), Error> {
    match version(connection)
        .await
        .map_err(|fault| explain(path, fault))?
    {
        VERSION => Ok(()),
        found => Err(unknown_version(path, found)),
    }
}

async fn version(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(connection)
        .await
}

/// The version found; reads only, so that a file that is not ours stays as it is.
async fn recognise(connection: &mut SqliteConnection, path: &Path) -> Result<i64, Error> {
    let sql = |fault| explain(path, fault);
    let found = version(connection).await.map_err(sql)?;
    if !(0..=VERSION).contains(&found) {
        return Err(unknown_version(path, found));
    }
    let tables: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('leases', 'workers', 'resets')",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(sql)?;
    let expected = match found {
        0 => 0,
        1..=2 => 2,
        _ => 3,
    };
    // Another process may have migrated between the two reads; then the version has changed too.
    if tables != expected && version(connection).await.map_err(sql)? == found {
        return Err(Error::new(
            ErrorKind::Store,
            format!(
                "lease store {}: schema version {found} should come with {expected} of the tables leases, workers and resets, found {tables}; nothing was touched; use another path or restore the file",
                path.display()
            ),
        ));
    }
    Ok(found)
}

fn unknown_version(path: &Path, found: i64) -> Error {
    Error::new(
        ErrorKind::Store,
        format!(
            "lease store {}: found schema version {found}, expected {VERSION} or older; nothing was touched; use a newer version of this program, or another path",
            path.display()
        ),
    )
}

/// Switches to WAL unless the file is there already. SQLite does not wait for other processes here, so this does.
async fn write_ahead(
    connection: &mut SqliteConnection,
    patience: Duration,
) -> Result<(), sqlx::Error> {
    let mut tries_left = patience.as_millis() / WAL_RETRY.as_millis();
    loop {
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
            .fetch_one(&mut *connection)
            .await?;
        if mode == "wal" {
            return Ok(());
        }
        let switched: Result<String, _> = sqlx::query_scalar("PRAGMA journal_mode = WAL")
            .fetch_one(&mut *connection)
            .await;
        match switched {
            Ok(mode) if mode == "wal" => return Ok(()),
            // A file system without shared memory stays with its rollback journal: slower, but as safe.
            Ok(_) => return Ok(()),
            Err(fault) if tries_left == 0 => return Err(fault),
            Err(_) => tries_left -= 1,
        }
        tokio::time::sleep(WAL_RETRY).await;
    }
}

async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), Error> {
    let sql = |fault| explain(path, fault);
    let mut transaction = connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(sql)?;
    // Another process may have been quicker.
    let found = recognise(&mut transaction, path).await?;
    for migration in MIGRATIONS
        .iter()
        .skip(usize::try_from(found).unwrap_or(usize::MAX))
    {
        sqlx::raw_sql(*migration)
            .execute(&mut *transaction)
            .await
            .map_err(sql)?;
    }
    transaction.commit().await.map_err(sql)
}
