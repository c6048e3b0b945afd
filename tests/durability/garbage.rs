//! S9: no request bytes make the server panic, hang or leak; the next request is served.

use crate::{SERVER, STREAM};
use serde_json::json;
use std::fs;
use std::time::Duration;
use support::client::AUTHORIZATION;
use support::{RawClient, ServerProcess};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest a well-formed request may take while or after the server is fed with garbage.
const PROMPT: Duration = Duration::from_secs(3);

fn post(target: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST / HTTP/1.1\r\nhost: localhost\r\nx-amz-target: Kinesis_20131202.{target}\r\n\
         x-amz-date: 20260101T000000Z\r\nauthorization: {AUTHORIZATION}\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn json_post(target: &str, body: &[u8]) -> Vec<u8> {
    let headers = format!(
        "content-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n",
        body.len()
    );
    post(target, &headers, body)
}

/// Bytes that are no request, or one that means nothing.
fn garbage(random: &mut fastrand::Rng) -> Vec<(String, Vec<u8>)> {
    let json = "content-type: application/x-amz-json-1.1\r\n";
    let mut cases: Vec<(String, Vec<u8>)> = [
        ("nothing", vec![]),
        ("a line end", b"\r\n".to_vec()),
        ("zeros", vec![0; 10_000]),
        (
            "no HTTP",
            b"EHLO example.org\r\nMAIL FROM:<a@b>\r\n\r\n".to_vec(),
        ),
        ("half a request line", b"POST / HT".to_vec()),
        ("no version", b"POST /\r\n\r\n".to_vec()),
        ("version 9", b"POST / HTTP/9.9\r\nhost: x\r\n\r\n".to_vec()),
        (
            "TLS hello",
            [
                &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
                &[7; 300],
            ]
            .concat(),
        ),
        (
            "HTTP/2 preface and noise",
            [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0xff; 500]].concat(),
        ),
        (
            "HTTP/2 frame of 16 MiB announced",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x00\x00\x00\x00\x00\x01".to_vec(),
        ),
        (
            "endless header",
            [&b"POST / HTTP/1.1\r\nx: "[..], &vec![b'a'; 2_000_000]].concat(),
        ),
        (
            "many headers",
            [
                b"POST / HTTP/1.1\r\n".to_vec(),
                b"x: y\r\n".repeat(20_000),
                b"\r\n".to_vec(),
            ]
            .concat(),
        ),
        (
            "body of 10 GB announced",
            post(
                "PutRecord",
                &format!("{json}content-length: 10000000000\r\n"),
                b"{",
            ),
        ),
        (
            "negative length",
            post("PutRecord", &format!("{json}content-length: -1\r\n"), b"{}"),
        ),
        (
            "two lengths",
            post(
                "PutRecord",
                &format!("{json}content-length: 2\r\ncontent-length: 3\r\n"),
                b"{}",
            ),
        ),
        (
            "bad chunks",
            post(
                "PutRecord",
                &format!("{json}transfer-encoding: chunked\r\n"),
                b"zz\r\n{}\r\n",
            ),
        ),
        (
            "body cut off",
            post(
                "PutRecord",
                &format!("{json}content-length: 100\r\n"),
                b"{\"Stream",
            ),
        ),
        ("no JSON", json_post("PutRecord", b"}{")),
        (
            "no UTF-8",
            json_post("PutRecord", b"{\"StreamName\": \"\xff\xfe\"}"),
        ),
        ("a list", json_post("PutRecord", b"[]")),
        (
            "lone surrogate",
            json_post(
                "PutRecord",
                br#"{"StreamName":"orders","PartitionKey":"\ud800","Data":"eA=="}"#,
            ),
        ),
        (
            "deep list",
            json_post(
                "PutRecords",
                &[b"{\"Records\":".to_vec(), vec![b'['; 500_000]].concat(),
            ),
        ),
        (
            "deep map",
            json_post("PutRecord", &br#"{"a":"#.repeat(100_000)),
        ),
        (
            "huge number",
            json_post(
                "GetRecords",
                &[b"{\"Limit\":".to_vec(), vec![b'9'; 100_000], b"}".to_vec()].concat(),
            ),
        ),
        (
            "bad Base64",
            json_post(
                "PutRecord",
                br#"{"StreamName":"orders","PartitionKey":"k","Data":"*"}"#,
            ),
        ),
        ("unknown operation", json_post("DropEverything", b"{}")),
        (
            "CBOR that is none",
            post(
                "PutRecord",
                "content-type: application/x-amz-cbor-1.1\r\ncontent-length: 4\r\n",
                &[0xff, 0x9f, 0xbf, 0x1c],
            ),
        ),
        (
            "unknown method",
            b"BREW / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        ),
        (
            "strange path",
            b"GET /%00/../../etc/passwd HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        ),
    ]
    .into_iter()
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .collect();
    let good = json_post(
        "PutRecord",
        br#"{"StreamName":"orders","PartitionKey":"k","Data":"eA=="}"#,
    );
    for n in 0..support::scaled(60, 3000) {
        let mut bytes: Vec<u8> = (0..random.usize(1..2000)).map(|_| random.u8(..)).collect();
        if n % 2 == 0 {
            bytes = good.clone();
            for _ in 0..random.usize(1..8) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
        }
        cases.push((
            format!("random {n}: {}", String::from_utf8_lossy(&bytes)),
            bytes,
        ));
    }
    cases
}

/// Sends bytes, closes its side, and reads what comes, for a moment.
async fn throw(port: u16, bytes: &[u8]) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let exchange = async {
        // The server may close on us at any point; that is an answer.
        let _ = socket.write_all(bytes).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
    };
    let _ = tokio::time::timeout(Duration::from_millis(300), exchange).await;
}

async fn assert_serves(client: &RawClient, after: &str) {
    let call = client.put(STREAM, "writer", b"writer:1");
    match tokio::time::timeout(PROMPT, call).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => panic!("S9: after {after}: {error}"),
        Err(_) => panic!("S9: after {after}: no answer in {PROMPT:?}"),
    }
}

async fn memory_kib(port: u16) -> u64 {
    let table = tokio::process::Command::new("sh")
        .args(["-c", &format!("for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -q -- '--port {port} ' && grep VmRSS $p/status; done")])
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&table.stdout).into_owned();
    let number = text
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok());
    number.unwrap_or_else(|| panic!("no VmRSS in {text:?}"))
}

/// Every kind of garbage on a connection of its own; after each a well-formed request is served promptly, and
/// in the end nothing has panicked and memory is where it was.
#[tokio::test(flavor = "multi_thread")]
async fn s9_garbage_leaves_the_next_request_served() {
    let _alone = support::alone().await;
    let mut server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 1).await;
    let cases = garbage(&mut support::seeded("s9"));
    for (name, bytes) in cases.iter().take(10) {
        throw(server.port(), bytes).await;
        assert_serves(&client, name).await;
    }
    let before = memory_kib(server.port()).await;
    for (name, bytes) in &cases {
        throw(server.port(), bytes).await;
        assert_serves(&client, name).await;
    }
    assert!(server.is_running());
    assert!(!server.log().contains("panicked"), "{}", server.log());
    let after = memory_kib(server.port()).await;
    println!(
        "{} cases, {before} KiB before, {after} KiB after",
        cases.len()
    );
    assert!(
        after < before + 64 * 1024,
        "S9: memory went from {before} to {after} KiB"
    );
    let ended = server.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// Hundreds of clients that begin a request and say nothing more hold up nobody else, nor the end of the server.
#[tokio::test(flavor = "multi_thread")]
async fn s9_silent_connections_hold_up_nobody() {
    let mut server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 1).await;
    let begun = post(
        "PutRecord",
        "content-type: application/x-amz-json-1.1\r\ncontent-length: 1000\r\n",
        b"{",
    );
    let mut silent = Vec::new();
    for n in 0..300 {
        let mut socket = TcpStream::connect(("127.0.0.1", server.port()))
            .await
            .unwrap();
        let some = if n % 3 == 0 {
            0
        } else {
            begun.len() / (1 + n % 2)
        };
        socket.write_all(&begun[..some]).await.unwrap();
        silent.push(socket);
    }
    assert_serves(&client, "300 silent connections").await;
    let ended = server.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!fs::exists(server.data().join("core")).unwrap());
    server.restart().await;
    let shards = client
        .must("ListShards", json!({"StreamName": STREAM}))
        .await;
    assert_eq!(shards["Shards"].as_array().map(Vec::len), Some(1));
}
