//! That every record is processed, and that nothing counts as finished which is not: K4, K13.

use super::{Facts, Verdict, violated};
use crate::checkpoint::Position;
use crate::lease::LeaseKey;
use crate::sim::history::{Event, RecordId, Step, What};
use crate::sim::kinesis::{Put, SimShard};
use crate::sim::settled::is_wanted;
use millstream_wire::SequenceNumber;
use std::collections::{BTreeMap, BTreeSet};

fn shards(facts: &Facts) -> BTreeMap<LeaseKey, &SimShard> {
    let mut shards = BTreeMap::new();
    for stream in &facts.kinesis.streams {
        for shard in &stream.shards {
            let key = LeaseKey {
                stream: stream.identity(),
                shard_id: shard.shard.shard_id.clone(),
            };
            shards.insert(key, shard);
        }
    }
    shards
}

fn wanted<'a>(facts: &Facts, key: &LeaseKey, shard: &'a SimShard) -> impl Iterator<Item = &'a Put> {
    let (initial, stepped) = (facts.scenario.initial, facts.clock_stepped);
    let beginning = facts.beginnings.get(&key.stream).cloned();
    let records = shard.records.iter();
    records.filter(move |put| is_wanted(put, initial, beginning.as_ref(), stepped))
}

/// No checkpoint is stored beyond a record that no processor declared done, and in the end all are done.
pub(super) fn k4_nothing_is_lost(facts: &Facts) -> Verdict {
    let shards = shards(facts);
    let mut waiting: BTreeMap<&LeaseKey, Vec<(&Put, RecordId, Position)>> = BTreeMap::new();
    for (key, shard) in &shards {
        let puts = wanted(facts, key, shard);
        let each = puts.flat_map(|put| put.ids().map(move |(id, position)| (put, id, position)));
        let mut each: Vec<_> = each.collect();
        each.reverse();
        waiting.insert(key, each);
    }
    let mut handled: BTreeSet<RecordId> = BTreeSet::new();
    for (index, entry) in facts.entries() {
        match &entry.what {
            What::Step {
                step: Step::Handled(ids),
                ..
            } => handled.extend(ids),
            What::World(Event::Letter { record }) => {
                handled.insert(*record);
            }
            What::Lease(change) => {
                let Some(lease) = &change.after else { continue };
                let Some(each) = waiting.get_mut(&lease.key) else {
                    continue;
                };
                while let Some((put, id, position)) = each.last() {
                    if !position.may_advance_to(&lease.checkpoint) || put.after > index {
                        break;
                    }
                    if !handled.contains(id) {
                        let text = format!("{} is stored beyond {id:?}", lease.checkpoint);
                        return violated("K4", index, text);
                    }
                    each.pop();
                }
            }
            What::World(Event::Quiet) => {
                let mut all = waiting.values().flatten();
                if let Some((_, id, _)) = all.find(|(_, id, _)| !handled.contains(id)) {
                    return violated("K4", index, format!("{id:?} was never processed"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// `SHARD_END` is stored only of a shard that is closed, in the stream that the lease is about.
pub(super) fn k13_only_what_is_finished_ends(facts: &Facts) -> Verdict {
    let mut closed: BTreeSet<LeaseKey> = BTreeSet::new();
    let mut current = None;
    for (index, entry) in facts.entries() {
        Facts::identity_after(&mut current, entry);
        match &entry.what {
            What::World(Event::Reshard { closed: ids, .. }) => {
                let stream = current.unwrap_or_default().to_owned();
                let keys = ids.iter().map(|id| LeaseKey {
                    stream: stream.clone(),
                    shard_id: id.clone(),
                });
                closed.extend(keys);
            }
            What::Lease(change) => {
                let Some(lease) = &change.after else { continue };
                if lease.checkpoint == Position::ShardEnd && !closed.contains(&lease.key) {
                    return violated("K13", index, "SHARD_END of a shard that is not closed");
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Records are handed over under a lease of the stream that they are in.
pub(super) fn k13_no_stream_is_taken_for_another(facts: &Facts) -> Verdict {
    let shards = shards(facts);
    let mut places: BTreeMap<SequenceNumber, &LeaseKey> = BTreeMap::new();
    for (key, shard) in &shards {
        places.extend(shard.records.iter().map(|put| (put.sequence, key)));
    }
    for (index, entry) in facts.entries() {
        let What::Step {
            tenure,
            step: Step::Began(ids),
        } = &entry.what
        else {
            continue;
        };
        let Some(token) = &facts.history.tenures[*tenure].token else {
            continue;
        };
        if let Some((sequence, _)) = ids.iter().find(|(number, _)| places[number] != &token.key) {
            let text = format!("{sequence} is of {}", places[sequence]);
            return violated("K13", index, text);
        }
    }
    Ok(())
}
