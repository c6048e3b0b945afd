//! The stream as it is now, and where each of its shards is to start: planned as for an application without leases.

use super::rfc3339;
use crate::checkpoint::Position;
use crate::client::{IteratorStart, KinesisApi, Shard};
use crate::config::InitialPosition;
use crate::error::{Error, ErrorKind};
use crate::lease::{Lease, LeaseKey, NewLease};
use crate::shard::sync::{SyncInput, plan};
use millstream_wire::SequenceNumber;
use std::collections::BTreeSet;
use std::fmt;

/// How far clocks within the endpoint may differ when a time is taken for one to come.
const FUTURE_SLACK_MS: u64 = 2_000;
/// Where an application is to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// The oldest record still retained.
    TrimHorizon,
    /// Now, by the stream server's clock, rounded down to the second: what was put before is passed over.
    Latest,
    /// The first record that arrived at or after this time, milliseconds since 1970 by the stream server's clock.
    Time(u64),
    /// This record; for one shard.
    Sequence(SequenceNumber),
}

impl fmt::Display for StartAt {
    /// In words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartAt::TrimHorizon => f.write_str("trim horizon"),
            StartAt::Latest => f.write_str("latest"),
            StartAt::Time(ms) => f.write_str(&rfc3339(*ms)),
            StartAt::Sequence(number) => write!(f, "sequence number {number}"),
        }
    }
}

/// The stream as the endpoint describes it.
pub(super) struct Ground {
    pub(super) identity: String,
    /// The server's clock, read after it was seen which shards are open.
    server_time_ms: u64,
    open: BTreeSet<String>,
    shards: Vec<Shard>,
}

impl Ground {
    pub(super) async fn of(client: &dyn KinesisApi, stream: &str) -> Result<Ground, Error> {
        let open = client.list_shards(stream).await?;
        let summary = client.describe_stream(stream).await?;
        // Listed again: a shard that came in between must have its lease.
        let shards = client.list_shards(stream).await?;
        if shards.is_empty() || summary.status == "CREATING" || summary.status == "DELETING" {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "stream {stream} is {} and lists {} shards: try again when it is ACTIVE",
                    summary.status,
                    shards.len()
                ),
            ));
        }
        let open = open.into_iter().filter(|shard| !shard.closed);
        Ok(Ground {
            identity: summary.identity(),
            server_time_ms: summary.server_time_ms,
            open: open.map(|shard| shard.shard_id).collect(),
            shards,
        })
    }

    fn key(&self, shard_id: &str) -> LeaseKey {
        LeaseKey {
            stream: self.identity.clone(),
            shard_id: shard_id.to_owned(),
        }
    }

    /// A time that is still to come would be refused by the endpoint, again and again.
    fn past(&self, ms: u64) -> Result<u64, Error> {
        if ms <= self.server_time_ms.saturating_add(FUTURE_SLACK_MS) {
            return Ok(ms);
        }
        Err(Error::new(
            ErrorKind::Configuration,
            format!(
                "{} is still to come: the stream server's clock is at {}; give a time of the past, or `latest`",
                rfc3339(ms),
                rfc3339(self.server_time_ms)
            ),
        ))
    }

    /// Every shard that needs a lease, as if there were none. Leases that are there and needed no more are ended: those of shards that closed before
    /// the new start, and of shards that are not listed any more.
    pub(super) fn starts(&self, to: StartAt, leases: &[&Lease]) -> Result<Vec<NewLease>, Error> {
        let initial = match to {
            StartAt::TrimHorizon => InitialPosition::TrimHorizon,
            StartAt::Latest => InitialPosition::Latest,
            StartAt::Time(ms) => InitialPosition::AtTimestamp(self.past(ms)?),
            StartAt::Sequence(_) => {
                return Err(Error::new(
                    ErrorKind::Configuration,
                    "a sequence number belongs to one shard: name the shard, or give a time for the whole stream",
                ));
            }
        };
        let mut starts = plan(SyncInput {
            stream: &self.identity,
            shards: &self.shards,
            leases: &[],
            damaged: &[],
            initial,
            started_ms: self.server_time_ms,
            open_at_start: &self.open,
        })
        .create;
        let needed: BTreeSet<LeaseKey> = starts.iter().map(|start| start.key.clone()).collect();
        let surplus = leases.iter().filter(|lease| !needed.contains(&lease.key));
        starts.extend(surplus.map(|lease| NewLease {
            key: lease.key.clone(),
            checkpoint: Position::ShardEnd,
            parents: lease.parents.clone(),
            hash_key_range: lease.hash_key_range,
        }));
        Ok(starts)
    }

    /// One shard.
    pub(super) async fn start(
        &self,
        client: &dyn KinesisApi,
        stream: &str,
        shard_id: &str,
        to: StartAt,
    ) -> Result<NewLease, Error> {
        let listed = self.shards.iter().find(|shard| shard.shard_id == shard_id);
        let shard = listed.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("stream {stream} lists no shard {shard_id:?}: check its id, or its records outlived the retention"),
            )
        })?;
        let checkpoint = match to {
            StartAt::TrimHorizon => Position::TrimHorizon,
            StartAt::Latest => Position::AtTimestamp(self.server_time_ms),
            StartAt::Time(ms) => Position::AtTimestamp(self.past(ms)?),
            StartAt::Sequence(number) => {
                // The endpoint knows whether the number is the shard's.
                let at = IteratorStart::AtSequence(number);
                let iterator = client.shard_iterator(stream, shard_id, at).await;
                iterator.map_err(|error| {
                    let kind = match error.kind() {
                        ErrorKind::Protocol => ErrorKind::Configuration,
                        kind => kind,
                    };
                    Error::with_source(
                        kind,
                        format!("sequence number {number} is none to start at in shard {shard_id}"),
                        error,
                    )
                })?;
                Position::AtSequence(number)
            }
        };
        Ok(NewLease {
            key: self.key(shard_id),
            checkpoint,
            parents: shard.parents.clone(),
            hash_key_range: Some(shard.hash_key_range),
        })
    }
}
