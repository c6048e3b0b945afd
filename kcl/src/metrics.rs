//! What a worker measures, through the [`metrics`](https://docs.rs/metrics) facade: install any recorder before the worker is built, and it gets
//! all of this; without one, each costs a comparison.
//!
//! | name | kind | labels | is |
//! |---|---|---|---|
//! | `kcl_records_delivered_total` | counter | shard | records of batches that were processed |
//! | `kcl_bytes_delivered_total` | counter | shard | bytes of their payloads |
//! | `kcl_batches_total` | counter | shard | batches that were processed |
//! | `kcl_batch_failures_total` | counter | shard | batches whose processing failed |
//! | `kcl_process_seconds` | histogram | shard | how long `process_records` took, failures included |
//! | `kcl_behind_latest_seconds` | gauge | shard | how far processing is behind the tip of the shard, as the endpoint said last |
//! | `kcl_checkpoints_total` | counter | shard | checkpoints that were stored |
//! | `kcl_checkpoint_failures_total` | counter | shard | checkpoints that could not be stored |
//! | `kcl_retries_total` | counter | shard | pauses before something is tried again: a batch, a callback, the store |
//! | `kcl_records_skipped_total` | counter | shard | records given up by the error policy |
//! | `kcl_dead_letters_total` | counter | shard | records that the dead letter queue accepted |
//! | `kcl_reads_total` | counter | shard | answers to GetRecords, empty ones included |
//! | `kcl_empty_reads_total` | counter | shard | answers without records |
//! | `kcl_throttled_reads_total` | counter | shard | reads refused because they came too fast |
//! | `kcl_read_failures_total` | counter | shard | reads that failed otherwise |
//! | `kcl_leases_held` | gauge | | leases that a shard consumer works under |
//! | `kcl_leases_taken_total` | counter | | tenures begun |
//! | `kcl_leases_lost_total` | counter | | tenures that ended because another worker has the lease |
//! | `kcl_heartbeats_total` | counter | | renewals of the leases that were stored |
//! | `kcl_heartbeat_failures_total` | counter | | renewals that failed |
//! | `kcl_owner_window_closed_milliseconds_total` | counter | | for how long nothing was delivered because the leases could not be renewed in time |
//! | `kcl_read_ahead_bytes` | gauge | | bytes read ahead and reserved for reads under way, of `read_ahead_bytes` |
//!
//! All have the label `application`; those of a shard `stream` and `shard` as well, for the shards that the worker holds or held. When a shard goes,
//! its gauge goes to 0. A shard consumer asks for the recorder when it begins.

use crate::lease::LeaseKey;
use metrics::{Counter, Gauge, Histogram, Label};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What one tenure counts. Clones count together.
#[derive(Clone)]
pub(crate) struct ShardMetrics {
    records: Counter,
    bytes: Counter,
    batches: Counter,
    batch_failures: Counter,
    process: Histogram,
    behind: Gauge,
    pub(crate) checkpoints: Counter,
    pub(crate) checkpoint_failures: Counter,
    pub(crate) retries: Counter,
    pub(crate) skipped: Counter,
    pub(crate) dead_letters: Counter,
    reads: Counter,
    empty_reads: Counter,
    pub(crate) throttled_reads: Counter,
    pub(crate) read_failures: Counter,
    /// Whether everything read is processed, so that what is read next says how far that is behind.
    caught_up: Arc<AtomicBool>,
}

impl std::fmt::Debug for ShardMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardMetrics").finish_non_exhaustive()
    }
}

impl Default for ShardMetrics {
    /// Counts for nobody.
    fn default() -> Self {
        let counter = Counter::noop;
        ShardMetrics {
            records: counter(),
            bytes: counter(),
            batches: counter(),
            batch_failures: counter(),
            process: Histogram::noop(),
            behind: Gauge::noop(),
            checkpoints: counter(),
            checkpoint_failures: counter(),
            retries: counter(),
            skipped: counter(),
            dead_letters: counter(),
            reads: counter(),
            empty_reads: counter(),
            throttled_reads: counter(),
            read_failures: counter(),
            caught_up: Arc::default(),
        }
    }
}

impl ShardMetrics {
    pub(crate) fn new(application: &str, key: &LeaseKey) -> Self {
        let labels = vec![
            Label::new("application", application.to_owned()),
            Label::new("stream", stream_name(&key.stream).to_owned()),
            Label::new("shard", key.shard_id.clone()),
        ];
        let counter = |name: &'static str| metrics::counter!(name, labels.clone());
        ShardMetrics {
            records: counter("kcl_records_delivered_total"),
            bytes: counter("kcl_bytes_delivered_total"),
            batches: counter("kcl_batches_total"),
            batch_failures: counter("kcl_batch_failures_total"),
            process: metrics::histogram!("kcl_process_seconds", labels.clone()),
            behind: metrics::gauge!("kcl_behind_latest_seconds", labels.clone()),
            checkpoints: counter("kcl_checkpoints_total"),
            checkpoint_failures: counter("kcl_checkpoint_failures_total"),
            retries: counter("kcl_retries_total"),
            skipped: counter("kcl_records_skipped_total"),
            dead_letters: counter("kcl_dead_letters_total"),
            reads: counter("kcl_reads_total"),
            empty_reads: counter("kcl_empty_reads_total"),
            throttled_reads: counter("kcl_throttled_reads_total"),
            read_failures: counter("kcl_read_failures_total"),
            caught_up: Arc::default(),
        }
    }

    /// A call of `process_records` ended.
    pub(crate) fn processed(&self, records: usize, bytes: usize, took: Duration, succeeded: bool) {
        self.process.record(took);
        if succeeded {
            self.batches.increment(1);
            self.records.increment(as_u64(records));
            self.bytes.increment(as_u64(bytes));
        } else {
            self.batch_failures.increment(1);
        }
    }

    /// A page came.
    pub(crate) fn read(&self, records: usize, behind_ms: u64) {
        self.reads.increment(1);
        if records == 0 {
            self.empty_reads.increment(1);
            if self.caught_up.load(Ordering::Relaxed) {
                self.behind(behind_ms);
            }
        }
    }

    /// Whether the processor waits for what is read next.
    pub(crate) fn waits(&self, waits: bool) {
        self.caught_up.store(waits, Ordering::Relaxed);
    }

    /// How far processing is behind the tip.
    pub(crate) fn behind(&self, ms: u64) {
        self.behind.set(Duration::from_millis(ms).as_secs_f64());
    }
}

/// What a worker counts beside its shards.
#[derive(Clone)]
pub(crate) struct WorkerMetrics {
    pub(crate) leases_held: Gauge,
    pub(crate) leases_taken: Counter,
    pub(crate) leases_lost: Counter,
    pub(crate) heartbeats: Counter,
    pub(crate) heartbeat_failures: Counter,
    pub(crate) window_closed_ms: Counter,
    pub(crate) read_ahead: Gauge,
}

impl std::fmt::Debug for WorkerMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerMetrics").finish_non_exhaustive()
    }
}

impl WorkerMetrics {
    pub(crate) fn new(application: &str) -> Self {
        let labels = vec![Label::new("application", application.to_owned())];
        let counter = |name: &'static str| metrics::counter!(name, labels.clone());
        WorkerMetrics {
            leases_held: metrics::gauge!("kcl_leases_held", labels.clone()),
            leases_taken: counter("kcl_leases_taken_total"),
            leases_lost: counter("kcl_leases_lost_total"),
            heartbeats: counter("kcl_heartbeats_total"),
            heartbeat_failures: counter("kcl_heartbeat_failures_total"),
            window_closed_ms: counter("kcl_owner_window_closed_milliseconds_total"),
            read_ahead: metrics::gauge!("kcl_read_ahead_bytes", labels.clone()),
        }
    }
}

/// The texts and kinds of the table, for the recorder.
pub(crate) fn describe() {
    for line in include_str!("metrics.rs").lines() {
        let Some(row) = line.strip_prefix("//! | `") else {
            continue;
        };
        let cells: Vec<&'static str> = row.split('|').map(str::trim).collect();
        let [name, kind, _, text, ..] = cells[..] else {
            continue;
        };
        let name = name.trim_end_matches('`');
        match kind {
            "counter" => metrics::describe_counter!(name, text),
            "gauge" => metrics::describe_gauge!(name, text),
            _ => metrics::describe_histogram!(name, text),
        }
    }
}

/// The name in a stream's identity, `ARN@creation-milliseconds`.
fn stream_name(identity: &str) -> &str {
    let arn = identity.rsplit_once('@').map_or(identity, |(arn, _)| arn);
    arn.rsplit_once('/').map_or(arn, |(_, name)| name)
}

fn as_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod recorded;
#[cfg(test)]
mod tests;
