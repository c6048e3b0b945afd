//! The server as a process of its own, on a data directory that outlives it.

use crate::client::RawClient;
use crate::process::{Ended, Process, Signal};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// How long a start may take, recovery included, on a busy machine and in a debug build.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A `millstream serve` process; killed on drop, its directory removed.
#[derive(Debug)]
pub struct ServerProcess {
    binary: PathBuf,
    port: u16,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    data: PathBuf,
    /// Its own, if nobody else keeps it.
    _directory: Option<Arc<TempDir>>,
    process: Process,
}

impl ServerProcess {
    /// Starts `binary` on a free port and a new data directory, throughput limits off, and waits for `Ready`.
    pub async fn start(binary: &str) -> ServerProcess {
        Self::start_with(binary, &["--limits", "off"]).await
    }

    /// The same with other flags.
    pub async fn start_with(binary: &str, flags: &[&str]) -> ServerProcess {
        Self::start_in(binary, flags, &[]).await
    }

    /// The same with an environment of its own, which it keeps through restarts.
    pub async fn start_in(
        binary: &str,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> ServerProcess {
        let directory = Arc::new(TempDir::with_prefix("millstream-").unwrap());
        let data = directory.path().to_owned();
        Self::begin(binary, (data, Some(directory)), flags, environment).await
    }

    /// The same on a data directory that the caller keeps.
    pub async fn start_on(binary: &str, data: PathBuf, flags: &[&str]) -> ServerProcess {
        Self::begin(binary, (data, None), flags, &[]).await
    }

    async fn begin(
        binary: &str,
        (data, directory): (PathBuf, Option<Arc<TempDir>>),
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> ServerProcess {
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        let binary = PathBuf::from(binary);
        let port = free_port();
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment: Vec<(String, String)> = environment.iter().map(owned).collect();
        let process = launch(&binary, port, &data, &flags, &environment);
        let mut server = ServerProcess {
            binary,
            port,
            flags,
            environment,
            data,
            _directory: directory,
            process,
        };
        server.wait_ready().await;
        server
    }

    /// Stops, and starts again on the same directory and port with other flags.
    pub async fn restart_with(&mut self, flags: &[&str]) {
        self.terminate().await;
        self.flags = flags.iter().map(ToString::to_string).collect();
        self.restart().await;
    }

    /// Starts again on the same directory and port after the process ended.
    pub async fn restart(&mut self) {
        assert!(
            !self.process.is_running(),
            "restart is for a server that has ended"
        );
        self.process = self.launch();
        self.wait_ready().await;
    }

    /// Starts again and expects a refusal: how the process ended.
    pub async fn restart_refused(&mut self) -> Ended {
        assert!(
            !self.process.is_running(),
            "restart is for a server that has ended"
        );
        self.process = self.launch();
        self.process.wait(START_LIMIT).await
    }

    /// A second process on the same directory (another port): how it ended.
    pub async fn second_process(&self) -> Ended {
        refused(&self.binary, &self.data).await
    }

    /// A client of this server.
    pub fn client(&self) -> RawClient {
        RawClient::new(&self.url())
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port it serves on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Forgets the peak of its memory so far; what it has now is the new one, in bytes. By `/proc`, so on
    /// Linux only, as [`Self::peak_memory`].
    pub fn reset_peak_memory(&self) -> u64 {
        let id = self.process.id().expect("it runs");
        std::fs::write(format!("/proc/{id}/clear_refs"), "5").expect("/proc/ID/clear_refs");
        self.peak_memory()
    }

    /// The most memory that it has had resident since its start or the last reset, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let id = self.process.id().expect("it runs");
        let status =
            std::fs::read_to_string(format!("/proc/{id}/status")).expect("/proc/ID/status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.expect("VmHWM").trim().parse::<u64>().unwrap() * 1024
    }

    /// Standard error so far.
    pub fn log(&self) -> String {
        self.process.stderr().text()
    }

    /// kill -9.
    pub async fn kill9(&mut self) -> Ended {
        self.process.kill9().await
    }

    /// SIGTERM and the end.
    pub async fn terminate(&mut self) -> Ended {
        self.process.terminate(Duration::from_secs(20)).await
    }

    /// How it ends; panics if it does not within `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Ended {
        self.process.wait(limit).await
    }

    /// Sends a signal.
    pub async fn signal(&self, signal: Signal) {
        self.process.signal(signal).await;
    }

    /// The process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    fn launch(&self) -> Process {
        let (data, flags) = (&self.data, &self.flags);
        launch(&self.binary, self.port, data, flags, &self.environment)
    }

    async fn wait_ready(&mut self) {
        let url = self.url();
        self.process
            .wait_for_line("Ready line", START_LIMIT, |line| {
                (line.starts_with("Ready ") && line.contains(&url)).then_some(())
            })
            .await;
    }
}

/// Starts `binary` on `data`, where it is expected to refuse: how it ended.
pub async fn refused(binary: &Path, data: &Path) -> Ended {
    launch(binary, free_port(), data, &[], &[])
        .wait(START_LIMIT)
        .await
}

fn launch(
    binary: &Path,
    port: u16,
    data: &Path,
    flags: &[String],
    environment: &[(String, String)],
) -> Process {
    let mut arguments: Vec<String> = ["serve", "--port", &port.to_string(), "--data-dir"]
        .iter()
        .map(ToString::to_string)
        .collect();
    arguments.push(data.display().to_string());
    arguments.extend(flags.iter().cloned());
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    Process::spawn(binary, &arguments, &environment)
}

/// A port nobody listens on. A restart must find its own port again, so 0 will not do.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
