//! S5: a closed shard stays as it was when it was closed, whatever races with its closing.

use crate::SERVER;
use crate::reshard::{Resharder, reshards_hold};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use support::check::{Violation, extends, stream_is_whole};
use support::client::{RawClient, text};
use support::history::{ReadShard, Sequence};
use support::load::{Load, Shape};
use support::reader::{is_closed, read_shard, read_stream, shard_of};
use support::{ServerProcess, alone, scaled, seeded, wait_until};

const STREAM: &str = "sealed";

/// Reads the shards that were found closed for the first time.
async fn note_closed(client: &RawClient, noted: &mut BTreeMap<String, ReadShard>) {
    for listed in client.list_shards(STREAM).await.unwrap() {
        let mut shard = shard_of(&listed);
        if shard.closed && !noted.contains_key(&shard.shard) {
            shard.records = read_shard(client, STREAM, &shard.shard, true)
                .await
                .unwrap();
            noted.insert(shard.shard.clone(), shard);
        }
    }
}

/// No record lies beyond the number that a closed shard is said to end with.
pub(crate) fn ends_hold(listed: &[Value], shards: &[ReadShard]) -> Result<(), Violation> {
    for shard in listed.iter().filter(|shard| is_closed(shard)) {
        let id = text(shard, "ShardId");
        let end = Sequence::new(&text(&shard["SequenceNumberRange"], "EndingSequenceNumber"));
        let read = shards.iter().find(|read| read.shard == id);
        let last = read.and_then(|read| read.records.last());
        if let Some(last) = last.filter(|last| last.sequence > end) {
            return Err(format!("S5: {id} ends with {end} and holds {last:?}"));
        }
    }
    Ok(())
}

/// 12 writers race with splits and merges. Each shard is read as soon as it is closed; at the end, and after
/// a kill -9, it holds exactly that, and every acknowledged record is in the shard its answer named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_sealed_shards_stay_as_they_were() {
    let _alone = alone().await;
    let random = seeded("s5_sealed");
    let mut server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 2).await;
    let shape = Shape {
        writers: 12,
        pause: Duration::ZERO,
        batch: 5,
        padding_bytes: 0,
    };
    let load = Load::start(&client, STREAM, shape);
    let mut resharder = Resharder::new(&client, STREAM, random);
    let mut noted = BTreeMap::new();
    for _ in 0..scaled(30, 400) {
        let before = load.acked_count();
        wait_until("writers go on", Duration::from_secs(20), || async {
            (load.acked_count() >= before + 20).then_some(())
        })
        .await;
        resharder.step().await.unwrap();
        note_closed(&client, &mut noted).await;
    }
    let (acked, refusals) = load.stop().await;
    assert_eq!(refusals, [], "a reshard is nothing a writer sees");

    let noted: Vec<ReadShard> = noted.into_values().collect();
    let filled = noted
        .iter()
        .filter(|shard| !shard.records.is_empty())
        .count();
    assert!(filled >= 10, "only {filled} closed shards hold anything");
    for is_restarted in [false, true] {
        if is_restarted {
            server.kill9().await;
            server.restart().await;
        }
        let listed = client.list_shards(STREAM).await.unwrap();
        let whole = read_stream(&client, STREAM).await.unwrap();
        reshards_hold(resharder.acked(), &listed).unwrap();
        extends(&noted, &whole).unwrap();
        ends_hold(&listed, &whole).unwrap();
        stream_is_whole(&acked, &whole).unwrap();
    }
    println!(
        "sealed: {} acknowledged, {filled} closed shards with records",
        acked.len()
    );
}
