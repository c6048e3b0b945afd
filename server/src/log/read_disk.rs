//! A data directory that is looked at and not touched: files are opened for reading only. Knows the `FORMAT` line, no segments.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::log::disk::LOCK;
use crate::log::format::{Formatted, read_format};
use crate::log::{Disk, DiskFile, Error, Finding, Format, segment};

/// See the module. While it lives no server starts on the directory; others may look at it, too.
#[derive(Debug)]
pub struct ReadDisk {
    directory: PathBuf,
    formatted: Formatted,
    /// Holds the shared lock. There is none where nobody ever served the directory.
    lock: Option<File>,
}

impl ReadDisk {
    /// Opens a data directory. Changes nothing.
    ///
    /// # Errors
    /// [`Error::InUse`] while a process serves it, [`Error::NewerFormat`] if a newer version wrote it,
    /// [`Error::NotADataDirectory`] if it holds no log, [`Error::Io`] if the system refuses.
    pub fn open(directory: impl AsRef<Path>) -> Result<ReadDisk, Error> {
        let directory = directory.as_ref().to_owned();
        let shown = directory.display().to_string();
        let foreign = |reason: &str| Error::NotADataDirectory {
            directory: shown.clone(),
            reason: reason.to_owned(),
        };
        match fs::metadata(&directory) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(foreign("it is a file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(foreign("it does not exist"));
            }
            Err(source) => return Err(Error::io("opening", &shown, source)),
        }
        let lock = shared_lock(&directory)?;
        ReadDisk::under(directory, lock)
    }

    /// Opens a directory whose `LOCK` is held if there was one.
    fn under(directory: PathBuf, lock: Option<File>) -> Result<ReadDisk, Error> {
        let shown = directory.display().to_string();
        let formatted = read_format(&directory)?;
        let disk = ReadDisk {
            directory,
            formatted,
            lock,
        };
        let names = disk
            .list()
            .map_err(|source| Error::io("listing", &shown, source))?;
        if disk.lock.is_none()
            && let Some(lock) = shared_lock(&disk.directory)?
        {
            // A server began meanwhile: what was read may be of half its start.
            return ReadDisk::under(disk.directory, Some(lock));
        }
        let foreign = |reason: &str| Error::NotADataDirectory {
            directory: shown.clone(),
            reason: reason.to_owned(),
        };
        let has_segments = names.iter().any(|name| segment::number(name).is_some());
        match &disk.formatted {
            Formatted::No | Formatted::Garbled(_) if !has_segments => Err(foreign(
                "it holds no segments and no FORMAT file that could be read",
            )),
            _ => Ok(disk),
        }
    }

    /// What is wrong with `FORMAT`, if some segments, or none, have been rewritten.
    pub fn check_format(&self, any_rewritten: bool) -> Option<Finding> {
        self.formatted.finding(any_rewritten)
    }

    /// Whether no server began on the directory since this was opened: where nobody ever served it there was no lock to hold.
    ///
    /// # Errors
    /// [`Error::InUse`] if one did and still serves, [`Error::Io`] if the system refuses.
    pub fn is_still_alone(&self) -> Result<bool, Error> {
        Ok(self.lock.is_some() || shared_lock(&self.directory)?.is_none())
    }
}

/// The lock of a directory, shared with others who only look; none where nobody ever served it.
fn shared_lock(directory: &Path) -> Result<Option<File>, Error> {
    let shown = directory.display().to_string();
    let lock = match File::open(directory.join(LOCK)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::io("opening LOCK of", &shown, source)),
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { directory: shown }),
        Err(TryLockError::Error(source)) => Err(Error::io("locking", &shown, source)),
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::Error::new(
        io::ErrorKind::ReadOnlyFilesystem,
        "the directory is only looked at",
    ))
}

impl Disk for ReadDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        crate::log::disk::segment_files(&self.directory)
    }

    fn create(&self, _name: &str, _len_bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        refused()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = File::open(self.directory.join(name))?;
        Ok(Arc::new(ReadFile(file)))
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        refused()
    }

    fn sync_directory(&self) -> io::Result<()> {
        refused()
    }

    fn link(&self, _from: &str, _to: &str) -> io::Result<()> {
        refused()
    }

    fn raise_format(&self, _format: Format) -> io::Result<()> {
        refused()
    }
}

#[derive(Debug)]
struct ReadFile(File);

impl DiskFile for ReadFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        refused()
    }

    fn sync(&self) -> io::Result<()> {
        refused()
    }

    fn truncate(&self, _len_bytes: u64) -> io::Result<()> {
        refused()
    }

    fn lengthen(&self, _len_bytes: u64) -> io::Result<()> {
        refused()
    }

    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::RealDisk;
    use crate::log::format::FORMAT;

    /// Who only looks keeps servers away, not others who look; and who serves keeps them away.
    #[test]
    fn s8_a_served_directory_is_not_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let served = RealDisk::open(directory.path()).unwrap();
        let error = ReadDisk::open(directory.path()).unwrap_err();
        assert!(matches!(error, Error::InUse { .. }), "{error}");
        drop(served);
        let first = ReadDisk::open(directory.path()).unwrap();
        let _second = ReadDisk::open(directory.path()).unwrap();
        let error = RealDisk::open(directory.path()).unwrap_err();
        assert!(matches!(error, Error::InUse { .. }), "{error}");
        assert!(first.create("spare.segment", 1).is_err());
    }

    /// A server that begins on a directory without `LOCK` right after that was looked for: it is seen once it locks, and what
    /// it wrote is read again once it is gone.
    #[test]
    fn s8_a_start_that_is_looked_at_is_not_taken_for_damage() {
        let directory = tempfile::tempdir().unwrap();
        let none = shared_lock(directory.path()).unwrap();
        assert!(none.is_none());
        let served = RealDisk::open(directory.path()).unwrap();
        drop(served.create(&segment::name(1), 10).unwrap());
        let looked = ReadDisk::under(directory.path().to_owned(), None).unwrap_err();
        assert!(matches!(looked, Error::InUse { .. }), "{looked}");
        drop(served);
        let looked = ReadDisk::under(directory.path().to_owned(), None).unwrap();
        let error = RealDisk::open(directory.path()).unwrap_err();
        assert!(matches!(error, Error::InUse { .. }), "{error}");
        assert_eq!(looked.check_format(false), None);
        assert!(looked.is_still_alone().unwrap());
    }

    /// A copy of a data directory has no `LOCK`: a server that begins there while it is read is noticed at the end.
    #[test]
    fn s8_a_start_while_a_copy_is_read_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        drop(RealDisk::open(directory.path()).unwrap());
        fs::remove_file(directory.path().join(LOCK)).unwrap();
        let looked = ReadDisk::open(directory.path()).unwrap();
        assert!(looked.is_still_alone().unwrap());
        let served = RealDisk::open(directory.path()).unwrap();
        let noticed = looked.is_still_alone().unwrap_err();
        assert!(matches!(noticed, Error::InUse { .. }), "{noticed}");
        drop(served);
        assert!(!looked.is_still_alone().unwrap());
    }

    /// A bit of every byte of `FORMAT`: told as damage, or as a newer version; and mended.
    #[test]
    fn s8_a_flipped_format_is_told_and_mended() {
        for format in [Format::Plain, Format::Rewritten, Format::Recycled] {
            let rewritten = format > Format::Plain;
            let directory = tempfile::tempdir().unwrap();
            let disk = RealDisk::open(directory.path()).unwrap();
            drop(disk.create(&segment::name(1), 10).unwrap());
            disk.raise_format(format).unwrap();
            drop(disk);
            let path = directory.path().join(FORMAT);
            let sound = fs::read(&path).unwrap();
            for at in 0..sound.len() * 8 {
                let mut damaged = sound.clone();
                damaged[at / 8] ^= 1 << (at % 8);
                fs::write(&path, &damaged).unwrap();
                let opened = match ReadDisk::open(directory.path()) {
                    Err(Error::NewerFormat { .. }) => continue,
                    opened => opened.unwrap(),
                };
                assert!(
                    opened.check_format(rewritten).is_some(),
                    "bit {at}: {damaged:?}"
                );
                drop(opened);
                let (disk, _) = RealDisk::open_damaged(directory.path()).unwrap();
                assert_eq!(fs::read(&path).unwrap(), damaged, "opening changes nothing");
                disk.mend_format(rewritten).unwrap();
                // What follows from rewriting cannot be seen.
                let mended = if rewritten {
                    Format::LATEST
                } else {
                    Format::Plain
                };
                let mended = format!("{}\n", mended.line());
                assert_eq!(fs::read_to_string(&path).unwrap(), mended);
            }
            fs::remove_file(&path).unwrap();
            let opened = ReadDisk::open(directory.path()).unwrap();
            assert!(opened.check_format(rewritten).is_some());
        }
    }
}
