//! Time in the suites: one clock for all processes of the machine, and waiting with a deadline.

use rustix::time::{ClockId, clock_gettime};
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// Microseconds since the machine started: the same clock for every process of a test, which nobody sets, and which a
/// process whose wall clock is faked has unfaked.
pub fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let since_start = Duration::try_from(now).expect("the machine started in the past");
    u64::try_from(since_start.as_micros()).expect("the machine has not run for that long")
}

/// Asks `probe` until it answers `Some`, at most for `limit`; panics with `what` otherwise.
pub async fn wait_until<T, P, F>(what: &str, limit: Duration, mut probe: P) -> T
where
    P: FnMut() -> F,
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {limit:?} in vain until {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
