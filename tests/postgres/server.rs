//! One run of a server: a shell that holds it by a pipe, and signals to all its processes.
//!
//! The shell ends the server when its standard input closes. The system closes it when the tests' process is gone, even
//! by SIGKILL, so no server stays behind.

use crate::account::Account;
use crate::log::{Log, Missed};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// How long a server may take to start, its recovery after a crash included.
const START_LIMIT: Duration = Duration::from_mins(1);
/// How long one may take to end, its last checkpoint included.
const END_LIMIT: Duration = Duration::from_mins(1);

/// `$0` is the server's folder, the rest its command. A line on standard input names the signal to end it with; when the input
/// closes, it ends at once and the folder goes too. A stopped server must go on to see a signal.
const HOLD: &str = r#"
exec 3<&0
"$@" </dev/null >/dev/null 3<&- & server=$!
echo $server
exec >/dev/null 2>&1
(
    while read -r order <&3; do kill -CONT $server; kill -$order $server; done
    : >"$0/orphaned"
    kill -CONT $server; kill -QUIT $server
) & reader=$!
wait $server
kill $reader
if [ -e "$0/orphaned" ]; then rm -rf "$0"; fi
"#;

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    shell: Child,
    /// Closed when dropped, which ends the server.
    orders: Option<ChildStdin>,
    postmaster: u32,
    log: Arc<Log>,
}

/// How to start one.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    pub(crate) account: Account,
    pub(crate) program: PathBuf,
    /// Holds the data in `data`.
    pub(crate) folder: &'a Path,
    pub(crate) settings: Vec<(String, String)>,
}

impl Server {
    /// Starts a server and waits until it takes connections; else the end of its log.
    pub(crate) fn start(start: &Start<'_>) -> Result<Server, String> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(HOLD).arg(start.folder);
        command.arg(&start.program);
        command.arg("-D").arg(start.folder.join("data"));
        for (name, value) in &start.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        // Dates and messages as they are looked for, whatever the tests' own settings.
        command
            .env("LC_ALL", "C")
            .current_dir(start.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        start.account.apply(&mut command);
        let mut shell = command
            .spawn()
            .unwrap_or_else(|error| panic!("could not start a shell for PostgreSQL: {error}"));
        let orders = shell.stdin.take();
        let log = Log::read(shell.stderr.take().unwrap());
        let mut told = String::new();
        BufReader::new(shell.stdout.take().unwrap())
            .read_line(&mut told)
            .unwrap();
        let postmaster = told
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("the shell started no PostgreSQL: {}", log.text()));
        let server = Server {
            shell,
            orders,
            postmaster,
            log,
        };
        match server.log.ready(START_LIMIT) {
            Ok(()) => Ok(server),
            Err(missed) => Err(server.failed(missed)),
        }
    }

    fn failed(self, missed: Missed) -> String {
        let how = match missed {
            Missed::Ended => "it has ended".to_owned(),
            Missed::Late => format!("it did not take connections within {START_LIMIT:?}"),
        };
        format!("{how}; its log:\n{}", self.log.text())
    }

    /// The process that all others of the server come from.
    pub(crate) fn postmaster(&self) -> u32 {
        self.postmaster
    }

    /// Ends it in order: clients are cut off, everything is written.
    pub(crate) fn stop(mut self) {
        signal("CONT", &self.children());
        if let Some(orders) = &mut self.orders {
            // Has it ended by itself, nobody reads; then that is what the wait sees.
            let _ = orders.write_all(b"INT\n");
        }
        self.wait("stop");
    }

    /// Ends all its processes with SIGKILL.
    pub(crate) fn kill(mut self) {
        let all = self.halt();
        signal("KILL", &all);
        self.wait("die");
    }

    /// Holds all its processes: connections stay, and nobody answers.
    pub(crate) fn pause(&self) {
        let all = self.halt();
        signal("STOP", &all);
    }

    /// Lets them go on.
    pub(crate) fn resume(&self) {
        let mut all = self.children();
        all.push(self.postmaster);
        signal("CONT", &all);
    }

    /// All its processes, none of which comes or goes on from here: the one that starts the others is held.
    fn halt(&self) -> Vec<u32> {
        signal("STOP", &[self.postmaster]);
        let mut all = self.children();
        all.push(self.postmaster);
        all
    }

    fn children(&self) -> Vec<u32> {
        let processes =
            std::fs::read_dir("/proc").expect("signals to a server's processes need /proc");
        processes
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| parent(*pid) == Some(self.postmaster))
            .collect()
    }

    fn wait(&mut self, what: &str) {
        assert!(
            self.log.ended(END_LIMIT),
            "PostgreSQL did not {what} within {END_LIMIT:?}; its log:\n{}",
            self.log.text()
        );
        let _ = self.shell.wait();
    }
}

impl Drop for Server {
    /// Ends it at once. The shell waits for it, and this for the shell, so that nothing of it is left afterwards.
    fn drop(&mut self) {
        if self.orders.take().is_some() {
            let _ = self.shell.wait();
        }
    }
}

/// Sends a signal by the name that `kill` knows.
fn signal(name: &str, pids: &[u32]) {
    if pids.is_empty() {
        return;
    }
    // A process of the list may have ended by now.
    let _ = Command::new("sh")
        .args(["-c", "for pid; do kill -\"$0\" \"$pid\"; done", name])
        .args(pids.iter().map(ToString::to_string))
        .stderr(Stdio::null())
        .status()
        .expect("sh sends signals");
}

/// The process that started `pid`, if that is still there.
fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // "pid (name) state parent ..."; the name may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}
