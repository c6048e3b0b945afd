//! Subscriptions over real sockets: raw bytes over HTTP/1.1, and HTTP/2 through a client.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by failing"
)]

use millstream_server::engine::{PutEntry, Start};
use millstream_server::{Config, DataLocation, Limits, Server};
use millstream_wire::shapes::Blob;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

const HEADERS: &str = "Content-Type: application/x-amz-json-1.1\r\nX-Amz-Date: 20150101T000000Z\r\n\
                       Authorization: AWS4-HMAC-SHA256 Credential=A/20150101/us-east-1/kinesis/aws4_request, \
                       SignedHeaders=host, Signature=b\r\n";
const STREAM: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";
const LIMIT: Duration = Duration::from_secs(10);

/// The first frame of every subscription, put together by hand.
fn initial_response() -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [
        (":message-type", "event"),
        (":event-type", "initial-response"),
        (":content-type", "application/x-amz-json-1.1"),
    ] {
        headers.push(u8::try_from(name.len()).unwrap());
        headers.extend(name.as_bytes());
        headers.push(7);
        headers.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        headers.extend(value.as_bytes());
    }
    let total = u32::try_from(12 + headers.len() + 2 + 4).unwrap();
    let mut frame = total.to_be_bytes().to_vec();
    frame.extend(u32::try_from(headers.len()).unwrap().to_be_bytes());
    frame.extend(crc32(&frame).to_be_bytes());
    frame.extend(headers);
    frame.extend(b"{}");
    frame.extend(crc32(&frame).to_be_bytes());
    frame
}

/// CRC-32 (IEEE), bit by bit: not the code under test.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// One frame off the front of `bytes`, checked: its headers by name, and its payload.
fn take_frame(bytes: &mut Vec<u8>) -> Option<(Vec<(String, String)>, Value)> {
    let number = |at: usize| -> Option<u32> {
        Some(u32::from_be_bytes(
            bytes.get(at..at + 4)?.try_into().unwrap(),
        ))
    };
    let total = usize::try_from(number(0)?).unwrap();
    if bytes.len() < total {
        return None;
    }
    let headers_len = usize::try_from(number(4)?).unwrap();
    assert_eq!(number(8)?, crc32(&bytes[..8]));
    assert_eq!(number(total - 4)?, crc32(&bytes[..total - 4]));
    let mut rest = &bytes[12..12 + headers_len];
    let mut headers = Vec::new();
    while let Some((len, after)) = rest.split_first() {
        let (name, after) = after.split_at(usize::from(*len));
        assert_eq!(after[0], 7, "a string");
        let len = usize::from(u16::from_be_bytes(after[1..3].try_into().unwrap()));
        let (value, after) = after[3..].split_at(len);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        headers.push((text(name), text(value)));
        rest = after;
    }
    let payload = serde_json::from_slice(&bytes[12 + headers_len..total - 4]).unwrap();
    bytes.drain(..total);
    Some((headers, payload))
}

fn typed(message: &str, kind: &str, name: &str) -> Vec<(String, String)> {
    [
        (":message-type", message),
        (kind, name),
        (":content-type", "application/x-amz-json-1.1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

fn is_event(headers: &[(String, String)]) -> bool {
    headers == typed("event", ":event-type", "SubscribeToShardEvent")
}

struct Fixture {
    server: Server,
    consumer: String,
}

async fn fixture() -> Fixture {
    let config = Config {
        port: 0,
        data: DataLocation::Ephemeral,
        limits: Limits::Off,
        ..Config::default()
    };
    let server = Server::start(config).await.unwrap();
    let mut fixture = Fixture {
        server,
        consumer: String::new(),
    };
    let create = json!({"StreamName": "orders", "ShardCount": 1});
    fixture.call("CreateStream", &create).await;
    let register = json!({"StreamARN": STREAM, "ConsumerName": "a"});
    let answer = fixture.call("RegisterStreamConsumer", &register).await;
    answer["Consumer"]["ConsumerARN"]
        .as_str()
        .unwrap()
        .clone_into(&mut fixture.consumer);
    fixture
}

fn request(target: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "POST / HTTP/1.1\r\nHost: x\r\n{HEADERS}X-Amz-Target: Kinesis_20131202.{target}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl Fixture {
    async fn call(&self, target: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(self.server.local_addr()).await.unwrap();
        let request = request(target, body).replace("Host: x", "Host: x\r\nConnection: close");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{target}: {text}");
        serde_json::from_str(body).unwrap_or(Value::Null)
    }

    fn subscription(&self) -> Value {
        json!({
            "ConsumerARN": self.consumer,
            "ShardId": "shardId-000000000000",
            "StartingPosition": {"Type": "TRIM_HORIZON"},
        })
    }

    async fn put(&self, data: &str) {
        let body = json!({"StreamName": "orders", "PartitionKey": "k", "Data": data});
        self.call("PutRecord", &body).await;
    }

    /// A subscription over HTTP/1.1 whose first frame has been read.
    async fn subscribe(&self) -> Chunked {
        let mut stream = TcpStream::connect(self.server.local_addr()).await.unwrap();
        let request = request("SubscribeToShard", &self.subscription());
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut chunked = Chunked {
            stream,
            raw: Vec::new(),
            bytes: Vec::new(),
            ended: false,
        };
        let head = chunked.head().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        for header in [
            "content-type: application/vnd.amazon.eventstream\r\n",
            "transfer-encoding: chunked\r\n",
            "x-amzn-requestid: ",
            "x-amz-id-2: ",
        ] {
            assert!(head.contains(header), "{header:?} in {head}");
        }
        let golden = initial_response();
        while chunked.bytes.len() < golden.len() {
            chunked.chunk().await;
        }
        assert_eq!(
            chunked.bytes.drain(..golden.len()).collect::<Vec<_>>(),
            golden
        );
        chunked
    }
}

/// An HTTP/1.1 answer in chunks, read by hand.
struct Chunked {
    stream: TcpStream,
    raw: Vec<u8>,
    bytes: Vec<u8>,
    ended: bool,
}

impl Chunked {
    async fn more(&mut self) {
        let read = timeout(LIMIT, self.stream.read_buf(&mut self.raw)).await;
        assert_ne!(
            read.expect("bytes in time").unwrap(),
            0,
            "the connection was cut"
        );
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.raw.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.raw.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).unwrap();
            }
            self.more().await;
        }
    }

    async fn head(&mut self) -> String {
        let mut head = String::new();
        loop {
            let line = self.line().await;
            if line.is_empty() {
                return head;
            }
            head.push_str(&line);
            head.push_str("\r\n");
        }
    }

    /// The next frame; `None` where the answer ends as HTTP says it should.
    async fn frame(&mut self) -> Option<(Vec<(String, String)>, Value)> {
        loop {
            if let Some(frame) = take_frame(&mut self.bytes) {
                return Some(frame);
            }
            if self.ended {
                assert!(self.bytes.is_empty(), "a frame was cut");
                return None;
            }
            self.chunk().await;
        }
    }

    async fn chunk(&mut self) {
        let len = usize::from_str_radix(&self.line().await, 16).unwrap();
        while self.raw.len() < len + 2 {
            self.more().await;
        }
        self.bytes.extend(self.raw.drain(..len + 2).take(len));
        self.ended = len == 0;
    }

    async fn event(&mut self) -> Value {
        let (headers, payload) = self.frame().await.expect("an event");
        assert!(is_event(&headers), "{headers:?} {payload}");
        payload
    }
}

#[tokio::test]
async fn events_over_http_1_are_pushed_as_records_come() {
    let fixture = fixture().await;
    fixture.put("YQ==").await;
    let mut events = fixture.subscribe().await;
    let first = events.event().await;
    let record = &first["Records"][0];
    assert_eq!(
        (&record["Data"], &record["PartitionKey"]),
        (&json!("YQ=="), &json!("k"))
    );
    assert!(record["SequenceNumber"].is_string() && record["ApproximateArrivalTimestamp"].is_f64());
    assert_eq!(first["MillisBehindLatest"], 0);
    assert!(first["ContinuationSequenceNumber"].is_string());
    assert!(first.get("ChildShards").is_none());
    let began = Instant::now();
    fixture.put("Yg==").await;
    assert_eq!(events.event().await["Records"][0]["Data"], "Yg==");
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );

    let split = json!({"StreamName": "orders", "ShardToSplit": "shardId-000000000000",
        "NewStartingHashKey": "170141183460469231731687303715884105728"});
    fixture.call("SplitShard", &split).await;
    let last = events.event().await;
    assert!(last.get("ContinuationSequenceNumber").is_none(), "{last}");
    assert_eq!(last["Records"], json!([]));
    assert_eq!(
        last["ChildShards"][1],
        json!({"ShardId": "shardId-000000000002", "ParentShards": ["shardId-000000000000"], "HashKeyRange": {
            "StartingHashKey": "170141183460469231731687303715884105728",
            "EndingHashKey": "340282366920938463463374607431768211455"}})
    );
    assert_eq!(events.frame().await, None);
}

#[tokio::test]
async fn events_over_http_2_are_pushed_as_records_come() {
    let fixture = fixture().await;
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let mut answer = client
        .post(format!("http://{}/", fixture.server.local_addr()))
        .header("Content-Type", "application/x-amz-json-1.1")
        .header("X-Amz-Target", "Kinesis_20131202.SubscribeToShard")
        .header("Authorization", "AWS4-HMAC-SHA256 Credential=A/20150101/eu-west-1/kinesis/aws4_request, SignedHeaders=host, Signature=b")
        .header("X-Amz-Date", "20150101T000000Z")
        .body(fixture.subscription().to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    assert_eq!(
        answer.headers()["content-type"],
        "application/vnd.amazon.eventstream"
    );
    let mut bytes = Vec::new();
    let mut frames = Vec::new();
    while frames.len() < 3 {
        let chunk = timeout(LIMIT, answer.chunk())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        bytes.extend(chunk);
        while let Some(frame) = take_frame(&mut bytes) {
            frames.push(frame);
            if frames.len() == 2 {
                fixture.put("Yg==").await;
            }
        }
    }
    assert_eq!(
        frames[0].0,
        typed("event", ":event-type", "initial-response")
    );
    assert!(is_event(&frames[1].0) && frames[1].1["Records"] == json!([]));
    assert_eq!(frames[2].1["Records"][0]["Data"], "Yg==");
    // The client goes away: its place is free at once.
    drop(answer);
    drop(client);
    free_again(&fixture).await;
}

/// Waits until the consumer may subscribe again, which is as soon as the server sees the client gone.
async fn free_again(fixture: &Fixture) {
    let consumer = fixture.consumer.parse().unwrap();
    let free = async {
        loop {
            let start = Start::Latest;
            let target = fixture
                .server
                .engine()
                .subscription_target(&consumer, "0", start)
                .await
                .unwrap();
            if fixture.server.engine().subscribe(target).is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(3), free)
        .await
        .expect("the place is free within three seconds");
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_its_place() {
    let fixture = fixture().await;
    let mut events = fixture.subscribe().await;
    events.event().await;
    let again = request("SubscribeToShard", &fixture.subscription());
    let mut stream = TcpStream::connect(fixture.server.local_addr())
        .await
        .unwrap();
    stream.write_all(again.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(
        answer.ends_with(
            r#"{"__type":"ResourceInUseException","message":"Another active subscription exists for this consumer: 000000000000:orders:shardId-000000000000:a"}"#
        ),
        "{answer}"
    );
    drop(events);
    free_again(&fixture).await;
}

#[tokio::test]
async fn a_failure_is_the_last_frame() {
    let fixture = fixture().await;
    let mut events = fixture.subscribe().await;
    events.event().await;
    let gone = json!({"ConsumerARN": fixture.consumer});
    fixture.call("DeregisterStreamConsumer", &gone).await;
    let (headers, payload) = events.frame().await.unwrap();
    assert_eq!(
        headers,
        typed("exception", ":exception-type", "ResourceNotFoundException")
    );
    assert_eq!(
        payload,
        json!({"message": "Consumer a in stream orders under account 000000000000 not found."})
    );
    assert_eq!(events.frame().await, None);
}

#[tokio::test]
async fn a_shutdown_ends_subscriptions_as_http_says() {
    let fixture = fixture().await;
    let mut events = fixture.subscribe().await;
    events.event().await;
    let stopped = timeout(Duration::from_secs(3), fixture.server.shutdown());
    let (stopped, last) = tokio::join!(stopped, events.frame());
    stopped.expect("the server does not wait for subscribers");
    assert_eq!(last, None);
}

/// What a client does not take is not read for it: most of the backlog is still unread when the stream
/// goes away.
#[tokio::test]
async fn a_client_that_takes_nothing_is_not_read_for() {
    const RECORDS: usize = 40;
    let fixture = fixture().await;
    let data = vec![7; 1_000_000];
    let blob = Blob::from(&data[..]);
    let entry = PutEntry {
        partition_key: "k",
        explicit_hash_key: None,
        data: &blob,
    };
    let engine = fixture.server.engine();
    let arn = STREAM.parse().unwrap();
    let stream = engine.writable_stream(&arn).unwrap();
    for _ in 0..RECORDS {
        let outcomes = engine.put(&stream, &[entry]).await;
        outcomes.unwrap().remove(0).unwrap();
    }
    let mut events = fixture.subscribe().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let deleted = engine.delete_stream_and_consumers(&arn).await;
    deleted.unwrap();
    let mut records = 0;
    loop {
        let (headers, payload) = events.frame().await.unwrap();
        if !is_event(&headers) {
            let gone = typed("exception", ":exception-type", "ResourceNotFoundException");
            assert_eq!(headers, gone, "{payload}");
            break;
        }
        records += payload["Records"].as_array().unwrap().len();
    }
    assert_eq!(events.frame().await, None);
    assert!(
        (1..RECORDS / 2).contains(&records),
        "{records} of {RECORDS} were read ahead"
    );
}
