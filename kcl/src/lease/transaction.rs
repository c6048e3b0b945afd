//! Checkpoints in a transaction of the application (exactly once): what every database with a lease table in it offers.

use super::{LeaseToken, PendingCheckpoint, rules};
use crate::checkpoint::Position;
use crate::error::{Error, ErrorKind};
use std::time::Duration;

/// A database that can hold leases beside the tables of an application: SQLite and PostgreSQL.
pub trait LeaseDatabase: sqlx::Database + sealed::Sealed {
    /// Moves the checkpoint from where it is known to be, in the transaction open on `connection`.
    #[doc(hidden)]
    fn store_checkpoint(
        connection: &mut Self::Connection,
        step: CheckpointStep<'_>,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

pub(super) mod sealed {
    /// The stores of this crate.
    #[expect(unnameable_types, reason = "so that nobody else implements it")]
    pub trait Sealed {}
}

/// One step of a checkpoint.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct CheckpointStep<'a> {
    pub(crate) application: &'a str,
    pub(crate) token: &'a LeaseToken,
    /// What the store must hold.
    pub(crate) base: Position,
    pub(crate) position: Position,
    /// How long the transaction may stand still.
    #[cfg_attr(
        not(feature = "postgres"),
        expect(dead_code, reason = "SQLite knows no such limit")
    )]
    pub(crate) patience: Duration,
}

impl CheckpointStep<'_> {
    /// K3 in the store itself: the write is conditional on `base`, so what moves forward from there moves forward.
    pub(super) fn moves_forward(&self) -> Result<(), Error> {
        if self.position != Position::ShardEnd && self.base.may_advance_to(&self.position) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidPosition,
            format!(
                "checkpoint {} of lease {} in a transaction does not come after {}, or ends the shard: roll back and checkpoint a record that was delivered",
                self.position, self.token.key, self.base
            ),
        ))
    }

    /// Why a step that changed no row was refused; `found` is the lease as the transaction sees it.
    pub(super) fn refusal(&self, found: Option<&super::Lease>) -> Error {
        let Some(lease) = found else {
            return Error::new(
                ErrorKind::Store,
                format!(
                    "the database of the transaction holds no lease {} of application {:?}: use the database that the worker's lease store is in",
                    self.token.key, self.application
                ),
            );
        };
        match rules::checkpoint(lease, self.token, &self.position) {
            Err(error) => error,
            Ok(_) => Error::new(
                ErrorKind::InvalidPosition,
                format!(
                    "lease {} is checkpointed at {}, not at {} as an earlier transaction should have stored: roll back and fail the batch, it is delivered again from what is stored",
                    self.token.key, lease.checkpoint, self.base
                ),
            ),
        }
    }

    /// Whether the pending checkpoint is covered and goes away.
    pub(super) fn covers(&self, pending: &PendingCheckpoint) -> bool {
        pending.position.may_advance_to(&self.position)
    }
}
