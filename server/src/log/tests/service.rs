//! What callers see while all is well, while it is busy, and while the disk refuses.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{ManualClock, SystemClock};
use crate::log::frame::frame_bytes;
use crate::log::plan::{EPOCH_SHIFT, SeededBug};
use crate::log::reader::Request;
use crate::log::records::RUN_HEAD_BYTES;
use crate::log::tests::{
    EVERYTHING, Events, NOW_MS, TestLog, batch, create, open, open_with, read_all, seal, texts,
    tiny,
};
use crate::log::{
    Durability, Error, Log, LogConfig, LogShard, MemoryDisk, ReadLimit, RealDisk, Transaction,
    segment,
};

const ONE: LogShard = LogShard(1);

async fn with_shard_one(disk: &MemoryDisk, config: LogConfig) -> TestLog {
    let log = open_with(disk, config, SeededBug::None).unwrap();
    log.commit(create("create", &[1])).await.unwrap();
    log
}

/// Four writers and a reader that follows: it sees every counter in order, none twice, none missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn s3_visible_in_order_and_once_while_written() {
    const EACH: usize = 200;
    let log = with_shard_one(&MemoryDisk::new(), tiny()).await;
    let writers = (0..4).map(|writer| {
        let log = log.clone();
        tokio::spawn(async move {
            for number in 0..EACH {
                log.append(ONE, batch(&[&format!("{writer} {number}")]))
                    .await
                    .unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut seen: Vec<(u64, String)> = Vec::new();
    let mut from = 0;
    while seen.len() < 4 * EACH {
        log.wait_for(ONE, from).await;
        let records = log
            .read(
                ONE,
                from,
                ReadLimit {
                    records: 7,
                    bytes: 400,
                },
                0,
            )
            .await
            .unwrap();
        assert!(!records.is_empty(), "woken for something");
        for record in records.iter() {
            assert!(
                from == 0 || record.counter == from,
                "{} after {from}",
                record.counter
            );
            from = record.counter + 1;
            seen.push((
                record.counter,
                String::from_utf8(record.data().to_vec()).unwrap(),
            ));
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    for writer in 0..4 {
        let own = seen
            .iter()
            .filter(|(_, text)| text.starts_with(&format!("{writer} ")));
        let expected = (0..EACH).map(|number| format!("{writer} {number}"));
        assert!(
            own.map(|(_, text)| text.clone()).eq(expected),
            "writer {writer} in its order"
        );
    }
    assert_eq!(read_all(&log, ONE, EVERYTHING).await.unwrap(), seen);
}

/// While the sync is under way nothing can be read, and nobody is answered.
#[tokio::test]
async fn s3_nothing_is_visible_before_it_is_durable() {
    let disk = MemoryDisk::crashable();
    let log = with_shard_one(&disk, tiny()).await;
    disk.hold_syncs(true);
    let before = disk.operations();
    let appending = tokio::spawn({
        let log = log.clone();
        async move { log.append(ONE, batch(&["early"])).await }
    });
    while disk.operations() == before {
        tokio::task::yield_now().await;
    }
    assert_eq!(log.tail(ONE).unwrap().next, 0);
    assert!(log.read(ONE, 0, EVERYTHING, 0).await.unwrap().is_empty());
    assert!(!appending.is_finished());
    disk.hold_syncs(false);
    let appended = appending.await.unwrap().unwrap();
    assert_eq!(log.tail(ONE).unwrap().next, appended.first + 1);
    assert_eq!(texts(&log, 1).await, ["early"]);
}

/// Writers race a seal: what was answered is in the shard, and nothing comes after the seal.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn s5_nothing_after_seal() {
    for _ in 0..20 {
        let log = with_shard_one(&MemoryDisk::new(), tiny()).await;
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let log = log.clone();
                tokio::spawn(async move {
                    let mut counters = Vec::new();
                    loop {
                        match log.append(ONE, batch(&[&format!("{writer}")])).await {
                            Ok(appended) => counters.push(appended.first),
                            Err(Error::Sealed(ONE)) => return counters,
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            })
            .collect();
        log.wait_for(ONE, 1).await;
        log.commit(seal("seal", &[1])).await.unwrap();
        let end = log.tail(ONE).unwrap();
        assert!(end.sealed);
        let mut answered = Vec::new();
        for writer in writers {
            answered.extend(writer.await.unwrap());
        }
        answered.sort_unstable();
        let found = read_all(&log, ONE, EVERYTHING).await.unwrap();
        assert!(
            found
                .iter()
                .map(|(counter, _)| *counter)
                .eq(answered.iter().copied())
        );
        assert_eq!(log.tail(ONE).unwrap(), end);
        log.wait_for(ONE, u64::MAX).await;
    }
}

/// A transaction is all or nothing, and what it refuses leaves no trace.
#[tokio::test]
async fn transactions_apply_together_or_not_at_all() {
    let disk = MemoryDisk::new();
    let log = with_shard_one(&disk, tiny()).await;
    let mut reshard = create("reshard", &[2, 3]);
    reshard.seal.push(ONE);
    log.commit(reshard.clone()).await.unwrap();
    assert!(log.tail(ONE).unwrap().sealed);
    assert!(matches!(
        log.commit(reshard).await,
        Err(Error::Exists(LogShard(2)))
    ));
    let mut half = create("half", &[4]);
    half.seal.push(LogShard(9));
    assert!(matches!(
        log.commit(half).await,
        Err(Error::Unknown(LogShard(9)))
    ));
    assert!(matches!(
        log.commit(create("!no", &[5])).await,
        Err(Error::Metadata(_))
    ));
    assert_eq!((log.tail(LogShard(4)), log.tail(LogShard(5))), (None, None));
    assert_eq!(log.metadata().0, ["create", "reshard"]);
    log.close().await;
    let log = open(&disk).unwrap();
    assert_eq!(log.metadata().0, ["create", "reshard"]);
    assert!(log.tail(ONE).unwrap().sealed && log.tail(LogShard(3)).is_some());
}

/// After a failed sync writes are refused, reads go on, and the sync is not tried again.
#[tokio::test]
async fn poisoned_after_failed_sync() {
    let disk = MemoryDisk::crashable();
    let log = with_shard_one(&disk, tiny()).await;
    log.append(ONE, batch(&["kept"])).await.unwrap();
    disk.fail_syncs(Some(ErrorKind::Other));
    let error = log.append(ONE, batch(&["lost"])).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Poisoned {
                operation: "a sync",
                ..
            }
        ),
        "{error}"
    );
    disk.fail_syncs(None);
    for _ in 0..2 {
        assert!(matches!(
            log.append(ONE, batch(&["no"])).await,
            Err(Error::Poisoned { .. })
        ));
    }
    assert!(matches!(
        log.commit(seal("no", &[1])).await,
        Err(Error::Poisoned { .. })
    ));
    assert!(log.is_poisoned());
    assert_eq!(texts(&log, 1).await, ["kept"]);
    log.close().await;
    assert_eq!(
        texts(&open(&disk).unwrap(), 1)
            .await
            .first()
            .map(String::as_str),
        Some("kept")
    );
}

/// A full disk refuses what does not fit, takes more once there is room, and loses nothing.
#[tokio::test]
async fn disk_full_is_refused_and_recovers() {
    let disk = MemoryDisk::crashable();
    let log = with_shard_one(&disk, tiny()).await;
    disk.set_capacity(Some(3 * 2048));
    let mut kept = Vec::new();
    let error = loop {
        let text = format!("{:0300}", kept.len());
        match log.append(ONE, batch(&[&text])).await {
            Ok(_) => kept.push(text),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(
            error,
            Error::NoSpace {
                segment_bytes: 2048,
                ..
            }
        ),
        "{error}"
    );
    assert!(!log.is_poisoned());
    assert!(matches!(
        log.append(ONE, batch(&[&"q".repeat(300)])).await,
        Err(Error::NoSpace { .. })
    ));
    assert_eq!(texts(&log, 1).await, kept);
    disk.set_capacity(None);
    log.append(ONE, batch(&["again"])).await.unwrap();
    kept.push("again".to_owned());
    assert_eq!(texts(&log, 1).await, kept);
    drop(log);
    assert_eq!(texts(&open(&disk.crash(1)).unwrap(), 1).await, kept);
}

/// A log whose disk has no room for another segment opens though the active one is full to the last byte: reads go on, and
/// writes are refused until there is room.
#[tokio::test]
async fn s6_a_log_that_is_full_opens_on_a_full_disk() {
    let disk = MemoryDisk::crashable();
    let log = with_shard_one(&disk, tiny()).await;
    disk.set_capacity(Some(3 * 2048));
    let mut kept = Vec::new();
    for length in [300, 30, 1] {
        loop {
            let text = format!("{:0length$}", kept.len() % 10);
            match log.append(ONE, batch(&[&text])).await {
                Ok(_) => kept.push(text),
                Err(Error::NoSpace { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    drop(log);
    for cut in 0..4 {
        let disk = disk.crash(cut);
        disk.set_capacity(Some(disk.used_bytes()));
        let log = open(&disk).unwrap();
        assert_eq!(texts(&log, 1).await, kept);
        let refused = log.append(ONE, batch(&["no"])).await;
        assert!(matches!(refused, Err(Error::NoSpace { .. })), "{refused:?}");
        assert!(!log.is_poisoned());
        log.close().await;
        let log = open(&disk).unwrap();
        disk.set_capacity(None);
        let before = log.tail(ONE).unwrap().next;
        let again = log.append(ONE, batch(&["again"])).await.unwrap();
        assert!(again.first >> EPOCH_SHIFT > before >> EPOCH_SHIFT, "S2");
        drop(log);
        let log = open(&disk.crash(cut)).unwrap();
        let with_again = [&kept[..], &["again".to_owned()]].concat();
        assert_eq!(texts(&log, 1).await, with_again);
    }
}

/// A log whose disk takes no more appends takes the transaction that drops a shard, though appends are queued with it; when the shard's
/// segments are trimmed there is room again.
#[tokio::test]
async fn s6_a_full_disk_takes_the_transaction_that_frees_it() {
    let config = LogConfig {
        segment_bytes: 64 << 10,
        ..tiny()
    };
    let disk = MemoryDisk::new();
    let log = with_shard_one(&disk, config).await;
    log.commit(create("two", &[2])).await.unwrap();
    for _ in 0..16 {
        log.append(ONE, batch(&[&"x".repeat(8 << 10)]))
            .await
            .unwrap();
    }
    disk.set_capacity(Some(disk.used_bytes() + 1000));
    for length in [9000, 900, 90, 9, 0] {
        let text = "y".repeat(length);
        while log.append(LogShard(2), batch(&[&text])).await.is_ok() {}
    }
    let event = "drop one".to_owned().into();
    let transaction = Transaction {
        event,
        drop: vec![ONE],
        ..Transaction::default()
    };
    let refused = log.append(LogShard(2), batch(&["no"]));
    let (refused, dropped) = tokio::join!(refused, log.commit(transaction));
    assert!(matches!(refused, Err(Error::NoSpace { .. })), "{refused:?}");
    dropped.unwrap();
    let kept = |shard| (shard != ONE).then_some(0);
    assert!(log.trim(kept).await.unwrap() > 0);
    log.append(LogShard(2), batch(&["again"])).await.unwrap();
    log.close().await;
    let log = open_with(&disk, config, SeededBug::None).unwrap();
    assert_eq!(log.tail(ONE), None);
    assert_eq!(texts(&log, 2).await.last().unwrap(), "again");
}

/// The queue is bounded in bytes: while the disk stands still, more is refused.
#[tokio::test]
async fn s6_overload_is_refused_and_passes() {
    let disk = MemoryDisk::new();
    let config = LogConfig {
        queue_bytes: 4096,
        ..tiny()
    };
    let log = with_shard_one(&disk, config).await;
    disk.hold_syncs(true);
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let log = log.clone();
            tokio::spawn(async move { log.append(ONE, batch(&[&"w".repeat(500)])).await })
        })
        .collect();
    while waiting.iter().filter(|append| append.is_finished()).count() < 15 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    disk.hold_syncs(false);
    let mut appended = 0;
    for append in waiting {
        match append.await.unwrap() {
            Ok(_) => appended += 1,
            Err(error) => assert!(matches!(error, Error::Overloaded { .. }), "{error}"),
        }
    }
    let frame_bytes = frame_bytes(RUN_HEAD_BYTES + 7 + 3 + 500);
    assert_eq!(appended, 4096 / (frame_bytes + 256));
    log.append(ONE, batch(&["fine again"])).await.unwrap();
    let large = log.append(ONE, batch(&[&"l".repeat(5000)])).await;
    assert!(matches!(
        large,
        Err(Error::TooLarge {
            limit_bytes: 4096,
            ..
        })
    ));
}

/// With an interval the answer does not wait for the sync, and the sync comes by itself.
#[tokio::test]
async fn an_interval_syncs_by_itself() {
    let disk = MemoryDisk::crashable();
    let durability = Durability::Interval(Duration::from_millis(5));
    let log = with_shard_one(
        &disk,
        LogConfig {
            durability,
            ..tiny()
        },
    )
    .await;
    disk.hold_syncs(true);
    let appended = log.append(ONE, batch(&["soon"])).await.unwrap();
    assert_eq!(log.tail(ONE).unwrap().next, appended.first + 1);
    let name = segment::name(1);
    let survives = |seed| disk.crash(seed).contents()[&name] == disk.contents()[&name];
    assert!(!(0..20).all(survives), "it is written and not synced");
    disk.hold_syncs(false);
    while !(0..20).all(survives) {
        tokio::task::yield_now().await;
    }
    assert_eq!(texts(&open(&disk.crash(0)).unwrap(), 1).await, ["soon"]);
}

/// A commit shortly before the interval is over is synced when it is over, not a whole interval later.
#[tokio::test]
async fn an_interval_counts_from_the_last_sync() {
    let disk = MemoryDisk::crashable();
    let clock = ManualClock::at(NOW_MS);
    let config = LogConfig {
        durability: Durability::Interval(Duration::from_mins(10)),
        ..tiny()
    };
    let shared = Arc::clone(&clock);
    let log = Log::open(Arc::new(disk.clone()), config, shared, Events::default()).unwrap();
    clock.advance_ms(599_995);
    log.commit(create("create", &[1])).await.unwrap();
    let name = segment::name(1);
    let survives = |seed| disk.crash(seed).contents()[&name] == disk.contents()[&name];
    let synced = async {
        while !(0..20).all(survives) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), synced)
        .await
        .expect("the sync is due five milliseconds after the commit");
}

/// Everything that was accepted is finished by `close`; what comes later is refused.
#[tokio::test]
async fn s10_close_finishes_what_was_accepted() {
    let disk = MemoryDisk::crashable();
    let log = with_shard_one(&disk, tiny()).await;
    disk.hold_syncs(true);
    let appends: Vec<_> = (0..10)
        .map(|number| {
            let log = log.clone();
            tokio::spawn(async move { log.append(ONE, batch(&[&number.to_string()])).await })
        })
        .collect();
    let waiter = tokio::spawn({
        let log = log.clone();
        async move { log.wait_for(ONE, u64::MAX).await }
    });
    tokio::task::yield_now().await;
    let closing = tokio::spawn({
        let log = log.clone();
        async move { tokio::join!(log.close(), log.close()) }
    });
    tokio::task::yield_now().await;
    assert!(matches!(
        log.append(ONE, batch(&["late"])).await,
        Err(Error::Closed)
    ));
    disk.hold_syncs(false);
    closing.await.unwrap();
    waiter.await.unwrap();
    for append in appends {
        append.await.unwrap().unwrap();
    }
    assert!(matches!(
        log.read(ONE, 0, EVERYTHING, 0).await,
        Err(Error::Closed)
    ));
    let left = disk.crash(0);
    assert_eq!(texts(&open(&left).unwrap(), 1).await.len(), 10);
}

/// Times never fall, a read skips what is too old, and a time leads to its record, across segments.
#[tokio::test]
async fn s7_times_lead_to_records_across_segments() {
    let disk = MemoryDisk::new();
    let clock = ManualClock::at(NOW_MS);
    let shared = Arc::clone(&clock);
    let log = Log::open(Arc::new(disk.clone()), tiny(), shared, Events::default()).unwrap();
    log.commit(create("create", &[1, 2])).await.unwrap();
    let mut counters = Vec::new();
    for number in 0..40u64 {
        clock.set_ms(NOW_MS + 10 * number);
        // Shard 2 makes segments in which shard 1 has nothing.
        for _ in 0..5 {
            log.append(LogShard(2), batch(&[&"p".repeat(100)]))
                .await
                .unwrap();
        }
        counters.push(log.append(ONE, batch(&["x"])).await.unwrap());
    }
    assert!(disk.contents().len() > 10);
    for appended in &counters {
        let time_ms = appended.time_ms;
        for asked in [time_ms - 9, time_ms] {
            let from = log.counter_at(ONE, asked).await.unwrap();
            let one = ReadLimit {
                records: 1,
                bytes: usize::MAX,
            };
            let found = log.read(ONE, from, one, 0).await.unwrap();
            assert_eq!(found[0].counter, appended.first, "at {asked}");
            let recent = log.read(ONE, 0, one, asked).await.unwrap();
            assert_eq!(recent[..], found[..], "not before {asked}");
        }
    }
    let after = NOW_MS + 10 * 39 + 1;
    assert_eq!(
        log.counter_at(ONE, after).await.unwrap(),
        log.tail(ONE).unwrap().next
    );
    assert!(
        log.read(ONE, 0, EVERYTHING, after)
            .await
            .unwrap()
            .is_empty()
    );
    clock.set_ms(NOW_MS);
    let back = log.append(ONE, batch(&["clock set back"])).await.unwrap();
    assert_eq!(back.time_ms, NOW_MS + 390);
}

/// Trimming removes the oldest whole segments and nothing that is to be kept.
#[tokio::test]
async fn s7_trim_removes_only_what_is_old() {
    let disk = MemoryDisk::crashable();
    let clock = ManualClock::at(NOW_MS);
    let shared = Arc::clone(&clock);
    let log = Log::open(Arc::new(disk.clone()), tiny(), shared, Events::default()).unwrap();
    log.commit(create("create", &[1])).await.unwrap();
    let mut times = Vec::new();
    for number in 0..40u64 {
        clock.set_ms(NOW_MS + number);
        times.push(log.append(ONE, batch(&[&"t".repeat(200)])).await.unwrap());
    }
    assert_eq!(log.trim(|_| Some(0)).await.unwrap(), 0);
    let keep = NOW_MS + 25;
    assert!(log.trim(move |_| Some(keep)).await.unwrap() >= 2);
    let found = read_all(&log, ONE, EVERYTHING).await.unwrap();
    let kept: Vec<_> = times
        .iter()
        .filter(|at| at.time_ms >= keep)
        .map(|at| at.first)
        .collect();
    let found: Vec<_> = found.into_iter().map(|(counter, _)| counter).collect();
    assert!(
        found.ends_with(&kept) && found.len() < kept.len() + 10,
        "{found:?} {kept:?}"
    );
    for seed in 0..10 {
        let left = open(&disk.crash(seed)).unwrap();
        assert!(read_all(&left, ONE, EVERYTHING).await.unwrap().len() >= kept.len());
    }
    // A failed removal leaves no gap behind.
    disk.fail_once(disk.operations() + 1, ErrorKind::Other);
    assert!(log.trim(|_| None).await.is_err());
    log.trim(|_| None).await.unwrap();
    assert!(!disk.contents().contains_key(&segment::name(1)));
    log.append(ONE, batch(&["after"])).await.unwrap();
    log.close().await;
    assert_eq!(
        texts(&open(&disk).unwrap(), 1).await.last().unwrap(),
        "after"
    );
}

/// A commit larger than a segment gets one of its own.
#[tokio::test]
async fn a_commit_larger_than_a_segment_is_kept_whole() {
    let disk = MemoryDisk::crashable();
    let log = with_shard_one(&disk, tiny()).await;
    let large = "L".repeat(9000);
    log.append(ONE, batch(&["before"])).await.unwrap();
    log.append(ONE, batch(&[&large])).await.unwrap();
    log.append(ONE, batch(&["after"])).await.unwrap();
    assert_eq!(texts(&log, 1).await, ["before", &large, "after"]);
    drop(log);
    assert_eq!(
        texts(&open(&disk.crash(3)).unwrap(), 1).await,
        ["before", &large, "after"]
    );
}

/// Nobody waits for a shard that is dropped, or never was.
#[tokio::test]
async fn waiting_ends_with_the_shard() {
    let log = with_shard_one(&MemoryDisk::new(), tiny()).await;
    log.wait_for(LogShard(9), 0).await;
    let mut transaction = create("drop", &[]);
    transaction.drop.push(ONE);
    tokio::join!(log.wait_for(ONE, 0), async {
        log.commit(transaction).await.unwrap()
    });
    let gone = log.read(ONE, 0, EVERYTHING, 0).await;
    assert!(matches!(gone, Err(Error::Unknown(ONE))), "{gone:?}");
}

/// The same on a real disk: many segments, a restart, a torn tail, a second opener.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_directory_keeps_what_it_was_given() {
    let directory = tempfile::tempdir().unwrap();
    let config = LogConfig {
        segment_bytes: 1 << 16,
        ..LogConfig::default()
    };
    let start = || {
        let disk = Arc::new(RealDisk::open(directory.path())?);
        Log::open(disk, config, Arc::new(SystemClock), Events::default())
    };
    let log = start().unwrap();
    let id = log.id();
    log.commit(create("create", &[1])).await.unwrap();
    let mut expected = Vec::new();
    for number in 0..40 {
        let text = format!("{number}{}", "r".repeat(5000));
        log.append(ONE, batch(&[&text])).await.unwrap();
        expected.push(text);
    }
    assert!(matches!(start(), Err(Error::InUse { .. })));
    log.close().await;
    drop(log);
    let log = start().unwrap();
    assert_eq!((log.id(), texts(&log, 1).await), (id, expected.clone()));
    let trimmed = log.trim(|_| None).await.unwrap();
    assert!(trimmed >= 2, "{trimmed}");
    drop(log);
    let names: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert!(names.len() < 8, "{names:?}");
    let log = start().unwrap();
    let left = texts(&log, 1).await;
    assert!(expected.ends_with(&left) && left.len() < expected.len());
}

/// A reader at the tip while every few commits begin a segment: what was appended between two looks
/// into the index is not passed by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_no_record_is_passed_by_where_segments_change() {
    const RECORDS: u32 = 6_000;
    let config = LogConfig {
        segment_bytes: 1024,
        tail_cache_bytes: 0,
        ..tiny()
    };
    let log = with_shard_one(&MemoryDisk::new(), config).await;
    let reader = {
        let published = Arc::clone(&log.0.published);
        std::thread::spawn(move || {
            let (mut from, mut seen) = (0, 0);
            while seen < RECORDS {
                let request = Request {
                    shard: ONE,
                    from,
                    before: u64::MAX,
                    limit: EVERYTHING,
                    not_before_ms: 0,
                };
                let planned = published.plan_blocking(request).unwrap();
                for record in published.fetch_blocking(&planned).unwrap() {
                    assert!(
                        from == 0 || record.counter == from,
                        "{} after {from}",
                        record.counter
                    );
                    from = record.counter + 1;
                    seen += 1;
                }
            }
        })
    };
    for _ in 0..RECORDS {
        log.append(ONE, batch(&[&"x".repeat(300)])).await.unwrap();
    }
    tokio::task::spawn_blocking(move || reader.join().unwrap())
        .await
        .unwrap();
}

/// Who has read a record finds a tail behind it: it is in the index a moment before the tail says so, and is not read then.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s3_a_tail_is_never_behind_what_was_read() {
    const RECORDS: usize = 6_000;
    // Many shards lie between the index and the tail of the last.
    let shards: Vec<u64> = (1..=60).collect();
    let log = open(&MemoryDisk::new()).unwrap();
    log.commit(create("create", &shards)).await.unwrap();
    let last = LogShard(60);
    let readers = [(); 2].map(|()| {
        let log = log.clone();
        tokio::spawn(async move {
            let (mut from, mut seen) = (0, 0);
            while seen < RECORDS / 60 {
                let records = log.read(last, from, EVERYTHING, 0).await.unwrap();
                let tail = log.tail(last).unwrap();
                if let Some(read) = records.iter().last() {
                    assert!(tail.next > read.counter, "{tail:?} after {}", read.counter);
                    (from, seen) = (read.counter + 1, seen + records.iter().count());
                }
            }
        })
    });
    for _ in 0..RECORDS / 60 {
        let batches = shards.iter().map(|shard| (LogShard(*shard), batch(&["x"])));
        log.append_all(batches.collect()).await.unwrap();
    }
    for reader in readers {
        reader.await.unwrap();
    }
}

/// Records read from files have a share of a budget until it is given back; who finds none is told.
#[tokio::test]
async fn s6_what_readers_hold_is_bounded() {
    let config = LogConfig {
        tail_cache_bytes: 0,
        read_bytes: 1_000,
        ..tiny()
    };
    let log = with_shard_one(&MemoryDisk::new(), config).await;
    for _ in 0..3 {
        log.append(ONE, batch(&[&"x".repeat(500)])).await.unwrap();
    }
    let one = ReadLimit {
        records: 1,
        bytes: 100,
    };
    let held = log.read(ONE, 0, one, 0).await.unwrap();
    let refused = log.read(ONE, 0, one, 0).await;
    assert!(
        matches!(refused, Err(Error::Overloaded { .. })),
        "{refused:?}"
    );
    drop(held);
    assert_eq!(log.read(ONE, 0, one, 0).await.unwrap().len(), 1);
    let larger_than_the_budget = log.read(ONE, 0, EVERYTHING, 0).await.unwrap();
    assert_eq!(larger_than_the_budget.len(), 3);
}
