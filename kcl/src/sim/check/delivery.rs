//! What was handed to processors, by whom and in which order: K2, K5, K6.

use super::lease::is_current;
use super::{Facts, Leases, Verdict, violated};
use crate::checkpoint::Position;
use crate::lease::LeaseKey;
use crate::sim::history::{Change, Event, RecordId, Step, What};
use crate::sim::kinesis::Put;
use crate::sim::settled::is_wanted;
use std::collections::{BTreeMap, BTreeSet};

/// The position of whoever has finished a record.
fn positions(facts: &Facts) -> BTreeMap<RecordId, Position> {
    let shards = facts
        .kinesis
        .streams
        .iter()
        .flat_map(|stream| &stream.shards);
    let puts = shards.flat_map(|shard| &shard.records);
    puts.flat_map(Put::ids).collect()
}

/// Nobody begins a batch after the lease went to another. A batch begun before may go on. Two processes under one worker id are not
/// covered: they hold the same leases by their own word.
pub(super) fn k2_one_holder_delivers(facts: &Facts) -> Verdict {
    let torn = facts.torn_out();
    let mut leases = Leases::default();
    let mut replaced: BTreeSet<(&LeaseKey, u64)> = BTreeSet::new();
    for (index, entry) in facts.entries() {
        leases.take_in(entry);
        match &entry.what {
            What::Lease(Change {
                verb: "register",
                before: Some(before),
                ..
            }) => {
                replaced.insert((&before.key, before.counter));
            }
            What::Step {
                tenure,
                step: Step::Began(_),
            } => {
                let Some(token) = &facts.history.tenures[*tenure].token else {
                    continue;
                };
                let lease = leases.get(&token.key);
                let excused =
                    replaced.contains(&(&token.key, token.counter)) || torn.contains(&token.key);
                if !is_current(lease, token) && !excused {
                    let now = lease.map(|lease| (&lease.owner, lease.counter));
                    return violated("K2", index, format!("the lease is {now:?} by then"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// A tenure delivers only what was not checkpointed when it began; after a hand-over in order that is nothing of what was processed.
pub(super) fn k5_what_was_checkpointed_is_not_delivered_again(facts: &Facts) -> Verdict {
    let torn = facts.torn_out();
    let positions = positions(facts);
    let after = |id: RecordId| positions[&id];
    let mut began: BTreeMap<(&LeaseKey, u64), Position> = BTreeMap::new();
    let mut done: BTreeMap<usize, Vec<RecordId>> = BTreeMap::new();
    let mut succeeded: BTreeMap<(&LeaseKey, u64), RecordId> = BTreeMap::new();
    let mut promised: BTreeSet<(&LeaseKey, u64)> = BTreeSet::new();
    for (index, entry) in facts.entries() {
        match &entry.what {
            What::Lease(change) => {
                let Some(lease) = &change.after else { continue };
                began
                    .entry((&lease.key, lease.counter))
                    .or_insert(lease.checkpoint);
                let (Some(before), "release") = (&change.before, change.verb) else {
                    continue;
                };
                let token = (&before.key, before.counter);
                let last = succeeded.get(&token).filter(|_| promised.contains(&token));
                if let Some(last) = last
                    && !after(*last).may_advance_to(&lease.checkpoint)
                {
                    let text = format!("released at {} with {last:?} processed", lease.checkpoint);
                    return violated("K5", index, text);
                }
            }
            What::Step { tenure, step } => {
                let Some(token) = &facts.history.tenures[*tenure].token else {
                    continue;
                };
                if torn.contains(&token.key) {
                    continue;
                }
                let token = (&token.key, token.counter);
                match step {
                    Step::Began(ids) => {
                        let from = began.get(&token).copied();
                        let again = |id: &&RecordId| {
                            from.is_some_and(|from| after(**id).may_advance_to(&from))
                        };
                        if let Some(id) = ids.iter().find(again) {
                            let text = format!("{id:?} was checkpointed: {from:?}");
                            return violated("K5", index, text);
                        }
                        done.insert(*tenure, ids.clone());
                    }
                    Step::Succeeded => {
                        let last = done.get(tenure).and_then(|ids| ids.last());
                        succeeded.extend(last.map(|last| (token, *last)));
                    }
                    Step::ShutdownAnswered(true) => {
                        promised.insert(token);
                    }
                    _ => {}
                }
            }
            What::World(_) | What::Said(_) => {}
        }
    }
    Ok(())
}

/// Within a tenure a batch comes after the last one that was processed; one that failed comes again.
pub(super) fn k6_records_come_in_order(facts: &Facts) -> Verdict {
    let mut at: BTreeMap<usize, (Vec<RecordId>, Option<RecordId>)> = BTreeMap::new();
    for (index, entry) in facts.entries() {
        let What::Step { tenure, step } = &entry.what else {
            continue;
        };
        let (batch, last) = at.entry(*tenure).or_default();
        match step {
            Step::Began(ids) => {
                if !ids.is_sorted_by(|a, b| a < b) {
                    return violated("K6", index, "a batch is not in order");
                }
                if ids.first() <= last.as_ref() {
                    return violated("K6", index, format!("{last:?} was processed before"));
                }
                batch.clone_from(ids);
            }
            Step::Succeeded => *last = batch.last().copied(),
            _ => {}
        }
    }
    Ok(())
}

/// When the first record of a child is handed over, every record of its parents that the application wants was processed.
pub(super) fn k6_children_wait_for_their_parents(facts: &Facts) -> Verdict {
    let mut handled: BTreeSet<RecordId> = BTreeSet::new();
    let mut finished: BTreeSet<(String, String)> = BTreeSet::new();
    for (index, entry) in facts.entries() {
        if let What::World(Event::Letter { record }) = &entry.what {
            handled.insert(*record);
        }
        let What::Step { tenure, step } = &entry.what else {
            continue;
        };
        match step {
            Step::Handled(ids) => handled.extend(ids),
            Step::Began(_) => {
                let Some(token) = &facts.history.tenures[*tenure].token else {
                    continue;
                };
                let stream = facts.kinesis.streams.iter();
                let mut stream = stream.filter(|stream| stream.identity() == token.key.stream);
                let Some(stream) = stream.next() else {
                    continue;
                };
                let beginning = facts.beginnings.get(&token.key.stream);
                let Some(shard) = stream.shard(&token.key.shard_id) else {
                    continue;
                };
                for parent in &shard.shard.parents {
                    let key = (token.key.stream.clone(), parent.clone());
                    if finished.contains(&key) {
                        continue;
                    }
                    let is_waiting = |put: &&Put| {
                        !put.is_in(&handled)
                            && is_wanted(
                                put,
                                facts.scenario.initial,
                                beginning,
                                facts.clock_stepped,
                            )
                    };
                    let records = stream.shard(parent).map(|parent| &parent.records);
                    if let Some(put) = records.into_iter().flatten().find(is_waiting) {
                        let text = format!("{} of {parent} is not processed", put.sequence);
                        return violated("K6", index, text);
                    }
                    finished.insert(key);
                }
            }
            _ => {}
        }
    }
    Ok(())
}
