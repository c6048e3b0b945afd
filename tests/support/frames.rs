//! HTTP/2 by hand: frames go out as they are given, with or against the rules, and what comes is shown as frames.
//! Headers are written without compression; of an answer's headers only the status is read.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// A signature's parts; the server does not verify them.
const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 \
    Credential=AKIDEXAMPLE/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=5d67";
/// What a connection begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames.
pub mod kind {
    #![allow(missing_docs)]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// The flag of the last frame of a stream, and of an acknowledgement.
pub const END_STREAM: u8 = 1;
/// The flag of the last frame of headers.
pub const END_HEADERS: u8 = 4;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
    /// What is in it.
    pub payload: Vec<u8>,
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = len[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A SETTINGS frame of these values by id.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let each = values.iter().flat_map(|(id, value)| {
        let (id, value) = (id.to_be_bytes(), value.to_be_bytes());
        id.into_iter().chain(value)
    });
    frame(kind::SETTINGS, 0, 0, &each.collect::<Vec<u8>>())
}

/// Headers without compression.
pub fn header_block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, 7, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A number in a prefix of so many bits, the bits before it 0.
fn integer(block: &mut Vec<u8>, bits: u32, value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        block.push(u8::try_from(value).unwrap());
        return;
    }
    block.push(u8::try_from(most).unwrap());
    let mut rest = value - most;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

/// The headers of a call.
pub fn call_headers(operation: &str) -> Vec<u8> {
    let target = format!("Kinesis_20131202.{operation}");
    header_block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "localhost"),
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amz-target", &target),
        ("x-amz-date", "20260101T000000Z"),
        ("authorization", AUTHORIZATION),
    ])
}

/// The frames of a whole call on a stream; a body beyond one frame's 16,384 bytes is split.
pub fn call(stream: u32, operation: &str, body: &[u8]) -> Vec<u8> {
    let block = call_headers(operation);
    let mut bytes = frame(kind::HEADERS, END_HEADERS, stream, &block);
    let mut chunks = body.chunks(16_384).peekable();
    while let Some(chunk) = chunks.next() {
        let flags = if chunks.peek().is_some() {
            0
        } else {
            END_STREAM
        };
        bytes.extend(frame(kind::DATA, flags, stream, chunk));
    }
    bytes
}

/// The status in a block of headers as the server writes them: the first, and of the table that both know.
pub fn status(block: &[u8]) -> Option<u16> {
    // A change of the table's size may come first.
    let first = block.iter().find(|byte| **byte >> 5 != 1)?;
    match first {
        0x88 => Some(200),
        0x8c => Some(400),
        0x8d => Some(404),
        0x8e => Some(500),
        _ => None,
    }
}

/// A connection that says hello and nothing else by itself.
#[derive(Debug)]
pub struct Http2 {
    /// The socket.
    pub stream: TcpStream,
    buffer: Vec<u8>,
    frames: VecDeque<Frame>,
    ended: bool,
}

impl Http2 {
    /// Connects, with these settings.
    pub async fn open(port: u16, values: &[(u16, u32)]) -> Http2 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut hello = PREFACE.to_vec();
        hello.extend(settings(values));
        stream.write_all(&hello).await.unwrap();
        Http2 {
            stream,
            buffer: Vec::new(),
            frames: VecDeque::new(),
            ended: false,
        }
    }

    /// Sends bytes; false where the server does not take them within `patience`, or has gone.
    pub async fn send(&mut self, bytes: &[u8], patience: Duration) -> bool {
        let sent = tokio::time::timeout(patience, self.stream.write_all(bytes)).await;
        matches!(sent, Ok(Ok(())))
    }

    /// The next frame, if one comes until then; `None` at the end of the connection too. Pings and
    /// settings are answered as it goes.
    pub async fn next(&mut self, until: Instant) -> Option<Frame> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            if let Some(frame) = self.parse() {
                self.acknowledge(&frame).await;
                return Some(frame);
            }
            let read = timeout_at(until, self.stream.read_buf(&mut self.buffer));
            match read.await {
                Ok(Ok(1..)) => {}
                Ok(_) => {
                    self.ended = true;
                    return None;
                }
                Err(_) => return None,
            }
        }
    }

    /// The next frame that `wanted` picks; others are dropped.
    pub async fn find(&mut self, until: Instant, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        while let Some(frame) = self.next(until).await {
            if wanted(&frame) {
                return Some(frame);
            }
        }
        None
    }

    /// The answer on a stream: the status that is read of it, and its body. `None` where it was reset, or did
    /// not end in time.
    pub async fn answer(&mut self, stream: u32, until: Instant) -> Option<(Option<u16>, Vec<u8>)> {
        let (mut found, mut body) = (None, Vec::new());
        let mut others = Vec::new();
        let whole = loop {
            let Some(frame) = self.next(until).await else {
                break false;
            };
            if frame.stream != stream {
                others.push(frame);
                continue;
            }
            match frame.kind {
                kind::HEADERS => found = status(&frame.payload),
                kind::DATA => body.extend_from_slice(&frame.payload),
                kind::RST_STREAM => break false,
                _ => {}
            }
            if frame.kind <= kind::HEADERS && frame.flags & END_STREAM != 0 {
                break true;
            }
        };
        others.extend(self.frames.drain(..));
        self.frames = others.into();
        whole.then_some((found, body))
    }

    /// Whether the connection has ended, as far as it was read.
    pub fn ended(&self) -> bool {
        self.ended
    }

    async fn acknowledge(&mut self, frame: &Frame) {
        if frame.flags == 0 && [kind::PING, kind::SETTINGS].contains(&frame.kind) {
            let same: &[u8] = match frame.kind {
                kind::PING => &frame.payload,
                _ => &[],
            };
            // Where the connection has ended, reading will tell.
            let _ = self
                .stream
                .write_all(&self::frame(frame.kind, 1, 0, same))
                .await;
        }
    }

    fn parse(&mut self) -> Option<Frame> {
        let head = self.buffer.get(..9)?;
        let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        if self.buffer.len() < 9 + len {
            return None;
        }
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        let (kind, flags) = (head[3], head[4]);
        let payload = self.buffer.drain(..9 + len).skip(9).collect();
        Some(Frame {
            kind,
            flags,
            stream,
            payload,
        })
    }
}
