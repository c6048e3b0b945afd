//! Every operation of a script fails in turn, once or from then on, in each way: what was answered holds, no sync is
//! tried again, reads go on, and a restart recovers, with the power on or after a cut.

use std::collections::BTreeSet;

use crate::log::plan::SeededBug;
use crate::log::tests::book::{Book, When};
use crate::log::tests::life::{Life, Reshard};
use crate::log::tests::traced_disk::{Failure, Fate, Fault, Grain, Step, TracedDisk};
use crate::log::tests::{EVERYTHING, Report, TestLog, rounds, tiny};
use crate::log::{Error, LogConfig};

/// In how many of the three ways each operation fails; which, goes in turn.
const WAYS: &str = "MILLSTREAM_FAULTS_WAYS";
const FAILURES: [Failure; 3] = [Failure::Broken, Failure::Full, Failure::Short];

/// One run of the script.
struct Script {
    life: Life,
    disk: TracedDisk,
    fault: Option<Fault>,
}

impl Script {
    fn new(fault: Option<Fault>, bug: SeededBug) -> Script {
        let disk = TracedDisk::new();
        disk.set_fault(fault);
        let config = LogConfig {
            segment_bytes: 1500,
            ..tiny()
        };
        let life = Life::new(&disk, config, bug);
        Script { life, disk, fault }
    }

    fn was_hit(&self) -> bool {
        match self.fault {
            Some(Fault::Once(at, _) | Fault::From(at, _)) => self.disk.operations() > at,
            None => false,
        }
    }

    /// Two starts with appends, reshards and retention; goes on whatever fails.
    async fn play(&self) -> Report {
        for part in 0..2 {
            // Whoever starts it tries again.
            let Ok(log) = self.life.open().or_else(|_| self.life.open()) else {
                continue;
            };
            // What it finds binds it.
            if self.was_hit() {
                self.repair_once();
                self.life.check(&log, When::Opened, EVERYTHING).await?;
            }
            self.work(&log, part).await;
            if self.was_hit() {
                self.repair_once();
                let checked = self.life.check(&log, When::Running, EVERYTHING).await;
                checked.map_err(|wrong| format!("while it runs: {wrong}"))?;
            }
            self.life.close(log).await;
        }
        Ok(())
    }

    /// What fails once has failed.
    fn repair_once(&self) {
        if matches!(self.fault, Some(Fault::Once(..))) {
            self.disk.set_fault(None);
        }
    }

    async fn work(&self, log: &TestLog, part: usize) {
        if self.life.book(Book::changes) == 0 {
            let _ = self.life.reshard(log, Reshard::Create(2)).await;
        }
        let _ = self.append(log, part * 16..part * 16 + 10).await;
        let open = self.life.book(Book::open_shards);
        let reshard = match (part, open.as_slice()) {
            (0, [first, ..]) => Reshard::Split(*first),
            (_, [first, second, ..]) => Reshard::Merge(*first, *second),
            _ => Reshard::Create(1),
        };
        let _ = self.life.reshard(log, reshard).await;
        if let [shard, ..] = open.as_slice() {
            let _ = self.life.retain(log, *shard, 6).await;
        }
        let _ = self.append(log, part * 16 + 10..part * 16 + 16).await;
    }

    async fn append(&self, log: &TestLog, numbers: std::ops::Range<usize>) -> Result<(), Error> {
        let mut last = Ok(());
        for number in numbers {
            let open = self.life.book(Book::open_shards);
            if !open.is_empty() {
                let lengths = [number * 37 % 200, number * 91 % 150];
                last = self
                    .life
                    .append(log, open[number % open.len()], &lengths)
                    .await;
            }
            self.life.clock().advance_ms(1);
        }
        last
    }

    /// A sync that failed is not tried again by the process that it failed for.
    fn no_sync_twice(&self) -> Report {
        let trace = self.disk.trace(0);
        let mut starts = self.life.starts();
        starts.push(trace.len());
        for part in starts.windows(2) {
            let (mut files, mut directory) = (BTreeSet::new(), false);
            for step in &trace[part[0]..part[1]] {
                let again = match step {
                    Step::SyncFailed(file) => !files.insert(*file),
                    Step::Sync(file) => files.contains(file),
                    Step::SyncDirectoryFailed => std::mem::replace(&mut directory, true),
                    Step::SyncDirectory => directory,
                    _ => false,
                };
                ensure!(!again, "a failed sync is tried again: {step:?}");
            }
        }
        Ok(())
    }

    /// Restarts: after a power cut, and with the power on and cut later.
    async fn restart(&self, random: &mut fastrand::Rng) -> Report {
        self.disk.set_fault(None);
        self.cut_and_open(random, "cut").await?;
        let log = self
            .life
            .open()
            .map_err(|error| format!("refused: {error}"))?;
        self.life.check(&log, When::Opened, EVERYTHING).await?;
        self.append(&log, 0..2)
            .await
            .map_err(|error| format!("after a restart: {error}"))?;
        drop(log);
        self.cut_and_open(random, "restarted, then cut").await
    }

    /// What two power cuts may leave of the disk as it is now, opened and checked.
    async fn cut_and_open(&self, random: &mut fastrand::Rng, case: &str) -> Report {
        for _ in 0..2 {
            let grain = random.choice(Grain::ALL).unwrap();
            let image = self.disk.image(random);
            let disk = TracedDisk::holding(image.cut(Fate::Drawn(random.fork(), grain)));
            let mut book = self.life.book(Book::clone);
            let log = self
                .life
                .open_on(&disk)
                .map_err(|error| format!("{case}: refused: {error}"))?;
            let checked = book.check(&log, When::Opened, EVERYTHING).await;
            checked.map_err(|wrong| format!("{case}: {wrong}"))?;
        }
        Ok(())
    }

    async fn run(fault: Fault, bug: SeededBug) -> Report {
        let seed = fastrand::u64(..);
        let script = Script::new(Some(fault), bug);
        let report = async {
            script.play().await?;
            script.no_sync_twice()?;
            script.restart(&mut fastrand::Rng::with_seed(seed)).await
        };
        report
            .await
            .map_err(|wrong| format!("{fault:?}, seed {seed}: {wrong}"))
    }
}

/// How many operations the script has if nothing fails.
async fn operations() -> u64 {
    let script = Script::new(None, SeededBug::None);
    script.play().await.unwrap();
    assert!(script.life.book(Book::acked) > 20 && script.life.book(Book::changes) == 3);
    script.disk.operations()
}

/// Lets every operation fail so, one after the other, up to the first wrong.
async fn fail_each(fault: impl Fn(u64, Failure) -> Fault, bug: SeededBug) -> Report {
    let operations = operations().await;
    assert!(operations > 280, "{operations} operations");
    let ways = rounds(WAYS, 1, 3);
    let mut runs = 0;
    for at in 0..operations + 5 {
        for way in at..at + ways {
            let failure = FAILURES[usize::try_from(way % 3).unwrap()];
            Script::run(fault(at, failure), bug).await?;
            runs += 1;
        }
    }
    println!("failing disk: {operations} operations, {runs} runs, lost 0, no sync twice");
    Ok(())
}

/// Each operation fails once: EIO, ENOSPC, or half way.
#[tokio::test]
async fn s1_s3_any_operation_may_fail_once() {
    fail_each(Fault::Once, SeededBug::None).await.unwrap();
}

/// Each operation fails, and every one after it that would change something.
#[tokio::test]
async fn s1_s3_the_disk_may_fail_for_good() {
    fail_each(Fault::From, SeededBug::None).await.unwrap();
}

/// The suite is only worth something if it notices.
#[tokio::test]
async fn a_failing_disk_shows_a_sync_that_is_tried_again() {
    let wrong = fail_each(Fault::Once, SeededBug::RetrySync).await;
    let wrong = wrong.expect_err("it went unnoticed");
    println!("RetrySync: {wrong}");
    assert!(wrong.contains("tried again: Sync("), "{wrong}");
}
