//! The committer: the one thread that writes. It drains the queue, writes one contiguous run of
//! frames, syncs once, publishes, and only then answers (S1). It holds no lock while it syncs.
//!
//! Any failed write or sync poisons the log. Failing to lay out the next segment does not: nothing
//! was written.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::SharedClock;
use crate::log::commit_writer::LARGE_BYTES;
use crate::log::disk::{Disk, DiskFile};
use crate::log::entry::{Snapshot, TRAILER_BYTES, encode_opened};
use crate::log::frame::{Frames, Kind, Magic, Place, frame_bytes};
use crate::log::index::Segment;
use crate::log::plan::{EPOCH_LIMIT, Need, Planner, SeededBug, Shards};
use crate::log::published::Published;
use crate::log::queue::{Drained, Entry, Queue, Work};
use crate::log::recovery::{State, snapshot_frame};
use crate::log::segment::{self, as_u64};
use crate::log::segment_index::SegmentIndex;
use crate::log::spare::{Space, Spare};
use crate::log::{Durability, Error, LogConfig, Metadata};

/// The most one commit takes from the queue, beyond its first entry.
const COMMIT_BYTES: usize = 8 << 20;

/// What appends leave free of a segment for transactions that come when there is no room for another: a part of it, and no more
/// than so much.
const RESERVE_PART: u64 = 64;
const RESERVE_MAX_BYTES: u64 = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(crate) struct Committer<M> {
    disk: Arc<dyn Disk>,
    clock: SharedClock,
    published: Arc<Published<M>>,
    queue: Arc<Queue<M>>,
    /// Sees to the next segment's file.
    _spare: Spare,
    /// It was asked for.
    spare_wanted: bool,
    /// Where the active segment was, and when, as this process began to write it.
    begun: (u64, u64),
    /// What large commits took of it since.
    large_bytes: u64,
    durability: Durability,
    commit_bytes: usize,
    segment_runs: usize,
    bug: SeededBug,
    log_id: [u8; 16],
    epoch: u64,
    /// That the log was opened is on disk.
    epoch_begun: bool,
    shards: Shards,
    metadata: Arc<M>,
    /// The metadata as it was last encoded: most segments begin with the same.
    encoded: Option<(Arc<M>, Arc<[u8]>)>,
    segment: u64,
    file: Arc<dyn DiskFile>,
    position: u64,
    capacity: u64,
    /// The last commit written, and the last one synced.
    commit: u64,
    durable: u64,
    synced_at_ms: u64,
}

/// What a committer goes on from.
#[derive(Debug)]
pub(crate) struct Start<M> {
    pub(crate) state: State<M>,
    pub(crate) metadata: Arc<M>,
    pub(crate) segment: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) capacity: u64,
    pub(crate) bug: SeededBug,
}

impl<M: Metadata> Committer<M> {
    pub(crate) fn new(
        start: Start<M>,
        config: &LogConfig,
        clock: SharedClock,
        published: Arc<Published<M>>,
        queue: Arc<Queue<M>>,
    ) -> Result<Committer<M>, Error> {
        let disk = Arc::clone(&published.disk);
        let spare = Spare::start(Arc::clone(&published.spare), Arc::clone(&clock))
            .map_err(|source| Error::io("starting", "the thread log-spare", source))?;
        let quarter = usize::try_from(config.segment_bytes / 4).unwrap_or(usize::MAX);
        let Start {
            state,
            metadata,
            segment,
            file,
            capacity,
            bug,
        } = start;
        let now_ms = clock.now_ms();
        let mut committer = Committer {
            synced_at_ms: now_ms,
            disk,
            clock,
            published,
            queue,
            _spare: spare,
            spare_wanted: false,
            begun: (state.position, now_ms),
            large_bytes: 0,
            durability: config.durability,
            commit_bytes: COMMIT_BYTES.min(quarter),
            segment_runs: config.segment_runs,
            bug,
            log_id: state.log_id,
            epoch: state.epoch,
            epoch_begun: false,
            shards: state.shards,
            metadata,
            encoded: None,
            segment,
            file,
            position: state.position,
            capacity,
            commit: state.commit,
            // Recovery has synced what it found.
            durable: state.commit,
        };
        match committer.begin_epoch() {
            // What is there can be read; the first write tries again.
            Err(error @ Error::NoSpace { .. }) => {
                tracing::warn!(%error, "the log takes nothing before there is room");
            }
            begun => begun?,
        }
        Ok(committer)
    }

    /// Writes and syncs that the log was opened: from here on counters of the new epoch may be given
    /// out, and none before.
    fn begin_epoch(&mut self) -> Result<(), Error> {
        if self.epoch + 1 >= EPOCH_LIMIT {
            return Err(Error::corrupt(
                self.segment,
                0,
                "the log was opened too often",
            ));
        }
        let epoch = self.epoch + 1;
        let mut frames = Frames::default();
        frames.push(Kind::Opened, |buffer| encode_opened(epoch, buffer));
        let need = Need {
            frames_bytes: frame_bytes(8),
            ..Need::default()
        };
        if !self.fits(need, 0) {
            self.rotate(need)?;
        }
        self.write(frames)?;
        if self.bug.syncs_epoch() {
            self.sync()?;
        }
        self.epoch = epoch;
        self.epoch_begun = true;
        Ok(())
    }

    /// Commits what is queued until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        let _end = End {
            published: Arc::clone(&self.published),
            queue: Arc::clone(&self.queue),
        };
        loop {
            let due = match self.queue.drain(self.commit_bytes, self.patience()) {
                Drained::Entries(entries) => {
                    self.published.set_committing(true);
                    self.commit(entries);
                    self.published.set_committing(false);
                    self.sync_is_due()
                }
                Drained::Idle => true,
                Drained::Closed => break,
            };
            if due && self.published.poisoned().is_none() {
                // A failure is kept in `published`; the next write is told.
                let _ = self.sync();
            }
        }
        self.finish();
    }

    /// Syncs and says so, which lets the next start tell damage in the last commits from a torn tail.
    fn finish(&mut self) {
        if self.published.poisoned().is_some() || self.sync().is_err() {
            return;
        }
        let end = self.position + as_u64(frame_bytes(0) + TRAILER_BYTES);
        if end <= self.capacity {
            let mut frames = Frames::default();
            frames.push(Kind::Closed, |_| {});
            let _ = self.write(frames).and_then(|_| self.sync());
        }
    }

    fn patience(&self) -> Option<Duration> {
        match self.durability {
            Durability::Interval(interval)
                if self.durable < self.commit && self.published.poisoned().is_none() =>
            {
                // What is left of it: the oldest commit that waits has waited for some already.
                let since = self.clock.now_ms().checked_sub(self.synced_at_ms);
                let left = |since| interval.saturating_sub(Duration::from_millis(since));
                Some(since.map_or(Duration::ZERO, left))
            }
            _ => None,
        }
    }

    fn sync_is_due(&self) -> bool {
        let Durability::Interval(interval) = self.durability else {
            return false;
        };
        let since = self.clock.now_ms().checked_sub(self.synced_at_ms);
        // A clock set back must not put the sync off.
        let due = since.is_none_or(|since| u128::from(since) >= interval.as_millis());
        self.durable < self.commit && due
    }

    fn commit(&mut self, entries: Vec<Entry<M>>) {
        let Some((entries, need)) = self.with_room(entries) else {
            return;
        };
        let (metadata, bug) = (Arc::clone(&self.metadata), self.bug);
        let times = (self.epoch, self.clock.now_ms());
        let mut planner = Planner::new(&mut self.shards, metadata, times, need, bug);
        let mut permits = Vec::with_capacity(entries.len());
        for entry in entries {
            let (work, permit) = entry.into_parts();
            planner.add(work);
            permits.push(permit);
        }
        let mut plan = planner.finish();
        if bug.acks_before_sync() {
            plan.answers.drain(..).for_each(|answer| answer.send(None));
        }
        if !self.spare_wanted {
            // Not before there is something to write: a start has better things to do.
            let (position, at_ms) = self.begun;
            self.spare_wanted = self.published.spare.want_in_time(
                self.space_preferred(),
                self.position - position,
                self.capacity.saturating_sub(self.position),
                self.clock.now_ms().saturating_sub(at_ms),
            );
        }
        let frames = std::mem::take(&mut plan.frames);
        let written = if frames.is_empty() {
            Ok(None)
        } else {
            // A transaction is synced whatever the setting: log shards must never be numbered anew.
            let transacts = !Arc::ptr_eq(&self.metadata, &plan.metadata);
            self.write_durably(frames, transacts)
        };
        let failure = match written {
            Ok(Some((offset, pieces))) => {
                self.metadata = Arc::clone(&plan.metadata);
                self.published
                    .publish(&mut plan, offset, pieces, &self.shards);
                None
            }
            Ok(None) => None,
            Err(error) => Some(error),
        };
        for answer in plan.answers {
            answer.send(failure.as_ref());
        }
        drop(permits);
    }

    /// Makes room for the work, and refuses what there is none for. On a full disk transactions go into what is kept free for
    /// them: they may be what frees it.
    fn with_room(&mut self, entries: Vec<Entry<M>>) -> Option<(Vec<Entry<M>>, Need)> {
        let need = need_of(&entries);
        let Err(error) = self.make_room(need) else {
            return Some((entries, need));
        };
        let is_full = self.epoch_begun && matches!(error, Error::NoSpace { .. });
        let may_fit = |entry: &Entry<M>| is_full && matches!(entry.work, Work::Commit { .. });
        let (mut kept, mut refused): (Vec<_>, Vec<_>) = entries.into_iter().partition(may_fit);
        let need = need_of(&kept);
        if !self.fits(need, 0) {
            refused.append(&mut kept);
        }
        for entry in refused {
            entry.work.refuse(error.clone());
        }
        (!kept.is_empty()).then_some((kept, need))
    }

    fn make_room(&mut self, need: Need) -> Result<(), Error> {
        if let Some(error) = self.published.poisoned() {
            return Err(error.clone());
        }
        if !self.epoch_begun {
            self.begin_epoch()?;
        }
        let reserve_bytes = RESERVE_MAX_BYTES.min(self.capacity / RESERVE_PART);
        if self.fits(need, reserve_bytes) {
            return Ok(());
        }
        self.rotate(need)
    }

    /// Whether so much, the reserve and the end of a segment go into the active one, and its index stays within its bound.
    fn fits(&self, need: Need, reserve_bytes: u64) -> bool {
        let segments = self.published.segments();
        let index = &segments.active.index;
        let end = self.position + as_u64(need.frames_bytes + end_bytes(need, index));
        let runs = index.run_count() + need.runs;
        // A segment without runs takes what must be written, however much that is.
        end.saturating_add(reserve_bytes) <= self.capacity
            && (runs <= self.segment_runs || index.run_count() == 0)
    }

    fn write_durably(
        &mut self,
        frames: Frames,
        transacts: bool,
    ) -> Result<Option<(u64, Vec<Bytes>)>, Error> {
        let written = self.write(frames)?;
        if transacts || matches!(self.durability, Durability::Fsync) {
            self.sync()?;
        }
        Ok(Some(written))
    }

    /// Writes the frames of one commit.
    fn write(&mut self, frames: Frames) -> Result<(u64, Vec<Bytes>), Error> {
        let place = self.next_place();
        let buffers = frames.finish(place, Magic::of(&self.log_id)).into_iter();
        let pieces: Vec<Bytes> = buffers.map(Bytes::from).collect();
        let offset = self.position;
        let end = offset + as_u64(pieces.iter().map(Bytes::len).sum());
        assert!(end <= self.capacity, "room was made before");
        self.file
            .write_last(&pieces, offset)
            .map_err(|error| self.poison("a write", &error))?;
        self.commit = place.commit;
        self.position = end;
        if end - offset >= as_u64(LARGE_BYTES) {
            self.large_bytes += end - offset;
        }
        Ok((offset, pieces))
    }

    /// The next segment is expected to get what this one gets.
    fn space_preferred(&self) -> Space {
        let (position, _) = self.begun;
        if self.large_bytes > (self.position - position) / 2 {
            Space::Reserved
        } else {
            Space::Written
        }
    }

    fn sync(&mut self) -> Result<(), Error> {
        if self.durable < self.commit {
            let mut synced = self.file.sync();
            if synced.is_err() && self.bug.retries_sync() {
                synced = self.file.sync();
            }
            synced.map_err(|error| self.poison("a sync", &error))?;
            self.durable = self.commit;
        }
        self.synced_at_ms = self.clock.now_ms();
        Ok(())
    }

    fn next_place(&self) -> Place {
        Place {
            segment: self.segment,
            commit: self.commit + 1,
            durable: self.durable,
        }
    }

    fn poison(&self, operation: &'static str, error: &std::io::Error) -> Error {
        tracing::error!(segment = self.segment, operation, %error, "the log takes no more writes");
        self.published.poison(operation, error)
    }

    /// Begins a segment with room for `need` and seals the active one.
    ///
    /// The next segment is there, with its snapshot and its name, before this one is sealed: so a
    /// sealed segment that is the last means that one is missing.
    fn rotate(&mut self, need: Need) -> Result<(), Error> {
        let metadata = self.encoded_metadata();
        let need_bytes = self.next_segment_bytes(metadata.len(), need);
        let (file, name) = self.published.spare.take(need_bytes)?;
        // A snapshot must not outlive what it tells of.
        self.sync()?;
        let sealing = self.next_place();
        let footer = {
            let segments = self.published.segments();
            segment::footer(
                self.position,
                &segments.active.index,
                sealing,
                Magic::of(&self.log_id),
            )
        };
        let number = self.segment + 1;
        let place = Place {
            segment: number,
            commit: sealing.commit + 1,
            durable: sealing.durable,
        };
        let bytes = Bytes::from(snapshot_frame(&self.snapshot(&metadata), place));
        let position = as_u64(bytes.len());
        let begin = || {
            file.write_last(&[bytes], 0)?;
            file.sync()?;
            self.disk.rename(name, &segment::name(number))?;
            if self.bug.syncs_names() {
                self.disk.sync_directory()?;
            }
            file.len_bytes()
        };
        let capacity = begin().map_err(|error| self.poison("beginning a segment", &error))?;
        self.published.spare.placed();
        segment::seal(self.file.as_ref(), self.position, footer)
            .map_err(|error| self.poison("sealing a segment", &error))?;
        self.capacity = capacity;
        self.segment = number;
        self.file = Arc::clone(&file);
        self.position = position;
        self.commit = place.commit;
        self.durable = place.commit;
        let index = SegmentIndex::starting_with(&self.shards);
        self.published.rotate(Segment {
            number,
            file,
            index,
        });
        self.spare_wanted = false;
        self.begun = (self.position, self.clock.now_ms());
        self.large_bytes = 0;
        Ok(())
    }

    fn next_segment_bytes(&self, metadata_bytes: usize, need: Need) -> u64 {
        let shards = self.shards.len();
        let snapshot = frame_bytes(Snapshot::len_bytes_of(metadata_bytes, shards));
        let index_bytes = SegmentIndex::len_bytes_of(shards + need.shards, need.runs);
        as_u64(snapshot + need.frames_bytes + end_of(index_bytes))
    }

    fn encoded_metadata(&mut self) -> Arc<[u8]> {
        let encoded = self.encoded.as_ref();
        let current = encoded.filter(|(of, _)| Arc::ptr_eq(of, &self.metadata));
        if let Some((_, bytes)) = current {
            return Arc::clone(bytes);
        }
        let bytes = Arc::from(self.metadata.encode());
        self.encoded = Some((Arc::clone(&self.metadata), Arc::clone(&bytes)));
        bytes
    }

    fn snapshot<'a>(&self, metadata: &'a [u8]) -> Snapshot<'a> {
        let shards = self
            .shards
            .iter()
            .map(|(shard, state)| (*shard, *state))
            .collect();
        Snapshot {
            log_id: self.log_id,
            epoch: self.epoch,
            metadata,
            shards,
        }
    }
}

fn need_of<M>(entries: &[Entry<M>]) -> Need {
    let mut need = Need::default();
    for entry in entries {
        need.add(&entry.work);
    }
    need
}

/// Bytes of all that may follow a commit in its segment.
fn end_bytes(need: Need, index: &SegmentIndex) -> usize {
    end_of(index.len_bytes_with(need.shards, need.runs))
}

/// Bytes of a footer with such a body, the trailer and the closing mark.
fn end_of(index_bytes: usize) -> usize {
    frame_bytes(index_bytes) + TRAILER_BYTES + frame_bytes(0)
}

/// However the committer's thread ends, nobody waits for it any more.
#[derive(Debug)]
struct End<M> {
    published: Arc<Published<M>>,
    queue: Arc<Queue<M>>,
}

impl<M> Drop for End<M> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = std::io::Error::other("the committer stopped; this is a defect");
            self.published.poison("the committer", &reason);
        }
        self.queue.abandon();
        self.published.close();
    }
}

impl<M> Drop for Committer<M> {
    fn drop(&mut self) {
        // Work queued while an open failed half way has nobody left to do it.
        self.queue.abandon();
    }
}
