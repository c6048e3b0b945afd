//! kill -9 of workers at random moments.

use crate::scene::{STREAM, Scene};
use serde_json::json;
use std::time::Duration;
use support::check;
use support::client::text;
use support::history::{deliveries, outstanding, outstanding_at_losses};
use support::reader::{is_closed, range_of};

impl Scene {
    async fn open_shards(&self) -> Vec<serde_json::Value> {
        let shards = self.client.list_shards(STREAM).await.unwrap();
        let mut open: Vec<_> = shards
            .into_iter()
            .filter(|shard| !is_closed(shard))
            .collect();
        open.sort_by_key(range_of);
        open
    }

    /// However often it is called, no shard becomes so narrow that no key falls into it.
    pub(crate) async fn split_widest(&self) {
        let open = self.open_shards().await;
        let width = |shard: &&serde_json::Value| range_of(shard).1 - range_of(shard).0;
        let widest = open.iter().max_by_key(width).unwrap();
        let (start, end) = range_of(widest);
        let middle = (start + (end - start) / 2 + 1).to_string();
        let shard = text(widest, "ShardId");
        let input =
            json!({"StreamName": STREAM, "ShardToSplit": shard, "NewStartingHashKey": middle});
        self.client.must("SplitShard", input).await;
    }

    pub(crate) async fn merge_narrowest(&self) {
        let open = self.open_shards().await;
        let width = |pair: &&[serde_json::Value]| range_of(&pair[1]).1 - range_of(&pair[0]).0;
        let pair = open.windows(2).min_by_key(width).unwrap();
        let (left, right) = (text(&pair[0], "ShardId"), text(&pair[1], "ShardId"));
        let input =
            json!({"StreamName": STREAM, "ShardToMerge": left, "AdjacentShardToMerge": right});
        self.client.must("MergeShards", input).await;
    }
}

/// Three workers; twenty times one of them is killed and another takes its place, while a shard is split and two
/// are merged. Every record is delivered (K4), again only if it was outstanding at a kill (K5), in order and
/// after the parents' (K6), by one owner at a time (K2); the lease table only moves forward (K1, K3).
#[tokio::test(flavor = "multi_thread")]
async fn k4_k5_k6_twenty_kills_lose_no_record() {
    let _alone = support::alone().await;
    let mut random = support::seeded("k4_k5_k6");
    let mut scene = Scene::start(Duration::from_millis(60)).await;
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(scene.fleet.start().await);
    }
    let mut outstanding_at_kills = Vec::new();
    let kills = support::scaled(20, 200);
    for kill in 0..kills {
        tokio::time::sleep(Duration::from_millis(random.u64(300..1300))).await;
        if kill % 20 == 6 {
            scene.split_widest().await;
        } else if kill % 20 == 12 {
            scene.merge_narrowest().await;
        }
        let index = random.usize(..workers.len());
        let victim = &mut workers[index];
        assert!(
            victim.is_running(),
            "a worker ended by itself: {}",
            victim.log()
        );
        victim.kill9().await;
        outstanding_at_kills.push(outstanding(&victim.events(), victim.id()));
        let gone = workers.swap_remove(index);
        scene.fleet.retire(&gone);
        workers.push(scene.fleet.start().await);
    }
    let running: Vec<_> = workers.iter().collect();
    let (expected, parents, events) = scene.finish(&running).await;
    let counts = deliveries(&events);
    let again = counts.values().filter(|count| **count > 1).count();
    let open: usize = outstanding_at_kills
        .iter()
        .map(std::collections::BTreeSet::len)
        .sum();
    println!("{kills} kills with {open} records outstanding in all; {again} came again");
    check::all_delivered(&expected, &counts).unwrap();
    outstanding_at_kills.extend(outstanding_at_losses(&events));
    check::duplicates_bounded(&counts, &outstanding_at_kills).unwrap();
    check::order_kept(&events, &parents).unwrap();
    check::one_owner(&events).unwrap();
}
