//! Closures in the place of a record processor: record by record, batch by batch, or the keys of a shard at once.
//!
//! Adapters over [`RecordProcessor`], nothing more: what is retried, given up and checkpointed is decided where it is for any other processor.
//! Invariants: a checkpoint lies at or before the first record that is not done (K4); a record that is done is not given to the closure again in the
//! same tenure (K5); none is begun when the lease cannot be proven (K2).

mod adapter;
mod by_key;
mod done;
mod for_each;
mod saver;
#[cfg(test)]
mod tests;

pub use by_key::ByKey;
pub use for_each::{ForEach, ForEachBatch};

pub(crate) use adapter::{Adapter, Work};
pub(crate) use done::{Done, InWork};
pub(crate) use saver::{Cadence, Saver};

#[cfg(doc)]
use crate::processor::RecordProcessor;
use crate::processor::{ProcessorError, Record, RecordBatch};
use crate::shard::callback::guarded;
use serde::de::DeserializeOwned;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

type Called = Pin<Box<dyn Future<Output = Result<(), ProcessorError>> + Send>>;

/// What is done about one record of a shard.
#[derive(Clone)]
pub(crate) struct Handler(Arc<Handle>);

type Handle = dyn Fn(&str, Record) -> Called + Send + Sync;

impl Handler {
    fn plain<F, Fut>(handle: F) -> Self
    where
        F: Fn(Record) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ProcessorError>> + Send + 'static,
    {
        Handler(Arc::new(move |_, record| Box::pin(handle(record))))
    }

    fn json<T, F, Fut>(handle: F) -> Self
    where
        T: DeserializeOwned + 'static,
        F: Fn(T, Record) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ProcessorError>> + Send + 'static,
    {
        Handler(Arc::new(move |shard_id, record| match record.json() {
            Ok(value) => Box::pin(handle(value, record)),
            Err(error) => Box::pin(std::future::ready(Err(error.in_shard(shard_id).into()))),
        }))
    }

    /// Handles a record; a panic is an error.
    async fn handle(&self, shard_id: &str, record: Record) -> Result<(), ProcessorError> {
        guarded(async { (self.0)(shard_id, record).await }).await
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler")
    }
}

/// Calls `handle` with each record of a shard, one after the other. Give it to [`build`](crate::WorkerBuilder::build).
///
/// Checkpointed is after each batch, each second while one lasts, and when the shard is given up; less often with
/// [`checkpoint_every`](ForEach::checkpoint_every). When a record fails, the error policy decides; the records before it are done and do not come again
/// while this worker has the shard.
///
/// ```no_run
/// # async fn example() -> Result<(), kcl::Error> {
/// use kcl::{MemoryLeaseStore, Record, Worker};
///
/// let worker = Worker::builder("my-app", "orders")
///     .lease_store(MemoryLeaseStore::new())
///     .build(kcl::for_each(|record: Record| async move {
///         println!("{}", String::from_utf8_lossy(record.data()));
///         Ok(())
///     }))
///     .await?;
/// worker.run().await
/// # }
/// ```
pub fn for_each<F, Fut>(handle: F) -> ForEach
where
    F: Fn(Record) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), ProcessorError>> + Send + 'static,
{
    ForEach::new(Handler::plain(handle))
}

/// Like [`for_each`], with the value that a record's JSON holds. What does not decode fails with a [`DecodeError`](crate::DecodeError), which an error
/// policy can tell from other failures.
///
/// ```no_run
/// # async fn example() -> Result<(), kcl::Error> {
/// use kcl::{DecodeError, ErrorAction, ErrorPolicy, MemoryLeaseStore, Record, Worker};
///
/// #[derive(serde::Deserialize)]
/// struct Order {
///     amount: u64,
/// }
///
/// let worker = Worker::builder("my-app", "orders")
///     .lease_store(MemoryLeaseStore::new())
///     .on_error(ErrorPolicy::decide(|failure| match failure.error.is::<DecodeError>() {
///         true => ErrorAction::Skip, // it will not become an order
///         false => ErrorAction::Retry,
///     }))
///     .build(kcl::for_each_json(|order: Order, record: Record| async move {
///         println!("{} ordered for {}", record.partition_key(), order.amount);
///         Ok(())
///     }))
///     .await?;
/// worker.run().await
/// # }
/// ```
pub fn for_each_json<T, F, Fut>(handle: F) -> ForEach
where
    T: DeserializeOwned + 'static,
    F: Fn(T, Record) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), ProcessorError>> + Send + 'static,
{
    ForEach::new(Handler::json(handle))
}

/// Calls `handle` with each batch of a shard; for what is written in one request or transaction. See [`for_each`] for when it checkpoints. A batch
/// that fails comes again, whole or in halves, as the error policy says.
///
/// ```no_run
/// # async fn store(rows: Vec<u8>) -> std::io::Result<()> { Ok(()) }
/// # async fn example() -> Result<(), kcl::Error> {
/// use kcl::{MemoryLeaseStore, RecordBatch, Worker};
/// use std::time::Duration;
///
/// let worker = Worker::builder("my-app", "orders")
///     .lease_store(MemoryLeaseStore::new())
///     .max_batch_bytes(1024 * 1024)
///     .batch_window(Duration::from_secs(5)) // or fewer bytes after five seconds
///     .build(kcl::for_each_batch(|batch: RecordBatch| async move {
///         let rows = batch.records().iter().flat_map(|record| record.data().to_vec());
///         store(rows.collect()).await?;
///         Ok(())
///     }))
///     .await?;
/// worker.run().await
/// # }
/// ```
pub fn for_each_batch<F, Fut>(handle: F) -> ForEachBatch
where
    F: Fn(RecordBatch) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), ProcessorError>> + Send + 'static,
{
    ForEachBatch::new(Arc::new(move |batch| Box::pin(handle(batch))))
}

/// Calls `handle` with the records of a shard, several at once: those of one partition key in order, one after the other, those of different keys side by side,
/// at most `concurrency` (from 1) of a shard at a time. For handlers that wait: for a database, for another service.
///
/// The checkpoint is the last record up to which *all* are done, each second while a batch lasts and at its end: a slow key holds back the checkpoint, not the other keys. While
/// some are in work, what comes later is taken into the batch, until it has [`max_records`](crate::WorkerBuilder::max_records) or
/// [`max_batch_bytes`](crate::WorkerBuilder::max_batch_bytes): so far the others get ahead of a slow one.
///
/// When a record fails, the rest of its key waits, and the other keys go on with what the batch has; then the error policy decides. Only what is not done comes again while this worker has the shard;
/// elsewhere, what follows the record that fails in its batch.
///
/// Each call runs in a task of its own, so it may use other threads.
///
/// ```no_run
/// # async fn look_up(key: &str) -> std::io::Result<()> { Ok(()) }
/// # async fn example() -> Result<(), kcl::Error> {
/// use kcl::{MemoryLeaseStore, Record, Worker};
///
/// let worker = Worker::builder("my-app", "orders")
///     .lease_store(MemoryLeaseStore::new())
///     .build(kcl::by_key(64, |record: Record| async move {
///         look_up(record.partition_key()).await?;
///         Ok(())
///     }))
///     .await?;
/// worker.run().await
/// # }
/// ```
pub fn by_key<F, Fut>(concurrency: usize, handle: F) -> ByKey
where
    F: Fn(Record) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), ProcessorError>> + Send + 'static,
{
    ByKey::new(concurrency, Handler::plain(handle))
}

/// Like [`by_key`], with the value that a record's JSON holds; see [`for_each_json`].
///
/// ```
/// #[derive(serde::Deserialize)]
/// struct Order {
///     amount: u64,
/// }
///
/// let factory = kcl::by_key_json(64, |order: Order, record: kcl::Record| async move {
///     println!("{} ordered for {}", record.partition_key(), order.amount);
///     Ok(())
/// });
/// ```
pub fn by_key_json<T, F, Fut>(concurrency: usize, handle: F) -> ByKey
where
    T: DeserializeOwned + 'static,
    F: Fn(T, Record) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), ProcessorError>> + Send + 'static,
{
    ByKey::new(concurrency, Handler::json(handle))
}

/// The settings that all of them have.
macro_rules! cadence {
    ($name:ident) => {
        impl $name {
            /// Checkpoints at most this often, instead of after every batch; what is not checkpointed comes again after a crash. When the shard is given up or
            /// ends, everything done is checkpointed all the same.
            #[must_use]
            pub fn checkpoint_every(mut self, interval: Duration) -> Self {
                self.cadence.every = Some(interval);
                self
            }

            /// Checkpoints after a batch when so many records are done since the last checkpoint, instead of after every batch. With
            /// [`checkpoint_every`](Self::checkpoint_every), when either is reached; without, a shard that falls silent is checkpointed when it is given up.
            #[must_use]
            pub fn checkpoint_every_records(mut self, records: u64) -> Self {
                self.cadence.records = Some(records);
                self
            }
        }
    };
}

cadence!(ForEach);
cadence!(ForEachBatch);
cadence!(ByKey);
