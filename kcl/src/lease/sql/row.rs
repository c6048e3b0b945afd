//! How a lease and a worker are read from their rows, and written as values: the columns are the same in every database.

use crate::checkpoint::Position;
use crate::error::{Error, ErrorKind};
use crate::lease::reset::changes_of;
use crate::lease::{
    Lease, LeaseKey, Loads, PendingCheckpoint, ResetNote, Trouble, WorkerProfile, WorkerRow, rules,
};
use millstream_wire::HashKeyRange;
use sqlx::{ColumnIndex, Database, Decode, Row, Type};
use std::time::Duration;

/// A row whose columns can be read by name, as SQLite's and PostgreSQL's can.
pub(in crate::lease) trait Columns {
    fn text(&self, column: &str) -> Result<Option<String>, sqlx::Error>;
    fn number(&self, column: &str) -> Result<Option<i64>, sqlx::Error>;
    fn bytes(&self, column: &str) -> Result<Option<Vec<u8>>, sqlx::Error>;
}

impl<R, D> Columns for R
where
    D: Database,
    R: Row<Database = D>,
    for<'c> &'c str: ColumnIndex<R>,
    for<'r> Option<String>: Decode<'r, D>,
    for<'r> Option<i64>: Decode<'r, D>,
    for<'r> Option<Vec<u8>>: Decode<'r, D>,
    Option<String>: Type<D>,
    Option<i64>: Type<D>,
    Option<Vec<u8>>: Type<D>,
{
    fn text(&self, column: &str) -> Result<Option<String>, sqlx::Error> {
        self.try_get(column)
    }

    fn number(&self, column: &str) -> Result<Option<i64>, sqlx::Error> {
        self.try_get(column)
    }

    fn bytes(&self, column: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
        self.try_get(column)
    }
}

/// A row that makes no sense, with its key if that much can be read. It has been logged.
#[derive(Debug)]
pub(in crate::lease) struct Damaged(pub(in crate::lease) Option<LeaseKey>);

/// The lease of a row of `application` in the store that errors call `store`.
pub(in crate::lease) fn lease(
    store: &str,
    application: &str,
    row: &impl Columns,
) -> Result<Lease, Damaged> {
    let key = key(row).map_err(|error| {
        tracing::error!(
            store,
            application,
            error,
            "a lease row without a readable key is left alone"
        );
        Damaged(None)
    })?;
    decode(&key, row).map_err(|error| {
        tracing::error!(store, application, lease = %key, error,
            "the row of this lease is damaged: nobody gets it until the row is repaired or deleted");
        Damaged(Some(key))
    })
}

/// The key of a lease's row.
pub(in crate::lease) fn key(row: &impl Columns) -> Result<LeaseKey, String> {
    Ok(LeaseKey {
        stream: text(row, "stream")?,
        shard_id: text(row, "lease_key")?,
    })
}

/// What the columns beside the key say, or what is wrong with them.
pub(in crate::lease) fn decode(key: &LeaseKey, row: &impl Columns) -> Result<Lease, String> {
    let checkpoint = text(row, "checkpoint")?;
    let parents = serde_json::from_str(&text(row, "parents")?)
        .map_err(|error| format!("column parents is not a JSON list of shard ids: {error}"))?;
    Ok(Lease {
        key: key.clone(),
        owner: optional(row, "lease_owner")?,
        counter: counter(row, "lease_counter")?,
        wanted_by: optional(row, "wanted_by")?,
        checkpoint: position("checkpoint", &checkpoint)?,
        pending: pending(row)?,
        owner_switches: counter(row, "owner_switches")?,
        parents,
        hash_key_range: hash_key_range(row)?,
    })
}

fn optional(row: &impl Columns, column: &str) -> Result<Option<String>, String> {
    row.text(column).map_err(|error| error.to_string())
}

fn text(row: &impl Columns, column: &str) -> Result<String, String> {
    optional(row, column)?.ok_or_else(|| format!("column {column} is empty"))
}

fn counter(row: &impl Columns, column: &str) -> Result<u64, String> {
    let value = row.number(column).map_err(|error| error.to_string())?;
    let value = value.ok_or_else(|| format!("column {column} is empty"))?;
    u64::try_from(value)
        .ok()
        .filter(|value| *value <= rules::COUNTER_MAX)
        .ok_or_else(|| format!("{column} is {value}, expected 0 to {}", rules::COUNTER_MAX))
}

fn position(column: &str, text: &str) -> Result<Position, String> {
    text.parse()
        .map_err(|error| format!("column {column}: {error}"))
}

/// The pending checkpoint that the columns of a row hold.
fn pending(row: &impl Columns) -> Result<Option<PendingCheckpoint>, String> {
    let Some(text) = optional(row, "pending_checkpoint")? else {
        return Ok(None);
    };
    let state = row
        .bytes("pending_state")
        .map_err(|error| error.to_string())?;
    Ok(Some(PendingCheckpoint {
        position: position("pending_checkpoint", &text)?,
        state: state.unwrap_or_default(),
    }))
}

fn hash_key_range(row: &impl Columns) -> Result<Option<HashKeyRange>, String> {
    let ends = (
        optional(row, "hash_range_start")?,
        optional(row, "hash_range_end")?,
    );
    let (start, end) = match ends {
        (Some(start), Some(end)) => (start, end),
        (None, None) => return Ok(None),
        (Some(_), None) | (None, Some(_)) => {
            return Err("only one end of the hash key range is there".to_owned());
        }
    };
    let parse = |column: &str, text: &str| {
        text.parse()
            .map_err(|error| format!("column {column}: {error}"))
    };
    let range = HashKeyRange {
        start: parse("hash_range_start", &start)?,
        end: parse("hash_range_end", &end)?,
    };
    if range.start <= range.end {
        Ok(Some(range))
    } else {
        Err(format!(
            "the hash key range ends at {end}, before its start {start}"
        ))
    }
}

/// A worker's row. What it says of itself is advice: what cannot be read counts as not said.
pub(in crate::lease) fn worker(row: &impl Columns) -> Result<WorkerRow, sqlx::Error> {
    let missing = |column: &str| sqlx::Error::ColumnNotFound(column.to_owned());
    let number = |column| u64::try_from(row.number(column).ok().flatten()?).ok();
    let text = |column| row.text(column).ok().flatten();
    let heartbeat = row
        .number("heartbeat")?
        .ok_or_else(|| missing("heartbeat"))?;
    Ok(WorkerRow {
        worker_id: row.text("worker_id")?.ok_or_else(|| missing("worker_id"))?,
        heartbeat: heartbeat.cast_unsigned(),
        profile: WorkerProfile {
            streams: text("streams").and_then(|streams| serde_json::from_str(&streams).ok()),
            failover: number("failover_ms").map(Duration::from_millis),
            max_leases: number("max_leases"),
        },
        loads: text("loads")
            .and_then(|loads| serde_json::from_str(&loads).ok())
            .unwrap_or_default(),
    })
}

/// The column `parents`.
pub(in crate::lease) fn parents_text(lease: &Lease) -> Result<String, Error> {
    serde_json::to_string(&lease.parents).map_err(|source| {
        Error::with_source(
            ErrorKind::Store,
            format!("the parents of lease {} cannot be written", lease.key),
            source,
        )
    })
}

/// The column `loads`: nothing for no load.
pub(in crate::lease) fn loads_text(loads: &Loads) -> Option<String> {
    if loads.is_empty() {
        return None;
    }
    serde_json::to_string(loads).ok()
}

/// The column `streams`.
pub(in crate::lease) fn streams_text(profile: &WorkerProfile) -> Option<String> {
    serde_json::to_string(profile.streams.as_ref()?).ok()
}

/// The column `troubles`: nothing for no trouble.
pub(in crate::lease) fn troubles_text(troubles: &[Trouble]) -> Option<String> {
    if troubles.is_empty() {
        return None;
    }
    serde_json::to_string(troubles).ok()
}

/// The troubles that a worker tells of. They are advice: what cannot be read counts as not said.
pub(in crate::lease) fn troubles(row: &impl Columns) -> Option<(String, Vec<Trouble>)> {
    let worker_id = row.text("worker_id").ok()??;
    let text = row.text("troubles").ok()??;
    Some((worker_id, serde_json::from_str(&text).ok()?))
}

/// Since when a lease has its owner.
pub(in crate::lease) fn owned_since(row: &impl Columns) -> Option<(LeaseKey, u64)> {
    let since = row.number("owned_since_ms").ok()??;
    Some((key(row).ok()?, u64::try_from(since).ok()?))
}

/// The note of a reset.
pub(in crate::lease) fn reset_note(row: &impl Columns) -> Result<ResetNote, sqlx::Error> {
    let number = |column: &str| -> Result<u64, sqlx::Error> {
        let number = row.number(column)?.unwrap_or_default();
        Ok(u64::try_from(number).unwrap_or_default())
    };
    let text =
        |column: &str| -> Result<String, sqlx::Error> { Ok(row.text(column)?.unwrap_or_default()) };
    Ok(ResetNote {
        number: number("number")?,
        at_ms: number("at_ms")?,
        by: text("made_by")?,
        asked: text("asked")?,
        changes: changes_of(&text("changes")?),
    })
}

/// A number that advises, as far as a column can hold it.
pub(in crate::lease) fn advice(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The column `failover_ms`.
pub(in crate::lease) fn failover_ms(profile: &WorkerProfile) -> Option<i64> {
    let failover = profile.failover?;
    Some(i64::try_from(failover.as_millis()).unwrap_or(i64::MAX))
}
