//! How each system's worker is started.

use crate::Failure;
use crate::peers::Peers;
use clap::ValueEnum;
use std::fmt;
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;

/// A client library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum System {
    /// No library: what a reader gets that only counts.
    Raw,
    /// This workspace's.
    Kcl,
    /// The Java KCL 3.1.3.
    Java,
    /// `LocalStack`'s.
    KclRs,
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            System::Raw => "the server alone",
            System::Kcl => "kcl",
            System::Java => "Java KCL 3.1.3",
            System::KclRs => "kcl-rs 0.1.4",
        })
    }
}

/// How records are retrieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Retrieval {
    /// Enhanced fan-out.
    Fanout,
    /// GetRecords.
    Polling,
}

impl fmt::Display for Retrieval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Retrieval::Fanout => "fanout",
            Retrieval::Polling => "polling",
        })
    }
}

/// What a worker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// How many records and bytes there were.
    Count,
    /// Every record, with when it was put and when it came.
    Trace,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Count => "count",
            Mode::Trace => "trace",
        })
    }
}

/// A worker to be started.
#[derive(Debug, Clone)]
pub(crate) struct Job<'a> {
    pub(crate) system: System,
    pub(crate) kinesis: &'a str,
    pub(crate) stream: &'a str,
    pub(crate) application: &'a str,
    pub(crate) worker: String,
    pub(crate) failover: Duration,
    pub(crate) retrieval: Retrieval,
    pub(crate) mode: Mode,
}

impl<'a> Job<'a> {
    /// The only worker of its application, which counts what it gets.
    pub(crate) fn counting(
        (system, retrieval): (System, Retrieval),
        kinesis: &'a str,
        stream: &'a str,
        application: &'a str,
    ) -> Self {
        Job {
            system,
            kinesis,
            stream,
            application,
            worker: "one".to_owned(),
            failover: Duration::from_secs(10),
            retrieval,
            mode: Mode::Count,
        }
    }

    /// The command; `directory` is for what the system keeps in files.
    pub(crate) fn command(&self, peers: &Peers, directory: &Path) -> Result<Command, Failure> {
        let (retrieval, mode) = (self.retrieval.to_string(), self.mode.to_string());
        let failover = self.failover.as_millis().to_string();
        let mut command = match self.system {
            System::Raw => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args([
                    "fetch",
                    "--host",
                    self.kinesis.trim_start_matches("http://"),
                ]);
                command.args(["--stream", self.stream, "--consumer", self.application]);
                command.args(["--retrieval", &retrieval]);
                command
            }
            System::Kcl => {
                let mut command = Command::new(std::env::current_exe()?);
                let leases = directory.join(format!("{}.db", self.application));
                command.args(["work", "--endpoint", self.kinesis]);
                command.arg("--leases").arg(leases);
                command.args(["--stream", self.stream, "--application", self.application]);
                command.args(["--worker", &self.worker, "--failover-ms", &failover]);
                command.args(["--retrieval", &retrieval, "--mode", &mode]);
                command
            }
            System::Java => {
                let mut command = Command::new(&peers.java);
                command.args(["-cp", &peers.java_classes, "BenchWorker"]);
                command.args([self.kinesis, &peers.store, self.stream, self.application]);
                command.args([&self.worker, &failover, &retrieval, &mode]);
                command
            }
            System::KclRs => {
                let mut command = Command::new(&peers.kcl_rs_python);
                command.arg(&peers.kcl_rs_worker);
                command.args([self.stream, self.application, &self.worker]);
                command.args([&retrieval, &mode]);
                command.env("AWS_ENDPOINT_URL_KINESIS", self.kinesis);
                command.env("AWS_ENDPOINT_URL_DYNAMODB", &peers.store);
                command.env("AWS_ENDPOINT_URL_CLOUDWATCH", &peers.store);
                command
            }
        };
        command.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE");
        command.env("AWS_SECRET_ACCESS_KEY", "secret");
        command.env("AWS_REGION", "us-east-1");
        Ok(command)
    }
}
