//! CBOR that is none, or none that a request may be.

use crate::bodies::{DEEP, answer, serve};
use crate::raw::{CBOR, call, post};

fn text(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len()).unwrap();
    [&[0x78, len], text.as_bytes()].concat()
}

/// Whole bodies: no maps, maps that promise more than there is, without an end or with one in the wrong place,
/// with names that are no texts.
const BODIES: [&[u8]; 24] = [
    b"\x00",
    b"\x80",
    b"\x60",
    b"\xf6",
    b"\xff",
    b"\xc1\xa0",
    b"\xbf",
    b"\xa1",
    b"\xa0\x00",
    b"\xbf\xff\xff",
    b"{}",
    b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xba\xff\xff\xff\xff\x61a\x01",
    b"\xbf\x6aStreamName\x7f\x61s\xff",
    b"\xbf\x61a\xff",
    b"\xa1\x61a\xff",
    b"\xa1\xff\x01",
    b"\xa1\x01\x01",
    b"\xa1\x41a\x01",
    b"\xa1\xf6\x01",
    b"\xa1\x80\x01",
    b"\xa1\xc0\x61a\x01",
    b"\xa1\x61\xff\x01",
    b"\xa2\x6aStreamName\x61s\x6aStreamName\x61s",
];
/// Where a text belongs: what promises more than there is, has no end or a wrong one, additional information that
/// is reserved, texts that are none, tags.
const NO_TEXTS: [&[u8]; 24] = [
    b"\x7b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x7b\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\x7a\xff\xff\xff\xff",
    b"\x5b\x00\x00\x00\x01\x00\x00\x00\x00",
    b"\x7f\x61s",
    b"\x7f\x41s\xff",
    b"\x7f\x7f\xff\xff",
    b"\x1c",
    b"\x3d",
    b"\x5e",
    b"\x7c",
    b"\x9d",
    b"\xbe",
    b"\xdc",
    b"\xfc",
    b"\x1f",
    b"\x3f",
    b"\xdf",
    b"\xf8\x10",
    b"\x61\xff",
    b"\x63\xed\xa0\x80",
    b"\x7f\x61\xc3\x61\xa4\xff",
    b"\xc0\x61s",
    b"\xc1\x61s",
];
/// The same where other things belong.
const MEMBERS: [(&str, &[u8]); 16] = [
    ("Records", b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff"),
    ("X", b"\x9a\x7f\xff\xff\xff"),
    ("X", b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff"),
    ("Tags", b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff"),
    ("Data", b"\x5f\x61s\xff"),
    ("X", b"\x9f\x01"),
    ("X", b"\xbf\x61a\xff"),
    ("X", b"\x81\xff"),
    ("X", b"\xc1\xff"),
    ("Timestamp", b"\xc0\x01"),
    ("Timestamp", b"\xc2\x41\x01"),
    ("Timestamp", b"\xd9\xd9\xf7\x01"),
    ("Timestamp", b"\xc1\xc1\x01"),
    ("Timestamp", b"\xc1\x61a"),
    ("Timestamp", b"\xc1\x80"),
    ("Data", b"\xd5\x41a"),
];
/// What can be repeated to go deeper.
const DEEPER: [&[u8]; 7] = [
    b"\x81",
    b"\x9f",
    b"\xa1\x61a",
    b"\xbf\x61a",
    b"\xc1",
    b"\xd9\xd9\xf7",
    b"\x81\xa1\x61a",
];

/// CBOR that is none, or none that a request may be.
fn no_cbor() -> Vec<Vec<u8>> {
    let member =
        |name: &str, value: &[u8]| [&[0xbf], text(name).as_slice(), value, &[0xff]].concat();
    let mut bodies: Vec<Vec<u8>> = BODIES.iter().map(|body| body.to_vec()).collect();
    bodies.extend(NO_TEXTS.map(|value| member("StreamName", value)));
    bodies.extend(MEMBERS.map(|(name, value)| member(name, value)));
    for piece in DEEPER {
        let deep = piece.repeat(DEEP);
        bodies.extend(["StreamName", "Records", "X"].map(|name| member(name, &deep)));
        bodies.push(member("X", &[deep.as_slice(), b"\x01"].concat()));
        bodies.push(deep);
    }
    bodies
}

#[tokio::test]
async fn s9_what_is_no_cbor_map_is_refused() {
    let (server, mut connection) = serve().await;
    let envelope = [b"\xbf\x66__type\x76SerializationException".as_slice()].concat();
    for body in no_cbor() {
        let end = body.len().min(60);
        for operation in [
            "GetShardIterator",
            "PutRecords",
            "AddTagsToStream",
            "PutRecord",
        ] {
            let reply = answer(&mut connection, CBOR, operation, &body).await;
            let shown = format!("{operation} {:02x?}: {}", &body[..end], reply.text());
            assert_eq!(reply.status, 400, "{shown}");
            // A member that this operation does not have may be anything that is CBOR.
            let is_validation = reply
                .body
                .starts_with(b"\xbf\x66__type\x73ValidationException");
            assert!(
                reply.body.starts_with(&envelope) || is_validation,
                "{shown}"
            );
        }
    }
    connection
        .send(post(&call(CBOR, "ListStreams"), b"\xa0"))
        .await;
    assert_eq!(connection.reply().await.status, 200);
    server.shutdown().await;
}
