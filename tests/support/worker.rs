//! Worker processes of one application: `worker-child` on a shared lease database, with everything they
//! report in one history.

use crate::history::{Event, EventKind};
use crate::process::{Ended, Process, Signal};
use crate::store::Store;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;

/// What all workers of an application have in common.
#[derive(Debug)]
pub struct Fleet {
    binary: PathBuf,
    endpoint: String,
    stream: String,
    directory: TempDir,
    store: Store,
    settings: Vec<(&'static str, String)>,
    retired: Vec<Event>,
    started: usize,
}

/// One `worker-child`; killed on drop.
#[derive(Debug)]
pub struct WorkerProcess {
    id: String,
    process: Process,
    heard: Mutex<Heard>,
}

/// What a worker said, as far as it was read.
#[derive(Debug, Default)]
struct Heard {
    lines: usize,
    events: Vec<Event>,
}

impl Fleet {
    /// An application `app` on `stream`, with a new lease database in a file.
    pub fn new(binary: &str, endpoint: &str, stream: &str, failover: Duration) -> Fleet {
        let directory = TempDir::with_prefix("millstream-leases-").unwrap();
        Fleet {
            binary: PathBuf::from(binary),
            endpoint: endpoint.to_owned(),
            stream: stream.to_owned(),
            store: Store::Sqlite(directory.path().join("leases.db")),
            directory,
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

    /// Keeps the leases elsewhere.
    #[must_use]
    pub fn on(mut self, store: Store) -> Fleet {
        self.store = store;
        self
    }

    /// Where the leases are.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The file that the leases are in.
    pub fn leases(&self) -> PathBuf {
        match &self.store {
            Store::Sqlite(path) => path.clone(),
            Store::Postgres(url) => panic!("the leases are at {url}"),
        }
    }

    /// Where workers may keep results.
    pub fn results(&self) -> PathBuf {
        self.directory.path().join("results.db")
    }

    /// A file for the test's own use, removed with the fleet.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts a worker under an id of its own and waits until it says so.
    pub async fn start(&mut self) -> WorkerProcess {
        self.start_in(&[]).await
    }

    /// The same with more in its environment.
    pub async fn start_in(&mut self, environment: &[(&str, &str)]) -> WorkerProcess {
        let mut worker = self.launch(environment);
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
        self.launch(&[]).process.wait(limit).await
    }

    fn launch(&mut self, environment: &[(&str, &str)]) -> WorkerProcess {
        self.started += 1;
        let id = format!("worker-{}", self.started);
        let mut arguments = Vec::new();
        for (name, value) in [
            ("--worker-id", id.clone()),
            ("--application", "app".to_owned()),
            ("--endpoint", self.endpoint.clone()),
            ("--stream", self.stream.clone()),
            ("--leases", self.store.to_string()),
        ] {
            arguments.extend([name.to_owned(), value]);
        }
        for (name, value) in &self.settings {
            arguments.extend([(*name).to_owned(), value.clone()]);
        }
        let mut variables = vec![
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ];
        variables.extend(environment);
        WorkerProcess {
            id,
            process: Process::spawn(&self.binary, &arguments, &variables),
            heard: Mutex::default(),
        }
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
        self.hear(<[Event]>::to_vec)
    }

    /// The same without a copy.
    pub fn hear<T>(&self, of: impl FnOnce(&[Event]) -> T) -> T {
        let mut heard = self.heard.lock().unwrap();
        let lines = self.process.stdout().since(heard.lines);
        heard.lines += lines.len();
        heard
            .events
            .extend(lines.iter().filter_map(|line| Event::parse(line)));
        of(&heard.events)
    }

    /// The process id, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Its lines as they came.
    pub fn said(&self) -> Vec<Value> {
        let lines = self.process.stdout().all();
        let parsed = lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok());
        parsed.collect()
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

    /// Suspends it when it is not amid a write to one of these: a file that it keeps locked would keep all others waiting for it.
    pub async fn suspend(&self, stores: &[&Store]) {
        for _ in 0..50 {
            self.signal(Signal::Stop).await;
            let mut is_free = true;
            for store in stores {
                is_free &= store.is_free().await;
            }
            if is_free {
                return;
            }
            self.signal(Signal::Cont).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} is amid a write whenever it is looked at", self.id);
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
