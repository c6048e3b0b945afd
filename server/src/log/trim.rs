//! Removing the oldest segments, once nothing in them is to be kept. Blocking.

use crate::log::published::Published;
use crate::log::{Error, LogShard};

impl<M> Published<M> {
    /// Removes the oldest sealed segments of which nothing is to be kept; see [`crate::log::Log::trim`].
    pub(crate) fn trim(
        &self,
        keep_after_ms: impl Fn(LogShard) -> Option<u64>,
    ) -> Result<usize, Error> {
        let _turn = self.files_turn();
        let mut removed = 0;
        loop {
            let range = self.range();
            let oldest = *range.start();
            if oldest == *range.end() {
                return Ok(removed);
            }
            let kept = self.with_index(oldest, |segment| {
                segment.index.iter().any(|(shard, part)| {
                    let newest = part.newest_ms();
                    newest
                        .zip(keep_after_ms(shard))
                        .is_some_and(|(newest, keep)| newest >= keep)
                })
            })?;
            if kept != Some(false) {
                return Ok(removed);
            }
            self.remove(oldest)?;
            removed += 1;
        }
    }

    /// Removes the oldest segment. The directory is synced around each one: after a crash no gap may
    /// be left between those that are still there.
    fn remove(&self, oldest: u64) -> Result<(), Error> {
        self.sync_directory()?;
        // A reader that finds the file gone must find it forgotten as well.
        self.forget(oldest);
        let taken = self
            .take_away(oldest)
            .inspect_err(|_| self.remember(oldest))?;
        self.sync_directory()?;
        if let Some((promise, file)) = taken {
            promise.bring(file);
        }
        Ok(())
    }
}
