//! Connections at rest and at work, over real sockets.

use crate::http::tests::{
    AUTHORIZED, JSON, LIST, Server, config, fake, post, read_reply, start_with,
};
use crate::http::{HttpConfig, places::Held, places::Places, request::Shared};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(20);

fn request(body: &str) -> String {
    post(&[JSON, LIST, AUTHORIZED].concat(), body)
}

/// One whose connections rest as soon as they can.
async fn restless(change: impl FnOnce(&mut HttpConfig)) -> Server {
    let mut config = HttpConfig {
        rest_after: Duration::from_millis(1),
        ..config()
    };
    change(&mut config);
    start_with(fake, config).await
}

async fn ask(stream: &mut TcpStream, body: &str) {
    stream.write_all(request(body).as_bytes()).await.unwrap();
    answered(stream, body).await;
}

async fn answered(stream: &mut TcpStream, body: &str) {
    let reply = timeout(LIMIT, read_reply(stream)).await.expect("answered");
    let len = format!(r#""len":{}}}"#, body.len());
    assert!(
        reply.status == 200 && reply.body.ends_with(&len),
        "{reply:?}"
    );
}

/// Requests that come whole, in two halves around a rest, one upon the other, and byte by byte are all answered, in order.
#[tokio::test]
async fn a_connection_that_rested_goes_on_as_if_it_had_not() {
    let server = restless(|_| {}).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let pause = || tokio::time::sleep(Duration::from_millis(10));
    for round in 0..8 {
        let body = " ".repeat(round);
        let body = format!("{{{body}}}");
        ask(&mut stream, &body).await;
        pause().await;
        let whole = request(&body);
        let (head, tail) = whole.split_at(1 + round * 20);
        stream.write_all(head.as_bytes()).await.unwrap();
        pause().await;
        stream.write_all(tail.as_bytes()).await.unwrap();
        answered(&mut stream, &body).await;
        let two = [request("{}"), whole.clone()].concat();
        stream.write_all(two.as_bytes()).await.unwrap();
        // Both may come in one piece, which `read_reply` does not keep.
        let mut both = String::new();
        while both.matches("\"len\"").count() < 2 {
            let mut piece = [0; 4096];
            let count = timeout(LIMIT, stream.read(&mut piece)).await.unwrap();
            both += std::str::from_utf8(&piece[..count.unwrap()]).unwrap();
        }
        assert!(both.find("\"len\":2}") <= both.find(&format!("\"len\":{}}}", body.len())));
    }
    // The end comes when the client says so, or the server.
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    let mut resting = TcpStream::connect(server.address).await.unwrap();
    ask(&mut resting, "{}").await;
    pause().await;
    server.shutdown.cancel();
    assert_eq!(resting.read(&mut [0; 8]).await.unwrap(), 0);
    timeout(LIMIT, server.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn s6_a_resting_connection_is_let_go_in_time() {
    let server = restless(|config| config.idle_timeout = Duration::from_millis(100)).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    ask(&mut stream, "{}").await;
    let ended = timeout(LIMIT, stream.read(&mut [0; 8])).await;
    assert_eq!(ended.unwrap().unwrap(), 0);
}

/// Where all places are taken, a connection that rests is let go for the next one long before its time.
#[tokio::test]
async fn s6_a_resting_connection_makes_room_for_a_new_one() {
    let server = restless(|config| {
        config.max_connections = 1;
        config.header_read_timeout = Duration::from_millis(100);
        config.idle_timeout = LIMIT * 2;
    })
    .await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    ask(&mut first, "{}").await;
    let mut second = TcpStream::connect(server.address).await.unwrap();
    ask(&mut second, "{}").await;
    assert_eq!(first.read(&mut [0; 8]).await.unwrap(), 0);
}

/// The time for a head begins with its first byte, however long the connection rested.
#[tokio::test]
async fn s6_a_head_that_does_not_end_is_not_waited_for_as_an_idle_connection_is() {
    let server = restless(|config| {
        config.header_read_timeout = Duration::from_millis(200);
        config.idle_timeout = LIMIT * 2;
    })
    .await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    ask(&mut stream, "{}").await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    ask(&mut stream, "{}").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    stream.write_all(b"POST / HT").await.unwrap();
    let ended = timeout(LIMIT, stream.read(&mut [0; 8])).await;
    assert!(matches!(ended.unwrap(), Ok(0) | Err(_)));
}

/// With a single place for those at work, and nobody who rests by the clock, forty clients in closed loops all come to the
/// end of theirs.
#[tokio::test]
async fn s6_connections_between_two_requests_make_room_for_those_who_wait() {
    let server = restless(|config| {
        config.max_connections_at_work = 1;
        config.rest_after = LIMIT;
    })
    .await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        clients.spawn(async move {
            for _ in 0..25 {
                ask(&mut stream, "{}").await;
            }
        });
    }
    let all = async { while clients.join_next().await.transpose().unwrap().is_some() {} };
    timeout(LIMIT, all).await.expect("nobody waits forever");
    server.shutdown.cancel();
    timeout(LIMIT, server.task).await.unwrap().unwrap().unwrap();
}

/// A server with a place to serve in and one to refuse in, and one who took the first: it has not sent the last byte of its body.
async fn without_place() -> (Server, TcpStream) {
    let server = restless(|config| config.max_connections_at_work = 2).await;
    let mut taken = TcpStream::connect(server.address).await.unwrap();
    taken
        .write_all(&request("{}").as_bytes()[..request("{}").len() - 1])
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    (server, taken)
}

/// Whoever finds no place at work is told so by the code for it, one after the other; operators are answered. Their connections go on
/// when there is a place again.
#[tokio::test]
async fn s6_connections_without_a_place_at_work_are_refused_and_go_on() {
    let (server, mut taken) = without_place().await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(TcpStream::connect(server.address).await.unwrap());
    }
    for _ in 0..3 {
        for stream in &mut streams {
            stream.write_all(request("{}").as_bytes()).await.unwrap();
        }
        for stream in &mut streams {
            let reply = timeout(LIMIT, read_reply(stream)).await.unwrap();
            assert_eq!(reply.status, 503, "{reply:?}");
            assert!(reply.body.contains("ServiceUnavailable"), "{reply:?}");
        }
    }
    let health = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    streams[0].write_all(health.as_bytes()).await.unwrap();
    let reply = timeout(LIMIT, read_reply(&mut streams[0])).await.unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    taken.write_all(b"}").await.unwrap();
    answered(&mut taken, "{}").await;
    for stream in &mut streams {
        ask(stream, "{}").await;
    }
}

/// What comes late of the body of a request that was refused for want of a place is no request.
#[tokio::test]
async fn s9_the_rest_of_a_body_refused_for_want_of_a_place_is_no_request() {
    let (server, _taken) = without_place().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let whole = request(&format!("{}{}", " ".repeat(1_000), request("{}")));
    let (begun, rest) = whole.split_at(whole.len() - 900);
    stream.write_all(begun.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    let first = timeout(LIMIT, stream.read_buf(&mut answers)).await.unwrap();
    assert!(first.unwrap() > 0);
    // The connection may be gone by now.
    let _ = stream.write_all(rest.as_bytes()).await;
    let _ = timeout(LIMIT, stream.read_to_end(&mut answers)).await;
    let answers = String::from_utf8_lossy(&answers);
    assert!(answers.starts_with("HTTP/1.1 503 "), "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
}

/// Those at work who have nothing to do make room before anybody is refused, long before they would rest.
#[tokio::test]
async fn s6_connections_without_anything_to_do_make_room_before_others_are_refused() {
    let server = restless(|config| {
        config.max_connections_at_work = 4;
        config.rest_after = LIMIT;
    })
    .await;
    // Two who have been answered, and one who is at work.
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        ask(&mut stream, "{}").await;
        idle.push(stream);
    }
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    busy.write_all(&request("{}").as_bytes()[..request("{}").len() - 1])
        .await
        .unwrap();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        ask(&mut stream, "{}").await;
        ask(&mut stream, "{}").await;
        idle.push(stream);
    }
    for stream in &mut idle {
        ask(stream, "{}").await;
    }
}

/// What every connection takes whether it is of use or not: what serves it is set aside while it is.
#[tokio::test]
async fn s6_the_task_of_a_connection_is_small() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (config, shutdown) = (config(), CancellationToken::new());
    let places = Arc::new(Places::new(&config));
    let shared = Arc::new(Shared::new(fake, config, shutdown.clone()));
    let held = Held::new(places.accept().await, places, shutdown);
    let task = super::connection(stream, shared, held);
    let bytes = size_of_val(&task);
    assert!(bytes <= 2_048, "{bytes} bytes");
}

/// A body of this length finds no room once another connection is sending one.
const LARGE_BYTES: usize = 60 * 1024;

/// A server whose budget of bodies somebody has taken, and that somebody.
async fn without_room(change: impl FnOnce(&mut HttpConfig)) -> (Server, TcpStream) {
    let server = restless(|config| {
        config.max_body_bytes = LARGE_BYTES;
        config.max_request_bytes = LARGE_BYTES;
        config.admission_wait = Duration::from_millis(1);
        change(config);
    })
    .await;
    let mut taken = TcpStream::connect(server.address).await.unwrap();
    let begun = request(&" ".repeat(LARGE_BYTES));
    let begun = &begun.as_bytes()[..begun.len() - 1];
    taken.write_all(begun).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    (server, taken)
}

/// A body that found no room is refused before it is read. What comes of it later is never a request, though it looks like one:
/// not when the connection could rest, and not when others wait for its place.
#[tokio::test]
async fn s9_the_rest_of_a_refused_body_is_no_request() {
    for places in [2, 1_024] {
        let (server, _taken) = without_room(|config| config.max_connections_at_work = places).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let whole = request(&format!(
            "{}{}",
            " ".repeat(LARGE_BYTES - 1_000),
            request("{}")
        ));
        let (begun, rest) = whole.split_at(whole.len() - 900);
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut answers = [0; 4096];
        let first = timeout(LIMIT, stream.read(&mut answers)).await.unwrap();
        let mut count = first.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        // The connection may be gone by now.
        let _ = stream.write_all(rest.as_bytes()).await;
        while let Ok(Ok(more @ 1..)) =
            timeout(Duration::from_secs(2), stream.read(&mut answers[count..])).await
        {
            count += more;
        }
        let answers = String::from_utf8_lossy(&answers[..count]);
        assert!(answers.starts_with("HTTP/1.1 503 "), "{answers}");
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    }
}

/// A client that has sent all of such a body is told why, and its connection goes on.
#[tokio::test]
async fn s6_a_connection_whose_body_found_no_room_goes_on() {
    let (server, _taken) = without_room(|_| {}).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for _ in 0..20 {
        let whole = request(&" ".repeat(LARGE_BYTES));
        stream.write_all(whole.as_bytes()).await.unwrap();
        let reply = timeout(LIMIT, read_reply(&mut stream)).await.unwrap();
        assert_eq!(reply.status, 503, "{reply:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
        ask(&mut stream, "{}").await;
    }
}
