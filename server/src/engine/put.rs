//! Putting records: each goes to the open shard that owns its hash key.

use crate::engine::catalog::{OpenShard, Shard, Stream};
use crate::engine::options::Distribution;
use crate::engine::{Engine, Error};
use crate::log::{self, Batches};
use millstream_wire::sequence::Parts;
use millstream_wire::shapes::Blob;
use millstream_wire::{HashKey, SequenceNumber, ShardId, StreamArn};
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
    /// Puts records into a stream [that takes them](Engine::writable_stream) and returns, in the order given, where each is or
    /// why it is not.
    ///
    /// Records of one shard keep their order: once one of them is refused, so are those after it.
    /// Cancel safety: records that were queued are stored even if the caller goes away.
    pub async fn put(
        &self,
        stream: &Arc<Stream>,
        entries: &[PutEntry<'_>],
    ) -> Result<Vec<Result<Placed, Refusal>>, Error> {
        let mut outcomes: Vec<Option<Result<Placed, Refusal>>> = vec![None; entries.len()];
        let all: Vec<usize> = (0..entries.len()).collect();
        let spread = &self.inner.spread;
        let routed = route(stream, entries, &all, spread)?;
        self.admit(&routed, entries, &mut outcomes);
        let mut routed = routed.without_known(&outcomes);
        for _ in 0..REROUTES_MAX {
            let pending = self.append(&routed, entries, &mut outcomes).await?;
            if pending.is_empty() {
                break;
            }
            // It was resharded meanwhile.
            let now = self.writable_stream(&stream.arn);
            routed = match now.and_then(|stream| route(&stream, entries, &pending, spread)) {
                Ok(routed) => routed,
                Err(error) if outcomes.iter().all(Option::is_none) => return Err(error),
                // What is known of some is not withheld because others cannot be put any more.
                Err(_) => break,
            };
        }
        // Records are left only where the stream is resharded without pause, or was changed or deleted meanwhile.
        Ok(outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or(Err(Refusal::Overloaded(ShardId(0)))))
            .collect())
    }

    /// The stream, if it takes records: in any state but CREATING and DELETING.
    pub fn writable_stream(&self, arn: &StreamArn) -> Result<Arc<Stream>, Error> {
        use crate::engine::catalog::Status;
        let (catalog, now_ms) = (self.catalog(), self.now_ms());
        let not_found = || Error::StreamNotFound(arn.clone());
        let stream = catalog.stream(arn, now_ms).ok_or_else(not_found)?;
        match stream.status(now_ms).ok_or_else(not_found)? {
            Status::Active | Status::Updating => Ok(Arc::clone(stream)),
            // AWS does not know a stream that is being created or deleted when records are put.
            Status::Creating | Status::Deleting => Err(not_found()),
        }
    }

    /// Takes each record out of its shard's allowance, and says which do not fit.
    fn admit(
        &self,
        routed: &Routed,
        entries: &[PutEntry<'_>],
        outcomes: &mut [Option<Result<Placed, Refusal>>],
    ) {
        let now_ms = self.now_ms();
        let throttle = &self.inner.throttle;
        for (shard, records) in routed.groups() {
            let mut considered = throttle.considered(records.len());
            let mut throttled = false;
            for &entry in records {
                let bytes = u64::try_from(entries[entry].counted_bytes()).unwrap_or(u64::MAX);
                throttled = throttled
                    || considered == 0
                    || throttle.write(shard.log_shard, bytes, now_ms).is_err();
                considered = considered.saturating_sub(1);
                if throttled {
                    outcomes[entry] = Some(Err(Refusal::Throttled(shard.id())));
                }
            }
        }
    }

    /// Appends the records and returns those whose shard was sealed meanwhile.
    async fn append(
        &self,
        routed: &Routed,
        entries: &[PutEntry<'_>],
        outcomes: &mut [Option<Result<Placed, Refusal>>],
    ) -> Result<Vec<usize>, Error> {
        if routed.groups.is_empty() {
            return Ok(Vec::new());
        }
        let results = match self.log().append_all(routed.encode(entries)?).await {
            Ok(results) => results,
            Err(error) => vec![Err(error); routed.groups.len()],
        };
        let mut resend = Vec::new();
        for ((shard, records), result) in routed.groups().zip(results) {
            let refusal = match result {
                Ok(appended) => {
                    for (counter, &entry) in (appended.first..).zip(records) {
                        outcomes[entry] = Some(Ok(Placed {
                            shard: shard.id(),
                            sequence: shard.sequence_number(counter, appended.time_ms),
                        }));
                    }
                    continue;
                }
                Err(log::Error::Sealed(_) | log::Error::Unknown(_)) => {
                    resend.extend_from_slice(records);
                    continue;
                }
                Err(log::Error::Overloaded { .. }) => Refusal::Overloaded(shard.id()),
                Err(error) => Refusal::Failed(error),
            };
            for &entry in records {
                outcomes[entry] = Some(Err(refusal.clone()));
            }
        }
        resend.sort_unstable();
        Ok(resend)
    }
}

/// Records by the shard they go to, those of one shard in the order given.
#[derive(Debug, Default)]
struct Routed {
    entries: Vec<usize>,
    /// Each with how many of the entries are its own.
    groups: Vec<(OpenShard, usize)>,
}

impl Routed {
    fn push(&mut self, shard: OpenShard, records: impl Iterator<Item = usize>) {
        let before = self.entries.len();
        self.entries.extend(records);
        let count = self.entries.len() - before;
        if count > 0 {
            self.groups.push((shard, count));
        }
    }

    fn groups(&self) -> impl Iterator<Item = (OpenShard, &[usize])> {
        let mut entries = self.entries.as_slice();
        self.groups.iter().map(move |(shard, count)| {
            let (records, left) = entries.split_at(*count);
            entries = left;
            (*shard, records)
        })
    }

    /// Those of them whose outcome is not known yet.
    fn without_known(self, outcomes: &[Option<Result<Placed, Refusal>>]) -> Routed {
        if self.entries.iter().all(|entry| outcomes[*entry].is_none()) {
            return self;
        }
        let mut left = Routed::default();
        for (shard, records) in self.groups() {
            let unknown = records
                .iter()
                .copied()
                .filter(|entry| outcomes[*entry].is_none());
            left.push(shard, unknown);
        }
        left
    }

    fn encode(&self, entries: &[PutEntry<'_>]) -> Result<Batches, Error> {
        let batch_bytes = |records: &[usize]| {
            let bytes = records.iter().map(|&entry| entries[entry].counted_bytes());
            Batches::batch_bytes(records.len(), bytes.sum())
        };
        let capacity = self.groups().map(|(_, records)| batch_bytes(records));
        let mut batches = Batches::with_capacity(self.groups.len(), capacity.sum());
        for (shard, records) in self.groups() {
            batches.add(shard.log_shard, batch_bytes(records), |batch| {
                records.iter().try_for_each(|&entry| {
                    let PutEntry {
                        partition_key: key,
                        data,
                        ..
                    } = entries[entry];
                    batch.push_with(key, data.decoded_len(), |bytes| {
                        let appended = data.append_to(bytes);
                        // A blob was checked when the request was decoded.
                        appended.map_err(|_| Error::Log(log::Error::Closed))
                    })
                })
            })?;
        }
        Ok(batches)
    }
}

/// Groups the pending entries by the shard that owns their hash key; checks every record's size.
fn route(
    stream: &Stream,
    entries: &[PutEntry<'_>],
    pending: &[usize],
    spread: &AtomicU64,
) -> Result<Routed, Error> {
    let mut keys = Vec::with_capacity(pending.len());
    for &entry in pending {
        let (given, limit) = (entries[entry].counted_bytes(), stream.max_record_bytes);
        if given > limit {
            return Err(Error::RecordTooLarge {
                arn: stream.arn.clone(),
                given,
                limit,
            });
        }
        keys.push(match stream.options.distribution {
            Distribution::UserPartitionKey => entries[entry].hash_key(),
            Distribution::Auto => spread_key(spread.fetch_add(1, Ordering::Relaxed)),
        });
    }
    // Each record's place among the open shards. Looked up in a loop that does nothing else, so that the processor has many of them on
    // their way from memory at once.
    let places = keys.iter().map(|key| stream.open.place_of(*key));
    let placed: Option<Vec<usize>> = places.collect();
    let Some(placed) = placed else {
        unreachable!("S4: the open shards own every hash key");
    };
    let mut placed: Vec<_> = placed.into_iter().zip(pending.iter().copied()).collect();
    // Sorted rather than looked up: of ten thousand shards, five hundred records meet nearly as many. The pending
    // entries ascend, so those of one shard keep their order.
    placed.sort_unstable();
    let mut routed = Routed {
        entries: Vec::with_capacity(placed.len()),
        groups: Vec::with_capacity(placed.len().min(stream.open_shard_count())),
    };
    for records in placed.chunk_by(|one, next| one.0 == next.0) {
        let shard = records
            .first()
            .and_then(|(place, _)| stream.open.get(*place));
        if let Some(shard) = shard {
            routed.push(shard, records.iter().map(|(_, entry)| *entry));
        }
    }
    Ok(routed)
}

/// The hash key of the `n`th record that the service places: multiples of the golden ratio fill the
/// space evenly, whatever the number of shards.
fn spread_key(n: u64) -> HashKey {
    const GOLDEN: u128 = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835;
    HashKey(u128::from(n).wrapping_mul(GOLDEN))
}

/// The sequence number of a record.
pub(super) fn sequence_number(shard: &Shard, counter: u64, time_ms: u64) -> SequenceNumber {
    shard.opened().sequence_number(counter, time_ms)
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
