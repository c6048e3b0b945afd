//! The statements: one transaction on one application's rows, and how a row is written and read.

use super::fault::explain;
use super::schema;
use crate::checkpoint::Position;
use crate::error::{Error, ErrorKind};
use crate::lease::reset::changes_text;
use crate::lease::sql::row::{self, Damaged};
use crate::lease::sql::{Change, Details, Hold, Leases, Rows, Run, Signs};
use crate::lease::{
    Lease, LeaseKey, PendingCheckpoint, RESETS_KEPT, Reset, ResetChange, ResetNote, Snapshot,
    WorkerProfile,
};
use serde_json::json;
use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{Connection, SqliteConnection};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A transaction on the rows of one application. Dropped without [`Transaction::commit`], it never was.
#[derive(Debug)]
pub(super) struct Transaction<'a> {
    inner: sqlx::Transaction<'a, Sqlite>,
    path: &'a Path,
    application: &'a str,
}

/// The wall clock, for people only.
macro_rules! now_ms {
    () => {
        "CAST(round(unixepoch('subsec') * 1000) AS INTEGER)"
    };
}

/// The columns of a lease, of the table under the name `l`.
macro_rules! select_leases {
    ($($rest:literal),*) => {
        concat!(
            "SELECT l.stream, l.lease_key, l.lease_owner, l.lease_counter, l.checkpoint, l.wanted_by, l.owner_switches,
                    l.parents, l.hash_range_start, l.hash_range_end, l.pending_checkpoint, l.pending_state ",
            $($rest),*
        )
    };
}

impl<'a> Transaction<'a> {
    /// Begins to write. IMMEDIATE: a transaction that turns into a writer later fails at once when another writes.
    pub(super) async fn write(
        connection: &'a mut SqliteConnection,
        path: &'a Path,
        application: &'a str,
    ) -> Result<Self, Error> {
        Self::begin(connection, path, application, "BEGIN IMMEDIATE").await
    }

    /// Begins to read one state of everything.
    pub(super) async fn look(
        connection: &'a mut SqliteConnection,
        path: &'a Path,
        application: &'a str,
    ) -> Result<Self, Error> {
        Self::begin(connection, path, application, "BEGIN DEFERRED").await
    }

    async fn begin(
        connection: &'a mut SqliteConnection,
        path: &'a Path,
        application: &'a str,
        statement: &'static str,
    ) -> Result<Self, Error> {
        let begun = connection.begin_with(statement).await;
        let mut inner = begun.map_err(|fault| explain(path, fault))?;
        schema::still_ours(&mut inner, path).await?;
        Ok(Transaction {
            inner,
            path,
            application,
        })
    }

    pub(super) async fn commit(self) -> Result<(), Error> {
        let path = self.path;
        self.inner
            .commit()
            .await
            .map_err(|fault| explain(path, fault))
    }

    /// The leases of rows, and the keys of damaged ones.
    fn read(&self, rows: &[SqliteRow]) -> (Leases, Vec<LeaseKey>) {
        let (mut leases, mut damaged) = (Leases::new(), Vec::new());
        for row in rows {
            match decode(self.path, self.application, row) {
                Ok(lease) => drop(leases.insert(lease.key.clone(), lease)),
                Err(Damaged(key)) => damaged.extend(key),
            }
        }
        (leases, damaged)
    }

    /// K1: a write found every row as the rules had seen it.
    fn all_changed(&self, changed: u64, expected: usize) -> Result<(), Error> {
        if u64::try_from(expected).is_ok_and(|expected| changed == expected) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Store,
            format!(
                "lease store {}: {changed} of {expected} leases were as they had just been read; is the file on a file system whose locks work?",
                self.path.display(),
            ),
        ))
    }

    fn sql(&self) -> impl Fn(sqlx::Error) -> Error + use<'a> {
        let path = self.path;
        move |fault| explain(path, fault)
    }
}

/// Sets of rows travel as JSON in one parameter, so that a transaction is short however many leases it is about: others
/// wait for it.
impl Rows for Transaction<'_> {
    async fn leases(&mut self, keys: &BTreeSet<LeaseKey>, _hold: Hold) -> Result<Leases, Error> {
        let rows = sqlx::query(select_leases!(
            "FROM json_each(?2) AS k CROSS JOIN leases AS l
                  ON l.application = ?1 AND l.stream = k.value ->> 0 AND l.lease_key = k.value ->> 1"
        ))
        .bind(self.application)
        .bind(pairs(keys))
        .fetch_all(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        Ok(self.read(&rows).0)
    }

    async fn leases_of(&mut self, worker_ids: &BTreeSet<&str>) -> Result<Leases, Error> {
        let rows = sqlx::query(select_leases!(
            "FROM leases AS l WHERE l.application = ?1
                  AND (l.lease_owner IN (SELECT value FROM json_each(?2)) OR l.wanted_by IN (SELECT value FROM json_each(?2)))"
        ))
        .bind(self.application)
        .bind(json!(worker_ids).to_string())
        .fetch_all(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        Ok(self.read(&rows).0)
    }

    async fn unended(&mut self, keys: &BTreeSet<LeaseKey>) -> Result<BTreeSet<LeaseKey>, Error> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT l.stream, l.lease_key FROM json_each(?2) AS k CROSS JOIN leases AS l
                    ON l.application = ?1 AND l.stream = k.value ->> 0 AND l.lease_key = k.value ->> 1
             WHERE l.checkpoint <> ?3",
        )
        .bind(self.application)
        .bind(pairs(keys))
        .bind(Position::ShardEnd.to_string())
        .fetch_all(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        Ok(rows
            .into_iter()
            .map(|(stream, shard_id)| LeaseKey { stream, shard_id })
            .collect())
    }

    async fn everything(&mut self) -> Result<Snapshot, Error> {
        let leases = sqlx::query(select_leases!(
            "FROM leases AS l WHERE l.application = ?1 ORDER BY l.stream, l.lease_key"
        ))
        .bind(self.application)
        .fetch_all(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        let workers = sqlx::query(
            "SELECT worker_id, heartbeat, streams, failover_ms, max_leases, loads
             FROM workers WHERE application = ?1 ORDER BY worker_id",
        )
        .bind(self.application)
        .fetch_all(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        let (leases, damaged) = self.read(&leases);
        let workers = workers.iter().map(row::worker).collect::<Result<_, _>>();
        Ok(Snapshot {
            leases: leases.into_values().collect(),
            workers: workers.map_err(self.sql())?,
            damaged,
        })
    }

    async fn create(&mut self, leases: &[Lease]) -> Result<usize, Error> {
        let mut values = Vec::with_capacity(leases.len());
        for lease in leases {
            let range = lease.hash_key_range;
            values.push(json!([
                lease.key.stream,
                lease.key.shard_id,
                lease.counter,
                lease.checkpoint.to_string(),
                lease.owner_switches,
                row::parents_text(lease)?,
                range.map(|range| range.start.to_string()),
                range.map(|range| range.end.to_string()),
            ]));
        }
        let done = sqlx::query(
            "INSERT INTO leases (application, stream, lease_key, lease_counter, checkpoint, owner_switches,
                                 parents, hash_range_start, hash_range_end)
             SELECT ?1, n.value ->> 0, n.value ->> 1, n.value ->> 2, n.value ->> 3, n.value ->> 4,
                    n.value ->> 5, n.value ->> 6, n.value ->> 7
             FROM json_each(?2) AS n WHERE TRUE ON CONFLICT DO NOTHING",
        )
        .bind(self.application)
        .bind(json!(values).to_string())
        .execute(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
    }

    /// The rules have looked at the leases in this transaction; the condition repeats K1. MATERIALIZED has SQLite look the rows
    /// up by their keys, instead of going through all rows for each change.
    async fn replace(&mut self, changes: &[Change]) -> Result<(), Error> {
        let value = |Change { before, after }: &Change| {
            json!([
                before.key.stream,
                before.key.shard_id,
                before.counter,
                before.owner,
                after.owner,
                after.counter,
                after.checkpoint.to_string(),
                after.wanted_by,
                after.owner_switches,
                i32::from(after.pending.is_some()),
            ])
        };
        let values: Vec<_> = changes.iter().map(value).collect();
        let done = sqlx::query(concat!(
            "WITH c AS MATERIALIZED (
                 SELECT value ->> 0 AS of_stream, value ->> 1 AS of_key, value ->> 2 AS old_counter, value ->> 3 AS old_owner,
                        value ->> 4 AS owner, value ->> 5 AS counter, value ->> 6 AS position, value ->> 7 AS asker,
                        value ->> 8 AS switches, value ->> 9 AS keep_pending
                 FROM json_each(?2))
             UPDATE leases SET lease_owner = owner, lease_counter = counter, checkpoint = position, wanted_by = asker,
                    owned_since_ms = CASE WHEN counter = old_counter THEN owned_since_ms
                                          WHEN owner IS NULL THEN NULL ELSE ", now_ms!(), " END,
                    owner_switches = switches, pending_checkpoint = iif(keep_pending, pending_checkpoint, NULL),
                    pending_state = iif(keep_pending, pending_state, NULL)
             FROM c
             WHERE application = ?1 AND stream = of_stream AND lease_key = of_key
                   AND lease_counter = old_counter AND lease_owner IS old_owner"
        ))
        .bind(self.application)
        .bind(json!(values).to_string())
        .execute(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        self.all_changed(done.rows_affected(), changes.len())
    }

    async fn note(&mut self, lease: &Lease, pending: &PendingCheckpoint) -> Result<(), Error> {
        let done = sqlx::query(
            "UPDATE leases SET pending_checkpoint = ?4, pending_state = ?5
             WHERE application = ?1 AND stream = ?2 AND lease_key = ?3
                   AND lease_counter = ?6 AND lease_owner IS ?7",
        )
        .bind(self.application)
        .bind(&lease.key.stream)
        .bind(&lease.key.shard_id)
        .bind(pending.position.to_string())
        .bind(pending.state.as_slice())
        .bind(lease.counter.cast_signed())
        .bind(&lease.owner)
        .execute(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        self.all_changed(done.rows_affected(), 1)
    }

    async fn delete(&mut self, keys: &BTreeSet<LeaseKey>) -> Result<(), Error> {
        sqlx::query(
            "DELETE FROM leases WHERE application = ?1
                    AND (stream, lease_key) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?2))",
        )
        .bind(self.application)
        .bind(pairs(keys))
        .execute(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        Ok(())
    }

    /// STRICT columns hold integers; any integer is a sound heartbeat.
    async fn runs(&mut self, worker_ids: &BTreeSet<&str>) -> Result<BTreeMap<String, Run>, Error> {
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(
            "SELECT w.worker_id, w.incarnation, w.heartbeat
             FROM json_each(?2) AS k CROSS JOIN workers AS w ON w.application = ?1 AND w.worker_id = k.value",
        )
        .bind(self.application)
        .bind(json!(worker_ids).to_string())
        .fetch_all(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        let run = |(worker_id, incarnation, heartbeat): (String, i64, i64)| {
            let run = Run {
                incarnation: incarnation.cast_unsigned(),
                heartbeat: heartbeat.cast_unsigned(),
            };
            (worker_id, run)
        };
        Ok(rows.into_iter().map(run).collect())
    }

    async fn put_run(
        &mut self,
        worker_id: &str,
        run: Run,
        profile: &WorkerProfile,
    ) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO workers (application, worker_id, incarnation, heartbeat, streams, failover_ms, max_leases)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (application, worker_id)
             DO UPDATE SET incarnation = excluded.incarnation, heartbeat = excluded.heartbeat, streams = excluded.streams,
                           failover_ms = excluded.failover_ms, max_leases = excluded.max_leases, loads = NULL, troubles = NULL",
        )
        .bind(self.application)
        .bind(worker_id)
        .bind(run.incarnation.cast_signed())
        .bind(run.heartbeat.cast_signed())
        .bind(row::streams_text(profile))
        .bind(row::failover_ms(profile))
        .bind(profile.max_leases.map(row::advice))
        .execute(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        Ok(())
    }

    async fn put_profile(&mut self, worker_id: &str, profile: &WorkerProfile) -> Result<(), Error> {
        sqlx::query(
            "UPDATE workers SET streams = ?3, failover_ms = ?4, max_leases = ?5 WHERE application = ?1 AND worker_id = ?2",
        )
        .bind(self.application)
        .bind(worker_id)
        .bind(row::streams_text(profile))
        .bind(row::failover_ms(profile))
        .bind(profile.max_leases.map(row::advice))
        .execute(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        Ok(())
    }

    async fn beat(
        &mut self,
        worker_id: &str,
        heartbeat: u64,
        signs: Signs<'_>,
    ) -> Result<(), Error> {
        sqlx::query(
            "UPDATE workers SET heartbeat = ?3, loads = ?4, troubles = ?5 WHERE application = ?1 AND worker_id = ?2",
        )
        .bind(self.application)
        .bind(worker_id)
        .bind(heartbeat.cast_signed())
        .bind(row::loads_text(signs.loads))
        .bind(row::troubles_text(signs.troubles))
        .execute(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        Ok(())
    }

    async fn delete_runs(&mut self, worker_ids: &BTreeSet<&str>) -> Result<(), Error> {
        sqlx::query(
            "DELETE FROM workers WHERE application = ?1 AND worker_id IN (SELECT value FROM json_each(?2))",
        )
        .bind(self.application)
        .bind(json!(worker_ids).to_string())
        .execute(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        Ok(())
    }

    async fn applications(&mut self) -> Result<Vec<String>, Error> {
        let names =
            "SELECT application FROM leases UNION SELECT application FROM workers ORDER BY 1";
        sqlx::query_scalar(names)
            .fetch_all(&mut *self.inner)
            .await
            .map_err(self.sql())
    }

    async fn details(&mut self) -> Result<Details, Error> {
        let owned = sqlx::query(
            "SELECT stream, lease_key, owned_since_ms FROM leases WHERE application = ?1 AND lease_owner IS NOT NULL",
        )
        .bind(self.application)
        .fetch_all(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        let troubled =
            sqlx::query("SELECT worker_id, troubles FROM workers WHERE application = ?1")
                .bind(self.application)
                .fetch_all(&mut *self.inner)
                .await
                .map_err(self.sql())?;
        Ok(Details {
            owned_since_ms: owned.iter().filter_map(row::owned_since).collect(),
            troubles: troubled.iter().filter_map(row::troubles).collect(),
        })
    }

    async fn note_reset(&mut self, reset: &Reset, changes: &[ResetChange]) -> Result<(), Error> {
        let insert = concat!(
            "INSERT INTO resets (application, number, at_ms, made_by, asked, changes)
             SELECT ?1, coalesce(max(number), 0) + 1, ",
            now_ms!(),
            ", ?2, ?3, ?4 FROM resets WHERE application = ?1"
        );
        let tidy = "DELETE FROM resets WHERE application = ?1
                           AND number <= (SELECT max(number) FROM resets WHERE application = ?1) - ?2";
        sqlx::query(insert)
            .bind(self.application)
            .bind(&reset.by)
            .bind(&reset.asked)
            .bind(changes_text(changes))
            .execute(&mut *self.inner)
            .await
            .map_err(self.sql())?;
        sqlx::query(tidy)
            .bind(self.application)
            .bind(i64::from(RESETS_KEPT))
            .execute(&mut *self.inner)
            .await
            .map_err(self.sql())?;
        Ok(())
    }

    async fn resets(&mut self) -> Result<Vec<ResetNote>, Error> {
        let rows = sqlx::query(
            "SELECT number, at_ms, made_by, asked, changes FROM resets WHERE application = ?1 ORDER BY number DESC",
        )
        .bind(self.application)
        .fetch_all(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        let notes = rows.iter().map(row::reset_note).collect::<Result<_, _>>();
        notes.map_err(self.sql())
    }
}

/// Keys as a JSON list of pairs.
fn pairs(keys: &BTreeSet<LeaseKey>) -> String {
    let pairs: Vec<_> = keys
        .iter()
        .map(|key| (&key.stream, &key.shard_id))
        .collect();
    json!(pairs).to_string()
}

/// One lease, on any connection to the file.
pub(super) async fn lease_on(
    connection: &mut SqliteConnection,
    path: &Path,
    application: &str,
    key: &LeaseKey,
) -> Result<Option<Lease>, Error> {
    let row = sqlx::query(select_leases!(
        "FROM leases AS l WHERE l.application = ?1 AND l.stream = ?2 AND l.lease_key = ?3"
    ))
    .bind(application)
    .bind(&key.stream)
    .bind(&key.shard_id)
    .fetch_optional(connection)
    .await
    .map_err(|fault| explain(path, fault))?;
    Ok(row.and_then(|row| decode(path, application, &row).ok()))
}

fn decode(path: &Path, application: &str, row: &SqliteRow) -> Result<Lease, Damaged> {
    row::lease(&path.display().to_string(), application, row)
}
