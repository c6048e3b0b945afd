//! What is measured of whom, and the command line of each load.

use super::systems::System;
use crate::{Failure, measure::Round, workload::Outcome};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// A load is given up when it takes so much longer than it should.
const LOAD_LIMIT: Duration = Duration::from_mins(2);

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Figure {
    /// PutRecord, one connection.
    Put1,
    /// Sixteen.
    Put16,
    /// Sixty-four.
    Put64,
    /// PutRecords of 500, four connections, JSON.
    BatchJson,
    /// The same in CBOR.
    BatchCbor,
    /// `GetRecords` of what was put a moment ago.
    GetTail,
    /// `GetRecords` of more than memory keeps.
    GetSealed,
    /// From put to subscriber.
    FanOut,
    /// From put to who polls, of Millstream only: others' intervals say nothing of it.
    Poll,
}

/// Between two polls, milliseconds.
pub(super) const POLL_MS: u32 = 20;

impl Figure {
    /// As the command line calls it.
    pub(super) fn name(self) -> Result<String, Failure> {
        let value = self.to_possible_value().ok_or("a figure without a name")?;
        Ok(value.get_name().to_owned())
    }

    /// Whether a system has it.
    pub(super) fn is_of(self, system: System) -> bool {
        match system {
            System::Millstream => true,
            System::None | System::Parse | System::Durable => {
                matches!(
                    self,
                    Figure::Put1
                        | Figure::Put16
                        | Figure::Put64
                        | Figure::BatchJson
                        | Figure::BatchCbor
                )
            }
            System::Get => matches!(self, Figure::GetTail | Figure::GetSealed),
            // None of them keeps anything but in memory, so reads are the same wherever they are from.
            System::Ferrokinesis | System::FerrokinesisWal | System::KinesisLocal => {
                !matches!(self, Figure::GetSealed | Figure::Poll)
            }
            // Neither has SubscribeToShard.
            System::Kinesalite => {
                !matches!(self, Figure::GetSealed | Figure::FanOut | Figure::Poll)
            }
            // Nor does moto speak CBOR.
            System::Moto => !matches!(
                self,
                Figure::GetSealed | Figure::FanOut | Figure::Poll | Figure::BatchCbor
            ),
        }
    }

    /// Which ceiling it is a share of.
    pub(super) fn ceiling(self) -> Option<System> {
        match self {
            Figure::Put1
            | Figure::Put16
            | Figure::Put64
            | Figure::BatchJson
            | Figure::BatchCbor => Some(System::Durable),
            Figure::GetTail | Figure::GetSealed => Some(System::Get),
            Figure::FanOut | Figure::Poll => None,
        }
    }

    /// What a share is a share of: requests or bytes a second.
    pub(super) fn rate(self, round: &Round) -> f64 {
        match self {
            Figure::Put1 | Figure::Put16 | Figure::Put64 | Figure::FanOut | Figure::Poll => {
                round.requests_per_s
            }
            Figure::BatchJson | Figure::BatchCbor | Figure::GetTail | Figure::GetSealed => {
                round.mb_per_s
            }
        }
    }

    /// The load's arguments, without those that all have.
    fn arguments(self, system: System) -> Vec<String> {
        let words = match self {
            Figure::Put1 => "put-record --connections 1".to_owned(),
            Figure::Put16 => "put-record --connections 16".to_owned(),
            Figure::Put64 => "put-record --connections 64".to_owned(),
            Figure::BatchJson => "put-records --connections 4".to_owned(),
            Figure::BatchCbor => "put-records --connections 4 --encoding cbor".to_owned(),
            Figure::GetTail => format!("get-records --connections 4 --fill {}", fill(system)),
            Figure::GetSealed => "get-records --connections 4 --fill 400000".to_owned(),
            Figure::FanOut => format!("latency --connections 4 --rate {}", rate(system)),
            Figure::Poll => format!(
                "latency --connections 4 --rate {} --retrieval poll --poll-ms {POLL_MS}",
                rate(system)
            ),
        };
        words.split(' ').map(str::to_owned).collect()
    }
}

/// Records of 1 KiB to read: as many as a system takes in a few seconds, and no more than Millstream's tail cache holds.
fn fill(system: System) -> usize {
    match system {
        // There is nothing to fill.
        System::None | System::Parse | System::Durable | System::Get => 0,
        System::Millstream | System::Ferrokinesis => 24_000,
        System::Kinesalite | System::Moto => 8_000,
        System::FerrokinesisWal | System::KinesisLocal => 2_000,
    }
}

/// Records a second from put to subscriber: a thousand, where the system takes as many.
pub(super) fn rate(system: System) -> u32 {
    match system {
        System::FerrokinesisWal | System::KinesisLocal => 50,
        _ => 1000,
    }
}

/// How each load is run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loading {
    pub(super) seconds: u64,
    pub(super) warm_up: u64,
}

impl Loading {
    /// Runs the load of a figure, in a process of its own.
    pub(super) async fn run(
        self,
        figure: Figure,
        system: System,
        (url, pid): (&str, u32),
    ) -> Result<Round, Failure> {
        let mut load = Command::new(std::env::current_exe()?);
        load.arg("load").args(figure.arguments(system));
        load.args(["--json", "--endpoint", url]);
        load.args(["--server-pid", &pid.to_string()]);
        load.args(["--seconds", &self.seconds.to_string()]);
        load.args(["--warm-up", &self.warm_up.to_string()]);
        load.stdin(Stdio::null()).kill_on_drop(true);
        let limit = Duration::from_secs(self.seconds + self.warm_up) + LOAD_LIMIT;
        let output = timeout(limit, load.output()).await;
        let output = output.map_err(|_| format!("the load takes more than {limit:?}"))??;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.trim().trim_start_matches("error: ");
            return Err(said.chars().take(300).collect::<String>().into());
        }
        let outcome: Outcome = serde_json::from_slice(&output.stdout)?;
        let round = outcome.rounds.first().copied();
        let round = round.filter(|round| round.requests > 0);
        round.ok_or_else(|| "nothing was answered in the time that counts".into())
    }
}
