//! The tables, their versions, and how a database is opened: look first, touch only what is ours.
//!
//! The schema version is the one row of `schema_version`. Migrations go forward only and run by themselves (K14).

use super::fault::Place;
use super::pool;
use super::transaction::Begin;
use crate::error::{Error, ErrorKind};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, Postgres};
use std::time::Duration;

/// `MIGRATIONS[n]` leads from version n to n + 1. Entries are never changed once released. One that changes tables begins with
/// `LOCK TABLE` for all of them, so that every transaction of an older version has ended, or sees the new version.
///
/// Texts compare by bytes, as everywhere in this crate. Rows change often: a half-full page has room for the next version of a
/// row, which then needs no change of an index.
pub(super) const MIGRATIONS: &[&str] = &["
    CREATE TABLE millstream.schema_version (
        only_row BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (only_row),
        version BIGINT NOT NULL
    );
    CREATE TABLE millstream.leases (
        application TEXT COLLATE \"C\" NOT NULL,
        stream TEXT COLLATE \"C\" NOT NULL,
        lease_key TEXT COLLATE \"C\" NOT NULL,
        lease_owner TEXT COLLATE \"C\",
        lease_counter BIGINT NOT NULL,
        checkpoint TEXT COLLATE \"C\" NOT NULL,
        wanted_by TEXT COLLATE \"C\",
        owner_switches BIGINT NOT NULL,
        parents TEXT COLLATE \"C\" NOT NULL,
        hash_range_start TEXT COLLATE \"C\",
        hash_range_end TEXT COLLATE \"C\",
        pending_checkpoint TEXT COLLATE \"C\",
        pending_state BYTEA,
        PRIMARY KEY (application, stream, lease_key)
    ) WITH (fillfactor = 50);
    CREATE TABLE millstream.workers (
        application TEXT COLLATE \"C\" NOT NULL,
        worker_id TEXT COLLATE \"C\" NOT NULL,
        incarnation BIGINT NOT NULL,
        heartbeat BIGINT NOT NULL,
        stream TEXT COLLATE \"C\",
        failover_ms BIGINT,
        max_leases BIGINT,
        loads TEXT COLLATE \"C\",
        PRIMARY KEY (application, worker_id)
    ) WITH (fillfactor = 50);
    INSERT INTO millstream.schema_version (version) VALUES (1);
", "
    LOCK TABLE millstream.leases, millstream.workers, millstream.schema_version IN ACCESS EXCLUSIVE MODE;
    ALTER TABLE millstream.workers ADD COLUMN streams TEXT COLLATE \"C\";
    UPDATE millstream.workers SET streams = json_build_array(stream)::text WHERE stream IS NOT NULL;
    ALTER TABLE millstream.workers ADD COLUMN troubles TEXT COLLATE \"C\";
    ALTER TABLE millstream.leases ADD COLUMN owned_since_ms BIGINT;
    CREATE TABLE millstream.resets (
        application TEXT COLLATE \"C\" NOT NULL,
        number BIGINT NOT NULL,
        at_ms BIGINT NOT NULL,
        made_by TEXT COLLATE \"C\" NOT NULL,
        asked TEXT COLLATE \"C\" NOT NULL,
        changes TEXT COLLATE \"C\" NOT NULL,
        PRIMARY KEY (application, number)
    );
    UPDATE millstream.schema_version SET version = 2;
"];

/// The version this program reads and writes.
pub(super) const VERSION: i64 = 2;
const _: () = assert!(MIGRATIONS.len() == 2, "one migration per version");

/// How long migrations may take.
const MIGRATION_LIMIT: Duration = Duration::from_mins(1);
/// Whom processes wait for that open the same database: `millstre` in ASCII.
const OPENING: i64 = 0x6d69_6c6c_7374_7265;

/// Opens the database and brings its tables to this version, creating them if they are not there.
pub(super) async fn prepare(
    options: &PgConnectOptions,
    place: &Place,
    begin: &Begin,
    timeout: Duration,
) -> Result<(), Error> {
    let look = async {
        let mut connection = pool::open(options, place).await?;
        let version = looked_at(&mut connection, place, begin).await?;
        Ok((connection, version))
    };
    let looked = tokio::time::timeout(timeout, look).await;
    let (mut connection, version) = looked.map_err(|_| place.late(timeout))??;
    if version < VERSION {
        let migration = migrate(&mut connection, place, begin);
        let migrated = tokio::time::timeout(MIGRATION_LIMIT, migration).await;
        migrated.map_err(|_| place.late(MIGRATION_LIMIT))??;
    }
    // It is closed either way; a connection that says so spares the server a line in its log.
    let _ = connection.close().await;
    Ok(())
}

/// Looks whether there are tables of this version, and touches nothing: whoever only looks must not shut out the workers of an
/// older version.
pub(super) async fn look(
    options: &PgConnectOptions,
    place: &Place,
    begin: &Begin,
    timeout: Duration,
) -> Result<(), Error> {
    let look = async {
        let mut connection = pool::open(options, place).await?;
        let version = looked_at(&mut connection, place, begin).await?;
        // It is closed either way.
        let _ = connection.close().await;
        Ok(version)
    };
    let looked = tokio::time::timeout(timeout, look).await;
    match looked.map_err(|_| place.late(timeout))?? {
        VERSION => Ok(()),
        0 => Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "{place}: no leases are in this database; give the URL that the workers are given"
            ),
        )),
        older => Err(Error::new(
            ErrorKind::Store,
            format!(
                "{place}: found schema version {older}, expected {VERSION}; nothing was touched; start a worker of this version, which migrates it, when those of the older version have ended"
            ),
        )),
    }
}

/// The version, as of a moment when nobody migrates.
async fn looked_at(
    connection: &mut PgConnection,
    place: &Place,
    begin: &Begin,
) -> Result<i64, Error> {
    let mut transaction = alone(connection, place, begin).await?;
    let version = recognise(&mut transaction, place).await?;
    transaction
        .rollback()
        .await
        .map_err(|fault| place.explain(fault))?;
    Ok(version)
}

/// A transaction beside which nobody opens the database.
async fn alone<'a>(
    connection: &'a mut PgConnection,
    place: &Place,
    begin: &Begin,
) -> Result<sqlx::Transaction<'a, Postgres>, Error> {
    let begin = async {
        let mut transaction = begin.write(connection).await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(OPENING)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction)
    };
    begin.await.map_err(|fault| place.explain(fault))
}

/// The version found; reads only, so that tables that are not ours stay as they are.
async fn recognise(connection: &mut PgConnection, place: &Place) -> Result<i64, Error> {
    let (versions, tables) = tables(connection)
        .await
        .map_err(|fault| place.explain(fault))?;
    let found = if versions {
        let found = version(connection).await;
        found.map_err(|fault| place.explain(fault))?
    } else {
        0
    };
    if !(0..=VERSION).contains(&found) {
        return Err(unknown_version(place, found));
    }
    let expected = match found {
        0 => 0,
        1 => 2,
        _ => 3,
    };
    if tables != expected {
        return Err(Error::new(
            ErrorKind::Store,
            format!(
                "{place}: schema version {found} should come with {expected} of the tables millstream.leases, millstream.workers and millstream.resets, found {tables}; nothing was touched; use another database or restore this one"
            ),
        ));
    }
    Ok(found)
}

/// Whether there is a table of versions, and how many there are of the others.
async fn tables(connection: &mut PgConnection) -> Result<(bool, i64), sqlx::Error> {
    sqlx::query_as(
        "SELECT count(*) FILTER (WHERE relname = 'schema_version') > 0, count(*) FILTER (WHERE relname <> 'schema_version')
         FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
         WHERE nspname = 'millstream' AND relname IN ('schema_version', 'leases', 'workers', 'resets')",
    )
    .fetch_one(connection)
    .await
}

/// The one version; a table without it, or of another shape, is not ours.
pub(super) async fn version(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT version FROM millstream.schema_version")
        .fetch_one(connection)
        .await
}

pub(super) fn unknown_version(place: &Place, found: i64) -> Error {
    Error::new(
        ErrorKind::Store,
        format!(
            "{place}: found schema version {found}, expected {VERSION} or older; nothing was touched; use a newer version of this program, or another database"
        ),
    )
}

async fn migrate(connection: &mut PgConnection, place: &Place, begin: &Begin) -> Result<(), Error> {
    let mut transaction = alone(connection, place, begin).await?;
    // Another process may have been quicker.
    let found = recognise(&mut transaction, place).await?;
    let migrate = async {
        let exists: bool = sqlx::query_scalar(
            "SELECT count(*) > 0 FROM pg_namespace WHERE nspname = 'millstream'",
        )
        .fetch_one(&mut *transaction)
        .await?;
        // Somebody who may not create schemas may not even ask for one that is there.
        if !exists {
            sqlx::raw_sql("CREATE SCHEMA millstream")
                .execute(&mut *transaction)
                .await?;
        }
        sqlx::raw_sql("SET LOCAL statement_timeout = 0")
            .execute(&mut *transaction)
            .await?;
        let done = usize::try_from(found).unwrap_or(usize::MAX);
        for migration in MIGRATIONS.iter().skip(done) {
            sqlx::raw_sql(*migration).execute(&mut *transaction).await?;
        }
        transaction.commit().await
    };
    migrate.await.map_err(|fault| place.explain(fault))
}
