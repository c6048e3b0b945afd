//! Gathers what makes a batch, above the [`Reader`]: page after page until the batch is full or its window is over.
//!
//! Invariant: what is gathered is handed on whole, in order, and once (K4, K6); until then nobody has been told of it, so a tenure that ends
//! drops it. More than one page is gathered only with room in the budget of what is read ahead.

use crate::client::Shard;
use crate::clock::{self, Instant};
use crate::error::Error;
use crate::fetch::Page;
use crate::fetch::reader::Reader;
use crate::processor::Record;
use crate::shard::served::Reading;
use millstream_wire::aggregation::{Decoded, decode};
use std::collections::VecDeque;
use std::time::Duration;
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
    /// Records as they are stored, with the user records in each.
    taken: VecDeque<(Record, usize)>,
    /// User records and bytes in `taken`.
    filled: Filled,
    /// When the first of `taken` was read.
    since: Option<Instant>,
    /// Room for pages in `taken`.
    rooms: Vec<OwnedSemaphorePermit>,
    millis_behind_latest: u64,
    /// Set when the last of `taken` is the end of the shard.
    end: Option<Vec<Shard>>,
    /// A failure that came after `taken`.
    failed: Option<Error>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Filled {
    records: usize,
    bytes: usize,
}

impl Filled {
    fn with(self, record: &Record, users: usize) -> Filled {
        Filled {
            records: self.records.saturating_add(users),
            bytes: self.bytes.saturating_add(record.payload_bytes()),
        }
    }
}

impl Collector {
    pub(crate) fn new(batching: Batching) -> Self {
        Collector {
            batching,
            taken: VecDeque::new(),
            filled: Filled::default(),
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
            if self.is_due() {
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

    fn is_due(&self) -> bool {
        let Filled { records, bytes } = self.filled;
        self.end.is_some() || records >= self.batching.most || bytes >= self.batching.most_bytes
    }

    fn take_in(&mut self, page: Page, room: Option<OwnedSemaphorePermit>) {
        for record in page.records {
            let users = user_records(&record);
            self.filled = self.filled.with(&record, users);
            self.taken.push_back((record, users));
        }
        self.millis_behind_latest = page.millis_behind_latest;
        self.end = page.end;
        self.rooms.extend(room);
        if !self.taken.is_empty() {
            self.since.get_or_insert_with(clock::now);
        }
    }

    /// Takes what fills a batch, or all of it. What is left begins a window of its own, which counts from when it was read: about now, because a batch is
    /// handed on as soon as a page fills it.
    fn hand_on(&mut self) -> Page {
        let (mut records, mut held) = (Vec::new(), Filled::default());
        while held.records < self.batching.most
            && let Some((record, users)) = self.taken.pop_front()
        {
            let with = held.with(&record, users);
            if with.bytes > self.batching.most_bytes && !records.is_empty() {
                self.taken.push_front((record, users));
                break;
            }
            held = with;
            records.push(record);
        }
        self.filled.records = self.filled.records.saturating_sub(held.records);
        self.filled.bytes = self.filled.bytes.saturating_sub(held.bytes);
        // From here on it is the batch in work, which the budget does not count.
        self.rooms.clear();
        self.since = (!self.taken.is_empty()).then(clock::now);
        Page {
            records,
            millis_behind_latest: self.millis_behind_latest,
            end: if self.taken.is_empty() {
                self.end.take()
            } else {
                None
            },
        }
    }
}

/// How many records of its producer's user a stored record is.
fn user_records(record: &Record) -> usize {
    match decode(record.data.clone()) {
        Decoded::Plain { .. } => 1,
        Decoded::Aggregate(users) => users.len().max(1),
    }
}

#[cfg(test)]
mod tests;
