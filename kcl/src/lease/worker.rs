//! What the workers of an application tell each other: who lives, for which stream, and how busy the shards are.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A worker's row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerRow {
    /// The worker's id.
    pub worker_id: String,
    /// Grows while the worker lives.
    pub heartbeat: u64,
    /// What it said of itself last.
    pub profile: WorkerProfile,
    /// How busy its shards were at its last heartbeat.
    pub loads: Loads,
}

/// What a worker says of itself when it registers, and when it changes. What an older version did not say is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerProfile {
    /// The streams ([`LeaseKey::stream`](super::LeaseKey::stream)) whose shards it processes.
    pub streams: Option<BTreeSet<String>>,
    /// Its fail-over time: how long its heartbeat may stand still before others may take its leases.
    pub failover: Option<Duration>,
    /// The most leases it holds.
    pub max_leases: Option<u64>,
}

/// How busy a shard is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Bytes delivered per second, lately.
    #[serde(rename = "b", default)]
    pub bytes_per_second: u64,
    /// How far it is behind the tip, milliseconds.
    #[serde(rename = "l", default)]
    pub behind_ms: u64,
}

/// Loads by stream ([`LeaseKey::stream`](super::LeaseKey::stream)) and shard id; a shard that is not named is idle. Written with a
/// heartbeat, so that they cost no write of their own.
pub type Loads = BTreeMap<String, BTreeMap<String, Load>>;

/// A worker's registration: what it needs to renew itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The worker's id.
    pub worker_id: String,
    /// Distinguishes runs under one id.
    pub incarnation: u64,
}
