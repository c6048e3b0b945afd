//! Writes a file out in zeros, so that later writes into it change its data only: a sync then waits for nothing else.
//! Where commits are large, space that was only reserved does as well: to sync what was written into it costs a fixed time more,
//! and they are many times that. Small commits then write zeros ahead (`commit_writer`).
//!
//! The zeros go past the page cache where the file system can do that. Through it they cost three times the processor
//! time, and push what readers want out of memory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::Errno;

use crate::log::disk::DiskFile;

/// Zeros at a multiple of what any device writes at a time.
#[repr(align(4096))]
struct Zeros([u8; STEP_BYTES]);

/// What the system keeps and writes as a whole.
pub(crate) const PAGE_BYTES: usize = 4096;
/// What is written at a time: commits have their turn on the disk in between.
pub(crate) const STEP_BYTES: usize = 256 << 10;
/// How much of a new file waits to be synced, where it goes through the page cache: a commit's sync may have to wait for it.
const UNSYNCED_BYTES: u64 = 2 << 20;

static ZEROS: Zeros = Zeros([0; STEP_BYTES]);

/// A new file that reads as `len_bytes` zero bytes and has room for them on the disk, synced; replaces what is there. They are
/// written until that is `enough`, and to the end where the file system cannot reserve room.
///
/// # Errors
/// Whatever the system refuses; the file may then be there in part.
pub(crate) fn create(path: &Path, len_bytes: u64, enough: &AtomicBool) -> io::Result<File> {
    let (file, is_reserved) = create_reserved(path, len_bytes)?;
    let is_enough = || is_reserved && enough.load(Ordering::Relaxed);
    let mut options = OpenOptions::new();
    options.write(true);
    options.custom_flags(OFlags::DIRECT.bits().cast_signed());
    let written = match options.open(path) {
        Ok(direct) => write_direct(&direct, len_bytes, is_enough)?,
        Err(_) => 0,
    };
    write_cached(&file, written, len_bytes, is_enough)?;
    file.sync_all()?;
    Ok(file)
}

/// A new file, and whether room was reserved for it. In one piece if it can be; and a disk without room says so at once. Not every
/// file system has this.
fn create_reserved(path: &Path, len_bytes: u64) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    let file = options.open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, len_bytes) {
        Err(Errno::NOSPC) => Err(Errno::NOSPC.into()),
        reserved => Ok((file, reserved.is_ok())),
    }
}

/// Makes a file that long, with room that is reserved behind its end, or zeros where the file system cannot reserve any, and syncs it.
///
/// # Errors
/// Whatever the system refuses; the file may then be longer than it was.
pub(crate) fn lengthen(file: &File, len_bytes: u64) -> io::Result<()> {
    let has = file.metadata()?.len();
    let Some(more) = len_bytes.checked_sub(has).filter(|more| *more > 0) else {
        return file.sync_all();
    };
    match fallocate(file, FallocateFlags::empty(), has, more) {
        Err(Errno::NOSPC) => return Err(Errno::NOSPC.into()),
        Err(_) => write_cached(file, has, len_bytes, || false)?,
        Ok(()) => {}
    }
    file.sync_all()
}

/// Zeros over what is between these places, not synced.
///
/// # Errors
/// Whatever the file refuses.
pub(crate) fn zero(file: &dyn DiskFile, from: u64, end: u64) -> io::Result<()> {
    let mut at = from;
    while let Some(left) = end.checked_sub(at).filter(|left| *left > 0) {
        let step = usize::try_from(left).unwrap_or(usize::MAX).min(STEP_BYTES);
        file.write_at(&ZEROS.0[..step], at)?;
        at += u64::try_from(step).unwrap_or_default();
    }
    Ok(())
}

/// Writes zeros from the beginning on, and gives how far it got: not to the end where that lies inside a block, and not at
/// all where the file system takes no such writes.
fn write_direct(file: &File, len_bytes: u64, is_enough: impl Fn() -> bool) -> io::Result<u64> {
    let mut at = 0;
    while let Some(left) = len_bytes.checked_sub(at).filter(|_| !is_enough()) {
        let step = usize::try_from(left).unwrap_or(usize::MAX).min(STEP_BYTES);
        let step = step / PAGE_BYTES * PAGE_BYTES;
        if step == 0 {
            break;
        }
        match file.write_at(&ZEROS.0[..step], at) {
            Ok(0) => break,
            Ok(written) => at += u64::try_from(written).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
            Err(error) => return Err(error),
        }
    }
    Ok(at)
}

fn write_cached(
    file: &File,
    from: u64,
    len_bytes: u64,
    is_enough: impl Fn() -> bool,
) -> io::Result<()> {
    let (mut at, mut unsynced) = (from, 0);
    while at < len_bytes && !is_enough() {
        let left = usize::try_from(len_bytes - at).unwrap_or(usize::MAX);
        let step = left.min(STEP_BYTES);
        file.write_all_at(&ZEROS.0[..step], at)?;
        let step = u64::try_from(step).unwrap_or_default();
        (at, unsynced) = (at + step, unsynced + step);
        if unsynced >= UNSYNCED_BYTES {
            file.sync_data()?;
            unsynced = 0;
        }
    }
    Ok(())
}

/// So many zeros, or as many as there are at hand: [`STEP_BYTES`].
pub(crate) fn zeros(bytes: u64) -> &'static [u8] {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    ZEROS.0.get(..bytes).unwrap_or(&ZEROS.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: whatever its length, a file is zeros from end to end, and what was there is gone. Method: on the machine's file
    /// system, and on one in memory where there is one; lengths that end inside a page are written through the page cache to their end.
    #[test]
    fn a_file_is_zeros_whatever_its_length() {
        let here = tempfile::tempdir().unwrap();
        let in_memory = tempfile::tempdir_in("/dev/shm").ok();
        for directory in [Some(&here), in_memory.as_ref()].into_iter().flatten() {
            let path = directory.path().join("file");
            for len in [0, 1, 4095, 4096, 4097, STEP_BYTES + 5, 3 * STEP_BYTES] {
                for is_enough in [false, true] {
                    std::fs::write(&path, vec![7; 5000]).unwrap();
                    let enough = AtomicBool::new(is_enough);
                    let file = create(&path, len as u64, &enough).unwrap();
                    file.write_all_at(b"x", 0).unwrap();
                    let mut expected = vec![0; len.max(1)];
                    expected[0] = b'x';
                    assert!(std::fs::read(&path).unwrap() == expected, "{len}");
                }
            }
        }
    }

    /// What is behind the old end reads as zeros, and the disk has room for it; no file is made shorter.
    #[test]
    fn a_file_that_is_lengthened_keeps_what_is_in_it() {
        use std::os::unix::fs::MetadataExt;
        let here = tempfile::tempdir().unwrap();
        let in_memory = tempfile::tempdir_in("/dev/shm").ok();
        for directory in [Some(&here), in_memory.as_ref()].into_iter().flatten() {
            let path = directory.path().join("file");
            for (has, len) in [
                (0, 1),
                (5000, 5001),
                (5000, 3 << 20),
                (4096, 4096),
                (5000, 3),
            ] {
                std::fs::write(&path, vec![7; has]).unwrap();
                let file = File::options().read(true).write(true).open(&path).unwrap();
                lengthen(&file, len as u64).unwrap();
                let mut expected = vec![7; has];
                expected.resize(len.max(has), 0);
                assert!(std::fs::read(&path).unwrap() == expected, "{has} to {len}");
                let reserved = file.metadata().unwrap().blocks() * 512;
                assert!(reserved >= len as u64, "{reserved} of {len}");
            }
        }
    }
}
