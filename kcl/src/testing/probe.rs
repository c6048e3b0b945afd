//! One shard without a worker: calls a record processor as a shard consumer would, and tells what came of it.

use super::record;
use crate::checkpoint::{Checkpointer, Position};
use crate::clock;
use crate::error::{Error, ErrorKind};
use crate::lease::renew::OwnerWindow;
use crate::lease::{
    Claim, LeaseKey, LeaseStore, LeaseToken, MemoryLeaseStore, NewLease, Release, WorkerProfile,
};
use crate::processor::{
    ProcessorError, Record, RecordBatch, RecordProcessor, RecordProcessorFactory, ShardInfo,
};
use bytes::Bytes;
use millstream_wire::HashKeyRange;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const APPLICATION: &str = "probe";

/// The lease of a probe does not lapse, however much time a test lets pass.
const FOR_EVER: Duration = Duration::from_hours(24 * 365 * 10);

/// Runs a [`RecordProcessor`] on records of one's own, with a true [`Checkpointer`] over a lease in memory. A call that fails is not repeated by itself:
/// [`redeliver`](ShardProbe::redeliver) is what a worker does next.
///
/// ```
/// use async_trait::async_trait;
/// use kcl::testing::ShardProbe;
/// use kcl::{Checkpointer, ProcessorError, RecordBatch, RecordProcessor};
///
/// /// Fails at first, and checkpoints every batch.
/// struct Flaky {
///     calls: u32,
/// }
///
/// #[async_trait]
/// impl RecordProcessor for Flaky {
///     async fn process_records(
///         &mut self,
///         batch: RecordBatch,
///         checkpointer: &Checkpointer,
///     ) -> Result<(), ProcessorError> {
///         self.calls += 1;
///         if self.calls == 1 {
///             return Err("not yet".into());
///         }
///         checkpointer.checkpoint().await?;
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let mut probe = ShardProbe::new(Flaky { calls: 0 });
/// let failed = probe.deliver([("key", "a"), ("key", "b")]).await;
/// assert_eq!(failed.unwrap_err().to_string(), "not yet");
/// assert_eq!(probe.checkpointed(), 0);
///
/// probe.redeliver().await.unwrap();
/// assert_eq!(probe.checkpointed(), 2);
/// assert_eq!(probe.processor().calls, 2);
/// # }
/// ```
#[derive(Debug)]
pub struct ShardProbe<P> {
    processor: P,
    shard: ShardInfo,
    store: MemoryLeaseStore,
    /// Made with the first call.
    tenure: Option<Tenure>,
    initialized: bool,
    delivered: Vec<Record>,
    last: Option<RecordBatch>,
    next_sequence: u64,
    stored: Position,
    calls: Vec<ProbedCall>,
}

#[derive(Debug, Clone)]
struct Tenure {
    token: LeaseToken,
    checkpointer: Checkpointer,
}

/// A callback of a record processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProbeCall {
    /// `initialize`.
    Initialize,
    /// `process_records`.
    ProcessRecords,
    /// `lease_lost`.
    LeaseLost,
    /// `shard_ended`.
    ShardEnded,
    /// `shutdown_requested`.
    ShutdownRequested,
}

/// A call that was made, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProbedCall {
    /// Which.
    pub call: ProbeCall,
    /// The records given; none unless it is `process_records`.
    pub records: Vec<Record>,
    /// The text of the error it returned.
    pub error: Option<String>,
    /// What was stored after it.
    pub checkpoint: Position,
}

fn some_shard() -> ShardInfo {
    ShardInfo {
        stream_name: "stream".to_owned(),
        shard_id: "shardId-000000000000".to_owned(),
        position: Position::TrimHorizon,
        hash_key_range: Some(HashKeyRange::ALL),
        parents: Vec::new(),
        pending: None,
    }
}

impl<P: RecordProcessor> ShardProbe<P> {
    /// A probe of a processor, at the beginning of some shard.
    pub fn new(processor: P) -> Self {
        ShardProbe::at(some_shard(), processor)
    }

    /// A probe of the processor that a factory makes for some shard.
    pub fn of<F: RecordProcessorFactory<Processor = P>>(factory: &F) -> Self {
        let shard = some_shard();
        let processor = factory.create(&shard);
        ShardProbe::at(shard, processor)
    }

    /// A probe of a processor at a shard of one's own.
    pub fn at(shard: ShardInfo, processor: P) -> Self {
        ShardProbe {
            processor,
            stored: shard.position,
            shard,
            store: MemoryLeaseStore::new(),
            tenure: None,
            initialized: false,
            delivered: Vec::new(),
            last: None,
            next_sequence: 1,
            calls: Vec::new(),
        }
    }

    /// Calls `initialize`; the first delivery does it otherwise.
    ///
    /// # Errors
    /// What the processor returned.
    ///
    /// # Cancel safety
    /// A dropped call counts as not made.
    pub async fn initialize(&mut self) -> Result<(), ProcessorError> {
        self.tenure().await?;
        let answer = self.processor.initialize(&self.shard).await;
        self.initialized = answer.is_ok();
        self.note(ProbeCall::Initialize, &[], &answer).await;
        answer
    }

    /// Calls `process_records` with a batch of new records, given as partition key and data; sequence numbers go up by one from 1.
    ///
    /// # Errors
    /// What the processor returned.
    ///
    /// # Cancel safety
    /// Dropped, the batch counts as delivered and failed.
    pub async fn deliver<K: AsRef<str>, D: Into<Bytes>>(
        &mut self,
        records: impl IntoIterator<Item = (K, D)>,
    ) -> Result<(), ProcessorError> {
        let numbered = (self.next_sequence..).zip(records);
        let records: Vec<_> = numbered
            .map(|(number, (key, data))| record(number, key.as_ref(), data))
            .collect();
        self.deliver_records(records).await
    }

    /// Calls `process_records` with these records, for example of [`record`](super::record); none is a call with an empty batch, which no worker makes.
    ///
    /// # Errors
    /// What the processor returned.
    ///
    /// # Cancel safety
    /// Dropped, the batch counts as delivered and failed.
    pub async fn deliver_records(&mut self, records: Vec<Record>) -> Result<(), ProcessorError> {
        self.next_sequence += u64::try_from(records.len()).unwrap_or_default();
        self.delivered.extend(records.iter().cloned());
        let batch = RecordBatch {
            records: Arc::new(records),
            millis_behind_latest: 0,
        };
        self.last = Some(batch.clone());
        self.process(batch).await
    }

    /// Calls `process_records` with the last batch again, as a worker does when it failed.
    ///
    /// # Errors
    /// What the processor returned.
    ///
    /// # Cancel safety
    /// Dropped, the batch counts as delivered and failed.
    pub async fn redeliver(&mut self) -> Result<(), ProcessorError> {
        match self.last.clone() {
            Some(batch) => self.process(batch).await,
            None => Err("nothing was delivered yet: call deliver".into()),
        }
    }

    async fn process(&mut self, batch: RecordBatch) -> Result<(), ProcessorError> {
        if !self.initialized {
            self.initialize().await?;
        }
        let Tenure { checkpointer, .. } = self.tenure().await?;
        checkpointer.prove()?;
        if let Some(last) = batch.records().last() {
            checkpointer.begin_batch(last.position());
        }
        let work = self.processor.process_records(batch.clone(), &checkpointer);
        let answer = work.await;
        match &answer {
            Ok(()) => checkpointer.batch_succeeded(),
            Err(_) => checkpointer.batch_failed(),
        }
        self.note(ProbeCall::ProcessRecords, batch.records(), &answer)
            .await;
        answer
    }

    /// The lease goes to another worker: calls `lease_lost`. Every checkpoint is refused from here on.
    ///
    /// # Errors
    /// The probe is at fault.
    ///
    /// # Cancel safety
    /// Dropped, the lease is lost all the same.
    pub async fn lose_lease(&mut self) -> Result<(), ProcessorError> {
        let Tenure { checkpointer, .. } = self.tenure().await?;
        checkpointer.end("the lease has another owner");
        self.processor.lease_lost().await;
        self.note(ProbeCall::LeaseLost, &[], &Ok(())).await;
        Ok(())
    }

    /// The worker shuts down, or hands the shard over: calls `shutdown_requested`, and stores its checkpoint with the release, also if it fails.
    ///
    /// # Errors
    /// What the processor returned.
    ///
    /// # Cancel safety
    /// Dropped, nothing is released.
    pub async fn request_shutdown(&mut self) -> Result<(), ProcessorError> {
        let Tenure {
            token,
            checkpointer,
        } = self.tenure().await?;
        checkpointer.begin_release();
        let answer = self.processor.shutdown_requested(&checkpointer).await;
        let release = Release {
            token,
            checkpoint: checkpointer.finish_release().await,
            to: None,
        };
        self.store.release(APPLICATION, &[release]).await?;
        self.note(ProbeCall::ShutdownRequested, &[], &answer).await;
        answer
    }

    /// The shard has ended: calls `shard_ended`, and stores the end if that succeeds.
    ///
    /// # Errors
    /// What the processor returned; it may be called again.
    ///
    /// # Cancel safety
    /// Dropped, the end is not stored.
    pub async fn end_shard(&mut self) -> Result<(), ProcessorError> {
        let Tenure {
            token,
            checkpointer,
        } = self.tenure().await?;
        let answer = self.processor.shard_ended(&checkpointer).await;
        if answer.is_ok() {
            self.store.end_shard(APPLICATION, &token, &[]).await?;
            checkpointer.end("the shard has ended");
        }
        self.note(ProbeCall::ShardEnded, &[], &answer).await;
        answer
    }

    /// Where the lease is.
    #[cfg(test)]
    pub(crate) fn store(&self) -> MemoryLeaseStore {
        self.store.clone()
    }

    /// What it gives its processor.
    #[cfg(test)]
    pub(crate) async fn checkpointer(&mut self) -> Checkpointer {
        self.tenure().await.unwrap().checkpointer
    }

    /// What is stored as the checkpoint of the shard.
    pub fn checkpoint(&self) -> Position {
        self.stored
    }

    /// How many of the records delivered so far the checkpoint covers.
    pub fn checkpointed(&self) -> usize {
        let covered = |record: &&Record| record.position().may_advance_to(&self.stored);
        self.delivered.iter().filter(covered).count()
    }

    /// The calls made so far, in order.
    pub fn calls(&self) -> &[ProbedCall] {
        &self.calls
    }

    /// The processor.
    pub fn processor(&self) -> &P {
        &self.processor
    }

    /// The processor, to change what it does.
    pub fn processor_mut(&mut self) -> &mut P {
        &mut self.processor
    }

    async fn note(
        &mut self,
        call: ProbeCall,
        records: &[Record],
        answer: &Result<(), ProcessorError>,
    ) {
        if let Some(tenure) = &self.tenure
            && let Ok(Some(lease)) = self.store.lease(APPLICATION, &tenure.token.key).await
        {
            self.stored = lease.checkpoint;
        }
        self.calls.push(ProbedCall {
            call,
            records: records.to_vec(),
            error: answer.as_ref().err().map(ToString::to_string),
            checkpoint: self.stored,
        });
    }

    async fn tenure(&mut self) -> Result<Tenure, Error> {
        if let Some(tenure) = &self.tenure {
            return Ok(tenure.clone());
        }
        let key = LeaseKey {
            stream: self.shard.stream_name.clone(),
            shard_id: self.shard.shard_id.clone(),
        };
        let lease = NewLease {
            key: key.clone(),
            checkpoint: self.shard.position,
            parents: Vec::new(),
            hash_key_range: self.shard.hash_key_range,
        };
        let store = &self.store;
        store.create_leases(APPLICATION, &[lease]).await?;
        let profile = WorkerProfile::default();
        let me = store.register(APPLICATION, "probe", &profile).await?;
        let claim = Claim {
            key: key.clone(),
            counter: 0,
            expired: None,
        };
        let taken = store.take(APPLICATION, &me, &[claim]).await?;
        let taken = taken.first().ok_or_else(|| {
            let message = format!("{key} cannot be probed from {}", self.shard.position);
            Error::new(ErrorKind::InvalidPosition, message)
        })?;
        let token = LeaseToken {
            key,
            owner: "probe".to_owned(),
            counter: taken.counter,
        };
        let checkpointer = Checkpointer::new(
            Arc::new(store.clone()),
            APPLICATION,
            token.clone(),
            taken.checkpoint,
            OwnerWindow::open(clock::now(), FOR_EVER),
        );
        let tenure = Tenure {
            token,
            checkpointer,
        };
        Ok(self.tenure.insert(tenure).clone())
    }
}
