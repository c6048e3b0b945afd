//! What operators see beside what workers plan from: since when a lease has its owner, and what troubles the shards of a worker.

use super::{LeaseKey, Snapshot};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything about an application, read in one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Leases and workers.
    pub snapshot: Snapshot,
    /// Since when each lease that is owned has its owner, milliseconds since 1970 by the clock of the database; a store in memory
    /// goes by the process's. For people only: nothing is decided by it. A lease last taken by an older version has none.
    pub owned_since_ms: BTreeMap<LeaseKey, u64>,
    /// What troubles the shards of each worker, as of its last heartbeat. Workers without trouble are not named.
    pub troubles: BTreeMap<String, Vec<Trouble>>,
}

/// What keeps a shard from getting on, in the words of the worker that holds it. Written with a heartbeat, so that it costs no write of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The shard's stream ([`LeaseKey::stream`]); without it, the one stream of the worker.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The shard.
    #[serde(rename = "k")]
    pub shard_id: String,
    /// What is wrong, at most [`TROUBLE_MAX_CHARS`] characters.
    #[serde(rename = "w")]
    pub what: String,
    /// For how long it had been so at the heartbeat, milliseconds.
    #[serde(rename = "ms", default)]
    pub for_ms: u64,
}

/// Shards in trouble that one heartbeat names at most: those that have been so for longest.
pub const TROUBLES_MAX: usize = 64;
/// The longest text of one trouble.
pub const TROUBLE_MAX_CHARS: usize = 300;

impl Inspection {
    /// What troubles the shard, by the account of `worker_id`.
    pub fn trouble(&self, worker_id: &str, key: &LeaseKey) -> Option<&Trouble> {
        let is_it = |trouble: &&Trouble| {
            let same_stream = trouble.stream.as_ref().is_none_or(|own| *own == key.stream);
            trouble.shard_id == key.shard_id && same_stream
        };
        self.troubles.get(worker_id)?.iter().find(is_it)
    }
}
