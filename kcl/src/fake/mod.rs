//! A Kinesis in memory for the tests of this crate: shards that split and merge, iterators that expire, faults on demand.

#[cfg(test)]
pub(crate) mod recorder;
#[cfg(test)]
pub(crate) mod store;
pub(crate) mod subscription;
mod trouble;

use crate::client::{
    IteratorStart, KinesisApi, PutRecord, RecordsPage, Shard, StreamConsumer, StreamSummary,
    SubscribeRequest, Subscription,
};
use crate::clock::{self, Instant};
use crate::error::{Error, ErrorKind};
use crate::processor::Record;
use async_trait::async_trait;
use bytes::Bytes;
use millstream_wire::{HashKey, HashKeyRange, SequenceNumber};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use subscription::Pushing;
use tokio::sync::watch;
use trouble::Trouble;

/// The server's clock when a test begins: not on a full second, as the Date header of real servers is.
pub(crate) const EPOCH_MS: u64 = 1_700_000_000_700;

#[derive(Debug, Clone)]
pub(crate) struct FakeKinesis {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    began: Instant,
    created_ms: u64,
    /// How far the clock was set back.
    set_back: Duration,
    shards: Vec<FakeShard>,
    next_sequence: u64,
    /// Iterators of earlier generations have expired.
    generation: u64,
    /// Failures still to be given by GetRecords.
    failures: Vec<ErrorKind>,
    /// Whether the stream exists.
    missing: bool,
    /// Whether pages name the children of a shard at its end.
    names_children: bool,
    /// How long every call takes.
    latency: Duration,
    put: Vec<SequenceNumber>,
    /// The stream is being created: no shards are listed.
    creating: bool,
    /// Calls of `GetRecords`.
    reads: u64,
    /// How often a shard may be read in a second.
    most_reads: Option<usize>,
    /// Reads refused for that.
    throttled: u64,
    trouble: Trouble,
    /// Put by the worker, to whatever stream.
    letters: Vec<Letter>,
    /// How `PutRecord` fails.
    put_failure: Option<ErrorKind>,
    pushing: Pushing,
    /// Wakes subscriptions when something has changed.
    changed: watch::Sender<u64>,
}

/// A record put by a worker.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) stream: String,
    pub(crate) partition_key: String,
    pub(crate) explicit_hash_key: Option<HashKey>,
    pub(crate) data: Bytes,
}

#[derive(Debug)]
struct FakeShard {
    shard: Shard,
    records: Vec<Record>,
    outlived: bool,
    /// When it was read in the last second.
    reads: Vec<Instant>,
}

impl FakeShard {
    fn place(&self, start: IteratorStart) -> usize {
        self.records.partition_point(|record| match start {
            IteratorStart::TrimHorizon => false,
            IteratorStart::AtTimestamp(ms) => record.arrival_ms < ms,
            IteratorStart::AtSequence(number) => record.sequence_number < number,
            IteratorStart::AfterSequence(number) => record.sequence_number <= number,
        })
    }
}

pub(crate) fn shard_id(index: usize) -> String {
    format!("shardId-{index:012}")
}

fn not_found(what: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("no {what}"))
}

impl FakeKinesis {
    pub(crate) fn new(shards: u32) -> Self {
        let ranges = HashKeyRange::divide(NonZeroU32::new(shards).unwrap());
        let fake = |(index, range)| FakeShard {
            shard: Shard {
                shard_id: shard_id(index),
                parents: Vec::new(),
                hash_key_range: range,
                closed: false,
            },
            records: Vec::new(),
            outlived: false,
            reads: Vec::new(),
        };
        let state = State {
            began: clock::now(),
            created_ms: EPOCH_MS - 1000,
            set_back: Duration::ZERO,
            shards: ranges.into_iter().enumerate().map(fake).collect(),
            next_sequence: 1,
            generation: 0,
            failures: Vec::new(),
            missing: false,
            names_children: true,
            latency: Duration::from_millis(1),
            put: Vec::new(),
            creating: false,
            reads: 0,
            most_reads: None,
            throttled: 0,
            letters: Vec::new(),
            put_failure: None,
            trouble: Trouble::default(),
            pushing: Pushing::default(),
            changed: watch::Sender::new(0),
        };
        FakeKinesis {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A call that panicked on demand has changed nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a record to the shard.
    pub(crate) fn put(&self, shard: usize, data: &str) -> SequenceNumber {
        self.put_data(shard, Bytes::copy_from_slice(data.as_bytes()))
    }

    /// Appends a record of any bytes to the shard.
    pub(crate) fn put_data(&self, shard: usize, data: Bytes) -> SequenceNumber {
        self.put_keyed(shard, "key", data)
    }

    /// The open shard that a partition key belongs to.
    pub(crate) fn shard_of(&self, partition_key: &str) -> usize {
        let key = HashKey::of_partition_key(partition_key);
        let is_it =
            |found: &FakeShard| !found.shard.closed && found.shard.hash_key_range.contains(key);
        let position = self.lock().shards.iter().position(is_it);
        position.expect("the open shards tile the hash key space")
    }

    /// Appends a record to the shard, whatever its key.
    pub(crate) fn put_keyed(
        &self,
        shard: usize,
        partition_key: &str,
        data: Bytes,
    ) -> SequenceNumber {
        let mut state = self.lock();
        let arrival_ms = state.now_ms();
        let sequence_number: SequenceNumber = state.next_sequence.to_string().parse().unwrap();
        state.next_sequence += 1;
        state.put.push(sequence_number);
        let shard = &mut state.shards[shard];
        assert!(!shard.shard.closed, "{} is closed", shard.shard.shard_id);
        let record = Record::stored(sequence_number, partition_key, data, arrival_ms);
        shard.records.push(record);
        state.wake();
        sequence_number
    }

    /// Appends `count` records.
    pub(crate) fn put_many(&self, shard: usize, count: usize) {
        for index in 0..count {
            self.put(shard, &index.to_string());
        }
    }

    /// The indexes of the shards that take records.
    pub(crate) fn open_shards(&self) -> Vec<usize> {
        let state = self.lock();
        let shards = state.shards.iter().enumerate();
        let open = shards.filter(|(_, shard)| !shard.shard.closed);
        open.map(|(index, _)| index).collect()
    }

    /// Sets the server's clock back.
    pub(crate) fn set_clock_back(&self, by: Duration) {
        self.lock().set_back += by;
    }

    /// Every sequence number given out.
    pub(crate) fn put_so_far(&self) -> Vec<SequenceNumber> {
        self.lock().put.clone()
    }

    /// Splits a shard in the middle; gives the children's indexes.
    pub(crate) fn split(&self, parent: usize) -> (usize, usize) {
        let mut state = self.lock();
        let range = state.shards[parent].shard.hash_key_range;
        let middle = range.start.0 + (range.end.0 - range.start.0) / 2;
        let lower = HashKeyRange {
            start: range.start,
            end: HashKey(middle),
        };
        let upper = HashKeyRange {
            start: HashKey(middle + 1),
            end: range.end,
        };
        (state.add(&[parent], lower), state.add(&[parent], upper))
    }

    /// Merges two adjacent shards; gives the child's index.
    pub(crate) fn merge(&self, lower: usize, upper: usize) -> usize {
        let mut state = self.lock();
        let range = HashKeyRange {
            start: state.shards[lower].shard.hash_key_range.start,
            end: state.shards[upper].shard.hash_key_range.end,
        };
        state.add(&[lower, upper], range)
    }

    pub(crate) fn expire_iterators(&self) {
        self.lock().generation += 1;
    }

    /// The next calls of GetRecords fail like this, the last one first.
    pub(crate) fn fail(&self, failures: &[ErrorKind]) {
        self.lock().failures.extend_from_slice(failures);
    }

    pub(crate) fn set_missing(&self, missing: bool) {
        self.lock().missing = missing;
    }

    pub(crate) fn set_creating(&self, creating: bool) {
        self.lock().creating = creating;
    }

    pub(crate) fn reads(&self) -> u64 {
        self.lock().reads
    }

    /// Sets whether a shard may be read five times a second only, as at AWS.
    pub(crate) fn limit_reads(&self, limited: bool) {
        self.lock().most_reads = limited.then_some(5);
    }

    /// Reads refused because they came too fast.
    pub(crate) fn throttled(&self) -> u64 {
        self.lock().throttled
    }

    /// What the worker has put.
    pub(crate) fn letters(&self) -> Vec<Letter> {
        self.lock().letters.clone()
    }

    /// Sets how `PutRecord` fails, if it does.
    pub(crate) fn fail_puts(&self, failure: Option<ErrorKind>) {
        self.lock().put_failure = failure;
    }

    pub(crate) fn name_no_children(&self) {
        self.lock().names_children = false;
    }

    /// Deletes the stream and creates it anew.
    pub(crate) fn recreate(&self) {
        let mut state = self.lock();
        state.created_ms += 5000;
        state.generation += 1;
        for shard in &mut state.shards {
            shard.records.clear();
        }
        state.pushing.consumers.clear();
        state.wake();
    }

    /// The shard and its records have outlived the retention.
    pub(crate) fn outlive(&self, shard: usize) {
        let mut state = self.lock();
        state.generation += 1;
        state.shards[shard].outlived = true;
        let gone = std::mem::take(&mut state.shards[shard].records);
        state
            .put
            .retain(|put| gone.iter().all(|record| record.sequence_number != *put));
    }

    async fn called(&self) -> Result<(), Error> {
        let latency = self.lock().latency;
        tokio::time::sleep(latency).await;
        if self.lock().missing {
            Err(not_found("stream"))
        } else {
            Ok(())
        }
    }
}

impl State {
    fn wake(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    fn now_ms(&self) -> u64 {
        let passed = clock::now() - self.began;
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap();
        EPOCH_MS + ms(passed) - ms(self.set_back)
    }

    fn add(&mut self, parents: &[usize], hash_key_range: HashKeyRange) -> usize {
        for parent in parents {
            self.shards[*parent].shard.closed = true;
        }
        let shard = Shard {
            shard_id: shard_id(self.shards.len()),
            parents: parents.iter().map(|parent| shard_id(*parent)).collect(),
            hash_key_range,
            closed: false,
        };
        self.shards.push(FakeShard {
            shard,
            records: Vec::new(),
            outlived: false,
            reads: Vec::new(),
        });
        self.wake();
        self.shards.len() - 1
    }

    fn page(&mut self, iterator: &str, limit: u32) -> Result<RecordsPage, Error> {
        let parts: Vec<usize> = iterator
            .split('|')
            .map(|part| part.parse().unwrap())
            .collect();
        let [shard, generation, at] = parts[..] else {
            panic!("{iterator:?} is no iterator")
        };
        if u64::try_from(generation).unwrap() < self.generation {
            return Err(Error::new(ErrorKind::Expired, "the iterator has expired"));
        }
        if let Some(kind) = self.failures.pop() {
            return Err(Error::new(kind, "a failure on demand"));
        }
        self.trouble.check(shard)?;
        let now = clock::now();
        let reads = &mut self.shards[shard].reads;
        reads.retain(|at| now < *at + Duration::from_secs(1));
        if self.most_reads.is_some_and(|most| reads.len() >= most) {
            self.throttled += 1;
            return Err(Error::new(
                ErrorKind::Throttled,
                "more than five reads a second",
            ));
        }
        reads.push(now);
        let found = &self.shards[shard];
        let end = found
            .records
            .len()
            .min(at + usize::try_from(limit).unwrap());
        let over = found.shard.closed && end == found.records.len();
        let children = self.shards.iter().map(|other| &other.shard);
        let children = children.filter(|other| other.parents.contains(&found.shard.shard_id));
        let page = RecordsPage {
            records: found.records[at.min(end)..end].to_vec(),
            millis_behind_latest: u64::from(end < found.records.len()),
            next_iterator: (!over).then(|| format!("{shard}|{generation}|{end}")),
            children: if over && self.names_children {
                children.cloned().collect()
            } else {
                Vec::new()
            },
        };
        Ok(self.trouble.page(shard, page))
    }
}

#[async_trait]
impl KinesisApi for FakeKinesis {
    async fn describe_stream(&self, stream: &str) -> Result<StreamSummary, Error> {
        self.called().await?;
        let state = self.lock();
        let name = stream.rsplit('/').next().unwrap_or(stream);
        Ok(StreamSummary {
            arn: format!("arn:aws:kinesis:us-east-1:000000000000:stream/{name}"),
            name: name.to_owned(),
            created_ms: state.created_ms,
            status: if state.creating { "CREATING" } else { "ACTIVE" }.to_owned(),
            server_time_ms: state.now_ms() / 1000 * 1000,
        })
    }

    async fn list_shards(&self, _stream: &str) -> Result<Vec<Shard>, Error> {
        self.called().await?;
        let mut state = self.lock();
        if state.creating {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the stream is being created",
            ));
        }
        let State {
            trouble, shards, ..
        } = &mut *state;
        trouble.trip("list_shards");
        Ok(trouble.listing(shards))
    }

    async fn shard_iterator(
        &self,
        _stream: &str,
        shard_id: &str,
        start: IteratorStart,
    ) -> Result<String, Error> {
        self.called().await?;
        let state = self.lock();
        let is_it = |shard: &FakeShard| shard.shard.shard_id == shard_id && !shard.outlived;
        let index = state
            .shards
            .iter()
            .position(is_it)
            .ok_or_else(|| not_found("shard"))?;
        let at = state.shards[index].place(start);
        Ok(format!("{index}|{}|{at}", state.generation))
    }

    async fn get_records(&self, iterator: &str, limit: u32) -> Result<RecordsPage, Error> {
        self.called().await?;
        let mut state = self.lock();
        state.reads += 1;
        state.trouble.trip("get_records");
        state.page(iterator, limit)
    }

    async fn put_record(&self, record: PutRecord<'_>) -> Result<SequenceNumber, Error> {
        self.called().await?;
        let mut state = self.lock();
        if let Some(kind) = state.put_failure {
            return Err(Error::new(kind, "a refusal on demand"));
        }
        state.letters.push(Letter {
            stream: record.stream.to_owned(),
            partition_key: record.partition_key.to_owned(),
            explicit_hash_key: record.explicit_hash_key,
            data: record.data.clone(),
        });
        Ok(state.letters.len().to_string().parse().unwrap())
    }

    async fn register_consumer(
        &self,
        stream_arn: &str,
        name: &str,
    ) -> Result<StreamConsumer, Error> {
        self.called().await?;
        self.lock().register(stream_arn, name)
    }

    async fn describe_consumer(&self, consumer_arn: &str) -> Result<StreamConsumer, Error> {
        self.called().await?;
        self.lock().consumer(consumer_arn)
    }

    async fn subscribe(
        &self,
        request: SubscribeRequest<'_>,
    ) -> Result<Box<dyn Subscription>, Error> {
        self.called().await?;
        self.begin(request)
    }
}
