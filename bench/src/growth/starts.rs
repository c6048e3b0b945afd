//! How long the server takes to its first answer, and what it holds then.

use super::Size;
use super::puts::mib;
use super::server::Setup;
use super::table::Row;
use crate::measure::{Recorder, Spread, Window, watch};
use crate::workload::{Puts, fill};
use crate::{Failure, report, stream};
use std::path::Path;
use std::time::Duration;

/// Starts of which the median counts.
const STARTS: usize = 7;
/// Bytes put so that the active segment, of 64 MiB, is nearly full.
const SEGMENT_RECORDS: usize = 57_000;
const RECORD_BYTES: usize = 1024;

pub(super) async fn run(setup: &Setup, size: Size) -> Result<Vec<Row>, Failure> {
    report::note("starts");
    let (mut starts, mut idle) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let data = setup.data()?;
        let server = setup.start(data.path()).await?;
        starts.push(server.start.as_secs_f64() * 1e3);
        idle.push(mib(server.idle_kib));
        server.stop().await?;
    }
    let median = |values: &[f64]| Spread::of(values.iter().copied()).map_or(f64::NAN, |s| s.median);
    let mut rows = vec![
        Row::at_most("start with an empty log", (50.0, "ms"), median(&starts)),
        Row::at_most("resident, idle", (20.0, "MiB"), median(&idle)),
    ];
    rows.push(
        full_segment(
            setup,
            "of records of 1 KiB put 500 at a time",
            Fill::Batches,
        )
        .await?,
    );
    rows.push(
        full_segment(
            setup,
            "of single records of 100 bytes",
            Fill::Singles(size.duration),
        )
        .await?,
    );
    Ok(rows)
}

/// What a segment is filled with.
#[derive(Debug, Clone, Copy)]
enum Fill {
    Batches,
    Singles(Duration),
}

/// The start after a crash, with an active segment that is full of frames.
async fn full_segment(setup: &Setup, of: &str, with: Fill) -> Result<Row, Failure> {
    let data = setup.data()?;
    let server = setup.start(data.path()).await?;
    let name = stream::create(&server.endpoint, 4).await?;
    match with {
        Fill::Batches => drop(fill(&server.endpoint, &name, SEGMENT_RECORDS, RECORD_BYTES).await?),
        Fill::Singles(duration) => {
            let puts = Puts {
                stream: name,
                connections: 64,
                records: 1,
                record_bytes: 100,
                rate: None,
            };
            let recorder = Recorder::new(Window::after(Duration::ZERO, duration * 4))?;
            let (done, used) = tokio::join!(
                puts.run(&server.endpoint, &recorder),
                watch(recorder.window(), None)
            );
            done?;
            used?;
        }
    }
    server.kill().await?;
    let bytes = last_segment_bytes(data.path())?;
    let again = setup.start(data.path()).await?;
    let seconds = again.start.as_secs_f64();
    again.stop().await?;
    let gib = crate::measure::float(bytes) / f64::from(1 << 30);
    let what = format!("start after a crash, an active segment {of}");
    let note = format!("{:.0} ms for {:.0} MiB", seconds * 1e3, gib * 1024.0);
    Ok(Row::at_most(&what, (2.0, "s a GiB"), seconds / gib).noting(&note))
}

fn last_segment_bytes(data: &Path) -> Result<u64, Failure> {
    let mut last = None;
    for entry in std::fs::read_dir(data)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_numbered = name.starts_with('0') && name.ends_with(".segment");
        if is_numbered && last.as_ref().is_none_or(|(newest, _)| *newest < name) {
            last = Some((name, entry.metadata()?.len()));
        }
    }
    let (_, bytes) = last.ok_or("the data directory has no segment")?;
    Ok(bytes)
}
