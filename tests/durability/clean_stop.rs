//! S10: SIGTERM finishes what was accepted, then ends with exit code 0, whoever is connected.

use crate::SERVER;
use crate::puts::{count, put_each, read_whole};
use std::time::Duration;
use support::load::{Load, Shape};
use support::process::Signal;
use support::{ServerProcess, alone, scaled, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

const STREAM: &str = "clean-stop";
/// The most an orderly stop may take here.
const STOPS_WITHIN: Duration = Duration::from_secs(5);

/// Connections that keep a server waiting if it lets them: some that never said a word, some kept alive after
/// an answer.
async fn idle_connections(port: u16) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    for number in 0..16 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        if number % 2 == 0 {
            stream
                .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .await
                .unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
        }
        connections.push(stream);
    }
    connections
}

/// Stops the server under 16 writers and starts it again, time after time. What it acknowledged is there,
/// and nothing else is: what it accepted it has answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s10_clean_stop_under_load() {
    let _alone = alone().await;
    let mut server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 4).await;
    let shape = Shape {
        writers: 16,
        pause: Duration::from_millis(1),
        batch: 5,
        padding_bytes: 0,
    };
    let load = Load::start(&client, STREAM, shape);
    let mut longest = Duration::ZERO;
    for _ in 0..scaled(4, 100) {
        let before = load.acked_count();
        wait_until("writers go on", Duration::from_secs(30), || async {
            (load.acked_count() > before + 200).then_some(())
        })
        .await;
        let _idle = idle_connections(server.port()).await;
        let began = Instant::now();
        let ended = server.terminate().await;
        longest = longest.max(began.elapsed());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        server.restart().await;
    }
    let (acked, refusals) = load.stop().await;
    assert_eq!(refusals, [], "nothing that was accepted was refused");
    let whole = read_whole(&client, STREAM, &acked).await;
    assert_eq!(
        count(&whole),
        acked.len(),
        "what was stored and what was acknowledged"
    );
    assert!(longest < STOPS_WITHIN, "a stop took {longest:?}");
    println!(
        "clean stop: {} records acknowledged, lost 0, longest stop {longest:?}",
        acked.len()
    );
}

/// A client in the middle of a request is waited for; a second SIGTERM waits for nobody, and what was
/// acknowledged is there all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s10_a_second_sigterm_waits_for_nobody() {
    let _alone = alone().await;
    let mut server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 2).await;
    let acked = put_each(&client, STREAM, 0..50).await;
    let mut half = TcpStream::connect(("127.0.0.1", server.port()))
        .await
        .unwrap();
    half.write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n")
        .await
        .unwrap();
    // It asks for the body: from here on the request is under way.
    let mut answer = [0; 12];
    half.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100");

    server.signal(Signal::Term).await;
    let port = server.port();
    wait_until(
        "nobody is accepted any more",
        Duration::from_secs(5),
        || async move { TcpStream::connect(("127.0.0.1", port)).await.err() },
    )
    .await;
    assert!(
        server.is_running(),
        "a request was under way: {}",
        server.log()
    );
    let began = Instant::now();
    let ended = server.terminate().await;
    assert!(
        began.elapsed() < STOPS_WITHIN,
        "it took {:?}",
        began.elapsed()
    );
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("second signal"), "{}", ended.stderr);

    server.restart().await;
    let whole = read_whole(&client, STREAM, &acked).await;
    assert_eq!(count(&whole), acked.len());
}

/// A request that is under way when the stop begins gets its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s10_a_request_under_way_is_answered() {
    let _alone = alone().await;
    let mut server = ServerProcess::start(SERVER).await;
    server.client().create_stream(STREAM, 1).await;
    let mut half = TcpStream::connect(("127.0.0.1", server.port()))
        .await
        .unwrap();
    half.write_all(
        b"POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
    )
    .await
    .unwrap();
    let mut answer = [0; 25];
    half.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    server.signal(Signal::Term).await;
    let port = server.port();
    wait_until(
        "nobody is accepted any more",
        Duration::from_secs(5),
        || async move { TcpStream::connect(("127.0.0.1", port)).await.err() },
    )
    .await;
    half.write_all(b"{}").await.unwrap();
    let mut answer = Vec::new();
    half.read_to_end(&mut answer).await.unwrap();
    assert!(
        answer.starts_with(b"HTTP/1.1 4"),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
    let ended = server.wait(STOPS_WITHIN).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// Without any load, and again and again: every stop is clean, and the next start finds everything.
#[tokio::test]
async fn s10_an_idle_server_stops_at_once() {
    let _alone = alone().await;
    let mut server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 1).await;
    let acked = put_each(&client, STREAM, 0..10).await;
    for _ in 0..3 {
        let _idle = idle_connections(server.port()).await;
        let began = Instant::now();
        let ended = server.terminate().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(
            began.elapsed() < STOPS_WITHIN,
            "it took {:?}",
            began.elapsed()
        );
        server.restart().await;
        let whole = read_whole(&client, STREAM, &acked).await;
        assert_eq!(count(&whole), acked.len());
    }
}
