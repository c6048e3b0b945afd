//! Reads all of a log that nobody has open, and tells everything that is not as it was written; changes nothing. What a
//! repair would do follows from it (`repair`). Why and how: `docs/0012-check-and-repair.md`.
//!
//! One segment is in memory at a time; `committed` and `rewritten` look through it and are pure, here segments are put after
//! each other.

mod claims;
mod committed;
mod examined;
mod link;
mod report;
mod rewritten;
mod survey;

use std::collections::BTreeSet;
use std::io;

pub use report::{Changes, Finding, Lost, Note, Remedy, Totals};

use crate::log::check::committed::{Input, Role, without_trailer};
use crate::log::check::examined::{Before, Examined, Perhaps, shards_after};
use crate::log::disk::Disk;
use crate::log::entry::Snapshot;
use crate::log::extent::Index;
use crate::log::frame::{self, HEADER_BYTES, Kind, Magic, Place};
use crate::log::packed_index::PackedIndex;
use crate::log::plan::EPOCH_LIMIT;
use crate::log::recovery::{self, State, read_whole};
use crate::log::repair::Action;
use crate::log::segment::{self, as_u64};
use crate::log::{Error, Metadata};

/// What is kept of findings; more are counted. A log that has more is not repaired by reading them.
const FINDINGS: usize = 10_000;
/// Starts that a segment may have seen of which nothing is left. Epochs are made greater than that: a number must not be given out twice.
const STARTS_UNSEEN: u64 = 1 << 14;

/// What a check found.
#[derive(Debug)]
pub struct Checked<M> {
    /// What was looked at.
    pub totals: Totals,
    /// What is damaged, in the order of segments.
    pub findings: Vec<Finding>,
    /// How many findings there are beside these.
    pub more_findings: u64,
    /// What is no damage.
    pub notes: Vec<Note>,
    /// The metadata at the end of the log, or where they were last known.
    pub metadata: Option<M>,
    pub(crate) magic: Option<Magic>,
    pub(crate) actions: Vec<Action>,
}

/// Reads everything.
///
/// # Errors
/// [`Error::Io`] if a file cannot be read, [`Error::NewerFormat`] if a newer version wrote it.
pub fn check<M: Metadata>(disk: &dyn Disk) -> Result<Checked<M>, Error> {
    let names = disk
        .list()
        .map_err(|source| Error::io("listing", "segments", source))?;
    let mut numbers: BTreeSet<u64> = names
        .iter()
        .filter_map(|name| segment::number(name))
        .collect();
    let mut check = Check {
        disk,
        checked: Checked {
            totals: Totals::default(),
            findings: Vec::new(),
            more_findings: 0,
            notes: left_over(&names),
            metadata: None,
            magic: None,
            actions: Vec::new(),
        },
        before: None,
        mended: None,
        epoch: 0,
        finished: None,
    };
    let Some(magic) = find_magic(disk, &numbers)? else {
        check.nothing_holds(&numbers);
        return Ok(check.checked);
    };
    check.checked.magic = Some(magic);
    check.misplaced(&mut numbers, magic)?;
    let ends = numbers.first().copied().zip(numbers.last().copied());
    if let Some((first, last)) = ends {
        let strict = check.strictly(last)?;
        for number in first..=last {
            if numbers.contains(&number) {
                check.segment(number, magic, last, strict.as_ref().ok())?;
            } else {
                check.missing(number);
            }
        }
        check.last(last, strict.err());
    }
    Ok(check.checked)
}

/// A check on its way through the segments.
struct Check<'a, M> {
    disk: &'a dyn Disk,
    checked: Checked<M>,
    before: Option<Before<M>>,
    /// The action about the segment before, if there is one whose place in the log was guessed.
    mended: Option<usize>,
    epoch: u64,
    /// The last segment as it was found, once it was.
    finished: Option<Finished<M>>,
}

#[derive(Debug)]
struct Finished<M> {
    is_sealed: bool,
    is_whole: bool,
    index: Option<Index>,
    place: Place,
    state: Option<State<Perhaps<M>>>,
}

/// What was laid out or rewritten and got no number.
fn left_over(names: &[String]) -> Vec<Note> {
    let left = segment::PASSING
        .into_iter()
        .filter(|left| names.iter().any(|name| name == left));
    left.map(|name| Note {
        file: name.to_owned(),
        offset: 0,
        text: "no segment yet, and nothing is read from it; the next start removes it".to_owned(),
    })
    .collect()
}

/// What the frames of this log begin with: what most segments say whose first frame holds, and the newest of them if in doubt.
fn find_magic(disk: &dyn Disk, numbers: &BTreeSet<u64>) -> Result<Option<Magic>, Error> {
    let mut found: Vec<(Magic, u32)> = Vec::new();
    for number in numbers {
        let Some(magic) = magic_of(disk, *number)? else {
            continue;
        };
        match found.iter_mut().find(|(one, _)| *one == magic) {
            Some((_, votes)) => *votes += 1,
            None => found.push((magic, 1)),
        }
    }
    if found.is_empty() {
        for number in numbers.iter().rev() {
            let (_, bytes) = read_whole(disk, *number)?;
            if let Some(magic) = magic_of_any(&bytes) {
                return Ok(Some(magic));
            }
        }
    }
    Ok(found
        .into_iter()
        .max_by_key(|(_, votes)| *votes)
        .map(|(magic, _)| magic))
}

fn magic_of(disk: &dyn Disk, number: u64) -> Result<Option<Magic>, Error> {
    let name = segment::name(number);
    let read = || -> io::Result<Option<Vec<u8>>> {
        let file = disk.open(&name)?;
        let mut head = [0; HEADER_BYTES];
        if file.len_bytes()? < as_u64(HEADER_BYTES) {
            return Ok(None);
        }
        file.read_at(&mut head, 0)?;
        let [_, _, _, _, a, b, c, d, ..] = head;
        let length = as_u64(HEADER_BYTES) + u64::from(u32::from_be_bytes([a, b, c, d]));
        if length > file.len_bytes()? {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        file.read_at(&mut bytes, 0)?;
        Ok(Some(bytes))
    };
    let bytes = read().map_err(|source| Error::io("reading", &name, source))?;
    Ok(bytes.and_then(|bytes| magic_of_first(&bytes)))
}

fn magic_of_first(bytes: &[u8]) -> Option<Magic> {
    let magic = Magic::begun(bytes)?;
    let frame = frame::decode(bytes, magic).ok()?;
    match frame.kind {
        Kind::Snapshot => Snapshot::decode(frame.body).map(|snapshot| Magic::of(&snapshot.log_id)),
        _ => Some(magic),
    }
}

/// Without a first frame that holds anywhere, any other one will do.
fn magic_of_any(bytes: &[u8]) -> Option<Magic> {
    let places = (0..bytes.len()).step_by(frame::ALIGNMENT);
    places
        .filter_map(|at| bytes.get(at..))
        .find_map(magic_of_first)
}

impl<M: Metadata> Check<'_, M> {
    fn find(&mut self, finding: Finding) {
        if self.checked.findings.len() < FINDINGS {
            self.checked.findings.push(finding);
        } else {
            self.checked.more_findings += 1;
        }
    }

    fn nothing_holds(&mut self, numbers: &BTreeSet<u64>) {
        for number in numbers {
            self.checked.totals.segments += 1;
            let mut finding = Finding::new(*number, 0, 0, "no frame of it holds");
            let why = "without any frame of the log nothing is known of its streams";
            finding.remedy = Remedy::Restore { why };
            self.find(finding);
        }
    }

    /// Takes files at the end off that are other segments under a wrong number: the log ends before them.
    fn misplaced(&mut self, numbers: &mut BTreeSet<u64>, magic: Magic) -> Result<(), Error> {
        while numbers.len() > 1
            && let Some(last) = numbers.last().copied()
        {
            let (_, bytes) = read_whole(self.disk, last)?;
            let found = survey::survey(&bytes, magic, last)?;
            let Some(other) = found.other.filter(|_| found.frames.is_empty()) else {
                return Ok(());
            };
            numbers.remove(&last);
            self.checked.totals.segments += 1;
            self.checked.totals.bytes += as_u64(bytes.len());
            let is_copy = numbers.contains(&other);
            self.find(misplaced(last, other, is_copy));
            self.checked.actions.push(Action::Remove { number: last });
        }
        Ok(())
    }

    /// The last segment as recovery takes it.
    fn strictly(&self, last: u64) -> Result<Result<State<Perhaps<M>>, Error>, Error> {
        let (_, bytes) = read_whole(self.disk, last)?;
        match recovery::scan::<Perhaps<M>>(last, &bytes) {
            Err(newer @ Error::NewerFormat { .. }) => Err(newer),
            scanned => Ok(scanned),
        }
    }

    fn missing(&mut self, number: u64) {
        let ends = self
            .before
            .take()
            .map(|before| (before.ends, before.commit));
        let (ends, commit) = ends.unwrap_or_default();
        let place = Place {
            segment: number,
            commit: commit + 1,
            durable: commit,
        };
        let index = PackedIndex {
            generation: 1,
            shards: shards_after(&ends),
        };
        let mut finding = Finding::new(number, 0, 0, "the segment is missing");
        finding.lose_changes(Changes::Kept);
        self.find(finding);
        self.mended = Some(self.checked.actions.len());
        self.checked.actions.push(Action::Fill {
            number,
            index,
            place,
        });
        self.before = Some(Before {
            number,
            commit: place.commit,
            ends,
            state: None,
            is_whole: false,
        });
    }

    fn segment(
        &mut self,
        number: u64,
        magic: Magic,
        last: u64,
        strict: Option<&State<Perhaps<M>>>,
    ) -> Result<(), Error> {
        let (_, bytes) = read_whole(self.disk, number)?;
        let role = if number == last {
            Role::Last
        } else {
            Role::Sealed
        };
        let before = self.before.take();
        let input = Input {
            number,
            bytes: &bytes,
            magic,
            role,
            before: before.as_ref(),
        };
        let next_commit = strict.filter(|next| next.fresh && number + 1 == last);
        let unsealed = match next_commit {
            Some(next) => unsealed(&input, next)?,
            None => None,
        };
        let is_rewritten = is_rewritten(&input)?;
        let mut examined = match unsealed {
            Some(examined) => examined,
            None if is_rewritten => rewritten::examine(&input)?,
            None => committed::examine(&input)?,
        };
        let totals = &mut self.checked.totals;
        totals.segments += 1;
        totals.rewritten += u64::from(is_rewritten);
        totals.records += examined.records;
        totals.transactions += examined.transactions;
        totals.bytes += as_u64(bytes.len());
        self.link(before.as_ref(), &mut examined, magic);
        self.settle(examined, role);
        Ok(())
    }

    /// Compares a segment with the one before, where more of that one may turn out to be missing.
    fn link(&mut self, before: Option<&Before<M>>, examined: &mut Examined<M>, magic: Magic) {
        if let Some(begins) = &examined.begins
            && Magic::of(&begins.log_id) != magic
        {
            examined.findings.insert(0, {
                let mut finding = Finding::new(examined.number, 0, 0, "it is of another log");
                finding.lose_changes(Changes::Kept);
                finding
            });
            examined.is_whole = false;
            return;
        }
        let Some(before) = before else { return };
        let missing = link::missing(before, examined);
        let of_before = |finding: &&mut Finding| finding.segment == Some(before.number);
        let findings = &mut self.checked.findings;
        if let Some(finding) = findings.iter_mut().rev().find(of_before) {
            for lost in missing {
                finding.lose(lost);
            }
        }
        if let Some(begins) = &examined.begins
            && let Some(at) = self.mended
            && let Some(Action::Rebuild { place, .. } | Action::Fill { place, .. }) =
                self.checked.actions.get_mut(at)
        {
            place.commit = begins.commit.saturating_sub(1);
            place.durable = place.commit.saturating_sub(1);
        }
        let known_commit = self.mended.is_none();
        if let Some(problem) = link::breach(before, examined, known_commit) {
            let mut finding = Finding::new(examined.number, 0, 0, problem);
            let why = "each segment holds by itself: files of different times were put together";
            finding.remedy = Remedy::Restore { why };
            examined.findings.push(finding);
        }
    }

    /// Takes over what was found of a segment, and what is to be done about it.
    fn settle(&mut self, examined: Examined<M>, role: Role) {
        let number = examined.number;
        for (at, end) in &examined.padding {
            let (at, end) = (as_u64(*at), as_u64(*end));
            let problem = "padding is not zero; nothing is read from it";
            self.find(Finding::new(number, at, end, problem));
        }
        examined
            .findings
            .iter()
            .cloned()
            .for_each(|one| self.find(one));
        self.checked.notes.extend(examined.notes.iter().cloned());
        self.epoch = self.epoch.max(examined.epoch);
        if let Some(state) = &examined.state {
            self.checked.metadata.clone_from(&state.metadata.0);
            self.checked.totals.shards = as_u64(state.shards.len());
        }
        self.mended = None;
        if examined.is_whole && !examined.padding.is_empty() {
            let ranges = examined.padding.clone();
            self.checked.actions.push(Action::Zero { number, ranges });
        }
        if role == Role::Last {
            self.finished = Some(Finished {
                is_sealed: examined.is_sealed,
                is_whole: examined.is_whole,
                index: Some(examined.index),
                place: examined.place,
                state: examined.state,
            });
            return;
        }
        if examined.is_whole {
            self.before = Some(examined.before());
            return;
        }
        let at = self.checked.actions.len();
        self.mended = (!examined.is_indexed).then_some(at);
        let (place, ends) = (examined.place, examined::ends(&examined.index));
        let before = Before {
            number,
            commit: place.commit,
            ends,
            state: examined.state,
            is_whole: false,
        };
        let index = examined.index;
        self.checked.actions.push(Action::Rebuild {
            number,
            index,
            place,
        });
        self.before = Some(before);
    }

    /// What the log goes on from, or what it would have to.
    fn last(&mut self, last: u64, refused: Option<Error>) {
        let Some(mut finished) = self.finished.take() else {
            return;
        };
        if finished.is_sealed {
            let mut finding = Finding::new(
                last + 1,
                0,
                0,
                "the segment is missing: the one before is sealed",
            );
            finding.lose_changes(Changes::MayBeLost);
            finding.is_open = true;
            self.epoch += STARTS_UNSEEN;
            self.find(finding);
        } else if finished.is_whole {
            if let Some(error) = refused {
                let mut finding = Finding::new(last, 0, 0, committed::reason(&error));
                finding.remedy = Remedy::Restore {
                    why: "a start refuses it, and what is wrong was not found",
                };
                self.find(finding);
            }
            return;
        }
        let why = match &finished.state {
            None => Some(
                "the streams and shards are in the snapshot that is damaged, and the segment before was rewritten or is damaged too",
            ),
            Some(_) if self.epoch + 2 >= EPOCH_LIMIT => {
                Some("there are no sequence numbers left that are known to be new")
            }
            Some(_) => None,
        };
        if let Some(why) = why {
            let damaged = self.checked.findings.last_mut();
            if let Some(finding) = damaged {
                finding.remedy = Remedy::Restore { why };
            }
            return;
        }
        let Some(mut state) = finished.state.take() else {
            return;
        };
        state.epoch = state.epoch.max(self.epoch);
        let place = Place {
            segment: last + 1,
            commit: finished.place.commit + 1,
            durable: finished.place.commit,
        };
        self.checked.actions.push(continued(&state, place));
        if !finished.is_whole
            && let Some(index) = finished.index
        {
            let (number, place) = (last, finished.place);
            self.checked.actions.push(Action::Rebuild {
                number,
                index,
                place,
            });
        }
    }
}

fn continued<M: Metadata>(state: &State<Perhaps<M>>, place: Place) -> Action {
    let metadata = state.metadata.encode();
    let snapshot = Snapshot {
        log_id: state.log_id,
        epoch: state.epoch,
        metadata: &metadata,
        shards: state
            .shards
            .iter()
            .map(|(shard, state)| (*shard, *state))
            .collect(),
    };
    let number = place.segment;
    let frames = recovery::snapshot_frame(&snapshot, place);
    Action::Continue { number, frames }
}

fn misplaced(number: u64, other: u64, is_copy: bool) -> Finding {
    let end = 0;
    if is_copy {
        let problem = format!("it is a copy of segment {other}, which is there");
        return Finding::new(number, 0, end, problem);
    }
    let mut finding = Finding::new(
        number,
        0,
        end,
        format!("its frames are of segment {other}, which is missing"),
    );
    let to = segment::name(other);
    finding.remedy = Remedy::Rename { to };
    finding
}

/// Whether blocks are to be expected.
fn is_rewritten<M>(input: &Input<'_, M>) -> Result<bool, Error> {
    let packed = |kind| matches!(kind, Kind::Packed | Kind::PackedFooter);
    let (body, trailer) = without_trailer(input.bytes);
    if let Ok(first) = frame::decode(body, input.magic) {
        return Ok(packed(first.kind));
    }
    let footer = trailer.and_then(|at| body.get(usize::try_from(at).ok()?..));
    if let Some(Ok(footer)) = footer.map(|bytes| frame::decode(bytes, input.magic)) {
        return Ok(packed(footer.kind));
    }
    let found = survey::survey(body, input.magic, input.number)?;
    Ok(found
        .frames
        .first()
        .is_some_and(|(_, frame)| packed(frame.kind)))
}

/// The segment before the last one, if a crash came before its footer and the next start writes that.
fn unsealed<M: Metadata>(
    input: &Input<'_, M>,
    next: &State<Perhaps<M>>,
) -> Result<Option<Examined<M>>, Error> {
    if without_trailer(input.bytes).1.is_some() || is_rewritten(input)? {
        return Ok(None);
    }
    let as_last = Input {
        role: Role::Last,
        ..*input
    };
    let mut examined: Examined<M> = committed::examine(&as_last)?;
    // A footer that was written without its trailer is there for recovery.
    let goes_on = examined.place.commit + 1 == next.commit;
    let is_whole = examined.is_whole || examined.state.as_ref().is_some_and(|state| state.sealed);
    if !goes_on
        || !is_whole
        || examined
            .findings
            .iter()
            .any(|one| one.remedy == Remedy::Drop)
    {
        return Ok(None);
    }
    examined.findings.clear();
    examined.is_whole = true;
    examined.notes = vec![Note {
        file: segment::name(input.number),
        offset: examined.state.as_ref().map_or(0, |state| state.position),
        text: "without a footer: the crash came before; the next start writes it".to_owned(),
    }];
    Ok(Some(examined))
}
