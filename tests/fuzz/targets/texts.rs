//! Texts that mean something: names, ARNs, numbers, positions, times, settings. What is understood is written and read again.

use crate::engine::{Target, shape};
use kcl::Position;
use kcl::ops::{parse_time, rfc3339};
use millstream_server::{Latency, Probability};
use millstream_wire::{
    AccountId, ConsumerArn, ConsumerName, HashKey, Region, SequenceNumber, ShardId, StreamArn,
    StreamName,
};
use std::fmt::{Debug, Display};
use std::str::FromStr;

pub(crate) struct Texts;

/// Reads a text; 1 if it is understood, and then it must be read as written.
fn read<T: FromStr + Display + PartialEq + Debug>(text: &str) -> u64 {
    let Ok(value) = text.parse::<T>() else {
        return 0;
    };
    let written = value.to_string();
    assert_eq!(
        written.parse::<T>().ok().as_ref(),
        Some(&value),
        "{written}"
    );
    1
}

impl Target for Texts {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let seeds = [
            "orders",
            "arn:aws:kinesis:us-east-1:000000000000:stream/orders",
            "arn:aws-cn:kinesis:cn-north-1:000000000000:stream/orders/consumer/reader:1700000000",
            "shardId-000000000007",
            "340282366920938463463374607431768211455",
            "49600000000000000000000000000000000000000000000000000001",
            "TRIM_HORIZON",
            "AT_TIMESTAMP:1700000000000",
            "AT_SEQUENCE_NUMBER:5",
            "5:7",
            "2026-01-31T09:00:00.5+01:00",
            "1769846400.25",
            "10-20",
            "0.5",
            "",
        ];
        seeds.map(|text| text.as_bytes().to_vec()).to_vec()
    }

    fn tokens(&self) -> &'static [&'static [u8]] {
        &[
            b":",
            b"/",
            b"-",
            b"+",
            b".",
            b"T",
            b"Z",
            b"e9",
            b"inf",
            b"NaN",
            b"0",
            b"999999999999999999999999",
            b"9999-12-31T23:59:60Z",
            b"shardId-",
            b"consumer/",
            b"stream/",
            b"\xc3\xa9",
            b"\0",
            b" ",
            b"+00:00",
        ]
    }

    fn run(&mut self, input: &[u8]) -> u64 {
        let text = String::from_utf8_lossy(input);
        let understood = [
            read::<StreamName>(&text),
            read::<ConsumerName>(&text),
            read::<StreamArn>(&text),
            read::<ConsumerArn>(&text),
            read::<ShardId>(&text),
            read::<HashKey>(&text),
            read::<SequenceNumber>(&text),
            read::<Position>(&text),
            read::<Region>(&text),
            read::<AccountId>(&text),
            u64::from(text.parse::<Latency>().is_ok()),
            u64::from(text.parse::<Probability>().is_ok()),
        ];
        if let Ok(number) = text.parse::<SequenceNumber>() {
            let _ = (number.normalized(), number.origin());
        }
        let time = parse_time(&text);
        if let Ok(ms) = time {
            assert_eq!(parse_time(&rfc3339(ms)).ok(), Some(ms), "{text:?}");
        }
        let mut all = understood.iter().fold(0, |all, one| all * 2 + one);
        all = all * 2 + u64::from(time.is_ok());
        all << 8 | shape(text.len().min(200)) & 0x0f
    }
}
