//! What stays the same however much there is: bounds of indexes and footers, and what a first start lays out.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::clock::ManualClock;
use crate::log::plan::SeededBug;
use crate::log::tests::{
    EVERYTHING, Events, NOW_MS, batch, create, open_with, read_all, texts, tiny,
};
use crate::log::{Disk, DiskFile, Format, Log, LogConfig, LogShard, MemoryDisk, segment};

const ONE: LogShard = LogShard(1);

/// A disk that counts how often a sealed segment is opened.
#[derive(Debug)]
struct CountingDisk {
    disk: MemoryDisk,
    opened: AtomicUsize,
}

impl Disk for CountingDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str, len_bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(name, len_bytes)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.disk.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.disk.sync_directory()
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.link(from, to)
    }
    fn raise_format(&self, format: Format) -> io::Result<()> {
        self.disk.raise_format(format)
    }
}

fn numbered(disk: &MemoryDisk) -> usize {
    let contents = disk.contents();
    let names = contents.keys();
    names.filter(|name| segment::number(name).is_some()).count()
}

/// The index of the active segment and the footers of the others stay small, however small the records are.
#[tokio::test]
async fn s6_the_runs_of_a_segment_are_bounded() {
    let disk = MemoryDisk::new();
    let config = LogConfig {
        segment_bytes: 1 << 16,
        segment_runs: 10,
        ..tiny()
    };
    let log = open_with(&disk, config, SeededBug::None).unwrap();
    let shards: Vec<u64> = (1..=25).collect();
    log.commit(create("create", &shards)).await.unwrap();
    let mut expected = Vec::new();
    for number in 0..95 {
        let text = number.to_string();
        log.append(ONE, batch(&[&text])).await.unwrap();
        expected.push(text);
    }
    assert_eq!(numbered(&disk), 10, "ten runs each");
    // One commit may have more: it is not taken apart.
    let many = shards
        .iter()
        .map(|shard| (LogShard(*shard), batch(&["many"])));
    let appended = log.append_all(many.collect()).await.unwrap();
    assert!(appended.iter().all(Result::is_ok));
    expected.push("many".to_owned());
    log.append(ONE, batch(&["last"])).await.unwrap();
    expected.push("last".to_owned());
    assert_eq!(numbered(&disk), 12);
    assert_eq!(texts(&log, 1).await, expected);
    log.close().await;
    let log = open_with(&disk, config, SeededBug::None).unwrap();
    assert_eq!(texts(&log, 1).await, expected);
    assert_eq!(texts(&log, 25).await, ["many"]);
}

/// A footer that many readers want at once is read once, even where the cache has room for none.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s6_readers_at_once_share_one_reading_of_a_footer() {
    let disk = MemoryDisk::new();
    let config = LogConfig {
        footer_cache_bytes: 1,
        tail_cache_bytes: 1,
        segment_runs: 50,
        segment_bytes: 1 << 16,
        ..tiny()
    };
    let log = open_with(&disk, config, SeededBug::None).unwrap();
    log.commit(create("create", &[1])).await.unwrap();
    for number in 0..60 {
        let text = number.to_string();
        log.append(ONE, batch(&[&text])).await.unwrap();
    }
    log.close().await;
    let counting = Arc::new(CountingDisk {
        disk,
        opened: AtomicUsize::new(0),
    });
    let clock = ManualClock::at(NOW_MS);
    let opened = Arc::clone(&counting) as Arc<dyn Disk>;
    let log = Log::open(opened, config, clock, Events::default()).unwrap();
    let before = counting.opened.load(Ordering::Relaxed);
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let log = log.clone();
        readers.spawn(async move { read_all(&log, ONE, EVERYTHING).await.unwrap().len() });
    }
    while let Some(read) = readers.join_next().await {
        assert_eq!(read.unwrap(), 60);
    }
    assert_eq!(counting.opened.load(Ordering::Relaxed) - before, 1);
}

/// Laying out a whole segment takes longer than all else that a first start does, so the first one is small.
#[tokio::test]
async fn a_first_start_lays_out_little_and_goes_on_in_whole_segments() {
    const SEGMENT_BYTES: usize = 8 << 20;
    let disk = MemoryDisk::new();
    let config = LogConfig {
        segment_bytes: SEGMENT_BYTES.try_into().unwrap(),
        queue_bytes: 1 << 20,
        ..tiny()
    };
    let log = open_with(&disk, config, SeededBug::None).unwrap();
    log.commit(create("create", &[1])).await.unwrap();
    assert_eq!(disk.contents()[&segment::name(1)].len(), 1 << 20);
    let large = "x".repeat(300_000);
    for _ in 0..5 {
        log.append(ONE, batch(&[&large])).await.unwrap();
    }
    let contents = disk.contents();
    assert!(contents[&segment::name(1)].len() <= 1 << 20);
    assert_eq!(contents[&segment::name(2)].len(), SEGMENT_BYTES);
    assert_eq!(texts(&log, 1).await, vec![large; 5]);
}
