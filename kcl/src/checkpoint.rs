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
    /// Everything up to and including this record is done.
    Sequence {
        /// The last finished record.
        sequence: SequenceNumber,
        /// The last finished user record within it, if it is an aggregate; else 0.
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

    fn rank(self) -> u8 {
        match self {
            Position::TrimHorizon | Position::AtTimestamp(_) => 0,
            Position::Sequence { .. } => 1,
            Position::ShardEnd => 2,
        }
    }
}

impl PartialOrd for Position {
    /// Starting positions < records < shard end. Two different starting positions do not compare.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (
                Position::Sequence {
                    sequence,
                    sub_sequence,
                },
                Position::Sequence {
                    sequence: other_sequence,
                    sub_sequence: other_sub,
                },
            ) => Some((sequence, sub_sequence).cmp(&(other_sequence, other_sub))),
            _ if self == other => Some(Ordering::Equal),
            _ if self.rank() == other.rank() => None,
            _ => Some(self.rank().cmp(&other.rank())),
        }
    }
}

/// The text is not a stored position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a checkpoint: expected TRIM_HORIZON, AT_TIMESTAMP:milliseconds, SHARD_END, a sequence number, or sequence:sub-sequence"
)]
pub struct InvalidPosition(pub String);

impl fmt::Display for Position {
    /// The stored form. A position after a whole record is the bare sequence number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::TrimHorizon => f.write_str("TRIM_HORIZON"),
            Position::AtTimestamp(ms) => write!(f, "AT_TIMESTAMP:{ms}"),
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

/// Stores how far a processor has got; valid for one tenure of one lease.
#[derive(Debug, Clone)]
pub struct Checkpointer {}

impl Checkpointer {
    /// Everything delivered so far is done.
    pub async fn checkpoint(&self) -> Result<(), crate::Error> {
        Ok(())
    }
}
