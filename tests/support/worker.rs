//! Worker processes of one application: `worker-child` on a shared lease database, with everything they
//! report in one history.

use crate::history::{Event, EventKind};
use crate::process::{Ended, Process, Signal};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// What all workers of an application have in common.
#[derive(Debug)]
pub struct Fleet {
    binary: PathBuf,
    endpoint: String,
    stream: String,
    directory: TempDir,
    settings: Vec<(&'static str, String)>,
    retired: Vec<Event>,
    started: usize,
}

/// One `worker-child`; killed on drop.
#[derive(Debug)]
pub struct WorkerProcess {
    id: String,
    process: Process,
}

impl Fleet {
    /// An application `app` on `stream`, with a new lease database.
    pub fn new(binary: &str, endpoint: &str, stream: &str, failover: Duration) -> Fleet {
        Fleet {
            binary: PathBuf::from(binary),
            endpoint: endpoint.to_owned(),
            stream: stream.to_owned(),
            directory: TempDir::with_prefix("millstream-leases-").unwrap(),
            settings: vec![("--failover-ms", failover.as_millis().to_string())],
            retired: Vec::new(),
            started: 0,
        }
    }

    /// Every worker started from now on gets `--name value`.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &dyn ToString) -> Fleet {
        self.settings.push((name, value.to_string()));
        self
    }

    /// The lease database.
    pub fn leases(&self) -> PathBuf {
        self.directory.path().join("leases.db")
    }

    /// Where workers may keep results.
    pub fn results(&self) -> PathBuf {
        self.directory.path().join("results.db")
    }

    /// Starts a worker under an id of its own and waits until it says so.
    pub async fn start(&mut self) -> WorkerProcess {
        let mut worker = self.launch();
        worker
            .process
            .wait_for_line("started event", Duration::from_secs(15), |line| {
                let event = Event::parse(line)?;
                (event.kind == EventKind::Started).then_some(())
            })
            .await;
        worker
    }

    /// Starts a worker that is expected to end by itself: how it did.
    pub async fn start_refused(&mut self, limit: Duration) -> Ended {
        self.launch().process.wait(limit).await
    }

    fn launch(&mut self) -> WorkerProcess {
        self.started += 1;
        let id = format!("worker-{}", self.started);
        let path = |path: &Path| path.display().to_string();
        let mut arguments = Vec::new();
        for (name, value) in [
            ("--worker-id", id.clone()),
            ("--application", "app".to_owned()),
            ("--endpoint", self.endpoint.clone()),
            ("--stream", self.stream.clone()),
            ("--leases", path(&self.leases())),
        ] {
            arguments.extend([name.to_owned(), value]);
        }
        for (name, value) in &self.settings {
            arguments.extend([(*name).to_owned(), value.clone()]);
        }
        let credentials = [
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ];
        let process = Process::spawn(&self.binary, &arguments, &credentials);
        WorkerProcess { id, process }
    }

    /// Keeps what an ended worker said.
    pub fn retire(&mut self, worker: &WorkerProcess) {
        self.retired.extend(worker.events());
    }

    /// Everything said by retired workers and by `running`, in the order of time.
    pub fn history<'a>(&self, running: impl IntoIterator<Item = &'a WorkerProcess>) -> Vec<Event> {
        let mut events = self.retired.clone();
        events.extend(running.into_iter().flat_map(WorkerProcess::events));
        events.sort_by_key(|event| event.at_us);
        events
    }
}

impl WorkerProcess {
    /// The worker's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it said so far.
    pub fn events(&self) -> Vec<Event> {
        self.process
            .stdout()
            .all()
            .iter()
            .filter_map(|line| Event::parse(line))
            .collect()
    }

    /// Standard error so far.
    pub fn log(&self) -> String {
        self.process.stderr().text()
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Sends a signal.
    pub async fn signal(&self, signal: Signal) {
        self.process.signal(signal).await;
    }

    /// kill -9.
    pub async fn kill9(&mut self) -> Ended {
        self.process.kill9().await
    }

    /// SIGTERM and the end.
    pub async fn terminate(&mut self) -> Ended {
        self.process.terminate(Duration::from_secs(20)).await
    }

    /// How it ends by itself.
    pub async fn wait(&mut self, limit: Duration) -> Ended {
        self.process.wait(limit).await
    }
}
