//! What one tenure may checkpoint: pure bookkeeping of what was delivered, handled, and stored.
//!
//! Invariants: a checkpoint lies within what was delivered; what counts as handled was processed; a position that an application
//! stores in its own transaction counts as stored only when the store shows it.

use super::Position;
use crate::error::{Error, ErrorKind};
use crate::lease::LeaseKey;
#[cfg(test)]
use crate::seeded_bug::{Bug, made};

/// The state of one tenure.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    pub(super) phase: Phase,
    /// End of the last batch whose processing succeeded.
    pub(super) handled: Position,
    /// Like `handled`, but with the batch in work.
    pub(super) delivered: Position,
    /// The last checkpoint given, back to the start of a batch that is delivered again; a later one lies at or after it.
    pub(super) floor: Position,
    /// The last checkpoint given while the lease is released, to go with the release (K9).
    kept: Option<Position>,
    /// What the store is known to hold.
    pub(super) stored: Position,
    /// The last position written in a transaction of the application, whose fate is not known here.
    offered: Option<Position>,
    /// The one that a batch relied on which succeeded since.
    relied_on: Option<Position>,
    /// Whether the batch in work used a transaction of its own.
    transacted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Processing,
    /// A checkpoint is kept and stored together with the release (K9).
    Releasing,
    /// The tenure is over, for this reason.
    Over(&'static str),
}

/// What is to be done about a checkpoint.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    Write,
}

/// What the store held after a transaction of the application ended in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// The batch goes on after what is stored.
    Here,
    /// Less than batches that succeeded relied on: only a new tenure, from what is stored, delivers it again.
    Behind,
}

impl Progress {
    pub(super) fn new(stored: Position) -> Self {
        Progress {
            phase: Phase::Processing,
            handled: stored,
            delivered: stored,
            floor: stored,
            kept: None,
            stored,
            offered: None,
            relied_on: None,
            transacted: false,
        }
    }

    /// A batch that ends at `last` is about to be delivered, for the first time or again.
    pub(super) fn begin_batch(&mut self, last: Position) {
        self.delivered = last;
        if !self.floor.may_advance_to(&self.handled) {
            self.floor = self.handled;
        }
        self.transacted = false;
    }

    pub(super) fn batch_succeeded(&mut self) {
        self.handled = self.delivered;
        self.relied_on = self.offered;
    }

    /// Everything up to `end` is done without a batch. Not while the fate of a transaction is open: a checkpoint of what comes after it would
    /// be stored though that may have been rolled back.
    pub(super) fn pass(&mut self, end: Position) {
        if self.offered.is_none() {
            self.handled = end;
            self.delivered = end;
        }
    }

    pub(super) fn batch_failed(&mut self) {
        self.delivered = self.handled;
    }

    /// Whether it must be asked what the store holds before the batch is delivered again.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.transacted
    }

    /// Whether a position may be stored, or not, by a transaction of the application.
    pub(super) fn has_offered(&self) -> bool {
        self.offered.is_some()
    }

    /// Refuses what was not delivered, or lies before an earlier checkpoint.
    pub(super) fn within(&self, position: Position, key: &LeaseKey) -> Result<(), Error> {
        if position.may_advance_to(&self.delivered) && self.floor.may_advance_to(&position) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidPosition,
            format!(
                "checkpoint {position} of {key} must lie between the last one, {}, and the last record delivered, {}",
                self.floor, self.delivered
            ),
        ))
    }

    /// Admits a checkpoint, and says whether the store must learn of it.
    pub(super) fn admit(&mut self, position: Position, key: &LeaseKey) -> Result<Step, Error> {
        self.within(position, key)?;
        // What a transaction of the application stored, or did not, is not stored again behind its back.
        if self
            .offered
            .is_some_and(|offered| position.may_advance_to(&offered))
        {
            return Ok(Step::Nothing);
        }
        if self.phase == Phase::Releasing {
            self.floor = position;
            self.kept = Some(position);
            return Ok(Step::Nothing);
        }
        // A batch that is delivered again may be checkpointed from its start, but the store never goes back (K3).
        if position.may_advance_to(&self.stored) {
            self.floor = position;
            return Ok(Step::Nothing);
        }
        Ok(Step::Write)
    }

    pub(super) fn was_stored(&mut self, position: Position) {
        self.stored = position;
        self.floor = position;
        self.offered = None;
        self.relied_on = None;
    }

    /// What the store must hold for a transaction of the application to add to it.
    pub(super) fn base(&mut self) -> Position {
        self.transacted = true;
        self.offered.unwrap_or(self.stored)
    }

    pub(super) fn was_offered(&mut self, position: Position) {
        self.offered = Some(position);
    }

    /// The store holds `found`: whatever was in doubt is settled.
    pub(super) fn settle(&mut self, found: Position) -> Settled {
        let behind = self
            .relied_on
            .is_some_and(|relied_on| !relied_on.may_advance_to(&found));
        self.stored = found;
        self.offered = None;
        self.relied_on = None;
        self.transacted = false;
        if behind {
            return Settled::Behind;
        }
        if self.handled.may_advance_to(&found) {
            self.handled = found;
        }
        self.delivered = self.handled;
        self.floor = self.handled;
        Settled::Here
    }

    /// The position to be stored with the release, if there is a new one.
    pub(super) fn last_words(&self) -> Option<Position> {
        #[cfg(test)]
        if made(Bug::BareRelease) {
            return None;
        }
        self.kept
            .filter(|position| !position.may_advance_to(&self.stored))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64) -> Position {
        Position::after(number.to_string().parse().unwrap())
    }

    /// A tenure at 10 whose batch up to 20 has offered 15 and 20.
    fn offered() -> Progress {
        let mut progress = Progress::new(at(10));
        progress.begin_batch(at(20));
        assert_eq!(progress.base(), at(10));
        progress.was_offered(at(15));
        assert_eq!(
            progress.base(),
            at(15),
            "the second transaction builds on the first"
        );
        progress.was_offered(at(20));
        progress
    }

    #[test]
    fn a_batch_goes_on_after_what_its_transactions_stored() {
        for (found, handled) in [(10, 10), (15, 15), (20, 20)] {
            let mut progress = offered();
            progress.batch_failed();
            assert!(progress.is_in_doubt());
            assert_eq!(progress.settle(at(found)), Settled::Here);
            assert_eq!(
                (progress.handled, progress.stored),
                (at(handled), at(found))
            );
            progress.begin_batch(at(20));
            assert!(!progress.is_in_doubt());
            assert_eq!(progress.base(), at(found));
        }
    }

    #[test]
    fn a_transaction_that_was_relied_on_and_is_not_there_ends_the_tenure() {
        let mut progress = offered();
        progress.batch_succeeded();
        progress.begin_batch(at(30));
        assert_eq!(progress.base(), at(20));
        progress.batch_failed();
        assert_eq!(progress.clone().settle(at(20)), Settled::Here);
        assert_eq!(progress.settle(at(10)), Settled::Behind);
    }

    /// Goal: what was taken in without a checkpoint is the processor's to keep; a failed transaction of a later batch does not end the tenure.
    #[test]
    fn batches_taken_in_without_a_checkpoint_are_not_missed() {
        let mut progress = Progress::new(at(10));
        progress.begin_batch(at(20));
        progress.batch_succeeded();
        progress.begin_batch(at(30));
        assert_eq!(progress.base(), at(10));
        progress.was_offered(at(30));
        progress.batch_failed();
        assert_eq!(progress.settle(at(10)), Settled::Here);
        assert_eq!(progress.handled, at(20));
    }

    /// Goal: neither a checkpoint nor a release stores a position whose transaction may have been rolled back.
    #[test]
    fn an_offered_position_is_stored_by_its_transaction_only() {
        let key = LeaseKey {
            stream: "s".to_owned(),
            shard_id: "a".to_owned(),
        };
        let mut progress = offered();
        progress.batch_succeeded();
        assert_eq!(progress.admit(at(20), &key).unwrap(), Step::Nothing);
        progress.pass(at(30));
        progress.phase = Phase::Releasing;
        assert_eq!(
            progress.delivered,
            at(20),
            "nor does one that comes after it"
        );
        assert_eq!(progress.admit(at(20), &key).unwrap(), Step::Nothing);
        assert_eq!(progress.last_words(), None);
    }
}
