//! A Kinesis in memory, for workers in tests.

use crate::client::KinesisApi;
use crate::error::ErrorKind;
use crate::fake::{self, FakeKinesis};
use bytes::Bytes;
use millstream_wire::SequenceNumber;
use std::sync::Arc;

/// One stream in memory, behind [`KinesisApi`]: give its [`client`](InMemoryKinesis::client) to a [`WorkerBuilder`](crate::WorkerBuilder::client). It takes any name
/// for its stream. Every call takes a millisecond of tokio's clock. Clones are of the same stream.
///
/// Shards are named by their index, in the order in which they were made; what makes no sense (an index without a shard, a record for a closed one) panics.
///
/// ```
/// use kcl::testing::InMemoryKinesis;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let kinesis = InMemoryKinesis::new(1);
/// kinesis.put_to(0, "key", "before");
/// let (lower, upper) = kinesis.split(0);
/// kinesis.put_to(lower, "key", "after");
/// kinesis.merge(lower, upper);
/// kinesis.expire_iterators();
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct InMemoryKinesis {
    stream: FakeKinesis,
}

/// A record that a worker put: a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutByWorker {
    /// The stream it was put to.
    pub stream: String,
    /// Its partition key.
    pub partition_key: String,
    /// Its payload.
    pub data: Bytes,
}

impl InMemoryKinesis {
    /// A stream with so many shards, at least one. It begins at the present of tokio's clock: make it in the test's runtime.
    pub fn new(shards: u32) -> Self {
        InMemoryKinesis {
            stream: FakeKinesis::new(shards),
        }
    }

    /// What a worker reads it with.
    pub fn client(&self) -> Arc<dyn KinesisApi> {
        Arc::new(self.stream.clone())
    }

    /// The id of a shard.
    pub fn shard_id(&self, shard: usize) -> String {
        fake::shard_id(shard)
    }

    /// Puts a record to the open shard that its key belongs to.
    pub fn put(&self, partition_key: &str, data: impl Into<Bytes>) -> SequenceNumber {
        let shard = self.stream.shard_of(partition_key);
        self.put_to(shard, partition_key, data)
    }

    /// Puts a record to a shard, whatever its key.
    pub fn put_to(
        &self,
        shard: usize,
        partition_key: &str,
        data: impl Into<Bytes>,
    ) -> SequenceNumber {
        self.stream.put_keyed(shard, partition_key, data.into())
    }

    /// Splits an open shard in the middle; gives its children.
    pub fn split(&self, shard: usize) -> (usize, usize) {
        self.stream.split(shard)
    }

    /// Merges two adjacent open shards, the lower one first; gives their child.
    pub fn merge(&self, lower: usize, upper: usize) -> usize {
        self.stream.merge(lower, upper)
    }

    /// The oldest `count` records of a shard have outlived the retention.
    pub fn trim(&self, shard: usize, count: usize) {
        self.stream.trim(shard, count);
    }

    /// Every iterator given so far has expired.
    pub fn expire_iterators(&self) {
        self.stream.expire_iterators();
    }

    /// Whether reads of a shard are refused when they come faster than five a second, as at AWS. Off at first.
    pub fn throttle(&self, on: bool) {
        self.stream.limit_reads(on);
    }

    /// The next reads fail like this, the first one first.
    pub fn fail_next(&self, failures: &[ErrorKind]) {
        let failures: Vec<_> = failures.iter().rev().copied().collect();
        self.stream.fail(&failures);
    }

    /// Reads of a shard fail like this until `None`.
    pub fn fail_shard(&self, shard: usize, failure: Option<ErrorKind>) {
        self.stream.fail_shard(shard, failure);
    }

    /// How records put by workers, dead letters, are refused until `None`.
    pub fn fail_puts(&self, failure: Option<ErrorKind>) {
        self.stream.fail_puts(failure);
    }

    /// How often shards were read.
    pub fn reads(&self) -> u64 {
        self.stream.reads()
    }

    /// What workers have put, to whatever stream, in order.
    pub fn put_by_workers(&self) -> Vec<PutByWorker> {
        let letters = self.stream.letters().into_iter();
        letters
            .map(|letter| PutByWorker {
                stream: letter.stream,
                partition_key: letter.partition_key,
                data: letter.data,
            })
            .collect()
    }
}
