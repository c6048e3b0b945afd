//! Monotonic time, from tokio so that tests can pause and drive it. Nothing else in this crate reads
//! a clock; wall-clock times are never compared between machines.

pub use tokio::time::Instant;

/// The current monotonic time.
pub fn now() -> Instant {
    Instant::now()
}
