//! Child processes of the demo: this same binary, started, watched, killed and reaped. Only what was started here
//! is ever ended, by its handle.

use crate::Failure;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long a server may take to recover and say so.
const READY_WAIT: Duration = Duration::from_secs(30);
/// How long a process may take to stop when it is asked to.
const STOP_WAIT: Duration = Duration::from_secs(20);

/// A running child process. Its standard input is a pipe that nobody writes: when it closes, even because this process was
/// killed, the child stops by itself.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts this binary with `arguments`; what it logs goes to `NAME.log` in `directory`.
    pub(crate) fn start(
        name: &str,
        directory: &Path,
        arguments: Vec<OsString>,
    ) -> Result<Process, Failure> {
        let failed =
            |error: std::io::Error| Failure::runtime(format_args!("cannot start {name}: {error}"));
        let log: PathBuf = directory.join(format!("{name}.log"));
        let log = File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(arguments);
        // The demo's own settings only.
        for (variable, _) in std::env::vars_os() {
            let foreign = variable.to_str().is_some_and(|variable| {
                variable.starts_with("MILLSTREAM_") || variable.starts_with("AWS_")
            });
            if foreign {
                command.env_remove(variable);
            }
        }
        // A group of its own: Ctrl-C reaches the demo, which stops its children in order.
        command.process_group(0).kill_on_drop(true);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        let child = command.spawn().map_err(failed)?;
        Ok(Process {
            name: name.to_owned(),
            child,
        })
    }

    /// What it is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, while it runs.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Waits until it prints its `Ready` line.
    pub(crate) async fn ready(&mut self) -> Result<(), Failure> {
        let Some(out) = self.child.stdout.take() else {
            return Ok(());
        };
        let mut line = String::new();
        let mut out = BufReader::new(out);
        let reason = match tokio::time::timeout(READY_WAIT, out.read_line(&mut line)).await {
            Ok(Ok(_)) if line.starts_with("Ready ") => return Ok(()),
            Ok(Ok(0)) => "it ended".to_owned(),
            Ok(Ok(_)) => format!("it said {line:?}"),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("nothing came for {} s", READY_WAIT.as_secs()),
        };
        let name = &self.name;
        Err(Failure::runtime(format_args!(
            "{name} did not get ready: {reason}; see {name}.log"
        )))
    }

    /// Whether it has ended by itself, and how.
    pub(crate) fn ended(&mut self) -> Option<String> {
        self.child
            .try_wait()
            .ok()
            .flatten()
            .map(|status| status.to_string())
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) async fn kill(mut self) -> Result<(), Failure> {
        let killed = self.child.kill().await;
        killed.map_err(|error| Failure::runtime(format_args!("cannot kill {}: {error}", self.name)))
    }

    /// Asks it to stop; says how it ended. One that does not stop is killed.
    pub(crate) async fn stop(mut self) -> Result<(), String> {
        drop(self.child.stdin.take());
        match tokio::time::timeout(STOP_WAIT, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("{} ended with {status}", self.name)),
            Ok(Err(error)) => Err(format!("{}: {error}", self.name)),
            Err(_) => {
                let _ = self.child.kill().await;
                Err(format!(
                    "{} did not stop within {} s",
                    self.name,
                    STOP_WAIT.as_secs()
                ))
            }
        }
    }
}
