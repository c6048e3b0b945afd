//! `millstream demo`: the main job in one command, and a proof that it was done.

mod aggregate;
mod client;
mod input;
mod process;
mod producer;
mod progress;
mod report;
mod results;
mod stage;
mod verify;
pub(crate) mod worker;

use crate::Failure;
use crate::serve::Signals;
use clap::Args;
use input::Input;
use progress::Display;
use stage::{Outcome, Stage};
use std::path::PathBuf;
use std::time::Duration;
use verify::Evidence;

/// The fastest pace: what four shards take under AWS's limits, with room.
const PACE_MIN: Duration = Duration::from_micros(350);
/// Fewer lines are put before anything can be killed under way.
const LINES_MIN: usize = 100;

/// Shows the whole job on real data.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A newline-delimited file (CSV, JSON lines or any text), or `-` for standard input [default: a year of weather
    /// at three airports, built in].
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Fields that make the partition key, joined: column names of a CSV header, or JSON members. Without it, lines are
    /// dealt out to 64 keys [default for the built-in data: station,hour].
    #[arg(long, value_name = "FIELD,...")]
    key: Option<String>,
    /// Field with a number to aggregate per key; without it, records are counted [default for the built-in data:
    /// `temp_f`].
    #[arg(long, value_name = "FIELD")]
    value: Option<String>,
    /// How long putting the records takes, so that things can happen under way; more if there are many.
    #[arg(long, value_name = "SECONDS", default_value_t = 40, value_parser = clap::value_parser!(u64).range(5..=3_600))]
    seconds: u64,
    /// Give up after this time.
    #[arg(long, value_name = "SECONDS", default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    deadline: u64,
    /// Keep the directory with the data, the databases and the logs.
    #[arg(long)]
    keep: bool,
}

/// Plays the demo and prints the proof.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let input = Input::load(
        arguments.input.as_deref(),
        arguments.key.as_deref(),
        arguments.value.as_deref(),
    )?;
    if input.lines.len() < LINES_MIN {
        return Err(Failure::usage(format_args!(
            "{}: {} records; the demo needs {LINES_MIN} to have something under way",
            input.name,
            input.lines.len()
        )));
    }
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::runtime(format_args!("cannot start threads: {error}")))?;
    runtime.block_on(show(arguments, &input))
}

async fn show(arguments: &Arguments, input: &Input) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let directory = tempfile::Builder::new()
        .prefix("millstream-demo-")
        .tempdir()
        .map_err(|error| Failure::runtime(format_args!("cannot make a directory: {error}")))?;
    let display = Display::new();
    let mut stage = Stage::new(directory.path(), display)?;
    let lines = u32::try_from(input.lines.len()).unwrap_or(u32::MAX);
    let pace = (Duration::from_secs(arguments.seconds) / lines).max(PACE_MIN);
    let deadline = Duration::from_secs(arguments.deadline);
    let mut interrupted = false;
    let played = tokio::select! {
        played = tokio::time::timeout(deadline, stage.play(input, pace)) => played,
        name = signals.next() => {
            interrupted = true;
            Ok(Err(Failure::runtime(format_args!("stopped by {name}"))))
        }
    };
    display.clear();
    let ended = stage.clear().await;
    let proven = match played {
        Ok(Ok(outcome)) => prove(input, &outcome, display.elapsed_ms()),
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(Failure::runtime(format_args!(
            "not done after {} s, while {}; see the logs, or give it more time with --deadline",
            arguments.deadline, stage.phase
        ))),
    };
    let proven = proven.map_err(|failure| match ended.as_slice() {
        [] => failure,
        ended => Failure::runtime(format_args!("{failure} ({})", ended.join("; "))),
    });
    if arguments.keep || (proven.is_err() && !interrupted) {
        let kept = directory.keep();
        display.event(&format!(
            "data, databases and logs are in {}",
            kept.display()
        ));
    }
    proven
}

fn prove(input: &Input, outcome: &Outcome, elapsed_ms: u64) -> Result<(), Failure> {
    let checks = verify::verdict(&Evidence {
        input,
        ledger: &outcome.ledger,
        rows: &outcome.rows,
        aggregates: &outcome.aggregates,
        events: &outcome.events,
    });
    report::print(input, outcome, &checks, elapsed_ms).map_err(Failure::runtime)?;
    let failed: Vec<&str> = checks
        .iter()
        .filter(|check| !check.holds)
        .map(|check| check.claim)
        .collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Failure::runtime(format_args!(
            "the proof fails: {}",
            failed.join("; ")
        )))
    }
}
