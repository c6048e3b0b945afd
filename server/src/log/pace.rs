//! How fast work in the background goes, and that it stops when it is told to. Reads no clock: it waits after
//! each step for as long as the step is worth.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::log::Error;

/// Steps are gathered up to this before anything is waited for.
const STEP_BYTES: u64 = 256 << 10;
/// So many more segments that wait double the pace, up to [`DOUBLINGS`] times.
const DOUBLED_BY: usize = 4;
const DOUBLINGS: usize = 4;

/// See the module.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: u64,
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    /// Spent and not yet waited for.
    owed_bytes: u64,
    waiting: usize,
}

impl Pace {
    /// So many bytes in a second; 0 sets no limit.
    pub(crate) fn new(bytes_per_second: u64) -> Pace {
        Pace {
            bytes_per_second,
            state: Mutex::default(),
            stopped: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever is waiting here goes on, and is told.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.stopped.notify_all();
    }

    /// [`Error::Closed`] once it was stopped.
    pub(crate) fn check_stopped(&self) -> Result<(), Error> {
        if self.lock().stopped {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// How much work waits: the more, the faster.
    pub(crate) fn set_waiting(&self, segments: usize) {
        self.lock().waiting = segments;
    }

    /// Waits as long as work on so many bytes takes.
    ///
    /// # Errors
    /// [`Error::Closed`] once it was stopped.
    pub(crate) fn spend(&self, bytes: u64) -> Result<(), Error> {
        let mut state = self.lock();
        state.owed_bytes += bytes;
        if state.owed_bytes >= STEP_BYTES {
            let wait = time_of(state.owed_bytes, self.bytes_per_second, state.waiting);
            state.owed_bytes = 0;
            if !wait.is_zero() {
                let waited = self
                    .stopped
                    .wait_timeout_while(state, wait, |state| !state.stopped);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        if state.stopped {
            return Err(Error::Closed);
        }
        Ok(())
    }
}

/// How long so many bytes take at that pace while so many segments wait.
fn time_of(bytes: u64, bytes_per_second: u64, waiting: usize) -> Duration {
    let doublings = (waiting / DOUBLED_BY).min(DOUBLINGS);
    let micros = bytes
        .saturating_mul(1_000_000)
        .checked_div(bytes_per_second);
    Duration::from_micros(micros.unwrap_or(0) >> doublings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_more_waits_the_faster_it_goes() {
        let mib = 1 << 20;
        let millis = |waiting| time_of(32 * mib, 16 * mib, waiting).as_millis();
        let times = [0, 3, 4, 8, 12, 16, 1000].map(millis);
        assert_eq!(times, [2000, 2000, 1000, 500, 250, 125, 125]);
        assert_eq!(time_of(u64::MAX, 0, 0), Duration::ZERO);
    }

    /// At a byte in a second this would take days.
    #[test]
    fn s10_a_stop_ends_the_wait() {
        let pace = Arc::new(Pace::new(1));
        let waiting = Arc::clone(&pace);
        let thread = std::thread::spawn(move || waiting.spend(STEP_BYTES));
        pace.stop();
        assert!(matches!(thread.join().unwrap(), Err(Error::Closed)));
        assert!(matches!(pace.check_stopped(), Err(Error::Closed)));
    }
}
