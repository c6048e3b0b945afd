//! Sealed segments are rewritten: what readers see stays the same, what is no longer kept goes, and what fails
//! changes nothing.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, ManualClock};
use crate::log::plan::SeededBug;
use crate::log::tests::{
    EVERYTHING, Events, NOW_MS, TestLog, batch, create, is_rewritten, open, open_under, open_with,
    read_all, texts, tiny,
};
use crate::log::{
    Compression, Error, Format, LogConfig, LogShard, MemoryDisk, ReadLimit, Rewritten, check,
    segment,
};

const ONE: LogShard = LogShard(1);
const TWO: LogShard = LogShard(2);

fn text(number: u64) -> String {
    format!("{number} {}", "t".repeat(150))
}

/// Appends numbered texts to two shards in turn, one each millisecond.
async fn fill(log: &TestLog, clock: &ManualClock, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let shard = LogShard(1 + number % 2);
        log.append(shard, batch(&[&text(number)])).await.unwrap();
        clock.advance_ms(1);
    }
}

async fn filled(disk: &MemoryDisk, config: LogConfig, records: u64) -> (TestLog, Arc<ManualClock>) {
    let clock = ManualClock::at(NOW_MS);
    let log = open_under(&clock, disk, config, SeededBug::None).unwrap();
    log.commit(create("create", &[1, 2])).await.unwrap();
    fill(&log, &clock, 0..records).await;
    (log, clock)
}

fn expected(shard: u64, numbers: std::ops::Range<u64>) -> Vec<String> {
    let of_shard = numbers.filter(|number| 1 + number % 2 == shard);
    of_shard.map(text).collect()
}

/// Bytes of all segments; the next one may be laid out at any time.
fn segments_bytes(disk: &MemoryDisk) -> u64 {
    let files = disk.contents().into_iter();
    let segments = files.filter(|(name, _)| segment::number(name).is_some());
    segments.map(|(_, file)| segment::as_u64(file.len())).sum()
}

fn rewritten(disk: &MemoryDisk) -> BTreeMap<u64, Vec<u8>> {
    let contents = disk.contents().into_iter();
    contents
        .filter(|(name, file)| is_rewritten(name, file))
        .map(|(name, file)| (segment::number(&name).unwrap(), file))
        .collect()
}

/// All but the active and the newest sealed segment are rewritten, smaller; a second pass finds nothing to do.
#[tokio::test]
async fn sealed_segments_are_packed_once() {
    for compression in [Compression::Zstd, Compression::None] {
        let disk = MemoryDisk::new();
        let config = LogConfig {
            compression,
            ..tiny()
        };
        let (log, _) = filled(&disk, config, 60).await;
        let before_bytes = segments_bytes(&disk);
        let done = log.rewrite(|_| Some(0)).await.unwrap();
        let last = disk
            .contents()
            .keys()
            .filter_map(|name| segment::number(name))
            .max()
            .unwrap();
        let found = rewritten(&disk);
        assert!(
            found.keys().copied().eq(1..last - 1),
            "{:?} of {last}",
            found.keys()
        );
        assert_eq!(done.segments, found.len());
        let after: usize = found.values().map(Vec::len).sum();
        assert_eq!(done.after_bytes, segment::as_u64(after));
        assert_eq!(
            before_bytes - segments_bytes(&disk),
            done.before_bytes - done.after_bytes
        );
        if compression == Compression::Zstd {
            assert!(done.after_bytes * 2 < done.before_bytes, "{done:?}");
        }
        assert_eq!(
            log.rewrite(|_| Some(0)).await.unwrap(),
            Rewritten::default()
        );
        assert!(!disk.contents().contains_key(segment::REWRITE));
        for shard in 1..3 {
            assert_eq!(texts(&log, shard).await, expected(shard, 0..60));
        }
        log.close().await;
        let log = open(&disk).unwrap();
        for shard in 1..3 {
            assert_eq!(texts(&log, shard).await, expected(shard, 0..60));
        }
    }
}

/// Shard 1 keeps everything, shard 2 only what is recent: what lies between is freed, the rest is untouched, and times and
/// counters lead where they should.
#[tokio::test]
async fn s7_rewriting_leaves_out_what_is_old_and_nothing_else() {
    let disk = MemoryDisk::crashable();
    let (log, _) = filled(&disk, tiny(), 80).await;
    let keep = move |shard| (shard == ONE).then_some(0).or(Some(NOW_MS + 41));
    assert_eq!(log.trim(keep).await.unwrap(), 0, "shard 1 keeps the oldest");
    log.rewrite(keep).await.unwrap();
    assert_eq!(texts(&log, 1).await, expected(1, 0..80));
    let left = texts(&log, 2).await;
    assert!(left.ends_with(&expected(2, 41..80)), "{left:?}");
    assert!(
        left.len() < expected(2, 41..80).len() + 9,
        "{} are left",
        left.len()
    );
    let from = log.counter_at(TWO, NOW_MS + 51).await.unwrap();
    let one = ReadLimit {
        records: 1,
        bytes: 1,
    };
    let found = log.read(TWO, from, one, 0).await.unwrap();
    assert_eq!(found[0].time_ms, NOW_MS + 51);
    let found = log.read(TWO, 0, one, NOW_MS + 45).await.unwrap();
    assert_eq!(found[0].time_ms, NOW_MS + 45);

    // Later nothing of shard 2 is kept, and of shard 1 only the first and the last segments are.
    log.rewrite(|shard| (shard == ONE).then_some(0))
        .await
        .unwrap();
    let with_one_alone = segments_bytes(&disk);
    assert_eq!(texts(&log, 1).await, expected(1, 0..80));
    let recent = |shard| (shard == ONE).then_some(NOW_MS + 70);
    log.rewrite(recent).await.unwrap();
    assert!(segments_bytes(&disk) < with_one_alone);
    assert!(texts(&log, 1).await.ends_with(&expected(1, 70..80)));
    for seed in 0..5 {
        let log = open(&disk.crash(seed)).unwrap();
        assert!(texts(&log, 1).await.ends_with(&expected(1, 70..80)));
    }
}

/// A shard that was idle for long keeps its old records readable across segments in which nothing is left.
#[tokio::test]
async fn s7_a_segment_with_nothing_live_is_almost_nothing() {
    let disk = MemoryDisk::new();
    let clock = ManualClock::at(NOW_MS);
    let config = LogConfig {
        segment_bytes: 8192,
        ..tiny()
    };
    let log = open_under(&clock, &disk, config, SeededBug::None).unwrap();
    let shards: Vec<u64> = (1..60).collect();
    log.commit(create("create", &shards)).await.unwrap();
    log.append(ONE, batch(&["old"])).await.unwrap();
    for number in 0..300 {
        clock.advance_ms(1);
        log.append(TWO, batch(&[&text(number)])).await.unwrap();
    }
    log.append(ONE, batch(&["new"])).await.unwrap();
    let now_ms = clock.now_ms();
    let keep = move |shard| Some(if shard == ONE { 0 } else { now_ms });
    assert_eq!(log.trim(keep).await.unwrap(), 0);
    log.rewrite(keep).await.unwrap();
    let found = rewritten(&disk);
    assert!(found.len() > 5);
    for (number, file) in found.iter().skip(1) {
        assert!(
            file.len() < 120,
            "segment {number} has {} bytes",
            file.len()
        );
    }
    assert_eq!(texts(&log, 1).await, ["old", "new"]);
    let from = log.counter_at(ONE, NOW_MS + 1).await.unwrap();
    let found = log.read(ONE, from, EVERYTHING, 0).await.unwrap();
    assert_eq!(found[0].data(), b"new");
    // Once the old record may go, so may all of them.
    let trimmed = log.trim(move |_| Some(now_ms)).await.unwrap();
    assert!(trimmed > 5, "{trimmed}");
    assert_eq!(texts(&log, 1).await, ["new"]);
}

/// While one appends, another rewrites and trims: readers in small steps see every record that is kept once and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn s3_readers_go_on_while_segments_are_swapped() {
    const RECORDS: u64 = 3_000;
    let disk = MemoryDisk::new();
    let clock = ManualClock::at(NOW_MS);
    let log = open_under(&clock, &disk, tiny(), SeededBug::None).unwrap();
    log.commit(create("create", &[1, 2])).await.unwrap();
    let rewriting = tokio::spawn({
        let (log, clock) = (log.clone(), Arc::clone(&clock));
        async move {
            let mut segments = 0;
            while log.tail(ONE).unwrap().last_time_ms + 2 < NOW_MS + RECORDS {
                let young_ms = clock.now_ms() - 100;
                let keep = move |shard| Some(if shard == ONE { 0 } else { young_ms });
                segments += log.rewrite(keep).await.unwrap().segments;
                log.trim(keep).await.unwrap();
            }
            segments
        }
    });
    let readers = [1, 7, 200].map(|records| {
        let log = log.clone();
        tokio::spawn(async move {
            let limit = ReadLimit {
                records,
                bytes: 3000,
            };
            let (mut from, mut number) = (0, 0);
            while number < RECORDS {
                log.wait_for(ONE, from).await;
                for record in log.read(ONE, from, limit, 0).await.unwrap().iter() {
                    assert_eq!(record.data(), text(number).as_bytes());
                    (from, number) = (record.counter + 1, number + 2);
                }
            }
        })
    });
    fill(&log, &clock, 0..RECORDS).await;
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(rewriting.await.unwrap() > 0);
    assert_eq!(texts(&log, 1).await, expected(1, 0..RECORDS));
}

/// A rewriting that would lose a record is noticed before anything is replaced.
#[tokio::test]
async fn s1_a_rewriting_that_loses_a_record_is_thrown_away() {
    let disk = MemoryDisk::new();
    drop(filled(&disk, tiny(), 60).await);
    let before = disk.contents();
    let log = open_with(&disk, tiny(), SeededBug::LoseInRewriting).unwrap();
    let error = log.rewrite(|_| Some(0)).await.unwrap_err();
    assert!(error.to_string().contains("left out"), "{error}");
    let mut same = 0;
    for (name, file) in disk.contents() {
        same += usize::from(before.get(&name) == Some(&file) && !is_rewritten(&name, &file));
    }
    assert!(same > 3, "{same} segments are as they were");
    assert!(!disk.contents().contains_key(segment::REWRITE));
    for shard in 1..3 {
        assert_eq!(texts(&log, shard).await, expected(shard, 0..60));
    }
}

/// The files of segments that were rewritten become the next ones, whether the log is closed, killed or cut off meanwhile; nothing
/// of what was in them is found again.
#[tokio::test]
async fn files_of_rewritten_segments_are_used_again() {
    let mut disk = MemoryDisk::crashable();
    let clock = ManualClock::at(NOW_MS);
    let mut log = open_under(&clock, &disk, tiny(), SeededBug::None).unwrap();
    log.commit(create("create", &[1, 2])).await.unwrap();
    let mut used_again = 0;
    for turn in 0..40 {
        fill(&log, &clock, turn * 7..turn * 7 + 7).await;
        log.rewrite(|_| Some(0)).await.unwrap();
        let left = check::<Events>(&disk).unwrap();
        assert_eq!(left.findings, [], "turn {turn}");
        used_again += left
            .notes
            .iter()
            .filter(|note| note.text.contains("left by an earlier segment"))
            .count();
        if turn % 2 == 0 {
            if turn % 3 == 0 {
                log.close().await;
            }
            disk = disk.crash(turn);
            log = open_under(&clock, &disk, tiny(), SeededBug::None).unwrap();
        }
        for shard in 1..3 {
            assert_eq!(
                texts(&log, shard).await,
                expected(shard, 0..turn * 7 + 7),
                "turn {turn}"
            );
        }
    }
    assert!(used_again > 5, "{used_again}");
    assert_eq!(disk.format(), Format::Recycled);
}

/// Whatever is wrong with the new file when it is read back, it does not take the old one's place.
#[tokio::test]
async fn s8_a_new_file_that_came_out_wrong_is_thrown_away() {
    let count = {
        let disk = MemoryDisk::new();
        let (log, _) = filled(&disk, tiny(), 30).await;
        let before = disk.operations();
        log.rewrite(|_| Some(0)).await.unwrap();
        disk.operations() - before
    };
    assert!(count > 20);
    for failed in 0..count {
        let disk = MemoryDisk::new();
        let (log, _) = filled(&disk, tiny(), 30).await;
        disk.fail_once(disk.operations() + failed, ErrorKind::Other);
        // The laying out of a spare may be what it hits.
        let _ = log.rewrite(|_| Some(0)).await;
        disk.repair();
        for shard in 1..3 {
            assert_eq!(texts(&log, shard).await, expected(shard, 0..30), "{failed}");
        }
        log.rewrite(|_| Some(0)).await.unwrap();
        assert!(!disk.contents().contains_key(segment::REWRITE), "{failed}");
        for shard in 1..3 {
            assert_eq!(texts(&log, shard).await, expected(shard, 0..30), "{failed}");
        }
    }
}

/// On a full disk the attempt is given up, puts and reads go on, and once there is room it is made again.
#[tokio::test]
async fn disk_full_while_rewriting_harms_nothing() {
    let disk = MemoryDisk::new();
    let (log, clock) = filled(&disk, tiny(), 60).await;
    // The spare is laid out by now or will be.
    while !disk.contents().contains_key(segment::SPARE) {
        tokio::task::yield_now().await;
    }
    disk.set_capacity(Some(disk.used_bytes() + 50));
    let error = log.rewrite(|_| Some(0)).await.unwrap_err();
    assert!(
        matches!(&error, Error::Io { source, .. } if source.kind() == ErrorKind::StorageFull),
        "{error}"
    );
    assert!(!log.is_poisoned());
    assert!(rewritten(&disk).is_empty());
    assert!(!disk.contents().contains_key(segment::REWRITE));
    fill(&log, &clock, 60..62).await;
    disk.set_capacity(None);
    assert!(log.rewrite(|_| Some(0)).await.unwrap().segments > 3);
    for shard in 1..3 {
        assert_eq!(texts(&log, shard).await, expected(shard, 0..62));
    }
}

/// Reading record by record reads each block about once.
#[tokio::test]
async fn small_pages_do_not_read_a_block_again() {
    let disk = MemoryDisk::new();
    let config = LogConfig {
        compression: Compression::None,
        footer_cache_bytes: 1 << 20,
        tail_cache_bytes: 0,
        ..tiny()
    };
    let (log, _) = filled(&disk, config, 100).await;
    log.rewrite(|_| Some(0)).await.unwrap();
    let one = ReadLimit {
        records: 1,
        bytes: usize::MAX,
    };
    read_all(&log, ONE, one).await.unwrap();
    let before = disk.read_bytes();
    let all = read_all(&log, ONE, one).await.unwrap();
    let own: usize = all.iter().map(|(_, text)| text.len() + 10).sum();
    let read = disk.read_bytes() - before;
    assert!(
        read < segment::as_u64(own) * 3 / 2,
        "{read} bytes for {own}"
    );
}

/// A pass that would take days ends when the log is closed.
#[tokio::test]
async fn s10_closing_ends_a_pass() {
    let config = LogConfig {
        rewrite_bytes_per_second: 1,
        segment_bytes: 1 << 20,
        ..tiny()
    };
    let log = open_with(&MemoryDisk::new(), config, SeededBug::None).unwrap();
    log.commit(create("create", &[1])).await.unwrap();
    let large = "x".repeat(40_000);
    for _ in 0..80 {
        log.append(ONE, batch(&[&large])).await.unwrap();
    }
    let pass = tokio::spawn({
        let log = log.clone();
        async move { log.rewrite(|_| Some(0)).await }
    });
    tokio::task::yield_now().await;
    tokio::time::timeout(Duration::from_secs(30), log.close())
        .await
        .expect("the pass is ended");
    assert!(matches!(pass.await.unwrap(), Err(Error::Closed)));
    assert!(matches!(log.rewrite(|_| Some(0)).await, Err(Error::Closed)));
}

/// A segment that is trimmed while it is being rewritten does not come back.
#[tokio::test]
async fn s8_a_segment_that_was_trimmed_meanwhile_stays_gone() {
    let disk = MemoryDisk::new();
    let (log, _) = filled(&disk, tiny(), 60).await;
    disk.hold_syncs(true);
    let pass = tokio::spawn({
        let log = log.clone();
        async move { log.rewrite(|_| Some(0)).await }
    });
    while !disk.contents().contains_key(segment::REWRITE) {
        tokio::task::yield_now().await;
    }
    let trimmed = log.trim(|_| None).await.unwrap();
    assert!(trimmed > 3);
    disk.hold_syncs(false);
    pass.await.unwrap().unwrap();
    let contents = disk.contents();
    let mut numbers = contents.keys().filter_map(|name| segment::number(name));
    assert_eq!(numbers.next(), Some(1 + segment::as_u64(trimmed)));
    assert!(!contents.contains_key(segment::REWRITE));
    log.close().await;
    open(&disk).unwrap();
}
