//! What comes after the batch in work: the rest of its page, then further pages. It becomes the next batches; or part of the batch in work, when a
//! processor asks for more meanwhile.
//!
//! Invariant: it is given out whole, in order, and once (K4, K6).

use super::consumer::Directive;
use super::meter::Meters;
use super::noticed::Noticed;
use crate::checkpoint::Checkpointer;
use crate::client::Shard;
use crate::fetch::Page;
use crate::fetch::collect::Collector;
use crate::fetch::expand::{Batch, Batches, Findings, Selection};
use crate::fetch::reader::Reader;
use crate::lease::LeaseKey;
use crate::processor::Record;
use tokio::sync::watch;

/// What was read and not delivered.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Offered to a processor that did not take it; before everything else.
    returned: Option<Batch>,
    batches: Option<Batches>,
    pub(super) millis_behind_latest: u64,
    /// Set at the end of the shard.
    end: Option<Vec<Shard>>,
}

/// What a batch may still take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    records: usize,
    bytes: usize,
}

impl Room {
    /// What a batch of these records leaves.
    pub(super) fn beside(records: &[Record], selection: &Selection) -> Room {
        let bytes = records.iter().map(Record::payload_bytes).sum();
        Room {
            records: selection.most.saturating_sub(records.len()),
            bytes: selection.most_bytes.saturating_sub(bytes),
        }
    }

    /// For a batch that may not grow.
    pub(super) fn none() -> Room {
        Room {
            records: 0,
            bytes: 0,
        }
    }

    fn is_left(self) -> bool {
        self.records > 0 && self.bytes > 0
    }

    fn without(self, batch: &Batch) -> Room {
        let bytes = batch.records.iter().map(Record::payload_bytes).sum();
        Room {
            records: self.records.saturating_sub(batch.records.len()),
            bytes: self.bytes.saturating_sub(bytes),
        }
    }
}

impl Ahead {
    pub(super) fn of(page: Page, selection: Selection) -> Self {
        Ahead {
            returned: None,
            batches: Some(Batches::of(page.records, page.decoded, selection)),
            millis_behind_latest: page.millis_behind_latest,
            end: page.end,
        }
    }

    /// The next batch.
    pub(super) fn next(&mut self) -> Option<Batch> {
        self.returned
            .take()
            .or_else(|| self.batches.as_mut()?.next())
    }

    /// What is next, as much of it as there is room for.
    fn next_within(&mut self, room: Room) -> Option<Batch> {
        if let Some(returned) = &self.returned
            && returned.records.len() > room.records
        {
            return None;
        }
        self.returned
            .take()
            .or_else(|| self.batches.as_mut()?.gather(room.records, room.bytes))
    }

    /// Whether all of it was given, and the shard goes on.
    fn is_given(&self) -> bool {
        let rest = self.batches.as_ref().is_some_and(Batches::is_left);
        self.returned.is_none() && !rest && self.end.is_none()
    }

    pub(super) fn put_back(&mut self, batch: Option<Batch>) {
        self.returned = batch;
    }

    pub(super) fn take_findings(&mut self) -> Findings {
        self.batches
            .as_mut()
            .map(Batches::take_findings)
            .unwrap_or_default()
    }

    /// The end of the shard, when everything before it was given.
    pub(super) fn take_end(&mut self) -> Option<Vec<Shard>> {
        self.end.take()
    }
}

/// Reads for a processor while it works.
pub(super) struct Beside<'a> {
    pub(super) ahead: &'a mut Ahead,
    pub(super) reader: &'a mut Reader,
    pub(super) collector: &'a mut Collector,
    pub(super) noticed: &'a mut Noticed,
    pub(super) checkpointer: &'a Checkpointer,
    pub(super) directive: &'a watch::Receiver<Directive>,
    pub(super) lease: &'a LeaseKey,
    pub(super) meters: &'a Meters,
    pub(super) selection: Selection,
    pub(super) room: Room,
}

impl Beside<'_> {
    /// Reads ahead, and offers more to a processor that asks for it, as long as the batch has room; never returns.
    ///
    /// # Cancel safety
    /// What was read is in `ahead`, in the reader, or offered.
    pub(super) async fn run(mut self) {
        while self.room.is_left() {
            tokio::select! {
                biased;
                () = self.reader.ahead() => {}
                () = self.checkpointer.wanted() => {}
            }
            let Some(batch) = self.next().await else {
                break;
            };
            self.noticed.tell(self.lease, self.ahead.take_findings());
            self.room = self.room.without(&batch);
            self.checkpointer.offer(batch);
        }
        self.reader.ahead().await;
    }

    /// What comes next; `None`: the batch is to end.
    async fn next(&mut self) -> Option<Batch> {
        loop {
            // A hand-over waits for the batch in work, which must not go on for ever.
            if *self.directive.borrow() != Directive::Run {
                return None;
            }
            if let Some(batch) = self.ahead.next_within(self.room) {
                return Some(batch);
            }
            if !self.ahead.is_given() {
                return None;
            }
            match self.collector.next(self.reader).await {
                Ok(page) => {
                    let behind = page.millis_behind_latest;
                    self.meters.read(self.lease, page.size_bytes(), behind);
                    *self.ahead = Ahead::of(page, self.selection);
                }
                Err(error) => {
                    self.collector.put_back(error);
                    return None;
                }
            }
        }
    }
}
