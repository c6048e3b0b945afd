//! The statements: one transaction on one application's rows, and how a row is written and read.

use super::fault::explain;
use super::schema;
use crate::checkpoint::Position;
use crate::error::{Error, ErrorKind};
use crate::lease::rules::{self, Surroundings};
use crate::lease::{
    Lease, LeaseKey, Loads, NewLease, PendingCheckpoint, Registration, WorkerProfile, WorkerRow,
};
use millstream_wire::HashKeyRange;
use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{Connection, Row, SqliteConnection};
use std::path::Path;
use std::time::Duration;

/// A transaction on the rows of one application. Dropped without [`Transaction::commit`], it never was.
#[derive(Debug)]
pub(super) struct Transaction<'a> {
    inner: sqlx::Transaction<'a, Sqlite>,
    path: &'a Path,
    application: &'a str,
}

/// A worker's row with what tells its runs apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) incarnation: u64,
    pub(super) heartbeat: u64,
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
    pub(super) async fn read(
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

    /// One lease. A damaged row is logged and counts as no lease (K10).
    pub(super) async fn lease(&mut self, key: &LeaseKey) -> Result<Option<Lease>, Error> {
        lease_on(&mut self.inner, self.path, self.application, key).await
    }

    /// All leases in order of their keys, and the keys of damaged rows.
    pub(super) async fn leases(&mut self) -> Result<(Vec<Lease>, Vec<LeaseKey>), Error> {
        let rows = sqlx::query(
            "SELECT stream, lease_key, lease_owner, lease_counter, checkpoint, wanted_by, owner_switches,
                    parents, hash_range_start, hash_range_end, pending_checkpoint, pending_state
             FROM leases WHERE application = ?1 ORDER BY stream, lease_key",
        )
        .bind(self.application)
        .fetch_all(&mut *self.inner)
        .await
        .map_err(|fault| explain(self.path, fault))?;
        let (mut leases, mut damaged) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows {
            match decode(self.path, self.application, &row) {
                Ok(lease) => leases.push(lease),
                Err(key) => damaged.extend(key),
            }
        }
        Ok((leases, damaged))
    }

    /// The keys of the leases a worker holds or asks for.
    pub(super) async fn leases_of(&mut self, worker_id: &str) -> Result<Vec<LeaseKey>, Error> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT stream, lease_key FROM leases
             WHERE application = ?1 AND (lease_owner = ?2 OR wanted_by = ?2)",
        )
        .bind(self.application)
        .bind(worker_id)
        .fetch_all(&mut *self.inner)
        .await
        .map_err(|fault| explain(self.path, fault))?;
        Ok(rows
            .into_iter()
            .map(|(stream, shard_id)| LeaseKey { stream, shard_id })
            .collect())
    }

    /// What a claim of the lease depends on.
    pub(super) async fn surroundings(&mut self, lease: &Lease) -> Result<Surroundings, Error> {
        let owner_heartbeat = match &lease.owner {
            Some(owner) => self.run(owner).await?.map(|run| run.heartbeat),
            None => None,
        };
        let mut parents_ended = true;
        for parent in &lease.parents {
            let ended: Option<bool> = sqlx::query_scalar(
                "SELECT checkpoint = ?4 FROM leases
                 WHERE application = ?1 AND stream = ?2 AND lease_key = ?3",
            )
            .bind(self.application)
            .bind(&lease.key.stream)
            .bind(parent)
            .bind(Position::ShardEnd.to_string())
            .fetch_optional(&mut *self.inner)
            .await
            .map_err(|fault| explain(self.path, fault))?;
            parents_ended &= ended.unwrap_or(true);
        }
        Ok(Surroundings {
            owner_heartbeat,
            parents_ended,
        })
    }

    /// Creates the lease unless its row is there; says whether it did.
    pub(super) async fn create(&mut self, new: &NewLease) -> Result<bool, Error> {
        let lease = rules::create(new);
        let parents = serde_json::to_string(&lease.parents).map_err(|source| {
            Error::with_source(
                ErrorKind::Store,
                format!("the parents of lease {} cannot be written", lease.key),
                source,
            )
        })?;
        let done = sqlx::query(
            "INSERT INTO leases (application, stream, lease_key, lease_counter, checkpoint, owner_switches,
                                 parents, hash_range_start, hash_range_end)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
        )
        .bind(self.application)
        .bind(&lease.key.stream)
        .bind(&lease.key.shard_id)
        .bind(lease.counter.cast_signed())
        .bind(lease.checkpoint.to_string())
        .bind(lease.owner_switches.cast_signed())
        .bind(parents)
        .bind(lease.hash_key_range.map(|range| range.start.to_string()))
        .bind(lease.hash_key_range.map(|range| range.end.to_string()))
        .execute(&mut *self.inner)
        .await
        .map_err(|fault| explain(self.path, fault))?;
        Ok(done.rows_affected() == 1)
    }

    /// Replaces `before` by `after`. The rules have looked at `before` in this transaction; the condition repeats K1.
    pub(super) async fn replace(&mut self, before: &Lease, after: &Lease) -> Result<(), Error> {
        let done = sqlx::query(
            "UPDATE leases SET lease_owner = ?1, lease_counter = ?2, checkpoint = ?3, wanted_by = ?4,
                    owner_switches = ?5, pending_checkpoint = ?11, pending_state = ?12
             WHERE application = ?6 AND stream = ?7 AND lease_key = ?8
                   AND lease_counter = ?9 AND lease_owner IS ?10",
        )
        .bind(&after.owner)
        .bind(after.counter.cast_signed())
        .bind(after.checkpoint.to_string())
        .bind(&after.wanted_by)
        .bind(after.owner_switches.cast_signed())
        .bind(self.application)
        .bind(&before.key.stream)
        .bind(&before.key.shard_id)
        .bind(before.counter.cast_signed())
        .bind(&before.owner)
        .bind(after.pending.as_ref().map(|pending| pending.position.to_string()))
        .bind(after.pending.as_ref().map(|pending| pending.state.as_slice()))
        .execute(&mut *self.inner)
        .await
        .map_err(|fault| explain(self.path, fault))?;
        if done.rows_affected() == 1 {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Store,
            format!(
                "lease store {}: lease {} changed within a transaction; is the file on a file system whose locks work?",
                self.path.display(),
                before.key
            ),
        ))
    }

    pub(super) async fn delete_lease(&mut self, key: &LeaseKey) -> Result<(), Error> {
        sqlx::query("DELETE FROM leases WHERE application = ?1 AND stream = ?2 AND lease_key = ?3")
            .bind(self.application)
            .bind(&key.stream)
            .bind(&key.shard_id)
            .execute(&mut *self.inner)
            .await
            .map_err(|fault| explain(self.path, fault))?;
        Ok(())
    }

    /// A worker's current run. STRICT columns hold integers; any integer is a sound heartbeat.
    pub(super) async fn run(&mut self, worker_id: &str) -> Result<Option<Run>, Error> {
        let row: Option<(i64, i64)> = sqlx::query_as(
            "SELECT incarnation, heartbeat FROM workers WHERE application = ?1 AND worker_id = ?2",
        )
        .bind(self.application)
        .bind(worker_id)
        .fetch_optional(&mut *self.inner)
        .await
        .map_err(|fault| explain(self.path, fault))?;
        Ok(row.map(|(incarnation, heartbeat)| Run {
            incarnation: incarnation.cast_unsigned(),
            heartbeat: heartbeat.cast_unsigned(),
        }))
    }

    /// The run of the registration, if it is the current one.
    pub(super) async fn current(&mut self, worker: &Registration) -> Result<Option<Run>, Error> {
        let run = self.run(&worker.worker_id).await?;
        Ok(run.filter(|run| run.incarnation == worker.incarnation))
    }

    /// Every worker's row. What it says of itself is advice: what cannot be read counts as not said.
    pub(super) async fn workers(&mut self) -> Result<Vec<WorkerRow>, Error> {
        let rows: Vec<SqliteRow> = sqlx::query(
            "SELECT worker_id, heartbeat, stream, failover_ms, max_leases, loads
             FROM workers WHERE application = ?1 ORDER BY worker_id",
        )
        .bind(self.application)
        .fetch_all(&mut *self.inner)
        .await
        .map_err(|fault| explain(self.path, fault))?;
        let worker = |row: SqliteRow| -> Result<WorkerRow, sqlx::Error> {
            let number = |column: &str| -> Option<u64> {
                let value: Option<i64> = row.try_get(column).ok()?;
                u64::try_from(value?).ok()
            };
            let text = |column: &str| -> Option<String> { row.try_get(column).ok().flatten() };
            Ok(WorkerRow {
                worker_id: row.try_get("worker_id")?,
                heartbeat: row.try_get::<i64, _>("heartbeat")?.cast_unsigned(),
                profile: WorkerProfile {
                    stream: text("stream"),
                    failover: number("failover_ms").map(Duration::from_millis),
                    max_leases: number("max_leases"),
                },
                loads: text("loads")
                    .and_then(|loads| serde_json::from_str(&loads).ok())
                    .unwrap_or_default(),
            })
        };
        rows.into_iter()
            .map(worker)
            .collect::<Result<_, _>>()
            .map_err(|fault| explain(self.path, fault))
    }

    /// Writes the row of a worker that registers.
    pub(super) async fn put_run(
        &mut self,
        worker_id: &str,
        run: Run,
        profile: &WorkerProfile,
    ) -> Result<(), Error> {
        let small = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let failover_ms = profile
            .failover
            .map(|failover| i64::try_from(failover.as_millis()).unwrap_or(i64::MAX));
        sqlx::query(
            "INSERT INTO workers (application, worker_id, incarnation, heartbeat, stream, failover_ms, max_leases)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (application, worker_id)
             DO UPDATE SET incarnation = excluded.incarnation, heartbeat = excluded.heartbeat, stream = excluded.stream,
                           failover_ms = excluded.failover_ms, max_leases = excluded.max_leases, loads = NULL",
        )
        .bind(self.application)
        .bind(worker_id)
        .bind(run.incarnation.cast_signed())
        .bind(run.heartbeat.cast_signed())
        .bind(&profile.stream)
        .bind(failover_ms)
        .bind(profile.max_leases.map(small))
        .execute(&mut *self.inner)
        .await
        .map_err(|fault| explain(self.path, fault))?;
        Ok(())
    }

    /// Moves a worker's heartbeat on.
    pub(super) async fn beat(
        &mut self,
        worker_id: &str,
        heartbeat: u64,
        loads: &Loads,
    ) -> Result<(), Error> {
        let loads = (!loads.is_empty()).then(|| serde_json::to_string(loads).ok());
        sqlx::query(
            "UPDATE workers SET heartbeat = ?3, loads = ?4 WHERE application = ?1 AND worker_id = ?2",
        )
        .bind(self.application)
        .bind(worker_id)
        .bind(heartbeat.cast_signed())
        .bind(loads.flatten())
        .execute(&mut *self.inner)
        .await
        .map_err(|fault| explain(self.path, fault))?;
        Ok(())
    }

    pub(super) async fn delete_run(&mut self, worker_id: &str) -> Result<(), Error> {
        sqlx::query("DELETE FROM workers WHERE application = ?1 AND worker_id = ?2")
            .bind(self.application)
            .bind(worker_id)
            .execute(&mut *self.inner)
            .await
            .map_err(|fault| explain(self.path, fault))?;
        Ok(())
    }
}

/// One lease, on any connection to the file.
pub(super) async fn lease_on(
    connection: &mut SqliteConnection,
    path: &Path,
    application: &str,
    key: &LeaseKey,
) -> Result<Option<Lease>, Error> {
    let row = sqlx::query(
        "SELECT stream, lease_key, lease_owner, lease_counter, checkpoint, wanted_by, owner_switches,
                parents, hash_range_start, hash_range_end, pending_checkpoint, pending_state
         FROM leases WHERE application = ?1 AND stream = ?2 AND lease_key = ?3",
    )
    .bind(application)
    .bind(&key.stream)
    .bind(&key.shard_id)
    .fetch_optional(connection)
    .await
    .map_err(|fault| explain(path, fault))?;
    Ok(row.and_then(|row| decode(path, application, &row).ok()))
}

/// The lease of a row, or the key of a damaged one if that much can be read.
fn decode(path: &Path, application: &str, row: &SqliteRow) -> Result<Lease, Option<LeaseKey>> {
    let key = || -> Result<LeaseKey, sqlx::Error> {
        Ok(LeaseKey {
            stream: row.try_get("stream")?,
            shard_id: row.try_get("lease_key")?,
        })
    };
    let key = key().map_err(|error| {
        tracing::error!(store = %path.display(), application, %error,
            "a lease row without a readable key is left alone");
        None
    })?;
    decode_row(&key, row).map_err(|error| {
        tracing::error!(store = %path.display(), application, lease = %key, error,
            "the row of this lease is damaged: nobody gets it until the row is repaired or deleted");
        Some(key)
    })
}

fn decode_row(key: &LeaseKey, row: &SqliteRow) -> Result<Lease, String> {
    let text = |column: &str| -> Result<String, String> {
        row.try_get(column).map_err(|error| error.to_string())
    };
    let optional = |column: &str| -> Result<Option<String>, String> {
        row.try_get(column).map_err(|error| error.to_string())
    };
    let number = |column: &str| -> Result<u64, String> {
        let value: i64 = row.try_get(column).map_err(|error| error.to_string())?;
        u64::try_from(value)
            .ok()
            .filter(|value| *value <= rules::COUNTER_MAX)
            .ok_or_else(|| format!("{column} is {value}, expected 0 to {}", rules::COUNTER_MAX))
    };
    let checkpoint = text("checkpoint")?
        .parse()
        .map_err(|error| format!("column checkpoint: {error}"))?;
    let state: Option<Vec<u8>> = row
        .try_get("pending_state")
        .map_err(|error| error.to_string())?;
    let pending = match optional("pending_checkpoint")? {
        Some(position) => Some(PendingCheckpoint {
            position: position
                .parse()
                .map_err(|error| format!("column pending_checkpoint: {error}"))?,
            state: state.unwrap_or_default(),
        }),
        None => None,
    };
    let parents = serde_json::from_str(&text("parents")?)
        .map_err(|error| format!("column parents is not a JSON list of shard ids: {error}"))?;
    let hash_key_range = match (optional("hash_range_start")?, optional("hash_range_end")?) {
        (Some(start), Some(end)) => Some(hash_key_range(&start, &end)?),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err("only one end of the hash key range is there".to_owned());
        }
    };
    Ok(Lease {
        key: key.clone(),
        owner: optional("lease_owner")?,
        counter: number("lease_counter")?,
        wanted_by: optional("wanted_by")?,
        checkpoint,
        pending,
        owner_switches: number("owner_switches")?,
        parents,
        hash_key_range,
    })
}

fn hash_key_range(start: &str, end: &str) -> Result<HashKeyRange, String> {
    let parse = |column: &str, text: &str| {
        text.parse()
            .map_err(|error| format!("column {column}: {error}"))
    };
    let range = HashKeyRange {
        start: parse("hash_range_start", start)?,
        end: parse("hash_range_end", end)?,
    };
    if range.start <= range.end {
        Ok(range)
    } else {
        Err(format!(
            "the hash key range ends at {end}, before its start {start}"
        ))
    }
}
