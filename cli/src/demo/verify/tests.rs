//! A checker that cannot fail proves nothing: every kind of damage must fail its own row.

use super::*;
use crate::demo::client::Receipt;
use crate::demo::input::{Line, ValueField};
use crate::demo::producer::Ledger;

/// A run in which everything went well, to be tampered with.
struct Run {
    input: Input,
    ledger: Ledger,
    rows: Vec<Row>,
    aggregates: BTreeMap<String, Aggregate>,
    events: Events,
}

fn receipt(ordinal: usize) -> Receipt {
    Receipt {
        shard: format!("shard-{}", ordinal % 2),
        sequence: (100 + ordinal).to_string(),
    }
}

fn row(input: &Input, ordinal: usize, receipt: Receipt) -> Row {
    let line = &input.lines[ordinal];
    Row {
        shard: receipt.shard,
        sequence: receipt.sequence,
        ordinal: i64::try_from(ordinal).unwrap(),
        key: line.key.clone(),
        fingerprint: fingerprint(&line.text),
    }
}

fn good() -> Run {
    let line = |ordinal: usize| Line {
        text: format!("x,{ordinal}"),
        key: format!("k{}", ordinal % 2),
    };
    let lines: Vec<Line> = (0..10).map(line).collect();
    let input = Input {
        name: "test".into(),
        lines,
        value: ValueField::Csv(1),
    };
    let rows = (0..10)
        .map(|ordinal| row(&input, ordinal, receipt(ordinal)))
        .collect();
    let receipts = (0..10).map(|ordinal| Some(receipt(ordinal))).collect();
    let aggregates = input.aggregates();
    let events = Events {
        takeovers_ms: vec![("shard-0".into(), Some(2_100)), ("shard-1".into(), None)],
        outage_ms: Some(800),
        split: Some(("shard-0".into(), vec!["shard-2".into(), "shard-3".into()])),
        bad_ends: Vec::new(),
    };
    Run {
        ledger: Ledger {
            receipts,
            ..Ledger::default()
        },
        input,
        rows,
        aggregates,
        events,
    }
}

/// The claims that do not hold.
fn failing(run: &Run) -> Vec<&'static str> {
    let evidence = Evidence {
        input: &run.input,
        ledger: &run.ledger,
        rows: &run.rows,
        aggregates: &run.aggregates,
        events: &run.events,
    };
    verdict(&evidence)
        .into_iter()
        .filter(|check| !check.holds)
        .map(|check| check.claim)
        .collect()
}

const PROCESSED: &str = "= records processed at least once";
const ACKNOWLEDGED: &str = "= records acknowledged";
const FOUND: &str = "= acknowledged sequence numbers found again";
const ALTERED: &str = "records altered or foreign";
const TWICE: &str = "stored twice without a put of unknown outcome";
const ORDER: &str = "records out of order within their key";
const AGGREGATES: &str = "keys whose aggregates equal the file's";

#[test]
fn a_good_run_holds_in_every_row() {
    assert_eq!(failing(&good()), [""; 0]);
}

#[test]
fn a_missing_record_fails() {
    let mut run = good();
    run.rows.remove(4);
    assert_eq!(failing(&run), [PROCESSED, FOUND]);
}

#[test]
fn a_record_that_was_not_acknowledged_fails() {
    let mut run = good();
    run.ledger.receipts[3] = None;
    assert_eq!(failing(&run), [ACKNOWLEDGED, FOUND]);
}

#[test]
fn an_acknowledged_copy_that_vanished_fails_although_the_line_was_processed() {
    let mut run = good();
    run.ledger.uncertain.insert(3);
    run.ledger.receipts[3] = Some(Receipt {
        shard: "shard-1".into(),
        sequence: "999".into(),
    });
    assert_eq!(failing(&run), [FOUND]);
}

#[test]
fn swapped_order_within_a_key_fails_and_across_keys_does_not() {
    let mut run = good();
    run.rows.swap(2, 4);
    assert_eq!(failing(&run), [ORDER]);
    let mut run = good();
    run.rows.swap(2, 3);
    assert_eq!(failing(&run), [""; 0]);
}

#[test]
fn wrong_missing_and_invented_aggregates_fail() {
    let mut run = good();
    run.aggregates.get_mut("k1").unwrap().sum += 1;
    assert_eq!(failing(&run), [AGGREGATES]);
    let mut run = good();
    run.aggregates.remove("k1");
    assert_eq!(failing(&run), [AGGREGATES]);
    let mut run = good();
    run.aggregates.insert("k9".into(), Aggregate::default());
    assert_eq!(failing(&run), [AGGREGATES]);
}

#[test]
fn altered_and_foreign_records_fail() {
    let mut run = good();
    run.rows[5].fingerprint += 1;
    assert_eq!(failing(&run), [ALTERED]);
    let mut run = good();
    run.rows[9].key = "k0".into();
    assert_eq!(failing(&run), [ALTERED]);
    let mut run = good();
    let foreign = Row {
        ordinal: 77,
        sequence: "500".into(),
        ..run.rows[0].clone()
    };
    run.rows.push(foreign);
    assert_eq!(failing(&run), [PROCESSED, ALTERED]);
}

#[test]
fn a_line_stored_twice_needs_a_put_of_unknown_outcome() {
    let mut run = good();
    let copy = Receipt {
        shard: "shard-0".into(),
        sequence: "200".into(),
    };
    let copy = row(&run.input, 4, copy);
    run.rows.push(copy);
    assert_eq!(
        failing(&run),
        [TWICE],
        "the late copy is no breach of order"
    );
    run.ledger.uncertain.insert(4);
    assert_eq!(failing(&run), [""; 0]);
}

#[test]
fn a_show_without_its_crashes_proves_nothing() {
    let mut run = good();
    run.events = Events {
        bad_ends: vec!["worker-1 ended with signal 11".into()],
        ..Events::default()
    };
    let expected = [
        "worker killed, its shards taken over",
        "server killed and back on its data",
        "shard split under way",
        "the others stopped cleanly",
    ];
    assert_eq!(failing(&run), expected);
}

#[test]
fn numbers_are_readable() {
    let texts: Vec<String> = [0, 999, 1_000, 26_115, 1_000_000].map(count).to_vec();
    assert_eq!(texts, ["0", "999", "1,000", "26,115", "1,000,000"]);
    assert_eq!(seconds(2_149), "2.1 s");
}
