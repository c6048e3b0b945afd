//! The table of operations: what was seen, and why the rest was not. A documented error is seen, or one of the
//! reasons here covers it; never both.

use super::stage::{SUCCESS, Seen, short};
use crate::model::Model;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Operations that are known and refused.
pub(crate) const NOT_SUPPORTED: [&str; 17] = [
    "AcknowledgeDeadLetterQueueRecords",
    "AcknowledgeQueueRecords",
    "CreateChannel",
    "CreateQueue",
    "DeleteChannel",
    "DeleteQueue",
    "DescribeChannel",
    "DescribeQueue",
    "ListChannels",
    "ListQueues",
    "ReceiveDeadLetterQueueRecords",
    "ReceiveQueueRecords",
    "RestoreDeadLetterQueueRecords",
    "UpdateChannel",
    "UpdateDeadLetterQueueRecordsVisibility",
    "UpdateQueue",
    "UpdateQueueRecordsVisibility",
];

/// What there is to say about operations that are served with a reservation.
const STATUS: &[(&str, &str)] = &[
    ("DisableEnhancedMonitoring", "served as a setting"),
    (
        "EnableEnhancedMonitoring",
        "served as a setting: no metrics are sent anywhere",
    ),
    (
        "PutResourcePolicy",
        "served as a setting: the policy is kept, not enforced",
    ),
    (
        "StartStreamEncryption",
        "served as a setting: nothing is encrypted, see below",
    ),
    ("StopStreamEncryption", "served as a setting"),
];

/// Why errors that are documented are not produced.
struct Absent {
    why: &'static str,
    /// Which operations; none means all.
    operations: &'static [&'static str],
    /// Which errors, without `Exception`; `KMS` stands for the six of that service. None means all.
    errors: &'static [&'static str],
}

/// The reasons, numbered from 1 in the table. The first that covers an error is given.
const ABSENT: &[Absent] = &[
    Absent {
        why: "Channels and queues: nothing is looked for, and nothing is there to be found.",
        operations: &NOT_SUPPORTED,
        errors: &[],
    },
    Absent {
        why: "There is no authorisation: whoever reaches the port may do everything.",
        operations: &[],
        errors: &["AccessDenied"],
    },
    Absent {
        why: "There is no service of keys: encryption is a setting.",
        operations: &[],
        errors: &["KMS"],
    },
    Absent {
        why: "Nothing that a client sends makes the server fail. If it does, the code is \
            `InternalFailure` with status 500.",
        operations: &[],
        errors: &["InternalFailure"],
    },
    Absent {
        why: "AWS names no limit that the operation has.",
        operations: &[
            "ListTagsForResource",
            "TagResource",
            "UntagResource",
            "UpdateMaxRecordSize",
            "UpdateStreamRecordDistributionStrategy",
        ],
        errors: &["LimitExceeded"],
    },
    Absent {
        why: "What is asked for can be read in every state.",
        operations: &["GetResourcePolicy", "ListTagsForResource"],
        errors: &["ResourceInUse"],
    },
    Absent {
        why: "Both statuses can be asked for at any time.",
        operations: &["UpdateAccountSettings"],
        errors: &["InvalidArgument"],
    },
];

impl Absent {
    fn covers(&self, operation: &str, error: &str) -> bool {
        let among = |named: &[&str], name: &str| named.is_empty() || named.contains(&name);
        among(self.operations, operation) && among(self.errors, family(error))
    }
}

/// An error, or the service whose errors are named together.
fn family(error: &str) -> &str {
    if error.starts_with("KMS") {
        "KMS"
    } else {
        error
    }
}

/// The reason that covers an error, and its number: reasons of the same words have one.
fn reason(operation: &str, error: &str) -> Option<(&'static Absent, usize)> {
    let mut absents = ABSENT.iter();
    let absent = absents.find(|absent| absent.covers(operation, error))?;
    let reasons = reasons();
    let at = reasons.iter().position(|why| *why == absent.why)?;
    Some((absent, at + 1))
}

fn reasons() -> Vec<&'static str> {
    distinct(ABSENT.iter().map(|absent| absent.why))
}

fn distinct<'t>(texts: impl Iterator<Item = &'t str>) -> Vec<&'t str> {
    let mut found = Vec::new();
    for text in texts {
        if !found.contains(&text) {
            found.push(text);
        }
    }
    found
}

fn outcomes<'s>(seen: &'s Seen, operation: &str) -> BTreeSet<&'s str> {
    let outcomes = seen.outcomes.get(operation).into_iter().flatten();
    outcomes.map(String::as_str).collect()
}

/// The errors documented for an operation, without `Exception`.
fn documented<'m>(model: &'m Model, operation: &str) -> Vec<&'m str> {
    let errors = model.errors(operation).into_iter();
    errors.map(short).collect()
}

/// What is neither shown nor explained, or both, or shown and not documented.
pub(crate) fn check(model: &Model, seen: &Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for operation in model.operations() {
        let outcomes = outcomes(seen, &operation);
        let documented = documented(model, &operation);
        for error in &documented {
            let absent = ABSENT
                .iter()
                .position(|absent| absent.covers(&operation, error));
            match (outcomes.contains(error), absent) {
                (true, None) => {}
                (false, Some(reason)) => {
                    used.insert(reason);
                }
                (false, None) => wrong.push(format!("{operation}: {error} is not shown")),
                // A reason for all errors is for those that are not shown.
                (true, Some(reason)) if ABSENT[reason].errors.is_empty() => {}
                (true, Some(_)) => wrong.push(format!("{operation}: {error} is shown after all")),
            }
        }
        for outcome in &outcomes {
            if ![SUCCESS, "Validation"].contains(outcome) && !documented.contains(outcome) {
                wrong.push(format!("{operation}: {outcome} is not documented"));
            }
        }
        let served = !NOT_SUPPORTED.contains(&operation.as_str());
        if served != outcomes.contains(SUCCESS) {
            wrong.push(format!(
                "{operation} is served: {served}; shown: {outcomes:?}"
            ));
        }
        let checked = !model.members(model.input(&operation)).is_empty();
        if checked != outcomes.contains("Validation") {
            wrong.push(format!(
                "{operation} has members: {checked}; shown: {outcomes:?}"
            ));
        }
    }
    let unused = (0..ABSENT.len()).filter(|at| !used.contains(at));
    wrong.extend(unused.map(|at| format!("the reason is not needed: {}", ABSENT[at].why)));
    wrong
}

/// The tables and the reasons, for README.
pub(crate) fn write(model: &Model, seen: &Seen) -> String {
    let rows = |served: bool| -> Vec<String> {
        let operations = model.operations().into_iter();
        let such = operations.filter(|name| served != NOT_SUPPORTED.contains(&name.as_str()));
        such.map(|operation| row(model, seen, &operation)).collect()
    };
    let head = "| operation | status | shown by the suite | not produced |\n|---|---|---|---|";
    let mut text = format!("{head}\n{}\n\n", rows(true).join("\n"));
    text += "These are known and refused: the request is checked, then answered with \
        `InvalidArgumentException`.\n\n";
    write!(text, "{head}\n{}\n\n", rows(false).join("\n")).unwrap();
    text += "Errors are named without `Exception`, and *validation* is `ValidationException`. PutRecords says \
        record by record that throughput is exceeded. Why a documented error is not produced:\n\n";
    for (number, why) in (1..).zip(reasons()) {
        writeln!(text, "{number}. {why}").unwrap();
    }
    text
}

fn row(model: &Model, seen: &Seen, operation: &str) -> String {
    let status = STATUS.iter().find(|(name, _)| *name == operation);
    let status = match status {
        Some((_, status)) => status,
        None if NOT_SUPPORTED.contains(&operation) => "not supported",
        None => "served",
    };
    let outcomes = outcomes(seen, operation);
    let errors = outcomes
        .iter()
        .filter(|o| ![SUCCESS, "Validation"].contains(o));
    let first = [(SUCCESS, SUCCESS), ("Validation", "validation")];
    let first = first
        .into_iter()
        .filter(|(outcome, _)| outcomes.contains(outcome));
    let shown: Vec<&str> = first.map(|(_, name)| name).chain(errors.copied()).collect();
    let missing = missing(model, &outcomes, operation);
    format!(
        "| {operation} | {status} | {} | {missing} |",
        shown.join(", ")
    )
}

/// The errors that are not produced, each with the number of its reason.
fn missing(model: &Model, outcomes: &BTreeSet<&str>, operation: &str) -> String {
    let mut missing = documented(model, operation);
    missing.retain(|error| !outcomes.contains(error));
    missing.sort_unstable();
    let numbered = missing.into_iter().map(|error| {
        let (absent, number) = reason(operation, error).expect("checked before");
        match absent.errors {
            [] => format!("all others ({number})"),
            _ => format!("{} ({number})", family(error)),
        }
    });
    let numbered: Vec<String> = numbered.collect();
    distinct(numbered.iter().map(String::as_str)).join(", ")
}
