//! What happened in a run, in the order in which it happened: what the checker judges and what a failure shows.

use crate::checkpoint::Position;
use crate::error::ErrorKind;
use crate::lease::{Lease, LeaseKey, LeaseToken, PendingCheckpoint};
use millstream_wire::SequenceNumber;
use std::fmt;
use std::time::Duration;

/// A user record: its sequence number, and its index within an aggregate.
pub(super) type RecordId = (SequenceNumber, u64);

/// Something that happened.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Since the beginning of the run, on the world's clock.
    pub(super) at: Duration,
    pub(super) what: What,
}

#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a test may be wasteful")]
pub(super) enum What {
    /// The store changed a lease.
    Lease(Change),
    /// A record processor was called, or did something.
    Step { tenure: usize, step: Step },
    /// The harness did something, or saw it.
    World(Event),
    /// What the worker says about itself, where that is asked for.
    Said(String),
}

/// One change of one lease, as the store applied it.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) verb: &'static str,
    pub(super) host: usize,
    /// The token that the call proved its tenure with, if its verb asks for one.
    pub(super) by: Option<LeaseToken>,
    pub(super) before: Option<Lease>,
    pub(super) after: Option<Lease>,
}

/// What a record processor was told and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Created,
    Initialized,
    /// Records were handed over.
    Began(Vec<RecordId>),
    /// The processor declares them done: their effects are durable.
    Handled(Vec<RecordId>),
    Succeeded,
    Failed,
    /// A pending checkpoint was asked for and answered.
    Prepared(Position, Option<ErrorKind>),
    /// A checkpoint was asked for.
    Asked(Position),
    /// And answered.
    Answered(Position, Option<ErrorKind>),
    LeaseLost,
    ShardEnded,
    ShutdownRequested,
    /// The processor's answer to it: whether it has checkpointed what it handled.
    ShutdownAnswered(bool),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    Started {
        host: usize,
        worker: String,
    },
    Ended {
        host: usize,
        worker: String,
        error: Option<ErrorKind>,
        text: String,
    },
    Panicked {
        host: usize,
        worker: String,
    },
    ShutdownAsked {
        host: usize,
        worker: String,
    },
    Crashed {
        host: usize,
        worker: String,
        failover: Duration,
    },
    Paused {
        host: usize,
    },
    Resumed {
        host: usize,
    },
    /// The store runs a registration: earlier runs under this id are over.
    Registered {
        worker: String,
    },
    Put {
        shard: LeaseKey,
        sequence: SequenceNumber,
        users: u64,
    },
    /// A record was kept as a dead letter, which is as good as processed.
    Letter {
        record: RecordId,
    },
    Reshard {
        closed: Vec<String>,
        opened: Vec<String>,
    },
    StreamDeleted {
        identity: String,
    },
    StreamCreated {
        identity: String,
    },
    ClockStepped {
        skew_ms: i64,
    },
    /// From here on anything may fail.
    FaultsBegin,
    /// From here on nothing fails, and processors are quick.
    FaultsEnd,
    /// Everything is in its place after the faults.
    Settled,
    /// Nothing failed for so long that the bounds on times hold.
    Calm,
    /// Everything is processed and in its place for good.
    Quiet,
    /// It never came to that.
    NeverQuiet {
        why: String,
    },
    Fault(String),
}

/// One processor: one tenure of one worker on one shard, if none of its calls to the factory failed.
#[derive(Debug, Clone)]
pub(super) struct Tenure {
    pub(super) host: usize,
    pub(super) worker: String,
    pub(super) shard_id: String,
    /// Where it was told to begin.
    pub(super) position: Position,
    /// What it was told an earlier owner had prepared.
    pub(super) pending: Option<PendingCheckpoint>,
    /// Known from the first batch on.
    pub(super) token: Option<LeaseToken>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct History {
    pub(super) entries: Vec<Entry>,
    pub(super) tenures: Vec<Tenure>,
}

impl History {
    pub(super) fn note(&mut self, at: Duration, what: What) {
        self.entries.push(Entry { at, what });
    }

    /// A number that two runs share only if they were the same.
    pub(super) fn fingerprint(&self) -> u64 {
        let texts = self.entries.iter().map(|entry| format!("{entry:?}"));
        let tenures = self.tenures.iter().map(|tenure| format!("{tenure:?}"));
        texts
            .chain(tenures)
            .fold(0xcbf2_9ce4_8422_2325, |hash, text| {
                text.bytes().fold(hash, |hash, byte| {
                    (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
                })
            })
    }

    /// One line for one entry.
    pub(super) fn line(&self, entry: &Entry) -> String {
        let at = entry.at.as_secs_f64();
        match &entry.what {
            What::Lease(change) => format!("[{at:9.3}] store  {change}"),
            What::Step { tenure, step } => {
                let Tenure {
                    host,
                    worker,
                    shard_id,
                    token,
                    ..
                } = &self.tenures[*tenure];
                let counter = token.as_ref().map_or(0, |token| token.counter);
                let shard = short(shard_id);
                format!("[{at:9.3}] host {host} {worker} tenure {tenure} {shard}#{counter}: {step}")
            }
            What::World(Event::Put {
                shard,
                sequence,
                users,
            }) => {
                let shard = short(&shard.shard_id);
                format!("[{at:9.3}] put    {shard} {sequence} of {users} user records")
            }
            What::World(event) => format!("[{at:9.3}] ---    {event:?}"),
            What::Said(text) => format!("[{at:9.3}]        {text}"),
        }
    }
}

/// The end of a shard's id.
pub(super) fn short(shard_id: &str) -> String {
    let digits = shard_id
        .trim_start_matches("shardId-")
        .trim_start_matches('0');
    format!("s{}", if digits.is_empty() { "0" } else { digits })
}

fn records(ids: &[RecordId]) -> String {
    let texts = ids.iter().map(|(sequence, sub)| match sub {
        0 => sequence.to_string(),
        sub => format!("{sequence}:{sub}"),
    });
    texts.collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Began(ids) => write!(f, "began {}", records(ids)),
            Step::Handled(ids) => write!(f, "handled {}", records(ids)),
            Step::Asked(position) => write!(f, "checkpoints {position}"),
            Step::Answered(position, None) => write!(f, "checkpoint {position}: done"),
            Step::Answered(position, Some(kind)) => write!(f, "checkpoint {position}: {kind:?}"),
            other => write!(f, "{other:?}"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = |lease: &Option<Lease>| match lease {
            None => "absent".to_owned(),
            Some(lease) => format!(
                "{}#{} {}",
                lease.owner.as_deref().unwrap_or("nobody"),
                lease.counter,
                lease.checkpoint
            ),
        };
        let key = self
            .after
            .as_ref()
            .or(self.before.as_ref())
            .map(|lease| &lease.key);
        let shard = key.map_or(String::new(), |key| {
            let created = key.stream.rsplit('@').next().unwrap_or_default();
            format!(
                "{}@{}",
                short(&key.shard_id),
                &created[created.len().saturating_sub(6)..]
            )
        });
        let (before, after) = (state(&self.before), state(&self.after));
        write!(
            f,
            "{:<13} {shard}: {before} -> {after} (host {})",
            self.verb, self.host
        )
    }
}
