//! Golden wire tests over real sockets: raw bytes in, exact status, headers and body out.

use millstream_wire::shapes::{self, PutRecordRequest, PutRecordsRequest};
use millstream_wire::{Operation, b64};
use proptest::prelude::*;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{HttpConfig, serve};
use crate::api::{Answer, Call, Dispatch};
use crate::error::ApiError;

pub(super) const AUTHORIZED: &str = "Authorization: AWS4-HMAC-SHA256 Credential=A/20150101/eu-west-1/kinesis/aws4_request, \
                          SignedHeaders=host, Signature=b\r\nX-Amz-Date: 20150101T000000Z\r\n";
pub(super) const JSON: &str = "Content-Type: application/x-amz-json-1.1\r\n";
pub(super) const LIST: &str = "X-Amz-Target: Kinesis_20131202.ListStreams\r\n";

/// `ListStreams` tells what arrived, `PutRecord` and `PutRecords` are decoded, `DescribeStream`
/// panics, `DeleteStream` says nothing, `GetRecords` waits for `GATE`, the rest fails.
pub(super) async fn fake(call: Call) -> Result<Vec<u8>, ApiError> {
    match call.operation {
        Operation::ListStreams => {
            let (account, region) = (&call.caller.account, &call.caller.region);
            Ok(format!(
                r#"{{"account":"{account}","region":"{region}","len":{}}}"#,
                call.body.len()
            )
            .into_bytes())
        }
        Operation::PutRecord => {
            let request: PutRecordRequest<'_> = shapes::parse(&call.body)?;
            let data = request.data.map(|data| data.to_bytes()).unwrap_or_default();
            Ok(format!(r#"{{"len":{}}}"#, data.len()).into_bytes())
        }
        Operation::PutRecords => {
            let request: PutRecordsRequest<'_> = shapes::parse(&call.body)?;
            Ok(format!(
                r#"{{"count":{}}}"#,
                request.records.map_or(0, |records| records.len())
            )
            .into_bytes())
        }
        Operation::DescribeStream => panic!("a fault in the fake"),
        Operation::DeleteStream => Ok(Vec::new()),
        Operation::GetRecords => {
            GATE.acquire().await.expect("never closed").forget();
            Ok(b"{}".to_vec())
        }
        _ => Err(ApiError::invalid_iterator()),
    }
}

static GATE: Semaphore = Semaphore::const_new(0);

pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) shutdown: CancellationToken,
    pub(super) task: JoinHandle<std::io::Result<()>>,
}

pub(super) fn config() -> HttpConfig {
    HttpConfig::new(
        "000000000000".parse().unwrap(),
        "us-east-1".parse().unwrap(),
    )
}

pub(super) async fn start_with<D: Dispatch>(dispatch: D, config: HttpConfig) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(serve(listener, dispatch, config, shutdown.clone()));
    Server {
        address,
        shutdown,
        task,
    }
}

async fn start() -> Server {
    start_with(fake, config()).await
}

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    head: String,
    pub(super) body: String,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    #[track_caller]
    fn assert(&self, status: u16, content_type: Option<&str>, body: &str) {
        assert_eq!(
            (self.status, self.body.as_str()),
            (status, body),
            "{self:?}"
        );
        assert_eq!(self.header("content-type"), content_type, "{self:?}");
        assert_eq!(
            self.header("content-length"),
            Some(body.len().to_string().as_str())
        );
        let id = self.header("x-amzn-requestid").expect("a request id");
        let groups: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12], "{id}");
        let id_2 = self.header("x-amz-id-2").expect("a second id");
        assert_eq!(b64::decode(id_2).map(|bytes| bytes.len()), Ok(72));
    }
}

pub(super) async fn read_reply(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let status = head[9..12].parse().unwrap();
            let mut reply = Reply {
                status,
                head,
                body: String::new(),
            };
            let len: usize = reply
                .header("content-length")
                .map_or(0, |len| len.parse().unwrap());
            let mut body = bytes.split_off(end + 4);
            while body.len() < len {
                assert_ne!(
                    stream.read_buf(&mut body).await.unwrap(),
                    0,
                    "cut in the body"
                );
            }
            reply.body = String::from_utf8_lossy(&body).into_owned();
            return reply;
        }
        let read = stream.read_buf(&mut bytes).await.unwrap();
        assert_ne!(
            read,
            0,
            "cut in the head: {:?}",
            String::from_utf8_lossy(&bytes)
        );
    }
}

pub(super) fn post(headers: &str, body: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn send(server: &Server, request: &str) -> Reply {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    read_reply(&mut stream).await
}

const AMZ: Option<&str> = Some("application/x-amz-json-1.1");

#[tokio::test]
async fn a_call_gets_the_account_the_signed_region_and_the_body() {
    let server = start().await;
    let request = post(&[JSON, LIST, AUTHORIZED].concat(), "{}");
    let body = r#"{"account":"000000000000","region":"eu-west-1","len":2}"#;
    send(&server, &request).await.assert(200, AMZ, body);
    let request = post(
        &[
            JSON,
            LIST,
            "Authorization: X Credential=a,Signature=b,SignedHeaders=c\r\nDate: d\r\n",
        ]
        .concat(),
        "{}",
    );
    let body = r#"{"account":"000000000000","region":"us-east-1","len":2}"#;
    send(&server, &request).await.assert(200, AMZ, body);
    let target = "X-Amz-Target: Kinesis_20131202.DeleteStream\r\n";
    send(&server, &post(&[JSON, target, AUTHORIZED].concat(), "{}"))
        .await
        .assert(200, AMZ, "");
}

#[tokio::test]
async fn errors_have_the_envelope_of_aws() {
    let server = start().await;
    for (target, body, answer) in [
        (
            "SplitShard",
            "{}",
            r#"{"__type":"InvalidArgumentException","message":"Invalid ShardIterator."}"#,
        ),
        ("PutRecord", "[]", r#"{"__type":"SerializationException"}"#),
        ("PutRecord", "{", r#"{"__type":"SerializationException"}"#),
        (
            "PutRecord",
            r#"{"StreamName":true}"#,
            r#"{"__type":"SerializationException","Message":"class java.lang.Boolean can not be converted to an String"}"#,
        ),
        (
            "PutRecord",
            r#"{"PartitionKey":"a"}"#,
            r#"{"__type":"ValidationException","message":"1 validation error detected: Value null at 'data' failed to satisfy constraint: Member must not be null"}"#,
        ),
    ] {
        let target = format!("X-Amz-Target: Kinesis_20131202.{target}\r\n");
        let reply = send(&server, &post(&[JSON, &target, AUTHORIZED].concat(), body)).await;
        reply.assert(400, AMZ, answer);
    }
}

#[tokio::test]
async fn the_checks_come_in_the_order_of_aws() {
    let server = start().await;
    let unknown = "X-Amz-Target: Kinesis_20131202.ListStream\r\n";
    let serialization = r#"{"__type":"SerializationException"}"#;
    let no_such = r#"{"__type":"UnknownOperationException"}"#;
    let no_token = r#"{"__type":"MissingAuthenticationTokenException","message":"Missing Authentication Token"}"#;
    let incomplete = r#"{"__type":"IncompleteSignatureException","message":"Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter. Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. Authorization=X"}"#;
    for (headers, body, answer) in [
        ([JSON, "", ""], "", no_such),
        ([JSON, unknown, ""], "", no_such),
        ([JSON, LIST, ""], "", serialization),
        ([JSON, LIST, ""], "hello", serialization),
        ([JSON, unknown, ""], "hello", serialization),
        ([JSON, unknown, ""], "{}", no_such),
        ([JSON, LIST, ""], "{}", no_token),
        ([JSON, LIST, "Authorization: X\r\n"], "{}", incomplete),
    ] {
        send(&server, &post(&headers.concat(), body))
            .await
            .assert(400, AMZ, answer);
    }
    let both =
        post(&[JSON, LIST, AUTHORIZED].concat(), "{}").replacen("/ ", "/?X-Amz-Algorithm ", 1);
    send(&server, &both).await.assert(400, AMZ, r#"{"__type":"InvalidSignatureException","message":"Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."}"#);
}

#[tokio::test]
async fn what_is_no_request_to_the_service_is_refused_in_xml() {
    let server = start().await;
    let denied = "<AccessDeniedException>\n  <Message>Unable to determine service/operation name to be \
                  authorized</Message>\n</AccessDeniedException>\n";
    for request in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "PUT /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    ] {
        send(&server, request).await.assert(403, None, denied);
    }
    send(&server, &post("", "{}"))
        .await
        .assert(403, None, denied);
    let other = "Content-Type: application/x-amz-json-1.0\r\n";
    send(&server, &post(&[other, LIST].concat(), "{}"))
        .await
        .assert(404, None, "<UnknownOperationException/>\n");
}

#[tokio::test]
async fn the_older_json_and_cbor_are_answered_in_kind() {
    let server = start().await;
    let plain = "Content-Type: application/json\r\n";
    let kind = Some("application/json");
    send(&server, &post(&[plain, LIST].concat(), "{}")).await.assert(404, kind, r#"{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}"#);
    send(&server, &post(&[plain, LIST].concat(), "x")).await.assert(400, kind, r#"{"Output":{"__type":"com.amazon.coral.service#SerializationException"},"Version":"1.0"}"#);
    let cbor = "Content-Type: application/x-amz-cbor-1.1\r\n";
    let reply = send(&server, &post(&[cbor, LIST].concat(), "")).await;
    assert_eq!(
        reply.header("content-type"),
        Some("application/x-amz-cbor-1.1")
    );
    assert!(
        reply
            .body
            .ends_with("f__typevSerializationException\u{fffd}"),
        "{reply:?}"
    );
    let reply = send(&server, &post("", "")).await;
    assert!(
        reply
            .body
            .ends_with("f__typex\u{19}UnknownOperationException\u{fffd}"),
        "{reply:?}"
    );
}

#[tokio::test]
async fn browsers_are_told_that_they_may() {
    let server = start().await;
    let request = "OPTIONS / HTTP/1.1\r\nHost: x\r\nOrigin: o\r\nAccess-Control-Request-Headers: a, b\r\n\
                   Access-Control-Request-Method: d\r\n\r\n";
    let reply = send(&server, request).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    for (name, value) in [
        ("access-control-allow-origin", Some("*")),
        ("access-control-allow-headers", Some("a, b")),
        ("access-control-allow-methods", Some("d")),
        ("access-control-max-age", Some("172800")),
        ("content-length", Some("0")),
        ("x-amz-id-2", None),
    ] {
        assert_eq!(reply.header(name), value, "{name}");
    }
    let reply = send(
        &server,
        &post(&["Origin: o\r\n", JSON, LIST, AUTHORIZED].concat(), "{}"),
    )
    .await;
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    assert!(
        reply
            .header("access-control-expose-headers")
            .is_some_and(|names| names.contains("x-amz-id-2"))
    );
}

#[tokio::test]
async fn health_and_readiness_are_answered() {
    struct Starting;
    impl Dispatch for Starting {
        async fn dispatch(&self, _: Call) -> Result<Answer, ApiError> {
            Err(ApiError::internal())
        }
        fn is_ready(&self) -> bool {
            false
        }
    }
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let kind = Some("application/json");
    let server = start().await;
    send(&server, &get("/health"))
        .await
        .assert(200, kind, r#"{"status":"ok"}"#);
    send(&server, &get("/ready"))
        .await
        .assert(200, kind, r#"{"status":"ready"}"#);
    let server = start_with(Starting, config()).await;
    send(&server, &get("/health"))
        .await
        .assert(200, kind, r#"{"status":"ok"}"#);
    send(&server, &get("/ready"))
        .await
        .assert(503, kind, r#"{"status":"not ready"}"#);
}

#[tokio::test]
async fn s9_a_body_beyond_the_limit_is_refused_before_it_is_kept() {
    let server = start_with(
        fake,
        HttpConfig {
            max_body_bytes: 1000,
            ..config()
        },
    )
    .await;
    // Announced: refused at once, and 100 Continue is never sent.
    let headers = [JSON, LIST, AUTHORIZED].concat();
    let announced = format!(
        "POST / HTTP/1.1\r\nHost: x\r\n{headers}Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n"
    );
    let reply = send(&server, &announced).await;
    assert_eq!(
        (reply.status, reply.header("connection")),
        (413, Some("close"))
    );
    // In chunks: refused as soon as it is too long.
    let chunk = format!("190\r\n{}\r\n", "x".repeat(400));
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: x\r\n{headers}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(3)
    );
    assert_eq!(send(&server, &chunked).await.status, 413);
    // Sent in full although it is too long: the answer is seen all the same.
    assert_eq!(
        send(&server, &post(&headers, &"x".repeat(1900)))
            .await
            .status,
        413
    );
    // Exactly the limit is served.
    let body = format!("{{{}}}", " ".repeat(998));
    assert_eq!(send(&server, &post(&headers, &body)).await.status, 200);
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_continue() {
    let server = start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let headers = [JSON, LIST, AUTHORIZED].concat();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: x\r\n{headers}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_reply(&mut stream).await.status, 100);
    stream.write_all(b"{}").await.unwrap();
    assert_eq!(read_reply(&mut stream).await.status, 200);
}

#[tokio::test]
async fn s9_a_panic_is_an_internal_failure_and_the_connection_goes_on() {
    let server = start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let target = "X-Amz-Target: Kinesis_20131202.DescribeStream\r\n";
    for _ in 0..2 {
        stream
            .write_all(post(&[JSON, target, AUTHORIZED].concat(), "{}").as_bytes())
            .await
            .unwrap();
        read_reply(&mut stream)
            .await
            .assert(500, AMZ, r#"{"__type":"InternalFailure"}"#);
        stream
            .write_all(post(&[JSON, LIST, AUTHORIZED].concat(), "{}").as_bytes())
            .await
            .unwrap();
        assert_eq!(read_reply(&mut stream).await.status, 200);
    }
}

#[tokio::test]
async fn s9_nesting_however_deep_is_refused() {
    let server = start().await;
    let deep = format!(r#"{{"Records":{}"#, "[".repeat(10_000));
    let unknown = format!(
        r#"{{"Unknown":{}{}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let target = "X-Amz-Target: Kinesis_20131202.PutRecords\r\n";
    for body in [&deep, &unknown] {
        for headers in [[JSON, target, AUTHORIZED], [JSON, target, ""]] {
            let reply = send(&server, &post(&headers.concat(), body)).await;
            assert_eq!(reply.status, 400, "{reply:?}");
        }
    }
    assert_eq!(
        send(&server, &post(&[JSON, LIST, AUTHORIZED].concat(), "{}"))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn s9_a_tls_handshake_has_its_time() {
    let names = ["localhost".to_owned()];
    let identity = crate::tls::Identity::for_this_run(&names).unwrap();
    let server = start_with(
        fake,
        HttpConfig {
            tls: Some(tokio::sync::watch::Sender::new(Some(identity.config)).subscribe()),
            tls_handshake_timeout: Duration::from_millis(100),
            ..config()
        },
    )
    .await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"\x16\x03\x01\x02").await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0; 8])).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    // Plain requests are served beside it.
    let request = post(&[JSON, LIST, AUTHORIZED].concat(), "{}");
    assert_eq!(send(&server, &request).await.status, 200);
}

#[tokio::test]
async fn http_2_is_served_by_prior_knowledge_on_the_same_port() {
    let server = start().await;
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let record = serde_json::json!({"PartitionKey": "a", "Data": b64::encode(&[1; 1024])});
    let body = serde_json::json!({"StreamName": "s", "Records": vec![record; 500]}).to_string();
    let call = |target: &str| {
        client
            .post(format!("http://{}/", server.address))
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("Kinesis_20131202.{target}"))
            .header("x-amz-date", "20150101T000000Z")
            .header(
                "authorization",
                "AWS4 Credential=A/d/ap-south-1/kinesis/r,SignedHeaders=h,Signature=s",
            )
            .body(body.clone())
            .send()
    };
    let (first, panicked, second) = tokio::join!(
        call("PutRecords"),
        call("DescribeStream"),
        call("ListStreams")
    );
    let (first, panicked, second) = (first.unwrap(), panicked.unwrap(), second.unwrap());
    assert_eq!(first.version(), reqwest::Version::HTTP_2);
    assert!(first.headers().contains_key("x-amzn-requestid"));
    assert_eq!(first.text().await.unwrap(), r#"{"count":500}"#);
    assert_eq!(panicked.status(), 500);
    assert!(second.text().await.unwrap().contains("ap-south-1"));
}

#[tokio::test]
async fn s6_bodies_beyond_the_budget_are_answered_within_its_wait() {
    let tight = HttpConfig {
        max_body_bytes: 20_000,
        max_request_bytes: 20_000,
        ..config()
    };
    let server = start_with(fake, tight).await;
    let headers = [JSON, LIST, AUTHORIZED].concat();
    // Small bodies have a share of their own.
    let large = format!("{{{}}}", " ".repeat(17_000));
    // A chunked body counts as the longest there may be, and this one never ends.
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: x\r\n{headers}Transfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n"
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    // The budget is taken once the server has read that far; until then requests are served.
    let refused = loop {
        let reply = send(&server, &post(&headers, &large)).await;
        if reply.status != 200 {
            break reply;
        }
    };
    assert_eq!(refused.status, 503);
    assert!(
        refused
            .body
            .starts_with(r#"{"__type":"ServiceUnavailable""#),
        "{refused:?}"
    );
    drop(slow);
    while send(&server, &post(&headers, "{}")).await.status != 200 {}
}

#[tokio::test]
async fn s6_silent_clients_are_let_go() {
    let hasty = HttpConfig {
        max_connections: 3,
        header_read_timeout: Duration::from_millis(50),
        body_read_timeout: Duration::from_millis(50),
        ..config()
    };
    let server = start_with(fake, hasty).await;
    let headers = [JSON, LIST, AUTHORIZED].concat();
    let half = format!("POST / HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: 10\r\n\r\n{{");
    // As many as there may be connections: the next is served only because these are let go.
    let mut silent = Vec::new();
    for sent in ["", "PRI * HT", "POST / HTTP/1.1\r\nHost:"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        silent.push(stream);
    }
    assert_eq!(send(&server, &half).await.status, 408);
    for stream in &mut silent {
        let mut rest = Vec::new();
        // An end or a reset, but not a wait.
        let _ = stream.read_to_end(&mut rest).await;
    }
}

#[tokio::test]
async fn s6_a_client_that_does_not_read_is_cut_off() {
    // More than the kernel buffers for a socket.
    const LEN: usize = 32 << 20;
    let large = |_: Call| async { Ok(vec![b' '; LEN]) };
    let tight = HttpConfig {
        max_response_bytes: LEN,
        admission_wait: Duration::from_millis(1),
        write_stall_timeout: Duration::from_millis(500),
        ..config()
    };
    let server = start_with(large, tight).await;
    let request = post(&[JSON, LIST, AUTHORIZED].concat(), "{}");
    let mut deaf = TcpStream::connect(server.address).await.unwrap();
    deaf.write_all(request.as_bytes()).await.unwrap();
    deaf.readable().await.unwrap();
    // Its answer holds the whole budget until it is given up on.
    assert_eq!(send(&server, &request).await.status, 503);
    while send(&server, &request).await.status != 200 {}
}

#[tokio::test]
async fn s10_requests_under_way_finish_before_the_end() {
    let server = start().await;
    let target = "X-Amz-Target: Kinesis_20131202.GetRecords\r\n";
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(post(&[JSON, LIST, AUTHORIZED].concat(), "{}").as_bytes())
        .await
        .unwrap();
    assert_eq!(read_reply(&mut idle).await.status, 200);
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    let request = post(
        &["Expect: 100-continue\r\n", JSON, target, AUTHORIZED].concat(),
        "{}",
    );
    busy.write_all(request.as_bytes()).await.unwrap();
    // The body is being read, so the request is under way.
    assert_eq!(read_reply(&mut busy).await.status, 100);
    server.shutdown.cancel();
    let mut rest = Vec::new();
    assert_eq!(
        idle.read_to_end(&mut rest).await.unwrap(),
        0,
        "an idle connection ends"
    );
    assert!(!server.task.is_finished());
    GATE.add_permits(1);
    assert_eq!(read_reply(&mut busy).await.status, 200);
    server.task.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn s9_no_bytes_stop_the_server(
        noise in proptest::collection::vec(any::<u8>(), 0..300),
        body in proptest::collection::vec(any::<u8>(), 1..300),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = start().await;
            // Noise instead of a request.
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            let _ = stream.write_all(&noise).await;
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            // Noise as a body.
            let target = "X-Amz-Target: Kinesis_20131202.PutRecords\r\n";
            let head = [JSON, target, AUTHORIZED].concat();
            let mut request = format!("POST / HTTP/1.1\r\n{head}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
            request.extend_from_slice(&body);
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(&request).await.unwrap();
            assert_eq!(read_reply(&mut stream).await.status, 400);
            // The next request is served.
            let next = send(&server, &post(&[JSON, LIST, AUTHORIZED].concat(), "{}")).await;
            assert_eq!(next.status, 200);
            assert!(!server.task.is_finished());
        });
    }
}
