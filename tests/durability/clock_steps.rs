//! A server whose wall clock is set up to ten minutes forward and back while it runs, and while it is down.

use crate::SERVER;
use crate::reshard::{Reshard, Resharder, open_ranges, reshards_hold};
use crate::sealed::ends_hold;
use serde_json::json;
use std::time::Duration;
use support::check::{extends, stream_is_whole, tiles};
use support::client::{RawClient, text};
use support::fake_clock::{FakeClock, Leavings};
use support::history::Acked;
use support::load::{Load, Shape};
use support::reader::read_stream;
use support::{ServerProcess, alone, scaled, seeded, wait_until};
use tempfile::TempDir;

const STREAM: &str = "clock-steps";
/// The clock is at most this much before or behind the machine's.
const WRONG_BY_SECONDS: i64 = 600;
const WRITERS: usize = 8;

/// When the records of a shard arrived, in order, milliseconds; and how far the server says that each page was behind.
async fn arrivals(client: &RawClient, shard: &str) -> (Vec<u64>, Vec<u64>) {
    let (mut arrived, mut behind) = (Vec::new(), Vec::new());
    let mut at = Some(client.trim_horizon(STREAM, shard).await.unwrap());
    while let Some(iterator) = at {
        let page = client
            .must("GetRecords", json!({"ShardIterator": iterator}))
            .await;
        let records = page["Records"].as_array().unwrap();
        let times = records.iter().map(|record| {
            let seconds = record["ApproximateArrivalTimestamp"].as_f64().unwrap();
            format!("{:.0}", seconds * 1_000.0).parse::<u64>().unwrap()
        });
        arrived.extend(times);
        behind.push(page["MillisBehindLatest"].as_u64().unwrap());
        if behind.last() == Some(&0) {
            break;
        }
        at = page["NextShardIterator"].as_str().map(str::to_owned);
    }
    (arrived, behind)
}

/// The machine's wall clock, milliseconds.
#[expect(
    clippy::disallowed_methods,
    reason = "what a faked clock is compared with"
)]
fn wall_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(now.unwrap().as_millis()).unwrap()
}

/// Judges the stream by a clock that is ahead, behind and right; when its records arrived.
async fn holds_by_any_clock(
    client: &RawClient,
    clock: &FakeClock,
    acked: &[Acked],
    reshards: &[Reshard],
    from_ms: u64,
) -> Vec<u64> {
    let (mut read_before, mut of_all) = (Vec::new(), Vec::new());
    for seconds in [WRONG_BY_SECONDS, -WRONG_BY_SECONDS, 0] {
        clock.set(seconds);
        let listed = client.list_shards(STREAM).await.unwrap();
        let whole = read_stream(client, STREAM).await.unwrap();
        stream_is_whole(acked, &whole).unwrap();
        tiles(&open_ranges(&listed)).unwrap();
        reshards_hold(reshards, &listed).unwrap();
        ends_hold(&listed, &whole).unwrap();
        extends(&read_before, &whole).unwrap();
        read_before = whole;
        for shard in &listed {
            let (arrived, behind) = arrivals(client, &text(shard, "ShardId")).await;
            assert!(arrived.is_sorted(), "{shard}: {arrived:?}");
            let wrong_ms = u64::try_from(WRONG_BY_SECONDS).unwrap() * 1_000;
            let most_ms = 2 * wrong_ms + wall_ms() - from_ms;
            assert!(behind.iter().all(|ms| *ms <= most_ms), "{behind:?}");
            of_all.extend(arrived);
        }
    }
    of_all
}

/// Waits until more is acknowledged, by all writers in the mean.
async fn until_acked(load: &Load) {
    let enough = load.acked_count() + WRITERS;
    wait_until("writers go on", Duration::from_secs(20), || async {
        (load.acked_count() >= enough).then_some(())
    })
    .await;
}

/// Eight writers, splits and merges, and kills, while the clock is set every 50 to 300 ms. Whatever the clock says in the end: nothing
/// acknowledged is missing or in another order (S1, S2, S3), open shards tile (S4), closed ones stay as they were (S5), records arrived
/// in the order of their times, which lie within ten minutes of the true ones, and none has left the retention (S7).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_to_s7_hold_whatever_the_wall_clock_says() {
    let _alone = alone().await;
    let mut random = seeded("clock_steps");
    let folder = TempDir::with_prefix("millstream-clock-").unwrap();
    // The first records are ten minutes too early, and the last ten too late.
    let clock = FakeClock::at(folder.path().join("clock"), -WRONG_BY_SECONDS);
    let environment = clock.environment();
    let environment = environment
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let mut leavings = Leavings::default();
    let from_ms = wall_ms();
    let mut server = ServerProcess::start_in(SERVER, &["--limits", "off"], &environment).await;
    leavings.of(server.id());
    let client = server.client();
    client.create_stream(STREAM, 2).await;
    let shape = Shape {
        writers: WRITERS,
        pause: Duration::from_millis(5),
        batch: 3,
        padding_bytes: 0,
    };
    let load = Load::start(&client, STREAM, shape);
    let mut resharder = Resharder::new(&client, STREAM, random.fork());
    until_acked(&load).await;
    let (mut steps, mut kills) = (0, 0);
    for _ in 0..scaled(25, 400) {
        clock.set(random.i64(-WRONG_BY_SECONDS..=WRONG_BY_SECONDS));
        steps += 1;
        tokio::time::sleep(Duration::from_millis(random.u64(50..300))).await;
        match random.u8(0..8) {
            0 => {
                server.kill9().await;
                clock.set(random.i64(-WRONG_BY_SECONDS..=WRONG_BY_SECONDS));
                server.restart().await;
                leavings.of(server.id());
                kills += 1;
            }
            1..=3 => resharder.step().await.unwrap(),
            _ => {}
        }
    }
    clock.set(WRONG_BY_SECONDS);
    // What is acknowledged first may have been put before.
    until_acked(&load).await;
    until_acked(&load).await;
    let (acked, refusals) = load.stop().await;
    assert_eq!(refusals, [], "a clock is nothing a writer sees");
    let of_all = holds_by_any_clock(&client, &clock, &acked, resharder.acked(), from_ms).await;
    let wrong_ms = u64::try_from(WRONG_BY_SECONDS).unwrap() * 1_000;
    let (first, last) = (of_all.iter().min().unwrap(), of_all.iter().max().unwrap());
    let sane = from_ms - wrong_ms - 1_000..=wall_ms() + wrong_ms;
    assert!(
        sane.contains(first) && sane.contains(last),
        "{first} to {last}"
    );
    assert!(
        last - first > wrong_ms,
        "the clock was not set: {first} to {last}"
    );
    println!(
        "clock steps: {steps} steps, {kills} kills, {} reshards, {} records acknowledged, arrivals over {} s",
        resharder.acked().len(),
        acked.len(),
        (last - first) / 1_000
    );
}
