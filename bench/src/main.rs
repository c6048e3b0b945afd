//! `millstream-bench`: one command for each thing that is measured. Each is a module of the library with arguments and a `run`.

use clap::{Parser, Subcommand};
use millstream_bench::{Failure, ceiling, compare, growth, raw_disk, report, workload};
use std::process::ExitCode;

/// Measures Kinesis endpoints.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Loads a running endpoint, best started with `--limits off`, and says what it did.
    Load(workload::Arguments),
    /// Serves as little as a server can: what the real one is compared with.
    Ceiling(ceiling::Arguments),
    /// Times one write and its sync, again and again.
    RawDisk(raw_disk::Arguments),
    /// Loads Millstream, ceilings and peers in turn, and prints the tables.
    Compare(compare::Arguments),
    /// Measures what the server costs as it holds more records, shards and connections.
    Growth(growth::Arguments),
    /// Fails if Millstream reaches much less of its ceilings than is on record.
    RatioCheck(compare::ratio_check::Arguments),
}

impl Command {
    fn run(self) -> Result<(), Failure> {
        match self {
            Command::Load(arguments) => workload::run(&arguments),
            Command::Ceiling(arguments) => ceiling::run(&arguments),
            Command::RawDisk(arguments) => raw_disk::run(&arguments),
            Command::Compare(arguments) => compare::run(&arguments),
            Command::Growth(arguments) => growth::run(&arguments),
            Command::RatioCheck(arguments) => compare::ratio_check::run(&arguments),
        }
    }
}

fn main() -> ExitCode {
    match Arguments::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report::note(&format!("error: {failure}"));
            ExitCode::FAILURE
        }
    }
}
