//! Clients that stop in the middle, give a byte now and then, or never end their heads.

use crate::raw::{Connection, LIMIT, NO_STREAMS, TWO, ask, assert_serves, front, list, put, start};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

/// Half a request is an end without an answer or with a refusal, and at once.
#[tokio::test]
async fn s9_what_ends_in_the_middle_is_ended_at_once() {
    let server = start().await;
    let whole = put("s");
    for cut in (0..whole.len()).step_by(29).chain([whole.len() - 1]) {
        let mut connection = Connection::open(server.local_addr()).await;
        connection.send(&whole[..cut]).await;
        connection.finish().await;
        let began = Instant::now();
        if let Some(reply) = connection.reply_or_end().await {
            assert_eq!(
                (reply.status, reply.text().as_str()),
                (400, ""),
                "cut at {cut}"
            );
            connection.assert_closed().await;
        }
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
    }
    assert_serves(server.local_addr()).await;
    server.shutdown().await;
}

/// Clients that give a byte now and then are let go after the time there is for a head and for a body, however
/// busy they look.
#[tokio::test]
async fn s9_slow_clients_are_let_go_in_time() {
    let server = start().await;
    let front = front(&server, |config| {
        config.header_read_timeout = Duration::from_millis(400);
        config.body_read_timeout = Duration::from_millis(400);
    });
    let front = front.await;
    let whole = list(
        "1.1",
        "/",
        &format!("X-Pad: {}\r\n{TWO}", "a".repeat(2_000)),
        "{}",
    );
    let head_end = whole.len() - 2;
    let drip = |from: usize, answered: Option<u16>| {
        let (whole, address) = (whole.clone(), front.address);
        async move {
            let mut connection = Connection::open(address).await;
            connection.send(&whole[..from]).await;
            let began = Instant::now();
            let ended = async {
                for byte in whole.as_bytes()[from..].iter().cycle() {
                    if connection.stream.try_write(&[*byte]).is_err() {
                        return None;
                    }
                    let next = timeout(Duration::from_millis(20), connection.reply_or_end());
                    if let Ok(reply) = next.await {
                        return reply;
                    }
                }
                None
            };
            let reply = timeout(LIMIT, ended).await.expect("it is let go");
            assert!(
                began.elapsed() < Duration::from_secs(3),
                "{:?}",
                began.elapsed()
            );
            assert!(
                began.elapsed() > Duration::from_millis(300),
                "{:?}",
                began.elapsed()
            );
            let status = reply.map(|reply| reply.status);
            assert!(status.is_none() || status == answered, "{status:?}");
        }
    };
    // In the first line, in a header, and before the body.
    tokio::join!(drip(3, Some(408)), drip(80, Some(408)), async {
        let mut connection = Connection::open(front.address).await;
        connection.send(&whole[..head_end]).await;
        let began = Instant::now();
        assert_eq!(connection.reply().await.status, 408);
        assert!(began.elapsed() < Duration::from_secs(3));
        connection.assert_closed().await;
    });
    assert_serves(front.address).await;
    front.shutdown.cancel();
    timeout(LIMIT, front.task).await.unwrap().unwrap().unwrap();
    server.shutdown().await;
}

/// Heads that are too large or too many are refused before they are read to their end.
#[tokio::test]
async fn s9_floods_of_headers_are_refused() {
    let server = start().await;
    let address = server.local_addr();
    let flood: String = (0..200).map(|n| format!("X-{n}: v\r\n")).collect();
    let same = "X-A: v\r\n".repeat(101);
    let huge = format!("X-Huge: {}\r\n", "h".repeat(1_000_000));
    for lines in [flood, same, huge] {
        let mut connection = Connection::open(address).await;
        let bytes = list("1.1", "/", &[TWO, &lines].concat(), "{}");
        // The server may close before it has all of it, and then the answer may be lost.
        let sent = timeout(LIMIT, connection.stream.write_all(bytes.as_bytes()));
        let _ = sent.await.expect("it is taken or refused in time");
        if let Some(reply) = connection.reply_or_end().await {
            assert_eq!((reply.status, reply.text().as_str()), (431, ""));
            connection.assert_closed().await;
        }
    }
    // As many and as large as real clients send are served.
    let many: String = (0..60)
        .map(|n| format!("X-{n}: {}\r\n", "v".repeat(200)))
        .collect();
    let reply = ask(address, list("1.1", "/", &[TWO, &many].concat(), "{}")).await;
    reply.assert(200, NO_STREAMS);
    server.shutdown().await;
}
