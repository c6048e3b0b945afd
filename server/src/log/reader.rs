//! Finding and reading runs: from the tail cache where that can be, else by positioned reads that
//! are checked every time. Blocking; writes nothing.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::log::disk::DiskFile;
use crate::log::entry::{Run, ShardRuns};
use crate::log::frame::{self, Kind};
use crate::log::published::Published;
use crate::log::records::{RunHead, decode_run};
use crate::log::{Error, LogShard, ReadLimit, ReadRecord, segment};

/// A run and the segment it lies in.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    segment: u64,
    file: Arc<dyn DiskFile>,
    pub(crate) run: Run,
}

/// What to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) shard: LogShard,
    pub(crate) from: u64,
    pub(crate) limit: ReadLimit,
    pub(crate) not_before_ms: u64,
}

/// Runs that were found and are yet to be read.
#[derive(Debug)]
pub(crate) struct Planned {
    request: Request,
    pub(crate) located: Vec<Located>,
}

impl Planned {
    /// Bytes that reading them takes at most.
    pub(crate) fn len_bytes(&self) -> usize {
        let lengths = self.located.iter().map(|located| located.run.length);
        lengths.fold(0, |sum, length| {
            sum.saturating_add(usize::try_from(length).unwrap_or(usize::MAX))
        })
    }
}

/// Bytes read from a file, with their share of the budget.
struct Held {
    bytes: Vec<u8>,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
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

    fn add(&mut self, located: &Located, frame: &Bytes, request: &Request) -> Result<(), Error> {
        let Run {
            first,
            time_ms,
            count,
            offset,
            ..
        } = located.run;
        let (mut bytes, mut taken) = (self.bytes, self.records.len());
        let limit = self.limit;
        let mut full = false;
        let decoded = decode_run(frame, request.from, |record| {
            let fits = taken == 0 || bytes.saturating_add(record.len_bytes()) <= limit.bytes;
            full = !fits || taken >= limit.records;
            bytes = bytes.saturating_add(record.len_bytes());
            taken += 1;
            !full
        });
        let expected = RunHead {
            shard: request.shard,
            first,
            time_ms,
            count,
        };
        match decoded {
            Some((head, records)) if head == expected => self.records.extend(records),
            _ => {
                let reason = "the run is not the one the index says";
                return Err(Error::corrupt(located.segment, offset, reason));
            }
        }
        self.bytes = bytes;
        self.full = full || self.records.len() >= limit.records || bytes >= limit.bytes;
        Ok(())
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
            let mut plan = PlannedRuns::new(request);
            plan.extend(runs, active.number, &active.file);
            plan.located
        };
        if located
            .first()
            .is_some_and(|located| located.run.time_ms < request.not_before_ms)
        {
            return None;
        }
        let mut frames = Vec::with_capacity(located.len());
        {
            let cache = self.tail_cache();
            for Located { segment, run, .. } in &located {
                let length = usize::try_from(run.length).ok()?;
                frames.push(cache.get(*segment, run.offset, length)?);
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
        let too_old = |located: &Located| located.run.time_ms < request.not_before_ms;
        if located.first().is_some_and(too_old) {
            let kept = self.counter_at(request.shard, request.not_before_ms)?;
            request.from = request.from.max(kept);
            located = self.plan_read(&request)?;
        }
        Ok(Planned { request, located })
    }

    /// The planned records. Their bytes keep the permit until they are dropped.
    pub(crate) fn fetch_blocking(
        &self,
        planned: &Planned,
        permit: &Arc<OwnedSemaphorePermit>,
    ) -> Result<Vec<ReadRecord>, Error> {
        let Planned { request, located } = planned;
        let mut collected = Collected::new(request.limit);
        for located in located {
            if collected.full {
                break;
            }
            let frame = self.frame(located, permit)?;
            collected.add(located, &frame, request)?;
        }
        Ok(collected.records)
    }

    fn frame(&self, located: &Located, permit: &Arc<OwnedSemaphorePermit>) -> Result<Bytes, Error> {
        let Located {
            segment: number,
            file,
            run,
        } = located;
        let length = usize::try_from(run.length).unwrap_or(usize::MAX);
        let cached = self.tail_cache().get(*number, run.offset, length);
        if let Some(cached) = cached {
            return Ok(cached.detached());
        }
        let mut bytes = vec![0; length];
        file.read_at(&mut bytes, run.offset)
            .map_err(|source| Error::io("reading", &segment::name(*number), source))?;
        let corrupt = |reason: String| Error::corrupt(*number, run.offset, reason);
        let frame =
            frame::decode(&bytes, self.magic).map_err(|fault| corrupt(fault.to_string()))?;
        if frame.kind != Kind::Records || frame.place.segment != *number {
            return Err(corrupt("it is not a run of this segment".to_owned()));
        }
        let permit = Arc::clone(permit);
        Ok(Bytes::from_owner(Held {
            bytes,
            _permit: permit,
        }))
    }

    fn plan_read(&self, request: &Request) -> Result<Vec<Located>, Error> {
        let mut plan = PlannedRuns::new(request);
        // A segment that was active when it was looked into may have got more since: what lies in the
        // segments after it must not be read in this pass, or records in between were left out (S3).
        let last = *self.range().end();
        let mut number = self.last_segment_where(request.shard, |runs| runs.start <= plan.next)?;
        loop {
            let found_before = plan.located.len();
            let more = self.with_index(number, |segment, index| {
                if let Some(runs) = index.get(request.shard) {
                    plan.extend(runs, number, &segment.file);
                }
            })?;
            if plan.full() || number >= last {
                return Ok(plan.located);
            }
            let jump = more.is_some() && plan.located.len() > found_before;
            let next = plan.next;
            let after = number + 1;
            // Segments without runs of this shard are jumped over.
            number = if jump {
                after.max(self.last_segment_where(request.shard, |runs| runs.start <= next)?)
            } else {
                after
            };
        }
    }

    /// First counter whose time is at least `time_ms`, or the tail's next.
    pub(crate) fn counter_at(&self, shard: LogShard, time_ms: u64) -> Result<u64, Error> {
        let next = self.tail(shard).ok_or(Error::Unknown(shard))?.next;
        // As in `plan_read`: what was not there when the tail was taken is not looked for.
        let last = *self.range().end();
        let mut number = self.last_segment_where(shard, |runs| runs.start_time_ms < time_ms)?;
        loop {
            let found = self.with_index(number, |_, index| {
                let runs = index.get(shard)?;
                if runs.start_time_ms >= time_ms {
                    return Some(runs.start);
                }
                let at = runs.runs.partition_point(|run| run.time_ms < time_ms);
                runs.runs.get(at).map(|run| run.first)
            })?;
            if let Some(counter) = found.flatten() {
                return Ok(counter.min(next));
            }
            if number >= last {
                return Ok(next);
            }
            number += 1;
        }
    }

    /// The last segment at whose beginning `holds` was true of the shard, or there was no shard yet;
    /// the first segment if there is none. What holds at one beginning must hold at all before.
    fn last_segment_where(
        &self,
        shard: LogShard,
        holds: impl Fn(&ShardRuns) -> bool,
    ) -> Result<u64, Error> {
        let range = self.range();
        let test = |number| {
            self.with_index(number, |_, index| index.get(shard).is_none_or(&holds))
                // A segment removed meanwhile lies before all that are left.
                .map(|tested| tested.unwrap_or(true))
        };
        let (first, last) = (*range.start(), *range.end());
        if test(last)? {
            return Ok(last);
        }
        let (mut low, mut high) = (first, last);
        while low < high {
            let middle = low + (high - low) / 2;
            if test(middle)? {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low.saturating_sub(1).max(first))
    }
}

/// Runs to read, within the limit.
#[derive(Debug)]
struct PlannedRuns {
    located: Vec<Located>,
    next: u64,
    records: u64,
    bytes: usize,
    limit: ReadLimit,
}

impl PlannedRuns {
    fn new(request: &Request) -> PlannedRuns {
        let ReadLimit { records, bytes } = request.limit;
        let limit = ReadLimit { records, bytes };
        PlannedRuns {
            located: Vec::new(),
            next: request.from,
            records: 0,
            bytes: 0,
            limit,
        }
    }

    fn full(&self) -> bool {
        self.records >= segment::as_u64(self.limit.records)
            || (self.bytes >= self.limit.bytes && !self.located.is_empty())
    }

    fn extend(&mut self, runs: &ShardRuns, number: u64, file: &Arc<dyn DiskFile>) {
        let at = runs.runs.partition_point(|run| run.end() <= self.next);
        for run in runs.runs.iter().skip(at) {
            if self.full() {
                break;
            }
            self.records += run.end() - run.first.max(self.next);
            self.bytes += usize::try_from(run.length).unwrap_or(usize::MAX);
            self.next = run.end();
            self.located.push(Located {
                segment: number,
                file: Arc::clone(file),
                run: *run,
            });
        }
    }
}

impl<M> Published<M> {
    /// Removes the oldest sealed segments of which nothing is to be kept; see [`crate::log::Log::trim`].
    pub(crate) fn trim(
        &self,
        keep_after_ms: impl Fn(LogShard) -> Option<u64>,
    ) -> Result<usize, Error> {
        let mut removed = 0;
        loop {
            let range = self.range();
            let oldest = *range.start();
            if oldest == *range.end() {
                return Ok(removed);
            }
            let kept = self.with_index(oldest, |_, index| {
                index.iter().any(|(shard, runs)| {
                    let newest = runs.runs.last().map(|run| run.time_ms);
                    newest
                        .zip(keep_after_ms(shard))
                        .is_some_and(|(newest, keep)| newest >= keep)
                })
            })?;
            if kept != Some(false) {
                return Ok(removed);
            }
            self.remove(oldest)?;
            removed += 1;
        }
    }

    /// Removes the oldest segment. The directory is synced around each one: after a crash no gap may
    /// be left between those that are still there.
    fn remove(&self, oldest: u64) -> Result<(), Error> {
        let name = segment::name(oldest);
        let io = |operation| move |source| Error::io(operation, &segment::name(oldest), source);
        self.disk
            .sync_directory()
            .map_err(io("syncing the directory before removing"))?;
        // A reader that finds the file gone must find it forgotten as well.
        self.forget(oldest);
        if let Err(source) = self.disk.remove(&name) {
            self.remember(oldest);
            return Err(Error::io("removing", &name, source));
        }
        self.disk
            .sync_directory()
            .map_err(io("syncing the directory after removing"))
    }
}
