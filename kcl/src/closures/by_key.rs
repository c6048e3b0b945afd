//! The keys of a shard at once, the records of each in order.

use super::{Cadence, Done, Handler, Saver};
use crate::checkpoint::Checkpointer;
use crate::error::{Error, ErrorKind};
use crate::processor::{
    ProcessorError, Record, RecordBatch, RecordProcessor, RecordProcessorFactory, ShardInfo,
};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::task::{JoinError, JoinSet};

/// Made by [`by_key`](crate::by_key) and [`by_key_json`](crate::by_key_json).
#[derive(Debug)]
pub struct ByKey {
    handler: Handler,
    concurrency: usize,
    pub(super) cadence: Cadence,
}

impl ByKey {
    pub(super) fn new(concurrency: usize, handler: Handler) -> Self {
        ByKey {
            handler,
            concurrency: concurrency.max(1),
            cadence: Cadence::default(),
        }
    }
}

impl RecordProcessorFactory for ByKey {
    type Processor = ByKeyProcessor;

    fn create(&self, shard: &ShardInfo) -> ByKeyProcessor {
        ByKeyProcessor {
            handler: self.handler.clone(),
            concurrency: self.concurrency,
            shard_id: shard.shard_id.as_str().into(),
            done: Done::default(),
            saver: Saver::new(self.cadence),
        }
    }
}

/// Processes a shard for [`ByKey`].
#[derive(Debug)]
pub struct ByKeyProcessor {
    handler: Handler,
    concurrency: usize,
    shard_id: Arc<str>,
    done: Done,
    saver: Saver,
}

/// What may be begun: of each key its first open record, the earliest of all first, so that the low-water mark moves (pure).
#[derive(Debug)]
struct Lanes {
    ready: BTreeSet<usize>,
    /// The next record of the same key.
    next: BTreeMap<usize, usize>,
}

impl Lanes {
    fn new(records: &[Record], open: &[usize]) -> Self {
        let (mut ready, mut next) = (BTreeSet::new(), BTreeMap::new());
        let mut last: BTreeMap<&str, usize> = BTreeMap::new();
        for index in open {
            let Some(record) = records.get(*index) else {
                continue;
            };
            match last.insert(record.partition_key(), *index) {
                None => {
                    ready.insert(*index);
                }
                Some(before) => {
                    next.insert(before, *index);
                }
            }
        }
        Lanes { ready, next }
    }

    fn begin(&mut self) -> Option<usize> {
        self.ready.pop_first()
    }

    /// A record is done: the next of its key may begin. After a failure it may not, so that the key stays in order.
    fn done(&mut self, index: usize) {
        self.ready.extend(self.next.remove(&index));
    }
}

type Ended = Result<(usize, Result<(), ProcessorError>), JoinError>;

/// A batch in work.
struct Progress<'a> {
    records: &'a [Record],
    lanes: Lanes,
    /// Done without a gap.
    known: usize,
    /// The failure of the earliest record.
    failed: Option<(usize, ProcessorError)>,
}

impl<'a> Progress<'a> {
    /// The low-water mark.
    fn mark(&self) -> Option<&'a Record> {
        self.known.checked_sub(1).and_then(|last| self.records.get(last))
    }

    fn take_in(&mut self, ended: Ended, done: &mut Done, shard_id: &str) {
        let (index, answer) = match ended {
            Ok(ended) => ended,
            // Panics of the handler are errors already: this is a runtime that shuts down.
            Err(error) => {
                let error = Error::with_source(ErrorKind::Shutdown, "a record's task ended", error);
                self.failed.get_or_insert((usize::MAX, error.into()));
                return;
            }
        };
        let Some(record) = self.records.get(index) else {
            return;
        };
        match answer {
            Ok(()) => {
                done.add(record);
                self.lanes.done(index);
                self.known = done.without_gap(self.records, self.known);
            }
            Err(error) => {
                let record = record.place();
                tracing::debug!(%error, shard_id, record, "a record failed, the rest of its key waits");
                if self.failed.as_ref().is_none_or(|(first, _)| index < *first) {
                    self.failed = Some((index, error));
                }
            }
        }
    }
}

impl ByKeyProcessor {
    /// Works until nothing can be begun and nothing runs.
    async fn work(&mut self, progress: &mut Progress<'_>, checkpointer: &Checkpointer) {
        let mut running = JoinSet::new();
        loop {
            while running.len() < self.concurrency
                && let Some(index) = progress.lanes.begin()
            {
                if let Err(error) = checkpointer.prove() {
                    progress.lanes = Lanes::new(&[], &[]);
                    progress.failed.get_or_insert((usize::MAX, error.into()));
                    break;
                }
                let Some(record) = progress.records.get(index).cloned() else {
                    continue;
                };
                let (handler, shard_id) = (self.handler.clone(), Arc::clone(&self.shard_id));
                running.spawn(async move { (index, handler.handle(&shard_id, record).await) });
            }
            let mark = progress.mark();
            tokio::select! {
                biased;
                ended = running.join_next() => match ended {
                    Some(ended) => progress.take_in(ended, &mut self.done, &self.shard_id),
                    None => return,
                },
                () = self.saver.in_between(mark, checkpointer) => {}
            }
        }
    }
}

#[async_trait]
impl RecordProcessor for ByKeyProcessor {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        self.saver.batch_begins();
        let records = batch.records();
        let open = self.done.begin(records);
        let mut progress = Progress {
            records,
            lanes: Lanes::new(records, &open),
            known: self.done.without_gap(records, 0),
            failed: None,
        };
        self.work(&mut progress, checkpointer).await;
        let mark = progress.mark();
        if let Some((_, error)) = progress.failed {
            self.saver.batch_failed(mark, checkpointer).await;
            return Err(error);
        }
        self.saver.batch_done(records.len(), checkpointer).await?;
        Ok(())
    }

    async fn lease_lost(&mut self) {
        self.saver.stop();
    }

    async fn shard_ended(&mut self, _checkpointer: &Checkpointer) -> Result<(), ProcessorError> {
        self.saver.stop();
        Ok(())
    }

    async fn shutdown_requested(
        &mut self,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        Ok(self.saver.release(checkpointer).await?)
    }
}
