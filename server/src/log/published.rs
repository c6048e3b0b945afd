//! What readers see: tails, indexes, recent bytes and metadata, all of it as durable as the log's
//! setting says. The committer writes it, and no lock that it takes is held across a file operation.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use tokio::sync::watch;

use crate::log::block_cache::BlockCache;
use crate::log::disk::{Disk, DiskFile};
use crate::log::entry::ShardState;
use crate::log::extent::Index;
use crate::log::frame::{Magic, Place};
use crate::log::index::{FooterCache, Sealed, Segment, SegmentView, Segments};
use crate::log::open_files::OpenFiles;
use crate::log::plan::{Plan, Shards};
use crate::log::spare::{Promise, SpareDesk};
use crate::log::tail_cache::TailCache;
use crate::log::tails::Tails;
use crate::log::{Error, LogConfig, LogShard, Tail, segment};

/// A file that may become the spare.
pub(crate) type Promised<'a> = (Promise<'a>, Arc<dyn DiskFile>);

/// See the module. Locks are taken one at a time, but for `files` and then `loading`, which are held while others are taken.
#[derive(Debug)]
pub(crate) struct Published<M> {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) magic: Magic,
    metadata: RwLock<Arc<M>>,
    tails: Tails,
    segments: RwLock<Segments>,
    tail_cache: Mutex<TailCache>,
    footers: Mutex<FooterCache>,
    block_cache: Mutex<BlockCache>,
    /// Held while the files of sealed segments are removed or replaced, by trimming and rewriting.
    files: Mutex<()>,
    /// Held by who opens a segment's file and reads its footer: one at a time, or as many readers would hold as many
    /// copies of it; and by who takes the file's name away, so that whoever has the file is known. Like `files` it is held
    /// across file operations; the committer takes neither.
    loading: Mutex<()>,
    open_files: Mutex<OpenFiles>,
    /// The next segment's file.
    pub(crate) spare: Arc<SpareDesk>,
    /// The committer is at work.
    committing: AtomicBool,
    poison: OnceLock<Error>,
    closed: watch::Sender<bool>,
}

impl<M> Published<M> {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        magic: Magic,
        config: &LogConfig,
        (metadata, shards): (Arc<M>, &Shards),
        segments: Segments,
    ) -> Published<M> {
        let tails = shards.iter().map(|(shard, state)| (*shard, tail(*state)));
        let mut open_files = OpenFiles::default();
        open_files.insert(segments.active.number, &segments.active.file);
        let spare = SpareDesk::new(Arc::clone(&disk), config.segment_bytes);
        Published {
            disk,
            magic,
            metadata: RwLock::new(metadata),
            tails: Tails::new(tails),
            segments: RwLock::new(segments),
            tail_cache: Mutex::new(TailCache::new(config.tail_cache_bytes)),
            footers: Mutex::new(FooterCache::new(config.footer_cache_bytes)),
            block_cache: Mutex::new(BlockCache::new(config.block_cache_bytes)),
            files: Mutex::default(),
            loading: Mutex::new(()),
            open_files: Mutex::new(open_files),
            spare: Arc::new(spare),
            committing: AtomicBool::new(false),
            poison: OnceLock::new(),
            closed: watch::Sender::new(false),
        }
    }

    pub(crate) fn metadata(&self) -> Arc<M> {
        Arc::clone(&self.metadata.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn tail(&self, shard: LogShard) -> Option<Tail> {
        self.tails.get(shard)
    }

    pub(crate) fn watch(&self, shard: LogShard) -> Option<watch::Receiver<Tail>> {
        self.tails.watch(shard)
    }

    /// Whether the committer is at work.
    pub(crate) fn is_committing(&self) -> bool {
        self.committing.load(Ordering::Relaxed)
    }

    pub(crate) fn set_committing(&self, committing: bool) {
        self.committing.store(committing, Ordering::Relaxed);
    }

    pub(crate) fn watch_closed(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Wakes everybody who waits for records: none will come.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    pub(crate) fn poison(&self, operation: &'static str, reason: &std::io::Error) -> Error {
        let error = Error::Poisoned {
            operation,
            reason: reason.to_string(),
        };
        self.poison.get_or_init(|| error).clone()
    }

    /// The failure after which nothing more is written.
    pub(crate) fn poisoned(&self) -> Option<&Error> {
        self.poison.get()
    }

    /// Makes names survive a power cut. Once that has failed nobody knows which of them do, and the next sync would
    /// not tell: the log takes no more writes, and no name is changed any more.
    pub(crate) fn sync_directory(&self) -> Result<(), Error> {
        self.check_sound()?;
        let synced = self.disk.sync_directory();
        synced.map_err(|source| self.poison("a sync of the directory", &source))
    }

    /// Fails if something that must not be tried again has failed.
    pub(crate) fn check_sound(&self) -> Result<(), Error> {
        self.poisoned().map_or(Ok(()), |error| Err(error.clone()))
    }

    pub(crate) fn segments(&self) -> RwLockReadGuard<'_, Segments> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn range(&self) -> RangeInclusive<u64> {
        let segments = self.segments();
        segments.first..=segments.active.number
    }

    /// Publishes a commit written at `offset` of the active segment: first the bytes and where they
    /// are, then new shards, then the metadata, then the tails: who sees that a shard is sealed finds
    /// what came after it in the metadata.
    pub(crate) fn publish(
        &self,
        plan: &mut Plan<M>,
        offset: u64,
        pieces: Vec<Bytes>,
        shards: &Shards,
    ) {
        let number = self.segments().active.number;
        self.tail_cache().push(number, offset, pieces);
        {
            let mut segments = self
                .segments
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            for shard in &plan.created {
                segments.active.index.create(*shard);
            }
            for (shard, mut run) in plan.runs.drain(..) {
                run.offset += offset;
                segments.active.index.push(shard, run);
            }
        }
        if !plan.created.is_empty() {
            let created = plan.created.iter().copied();
            self.tails
                .create(created.filter(|shard| shards.contains_key(shard)));
        }
        *self
            .metadata
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::clone(&plan.metadata);
        if !plan.dropped.is_empty() {
            self.tails.remove(&plan.dropped);
        }
        let touched = plan.touched.iter();
        let moved = touched.filter_map(|shard| Some((*shard, tail(*shards.get(shard)?))));
        self.tails.move_to(moved);
    }

    /// Makes `next` the active segment; the one before is sealed.
    pub(crate) fn rotate(&self, next: Segment) {
        self.open_files().insert(next.number, &next.file);
        let mut segments = self
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let Segment {
            number,
            file,
            index,
        } = std::mem::replace(&mut segments.active, next);
        drop(segments);
        let index = Index::Runs(index);
        self.footers().insert(Arc::new(Sealed {
            number,
            file,
            index,
        }));
    }

    /// Forgets the oldest segment, if it is that one.
    pub(crate) fn forget(&self, segment: u64) {
        {
            let mut segments = self
                .segments
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            if segments.first == segment {
                segments.first += 1;
            }
        }
        self.footers().remove(segment);
    }

    /// Takes back that the oldest segment was forgotten: it could not be removed.
    pub(crate) fn remember(&self, segment: u64) {
        let mut segments = self
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if segments.first == segment + 1 {
            segments.first = segment;
        }
    }

    pub(crate) fn tail_cache(&self) -> MutexGuard<'_, TailCache> {
        self.tail_cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn block_cache(&self) -> MutexGuard<'_, BlockCache> {
        self.block_cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn open_files(&self) -> MutexGuard<'_, OpenFiles> {
        self.open_files
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn loading(&self) -> MutexGuard<'_, ()> {
        self.loading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn footers(&self) -> MutexGuard<'_, FooterCache> {
        self.footers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One at a time removes or replaces files of sealed segments.
    pub(crate) fn files_turn(&self) -> MutexGuard<'_, ()> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks into the index of a segment, read from its footer if need be. `None`: the segment has
    /// been removed.
    pub(crate) fn with_index<T>(
        &self,
        number: u64,
        look: impl FnOnce(SegmentView<'_>) -> T,
    ) -> Result<Option<T>, Error> {
        {
            let segments = self.segments();
            if number < segments.first {
                return Ok(None);
            }
            if number == segments.active.number {
                return Ok(Some(look(segments.active.view())));
            }
        }
        let cached = self.footers().get(number);
        let segment = match cached {
            Some(segment) => Some(segment),
            None => self.load_once(number)?,
        };
        Ok(segment.map(|segment| look(segment.view())))
    }

    /// The footer, which somebody else may have loaded meanwhile.
    fn load_once(&self, number: u64) -> Result<Option<Arc<Sealed>>, Error> {
        let _one_at_a_time = self.loading();
        let cached = self.footers().get(number);
        if cached.is_some() {
            return Ok(cached);
        }
        let segment = match self.load_alone(number) {
            Ok((segment, _)) => Arc::new(segment),
            Err(_) if number < self.segments().first => return Ok(None),
            Err(error) => return Err(error),
        };
        self.footers().insert(Arc::clone(&segment));
        Ok(Some(segment))
    }

    /// A sealed segment and the place of its footer, as they are in its file now.
    pub(crate) fn load(&self, number: u64) -> Result<(Sealed, Place), Error> {
        let _one_at_a_time = self.loading();
        self.load_alone(number)
    }

    fn load_alone(&self, number: u64) -> Result<(Sealed, Place), Error> {
        let opened = self.open_files().get(number);
        let file = if let Some(file) = opened {
            file
        } else {
            let file = segment::open(self.disk.as_ref(), &segment::name(number))?;
            self.open_files().insert(number, &file);
            file
        };
        segment::load(file, number, self.magic)
    }

    /// Renames the file of a rewritten segment over that of the old one, whose readers go on with what they
    /// have. Without readers it may become the spare. `false`: the segment has been removed meanwhile.
    pub(crate) fn replace(
        &self,
        rewritten: Sealed,
        old: (Arc<dyn DiskFile>, u64),
    ) -> Result<bool, Error> {
        let number = rewritten.number;
        let name = segment::name(number);
        let io = |operation| move |source| Error::io(operation, segment::REWRITE, source);
        let _turn = self.files_turn();
        if number < self.segments().first {
            return Ok(false);
        }
        self.check_sound()?;
        let (old, old_bytes) = old;
        let promise = self.spare.promise(old_bytes);
        let promise = promise.and_then(|promise| promise.link(&name));
        {
            let _nobody_opens_it = self.loading();
            let renamed = self.disk.rename(segment::REWRITE, &name);
            renamed.map_err(io("renaming"))?;
            self.open_files().insert(number, &rewritten.file);
            self.footers().replace(Arc::new(rewritten));
        }
        self.sync_directory()?;
        if let Some(promise) = promise {
            promise.bring(old);
        }
        Ok(true)
    }

    /// Takes the name of a forgotten segment's file away. What is given may become the spare, once that survives a power cut.
    pub(crate) fn take_away(&self, number: u64) -> Result<Option<Promised<'_>>, Error> {
        let name = segment::name(number);
        let io = |source| Error::io("removing", &name, source);
        let _nobody_opens_it = self.loading();
        let opened = self.open_files().get(number);
        let file = opened.map_or_else(|| self.disk.open(&name), Ok);
        let file = file.map_err(io)?;
        let promise = self.spare.promise(file.len_bytes().map_err(io)?);
        let Some(promise) = promise else {
            self.disk.remove(&name).map_err(io)?;
            return Ok(None);
        };
        let promise = promise.rename(&name).map_err(io)?;
        self.open_files().forget(number);
        Ok(Some((promise, file)))
    }
}

fn tail(state: ShardState) -> Tail {
    Tail {
        next: state.next,
        last_time_ms: state.last_time_ms,
        sealed: state.sealed,
    }
}
