//! What each shard of a worker is doing, and since when: so that a shard that does not move has a reason that can be asked for (K10).

use crate::checkpoint::Position;
use crate::clock::{self, Instant};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What a shard consumer is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activity {
    /// The record processor is being made and initialized.
    Initializing,
    /// It waits for records: they are being read, or there are none.
    Reading,
    /// The record processor has a batch.
    Processing {
        /// Records in the batch.
        records: usize,
    },
    /// The worker cannot prove that it holds its leases: renewing them fails or is late.
    WaitingForRenewal,
    /// Something failed and is tried again after a pause.
    Retrying {
        /// What failed: a callback of the record processor, or a step of the library.
        what: String,
        /// How often, in a row.
        attempts: u32,
        /// The last error.
        error: String,
    },
    /// The shard was read to its end, which is being stored.
    Ending,
    /// The lease is being given up.
    Releasing,
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Activity::Initializing => f.write_str("initializing the record processor"),
            Activity::Reading => f.write_str("waiting for records"),
            Activity::Processing { records } => write!(f, "processing {records} records"),
            Activity::WaitingForRenewal => {
                f.write_str("waiting until the worker's leases are renewed")
            }
            Activity::Retrying {
                what,
                attempts,
                error,
            } => write!(
                f,
                "trying {what} again, which failed {attempts} times: {error}"
            ),
            Activity::Ending => f.write_str("storing the shard's end"),
            Activity::Releasing => f.write_str("giving the lease up"),
        }
    }
}

/// A shard that this worker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardStatus {
    /// The shard.
    pub shard_id: String,
    /// What its consumer is doing.
    pub activity: Activity,
    /// For how long. A retry counts from its first failure.
    pub for_how_long: Duration,
    /// How far processing has got.
    pub handled: Position,
    /// How far the last page was behind the tip of the shard.
    pub behind_latest: Duration,
}

/// The longest error text kept, in bytes.
const ERROR_MAX_BYTES: usize = 1024;

/// The status of every shard that a worker holds.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// One short lock around plain data; never held across an await.
    shards: Mutex<BTreeMap<String, Entry>>,
}

#[derive(Debug)]
struct Entry {
    activity: Activity,
    since: Instant,
    handled: Position,
    behind_ms: u64,
}

impl Board {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<String, Entry>) -> T) -> T {
        act(&mut self.shards.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A consumer has begun.
    pub(crate) fn add(&self, shard_id: &str, handled: Position) {
        let entry = Entry {
            activity: Activity::Initializing,
            since: clock::now(),
            handled,
            behind_ms: 0,
        };
        self.with(|shards| shards.insert(shard_id.to_owned(), entry));
    }

    /// The consumer has ended.
    pub(crate) fn remove(&self, shard_id: &str) {
        self.with(|shards| shards.remove(shard_id));
    }

    /// The consumer does something else now. The same again goes on since it began, and so does a retry of the same thing.
    pub(crate) fn note(&self, shard_id: &str, activity: Activity) {
        self.with(|shards| {
            let Some(entry) = shards.get_mut(shard_id) else {
                return;
            };
            let goes_on = match (&entry.activity, &activity) {
                (Activity::Retrying { what, .. }, Activity::Retrying { what: next, .. }) => {
                    what == next
                }
                (before, next) => before == next,
            };
            if !goes_on {
                entry.since = clock::now();
            }
            entry.activity = activity;
        });
    }

    /// Something failed and is tried again.
    pub(crate) fn retrying(&self, shard_id: &str, what: &str, attempts: u32, error: &str) {
        let mut error = error.to_owned();
        if error.len() > ERROR_MAX_BYTES {
            let end = error.floor_char_boundary(ERROR_MAX_BYTES);
            error.truncate(end);
        }
        let activity = Activity::Retrying {
            what: what.to_owned(),
            attempts,
            error,
        };
        self.note(shard_id, activity);
    }

    /// Where the shard has got to.
    pub(crate) fn progress(&self, shard_id: &str, handled: Position, behind_ms: u64) {
        self.with(|shards| {
            if let Some(entry) = shards.get_mut(shard_id) {
                entry.handled = handled;
                entry.behind_ms = behind_ms;
            }
        });
    }

    /// Everything, in order of the shards' ids.
    pub(crate) fn read(&self) -> Vec<ShardStatus> {
        let now = clock::now();
        let status = |(shard_id, entry): (&String, &Entry)| ShardStatus {
            shard_id: shard_id.clone(),
            activity: entry.activity.clone(),
            for_how_long: now.saturating_duration_since(entry.since),
            handled: entry.handled,
            behind_latest: Duration::from_millis(entry.behind_ms),
        };
        self.with(|shards| shards.iter().map(status).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn k10_an_activity_counts_from_its_beginning() {
        let board = Board::default();
        board.add("a", Position::TrimHorizon);
        let pass = || tokio::time::advance(Duration::from_secs(1));
        pass().await;
        board.note("a", Activity::Reading);
        pass().await;
        board.note("a", Activity::Reading);
        pass().await;
        assert_eq!(board.read()[0].for_how_long, Duration::from_secs(2));
        for attempt in 1..=3 {
            board.retrying("a", "process_records", attempt, &"é".repeat(10_000));
            pass().await;
        }
        let status = board.read().remove(0);
        assert_eq!(status.for_how_long, Duration::from_secs(3));
        let Activity::Retrying {
            attempts, error, ..
        } = status.activity
        else {
            panic!("{status:?}")
        };
        assert_eq!((attempts, error.len()), (3, ERROR_MAX_BYTES));
        board.retrying("a", "initialize", 1, "no");
        assert_eq!(board.read()[0].for_how_long, Duration::ZERO);
        board.remove("a");
        board.note("a", Activity::Reading);
        assert_eq!(board.read(), []);
    }
}
