//! Drives a log on a [`TracedDisk`], and writes into a [`Book`] what it was asked and what it answered, and after
//! which step of the disk. The suites about power cuts, crash points and failing disks all work through it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::{Clock, ManualClock};
use crate::log::plan::SeededBug;
use crate::log::tests::book::{Book, Entry, Refusal, When};
use crate::log::tests::traced_disk::TracedDisk;
use crate::log::tests::{Events, NOW_MS, Report, TestLog, batch};
use crate::log::{Error, Log, LogConfig, LogShard, ReadLimit, Transaction};

/// What is done to the set of shards.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reshard {
    Create(usize),
    Split(u64),
    Merge(u64, u64),
    Drop(u64),
}

/// A log's life over several disks; a handle.
#[derive(Debug, Clone)]
pub(super) struct Life(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Arc<ManualClock>,
    config: LogConfig,
    bug: SeededBug,
    notes: Mutex<Notes>,
    next_batch: AtomicUsize,
    next_shard: AtomicU64,
}

#[derive(Debug)]
struct Notes {
    disk: TracedDisk,
    book: Book,
    journal: Vec<(usize, Entry)>,
    /// Steps of the disk before each start.
    starts: Vec<usize>,
}

impl Life {
    pub(super) fn new(disk: &TracedDisk, config: LogConfig, bug: SeededBug) -> Life {
        let notes = Notes {
            disk: disk.clone(),
            book: Book::new(config.durability),
            journal: Vec::new(),
            starts: Vec::new(),
        };
        Life(Arc::new(Inner {
            clock: ManualClock::at(NOW_MS),
            config,
            bug,
            notes: Mutex::new(notes),
            next_batch: AtomicUsize::new(0),
            next_shard: AtomicU64::new(1),
        }))
    }

    fn notes<T>(&self, with: impl FnOnce(&mut Notes) -> T) -> T {
        with(&mut self.0.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, entry: Entry) {
        self.notes(|notes| {
            notes.journal.push((notes.disk.steps(), entry.clone()));
            notes.book.apply(entry);
        });
    }

    /// What happened, each after so many steps of the disk.
    pub(super) fn journal(&self) -> Vec<(usize, Entry)> {
        self.notes(|notes| notes.journal.clone())
    }

    pub(super) fn book<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        self.notes(|notes| look(&notes.book))
    }

    pub(super) fn clock(&self) -> &ManualClock {
        &self.0.clock
    }

    pub(super) fn disk(&self) -> TracedDisk {
        self.notes(|notes| notes.disk.clone())
    }

    /// The next start finds this disk.
    pub(super) fn set_disk(&self, disk: &TracedDisk) {
        self.notes(|notes| notes.disk = disk.clone());
    }

    pub(super) fn open(&self) -> Result<TestLog, Error> {
        self.notes(|notes| notes.starts.push(notes.disk.steps()));
        self.open_on(&self.disk())
    }

    /// How many steps of the disk there were before each start.
    pub(super) fn starts(&self) -> Vec<usize> {
        self.notes(|notes| notes.starts.clone())
    }

    /// Opens another disk with the same settings.
    pub(super) fn open_on(&self, disk: &TracedDisk) -> Result<TestLog, Error> {
        let clock = Arc::clone(&self.0.clock);
        let disk = Arc::new(disk.clone());
        Log::open_with(disk, self.0.config, clock, &Events::default(), self.0.bug)
    }

    /// Appends a batch of records of such lengths.
    pub(super) async fn append(
        &self,
        log: &TestLog,
        shard: u64,
        lengths: &[usize],
    ) -> Result<(), Error> {
        self.append_all(log, &[(shard, lengths)]).await
    }

    /// Appends several of them at once, and gives the first error.
    pub(super) async fn append_all(
        &self,
        log: &TestLog,
        several: &[(u64, &[usize])],
    ) -> Result<(), Error> {
        let mut ids = Vec::new();
        let batches = several.iter().map(|(shard, lengths)| {
            let id = self.0.next_batch.fetch_add(1, Ordering::Relaxed);
            let text = |(number, length): (usize, &usize)| {
                format!("{id}.{number} {}", "x".repeat(*length))
            };
            let texts: Vec<String> = lengths.iter().enumerate().map(text).collect();
            self.note(Entry::Sent(id, *shard, texts.clone()));
            ids.push(id);
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            (LogShard(*shard), batch(&texts))
        });
        let results = match log.append_all(batches.collect()).await {
            Ok(results) => results,
            Err(error) => vec![Err(error); several.len()],
        };
        for (id, appended) in ids.iter().zip(&results) {
            let answer = appended.as_ref().map(|it| (it.first, it.time_ms));
            self.note(Entry::Answered(*id, answer.map_err(Refusal::from)));
        }
        results.into_iter().collect::<Result<Vec<_>, _>>().map(drop)
    }

    /// Commits a transaction; one at a time.
    pub(super) async fn reshard(&self, log: &TestLog, reshard: Reshard) -> Result<(), Error> {
        let (seal, created, drop) = match reshard {
            Reshard::Create(count) => (vec![], count, vec![]),
            Reshard::Split(shard) => (vec![shard], 2, vec![]),
            Reshard::Merge(one, other) => (vec![one, other], 1, vec![]),
            Reshard::Drop(shard) => (vec![], 0, vec![shard]),
        };
        let new = |_| self.0.next_shard.fetch_add(1, Ordering::Relaxed);
        let create: Vec<u64> = (0..created).map(new).collect();
        let event = format!("seal {seal:?} create {create:?} drop {drop:?}");
        let shards = [seal, create, drop];
        self.note(Entry::Change(event.clone(), shards.clone()));
        let [seal, create, drop] = shards.map(|shards| shards.into_iter().map(LogShard).collect());
        let transaction = Transaction {
            event: event.into(),
            seal,
            create,
            drop,
        };
        let changed = log.commit(transaction).await;
        let answer = changed.as_ref().map(|_| ()).map_err(Refusal::from);
        self.note(Entry::Changed(answer));
        changed.map(|_| ())
    }

    /// Lets a shard keep only what is younger than so many milliseconds, trims and rewrites.
    pub(super) async fn retain(&self, log: &TestLog, shard: u64, age_ms: u64) -> Result<(), Error> {
        let horizon_ms = self.clock().now_ms().saturating_sub(age_ms);
        self.note(Entry::Horizon(shard, horizon_ms));
        let trimmed = log.trim(self.book(Book::keep)).await;
        let rewritten = log.rewrite(self.book(Book::keep)).await;
        trimmed.map(|_| ()).and(rewritten.map(|_| ()))
    }

    /// Closes the log. Unless that failed, all that it answered is durable.
    pub(super) async fn close(&self, log: TestLog) {
        log.close().await;
        if !log.is_poisoned() && !self.disk().is_off() {
            self.note(Entry::Settled);
        }
    }

    /// See [`Book::check`].
    pub(super) async fn check(&self, log: &TestLog, when: When, step: ReadLimit) -> Report {
        let mut book = self.book(Book::clone);
        let report = book.check(log, when, step).await;
        self.notes(|notes| notes.book = book);
        report
    }
}
