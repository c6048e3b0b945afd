//! `load`: one kind of load on a running endpoint, in rounds.

mod book;
mod check;
mod get;
mod latency;
mod put;

pub use book::Verdict;
pub use check::{Check, Verdicts};
pub use get::{Gets, Reading};
pub use latency::{Propagation, Retrieval};
pub use put::{Puts, fill};

use crate::client::{Auth, Encoding, Endpoint, Http};
use crate::measure::{Recorder, Round, Spread, Window, watch};
use crate::{Failure, report, runtime, stream};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::io;
use std::num::NonZeroUsize;
use std::time::Duration;
use tokio::time::timeout_at;

/// How long requests may take that are under way when a load ends.
const GRACE: Duration = Duration::from_secs(30);
/// How long `check` may read after its writers should have ended.
const CHECK_GRACE: Duration = Duration::from_mins(3);
/// How long `check` looks for what is missing.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is done to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// PutRecord, one request in flight on each connection.
    PutRecord,
    /// PutRecords.
    PutRecords,
    /// `GetRecords`, from the trim horizon to the tip of a stream that was filled, again and again.
    GetRecords,
    /// From put to subscribers or pollers.
    Latency,
    /// Writers and tailing readers, then a second reading; fails if a record is missing, repeated, out of order or damaged.
    Check,
}

/// What to load, and how.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
pub struct Arguments {
    /// What is done.
    #[arg(value_enum)]
    pub workload: Workload,
    /// Where the endpoint listens.
    #[arg(long, default_value = "http://127.0.0.1:4567")]
    pub endpoint: String,
    /// Connections, each with one request in flight; of `latency`, the producer's.
    #[arg(long, default_value = "16")]
    pub connections: NonZeroUsize,
    /// Seconds of a round.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=200))]
    pub seconds: u64,
    /// Seconds of the same load before each round, which do not count.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(..=60))]
    pub warm_up: u64,
    /// Rounds.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Bytes of a record's data.
    #[arg(long, default_value_t = 1024)]
    pub record_bytes: usize,
    /// Records of one PutRecords.
    #[arg(long, default_value = "500")]
    pub batch: NonZeroUsize,
    /// Shards of the stream that is made for a round and deleted after it.
    #[arg(long, default_value_t = 4)]
    pub shards: u32,
    /// A stream that exists, instead.
    #[arg(long)]
    pub stream: Option<String>,
    /// HTTP/1.1 or HTTP/2.
    #[arg(long, value_enum, default_value = "1")]
    pub http: Http,
    /// How bodies are encoded.
    #[arg(long, value_enum, default_value = "json")]
    pub encoding: Encoding,
    /// What requests are authorized with.
    #[arg(long, value_enum, default_value = "fixed")]
    pub auth: Auth,
    /// Requests a second, all connections together, whatever is answered: an open loop, and latencies count from when a request was
    /// due. Without it, each connection sends the next request when the last is answered. `latency`: 1000.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Records put before `get-records`, if no stream is given.
    #[arg(long, default_value_t = 40_000)]
    pub fill: usize,
    /// `get-records` reads answers in full and checks their order, instead of counting their records.
    #[arg(long)]
    pub verify: bool,
    /// How `latency` receives.
    #[arg(long, value_enum, default_value = "subscribe")]
    pub retrieval: Retrieval,
    /// Who each receive all records of `latency`.
    #[arg(long, default_value_t = 1)]
    pub subscribers: usize,
    /// Milliseconds between two polls of a shard.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub poll_ms: u64,
    /// Threads of the load; one disturbs a server on the same machine least.
    #[arg(long, default_value = "1")]
    pub threads: NonZeroUsize,
    /// The server's process: its processor time and memory are reported, too.
    #[arg(long)]
    pub server_pid: Option<u32>,
    /// Prints one JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// What a load came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// What was asked for.
    pub settings: Arguments,
    /// Of each round.
    pub rounds: Vec<Round>,
}

/// Runs the load and prints what it came to.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = runtime(arguments.threads)?;
    if arguments.workload == Workload::Check {
        return runtime.block_on(check_rounds(arguments));
    }
    let mut rounds = Vec::new();
    for round in 1..=arguments.rounds {
        let measured = runtime.block_on(measure(arguments))?;
        if !arguments.json {
            report::say(&line(&format!("round {round}"), &measured));
        }
        rounds.push(measured);
    }
    if arguments.json {
        let settings = arguments.clone();
        let outcome = Outcome { settings, rounds };
        report::say(&serde_json::to_string(&outcome)?);
    } else if rounds.len() > 1 {
        let spread = |figure: fn(&Round) -> f64| Spread::over(&rounds, figure);
        let figures = [
            ("requests/s", spread(|round| round.requests_per_s)),
            ("MB/s", spread(|round| round.mb_per_s)),
            ("p50 us", spread(|round| round.latency.p50_us)),
            ("p99 us", spread(|round| round.latency.p99_us)),
        ];
        for (name, spread) in figures {
            if let Some(Spread { median, min, max }) = spread {
                report::say(&format!("{name}: {median:.1} ({min:.1}-{max:.1})"));
            }
        }
    }
    Ok(())
}

fn line(name: &str, round: &Round) -> String {
    let latency = &round.latency;
    let mut line = format!(
        "{name}: {:.0} requests/s, {:.0} records/s, {:.1} MB/s, p50 {:.0} us, p99 {:.0} us, most {:.0} us, client {:.1} us/request",
        round.requests_per_s,
        round.records_per_s,
        round.mb_per_s,
        latency.p50_us,
        latency.p99_us,
        latency.max_us,
        round.client_cpu_us,
    );
    if let Some(server) = &round.server {
        let more = format!(
            ", server {:.1} us/request, {:.0} MiB, at most {:.0} MiB",
            server.cpu_us, server.resident_mib, server.peak_mib
        );
        line.push_str(&more);
    }
    line
}

impl Arguments {
    /// Where the requests go.
    pub fn endpoint(&self) -> Result<Endpoint, Failure> {
        let endpoint = Endpoint::parse(&self.endpoint)?;
        Ok(Endpoint {
            http: self.http,
            encoding: self.encoding,
            auth: self.auth,
            ..endpoint
        })
    }

    fn window(&self) -> Window {
        let warm_up = Duration::from_secs(self.warm_up);
        Window::after(warm_up, Duration::from_secs(self.seconds))
    }

    async fn stream(&self, endpoint: &Endpoint) -> io::Result<String> {
        match &self.stream {
            Some(stream) => Ok(stream.clone()),
            None => stream::create(endpoint, self.shards).await,
        }
    }

    async fn done_with(&self, endpoint: &Endpoint, stream: &str) -> io::Result<()> {
        match &self.stream {
            Some(_) => Ok(()),
            None => stream::delete(endpoint, stream).await,
        }
    }
}

/// One round.
async fn measure(arguments: &Arguments) -> Result<Round, Failure> {
    let endpoint = arguments.endpoint()?;
    let stream = arguments.stream(&endpoint).await?;
    if arguments.workload == Workload::GetRecords && arguments.stream.is_none() {
        let json = Endpoint {
            encoding: Encoding::Json,
            ..endpoint.clone()
        };
        fill(&json, &stream, arguments.fill, arguments.record_bytes).await?;
    }
    let recorder = Recorder::new(arguments.window())?;
    let window = recorder.window();
    let load = async {
        let load = load(arguments, &endpoint, stream.clone(), &recorder);
        let limit = window.ends + GRACE;
        let ended = timeout_at(limit, load).await;
        ended.map_err(|_| io::Error::other(format!("a request took more than {GRACE:?}")))?
    };
    let ((), used) = tokio::try_join!(load, watch(window, arguments.server_pid))?;
    arguments.done_with(&endpoint, &stream).await?;
    Ok(recorder.round(used))
}

async fn load(
    arguments: &Arguments,
    endpoint: &Endpoint,
    stream: String,
    recorder: &Recorder,
) -> io::Result<()> {
    let connections = arguments.connections.get();
    let record_bytes = arguments.record_bytes;
    let puts = |records| Puts {
        stream: stream.clone(),
        connections,
        records,
        record_bytes,
        rate: arguments.rate,
    };
    match arguments.workload {
        Workload::PutRecord => puts(1).run(endpoint, recorder).await,
        Workload::PutRecords => puts(arguments.batch.get()).run(endpoint, recorder).await,
        Workload::GetRecords => {
            let gets = Gets {
                stream,
                connections,
                record_bytes,
                reading: if arguments.verify {
                    Reading::Verified
                } else {
                    Reading::Counted
                },
            };
            gets.run(endpoint, recorder).await
        }
        Workload::Latency => {
            let propagation = Propagation {
                per_connection: 1,
                stream,
                connections,
                record_bytes,
                rate: arguments.rate.unwrap_or(1000.0),
                retrieval: arguments.retrieval,
                subscribers: arguments.subscribers,
                poll_every: Duration::from_millis(arguments.poll_ms),
            };
            propagation.run(endpoint, recorder).await
        }
        Workload::Check => unreachable!("a check is no measurement"),
    }
}

async fn check_rounds(arguments: &Arguments) -> Result<(), Failure> {
    let endpoint = arguments.endpoint()?;
    for _ in 0..arguments.rounds {
        let stream = arguments.stream(&endpoint).await?;
        let check = Check {
            stream: stream.clone(),
            connections: arguments.connections.get(),
            record_bytes: arguments.record_bytes.max(8),
            rate: arguments.rate,
            patience: PATIENCE,
        };
        let window = arguments.window();
        let verdicts = timeout_at(window.ends + CHECK_GRACE, check.run(&endpoint, window)).await;
        let verdicts = verdicts.map_err(|_| {
            format!("the check has not ended {CHECK_GRACE:?} after its writers should have: the server hangs")
        })??;
        report::say(&serde_json::to_string(&verdicts)?);
        arguments.done_with(&endpoint, &stream).await?;
        if !verdicts.is_sound() {
            return Err(
                "records are missing, repeated, out of order or damaged, or none was acknowledged"
                    .into(),
            );
        }
    }
    Ok(())
}
