//! The sums that workers keep, as a test reads them.

use crate::scene::PATIENCE;
use support::history::Acked;
use support::{Store, check, sums};
use tokio::time::Instant;

/// A database with a table of sums.
#[derive(Debug, Clone)]
pub(crate) struct Books {
    store: Store,
}

impl Books {
    /// Those in `store`, made if they are not there.
    pub(crate) async fn open(store: Store) -> Books {
        let mut connection = store.connect().await.unwrap();
        connection.change(sums::TABLE.to_owned()).await.unwrap();
        Books { store }
    }

    /// The sums now, waiting for a database that does not answer. Whatever they are, they are those of the first
    /// records of each key.
    pub(crate) async fn audit(&self) -> sums::Sums {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(mut connection) = self.store.look().await
                && let Some(found) = sums::look(&mut connection).await
            {
                sums::are_of_first_records(&found).unwrap();
                return found;
            }
            assert!(Instant::now() < deadline, "{} cannot be read", self.store);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Waits until everything that was put counts.
    pub(crate) async fn complete(&self, acked: &[Acked]) -> Result<(), check::Violation> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let verdict = sums::are_of_all(acked, &self.audit().await);
            if verdict.is_ok() || Instant::now() > deadline {
                return verdict;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}
