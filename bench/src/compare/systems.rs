//! Who is compared, and how each is started: as a process of its own, on a free port, with data of its own.

use super::install::Programs;
use crate::client::Endpoint;
use crate::{Failure, process};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// How long a system may take to its first answer.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
/// How long one question may take while it starts.
const ASKED_WITHIN: Duration = Duration::from_secs(5);
/// Between two questions.
const ASK_EVERY: Duration = Duration::from_millis(1);
/// After its first answer it is idle.
const SETTLES: Duration = Duration::from_millis(300);
/// What the settings of all systems say, for the table.
pub(super) const SETTINGS: &[(System, &str)] = &[
    (
        System::Millstream,
        "`millstream serve --data-dir DIR --limits off`: acknowledged after fdatasync",
    ),
    (System::None, "bare hyper server that answers only"),
    (
        System::Parse,
        "the same, after it parsed the body, decoded Base64 and hashed the keys",
    ),
    (
        System::Durable,
        "the same, after one thread wrote and synced it with what else waited",
    ),
    (
        System::Get,
        "bare hyper server with prepared answers to GetRecords",
    ),
    (
        System::Ferrokinesis,
        "0.7.0, in memory, no delays of states, no logs",
    ),
    (
        System::FerrokinesisWal,
        "the same with `--state-dir`: synced for every put",
    ),
    (
        System::Kinesalite,
        "3.3.3, in memory, no delays of states, 100 shards, NODE_ENV=production",
    ),
    (
        System::KinesisLocal,
        "0.6.2, in memory, plain port, logs at ERROR",
    ),
    (System::Moto, "5.2.5, `moto_server`, in memory"),
];

/// A system that takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum System {
    Millstream,
    None,
    Parse,
    Durable,
    Get,
    Ferrokinesis,
    FerrokinesisWal,
    Kinesalite,
    KinesisLocal,
    Moto,
}

impl System {
    /// As tables call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            System::Millstream => "**Millstream**",
            System::None => "ceiling `none`",
            System::Parse => "ceiling `parse`",
            System::Durable => "ceiling `durable`",
            System::Get => "ceiling `get`",
            System::Ferrokinesis => "ferrokinesis",
            System::FerrokinesisWal => "ferrokinesis, WAL",
            System::Kinesalite => "kinesalite",
            System::KinesisLocal => "kinesis-local",
            System::Moto => "moto",
        }
    }

    /// Whether it is a ceiling and no real server.
    pub(super) fn is_ceiling(self) -> bool {
        matches!(
            self,
            System::None | System::Parse | System::Durable | System::Get
        )
    }

    fn command(self, programs: &Programs, port: u16, directory: &Path) -> Result<Command, Failure> {
        let port = port.to_string();
        let mut command = Command::new(programs.of(self)?);
        match self {
            System::Millstream => {
                command.args(["serve", "--port", &port, "--limits", "off", "--data-dir"]);
                command.arg(directory.join("data")).env("RUST_LOG", "warn");
            }
            System::None | System::Parse | System::Durable | System::Get => {
                let mode = self.to_possible_value().ok_or("a mode without a name")?;
                command.args(["ceiling", mode.get_name(), "--port", &port, "--directory"]);
                command.arg(directory);
            }
            System::Ferrokinesis | System::FerrokinesisWal => {
                command.args(["--port", &port, "--create-stream-ms", "0"]);
                command.args(["--delete-stream-ms", "0", "--log-level", "off"]);
                command.args(["--access-log", "false"]);
                if self == System::FerrokinesisWal {
                    command.arg("--state-dir").arg(directory);
                }
            }
            System::Kinesalite => {
                command.arg(&programs.kinesalite).args(["--port", &port]);
                command.args(["--createStreamMs", "0", "--deleteStreamMs", "0"]);
                command.args(["--updateStreamMs", "0", "--shardLimit", "100"]);
                command.env("NODE_ENV", "production");
            }
            System::KinesisLocal => {
                // Its TLS port is any that is free: nobody speaks to it.
                command
                    .arg(&programs.kinesis_local)
                    .env("KINESIS_MOCK_PLAIN_PORT", &port);
                command.env("KINESIS_MOCK_TLS_PORT", free_port()?.to_string());
                command.env(
                    "KINESIS_MOCK_CERT_PATH",
                    &programs.kinesis_local_certificate,
                );
                command
                    .env("CREATE_STREAM_DURATION", "1ms")
                    .env("DELETE_STREAM_DURATION", "1ms");
                command
                    .env("LOG_LEVEL", "ERROR")
                    .env("ROOT_LOG_LEVEL", "ERROR");
            }
            System::Moto => {
                command.args(["-H", "127.0.0.1", "-p", &port]);
            }
        }
        command.current_dir(directory);
        Ok(command)
    }
}

fn free_port() -> Result<u16, Failure> {
    let free = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(free.local_addr()?.port())
}

/// What the start of a system took.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Start {
    /// From its start to its first answer.
    pub(super) ms: f64,
    /// Resident after it.
    pub(super) idle_mib: f64,
}

/// A system that runs; dropping it ends it and removes its data.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    pub(super) pid: u32,
    pub(super) url: String,
    pub(super) start: Start,
    _directory: TempDir,
}

impl Running {
    /// Starts it and waits for its first answer.
    pub(super) async fn start(
        system: System,
        programs: &Programs,
        directory: &Path,
    ) -> Result<Running, Failure> {
        let directory = tempfile::Builder::new()
            .prefix("data-")
            .tempdir_in(directory)?;
        let port = free_port()?;
        // Nothing else lies where a system keeps its data.
        let data = directory.path().join("data");
        std::fs::create_dir(&data)?;
        let mut command = system.command(programs, port, &data)?;
        let log = File::create(directory.path().join("output"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let url = format!("http://127.0.0.1:{port}");
        let endpoint = Endpoint::parse(&url)?;
        let began = Instant::now();
        let mut child = command.kill_on_drop(true).spawn()?;
        loop {
            let asked = timeout(ASKED_WITHIN, endpoint.control("ListStreams", &json!({}))).await;
            if matches!(asked, Ok(Ok(_))) {
                break;
            }
            let ended = child
                .try_wait()?
                .map(|status| format!("it ended with {status}"));
            let late = || format!("it does not answer within {STARTS_WITHIN:?}");
            let failed = ended.or_else(|| (began.elapsed() > STARTS_WITHIN).then(late));
            if let Some(failed) = failed {
                let said = std::fs::read(directory.path().join("output"))?;
                let said = String::from_utf8_lossy(&said);
                let said: String = said.chars().take(400).collect();
                return Err(format!("{failed}; it said: {said}").into());
            }
            sleep(ASK_EVERY).await;
        }
        let ms = began.elapsed().as_secs_f64() * 1e3;
        sleep(SETTLES).await;
        let pid = child.id().ok_or("it ended after its first answer")?;
        let idle_kib = u32::try_from(process::memory(pid)?.resident_kib)?;
        Ok(Running {
            child,
            pid,
            url,
            start: Start {
                ms,
                idle_mib: f64::from(idle_kib) / 1024.0,
            },
            _directory: directory,
        })
    }

    /// Ends it and waits until it has ended.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        self.child.kill().await?;
        Ok(())
    }
}
