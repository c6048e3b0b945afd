//! Who lives: heartbeats are listened for, on the own monotonic clock. Clocks of machines are never compared.

use crate::clock::{self, Instant};
use crate::error::Error;
use crate::lease::renew::bounded;
use crate::lease::{Inspection, LeaseStore, WorkerRow};
use std::collections::BTreeMap;
use std::time::Duration;

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// Limit on one call of the store.
pub(super) const STORE_LIMIT: Duration = Duration::from_secs(10);
/// The fail-over time of a worker that does not say its own: the default.
const FAILOVER: Duration = Duration::from_secs(10);

/// What a worker was heard to do while it was listened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Its heartbeat moved, this long ago.
    Heard {
        /// How long ago.
        ago: Duration,
    },
    /// Its heartbeat has not moved for this long: less than its fail-over time, so that it may live.
    Silent {
        /// For how long.
        so_far: Duration,
    },
    /// Its heartbeat has not moved for its fail-over time, or it has no row: others take its leases.
    Dead {
        /// For how long at least.
        so_far: Duration,
    },
}

/// What was seen while workers were listened for.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    /// The first look.
    pub(super) first: Inspection,
    /// The last one.
    pub(super) last: Inspection,
    lives: BTreeMap<String, Life>,
}

impl Watched {
    /// How the worker does; one without a row is dead.
    pub(super) fn life(&self, worker_id: &str) -> Life {
        let so_far = Duration::ZERO;
        let known = self.lives.get(worker_id).copied();
        known.unwrap_or(Life::Dead { so_far })
    }

    /// Workers that were heard, or may live.
    pub(super) fn may_live(&self) -> impl Iterator<Item = &WorkerRow> {
        let rows = self.last.snapshot.workers.iter();
        rows.filter(|row| !matches!(self.life(&row.worker_id), Life::Dead { .. }))
    }
}

/// The fail-over time of a worker.
pub(super) fn failover_of(row: &WorkerRow) -> Duration {
    row.profile.failover.unwrap_or(FAILOVER)
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    heartbeat: u64,
    since: Instant,
    moved: bool,
}

/// When there is no need to listen any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// Of every worker it is known whether it lives.
    AllKnown,
    /// One lives.
    OneLives,
}

/// Listens for heartbeats until enough is known, for `patience` at most.
pub(super) async fn watch(
    store: &dyn LeaseStore,
    application: &str,
    until: Until,
    patience: Duration,
) -> Result<Watched, Error> {
    let look = || bounded(STORE_LIMIT, store.inspect(application));
    let first = look().await?;
    let began = clock::now();
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    let mut last = first.clone();
    note(&mut seen, &last, began, Sight::First);
    loop {
        let now = clock::now();
        note(&mut seen, &last, now, Sight::Later);
        let lives: BTreeMap<String, Life> = last
            .snapshot
            .workers
            .iter()
            .filter_map(|row| {
                Some((
                    row.worker_id.clone(),
                    life(seen.get(&row.worker_id)?, row, now),
                ))
            })
            .collect();
        let is_known = |life: &Life| !matches!(life, Life::Silent { .. });
        let enough = lives.values().all(is_known)
            || until == Until::OneLives
                && lives
                    .values()
                    .any(|life| matches!(life, Life::Heard { .. }));
        if enough || now.saturating_duration_since(began) >= patience {
            return Ok(Watched { first, last, lives });
        }
        tokio::time::sleep(LOOK).await;
        last = look().await?;
    }
}

/// Which look it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    First,
    Later,
}

/// A worker whose row comes while it is listened for lives.
fn note(seen: &mut BTreeMap<String, Seen>, looked: &Inspection, now: Instant, sight: Sight) {
    for row in &looked.snapshot.workers {
        let known = seen.get(&row.worker_id);
        if known.is_some_and(|known| known.heartbeat == row.heartbeat) {
            continue;
        }
        let this = Seen {
            heartbeat: row.heartbeat,
            since: now,
            moved: sight == Sight::Later,
        };
        seen.insert(row.worker_id.clone(), this);
    }
}

fn life(seen: &Seen, row: &WorkerRow, now: Instant) -> Life {
    let so_far = now.saturating_duration_since(seen.since);
    if so_far >= failover_of(row) {
        Life::Dead { so_far }
    } else if seen.moved {
        Life::Heard { ago: so_far }
    } else {
        Life::Silent { so_far }
    }
}
