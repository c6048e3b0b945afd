//! Records that hold JSON, and the error of those that do not.
//!
//! Invariant: the error never carries data: neither its text, nor its `Debug`, nor its source. Logs and dead letters show them.

use crate::processor::Record;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::error::Category;

/// A record that is not what it was decoded as.
///
/// It stays so: give it up or stop, but do not retry. In an [`ErrorPolicy`](crate::ErrorPolicy) it is told by its type:
///
/// ```
/// use kcl::{DecodeError, ErrorAction, ErrorPolicy};
///
/// let policy = ErrorPolicy::decide(|failure| match failure.error.is::<DecodeError>() {
///     true => ErrorAction::DeadLetter,
///     false => ErrorAction::Retry,
/// });
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {record}{} is not as expected: {reason}", place(self.shard_id.as_deref()))]
pub struct DecodeError {
    shard_id: Option<String>,
    /// Sequence number, with the sub-sequence number in an aggregate.
    record: String,
    reason: String,
    line: usize,
    column: usize,
}

fn place(shard_id: Option<&str>) -> String {
    shard_id.map_or_else(String::new, |shard_id| format!(" of {shard_id}"))
}

impl DecodeError {
    fn new(record: &Record, error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let reason = match error.classify() {
            // What comes from the type to be decoded may quote the data.
            Category::Data => without_data(&text, (error.line(), error.column()), record.data()),
            Category::Syntax | Category::Eof | Category::Io => text,
        };
        DecodeError {
            shard_id: None,
            record: record.place(),
            reason,
            line: error.line(),
            column: error.column(),
        }
    }

    /// The same, naming the shard; a record does not know its own.
    #[must_use]
    pub fn in_shard(mut self, shard_id: impl Into<String>) -> Self {
        self.shard_id = Some(shard_id.into());
        self
    }

    /// The shard, where it is known: in errors of [`for_each_json`](crate::for_each_json) and [`by_key_json`](crate::by_key_json).
    pub fn shard_id(&self) -> Option<&str> {
        self.shard_id.as_deref()
    }

    /// The record's sequence number; `number:index` in an aggregate.
    pub fn record(&self) -> &str {
        &self.record
    }

    /// What is wrong and where, without the data.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Line and column of the data, from 1, where it was noticed.
    pub fn place(&self) -> (usize, usize) {
        (self.line, self.column)
    }
}

/// The names that serde gives to what it found; what follows them is data.
const FOUND: [&str; 17] = [
    "boolean",
    "integer",
    "floating point",
    "character",
    "string",
    "byte array",
    "unit value",
    "null",
    "Option value",
    "newtype struct",
    "sequence",
    "map",
    "enum",
    "unit variant",
    "newtype variant",
    "tuple variant",
    "struct variant",
];

/// Whether a text may be quoted from the data. A custom error can look like one of serde's own and say anything.
fn is_quoted(text: &str, data: &[u8]) -> bool {
    fn within(value: &Value, text: &str) -> bool {
        match value {
            Value::Null | Value::Bool(_) => false,
            Value::Number(number) => number.to_string().contains(text),
            Value::String(string) => string.contains(text),
            Value::Array(values) => values.iter().any(|value| within(value, text)),
            Value::Object(members) => members
                .iter()
                .any(|(name, value)| name.contains(text) || within(value, text)),
        }
    }
    String::from_utf8_lossy(data).contains(text)
        || serde_json::from_slice(data).map_or(true, |value| within(&value, text))
}

/// What serde says, without what it found: only what the type says by itself is passed on.
fn without_data(text: &str, (line, column): (usize, usize), data: &[u8]) -> String {
    let at = format!(" at line {line} column {column}");
    let text = text.strip_suffix(&at).unwrap_or(text);
    // What was found may hold anything, this separator included; what comes after the last one was written by the type's author.
    let expected = text
        .rsplit_once(", expected ")
        .map(|(_, expected)| expected);
    let expected = expected.filter(|expected| !is_quoted(expected, data));
    let known = |name: &str| text.starts_with(name);
    let reason = match expected {
        Some(expected) if known("invalid type: ") || known("invalid value: ") => {
            let found = text.split_once(": ").map_or("", |(_, found)| found);
            let found = FOUND.iter().find(|name| found.starts_with(*name));
            let found = found.copied().unwrap_or("a value");
            format!("found {found}, expected {expected}")
        }
        Some(expected) if known("unknown variant `") => {
            format!("unknown variant, expected {expected}")
        }
        Some(expected) if known("unknown field `") => format!("unknown field, expected {expected}"),
        _ if text.split('`').nth(1).is_some_and(|field| {
            text == format!("missing field `{field}`") && !is_quoted(field, data)
        }) =>
        {
            text.to_owned()
        }
        _ => "the value does not fit the type".to_owned(),
    };
    format!("{reason}{at}")
}

impl Record {
    /// The value that the data hold as JSON.
    ///
    /// ```
    /// use kcl::{ProcessorError, Record};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Order {
    ///     amount: u64,
    /// }
    ///
    /// fn amount(record: &Record) -> Result<u64, ProcessorError> {
    ///     let order: Order = record.json()?; // a DecodeError, which an error policy can tell
    ///     Ok(order.amount)
    /// }
    /// ```
    ///
    /// # Errors
    /// [`DecodeError`]: the data are no JSON, or not of this type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        serde_json::from_slice(self.data()).map_err(|error| DecodeError::new(self, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::describe;
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde::de::{Deserializer, Error as _};

    /// What no error may show.
    const SECRET: &str = "4929-1234";

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only decoded")]
    struct Order {
        amount: u64,
        #[serde(default)]
        kind: Kind,
        #[serde(default)]
        special: Special,
        #[serde(default)]
        pair: Option<(u8, u8)>,
    }

    #[derive(Debug, Default, Deserialize)]
    enum Kind {
        #[default]
        Plain,
        Express,
    }

    /// Quotes what it is given in its error, as many types do.
    #[derive(Debug, Default)]
    struct Special;

    impl<'de> Deserialize<'de> for Special {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let text = String::deserialize(from)?;
            Err(D::Error::custom(text))
        }
    }

    fn record(data: &str) -> Record {
        let data = Bytes::copy_from_slice(data.as_bytes());
        Record::stored("77".parse().unwrap(), "key", data, 0)
    }

    fn refused(data: &str) -> DecodeError {
        record(data)
            .json::<Order>()
            .unwrap_err()
            .in_shard("shard 7")
    }

    #[test]
    fn a_record_is_read_as_what_it_holds() {
        let order: Order = record(r#"{"amount": 3}"#).json().unwrap();
        assert_eq!(order.amount, 3);
    }

    #[test]
    fn an_error_says_where_and_what_was_expected() {
        let cases = [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{", "EOF while parsing an object at line 1 column 1"),
            (
                r#"{"amount": "x"}"#,
                "found string, expected u64 at line 1 column 14",
            ),
            (
                r#"{"amount": -5}"#,
                "found integer, expected u64 at line 1 column 13",
            ),
            ("{}", "missing field `amount` at line 1 column 2"),
            (
                r#"{"amount": 1, "x": 1}"#,
                "unknown field, expected one of `amount`, `kind`, `special`, `pair` at line 1 column 17",
            ),
            (
                r#"{"amount": 1, "kind": "x"}"#,
                "unknown variant, expected `Plain` or `Express` at line 1 column 25",
            ),
        ];
        for (data, reason) in cases {
            let error = refused(data);
            assert_eq!(error.reason(), reason, "{data}");
            let text = format!("record 77 of shard 7 is not as expected: {reason}");
            assert_eq!(error.to_string(), text);
        }
    }

    /// Goal: whatever is in a record stays there. Method: the secret in every place, also dressed up as texts of serde.
    #[test]
    fn no_data_are_in_an_error() {
        let dressed = [
            SECRET.to_owned(),
            format!("{SECRET}, expected {SECRET}"),
            format!("missing field `{SECRET}`"),
            format!("missing field `{SECRET}"),
            format!("invalid type: {SECRET}, expected u64"),
            format!("invalid type: x, expected {SECRET}"),
            format!("unknown variant `x`, expected {SECRET}"),
            format!("unknown field `{SECRET}`"),
        ];
        for secret in dressed {
            let text = serde_json::to_string(&secret).unwrap();
            for data in [
                format!(r#"{{"amount": {text}}}"#),
                format!(r#"{{"amount": 1, {text}: 1}}"#),
                format!(r#"{{"amount": 1, "kind": {text}}}"#),
                format!(r#"{{"amount": 1, "kind": {{{text}: 1}}}}"#),
                format!(r#"{{"amount": 1, "special": {text}}}"#),
                format!(r#"{{"amount": 1, "pair": [1, {text}]}}"#),
                format!("[{text}"),
                format!("{text} {text}"),
                text.clone(),
                secret.clone(),
                format!(
                    r#"{{"amount": 1, "special": {}}}"#,
                    text.replace('-', r"\u002d")
                ),
            ] {
                let error = refused(&data);
                let shown = format!(
                    "{error} {error:?} {}",
                    describe(&error.clone().into(), 10_000)
                );
                assert!(!shown.contains(SECRET), "{data} gives {shown}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(data: Vec<u8>) {
            let record = Record::stored("77".parse().unwrap(), "key", data.into(), 0);
            if let Err(error) = record.json::<Order>() {
                prop_assert!(error.to_string().starts_with("record 77 is not as expected: "));
            }
        }
    }
}
