//! Time in the suites: one clock for all processes of the machine, and waiting with a deadline.

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Microseconds since 1970 by the machine's clock, which every process of a test shares.
#[expect(
    clippy::disallowed_methods,
    reason = "events of several processes are put in one order"
)]
pub fn now_us() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)
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
