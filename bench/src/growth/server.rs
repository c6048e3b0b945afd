//! The server under measurement: started on a directory that outlives it, so that it can be started again on what it left.

use crate::client::Endpoint;
use crate::{Failure, process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// How long a start may take.
const STARTS_WITHIN: Duration = Duration::from_mins(1);
/// How long a stop may take.
const STOPS_WITHIN: Duration = Duration::from_secs(30);
/// Between two attempts to reach it.
const ASK_EVERY: Duration = Duration::from_millis(1);
/// After its first answer it is idle.
const SETTLES: Duration = Duration::from_millis(500);
/// What shells are asked for an answer that costs nothing.
const QUESTION: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// How servers are started.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) binary: PathBuf,
    pub(super) directory: PathBuf,
    pub(super) memory: String,
}

impl Setup {
    /// A directory for data, removed when dropped.
    pub(super) fn data(&self) -> Result<TempDir, Failure> {
        let mut named = tempfile::Builder::new();
        Ok(named.prefix("growth-").tempdir_in(&self.directory)?)
    }

    /// Starts a server on a directory.
    pub(super) async fn start(&self, data: &Path) -> Result<Running, Failure> {
        let free = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = free.local_addr()?.to_string();
        let port = free.local_addr()?.port().to_string();
        drop(free);
        let log = data.with_extension("log");
        let output = File::create(&log)?;
        let began = Instant::now();
        let mut child = Command::new(&self.binary)
            .args(["serve", "--limits", "off", "--port", &port])
            .args(["--memory", &self.memory, "--data-dir"])
            .arg(data)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                let binary = self.binary.display();
                format!("{binary}: {error}; build it: cargo build --release -p millstream")
            })?;
        while !answers(&address).await {
            let ended = child.try_wait()?;
            if ended.is_some() || began.elapsed() > STARTS_WITHIN {
                let said = std::fs::read_to_string(&log)?;
                let said: String = said.chars().take(400).collect();
                return Err(format!("the server does not answer ({ended:?}): {said}").into());
            }
            sleep(ASK_EVERY).await;
        }
        let start = began.elapsed();
        sleep(SETTLES).await;
        let pid = child
            .id()
            .ok_or("the server ended after its first answer")?;
        // What it says is kept by the process; the name is not needed.
        let _ = std::fs::remove_file(&log);
        Ok(Running {
            child,
            pid,
            endpoint: Endpoint::parse(&address)?,
            start,
            idle_kib: process::memory(pid)?.resident_kib,
        })
    }
}

/// Whether a server answers there.
async fn answers(address: &str) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(QUESTION).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer.starts_with(b"HTTP/1.1 200"))
    };
    matches!(timeout(STARTS_WITHIN, ask).await, Ok(Ok(true)))
}

/// A server that runs.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    pub(super) pid: u32,
    pub(super) endpoint: Endpoint,
    /// From its start to its first answer.
    pub(super) start: Duration,
    /// Resident half a second later.
    pub(super) idle_kib: u64,
}

impl Running {
    /// What it holds now and held at most.
    pub(super) fn memory(&self) -> Result<process::Memory, Failure> {
        Ok(process::memory(self.pid)?)
    }

    /// Ends it as a crash would.
    pub(super) async fn kill(mut self) -> Result<(), Failure> {
        self.child.kill().await?;
        Ok(())
    }

    /// Ends it as an operator would, and waits.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        let pid = i32::try_from(self.pid)?;
        let pid = rustix::process::Pid::from_raw(pid).ok_or("the process has no id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        timeout(STOPS_WITHIN, self.child.wait()).await??;
        Ok(())
    }
}
