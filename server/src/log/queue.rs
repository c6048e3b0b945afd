//! What waits for the committer: bounded in bytes, in the order it came.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::log::batches::Batches;
use crate::log::{Appended, Error, Transaction};
use crate::patience::Patience;

/// What an entry costs beside its bytes, so that empty ones are bounded as well.
const ENTRY_COST_BYTES: usize = 256;

/// One answer per shard of an append.
pub(crate) type AppendReply = Result<Vec<Result<Appended, Error>>, Error>;

/// What a caller asks the committer for, and where the answer goes.
#[derive(Debug)]
pub(crate) enum Work<M> {
    Append {
        batches: Batches,
        reply: oneshot::Sender<AppendReply>,
    },
    Commit {
        transaction: Transaction,
        reply: oneshot::Sender<Result<Arc<M>, Error>>,
    },
}

impl<M> Work<M> {
    fn len_bytes(&self) -> usize {
        match self {
            Work::Append { batches, .. } => {
                let shards = batches.parts().len().max(1);
                batches.len_bytes() + shards * ENTRY_COST_BYTES
            }
            Work::Commit { transaction, .. } => transaction.len_bytes() + ENTRY_COST_BYTES,
        }
    }

    /// Answers with a failure. A caller that went away is not told.
    pub(crate) fn refuse(self, error: Error) {
        match self {
            Work::Append { reply, .. } => drop(reply.send(Err(error))),
            Work::Commit { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// Queued work. Its share of the budget comes back when this is dropped.
#[derive(Debug)]
pub(crate) struct Entry<M> {
    pub(crate) work: Work<M>,
    len_bytes: usize,
    permit: OwnedSemaphorePermit,
}

impl<M> Entry<M> {
    /// The work, and its share of the budget: to be kept until the work is done.
    pub(crate) fn into_parts(self) -> (Work<M>, OwnedSemaphorePermit) {
        (self.work, self.permit)
    }
}

/// What [`Queue::drain`] found.
#[derive(Debug)]
pub(crate) enum Drained<M> {
    Entries(Vec<Entry<M>>),
    /// Nothing came in the time given.
    Idle,
    /// Nothing is left and nothing more will come.
    Closed,
}

/// The queue between callers and the committer.
#[derive(Debug)]
pub(crate) struct Queue<M> {
    state: Mutex<State<M>>,
    changed: Condvar,
    budget: Arc<Semaphore>,
    limit_bytes: usize,
}

#[derive(Debug)]
struct State<M> {
    entries: VecDeque<Entry<M>>,
    closed: bool,
    /// The committer waits and has not been woken yet. To wake it is a system call, also when it is at work.
    waits: bool,
}

impl<M> Queue<M> {
    pub(crate) fn new(queue_bytes: usize) -> Queue<M> {
        // Permits are taken as u32.
        let queue_bytes = queue_bytes.min(1 << 31);
        Queue {
            state: Mutex::new(State {
                entries: VecDeque::new(),
                closed: false,
                waits: false,
            }),
            changed: Condvar::new(),
            budget: Arc::new(Semaphore::new(queue_bytes)),
            limit_bytes: queue_bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues work once there is room for it, which is waited for with this patience.
    ///
    /// # Cancel safety
    /// Dropped before it is done, nothing was queued.
    pub(crate) async fn push(&self, work: Work<M>, patience: &Patience) -> Result<(), Error> {
        let len_bytes = work.len_bytes();
        let permit = self.permit(len_bytes, patience).await?;
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        state.entries.push_back(Entry {
            work,
            len_bytes,
            permit,
        });
        let waits = std::mem::take(&mut state.waits);
        drop(state);
        if waits {
            self.changed.notify_one();
        }
        Ok(())
    }

    async fn permit(
        &self,
        wanted_bytes: usize,
        patience: &Patience,
    ) -> Result<OwnedSemaphorePermit, Error> {
        let too_large = Error::TooLarge {
            bytes: wanted_bytes,
            limit_bytes: self.limit_bytes,
        };
        if wanted_bytes > self.limit_bytes {
            return Err(too_large);
        }
        let permits = u32::try_from(wanted_bytes).map_err(|_| too_large)?;
        if let Ok(permit) = Arc::clone(&self.budget).try_acquire_many_owned(permits) {
            return Ok(permit);
        }
        let room = Arc::clone(&self.budget).acquire_many_owned(permits);
        match patience.wait_for(room).await {
            Some(Ok(permit)) => Ok(permit),
            Some(Err(_closed)) => Err(Error::Closed),
            None => Err(Error::Overloaded {
                wanted_bytes,
                queue_bytes: self.limit_bytes,
            }),
        }
    }

    /// Waits for entries, at most `patience`, and takes them in order up to `limit_bytes`, at least
    /// one.
    pub(crate) fn drain(&self, limit_bytes: usize, patience: Option<Duration>) -> Drained<M> {
        let mut state = self.lock();
        while state.entries.is_empty() {
            if state.closed {
                return Drained::Closed;
            }
            state.waits = true;
            let Some(patience) = patience else {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let waited = self.changed.wait_timeout(state, patience);
            let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = guard;
            if timeout.timed_out() && state.entries.is_empty() && !state.closed {
                state.waits = false;
                return Drained::Idle;
            }
        }
        state.waits = false;
        let mut taken = Vec::new();
        let mut taken_bytes = 0;
        while let Some(entry) = state.entries.front() {
            taken_bytes += entry.len_bytes;
            if !taken.is_empty() && taken_bytes > limit_bytes {
                break;
            }
            taken.extend(state.entries.pop_front());
        }
        Drained::Entries(taken)
    }

    /// Takes no more; what is queued can still be drained.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
        self.budget.close();
    }

    /// Drops what is queued: nobody will ever drain it. Its callers get [`Error::Closed`].
    pub(crate) fn abandon(&self) {
        self.close();
        let entries = std::mem::take(&mut self.lock().entries);
        for entry in entries {
            entry.work.refuse(Error::Closed);
        }
    }
}
