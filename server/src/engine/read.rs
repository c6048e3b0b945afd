//! Reading records: mint an iterator, read a page, go on where it ended.

use crate::engine::catalog::{Shard, Stream};
use crate::engine::iterator::{self, ShardIterator};
use crate::engine::pages::PageShare;
use crate::engine::put::sequence_number;
use crate::engine::throttle::Throttled;
use crate::engine::{Engine, Error};
use crate::log::{self, ReadLimit, ReadShare, Tail};
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
    /// Whether the stream was encrypted when it arrived.
    pub encrypted: bool,
}

impl ReadRecord {
    /// The producer's key.
    pub fn partition_key(&self) -> &str {
        self.record.partition_key()
    }

    /// The producer's key, in UTF-8.
    pub fn key_bytes(&self) -> &[u8] {
        self.record.key_bytes()
    }

    /// The payload.
    pub fn data(&self) -> &[u8] {
        self.record.data()
    }
}

/// The answer to a read.
#[derive(Debug)]
pub struct Page {
    /// Records in order.
    pub records: Vec<ReadRecord>,
    /// How far its end is behind the tip, milliseconds.
    pub millis_behind_latest: u64,
    /// Where to go on; `None` at the end of a closed shard.
    pub next_iterator: Option<String>,
    /// The children of a closed shard, at its end.
    pub children: Vec<Shard>,
    /// What it takes of the memory for pages and for reading, to be kept until the answer has its share.
    pub share: (PageShare, ReadShare),
}

/// What a read finds: records and where they end.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    /// Records in order.
    pub records: Vec<ReadRecord>,
    /// Bytes of their keys and data.
    pub bytes: u64,
    /// How far its end is behind the tip, milliseconds.
    pub millis_behind_latest: u64,
    /// The counter to go on with.
    pub next: u64,
    /// The time of the last record before `next`, milliseconds since 1970; 0 if there was none.
    pub last_time_ms: u64,
    /// Whether this is the end of a closed shard.
    pub at_end: bool,
    /// The children of a closed shard, at its end.
    pub children: Vec<Shard>,
    /// What the records take of the memory for reading.
    pub share: ReadShare,
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
        let shard = self.readable_shard(&stream, id, now_ms);
        let shard = shard.ok_or_else(shard_not_found)?;
        let counted = self
            .inner
            .throttle
            .begin_iterator(shard.log_shard(), now_ms);
        counted.map_err(|Throttled| throttled(arn, shard))?;
        let counter = self.position(&stream, shard, start).await?;
        Ok(self.mint(arn, shard, counter))
    }

    /// Refuses a shard that cannot be read from: of no such stream, not there, or there no longer.
    pub fn check_readable(&self, arn: &StreamArn, id: ShardId) -> Result<(), Error> {
        let stream = self.stream(arn)?;
        let readable = self.readable_shard(&stream, id, self.now_ms());
        readable.map(drop).ok_or_else(|| Error::ShardNotFound {
            arn: arn.clone(),
            shard: id.to_string(),
        })
    }

    /// A shard of the stream that may be read from.
    pub(super) fn readable_shard<'s>(
        &self,
        stream: &'s Stream,
        id: ShardId,
        now_ms: u64,
    ) -> Option<&'s Shard> {
        let shard = stream.shards.get(&id.0);
        shard.filter(|shard| !stream.is_creating(now_ms) && self.is_retained(stream, shard, now_ms))
    }

    /// The first counter to read for `start`.
    pub(super) async fn position(
        &self,
        stream: &Stream,
        shard: &Shard,
        start: Start,
    ) -> Result<u64, Error> {
        let counter = self.counter_for(stream, shard, start).await;
        counter.map_err(|error| {
            error.if_shard_is_gone(|| Error::ShardNotFound {
                arn: stream.arn.clone(),
                shard: shard.id().to_string(),
            })
        })
    }

    async fn counter_for(
        &self,
        stream: &Stream,
        shard: &Shard,
        start: Start,
    ) -> Result<u64, Error> {
        let (arn, now_ms) = (&stream.arn, self.now_ms());
        let tail = self.tail(shard)?;
        let counter = match start {
            Start::TrimHorizon => 0,
            Start::Latest => tail.next,
            Start::AtTimestamp(given_ms) if given_ms > now_ms => {
                return Err(Error::FutureTimestamp { given_ms, now_ms });
            }
            Start::AtTimestamp(given_ms) => {
                let log = self.log();
                log.counter_at(shard.log_shard(), given_ms).await?
            }
            Start::AtSequence(sequence) => {
                let counter = own_counter(arn, shard, sequence)?;
                self.at_or_after(stream, shard, sequence, counter).await?
            }
            Start::AfterSequence(sequence) => own_counter(arn, shard, sequence)?.saturating_add(1),
        };
        // Never beyond the tail: what appears there later must still be seen (S3).
        Ok(counter.min(tail.next))
    }

    /// The counter of the first record at or after a number that says `counter`: a continuation number
    /// lies between the record of its counter and the next.
    async fn at_or_after(
        &self,
        stream: &Stream,
        shard: &Shard,
        sequence: SequenceNumber,
        counter: u64,
    ) -> Result<u64, Error> {
        let one = ReadLimit {
            records: 1,
            bytes: 1,
        };
        let horizon_ms = stream.trim_horizon_ms(self.now_ms());
        let log = self.log();
        let read = log
            .read(shard.log_shard(), counter, one, horizon_ms)
            .await?;
        let is_before = |record: &log::ReadRecord| {
            record.counter == counter && sequence_number(shard, counter, record.time_ms) < sequence
        };
        Ok(match read.first() {
            Some(record) if is_before(record) => counter.saturating_add(1),
            _ => counter,
        })
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
        let page = self.page(&iterator, limit, now_ms).await;
        page.map_err(|error| error.if_shard_is_gone(|| gone(&iterator)))
    }

    async fn page(
        &self,
        iterator: &ShardIterator,
        limit: usize,
        now_ms: u64,
    ) -> Result<Page, Error> {
        let catalog = self.catalog();
        let (stream, shard) = owner(&catalog, iterator, now_ms)?;
        let log_shard = shard.log_shard();
        let counted = self.inner.throttle.begin_read(log_shard, now_ms);
        counted.map_err(|Throttled| throttled(&stream.arn, shard))?;
        let limit = ReadLimit {
            records: limit.min(GET_RECORDS_MAX_COUNT),
            bytes: GET_RECORDS_MAX_BYTES,
        };
        let tail = self.tail(shard)?;
        // Counters leave gaps where the server was started again, so it is this many at most.
        let most = tail.next.saturating_sub(iterator.counter);
        let most = most.min(u64::try_from(limit.records).unwrap_or(u64::MAX));
        let share = self.inner.pages.admit(most, &self.patience).await?;
        let slice = self.slice(stream, shard, iterator.counter, limit).await?;
        self.inner.throttle.end_read(log_shard, slice.bytes);
        Ok(Page {
            records: slice.records,
            millis_behind_latest: slice.millis_behind_latest,
            next_iterator: (!slice.at_end).then(|| self.mint(&stream.arn, shard, slice.next)),
            children: slice.children,
            share: (share, slice.share),
        })
    }

    /// Reads from a counter on: what every way of reading shares.
    pub(super) async fn slice(
        &self,
        stream: &Stream,
        shard: &Shard,
        from: u64,
        limit: ReadLimit,
    ) -> Result<Slice, Error> {
        let now_ms = self.now_ms();
        let log_shard = shard.log_shard();
        // The tail is read before the records: a page can then only be more complete than it says.
        let tail = self.tail(shard)?;
        let horizon_ms = stream.trim_horizon_ms(now_ms);
        let read = self.log().read(log_shard, from, limit, horizon_ms).await?;
        let bytes: usize = read.iter().map(log::ReadRecord::len_bytes).sum();
        let last = read.last().map(|record| (record.counter, record.time_ms));
        let next = match last {
            Some((counter, _)) => counter + 1,
            // Nothing readable up to the tail: go on there.
            None => from.max(tail.next),
        };
        let caught_up = next >= tail.next;
        // The log publishes a seal before the catalog: until it names the children, come again.
        let at_end = caught_up && tail.sealed && !shard.is_open();
        let (read, share) = read.into_parts();
        let records = read.into_iter().map(|record| ReadRecord {
            sequence: sequence_number(shard, record.counter, record.time_ms),
            arrival_ms: record.time_ms,
            encrypted: stream.options.key_at(record.time_ms).is_some(),
            record,
        });
        Ok(Slice {
            records: records.collect(),
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
            millis_behind_latest: match last {
                // 0 says that there is no more, also where the next record is of the same millisecond or the clock was set back.
                Some((_, time_ms)) if !caught_up => now_ms.saturating_sub(time_ms).max(1),
                _ => 0,
            },
            next,
            last_time_ms: last.map_or(tail.last_time_ms, |(_, time_ms)| time_ms),
            at_end,
            children: if at_end {
                stream.children_of(shard.index).cloned().collect()
            } else {
                Vec::new()
            },
            share,
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

fn throttled(arn: &StreamArn, shard: &Shard) -> Error {
    Error::Throttled {
        arn: arn.clone(),
        shard: shard.id(),
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
    shard.ok_or_else(|| gone(iterator))
}

fn gone(iterator: &ShardIterator) -> Error {
    Error::ShardGone {
        account: iterator.account.clone(),
        stream: iterator.stream.clone(),
        shard: iterator.shard,
    }
}

/// The counter of a sequence number that this shard gave out.
fn own_counter(arn: &StreamArn, shard: &Shard, sequence: SequenceNumber) -> Result<u64, Error> {
    let origin = sequence.origin();
    if let Some(encoded) = origin.map(|origin| origin.shard_index)
        && encoded.cast_unsigned() != shard.index
    {
        let used = shard.id();
        return Err(Error::SequenceOfOtherShard { encoded, used });
    }
    let own = Parts::unpack(sequence)
        .filter(|parts| parts.shard_created_seconds == shard.created_seconds);
    let foreign = || Error::ForeignSequence {
        arn: arn.clone(),
        shard: shard.id(),
        sequence,
    };
    own.map(|parts| parts.counter).ok_or_else(foreign)
}
