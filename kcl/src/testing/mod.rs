//! What the tests of a program need that processes records: a shard without a worker, a Kinesis in memory, and time that passes at once. Behind the feature
//! `testing`:
//!
//! ```toml
//! [dev-dependencies]
//! kcl = { path = "...", features = ["testing"] }
//! tokio = { version = "1", features = ["macros", "rt", "test-util"] }
//! ```
//!
//! # A record processor by itself
//!
//! [`ShardProbe`] calls a processor as a worker would, one call at a time, and tells what came of it:
//!
//! ```
//! use kcl::testing::ShardProbe;
//! use kcl::Record;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let factory = kcl::for_each(|record: Record| async move {
//!     let text = std::str::from_utf8(record.data())?;
//!     text.parse::<u64>()?;
//!     Ok(())
//! });
//! let mut probe = ShardProbe::of(&factory);
//! probe.deliver([("till", "7"), ("till", "8")]).await.unwrap();
//! assert_eq!(probe.checkpointed(), 2);
//!
//! let error = probe.deliver([("till", "9"), ("till", "ten")]).await.unwrap_err();
//! assert!(error.is::<std::num::ParseIntError>());
//! assert_eq!(probe.checkpointed(), 3); // what was done before it
//! # }
//! ```
//!
//! # A whole worker
//!
//! [`InMemoryKinesis`] stands in for the stream, [`MemoryLeaseStore`](crate::MemoryLeaseStore) for the lease table. With tokio's clock paused, a fail-over of
//! ten seconds takes no time: whenever every task waits, the clock moves on to what the first of them waits for. [`eventually`] waits on that clock.
//!
//! ```
//! use kcl::testing::{InMemoryKinesis, eventually};
//! use kcl::{ErrorKind, MemoryLeaseStore, Record, Worker};
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicUsize, Ordering};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! // In a test: #[tokio::test(start_paused = true)]
//! let kinesis = InMemoryKinesis::new(2);
//! for number in 0..100 {
//!     kinesis.put(&format!("key {number}"), number.to_string());
//! }
//! kinesis.fail_next(&[ErrorKind::Unavailable, ErrorKind::Throttled]);
//! let seen = Arc::new(AtomicUsize::new(0));
//! let counter = Arc::clone(&seen);
//! let worker = Worker::builder("my-app", "orders")
//!     .client(kinesis.client())
//!     .lease_store(MemoryLeaseStore::new())
//!     .build(kcl::for_each(move |_record: Record| {
//!         let counter = Arc::clone(&counter);
//!         async move {
//!             counter.fetch_add(1, Ordering::SeqCst);
//!             Ok(())
//!         }
//!     }))
//!     .await
//!     .unwrap();
//! let handle = worker.handle();
//! let running = tokio::spawn(worker.run());
//! kinesis.split(0);
//! eventually("every record is seen", Duration::from_secs(60), || {
//!     seen.load(Ordering::SeqCst) == 100
//! })
//! .await;
//! handle.shutdown_and_wait().await;
//! running.await.unwrap().unwrap();
//! # }
//! ```

mod kinesis;
pub(crate) mod probe;
#[cfg(test)]
mod tests;

pub use kinesis::{InMemoryKinesis, PutByWorker};
pub use probe::{ProbeCall, ProbedCall, ShardProbe};

use crate::clock;
use crate::processor::Record;
use bytes::Bytes;
use std::time::Duration;

/// Lets time pass on tokio's clock, step by step, so that everything that is due meanwhile happens. (`tokio::time::advance` jumps: who waits for several moments
/// in turn sees only the last.) With the clock paused it takes no real time.
///
/// # Cancel safety
/// It owns nothing.
pub async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Waits until `condition` holds, on tokio's clock; it is looked at every 10 ms.
///
/// # Panics
/// When it does not hold within `limit`, with `what`.
///
/// # Cancel safety
/// It owns nothing.
pub async fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = clock::now() + limit;
    while !condition() {
        assert!(clock::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A record with a sequence number of one's own. Those of a shard grow.
pub fn record(sequence_number: u64, partition_key: &str, data: impl Into<Bytes>) -> Record {
    Record::stored(number(sequence_number), partition_key, data.into(), 0)
}

#[expect(clippy::expect_used, reason = "every number is one")]
fn number(sequence_number: u64) -> millstream_wire::SequenceNumber {
    let text = sequence_number.to_string();
    text.parse().expect("decimal digits are a sequence number")
}
