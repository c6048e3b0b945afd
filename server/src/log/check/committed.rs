//! A segment as it was committed: its frames folded as recovery does, going on behind what does not hold. Pure.

use std::collections::{BTreeMap, VecDeque};

use crate::log::check::claims::{self, Claim, Claims};
use crate::log::check::examined::{Before, Begins, Examined, Perhaps, ends, index_after, state_at};
use crate::log::check::report::{Changes, Finding, Lost, Note};
use crate::log::check::survey::{Hole, Survey, survey};
use crate::log::entry::{Snapshot, TRAILER_BYTES, Transaction, decode_opened, decode_trailer};
use crate::log::extent::Index;
use crate::log::frame::{Frame, HEADER_BYTES, Kind, Magic, Place, frame_bytes};
use crate::log::plan::{self, EPOCH_SHIFT, Shards};
use crate::log::records::RunHead;
use crate::log::recovery::{self, State};
use crate::log::segment::as_u64;
use crate::log::segment_index::{Run, SegmentIndex};
use crate::log::{Error, LogShard, Metadata};

/// Where a segment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Others come after it.
    Sealed,
    Last,
}

/// The bytes of a segment, and what is known of it.
#[derive(Debug)]
pub(crate) struct Input<'a, M> {
    pub(crate) number: u64,
    pub(crate) bytes: &'a [u8],
    pub(crate) magic: Magic,
    pub(crate) role: Role,
    pub(crate) before: Option<&'a Before<M>>,
}

/// The offset in a trailer that holds, and the bytes before it; without one all of them.
pub(crate) fn without_trailer(bytes: &[u8]) -> (&[u8], Option<u64>) {
    let cut = bytes.len().checked_sub(TRAILER_BYTES);
    let split = cut.map(|at| bytes.split_at(at));
    let held = split.and_then(|(body, end)| Some((body, decode_trailer(end)?)));
    match held {
        Some((body, footer_at)) => (body, Some(footer_at)),
        None => (bytes, None),
    }
}

/// Looks through it.
pub(crate) fn examine<M: Metadata>(input: &Input<'_, M>) -> Result<Examined<M>, Error> {
    let (body, trailer) = without_trailer(input.bytes);
    let survey = survey(body, input.magic, input.number)?;
    let has_footer = survey
        .frames
        .last()
        .is_some_and(|(_, f)| f.kind == Kind::Footer);
    let is_sealed = input.role == Role::Sealed || trailer.is_some() || has_footer;
    let mut folding = Folding::begin(input, body, is_sealed, has_footer);
    folding.frames(&survey);
    if is_sealed {
        folding.seal(&survey, trailer, as_u64(input.bytes.len()));
    }
    Ok(folding.end(survey.padding))
}

/// A segment's state as its frames are added, and what was found on the way.
struct Folding<'a, M> {
    number: u64,
    body: &'a [u8],
    is_sealed: bool,
    has_footer: bool,
    state: State<Perhaps<M>>,
    begins: Option<Begins>,
    /// Frames of a commit whose last one has not been seen.
    pending: Vec<(usize, Frame<'a>)>,
    /// The last commit of which anything was seen.
    commit: u64,
    heads: BTreeMap<u64, RunHead>,
    holes: Vec<Passed>,
    is_behind_hole: bool,
    lost_commits: u64,
    epoch: u64,
    footer: Option<(u64, Place, SegmentIndex)>,
    findings: Vec<Finding>,
    notes: Vec<Note>,
    records: u64,
    transactions: u64,
}

impl<'a, M: Metadata> Folding<'a, M> {
    fn begin(
        input: &Input<'a, M>,
        body: &'a [u8],
        is_sealed: bool,
        has_footer: bool,
    ) -> Folding<'a, M> {
        let (mut findings, mut begins) = (Vec::new(), None);
        let begun = recovery::begin::<Perhaps<M>>(input.number, body);
        let state = match begun {
            Ok(state) => {
                begins = Some(Begins {
                    log_id: state.log_id,
                    commit: state.commit,
                    shards: state.shards.clone(),
                    metadata: state.metadata.encode(),
                });
                state
            }
            Err(error) => {
                findings.push(no_snapshot(input, &error, is_sealed));
                state_after(input.number, input.before)
            }
        };
        Folding {
            number: input.number,
            body,
            is_sealed,
            has_footer,
            commit: state.commit,
            epoch: state.epoch,
            state,
            begins,
            pending: Vec::new(),
            heads: BTreeMap::new(),
            holes: findings.iter().map(|_| Passed::default()).collect(),
            is_behind_hole: !findings.is_empty(),
            lost_commits: 0,
            footer: None,
            findings,
            notes: Vec::new(),
            records: 0,
            transactions: 0,
        }
    }

    fn is_known(&self) -> bool {
        self.state.metadata.0.is_some()
    }

    fn finding(&mut self, at: usize, end: usize, problem: impl Into<String>) -> &mut Finding {
        let finding = Finding::new(self.number, as_u64(at), as_u64(end), problem);
        self.findings.push(finding);
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }

    fn frames(&mut self, survey: &Survey<'a>) {
        let durable = durable_from(survey);
        let mut holes = survey.holes.iter().peekable();
        for ((at, frame), durable) in survey.frames.iter().zip(durable) {
            if let Some(hole) = holes.next_if(|hole| hole.at < *at) {
                // A snapshot is synced before its segment has a number.
                let was_durable = hole.at == 0 || durable > self.state.commit;
                if !self.is_sealed && !was_durable {
                    self.torn(hole.at, survey);
                    return;
                }
                self.hole(hole, frame.place.commit);
            }
            self.frame(*at, *frame);
        }
        match (self.is_sealed, survey.tail) {
            (false, Some(tail)) if tail.at > 0 => self.torn(tail.at, survey),
            (false, None) if !self.pending.is_empty() => self.torn(0, survey),
            (true, _) => self.flush(),
            _ => {}
        }
        if let Some(tail) = survey.tail
            && !self.findings.is_empty()
        {
            // Each start leaves a frame.
            self.lost_commits += as_u64((tail.end - tail.at) / HEADER_BYTES + 1);
        }
    }

    /// What was not acknowledged and will be cut: the commit that is not whole, and all behind it.
    fn torn(&mut self, at: usize, survey: &Survey<'_>) {
        if self.pending.is_empty()
            && survey.is_left
            && survey.tail.is_some_and(|tail| tail.at == at)
        {
            let text = "the rest of the file was left by an earlier segment, and nothing is read from it; the next start zeroes it";
            self.note(at, text.to_owned());
            return;
        }
        let at = self.pending.first().map_or(at, |(first, _)| *first);
        self.pending.clear();
        let last = survey
            .frames
            .last()
            .map_or(0, |(at, frame)| at + HEADER_BYTES + frame.body.len());
        let end = survey.tail.map_or(last, |tail| tail.end);
        let text = format!(
            "a torn tail: {} bytes that were never acknowledged; the next start cuts them",
            end.saturating_sub(at)
        );
        self.note(at, text);
    }

    fn note(&mut self, at: usize, text: String) {
        self.notes.push(Note {
            file: crate::log::segment::name(self.number),
            offset: as_u64(at),
            text,
        });
    }

    fn hole(&mut self, hole: &Hole, next_commit: u64) {
        self.flush();
        self.is_behind_hole = true;
        self.lost_commits += 1;
        if hole.at == 0 && self.begins.is_none() {
            if self.commit == 0 {
                // Nothing is known of the segment before either.
                self.commit = next_commit - 1;
            }
            let is_known = self.is_known();
            // That there is no snapshot has been told. Is it all that is missing?
            let metadata_bytes = self.state.metadata.encode().len();
            let snapshot_bytes = Snapshot::len_bytes_of(metadata_bytes, self.state.shards.len());
            if let Some(passed) = self.holes.first_mut() {
                passed.claims.is_all = is_known && hole.end == frame_bytes(snapshot_bytes);
            }
            self.findings[0].end = as_u64(hole.end);
            return;
        }
        let commits = match next_commit.saturating_sub(self.commit) {
            0 | 1 => format!("in commit {next_commit}"),
            2 => format!("in commit {}", next_commit - 1),
            _ => format!("in commits {} to {}", self.commit + 1, next_commit - 1),
        };
        let claims = claims::of(self.body, hole);
        let said: Vec<String> = claims.found.iter().map(ToString::to_string).collect();
        let said = match said.as_slice() {
            [] => String::new(),
            said => format!("; its header says {}", said.join(", ")),
        };
        self.finding(
            hole.at,
            hole.end,
            format!("{}, {commits}{said}", hole.fault),
        );
        self.holes.push(Passed::new(
            self.findings.len() - 1,
            as_u64(hole.at),
            claims,
        ));
    }

    fn frame(&mut self, at: usize, frame: Frame<'a>) {
        if at == 0 && frame.kind == Kind::Snapshot {
            return;
        }
        let commit = frame.place.commit;
        let goes_on = self.pending.first().map(|(_, first)| first.place.commit);
        let expected = goes_on.unwrap_or(self.commit + 1);
        let rest_of_damaged = self.is_behind_hole && commit == self.commit;
        if commit < expected && !rest_of_damaged {
            let end = at + HEADER_BYTES + frame.body.len();
            self.finding(
                at,
                end,
                format!("commit {commit} comes after {}", self.commit),
            );
            return;
        }
        if commit > expected {
            self.lost_commits += commit - expected;
            if !self.is_behind_hole {
                let problem = format!(
                    "frames do not continue: commit {commit} comes after {}",
                    expected - 1
                );
                self.finding(at, at, problem);
                let found = self.findings.len() - 1;
                self.holes
                    .push(Passed::new(found, as_u64(at), Claims::default()));
            }
            self.flush();
        }
        self.is_behind_hole = false;
        self.pending.push((at, frame));
        if !frame.more {
            self.flush();
        }
    }

    /// Adds the frames that have been seen of a commit.
    fn flush(&mut self) {
        for (at, frame) in std::mem::take(&mut self.pending) {
            self.commit = frame.place.commit;
            self.state.commit = frame.place.commit;
            self.add(at, &frame);
        }
    }

    fn add(&mut self, at: usize, frame: &Frame<'a>) {
        let end = at + HEADER_BYTES + frame.body.len();
        match frame.kind {
            Kind::Records => self.add_run(at, frame),
            Kind::Transaction => {
                self.transactions += 1;
                if let Err(problem) = self.try_transaction(at, frame) {
                    let is_sealed = self.is_sealed;
                    let finding = self.finding(at, end, problem);
                    if !is_sealed {
                        finding.lose_changes(Changes::Lost);
                    }
                }
            }
            Kind::Footer => match SegmentIndex::decode(frame.body) {
                Some(index) if self.is_sealed => {
                    self.footer = Some((as_u64(at), frame.place, index));
                }
                _ => {
                    self.finding(at, end, "the footer cannot be understood");
                }
            },
            Kind::Opened => {
                self.epoch = self
                    .epoch
                    .max(decode_opened(frame.body).unwrap_or_default());
                self.try_apply(at, end, frame);
            }
            Kind::Closed | Kind::Snapshot | Kind::Packed | Kind::PackedFooter => {
                self.try_apply(at, end, frame);
            }
        }
    }

    fn try_apply(&mut self, at: usize, end: usize, frame: &Frame<'_>) {
        if let Err(error) = self.state.apply(self.number, as_u64(at), frame) {
            self.finding(at, end, reason(&error));
        }
    }

    fn add_run(&mut self, at: usize, frame: &Frame<'_>) {
        let end = at + HEADER_BYTES + frame.body.len();
        let Some(head) = RunHead::decode(frame.body) else {
            let is_sealed = self.is_sealed;
            let finding = self.finding(at, end, "a sound frame cannot be understood");
            if !is_sealed {
                finding.lose_changes(Changes::MayBeLost);
            }
            return;
        };
        self.epoch = self.epoch.max(head.first >> EPOCH_SHIFT);
        if !self.is_known() && !self.state.shards.contains_key(&head.shard) {
            self.state
                .shards
                .insert(head.shard, state_at(super::examined::End::default()));
            self.state.index.create(head.shard);
        }
        self.miss(&head);
        if let Err(error) = self.state.apply(self.number, as_u64(at), frame) {
            let lost = Lost {
                shard: head.shard,
                first: head.first,
                end: head.end(),
                records: Some(u64::from(head.count)),
            };
            self.finding(at, end, reason(&error)).lose(lost);
            return;
        }
        self.records += u64::from(head.count);
        self.heads.insert(as_u64(at), head);
    }

    /// Counters of a shard that are missing before a run, and lie in what does not hold.
    fn miss(&mut self, head: &RunHead) {
        let Some(hole) = self.holes.last_mut().filter(|_| !self.has_footer) else {
            return;
        };
        let Some(state) = self.state.shards.get(&head.shard) else {
            return;
        };
        let runs = self.state.index.get(head.shard);
        let last = runs.and_then(|runs| runs.runs.last());
        if state.next < head.first && last.is_none_or(|run| run.offset <= hole.at) {
            let lost = hole.between(head.shard, state.next, head.first);
            self.findings[hole.finding].lose(lost);
        }
    }

    /// All of a transaction or nothing.
    fn try_transaction(&mut self, at: usize, frame: &Frame<'_>) -> Result<(), String> {
        let garbled = || "a sound frame cannot be understood".to_owned();
        let transaction = Transaction::decode(frame.body).ok_or_else(garbled)?;
        if !self.is_known() {
            plan::apply(&mut self.state.shards, &transaction);
            for shard in &transaction.create {
                self.state.index.create(*shard);
            }
            return Ok(());
        }
        let cannot =
            |error: &dyn std::fmt::Display| format!("a transaction does not apply: {error}");
        plan::check(&self.state.shards, &transaction).map_err(|error| cannot(&error))?;
        let mut trial = self.state.metadata.clone();
        trial
            .apply(&transaction.event)
            .map_err(|error| cannot(&error))?;
        let applied = self.state.apply(self.number, as_u64(at), frame);
        applied.map_err(|error| reason(&error))
    }

    /// Compares what was found with the footer, and tells what is missing at the end.
    fn seal(&mut self, survey: &Survey<'_>, trailer: Option<u64>, len_bytes: u64) {
        let footer_at = self.footer.as_ref().map(|(at, ..)| *at);
        let tail = survey
            .tail
            .map(|tail| (tail.at, tail.end, tail.fault.to_string()));
        let end = usize::try_from(len_bytes).unwrap_or(usize::MAX);
        match (footer_at, trailer, tail) {
            (Some(_), Some(_), None) => {}
            (Some(_), None, Some((at, _, _))) => {
                self.finding(at, end, "the trailer does not hold");
            }
            (Some(_), None, None) => {
                self.finding(end, end, "the trailer is missing");
            }
            (_, _, Some((at, _, fault))) => {
                self.finding(at, end, format!("no footer: {fault}"));
            }
            (None, _, None) => {
                self.finding(end, end, "the footer is missing");
            }
        }
        if let (Some(at), Some(led)) = (footer_at, trailer)
            && at != led
        {
            let problem = format!("the trailer leads to {led}, the footer is at {at}");
            self.finding(end.saturating_sub(TRAILER_BYTES), end, problem);
        }
        if let Some((at, place, index)) = self.footer.take() {
            let held = self.held(&index);
            if self.findings.is_empty() && index != self.state.index {
                let at = usize::try_from(at).unwrap_or(usize::MAX);
                self.finding(at, end, "the footer is not what the segment holds");
            }
            self.footer = Some((at, place, held));
        }
    }

    /// A footer's index without the runs that do not hold, which are told.
    fn held(&mut self, index: &SegmentIndex) -> SegmentIndex {
        let starts: Vec<_> = index
            .iter()
            .map(|(shard, runs)| {
                let start = super::examined::End {
                    next: runs.start,
                    time_ms: runs.start_time_ms,
                };
                (shard, state_at(start))
            })
            .collect();
        let mut held =
            SegmentIndex::starting_with(starts.iter().map(|(shard, state)| (shard, state)));
        for (shard, runs) in index.iter() {
            for run in &runs.runs {
                let head = RunHead {
                    shard,
                    first: run.first,
                    time_ms: run.time_ms,
                    count: run.count,
                };
                if self.heads.get(&run.offset) == Some(&head) {
                    held.push(shard, *run);
                } else {
                    self.lose_run(shard, run);
                }
            }
        }
        held
    }

    fn lose_run(&mut self, shard: LogShard, run: &Run) {
        let lost = Lost {
            shard,
            first: run.first,
            end: run.end(),
            records: Some(u64::from(run.count)),
        };
        let around = |finding: &&mut Finding| (finding.offset..finding.end).contains(&run.offset);
        if let Some(finding) = self.findings.iter_mut().find(around) {
            finding.lose(lost);
            return;
        }
        let end = run.offset + u64::from(run.length);
        let problem = "the footer names a run that is not here";
        let mut finding = Finding::new(self.number, run.offset, end, problem);
        finding.lose(lost);
        self.findings.push(finding);
    }

    /// What is behind a hole may tell all that was in it; where it does not, more may be lost.
    fn doubt(&mut self) {
        for hole in std::mem::take(&mut self.holes) {
            if self.is_sealed || hole.is_explained() {
                continue;
            }
            let finding = &mut self.findings[hole.finding];
            let transaction = hole.claims.found.contains(&Claim::Transaction);
            finding.lose_changes(if transaction {
                Changes::Lost
            } else {
                Changes::MayBeLost
            });
            finding.is_open = true;
        }
    }

    fn end(mut self, padding: Vec<(usize, usize)>) -> Examined<M> {
        self.doubt();
        let is_indexed = self.footer.is_some() || !self.is_sealed;
        let next = self.commit.max(self.state.commit) + 1;
        let guessed = Place {
            segment: self.number,
            commit: next,
            durable: next - 1,
        };
        let built = std::mem::take(&mut self.state.index);
        let (place, index) = match self.footer {
            Some((_, place, index)) => (place, index),
            None => (guessed, built),
        };
        let index = Index::Runs(index);
        // A footer knows of runs that do not hold.
        for (shard, end) in ends(&index) {
            if let Some(state) = self.state.shards.get_mut(&shard) {
                state.next = state.next.max(end.next);
                state.last_time_ms = state.last_time_ms.max(end.time_ms);
            }
        }
        self.state.sealed = self.is_sealed;
        let is_known = self.state.metadata.0.is_some();
        Examined {
            number: self.number,
            is_whole: self.findings.is_empty(),
            findings: self.findings,
            notes: self.notes,
            padding,
            begins: self.begins,
            place,
            index,
            state: is_known.then_some(self.state),
            is_sealed: self.is_sealed,
            is_indexed,
            epoch: self.epoch + self.lost_commits,
            records: self.records,
            transactions: self.transactions,
        }
    }
}

/// A hole that frames came after.
#[derive(Debug, Default)]
struct Passed {
    finding: usize,
    at: u64,
    claims: Claims,
    /// Claims that the counters behind it bear out.
    borne_out: usize,
}

impl Passed {
    fn new(finding: usize, at: u64, claims: Claims) -> Passed {
        Passed {
            finding,
            at,
            claims,
            borne_out: 0,
        }
    }

    /// What a shard lost of the counters between two of its runs.
    fn between(&mut self, shard: LogShard, next: u64, end: u64) -> Lost {
        let runs = self.claims.found.iter().filter_map(|claim| match claim {
            Claim::Run(head) if head.shard == shard => Some(head),
            _ => None,
        });
        let runs: Vec<_> = runs.collect();
        let begins =
            |first: u64| first == next || (first > next && first.is_multiple_of(1 << EPOCH_SHIFT));
        let mut lost = Lost {
            shard,
            first: next,
            end,
            records: None,
        };
        if let (Some(first), Some(last)) = (runs.first(), runs.last())
            && begins(first.first)
            && last.end() == end
            && runs.windows(2).all(|pair| pair[0].end() == pair[1].first)
        {
            self.borne_out += runs.len();
            lost.first = first.first;
            lost.records = Some(end - first.first);
        }
        lost
    }

    fn is_explained(&self) -> bool {
        self.claims.is_all && self.borne_out == self.claims.found.len()
    }
}

/// For each frame, the greatest commit that it or a later one says was durable.
fn durable_from(survey: &Survey<'_>) -> Vec<u64> {
    let mut durable: Vec<u64> = survey
        .frames
        .iter()
        .map(|(_, frame)| frame.place.durable)
        .collect();
    let mut most = 0;
    for one in durable.iter_mut().rev() {
        most = most.max(*one);
        *one = most;
    }
    durable
}

fn no_snapshot<M>(input: &Input<'_, M>, error: &Error, is_sealed: bool) -> Finding {
    let mut finding = Finding::new(input.number, 0, 0, reason(error));
    if !is_sealed
        && let Some(before) = input.before
        && before.state.is_some()
        && !before.is_whole
    {
        finding.lose_changes(Changes::MayBeLost);
    }
    finding
}

/// The state that a segment begins with, from the end of the one before; what is not known of it is left open.
fn state_after<M: Metadata>(number: u64, before: Option<&Before<M>>) -> State<Perhaps<M>> {
    // A segment further back says too little.
    let before = before.filter(|before| before.number + 1 == number);
    let commit = before.map_or(0, |before| before.commit + 1);
    let shards: Shards = before.map_or_else(Shards::default, |before| {
        before
            .ends
            .iter()
            .map(|(shard, end)| (*shard, state_at(*end)))
            .collect()
    });
    let unknown = State {
        log_id: [0; 16],
        epoch: 0,
        metadata: Perhaps(None),
        index: before
            .map(|before| index_after(&before.ends))
            .unwrap_or_default(),
        shards,
        commit,
        position: 0,
        unsure: VecDeque::new(),
        fresh: false,
        sealed: false,
        closed: false,
    };
    match before.and_then(|before| before.state.as_ref()) {
        Some(state) => State {
            log_id: state.log_id,
            epoch: state.epoch,
            metadata: state.metadata.clone(),
            shards: state.shards.clone(),
            index: SegmentIndex::starting_with(&state.shards),
            ..unknown
        },
        None => unknown,
    }
}

/// What an error says beside the place.
pub(crate) fn reason(error: &Error) -> String {
    match error {
        Error::Corrupt { reason, .. } => reason.clone(),
        other => other.to_string(),
    }
}
