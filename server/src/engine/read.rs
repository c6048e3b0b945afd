//! Reading records: mint an iterator, read a page, go on where it ended.

use crate::engine::catalog::{Shard, Stream};
use crate::engine::iterator::{self, ShardIterator};
use crate::engine::put::sequence_number;
use crate::engine::{Engine, Error};
use crate::log::{self, ReadLimit, Tail};
use bytes::Bytes;
use millstream_wire::limits::{GET_RECORDS_MAX_BYTES, GET_RECORDS_MAX_COUNT};
use millstream_wire::sequence::Parts;
use millstream_wire::{SequenceNumber, ShardId, StreamArn};
use std::sync::Arc;

/// Where an iterator starts (model: `ShardIteratorType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The oldest record retained.
    TrimHorizon,
    /// The next record that arrives.
    Latest,
    /// The first record at or after this time, milliseconds since 1970.
    AtTimestamp(u64),
    /// This record.
    AtSequence(SequenceNumber),
    /// The record after this one.
    AfterSequence(SequenceNumber),
}

/// A record as it is read.
#[derive(Debug, Clone)]
pub struct ReadRecord {
    /// Its place in the shard.
    pub sequence: SequenceNumber,
    /// When it arrived, milliseconds since 1970.
    pub arrival_ms: u64,
    record: log::ReadRecord,
    /// The payload.
    pub data: Bytes,
}

impl ReadRecord {
    /// The producer's key.
    pub fn partition_key(&self) -> &str {
        self.record.partition_key()
    }
}

/// The answer to a read.
#[derive(Debug, Clone)]
pub struct Page {
    /// Records in order.
    pub records: Vec<ReadRecord>,
    /// How far its end is behind the tip, milliseconds.
    pub millis_behind_latest: u64,
    /// Where to go on; `None` at the end of a closed shard.
    pub next_iterator: Option<String>,
    /// The children of a closed shard, at its end.
    pub children: Vec<Shard>,
}

impl Engine {
    /// A token for reading a shard from `start`.
    pub async fn shard_iterator(
        &self,
        arn: &StreamArn,
        shard: &str,
        start: Start,
    ) -> Result<String, Error> {
        let stream = self.stream(arn)?;
        let now_ms = self.now_ms();
        let shard_not_found = || Error::ShardNotFound {
            arn: arn.clone(),
            shard: shard.to_owned(),
        };
        let id: ShardId = shard.parse().map_err(|_| shard_not_found())?;
        let shard = stream.shards.get(&id.0);
        let is_there = |shard: &&Shard| {
            !stream.is_creating(now_ms) && self.is_retained(&stream, shard, now_ms)
        };
        let shard = shard.filter(is_there);
        let shard = shard.ok_or_else(shard_not_found)?;
        let tail = self.tail(shard)?;
        let counter = match start {
            Start::TrimHorizon => 0,
            Start::Latest => tail.next,
            Start::AtTimestamp(given_ms) if given_ms > now_ms => {
                return Err(Error::FutureTimestamp { given_ms, now_ms });
            }
            Start::AtTimestamp(given_ms) => {
                self.inner
                    .log
                    .counter_at(shard.log_shard(), given_ms)
                    .await?
            }
            Start::AtSequence(sequence) => own_counter(arn, shard, sequence)?,
            Start::AfterSequence(sequence) => own_counter(arn, shard, sequence)?.saturating_add(1),
        };
        // Never beyond the tail: what appears there later must still be seen (S3).
        Ok(self.mint(arn, shard, counter.min(tail.next)))
    }

    /// Whether `token` is an iterator that can be read from.
    pub fn check_iterator(&self, token: &str) -> Result<(), Error> {
        self.parse_iterator(token, self.now_ms()).map(drop)
    }

    fn parse_iterator(&self, token: &str, now_ms: u64) -> Result<ShardIterator, Error> {
        ShardIterator::parse(token, &self.inner.log.id(), now_ms).map_err(|refused| match refused {
            iterator::Refused::Invalid => Error::InvalidIterator,
            iterator::Refused::Expired { minted_ms } => {
                Error::ExpiredIterator { minted_ms, now_ms }
            }
        })
    }

    /// Reads at most `limit` records from where `token` says.
    pub async fn records(&self, token: &str, limit: usize) -> Result<Page, Error> {
        let now_ms = self.now_ms();
        let iterator = self.parse_iterator(token, now_ms)?;
        let catalog = self.catalog();
        let (stream, shard) = owner(&catalog, &iterator, now_ms)?;
        let log_shard = shard.log_shard();
        self.inner
            .throttle
            .begin_read(log_shard, now_ms)
            .map_err(|_| Error::Throttled {
                arn: stream.arn.clone(),
                shard: shard.id(),
            })?;
        // The tail is read before the records: a page can then only be more complete than it says.
        let tail = self.tail(shard)?;
        let limit = ReadLimit {
            records: limit.min(GET_RECORDS_MAX_COUNT),
            bytes: GET_RECORDS_MAX_BYTES,
        };
        let horizon_ms = stream.trim_horizon_ms(now_ms);
        let read = self
            .inner
            .log
            .read(log_shard, iterator.counter, limit, horizon_ms)
            .await?;
        let bytes: usize = read.iter().map(log::ReadRecord::len_bytes).sum();
        self.inner
            .throttle
            .end_read(log_shard, u64::try_from(bytes).unwrap_or(u64::MAX));

        let last = read.last().map(|record| (record.counter, record.time_ms));
        let next = match last {
            Some((counter, _)) => counter + 1,
            // Nothing readable up to the tail: go on there.
            None => iterator.counter.max(tail.next),
        };
        let caught_up = next >= tail.next;
        // The log publishes a seal before the catalog: until it names the children, come again.
        let at_end = caught_up && tail.sealed && !shard.is_open();
        let records = read.into_iter().map(|record| ReadRecord {
            sequence: sequence_number(shard, record.counter, record.time_ms),
            arrival_ms: record.time_ms,
            data: record.data.clone(),
            record,
        });
        Ok(Page {
            records: records.collect(),
            millis_behind_latest: match last {
                Some((_, time_ms)) if !caught_up => now_ms.saturating_sub(time_ms),
                _ => 0,
            },
            next_iterator: (!at_end).then(|| self.mint(&stream.arn, shard, next)),
            children: if at_end {
                stream.children_of(shard.index).cloned().collect()
            } else {
                Vec::new()
            },
        })
    }

    fn mint(&self, arn: &StreamArn, shard: &Shard, counter: u64) -> String {
        let minted_ms = self.now_ms();
        let iterator = ShardIterator {
            account: arn.account.clone(),
            stream: arn.name.clone(),
            shard: shard.id(),
            log_shard: shard.log_shard(),
            counter,
            minted_ms,
        };
        iterator.mint(&self.inner.log.id())
    }

    fn tail(&self, shard: &Shard) -> Result<Tail, Error> {
        let unknown = crate::log::Error::Unknown(shard.log_shard());
        self.inner
            .log
            .tail(shard.log_shard())
            .ok_or(Error::Log(unknown))
    }
}

/// The stream and shard of an iterator, if they are still there.
fn owner<'a>(
    catalog: &'a crate::engine::catalog::Catalog,
    iterator: &ShardIterator,
    now_ms: u64,
) -> Result<(&'a Arc<Stream>, &'a Shard), Error> {
    // A verified token whose shard is unknown belongs to a deleted stream or an expired shard.
    let found = catalog
        .owner_of(iterator.log_shard)
        .filter(|(stream, _)| stream.status(now_ms).is_some());
    let shard = found.and_then(|(stream, id)| Some((stream, stream.shards.get(&id.0)?)));
    shard.ok_or_else(|| Error::ShardGone {
        account: iterator.account.clone(),
        stream: iterator.stream.clone(),
        shard: iterator.shard,
    })
}

/// The counter of a sequence number that this shard gave out.
fn own_counter(arn: &StreamArn, shard: &Shard, sequence: SequenceNumber) -> Result<u64, Error> {
    let parts = Parts::unpack(sequence);
    if let Some(encoded) = parts.map(|parts| ShardId(parts.shard_index))
        && encoded != shard.id()
    {
        let used = shard.id();
        return Err(Error::SequenceOfOtherShard { encoded, used });
    }
    let own = parts.filter(|parts| parts.shard_created_seconds == shard.created_seconds);
    let foreign = || Error::ForeignSequence {
        arn: arn.clone(),
        shard: shard.id(),
        sequence,
    };
    own.map(|parts| parts.counter).ok_or_else(foreign)
}
