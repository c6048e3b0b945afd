//! A disk in memory: for servers that keep nothing, and for tests that pull the plug.
//!
//! A crashable disk keeps what was *written* apart from what was *synced*. [`MemoryDisk::crash`]
//! gives the disk a power cut would leave: synced bytes are there, every 512-byte block of an
//! unsynced write is there or not by the toss of a coin, and of the changes to names since the last
//! directory sync only a beginning has happened.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::log::Format;
use crate::log::disk::{Disk, DiskFile};

const BLOCK_BYTES: usize = 512;

/// What a power cut does to writes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unsynced {
    Lost,
    Kept,
    Torn,
}

/// Files in memory; see the module.
#[derive(Debug, Clone)]
pub struct MemoryDisk(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Signalled when syncs are let through again.
    released: Condvar,
}

type Names = BTreeMap<String, Arc<Mutex<Contents>>>;

#[derive(Debug, Default)]
struct State {
    names: Names,
    /// Names as of the last directory sync, and what was done since; kept only if crashable.
    synced_names: Names,
    unsynced_names: Vec<Rename>,
    crashable: bool,
    capacity_bytes: Option<u64>,
    operations: u64,
    fail: Option<Failure>,
    syncs_held: bool,
    zeros_held: bool,
    sync_failure: Option<io::ErrorKind>,
    format: Format,
    read_bytes: u64,
    /// The most that files took since it was asked for.
    peak_bytes: u64,
}

#[derive(Debug, Clone)]
enum Rename {
    Create(String, Arc<Mutex<Contents>>),
    Move(String, String),
    Remove(String),
}

#[derive(Debug, Default)]
struct Contents {
    live: Vec<u8>,
    /// What a power cut leaves for sure, and the writes since: `None` unless crashable.
    synced: Option<Synced>,
}

#[derive(Debug, Default)]
struct Synced {
    bytes: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

#[derive(Debug, Clone, Copy)]
struct Failure {
    at: u64,
    kind: io::ErrorKind,
    forever: bool,
}

impl Default for MemoryDisk {
    fn default() -> Self {
        MemoryDisk::new()
    }
}

impl MemoryDisk {
    /// A disk that cannot crash: one copy of every byte.
    pub fn new() -> MemoryDisk {
        MemoryDisk::from_state(State::default())
    }

    /// A disk for tests, with a power switch.
    pub fn crashable() -> MemoryDisk {
        MemoryDisk::from_state(State {
            crashable: true,
            ..State::default()
        })
    }

    fn from_state(state: State) -> MemoryDisk {
        MemoryDisk(Arc::new(Shared {
            state: Mutex::new(state),
            released: Condvar::new(),
        }))
    }

    /// The disk as it would be found after the power fails now. This one goes on.
    #[must_use]
    pub fn crash(&self, seed: u64) -> MemoryDisk {
        let state = self.0.lock();
        let mut random = fastrand::Rng::with_seed(seed);
        let happened = random.usize(0..=state.unsynced_names.len());
        let mut names = state.synced_names.clone();
        for change in state.unsynced_names.iter().take(happened) {
            change.apply(&mut names);
        }
        let left = names.iter().map(|(name, file)| {
            let left = lock(file).crashed(&mut random);
            (name.clone(), left)
        });
        let left = MemoryDisk::with_contents(left.collect());
        left.0.lock().format = state.format;
        left
    }

    /// Operations done so far: reads, writes, syncs and changes of names.
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Bytes read from files so far.
    pub fn read_bytes(&self) -> u64 {
        self.0.lock().read_bytes
    }

    /// The sum of file lengths.
    pub fn used_bytes(&self) -> u64 {
        self.0.lock().used_bytes()
    }

    /// The most that files took since the last call.
    pub fn take_peak_bytes(&self) -> u64 {
        let mut state = self.0.lock();
        let used_bytes = state.used_bytes();
        std::mem::replace(&mut state.peak_bytes, used_bytes).max(used_bytes)
    }

    /// Which versions would refuse it.
    pub fn format(&self) -> Format {
        self.0.lock().format
    }

    /// Lets the operation numbered `at` (see [`MemoryDisk::operations`]) fail, once.
    pub fn fail_once(&self, at: u64, kind: io::ErrorKind) {
        self.0.lock().fail = Some(Failure {
            at,
            kind,
            forever: false,
        });
    }

    /// Lets the operation numbered `at` fail and every one after it, as if the machine stopped.
    pub fn fail_from(&self, at: u64, kind: io::ErrorKind) {
        self.0.lock().fail = Some(Failure {
            at,
            kind,
            forever: true,
        });
    }

    /// Takes back what [`MemoryDisk::fail_once`] and [`MemoryDisk::fail_from`] asked for.
    pub fn repair(&self) {
        self.0.lock().fail = None;
    }

    /// Limits the sum of file lengths; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity_bytes = bytes;
    }

    /// Makes syncs wait until they are released.
    pub fn hold_syncs(&self, held: bool) {
        self.0.lock().syncs_held = held;
        self.0.released.notify_all();
    }

    /// Lets files that are laid out come to an end only when that is enough, or at once.
    #[cfg(test)]
    pub(crate) fn hold_zeros(&self, held: bool) {
        self.0.lock().zeros_held = held;
    }

    /// Lets every sync of a file fail, or none.
    pub fn fail_syncs(&self, kind: Option<io::ErrorKind>) {
        self.0.lock().sync_failure = kind;
    }

    /// Names and contents of all files.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.0.lock();
        state
            .names
            .iter()
            .map(|(name, file)| (name.clone(), lock(file).live.clone()))
            .collect()
    }

    /// A crashable disk with these files, all synced.
    pub fn with_contents(contents: BTreeMap<String, Vec<u8>>) -> MemoryDisk {
        let mut state = State {
            crashable: true,
            ..State::default()
        };
        for (name, live) in contents {
            state
                .names
                .insert(name, Arc::new(Mutex::new(Contents::crashable(live))));
        }
        state.synced_names = state.names.clone();
        MemoryDisk::from_state(state)
    }
}

impl Contents {
    fn crashable(live: Vec<u8>) -> Contents {
        let synced = Synced {
            bytes: live.clone(),
            unsynced: Vec::new(),
        };
        Contents {
            live,
            synced: Some(synced),
        }
    }

    fn write(&mut self, at: usize, written: &[u8]) {
        overwrite(&mut self.live, at, written);
        if let Some(synced) = &mut self.synced {
            synced.unsynced.push((at, written.to_vec()));
        }
    }

    fn crashed(&self, random: &mut fastrand::Rng) -> Vec<u8> {
        let Some(synced) = &self.synced else {
            return self.live.clone();
        };
        let mut bytes = synced.bytes.clone();
        let fate = match random.u8(0..4) {
            0 => Unsynced::Lost,
            1 => Unsynced::Kept,
            _ => Unsynced::Torn,
        };
        for (offset, written) in &synced.unsynced {
            let mut done = 0;
            while done < written.len() {
                let at = offset + done;
                let block_end = (at / BLOCK_BYTES + 1) * BLOCK_BYTES;
                let length = (block_end - at).min(written.len() - done);
                let kept = match fate {
                    Unsynced::Lost => false,
                    Unsynced::Kept => true,
                    Unsynced::Torn => random.bool(),
                };
                if kept {
                    overwrite(&mut bytes, at, &written[done..done + length]);
                }
                done += length;
            }
        }
        bytes
    }
}

fn overwrite(bytes: &mut Vec<u8>, at: usize, written: &[u8]) {
    if bytes.len() < at + written.len() {
        bytes.resize(at + written.len(), 0);
    }
    bytes[at..at + written.len()].copy_from_slice(written);
}

impl Rename {
    fn apply(&self, names: &mut Names) {
        match self {
            Rename::Create(name, file) => {
                names.insert(name.clone(), Arc::clone(file));
            }
            Rename::Move(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Rename::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an operation: counts it and fails it if that was asked for.
    fn operate(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        let number = state.operations;
        state.operations += 1;
        if let Some(failure) = state.fail
            && (number == failure.at || (failure.forever && number > failure.at))
        {
            return Err(io::Error::new(
                failure.kind,
                format!("operation {number} was told to fail"),
            ));
        }
        Ok(state)
    }
}

impl State {
    fn change_names(&mut self, change: Rename) {
        change.apply(&mut self.names);
        if self.crashable {
            self.unsynced_names.push(change);
        }
    }

    fn used_bytes(&self) -> u64 {
        // A file may have two names.
        let files: BTreeMap<_, _> = self
            .names
            .values()
            .map(|file| (Arc::as_ptr(file), file))
            .collect();
        files
            .values()
            .map(|file| as_u64(lock(file).live.len()))
            .sum()
    }

    /// Lets files grow by that much, if there is room.
    fn grow(&mut self, more_bytes: u64) -> io::Result<()> {
        let used_bytes = self.used_bytes() + more_bytes;
        if self
            .capacity_bytes
            .is_some_and(|capacity| used_bytes > capacity)
        {
            let full = "the disk in memory is full";
            return Err(io::Error::new(io::ErrorKind::StorageFull, full));
        }
        self.peak_bytes = self.peak_bytes.max(used_bytes);
        Ok(())
    }

    fn named(&self, name: &str) -> io::Result<Arc<Mutex<Contents>>> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no file {name:?}"));
        self.names.get(name).cloned().ok_or_else(missing)
    }
}

fn as_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn as_usize(number: u64) -> io::Result<usize> {
    usize::try_from(number).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.operate()?.names.keys().cloned().collect())
    }

    fn create(&self, name: &str, len_bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.operate()?;
        state.grow(len_bytes)?;
        let live = vec![0; as_usize(len_bytes)?];
        let crashable = state.crashable;
        let contents = if crashable {
            Contents::crashable(live)
        } else {
            Contents { live, synced: None }
        };
        let file = Arc::new(Mutex::new(contents));
        state.change_names(Rename::Create(name.to_owned(), Arc::clone(&file)));
        Ok(Arc::new(MemoryFile {
            disk: self.0.clone(),
            file,
        }))
    }

    fn create_until(
        &self,
        name: &str,
        len_bytes: u64,
        enough: &AtomicBool,
    ) -> io::Result<Arc<dyn DiskFile>> {
        while self.0.lock().zeros_held && !enough.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        self.create(name, len_bytes)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.0.operate()?.named(name)?;
        Ok(Arc::new(MemoryFile {
            disk: self.0.clone(),
            file,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.operate()?;
        state.named(from)?;
        state.change_names(Rename::Move(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.operate()?;
        state.named(name)?;
        state.change_names(Rename::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.0.operate()?;
        if state.crashable {
            state.synced_names = state.names.clone();
            state.unsynced_names.clear();
        }
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.operate()?;
        let file = state.named(from)?;
        if state.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.change_names(Rename::Create(to.to_owned(), file));
        Ok(())
    }

    fn raise_format(&self, format: Format) -> io::Result<()> {
        let mut state = self.0.operate()?;
        state.format = state.format.max(format);
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: Arc<Shared>,
    file: Arc<Mutex<Contents>>,
}

impl MemoryFile {
    fn operate(&self) -> io::Result<MutexGuard<'_, Contents>> {
        drop(self.disk.operate()?);
        Ok(lock(&self.file))
    }

    /// Begins a write, if there is room for what it makes the file longer.
    fn operate_up_to(&self, end: usize) -> io::Result<MutexGuard<'_, Contents>> {
        let mut state = self.disk.operate()?;
        let more = end.saturating_sub(lock(&self.file).live.len());
        if more > 0 {
            state.grow(as_u64(more))?;
        }
        drop(state);
        Ok(lock(&self.file))
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let offset = as_usize(offset)?;
        self.disk.operate()?.read_bytes += as_u64(buffer.len());
        let contents = lock(&self.file);
        let end = offset.saturating_add(buffer.len());
        let found = contents
            .live
            .get(offset..end)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = as_usize(offset)?;
        match self.operate_up_to(offset.saturating_add(bytes.len())) {
            Ok(mut contents) => {
                contents.write(offset, bytes);
                Ok(())
            }
            Err(error) => {
                // A write that fails may have got half way.
                lock(&self.file).write(offset, &bytes[..bytes.len() / 2]);
                Err(error)
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        while state.syncs_held {
            state = self
                .disk
                .released
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(kind) = state.sync_failure {
            return Err(io::Error::new(kind, "syncs were told to fail"));
        }
        drop(state);
        if let Some(synced) = &mut self.operate()?.synced {
            for (offset, written) in std::mem::take(&mut synced.unsynced) {
                overwrite(&mut synced.bytes, offset, &written);
            }
        }
        Ok(())
    }

    fn truncate(&self, len_bytes: u64) -> io::Result<()> {
        let length = as_usize(len_bytes)?;
        let mut contents = self.operate()?;
        contents.live.resize(length, 0);
        if contents.synced.is_some() {
            let live = std::mem::take(&mut contents.live);
            *contents = Contents::crashable(live);
        }
        Ok(())
    }

    fn lengthen(&self, len_bytes: u64) -> io::Result<()> {
        let (length, has) = (as_usize(len_bytes)?, lock(&self.file).live.len());
        if let Some(more) = length.checked_sub(has) {
            self.write_at(&vec![0; more], as_u64(has))?;
        }
        self.sync()
    }

    fn len_bytes(&self) -> io::Result<u64> {
        Ok(as_u64(self.operate()?.live.len()))
    }
}

fn lock(file: &Mutex<Contents>) -> MutexGuard<'_, Contents> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(disk: &MemoryDisk, name: &str) -> Vec<u8> {
        disk.contents().remove(name).unwrap()
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_only_that_for_sure() {
        let disk = MemoryDisk::crashable();
        let file = disk.create("a", 2048).unwrap();
        disk.sync_directory().unwrap();
        file.write_at(&[1; 1024], 0).unwrap();
        file.sync().unwrap();
        file.write_at(&[2; 1024], 1024).unwrap();
        let mut outcomes = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let left = read(&disk.crash(seed), "a");
            assert_eq!(left[..1024], [1; 1024]);
            for block in left[1024..].chunks(512) {
                assert!(block == [0; 512] || block == [2; 512]);
            }
            outcomes.insert((left[1024], left[1536]));
        }
        assert_eq!(
            outcomes.len(),
            4,
            "lost, kept and both ways of tearing: {outcomes:?}"
        );
        assert_eq!(read(&disk, "a")[1024..], [2; 1024]);
    }

    #[test]
    fn a_crash_undoes_names_that_were_not_synced() {
        let disk = MemoryDisk::crashable();
        disk.create("a", 1).unwrap();
        disk.sync_directory().unwrap();
        disk.rename("a", "b").unwrap();
        let names = |seed| disk.crash(seed).contents().into_keys().collect::<Vec<_>>();
        let outcomes: std::collections::BTreeSet<_> = (0..50).map(names).collect();
        assert_eq!(outcomes.len(), 2);
    }

    #[test]
    fn the_nth_operation_fails_and_a_full_disk_is_full() {
        let disk = MemoryDisk::new();
        disk.set_capacity(Some(10));
        assert_eq!(
            disk.create("a", 11).unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
        let file = disk.create("a", 10).unwrap();
        disk.fail_once(disk.operations() + 1, io::ErrorKind::BrokenPipe);
        file.write_at(b"x", 0).unwrap();
        assert_eq!(file.sync().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        file.sync().unwrap();
    }
}
