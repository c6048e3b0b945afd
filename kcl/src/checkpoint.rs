//! The checkpointer: stores how far a processor has got, at once, in two phases, or in a transaction of the application.

mod growth;
mod position;
mod progress;

use crate::error::{Error, ErrorKind};
use crate::lease::renew::{OwnerWindow, bounded};
use crate::lease::{LeaseDatabase, LeaseStore, LeaseToken, PendingCheckpoint};
use crate::metrics::ShardMetrics;
use crate::processor::Record;
#[cfg(test)]
use crate::seeded_bug::{Bug, made};
use progress::{Phase, Progress, Step};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use position::{InvalidPosition, Position};
pub(crate) use progress::Settled;

/// Stores how far a processor has got; valid for one tenure of one lease, refused ever after (K1).
///
/// Clones share one state and may be kept and used from other tasks.
#[derive(Debug, Clone)]
pub struct Checkpointer {
    tenure: Arc<Tenure>,
}

/// A checkpoint stored as pending, with the application's state, to be committed when the application has done its part.
/// Whoever gets the shard before that finds it in [`ShardInfo::pending`](crate::ShardInfo::pending).
#[derive(Debug, Clone)]
pub struct PreparedCheckpoint {
    tenure: Arc<Tenure>,
    position: Position,
}

impl PreparedCheckpoint {
    /// Where the shard will be checkpointed.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Stores the checkpoint. One that a later checkpoint covers is done already.
    ///
    /// # Errors
    /// As for [`Checkpointer::checkpoint`]; `InvalidPosition` also if the batch it was prepared in has failed since and is not
    /// delivered again yet.
    ///
    /// # Cancel safety
    /// A cancelled call may or may not have stored the checkpoint; calling again is safe.
    pub async fn commit(&self) -> Result<(), Error> {
        if self.position.may_advance_to(&self.tenure.lock().floor) {
            return Ok(());
        }
        self.tenure.advance(self.position).await
    }
}

/// One tenure of one lease: what may be checkpointed, and where it is stored.
#[derive(Debug)]
struct Tenure {
    store: Arc<dyn LeaseStore>,
    application: String,
    token: LeaseToken,
    window: OwnerWindow,
    /// Plain data behind a std mutex, never held across an await.
    progress: Mutex<Progress>,
    /// What a processor of this library takes beside its batch.
    growth: growth::Growth,
    /// Orders the writes of concurrent callers; an async mutex because it is held across the store call.
    writing: tokio::sync::Mutex<()>,
    metrics: ShardMetrics,
}

/// How often one checkpoint is tried while the store is out of reach.
const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const NOT_RENEWED: &str = "the worker could not renew its leases in time";

impl Checkpointer {
    pub(crate) fn new(
        store: Arc<dyn LeaseStore>,
        application: &str,
        token: LeaseToken,
        stored: Position,
        window: OwnerWindow,
    ) -> Self {
        Checkpointer {
            tenure: Arc::new(Tenure {
                store,
                application: application.to_owned(),
                token,
                window,
                progress: Mutex::new(Progress::new(stored)),
                growth: growth::Growth::default(),
                writing: tokio::sync::Mutex::new(()),
                metrics: ShardMetrics::default(),
            }),
        }
    }

    /// Counts its checkpoints; to be called before it is shared.
    pub(crate) fn measured(mut self, metrics: &ShardMetrics) -> Self {
        if let Some(tenure) = Arc::get_mut(&mut self.tenure) {
            tenure.metrics = metrics.clone();
        }
        self
    }

    /// What this tenure is proven by.
    #[cfg(test)]
    pub(crate) fn token(&self) -> &LeaseToken {
        &self.tenure.token
    }

    /// Everything delivered so far is done: inside `process_records` the current batch included; elsewhere every batch whose
    /// processing succeeded. In `shutdown_requested` the checkpoint is stored together with the release of the lease.
    ///
    /// # Errors
    /// `LeaseLost`: the tenure is over, or cannot be proven for the moment; what was not checkpointed is delivered again, here or
    /// elsewhere. `Unavailable`: the lease store could not be reached after several attempts; call again or fail the batch.
    ///
    /// # Cancel safety
    /// A cancelled call may or may not have stored the checkpoint; calling again is safe.
    pub async fn checkpoint(&self) -> Result<(), Error> {
        let position = self.tenure.lock().delivered;
        self.tenure.advance(position).await
    }

    /// `record` and everything before it is done.
    ///
    /// # Errors
    /// `InvalidPosition`: the record was not delivered in this tenure, or lies before the last checkpoint. Others as
    /// for [`checkpoint`](Checkpointer::checkpoint).
    ///
    /// # Cancel safety
    /// A cancelled call may or may not have stored the checkpoint; calling again is safe.
    pub async fn checkpoint_at(&self, record: &Record) -> Result<(), Error> {
        self.tenure.advance(record.position()).await
    }

    /// Stores a pending checkpoint of everything delivered so far, with the application's state: the first of two phases. Then the application does its
    /// part (commits at another system under that state), and [`PreparedCheckpoint::commit`] is the second. After a crash in between, the
    /// next owner finds both in [`ShardInfo::pending`](crate::ShardInfo::pending), finishes or undoes that part, and goes on.
    ///
    /// A new preparation replaces the one before; a checkpoint at or after it removes it.
    ///
    /// # Errors
    /// As for [`checkpoint`](Checkpointer::checkpoint); `Configuration` if the state is longer than 65,536 bytes.
    ///
    /// # Cancel safety
    /// A cancelled call may or may not have stored the preparation; calling again is safe.
    pub async fn prepare(&self, state: impl Into<Vec<u8>>) -> Result<PreparedCheckpoint, Error> {
        let position = self.tenure.lock().delivered;
        self.tenure.prepare(position, state.into()).await?;
        Ok(self.prepared(position))
    }

    /// The same, up to and including `record`.
    ///
    /// # Errors
    /// `InvalidPosition`: the record was not delivered in this tenure, or lies before the last checkpoint. Others as
    /// for [`prepare`](Checkpointer::prepare).
    ///
    /// # Cancel safety
    /// As for [`prepare`](Checkpointer::prepare).
    pub async fn prepare_at(
        &self,
        record: &Record,
        state: impl Into<Vec<u8>>,
    ) -> Result<PreparedCheckpoint, Error> {
        self.tenure.prepare(record.position(), state.into()).await?;
        Ok(self.prepared(record.position()))
    }

    fn prepared(&self, position: Position) -> PreparedCheckpoint {
        PreparedCheckpoint {
            tenure: Arc::clone(&self.tenure),
            position,
        }
    }

    /// Stores a checkpoint of everything delivered so far in a transaction of the application, on the database that holds the leases:
    /// what the application writes in it, and the checkpoint, happen together or not at all. That is exactly once.
    ///
    /// The write is fenced: it fails unless this tenure holds the lease, and unless the store holds just what this tenure has seen
    /// stored. When the batch fails afterwards, also by a commit whose answer was lost, the library looks up what is stored before it delivers
    /// again, and delivers what comes after it.
    ///
    /// Keep the transaction short. In SQLite nobody else writes meanwhile, heartbeats included: begin it with `BEGIN IMMEDIATE`. In
    /// PostgreSQL the shard cannot change hands meanwhile, so the server ends a session that is idle in it for longer than leases live.
    ///
    /// # Errors
    /// `LeaseLost`: the tenure is over, or cannot be proven for the moment. `InvalidPosition`: the store does not hold what an earlier transaction should have
    /// stored. `Store`: the database does not hold the leases. `Unavailable`: the database is busy or out of reach. Roll the
    /// transaction back and fail the batch on each of them.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the transaction in a state that is not known: roll it back.
    pub async fn checkpoint_in<D: LeaseDatabase>(
        &self,
        transaction: &mut sqlx::Transaction<'_, D>,
    ) -> Result<(), Error> {
        let position = self.tenure.lock().delivered;
        self.tenure.offer(position, transaction).await
    }

    /// The same, up to and including `record`.
    ///
    /// # Errors
    /// As for [`checkpoint_in`](Checkpointer::checkpoint_in); `InvalidPosition` also if the record was not delivered in this
    /// tenure, or lies before the last checkpoint.
    ///
    /// # Cancel safety
    /// As for [`checkpoint_in`](Checkpointer::checkpoint_in).
    pub async fn checkpoint_at_in<D: LeaseDatabase>(
        &self,
        record: &Record,
        transaction: &mut sqlx::Transaction<'_, D>,
    ) -> Result<(), Error> {
        self.tenure.offer(record.position(), transaction).await
    }

    /// A batch that ends at `last` is about to be delivered, for the first time or again.
    pub(crate) fn begin_batch(&self, last: Position) {
        self.tenure.lock().begin_batch(last);
    }

    /// The batch in work was processed.
    pub(crate) fn batch_succeeded(&self) {
        self.tenure.lock().batch_succeeded();
    }

    /// Everything up to here is done without a batch: nothing in it was to be delivered.
    pub(crate) fn pass(&self, end: Position) {
        self.tenure.lock().pass(end);
    }

    /// The batch in work failed: it does not count as delivered.
    pub(crate) fn batch_failed(&self) {
        self.tenure.lock().batch_failed();
    }

    /// Whether [`settle`](Checkpointer::settle) must come before the batch is delivered again.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.tenure.lock().is_in_doubt()
    }

    /// Whether a transaction of the application stored a position, or did not: it is not known here.
    pub(crate) fn has_offered(&self) -> bool {
        self.tenure.lock().has_offered()
    }

    /// Looks up what the store holds after a transaction of the application that may or may not have been committed.
    pub(crate) async fn settle(&self) -> Result<Settled, Error> {
        self.tenure.settle().await
    }

    /// Turns a starting time into the first record found for it, before it is delivered (K4).
    pub(crate) async fn pin(&self, first: Position) -> Result<(), Error> {
        self.tenure.pin(first).await
    }

    /// Stores what was handled, without the batch in work: for checkpoints made beside it.
    pub(crate) async fn checkpoint_handled(&self) -> Result<(), Error> {
        let position = self.tenure.lock().handled;
        self.tenure.advance(position).await
    }

    /// Fails when the lease cannot be proven for the moment: nothing more is to be begun then (K2).
    pub(crate) fn prove(&self) -> Result<(), Error> {
        drop(self.tenure.live()?);
        if self.tenure.window.is_open() {
            Ok(())
        } else {
            Err(self.tenure.lost(NOT_RENEWED))
        }
    }

    /// Everything up to here was handled.
    pub(crate) fn handled(&self) -> Position {
        self.tenure.lock().handled
    }

    /// From here on checkpoints are kept for the release.
    pub(crate) fn begin_release(&self) {
        self.tenure.lock().phase = Phase::Releasing;
    }

    /// Ends the tenure and gives the position to be stored with the release, if there is a new one.
    pub(crate) async fn finish_release(&self) -> Option<Position> {
        let _last_write = self.tenure.writing.lock().await;
        let mut progress = self.tenure.lock();
        progress.phase = Phase::Over("the lease was released");
        progress.last_words()
    }

    /// Ends the tenure.
    pub(crate) fn end(&self, reason: &'static str) {
        self.tenure.lock().phase = Phase::Over(reason);
    }

    /// Whether the store said that the tenure is over.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.tenure.lock().phase, Phase::Over(_))
    }
}

/// A write of the store.
enum Write {
    Checkpoint(Position),
    Pending(PendingCheckpoint),
}

/// The longest state that can be stored with a prepared checkpoint.
const STATE_MAX_BYTES: usize = 64 * 1024;

impl Tenure {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> Result<MutexGuard<'_, Progress>, Error> {
        let progress = self.lock();
        match progress.phase {
            Phase::Over(reason) => Err(self.lost(reason)),
            Phase::Processing | Phase::Releasing => Ok(progress),
        }
    }

    async fn advance(&self, position: Position) -> Result<(), Error> {
        let _turn = self.writing.lock().await;
        let step = self.live()?.admit(position, &self.token.key)?;
        if step == Step::Nothing {
            return Ok(());
        }
        match self.write(&Write::Checkpoint(position)).await {
            Ok(()) => {
                self.lock().was_stored(position);
                Ok(())
            }
            // The tenure is current, and only it writes: an earlier checkpoint was stored though its reply was lost, and
            // covers this one (K12).
            Err(error) if error.kind() == ErrorKind::InvalidPosition => {
                tracing::debug!(%error, lease = %self.token.key, "a later checkpoint is stored");
                self.lock().floor = position;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn prepare(&self, position: Position, state: Vec<u8>) -> Result<(), Error> {
        if state.len() > STATE_MAX_BYTES {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!(
                    "the state of a prepared checkpoint of {} is {} bytes long, at most {STATE_MAX_BYTES} can be stored; keep it elsewhere and store where",
                    self.token.key,
                    state.len()
                ),
            ));
        }
        let _turn = self.writing.lock().await;
        self.live()?.within(position, &self.token.key)?;
        let pending = PendingCheckpoint { position, state };
        self.write(&Write::Pending(pending)).await
    }

    async fn offer<D: LeaseDatabase>(
        &self,
        position: Position,
        transaction: &mut sqlx::Transaction<'_, D>,
    ) -> Result<(), Error> {
        let _turn = self.writing.lock().await;
        let base = {
            let mut progress = self.live()?;
            progress.within(position, &self.token.key)?;
            progress.base()
        };
        if !self.window.is_open() {
            return Err(self.lost(NOT_RENEWED));
        }
        let step = crate::lease::CheckpointStep {
            application: &self.application,
            token: &self.token,
            base,
            position,
            patience: self.window.length(),
        };
        D::store_checkpoint(transaction, step).await?;
        self.lock().was_offered(position);
        Ok(())
    }

    async fn settle(&self) -> Result<Settled, Error> {
        let _turn = self.writing.lock().await;
        let read = self.store.lease(&self.application, &self.token.key);
        let lease = bounded(self.window.length(), read).await?;
        match lease {
            Some(lease)
                if lease.counter == self.token.counter
                    && lease.owner.as_ref() == Some(&self.token.owner) =>
            {
                Ok(self.lock().settle(lease.checkpoint))
            }
            Some(_) | None => {
                let reason = "the lease has another owner";
                self.lock().phase = Phase::Over(reason);
                Err(self.lost(reason))
            }
        }
    }

    async fn pin(&self, first: Position) -> Result<(), Error> {
        let _turn = self.writing.lock().await;
        drop(self.live()?);
        self.write(&Write::Checkpoint(first)).await?;
        let mut progress = self.lock();
        progress.handled = first;
        progress.delivered = first;
        progress.was_stored(first);
        Ok(())
    }

    /// Writes, again and again for a while if the store is out of reach.
    async fn write(&self, write: &Write) -> Result<(), Error> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            if !self.window.is_open() {
                return Err(self.lost(NOT_RENEWED));
            }
            let (store, application, token) = (&self.store, &self.application, &self.token);
            let call = match write {
                Write::Checkpoint(position) => store.checkpoint(application, token, position),
                Write::Pending(pending) => store.prepare(application, token, pending),
            };
            match bounded(self.window.length(), call).await {
                Ok(()) => break,
                Err(error) if error.is_retryable() && attempt < ATTEMPTS => {
                    tracing::debug!(%error, attempt, lease = %token.key, "checkpoint is repeated");
                }
                Err(error) => {
                    let lost = error.kind() == ErrorKind::LeaseLost;
                    #[cfg(test)]
                    let lost = lost || made(Bug::LostReplyIsLoss);
                    self.metrics.checkpoint_failures.increment(1);
                    if lost {
                        self.lock().phase = Phase::Over("the lease has another owner");
                    }
                    return Err(error);
                }
            }
            tokio::time::sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
            pause *= 2;
        }
        self.metrics.checkpoints.increment(1);
        Ok(())
    }

    fn lost(&self, reason: &str) -> Error {
        Error::new(
            ErrorKind::LeaseLost,
            format!(
                "{} cannot be checkpointed under counter {}: {reason}",
                self.token.key, self.token.counter
            ),
        )
    }
}

#[cfg(test)]
mod tests;
