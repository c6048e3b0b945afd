//! The body of a *block* in a rewritten segment: records of one shard that lie together, compressed. Pure.
//!
//! ```text
//!  0  u64  log shard
//!  8  u64  counter of the first record
//! 16  u64  time of the first record in milliseconds since 1970
//! 24  u32  number of records
//! 28  u8   how the rest is stored: 0 as it is, 1 zstd
//! 29  u32  bytes of the rest once unpacked
//! 33       pieces, per piece: u64 counter of its first record, the others follow one by one; u64 time of
//!          all of them; u32 number of records; the records as in a run
//! ```

#![warn(
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::arithmetic_side_effects
)]

use std::fmt;
use std::io;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::log::LogShard;
use crate::log::cursor::Cursor;
use crate::log::extent::{Extent, Form};
use crate::log::frame::{self, HEADER_BYTES, Kind, Magic, Place};
use crate::log::records::{Encoded, ReadRecord, RunHead, visit_records};

/// Records are put together up to this size: what a reader of few records must unpack. Twice as much packs
/// hardly better.
const BLOCK_BYTES: usize = if cfg!(test) { 1 << 10 } else { 256 << 10 };
/// What is larger is stored as it is, so that nothing makes a reader unpack more.
const UNPACKED_MAX_BYTES: usize = 64 << 20;
/// The level at which a second of one core packs more than a disk takes, and larger ones gain little.
const LEVEL: i32 = 3;
const HEAD_BYTES: usize = 33;
const PIECE_HEAD_BYTES: usize = 20;
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// Whether rewritten segments are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// With zstd.
    #[default]
    Zstd,
    /// Not at all: for records that are compressed already.
    None,
}

/// Records of one shard that become a block.
#[derive(Debug)]
pub(crate) struct Block {
    shard: LogShard,
    pieces: Vec<u8>,
    count: u32,
    first: u64,
    time_ms: u64,
    /// The piece that is being added to, and where it begins.
    piece: RunHead,
    piece_at: usize,
}

impl Block {
    /// A block that begins with this record.
    pub(crate) fn beginning(shard: LogShard, record: &Encoded<'_>) -> Block {
        let mut block = Block {
            shard,
            pieces: Vec::new(),
            count: 0,
            first: record.counter,
            time_ms: record.time_ms,
            piece: empty_piece(shard, record),
            piece_at: 0,
        };
        block.begin_piece(record);
        block.add(record);
        block
    }

    /// Adds a record that comes after all that are here; `false` if the block has enough without it.
    pub(crate) fn push(&mut self, record: &Encoded<'_>) -> bool {
        let with_it = self.pieces.len().saturating_add(record.bytes.len());
        if with_it > BLOCK_BYTES.saturating_sub(PIECE_HEAD_BYTES) || self.count == u32::MAX {
            return false;
        }
        if record.counter != self.piece.end() || record.time_ms != self.piece.time_ms {
            self.end_piece();
            self.begin_piece(record);
        }
        self.add(record);
        true
    }

    fn begin_piece(&mut self, record: &Encoded<'_>) {
        self.piece = empty_piece(self.shard, record);
        self.piece_at = self.pieces.len();
        self.pieces.extend_from_slice(&[0; PIECE_HEAD_BYTES]);
    }

    fn add(&mut self, record: &Encoded<'_>) {
        self.pieces.extend_from_slice(record.bytes);
        self.piece.count = self.piece.count.saturating_add(1);
        self.count = self.count.saturating_add(1);
    }

    fn end_piece(&mut self) {
        let RunHead {
            first,
            time_ms,
            count,
            ..
        } = self.piece;
        let mut head = Vec::with_capacity(PIECE_HEAD_BYTES);
        head.extend_from_slice(&first.to_be_bytes());
        head.extend_from_slice(&time_ms.to_be_bytes());
        head.extend_from_slice(&count.to_be_bytes());
        let end = self.piece_at.saturating_add(PIECE_HEAD_BYTES);
        if let Some(place) = self.pieces.get_mut(self.piece_at..end) {
            place.copy_from_slice(&head);
        }
    }
}

fn empty_piece(shard: LogShard, record: &Encoded<'_>) -> RunHead {
    RunHead {
        shard,
        first: record.counter,
        time_ms: record.time_ms,
        count: 0,
    }
}

/// Turns blocks into frames.
pub(crate) struct Packer(Option<zstd::bulk::Compressor<'static>>);

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Packer").field(&self.0.is_some()).finish()
    }
}

impl Packer {
    pub(crate) fn new(compression: Compression) -> io::Result<Packer> {
        Ok(Packer(match compression {
            Compression::Zstd => Some(zstd::bulk::Compressor::new(LEVEL)?),
            Compression::None => None,
        }))
    }

    /// The frame of a block, and what an index says of it when it is written at `offset`.
    pub(crate) fn pack(
        &mut self,
        mut block: Block,
        offset: u64,
        (place, magic): (Place, Magic),
    ) -> io::Result<(Vec<u8>, Extent)> {
        block.end_piece();
        let pieces = std::mem::take(&mut block.pieces);
        let too_large = |_| io::Error::other("a record is over 4 GiB");
        let unpacked_bytes = u32::try_from(pieces.len()).map_err(too_large)?;
        let packed = match &mut self.0 {
            Some(compressor) if pieces.len() <= UNPACKED_MAX_BYTES => {
                Some(compressor.compress(&pieces)?)
            }
            _ => None,
        };
        let packed = packed.filter(|packed| packed.len() < pieces.len());
        let (form, stored) = packed.map_or_else(|| (PLAIN, pieces), |packed| (ZSTD, packed));
        let head = RunHead {
            shard: block.shard,
            first: block.first,
            time_ms: block.time_ms,
            count: block.count,
        };
        let body_bytes = HEAD_BYTES.saturating_add(stored.len());
        let frame = frame::single(Kind::Packed, (place, magic), body_bytes, |buffer| {
            head.encode(buffer);
            buffer.push(form);
            buffer.extend_from_slice(&unpacked_bytes.to_be_bytes());
            buffer.extend_from_slice(&stored);
        });
        let extent = Extent {
            first: block.first,
            end: block.piece.end(),
            count: block.count,
            time_ms: block.time_ms,
            last_time_ms: block.piece.time_ms,
            offset,
            length: u32::try_from(HEADER_BYTES.saturating_add(body_bytes)).map_err(too_large)?,
            form: Form::Packed { unpacked_bytes },
        };
        Ok((frame, extent))
    }
}

/// The pieces in a block's frame, which holds its checksum: a slice of it, or unpacked. `None` if it is not the
/// block that the index says.
pub(crate) fn unpack(frame: &Bytes, shard: LogShard, extent: &Extent) -> Option<Bytes> {
    let mut cursor = Cursor::new(frame.get(HEADER_BYTES..)?);
    let found = (cursor.u64()?, cursor.u64()?, cursor.u64()?, cursor.u32()?);
    let form = cursor.u8()?;
    let unpacked_bytes = cursor.u32()?;
    let expected = Form::Packed { unpacked_bytes };
    if found != (shard.0, extent.first, extent.time_ms, extent.count) || extent.form != expected {
        return None;
    }
    let unpacked_bytes = usize::try_from(unpacked_bytes).ok()?;
    let pieces = match form {
        PLAIN => frame.slice_ref(cursor.rest()),
        ZSTD if unpacked_bytes <= UNPACKED_MAX_BYTES => {
            zstd::bulk::decompress(cursor.rest(), unpacked_bytes)
                .ok()?
                .into()
        }
        _ => return None,
    };
    (pieces.len() == unpacked_bytes).then_some(pieces)
}

/// Whose block a frame holds, and what an index would say of it; `None` if it cannot be unpacked.
pub(crate) fn describe(frame: &Bytes, offset: u64) -> Option<(LogShard, Extent)> {
    let mut cursor = Cursor::new(frame.get(HEADER_BYTES..)?);
    let shard = LogShard(cursor.u64()?);
    let (first, time_ms, count) = (cursor.u64()?, cursor.u64()?, cursor.u32()?);
    let _form = cursor.u8()?;
    let mut extent = Extent {
        first,
        end: first,
        count,
        time_ms,
        last_time_ms: time_ms,
        offset,
        length: u32::try_from(frame.len()).ok()?,
        form: Form::Packed {
            unpacked_bytes: cursor.u32()?,
        },
    };
    let pieces = unpack(frame, shard, &extent)?;
    let mut seen = 0_u32;
    let mut cursor = Cursor::new(&pieces);
    while !cursor.rest().is_empty() {
        let head = RunHead {
            shard,
            first: cursor.u64()?,
            time_ms: cursor.u64()?,
            count: cursor.u32()?,
        };
        let _all = visit_records(&mut cursor, &head, &mut |_| ControlFlow::Continue(()))?;
        seen = seen.checked_add(head.count)?;
        (extent.end, extent.last_time_ms) = (head.end(), head.time_ms);
    }
    visit_pieces(&pieces, &extent, |_| ControlFlow::Continue(()))?;
    (seen == count).then_some((shard, extent))
}

/// Shows `visit` each record of a block's pieces until it has seen enough. `None` if they are garbled, or not
/// what the index says.
pub(crate) fn visit_pieces<'a>(
    pieces: &'a [u8],
    extent: &Extent,
    mut visit: impl FnMut(Encoded<'a>) -> ControlFlow<()>,
) -> Option<()> {
    let mut cursor = Cursor::new(pieces);
    let (mut next, mut last_time_ms) = (extent.first, extent.time_ms);
    let mut left = extent.count;
    while !cursor.rest().is_empty() {
        let head = RunHead {
            shard: LogShard(0),
            first: cursor.u64()?,
            time_ms: cursor.u64()?,
            count: cursor.u32()?,
        };
        left = left.checked_sub(head.count)?;
        if head.count == 0 || head.first < next || head.time_ms < last_time_ms {
            return None;
        }
        if visit_records(&mut cursor, &head, &mut visit)?.is_break() {
            return Some(());
        }
        (next, last_time_ms) = (head.end(), head.time_ms);
    }
    let as_said = left == 0 && next == extent.end && last_time_ms == extent.last_time_ms;
    as_said.then_some(())
}

/// Appends the records of a block from counter `from` on that are not older than `not_before_ms`, while `take` says so.
/// `None` if they are garbled.
pub(crate) fn decode_pieces(
    pieces: &Bytes,
    extent: &Extent,
    (from, not_before_ms): (u64, u64),
    records: &mut Vec<ReadRecord>,
    mut take: impl FnMut(&ReadRecord) -> bool,
) -> Option<()> {
    visit_pieces(pieces, extent, |encoded| {
        if encoded.counter < from || encoded.time_ms < not_before_ms {
            return ControlFlow::Continue(());
        }
        let record = ReadRecord::in_bytes(pieces, &encoded);
        if !take(&record) {
            return ControlFlow::Break(());
        }
        records.push(record);
        ControlFlow::Continue(())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
    use super::*;
    use crate::log::RecordBatch;
    use crate::log::records::visit_run;
    use proptest::prelude::*;

    const PLACE: (Place, Magic) = (
        Place {
            segment: 3,
            commit: 4,
            durable: 4,
        },
        Magic::TEST,
    );

    /// Counter, time, key and data of each record.
    type Plain = Vec<(u64, u64, String, Vec<u8>)>;

    fn block(records: &Plain) -> Block {
        let mut block: Option<Block> = None;
        for (counter, time_ms, key, data) in records {
            let mut batch = RecordBatch::new();
            batch.push(key, data);
            let mut body = Vec::new();
            let (first, time_ms) = (*counter, *time_ms);
            RunHead {
                shard: LogShard(7),
                first,
                time_ms,
                count: 1,
            }
            .encode(&mut body);
            body.extend_from_slice(batch.records());
            visit_run(&body, |record| match &mut block {
                Some(block) => assert!(block.push(&record)),
                None => block = Some(Block::beginning(LogShard(7), &record)),
            })
            .unwrap();
        }
        block.unwrap()
    }

    /// What a reader reads: without the padding.
    fn stored(frame: Vec<u8>, extent: &Extent) -> Bytes {
        let length = usize::try_from(extent.length).unwrap();
        Bytes::from(frame).slice(..length)
    }

    fn records() -> impl Strategy<Value = Plain> {
        let record = (
            0u64..3,
            0u64..3,
            "\\PC{0,5}",
            prop::collection::vec(0u8..4, 0..40),
        );
        let records = prop::collection::vec(record, 1..10);
        (0..u64::MAX / 2, 0..u64::MAX / 2, records).prop_map(|(mut next, mut now_ms, records)| {
            let mut plain = Plain::new();
            for (gap, wait, key, data) in records {
                (next, now_ms) = (next + gap, now_ms + wait);
                plain.push((next, now_ms, key, data));
                next += 1;
            }
            plain
        })
    }

    proptest! {
        #[test]
        fn blocks_round_trip(plain in records(), skip in 0usize..40, zstd: bool) {
            let compression = if zstd { Compression::Zstd } else { Compression::None };
            let mut packer = Packer::new(compression).unwrap();
            let (frame, extent) = packer.pack(block(&plain), 64, PLACE).unwrap();
            let frame = stored(frame, &extent);
            let pieces = unpack(&frame, LogShard(7), &extent).unwrap();
            prop_assert_eq!(unpack(&frame, LogShard(8), &extent), None);
            prop_assert_eq!(pieces.len(), extent.memory_bytes());
            let (first, last) = (&plain[0], &plain[plain.len() - 1]);
            prop_assert_eq!((extent.first, extent.time_ms), (first.0, first.1));
            prop_assert_eq!((extent.end, extent.last_time_ms), (last.0 + 1, last.1));
            let from = plain[skip % plain.len()].0;
            let not_before_ms = plain[plain.len() / 2].1;
            let mut read = Vec::new();
            decode_pieces(&pieces, &extent, (from, not_before_ms), &mut read, |_| true).unwrap();
            let read: Plain = read.iter()
                .map(|r| (r.counter, r.time_ms, r.partition_key().to_owned(), r.data().to_vec()))
                .collect();
            let mut expected = plain.clone();
            expected.retain(|record| record.0 >= from && record.1 >= not_before_ms);
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn s9_any_bytes_decode_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), plain in records()) {
            let (frame, extent) = Packer::new(Compression::Zstd).unwrap().pack(block(&plain), 0, PLACE).unwrap();
            let _ = visit_pieces(&bytes, &extent, |_| ControlFlow::Continue(()));
            let mut garbled = frame.clone();
            for (at, byte) in bytes.iter().enumerate() {
                let at = HEADER_BYTES + (at * 7 + usize::from(*byte)) % (garbled.len() - HEADER_BYTES);
                garbled[at] ^= byte;
            }
            if let Some(pieces) = unpack(&stored(garbled, &extent), LogShard(7), &extent) {
                let _ = visit_pieces(&pieces, &extent, |_| ControlFlow::Continue(()));
            }
            let cut = HEADER_BYTES + bytes.len() % (frame.len() - HEADER_BYTES);
            let _ = unpack(&Bytes::from(frame).slice(..cut), LogShard(7), &extent);
        }
    }

    /// A block says how much it unpacks to: more is not unpacked.
    #[test]
    fn s6_no_more_is_unpacked_than_the_block_says() {
        let plain = vec![(1, 1, "k".to_owned(), vec![0; 10_000])];
        let mut packer = Packer::new(Compression::Zstd).unwrap();
        let (mut frame, mut extent) = packer.pack(block(&plain), 0, PLACE).unwrap();
        assert!(frame.len() < 500, "{}", frame.len());
        let at = HEADER_BYTES + 29;
        frame[at..at + 4].copy_from_slice(&5000u32.to_be_bytes());
        extent.form = Form::Packed {
            unpacked_bytes: 5000,
        };
        assert_eq!(unpack(&stored(frame, &extent), LogShard(7), &extent), None);
    }

    /// What does not get smaller is stored as it is, and a record larger than a block is one of its own.
    #[test]
    fn what_does_not_shrink_is_stored_as_it_is() {
        let mut random = fastrand::Rng::with_seed(1);
        let data: Vec<u8> = (0..BLOCK_BYTES * 2).map(|_| random.u8(..)).collect();
        let block = block(&vec![(1, 1, String::new(), data)]);
        let mut packer = Packer::new(Compression::Zstd).unwrap();
        let (frame, extent) = packer.pack(block, 0, PLACE).unwrap();
        assert_eq!(frame[HEADER_BYTES + 28], PLAIN);
        assert!(extent.memory_bytes() > BLOCK_BYTES * 2);
        assert!(unpack(&stored(frame, &extent), LogShard(7), &extent).is_some());
    }
}
