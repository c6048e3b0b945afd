//! Which records of a shard are done, when they are done in any order: pure bookkeeping of one tenure.

use crate::processor::Record;
use millstream_wire::SequenceNumber;
use std::collections::BTreeSet;

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
