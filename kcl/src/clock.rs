//! Monotonic time, from tokio so that tests can pause and drive it. Nothing else in this crate reads
//! a clock; wall-clock times are never compared between machines.

pub use tokio::time::Instant;

/// The current monotonic time.
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock: for the date in a request's signature, and for people; never for decisions.
#[expect(clippy::disallowed_methods, reason = "this is the clock module")]
pub(crate) fn wall() -> std::time::SystemTime {
    std::time::SystemTime::now()
}
