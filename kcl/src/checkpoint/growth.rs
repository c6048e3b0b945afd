//! How a batch in work grows: a processor of this library that has its hands free asks for more of its shard, and takes what it is offered.
//!
//! Invariant: what is taken belongs to the batch, and is handled or fails with it; what was offered and not taken is given back (K4).

use super::{Checkpointer, Tenure};
use crate::fetch::expand::Batch;
use crate::processor::Record;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The meeting point of the processor and the one who reads for it; at rest unless a batch is in work that may grow.
#[derive(Debug, Default)]
pub(super) struct Growth {
    /// Plain data behind a std mutex, never held across an await.
    state: Mutex<State>,
    /// The processor asks.
    asked: Notify,
    /// There is an offer.
    answered: Notify,
}

#[derive(Debug, Default)]
struct State {
    wanted: bool,
    offered: Option<Batch>,
    taken: Vec<Batch>,
}

impl Growth {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, tenure: &Tenure) -> Option<Vec<Record>> {
        let mut state = self.lock();
        let batch = state.offered.take()?;
        tenure.lock().delivered = batch.end;
        let records = batch.records.clone();
        state.taken.push(batch);
        state.wanted = false;
        Some(records)
    }
}

impl Checkpointer {
    /// More records of the shard, for the batch in work; waits until there are some, for ever where the batch may not grow.
    ///
    /// # Cancel safety
    /// An offer waits for the next call.
    pub(crate) async fn more(&self) -> Vec<Record> {
        let growth = &self.tenure.growth;
        loop {
            if let Some(records) = growth.take(&self.tenure) {
                return records;
            }
            growth.lock().wanted = true;
            growth.asked.notify_one();
            growth.answered.notified().await;
        }
    }

    /// Waits until the processor asks for more than it was offered.
    pub(crate) async fn wanted(&self) {
        let growth = &self.tenure.growth;
        loop {
            {
                let state = growth.lock();
                if state.wanted && state.offered.is_none() {
                    return;
                }
            }
            growth.asked.notified().await;
        }
    }

    /// Offers what was asked for.
    pub(crate) fn offer(&self, batch: Batch) {
        self.tenure.growth.lock().offered = Some(batch);
        self.tenure.growth.answered.notify_one();
    }

    /// The call is over: what was taken, in order, and what was offered in vain.
    pub(crate) fn end_growth(&self) -> (Vec<Batch>, Option<Batch>) {
        let State { offered, taken, .. } = std::mem::take(&mut *self.tenure.growth.lock());
        (taken, offered)
    }
}
