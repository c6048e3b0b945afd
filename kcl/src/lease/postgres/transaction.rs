//! The statements: one transaction on one application's rows, and how a row is written and read.
//!
//! Row locks are taken leases first, then workers, each in the order of their keys. Who has the application's lock waits
//! for a row for a moment only: whoever holds it that long may be an application's transaction, and others wait for the lock.

use super::fault::Place;
use super::schema::{self, VERSION};
use crate::checkpoint::Position;
use crate::error::{Error, ErrorKind};
use crate::lease::reset::changes_text;
use crate::lease::sql::row::{self, Damaged};
use crate::lease::sql::{Change, Details, Hold, Leases, Rows, Run, Scope, Signs};
use crate::lease::{
    Lease, LeaseKey, PendingCheckpoint, RESETS_KEPT, Reset, ResetChange, ResetNote, Snapshot,
    WorkerProfile,
};
use sqlx::postgres::{PgConnection, PgRow, Postgres};
use sqlx::{AssertSqlSafe, Connection, Row};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A transaction on the rows of one application. Dropped without [`Transaction::commit`], it never was.
#[derive(Debug)]
pub(super) struct Transaction<'a> {
    inner: sqlx::Transaction<'a, Postgres>,
    place: &'a Place,
    application: &'a str,
    /// Whether it was seen that the tables are of this version. They stay so: a migration waits for this transaction.
    is_ours: bool,
}

/// How transactions begin: with their limits, which the server keeps. These are the transaction's own, because a pooler may give the
/// session to somebody else afterwards; and all in one message, so that they cost no round trip.
#[derive(Debug, Clone)]
pub(super) struct Begin {
    look: Arc<str>,
    write: Arc<str>,
}

/// How long a transaction of this store may stand still: its process is paused or out of reach, and others wait for its locks.
const IDLE_LIMIT: Duration = Duration::from_secs(1);

impl Begin {
    /// Statements are bounded by `timeout`, so that none outlives the call it was made for by much.
    pub(super) fn with(timeout: Duration) -> Self {
        let limits = format!(
            "SET LOCAL statement_timeout = {};
             SET LOCAL idle_in_transaction_session_timeout = {}",
            timeout.as_millis(),
            IDLE_LIMIT.as_millis()
        );
        let durable = "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'";
        Begin {
            look: format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {limits}").into(),
            write: format!("BEGIN ISOLATION LEVEL READ COMMITTED; {limits}; {durable}").into(),
        }
    }

    /// Begins to read one state of everything.
    async fn look<'a>(
        &self,
        connection: &'a mut PgConnection,
    ) -> Result<sqlx::Transaction<'a, Postgres>, sqlx::Error> {
        let statement = AssertSqlSafe(Arc::clone(&self.look));
        connection.begin_with(statement).await
    }

    /// Begins to write.
    pub(super) async fn write<'a>(
        &self,
        connection: &'a mut PgConnection,
    ) -> Result<sqlx::Transaction<'a, Postgres>, sqlx::Error> {
        let statement = AssertSqlSafe(Arc::clone(&self.write));
        connection.begin_with(statement).await
    }
}

/// How long a transaction that has the application's lock waits for a row.
const LOCK_TIMEOUT: &str = "250ms";

/// The columns of a lease, of the table under the name `l`, and the version of the tables.
macro_rules! select_leases {
    ($($rest:literal),*) => {
        concat!(
            "SELECT l.stream, l.lease_key, l.lease_owner, l.lease_counter, l.checkpoint, l.wanted_by, l.owner_switches,
                    l.parents, l.hash_range_start, l.hash_range_end, l.pending_checkpoint, l.pending_state,
                    (SELECT version FROM millstream.schema_version) AS schema_version
             FROM millstream.leases AS l ",
            $($rest),*
        )
    };
}

/// The same for the leases with the keys in $2 and $3.
macro_rules! select_leases_by_key {
    ($($rest:literal),*) => {
        select_leases!(
            "JOIN unnest($2::text[], $3::text[]) AS k (stream, lease_key) ON l.stream = k.stream AND l.lease_key = k.lease_key
             WHERE l.application = $1 ORDER BY l.stream, l.lease_key ",
            $($rest),*
        )
    };
}

impl<'a> Transaction<'a> {
    /// Begins what a verb of this scope needs: to read one state of everything, to write one row, or to write any row of the
    /// application, alone.
    pub(super) async fn begin(
        connection: &'a mut PgConnection,
        begin: &Begin,
        scope: Scope,
        place: &'a Place,
        application: &'a str,
    ) -> Result<Self, Error> {
        let begin = async {
            match scope {
                Scope::Look => begin.look(connection).await,
                Scope::Heartbeat | Scope::Lease => begin.write(connection).await,
                Scope::Application => {
                    let mut inner = begin.write(connection).await?;
                    sqlx::query(
                        "SELECT pg_advisory_xact_lock(hashtextextended('millstream ' || $1, 0)),
                                set_config('lock_timeout', $2, true)",
                    )
                    .bind(application)
                    .bind(LOCK_TIMEOUT)
                    .execute(&mut *inner)
                    .await?;
                    Ok(inner)
                }
            }
        };
        let inner = begin.await.map_err(|fault| place.explain(fault))?;
        Ok(Transaction {
            inner,
            place,
            application,
            is_ours: false,
        })
    }

    pub(super) async fn commit(self) -> Result<(), Error> {
        let ended = self.inner.commit().await;
        ended.map_err(|fault| self.place.explain(fault))
    }

    pub(super) async fn rollback(self) -> Result<(), Error> {
        let ended = self.inner.rollback().await;
        ended.map_err(|fault| self.place.explain(fault))
    }

    /// Refuses tables that another version has changed (K14). Rows bring the version with them, and a write comes after a read; where
    /// there were none, it is looked up.
    async fn require_version(&mut self, rows: &[PgRow]) -> Result<(), Error> {
        if self.is_ours {
            return Ok(());
        }
        let sql = self.sql();
        let found = match rows.first() {
            Some(row) => row.try_get("schema_version").map_err(sql)?,
            None => schema::version(&mut self.inner).await.map_err(sql)?,
        };
        if found != VERSION {
            return Err(schema::unknown_version(self.place, found));
        }
        self.is_ours = true;
        Ok(())
    }

    /// The leases of rows, and the keys of damaged ones.
    async fn read(&mut self, rows: &[PgRow]) -> Result<(Leases, Vec<LeaseKey>), Error> {
        self.require_version(rows).await?;
        let (mut leases, mut damaged) = (Leases::new(), Vec::new());
        for row in rows {
            match decode(self.place, self.application, row) {
                Ok(lease) => drop(leases.insert(lease.key.clone(), lease)),
                Err(Damaged(key)) => damaged.extend(key),
            }
        }
        Ok((leases, damaged))
    }

    /// K1: a write found every row as the rules had seen it.
    fn all_changed(&self, changed: u64, expected: usize) -> Result<(), Error> {
        if u64::try_from(expected).is_ok_and(|expected| changed == expected) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Store,
            format!(
                "{}: {changed} of {expected} leases were as they had just been read, though they were locked; does a trigger or a rule change the tables?",
                self.place,
            ),
        ))
    }

    fn sql(&self) -> impl Fn(sqlx::Error) -> Error + use<'a> {
        let place = self.place;
        move |fault| place.explain(fault)
    }
}

/// Sets of rows travel as arrays, so that a transaction is short however many leases it is about: others wait for it.
impl Rows for Transaction<'_> {
    async fn leases(&mut self, keys: &BTreeSet<LeaseKey>, hold: Hold) -> Result<Leases, Error> {
        let statement = match hold {
            Hold::Not => select_leases_by_key!(""),
            Hold::Wait => select_leases_by_key!("FOR NO KEY UPDATE OF l"),
            Hold::Skip => select_leases_by_key!("FOR NO KEY UPDATE OF l SKIP LOCKED"),
        };
        let (streams, shard_ids) = columns(keys);
        let rows = sqlx::query(statement)
            .bind(self.application)
            .bind(streams)
            .bind(shard_ids)
            .fetch_all(&mut *self.inner)
            .await
            .map_err(self.sql())?;
        Ok(self.read(&rows).await?.0)
    }

    async fn leases_of(&mut self, worker_ids: &BTreeSet<&str>) -> Result<Leases, Error> {
        let rows = sqlx::query(select_leases!(
            "WHERE l.application = $1 AND (l.lease_owner = ANY($2) OR l.wanted_by = ANY($2))
             ORDER BY l.stream, l.lease_key FOR NO KEY UPDATE OF l"
        ))
        .bind(self.application)
        .bind(list(worker_ids))
        .fetch_all(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        Ok(self.read(&rows).await?.0)
    }

    /// No lock: a shard that has ended stays so, and leases come and go only under the application's lock.
    async fn unended(&mut self, keys: &BTreeSet<LeaseKey>) -> Result<BTreeSet<LeaseKey>, Error> {
        let (streams, shard_ids) = columns(keys);
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT l.stream, l.lease_key FROM millstream.leases AS l
                    JOIN unnest($2::text[], $3::text[]) AS k (stream, lease_key) ON l.stream = k.stream AND l.lease_key = k.lease_key
             WHERE l.application = $1 AND l.checkpoint <> $4",
        )
        .bind(self.application)
        .bind(streams)
        .bind(shard_ids)
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
            "WHERE l.application = $1 ORDER BY l.stream, l.lease_key"
        ))
        .bind(self.application)
        .fetch_all(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        let workers = sqlx::query(
            "SELECT worker_id, heartbeat, streams, failover_ms, max_leases, loads
             FROM millstream.workers WHERE application = $1 ORDER BY worker_id",
        )
        .bind(self.application)
        .fetch_all(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        let (leases, damaged) = self.read(&leases).await?;
        let workers = workers.iter().map(row::worker).collect::<Result<_, _>>();
        Ok(Snapshot {
            leases: leases.into_values().collect(),
            workers: workers.map_err(self.sql())?,
            damaged,
        })
    }

    async fn create(&mut self, leases: &[Lease]) -> Result<usize, Error> {
        self.require_version(&[]).await?;
        let parents: Result<Vec<String>, Error> = leases.iter().map(row::parents_text).collect();
        let range = |lease: &Lease| lease.hash_key_range;
        let done = sqlx::query(
            "INSERT INTO millstream.leases (application, stream, lease_key, lease_counter, checkpoint, owner_switches,
                                            parents, hash_range_start, hash_range_end)
             SELECT $1, n.* FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::bigint[],
                                        $7::text[], $8::text[], $9::text[]) AS n
             ON CONFLICT DO NOTHING",
        )
        .bind(self.application)
        .bind(column(leases, |lease| lease.key.stream.clone()))
        .bind(column(leases, |lease| lease.key.shard_id.clone()))
        .bind(column(leases, |lease| lease.counter.cast_signed()))
        .bind(column(leases, |lease| lease.checkpoint.to_string()))
        .bind(column(leases, |lease| lease.owner_switches.cast_signed()))
        .bind(parents?)
        .bind(column(leases, |lease| range(lease).map(|range| range.start.to_string())))
        .bind(column(leases, |lease| range(lease).map(|range| range.end.to_string())))
        .execute(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
    }

    /// The rules have looked at the leases in this transaction; the condition repeats K1.
    async fn replace(&mut self, changes: &[Change]) -> Result<(), Error> {
        self.require_version(&[]).await?;
        let done = sqlx::query(
            "UPDATE millstream.leases AS l
             SET lease_owner = c.owner, lease_counter = c.counter, checkpoint = c.position, wanted_by = c.asker,
                 owner_switches = c.switches,
                 owned_since_ms = CASE WHEN c.counter = c.old_counter THEN l.owned_since_ms
                                       WHEN c.owner IS NOT NULL THEN (extract(epoch FROM clock_timestamp()) * 1000)::bigint END,
                 pending_checkpoint = CASE WHEN c.keep_pending THEN l.pending_checkpoint END,
                 pending_state = CASE WHEN c.keep_pending THEN l.pending_state END
             FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::bigint[], $8::text[],
                         $9::text[], $10::bigint[], $11::boolean[])
                  AS c (stream, lease_key, old_counter, old_owner, owner, counter, position, asker, switches, keep_pending)
             WHERE l.application = $1 AND l.stream = c.stream AND l.lease_key = c.lease_key
                   AND l.lease_counter = c.old_counter AND l.lease_owner IS NOT DISTINCT FROM c.old_owner",
        )
        .bind(self.application)
        .bind(column(changes, |change| change.before.key.stream.clone()))
        .bind(column(changes, |change| change.before.key.shard_id.clone()))
        .bind(column(changes, |change| change.before.counter.cast_signed()))
        .bind(column(changes, |change| change.before.owner.clone()))
        .bind(column(changes, |change| change.after.owner.clone()))
        .bind(column(changes, |change| change.after.counter.cast_signed()))
        .bind(column(changes, |change| change.after.checkpoint.to_string()))
        .bind(column(changes, |change| change.after.wanted_by.clone()))
        .bind(column(changes, |change| change.after.owner_switches.cast_signed()))
        .bind(column(changes, |change| change.after.pending.is_some()))
        .execute(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        self.all_changed(done.rows_affected(), changes.len())
    }

    async fn note(&mut self, lease: &Lease, pending: &PendingCheckpoint) -> Result<(), Error> {
        self.require_version(&[]).await?;
        let done = sqlx::query(
            "UPDATE millstream.leases SET pending_checkpoint = $4, pending_state = $5
             WHERE application = $1 AND stream = $2 AND lease_key = $3
                   AND lease_counter = $6 AND lease_owner IS NOT DISTINCT FROM $7",
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
        self.require_version(&[]).await?;
        let (streams, shard_ids) = columns(keys);
        sqlx::query(
            "DELETE FROM millstream.leases AS l USING unnest($2::text[], $3::text[]) AS k (stream, lease_key)
             WHERE l.application = $1 AND l.stream = k.stream AND l.lease_key = k.lease_key",
        )
        .bind(self.application)
        .bind(streams)
        .bind(shard_ids)
        .execute(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        Ok(())
    }

    /// Locked: no heartbeat comes between the look and what is written because of it (K1).
    async fn runs(&mut self, worker_ids: &BTreeSet<&str>) -> Result<BTreeMap<String, Run>, Error> {
        let rows = sqlx::query(
            "SELECT worker_id, incarnation, heartbeat, (SELECT version FROM millstream.schema_version) AS schema_version
             FROM millstream.workers WHERE application = $1 AND worker_id = ANY($2)
             ORDER BY worker_id FOR NO KEY UPDATE OF workers",
        )
        .bind(self.application)
        .bind(list(worker_ids))
        .fetch_all(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        self.require_version(&rows).await?;
        let run = |row: &PgRow| -> Result<(String, Run), sqlx::Error> {
            let run = Run {
                incarnation: row.try_get::<i64, _>("incarnation")?.cast_unsigned(),
                heartbeat: row.try_get::<i64, _>("heartbeat")?.cast_unsigned(),
            };
            Ok((row.try_get("worker_id")?, run))
        };
        rows.iter()
            .map(run)
            .collect::<Result<_, _>>()
            .map_err(self.sql())
    }

    async fn put_run(
        &mut self,
        worker_id: &str,
        run: Run,
        profile: &WorkerProfile,
    ) -> Result<(), Error> {
        self.require_version(&[]).await?;
        sqlx::query(
            "INSERT INTO millstream.workers (application, worker_id, incarnation, heartbeat, streams, failover_ms, max_leases)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
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
        self.require_version(&[]).await?;
        sqlx::query(
            "UPDATE millstream.workers SET streams = $3, failover_ms = $4, max_leases = $5 WHERE application = $1 AND worker_id = $2",
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
        self.require_version(&[]).await?;
        sqlx::query(
            "UPDATE millstream.workers SET heartbeat = $3, loads = $4, troubles = $5 WHERE application = $1 AND worker_id = $2",
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
        self.require_version(&[]).await?;
        sqlx::query(
            "DELETE FROM millstream.workers WHERE application = $1 AND worker_id = ANY($2)",
        )
        .bind(self.application)
        .bind(list(worker_ids))
        .execute(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        Ok(())
    }

    async fn applications(&mut self) -> Result<Vec<String>, Error> {
        self.require_version(&[]).await?;
        let names = "SELECT application FROM millstream.leases UNION SELECT application FROM millstream.workers ORDER BY 1";
        sqlx::query_scalar(names)
            .fetch_all(&mut *self.inner)
            .await
            .map_err(self.sql())
    }

    async fn details(&mut self) -> Result<Details, Error> {
        let owned = sqlx::query(
            "SELECT stream, lease_key, owned_since_ms FROM millstream.leases WHERE application = $1 AND lease_owner IS NOT NULL",
        )
        .bind(self.application)
        .fetch_all(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        let troubled = sqlx::query(
            "SELECT worker_id, troubles FROM millstream.workers WHERE application = $1",
        )
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
        self.require_version(&[]).await?;
        sqlx::query(
            "INSERT INTO millstream.resets (application, number, at_ms, made_by, asked, changes)
             SELECT $1, coalesce(max(number), 0) + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, $2, $3, $4
             FROM millstream.resets WHERE application = $1",
        )
        .bind(self.application)
        .bind(&reset.by)
        .bind(&reset.asked)
        .bind(changes_text(changes))
        .execute(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        sqlx::query(
            "DELETE FROM millstream.resets WHERE application = $1
                    AND number <= (SELECT max(number) FROM millstream.resets WHERE application = $1) - $2",
        )
        .bind(self.application)
        .bind(i64::from(RESETS_KEPT))
        .execute(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        Ok(())
    }

    async fn resets(&mut self) -> Result<Vec<ResetNote>, Error> {
        self.require_version(&[]).await?;
        let rows = sqlx::query(
            "SELECT number, at_ms, made_by, asked, changes FROM millstream.resets WHERE application = $1 ORDER BY number DESC",
        )
        .bind(self.application)
        .fetch_all(&mut *self.inner)
        .await
        .map_err(self.sql())?;
        let notes = rows.iter().map(row::reset_note).collect::<Result<_, _>>();
        notes.map_err(self.sql())
    }
}

/// One value of each, as an array.
fn column<T, V>(of: &[T], value: impl Fn(&T) -> V) -> Vec<V> {
    of.iter().map(value).collect()
}

fn list(worker_ids: &BTreeSet<&str>) -> Vec<String> {
    worker_ids.iter().map(|id| (*id).to_owned()).collect()
}

/// Keys as two arrays.
fn columns(keys: &BTreeSet<LeaseKey>) -> (Vec<&str>, Vec<&str>) {
    keys.iter()
        .map(|key| (&*key.stream, &*key.shard_id))
        .unzip()
}

/// One lease, on any connection to the database.
pub(super) async fn lease_on(
    connection: &mut PgConnection,
    place: &Place,
    application: &str,
    key: &LeaseKey,
) -> Result<Option<Lease>, Error> {
    let row = sqlx::query(select_leases!(
        "WHERE l.application = $1 AND l.stream = $2 AND l.lease_key = $3"
    ))
    .bind(application)
    .bind(&key.stream)
    .bind(&key.shard_id)
    .fetch_optional(connection)
    .await
    .map_err(|fault| place.explain(fault))?;
    Ok(row.and_then(|row| decode(place, application, &row).ok()))
}

fn decode(place: &Place, application: &str, row: &PgRow) -> Result<Lease, Damaged> {
    row::lease(&place.to_string(), application, row)
}
