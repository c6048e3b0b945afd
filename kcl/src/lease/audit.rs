//! Whether the leases cover the hash key space: a pure look for holes (K7).

use super::{Lease, LeaseKey};
use crate::checkpoint::Position;
use millstream_wire::{HashKey, HashKeyRange};
use std::collections::BTreeSet;

/// The parts of the hash key space that no lease of the stream stands for which has not ended.
///
/// A lease whose range is not known could stand for any of them: then nothing is reported. So it is where no lease is left, as
/// before the first listing.
pub fn holes(leases: &[Lease], stream: &str) -> Vec<HashKeyRange> {
    let of_stream = leases.iter().filter(|lease| lease.key.stream == stream);
    let open = of_stream.filter(|lease| lease.checkpoint != Position::ShardEnd);
    let Some(mut ranges) = open
        .map(|lease| lease.hash_key_range)
        .collect::<Option<Vec<HashKeyRange>>>()
    else {
        return Vec::new();
    };
    if ranges.is_empty() {
        return Vec::new();
    }
    ranges.sort_by_key(|range| range.start);
    let (mut holes, mut next) = (Vec::new(), Some(HashKeyRange::ALL.start));
    for range in ranges {
        let Some(expected) = next else { break };
        if range.start > expected {
            holes.push(HashKeyRange {
                start: expected,
                end: HashKey(range.start.0 - 1),
            });
        }
        if range.end >= expected {
            next = range.end.0.checked_add(1).map(HashKey);
        }
    }
    if let Some(start) = next {
        let end = HashKeyRange::ALL.end;
        holes.push(HashKeyRange { start, end });
    }
    holes
}

/// Looks for holes again only when leases have come, ended or gone.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    /// The leases that stood for a range at the last look.
    open: BTreeSet<LeaseKey>,
}

impl Audit {
    /// The holes, if the leases have changed since the last look; else nothing.
    pub(crate) fn look(&mut self, leases: &[Lease], stream: &str) -> Vec<HashKeyRange> {
        let is_open =
            |lease: &&Lease| lease.key.stream == stream && lease.checkpoint != Position::ShardEnd;
        let count = leases.iter().filter(is_open).count();
        let known = |lease: &Lease| self.open.contains(&lease.key);
        if count == self.open.len() && leases.iter().filter(is_open).all(known) {
            return Vec::new();
        }
        self.open = leases
            .iter()
            .filter(is_open)
            .map(|lease| lease.key.clone())
            .collect();
        holes(leases, stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::{NewLease, rules};
    use proptest::prelude::*;

    fn range(start: u128, end: u128) -> HashKeyRange {
        HashKeyRange {
            start: HashKey(start),
            end: HashKey(end),
        }
    }

    fn lease(id: usize, hash_key_range: Option<HashKeyRange>) -> Lease {
        let key = LeaseKey {
            stream: "s".to_owned(),
            shard_id: format!("{id}"),
        };
        rules::create(&NewLease {
            key,
            checkpoint: Position::TrimHorizon,
            parents: Vec::new(),
            hash_key_range,
        })
    }

    fn leases(ranges: &[(u128, u128)]) -> Vec<Lease> {
        let one = |(id, (start, end)): (usize, &(u128, u128))| lease(id, Some(range(*start, *end)));
        ranges.iter().enumerate().map(one).collect()
    }

    #[test]
    fn k7_holes_are_found() {
        const MAX: u128 = u128::MAX;
        type Case<'a> = (&'a [(u128, u128)], &'a [(u128, u128)]);
        let table: [Case<'_>; 8] = [
            (&[], &[]),
            (&[(0, MAX)], &[]),
            (&[(0, 9), (10, MAX)], &[]),
            (&[(10, MAX), (0, 9)], &[]),
            (&[(0, 9), (11, MAX)], &[(10, 10)]),
            (&[(5, 9), (11, 20)], &[(0, 4), (10, 10), (21, MAX)]),
            (&[(0, 50), (10, 20), (30, MAX)], &[]),
            (&[(0, 50), (10, 20), (60, MAX)], &[(51, 59)]),
        ];
        for (given, expected) in table {
            let expected: Vec<_> = expected.iter().map(|(a, b)| range(*a, *b)).collect();
            assert_eq!(holes(&leases(given), "s"), expected, "{given:?}");
        }
        let mut ended = leases(&[(0, 9), (10, MAX)]);
        ended[1].checkpoint = Position::ShardEnd;
        assert_eq!(holes(&ended, "s"), [range(10, MAX)]);
        assert_eq!(holes(&ended, "another"), []);
        let unknown = [leases(&[(0, 9)]), vec![lease(7, None)]].concat();
        assert_eq!(holes(&unknown, "s"), []);
    }

    #[test]
    fn k7_the_audit_looks_when_leases_have_changed() {
        let whole = leases(&[(0, 9), (10, u128::MAX)]);
        let mut audit = Audit::default();
        assert_eq!(audit.look(&whole, "s"), []);
        let hole = [range(10, u128::MAX)];
        assert_eq!(audit.look(&whole[..1], "s"), hole);
        assert_eq!(audit.look(&whole[..1], "s"), [], "reported once");
        assert_eq!(audit.look(&whole, "s"), []);
        assert_eq!(audit.look(&whole[..1], "s"), hole);
    }

    proptest! {
        /// Goal: every key is either in an open lease or in a hole, never both. Method: few small ranges, every key tried.
        #[test]
        fn k7_every_key_is_covered_or_in_a_hole(
            ranges in prop::collection::vec((0u128..20, 0u128..20), 1..6),
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(a, b)| (a.min(b), a.max(b))).collect();
            let holes = holes(&leases(&ranges), "s");
            let within = |key: u128, start: u128, end: u128| start <= key && key <= end;
            for key in (0..25).chain([u128::MAX]) {
                let covered = ranges.iter().any(|(a, b)| within(key, *a, *b));
                let in_hole = holes.iter().any(|hole| {
                    within(key, hole.start.0, hole.end.0)
                });
                prop_assert!(covered != in_hole, "{key}: {ranges:?} {holes:?}");
            }
        }
    }
}
