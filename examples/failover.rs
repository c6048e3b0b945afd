//! Two worker processes; the first is killed with SIGKILL in the middle, the second goes on where it was.
//! The program starts itself again as the workers.

use async_trait::async_trait;
use kcl::{
    Checkpointer, ProcessorError, RecordBatch, RecordProcessor, ShardInfo, SqliteLeaseStore, Worker,
};
use millstream_examples::{Failure, put, serve};
use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

const RECORDS: usize = 200;

struct Printer;

#[async_trait]
impl RecordProcessor for Printer {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        for record in batch.records() {
            println!("{}", String::from_utf8_lossy(record.data()));
        }
        checkpointer.checkpoint().await?;
        Ok(())
    }
}

async fn work(url: &str, leases: &str) -> Result<(), Failure> {
    let worker = Worker::builder("failover", "jobs")
        .endpoint(url)
        .lease_store(SqliteLeaseStore::open(leases).await?)
        .failover_time(Duration::from_secs(1))
        .build(|_: &ShardInfo| Printer)
        .await?;
    Ok(worker.run().await?)
}

/// Starts a worker process; what it prints is sent to `lines`.
fn start(url: &str, leases: &str, lines: &mpsc::Sender<String>) -> Result<Child, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([url, leases])
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let out = child.stdout.take().ok_or("no standard output")?;
    let (mut out, lines) = (BufReader::new(out).lines(), lines.clone());
    tokio::spawn(async move {
        while let Ok(Some(line)) = out.next_line().await {
            if lines.send(line).await.is_err() {
                break;
            }
        }
    });
    Ok(child)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    if let [_, url, leases] = std::env::args().collect::<Vec<_>>().as_slice() {
        return work(url, leases).await;
    }
    let server = serve("jobs", 2).await?;
    let directory = tempfile::tempdir()?;
    let leases = directory.path().join("leases.db").display().to_string();
    let (sender, mut lines) = mpsc::channel(100);
    let mut first = start(&server.url(), &leases, &sender)?;
    let mut second = None;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..RECORDS {
        put(
            &server.url(),
            "jobs",
            &format!("key {number}"),
            &format!("job {number}"),
        )
        .await?;
        if number == RECORDS / 2 {
            let line = lines.recv().await.ok_or("the first worker ended")?;
            *seen.entry(line).or_default() += 1; // it is at work
            second = Some(start(&server.url(), &leases, &sender)?);
            first.kill().await?;
            println!("killed the first worker");
        }
    }
    while seen.len() < RECORDS {
        *seen
            .entry(lines.recv().await.ok_or("the workers ended")?)
            .or_default() += 1;
    }
    if let Some(mut second) = second {
        second.kill().await?;
    }
    let twice = seen.values().filter(|&&times| times > 1).count();
    server.shutdown().await;
    println!("result: all {RECORDS} records processed, {twice} of them twice");
    Ok(())
}
