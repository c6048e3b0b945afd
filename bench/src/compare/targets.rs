//! What Millstream is meant to reach, and whether it does.

use super::figures::{Figure, POLL_MS};
use super::results::Results;
use super::systems::System;
use super::table::number;
use crate::measure::{Round, Spread};
use std::fmt::Write;

/// What a value must be.
#[derive(Debug, Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

struct Target {
    what: &'static str,
    bound: Bound,
    unit: &'static str,
    reached: Option<f64>,
}

/// A table `target | reached`, of the medians.
pub(super) fn print(results: &Results) -> String {
    let mut text = "\n| target | reached | |\n|---|---|---|\n".to_owned();
    for target in targets(results) {
        let Some(reached) = target.reached else {
            continue;
        };
        let (word, bound, is_met) = match target.bound {
            Bound::AtLeast(bound) => ("at least", bound, reached >= bound),
            Bound::AtMost(bound) => ("at most", bound, reached <= bound),
        };
        let (what, unit) = (target.what, target.unit);
        let (bound, reached) = (number(bound), number(reached));
        let verdict = if is_met { "yes" } else { "**no**" };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {what}: {word} {bound} {unit} | {reached} | {verdict} |"
        );
    }
    text
}

const US: System = System::Millstream;

fn targets(results: &Results) -> Vec<Target> {
    let mut targets = shares(results);
    targets.extend(peers(results));
    targets.extend(latencies(results));
    targets.extend(footprint(results));
    targets
}

fn shares(results: &Results) -> Vec<Target> {
    let share = |figure: Figure| results.share(US, figure.ceiling()?, figure);
    let figures = [
        ("PutRecord, 1 connection", Figure::Put1, 80.0),
        ("PutRecord, 64 connections", Figure::Put64, 85.0),
        ("PutRecords, JSON", Figure::BatchJson, 80.0),
        ("PutRecords, CBOR", Figure::BatchCbor, 80.0),
        ("GetRecords from memory", Figure::GetTail, 80.0),
        ("GetRecords from sealed segments", Figure::GetSealed, 60.0),
    ];
    let target = |(what, figure, least)| {
        let reached = share(figure).map(|share| share.median * 100.0);
        at_least(what, least, "% of its ceiling", reached)
    };
    figures.map(target).into()
}

const IN_MEMORY: [System; 4] = [
    System::Ferrokinesis,
    System::Kinesalite,
    System::KinesisLocal,
    System::Moto,
];
const DURABLE: [System; 1] = [System::FerrokinesisWal];

/// How many times the best of its peers it is, each round compared with the same round of the other; and CBOR with JSON.
fn peers(results: &Results) -> Vec<Target> {
    let times = |peers: &[System], figure| {
        // One that was not measured may be the best.
        let times = peers.iter().map(|peer| {
            let share = results.share(US, *peer, figure)?;
            Some(share.median)
        });
        let times: Option<Vec<f64>> = times.collect();
        times?.into_iter().min_by(f64::total_cmp)
    };
    let memory = "times the best peer in memory";
    let durable = "times the durable peer";
    let rate = |figure: Figure| {
        let rate = results.spread(US, figure, |round| figure.rate(round));
        rate.map(|rate| rate.median)
    };
    let (cbor, json) = (rate(Figure::BatchCbor), rate(Figure::BatchJson));
    vec![
        at_least("PutRecord", 2.0, memory, times(&IN_MEMORY, Figure::Put64)),
        at_least(
            "PutRecords",
            8.0,
            memory,
            times(&IN_MEMORY, Figure::BatchJson),
        ),
        at_least(
            "GetRecords",
            3.0,
            memory,
            times(&IN_MEMORY, Figure::GetTail),
        ),
        at_least("PutRecord", 20.0, durable, times(&DURABLE, Figure::Put64)),
        at_least(
            "PutRecords",
            20.0,
            durable,
            times(&DURABLE, Figure::BatchJson),
        ),
        at_least(
            "PutRecords in CBOR",
            1.0,
            "times that in JSON",
            cbor.zip(json).map(|(cbor, json)| cbor / json),
        ),
    ]
}

fn at_least(what: &'static str, bound: f64, unit: &'static str, reached: Option<f64>) -> Target {
    Target {
        what,
        bound: Bound::AtLeast(bound),
        unit,
        reached,
    }
}

fn at_most(what: &'static str, bound: f64, unit: &'static str, reached: Option<f64>) -> Target {
    Target {
        what,
        bound: Bound::AtMost(bound),
        unit,
        reached,
    }
}

fn latencies(results: &Results) -> Vec<Target> {
    let median = |figure, value: fn(&Round) -> f64| {
        let spread = results.spread(US, figure, value);
        spread.map(|spread| spread.median)
    };
    let raw = Spread::of(results.raw.iter().map(|raw| raw.p50_us));
    let one = median(Figure::Put1, |round| round.latency.p50_us);
    let times = raw.zip(one).map(|(raw, one)| one / raw.median);
    let p99 = |system| {
        let spread = results.spread(system, Figure::Put64, |round| round.latency.p99_us);
        spread.map(|spread| spread.median)
    };
    let beside_durable = p99(US).zip(p99(System::Durable)).map(|(own, of)| own / of);
    let cpu = |round: &Round| round.server.map_or(f64::NAN, |server| server.cpu_us);
    vec![
        at_most(
            "PutRecord, 64 connections, p99",
            1.5,
            "times that of `durable`",
            beside_durable,
        ),
        at_most(
            "PutRecord, 1 connection, p50",
            1.5,
            "times one raw write and sync",
            times,
        ),
        at_most(
            "server CPU for a PutRecord",
            30.0,
            "us",
            median(Figure::Put16, cpu),
        ),
        at_most(
            "put to subscriber, 1,000 records/s, p50",
            1.0,
            "ms",
            median(Figure::FanOut, |round| round.latency.p50_us / 1e3),
        ),
        at_most(
            "put to subscriber, 1,000 records/s, p99",
            5.0,
            "ms",
            median(Figure::FanOut, |round| round.latency.p99_us / 1e3),
        ),
        at_most(
            "put to who polls every 20 ms, 1,000 records/s, p50",
            f64::from(POLL_MS) / 2.0 + 1.0,
            "ms",
            median(Figure::Poll, |round| round.latency.p50_us / 1e3),
        ),
        at_most(
            "put to who polls every 20 ms, 1,000 records/s, p99",
            f64::from(POLL_MS) + 5.0,
            "ms",
            median(Figure::Poll, |round| round.latency.p99_us / 1e3),
        ),
    ]
}

fn footprint(results: &Results) -> Vec<Target> {
    let start = results.start(US, |start| start.ms);
    let idle = results.start(US, |start| start.idle_mib);
    vec![
        at_most(
            "start to first answer",
            50.0,
            "ms",
            start.map(|start| start.median),
        ),
        at_most(
            "resident when idle",
            20.0,
            "MiB",
            idle.map(|idle| idle.median),
        ),
        at_most("resident at most", 512.0, "MiB", results.peak_mib(US)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::round;
    use super::*;

    #[test]
    fn a_target_is_met_or_not_or_not_measured() {
        let mut results = Results::default();
        results.add(System::Millstream, Figure::Put16, Ok(round(10_000.0)));
        results.add(System::Millstream, Figure::Put64, Ok(round(10_000.0)));
        results.add(System::Durable, Figure::Put64, Ok(round(20_000.0)));
        let text = print(&results);
        let missed =
            "| PutRecord, 64 connections: at least 85.0 % of its ceiling | 50.0 | **no** |";
        assert!(text.contains(missed), "{text}");
        let met = "| server CPU for a PutRecord: at most 30.0 us | 20.0 | yes |";
        assert!(text.contains(met), "{text}");
        results.add(System::Ferrokinesis, Figure::Put64, Ok(round(8_000.0)));
        assert!(!print(&results).contains("in memory"));
        for slower in [System::Moto, System::Kinesalite, System::KinesisLocal] {
            results.add(slower, Figure::Put64, Ok(round(100.0)));
        }
        let text = print(&results);
        let best = "| PutRecord: at least 2.00 times the best peer in memory | 1.25 | **no** |";
        assert!(text.contains(best), "{text}");
        assert!(!text.contains("GetRecords"), "{text}");
    }
}
