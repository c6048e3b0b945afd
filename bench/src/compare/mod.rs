//! `compare`: the same loads on Millstream, on ceilings and on peers, interleaved in one run, and the tables of them.
//!
//! Every load has a server process that was started for it, with data of its own, and is a process of its own. Systems take turns
//! within each figure, so that what is compared was measured in the same minutes.

mod figures;
mod install;
pub mod ratio_check;
mod results;
mod systems;
mod table;
mod targets;

pub(crate) use install::millstream;

use crate::page_cache::Wish;
use crate::{Failure, raw_disk, report, runtime};
use figures::{Figure, Loading};
use install::Programs;
use results::Results;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;
use systems::{Running, System};

/// The write that a durable put cannot do without.
const RAW_BYTES: u32 = 4096;
const RAW_SECONDS: Duration = Duration::from_secs(1);

/// Who, what, how often.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Who takes part.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "millstream,none,parse,durable,get,ferrokinesis,ferrokinesis-wal,kinesalite,kinesis-local,moto"
    )]
    systems: Vec<System>,
    /// What is measured.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "put1,put16,put64,batch-json,batch-cbor,get-tail,get-sealed,fan-out,poll"
    )]
    figures: Vec<Figure>,
    /// How often; the systems take turns.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each load that count.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=200))]
    seconds: u64,
    /// Seconds of each load before.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(..=60))]
    warm_up: u64,
    /// Where peers are installed, once, and data are kept while a load runs: on the disk that is to be measured.
    #[arg(long, default_value = "target/compare")]
    directory: PathBuf,
    /// The server's program; otherwise it is built.
    #[arg(long)]
    millstream: Option<PathBuf>,
    #[command(flatten)]
    page_cache: Wish,
    /// Prints every round as one JSON object, after the tables.
    #[arg(long)]
    json: bool,
}

/// Compares and prints.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    runtime(NonZeroUsize::MIN)?.block_on(compare(arguments))
}

async fn compare(arguments: &Arguments) -> Result<(), Failure> {
    std::fs::create_dir_all(&arguments.directory)?;
    let directory = arguments.directory.canonicalize()?;
    let millstream = arguments.millstream.as_deref();
    let programs = Programs::get(&arguments.systems, millstream, &directory).await?;
    let loading = Loading {
        seconds: arguments.seconds,
        warm_up: arguments.warm_up,
    };
    let page_cache = arguments.page_cache.granted(&directory)?;
    let mut results = Results::default();
    for round in 1..=arguments.rounds {
        let raw = raw_disk::measure(&directory, RAW_BYTES, RAW_SECONDS)?;
        results.raw.push(raw.latency);
        for figure in &arguments.figures {
            page_cache.fill()?;
            let who = arguments.systems.iter().copied();
            let who = who.filter(|system| !programs.missing.contains_key(system));
            for system in who.filter(|system| figure.is_of(*system)) {
                let measured = measure(*figure, system, &programs, &directory, loading);
                let measured = measured.await.map(|(measured, start)| {
                    results.started(system, start);
                    measured
                });
                let shown = match &measured {
                    Ok(measured) => table::number(figure.rate(measured)),
                    Err(error) => format!("failed: {error}"),
                };
                let name = system.name();
                report::note(&format!("round {round} {figure:?} {name}: {shown}"));
                results.add(system, *figure, measured.map_err(|error| error.to_string()));
            }
        }
    }
    report::say(&table::print(&results, &arguments.systems));
    for (system, why) in &programs.missing {
        report::say(&format!("- {}: takes no part: {why}", system.name()));
    }
    report::say(&targets::print(&results));
    if arguments.json {
        report::say(&results.json().to_string());
    }
    Ok(())
}

async fn measure(
    figure: Figure,
    system: System,
    programs: &Programs,
    directory: &std::path::Path,
    loading: Loading,
) -> Result<(crate::measure::Round, systems::Start), Failure> {
    let running = Running::start(system, programs, directory).await?;
    let start = running.start;
    let round = loading
        .run(figure, system, (&running.url, running.pid))
        .await;
    running.stop().await?;
    Ok((round?, start))
}
