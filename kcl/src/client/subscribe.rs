//! `SubscribeToShard` over HTTP/2: connections enough for all shards, and the events of one subscription, frame by frame.
//!
//! What a subscription holds in memory is bounded by the window that the server may fill and by the one frame that is asked for. A connection
//! has room for the windows of all its subscriptions, so one whose events nobody takes holds up no other (K10).

use crate::client::cbor;
use crate::client::dialect::encoding_of;
use crate::client::json::{RecordsAnswer, http_date_ms, kind_of};
use crate::client::refusal::{Failure, Refused, Remedy, ahead_of, causes, error_answer, unreached};
use crate::client::sign::SigningKeys;
use crate::client::target::Target;
use crate::client::{
    IteratorStart, StreamConsumer, SubscribeRequest, Subscription, SubscriptionEvent,
};
use crate::error::{Error, ErrorKind};
use async_trait::async_trait;
use aws_smithy_eventstream::frame::read_message_from;
use aws_smithy_types::event_stream::Message;
use bytes::{Bytes, BytesMut};
use millstream_wire::operation::TARGET_PREFIX;
use millstream_wire::shapes::{
    ShardIteratorType, StartingPosition, SubscribeToShardRequest, Timestamp,
};
use millstream_wire::{Encoding, ErrorCode, Operation};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Subscriptions that share a connection. Servers allow about a hundred requests at once on one, some fewer.
const SUBSCRIPTIONS_PER_CONNECTION: u16 = 50;
/// Connections at most: for ten thousand shards, more than one worker can process.
const CONNECTIONS_MAX: usize = 200;
/// What a server may send of a subscription before it is asked for: a quarter of a full event, and at 50 ms to the server still
/// 5 MB a second, where a shard gives 2.
const SUBSCRIPTION_WINDOW_BYTES: u32 = 256 * 1024;
/// The windows of all subscriptions of a connection together.
const CONNECTION_WINDOW_BYTES: u32 =
    SUBSCRIPTION_WINDOW_BYTES * SUBSCRIPTIONS_PER_CONNECTION as u32;
/// A connection that was quiet for so long is asked whether it lives, and given up when it has not answered for as long again.
const PING_INTERVAL: Duration = Duration::from_secs(4);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// The rest of a frame that has begun may pause for so long.
const STALL_TIMEOUT: Duration = Duration::from_secs(12);
/// The longest frame of an event stream, 24 MiB by its specification. The largest event has a record of 10 MiB, in Base64.
const FRAME_MAX_BYTES: usize = 24 * 1024 * 1024;
/// The lengths, two checksums: no frame is shorter.
const FRAME_MIN_BYTES: usize = 16;
/// Bytes of a refusal's body that are read.
const REFUSAL_MAX_BYTES: usize = 64 * 1024;
const ANSWER_TYPE: &str = "application/vnd.amazon.eventstream";

/// Names a registered consumer.
#[derive(Debug, Default, Serialize)]
pub(super) struct ConsumerRequest<'a> {
    #[serde(rename = "StreamARN", skip_serializing_if = "Option::is_none")]
    stream_arn: Option<&'a str>,
    #[serde(rename = "ConsumerName", skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(rename = "ConsumerARN", skip_serializing_if = "Option::is_none")]
    arn: Option<&'a str>,
}

impl<'a> ConsumerRequest<'a> {
    pub(super) fn named(stream_arn: &'a str, name: &'a str) -> Self {
        ConsumerRequest {
            stream_arn: Some(stream_arn),
            name: Some(name),
            arn: None,
        }
    }

    pub(super) fn of(consumer_arn: &'a str) -> Self {
        ConsumerRequest {
            arn: Some(consumer_arn),
            ..ConsumerRequest::default()
        }
    }
}

/// The answer to `DescribeStreamConsumer`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DescribedConsumer {
    consumer_description: Described,
}

/// The answer to `RegisterStreamConsumer`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RegisteredConsumer {
    consumer: Described,
}

#[derive(Debug, Deserialize)]
struct Described {
    #[serde(rename = "ConsumerARN")]
    arn: String,
    #[serde(rename = "ConsumerStatus")]
    status: String,
}

impl DescribedConsumer {
    pub(super) fn consumer(self) -> StreamConsumer {
        let Described { arn, status } = self.consumer_description;
        StreamConsumer { arn, status }
    }
}

impl RegisteredConsumer {
    pub(super) fn consumer(self) -> StreamConsumer {
        let Described { arn, status } = self.consumer;
        StreamConsumer { arn, status }
    }
}

/// The request for the events of a shard.
fn body(request: SubscribeRequest<'_>) -> SubscribeToShardRequest {
    SubscribeToShardRequest {
        consumer_arn: Some(request.consumer_arn.to_owned()),
        shard_id: Some(request.shard_id.to_owned()),
        starting_position: Some(position(request.start)),
        ..SubscribeToShardRequest::default()
    }
}

fn position(start: IteratorStart) -> StartingPosition {
    let (kind, sequence, timestamp) = match start {
        IteratorStart::TrimHorizon => (ShardIteratorType::TrimHorizon, None, None),
        IteratorStart::AtTimestamp(ms) => {
            let time = Timestamp::from_millis(ms);
            (ShardIteratorType::AtTimestamp, None, Some(time))
        }
        IteratorStart::AtSequence(number) => {
            (ShardIteratorType::AtSequenceNumber, Some(number), None)
        }
        IteratorStart::AfterSequence(number) => {
            (ShardIteratorType::AfterSequenceNumber, Some(number), None)
        }
    };
    StartingPosition {
        position_type: Some(kind),
        sequence_number: sequence.map(|number| number.to_string()),
        timestamp,
    }
}

/// The HTTP/2 connections that subscriptions are spread over; each is made when those before it are full.
#[derive(Debug)]
pub(super) struct Connections {
    is_loopback: bool,
    request_timeout: Duration,
    /// To trust beside those of the system.
    certificates: Vec<reqwest::Certificate>,
    /// A std mutex: held while a place is looked for, never across an await.
    made: Mutex<Vec<Connection>>,
}

/// A client that keeps to one connection, and makes it anew when it breaks.
#[derive(Debug)]
struct Connection {
    http: reqwest::Client,
    /// Every subscription holds a clone.
    places: Arc<()>,
}

impl Connection {
    fn has_room(&self) -> bool {
        Arc::strong_count(&self.places) <= usize::from(SUBSCRIPTIONS_PER_CONNECTION)
    }
}

impl Connections {
    pub(super) fn new(
        is_loopback: bool,
        request_timeout: Duration,
        certificates: Vec<reqwest::Certificate>,
    ) -> Self {
        Connections {
            is_loopback,
            request_timeout,
            certificates,
            made: Mutex::default(),
        }
    }

    /// A place on a connection; whoever drops it makes room for another.
    fn place(&self) -> Result<(reqwest::Client, Arc<()>), Error> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = made.iter().find(|connection| connection.has_room()) {
            return Ok((found.http.clone(), Arc::clone(&found.places)));
        }
        if made.len() >= CONNECTIONS_MAX {
            let message = format!(
                "all {CONNECTIONS_MAX} connections have {SUBSCRIPTIONS_PER_CONNECTION} subscriptions each: let more workers share the shards"
            );
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let (http, places) = (self.connect()?, Arc::new(()));
        made.push(Connection {
            http: http.clone(),
            places: Arc::clone(&places),
        });
        Ok((http, places))
    }

    /// Over TLS, HTTP/2 is what ALPN offers; without, it is spoken from the first byte.
    fn connect(&self) -> Result<reqwest::Client, Error> {
        let mut builder = reqwest::Client::builder()
            .http2_prior_knowledge()
            .http2_initial_stream_window_size(SUBSCRIPTION_WINDOW_BYTES)
            .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_INTERVAL)
            .connect_timeout(CONNECT_TIMEOUT.min(self.request_timeout))
            .pool_idle_timeout(IDLE_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never());
        if self.is_loopback {
            builder = builder.no_proxy();
        }
        if !self.certificates.is_empty() {
            builder = builder.tls_certs_merge(self.certificates.clone());
        }
        builder.build().map_err(|error| {
            let message = "no HTTP/2 client can be made";
            Error::with_source(ErrorKind::Configuration, message, error)
        })
    }

    /// Subscribes once, in this encoding; gives the one that the server answers in as well, which decides over each event.
    ///
    /// # Errors
    /// The server's refusal. `Unavailable`: it cannot be reached or does not answer in time.
    pub(super) async fn subscribe(
        &self,
        target: &Target,
        signing: (&SigningKeys, SystemTime),
        request: SubscribeRequest<'_>,
        encoding: Encoding,
    ) -> Result<(Box<dyn Subscription>, Encoding), Failure> {
        let (http, place) = self.place().map_err(lasting)?;
        let body = encoding.encode(&body(request)).map_err(|error| {
            let message = "a request cannot be written";
            lasting(Error::with_source(ErrorKind::Protocol, message, error))
        })?;
        let begin = async {
            let response = post(&http, target, signing, (encoding, &body)).await?;
            let mut subscription = HttpSubscription {
                response,
                received: BytesMut::new(),
                over: None,
                first: None,
                _place: place,
            };
            let spoken = subscription.settle().await.map_err(unsettled)?;
            let spoken = spoken.unwrap_or(encoding);
            Ok((Box::new(subscription) as Box<dyn Subscription>, spoken))
        };
        let begun = tokio::time::timeout(self.request_timeout, begin).await;
        begun.unwrap_or_else(|_| {
            let endpoint = &target.endpoint;
            let message = format!("{endpoint} did not answer SubscribeToShard in time");
            Err(Failure::lasting(ErrorKind::Unavailable, message))
        })
    }
}

/// Sends the request; gives the answer if it is an event stream.
async fn post(
    http: &reqwest::Client,
    target: &Target,
    (keys, time): (&SigningKeys, SystemTime),
    (encoding, body): (Encoding, &[u8]),
) -> Result<reqwest::Response, Failure> {
    let operation = Operation::SubscribeToShard;
    let name = format!("{TARGET_PREFIX}.{operation}");
    let headers = [
        ("content-type", encoding.content_type()),
        ("x-amz-target", name.as_str()),
    ];
    let signed = keys.signature(target, &headers, body, time);
    let signed = signed.map_err(lasting)?;
    let mut post = http.post(target.endpoint.clone()).body(body.to_vec());
    for (name, value) in headers {
        post = post.header(name, value);
    }
    for (name, value) in &signed {
        post = post.header(name, value);
    }
    let sent = post.send().await;
    let mut answer = sent.map_err(|error| unreached(target, operation, error))?;
    let status = answer.status();
    if !status.is_success() {
        let date = answer.headers().get("date");
        let date_ms = date
            .and_then(|date| date.to_str().ok())
            .and_then(http_date_ms);
        let mut refusal = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(broken).map_err(lasting)? {
            if refusal.len() + chunk.len() > REFUSAL_MAX_BYTES {
                break;
            }
            refusal.extend_from_slice(&chunk);
        }
        let refused = Refused {
            operation,
            status: status.as_u16(),
            body: &refusal,
            request: (encoding, body),
            clock_ahead_ms: date_ms.and_then(|date| ahead_of(time, date)),
        };
        return Err(refused.failure(target));
    }
    let given = answer.headers().get("content-type");
    if given.is_some_and(|given| given.as_bytes().starts_with(ANSWER_TYPE.as_bytes())) {
        return Ok(answer);
    }
    let message = format!("the answer to SubscribeToShard is {given:?}, expected {ANSWER_TYPE}");
    Err(unsettled(Error::new(ErrorKind::Protocol, message)))
}

/// An answer that began and is no subscription: perhaps one to a request that was not understood.
fn unsettled(error: Error) -> Failure {
    let remedy = match error.kind() {
        ErrorKind::Protocol => Remedy::Encoding,
        _ => Remedy::Never,
    };
    Failure { error, remedy }
}

/// What no repetition of the request mends.
fn lasting(error: Error) -> Failure {
    let remedy = Remedy::Never;
    Failure { error, remedy }
}

fn broken(error: reqwest::Error) -> Error {
    let message = "the connection of a subscription is broken";
    let deepest = causes(&error.without_url()).pop().unwrap_or_default();
    Error::with_source(ErrorKind::Unavailable, message, deepest)
}

/// A subscription of which this is the whole answer.
#[cfg(feature = "_fuzzing")]
pub(super) async fn of_answer(body: Vec<u8>) -> Result<Box<dyn Subscription>, Error> {
    let mut subscription = HttpSubscription {
        response: http::Response::new(body).into(),
        received: BytesMut::new(),
        over: None,
        first: None,
        _place: Arc::new(()),
    };
    subscription.settle().await?;
    Ok(Box::new(subscription))
}

/// A subscription whose answer has begun.
#[derive(Debug)]
struct HttpSubscription {
    response: reqwest::Response,
    /// Bytes not yet taken apart: a frame, and less than one in flight behind it.
    received: BytesMut,
    /// Nothing more comes: in order, or for this reason.
    over: Option<Result<(), Error>>,
    /// An event that came before it was asked for.
    first: Option<SubscriptionEvent>,
    _place: Arc<()>,
}

impl HttpSubscription {
    /// Waits for the first frame, with which the server says that it has accepted the subscription; gives the encoding that it writes, if that
    /// can be told.
    async fn settle(&mut self) -> Result<Option<Encoding>, Error> {
        loop {
            if let Some(frame) = self.take_frame()? {
                let message = open(&frame)?;
                self.first = decode(&message)?;
                let payload = message.payload();
                return Ok((!payload.is_empty()).then(|| encoding_of(payload)));
            }
            if !self.more().await? {
                let message = "a subscription ended before it began";
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
        }
    }

    /// Receives more; `false` at the end.
    async fn more(&mut self) -> Result<bool, Error> {
        let chunk = tokio::time::timeout(STALL_TIMEOUT, self.response.chunk()).await;
        let message = match chunk {
            Ok(Ok(Some(chunk))) => {
                self.received.extend_from_slice(&chunk);
                return Ok(true);
            }
            Ok(Ok(None)) if self.received.is_empty() => return Ok(false),
            Ok(Err(error)) => return Err(broken(error)),
            Ok(Ok(None)) => "a subscription was cut within an event".to_owned(),
            Err(_) => format!("a subscription was silent for {STALL_TIMEOUT:?}"),
        };
        Err(Error::new(ErrorKind::Unavailable, message))
    }

    /// The length of the frame that comes next, as soon as it is known.
    fn frame_len(&self) -> Result<Option<usize>, Error> {
        let Some(prelude) = self.received.first_chunk() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*prelude)).unwrap_or(usize::MAX);
        if (FRAME_MIN_BYTES..=FRAME_MAX_BYTES).contains(&length) {
            return Ok(Some(length));
        }
        let message = format!(
            "a frame of {length} bytes in an event stream, allowed are {FRAME_MIN_BYTES} to {FRAME_MAX_BYTES}"
        );
        Err(Error::new(ErrorKind::Protocol, message))
    }

    fn take_frame(&mut self) -> Result<Option<Bytes>, Error> {
        match self.frame_len()? {
            Some(length) if self.received.len() >= length => {
                Ok(Some(self.received.split_to(length).freeze()))
            }
            Some(_) | None => Ok(None),
        }
    }

    async fn event(&mut self) -> Result<Option<SubscriptionEvent>, Error> {
        loop {
            while let Some(frame) = self.take_frame()? {
                if let Some(event) = decode(&open(&frame)?)? {
                    return Ok(Some(event));
                }
            }
            match self.over.take() {
                Some(over) => return over.map(|()| None),
                None if self.more().await? => {}
                None => return Ok(None),
            }
        }
    }
}

#[async_trait]
impl Subscription for HttpSubscription {
    async fn begun(&mut self) -> usize {
        if self.first.is_some() {
            return 0;
        }
        while self.over.is_none() {
            match self.frame_len() {
                Ok(Some(length)) => return length,
                Ok(None) => match self.more().await {
                    Ok(true) => {}
                    Ok(false) => self.over = Some(Ok(())),
                    Err(error) => self.over = Some(Err(error)),
                },
                Err(error) => self.over = Some(Err(error)),
            }
        }
        0
    }

    async fn next(&mut self) -> Option<Result<SubscriptionEvent, Error>> {
        match self.first.take() {
            Some(event) => Some(Ok(event)),
            None => self.event().await.transpose(),
        }
    }
}

fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let message = "an event of a subscription cannot be read";
    Error::with_source(ErrorKind::Protocol, message, error)
}

/// The message in a frame.
fn open(frame: &[u8]) -> Result<Message, Error> {
    read_message_from(frame).map_err(unreadable)
}

/// The event that a message is, `None` if it is another kind of event; an exception is an error. Each says itself how it is encoded.
fn decode(message: &Message) -> Result<Option<SubscriptionEvent>, Error> {
    match (
        header(message, ":message-type"),
        header(message, ":event-type"),
    ) {
        (Some("event"), Some("SubscribeToShardEvent")) => {
            let payload = message.payload();
            match encoding_of(payload) {
                Encoding::Cbor => cbor::event(payload).map(Some),
                Encoding::Json => {
                    let answer: RecordsAnswer<'_> =
                        serde_json::from_slice(payload).map_err(unreadable)?;
                    answer.event().map(Some)
                }
            }
        }
        (Some("exception" | "error"), _) => Err(exception(message)),
        // The initial response, and whatever a newer server has to say besides.
        _ => Ok(None),
    }
}

fn exception(message: &Message) -> Error {
    let name = header(message, ":exception-type").or_else(|| header(message, ":error-code"));
    let name = name.unwrap_or("an exception without a name");
    let kind = match ErrorCode::from_name(name) {
        Some(code) => kind_of(code),
        // Within the stream the model gives it another name.
        None if name == "InternalFailureException" => ErrorKind::Unavailable,
        None => ErrorKind::Protocol,
    };
    let told = error_answer(message.payload());
    let text = format!("a subscription was ended with {name}: {}", told.message);
    Error::new(kind, text)
}

fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    let mut headers = message.headers().iter();
    let found = headers.find(|header| header.name().as_str() == name)?;
    Some(found.value().as_string().ok()?.as_str())
}

#[cfg(test)]
mod tests;
