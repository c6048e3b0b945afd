//! What goes wrong with a batch on purpose: pure, from chance to the transactions to be made.

use std::ops::Range;

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It is committed, and the answer is believed.
    Commit,
    /// It is committed, and nobody waits for the answer.
    Unanswered,
    /// It is rolled back, with its checkpoint.
    Rollback,
    /// It is rolled back before it comes to its checkpoint.
    NoCheckpoint,
}

/// What the processor answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done,
    Failed,
}

/// A way to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// The first half is committed, then the batch fails.
    HalfDone,
    /// Half of the rows are written, then the batch fails.
    HalfWritten,
    /// Everything was written when the batch fails.
    RolledBack,
    /// Committed, but taken for a failure.
    AnswerIgnored,
    /// The commit is under way when the processor gives up on it.
    AnswerNotAwaited,
    /// Rolled back, but taken for a success.
    BelievedDone,
    /// Nothing wrong: two transactions for one batch.
    InTwo,
}

const ALL: [Mishap; 7] = [
    Mishap::HalfDone,
    Mishap::HalfWritten,
    Mishap::RolledBack,
    Mishap::AnswerIgnored,
    Mishap::AnswerNotAwaited,
    Mishap::BelievedDone,
    Mishap::InTwo,
];

impl Mishap {
    pub(crate) fn by_chance() -> Mishap {
        ALL[fastrand::usize(..ALL.len())]
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Mishap::HalfDone => "half done",
            Mishap::HalfWritten => "half written",
            Mishap::RolledBack => "rolled back",
            Mishap::AnswerIgnored => "answer ignored",
            Mishap::AnswerNotAwaited => "answer not awaited",
            Mishap::BelievedDone => "believed done",
            Mishap::InTwo => "in two",
        }
    }
}

/// The transactions for a batch of `length` records, and what is answered after them.
pub(crate) fn plan(
    mishap: Option<Mishap>,
    length: usize,
) -> (Vec<(Range<usize>, Ending)>, Verdict) {
    let half = length.div_ceil(2);
    let whole = |ending| vec![(0..length, ending)];
    match mishap {
        None => (whole(Ending::Commit), Verdict::Done),
        Some(Mishap::HalfDone) => (vec![(0..half, Ending::Commit)], Verdict::Failed),
        Some(Mishap::HalfWritten) => (vec![(0..half, Ending::NoCheckpoint)], Verdict::Failed),
        Some(Mishap::RolledBack) => (whole(Ending::Rollback), Verdict::Failed),
        Some(Mishap::AnswerIgnored) => (whole(Ending::Commit), Verdict::Failed),
        Some(Mishap::AnswerNotAwaited) => (whole(Ending::Unanswered), Verdict::Failed),
        Some(Mishap::BelievedDone) => (whole(Ending::Rollback), Verdict::Done),
        Some(Mishap::InTwo) => {
            let rest = (half < length).then_some((half..length, Ending::Commit));
            let mut steps = vec![(0..half, Ending::Commit)];
            steps.extend(rest);
            (steps, Verdict::Done)
        }
    }
}
