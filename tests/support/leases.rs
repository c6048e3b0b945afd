//! The lease table as it is stored, read beside the workers, and what must hold from one look to the next.

use crate::check::Violation;
use crate::history::Sequence;
use crate::store::Connection;
use std::cmp::Ordering;
use std::collections::BTreeMap;
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

/// How long a look may take.
const LOOK: Duration = Duration::from_secs(5);

/// The table now; `None` before the first worker has made it, or if the database does not answer.
pub async fn look(connection: &mut Connection) -> Option<LeaseTable> {
    let query = "SELECT lease_key, lease_owner, lease_counter, checkpoint FROM leases";
    let rows = connection.rows(query, LOOK, |row| {
        let lease = LeaseRow {
            owner: row.text("lease_owner"),
            counter: row.number("lease_counter"),
            checkpoint: row.text("checkpoint").unwrap_or_default(),
        };
        (row.text("lease_key").unwrap_or_default(), lease)
    });
    Some(rows.await.ok()?.into_iter().collect())
}

/// K1 and K3 between two looks: a counter never falls and grows with every change of owner; nobody checkpoints a lease that
/// nobody holds; a checkpoint never moves back, and the end of a shard is final.
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
        let is_free = then.owner.is_none() && now.counter == then.counter;
        if is_free && now.checkpoint != then.checkpoint {
            return Err(format!(
                "K1: {shard} was checkpointed without an owner, from {then:?} to {now:?}"
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
        let free = table(None, 6, "1000");
        assert_eq!(moves_forward(&free, &table(Some("b"), 7, "1001")), Ok(()));
        assert!(moves_forward(&free, &table(None, 6, "1001")).is_err());
        let ended = table(None, 5, "SHARD_END");
        assert!(moves_forward(&ended, &table(None, 6, "1002")).is_err());
    }
}
