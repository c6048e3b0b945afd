//! `growth`: what the server costs as it holds more: records, shards, connections, subscribers. Starts the real `millstream` binary, each time
//! as a process of its own with a data directory of its own, and prints a table of targets and what was reached.
//!
//! Where two states are compared, both servers run and are loaded in turns, so that a machine that drifts is as kind to one as to
//! the other.

mod connections;
mod mixed;
mod puts;
mod server;
mod starts;
mod subscribers;
mod table;

use crate::page_cache::{Granted, Wish};
use crate::{Failure, report};
use clap::ValueEnum;
use server::Setup;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;
use table::Row;

/// What is measured, and how thoroughly.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The server's program; otherwise it is built.
    #[arg(long)]
    millstream: Option<PathBuf>,
    /// Where data directories are made, and removed; best on the disk that the server would use.
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// What to measure; everything unless given.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Seconds of each load.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Rounds in which states that are compared take turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Memory the server is given, as its `--memory`.
    #[arg(long, default_value = "512MiB")]
    memory: String,
    #[command(flatten)]
    page_cache: Wish,
    /// A tenth of everything and one second each: whether it works, not what it costs.
    #[arg(long)]
    quick: bool,
}

/// A part of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Puts into an empty log, and into one with ten million records.
    Retained,
    /// Puts into 10, 1,000 and 10,000 shards.
    Shards,
    /// From the start of the process to the first answer.
    Starts,
    /// Connections that are open and have nothing to do.
    Connections,
    /// A thousand subscribers of one shard, beside them.
    Subscribers,
    /// Memory under puts, reads and subscriptions at once.
    Load,
}

/// How much of everything.
#[derive(Debug, Clone, Copy)]
struct Size {
    records: usize,
    shards: [u32; 3],
    connections: usize,
    subscribers: usize,
    duration: Duration,
    rounds: usize,
}

impl Size {
    fn of(arguments: &Arguments) -> Size {
        let (part, duration) = if arguments.quick {
            (10, Duration::from_secs(1))
        } else {
            (1, Duration::from_secs(arguments.seconds))
        };
        Size {
            records: 10_000_000 / part,
            shards: [10, 1_000, 10_000]
                .map(|shards| (shards / u32::try_from(part).unwrap_or(1)).max(2)),
            connections: 10_000 / part,
            subscribers: 1_000 / part,
            duration,
            rounds: if arguments.quick { 1 } else { arguments.rounds },
        }
    }
}

/// Measures and prints the table. Fails where a size or a count is missed, which no slow machine excuses.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let size = Size::of(arguments);
    let two = NonZeroUsize::new(2).unwrap_or(NonZeroUsize::MIN);
    let runtime = crate::runtime(two)?;
    let given = arguments.millstream.as_deref();
    let setup = Setup {
        binary: runtime.block_on(crate::compare::millstream(given))?,
        directory: arguments.directory.clone(),
        memory: arguments.memory.clone(),
    };
    let page_cache = arguments.page_cache.granted(&arguments.directory)?;
    let rows = runtime.block_on(measure(&setup, size, &arguments.only, &page_cache))?;
    for line in table::markdown(&rows) {
        report::say(&line);
    }
    let fails = |row: &&Row| row.fails();
    match rows.iter().find(fails) {
        None => Ok(()),
        Some(row) => Err(format!("{}: {}, not {}", row.what, row.reached, row.target).into()),
    }
}

async fn measure(
    setup: &Setup,
    size: Size,
    only: &[Part],
    page_cache: &Granted,
) -> Result<Vec<Row>, Failure> {
    let wants = |part| only.is_empty() || only.contains(&part);
    let mut rows = Vec::new();
    if wants(Part::Starts) {
        rows.extend(starts::run(setup, size).await?);
    }
    if wants(Part::Retained) {
        page_cache.fill()?;
        rows.extend(puts::retained(setup, size).await?);
    }
    if wants(Part::Shards) {
        page_cache.fill()?;
        rows.extend(puts::shards(setup, size).await?);
    }
    if wants(Part::Connections) {
        rows.extend(connections::run(setup, size).await?);
    }
    if wants(Part::Subscribers) {
        rows.extend(subscribers::run(setup, size).await?);
    }
    if wants(Part::Load) {
        rows.extend(mixed::run(setup, size).await?);
    }
    Ok(rows)
}
