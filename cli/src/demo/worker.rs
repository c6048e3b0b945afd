//! A worker process of the demo: a `kcl` worker that aggregates per key into the results database.

use crate::Failure;
use crate::demo::input::{ValueField, fingerprint};
use crate::demo::producer::read_payload;
use crate::demo::results::{Delivered, Results};
use crate::serve::{Signals, start_logging, stdin_ended};
use crate::settings::LogFormat;
use async_trait::async_trait;
use clap::Args;
use kcl::processor::Record;
use kcl::{
    Checkpointer, ProcessorError, RecordBatch, RecordProcessor, ShardInfo, SqliteLeaseStore, Worker,
};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// How often a shard's progress is checkpointed. What a killed worker processed since comes again, which is what the
/// database has to cope with.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// What the demo tells its workers.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    pub(crate) endpoint: String,
    #[arg(long)]
    pub(crate) stream: String,
    #[arg(long)]
    pub(crate) application: String,
    #[arg(long)]
    pub(crate) worker_id: String,
    #[arg(long)]
    pub(crate) leases: PathBuf,
    #[arg(long)]
    pub(crate) results: PathBuf,
    #[arg(long)]
    pub(crate) value: ValueField,
    #[arg(long)]
    pub(crate) failover_ms: u64,
}

/// Works until standard input ends or a signal comes, then hands its shards back.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    start_logging(LogFormat::Text)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::runtime(format_args!("cannot start: {error}")))?;
    runtime.block_on(work(arguments))
}

async fn work(arguments: &Arguments) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let results = Results::open(&arguments.results)
        .await
        .map_err(Failure::runtime)?;
    let leases = SqliteLeaseStore::open(&arguments.leases)
        .await
        .map_err(Failure::runtime)?;
    let made = (
        results.clone(),
        arguments.worker_id.clone(),
        arguments.value.clone(),
    );
    let worker = Worker::builder(&arguments.application, &arguments.stream)
        .endpoint(&arguments.endpoint)
        .region("us-east-1")
        .worker_id(&arguments.worker_id)
        .lease_store(leases)
        .failover_time(Duration::from_millis(arguments.failover_ms))
        .build(move |shard: &ShardInfo| {
            let (results, worker, value) = made.clone();
            Aggregator {
                results,
                worker,
                value,
                shard: shard.shard_id.clone(),
                checkpointed: Instant::now(),
            }
        })
        .await
        .map_err(Failure::runtime)?;
    let handle = worker.handle();
    let asked = async {
        tokio::select! {
            _ = signals.next() => {}
            () = stdin_ended() => {}
        }
        handle.shutdown();
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = worker.run() => ended.map_err(Failure::runtime),
        () = asked => Ok(()),
    };
    results.close().await;
    ended
}

/// Aggregates one shard's records.
struct Aggregator {
    results: Results,
    worker: String,
    shard: String,
    value: ValueField,
    checkpointed: Instant,
}

#[async_trait]
impl RecordProcessor for Aggregator {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        let delivered: Result<Vec<Delivered>, String> = batch
            .records()
            .iter()
            .map(|record| self.read(record))
            .collect();
        self.results
            .store(&self.worker, &self.shard, &delivered?)
            .await?;
        if self.checkpointed.elapsed() >= CHECKPOINT_EVERY {
            checkpointer.checkpoint().await?;
            self.checkpointed = Instant::now();
        }
        Ok(())
    }
}

impl Aggregator {
    fn read(&self, record: &Record) -> Result<Delivered, String> {
        let sequence = record.sequence_number().to_string();
        let (ordinal, line) = read_payload(record.data())
            .ok_or_else(|| format!("record {sequence} of {} is not the demo's", self.shard))?;
        Ok(Delivered {
            sequence,
            ordinal,
            key: record.partition_key().to_owned(),
            fingerprint: fingerprint(line),
            value: self.value.of(line),
        })
    }
}
