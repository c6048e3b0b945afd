//! Bugs of other Kinesis client libraries, each with the test that it is not in this one. docs/0007-regressions.md has the list.
//! `#n` is an issue or pull request of awslabs/amazon-kinesis-client.

mod callbacks;
mod handover;
mod shard_end;
mod start;
mod store;
mod troubled;

use super::*;
use crate::checkpoint::Position;
use crate::fake::recorder::Event;
use crate::fake::shard_id;
use crate::lease::{Lease, MemoryLeaseStore};
use crate::processor::RecordProcessorFactory;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// A stream, the leases, and what the processors of all workers saw.
struct Scene {
    kinesis: FakeKinesis,
    leases: MemoryLeaseStore,
    journal: Journal,
}

impl Scene {
    fn new(shards: u32) -> Self {
        Scene {
            kinesis: FakeKinesis::new(shards),
            leases: MemoryLeaseStore::new(),
            journal: Journal::default(),
        }
    }

    fn builder(&self, id: &str) -> WorkerBuilder {
        builder(&self.kinesis, self.leases.clone(), id)
    }

    async fn start(&self, id: &str) -> Started {
        launch(self.builder(id), &self.journal, id).await
    }

    fn lease(&self, shard: usize) -> Lease {
        let mut leases = self.leases.leases("app").into_iter();
        leases
            .find(|lease| lease.key.shard_id == shard_id(shard))
            .unwrap()
    }

    fn has_ended(&self, shard: usize) -> bool {
        self.lease(shard).checkpoint == Position::ShardEnd
    }

    /// The shards that the worker holds.
    fn held_by(&self, id: &str) -> Vec<usize> {
        let leases = self.leases.leases("app").into_iter().enumerate();
        let theirs = leases.filter(|(_, lease)| lease.owner.as_deref() == Some(id));
        theirs.map(|(index, _)| index).collect()
    }

    fn owner_switches(&self) -> u64 {
        let leases = self.leases.leases("app");
        leases.iter().map(|lease| lease.owner_switches).sum()
    }

    async fn until_processed(&self, limit: Duration) {
        until_processed(&self.kinesis, &self.journal, limit).await;
    }

    /// How often this happened to the processors of a shard.
    fn count(&self, shard: usize, event: &Event) -> usize {
        let entries = self.journal.entries();
        let of_shard = entries
            .iter()
            .filter(|entry| entry.shard == shard_id(shard));
        of_shard.filter(|entry| entry.event == *event).count()
    }

    /// When the shard's first records were handed over, if they were.
    fn first_delivery(&self, shard: usize) -> Option<Instant> {
        let entries = self.journal.entries();
        let mut of_shard = entries
            .iter()
            .filter(|entry| entry.shard == shard_id(shard));
        let delivered = |event: &Event| matches!(event, Event::Delivered(_));
        of_shard
            .find(|entry| delivered(&entry.event))
            .map(|entry| entry.at)
    }

    /// K2, K4 and K6, as far as they can be told when all is over.
    fn check(&self) {
        self.journal
            .check_no_loss(&self.kinesis.put_so_far())
            .unwrap();
        self.journal.check_order().unwrap();
        self.journal.check_no_overlap().unwrap();
    }

    fn check_each_once(&self) {
        self.check();
        self.journal.check_no_duplicates().unwrap();
        assert_eq!(self.journal.count(&Event::LeaseLost), 0);
    }

    /// Puts a record into each of the shards every 20 ms until the task is aborted.
    fn feed(&self, shards: std::ops::Range<usize>) -> JoinHandle<()> {
        let kinesis = self.kinesis.clone();
        tokio::spawn(async move {
            loop {
                shards.clone().for_each(|shard| {
                    kinesis.put(shard, "fed");
                });
                sleep(MS * 20).await;
            }
        })
    }
}

/// What a worker ends with by itself.
async fn end_of(worker: Started) -> Error {
    let ended = tokio::time::timeout(SECOND * 60, worker.task).await;
    ended.expect("it goes on").unwrap().unwrap_err()
}

async fn launch_with<F: RecordProcessorFactory>(builder: WorkerBuilder, factory: F) -> Started {
    let worker = builder.build(factory).await.unwrap();
    Started {
        handle: worker.handle(),
        task: tokio::spawn(worker.run()),
    }
}
