//! Putting records: each goes to the open shard that owns its hash key.

use crate::engine::catalog::{Catalog, Shard, Stream};
use crate::engine::options::Distribution;
use crate::engine::{Engine, Error};
use crate::log::{self, Appended, LogShard, RecordBatch};
use millstream_wire::sequence::Parts;
use millstream_wire::shapes::Blob;
use millstream_wire::{HashKey, SequenceNumber, ShardId, StreamArn};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often records whose shard was closed meanwhile are sent on to its children.
const REROUTES_MAX: usize = 16;

/// A record to put.
#[derive(Debug, Clone, Copy)]
pub struct PutEntry<'a> {
    /// The producer's key; empty where a stream needs none.
    pub partition_key: &'a str,
    /// Where it goes, if not where its key hashes to.
    pub explicit_hash_key: Option<HashKey>,
    /// The payload.
    pub data: &'a Blob<'a>,
}

impl PutEntry<'_> {
    fn hash_key(&self) -> HashKey {
        self.explicit_hash_key
            .unwrap_or_else(|| HashKey::of_partition_key(self.partition_key))
    }

    /// Bytes that count against limits: data and partition key.
    pub fn counted_bytes(&self) -> usize {
        self.data
            .decoded_len()
            .saturating_add(self.partition_key.len())
    }
}

/// Where a record is now, durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its shard.
    pub shard: ShardId,
    /// Its place there.
    pub sequence: SequenceNumber,
}

/// Why one record of several was not taken.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// The shard's throughput is used up for the moment.
    Throttled(ShardId),
    /// The server has as much queued as it may hold.
    Overloaded(ShardId),
    /// The write failed; whether the record is stored is not known.
    Failed(log::Error),
}

impl Engine {
    /// Puts records and returns, in the order given, where each is or why it is not.
    ///
    /// Records of one shard keep their order: once one of them is refused, so are those after it.
    /// Cancel safety: records that were queued are stored even if the caller goes away.
    pub async fn put(
        &self,
        arn: &StreamArn,
        entries: &[PutEntry<'_>],
    ) -> Result<Vec<Result<Placed, Refusal>>, Error> {
        let mut outcomes: Vec<Option<Result<Placed, Refusal>>> = vec![None; entries.len()];
        let mut pending: Vec<usize> = (0..entries.len()).collect();
        let mut throttled = HashSet::new();
        let mut counted = false;
        for _ in 0..REROUTES_MAX {
            let catalog = self.catalog();
            let stream = self.writable(&catalog, arn)?;
            let mut groups = route(stream, entries, &pending, &self.inner.spread)?;
            if !counted {
                self.admit(&mut groups, entries, &mut throttled, &mut outcomes);
                counted = true;
            }
            pending = self.append(groups, entries, &mut outcomes).await?;
            if pending.is_empty() {
                break;
            }
        }
        // Only a stream that is resharded without pause gets here with records left.
        Ok(outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or(Err(Refusal::Overloaded(ShardId(0)))))
            .collect())
    }

    /// The stream, if it takes records.
    pub fn writable_stream(&self, arn: &StreamArn) -> Result<Arc<Stream>, Error> {
        self.writable(&self.catalog(), arn).cloned()
    }

    /// The stream if it takes records: any state but CREATING and DELETING.
    fn writable<'a>(
        &self,
        catalog: &'a Catalog,
        arn: &StreamArn,
    ) -> Result<&'a Arc<Stream>, Error> {
        use crate::engine::catalog::Status;
        let now_ms = self.now_ms();
        let not_found = || Error::StreamNotFound(arn.clone());
        let stream = catalog.stream(arn, now_ms).ok_or_else(not_found)?;
        match stream.status(now_ms).ok_or_else(not_found)? {
            Status::Active | Status::Updating => Ok(stream),
            // AWS does not know a stream that is being created or deleted when records are put.
            Status::Creating | Status::Deleting => Err(not_found()),
        }
    }

    /// Takes each record out of its shard's allowance, and those that do not fit out of the groups.
    fn admit(
        &self,
        groups: &mut [Group],
        entries: &[PutEntry<'_>],
        throttled: &mut HashSet<LogShard>,
        outcomes: &mut [Option<Result<Placed, Refusal>>],
    ) {
        let now_ms = self.now_ms();
        let throttle = &self.inner.throttle;
        for group in groups {
            let shard = group.shard.log_shard();
            let mut considered = throttle.considered(group.entries.len());
            group.entries.retain(|&entry| {
                let bytes = u64::try_from(entries[entry].counted_bytes()).unwrap_or(u64::MAX);
                let refused = considered == 0
                    || throttled.contains(&shard)
                    || throttle.write(shard, bytes, now_ms).is_err();
                considered = considered.saturating_sub(1);
                if refused {
                    throttled.insert(shard);
                    outcomes[entry] = Some(Err(Refusal::Throttled(group.shard.id())));
                }
                !refused
            });
        }
    }

    /// Appends the groups and returns the entries whose shard was sealed meanwhile.
    async fn append(
        &self,
        groups: Vec<Group>,
        entries: &[PutEntry<'_>],
        outcomes: &mut [Option<Result<Placed, Refusal>>],
    ) -> Result<Vec<usize>, Error> {
        let groups: Vec<Group> = groups
            .into_iter()
            .filter(|g| !g.entries.is_empty())
            .collect();
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        let batches = groups
            .iter()
            .map(|group| Ok((group.shard.log_shard(), group.encode(entries)?)));
        let batches = batches.collect::<Result<Vec<_>, Error>>()?;
        let mut resend = Vec::new();
        let results = match self.log().append_all(batches).await {
            Ok(results) => results,
            Err(error) => groups.iter().map(|_| Err(error.clone())).collect(),
        };
        for (group, result) in groups.iter().zip(results) {
            match result {
                Ok(appended) => group.placed(appended, outcomes),
                Err(log::Error::Sealed(_) | log::Error::Unknown(_)) => {
                    resend.extend_from_slice(&group.entries);
                }
                Err(log::Error::Overloaded { .. }) => {
                    group.refused(&Refusal::Overloaded(group.shard.id()), outcomes);
                }
                Err(error) => group.refused(&Refusal::Failed(error), outcomes),
            }
        }
        resend.sort_unstable();
        Ok(resend)
    }
}

/// The records of one request that go to one shard, in order.
#[derive(Debug)]
struct Group {
    shard: Shard,
    entries: Vec<usize>,
}

impl Group {
    fn encode(&self, entries: &[PutEntry<'_>]) -> Result<RecordBatch, Error> {
        let bytes: usize = self
            .entries
            .iter()
            .map(|&entry| entries[entry].counted_bytes())
            .sum();
        let heads = self.entries.len() * RecordBatch::RECORD_HEAD_BYTES;
        let mut batch = RecordBatch::with_capacity(bytes + heads);
        for &entry in &self.entries {
            let PutEntry {
                partition_key,
                data,
                ..
            } = entries[entry];
            // A blob was checked when the request was decoded.
            batch
                .push_with(partition_key, data.decoded_len(), |bytes| {
                    data.append_to(bytes)
                })
                .map_err(|_| Error::Log(log::Error::Closed))?;
        }
        Ok(batch)
    }

    fn placed(&self, appended: Appended, outcomes: &mut [Option<Result<Placed, Refusal>>]) {
        for (counter, &entry) in (appended.first..).zip(&self.entries) {
            let sequence = sequence_number(&self.shard, counter, appended.time_ms);
            outcomes[entry] = Some(Ok(Placed {
                shard: self.shard.id(),
                sequence,
            }));
        }
    }

    fn refused(&self, refusal: &Refusal, outcomes: &mut [Option<Result<Placed, Refusal>>]) {
        for &entry in &self.entries {
            outcomes[entry] = Some(Err(refusal.clone()));
        }
    }
}

/// Groups the pending entries by the shard that owns their hash key; checks every record's size.
fn route(
    stream: &Stream,
    entries: &[PutEntry<'_>],
    pending: &[usize],
    spread: &AtomicU64,
) -> Result<Vec<Group>, Error> {
    // Each record's place among the open shards.
    let mut placed: Vec<(usize, usize)> = Vec::with_capacity(pending.len());
    for &entry in pending {
        let (given, limit) = (entries[entry].counted_bytes(), stream.max_record_bytes);
        if given > limit {
            return Err(Error::RecordTooLarge {
                arn: stream.arn.clone(),
                given,
                limit,
            });
        }
        let hash_key = match stream.options.distribution {
            Distribution::UserPartitionKey => entries[entry].hash_key(),
            Distribution::Auto => spread_key(spread.fetch_add(1, Ordering::Relaxed)),
        };
        let Some(place) = stream.open_place(hash_key) else {
            unreachable!("S4: the open shards own every hash key");
        };
        placed.push((place, entry));
    }
    // Sorted rather than looked up: of ten thousand shards, five hundred records meet nearly as many. The pending
    // entries ascend, so those of one shard keep their order.
    placed.sort_unstable();
    let groups = placed.chunk_by(|one, next| one.0 == next.0);
    let group = |records: &[(usize, usize)]| {
        let shard = stream.open_at(records.first()?.0)?.clone();
        let entries = records.iter().map(|(_, entry)| *entry).collect();
        Some(Group { shard, entries })
    };
    Ok(groups.filter_map(group).collect())
}

/// The hash key of the `n`th record that the service places: multiples of the golden ratio fill the
/// space evenly, whatever the number of shards.
fn spread_key(n: u64) -> HashKey {
    const GOLDEN: u128 = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835;
    HashKey(u128::from(n).wrapping_mul(GOLDEN))
}

/// The sequence number of a record (layout: `wire::sequence`).
pub(super) fn sequence_number(shard: &Shard, counter: u64, time_ms: u64) -> SequenceNumber {
    Parts {
        shard_created_seconds: shard.created_seconds,
        counter,
        record_seconds: time_ms / 1_000,
        shard_index: shard.index,
    }
    .pack()
}

/// No record of the shard from this counter on has a smaller one.
pub(crate) fn least_sequence(shard: &Shard, counter: u64) -> SequenceNumber {
    sequence_number(shard, counter.min(Parts::COUNTER_MAX), 0)
}

impl Shard {
    /// Before every record of the shard.
    pub fn starting_sequence(&self) -> SequenceNumber {
        sequence_number(self, 0, self.created_seconds.saturating_mul(1_000))
    }

    /// After every record of the shard, once it is closed.
    pub fn ending_sequence(&self) -> Option<SequenceNumber> {
        self.closed_ms
            .map(|closed_ms| sequence_number(self, Parts::COUNTER_MAX, closed_ms))
    }
}
