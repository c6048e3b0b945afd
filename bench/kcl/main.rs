//! Compares `kcl` with the Java KCL and kcl-rs on one server, side by side in one run, and prints a table in Markdown.
//!
//! The peers come from PyPI; their tables are kept by moto. Everything listens on loopback and ends by itself.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that prints its measurements"
)]

mod command;
mod peers;
mod raw;
mod records;
mod scenario;
mod server;
mod table;
mod worker;

use clap::{Parser, Subcommand};
use command::{Retrieval, System};
use std::error::Error;
use std::path::PathBuf;

/// What anything here fails with.
type Failure = Box<dyn Error + Send + Sync>;

/// Compares client libraries on one server.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Runs the comparison and prints the table.
    Compare(Compare),
    /// A server in memory on a free port; says where it is. Started by the comparison.
    Serve {
        /// A stream for each, NAME:SHARDS.
        streams: Vec<String>,
    },
    /// A worker of `kcl`. Started by the comparison.
    Work(worker::Work),
    /// A reader that only counts. Started by the comparison.
    Fetch(raw::Fetch),
}

#[derive(Debug, clap::Args)]
struct Compare {
    /// Which libraries, of kcl, java and kcl-rs; and raw, which tells what the server can send.
    #[arg(long, value_delimiter = ',', default_value = "raw,kcl,java,kcl-rs")]
    systems: Vec<System>,
    /// Which figures; see the table.
    #[arg(long, value_delimiter = ',', default_value = "drain,live,many")]
    figures: Vec<scenario::Figure>,
    /// How the records are retrieved.
    #[arg(long, value_delimiter = ',', default_value = "fanout,polling")]
    retrievals: Vec<Retrieval>,
    /// How often `kcl` and `raw` read a full stream; the systems take turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How often each peer does.
    #[arg(long, default_value_t = 1)]
    peer_rounds: usize,
    /// Workers of `kcl` killed for the fail-over figure.
    #[arg(long, default_value_t = 50)]
    kills: usize,
    /// Workers of each peer killed: one kill takes minutes.
    #[arg(long, default_value_t = 2)]
    peer_kills: usize,
    /// Records of 1 KiB for the throughput figure.
    #[arg(long, default_value_t = 400_000)]
    records: usize,
    /// Where peers and logs are put; the former are installed once.
    #[arg(long, default_value = "target/kcl-compare")]
    directory: PathBuf,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    match Arguments::parse().role {
        Role::Serve { streams } => server::serve(&streams).await,
        Role::Work(work) => worker::work(work).await,
        Role::Fetch(fetch) => raw::fetch(fetch).await,
        Role::Compare(compare) => scenario::compare(compare).await,
    }
}
