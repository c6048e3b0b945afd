//! Loads a running Kinesis endpoint and prints what it did: put-record, put-records, get-records in turn,
//! each on a stream of its own.

use bytes::Bytes;
use clap::Parser;
use millstream_bench::{client, load};
use serde_json::json;
use std::io;
use std::time::Duration;

/// Measures a running endpoint, best started with `--limits off`.
#[derive(Debug, Parser)]
struct Arguments {
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

#[tokio::main]
async fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let duration = Duration::from_secs(arguments.seconds);
    for round in 1..=arguments.rounds {
        for (records, connections) in [(1, 1), (1, 16), (1, 64), (500, 1), (500, 4)] {
            let stream = create_stream(&arguments).await?;
            let size = (records, arguments.record_bytes);
            let puts = load::put(&arguments.endpoint, &stream, connections, duration, size).await?;
            print(
                round,
                &format!("put {records} x {connections} connections"),
                puts,
            );
            if (records, connections) == (500, 4) {
                print(
                    round,
                    "get, one reader per shard",
                    load::get(&arguments.endpoint, &stream).await?,
                );
            }
            call(&arguments, "DeleteStream", &json!({ "StreamName": stream })).await?;
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

async fn call(arguments: &Arguments, operation: &str, body: &serde_json::Value) -> io::Result<()> {
    let mut connection = client::Connection::open(&arguments.endpoint).await?;
    connection
        .call(operation, Bytes::from(body.to_string()))
        .await
        .map(drop)
}

#[expect(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "prints its measurements"
)]
fn print(round: u32, name: &str, mut outcome: load::Outcome) {
    let seconds = outcome.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    println!(
        "round {round}  {name:<28} {:>9.0} requests/s {:>9.0} records/s {:>7.1} MB/s  p50 {:>8.3} ms  p99 {:>8.3} ms",
        outcome.latencies.len() as f64 / seconds,
        outcome.records as f64 / seconds,
        outcome.data_bytes as f64 / seconds / 1e6,
        outcome.percentile(0.5).as_secs_f64() * 1e3,
        outcome.percentile(0.99).as_secs_f64() * 1e3,
    );
}
