//! The proof: from what went in and what came out to a verdict. Pure, so that tests can tamper with the evidence.

use crate::demo::aggregate::Aggregate;
use crate::demo::input::{Input, fingerprint};
use crate::demo::producer::Ledger;
use crate::demo::results::Row;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Everything that the verdict rests on.
#[derive(Debug)]
pub(crate) struct Evidence<'a> {
    /// The file.
    pub(crate) input: &'a Input,
    /// What the producer was told.
    pub(crate) ledger: &'a Ledger,
    /// What the workers processed, in order of processing.
    pub(crate) rows: &'a [Row],
    /// What the workers computed.
    pub(crate) aggregates: &'a BTreeMap<String, Aggregate>,
    /// What happened on the way.
    pub(crate) events: &'a Events,
}

/// What happened on the way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Events {
    /// The shards of the killed worker, each with the time until another worker got something done on it.
    pub(crate) takeovers_ms: Vec<(String, Option<u64>)>,
    /// How long the server was away.
    pub(crate) outage_ms: Option<u64>,
    /// The shard that was split and its children.
    pub(crate) split: Option<(String, Vec<String>)>,
    /// Processes that ended in another way than they were meant to.
    pub(crate) bad_ends: Vec<String>,
}

/// One row of the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// What is claimed.
    pub(crate) claim: &'static str,
    /// What was found.
    pub(crate) found: String,
    /// Whether the claim holds.
    pub(crate) holds: bool,
}

/// Every claim, whether it holds or not.
pub(crate) fn verdict(evidence: &Evidence<'_>) -> Vec<Check> {
    let mut checks = records(evidence);
    checks.extend(duplicates(evidence));
    checks.push(order(evidence));
    checks.push(aggregates(evidence));
    checks.extend(events(evidence.events));
    checks
}

fn check(claim: &'static str, found: String, holds: bool) -> Check {
    Check {
        claim,
        found,
        holds,
    }
}

/// Nothing lost, nothing changed, nothing invented.
fn records(evidence: &Evidence<'_>) -> Vec<Check> {
    let lines = &evidence.input.lines;
    let receipts = &evidence.ledger.receipts;
    let acknowledged = receipts.iter().flatten().count();
    let stored: HashMap<(&str, &str), i64> = evidence
        .rows
        .iter()
        .map(|row| ((row.shard.as_str(), row.sequence.as_str()), row.ordinal))
        .collect();
    let kept = receipts.iter().enumerate().filter(|(ordinal, receipt)| {
        receipt.as_ref().is_some_and(|receipt| {
            let found = stored.get(&(receipt.shard.as_str(), receipt.sequence.as_str()));
            found.is_some_and(|&found| usize::try_from(found) == Ok(*ordinal))
        })
    });
    let kept = kept.count();
    let processed: HashSet<i64> = evidence.rows.iter().map(|row| row.ordinal).collect();
    let altered = evidence.rows.iter().filter(|row| {
        let line = usize::try_from(row.ordinal)
            .ok()
            .and_then(|ordinal| lines.get(ordinal));
        line.is_none_or(|line| line.key != row.key || fingerprint(&line.text) != row.fingerprint)
    });
    let altered = altered.count();
    vec![
        check("records in the file", count(lines.len()), !lines.is_empty()),
        check(
            "= records acknowledged",
            count(acknowledged),
            acknowledged == lines.len() && receipts.len() == lines.len(),
        ),
        check(
            "= records processed at least once",
            count(processed.len()),
            processed.len() == lines.len(),
        ),
        check(
            "= acknowledged sequence numbers found again",
            count(kept),
            kept == lines.len(),
        ),
        check("records altered or foreign", count(altered), altered == 0),
    ]
}

/// Every record that is stored more than once has a reason.
fn duplicates(evidence: &Evidence<'_>) -> Vec<Check> {
    let mut copies: HashMap<i64, usize> = HashMap::new();
    for row in evidence.rows {
        *copies.entry(row.ordinal).or_default() += 1;
    }
    let twice: Vec<i64> = copies
        .into_iter()
        .filter(|(_, n)| *n > 1)
        .map(|(line, _)| line)
        .collect();
    let unexplained = twice.iter().filter(|&&ordinal| {
        usize::try_from(ordinal).map_or(true, |line| !evidence.ledger.uncertain.contains(&line))
    });
    let unexplained = unexplained.count();
    let put_again = evidence.ledger.uncertain.len();
    vec![check(
        "stored twice without a put of unknown outcome",
        format!(
            "{} (put again {}, stored twice {})",
            count(unexplained),
            count(put_again),
            count(twice.len())
        ),
        unexplained == 0,
    )]
}

/// The first processing of each line of a key comes after that of every earlier line of the key.
fn order(evidence: &Evidence<'_>) -> Check {
    let mut seen: HashSet<i64> = HashSet::new();
    let mut latest: HashMap<&str, i64> = HashMap::new();
    let mut violations = 0;
    for row in evidence.rows.iter().filter(|row| seen.insert(row.ordinal)) {
        let latest = latest.entry(&row.key).or_insert(-1);
        if row.ordinal < *latest {
            violations += 1;
        } else {
            *latest = row.ordinal;
        }
    }
    check(
        "records out of order within their key",
        count(violations),
        violations == 0,
    )
}

/// What the workers computed is what the file says.
fn aggregates(evidence: &Evidence<'_>) -> Check {
    let direct = evidence.input.aggregates();
    let same = direct
        .iter()
        .filter(|(key, direct)| evidence.aggregates.get(*key) == Some(*direct));
    let same = same.count();
    check(
        "keys whose aggregates equal the file's",
        format!("{} of {}", count(same), count(direct.len())),
        same == direct.len() && evidence.aggregates.len() == direct.len(),
    )
}

/// What should have gone wrong did, and nothing else.
fn events(events: &Events) -> Vec<Check> {
    let taken: Vec<u64> = events
        .takeovers_ms
        .iter()
        .filter_map(|(_, ms)| *ms)
        .collect();
    let worker = match taken.iter().max() {
        Some(slowest) => {
            format!(
                "{} of {} shards, at most {}",
                taken.len(),
                events.takeovers_ms.len(),
                seconds(*slowest)
            )
        }
        None => "no shard".to_owned(),
    };
    let outage = events
        .outage_ms
        .map_or("no".to_owned(), |ms| format!("after {}", seconds(ms)));
    let split = match &events.split {
        Some((parent, children)) => format!("{parent} -> {}", children.join(", ")),
        None => "no".to_owned(),
    };
    let split_whole = events
        .split
        .as_ref()
        .is_some_and(|(_, children)| children.len() == 2);
    let ends = match events.bad_ends.as_slice() {
        [] => "yes".to_owned(),
        bad => bad.join("; "),
    };
    vec![
        check(
            "worker killed, its shards taken over",
            worker,
            !taken.is_empty(),
        ),
        check(
            "server killed and back on its data",
            outage,
            events.outage_ms.is_some(),
        ),
        check("shard split under way", split, split_whole),
        check(
            "the others stopped cleanly",
            ends,
            events.bad_ends.is_empty(),
        ),
    ]
}

/// A number with thousands apart.
pub(crate) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time in seconds, to a tenth.
pub(crate) fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

#[cfg(test)]
mod tests;
