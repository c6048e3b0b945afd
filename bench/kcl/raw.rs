//! What a reader gets that does nothing else: all shards at once, answers counted and dropped. It is what the server can send on this machine, and
//! what each library's rate is a share of.
//!
//! It asks in CBOR, which the server writes with the least work, checks nothing, keeps nothing, and looks into an answer only as far as to count its
//! records.

use crate::Failure;
use crate::command::Retrieval;
use crate::worker::{Counts, say, tell};
use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use millstream_bench::clock::now_us;
use minicbor::{Decoder, Encoder};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=host;x-amz-date, Signature=0000000000000000000000000000000000000000000000000000000000000000";
const JSON: &str = "application/x-amz-json-1.1";
const CBOR: &str = "application/x-amz-cbor-1.1";
/// How long it waits when the server has too many answers in memory, or nothing new.
const PAUSE: Duration = Duration::from_millis(5);
/// What may be on its way of one subscription: as much as the server puts into an event.
const WINDOW_BYTES: u32 = 4 << 20;
const CONSUMER_ACTIVE_TRIES: u32 = 200;
/// Before the payload of a frame: its length, its headers' length, and a checksum.
const PRELUDE_BYTES: usize = 12;
/// Behind it: a checksum.
const CHECKSUM_BYTES: usize = 4;

/// The arguments of a raw reader.
#[derive(Debug, clap::Args)]
pub(crate) struct Fetch {
    /// Host and port.
    #[arg(long)]
    host: String,
    #[arg(long)]
    stream: String,
    #[arg(long)]
    consumer: String,
    #[arg(long)]
    retrieval: Retrieval,
}

/// Reads until it is ended.
pub(crate) async fn fetch(fetch: Fetch) -> Result<(), Failure> {
    let counts = Arc::<Counts>::default();
    let telling = tokio::spawn(tell(Arc::clone(&counts)));
    let mut control = Http1::open(&fetch.host).await?;
    let listed = json!({ "StreamName": fetch.stream });
    let listed = control.ask("ListShards", &listed).await?;
    let shards = listed["Shards"].as_array().ok_or("no shards")?;
    let ids = shards.iter().filter_map(|shard| shard["ShardId"].as_str());
    let mut readers = JoinSet::new();
    match fetch.retrieval {
        Retrieval::Polling => {
            for shard in ids {
                let connection = Http1::open(&fetch.host).await?;
                let counts = Arc::clone(&counts);
                let shard = (fetch.stream.clone(), shard.to_owned());
                readers.spawn(poll(connection, shard, counts));
            }
        }
        Retrieval::Fanout => {
            let arn = register(&mut control, &fetch).await?;
            let connection = Http2::open(&fetch.host).await?;
            for shard in ids {
                let connection = connection.clone();
                let (arn, counts) = (arn.clone(), Arc::clone(&counts));
                readers.spawn(listen(connection, arn, shard.to_owned(), counts));
            }
        }
    }
    while let Some(ended) = readers.join_next().await {
        ended??;
    }
    telling.abort();
    Ok(())
}

/// One shard by GetRecords, from its trim horizon on, for ever.
async fn poll(
    mut connection: Http1,
    (stream, shard): (String, String),
    counts: Arc<Counts>,
) -> Result<(), Failure> {
    say(&format!("shard {shard} {}", now_us()));
    let start = json!({
        "StreamName": stream, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON",
    });
    let answer = connection.ask("GetShardIterator", &start).await?;
    let mut iterator = answer["ShardIterator"].as_str().map(str::to_owned);
    while let Some(token) = iterator {
        let mut body = Encoder::new(Vec::new());
        body.map(1)?.str("ShardIterator")?.str(&token)?;
        let body = Bytes::from(body.into_writer());
        let (status, answer) = connection.call("GetRecords", CBOR, body).await?;
        if status == StatusCode::SERVICE_UNAVAILABLE {
            tokio::time::sleep(PAUSE).await;
            iterator = Some(token);
            continue;
        }
        expect(status, &answer)?;
        let page = Page::of(&answer)?;
        counts.add(page.records, answer.len());
        if page.records == 0 {
            tokio::time::sleep(PAUSE).await;
        }
        iterator = page.next;
    }
    Ok(())
}

/// One shard by a subscription, from its trim horizon on, until it ends.
async fn listen(
    mut connection: Http2,
    arn: String,
    shard: String,
    counts: Arc<Counts>,
) -> Result<(), Failure> {
    say(&format!("shard {shard} {}", now_us()));
    let mut body = Encoder::new(Vec::new());
    body.map(3)?.str("ConsumerARN")?.str(&arn)?;
    body.str("ShardId")?.str(&shard)?;
    body.str("StartingPosition")?
        .map(1)?
        .str("Type")?
        .str("TRIM_HORIZON")?;
    let body = Bytes::from(body.into_writer());
    let mut events = connection.subscribe(body).await?;
    let mut received = BytesMut::new();
    while let Some(piece) = events.frame().await {
        if let Ok(data) = piece?.into_data() {
            received.extend_from_slice(&data);
        }
        while let Some(payload) = next_payload(&mut received)? {
            counts.add(Page::of(&payload)?.records, payload.len());
        }
    }
    Ok(())
}

/// The payload of the next frame, if it has arrived.
fn next_payload(received: &mut BytesMut) -> Result<Option<Bytes>, Failure> {
    let number = |at: usize| -> Option<usize> {
        let bytes = received.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_be_bytes(bytes)).ok()
    };
    let (Some(total), Some(headers)) = (number(0), number(4)) else {
        return Ok(None);
    };
    if received.len() < total {
        return Ok(None);
    }
    let mut frame = received.split_to(total);
    if PRELUDE_BYTES + headers + CHECKSUM_BYTES > total {
        return Err(format!("a frame of {total} bytes with {headers} of headers").into());
    }
    frame.truncate(total - CHECKSUM_BYTES);
    Ok(Some(frame.split_off(PRELUDE_BYTES + headers).freeze()))
}

/// As much of an answer as is looked at.
#[derive(Debug, Default)]
struct Page {
    records: u64,
    next: Option<String>,
}

impl Page {
    fn of(body: &[u8]) -> Result<Page, Failure> {
        let (mut page, mut input) = (Page::default(), Decoder::new(body));
        if body.is_empty() {
            return Ok(page);
        }
        let mut left = input.map()?;
        while more(&mut input, &mut left)? {
            match input.str()? {
                "Records" => {
                    let mut left = input.array()?;
                    while more(&mut input, &mut left)? {
                        input.skip()?;
                        page.records += 1;
                    }
                }
                "NextShardIterator" => page.next = Some(input.str()?.to_owned()),
                _ => input.skip()?,
            }
        }
        Ok(page)
    }
}

/// Whether a list or map goes on: so many are left, or all until the break.
fn more(input: &mut Decoder<'_>, left: &mut Option<u64>) -> Result<bool, Failure> {
    if let Some(left) = left {
        let is_more = *left > 0;
        *left = left.saturating_sub(1);
        return Ok(is_more);
    }
    let is_over = input.datatype()? == minicbor::data::Type::Break;
    if is_over {
        input.set_position(input.position() + 1);
    }
    Ok(!is_over)
}

/// Registers a consumer of its own, and waits until it can subscribe.
async fn register(control: &mut Http1, fetch: &Fetch) -> Result<String, Failure> {
    let stream = json!({ "StreamName": fetch.stream });
    let stream = control.ask("DescribeStreamSummary", &stream).await?;
    let stream = &stream["StreamDescriptionSummary"]["StreamARN"];
    let consumer = json!({ "StreamARN": stream, "ConsumerName": fetch.consumer });
    control.ask("RegisterStreamConsumer", &consumer).await?;
    for _ in 0..CONSUMER_ACTIVE_TRIES {
        let found = control.ask("DescribeStreamConsumer", &consumer).await?;
        let found = &found["ConsumerDescription"];
        if found["ConsumerStatus"] == "ACTIVE" {
            let arn = found["ConsumerARN"].as_str().ok_or("no ARN")?;
            return Ok(arn.to_owned());
        }
        tokio::time::sleep(PAUSE * 10).await;
    }
    Err("the consumer does not become active".into())
}

fn request(
    url: &str,
    operation: &str,
    kind: &str,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, Failure> {
    let request = Request::post(url)
        .header(header::CONTENT_TYPE, kind)
        .header(header::AUTHORIZATION, AUTHORIZATION)
        .header("x-amz-date", "20260101T000000Z")
        .header("x-amz-target", format!("Kinesis_20131202.{operation}"));
    Ok(request.body(Full::new(body))?)
}

fn expect(status: StatusCode, answer: &[u8]) -> Result<(), Failure> {
    if status == StatusCode::OK {
        return Ok(());
    }
    let text = String::from_utf8_lossy(answer).into_owned();
    Err(format!("refused with {status}: {text}").into())
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, Failure> {
    let announced = response.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse().ok());
    let mut whole = BytesMut::with_capacity(announced.unwrap_or(0));
    let mut body = response.into_body();
    while let Some(piece) = body.frame().await {
        if let Ok(data) = piece?.into_data() {
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}

/// A connection for one request after the other.
struct Http1 {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
}

impl Http1 {
    async fn open(host: &str) -> Result<Http1, Failure> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the sender; what goes wrong reaches the request in flight as well.
        tokio::spawn(connection);
        Ok(Http1 {
            sender,
            host: host.to_owned(),
        })
    }

    async fn call(
        &mut self,
        operation: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let mut request = request("/", operation, kind, body)?;
        let host = self.host.parse()?;
        request.headers_mut().insert(header::HOST, host);
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        Ok((response.status(), whole(response).await?))
    }

    async fn ask(&mut self, operation: &str, body: &Value) -> Result<Value, Failure> {
        let body = Bytes::from(body.to_string());
        let (status, answer) = self.call(operation, JSON, body).await?;
        expect(status, &answer)?;
        Ok(serde_json::from_slice(&answer)?)
    }
}

/// A connection for all subscriptions.
#[derive(Clone)]
struct Http2 {
    sender: http2::SendRequest<Full<Bytes>>,
    url: String,
}

impl Http2 {
    async fn open(host: &str) -> Result<Http2, Failure> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(i32::MAX.unsigned_abs())
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(connection);
        Ok(Http2 {
            sender,
            url: format!("http://{host}/"),
        })
    }

    async fn subscribe(&mut self, body: Bytes) -> Result<Incoming, Failure> {
        let request = request(&self.url, "SubscribeToShard", CBOR, body)?;
        let response = self.sender.send_request(request).await?;
        if response.status() == StatusCode::OK {
            return Ok(response.into_body());
        }
        let status = response.status();
        let answer = whole(response).await?;
        expect(status, &answer)?;
        Err("refused".into())
    }
}
