//! A recording processor whose callbacks fail, panic, take their time or never return, on demand.

use super::*;
use crate::checkpoint::Checkpointer;
use crate::fake::recorder::Recorder;
use crate::processor::{ProcessorError, RecordBatch, RecordProcessor, ShardInfo};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Mutex;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Callback {
    Initialize,
    ProcessRecords,
    ShardEnded,
    ShutdownRequested,
    LeaseLost,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Mischief {
    Fail,
    Panic,
    Take(Duration),
    Hang,
}

/// Mischief by shard and callback, and how often it is still to happen.
type Pending = BTreeMap<(String, Callback), (Mischief, u32)>;

#[derive(Debug, Clone, Default)]
pub(super) struct Troubles(Arc<Mutex<Pending>>);

impl Troubles {
    pub(super) fn set(&self, shard: usize, callback: Callback, mischief: Mischief, times: u32) {
        let mut troubles = self.0.lock().unwrap();
        troubles.insert((shard_id(shard), callback), (mischief, times));
    }

    /// The processors of one worker.
    pub(super) fn factory(
        &self,
        journal: &Journal,
        worker: &str,
    ) -> impl Fn(&ShardInfo) -> Troubled + Send + Sync + use<> {
        let (troubles, inner) = (self.clone(), journal.factory(worker));
        move |shard: &ShardInfo| Troubled {
            inner: inner(shard),
            troubles: troubles.clone(),
            shard_id: shard.shard_id.clone(),
        }
    }

    async fn strike(&self, shard_id: &str, callback: Callback) -> Result<(), ProcessorError> {
        let mischief = {
            let mut troubles = self.0.lock().unwrap();
            let due = troubles.get_mut(&(shard_id.to_owned(), callback));
            let due = due.filter(|(_, left)| *left > 0);
            due.map(|(mischief, left)| {
                *left -= 1;
                *mischief
            })
        };
        match mischief {
            None => Ok(()),
            Some(Mischief::Fail) => Err("a failure on demand".into()),
            Some(Mischief::Panic) => panic!("a panic in {callback:?} on demand"),
            Some(Mischief::Take(time)) => {
                sleep(time).await;
                Ok(())
            }
            Some(Mischief::Hang) => std::future::pending().await,
        }
    }
}

/// Strikes first; what goes well is written down.
#[derive(Debug)]
pub(super) struct Troubled {
    inner: Recorder,
    troubles: Troubles,
    shard_id: String,
}

#[async_trait]
impl RecordProcessor for Troubled {
    async fn initialize(&mut self, shard: &ShardInfo) -> Result<(), ProcessorError> {
        let strike = self.troubles.strike(&self.shard_id, Callback::Initialize);
        strike.await?;
        self.inner.initialize(shard).await
    }

    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        let strike = self
            .troubles
            .strike(&self.shard_id, Callback::ProcessRecords);
        strike.await?;
        self.inner.process_records(batch, checkpointer).await
    }

    async fn lease_lost(&mut self) {
        let strike = self.troubles.strike(&self.shard_id, Callback::LeaseLost);
        strike.await.unwrap();
        self.inner.lease_lost().await;
    }

    async fn shard_ended(&mut self, checkpointer: &Checkpointer) -> Result<(), ProcessorError> {
        let strike = self.troubles.strike(&self.shard_id, Callback::ShardEnded);
        strike.await?;
        self.inner.shard_ended(checkpointer).await
    }

    async fn shutdown_requested(
        &mut self,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        let strike = self
            .troubles
            .strike(&self.shard_id, Callback::ShutdownRequested);
        strike.await?;
        self.inner.shutdown_requested(checkpointer).await
    }
}
