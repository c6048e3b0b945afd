//! From what is on disk to the state the log goes on from. [`scan`] decides and is pure; [`recover`]
//! reads, and cuts what a crash left half-written.
//!
//! A frame that does not hold belongs to the first commit that is not whole. If a later frame says
//! that commit was durable, acknowledged data is damaged and the log is refused; otherwise nobody
//! was told of it, and it is cut off as one.

use std::collections::{BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::sync::Arc;

use crate::log::disk::{Disk, DiskFile};
use crate::log::entry::{ShardState, Snapshot, TRAILER_BYTES, Transaction, decode_opened};
use crate::log::extent::Index;
use crate::log::frame::{
    self, ALIGNMENT, Fault, Frame, HEADER_BYTES, Kind, Magic, Place, frame_bytes,
};
use crate::log::index::Segment;
use crate::log::plan::{self, EPOCH_LIMIT, Shards};
use crate::log::records::RunHead;
use crate::log::segment::{self, as_u64};
use crate::log::segment_index::{Run, SegmentIndex};
use crate::log::{Error, Metadata};
use crate::log::{lay_out, spare};

/// What a scan says of a frame that an earlier segment left in a file.
const STALE: &str = "the frame is of an earlier segment";
/// The first segment is small: laying out a whole one takes longer than all else that a first start does.
const FIRST_SEGMENT_BYTES: u64 = 1 << 20;
static ZEROS: [u8; 4096] = [0; 4096];

/// The log's state after its last whole commit.
#[derive(Debug, Clone)]
pub(crate) struct State<M> {
    pub(crate) log_id: [u8; 16],
    pub(crate) epoch: u64,
    pub(crate) metadata: M,
    pub(crate) shards: Shards,
    pub(crate) index: SegmentIndex,
    /// The last commit's number.
    pub(crate) commit: u64,
    /// Where the last commit ends.
    pub(crate) position: u64,
    /// There is nothing but the snapshot.
    pub(crate) fresh: bool,
    /// The last frame is a footer.
    pub(crate) sealed: bool,
    /// The last frame says that all before it was durable: nothing of this segment can lie behind it.
    pub(crate) closed: bool,
    /// Commits, and where they begin, of which no frame says that they were durable.
    pub(crate) unsure: VecDeque<(u64, u64)>,
}

/// What the log goes on from.
#[derive(Debug)]
pub(crate) struct Recovered<M> {
    pub(crate) state: State<M>,
    pub(crate) first_segment: u64,
    pub(crate) active: Segment,
    pub(crate) capacity: u64,
}

/// Opens the segments there are, or creates the first.
pub(crate) fn recover<M: Metadata>(
    disk: &dyn Disk,
    segment_bytes: u64,
    initial: &M,
) -> Result<Recovered<M>, Error> {
    let names = disk
        .list()
        .map_err(|source| Error::io("listing", "segments", source))?;
    let numbers: BTreeSet<u64> = names
        .iter()
        .filter_map(|name| segment::number(name))
        .collect();
    let ends = numbers.first().copied().zip(numbers.last().copied());
    let recovered = if let Some((first, last)) = ends {
        if let Some(missing) = (first..=last).find(|number| !numbers.contains(number)) {
            return Err(Error::corrupt(missing, 0, "the segment is missing"));
        }
        recover_from(disk, (first, last), false)?
    } else {
        create_first(disk, segment_bytes, initial)?;
        recover_from(disk, (1, 1), true)?
    };
    remove_laid_out(disk, &names)?;
    Ok(recovered)
}

/// Removes what was laid out or rewritten for a segment and never became one. Only now: a log that is refused is
/// left as it was.
fn remove_laid_out(disk: &dyn Disk, names: &[String]) -> Result<(), Error> {
    for name in segment::PASSING {
        if !names.iter().any(|found| found == name) {
            continue;
        }
        match disk.remove(name) {
            // The first segment was made of it.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.map_err(|source| Error::io("removing", name, source))?,
        }
    }
    Ok(())
}

fn create_first<M: Metadata>(
    disk: &dyn Disk,
    segment_bytes: u64,
    initial: &M,
) -> Result<(), Error> {
    let bytes = segment_bytes.min(FIRST_SEGMENT_BYTES);
    let name = segment::name(1);
    let mut log_id = [0; 16];
    getrandom::fill(&mut log_id)
        .map_err(|error| Error::io("naming", &name, std::io::Error::other(error.to_string())))?;
    let metadata = initial.encode();
    let snapshot = Snapshot {
        log_id,
        epoch: 0,
        metadata: &metadata,
        shards: Vec::new(),
    };
    let frames = snapshot_frame(
        &snapshot,
        Place {
            segment: 1,
            commit: 1,
            durable: 0,
        },
    );
    // Room for what is written at every start, and for the end.
    let least = as_u64(frames.len() + 4 * HEADER_BYTES + 2 * TRAILER_BYTES);
    let file = disk
        .create(segment::SPARE, bytes.max(least))
        .map_err(|source| spare::refused(bytes.max(least), Arc::new(source)))?;
    let place = || {
        file.write_at(&frames, 0)?;
        file.sync()?;
        disk.rename(segment::SPARE, &name)?;
        disk.sync_directory()
    };
    place().map_err(|source| Error::io("creating", &name, source))
}

/// The frame a segment begins with.
pub(crate) fn snapshot_frame(snapshot: &Snapshot<'_>, place: Place) -> Vec<u8> {
    let magic = Magic::of(&snapshot.log_id);
    let encode = |buffer: &mut Vec<u8>| snapshot.encode(buffer);
    frame::single(Kind::Snapshot, (place, magic), 0, encode)
}

fn recover_from<M: Metadata>(
    disk: &dyn Disk,
    (first_segment, last): (u64, u64),
    is_new: bool,
) -> Result<Recovered<M>, Error> {
    let io = |operation| move |source| Error::io(operation, &segment::name(last), source);
    let (file, bytes) = read_whole(disk, last)?;
    let mut state: State<M> = scan(last, &bytes)?;
    state.closed |= is_new;
    // A name that was found may never have been synced, if a process was killed; sealing relies on it.
    disk.sync_directory()
        .map_err(io("syncing the directory of"))?;
    for number in first_segment..last {
        check_sealed(disk, number, &state, number + 1 == last)?;
    }
    if state.sealed {
        // The next segment is there before this one is sealed.
        return Err(Error::corrupt(last + 1, 0, "the segment is missing"));
    }
    cut(file.as_ref(), &bytes, &state).map_err(io("cutting the torn tail of"))?;
    secure(file.as_ref(), &bytes, &state).map_err(io("writing again what was found in"))?;
    let index = std::mem::take(&mut state.index);
    let active = Segment {
        number: last,
        file,
        index,
    };
    Ok(Recovered {
        state,
        first_segment,
        active,
        capacity: as_u64(bytes.len()),
    })
}

pub(crate) fn read_whole(
    disk: &dyn Disk,
    number: u64,
) -> Result<(Arc<dyn DiskFile>, Vec<u8>), Error> {
    let name = segment::name(number);
    let read = || {
        let file = disk.open(&name)?;
        let len = usize::try_from(file.len_bytes()?).unwrap_or(usize::MAX);
        let bytes = file.read(0, len)?;
        Ok((file, bytes))
    };
    read().map_err(|source| Error::io("reading", &name, source))
}

/// Checks that an earlier segment has its footer. The one before the last may lack it, if the last
/// has nothing but its snapshot: then the crash came in between, and it is sealed now. It is also sealed again if it
/// has one, which a process that was killed may have written and not synced.
fn check_sealed<M: Metadata>(
    disk: &dyn Disk,
    number: u64,
    last: &State<M>,
    is_before_last: bool,
) -> Result<(), Error> {
    let name = segment::name(number);
    let magic = Magic::of(&last.log_id);
    let file = disk
        .open(&name)
        .map_err(|source| Error::io("opening", &name, source))?;
    match segment::read_footer(file.as_ref(), number, magic) {
        Err(Error::Corrupt { .. }) if last.fresh && is_before_last => {}
        // A rewritten one was synced before it was given its name.
        Ok(footer) if last.fresh && is_before_last && matches!(footer.index, Index::Runs(_)) => {}
        footer => return footer.map(drop),
    }
    let (_, bytes) = read_whole(disk, number)?;
    let state: State<M> = scan(number, &bytes)?;
    let footer_bytes = as_u64(frame_bytes(state.index.len_bytes_with(0, 0)));
    let (footer_at, sealed_by) = if state.sealed {
        (state.position - footer_bytes, state.commit)
    } else {
        (state.position, state.commit + 1)
    };
    if state.log_id != last.log_id || sealed_by + 1 != last.commit {
        let reason = "it ends before the next segment begins";
        return Err(Error::corrupt(number, state.position, reason));
    }
    let place = Place {
        segment: number,
        commit: sealed_by,
        durable: sealed_by - 1,
    };
    let footer = segment::footer(footer_at, &state.index, place, magic);
    segment::seal(file.as_ref(), footer_at, footer)
        .map_err(|source| Error::io("sealing", &name, source))
}

/// Zeroes what follows the last commit, so that it is never taken for frames of the future. Unless the log was closed also what is
/// found to be zeros: where the sync of an earlier start has failed, the system may only have them in memory.
fn cut<M>(file: &dyn DiskFile, bytes: &[u8], state: &State<M>) -> std::io::Result<()> {
    let start = usize::try_from(state.position).unwrap_or(usize::MAX);
    let end = if state.closed {
        let tail = bytes.get(start..written_end(bytes)).unwrap_or_default();
        let last = tail.iter().rposition(|byte| *byte != 0);
        last.map_or(state.position, |last| state.position + as_u64(last) + 1)
    } else {
        as_u64(bytes.len())
    };
    lay_out::zero(file, state.position, end)
}

/// Makes what was found durable. It may never have been synced, if a process was killed; and where a sync has failed,
/// the system may take for written what it only has in memory: syncing does nothing then, so it is written again.
fn secure<M>(file: &dyn DiskFile, bytes: &[u8], state: &State<M>) -> std::io::Result<()> {
    if let Some((_, from)) = state.unsure.front() {
        let start = usize::try_from(*from).unwrap_or(usize::MAX);
        let end = usize::try_from(state.position).unwrap_or(usize::MAX);
        file.write_at(bytes.get(start..end).unwrap_or_default(), *from)?;
    }
    file.sync()
}

/// Where nothing but zeros follows, to within a block: most of a segment was only laid out, and is
/// compared block by block instead of being looked at byte by byte.
pub(crate) fn written_end(bytes: &[u8]) -> usize {
    let unwritten = bytes.rchunks(ZEROS.len());
    let unwritten = unwritten.take_while(|block| Some(*block) == ZEROS.get(..block.len()));
    bytes.len() - unwritten.map(<[u8]>::len).sum::<usize>()
}

/// Folds the frames of the last segment.
pub(crate) fn scan<M: Metadata>(segment: u64, bytes: &[u8]) -> Result<State<M>, Error> {
    let mut state = begin(segment, bytes)?;
    let magic = Magic::of(&state.log_id);
    let mut at = usize::try_from(state.position).unwrap_or(usize::MAX);
    // Frames of a commit whose last frame has not been seen.
    let mut commit: Vec<(usize, Frame<'_>)> = Vec::new();
    while !state.sealed {
        let number = state.commit + 1;
        match frame::decode(bytes.get(at..).unwrap_or_default(), magic) {
            // The file was that of an earlier segment.
            Ok(frame) if frame.place.segment < segment => {
                refuse_durable(segment, (bytes, at), (magic, number), &STALE)?;
                break;
            }
            Ok(frame) => {
                if frame.place.segment != segment || frame.place.commit != number {
                    return Err(Error::corrupt(
                        segment,
                        as_u64(at),
                        "frames do not continue",
                    ));
                }
                commit.push((at, frame));
                at += frame_bytes(frame.body.len());
                if !frame.more {
                    let begins = commit.first().map_or(at, |(begins, _)| *begins);
                    state.unsure.push_back((number, as_u64(begins)));
                    let durable = frame.place.durable;
                    while state.unsure.front().is_some_and(|(n, _)| *n <= durable) {
                        state.unsure.pop_front();
                    }
                    state.closed = frame.kind == Kind::Closed;
                    for (at, frame) in commit.drain(..) {
                        state.apply(segment, as_u64(at), &frame)?;
                    }
                    state.commit = number;
                    state.fresh = false;
                    state.position = as_u64(at);
                }
            }
            Err(fault @ Fault::Unknown { .. }) => return Err(segment::newer(segment, fault)),
            Err(fault) => {
                refuse_durable(segment, (bytes, at), (magic, number), &fault)?;
                break;
            }
        }
    }
    Ok(state)
}

pub(crate) fn begin<M: Metadata>(segment: u64, bytes: &[u8]) -> Result<State<M>, Error> {
    let corrupt = |reason: String| Error::corrupt(segment, 0, reason);
    // A snapshot is read before the log's magic is known.
    let frame = frame::decode(bytes, Magic::of(&[0; 16])).map_err(|fault| match fault {
        Fault::Unknown { .. } => segment::newer(segment, fault),
        _ => corrupt(format!("no snapshot: {fault}")),
    })?;
    let counts = frame.place.segment == segment && frame.place.commit < u64::MAX / 2;
    if frame.kind != Kind::Snapshot || frame.more || !counts {
        return Err(corrupt(
            "the first frame is not this segment's snapshot".to_owned(),
        ));
    }
    let snapshot = Snapshot::decode(frame.body)
        .filter(|snapshot| snapshot.epoch < EPOCH_LIMIT)
        .ok_or_else(|| corrupt("the snapshot cannot be understood".to_owned()))?;
    let shards: Shards = snapshot.shards.iter().copied().collect();
    Ok(State {
        log_id: snapshot.log_id,
        epoch: snapshot.epoch,
        metadata: M::decode(snapshot.metadata)?,
        index: SegmentIndex::starting_with(&shards),
        shards,
        commit: frame.place.commit,
        position: as_u64(frame_bytes(frame.body.len())),
        fresh: true,
        sealed: false,
        closed: false,
        unsure: VecDeque::new(),
    })
}

/// Fails if a later frame says that the commit was durable of which a frame should be at `at`.
fn refuse_durable(
    segment: u64,
    (bytes, at): (&[u8], usize),
    (magic, commit): (Magic, u64),
    fault: &dyn std::fmt::Display,
) -> Result<(), Error> {
    if durable_after(bytes, at, magic, segment) >= Some(commit) {
        let reason = format!("{fault}, and later frames say that it was durable");
        return Err(Error::corrupt(segment, as_u64(at), reason));
    }
    Ok(())
}

/// The greatest commit that any frame after `at` says was durable.
fn durable_after(bytes: &[u8], at: usize, magic: Magic, segment: u64) -> Option<u64> {
    let rest = (at + ALIGNMENT..written_end(bytes)).step_by(ALIGNMENT);
    let durable = |at| {
        let bytes = bytes.get(at..).filter(|bytes| magic.begins(bytes))?;
        // Cheap, where the file was that of an earlier segment and is full of its frames.
        let of_segment = frame::claimed_segment(bytes) == Some(segment);
        let frame = of_segment.then(|| frame::decode(bytes, magic).ok())??;
        Some(frame.place.durable)
    };
    rest.filter_map(durable).max()
}

impl<M: Metadata> State<M> {
    pub(crate) fn apply(&mut self, segment: u64, at: u64, frame: &Frame<'_>) -> Result<(), Error> {
        let corrupt = |reason: &str| Error::corrupt(segment, at, reason);
        let garbled = || corrupt("a sound frame cannot be understood");
        match frame.kind {
            Kind::Records => {
                let head = RunHead::decode(frame.body).ok_or_else(garbled)?;
                let length = u32::try_from(frame.body.len() + HEADER_BYTES).unwrap_or(u32::MAX);
                self.append(head, at, length).map_err(corrupt)?;
            }
            Kind::Transaction => {
                let transaction = Transaction::decode(frame.body).ok_or_else(garbled)?;
                plan::check(&self.shards, &transaction)
                    .map_err(|error| corrupt(&format!("a transaction does not apply: {error}")))?;
                self.metadata.apply(&transaction.event)?;
                plan::apply(&mut self.shards, &transaction);
                for shard in &transaction.create {
                    self.index.create(*shard);
                }
            }
            Kind::Opened => {
                let epoch = decode_opened(frame.body).ok_or_else(garbled)?;
                if epoch <= self.epoch || epoch >= EPOCH_LIMIT {
                    return Err(corrupt("epochs do not rise"));
                }
                self.epoch = epoch;
            }
            Kind::Footer => {
                if SegmentIndex::decode(frame.body).ok_or_else(garbled)? != self.index {
                    return Err(corrupt("the footer is not what the segment holds"));
                }
                self.sealed = true;
            }
            Kind::Closed => {}
            Kind::Snapshot => return Err(corrupt("a snapshot inside a segment")),
            Kind::Packed | Kind::PackedFooter => {
                return Err(corrupt("a rewritten part inside the last segment"));
            }
        }
        Ok(())
    }

    fn append(&mut self, head: RunHead, offset: u64, length: u32) -> Result<(), &'static str> {
        let state = self
            .shards
            .get_mut(&head.shard)
            .ok_or("a run of an unknown shard")?;
        let RunHead {
            shard,
            first,
            time_ms,
            count,
        } = head;
        let run = Run {
            first,
            offset,
            length,
            count,
            time_ms,
        };
        if state.sealed {
            return Err("a run of a sealed shard");
        }
        if first < state.next || time_ms < state.last_time_ms {
            return Err("counters or times fall back");
        }
        *state = ShardState {
            next: run.end(),
            last_time_ms: time_ms,
            sealed: false,
        };
        self.index.push(shard, run);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unwritten_space_ends_at_the_block_of_the_last_byte_that_is_not_zero() {
        for length in [0, 1, 4095, 4096, 4097, 12_288, 12_300] {
            let mut bytes = vec![0; length];
            assert_eq!(written_end(&bytes), 0, "{length} zeros");
            for at in [0, 1, 4096, 8191, 8192, 12_299] {
                if at >= length {
                    continue;
                }
                bytes.fill(0);
                bytes[at] = 1;
                let end = written_end(&bytes);
                assert!(
                    end > at && end - at <= 4096,
                    "{length} bytes, one at {at}: {end}"
                );
            }
        }
    }
}
