//! Loads in one call, for comparisons of what reads: fill a stream, trickle into it, read it back.

use crate::body::{self, Entry};
use crate::client::{Encoding, Endpoint};
use crate::pace::Pacer;
use crate::{clock, page, stream, workload};
use std::io;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// How long a reader waits whom a server was too busy for.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// What was read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    /// Records.
    pub records: u64,
    /// Until the last shard was at its tip.
    pub elapsed: Duration,
}

fn endpoint(host: &str) -> io::Result<Endpoint> {
    Endpoint::parse(host).map_err(io::Error::other)
}

/// Fills a stream with at least so many records, 500 at a time; gives how many there are.
pub async fn fill(host: &str, stream: &str, records: usize, bytes: usize) -> io::Result<u64> {
    workload::fill(&endpoint(host)?, stream, records, bytes).await
}

/// Puts so many records a second, each beginning with the microseconds since 1970 when it was put, until it is dropped.
pub async fn trickle(host: &str, stream: &str, per_second: u32) -> io::Result<()> {
    let endpoint = endpoint(host)?;
    let mut connection = endpoint.connect().await?;
    let mut pacer = Pacer::in_turn(per_second.into(), 0, 1)?;
    loop {
        pacer.due().await?;
        let entry = Entry {
            key: body::random_key(),
            data: format!("{:016} some payload", clock::now_us()).into_bytes(),
        };
        let body = body::put(Encoding::Json, stream, &[entry]);
        let request = endpoint.request("PutRecord", body)?;
        connection.send(&request).await?.success("PutRecord")?;
    }
}

/// Reads every shard of the stream from its trim horizon to its tip, all shards at once, each record in full.
pub async fn get(host: &str, stream: &str) -> io::Result<Outcome> {
    let endpoint = endpoint(host)?;
    let mut tasks = JoinSet::new();
    for shard in stream::shards(&endpoint, stream).await? {
        let iterator = stream::iterator(&endpoint, stream, &shard, "TRIM_HORIZON").await?;
        tasks.spawn(drain(endpoint.clone(), iterator));
    }
    let mut total = Outcome::default();
    while let Some(ended) = tasks.join_next().await {
        let one = ended.map_err(io::Error::other)??;
        total.records += one.records;
        total.elapsed = total.elapsed.max(one.elapsed);
    }
    Ok(total)
}

async fn drain(endpoint: Endpoint, iterator: String) -> io::Result<Outcome> {
    let mut connection = endpoint.connect().await?;
    let began = Instant::now();
    let mut outcome = Outcome::default();
    let mut iterator = Some(iterator);
    while let Some(token) = iterator.take() {
        let body = body::get_records(endpoint.encoding, &token);
        let request = endpoint.request("GetRecords", body)?;
        let answer = connection.send(&request).await?;
        // So many large answers at once are more than it lets lie in memory.
        if answer.is_busy() {
            sleep(BUSY_PAUSE).await;
            iterator = Some(token);
            continue;
        }
        let page: page::Glance<'_> =
            page::decode(answer.success("GetRecords")?, endpoint.encoding)?;
        outcome.records += u64::try_from(page.records.len()).unwrap_or(u64::MAX);
        if page.millis_behind_latest.unwrap_or(0) > 0 || !page.records.is_empty() {
            iterator = page.next_shard_iterator.map(str::to_owned);
        }
    }
    outcome.elapsed = began.elapsed();
    Ok(outcome)
}
