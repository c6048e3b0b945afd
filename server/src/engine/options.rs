//! What a stream and an account can be set to, beyond shards, retention and tags. Part of the catalog:
//! persisted, so variants and fields are only ever added.

use crate::engine::catalog::{Stream, StreamMode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How long a limit "in 24 hours" looks back, milliseconds.
pub(super) const DAY_MS: u64 = 24 * 3_600_000;
/// Encryption periods that are remembered at most; the oldest are forgotten.
const PERIODS_MAX: usize = 256;

/// The settings of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Metrics kept by shard.
    pub metrics: BTreeSet<Metric>,
    /// When its records were encrypted, oldest first.
    pub encryption: Vec<EncryptionPeriod>,
    /// Write throughput it was asked to be ready for, MiB per second.
    pub warm_mibps: Option<u32>,
    /// What spreads its records over shards.
    pub distribution: Distribution,
    /// Its resource policy.
    pub policy: Option<String>,
    /// When UpdateShardCount was called in the last 24 hours, milliseconds since 1970.
    pub scaled_ms: Vec<u64>,
    /// When the mode was changed in the last 24 hours.
    pub mode_changed_ms: Vec<u64>,
    /// When encryption began in the last 24 hours.
    pub encryption_started_ms: Vec<u64>,
    /// When encryption ended in the last 24 hours.
    pub encryption_stopped_ms: Vec<u64>,
}

impl Options {
    /// The key that records arriving at `at_ms` are encrypted with.
    pub fn key_at(&self, at_ms: u64) -> Option<&str> {
        let mut newest_first = self.encryption.iter().rev();
        newest_first
            .find(|period| period.contains(at_ms))
            .map(|period| period.key_id.as_str())
    }

    /// The key that is set, even if encryption has not begun yet.
    pub fn key(&self) -> Option<&str> {
        let last = self.encryption.last()?;
        last.until_ms.is_none().then_some(last.key_id.as_str())
    }
}

/// A time in which records were encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptionPeriod {
    /// With which key.
    pub key_id: String,
    /// From when, milliseconds since 1970.
    pub from_ms: u64,
    /// Until when, if it ended.
    pub until_ms: Option<u64>,
}

impl EncryptionPeriod {
    fn contains(&self, at_ms: u64) -> bool {
        self.from_ms <= at_ms && self.until_ms.is_none_or(|until| at_ms < until)
    }
}

/// What spreads records over shards (model: `RecordDistributionStrategy`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Distribution {
    /// The hash of the partition key.
    #[default]
    UserPartitionKey,
    /// The service.
    Auto,
}

/// A metric kept by shard (model: `MetricsName`), in the order AWS lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are AWS's")]
pub enum Metric {
    IncomingBytes,
    OutgoingRecords,
    IteratorAgeMilliseconds,
    IncomingRecords,
    ReadProvisionedThroughputExceeded,
    WriteProvisionedThroughputExceeded,
    OutgoingBytes,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Metric; 7] = [
        Metric::IncomingBytes,
        Metric::OutgoingRecords,
        Metric::IteratorAgeMilliseconds,
        Metric::IncomingRecords,
        Metric::ReadProvisionedThroughputExceeded,
        Metric::WriteProvisionedThroughputExceeded,
        Metric::OutgoingBytes,
    ];

    /// AWS's name.
    pub fn name(self) -> &'static str {
        match self {
            Metric::IncomingBytes => "IncomingBytes",
            Metric::OutgoingRecords => "OutgoingRecords",
            Metric::IteratorAgeMilliseconds => "IteratorAgeMilliseconds",
            Metric::IncomingRecords => "IncomingRecords",
            Metric::ReadProvisionedThroughputExceeded => "ReadProvisionedThroughputExceeded",
            Metric::WriteProvisionedThroughputExceeded => "WriteProvisionedThroughputExceeded",
            Metric::OutgoingBytes => "OutgoingBytes",
        }
    }
}

/// A new setting of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Setting {
    /// Metrics kept by shard.
    Metrics(BTreeSet<Metric>),
    /// Encryption begins, or goes on with another key.
    EncryptionStarted {
        /// The key.
        key_id: String,
        /// When it was asked for, milliseconds since 1970.
        at_ms: u64,
        /// When it begins.
        from_ms: u64,
    },
    /// Encryption ends.
    EncryptionStopped {
        /// When it was asked for.
        at_ms: u64,
        /// When it ends.
        until_ms: u64,
    },
    /// Write throughput to be ready for, MiB per second.
    WarmThroughput(Option<u32>),
    /// What spreads records over shards.
    Distribution(Distribution),
    /// The resource policy.
    Policy(Option<String>),
    /// Data plus partition key of one record at most, bytes.
    MaxRecordBytes(usize),
    /// Who decides on the number of shards.
    Mode {
        /// The mode.
        mode: StreamMode,
        /// When it was changed.
        at_ms: u64,
    },
    /// UpdateShardCount was called.
    Scaled {
        /// When.
        at_ms: u64,
    },
}

impl Stream {
    pub(super) fn set(&mut self, setting: Setting) {
        let options = &mut self.options;
        match setting {
            Setting::Metrics(metrics) => options.metrics = metrics,
            Setting::EncryptionStarted {
                key_id,
                at_ms,
                from_ms,
            } => {
                remember(&mut options.encryption_started_ms, at_ms);
                end_encryption(options, from_ms);
                options.encryption.push(EncryptionPeriod {
                    key_id,
                    from_ms,
                    until_ms: None,
                });
                let forgotten = options.encryption.len().saturating_sub(PERIODS_MAX);
                options.encryption.drain(..forgotten);
            }
            Setting::EncryptionStopped { at_ms, until_ms } => {
                remember(&mut options.encryption_stopped_ms, at_ms);
                end_encryption(options, until_ms);
            }
            Setting::WarmThroughput(mibps) => options.warm_mibps = mibps,
            Setting::Distribution(distribution) => options.distribution = distribution,
            Setting::Policy(policy) => options.policy = policy,
            Setting::MaxRecordBytes(bytes) => self.max_record_bytes = bytes,
            Setting::Mode { mode, at_ms } => {
                self.mode = mode;
                remember(&mut options.mode_changed_ms, at_ms);
                if mode == StreamMode::Provisioned {
                    options.warm_mibps = None;
                    options.distribution = Distribution::UserPartitionKey;
                }
            }
            Setting::Scaled { at_ms } => remember(&mut options.scaled_ms, at_ms),
        }
    }
}

fn end_encryption(options: &mut Options, until_ms: u64) {
    if let Some(last) = options.encryption.last_mut() {
        last.until_ms.get_or_insert(until_ms);
    }
}

/// Adds a time and forgets those that no limit looks back to.
fn remember(times: &mut Vec<u64>, at_ms: u64) {
    times.retain(|time| time.saturating_add(DAY_MS) > at_ms);
    // More than any limit allows tells nothing more; without limits the list stays short all the same.
    if times.len() >= 100 {
        times.remove(0);
    }
    times.push(at_ms);
}

/// An account's commitment to a least throughput (model: `MinimumThroughputBillingCommitmentOutput`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commitment {
    /// When it began, milliseconds since 1970; `None` if it never did.
    pub started_ms: Option<u64>,
    /// When it ends or ended, if its end was asked for.
    pub ended_ms: Option<u64>,
}

/// The state of a commitment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitmentStatus {
    /// It holds.
    Enabled,
    /// There is none.
    Disabled,
    /// Its end was asked for, but it may not end yet.
    EnabledUntilEarliestEnd,
}

impl Commitment {
    /// Its state at `now_ms`.
    pub fn status(&self, now_ms: u64) -> CommitmentStatus {
        match (self.started_ms, self.ended_ms) {
            (Some(_), None) => CommitmentStatus::Enabled,
            (Some(_), Some(end)) if now_ms < end => CommitmentStatus::EnabledUntilEarliestEnd,
            (None, _) | (Some(_), Some(_)) => CommitmentStatus::Disabled,
        }
    }

    /// Whether what it unlocks may be used.
    pub fn holds(&self, now_ms: u64) -> bool {
        self.status(now_ms) != CommitmentStatus::Disabled
    }

    /// The earliest time it may end, milliseconds since 1970.
    pub fn earliest_end_ms(&self) -> Option<u64> {
        self.started_ms.map(|start| start.saturating_add(DAY_MS))
    }

    /// What it becomes when it is switched on or off at `now_ms`.
    pub(super) fn switched(self, on: bool, now_ms: u64) -> Commitment {
        match (on, self.status(now_ms)) {
            (true, CommitmentStatus::Disabled) => Commitment {
                started_ms: Some(now_ms),
                ended_ms: None,
            },
            (true, _) => Commitment {
                ended_ms: None,
                ..self
            },
            (false, CommitmentStatus::Enabled) => Commitment {
                ended_ms: self.earliest_end_ms().map(|end| end.max(now_ms)),
                ..self
            },
            (false, _) => self,
        }
    }
}
