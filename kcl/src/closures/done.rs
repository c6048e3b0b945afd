//! Which records of a shard are done, when they are done in any order: pure bookkeeping of one tenure.

use super::Saver;
use crate::checkpoint::Checkpointer;
use crate::error::Error;
use crate::processor::{ProcessorError, Record};
use millstream_wire::SequenceNumber;
use std::collections::BTreeSet;
use std::ops::Range;

/// The records that are done of the batch in work, and of parts of it that come again.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// By sequence and sub-sequence number; no more than a batch has.
    places: BTreeSet<(SequenceNumber, u64)>,
}

fn place(record: &Record) -> (SequenceNumber, u64) {
    (record.sequence_number(), record.sub_sequence_number())
}

impl Done {
    /// A batch, or a part of it, is delivered: everything before it is handled. Gives the indexes of what is still to be done.
    pub(crate) fn begin(&mut self, records: &[Record]) -> Vec<usize> {
        if let Some(first) = records.first() {
            self.places = self.places.split_off(&place(first));
        }
        let open = records.iter().enumerate();
        let open = open.filter(|(_, record)| !self.places.contains(&place(record)));
        open.map(|(index, _)| index).collect()
    }

    pub(crate) fn add(&mut self, record: &Record) {
        self.places.insert(place(record));
    }

    /// How many of the first records are done without a gap, if `known` of them are known to be: the low-water mark.
    pub(crate) fn without_gap(&self, records: &[Record], known: usize) -> usize {
        let rest = records.iter().skip(known);
        let more = rest.take_while(|record| self.places.contains(&place(record)));
        known + more.count()
    }
}

/// A batch whose records are done in any order.
#[derive(Debug)]
pub(crate) struct InWork {
    records: Vec<Record>,
    /// Done without a gap.
    known: usize,
    /// The failure of the earliest record.
    failed: Option<(usize, ProcessorError)>,
}

impl InWork {
    /// A batch of which some may be done already.
    pub(crate) fn new(records: &[Record], done: &Done) -> Self {
        InWork {
            records: records.to_vec(),
            known: done.without_gap(records, 0),
            failed: None,
        }
    }

    pub(crate) fn record(&self, index: usize) -> Option<&Record> {
        self.records.get(index)
    }

    /// Takes more records in; gives their indexes.
    pub(crate) fn grow(&mut self, more: Vec<Record>) -> Range<usize> {
        let before = self.records.len();
        self.records.extend(more);
        before..self.records.len()
    }

    /// Whether nothing of it has failed, so that there may be more of it.
    pub(crate) fn is_sound(&self) -> bool {
        self.failed.is_none()
    }

    /// The last record up to which all are done: the low-water mark.
    pub(crate) fn mark(&self) -> Option<&Record> {
        self.record(self.known.checked_sub(1)?)
    }

    /// What came of a record.
    pub(crate) fn take_in(
        &mut self,
        index: usize,
        answer: Result<(), ProcessorError>,
        done: &mut Done,
    ) {
        match (self.records.get(index), answer) {
            (Some(record), Ok(())) => {
                done.add(record);
                self.known = done.without_gap(&self.records, self.known);
            }
            (None, Ok(())) => {}
            (_, Err(error)) => {
                if self.failed.as_ref().is_none_or(|(first, _)| index < *first) {
                    self.failed = Some((index, error));
                }
            }
        }
    }

    /// No record is at fault, but no more can be begun.
    pub(crate) fn cut_short(&mut self, error: Error) {
        self.failed.get_or_insert((usize::MAX, error.into()));
    }

    /// Nothing of it runs any more: how many records it was.
    ///
    /// # Errors
    /// That of the earliest record that failed.
    pub(crate) async fn end(
        mut self,
        saver: &mut Saver,
        checkpointer: &Checkpointer,
    ) -> Result<usize, ProcessorError> {
        match self.failed.take() {
            None => Ok(self.records.len()),
            Some((_, error)) => {
                saver.batch_failed(self.mark(), checkpointer).await;
                Err(error)
            }
        }
    }
}
