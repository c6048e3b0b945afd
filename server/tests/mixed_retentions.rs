//! What the log takes on disk while its shards keep their records for different times, and what replaying one of many
//! shards reads. With the blocks of the product, on a disk in memory that counts, and on a real one; segments are smaller
//! where only shares of them matter.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "in helpers of tests, too; the ratios that were found are printed"
)]

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use millstream_server::clock::{Clock, ManualClock};
use millstream_server::log::{
    Disk, Durability, Log, LogConfig, LogShard, MemoryDisk, Metadata, MetadataError, ReadLimit,
    ReadRecord, RealDisk, RecordBatch, Transaction,
};

const NOW_MS: u64 = 1_750_000_000_000;
const HOUR_MS: u64 = 3_600_000;
const PAGE: ReadLimit = ReadLimit {
    records: 10_000,
    bytes: 10 << 20,
};

#[derive(Debug, Clone)]
struct Nothing;

impl Metadata for Nothing {
    fn apply(&mut self, _event: &[u8]) -> Result<(), MetadataError> {
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        Vec::new()
    }

    fn decode(_bytes: &[u8]) -> Result<Self, MetadataError> {
        Ok(Nothing)
    }
}

fn config(segment_bytes: u64) -> LogConfig {
    LogConfig {
        segment_bytes,
        durability: Durability::None,
        tail_cache_bytes: 0,
        rewrite_bytes_per_second: 0,
        ..LogConfig::default()
    }
}

async fn open(
    disk: Arc<dyn Disk>,
    config: LogConfig,
    clock: &Arc<ManualClock>,
    shards: u64,
) -> Log<Nothing> {
    let log = Log::open(disk, config, Arc::clone(clock) as _, Nothing).unwrap();
    let create = (1..=shards).map(LogShard).collect();
    let transaction = Transaction {
        create,
        ..Transaction::default()
    };
    log.commit(transaction).await.unwrap();
    log
}

/// How well records can be compressed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Content {
    Noise,
    Text,
}

impl Content {
    fn data(self, random: &mut fastrand::Rng, bytes: usize) -> Vec<u8> {
        match self {
            Content::Noise => (0..bytes).map(|_| random.u8(..)).collect(),
            Content::Text => {
                let mut text = String::new();
                while text.len() < bytes {
                    let (id, level) = (random.u32(0..1_000_000), random.u8(0..4));
                    writeln!(
                        text,
                        "{{\"id\":{id},\"level\":{level},\"state\":\"delivered\"}}"
                    )
                    .unwrap();
                }
                text.truncate(bytes);
                text.into_bytes()
            }
        }
    }
}

/// Shards that keep their records for an hour, ten hours and a hundred, and what was put into each.
struct Mixed {
    log: Log<Nothing>,
    clock: Arc<ManualClock>,
    random: fastrand::Rng,
    /// Time and bytes of each record, by shard.
    put: BTreeMap<u64, Vec<(u64, u64)>>,
}

const RETENTIONS: [u64; 3] = [HOUR_MS, 10 * HOUR_MS, 100 * HOUR_MS];
const SHARDS: u64 = 12;

fn retention_ms(shard: u64) -> u64 {
    // Few keep their records for long.
    match shard {
        1 => RETENTIONS[2],
        2..=4 => RETENTIONS[1],
        _ => RETENTIONS[0],
    }
}

impl Mixed {
    async fn over(disk: Arc<dyn Disk>, config: LogConfig) -> Mixed {
        let clock = ManualClock::at(NOW_MS);
        let log = open(disk, config, &clock, SHARDS).await;
        let (random, put) = (fastrand::Rng::with_seed(7), BTreeMap::new());
        Mixed {
            log,
            clock,
            random,
            put,
        }
    }

    async fn put(&mut self, content: Content) {
        let shard = self.random.u64(1..=SHARDS);
        let mut batch = RecordBatch::new();
        let mut bytes = 0;
        for _ in 0..self.random.usize(1..8) {
            let length = self.random.usize(400..1600);
            batch.push("partition key", &content.data(&mut self.random, length));
            bytes += length + 13;
        }
        let appended = self.log.append(LogShard(shard), batch).await.unwrap();
        let bytes = u64::try_from(bytes).unwrap();
        self.put
            .entry(shard)
            .or_default()
            .push((appended.time_ms, bytes));
    }

    fn retained_bytes(&self) -> u64 {
        let now_ms = self.clock.now_ms();
        let of_shard = |(shard, put): (&u64, &Vec<(u64, u64)>)| {
            let kept = put
                .iter()
                .filter(|(time_ms, _)| time_ms + retention_ms(*shard) >= now_ms);
            kept.map(|(_, bytes)| bytes).sum::<u64>()
        };
        self.put.iter().map(of_shard).sum()
    }

    async fn sweep(&self) {
        let now_ms = self.clock.now_ms();
        let keep = move |shard: LogShard| Some(now_ms - retention_ms(shard.0));
        self.log.trim(keep).await.unwrap();
        self.log.rewrite(keep).await.unwrap();
    }

    /// Every record that must be there is, in order, and no older one is served.
    async fn check(&self) {
        for (shard, put) in &self.put {
            let horizon_ms = self.clock.now_ms() - retention_ms(*shard);
            let kept = put.iter().filter(|(time_ms, _)| *time_ms >= horizon_ms);
            let kept: u64 = kept.map(|(_, bytes)| bytes).sum();
            let (mut from, mut found) = (0, 0);
            loop {
                let page = self
                    .log
                    .read(LogShard(*shard), from, PAGE, horizon_ms)
                    .await
                    .unwrap();
                let Some(last) = page.last() else { break };
                assert!(page[0].time_ms >= horizon_ms);
                from = last.counter + 1;
                found += page.iter().map(ReadRecord::len_bytes).sum::<usize>();
            }
            assert_eq!(u64::try_from(found).unwrap(), kept, "shard {shard}");
        }
    }
}

#[derive(Clone, Copy)]
struct Ratio(u64, u64);

impl Ratio {
    fn raise(&mut self, part: u64, whole: u64) {
        if part * self.1 > self.0 * whole {
            *self = Ratio(part, whole);
        }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / self.1, self.0 * 100 / self.1 % 100)
    }
}

/// At most 1.25 times what is retained, and two segments: after each sweep, and, as soon as there is more than a few segments,
/// at any moment.
async fn stays_bounded(
    disk: Arc<dyn Disk>,
    used_bytes: impl Fn() -> [u64; 2],
    content: Content,
    rounds: u32,
) {
    const SEGMENT_BYTES: u64 = 256 << 10;
    let mut mixed = Mixed::over(disk, config(SEGMENT_BYTES)).await;
    let (mut worst, mut worst_peak) = (Ratio(0, 1), Ratio(0, 1));
    for round in 0..rounds {
        for _ in 0..6 {
            mixed.put(content).await;
            mixed.clock.advance_ms(HOUR_MS / 60);
        }
        let before = mixed.retained_bytes();
        mixed.sweep().await;
        let (retained, [used, peak]) = (mixed.retained_bytes(), used_bytes());
        let beyond = [used, peak].map(|bytes| bytes.saturating_sub(2 * SEGMENT_BYTES));
        worst.raise(beyond[0], retained);
        if retained > 6 * SEGMENT_BYTES {
            worst_peak.raise(beyond[1], before);
        }
        assert!(
            beyond[0] * 4 <= retained * 5,
            "{content:?}, round {round}: {used} bytes on disk for {retained} retained"
        );
        if round % 200 == 199 {
            mixed.check().await;
        }
    }
    println!(
        "{content:?}: {worst} times what is retained at most, and two segments; {worst_peak} at any moment"
    );
    assert!(
        worst_peak.0 * 4 <= worst_peak.1 * 5,
        "{content:?}: {worst_peak} at a moment"
    );
    mixed.log.close().await;
}

#[tokio::test]
async fn s7_disk_stays_near_what_is_retained() {
    for content in [Content::Noise, Content::Text] {
        let disk = MemoryDisk::new();
        let counted = disk.clone();
        let used_bytes = move || {
            let peak = counted.take_peak_bytes();
            [counted.used_bytes(), peak]
        };
        stays_bounded(Arc::new(disk), used_bytes, content, 1200).await;
    }
}

fn files_bytes(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum()
}

#[tokio::test]
async fn s7_a_real_directory_stays_near_what_is_retained() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::open(directory.path()).unwrap());
    let path = directory.path().to_owned();
    let used_bytes = move || [files_bytes(&path); 2];
    // Less than a day: every sweep syncs files.
    stays_bounded(disk, used_bytes, Content::Noise, 200).await;
}

/// A thousand shards written by turns: replaying one of them reads at most twice its own bytes from sealed segments that
/// have been rewritten, footers and the search for its place included.
#[tokio::test]
async fn replaying_one_of_a_thousand_shards_reads_its_own_bytes_twice_at_most() {
    const SHARDS: u64 = 1000;
    const RECORD_BYTES: usize = 4000;
    const ROUNDS: u64 = 90;
    for content in [Content::Noise, Content::Text] {
        let disk = MemoryDisk::new();
        let segment_bytes = LogConfig::default().segment_bytes;
        let clock = ManualClock::at(NOW_MS);
        let mut random = fastrand::Rng::with_seed(3);
        let pool = content.data(&mut random, 8 << 20);
        let log = open(
            Arc::new(disk.clone()),
            config(segment_bytes),
            &clock,
            SHARDS,
        )
        .await;
        for _ in 0..ROUNDS {
            clock.advance_ms(1000);
            let batches = (1..=SHARDS).map(|shard| {
                let at = random.usize(..pool.len() - RECORD_BYTES);
                let mut batch = RecordBatch::new();
                batch.push("k", &pool[at..at + RECORD_BYTES]);
                (LogShard(shard), batch)
            });
            for result in log.append_all(batches.collect()).await.unwrap() {
                result.unwrap();
            }
        }
        let rewritten = log.rewrite(|_| Some(0)).await.unwrap();
        log.close().await;
        let log = Log::open(
            Arc::new(disk.clone()),
            config(segment_bytes),
            clock,
            Nothing,
        )
        .unwrap();
        // The newest sealed segment is not rewritten yet.
        let segments = u64::try_from(rewritten.segments).unwrap();
        assert!(segments >= 3, "{rewritten:?}");
        let records_of_each = segment_bytes / (SHARDS * 4000 + 100_000);
        let (mut from, mut own_bytes, mut records) = (0, 0, 0);
        let before = disk.read_bytes();
        while records + 5 <= segments * records_of_each {
            let limit = ReadLimit { records: 5, ..PAGE };
            let page = log.read(LogShard(500), from, limit, 0).await.unwrap();
            own_bytes += page.iter().map(ReadRecord::len_bytes).sum::<usize>();
            records += u64::try_from(page.len()).unwrap();
            from = page.last().unwrap().counter + 1;
        }
        let own_bytes = u64::try_from(own_bytes).unwrap();
        let read_bytes = disk.read_bytes() - before;
        let ratio = Ratio(read_bytes, own_bytes);
        println!("{content:?}: {rewritten:?}; {ratio} times its own {own_bytes} bytes");
        assert!(read_bytes <= 2 * own_bytes, "{content:?}: {ratio}");
    }
}
