//! HTTP/2 as the frames go: many streams, odd but allowed frames, malformed requests, draining, and answers that
//! their client leaves where they are.

use crate::frames::{
    END_HEADERS, END_STREAM, Frame, Http2, call, call_headers, frame, header_block, kind, settings,
};
use crate::raw::{JSON, LIMIT, NO_STREAMS, ask, assert_serves, front, post, start};
use millstream_server::Server;
use std::time::Duration;
use tokio::time::{Instant, timeout};

const INITIAL_WINDOW_SIZE: u16 = 4;

fn soon() -> Instant {
    Instant::now() + LIMIT
}

async fn open(server: &Server) -> Http2 {
    Http2::open(server.local_addr().port(), &[]).await
}

/// Headers and one frame of body.
fn request(stream: u32, block: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = frame(kind::HEADERS, END_HEADERS, stream, block);
    bytes.extend(frame(kind::DATA, END_STREAM, stream, body));
    bytes
}

async fn send(connection: &mut Http2, bytes: &[u8]) {
    assert!(
        connection.send(bytes, LIMIT).await,
        "the server takes bytes"
    );
}

#[tokio::test]
async fn many_streams_at_a_time_get_their_own_answers() {
    let server = start().await;
    let mut connection = open(&server).await;
    let hello = connection
        .find(soon(), |frame| frame.kind == kind::SETTINGS)
        .await
        .unwrap();
    // As many as it says it takes at a time.
    assert!(
        hello
            .payload
            .chunks(6)
            .any(|each| each == [0, 3, 0, 0, 0, 128]),
        "{hello:?}"
    );
    for wave in 0..4 {
        let streams = (0..128).map(|n| 1 + 2 * (wave * 128 + n));
        let bytes: Vec<u8> = streams
            .clone()
            .flat_map(|stream| {
                call(
                    stream,
                    "DescribeStream",
                    format!(r#"{{"StreamName":"none-{stream}"}}"#).as_bytes(),
                )
            })
            .collect();
        send(&mut connection, &bytes).await;
        for stream in streams {
            let text = format!("Stream none-{stream} under account 000000000000 not found.");
            let body = format!(r#"{{"__type":"ResourceNotFoundException","message":"{text}"}}"#);
            let (status, found) = connection.answer(stream, soon()).await.expect("an answer");
            assert_eq!(
                (status, String::from_utf8(found).unwrap()),
                (Some(400), body)
            );
        }
    }
    server.shutdown().await;
}

/// Calls of one operation as few clients send them.
fn odd_requests() -> Vec<(u32, Vec<u8>)> {
    let block = call_headers("ListStreams");
    let headers = |flags, stream, block: &[u8]| frame(kind::HEADERS, flags, stream, block);
    let padded = |payload: &[u8]| [&[5], payload, &[0; 5]].concat();
    let priority = [0, 0, 0, 0, 16];
    let with_priority = [&priority, block.as_slice()].concat();
    let bytewise: Vec<u8> = b"{}"
        .iter()
        .flat_map(|byte| frame(kind::DATA, 0, 9, &[*byte]))
        .collect();
    let pieces = block.chunks(100).collect::<Vec<_>>();
    let (last, middle) = pieces[1..].split_last().unwrap();
    let in_pieces: Vec<u8> = middle
        .iter()
        .flat_map(|piece| frame(kind::CONTINUATION, 0, 11, piece))
        .collect();
    let length = header_block(&[("content-length", "2")]);
    vec![
        (1, request(1, &block, b"{}")),
        (
            3,
            [
                headers(END_HEADERS | 8, 3, &padded(&block)),
                frame(kind::DATA, END_STREAM | 8, 3, &padded(b"{}")),
            ]
            .concat(),
        ),
        (
            5,
            [
                headers(END_HEADERS | 32, 5, &with_priority),
                frame(kind::PRIORITY, 0, 5, &priority),
                frame(0x77, 0xff, 5, b"whatever"),
                frame(kind::DATA, END_STREAM, 5, b"{}"),
            ]
            .concat(),
        ),
        (
            7,
            [
                headers(END_HEADERS, 7, &block),
                frame(kind::DATA, 0, 7, b"{}"),
                headers(
                    END_HEADERS | END_STREAM,
                    7,
                    &header_block(&[("x-checksum", "1")]),
                ),
            ]
            .concat(),
        ),
        (
            9,
            [
                headers(END_HEADERS, 9, &block),
                bytewise,
                frame(kind::DATA, END_STREAM, 9, b""),
            ]
            .concat(),
        ),
        (
            11,
            [
                headers(0, 11, pieces[0]),
                in_pieces,
                frame(kind::CONTINUATION, END_HEADERS, 11, last),
                frame(kind::DATA, END_STREAM, 11, b"{}"),
            ]
            .concat(),
        ),
        (13, request(13, &[block.clone(), length].concat(), b"{}")),
    ]
}

/// What few clients send and all may: padding, priorities, frames of kinds that do not exist, headers in pieces,
/// bodies byte by byte and with trailers, a length that is said, a length that is not.
#[tokio::test]
async fn everything_that_the_protocol_allows_is_served() {
    let server = start().await;
    let mut connection = open(&server).await;
    for (stream, bytes) in odd_requests() {
        send(&mut connection, &bytes).await;
        let (status, body) = connection.answer(stream, soon()).await.expect("an answer");
        assert_eq!(
            (status, body.as_slice()),
            (Some(200), NO_STREAMS.as_bytes()),
            "stream {stream}"
        );
    }
    server.shutdown().await;
}

/// Requests against the rules cost their stream, or the connection, and nothing else.
#[tokio::test]
async fn s9_malformed_requests_are_reset() {
    let server = start().await;
    let call = call_headers("ListStreams");
    let with = |name, value| [call.clone(), header_block(&[(name, value)])].concat();
    let without_path = header_block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "x"),
    ]);
    let blocks = [
        with("X-Upper", "a"),
        with("connection", "close"),
        with("transfer-encoding", "chunked"),
        with("te", "gzip"),
        with(":path", "/again"),
        with(":unknown", "a"),
        with("x-nul", "a\0b"),
        with("x-line", "a\r\nb"),
        with("content-length", "3"),
        with("content-length", "1"),
        with("content-length", "-1"),
        without_path,
        header_block(&[]),
    ];
    for block in blocks {
        let mut connection = open(&server).await;
        send(&mut connection, &request(1, &block, b"{}")).await;
        let shown = String::from_utf8_lossy(&block).into_owned();
        let over = |frame: &Frame| {
            frame.kind == kind::RST_STREAM
                || frame.kind == kind::GOAWAY
                || frame.kind == kind::HEADERS
        };
        let end = connection.find(soon(), over).await;
        // A refusal in words will do as well.
        let is_refused = match &end {
            None => connection.ended(),
            Some(frame) if frame.kind == kind::HEADERS => {
                crate::frames::status(&frame.payload) != Some(200)
            }
            Some(_) => true,
        };
        assert!(is_refused, "{shown:?}: {end:?}");
    }
    // A stream that is reset takes the others on its connection nowhere.
    let mut connection = open(&server).await;
    send(&mut connection, &request(1, &with("X-Upper", "a"), b"{}")).await;
    send(&mut connection, &request(3, &call, b"{}")).await;
    let answer = connection.answer(3, soon()).await;
    assert!(answer.is_some_and(|(status, _)| status == Some(200)) || connection.ended());
    assert_serves(server.local_addr()).await;
    server.shutdown().await;
}

/// Bodies beyond the limit are refused: at once where their length is said, else when they get there.
#[tokio::test]
async fn s9_a_body_beyond_the_limit_is_refused_on_its_stream() {
    let server = start().await;
    let front = front(&server, |config| config.max_body_bytes = 100_000).await;
    let mut connection = Http2::open(front.address.port(), &[]).await;
    let block = call_headers("ListStreams");
    let length = header_block(&[("content-length", "100001")]);
    let said = frame(
        kind::HEADERS,
        END_HEADERS,
        1,
        &[block.clone(), length].concat(),
    );
    send(&mut connection, &said).await;
    let headers =
        |stream: u32| move |frame: &Frame| frame.kind == kind::HEADERS && frame.stream == stream;
    let refused = connection
        .find(soon(), headers(1))
        .await
        .expect("a refusal");
    // 413 is not in the table of statuses.
    assert_eq!(crate::frames::status(&refused.payload), None, "{refused:?}");
    let mut unsaid = frame(kind::HEADERS, END_HEADERS, 3, &block);
    for _ in 0..7 {
        unsaid.extend(frame(kind::DATA, 0, 3, &[b' '; 16_000]));
    }
    send(&mut connection, &unsaid).await;
    let refused = connection
        .find(soon(), headers(3))
        .await
        .expect("a refusal");
    assert_eq!(crate::frames::status(&refused.payload), None, "{refused:?}");
    send(&mut connection, &request(5, &block, b"{}")).await;
    let (status, _) = connection
        .answer(5, soon())
        .await
        .expect("the connection goes on");
    assert_eq!(status, Some(200));
    front.shutdown.cancel();
    server.shutdown().await;
}

/// At the end of the server each connection is told, what is under way is finished, and nothing new is begun.
#[tokio::test]
async fn s10_streams_under_way_finish_before_the_end() {
    let server = start().await;
    let front = front(&server, |_| {}).await;
    let port = front.address.port();
    let (mut idle, mut busy) = (Http2::open(port, &[]).await, Http2::open(port, &[]).await);
    for connection in [&mut idle, &mut busy] {
        send(connection, &call(1, "ListStreams", b"{}")).await;
        assert_eq!(connection.answer(1, soon()).await.unwrap().0, Some(200));
    }
    let mut silent = Http2::open(port, &[]).await;
    send(&mut silent, &call(1, "ListStreams", b"{}")).await;
    assert_eq!(silent.answer(1, soon()).await.unwrap().0, Some(200));
    let block = call_headers("ListStreams");
    send(&mut busy, &frame(kind::HEADERS, END_HEADERS, 3, &block)).await;
    send(&mut busy, &frame(kind::DATA, 0, 3, b"{")).await;
    // Known to the server once it has answered what came behind.
    send(&mut busy, &call(5, "ListStreams", b"{}")).await;
    assert_eq!(busy.answer(5, soon()).await.unwrap().0, Some(200));
    front.shutdown.cancel();
    let goaway = |frame: &Frame| frame.kind == kind::GOAWAY;
    for connection in [&mut idle, &mut busy] {
        let told = connection.find(soon(), goaway).await.expect("it is told");
        assert_eq!(told.payload[4..8], [0; 4], "no error: {told:?}");
    }
    assert!(idle.find(soon(), |_| false).await.is_none() && idle.ended());
    // As one does that sleeps: it does not even answer pings.
    assert!(!silent.ended());
    assert!(!front.task.is_finished());
    send(&mut busy, &frame(kind::DATA, END_STREAM, 3, b"}")).await;
    let (status, body) = busy
        .answer(3, soon())
        .await
        .expect("what was under way is answered");
    assert_eq!(
        (status, body.as_slice()),
        (Some(200), NO_STREAMS.as_bytes())
    );
    assert!(busy.find(soon(), |_| false).await.is_none() && busy.ended());
    timeout(Duration::from_secs(5), front.task)
        .await
        .expect("nobody who sleeps is waited for")
        .unwrap()
        .unwrap();
    server.shutdown().await;
}

/// A stream of several megabytes, and an iterator to its beginning.
async fn backlog(server: &Server) -> Vec<u8> {
    let create = r#"{"StreamName":"s","ShardCount":1}"#;
    let record = format!(
        r#"{{"PartitionKey":"k","Data":"{}"}}"#,
        "A".repeat(1_300_000)
    );
    let records = format!(
        r#"{{"StreamName":"s","Records":[{}]}}"#,
        vec![record; 3].join(",")
    );
    let iterator = r#"{"StreamName":"s","ShardId":"0","ShardIteratorType":"TRIM_HORIZON"}"#;
    let mut body = Vec::new();
    for (operation, asked) in [
        ("CreateStream", create),
        ("PutRecords", &records),
        ("GetShardIterator", iterator),
    ] {
        let reply = ask(
            server.local_addr(),
            post(&crate::raw::call(JSON, operation), asked),
        )
        .await;
        assert_eq!(reply.status, 200, "{reply:?}");
        body = reply.body;
    }
    body
}

/// A client that keeps its connection alive and leaves its answers where they are may not keep the memory that
/// others wait for: it is cut off after the time there is for taking something. While nobody waits it may.
#[tokio::test]
async fn s9_answers_that_are_left_give_way_to_others() {
    let server = start().await;
    let iterator = backlog(&server).await;
    let front = front(&server, |config| {
        // One answer fits, and no second one beside it.
        config.max_response_bytes = 6_000_000;
        config.write_stall_timeout = Duration::from_secs(1);
        config.admission_wait = Duration::from_millis(1);
    });
    let front = front.await;
    for window in [0, 1] {
        let mut deaf = Http2::open(front.address.port(), &[(INITIAL_WINDOW_SIZE, window)]).await;
        send(&mut deaf, &call(1, "GetRecords", &iterator)).await;
        let begun = deaf.find(soon(), |frame| frame.kind == kind::HEADERS).await;
        begun.expect("an answer begins");
        // Nobody wants anything: it is left in peace, and pings are answered.
        let rest = deaf.find(Instant::now() + Duration::from_secs(2), |frame| {
            frame.kind == kind::GOAWAY
        });
        assert!(rest.await.is_none() && !deaf.ended());
        let get = || {
            ask(
                front.address,
                post(&crate::raw::call(JSON, "GetRecords"), &iterator),
            )
        };
        let began = Instant::now();
        assert_eq!(get().await.status, 503);
        while get().await.status != 200 {
            assert!(began.elapsed() < LIMIT, "others are still kept waiting");
        }
        assert!(deaf.find(soon(), |_| false).await.is_none() && deaf.ended());
    }
    // One that takes a little now and then is no such client.
    let mut slow = Http2::open(front.address.port(), &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let more = |stream, bytes: u32| frame(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
    send(&mut slow, &more(0, 10_000_000)).await;
    send(&mut slow, &call(1, "GetRecords", &iterator)).await;
    let begun = slow.find(soon(), |frame| frame.kind == kind::HEADERS).await;
    begun.expect("an answer begins");
    for _ in 0..14 {
        send(&mut slow, &more(1, 200_000)).await;
        let other = ask(
            front.address,
            post(&crate::raw::call(JSON, "GetRecords"), &iterator),
        )
        .await;
        assert_eq!(other.status, 503);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    send(&mut slow, &more(1, 10_000_000)).await;
    let (_, body) = slow.answer(1, soon()).await.expect("a whole answer");
    assert!(body.len() > 3_900_000, "{}", body.len());
    front.shutdown.cancel();
    server.shutdown().await;
}

/// A body that does not come holds its stream for the time there is for a body, and no longer.
#[tokio::test]
async fn s9_streams_without_their_bodies_are_let_go_in_time() {
    let server = start().await;
    let front = front(&server, |config| {
        config.body_read_timeout = Duration::from_millis(300);
    })
    .await;
    let mut connection = Http2::open(front.address.port(), &[]).await;
    let block = call_headers("ListStreams");
    let streams = (0..128).map(|n| 1 + 2 * n);
    let bytes: Vec<u8> = streams
        .clone()
        .flat_map(|stream| frame(kind::HEADERS, END_HEADERS, stream, &block))
        .collect();
    send(&mut connection, &bytes).await;
    let began = Instant::now();
    for _ in streams {
        let is_answer = |frame: &Frame| frame.kind == kind::HEADERS;
        let answer = connection
            .find(soon(), is_answer)
            .await
            .expect("each is let go");
        // 408, which is not in the table.
        assert_eq!(crate::frames::status(&answer.payload), None);
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    send(&mut connection, &request(257, &block, b"{}")).await;
    assert_eq!(connection.answer(257, soon()).await.unwrap().0, Some(200));
    send(
        &mut connection,
        &settings(&[(INITIAL_WINDOW_SIZE, 1 << 20)]),
    )
    .await;
    front.shutdown.cancel();
    server.shutdown().await;
}
