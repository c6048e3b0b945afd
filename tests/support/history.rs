//! What happened in a test, as data: what was acknowledged, what was read, what a worker reported.
//! The checkers judge these; nothing here decides anything.

use serde_json::Value;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A sequence number as the wire has it: decimal text, ordered as a number.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Sequence(String);

impl Sequence {
    /// From decimal text; panics on anything else, as no server may hand it out.
    pub fn new(text: &str) -> Sequence {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        assert!(
            digits && (text == "0" || !text.starts_with('0')),
            "sequence number {text:?}"
        );
        Sequence(text.to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Ord for Sequence {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0.len(), &self.0).cmp(&(other.0.len(), &other.0))
    }
}

impl PartialOrd for Sequence {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a writer put: its name and its running number, the record's payload and key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Written {
    /// The writer, also the partition key.
    pub writer: String,
    /// Its running number; never used twice, whatever became of the put.
    pub n: u64,
}

impl Written {
    /// The payload.
    pub fn payload(&self) -> String {
        format!("{}:{}", self.writer, self.n)
    }

    /// The payload, and so many bytes more that depend on it.
    pub fn padded(&self, bytes: usize) -> String {
        let payload = self.payload();
        let padding = payload.bytes().cycle().take(bytes);
        let separator = if bytes > 0 { ":" } else { "" };
        let padding: String = padding.map(char::from).collect();
        format!("{payload}{separator}{padding}")
    }

    /// What the record adds to the sum of its writer: such that a record more and another less hardly ever come to the same.
    pub fn amount(&self) -> i64 {
        i64::try_from(self.n.wrapping_mul(2_654_435_761) % (1 << 20)).unwrap_or_default()
    }

    /// What a payload says, padded or not; panics on one that no writer made.
    pub fn parse(payload: &[u8]) -> Written {
        let text = String::from_utf8_lossy(payload);
        let parsed = text.split_once(':').and_then(|(writer, rest)| {
            let (n, padding) = rest.split_once(':').unwrap_or((rest, ""));
            let written = Written {
                writer: writer.to_owned(),
                n: n.parse().ok()?,
            };
            (written.padded(padding.len()) == text).then_some(written)
        });
        parsed.unwrap_or_else(|| panic!("no writer wrote {text:?}"))
    }
}

/// An acknowledged put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acked {
    /// What was put.
    pub written: Written,
    /// The shard it went to.
    pub shard: String,
    /// The number it got.
    pub sequence: Sequence,
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRecord {
    /// What it holds.
    pub written: Written,
    /// Its number.
    pub sequence: Sequence,
}

/// A shard with everything read from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadShard {
    /// The shard's id.
    pub shard: String,
    /// What it was split or merged from.
    pub parents: Vec<String>,
    /// Whether it takes no more records.
    pub closed: bool,
    /// Its records as read.
    pub records: Vec<ReadRecord>,
}

/// A record's place: shard and number.
pub type Place = (String, Sequence);

/// Something a worker reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When the worker said it, by [`crate::clock::now_us`].
    pub at_us: u64,
    /// The worker's id.
    pub worker: String,
    /// What it said.
    pub kind: EventKind,
}

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// The worker is about to run.
    Started,
    /// A processor begins: a tenure of a shard.
    Initialized {
        /// The shard.
        shard: String,
    },
    /// A batch was delivered; said before anything is done about it.
    Delivered {
        /// The shard.
        shard: String,
        /// The records in order.
        sequences: Vec<Sequence>,
    },
    /// Everything delivered so far in this tenure was checkpointed.
    Checkpointed {
        /// The shard.
        shard: String,
    },
    /// A checkpoint was refused.
    Refused {
        /// The shard.
        shard: String,
        /// The kind of error.
        error: String,
    },
    /// The lease went away.
    LeaseLost {
        /// The shard.
        shard: String,
    },
    /// The shard was read to its end.
    Ended {
        /// The shard.
        shard: String,
    },
    /// The processor was asked to finish.
    ShutdownRequested {
        /// The shard.
        shard: String,
    },
    /// Something of a worker's own: a mishap it made, a phase it finished.
    Noted {
        /// The shard.
        shard: String,
        /// In a word or two.
        what: String,
    },
    /// The worker has stopped in an orderly way.
    Stopped,
}

impl EventKind {
    /// The shard it is about.
    pub fn shard(&self) -> Option<&str> {
        match self {
            EventKind::Started | EventKind::Stopped => None,
            EventKind::Initialized { shard }
            | EventKind::Delivered { shard, .. }
            | EventKind::Checkpointed { shard }
            | EventKind::Refused { shard, .. }
            | EventKind::LeaseLost { shard }
            | EventKind::Ended { shard }
            | EventKind::ShutdownRequested { shard }
            | EventKind::Noted { shard, .. } => Some(shard),
        }
    }
}

impl Event {
    /// The event of a line that a worker printed; `None` for the torn last line of a killed one.
    pub fn parse(line: &str) -> Option<Event> {
        let json: Value = serde_json::from_str(line).ok()?;
        let shard = || json["shard"].as_str().map(str::to_owned);
        let kind = match json["event"].as_str()? {
            "started" => EventKind::Started,
            "initialized" => EventKind::Initialized { shard: shard()? },
            "delivered" => {
                let sequences = json["sequences"].as_array()?;
                let sequences = sequences
                    .iter()
                    .filter_map(Value::as_str)
                    .map(Sequence::new);
                EventKind::Delivered {
                    shard: shard()?,
                    sequences: sequences.collect(),
                }
            }
            "checkpointed" => EventKind::Checkpointed { shard: shard()? },
            "refused" => EventKind::Refused {
                shard: shard()?,
                error: json["error"].as_str()?.to_owned(),
            },
            "lease_lost" => EventKind::LeaseLost { shard: shard()? },
            "ended" => EventKind::Ended { shard: shard()? },
            "shutdown_requested" => EventKind::ShutdownRequested { shard: shard()? },
            "noted" => EventKind::Noted {
                shard: shard()?,
                what: json["what"].as_str()?.to_owned(),
            },
            "stopped" => EventKind::Stopped,
            other => panic!("a worker said {other:?}"),
        };
        Some(Event {
            at_us: json["at_us"].as_u64()?,
            worker: json["worker"].as_str()?.to_owned(),
            kind,
        })
    }
}

/// How often each record was delivered.
pub fn deliveries(events: &[Event]) -> BTreeMap<Place, usize> {
    let mut counts = BTreeMap::new();
    for event in events {
        if let EventKind::Delivered { shard, sequences } = &event.kind {
            for sequence in sequences {
                *counts.entry((shard.clone(), sequence.clone())).or_insert(0) += 1;
            }
        }
    }
    counts
}

/// The records of `worker` that were delivered and not checkpointed by its own account, on leases it has not
/// lost: what a kill at the end of `events` may lead to be delivered again.
pub fn outstanding(events: &[Event], worker: &str) -> BTreeSet<Place> {
    let mut open: BTreeSet<Place> = BTreeSet::new();
    for event in events.iter().filter(|event| event.worker == worker) {
        match &event.kind {
            EventKind::Delivered { shard, sequences } => {
                open.extend(
                    sequences
                        .iter()
                        .map(|sequence| (shard.clone(), sequence.clone())),
                );
            }
            EventKind::Checkpointed { shard } | EventKind::LeaseLost { shard } => {
                open.retain(|(of, _)| of != shard);
            }
            _ => {}
        }
    }
    open
}

/// What was outstanding at each loss of a lease that a worker reported: it may be delivered again, too.
pub fn outstanding_at_losses(events: &[Event]) -> Vec<BTreeSet<Place>> {
    let lost = events
        .iter()
        .enumerate()
        .filter_map(|(at, event)| match &event.kind {
            EventKind::LeaseLost { shard } => Some((at, event.worker.as_str(), shard)),
            _ => None,
        });
    lost.map(|(at, worker, shard)| {
        let mut open = outstanding(&events[..at], worker);
        open.retain(|(of, _)| of == shard);
        open
    })
    .collect()
}

/// Which worker began the latest tenure of each shard that has not ended.
pub fn holders(events: &[Event]) -> BTreeMap<String, String> {
    let mut holders = BTreeMap::new();
    for event in events {
        match &event.kind {
            EventKind::Initialized { shard } => {
                holders.insert(shard.clone(), event.worker.clone());
            }
            EventKind::Ended { shard } => {
                holders.remove(shard);
            }
            _ => {}
        }
    }
    holders
}

/// When `worker` was first handed records of `shard` after `since_us`.
pub fn first_delivery(events: &[Event], worker: &str, shard: &str, since_us: u64) -> Option<u64> {
    let delivered = events.iter().filter(|event| {
        let records = matches!(event.kind, EventKind::Delivered { .. });
        records && event.worker == worker && event.kind.shard() == Some(shard)
    });
    delivered.map(|event| event.at_us).find(|at| *at > since_us)
}

/// How often workers noted each thing.
pub fn noted(events: &[Event]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for event in events {
        if let EventKind::Noted { what, .. } = &event.kind {
            *counts.entry(what.clone()).or_insert(0) += 1;
        }
    }
    counts
}

/// How often checkpoints were refused, by kind of error.
pub fn refusals(events: &[Event]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for event in events {
        if let EventKind::Refused { error, .. } = &event.kind {
            let kind = error.split(':').next().unwrap_or_default();
            *counts.entry(kind.to_owned()).or_insert(0) += 1;
        }
    }
    counts
}
