//! Power cuts at any step of concurrent work and of recovery: writes that were not synced are lost, kept, torn or
//! turned round, names come or do not.

use crate::log::plan::SeededBug;
use crate::log::tests::book::{Book, When};
use crate::log::tests::life::{Life, Reshard};
use crate::log::tests::traced_disk::{Fate, Grain, Omission, Step, TracedDisk};
use crate::log::tests::{EVERYTHING, Report, TestLog, rounds, tiny};
use crate::log::{Compression, Durability, Error, LogConfig, ReadLimit, segment};

/// How many seeds; a failure names its own.
const SEEDS: &str = "MILLSTREAM_POWER_SEEDS";
/// The first of them.
const FIRST_SEED: &str = "MILLSTREAM_POWER_FIRST_SEED";
/// Lives that go on at once: each waits for threads of its own most of the time.
const AT_ONCE: usize = 4;
/// Cuts in the life of one log, those during recovery aside.
const CUTS: usize = 5;
/// Every so manyth seed runs without a sync before the answer.
const LOSSY_EVERY: u64 = 5;

/// What the lives came to.
#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    cuts: usize,
    kills: usize,
    acked: usize,
    changes: usize,
    steps: usize,
    /// Segments in files of earlier ones.
    recycled: usize,
}

impl Sum {
    fn add(&mut self, other: Sum) {
        self.cuts += other.cuts;
        self.kills += other.kills;
        self.acked += other.acked;
        self.changes += other.changes;
        self.steps += other.steps;
        self.recycled += other.recycled;
    }
}

/// A mistake that is made on purpose: by the log, or by a disk that leaves out what a log with a bug would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    Bug(SeededBug),
    Omission(Omission),
}

struct Machine {
    random: fastrand::Rng,
    life: Life,
    omission: Option<Omission>,
    sum: Sum,
}

impl Machine {
    fn new(seed: u64, durability: Durability, mistake: Mistake) -> Machine {
        let mut random = fastrand::Rng::with_seed(seed);
        let config = LogConfig {
            segment_bytes: random.u64(1000..9000),
            compression: random
                .choice([Compression::Zstd, Compression::None])
                .unwrap(),
            durability,
            ..tiny()
        };
        let (bug, omission) = match mistake {
            Mistake::None => (SeededBug::None, None),
            Mistake::Bug(bug) => (bug, None),
            Mistake::Omission(omission) => (SeededBug::None, Some(omission)),
        };
        let disk = TracedDisk::new();
        disk.omit(omission);
        Machine {
            random,
            life: Life::new(&disk, config, bug),
            omission,
            sum: Sum::default(),
        }
    }

    /// Starts, lets the power fail amid the start some of the time, and checks what is there then.
    async fn start(&mut self) -> Result<TestLog, String> {
        loop {
            if self.random.u8(0..3) == 0 {
                self.life.disk().stop_after(self.random.usize(0..12));
            }
            match self.life.open() {
                Ok(log) if !self.life.disk().is_off() => return self.checked(log).await,
                Err(error) if !self.life.disk().is_off() => {
                    return Err(format!("refused: {error}"));
                }
                opened => {
                    drop(opened);
                    self.end();
                }
            }
        }
    }

    async fn checked(&mut self, log: TestLog) -> Result<TestLog, String> {
        let step = ReadLimit {
            records: self.random.usize(1..9),
            bytes: self.random.usize(1..1000),
        };
        self.life.check(&log, When::Opened, step).await?;
        Ok(log)
    }

    /// The power is gone, or only the process: the next start finds what is left.
    fn end(&mut self) {
        let disk = self.life.disk();
        if self.random.u8(0..4) == 0 {
            self.sum.kills += 1;
            return disk.revive();
        }
        let image = disk.image(&mut self.random);
        let grain = self.random.choice(Grain::ALL).unwrap();
        let fate = Fate::Drawn(self.random.fork(), grain);
        let left = TracedDisk::holding(image.cut(fate));
        left.omit(self.omission);
        self.life.set_disk(&left);
        self.sum.cuts += 1;
        self.sum.steps += disk.steps();
        let recycles =
            |step: &&Step| matches!(step, Step::Rename(from, _) if from == segment::RECYCLED);
        self.sum.recycled += disk.trace(0).iter().filter(recycles).count();
    }

    /// Writers, a resharder and retention work at once, until the power goes off or they have done enough.
    async fn work(&mut self, log: TestLog) -> Report {
        self.life.disk().stop_after(self.random.usize(0..200));
        if self.life.book(Book::changes) == 0 {
            done(
                &self.life,
                self.life.reshard(&log, Reshard::Create(3)).await,
            )?;
        }
        let mut tasks = Vec::new();
        for _ in 0..self.random.usize(1..5) {
            let work = append_some(self.life.clone(), log.clone(), self.random.fork());
            tasks.push(tokio::spawn(work));
        }
        let work = reshard_some(self.life.clone(), log.clone(), self.random.fork());
        tasks.push(tokio::spawn(work));
        let work = retain_some(self.life.clone(), log.clone(), self.random.fork());
        tasks.push(tokio::spawn(work));
        for task in tasks {
            task.await.unwrap()?;
        }
        if self.random.bool() {
            self.life.disk().stop_after(self.random.usize(0..3));
        }
        self.life.close(log).await;
        Ok(())
    }

    async fn live(&mut self) -> Report {
        for _ in 0..CUTS {
            let log = self.start().await?;
            self.work(log).await?;
            self.end();
        }
        let log = self.start().await?;
        self.life.close(log).await;
        Ok(())
    }
}

/// Nothing but a seal that came first may refuse anything while the power is on.
fn done(life: &Life, result: Result<(), Error>) -> Report {
    match result {
        Err(Error::Sealed(_) | Error::Unknown(_)) | Ok(()) => Ok(()),
        Err(_) if life.disk().is_off() => Ok(()),
        Err(error) => Err(format!("with the power on: {error}")),
    }
}

async fn append_some(life: Life, log: TestLog, mut random: fastrand::Rng) -> Report {
    for _ in 0..random.usize(1..15) {
        let open = life.book(Book::open_shards);
        if open.is_empty() {
            return Ok(());
        }
        let longest = random.choice([20, 150, 150, 700, 5000]).unwrap();
        let at_once = random.choice([1, 1, 2, 5]).unwrap();
        let several: Vec<(u64, Vec<usize>)> = (0..at_once)
            .map(|_| {
                let lengths = (0..random.usize(1..4)).map(|_| random.usize(0..longest));
                let lengths = lengths.collect();
                (random.choice(&open).copied().unwrap(), lengths)
            })
            .collect();
        let several: Vec<_> = several
            .iter()
            .map(|(shard, it)| (*shard, &it[..]))
            .collect();
        done(&life, life.append_all(&log, &several).await)?;
        life.clock().advance_ms(random.u64(0..3));
    }
    Ok(())
}

async fn reshard_some(life: Life, log: TestLog, mut random: fastrand::Rng) -> Report {
    for _ in 0..random.usize(0..6) {
        let (open, sealed) = life.book(|book| (book.open_shards(), book.sealed_shards()));
        let reshard = match (open.as_slice(), random.u8(0..5)) {
            ([], _) => Reshard::Create(2),
            ([first, second, ..], 0 | 1) => Reshard::Merge(*first, *second),
            ([.., last], 2 | 3) if open.len() < 6 => Reshard::Split(*last),
            _ => sealed
                .first()
                .map_or(Reshard::Create(1), |shard| Reshard::Drop(*shard)),
        };
        done(&life, life.reshard(&log, reshard).await)?;
        for _ in 0..random.usize(0..20) {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

async fn retain_some(life: Life, log: TestLog, mut random: fastrand::Rng) -> Report {
    for _ in 0..random.usize(0..4) {
        let shards = life.book(|book| [book.open_shards(), book.sealed_shards()].concat());
        let Some(shard) = random.choice(shards) else {
            return Ok(());
        };
        done(&life, life.retain(&log, shard, random.u64(0..60)).await)?;
    }
    Ok(())
}

/// One in five seeds has no sync before the answer: what an acknowledged transaction, a clean stop and a start have
/// made durable is judged as strictly.
fn durability(seed: u64) -> Durability {
    match seed % (2 * LOSSY_EVERY) {
        3 => Durability::None,
        8 => Durability::Interval(std::time::Duration::from_hours(1)),
        _ => Durability::Fsync,
    }
}

async fn live(seed: u64, durability: Durability, mistake: Mistake) -> Result<Sum, String> {
    let mut machine = Machine::new(seed, durability, mistake);
    let report = machine.live().await;
    let wrong = |wrong| format!("seed {seed}, after cut {}: {wrong}", machine.sum.cuts);
    report.map_err(wrong)?;
    machine.sum.acked = machine.life.book(Book::acked);
    machine.sum.changes = machine.life.book(Book::changes);
    Ok(machine.sum)
}

/// Each seed is the life of one log with five cuts or kills and more: what was acknowledged is there after each, whole
/// and in order, no counter comes twice, what was found once stays, and no torn tail is refused.
#[tokio::test]
async fn s1_s2_s3_power_cuts_at_any_step() {
    let first = rounds(FIRST_SEED, 0, 0);
    let seeds = rounds(SEEDS, 300, 10_000);
    let mut sum = Sum::default();
    for some in (first..first + seeds).step_by(AT_ONCE) {
        let until = (some + segment::as_u64(AT_ONCE)).min(first + seeds);
        let lives =
            (some..until).map(|seed| tokio::spawn(live(seed, durability(seed), Mistake::None)));
        for life in lives.collect::<Vec<_>>() {
            sum.add(life.await.unwrap().unwrap());
        }
    }
    println!("power cuts, {seeds} seeds from {first}: {sum:?}, lost 0");
    let lives = usize::try_from(seeds).unwrap();
    assert!(sum.cuts > 3 * lives && sum.kills > lives, "{sum:?}");
    assert!(sum.acked > 10 * lives, "hardly a load: {sum:?}");
    // The rewriter works when nobody else does, so on a busy machine there are fewer.
    assert!(sum.recycled > lives / 30, "no file is used again: {sum:?}");
}

/// The suite is only worth something if it notices. Each bug must be found by some seed.
#[tokio::test]
async fn power_cuts_show_every_seeded_bug() {
    let bugs = SeededBug::IN_CONTENTS
        .into_iter()
        .chain([SeededBug::UnsyncedName]);
    let unsynced = Mistake::Omission(Omission::SyncsOf(segment::REWRITE));
    for mistake in bugs.map(Mistake::Bug).chain([unsynced]) {
        let mut found = None;
        for seed in 0..300 {
            found = live(seed, Durability::Fsync, mistake).await.err();
            if found.is_some() {
                break;
            }
        }
        let wrong = found.unwrap_or_else(|| panic!("{mistake:?} went unnoticed"));
        println!("{mistake:?}: {wrong}");
    }
}

/// What was cut off, and where later frames happen to end, is not taken for what follows them: commits that had
/// arrived without the one before them.
async fn cut_off_stays_away(omission: Option<Omission>) -> Report {
    let config = LogConfig {
        durability: Durability::None,
        ..tiny()
    };
    let disk = TracedDisk::new().without_pages();
    let life = Life::new(&disk, config, SeededBug::None);
    let opened = |life: &Life| life.open().map_err(|error| format!("refused: {error}"));
    let log = opened(&life)?;
    life.reshard(&log, Reshard::Create(1)).await.unwrap();
    let before = disk.steps();
    for _ in 0..4 {
        // A frame of 96 bytes.
        life.append(&log, 1, &[10]).await.unwrap();
    }
    let mut random = fastrand::Rng::with_seed(0);
    let writes =
        |step: &&Step| matches!(step, Step::Write(_, at, bytes) if *at > 0 && bytes.len() == 96);
    assert_eq!(disk.trace(before).iter().filter(writes).count(), 4);
    let image = disk.image(&mut random);
    // The last four items that wait; a spare may be among them.
    let all_but_first = Fate::Mask(!(1 << (image.waiting() - 4)));
    let left = TracedDisk::holding(image.cut(all_but_first)).without_pages();
    left.omit(omission);
    life.set_disk(&left);
    let log = opened(&life)?;
    life.check(&log, When::Opened, EVERYTHING).await?;
    assert_eq!(
        life.book(Book::acked),
        0,
        "the first was lost, and so were those after it"
    );
    // 48 bytes were written by the start; with these 144 the second of those that had arrived follows.
    life.append(&log, 1, &[58]).await.unwrap();
    left.stop_after(0);
    left.revive();
    let left = TracedDisk::holding(left.image(&mut random).cut(Fate::Mask(u64::MAX)));
    life.set_disk(&left);
    let log = opened(&life)?;
    life.check(&log, When::Opened, EVERYTHING).await
}

/// See [`cut_off_stays_away`]; a log that did not zero what it cuts off would be noticed.
#[tokio::test]
async fn s2_what_was_cut_off_never_comes_back() {
    cut_off_stays_away(None).await.unwrap();
    let wrong = cut_off_stays_away(Some(Omission::Zeros)).await;
    println!("zeros left out: {}", wrong.expect_err("it went unnoticed"));
}
