//! A worker's process: started, listened to, looked at, ended.

use crate::Failure;
use crate::command::Job;
use crate::peers::Peers;
use millstream_bench::clock::now_us;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout};
use tokio::task::JoinHandle;

/// What a worker said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// It has begun a shard.
    Shard { shard: String, at_us: u64 },
    /// It got a record.
    Record {
        shard: String,
        sequence: String,
        put_us: u64,
        at_us: u64,
    },
    /// So much it has got so far.
    Total { records: u64, at_us: u64 },
}

impl Event {
    fn parse(line: &str) -> Option<Event> {
        let mut words = line.split(' ');
        let mut word = || words.next();
        Some(match word()? {
            "shard" => Event::Shard {
                shard: word()?.to_owned(),
                at_us: word()?.parse().ok()?,
            },
            "record" => Event::Record {
                shard: word()?.to_owned(),
                sequence: word()?.to_owned(),
                put_us: word()?.parse().ok()?,
                at_us: word()?.parse().ok()?,
            },
            "total" => {
                let records = word()?.parse().ok()?;
                word()?;
                let at_us = word()?.parse().ok()?;
                Event::Total { records, at_us }
            }
            _ => return None,
        })
    }
}

/// A running worker; dropping it kills it.
#[derive(Debug)]
pub(crate) struct WorkerRun {
    child: Child,
    pub(crate) id: String,
    pub(crate) started_us: u64,
    events: Arc<Mutex<Vec<Event>>>,
    listening: JoinHandle<()>,
}

/// What a process holds in memory, MiB.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) most: u64,
}

impl WorkerRun {
    pub(crate) fn start(
        job: &Job<'_>,
        peers: &Peers,
        directory: &Path,
    ) -> Result<WorkerRun, Failure> {
        let log = directory.join(format!("{}-{}.log", job.application, job.worker));
        let log = std::fs::File::create(log)?;
        let mut command = job.command(peers, directory)?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let started_us = now_us();
        let mut child = command.kill_on_drop(true).spawn()?;
        let events = Arc::<Mutex<Vec<Event>>>::default();
        let said = child.stdout.take().ok_or("a worker without output")?;
        let listening = tokio::spawn(listen(said, Arc::clone(&events)));
        Ok(WorkerRun {
            child,
            id: job.worker.clone(),
            started_us,
            events,
            listening,
        })
    }

    /// Looks at what was said.
    pub(crate) fn hear<T>(&self, look: impl FnOnce(&[Event]) -> T) -> T {
        look(&self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until a look at what was said finds something.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        look: impl Fn(&[Event]) -> Option<T>,
    ) -> Result<T, Failure> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            if let Some(found) = self.hear(|events| look(events)) {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{}: it ended with {status} before {what}", self.id).into());
            }
            if tokio::time::Instant::now() > deadline {
                return Err(format!("{}: not within {limit:?}: {what}", self.id).into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn memory(&self) -> Result<Memory, Failure> {
        let id = self.child.id().ok_or("the worker has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let mib = |name: &str| -> Option<u64> {
            let line = status.lines().find(|line| line.starts_with(name))?;
            let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
            Some(kib / 1024)
        };
        Ok(Memory {
            resident: mib("VmRSS:").ok_or("no VmRSS")?,
            most: mib("VmHWM:").ok_or("no VmHWM")?,
        })
    }

    /// Seconds of processor time so far.
    pub(crate) fn cpu_seconds(&self) -> Result<f64, Failure> {
        let id = self.child.id().ok_or("the worker has ended")?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        let (_, rest) = stat.rsplit_once(')').ok_or("no stat")?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |index: usize| -> Option<u32> { words.get(index)?.parse().ok() };
        let ticks = ticks(11).ok_or("no utime")? + ticks(12).ok_or("no stime")?;
        Ok(f64::from(ticks) / 100.0)
    }

    pub(crate) async fn kill(mut self) -> Result<(), Failure> {
        self.child.kill().await?;
        self.listening.abort();
        Ok(())
    }

    /// Asks it to stop; waits until it has.
    pub(crate) async fn terminate(&mut self, limit: Duration) -> Result<(), Failure> {
        let id = self.child.id().ok_or("the worker has ended")?.to_string();
        let mut kill = tokio::process::Command::new("kill");
        kill.args(["-TERM", &id]).status().await?;
        if tokio::time::timeout(limit, self.child.wait())
            .await
            .is_err()
        {
            self.child.kill().await?;
        }
        Ok(())
    }
}

async fn listen(said: ChildStdout, events: Arc<Mutex<Vec<Event>>>) {
    let mut lines = BufReader::new(said).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(event) = Event::parse(&line) {
            let mut events = events.lock().unwrap_or_else(PoisonError::into_inner);
            events.push(event);
        }
    }
}
