//! Reading a shard: one request after the other ([`polling`]) or by subscription ([`fanout`], of a consumer in [`registration`]), ahead of the
//! processor within a byte budget ([`reader`]); gathering what makes a batch, where that is asked for ([`collect`]); and taking apart what was
//! read ([`expand`]), only when its turn has come, so that aggregates read ahead take the memory they are stored with.

pub(crate) mod collect;
pub(crate) mod expand;
pub(crate) mod fanout;
pub(crate) mod polling;
pub(crate) mod reader;
pub(crate) mod registration;
pub(crate) mod source;

use crate::client::Shard;
use crate::processor::Record;
use millstream_wire::aggregation::Decoded;

/// Records read from a shard, and whether it ends with them.
#[derive(Debug)]
pub(crate) struct Page {
    /// Records as they are stored, in order, each after those of the page before.
    pub(crate) records: Vec<Record>,
    /// What the first of those are that may be aggregates, where they were looked into before their turn.
    pub(crate) decoded: Vec<Decoded>,
    pub(crate) millis_behind_latest: u64,
    /// Set at the end of a closed shard: its children, empty where the endpoint does not name them.
    pub(crate) end: Option<Vec<Shard>>,
}

impl Page {
    /// A page as it was read.
    pub(crate) fn read(
        records: Vec<Record>,
        millis_behind_latest: u64,
        end: Option<Vec<Shard>>,
    ) -> Self {
        Page {
            records,
            decoded: Vec::new(),
            millis_behind_latest,
            end,
        }
    }

    /// Whether it says no more than that the shard can be read.
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.end.is_none()
    }

    /// What the page holds in memory, about.
    pub(crate) fn size_bytes(&self) -> usize {
        let per_record = std::mem::size_of::<Record>();
        self.records
            .iter()
            .map(|record| record.data.len() + record.partition_key.len() + per_record)
            .sum()
    }
}
