//! HTTP/1.0 and 1.1 as the bytes go: pipelines, chunks, asking first, forms of the target, ends.

use crate::raw::{
    Connection, JSON, NO_STREAMS, TWO, ask, assert_serves, call, list, post, put, start,
};
use millstream_server::Server;
use std::time::Duration;

async fn create(server: &Server, name: &str) {
    let body = format!(r#"{{"StreamName":"{name}","ShardCount":1}}"#);
    let reply = ask(server.local_addr(), post(&call(JSON, "CreateStream"), body)).await;
    reply.assert(200, "");
}

/// Answers of a pipeline come in its order, whatever each takes, and each names its own request.
#[tokio::test]
async fn a_pipeline_is_answered_in_its_order() {
    let server = start().await;
    create(&server, "s").await;
    let mut connection = Connection::open(server.local_addr()).await;
    let mut bytes = Vec::new();
    for n in 0..200 {
        let body = format!(r#"{{"StreamName":"none-{n}"}}"#);
        bytes.extend(post(&call(JSON, "DescribeStream"), body));
        bytes.extend(put("s"));
    }
    connection.send(&bytes).await;
    let mut last = String::new();
    for n in 0..200 {
        let text = format!("Stream none-{n} under account 000000000000 not found.");
        let body = format!(r#"{{"__type":"ResourceNotFoundException","message":"{text}"}}"#);
        connection.reply().await.assert(400, &body);
        let put = connection.reply().await;
        assert_eq!(put.status, 200, "{put:?}");
        let body = put.text();
        let (_, number) = body.split_once(r#""SequenceNumber":""#).unwrap();
        assert!(number > last.as_str(), "{number} comes after {last}");
        number.clone_into(&mut last);
    }
    // Byte by byte is no different.
    for byte in put("s") {
        connection.send([byte]).await;
    }
    assert_eq!(connection.reply().await.status, 200);
    server.shutdown().await;
}

#[tokio::test]
async fn a_connection_is_kept_as_its_version_and_its_headers_say() {
    let server = start().await;
    let address = server.local_addr();
    let keep = [TWO, "Connection: keep-alive\r\n"].concat();
    let close = [TWO, "Connection: close\r\n"].concat();
    for (version, lines, kept) in [
        ("1.1", TWO, true),
        ("1.1", &keep, true),
        ("1.1", &close, false),
        ("1.0", TWO, false),
        ("1.0", &keep, true),
        ("1.0", &close, false),
    ] {
        let mut connection = Connection::open(address).await;
        // The second one is there already, but is not read from a connection that ends.
        connection
            .send(list(version, "/", lines, "{}").repeat(2))
            .await;
        connection.reply().await.assert(200, NO_STREAMS);
        if kept {
            connection.reply().await.assert(200, NO_STREAMS);
        } else {
            connection.assert_closed().await;
        }
    }
    // HTTP/1.0 has no `Host`.
    let hostless = list("1.0", "/", TWO, "{}").replace("Host: x\r\n", "");
    ask(address, hostless).await.assert(200, NO_STREAMS);
    server.shutdown().await;
}

#[tokio::test]
async fn names_of_headers_and_forms_of_the_target_do_not_matter() {
    let server = start().await;
    let address = server.local_addr();
    let plain = list("1.1", "/", TWO, "{}");
    let (line, rest) = plain.split_once("\r\n").unwrap();
    let in_case = |change: fn(&str) -> String| {
        let lines = rest.split("\r\n").map(|line| match line.split_once(": ") {
            Some((name, value)) => format!("{}: {value}", change(name)),
            None => line.to_owned(),
        });
        format!("{line}\r\n{}", lines.collect::<Vec<_>>().join("\r\n"))
    };
    let spaced = plain.replace(": ", ":\t  ");
    for request in [
        in_case(str::to_lowercase),
        in_case(str::to_uppercase),
        spaced,
    ] {
        ask(address, request).await.assert(200, NO_STREAMS);
    }
    for target in [
        "http://kinesis.us-east-1.amazonaws.com/",
        "https://kinesis.us-east-1.amazonaws.com:443/a/b?c=d",
        "HTTP://127.0.0.1",
        "/a/b/../%2e%2e//?",
        "//",
        "/?a=%zz&%",
        "*",
    ] {
        let reply = ask(address, list("1.1", target, TWO, "{}")).await;
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (200, NO_STREAMS),
            "{target}"
        );
    }
    let long = format!("/{}", "a".repeat(8_000));
    ask(address, list("1.1", &long, TWO, "{}"))
        .await
        .assert(200, NO_STREAMS);
    ask(address, "CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    // What would be another protocol stays this one.
    let upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n";
    let request = list("1.1", "/", &[TWO, upgrade].concat(), "{}");
    ask(address, request).await.assert(200, NO_STREAMS);
    server.shutdown().await;
}

#[tokio::test]
async fn chunks_are_put_together_and_trailers_left_aside() {
    let server = start().await;
    let mut connection = Connection::open(server.local_addr()).await;
    let tiny: String = format!("{{{}}}", " ".repeat(500))
        .chars()
        .map(|c| format!("1\r\n{c}\r\n"))
        .collect();
    let large = format!("{:X}\r\n{{{}}}\r\n", 100_002, " ".repeat(100_000));
    for body in [
        "2\r\n{}\r\n0\r\n\r\n",
        "002;a=b;c=\"d\"\r\n{}\r\n0;last\r\n\r\n",
        "1\r\n{\r\n1\r\n}\r\n0\r\nX-Checksum: 1\r\nContent-Length: 700\r\n\r\n",
        &format!("{tiny}0\r\n\r\n"),
        &format!("{large}0\r\n\r\n"),
    ] {
        connection
            .send(list("1.1", "/", "Transfer-Encoding: chunked\r\n", body))
            .await;
        connection.reply().await.assert(200, NO_STREAMS);
    }
    // With both, chunks count, and the connection is not trusted with another request.
    let both = list(
        "1.1",
        "/",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "2\r\n{}\r\n0\r\n\r\n",
    );
    connection.send(both.repeat(2)).await;
    connection.reply().await.assert(200, NO_STREAMS);
    connection.assert_closed().await;
    server.shutdown().await;
}

/// Heads whose length two readers could understand differently, and other broken ones: refused with 400, the
/// connection closed, nothing behind them served.
#[tokio::test]
async fn s9_heads_that_can_be_read_in_two_ways_are_refused() {
    let server = start().await;
    let address = server.local_addr();
    let chunk = "2\r\n{}\r\n0\r\n\r\n";
    for (lines, body) in [
        ("Content-Length: 2\r\nContent-Length: 3\r\n", "{}"),
        ("Content-Length: 2, 2\r\n", "{}"),
        ("Content-Length: +2\r\n", "{}"),
        ("Content-Length: 0x2\r\n", "{}"),
        ("Content-Length: \r\n", "{}"),
        ("Content-Length: -1\r\n", "{}"),
        ("Content-Length: 18446744073709551616\r\n", "{}"),
        ("Transfer-Encoding: identity\r\n", "{}"),
        ("Transfer-Encoding: chunked, gzip\r\n", chunk),
        ("Transfer-Encoding: xchunked\r\n", chunk),
        ("Content-Length: 2\r\nX-Space : 1\r\n", "{}"),
        ("Content-Length: 2\r\nX-Fold: 1\r\n 2\r\n", "{}"),
        ("Content-Length: 2\r\nX-Nul: a\0b\r\n", "{}"),
        ("Content-Length: 2\r\n: 1\r\n", "{}"),
    ] {
        let mut connection = Connection::open(address).await;
        connection
            .send(list("1.1", "/", lines, body) + &list("1.1", "/", TWO, "{}"))
            .await;
        let reply = connection.reply().await;
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (400, ""),
            "{lines:?}"
        );
        connection.assert_closed().await;
    }
    for version in ["1.2", "2.0", "0.9", "11"] {
        assert_eq!(
            ask(address, list(version, "/", TWO, "{}")).await.status,
            400,
            "{version}"
        );
    }
    for broken in [
        "2\r\n{}X",
        "2\r\n{}\r\nzz\r\n",
        "-2\r\n",
        "ffffffffffffffff0\r\n",
        "2\n{}",
    ] {
        let mut connection = Connection::open(address).await;
        connection
            .send(list("1.1", "/", "Transfer-Encoding: chunked\r\n", broken))
            .await;
        connection.finish().await;
        let reply = connection.reply_or_end().await;
        assert!(reply.is_none_or(|reply| reply.status == 400), "{broken:?}");
    }
    assert_serves(address).await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_before_its_body_is_read() {
    let server = start().await;
    let address = server.local_addr();
    for (expect, lines, body) in [
        ("100-continue", TWO, "{}"),
        (
            "100-Continue",
            "Transfer-Encoding: chunked\r\n",
            "2\r\n{}\r\n0\r\n\r\n",
        ),
    ] {
        let mut connection = Connection::open(address).await;
        connection
            .send(list(
                "1.1",
                "/",
                &format!("Expect: {expect}\r\n{lines}"),
                "",
            ))
            .await;
        let told = connection.reply().await;
        assert_eq!((told.status, told.headers.len()), (100, 0));
        connection.send(body).await;
        connection.reply().await.assert(200, NO_STREAMS);
        // It is the request that asked, not the connection.
        connection.send(list("1.1", "/", TWO, "{}")).await;
        connection.reply().await.assert(200, NO_STREAMS);
    }
    // Too large, or of no use whatever it says: refused at once, and never asked for.
    for (request, status) in [
        (
            list(
                "1.1",
                "/",
                "Expect: 100-continue\r\nContent-Length: 100000000\r\n",
                "",
            ),
            413,
        ),
        (
            "PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n"
                .to_owned(),
            403,
        ),
    ] {
        let mut connection = Connection::open(address).await;
        connection.send(request).await;
        assert_eq!(connection.reply().await.status, status);
        connection.assert_closed().await;
    }
    server.shutdown().await;
}

/// A request that is refused by its head keeps its connection: its body is read and left aside.
#[tokio::test]
async fn a_body_that_nobody_wants_does_not_cost_the_connection() {
    let server = start().await;
    let mut connection = Connection::open(server.local_addr()).await;
    let body = "x".repeat(300_000);
    for (line, origin, status) in [
        ("PUT /", "", 403),
        ("OPTIONS /", "Origin: o\r\n", 200),
        ("GET /health", "", 200),
    ] {
        let head = format!(
            "{line} HTTP/1.1\r\nHost: x\r\n{origin}Content-Length: {}\r\n\r\n",
            body.len()
        );
        connection.send(head + &body).await;
        assert_eq!(connection.reply().await.status, status, "{line}");
        connection.send(list("1.1", "/", TWO, "{}")).await;
        connection.reply().await.assert(200, NO_STREAMS);
    }
    server.shutdown().await;
}

/// A client may end its side as soon as it has asked: everything that it asked is answered, also what takes
/// its time and what is larger than the buffers.
#[tokio::test]
async fn a_client_that_has_ended_its_side_gets_its_answers() {
    let server = start().await;
    create(&server, "s").await;
    let address = server.local_addr();
    for count in [1, 3] {
        let mut connection = Connection::open(address).await;
        connection.send(put("s").repeat(count)).await;
        connection.finish().await;
        for _ in 0..count {
            assert_eq!(connection.reply().await.status, 200);
        }
        connection.assert_closed().await;
    }
    let mut connection = Connection::open(address).await;
    connection.send("GET /health HTTP/1.0\r\n\r\n").await;
    connection.finish().await;
    connection.reply().await.assert(200, r#"{"status":"ok"}"#);
    connection.assert_closed().await;

    let data = "A".repeat(1_300_000);
    let record = format!(r#"{{"PartitionKey":"k","Data":"{data}"}}"#);
    let body = format!(
        r#"{{"StreamName":"s","Records":[{}]}}"#,
        vec![record; 7].join(",")
    );
    let reply = ask(address, post(&call(JSON, "PutRecords"), body)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let body = r#"{"StreamName":"s","ShardId":"0","ShardIteratorType":"TRIM_HORIZON"}"#;
    let iterator = ask(address, post(&call(JSON, "GetShardIterator"), body)).await;
    let mut connection = Connection::open(address).await;
    connection
        .send(post(&call(JSON, "GetRecords"), &iterator.body))
        .await;
    connection.finish().await;
    // Longer than anything that is sent at once.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let reply = connection.reply().await;
    assert_eq!(reply.status, 200);
    assert!(reply.body.len() > 7 * data.len());
    connection.assert_closed().await;
    server.shutdown().await;
}
