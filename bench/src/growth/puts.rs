//! Puts as the log and the number of shards grow.

use super::Size;
use super::server::{Running, Setup};
use super::table::{Compared, Row};
use crate::measure::{Recorder, Round, Window, watch};
use crate::workload::{Puts, fill};
use crate::{Failure, report, stream};
use std::time::Duration;

/// Before figures count.
const WARM_UP: Duration = Duration::from_millis(700);
/// Bytes of a record where nothing else is said.
const RECORD_BYTES: usize = 1024;
/// Bytes of a record of the ten million.
const RETAINED_BYTES: usize = 100;
/// By how much ten million records may slow puts down, and ten thousand shards.
const RETAINED_PERCENT: f64 = 10.0;
const SHARDS_PERCENT: f64 = 20.0;

/// A load of puts.
#[derive(Debug, Clone, Copy)]
struct Load {
    name: &'static str,
    records: usize,
    connections: usize,
}

const LOADS: [Load; 2] = [
    Load {
        name: "PutRecord, 16 connections",
        records: 1,
        connections: 16,
    },
    Load {
        name: "PutRecords of 500, 4 connections",
        records: 500,
        connections: 4,
    },
];

/// Rounds of each load on one server.
#[derive(Debug, Default)]
struct Measured([Vec<Round>; LOADS.len()]);

impl Measured {
    async fn round(&mut self, server: &Running, stream: &str, size: Size) -> Result<(), Failure> {
        for (load, rounds) in LOADS.iter().zip(&mut self.0) {
            let puts = Puts {
                stream: stream.to_owned(),
                connections: load.connections,
                records: load.records,
                record_bytes: RECORD_BYTES,
                rate: None,
            };
            let recorder = Recorder::new(Window::after(WARM_UP, size.duration))?;
            let watched = watch(recorder.window(), Some(server.pid));
            let (done, used) = tokio::join!(puts.run(&server.endpoint, &recorder), watched);
            done?;
            rounds.push(recorder.round(used?));
        }
        Ok(())
    }

    fn compared(&self, after: &Measured, (when, within_percent): (&str, f64)) -> Vec<Row> {
        let mut rows = Vec::new();
        for ((load, before), after) in LOADS.iter().zip(&self.0).zip(&after.0) {
            type Figure = fn(&Round) -> f64;
            let figures: [(&str, &str, bool, Figure); 4] = [
                ("requests", "/s", true, |round| round.requests_per_s),
                ("p50", "us", false, |round| round.latency.p50_us),
                ("p99", "us", false, |round| round.latency.p99_us),
                (
                    "processor time of the server",
                    "us a request",
                    false,
                    |round| round.server.map_or(f64::NAN, |server| server.cpu_us),
                ),
            ];
            for (name, unit, more_is_better, figure) in figures {
                let before: Vec<f64> = before.iter().map(figure).collect();
                let after: Vec<f64> = after.iter().map(figure).collect();
                let compared = Compared {
                    what: &format!("{}, {when}: {name}", load.name),
                    unit,
                    before: &before,
                    after: &after,
                    more_is_better,
                    within_percent,
                };
                rows.push(compared.row());
            }
        }
        rows
    }
}

/// Puts into an empty log and into one of many records.
pub(super) async fn retained(setup: &Setup, size: Size) -> Result<Vec<Row>, Failure> {
    let data = setup.data()?;
    let full = setup.start(data.path()).await?;
    let name = stream::create(&full.endpoint, 4).await?;
    report::note(&format!("filling with {} records", size.records));
    let records = fill(&full.endpoint, &name, size.records, RETAINED_BYTES).await?;
    let (mut empty_rounds, mut full_rounds) = (Measured::default(), Measured::default());
    for round in 0..size.rounds {
        report::note(&format!("retained records, round {}", round + 1));
        let fresh = setup.data()?;
        let empty = setup.start(fresh.path()).await?;
        let own = stream::create(&empty.endpoint, 4).await?;
        empty_rounds.round(&empty, &own, size).await?;
        empty.stop().await?;
        full_rounds.round(&full, &name, size).await?;
    }
    let when = format!("log empty -> {records} records");
    let mut rows = empty_rounds.compared(&full_rounds, (&when, RETAINED_PERCENT));
    let resident = mib(full.memory()?.resident_kib);
    rows.push(Row::told(
        "resident after all that",
        format!("{resident:.0} MiB"),
    ));
    full.stop().await?;
    let again = setup.start(data.path()).await?;
    let ms = again.start.as_secs_f64() * 1e3;
    rows.push(Row::told(
        "start with them",
        format!("{ms:.0} ms, idle {:.1} MiB", mib(again.idle_kib)),
    ));
    again.stop().await?;
    Ok(rows)
}

/// Puts into few shards and into many.
pub(super) async fn shards(setup: &Setup, size: Size) -> Result<Vec<Row>, Failure> {
    let mut servers = Vec::new();
    for shards in size.shards {
        let data = setup.data()?;
        let server = setup.start(data.path()).await?;
        let name = stream::create(&server.endpoint, shards).await?;
        servers.push((data, server, name, shards, Measured::default()));
    }
    for round in 0..size.rounds {
        report::note(&format!("shards, round {}", round + 1));
        for (_, server, name, _, measured) in &mut servers {
            measured.round(server, name, size).await?;
        }
    }
    let mut rows = Vec::new();
    if let Some(((_, _, _, few, before), more)) = servers.split_first() {
        for (_, _, _, many, after) in more {
            let when = format!("{few} -> {many} shards");
            rows.extend(before.compared(after, (&when, SHARDS_PERCENT)));
        }
    }
    for (data, server, _, shards, _) in servers {
        let memory = server.memory()?;
        let what = format!("resident with {shards} shards under these loads, at most");
        rows.push(Row::at_most(&what, (1024.0, "MiB"), mib(memory.peak_kib)));
        server.stop().await?;
        let again = setup.start(data.path()).await?;
        let what = format!("start with {shards} shards");
        rows.push(Row::at_most(&what, (5.0, "s"), again.start.as_secs_f64()));
        let what = format!("resident with {shards} shards, idle");
        rows.push(Row::at_most(&what, (1024.0, "MiB"), mib(again.idle_kib)));
        again.stop().await?;
    }
    Ok(rows)
}

pub(super) fn mib(kib: u64) -> f64 {
    crate::measure::float(kib) / 1024.0
}
