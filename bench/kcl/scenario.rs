//! What is measured, and how: each figure of each system in turn, on a server started for it.

mod drain;
mod live;
mod many;

use crate::command::{Retrieval, System};
use crate::peers::Peers;
use crate::table::Table;
use crate::{Compare, Failure};
use clap::ValueEnum;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Figure {
    /// From start to the first record, and records a second through a processor that does nothing.
    Drain,
    /// From put to processor; how long a hand-over and a fail-over take.
    Live,
    /// Memory and traffic to the store with 100 shards.
    Many,
}

/// What all figures are taken with.
pub(crate) struct Stage {
    pub(crate) peers: Peers,
    pub(crate) directory: PathBuf,
    pub(crate) compare: Compare,
    pub(crate) table: Table,
}

/// A server of its own for one figure; dropping it ends it.
pub(crate) struct Kinesis {
    pub(crate) url: String,
    _server: Child,
}

impl Kinesis {
    pub(crate) async fn start(streams: &[String]) -> Result<Kinesis, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").args(streams);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server = command.kill_on_drop(true).spawn()?;
        let said = server.stdout.take().ok_or("a server without output")?;
        let url = BufReader::new(said).lines().next_line().await?;
        Ok(Kinesis {
            url: url.ok_or("the server did not start")?,
            _server: server,
        })
    }

    /// Without the scheme.
    pub(crate) fn host(&self) -> &str {
        self.url.trim_start_matches("http://")
    }
}

/// Measures everything and prints the table.
pub(crate) async fn compare(compare: Compare) -> Result<(), Failure> {
    std::fs::create_dir_all(&compare.directory)?;
    let installed = compare.directory.canonicalize()?;
    let peers = Peers::install(&compare.systems, &installed).await?;
    let directory = installed.join(format!("run-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let mut stage = Stage {
        peers,
        directory,
        compare,
        table: Table::default(),
    };
    for figure in stage.compare.figures.clone() {
        let measured = match figure {
            Figure::Drain => drain::measure(&mut stage).await,
            Figure::Live => live::measure(&mut stage).await,
            Figure::Many => many::measure(&mut stage).await,
        };
        if let Err(error) = measured {
            eprintln!("{figure:?}: {error}");
        }
    }
    stage.table.print();
    Ok(())
}

impl Stage {
    /// Everybody who takes part, in the order of their turns.
    pub(crate) fn all(&self) -> Vec<(System, Retrieval)> {
        let systems = self.compare.systems.iter();
        let each = |system: &System| {
            let retrievals = self.compare.retrievals.clone().into_iter();
            let system = *system;
            retrievals.map(move |retrieval| (system, retrieval))
        };
        systems.flat_map(each).collect()
    }

    /// The libraries among them.
    pub(crate) fn libraries(&self) -> Vec<(System, Retrieval)> {
        let mut all = self.all();
        all.retain(|(system, _)| *system != System::Raw);
        all
    }

    /// How often a system is measured.
    pub(crate) fn rounds(&self, system: System) -> usize {
        match system {
            System::Raw | System::Kcl => self.compare.rounds,
            System::Java | System::KclRs => self.compare.peer_rounds,
        }
    }
}
