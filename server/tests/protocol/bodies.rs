//! Bodies that no client should send, as JSON and as CBOR: each gets a bounded refusal in AWS's form, and the
//! connection goes on with the next request.

use crate::raw::{CBOR, Connection, JSON, Reply, ask, assert_serves, call, list, post, start};
use crate::raw::{SIGNED, TWO};
use millstream_server::Server;
use millstream_wire::Operation;
use std::time::Duration;
use tokio::time::Instant;

/// A refusal is never longer, whatever it echoes.
const REFUSAL_MAX_BYTES: usize = 100_000;
/// As long as any body may take, in a debug build.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
const SERIALIZATION: &str = r#"{"__type":"SerializationException"}"#;
pub(crate) const DEEP: usize = 10_000;

pub(crate) async fn serve() -> (Server, Connection) {
    let server = start().await;
    let create = post(
        &call(JSON, "CreateStream"),
        r#"{"StreamName":"s","ShardCount":1}"#,
    );
    ask(server.local_addr(), create).await.assert(200, "");
    let connection = Connection::open(server.local_addr()).await;
    (server, connection)
}

/// The answer to a body, on a connection that goes on.
pub(crate) async fn answer(
    connection: &mut Connection,
    kind: &str,
    operation: &str,
    body: &[u8],
) -> Reply {
    let began = Instant::now();
    connection.send(post(&call(kind, operation), body)).await;
    let reply = connection.reply().await;
    assert!(
        began.elapsed() < ANSWERED_WITHIN,
        "{operation} took {:?}",
        began.elapsed()
    );
    assert!(
        reply.body.len() < REFUSAL_MAX_BYTES,
        "{operation}: {} bytes",
        reply.body.len()
    );
    assert_eq!(reply.header("content-type"), Some(kind), "{reply:?}");
    reply
}

/// A value in a value in a value.
fn nested(open: &str, close: &str, depth: usize) -> String {
    [open.repeat(depth), close.repeat(depth)].concat()
}

/// Each with whether the deep value stands where something is looked for.
fn deep_json() -> Vec<(&'static str, bool, String)> {
    let lists = nested("[", "]", DEEP);
    let objects = format!("{}1{}", r#"{"a":"#.repeat(DEEP), "}".repeat(DEEP));
    let mixed = format!("{}1{}", r#"[{"a":"#.repeat(DEEP), "}]".repeat(DEEP));
    let mut bodies = Vec::new();
    for value in [lists, objects, mixed, "[".repeat(DEEP)] {
        let mut add = |operation, looked_into, body| bodies.push((operation, looked_into, body));
        let is_whole = !value.ends_with('[');
        add(
            "PutRecords",
            !value.starts_with("[{") || !is_whole,
            format!(r#"{{"Records":{value}}}"#),
        );
        add("PutRecords", true, format!(r#"{{"StreamName":{value}}}"#));
        add(
            "PutRecords",
            true,
            format!(r#"{{"Records":[{{"Data":{value}}}]}}"#),
        );
        add(
            "PutRecords",
            !is_whole,
            format!(r#"{{"Records":[{{"X":{value}}}]}}"#),
        );
        add("PutRecords", !is_whole, format!(r#"{{"X":{value}}}"#));
        add(
            "AddTagsToStream",
            true,
            format!(r#"{{"Tags":{{"a":{value}}}}}"#),
        );
        add(
            "CreateStream",
            !is_whole,
            format!(r#"{{"StreamModeDetails":{{"X":{value}}}}}"#),
        );
        add(
            "ListShards",
            !value.starts_with('{') || !is_whole,
            format!(r#"{{"ShardFilter":{value}}}"#),
        );
        add("ListStreams", !value.starts_with('{'), value);
    }
    bodies
}

/// A deep value where something is looked for is refused; where nobody looks it may be of any depth, and then
/// something else is missing.
#[tokio::test]
async fn s9_json_is_not_followed_into_any_depth() {
    let (server, mut connection) = serve().await;
    for (operation, looked_into, body) in deep_json() {
        let reply = answer(&mut connection, JSON, operation, body.as_bytes()).await;
        let shown = format!("{operation} {}: {}", &body[..40], reply.text());
        if looked_into {
            let begin = r#"{"__type":"SerializationException""#;
            assert!(
                reply.status == 400 && reply.text().starts_with(begin),
                "{shown}"
            );
        } else {
            assert!(
                reply.status == 200 || reply.text().contains("ValidationException"),
                "{shown}"
            );
        }
    }
    // As deep as anything that a client would send is no matter.
    let body = format!(r#"{{"StreamName":"s","X":{}}}"#, nested("[", "]", 60));
    let reply = answer(&mut connection, JSON, "DescribeStream", body.as_bytes()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    server.shutdown().await;
}

/// Texts that are no JSON, or no JSON object.
const NO_OBJECTS: [&str; 45] = [
    "null",
    "true",
    "0",
    "\"{}\"",
    "[]",
    "[{}]",
    "{",
    "}",
    "{]",
    "{}{}",
    "{} x",
    "{}\0",
    "{},",
    "\u{b}{}",
    r#"{"a"}"#,
    r#"{"a":}"#,
    r#"{"a":1,}"#,
    r#"{,"a":1}"#,
    r#"{"a":1 "b":2}"#,
    "{a:1}",
    "{'a':1}",
    r#"{"a":1;}"#,
    "{/**/}",
    r#"{"a":"}"#,
    r#"{"a":"\"}"#,
    r#"{"a":"\x41"}"#,
    r#"{"a":"\u12"}"#,
    r#"{"StreamName":"\ud800"}"#,
    r#"{"StreamName":"\udc00\ud800"}"#,
    r#"{"a":NaN}"#,
    r#"{"a":Infinity}"#,
    r#"{"a":-Infinity}"#,
    r#"{"a":01}"#,
    r#"{"a":1.}"#,
    r#"{"a":.5}"#,
    r#"{"a":+1}"#,
    r#"{"a":1e}"#,
    r#"{"a":0x1}"#,
    r#"{"a":-}"#,
    r#"{"a":--1}"#,
    r#"{"a":1_0}"#,
    r#"{"a":tru}"#,
    r#"{"a":nul}"#,
    r#"{"a":undefined}"#,
    "{1:2}",
];

/// Bodies that are no JSON, or no JSON object, or not in UTF-8.
fn no_json() -> Vec<Vec<u8>> {
    let wide = |little: bool, text: &str| -> Vec<u8> {
        let pairs = text.encode_utf16();
        pairs
            .flat_map(|pair| {
                if little {
                    pair.to_le_bytes()
                } else {
                    pair.to_be_bytes()
                }
            })
            .collect()
    };
    let object = r#"{"StreamName":"s"}"#;
    let mut bodies = vec![
        wide(true, object),
        wide(false, object),
        wide(true, &format!("\u{feff}{object}")),
        wide(false, &format!("\u{feff}{object}")),
        format!("\u{feff}{object}").into_bytes(),
        b"{\"StreamName\":\"\xff\"}".to_vec(),
        b"{\"StreamName\":\"\xc0\xaf\"}".to_vec(),
        b"{\"StreamName\":\"\xed\xa0\x80\"}".to_vec(),
        b"{\"\xff\":1}".to_vec(),
        b"{\"StreamName\":\"\x00\"}".to_vec(),
        b"{\"StreamName\":\"a\nb\"}".to_vec(),
        // gzip's two first bytes, and what they begin.
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xabV*.)J\xccMU\xb2R*V\xaa\x05\x00".to_vec(),
        vec![0; 1_000],
        vec![b' '; 1_000],
    ];
    bodies.extend(NO_OBJECTS.map(|text| text.as_bytes().to_vec()));
    bodies
}

#[tokio::test]
async fn s9_what_is_no_json_object_is_refused() {
    let (server, mut connection) = serve().await;
    for body in no_json() {
        let reply = answer(&mut connection, JSON, "DescribeStream", &body).await;
        let shown = String::from_utf8_lossy(&body);
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (400, SERIALIZATION),
            "{shown:?}"
        );
    }
    // Compressed bodies are not unpacked, whatever the head says.
    let gzip = "\x1f\x08";
    let head = format!("Content-Encoding: gzip\r\n{}", call(JSON, "ListStreams"));
    connection.send(post(&head, gzip)).await;
    connection.reply().await.assert(400, SERIALIZATION);
    connection.send(list("1.1", "/", TWO, "{}")).await;
    assert_eq!(connection.reply().await.status, 200);
    server.shutdown().await;
}

/// What is odd and allowed: members nobody knows, names twice, numbers beyond all, escapes, white space.
#[tokio::test]
async fn odd_json_means_what_it_says() {
    let (server, mut connection) = serve().await;
    let many: String = (0..20_000).map(|n| format!(r#""x{n}":{n},"#)).collect();
    let same = r#""x":1,"#.repeat(20_000);
    for members in [
        r#""X":1e999999,"Y":-1e-999999,"Z":123456789012345678901234567890123456789012345678901234567890,"#,
        r#""X":[1,"two",null,{"a":[]}],"Y":{"StreamName":1},"#,
        r#""":{},"\u0000":1,"#,
        &many,
        &same,
        "\r\n\t ",
    ] {
        let body = format!(r#" {{{members}"Stream\u004eame":"\u0073"}} "#);
        let reply = answer(
            &mut connection,
            JSON,
            "DescribeStreamSummary",
            body.as_bytes(),
        )
        .await;
        assert_eq!(
            reply.status,
            200,
            "{} {reply:?}",
            &members[..members.len().min(80)]
        );
    }
    // Beyond what a number of any kind can be, where one is looked for.
    for number in ["1e400", "-1e4000000000"] {
        let body = format!(r#"{{"Limit":{number}}}"#);
        let reply = answer(&mut connection, JSON, "ListStreams", body.as_bytes()).await;
        reply.assert(400, SERIALIZATION);
    }
    // A member that is looked for, twice: which one is meant is not guessed.
    let body = br#"{"StreamName":"none","StreamName":"s"}"#;
    let reply = answer(&mut connection, JSON, "DescribeStream", body).await;
    reply.assert(400, SERIALIZATION);
    // AWS's numbers have 32 bits here, and fractions are cut down.
    for (number, shown) in [
        ("-0", "0"),
        ("-0.0", "0"),
        ("0.9999999999", "0"),
        ("-0.5", "-1"),
        ("10001", "10001"),
        ("9223372036854775808", "2147483647"),
        ("-9223372036854775809", "-2147483648"),
        ("1e30", "2147483647"),
        (
            "99999999999999999999999999999999999999999999999999",
            "2147483647",
        ),
    ] {
        let body = format!(r#"{{"Limit":{number}}}"#);
        let reply = answer(&mut connection, JSON, "ListStreams", body.as_bytes()).await;
        let rule = if shown.starts_with('-') || shown == "0" {
            "greater than or equal to 1"
        } else {
            "less than or equal to 10000"
        };
        let text = format!(
            "1 validation error detected: Value '{shown}' at 'limit' failed to satisfy constraint: Member must have \
             value {rule}"
        );
        reply.assert(
            400,
            &format!(r#"{{"__type":"ValidationException","message":"{text}"}}"#),
        );
    }
    server.shutdown().await;
}

/// Every operation, and a value of fifteen megabytes in each place that a text may stand: the refusal is bounded.
#[tokio::test]
async fn s9_what_is_echoed_is_bounded() {
    let (server, mut connection) = serve().await;
    let large = "\u{1f4a3}".repeat(1_000_000);
    for (operation, body) in [
        ("DescribeStream", format!(r#"{{"StreamName":"{large}"}}"#)),
        (
            "DescribeStream",
            format!(
                r#"{{"StreamName":"{large}","StreamARN":"{large}","ExclusiveStartShardId":"{large}"}}"#
            ),
        ),
        (
            "AddTagsToStream",
            format!(r#"{{"StreamName":"s","Tags":{{"{large}":"{large}"}}}}"#),
        ),
        (
            "RemoveTagsFromStream",
            format!(r#"{{"StreamName":"s","TagKeys":["{large}","{large}"]}}"#),
        ),
        (
            "PutRecord",
            format!(
                r#"{{"StreamName":"s","PartitionKey":"{large}","Data":"","ExplicitHashKey":"{large}"}}"#
            ),
        ),
        (
            "PutRecord",
            format!(r#"{{"StreamName":"s","PartitionKey":"k","Data":"{large}"}}"#),
        ),
        (
            "GetShardIterator",
            format!(r#"{{"StreamName":"s","ShardId":"{large}","ShardIteratorType":"{large}"}}"#),
        ),
        ("GetRecords", format!(r#"{{"ShardIterator":"{large}"}}"#)),
        ("ListShards", format!(r#"{{"NextToken":"{large}"}}"#)),
        ("ListStreams", format!(r#"{{"NextToken":"{large}"}}"#)),
        (
            "DescribeStreamConsumer",
            format!(r#"{{"ConsumerARN":"{large}"}}"#),
        ),
        (
            "EnableEnhancedMonitoring",
            format!(r#"{{"StreamName":"s","ShardLevelMetrics":["{large}"]}}"#),
        ),
    ] {
        let reply = answer(&mut connection, JSON, operation, body.as_bytes()).await;
        assert_eq!(reply.status, 400, "{operation}");
        serde_json::from_slice::<serde_json::Value>(&reply.body).expect("still JSON");
    }
    let huge = format!("Authorization: {}\r\nX-Amz-Date: d\r\n", "x".repeat(40_000));
    let head = call(JSON, "ListStreams").replace(SIGNED, &huge);
    connection.send(post(&head, "{}")).await;
    let reply = connection.reply().await;
    assert!(
        reply.status == 400 && reply.body.len() < 10_000,
        "{}",
        reply.body.len()
    );
    server.shutdown().await;
}

/// Each operation with bodies that are hopeless for all of them, in both encodings: never an internal failure,
/// never a success, and each refusal in its encoding.
#[tokio::test]
async fn s9_no_operation_takes_a_hopeless_body() {
    let server = start().await;
    let mut connection = Connection::open(server.local_addr()).await;
    let deep = "[".repeat(DEEP);
    let bodies: [(&str, Vec<u8>); 10] = [
        (JSON, b"null".to_vec()),
        (JSON, b"[]".to_vec()),
        (JSON, b"{\"a\":\"\xff".to_vec()),
        (JSON, format!(r#"{{"a":{deep}"#).into_bytes()),
        (JSON, vec![b'{'; 100_000]),
        (CBOR, b"\x80".to_vec()),
        (CBOR, b"\xbf\x61a".to_vec()),
        (CBOR, [b"\xbf\x61a".as_slice(), &vec![0x81; DEEP]].concat()),
        (
            CBOR,
            b"\xbf\x61a\x7b\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        ),
        (CBOR, vec![0xbf; 100_000]),
    ];
    for operation in Operation::ALL {
        for (kind, body) in &bodies {
            let reply = answer(&mut connection, kind, operation.name(), body).await;
            let shown = format!(
                "{operation} {kind} {:02x?}: {}",
                &body[..body.len().min(20)],
                reply.text()
            );
            assert_eq!(reply.status, 400, "{shown}");
            assert!(reply.text().contains("SerializationException"), "{shown}");
        }
    }
    assert_serves(server.local_addr()).await;
    server.shutdown().await;
}
