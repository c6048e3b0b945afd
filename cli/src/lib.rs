//! The command line of Millstream: parses, wires, prints. What the commands do is in the other crates,
//! except for the demo, which is a program of its own around both.
//!
//! Exit codes: 0 it did what was asked, 1 it could not go on, 2 the command line, the environment or the
//! configuration file is wrong, 3 the data directory cannot be used (taken, damaged, written by a newer version). `check` and `repair`, which are asked
//! about such directories, have 1 for damage and 2 where they cannot tell.

mod app;
mod clock;
mod data;
mod demo;
mod serve;
mod settings;

use clap::{Parser, Subcommand, ValueEnum};
use std::fmt;
use std::io::Write;
use std::process::ExitCode;

/// A durable, Kinesis-compatible stream server and its tools.
#[derive(Debug, Parser)]
#[command(name = "millstream", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the stream server.
    #[command(after_help = serve::AFTER_HELP)]
    Serve(Box<settings::Flags>),
    /// Shows the whole job on real data: server, workers, crashes, a split, and the proof that nothing was lost.
    Demo(Box<demo::Arguments>),
    /// Sees and steers applications of kcl: leases, lag, why a shard does not move, reset, replay.
    #[command(after_help = app::AFTER_HELP)]
    App(Box<app::Arguments>),
    /// Checks a data directory that nobody serves: reads everything, changes nothing.
    #[command(after_help = data::AFTER_CHECK)]
    Check(data::CheckArguments),
    /// Repairs a data directory that nobody serves, or says what that would drop.
    #[command(after_help = data::AFTER_REPAIR)]
    Repair(data::RepairArguments),
    /// A worker process of the demo.
    #[command(hide = true)]
    DemoWorker(Box<demo::worker::Arguments>),
}

/// What is wrong with a configuration file of `millstream serve`. For the fuzz suite of this workspace; not part of the API.
///
/// # Errors
/// Says what, and what is expected.
#[doc(hidden)]
pub fn check_configuration(text: &str) -> Result<(), String> {
    settings::check_file(text)
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Table,
    /// For scripts.
    Json,
}

/// Why a command ended without success.
#[derive(Debug)]
struct Failure {
    kind: FailureKind,
    message: String,
}

/// What a script that called us can tell apart, by the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailureKind {
    /// It could not start or go on.
    Runtime = 1,
    /// The command line, the environment or the configuration file is wrong.
    Usage = 2,
    /// The data directory cannot be used.
    Data = 3,
}

impl Failure {
    fn runtime(message: impl fmt::Display) -> Self {
        Failure {
            kind: FailureKind::Runtime,
            message: message.to_string(),
        }
    }

    fn usage(message: impl fmt::Display) -> Self {
        Failure {
            kind: FailureKind::Usage,
            message: message.to_string(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let command = match CommandLine::try_parse() {
        Ok(line) => line.command,
        Err(error) => {
            // Nowhere to report to if this fails.
            let _ = error.print();
            return if error.use_stderr() {
                code(FailureKind::Usage)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let ended = match command {
        Command::Serve(flags) => serve::run(&flags),
        Command::App(arguments) => app::run(&arguments),
        Command::Check(arguments) => data::check(&arguments),
        Command::Repair(arguments) => data::repair(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::DemoWorker(arguments) => demo::worker::run(&arguments),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "millstream: {failure}");
            code(failure.kind)
        }
    }
}

fn code(kind: FailureKind) -> ExitCode {
    ExitCode::from(kind as u8)
}
