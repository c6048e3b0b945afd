//! What of the answers to one client is not written yet, and for how long the client has taken nothing of it.
//!
//! A connection that takes nothing at all is seen by [`WriteStall`](super::stall::WriteStall). In HTTP/2 a
//! client may go on with the connection and leave single answers where they are, for as long as it likes; it may
//! not keep memory that others wait for.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::api::{Encoded, PIECE_BYTES};

/// Bytes of a piece where answers go out side by side: that one is taken is seen piece by piece.
const SMALL_PIECE_BYTES: usize = 64 * 1024;

/// The answers under way to one client.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    answers: Mutex<Answers>,
    /// Whether the connection has bytes that it could not write yet.
    is_stalled: AtomicBool,
    /// Whether answers go out one after the other, as in HTTP/1.1: what is written is of the one under way.
    in_turn: AtomicBool,
}

#[derive(Debug, Default)]
struct Answers {
    next_id: u64,
    /// When the client last took something of each.
    taken_at: BTreeMap<u64, Instant>,
}

impl Unwritten {
    /// Bytes that keep their permit until the last of them is written.
    pub(super) fn hold(self: &Arc<Self>, rest: Encoded, permit: OwnedSemaphorePermit) -> Pieces {
        let mut answers = self.lock();
        let id = answers.next_id;
        answers.next_id += 1;
        answers.taken_at.insert(id, Instant::now());
        drop(answers);
        let held = Held {
            id,
            unwritten: Arc::clone(self),
            _permit: permit,
        };
        Pieces {
            rest,
            held: Some(Arc::new(held)),
        }
    }

    /// For how long the client has taken nothing of the answer that has waited longest.
    pub(super) fn longest(&self) -> Duration {
        let oldest = self.lock().taken_at.values().min().copied();
        oldest.map_or(Duration::ZERO, |taken_at| taken_at.elapsed())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().taken_at.is_empty()
    }

    /// Answers go out one after the other from now on.
    pub(super) fn set_in_turn(&self) {
        self.in_turn.store(true, Ordering::Relaxed);
    }

    fn is_in_turn(&self) -> bool {
        self.in_turn.load(Ordering::Relaxed)
    }

    /// The connection took a part of what it was to write.
    pub(super) fn part_was_written(&self) {
        if self.is_in_turn() {
            let now = Instant::now();
            self.lock().taken_at.values_mut().for_each(|at| *at = now);
        }
    }

    pub(super) fn set_stalled(&self, is_stalled: bool) {
        self.is_stalled.store(is_stalled, Ordering::Relaxed);
    }

    /// Whether all that was answered has left for the client.
    pub(super) fn is_written(&self) -> bool {
        !self.is_stalled.load(Ordering::Relaxed) && self.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer under way, as long as anything of it is.
#[derive(Debug)]
struct Held {
    id: u64,
    unwritten: Arc<Unwritten>,
    _permit: OwnedSemaphorePermit,
}

/// A piece that keeps its answer under way.
struct Piece {
    bytes: Bytes,
    _held: Arc<Held>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.unwritten.lock().taken_at.remove(&self.id);
    }
}

/// Bytes on their way to a client, handed out in pieces.
#[derive(Debug)]
pub(super) struct Pieces {
    rest: Encoded,
    /// Where it is noted that a piece was taken; not for what is too small to matter.
    held: Option<Arc<Held>>,
}

impl Pieces {
    /// Bytes that nobody counts.
    pub(super) fn uncounted(bytes: Bytes) -> Pieces {
        Pieces {
            rest: Encoded::whole(bytes),
            held: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    /// The next piece, if there is one more.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        let is_in_turn = self.held.as_ref();
        let is_in_turn = is_in_turn.is_none_or(|held| held.unwritten.is_in_turn());
        if let Some(held) = &self.held
            && let Some(taken_at) = held.unwritten.lock().taken_at.get_mut(&held.id)
        {
            *taken_at = Instant::now();
        }
        let bytes = self.rest.next_piece(if is_in_turn {
            PIECE_BYTES
        } else {
            SMALL_PIECE_BYTES
        })?;
        // With the last one the rest has nothing more to keep.
        let held = if self.rest.len() == 0 {
            self.held.take()
        } else {
            self.held.clone()
        };
        Some(match held {
            Some(held) => Bytes::from_owner(Piece { bytes, _held: held }),
            None => bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn the_answer_that_has_waited_longest_decides() {
        let budget = Arc::new(Semaphore::new(400_000));
        let unwritten = Arc::<Unwritten>::default();
        let hold = async |len: usize| {
            let count = u32::try_from(len).unwrap();
            let permit = Arc::clone(&budget).acquire_many_owned(count).await.unwrap();
            unwritten.hold(Encoded::whole(vec![7; len]), permit)
        };
        assert_eq!(unwritten.longest(), Duration::ZERO);
        let mut first = hold(150_000).await;
        advance(Duration::from_secs(3)).await;
        let second = hold(150_000).await;
        advance(Duration::from_secs(4)).await;
        assert_eq!(unwritten.longest(), Duration::from_secs(7));
        let mut taken = vec![first.next().unwrap()];
        assert_eq!((taken[0].len(), first.len()), (65_536, 84_464));
        assert_eq!(unwritten.longest(), Duration::from_secs(4));
        drop(second);
        assert_eq!(unwritten.longest(), Duration::ZERO);
        taken.extend(std::iter::from_fn(|| first.next()));
        assert_eq!(taken.concat(), vec![7; 150_000]);
        // What was taken may still be on its way.
        advance(Duration::from_secs(9)).await;
        assert_eq!(budget.available_permits(), 250_000);
        assert_eq!(unwritten.longest(), Duration::from_secs(9));
        drop(taken);
        assert_eq!(budget.available_permits(), 400_000);
        assert_eq!(unwritten.longest(), Duration::ZERO);
    }

    /// One answer after the other is handed out in larger pieces, of which every part that is written counts.
    #[tokio::test(start_paused = true)]
    async fn what_is_written_of_the_one_answer_under_way_is_taken() {
        let budget = Arc::new(Semaphore::new(2_000_000));
        let permit = budget.acquire_many_owned(2_000_000).await.unwrap();
        let unwritten = Arc::<Unwritten>::default();
        let mut answer = unwritten.hold(Encoded::whole(vec![7; 2_000_000]), permit);
        unwritten.part_was_written();
        advance(Duration::from_secs(3)).await;
        unwritten.part_was_written();
        assert_eq!(unwritten.longest(), Duration::from_secs(3));
        unwritten.set_in_turn();
        assert_eq!(answer.next().unwrap().len(), PIECE_BYTES);
        advance(Duration::from_secs(3)).await;
        assert_eq!(unwritten.longest(), Duration::from_secs(3));
        unwritten.part_was_written();
        assert_eq!(unwritten.longest(), Duration::ZERO);
    }
}
