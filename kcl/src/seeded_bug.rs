//! Mistakes that the checker of the simulation must catch: a checker that cannot fail proves nothing.
//!
//! Each is made in tests only, and only on the thread that asks for it.

use std::cell::Cell;

/// One mistake, made where its name is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A failed batch counts as handled (K4).
    SkipFailedBatch,
    /// LATEST is asked for anew at every start (K4).
    LatestSentinel,
    /// A record that nothing, or only a part, is done of is left out (K4).
    AfterInsteadOfAt,
    /// So is one in which a second iterator has to begin (K4).
    RestartAfterTheRecord,
    /// The store takes a checkpoint from anybody (K1).
    NoFence,
    /// Validity counts from the reply to the renewal (K2).
    ValidFromReply,
    /// After a lapse the leases are not looked at again (K2).
    NoVerification,
    /// A lease is taken from an owner that has shown life since (K2).
    TakeFromTheLiving,
    /// The end of a shard is always one's own (K2).
    ForeignEnd,
    /// The store lets checkpoints go back (K3).
    CheckpointBack,
    /// A lease is released without its last checkpoint (K5).
    BareRelease,
    /// Children are taken before their parents have ended (K6).
    IgnoreParents,
    /// The children of a shard get no leases (K7).
    NoChildren,
    /// A worker is taken for dead much too late (K8).
    SlowExpiry,
    /// A worker keeps its leases when it leaves (K9).
    KeepAtExit,
    /// A checkpoint without an answer counts as a lost lease (K12).
    LostReplyIsLoss,
    /// A stream of the same name is the same stream (K13).
    AnyStream,
    /// A shard that is not found has ended (K13).
    GoneIsEnded,
}

std::thread_local! {
    static MADE: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Whether this mistake is to be made.
pub(crate) fn made(bug: Bug) -> bool {
    MADE.get() == Some(bug)
}

/// Makes a mistake until it is dropped.
pub(crate) fn make(bug: Bug) -> Making {
    MADE.set(Some(bug));
    Making
}

#[derive(Debug)]
pub(crate) struct Making;

impl Drop for Making {
    fn drop(&mut self) {
        MADE.set(None);
    }
}
