//! Lets the pages of a file take all memory that is free, as on a machine that has been up for a while.
//!
//! A virtual machine gives free memory back to its host, and a page that it gets anew costs several times what a page costs that was in use: whoever
//! writes more than was freed lately pays for it, and the figures say little about who that is.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::{Failure, report};

/// How a command is told to do it.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Wish {
    /// Lets the pages of a file take the memory that is free before puts are measured: on virtual machines pages that were
    /// free for long cost more than others. Takes as much of the disk for as long as it runs.
    #[arg(long)]
    fill_page_cache: bool,
}

impl Wish {
    /// What was wished for; its file is in this directory.
    pub(crate) fn granted(self, directory: &Path) -> io::Result<Granted> {
        let file = self
            .fill_page_cache
            .then(|| PageCache::in_directory(directory));
        Ok(Granted(file.transpose()?))
    }
}

/// A wish that may have been none.
#[derive(Debug)]
pub(crate) struct Granted(Option<PageCache>);

impl Granted {
    /// Takes what memory is free by now, if that was wished for.
    pub(crate) fn fill(&self) -> Result<(), Failure> {
        self.0.as_ref().map_or(Ok(()), PageCache::fill)
    }
}

const STEP_BYTES: usize = 4 << 20;
/// Memory that stays free, for whatever is measured.
const LEFT_BYTES: u64 = 1 << 30;
/// Room on the disk that stays free.
const DISK_LEFT_BYTES: u64 = 12 << 30;

/// The file; removed when dropped.
#[derive(Debug)]
struct PageCache {
    file: File,
    path: PathBuf,
}

impl PageCache {
    /// An empty file in this directory.
    fn in_directory(directory: &Path) -> io::Result<PageCache> {
        let path = directory.join("page-cache");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.open(&path)?;
        Ok(PageCache { file, path })
    }

    /// Takes what is free by now: reads what has been pushed out of the file, then makes it longer, as far as there is memory.
    fn fill(&self) -> Result<(), Failure> {
        let mut step = vec![0; STEP_BYTES];
        let (before, all) = (memory_bytes("MemFree:")?, memory_bytes("MemTotal:")?);
        let mut at = 0;
        // Where files may not have all memory, as in a container, some of it stays free.
        while at < all && memory_bytes("MemFree:")? > LEFT_BYTES {
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
        let (before, after) = (before >> 20, memory_bytes("MemFree:")? >> 20);
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

/// A line of what Linux says of the memory.
fn memory_bytes(name: &str) -> Result<u64, Failure> {
    let said = fs::read_to_string("/proc/meminfo")?;
    let line = said.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(kib.ok_or_else(|| format!("/proc/meminfo has no {name}"))? << 10)
}
