//! A disk that remembers every step that was taken on it, lets any operation fail, and tells what a power cut may
//! leave after each step. Knows nothing of what the log writes.
//!
//! What it takes a disk for: bytes written are sure to be there only after a sync of their file; until then each
//! write, or each block of it, may have arrived or not, later ones without earlier ones. Names are sure only after
//! a sync of the directory. After a sync that failed the system takes its bytes for written: each has arrived or
//! never will, and syncing again changes nothing; reads find them until the power is cut.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::log::{Disk, DiskFile, Format};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Names and contents of files.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// What was done, in the parts that a power cut may come between. Files are numbered as they are created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Create(String, usize),
    Write(usize, usize, Vec<u8>),
    Resize(usize, usize),
    Sync(usize),
    SyncFailed(usize),
    Rename(String, String),
    Remove(String),
    /// A file gets another name beside its own.
    Link(String, String),
    Raise(Format),
    SyncDirectory,
    SyncDirectoryFailed,
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing is done.
    Broken,
    /// Nothing is done, for want of space.
    Full,
    /// Half of it is done.
    Short,
}

/// Which operations fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The one of this number.
    Once(u64, Failure),
    /// It and all after it that would change something.
    From(u64, Failure),
}

/// What a log with a bug would not do: this disk does not do it for it, and says that it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Omission {
    /// What is cut off is not zeroed.
    Zeros,
    /// Files of this name are not synced.
    SyncsOf(&'static str),
}

/// What is kept of the disk when the power is cut: decided for each item that waits for a sync.
#[derive(Debug)]
pub(super) enum Fate {
    /// The items of the set bits are kept.
    Mask(u64),
    /// As drawn.
    Drawn(fastrand::Rng, Grain),
}

/// In what pieces writes arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grain {
    Lost,
    Kept,
    /// As a whole.
    Whole,
    /// In blocks of so many bytes, each as it was after some of the writes to it.
    Block(usize),
}

impl Grain {
    pub(super) const ALL: [Grain; 5] = [
        Grain::Lost,
        Grain::Kept,
        Grain::Whole,
        Grain::Block(512),
        Grain::Block(4096),
    ];
}

/// What is sure to be on a disk, and what may be.
#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    files: Vec<Stored>,
    names: BTreeMap<String, usize>,
    /// As the process sees them.
    live_names: BTreeMap<String, usize>,
    waiting_names: Vec<Naming>,
    format: Format,
}

#[derive(Debug, Clone)]
struct Naming {
    removed: Option<String>,
    added: Option<(String, usize)>,
    raises: Format,
}

#[derive(Debug, Clone, Default)]
struct Stored {
    bytes: Vec<u8>,
    waiting: Vec<Waiting>,
}

#[derive(Debug, Clone)]
enum Waiting {
    Write(usize, Vec<u8>),
    Resize(usize),
}

impl Image {
    pub(super) fn of(files: &Files, format: Format) -> Image {
        let names: BTreeMap<_, _> = files.keys().cloned().zip(0..).collect();
        let stored = files.values().map(|bytes| Stored {
            bytes: bytes.clone(),
            waiting: Vec::new(),
        });
        Image {
            files: stored.collect(),
            live_names: names.clone(),
            names,
            waiting_names: Vec::new(),
            format,
        }
    }

    /// Takes a step; chance decides what a failed sync has written.
    pub(super) fn apply(&mut self, step: &Step, random: &mut fastrand::Rng) {
        match step {
            Step::Create(name, file) => {
                self.files.push(Stored::default());
                assert_eq!(self.files.len(), file + 1, "files are numbered in order");
                self.rename(None, Some((name.clone(), *file)));
            }
            Step::Write(file, at, bytes) => {
                let waiting = Waiting::Write(*at, bytes.clone());
                self.files[*file].waiting.push(waiting);
            }
            Step::Resize(file, length) => {
                self.files[*file].waiting.push(Waiting::Resize(*length));
            }
            Step::Sync(file) => self.files[*file].settle(&mut Fate::Mask(u64::MAX), true),
            Step::SyncFailed(file) => {
                let grain = Grain::ALL[random.usize(..Grain::ALL.len())];
                let mut fate = Fate::Drawn(random.fork(), grain);
                self.files[*file].settle(&mut fate, true);
            }
            Step::Rename(from, to) => {
                let file = self.live_names[from];
                self.rename(Some(from.clone()), Some((to.clone(), file)));
            }
            Step::Remove(name) => self.rename(Some(name.clone()), None),
            Step::Link(from, to) => {
                let file = self.live_names[from];
                self.rename(None, Some((to.clone(), file)));
            }
            Step::Raise(format) => self.waiting_names.push(Naming {
                removed: None,
                added: None,
                raises: *format,
            }),
            Step::SyncDirectory => {
                for naming in std::mem::take(&mut self.waiting_names) {
                    self.format = self.format.max(naming.raises);
                    naming.apply(&mut self.names);
                }
            }
            // A journal keeps the order of names, or stops the file system: they go on waiting.
            Step::SyncDirectoryFailed => {}
        }
    }

    fn rename(&mut self, removed: Option<String>, added: Option<(String, usize)>) {
        let naming = Naming {
            removed,
            added,
            raises: Format::Plain,
        };
        naming.apply(&mut self.live_names);
        self.waiting_names.push(naming);
    }

    /// How many items wait for a sync.
    pub(super) fn waiting(&self) -> usize {
        let files = self.files.iter().map(|file| file.waiting.len());
        self.waiting_names.len() + files.sum::<usize>()
    }

    /// What a power cut leaves, and of which format.
    pub(super) fn cut(&self, mut fate: Fate) -> (Files, Format) {
        let (mut names, mut format) = (self.names.clone(), self.format);
        // With a journal, of the changes to names a beginning; else any of them.
        let in_order = match &mut fate {
            Fate::Mask(_) => None,
            Fate::Drawn(random, _) => {
                let kept = random.usize(0..=self.waiting_names.len());
                random.bool().then_some(kept)
            }
        };
        for (number, naming) in self.waiting_names.iter().enumerate() {
            if in_order.map_or_else(|| fate.keeps(), |kept| number < kept) {
                format = format.max(naming.raises);
                naming.apply(&mut names);
            }
        }
        let mut files = self.files.clone();
        for file in &mut files {
            file.settle(&mut fate, false);
        }
        let left = names
            .into_iter()
            .map(|(name, file)| (name, files[file].bytes.clone()));
        (left.collect(), format)
    }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        if let Some(name) = &self.removed {
            names.remove(name);
        }
        if let Some((name, file)) = &self.added {
            names.insert(name.clone(), *file);
        }
    }
}

impl Stored {
    /// Makes what fate keeps of the waiting bytes sure, and forgets the rest. A length that a failed sync was to
    /// write is kept: it lies in the journal, as names do.
    fn settle(&mut self, fate: &mut Fate, keeps_lengths: bool) {
        // Of a block in which one write is missing the later ones are missing too.
        let mut stale = BTreeSet::new();
        for waiting in std::mem::take(&mut self.waiting) {
            match waiting {
                Waiting::Resize(length) => {
                    if fate.keeps() || keeps_lengths {
                        self.bytes.resize(length, 0);
                    }
                }
                Waiting::Write(at, bytes) => {
                    for (at, bytes) in fate.pieces(at, &bytes) {
                        let block = fate.block_of(at);
                        if stale.contains(&block) || !fate.keeps() {
                            stale.extend(block.is_some().then_some(block));
                        } else {
                            overwrite(&mut self.bytes, at, bytes);
                        }
                    }
                }
            }
        }
    }
}

impl Fate {
    fn keeps(&mut self) -> bool {
        match self {
            Fate::Mask(mask) => {
                let kept = *mask & 1 == 1;
                // What has no bit of its own goes with the last.
                *mask = (*mask >> 1) | (*mask & (1 << 63));
                kept
            }
            Fate::Drawn(_, Grain::Lost) => false,
            Fate::Drawn(_, Grain::Kept) => true,
            Fate::Drawn(random, Grain::Whole | Grain::Block(_)) => random.bool(),
        }
    }

    fn block_bytes(&self) -> Option<usize> {
        match self {
            Fate::Drawn(_, Grain::Block(bytes)) => Some(*bytes),
            _ => None,
        }
    }

    fn block_of(&self, at: usize) -> Option<usize> {
        self.block_bytes().map(|bytes| at / bytes)
    }

    fn pieces<'a>(&self, at: usize, bytes: &'a [u8]) -> Vec<(usize, &'a [u8])> {
        let (mut pieces, mut done) = (Vec::new(), 0);
        while done < bytes.len() {
            let here = at + done;
            let block_end = self
                .block_bytes()
                .map_or(usize::MAX, |block| (here / block + 1) * block);
            let end = bytes.len().min(block_end - at);
            pieces.push((here, &bytes[done..end]));
            done = end;
        }
        pieces
    }
}

fn overwrite(bytes: &mut Vec<u8>, at: usize, written: &[u8]) {
    if bytes.len() < at + written.len() {
        bytes.resize(at + written.len(), 0);
    }
    bytes[at..at + written.len()].copy_from_slice(written);
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct TracedDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<String, usize>,
    files: Vec<Vec<u8>>,
    trace: Vec<Step>,
    operations: u64,
    fault: Option<Fault>,
    /// It stops after so many steps.
    power: Option<usize>,
    start: Image,
    omission: Option<Omission>,
    /// It writes the bytes it is given, and not the pages that they are in.
    without_pages: bool,
}

/// Bytes of a page, small as the frames of tests are.
const PAGE_BYTES: usize = 64;

impl TracedDisk {
    pub(super) fn new() -> TracedDisk {
        TracedDisk::holding((Files::new(), Format::Plain))
    }

    /// A disk as it is found after a power cut.
    pub(super) fn holding((files, format): (Files, Format)) -> TracedDisk {
        TracedDisk(Arc::new(Mutex::new(State {
            names: files.keys().cloned().zip(0..).collect(),
            start: Image::of(&files, format),
            files: files.into_values().collect(),
            ..State::default()
        })))
    }

    /// A disk as another process finds it while the power stays on: what waits for a sync goes on waiting.
    pub(super) fn alive(image: Image) -> TracedDisk {
        let mut files = image.files.clone();
        for file in &mut files {
            file.settle(&mut Fate::Mask(u64::MAX), true);
        }
        TracedDisk(Arc::new(Mutex::new(State {
            names: image.live_names.clone(),
            files: files.into_iter().map(|file| file.bytes).collect(),
            start: image,
            ..State::default()
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many steps were taken.
    pub(super) fn steps(&self) -> usize {
        self.lock().trace.len()
    }

    /// The steps taken since number `from`.
    pub(super) fn trace(&self, from: usize) -> Vec<Step> {
        self.lock().trace[from..].to_vec()
    }

    /// How many operations were asked for, reads included.
    pub(super) fn operations(&self) -> u64 {
        self.lock().operations
    }

    pub(super) fn set_fault(&self, fault: Option<Fault>) {
        self.lock().fault = fault;
    }

    pub(super) fn omit(&self, omission: Option<Omission>) {
        self.lock().omission = omission;
    }

    pub(super) fn without_pages(self) -> TracedDisk {
        self.lock().without_pages = true;
        self
    }

    /// Stops it after `more` more steps: then every operation fails.
    pub(super) fn stop_after(&self, more: usize) {
        let mut state = self.lock();
        if !state.is_off() {
            state.power = Some(state.trace.len() + more);
        }
    }

    /// It goes on as if only the process had been stopped.
    pub(super) fn revive(&self) {
        self.lock().power = None;
    }

    pub(super) fn is_off(&self) -> bool {
        self.lock().is_off()
    }

    /// What the disk held before its first step.
    pub(super) fn start(&self) -> Image {
        self.lock().start.clone()
    }

    /// What the disk holds now, and may hold.
    pub(super) fn image(&self, random: &mut fastrand::Rng) -> Image {
        let state = self.lock();
        let mut image = state.start.clone();
        for step in &state.trace {
            image.apply(step, random);
        }
        image
    }
}

impl State {
    /// Begins an operation. `Some`: it is to fail so.
    fn begin(&mut self, changes: bool) -> io::Result<Option<Failure>> {
        if self.is_off() {
            return Err(io::Error::other("the disk was stopped"));
        }
        let number = self.operations;
        self.operations += 1;
        Ok(match self.fault {
            Some(Fault::Once(at, failure)) if number == at => Some(failure),
            Some(Fault::From(at, failure)) if changes && number >= at => Some(failure),
            _ => None,
        })
    }

    fn is_off(&self) -> bool {
        self.power.is_some_and(|steps| self.trace.len() >= steps)
    }

    /// Begins an operation that does nothing at all if it fails.
    fn begin_whole(&mut self, changes: bool) -> io::Result<()> {
        self.begin(changes)?
            .map_or(Ok(()), |failure| Err(failure.into()))
    }

    fn take(&mut self, step: Step) -> io::Result<()> {
        if self.is_off() {
            return Err(io::Error::other("the disk was stopped"));
        }
        if self.omits(&step) {
            return Ok(());
        }
        match &step {
            Step::Create(name, file) => {
                self.files.push(Vec::new());
                self.names.insert(name.clone(), *file);
            }
            Step::Write(file, at, bytes) => overwrite(&mut self.files[*file], *at, bytes),
            Step::Resize(file, length) => self.files[*file].resize(*length, 0),
            Step::Rename(from, to) => {
                let missing = || io::Error::from(io::ErrorKind::NotFound);
                let file = self.names.remove(from).ok_or_else(missing)?;
                self.names.insert(to.clone(), file);
            }
            Step::Remove(name) => {
                let missing = || io::Error::from(io::ErrorKind::NotFound);
                self.names.remove(name).ok_or_else(missing)?;
            }
            Step::Link(from, to) => {
                let missing = || io::Error::from(io::ErrorKind::NotFound);
                let file = self.names.get(from).copied().ok_or_else(missing)?;
                if self.names.contains_key(to) {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                self.names.insert(to.clone(), file);
            }
            Step::Sync(_)
            | Step::SyncFailed(_)
            | Step::Raise(_)
            | Step::SyncDirectory
            | Step::SyncDirectoryFailed => {}
        }
        self.trace.push(step);
        Ok(())
    }

    fn omits(&self, step: &Step) -> bool {
        match (self.omission, step) {
            (Some(Omission::Zeros), Step::Write(file, at, bytes)) => {
                let written = self.files[*file].get(*at..).unwrap_or_default();
                bytes.iter().all(|byte| *byte == 0) && written.iter().any(|byte| *byte != 0)
            }
            (Some(Omission::SyncsOf(name)), Step::Sync(file)) => self.names.get(name) == Some(file),
            _ => false,
        }
    }

    /// Syncs a file, or fails to.
    fn sync(&mut self, file: usize, failure: Option<Failure>) -> io::Result<()> {
        let Some(failure) = failure else {
            return self.take(Step::Sync(file));
        };
        self.take(Step::SyncFailed(file))?;
        Err(failure.into())
    }

    fn sync_directory(&mut self, failure: Option<Failure>) -> io::Result<()> {
        let Some(failure) = failure else {
            return self.take(Step::SyncDirectory);
        };
        self.take(Step::SyncDirectoryFailed)?;
        Err(failure.into())
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> io::Error {
        io::Error::from_raw_os_error(match failure {
            Failure::Broken | Failure::Short => EIO,
            Failure::Full => ENOSPC,
        })
    }
}

impl Disk for TracedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.lock();
        state.begin_whole(false)?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str, len_bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.lock();
        let failure = state.begin(true)?;
        let file = state.files.len();
        let length = usize::try_from(len_bytes).unwrap();
        if let Some(failure) = failure {
            if failure == Failure::Short {
                state.take(Step::Create(name.to_owned(), file))?;
                state.take(Step::Write(file, 0, vec![0; length / 2]))?;
                // A disk that fails from now on keeps what is half-written.
                if matches!(state.fault, Some(Fault::Once(..))) {
                    state.take(Step::Remove(name.to_owned()))?;
                }
            }
            return Err(failure.into());
        }
        state.take(Step::Create(name.to_owned(), file))?;
        state.take(Step::Write(file, 0, vec![0; length]))?;
        state.sync(file, None)?;
        Ok(Arc::new(TracedFile(self.clone(), file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.lock();
        state.begin_whole(false)?;
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let file = state.names.get(name).copied().ok_or_else(missing)?;
        Ok(Arc::new(TracedFile(self.clone(), file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.begin_whole(true)?;
        state.take(Step::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.begin_whole(true)?;
        state.take(Step::Remove(name.to_owned()))
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.lock();
        let failure = state.begin(true)?;
        state.sync_directory(failure)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.begin_whole(true)?;
        state.take(Step::Link(from.to_owned(), to.to_owned()))
    }

    fn raise_format(&self, format: Format) -> io::Result<()> {
        let mut state = self.lock();
        if let Some(failure) = state.begin(true)? {
            // The mark is there and may not survive: not what a failed sync of the log's own files is about.
            if failure == Failure::Short {
                state.take(Step::Raise(format))?;
            }
            return Err(failure.into());
        }
        state.take(Step::Raise(format))?;
        state.take(Step::SyncDirectory)
    }
}

#[derive(Debug)]
struct TracedFile(TracedDisk, usize);

impl DiskFile for TracedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin_whole(false)?;
        let offset = usize::try_from(offset).unwrap();
        let found = state.files[self.1].get(offset..offset + buffer.len());
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        let failure = state.begin(true)?;
        let at = usize::try_from(offset).unwrap();
        let length = match failure {
            None => bytes.len(),
            Some(Failure::Short) => bytes.len() / 2,
            Some(Failure::Broken | Failure::Full) => 0,
        };
        if length > 0 {
            state.take(Step::Write(self.1, at, bytes[..length].to_vec()))?;
        }
        failure.map_or(Ok(()), |failure| Err(failure.into()))
    }

    /// As whole pages: with what is before it in the first, and zeros up to the end of the last.
    fn write_last(&self, pieces: &[Bytes], offset: u64) -> io::Result<()> {
        let mut at = usize::try_from(offset).unwrap();
        for (number, piece) in pieces.iter().enumerate() {
            let state = self.0.lock();
            let (mut from, mut bytes) = (at, piece.to_vec());
            at += piece.len();
            if number == 0 && !state.without_pages {
                let page = from / PAGE_BYTES * PAGE_BYTES;
                if let Some(before) = state.files[self.1].get(page..from) {
                    bytes.splice(..0, before.iter().copied());
                    from = page;
                }
            }
            if number + 1 == pieces.len() && !state.without_pages {
                bytes.resize(at.next_multiple_of(PAGE_BYTES) - from, 0);
            }
            drop(state);
            self.write_at(&bytes, u64::try_from(from).unwrap())?;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        let failure = state.begin(true)?;
        state.sync(self.1, failure)
    }

    fn truncate(&self, len_bytes: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        let failure = state.begin(true)?;
        if failure.is_none_or(|failure| failure == Failure::Short) {
            let length = usize::try_from(len_bytes).unwrap();
            state.take(Step::Resize(self.1, length))?;
            return state.sync(self.1, failure);
        }
        failure.map_or(Ok(()), |failure| Err(failure.into()))
    }

    fn lengthen(&self, len_bytes: u64) -> io::Result<()> {
        let has = self.len_bytes()?;
        let more = usize::try_from(len_bytes.saturating_sub(has)).unwrap();
        self.write_at(&vec![0; more], has)?;
        self.sync()
    }

    fn len_bytes(&self) -> io::Result<u64> {
        let mut state = self.0.lock();
        state.begin_whole(false)?;
        Ok(u64::try_from(state.files[self.1].len()).unwrap())
    }
}

/// Each way a cut can go is met, a failed sync is not made good by another, and names wait for the directory.
#[test]
fn a_cut_leaves_what_was_synced_and_any_part_of_the_rest() {
    let disk = TracedDisk::new();
    let file = disk.create("a", 8192).unwrap();
    disk.sync_directory().unwrap();
    file.write_at(&[1; 1024], 0).unwrap();
    file.sync().unwrap();
    file.write_at(&[2; 1024], 512).unwrap();
    file.write_at(&[3; 512], 1024).unwrap();
    disk.rename("a", "b").unwrap();
    let image = disk.image(&mut fastrand::Rng::with_seed(0));
    assert_eq!(image.waiting(), 3);
    let mut seen = BTreeSet::new();
    for seed in 0..400u64 {
        let grain = Grain::ALL[usize::try_from(seed % 5).unwrap()];
        let random = fastrand::Rng::with_seed(seed);
        let (files, _) = image.cut(Fate::Drawn(random, grain));
        let (name, bytes) = files.first_key_value().unwrap();
        assert_eq!((files.len(), &bytes[..512]), (1, &[1; 512][..]));
        assert!(bytes[1536..].iter().all(|byte| *byte == 0));
        assert!(
            grain != Grain::Block(4096)
                || [[1, 0], [2, 2], [2, 3]].contains(&[bytes[512], bytes[1024]])
        );
        seen.insert((name.clone(), bytes[512], bytes[1024]));
    }
    let contents: BTreeSet<_> = seen.iter().map(|(_, a, b)| (*a, *b)).collect();
    let all = [(1, 0), (1, 2), (1, 3), (2, 0), (2, 2), (2, 3)];
    assert_eq!(
        contents,
        BTreeSet::from(all),
        "lost, kept, torn and turned round"
    );
    assert_eq!(seen.len(), 12, "with either name");

    disk.set_fault(Some(Fault::Once(disk.operations(), Failure::Broken)));
    file.sync().unwrap_err();
    file.sync().unwrap();
    let mut left = BTreeSet::new();
    for seed in 0..100 {
        let image = disk.image(&mut fastrand::Rng::with_seed(seed));
        let (files, _) = image.cut(Fate::Mask(u64::MAX));
        left.insert((files["b"][512], files["b"][1024]));
    }
    assert_eq!(left, BTreeSet::from(all));
}
