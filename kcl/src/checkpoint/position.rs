//! Positions in a shard: where an application has got to, and where it starts.

use millstream_wire::SequenceNumber;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// How far an application has got in a shard. Reading resumes *after* it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Position {
    /// Nothing processed yet: start at the oldest record still retained.
    TrimHorizon,
    /// Nothing processed yet: start at the first record that arrived at or after this time,
    /// milliseconds since 1970 by the stream server's clock.
    AtTimestamp(u64),
    /// Nothing of this record is done, everything before it is no concern: start with it. It is what a starting time becomes
    /// once the first record is known, so that no later reading of clocks decides again (K4).
    AtSequence(SequenceNumber),
    /// Everything up to and including this record is done.
    Sequence {
        /// The last finished record.
        sequence: SequenceNumber,
        /// The last finished user record within it, by its index from 0; `u64::MAX` if the whole record is finished.
        sub_sequence: u64,
    },
    /// The whole shard is done; final.
    ShardEnd,
}

impl Position {
    /// Everything up to and including `sequence` is done.
    pub fn after(sequence: SequenceNumber) -> Position {
        Position::Sequence {
            sequence,
            sub_sequence: u64::MAX,
        }
    }

    /// Whether the store may replace `self` by `next`: forward or equal, never back (K3). The starting
    /// positions are before every record and may replace only themselves.
    pub fn may_advance_to(&self, next: &Position) -> bool {
        match self.partial_cmp(next) {
            Some(Ordering::Less | Ordering::Equal) => true,
            Some(Ordering::Greater) | None => false,
        }
    }

    /// A record, and how much of it is done: nothing, or up to a user record.
    fn record(self) -> Option<(SequenceNumber, Option<u64>)> {
        match self {
            Position::AtSequence(sequence) => Some((sequence, None)),
            Position::Sequence {
                sequence,
                sub_sequence,
            } => Some((sequence, Some(sub_sequence))),
            Position::TrimHorizon | Position::AtTimestamp(_) | Position::ShardEnd => None,
        }
    }

    fn rank(self) -> u8 {
        match self {
            Position::TrimHorizon | Position::AtTimestamp(_) => 0,
            Position::AtSequence(_) | Position::Sequence { .. } => 1,
            Position::ShardEnd => 2,
        }
    }
}

impl PartialOrd for Position {
    /// Starting positions < records < shard end. Two different starting positions do not compare.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self.record(), other.record()) {
            (Some(record), Some(other)) => Some(record.cmp(&other)),
            _ if self == other => Some(Ordering::Equal),
            _ if self.rank() == other.rank() => None,
            _ => Some(self.rank().cmp(&other.rank())),
        }
    }
}

/// The text is not a stored position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a checkpoint: expected TRIM_HORIZON, AT_TIMESTAMP:milliseconds, AT_SEQUENCE_NUMBER:number, SHARD_END, a sequence number, or sequence:sub-sequence"
)]
pub struct InvalidPosition(pub String);

impl fmt::Display for Position {
    /// The stored form. A position after a whole record is the bare sequence number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::TrimHorizon => f.write_str("TRIM_HORIZON"),
            Position::AtTimestamp(ms) => write!(f, "AT_TIMESTAMP:{ms}"),
            Position::AtSequence(sequence) => write!(f, "AT_SEQUENCE_NUMBER:{sequence}"),
            Position::Sequence {
                sequence,
                sub_sequence: u64::MAX,
            } => write!(f, "{sequence}"),
            Position::Sequence {
                sequence,
                sub_sequence,
            } => write!(f, "{sequence}:{sub_sequence}"),
            Position::ShardEnd => f.write_str("SHARD_END"),
        }
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || InvalidPosition(text.chars().take(200).collect());
        match text {
            "TRIM_HORIZON" => return Ok(Position::TrimHorizon),
            "SHARD_END" => return Ok(Position::ShardEnd),
            _ => {}
        }
        if let Some(ms) = text.strip_prefix("AT_TIMESTAMP:") {
            return ms.parse().map(Position::AtTimestamp).map_err(|_| refused());
        }
        if let Some(number) = text.strip_prefix("AT_SEQUENCE_NUMBER:") {
            let number = number.parse().map_err(|_| refused())?;
            return Ok(Position::AtSequence(number));
        }
        let (sequence, sub_sequence) = match text.split_once(':') {
            None => (text, u64::MAX),
            Some((sequence, sub)) => (sequence, sub.parse().map_err(|_| refused())?),
        };
        Ok(Position::Sequence {
            sequence: sequence.parse().map_err(|_| refused())?,
            sub_sequence,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions() -> Vec<Position> {
        let number = |text: &str| -> SequenceNumber { text.parse().unwrap() };
        let within = |text, sub_sequence| Position::Sequence {
            sequence: number(text),
            sub_sequence,
        };
        vec![
            Position::AtSequence(number("5")),
            within("5", 0),
            within("5", 7),
            Position::after(number("5")),
            Position::AtSequence(number("6")),
            Position::after(number("6")),
            Position::ShardEnd,
        ]
    }

    #[test]
    fn k3_records_and_the_end_are_in_one_order() {
        let positions = positions();
        for (rank, one) in positions.iter().enumerate() {
            for (other_rank, other) in positions.iter().enumerate() {
                assert_eq!(
                    one.partial_cmp(other),
                    Some(rank.cmp(&other_rank)),
                    "{one} and {other}"
                );
            }
            for start in [Position::TrimHorizon, Position::AtTimestamp(3)] {
                assert!(
                    start.may_advance_to(one) && !one.may_advance_to(&start),
                    "{one}"
                );
            }
        }
        assert!(!Position::TrimHorizon.may_advance_to(&Position::AtTimestamp(3)));
    }

    #[test]
    fn every_position_is_read_as_it_was_written() {
        for position in [Position::TrimHorizon, Position::AtTimestamp(3)]
            .into_iter()
            .chain(positions())
        {
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        for text in [
            "",
            "LATEST",
            "AT_SEQUENCE_NUMBER:",
            "AT_SEQUENCE_NUMBER:x",
            "5:",
            "5:x",
            ":5",
            "-1",
        ] {
            assert!(text.parse::<Position>().is_err(), "{text:?}");
        }
    }
}
