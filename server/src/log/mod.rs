//! Durable bytes in one order; knows no streams. Format: `docs/0001-log.md`.
//!
//! A [`Log`] takes batches of records for numbered shards, and transactions that change metadata and
//! the set of shards. One thread writes all of it (`writer`), so that order, counters and seals
//! hold by construction:
//!
//! - an answer is given only after the durability setting is met (S1);
//! - within a shard counters strictly increase and are never given out twice (S2);
//! - records become readable in order, whole, and only once they are durable (S3);
//! - nothing is appended to a sealed shard (S5).
//!
//! A batch goes `Log::append` → `queue` → `writer` (`plan`, `segment`, `disk`) → `published` → answer;
//! a read goes `Log::read` → `reader` → a cache or `disk`. In the background `trim` removes segments and
//! `rewriter` (`rewrite`, `packed`) puts sealed ones in order.

mod batches;
mod block_cache;
mod check;
mod commit_writer;
mod cursor;
mod disk;
mod entry;
mod error;
mod extent;
mod format;
mod frame;
mod index;
mod lay_out;
mod memory_disk;
mod open_files;
mod pace;
mod packed;
mod packed_index;
mod plan;
mod published;
mod queue;
mod read_disk;
mod reader;
mod records;
mod recovery;
mod repair;
mod rewrite;
mod rewriter;
mod segment;
mod segment_index;
mod shard_map;
mod spare;
mod tail_cache;
mod tails;
mod trim;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

pub use batches::{Batches, RecordBatch};
pub use check::{Changes, Checked, Finding, Lost, Note, Remedy, Totals, check};
pub use disk::{Disk, DiskFile, RealDisk};
pub use entry::Transaction;
pub use error::{Error, MetadataError};
pub(crate) use format::FORMAT;
pub use format::Format;
pub use memory_disk::MemoryDisk;
pub use packed::Compression;
pub use read_disk::ReadDisk;
pub use records::{ReadRecord, ReadRecords, ReadShare};
pub use repair::{Keep, Step, repair};
pub use rewriter::Rewritten;
pub(crate) use segment::name as segment_name;

use crate::clock::SharedClock;
use crate::log::frame::Magic;
use crate::log::index::Segments;
use crate::log::plan::SeededBug;
use crate::log::published::Published;
use crate::log::queue::{Queue, Work};
use crate::log::reader::Request;
use crate::log::recovery::Recovered;
use crate::log::rewriter::Rewriter;
use crate::log::writer::{Committer, Start};
use crate::patience::Patience;

/// Names a shard of the log. Chosen by the caller; never used again once dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogShard(pub u64);

/// State folded from the events of transactions; opaque here.
pub trait Metadata: Clone + Send + Sync + fmt::Debug + 'static {
    /// Applies an event. It is given a clone: on failure what it left of that is thrown away.
    fn apply(&mut self, event: &[u8]) -> Result<(), MetadataError>;
    /// The whole state, for a snapshot.
    fn encode(&self) -> Vec<u8>;
    /// What [`Metadata::encode`] gave.
    fn decode(bytes: &[u8]) -> Result<Self, MetadataError>;
}

/// When an append is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// After the sync: what was acknowledged survives a power cut.
    #[default]
    Fsync,
    /// After the write; a sync follows within this time. A power cut loses that much at most, a
    /// killed process nothing.
    Interval(Duration),
    /// After the write; the system syncs when it likes.
    None,
}

/// What a run takes in memory at most: while its segment is written, in a list that may have grown to twice its length; while
/// the footer is written; while it is read, as it lies in the file and decoded; and the same while the segment is rewritten.
pub(crate) const RUN_COST_BYTES: usize = 224;

/// What a log is opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// Size of a segment file; smaller ones are trimmed sooner. A commit that does not fit gets a
    /// segment of its own size.
    pub segment_bytes: u64,
    /// Runs of a segment at most, a commit's runs aside: its index is in memory while it is written, and its footer while it is
    /// read.
    pub segment_runs: usize,
    /// When an append is answered.
    pub durability: Durability,
    /// Most that may wait to be written.
    pub queue_bytes: usize,
    /// Most that is kept of the latest commits for readers.
    pub tail_cache_bytes: usize,
    /// Most that is kept of sealed segments' indexes.
    pub footer_cache_bytes: usize,
    /// Most that is kept of unpacked blocks of rewritten segments, for those who read them in small steps.
    pub block_cache_bytes: usize,
    /// Most that records read from files take until their reader gives their share back.
    pub read_bytes: usize,
    /// Whether rewritten segments are compressed.
    pub compression: Compression,
    /// How fast sealed segments are rewritten, bytes of the old one in a second; up to sixteen times that when
    /// many wait. 0 sets no limit.
    pub rewrite_bytes_per_second: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            segment_bytes: 64 << 20,
            segment_runs: 1 << 18,
            durability: Durability::Fsync,
            queue_bytes: 64 << 20,
            tail_cache_bytes: 64 << 20,
            footer_cache_bytes: 32 << 20,
            block_cache_bytes: 16 << 20,
            read_bytes: 128 << 20,
            compression: Compression::Zstd,
            rewrite_bytes_per_second: 32 << 20,
        }
    }
}

/// Where a batch was put: its records have the counters `first..first + count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Counter of the first record.
    pub first: u64,
    /// How many records.
    pub count: u32,
    /// Their time, milliseconds since 1970.
    pub time_ms: u64,
}

/// The end of a shard, as far as it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tail {
    /// One more than the last record's counter; 0 before the first. The next record's counter is
    /// this or greater.
    pub next: u64,
    /// The last record's time; 0 before the first.
    pub last_time_ms: u64,
    /// No more records will come.
    pub sealed: bool,
}

/// How much one read gives at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    /// Number of records.
    pub records: usize,
    /// Bytes of partition keys and data; the first record is given whatever its size.
    pub bytes: usize,
}

/// The log: a handle, cheap to clone. Dropping the last one closes it and waits for what it had
/// accepted, but not for reads and trims under way; [`Log::close`] waits for those, too, without blocking the runtime.
/// With it goes the patience of who uses it: how long a call waits for room.
#[derive(Debug)]
pub struct Log<M>(Arc<Inner<M>>, Patience);

#[derive(Debug)]
struct Inner<M> {
    id: [u8; 16],
    published: Arc<Published<M>>,
    queue: Arc<Queue<M>>,
    read_budget: Arc<Semaphore>,
    read_limit_bytes: usize,
    rewriter: Rewriter,
    committer: Mutex<Option<JoinHandle<()>>>,
    /// Reads of files and trims, those among them that nobody waits for any more.
    at_work: TaskTracker,
}

impl<M> Clone for Log<M> {
    fn clone(&self) -> Self {
        Log(Arc::clone(&self.0), self.1.clone())
    }
}

impl<M: Metadata> Log<M> {
    /// Opens the log on this disk, or creates it with `initial` as its metadata. Blocks.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if acknowledged data is damaged or missing, [`Error::NewerFormat`] if a
    /// newer version wrote it, [`Error::NoSpace`] or [`Error::Io`] if the disk refuses,
    /// [`Error::Metadata`] if the stored metadata is not understood.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the log takes its first state over"
    )]
    pub fn open(
        disk: Arc<dyn Disk>,
        config: LogConfig,
        clock: SharedClock,
        initial: M,
    ) -> Result<Log<M>, Error> {
        Self::open_with(disk, config, clock, &initial, SeededBug::default())
    }

    fn open_with(
        disk: Arc<dyn Disk>,
        config: LogConfig,
        clock: SharedClock,
        initial: &M,
        bug: SeededBug,
    ) -> Result<Log<M>, Error> {
        let Recovered {
            state,
            first_segment: first,
            active,
            capacity,
        } = recovery::recover(disk.as_ref(), config.segment_bytes, initial)?;
        let id = state.log_id;
        let metadata = Arc::new(state.metadata.clone());
        let (segment, file) = (active.number, Arc::clone(&active.file));
        let published = Arc::new(Published::new(
            disk,
            Magic::of(&id),
            &config,
            (Arc::clone(&metadata), &state.shards),
            Segments { first, active },
        ));
        let queue = Arc::new(Queue::new(config.queue_bytes));
        let start = Start {
            state,
            metadata,
            segment,
            file,
            capacity,
            bug,
        };
        let rewriter = Rewriter::start(Arc::clone(&published), &config, bug)
            .map_err(|source| Error::io("starting", "the thread log-rewriter", source))?;
        let (seen, work) = (Arc::clone(&published), Arc::clone(&queue));
        let committer = Committer::new(start, &config, clock, seen, work)?;
        let thread = std::thread::Builder::new()
            .name("log-committer".to_owned())
            .spawn(move || committer.run())
            .map_err(|source| Error::io("starting", "the thread log-committer", source))?;
        let committer = Mutex::new(Some(thread));
        // Permits are taken as u32.
        let read_limit_bytes = config.read_bytes.min(1 << 31);
        let inner = Inner {
            id,
            published,
            queue,
            read_budget: Arc::new(Semaphore::new(read_limit_bytes)),
            read_limit_bytes,
            rewriter,
            committer,
            at_work: TaskTracker::new(),
        };
        Ok(Log(Arc::new(inner), Patience::default()))
    }

    /// The log for a request with this patience.
    #[must_use]
    pub fn within(&self, patience: &Patience) -> Log<M> {
        Log(Arc::clone(&self.0), patience.clone())
    }

    /// The log's random id, given when it was created.
    pub fn id(&self) -> [u8; 16] {
        self.0.id
    }

    /// The metadata as of the last durable transaction.
    pub fn metadata(&self) -> Arc<M> {
        self.0.published.metadata()
    }

    /// Appends records to a shard and waits until they are as durable as the setting says.
    ///
    /// # Errors
    /// [`Error::Sealed`], [`Error::Unknown`]; [`Error::Overloaded`] and [`Error::NoSpace`] (nothing
    /// was written, retry later); [`Error::TooLarge`]; [`Error::Poisoned`] and [`Error::Closed`].
    /// After `Poisoned` the records may still be found by the next start.
    ///
    /// # Cancel safety
    /// Dropped early, the records may or may not be appended.
    pub async fn append(&self, shard: LogShard, records: RecordBatch) -> Result<Appended, Error> {
        let mut results = self.append_all((shard, records).into()).await?;
        results.pop().unwrap_or(Err(Error::Closed))
    }

    /// Appends to several shards in one commit; one result per batch in the order given.
    ///
    /// # Errors
    /// As [`Log::append`]; `Sealed` and `Unknown` are told batch by batch.
    ///
    /// # Cancel safety
    /// As [`Log::append`].
    pub async fn append_all(
        &self,
        batches: Batches,
    ) -> Result<Vec<Result<Appended, Error>>, Error> {
        let (reply, answer) = oneshot::channel();
        self.submit(Work::Append { batches, reply }).await?;
        answer.await.unwrap_or_else(|_| Err(self.unanswered()))
    }

    /// Commits a transaction and gives the metadata right after it.
    ///
    /// # Errors
    /// As [`Log::append`]; [`Error::Exists`], [`Error::Unknown`] or [`Error::Sealed`] if a
    /// precondition does not hold, [`Error::Metadata`] if the event is refused. Then nothing changed.
    ///
    /// # Cancel safety
    /// Dropped early, the transaction may or may not be committed.
    pub async fn commit(&self, transaction: Transaction) -> Result<Arc<M>, Error> {
        let (reply, answer) = oneshot::channel();
        self.submit(Work::Commit { transaction, reply }).await?;
        answer.await.unwrap_or_else(|_| Err(self.unanswered()))
    }

    async fn submit(&self, work: Work<M>) -> Result<(), Error> {
        if let Some(error) = self.0.published.poisoned() {
            return Err(error.clone());
        }
        self.0.queue.push(work, &self.1).await
    }

    fn unanswered(&self) -> Error {
        self.0
            .published
            .poisoned()
            .cloned()
            .unwrap_or(Error::Closed)
    }

    /// The end of a shard as readers see it; `None` if there is no such shard.
    pub fn tail(&self, shard: LogShard) -> Option<Tail> {
        self.0.published.tail(shard)
    }

    /// The records from counter `from` on that are not older than `not_before_ms`, at least one if
    /// there is any, within the limit.
    ///
    /// # Errors
    /// [`Error::Unknown`]; [`Error::Corrupt`] if what was written is damaged; [`Error::Io`];
    /// [`Error::Overloaded`] if other readers hold as much as they may; [`Error::Closed`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn read(
        &self,
        shard: LogShard,
        from: u64,
        limit: ReadLimit,
        not_before_ms: u64,
    ) -> Result<ReadRecords, Error> {
        let tail = self.readable(shard)?;
        let request = Request {
            shard,
            from,
            before: tail.next,
            limit,
            not_before_ms,
        };
        if let Some(records) = self.0.published.read_cached(&request) {
            return records.map(ReadRecords::without_share);
        }
        let _at_work = self.begin()?;
        let published = Arc::clone(&self.0.published);
        let planned = self
            .blocking(move || published.plan_blocking(request))
            .await?;
        if planned.located.is_empty() {
            return Ok(ReadRecords::without_share(Vec::new()));
        }
        let permit = self.read_permit(planned.len_bytes()).await?;
        let published = Arc::clone(&self.0.published);
        self.blocking(move || {
            let records = published.fetch_blocking(&planned)?;
            let share = ReadShare::new(permit);
            Ok(ReadRecords { records, share })
        })
        .await
    }

    /// A share of what records read from files may take.
    async fn read_permit(&self, wanted_bytes: usize) -> Result<OwnedSemaphorePermit, Error> {
        let limit_bytes = self.0.read_limit_bytes;
        // One read larger than the whole budget goes alone.
        let permits = u32::try_from(wanted_bytes.min(limit_bytes)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.0.read_budget).acquire_many_owned(permits);
        let overloaded = || Error::Overloaded {
            wanted_bytes,
            queue_bytes: limit_bytes,
        };
        let permit = self.1.wait_for(permit).await.ok_or_else(overloaded)?;
        permit.map_err(|_| Error::Closed)
    }

    /// The counter of the first record at or after that time, or a smaller one that leads to it; the
    /// tail's `next` if there is none.
    ///
    /// # Errors
    /// As [`Log::read`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn counter_at(&self, shard: LogShard, time_ms: u64) -> Result<u64, Error> {
        self.readable(shard)?;
        let _at_work = self.begin()?;
        let published = Arc::clone(&self.0.published);
        let since = self
            .blocking(move || published.since(shard, time_ms))
            .await?;
        let Some(located) = since.within else {
            return Ok(since.counter);
        };
        let (kept_bytes, unpacking_bytes) = located.len_bytes();
        let permit = self
            .read_permit(kept_bytes.saturating_add(unpacking_bytes))
            .await?;
        let published = Arc::clone(&self.0.published);
        self.blocking(move || {
            let counter = published.counter_within(&located, time_ms);
            drop(permit);
            counter
        })
        .await
    }

    /// The tail of a shard that can be read from.
    fn readable(&self, shard: LogShard) -> Result<Tail, Error> {
        if self.0.published.is_closed() {
            return Err(Error::Closed);
        }
        self.tail(shard).ok_or(Error::Unknown(shard))
    }

    /// Waits until the tail's `next` is greater than `beyond`: until there is a record with a counter
    /// of at least `beyond`. Also returns when the shard is sealed or dropped, or the log closes.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn wait_for(&self, shard: LogShard, beyond: u64) {
        let Some(mut tail) = self.0.published.watch(shard) else {
            return;
        };
        let mut closed = self.0.published.watch_closed();
        // Both fail only when the sender is gone, which is an end as well.
        tokio::select! {
            _ = tail.wait_for(|tail| tail.next > beyond || tail.sealed) => {}
            _ = closed.wait_for(|closed| *closed) => {}
        }
    }

    /// Removes the oldest sealed segments as long as nothing in them is to be kept: for every shard
    /// in it, `keep_after_ms` gives `None` (the shard is gone) or a time later than its newest record
    /// there. Never the active one. Gives the number of segments removed.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Corrupt`] if a footer is damaged, [`Error::Closed`].
    ///
    /// # Cancel safety
    /// Dropped early, the trim goes on in the background to its end.
    pub async fn trim(
        &self,
        keep_after_ms: impl Fn(LogShard) -> Option<u64> + Send + 'static,
    ) -> Result<usize, Error> {
        let _at_work = self.begin()?;
        let published = Arc::clone(&self.0.published);
        self.blocking(move || published.trim(keep_after_ms)).await
    }

    /// Begins work that [`Log::close`] waits for.
    fn begin(&self) -> Result<TaskTrackerToken, Error> {
        let begun = self.0.at_work.token();
        // Asked only now: from here on a close sees it.
        if self.0.published.is_closed() {
            return Err(Error::Closed);
        }
        Ok(begun)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let done = self.0.at_work.spawn_blocking(work).await;
        done.unwrap_or_else(|error| {
            let source = std::io::Error::other(error.to_string());
            Err(Error::io("reading", "the log", source))
        })
    }

    /// Rewrites sealed segments in the background, where that pays: each shard's records together, compressed, and
    /// without those that [`Log::trim`] would remove if they lay in the oldest segment. Waits for the end of the pass.
    ///
    /// # Errors
    /// [`Error::Io`]: then the segment it happened to is as it was, and the next call tries again. [`Error::Closed`].
    ///
    /// # Cancel safety
    /// Dropped early, the pass goes on to its end or until the log is closed.
    pub async fn rewrite(
        &self,
        keep_after_ms: impl Fn(LogShard) -> Option<u64> + Send + 'static,
    ) -> Result<Rewritten, Error> {
        if self.0.published.is_closed() {
            return Err(Error::Closed);
        }
        let answer = self.0.rewriter.ask(keep_after_ms);
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// Finishes what was accepted, syncs, stops the committer and waits for reads and trims that are under way: once the
    /// last handle has gone, the directory is free. Later calls get [`Error::Closed`].
    ///
    /// # Cancel safety
    /// Dropped early, the closing goes on.
    pub async fn close(&self) {
        self.0.rewriter.stop();
        self.0.queue.close();
        let mut closed = self.0.published.watch_closed();
        // Fails only without a sender, and `published` is one.
        let _ = closed.wait_for(|closed| *closed).await;
        let threads = [self.0.take_thread(), self.0.rewriter.take_thread()];
        for thread in threads.into_iter().flatten() {
            // Closing its files, or ending the block it is at, is all the thread still does.
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("a thread of the log ended in a panic");
            }
        }
        self.0.at_work.close();
        self.0.at_work.wait().await;
    }

    /// True once a write or a sync has failed: only reads are served until a restart.
    pub fn is_poisoned(&self) -> bool {
        self.0.published.poisoned().is_some()
    }
}

impl<M> Inner<M> {
    fn take_thread(&self) -> Option<JoinHandle<()>> {
        self.committer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl<M> Drop for Inner<M> {
    fn drop(&mut self) {
        self.rewriter.stop();
        self.queue.close();
        if let Some(thread) = self.take_thread() {
            // A panic there was reported by the runtime and has poisoned the log.
            let _ = thread.join();
        }
    }
}
