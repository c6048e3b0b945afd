//! When a shard that closures process is checkpointed.

use crate::checkpoint::{Checkpointer, Position};
use crate::clock::{self, Instant};
use crate::error::{Error, ErrorKind};
use crate::processor::Record;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;
use tokio::task::JoinHandle;

/// How often checkpoints are made; neither: after every batch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cadence {
    pub(crate) every: Option<Duration>,
    pub(crate) records: Option<u64>,
}

/// How often a batch in work is checkpointed by default.
const IN_BETWEEN: Duration = Duration::from_secs(1);

impl Cadence {
    fn is_due(&self, since: Instant, records: u64) -> bool {
        let by_time = self.every.map(|every| clock::now() >= since + every);
        let by_records = self.records.map(|most| records >= most);
        match (by_time, by_records) {
            (None, None) => true,
            (by_time, by_records) => by_time == Some(true) || by_records == Some(true),
        }
    }

    /// How often while a batch is in work; `None`: never.
    fn in_between(&self) -> Option<Duration> {
        match (self.every, self.records) {
            (None, None) => Some(IN_BETWEEN),
            (every, _) => every,
        }
    }
}

type Write = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Makes the checkpoints of one tenure.
pub(crate) struct Saver {
    cadence: Cadence,
    saved_at: Instant,
    /// When the batch in work was delivered.
    began: Instant,
    /// Records done since.
    unsaved: u64,
    /// Where the last checkpoint of a batch in work lies.
    marked: Option<Position>,
    /// The checkpoint of a batch in work that is being stored.
    write: Option<Write>,
    /// Checkpoints what is done when no batch comes any more.
    timer: Option<Timer>,
}

impl fmt::Debug for Saver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Saver")
            .field("cadence", &self.cadence)
            .field("unsaved", &self.unsaved)
            .finish_non_exhaustive()
    }
}

impl Saver {
    pub(crate) fn new(cadence: Cadence) -> Self {
        Saver {
            cadence,
            saved_at: clock::now(),
            began: clock::now(),
            unsaved: 0,
            marked: None,
            write: None,
            timer: None,
        }
    }

    /// A batch is delivered.
    pub(crate) fn batch_begins(&mut self) {
        self.began = clock::now();
    }

    /// A batch with so many records is done.
    ///
    /// # Errors
    /// The checkpoint was due and could not be stored: the batch is to fail, so that it is tried again.
    pub(crate) async fn batch_done(
        &mut self,
        records: usize,
        checkpointer: &Checkpointer,
    ) -> Result<(), Error> {
        self.write = None;
        if let Some(timer) = self.timer.take_if(|timer| timer.0.is_finished()) {
            drop(timer);
            self.saved_at += self.cadence.every.unwrap_or_default();
            self.unsaved = 0;
        }
        let records = u64::try_from(records).unwrap_or(u64::MAX);
        let unsaved = self.unsaved.saturating_add(records);
        if self.cadence.is_due(self.saved_at, unsaved) {
            checkpointer.checkpoint().await?;
            self.saved_at = clock::now();
            self.unsaved = 0;
            self.timer = None;
            return Ok(());
        }
        self.unsaved = unsaved;
        if let (None, Some(every)) = (&self.timer, self.cadence.every) {
            self.timer = Some(Timer::set(self.saved_at + every, checkpointer.clone()));
        }
        Ok(())
    }

    /// Stores that everything up to `mark` is done, when that is due; returns when it was tried. To be called again and again while a batch is in work.
    ///
    /// # Cancel safety
    /// A write under way is taken up by the next call.
    pub(crate) async fn in_between(&mut self, mark: Option<&Record>, checkpointer: &Checkpointer) {
        if self.write.is_none() {
            let news = mark.filter(|mark| self.marked != Some(mark.position()));
            let (Some(mark), Some(every)) = (news, self.cadence.in_between()) else {
                return std::future::pending().await;
            };
            // A batch that does not last that long is checkpointed at its end.
            let since = self.saved_at.max(self.began);
            tokio::time::sleep_until(since + every).await;
            self.marked = Some(mark.position());
            let (mark, checkpointer) = (mark.clone(), checkpointer.clone());
            self.write = Some(Box::pin(
                async move { checkpointer.checkpoint_at(&mark).await },
            ));
        }
        if let Some(write) = &mut self.write {
            // What is wrong with the store is told at the end of the batch.
            if let Err(error) = write.await {
                tracing::debug!(%error, "a checkpoint in the middle of a batch was not stored");
            }
            self.write = None;
            self.saved_at = clock::now();
        }
    }

    /// The batch failed with everything up to `mark` done: that is stored, so that it does not come again elsewhere.
    pub(crate) async fn batch_failed(
        &mut self,
        mark: Option<&Record>,
        checkpointer: &Checkpointer,
    ) {
        self.write = None;
        let Some(mark) = mark.filter(|mark| self.marked != Some(mark.position())) else {
            return;
        };
        match checkpointer.checkpoint_at(mark).await {
            Ok(()) => self.marked = Some(mark.position()),
            Err(error) => {
                tracing::debug!(%error, "what was done of a batch that failed was not stored");
            }
        }
    }

    /// The shard is given up.
    ///
    /// # Errors
    /// The checkpoint was refused.
    pub(crate) async fn release(&mut self, checkpointer: &Checkpointer) -> Result<(), Error> {
        self.stop();
        match checkpointer.checkpoint().await {
            // A later one is stored: of a batch that failed, up to its first record that was not done.
            Err(error) if error.kind() == ErrorKind::InvalidPosition => Ok(()),
            answer => answer,
        }
    }

    /// Makes no checkpoint any more.
    pub(crate) fn stop(&mut self) {
        self.write = None;
        self.timer = None;
    }
}

/// A task that is cancelled when it is dropped.
#[derive(Debug)]
struct Timer(JoinHandle<()>);

impl Timer {
    fn set(at: Instant, checkpointer: Checkpointer) -> Timer {
        Timer(tokio::spawn(async move {
            tokio::time::sleep_until(at).await;
            // Not what is in work then. If it fails, the next batch or the release does it.
            if let Err(error) = checkpointer.checkpoint_handled().await {
                tracing::debug!(%error, "what was done was not checkpointed in time");
            }
        }))
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.0.abort();
    }
}
