//! What a member may hold: the constraints of the service model, named after its shapes.
//!
//! Source: the Kinesis service model `kinesis/2013-12-02`. The order in which an enum's values are
//! listed is AWS's own, which its error messages show.

use super::pattern;
use crate::limits::{
    DATA_MAX_BYTES, PARTITION_KEY_MAX_CHARS, PUT_RECORDS_MAX_COUNT, TAG_KEYS_MAX_COUNT,
    TAG_MAP_MAX_COUNT,
};

/// The JSON type of a member.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A string.
    Text,
    /// A 32-bit number, in the messages of AWS.
    Integer,
    /// A boolean.
    Boolean,
    /// Seconds since 1970.
    Timestamp,
    /// Base64 in JSON.
    Blob,
    /// Items of one kind.
    List(&'static Constraint),
    /// Texts by text: the constraint of a key and of a value.
    Map(&'static Constraint, &'static Constraint),
    /// Named members.
    Structure(&'static [Member]),
}

/// A member of a structure.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// The name on the wire, such as `StreamName`.
    pub name: &'static str,
    /// Whether it must be given.
    pub required: bool,
    /// What it may hold when it is given.
    pub constraint: &'static Constraint,
}

/// A regular expression, written as AWS shows it and as code.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    /// The text in the model.
    pub text: &'static str,
    /// Whether the whole of a text matches.
    pub matches: fn(&str) -> bool,
}

/// What a member may hold.
#[derive(Debug, Clone, Copy)]
pub struct Constraint {
    /// Its type.
    pub kind: Kind,
    /// Characters, bytes or items at least.
    pub min_len: Option<usize>,
    /// Characters, bytes or items at most.
    pub max_len: Option<usize>,
    /// The least number.
    pub min: Option<i64>,
    /// The greatest number.
    pub max: Option<i64>,
    /// What a text must look like.
    pub pattern: Option<Pattern>,
    /// The only texts allowed, if not empty.
    pub allowed: &'static [&'static str],
    /// How AWS shows an item of a list of structures.
    pub shown_as: Option<&'static str>,
}

impl Constraint {
    pub(super) const fn new(kind: Kind) -> Constraint {
        Constraint {
            kind,
            min_len: None,
            max_len: None,
            min: None,
            max: None,
            pattern: None,
            allowed: &[],
            shown_as: None,
        }
    }

    pub(super) const fn len(self, min: usize, max: usize) -> Constraint {
        Constraint {
            min_len: Some(min),
            max_len: Some(max),
            ..self
        }
    }

    pub(super) const fn range(self, min: i64, max: i64) -> Constraint {
        Constraint {
            min: Some(min),
            max: Some(max),
            ..self
        }
    }

    pub(super) const fn at_least(self, min: i64) -> Constraint {
        Constraint {
            min: Some(min),
            ..self
        }
    }

    pub(super) const fn pattern(self, text: &'static str, matches: fn(&str) -> bool) -> Constraint {
        Constraint {
            pattern: Some(Pattern { text, matches }),
            ..self
        }
    }

    pub(super) const fn one_of(allowed: &'static [&'static str]) -> Constraint {
        Constraint {
            allowed,
            ..Constraint::new(Kind::Text)
        }
    }

    /// A structure of these members.
    pub(crate) const fn structure(members: &'static [Member]) -> Constraint {
        Constraint::new(Kind::Structure(members))
    }

    /// The list of a PutRecords request.
    pub(crate) const fn put_records_entries(entry: &'static Constraint) -> Constraint {
        let entries = Constraint::new(Kind::List(entry)).len(1, PUT_RECORDS_MAX_COUNT);
        // The number is a Java object's hash; AWS shows one, and this is the one tests have seen.
        let shown_as = Some("com.amazonaws.kinesis.v20131202.PutRecordsRequestEntry@c965e310");
        Constraint {
            shown_as,
            ..entries
        }
    }
}

/// Model: `StreamName`.
pub(super) static STREAM_NAME: Constraint = Constraint::new(Kind::Text)
    .len(1, 128)
    .pattern("[a-zA-Z0-9_.-]+", is_name);
/// Model: `ShardId`.
pub(super) static SHARD_ID: Constraint = STREAM_NAME;
/// Model: `StreamARN`.
pub(super) static STREAM_ARN: Constraint = Constraint::new(Kind::Text)
    .len(1, 2048)
    .pattern(r"arn:aws.*:kinesis:.*:\d{12}:stream/\S+", is_stream_arn);
/// Model: `ConsumerName`.
pub(super) static CONSUMER_NAME: Constraint = STREAM_NAME;
/// Model: `ConsumerARN`.
pub(super) static CONSUMER_ARN: Constraint = Constraint::new(Kind::Text).len(1, 2048).pattern(
    r"^(arn):aws.*:kinesis:.*:\d{12}:.*stream\/[a-zA-Z0-9_.-]+\/consumer\/[a-zA-Z0-9_.-]+:[0-9]+",
    is_consumer_arn,
);
/// Model: `StreamId`.
pub(super) static STREAM_ID: Constraint = Constraint::new(Kind::Text)
    .len(1, 24)
    .pattern("[a-z0-9]{20}-[a-z0-9]{3}", is_stream_id);
/// Model: `HashKey`.
pub(super) static HASH_KEY: Constraint =
    Constraint::new(Kind::Text).pattern(r"^(0|([1-9]\d{0,38}))$", |text| is_number(text, 39));
/// Model: `SequenceNumber`.
pub(super) static SEQUENCE_NUMBER: Constraint =
    Constraint::new(Kind::Text).pattern(r"^(0|([1-9]\d{0,128}))$", |text| is_number(text, 129));
/// Model: `PartitionKey`.
pub(super) static PARTITION_KEY: Constraint =
    Constraint::new(Kind::Text).len(1, PARTITION_KEY_MAX_CHARS);
/// Model: `Data`.
pub(super) static DATA: Constraint = Constraint::new(Kind::Blob).len(0, DATA_MAX_BYTES);
/// Model: `ShardIterator`.
pub(super) static SHARD_ITERATOR: Constraint = Constraint::new(Kind::Text).len(1, 512);
/// Model: `ShardIteratorType`.
pub(super) static SHARD_ITERATOR_TYPE: Constraint = Constraint::one_of(&[
    "AFTER_SEQUENCE_NUMBER",
    "LATEST",
    "AT_TIMESTAMP",
    "AT_SEQUENCE_NUMBER",
    "TRIM_HORIZON",
]);
/// Model: `NextToken`.
pub(super) static NEXT_TOKEN: Constraint = Constraint::new(Kind::Text).len(1, 1_048_576);
/// Model: `GetRecordsInputLimit`, `ListStreamConsumersInputLimit`, `DescribeStreamInputLimit`, `ListStreamsInputLimit`, `ListShardsInputLimit`.
pub(super) static LIST_LIMIT: Constraint = Constraint::new(Kind::Integer).range(1, 10_000);
/// Model: `ListTagsForStreamInputLimit`.
pub(super) static LIST_TAGS_LIMIT: Constraint = Constraint::new(Kind::Integer).range(1, 50);
/// Model: `PositiveIntegerObject`.
pub(super) static POSITIVE_INTEGER: Constraint = Constraint::new(Kind::Integer).at_least(1);
/// Model: `NaturalIntegerObject`.
pub(super) static NATURAL_INTEGER: Constraint = Constraint::new(Kind::Integer).at_least(0);
/// Model: `MaxRecordSizeInKiB`.
pub(super) static MAX_RECORD_SIZE: Constraint = Constraint::new(Kind::Integer).range(1_024, 10_240);
/// Model: `RetentionPeriodHours`; its range depends on the operation and is checked there.
pub(super) static INTEGER: Constraint = Constraint::new(Kind::Integer);
/// Model: `BooleanObject`.
pub(super) static BOOLEAN: Constraint = Constraint::new(Kind::Boolean);
/// Model: `Timestamp`.
pub(super) static TIMESTAMP: Constraint = Constraint::new(Kind::Timestamp);
/// Model: `StreamMode`.
pub(super) static STREAM_MODE: Constraint = Constraint::one_of(&["PROVISIONED", "ON_DEMAND"]);
/// Model: `RecordDistributionStrategy`.
pub(super) static RECORD_DISTRIBUTION: Constraint =
    Constraint::one_of(&["AUTO", "USER_PARTITION_KEY"]);
/// Model: `ShardFilterType`.
pub(super) static SHARD_FILTER_TYPE: Constraint = Constraint::one_of(&[
    "AFTER_SHARD_ID",
    "AT_TRIM_HORIZON",
    "FROM_TRIM_HORIZON",
    "AT_LATEST",
    "AT_TIMESTAMP",
    "FROM_TIMESTAMP",
]);
/// Model: `TagKey`.
pub(super) static TAG_KEY: Constraint = Constraint::new(Kind::Text).len(1, 128);
/// Model: `TagValue`.
pub(super) static TAG_VALUE: Constraint = Constraint::new(Kind::Text).len(0, 256);
/// Model: `TagMap`.
pub(super) static TAG_MAP: Constraint =
    Constraint::new(Kind::Map(&TAG_KEY, &TAG_VALUE)).len(1, TAG_MAP_MAX_COUNT);
/// Model: `TagKeyList`.
pub(super) static TAG_KEYS: Constraint =
    Constraint::new(Kind::List(&TAG_KEY)).len(1, TAG_KEYS_MAX_COUNT);

/// Model: `ScalingType`.
pub(super) static SCALING_TYPE: Constraint = Constraint::one_of(&["UNIFORM_SCALING"]);
/// Model: `EncryptionType`.
pub(super) static ENCRYPTION_TYPE: Constraint = Constraint::one_of(&["NONE", "KMS"]);
/// Model: `KeyId`.
pub(super) static KEY_ID: Constraint = Constraint::new(Kind::Text).len(1, 2048);
/// Model: `MetricsName`.
static METRIC: Constraint = Constraint::one_of(&[
    "IncomingBytes",
    "IncomingRecords",
    "OutgoingBytes",
    "OutgoingRecords",
    "WriteProvisionedThroughputExceeded",
    "ReadProvisionedThroughputExceeded",
    "IteratorAgeMilliseconds",
    "ALL",
]);
/// Model: `MetricsNameList`.
pub(super) static METRICS: Constraint = Constraint::new(Kind::List(&METRIC)).len(1, 7);
/// Model: `MinimumThroughputBillingCommitmentInputStatus`.
pub(super) static COMMITMENT_STATUS: Constraint = Constraint::one_of(&["ENABLED", "DISABLED"]);
/// Model: `Policy`; its size is checked with its content.
pub(super) static POLICY: Constraint = Constraint::new(Kind::Text);
/// Model: `ResourceARN`.
pub(super) static RESOURCE_ARN: Constraint = Constraint::new(Kind::Text).len(1, 2048).pattern(
    r"arn:aws.*:kinesis:.*:\d{12}:.*(stream|channel|queue)/\S+",
    pattern::is_resource_arn,
);

pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn is_number(text: &str, max_digits: usize) -> bool {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits && text.len() <= max_digits && (text == "0" || !text.starts_with('0'))
}

fn is_stream_id(text: &str) -> bool {
    let part = |part: &str, len| {
        part.len() == len
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    text.split_once('-')
        .is_some_and(|(head, tail)| part(head, 20) && part(tail, 3))
}

/// In one pass, whatever the length: `.*` may stretch over any number of colons.
fn is_stream_arn(text: &str) -> bool {
    const RESOURCE: &str = ":stream/";
    const SERVICE: &str = ":kinesis:";
    let Some(rest) = text.strip_prefix("arn:aws") else {
        return false;
    };
    let Some(service) = rest.find(SERVICE) else {
        return false;
    };
    let last_space = rest.rfind(char::is_whitespace);
    rest.match_indices(RESOURCE).any(|(at, _)| {
        let (head, name) = (rest.get(..at), rest.get(at + RESOURCE.len()..));
        let account = head
            .and_then(|head| head.len().checked_sub(13))
            .filter(|colon| {
                let tail = rest.get(*colon..at).unwrap_or_default();
                let digits = tail.strip_prefix(':');
                digits.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
            });
        account.is_some_and(|colon| colon >= service + SERVICE.len())
            && name.is_some_and(|name| !name.is_empty())
            && last_space.is_none_or(|space| space < at)
    })
}

/// The end is looked at first: after it is taken off, what is left must be able to hold the rest in
/// order, whatever the two `.*` stretch over.
fn is_consumer_arn(text: &str) -> bool {
    let split = || {
        let (head, consumer) = text.rsplit_once("/consumer/")?;
        let (name, seconds) = consumer.rsplit_once(':')?;
        let (head, stream) = head.rsplit_once("stream/")?;
        let rest = head.strip_prefix("arn:aws")?;
        let service = rest.find(":kinesis:")? + ":kinesis:".len();
        Some((name, seconds, stream, rest.get(service..)?))
    };
    split().is_some_and(|(name, seconds, stream, rest)| {
        // `.*:\d{12}:.*`: twelve digits between two colons, anywhere.
        let bytes = rest.as_bytes();
        let account = bytes.windows(14).any(|window| {
            window.first() == Some(&b':')
                && window.last() == Some(&b':')
                && window[1..13].iter().all(u8::is_ascii_digit)
        });
        account
            && is_name(name)
            && is_name(stream)
            && !seconds.is_empty()
            && seconds.bytes().all(|b| b.is_ascii_digit())
            && !rest.contains('\n')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_arns_match_as_the_expression_does() {
        for text in [
            "arn:aws:kinesis:us-east-1:000000000000:stream/a",
            "arn:aws-cn:kinesis:cn-north-1:123456789012:stream/a b:1:123456789012:stream/c",
            "arn:aws:kinesis::123456789012:stream/é",
        ] {
            assert!(is_stream_arn(text), "{text}");
        }
        for text in [
            "",
            "arn:aws:kinesis:us-east-1:00000000000:stream/a",
            "arn:aws:kinesis:us-east-1:000000000000:stream/",
            "arn:aws:kinesis:us-east-1:000000000000:stream/a b",
            "arn:aws:kinesis:000000000000:stream/a",
            "arn:aws:sqs:us-east-1:000000000000:stream/a",
            "arn:aws:kinesis:us-east-1:0000000000é0:stream/a",
        ] {
            assert!(!is_stream_arn(text), "{text}");
        }
    }

    #[test]
    fn consumer_arns_match_as_the_expression_does() {
        for text in [
            "arn:aws:kinesis:us-east-1:000000000000:stream/a/consumer/b:1",
            "arn:aws-cn:kinesis:cn-north-1:123456789012:x/stream/a/consumer/b.c:0",
            "arn:aws:kinesis::123456789012:stream/a/consumer/b:1",
        ] {
            assert!(is_consumer_arn(text), "{text}");
        }
        for text in [
            "",
            "arn:aws:kinesis:us-east-1:000000000000:stream/a",
            "arn:aws:kinesis:us-east-1:000000000000:stream/a/consumer/b",
            "arn:aws:kinesis:us-east-1:000000000000:stream/a/consumer/b:",
            "arn:aws:kinesis:us-east-1:000000000000:stream/a/consumer/b:1x",
            "arn:aws:kinesis:us-east-1:000000000000:stream//consumer/b:1",
            "arn:aws:kinesis:us-east-1:00000000000:stream/a/consumer/b:1",
            "arn:aws:kinesis:000000000000:stream/a/consumer/b:1",
            "arn:aws:sqs:us-east-1:000000000000:stream/a/consumer/b:1",
        ] {
            assert!(!is_consumer_arn(text), "{text}");
        }
    }

    #[test]
    fn numbers_and_ids_match_as_the_expressions_do() {
        let matches = |constraint: &Constraint, text: &str| {
            constraint
                .pattern
                .is_some_and(|pattern| (pattern.matches)(text))
        };
        for text in ["0", "1", &"9".repeat(39)] {
            assert!(matches(&HASH_KEY, text), "{text}");
        }
        for text in ["", "00", "01", "-1", "1a", &"9".repeat(40)] {
            assert!(!matches(&HASH_KEY, text), "{text}");
        }
        assert!(matches(&SEQUENCE_NUMBER, &"9".repeat(129)));
        assert!(!matches(&SEQUENCE_NUMBER, &"9".repeat(130)));
        assert!(matches(&STREAM_ID, "abcdefghij0123456789-a0b"));
        assert!(!matches(&STREAM_ID, "Abcdefghij0123456789-a0b"));
    }
}
