//! Signatures, in the header and in the query, sent to a server as they are: who signed is what the answer says. A line each: the query, the header
//! `Authorization`, the header `X-Amz-Date`.

use crate::engine::{Target, shape};
use millstream_server::api::Call;
use millstream_server::http::{self, HttpConfig};
use millstream_wire::{AccountId, Region};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// No answer takes longer.
const ANSWER_TIME: Duration = Duration::from_secs(30);

pub(crate) struct Signatures {
    runtime: Runtime,
    address: SocketAddr,
    /// Gone where the server has ended it.
    stream: Option<TcpStream>,
}

/// A status and a body.
type Answer = (u16, String);

impl Signatures {
    pub(crate) fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let config = HttpConfig::new(
            "000000000000".parse().unwrap(),
            "us-east-1".parse().unwrap(),
        );
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        // It ends with the runtime.
        let stop = CancellationToken::new();
        runtime.spawn(http::serve(listener, signer, config, stop));
        Signatures {
            runtime,
            address,
            stream: None,
        }
    }
}

/// Who asks.
async fn signer(call: Call) -> Result<Vec<u8>, millstream_server::error::ApiError> {
    let caller = call.caller;
    Ok(format!("{} {}", caller.account, caller.region).into_bytes())
}

/// A request with these parts, as far as they can be parts of one.
fn request(input: &[u8]) -> Vec<u8> {
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default().to_vec();
    let [mut query, mut authorization, mut date] = [line(), line(), line()];
    // What would end the line of a request, or a header.
    for byte in &mut query {
        if !byte.is_ascii_graphic() || *byte == b'#' {
            *byte = b'+';
        }
    }
    for byte in authorization.iter_mut().chain(&mut date) {
        if byte.is_ascii_control() {
            *byte = b' ';
        }
    }
    let mut request = [b"POST /?", &query[..], b" HTTP/1.1\r\nHost: x\r\n"].concat();
    request.extend(b"Content-Type: application/x-amz-json-1.1\r\n");
    request.extend(b"X-Amz-Target: Kinesis_20131202.ListStreams\r\n");
    for (name, value) in [("Authorization", authorization), ("X-Amz-Date", date)] {
        if !value.is_empty() {
            request.extend([name.as_bytes(), b": ", &value, b"\r\n"].concat());
        }
    }
    request.extend(b"Content-Length: 2\r\n\r\n{}");
    request
}

/// The answer, and whether another request may follow; `None` where the connection ended before it.
async fn ask(stream: &mut TcpStream, request: &[u8]) -> Option<(Answer, bool)> {
    stream.write_all(request).await.ok()?;
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let of = |name| head.lines().find_map(|line| line.strip_prefix(name));
        let length = of("content-length: ").map_or(0, |length| length.parse().unwrap());
        let body = &bytes[end + 4..];
        if body.len() >= length {
            let body = String::from_utf8_lossy(body).into_owned();
            let goes_on = of("connection: close").is_none();
            return Some(((head[9..12].parse().unwrap(), body), goes_on));
        }
    }
}

impl Target for Signatures {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let header = "AWS4-HMAC-SHA256 Credential=123456789012/20260101/eu-west-1/kinesis/aws4_request, SignedHeaders=host;x-amz-date, Signature=abc";
        let query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKID%2F20260101%2Fus-west-2%2Fkinesis%2Faws4_request&X-Amz-Signature=b&X-Amz-SignedHeaders=host&X-Amz-Date=d";
        let seeds = [
            format!("\n{header}\n20260101T000000Z"),
            format!("{query}\n\n"),
            format!("{query}\n{header}\n"),
            "X-Amz-Algorithm\n\n".to_owned(),
            "\nBearer x\n".to_owned(),
        ];
        seeds.map(String::into_bytes).to_vec()
    }

    fn tokens(&self) -> &'static [&'static [u8]] {
        &[
            b"Credential=",
            b"Signature=",
            b"SignedHeaders=",
            b"AWS4-HMAC-SHA256 ",
            b"X-Amz-Algorithm=",
            b"X-Amz-Credential=",
            b"X-Amz-Signature=",
            b"X-Amz-SignedHeaders=",
            b"X-Amz-Date=",
            b"000000000001/",
            b"/eu-west-1/",
            b",",
            b", ",
            b"&",
            b"=",
            b"/",
            b"%",
            b"%2F",
            b"%ff",
            b"%c3%28",
            b"%+1",
            b"\xc3\xa9",
        ]
    }

    fn run(&mut self, input: &[u8]) -> u64 {
        let request = request(input);
        let (address, stream) = (self.address, self.stream.take());
        let asked = async {
            let mut stream = match stream {
                Some(stream) => stream,
                None => TcpStream::connect(address).await.unwrap(),
            };
            let answer = ask(&mut stream, &request).await;
            (answer, stream)
        };
        let asked = self
            .runtime
            .block_on(async { timeout(ANSWER_TIME, asked).await });
        let (answer, stream) = asked.expect("no answer");
        let ((status, body), goes_on) = answer.expect("the connection ended before the answer");
        self.stream = goes_on.then_some(stream);
        if status != 200 {
            // What is no HTTP, or too much of it, is refused without a body.
            let refused = matches!(status, 400 | 403 | 414 | 431);
            assert!(refused, "{status} {body}");
            // A header is quoted behind this.
            let said = body.split("Authorization=").next().unwrap_or_default();
            return shape(said.replace(['"', '\''], ""));
        }
        let (account, region) = body.split_once(' ').expect("who asks");
        assert!(account.parse::<AccountId>().is_ok(), "{body}");
        assert!(region.parse::<Region>().is_ok(), "{body}");
        shape(format_args!(
            "{} {}",
            account == "000000000000",
            region == "us-east-1"
        ))
    }
}
