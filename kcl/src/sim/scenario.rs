//! What a seed stands for: the fleet, the stream, and which troubles come one after the other.

use super::kinesis::{EPOCH_MS, Quirks};
use super::processor::Mood;
use super::world::Weather;
use crate::config::InitialPosition;
use fastrand::Rng;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Processes at most, those included that replace others.
pub(super) const MOST_SLOTS: usize = 8;

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Anything may fail for so long.
    Storm(Duration),
    /// One thing happens to a fleet at rest, and the bounds on times hold.
    Calm(Happening),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    /// A process dies (K8).
    Crash,
    /// A worker shuts down (K9).
    Exit,
    /// Shards are split and merged (K7).
    Reshard,
    /// Somebody deletes a lease (K7).
    TearOut,
}

/// What becomes of batches that fail so many times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Retry,
    Stop(u32),
    DeadLetter(u32),
}

const POLICIES: [Policy; 5] = [
    Policy::Retry,
    Policy::Retry,
    Policy::DeadLetter(1),
    Policy::DeadLetter(3),
    Policy::Stop(3),
];

#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    pub(super) hosts: usize,
    pub(super) shards: u32,
    pub(super) initial: InitialPosition,
    pub(super) policy: Policy,
    /// The shortest fail-over time of a worker; those of the slots are multiples of it.
    pub(super) failover: Duration,
    factors: Vec<f64>,
    /// The most leases that the worker in the first slot holds.
    cap: Option<usize>,
    /// How far hosts may be apart in time.
    pub(super) tick: Duration,
    pub(super) poll_interval: Duration,
    /// Whether the workers read by enhanced fan-out.
    pub(super) fan_out: bool,
    pub(super) sync_interval: Duration,
    pub(super) max_records: u32,
    pub(super) shutdown_grace: Duration,
    pub(super) request_timeout: Duration,
    /// How much faster or slower than the world's a host's clock may run.
    pub(super) drift: f64,
    /// The longest a message takes when all is well, milliseconds.
    pub(super) calm_ms: u64,
    pub(super) put_every: Duration,
    /// How many records are aggregates.
    pub(super) aggregates: f64,
    pub(super) quirks: Quirks,
    pub(super) phases: Vec<Phase>,
    pub(super) batch_window: Duration,
    pub(super) max_batch_bytes: usize,
}

impl Scenario {
    pub(super) fn draw(seed: u64) -> Self {
        // By itself, so that everything else is as it is without; and such that the seeds that tests name poll.
        let fan_out = Rng::with_seed(seed ^ 0x6661_6e5f_6f75_7543).u8(..3) == 0;
        let mut rng = Rng::with_seed(seed);
        let rng = &mut rng;
        let failover = Duration::from_millis(match rng.u8(..10) {
            0..5 => rng.u64(1000..2000),
            5..8 => rng.u64(2000..4000),
            _ => rng.u64(4000..=10_000),
        });
        let initial = match rng.u8(..10) {
            0..5 => InitialPosition::TrimHorizon,
            5..8 => InitialPosition::Latest,
            _ => InitialPosition::AtTimestamp(EPOCH_MS + rng.u64(..2500)),
        };
        let hosts = *pick(rng, &[1, 2, 2, 2, 3, 3, 3, 4, 4, 5, 6]);
        let names_children = rng.u8(..4) > 0;
        Scenario {
            seed,
            fan_out,
            hosts,
            shards: rng.u32(1..=8),
            initial,
            policy: *pick(rng, &POLICIES),
            failover,
            factors: factors(rng),
            cap: (hosts > 2 && rng.u8(..6) == 0).then(|| rng.usize(1..4)),
            tick: Duration::from_millis(*pick(rng, &[5, 10, 20])),
            poll_interval: Duration::from_millis(*pick(rng, &[50, 200, 200, 500])),
            sync_interval: Duration::from_millis(*pick(rng, &[1000, 3000, 10_000])),
            max_records: *pick(rng, &[5, 10, 100]),
            shutdown_grace: Duration::from_millis(*pick(rng, &[500, 3000, 30_000])),
            request_timeout: (failover * 9 / 10).max(SECOND * 2),
            drift: *pick(rng, &[0.0, 0.001, 0.02]),
            calm_ms: *pick(rng, &[1, 5, 15]),
            put_every: Duration::from_millis(rng.u64(40..400)),
            aggregates: *pick(rng, &[0.0, 0.0, 0.3, 0.8]),
            quirks: Quirks {
                names_children,
                most_reads: rng.bool().then_some(5),
                page_records: *pick(rng, &[5, 1000]),
                empty: 0.0,
                expires_early: 0.0,
                throttles: 0.0,
                fails: 0.0,
                listing_lag: Duration::ZERO,
            },
            phases: phases(rng, hosts, failover),
            batch_window: Duration::from_millis(*pick(rng, &[0, 0, 0, 100])),
            max_batch_bytes: *pick(rng, &[100, 1000, 1 << 20]),
        }
    }

    /// The fail-over time of the worker in a slot.
    pub(super) fn failover_of(&self, slot: usize) -> Duration {
        self.failover.mul_f64(self.factors[slot])
    }

    pub(super) fn longest_failover(&self) -> Duration {
        let longest = self.factors.iter().copied().fold(1.0, f64::max);
        self.failover.mul_f64(longest)
    }

    /// The most leases that the worker in a slot holds.
    pub(super) fn cap_of(&self, slot: usize) -> Option<usize> {
        self.cap.filter(|_| slot == 0)
    }

    pub(super) fn calm_weather(&self) -> Weather {
        Weather {
            quick_ms: (1, self.calm_ms),
            slow_request: 0.0,
            slow_reply: 0.0,
            slowest: Duration::ZERO,
            lose_request: 0.0,
            lose_reply: 0.0,
            silent: 0.0,
            again: 0.0,
            store_down: false,
            kinesis_down: false,
        }
    }

    pub(super) fn stormy_weather(&self, rng: &mut Rng) -> Weather {
        let mut odds = |most: f64| if rng.bool() { 0.0 } else { most * rng.f64() };
        let tenth_ms = u64::try_from(self.failover.as_millis() / 10).unwrap_or(0);
        Weather {
            lose_request: odds(0.2),
            lose_reply: odds(0.2),
            silent: odds(1.0),
            again: odds(0.2),
            slow_request: *pick(rng, &[0.0, 0.0, 0.1, 0.4]),
            slow_reply: *pick(rng, &[0.0, 0.0, 0.1, 0.4, 0.8]),
            quick_ms: (1, *pick(rng, &[1, 10, 100, tenth_ms])),
            slowest: self.failover.mul_f64(*pick(rng, &[0.3, 1.0, 3.0])),
            ..self.calm_weather()
        }
    }

    pub(super) fn bad_mood(&self, rng: &mut Rng) -> Mood {
        let mut odds = |most: f64| if rng.bool() { 0.0 } else { most * rng.f64() };
        Mood {
            fails: odds(0.3),
            panics: odds(1.0),
            slow: odds(0.3),
            stray: odds(0.1),
            halfway: *pick(rng, &[0.0, 0.2, 0.8]),
            checkpoints: *pick(rng, &[1.0, 0.7, 0.1, 0.0]),
            slowest: self.failover.mul_f64(*pick(rng, &[0.3, 1.0, 1.5])),
            prepares: *pick(rng, &[0.0, 0.0, 0.5]),
            poisoned: None,
        }
    }

    pub(super) fn odd_server(&self, rng: &mut Rng) -> Quirks {
        let mut odds = |most: f64| if rng.bool() { 0.0 } else { most * rng.f64() };
        Quirks {
            empty: odds(0.3),
            expires_early: odds(0.1),
            throttles: odds(0.3),
            fails: odds(0.2),
            listing_lag: SECOND.mul_f64(odds(2.0)),
            names_children: rng.u8(..4) > 0,
            ..self.quirks.clone()
        }
    }

    /// When everything must be in its place again once nothing fails any more.
    pub(super) fn patience(&self) -> Duration {
        self.longest_failover() * 3 + self.sync_interval * 3 + SECOND * 60
    }
}

/// Mostly all workers have one fail-over time.
fn factors(rng: &mut Rng) -> Vec<f64> {
    let mixed = rng.u8(..5) == 0;
    let factor = |rng: &mut Rng| *pick(rng, &[1.0, 1.5, 2.5]);
    (0..MOST_SLOTS)
        .map(|_| if mixed { factor(rng) } else { 1.0 })
        .collect()
}

fn phases(rng: &mut Rng, hosts: usize, failover: Duration) -> Vec<Phase> {
    let mut phases = Vec::new();
    for _ in 0..rng.u8(1..=3) {
        if rng.u8(..10) < 7 {
            let length = SECOND.mul_f64(3.0 + 12.0 * rng.f64()) + failover.mul_f64(2.0 * rng.f64());
            phases.push(Phase::Storm(length));
        } else {
            let happening = match rng.u8(..4) {
                0 if hosts > 1 => Happening::Crash,
                1 if hosts > 1 => Happening::Exit,
                2 => Happening::TearOut,
                _ => Happening::Reshard,
            };
            phases.push(Phase::Calm(happening));
        }
    }
    phases
}

pub(super) fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(..from.len())]
}
