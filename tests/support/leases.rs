//! The lease table as it is on disk, read beside the workers, and what must hold from one look to the next.

use crate::check::Violation;
use crate::history::Sequence;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Row, SqliteConnection};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// Who holds the shard.
    pub owner: Option<String>,
    /// The fencing token.
    pub counter: i64,
    /// How far the application has got.
    pub checkpoint: String,
}

/// Rows by shard.
pub type LeaseTable = BTreeMap<String, LeaseRow>;

/// A connection that only looks.
pub async fn open(path: &Path) -> Option<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(Duration::from_secs(5));
    options.read_only(true).connect().await.ok()
}

/// The table now; empty before the first worker has made it.
pub async fn look(connection: &mut SqliteConnection) -> LeaseTable {
    let query = "SELECT lease_key, lease_owner, lease_counter, checkpoint FROM leases";
    let rows = sqlx::query(query)
        .fetch_all(connection)
        .await
        .unwrap_or_default();
    rows.iter()
        .map(|row| {
            let lease = LeaseRow {
                owner: row.get("lease_owner"),
                counter: row.get("lease_counter"),
                checkpoint: row.get("checkpoint"),
            };
            (row.get("lease_key"), lease)
        })
        .collect()
}

/// K1 and K3 between two looks: a counter never falls and grows with every change of owner; a checkpoint
/// never moves back, and the end of a shard is final.
pub fn moves_forward(before: &LeaseTable, after: &LeaseTable) -> Result<(), Violation> {
    for (shard, now) in after {
        let Some(then) = before.get(shard) else {
            continue;
        };
        if now.counter < then.counter || (now.counter == then.counter && now.owner != then.owner) {
            return Err(format!(
                "K1: lease of {shard} went from {then:?} to {now:?}"
            ));
        }
        if progress(&now.checkpoint).cmp(&progress(&then.checkpoint)) == Ordering::Less {
            return Err(format!(
                "K3: checkpoint of {shard} went from {then:?} to {now:?}"
            ));
        }
    }
    Ok(())
}

/// Stored positions in order: nothing done, done up to a record, done.
fn progress(checkpoint: &str) -> (u8, Option<Sequence>) {
    match checkpoint {
        "SHARD_END" => (2, None),
        start if start == "TRIM_HORIZON" || start.starts_with("AT_TIMESTAMP:") => (0, None),
        record => {
            let record = record.strip_prefix("AT_SEQUENCE_NUMBER:").unwrap_or(record);
            (1, record.split(':').next().map(Sequence::new))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(owner: Option<&str>, counter: i64, checkpoint: &str) -> LeaseTable {
        let row = LeaseRow {
            owner: owner.map(str::to_owned),
            counter,
            checkpoint: checkpoint.to_owned(),
        };
        BTreeMap::from([("shard".to_owned(), row)])
    }

    #[test]
    fn steps_back_are_noticed() {
        let before = table(Some("a"), 5, "1000");
        for fine in [
            table(Some("a"), 5, "1000"),
            table(Some("a"), 5, "1001:3"),
            table(None, 6, "1001"),
            table(Some("b"), 7, "SHARD_END"),
        ] {
            assert_eq!(moves_forward(&before, &fine), Ok(()));
        }
        for (wrong, guarantee) in [
            (table(Some("b"), 5, "1000"), "K1"),
            (table(Some("a"), 4, "1000"), "K1"),
            (table(Some("a"), 5, "999"), "K3"),
            (table(Some("b"), 6, "TRIM_HORIZON"), "K3"),
        ] {
            let violation = moves_forward(&before, &wrong).unwrap_err();
            assert!(violation.starts_with(guarantee), "{violation}");
        }
        let ended = table(None, 5, "SHARD_END");
        assert!(moves_forward(&ended, &table(None, 6, "1002")).is_err());
    }
}
