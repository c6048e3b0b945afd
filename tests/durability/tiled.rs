//! S4: open shards tile the hash key space, whenever anybody looks.

use crate::SERVER;
use crate::reshard::{Resharder, open_ranges, reshards_hold};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::check::tiles;
use support::client::RawClient;
use support::{ServerProcess, alone, scaled, seeded, wait_until};

const STREAM: &str = "tiled";

/// The shards of one single answer: two pages would be two instants.
async fn one_listing(client: &RawClient) -> Vec<Value> {
    let input = json!({"StreamName": STREAM, "MaxResults": 1000});
    let page = client.must("ListShards", input).await;
    assert!(
        page["NextToken"].is_null(),
        "more shards than one answer holds"
    );
    page["Shards"].as_array().cloned().unwrap_or_default()
}

/// Four pollers list the shards all the while: every single answer must tile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_tiled_at_every_answer() {
    let _alone = alone().await;
    let random = seeded("s4_tiled");
    let server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 3).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut pollers = Vec::new();
    for _ in 0..4 {
        let (client, stop) = (client.clone(), Arc::clone(&stop));
        pollers.push(tokio::spawn(async move {
            let mut pictures: BTreeSet<Vec<(u128, u128)>> = BTreeSet::new();
            let mut answers = 0;
            while !stop.load(Ordering::SeqCst) {
                let mut open = open_ranges(&one_listing(&client).await);
                tiles(&open).unwrap();
                open.sort_unstable();
                pictures.insert(open);
                answers += 1;
            }
            (answers, pictures.len())
        }));
    }
    let mut resharder = Resharder::new(&client, STREAM, random);
    for _ in 0..scaled(120, 500) {
        resharder.step().await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    let (mut answers, mut most) = (0, 0);
    for poller in pollers {
        let (seen, pictures) = poller.await.unwrap();
        answers += seen;
        most = most.max(pictures);
    }
    reshards_hold(resharder.acked(), &one_listing(&client).await).unwrap();
    assert!(most >= 20, "the pollers saw only {most} of the tilings");
    println!("tiled: {answers} answers, up to {most} tilings seen by one poller");
}

/// The same for a server that is killed amid a reshard: its first answer after the start tiles.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_tiled_after_a_kill_amid_reshards() {
    let _alone = alone().await;
    let mut random = seeded("s4_tiled_after_a_kill");
    let mut server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 2).await;
    let mut resharder = Resharder::new(&client, STREAM, random.fork());
    for _ in 0..scaled(6, 60) {
        let before = one_listing(&client).await.len();
        let resharding = tokio::spawn(resharder.until_unanswered(Duration::ZERO));
        wait_until("a reshard is seen", Duration::from_secs(20), || async {
            (one_listing(&client).await.len() > before).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_micros(random.u64(..5_000))).await;
        server.kill9().await;
        resharder = resharding.await.unwrap();
        server.restart().await;
        let listed = one_listing(&client).await;
        tiles(&open_ranges(&listed)).unwrap();
        reshards_hold(resharder.acked(), &listed).unwrap();
    }
}
