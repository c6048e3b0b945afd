//! Bytes of all answers that are not yet written: who may add to them, and whether somebody waits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::patience::Patience;

/// The largest answer that counts as small.
const SMALL_BYTES: usize = 64 * 1024;
/// What small answers have for themselves, as a part of what there is for all: those who leave large ones where
/// they are do not keep the answers of writes from anybody.
const SMALL_SHARE: usize = 8;

/// The bytes that answers may hold together.
#[derive(Debug)]
pub(super) struct AnswerBudget {
    bytes: Arc<Semaphore>,
    max_bytes: usize,
    /// For small answers, on top.
    small_bytes: Arc<Semaphore>,
    /// Who waits for a share at the moment.
    waiting: AtomicUsize,
    /// When somebody last went without one.
    refused_at: Mutex<Option<Instant>>,
}

impl AnswerBudget {
    pub(super) fn new(max_bytes: usize) -> AnswerBudget {
        let max_bytes = max_bytes.min(Semaphore::MAX_PERMITS);
        AnswerBudget {
            bytes: Arc::new(Semaphore::new(max_bytes)),
            max_bytes,
            small_bytes: Arc::new(Semaphore::new(max_bytes / SMALL_SHARE)),
            waiting: AtomicUsize::new(0),
            refused_at: Mutex::new(None),
        }
    }

    /// A share while there is patience, or not at all.
    pub(super) async fn admit(
        &self,
        bytes: usize,
        patience: &Patience,
    ) -> Option<OwnedSemaphorePermit> {
        let count = self.count(bytes);
        if bytes <= SMALL_BYTES
            && let Ok(permit) = Arc::clone(&self.small_bytes).try_acquire_many_owned(count)
        {
            return Some(permit);
        }
        let permit = Arc::clone(&self.bytes).acquire_many_owned(count);
        let permit = patience.wait_for(permit).await.and_then(Result::ok);
        if permit.is_none() {
            *self.refused_at() = Some(Instant::now());
        }
        permit
    }

    /// A share as soon as there is one.
    pub(super) async fn wait(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let count = self.count(bytes);
        let _waits = Waits::count(&self.waiting);
        let permit = Arc::clone(&self.bytes).acquire_many_owned(count);
        // Never closed, so this only waits.
        permit.await.ok()
    }

    /// Never more than there is in all, or it would be waited for in vain.
    fn count(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.max_bytes)).unwrap_or(u32::MAX)
    }

    /// Whether somebody waits for a share, or went without one within this time.
    pub(super) fn is_wanted(&self, within: Duration) -> bool {
        let refused_at = *self.refused_at();
        self.waiting.load(Ordering::Relaxed) > 0
            || refused_at.is_some_and(|at| at.elapsed() < within)
    }

    fn refused_at(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.refused_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits, until dropped.
struct Waits<'a>(&'a AtomicUsize);

impl Waits<'_> {
    fn count(waiting: &AtomicUsize) -> Waits<'_> {
        waiting.fetch_add(1, Ordering::Relaxed);
        Waits(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
