//! S9: no bytes make the server panic, hang or forget its other clients.

use crate::SERVER;
use crate::puts::{count, put_each, read_whole};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::client::AUTHORIZATION;
use support::{ServerProcess, alone, scaled, seeded};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::time::{Instant, timeout};

const STREAM: &str = "steady";
/// How long a hostile connection is listened to.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// The most a well-behaved request may take meanwhile, on a busy machine and in a debug build.
const SERVED_WITHIN: Duration = Duration::from_secs(5);

/// Where attackers take all they can get of two processors, a put of somebody else waits for one of them, more than once.
const BESIDE: Duration = Duration::from_millis(20);

const HUGE_HEADER: &str = "a huge header";

/// A request whose head is right.
fn request(operation: &str, body: &[u8]) -> Vec<u8> {
    with_length(operation, &body.len().to_string(), body)
}

fn with_length(operation: &str, length: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-amz-json-1.1\r\n\
         X-Amz-Target: Kinesis_20131202.{operation}\r\nX-Amz-Date: 20260101T000000Z\r\n\
         Authorization: {AUTHORIZATION}\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Whether the sender goes on listening or hangs up in the middle.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    Listen,
    /// Sends no more, and listens.
    Finish,
    HangUp,
}

/// Sends bytes; the status of the first answer, if one came.
async fn send(port: u16, bytes: &[u8], manner: Manner) -> Option<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("the server accepts");
    let mut answer = Vec::new();
    let talk = async {
        // A server may well stop listening to this.
        if stream.write_all(bytes).await.is_err() || manner == Manner::HangUp {
            return;
        }
        if manner == Manner::Finish {
            let _ = stream.shutdown().await;
        }
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..read]);
            if answer.starts_with(b"HTTP/1.1 ") && answer.len() >= 12 {
                return;
            }
        }
    };
    // No answer in time is an answer, too: half a request has none to expect.
    let _ = timeout(PATIENCE, talk).await;
    let status = answer.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    std::str::from_utf8(status).ok()?.parse().ok()
}

/// A normal client, in a thread of its own, that puts records `from` on one after the other until `is_enough` of so many; how long each put took.
fn steady(
    server: &ServerProcess,
    from: u64,
    is_enough: impl Fn(usize) -> bool + Send + 'static,
) -> std::thread::JoinHandle<Vec<Duration>> {
    let client = server.client();
    let puts = async move {
        let mut took = Vec::new();
        for n in from.. {
            let began = Instant::now();
            put_each(&client, STREAM, n..n + 1).await;
            took.push(began.elapsed());
            if is_enough(took.len()) {
                break;
            }
        }
        took
    };
    std::thread::spawn(|| {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(puts)
    })
}

/// The longest but one of a hundred.
fn p99(took: &mut [Duration]) -> Duration {
    took.sort_unstable();
    let most = took.len().saturating_sub(took.len() / 100 + 1);
    took.get(most).copied().unwrap_or_default()
}

/// Runs `attack` while a normal client goes on, and then asks whether the server is as it was.
async fn survives<F: Future<Output = ()>>(attack: impl FnOnce(u16) -> F) {
    survives_within(64 << 20, attack).await;
}

/// The same of an attack that may take so many bytes of memory.
pub(crate) async fn survives_within<F: Future<Output = ()>>(
    memory: u64,
    attack: impl FnOnce(u16) -> F,
) {
    let mut server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 1).await;
    let puts = scaled(300, 3_000);
    let mut quiet = steady(&server, 0, move |put| put == puts).join().unwrap();
    let before = server.reset_peak_memory();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let from = u64::try_from(puts).unwrap();
    let normal = steady(&server, from, move |_| stopped.load(Ordering::SeqCst));
    attack(server.port()).await;
    stop.store(true, Ordering::SeqCst);
    let mut took = normal.join().unwrap();
    let longest = took.iter().max().copied().unwrap_or_default();
    let put = from + u64::try_from(took.len()).unwrap();
    let grown = server.peak_memory() - before;
    assert!(grown < memory, "{} MiB more memory were taken", grown >> 20);
    assert!(server.is_running(), "{}", server.log());
    assert!(!server.log().contains("panicked"), "{}", server.log());
    assert!(
        longest < SERVED_WITHIN,
        "a put of another client took {longest:?}"
    );
    let acked = put_each(&client, STREAM, put..put + 1).await;
    let whole = read_whole(&client, STREAM, &acked).await;
    assert_eq!(u64::try_from(count(&whole)).unwrap(), put + 1);
    let (quiet, meanwhile) = (p99(&mut quiet), p99(&mut took));
    println!(
        "unbreakable: {} puts of another client meanwhile, p99 {meanwhile:?} (before it {quiet:?}), the longest {longest:?}; \
         {} MiB and {} more of memory",
        took.len(),
        before >> 20,
        grown >> 20
    );
    // A debug build reads what is thrown at it ten times as long, with the processors that its clients have, too.
    assert!(
        cfg!(debug_assertions) || meanwhile <= (quiet * 2).max(BESIDE),
        "puts of another client took {meanwhile:?} (99 %) instead of {quiet:?}"
    );
    // Nothing that was left open keeps it from ending well.
    assert_eq!(server.terminate().await.code, Some(0));
}

/// Bodies that no client should send, with right heads.
fn odd_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let deep = |open: &str, close: &str, depth| {
        let mut body = open.repeat(depth);
        body.push_str(&close.repeat(depth));
        body.into_bytes()
    };
    let member = |body: &[u8]| {
        let mut bytes = br#"{"StreamName":"steady","PartitionKey":"k","Data":"#.to_vec();
        bytes.extend_from_slice(body);
        bytes.push(b'}');
        bytes
    };
    let puts = [
        ("an empty body", Vec::new()),
        ("open arrays", b"[".repeat(1_000_000)),
        ("deep arrays", deep("[", "]", 200_000)),
        ("deep objects", deep("{\"a\":", "}", 200_000)),
        ("a deep member", member(&deep("[", "]", 100_000))),
        ("no UTF-8", b"{\"StreamName\":\"\xff\xfe\"}".to_vec()),
        ("a lone surrogate", br#"{"StreamName":"\ud800"}"#.to_vec()),
        ("no base64", member(b"\"%%%%\"")),
        ("a text", b"\"text\"".to_vec()),
        ("null", b"null".to_vec()),
        (
            "null members",
            br#"{"StreamName":null,"Data":null}"#.to_vec(),
        ),
    ];
    let gets: [(_, &[u8]); 2] = [
        (
            "a huge number",
            br#"{"ShardIterator":"x","Limit":1e999999}"#,
        ),
        ("an odd iterator", br#"{"ShardIterator":"AAAA////"}"#),
    ];
    let puts = puts.map(|(what, body)| (what, request("PutRecord", &body)));
    let gets = gets.map(|(what, body)| (what, request("GetRecords", body)));
    puts.into_iter().chain(gets).collect()
}

/// Heads that no client should send.
fn odd_heads() -> Vec<(&'static str, Vec<u8>)> {
    let header = |line: String| {
        let mut bytes = b"POST / HTTP/1.1\r\nHost: localhost\r\n".to_vec();
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend_from_slice(b"\r\n\r\n");
        bytes
    };
    let lengths = [
        ("a length below zero", "-1"),
        ("a length beyond all", "99999999999999999999999"),
        ("a length too large", "9999999999"),
        ("a length in words", "two"),
        ("a length too small", "2"),
    ];
    let headers = [
        (
            "two lengths",
            "Content-Length: 3\r\nContent-Length: 5".to_owned(),
        ),
        ("a header without a name", ": nothing".to_owned()),
        (HUGE_HEADER, format!("X-Huge: {}", "h".repeat(900_000))),
        ("many headers", "X-Many: v\r\n".repeat(5_000)),
        (
            "a huge target",
            format!("X-Amz-Target: {}", "t".repeat(50_000)),
        ),
    ];
    let body = br#"{"StreamName":"steady"}"#;
    let lengths = lengths.map(|(what, length)| (what, with_length("PutRecord", length, body)));
    let headers = headers.map(|(what, line)| (what, header(line)));
    let mut heads = vec![("no such operation", request("DropTables", b"{}"))];
    heads.extend(lengths);
    heads.extend(headers);
    heads
}

/// Requests that are HTTP and nothing a client should send: each is refused, and not by an internal failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_malformed_requests_are_refused() {
    let _alone = alone().await;
    survives(|port| async move {
        for (what, bytes) in odd_bodies().into_iter().chain(odd_heads()) {
            let status = send(port, &bytes, Manner::Listen).await;
            let refused = status.is_some_and(|status| (400..500).contains(&status));
            // The connection may be closed before all of it was sent, and the answer lost with it.
            let is_cut = what == HUGE_HEADER && status.is_none();
            assert!(refused || is_cut, "{what}: answered {status:?}");
        }
    })
    .await;
}

/// Every operation with bodies of the wrong shape.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_no_operation_fails_inside_on_odd_input() {
    const OPERATIONS: [&str; 14] = [
        "CreateStream",
        "DeleteStream",
        "DescribeStream",
        "DescribeStreamSummary",
        "ListStreams",
        "ListShards",
        "SplitShard",
        "MergeShards",
        "PutRecord",
        "PutRecords",
        "GetShardIterator",
        "GetRecords",
        "AddTagsToStream",
        "IncreaseStreamRetentionPeriod",
    ];
    const BODIES: [&str; 10] = [
        "null",
        "[]",
        "0",
        "\"\"",
        "{\"StreamName\":{}}",
        "{\"StreamName\":\"\"}",
        "{\"StreamName\":\"no-such-stream\",\"Limit\":-1,\"ShardCount\":-1,\"MaxResults\":0}",
        "{\"StreamARN\":\"arn:aws:kinesis:::\",\"StreamName\":\"a\"}",
        "{\"NextToken\":\"AAAA\",\"ShardIterator\":\"AAAA\"}",
        "{\"StreamName\":\"steady\",\"ShardId\":\"shardId-999999999999\",\"ShardToSplit\":\"shardId-18446744073709551616\",\
          \"ShardToMerge\":\"\\u0000\",\"AdjacentShardToMerge\":\"x\",\"NewStartingHashKey\":\"340282366920938463463374607431768211456\",\
          \"StartingSequenceNumber\":\"99999999999999999999999999999999999999999999999999999999\",\
          \"ShardIteratorType\":\"AT_SEQUENCE_NUMBER\",\"PartitionKey\":\"\",\"Data\":\"\",\"ExplicitHashKey\":\"-1\",\
          \"Records\":[],\"RetentionPeriodHours\":2147483647,\"Tags\":{\"\":\"\"}}",
    ];
    let _alone = alone().await;
    survives(|port| async move {
        for operation in OPERATIONS {
            for body in BODIES {
                if operation == "DeleteStream" && body.contains(STREAM) {
                    // That would be no odd input.
                    continue;
                }
                let status = send(port, &request(operation, body.as_bytes()), Manner::Listen).await;
                let answered = status.is_some_and(|status| (200..500).contains(&status));
                assert!(answered, "{operation} {body}: answered {status:?}");
            }
        }
    })
    .await;
}

/// Bytes that are no HTTP, halves of requests, and requests with some bytes changed, from many connections at
/// once, some hung up in the middle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_random_bytes_are_survived() {
    let _alone = alone().await;
    let mut random = seeded("s9_random_bytes");
    let put = br#"{"StreamName":"scratch","PartitionKey":"k","Data":"AAAA","ExplicitHashKey":"7"}"#;
    let sound = request("PutRecord", put);
    let mut attacks: Vec<(Vec<u8>, Manner)> = vec![
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
            Manner::Listen,
        ),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            Manner::Finish,
        ),
        (b"GET /\r\n\r\n".to_vec(), Manner::Listen),
        (b"\r\n\r\n\r\n\r\n".to_vec(), Manner::Finish),
        (vec![0; 100_000], Manner::Listen),
        (with_length("PutRecord", "1000000", b"{"), Manner::Listen),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n".to_vec(),
            Manner::Listen,
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{".to_vec(),
            Manner::Listen,
        ),
    ];
    let manners = [Manner::Listen, Manner::Finish, Manner::HangUp];
    for _ in 0..scaled(600, 20_000) {
        let mut bytes = sound.clone();
        match random.u8(..3) {
            0 => bytes = (0..random.usize(..3_000)).map(|_| random.u8(..)).collect(),
            1 => bytes.truncate(random.usize(..sound.len())),
            _ => {
                for _ in 0..random.usize(1..6) {
                    let at = random.usize(..sound.len());
                    bytes[at] = random.u8(..);
                }
            }
        }
        attacks.push((bytes, manners[random.usize(..3)]));
    }
    let is_internal = |status: &Option<u16>| *status == Some(500);
    survives(|port| async move {
        // Many at a time: a half request is waited for.
        for wave in attacks.chunks(100) {
            let mut answers = tokio::task::JoinSet::new();
            for (bytes, manner) in wave.iter().cloned() {
                answers.spawn(async move { (send(port, &bytes, manner).await, bytes) });
            }
            while let Some(answer) = answers.join_next().await {
                let (status, bytes) = answer.unwrap();
                let shown = String::from_utf8_lossy(&bytes);
                assert!(!is_internal(&status), "an internal failure for {shown:?}");
            }
        }
    })
    .await;
}
