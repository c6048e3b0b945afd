//! How commits, snapshots and footers are written: as whole pages, so that none has to be read first, and large ones past the page
//! cache. A page of that costs more than writing what is in it, where the machine must first find one that is free; and what a commit
//! holds stays in the tail cache for who follows, what the others hold is in memory.
//!
//! A commit that ends inside a page fills it with zeros, and the next one writes that page anew, with what was in it before.
//! Where nothing was written yet, because room was only reserved, a small commit writes zeros further ahead: those that follow are
//! then synced faster.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::fs::{Advice, OFlags, SeekFrom, fadvise, seek};
use rustix::io::Errno;

use crate::log::lay_out::{self, PAGE_BYTES, zeros};
use crate::log::segment::as_u64;

/// Less than this is as fast through the page cache, and stays there for whoever reads it.
pub(crate) const LARGE_BYTES: usize = 128 << 10;
/// A small commit that comes to where nothing was written yet writes up to the next multiple of this.
const AHEAD_BYTES: u64 = lay_out::STEP_BYTES as u64;
/// What is written past the page cache at a time, at most.
const STEP_BYTES: usize = 1 << 20;
/// Pieces of one write, as many as Linux takes.
const PIECES_MAX: usize = 1024;

/// Where steps are put together, at a multiple of a page: the files of a disk share one, since one is written at a time.
#[derive(Debug, Default, Clone)]
pub(crate) struct StepBuffer(Arc<Mutex<Vec<u8>>>);

/// Writes commits into one file.
#[derive(Debug)]
pub(crate) struct CommitWriter {
    buffer: StepBuffer,
    /// The way past the page cache.
    way: Way,
    /// What the last commit left in the page it ended in, and where that was.
    begun: Vec<u8>,
    end: Option<u64>,
    /// Up to where the file has been written out, or is as long as it will be; once it is known.
    written: Option<u64>,
}

#[derive(Debug)]
enum Way {
    /// It is opened when it is first taken.
    Closed,
    Open(File),
    /// The system or the file system has none.
    Missing,
}

impl CommitWriter {
    pub(crate) fn new(buffer: &StepBuffer) -> CommitWriter {
        CommitWriter {
            buffer: buffer.clone(),
            way: Way::Closed,
            begun: Vec::new(),
            end: None,
            written: None,
        }
    }

    /// Writes a commit, and zeros to the end of the page it ends in, or further where nothing was written yet.
    ///
    /// # Errors
    /// Whatever the system refuses. Some of the commit may have been written then.
    pub(crate) fn write(&mut self, file: &File, commit: &[Bytes], offset: u64) -> io::Result<()> {
        let mut begun = self.begun_page(file, offset)?;
        let start = offset - as_u64(begun.len());
        let len: usize = commit.iter().map(Bytes::len).sum();
        let end = offset + as_u64(len);
        let padded = self.padded_end(file, end, len)?;
        let mut pieces = Pieces(vec![zeros(padded - end)]);
        pieces.0.extend(commit.iter().rev().map(AsRef::as_ref));
        pieces.0.push(&begun);
        pieces.0.retain(|piece| !piece.is_empty());
        if padded - start < as_u64(LARGE_BYTES) {
            write_pieces(file, &pieces, start)?;
        } else {
            self.write_direct(file, pieces, start)?;
        }
        self.written = self.written.map(|written| written.max(padded));
        keep_last_page(&mut begun, commit, end);
        (self.begun, self.end) = (begun, Some(end));
        Ok(())
    }

    /// How far zeros are written behind a commit: by less than [`AHEAD_BYTES`], which are at hand.
    fn padded_end(&mut self, file: &File, end: u64, len: usize) -> io::Result<u64> {
        let page_end = end.next_multiple_of(as_u64(PAGE_BYTES));
        let written = match self.written {
            Some(written) => written,
            // Room that was reserved is a hole to this question; where it is not known everything is written, or so it seems.
            None => seek(file, SeekFrom::Hole(end)).unwrap_or(u64::MAX),
        };
        self.written = Some(written);
        if page_end <= written || len >= LARGE_BYTES {
            return Ok(page_end);
        }
        let ahead = end.next_multiple_of(AHEAD_BYTES);
        Ok(ahead.min(file.metadata()?.len()).max(page_end))
    }

    /// Somebody else writes into the file.
    pub(crate) fn forget(&mut self) {
        self.end = None;
    }

    /// Nothing is written into the file any more: those who read it may read ahead.
    pub(crate) fn complete(&mut self, file: &File) {
        *self = CommitWriter::new(&self.buffer);
        // Advice: without it reading is slower, no more.
        let _ = fadvise(file, 0, None, Advice::Normal);
    }

    /// What lies before this place in its page.
    fn begun_page(&mut self, file: &File, offset: u64) -> io::Result<Vec<u8>> {
        if self.end == Some(offset) {
            // Not known until this commit is written.
            self.end = None;
            return Ok(std::mem::take(&mut self.begun));
        }
        let inside = offset % as_u64(PAGE_BYTES);
        let mut begun = vec![0; usize::try_from(inside).unwrap_or_default()];
        file.read_exact_at(&mut begun, offset - inside)?;
        Ok(begun)
    }

    /// Writes whole pages. What the file system does not take past the page cache goes through it.
    fn write_direct(&mut self, file: &File, mut pieces: Pieces<'_>, mut at: u64) -> io::Result<()> {
        if let Way::Closed = self.way {
            self.way = open(file).map_or(Way::Missing, Way::Open);
        }
        let mut buffer = self.buffer.0.lock().unwrap_or_else(PoisonError::into_inner);
        buffer.resize(STEP_BYTES + PAGE_BYTES, 0);
        let aligned = buffer.as_ptr().align_offset(PAGE_BYTES);
        let buffer = &mut buffer[aligned..][..STEP_BYTES];
        loop {
            let filled = pieces.move_to(buffer);
            let step = &buffer[..filled];
            if step.is_empty() {
                return Ok(());
            }
            let written = match &self.way {
                Way::Open(direct) => write_some(direct, step, at)?,
                Way::Closed | Way::Missing => 0,
            };
            file.write_all_at(&step[written..], at + as_u64(written))?;
            at += as_u64(filled);
        }
    }
}

/// The same file, whatever its name is by now.
fn open(file: &File) -> Option<File> {
    // Reading ahead would bring in pages that are about to be written behind the page cache's back.
    fadvise(file, 0, None, Advice::Random).ok()?;
    let mut options = OpenOptions::new();
    options.write(true);
    options.custom_flags(OFlags::DIRECT.bits().cast_signed());
    options
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .ok()
}

/// Writes from the front, as far as the file system takes it.
fn write_some(direct: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
    match direct.write_at(bytes, at) {
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::INTR | Errno::INVAL) => Ok(0),
            _ => Err(error),
        },
        written => written,
    }
}

/// Writes these bytes one after the other, through the page cache.
fn write_pieces(file: &File, pieces: &Pieces<'_>, mut at: u64) -> io::Result<()> {
    let mut slices: Vec<_> = pieces
        .0
        .iter()
        .rev()
        .map(|piece| IoSlice::new(piece))
        .collect();
    let mut left = slices.as_mut_slice();
    while !left.is_empty() {
        let some = left.get(..PIECES_MAX).unwrap_or(left);
        match rustix::io::pwritev(file, some, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut left, written);
                at += as_u64(written);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Makes of what was in the page where a commit began what is in the one where it ends.
fn keep_last_page(begun: &mut Vec<u8>, commit: &[Bytes], end: u64) {
    let inside = usize::try_from(end % as_u64(PAGE_BYTES)).unwrap_or_default();
    let len: usize = commit.iter().map(Bytes::len).sum();
    if inside < len {
        begun.clear();
    }
    // Of the commit, its last bytes: as many as are missing.
    let mut skipped = len - (inside - begun.len());
    for piece in commit {
        let (passed, kept) = piece.split_at(skipped.min(piece.len()));
        skipped -= passed.len();
        begun.extend_from_slice(kept);
    }
}

/// Bytes that lie in pieces, none of them empty; the last piece comes first.
#[derive(Debug)]
struct Pieces<'a>(Vec<&'a [u8]>);

impl Pieces<'_> {
    /// Fills a buffer with the next bytes, and gives how many there were.
    fn move_to(&mut self, buffer: &mut [u8]) -> usize {
        let mut filled = 0;
        while let Some(piece) = self.0.last_mut().filter(|_| filled < buffer.len()) {
            let (moved, left) = piece.split_at(piece.len().min(buffer.len() - filled));
            buffer[filled..][..moved.len()].copy_from_slice(moved);
            filled += moved.len();
            *piece = left;
            if left.is_empty() {
                self.0.pop();
            }
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::log::disk::{Disk, RealDisk};

    const FILE_BYTES: u64 = 8 << 20;

    /// A disk as the machine's file system has it, and one in memory where there is one.
    fn disks() -> Vec<(tempfile::TempDir, RealDisk)> {
        let here = tempfile::tempdir().unwrap();
        let in_memory = tempfile::tempdir_in("/dev/shm").ok();
        [Some(here), in_memory]
            .into_iter()
            .flatten()
            .map(|directory| {
                let disk = RealDisk::open(directory.path()).unwrap();
                (directory, disk)
            })
            .collect()
    }

    /// Bytes that say where in the file they lie.
    fn bytes_at(at: u64, len: usize) -> Bytes {
        let byte = |at: u64| u8::try_from(at % 251).unwrap() + 1;
        (at..).take(len).map(byte).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Goal: however a commit is divided into pieces, and wherever it begins, it is in the file as a whole, with zeros to the
        /// end of its page, and what lay before it is untouched. Method: commits one behind the other, each read back with all before it.
        #[test]
        fn commits_lie_one_behind_the_other(
            start in 0_u64..5000,
            is_reserved: bool,
            commits in prop::collection::vec(prop::collection::vec(
                prop_oneof![0_usize..20, 0_usize..9000, 100_000_usize..400_000], 1..5), 1..6),
        ) {
            for (_directory, disk) in disks() {
                let file = if is_reserved {
                    disk.reserve("spare.segment", FILE_BYTES).unwrap()
                } else {
                    disk.create("spare.segment", FILE_BYTES).unwrap()
                };
                let mut end = start;
                for lengths in &commits {
                    let from = end;
                    let mut pieces = Vec::new();
                    for len in lengths {
                        pieces.push(bytes_at(end, *len));
                        end += as_u64(*len);
                    }
                    file.write_last(&pieces, from).unwrap();
                    let len = usize::try_from(end - start).unwrap();
                    prop_assert!(file.read(start, len).unwrap() == bytes_at(start, len));
                    let rest = usize::try_from(end.next_multiple_of(4096) - end).unwrap();
                    prop_assert!(file.read(end, rest).unwrap().iter().all(|byte| *byte == 0));
                }
                file.truncate(end).unwrap();
                let whole = disk.open("spare.segment").unwrap();
                let len = usize::try_from(end - start).unwrap();
                prop_assert!(whole.read(start, len).unwrap() == bytes_at(start, len));
            }
        }
    }

    /// Goal: who reads through the page cache while commits go past it reads what was committed, up to the last byte.
    /// Method: a reader goes over all that is there, again and again, while small and large commits are added.
    #[test]
    fn s3_what_is_committed_can_be_read_at_once() {
        for (_directory, disk) in disks() {
            let file = disk.create("spare.segment", FILE_BYTES).unwrap();
            let end = AtomicU64::new(0);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut from = 0;
                    while end.load(Ordering::Acquire) < FILE_BYTES {
                        let until = end.load(Ordering::Acquire);
                        let at = if from < until { from } else { 0 };
                        let len = usize::try_from((until - at).min(50_000)).unwrap();
                        assert!(file.read(at, len).unwrap() == bytes_at(at, len), "{at}");
                        from = at + as_u64(len);
                    }
                });
                let mut at = 0;
                while at < FILE_BYTES {
                    let left = usize::try_from(FILE_BYTES - at).unwrap();
                    let len = [700, 150_001, 30_000, 300_000][usize::try_from(at % 4).unwrap()];
                    let len = left.min(len);
                    file.write_last(&[bytes_at(at, len)], at).unwrap();
                    file.sync().unwrap();
                    at += as_u64(len);
                    end.store(at, Ordering::Release);
                }
            });
        }
    }

    /// Goal: only the first of small commits in room that was reserved waits for the file system to note what is written.
    /// Method: where the file is a hole is asked for after each commit.
    #[test]
    fn small_commits_write_ahead_where_nothing_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let ahead = AHEAD_BYTES;
        let file = lay_out::create(&path, 3 * ahead + 8192, &AtomicBool::new(true)).unwrap();
        let mut writer = CommitWriter::new(&StepBuffer::default());
        let mut at = 0;
        for (len, hole) in [
            (131_075, 135_168),
            // What is written already is enough.
            (100, 135_168),
            (100_000, ahead),
            (100, ahead),
            // A large one writes to the end of its page only.
            (131_072, 364_544),
            (5_000, 2 * ahead),
        ] {
            writer.write(&file, &[bytes_at(at, len)], at).unwrap();
            file.sync_data().unwrap();
            at += as_u64(len);
            assert_eq!(seek(&file, SeekFrom::Hole(0)).unwrap(), hole, "{at}");
        }
        // No further than the file is long.
        let at = 3 * ahead - 10;
        writer.write(&file, &[bytes_at(at, 20)], at).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 3 * ahead + 8192);
        // Another writer asks the file system.
        let mut writer = CommitWriter::new(&StepBuffer::default());
        let at = 2 * ahead - 10;
        writer.write(&file, &[bytes_at(at, 5)], at).unwrap();
        assert_eq!(writer.written, Some(2 * ahead));
    }

    /// Goal: a file system that takes no such writes is written all the same. Method: a handle that refuses them.
    #[test]
    fn what_is_not_taken_goes_through_the_page_cache() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.open(&path).unwrap();
        let mut writer = CommitWriter::new(&StepBuffer::default());
        writer.way = Way::Missing;
        let commit = [bytes_at(0, STEP_BYTES + 5000)];
        writer.write(&file, &commit, 0).unwrap();
        let written = std::fs::read(&path).unwrap();
        assert!(written[..commit[0].len()] == commit[0]);
        assert_eq!(written.len() % PAGE_BYTES, 0);

        // Any other refusal is a failure, after which the page is read again.
        writer.way = Way::Open(File::open(&path).unwrap());
        let end = as_u64(commit[0].len());
        let error = writer.write(&file, &commit, end).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::BADF));
        assert_eq!(writer.end, None);
        assert!(std::fs::read(&path).unwrap() == written);
    }
}
