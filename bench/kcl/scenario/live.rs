//! Two workers while records come all the time: how long a record takes, and how long it takes when a worker stops or dies.

use super::{Kinesis, Stage};
use crate::Failure;
use crate::command::{Job, Mode, Retrieval, System};
use crate::records::{Event, WorkerRun};
use crate::table::Who;
use millstream_bench::clock::now_us;
use millstream_bench::load;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::task::JoinHandle;

const SHARDS: usize = 4;
const PER_SECOND: u32 = 200;
/// How long records are timed.
const TIMED: Duration = Duration::from_secs(15);
const LIMIT: Duration = Duration::from_mins(6);
const FAILOVER: Duration = Duration::from_secs(10);

pub(super) async fn measure(stage: &mut Stage) -> Result<(), Failure> {
    for who in stage.libraries() {
        let kinesis = Kinesis::start(&[format!("live:{SHARDS}")]).await?;
        let host = kinesis.host().to_owned();
        let putting = tokio::spawn(async move { load::trickle(&host, "live", PER_SECOND).await });
        let mut fleet = Fleet {
            who,
            kinesis: &kinesis,
            application: format!("live-{:?}-{}", who.0, who.1),
            workers: Vec::new(),
            started: 0,
        };
        if let Err(error) = fleet.measure(stage, &putting).await {
            stage
                .table
                .note("put to processor, p50, ms", who, format!("failed: {error}"));
        }
        putting.abort();
    }
    Ok(())
}

struct Fleet<'a> {
    who: Who,
    kinesis: &'a Kinesis,
    application: String,
    workers: Vec<WorkerRun>,
    started: usize,
}

impl Fleet<'_> {
    fn start(&mut self, stage: &Stage) -> Result<(), Failure> {
        self.started += 1;
        let (system, retrieval): (System, Retrieval) = self.who;
        let job = Job {
            system,
            kinesis: &self.kinesis.url,
            stream: "live",
            application: &self.application,
            worker: format!("w{}", self.started),
            failover: FAILOVER,
            retrieval,
            mode: Mode::Trace,
        };
        let worker = WorkerRun::start(&job, &stage.peers, &stage.directory)?;
        self.workers.push(worker);
        Ok(())
    }

    async fn measure(
        &mut self,
        stage: &mut Stage,
        putting: &JoinHandle<Result<(), std::io::Error>>,
    ) -> Result<(), Failure> {
        self.start(stage)?;
        self.start(stage)?;
        self.shared().await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.time_records(stage).await?;
        self.hand_over(stage).await?;
        let kills = match self.who.0 {
            System::Raw | System::Kcl => stage.compare.kills,
            System::Java | System::KclRs => stage.compare.peer_kills,
        };
        for _ in 0..kills {
            self.start(stage)?;
            self.shared().await?;
            self.kill(stage).await?;
            if putting.is_finished() {
                return Err("no more records are put".into());
            }
        }
        Ok(())
    }

    /// Who got the latest record of each shard, since `since_us`.
    fn holders(&self, since_us: u64) -> BTreeMap<String, (u64, usize)> {
        let mut holders: BTreeMap<String, (u64, usize)> = BTreeMap::new();
        for (index, worker) in self.workers.iter().enumerate() {
            worker.hear(|events| {
                for event in events.iter().rev() {
                    let Event::Record { shard, at_us, .. } = event else {
                        continue;
                    };
                    if *at_us < since_us {
                        break;
                    }
                    let holder = holders.entry(shard.clone()).or_insert((*at_us, index));
                    *holder = (*holder).max((*at_us, index));
                }
            });
        }
        holders
    }

    /// Waits until every shard is being read and each worker has half of them, for two seconds.
    async fn shared(&self) -> Result<(), Failure> {
        let deadline = tokio::time::Instant::now() + LIMIT;
        let mut since = None;
        loop {
            let holders = self.holders(now_us() - 1_000_000);
            let of = |index: usize| {
                holders
                    .values()
                    .filter(|(_, holder)| *holder == index)
                    .count()
            };
            let is_shared = (0..self.workers.len()).all(|index| of(index) == SHARDS / 2);
            since = match (since, is_shared) {
                (Some(since), true) => Some(since),
                (None, true) => Some(now_us()),
                (_, false) => None,
            };
            if since.is_some_and(|since| now_us() - since > 2_000_000) {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                return Err(format!("the shards are not shared after {LIMIT:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn time_records(&self, stage: &mut Stage) -> Result<(), Failure> {
        let from_us = now_us();
        tokio::time::sleep(TIMED).await;
        let mut took: Vec<u64> = Vec::new();
        for worker in &self.workers {
            worker.hear(|events| {
                took.extend(events.iter().filter_map(|event| match event {
                    Event::Record { put_us, at_us, .. } if *put_us > from_us => {
                        Some(at_us.saturating_sub(*put_us))
                    }
                    _ => None,
                }));
            });
        }
        if took.is_empty() {
            return Err("no record came".into());
        }
        took.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "a time")]
        let percentile = |part: usize| took[(took.len() - 1) * part / 100] as f64 / 1e3;
        stage
            .table
            .add("put to processor, p50, ms", self.who, percentile(50));
        stage
            .table
            .add("put to processor, p99, ms", self.who, percentile(99));
        Ok(())
    }

    /// One worker is asked to stop.
    async fn hand_over(&mut self, stage: &mut Stage) -> Result<(), Failure> {
        let asked_us = now_us();
        let mut stops = self.workers.remove(0);
        let shards: BTreeSet<String> = Fleet::shards_of(&stops, asked_us);
        let ending = stops.terminate(Duration::from_mins(1)).await;
        let took = self.gone_on(&shards, asked_us, &stops).await?;
        ending?;
        stage.table.add("hand-over, s", self.who, took);
        let again = self.came_again(&stops);
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        stage
            .table
            .add("hand-over, records twice", self.who, again as f64);
        Ok(())
    }

    async fn kill(&mut self, stage: &mut Stage) -> Result<(), Failure> {
        let victim = self.workers.remove(0);
        let killed_us = now_us();
        let shards = Fleet::shards_of(&victim, killed_us);
        let last = victim.hear(<[Event]>::len);
        victim.kill().await?;
        debug_assert!(last > 0, "it was at work");
        let took = self.first_elsewhere(&shards, killed_us).await?;
        stage.table.add(
            "kill -9 to first record elsewhere, 10 s setting, s",
            self.who,
            took,
        );
        Ok(())
    }

    fn shards_of(worker: &WorkerRun, before_us: u64) -> BTreeSet<String> {
        worker.hear(|events| {
            let recent = events.iter().rev().take_while(|event| match event {
                Event::Record { at_us, .. } => *at_us + 1_000_000 > before_us,
                Event::Shard { .. } | Event::Total { .. } => true,
            });
            let shards = recent.filter_map(|event| match event {
                Event::Record { shard, .. } => Some(shard.clone()),
                Event::Shard { .. } | Event::Total { .. } => None,
            });
            shards.collect()
        })
    }

    /// Seconds until the last of the shards goes on at another worker.
    async fn first_elsewhere(
        &mut self,
        shards: &BTreeSet<String>,
        since_us: u64,
    ) -> Result<f64, Failure> {
        let mut latest = since_us;
        for shard in shards {
            let first = |events: &[Event]| {
                events.iter().find_map(|event| match event {
                    Event::Record {
                        shard: of, at_us, ..
                    } if of == shard && *at_us > since_us => Some(*at_us),
                    _ => None,
                })
            };
            let survivor = &mut self.workers[0];
            latest = latest.max(
                survivor
                    .until("an orphaned shard goes on", LIMIT, first)
                    .await?,
            );
        }
        #[expect(clippy::cast_precision_loss, reason = "a time")]
        Ok((latest - since_us) as f64 / 1e6)
    }

    /// The same after a worker was asked to stop: from its last record of each shard.
    async fn gone_on(
        &mut self,
        shards: &BTreeSet<String>,
        asked_us: u64,
        stopped: &WorkerRun,
    ) -> Result<f64, Failure> {
        let mut longest = 0.0_f64;
        for shard in shards {
            let one = BTreeSet::from([shard.clone()]);
            let elsewhere = self.first_elsewhere(&one, asked_us).await?;
            let last_us = stopped.hear(|events| {
                let of_shard = events.iter().rev().find_map(|event| match event {
                    Event::Record {
                        shard: of, at_us, ..
                    } if of == shard => Some(*at_us),
                    _ => None,
                });
                of_shard.unwrap_or(asked_us)
            });
            #[expect(clippy::cast_precision_loss, reason = "a time")]
            let worked_on = last_us.saturating_sub(asked_us) as f64 / 1e6;
            longest = longest.max(elsewhere - worked_on);
        }
        Ok(longest)
    }

    /// Records of the stopped worker that another got again.
    fn came_again(&self, stopped: &WorkerRun) -> usize {
        let sequences = |events: &[Event]| -> BTreeSet<String> {
            let numbers = events.iter().filter_map(|event| match event {
                Event::Record { sequence, .. } => Some(sequence.clone()),
                _ => None,
            });
            numbers.collect()
        };
        let before = stopped.hear(sequences);
        let after: BTreeSet<String> = self
            .workers
            .iter()
            .flat_map(|w| w.hear(sequences))
            .collect();
        before.intersection(&after).count()
    }
}
