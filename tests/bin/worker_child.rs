//! A worker in a process of its own, to be killed: it reports every callback as a line of JSON on standard
//! output before it acts on it, and can count records by a CSV column in SQLite.
//!
//! Exit codes: 0 after an orderly shutdown, 2 for bad arguments, 1 for an error, which is on standard error
//! as `kind: message`.

use async_trait::async_trait;

use kcl::{
    Checkpointer, ProcessorError, RecordBatch, RecordProcessor, ShardInfo, SqliteLeaseStore, Worker,
};
use serde_json::{Value, json};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use std::collections::HashMap;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use support::clock::now_us;
use tokio::signal::unix::{SignalKind, signal};

/// What the parent asks for, by flag.
#[derive(Debug, Clone)]
struct Settings(HashMap<String, String>);

impl Settings {
    fn from_arguments() -> Result<Settings, String> {
        let mut flags = HashMap::new();
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments
                .next()
                .ok_or_else(|| format!("{name} needs a value"))?;
            flags.insert(name, value);
        }
        Ok(Settings(flags))
    }

    fn text(&self, name: &str) -> Result<String, String> {
        self.0
            .get(name)
            .cloned()
            .ok_or_else(|| format!("{name} is missing"))
    }

    fn number(&self, name: &str, default: u64) -> Result<u64, String> {
        match self.0.get(name) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .map_err(|error| format!("{name} {text}: {error}")),
        }
    }
}

/// Writes one line at once: a torn line can only be the last of a killed process.
fn report(worker: &str, event: &str, shard: Option<&str>, extra: &[(&str, Value)]) {
    let mut line = json!({"at_us": now_us(), "worker": worker, "event": event});
    if let Some(shard) = shard {
        line["shard"] = json!(shard);
    }
    for (name, value) in extra {
        line[*name] = value.clone();
    }
    let mut stdout = std::io::stdout().lock();
    // The parent may be gone; then nobody is interested.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Where records are counted by one CSV column of their payload: a row per record, keyed by its place, so
/// that a record delivered twice counts once.
#[derive(Debug, Clone)]
struct Counter {
    pool: SqlitePool,
    column: usize,
}

impl Counter {
    async fn open(path: &str, column: usize) -> Result<Counter, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(20));
        let pool = SqlitePool::connect_with(options).await?;
        sqlx::query(
            "CREATE TABLE IF NOT EXISTS counted (shard TEXT, sequence TEXT, value TEXT, \
             PRIMARY KEY (shard, sequence)) WITHOUT ROWID",
        )
        .execute(&pool)
        .await?;
        Ok(Counter { pool, column })
    }

    async fn add(&self, shard: &str, batch: &RecordBatch) -> Result<(), ProcessorError> {
        let mut rows = Vec::with_capacity(batch.records().len());
        for record in batch.records() {
            let row = std::str::from_utf8(record.data())?;
            let value = row
                .split(',')
                .nth(self.column)
                .ok_or_else(|| format!("short row {row:?}"))?;
            rows.push(json!([record.sequence_number().to_string(), value]));
        }
        // One statement for the batch is one transaction.
        sqlx::query(
            "INSERT OR IGNORE INTO counted \
             SELECT ?1, value ->> 0, value ->> 1 FROM json_each(?2)",
        )
        .bind(shard)
        .bind(Value::from(rows).to_string())
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

#[derive(Debug, Clone)]
struct Processor {
    worker: Arc<str>,
    shard: String,
    delay: Duration,
    counter: Option<Counter>,
}

impl Processor {
    fn report(&self, event: &str, extra: &[(&str, Value)]) {
        report(&self.worker, event, Some(&self.shard), extra);
    }

    async fn checkpoint(&self, checkpointer: &Checkpointer) -> Result<(), ProcessorError> {
        match checkpointer.checkpoint().await {
            Ok(()) => self.report("checkpointed", &[]),
            Err(error) => {
                self.report("refused", &[("error", json!(format!("{error:?}")))]);
                return Err(error.into());
            }
        }
        Ok(())
    }
}

#[async_trait]
impl RecordProcessor for Processor {
    async fn initialize(&mut self, _shard: &ShardInfo) -> Result<(), ProcessorError> {
        self.report("initialized", &[]);
        Ok(())
    }

    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        let sequences: Vec<String> = batch
            .records()
            .iter()
            .map(|record| record.sequence_number().to_string())
            .collect();
        self.report("delivered", &[("sequences", json!(sequences))]);
        if let Some(counter) = &self.counter {
            counter.add(&self.shard, &batch).await?;
        }
        tokio::time::sleep(self.delay).await;
        self.checkpoint(checkpointer).await
    }

    async fn lease_lost(&mut self) {
        self.report("lease_lost", &[]);
    }

    async fn shard_ended(&mut self, _checkpointer: &Checkpointer) -> Result<(), ProcessorError> {
        self.report("ended", &[]);
        Ok(())
    }

    async fn shutdown_requested(
        &mut self,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        self.report("shutdown_requested", &[]);
        self.checkpoint(checkpointer).await
    }
}

async fn run(settings: Settings) -> Result<(), ProcessorError> {
    let worker: Arc<str> = settings.text("--worker-id")?.into();
    let delay = Duration::from_millis(settings.number("--delay-ms", 0)?);
    let counter = match settings.0.get("--count-into") {
        Some(path) => {
            let column = usize::try_from(settings.number("--count-column", 0)?)?;
            Some(Counter::open(path, column).await?)
        }
        None => None,
    };
    let leases = SqliteLeaseStore::open(settings.text("--leases")?).await?;
    let named = Arc::clone(&worker);
    let factory = move |shard: &ShardInfo| Processor {
        worker: Arc::clone(&named),
        shard: shard.shard_id.clone(),
        delay,
        counter: counter.clone(),
    };
    let running = Worker::builder(settings.text("--application")?, settings.text("--stream")?)
        .endpoint(settings.text("--endpoint")?)
        .region("us-east-1")
        .worker_id(worker.to_string())
        .lease_store(leases)
        .failover_time(Duration::from_millis(
            settings.number("--failover-ms", 10_000)?,
        ))
        .poll_interval(Duration::from_millis(settings.number("--poll-ms", 100)?))
        .max_records(u32::try_from(settings.number("--max-records", 1000)?)?)
        .build(factory)
        .await?;
    let handle = running.handle();
    let mut terminate = signal(SignalKind::terminate())?;
    report(&worker, "started", None, &[]);
    let run = running.run();
    tokio::pin!(run);
    tokio::select! {
        ended = &mut run => ended?,
        _ = terminate.recv() => {
            handle.shutdown();
            run.await?;
        }
    }
    report(&worker, "stopped", None, &[]);
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let settings = match Settings::from_arguments() {
        Ok(settings) => settings,
        Err(what) => {
            eprintln!("{what}");
            return ExitCode::from(2);
        }
    };
    match run(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match error.downcast_ref::<kcl::Error>() {
                Some(error) => eprintln!("{error:?}"),
                None => eprintln!("{error}"),
            }
            ExitCode::FAILURE
        }
    }
}
