//! The loads: put one record, put 500 at once, read everything back.

use crate::client::Connection;
use bytes::Bytes;
use serde_json::{Value, json};
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// How long a reader waits whom a server was too busy for.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// What a closed loop did.
#[derive(Debug, Default)]
pub struct Outcome {
    pub records: u64,
    pub data_bytes: u64,
    pub latencies: Vec<Duration>,
    pub elapsed: Duration,
}

impl Outcome {
    fn merge(mut self, other: Outcome) -> Outcome {
        self.records += other.records;
        self.data_bytes += other.data_bytes;
        self.latencies.extend(other.latencies);
        self.elapsed = self.elapsed.max(other.elapsed);
        self
    }

    /// The latency below which `share` of the requests stayed.
    pub fn percentile(&mut self, share: f64) -> Duration {
        self.latencies.sort_unstable();
        let last = self.latencies.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into a list of requests"
        )]
        let index = (last as f64 * share).round() as usize;
        self.latencies.get(index).copied().unwrap_or_default()
    }
}

/// A body of `records` records of `bytes` incompressible bytes each, with keys that spread over shards.
fn put_body(stream: &str, records: usize, bytes: usize) -> Bytes {
    let record = || {
        let data: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
            .take(bytes)
            .collect();
        let data = base64_simd::STANDARD.encode_to_string(&data);
        json!({ "Data": data, "PartitionKey": format!("key-{:016x}", fastrand::u64(..)) })
    };
    let body = if records == 1 {
        let mut body = record();
        body["StreamName"] = json!(stream);
        body
    } else {
        let records: Vec<Value> = std::iter::repeat_with(record).take(records).collect();
        json!({ "StreamName": stream, "Records": records })
    };
    Bytes::from(body.to_string())
}

/// Puts from `connections` connections for `duration`, `records` at a time.
pub async fn put(
    host: &str,
    stream: &str,
    connections: usize,
    duration: Duration,
    (records, bytes): (usize, usize),
) -> io::Result<Outcome> {
    let operation = if records == 1 {
        "PutRecord"
    } else {
        "PutRecords"
    };
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let mut connection = Connection::open(host).await?;
        // A few bodies in turn: the server sees different keys, the client does not spend its time making them.
        let bodies: Vec<Bytes> = (0..8).map(|_| put_body(stream, records, bytes)).collect();
        tasks.spawn(async move {
            let mut outcome = Outcome::default();
            let began = Instant::now();
            for body in bodies.iter().cycle() {
                let sent = Instant::now();
                let answer = connection.call(operation, body.clone()).await?;
                outcome.latencies.push(sent.elapsed());
                if records > 1
                    && !answer
                        .windows(22)
                        .any(|part| part == b"\"FailedRecordCount\":0,")
                {
                    return Err(io::Error::other(
                        "some records were refused: use --limits off",
                    ));
                }
                outcome.records += u64::try_from(records).unwrap_or(u64::MAX);
                outcome.data_bytes += u64::try_from(records * bytes).unwrap_or(u64::MAX);
                if began.elapsed() >= duration {
                    break;
                }
            }
            outcome.elapsed = began.elapsed();
            Ok(outcome)
        });
    }
    join(tasks).await
}

/// Fills a stream with at least so many records, 500 at a time; gives how many there are.
pub async fn fill(host: &str, stream: &str, records: usize, bytes: usize) -> io::Result<u64> {
    const CONNECTIONS: usize = 4;
    const BATCH: usize = 500;
    let mut tasks = tokio::task::JoinSet::new();
    let batches = records.div_ceil(BATCH).div_ceil(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::open(host).await?;
        let bodies: Vec<Bytes> = (0..8).map(|_| put_body(stream, BATCH, bytes)).collect();
        tasks.spawn(async move {
            let mut outcome = Outcome::default();
            for body in bodies.iter().cycle().take(batches) {
                connection.call("PutRecords", body.clone()).await?;
                outcome.records += u64::try_from(BATCH).unwrap_or(u64::MAX);
            }
            Ok(outcome)
        });
    }
    Ok(join(tasks).await?.records)
}

/// Puts so many records a second, each beginning with the microseconds since 1970 when it was put, until it is dropped.
pub async fn trickle(host: &str, stream: &str, per_second: u32) -> io::Result<()> {
    let mut connection = Connection::open(host).await?;
    let mut due = tokio::time::interval(Duration::from_secs(1) / per_second);
    loop {
        due.tick().await;
        let data = format!("{:016} some payload", crate::clock::now_us());
        let body = json!({
            "StreamName": stream,
            "PartitionKey": format!("key-{:016x}", fastrand::u64(..)),
            "Data": base64_simd::STANDARD.encode_to_string(data),
        });
        connection
            .call("PutRecord", Bytes::from(body.to_string()))
            .await?;
    }
}

/// Reads every shard of the stream from its trim horizon to its tip, all shards at once.
pub async fn get(host: &str, stream: &str) -> io::Result<Outcome> {
    let mut connection = Connection::open(host).await?;
    let body = Bytes::from(json!({ "StreamName": stream }).to_string());
    let shards = parse(&connection.call("ListShards", body).await?)?;
    let mut tasks = tokio::task::JoinSet::new();
    for shard in shards["Shards"].as_array().into_iter().flatten() {
        let mut connection = Connection::open(host).await?;
        let start = json!({
            "StreamName": stream, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON",
        });
        tasks.spawn(async move {
            let began = Instant::now();
            let mut outcome = Outcome::default();
            let answer = connection
                .call("GetShardIterator", Bytes::from(start.to_string()))
                .await?;
            let mut iterator = parse(&answer)?["ShardIterator"].as_str().map(str::to_owned);
            while let Some(token) = iterator.take() {
                let sent = Instant::now();
                let body = Bytes::from(json!({ "ShardIterator": token }).to_string());
                let answer = match connection.call("GetRecords", body).await {
                    // So many large answers at once are more than it lets lie in memory.
                    Err(error) if error.to_string().contains("503") => {
                        tokio::time::sleep(BUSY_PAUSE).await;
                        iterator = Some(token);
                        continue;
                    }
                    answer => answer?,
                };
                outcome.latencies.push(sent.elapsed());
                let page: Page<'_> = serde_json::from_slice(&answer).map_err(io::Error::other)?;
                for record in &page.records {
                    outcome.records += 1;
                    let bytes = record.data.len() / 4 * 3;
                    outcome.data_bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
                }
                if page.millis_behind_latest > 0 || !page.records.is_empty() {
                    iterator = page.next_shard_iterator.map(str::to_owned);
                }
            }
            outcome.elapsed = began.elapsed();
            Ok(outcome)
        });
    }
    join(tasks).await
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page<'a> {
    #[serde(borrow)]
    records: Vec<PageRecord<'a>>,
    #[serde(borrow)]
    next_shard_iterator: Option<&'a str>,
    millis_behind_latest: u64,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PageRecord<'a> {
    data: &'a str,
}

fn parse(answer: &[u8]) -> io::Result<Value> {
    serde_json::from_slice(answer).map_err(io::Error::other)
}

async fn join(mut tasks: tokio::task::JoinSet<io::Result<Outcome>>) -> io::Result<Outcome> {
    let mut total = Outcome::default();
    while let Some(result) = tasks.join_next().await {
        total = total.merge(result.map_err(io::Error::other)??);
    }
    Ok(total)
}
