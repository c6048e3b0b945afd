//! How far an application is behind: in time by one read at each checkpoint, in records by reading on up to a bound.

use super::watch::STORE_LIMIT;
use super::{Operations, readable, rfc3339};
use crate::checkpoint::Position;
use crate::client::{IteratorStart, KinesisApi, RecordsPage};
use crate::error::{Error, ErrorKind};
use crate::lease::Lease;
use crate::lease::renew::bounded;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Shards that are read at once.
const AT_ONCE: usize = 8;
/// Pause between two reads of a shard: workers share the five reads a second with it.
const PAUSE: Duration = Duration::from_millis(250);
/// Pause after a refusal, and how often it is waited for.
const THROTTLED_PAUSE: Duration = Duration::from_secs(1);
const THROTTLED_MOST: u32 = 5;
/// Pages without records on the way to the first one.
const EMPTY_PAGES_MOST: u32 = 20;
/// Records of one page at most.
const PAGE: u64 = 10_000;

/// How far each shard of a stream is behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LagReport {
    /// The application.
    pub application: String,
    /// The stream's identity: `ARN@creation-milliseconds`.
    pub stream: String,
    /// Its shards: those listed, then those that have a lease and are not listed any more.
    pub shards: Vec<ShardLag>,
    /// The longest time that a shard is behind, milliseconds.
    pub behind_ms: u64,
    /// Records behind, of all shards together, as far as they were counted.
    pub records: u64,
    /// Whether there are more.
    pub or_more: bool,
    /// Shards that could not be judged: without a lease, or not read. Their `note` says why.
    pub not_judged: usize,
}

/// What a shard is, as far as its lag is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ShardState {
    /// It takes records.
    Open,
    /// It takes no more.
    Closed,
    /// It is not listed any more: its records outlived the retention.
    NotListed,
}

/// How far one shard is behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShardLag {
    /// The shard.
    pub shard_id: String,
    /// What it is.
    pub state: ShardState,
    /// How far the application has got, as it is stored; `None` without a lease.
    pub checkpoint: Option<String>,
    /// The same for people.
    pub checkpoint_readable: Option<String>,
    /// `MillisBehindLatest` of the first record after the checkpoint.
    pub behind_ms: Option<u64>,
    /// Records after the checkpoint, as they are stored: an aggregated one counts once.
    pub records: Option<u64>,
    /// Whether there are more than were counted.
    pub or_more: bool,
    /// When the first record after the checkpoint arrived, RFC 3339.
    pub oldest: Option<String>,
    /// What kept it from being judged.
    pub note: Option<String>,
}

/// What reading at a checkpoint found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Probed {
    pub(super) behind_ms: u64,
    pub(super) records: u64,
    pub(super) or_more: bool,
    pub(super) oldest_ms: Option<u64>,
}

impl Operations {
    /// How far each shard of the stream is behind. Records are counted up to `count_up_to` a shard, which reads them: at the cost of
    /// the shard's read limits, with pauses in between. 0 counts none.
    ///
    /// # Errors
    /// `NotFound`: there is no such stream, or the application has no leases. `Configuration`: it has leases of several streams and none is
    /// named. Others of the store and the endpoint. A shard that cannot be read says so in its `note`.
    pub async fn lag(&self, count_up_to: u64) -> Result<LagReport, Error> {
        let snapshot = bounded(STORE_LIMIT, self.store.snapshot(&self.application)).await?;
        let stream = self.stream_asked(&snapshot)?;
        let client = self.client_for(&stream)?;
        let identity = client.describe_stream(&stream).await?.identity();
        let listed = client.list_shards(&stream).await?;
        let leases: BTreeMap<&str, &Lease> = snapshot
            .leases
            .iter()
            .filter(|lease| lease.key.stream == identity)
            .map(|lease| (lease.key.shard_id.as_str(), lease))
            .collect();
        let ids: BTreeSet<&str> = listed.iter().map(|shard| shard.shard_id.as_str()).collect();
        let mut shards: Vec<ShardLag> = Vec::new();
        for shard in &listed {
            let state = if shard.closed {
                ShardState::Closed
            } else {
                ShardState::Open
            };
            shards.push(bare(
                &shard.shard_id,
                state,
                leases.get(shard.shard_id.as_str()).copied(),
            ));
        }
        let unlisted = leases.iter().filter(|(id, _)| !ids.contains(*id));
        shards.extend(unlisted.map(|(id, lease)| bare(id, ShardState::NotListed, Some(lease))));
        for shard in &mut shards {
            let damaged = |key: &crate::lease::LeaseKey| {
                key.stream == identity && key.shard_id == shard.shard_id
            };
            if snapshot.damaged.iter().any(damaged) {
                shard.note = Some("the row of its lease is damaged".to_owned());
            }
        }
        let of_former =
            |lease: &Lease| lease.key.stream != identity && self.is_former(lease, &identity);
        if leases.is_empty() && snapshot.leases.iter().any(of_former) {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "the leases of application {:?} belong to an earlier stream of this name; it is {identity} now: start the workers again to begin with it",
                    self.application
                ),
            ));
        }
        let probe = Probing {
            client,
            stream,
            count_up_to,
        };
        probe.all(&mut shards, &leases).await;
        Ok(self.sum_up(identity, shards))
    }

    /// Whether a lease belongs to an earlier stream of the same ARN.
    fn is_former(&self, lease: &Lease, identity: &str) -> bool {
        super::arn_of(&lease.key.stream) == super::arn_of(identity) && self.concerns(identity)
    }

    fn sum_up(&self, stream: String, shards: Vec<ShardLag>) -> LagReport {
        LagReport {
            application: self.application.clone(),
            stream,
            behind_ms: shards
                .iter()
                .filter_map(|shard| shard.behind_ms)
                .max()
                .unwrap_or(0),
            records: shards.iter().filter_map(|shard| shard.records).sum(),
            or_more: shards.iter().any(|shard| shard.or_more),
            not_judged: shards
                .iter()
                .filter(|shard| shard.behind_ms.is_none())
                .count(),
            shards,
        }
    }
}

fn bare(shard_id: &str, state: ShardState, lease: Option<&Lease>) -> ShardLag {
    let checkpoint = lease.map(|lease| lease.checkpoint);
    let ended = checkpoint == Some(Position::ShardEnd);
    let note = match (checkpoint, state) {
        (None, _) => Some("no lease".to_owned()),
        (Some(Position::ShardEnd), _) => None,
        (Some(_), ShardState::NotListed) => {
            Some("not listed any more: its records outlived the retention".to_owned())
        }
        _ => None,
    };
    ShardLag {
        shard_id: shard_id.to_owned(),
        state,
        checkpoint: checkpoint.map(|position| position.to_string()),
        checkpoint_readable: checkpoint.map(|position| readable(&position)),
        behind_ms: ended.then_some(0),
        records: ended.then_some(0),
        or_more: false,
        oldest: None,
        note,
    }
}

/// How shards are read.
#[derive(Debug, Clone)]
struct Probing {
    client: Arc<dyn KinesisApi>,
    stream: String,
    count_up_to: u64,
}

impl Probing {
    /// Reads every shard that has something to read.
    async fn all(&self, shards: &mut [ShardLag], leases: &BTreeMap<&str, &Lease>) {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for (index, shard) in shards.iter().enumerate() {
            let lease = leases.get(shard.shard_id.as_str());
            let Some(lease) = lease.filter(|_| shard.note.is_none() && shard.behind_ms.is_none())
            else {
                continue;
            };
            let (probing, checkpoint) = (self.clone(), lease.checkpoint);
            let (shard_id, room) = (shard.shard_id.clone(), Arc::clone(&room));
            tasks.spawn(async move {
                let _room = room.acquire_owned().await;
                let Probing {
                    client,
                    stream,
                    count_up_to,
                } = &probing;
                (
                    index,
                    probe(&**client, stream, &shard_id, checkpoint, *count_up_to).await,
                )
            });
        }
        while let Some(ended) = tasks.join_next().await {
            let Ok((index, probed)) = ended else { continue };
            let Some(shard) = shards.get_mut(index) else {
                continue;
            };
            match probed {
                Ok(probed) => {
                    shard.behind_ms = Some(probed.behind_ms);
                    shard.records = (self.count_up_to > 0).then_some(probed.records);
                    shard.or_more = self.count_up_to > 0 && probed.or_more;
                    shard.oldest = probed.oldest_ms.map(rfc3339);
                }
                Err(error) => shard.note = Some(format!("it cannot be read: {error}")),
            }
        }
    }
}

/// Reads one record after a checkpoint, and on to count what follows.
pub(super) async fn probe(
    client: &dyn KinesisApi,
    stream: &str,
    shard_id: &str,
    checkpoint: Position,
    count_up_to: u64,
) -> Result<Probed, Error> {
    let start = match checkpoint {
        Position::TrimHorizon => IteratorStart::TrimHorizon,
        Position::AtTimestamp(ms) => IteratorStart::AtTimestamp(ms),
        Position::AtSequence(number) => IteratorStart::AtSequence(number),
        Position::Sequence {
            sequence,
            sub_sequence: u64::MAX,
        } => IteratorStart::AfterSequence(sequence),
        Position::Sequence { sequence, .. } => IteratorStart::AtSequence(sequence),
        Position::ShardEnd => return Ok(Probed::default()),
    };
    let mut iterator = Some(client.shard_iterator(stream, shard_id, start).await?);
    let mut probed = Probed::default();
    let (mut limit, mut empty) = (1, 0);
    while let Some(current) = iterator {
        let page = patient_read(client, &current, limit).await?;
        if probed.records == 0 {
            probed.behind_ms = page.millis_behind_latest;
            probed.oldest_ms = page.records.first().map(crate::Record::arrival_ms);
        }
        probed.records += u64::try_from(page.records.len()).unwrap_or(u64::MAX);
        probed.or_more = page.millis_behind_latest > 0;
        empty = if page.records.is_empty() {
            empty + 1
        } else {
            0
        };
        let at_tip = page.millis_behind_latest == 0;
        if at_tip
            || empty >= EMPTY_PAGES_MOST
            || probed.records > 0 && probed.records >= count_up_to
        {
            break;
        }
        iterator = page.next_iterator;
        if probed.records > 0 {
            limit = u32::try_from((count_up_to - probed.records).min(PAGE)).unwrap_or(u32::MAX);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(probed)
}

/// A read that waits a few times when the shard is read too fast.
async fn patient_read(
    client: &dyn KinesisApi,
    iterator: &str,
    limit: u32,
) -> Result<RecordsPage, Error> {
    let mut refused = 0;
    loop {
        match client.get_records(iterator, limit).await {
            Err(error) if error.kind() == ErrorKind::Throttled && refused < THROTTLED_MOST => {
                refused += 1;
                tokio::time::sleep(THROTTLED_PAUSE).await;
            }
            answer => return answer,
        }
    }
}
