//! A stream that is full: how long until the first record, and how fast all of it is read.

use super::{Kinesis, Stage};
use crate::Failure;
use crate::command::{Job, Retrieval, System};
use crate::records::{Event, WorkerRun};
use millstream_bench::load;
use std::collections::BTreeMap;
use std::time::Duration;

const RATE: &str = "records/s, 16 shards, 1 KiB";
const SHARDS: usize = 16;
const RECORD_BYTES: usize = 1024;
const LIMIT: Duration = Duration::from_mins(8);

/// Fills a stream once; everybody reads it in turn, each as an application of its own.
pub(super) async fn measure(stage: &mut Stage) -> Result<(), Failure> {
    let kinesis = Kinesis::start(&[format!("full:{SHARDS}")]).await?;
    let records = load::fill(kinesis.host(), "full", stage.compare.records, RECORD_BYTES).await?;
    let most = stage
        .all()
        .iter()
        .map(|(system, _)| stage.rounds(*system))
        .max();
    for round in 0..most.unwrap_or(0) {
        let mut sent = BTreeMap::new();
        for who in stage.all() {
            if round >= stage.rounds(who.0) {
                continue;
            }
            match one(stage, &kinesis, who, (round, records)).await {
                Ok(rate) if who.0 == System::Raw => {
                    sent.insert(who.1, rate);
                }
                Ok(rate) => {
                    if let Some(sent) = sent.get(&who.1) {
                        let row = "of what the server sends so, %";
                        stage.table.add(row, who, 100.0 * rate / sent);
                    }
                }
                Err(error) => stage.table.note(RATE, who, format!("failed: {error}")),
            }
        }
    }
    Ok(())
}

/// Reads everything once; gives the records a second.
#[expect(clippy::cast_precision_loss, reason = "rates and times")]
async fn one(
    stage: &mut Stage,
    kinesis: &Kinesis,
    who: (System, Retrieval),
    (round, records): (usize, u64),
) -> Result<f64, Failure> {
    let application = format!("drain-{:?}-{}-{round}", who.0, who.1);
    let job = Job::counting(who, &kinesis.url, "full", &application);
    let mut worker = WorkerRun::start(&job, &stage.peers, &stage.directory)?;
    let began = |events: &[Event]| {
        events.iter().find_map(|event| match event {
            Event::Shard { at_us, .. } => Some(*at_us),
            Event::Record { .. } | Event::Total { .. } => None,
        })
    };
    let began_us = worker.until("its first shard", LIMIT, began).await?;
    let first = |events: &[Event]| totals(events).next();
    let (_, first_us) = worker.until("its first record", LIMIT, first).await?;
    let cpu = worker.cpu_seconds()?;
    let last = |events: &[Event]| totals(events).find(|(count, _)| *count >= records);
    let (_, last_us) = worker.until("its last record", LIMIT, last).await?;
    let cpu = worker.cpu_seconds()? - cpu;
    let memory = worker.memory()?;
    let table = &mut stage.table;
    let rate = records as f64 / ((last_us - began_us) as f64 / 1e6);
    table.add(
        "start to first record, s",
        who,
        (first_us - worker.started_us) as f64 / 1e6,
    );
    table.add(RATE, who, rate);
    table.add("CPU per 1,000 records, ms", who, cpu * 1e6 / records as f64);
    table.add("resident at most, MiB", who, memory.most as f64);
    worker.terminate(Duration::from_secs(40)).await?;
    Ok(rate)
}

fn totals(events: &[Event]) -> impl Iterator<Item = (u64, u64)> + '_ {
    events.iter().filter_map(|event| match event {
        Event::Total { records, at_us } => Some((*records, *at_us)),
        Event::Shard { .. } | Event::Record { .. } => None,
    })
}
