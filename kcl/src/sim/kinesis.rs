//! The stream as its producers and its server know it: incarnations, shards that split and merge, records and when they arrived,
//! a wall clock that steps, and an API that throttles, expires, names no children and lists late.
//!
//! After what Millstream's server and AWS do: arrival times never go back within a shard; an iterator at a time in the future is
//! refused; a sequence number of another stream is refused; nothing of a stream that is gone can be read.

use super::history::RecordId;
use super::subscription::{SimSubscription, Subscribed};
use crate::checkpoint::Position;
use crate::client::{
    IteratorStart, KinesisApi, PutRecord, RecordsPage, Shard, StreamConsumer, StreamSummary,
    SubscribeRequest, Subscription,
};
use crate::error::{Error, ErrorKind};
use crate::processor::Record;
use async_trait::async_trait;
use bytes::Bytes;
use fastrand::Rng;
use millstream_wire::aggregation::{UserRecord, encode};
use millstream_wire::{HashKey, HashKeyRange, SequenceNumber};
use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

/// The server's clock at the beginning: not on a full second.
pub(super) const EPOCH_MS: u64 = 1_700_000_000_700;
const ITERATOR_TTL_MS: u64 = 300_000;
/// An iterator start that stands for LATEST, for a mistake that the checker must catch.
pub(super) const TIP_MS: u64 = u64::MAX;

/// What the server does now and then, or always.
#[derive(Debug, Clone, Default)]
pub(super) struct Quirks {
    pub(super) names_children: bool,
    /// Reads of a shard in a second, as AWS limits them.
    pub(super) most_reads: Option<usize>,
    /// Records in a page, whatever was asked for.
    pub(super) page_records: usize,
    /// Empty pages though there is more.
    pub(super) empty: f64,
    pub(super) expires_early: f64,
    pub(super) throttles: f64,
    pub(super) fails: f64,
    /// How old a listing may be.
    pub(super) listing_lag: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Kinesis {
    /// Every incarnation there was, the last one last.
    pub(super) streams: Vec<Stream>,
    pub(super) exists: bool,
    pub(super) creating_until: Duration,
    pub(super) skew_ms: i64,
    /// Iterators of earlier generations have expired.
    pub(super) generation: u64,
    next_sequence: u64,
    pub(super) next_subscription: u64,
    pub(super) quirks: Quirks,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) created_ms: u64,
    pub(super) shards: Vec<SimShard>,
    pub(super) subscribed: Subscribed,
}

#[derive(Debug)]
pub(super) struct SimShard {
    pub(super) shard: Shard,
    pub(super) records: Vec<Put>,
    /// Records that are not retained any more, from the first on.
    trimmed: usize,
    unlisted: bool,
    born: Duration,
    closed_at: Option<Duration>,
    reads: Vec<Duration>,
}

/// A record, as its producer knows it.
#[derive(Debug, Clone)]
pub(super) struct Put {
    pub(super) sequence: SequenceNumber,
    /// User records in the aggregate that it is; 0 for a record without.
    pub(super) users: u64,
    pub(super) arrival_ms: u64,
    /// When it was put, on the world's clock.
    pub(super) at: Duration,
    /// The number of history entries before it.
    pub(super) after: usize,
    /// It could not be read for long enough: nobody is to blame for its loss.
    pub(super) excused: bool,
}

impl Put {
    /// What the application sees of it, and the positions after each.
    pub(super) fn ids(&self) -> impl DoubleEndedIterator<Item = (RecordId, Position)> + use<> {
        let (sequence, users) = (self.sequence, self.users.max(1));
        (0..users).map(move |sub_sequence| {
            let inside = Position::Sequence {
                sequence,
                sub_sequence,
            };
            let last = sub_sequence + 1 == users;
            let position = if last {
                Position::after(sequence)
            } else {
                inside
            };
            ((sequence, sub_sequence), position)
        })
    }

    /// Whether the application has declared all of it done.
    pub(super) fn is_in(&self, handled: &BTreeSet<RecordId>) -> bool {
        self.ids().all(|(id, _)| handled.contains(&id))
    }
}

pub(super) const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";

impl Stream {
    /// The stream's identity for leases.
    pub(super) fn identity(&self) -> String {
        format!("{ARN}@{}", self.created_ms)
    }

    pub(super) fn shard(&self, id: &str) -> Option<&SimShard> {
        self.shards.iter().find(|shard| shard.shard.shard_id == id)
    }

    fn add(&mut self, parents: &[usize], range: HashKeyRange, now: Duration) -> String {
        for parent in parents {
            self.shards[*parent].shard.closed = true;
            self.shards[*parent].closed_at = Some(now);
        }
        let shard = Shard {
            shard_id: format!("shardId-{:012}", self.shards.len()),
            parents: parents
                .iter()
                .map(|parent| format!("shardId-{parent:012}"))
                .collect(),
            hash_key_range: range,
            closed: false,
        };
        let id = shard.shard_id.clone();
        self.shards.push(SimShard {
            shard,
            records: Vec::new(),
            trimmed: 0,
            unlisted: false,
            born: now,
            closed_at: None,
            reads: Vec::new(),
        });
        id
    }

    pub(super) fn open(&self) -> Vec<usize> {
        let open = self
            .shards
            .iter()
            .enumerate()
            .filter(|(_, shard)| !shard.shard.closed);
        open.map(|(index, _)| index).collect()
    }
}

impl Kinesis {
    pub(super) fn new(shards: u32, quirks: Quirks) -> Self {
        let mut kinesis = Kinesis {
            streams: Vec::new(),
            exists: false,
            creating_until: Duration::ZERO,
            skew_ms: 0,
            generation: 0,
            next_sequence: 1,
            next_subscription: 0,
            quirks,
        };
        kinesis.create(shards, Duration::ZERO, Duration::ZERO);
        kinesis
    }

    /// Creates the stream, for the first time or anew; it takes so long.
    pub(super) fn create(&mut self, shards: u32, now: Duration, takes: Duration) -> String {
        let last = self.streams.last().map_or(0, |stream| stream.created_ms);
        let mut stream = Stream {
            created_ms: self.now_ms(now).max(last + 1000) - 500,
            shards: Vec::new(),
            subscribed: Subscribed::default(),
        };
        for range in HashKeyRange::divide(NonZeroU32::new(shards).unwrap()) {
            stream.add(&[], range, now);
        }
        let identity = stream.identity();
        self.streams.push(stream);
        self.exists = true;
        self.creating_until = now + takes;
        identity
    }

    /// What was not processed is gone with the stream.
    pub(super) fn delete(&mut self) -> String {
        self.exists = false;
        let stream = self.streams.last_mut().unwrap();
        for put in stream
            .shards
            .iter_mut()
            .flat_map(|shard| &mut shard.records)
        {
            put.excused = true;
        }
        stream.identity()
    }

    pub(super) fn current(&self) -> &Stream {
        self.streams.last().unwrap()
    }

    pub(super) fn now_ms(&self, now: Duration) -> u64 {
        let ms = EPOCH_MS + u64::try_from(now.as_millis()).unwrap();
        ms.saturating_add_signed(self.skew_ms)
    }

    pub(super) fn put(
        &mut self,
        shard: usize,
        users: u64,
        now: Duration,
        after: usize,
    ) -> Option<SequenceNumber> {
        let now_ms = self.now_ms(now);
        let found = &mut self.streams.last_mut().unwrap().shards[shard];
        if !self.exists || found.shard.closed || now < self.creating_until {
            return None;
        }
        let last = found.records.last().map_or(0, |put| put.arrival_ms);
        let sequence: SequenceNumber = self.next_sequence.to_string().parse().unwrap();
        self.next_sequence += 1;
        found.records.push(Put {
            sequence,
            users,
            arrival_ms: now_ms.max(last),
            at: now,
            after,
            excused: false,
        });
        Some(sequence)
    }

    /// Splits an open shard in the middle.
    pub(super) fn split(&mut self, parent: usize, now: Duration) -> (Vec<String>, Vec<String>) {
        let stream = self.streams.last_mut().unwrap();
        let closed = stream.shards[parent].shard.shard_id.clone();
        let range = stream.shards[parent].shard.hash_key_range;
        let middle = range.start.0 + (range.end.0 - range.start.0) / 2;
        let lower = HashKeyRange {
            start: range.start,
            end: HashKey(middle),
        };
        let upper = HashKeyRange {
            start: HashKey(middle + 1),
            end: range.end,
        };
        let opened = vec![
            stream.add(&[parent], lower, now),
            stream.add(&[parent], upper, now),
        ];
        (vec![closed], opened)
    }

    /// Two open shards that lie side by side, from one drawn on.
    pub(super) fn neighbours(&self, rng: &mut Rng) -> Option<(usize, usize)> {
        let stream = self.current();
        let range = |index: usize| stream.shards[index].shard.hash_key_range;
        let open = stream.open();
        let pairs: Vec<(usize, usize)> = open
            .iter()
            .flat_map(|lower| open.iter().map(|upper| (*lower, *upper)))
            .filter(|(lower, upper)| {
                range(*lower).end.0.checked_add(1) == Some(range(*upper).start.0)
            })
            .collect();
        (!pairs.is_empty()).then(|| pairs[rng.usize(..pairs.len())])
    }

    pub(super) fn merge(
        &mut self,
        lower: usize,
        upper: usize,
        now: Duration,
    ) -> (Vec<String>, Vec<String>) {
        let stream = self.streams.last_mut().unwrap();
        let id = |index: usize| format!("shardId-{index:012}");
        let range = HashKeyRange {
            start: stream.shards[lower].shard.hash_key_range.start,
            end: stream.shards[upper].shard.hash_key_range.end,
        };
        let opened = stream.add(&[lower, upper], range, now);
        (vec![id(lower), id(upper)], vec![opened])
    }

    /// What is as old as this has outlived the retention: records, and shards that were closed by then.
    pub(super) fn retain_after(&mut self, age: Duration) {
        for found in &mut self.streams.last_mut().unwrap().shards {
            let count = found.records.partition_point(|put| put.at <= age);
            for put in &mut found.records[..count] {
                put.excused = true;
            }
            found.trimmed = found.trimmed.max(count);
            found.unlisted |= found.closed_at.is_some_and(|at| at <= age);
        }
    }

    fn stream(&self, now: Duration) -> Result<&Stream, Error> {
        let stream = self.streams.last().filter(|_| self.exists);
        stream.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no stream at {now:?}")))
    }

    /// The same to be changed.
    pub(super) fn existing(&mut self, now: Duration) -> Result<&mut Stream, Error> {
        self.stream(now)?;
        self.streams
            .last_mut()
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "no stream"))
    }

    fn summary(&self, now: Duration) -> Result<StreamSummary, Error> {
        let stream = self.stream(now)?;
        let status = if now < self.creating_until {
            "CREATING"
        } else {
            "ACTIVE"
        };
        Ok(StreamSummary {
            arn: ARN.to_owned(),
            name: "orders".to_owned(),
            created_ms: stream.created_ms,
            status: status.to_owned(),
            server_time_ms: self.now_ms(now) / 1000 * 1000,
        })
    }

    fn list(&self, now: Duration, rng: &mut Rng) -> Result<Vec<Shard>, Error> {
        let stream = self.stream(now)?;
        if now < self.creating_until {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the stream is being created",
            ));
        }
        let seen = now.saturating_sub(self.quirks.listing_lag.mul_f64(rng.f64()));
        let listed = stream.shards.iter().filter(|shard| !shard.unlisted);
        let listed = listed.filter(|shard| shard.parents_only() || shard.born <= seen);
        Ok(listed
            .map(|found| Shard {
                closed: found.closed_at.is_some_and(|at| at <= seen),
                ..found.shard.clone()
            })
            .collect())
    }

    pub(super) fn iterator(
        &self,
        now: Duration,
        shard_id: &str,
        start: IteratorStart,
    ) -> Result<String, Error> {
        let stream = self.stream(now)?;
        let now_ms = self.now_ms(now);
        let no_shard = || Error::new(ErrorKind::NotFound, format!("no shard {shard_id}"));
        let creating = now < self.creating_until;
        let index = stream
            .shards
            .iter()
            .position(|shard| shard.shard.shard_id == shard_id && !shard.unlisted && !creating)
            .ok_or_else(no_shard)?;
        let shard = &stream.shards[index];
        let own = |number: SequenceNumber| {
            let is_own = shard.records.iter().any(|put| put.sequence == number);
            let refused = || {
                Error::new(
                    ErrorKind::Protocol,
                    format!("{number} is not of this shard"),
                )
            };
            is_own.then_some(number).ok_or_else(refused)
        };
        let at = match start {
            IteratorStart::TrimHorizon => 0,
            IteratorStart::AtTimestamp(TIP_MS) => shard.records.len(),
            IteratorStart::AtTimestamp(ms) if ms > now_ms => {
                let text = format!("{ms} is in the future, it is {now_ms}");
                return Err(Error::new(ErrorKind::Protocol, text));
            }
            IteratorStart::AtTimestamp(ms) => {
                shard.records.partition_point(|put| put.arrival_ms < ms)
            }
            IteratorStart::AtSequence(number) => {
                let number = own(number)?;
                shard.records.partition_point(|put| put.sequence < number)
            }
            IteratorStart::AfterSequence(number) => {
                let number = own(number)?;
                shard.records.partition_point(|put| put.sequence <= number)
            }
        };
        let (created, generation) = (stream.created_ms, self.generation);
        Ok(format!("{created}|{index}|{at}|{generation}|{now_ms}"))
    }

    fn read(
        &mut self,
        now: Duration,
        iterator: &str,
        limit: u32,
        rng: &mut Rng,
    ) -> Result<RecordsPage, Error> {
        let parts: Vec<u64> = iterator
            .split('|')
            .map(|part| part.parse().unwrap())
            .collect();
        let [created, index, at, generation, minted_ms] = parts[..] else {
            panic!("{iterator:?} is no iterator")
        };
        let now_ms = self.now_ms(now);
        if self.stream(now)?.created_ms != created {
            return Err(Error::new(
                ErrorKind::NotFound,
                "the stream of the iterator is gone",
            ));
        }
        let early = rng.f64() < self.quirks.expires_early;
        if early || generation < self.generation || now_ms > minted_ms + ITERATOR_TTL_MS {
            return Err(Error::new(ErrorKind::Expired, "the iterator has expired"));
        }
        if rng.f64() < self.quirks.fails {
            return Err(Error::new(ErrorKind::Unavailable, "an internal failure"));
        }
        let (index, at) = (
            usize::try_from(index).unwrap(),
            usize::try_from(at).unwrap(),
        );
        self.count_read(index, now, rng)?;
        self.readable(index)?;
        let quirks = &self.quirks;
        let most = quirks.page_records.min(usize::try_from(limit).unwrap());
        let most = if rng.f64() < quirks.empty { 0 } else { most };
        let page = self.page(now, index, at, most)?;
        let next = |end: String| format!("{created}|{index}|{end}|{generation}|{now_ms}");
        Ok(RecordsPage {
            next_iterator: page.next_iterator.map(next),
            ..page
        })
    }

    fn readable(&self, index: usize) -> Result<&SimShard, Error> {
        let found = &self.current().shards[index];
        if found.unlisted {
            return Err(Error::new(
                ErrorKind::NotFound,
                "the shard has outlived the retention",
            ));
        }
        Ok(found)
    }

    /// At most so many records from a place on; the next place stands for the next iterator.
    pub(super) fn page(
        &self,
        now: Duration,
        index: usize,
        at: usize,
        most: usize,
    ) -> Result<RecordsPage, Error> {
        let found = self.readable(index)?;
        let now_ms = self.now_ms(now);
        let from = at.max(found.trimmed);
        let most = self.quirks.page_records.min(most);
        let end = found.records.len().min(from + most);
        let over = found.shard.closed && end == found.records.len();
        let is_child = |other: &&SimShard| other.shard.parents.contains(&found.shard.shard_id);
        let named = over && self.quirks.names_children;
        let shards = self.current().shards.iter();
        let children = shards.filter(is_child).filter(|_| named);
        Ok(RecordsPage {
            records: found.records[from..end].iter().map(Put::record).collect(),
            millis_behind_latest: found
                .records
                .get(end)
                .map_or(0, |next| now_ms.saturating_sub(next.arrival_ms).max(1)),
            next_iterator: (!over).then(|| end.to_string()),
            children: children.map(|child| child.shard.clone()).collect(),
        })
    }

    fn count_read(&mut self, index: usize, now: Duration, rng: &mut Rng) -> Result<(), Error> {
        let refused = rng.f64() < self.quirks.throttles;
        let reads = &mut self.streams.last_mut().unwrap().shards[index].reads;
        reads.retain(|at| now < *at + Duration::from_secs(1));
        if refused
            || self
                .quirks
                .most_reads
                .is_some_and(|most| reads.len() >= most)
        {
            return Err(Error::new(
                ErrorKind::Throttled,
                "the shard is read too fast",
            ));
        }
        reads.push(now);
        Ok(())
    }
}

impl SimShard {
    /// A shard that was there from the beginning.
    fn parents_only(&self) -> bool {
        self.shard.parents.is_empty()
    }
}

impl Put {
    fn record(&self) -> Record {
        let user = |sub: u64| UserRecord {
            partition_key: "k".into(),
            explicit_hash_key: None,
            data: Bytes::copy_from_slice(&sub.to_be_bytes()),
        };
        let data = match self.users {
            0 => Bytes::from_static(b"data"),
            users => encode(&(0..users).map(user).collect::<Vec<_>>()),
        };
        Record::stored(self.sequence, "k", data, self.arrival_ms)
    }
}

/// The endpoint as a host sees it.
#[derive(Debug, Clone)]
pub(super) struct SimKinesis(pub(super) super::world::Link);

#[async_trait]
impl KinesisApi for SimKinesis {
    async fn put_record(&self, _record: PutRecord<'_>) -> Result<SequenceNumber, Error> {
        Err(Error::new(ErrorKind::Protocol, "nothing here puts records"))
    }

    async fn describe_stream(&self, _stream: &str) -> Result<StreamSummary, Error> {
        self.0.ask(|world| world.kinesis.summary(world.now)).await
    }

    async fn list_shards(&self, _stream: &str) -> Result<Vec<Shard>, Error> {
        self.0
            .ask(|world| world.kinesis.list(world.now, &mut world.rng))
            .await
    }

    async fn shard_iterator(
        &self,
        _stream: &str,
        shard_id: &str,
        start: IteratorStart,
    ) -> Result<String, Error> {
        let shard_id = shard_id.to_owned();
        self.0
            .ask(move |world| world.kinesis.iterator(world.now, &shard_id, start))
            .await
    }

    async fn get_records(&self, iterator: &str, limit: u32) -> Result<RecordsPage, Error> {
        let iterator = iterator.to_owned();
        self.0
            .ask(move |world| {
                world
                    .kinesis
                    .read(world.now, &iterator, limit, &mut world.rng)
            })
            .await
    }

    async fn register_consumer(
        &self,
        _stream_arn: &str,
        _name: &str,
    ) -> Result<StreamConsumer, Error> {
        self.0.ask(|world| world.kinesis.register(world.now)).await
    }

    async fn describe_consumer(&self, consumer_arn: &str) -> Result<StreamConsumer, Error> {
        let arn = consumer_arn.to_owned();
        self.0
            .ask(move |world| world.kinesis.consumer(world.now, &arn))
            .await
    }

    async fn subscribe(
        &self,
        request: SubscribeRequest<'_>,
    ) -> Result<Box<dyn Subscription>, Error> {
        let (arn, shard) = (request.consumer_arn.to_owned(), request.shard_id.to_owned());
        let start = request.start;
        let place = self
            .0
            .ask(move |world| world.kinesis.subscribe(world.now, &arn, (&shard, start)))
            .await?;
        Ok(Box::new(SimSubscription::new(self.0.clone(), place)))
    }
}
