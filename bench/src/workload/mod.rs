//! `load`: one load after the other on a running endpoint.

use crate::{Failure, client, load, report};
use bytes::Bytes;
use serde_json::{Value, json};
use std::io;
use std::time::Duration;

/// What to load, and how.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where the endpoint listens, without a scheme.
    #[arg(long, default_value = "127.0.0.1:4567")]
    endpoint: String,
    /// Seconds of each put load.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Bytes of one record.
    #[arg(long, default_value_t = 1024)]
    record_bytes: usize,
    /// Shards of the streams.
    #[arg(long, default_value_t = 4)]
    shards: u32,
    /// Rounds; the loads take turns.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

/// Runs the loads and prints what they did.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    Ok(runtime.block_on(rounds(arguments))?)
}

async fn rounds(arguments: &Arguments) -> io::Result<()> {
    let duration = Duration::from_secs(arguments.seconds);
    for round in 1..=arguments.rounds {
        for (records, connections) in [(1, 1), (1, 16), (1, 64), (500, 1), (500, 4)] {
            let stream = create_stream(arguments).await?;
            let size = (records, arguments.record_bytes);
            let puts = load::put(&arguments.endpoint, &stream, connections, duration, size).await?;
            print(
                round,
                &format!("put {records} x {connections} connections"),
                puts,
            );
            if (records, connections) == (500, 4) {
                let gets = load::get(&arguments.endpoint, &stream).await?;
                print(round, "get, one reader per shard", gets);
            }
            call(arguments, "DeleteStream", &json!({ "StreamName": stream })).await?;
        }
    }
    Ok(())
}

async fn create_stream(arguments: &Arguments) -> io::Result<String> {
    let stream = format!("bench-{:016x}", fastrand::u64(..));
    let body = json!({ "StreamName": stream, "ShardCount": arguments.shards });
    call(arguments, "CreateStream", &body).await?;
    Ok(stream)
}

async fn call(arguments: &Arguments, operation: &str, body: &Value) -> io::Result<()> {
    let mut connection = client::Connection::open(&arguments.endpoint).await?;
    let body = Bytes::from(body.to_string());
    connection.call(operation, body).await.map(drop)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn print(round: u32, name: &str, mut outcome: load::Outcome) {
    let seconds = outcome.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    report::say(&format!(
        "round {round}  {name:<28} {:>9.0} requests/s {:>9.0} records/s {:>7.1} MB/s  p50 {:>8.3} ms  p99 {:>8.3} ms",
        outcome.latencies.len() as f64 / seconds,
        outcome.records as f64 / seconds,
        outcome.data_bytes as f64 / seconds / 1e6,
        outcome.percentile(0.5).as_secs_f64() * 1e3,
        outcome.percentile(0.99).as_secs_f64() * 1e3,
    ));
}
