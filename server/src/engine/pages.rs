//! What pages of records take beside the records' bytes: ten thousand small ones are a hundred times their data. The share is
//! taken before a page is read, and comes back when the answer has its own.

use crate::engine::Error;
use crate::patience::Patience;
use millstream_wire::limits::GET_RECORDS_MAX_COUNT;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a record takes beside its bytes from when it is read: its form in the log and its form here, which are there at once.
pub(crate) const RECORD_COST_BYTES: usize = 256;
/// The largest page.
pub(crate) const PAGE_MAX_BYTES: usize = GET_RECORDS_MAX_COUNT * RECORD_COST_BYTES;

/// A page's share, until dropped.
#[derive(Debug)]
pub struct PageShare(
    #[expect(dead_code, reason = "held, and given back when dropped")] Option<OwnedSemaphorePermit>,
);

/// The budget of all pages.
#[derive(Debug)]
pub(super) struct Pages(Arc<Semaphore>);

impl Pages {
    pub(super) fn new(bytes: usize) -> Pages {
        let bytes = bytes.clamp(PAGE_MAX_BYTES, Semaphore::MAX_PERMITS);
        Pages(Arc::new(Semaphore::new(bytes)))
    }

    /// A share for at most so many records, which are no more than a page has, waited for with this patience.
    ///
    /// # Errors
    /// [`Error::Overloaded`]: other pages take what there is.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub(super) async fn admit(
        &self,
        records: u64,
        patience: &Patience,
    ) -> Result<PageShare, Error> {
        let records = usize::try_from(records).unwrap_or(usize::MAX);
        let bytes = records.min(GET_RECORDS_MAX_COUNT) * RECORD_COST_BYTES;
        let count = u32::try_from(bytes).unwrap_or(u32::MAX);
        if count == 0 {
            return Ok(PageShare(None));
        }
        let permit = Arc::clone(&self.0).acquire_many_owned(count);
        match patience.wait_for(permit).await {
            Some(Ok(permit)) => Ok(PageShare(Some(permit))),
            _ => Err(Error::Overloaded),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn s6_pages_beyond_the_budget_are_refused_in_time_and_empty_ones_never() {
        let pages = Pages::new(2 * PAGE_MAX_BYTES);
        let each = Patience::default();
        let first = pages.admit(10_000, &each).await.unwrap();
        let second = pages.admit(u64::MAX, &each).await.unwrap();
        let began = tokio::time::Instant::now();
        assert!(matches!(
            pages.admit(1, &each).await,
            Err(Error::Overloaded)
        ));
        assert!(began.elapsed() < Duration::from_millis(50));
        pages.admit(0, &each).await.unwrap();
        drop(second);
        let small = pages.admit(3, &each).await.unwrap();
        assert!(matches!(
            pages.admit(10_000, &each).await,
            Err(Error::Overloaded)
        ));
        drop((first, small));
        pages.admit(10_000, &each).await.unwrap();
    }
}
