//! From the records of a page to batches of what the producer's users put: aggregated records are taken apart, one at a time.
//!
//! Pure. What comes out is in strictly increasing order of (sequence, sub-sequence), begins after what is done, and leaves out
//! nothing but user records of other shards, where that is asked for (K4, K5, K6).

use crate::checkpoint::Position;
use crate::processor::{Part, Record};
use millstream_wire::aggregation::{Decoded, Flaw, MAGIC, UserRecord, decode};
use millstream_wire::{HashKeyRange, SequenceNumber};
use std::vec::IntoIter;

/// What of a page is to be handed over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selection {
    /// Everything up to here is done.
    pub(crate) done: Position,
    /// User records of aggregates that belong to other hash keys are dropped, where given.
    pub(crate) own: Option<HashKeyRange>,
    /// Records in a batch at most.
    pub(crate) most: usize,
    /// Their bytes at most; a single record always fits.
    pub(crate) most_bytes: usize,
}

/// What is to be handed over in one call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Empty where nothing is left of the page.
    pub(crate) records: Vec<Record>,
    /// How far an application has got that has handled the records.
    pub(crate) end: Position,
}

/// What was noticed about a page.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// User records dropped because they belong to another shard.
    pub(crate) foreign: u64,
    /// The first record that was meant to be an aggregate and is none.
    pub(crate) unsound: Option<(SequenceNumber, Flaw)>,
}

/// The batches of one page, in order.
#[derive(Debug)]
pub(crate) struct Batches {
    stored: IntoIter<Record>,
    /// What the first of those are that may be aggregates, where that is known.
    decoded: IntoIter<Decoded>,
    /// The rest of the aggregate that was taken apart last.
    open: IntoIter<Record>,
    /// What did not fit into the batch given last.
    held: Option<Record>,
    selection: Selection,
    /// Where the page ends; `None` once the last batch was given, or if all of it was done before.
    end: Option<Position>,
    findings: Findings,
}

impl Batches {
    /// The batches of a page; `decoded` is what the first of its records are that may be aggregates.
    pub(crate) fn of(stored: Vec<Record>, decoded: Vec<Decoded>, selection: Selection) -> Self {
        let end = stored.last().map(Record::position);
        Batches {
            stored: stored.into_iter(),
            decoded: decoded.into_iter(),
            open: IntoIter::default(),
            held: None,
            selection,
            end: end.filter(|end| selection.done < *end),
            findings: Findings::default(),
        }
    }

    /// What was noticed in the batches given since this was last asked.
    pub(crate) fn take_findings(&mut self) -> Findings {
        std::mem::take(&mut self.findings)
    }

    /// All that is left of the page, where it is a batch as it lies there: no record has to be touched then.
    fn whole(&mut self, most: usize, most_bytes: usize) -> Option<Vec<Record>> {
        let left = self.stored.as_slice();
        let is_new = left
            .first()
            .is_some_and(|first| self.selection.done < first.position());
        let is_rest = self.held.is_some() || !self.open.as_slice().is_empty();
        let fits = left.len() <= most && !is_rest;
        let bytes = || left.iter().map(Record::payload_bytes).sum::<usize>();
        let whole = is_new && fits && left.iter().all(is_plain) && bytes() <= most_bytes;
        whole.then(|| std::mem::take(&mut self.stored).collect())
    }

    /// Whether there is more to give.
    pub(crate) fn is_left(&self) -> bool {
        self.end.is_some()
    }

    fn next_record(&mut self) -> Option<Record> {
        loop {
            if let Some(record) = self.open.next() {
                return Some(record);
            }
            let stored = self.stored.next()?;
            let is_plain = is_plain(&stored);
            let decoded = if is_plain { None } else { self.decoded.next() };
            if stored.position() <= self.selection.done {
                continue;
            }
            if is_plain {
                return Some(stored);
            }
            match decoded.unwrap_or_else(|| decode(stored.data.clone())) {
                Decoded::Plain { flaw, .. } => {
                    if let (Some(flaw), None) = (flaw, &self.findings.unsound) {
                        self.findings.unsound = Some((stored.sequence_number, flaw));
                    }
                    return Some(stored);
                }
                Decoded::Aggregate(users) => self.open = self.expand(&stored, users).into_iter(),
            }
        }
    }

    /// The user records of an aggregate that are to be delivered. The last of them stands for the aggregate's end, also where others after it
    /// were dropped, so that it is not read again for nothing.
    fn expand(&mut self, stored: &Record, users: Vec<UserRecord>) -> Vec<Record> {
        let mut records = Vec::with_capacity(users.len());
        let sequence_number = stored.sequence_number;
        for (sub_sequence_number, user) in (0..).zip(users) {
            // By its own place: where the last one stands may have been another's before, when other records were dropped.
            let place = Position::Sequence {
                sequence: sequence_number,
                sub_sequence: sub_sequence_number,
            };
            if place <= self.selection.done {
                continue;
            }
            if self.selection.is_foreign(&user) {
                self.findings.foreign += 1;
                continue;
            }
            records.push(Record {
                sequence_number,
                sub_sequence_number,
                partition_key: user.partition_key.into(),
                explicit_hash_key: user.explicit_hash_key,
                data: user.data,
                arrival_ms: stored.arrival_ms,
                part: Part::Inside,
            });
        }
        if let Some(last) = records.last_mut() {
            last.part = Part::Last;
        }
        records
    }
}

/// Whether it cannot be an aggregate, by its first bytes.
pub(crate) fn is_plain(stored: &Record) -> bool {
    !stored.data.starts_with(&MAGIC)
}

impl Selection {
    /// A hash key that is no number says nothing: such a record stays.
    fn is_foreign(&self, user: &UserRecord) -> bool {
        self.own
            .is_some_and(|own| user.hash_key().is_some_and(|key| !own.contains(key)))
    }
}

impl Iterator for Batches {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        self.gather(self.selection.most, self.selection.most_bytes)
    }
}

impl Batches {
    /// The next batch, of so many records and bytes at most; a single record always fits.
    pub(crate) fn gather(&mut self, most: usize, most_bytes: usize) -> Option<Batch> {
        let page_end = self.end?;
        if let Some(records) = self.whole(most, most_bytes) {
            self.end = None;
            return Some(Batch {
                records,
                end: page_end,
            });
        }
        let expected = self.stored.len().max(self.open.len());
        let (mut records, mut bytes) = (Vec::with_capacity(expected.min(most)), 0usize);
        while records.len() < most {
            let Some(record) = self.held.take().or_else(|| self.next_record()) else {
                // What was dropped after the last record is done with it.
                self.end = None;
                return Some(Batch {
                    records,
                    end: page_end,
                });
            };
            bytes = bytes.saturating_add(record.payload_bytes());
            if bytes > most_bytes && !records.is_empty() {
                self.held = Some(record);
                break;
            }
            records.push(record);
        }
        let end = records.last().map_or(page_end, Record::position);
        Some(Batch { records, end })
    }
}

#[cfg(test)]
mod tests;
