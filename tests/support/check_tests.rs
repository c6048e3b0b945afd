//! A checker that cannot fail proves nothing: each is given a sound history, then the same with one
//! thing wrong.

use super::*;

fn number(n: u64) -> Sequence {
    Sequence::new(&(1000 + n).to_string())
}

fn written(writer: &str, n: u64) -> Written {
    Written {
        writer: writer.to_owned(),
        n,
    }
}

fn record(writer: &str, n: u64, at: u64) -> ReadRecord {
    ReadRecord {
        written: written(writer, n),
        sequence: number(at),
    }
}

/// Writer `a` in a parent and its child, `b` in the parent only.
fn sound() -> (Vec<Acked>, Vec<ReadShard>) {
    let shards = vec![
        ReadShard {
            shard: "parent".into(),
            parents: vec![],
            closed: true,
            records: vec![record("a", 1, 1), record("b", 1, 2), record("a", 2, 3)],
        },
        ReadShard {
            shard: "child".into(),
            parents: vec!["parent".into()],
            closed: false,
            records: vec![record("a", 3, 10), record("a", 4, 11)],
        },
    ];
    let acked = shards
        .iter()
        .flat_map(|shard| {
            shard.records.iter().map(|record| Acked {
                written: record.written.clone(),
                shard: shard.shard.clone(),
                sequence: record.sequence.clone(),
            })
        })
        .collect();
    (acked, shards)
}

fn refused(verdict: Result<(), Violation>, guarantee: &str) {
    let violation = verdict.expect_err("the tampering went unnoticed");
    assert!(
        violation.starts_with(guarantee),
        "{guarantee} expected, got {violation}"
    );
}

#[test]
fn a_sound_stream_passes() {
    let (mut acked, shards) = sound();
    assert_eq!(stream_is_whole(&acked, &shards), Ok(()));
    // A put whose answer was lost may be there or not.
    acked.remove(2);
    assert_eq!(stream_is_whole(&acked, &shards), Ok(()));
}

#[test]
fn a_lost_record_is_noticed() {
    let (acked, mut shards) = sound();
    shards[0].records.remove(1);
    refused(stream_is_whole(&acked, &shards), "S1");
}

#[test]
fn a_doubled_record_is_noticed() {
    let (acked, mut shards) = sound();
    shards[1].records.push(record("a", 4, 12));
    refused(stream_is_whole(&acked, &shards), "S3");
}

#[test]
fn a_record_under_another_number_is_noticed() {
    let (acked, mut shards) = sound();
    shards[1].records[1].sequence = number(12);
    refused(stream_is_whole(&acked, &shards), "S1");
}

#[test]
fn records_out_of_order_are_noticed() {
    let (acked, mut shards) = sound();
    shards[0].records.swap(0, 1);
    refused(stream_is_whole(&acked, &shards), "S2");
}

#[test]
fn a_writers_records_in_the_wrong_order_are_noticed() {
    let (_, mut shards) = sound();
    shards[1].records[0].written.n = 4;
    shards[1].records[1].written.n = 3;
    refused(stream_is_whole(&[], &shards), "S2");
}

#[test]
fn a_reused_number_is_noticed() {
    let (_, mut shards) = sound();
    shards[1].records[1].sequence = number(10);
    refused(stream_is_whole(&[], &shards), "S2");
}

#[test]
fn a_child_below_its_parent_is_noticed() {
    let (_, mut shards) = sound();
    shards[1].records[0].sequence = number(2);
    refused(stream_is_whole(&[], &shards), "S2");
}

#[test]
fn a_later_reading_must_extend_the_earlier() {
    let (_, before) = sound();
    let mut after = before.clone();
    after[1].records.push(record("a", 5, 12));
    assert_eq!(extends(&before, &after), Ok(()));
    refused(extends(&after, &before), "S1");

    let mut gone = before.clone();
    gone.remove(1);
    refused(extends(&before, &gone), "S1");

    let mut replaced = before.clone();
    replaced[1].records[1] = record("c", 1, 11);
    refused(extends(&before, &replaced), "S1");

    let mut reopened = before.clone();
    reopened[0].closed = false;
    refused(extends(&before, &reopened), "S5");

    let mut appended = before.clone();
    appended[0].records.push(record("b", 2, 4));
    refused(extends(&before, &appended), "S5");
}

#[test]
fn ranges_must_tile() {
    let max = u128::MAX;
    assert_eq!(tiles(&[(0, max)]), Ok(()));
    assert_eq!(tiles(&[(8, max), (0, 7)]), Ok(()));
    for wrong in [
        vec![],
        vec![(1, max)],
        vec![(0, max - 1)],
        vec![(0, 7), (9, max)],
        vec![(0, 7), (7, max)],
        vec![(0, max), (0, max)],
        vec![(0, max), (5, 5)],
    ] {
        refused(tiles(&wrong), "S4");
    }
}

#[test]
fn a_tailing_reader_must_see_all() {
    let (_, shards) = sound();
    let whole = &shards[0].records;
    assert_eq!(saw_all(whole, whole), Ok(()));
    refused(saw_all(whole, &whole[..2]), "S3");
    refused(saw_all(&whole[..2], whole), "S3");
    let gap = [whole[0].clone(), whole[2].clone()];
    refused(saw_all(whole, &gap), "S3");
}

fn event(at_us: u64, worker: &str, kind: EventKind) -> Event {
    Event {
        at_us,
        worker: worker.to_owned(),
        kind,
    }
}

fn initialized(at_us: u64, worker: &str, shard: &str) -> Event {
    event(
        at_us,
        worker,
        EventKind::Initialized {
            shard: shard.into(),
        },
    )
}

fn delivered(at_us: u64, worker: &str, shard: &str, numbers: &[u64]) -> Event {
    let sequences = numbers.iter().map(|n| number(*n)).collect();
    event(
        at_us,
        worker,
        EventKind::Delivered {
            shard: shard.into(),
            sequences,
        },
    )
}

fn checkpointed(at_us: u64, worker: &str, shard: &str) -> Event {
    event(
        at_us,
        worker,
        EventKind::Checkpointed {
            shard: shard.into(),
        },
    )
}

fn place(shard: &str, n: u64) -> Place {
    (shard.to_owned(), number(n))
}

/// Worker `a` dies with records 3 and 4 outstanding; `b` gets them again and goes on.
fn takeover() -> Vec<Event> {
    vec![
        initialized(1, "a", "s"),
        delivered(2, "a", "s", &[1, 2]),
        checkpointed(3, "a", "s"),
        delivered(4, "a", "s", &[3, 4]),
        initialized(5, "b", "s"),
        delivered(6, "b", "s", &[3, 4, 5]),
        checkpointed(7, "b", "s"),
    ]
}

#[test]
fn lost_and_invented_deliveries_are_noticed() {
    let expected: BTreeSet<Place> = (1..=5).map(|n| place("s", n)).collect();
    let events = takeover();
    let counts = crate::history::deliveries(&events);
    assert_eq!(all_delivered(&expected, &counts), Ok(()));
    let fewer = crate::history::deliveries(&events[..5]);
    refused(all_delivered(&expected, &fewer), "K4");
    let mut other = expected.clone();
    other.remove(&place("s", 2));
    refused(all_delivered(&other, &counts), "K4");
}

#[test]
fn duplicates_beyond_what_was_outstanding_are_noticed() {
    let events = takeover();
    let open = crate::history::outstanding(&events[..4], "a");
    assert_eq!(open, [place("s", 3), place("s", 4)].into());
    let counts = crate::history::deliveries(&events);
    assert_eq!(
        duplicates_bounded(&counts, std::slice::from_ref(&open)),
        Ok(())
    );
    refused(duplicates_bounded(&counts, &[]), "K5");

    let mut again = events;
    again.push(delivered(8, "c", "s", &[3]));
    refused(
        duplicates_bounded(&crate::history::deliveries(&again), &[open]),
        "K5",
    );
}

#[test]
fn disorder_within_a_tenure_is_noticed() {
    let none = BTreeMap::new();
    assert_eq!(order_kept(&takeover(), &none), Ok(()));
    let mut events = takeover();
    events.push(delivered(8, "b", "s", &[5]));
    refused(order_kept(&events, &none), "K6");
}

#[test]
fn a_child_before_its_parents_ended_is_noticed() {
    let parents = BTreeMap::from([("child".to_owned(), vec!["s".to_owned()])]);
    let mut events = takeover();
    events.push(delivered(9, "b", "child", &[20]));
    refused(order_kept(&events, &parents), "K6");
    events.insert(7, event(8, "b", EventKind::Ended { shard: "s".into() }));
    assert_eq!(order_kept(&events, &parents), Ok(()));
}

#[test]
fn an_old_holder_that_goes_on_is_noticed() {
    let mut events = takeover();
    events.push(delivered(8, "a", "s", &[5]));
    assert_eq!(one_owner(&events), Ok(()), "one batch may be in flight");
    let mut second = events.clone();
    second.push(delivered(9, "a", "s", &[6]));
    refused(one_owner(&second), "K2");
    let mut checkpoints = events.clone();
    checkpoints.push(checkpointed(9, "a", "s"));
    refused(one_owner(&checkpoints), "K1");
    events.extend([
        initialized(9, "a", "s"),
        delivered(10, "a", "s", &[6]),
        checkpointed(11, "a", "s"),
    ]);
    assert_eq!(one_owner(&events), Ok(()), "a new tenure is its own");
}
