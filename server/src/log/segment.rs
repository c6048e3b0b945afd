//! Segment files: their names, sealing, footers. Knows what a segment begins and ends with, not what is in between.

use std::io;
use std::sync::Arc;

use crate::log::Error;
use crate::log::disk::{Disk, DiskFile};
use crate::log::entry::{TRAILER_BYTES, decode_trailer, encode_trailer};
use crate::log::extent::Index;
use crate::log::frame::{self, Fault, Kind, Magic, Place};
use crate::log::index::Sealed;
use crate::log::packed_index::PackedIndex;
use crate::log::segment_index::SegmentIndex;

/// The next segment, before it has a number.
pub(crate) const SPARE: &str = "spare.segment";
/// A segment made to measure for a commit that fits in no ordinary one.
pub(crate) const LARGE: &str = "large.segment";
/// A segment that is being rewritten, before it replaces the old one.
pub(crate) const REWRITE: &str = "rewrite.segment";
/// The file of a segment that was rewritten or removed, before it becomes the next one.
pub(crate) const RECYCLED: &str = "recycled.segment";
/// Names that never outlive the process that gave them.
pub(crate) const PASSING: [&str; 4] = [SPARE, LARGE, REWRITE, RECYCLED];

/// The file name of a segment.
pub(crate) fn name(segment: u64) -> String {
    format!("{segment:016}.segment")
}

/// The number in a file name; `None` for any other file.
pub(crate) fn number(file_name: &str) -> Option<u64> {
    let number = file_name.strip_suffix(".segment")?.parse().ok()?;
    // Sixteen digits leave room to count on.
    let sound = file_name.len() == name(0).len() && name(number) == file_name;
    sound.then_some(number)
}

/// The end of a segment whose footer lies at `footer_at`: footer frame and trailer.
pub(crate) fn footer(footer_at: u64, index: &SegmentIndex, place: Place, magic: Magic) -> Vec<u8> {
    let body_bytes = index.len_bytes_with(0, 0) + TRAILER_BYTES;
    let encode = |buffer: &mut Vec<u8>| index.encode(buffer);
    let mut bytes = frame::single(Kind::Footer, (place, magic), body_bytes, encode);
    bytes.extend_from_slice(&encode_trailer(footer_at));
    bytes
}

/// The end of a rewritten segment whose footer lies at `footer_at`.
pub(crate) fn packed_footer(
    footer_at: u64,
    index: &PackedIndex,
    place: Place,
    magic: Magic,
) -> Vec<u8> {
    let encode = |buffer: &mut Vec<u8>| index.encode(buffer);
    let mut bytes = frame::single(Kind::PackedFooter, (place, magic), 0, encode);
    bytes.extend_from_slice(&encode_trailer(footer_at));
    bytes
}

/// Writes a [`footer`], cuts what was laid out behind it, and syncs.
pub(crate) fn seal(file: &dyn DiskFile, footer_at: u64, footer: Vec<u8>) -> io::Result<()> {
    let end = footer_at + as_u64(footer.len());
    file.write_last(&[footer.into()], footer_at)?;
    file.truncate(end)
}

/// A sealed segment's footer, and where in the log it was written.
#[derive(Debug)]
pub(crate) struct Footer {
    pub(crate) index: Index,
    pub(crate) place: Place,
}

/// Reads a sealed segment's footer.
pub(crate) fn read_footer(
    file: &dyn DiskFile,
    segment: u64,
    magic: Magic,
) -> Result<Footer, Error> {
    let io = |source| Error::io("reading the footer", &name(segment), source);
    let length = file.len_bytes().map_err(io)?;
    let trailer_at = length.checked_sub(as_u64(TRAILER_BYTES));
    let trailer_at =
        trailer_at.ok_or_else(|| Error::corrupt(segment, 0, "it is too short for a trailer"))?;
    let mut trailer = [0; TRAILER_BYTES];
    file.read_at(&mut trailer, trailer_at).map_err(io)?;
    let footer_at = decode_trailer(&trailer).filter(|at| *at < trailer_at);
    let footer_at = footer_at
        .ok_or_else(|| Error::corrupt(segment, trailer_at, "the trailer does not hold"))?;
    let corrupt = |reason: String| Error::corrupt(segment, footer_at, reason);
    let mut bytes = vec![0; usize::try_from(trailer_at - footer_at).unwrap_or(usize::MAX)];
    file.read_at(&mut bytes, footer_at).map_err(io)?;
    let frame = frame::decode(&bytes, magic).map_err(|fault| match fault {
        Fault::Unknown { .. } => newer(segment, fault),
        _ => corrupt(fault.to_string()),
    })?;
    let index = match frame.kind {
        _ if frame.place.segment != segment => None,
        Kind::Footer => Some(SegmentIndex::decode(frame.body).map(Index::Runs)),
        Kind::PackedFooter => Some(PackedIndex::decode(frame.body, footer_at).map(Index::Packed)),
        _ => None,
    };
    let astray = || corrupt("the trailer does not lead to this segment's footer".to_owned());
    let garbled = || corrupt("the footer cannot be understood".to_owned());
    Ok(Footer {
        index: index.ok_or_else(astray)?.ok_or_else(garbled)?,
        place: frame.place,
    })
}

/// Opens a file.
pub(crate) fn open(disk: &dyn Disk, name: &str) -> Result<Arc<dyn DiskFile>, Error> {
    disk.open(name)
        .map_err(|source| Error::io("opening", name, source))
}

/// A sealed segment and the place of its footer, from a file that may not bear the segment's number yet.
pub(crate) fn load(
    file: Arc<dyn DiskFile>,
    number: u64,
    magic: Magic,
) -> Result<(Sealed, Place), Error> {
    let Footer { index, place } = read_footer(file.as_ref(), number, magic)?;
    let segment = Sealed {
        number,
        file,
        index,
    };
    Ok((segment, place))
}

/// A sound frame that only a newer version can read.
pub(crate) fn newer(segment: u64, fault: Fault) -> Error {
    let known = format!("frame version {}", frame::VERSION);
    Error::NewerFormat {
        name: name(segment),
        found: fault.to_string(),
        known,
    }
}

pub(crate) fn as_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_other_files() {
        assert_eq!(name(7), "0000000000000007.segment");
        assert_eq!(number("0000000000000007.segment"), Some(7));
        for other in [
            SPARE,
            LARGE,
            REWRITE,
            "7.segment",
            "+000000000000007.segment",
            "18446744073709551615.segment",
            "FORMAT",
        ] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
