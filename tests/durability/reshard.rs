//! Random splits and merges through the API, and S4 and S5 while they happen.

use crate::{SERVER, SIXTEEN, STREAM};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use support::client::{CallError, text};
use support::load::Load;
use support::reader::{is_closed, range_of, read_stream};
use support::{RawClient, ServerProcess, check};

/// Reshards that keep the number of open shards between two and eight.
#[derive(Debug)]
pub(crate) struct Resharder {
    pub(crate) client: RawClient,
    pub(crate) random: fastrand::Rng,
}

impl Resharder {
    /// Splits a random open shard or merges a random pair; the shards that an acknowledged change closed.
    pub(crate) async fn step(&mut self) -> Result<Vec<String>, CallError> {
        let mut open = open_shards(&self.client.list_shards(STREAM).await?);
        open.sort_by_key(range_of);
        let split = match open.len() {
            ..=2 => true,
            8.. => false,
            _ => self.random.bool(),
        };
        if split {
            let shard = &open[self.random.usize(..open.len())];
            let (start, end) = range_of(shard);
            let id = text(shard, "ShardId");
            let input = json!({
                "StreamName": STREAM, "ShardToSplit": id,
                "NewStartingHashKey": (start + (end - start) / 2 + 1).to_string(),
            });
            self.client.call("SplitShard", &input).await?;
            return Ok(vec![id]);
        }
        let left = self.random.usize(..open.len() - 1);
        let pair = [
            text(&open[left], "ShardId"),
            text(&open[left + 1], "ShardId"),
        ];
        let input = json!({
            "StreamName": STREAM, "ShardToMerge": pair[0], "AdjacentShardToMerge": pair[1],
        });
        self.client.call("MergeShards", &input).await?;
        Ok(pair.into())
    }
}

pub(crate) fn open_shards(shards: &[Value]) -> Vec<Value> {
    shards
        .iter()
        .filter(|shard| !is_closed(shard))
        .cloned()
        .collect()
}

/// S1 for metadata: every shard that an acknowledged reshard closed is closed.
pub(crate) async fn assert_closed(client: &RawClient, closed: &BTreeSet<String>) {
    let shards = client.list_shards(STREAM).await.unwrap();
    for id in closed {
        let listed = shards.iter().find(|shard| text(shard, "ShardId") == *id);
        let listed = listed.unwrap_or_else(|| panic!("S1: {id} is not listed"));
        assert!(
            is_closed(listed),
            "S1: {id} was closed by an acknowledged reshard: {listed}"
        );
    }
}

pub(crate) async fn assert_tiled(client: &RawClient) {
    let open = open_shards(&client.list_shards(STREAM).await.unwrap());
    let ranges: Vec<(u128, u128)> = open.iter().map(range_of).collect();
    check::tiles(&ranges).unwrap();
}

/// Sixteen writers put while shards are split and merged as fast as it goes and others list them. At every
/// instant the open shards tile the hash keys (S4); what was put into a shard is in it before its end, and a
/// closed shard never grows (S5).
#[tokio::test(flavor = "multi_thread")]
async fn s4_s5_open_shards_tile_and_closed_ones_never_grow() {
    let _alone = support::alone().await;
    let server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 4).await;
    let load = Load::start(&client, STREAM, SIXTEEN);
    let watcher = tokio::spawn({
        let client = client.clone();
        async move {
            let mut looks = 0usize;
            loop {
                assert_tiled(&client).await;
                looks += 1;
                if looks.is_multiple_of(10) {
                    tokio::task::yield_now().await;
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
    });
    let mut resharder = Resharder {
        client: client.clone(),
        random: support::seeded("s4_s5"),
    };
    let mut closed = BTreeSet::new();
    let mut before = Vec::new();
    for step in 0..support::scaled(40, 400) {
        closed.extend(resharder.step().await.unwrap());
        assert!(
            !watcher.is_finished(),
            "S4: the watcher saw a gap or an overlap, see above"
        );
        if step % 10 == 9 {
            let now = read_stream(&client, STREAM).await.unwrap();
            check::extends(&before, &now).unwrap();
            before = now;
        }
    }
    let (acked, refusals) = load.stop().await;
    assert!(
        !watcher.is_finished(),
        "S4: the watcher saw a gap or an overlap, see above"
    );
    watcher.abort();
    assert_eq!(
        refusals,
        [],
        "a put that meets a reshard goes to the children"
    );
    assert_closed(&client, &closed).await;
    let whole = read_stream(&client, STREAM).await.unwrap();
    check::extends(&before, &whole).unwrap();
    check::stream_is_whole(&acked, &whole).unwrap();
    let into_closed = acked
        .iter()
        .filter(|ack| closed.contains(&ack.shard))
        .count();
    println!(
        "{} reshards, {} records, {into_closed} into shards closed later",
        closed.len(),
        acked.len()
    );
    assert!(
        into_closed > 100,
        "the closed shards were written to: {into_closed}"
    );
}
