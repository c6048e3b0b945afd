//! Subscribers over HTTP/2 that leave their events where they are, and those beside them.

use crate::events::{Event, take};
use crate::frames::{Frame, Http2, call, frame, kind};
use crate::raw::{Front, LIMIT, front};
use crate::subscriptions::{fixture, horizon, put, register, subscription};
use millstream_server::Server;
use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, timeout};

const INITIAL_WINDOW_SIZE: u16 = 4;

/// The events of a stream, as they come; other frames are left aside.
async fn http2_event(connection: &mut Http2, stream: u32, bytes: &mut Vec<u8>) -> Event {
    loop {
        if let Some(event) = take(bytes) {
            return event;
        }
        let of_stream = |frame: &Frame| frame.stream == stream && frame.kind == kind::DATA;
        let data = connection
            .find(Instant::now() + LIMIT, of_stream)
            .await
            .expect("an event in time");
        bytes.extend(data.payload);
    }
}

/// Consumers that subscribe over one connection, take a thousand bytes each, and no more.
async fn deaf(server: &Server, front: &Front, count: u32) -> Http2 {
    let mut connection = Http2::open(front.address.port(), &[(INITIAL_WINDOW_SIZE, 1_000)]).await;
    let mut calls = room(0);
    for n in 0..count {
        let consumer = register(server.local_addr(), &format!("deaf-{count}-{n}")).await;
        calls.extend(subscribe(1 + 2 * n, &consumer));
    }
    assert!(connection.send(&calls, LIMIT).await);
    for n in 0..count {
        let first = |frame: &Frame| frame.kind == kind::DATA && frame.stream == 1 + 2 * n;
        let first = connection.find(Instant::now() + LIMIT, first).await;
        first.expect("it begins");
    }
    // What they have room for is on its way.
    tokio::time::sleep(Duration::from_millis(200)).await;
    connection
}

/// Room for as much as there may ever be.
fn room(stream: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &(1_u32 << 30).to_be_bytes())
}

fn subscribe(stream: u32, consumer: &str) -> Vec<u8> {
    let body = subscription(consumer, &horizon());
    call(stream, "SubscribeToShard", body.as_bytes())
}

/// Subscribes and takes the three megabytes that are there.
async fn take_all(front: &Front, consumer: &str) -> (Http2, Vec<u8>) {
    let window = [(INITIAL_WINDOW_SIZE, 1 << 30)];
    let mut connection = Http2::open(front.address.port(), &window).await;
    let mut bytes = Vec::new();
    let calls = [room(0), subscribe(1, consumer)].concat();
    assert!(connection.send(&calls, LIMIT).await);
    let first = http2_event(&mut connection, 1, &mut bytes).await;
    assert_eq!(first.kind(), "initial-response");
    let mut records = 0;
    while records < 3 {
        let event = http2_event(&mut connection, 1, &mut bytes).await;
        let payload: Value = serde_json::from_slice(&event.payload).unwrap();
        records += payload["Records"].as_array().unwrap().len();
    }
    (connection, bytes)
}

/// Subscribers that take nothing hold one event each and keep nobody from anything. While there is memory they
/// are left in peace; when there is not, they are cut off for those that take what they get.
#[tokio::test]
async fn s9_subscribers_that_take_nothing_slow_nobody_down() {
    let (server, consumer) = fixture().await;
    // Eight events of a megabyte fit, and what a ninth takes while it is made fits beside six.
    let front = front(&server, |config| {
        config.max_response_bytes = 9 << 20;
        config.write_stall_timeout = Duration::from_secs(1);
    });
    let (front, address) = (front.await, server.local_addr());
    for _ in 0..3 {
        put(address, &"A".repeat(1_000_000)).await;
    }
    let mut six = deaf(&server, &front, 6).await;
    let began = Instant::now();
    drop(take_all(&front, &consumer).await);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    let goaway = six.find(Instant::now() + Duration::from_secs(2), |frame| {
        frame.kind == kind::GOAWAY
    });
    assert!(
        goaway.await.is_none() && !six.ended(),
        "nobody wanted their memory"
    );
    let mut two = deaf(&server, &front, 2).await;
    let other = register(address, "other").await;
    let (mut healthy, mut bytes) = take_all(&front, &other).await;
    let ended = six.find(Instant::now() + LIMIT, |_| false).await;
    assert!(
        ended.is_none() && six.ended(),
        "those that take nothing are still there"
    );
    // A put is pushed at once again.
    let began = Instant::now();
    put(address, "YQ==").await;
    loop {
        let event = http2_event(&mut healthy, 1, &mut bytes).await;
        if event
            .payload
            .windows(6)
            .any(|window| window == br#""YQ==""#)
        {
            break;
        }
    }
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    let _ = two.find(Instant::now(), |_| false).await;
    drop((healthy, two));
    front.shutdown.cancel();
    let ended = timeout(LIMIT, front.task).await;
    ended.expect("nobody is waited for").unwrap().unwrap();
    server.shutdown().await;
}
