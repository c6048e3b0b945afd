//! The walk through the outputs: every answer that the scenarios got is what the model says, member by member,
//! and every member that the model documents was in one of them, in JSON as in CBOR.
//!
//! What is present where, and absent elsewhere, is compared where the scenarios are: an answer there fits its
//! pattern exactly. Here are the types and constraints, no `null`, and nothing undocumented.

use crate::exchange::Encoding;
use crate::model::Model;
use crate::operations::{self, NOT_SUPPORTED, Seen};
use regex::Regex;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use support::client::{decode_base64, encode_base64};

/// Members that no answer has, by the beginning of their path, and why.
const NEVER: &[(&str, &str)] = &[
    (
        "SubscribeToShard.EventStream.KMS",
        "there is no service of keys: encryption is a setting",
    ),
    (
        "SubscribeToShard.EventStream.InternalFailureException",
        "nothing that a client sends makes the server fail",
    ),
];

/// Answers that leave the model, as AWS does.
const AS_ON_AWS: &[(&str, &str)] = &[
    // A positive integer in the model, and 0 when every record is taken.
    ("PutRecords.FailedRecordCount", "0 is less than 1"),
    // A list of one to seven metrics in the model, and an empty one when there are none.
    (".ShardLevelMetrics", "0 is less than 1"),
    (".CurrentShardLevelMetrics", "0 is less than 1"),
    (".DesiredShardLevelMetrics", "0 is less than 1"),
    // Required in the model, and the sign of a shard's end when it is not there.
    (".ContinuationSequenceNumber", "is missing"),
];

/// What a walk has found.
#[derive(Default)]
struct Walk {
    /// What is not as the model says.
    wrong: BTreeSet<String>,
    /// Paths of members that were there.
    present: BTreeSet<String>,
    /// The milliseconds of every time, by its path.
    times: BTreeMap<String, BTreeSet<u64>>,
    patterns: BTreeMap<String, Regex>,
}

impl Walk {
    fn of(model: &Model, seen: &Seen) -> Walk {
        let mut walk = Walk::default();
        for (operation, answer) in &seen.answers {
            match model.output(operation) {
                Some(shape) => walk.value(model, shape, operation, answer),
                None => assert!(answer.is_null(), "{operation} has no output: {answer}"),
            }
        }
        walk
    }

    fn complain(&mut self, path: &str, what: impl Into<String>) {
        let what = what.into();
        let known = |(end, allowed): &(&str, &str)| path.ends_with(end) && what.contains(allowed);
        if !AS_ON_AWS.iter().any(known) {
            self.wrong.insert(format!("{path} {what}"));
        }
    }

    fn value(&mut self, model: &Model, shape: &Value, path: &str, value: &Value) {
        match (shape["type"].as_str().unwrap(), value) {
            ("structure", Value::Object(_)) => self.structure(model, shape, path, value),
            ("list", Value::Array(items)) => {
                self.size(shape, path, items.len());
                for item in items {
                    self.value(model, model.item(shape), &format!("{path}[]"), item);
                }
            }
            ("string", Value::String(text)) => self.text(shape, path, text),
            ("blob", Value::String(text)) => {
                let bytes = decode_base64(text);
                if encode_base64(&bytes) != *text {
                    self.complain(path, "is not Base64 with its padding");
                }
                self.size(shape, path, bytes.len());
            }
            ("boolean", Value::Bool(_)) => {}
            ("integer" | "long", Value::Number(number)) if number.is_i64() || number.is_u64() => {
                self.bounds(shape, path, number.as_i64().unwrap_or(i64::MAX));
            }
            ("timestamp", Value::Number(seconds)) => {
                let seconds = seconds.as_f64().unwrap();
                if !(1_500_000_000.0..5_000_000_000.0).contains(&seconds) {
                    self.complain(path, format!("is {seconds}, which is no time of today"));
                }
                #[expect(
                    clippy::cast_sign_loss,
                    clippy::cast_possible_truncation,
                    reason = "it is"
                )]
                let millis = (seconds * 1_000.0).round() as u64;
                self.times
                    .entry(path.to_owned())
                    .or_default()
                    .insert(millis);
            }
            (kind, value) => {
                self.complain(path, format!("is {value}, where the model has a {kind}"));
            }
        }
    }

    fn structure(&mut self, model: &Model, shape: &Value, path: &str, value: &Value) {
        let members = model.members(shape);
        let found = value.as_object().unwrap();
        for name in found.keys() {
            if !members.iter().any(|(known, _, _)| known == name) {
                self.complain(&format!("{path}.{name}"), "is not documented");
            }
        }
        // An event stream's members come one at a time.
        let one_at_a_time = shape["eventstream"] == true;
        for (name, shape, required) in members {
            let path = format!("{path}.{name}");
            match found.get(name) {
                Some(value) => {
                    self.present.insert(path.clone());
                    self.value(model, shape, &path, value);
                }
                None if required && !one_at_a_time => self.complain(&path, "is missing"),
                None => {}
            }
        }
    }

    fn text(&mut self, shape: &Value, path: &str, text: &str) {
        if let Some(values) = shape["enum"].as_array() {
            if !values.iter().any(|value| value == text) {
                self.complain(path, format!("is {text}, which is none of {values:?}"));
            }
        } else {
            self.size(shape, path, text.chars().count());
        }
        if let Some(pattern) = shape["pattern"].as_str() {
            let regex = self.patterns.entry(pattern.to_owned());
            let regex = regex.or_insert_with(|| {
                Regex::new(&format!("^(?:{pattern})$")).expect("a pattern of the model")
            });
            if !regex.is_match(text) {
                self.complain(path, format!("is {text}, which is not {pattern}"));
            }
        }
    }

    fn size(&mut self, shape: &Value, path: &str, size: usize) {
        self.bounds(shape, path, i64::try_from(size).unwrap());
    }

    fn bounds(&mut self, shape: &Value, path: &str, value: i64) {
        if let Some(min) = shape["min"].as_i64().filter(|min| value < *min) {
            self.complain(path, format!("or its size {value} is less than {min}"));
        }
        if let Some(max) = shape["max"].as_i64().filter(|max| value > *max) {
            self.complain(path, format!("or its size {value} is greater than {max}"));
        }
    }

    /// Times that are cut to whole seconds: none of several has milliseconds.
    fn cut_times(&self) -> Vec<String> {
        let whole = |millis: &u64| millis.is_multiple_of(1_000);
        let cut = self
            .times
            .iter()
            .filter(|(_, times)| times.len() > 2 && times.iter().all(whole));
        cut.map(|(path, _)| format!("{path} has no fraction of a second"))
            .collect()
    }

    /// Members that should have been in an answer and were not, and reasons that are not needed.
    fn gaps(&self, model: &Model) -> Vec<String> {
        let mut gaps = Vec::new();
        let mut needed = BTreeSet::new();
        for path in documented(model) {
            let never = NEVER.iter().find(|(start, _)| path.starts_with(start));
            match (self.present.contains(&path), never) {
                (true, None) => {}
                (false, Some((start, _))) => {
                    needed.insert(*start);
                }
                (false, None) => gaps.push(format!("{path} is in no answer")),
                (true, Some((_, why))) => gaps.push(format!("{path} is there, though {why}")),
            }
        }
        let starts = NEVER.iter().map(|(start, _)| *start);
        let unneeded = starts.filter(|start| !needed.contains(start));
        gaps.extend(unneeded.map(|start| format!("no documented member begins with {start}")));
        gaps
    }
}

/// The paths of all members of all outputs, but for the operations that are not served.
fn documented(model: &Model) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for operation in model.operations() {
        if let Some(shape) = model.output(&operation)
            && !NOT_SUPPORTED.contains(&operation.as_str())
        {
            collect(model, shape, &operation, &mut paths);
        }
    }
    paths
}

fn collect(model: &Model, shape: &Value, path: &str, paths: &mut BTreeSet<String>) {
    match shape["type"].as_str().unwrap() {
        "structure" => {
            for (name, shape, _) in model.members(shape) {
                let path = format!("{path}.{name}");
                collect(model, shape, &path, paths);
                paths.insert(path);
            }
        }
        "list" => collect(model, model.item(shape), &format!("{path}[]"), paths),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_of_every_output_is_sent_as_the_model_says() {
    let model = Model::get().await;
    let mut present = Vec::new();
    for encoding in [Encoding::Json, Encoding::Cbor] {
        let seen = operations::seen(encoding).await;
        let walk = Walk::of(model, seen);
        let mut wrong: Vec<String> = walk.wrong.iter().cloned().collect();
        wrong.extend(walk.gaps(model));
        wrong.extend(walk.cut_times());
        assert!(
            wrong.is_empty(),
            "{encoding:?}: {}\n{}",
            wrong.len(),
            wrong.join("\n")
        );
        let answers = seen.answers.len();
        println!(
            "{encoding:?}: {answers} answers, {} members",
            walk.present.len()
        );
        present.push(walk.present);
    }
    assert_eq!(
        present[0], present[1],
        "members of one encoding and not of the other"
    );
}
