//! A child process that cannot outlive its test: signals, captured output, exit code, killed on drop.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What to send to a process, by the name `kill` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Stop in an orderly way.
    Term,
    /// Be suspended.
    Stop,
    /// Go on.
    Cont,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Signal::Term => "TERM",
            Signal::Stop => "STOP",
            Signal::Cont => "CONT",
        }
    }
}

/// Lines of one output stream, as they came.
#[derive(Debug, Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    /// Everything so far.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Everything so far as one text.
    pub fn text(&self) -> String {
        self.all().join("\n")
    }

    /// The lines from number `from` on.
    pub fn since(&self, from: usize) -> Vec<String> {
        self.0
            .lock()
            .unwrap()
            .get(from..)
            .unwrap_or_default()
            .to_vec()
    }
}

/// A running or finished child.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    stdout: Lines,
    stderr: Lines,
    news: watch::Receiver<usize>,
    readers: Vec<JoinHandle<()>>,
}

/// How a process ended, with everything it said.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Process {
    /// Starts `program` with `arguments` and `environment` on top of the test's own.
    pub fn spawn(program: &Path, arguments: &[String], environment: &[(&str, &str)]) -> Process {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let name = program.display().to_string();
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("could not start {name}: {error}"));
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let (tell, news) = watch::channel(0);
        let readers = vec![
            read_lines(child.stdout.take().unwrap(), stdout.clone(), tell.clone()),
            read_lines(child.stderr.take().unwrap(), stderr.clone(), tell),
        ];
        Process {
            child,
            name,
            stdout,
            stderr,
            news,
            readers,
        }
    }

    /// Standard output so far.
    pub fn stdout(&self) -> &Lines {
        &self.stdout
    }

    /// Standard error so far.
    pub fn stderr(&self) -> &Lines {
        &self.stderr
    }

    /// The first line of standard output, from number `from`, for which `pick` answers; panics when the
    /// process ends or `limit` passes before.
    pub async fn wait_for_line<T>(
        &mut self,
        what: &str,
        limit: Duration,
        pick: impl Fn(&str) -> Option<T>,
    ) -> T {
        let found = tokio::time::timeout(limit, async {
            loop {
                self.news.borrow_and_update();
                if let Some(found) = self.stdout.all().iter().find_map(|line| pick(line)) {
                    return Some(found);
                }
                if self.news.changed().await.is_err() {
                    // Both streams ended; a line may have come with the end.
                    return self.stdout.all().iter().find_map(|line| pick(line));
                }
            }
        })
        .await;
        match found {
            Ok(Some(found)) => found,
            Ok(None) => panic!("{} ended before {what}: {}", self.name, self.stderr.text()),
            Err(elapsed) => panic!(
                "{}: no {what}, {elapsed} ({limit:?}): {}",
                self.name,
                self.stderr.text()
            ),
        }
    }

    /// The process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub async fn signal(&self, signal: Signal) {
        let id = self
            .id()
            .unwrap_or_else(|| panic!("{} has ended already", self.name));
        let kill = format!("kill -{} {id}", signal.name());
        let status = Command::new("sh")
            .args(["-c", &kill])
            .status()
            .await
            .unwrap();
        assert!(status.success(), "{kill} failed");
    }

    /// kill -9, and waits until it is gone.
    pub async fn kill9(&mut self) -> Ended {
        self.child
            .start_kill()
            .unwrap_or_else(|error| panic!("kill {}: {error}", self.name));
        self.wait(Duration::from_secs(10)).await
    }

    /// SIGTERM, and how it ended; panics if it does not within `limit`.
    pub async fn terminate(&mut self, limit: Duration) -> Ended {
        self.signal(Signal::Term).await;
        self.wait(limit).await
    }

    /// How it ends; panics if it does not within `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Ended {
        let status = tokio::time::timeout(limit, self.child.wait())
            .await
            .unwrap_or_else(|_| {
                panic!(
                    "{} did not end within {limit:?}: {}",
                    self.name,
                    self.stderr.text()
                )
            })
            .unwrap();
        for reader in self.readers.drain(..) {
            reader.await.unwrap();
        }
        Ended {
            code: status.code(),
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
        }
    }
}

fn read_lines(
    from: impl AsyncRead + Unpin + Send + 'static,
    lines: Lines,
    tell: watch::Sender<usize>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut reader = BufReader::new(from).lines();
        while let Ok(Some(line)) = reader.next_line().await {
            lines.0.lock().unwrap().push(line);
            tell.send_modify(|count| *count += 1);
        }
    })
}
