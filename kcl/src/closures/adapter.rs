//! What every adapter has in common: when it checkpoints, and what it does when its shard goes.

use super::{Cadence, Saver};
use crate::checkpoint::Checkpointer;
use crate::processor::{ProcessorError, RecordBatch, RecordProcessor};
use async_trait::async_trait;

/// What is done about the batches of a shard, checkpoints apart.
#[async_trait]
pub(crate) trait Work: Send + 'static {
    /// Does a batch, and what it takes beside it; gives how many records that was. When it fails, what it has done of it is its own to remember.
    async fn work(
        &mut self,
        batch: &RecordBatch,
        saver: &mut Saver,
        checkpointer: &Checkpointer,
    ) -> Result<usize, ProcessorError>;
}

/// A record processor that checkpoints what its work has done.
#[derive(Debug)]
pub struct Adapter<W> {
    work: W,
    saver: Saver,
}

impl<W> Adapter<W> {
    pub(crate) fn new(work: W, cadence: Cadence) -> Self {
        Adapter {
            work,
            saver: Saver::new(cadence),
        }
    }
}

#[async_trait]
impl<W: Work> RecordProcessor for Adapter<W> {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        let Adapter { work, saver } = self;
        saver.batch_begins();
        let records = work.work(&batch, saver, checkpointer).await?;
        saver.batch_done(records, checkpointer).await?;
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
