//! The time a call is made to take, so that clients can be seen to wait: a real service is further away.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The longest latency, milliseconds: less than the time after which SDKs give a call up.
pub const LATENCY_MAX_MS: u64 = 10_000;

/// A range of times to wait before an operation begins; each call draws its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    least_ms: u64,
    most_ms: u64,
}

impl Latency {
    /// From `least_ms` to `most_ms` milliseconds, both included, if that is a range and not too long.
    pub fn new(least_ms: u64, most_ms: u64) -> Option<Latency> {
        (least_ms <= most_ms && most_ms <= LATENCY_MAX_MS).then_some(Latency { least_ms, most_ms })
    }

    /// Waits.
    ///
    /// # Cancel safety
    /// Nothing has begun yet.
    pub(super) async fn pass(self) {
        if self.most_ms > 0 {
            let ms = fastrand::u64(self.least_ms..=self.most_ms);
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }
}

impl FromStr for Latency {
    type Err = String;

    fn from_str(text: &str) -> Result<Latency, String> {
        let (least, most) = text.split_once('-').unwrap_or((text, text));
        let range = least.parse().ok().zip(most.parse().ok());
        range
            .and_then(|(least, most)| Latency::new(least, most))
            .ok_or_else(|| {
                format!(
                    "{text:?} is no latency; expected MS or MS-MS, 0 to {LATENCY_MAX_MS} milliseconds"
                )
            })
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Latency { least_ms, most_ms } if least_ms == most_ms => write!(f, "{least_ms}"),
            Latency { least_ms, most_ms } => write!(f, "{least_ms}-{most_ms}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[test]
    fn a_latency_is_a_time_or_a_range() {
        assert_eq!("20".parse().ok(), Latency::new(20, 20));
        assert_eq!("20-50".parse().ok(), Latency::new(20, 50));
        for text in ["", "-", "a", "1-", "50-20", "10001", "1-10001", "-1"] {
            assert!(text.parse::<Latency>().is_err(), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_call_waits_within_the_range() {
        let latency = Latency::new(20, 50).unwrap();
        for _ in 0..100 {
            let begun = Instant::now();
            latency.pass().await;
            // The timer counts whole milliseconds.
            assert!((20..=51).contains(&begun.elapsed().as_millis()));
        }
        let begun = Instant::now();
        Latency::default().pass().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
