//! A worker in a process of its own, to be killed: it reports every callback as a line of JSON on standard
//! output before it acts on it. What it does with records is one of: nothing, counting them by a CSV column in SQLite
//! (`--count-into`), sums in the database that holds the leases (`--sums`), sums elsewhere in two phases (`--other`); or failing
//! while a file names the shard (`--fail-while`).
//!
//! Exit codes: 0 after an orderly shutdown, 2 for bad arguments, 1 for an error, which is on standard error
//! as `kind: message`, after what the library logged.

mod counter;
mod mishap;
mod prepared;
mod settings;
mod sums;
mod voice;

use async_trait::async_trait;
use counter::Counter;
use kcl::{
    Checkpointer, PostgresLeaseStore, ProcessorError, RecordBatch, RecordProcessor, ShardInfo,
    SqliteLeaseStore, Worker,
};
use prepared::InTwoPhases;
use settings::Settings;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use sums::SumsInTransaction;
use support::Store;
use tokio::signal::unix::{SignalKind, signal};
use voice::{Voice, report};

/// What is done with records.
#[derive(Debug)]
enum Work {
    Nothing,
    Count(Counter),
    Sums(SumsInTransaction),
    TwoPhases(InTwoPhases),
}

/// The same for all shards.
#[derive(Debug, Clone)]
enum Task {
    Nothing,
    Count(Counter),
    Sums {
        store: Store,
        mishaps_while: Option<PathBuf>,
    },
    TwoPhases {
        other: String,
        pause: Duration,
    },
}

impl Task {
    async fn from_settings(settings: &Settings) -> Result<Task, ProcessorError> {
        if let Some(path) = settings.get("--count-into") {
            let column = usize::try_from(settings.number("--count-column", 0)?)?;
            return Ok(Task::Count(Counter::open(path, column).await?));
        }
        if let Some(other) = settings.get("--other") {
            let pause = Duration::from_millis(settings.number("--pause-ms", 0)?);
            let other = other.to_owned();
            return Ok(Task::TwoPhases { other, pause });
        }
        if settings.number("--sums", 0)? == 1 {
            let store = Store::parse(&settings.text("--leases")?);
            let mishaps_while = settings.get("--mishaps-while").map(PathBuf::from);
            return Ok(Task::Sums {
                store,
                mishaps_while,
            });
        }
        Ok(Task::Nothing)
    }

    fn begin(&self) -> Work {
        match self {
            Task::Nothing => Work::Nothing,
            Task::Count(counter) => Work::Count(counter.clone()),
            Task::Sums {
                store,
                mishaps_while,
            } => Work::Sums(SumsInTransaction::new(store.clone(), mishaps_while.clone())),
            Task::TwoPhases { other, pause } => {
                Work::TwoPhases(InTwoPhases::new(other.clone(), *pause))
            }
        }
    }
}

#[derive(Debug)]
struct Processor {
    voice: Voice,
    delay: Duration,
    work: Work,
    /// While this file names the shard, every batch of it fails.
    fail_while: Option<PathBuf>,
}

impl Processor {
    async fn checkpoint(&self, checkpointer: &Checkpointer) -> Result<(), ProcessorError> {
        match checkpointer.checkpoint().await {
            Ok(()) => {
                self.voice.report("checkpointed", &[]);
                Ok(())
            }
            Err(error) => {
                self.voice.refused(&error);
                Err(error.into())
            }
        }
    }
}

#[async_trait]
impl RecordProcessor for Processor {
    async fn initialize(&mut self, shard: &ShardInfo) -> Result<(), ProcessorError> {
        self.voice.report("initialized", &[]);
        if let Work::TwoPhases(work) = &mut self.work {
            work.inherit(shard.pending.as_ref(), &self.voice).await?;
        }
        Ok(())
    }

    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        self.voice.delivered(&batch);
        if let Some(path) = &self.fail_while
            && std::fs::read_to_string(path).is_ok_and(|shard| shard == self.voice.shard)
        {
            return Err("made to fail".into());
        }
        if let Work::Count(counter) = &self.work {
            counter.add(&self.voice.shard, &batch).await?;
        }
        tokio::time::sleep(self.delay).await;
        match &mut self.work {
            Work::Sums(sums) => sums.add(&batch, checkpointer, &self.voice).await,
            Work::TwoPhases(phases) => phases.add(&batch, checkpointer, &self.voice).await,
            Work::Nothing | Work::Count(_) => self.checkpoint(checkpointer).await,
        }
    }

    async fn lease_lost(&mut self) {
        self.voice.report("lease_lost", &[]);
    }

    async fn shard_ended(&mut self, _checkpointer: &Checkpointer) -> Result<(), ProcessorError> {
        self.voice.report("ended", &[]);
        Ok(())
    }

    async fn shutdown_requested(
        &mut self,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        self.voice.report("shutdown_requested", &[]);
        self.checkpoint(checkpointer).await
    }
}

async fn run(settings: Settings) -> Result<(), ProcessorError> {
    let worker: Arc<str> = settings.text("--worker-id")?.into();
    let delay = Duration::from_millis(settings.number("--delay-ms", 0)?);
    let task = Task::from_settings(&settings).await?;
    let fail_while = settings.get("--fail-while").map(PathBuf::from);
    let named = Arc::clone(&worker);
    let factory = move |shard: &ShardInfo| Processor {
        voice: Voice {
            worker: Arc::clone(&named),
            shard: shard.shard_id.clone(),
        },
        delay,
        work: task.begin(),
        fail_while: fail_while.clone(),
    };
    let builder = Worker::builder(settings.text("--application")?, settings.text("--stream")?)
        .endpoint(settings.text("--endpoint")?)
        .region("us-east-1")
        .worker_id(worker.to_string())
        .failover_time(Duration::from_millis(
            settings.number("--failover-ms", 10_000)?,
        ))
        .poll_interval(Duration::from_millis(settings.number("--poll-ms", 100)?))
        .max_records(u32::try_from(settings.number("--max-records", 1000)?)?);
    let builder = match Store::parse(&settings.text("--leases")?) {
        Store::Sqlite(path) => builder.lease_store(SqliteLeaseStore::open(path).await?),
        Store::Postgres(url) => builder.lease_store(PostgresLeaseStore::connect(&url).await?),
    };
    let running = builder.build(factory).await?;
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
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
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
