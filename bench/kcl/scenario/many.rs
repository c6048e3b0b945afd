//! A hundred shards: what they take in memory, and what the leases cost when nothing happens.

use super::{Kinesis, Stage};
use crate::Failure;
use crate::command::{Job, Retrieval, System};
use crate::records::{Event, WorkerRun};
use kcl::{LeaseStore, SqliteLeaseStore};
use millstream_bench::load;
use std::time::Duration;

const SHARDS: u64 = 100;
const RECORD_BYTES: usize = 1024;
const RECORDS: usize = 100_000;
const LIMIT: Duration = Duration::from_mins(8);
/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(30);

pub(super) async fn measure(stage: &mut Stage) -> Result<(), Failure> {
    let kinesis = Kinesis::start(&[format!("many:{SHARDS}")]).await?;
    let records = load::fill(kinesis.host(), "many", RECORDS, RECORD_BYTES).await?;
    for who in stage.libraries() {
        if let Err(error) = one(stage, &kinesis, who, records).await {
            stage.table.note(
                "resident with 100 shards, MiB",
                who,
                format!("failed: {error}"),
            );
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "rates and sizes")]
async fn one(
    stage: &mut Stage,
    kinesis: &Kinesis,
    who: (System, Retrieval),
    records: u64,
) -> Result<(), Failure> {
    let application = format!("many-{:?}-{}", who.0, who.1);
    let job = Job::counting(who, &kinesis.url, "many", &application);
    let mut worker = WorkerRun::start(&job, &stage.peers, &stage.directory)?;
    let all = |events: &[Event]| {
        events.iter().find_map(|event| match event {
            Event::Total { records: count, .. } if *count >= records => Some(()),
            _ => None,
        })
    };
    worker.until("every record", LIMIT, all).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = store_calls(stage, who.0, &application).await?;
    let cpu = worker.cpu_seconds()?;
    tokio::time::sleep(IDLE).await;
    let after = store_calls(stage, who.0, &application).await?;
    let cpu = worker.cpu_seconds()? - cpu;
    let memory = worker.memory()?;
    let table = &mut stage.table;
    table.add("resident with 100 shards, MiB", who, memory.resident as f64);
    table.add("... at most while reading, MiB", who, memory.most as f64);
    let calls = after.wrapping_sub(before) as f64 / IDLE.as_secs_f64();
    let row = "idle with 100 leases: calls to the store/s (kcl: writes)";
    table.add(row, who, calls);
    table.add(
        "idle with 100 shards: CPU, %",
        who,
        100.0 * cpu / IDLE.as_secs_f64(),
    );
    worker.terminate(Duration::from_secs(40)).await
}

/// Requests that moto has logged; or, for `kcl`, the heartbeats in its leases' file, which are all it writes when nothing happens.
async fn store_calls(stage: &Stage, system: System, application: &str) -> Result<u64, Failure> {
    if system == System::Kcl {
        let file = stage.directory.join(format!("{application}.db"));
        let snapshot = SqliteLeaseStore::open(file)
            .await?
            .snapshot(application)
            .await?;
        let row = snapshot.workers.first().ok_or("no worker's row")?;
        return Ok(row.heartbeat);
    }
    let log = stage.compare.directory.join("moto.log");
    let log = std::fs::read_to_string(log)?;
    Ok(u64::try_from(log.matches("HTTP/1.1\" ").count())?)
}
