//! The bodies of all frames but runs (see `records`) and footers (see `segment_index`): snapshot, transaction, opened. Pure.
//!
//! ```text
//! snapshot     log id [16], u64 epoch, u32 metadata length, metadata, u32 shards,
//!              per shard: u64 number, u64 next counter, u64 last time ms, u8 sealed
//! transaction  u32 created, u32 sealed, u32 dropped, then that many u64 each, then the event
//! opened       u64 epoch
//! closed       nothing
//! ```

#![warn(
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::arithmetic_side_effects
)]

use bytes::Bytes;

use crate::log::LogShard;
use crate::log::cursor::Cursor;

/// Bytes at the very end of a sealed segment: footer offset, its CRC-32C, magic.
pub(crate) const TRAILER_BYTES: usize = 16;
const TRAILER_MAGIC: [u8; 4] = *b"MSE\x01";

const SNAPSHOT_SHARD_BYTES: usize = 25;

/// What the committer knows of a live shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ShardState {
    /// One more than the last record's counter; 0 before the first.
    pub(crate) next: u64,
    pub(crate) last_time_ms: u64,
    pub(crate) sealed: bool,
}

/// The first frame of a segment: everything recovery needs of what came before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot<'a> {
    pub(crate) log_id: [u8; 16],
    pub(crate) epoch: u64,
    pub(crate) metadata: &'a [u8],
    pub(crate) shards: Vec<(LogShard, ShardState)>,
}

impl<'a> Snapshot<'a> {
    /// Encoded size of one with so much metadata and so many shards.
    pub(crate) fn len_bytes_of(metadata_bytes: usize, shards: usize) -> usize {
        let shards_bytes = shards.saturating_mul(SNAPSHOT_SHARD_BYTES);
        shards_bytes
            .saturating_add(metadata_bytes)
            .saturating_add(16 + 8 + 4 + 4)
    }

    pub(crate) fn encode(&self, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(&self.log_id);
        buffer.extend_from_slice(&self.epoch.to_be_bytes());
        put_count(buffer, self.metadata.len());
        buffer.extend_from_slice(self.metadata);
        put_count(buffer, self.shards.len());
        for (shard, state) in &self.shards {
            for number in [shard.0, state.next, state.last_time_ms] {
                buffer.extend_from_slice(&number.to_be_bytes());
            }
            buffer.push(u8::from(state.sealed));
        }
    }

    pub(crate) fn decode(body: &'a [u8]) -> Option<Snapshot<'a>> {
        let mut cursor = Cursor::new(body);
        let log_id = cursor.array()?;
        let epoch = cursor.u64()?;
        let metadata_bytes = cursor.count(1)?;
        let metadata = cursor.take(metadata_bytes)?;
        let count = cursor.count(SNAPSHOT_SHARD_BYTES)?;
        let mut shards = Vec::with_capacity(count);
        for _ in 0..count {
            let shard = LogShard(cursor.u64()?);
            let (next, last_time_ms) = (cursor.u64()?, cursor.u64()?);
            let sealed = match cursor.u8()? {
                0 => false,
                1 => true,
                _ => return None,
            };
            shards.push((
                shard,
                ShardState {
                    next,
                    last_time_ms,
                    sealed,
                },
            ));
        }
        cursor.rest().is_empty().then_some(Snapshot {
            log_id,
            epoch,
            metadata,
            shards,
        })
    }
}

/// A change of metadata and of the set of shards, applied together or not at all.
///
/// Created shards must be unknown, sealed ones must be there and open, dropped ones must be there.
/// A number that was dropped must not be created again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transaction {
    /// The metadata event, opaque here.
    pub event: Bytes,
    /// Shards that begin to exist.
    pub create: Vec<LogShard>,
    /// Shards that take no more records.
    pub seal: Vec<LogShard>,
    /// Shards that stop existing: their records can no longer be read.
    pub drop: Vec<LogShard>,
}

impl Transaction {
    pub(crate) fn encode(&self, buffer: &mut Vec<u8>) {
        let lists = [&self.create, &self.seal, &self.drop];
        for list in lists {
            put_count(buffer, list.len());
        }
        for shard in lists.into_iter().flatten() {
            buffer.extend_from_slice(&shard.0.to_be_bytes());
        }
        buffer.extend_from_slice(&self.event);
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Transaction> {
        let mut cursor = Cursor::new(body);
        let counts = [cursor.u32()?, cursor.u32()?, cursor.u32()?];
        let mut lists = [Vec::new(), Vec::new(), Vec::new()];
        for (list, count) in lists.iter_mut().zip(counts) {
            for _ in 0..count {
                list.push(LogShard(cursor.u64()?));
            }
        }
        let [create, seal, drop] = lists;
        Some(Transaction {
            event: Bytes::copy_from_slice(cursor.rest()),
            create,
            seal,
            drop,
        })
    }

    /// Encoded size.
    pub(crate) fn len_bytes(&self) -> usize {
        let shards = self.create.len().saturating_add(self.seal.len());
        let shards = shards.saturating_add(self.drop.len());
        shards
            .saturating_mul(8)
            .saturating_add(12)
            .saturating_add(self.event.len())
    }
}

/// The body of an opened frame.
pub(crate) fn encode_opened(epoch: u64, buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(&epoch.to_be_bytes());
}

/// The epoch of an opened frame.
pub(crate) fn decode_opened(body: &[u8]) -> Option<u64> {
    let mut cursor = Cursor::new(body);
    let epoch = cursor.u64()?;
    cursor.rest().is_empty().then_some(epoch)
}

/// The trailer of a segment whose footer frame begins at `footer_offset`.
pub(crate) fn encode_trailer(footer_offset: u64) -> [u8; TRAILER_BYTES] {
    let offset = footer_offset.to_be_bytes();
    let crc = crc32c::crc32c(&offset).to_be_bytes();
    let mut trailer = [0; TRAILER_BYTES];
    let (head, tail) = trailer.split_at_mut(8);
    head.copy_from_slice(&offset);
    let (middle, magic) = tail.split_at_mut(4);
    middle.copy_from_slice(&crc);
    magic.copy_from_slice(&TRAILER_MAGIC);
    trailer
}

/// The footer's offset, if these bytes are a trailer.
pub(crate) fn decode_trailer(trailer: &[u8]) -> Option<u64> {
    let mut cursor = Cursor::new(trailer);
    let offset: [u8; 8] = cursor.array()?;
    let sound = cursor.u32()? == crc32c::crc32c(&offset) && cursor.rest() == TRAILER_MAGIC;
    sound.then_some(u64::from_be_bytes(offset))
}

pub(crate) fn put_count(buffer: &mut Vec<u8>, count: usize) {
    let Ok(count) = u32::try_from(count) else {
        unreachable!("a body is below 4 GiB, so are its counts");
    };
    buffer.extend_from_slice(&count.to_be_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
    use super::*;
    use proptest::prelude::*;

    fn shards() -> impl Strategy<Value = Vec<LogShard>> {
        prop::collection::vec(any::<u64>().prop_map(LogShard), 0..5)
    }

    fn states() -> impl Strategy<Value = Vec<(LogShard, ShardState)>> {
        let state = (any::<u64>(), any::<u64>(), any::<u64>(), any::<bool>());
        let one = state.prop_map(|(shard, next, last_time_ms, sealed)| {
            (
                LogShard(shard),
                ShardState {
                    next,
                    last_time_ms,
                    sealed,
                },
            )
        });
        prop::collection::vec(one, 0..5)
    }

    fn encoded(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut buffer = Vec::new();
        write(&mut buffer);
        buffer
    }

    proptest! {
        #[test]
        fn snapshots_round_trip(log_id: [u8; 16], epoch: u64, metadata in prop::collection::vec(any::<u8>(), 0..40), shards in states()) {
            let snapshot = Snapshot { log_id, epoch, metadata: &metadata, shards };
            let bytes = encoded(|buffer| snapshot.encode(buffer));
            prop_assert_eq!(bytes.len(), Snapshot::len_bytes_of(metadata.len(), snapshot.shards.len()));
            prop_assert_eq!(Snapshot::decode(&bytes), Some(snapshot.clone()));
            prop_assert_eq!(Snapshot::decode(&bytes[..bytes.len() - 1]), None);
        }

        #[test]
        fn transactions_round_trip(event in prop::collection::vec(any::<u8>(), 0..40), create in shards(), seal in shards(), drop in shards()) {
            let transaction = Transaction { event: Bytes::from(event), create, seal, drop };
            let bytes = encoded(|buffer| transaction.encode(buffer));
            prop_assert_eq!(bytes.len(), transaction.len_bytes());
            prop_assert_eq!(Transaction::decode(&bytes), Some(transaction));
        }

        #[test]
        fn opened_and_trailer_round_trip(number: u64) {
            prop_assert_eq!(decode_opened(&encoded(|buffer| encode_opened(number, buffer))), Some(number));
            prop_assert_eq!(decode_trailer(&encode_trailer(number)), Some(number));
        }

        #[test]
        fn s8_a_flipped_trailer_is_refused(number: u64, bit in 0usize..128) {
            let mut trailer = encode_trailer(number);
            trailer[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(decode_trailer(&trailer), None);
        }

        #[test]
        fn s9_any_bytes_decode_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Snapshot::decode(&bytes);
            let _ = Transaction::decode(&bytes);
            let _ = decode_opened(&bytes);
            let _ = decode_trailer(&bytes);
        }
    }
}
