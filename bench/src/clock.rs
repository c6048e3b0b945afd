//! The only reading of the wall clock, which all processes of a measurement share.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now.
#[expect(clippy::disallowed_methods, reason = "the clock module")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Microseconds since 1970.
pub fn now_us() -> u64 {
    let since = now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
