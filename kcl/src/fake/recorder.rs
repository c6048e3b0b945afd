//! A record processor that writes down what it is given, misbehaves on demand, and the checkers of what it wrote.

use crate::checkpoint::Checkpointer;
use crate::processor::{ProcessorError, Record, RecordBatch, RecordProcessor, ShardInfo};
use async_trait::async_trait;
use millstream_wire::SequenceNumber;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// What happened to one processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Initialized,
    /// Records handed over.
    Delivered(Vec<SequenceNumber>),
    /// Their processing succeeded.
    Processed(Vec<SequenceNumber>),
    LeaseLost,
    ShardEnded,
    ShutdownRequested,
}

/// An event with its circumstances.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) worker: String,
    /// Counts the processors made, so that tenures are told apart.
    pub(crate) tenure: usize,
    pub(crate) shard: String,
    pub(crate) parents: Vec<String>,
    pub(crate) at: Instant,
    pub(crate) event: Event,
}

/// What a batch with a poison record fails with.
#[derive(Debug, thiserror::Error)]
#[error("poison at {0}")]
pub(crate) struct Poison(pub(crate) SequenceNumber);

/// How processors behave; may be changed while they run.
#[derive(Debug, Clone)]
pub(crate) struct Behaviour {
    /// Batches that fail before one succeeds.
    pub(crate) failures: u32,
    /// Failures are panics.
    pub(crate) panics: bool,
    /// Whether batches are checkpointed.
    pub(crate) checkpoints: bool,
    /// How long a batch takes.
    pub(crate) takes: Duration,
    /// Only this shard fails or takes its time, if given.
    pub(crate) only_shard: Option<String>,
    /// Batches with one of these fail, whatever else is set.
    pub(crate) poison: BTreeSet<SequenceNumber>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Behaviour {
            failures: 0,
            panics: false,
            checkpoints: true,
            takes: Duration::ZERO,
            only_shard: None,
            poison: BTreeSet::new(),
        }
    }
}

/// The journal of all workers of a test.
#[derive(Debug, Clone, Default)]
pub(crate) struct Journal {
    entries: Arc<Mutex<Vec<Entry>>>,
    behaviour: Arc<Mutex<Behaviour>>,
    tenures: Arc<Mutex<usize>>,
    kept: Arc<Mutex<Vec<Checkpointer>>>,
}

impl Journal {
    /// A factory for the processors of one worker.
    pub(crate) fn factory(
        &self,
        worker: &str,
    ) -> impl Fn(&ShardInfo) -> Recorder + Send + Sync + use<> {
        let (journal, worker) = (self.clone(), worker.to_owned());
        move |shard: &ShardInfo| {
            let mut tenures = journal.tenures.lock().unwrap();
            *tenures += 1;
            Recorder {
                journal: journal.clone(),
                worker: worker.clone(),
                tenure: *tenures,
                shard: shard.clone(),
            }
        }
    }

    pub(crate) fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().unwrap());
    }

    pub(crate) fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap()
    }

    /// The checkpointers seen, in the order of their tenures.
    pub(crate) fn checkpointers(&self) -> Vec<Checkpointer> {
        self.kept.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, event: &Event) -> usize {
        self.entries()
            .iter()
            .filter(|entry| entry.event == *event)
            .count()
    }

    /// How often each record was handed over.
    pub(crate) fn deliveries(&self) -> BTreeMap<SequenceNumber, usize> {
        let mut counts = BTreeMap::new();
        for entry in self.entries().iter() {
            if let Event::Delivered(records) = &entry.event {
                for record in records {
                    *counts.entry(*record).or_insert(0) += 1;
                }
            }
        }
        counts
    }

    /// Records whose processing succeeded.
    pub(crate) fn processed(&self) -> BTreeSet<SequenceNumber> {
        let mut processed = BTreeSet::new();
        for entry in self.entries().iter() {
            if let Event::Processed(records) = &entry.event {
                processed.extend(records);
            }
        }
        processed
    }

    /// K4: every record put was processed.
    pub(crate) fn check_no_loss(&self, put: &[SequenceNumber]) -> Result<(), String> {
        let processed = self.processed();
        let lost: Vec<_> = put
            .iter()
            .filter(|record| !processed.contains(record))
            .collect();
        if lost.is_empty() {
            Ok(())
        } else {
            Err(format!("K4: lost {lost:?}"))
        }
    }

    /// K6: within a tenure a batch is either the one before again or comes after it, once that was processed; and no child begins
    /// before its parents have ended.
    pub(crate) fn check_order(&self) -> Result<(), String> {
        let mut before: BTreeMap<usize, (Vec<SequenceNumber>, bool)> = BTreeMap::new();
        let mut ended: BTreeSet<String> = BTreeSet::new();
        for entry in self.entries().iter() {
            match &entry.event {
                Event::Delivered(records) => {
                    if let Some(parent) = entry.parents.iter().find(|id| !ended.contains(*id)) {
                        return Err(format!("K6: {} began before {parent} ended", entry.shard));
                    }
                    if !records.is_sorted_by(|a, b| a < b) {
                        return Err(format!("K6: {records:?} are not in order"));
                    }
                    let last = before.insert(entry.tenure, (records.clone(), false));
                    let in_order = last.as_ref().is_none_or(|(last, processed)| {
                        last == records || (*processed && last.last() < records.first())
                    });
                    if !in_order {
                        return Err(format!("K6: {records:?} after {last:?}"));
                    }
                }
                Event::Processed(_) => {
                    before.entry(entry.tenure).and_modify(|last| last.1 = true);
                }
                Event::ShardEnded => {
                    ended.insert(entry.shard.clone());
                }
                Event::Initialized | Event::LeaseLost | Event::ShutdownRequested => {}
            }
        }
        Ok(())
    }

    /// K2: no two tenures deliver records of one shard in turns: once another began, the former delivers nothing more.
    pub(crate) fn check_no_overlap(&self) -> Result<(), String> {
        let mut holder: BTreeMap<String, usize> = BTreeMap::new();
        for entry in self.entries().iter() {
            if !matches!(entry.event, Event::Delivered(_)) {
                continue;
            }
            let newest = holder.entry(entry.shard.clone()).or_insert(entry.tenure);
            if entry.tenure < *newest {
                return Err(format!("K2: {entry:?} after tenure {newest} began"));
            }
            *newest = entry.tenure;
        }
        Ok(())
    }

    /// No record was handed over twice.
    pub(crate) fn check_no_duplicates(&self) -> Result<(), String> {
        let twice: Vec<_> = self
            .deliveries()
            .into_iter()
            .filter(|(_, count)| *count > 1)
            .collect();
        if twice.is_empty() {
            Ok(())
        } else {
            Err(format!("K5: delivered more than once: {twice:?}"))
        }
    }
}

#[derive(Debug)]
pub(crate) struct Recorder {
    journal: Journal,
    worker: String,
    tenure: usize,
    shard: ShardInfo,
}

impl Recorder {
    fn note(&self, event: Event) {
        self.journal.entries().push(Entry {
            worker: self.worker.clone(),
            tenure: self.tenure,
            shard: self.shard.shard_id.clone(),
            parents: self.shard.parents.clone(),
            at: Instant::now(),
            event,
        });
    }

    /// What to do with the batch at hand.
    fn behaviour(&self) -> (Behaviour, bool, bool) {
        let mut behaviour = self.journal.behaviour.lock().unwrap();
        let concerned = behaviour
            .only_shard
            .as_ref()
            .is_none_or(|shard| *shard == self.shard.shard_id);
        let fails = concerned && behaviour.failures > 0;
        if fails {
            behaviour.failures -= 1;
        }
        (behaviour.clone(), concerned, fails)
    }
}

#[async_trait]
impl RecordProcessor for Recorder {
    async fn initialize(&mut self, _shard: &ShardInfo) -> Result<(), ProcessorError> {
        self.note(Event::Initialized);
        Ok(())
    }

    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        let records: Vec<_> = batch
            .records()
            .iter()
            .map(Record::sequence_number)
            .collect();
        self.note(Event::Delivered(records.clone()));
        {
            let mut kept = self.journal.kept.lock().unwrap();
            kept.push(checkpointer.clone());
        }
        let (behaviour, concerned, fails) = self.behaviour();
        if concerned {
            tokio::time::sleep(behaviour.takes).await;
        }
        let poison = records.iter().find(|one| behaviour.poison.contains(one));
        let panics = behaviour.panics && (fails || poison.is_some());
        assert!(!panics, "a panic on demand");
        if fails {
            return Err("a failure on demand".into());
        }
        if let Some(poison) = poison {
            return Err(Poison(*poison).into());
        }
        // Its effects are durable from here on; a checkpoint may land though its reply does not.
        self.note(Event::Processed(records));
        if behaviour.checkpoints {
            checkpointer.checkpoint().await?;
        }
        Ok(())
    }

    async fn lease_lost(&mut self) {
        self.note(Event::LeaseLost);
    }

    async fn shard_ended(&mut self, _checkpointer: &Checkpointer) -> Result<(), ProcessorError> {
        self.note(Event::ShardEnded);
        Ok(())
    }

    async fn shutdown_requested(
        &mut self,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        self.note(Event::ShutdownRequested);
        checkpointer.checkpoint().await?;
        Ok(())
    }
}
