//! A stream of a measurement's own: made, described, deleted.

use crate::client::Endpoint;
use serde_json::{Value, json};
use std::io;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a stream may take to become active, or to be gone.
const SETTLES_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Creates a stream of so many shards and waits until it is active; its name.
pub async fn create(endpoint: &Endpoint, shards: u32) -> io::Result<String> {
    let stream = format!("bench-{:016x}", fastrand::u64(..));
    let body = json!({ "StreamName": stream, "ShardCount": shards });
    endpoint.control("CreateStream", &body).await?;
    let deadline = Instant::now() + SETTLES_WITHIN;
    loop {
        let summary = describe(endpoint, &stream).await?;
        if summary["StreamStatus"] == "ACTIVE" {
            return Ok(stream);
        }
        if Instant::now() > deadline {
            let message =
                format!("stream {stream} is not active within {SETTLES_WITHIN:?}: {summary}");
            return Err(io::Error::other(message));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// What `DescribeStreamSummary` says.
pub async fn describe(endpoint: &Endpoint, stream: &str) -> io::Result<Value> {
    let body = json!({ "StreamName": stream });
    let mut answer = endpoint.control("DescribeStreamSummary", &body).await?;
    Ok(answer["StreamDescriptionSummary"].take())
}

/// Deletes a stream.
pub async fn delete(endpoint: &Endpoint, stream: &str) -> io::Result<()> {
    let body = json!({ "StreamName": stream, "EnforceConsumerDeletion": true });
    endpoint.control("DeleteStream", &body).await.map(drop)
}

/// The ids of a stream's shards.
pub async fn shards(endpoint: &Endpoint, stream: &str) -> io::Result<Vec<String>> {
    let (mut shards, mut next) = (Vec::new(), Value::Null);
    loop {
        let body = match next.take() {
            Value::Null => json!({ "StreamName": stream }),
            token => json!({ "NextToken": token }),
        };
        let mut answer = endpoint.control("ListShards", &body).await?;
        let page = answer["Shards"].as_array().into_iter().flatten();
        shards.extend(page.filter_map(|shard| shard["ShardId"].as_str().map(str::to_owned)));
        next = answer["NextToken"].take();
        if next.is_null() {
            break;
        }
    }
    if shards.is_empty() {
        return Err(io::Error::other(format!("stream {stream} has no shards")));
    }
    Ok(shards)
}

/// An iterator of a shard at `kind`, `TRIM_HORIZON` or `LATEST`.
pub async fn iterator(
    endpoint: &Endpoint,
    stream: &str,
    shard: &str,
    kind: &str,
) -> io::Result<String> {
    let body = json!({ "StreamName": stream, "ShardId": shard, "ShardIteratorType": kind });
    let answer = endpoint.control("GetShardIterator", &body).await?;
    let iterator = answer["ShardIterator"].as_str();
    let iterator = iterator.ok_or_else(|| io::Error::other("GetShardIterator gave no iterator"))?;
    Ok(iterator.to_owned())
}
