//! A native Kinesis Client Library: process every record of a stream at least once, on as many
//! workers as you like.
//!
//! # From nothing to a worker
//!
//! In `Cargo.toml` (a C compiler is needed for SQLite and TLS):
//!
//! ```toml
//! [dependencies]
//! async-trait = "0.1"
//! kcl = { path = "..." }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! ```
//!
//! A stream to try it with: `millstream serve --streams orders:2` serves one of two shards at `http://127.0.0.1:4567`. At AWS leave the
//! [`endpoint`](WorkerBuilder::endpoint) out, and turn the feature `aws-config` on for profiles and roles. The program:
//!
//! ```no_run
//! use async_trait::async_trait;
//! use kcl::{Checkpointer, ProcessorError, RecordBatch, RecordProcessor, ShardInfo, SqliteLeaseStore, Worker};
//!
//! struct Printer;
//!
//! #[async_trait]
//! impl RecordProcessor for Printer {
//!     async fn process_records(
//!         &mut self,
//!         batch: RecordBatch,
//!         checkpointer: &Checkpointer,
//!     ) -> Result<(), ProcessorError> {
//!         for record in batch.records() {
//!             println!("{}", String::from_utf8_lossy(record.data()));
//!         }
//!         checkpointer.checkpoint().await?; // everything delivered so far is done
//!         Ok(())
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), kcl::Error> {
//!     let worker = Worker::builder("my-app", "orders")
//!         .endpoint("http://127.0.0.1:4567") // else AWS_ENDPOINT_URL_KINESIS, else AWS
//!         .lease_store(SqliteLeaseStore::open("leases.db").await?)
//!         .build(|_shard: &ShardInfo| Printer)
//!         .await?;
//!     worker.run().await // until worker.handle().shutdown()
//! }
//! ```
//!
//! It begins at the oldest record ([`initial_position`](WorkerBuilder::initial_position)), delivers what is there, and waits for more. Nothing arrives? Look at
//! [`WorkerHandle::health`] and [`WorkerHandle::shards`], or ask `millstream app why 0 --application my-app --store leases.db`.
//!
//! Start it twice, with one lease store: the workers share the shards, and when one dies the other goes on where the last
//! checkpoint was.
//! Processes of one machine share an SQLite file; machines share a PostgreSQL database.
#![cfg_attr(
    feature = "postgres",
    doc = "That is [`PostgresLeaseStore::connect`] in the place of `SqliteLeaseStore::open`."
)]
//!
//! Where to go from here: [tests](#testing) of what you wrote, without a server; what to do about [failures](#when-a-processor-fails), before the first
//! record that cannot be processed holds its shard up; an orderly end ([`WorkerHandle::shutdown`] on SIGTERM); [probes, metrics and
//! logs](#what-can-be-seen-of-it); and [operating](#operating-an-application) what runs. Every setting is in [`WorkerConfig`], with its unit, default and
//! range. Features:
//!
//! | feature | |
//! |---|---|
//! | `postgres`, on by default | leases in PostgreSQL, and exactly once into it |
//! | `aws-config` | credentials, region and endpoint as AWS's own tools find them |
//! | `testing` | what the tests of a program need |
//!
//! # What is guaranteed
//!
//! - **At least once.** Every record after the initial position is handed to a processor until its batch succeeds: through errors, panics, crashes,
//!   expired iterators and reshards. A batch is never skipped, unless an
//!   [`ErrorPolicy`] says so. What was handed over but not checkpointed when a worker died is handed
//!   over again; after a graceful shutdown or hand-over nothing is.
//! - **In order.** The records of a shard come in strictly increasing sequence, and a child shard begins when all its parents
//!   have ended.
//! - **One worker at a time.** A worker stops delivering before its shards can be taken, counted from *before* its last renewal was sent, so
//!   pauses and slow stores do not make two workers deliver one shard's records, apart from the batch in work. A checkpoint of
//!   a former owner is refused.
//! - **Quick take-over.** Within the fail-over time ([`WorkerConfig::failover_time`]) and about a second after a crash; within half a second after a
//!   graceful shutdown.
//!
//! # When a processor fails
//!
//! Errors and panics of `process_records` are retried for ever unless an [`ErrorPolicy`] decides otherwise, for all errors or for each
//! ([`ErrorPolicy::decide`]): [`Stop`](ErrorAction::Stop) ends the worker in order, with the failed records still to be done;
//! [`DeadLetter`](ErrorAction::DeadLetter) and [`Skip`](ErrorAction::Skip) halve the batch until the records that fail are alone, process all others,
//! and hand those to a [`DeadLetterQueue`] (another stream, or a function of yours), or log and count them. Nothing is given up in silence,
//! and nothing because the lease store was out of reach: errors of this library that a processor passes on are always retried.
//!
//! ```no_run
//! # async fn example<P: kcl::RecordProcessor>(processor: fn(&kcl::ShardInfo) -> P) -> Result<(), kcl::Error> {
//! use kcl::{DeadLetterStream, ErrorAction, ErrorPolicy, SqliteLeaseStore, Worker};
//!
//! let worker = Worker::builder("my-app", "orders")
//!     .lease_store(SqliteLeaseStore::open("leases.db").await?)
//!     .on_error(ErrorPolicy::decide(|failure| {
//!         if failure.error.is::<std::num::ParseIntError>() {
//!             ErrorAction::DeadLetter
//!         } else {
//!             ErrorAction::Retry
//!         }
//!     }))
//!     .dead_letters(DeadLetterStream::new("orders-dead"))
//!     .build(processor)
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Aggregated records
//!
//! What the Kinesis Producer Library packs into one record arrives as the records that its user gave it ([`Record::sub_sequence_number`],
//! [`Record::explicit_hash_key`]). A checkpoint may lie between any two of them, and whoever goes on there begins with exactly the next one. Data that
//! only looks like an aggregate is delivered as it is. After a reshard user records may arrive on a shard that they do not
//! belong to; [`WorkerConfig::foreign_records`] says what becomes of them.
//!
//! # Many streams
//!
//! One worker processes as many streams as it is given ([`WorkerBuilder::also_stream`]), each with a starting position, an error policy and a way of
//! reading of its own where [`StreamConfig`] says so; [`ShardInfo::stream_name`] tells a factory which one it is about. The shards of all of them are shared by the
//! workers that serve them. [`WorkerHandle::add_stream`] and [`WorkerHandle::remove_stream`] change them while the worker runs. A stream that is deleted is left; only the
//! last one ends the worker.
//!
//! # Enhanced fan-out
//!
//! [`Retrieval::FanOut`] has records pushed by the server as they arrive, over HTTP/2, each shard with a throughput of its own. What it promises is the
//! same; a shard that cannot be subscribed to is polled meanwhile ([`ShardStatus::retrieving`]).
//!
//! ```no_run
//! # async fn example<P: kcl::RecordProcessor>(processor: fn(&kcl::ShardInfo) -> P) -> Result<(), kcl::Error> {
//! use kcl::{Retrieval, SqliteLeaseStore, Worker};
//!
//! let worker = Worker::builder("my-app", "orders")
//!     .lease_store(SqliteLeaseStore::open("leases.db").await?)
//!     .retrieval(Retrieval::FanOut { consumer_name: None }) // registered as "my-app"
//!     .build(processor)
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Without a trait
//!
//! A closure is enough where a processor has nothing to remember: [`for_each`] takes one for each record, [`for_each_batch`] one for each batch. Both
//! checkpoint after each batch, or as rarely as [you say](closures::ForEach::checkpoint_every), and always when the shard is given up.
//!
//! ```no_run
//! # async fn send(record: &kcl::Record) -> std::io::Result<()> { Ok(()) }
//! # async fn example() -> Result<(), kcl::Error> {
//! use kcl::{Record, SqliteLeaseStore, Worker};
//!
//! let worker = Worker::builder("my-app", "orders")
//!     .lease_store(SqliteLeaseStore::open("leases.db").await?)
//!     .build(kcl::for_each(|record: Record| async move {
//!         send(&record).await?;
//!         Ok(())
//!     }))
//!     .await?;
//! worker.run().await
//! # }
//! ```
//!
//! [`WorkerBuilder::stream`] turns it around: the program is a loop that asks for the next record of any shard, and acknowledges each by itself, in any order.
//!
//! How large the batches are is the builder's matter, whatever takes them: at most [`max_records`](WorkerBuilder::max_records) and
//! [`max_batch_bytes`](WorkerBuilder::max_batch_bytes), and with a [`batch_window`](WorkerBuilder::batch_window) they wait to be filled.
//!
//! # In parallel
//!
//! Shards are processed side by side; within a shard records come one after the other. Where each has to wait for something, [`by_key`] works on many at once: those
//! of one partition key in order, those of different keys together. A checkpoint never passes a record that is not done.
//!
//! ```
//! # async fn send(record: &kcl::Record) -> std::io::Result<()> { Ok(()) }
//! let factory = kcl::by_key(32, |record: kcl::Record| async move {
//!     send(&record).await?;
//!     Ok(())
//! });
//! ```
//!
//! # Typed
//!
//! [`Record::json`] decodes a record; [`for_each_json`] and [`by_key_json`] take closures of the decoded value. What does not decode fails with a
//! [`DecodeError`], which says where and why without showing the data, and which an error policy can tell from failures that pass:
//!
//! ```
//! use kcl::{DecodeError, ErrorAction, ErrorPolicy, Record};
//!
//! #[derive(serde::Deserialize)]
//! struct Order {
//!     amount: u64,
//! }
//!
//! let policy = ErrorPolicy::decide(|failure| match failure.error.is::<DecodeError>() {
//!     true => ErrorAction::DeadLetter,
//!     false => ErrorAction::Retry,
//! });
//! let factory = kcl::for_each_json(|order: Order, record: Record| async move {
//!     println!("{} ordered for {}", record.partition_key(), order.amount);
//!     Ok(())
//! });
//! ```
//!
//! # Testing
//!
#![cfg_attr(
    any(test, feature = "testing"),
    doc = "With the feature `testing` there is a module [`testing`]: a probe that calls a processor as a worker would,"
)]
#![cfg_attr(
    not(any(test, feature = "testing")),
    doc = "With the feature `testing` there is a module `testing`: a probe that calls a processor as a worker would,"
)]
//! a Kinesis in memory, and time that passes at once, so that a test of a whole fail-over takes milliseconds.
#![cfg_attr(
    any(test, feature = "testing"),
    doc = "
```
use kcl::Record;
use kcl::testing::ShardProbe;

# #[tokio::main(flavor = \"current_thread\", start_paused = true)]
# async fn main() {
let factory = kcl::for_each(|record: Record| async move {
    std::str::from_utf8(record.data())?.parse::<u64>()?;
    Ok(())
});
let mut probe = ShardProbe::of(&factory);
probe.deliver([(\"till\", \"7\"), (\"till\", \"8\")]).await.unwrap();
assert_eq!(probe.checkpointed(), 2);
# }
```
"
)]
//!
//! # When something is out of reach
//!
//! The start fails with a clear error after a few attempts. Later, a stream or lease store that does not answer is waited for: delivery pauses
//! when the leases cannot be renewed and goes on when they are again. [`Worker::run`] ends with an error only where waiting does not
//! help: the error policy says to stop, the stream is gone or was created anew, or another process runs under the same worker id.
//!
//! # Operating an application
//!
//! [`ops`] sees and steers an application from outside, over the store that its workers use: who holds what and who lives, how far each shard is
//! behind, why one does not move ([`ops::Operations::why`] has one answer, which combines the lease, the workers' heartbeats, what the owner
//! tells of its trouble, and the endpoint), and where to start again ([`ops::Operations::reset`], the only thing that lowers a checkpoint). `millstream app` is the same
//! as a command.
//!
//! For a restart without a gap or a duplicate, shut the worker down on SIGTERM: it finishes its batches, checkpoints and hands its shards over.
//!
//! ```no_run
//! # async fn example<P: kcl::RecordProcessor>(worker: kcl::Worker<fn(&kcl::ShardInfo) -> P>) -> Result<(), Box<dyn std::error::Error>> {
//! use tokio::signal::unix::{SignalKind, signal};
//!
//! let handle = worker.handle();
//! let mut terminated = signal(SignalKind::terminate())?;
//! let running = tokio::spawn(worker.run());
//! terminated.recv().await;
//! handle.shutdown_and_wait().await; // at most shutdown_grace, 30 s unless set otherwise
//! running.await??;
//! # Ok(())
//! # }
//! ```
//!
//! How much it takes: a worker holds at most [`read_ahead_bytes`](WorkerConfig::read_ahead_bytes) read ahead, and beside it what is in work, one batch of
//! [`max_batch_bytes`](WorkerConfig::max_batch_bytes) a shard. Where many shards are behind at once, that is the larger part: lower
//! [`max_records`](WorkerConfig::max_records), which bounds what one read brings.
//!
//! # Cancel safety
//!
//! Dropping the future of [`Worker::run`] is like a crash: nothing is lost, uncheckpointed records are delivered again. The futures of
//! [`Checkpointer`] may be dropped at any time; the checkpoint may or may not have been stored then, and may be repeated.
//!
//! # Credentials
//!
//! Requests are signed with `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`. An endpoint of one's own needs none: without
//! them, access key and secret are both `millstream`. [`WorkerBuilder::credentials_provider`] takes any other source, and the feature `aws-config` adds
//! those of AWS's own tools: profiles, SSO, web identity, containers, EC2. [`HttpClientBuilder`](client::HttpClientBuilder) lists the variables that count.
//!
//! Credentials are renewed five minutes before they expire, by one request while all others go on with the old ones; what is refused as expired is
//! sent once more with new ones.
//!
//! # What can be seen of it
//!
//! [`WorkerHandle::health`] is for probes: live, ready, and the reasons why not. [`WorkerHandle::shards`] tells what each shard is doing. Metrics go to
//! whatever recorder of the `metrics` crate is installed; [`kcl::metrics`](crate::metrics) lists them. Logs go through `tracing`: what a
//! processor logs is in the spans `shard` (`application`, `stream`, `shard`, `counter`) and `batch` (`first`, `last`, `records`), and never has data in it.

pub mod checkpoint;
pub mod client;
pub mod clock;
pub mod closures;
pub mod config;
pub mod dead_letter;
mod decode;
pub mod error;
#[cfg(any(test, feature = "testing"))]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a stand-in for tests: what makes no sense panics"
)]
#[cfg_attr(
    not(test),
    allow(dead_code, reason = "the tests of this crate use more of it")
)]
mod fake;
mod fetch;
pub mod health;
mod key;
pub mod lease;
pub mod metrics;
pub mod ops;
pub mod policy;
pub mod processor;
#[cfg(test)]
mod seeded_bug;
mod shard;
#[cfg(test)]
mod sim;
pub mod status;
pub mod stream;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod worker;

/// The crate of [`WorkerBuilder::credentials_provider`]'s trait.
pub use aws_credential_types;
pub use checkpoint::{Checkpointer, Position, PreparedCheckpoint};
pub use closures::{by_key, by_key_json, for_each, for_each_batch, for_each_json};
pub use config::{ForeignRecords, InitialPosition, Retrieval, WorkerConfig};
pub use dead_letter::{DeadLetter, DeadLetterQueue, DeadLetterStream};
pub use decode::DecodeError;
pub use error::{Error, ErrorKind};
pub use health::{Health, HealthState};
#[cfg(feature = "postgres")]
pub use lease::PostgresLeaseStore;
pub use lease::{Lease, LeaseStore, MemoryLeaseStore, PendingCheckpoint, SqliteLeaseStore};
pub use policy::{ErrorAction, ErrorPolicy, Failure};
pub use processor::{
    ProcessorError, Record, RecordBatch, RecordProcessor, RecordProcessorFactory, ShardInfo,
};
pub use status::{Activity, Retrieving, ShardStatus};
pub use stream::{Delivery, Dropped, RecordStream};
pub use worker::{
    Counts, StreamConfig, StreamState, StreamStatus, Worker, WorkerBuilder, WorkerHandle,
};

/// The SQL library whose transactions [`Checkpointer::checkpoint_in`] takes.
pub use sqlx;
