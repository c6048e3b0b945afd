//! Gathers what makes a batch, above the [`Reader`]: page after page until the batch is full or its window is over.
//!
//! Invariant: what is gathered is handed on whole, in order, and once (K4, K6); until then nobody has been told of it, so a tenure that ends
//! drops it. More than one page is gathered only with room in the budget of what is read ahead. What may be an aggregate is taken apart once: here, to count it,
//! and only as much as fills a batch, because in pieces it takes more memory than the budget knows of.

use crate::client::Shard;
use crate::clock::{self, Instant};
use crate::error::Error;
use crate::fetch::Page;
use crate::fetch::expand::is_plain;
use crate::fetch::reader::Reader;
use crate::processor::Record;
use crate::shard::served::Reading;
use millstream_wire::aggregation::{Decoded, decode};
use std::collections::VecDeque;
use std::time::Duration;
use std::vec::IntoIter;
use tokio::sync::OwnedSemaphorePermit;

/// What a batch holds at most, and how long it waits for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batching {
    /// Records.
    pub(crate) most: usize,
    /// Bytes.
    pub(crate) most_bytes: usize,
    /// From a batch's first record; zero: what a read brings is handed on at once.
    pub(crate) window: Duration,
}

impl Batching {
    pub(crate) fn of(reading: &Reading) -> Self {
        Batching {
            most: usize::try_from(reading.max_records).unwrap_or(usize::MAX),
            most_bytes: reading.max_batch_bytes,
            window: reading.batch_window,
        }
    }
}

/// What was read of one shard and not handed on yet.
pub(crate) struct Collector {
    batching: Batching,
    /// Records as they are stored, and what is in each.
    taken: VecDeque<Taken>,
    /// User records and bytes in `taken`.
    filled: Filled,
    /// What was read after `taken`, not looked into yet: a batch is full without it.
    rest: IntoIter<Record>,
    /// When the first of `taken` was read.
    since: Option<Instant>,
    /// Room for pages in `taken` and `rest`.
    rooms: Vec<OwnedSemaphorePermit>,
    millis_behind_latest: u64,
    /// Set when the last of `taken` and `rest` is the end of the shard.
    end: Option<Vec<Shard>>,
    /// A failure that came after `taken`.
    failed: Option<Error>,
}

#[derive(Debug)]
struct Taken {
    record: Record,
    /// Of what may be an aggregate.
    decoded: Option<Decoded>,
    /// How many records of its producer's user it is.
    users: usize,
}

impl Taken {
    fn of(record: Record) -> Self {
        let decoded = (!is_plain(&record)).then(|| decode(record.data.clone()));
        let users = match &decoded {
            Some(Decoded::Aggregate(users)) => users.len().max(1),
            Some(Decoded::Plain { .. }) | None => 1,
        };
        Taken {
            record,
            decoded,
            users,
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Filled {
    records: usize,
    bytes: usize,
}

impl Filled {
    fn with(self, taken: &Taken) -> Filled {
        Filled {
            records: self.records.saturating_add(taken.users),
            bytes: self.bytes.saturating_add(taken.record.payload_bytes()),
        }
    }
}

impl Collector {
    pub(crate) fn new(batching: Batching) -> Self {
        Collector {
            batching,
            taken: VecDeque::new(),
            filled: Filled::default(),
            rest: IntoIter::default(),
            since: None,
            rooms: Vec::new(),
            millis_behind_latest: 0,
            end: None,
            failed: None,
        }
    }

    /// The records of the next batch, or the end of the shard; or a failure, after which reading goes on. A failure hurries what was gathered before
    /// it: it comes first.
    ///
    /// # Cancel safety
    /// Nothing is lost: the next call goes on gathering.
    pub(crate) async fn next(&mut self, reader: &mut Reader) -> Result<Page, Error> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.batching.window.is_zero() {
            return reader.next().await;
        }
        loop {
            self.count();
            if self.is_full() || self.end.is_some() {
                return Ok(self.hand_on());
            }
            let (read, room) = match self.since {
                None => (reader.next().await, None),
                Some(since) => {
                    let until = since + self.batching.window;
                    match tokio::time::timeout_at(until, reader.next_in_budget()).await {
                        Ok(read) => read,
                        Err(_) => return Ok(self.hand_on()),
                    }
                }
            };
            match read {
                // It says that reading works again.
                Ok(page) if page.is_empty() && self.taken.is_empty() => return Ok(page),
                Ok(page) => self.take_in(page, room),
                Err(error) if self.taken.is_empty() => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    return Ok(self.hand_on());
                }
            }
        }
    }

    /// A failure that cannot be dealt with yet: it comes again.
    pub(crate) fn put_back(&mut self, error: Error) {
        self.failed = Some(error);
    }

    fn is_full(&self) -> bool {
        let Filled { records, bytes } = self.filled;
        records >= self.batching.most || bytes >= self.batching.most_bytes
    }

    /// Looks into what was read, as far as a batch goes.
    fn count(&mut self) {
        while !self.is_full()
            && let Some(record) = self.rest.next()
        {
            let taken = Taken::of(record);
            self.filled = self.filled.with(&taken);
            self.taken.push_back(taken);
        }
    }

    /// To be called when all that was read before is counted.
    fn take_in(&mut self, page: Page, room: Option<OwnedSemaphorePermit>) {
        debug_assert!(self.rest.as_slice().is_empty(), "K6");
        self.rest = page.records.into_iter();
        self.millis_behind_latest = page.millis_behind_latest;
        self.end = page.end;
        self.rooms.extend(room);
        if self.has_some() {
            self.since.get_or_insert_with(clock::now);
        }
    }

    fn has_some(&self) -> bool {
        !self.taken.is_empty() || !self.rest.as_slice().is_empty()
    }

    /// Takes what fills a batch, or all of it. What is left begins a window of its own, which counts from when it was read: about now, because a batch is
    /// handed on as soon as a page fills it.
    fn hand_on(&mut self) -> Page {
        let (mut records, mut decoded) = (Vec::new(), Vec::new());
        let mut held = Filled::default();
        while held.records < self.batching.most
            && let Some(taken) = self.taken.pop_front()
        {
            let with = held.with(&taken);
            if with.bytes > self.batching.most_bytes && !records.is_empty() {
                self.taken.push_front(taken);
                break;
            }
            held = with;
            records.push(taken.record);
            decoded.extend(taken.decoded);
        }
        self.filled.records = self.filled.records.saturating_sub(held.records);
        self.filled.bytes = self.filled.bytes.saturating_sub(held.bytes);
        // From here on it is the batch in work, which the budget does not count.
        self.rooms.clear();
        let is_left = self.has_some();
        self.since = is_left.then(clock::now);
        Page {
            records,
            decoded,
            millis_behind_latest: self.millis_behind_latest,
            end: if is_left { None } else { self.end.take() },
        }
    }
}

#[cfg(test)]
mod tests;
