//! The results in Markdown: medians, with the least and the most.

use super::figures::{Figure, rate};
use super::results::Results;
use super::systems::{SETTINGS, System};
use crate::measure::{Round, Spread};
use std::fmt::Write;

/// All tables.
pub(super) fn print(results: &Results, systems: &[System]) -> String {
    let mut text = String::new();
    let systems: Vec<System> = systems
        .iter()
        .copied()
        .filter(|system| results.has(*system))
        .collect();
    puts(results, &systems, &mut text);
    reads(results, &systems, &mut text);
    shares(results, &systems, &mut text);
    notes(results, &systems, &mut text);
    text
}

/// A row of cells.
fn row(text: &mut String, cells: &[String]) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn head(text: &mut String, cells: &[&str]) {
    text.push('\n');
    row(
        text,
        &cells
            .iter()
            .map(|cell| (*cell).to_owned())
            .collect::<Vec<_>>(),
    );
    let _ = writeln!(text, "|{}", "---|".repeat(cells.len()));
}

fn puts(results: &Results, systems: &[System], text: &mut String) {
    head(
        text,
        &[
            "",
            "PutRecord, 1 connection: requests/s; p50 / p99 ms",
            "16 connections",
            "64 connections",
            "server CPU, us a PutRecord",
            "PutRecords 500, 4 connections, JSON, MB/s",
            "CBOR, MB/s",
        ],
    );
    for system in systems
        .iter()
        .copied()
        .filter(|system| *system != System::Get)
    {
        let put = |figure| put_cell(results, system, figure);
        let cpu = |round: &Round| round.server.map_or(f64::NAN, |server| server.cpu_us);
        let cpu = results.spread(system, Figure::Put16, cpu);
        row(
            text,
            &[
                system.name().to_owned(),
                put(Figure::Put1),
                put(Figure::Put16),
                put(Figure::Put64),
                cpu.map_or_else(dash, spread),
                rate_cell(results, system, Figure::BatchJson),
                rate_cell(results, system, Figure::BatchCbor),
            ],
        );
    }
}

fn reads(results: &Results, systems: &[System], text: &mut String) {
    head(
        text,
        &[
            "",
            "GetRecords from memory, 4 readers, MB/s",
            "from sealed segments, MB/s",
            "put to subscriber, p50 / p99 ms",
            "start to first answer, ms",
            "resident idle, MiB",
            "resident at most, MiB",
        ],
    );
    for system in systems.iter().copied() {
        if system.is_ceiling() && system != System::Get {
            continue;
        }
        let start = results.start(system, |start| start.ms);
        let idle = results.start(system, |start| start.idle_mib);
        // A ceiling's memory is its prepared answers.
        let real = |cell: String| if system.is_ceiling() { dash() } else { cell };
        row(
            text,
            &[
                system.name().to_owned(),
                rate_cell(results, system, Figure::GetTail),
                rate_cell(results, system, Figure::GetSealed),
                fan_out_cell(results, system),
                real(start.map_or_else(dash, spread)),
                real(idle.map_or_else(dash, spread)),
                real(results.peak_mib(system).map_or_else(dash, number)),
            ],
        );
    }
}

fn shares(results: &Results, systems: &[System], text: &mut String) {
    head(
        text,
        &[
            "of its ceiling, %",
            "PutRecord 1 (of durable / of parse)",
            "16",
            "64",
            "PutRecords JSON",
            "PutRecords CBOR",
            "GetRecords from memory (of get)",
            "from sealed segments",
        ],
    );
    for system in systems
        .iter()
        .copied()
        .filter(|system| !system.is_ceiling())
    {
        let share = |figure: Figure| {
            let ceiling = figure.ceiling().unwrap_or(System::Durable);
            let of = |ceiling| results.share(system, ceiling, figure).map(percent);
            match (of(ceiling), of(System::Parse)) {
                (None, _) => dash(),
                (Some(share), None) => share,
                (Some(share), Some(parse)) => format!("{share} / {parse}"),
            }
        };
        row(
            text,
            &[
                system.name().to_owned(),
                share(Figure::Put1),
                share(Figure::Put16),
                share(Figure::Put64),
                share(Figure::BatchJson),
                share(Figure::BatchCbor),
                share(Figure::GetTail),
                share(Figure::GetSealed),
            ],
        );
    }
}

fn notes(results: &Results, systems: &[System], text: &mut String) {
    text.push('\n');
    for (system, settings) in SETTINGS {
        if systems.contains(system) {
            let _ = writeln!(text, "- {}: {settings}.", system.name());
        }
    }
    for (system, figure, failure) in results.failures() {
        // A note is one line.
        let failure: String = failure.chars().take(200).collect();
        let failure = failure.replace(['|', '\n'], " ");
        let name = system.name();
        let _ = writeln!(text, "- {name}, {figure:?}, failed: {failure}");
    }
    for system in systems {
        if rate(*system) < 1000 && results.spread(*system, Figure::FanOut, |_| 0.0).is_some() {
            let (name, rate) = (system.name(), rate(*system));
            let _ = writeln!(
                text,
                "- {name}: put to subscriber at {rate} records/s, which it can bear."
            );
        }
    }
}

fn dash() -> String {
    "-".to_owned()
}

fn put_cell(results: &Results, system: System, figure: Figure) -> String {
    let latency = |at: fn(&Round) -> f64| results.spread(system, figure, at);
    let requests = results.spread(system, figure, |round| round.requests_per_s);
    let p50 = latency(|round| round.latency.p50_us / 1e3);
    let p99 = latency(|round| round.latency.p99_us / 1e3);
    match (requests, p50, p99) {
        (Some(requests), Some(p50), Some(p99)) => {
            let (p50, p99) = (number(p50.median), number(p99.median));
            format!("{}; {p50} / {p99}", spread(requests))
        }
        _ => failed(results, system, figure),
    }
}

fn rate_cell(results: &Results, system: System, figure: Figure) -> String {
    let rate = results.spread(system, figure, |round| figure.rate(round));
    rate.map_or_else(|| failed(results, system, figure), spread)
}

fn fan_out_cell(results: &Results, system: System) -> String {
    let latency = |at: fn(&Round) -> f64| results.spread(system, Figure::FanOut, at);
    let p50 = latency(|round| round.latency.p50_us / 1e3);
    let p99 = latency(|round| round.latency.p99_us / 1e3);
    match (p50, p99) {
        (Some(p50), Some(p99)) => format!("{} / {}", spread(p50), spread(p99)),
        _ => failed(results, system, Figure::FanOut),
    }
}

/// Why is told below the tables.
fn failed(results: &Results, system: System, figure: Figure) -> String {
    let failure = results.failure(system, figure);
    failure.map_or_else(dash, |_| "failed".to_owned())
}

/// Median, and the least and the most where they differ.
pub(super) fn spread(spread: Spread) -> String {
    let Spread { median, min, max } = spread;
    if number(min) == number(max) {
        return number(median);
    }
    format!("{} ({}-{})", number(median), number(min), number(max))
}

fn percent(share: Spread) -> String {
    let percent = |share: f64| share * 100.0;
    let Spread { median, min, max } = share;
    spread(Spread {
        median: percent(median),
        min: percent(min),
        max: percent(max),
    })
}

/// With three digits that say something.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1000.0 {
        thousands(value)
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// Three digits and a comma between thousands.
fn thousands(value: f64) -> String {
    let digits = value.abs().log10().floor();
    let step = 10f64.powf((digits - 2.0).max(0.0));
    let text = format!("{:.0}", (value / step).round() * step);
    let mut parts = Vec::new();
    let mut rest = text.as_str();
    while rest.len() > 3 {
        let (front, part) = rest.split_at(rest.len() - 3);
        parts.insert(0, part);
        rest = front;
    }
    parts.insert(0, rest);
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::round;
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in [
            (1_234_567.0, "1,230,000"),
            (41_949.0, "41,900"),
            (1000.4, "1,000"),
            (999.4, "999"),
            (42.34, "42.3"),
            (0.139, "0.14"),
            (0.0, "0.00"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    /// Goal: whoever reads the table sees what was measured, what failed, and what was not asked.
    #[test]
    fn a_table_has_medians_shares_and_failures() {
        let mut results = Results::default();
        for (ours, ceiling) in [
            (20_000.0, 40_000.0),
            (30_000.0, 40_000.0),
            (25_000.0, 40_000.0),
        ] {
            results.add(System::Millstream, Figure::Put16, Ok(round(ours)));
            results.add(System::Durable, Figure::Put16, Ok(round(ceiling)));
            results.add(
                System::Moto,
                Figure::Put16,
                Err("it | fell\nover".to_owned()),
            );
        }
        let systems = [
            System::Millstream,
            System::Durable,
            System::Moto,
            System::Get,
        ];
        let text = print(&results, &systems);
        assert!(
            text.contains(
                "| **Millstream** | - | 25,000 (20,000-30,000); 0.04 / 0.08 | - | 20.0 | - | - |"
            ),
            "{text}"
        );
        assert!(
            text.contains("| **Millstream** | - | 62.5 (50.0-75.0) | - |"),
            "{text}"
        );
        assert!(text.contains("| moto | - | failed | - | - |"), "{text}");
        let why = "- moto, Put16, failed: it   fell over\n";
        assert!(text.contains(why), "{text}");
        assert!(!text.contains("ceiling `get`"), "{text}");
    }
}
