//! The ends of shards as readers see them, and who waits for them to move. A shard nobody waits for costs a few words and a
//! commit that touches it a store; there may be tens of thousands.

use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use crate::log::shard_map::ShardMap;
use crate::log::{LogShard, Tail};

/// See the module. Written by the committer alone; the lock is held for stores only.
#[derive(Debug, Default)]
pub(crate) struct Tails(RwLock<ShardMap<Watched>>);

#[derive(Debug, Default)]
struct Watched {
    tail: Tail,
    /// There from when somebody waits until a move finds that nobody does any more.
    moved: OnceLock<watch::Sender<Tail>>,
}

impl Watched {
    fn move_to(&mut self, tail: Tail) {
        self.tail = tail;
        match self.moved.get() {
            None => {}
            Some(moved) if moved.receiver_count() > 0 => drop(moved.send_replace(tail)),
            Some(_) => drop(self.moved.take()),
        }
    }
}

impl Tails {
    pub(crate) fn new(tails: impl Iterator<Item = (LogShard, Tail)>) -> Tails {
        let watched = tails.map(|(shard, tail)| {
            let moved = OnceLock::new();
            (shard, Watched { tail, moved })
        });
        Tails(RwLock::new(watched.collect()))
    }

    pub(crate) fn get(&self, shard: LogShard) -> Option<Tail> {
        self.read().get(&shard).map(|watched| watched.tail)
    }

    /// The tail from now on; it ends when the shard is dropped.
    pub(crate) fn watch(&self, shard: LogShard) -> Option<watch::Receiver<Tail>> {
        let tails = self.read();
        let watched = tails.get(&shard)?;
        let moved = watched
            .moved
            .get_or_init(|| watch::Sender::new(watched.tail));
        Some(moved.subscribe())
    }

    /// Adds shards without records.
    pub(crate) fn create(&self, shards: impl Iterator<Item = LogShard>) {
        let mut tails = self.write();
        for shard in shards {
            tails.insert(shard, Watched::default());
        }
    }

    /// Moves tails; shards that are not there are left out.
    pub(crate) fn move_to(&self, moved: impl Iterator<Item = (LogShard, Tail)>) {
        let mut tails = self.write();
        for (shard, tail) in moved {
            if let Some(watched) = tails.get_mut(&shard) {
                watched.move_to(tail);
            }
        }
    }

    pub(crate) fn remove(&self, shards: &[LogShard]) {
        let mut tails = self.write();
        for shard in shards {
            tails.remove(shard);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, ShardMap<Watched>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, ShardMap<Watched>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: LogShard = LogShard(7);

    fn at(next: u64) -> Tail {
        Tail {
            next,
            ..Tail::default()
        }
    }

    #[tokio::test]
    async fn who_waits_is_woken_and_who_is_gone_costs_nothing() {
        let tails = Tails::default();
        assert!(tails.watch(SHARD).is_none());
        tails.create([SHARD].into_iter());
        tails.move_to([(SHARD, at(3)), (LogShard(8), at(9))].into_iter());
        assert_eq!(tails.get(SHARD), Some(at(3)));
        assert_eq!(tails.get(LogShard(8)), None);

        let mut first = tails.watch(SHARD).unwrap();
        let mut second = tails.watch(SHARD).unwrap();
        assert_eq!(*first.borrow(), at(3), "it begins where the tail is");
        tails.move_to([(SHARD, at(4))].into_iter());
        for waiting in [&mut first, &mut second] {
            let moved = waiting.wait_for(|tail| tail.next > 3).await;
            assert_eq!(*moved.unwrap(), at(4));
        }
        drop((first, second));
        tails.move_to([(SHARD, at(5))].into_iter());
        assert!(tails.read()[&SHARD].moved.get().is_none());

        let mut third = tails.watch(SHARD).unwrap();
        tails.remove(&[SHARD]);
        assert!(third.changed().await.is_err(), "a dropped shard is an end");
        assert_eq!(tails.get(SHARD), None);
    }
}
