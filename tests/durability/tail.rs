//! Readers that follow the tip of shards while they are written and resharded.

use crate::reshard::Resharder;
use crate::{SERVER, SIXTEEN, STREAM};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::client::text;
use support::history::{ReadRecord, ReadShard};
use support::load::Load;
use support::reader::{read_stream, records_of};
use support::{RawClient, ServerProcess, check};

/// Follows one shard from its first record: until its end if it is closed, else until `written` is set and
/// the tip is reached. The records, and the children to follow then.
async fn follow(
    client: RawClient,
    shard: String,
    written: Arc<AtomicBool>,
) -> (String, Vec<ReadRecord>, Vec<String>) {
    let mut iterator = client.trim_horizon(STREAM, &shard).await.unwrap();
    let mut seen = Vec::new();
    loop {
        let all_written = written.load(Ordering::SeqCst);
        let page = client
            .must(
                "GetRecords",
                json!({"ShardIterator": iterator, "Limit": 100}),
            )
            .await;
        let records = records_of(&page);
        let at_tip = records.is_empty() && page["MillisBehindLatest"] == 0;
        seen.extend(records);
        let Some(next) = page["NextShardIterator"].as_str() else {
            let children = page["ChildShards"].as_array().cloned().unwrap_or_default();
            let children = children
                .iter()
                .map(|child| text(child, "ShardId"))
                .collect();
            return (shard, seen, children);
        };
        if at_tip && all_written {
            return (shard, seen, Vec::new());
        }
        next.clone_into(&mut iterator);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Readers poll every shard at its tip as fast as they can, in small pages, while sixteen writers put and
/// shards are split and merged. What each saw is what the shard holds in the end, record by record: none
/// passed, none twice, none out of order (S3).
#[tokio::test(flavor = "multi_thread")]
async fn s3_tailing_readers_see_every_record_in_order() {
    let _alone = support::alone().await;
    let server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 4).await;
    let written = Arc::new(AtomicBool::new(false));
    let mut readers = tokio::task::JoinSet::new();
    let mut followed: Vec<String> = (0..4).map(|n| format!("shardId-{n:012}")).collect();
    for shard in &followed {
        readers.spawn(follow(client.clone(), shard.clone(), Arc::clone(&written)));
    }
    let load = Load::start(&client, STREAM, SIXTEEN);
    let changes = tokio::spawn({
        let mut resharder = Resharder {
            client: client.clone(),
            random: support::seeded("s3"),
        };
        async move {
            for _ in 0..support::scaled(8, 80) {
                tokio::time::sleep(Duration::from_millis(500)).await;
                resharder.step().await.unwrap();
            }
        }
    });
    let writing = tokio::spawn({
        let written = Arc::clone(&written);
        async move {
            changes.await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            let acked = load.stop().await;
            written.store(true, Ordering::SeqCst);
            acked
        }
    });
    let mut seen: Vec<(String, Vec<ReadRecord>)> = Vec::new();
    while let Some(done) = readers.join_next().await {
        let (shard, records, children) = done.unwrap();
        seen.push((shard, records));
        for child in children {
            // A merged shard is the child of two.
            if !followed.contains(&child) {
                readers.spawn(follow(client.clone(), child.clone(), Arc::clone(&written)));
                followed.push(child);
            }
        }
    }
    let (acked, refusals) = writing.await.unwrap();
    assert_eq!(refusals, []);
    let whole = read_stream(&client, STREAM).await.unwrap();
    check::stream_is_whole(&acked, &whole).unwrap();
    for ReadShard { shard, records, .. } in &whole {
        let (_, tailed) = seen
            .iter()
            .find(|(of, _)| of == shard)
            .expect("every shard was followed");
        check::saw_all(records, tailed).unwrap();
    }
    println!("{} shards, {} records", whole.len(), acked.len());
    assert!(whole.len() > 10 && acked.len() > 1000);
}
