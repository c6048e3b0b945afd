//! How fast work in the background goes, that it makes way for puts where it can wait, and that it stops when it is
//! told to. Reads no clock: it waits after each step for as long as the step is worth, and longer while there are puts.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::log::Error;

/// Steps are gathered up to this before anything is waited for.
const STEP_BYTES: u64 = 256 << 10;
/// So many more segments that wait double the pace, up to [`DOUBLINGS`] times.
const DOUBLED_BY: usize = 4;
const DOUBLINGS: usize = 4;
/// Work that can wait looks, before each step, for a while in which nobody puts anything: so many times in a row.
const QUIET_LOOKS: u32 = 4;
/// What lies between two looks at most.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// For so long it looks: 16 MiB in a second go on beside puts that take all there is.
const LOOKS_FOR: Duration = Duration::from_millis(16);

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
    /// The work under way can wait.
    makes_way: bool,
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

    /// How much work waits: the more, the faster. And whether this piece of it makes way for puts.
    pub(crate) fn begin(&self, waiting_segments: usize, makes_way: bool) {
        let mut state = self.lock();
        state.waiting = waiting_segments;
        state.makes_way = makes_way;
    }

    /// Waits as long as work on so many bytes takes; work that makes way also until `is_committing` says no, for a while.
    ///
    /// # Errors
    /// [`Error::Closed`] once it was stopped.
    pub(crate) fn spend(&self, bytes: u64, is_committing: impl Fn() -> bool) -> Result<(), Error> {
        let mut state = self.lock();
        state.owed_bytes += bytes;
        if state.owed_bytes >= STEP_BYTES && self.bytes_per_second > 0 {
            let wait = time_of(state.owed_bytes, self.bytes_per_second, state.waiting);
            state.owed_bytes = 0;
            state = if state.makes_way {
                self.make_way(state, wait, is_committing)
            } else {
                self.wait(state, wait)
            };
        }
        if state.stopped {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// Waits that long, and until nobody has put anything for a while or it has taken long enough.
    fn make_way<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        least: Duration,
        is_committing: impl Fn() -> bool,
    ) -> MutexGuard<'a, State> {
        let gap = least.min(LOOK_AGAIN);
        let (mut waited, mut quiet) = (Duration::ZERO, 0);
        while !state.stopped && (waited < least || (quiet < QUIET_LOOKS && waited < LOOKS_FOR)) {
            state = self.wait(state, gap);
            waited += gap.max(Duration::from_micros(1));
            quiet = if is_committing() { 0 } else { quiet + 1 };
        }
        state
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, wait: Duration) -> MutexGuard<'a, State> {
        if wait.is_zero() {
            return state;
        }
        let waited = self
            .stopped
            .wait_timeout_while(state, wait, |state| !state.stopped);
        waited.unwrap_or_else(PoisonError::into_inner).0
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

    /// As long as there are puts, and no longer than so.
    #[test]
    fn work_that_can_wait_makes_way_for_puts() {
        // A step is worth 1 ms.
        let pace = Pace::new(STEP_BYTES * 1000);
        let looks = |makes_way, busy: fn(u32) -> bool| {
            pace.begin(0, makes_way);
            let looked = std::cell::Cell::new(0);
            let is_committing = || {
                looked.set(looked.get() + 1);
                busy(looked.get())
            };
            pace.spend(STEP_BYTES, is_committing).unwrap();
            looked.get()
        };
        assert_eq!(looks(true, |_| false), QUIET_LOOKS);
        assert_eq!(looks(true, |look| look <= 3), 3 + QUIET_LOOKS);
        assert_eq!(looks(true, |_| true), 16);
        assert_eq!(looks(true, |look| look % 4 == 0), 16, "never for a while");
        assert_eq!(looks(false, |_| true), 0);
    }

    /// At a byte in a second this would take days.
    #[test]
    fn s10_a_stop_ends_the_wait() {
        let pace = Arc::new(Pace::new(1));
        let waiting = Arc::clone(&pace);
        let thread = std::thread::spawn(move || waiting.spend(STEP_BYTES, || false));
        pace.stop();
        assert!(matches!(thread.join().unwrap(), Err(Error::Closed)));
        assert!(matches!(pace.check_stopped(), Err(Error::Closed)));
    }
}
