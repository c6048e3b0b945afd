//! Keeps a worker's leases alive, and knows until when they surely are: the owner window (K2).
//!
//! A renewal counts from the moment *before* it was sent. After a lapse the window stays closed until a renewal
//! succeeded and the leases were seen unchanged after it. Taking, listing and planning happen elsewhere.

use crate::clock::{self, Instant};
use crate::error::{Error, ErrorKind};
use crate::lease::{LeaseStore, Registration};
#[cfg(test)]
use crate::seeded_bug::{Bug, made};
use crate::shard::meter::Meters;
use crate::status::Board;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Until when this worker may act on what it holds. Clones share one state.
#[derive(Debug, Clone)]
pub(crate) struct OwnerWindow {
    shared: Arc<Shared>,
    length: Duration,
}

/// Not a watch channel: that one wakes its waiters in random order, and a run must be repeatable from its seed.
#[derive(Debug)]
struct Shared {
    /// Plain data behind a std mutex, never held across an await.
    state: Mutex<State>,
    /// Wakes all that wait for the window to open, in the order in which they came.
    changed: Notify,
}

#[derive(Debug, Clone, Copy)]
struct State {
    valid_until: Instant,
    /// Grows at every renewal that came after a lapse.
    lapses: u64,
    /// The `lapses` up to which the leases were seen unchanged.
    verified: u64,
    closed: bool,
}

impl State {
    fn is_open(self, now: Instant) -> bool {
        !self.closed && self.verified == self.lapses && now < self.valid_until
    }
}

/// What a look at the leases, begun now, will be able to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verification(u64);

impl OwnerWindow {
    /// A window that opened with a registration sent at `sent`. The margin is a tenth of the fail-over time.
    pub(crate) fn open(sent: Instant, failover_time: Duration) -> Self {
        let length = failover_time / 10 * 9;
        let state = State {
            valid_until: sent + length,
            lapses: 0,
            verified: 0,
            closed: false,
        };
        let shared = Shared {
            state: Mutex::new(state),
            changed: Notify::new(),
        };
        OwnerWindow {
            shared: Arc::new(shared),
            length,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.shared.changed.notify_waiters();
    }

    /// How long a renewal holds.
    pub(crate) fn length(&self) -> Duration {
        self.length
    }

    /// Whether the worker may deliver and checkpoint right now.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().is_open(clock::now())
    }

    /// Waits until the worker may deliver.
    pub(crate) async fn opened(&self) {
        loop {
            // Made before the look, so that no change after it is missed.
            let changed = self.shared.changed.notified();
            if self.is_open() {
                return;
            }
            changed.await;
        }
    }

    /// A renewal sent at `sent` has succeeded.
    fn renewed(&self, sent: Instant) {
        let now = clock::now();
        self.change(|state| {
            let lapsed = now >= state.valid_until;
            #[cfg(test)]
            let lapsed = lapsed && !made(Bug::NoVerification);
            if lapsed {
                state.lapses += 1;
            }
            state.valid_until = state.valid_until.max(sent + self.length);
        });
    }

    /// To be called before the leases are read.
    pub(crate) fn begin_verification(&self) -> Verification {
        Verification(self.lock().lapses)
    }

    /// The leases read after `begun` are known, and the lost ones told so.
    pub(crate) fn verified(&self, begun: Verification) {
        self.change(|state| state.verified = state.verified.max(begun.0));
    }

    /// Shuts the window for good: the worker was replaced.
    fn close(&self) {
        self.change(|state| state.closed = true);
    }
}

/// What a heartbeat tells of the worker's shards.
#[derive(Debug, Clone)]
pub(crate) struct Signs {
    pub(crate) meters: Arc<Meters>,
    pub(crate) board: Arc<Board>,
}

/// Sends heartbeats, three per fail-over time, until it is dropped. It ends with `WorkerReplaced` only, and
/// closes the window; after any other failure the heartbeat is repeated sooner.
pub(crate) async fn keep_alive(
    store: Arc<dyn LeaseStore>,
    application: String,
    registration: Registration,
    window: OwnerWindow,
    failover_time: Duration,
    signs: Signs,
) -> Error {
    let interval = failover_time / 3;
    let mut failures = 0u32;
    loop {
        let pause = match failures {
            0 => interval,
            _ => interval / 4,
        };
        tokio::time::sleep(pause.mul_f64(0.9 + 0.1 * fastrand::f64())).await;
        let sent = clock::now();
        let (loads, troubles) = (signs.meters.loads(), signs.board.troubles());
        let renewal = store.heartbeat(&application, &registration, &loads, &troubles);
        match bounded(failover_time, renewal).await {
            Ok(()) => {
                failures = 0;
                #[cfg(test)]
                let sent = if made(Bug::ValidFromReply) {
                    clock::now()
                } else {
                    sent
                };
                window.renewed(sent);
            }
            Err(error) if error.kind() == ErrorKind::WorkerReplaced => {
                window.close();
                return error;
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                tracing::warn!(%error, failures, "heartbeat failed, it is repeated");
            }
        }
    }
}

/// A store call with an end: no answer within `limit` is `Unavailable`.
pub(crate) async fn bounded<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("the lease store did not answer within {limit:?}"),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const FAILOVER: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn k2_validity_counts_from_before_the_renewal_was_sent() {
        let window = OwnerWindow::open(clock::now(), FAILOVER);
        advance(Duration::from_secs(3)).await;
        let sent = clock::now();
        advance(Duration::from_secs(5)).await;
        window.renewed(sent);
        advance(Duration::from_millis(3999)).await;
        assert!(
            window.is_open(),
            "open until 9 s after the renewal was sent"
        );
        advance(Duration::from_millis(1)).await;
        assert!(!window.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn k2_after_a_lapse_it_opens_only_once_the_leases_were_seen() {
        let window = OwnerWindow::open(clock::now(), FAILOVER);
        let stale = window.begin_verification();
        advance(Duration::from_secs(20)).await;
        let sent = clock::now();
        window.renewed(sent);
        assert!(
            !window.is_open(),
            "a renewal alone proves nothing about the leases"
        );
        window.verified(stale);
        assert!(
            !window.is_open(),
            "leases read before the renewal prove nothing"
        );
        let begun = window.begin_verification();
        window.verified(begun);
        assert!(window.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_wake_when_it_opens() {
        let window = OwnerWindow::open(clock::now(), FAILOVER);
        advance(FAILOVER).await;
        let waiter = tokio::spawn({
            let window = window.clone();
            async move { window.opened().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        window.renewed(clock::now());
        window.verified(window.begin_verification());
        waiter.await.unwrap();
    }
}
