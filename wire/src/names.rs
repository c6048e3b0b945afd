//! Names and identifiers: parsed once where they enter, valid ever after.

use std::fmt;
use std::str::FromStr;

/// The text is not the kind of name that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {kind}: expected {expected}")]
pub struct InvalidName {
    /// What it should have been.
    pub kind: &'static str,
    /// What was given, cut to 300 characters.
    pub text: String,
    /// What would have been accepted.
    pub expected: &'static str,
}

fn invalid(kind: &'static str, text: &str, expected: &'static str) -> InvalidName {
    InvalidName {
        kind,
        text: text.chars().take(300).collect(),
        expected,
    }
}

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $expected:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.to_owned())) } else { Err(invalid($kind, text, $expected)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

text_name!(
    /// A stream's name (model: `StreamName`).
    StreamName,
    "stream name",
    "1 to 128 letters, digits, '_', '.' or '-'",
    |text| (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
);
text_name!(
    /// An AWS account: twelve digits.
    AccountId,
    "account id",
    "12 digits",
    |text| text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
);
text_name!(
    /// An AWS region, such as `us-east-1`.
    Region,
    "region",
    "1 to 64 lower-case letters, digits or '-'",
    |text| (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
);

text_name!(
    /// A consumer's name (model: `ConsumerName`).
    ConsumerName,
    "consumer name",
    "1 to 128 letters, digits, '_', '.' or '-'",
    |text| (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
);

/// A stream's ARN: `arn:aws:kinesis:REGION:ACCOUNT:stream/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamArn {
    /// Region the stream lives in.
    pub region: Region,
    /// Account that owns it.
    pub account: AccountId,
    /// Its name.
    pub name: StreamName,
}

impl fmt::Display for StreamArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "arn:aws:kinesis:{}:{}:stream/{}",
            self.region, self.account, self.name
        )
    }
}

impl FromStr for StreamArn {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "arn:aws:kinesis:REGION:ACCOUNT:stream/NAME";
        let refused = || invalid("stream ARN", text, expected);
        let mut parts = text.splitn(6, ':');
        let mut next = || parts.next().ok_or_else(refused);
        let prefix = (next()?, next()?, next()?);
        // Partitions other than `aws` (aws-cn, aws-us-gov) are accepted and read as `aws`.
        if prefix.0 != "arn" || !prefix.1.starts_with("aws") || prefix.2 != "kinesis" {
            return Err(refused());
        }
        let region = next()?.parse().map_err(|_| refused())?;
        let account = next()?.parse().map_err(|_| refused())?;
        let name = next()?.strip_prefix("stream/").ok_or_else(refused)?;
        Ok(StreamArn {
            region,
            account,
            name: name.parse().map_err(|_| refused())?,
        })
    }
}

/// A consumer's ARN: `arn:aws:kinesis:REGION:ACCOUNT:stream/NAME/consumer/CONSUMER:SECONDS`. The seconds
/// tell a consumer from an earlier one of its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerArn {
    /// The stream it reads.
    pub stream: StreamArn,
    /// Its name.
    pub name: ConsumerName,
    /// When it was registered, seconds since 1970.
    pub created_seconds: u64,
}

impl fmt::Display for ConsumerArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConsumerArn {
            stream,
            name,
            created_seconds,
        } = self;
        write!(f, "{stream}/consumer/{name}:{created_seconds}")
    }
}

impl FromStr for ConsumerArn {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "arn:aws:kinesis:REGION:ACCOUNT:stream/NAME/consumer/CONSUMER:SECONDS";
        let refused = || invalid("consumer ARN", text, expected);
        let (stream, consumer) = text.split_once("/consumer/").ok_or_else(refused)?;
        let (name, seconds) = consumer.rsplit_once(':').ok_or_else(refused)?;
        if !seconds.bytes().all(|b| b.is_ascii_digit()) {
            return Err(refused());
        }
        Ok(ConsumerArn {
            stream: stream.parse().map_err(|_| refused())?,
            name: name.parse().map_err(|_| refused())?,
            created_seconds: seconds.parse().map_err(|_| refused())?,
        })
    }
}

/// A shard's id within its stream: `shardId-000000000007` is index 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u32);

impl ShardId {
    /// Its text, nothing allocated.
    pub(crate) fn text(self) -> ShardIdText {
        let mut text = *b"shardId-000000000000";
        let mut index = self.0;
        for digit in text.iter_mut().rev() {
            if index == 0 {
                break;
            }
            *digit = b'0' + u8::try_from(index % 10).unwrap_or_default();
            index /= 10;
        }
        ShardIdText(text)
    }
}

/// A shard id's text: `shardId-` and twelve digits.
#[derive(Clone, Copy)]
pub(crate) struct ShardIdText([u8; 20]);

impl ShardIdText {
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl FromStr for ShardId {
    type Err = InvalidName;

    /// AWS takes any prefix before a `-`, or none at all, and any number of leading zeros. What follows a
    /// second `-` is not looked at.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.split('-').nth(1).unwrap_or(text);
        let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        match (all_digits, digits.parse::<u32>()) {
            (true, Ok(index)) if index <= i32::MAX.cast_unsigned() => Ok(ShardId(index)),
            _ => Err(invalid(
                "shard id",
                text,
                "shardId- and a number up to 2147483647",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_shard_ids_as_aws_does() {
        for text in [
            "shardId-000000000007",
            "7",
            "shardId-7",
            "x-007",
            "-7",
            "x-7-8",
        ] {
            assert_eq!(text.parse(), Ok(ShardId(7)), "{text}");
        }
        for text in [
            "",
            "shardId-",
            "shardId-99999999999",
            "shardId--x",
            "shardId--7",
            "2.14E4",
            "shardId-+7",
        ] {
            assert!(text.parse::<ShardId>().is_err(), "{text}");
        }
        assert_eq!(ShardId(7).to_string(), "shardId-000000000007");
    }

    #[test]
    fn consumer_arn_round_trips_and_refuses_streams() {
        let text = "arn:aws:kinesis:us-east-1:000000000000:stream/a/consumer/b.c-1:1750000000";
        let arn: ConsumerArn = text.parse().unwrap();
        assert_eq!(arn.to_string(), text);
        assert_eq!(
            (arn.stream.name.as_str(), arn.name.as_str()),
            ("a", "b.c-1")
        );
        for text in [
            "",
            "arn:aws:kinesis:us-east-1:000000000000:stream/a",
            "arn:aws:kinesis:us-east-1:000000000000:stream/a/consumer/b",
            "arn:aws:kinesis:us-east-1:000000000000:stream/a/consumer/:1",
            "arn:aws:kinesis:us-east-1:000000000000:stream/a/consumer/b:",
            "arn:aws:kinesis:us-east-1:000000000000:stream/a/consumer/b:+1",
            "arn:aws:kinesis:us-east-1:000000000000:stream/a/consumer/b:99999999999999999999",
        ] {
            assert!(text.parse::<ConsumerArn>().is_err(), "{text}");
        }
    }

    #[test]
    fn arn_round_trips_and_refuses_other_resources() {
        let text = "arn:aws:kinesis:us-east-1:000000000000:stream/or.ders_1-a";
        assert_eq!(text.parse::<StreamArn>().unwrap().to_string(), text);
        for text in [
            "",
            "arn:aws:kinesis:us-east-1:000000000000",
            "arn:aws:sqs:us-east-1:000000000000:stream/a",
            "arn:aws:kinesis:us-east-1:1:stream/a",
            "arn:aws:kinesis:us-east-1:000000000000:stream/",
            "arn:aws:kinesis:us-east-1:000000000000:stream/a/consumer/b:1",
        ] {
            assert!(text.parse::<StreamArn>().is_err(), "{text}");
        }
    }
}
