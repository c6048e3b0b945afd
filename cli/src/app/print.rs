//! Reports as tables for people.

use kcl::ops::{LagReport, LeaseLine, LeaseReport, NoteLine, ResetReport, ShardState, span};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

/// Columns as wide as what is in them, two spaces apart; columns without anything in them are left out.
fn table(headers: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |row: &[String], column: usize| row.get(column).cloned().unwrap_or_default();
    let used = |column: &usize| rows.iter().any(|row| !cell(row, *column).is_empty());
    let columns: Vec<usize> = (0..headers.len()).filter(used).collect();
    let headers: Vec<String> = headers.iter().map(ToString::to_string).collect();
    let width = |column: usize| {
        let all = rows.iter().chain([&headers]);
        all.map(|row| cell(row, column).chars().count())
            .max()
            .unwrap_or(0)
    };
    let mut text = String::new();
    for row in [&headers].into_iter().chain(rows) {
        let line: Vec<String> = columns
            .iter()
            .map(|column| format!("{:width$}", cell(row, *column), width = width(*column)))
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn or_none(text: Option<&String>) -> String {
    text.cloned().unwrap_or_default()
}

pub(super) fn leases(report: &LeaseReport) -> String {
    let streams: BTreeSet<&str> = report
        .leases
        .iter()
        .map(|line| line.stream.as_str())
        .collect();
    let several = streams.len() > 1;
    let row = |line: &LeaseLine| {
        vec![
            if several {
                line.stream_name.clone()
            } else {
                String::new()
            },
            line.shard_id.clone(),
            line.owner
                .clone()
                .unwrap_or_else(|| if line.ended { "(ended)" } else { "(nobody)" }.to_owned()),
            or_none(line.owned_since.as_ref()),
            line.counter.to_string(),
            line.checkpoint_readable.clone(),
            or_none(line.wanted_by.as_ref()),
            line.parents.join(" "),
            share(line),
            line.owner_switches.to_string(),
        ]
    };
    let headers = [
        "STREAM",
        "SHARD",
        "OWNER",
        "SINCE",
        "COUNTER",
        "CHECKPOINT",
        "WANTED BY",
        "PARENTS",
        "HASH RANGE",
        "SWITCHES",
    ];
    let mut text = match report.leases.len() {
        0 => "no leases\n".to_owned(),
        _ => table(&headers, &report.leases.iter().map(row).collect::<Vec<_>>()),
    };
    for line in report.leases.iter().filter(|line| line.trouble.is_some()) {
        let _ = writeln!(
            text,
            "trouble in {}: {}",
            line.shard_id,
            or_none(line.trouble.as_ref())
        );
    }
    for key in &report.damaged {
        let _ = writeln!(
            text,
            "damaged row: {key}; nobody takes it until it is repaired or deleted"
        );
    }
    text.push('\n');
    text.push_str(&workers(report));
    text
}

fn workers(report: &LeaseReport) -> String {
    if report.workers.is_empty() {
        return "no workers\n".to_owned();
    }
    let row = |worker: &kcl::ops::WorkerLine| {
        vec![
            worker.worker_id.clone(),
            worker.last_heard(),
            span(Duration::from_millis(worker.failover_ms)),
            worker.leases.to_string(),
            worker
                .max_leases
                .map_or_else(String::new, |most| most.to_string()),
            worker.streams.join(" "),
        ]
    };
    let rows: Vec<Vec<String>> = report.workers.iter().map(row).collect();
    table(
        &[
            "WORKER",
            "LAST HEARD",
            "FAIL-OVER TIME",
            "LEASES",
            "AT MOST",
            "STREAMS",
        ],
        &rows,
    )
}

/// A shard's part of the hash key space, in percent of it.
fn share(line: &LeaseLine) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a tenth of a percent is shown")]
    let percent = |key: &Option<String>| {
        let key: u128 = key.as_ref()?.parse().ok()?;
        Some(key as f64 / u128::MAX as f64 * 100.0)
    };
    match (
        percent(&line.hash_range_start),
        percent(&line.hash_range_end),
    ) {
        (Some(start), Some(end)) => format!("{start:.1}-{end:.1} %"),
        _ => String::new(),
    }
}

pub(super) fn lag(report: &LagReport) -> String {
    let more = |count: u64, or_more: bool| match or_more {
        true => format!("{count} or more"),
        false => count.to_string(),
    };
    let behind = |ms: u64| match ms {
        0 => "-".to_owned(),
        ms => span(Duration::from_millis(ms)),
    };
    let rows: Vec<Vec<String>> = report
        .shards
        .iter()
        .map(|shard| {
            vec![
                shard.shard_id.clone(),
                match shard.state {
                    ShardState::Open => "open",
                    ShardState::Closed => "closed",
                    ShardState::NotListed => "not listed",
                }
                .to_owned(),
                or_none(shard.checkpoint_readable.as_ref()),
                shard.behind_ms.map_or_else(String::new, behind),
                shard
                    .records
                    .map_or_else(String::new, |records| more(records, shard.or_more)),
                or_none(shard.oldest.as_ref()),
                or_none(shard.note.as_ref()),
            ]
        })
        .collect();
    let headers = [
        "SHARD",
        "STATE",
        "CHECKPOINT",
        "BEHIND",
        "RECORDS",
        "NEXT RECORD ARRIVED",
        "NOTE",
    ];
    let mut text = table(&headers, &rows);
    let _ = write!(
        text,
        "in all: {} behind",
        match report.behind_ms {
            0 => "not".to_owned(),
            ms => span(Duration::from_millis(ms)),
        }
    );
    if report.shards.iter().any(|shard| shard.records.is_some()) {
        let _ = write!(text, ", {} records", more(report.records, report.or_more));
    }
    match report.not_judged {
        0 => text.push('\n'),
        count => {
            let _ = writeln!(
                text,
                "; {count} of {} shards could not be judged",
                report.shards.len()
            );
        }
    }
    text
}

fn changes(changes: &[kcl::ops::ChangeLine]) -> Vec<Vec<String>> {
    let row = |change: &kcl::ops::ChangeLine| {
        vec![
            change.shard_id.clone(),
            change.readable.clone(),
            or_none(change.taken_from.as_ref()),
        ]
    };
    changes.iter().map(row).collect()
}

pub(super) fn reset(report: &ResetReport) -> String {
    let mut text = match report.changes.len() {
        0 => String::new(),
        _ => table(
            &["SHARD", "CHECKPOINT", "TAKEN FROM"],
            &changes(&report.changes),
        ),
    };
    let count = match report.changes.len() {
        1 => "1 lease".to_owned(),
        count => format!("{count} leases"),
    };
    let verb = if report.done {
        "changed"
    } else {
        "would be changed, nothing was"
    };
    let _ = writeln!(
        text,
        "{}: {}; {count} {verb}",
        report.application, report.asked
    );
    if let Some(refusal) = &report.refusal {
        let _ = writeln!(text, "it would be refused: {refusal}");
    }
    text
}

pub(super) fn history(notes: &[NoteLine]) -> String {
    if notes.is_empty() {
        return "no resets".to_owned();
    }
    let mut text = String::new();
    for note in notes {
        let _ = writeln!(
            text,
            "{} {}: {} ({} leases)",
            note.at,
            note.by,
            note.asked,
            note.changes.len()
        );
        for line in table(
            &["SHARD", "CHECKPOINT", "TAKEN FROM"],
            &changes(&note.changes),
        )
        .lines()
        .skip(1)
        {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_what_is_in_it() {
        let row = |cells: &[&str]| cells.iter().map(ToString::to_string).collect::<Vec<_>>();
        let rows = [row(&["é", "", "x"]), row(&["long", "", ""])];
        let text = table(&["A", "UNUSED", "B"], &rows);
        assert_eq!(text, "A     B\né     x\nlong\n");
    }
}
