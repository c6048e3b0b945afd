//! What one commit writes: work in the order it was queued becomes frames, runs and answers.
//! Decides; writes nothing. The only place that gives out counters and seals shards.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::log::batches::{Batches, Part};
use crate::log::entry::ShardState;
use crate::log::frame::{Frames, Kind, frame_bytes};
use crate::log::queue::{AppendReply, Work};
use crate::log::records::{RUN_HEAD_BYTES, RunHead};
use crate::log::segment::as_u64;
use crate::log::segment_index::Run;
use crate::log::shard_map::ShardMap;
use crate::log::{Appended, Error, LogShard, Metadata, Transaction};

/// Counters of one epoch begin at its number shifted by this.
pub(crate) const EPOCH_SHIFT: u32 = 40;
/// Epochs stay below this, counters below 2^63.
pub(crate) const EPOCH_LIMIT: u64 = 1 << 23;
/// Several batches of one shard share a run up to this size, so that reading one is cheap.
const RUN_BYTES: usize = 1 << 20;
/// What is appended at once and has this size is written from where its caller put it, each batch a run of its own, if batches are so
/// large on average: of smaller ones the frames would be a good part, and the index too. In tests, whose commits are small, both
/// kinds occur.
const WHOLE_BYTES: usize = if cfg!(test) { 256 } else { 64 << 10 };
const WHOLE_BATCH_BYTES: usize = if cfg!(test) { 100 } else { 1 << 10 };

/// Live shards as the next entry finds them.
pub(crate) type Shards = ShardMap<ShardState>;

/// Mistakes that tests switch on, to prove that the checker would notice them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum SeededBug {
    #[default]
    None,
    #[cfg(test)]
    AckBeforeSync,
    #[cfg(test)]
    ReuseCounter,
    #[cfg(test)]
    IgnoreSeal,
    #[cfg(test)]
    SkipBatch,
    /// Rewriting drops a record.
    #[cfg(test)]
    LoseInRewriting,
    /// And does not count what it keeps of a run.
    #[cfg(test)]
    LoseUnseen,
    /// A new segment's name is not synced.
    #[cfg(test)]
    UnsyncedName,
    /// Nor is the epoch that counters begin with.
    #[cfg(test)]
    UnsyncedEpoch,
    /// A sync that failed is tried again.
    #[cfg(test)]
    RetrySync,
}

#[cfg(test)]
impl SeededBug {
    /// Those that show in what a log holds, and so in every suite that looks at it. The others take a power cut or a disk that fails.
    pub(crate) const IN_CONTENTS: [SeededBug; 6] = [
        SeededBug::AckBeforeSync,
        SeededBug::ReuseCounter,
        SeededBug::IgnoreSeal,
        SeededBug::SkipBatch,
        SeededBug::LoseInRewriting,
        SeededBug::LoseUnseen,
    ];
}

/// What a commit may need of a segment at most.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Need {
    pub(crate) frames_bytes: usize,
    pub(crate) shards: usize,
    pub(crate) runs: usize,
}

impl Need {
    pub(crate) fn add<M>(&mut self, work: &Work<M>) {
        match work {
            Work::Append { batches, .. } => {
                self.frames_bytes += batches.len_bytes();
                self.runs += batches.parts().len();
            }
            Work::Commit { transaction, .. } => {
                self.frames_bytes += frame_bytes(transaction.len_bytes());
                self.shards += transaction.create.len();
            }
        }
    }
}

/// An answer that is known but must wait for the sync.
#[derive(Debug)]
pub(crate) enum Answer<M> {
    Append(oneshot::Sender<AppendReply>, Vec<Result<Appended, Error>>),
    Commit(
        oneshot::Sender<Result<Arc<M>, Error>>,
        Result<Arc<M>, Error>,
    ),
}

impl<M> Answer<M> {
    /// Sends the answer, or the failure of the whole commit. A caller that went away is not told.
    pub(crate) fn send(self, failure: Option<&Error>) {
        match self {
            Answer::Append(reply, results) => {
                drop(reply.send(failure.map_or(Ok(results), |error| Err(error.clone()))));
            }
            Answer::Commit(reply, result) => {
                drop(reply.send(failure.map_or(result, |error| Err(error.clone()))));
            }
        }
    }
}

/// What a commit writes and, once it is durable, publishes.
#[derive(Debug)]
pub(crate) struct Plan<M> {
    pub(crate) frames: Frames,
    /// Runs with their offset from the beginning of the commit.
    pub(crate) runs: Vec<(LogShard, Run)>,
    pub(crate) created: Vec<LogShard>,
    pub(crate) dropped: Vec<LogShard>,
    /// Shards whose tail moved or was sealed, some of them twice.
    pub(crate) touched: Vec<LogShard>,
    pub(crate) metadata: Arc<M>,
    pub(crate) answers: Vec<Answer<M>>,
}

/// Builds a [`Plan`], entry by entry.
#[derive(Debug)]
pub(crate) struct Planner<'a, M> {
    shards: &'a mut Shards,
    plan: Plan<M>,
    /// What is not yet frames, in order.
    open: Vec<Open>,
    open_by_shard: ShardMap<usize>,
    /// What open runs are put together from.
    small: Vec<Batches>,
    now_ms: u64,
    epoch: u64,
    bug: SeededBug,
}

#[derive(Debug)]
enum Open {
    /// Batches of one shard that share a run.
    Run(OpenRun),
    /// Batches of several shards that are written as they are.
    Whole(Batches, Vec<RunHead>),
}

#[derive(Debug)]
struct OpenRun {
    head: RunHead,
    part: SmallPart,
    /// The parts after the first.
    more: Vec<SmallPart>,
    len_bytes: usize,
}

impl Open {
    /// Bytes of the frame that is put together from copies.
    fn copied_bytes(&self) -> usize {
        match self {
            Open::Run(run) => frame_bytes(RUN_HEAD_BYTES + run.len_bytes),
            Open::Whole(..) => 0,
        }
    }
}

/// A part of one of the small batches.
#[derive(Debug, Clone, Copy)]
struct SmallPart {
    batches: usize,
    part: Part,
}

impl<'a, M: Metadata> Planner<'a, M> {
    pub(crate) fn new(
        shards: &'a mut Shards,
        metadata: Arc<M>,
        (epoch, now_ms): (u64, u64),
        need: Need,
        bug: SeededBug,
    ) -> Self {
        let plan = Plan {
            frames: Frames::default(),
            runs: Vec::with_capacity(need.runs),
            created: Vec::new(),
            dropped: Vec::new(),
            touched: Vec::new(),
            metadata,
            answers: Vec::new(),
        };
        Planner {
            shards,
            plan,
            open: Vec::new(),
            open_by_shard: ShardMap::default(),
            small: Vec::new(),
            now_ms,
            epoch,
            bug,
        }
    }

    /// Decides about the next entry in the queue.
    pub(crate) fn add(&mut self, work: Work<M>) {
        match work {
            Work::Append { batches, reply } => {
                let results = self.append(batches);
                self.plan.answers.push(Answer::Append(reply, results));
            }
            Work::Commit { transaction, reply } => {
                let result = self.transact(&transaction);
                self.plan.answers.push(Answer::Commit(reply, result));
            }
        }
    }

    pub(crate) fn finish(mut self) -> Plan<M> {
        self.close_runs();
        self.plan
    }

    fn append(&mut self, batches: Batches) -> Vec<Result<Appended, Error>> {
        let parts = batches.parts().iter();
        let results: Vec<_> = parts.map(|part| self.assign(part)).collect();
        let on_average = batches.len_bytes() / batches.parts().len().max(1);
        if batches.len_bytes() >= WHOLE_BYTES && on_average >= WHOLE_BATCH_BYTES {
            let parts = batches.parts().iter().zip(&results);
            let heads = parts.map_while(|(part, result)| self.written(part, result));
            let heads: Vec<_> = heads.collect();
            // What is not written, sealed shards' records for one, must leave no gap between frames: then the others are copied.
            if heads.len() == results.len() {
                self.plan
                    .touched
                    .extend(heads.iter().map(|head| head.shard));
                self.open.push(Open::Whole(batches, heads));
                return results;
            }
        }
        let at = self.small.len();
        self.small.push(batches);
        for (number, result) in results.iter().enumerate() {
            let part = self.small[at].parts()[number];
            if let Some(head) = self.written(&part, result) {
                self.put_in_run(head, SmallPart { batches: at, part });
            }
        }
        results
    }

    /// The head of the run that this part alone would be; `None` if it is not written.
    fn written(&self, part: &Part, result: &Result<Appended, Error>) -> Option<RunHead> {
        let appended = result.as_ref().ok()?;
        let is_written = part.count > 0 && !self.bug.skips_batch(appended.first);
        is_written.then_some(RunHead {
            shard: part.shard,
            first: appended.first,
            time_ms: appended.time_ms,
            count: part.count,
        })
    }

    /// Gives the records of one shard their place.
    fn assign(&mut self, part: &Part) -> Result<Appended, Error> {
        let Part { shard, count, .. } = *part;
        let state = self.shards.get_mut(&shard).ok_or(Error::Unknown(shard))?;
        if state.sealed && !self.bug.ignores_seal() {
            return Err(Error::Sealed(shard));
        }
        let time_ms = self.now_ms.max(state.last_time_ms);
        let mut first = state.next.max(self.epoch << EPOCH_SHIFT);
        if self.bug.reuses_counter() && first == state.next && first % 4 == 1 {
            first -= 1;
        }
        let appended = Appended {
            first,
            count,
            time_ms,
        };
        if count == 0 {
            return Ok(appended);
        }
        let next = first + u64::from(count);
        assert!(
            next > state.next || self.bug != SeededBug::None,
            "counters strictly increase (S2)"
        );
        state.next = next;
        state.last_time_ms = time_ms;
        if self.bug.skips_batch(first) {
            self.plan.touched.push(shard);
        }
        Ok(appended)
    }

    fn put_in_run(&mut self, head: RunHead, small: SmallPart) {
        let len_bytes = small.part.len_bytes();
        let open = self
            .open_by_shard
            .get(&head.shard)
            .and_then(|at| self.open.get_mut(*at));
        match open {
            // Others may have come between.
            Some(Open::Run(run))
                if run.len_bytes + len_bytes <= RUN_BYTES && run.head.end() == head.first =>
            {
                run.head.count += head.count;
                run.len_bytes += len_bytes;
                run.more.push(small);
            }
            _ => {
                self.plan.touched.push(head.shard);
                self.open_by_shard.insert(head.shard, self.open.len());
                self.open.push(Open::Run(OpenRun {
                    head,
                    part: small,
                    more: Vec::new(),
                    len_bytes,
                }));
            }
        }
    }

    /// Turns what is open into frames, so that what comes next lies after them in the log.
    fn close_runs(&mut self) {
        self.open_by_shard.clear();
        let frames = &mut self.plan.frames;
        // What is copied between two that are written as they are shares a buffer.
        let stretches = self.open.split(|open| matches!(open, Open::Whole(..)));
        let stretches = stretches.map(|stretch| stretch.iter().map(Open::copied_bytes).sum());
        let mut stretches = stretches.collect::<Vec<usize>>().into_iter();
        frames.reserve(stretches.next().unwrap_or(0));
        for open in self.open.drain(..) {
            match open {
                Open::Run(run) => {
                    let place = frames.push(Kind::Records, |buffer| {
                        run.head.encode(buffer);
                        for small in std::iter::once(&run.part).chain(&run.more) {
                            let batches = &self.small[small.batches];
                            buffer.extend_from_slice(batches.records_of(&small.part));
                        }
                    });
                    self.plan
                        .runs
                        .push((run.head.shard, placed(&run.head, place)));
                }
                Open::Whole(batches, heads) => {
                    let (buffers, places) = batches.into_frames(heads.iter().copied());
                    let whole = places.iter().copied();
                    let begin = frames.push_whole(Kind::Records, buffers, whole);
                    let runs = heads.iter().zip(places).map(|(head, place)| {
                        (head.shard, placed(head, (begin + place.at, place.length)))
                    });
                    self.plan.runs.extend(runs);
                    frames.reserve(stretches.next().unwrap_or(0));
                }
            }
        }
        self.small.clear();
    }

    fn transact(&mut self, transaction: &Transaction) -> Result<Arc<M>, Error> {
        check(self.shards, transaction)?;
        let mut metadata = M::clone(&self.plan.metadata);
        metadata.apply(&transaction.event)?;
        self.close_runs();
        apply(self.shards, transaction);
        self.plan
            .frames
            .push(Kind::Transaction, |buffer| transaction.encode(buffer));
        self.plan.created.extend(&transaction.create);
        self.plan.dropped.extend(&transaction.drop);
        self.plan.touched.extend(&transaction.create);
        self.plan.touched.extend(&transaction.seal);
        self.plan.metadata = Arc::new(metadata);
        Ok(Arc::clone(&self.plan.metadata))
    }
}

/// A run whose frame lies there, and how long that is.
fn placed(head: &RunHead, (at, length): (usize, usize)) -> Run {
    Run {
        first: head.first,
        offset: as_u64(at),
        length: u32::try_from(length).unwrap_or(u32::MAX),
        count: head.count,
        time_ms: head.time_ms,
    }
}

/// Whether a transaction's preconditions hold.
pub(crate) fn check(shards: &Shards, transaction: &Transaction) -> Result<(), Error> {
    let mut created = BTreeSet::new();
    for shard in &transaction.create {
        if shards.contains_key(shard) || !created.insert(*shard) {
            return Err(Error::Exists(*shard));
        }
    }
    let mut sealed = BTreeSet::new();
    for shard in &transaction.seal {
        let state = shards.get(shard).copied();
        let state = state.or_else(|| created.contains(shard).then(ShardState::default));
        if state.ok_or(Error::Unknown(*shard))?.sealed || !sealed.insert(*shard) {
            return Err(Error::Sealed(*shard));
        }
    }
    let mut dropped = BTreeSet::new();
    for shard in &transaction.drop {
        let known = shards.contains_key(shard) || created.contains(shard);
        if !known || !dropped.insert(*shard) {
            return Err(Error::Unknown(*shard));
        }
    }
    Ok(())
}

/// Applies a transaction that was [`check`]ed.
pub(crate) fn apply(shards: &mut Shards, transaction: &Transaction) {
    for shard in &transaction.create {
        shards.insert(*shard, ShardState::default());
    }
    for shard in &transaction.seal {
        if let Some(state) = shards.get_mut(shard) {
            state.sealed = true;
        }
    }
    for shard in &transaction.drop {
        shards.remove(shard);
    }
}

#[cfg(test)]
impl SeededBug {
    fn ignores_seal(self) -> bool {
        self == SeededBug::IgnoreSeal
    }

    fn reuses_counter(self) -> bool {
        self == SeededBug::ReuseCounter
    }

    fn skips_batch(self, first: u64) -> bool {
        self == SeededBug::SkipBatch && first % 5 == 3
    }

    pub(crate) fn acks_before_sync(self) -> bool {
        self == SeededBug::AckBeforeSync
    }

    pub(crate) fn loses_in_rewriting(self, counter: u64) -> bool {
        let loses = matches!(self, SeededBug::LoseInRewriting | SeededBug::LoseUnseen);
        loses && counter % 7 == 3
    }

    pub(crate) fn is_unseen(self) -> bool {
        self == SeededBug::LoseUnseen
    }

    pub(crate) fn syncs_names(self) -> bool {
        self != SeededBug::UnsyncedName
    }

    pub(crate) fn syncs_epoch(self) -> bool {
        self != SeededBug::UnsyncedEpoch
    }

    pub(crate) fn retries_sync(self) -> bool {
        self == SeededBug::RetrySync
    }
}

#[cfg(not(test))]
#[expect(
    clippy::unused_self,
    reason = "there are no bugs to switch on outside tests"
)]
impl SeededBug {
    fn ignores_seal(self) -> bool {
        false
    }

    fn reuses_counter(self) -> bool {
        false
    }

    fn skips_batch(self, _first: u64) -> bool {
        false
    }

    pub(crate) fn acks_before_sync(self) -> bool {
        false
    }

    pub(crate) fn loses_in_rewriting(self, _counter: u64) -> bool {
        false
    }

    pub(crate) fn is_unseen(self) -> bool {
        false
    }

    pub(crate) fn syncs_names(self) -> bool {
        true
    }

    pub(crate) fn syncs_epoch(self) -> bool {
        true
    }

    pub(crate) fn retries_sync(self) -> bool {
        false
    }
}
