//! Rewriting a sealed segment: shard by shard, compressed, without what is no longer kept. [`weigh`] and [`due`]
//! decide and are pure; [`Rewrite`] writes the new file, reads it back, and puts it in the place of the old one only
//! if it holds what it should. Blocking. Why and how: `docs/0001-log.md`.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::log::disk::{Disk, DiskFile};
use crate::log::extent::{Extent, Form, Index, IndexView};
use crate::log::frame::{HEADER_BYTES, Magic, Place};
use crate::log::index::Sealed;
use crate::log::pace::Pace;
use crate::log::packed::{Block, Compression, Packer, visit_pieces};
use crate::log::packed_index::{PackedIndex, PackedShard, padded};
use crate::log::plan::SeededBug;
use crate::log::published::Published;
use crate::log::reader::Located;
use crate::log::records::{Encoded, RunHead, visit_run};
use crate::log::segment::{self, REWRITE, as_u64};
use crate::log::{Error, Format, LogShard};

/// A segment is rewritten again when one part in so many is dead.
const DEAD_PART: u64 = 8;
/// And at least this much: less is not worth the syncs.
const DEAD_LEAST_BYTES: u64 = if cfg!(test) { 100 } else { 4096 };
/// What a shard takes in a footer, roughly.
const ENTRY_BYTES: u64 = 10;
/// Runs of this size are as quick to find and to read as blocks.
const LARGE_RUN_BYTES: u64 = if cfg!(test) { 256 } else { 64 << 10 };
/// Bytes written at once, and synced at once: a sync of more would hold up those of puts.
const WRITE_BYTES: usize = 256 << 10;
const SYNC_BYTES: u64 = 4 << 20;

/// The oldest time whose records of a shard are to be kept; `None` if the shard is gone.
pub(crate) type Keep<'a> = &'a dyn Fn(LogShard) -> Option<u64>;

/// What is in a segment, in bytes of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Weight {
    /// Of the whole file.
    pub(crate) total: u64,
    /// Of extents that are to be kept, by share of time where only some of their records are.
    pub(crate) live: u64,
    /// Of those that are not, and of entries of the footer that are not needed any more.
    pub(crate) dead: u64,
    pub(crate) extents: u64,
    pub(crate) rewritten: bool,
}

/// Weighs a segment by its index.
pub(crate) fn weigh(
    index: IndexView<'_>,
    total: u64,
    mut keep: impl FnMut(LogShard) -> Option<u64>,
) -> Weight {
    let mut weight = Weight {
        total,
        rewritten: matches!(index, IndexView::Packed(_)),
        ..Weight::default()
    };
    for (shard, part) in index.iter() {
        let keep = keep(shard).unwrap_or(u64::MAX);
        let newest_ms = part.newest_ms().unwrap_or(part.start_time_ms());
        if weight.rewritten && newest_ms < keep {
            weight.dead += ENTRY_BYTES;
        }
        for extent in part.extents() {
            let bytes = padded(extent.length);
            let live = live_bytes(&extent, bytes, keep);
            weight.extents += 1;
            weight.live += live;
            weight.dead += bytes - live;
        }
    }
    weight
}

fn live_bytes(extent: &Extent, bytes: u64, keep: u64) -> u64 {
    if extent.time_ms >= keep {
        return bytes;
    }
    let Some(kept_ms) = extent.last_time_ms.checked_sub(keep) else {
        return 0;
    };
    let all_ms = u128::from(extent.last_time_ms - extent.time_ms) + 1;
    let share = u128::from(bytes) * (u128::from(kept_ms) + 1) / all_ms;
    u64::try_from(share).unwrap_or(bytes)
}

/// Where a segment stands among the sealed ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is trimmed as soon as nothing in it lives.
    Oldest,
    Between,
    /// Those who follow closely still read it from the tail cache, by its old places.
    Newest,
}

/// Why a segment is rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Too much of it is dead: until it is gone the log takes more of the disk than it may.
    Dead,
    /// To be read faster and to take less. That can wait.
    Gain,
}

/// Whether rewriting pays.
pub(crate) fn due(weight: &Weight, standing: Standing, compression: Compression) -> Option<Due> {
    if standing == Standing::Oldest && weight.live == 0 {
        return None;
    }
    let share = |bytes: u64| bytes.saturating_mul(DEAD_PART) >= weight.total;
    if weight.dead >= DEAD_LEAST_BYTES && share(weight.dead) {
        return Some(Due::Dead);
    }
    let gains = compression == Compression::Zstd
        || weight.live < weight.extents.saturating_mul(LARGE_RUN_BYTES)
        || share(weight.total.saturating_sub(weight.live));
    let is_due = !weight.rewritten && standing != Standing::Newest && gains;
    is_due.then_some(Due::Gain)
}

/// Number and checksum of records of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Tally {
    records: u64,
    crc: u32,
}

impl Tally {
    fn add(&mut self, record: &Encoded<'_>) {
        self.records += 1;
        self.crc = crc32c::crc32c_append(self.crc, &record.counter.to_be_bytes());
        self.crc = crc32c::crc32c_append(self.crc, &record.time_ms.to_be_bytes());
        self.crc = crc32c::crc32c_append(self.crc, record.bytes);
    }
}

type Tallies = BTreeMap<LogShard, Tally>;

/// Bytes of a segment's file before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) before_bytes: u64,
    pub(crate) after_bytes: u64,
}

/// Rewrites a segment of a log that is open under its number. `None`: it was removed meanwhile. On failure what readers find
/// is as it was.
pub(crate) fn rewrite_published<M>(
    published: &Published<M>,
    rewrite: &Rewrite<'_>,
    number: u64,
    keep: Keep<'_>,
) -> Result<Option<Change>, Error> {
    let replace = || {
        let (source, place) = published.load(number)?;
        let before_bytes = source.file.len_bytes();
        let before_bytes = before_bytes.map_err(failed("measuring"))?;
        let (rewritten, after_bytes) = rewrite.write(&source, place, keep)?;
        let old = (source.file, before_bytes);
        let change = Change {
            before_bytes,
            after_bytes,
        };
        Ok(published.replace(rewritten, old)?.then_some(change))
    };
    let change = replace();
    if !matches!(change, Ok(Some(_))) {
        // If this fails as well, the next attempt or the next start does it.
        let _ = published.disk.remove(REWRITE);
    }
    change
}

/// What rewriting a segment needs.
pub(crate) struct Rewrite<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) magic: Magic,
    pub(crate) pace: &'a Pace,
    /// Whether somebody puts something right now.
    pub(crate) is_committing: &'a dyn Fn() -> bool,
    pub(crate) compression: Compression,
    pub(crate) bug: SeededBug,
}

impl Rewrite<'_> {
    /// Writes what is to be kept of a segment into a file of its own, which then only needs the segment's name. Gives it and its length.
    pub(crate) fn write(
        &self,
        source: &Sealed,
        place: Place,
        keep: Keep<'_>,
    ) -> Result<(Sealed, u64), Error> {
        let mut draft = self.draft(source, place)?;
        let tallies = self.copy(source, keep, &mut draft)?;
        let (index, after_bytes) = draft.finish()?;
        let rewritten = self.check(source.number, &index, &tallies);
        let rewritten = rewritten.map_err(not_sound)?;
        self.disk
            .raise_format(Format::Rewritten)
            .map_err(failed("raising the format for"))?;
        Ok((rewritten, after_bytes))
    }

    fn draft(&self, source: &Sealed, place: Place) -> Result<Draft, Error> {
        let create = || {
            let packer = Packer::new(self.compression)?;
            Ok((packer, self.disk.create(REWRITE, 0)?))
        };
        let (packer, file) = create().map_err(failed("creating"))?;
        let index = PackedIndex {
            generation: source.index.generation().saturating_add(1),
            ..PackedIndex::default()
        };
        Ok(Draft {
            magic: self.magic,
            file,
            packer,
            place,
            index,
            buffered: Vec::new(),
            written: 0,
            unsynced: 0,
        })
    }

    /// Copies what is to be kept.
    fn copy(&self, source: &Sealed, keep: Keep<'_>, draft: &mut Draft) -> Result<Tallies, Error> {
        let mut tallies = Tallies::new();
        for (shard, part) in source.view().index.iter() {
            let newest_ms = part.newest_ms().unwrap_or(part.start_time_ms());
            let Some(keep) = keep(shard).filter(|keep| newest_ms >= *keep) else {
                continue;
            };
            draft.begin_shard(shard, part.start(), part.start_time_ms());
            let mut copy = Copying {
                draft: &mut *draft,
                shard,
                keep,
                tally: Tally::default(),
                block: None,
                failed: None,
                bug: self.bug,
            };
            for extent in part.extents() {
                if extent.last_time_ms < keep {
                    continue;
                }
                self.pace
                    .spend(u64::from(extent.length), self.is_committing)?;
                copy.extent(&Located::new(shard, source.view(), extent))?;
            }
            copy.end()?;
            tallies.insert(shard, copy.tally);
        }
        Ok(tallies)
    }

    /// Reads the new file, and compares it with what was to be kept.
    fn check(&self, number: u64, index: &PackedIndex, tallies: &Tallies) -> Result<Sealed, Error> {
        let file = segment::open(self.disk, REWRITE)?;
        let (rewritten, _) = segment::load(file, number, self.magic)?;
        let differs = |reason| Error::corrupt(number, 0, reason);
        if !matches!(&rewritten.index, Index::Packed(found) if found == index) {
            return Err(differs("the footer is not the one that was written"));
        }
        let mut found = Tallies::new();
        for (shard, part) in rewritten.view().index.iter() {
            let tally = found.entry(shard).or_default();
            for extent in part.extents() {
                self.pace.check_stopped()?;
                let located = Located::new(shard, rewritten.view(), extent);
                let pieces = located.read_pieces(self.magic)?;
                let visited = visit_pieces(&pieces, &extent, |record| {
                    tally.add(&record);
                    ControlFlow::Continue(())
                });
                visited.ok_or_else(|| located.corrupt("a block is garbled"))?;
            }
        }
        if found != *tallies {
            return Err(differs("it does not hold the records that were to be kept"));
        }
        Ok(rewritten)
    }
}

/// The records of one shard on their way from its extents into blocks.
#[derive(Debug)]
struct Copying<'d> {
    draft: &'d mut Draft,
    shard: LogShard,
    keep: u64,
    tally: Tally,
    /// The block that is being filled.
    block: Option<Block>,
    failed: Option<Error>,
    bug: SeededBug,
}

impl Copying<'_> {
    fn extent(&mut self, located: &Located) -> Result<(), Error> {
        let magic = self.draft.magic;
        let extent = located.extent;
        let expected = RunHead {
            shard: self.shard,
            first: extent.first,
            time_ms: extent.time_ms,
            count: extent.count,
        };
        let (mut seen, mut kept) = (0, 0);
        let mut visit = |record: Encoded<'_>| {
            seen += 1;
            if record.time_ms >= self.keep && !self.bug.loses_in_rewriting(record.counter) {
                kept += 1;
                self.tally.add(&record);
                self.put(&record);
            }
        };
        let as_said = match extent.form {
            Form::Run => {
                let frame = located.read(magic)?;
                let body = frame.get(HEADER_BYTES..).unwrap_or_default();
                visit_run(body, visit) == Some(expected)
            }
            Form::Packed { .. } => {
                let pieces = located.read_pieces(magic)?;
                let visited = visit_pieces(&pieces, &extent, |record| {
                    visit(record);
                    ControlFlow::Continue(())
                });
                visited.is_some()
            }
        };
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if !as_said || seen != extent.count {
            return Err(located.corrupt("the records are not what the index says"));
        }
        if extent.time_ms >= self.keep && kept != extent.count && !self.bug.is_unseen() {
            let lost = format!("{} of {} records were left out", seen - kept, seen);
            return Err(not_sound(located.corrupt(lost)));
        }
        Ok(())
    }

    fn put(&mut self, record: &Encoded<'_>) {
        let goes_on = self.block.as_mut().is_some_and(|block| block.push(record));
        if goes_on || self.failed.is_some() {
            return;
        }
        let next = Block::beginning(self.shard, record);
        if let Some(full) = self.block.replace(next) {
            self.failed = self.draft.add(self.shard, full).err();
        }
    }

    fn end(&mut self) -> Result<(), Error> {
        let last = self.block.take();
        last.map_or(Ok(()), |block| self.draft.add(self.shard, block))
    }
}

/// The new file as it is written.
#[derive(Debug)]
struct Draft {
    magic: Magic,
    file: Arc<dyn DiskFile>,
    packer: Packer,
    place: Place,
    index: PackedIndex,
    buffered: Vec<u8>,
    written: u64,
    unsynced: u64,
}

impl Draft {
    fn begin_shard(&mut self, shard: LogShard, start: u64, start_time_ms: u64) {
        let part = PackedShard {
            start,
            start_time_ms,
            blocks: Vec::new(),
        };
        self.index.shards.insert(shard, part);
    }

    fn add(&mut self, shard: LogShard, block: Block) -> Result<(), Error> {
        let offset = self.written + as_u64(self.buffered.len());
        let place = (self.place, self.magic);
        let packed = self.packer.pack(block, offset, place);
        let (frame, extent) = packed.map_err(failed("packing a block of"))?;
        self.index
            .shards
            .entry(shard)
            .or_default()
            .blocks
            .push(extent);
        if self.buffered.len() + frame.len() > WRITE_BYTES {
            self.write_buffered()?;
        }
        if frame.len() > WRITE_BYTES {
            return self.write(&frame);
        }
        self.buffered.extend_from_slice(&frame);
        Ok(())
    }

    fn write_buffered(&mut self) -> Result<(), Error> {
        let mut buffered = std::mem::take(&mut self.buffered);
        self.write(&buffered)?;
        buffered.clear();
        self.buffered = buffered;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.file.write_at(bytes, self.written);
        written.map_err(failed("writing"))?;
        self.written += as_u64(bytes.len());
        self.unsynced += as_u64(bytes.len());
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            self.file.sync().map_err(failed("syncing"))?;
        }
        Ok(())
    }

    /// Writes the footer and syncs. Gives the index and the length of the file.
    fn finish(mut self) -> Result<(PackedIndex, u64), Error> {
        self.write_buffered()?;
        let footer = segment::packed_footer(self.written, &self.index, self.place, self.magic);
        self.write(&footer)?;
        self.file.sync().map_err(failed("syncing"))?;
        Ok((self.index, self.written))
    }
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::io(operation, REWRITE, source)
}

/// The new file is not what it should be: nothing is wrong with the segment.
fn not_sound(error: Error) -> Error {
    match error {
        Error::Corrupt { .. } => {
            let reason = format!("it did not come out as it should and was thrown away ({error})");
            Error::io("checking", REWRITE, io::Error::other(reason))
        }
        other => other,
    }
}
