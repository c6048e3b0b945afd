//! `millstream check` and `millstream repair`: an operator's look at a data directory that nobody serves. Everything is done by
//! [`millstream_server::offline`]; here it is asked for and printed.

use crate::{Failure, Output, clock};
use clap::Args;
use millstream_server::offline::{self, Damage, LostRecords, OfflineError, Repair, Report};
use serde::Serialize;
use std::fmt::{Display, Write};
use std::path::PathBuf;

/// What `check --help` says after the flags.
pub(crate) const AFTER_CHECK: &str = "\
Stop the server first: a directory that is served is refused. Everything is read, nothing is changed.
Exit codes: 0 sound, 1 damaged, 2 it could not be checked (in use, no data directory, written by a newer version, unreadable).";

/// What `repair --help` says after the flags.
pub(crate) const AFTER_REPAIR: &str = "\
Without --drop-damaged it says what it would do and changes nothing. With it, every file that changes is kept in a new folder first.
Exit codes: 0 nothing to do, or done; 1 there is something to do, or something that cannot be repaired; 2 it could not be done.";

/// Findings that are printed; all of them are in the output for scripts.
const SHOWN: usize = 100;

/// What `check` is asked.
#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// The data directory.
    directory: PathBuf,
    /// How it is printed.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What `repair` is asked.
#[derive(Debug, Args)]
pub(crate) struct RepairArguments {
    /// The data directory.
    directory: PathBuf,
    /// Do it: go on without the records that are damaged.
    #[arg(long)]
    drop_damaged: bool,
    /// New folder for the files as they were, on the same file system if there is no room for copies [default: DIRECTORY.before-repair].
    #[arg(long, value_name = "FOLDER")]
    copy_to: Option<PathBuf>,
    /// How it is printed.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Serialize)]
struct Timed<'a, T> {
    #[serde(flatten)]
    said: &'a T,
    milliseconds: u64,
}

/// Checks a directory.
pub(crate) fn check(arguments: &CheckArguments) -> Result<(), Failure> {
    let began_ms = clock::unix_ms();
    let report = offline::check(&arguments.directory).map_err(|error| impossible(&error))?;
    let took_ms = clock::unix_ms().saturating_sub(began_ms);
    say(arguments.output, &report, took_ms, || {
        found(&report) + &summary(&report, took_ms)
    })?;
    if report.sound {
        return Ok(());
    }
    let directory = arguments.directory.display();
    Err(Failure::runtime(format_args!(
        "{directory} is damaged; `millstream repair {directory}` says what can be done"
    )))
}

/// Repairs a directory, or says what that would do.
pub(crate) fn repair(arguments: &RepairArguments) -> Result<(), Failure> {
    let began_ms = clock::unix_ms();
    let (directory, copy_to) = (&arguments.directory, arguments.copy_to.as_deref());
    let repair = if arguments.drop_damaged {
        offline::repair(directory, copy_to)
    } else {
        offline::plan(directory, copy_to)
    };
    let repair = repair.map_err(|error| impossible(&error))?;
    let took_ms = clock::unix_ms().saturating_sub(began_ms);
    say(arguments.output, &repair, took_ms, || {
        found(&repair.report) + &planned(&repair) + &summary(&repair.report, took_ms)
    })?;
    let directory = directory.display();
    match &repair.report {
        report if report.sound || repair.done => Ok(()),
        report if report.beyond_repair => Err(Failure::runtime(format_args!(
            "{directory} cannot be repaired as it is, see above; nothing was changed"
        ))),
        _ => Err(Failure::runtime(
            "nothing was changed; --drop-damaged does what is said above",
        )),
    }
}

fn impossible(error: &OfflineError) -> Failure {
    Failure::usage(error)
}

fn say<T: Serialize>(
    output: Output,
    said: &T,
    milliseconds: u64,
    table: impl Fn() -> String,
) -> Result<(), Failure> {
    let text = match output {
        Output::Table => table(),
        Output::Json => {
            let timed = Timed { said, milliseconds };
            serde_json::to_string_pretty(&timed).map_err(Failure::runtime)?
        }
    };
    let mut out = std::io::stdout().lock();
    // Whoever reads may have gone; what was asked is done.
    let _ = std::io::Write::write_all(&mut out, format!("{}\n", text.trim_end()).as_bytes());
    Ok(())
}

/// A number and its noun.
fn count(number: impl Into<u64>, noun: &str) -> String {
    match number.into() {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    }
}

fn found(report: &Report) -> String {
    let mut text = String::new();
    for damage in report.findings.iter().take(SHOWN) {
        text.push_str(&one(damage));
    }
    let more = report.findings.len().saturating_sub(SHOWN);
    let more = u64::try_from(more)
        .unwrap_or(u64::MAX)
        .saturating_add(report.more_findings);
    if more > 0 {
        let _ = writeln!(text, "and {} more\n", count(more, "finding"));
    }
    for note in &report.notes {
        let _ = writeln!(
            text,
            "no damage: {} at byte {}: {}",
            note.file, note.offset, note.text
        );
    }
    text
}

fn one(damage: &Damage) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} at byte {}: {}",
        damage.file, damage.offset, damage.problem
    );
    let mut lines = damage.lost.iter().map(lost).collect::<Vec<_>>();
    if damage.more_may_be_lost {
        lines.push("other records that were put at that time cannot be excluded".to_owned());
    }
    if damage.changes != "kept" {
        lines.push(format!(
            "changes of streams, shards or settings {} with it",
            damage.changes
        ));
    }
    if lines.is_empty() {
        lines.push("nothing".to_owned());
    }
    for line in lines.iter().take(SHOWN) {
        let _ = writeln!(text, "  lost: {line}");
    }
    if lines.len() > SHOWN {
        let _ = writeln!(text, "  lost: and of {} more shards", lines.len() - SHOWN);
    }
    let _ = writeln!(text, "  do:   {}\n", damage.remedy);
    text
}

fn lost(lost: &LostRecords) -> String {
    let whose = match (&lost.stream, &lost.shard) {
        (Some(stream), Some(shard)) => format!("{stream} {shard}"),
        _ => format!(
            "a shard whose stream is not known (number {} in the log)",
            lost.log_shard
        ),
    };
    let how_many: &dyn Display = match &lost.records {
        Some(records) => &count(*records, "record"),
        None => &"whatever records there were",
    };
    let last = lost.end.saturating_sub(1);
    let mut text = format!("{whose}: {how_many}, counters {} to {last}", lost.first);
    if let (Some(from), Some(before)) = (&lost.from_sequence, &lost.before_sequence) {
        let _ = write!(text, ", sequence numbers from {from} to below {before}");
    }
    text
}

fn planned(repair: &Repair) -> String {
    let mut text = String::new();
    let verb = if repair.done { "is" } else { "would be" };
    for line in &repair.report.plan {
        let _ = writeln!(text, "{} {verb} {}", line.file, line.step);
    }
    if !repair.report.plan.is_empty() {
        let kept = repair.kept_in.display();
        let _ = writeln!(
            text,
            "files as they were {} in {kept}",
            if repair.done { "are" } else { "would be kept" }
        );
    }
    text
}

fn summary(report: &Report, took_ms: u64) -> String {
    let findings = u64::try_from(report.findings.len()).unwrap_or(u64::MAX);
    let verdict = match findings.saturating_add(report.more_findings) {
        0 => "sound".to_owned(),
        found => count(found, "finding"),
    };
    let streams = u64::try_from(report.streams).unwrap_or(u64::MAX);
    format!(
        "{}: {verdict}; {} ({} of them rewritten), {}, {}, {}, {}, {} bytes, {}.{:03} s\n",
        report.directory.display(),
        count(report.segments, "segment"),
        report.rewritten,
        count(streams, "stream"),
        count(report.shards, "shard"),
        count(report.records, "record"),
        count(report.transactions, "transaction"),
        report.bytes,
        took_ms / 1_000,
        took_ms % 1_000,
    )
}
