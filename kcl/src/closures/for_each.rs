//! One closure call after the other: for each record, or for each batch.

use super::{Adapter, Cadence, Called, Handler, Saver, Work};
use crate::checkpoint::{Checkpointer, Position};
use crate::processor::{ProcessorError, Record, RecordBatch, RecordProcessorFactory, ShardInfo};
use crate::shard::callback::guarded;
use async_trait::async_trait;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;

/// Made by [`for_each`](crate::for_each) and [`for_each_json`](crate::for_each_json).
#[derive(Debug)]
pub struct ForEach {
    handler: Handler,
    pub(super) cadence: Cadence,
}

impl ForEach {
    pub(super) fn new(handler: Handler) -> Self {
        ForEach {
            handler,
            cadence: Cadence::default(),
        }
    }
}

impl RecordProcessorFactory for ForEach {
    type Processor = Adapter<EachRecord>;

    fn create(&self, shard: &ShardInfo) -> Adapter<EachRecord> {
        let each = EachRecord {
            handler: self.handler.clone(),
            shard_id: shard.shard_id.clone(),
            done: None,
        };
        Adapter::new(each, self.cadence)
    }
}

/// Calls the closure with one record after the other.
#[derive(Debug)]
pub struct EachRecord {
    handler: Handler,
    shard_id: String,
    /// Everything up to here was handled.
    done: Option<Position>,
}

/// How many records of a batch are done, the first ones.
fn known(batch: &RecordBatch, done: Option<Position>) -> usize {
    done.map_or(0, |done| batch.done_at(done))
}

#[async_trait]
impl Work for EachRecord {
    async fn work(
        &mut self,
        batch: &RecordBatch,
        saver: &mut Saver,
        checkpointer: &Checkpointer,
    ) -> Result<usize, ProcessorError> {
        let mut before = None;
        for record in batch.records().iter().skip(known(batch, self.done)) {
            let work = async {
                checkpointer.prove()?;
                self.handler.handle(&self.shard_id, record.clone()).await
            };
            let mut work = pin!(work);
            let answer = loop {
                tokio::select! {
                    biased;
                    answer = &mut work => break answer,
                    () = saver.in_between(before, checkpointer) => {}
                }
            };
            if let Err(error) = answer {
                saver.batch_failed(before, checkpointer).await;
                return Err(error);
            }
            self.done = Some(record.position());
            before = Some(record);
        }
        Ok(batch.records().len())
    }
}

pub(super) type HandleBatch = Arc<dyn Fn(RecordBatch) -> Called + Send + Sync>;

/// Made by [`for_each_batch`](crate::for_each_batch).
pub struct ForEachBatch {
    handle: HandleBatch,
    pub(super) cadence: Cadence,
}

impl ForEachBatch {
    pub(super) fn new(handle: HandleBatch) -> Self {
        ForEachBatch {
            handle,
            cadence: Cadence::default(),
        }
    }
}

impl fmt::Debug for ForEachBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForEachBatch")
            .field("cadence", &self.cadence)
            .finish_non_exhaustive()
    }
}

impl RecordProcessorFactory for ForEachBatch {
    type Processor = Adapter<EachBatch>;

    fn create(&self, _shard: &ShardInfo) -> Adapter<EachBatch> {
        let each = EachBatch {
            handle: Arc::clone(&self.handle),
            done: None,
        };
        Adapter::new(each, self.cadence)
    }
}

/// Calls the closure with one batch after the other.
pub struct EachBatch {
    handle: HandleBatch,
    /// Everything up to here was handled.
    done: Option<Position>,
}

impl fmt::Debug for EachBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EachBatch")
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Work for EachBatch {
    async fn work(
        &mut self,
        batch: &RecordBatch,
        _saver: &mut Saver,
        _checkpointer: &Checkpointer,
    ) -> Result<usize, ProcessorError> {
        let (known, records) = (known(batch, self.done), batch.records());
        // Nothing is left where only the checkpoint had failed.
        if known < records.len() {
            let rest = batch.part(known..records.len());
            guarded(async { (self.handle)(rest).await }).await?;
            self.done = records.last().map(Record::position);
        }
        Ok(records.len())
    }
}
