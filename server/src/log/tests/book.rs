//! What was asked of a log, what it answered, and so what must be found in it, kept outside of it: a fold over
//! [`Entry`]s. Judges; asks nothing itself.
//!
//! An answer binds for ever: what was acknowledged is there, what was refused is not, and what was not answered is
//! there or not as the next start finds it, and stays so.

use std::collections::{BTreeMap, BTreeSet};

use crate::log::tests::{Events, Kept, Report, TestLog, read_every};
use crate::log::{Durability, Error, LogShard, ReadLimit};

/// One thing that happened.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    /// A batch was sent, its number, its shard and its texts.
    Sent(usize, u64, Vec<String>),
    /// And was given its first counter and its time, or an error.
    Answered(usize, Result<(u64, u64), Refusal>),
    /// A transaction was sent: its event and the shards it seals, creates and drops.
    Change(String, [Vec<u64>; 3]),
    /// And committed or not.
    Changed(Result<(), Refusal>),
    /// From now on older records of the shard may go.
    Horizon(u64, u64),
    /// The log was closed in order, or opened: what it had answered is durable, whatever the setting.
    Settled,
}

/// Why there is no success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nothing was written.
    Final,
    /// Nobody knows before the next start.
    Open,
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Refusal {
        match error {
            Error::Sealed(_)
            | Error::Unknown(_)
            | Error::Exists(_)
            | Error::Overloaded { .. }
            | Error::TooLarge { .. }
            | Error::NoSpace { .. }
            | Error::Metadata(_) => Refusal::Final,
            _ => Refusal::Open,
        }
    }
}

#[derive(Debug, Clone)]
struct Batch {
    shard: u64,
    texts: Vec<String>,
    /// Its counters must be at least this: they were given out before it was sent.
    floor: u64,
    after_seal: bool,
    state: State,
}

impl Batch {
    /// The batch as reports name it.
    fn name(&self) -> &str {
        let first = self.texts.first();
        first
            .and_then(|text| text.split(' ').next())
            .unwrap_or_default()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unanswered,
    /// First counter, time, and the number of the answer.
    Acked(u64, u64, usize),
    /// Refused, or not found by a start.
    Absent,
}

#[derive(Debug, Clone, Default)]
struct Shard {
    sealed: bool,
    horizon_ms: u64,
    given_out: u64,
    /// First counters of all ranges that were ever given out, and where they end.
    taken: BTreeMap<u64, u64>,
}

#[derive(Debug, Clone)]
struct Change {
    event: String,
    shards: [Vec<u64>; 3],
    /// The number of the last answer before it was sent.
    after: usize,
}

/// Whether answers may still be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// The log runs, and nothing is on its way.
    Running,
    /// It was opened just now.
    Opened,
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Book {
    durability: Durability,
    batches: BTreeMap<usize, Batch>,
    shards: BTreeMap<u64, Shard>,
    dropped: BTreeSet<u64>,
    events: Vec<String>,
    /// Those without an answer, in order.
    changes: Vec<Change>,
    answers: usize,
    /// Answers up to this number are durable.
    firm: usize,
    /// What was wrong about an answer.
    wrong: Report,
}

impl Book {
    pub(super) fn new(durability: Durability) -> Book {
        Book {
            durability,
            batches: BTreeMap::new(),
            shards: BTreeMap::new(),
            dropped: BTreeSet::new(),
            events: Vec::new(),
            changes: Vec::new(),
            answers: 0,
            firm: 0,
            wrong: Ok(()),
        }
    }

    /// An empty one for the same log.
    pub(super) fn anew(&self) -> Book {
        Book::new(self.durability)
    }

    /// Shards that are not sealed.
    pub(super) fn open_shards(&self) -> Vec<u64> {
        let open = self.shards.iter().filter(|(_, shard)| !shard.sealed);
        open.map(|(number, _)| *number).collect()
    }

    pub(super) fn sealed_shards(&self) -> Vec<u64> {
        let sealed = self.shards.iter().filter(|(_, shard)| shard.sealed);
        sealed.map(|(number, _)| *number).collect()
    }

    /// How many batches are acknowledged.
    pub(super) fn acked(&self) -> usize {
        let batches = self.batches.values();
        batches
            .filter(|batch| matches!(batch.state, State::Acked(..)))
            .count()
    }

    /// How many transactions are there.
    pub(super) fn changes(&self) -> usize {
        self.events.len()
    }

    /// What trimming and rewriting must keep of each shard.
    pub(super) fn keep(&self) -> impl Fn(LogShard) -> Option<u64> + Send + use<> {
        let shards = self.shards.iter();
        let horizons: BTreeMap<_, _> = shards.map(|(n, shard)| (*n, shard.horizon_ms)).collect();
        let dropped = self.dropped.clone();
        // A shard that is not known yet was created just now.
        move |LogShard(shard)| {
            let horizon_ms = horizons.get(&shard).copied().unwrap_or(0);
            (!dropped.contains(&shard)).then_some(horizon_ms)
        }
    }

    pub(super) fn apply(&mut self, entry: Entry) {
        let done = self.try_apply(entry);
        self.wrong = std::mem::replace(&mut self.wrong, Ok(())).and(done);
    }

    fn try_apply(&mut self, entry: Entry) -> Report {
        match entry {
            Entry::Sent(id, shard, texts) => {
                let known = self.shards.get(&shard);
                let batch = Batch {
                    shard,
                    texts,
                    floor: known.map_or(0, |shard| shard.given_out),
                    after_seal: known.is_some_and(|shard| shard.sealed),
                    state: State::Unanswered,
                };
                self.batches.insert(id, batch);
            }
            Entry::Answered(id, Ok((first, time_ms))) => {
                self.answers += 1;
                let firm = self.durability == Durability::Fsync;
                self.firm = if firm { self.answers } else { self.firm };
                self.place(id, first, time_ms)?;
            }
            Entry::Answered(id, Err(refusal)) => {
                if refusal == Refusal::Final {
                    self.batch(id).state = State::Absent;
                }
            }
            Entry::Change(event, shards) => {
                let after = self.answers;
                self.changes.push(Change {
                    event,
                    shards,
                    after,
                });
            }
            Entry::Changed(Ok(())) => {
                let change = self.changes.pop().ok_or("committed, but never sent")?;
                // It is synced whatever the setting, and what came before it with it.
                self.firm = self.firm.max(change.after);
                self.fold(change);
            }
            Entry::Changed(Err(Refusal::Final)) => drop(self.changes.pop()),
            Entry::Changed(Err(Refusal::Open)) => {}
            Entry::Horizon(shard, horizon_ms) => {
                if let Some(shard) = self.shards.get_mut(&shard) {
                    // What may have gone does not come back.
                    shard.horizon_ms = shard.horizon_ms.max(horizon_ms);
                }
            }
            Entry::Settled => self.firm = self.answers,
        }
        Ok(())
    }

    fn batch(&mut self, id: usize) -> &mut Batch {
        self.batches
            .get_mut(&id)
            .expect("answered after it was sent")
    }

    /// A batch has these counters: nobody may have had them, and those before it were smaller.
    fn place(&mut self, id: usize, first: u64, time_ms: u64) -> Report {
        let number = self.answers;
        let batch = self.batch(id);
        batch.state = State::Acked(first, time_ms, number);
        let batch = batch.clone();
        let end = first + u64::try_from(batch.texts.len()).unwrap();
        ensure!(
            first >= batch.floor,
            "S2: {} got {first}, below {}",
            batch.name(),
            batch.floor
        );
        ensure!(
            !batch.after_seal,
            "S5: {} came after the seal",
            batch.name()
        );
        let Some(shard) = self.shards.get_mut(&batch.shard) else {
            ensure!(
                self.dropped.contains(&batch.shard) || !self.changes.is_empty(),
                "{} was put into nothing",
                batch.name()
            );
            return Ok(());
        };
        shard.given_out = shard.given_out.max(end);
        let before = shard.taken.range(..end).next_back();
        ensure!(
            before.is_none_or(|(_, before)| *before <= first),
            "S2: {first} was given out twice"
        );
        shard.taken.insert(first, end);
        Ok(())
    }

    fn fold(&mut self, change: Change) {
        let [seal, create, drop] = change.shards;
        self.events.push(change.event);
        for shard in create {
            self.shards.insert(shard, Shard::default());
        }
        for shard in seal {
            if let Some(shard) = self.shards.get_mut(&shard) {
                shard.sealed = true;
            }
        }
        for shard in drop {
            self.shards.remove(&shard);
            self.dropped.insert(shard);
        }
    }

    /// Whether the log holds what it must and nothing else. After a start, what it was found to hold binds it too.
    pub(super) async fn check(&mut self, log: &TestLog, when: When, step: ReadLimit) -> Report {
        self.wrong.clone()?;
        self.check_metadata(log, when)?;
        for number in self.dropped.clone() {
            let gone = log.tail(LogShard(number)).is_none();
            ensure!(gone, "shard {number} was dropped and is there");
        }
        for (number, shard) in self.shards.clone() {
            let tail = log.tail(LogShard(number));
            let tail = tail.ok_or(format!("S1: shard {number} is lost"))?;
            ensure!(
                tail.sealed == shard.sealed,
                "shard {number} is at {tail:?}, not {}",
                shard.sealed
            );
            let found = read_every(log, LogShard(number), step, 0).await;
            let found = found.map_err(|error| format!("S3: reading shard {number}: {error}"))?;
            let end = found.last().map_or(0, |kept| kept.counter + 1);
            ensure!(
                tail.next >= end,
                "S3: shard {number} ends at {tail:?}, after {end}"
            );
            self.check_shard(number, &found, when)
                .map_err(|wrong| format!("shard {number}: {wrong}"))?;
        }
        if when == When::Opened {
            self.answers += 1;
            self.firm = self.answers;
            self.changes.clear();
        }
        self.wrong.clone()
    }

    /// Transactions are there whole, in order, and with all that they did.
    fn check_metadata(&mut self, log: &TestLog, when: When) -> Report {
        let metadata = log.metadata();
        let Events(found) = &*metadata;
        if when == When::Opened {
            for change in self.changes.clone() {
                if found.get(self.events.len()) == Some(&change.event) {
                    self.fold(change);
                }
            }
        }
        let known = &self.events;
        ensure!(found == known, "S1: metadata {found:?}, not {known:?}");
        Ok(())
    }

    fn check_shard(&mut self, number: u64, found: &[Kept], when: When) -> Report {
        for pair in found.windows(2) {
            let rising = pair[0].counter < pair[1].counter && pair[0].time_ms <= pair[1].time_ms;
            ensure!(rising, "S2: records do not rise: {pair:?}");
        }
        let places: BTreeMap<&str, &Kept> = found
            .iter()
            .map(|kept| (kept.text.as_str(), kept))
            .collect();
        ensure!(places.len() == found.len(), "S3: a record is there twice");
        let horizon_ms = self.shards[&number].horizon_ms;
        let (mut known, mut last, mut first_lost) = (0, 0, u64::MAX);
        let ids: Vec<usize> = self
            .batches
            .iter()
            .filter(|(_, batch)| batch.shard == number)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            let batch = self.batches[&id].clone();
            let there: Vec<(u64, &Kept)> = (0..)
                .zip(&batch.texts)
                .filter_map(|(number, text)| Some((number, *places.get(text.as_str())?)))
                .collect();
            let Some((number, kept)) = there.first() else {
                let lost = self.missing(id, horizon_ms, when)?;
                first_lost = first_lost.min(lost.unwrap_or(u64::MAX));
                continue;
            };
            let (first, first_ms) = (kept.counter.saturating_sub(*number), kept.time_ms);
            known += there.len();
            last = last.max(first);
            let together = there
                .iter()
                .all(|(number, kept)| (kept.counter, kept.time_ms) == (first + number, first_ms));
            // Of what is old any part may be left.
            let whole = there.len() == batch.texts.len() || first_ms < horizon_ms;
            ensure!(
                together && whole,
                "S3: {} of {} is there in part: {there:?}, horizon {horizon_ms}",
                batch.name(),
                batch.texts.len()
            );
            match batch.state {
                State::Acked(at, time_ms, _) => ensure!(
                    (first, first_ms) == (at, time_ms),
                    "S2: {} was put at {at}, {time_ms}",
                    batch.name()
                ),
                State::Absent => {
                    return Err(format!("{} was refused, or gone before", batch.name()));
                }
                State::Unanswered => {
                    ensure!(
                        when == When::Opened,
                        "S3: {} is read before it is durable",
                        batch.name()
                    );
                    self.place(id, first, first_ms)?;
                }
            }
        }
        ensure!(
            known == found.len(),
            "S3: {} records that nobody sent",
            found.len() - known
        );
        ensure!(
            last < first_lost,
            "S3: {first_lost} is lost, and {last} after it is there"
        );
        Ok(())
    }

    /// Nothing of a batch was found: its first counter, if it was lost as it may be.
    fn missing(&mut self, id: usize, horizon_ms: u64, when: When) -> Result<Option<u64>, String> {
        let firm = self.firm;
        let batch = self.batch(id);
        match batch.state {
            State::Acked(_, time_ms, _) if time_ms < horizon_ms => Ok(None),
            State::Acked(first, _, number) if when == When::Running || number <= firm => {
                Err(format!("S1: {} is lost, at {first}", batch.name()))
            }
            State::Acked(first, ..) => {
                batch.state = State::Absent;
                Ok(Some(first))
            }
            State::Unanswered if when == When::Opened => {
                batch.state = State::Absent;
                Ok(None)
            }
            State::Unanswered | State::Absent => Ok(None),
        }
    }
}
