//! What there is in the bytes of a segment, whole or not: every frame that holds, and what lies between. Pure; knows no
//! bodies and draws no conclusions.

use std::ops::Range;

use crate::log::Error;
use crate::log::frame::{self, ALIGNMENT, Fault, Frame, HEADER_BYTES, Magic, frame_bytes};
use crate::log::recovery::written_end;
use crate::log::segment;

/// Bytes that are no frame of this segment, although one should be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) at: usize,
    pub(crate) end: usize,
    pub(crate) fault: HoleFault,
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HoleFault {
    #[error(transparent)]
    Frame(#[from] Fault),
    #[error("the frame here is of segment {0}")]
    OfSegment(u64),
}

/// A segment's frames in order, and its holes.
#[derive(Debug, Default)]
pub(crate) struct Survey<'a> {
    pub(crate) frames: Vec<(usize, Frame<'a>)>,
    /// Frames that hold come after each of these.
    pub(crate) holes: Vec<Hole>,
    /// What is written after the last frame.
    pub(crate) tail: Option<Hole>,
    /// The tail has nothing of this segment, and frames that an earlier one left in the file.
    pub(crate) is_left: bool,
    /// Where padding is not zero; it covers nothing.
    pub(crate) padding: Vec<(usize, usize)>,
    /// Another segment's number in a frame that holds.
    pub(crate) other: Option<u64>,
}

/// Looks through all of it.
pub(crate) fn survey(bytes: &[u8], magic: Magic, number: u64) -> Result<Survey<'_>, Error> {
    let mut survey = Survey::default();
    let written = bytes.get(..written_end(bytes)).unwrap_or_default();
    let end = written.iter().rposition(|byte| *byte != 0);
    let end = end.map_or(0, |last| last + 1);
    let mut at = 0;
    while at < end {
        let fault = match frame_at(bytes, at, magic, number) {
            Ok(frame) => {
                let padding = at + HEADER_BYTES + frame.body.len();
                let next = (at + frame_bytes(frame.body.len())).min(bytes.len());
                let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
                if !bytes.get(padding..next).is_none_or(is_zero) {
                    survey.padding.push((padding, next));
                }
                survey.frames.push((at, frame));
                at = next;
                continue;
            }
            Err(HoleFault::Frame(fault @ Fault::Unknown { .. })) => {
                return Err(segment::newer(number, fault));
            }
            Err(fault) => fault,
        };
        if let HoleFault::OfSegment(other) = fault {
            survey.other.get_or_insert(other);
        }
        let mut candidates = (at + ALIGNMENT..end).step_by(ALIGNMENT);
        let begins = |at: &usize| {
            let bytes = bytes.get(*at..).unwrap_or_default();
            magic.begins(bytes) && frame_at(bytes, 0, magic, number).is_ok()
        };
        let Some(next) = candidates.find(begins) else {
            let left = left_from(bytes, at..end, magic, number);
            survey.is_left = left.is_some();
            let end = left.unwrap_or(end);
            survey.tail = Some(Hole { at, end, fault });
            break;
        };
        let hole = Hole {
            at,
            end: next,
            fault,
        };
        survey.holes.push(hole);
        at = next;
    }
    Ok(survey)
}

/// Where the first frame begins that an earlier segment left in the file, if none of this segment does.
fn left_from(bytes: &[u8], tail: Range<usize>, magic: Magic, number: u64) -> Option<usize> {
    let mut left = None;
    for at in tail.step_by(ALIGNMENT) {
        let bytes = bytes.get(at..).unwrap_or_default();
        if !magic.begins(bytes) {
            continue;
        }
        match frame::claimed_segment(bytes) {
            Some(claimed) if (1..number).contains(&claimed) => left = left.or(Some(at)),
            // Of this segment, or a header that did not arrive as a whole.
            _ => return None,
        }
    }
    left
}

fn frame_at(bytes: &[u8], at: usize, magic: Magic, number: u64) -> Result<Frame<'_>, HoleFault> {
    let frame = frame::decode(bytes.get(at..).unwrap_or_default(), magic)?;
    if frame.place.segment == number {
        Ok(frame)
    } else {
        Err(HoleFault::OfSegment(frame.place.segment))
    }
}
