//! What the log guarantees, by the names the design gives its guarantees. Every suite runs on the
//! disk in memory that can crash, fail and fill up; `service` also on a real one.

/// Ends a check with a report.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition { return Err(format!($($message)+)); }
    };
}

mod book;
mod crash;
mod damage;
mod faults;
mod fixture;
mod growth;
mod life;
mod linearizable;
mod model;
mod points;
mod power;
mod repairing;
mod rewriting;
mod service;
mod traced_disk;
mod two_faults;

use std::sync::Arc;

use crate::clock::ManualClock;
use crate::log::plan::SeededBug;
use crate::log::{
    Error, Log, LogConfig, LogShard, MemoryDisk, Metadata, MetadataError, ReadLimit, RecordBatch,
    Transaction, segment,
};

pub(super) const NOW_MS: u64 = 1_700_000_000_000;
pub(super) const EVERYTHING: ReadLimit = ReadLimit {
    records: usize::MAX,
    bytes: usize::MAX,
};

/// Metadata that remembers every event; an event that begins with `!` is refused half way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Events(pub(super) Vec<String>);

impl Metadata for Events {
    fn apply(&mut self, event: &[u8]) -> Result<(), MetadataError> {
        let event = String::from_utf8_lossy(event).into_owned();
        let refused = event.starts_with('!');
        self.0.push(event);
        if refused {
            Err(MetadataError("refused".to_owned()))
        } else {
            Ok(())
        }
    }

    fn encode(&self) -> Vec<u8> {
        self.0.join("\n").into_bytes()
    }

    fn decode(bytes: &[u8]) -> Result<Self, MetadataError> {
        let text = String::from_utf8(bytes.to_vec()).map_err(|e| MetadataError(e.to_string()))?;
        Ok(Events(text.lines().map(str::to_owned).collect()))
    }
}

pub(super) type TestLog = Log<Events>;

pub(super) fn tiny() -> LogConfig {
    LogConfig {
        segment_bytes: 2048,
        queue_bytes: 1 << 16,
        tail_cache_bytes: 1500,
        footer_cache_bytes: 1500,
        block_cache_bytes: 20_000,
        rewrite_bytes_per_second: 0,
        ..LogConfig::default()
    }
}

pub(super) fn open(disk: &MemoryDisk) -> Result<TestLog, Error> {
    open_with(disk, tiny(), SeededBug::None)
}

pub(super) fn open_with(
    disk: &MemoryDisk,
    config: LogConfig,
    bug: SeededBug,
) -> Result<TestLog, Error> {
    open_under(&ManualClock::at(NOW_MS), disk, config, bug)
}

pub(super) fn open_under(
    clock: &Arc<ManualClock>,
    disk: &MemoryDisk,
    config: LogConfig,
    bug: SeededBug,
) -> Result<TestLog, Error> {
    let (disk, clock) = (Arc::new(disk.clone()), Arc::clone(clock));
    Log::open_with(disk, config, clock, &Events::default(), bug)
}

pub(super) fn create(event: &str, shards: &[u64]) -> Transaction {
    let create = shards.iter().copied().map(LogShard).collect();
    Transaction {
        event: event.to_owned().into(),
        create,
        ..Transaction::default()
    }
}

pub(super) fn seal(event: &str, shards: &[u64]) -> Transaction {
    let seal = shards.iter().copied().map(LogShard).collect();
    Transaction {
        event: event.to_owned().into(),
        seal,
        ..Transaction::default()
    }
}

pub(super) fn batch(texts: &[&str]) -> RecordBatch {
    let mut batch = RecordBatch::new();
    for text in texts {
        batch.push("key", text.as_bytes());
    }
    batch
}

/// Counter and data of every record of a shard, read in small steps.
pub(super) async fn read_all(
    log: &TestLog,
    shard: LogShard,
    limit: ReadLimit,
) -> Result<Vec<(u64, String)>, Error> {
    let mut all = Vec::new();
    let mut from = 0;
    loop {
        let records = log.read(shard, from, limit, 0).await?;
        let Some(last) = records.last() else {
            return Ok(all);
        };
        from = last.counter + 1;
        all.extend(records.iter().map(|record| {
            (
                record.counter,
                String::from_utf8(record.data().to_vec()).unwrap(),
            )
        }));
    }
}

/// What a check found to be wrong.
pub(super) type Report = Result<(), String>;

/// A record as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) counter: u64,
    pub(super) time_ms: u64,
    pub(super) text: String,
}

/// Every record that is not too old, read in small steps.
pub(super) async fn read_every(
    log: &TestLog,
    shard: LogShard,
    limit: ReadLimit,
    not_before_ms: u64,
) -> Result<Vec<Kept>, Error> {
    let (mut all, mut from) = (Vec::new(), 0);
    loop {
        let records = log.read(shard, from, limit, not_before_ms).await?;
        let Some(last) = records.last() else {
            return Ok(all);
        };
        from = last.counter + 1;
        all.extend(records.iter().map(|record| Kept {
            counter: record.counter,
            time_ms: record.time_ms,
            text: String::from_utf8(record.data().to_vec()).unwrap(),
        }));
    }
}

/// How many rounds a suite makes: `short`, or `long` with `MILLSTREAM_LONG=1`, or what this variable says.
pub(super) fn rounds(variable: &str, short: u64, long: u64) -> u64 {
    if let Ok(given) = std::env::var(variable) {
        return given.parse().expect("a number of rounds");
    }
    let is_long = std::env::var("MILLSTREAM_LONG").is_ok_and(|value| value == "1");
    if is_long { long } else { short }
}

/// The data alone.
pub(super) async fn texts(log: &TestLog, shard: u64) -> Vec<String> {
    let all = read_all(log, LogShard(shard), EVERYTHING).await.unwrap();
    all.into_iter().map(|(_, text)| text).collect()
}

/// Whether a file's content is that of a rewritten segment: it does not begin with a snapshot.
pub(super) fn is_rewritten(name: &str, content: &[u8]) -> bool {
    segment::number(name).is_some() && !content.starts_with(b"MSF\x01")
}
