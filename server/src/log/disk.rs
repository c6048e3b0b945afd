//! The few file operations the log needs, and their real form: a data directory. Knows no formats
//! but the directory's own `FORMAT` line. The form in memory is in `memory_disk`.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use crate::log::commit_writer::{CommitWriter, StepBuffer};
use crate::log::format::{FORMAT_DRAFT, Format, Formatted, check_format, read_format};
use crate::log::segment::as_u64;
use crate::log::{Error, lay_out};

/// A flat set of named files.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Names of all segment files (`*.segment`), in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A file of `len_bytes` zero bytes, written out and synced; replaces one of that name. Nothing
    /// is left behind on failure.
    fn create(&self, name: &str, len_bytes: u64) -> io::Result<Arc<dyn DiskFile>>;
    /// As [`Disk::create`], but what is not written out when that is `enough` need not be: there is room for it, and what is written
    /// there takes longer to sync.
    fn create_until(
        &self,
        name: &str,
        len_bytes: u64,
        enough: &AtomicBool,
    ) -> io::Result<Arc<dyn DiskFile>> {
        let _ = enough;
        self.create(name, len_bytes)
    }
    /// As [`Disk::create_until`] where nothing need be written.
    fn reserve(&self, name: &str, len_bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.create_until(name, len_bytes, &AtomicBool::new(true))
    }
    /// An existing file.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file; its handles stay good.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; its handles stay good.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes names created, renamed and removed so far survive a power cut.
    fn sync_directory(&self) -> io::Result<()>;
    /// Gives a file another name beside its own: what is written under one is read under both.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    /// Says, in a way that survives a power cut, that there may be files of this format from now on: versions that
    /// cannot read them refuse to open these files.
    fn raise_format(&self, format: Format) -> io::Result<()>;
}

/// One file: positioned reads and writes.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Fills the buffer, or fails with `UnexpectedEof`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all bytes. They survive a power cut only after [`DiskFile::sync`].
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// The `len` bytes from `offset` on, or `UnexpectedEof`.
    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.read_at(&mut bytes, offset)?;
        Ok(bytes)
    }
    /// Writes these bytes one after the other. Nothing behind them is needed, and zeros may be written there: a page that is
    /// written as a whole need not be read first, and what is written already takes less time to sync when it is written again.
    fn write_last(&self, pieces: &[Bytes], mut offset: u64) -> io::Result<()> {
        for piece in pieces {
            self.write_at(piece, offset)?;
            offset += as_u64(piece.len());
        }
        Ok(())
    }
    /// Makes all bytes written so far survive a power cut.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file to that length and syncs it, length included.
    fn truncate(&self, len_bytes: u64) -> io::Result<()>;
    /// Makes a shorter file that long, with zeros or room that reads as such, and syncs it, length included.
    fn lengthen(&self, len_bytes: u64) -> io::Result<()>;
    /// Length in bytes.
    fn len_bytes(&self) -> io::Result<u64>;
}

pub(crate) const LOCK: &str = "LOCK";

/// A data directory that this process alone serves, as long as this value lives.
#[derive(Debug)]
pub struct RealDisk {
    directory: PathBuf,
    format: Mutex<Format>,
    step: StepBuffer,
    /// Kept open: a process out of file descriptors must still be able to sync the directory.
    opened: File,
    /// Holds the exclusive lock; released by the system when closed, however the process ends.
    _lock: File,
}

impl RealDisk {
    /// Opens the directory, or creates it readable by its owner only.
    ///
    /// # Errors
    /// [`Error::InUse`] while another process serves it, [`Error::NewerFormat`] if a newer version
    /// wrote it, [`Error::NotADataDirectory`] if it holds something else; in all three cases
    /// nothing in it is touched. [`Error::Io`] if the system refuses.
    pub fn open(directory: impl AsRef<Path>) -> Result<RealDisk, Error> {
        let directory = directory.as_ref().to_owned();
        let shown = directory.display().to_string();
        let io = |operation| {
            let shown = shown.clone();
            move |source| Error::io(operation, &shown, source)
        };
        if !directory.exists() {
            create_directory(&directory).map_err(io("creating"))?;
        }
        if !directory.is_dir() {
            return Err(Error::NotADataDirectory {
                directory: shown,
                reason: "it is a file".to_owned(),
            });
        }
        let (disk, formatted) = RealDisk::locked(directory, check_format)?;
        if formatted == Formatted::No {
            disk.write_format(Format::Plain)
                .map_err(io("writing FORMAT of"))?;
        }
        Ok(disk)
    }

    /// Opens a data directory to repair it, one that is there, and whose `FORMAT` may be damaged; with what that says.
    ///
    /// # Errors
    /// As [`RealDisk::open`].
    pub(crate) fn open_damaged(
        directory: impl AsRef<Path>,
    ) -> Result<(RealDisk, Formatted), Error> {
        RealDisk::locked(directory.as_ref().to_owned(), read_format)
    }

    /// Writes a `FORMAT` anew that could not be read.
    ///
    /// # Errors
    /// What the system says.
    pub fn mend_format(&self, any_rewritten: bool) -> io::Result<()> {
        let found = *self.format.lock().unwrap_or_else(PoisonError::into_inner);
        // What follows from rewriting cannot be seen.
        let least = if any_rewritten {
            Format::LATEST
        } else {
            Format::Plain
        };
        self.write_format(found.max(least))
    }

    /// Takes the lock, and asks for the format before, so that nothing is touched that is not ours, and again under it,
    /// since only then does nobody raise it any more.
    fn locked(
        directory: PathBuf,
        format_of: fn(&Path) -> Result<Formatted, Error>,
    ) -> Result<(RealDisk, Formatted), Error> {
        format_of(&directory)?;
        let shown = directory.display().to_string();
        let io = |operation| {
            let shown = shown.clone();
            move |source| Error::io(operation, &shown, source)
        };
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join(LOCK))
            .map_err(io("opening LOCK of"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Error::InUse {
                directory: shown.clone(),
            },
            TryLockError::Error(source) => Error::io("locking", &shown, source),
        })?;
        let formatted = format_of(&directory)?;
        let disk = RealDisk {
            opened: File::open(&directory).map_err(io("opening"))?,
            format: Mutex::new(formatted.format()),
            step: StepBuffer::default(),
            directory,
            _lock: lock,
        };
        Ok((disk, formatted))
    }

    fn write_format(&self, format: Format) -> io::Result<()> {
        let draft = self.directory.join(FORMAT_DRAFT);
        let mut file = File::create(&draft)?;
        file.write_all(format.line().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(draft, self.directory.join(crate::log::FORMAT))?;
        self.sync_directory()
    }

    fn file(&self, file: File) -> Arc<dyn DiskFile> {
        Arc::new(RealFile {
            file,
            commits: Mutex::new(CommitWriter::new(&self.step)),
        })
    }

    fn lay_out(
        &self,
        name: &str,
        create: impl FnOnce(&Path) -> io::Result<File>,
    ) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.directory.join(name);
        match create(&path) {
            Ok(file) => Ok(self.file(file)),
            Err(error) => {
                // A half-written file would keep the disk full; recovery removes it if this fails too.
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    fn open_file(&self, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.directory.join(name))
    }
}

/// Creates the directory and those it lies in, and makes their names survive a power cut.
fn create_directory(directory: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = directory
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
        .collect();
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(directory)?;
    for parent in missing.iter().filter_map(|path| path.parent()) {
        // The parent of a bare name is the working directory.
        let parent = Some(parent).filter(|path| !path.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// Names of the segment files of a directory.
pub(crate) fn segment_files(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        if let Ok(name) = entry?.file_name().into_string()
            && name.ends_with(".segment")
        {
            names.push(name);
        }
    }
    Ok(names)
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        segment_files(&self.directory)
    }

    fn create(&self, name: &str, len_bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.create_until(name, len_bytes, &AtomicBool::new(false))
    }

    fn create_until(
        &self,
        name: &str,
        len_bytes: u64,
        enough: &AtomicBool,
    ) -> io::Result<Arc<dyn DiskFile>> {
        self.lay_out(name, |path| lay_out::create(path, len_bytes, enough))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.open_file(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.directory.join(from), self.directory.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.directory.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.opened.sync_all()
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        fs::hard_link(self.directory.join(from), self.directory.join(to))
    }

    fn raise_format(&self, format: Format) -> io::Result<()> {
        let mut written = self.format.lock().unwrap_or_else(PoisonError::into_inner);
        if *written < format {
            self.write_format(format)?;
            *written = format;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
    commits: Mutex<CommitWriter>,
}

impl RealFile {
    fn commits(&self) -> MutexGuard<'_, CommitWriter> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    // Not into zeros: the allocator would give memory back and take it anew to have some.
    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = offset + as_u64(bytes.len());
            match rustix::io::pread(&self.file, spare_capacity(&mut bytes), at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // The allocator may have given more room.
        bytes.truncate(len);
        Ok(bytes)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.commits().forget();
        self.file.write_all_at(bytes, offset)
    }

    fn write_last(&self, pieces: &[Bytes], offset: u64) -> io::Result<()> {
        self.commits().write(&self.file, pieces, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn truncate(&self, len_bytes: u64) -> io::Result<()> {
        self.commits().complete(&self.file);
        self.file.set_len(len_bytes)?;
        self.file.sync_all()
    }

    fn lengthen(&self, len_bytes: u64) -> io::Result<()> {
        lay_out::lengthen(&self.file, len_bytes)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Barrier;
    use std::sync::atomic::Ordering;
    use std::thread;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_directory_is_its_owners_alone() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/b");
        let _disk = RealDisk::open(&directory).unwrap();
        assert_eq!(
            fs::metadata(&directory).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert_eq!(
            fs::read_to_string(directory.join("FORMAT")).unwrap(),
            "millstream-log 1\n"
        );
        assert_eq!(names(&directory), ["FORMAT", "LOCK"]);
    }

    #[test]
    fn s8_second_opener_refused() {
        let directory = tempfile::tempdir().unwrap();
        let first = RealDisk::open(directory.path()).unwrap();
        let error = RealDisk::open(directory.path()).unwrap_err();
        assert!(matches!(&error, Error::InUse { .. }), "{error}");
        assert!(
            error
                .to_string()
                .contains(&directory.path().display().to_string())
        );
        drop(first);
        RealDisk::open(directory.path()).unwrap();
    }

    #[test]
    fn s8_a_newer_format_is_refused_and_untouched() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("FORMAT"), "millstream-log 8\n").unwrap();
        let error = RealDisk::open(directory.path()).unwrap_err();
        assert!(matches!(&error, Error::NewerFormat { found, .. } if found == "millstream-log 8"));
        assert_eq!(names(directory.path()), ["FORMAT"]);
    }

    /// Several that begin nearly at once on a new directory: one opens it, the others say that it is taken, or open it
    /// later as the one before left it. Nobody takes a file of another's start for a stranger's.
    #[test]
    fn s8_of_several_that_open_at_once_each_opens_or_is_refused() {
        for round in 0..600_u32 {
            let directory = tempfile::tempdir().unwrap();
            let begin = Barrier::new(4);
            let is_raised = AtomicBool::new(false);
            let open = |delay: u32| {
                begin.wait();
                (0..delay).for_each(|_| std::hint::spin_loop());
                match RealDisk::open(directory.path()) {
                    Ok(disk) => {
                        if is_raised.swap(true, Ordering::Relaxed) {
                            let found = read_format(directory.path()).unwrap();
                            assert_eq!(found, Formatted::As(Format::LATEST), "round {round}");
                        }
                        disk.raise_format(Format::LATEST).unwrap();
                    }
                    Err(Error::InUse { .. }) => {}
                    Err(error) => panic!("round {round}: {error}"),
                }
            };
            thread::scope(|scope| {
                for opener in 0..4 {
                    let open = &open;
                    scope.spawn(move || open(opener * (round % 100) * 100));
                }
            });
            assert!(is_raised.into_inner(), "round {round}: all were refused");
        }
    }

    #[test]
    fn a_format_that_was_raised_stays_so() {
        let directory = tempfile::tempdir().unwrap();
        let format = || fs::read_to_string(directory.path().join("FORMAT")).unwrap();
        let disk = RealDisk::open(directory.path()).unwrap();
        assert_eq!(format(), "millstream-log 1\n");
        for (raised, line) in [
            (Format::Rewritten, "millstream-log 2\n"),
            (Format::Recycled, "millstream-log 4\n"),
            (Format::Rewritten, "millstream-log 4\n"),
        ] {
            disk.raise_format(raised).unwrap();
            assert_eq!(format(), line);
        }
        drop(disk);
        let disk = RealDisk::open(directory.path()).unwrap();
        disk.raise_format(Format::Rewritten).unwrap();
        assert_eq!(format(), "millstream-log 4\n");
        assert_eq!(names(directory.path()), ["FORMAT", "LOCK"]);
    }

    #[test]
    fn s8_a_foreign_directory_is_refused_and_untouched() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("thesis.tex"), "precious").unwrap();
        let error = RealDisk::open(directory.path()).unwrap_err();
        assert!(matches!(&error, Error::NotADataDirectory { .. }), "{error}");
        assert!(error.to_string().contains("thesis.tex"));
        assert_eq!(names(directory.path()), ["thesis.tex"]);
    }

    /// A process out of file descriptors must not fail here: it would poison the log.
    #[test]
    fn s1_a_directory_is_synced_without_opening_it_again() {
        let parent = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(parent.path().join("data")).unwrap();
        fs::rename(parent.path().join("data"), parent.path().join("moved")).unwrap();
        disk.sync_directory().unwrap();
    }

    #[test]
    fn s8_a_file_in_the_directorys_place_is_refused_and_untouched() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("thesis.tex");
        fs::write(&file, "precious").unwrap();
        let error = RealDisk::open(&file).unwrap_err();
        assert!(
            matches!(&error, Error::NotADataDirectory { reason, .. } if reason == "it is a file"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }

    #[test]
    fn a_new_file_is_all_zeros_at_its_full_length() {
        let directory = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(directory.path()).unwrap();
        let file = disk.create("spare.segment", 70_000).unwrap();
        assert_eq!(file.len_bytes().unwrap(), 70_000);
        let mut bytes = vec![1; 70_000];
        file.read_at(&mut bytes, 0).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
        file.write_at(b"abc", 69_997).unwrap();
        file.sync().unwrap();
        disk.rename("spare.segment", "1.segment").unwrap();
        file.truncate(69_999).unwrap();
        let mut last = [0; 2];
        disk.open("1.segment")
            .unwrap()
            .read_at(&mut last, 69_997)
            .unwrap();
        assert_eq!(&last, b"ab");
        assert_eq!(disk.list().unwrap(), ["1.segment"]);
    }
}
