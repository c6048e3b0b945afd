//! Room for answers on their way in: when many shards are answered at the same moment, their pages come in some at a time, and what waits stays with the
//! server and the network. So a backlog of many shards takes the memory of the pages in work, and not that of one page for each shard.
//!
//! Nobody waits for long (K10): an answer whose turn does not come within a moment is received all the same, so that connections that stall or are slow hold
//! up no other.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of answers that are received at once: as many as saturate a fast network.
const ROOM_BYTES: u32 = 32 * 1024 * 1024;
/// An answer waits for its turn so long at most.
const PATIENCE: Duration = Duration::from_millis(250);
/// Smaller answers do not wait.
const SMALL_BYTES: usize = 64 * 1024;

/// The room of one client.
#[derive(Debug)]
pub(super) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        let bytes = usize::try_from(ROOM_BYTES).unwrap_or(usize::MAX);
        Room(Arc::new(Semaphore::new(bytes)))
    }
}

impl Room {
    /// Waits until an answer of so many bytes may come in; it has its room until what is given is dropped.
    ///
    /// # Cancel safety
    /// Nothing is kept.
    pub(super) async fn enter(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        if bytes <= SMALL_BYTES {
            return None;
        }
        // One that is larger than the whole goes alone.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(ROOM_BYTES);
        let turn = Arc::clone(&self.0).acquire_many_owned(bytes);
        tokio::time::timeout(PATIENCE, turn).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const MIB: usize = 1024 * 1024;

    /// Goal: pages of many shards come in some at a time, and all of them. Method: a hundred of 3 MiB at once, each of which takes 10 ms.
    #[tokio::test(start_paused = true)]
    async fn answers_come_in_as_there_is_room() {
        let room = Arc::new(Room::default());
        let under_way = Arc::new(AtomicUsize::new(0));
        let mut answers = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (room, under_way) = (Arc::clone(&room), Arc::clone(&under_way));
            answers.spawn(async move {
                let turn = room.enter(3 * MIB).await;
                let bytes = under_way.fetch_add(3 * MIB, Ordering::Relaxed) + 3 * MIB;
                tokio::time::sleep(Duration::from_millis(10)).await;
                under_way.fetch_sub(3 * MIB, Ordering::Relaxed);
                drop(turn);
                bytes
            });
        }
        let most = answers.join_all().await.into_iter().max();
        assert_eq!(most, Some(30 * MIB));
    }

    /// Goal: K10, connections that stall hold up no other for longer than a moment, and small answers not at all. Method: all of the room is taken for
    /// ever, by one that is larger than it.
    #[tokio::test(start_paused = true)]
    async fn k10_stalled_answers_hold_up_no_other_for_long() {
        let room = Room::default();
        let stalled = room.enter(64 * MIB).await;
        assert!(stalled.is_some());
        let began = clock::now();
        assert!(room.enter(SMALL_BYTES).await.is_none());
        assert_eq!(clock::now(), began);
        assert!(room.enter(MIB).await.is_none());
        assert_eq!(clock::now() - began, PATIENCE);
        drop(stalled);
        assert!(room.enter(MIB).await.is_some());
    }
}
