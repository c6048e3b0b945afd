//! Linearizability: what concurrent callers were answered about a shard, and about the metadata, is what the same calls would
//! have been answered one after another, each at some moment between its beginning and its end; power cuts included. A call
//! that the power cut left without an answer happened before it or never.
//!
//! Callers are tasks on threads, histories are judged by stateright's tester, one history per object: a shard, or the metadata.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use crate::clock::ManualClock;
use crate::log::plan::{EPOCH_SHIFT, SeededBug};
use crate::log::tests::{NOW_MS, TestLog, batch, create, open_under, seal, tiny};
use crate::log::{Error, LogConfig, LogShard, MemoryDisk, ReadLimit, ReadRecord};

/// Shards of each history; a caller has as much of each as of the metadata.
const SHARDS: u64 = 2;
/// How long the tester may look for an order. It finds one in milliseconds, and may look for ever if there is none.
const PATIENCE: Duration = Duration::from_mins(1);

/// A record: its counter, and the number that was its data.
type Kept = (u64, u64);

/// What is asked of a shard, or of the metadata. `life` counts the starts of the log: what was asked in one life happens in it.
#[derive(Debug, Clone, PartialEq)]
enum Call {
    Append { life: u64, numbers: Vec<u64> },
    Seal { life: u64 },
    Page { from: u64, most: usize },
    ToTheTip { from: u64 },
    Tail,
    Commit { life: u64, number: u64 },
    Events,
    Restart,
}

#[derive(Debug, Clone, PartialEq)]
enum Answer {
    /// The counter of the first record.
    Appended(u64),
    Sealed,
    Records(Arc<[Kept]>),
    Tail {
        next: u64,
        sealed: bool,
    },
    Events(Arc<[u64]>),
    Done,
    /// Nothing has happened, for a reason that lies elsewhere.
    Refused,
    /// What nothing explains.
    Failed(String),
    /// What a call that was never answered would be told.
    Nothing,
}

/// One object, one call at a time.
#[derive(Debug, Clone, Default)]
struct Spec {
    life: u64,
    kept: Vec<Kept>,
    sealed: bool,
    events: Vec<u64>,
}

impl Spec {
    fn next(&self) -> u64 {
        self.kept.last().map_or(0, |(counter, _)| counter + 1)
    }

    fn since(&self, from: u64) -> &[Kept] {
        let before = self.kept.partition_point(|(counter, _)| *counter < from);
        &self.kept[before..]
    }
}

impl SequentialSpec for Spec {
    type Op = Call;
    type Ret = Answer;

    fn invoke(&mut self, call: &Call) -> Answer {
        match call {
            Call::Append { life, .. } | Call::Seal { life } | Call::Commit { life, .. }
                if *life != self.life =>
            {
                Answer::Nothing
            }
            Call::Append { .. } | Call::Seal { .. } if self.sealed => Answer::Sealed,
            Call::Append { life, numbers } => {
                let first = self.next().max((life + 1) << EPOCH_SHIFT);
                self.kept.extend((first..).zip(numbers.iter().copied()));
                Answer::Appended(first)
            }
            Call::Seal { .. } => {
                self.sealed = true;
                Answer::Done
            }
            Call::Page { from, .. } | Call::ToTheTip { from } => {
                Answer::Records(self.since(*from).into())
            }
            Call::Tail => Answer::Tail {
                next: self.next(),
                sealed: self.sealed,
            },
            Call::Commit { number, .. } => {
                self.events.push(*number);
                Answer::Events(self.events.as_slice().into())
            }
            Call::Events => Answer::Events(self.events.as_slice().into()),
            Call::Restart => {
                self.life += 1;
                Answer::Done
            }
        }
    }

    fn is_valid_step(&mut self, call: &Call, answer: &Answer) -> bool {
        match (call, answer) {
            (_, Answer::Refused) => true,
            // A page ends where the server likes, but not before the first record.
            (Call::Page { from, most }, Answer::Records(page)) => {
                let since = self.since(*from);
                page.len() <= *most
                    && page.is_empty() == since.is_empty()
                    && since.starts_with(page)
            }
            _ => self.invoke(call) == *answer,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Object {
    Shard(u64),
    Metadata,
}

#[derive(Debug, Clone)]
enum Moment {
    Called(Call),
    Answered(Answer),
}

/// Who, about what, and what of it, in the order it happened.
type History = Vec<(u64, Object, Moment)>;

/// Looks for an order of one object's calls that explains every answer.
fn explain(history: &History, object: Object) -> Result<(), String> {
    let mut tester = LinearizabilityTester::new(Spec::default());
    for (caller, _, moment) in history.iter().filter(|(_, of, _)| *of == object) {
        match moment {
            Moment::Called(call) => tester.on_invoke(*caller, call.clone())?,
            Moment::Answered(answer) => tester.on_return(*caller, answer.clone())?,
        };
    }
    let (tell, verdict) = sync_channel(1);
    std::thread::spawn(move || tell.send(tester.is_consistent()));
    match verdict.recv_timeout(PATIENCE) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("no order of calls explains {object:?}")),
        Err(_) => Err(format!("no order was found in {PATIENCE:?} for {object:?}")),
    }
}

fn explain_all(history: &History) -> Result<(), String> {
    let objects: BTreeSet<Object> = history.iter().map(|(_, object, _)| *object).collect();
    objects
        .into_iter()
        .try_for_each(|object| explain(history, object))
}

/// What callers note down; nothing more once the power is cut.
#[derive(Debug, Default)]
struct Notes {
    history: History,
    power_is_off: bool,
    calls: usize,
}

#[derive(Debug, Clone, Copy)]
struct Size {
    callers: u64,
    /// Calls of all callers in each life.
    calls: usize,
    lives: u64,
}

struct Scene {
    random: fastrand::Rng,
    config: LogConfig,
    bug: SeededBug,
    disk: MemoryDisk,
    notes: Arc<Mutex<Notes>>,
    next_caller: u64,
}

/// A caller: asks one thing at a time.
struct Caller {
    id: u64,
    life: u64,
    log: TestLog,
    random: fastrand::Rng,
    notes: Arc<Mutex<Notes>>,
    calls: usize,
    next_number: u64,
}

impl Caller {
    /// `None` once the power is off: whatever comes then was not seen by anybody.
    fn note(&self, object: Object, moment: Moment) -> Option<()> {
        let mut notes = self.notes.lock().unwrap();
        if notes.power_is_off {
            return None;
        }
        notes.calls += usize::from(matches!(moment, Moment::Called(_)));
        notes.history.push((self.id, object, moment));
        Some(())
    }

    fn numbers(&mut self) -> Vec<u64> {
        let count = self.random.u64(1..4);
        let first = self.id * 1_000_000 + self.next_number;
        self.next_number += count;
        (first..first + count).collect()
    }

    async fn run(mut self) {
        for _ in 0..self.calls {
            if self.call().await.is_none() {
                return;
            }
        }
    }

    async fn call(&mut self) -> Option<()> {
        let shard = self.random.u64(1..=SHARDS);
        let (object, life) = (Object::Shard(shard), self.life);
        let call = match self.random.u8(0..32) {
            0 => {
                // Changes nothing that anybody could see.
                drop(self.log.rewrite(|_| Some(0)).await);
                return Some(());
            }
            1 => return self.seal(shard).await,
            2..=4 => Call::Commit {
                life,
                number: self.numbers()[0],
            },
            5..=7 => Call::Events,
            8..=12 => Call::Tail,
            13..=16 => Call::ToTheTip {
                from: self.some_counter(shard),
            },
            17..=20 => Call::Page {
                from: self.some_counter(shard),
                most: self.random.usize(1..9),
            },
            _ => Call::Append {
                life,
                numbers: self.numbers(),
            },
        };
        let object = match call {
            Call::Commit { .. } | Call::Events => Object::Metadata,
            _ => object,
        };
        self.note(object, Moment::Called(call.clone()))?;
        let answer = ask(&self.log, shard, &call).await;
        self.note(object, Moment::Answered(answer))
    }

    fn some_counter(&mut self, shard: u64) -> u64 {
        let next = self.log.tail(LogShard(shard)).map_or(0, |tail| tail.next);
        match self.random.u8(0..3) {
            0 => 0,
            1 => next.saturating_sub(self.random.u64(0..6)),
            _ => next,
        }
    }

    /// A transaction about two objects.
    async fn seal(&mut self, shard: u64) -> Option<()> {
        let (object, life, number) = (Object::Shard(shard), self.life, self.numbers()[0]);
        self.note(object, Moment::Called(Call::Seal { life }))?;
        self.note(
            Object::Metadata,
            Moment::Called(Call::Commit { life, number }),
        )?;
        let sealed = self.log.commit(seal(&number.to_string(), &[shard])).await;
        let (of_shard, of_metadata) = match sealed {
            Ok(metadata) => (Answer::Done, Answer::Events(numbers(&metadata.0))),
            Err(Error::Sealed(_)) => (Answer::Sealed, Answer::Refused),
            Err(Error::Overloaded { .. }) => (Answer::Refused, Answer::Refused),
            Err(error) => (Answer::Failed(error.to_string()), Answer::Refused),
        };
        self.note(object, Moment::Answered(of_shard))?;
        self.note(Object::Metadata, Moment::Answered(of_metadata))
    }
}

fn numbers(texts: &[String]) -> Arc<[u64]> {
    let numbers = texts.iter().filter_map(|text| text.parse().ok());
    numbers.collect()
}

/// Asks the log.
async fn ask(log: &TestLog, shard: u64, call: &Call) -> Answer {
    let answered = match call {
        Call::Append { numbers, .. } => {
            let texts: Vec<String> = numbers.iter().map(u64::to_string).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let appended = log.append(LogShard(shard), batch(&texts)).await;
            appended.map(|appended| Answer::Appended(appended.first))
        }
        Call::Page { from, most } => {
            let page = read(log, shard, *from, *most).await;
            page.map(|page| Answer::Records(page.into()))
        }
        Call::ToTheTip { from } => read_on(log, shard, *from).await,
        Call::Tail => {
            let tail = log.tail(LogShard(shard)).ok_or(Error::Closed);
            tail.map(|tail| Answer::Tail {
                next: tail.next,
                sealed: tail.sealed,
            })
        }
        Call::Commit { number, .. } => {
            let metadata = log.commit(create(&number.to_string(), &[])).await;
            metadata.map(|metadata| Answer::Events(numbers(&metadata.0)))
        }
        Call::Events => Ok(Answer::Events(numbers(&log.metadata().0))),
        Call::Seal { .. } | Call::Restart => unreachable!("asked elsewhere"),
    };
    match answered {
        Ok(answer) => answer,
        Err(Error::Sealed(_)) => Answer::Sealed,
        Err(Error::Overloaded { .. }) => Answer::Refused,
        Err(error) => Answer::Failed(error.to_string()),
    }
}

async fn read(log: &TestLog, shard: u64, from: u64, most: usize) -> Result<Vec<Kept>, Error> {
    let limit = ReadLimit {
        records: most,
        bytes: usize::MAX,
    };
    let records = log.read(LogShard(shard), from, limit, 0).await?;
    let kept = |record: &ReadRecord| {
        let text = String::from_utf8_lossy(record.data());
        (record.counter, text.parse().expect("a number was put"))
    };
    Ok(records.iter().map(kept).collect())
}

/// Page by page until one is empty: at that moment this is all there is.
async fn read_on(log: &TestLog, shard: u64, mut from: u64) -> Result<Answer, Error> {
    let mut all: Vec<Kept> = Vec::new();
    loop {
        let page = read(log, shard, from, 7).await?;
        let Some((last, _)) = page.last() else {
            return Ok(Answer::Records(all.into()));
        };
        from = last + 1;
        all.extend(page);
    }
}

impl Scene {
    fn new(seed: u64, bug: SeededBug) -> Scene {
        let mut random = fastrand::Rng::with_seed(seed);
        let segment_bytes = random.u64(1500..6000);
        let config = LogConfig {
            segment_bytes,
            ..tiny()
        };
        let (disk, notes) = (MemoryDisk::crashable(), Arc::default());
        Scene {
            random,
            config,
            bug,
            disk,
            notes,
            next_caller: 1,
        }
    }

    /// Calls made by the scene itself, alone.
    async fn alone(&self, log: &TestLog, object: Object, call: Call) {
        let answer = match (&object, &call) {
            (_, Call::Restart) => Answer::Done,
            (Object::Shard(shard), _) => ask(log, *shard, &call).await,
            (Object::Metadata, _) => ask(log, 0, &call).await,
        };
        let mut notes = self.notes.lock().unwrap();
        notes.history.push((0, object, Moment::Called(call)));
        notes.history.push((0, object, Moment::Answered(answer)));
    }

    /// Several lives of one log, with a power cut after each; what was noted.
    async fn play(mut self, size: Size) -> History {
        let clock = ManualClock::at(NOW_MS);
        let objects = (1..=SHARDS).map(Object::Shard).chain([Object::Metadata]);
        let objects: Vec<Object> = objects.collect();
        for life in 0..=size.lives {
            let log = match open_under(&clock, &self.disk, self.config, self.bug) {
                Ok(log) => log,
                // What some bugs leave is refused; the tester must notice them by what was seen before.
                Err(_) if self.bug != SeededBug::None => break,
                Err(error) => panic!("life {life}: {error}"),
            };
            if life == 0 {
                let shards: Vec<u64> = (1..=SHARDS).collect();
                log.commit(create("shards", &shards)).await.unwrap();
            }
            for object in &objects {
                if life > 0 {
                    self.alone(&log, *object, Call::Restart).await;
                }
                let all = match object {
                    Object::Shard(_) => Call::ToTheTip { from: 0 },
                    Object::Metadata => Call::Events,
                };
                self.alone(&log, *object, all).await;
            }
            if life < size.lives {
                self.live(life, &log, size).await;
            }
            log.close().await;
        }
        std::mem::take(&mut self.notes.lock().unwrap().history)
    }

    /// Waits until so many calls have begun, or none begins any more.
    async fn until_calls(&self, calls: usize) {
        for _ in 0..20_000 {
            if self.notes.lock().unwrap().calls >= calls {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Callers at work until the power is cut, or a little longer than they need.
    async fn live(&mut self, life: u64, log: &TestLog, size: Size) {
        let begun = self.notes.lock().unwrap().calls;
        let mut callers = Vec::new();
        for _ in 0..size.callers {
            let caller = Caller {
                id: self.next_caller,
                life,
                log: log.clone(),
                random: self.random.fork(),
                notes: Arc::clone(&self.notes),
                calls: size.calls / usize::try_from(size.callers).unwrap(),
                next_number: 0,
            };
            self.next_caller += 1;
            callers.push(tokio::spawn(caller.run()));
        }
        let cut_after = begun + self.random.usize(size.calls / 2..size.calls);
        let (held, read_on) = (self.random.bool(), self.random.usize(0..8));
        self.until_calls(cut_after).await;
        // Then answers of writes stop coming, while readers go on.
        self.disk.hold_syncs(held);
        self.until_calls(cut_after + read_on).await;
        let left = {
            let mut notes = self.notes.lock().unwrap();
            notes.power_is_off = true;
            self.disk.crash(self.random.u64(..))
        };
        self.disk.hold_syncs(false);
        for caller in callers {
            caller.await.unwrap();
        }
        self.disk = left;
        self.notes.lock().unwrap().power_is_off = false;
    }
}

fn unanswered(history: &History) -> usize {
    let mut open: BTreeMap<(u64, Object), usize> = BTreeMap::new();
    for (caller, object, moment) in history {
        let is_open = open.entry((*caller, *object)).or_default();
        *is_open = usize::from(matches!(moment, Moment::Called(_)));
    }
    open.values().sum()
}

/// How many histories, `MILLSTREAM_LONG=1` for many.
fn histories() -> u64 {
    let is_long = std::env::var("MILLSTREAM_LONG").is_ok_and(|long| long == "1");
    if is_long { 400 } else { 30 }
}

/// Four callers and one to three power cuts a history, 50 to 200 calls; a failure names its seed, though threads race
/// differently each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s3_what_concurrent_callers_see_is_linearizable() {
    let first = fastrand::u64(..1 << 40);
    println!("linearizable: first seed {first}");
    let (mut calls, mut lost) = (0, 0);
    let mut longest = 0;
    for seed in first..first + histories() {
        let lives = seed % 3 + 1;
        // Half of them at least before the power is cut.
        let calls_of_all = 100 + usize::try_from(seed % 5).unwrap() * 25;
        let size = Size {
            callers: 4,
            calls: calls_of_all / usize::try_from(lives).unwrap(),
            lives,
        };
        let history = Scene::new(seed, SeededBug::None).play(size).await;
        let called = |(_, _, moment): &&(u64, Object, Moment)| matches!(moment, Moment::Called(_));
        let called = history.iter().filter(called).count();
        (calls, longest) = (calls + called, longest.max(called));
        lost += unanswered(&history);
        if let Err(wrong) = explain_all(&history) {
            panic!("seed {seed}: {wrong}: {history:#?}");
        }
    }
    println!(
        "linearizable: {} histories, {calls} calls, {longest} in the longest, {lost} without an answer",
        histories()
    );
}

/// Bugs in the log must be noticed by the tester: an answer before the sync, a counter given out twice, an append after a
/// seal, a batch that is answered and not written. Two callers and few calls, so that there are few orders to look through.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_of_every_seeded_bug_are_not_linearizable() {
    let bugs = [
        SeededBug::AckBeforeSync,
        SeededBug::ReuseCounter,
        SeededBug::IgnoreSeal,
        SeededBug::SkipBatch,
    ];
    let size = Size {
        callers: 2,
        calls: 40,
        lives: 2,
    };
    for bug in bugs {
        let mut found = None;
        for seed in 0..300 {
            let history = Scene::new(seed, bug).play(size).await;
            found = explain_all(&history).err().map(|wrong| (seed, wrong));
            if found.is_some() {
                break;
            }
        }
        let (seed, wrong) = found.unwrap_or_else(|| panic!("{bug:?} went unnoticed"));
        println!("{bug:?}: after {} histories, {wrong}", seed + 1);
    }
}

/// The tester and the model of a shard, by hand: sound histories are explained, each wrong one is not.
#[test]
fn wrong_histories_are_not_explained() {
    use Answer::{Appended, Done, Records, Sealed, Tail};
    const BASE: u64 = 1 << EPOCH_SHIFT;
    let append = |number| Call::Append {
        life: 0,
        numbers: vec![number],
    };
    let whole = || Call::ToTheTip { from: 0 };
    let kept = |kept: &[Kept]| Records(kept.into());
    let tail = |next, sealed| Tail { next, sealed };
    let seal = || Call::Seal { life: 0 };
    let one_by_one = |calls: Vec<(Call, Answer)>| -> History {
        let moments = calls
            .into_iter()
            .flat_map(|(call, answer)| [Moment::Called(call), Moment::Answered(answer)]);
        moments
            .map(|moment| (1, Object::Shard(1), moment))
            .collect()
    };
    let first = || (append(7), Appended(BASE));
    let sound = [
        vec![first(), (whole(), kept(&[(BASE, 7)]))],
        vec![first(), (seal(), Done), (append(8), Sealed)],
        vec![
            first(),
            (Call::Restart, Done),
            (Call::Tail, tail(BASE + 1, false)),
        ],
    ];
    for calls in sound {
        explain_all(&one_by_one(calls)).unwrap();
    }
    let wrong = [
        ("a stale tail", vec![first(), (Call::Tail, tail(0, false))]),
        (
            "an append after a seal",
            vec![(seal(), Done), (append(7), Appended(BASE))],
        ),
        (
            "a seal that is gone",
            vec![(seal(), Done), (Call::Tail, tail(0, false))],
        ),
        (
            "a record lost by a restart",
            vec![first(), (Call::Restart, Done), (whole(), kept(&[]))],
        ),
        (
            "a counter twice",
            vec![first(), (append(8), Appended(BASE))],
        ),
        (
            "a record left out",
            vec![
                first(),
                (append(8), Appended(BASE + 1)),
                (whole(), kept(&[(BASE + 1, 8)])),
            ],
        ),
        (
            "another record",
            vec![first(), (whole(), kept(&[(BASE, 8)]))],
        ),
    ];
    for (what, calls) in wrong {
        assert!(explain_all(&one_by_one(calls)).is_err(), "{what}");
    }
}

/// Two callers at a time, by hand: a call without an answer may have happened before the power cut, and not after it; what was
/// seen by one is not unseen by another.
#[test]
fn overlapping_histories_are_judged_by_the_times_of_their_calls() {
    const BASE: u64 = 1 << EPOCH_SHIFT;
    let called = |caller, call| (caller, Object::Shard(1), Moment::Called(call));
    let answered = |caller, answer| (caller, Object::Shard(1), Moment::Answered(answer));
    let kept = |kept: &[Kept]| Answer::Records(kept.into());
    let append = || Call::Append {
        life: 0,
        numbers: vec![7],
    };
    let whole = || Call::ToTheTip { from: 0 };
    let (seen, unseen) = (|| kept(&[(BASE, 7)]), || kept(&[]));
    let alone = |caller, call: Call, answer| vec![called(caller, call), answered(caller, answer)];
    let restart = || alone(9, Call::Restart, Answer::Done);
    let begun = || vec![called(1, append())];
    let judged = |parts: Vec<History>| explain_all(&parts.concat()).is_ok();

    let read_then = |before: Answer, after: Answer| {
        vec![begun(), alone(2, whole(), before), alone(3, whole(), after)]
    };
    assert!(judged(read_then(unseen(), unseen())));
    assert!(judged(read_then(unseen(), seen())));
    assert!(judged(read_then(seen(), seen())));
    assert!(!judged(read_then(seen(), unseen())), "unseen again");

    let over_a_restart = |before: Answer, after: Answer| {
        let (before, after) = (alone(2, whole(), before), alone(3, whole(), after));
        vec![begun(), before, restart(), after]
    };
    assert!(judged(over_a_restart(unseen(), unseen())));
    assert!(judged(over_a_restart(unseen(), seen())));
    assert!(
        !judged(over_a_restart(seen(), unseen())),
        "seen before it was durable"
    );
    let late = vec![
        begun(),
        restart(),
        alone(2, whole(), unseen()),
        alone(3, whole(), seen()),
    ];
    assert!(!judged(late), "it happened after the power cut");
}
