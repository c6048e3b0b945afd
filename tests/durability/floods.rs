//! S9: floods over HTTP/2, and bodies that are too large or never end, are bounded in memory and in time, and
//! nobody else notices.

use crate::unbreakable::survives_within;
use serde_json::json;
use std::time::Duration;
use support::frames::{
    END_HEADERS, END_STREAM, Frame, Http2, call, call_headers, frame, header_block, kind, settings,
};
use support::{RawClient, alone};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

const MIB: u64 = 1 << 20;
/// How long a connection is flooded, and how long it is listened to.
const PATIENCE: Duration = Duration::from_secs(3);
/// Within this a connection that broke the rules is closed.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);
const INITIAL_WINDOW_SIZE: u16 = 4;

fn is_goaway(frame: &Frame) -> bool {
    frame.kind == kind::GOAWAY
}

/// Floods a connection with these bytes over and over, listening to nothing; how many went through.
async fn flood(port: u16, first: &[u8], bytes: &[u8]) -> usize {
    let mut connection = Http2::open(port, &[]).await;
    connection.send(first, PATIENCE).await;
    let (began, mut rounds) = (Instant::now(), 0);
    while began.elapsed() < PATIENCE && connection.send(bytes, PATIENCE).await {
        rounds += 1;
    }
    rounds
}

/// Sends bytes that break a rule of the protocol; the connection must be given up with a word or without.
async fn broken(port: u16, what: &str, bytes: &[u8]) {
    let mut connection = Http2::open(port, &[]).await;
    connection.send(bytes, PATIENCE).await;
    let until = Instant::now() + CLOSED_WITHIN;
    let told = connection.find(until, is_goaway).await;
    assert!(
        told.is_some() || connection.ended(),
        "{what}: the connection goes on"
    );
    while connection.next(until).await.is_some() {}
    assert!(connection.ended(), "{what}: the connection stays open");
}

/// Streams that are opened and reset at once, thousands of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_streams_reset_as_they_open_are_bounded() {
    let _alone = alone().await;
    survives_within(64 * MIB, |port| async move {
        let block = call_headers("ListStreams");
        let cancel = 8_u32.to_be_bytes();
        for (at_once, data) in [(50, true), (50, false), (5, true), (5, false)] {
            let mut connection = Http2::open(port, &[]).await;
            let began = Instant::now();
            let mut stream = 1;
            while began.elapsed() < PATIENCE && !connection.ended() {
                let mut bytes = Vec::new();
                for _ in 0..at_once {
                    bytes.extend(frame(kind::HEADERS, END_HEADERS, stream, &block));
                    if data {
                        bytes.extend(frame(kind::DATA, END_STREAM, stream, b"{}"));
                    }
                    bytes.extend(frame(kind::RST_STREAM, 0, stream, &cancel));
                    stream += 2;
                }
                if !connection.send(&bytes, PATIENCE).await {
                    break;
                }
                // What comes is read, so that nothing but the resets is against the server.
                let soon = Duration::from_millis(1);
                while connection.next(Instant::now() + soon).await.is_some() {}
            }
            println!(
                "floods: {} streams reset, ended: {}",
                stream / 2,
                connection.ended()
            );
        }
    })
    .await;
}

/// Frames that ask for an answer each, or for nothing, from a client that reads none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_floods_of_frames_are_bounded() {
    let _alone = alone().await;
    survives_within(64 * MIB, |port| async move {
        let call = call_headers("ListStreams");
        let open = frame(kind::HEADERS, END_HEADERS, 1, &call);
        let floods = [
            (
                "settings",
                Vec::new(),
                settings(&[(INITIAL_WINDOW_SIZE, 65_535)]),
            ),
            ("pings", Vec::new(), frame(kind::PING, 0, 0, &[7; 8])),
            (
                "priorities",
                Vec::new(),
                frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 9]),
            ),
            ("unknown frames", Vec::new(), frame(0x42, 0, 0, &[1; 64])),
            (
                "windows",
                open.clone(),
                frame(kind::WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()),
            ),
            ("empty data", open, frame(kind::DATA, 0, 1, b"")),
        ];
        for (what, first, each) in floods {
            let rounds = flood(port, &first, &each.repeat(1_000)).await;
            println!("floods: {rounds} thousand {what}");
        }
    })
    .await;
}

/// What breaks the protocol costs the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_broken_frames_end_the_connection() {
    let _alone = alone().await;
    survives_within(64 * MIB, |port| async move {
        let block = call_headers("ListStreams");
        let headers = |stream: u32| frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block);
        let window = |stream: u32| {
            frame(
                kind::WINDOW_UPDATE,
                0,
                stream,
                &0x7fff_ffff_u32.to_be_bytes(),
            )
        };
        let endless = frame(
            kind::CONTINUATION,
            0,
            1,
            &header_block(&[("x-pad", &"p".repeat(1_000))]),
        );
        let cases: [(&str, Vec<u8>); 15] = [
            (
                "headers without an end",
                [frame(kind::HEADERS, 0, 1, &block), endless.repeat(2_000)].concat(),
            ),
            ("a stream of the server's", headers(2)),
            ("a stream of the past", [headers(5), headers(3)].concat()),
            ("headers of the connection", headers(0)),
            ("data of the connection", frame(kind::DATA, 0, 0, b"a")),
            ("data of no stream", frame(kind::DATA, 0, 9, b"a")),
            (
                "too large a frame",
                frame(kind::DATA, 0, 1, &vec![0; 16_385]),
            ),
            ("too large a window", [window(0), window(0)].concat()),
            ("no window", frame(kind::WINDOW_UPDATE, 0, 0, &[0; 4])),
            ("half a setting", frame(kind::SETTINGS, 0, 0, &[0; 5])),
            (
                "a wrong setting",
                settings(&[(INITIAL_WINDOW_SIZE, u32::MAX)]),
            ),
            ("a ping that is too short", frame(kind::PING, 0, 0, &[0; 7])),
            ("a push", frame(kind::PUSH_PROMISE, END_HEADERS, 1, &block)),
            ("more padding than frame", frame(kind::DATA, 8, 0, &[255])),
            (
                "headers in another code",
                frame(kind::HEADERS, END_HEADERS, 1, &[0xff; 100]),
            ),
        ];
        for (what, bytes) in cases {
            broken(port, what, &bytes).await;
        }
    })
    .await;
}

/// Headers that are small on the wire and large once they are read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_headers_that_unfold_are_refused() {
    let _alone = alone().await;
    survives_within(64 * MIB, |port| async move {
        for _ in 0..20 {
            let mut connection = Http2::open(port, &[]).await;
            // One header of 4,000 bytes is remembered, and then named ten thousand times.
            let mut block = call_headers("ListStreams");
            block.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
            block.extend([b'v'; 4_000]);
            let named = vec![0xbe; 10_000];
            let mut bytes = frame(kind::HEADERS, 0, 1, &block);
            bytes.extend(frame(kind::CONTINUATION, END_HEADERS, 1, &named));
            connection.send(&bytes, PATIENCE).await;
            let until = Instant::now() + CLOSED_WITHIN;
            let is_end = |frame: &Frame| {
                [kind::HEADERS, kind::RST_STREAM, kind::GOAWAY].contains(&frame.kind)
            };
            let end = connection.find(until, is_end).await;
            let served =
                end.is_some_and(|frame| support::frames::status(&frame.payload) == Some(200));
            assert!(!served, "a head of forty megabytes was served");
        }
    })
    .await;
}

/// Bodies of 100 MB, their length said and not said, over both versions, several at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_huge_bodies_are_refused_in_bounded_memory() {
    const BYTES: usize = 100_000_000;
    let _alone = alone().await;
    // The bodies under way have 128 MiB.
    survives_within(192 * MIB, |port| async move {
        let mut all = tokio::task::JoinSet::new();
        for chunked in [true, false].repeat(6) {
            all.spawn(huge_body(port, BYTES, chunked));
            all.spawn(async move {
                let mut connection = Http2::open(port, &[]).await;
                let block = call_headers("PutRecords");
                connection
                    .send(&frame(kind::HEADERS, END_HEADERS, 1, &block), PATIENCE)
                    .await;
                let piece = frame(kind::DATA, 0, 1, &[b'['; 16_384]).repeat(4);
                let began = Instant::now();
                while began.elapsed() < CLOSED_WITHIN {
                    connection.send(&piece, Duration::from_millis(100)).await;
                    let next = connection
                        .next(Instant::now() + Duration::from_millis(1))
                        .await;
                    let is_end = |frame: &Frame| {
                        frame.stream == 1 && [kind::HEADERS, kind::RST_STREAM].contains(&frame.kind)
                    };
                    if next.is_some_and(|frame| is_end(&frame)) || connection.ended() {
                        return;
                    }
                }
                panic!("a body without an end was listened to for {CLOSED_WITHIN:?}");
            });
        }
        while let Some(done) = all.join_next().await {
            done.unwrap();
        }
    })
    .await;
}

/// Sends a body over HTTP/1.1 until it is refused; the refusal may be lost with the connection.
async fn huge_body(port: u16, bytes: usize, chunked: bool) {
    let length = if chunked {
        "Transfer-Encoding: chunked".to_owned()
    } else {
        format!("Content-Length: {bytes}")
    };
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-amz-json-1.1\r\n\
         X-Amz-Target: Kinesis_20131202.PutRecords\r\n{length}\r\n\r\n"
    );
    let (mut read, mut write) = stream.split();
    let send = async {
        write.write_all(head.as_bytes()).await.ok()?;
        let piece = vec![b' '; 100_000];
        for _ in 0..bytes / piece.len() {
            if chunked {
                write.write_all(b"186A0\r\n").await.ok()?;
            }
            write.write_all(&piece).await.ok()?;
            if chunked {
                write.write_all(b"\r\n").await.ok()?;
            }
        }
        Some(())
    };
    let mut answer = Vec::new();
    let receive = read.read_to_end(&mut answer);
    let both = async { tokio::join!(send, receive) };
    timeout(2 * CLOSED_WITHIN, both)
        .await
        .expect("refused in time")
        .1
        .ok();
    let status = answer.get(9..12);
    let is_refusal = [b"413", b"503"]
        .iter()
        .any(|refusal| status == Some(refusal.as_slice()));
    assert!(
        answer.is_empty() || is_refusal,
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

/// Large answers that are asked for by the hundred and not taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_answers_that_nobody_takes_are_bounded() {
    const STREAMS: u32 = 100;
    let _alone = alone().await;
    // The answers not yet written have 128 MiB.
    survives_within(224 * MIB, |port| async move {
        let client = RawClient::new(&format!("http://127.0.0.1:{port}"));
        client.create_stream("large", 1).await;
        for _ in 0..8 {
            let put = client.put("large", "k", &vec![7; 1_000_000]).await;
            put.unwrap();
        }
        let iterator = client.trim_horizon("large", "shardId-000000000000").await;
        let body = json!({"ShardIterator": iterator.unwrap()}).to_string();
        let mut connections = Vec::new();
        for window in [0, 1, 65_535, 1 << 20] {
            let mut connection = Http2::open(port, &[(INITIAL_WINDOW_SIZE, window)]).await;
            let calls = (0..STREAMS).flat_map(|n| call(1 + 2 * n, "GetRecords", body.as_bytes()));
            let calls: Vec<u8> = calls.collect();
            connection.send(&calls, PATIENCE).await;
            connections.push(connection);
        }
        let until = Instant::now() + Duration::from_mins(1);
        for connection in &mut connections {
            for n in 0..STREAMS {
                // Taken or refused.
                let begun = |frame: &Frame| frame.kind == kind::HEADERS;
                let begun = connection.find(until, begun).await;
                assert!(
                    begun.is_some() || connection.ended(),
                    "answer {n} does not begin"
                );
            }
        }
    })
    .await;
}
