//! Every operation of a scripted workload fails once, and is the last one before a power cut once.

use std::io::ErrorKind;
use std::time::Duration;

use crate::log::plan::SeededBug;
use crate::log::tests::{
    EVERYTHING, TestLog, batch, create, is_rewritten, open, open_with, read_all, seal, tiny,
};
use crate::log::{Durability, LogConfig, LogShard, MemoryDisk};

/// What the workload was told.
#[derive(Debug, Default)]
struct Told {
    /// Answered with success, in order.
    acked: Vec<String>,
    created: bool,
    sealed: bool,
    /// The workload came to its end without a failure.
    whole: bool,
}

const APPENDS: usize = 24;

fn text(number: usize) -> String {
    format!("{number:03}{}", "y".repeat(number * 37 % 200))
}

/// Creates a shard, appends over several segments with a restart in the middle, rewrites them now and then, and
/// seals it.
async fn work(disk: &MemoryDisk) -> Told {
    let mut told = Told::default();
    told.whole = try_work(disk, &mut told).await.is_some();
    told
}

async fn try_work(disk: &MemoryDisk, told: &mut Told) -> Option<()> {
    let mut failed = false;
    let mut log = open(disk).ok()?;
    log.commit(create("create", &[1])).await.ok()?;
    told.created = true;
    for number in 0..APPENDS {
        if number == APPENDS / 2 {
            log.close().await;
            log = open(disk).ok()?;
        }
        if number % 5 == 4 {
            failed |= log.rewrite(|_| Some(0)).await.is_err();
        }
        match log.append(LogShard(1), batch(&[&text(number)])).await {
            Ok(_) => told.acked.push(text(number)),
            Err(_) => failed = true,
        }
    }
    log.commit(seal("seal", &[1])).await.ok()?;
    told.sealed = true;
    failed |= log.rewrite(|_| Some(0)).await.is_err();
    log.close().await;
    (!failed).then_some(())
}

/// No rewritten segment is there without the mark that keeps versions away which cannot read it.
fn check_mark(disk: &MemoryDisk, case: &str) {
    let contents = disk.contents();
    let mut names = contents.iter();
    let rewritten = names.any(|(name, content)| is_rewritten(name, content));
    assert!(
        disk.format() >= crate::log::Format::Rewritten || !rewritten,
        "{case}: no mark"
    );
}

/// Everything acknowledged is there, in order; what else is there was sent, and once.
async fn check(log: &TestLog, told: &Told, case: &str) {
    if told.created {
        assert!(
            log.metadata().0.contains(&"create".to_owned()),
            "{case}: metadata lost"
        );
    }
    if log.tail(LogShard(1)).is_none() {
        assert!(!told.created, "{case}: the shard is lost");
        return;
    }
    if told.sealed {
        assert!(
            log.tail(LogShard(1)).unwrap().sealed,
            "{case}: the seal is lost"
        );
    }
    let found = read_all(log, LogShard(1), EVERYTHING).await.unwrap();
    assert!(
        found
            .windows(2)
            .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1),
        "{case}"
    );
    let found: Vec<_> = found.into_iter().map(|(_, text)| text).collect();
    for acked in &told.acked {
        assert!(found.contains(acked), "{case}: lost {acked}");
    }
    assert!(
        found
            .iter()
            .all(|found| (0..APPENDS).any(|number| *found == text(number))),
        "{case}"
    );
}

/// The machine stops at every operation in turn; what is left is opened after a power cut.
#[tokio::test]
async fn s1_recovers_from_a_crash_at_every_operation() {
    let mut stop = 0;
    loop {
        let disk = MemoryDisk::crashable();
        disk.fail_from(stop, ErrorKind::Other);
        let told = work(&disk).await;
        for seed in 0..4 {
            let case = format!("stopped at operation {stop}, seed {seed}");
            let left = disk.crash(stop * 4 + seed);
            check_mark(&left, &case);
            let log = open(&left).unwrap_or_else(|error| panic!("{case}: {error}"));
            check(&log, &told, &case).await;
            log.close().await;
            let again = open(&left).unwrap_or_else(|error| panic!("{case}, again: {error}"));
            check(&again, &told, &case).await;
        }
        if told.whole {
            let contents = disk.contents();
            let rewritten = contents
                .iter()
                .filter(|(name, file)| is_rewritten(name, file));
            assert!(rewritten.count() > 1, "segments were rewritten on the way");
            break;
        }
        stop += 1;
    }
    assert!(stop > 150, "the workload has many operations, not {stop}");
}

/// Every operation fails once and the others work: nothing acknowledged is lost, with and without a
/// power cut after it.
#[tokio::test]
async fn s1_survives_any_single_failed_operation() {
    let whole = MemoryDisk::crashable();
    assert!(work(&whole).await.whole);
    let operations = whole.operations();
    for failed in 0..operations + 5 {
        for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
            let disk = MemoryDisk::crashable();
            disk.fail_once(failed, kind);
            let told = work(&disk).await;
            disk.repair();
            let left = disk.crash(failed);
            for (disk, how) in [(&left, "after a power cut"), (&disk, "after a restart")] {
                let case = format!("operation {failed} failed with {kind}, {how}");
                let log = open(disk).unwrap_or_else(|error| panic!("{case}: {error}"));
                check(&log, &told, &case).await;
            }
        }
    }
}

/// Whatever the durability setting allows records to lose, an acknowledged transaction stays: a log
/// shard's number is never given to another shard.
#[tokio::test]
async fn s1_transactions_are_durable_whatever_the_setting() {
    let hour = Duration::from_hours(1);
    for durability in [Durability::None, Durability::Interval(hour)] {
        for seed in 0..20 {
            let disk = MemoryDisk::crashable();
            let config = LogConfig {
                durability,
                ..tiny()
            };
            let log = open_with(&disk, config, SeededBug::None).unwrap();
            log.append(LogShard(1), batch(&["unknown"]))
                .await
                .unwrap_err();
            log.commit(create("one", &[1])).await.unwrap();
            let reopened = open_with(&disk.crash(seed), config, SeededBug::None).unwrap();
            assert_eq!(
                reopened.metadata().0,
                ["one"],
                "{durability:?}, seed {seed}"
            );
            assert!(reopened.tail(LogShard(1)).is_some());
        }
    }
}
