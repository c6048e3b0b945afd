//! From put to reader: records that say when they were due, put at a steady rate, and subscribers or pollers that receive them.
//!
//! Producer and readers are one process, so one monotonic clock times both ends.

use super::put::join;
use crate::body::{self, Entry};
use crate::client::Encoding;
use crate::client::{Endpoint, Http, h2};
use crate::measure::{Moved, Recorder};
use crate::pace::Pacer;
use crate::page::{self, Page};
use crate::stream;
use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
use bytes::{Bytes, BytesMut};
use clap::ValueEnum;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io;
use std::iter;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// Digits at the beginning of a record's data: when it was due, nanoseconds since the load began.
const DUE_DIGITS: usize = 20;
/// How long a consumer may take to become active.
const CONSUMER_SETTLES_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The longest frame of an event stream.
const FRAME_MAX_BYTES: usize = 24 << 20;

/// How records are received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Retrieval {
    /// Pushed, by `SubscribeToShard`.
    #[default]
    Subscribe,
    /// Asked for, by `GetRecords`.
    Poll,
}

/// What is put and received.
#[derive(Debug, Clone)]
pub struct Propagation {
    /// Where.
    pub stream: String,
    /// Connections of the producer.
    pub connections: usize,
    /// Bytes of one record.
    pub record_bytes: usize,
    /// Records a second.
    pub rate: f64,
    /// How records are received.
    pub retrieval: Retrieval,
    /// Who each receive all of them.
    pub subscribers: usize,
    /// Subscriptions over one connection.
    pub per_connection: usize,
    /// Between two polls of a shard.
    pub poll_every: Duration,
}

impl Propagation {
    /// Puts and receives for as long as the recorder's window lasts.
    pub async fn run(&self, endpoint: &Endpoint, recorder: &Recorder) -> io::Result<()> {
        let receivers = self.receivers(endpoint).await?;
        self.run_with(receivers, endpoint, recorder).await
    }

    /// All that receive, ready to.
    pub async fn receivers(&self, endpoint: &Endpoint) -> io::Result<Receivers> {
        let shards = stream::shards(endpoint, &self.stream).await?;
        let mut receivers = Receivers::default();
        match self.retrieval {
            Retrieval::Subscribe => {
                let consumers = self.register(endpoint).await?;
                let bodies = consumers.iter().flat_map(|consumer| {
                    shards
                        .iter()
                        .map(move |shard| subscription(consumer, shard))
                });
                let bodies: Vec<Value> = bodies.collect();
                for bodies in bodies.chunks(self.per_connection.max(1)) {
                    let connection = Arc::new(h2::Connection::open(&endpoint.host).await?);
                    for body in bodies {
                        let subscribed = Subscription::begin(endpoint, &connection, body).await?;
                        receivers.subscriptions.push(subscribed);
                    }
                }
            }
            Retrieval::Poll => {
                for shard in iter::repeat_n(&shards, self.subscribers).flatten() {
                    let at = stream::iterator(endpoint, &self.stream, shard, "LATEST").await?;
                    receivers.iterators.push(at);
                }
            }
        }
        Ok(receivers)
    }

    /// Puts, and receives with those, for as long as the recorder's window lasts.
    pub async fn run_with(
        &self,
        receivers: Receivers,
        endpoint: &Endpoint,
        recorder: &Recorder,
    ) -> io::Result<()> {
        let sink = Sink {
            began: Instant::now(),
            recorder: recorder.clone(),
            record_bytes: self.record_bytes,
        };
        let mut tasks = JoinSet::new();
        for subscription in receivers.subscriptions {
            tasks.spawn(subscription.receive(sink.clone()));
        }
        for at in receivers.iterators {
            tasks.spawn(poll(endpoint.clone(), at, self.poll_every, sink.clone()));
        }
        for place in 0..self.connections {
            self.produce(endpoint, place, &sink, &mut tasks).await?;
        }
        join(tasks).await
    }

    async fn produce(
        &self,
        endpoint: &Endpoint,
        place: usize,
        sink: &Sink,
        tasks: &mut JoinSet<io::Result<()>>,
    ) -> io::Result<()> {
        let mut pacer = Pacer::in_turn(self.rate, place, self.connections)?;
        let mut connection = endpoint.connect().await?;
        let (endpoint, stream) = (endpoint.clone(), self.stream.clone());
        let (bytes, sink) = (self.record_bytes, sink.clone());
        tasks.spawn(async move {
            loop {
                let due = pacer.due().await?;
                if due >= sink.recorder.window().ends {
                    return Ok(());
                }
                let entry = sink.entry(due, bytes);
                let body = body::put(endpoint.encoding, &stream, &[entry]);
                let request = endpoint.request("PutRecord", body)?;
                connection.send(&request).await?.success("PutRecord")?;
            }
        });
        Ok(())
    }

    /// The ARNs of so many consumers, all of which are active.
    async fn register(&self, endpoint: &Endpoint) -> io::Result<Vec<String>> {
        let summary = stream::describe(endpoint, &self.stream).await?;
        let mut consumers = Vec::new();
        for subscriber in 0..self.subscribers {
            let name = format!("bench-{subscriber}");
            let body = json!({ "StreamARN": summary["StreamARN"], "ConsumerName": name });
            let answer = endpoint.control("RegisterStreamConsumer", &body).await?;
            let arn = answer["Consumer"]["ConsumerARN"].as_str();
            let arn = arn.ok_or_else(|| io::Error::other("RegisterStreamConsumer gave no ARN"))?;
            consumers.push(arn.to_owned());
        }
        for arn in &consumers {
            active(endpoint, arn).await?;
        }
        Ok(consumers)
    }
}

/// Waits until a consumer is active.
async fn active(endpoint: &Endpoint, arn: &str) -> io::Result<()> {
    let body = json!({ "ConsumerARN": arn });
    let deadline = Instant::now() + CONSUMER_SETTLES_WITHIN;
    loop {
        let answer = endpoint.control("DescribeStreamConsumer", &body).await?;
        let described = &answer["ConsumerDescription"];
        if described["ConsumerStatus"] == "ACTIVE" {
            return Ok(());
        }
        if Instant::now() > deadline {
            let limit = CONSUMER_SETTLES_WITHIN;
            let message = format!("consumer {arn} is not active within {limit:?}: {answer}");
            return Err(io::Error::other(message));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Subscriptions that have begun, and iterators of who polls.
#[derive(Debug, Default)]
pub struct Receivers {
    subscriptions: Vec<Subscription>,
    iterators: Vec<String>,
}

/// Where received records go; a handle.
#[derive(Debug, Clone)]
struct Sink {
    began: Instant,
    recorder: Recorder,
    record_bytes: usize,
}

impl Sink {
    /// A record that says when it was due.
    fn entry(&self, due: Instant, bytes: usize) -> Entry {
        let mut entry = Entry::random(bytes.max(DUE_DIGITS));
        let due = due.saturating_duration_since(self.began).as_nanos();
        let digits = format!("{due:0DUE_DIGITS$}");
        entry.data.splice(..DUE_DIGITS, digits.into_bytes());
        entry
    }

    /// Records were received now; whether the load goes on.
    fn received(&self, page: &Page) -> io::Result<bool> {
        let at = Instant::now();
        for record in &page.records {
            let digits = record.data.0.get(..DUE_DIGITS);
            let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
            let due = digits.and_then(|digits| digits.parse().ok());
            let due = due.ok_or_else(|| io::Error::other("a record that this load did not put"))?;
            let due = self.began + Duration::from_nanos(due);
            let moved = Moved::records(1, self.record_bytes);
            self.recorder.answered(due, at, moved);
        }
        Ok(at < self.recorder.window().ends)
    }
}

fn subscription(consumer: &str, shard: &str) -> Value {
    json!({
        "ConsumerARN": consumer,
        "ShardId": shard,
        "StartingPosition": { "Type": "LATEST" },
    })
}

/// One subscription and its connection, which may be that of others, too.
#[derive(Debug)]
struct Subscription {
    _connection: Arc<h2::Connection>,
    events: Incoming,
}

impl Subscription {
    /// Events come over HTTP/2, as SDKs ask for them, and hold JSON.
    async fn begin(
        endpoint: &Endpoint,
        connection: &Arc<h2::Connection>,
        body: &Value,
    ) -> io::Result<Subscription> {
        let plain = Endpoint {
            http: Http::Two,
            encoding: Encoding::Json,
            ..endpoint.clone()
        };
        let request = plain.request("SubscribeToShard", Bytes::from(body.to_string()))?;
        let response = connection.begin(&request).await?;
        let status = response.status();
        if status != http::StatusCode::OK {
            let message = format!("SubscribeToShard: status {status}");
            return Err(io::Error::other(message));
        }
        Ok(Subscription {
            _connection: Arc::clone(connection),
            events: response.into_body(),
        })
    }

    async fn receive(mut self, sink: Sink) -> io::Result<()> {
        let mut frames = MessageFrameDecoder::new();
        let mut input = BytesMut::new();
        while let Some(frame) = self.events.frame().await {
            let frame = frame.map_err(io::Error::other)?;
            let Ok(bytes) = frame.into_data() else {
                continue;
            };
            input.extend_from_slice(&bytes);
            if input.len() > FRAME_MAX_BYTES {
                return Err(io::Error::other("an event longer than any may be"));
            }
            loop {
                match frames.decode_frame(&mut input).map_err(io::Error::other)? {
                    DecodedFrame::Incomplete => break,
                    DecodedFrame::Complete(message) => {
                        // The initial response is no event; some servers leave it empty.
                        let event = match message.payload().as_ref() {
                            b"" => Page::default(),
                            payload => page::read(payload, Encoding::Json)?,
                        };
                        if !sink.received(&event)? {
                            return Ok(());
                        }
                    }
                }
            }
        }
        Err(io::Error::other("the server ended a subscription"))
    }
}

async fn poll(
    endpoint: Endpoint,
    mut iterator: String,
    every: Duration,
    sink: Sink,
) -> io::Result<()> {
    let mut connection = endpoint.connect().await?;
    let mut due = interval(every);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let body = body::get_records(endpoint.encoding, &iterator);
        let request = endpoint.request("GetRecords", body)?;
        let answer = connection.send(&request).await?.success("GetRecords")?;
        let page = page::read(answer, endpoint.encoding)?;
        if !sink.received(&page)? {
            return Ok(());
        }
        let next = page.next_shard_iterator;
        iterator = next.ok_or_else(|| io::Error::other("GetRecords gave no next iterator"))?;
    }
}
