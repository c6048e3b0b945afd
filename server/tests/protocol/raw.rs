//! HTTP/1.1 by hand: bytes go out as they are given, answers are read strictly. And the servers it talks to.

use millstream_server::api::{Api, Latency};
use millstream_server::http::{HttpConfig, serve};
use millstream_server::{Config, DataLocation, Limits, Server};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long anything may take, on a busy machine and in a debug build.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
/// A complete signature; any is accepted.
pub(crate) const SIGNED: &str = "X-Amz-Date: 20150101T000000Z\r\nAuthorization: AWS4-HMAC-SHA256 \
                                 Credential=A/20150101/us-east-1/kinesis/aws4_request, SignedHeaders=host, \
                                 Signature=b\r\n";
pub(crate) const JSON: &str = "application/x-amz-json-1.1";
pub(crate) const CBOR: &str = "application/x-amz-cbor-1.1";
/// `ListStreams` of a server without streams.
pub(crate) const NO_STREAMS: &str =
    r#"{"StreamNames":[],"HasMoreStreams":false,"StreamSummaries":[]}"#;

/// A server in memory, with no stream.
pub(crate) async fn start() -> Server {
    let config = Config {
        port: 0,
        data: DataLocation::Ephemeral,
        limits: Limits::Off,
        ..Config::default()
    };
    Server::start(config).await.unwrap()
}

/// Another front of the same service, with settings of its own.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<std::io::Result<()>>,
}

/// A front with what `change` makes of the defaults.
pub(crate) async fn front(server: &Server, change: impl FnOnce(&mut HttpConfig)) -> Front {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let account = "000000000000".parse().unwrap();
    let mut config = HttpConfig::new(account, "us-east-1".parse().unwrap());
    change(&mut config);
    let shutdown = CancellationToken::new();
    let api = Api::new(server.engine().clone(), Latency::default());
    let task = tokio::spawn(serve(listener, api, config, shutdown.clone()));
    Front {
        address,
        shutdown,
        task,
    }
}

/// An answer, its headers by name in the order they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn assert(&self, status: u16, body: &str) {
        assert_eq!(
            (self.status, self.text().as_str()),
            (status, body),
            "{self:?}"
        );
    }
}

/// One connection.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Connection {
            stream,
            buffer: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = timeout(LIMIT, self.stream.write_all(bytes.as_ref()));
        sent.await.expect("the server takes bytes").unwrap();
    }

    /// No more will be sent.
    pub(crate) async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    async fn more(&mut self) -> bool {
        let read = timeout(LIMIT, self.stream.read_buf(&mut self.buffer));
        matches!(read.await.expect("bytes or an end in time"), Ok(1..))
    }

    /// The next answer to anything but `HEAD`.
    pub(crate) async fn reply(&mut self) -> Reply {
        let reply = self.reply_or_end().await;
        reply.expect("an answer and not an end")
    }

    /// The next answer, or `None` where the connection ended instead.
    pub(crate) async fn reply_or_end(&mut self) -> Option<Reply> {
        let head = self.head().await?;
        let body = self.body(&head).await;
        Some(Reply { body, ..head })
    }

    /// The body of an answer whose head was read.
    pub(crate) async fn body(&mut self, head: &Reply) -> Vec<u8> {
        let len = head
            .header("content-length")
            .map_or(0, |len| len.parse().unwrap());
        while self.buffer.len() < len {
            assert!(self.more().await, "cut in the body of {head:?}");
        }
        self.buffer.drain(..len).collect()
    }

    /// The next chunk of a body in chunks; the last one is empty.
    pub(crate) async fn chunk(&mut self) -> Vec<u8> {
        let end = loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                break end;
            }
            assert!(self.more().await, "cut in the length of a chunk");
        };
        let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
        let len = usize::from_str_radix(std::str::from_utf8(&line).unwrap(), 16).unwrap();
        while self.buffer.len() < len + 2 {
            assert!(self.more().await, "cut in a chunk");
        }
        self.buffer.drain(..len + 2).take(len).collect()
    }

    /// The head of the next answer, whatever its length says.
    pub(crate) async fn head(&mut self) -> Option<Reply> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if !self.more().await {
                assert!(
                    self.buffer.is_empty(),
                    "cut in the head: {}",
                    String::from_utf8_lossy(&self.buffer)
                );
                return None;
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let head = std::str::from_utf8(&head[..end]).unwrap();
        let (line, headers) = head.split_once("\r\n").unwrap_or((head, ""));
        let (version, line) = line.split_once(' ').unwrap();
        assert!(["HTTP/1.1", "HTTP/1.0"].contains(&version), "{version}");
        let headers = headers.split("\r\n").filter(|line| !line.is_empty());
        let headers = headers.map(|line| line.split_once(": ").expect("a header"));
        Some(Reply {
            status: line[..3].parse().unwrap(),
            headers: headers
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            body: Vec::new(),
        })
    }

    /// Asserts that the server sends nothing more and closes.
    pub(crate) async fn assert_closed(&mut self) {
        assert!(
            !self.more().await,
            "unexpected: {}",
            String::from_utf8_lossy(&self.buffer)
        );
        assert!(
            self.buffer.is_empty(),
            "unexpected: {}",
            String::from_utf8_lossy(&self.buffer)
        );
    }
}

/// `POST /` with these headers, a `Host`, the body and its length.
pub(crate) fn post(headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The headers of a signed call.
pub(crate) fn call(kind: &str, operation: &str) -> String {
    format!("Content-Type: {kind}\r\nX-Amz-Target: Kinesis_20131202.{operation}\r\n{SIGNED}")
}

/// One request on a connection of its own.
pub(crate) async fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Reply {
    let mut connection = Connection::open(address).await;
    connection.send(request).await;
    connection.reply().await
}

/// Asserts that a well-behaved client is served.
pub(crate) async fn assert_serves(address: SocketAddr) {
    let reply = ask(address, post(&call(JSON, "ListStreams"), "{}")).await;
    reply.assert(200, NO_STREAMS);
}

/// The length of `{}`.
pub(crate) const TWO: &str = "Content-Length: 2\r\n";

/// `ListStreams` with these lines in its head; the length is one of them.
pub(crate) fn list(version: &str, target: &str, lines: &str, body: &str) -> String {
    let call = call(JSON, "ListStreams");
    format!("POST {target} HTTP/{version}\r\nHost: x\r\n{call}{lines}\r\n{body}")
}

/// A record of one byte.
pub(crate) fn put(stream: &str) -> Vec<u8> {
    let body = format!(r#"{{"StreamName":"{stream}","PartitionKey":"k","Data":"YQ=="}}"#);
    post(&call(JSON, "PutRecord"), body)
}
