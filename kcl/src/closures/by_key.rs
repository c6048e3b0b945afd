//! The keys of a shard at once, the records of each in order.

use super::{Adapter, Cadence, Done, Handler, InWork, Saver, Work};
use crate::checkpoint::Checkpointer;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::processor::{ProcessorError, Record, RecordBatch, RecordProcessorFactory, ShardInfo};
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
    type Processor = Adapter<KeysAtOnce>;

    fn create(&self, shard: &ShardInfo) -> Adapter<KeysAtOnce> {
        let keys = KeysAtOnce {
            handler: self.handler.clone(),
            concurrency: self.concurrency,
            shard_id: shard.shard_id.as_str().into(),
            done: Done::default(),
        };
        Adapter::new(keys, self.cadence)
    }
}

/// Calls the closure with the records of several keys at once.
#[derive(Debug)]
pub struct KeysAtOnce {
    handler: Handler,
    concurrency: usize,
    shard_id: Arc<str>,
    done: Done,
}

/// What may be begun: of each key its first open record, the earliest of all first, so that the low-water mark moves (pure).
#[derive(Debug, Default)]
struct Lanes {
    ready: BTreeSet<usize>,
    /// The next record of the same key.
    next: BTreeMap<usize, usize>,
    /// The last record of each key that has open ones.
    last: BTreeMap<Key, usize>,
}

impl Lanes {
    /// A record that comes after all others.
    fn add(&mut self, index: usize, record: &Record) {
        match self.last.insert(record.partition_key.clone(), index) {
            None => {
                self.ready.insert(index);
            }
            Some(before) => {
                self.next.insert(before, index);
            }
        }
    }

    fn begin(&mut self) -> Option<usize> {
        self.ready.pop_first()
    }

    fn is_any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Nothing more is begun.
    fn close(&mut self) {
        self.ready.clear();
        self.next.clear();
    }

    /// A record is done: the next of its key may begin. After a failure it may not, so that the key stays in order.
    fn done(&mut self, index: usize, record: &Record) {
        match self.next.remove(&index) {
            Some(next) => {
                self.ready.insert(next);
            }
            None => {
                self.last.remove(&record.partition_key);
            }
        }
    }
}

type Ended = Result<(usize, Result<(), ProcessorError>), JoinError>;

impl KeysAtOnce {
    /// Begins what may be begun.
    fn begin(
        &self,
        lanes: &mut Lanes,
        running: &mut JoinSet<(usize, Result<(), ProcessorError>)>,
        in_work: &mut InWork,
        checkpointer: &Checkpointer,
    ) {
        while running.len() < self.concurrency
            && let Some(index) = lanes.begin()
        {
            if let Err(error) = checkpointer.prove() {
                lanes.close();
                in_work.cut_short(error);
                return;
            }
            if let Some(record) = in_work.record(index).cloned() {
                let (handler, shard_id) = (self.handler.clone(), Arc::clone(&self.shard_id));
                running.spawn(async move { (index, handler.handle(&shard_id, record).await) });
            }
        }
    }

    fn take_in(&mut self, ended: Ended, lanes: &mut Lanes, in_work: &mut InWork) {
        match ended {
            Ok((index, answer)) => {
                match (&answer, in_work.record(index)) {
                    (Ok(()), Some(record)) => lanes.done(index, record),
                    (Ok(()), None) => {}
                    (Err(error), record) => {
                        let shard_id = &self.shard_id;
                        tracing::debug!(%error, %shard_id, ?record, "a record failed, the rest of its key waits");
                    }
                }
                in_work.take_in(index, answer, &mut self.done);
            }
            // Panics of the handler are errors already: this is a runtime that shuts down.
            Err(error) => in_work.cut_short(Error::with_source(
                ErrorKind::Shutdown,
                "the task of a record was cancelled",
                error,
            )),
        }
    }
}

#[async_trait]
impl Work for KeysAtOnce {
    async fn work(
        &mut self,
        batch: &RecordBatch,
        saver: &mut Saver,
        checkpointer: &Checkpointer,
    ) -> Result<usize, ProcessorError> {
        let records = batch.records();
        let open = self.done.begin(records);
        let mut in_work = InWork::new(records, &self.done);
        let mut lanes = Lanes::default();
        for index in open {
            if let Some(record) = records.get(index) {
                lanes.add(index, record);
            }
        }
        // Dropped with this future, and its tasks with it.
        let mut running = JoinSet::new();
        loop {
            self.begin(&mut lanes, &mut running, &mut in_work, checkpointer);
            let mark = in_work.mark().cloned();
            let has_hands_free = running.len() < self.concurrency && !lanes.is_any_ready();
            tokio::select! {
                biased;
                ended = running.join_next() => match ended {
                    Some(ended) => self.take_in(ended, &mut lanes, &mut in_work),
                    None => break,
                },
                more = checkpointer.more(), if has_hands_free && in_work.is_sound() => {
                    for index in in_work.grow(more) {
                        if let Some(record) = in_work.record(index) {
                            lanes.add(index, record);
                        }
                    }
                }
                () = saver.in_between(mark.as_ref(), checkpointer) => {}
            }
        }
        in_work.end(saver, checkpointer).await
    }
}
