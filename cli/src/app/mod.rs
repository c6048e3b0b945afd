//! `millstream app`: sees and steers applications of kcl over their lease stores. Everything is done by [`kcl::ops`]; here it is asked for and
//! printed.

mod print;

use crate::{Failure, Output};
use clap::{Args, Subcommand};
use kcl::ops::{self, Force, Operations, ResetReport, ResetRequest, StartAt};
use kcl::{ErrorKind, LeaseStore, PostgresLeaseStore, SqliteLeaseStore};
use serde::Serialize;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

/// What `--help` says after the commands.
pub(crate) const AFTER_HELP: &str = "\
The store is the one that the workers are given; it is never created or migrated from here. The endpoint is AWS_ENDPOINT_URL_KINESIS or \
AWS_ENDPOINT_URL unless --endpoint-url says otherwise, else AWS.
Exit codes: 0 done (`why` with any answer), 1 it could not be done or was refused, 2 the command line is wrong.";

/// What `app` is asked.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: AppCommand,
}

#[derive(Debug, Subcommand)]
enum AppCommand {
    /// Lists the applications in a lease store.
    Applications(Place),
    /// Lists leases and workers: owners, checkpoints, and when each worker was last heard.
    Leases(LeasesArguments),
    /// Tells how far each shard is behind, in time and in records.
    Lag(LagArguments),
    /// Tells why a shard is where it is.
    Why(WhyArguments),
    /// Puts the leases of a stream, or of one shard, elsewhere, in one transaction.
    Reset(ResetArguments),
    /// Creates the leases of another application that starts elsewhere in the same stream.
    Replay(ReplayArguments),
}

#[derive(Debug, Args)]
struct Place {
    /// Lease store of the workers: a path, or the URL of a database.
    #[arg(
        long,
        help = "Lease store of the workers: sqlite:PATH, PATH, or postgres://USER:PASSWORD@HOST/DATABASE",
        env = "MILLSTREAM_LEASE_STORE",
        hide_env_values = true,
        value_name = "STORE"
    )]
    store: String,
    /// How it is printed.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
struct Target {
    #[command(flatten)]
    place: Place,
    /// Name of the application.
    #[arg(long, value_name = "NAME")]
    application: String,
    /// Stream, by name or ARN; needed where the application has leases of several.
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// Kinesis endpoint.
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
    /// Region that requests are signed for [default: the one in the stream's ARN].
    #[arg(long)]
    region: Option<String>,
}

#[derive(Debug, Args)]
struct LeasesArguments {
    #[command(flatten)]
    target: Target,
    /// Lists the last resets instead: who put what where, and when.
    #[arg(long)]
    history: bool,
    /// How long workers are listened for at most, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    watch: u64,
}

#[derive(Debug, Args)]
struct LagArguments {
    #[command(flatten)]
    target: Target,
    /// Counts the records of each shard up to this; it reads them, at the cost of the shard's limits. 0 counts none.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    count_up_to: u64,
}

#[derive(Debug, Args)]
struct WhyArguments {
    /// Shard, by its id or the number in it.
    shard: String,
    #[command(flatten)]
    target: Target,
    /// How long workers are listened for at most, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    watch: u64,
}

#[derive(Debug, Args)]
#[group(id = "place_to_start", required = true, multiple = false)]
struct Start {
    /// Where to start: trim-horizon, latest, a time (2026-01-31T08:00:00Z), or seconds since 1970.
    #[arg(long, value_name = "WHERE", value_parser = start_at)]
    to: Option<StartAt>,
    /// Record to start with, by its sequence number; with --shard.
    #[arg(long, value_name = "NUMBER", requires = "shard", value_parser = sequence)]
    to_sequence: Option<StartAt>,
}

#[derive(Debug, Args)]
struct ResetArguments {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    start: Start,
    /// Only this shard.
    #[arg(long, value_name = "ID")]
    shard: Option<String>,
    /// Take the leases from workers that live; they begin again at the new place.
    #[arg(long)]
    force: bool,
    /// Print what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Who does it, for the note that the store keeps [default: user and host].
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// How long silent workers are listened for at most, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    watch: u64,
}

#[derive(Debug, Args)]
struct ReplayArguments {
    #[command(flatten)]
    target: Target,
    /// Name of the new application.
    #[arg(long = "as", value_name = "NAME")]
    new_application: String,
    /// Where to start: trim-horizon, latest, a time (2026-01-31T08:00:00Z), or seconds since 1970.
    #[arg(long, value_name = "WHERE", value_parser = start_at)]
    to: StartAt,
    /// Print what would be created, and create nothing.
    #[arg(long)]
    dry_run: bool,
    /// Who does it, for the note that the store keeps [default: user and host].
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

fn start_at(text: &str) -> Result<StartAt, String> {
    match text {
        "trim-horizon" => Ok(StartAt::TrimHorizon),
        "latest" => Ok(StartAt::Latest),
        _ => ops::parse_time(text)
            .map(StartAt::Time)
            .map_err(|error| format!("expected trim-horizon, latest or a time; {error}")),
    }
}

fn sequence(text: &str) -> Result<StartAt, String> {
    text.parse().map(StartAt::Sequence).map_err(|_| {
        "a sequence number is decimal, as GetRecords and the leases give it".to_owned()
    })
}

/// Does what was asked.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::runtime(format_args!("cannot start threads: {error}")))?;
    let text = runtime.block_on(answer(&arguments.command))?;
    let mut out = std::io::stdout().lock();
    // Whoever reads may have gone; what was asked is done.
    let _ = writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush());
    Ok(())
}

async fn answer(command: &AppCommand) -> Result<String, Failure> {
    match command {
        AppCommand::Applications(place) => {
            let store = open(&place.store).await?;
            let names = ops::applications(&*store).await.map_err(failure)?;
            shown(place.output, &names, |names| names.join("\n"))
        }
        AppCommand::Leases(arguments) => {
            let app = operations(&arguments.target).await?;
            let output = arguments.target.place.output;
            if arguments.history {
                let notes = app.history().await.map_err(failure)?;
                return shown(output, &notes, |notes| print::history(notes));
            }
            let patience = Duration::from_secs(arguments.watch);
            let report = app.leases(patience).await.map_err(failure)?;
            shown(output, &report, print::leases)
        }
        AppCommand::Lag(arguments) => {
            let app = operations(&arguments.target).await?;
            let report = app.lag(arguments.count_up_to).await.map_err(failure)?;
            shown(arguments.target.place.output, &report, print::lag)
        }
        AppCommand::Why(arguments) => {
            let app = operations(&arguments.target).await?;
            let patience = Duration::from_secs(arguments.watch);
            let why = app.why(&arguments.shard, patience).await.map_err(failure)?;
            shown(arguments.target.place.output, &why, ToString::to_string)
        }
        AppCommand::Reset(arguments) => {
            let report = reset(arguments).await?;
            shown(arguments.target.place.output, &report, print::reset)
        }
        AppCommand::Replay(arguments) => {
            let app = operations(&arguments.target).await?;
            let (name, by) = (&arguments.new_application, by(arguments.by.as_deref()));
            let report = if arguments.dry_run {
                app.plan_replay(name, arguments.to, &by).await
            } else {
                app.replay(name, arguments.to, &by).await
            };
            shown(
                arguments.target.place.output,
                &report.map_err(failure)?,
                print::reset,
            )
        }
    }
}

async fn reset(arguments: &ResetArguments) -> Result<ResetReport, Failure> {
    let app = operations(&arguments.target).await?;
    let to = arguments.start.to.or(arguments.start.to_sequence);
    // One of the two is there: clap sees to it.
    let to = to.ok_or_else(|| Failure::usage("--to or --to-sequence is missing"))?;
    let force = if arguments.force {
        Force::TakeFromTheLiving
    } else {
        Force::OnlyIfNobodyLives
    };
    let mut request = ResetRequest::new(to, by(arguments.by.as_deref()))
        .force(force)
        .patience(Duration::from_secs(arguments.watch));
    if let Some(shard) = &arguments.shard {
        request = request.shard(shard);
    }
    let report = if arguments.dry_run {
        app.plan_reset(&request).await
    } else {
        app.reset(&request).await
    };
    report.map_err(failure)
}

async fn operations(target: &Target) -> Result<Operations, Failure> {
    let store = open(&target.place.store).await?;
    let mut app = Operations::shared(store, &target.application);
    if let Some(stream) = &target.stream {
        app = app.stream(stream);
    }
    if let Some(url) = &target.endpoint_url {
        app = app.endpoint(url);
    }
    if let Some(region) = &target.region {
        app = app.region(region);
    }
    Ok(app)
}

/// Opens a store that is there.
async fn open(store: &str) -> Result<Arc<dyn LeaseStore>, Failure> {
    if store.starts_with("postgres://") || store.starts_with("postgresql://") {
        let opened = PostgresLeaseStore::connect_existing(store).await;
        return Ok(Arc::new(opened.map_err(failure)?));
    }
    let path = store.strip_prefix("sqlite:").unwrap_or(store);
    let opened = SqliteLeaseStore::open_existing(path).await;
    Ok(Arc::new(opened.map_err(failure)?))
}

/// Who does it, unless given.
fn by(given: Option<&str>) -> String {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let host = || {
        let file = std::fs::read_to_string("/etc/hostname").ok();
        set("HOSTNAME").or_else(|| file.map(|name| name.trim().to_owned()))
    };
    given.map_or_else(
        || {
            let user = set("USER").or_else(|| set("LOGNAME"));
            let user = user.unwrap_or_else(|| "somebody".to_owned());
            match host() {
                Some(host) => format!("{user}@{host}"),
                None => user,
            }
        },
        str::to_owned,
    )
}

fn failure(error: kcl::Error) -> Failure {
    match error.kind() {
        ErrorKind::Configuration => Failure::usage(error),
        _ => Failure::runtime(error),
    }
}

fn shown<T: Serialize>(
    output: Output,
    report: &T,
    table: impl Fn(&T) -> String,
) -> Result<String, Failure> {
    match output {
        Output::Table => Ok(table(report)),
        Output::Json => serde_json::to_string_pretty(report).map_err(Failure::runtime),
    }
}
