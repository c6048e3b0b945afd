//! Figures of a load: latencies, what was moved, what the processes took for it; and medians of several rounds.

use crate::process;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The longest latency that is told from longer ones.
const LATENCY_MAX_NS: u64 = 120_000_000_000;
/// The shortest.
const LATENCY_MIN_NS: u64 = 1_000;

/// When a load counts: after its warm-up, until its end.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// When the warm-up ends.
    pub begins: Instant,
    /// When the load ends.
    pub ends: Instant,
}

impl Window {
    /// Begins after the warm-up, which begins now.
    pub fn after(warm_up: Duration, length: Duration) -> Window {
        let begins = Instant::now() + warm_up;
        Window {
            begins,
            ends: begins + length,
        }
    }

    fn holds(self, at: Instant) -> bool {
        self.begins <= at && at < self.ends
    }

    /// Seconds that count.
    pub fn seconds(self) -> f64 {
        (self.ends - self.begins).as_secs_f64()
    }
}

/// What the connections of a load do, told by each as it goes on; a handle.
#[derive(Debug, Clone)]
pub struct Recorder {
    window: Window,
    /// Short and uncontended: a client has one thread, or few.
    done: Arc<Mutex<Done>>,
}

#[derive(Debug)]
struct Done {
    records: u64,
    data_bytes: u64,
    latencies: Histogram<u64>,
}

impl Recorder {
    /// Counts what happens in the window.
    pub fn new(window: Window) -> io::Result<Recorder> {
        let done = Done {
            records: 0,
            data_bytes: 0,
            latencies: latencies()?,
        };
        Ok(Recorder {
            window,
            done: Arc::new(Mutex::new(done)),
        })
    }

    /// A request that was due, or sent, at `since` is answered at `at`. Whether the load goes on.
    pub fn answered(&self, since: Instant, at: Instant, moved: Moved) -> bool {
        if self.window.holds(at) {
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            done.records += moved.records;
            done.data_bytes += moved.data_bytes;
            let latency = at.saturating_duration_since(since).as_nanos();
            let latency = u64::try_from(latency).unwrap_or(u64::MAX);
            done.latencies.saturating_record(latency.max(1));
        }
        at < self.window.ends
    }

    /// When it counts.
    pub fn window(&self) -> Window {
        self.window
    }

    /// The figures of the round.
    pub fn round(&self, used: Used) -> Round {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = done.latencies.len();
        let seconds = self.window.seconds().max(f64::MIN_POSITIVE);
        Round {
            requests,
            records: done.records,
            requests_per_s: float(requests) / seconds,
            records_per_s: float(done.records) / seconds,
            mb_per_s: float(done.data_bytes) / seconds / 1e6,
            latency: Latency::of(&done.latencies),
            client_cpu_us: per_request(used.client_cpu_s, requests),
            server: used.server.map(|server| Server {
                cpu_us: per_request(server.cpu_s, requests),
                resident_mib: float(server.memory.resident_kib) / 1024.0,
                peak_mib: float(server.memory.peak_kib) / 1024.0,
            }),
        }
    }
}

/// Room for latencies in nanoseconds, three digits of each.
pub fn latencies() -> io::Result<Histogram<u64>> {
    let latencies = Histogram::new_with_bounds(LATENCY_MIN_NS, LATENCY_MAX_NS, 3);
    latencies.map_err(io::Error::other)
}

/// What one request moved.
#[derive(Debug, Clone, Copy, Default)]
pub struct Moved {
    /// Records.
    pub records: u64,
    /// Bytes of their data.
    pub data_bytes: u64,
}

impl Moved {
    /// So many records of so many bytes.
    pub fn records(records: usize, record_bytes: usize) -> Moved {
        let count = u64::try_from(records).unwrap_or(u64::MAX);
        let bytes = u64::try_from(record_bytes).unwrap_or(u64::MAX);
        Moved {
            records: count,
            data_bytes: count.saturating_mul(bytes),
        }
    }
}

/// Latencies of a round, microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the requests were quicker.
    pub p50_us: f64,
    /// Nine of ten were.
    pub p90_us: f64,
    /// All but one of a hundred were.
    pub p99_us: f64,
    /// All but one of a thousand were.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
}

impl Latency {
    /// Of latencies in nanoseconds.
    pub fn of(latencies: &Histogram<u64>) -> Latency {
        let at = |share: f64| float(latencies.value_at_quantile(share)) / 1e3;
        Latency {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: float(latencies.max()) / 1e3,
        }
    }
}

/// What a server took in a round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Processor time for a request, microseconds.
    pub cpu_us: f64,
    /// Resident memory at the end.
    pub resident_mib: f64,
    /// Resident memory at most, since it started.
    pub peak_mib: f64,
}

/// The figures of a round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Requests answered; of `latency`, records received.
    pub requests: u64,
    /// Records moved.
    pub records: u64,
    /// Requests a second.
    pub requests_per_s: f64,
    /// Records a second.
    pub records_per_s: f64,
    /// Millions of bytes of data a second.
    pub mb_per_s: f64,
    /// How long requests took.
    pub latency: Latency,
    /// Processor time of the client for a request, microseconds.
    pub client_cpu_us: f64,
    /// What the server took, if its process was told.
    pub server: Option<Server>,
}

/// What processes took in a round.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    client_cpu_s: f64,
    server: Option<ServerUsed>,
}

#[derive(Debug, Clone, Copy)]
struct ServerUsed {
    cpu_s: f64,
    memory: process::Memory,
}

/// Waits for the window to pass; what the processes took in it.
pub async fn watch(window: Window, server: Option<u32>) -> io::Result<Used> {
    let client = std::process::id();
    tokio::time::sleep_until(window.begins).await;
    let client_before = process::cpu_seconds(client)?;
    let server_before = server.map(process::cpu_seconds).transpose()?;
    tokio::time::sleep_until(window.ends).await;
    let server = match (server, server_before) {
        (Some(pid), Some(before)) => Some(ServerUsed {
            cpu_s: process::cpu_seconds(pid)? - before,
            memory: process::memory(pid)?,
        }),
        _ => None,
    };
    Ok(Used {
        client_cpu_s: process::cpu_seconds(client)? - client_before,
        server,
    })
}

fn per_request(seconds: f64, requests: u64) -> f64 {
    seconds * 1e6 / float(requests.max(1))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures of a measurement, far below 2^53"
)]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// A figure of several rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// In the middle; of an even number, the mean of the two there.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of some values; nothing of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let above = values.len() / 2;
        let below = values.len().checked_sub(1)? / 2;
        Some(Spread {
            median: f64::midpoint(*values.get(below)?, *values.get(above)?),
            min: *values.first()?,
            max: *values.last()?,
        })
    }

    /// Of one figure of all rounds.
    pub fn over(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> Option<Spread> {
        Spread::of(rounds.iter().map(figure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn medians_are_in_the_middle() {
        let spread = Spread::of([3.0, 1.0, 2.0]).unwrap();
        let expected = Spread {
            median: 2.0,
            min: 1.0,
            max: 3.0,
        };
        assert_eq!(spread, expected);
        assert!((Spread::of([1.0, 2.0]).unwrap().median - 1.5).abs() < 1e-9);
        assert_eq!(Spread::of([]), None);
    }

    proptest! {
        #[test]
        fn a_median_lies_between_least_and_most(values in prop::collection::vec(0.0..1e9, 1..20)) {
            let spread = Spread::of(values.iter().copied()).unwrap();
            prop_assert!(spread.min <= spread.median && spread.median <= spread.max);
            let below = values.iter().filter(|value| **value < spread.median).count();
            let above = values.iter().filter(|value| **value > spread.median).count();
            prop_assert!(below * 2 <= values.len() && above * 2 <= values.len());
        }
    }

    /// Goal: the warm-up and what is answered too late count for nothing, and latencies are counted from when requests were due.
    #[test]
    fn only_the_window_counts() {
        let window = Window::after(Duration::from_secs(1), Duration::from_secs(2));
        let recorder = Recorder::new(window).unwrap();
        let moved = Moved::records(2, 50);
        let start = window.begins - Duration::from_secs(1);
        let at = |ms| start + Duration::from_millis(ms);
        assert!(recorder.answered(at(0), at(999), moved));
        assert!(recorder.answered(at(900), at(1000), moved));
        assert!(recorder.answered(at(1000), at(2000), moved));
        assert!(!recorder.answered(at(1000), at(3000), moved));
        let used = Used {
            client_cpu_s: 1.0,
            server: None,
        };
        let round = recorder.round(used);
        assert_eq!((round.requests, round.records), (2, 4));
        assert!((round.requests_per_s - 1.0).abs() < 1e-9);
        assert!((round.records_per_s - 2.0).abs() < 1e-9);
        assert!((round.mb_per_s - 0.0001).abs() < 1e-9);
        assert!((round.client_cpu_us - 500_000.0).abs() < 1e-3);
        assert!((99_000.0..101_000.0).contains(&round.latency.p50_us));
        assert!((999_000.0..1_001_000.0).contains(&round.latency.max_us));
    }
}
