//! The demo's input: a newline-delimited file, each line with its partition key and its number.

use crate::Failure;
use crate::demo::aggregate::{Aggregate, millionths};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

/// Weather at three airports, hour by hour; `cli/data/README.md` has its source and licence.
const BUILT_IN: &str = include_str!("../../data/noaa-nyc-2013.csv");
const BUILT_IN_KEY: &str = "station,hour";
const BUILT_IN_VALUE: &str = "temp_f";
/// Bytes of an input at most: it is held in memory to be compared with what was processed.
const INPUT_MAX_BYTES: u64 = 256 * 1024 * 1024;
/// Lines of an input at most.
const LINES_MAX: usize = 1_000_000;
/// Bytes of a line at most: a record holds 1 MiB with its number and its key.
const LINE_MAX_BYTES: usize = 1_000_000;
/// Characters of a partition key at most (model: `PartitionKey`).
const KEY_MAX_CHARS: usize = 256;
/// Keys of a file without fields: its lines are dealt out to so many.
const DEALT_KEYS: usize = 64;

/// One record to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Its text, without the line end.
    pub(crate) text: String,
    /// Its partition key.
    pub(crate) key: String,
}

/// A file, read whole.
#[derive(Debug)]
pub(crate) struct Input {
    /// What it is called in the report.
    pub(crate) name: String,
    /// Its records in order; never empty.
    pub(crate) lines: Vec<Line>,
    /// Where a line's number is.
    pub(crate) value: ValueField,
}

/// Where a line's number is; workers are given it as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ValueField {
    /// Nowhere: records are only counted.
    None,
    /// In this column, from 0.
    Csv(usize),
    /// In this member; a dot leads into an object.
    Json(String),
}

impl fmt::Display for ValueField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueField::None => f.write_str("none"),
            ValueField::Csv(column) => write!(f, "csv:{column}"),
            ValueField::Json(path) => write!(f, "json:{path}"),
        }
    }
}

impl FromStr for ValueField {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "none" => Ok(ValueField::None),
            Some(("csv", column)) => column
                .parse()
                .map(ValueField::Csv)
                .map_err(|error| format!("{column:?}: {error}")),
            Some(("json", path)) => Ok(ValueField::Json(path.to_owned())),
            _ => Err(format!("{text:?} is not none, csv:COLUMN or json:MEMBER")),
        }
    }
}

impl ValueField {
    /// The number of a line in millionths, if it has one.
    pub(crate) fn of(&self, line: &str) -> Option<i64> {
        match self {
            ValueField::None => None,
            ValueField::Csv(column) => split_csv(line)
                .get(*column)
                .and_then(|text| millionths(text)),
            ValueField::Json(path) => {
                let value: Value = serde_json::from_str(line).ok()?;
                millionths(&json_text(&value, path)?)
            }
        }
    }
}

/// Recognises a line again after its way through the stream; the same in every process of one binary.
pub(crate) fn fingerprint(line: &str) -> i64 {
    let mut hasher = DefaultHasher::new();
    line.hash(&mut hasher);
    hasher.finish().cast_signed()
}

impl Input {
    /// Reads what `--input`, `--key` and `--value` ask for.
    pub(crate) fn load(
        path: Option<&Path>,
        key: Option<&str>,
        value: Option<&str>,
    ) -> Result<Input, Failure> {
        let Some(path) = path else {
            let value = value.unwrap_or(BUILT_IN_VALUE);
            return Input::parse(
                "noaa-nyc-2013.csv",
                BUILT_IN,
                Some(key.unwrap_or(BUILT_IN_KEY)),
                Some(value),
            )
            .map_err(Failure::usage);
        };
        let name = if path == Path::new("-") {
            "standard input".into()
        } else {
            path.display().to_string()
        };
        let text = read(path).map_err(|reason| Failure::usage(format_args!("{name}: {reason}")))?;
        Input::parse(&name, &text, key, value)
            .map_err(|reason| Failure::usage(format_args!("{name}: {reason}")))
    }

    /// A first line that opens an object makes it JSON lines; asking for fields of anything else makes it CSV with
    /// a header; otherwise every line is a record.
    fn parse(
        name: &str,
        text: &str,
        key: Option<&str>,
        value: Option<&str>,
    ) -> Result<Input, String> {
        let mut lines = text
            .split('\n')
            .map(|line| line.strip_suffix('\r').unwrap_or(line))
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
            .peekable();
        let first = lines.peek().map_or("", |(_, line)| line);
        let json = first.trim_start().starts_with('{');
        let mut header = Vec::new();
        if !json && (key.is_some() || value.is_some()) {
            header = lines.next().map_or(Vec::new(), |(_, line)| split_csv(line));
        }
        let column = |field: &str| {
            let found = header.iter().position(|name| name == field);
            found
                .ok_or_else(|| format!("no column {field:?}; the header has {}", header.join(", ")))
        };
        let value = match value {
            None => ValueField::None,
            Some(path) if json => ValueField::Json(path.to_owned()),
            Some(field) => ValueField::Csv(column(field)?),
        };
        let key = match key {
            None => Key::Dealt,
            Some(paths) if json => Key::Json(paths.split(',').map(str::to_owned).collect()),
            Some(fields) => Key::Csv(fields.split(',').map(column).collect::<Result<_, _>>()?),
        };
        let mut records = Vec::new();
        for (index, text) in lines {
            let named = |reason: String| format!("line {}: {reason}", index + 1);
            if text.len() > LINE_MAX_BYTES {
                return Err(named(format!(
                    "{} bytes; a record takes {LINE_MAX_BYTES}",
                    text.len()
                )));
            }
            if records.len() == LINES_MAX {
                return Err(named(format!("the demo takes {LINES_MAX} records at most")));
            }
            let key = key.of(text, records.len()).map_err(named)?;
            records.push(Line {
                text: text.to_owned(),
                key,
            });
        }
        if records.is_empty() {
            return Err("there is no record in it".to_owned());
        }
        Ok(Input {
            name: name.to_owned(),
            lines: records,
            value,
        })
    }

    /// The aggregates per key, computed from the file alone.
    pub(crate) fn aggregates(&self) -> BTreeMap<String, Aggregate> {
        let mut aggregates: BTreeMap<String, Aggregate> = BTreeMap::new();
        for line in &self.lines {
            aggregates
                .entry(line.key.clone())
                .or_default()
                .add(self.value.of(&line.text));
        }
        aggregates
    }
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(path).map_err(|error| error.to_string())?)
    };
    let read = source.take(INPUT_MAX_BYTES + 1).read_to_string(&mut text);
    read.map_err(|error| error.to_string())?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > INPUT_MAX_BYTES {
        return Err(format!("the demo takes {INPUT_MAX_BYTES} bytes at most"));
    }
    Ok(text)
}

/// What makes the partition key of a line.
enum Key {
    /// Its number: lines are dealt out.
    Dealt,
    /// These columns, joined with commas.
    Csv(Vec<usize>),
    /// These members, joined with commas.
    Json(Vec<String>),
}

impl Key {
    fn of(&self, line: &str, ordinal: usize) -> Result<String, String> {
        let key = match self {
            Key::Dealt => format!("key-{:02}", ordinal % DEALT_KEYS),
            Key::Csv(columns) => {
                let fields = split_csv(line);
                let field = |column: &usize| {
                    let missing = || format!("{} fields, no field {}", fields.len(), column + 1);
                    fields.get(*column).cloned().ok_or_else(missing)
                };
                columns
                    .iter()
                    .map(field)
                    .collect::<Result<Vec<_>, _>>()?
                    .join(",")
            }
            Key::Json(paths) => {
                let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
                let member = |path: &String| {
                    json_text(&value, path).ok_or_else(|| format!("no text or number in {path:?}"))
                };
                paths
                    .iter()
                    .map(member)
                    .collect::<Result<Vec<_>, _>>()?
                    .join(",")
            }
        };
        match key.chars().count() {
            1..=KEY_MAX_CHARS => Ok(key),
            length => Err(format!(
                "its key has {length} characters; expected 1 to {KEY_MAX_CHARS}"
            )),
        }
    }
}

fn json_text(value: &Value, path: &str) -> Option<String> {
    let member = value
        .get(path)
        .or_else(|| path.split('.').try_fold(value, |at, name| at.get(name)))?;
    match member {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The fields of one line of CSV; quotes may enclose commas and doubled quotes.
fn split_csv(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let doubled = quoted && character == '"' && characters.next_if_eq(&'"').is_some();
        match (character, fields.last_mut()) {
            (',', _) if !quoted => fields.push(String::new()),
            ('"', _) if !doubled => quoted = !quoted,
            (_, Some(field)) => field.push(character),
            (_, None) => {}
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str, key: Option<&str>, value: Option<&str>) -> Vec<String> {
        let input = Input::parse("x", text, key, value).unwrap();
        input.lines.into_iter().map(|line| line.key).collect()
    }

    #[test]
    fn the_built_in_data_is_a_year_at_three_airports() {
        let input = Input::load(None, None, None).unwrap();
        assert!(BUILT_IN.len() <= 1024 * 1024);
        assert_eq!(input.lines.len(), 26_115);
        let aggregates = input.aggregates();
        assert_eq!(aggregates.len(), 72, "three stations, 24 hours");
        let records: u64 = aggregates.values().map(|a| a.records).sum();
        let values: u64 = aggregates.values().map(|a| a.values).sum();
        assert_eq!(
            (records, values),
            (26_115, 26_114),
            "one temperature is missing"
        );
        // EWR at 6 in the morning, computed with awk from the file.
        let dawn = &aggregates["EWR,6"];
        assert_eq!((dawn.records, dawn.sum, dawn.min, dawn.max), EWR_AT_SIX);
    }

    const EWR_AT_SIX: (u64, i128, Option<i64>, Option<i64>) =
        (363, 18_223_260_000, Some(10_940_000), Some(82_940_000));

    #[test]
    fn takes_csv_json_and_plain_lines() {
        assert_eq!(
            keys("a,b\r\n1,2\r\n\n\"x,\"\"y\",3", Some("a"), None),
            ["1", "x,\"y"]
        );
        assert_eq!(keys("a,b\n1,2\n", Some("b,a"), Some("a")), ["2,1"]);
        assert_eq!(
            keys("{\"a\":{\"b\":7}}\n{\"a.b\":\"t\"}\n", Some("a.b"), None),
            ["7", "t"]
        );
        assert_eq!(keys("one\ntwo", None, None), ["key-00", "key-01"]);
    }

    #[test]
    fn refusals_name_the_line_and_the_field() {
        let refused = |text: &str, key, expected: &str| {
            let reason = Input::parse("x", text, key, None).unwrap_err();
            assert!(reason.contains(expected), "{expected:?} is not in {reason}");
        };
        refused(
            "a,b\n1,2",
            Some("c"),
            "no column \"c\"; the header has a, b",
        );
        refused("a,b\n1,2\n1", Some("b"), "line 3: 1 fields, no field 2");
        refused(
            "{\"a\":1}\n{\"b\":1}",
            Some("a"),
            "line 2: no text or number in \"a\"",
        );
        refused("{\"a\":1}\n{", Some("a"), "line 2: EOF");
        refused("a,b\n,2", Some("a"), "line 2: its key has 0 characters");
        refused("a,b\n", Some("a"), "no record");
        refused("", None, "no record");
    }

    #[test]
    fn value_fields_survive_the_way_to_a_worker() {
        for field in [
            ValueField::None,
            ValueField::Csv(3),
            ValueField::Json("a:b.c".into()),
        ] {
            assert_eq!(field.to_string().parse(), Ok(field));
        }
        assert_eq!(ValueField::Csv(1).of("x,39.02"), Some(39_020_000));
        assert_eq!(ValueField::Csv(1).of("x,"), None);
        assert_eq!(
            ValueField::Json("t".into()).of("{\"t\":-0.5}"),
            Some(-500_000)
        );
        assert!("csv:x".parse::<ValueField>().is_err());
    }
}
