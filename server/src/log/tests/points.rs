//! Every point of scripted workloads at which a crash can come: the steps of the disk are recorded once, and what
//! each beginning of them may leave is opened. Of writes and names that wait for a sync every subset is tried where
//! they are few, else some.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::log::plan::SeededBug;
use crate::log::tests::book::{Book, Entry, Refusal, When};
use crate::log::tests::life::{Life, Reshard};
use crate::log::tests::traced_disk::{Fate, Files, Grain, Image, TracedDisk};
use crate::log::tests::{EVERYTHING, Report, TestLog, batch, rounds, tiny};
use crate::log::{Durability, Error, Format, LogConfig, LogShard};

/// How many drawn states of each point beside the subsets.
const DRAWS: &str = "MILLSTREAM_POINTS_DRAWS";
/// Up to so many items that wait, all their subsets are tried.
const FEW: usize = 4;

/// Together they make the log write in every way it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Script {
    FirstStart,
    Rotation,
    Reshards,
    Retention,
    /// Without a sync before the answer.
    Relaxed(Durability),
}

impl Script {
    pub(super) fn config(self) -> LogConfig {
        let durability = match self {
            Script::Relaxed(durability) => durability,
            _ => Durability::Fsync,
        };
        LogConfig {
            durability,
            segment_bytes: 1500,
            ..tiny()
        }
    }

    pub(super) async fn play(self, life: &Life) -> Result<(), Error> {
        let log = life.open()?;
        if self == Script::FirstStart {
            life.close(log).await;
            let log = life.open()?;
            life.reshard(&log, Reshard::Create(1)).await?;
            life.append(&log, 1, &[10, 20]).await?;
            life.close(log).await;
            return Ok(());
        }
        life.reshard(&log, Reshard::Create(2)).await?;
        match self {
            Script::FirstStart => {}
            Script::Rotation => rotate(life, &log).await?,
            Script::Reshards => return reshard(life, log).await,
            Script::Retention => retain(life, &log).await?,
            Script::Relaxed(_) => {
                append(life, &log, 1..9).await?;
                life.reshard(&log, Reshard::Split(1)).await?;
                append(life, &log, 2..8).await?;
                life.close(log).await;
                let log = life.open()?;
                append(life, &log, 8..11).await?;
                life.close(log).await;
                return Ok(());
            }
        }
        life.close(log).await;
        Ok(())
    }
}

async fn append(life: &Life, log: &TestLog, numbers: std::ops::Range<usize>) -> Result<(), Error> {
    for number in numbers {
        let shard = life.book(|book| book.open_shards()[number % 2]);
        let lengths = [number * 37 % 200, number * 91 % 150];
        life.append(log, shard, &lengths).await?;
        life.clock().advance_ms(1);
    }
    Ok(())
}

/// Over several segments, one of them made to measure.
async fn rotate(life: &Life, log: &TestLog) -> Result<(), Error> {
    append(life, log, 0..12).await?;
    let several = [(1, &[5000, 3, 2000][..]), (2, &[100, 200]), (1, &[300])];
    life.append_all(log, &several).await?;
    append(life, log, 12..20).await
}

async fn reshard(life: &Life, log: TestLog) -> Result<(), Error> {
    append(life, &log, 0..5).await?;
    life.reshard(&log, Reshard::Split(1)).await?;
    append(life, &log, 5..10).await?;
    life.close(log).await;
    let log = life.open()?;
    life.reshard(&log, Reshard::Merge(3, 4)).await?;
    append(life, &log, 10..15).await?;
    life.reshard(&log, Reshard::Drop(1)).await?;
    append(life, &log, 15..18).await?;
    life.close(log).await;
    Ok(())
}

async fn retain(life: &Life, log: &TestLog) -> Result<(), Error> {
    append(life, log, 0..24).await?;
    life.retain(log, 1, 12).await?;
    append(life, log, 24..32).await?;
    life.retain(log, 2, 8).await?;
    life.retain(log, 1, 6).await?;
    append(life, log, 32..36).await
}

/// How much was looked at.
#[derive(Debug, Default)]
struct Sum {
    steps: usize,
    states: usize,
    during_recovery: usize,
}

struct Points {
    life: Life,
    random: fastrand::Rng,
    draws: u64,
    seen: HashSet<u64>,
    sum: Sum,
}

impl Points {
    /// Plays the script, then goes through its steps.
    async fn of(script: Script, seed: u64, bug: SeededBug) -> Result<Sum, String> {
        let disk = TracedDisk::new();
        let life = Life::new(&disk, script.config(), bug);
        let played = script.play(&life).await;
        played.map_err(|error| format!("{script:?}: {error}"))?;
        let mut points = Points {
            random: fastrand::Rng::with_seed(seed),
            draws: rounds(DRAWS, 1, 20),
            seen: HashSet::new(),
            sum: Sum::default(),
            life,
        };
        let (trace, mut journal) = (disk.trace(0), points.life.journal().into_iter().peekable());
        let mut image = disk.start();
        let mut book = Book::new(script.config().durability);
        for done in 0..=trace.len() {
            while let Some((_, entry)) = journal.next_if(|(after, _)| *after <= done) {
                book.apply(entry);
                points.seen.clear();
            }
            let here = points.at(&image, &book).await;
            here.map_err(|wrong| format!("{script:?}, seed {seed}, after step {done}: {wrong}"))?;
            if let Some(step) = trace.get(done) {
                image.apply(step, &mut points.random);
            }
        }
        points.sum.steps = trace.len();
        Ok(points.sum)
    }

    /// Everything that may be found after this step.
    async fn at(&mut self, image: &Image, book: &Book) -> Report {
        for fate in self.fates(image) {
            let how = format!("{fate:?}");
            let left = image.cut(fate);
            if self.is_new(&left) {
                self.sum.states += 1;
                let opened = self.found(TracedDisk::holding(left), book).await;
                opened.map_err(|wrong| format!("power cut, {how}: {wrong}"))?;
            }
        }
        self.killed(image, book)
            .await
            .map_err(|wrong| format!("killed: {wrong}"))
    }

    fn fates(&mut self, image: &Image) -> Vec<Fate> {
        let mut fates = vec![Fate::Mask(0), Fate::Mask(u64::MAX)];
        let waiting = image.waiting();
        if waiting <= FEW {
            fates.extend((1..1 << waiting).map(Fate::Mask));
        }
        let grains = [Grain::Whole, Grain::Block(512), Grain::Block(4096)];
        for _ in 0..if waiting == 0 { 0 } else { self.draws } {
            fates.extend(grains.map(|grain| Fate::Drawn(self.random.fork(), grain)));
        }
        fates
    }

    fn is_new(&mut self, left: &(Files, Format)) -> bool {
        let mut hasher = DefaultHasher::new();
        left.hash(&mut hasher);
        self.seen.insert(hasher.finish())
    }

    /// What is on the disk is right, and stays so when the log goes on.
    async fn found(&self, disk: TracedDisk, book: &Book) -> Report {
        let mut book = book.clone();
        let opened = |how| {
            let log = self.life.open_on(&disk);
            log.map_err(|error| format!("refused {how}: {error}"))
        };
        let log = opened("at first")?;
        book.check(&log, When::Opened, EVERYTHING).await?;
        if let Some(shard) = book.open_shards().first() {
            book.apply(Entry::Sent(usize::MAX, *shard, vec!["more".to_owned()]));
            let appended = log.append(LogShard(*shard), batch(&["more"])).await;
            let answer = appended.map(|it| (it.first, it.time_ms));
            let answer = answer.map_err(|error| Refusal::from(&error));
            ensure!(answer.is_ok(), "an append is refused");
            book.apply(Entry::Answered(usize::MAX, answer));
        }
        log.close().await;
        drop(log);
        book.apply(Entry::Settled);
        book.check(&opened("again")?, When::Opened, EVERYTHING)
            .await
    }

    /// Only the process ends: the next one finds what was not synced too, and the power is cut at each step of its
    /// start, and after it.
    async fn killed(&mut self, image: &Image, book: &Book) -> Report {
        let disk = TracedDisk::alive(image.clone());
        let log = self
            .life
            .open_on(&disk)
            .map_err(|error| format!("refused: {error}"))?;
        let mut found = book.clone();
        found.check(&log, When::Opened, EVERYTHING).await?;
        let recovery = disk.trace(0);
        drop(log);
        let mut image = image.clone();
        for (number, step) in recovery.iter().enumerate() {
            image.apply(step, &mut self.random);
            let book = if number + 1 == recovery.len() {
                &found
            } else {
                book
            };
            let drawn = Fate::Drawn(self.random.fork(), Grain::Whole);
            for fate in [Fate::Mask(0), drawn] {
                let left = image.cut(fate);
                if self.is_new(&left) {
                    self.sum.during_recovery += 1;
                    let opened = self.found(TracedDisk::holding(left), book).await;
                    opened.map_err(|wrong| {
                        format!("then cut at {number} of {}: {wrong}", recovery.len())
                    })?;
                }
            }
        }
        Ok(())
    }
}

async fn enumerate(script: Script) {
    let seed = fastrand::u64(..);
    let sum = Points::of(script, seed, SeededBug::None).await.unwrap();
    println!("crash points, {script:?}, seed {seed}: {sum:?}, lost 0");
    assert!(
        sum.steps > 15 && sum.states + sum.during_recovery > sum.steps,
        "{sum:?}"
    );
}

/// A directory's first start and a second one.
#[tokio::test]
async fn s1_every_point_of_a_first_start() {
    enumerate(Script::FirstStart).await;
}

/// Segments follow each other.
#[tokio::test]
async fn s1_every_point_of_rotation() {
    enumerate(Script::Rotation).await;
}

/// A split, a merge after a restart, and the end of a shard.
#[tokio::test]
async fn s1_s5_every_point_of_reshards() {
    enumerate(Script::Reshards).await;
}

/// Segments are trimmed and rewritten.
#[tokio::test]
async fn s1_s7_every_point_of_retention() {
    enumerate(Script::Retention).await;
}

/// Without a sync before the answer, what is lost comes from the end, and nothing after a transaction, a clean stop
/// or a start.
#[tokio::test]
async fn s1_s2_every_point_without_syncs() {
    enumerate(Script::Relaxed(Durability::None)).await;
    enumerate(Script::Relaxed(Durability::Interval(Duration::from_hours(
        1,
    ))))
    .await;
}

/// The suite is only worth something if it notices.
#[tokio::test]
async fn crash_points_show_every_seeded_bug() {
    let relaxed = Script::Relaxed(Durability::None);
    for (script, bug) in [
        (Script::Rotation, SeededBug::UnsyncedName),
        (Script::Retention, SeededBug::LoseUnseen),
        (relaxed, SeededBug::UnsyncedEpoch),
    ] {
        let wrong = Points::of(script, 1, bug).await;
        let wrong = wrong.expect_err(&format!("{bug:?} went unnoticed"));
        println!("{bug:?}: {wrong}");
    }
}
