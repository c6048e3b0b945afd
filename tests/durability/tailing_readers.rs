//! S3: readers that follow the tip see every acknowledged record, in order, without a gap.

use crate::SERVER;
use crate::reshard::Resharder;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::check::{saw_all, stream_is_whole};
use support::client::{RawClient, text};
use support::history::{ReadRecord, Sequence};
use support::load::{Load, Shape};
use support::reader::{read_stream, records_of};
use support::{ServerProcess, alone, scaled, seeded, wait_until};
use tokio::task::JoinSet;

const STREAM: &str = "tailing";
/// How long one poll of the tip is from the next.
const POLL: Duration = Duration::from_millis(5);

/// What one tailing task saw of its shard, and the shards that continue it.
#[derive(Debug)]
struct Seen {
    shard: String,
    records: Vec<ReadRecord>,
    children: Vec<String>,
}

async fn iterator(client: &RawClient, shard: &str, kind: &str) -> String {
    let input = json!({"StreamName": STREAM, "ShardId": shard, "ShardIteratorType": kind});
    text(
        &client.must("GetShardIterator", input).await,
        "ShardIterator",
    )
}

/// Follows one shard to its end, or to the tip once `written` says that nothing more comes.
async fn tail(client: RawClient, shard: String, first: String, written: Arc<AtomicBool>) -> Seen {
    let (mut records, mut children) = (Vec::new(), Vec::new());
    let mut next = Some(first);
    while let Some(at) = next {
        let is_last = written.load(Ordering::SeqCst);
        let page = client
            .must("GetRecords", json!({"ShardIterator": at, "Limit": 100}))
            .await;
        let found = records_of(&page);
        let idle = found.is_empty();
        records.extend(found);
        next = page["NextShardIterator"].as_str().map(str::to_owned);
        let named = page["ChildShards"].as_array().into_iter().flatten();
        children.extend(named.map(|child| text(child, "ShardId")));
        if is_last && idle && page["MillisBehindLatest"] == 0 {
            break;
        }
        if idle {
            tokio::time::sleep(POLL).await;
        }
    }
    Seen {
        shard,
        records,
        children,
    }
}

/// Follows a whole stream from these iterators on, from parents to children.
async fn tail_stream(
    client: RawClient,
    first: Vec<(String, String)>,
    written: Arc<AtomicBool>,
) -> BTreeMap<String, Vec<ReadRecord>> {
    let mut followed: BTreeSet<String> = BTreeSet::new();
    let mut tails = JoinSet::new();
    for (shard, iterator) in first {
        followed.insert(shard.clone());
        tails.spawn(tail(client.clone(), shard, iterator, Arc::clone(&written)));
    }
    let mut seen = BTreeMap::new();
    while let Some(ended) = tails.join_next().await {
        let ended = ended.unwrap();
        for child in ended.children {
            // Both parents of a merge name the same child.
            if followed.insert(child.clone()) {
                let at = iterator(&client, &child, "TRIM_HORIZON").await;
                tails.spawn(tail(client.clone(), child, at, Arc::clone(&written)));
            }
        }
        seen.insert(ended.shard, ended.records);
    }
    seen
}

async fn iterators(client: &RawClient, kind: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for shard in client.list_shards(STREAM).await.unwrap() {
        let shard = text(&shard, "ShardId");
        let at = iterator(client, &shard, kind).await;
        found.push((shard, at));
    }
    found
}

/// Two readers from the trim horizon and two from the tip, all begun before the first record, follow 16
/// writers through splits and merges. What each saw of each shard is what the shard holds in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_tailing_readers_see_everything() {
    let _alone = alone().await;
    let random = seeded("s3_tailing_readers");
    let server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 2).await;
    let written = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for kind in ["TRIM_HORIZON", "LATEST", "TRIM_HORIZON", "LATEST"] {
        let first = iterators(&client, kind).await;
        readers.push(tokio::spawn(tail_stream(
            client.clone(),
            first,
            Arc::clone(&written),
        )));
    }
    let shape = Shape {
        writers: 16,
        pause: Duration::from_millis(2),
        batch: 7,
        padding_bytes: 0,
    };
    let load = Load::start(&client, STREAM, shape);
    let mut resharder = Resharder::new(&client, STREAM, random);
    let goal = scaled(4_000, 200_000);
    for part in 1..=4 {
        wait_until("enough is acknowledged", Duration::from_mins(2), || async {
            (load.acked_count() >= goal * part / 4).then_some(())
        })
        .await;
        resharder.step().await.unwrap();
    }
    let (acked, refusals) = load.stop().await;
    written.store(true, Ordering::SeqCst);
    assert_eq!(refusals, []);

    let whole = read_stream(&client, STREAM).await.unwrap();
    stream_is_whole(&acked, &whole).unwrap();
    for reader in readers {
        let seen = tokio::time::timeout(Duration::from_mins(1), reader)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(seen.len(), whole.len(), "a tailing reader missed a shard");
        for shard in &whole {
            saw_all(&shard.records, &seen[&shard.shard]).unwrap();
        }
    }
    println!(
        "tailing: {} records acknowledged, {} shards",
        acked.len(),
        whole.len()
    );
}

/// A reader that asks for LATEST amid a load sees the rest of the shard from there on: everything that was
/// put after it asked, and nothing left out in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_a_reader_from_the_tip_misses_nothing_after_it() {
    let _alone = alone().await;
    let server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 1).await;
    let shape = Shape {
        writers: 8,
        pause: Duration::from_millis(1),
        batch: 3,
        padding_bytes: 0,
    };
    let load = Load::start(&client, STREAM, shape);
    let written = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for n in 0..scaled(10, 200) {
        wait_until("writers go on", Duration::from_secs(30), || async {
            (load.acked_count() > n * 40).then_some(())
        })
        .await;
        let first = iterators(&client, "LATEST").await;
        let marker = format!("marker-{n}");
        let payload = format!("{marker}:1");
        let (_, sequence) = client
            .put(STREAM, &marker, payload.as_bytes())
            .await
            .unwrap();
        let reader = tail_stream(client.clone(), first, Arc::clone(&written));
        readers.push((Sequence::new(&sequence), tokio::spawn(reader)));
    }
    load.stop().await;
    written.store(true, Ordering::SeqCst);
    let whole = read_stream(&client, STREAM).await.unwrap();
    let whole = &whole[0].records;
    for (marker, reader) in readers {
        let seen = tokio::time::timeout(Duration::from_mins(1), reader)
            .await
            .unwrap()
            .unwrap();
        let seen: &Vec<ReadRecord> = seen.values().next().unwrap();
        let from = whole
            .len()
            .checked_sub(seen.len())
            .expect("no more than there is");
        saw_all(&whole[from..], seen).unwrap();
        let has_marker = seen.iter().any(|record| record.sequence == marker);
        assert!(
            has_marker,
            "S3: put {marker} after asking for LATEST, and did not see it"
        );
    }
}

/// What a page says about the tip is not said too early: once a reader is told that it is 0 ms behind,
/// everything acknowledged before it asked was in its hands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_at_the_tip_means_everything_was_read() {
    let _alone = alone().await;
    let server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 1).await;
    let shape = Shape {
        writers: 8,
        pause: Duration::from_millis(1),
        batch: 3,
        padding_bytes: 0,
    };
    let load = Load::start(&client, STREAM, shape);
    let mut seen: BTreeSet<Sequence> = BTreeSet::new();
    let (_, mut at) = iterators(&client, "TRIM_HORIZON").await.remove(0);
    let (mut told, mut checked) = (0, 0);
    while told < scaled(50, 2_000) {
        let before = load.acked_count();
        let page: Value = client
            .must("GetRecords", json!({"ShardIterator": at}))
            .await;
        seen.extend(records_of(&page).into_iter().map(|record| record.sequence));
        at = text(&page, "NextShardIterator");
        if page["MillisBehindLatest"] == 0 {
            // Only what was acknowledged since says anything.
            told += usize::from(before > checked);
            for ack in &load.acked_since(checked)[..before - checked] {
                assert!(seen.contains(&ack.sequence), "S3: {ack:?} was passed by");
            }
            checked = before;
        }
    }
    load.stop().await;
}
