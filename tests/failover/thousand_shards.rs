//! A worker that holds a thousand shards alone: how long it takes for all of them to start, deliver, checkpoint and stop, and what it holds in
//! memory and open files meanwhile.

use crate::WORKER;
use millstream_server::{Config, DataLocation, Limits, Server, StartStream};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;
use support::client::encode_base64;
use support::history::{Event, EventKind, deliveries};
use support::leases::look;
use support::reader::range_of;
use support::worker::Fleet;
use support::{RawClient, WorkerProcess, wait_until};
use tokio::time::Instant;

const STREAM: &str = "orders";
const SHARDS: u32 = 1000;
const RECORDS_EACH: usize = 5;
/// From the start of the process until every record is checkpointed: some seconds; a test machine is busy.
const DELIVERED_WITHIN: Duration = Duration::from_mins(3);
/// For the whole process, in a debug build.
const MEMORY_MAX_BYTES: u64 = 256 * 1024 * 1024;
/// Connections and the rest: what it holds open at most.
const FILES_MAX: usize = 1100;

/// Puts so many records into each shard.
async fn fill(client: &RawClient) -> BTreeSet<(String, String)> {
    let shards = client.list_shards(STREAM).await.unwrap();
    assert_eq!(shards.len(), usize::try_from(SHARDS).unwrap());
    let mut put = BTreeSet::new();
    for some in shards.chunks(500 / RECORDS_EACH) {
        let record = |shard: &serde_json::Value, n: usize| {
            json!({
                "Data": encode_base64(format!("record {n}").as_bytes()),
                "PartitionKey": "key",
                "ExplicitHashKey": range_of(shard).0.to_string(),
            })
        };
        let each = some
            .iter()
            .flat_map(|shard| (0..RECORDS_EACH).map(move |n| record(shard, n)));
        let records: Vec<_> = each.collect();
        let input = json!({ "StreamName": STREAM, "Records": records });
        let answer = client.must("PutRecords", input).await;
        assert_eq!(answer["FailedRecordCount"], 0);
        for record in answer["Records"].as_array().unwrap() {
            let text = |member: &str| record[member].as_str().unwrap().to_owned();
            put.insert((text("ShardId"), text("SequenceNumber")));
        }
    }
    put
}

/// Records that are delivered and checkpointed by their worker's account.
fn checkpointed(events: &[Event]) -> usize {
    let shards: BTreeSet<&str> = events
        .iter()
        .filter(|event| matches!(event.kind, EventKind::Checkpointed { .. }))
        .filter_map(|event| event.kind.shard())
        .collect();
    let delivered = deliveries(events);
    let is_done = |shard: &str| shards.contains(shard);
    delivered.keys().filter(|(shard, _)| is_done(shard)).count()
}

/// What `/proc` says of a process: the most memory it had, and its open files.
fn holds(worker: &WorkerProcess) -> (u64, usize) {
    let id = worker.process_id().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("/proc/ID/status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|line| line.trim().strip_suffix(" kB"));
    let bytes = kib.expect("VmHWM").trim().parse::<u64>().unwrap() * 1024;
    let files = std::fs::read_dir(format!("/proc/{id}/fd")).expect("/proc/ID/fd");
    (bytes, files.count())
}

async fn one_worker_serves_all(fan_out: u8) {
    let _alone = support::alone().await;
    let shards = SHARDS.try_into().unwrap();
    let server = Server::start(Config {
        port: 0,
        data: DataLocation::Ephemeral,
        limits: Limits::Off,
        streams: vec![StartStream::new(STREAM.parse().unwrap(), shards)],
        ..Config::default()
    })
    .await
    .unwrap();
    let client = RawClient::new(&server.url());
    let put = fill(&client).await;
    let mut fleet = Fleet::new(WORKER, &server.url(), STREAM, Duration::from_secs(10))
        .with("--fan-out", &fan_out)
        .with("--poll-ms", &1000);
    let began = Instant::now();
    let mut worker = fleet.start().await;
    let all = async || {
        let done = worker.hear(checkpointed);
        (done == put.len()).then_some(())
    };
    wait_until("every record checkpointed", DELIVERED_WITHIN, all).await;
    let took = began.elapsed();
    // A while at the tip, where all of them read in turn.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (memory, files) = holds(&worker);
    let asked = Instant::now();
    let ended = worker.terminate().await;
    let stopped = asked.elapsed();
    println!(
        "fan-out {fan_out}: {SHARDS} shards in {took:.1?}, {} MiB at most, {files} open files, stopped in {stopped:.1?}",
        memory >> 20
    );
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let delivered = worker.hear(deliveries);
    let places = delivered.keys();
    let got: BTreeSet<_> = places
        .map(|(shard, sequence)| (shard.clone(), sequence.to_string()))
        .collect();
    assert_eq!(got, put);
    assert!(delivered.values().all(|count| *count == 1), "once each");
    let mut store = fleet.store().connect().await.unwrap();
    let leases = look(&mut store).await.unwrap();
    assert_eq!(leases.len(), usize::try_from(SHARDS).unwrap());
    for (shard, lease) in leases {
        assert_eq!(lease.owner, None, "{shard} is still held");
        let newest = put.range((shard.clone(), String::new())..);
        let newest = newest.take_while(|(of, _)| *of == shard).last();
        assert_eq!(Some(&lease.checkpoint), newest.map(|(_, number)| number));
    }
    assert!(memory <= MEMORY_MAX_BYTES, "{memory} bytes");
    assert!(files <= FILES_MAX, "{files} open files");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k4_k5_k9_a_thousand_polled_shards_start_deliver_checkpoint_and_stop_within_bounds() {
    one_worker_serves_all(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k4_k5_k9_a_thousand_pushed_shards_start_deliver_checkpoint_and_stop_within_bounds() {
    one_worker_serves_all(1).await;
}
