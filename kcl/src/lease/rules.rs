//! What each verb of [`LeaseStore`](super::LeaseStore) does to one lease: pure, and shared by all stores, so that a
//! store owns only its reading, writing and locking.
//!
//! A store calls these inside the transaction that writes the result.

use super::{Ask, Claim, Lease, LeaseToken, NewLease, PendingCheckpoint, Registration, Release};
use crate::checkpoint::Position;
use crate::error::{Error, ErrorKind};
#[cfg(test)]
use crate::seeded_bug::{Bug, made};

/// What a verb comes to for one lease.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, for a moment on the stack"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The lease is to be written like this.
    Write(Lease),
    /// An earlier try of the same call has done it (K12).
    Done,
    /// Something else happened to the lease in between.
    Refused,
}

/// What a claim depends on besides the lease itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// The heartbeat of the lease's owner, if it has a row.
    pub(super) owner_heartbeat: Option<u64>,
    /// Whether every parent lease is at `SHARD_END` or absent (K6).
    pub(super) parents_ended: bool,
}

/// The largest counter a lease can have; a row at it is damaged. It is what a signed column can hold, less one change.
pub(super) const COUNTER_MAX: u64 = i64::MAX as u64 - 1;

/// A new change of owner (K1: with a new counter). A request was made to the former owner and ends with it.
fn change_owner(lease: &Lease, owner: Option<String>) -> Lease {
    assert!(lease.counter <= COUNTER_MAX, "K1: a counter never wraps");
    Lease {
        counter: lease.counter + 1,
        owner_switches: lease
            .owner_switches
            .saturating_add(u64::from(owner.is_some())),
        owner,
        wanted_by: None,
        ..lease.clone()
    }
}

fn is_current(lease: &Lease, token: &LeaseToken) -> bool {
    lease.counter == token.counter && lease.owner.as_ref() == Some(&token.owner)
}

/// A lease as it is created: nobody's.
pub(super) fn create(new: &NewLease) -> Lease {
    Lease {
        key: new.key.clone(),
        owner: None,
        counter: 0,
        wanted_by: None,
        checkpoint: new.checkpoint,
        pending: None,
        owner_switches: 0,
        parents: new.parents.clone(),
        hash_key_range: new.hash_key_range,
    }
}

/// The lease without its owner `worker_id` and without that worker's request; `None` if it has neither.
pub(super) fn forget_worker(lease: &Lease, worker_id: &str) -> Option<Lease> {
    if lease.owner.as_deref() == Some(worker_id) {
        return Some(change_owner(lease, None));
    }
    (lease.wanted_by.as_deref() == Some(worker_id)).then(|| Lease {
        wanted_by: None,
        ..lease.clone()
    })
}

/// Takes a lease that is free, or expired as claimed.
pub(super) fn take(lease: &Lease, claim: &Claim, me: &str, around: Surroundings) -> Outcome {
    let parents_ended = around.parents_ended;
    #[cfg(test)]
    let parents_ended = parents_ended || made(Bug::IgnoreParents);
    if lease.checkpoint == Position::ShardEnd || !parents_ended {
        return Outcome::Refused;
    }
    // Registering released what earlier runs under my id held, so this tenure began in my run.
    if lease.owner.as_deref() == Some(me) && lease.counter.checked_sub(1) == Some(claim.counter) {
        return Outcome::Done;
    }
    #[cfg(test)]
    let around = Surroundings {
        owner_heartbeat: match &claim.expired {
            Some(observed) if made(Bug::TakeFromTheLiving) => observed.heartbeat,
            _ => around.owner_heartbeat,
        },
        ..around
    };
    let as_observed = lease.counter == claim.counter
        && match (&claim.expired, &lease.owner) {
            (None, None) => true,
            (Some(observed), Some(owner)) => {
                observed.worker_id == *owner && observed.heartbeat == around.owner_heartbeat
            }
            (None, Some(_)) | (Some(_), None) => false,
        };
    if as_observed {
        Outcome::Write(change_owner(lease, Some(me.to_owned())))
    } else {
        Outcome::Refused
    }
}

/// Notes who wants a lease.
pub(super) fn ask(lease: &Lease, ask: &Ask, me: &str) -> Outcome {
    let held_by_another = lease.owner.as_deref().is_some_and(|owner| owner != me);
    if lease.counter != ask.counter || !held_by_another {
        return Outcome::Refused;
    }
    match lease.wanted_by.as_deref() {
        Some(asker) if asker == me => Outcome::Done,
        Some(asker) if ask.replace_wanted_by.as_deref() != Some(asker) => Outcome::Refused,
        Some(_) | None => Outcome::Write(Lease {
            wanted_by: Some(me.to_owned()),
            ..lease.clone()
        }),
    }
}

/// Moves the checkpoint forward (K3).
pub(super) fn checkpoint(
    lease: &Lease,
    token: &LeaseToken,
    position: &Position,
) -> Result<Lease, Error> {
    let current = is_current(lease, token);
    #[cfg(test)]
    let current = current || made(Bug::NoFence);
    if !current {
        return Err(lost(token, Some(lease)));
    }
    advance(lease, position)
}

fn advance(lease: &Lease, position: &Position) -> Result<Lease, Error> {
    if *position == Position::ShardEnd {
        return Err(Error::new(
            ErrorKind::InvalidPosition,
            format!(
                "SHARD_END of lease {} is stored by ending the shard, which creates the leases of its children; checkpoint a record instead",
                lease.key
            ),
        ));
    }
    let forward = lease.checkpoint.may_advance_to(position);
    #[cfg(test)]
    let forward = forward || made(Bug::CheckpointBack);
    if !forward {
        return Err(Error::new(
            ErrorKind::InvalidPosition,
            format!(
                "checkpoint {position} of lease {} is not after the stored {}: checkpoints never move back",
                lease.key, lease.checkpoint
            ),
        ));
    }
    let uncovered = |pending: &PendingCheckpoint| !pending.position.may_advance_to(position);
    Ok(Lease {
        checkpoint: *position,
        pending: lease.pending.clone().filter(uncovered),
        ..lease.clone()
    })
}

/// Notes a pending checkpoint, which must lie where a checkpoint could.
pub(super) fn prepare(
    lease: &Lease,
    token: &LeaseToken,
    pending: &PendingCheckpoint,
) -> Result<Lease, Error> {
    checkpoint(lease, token, &pending.position)?;
    Ok(Lease {
        pending: Some(pending.clone()),
        ..lease.clone()
    })
}

/// Ends the shard and gives its lease up.
pub(super) fn end_shard(lease: &Lease, token: &LeaseToken) -> Result<Outcome, Error> {
    if is_current(lease, token) {
        let ended = Lease {
            checkpoint: Position::ShardEnd,
            pending: None,
            ..lease.clone()
        };
        return Ok(Outcome::Write(change_owner(&ended, None)));
    }
    // Nobody takes an ended lease, so its counter is one more than that of the token that ended it.
    let ended_by_token = lease.checkpoint == Position::ShardEnd
        && lease.owner.is_none()
        && lease.counter.checked_sub(1) == Some(token.counter);
    if ended_by_token {
        Ok(Outcome::Done)
    } else {
        Err(lost(token, Some(lease)))
    }
}

/// Gives a lease up, to `to` if that worker is there to take it.
pub(super) fn release(
    lease: &Lease,
    release: &Release,
    to: Option<&str>,
) -> Result<Outcome, Error> {
    if !is_current(lease, &release.token) {
        return Ok(Outcome::Refused);
    }
    let checkpointed = match &release.checkpoint {
        Some(position) => advance(lease, position)?,
        None => lease.clone(),
    };
    Ok(Outcome::Write(change_owner(
        &checkpointed,
        to.map(str::to_owned),
    )))
}

/// Puts a lease at a position, whatever it was at, and takes it from whoever holds it (K1, K3); `None` if it is there and nobody's.
pub(super) fn reset(lease: &Lease, to: Position) -> Option<Lease> {
    let is_there = lease.checkpoint == to
        && lease.owner.is_none()
        && lease.wanted_by.is_none()
        && lease.pending.is_none();
    if is_there {
        return None;
    }
    let mut freed = change_owner(lease, None);
    // A former owner takes an end that is one counter away from its token for its own.
    if to == Position::ShardEnd && freed.counter <= COUNTER_MAX {
        freed = change_owner(&freed, None);
    }
    Some(Lease {
        checkpoint: to,
        pending: None,
        ..freed
    })
}

/// Whether a lease may be deleted.
pub(super) fn is_ended(lease: &Lease) -> bool {
    lease.checkpoint == Position::ShardEnd && lease.owner.is_none()
}

/// The token is not current; `lease` is what is there instead.
pub(super) fn lost(token: &LeaseToken, lease: Option<&Lease>) -> Error {
    let instead = match lease {
        None => "it is gone or its row is damaged".to_owned(),
        Some(Lease {
            owner: None,
            counter,
            ..
        }) => format!("nobody holds it (counter {counter})"),
        Some(Lease {
            owner: Some(owner),
            counter,
            ..
        }) => {
            format!("{owner:?} holds it with counter {counter}")
        }
    };
    Error::new(
        ErrorKind::LeaseLost,
        format!(
            "worker {:?} does not hold lease {} with counter {} any more: {instead}; stop working on this shard",
            token.owner, token.key, token.counter
        ),
    )
}

/// The registration is not the current one of its worker id.
pub(super) fn replaced(worker: &Registration) -> Error {
    Error::new(
        ErrorKind::WorkerReplaced,
        format!(
            "this run of worker {:?} is not registered any more: another run registered under the same id, or its row was removed; give every process its own worker id and start the worker again",
            worker.worker_id
        ),
    )
}

/// A number for a new run of a worker that no other run has.
pub(super) fn new_incarnation() -> Result<u64, Error> {
    #[cfg(test)]
    if let Some(number) = crate::sim::incarnation() {
        return Ok(number);
    }
    getrandom::u64().map_err(|source| {
        Error::with_source(
            ErrorKind::Store,
            "the operating system gave no random number to tell runs of a worker apart",
            source,
        )
    })
}

/// Where the heartbeat of a new run begins: it moves on if the worker has a row, else it starts anywhere.
pub(super) fn first_heartbeat(earlier: Option<u64>, incarnation: u64) -> u64 {
    match earlier {
        Some(heartbeat) => heartbeat.wrapping_add(1),
        None => incarnation & u64::from(u32::MAX),
    }
}
