//! Whether a worker does its work: one answer for probes, and for people the reasons.

use crate::clock::{self, Instant};
use crate::error::Error;
use crate::lease::renew::OwnerWindow;
use crate::status::{Activity, ShardStatus};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A shard that is tried again for so long is a reason.
const RETRYING_LONG: Duration = Duration::from_secs(30);
/// Shards that are named at most.
const SHARDS_NAMED: usize = 5;
/// The loop of a worker that lives turns within so many fail-over times.
const SILENT_MAX: u32 = 3;

/// What a worker is doing as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HealthState {
    /// It was built, and has not yet registered and listed its shards.
    Starting,
    /// It works, as far as it knows.
    Serving,
    /// It lives, and something keeps it from working: see the reasons.
    Degraded,
    /// It gives its leases up.
    Stopping,
    /// It has ended, or was dropped.
    Stopped,
}

/// The health of a worker: [`WorkerHandle::health`](crate::WorkerHandle::health). Serialised, it is an object of its fields.
///
/// ```no_run
/// # fn example(handle: &kcl::WorkerHandle) {
/// let health = handle.health();
/// let (liveness, readiness) = (health.is_live(), health.is_ready()); // 200 or 503
/// println!("{health}"); // degraded, 4 shards held: the leases cannot be renewed in time, ...
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// What it is doing.
    pub state: HealthState,
    /// Why it is degraded, or ended: for people.
    pub reasons: Vec<String>,
    /// Shards that it holds.
    pub shards: usize,
    live: bool,
    ready: bool,
}

impl Health {
    /// For a liveness probe: `false` if the worker has ended, or hangs so that only a new process helps (its loop has not turned for three fail-over
    /// times). A lease store or endpoint that is out of reach is no reason.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// For a readiness probe: it has started, is not stopping, and nothing keeps it from working.
    pub fn is_ready(&self) -> bool {
        self.ready
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            HealthState::Starting => "starting",
            HealthState::Serving => "serving",
            HealthState::Degraded => "degraded",
            HealthState::Stopping => "stopping",
            HealthState::Stopped => "stopped",
        };
        let plural = if self.shards == 1 { "" } else { "s" };
        write!(f, "{state}, {} shard{plural} held", self.shards)?;
        if !self.reasons.is_empty() {
            write!(f, ": {}", self.reasons.join("; "))?;
        }
        Ok(())
    }
}

/// What the parts of a worker report of themselves.
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    /// One short lock around plain data; never held across an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Set when the worker has started.
    beating: Option<Beating>,
    stopping: bool,
    troubles: BTreeMap<String, (Instant, String)>,
}

#[derive(Debug)]
struct Beating {
    window: OwnerWindow,
    failover_time: Duration,
    /// When the loop turned last.
    turned: Instant,
}

impl Vitals {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The worker has started.
    pub(crate) fn begin(&self, window: OwnerWindow, failover_time: Duration) {
        let beating = Beating {
            window,
            failover_time,
            turned: clock::now(),
        };
        self.with(|state| state.beating = Some(beating));
    }

    /// The worker's loop has got on.
    pub(crate) fn turned(&self) {
        self.with(|state| {
            if let Some(beating) = &mut state.beating {
                beating.turned = clock::now();
            }
        });
    }

    /// The worker gives its leases up.
    pub(crate) fn stopping(&self) {
        self.with(|state| state.stopping = true);
    }

    /// Something fails, perhaps not for the first time.
    pub(crate) fn trouble(&self, what: &str, error: &Error) {
        let now = clock::now();
        self.with(|state| {
            let trouble = state
                .troubles
                .entry(what.to_owned())
                .or_insert((now, String::new()));
            trouble.1 = error.to_string();
        });
    }

    /// It works.
    pub(crate) fn well(&self, what: &str) {
        self.with(|state| state.troubles.remove(what));
    }

    /// All of it.
    pub(crate) fn health(&self, shards: &[ShardStatus], stopped: bool) -> Health {
        let now = clock::now();
        self.with(|state| {
            let mut reasons = state.reasons(now);
            let state_now = match &state.beating {
                _ if stopped => HealthState::Stopped,
                _ if state.stopping => HealthState::Stopping,
                None => HealthState::Starting,
                Some(_) => {
                    reasons.extend(stalled(shards));
                    if reasons.is_empty() {
                        HealthState::Serving
                    } else {
                        HealthState::Degraded
                    }
                }
            };
            let silent = |beating: &Beating| {
                let silence = now.saturating_duration_since(beating.turned);
                silence > beating.failover_time * SILENT_MAX
            };
            let hangs = !state.stopping && state.beating.as_ref().is_some_and(silent);
            Health {
                state: state_now,
                reasons,
                shards: shards.len(),
                live: !stopped && !hangs,
                ready: state_now == HealthState::Serving && !hangs,
            }
        })
    }
}

impl State {
    fn reasons(&self, now: Instant) -> Vec<String> {
        let mut reasons = Vec::new();
        let patience = match &self.beating {
            Some(beating) if !self.stopping => {
                if !beating.window.is_open() {
                    reasons.push(
                        "the leases cannot be renewed in time, so nothing is delivered".to_owned(),
                    );
                }
                beating.failover_time / 2
            }
            Some(_) | None => Duration::ZERO,
        };
        for (what, (since, error)) in &self.troubles {
            let lasts = now.saturating_duration_since(*since);
            if lasts >= patience {
                reasons.push(format!("{what} for {} s: {error}", lasts.as_secs()));
            }
        }
        reasons
    }
}

/// The shards that are tried again for long.
fn stalled(shards: &[ShardStatus]) -> Vec<String> {
    let is_long = |status: &&ShardStatus| {
        matches!(status.activity, Activity::Retrying { .. }) && status.for_how_long >= RETRYING_LONG
    };
    let stalled: Vec<&ShardStatus> = shards.iter().filter(is_long).collect();
    let named = stalled.iter().take(SHARDS_NAMED);
    let mut reasons: Vec<String> = named
        .map(|status| {
            let seconds = status.for_how_long.as_secs();
            format!(
                "{} of {} for {seconds} s: {}",
                status.shard_id, status.stream_name, status.activity
            )
        })
        .collect();
    if stalled.len() > SHARDS_NAMED {
        reasons.push(format!("and {} shards more", stalled.len() - SHARDS_NAMED));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Position;
    use crate::error::ErrorKind;

    const FAILOVER: Duration = Duration::from_secs(10);

    fn begun() -> Vitals {
        let vitals = Vitals::default();
        let hour = Duration::from_hours(1);
        vitals.begin(OwnerWindow::open(clock::now(), hour), FAILOVER);
        vitals
    }

    /// Goal: K10, a worker that hangs is told from one that waits. Method: the loop turns, then stops turning.
    #[tokio::test(start_paused = true)]
    async fn k10_a_loop_that_does_not_turn_is_not_live() {
        let vitals = Vitals::default();
        tokio::time::advance(FAILOVER * 10).await;
        let starting = vitals.health(&[], false);
        assert!(starting.is_live() && !starting.is_ready(), "{starting}");
        let vitals = begun();
        for _ in 0..10 {
            tokio::time::advance(FAILOVER * SILENT_MAX).await;
            assert!(vitals.health(&[], false).is_live());
            vitals.turned();
        }
        assert!(vitals.health(&[], false).is_ready());
        tokio::time::advance(FAILOVER * SILENT_MAX + Duration::from_millis(1)).await;
        let hung = vitals.health(&[], false);
        assert!(!hung.is_live() && !hung.is_ready(), "{hung}");
        vitals.stopping();
        assert!(vitals.health(&[], false).is_live(), "it has its own limits");
        assert!(!vitals.health(&[], true).is_live());
    }

    #[tokio::test(start_paused = true)]
    async fn troubles_are_reasons_once_they_last() {
        let vitals = begun();
        let error = Error::new(ErrorKind::Unavailable, "no answer");
        vitals.trouble("the shards cannot be listed", &error);
        assert_eq!(vitals.health(&[], false).state, HealthState::Serving);
        tokio::time::advance(FAILOVER / 2).await;
        vitals.trouble("the shards cannot be listed", &error);
        let text = vitals.health(&[], false).to_string();
        let expected = "degraded, 0 shards held: the shards cannot be listed for 5 s: no answer";
        assert_eq!(text, expected);
        vitals.well("the shards cannot be listed");
        assert!(vitals.health(&[], false).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn shards_that_are_retried_for_long_are_named_but_not_all_of_them() {
        let status = |shard: usize, seconds: u64| ShardStatus {
            stream_name: "orders".to_owned(),
            shard_id: format!("shard-{shard}"),
            activity: Activity::Retrying {
                what: "process_records".to_owned(),
                attempts: 9,
                error: "poison".to_owned(),
            },
            for_how_long: Duration::from_secs(seconds),
            handled: Position::TrimHorizon,
            behind_latest: Duration::ZERO,
            retrieving: crate::status::Retrieving::default(),
        };
        let vitals = begun();
        let health = vitals.health(&[status(0, 29)], false);
        assert_eq!(health.state, HealthState::Serving, "{health}");
        let many: Vec<ShardStatus> = (0..9).map(|shard| status(shard, 60)).collect();
        let health = vitals.health(&many, false);
        assert_eq!(health.reasons.len(), SHARDS_NAMED + 1);
        assert!(health.reasons[0].contains("shard-0 of orders for 60 s") && health.is_live());
        let json = serde_json::to_value(&health).unwrap();
        assert_eq!(json["state"], "degraded");
        assert_eq!(
            (&json["live"], &json["ready"]),
            (&true.into(), &false.into())
        );
    }
}
