//! What the store did and what holders were told: K1, K3, K12.

use super::{Facts, Leases, Verdict, violated};
use crate::lease::{Lease, LeaseKey, LeaseToken};
use crate::sim::history::{Change, Step, What};
use std::collections::BTreeSet;

pub(super) fn is_current(lease: Option<&Lease>, token: &LeaseToken) -> bool {
    lease.is_some_and(|lease| {
        lease.owner.as_ref() == Some(&token.owner) && lease.counter == token.counter
    })
}

/// Every change of owner has a new, larger counter, and only the holder of the current token moves a checkpoint.
pub(super) fn k1_tokens_grow_and_fence(facts: &Facts) -> Verdict {
    for (index, change) in facts.changes() {
        let Change {
            verb,
            by,
            before,
            after,
            ..
        } = change;
        let Some(after) = after else { continue };
        // Created; also anew, by a call that came too late, after the lease had ended and was deleted.
        let Some(before) = before else { continue };
        let moved = before.owner != after.owner || before.counter != after.counter;
        if moved && after.counter != before.counter + 1 {
            return violated("K1", index, "a change of owner without the next counter");
        }
        if before.checkpoint != after.checkpoint
            && !by
                .as_ref()
                .is_some_and(|token| is_current(Some(before), token))
        {
            let text = format!("{verb} moved a checkpoint, though {by:?} was not current");
            return violated("K1", index, text);
        }
    }
    Ok(())
}

/// A checkpoint that the application was told is stored, is stored. In a shutdown it is kept for the release. One that was deleted by hand before the
/// answer came proves nothing.
pub(super) fn k1_acknowledged_checkpoints_are_stored(facts: &Facts) -> Verdict {
    let torn = facts.torn_out();
    let mut leases = Leases::default();
    let mut leaving = BTreeSet::new();
    for (index, entry) in facts.entries() {
        leases.take_in(entry);
        let What::Step { tenure, step } = &entry.what else {
            continue;
        };
        match step {
            Step::ShutdownRequested => {
                leaving.insert(*tenure);
            }
            Step::Answered(position, None) if !leaving.contains(tenure) => {
                let token = facts.history.tenures[*tenure].token.as_ref();
                let lease = token.and_then(|token| leases.get(&token.key));
                let Some(lease) = lease.filter(|lease| !torn.contains(&lease.key)) else {
                    continue;
                };
                if !position.may_advance_to(&lease.checkpoint) {
                    let text = format!(
                        "{position} was acknowledged, {} is stored",
                        lease.checkpoint
                    );
                    return violated("K1", index, text);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn k3_checkpoints_never_go_back(facts: &Facts) -> Verdict {
    for (index, change) in facts.changes() {
        if let (Some(before), Some(after)) = (&change.before, &change.after)
            && !before.checkpoint.may_advance_to(&after.checkpoint)
        {
            let text = format!("{} became {}", before.checkpoint, after.checkpoint);
            return violated("K3", index, text);
        }
    }
    Ok(())
}

/// A pending checkpoint stays until a checkpoint covers it or another is prepared.
pub(super) fn what_was_prepared_is_found(facts: &Facts) -> Verdict {
    for (index, change) in facts.changes() {
        let (Some(before), Some(after)) = (&change.before, &change.after) else {
            continue;
        };
        if let (Some(pending), None) = (&before.pending, &after.pending)
            && !pending.position.may_advance_to(&after.checkpoint)
        {
            return violated("prepared", index, "a pending checkpoint is gone");
        }
        if before.pending != after.pending
            && after.pending.is_some()
            && !change
                .by
                .as_ref()
                .is_some_and(|token| is_current(Some(before), token))
        {
            return violated("K1", index, "prepared under a token that was not current");
        }
    }
    Ok(())
}

/// A new tenure begins at the stored checkpoint and is told what is pending.
pub(super) fn k5_a_tenure_begins_where_the_store_says(facts: &Facts) -> Verdict {
    let torn = facts.torn_out();
    let mut leases = Leases::default();
    let mut identity = None;
    for (index, entry) in facts.entries() {
        leases.take_in(entry);
        Facts::identity_after(&mut identity, entry);
        let What::Step {
            tenure,
            step: Step::Created,
        } = &entry.what
        else {
            continue;
        };
        let tenure = &facts.history.tenures[*tenure];
        let key = LeaseKey {
            stream: identity.unwrap_or_default().to_owned(),
            shard_id: tenure.shard_id.clone(),
        };
        // One that was lost in the meantime tells nothing.
        let lease = leases.get(&key).filter(|lease| {
            lease.owner.as_ref() == Some(&tenure.worker) && !torn.contains(&lease.key)
        });
        let Some(lease) = lease else { continue };
        if (lease.checkpoint, &lease.pending) != (tenure.position, &tenure.pending) {
            let text = format!(
                "began at {}, stored is {}",
                tenure.position, lease.checkpoint
            );
            return violated("K5", index, text);
        }
    }
    Ok(())
}

/// A processor is told that its lease is lost only when it is.
pub(super) fn k12_a_lease_that_is_held_is_not_lost(facts: &Facts) -> Verdict {
    let torn = facts.torn_out();
    let mut leases = Leases::default();
    for (index, entry) in facts.entries() {
        leases.take_in(entry);
        let What::Step {
            tenure,
            step: Step::LeaseLost,
        } = &entry.what
        else {
            continue;
        };
        if let Some(token) = &facts.history.tenures[*tenure].token
            && is_current(leases.get(&token.key), token)
            && !torn.contains(&token.key)
        {
            return violated("K12", index, "the lease is still held under this token");
        }
    }
    Ok(())
}
