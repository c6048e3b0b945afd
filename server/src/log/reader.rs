//! Finding and reading runs and blocks: from a cache where that can be, else by positioned reads that
//! are checked every time. Blocking; writes nothing.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use crate::log::block_cache::BlockPlace;
use crate::log::disk::DiskFile;
use crate::log::extent::{Extent, Form, ShardView};
use crate::log::frame::{self, Kind, Magic};
use crate::log::index::SegmentView;
use crate::log::packed::{decode_pieces, unpack, visit_pieces};
use crate::log::published::Published;
use crate::log::records::{RunHead, decode_run};
use crate::log::{Error, LogShard, ReadLimit, ReadRecord, segment};

/// An extent and the file it lies in.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    segment: u64,
    generation: u32,
    file: Arc<dyn DiskFile>,
    pub(crate) shard: LogShard,
    pub(crate) extent: Extent,
}

impl Located {
    pub(crate) fn new(shard: LogShard, segment: SegmentView<'_>, extent: Extent) -> Located {
        Located {
            segment: segment.number,
            generation: segment.generation,
            file: Arc::clone(segment.file),
            shard,
            extent,
        }
    }

    /// Bytes that reading it takes at most, and those that only unpacking takes.
    pub(crate) fn len_bytes(&self) -> (usize, usize) {
        let stored = usize::try_from(self.extent.length).unwrap_or(usize::MAX);
        match self.extent.form {
            Form::Run => (stored, 0),
            Form::Packed { .. } => (self.extent.memory_bytes(), stored),
        }
    }

    pub(crate) fn corrupt(&self, reason: impl Into<String>) -> Error {
        Error::corrupt(self.segment, self.extent.offset, reason)
    }

    /// The frame as it lies in the file, checked.
    pub(crate) fn read(&self, magic: Magic) -> Result<Vec<u8>, Error> {
        let length = usize::try_from(self.extent.length).unwrap_or(usize::MAX);
        let bytes = self
            .file
            .read(self.extent.offset, length)
            .map_err(|source| Error::io("reading", &segment::name(self.segment), source))?;
        let frame =
            frame::decode(&bytes, magic).map_err(|fault| self.corrupt(fault.to_string()))?;
        let expected = match self.extent.form {
            Form::Run => Kind::Records,
            Form::Packed { .. } => Kind::Packed,
        };
        if frame.kind != expected || frame.place.segment != self.segment {
            return Err(self.corrupt("it is not of this segment"));
        }
        Ok(bytes)
    }

    /// The pieces of a packed block, from its file.
    pub(crate) fn read_pieces(&self, magic: Magic) -> Result<Bytes, Error> {
        let frame = Bytes::from(self.read(magic)?);
        let garbled = || self.corrupt("the block is not the one the index says");
        unpack(&frame, self.shard, &self.extent).ok_or_else(garbled)
    }

    fn block_place(&self) -> BlockPlace {
        BlockPlace {
            segment: self.segment,
            generation: self.generation,
            offset: self.extent.offset,
        }
    }
}

/// What to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) shard: LogShard,
    pub(crate) from: u64,
    /// The tail: records are in the index a moment before it says so, and nobody may see them before.
    pub(crate) before: u64,
    pub(crate) limit: ReadLimit,
    pub(crate) not_before_ms: u64,
}

/// Extents that were found and are yet to be read.
#[derive(Debug)]
pub(crate) struct Planned {
    request: Request,
    pub(crate) located: Vec<Located>,
}

impl Planned {
    /// Bytes that reading them takes at most.
    pub(crate) fn len_bytes(&self) -> usize {
        let lengths = self.located.iter().map(Located::len_bytes);
        let (kept, unpacking) = lengths.fold((0_usize, 0), |(sum, most), (kept, unpacking)| {
            (sum.saturating_add(kept), unpacking.max(most))
        });
        kept.saturating_add(unpacking)
    }
}

/// The counter that a time leads to.
#[derive(Debug)]
pub(crate) struct Since {
    /// The first record at or after the time is this or, within the block, one that comes later.
    pub(crate) counter: u64,
    /// A block that begins before the time and ends after it.
    pub(crate) within: Option<Located>,
}

/// Records as they are collected, within the limit; the first is taken whatever its size.
#[derive(Debug)]
struct Collected {
    records: Vec<ReadRecord>,
    bytes: usize,
    limit: ReadLimit,
    full: bool,
}

impl Collected {
    fn new(limit: ReadLimit) -> Collected {
        Collected {
            records: Vec::new(),
            bytes: 0,
            limit,
            full: limit.records == 0,
        }
    }

    /// Adds records of an extent: its frame if it is a run, its pieces if it is packed.
    fn add(&mut self, located: &Located, bytes: &Bytes, request: &Request) -> Result<(), Error> {
        let (mut taken_bytes, mut taken) = (self.bytes, self.records.len());
        let limit = self.limit;
        let mut full = false;
        let take = |record: &ReadRecord| {
            let with_it = taken_bytes.saturating_add(record.len_bytes());
            full = (taken > 0 && with_it > limit.bytes) || taken >= limit.records;
            if !full {
                taken_bytes = with_it;
                taken += 1;
            }
            !full
        };
        let Extent {
            first,
            time_ms,
            count,
            ..
        } = located.extent;
        let decoded = match located.extent.form {
            Form::Run => {
                let expected = RunHead {
                    shard: located.shard,
                    first,
                    time_ms,
                    count,
                };
                let head = decode_run(bytes, request.from, &mut self.records, take);
                head.filter(|head| *head == expected).map(drop)
            }
            Form::Packed { .. } => {
                let since = (request.from, request.not_before_ms);
                decode_pieces(bytes, &located.extent, since, &mut self.records, take)
            }
        };
        let garbled = || located.corrupt("the records are not what the index says");
        decoded.ok_or_else(garbled)?;
        self.bytes = taken_bytes;
        let is_full = self.records.len() >= limit.records || taken_bytes >= limit.bytes;
        self.full = full || is_full;
        Ok(())
    }

    /// Whether the extent that was added last holds more than was taken from it.
    fn left_some_of(&self, located: &Located) -> bool {
        let next = self.records.last().map(|record| record.counter + 1);
        self.full && next.is_none_or(|next| next < located.extent.end)
    }
}

impl<M> Published<M> {
    /// Records that need no file: `None` if a file must be read.
    pub(crate) fn read_cached(&self, request: &Request) -> Option<Result<Vec<ReadRecord>, Error>> {
        let located = {
            let segments = self.segments();
            let active = &segments.active;
            let runs = active.index.get(request.shard)?;
            if runs.start > request.from {
                return None;
            }
            let mut plan = PlannedExtents::new(request);
            plan.extend(ShardView::Runs(runs), active.view());
            plan.located
        };
        let too_old = |located: &Located| located.extent.time_ms < request.not_before_ms;
        if located.first().is_some_and(too_old) {
            return None;
        }
        let mut frames = Vec::with_capacity(located.len());
        {
            let cache = self.tail_cache();
            for Located {
                segment, extent, ..
            } in &located
            {
                let length = usize::try_from(extent.length).ok()?;
                frames.push(cache.get(*segment, extent.offset, length)?);
            }
        }
        let mut collected = Collected::new(request.limit);
        for (located, frame) in located.iter().zip(frames) {
            if collected.full {
                break;
            }
            if let Err(error) = collected.add(located, &frame.detached(), request) {
                return Some(Err(error));
            }
        }
        Some(Ok(collected.records))
    }

    /// Where the records are: finds and reads no more than indexes.
    pub(crate) fn plan_blocking(&self, mut request: Request) -> Result<Planned, Error> {
        let mut located = self.plan_read(&request)?;
        let too_old = |located: &Located| located.extent.last_time_ms < request.not_before_ms;
        if located.first().is_some_and(too_old) {
            // What a block begins with and is too old is left out when it is read.
            let kept = self.since(request.shard, request.not_before_ms)?;
            request.from = request.from.max(kept.counter);
            located = self.plan_read(&request)?;
        }
        Ok(Planned { request, located })
    }

    /// The planned records.
    pub(crate) fn fetch_blocking(&self, planned: &Planned) -> Result<Vec<ReadRecord>, Error> {
        let Planned { request, located } = planned;
        let mut collected = Collected::new(request.limit);
        for located in located {
            if collected.full {
                break;
            }
            match located.extent.form {
                Form::Run => {
                    let frame = self.frame(located)?;
                    collected.add(located, &frame, request)?;
                }
                Form::Packed { .. } => {
                    let pieces = self.pieces(located)?;
                    collected.add(located, &pieces, request)?;
                    if collected.left_some_of(located) {
                        self.block_cache().insert(located.block_place(), pieces);
                    }
                }
            }
        }
        Ok(collected.records)
    }

    fn frame(&self, located: &Located) -> Result<Bytes, Error> {
        let Extent { offset, length, .. } = located.extent;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        // Only runs: the tail cache knows where things lay when they were committed.
        let cached = self.tail_cache().get(located.segment, offset, length);
        if let Some(cached) = cached {
            return Ok(cached.detached());
        }
        Ok(Bytes::from(located.read(self.magic)?))
    }

    /// The pieces of a block: its reader holds a share of the budget for them.
    fn pieces(&self, located: &Located) -> Result<Bytes, Error> {
        if let Some(pieces) = self.block_cache().get(located.block_place()) {
            return Ok(pieces);
        }
        located.read_pieces(self.magic)
    }

    /// The first counter within a block whose time is at least `time_ms`. The block is kept: it will be read.
    pub(crate) fn counter_within(&self, located: &Located, time_ms: u64) -> Result<u64, Error> {
        let pieces = self.pieces(located)?;
        let mut found = None;
        let visited = visit_pieces(&pieces, &located.extent, |record| {
            if record.time_ms < time_ms {
                return ControlFlow::Continue(());
            }
            found = Some(record.counter);
            ControlFlow::Break(())
        });
        let garbled = || located.corrupt("the records are not what the index says");
        let counter = visited.and(found).ok_or_else(garbled)?;
        self.block_cache().insert(located.block_place(), pieces);
        Ok(counter)
    }

    fn plan_read(&self, request: &Request) -> Result<Vec<Located>, Error> {
        let mut plan = PlannedExtents::new(request);
        // A segment that was active when it was looked into may have got more since: what lies in the
        // segments after it must not be read in this pass, or records in between were left out (S3).
        let last = *self.range().end();
        let mut number = self.segment_of(request.shard, next_lies(plan.next))?;
        let mut searched = true;
        loop {
            let found_before = plan.located.len();
            self.with_index(number, |segment| {
                if let Some(shard) = segment.index.get(request.shard) {
                    plan.extend(shard, segment);
                }
            })?;
            if plan.full() || number >= last {
                return Ok(plan.located);
            }
            let found = plan.located.len() > found_before;
            let (next, after) = (plan.next, number + 1);
            // Segments without records of this shard are jumped over; mostly the next one has some.
            number = if found || searched {
                searched = false;
                after
            } else {
                searched = true;
                after.max(self.segment_of(request.shard, next_lies(next))?)
            };
        }
    }

    /// First counter whose time is at least `time_ms`, or the tail's next.
    pub(crate) fn since(&self, shard: LogShard, time_ms: u64) -> Result<Since, Error> {
        let next = self.tail(shard).ok_or(Error::Unknown(shard))?.next;
        // As in `plan_read`: what was not there when the tail was taken is not looked for.
        let last = *self.range().end();
        let mut number = self.segment_of(shard, |part| {
            let further = part.start_time_ms() < time_ms;
            Lies::of(further, || part.newest_ms() >= Some(time_ms))
        })?;
        loop {
            let found = self.with_index(number, |segment| {
                let part = segment.index.get(shard)?;
                if part.start_time_ms() >= time_ms {
                    let (counter, within) = (part.start().min(next), None);
                    return Some(Since { counter, within });
                }
                let extent = part.since_time(time_ms).next()?;
                let within =
                    (extent.time_ms < time_ms).then(|| Located::new(shard, segment, extent));
                let counter = extent.first.min(next);
                Some(Since { counter, within })
            })?;
            if let Some(since) = found.flatten() {
                return Ok(since);
            }
            if number >= last {
                let (counter, within) = (next, None);
                return Ok(Since { counter, within });
            }
            number += 1;
        }
    }

    /// The segment that has the record which is looked for, or the last one that does not lie after it; the first
    /// segment if all do.
    fn segment_of(
        &self,
        shard: LogShard,
        lies: impl Fn(ShardView<'_>) -> Lies,
    ) -> Result<u64, Error> {
        let range = self.range();
        let look = |number| {
            let found = self.with_index(number, |segment| segment.index.get(shard).map(&lies))?;
            // One removed meanwhile lies before all that are left, and so does one without the shard.
            Ok::<_, Error>(found.flatten().unwrap_or(Lies::Further))
        };
        let (first, last) = (*range.start(), *range.end());
        if look(last)? != Lies::Before {
            return Ok(last);
        }
        let (mut low, mut high) = (first, last);
        while low < high {
            // The lower of two: the newest of the sealed ones has the largest footer.
            let middle = low + (high - low - 1) / 2;
            match look(middle)? {
                Lies::Here => return Ok(middle),
                Lies::Further => low = middle + 1,
                Lies::Before => high = middle,
            }
        }
        Ok(low.saturating_sub(1).max(first))
    }
}

/// Where a record lies, seen from a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lies {
    Before,
    Here,
    /// After what is in the segment, if there is such a record at all.
    Further,
}

impl Lies {
    fn of(not_before: bool, here: impl FnOnce() -> bool) -> Lies {
        if !not_before {
            Lies::Before
        } else if here() {
            Lies::Here
        } else {
            Lies::Further
        }
    }
}

/// Where the first record at or after a counter lies.
fn next_lies(counter: u64) -> impl Fn(ShardView<'_>) -> Lies {
    move |shard| {
        let here = || shard.since_counter(counter).next().is_some();
        Lies::of(shard.start() <= counter, here)
    }
}

/// Extents to read, within the limit.
#[derive(Debug)]
struct PlannedExtents {
    shard: LogShard,
    located: Vec<Located>,
    next: u64,
    before: u64,
    records: u64,
    bytes: usize,
    limit: ReadLimit,
}

impl PlannedExtents {
    fn new(request: &Request) -> PlannedExtents {
        PlannedExtents {
            shard: request.shard,
            located: Vec::new(),
            next: request.from,
            before: request.before,
            records: 0,
            bytes: 0,
            limit: request.limit,
        }
    }

    fn full(&self) -> bool {
        self.records >= segment::as_u64(self.limit.records)
            || (self.bytes >= self.limit.bytes && !self.located.is_empty())
    }

    fn extend(&mut self, shard: ShardView<'_>, segment: SegmentView<'_>) {
        for extent in shard.since_counter(self.next) {
            if self.full() || extent.first >= self.before {
                break;
            }
            // Where counters were left out these may be fewer: the page is smaller then.
            let numbered = extent.end - extent.first.max(self.next);
            self.records += numbered.min(u64::from(extent.count));
            self.bytes += extent.memory_bytes();
            self.next = extent.end;
            self.located.push(Located::new(self.shard, segment, extent));
        }
    }
}
