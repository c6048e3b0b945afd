//! A worker of `kcl` that does nothing with its records but count them, or say when each came.
//!
//! What it prints, and the peers' workers print: `shard ID US` when a shard is begun, `lost ID US`, `record ID SEQUENCE PUT_US US` for each
//! record in trace mode, `total RECORDS BYTES US` every 20 ms in count mode; US is the wall clock in microseconds since 1970.

use crate::Failure;
use crate::command::{Mode, Retrieval};
use async_trait::async_trait;
use kcl::{
    Checkpointer, ProcessorError, RecordBatch, RecordProcessor, ShardInfo, SqliteLeaseStore, Worker,
};
use millstream_bench::clock::now_us;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The arguments of a worker.
#[derive(Debug, clap::Args)]
pub(crate) struct Work {
    #[arg(long)]
    endpoint: String,
    #[arg(long)]
    leases: PathBuf,
    #[arg(long)]
    stream: String,
    #[arg(long)]
    application: String,
    #[arg(long)]
    worker: String,
    #[arg(long)]
    failover_ms: u64,
    #[arg(long)]
    retrieval: Retrieval,
    #[arg(long)]
    mode: Mode,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    records: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    pub(crate) fn add(&self, records: u64, bytes: usize) {
        self.records.fetch_add(records, Ordering::Relaxed);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

struct Processor {
    shard: String,
    mode: Mode,
    counts: Arc<Counts>,
}

pub(crate) fn say(lines: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody listens any more when the comparison has ended.
    let _ = writeln!(out, "{lines}").and_then(|()| out.flush());
}

#[async_trait]
impl RecordProcessor for Processor {
    async fn initialize(&mut self, shard: &ShardInfo) -> Result<(), ProcessorError> {
        say(&format!("shard {} {}", shard.shard_id, now_us()));
        Ok(())
    }

    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        match self.mode {
            Mode::Count => {
                let bytes: usize = batch.records().iter().map(|r| r.data().len()).sum();
                let records = u64::try_from(batch.records().len())?;
                self.counts.add(records, bytes);
            }
            Mode::Trace => {
                let (mut lines, now) = (String::new(), now_us());
                for record in batch.records() {
                    let put = record.data().get(..16).unwrap_or_default();
                    let put = String::from_utf8_lossy(put);
                    let separator = if lines.is_empty() { "" } else { "\n" };
                    let number = record.sequence_number();
                    write!(
                        lines,
                        "{separator}record {} {number} {put} {now}",
                        self.shard
                    )?;
                }
                say(&lines);
            }
        }
        checkpointer.checkpoint().await?;
        Ok(())
    }

    async fn lease_lost(&mut self) {
        say(&format!("lost {} {}", self.shard, now_us()));
    }
}

pub(crate) async fn tell(counts: Arc<Counts>) {
    let mut before = 0;
    loop {
        let records = counts.records.load(Ordering::Relaxed);
        if records != before {
            before = records;
            let bytes = counts.bytes.load(Ordering::Relaxed);
            say(&format!("total {records} {bytes} {}", now_us()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Works until SIGTERM.
pub(crate) async fn work(work: Work) -> Result<(), Failure> {
    let counts = Arc::<Counts>::default();
    let (mode, counted) = (work.mode, Arc::clone(&counts));
    let mut builder = Worker::builder(work.application, work.stream)
        .endpoint(work.endpoint)
        .worker_id(work.worker)
        .failover_time(Duration::from_millis(work.failover_ms))
        .lease_store(SqliteLeaseStore::open(work.leases).await?);
    if work.retrieval == Retrieval::Fanout {
        let consumer_name = None;
        builder = builder.retrieval(kcl::Retrieval::FanOut { consumer_name });
    }
    let worker = builder
        .build(move |shard: &ShardInfo| Processor {
            shard: shard.shard_id.clone(),
            mode,
            counts: Arc::clone(&counted),
        })
        .await?;
    let handle = worker.handle();
    let telling = tokio::spawn(tell(counts));
    let stopping = tokio::spawn(async move {
        let kind = tokio::signal::unix::SignalKind::terminate();
        if let Ok(mut terminated) = tokio::signal::unix::signal(kind) {
            terminated.recv().await;
            handle.shutdown();
        }
    });
    let ended = worker.run().await;
    telling.abort();
    stopping.abort();
    Ok(ended?)
}
