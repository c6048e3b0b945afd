//! Two faults in a row: what a crash left is being recovered when an operation of the disk fails, and before all is well again the
//! power goes off, or the process is killed and the power goes off in or after the start that follows. Every pair of a failing
//! operation and a later step is tried.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::log::plan::SeededBug;
use crate::log::tests::book::{Book, Entry, Refusal, When};
use crate::log::tests::life::{Life, Reshard};
use crate::log::tests::points::Script;
use crate::log::tests::traced_disk::{Failure, Fate, Fault, Files, Grain, Image, TracedDisk};
use crate::log::tests::{EVERYTHING, Report, TestLog, batch, rounds, tiny};
use crate::log::{Durability, Format, LogConfig, LogShard};

/// How many of the states that a crash may leave are recovered, of each workload.
const STATES: &str = "MILLSTREAM_TWO_FAULTS_STATES";
const ALL: u64 = 100_000;
const FAILURES: [Failure; 3] = [Failure::Broken, Failure::Full, Failure::Short];

/// What a crash may leave, and what must be found in it.
struct Left {
    files: (Files, Format),
    book: Book,
    how: String,
}

/// The states that a crash at any step of a workload may leave, each once.
struct Workload {
    life: Life,
    states: Vec<Left>,
}

impl Workload {
    async fn of(script: Script, random: &mut fastrand::Rng) -> Workload {
        let disk = TracedDisk::new();
        let life = Life::new(&disk, script.config(), SeededBug::None);
        script.play(&life).await.unwrap();
        Workload::played(life, random)
    }

    /// Four commits of one length without a sync: where the first is lost, those after it are cut off. What is written then ends
    /// where one of them begins.
    async fn torn(random: &mut fastrand::Rng) -> Workload {
        let config = LogConfig {
            durability: Durability::None,
            ..tiny()
        };
        let life = Life::new(&TracedDisk::new(), config, SeededBug::None);
        let log = life.open().unwrap();
        life.reshard(&log, Reshard::Create(1)).await.unwrap();
        for _ in 0..4 {
            life.append(&log, 1, &[10]).await.unwrap();
        }
        Workload::played(life, random)
    }

    fn played(life: Life, random: &mut fastrand::Rng) -> Workload {
        let disk = life.disk();
        let (trace, mut journal) = (disk.trace(0), life.journal().into_iter().peekable());
        let (mut image, mut seen) = (disk.start(), HashSet::new());
        let mut book = life.book(Book::anew);
        let mut states = Vec::new();
        for done in 0..=trace.len() {
            while let Some((_, entry)) = journal.next_if(|(after, _)| *after <= done) {
                book.apply(entry);
                seen.clear();
            }
            for fate in fates(&image, random) {
                let how = format!("after step {done}, {fate:?}");
                let files = image.cut(fate);
                if seen.insert(hash(&files)) {
                    let book = book.clone();
                    states.push(Left { files, book, how });
                }
            }
            if let Some(step) = trace.get(done) {
                image.apply(step, random);
            }
        }
        Workload { life, states }
    }
}

fn hash(files: &(Files, Format)) -> u64 {
    let mut hasher = DefaultHasher::new();
    files.hash(&mut hasher);
    hasher.finish()
}

/// Nothing that waits for a sync, all of it, all but the first or one of the last four, and some of it.
fn fates(image: &Image, random: &mut fastrand::Rng) -> Vec<Fate> {
    let waiting = image.waiting();
    let mut masks = vec![0, u64::MAX];
    masks.extend((waiting.saturating_sub(4)..waiting.min(63)).map(|item| !(1 << item)));
    let drawn = [Grain::Whole, Grain::Block(512)].map(|grain| Fate::Drawn(random.fork(), grain));
    masks.into_iter().map(Fate::Mask).chain(drawn).collect()
}

/// What was looked at.
#[derive(Debug, Default)]
struct Sum {
    states: usize,
    /// Operations that failed, and starts that were refused for it.
    faults: usize,
    refused: usize,
    /// What was opened after the second fault.
    cuts: usize,
}

/// The disk in the middle of it all.
struct Pairs<'w> {
    life: &'w Life,
    random: fastrand::Rng,
    sum: Sum,
}

impl Pairs<'_> {
    fn open(&self, disk: &TracedDisk) -> Result<TestLog, String> {
        let log = self.life.open_on(disk);
        log.map_err(|error| format!("refused: {error}"))
    }

    /// Every operation of the recovery of this state fails, one after the other.
    async fn state(&mut self, left: &Left) -> Report {
        self.sum.states += 1;
        let disk = TracedDisk::holding(left.files.clone());
        drop(self.open(&disk)?);
        for at in 0..disk.operations() {
            let failure = FAILURES[self.random.usize(..FAILURES.len())];
            let fault = Fault::Once(at, failure);
            let pair = self.fault(left, fault).await;
            pair.map_err(|wrong| format!("{}, then {fault:?}, {wrong}", left.how))?;
        }
        Ok(())
    }

    async fn fault(&mut self, left: &Left, fault: Fault) -> Report {
        self.sum.faults += 1;
        let disk = TracedDisk::holding(left.files.clone());
        disk.set_fault(Some(fault));
        let mut book = left.book.clone();
        match self.life.open_on(&disk) {
            Err(_) => self.sum.refused += 1,
            Ok(log) => {
                disk.set_fault(None);
                let checked = book.check(&log, When::Opened, EVERYTHING).await;
                checked.map_err(|wrong| format!("at once: {wrong}"))?;
            }
        }
        disk.set_fault(None);
        let image = disk.image(&mut self.random);
        self.cut(&image, &book).await?;
        self.kill(&disk, image, book).await
    }

    /// The power goes off.
    async fn cut(&mut self, image: &Image, book: &Book) -> Report {
        let drawn = Fate::Drawn(self.random.fork(), Grain::Whole);
        for fate in [Fate::Mask(0), Fate::Mask(u64::MAX), drawn] {
            self.sum.cuts += 1;
            let how = format!("power cut, {fate:?}");
            let disk = TracedDisk::holding(image.cut(fate));
            let found = self.found(&disk, &mut book.clone()).await;
            found.map_err(|wrong| format!("{how}: {wrong}"))?;
        }
        Ok(())
    }

    async fn found(&self, disk: &TracedDisk, book: &mut Book) -> Report {
        let log = self.open(disk)?;
        book.check(&log, When::Opened, EVERYTHING).await
    }

    /// Only the process ends. The next one finds what is in memory, goes on, and the power goes off after each step of that.
    async fn kill(&mut self, disk: &TracedDisk, mut image: Image, before: Book) -> Report {
        let begins = disk.steps();
        let mut book = before.clone();
        let log = self
            .open(disk)
            .map_err(|wrong| format!("killed: {wrong}"))?;
        let checked = book.check(&log, When::Opened, EVERYTHING).await;
        checked.map_err(|wrong| format!("killed: {wrong}"))?;
        let opened = disk.steps();
        let mut sent = book.clone();
        if let Some(shard) = book.open_shards().first() {
            // 144 bytes in the log, which are 192 with what a start writes.
            let text = "m".repeat(62);
            sent.apply(Entry::Sent(usize::MAX, *shard, vec![text.clone()]));
            book = sent.clone();
            let appended = log.append(LogShard(*shard), batch(&[&text])).await;
            let answer = appended.map(|it| (it.first, it.time_ms));
            let answer = answer.map_err(|error| Refusal::from(&error));
            ensure!(answer.is_ok(), "killed: an append is refused");
            book.apply(Entry::Answered(usize::MAX, answer));
        }
        let trace = disk.trace(begins);
        drop(log);
        for (number, step) in trace.iter().enumerate() {
            image.apply(step, &mut self.random);
            let done = begins + number + 1;
            let book = match done {
                _ if number + 1 == trace.len() => &book,
                _ if done >= opened => &sent,
                _ => &before,
            };
            let cut = self.cut(&image, book).await;
            cut.map_err(|wrong| format!("killed, after {number} of {}: {wrong}", trace.len()))?;
        }
        Ok(())
    }
}

async fn try_all(
    name: &str,
    states: u64,
    make: impl AsyncFn(&mut fastrand::Rng) -> Workload,
) -> Report {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut workload = make(&mut random).await;
    random.shuffle(&mut workload.states);
    let states = usize::try_from(states).unwrap();
    let mut pairs = Pairs {
        life: &workload.life,
        random,
        sum: Sum::default(),
    };
    for left in workload.states.iter().take(states) {
        let tried = pairs.state(left).await;
        tried.map_err(|wrong| format!("{name}, seed {seed}: {wrong}"))?;
    }
    let of = workload.states.len();
    println!(
        "two faults, {name}, seed {seed}, of {of} states: {:?}, lost 0",
        pairs.sum
    );
    Ok(())
}

/// A start that fails in the middle, and the power: over segments that follow each other.
#[tokio::test]
async fn s1_s2_two_faults_in_a_row_amid_rotation() {
    let make = async |random: &mut fastrand::Rng| Workload::of(Script::Rotation, random).await;
    try_all("rotation", rounds(STATES, 3, ALL), make)
        .await
        .unwrap();
}

/// See above: with shards that are split and merged.
#[tokio::test]
async fn s1_s5_two_faults_in_a_row_amid_reshards() {
    let make = async |random: &mut fastrand::Rng| Workload::of(Script::Reshards, random).await;
    try_all("reshards", rounds(STATES, 3, ALL), make)
        .await
        .unwrap();
}

/// See above: with segments that are trimmed and rewritten.
#[tokio::test]
async fn s1_s7_two_faults_in_a_row_amid_retention() {
    let make = async |random: &mut fastrand::Rng| Workload::of(Script::Retention, random).await;
    try_all("retention", rounds(STATES, 3, ALL), make)
        .await
        .unwrap();
}

/// A tail that is cut off, by a start whose operations fail.
#[tokio::test]
async fn s2_two_faults_in_a_row_after_a_torn_tail() {
    try_all("a torn tail", ALL, Workload::torn).await.unwrap();
}
