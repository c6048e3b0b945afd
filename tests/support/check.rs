//! The checkers: pure functions from a history to a verdict. Each names the guarantee it is about and
//! says what it saw; each is itself tested with a history that was tampered with.

use crate::history::{Acked, Event, EventKind, Place, ReadRecord, ReadShard, Sequence, Written};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What is wrong, in words.
pub type Violation = String;

/// S1, S2 and S3 over a stream read from end to end: every acknowledged record is there once, with the
/// number and the shard it was acknowledged with; nothing is doubled; numbers rise in each shard and
/// from parents to children; each writer's records are in the order it wrote them.
pub fn stream_is_whole(acked: &[Acked], shards: &[ReadShard]) -> Result<(), Violation> {
    numbers_rise(shards)?;
    let mut places: HashMap<&Written, (&str, &Sequence)> = HashMap::new();
    for shard in shards {
        for record in &shard.records {
            let place = (shard.shard.as_str(), &record.sequence);
            if let Some(before) = places.insert(&record.written, place) {
                return Err(format!(
                    "S3: {:?} is at {before:?} and at {place:?}",
                    record.written
                ));
            }
        }
    }
    for ack in acked {
        let acknowledged = (ack.shard.as_str(), &ack.sequence);
        match places.get(&ack.written) {
            None => {
                return Err(format!(
                    "S1: {:?} acknowledged at {acknowledged:?} is lost",
                    ack.written
                ));
            }
            Some(found) if *found != acknowledged => {
                let written = &ack.written;
                return Err(format!(
                    "S1: {written:?} acknowledged at {acknowledged:?} is at {found:?}"
                ));
            }
            Some(_) => {}
        }
    }
    writers_in_order(shards)
}

fn numbers_rise(shards: &[ReadShard]) -> Result<(), Violation> {
    let mut last_of: HashMap<&str, &Sequence> = HashMap::new();
    for shard in shards {
        let of = &shard.shard;
        let falls = |pair: &&[ReadRecord]| pair[0].sequence >= pair[1].sequence;
        if let Some(pair) = shard.records.windows(2).find(falls) {
            return Err(format!("S2: {of} goes on like this: {pair:?}"));
        }
        for parent in &shard.parents {
            let (Some(last), Some(first)) = (last_of.get(parent.as_str()), shard.records.first())
            else {
                continue;
            };
            if first.sequence <= **last {
                return Err(format!(
                    "S2: {first:?} of {of} is not above {last} of its parent {parent}"
                ));
            }
        }
        if let Some(last) = shard.records.last() {
            last_of.insert(of, &last.sequence);
        }
    }
    Ok(())
}

/// `shards` list parents before children, so that a writer's records come in the order of its shards.
fn writers_in_order(shards: &[ReadShard]) -> Result<(), Violation> {
    let mut last: HashMap<&str, u64> = HashMap::new();
    for record in shards.iter().flat_map(|shard| &shard.records) {
        let Written { writer, n } = &record.written;
        if let Some(before) = last.insert(writer, *n).filter(|before| before >= n) {
            return Err(format!(
                "S2: {writer} wrote {n} before {before}, read the other way round"
            ));
        }
    }
    Ok(())
}

/// S1 and S2 from one reading to a later one: what was once read stays, at its place, and only more follows.
pub fn extends(before: &[ReadShard], after: &[ReadShard]) -> Result<(), Violation> {
    for shard in before {
        let of = &shard.shard;
        let Some(now) = after.iter().find(|later| later.shard == *of) else {
            return Err(format!("S1: shard {of} is gone"));
        };
        if shard.closed && !now.closed {
            return Err(format!("S5: {of} was closed and is open again"));
        }
        if shard.closed && now.records.len() != shard.records.len() {
            let (then, now) = (shard.records.len(), now.records.len());
            return Err(format!(
                "S5: closed shard {of} went from {then} to {now} records"
            ));
        }
        for (index, record) in shard.records.iter().enumerate() {
            if now.records.get(index) != Some(record) {
                let found = now.records.get(index);
                return Err(format!("S1: {of} had {record:?} at {index}, now {found:?}"));
            }
        }
    }
    Ok(())
}

/// S4: inclusive ranges of hash keys tile 0..2^128-1 without gap or overlap.
pub fn tiles(ranges: &[(u128, u128)]) -> Result<(), Violation> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut next = Some(0u128);
    for (start, end) in &sorted {
        if next != Some(*start) || end < start {
            return Err(format!(
                "S4: a range {start}..={end} where {next:?} should start: {sorted:?}"
            ));
        }
        next = end.checked_add(1);
    }
    match next {
        None => Ok(()),
        Some(missing) => Err(format!("S4: nothing from {missing} on: {sorted:?}")),
    }
}

/// S3 for a reader that followed the tip: it saw what the shard holds, all of it, in order.
pub fn saw_all(whole: &[ReadRecord], seen: &[ReadRecord]) -> Result<(), Violation> {
    for (index, record) in whole.iter().enumerate() {
        if seen.get(index) != Some(record) {
            let found = seen.get(index);
            return Err(format!(
                "S3: a tailing reader saw {found:?} at {index}, not {record:?}"
            ));
        }
    }
    match seen.get(whole.len()) {
        None => Ok(()),
        Some(extra) => Err(format!(
            "S3: a tailing reader saw {extra:?}, which the shard does not hold"
        )),
    }
}

/// K4: everything expected was delivered at least once.
pub fn all_delivered(
    expected: &BTreeSet<Place>,
    delivered: &BTreeMap<Place, usize>,
) -> Result<(), Violation> {
    let lost: Vec<&Place> = expected
        .iter()
        .filter(|place| !delivered.contains_key(place))
        .collect();
    let unknown: Vec<&Place> = delivered
        .keys()
        .filter(|place| !expected.contains(place))
        .collect();
    match (lost.first(), unknown.first()) {
        (Some(first), _) => Err(format!("K4: {} records lost, first {first:?}", lost.len())),
        (None, Some(first)) => Err(format!(
            "K4: {} records nobody wrote, first {first:?}",
            unknown.len()
        )),
        (None, None) => Ok(()),
    }
}

/// K5: a record was delivered again only for a kill that it was outstanding at, once for each.
pub fn duplicates_bounded(
    delivered: &BTreeMap<Place, usize>,
    outstanding_at_kills: &[BTreeSet<Place>],
) -> Result<(), Violation> {
    for (place, count) in delivered {
        let kills = outstanding_at_kills
            .iter()
            .filter(|open| open.contains(place))
            .count();
        if count - 1 > kills {
            return Err(format!(
                "K5: {place:?} came {count} times, outstanding at {kills} kills"
            ));
        }
    }
    Ok(())
}

/// K6: within a tenure the numbers of a shard rise, and nothing of a child comes before its parents ended.
/// `parents` holds the parents of each shard that has any. `events` are in the order of their times.
pub fn order_kept(
    events: &[Event],
    parents: &BTreeMap<String, Vec<String>>,
) -> Result<(), Violation> {
    let mut last: HashMap<(&str, &str), &Sequence> = HashMap::new();
    let mut ended: BTreeSet<&str> = BTreeSet::new();
    for event in events {
        let worker = event.worker.as_str();
        match &event.kind {
            EventKind::Initialized { shard } => {
                last.remove(&(worker, shard.as_str()));
            }
            EventKind::Ended { shard } => {
                ended.insert(shard);
            }
            EventKind::Delivered { shard, sequences } => {
                let open = parents.get(shard).into_iter().flatten();
                if let Some(parent) = open
                    .into_iter()
                    .find(|parent| !ended.contains(parent.as_str()))
                {
                    return Err(format!(
                        "K6: {worker} got records of {shard} before {parent} ended"
                    ));
                }
                for sequence in sequences {
                    let before = last.insert((worker, shard), sequence);
                    if let Some(before) = before.filter(|before| *before >= sequence) {
                        return Err(format!(
                            "K6: {worker} got {sequence} of {shard} after {before}"
                        ));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// K2: once another worker has got records of a shard, the old holder gets at most the batch in flight and
/// checkpoints nothing, until it begins a new tenure. `events` are in the order of their times.
pub fn one_owner(events: &[Event]) -> Result<(), Violation> {
    let mut holder: HashMap<&str, &str> = HashMap::new();
    let mut overdue: HashMap<(&str, &str), usize> = HashMap::new();
    for event in events {
        let worker = event.worker.as_str();
        let Some(shard) = event.kind.shard() else {
            continue;
        };
        match &event.kind {
            EventKind::Initialized { .. } => {
                holder.insert(shard, worker);
                overdue.remove(&(shard, worker));
            }
            EventKind::Delivered { sequences, .. } if holder.get(shard) != Some(&worker) => {
                let late = overdue.entry((shard, worker)).or_insert(0);
                *late += 1;
                if *late > 1 {
                    let (count, now) = (sequences.len(), holder.get(shard));
                    return Err(format!(
                        "K2: {worker} got {count} records of {shard}, held by {now:?}, beyond the batch in flight"
                    ));
                }
            }
            EventKind::Checkpointed { .. } if holder.get(shard) != Some(&worker) => {
                let now = holder.get(shard);
                return Err(format!(
                    "K1: {worker} checkpointed {shard}, held by {now:?}"
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
