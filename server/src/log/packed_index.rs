//! The footer of a rewritten segment: which shards have blocks in it, and where. Pure.
//!
//! ```text
//! u8 format = 1, u32 generation, u32 shards, then numbers as in `cursor::put_varint`, per shard in order:
//!   shard                 less the number of the shard before, or less 0
//!   start, start time     steps (`cursor::put_step`) from those of the shard before, or from 0
//!   blocks, and for each:
//!     first counter       less the end of the block before, or less the start
//!     first time          less the last time of the block before, or less the start time
//!     records
//!     counters left out   between the first and the last
//!     last time           less the first time
//!     frame length
//!     unpacked length
//! ```
//!
//! Blocks follow each other from the beginning of the segment to the footer, in this order.

#![warn(
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeMap;

use crate::log::LogShard;
use crate::log::cursor::{Cursor, put_step, put_varint};
use crate::log::extent::{Extent, Form};
use crate::log::frame::{ALIGNMENT, HEADER_BYTES};

const FORMAT: u8 = 1;
/// The least a shard takes, and a block.
const SHARD_BYTES: usize = 4;
const BLOCK_BYTES: usize = 7;
/// What a shard takes in memory beside its blocks: its share of a tree's nodes, and an allocation.
const SHARD_MEMORY_BYTES: usize = 112;

/// Every block of a rewritten segment, by shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PackedIndex {
    /// How often the segment has been rewritten.
    pub(crate) generation: u32,
    pub(crate) shards: BTreeMap<LogShard, PackedShard>,
}

/// One shard's share of a rewritten segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PackedShard {
    /// The shard's next counter when the segment began.
    pub(crate) start: u64,
    /// The shard's last time when the segment began.
    pub(crate) start_time_ms: u64,
    pub(crate) blocks: Vec<Extent>,
}

impl PackedIndex {
    pub(crate) fn memory_bytes(&self) -> usize {
        let blocks = self.shards.values().map(|shard| shard.blocks.capacity());
        let blocks = blocks.fold(0_usize, usize::saturating_add);
        let shards_bytes = self.shards.len().saturating_mul(SHARD_MEMORY_BYTES);
        blocks
            .saturating_mul(size_of::<Extent>())
            .saturating_add(shards_bytes)
    }

    pub(crate) fn encode(&self, buffer: &mut Vec<u8>) {
        buffer.push(FORMAT);
        buffer.extend_from_slice(&self.generation.to_be_bytes());
        let shards = u32::try_from(self.shards.len()).unwrap_or(u32::MAX);
        buffer.extend_from_slice(&shards.to_be_bytes());
        let (mut number, mut start, mut time_ms) = (0, 0, 0);
        for (shard, part) in &self.shards {
            put_varint(buffer, shard.0.wrapping_sub(number));
            put_step(buffer, start, part.start);
            put_step(buffer, time_ms, part.start_time_ms);
            (number, start, time_ms) = (shard.0, part.start, part.start_time_ms);
            encode_blocks(part, buffer);
        }
    }

    /// Also checks that the blocks end at `end`, where the footer begins.
    pub(crate) fn decode(body: &[u8], end: u64) -> Option<PackedIndex> {
        let mut cursor = Cursor::new(body);
        if cursor.u8()? != FORMAT {
            return None;
        }
        let generation = cursor.u32()?;
        let mut shards = BTreeMap::new();
        let (mut offset, mut before) = (0, None);
        let (mut start, mut time_ms) = (0, 0);
        for _ in 0..cursor.count(SHARD_BYTES)? {
            let step = cursor.varint()?;
            if before.is_some() && step == 0 {
                return None;
            }
            let number = before.unwrap_or(0_u64).checked_add(step)?;
            start = cursor.step(start)?;
            time_ms = cursor.step(time_ms)?;
            let mut part = PackedShard {
                start,
                start_time_ms: time_ms,
                blocks: Vec::new(),
            };
            decode_blocks(&mut cursor, &mut part, &mut offset)?;
            before = Some(number);
            shards.insert(LogShard(number), part);
        }
        (cursor.rest().is_empty() && offset == end).then_some(PackedIndex { generation, shards })
    }
}

fn encode_blocks(part: &PackedShard, buffer: &mut Vec<u8>) {
    let blocks = u64::try_from(part.blocks.len()).unwrap_or(u64::MAX);
    put_varint(buffer, blocks);
    let (mut counter, mut time_ms) = (part.start, part.start_time_ms);
    for block in &part.blocks {
        put_varint(buffer, block.first.wrapping_sub(counter));
        put_varint(buffer, block.time_ms.wrapping_sub(time_ms));
        put_varint(buffer, u64::from(block.count));
        let numbered = block.end.wrapping_sub(block.first);
        put_varint(buffer, numbered.wrapping_sub(u64::from(block.count)));
        put_varint(buffer, block.last_time_ms.wrapping_sub(block.time_ms));
        put_varint(buffer, u64::from(block.length));
        let unpacked = u64::try_from(block.memory_bytes()).unwrap_or(u64::MAX);
        put_varint(buffer, unpacked);
        (counter, time_ms) = (block.end, block.last_time_ms);
    }
}

fn decode_blocks(cursor: &mut Cursor<'_>, part: &mut PackedShard, offset: &mut u64) -> Option<()> {
    let blocks = usize::try_from(cursor.varint()?).ok()?;
    if blocks.checked_mul(BLOCK_BYTES)? > cursor.rest().len() {
        return None;
    }
    part.blocks.reserve_exact(blocks);
    let (mut counter, mut before_ms) = (part.start, part.start_time_ms);
    for _ in 0..blocks {
        let first = counter.checked_add(cursor.varint()?)?;
        let time_ms = before_ms.checked_add(cursor.varint()?)?;
        let count = u32::try_from(cursor.varint()?).ok()?;
        let left_out = cursor.varint()?;
        let end = first.checked_add(u64::from(count))?.checked_add(left_out)?;
        let last_time_ms = time_ms.checked_add(cursor.varint()?)?;
        let length = u32::try_from(cursor.varint()?).ok()?;
        let unpacked_bytes = u32::try_from(cursor.varint()?).ok()?;
        if count == 0 || usize::try_from(length).ok()? < HEADER_BYTES {
            return None;
        }
        part.blocks.push(Extent {
            first,
            end,
            count,
            time_ms,
            last_time_ms,
            offset: *offset,
            length,
            form: Form::Packed { unpacked_bytes },
        });
        *offset = offset.checked_add(padded(length))?;
        (counter, before_ms) = (end, last_time_ms);
    }
    Some(())
}

/// Bytes from one frame to the next.
pub(crate) fn padded(length: u32) -> u64 {
    let alignment = u64::try_from(ALIGNMENT).unwrap_or(u64::MAX);
    u64::from(length).next_multiple_of(alignment)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
    use super::*;
    use proptest::prelude::*;

    fn blocks() -> impl Strategy<Value = Vec<(u64, u64, u32, u64, u64, u32)>> {
        let block = (0u64..9, 0u64..9, 1u32..99, 0u64..9, 0u64..9, 40u32..9999);
        prop::collection::vec(block, 0..5)
    }

    fn index() -> impl Strategy<Value = (PackedIndex, u64)> {
        let part = (0..u64::MAX / 2, 0..u64::MAX / 2, blocks());
        let parts = prop::collection::btree_map(any::<u64>(), part, 0..6);
        (any::<u32>(), parts).prop_map(|(generation, parts)| {
            let (mut shards, mut offset) = (BTreeMap::new(), 0);
            for (shard, (start, start_time_ms, blocks)) in parts {
                let (mut counter, mut before_ms) = (start, start_time_ms);
                let mut part = PackedShard {
                    start,
                    start_time_ms,
                    blocks: Vec::new(),
                };
                for (gap, wait, count, left_out, took, length) in blocks {
                    let (first, time_ms) = (counter + gap, before_ms + wait);
                    let (end, last_time_ms) = (first + u64::from(count) + left_out, time_ms + took);
                    let form = Form::Packed {
                        unpacked_bytes: length.wrapping_mul(77),
                    };
                    part.blocks.push(Extent {
                        first,
                        end,
                        count,
                        time_ms,
                        last_time_ms,
                        offset,
                        length,
                        form,
                    });
                    offset += padded(length);
                    (counter, before_ms) = (end, last_time_ms);
                }
                shards.insert(LogShard(shard), part);
            }
            (PackedIndex { generation, shards }, offset)
        })
    }

    proptest! {
        #[test]
        fn packed_footers_round_trip((index, end) in index()) {
            let mut bytes = Vec::new();
            index.encode(&mut bytes);
            prop_assert_eq!(PackedIndex::decode(&bytes, end), Some(index));
            prop_assert_eq!(PackedIndex::decode(&bytes, end + 8), None);
            prop_assert_eq!(PackedIndex::decode(&bytes[..bytes.len() - 1], end), None);
            bytes.push(0);
            prop_assert_eq!(PackedIndex::decode(&bytes, end), None);
        }

        #[test]
        fn s9_any_bytes_decode_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..100), format: bool) {
            if format && !bytes.is_empty() {
                bytes[0] = FORMAT;
            }
            let _ = PackedIndex::decode(&bytes, 0);
        }
    }

    /// Ten thousand shards must not make each small segment a megabyte.
    #[test]
    fn a_shard_takes_few_bytes() {
        let mut index = PackedIndex::default();
        let mut offset = 0;
        for number in 0..1000_u64 {
            let start = (7 << 40) + 1_000_000 + number * 37 % 5000;
            let start_time_ms = 1_750_000_000_000 + number * 91 % 40_000;
            let time_ms = start_time_ms + 700;
            let block = Extent {
                first: start,
                end: start + 64,
                count: 64,
                time_ms,
                last_time_ms: time_ms + 20_000,
                offset,
                length: 65_000,
                form: Form::Packed {
                    unpacked_bytes: 66_000,
                },
            };
            offset += padded(block.length);
            let part = PackedShard {
                start,
                start_time_ms,
                blocks: vec![block],
            };
            index.shards.insert(LogShard(number * 2), part);
        }
        let mut bytes = Vec::new();
        index.encode(&mut bytes);
        assert!(bytes.len() < 24 * 1000, "{} bytes", bytes.len());
    }
}
