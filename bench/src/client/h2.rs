//! HTTP/2 with prior knowledge, by hyper's client.

use super::{ANSWER_MAX_BYTES, Answer, Request};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// What a server may send before it is told that there is room: as much as a large answer.
const WINDOW_BYTES: u32 = 4 << 20;

/// A connection; dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
    answer: Bytes,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Connects to `host:port`.
    pub async fn open(host: &str) -> io::Result<Connection> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let driver = tokio::spawn(async move {
            // Its error reaches the request in flight as well.
            let _ = connection.await;
        });
        Ok(Connection {
            sender,
            driver,
            answer: Bytes::new(),
        })
    }

    pub(super) async fn send(&mut self, request: &Request) -> io::Result<Answer<'_>> {
        let response = self.begin(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES);
        let body = body.collect().await.map_err(io::Error::other)?;
        self.answer = body.to_bytes();
        let body = &self.answer;
        Ok(Answer { status, body })
    }

    /// Sends a request; the body of the answer is still to come.
    pub async fn begin(&self, request: &Request) -> io::Result<http::Response<Incoming>> {
        let mut sent = http::Request::post(request.uri.clone())
            .body(Full::new(request.body.clone()))
            .map_err(io::Error::other)?;
        sent.headers_mut().clone_from(&request.headers);
        let mut sender = self.sender.clone();
        sender.ready().await.map_err(io::Error::other)?;
        let response = sender.send_request(sent).await;
        response.map_err(io::Error::other)
    }
}
