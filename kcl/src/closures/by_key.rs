//! The keys of a shard at once, the records of each in order.

use super::{Adapter, Cadence, Done, Handler, InWork, Saver, Work};
use crate::checkpoint::Checkpointer;
use crate::error::{Error, ErrorKind};
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

    /// Nothing more is begun.
    fn close(&mut self) {
        self.ready.clear();
        self.next.clear();
    }

    /// A record is done: the next of its key may begin. After a failure it may not, so that the key stays in order.
    fn done(&mut self, index: usize) {
        self.ready.extend(self.next.remove(&index));
    }
}

type Ended = Result<(usize, Result<(), ProcessorError>), JoinError>;

impl KeysAtOnce {
    /// Begins what may be begun.
    fn begin(
        &self,
        lanes: &mut Lanes,
        running: &mut JoinSet<(usize, Result<(), ProcessorError>)>,
        in_work: &mut InWork<'_>,
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

    fn take_in(&mut self, ended: Ended, lanes: &mut Lanes, in_work: &mut InWork<'_>) {
        match ended {
            Ok((index, answer)) => {
                match &answer {
                    Ok(()) => lanes.done(index),
                    Err(error) => {
                        let (shard_id, record) = (&self.shard_id, in_work.record(index));
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
    ) -> Result<(), ProcessorError> {
        let records = batch.records();
        let mut lanes = Lanes::new(records, &self.done.begin(records));
        let mut in_work = InWork::new(records, &self.done);
        // Dropped with this future, and its tasks with it.
        let mut running = JoinSet::new();
        loop {
            self.begin(&mut lanes, &mut running, &mut in_work, checkpointer);
            let mark = in_work.mark();
            tokio::select! {
                biased;
                ended = running.join_next() => match ended {
                    Some(ended) => self.take_in(ended, &mut lanes, &mut in_work),
                    None => break,
                },
                () = saver.in_between(mark, checkpointer) => {}
            }
        }
        in_work.end(saver, checkpointer).await
    }
}
