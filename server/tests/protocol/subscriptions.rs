//! SubscribeToShard over sockets: CBOR, taking over, ending, going on exactly.

use crate::by_hand::{map, text};
use crate::events::{Event, take};
use crate::raw::{CBOR, Connection, JSON, Reply, ask, post, start};
use millstream_server::Server;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, advance, pause, resume};

const STREAM: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
async fn call(address: SocketAddr, operation: &str, body: Value) -> Value {
    let reply = ask(
        address,
        post(&crate::raw::call(JSON, operation), body.to_string()),
    )
    .await;
    assert_eq!(reply.status, 200, "{operation}: {reply:?}");
    serde_json::from_slice(&reply.body).unwrap_or(Value::Null)
}

/// A server with a stream of one shard, and the ARN of a consumer of it.
pub(crate) async fn fixture() -> (Server, String) {
    let server = start().await;
    let address = server.local_addr();
    call(
        address,
        "CreateStream",
        json!({"StreamName": "s", "ShardCount": 1}),
    )
    .await;
    let consumer = register(address, "c").await;
    (server, consumer)
}

pub(crate) async fn register(address: SocketAddr, name: &str) -> String {
    let answer = call(
        address,
        "RegisterStreamConsumer",
        json!({"StreamARN": STREAM, "ConsumerName": name}),
    )
    .await;
    answer["Consumer"]["ConsumerARN"]
        .as_str()
        .unwrap()
        .to_owned()
}

pub(crate) async fn put(address: SocketAddr, data: &str) -> String {
    let answer = call(
        address,
        "PutRecord",
        json!({"StreamName": "s", "PartitionKey": "k", "Data": data}),
    )
    .await;
    answer["SequenceNumber"].as_str().unwrap().to_owned()
}

pub(crate) fn subscription(consumer: &str, position: &Value) -> String {
    json!({"ConsumerARN": consumer, "ShardId": "shardId-000000000000", "StartingPosition": position}).to_string()
}

pub(crate) fn horizon() -> Value {
    json!({"Type": "TRIM_HORIZON"})
}

/// A subscription over HTTP/1.1, its chunks put together.
struct Subscriber {
    connection: Connection,
    bytes: Vec<u8>,
    ended: bool,
}

impl Subscriber {
    /// It, or the refusal.
    async fn begin(
        address: SocketAddr,
        kind: &str,
        body: impl AsRef<[u8]>,
    ) -> Result<Subscriber, Reply> {
        let mut connection = Connection::open(address).await;
        connection
            .send(post(&crate::raw::call(kind, "SubscribeToShard"), body))
            .await;
        let head = connection.head().await.unwrap();
        if head.status != 200 {
            let body = connection.body(&head).await;
            return Err(Reply { body, ..head });
        }
        assert_eq!(
            head.header("content-type"),
            Some("application/vnd.amazon.eventstream")
        );
        let mut subscriber = Subscriber {
            connection,
            bytes: Vec::new(),
            ended: false,
        };
        let first = subscriber.next().await.expect("a first frame");
        assert_eq!(first.kind(), "initial-response");
        assert!(
            first
                .headers
                .contains(&(":content-type".to_owned(), kind.to_owned())),
            "{first:?}"
        );
        assert_eq!(
            first.payload,
            if kind == CBOR { b"\xbf\xff" } else { b"{}" }
        );
        Ok(subscriber)
    }

    /// The next frame; `None` at an end as HTTP has it.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = take(&mut self.bytes) {
                return Some(event);
            }
            if self.ended {
                assert!(self.bytes.is_empty(), "a frame was cut");
                return None;
            }
            let chunk = self.connection.chunk().await;
            self.ended = chunk.is_empty();
            self.bytes.extend(chunk);
        }
    }

    async fn event(&mut self) -> Value {
        let event = self.next().await.expect("an event");
        assert_eq!(event.kind(), "SubscribeToShardEvent", "{event:?}");
        serde_json::from_slice(&event.payload).unwrap()
    }

    /// The failure that ends it.
    async fn failure(&mut self) -> (String, Value) {
        let event = self.next().await.expect("a failure");
        assert_eq!(
            event.headers[0],
            (":message-type".to_owned(), "exception".to_owned()),
            "{event:?}"
        );
        assert_eq!(self.next().await, None, "nothing follows a failure");
        (
            event.kind().to_owned(),
            serde_json::from_slice(&event.payload).unwrap(),
        )
    }
}

/// The payload of an event in CBOR, byte for byte but for the times in it.
#[tokio::test]
async fn events_in_cbor_have_byte_strings_and_milliseconds() {
    let (server, consumer) = fixture().await;
    let address = server.local_addr();
    let sequence = put(address, "AP/+aGVsbG8=").await;
    let body = map(&[
        ("ConsumerARN", text(&consumer)),
        ("ShardId", text("shardId-000000000000")),
        ("StartingPosition", map(&[("Type", text("TRIM_HORIZON"))])),
    ]);
    let mut subscriber = Subscriber::begin(address, CBOR, &body).await.unwrap();
    let event = subscriber.next().await.unwrap();
    assert_eq!(event.kind(), "SubscribeToShardEvent");
    let find = |needle: &[u8]| {
        event
            .payload
            .windows(needle.len())
            .position(|window| window == needle)
    };
    let member = |name: &str| find(&text(name)).unwrap_or_else(|| panic!("{name} in {event:02x?}"));
    assert_eq!(event.payload.first(), Some(&0xbf));
    assert_eq!(event.payload.last(), Some(&0xff));
    let time_at = member("ApproximateArrivalTimestamp") + text("ApproximateArrivalTimestamp").len();
    let time = &event.payload[time_at..time_at + 10];
    assert_eq!(time[..2], [0xc1, 0x1b], "a tagged number of milliseconds");
    let record = [
        text("SequenceNumber"),
        text(&sequence),
        text("ApproximateArrivalTimestamp"),
        time.to_vec(),
        text("Data"),
        b"\x48\x00\xff\xfehello".to_vec(),
        text("PartitionKey"),
        text("k"),
        vec![0xff],
    ];
    assert!(find(&record.concat()).is_some(), "{event:02x?}");
    assert!(
        find(&[text("MillisBehindLatest"), vec![0]].concat()).is_some(),
        "{event:02x?}"
    );
    member("ContinuationSequenceNumber");
    assert_eq!(
        find(&text("ChildShards")),
        None,
        "no member without a value"
    );
    // A failure in the stream is in CBOR too.
    call(
        address,
        "DeregisterStreamConsumer",
        json!({"ConsumerARN": consumer}),
    )
    .await;
    let failure = subscriber.next().await.unwrap();
    let message = "Consumer c in stream s under account 000000000000 not found.";
    assert_eq!(failure.kind(), "ResourceNotFoundException");
    assert_eq!(failure.payload, map(&[("message", text(message))]));
    assert_eq!(subscriber.next().await, None);
    server.shutdown().await;
}

const IN_USE: &str =
    "Another active subscription exists for this consumer: 000000000000:s:shardId-000000000000:c";

/// Moves the clock of everything in this process.
async fn pass(time: Duration) {
    pause();
    advance(time).await;
    resume();
}

#[tokio::test]
async fn a_subscription_is_protected_for_five_seconds_and_then_taken_over() {
    let (server, consumer) = fixture().await;
    let address = server.local_addr();
    let body = subscription(&consumer, &horizon());
    let mut first = Subscriber::begin(address, JSON, &body).await.unwrap();
    first.event().await;
    for wait in [0, 4_000] {
        pass(Duration::from_millis(wait)).await;
        let refused = Subscriber::begin(address, JSON, &body)
            .await
            .err()
            .expect("it is protected");
        refused.assert(
            400,
            &format!(r#"{{"__type":"ResourceInUseException","message":"{IN_USE}"}}"#),
        );
    }
    pass(Duration::from_millis(1_100)).await;
    let mut second = Subscriber::begin(address, JSON, &body).await.unwrap();
    // What was on its way before comes before.
    let mut told = first.next().await.unwrap();
    while told.kind() == "SubscribeToShardEvent" {
        told = first.next().await.unwrap();
    }
    assert_eq!(told.headers[0].1, "exception");
    assert_eq!(told.kind(), "ResourceInUseException");
    assert_eq!(
        told.payload,
        format!(r#"{{"message":"{IN_USE}"}}"#).as_bytes()
    );
    assert_eq!(first.next().await, None);
    second.event().await;
    put(address, "YQ==").await;
    assert_eq!(second.event().await["Records"][0]["Data"], "YQ==");
    server.shutdown().await;
}

#[tokio::test]
async fn a_stream_that_is_deleted_ends_its_subscriptions() {
    let (server, consumer) = fixture().await;
    let address = server.local_addr();
    let mut subscriber = Subscriber::begin(address, JSON, subscription(&consumer, &horizon()))
        .await
        .unwrap();
    subscriber.event().await;
    call(
        address,
        "DeleteStream",
        json!({"StreamName": "s", "EnforceConsumerDeletion": true}),
    )
    .await;
    let (kind, payload) = subscriber.failure().await;
    assert_eq!(kind, "ResourceNotFoundException");
    let text = payload["message"].as_str().unwrap();
    assert!(
        text.ends_with("under account 000000000000 not found."),
        "{text}"
    );
    server.shutdown().await;
}

#[tokio::test]
async fn a_subscription_ends_after_five_minutes() {
    let (server, consumer) = fixture().await;
    let address = server.local_addr();
    let mut subscriber = Subscriber::begin(address, JSON, subscription(&consumer, &horizon()))
        .await
        .unwrap();
    subscriber.event().await;
    pass(Duration::from_secs(298)).await;
    put(address, "YQ==").await;
    // Heartbeats on the way are events without records.
    let mut seen = subscriber.event().await;
    while seen["Records"] == json!([]) {
        seen = subscriber.event().await;
    }
    assert_eq!(seen["Records"][0]["Data"], "YQ==");
    pass(Duration::from_secs(3)).await;
    while let Some(event) = subscriber.next().await {
        assert_eq!(event.kind(), "SubscribeToShardEvent");
    }
    // It ended as HTTP has it, and the place is free.
    Subscriber::begin(address, JSON, subscription(&consumer, &horizon()))
        .await
        .unwrap();
    server.shutdown().await;
}

/// A subscriber that goes away and comes back with the number of its last event, again and again, gets every
/// record once and in order, whether it asks for what is at or after that number.
#[tokio::test]
async fn a_subscriber_goes_on_exactly_where_it_was() {
    const RECORDS: usize = 120;
    let (server, consumer) = fixture().await;
    let address = server.local_addr();
    let writer = tokio::spawn(async move {
        let mut written = Vec::new();
        for n in 0..RECORDS {
            written.push(put(address, &format!("{n:04}")).await);
        }
        written
    });
    let (mut seen, mut position, mut resumed) = (Vec::new(), horizon(), 0);
    let mut left_at = Instant::now();
    while seen.len() < RECORDS {
        let begun = Subscriber::begin(address, JSON, subscription(&consumer, &position)).await;
        let Ok(mut subscriber) = begun else {
            // The server has yet to see that the last one is gone, which it does at once.
            assert!(left_at.elapsed() < Duration::from_millis(500));
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        };
        for _ in 0..=resumed % 3 {
            let event = subscriber.event().await;
            let records = event["Records"].as_array().unwrap();
            seen.extend(
                records
                    .iter()
                    .map(|record| record["SequenceNumber"].as_str().unwrap().to_owned()),
            );
            let kind = ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"][resumed % 2];
            position = json!({"Type": kind, "SequenceNumber": event["ContinuationSequenceNumber"]});
            if seen.len() == RECORDS {
                break;
            }
        }
        resumed += 1;
        left_at = Instant::now();
    }
    assert_eq!(seen, writer.await.unwrap());
    assert!(resumed > 10, "resumed {resumed} times only");
    server.shutdown().await;
}
