//! One closure call after the other: for each record, or for each batch.

use super::{Cadence, Handler, Saver, Work};
use crate::checkpoint::{Checkpointer, Position};
use crate::processor::{
    ProcessorError, Record, RecordBatch, RecordProcessor, RecordProcessorFactory, ShardInfo,
};
use crate::shard::callback::guarded;
use async_trait::async_trait;
use std::fmt;
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
    type Processor = ForEachProcessor;

    fn create(&self, shard: &ShardInfo) -> ForEachProcessor {
        ForEachProcessor {
            handler: self.handler.clone(),
            shard_id: shard.shard_id.clone(),
            done: None,
            saver: Saver::new(self.cadence),
        }
    }
}

/// Processes a shard for [`ForEach`].
#[derive(Debug)]
pub struct ForEachProcessor {
    handler: Handler,
    shard_id: String,
    /// Everything up to here was handled.
    done: Option<Position>,
    saver: Saver,
}

/// What of a batch is not done yet.
fn open(batch: &RecordBatch, done: Option<Position>) -> usize {
    done.map_or(0, |done| batch.done_at(done))
}

impl ForEachProcessor {
    async fn handle(
        &mut self,
        record: &Record,
        before: Option<&Record>,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        checkpointer.prove()?;
        let mut work = std::pin::pin!(self.handler.handle(&self.shard_id, record.clone()));
        loop {
            tokio::select! {
                biased;
                handled = &mut work => return handled,
                () = self.saver.in_between(before, checkpointer) => {}
            }
        }
    }
}

#[async_trait]
impl RecordProcessor for ForEachProcessor {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        self.saver.batch_begins();
        let open = open(&batch, self.done);
        let mut before = None;
        for record in batch.records().iter().skip(open) {
            if let Err(error) = self.handle(record, before, checkpointer).await {
                self.saver.batch_failed(before, checkpointer).await;
                return Err(error);
            }
            self.done = Some(record.position());
            before = Some(record);
        }
        let records = batch.records().len();
        self.saver.batch_done(records, checkpointer).await?;
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

pub(super) type HandleBatch = Arc<dyn Fn(RecordBatch) -> Work + Send + Sync>;

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
    type Processor = ForEachBatchProcessor;

    fn create(&self, _shard: &ShardInfo) -> ForEachBatchProcessor {
        ForEachBatchProcessor {
            handle: Arc::clone(&self.handle),
            done: None,
            saver: Saver::new(self.cadence),
        }
    }
}

/// Processes a shard for [`ForEachBatch`].
pub struct ForEachBatchProcessor {
    handle: HandleBatch,
    /// Everything up to here was handled.
    done: Option<Position>,
    saver: Saver,
}

impl fmt::Debug for ForEachBatchProcessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForEachBatchProcessor")
            .field("done", &self.done)
            .field("saver", &self.saver)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl RecordProcessor for ForEachBatchProcessor {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        let records = batch.records().len();
        let open = open(&batch, self.done);
        // Nothing is open where only the checkpoint had failed.
        if open < records {
            let last = batch.records().last().map(Record::position);
            guarded(async { (self.handle)(batch.part(open..records)).await }).await?;
            self.done = last;
        }
        self.saver.batch_done(records, checkpointer).await?;
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
