//! kill -9 of the server under load, again and again, on one directory.

use crate::reshard::{Resharder, assert_closed, assert_tiled};
use crate::{SERVER, SIXTEEN, STREAM};
use std::collections::BTreeSet;
use std::time::Duration;
use support::load::Load;
use support::reader::read_stream;
use support::{ServerProcess, check};

/// Sixteen writers put and a resharder splits and merges while the server is killed at random moments. After
/// each restart the whole stream is read: every record acknowledged before the kill is there once, under
/// its number (S1); numbers rise and none is used twice (S2); each writer's order is kept; what was read before is
/// still there, in its place; an acknowledged split or merge is still in force.
#[tokio::test(flavor = "multi_thread")]
async fn s1_s2_acknowledged_records_survive_kill_9() {
    let _alone = support::alone().await;
    let mut random = support::seeded("s1_s2");
    let mut server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 4).await;
    let load = Load::start(&client, STREAM, SIXTEEN);
    let mut resharder = Resharder {
        client: client.clone(),
        random: random.fork(),
    };
    let mut closed = BTreeSet::new();
    let mut before = Vec::new();
    for cycle in 0..support::scaled(25, 250) {
        let acked_before = load.acked_count();
        tokio::time::sleep(Duration::from_millis(random.u64(150..450))).await;
        // Reshards go on until the kill, every other time; the last may or may not have happened.
        if cycle % 2 == 0 {
            let kill_after = Duration::from_millis(random.u64(5..60));
            let resharding = async {
                while let Ok(shards) = resharder.step().await {
                    closed.extend(shards);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let kill = async {
                tokio::time::sleep(kill_after).await;
                server.kill9().await;
            };
            tokio::join!(resharding, kill);
        } else {
            server.kill9().await;
        }
        let acked = load.acked();
        assert!(acked.len() > acked_before, "cycle {cycle} was under load");
        server.restart().await;
        let now = read_stream(&client, STREAM).await.unwrap();
        check::extends(&before, &now).unwrap_or_else(|what| panic!("cycle {cycle}: {what}"));
        check::stream_is_whole(&acked, &now).unwrap_or_else(|what| panic!("cycle {cycle}: {what}"));
        assert_closed(&client, &closed).await;
        assert_tiled(&client).await;
        before = now;
    }
    let (acked, refusals) = load.stop().await;
    assert_eq!(refusals, [], "a server that answers takes the record");
    let whole = read_stream(&client, STREAM).await.unwrap();
    check::extends(&before, &whole).unwrap();
    check::stream_is_whole(&acked, &whole).unwrap();
    println!("{} records, {} shards closed", acked.len(), closed.len());
    assert!(closed.len() > 5, "reshards happened: {closed:?}");
}
