//! Batches against a model, for every position that an application can have got to.

use super::*;
use crate::processor::RecordBatch;
use bytes::Bytes;
use millstream_wire::HashKey;
use millstream_wire::aggregation::encode;
use proptest::prelude::*;
use std::sync::Arc;

fn sequence(number: u64) -> SequenceNumber {
    number.to_string().parse().unwrap()
}

/// A user record with an explicit hash key, or without.
fn user(data: &str, hash_key: Option<&str>) -> UserRecord {
    UserRecord {
        partition_key: "user key".into(),
        explicit_hash_key: hash_key.map(Into::into),
        data: Bytes::copy_from_slice(data.as_bytes()),
    }
}

fn plain(number: u64) -> Record {
    Record::stored(sequence(number), "key", Bytes::from_static(b"plain"), 7)
}

fn aggregate(number: u64, users: &[UserRecord]) -> Record {
    Record::stored(sequence(number), "key", encode(users), 7)
}

fn own(range: std::ops::RangeInclusive<u128>) -> HashKeyRange {
    HashKeyRange {
        start: HashKey(*range.start()),
        end: HashKey(*range.end()),
    }
}

fn all(done: Position) -> Selection {
    Selection {
        done,
        own: None,
        most: 1000,
        most_bytes: usize::MAX,
    }
}

fn inside(number: u64, sub_sequence: u64) -> Position {
    Position::Sequence {
        sequence: sequence(number),
        sub_sequence,
    }
}

/// The batches of a page that nobody has looked into.
fn batches(page: Vec<Record>, selection: Selection) -> Batches {
    Batches::of(page, Vec::new(), selection)
}

fn places(records: &[Record]) -> Vec<(SequenceNumber, u64)> {
    records
        .iter()
        .map(|record| (record.sequence_number, record.sub_sequence_number))
        .collect()
}

#[test]
fn an_aggregate_becomes_its_user_records() {
    let page = vec![
        plain(1),
        aggregate(2, &[user("a", Some("5")), user("b", None)]),
    ];
    let batches: Vec<_> = batches(page, all(Position::TrimHorizon)).collect();
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0].end, Position::after(sequence(2)));
    let [first, a, b] = &batches[0].records[..] else {
        panic!("{batches:?}")
    };
    assert_eq!(first, &plain(1));
    assert!(!first.is_aggregated());
    assert_eq!((a.sub_sequence_number(), &a.data()[..]), (0, &b"a"[..]));
    assert_eq!((b.sub_sequence_number(), &b.data()[..]), (1, &b"b"[..]));
    assert_eq!(
        (a.explicit_hash_key(), b.explicit_hash_key()),
        (Some("5"), None)
    );
    for record in [a, b] {
        assert!(record.is_aggregated());
        assert_eq!(record.sequence_number(), sequence(2));
        assert_eq!(
            (record.partition_key(), record.arrival_ms()),
            ("user key", 7)
        );
    }
    assert_eq!(a.position(), inside(2, 0));
    assert_eq!(b.position(), Position::after(sequence(2)));
    assert_eq!(b.position().to_string(), "2", "stored as the bare number");
}

/// Goal: the first user record that is not done comes first, whichever form the position has (K4, K5).
#[test]
fn k4_k5_delivery_begins_right_after_what_is_done() {
    let page = || {
        let users = ["a", "b", "c"].map(|data| user(data, None));
        vec![plain(1), aggregate(2, &users), plain(3)]
    };
    let table: [(Position, &[(u64, u64)]); 10] = [
        (
            Position::TrimHorizon,
            &[(1, 0), (2, 0), (2, 1), (2, 2), (3, 0)],
        ),
        (
            Position::AtSequence(sequence(1)),
            &[(1, 0), (2, 0), (2, 1), (2, 2), (3, 0)],
        ),
        (
            Position::after(sequence(1)),
            &[(2, 0), (2, 1), (2, 2), (3, 0)],
        ),
        (
            Position::AtSequence(sequence(2)),
            &[(2, 0), (2, 1), (2, 2), (3, 0)],
        ),
        (inside(2, 0), &[(2, 1), (2, 2), (3, 0)]),
        (inside(2, 1), &[(2, 2), (3, 0)]),
        (inside(2, 2), &[(3, 0)]),
        (Position::after(sequence(2)), &[(3, 0)]),
        (Position::AtSequence(sequence(3)), &[(3, 0)]),
        (Position::after(sequence(3)), &[]),
    ];
    for (done, expected) in table {
        let expected: Vec<_> = expected
            .iter()
            .map(|(number, sub)| (sequence(*number), *sub))
            .collect();
        let records: Vec<_> = batches(page(), all(done))
            .flat_map(|batch| batch.records)
            .collect();
        assert_eq!(places(&records), expected, "{done}");
    }
}

/// Goal: what is left of a batch whose transaction stored a position inside an aggregate begins with the next user record.
#[test]
fn k4_k5_the_rest_of_a_batch_begins_right_after_what_is_stored() {
    let page = vec![aggregate(1, &["a", "b", "c"].map(|data| user(data, None)))];
    let records = batches(page, all(Position::TrimHorizon))
        .flat_map(|batch| batch.records)
        .collect();
    let batch = RecordBatch {
        records: Arc::new(records),
        millis_behind_latest: 0,
    };
    for (stored, expected) in [
        (Position::AtSequence(sequence(1)), 0..3),
        (inside(1, 0), 1..3),
        (inside(1, 1), 2..3),
        (Position::after(sequence(1)), 3..3),
    ] {
        let expected: Vec<_> = expected.map(|sub| (sequence(1), sub)).collect();
        let rest = batch.part(batch.done_at(stored)..3);
        assert_eq!(places(rest.records()), expected);
    }
}

/// Goal: of an aggregate with user records of other shards the others stay; what is dropped is counted, and done with the last
/// one that stays.
#[test]
fn user_records_of_other_shards_are_dropped_one_by_one() {
    let users = [
        user("foreign", Some("50")),
        user("own", Some("9")),
        user("no number", Some("x")),
        user("own", Some("0")),
        user("foreign", Some("10")),
    ];
    let page = vec![plain(1), aggregate(2, &users)];
    let selection = Selection {
        own: Some(own(0..=9)),
        ..all(Position::TrimHorizon)
    };
    let mut batches = batches(page, selection);
    let batch = batches.next().unwrap();
    assert_eq!(
        places(&batch.records),
        [(1, 0), (2, 1), (2, 2), (2, 3)].map(|(number, sub)| (sequence(number), sub))
    );
    assert_eq!(batch.records[3].position(), Position::after(sequence(2)));
    assert_eq!(batches.next(), None);
    assert_eq!(batches.take_findings().foreign, 2);
    assert_eq!(batches.take_findings(), Findings::default());
}

/// Goal: by the partition key too, and a plain record is nobody else's.
#[test]
fn a_partition_key_decides_where_there_is_no_explicit_hash_key() {
    let key = HashKey::of_partition_key("user key");
    let page = || {
        let users = [user("own", None), user("foreign", Some("0"))];
        vec![aggregate(1, &users), plain(2)]
    };
    for (range, expected) in [
        (key.0..=key.0, vec![(1, 0), (2, 0)]),
        (0..=0, vec![(1, 1), (2, 0)]),
    ] {
        let selection = Selection {
            own: Some(own(range)),
            ..all(Position::TrimHorizon)
        };
        let records: Vec<_> = batches(page(), selection)
            .flat_map(|batch| batch.records)
            .collect();
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(number, sub)| (sequence(number), sub))
            .collect();
        assert_eq!(places(&records), expected);
    }
}

/// Goal: a page of which all is dropped is passed.
#[test]
fn a_page_of_which_all_is_dropped_ends_after_it() {
    let page = vec![
        aggregate(1, &[user("a", Some("50"))]),
        aggregate(2, &[user("b", Some("50")), user("c", Some("51"))]),
    ];
    let selection = Selection {
        own: Some(own(0..=9)),
        ..all(Position::TrimHorizon)
    };
    let batches: Vec<_> = batches(page, selection).collect();
    let end = Position::after(sequence(2));
    let records = Vec::new();
    assert_eq!(batches, [Batch { records, end }]);
}

/// Goal: K5 holds when dropping is switched on between two runs: the record that now is the last of its aggregate is not
/// delivered again.
#[test]
fn k5_what_was_done_stays_done_when_records_after_it_are_dropped_now() {
    let users = [user("own", Some("1")), user("foreign", Some("50"))];
    let selection = Selection {
        own: Some(own(0..=9)),
        ..all(inside(1, 0))
    };
    let batches: Vec<_> = batches(vec![aggregate(1, &users)], selection).collect();
    let end = Position::after(sequence(1));
    let records = Vec::new();
    assert_eq!(batches, [Batch { records, end }]);
}

#[test]
fn an_unsound_aggregate_is_delivered_as_it_is_and_noted_once() {
    let unsound = encode(&[]);
    let page = (1..=2)
        .map(|number| Record::stored(sequence(number), "key", unsound.clone(), 7))
        .collect();
    let mut batches = batches(page, all(Position::TrimHorizon));
    let records = batches.next().unwrap().records;
    assert_eq!(places(&records), [(sequence(1), 0), (sequence(2), 0)]);
    assert!(records.iter().all(|record| record.data == unsound));
    assert!(records.iter().all(|record| !record.is_aggregated()));
    let unsound = batches.take_findings().unsound.unwrap();
    assert_eq!(unsound, (sequence(1), Flaw::Empty));
}

/// Stored records by how many user records each has; 0 for a plain one.
fn page_of(shape: &[usize]) -> Vec<Record> {
    let record = |(number, users): (u64, &usize)| match users {
        0 => plain(number),
        count => {
            let users: Vec<_> = (0..*count)
                .map(|index| user("data", Some(&index.to_string())))
                .collect();
            aggregate(number, &users)
        }
    };
    (1..).zip(shape).map(record).collect()
}

proptest! {
    /// Any page, resumed at any position in any batch size, with user records dropped or not.
    #[test]
    fn k4_k5_k6_everything_after_what_is_done_comes_once_and_in_order(
        shape in proptest::collection::vec(0usize..6, 0..8),
        done: prop::sample::Index,
        most in 1usize..12,
        kept in prop::option::of(0u128..6),
        most_bytes in prop::sample::select(vec![1usize, 10, 12, 24, 40, usize::MAX]),
    ) {
        // All places of the page, and which of them are delivered.
        let places_of = |(number, users): (u64, &usize)| {
            (0..(*users).max(1) as u64).map(move |sub| (number, sub)).collect::<Vec<_>>()
        };
        let every: Vec<_> = (1..).zip(&shape).flat_map(places_of).collect();
        let cut = done.index(every.len() + 1);
        let done = match cut.checked_sub(1).map(|last| every[last]) {
            None => Position::TrimHorizon,
            Some((number, _)) if shape[usize::try_from(number).unwrap() - 1] == 0 => Position::after(sequence(number)),
            Some((number, sub)) => inside(number, sub),
        };
        let is_kept = |(number, sub): &&(u64, u64)| {
            let is_plain = shape[usize::try_from(*number).unwrap() - 1] == 0;
            is_plain || kept.is_none_or(|most| u128::from(*sub) <= most)
        };
        let expected: Vec<_> = every[cut..].iter().filter(is_kept).map(|(number, sub)| (sequence(*number), *sub)).collect();

        let selection = Selection { done, own: kept.map(|most| own(0..=most)), most, most_bytes };
        let mut delivered = Vec::new();
        let mut before = done;
        let mut last = None;
        for Batch { records, end } in batches(page_of(&shape), selection) {
            prop_assert!(records.len() <= most);
            let bytes: usize = records.iter().map(Record::payload_bytes).sum();
            prop_assert!(bytes <= most_bytes || records.len() == 1, "{} bytes", bytes);
            for record in &records {
                prop_assert!(before < record.position(), "K6");
                before = record.position();
            }
            prop_assert!(before.may_advance_to(&end) && done.may_advance_to(&end));
            last = Some(end);
            delivered.extend(places(&records));
        }
        prop_assert_eq!(delivered, expected);
        let page_end = shape.len() as u64;
        match last {
            Some(end) => prop_assert_eq!(end, Position::after(sequence(page_end))),
            None => prop_assert!(shape.is_empty() || done == Position::after(sequence(page_end))),
        }
    }
}

/// Goal: what was decoded before is not decoded again, and stays with its record when others are done or plain. Method: what is given as
/// decoded differs from what the data say.
#[test]
fn what_is_decoded_already_is_taken_as_it_is() {
    let stored = [user("stored", None)];
    let page = vec![
        aggregate(1, &stored),
        plain(2),
        aggregate(3, &stored),
        aggregate(4, &stored),
    ];
    let decoded = ["first", "second"].map(|text| Decoded::Aggregate(vec![user(text, None)]));
    let selection = all(Position::after(sequence(1)));
    let batches = Batches::of(page, decoded.to_vec(), selection);
    let data: Vec<_> = batches
        .flat_map(|batch| batch.records)
        .map(|record| record.data)
        .collect();
    assert_eq!(data, ["plain", "second", "stored"]);
}
