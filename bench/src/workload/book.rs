//! What was put and acknowledged, what was read, and whether they agree. Pure.

use crate::page;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Names a record: who put it, and which of its records it is. Its data begin with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Id {
    /// The writer.
    pub(super) writer: u32,
    /// The how manieth of its records, from 0.
    pub(super) number: u32,
}

impl Id {
    /// Bytes that name a record; its data cannot be fewer.
    pub(super) const BYTES: usize = 8;

    /// The record's data: its name, and then bytes that follow from it.
    pub(super) fn data(self, bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes.max(Id::BYTES)];
        let (name, rest) = data.split_at_mut(Id::BYTES);
        let id = u64::from(self.writer) << 32 | u64::from(self.number);
        name.copy_from_slice(&id.to_be_bytes());
        fastrand::Rng::with_seed(id).fill(rest);
        data
    }

    /// The record of so many bytes that has these data; nothing, if none has.
    pub(super) fn of(data: &[u8], bytes: usize) -> Option<Id> {
        let name: [u8; Id::BYTES] = data.get(..Id::BYTES)?.try_into().ok()?;
        let id = u64::from_be_bytes(name);
        let id = Id {
            writer: u32::try_from(id >> 32).ok()?,
            number: u32::try_from(id & u64::from(u32::MAX)).ok()?,
        };
        (id.data(bytes) == data).then_some(id)
    }
}

/// A place that a record was acknowledged at, or read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The shard's id.
    pub(super) shard: String,
    /// The sequence number.
    pub(super) sequence: String,
}

/// What was put.
#[derive(Debug, Default)]
pub(super) struct Book {
    acknowledged: HashMap<Id, Place>,
    /// Put, but nobody knows whether the server took it.
    unknown: HashSet<Id>,
    per_shard: BTreeMap<String, usize>,
}

impl Book {
    /// A record was acknowledged.
    pub(super) fn acknowledge(&mut self, id: Id, place: Place) {
        *self.per_shard.entry(place.shard.clone()).or_default() += 1;
        self.acknowledged.insert(id, place);
    }

    /// A record was put and not acknowledged.
    pub(super) fn lose_sight(&mut self, id: Id) {
        self.unknown.insert(id);
    }

    /// Records acknowledged in a shard.
    pub(super) fn acknowledged_in(&self, shard: &str) -> usize {
        self.per_shard.get(shard).copied().unwrap_or_default()
    }

    /// Records put.
    pub(super) fn records(&self) -> usize {
        self.acknowledged.len() + self.unknown.len()
    }
}

/// What was read from one shard, in the order in which it came.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The shard's id.
    pub(super) shard: String,
    /// Sequence number, and which record it is; nothing, if its bytes are no record's.
    pub(super) records: Vec<(String, Option<Id>)>,
}

/// Records of a reading, counted by what is wrong with them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// That were acknowledged.
    pub acknowledged: usize,
    /// That were read, whether acknowledged or not.
    pub read: usize,
    /// Acknowledged and not read.
    pub missing: usize,
    /// Read more than once.
    pub repeated: usize,
    /// With a sequence number that is not greater than that of the record before.
    pub out_of_order: usize,
    /// With bytes that are those of no record, or of one that was never put.
    pub damaged: usize,
    /// Read in another shard or with another sequence number than it was acknowledged with.
    pub misplaced: usize,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        let Verdict {
            acknowledged: _,
            read: _,
            missing,
            repeated,
            out_of_order,
            damaged,
            misplaced,
        } = self;
        [missing, repeated, out_of_order, damaged, misplaced] == [&0; 5]
    }
}

/// Compares what was read with what was put.
pub(super) fn verdict(book: &Book, seen: &[Seen]) -> Verdict {
    let mut verdict = Verdict {
        acknowledged: book.acknowledged.len(),
        ..Verdict::default()
    };
    let mut read = HashSet::new();
    for Seen { shard, records } in seen {
        let numbers = records.iter().map(|(number, _)| page::order(number));
        let following = records.iter().skip(1);
        let pairs = numbers.zip(following.map(|(number, _)| page::order(number)));
        verdict.out_of_order += pairs.filter(|(before, after)| before >= after).count();
        for (sequence, id) in records {
            verdict.read += 1;
            let Some(id) = id else {
                verdict.damaged += 1;
                continue;
            };
            if !read.insert(*id) {
                verdict.repeated += 1;
            }
            match book.acknowledged.get(id) {
                Some(place) if place.shard == *shard && place.sequence == *sequence => {}
                Some(_) => verdict.misplaced += 1,
                None if book.unknown.contains(id) => {}
                None => verdict.damaged += 1,
            }
        }
    }
    let acknowledged = book.acknowledged.keys();
    verdict.missing = acknowledged.filter(|id| !read.contains(*id)).count();
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Goal: no byte of a record can change unnoticed.
        #[test]
        fn a_record_is_known_by_all_its_bytes(writer: u32, number: u32, bytes in 8usize..300, at: prop::sample::Index, flip in 1u8..) {
            let id = Id { writer, number };
            let mut data = id.data(bytes);
            prop_assert_eq!(Id::of(&data, bytes), Some(id));
            let at = at.index(bytes);
            data[at] ^= flip;
            // In the name, it may be another record's name, but the rest is not that record's.
            if bytes > 16 || at >= Id::BYTES {
                prop_assert_eq!(Id::of(&data, bytes), None);
            }
            data[at] ^= flip;
            data.pop();
            prop_assert_eq!(Id::of(&data, bytes), None);
        }
    }

    const SHARDS: [&str; 2] = ["shard-a", "shard-b"];

    fn sound(count: usize) -> (Book, Vec<Seen>) {
        let mut book = Book::default();
        let mut seen = SHARDS.map(|shard| Seen {
            shard: shard.to_owned(),
            records: Vec::new(),
        });
        for n in 0..count {
            let id = Id {
                writer: 1,
                number: u32::try_from(n).unwrap(),
            };
            let (shard, sequence) = (n % 2, (n + 95).to_string());
            seen[shard].records.push((sequence.clone(), Some(id)));
            if n % 7 == 3 {
                book.lose_sight(id);
                continue;
            }
            let shard = SHARDS[shard].to_owned();
            book.acknowledge(id, Place { shard, sequence });
        }
        (book, seen.into())
    }

    proptest! {
        /// Goal: a checker that cannot fail proves nothing. Method: each fault that a server can have, in a reading without any.
        #[test]
        fn every_fault_is_found(count in 20usize..60, fault in 0..6, at: prop::sample::Index) {
            let (book, mut seen) = sound(count);
            prop_assert!(verdict(&book, &seen).is_sound());
            let records = &mut seen[0].records;
            // An acknowledged one, not the last.
            let places: Vec<usize> = (0..records.len() - 1).filter(|at| (at * 2) % 7 != 3).collect();
            let at = places[at.index(places.len())];
            match fault {
                0 => drop(records.remove(at)),
                1 => records.insert(at, records[at].clone()),
                2 => records.swap(at, at + 1),
                3 => records[at].1 = None,
                4 => records[at].1 = Some(Id { writer: 9, number: 9 }),
                _ => {
                    let moved = records.remove(at);
                    seen[1].records.insert(0, moved);
                }
            }
            let found = verdict(&book, &seen);
            prop_assert!(!found.is_sound(), "{found:?}");
            let counted = match fault {
                0 => found.missing,
                1 => found.repeated,
                2 => found.out_of_order,
                3 | 4 => found.damaged,
                _ => found.misplaced,
            };
            prop_assert!(counted > 0, "{found:?}");
        }
    }

    #[test]
    fn what_nobody_acknowledged_may_be_missing() {
        let (book, mut seen) = sound(20);
        seen[1]
            .records
            .retain(|(_, id)| id.unwrap().number % 7 != 3);
        assert!(verdict(&book, &seen).is_sound());
    }
}
