//! Positions in a shard: where an application has got to, and where it starts; and the checkpointer that stores them.

use crate::error::{Error, ErrorKind};
use crate::lease::renew::{OwnerWindow, bounded};
use crate::lease::{LeaseStore, LeaseToken};
use crate::processor::Record;
use millstream_wire::SequenceNumber;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How far an application has got in a shard. Reading resumes *after* it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Position {
    /// Nothing processed yet: start at the oldest record still retained.
    TrimHorizon,
    /// Nothing processed yet: start at the first record that arrived at or after this time,
    /// milliseconds since 1970 by the stream server's clock.
    AtTimestamp(u64),
    /// Everything up to and including this record is done.
    Sequence {
        /// The last finished record.
        sequence: SequenceNumber,
        /// The last finished user record within it, if it is an aggregate; else 0.
        sub_sequence: u64,
    },
    /// The whole shard is done; final.
    ShardEnd,
}

impl Position {
    /// Everything up to and including `sequence` is done.
    pub fn after(sequence: SequenceNumber) -> Position {
        Position::Sequence {
            sequence,
            sub_sequence: u64::MAX,
        }
    }

    /// Whether the store may replace `self` by `next`: forward or equal, never back (K3). The starting
    /// positions are before every record and may replace only themselves.
    pub fn may_advance_to(&self, next: &Position) -> bool {
        match self.partial_cmp(next) {
            Some(Ordering::Less | Ordering::Equal) => true,
            Some(Ordering::Greater) | None => false,
        }
    }

    fn rank(self) -> u8 {
        match self {
            Position::TrimHorizon | Position::AtTimestamp(_) => 0,
            Position::Sequence { .. } => 1,
            Position::ShardEnd => 2,
        }
    }
}

impl PartialOrd for Position {
    /// Starting positions < records < shard end. Two different starting positions do not compare.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (
                Position::Sequence {
                    sequence,
                    sub_sequence,
                },
                Position::Sequence {
                    sequence: other_sequence,
                    sub_sequence: other_sub,
                },
            ) => Some((sequence, sub_sequence).cmp(&(other_sequence, other_sub))),
            _ if self == other => Some(Ordering::Equal),
            _ if self.rank() == other.rank() => None,
            _ => Some(self.rank().cmp(&other.rank())),
        }
    }
}

/// The text is not a stored position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a checkpoint: expected TRIM_HORIZON, AT_TIMESTAMP:milliseconds, SHARD_END, a sequence number, or sequence:sub-sequence"
)]
pub struct InvalidPosition(pub String);

impl fmt::Display for Position {
    /// The stored form. A position after a whole record is the bare sequence number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::TrimHorizon => f.write_str("TRIM_HORIZON"),
            Position::AtTimestamp(ms) => write!(f, "AT_TIMESTAMP:{ms}"),
            Position::Sequence {
                sequence,
                sub_sequence: u64::MAX,
            } => write!(f, "{sequence}"),
            Position::Sequence {
                sequence,
                sub_sequence,
            } => write!(f, "{sequence}:{sub_sequence}"),
            Position::ShardEnd => f.write_str("SHARD_END"),
        }
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || InvalidPosition(text.chars().take(200).collect());
        match text {
            "TRIM_HORIZON" => return Ok(Position::TrimHorizon),
            "SHARD_END" => return Ok(Position::ShardEnd),
            _ => {}
        }
        if let Some(ms) = text.strip_prefix("AT_TIMESTAMP:") {
            return ms.parse().map(Position::AtTimestamp).map_err(|_| refused());
        }
        let (sequence, sub_sequence) = match text.split_once(':') {
            None => (text, u64::MAX),
            Some((sequence, sub)) => (sequence, sub.parse().map_err(|_| refused())?),
        };
        Ok(Position::Sequence {
            sequence: sequence.parse().map_err(|_| refused())?,
            sub_sequence,
        })
    }
}

/// Stores how far a processor has got; valid for one tenure of one lease, refused ever after (K1).
///
/// Clones share one state and may be kept and used from other tasks.
#[derive(Debug, Clone)]
pub struct Checkpointer {
    tenure: Arc<Tenure>,
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
    /// Orders the writes of concurrent callers; an async mutex because it is held across the store call.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Progress {
    phase: Phase,
    /// End of the last batch whose processing succeeded.
    handled: Position,
    /// Like `handled`, but with the batch in work.
    delivered: Position,
    /// The last checkpoint given in this attempt at a batch; a later one lies at or after it.
    floor: Position,
    /// What the store is known to hold.
    stored: Position,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Processing,
    /// A checkpoint is kept and stored together with the release (K9).
    Releasing,
    /// The tenure is over, for this reason.
    Over(&'static str),
}

/// How often one checkpoint is tried while the store is out of reach.
const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(50);

impl Checkpointer {
    pub(crate) fn new(
        store: Arc<dyn LeaseStore>,
        application: &str,
        token: LeaseToken,
        stored: Position,
        window: OwnerWindow,
    ) -> Self {
        let progress = Progress {
            phase: Phase::Processing,
            handled: stored,
            delivered: stored,
            floor: stored,
            stored,
        };
        Checkpointer {
            tenure: Arc::new(Tenure {
                store,
                application: application.to_owned(),
                token,
                window,
                progress: Mutex::new(progress),
                writing: tokio::sync::Mutex::new(()),
            }),
        }
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

    /// A batch that ends at `last` is about to be delivered, for the first time or again.
    pub(crate) fn begin_batch(&self, last: Position) {
        let mut progress = self.tenure.lock();
        progress.delivered = last;
        progress.floor = progress.handled;
    }

    /// The batch in work was processed.
    pub(crate) fn batch_succeeded(&self) {
        let mut progress = self.tenure.lock();
        progress.handled = progress.delivered;
    }

    /// The batch in work failed: it does not count as delivered.
    pub(crate) fn batch_failed(&self) {
        let mut progress = self.tenure.lock();
        progress.delivered = progress.handled;
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
        (!progress.floor.may_advance_to(&progress.stored)).then_some(progress.floor)
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

/// What is to be done about a checkpoint.
enum Step {
    Nothing,
    Write,
}

impl Tenure {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn advance(&self, position: Position) -> Result<(), Error> {
        let _turn = self.writing.lock().await;
        match self.admit(position)? {
            Step::Nothing => Ok(()),
            Step::Write => self.write(position).await,
        }
    }

    fn admit(&self, position: Position) -> Result<Step, Error> {
        let mut progress = self.lock();
        if let Phase::Over(reason) = progress.phase {
            return Err(self.lost(reason));
        }
        let delivered = position.may_advance_to(&progress.delivered);
        if !delivered || !progress.floor.may_advance_to(&position) {
            return Err(Error::new(
                ErrorKind::InvalidPosition,
                format!(
                    "checkpoint {position} of {} must lie between the last one, {}, and the last record delivered, {}",
                    self.token.key, progress.floor, progress.delivered
                ),
            ));
        }
        if progress.phase == Phase::Releasing {
            progress.floor = position;
            return Ok(Step::Nothing);
        }
        // A batch that is delivered again may be checkpointed from its start, but the store never goes back (K3).
        if position.may_advance_to(&progress.stored) {
            progress.floor = position;
            return Ok(Step::Nothing);
        }
        Ok(Step::Write)
    }

    async fn write(&self, position: Position) -> Result<(), Error> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            if !self.window.is_open() {
                return Err(self.lost("the worker could not renew its leases in time"));
            }
            let write = self
                .store
                .checkpoint(&self.application, &self.token, &position);
            match bounded(self.window.length(), write).await {
                Ok(()) => break,
                Err(error) if error.is_retryable() && attempt < ATTEMPTS => {
                    tracing::debug!(%error, attempt, lease = %self.token.key, "checkpoint is repeated");
                }
                // The tenure is current, and only it writes: an earlier checkpoint was stored though its reply was lost, and
                // covers this one (K12).
                Err(error) if error.kind() == ErrorKind::InvalidPosition => {
                    tracing::debug!(%error, lease = %self.token.key, "a later checkpoint is stored");
                    self.lock().floor = position;
                    return Ok(());
                }
                Err(error) => {
                    if error.kind() == ErrorKind::LeaseLost {
                        self.lock().phase = Phase::Over("the lease has another owner");
                    }
                    return Err(error);
                }
            }
            tokio::time::sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
            pause *= 2;
        }
        let mut progress = self.lock();
        progress.stored = position;
        progress.floor = position;
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
