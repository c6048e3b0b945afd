//! Aggregated records of the Kinesis Producer Library (KPL): several user records packed into the data of one.
//!
//! ```text
//! F3 89 9A C2 | protobuf AggregatedRecord | MD5 of the protobuf (16 bytes)
//! ```
//!
//! Source: *KPL Aggregated Record Format* in the repository of the KPL. As in the Java KCL, what has not this form is a plain
//! record, byte for byte. Where that library would fail in the middle of an aggregate, or leave records out (a key index
//! that leads nowhere, no user records at all), the whole is a plain record here, so that nothing is lost.
//!
//! Every byte is taken for hostile. No length or index that is read decides over an allocation; what decoding takes in memory is a
//! multiple of what was sent, some dozens of times for bytes that were made for it, and payloads are never copied.

#![warn(
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::arithmetic_side_effects
)]

use crate::hash_key::HashKey;
use crate::limits::DATA_MAX_BYTES;
use bytes::{Buf, Bytes};
use md5::{Digest, Md5};
use prost::Message;
use std::collections::HashMap;
use std::sync::Arc;

/// What the data of an aggregated record begins with.
pub const MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];
/// Bytes of the MD5 at the end.
pub const DIGEST_BYTES: usize = 16;
/// Bytes of an entry without data, at least: its key and length, then key and value of its partition key's index and of its data.
const ENTRY_MIN_BYTES: usize = 6;

/// One record as the producer's user gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// The partition key; shared by the records of an aggregate that have it in common.
    pub partition_key: Arc<str>,
    /// The explicit hash key as it was written, if there is one.
    pub explicit_hash_key: Option<Arc<str>>,
    /// The payload. Decoded, it is a slice of the aggregate's data and keeps that in memory.
    pub data: Bytes,
}

impl UserRecord {
    /// Where the record belongs: its explicit hash key, else the MD5 of its partition key. `None` if the explicit hash key is no number below 2^128.
    pub fn hash_key(&self) -> Option<HashKey> {
        match &self.explicit_hash_key {
            // Producers check it less strictly than Kinesis does: leading zeros are as good.
            Some(text) => text.parse().ok().map(HashKey),
            None => Some(HashKey::of_partition_key(&self.partition_key)),
        }
    }
}

/// What the data of a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// No aggregate: to be taken as it is.
    Plain {
        /// What was given.
        data: Bytes,
        /// Why it is none, where magic number and digest say that it was meant to be one.
        flaw: Option<Flaw>,
    },
    /// The user records in order, at least one; the index of each is its sub-sequence number.
    Aggregate(Vec<UserRecord>),
}

/// Why data with the form of an aggregate is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Not the protocol buffer of an aggregate.
    #[error("not an AggregatedRecord: {0}")]
    Protobuf(String),
    /// It packs nothing.
    #[error("no user records")]
    Empty,
    /// A user record lacks its partition key or its data.
    #[error("a user record without partition key or without data")]
    Incomplete,
    /// A user record refers to a key that is not there.
    #[error("key number {index} of {keys}")]
    Index {
        /// The index, from 0.
        index: u64,
        /// How many keys there are.
        keys: usize,
    },
}

#[derive(Clone, PartialEq, Message)]
struct AggregatedRecord {
    #[prost(string, repeated, tag = "1")]
    partition_key_table: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    explicit_hash_key_table: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    records: Vec<Entry>,
}

/// A user record. Its tags (4) are skipped: neither the KPL nor the KCL lets users have them.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    // Required by the format; optional here, to tell a missing index from 0.
    #[prost(uint64, optional, tag = "1")]
    partition_key_index: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    explicit_hash_key_index: Option<u64>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    data: Option<Bytes>,
}

/// An aggregate whose entries are only counted: a vector of nothing takes no memory.
#[derive(Clone, PartialEq, Message)]
struct Skimmed {
    #[prost(message, repeated, tag = "3")]
    records: Vec<Nothing>,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

/// Takes the data of a record apart.
pub fn decode(data: Bytes) -> Decoded {
    let Some(message) = message_of(&data) else {
        return Decoded::Plain { data, flaw: None };
    };
    match user_records(message) {
        Ok(records) => Decoded::Aggregate(records),
        Err(flaw) => Decoded::Plain {
            data,
            flaw: Some(flaw),
        },
    }
}

/// The protocol buffer inside, if magic number and digest are right.
fn message_of(data: &Bytes) -> Option<Bytes> {
    if data.len() > DATA_MAX_BYTES {
        return None;
    }
    let (message, digest) = data.strip_prefix(&MAGIC)?.split_last_chunk()?;
    let digest: &[u8; DIGEST_BYTES] = digest;
    let sound = Md5::digest(message)[..] == digest[..];
    sound.then(|| data.slice_ref(message))
}

fn user_records(message: Bytes) -> Result<Vec<UserRecord>, Flaw> {
    let count = Skimmed::decode(message.clone())?.records.len();
    if count == 0 {
        return Err(Flaw::Empty);
    }
    if count.saturating_mul(ENTRY_MIN_BYTES) > message.remaining() {
        return Err(Flaw::Incomplete);
    }
    let mut aggregate = AggregatedRecord {
        records: Vec::with_capacity(count),
        ..AggregatedRecord::default()
    };
    aggregate.merge(message)?;
    let shared = |table: Vec<String>| table.into_iter().map(Arc::from).collect::<Vec<Arc<str>>>();
    let partition_keys = shared(aggregate.partition_key_table);
    let explicit_hash_keys = shared(aggregate.explicit_hash_key_table);
    let user_record = |entry: Entry| {
        let index = entry.partition_key_index.ok_or(Flaw::Incomplete)?;
        Ok(UserRecord {
            partition_key: look_up(&partition_keys, index)?,
            explicit_hash_key: entry
                .explicit_hash_key_index
                .map(|index| look_up(&explicit_hash_keys, index))
                .transpose()?,
            data: entry.data.ok_or(Flaw::Incomplete)?,
        })
    };
    aggregate.records.into_iter().map(user_record).collect()
}

fn look_up(keys: &[Arc<str>], index: u64) -> Result<Arc<str>, Flaw> {
    usize::try_from(index)
        .ok()
        .and_then(|place| keys.get(place))
        .cloned()
        .ok_or(Flaw::Index {
            index,
            keys: keys.len(),
        })
}

impl From<prost::DecodeError> for Flaw {
    fn from(error: prost::DecodeError) -> Self {
        Flaw::Protobuf(error.to_string())
    }
}

/// Packs user records into the data of one record. Each key is written once.
///
/// The record is to be put with a hash key of the shard that all user records belong to. One user record alone is better put as it is.
pub fn encode(records: &[UserRecord]) -> Bytes {
    let mut partition_keys = Table::default();
    let mut explicit_hash_keys = Table::default();
    let entry = |record: &UserRecord| Entry {
        partition_key_index: Some(partition_keys.index_of(&record.partition_key)),
        explicit_hash_key_index: record
            .explicit_hash_key
            .as_ref()
            .map(|key| explicit_hash_keys.index_of(key)),
        data: Some(record.data.clone()),
    };
    let entries = records.iter().map(entry).collect();
    seal(&AggregatedRecord {
        records: entries,
        partition_key_table: partition_keys.keys,
        explicit_hash_key_table: explicit_hash_keys.keys,
    })
}

fn seal(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    let digest = Md5::digest(&message);
    Bytes::from([&MAGIC[..], &message, &digest[..]].concat())
}

/// Keys in the order in which they were first seen.
#[derive(Default)]
struct Table {
    keys: Vec<String>,
    indexes: HashMap<Arc<str>, u64>,
}

impl Table {
    fn index_of(&mut self, key: &Arc<str>) -> u64 {
        if let Some(index) = self.indexes.get(key) {
            return *index;
        }
        let index = u64::try_from(self.keys.len()).unwrap_or(u64::MAX);
        self.indexes.insert(Arc::clone(key), index);
        self.keys.push(key.as_ref().to_owned());
        index
    }
}

#[cfg(test)]
mod tests;
