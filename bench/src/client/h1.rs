//! HTTP/1.1 by hand: a head made beforehand and a body in one write, and of the answer no more read than its end needs.
//!
//! A general client costs about as much processor time for a request as a server does; on a machine that both share it would
//! measure itself.

use super::head::{Extent, Head, dechunk};
use super::{ANSWER_MAX_BYTES, Answer, Request};
use std::io::{self, IoSlice};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Room for what comes next when nobody has said how much that is.
const READ_BYTES: usize = 16 * 1024;

/// A connection, one request at a time.
#[derive(Debug)]
pub struct Connection {
    host: String,
    stream: TcpStream,
    /// The answer so far.
    input: Vec<u8>,
    /// The server ends the connection, so the next request needs another.
    is_over: bool,
}

impl Connection {
    /// Connects to `host:port`.
    pub async fn open(host: &str) -> io::Result<Connection> {
        Ok(Connection {
            host: host.to_owned(),
            stream: connect(host).await?,
            input: Vec::with_capacity(READ_BYTES),
            is_over: false,
        })
    }

    pub(super) async fn send(&mut self, request: &Request) -> io::Result<Answer<'_>> {
        if self.is_over {
            self.stream = connect(&self.host).await?;
            self.is_over = false;
        }
        self.write(&request.head, &request.body).await?;
        let head = self.read_head().await?;
        self.is_over = head.is_last;
        self.read_body(head).await
    }

    async fn write(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        let mut pieces = [IoSlice::new(head), IoSlice::new(body)];
        let mut left = pieces.as_mut_slice();
        // Nothing is left when the pieces that are have no bytes.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match self.stream.write_vectored(left).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => IoSlice::advance_slices(&mut left, written),
            }
        }
        Ok(())
    }

    async fn read_head(&mut self) -> io::Result<Head> {
        self.input.clear();
        loop {
            self.input.reserve(READ_BYTES);
            self.read_some().await?;
            if let Some(head) = Head::parse(&self.input).map_err(io::Error::other)? {
                return Ok(head);
            }
        }
    }

    async fn read_body(&mut self, head: Head) -> io::Result<Answer<'_>> {
        let status = head.status;
        match head.extent {
            Extent::Length(len) => {
                let end = head.len.saturating_add(len);
                if end > ANSWER_MAX_BYTES {
                    return Err(too_long());
                }
                self.input.reserve(end.saturating_sub(self.input.len()));
                while self.input.len() < end {
                    self.read_some().await?;
                }
                let body = self.input.get(head.len..end).unwrap_or_default();
                return Ok(Answer { status, body });
            }
            Extent::Chunked => loop {
                let body = self.input.get(head.len..).unwrap_or_default();
                if let Some(body) = dechunk(body).map_err(io::Error::other)? {
                    self.input = body;
                    break;
                }
                self.read_more().await?;
            },
            Extent::ToTheEnd => {
                while self.read_more().await? {}
                self.input.drain(..head.len);
            }
        }
        let body = &self.input;
        Ok(Answer { status, body })
    }

    /// Reads what there is; the end of the connection is an error.
    async fn read_some(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Whether there was more before the end of the connection.
    async fn read_more(&mut self) -> io::Result<bool> {
        if self.input.len() > ANSWER_MAX_BYTES {
            return Err(too_long());
        }
        self.input.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.input).await {
            Ok(read) => Ok(read > 0),
            Err(error) => Err(error),
        }
    }
}

fn too_long() -> io::Error {
    io::Error::other(format!("an answer of more than {ANSWER_MAX_BYTES} bytes"))
}

async fn connect(host: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(host).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
