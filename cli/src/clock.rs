//! The only place of this crate that reads the system's clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970. The demo compares such times between processes of one machine only.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the module time enters through"
)]
pub(crate) fn unix_ms() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
