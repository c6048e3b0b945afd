//! CBOR against a whole server: bytes written by hand, answers compared byte for byte. Nothing here
//! encodes or decodes with the server's own code.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic"
)]

mod by_hand;

use by_hand::{map, text};
use millstream_server::{Config, DataLocation, Server};
use reqwest::StatusCode;

const CBOR: &str = "application/x-amz-cbor-1.1";

async fn start() -> Server {
    let config = Config {
        port: 0,
        data: DataLocation::Ephemeral,
        ..Config::default()
    };
    Server::start(config).await.unwrap()
}

struct Reply {
    status: StatusCode,
    kind: String,
    body: Vec<u8>,
}

impl Reply {
    #[track_caller]
    fn ok(self) -> Vec<u8> {
        let Reply { status, kind, body } = self;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        assert_eq!(kind, CBOR);
        body
    }

    #[track_caller]
    fn failed(self, code: &str, message: Option<(&str, &str)>) {
        let mut entries = vec![("__type", text(code))];
        entries.extend(message.map(|(key, message)| (key, text(message))));
        let expected = String::from_utf8_lossy(&map(&entries)).into_owned();
        assert_eq!(String::from_utf8_lossy(&self.body), expected);
        assert_eq!((self.status.as_u16(), self.kind.as_str()), (400, CBOR));
    }
}

async fn send(server: &Server, operation: &str, kind: &str, body: Vec<u8>) -> Reply {
    let reply = reqwest::Client::new()
        .post(server.url())
        .header("content-type", kind)
        .header("x-amz-target", format!("Kinesis_20131202.{operation}"))
        .header("x-amz-date", "20150101T000000Z")
        .header(
            "authorization",
            "AWS4-HMAC-SHA256 Credential=A/20150101/us-east-1/kinesis/aws4_request, SignedHeaders=host, \
             Signature=b",
        )
        .body(body)
        .send()
        .await
        .unwrap();
    Reply {
        status: reply.status(),
        kind: reply
            .headers()
            .get("content-type")
            .map(|kind| kind.to_str().unwrap().to_owned())
            .unwrap_or_default(),
        body: reply.bytes().await.unwrap().to_vec(),
    }
}

async fn call(server: &Server, operation: &str, body: Vec<u8>) -> Reply {
    send(server, operation, CBOR, body).await
}

/// What follows `name` in a map, up to the next byte of `end`s value, as a text of a known length.
#[track_caller]
fn text_after(body: &[u8], name: &str) -> String {
    let name = text(name);
    let at = body
        .windows(name.len())
        .position(|window| window == name)
        .expect("the member is there");
    let rest = &body[at + name.len()..];
    let (len, from) = match rest[0] {
        head @ 0x60..0x78 => (usize::from(head & 0x1f), 1),
        0x78 => (usize::from(rest[1]), 2),
        0x79 => (usize::from(rest[1]) << 8 | usize::from(rest[2]), 3),
        other => panic!("{other:#x} is no text"),
    };
    String::from_utf8(rest[from..from + len].to_vec()).unwrap()
}

async fn create(server: &Server, name: &str) {
    let body = map(&[("StreamName", text(name)), ("ShardCount", vec![1])]);
    assert_eq!(call(server, "CreateStream", body).await.ok(), b"");
}

#[tokio::test]
async fn records_go_in_and_out_as_byte_strings() {
    let server = start().await;
    create(&server, "s").await;
    let blob = b"\x47\x00\xff\xfehello";
    // "hello" split over pieces, as a client that streams may send it.
    let pieces = b"\x5f\x44\x00\xff\xfeh\x44ello\xff";
    let sent_at = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let record = |data: &[u8]| map(&[("Data", data.to_vec()), ("PartitionKey", text("k"))]);
    let blob = [&[0x48], &blob[1..]].concat();
    let records = [vec![0x9f], record(&blob), record(pieces), vec![0xff]].concat();
    let body = map(&[("StreamName", text("s")), ("Records", records)]);
    let answer = call(&server, "PutRecords", body).await.ok();
    let begin = [
        vec![0xbf],
        text("FailedRecordCount"),
        vec![0],
        text("Records"),
        vec![0x9f],
    ];
    assert!(answer.starts_with(&begin.concat()), "{answer:02x?}");
    assert_eq!(text_after(&answer, "ShardId"), "shardId-000000000000");
    let sequence = text_after(&answer, "SequenceNumber");

    let body = map(&[
        ("StreamName", text("s")),
        ("ShardId", text("shardId-000000000000")),
        ("ShardIteratorType", text("TRIM_HORIZON")),
    ]);
    let answer = call(&server, "GetShardIterator", body).await.ok();
    let iterator = text_after(&answer, "ShardIterator");
    let body = map(&[("ShardIterator", text(&iterator)), ("Limit", vec![1])]);
    let answer = call(&server, "GetRecords", body).await.ok();
    let begin = [
        vec![0xbf],
        text("Records"),
        vec![0x9f, 0xbf],
        text("SequenceNumber"),
        text(&sequence),
        text("ApproximateArrivalTimestamp"),
        vec![0xc1, 0x1b],
    ]
    .concat();
    let rest = answer.strip_prefix(begin.as_slice()).expect("begins so");
    let (time, rest) = rest.split_at(8);
    let time = u128::from(u64::from_be_bytes(time.try_into().unwrap()));
    assert!((sent_at..sent_at + 60_000).contains(&time), "{time} ms");
    let then = [
        text("Data"),
        blob,
        text("PartitionKey"),
        text("k"),
        vec![0xff, 0xff],
    ]
    .concat();
    assert!(rest.starts_with(&then), "{rest:02x?}");

    // The time as it was sent, in milliseconds, finds the records again.
    let time = [
        vec![0xc1, 0x1b],
        u64::try_from(time).unwrap().to_be_bytes().to_vec(),
    ]
    .concat();
    let body = map(&[
        ("StreamName", text("s")),
        ("ShardId", text("shardId-000000000000")),
        ("ShardIteratorType", text("AT_TIMESTAMP")),
        ("Timestamp", time),
    ]);
    let answer = call(&server, "GetShardIterator", body).await.ok();
    let body = map(&[("ShardIterator", text(&text_after(&answer, "ShardIterator")))]);
    let answer = call(&server, "GetRecords", body).await.ok();
    assert_eq!(text_after(&answer, "SequenceNumber"), sequence);
    server.shutdown().await;
}

#[tokio::test]
async fn errors_come_in_the_encoding_of_the_request() {
    let server = start().await;
    let not_found = "Stream none under account 000000000000 not found.";
    call(
        &server,
        "DescribeStream",
        map(&[("StreamName", text("none"))]),
    )
    .await
    .failed("ResourceNotFoundException", Some(("message", not_found)));
    call(&server, "CreateStream", map(&[("ShardCount", vec![1])]))
        .await
        .failed(
            "ValidationException",
            Some((
                "message",
                "1 validation error detected: Value null at 'streamName' failed to satisfy constraint: \
                 Member must not be null",
            )),
        );
    let converted = "class java.lang.Boolean can not be converted to an String";
    call(
        &server,
        "DescribeStream",
        map(&[("StreamName", vec![0xf5])]),
    )
    .await
    .failed("SerializationException", Some(("Message", converted)));
    let serialization = [
        b"\x80".to_vec(),
        b"{}".to_vec(),
        vec![0xbf; 50_000],
        // Text and list of a length that cannot be; a time with the tag of a text.
        b"\xa1\x6aStreamName\x7b\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        b"\xa1\x67Records\x9b\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        map(&[
            ("StreamName", text("s")),
            ("StreamCreationTimestamp", vec![0xc0, 0x01]),
        ]),
    ];
    for body in serialization {
        call(&server, "ListShards", body)
            .await
            .failed("SerializationException", None);
    }
    call(&server, "NoSuchOperation", map(&[]))
        .await
        .failed("UnknownOperationException", None);
    // The encoding is the request's, not the connection's or the server's.
    let kind = "application/x-amz-json-1.1";
    let reply = send(&server, "ListStreams", kind, b"{}".to_vec()).await;
    assert_eq!((reply.status.as_u16(), reply.kind.as_str()), (200, kind));
    let answer = call(&server, "ListStreams", map(&[])).await.ok();
    assert!(
        answer.starts_with(b"\xbf\x6bStreamNames\x9f\xff"),
        "{answer:02x?}"
    );
    server.shutdown().await;
}

#[tokio::test]
async fn what_has_no_output_has_no_body() {
    let server = start().await;
    create(&server, "s").await;
    let body = map(&[("StreamName", text("s"))]);
    assert_eq!(call(&server, "DeleteStream", body).await.ok(), b"");
    server.shutdown().await;
}
