//! Lets the pages of a file take all memory that is free, as on a machine that has been up for a while.
//!
//! A virtual machine gives free memory back to its host, and a page that it gets anew costs several times what a page costs that was in use: whoever
//! writes more than was freed lately pays for it, and the figures say little about who that is.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::{Failure, report};

const STEP_BYTES: usize = 4 << 20;
/// Memory that stays free, for whatever is measured.
const LEFT_BYTES: u64 = 1 << 30;
/// Room on the disk that stays free.
const DISK_LEFT_BYTES: u64 = 12 << 30;

/// The file; removed when dropped.
#[derive(Debug)]
pub(crate) struct PageCache {
    file: File,
    path: PathBuf,
}

impl PageCache {
    /// An empty file in this directory.
    pub(crate) fn in_directory(directory: &Path) -> io::Result<PageCache> {
        let path = directory.join("page-cache");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.open(&path)?;
        Ok(PageCache { file, path })
    }

    /// Takes what is free by now: reads what has been pushed out of the file, then makes it longer.
    pub(crate) fn fill(&self) -> Result<(), Failure> {
        let mut step = vec![0; STEP_BYTES];
        let before = free_bytes()?;
        let mut at = 0;
        while free_bytes()? > LEFT_BYTES {
            let read = self.file.read_at(&mut step, at)?;
            if read > 0 {
                at += u64::try_from(read)?;
                continue;
            }
            let system = rustix::fs::statvfs(&self.path)?;
            if system.f_bavail * system.f_frsize < DISK_LEFT_BYTES {
                break;
            }
            self.file.write_all_at(&step, at)?;
            at += u64::try_from(STEP_BYTES)?;
        }
        self.file.sync_data()?;
        let (before, after) = (before >> 20, free_bytes()? >> 20);
        report::note(&format!("memory that is free: {before}, now {after} MiB"));
        Ok(())
    }
}

impl Drop for PageCache {
    fn drop(&mut self) {
        // Left behind it takes room and does no other harm.
        drop(fs::remove_file(&self.path));
    }
}

/// Memory that nothing is in, as Linux says.
fn free_bytes() -> Result<u64, Failure> {
    let said = fs::read_to_string("/proc/meminfo")?;
    let line = said.lines().find_map(|line| line.strip_prefix("MemFree:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(kib.ok_or("/proc/meminfo has no MemFree")? << 10)
}
