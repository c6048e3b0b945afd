//! Sums by key that an application keeps: what they must be at every moment, when each record counts exactly once.

use crate::check::Violation;
use crate::history::{Acked, Written};
use crate::store::Connection;
use std::collections::BTreeMap;
use std::time::Duration;

/// The table, in every database that an application of the tests keeps it in.
pub const TABLE: &str = "CREATE TABLE IF NOT EXISTS sums (key TEXT PRIMARY KEY, count BIGINT NOT NULL, sum BIGINT NOT NULL)";
/// Adds to the sum of a key.
pub const ADD: &str = "INSERT INTO sums (key, count, sum) VALUES ($1, $2, $3) ON CONFLICT (key) DO UPDATE \
    SET count = sums.count + excluded.count, sum = sums.sum + excluded.sum";

/// How many records of a key counted, and what their amounts come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// Records.
    pub count: i64,
    /// Their amounts.
    pub sum: i64,
}

impl Sum {
    /// Counts a record.
    pub fn add(&mut self, record: &Written) {
        self.count += 1;
        self.sum += record.amount();
    }
}

/// Sums by key.
pub type Sums = BTreeMap<String, Sum>;

/// The sums of some records.
pub fn of<'a>(records: impl IntoIterator<Item = &'a Written>) -> Sums {
    let mut sums = Sums::new();
    for record in records {
        sums.entry(record.writer.clone()).or_default().add(record);
    }
    sums
}

/// The table now; `None` before the first worker has made it, or if the database does not answer.
pub async fn look(connection: &mut Connection) -> Option<Sums> {
    let query = "SELECT key, count, sum FROM sums";
    let rows = connection.rows(query, Duration::from_secs(5), |row| {
        let sum = Sum {
            count: row.number("count"),
            sum: row.number("sum"),
        };
        (row.text("key").unwrap_or_default(), sum)
    });
    Some(rows.await.ok()?.into_iter().collect())
}

/// At every moment: a key's records count in the order they were written, so if so many counted, it was the first
/// so many, each once.
pub fn are_of_first_records(sums: &Sums) -> Result<(), Violation> {
    for (key, found) in sums {
        let mut expected = Sum::default();
        for n in 1..=u64::try_from(found.count).unwrap_or_default() {
            expected.add(&Written {
                writer: key.clone(),
                n,
            });
        }
        if *found != expected {
            return Err(format!(
                "exactly once: {key} has {found:?}, its first {} records come to {expected:?}",
                found.count
            ));
        }
    }
    Ok(())
}

/// At the end: every acknowledged record counted exactly once.
pub fn are_of_all(acked: &[Acked], sums: &Sums) -> Result<(), Violation> {
    let expected = of(acked.iter().map(|one| &one.written));
    for key in expected.keys().chain(sums.keys()) {
        let (wanted, found) = (expected.get(key), sums.get(key));
        if wanted != found {
            return Err(format!(
                "exactly once: {key} has {found:?}, what was put comes to {wanted:?}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Sequence;

    fn written(n: u64) -> Written {
        Written {
            writer: "w".to_owned(),
            n,
        }
    }

    fn sums(counted: &[u64]) -> Sums {
        let records: Vec<Written> = counted.iter().map(|n| written(*n)).collect();
        of(&records)
    }

    #[test]
    fn a_record_that_counts_twice_or_not_at_all_is_noticed() {
        assert_eq!(are_of_first_records(&sums(&[1, 2, 3])), Ok(()));
        assert_eq!(are_of_first_records(&Sums::new()), Ok(()));
        for wrong in [&[1, 3][..], &[1, 2, 2], &[2], &[1, 1, 3, 4], &[1, 3, 3, 5]] {
            let violation = are_of_first_records(&sums(wrong)).unwrap_err();
            assert!(violation.starts_with("exactly once: w"), "{violation}");
        }
    }

    #[test]
    fn what_is_missing_at_the_end_is_noticed() {
        let acked: Vec<Acked> = (1..=3)
            .map(|n| Acked {
                written: written(n),
                shard: "shard".to_owned(),
                sequence: Sequence::new(&n.to_string()),
            })
            .collect();
        assert_eq!(are_of_all(&acked, &sums(&[1, 2, 3])), Ok(()));
        for wrong in [&[1, 2][..], &[1, 2, 3, 4], &[], &[1, 2, 3, 3]] {
            assert!(are_of_all(&acked, &sums(wrong)).is_err(), "{wrong:?}");
        }
    }
}
