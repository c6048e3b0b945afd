//! A thousand subscribers over real sockets: each gets every record of its shard, once and in order, soon.

use crate::SERVER;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;
use support::client::{encode_base64, text};
use support::events;
use support::frames::{Http2, call, frame, kind};
use support::{RawClient, ServerProcess, alone};
use tokio::task::JoinSet;
use tokio::time::Instant;

const STREAM: &str = "fanned-out";
const SHARDS: usize = 50;
const CONSUMERS: usize = 20;
/// Subscriptions by connection.
const STREAMS: usize = 100;
const RECORDS: usize = 12;
const INITIAL_WINDOW_SIZE: u16 = 4;
/// Within this each record is with every subscriber, on a busy machine and in a debug build.
const PUSHED_WITHIN: Duration = Duration::from_secs(30);
/// What a thousand subscriptions may take of memory: events of a few records, and the connections.
const MEMORY: u64 = 160 << 20;

/// The records of a shard, by sequence number and data.
type Records = Vec<(String, String)>;

/// A subscription: its shard, and what it got.
struct Subscriber {
    shard: usize,
    bytes: Vec<u8>,
    begun: bool,
    records: Records,
}

impl Subscriber {
    fn read(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
        while let Some(event) = events::take(&mut self.bytes) {
            match event.kind() {
                "initial-response" => self.begun = true,
                "SubscribeToShardEvent" => {
                    let payload: Value = serde_json::from_slice(&event.payload).unwrap();
                    let records = payload["Records"].as_array().unwrap().iter();
                    let pairs = records.map(|r| (text(r, "SequenceNumber"), text(r, "Data")));
                    self.records.extend(pairs);
                }
                other => panic!("{other}: {}", String::from_utf8_lossy(&event.payload)),
            }
        }
    }
}

/// Subscribes one connection's share, and reads until `is_enough` of each.
async fn listen(
    connection: &mut Http2,
    subscribers: &mut HashMap<u32, Subscriber>,
    is_enough: impl Fn(&Subscriber) -> bool,
) {
    let until = Instant::now() + PUSHED_WITHIN;
    while !subscribers.values().all(&is_enough) {
        let next = connection.next(until).await;
        let missing = subscribers
            .values()
            .filter(|subscriber| !is_enough(subscriber))
            .count();
        let next = next.unwrap_or_else(|| panic!("{missing} subscribers wait in vain"));
        assert_ne!(next.kind, kind::RST_STREAM, "a subscription was reset");
        if next.kind == kind::DATA
            && let Some(subscriber) = subscribers.get_mut(&next.stream)
        {
            subscriber.read(&next.payload);
        }
    }
}

/// Subscribes to shards for consumers over one connection, and reads until each has the record that is there.
async fn subscribe(port: u16, share: Vec<(usize, String)>) -> (Http2, HashMap<u32, Subscriber>) {
    let mut connection = Http2::open(port, &[(INITIAL_WINDOW_SIZE, 1 << 24)]).await;
    let mut calls = frame(kind::WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
    let mut subscribers = HashMap::new();
    for (stream, (shard, arn)) in (1_u32..).step_by(2).zip(share) {
        let input = json!({"ConsumerARN": arn, "ShardId": format!("shardId-{shard:012}"),
            "StartingPosition": {"Type": "TRIM_HORIZON"}});
        calls.extend(call(
            stream,
            "SubscribeToShard",
            input.to_string().as_bytes(),
        ));
        let (bytes, records) = (Vec::new(), Records::new());
        let subscriber = Subscriber {
            shard,
            bytes,
            begun: false,
            records,
        };
        subscribers.insert(stream, subscriber);
    }
    assert!(connection.send(&calls, PUSHED_WITHIN).await);
    let has_first = |one: &Subscriber| one.begun && one.records.len() == 1;
    listen(&mut connection, &mut subscribers, has_first).await;
    (connection, subscribers)
}

/// The ARNs of so many consumers.
async fn consumers(client: &RawClient) -> Vec<String> {
    let summary = client
        .must("DescribeStreamSummary", json!({"StreamName": STREAM}))
        .await;
    let arn = text(&summary["StreamDescriptionSummary"], "StreamARN");
    let mut arns = Vec::new();
    for n in 0..CONSUMERS {
        let input = json!({"StreamARN": arn, "ConsumerName": format!("consumer-{n}")});
        let answer = client.must("RegisterStreamConsumer", input).await;
        arns.push(text(&answer["Consumer"], "ConsumerARN"));
    }
    arns
}

/// A record into each shard; what each shard got then.
async fn put_round(client: &RawClient, round: usize, written: &mut [Records]) {
    let width = u128::MAX / SHARDS as u128;
    let entry = |shard: usize| {
        json!({
            "PartitionKey": "k", "Data": encode_base64(format!("{round}/{shard}").as_bytes()),
            "ExplicitHashKey": (width * shard as u128 + 5).to_string(),
        })
    };
    let entries: Vec<Value> = (0..SHARDS).map(entry).collect();
    let answer = client
        .must(
            "PutRecords",
            json!({"StreamName": STREAM, "Records": entries}),
        )
        .await;
    for (shard, result) in answer["Records"].as_array().unwrap().iter().enumerate() {
        assert_eq!(text(result, "ShardId"), format!("shardId-{shard:012}"));
        written[shard].push((
            text(result, "SequenceNumber"),
            text(&entries[shard], "Data"),
        ));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_subscribers_get_every_record_of_a_few_puts() {
    let _alone = alone().await;
    let mut server = ServerProcess::start(SERVER).await;
    let (client, port) = (server.client(), server.port());
    client
        .create_stream(STREAM, u32::try_from(SHARDS).unwrap())
        .await;
    let arns = consumers(&client).await;
    let pairs: Vec<(usize, String)> = (0..SHARDS)
        .flat_map(|shard| arns.iter().map(move |arn| (shard, arn.clone())))
        .collect();
    let mut written = vec![Records::new(); SHARDS];
    put_round(&client, 0, &mut written).await;
    let before = server.reset_peak_memory();

    let mut began = Instant::now();
    let mut begun = JoinSet::new();
    for share in pairs.chunks(STREAMS).map(<[_]>::to_vec) {
        begun.spawn(subscribe(port, share));
    }
    let mut listening = begun.join_all().await;
    println!(
        "subscribers: {} have begun and read after {:?}",
        pairs.len(),
        began.elapsed()
    );

    began = Instant::now();
    for round in 1..RECORDS {
        put_round(&client, round, &mut written).await;
    }
    let puts = began.elapsed();
    let mut done = JoinSet::new();
    for (mut connection, mut subscribers) in listening.drain(..) {
        done.spawn(async move {
            listen(&mut connection, &mut subscribers, |one| {
                one.records.len() >= RECORDS
            })
            .await;
            // The connection stays until all are done.
            (connection, subscribers)
        });
    }
    let done = done.join_all().await;
    let grown = server.peak_memory() - before;
    println!(
        "subscribers: {} records put in {puts:?}, pushed to all after {:?}; {} MiB more of memory",
        SHARDS * (RECORDS - 1),
        began.elapsed(),
        grown >> 20
    );
    let mut count = 0;
    for subscriber in done
        .iter()
        .flat_map(|(_, subscribers)| subscribers.values())
    {
        assert_eq!(
            subscriber.records, written[subscriber.shard],
            "shard {}",
            subscriber.shard
        );
        count += 1;
    }
    assert_eq!(count, SHARDS * CONSUMERS);
    assert!(grown < MEMORY, "{} MiB more memory were taken", grown >> 20);
    assert!(!server.log().contains("panicked"), "{}", server.log());
    // Nobody is waited for, though all are still there.
    assert_eq!(server.terminate().await.code, Some(0));
}
