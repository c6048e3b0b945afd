//! The show: a server, three workers, and what is done to them while the lines are put.

use crate::demo::aggregate::Aggregate;
use crate::demo::client::{CallError, Client, OpenShard};
use crate::demo::input::Input;
use crate::demo::process::Process;
use crate::demo::producer::{Ledger, Production};
use crate::demo::progress::{Display, latest_worker, short};
use crate::demo::results::{Results, Row, Share};
use crate::demo::verify::{Events, count, seconds};
use crate::{Failure, clock};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

const STREAM: &str = "demo";
const SHARDS: u32 = 4;
const WORKERS: usize = 3;
const FAILOVER: Duration = Duration::from_secs(2);
/// Percent of the lines that are put when each thing happens.
const KILL_WORKER_AT: usize = 30;
const SPLIT_AT: usize = 45;
const KILL_SERVER_AT: usize = 60;
/// How long a single step may take before the demo goes on or gives up.
const STEP_WAIT: Duration = Duration::from_secs(20);
/// How long nothing new may be processed at the end before the workers are taken to be stuck.
const STALL_WAIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// The processes and where they live.
#[derive(Debug)]
pub(crate) struct Stage {
    directory: PathBuf,
    display: Display,
    port: u16,
    server: Option<Process>,
    workers: Vec<Process>,
    /// What is going on, for the message when time runs out.
    pub(crate) phase: &'static str,
}

/// What the show left for the proof.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) ledger: Ledger,
    pub(crate) rows: Vec<Row>,
    pub(crate) aggregates: BTreeMap<String, Aggregate>,
    pub(crate) shares: Vec<Share>,
    pub(crate) events: Events,
}

impl Stage {
    /// An empty stage on a free port.
    pub(crate) fn new(directory: &Path, display: Display) -> Result<Stage, Failure> {
        let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
        let port = free
            .map_err(|error| Failure::runtime(format_args!("no free port on 127.0.0.1: {error}")))?
            .port();
        let directory = directory.to_owned();
        Ok(Stage {
            directory,
            display,
            port,
            server: None,
            workers: Vec::new(),
            phase: "starting",
        })
    }

    /// Plays the whole show.
    pub(crate) async fn play(&mut self, input: &Input, pace: Duration) -> Result<Outcome, Failure> {
        let total = input.lines.len();
        let client = Client::new(self.endpoint()).map_err(Failure::runtime)?;
        self.start_server().await?;
        self.display.event(&format!(
            "server started (pid {}) on {}",
            self.server_id(),
            self.endpoint()
        ));
        create_stream(&client).await?;
        let results_path = self.directory.join("results.db");
        let results = Results::create(&results_path)
            .await
            .map_err(Failure::runtime)?;
        for number in 1..=WORKERS {
            self.start_worker(number, input, &results_path)?;
        }
        self.display.event(&format!(
            "{WORKERS} workers started, {SHARDS} shards, {} records to put",
            count(total)
        ));

        let display = self.display;
        let (sender, acknowledged) = watch::channel(0);
        let production = Production {
            client: &client,
            stream: STREAM,
            lines: &input.lines,
            pace,
        };
        let job = async {
            let direction = self.direct(&client, &results, acknowledged.clone(), total);
            let (ledger, events) = tokio::try_join!(production.run(&sender), direction)?;
            display.event(&format!("all {} records are acknowledged", count(total)));
            self.phase = "waiting for the workers to finish";
            drain(&results, total).await?;
            Ok::<_, Failure>((ledger, events))
        };
        let (ledger, mut events) = tokio::select! {
            done = job => done?,
            () = display.follow(&results, &acknowledged, total) => {
                return Err(Failure::runtime("the display ended"));
            }
        };
        self.display.event("the workers have caught up; stopping");
        self.phase = "stopping";
        events.bad_ends = self.stop().await;
        let (rows, aggregates, shares) =
            tokio::try_join!(results.rows(), results.aggregates(), results.shares())
                .map_err(Failure::runtime)?;
        results.close().await;
        Ok(Outcome {
            ledger,
            rows,
            aggregates,
            shares,
            events,
        })
    }

    /// Does to the processes what the demo is about, each at its share of the lines.
    async fn direct(
        &mut self,
        client: &Client,
        results: &Results,
        mut acknowledged: watch::Receiver<usize>,
        total: usize,
    ) -> Result<Events, Failure> {
        let mut events = Events::default();
        self.phase = "putting the first records";
        reached(&mut acknowledged, total, KILL_WORKER_AT).await?;
        self.phase = "killing a worker";
        events.takeovers_ms = self.kill_worker(results).await?;
        reached(&mut acknowledged, total, SPLIT_AT).await?;
        self.phase = "splitting a shard";
        events.split = Some(self.split(client, results).await?);
        self.phase = "putting records after the split";
        reached(&mut acknowledged, total, KILL_SERVER_AT).await?;
        self.phase = "restarting the server";
        events.outage_ms = Some(self.restart_server().await?);
        self.phase = "putting the last records";
        Ok(events)
    }

    /// Kills the worker with the most shards; gives those with the time until somebody else worked on each.
    async fn kill_worker(
        &mut self,
        results: &Results,
    ) -> Result<Vec<(String, Option<u64>)>, Failure> {
        let until = Instant::now() + STEP_WAIT;
        let (victim, shards) = loop {
            let shares = results.shares().await.map_err(Failure::runtime)?;
            if let Some(found) = busiest(&shares) {
                break found;
            }
            pause(until, "no worker has processed anything").await?;
        };
        let Some(index) = self
            .workers
            .iter()
            .position(|worker| worker.name() == victim)
        else {
            return Err(Failure::runtime(format_args!(
                "{victim} is not one of the workers"
            )));
        };
        let process = self.workers.remove(index);
        let id = process.id();
        let killed_ms = clock::unix_ms();
        process.kill().await?;
        let names: Vec<&str> = shards.iter().map(|shard| short(shard)).collect();
        self.display.event(&format!(
            "KILLED {victim} (pid {id}, SIGKILL), which held shard {}",
            names.join(", ")
        ));

        let mut takeovers: Vec<(String, Option<u64>)> =
            shards.into_iter().map(|shard| (shard, None)).collect();
        let until = Instant::now() + STEP_WAIT;
        while takeovers.iter().any(|(_, taken)| taken.is_none()) && Instant::now() < until {
            tokio::time::sleep(POLL).await;
            for (shard, taken) in takeovers.iter_mut().filter(|(_, taken)| taken.is_none()) {
                let found = results.taken_over_ms(shard, &victim, killed_ms).await;
                *taken = found
                    .map_err(Failure::runtime)?
                    .map(|at| at.saturating_sub(killed_ms));
                if let Some(after) = *taken {
                    let text = format!(
                        "shard {} goes on with another worker, after {}",
                        short(shard),
                        seconds(after)
                    );
                    self.display.event(&text);
                }
            }
        }
        Ok(takeovers)
    }

    /// Splits the open shard with the most records.
    async fn split(
        &mut self,
        client: &Client,
        results: &Results,
    ) -> Result<(String, Vec<String>), Failure> {
        let before = client.open_shards(STREAM).await.map_err(Failure::runtime)?;
        let shares = results.shares().await.map_err(Failure::runtime)?;
        let processed = |shard: &OpenShard| -> u64 {
            shares
                .iter()
                .filter(|share| share.shard == shard.id)
                .map(|share| share.processed)
                .sum()
        };
        let Some(parent) = before.iter().max_by_key(|shard| processed(shard)) else {
            return Err(Failure::runtime("the stream has no open shard to split"));
        };
        client
            .split(STREAM, parent)
            .await
            .map_err(Failure::runtime)?;
        wait_active(client).await?;
        let after = client.open_shards(STREAM).await.map_err(Failure::runtime)?;
        let children: Vec<String> = after
            .into_iter()
            .filter(|shard| !before.contains(shard))
            .map(|shard| shard.id)
            .collect();
        let names: Vec<&str> = children.iter().map(|shard| short(shard)).collect();
        self.display.event(&format!(
            "SPLIT shard {} into {}",
            short(&parent.id),
            names.join(" and ")
        ));
        Ok((parent.id.clone(), children))
    }

    /// Kills the server and starts it again on its data; gives how long it was away.
    async fn restart_server(&mut self) -> Result<u64, Failure> {
        let Some(server) = self.server.take() else {
            return Err(Failure::runtime("the server is gone"));
        };
        let id = server.id();
        let since = Instant::now();
        server.kill().await?;
        self.display
            .event(&format!("KILLED the server (pid {id}, SIGKILL)"));
        self.start_server().await?;
        let away_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let id = self.server_id();
        self.display.event(&format!(
            "server is back (pid {id}), after {}",
            seconds(away_ms)
        ));
        Ok(away_ms)
    }

    async fn start_server(&mut self) -> Result<(), Failure> {
        let mut arguments: Vec<OsString> = [
            "serve",
            "--stop-with-stdin",
            "--durability",
            "fsync",
            "--limits",
            "aws",
            "--port",
        ]
        .map(OsString::from)
        .to_vec();
        arguments.push(self.port.to_string().into());
        arguments.extend([
            "--data-dir".into(),
            self.directory.join("data").into_os_string(),
        ]);
        let server = Process::start("server", &self.directory, arguments)?;
        self.server.insert(server).ready().await
    }

    fn start_worker(
        &mut self,
        number: usize,
        input: &Input,
        results: &Path,
    ) -> Result<(), Failure> {
        let name = format!("worker-{number}");
        let leases = self.directory.join("leases.db");
        let pairs: [(&str, OsString); 8] = [
            ("--endpoint", self.endpoint().into()),
            ("--stream", STREAM.into()),
            ("--application", "demo".into()),
            ("--worker-id", name.clone().into()),
            ("--leases", leases.into_os_string()),
            ("--results", results.as_os_str().to_owned()),
            ("--value", input.value.to_string().into()),
            ("--failover-ms", FAILOVER.as_millis().to_string().into()),
        ];
        let mut arguments = vec![OsString::from("demo-worker")];
        for (flag, value) in pairs {
            arguments.extend([flag.into(), value]);
        }
        self.workers
            .push(Process::start(&name, &self.directory, arguments)?);
        Ok(())
    }

    /// Asks every process to stop, the workers first; says which ended badly.
    async fn stop(&mut self) -> Vec<String> {
        let mut bad = Vec::new();
        for process in self.workers.drain(..).chain(self.server.take()) {
            bad.extend(process.stop().await.err());
        }
        bad
    }

    /// Kills and reaps whatever still runs; says which had ended by itself.
    pub(crate) async fn clear(&mut self) -> Vec<String> {
        let mut ended = Vec::new();
        for mut process in self.workers.drain(..).chain(self.server.take()) {
            match process.ended() {
                Some(status) => ended.push(format!("{} had ended with {status}", process.name())),
                None => ended.extend(
                    process
                        .kill()
                        .await
                        .err()
                        .map(|failure| failure.to_string()),
                ),
            }
        }
        ended
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn server_id(&self) -> u32 {
        self.server.as_ref().map_or(0, Process::id)
    }
}

/// The worker that processed the latest batch of the most shards, with those shards.
fn busiest(shares: &[Share]) -> Option<(String, Vec<String>)> {
    let mut held: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for share in shares {
        if latest_worker(shares, &share.shard) == Some(share.worker.as_str()) {
            held.entry(share.worker.clone())
                .or_default()
                .push(share.shard.clone());
        }
    }
    held.into_iter().max_by_key(|(_, shards)| shards.len())
}

async fn create_stream(client: &Client) -> Result<(), Failure> {
    client
        .create_stream(STREAM, SHARDS)
        .await
        .map_err(Failure::runtime)?;
    wait_active(client).await
}

async fn wait_active(client: &Client) -> Result<(), Failure> {
    let until = Instant::now() + STEP_WAIT;
    loop {
        match client.is_active(STREAM).await {
            Ok(true) => return Ok(()),
            Ok(false) | Err(CallError::Unanswered(..) | CallError::Unreached(..)) => {}
            Err(error @ CallError::Refused { .. }) => return Err(Failure::runtime(error)),
        }
        pause(until, "the stream has not become active").await?;
    }
}

/// Waits until `percent` of `total` are acknowledged. The deadline of the whole demo bounds it.
async fn reached(
    acknowledged: &mut watch::Receiver<usize>,
    total: usize,
    percent: usize,
) -> Result<(), Failure> {
    let reached = acknowledged
        .wait_for(|&count| count * 100 >= total * percent)
        .await;
    reached
        .map(drop)
        .map_err(|_| Failure::runtime("the producer ended early"))
}

/// Waits until every line is processed, or until nothing moves any more: then the proof will say what is missing.
async fn drain(results: &Results, total: usize) -> Result<(), Failure> {
    let mut before = 0;
    let mut moved = Instant::now();
    loop {
        let processed = results.lines_processed().await.map_err(Failure::runtime)?;
        if processed >= total || moved.elapsed() > STALL_WAIT {
            return Ok(());
        }
        if processed > before {
            before = processed;
            moved = Instant::now();
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn pause(until: Instant, reason: &str) -> Result<(), Failure> {
    if Instant::now() >= until {
        let waited = STEP_WAIT.as_secs();
        return Err(Failure::runtime(format_args!("{reason} within {waited} s")));
    }
    tokio::time::sleep(POLL).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_worker_is_the_one_that_was_last_on_the_most_shards() {
        let share = |worker: &str, shard: &str, last_batch| Share {
            worker: worker.into(),
            shard: shard.into(),
            processed: 1,
            redelivered: 0,
            last_batch,
        };
        assert_eq!(busiest(&[]), None);
        let shares = [
            share("a", "0", 1),
            share("a", "1", 2),
            share("b", "0", 3),
            share("b", "2", 4),
        ];
        assert_eq!(
            busiest(&shares),
            Some(("b".into(), vec!["0".into(), "2".into()]))
        );
    }
}
