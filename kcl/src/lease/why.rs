//! Why a shard is where it is: what its lease says, as a pure function of what all workers read (K10).

use super::{LeaseKey, Snapshot};
use crate::checkpoint::Position;
use std::fmt;

/// What a lease says about its shard.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// Everything in it is done.
    Ended,
    /// A worker holds it: that worker's [`WorkerHandle::shards`](crate::WorkerHandle::shards) says what it is doing.
    Held {
        /// The holder.
        owner: String,
        /// Whether the holder has a row. If it has none it is dead, and its leases are taken over after the fail-over time.
        registered: bool,
        /// Who has asked for it.
        wanted_by: Option<String>,
    },
    /// Its parents come first (K6).
    WaitsForParents {
        /// Those that have not ended.
        parents: Vec<String>,
    },
    /// Nobody holds it; it is taken with the next look of a worker that has room.
    Free {
        /// The registered workers.
        workers: usize,
    },
    /// Its row makes no sense: nobody takes it until the row is repaired or deleted. The log says what is wrong with it.
    Damaged,
    /// There is no lease: the shard is not listed, not wanted from the initial position, or was found only just now.
    Unknown,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Standing::Ended => f.write_str("everything in it is done"),
            Standing::Held {
                owner,
                registered,
                wanted_by,
            } => {
                write!(f, "worker {owner:?} holds it")?;
                if !registered {
                    f.write_str(", but has no row: it is dead, the lease is taken over after the fail-over time")?;
                }
                match wanted_by {
                    Some(asker) => write!(f, "; {asker:?} has asked for it"),
                    None => Ok(()),
                }
            }
            Standing::WaitsForParents { parents } => {
                write!(f, "it begins when {} ended", parents.join(" and "))
            }
            Standing::Free { workers: 0 } => f.write_str("nobody holds it: no worker is running"),
            Standing::Free { workers } => write!(
                f,
                "nobody holds it: one of {workers} workers takes it soon, or all of them hold as many as they may"
            ),
            Standing::Damaged => {
                f.write_str("the row of its lease is damaged: repair or delete it")
            }
            Standing::Unknown => f.write_str("it has no lease"),
        }
    }
}

/// Why the shard is where it is.
pub fn why(snapshot: &Snapshot, key: &LeaseKey) -> Standing {
    if snapshot.damaged.contains(key) {
        return Standing::Damaged;
    }
    let Some(lease) = snapshot.leases.iter().find(|lease| lease.key == *key) else {
        return Standing::Unknown;
    };
    if lease.checkpoint == Position::ShardEnd {
        return Standing::Ended;
    }
    if let Some(owner) = &lease.owner {
        return Standing::Held {
            owner: owner.clone(),
            registered: snapshot.workers.iter().any(|row| row.worker_id == *owner),
            wanted_by: lease.wanted_by.clone(),
        };
    }
    let is_open = |parent: &&String| {
        let of_parent = LeaseKey {
            stream: key.stream.clone(),
            shard_id: (*parent).clone(),
        };
        let unfinished =
            |found: &super::Lease| found.key == of_parent && found.checkpoint != Position::ShardEnd;
        snapshot.leases.iter().any(unfinished) || snapshot.damaged.contains(&of_parent)
    };
    let parents: Vec<String> = lease.parents.iter().filter(is_open).cloned().collect();
    if parents.is_empty() {
        let workers = snapshot.workers.len();
        return Standing::Free { workers };
    }
    Standing::WaitsForParents { parents }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::{Lease, NewLease, WorkerRow, rules};

    fn lease(shard_id: &str, owner: Option<&str>, parents: &[&str]) -> Lease {
        let new = NewLease {
            key: key(shard_id),
            checkpoint: Position::TrimHorizon,
            parents: parents.iter().map(|parent| (*parent).to_owned()).collect(),
            hash_key_range: None,
        };
        Lease {
            owner: owner.map(str::to_owned),
            ..rules::create(&new)
        }
    }

    fn key(shard_id: &str) -> LeaseKey {
        LeaseKey {
            stream: "s".to_owned(),
            shard_id: shard_id.to_owned(),
        }
    }

    #[test]
    fn k10_every_lease_has_a_reason() {
        let mut ended = lease("ended", None, &[]);
        ended.checkpoint = Position::ShardEnd;
        let mut wanted = lease("wanted", Some("dead"), &[]);
        wanted.wanted_by = Some("w".to_owned());
        let snapshot = Snapshot {
            leases: vec![
                ended,
                wanted,
                lease("free", None, &["ended", "gone"]),
                lease("held", Some("w"), &[]),
                lease("child", None, &["held", "ended", "damaged"]),
            ],
            workers: vec![WorkerRow {
                worker_id: "w".to_owned(),
                ..WorkerRow::default()
            }],
            damaged: vec![key("damaged")],
        };
        let table = [
            ("ended", "everything in it is done"),
            ("held", "worker \"w\" holds it"),
            (
                "wanted",
                "it is dead, the lease is taken over after the fail-over time; \"w\" has asked for it",
            ),
            ("free", "one of 1 workers takes it soon"),
            ("child", "it begins when held and damaged ended"),
            ("damaged", "is damaged"),
            ("none", "it has no lease"),
        ];
        for (shard, words) in table {
            let reason = why(&snapshot, &key(shard)).to_string();
            assert!(reason.contains(words), "{shard}: {reason}");
        }
    }
}
