//! How long a request may wait for room, in all places together: overload is answered within 50 ms (S6).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// What there is for waiting; the rest of the 50 ms is for reading the request and writing the refusal.
pub(crate) const ROOM_WAIT: Duration = Duration::from_millis(40);

/// What is left of a request's time for waiting. Clones share it, and go down with the request: each wait takes what it used.
/// What the client, the disk and the processor take does not count, so that what was done is not thrown away because it took long.
///
/// Who works for no request has 40 ms for each wait, which is the default.
#[derive(Debug, Clone, Default)]
pub struct Patience(Option<Arc<AtomicU64>>);

impl Patience {
    /// For a request that may wait so long.
    pub fn of(wait: Duration) -> Patience {
        Patience(Some(Arc::new(AtomicU64::new(micros(wait)))))
    }

    fn left(&self) -> Duration {
        let left = self.0.as_deref();
        left.map_or(ROOM_WAIT, |us| {
            Duration::from_micros(us.load(Ordering::Relaxed))
        })
    }

    /// What `room` gives if it does within what is left. Room that is there is given however little that is.
    ///
    /// # Cancel safety
    /// Dropped early, `room` is dropped and the time it took stays.
    pub(crate) async fn wait_for<F: Future>(&self, room: F) -> Option<F::Output> {
        let began = Instant::now();
        let found = timeout(self.left(), room).await.ok();
        if let Some(left) = &self.0 {
            let used = micros(began.elapsed());
            // A request waits in one place at a time.
            let rest = left.load(Ordering::Relaxed).saturating_sub(used);
            left.store(rest, Ordering::Relaxed);
        }
        found
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use tokio::time::sleep;

    #[tokio::test(start_paused = true)]
    async fn s6_waits_one_after_the_other_have_one_bound() {
        let began = Instant::now();
        let patience = Patience::of(ROOM_WAIT);
        let ms = Duration::from_millis;
        assert_eq!(patience.wait_for(sleep(ms(15))).await, Some(()));
        // What is no waiting for room does not count.
        sleep(ms(100)).await;
        let clone = patience.clone();
        assert_eq!(clone.wait_for(sleep(ms(20))).await, Some(()));
        assert_eq!(patience.wait_for(pending::<()>()).await, None);
        assert_eq!(clone.wait_for(pending::<()>()).await, None);
        assert_eq!(patience.wait_for(ready(1)).await, Some(1));
        let took = began.elapsed();
        assert!(took <= ms(100) + ROOM_WAIT + ms(2), "{took:?}");
        // Who works for no request begins anew.
        let each = Patience::default();
        for _ in 0..2 {
            assert_eq!(each.wait_for(sleep(ms(30))).await, Some(()));
        }
    }
}
