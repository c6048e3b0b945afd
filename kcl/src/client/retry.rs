//! When a request is sent again, and after what pause: full jitter, bounded attempts.

use std::time::Duration;

/// How often and how fast requests are repeated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryPolicy {
    /// Requests sent at most for one call.
    pub(crate) attempts: u32,
    /// Upper bound of the first pause; it doubles from there.
    pub(crate) first_pause: Duration,
    /// Upper bound of every pause.
    pub(crate) longest_pause: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            attempts: 4,
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_secs(2),
        }
    }
}

impl RetryPolicy {
    /// The pause after failed attempt number `attempt` (from 1), or `None` when it was the last.
    pub(crate) fn pause(&self, attempt: u32) -> Option<Duration> {
        (attempt < self.attempts).then(|| {
            backoff(self.first_pause, self.longest_pause, attempt).mul_f64(fastrand::f64())
        })
    }
}

/// `first` doubled for every attempt after the first, at most `longest`.
pub(crate) fn backoff(first: Duration, longest: Duration, attempt: u32) -> Duration {
    let factor = 2u32.saturating_pow(attempt.saturating_sub(1).min(30));
    first.saturating_mul(factor).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_attempts_end() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(10));
        let pauses: Vec<u128> = (1..10)
            .map(|n| backoff(first, longest, n).as_millis())
            .collect();
        assert_eq!(
            pauses,
            [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
        );
        assert_eq!(backoff(first, longest, u32::MAX), longest);
        let policy = RetryPolicy::default();
        assert!((1..4).all(|n| policy.pause(n).unwrap() <= policy.longest_pause));
        assert_eq!(policy.pause(4), None);
    }
}
