//! The calls a worker makes to a Kinesis endpoint.

mod cbor;
mod credentials;
mod dialect;
mod endpoint;
#[cfg(feature = "_fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
pub mod http;
pub(crate) mod json;
mod refusal;
pub(crate) mod retry;
pub(crate) mod same_stream;
pub(crate) mod sign;
pub(crate) mod subscribe;
mod suggest;
pub(crate) mod target;

pub use http::{HttpClient, HttpClientBuilder};

use crate::error::{Error, ErrorKind};
use crate::processor::Record;
use async_trait::async_trait;
use bytes::Bytes;
use millstream_wire::{HashKey, HashKeyRange, SequenceNumber};
use std::fmt;

/// A stream's identity and state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSummary {
    /// The stream's ARN.
    pub arn: String,
    /// Its name.
    pub name: String,
    /// When it was created, milliseconds since 1970.
    pub created_ms: u64,
    /// `CREATING`, `ACTIVE`, `UPDATING` or `DELETING`.
    pub status: String,
    /// The server's clock when it answered (its `Date` header), milliseconds since 1970.
    pub server_time_ms: u64,
}

impl StreamSummary {
    /// The stream's identity for leases: `ARN@creation-milliseconds` (K13).
    pub fn identity(&self) -> String {
        format!("{}@{}", self.arn, self.created_ms)
    }
}

/// A shard as ListShards gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// The shard's id.
    pub shard_id: String,
    /// Shards it was split or merged from (0 to 2).
    pub parents: Vec<String>,
    /// Its share of the hash key space.
    pub hash_key_range: HashKeyRange,
    /// Whether it takes no more records.
    pub closed: bool,
}

/// Where a shard iterator starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IteratorStart {
    /// The oldest record retained.
    TrimHorizon,
    /// The first record at or after this time, milliseconds since 1970.
    AtTimestamp(u64),
    /// This record.
    AtSequence(SequenceNumber),
    /// The record after this one.
    AfterSequence(SequenceNumber),
}

/// The answer to GetRecords.
#[derive(Debug, Clone, Default)]
pub struct RecordsPage {
    /// Records in order.
    pub records: Vec<Record>,
    /// How far the end of the page is behind the tip, milliseconds.
    pub millis_behind_latest: u64,
    /// Where to go on; `None` at the end of a closed shard.
    pub next_iterator: Option<String>,
    /// The children of a closed shard, at its end.
    pub children: Vec<Shard>,
}

/// A record to be put.
#[derive(Debug, Clone, Copy)]
pub struct PutRecord<'a> {
    /// The stream's name or ARN.
    pub stream: &'a str,
    /// 1 to 256 characters; its hash chooses the shard.
    pub partition_key: &'a str,
    /// Chooses the shard instead.
    pub explicit_hash_key: Option<HashKey>,
    /// The payload; with the partition key up to the stream's record size, by default 1 MiB.
    pub data: &'a Bytes,
}

/// A consumer that is registered with a stream, for enhanced fan-out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamConsumer {
    /// Its ARN, which holds the stream's and when it was registered.
    pub arn: String,
    /// `CREATING`, `ACTIVE` or `DELETING`; only an active one can subscribe.
    pub status: String,
}

impl StreamConsumer {
    /// Whether it can subscribe.
    pub fn is_active(&self) -> bool {
        self.status == "ACTIVE"
    }
}

/// What to subscribe to.
#[derive(Debug, Clone, Copy)]
pub struct SubscribeRequest<'a> {
    /// The registered consumer's ARN.
    pub consumer_arn: &'a str,
    /// A shard of its stream.
    pub shard_id: &'a str,
    /// Where it starts.
    pub start: IteratorStart,
}

/// What a subscription pushes.
#[derive(Debug, Clone, Default)]
pub struct SubscriptionEvent {
    /// Records in order; none when the event only says that the subscription lives.
    pub records: Vec<Record>,
    /// Where another subscription could go on; `None` at the end of a closed shard.
    pub continuation: Option<SequenceNumber>,
    /// How far the end of the event is behind the tip, milliseconds.
    pub millis_behind_latest: u64,
    /// The children of a closed shard, at its end.
    pub children: Vec<Shard>,
}

/// A subscription to a shard; dropping it ends it.
///
/// What has not been asked for stays with the server, apart from a bounded amount: who takes no events holds up nobody
/// else.
#[async_trait]
pub trait Subscription: Send + fmt::Debug {
    /// Waits until the next event begins to arrive, or there is an end to tell; gives the bytes that the event takes, about.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    async fn begun(&mut self) -> usize;
    /// The next event; an error ends the subscription. `None` when it is over, as each is after five minutes.
    ///
    /// # Errors
    /// `Unavailable`: the connection broke. `NotFound`: the stream, shard or consumer is gone. `Protocol`: what was pushed makes no sense.
    ///
    /// # Cancel safety
    /// An event may be lost: start another subscription at what came last.
    async fn next(&mut self) -> Option<Result<SubscriptionEvent, Error>>;
}

/// What a client says that has no enhanced fan-out.
fn no_fan_out<T>() -> Result<T, Error> {
    Err(Error::new(
        ErrorKind::Configuration,
        "this client has no enhanced fan-out: its KinesisApi has register_consumer, describe_consumer and subscribe left out; set Retrieval::Polling",
    ))
}

/// A Kinesis endpoint, as far as a worker needs it: [`HttpClient`], or a client of one's own
/// ([`WorkerBuilder::client`](crate::WorkerBuilder::client)).
///
/// # Errors
/// A worker goes by the [kind](crate::ErrorKind) of an error, so every method gives these: `NotFound` if the stream, shard or consumer does not exist;
/// `AccessDenied` if the caller may not do this; `Unavailable` for whatever passes (no connection, no answer in time, a busy endpoint); `Protocol` for an
/// answer that makes no sense. What a method adds to them stands with it. Repeat what may pass only briefly: the worker does so for as long as it
/// takes, and shows meanwhile what it waits for.
///
/// # Cancel safety
/// A worker drops these futures at any time. One that changes something may have done so.
#[async_trait]
pub trait KinesisApi: Send + Sync + fmt::Debug + 'static {
    /// `DescribeStreamSummary`; `stream` is a name or an ARN.
    async fn describe_stream(&self, stream: &str) -> Result<StreamSummary, Error>;
    /// ListShards, all pages: closed shards as well, as long as they have records.
    async fn list_shards(&self, stream: &str) -> Result<Vec<Shard>, Error>;
    /// `GetShardIterator`: a token for the first read from `start`, good for five minutes.
    ///
    /// # Errors
    /// `Throttled`: it is asked for too often.
    async fn shard_iterator(
        &self,
        stream: &str,
        shard_id: &str,
        start: IteratorStart,
    ) -> Result<String, Error>;
    /// GetRecords with at most `limit` records, 1 to 10,000. An answer without records is no end; one without a next iterator is.
    ///
    /// # Errors
    /// `Expired`: a new iterator is needed. `Throttled`: the shard is read too fast; the worker finds the pace, so do not repeat it here.
    async fn get_records(&self, iterator: &str, limit: u32) -> Result<RecordsPage, Error>;
    /// `PutRecord`, repeated where that may help; so a record may be put twice when replies are lost. Workers put dead letters only.
    ///
    /// # Errors
    /// `Throttled`: the shard is written too fast.
    async fn put_record(&self, record: PutRecord<'_>) -> Result<SequenceNumber, Error>;
    /// Registers a consumer with the stream of this ARN, or finds the one of this name that is registered.
    ///
    /// # Errors
    /// By default `Configuration`: the client has no enhanced fan-out, and workers read by polling.
    async fn register_consumer(
        &self,
        _stream_arn: &str,
        _name: &str,
    ) -> Result<StreamConsumer, Error> {
        no_fan_out()
    }
    /// `DescribeStreamConsumer`.
    ///
    /// # Errors
    /// As [`register_consumer`](KinesisApi::register_consumer).
    async fn describe_consumer(&self, _consumer_arn: &str) -> Result<StreamConsumer, Error> {
        no_fan_out()
    }
    /// `SubscribeToShard`.
    ///
    /// # Errors
    /// As [`register_consumer`](KinesisApi::register_consumer). `Unavailable` also while an earlier subscription is in the way, which it is for
    /// five seconds.
    async fn subscribe(
        &self,
        _request: SubscribeRequest<'_>,
    ) -> Result<Box<dyn Subscription>, Error> {
        no_fan_out()
    }
}
