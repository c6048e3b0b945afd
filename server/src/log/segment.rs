//! Segment files: their names, the spare laid out ahead, sealing. Knows what a segment begins and
//! ends with, not what is in between.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::log::Error;
use crate::log::disk::{Disk, DiskFile};
use crate::log::entry::{SegmentIndex, TRAILER_BYTES, decode_trailer, encode_trailer};
use crate::log::extent::Index;
use crate::log::frame::{self, Fault, Kind, Magic, Place};
use crate::log::index::Sealed;
use crate::log::packed_index::PackedIndex;

/// The next segment, before it has a number.
pub(crate) const SPARE: &str = "spare.segment";
/// A segment made to measure for a commit that fits in no ordinary one.
pub(crate) const LARGE: &str = "large.segment";
/// A segment that is being rewritten, before it replaces the old one.
pub(crate) const REWRITE: &str = "rewrite.segment";

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
pub(crate) fn seal(file: &dyn DiskFile, footer_at: u64, footer: &[u8]) -> io::Result<()> {
    file.write_at(footer, footer_at)?;
    file.truncate(footer_at + as_u64(footer.len()))
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

/// A sealed segment and the place of its footer, from a file that may not bear the segment's number yet.
pub(crate) fn load(
    disk: &dyn Disk,
    number: u64,
    name: &str,
    magic: Magic,
) -> Result<(Sealed, Place), Error> {
    let file = disk
        .open(name)
        .map_err(|source| Error::io("opening", name, source))?;
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

/// Lays the next segment out in a thread of its own, so that no commit waits for it.
#[derive(Debug)]
pub(crate) struct Spare {
    shared: Arc<SpareShared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct SpareShared {
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    state: Mutex<SpareState>,
    changed: Condvar,
}

#[derive(Debug)]
enum SpareState {
    Idle,
    Wanted,
    Ready(Arc<dyn DiskFile>),
    Failed(Arc<io::Error>),
    Stopped,
}

impl Spare {
    /// Starts the thread, which lays out a spare once one is wanted.
    pub(crate) fn start(disk: Arc<dyn Disk>, segment_bytes: u64) -> io::Result<Spare> {
        let state = Mutex::new(SpareState::Idle);
        let shared = Arc::new(SpareShared {
            disk,
            segment_bytes,
            state,
            changed: Condvar::new(),
        });
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("log-spare".to_owned())
            .spawn(move || worker.run())?;
        Ok(Spare {
            shared,
            thread: Some(thread),
        })
    }

    /// Asks for a spare ahead of its need.
    pub(crate) fn want(&self) {
        let mut state = self.shared.lock();
        if matches!(*state, SpareState::Idle | SpareState::Failed(_)) {
            *state = SpareState::Wanted;
            self.shared.changed.notify_all();
        }
    }

    /// The spare, of at least `need_bytes`, and the name it has. Waits for it if it must; a failure
    /// to lay it out is tried anew by the next call.
    pub(crate) fn take(&self, need_bytes: u64) -> Result<(Arc<dyn DiskFile>, &'static str), Error> {
        if need_bytes > self.shared.segment_bytes {
            let made = self.shared.disk.create(LARGE, need_bytes);
            return made
                .map(|file| (file, LARGE))
                .map_err(|source| refused(need_bytes, Arc::new(source)));
        }
        self.want();
        let mut state = self.shared.lock();
        loop {
            match std::mem::replace(&mut *state, SpareState::Idle) {
                SpareState::Ready(file) => return Ok((file, SPARE)),
                SpareState::Failed(source) => {
                    return Err(refused(self.shared.segment_bytes, source));
                }
                SpareState::Stopped => {
                    *state = SpareState::Stopped;
                    return Err(Error::Closed);
                }
                waiting => *state = waiting,
            }
            state = self
                .shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

pub(crate) fn refused(segment_bytes: u64, source: Arc<io::Error>) -> Error {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace {
            segment_bytes,
            source,
        },
        _ => Error::Io {
            operation: "laying out",
            name: SPARE.to_owned(),
            source,
        },
    }
}

impl SpareShared {
    fn lock(&self) -> MutexGuard<'_, SpareState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            match *state {
                SpareState::Stopped => return,
                SpareState::Wanted => {
                    drop(state);
                    let made = self.disk.create(SPARE, self.segment_bytes);
                    state = self.lock();
                    if matches!(*state, SpareState::Stopped) {
                        return;
                    }
                    *state = match made {
                        Ok(file) => SpareState::Ready(file),
                        Err(error) => SpareState::Failed(Arc::new(error)),
                    };
                    self.changed.notify_all();
                }
                SpareState::Idle | SpareState::Ready(_) | SpareState::Failed(_) => {
                    state = self
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        *self.shared.lock() = SpareState::Stopped;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the runtime; nothing depends on the thread now.
            let _ = thread.join();
        }
    }
}

pub(crate) fn as_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::memory_disk::MemoryDisk;

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

    #[test]
    fn a_spare_that_could_not_be_laid_out_is_tried_again() {
        let disk = MemoryDisk::new();
        disk.set_capacity(Some(100));
        let spare = Spare::start(Arc::new(disk.clone()), 200).unwrap();
        assert!(matches!(
            spare.take(10),
            Err(Error::NoSpace {
                segment_bytes: 200,
                ..
            })
        ));
        disk.set_capacity(None);
        let (file, name) = spare.take(10).unwrap();
        assert_eq!((file.len_bytes().unwrap(), name), (200, SPARE));
        let (file, name) = spare.take(201).unwrap();
        assert_eq!((file.len_bytes().unwrap(), name), (201, LARGE));
    }
}
