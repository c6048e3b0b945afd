//! The envelope of everything in a segment: header, length, checksum. Pure; knows no bodies.
//!
//! ```text
//!  0  u32  magic: "MSF\x01" for a snapshot, the log's own for all other kinds
//!  4  u32  body length in bytes
//!  8  u32  CRC-32C of bytes 12.. of the header, then the body
//! 12  u8   version = 1
//! 13  u8   kind
//! 14  u16  flags: 1 = the next frame belongs to the same commit
//! 16  u64  segment number
//! 24  u64  commit number
//! 32  u64  durable commit: every commit up to this one was synced before this frame was written
//! 40       body, then zero to the next 8-byte boundary
//! ```
//!
//! Every byte read is hostile. The magic of all kinds but the snapshot is derived from the log's
//! random id, so that record data made to look like a frame is never taken for one.

#![warn(
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::arithmetic_side_effects
)]

use crate::log::cursor::Cursor;

/// Bytes before the body.
pub(crate) const HEADER_BYTES: usize = 40;
/// Frames begin at multiples of this.
pub(crate) const ALIGNMENT: usize = 8;
/// The format version this code writes and reads.
pub(crate) const VERSION: u8 = 1;

const SNAPSHOT_MAGIC: [u8; 4] = *b"MSF\x01";
const CHECKED_FROM: usize = 12;
const SEGMENT_AT: usize = 16;
const FLAG_MORE: u16 = 1;

/// What a frame holds. Tags are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Snapshot,
    Records,
    Transaction,
    Opened,
    Footer,
    Closed,
    Packed,
    PackedFooter,
}

impl Kind {
    fn tag(self) -> u8 {
        match self {
            Kind::Snapshot => 1,
            Kind::Records => 2,
            Kind::Transaction => 3,
            Kind::Opened => 4,
            Kind::Footer => 5,
            Kind::Closed => 6,
            Kind::Packed => 7,
            Kind::PackedFooter => 8,
        }
    }

    fn from_tag(tag: u8) -> Option<Kind> {
        Some(match tag {
            1 => Kind::Snapshot,
            2 => Kind::Records,
            3 => Kind::Transaction,
            4 => Kind::Opened,
            5 => Kind::Footer,
            6 => Kind::Closed,
            7 => Kind::Packed,
            8 => Kind::PackedFooter,
            _ => return None,
        })
    }
}

/// What the frames of one log begin with: derived from its random id, unknown to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Magic([u8; 4]);

impl Magic {
    pub(crate) fn of(log_id: &[u8; 16]) -> Magic {
        Magic(crc32c::crc32c(log_id).to_be_bytes())
    }

    /// What bytes begin with, if a frame begins there.
    pub(crate) fn begun(bytes: &[u8]) -> Option<Magic> {
        Some(Magic(bytes.first_chunk().copied()?))
    }

    #[cfg(test)]
    pub(crate) const TEST: Magic = Magic(*b"test");

    fn for_kind(self, kind: Kind) -> [u8; 4] {
        if kind == Kind::Snapshot {
            SNAPSHOT_MAGIC
        } else {
            self.0
        }
    }

    /// True where a frame other than a snapshot may begin: cheap, before [`decode`] is worth trying.
    pub(crate) fn begins(self, bytes: &[u8]) -> bool {
        bytes.starts_with(&self.0)
    }
}

/// Where a frame without its header lies in buffers that are written one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FramePlace {
    pub(crate) buffer: usize,
    pub(crate) begin: usize,
    /// Without padding, with room for the header.
    pub(crate) length: usize,
    /// Where it begins in all of them.
    pub(crate) at: usize,
}

/// Where a frame stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) commit: u64,
    pub(crate) durable: u64,
}

/// A frame whose checksum holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: Kind,
    pub(crate) place: Place,
    /// The next frame belongs to the same commit.
    pub(crate) more: bool,
    pub(crate) body: &'a [u8],
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("no frame begins here")]
    NotAFrame,
    #[error("the frame goes on past the end")]
    Short,
    #[error("the checksum does not hold")]
    Checksum,
    /// A sound frame that this version cannot read.
    #[error("a sound frame of an unknown version {version} or kind {kind}")]
    Unknown { version: u8, kind: u8 },
}

/// The segment that the header of a frame names, whether the frame holds or not.
pub(crate) fn claimed_segment(bytes: &[u8]) -> Option<u64> {
    let named = bytes.get(SEGMENT_AT..)?.first_chunk()?;
    Some(u64::from_be_bytes(*named))
}

/// Bytes a frame with such a body takes, padding included.
pub(crate) fn frame_bytes(body_bytes: usize) -> usize {
    body_bytes
        .saturating_add(HEADER_BYTES)
        .next_multiple_of(ALIGNMENT)
}

/// Reads the frame at the beginning of `bytes`.
pub(crate) fn decode(bytes: &[u8], magic: Magic) -> Result<Frame<'_>, Fault> {
    let mut cursor = Cursor::new(bytes);
    let found: [u8; 4] = cursor.array().ok_or(Fault::Short)?;
    if found != SNAPSHOT_MAGIC && found != magic.0 {
        return Err(Fault::NotAFrame);
    }
    let body_bytes = cursor
        .u32()
        .and_then(|n| usize::try_from(n).ok())
        .ok_or(Fault::Short)?;
    let crc = cursor.u32().ok_or(Fault::Short)?;
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES).ok_or(Fault::Short)?;
    let body = rest.get(..body_bytes).ok_or(Fault::Short)?;
    let checked = header.get(CHECKED_FROM..).ok_or(Fault::Short)?;
    if crc32c::crc32c_append(crc32c::crc32c(checked), body) != crc {
        return Err(Fault::Checksum);
    }
    let version = cursor.u8().ok_or(Fault::Short)?;
    let tag = cursor.u8().ok_or(Fault::Short)?;
    let flags = cursor.u16().ok_or(Fault::Short)?;
    let unknown = Fault::Unknown { version, kind: tag };
    let kind = Kind::from_tag(tag)
        .filter(|_| version == VERSION)
        .ok_or(unknown)?;
    if flags & !FLAG_MORE != 0 {
        return Err(unknown);
    }
    if found != magic.for_kind(kind) {
        return Err(Fault::NotAFrame);
    }
    let place = Place {
        segment: cursor.u64().ok_or(Fault::Short)?,
        commit: cursor.u64().ok_or(Fault::Short)?,
        durable: cursor.u64().ok_or(Fault::Short)?,
    };
    Ok(Frame {
        kind,
        place,
        more: flags & FLAG_MORE != 0,
        body,
    })
}

/// The frames of one commit, in buffers that are written one after the other. Headers are filled in by
/// [`Frames::finish`], when the segment is known and which frame is the last.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// Buffers that nothing more is appended to, and their bytes.
    full: Vec<Vec<u8>>,
    full_bytes: usize,
    /// What is appended to.
    buffer: Vec<u8>,
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    kind: Kind,
    /// Which buffer, and where in it.
    buffer: usize,
    at: usize,
    body_bytes: usize,
}

impl Frames {
    /// Makes room for so many bytes of frames that are appended.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.buffer.reserve_exact(bytes);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Appends a frame whose body `write` appends to the buffer. Gives where the frame begins and
    /// how long it is without padding.
    pub(crate) fn push(&mut self, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) -> (usize, usize) {
        let at = self.buffer.len();
        let body_at = at.saturating_add(HEADER_BYTES);
        self.buffer.resize(body_at, 0);
        write(&mut self.buffer);
        assert!(self.buffer.len() >= body_at, "a body is only ever appended");
        let body_bytes = self.buffer.len().saturating_sub(body_at);
        pad(&mut self.buffer);
        self.open.push(Open {
            kind,
            buffer: self.full.len(),
            at,
            body_bytes,
        });
        let begins = self.full_bytes.saturating_add(at);
        (begins, body_bytes.saturating_add(HEADER_BYTES))
    }

    /// Takes buffers of padded frames that lack nothing but their headers, for which they have room. Gives where the first begins.
    pub(crate) fn push_whole(
        &mut self,
        kind: Kind,
        buffers: Vec<Vec<u8>>,
        places: impl Iterator<Item = FramePlace>,
    ) -> usize {
        self.end_buffer();
        let first = self.full.len();
        self.open.extend(places.map(|place| {
            assert!(place.length >= HEADER_BYTES, "there is room for the header");
            Open {
                kind,
                buffer: first.saturating_add(place.buffer),
                at: place.begin,
                body_bytes: place.length.saturating_sub(HEADER_BYTES),
            }
        }));
        let begins = self.full_bytes;
        let bytes = buffers.iter().map(Vec::len);
        self.full_bytes = bytes.fold(begins, usize::saturating_add);
        self.full.extend(buffers);
        begins
    }

    fn end_buffer(&mut self) {
        if !self.buffer.is_empty() {
            self.full_bytes = self.full_bytes.saturating_add(self.buffer.len());
            self.full.push(std::mem::take(&mut self.buffer));
        }
    }

    /// Fills in every header, and gives the buffers.
    pub(crate) fn finish(mut self, place: Place, magic: Magic) -> Vec<Vec<u8>> {
        self.end_buffer();
        let last = self.open.len().saturating_sub(1);
        for (number, open) in self.open.iter().enumerate() {
            let flags = if number < last { FLAG_MORE } else { 0 };
            let Some(buffer) = self.full.get_mut(open.buffer) else {
                unreachable!("a frame is in a buffer that was kept");
            };
            fill_header(buffer, open, flags, place, magic);
        }
        self.full.iter_mut().for_each(shrink);
        self.full
    }
}

/// One frame that is a commit of its own. `body_bytes`: what `write` appends, about.
pub(crate) fn single(
    kind: Kind,
    (place, magic): (Place, Magic),
    body_bytes: usize,
    write: impl FnOnce(&mut Vec<u8>),
) -> Vec<u8> {
    let mut frames = Frames::default();
    frames.reserve(frame_bytes(body_bytes));
    frames.push(kind, write);
    let buffers = frames.finish(place, magic);
    buffers.into_iter().next().unwrap_or_default()
}

/// Gives back room that is not needed: what is cached later is counted by its length.
pub(crate) fn shrink(buffer: &mut Vec<u8>) {
    if buffer.capacity().saturating_sub(buffer.len()) > buffer.len() / 8 {
        buffer.shrink_to_fit();
    }
}

fn pad(buffer: &mut Vec<u8>) {
    buffer.resize(buffer.len().next_multiple_of(ALIGNMENT), 0);
}

fn fill_header(buffer: &mut [u8], open: &Open, flags: u16, place: Place, magic: Magic) {
    let Ok(body_bytes) = u32::try_from(open.body_bytes) else {
        unreachable!("a body is below 4 GiB: entries are bounded by the queue");
    };
    let Some(frame) = buffer.get_mut(open.at..) else {
        unreachable!("a frame begins inside the buffer it was pushed to");
    };
    let (head, rest) = frame.split_at_mut(HEADER_BYTES);
    let Some(body) = rest.get(..open.body_bytes) else {
        unreachable!("a frame ends inside the buffer it was pushed to");
    };
    let (envelope, checked) = head.split_at_mut(CHECKED_FROM);
    let (flags, [segment, commit, durable]) = (
        flags.to_be_bytes(),
        [place.segment, place.commit, place.durable].map(u64::to_be_bytes),
    );
    fill(
        checked,
        &[
            &[VERSION, open.kind.tag()],
            &flags,
            &segment,
            &commit,
            &durable,
        ],
    );
    let crc = crc32c::crc32c_append(crc32c::crc32c(checked), body).to_be_bytes();
    let kind = magic.for_kind(open.kind);
    fill(envelope, &[&kind, &body_bytes.to_be_bytes(), &crc]);
}

/// Fills `target` with parts that make up its length.
fn fill(mut target: &mut [u8], parts: &[&[u8]]) {
    for part in parts {
        let Some((head, rest)) = target.split_at_mut_checked(part.len()) else {
            unreachable!("a header is as long as its parts");
        };
        head.copy_from_slice(part);
        target = rest;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
    use super::*;
    use proptest::prelude::*;

    const MAGIC: Magic = Magic(*b"ours");

    fn one(kind: Kind, body: &[u8]) -> Vec<u8> {
        let place = Place {
            segment: 3,
            commit: 9,
            durable: 8,
        };
        single(kind, (place, MAGIC), body.len(), |buffer| {
            buffer.extend_from_slice(body);
        })
    }

    #[test]
    fn s8_every_flipped_bit_of_a_frame_is_noticed() {
        let sound = one(Kind::Records, b"some bytes");
        let padding = HEADER_BYTES + 10;
        for bit in 0..sound.len() * 8 {
            let mut flipped = sound.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                decode(&flipped, MAGIC).is_ok(),
                bit / 8 >= padding,
                "bit {bit}"
            );
        }
    }

    #[test]
    fn s8_a_frame_of_another_log_is_not_taken_for_ours() {
        let other = one(Kind::Records, b"some bytes");
        assert_eq!(decode(&other, Magic(*b"else")), Err(Fault::NotAFrame));
        // The snapshot is read before the log is known.
        assert!(decode(&one(Kind::Snapshot, b"x"), Magic(*b"else")).is_ok());
    }

    /// What is cached is counted by its length.
    #[test]
    fn s6_a_commit_takes_no_more_memory_than_its_bytes() {
        let mut frames = Frames::default();
        frames.reserve(100_000);
        frames.push(Kind::Records, |buffer| {
            buffer.extend_from_slice(&[7; 5_000]);
        });
        let mut whole = Vec::with_capacity(100_000);
        whole.resize(7_000, 7);
        let place = |begin, length| FramePlace {
            buffer: 0,
            begin,
            length,
            at: begin,
        };
        let places = [place(0, HEADER_BYTES + 9), place(HEADER_BYTES + 16, 3_000)];
        frames.push_whole(Kind::Records, vec![whole], places.into_iter());
        let place = Place {
            segment: 1,
            commit: 2,
            durable: 1,
        };
        let buffers = frames.finish(place, MAGIC);
        assert_eq!(buffers.len(), 2);
        for bytes in buffers {
            assert!(
                bytes.capacity() <= bytes.len() * 9 / 8,
                "{}",
                bytes.capacity()
            );
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = one(Kind::Records, b"body");
        bytes[12] = 2;
        let crc = crc32c::crc32c(&bytes[12..HEADER_BYTES + 4]);
        bytes[8..12].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(
            decode(&bytes, MAGIC),
            Err(Fault::Unknown {
                version: 2,
                kind: 2
            })
        );
    }

    proptest! {
        #[test]
        fn frames_round_trip(
            bodies in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..50)), 1..7),
        ) {
            let mut frames = Frames::default();
            let places: Vec<_> = bodies.iter()
                .map(|(is_whole, body)| if *is_whole {
                    let mut frame = [&[0; HEADER_BYTES][..], body].concat();
                    let length = frame.len();
                    pad(&mut frame);
                    let place = FramePlace { buffer: 0, begin: 0, length, at: 0 };
                    (frames.push_whole(Kind::Records, vec![frame], [place].into_iter()), length)
                } else {
                    frames.push(Kind::Records, |buffer| buffer.extend_from_slice(body))
                })
                .collect();
            let place = Place { segment: 1, commit: 2, durable: 1 };
            let bytes = frames.finish(place, MAGIC).concat();
            for (number, ((at, length), (_, body))) in places.iter().zip(&bodies).enumerate() {
                prop_assert_eq!(at % ALIGNMENT, 0);
                let frame = decode(&bytes[*at..at + length], MAGIC).unwrap();
                let more = number + 1 < bodies.len();
                prop_assert_eq!(frame, Frame { kind: Kind::Records, place, more, body });
            }
        }

        #[test]
        fn s9_any_bytes_decode_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), magic: bool) {
            if magic && bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&MAGIC.0);
            }
            prop_assert!(decode(&bytes, MAGIC).is_err());
        }
    }
}
