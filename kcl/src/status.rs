//! What each shard of a worker is doing, and since when: so that a shard that does not move has a reason that can be asked for (K10).

use crate::checkpoint::Position;
use crate::clock::{self, Instant};
use crate::lease::{LeaseKey, TROUBLE_MAX_CHARS, TROUBLES_MAX, Trouble};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
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
    /// Name of its stream.
    pub stream_name: String,
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

/// Trouble that is over sooner is told to nobody else.
const TROUBLE_MIN: Duration = Duration::from_secs(1);
/// How long a batch may be in work before that is told.
const SLOW_BATCH: Duration = Duration::from_secs(10);
/// A failure that is not noted again within this time, longer than any pause between two attempts, is over.
const FAILURE_LASTS: Duration = Duration::from_mins(1);

/// The longest error text kept, in bytes.
const ERROR_MAX_BYTES: usize = 1024;

/// The place of one shard on the board, for as long as its consumer lives.
#[derive(Debug)]
pub(crate) struct Posted {
    board: Arc<Board>,
    shard: LeaseKey,
}

impl Posted {
    /// The consumer does something else now. The same again goes on since it began, and so does a retry of the same thing.
    pub(crate) fn note(&self, activity: Activity) {
        self.board.note(&self.shard, activity);
    }

    /// Something failed and is tried again.
    pub(crate) fn retrying(
        &self,
        what: &dyn fmt::Display,
        attempts: u32,
        error: &dyn fmt::Display,
    ) {
        let mut error = error.to_string();
        if error.len() > ERROR_MAX_BYTES {
            error.truncate(error.floor_char_boundary(ERROR_MAX_BYTES));
        }
        self.note(Activity::Retrying {
            what: what.to_string(),
            attempts,
            error,
        });
    }

    /// Where the shard has got to.
    pub(crate) fn progress(&self, handled: Position, behind_ms: u64) {
        self.board.with(|shards| {
            if let Some(entry) = shards.get_mut(&self.shard) {
                entry.handled = handled;
                entry.behind_ms = behind_ms;
            }
        });
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        self.board.with(|shards| shards.remove(&self.shard));
    }
}

/// The status of every shard that a worker holds.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// One short lock around plain data; never held across an await.
    shards: Mutex<BTreeMap<LeaseKey, Entry>>,
}

#[derive(Debug)]
struct Entry {
    stream_name: String,
    activity: Activity,
    since: Instant,
    /// What failed last, and when it first did.
    trouble: Option<(String, Instant)>,
    /// The last failure that is tried again, and when it was noted; none once something else has succeeded.
    failing: Option<(Activity, Instant)>,
    handled: Position,
    behind_ms: u64,
}

impl Entry {
    /// What keeps the shard from getting on, and since when.
    fn troubled(&self, now: Instant) -> Option<(&Activity, Instant)> {
        let lasts = |since: Instant, least: Duration| now.saturating_duration_since(since) >= least;
        if let (Some((activity, noted)), Some((_, since))) = (&self.failing, &self.trouble)
            && !lasts(*noted, FAILURE_LASTS)
        {
            return lasts(*since, TROUBLE_MIN).then_some((activity, *since));
        }
        let least = match self.activity {
            Activity::WaitingForRenewal => TROUBLE_MIN,
            Activity::Processing { .. } => SLOW_BATCH,
            _ => return None,
        };
        lasts(self.since, least).then_some((&self.activity, self.since))
    }
}

impl Board {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<LeaseKey, Entry>) -> T) -> T {
        act(&mut self.shards.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A consumer has begun; a shard never has two.
    pub(crate) fn post(
        self: &Arc<Self>,
        stream_name: &str,
        shard: &LeaseKey,
        handled: Position,
    ) -> Posted {
        let entry = Entry {
            stream_name: stream_name.to_owned(),
            activity: Activity::Initializing,
            since: clock::now(),
            trouble: None,
            failing: None,
            handled,
            behind_ms: 0,
        };
        self.with(|shards| shards.insert(shard.clone(), entry));
        Posted {
            board: Arc::clone(self),
            shard: shard.clone(),
        }
    }

    fn note(&self, shard: &LeaseKey, activity: Activity) {
        self.with(|shards| {
            let Some(entry) = shards.get_mut(shard) else {
                return;
            };
            let now = clock::now();
            match &activity {
                Activity::Retrying { what, attempts, .. } => {
                    let known = entry.trouble.take();
                    let known = known.filter(|(before, _)| *attempts > 1 && before == what);
                    let trouble = known.unwrap_or_else(|| (what.clone(), now));
                    entry.since = trouble.1;
                    entry.trouble = Some(trouble);
                }
                next if entry.activity != *next => entry.since = now,
                _ => {}
            }
            match &activity {
                Activity::Retrying { .. } => entry.failing = Some((activity.clone(), now)),
                // The next attempt.
                Activity::Processing { .. } | Activity::WaitingForRenewal => {}
                _ => entry.failing = None,
            }
            entry.activity = activity;
        });
    }

    /// What troubles the shards, those first that have been so for longest: failures that are tried again, also while an attempt is made,
    /// batches that take long, and leases that are not renewed.
    pub(crate) fn troubles(&self) -> Vec<Trouble> {
        let now = clock::now();
        let mut troubles: Vec<Trouble> = self.with(|shards| {
            let trouble = |(shard, entry): (&LeaseKey, &Entry)| {
                let (activity, since) = entry.troubled(now)?;
                let lasted = now.saturating_duration_since(since).as_millis();
                Some(Trouble {
                    stream: Some(shard.stream.clone()),
                    shard_id: shard.shard_id.clone(),
                    what: activity
                        .to_string()
                        .chars()
                        .take(TROUBLE_MAX_CHARS)
                        .collect(),
                    for_ms: u64::try_from(lasted).unwrap_or(u64::MAX),
                })
            };
            shards.iter().filter_map(trouble).collect()
        });
        troubles.sort_by_key(|trouble| std::cmp::Reverse(trouble.for_ms));
        troubles.truncate(TROUBLES_MAX);
        troubles
    }

    /// Everything, in order of streams and shards' ids.
    pub(crate) fn read(&self) -> Vec<ShardStatus> {
        let now = clock::now();
        let status = |(shard, entry): (&LeaseKey, &Entry)| ShardStatus {
            stream_name: entry.stream_name.clone(),
            shard_id: shard.shard_id.clone(),
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
        let board = Arc::<Board>::default();
        let shard = LeaseKey {
            stream: "s@1".to_owned(),
            shard_id: "a".to_owned(),
        };
        let posted = board.post("s", &shard, Position::TrimHorizon);
        let pass = || tokio::time::advance(Duration::from_secs(1));
        pass().await;
        posted.note(Activity::Reading);
        pass().await;
        posted.note(Activity::Reading);
        pass().await;
        assert_eq!(board.read()[0].for_how_long, Duration::from_secs(2));
        for attempt in 1..=3 {
            posted.note(Activity::Processing { records: 1 });
            posted.retrying(&"process_records", attempt, &"é".repeat(10_000));
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
        posted.retrying(&"initialize", 1, &"no");
        assert_eq!(board.read()[0].for_how_long, Duration::ZERO);
        posted.progress(Position::AtTimestamp(7), 1500);
        let status = board.read().remove(0);
        assert_eq!(status.handled, Position::AtTimestamp(7));
        assert_eq!(status.behind_latest, Duration::from_millis(1500));
        drop(posted);
        assert_eq!(board.read(), []);
    }
}
