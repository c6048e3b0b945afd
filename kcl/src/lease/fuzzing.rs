//! How rows of a lease store are read, for the fuzz suite of this workspace, which has no other way to it. Not part of the API.

use crate::lease::sql::row::{self, Columns};
use crate::lease::{Lease, LeaseKey, ResetNote, Trouble, WorkerRow};
use std::collections::BTreeMap;

/// What a column of a row holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// A row whose columns hold what anybody may have put there; those that are not named hold nothing.
#[derive(Debug, Clone, Default)]
pub struct Cells(pub BTreeMap<String, Cell>);

impl Cells {
    fn get<T>(
        &self,
        column: &str,
        read: impl Fn(&Cell) -> Option<T>,
    ) -> Result<Option<T>, sqlx::Error> {
        let Some(cell) = self.0.get(column) else {
            return Ok(None);
        };
        let mismatched = || sqlx::Error::ColumnDecode {
            index: column.to_owned(),
            source: "mismatched types".into(),
        };
        read(cell).map(Some).ok_or_else(mismatched)
    }
}

impl Columns for Cells {
    fn text(&self, column: &str) -> Result<Option<String>, sqlx::Error> {
        self.get(column, |cell| match cell {
            Cell::Text(text) => Some(text.clone()),
            _ => None,
        })
    }

    fn number(&self, column: &str) -> Result<Option<i64>, sqlx::Error> {
        self.get(column, |cell| match cell {
            Cell::Number(number) => Some(*number),
            _ => None,
        })
    }

    fn bytes(&self, column: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
        self.get(column, |cell| match cell {
            Cell::Bytes(bytes) => Some(bytes.clone()),
            _ => None,
        })
    }
}

/// A row of the table of leases.
///
/// # Errors
/// What is wrong with it.
pub fn lease(cells: &Cells) -> Result<Lease, String> {
    let key = row::key(cells)?;
    row::decode(&key, cells)
}

/// The columns of a row that holds this lease.
pub fn cells_of(lease: &Lease) -> Cells {
    let mut cells = BTreeMap::new();
    let mut put = |column: &str, cell| cells.insert(column.to_owned(), cell);
    let number = |number: u64| Cell::Number(row::advice(number));
    put("stream", Cell::Text(lease.key.stream.clone()));
    put("lease_key", Cell::Text(lease.key.shard_id.clone()));
    put("lease_counter", number(lease.counter));
    put("owner_switches", number(lease.owner_switches));
    put("checkpoint", Cell::Text(lease.checkpoint.to_string()));
    if let Ok(parents) = row::parents_text(lease) {
        put("parents", Cell::Text(parents));
    }
    let texts = [
        ("lease_owner", &lease.owner),
        ("wanted_by", &lease.wanted_by),
    ];
    for (column, text) in texts {
        text.clone().map(|text| put(column, Cell::Text(text)));
    }
    if let Some(pending) = &lease.pending {
        put(
            "pending_checkpoint",
            Cell::Text(pending.position.to_string()),
        );
        put("pending_state", Cell::Bytes(pending.state.clone()));
    }
    if let Some(range) = lease.hash_key_range {
        put("hash_range_start", Cell::Text(range.start.to_string()));
        put("hash_range_end", Cell::Text(range.end.to_string()));
    }
    Cells(cells)
}

/// A row of the table of workers.
///
/// # Errors
/// It has no heartbeat or no id.
pub fn worker(cells: &Cells) -> Result<WorkerRow, sqlx::Error> {
    row::worker(cells)
}

/// What a worker says troubles its shards.
pub fn troubles(cells: &Cells) -> Option<(String, Vec<Trouble>)> {
    row::troubles(cells)
}

/// Since when a lease has its owner.
pub fn owned_since(cells: &Cells) -> Option<(LeaseKey, u64)> {
    row::owned_since(cells)
}

/// A row of the table of resets.
///
/// # Errors
/// A column holds something else than it should.
pub fn reset_note(cells: &Cells) -> Result<ResetNote, sqlx::Error> {
    row::reset_note(cells)
}
