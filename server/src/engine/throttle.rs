//! AWS's per-shard limits as token buckets in the server's clock (developer guide, *Quotas and limits*).

use crate::engine::faults::Faults;
use crate::log::LogShard;
use millstream_wire::limits::{
    SHARD_ITERATOR_CALLS_PER_SECOND, SHARD_READ_BYTES_PER_SECOND, SHARD_READ_CALLS_PER_SECOND,
    SHARD_WRITE_BYTES_PER_SECOND, SHARD_WRITE_RECORDS_PER_SECOND,
};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Whether AWS's per-shard limits hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Limits {
    /// As on AWS.
    #[default]
    Aws,
    /// None: as fast as the machine.
    Off,
}

/// The limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Throttled;

/// A bucket that holds one second's worth and may be overdrawn: a large answer is given and paid
/// for by the calls after it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    per_second: i128,
    /// Thousandths of a token; below zero is debt.
    milli_tokens: i128,
    filled_ms: u64,
}

impl Bucket {
    pub(super) fn full(per_second: u64, now_ms: u64) -> Bucket {
        let per_second = i128::from(per_second);
        Bucket {
            per_second,
            milli_tokens: per_second * 1_000,
            filled_ms: now_ms,
        }
    }

    pub(super) fn refill(&mut self, now_ms: u64) {
        // A clock that stepped back adds nothing and does not stop the bucket for longer than one call.
        let elapsed_ms = i128::from(now_ms.saturating_sub(self.filled_ms));
        let filled = self
            .milli_tokens
            .saturating_add(elapsed_ms * self.per_second);
        self.milli_tokens = filled.min(self.per_second * 1_000);
        self.filled_ms = now_ms;
    }

    pub(super) fn has(&self, tokens: u64) -> bool {
        self.milli_tokens >= i128::from(tokens) * 1_000
    }

    pub(super) fn spend(&mut self, tokens: u64) {
        self.milli_tokens -= i128::from(tokens) * 1_000;
    }

    /// Gives up what is left; debt stays.
    fn save_nothing(&mut self) {
        self.milli_tokens = self.milli_tokens.min(0);
    }

    /// One token, if there is one.
    pub(super) fn take(&mut self, now_ms: u64) -> Result<(), Throttled> {
        self.refill(now_ms);
        if !self.has(1) {
            return Err(Throttled);
        }
        self.spend(1);
        Ok(())
    }

    /// Whether nothing was taken from it lately, so that a new one would be the same.
    pub(super) fn is_full(&self, now_ms: u64) -> bool {
        let mut bucket = *self;
        bucket.refill(now_ms);
        bucket.milli_tokens == bucket.per_second * 1_000
    }
}

#[derive(Debug)]
struct ShardBuckets {
    write_bytes: Bucket,
    write_records: Bucket,
    read_bytes: Bucket,
    read_calls: Bucket,
    iterator_calls: Bucket,
}

impl ShardBuckets {
    fn full(now_ms: u64) -> ShardBuckets {
        ShardBuckets {
            write_bytes: Bucket::full(SHARD_WRITE_BYTES_PER_SECOND, now_ms),
            write_records: Bucket::full(SHARD_WRITE_RECORDS_PER_SECOND, now_ms),
            read_bytes: Bucket::full(SHARD_READ_BYTES_PER_SECOND, now_ms),
            read_calls: Bucket::full(SHARD_READ_CALLS_PER_SECOND, now_ms),
            iterator_calls: Bucket::full(SHARD_ITERATOR_CALLS_PER_SECOND, now_ms),
        }
    }
}

/// The buckets of every shard that was used lately.
#[derive(Debug)]
pub(super) struct Throttle {
    limits: Limits,
    faults: Faults,
    /// A std mutex: held for arithmetic only, never across an await.
    shards: Mutex<HashMap<LogShard, ShardBuckets>>,
}

impl Throttle {
    /// Full buckets for every shard, or none at all; `faults` refuses calls beside them.
    pub(super) fn new(limits: Limits, faults: Faults) -> Throttle {
        Throttle {
            limits,
            faults,
            shards: Mutex::default(),
        }
    }

    fn shards(&self) -> MutexGuard<'_, HashMap<LogShard, ShardBuckets>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of a request's `records` for one shard are considered at all; the rest is refused.
    pub(super) fn considered(&self, records: usize) -> usize {
        self.faults.cut(records).unwrap_or(records)
    }

    /// Takes one record of `bytes` out of the shard's write allowance.
    pub(super) fn write(&self, shard: LogShard, bytes: u64, now_ms: u64) -> Result<(), Throttled> {
        if self.limits == Limits::Off {
            return Ok(());
        }
        let mut shards = self.shards();
        let buckets = shards
            .entry(shard)
            .or_insert_with(|| ShardBuckets::full(now_ms));
        buckets.write_bytes.refill(now_ms);
        buckets.write_records.refill(now_ms);
        // A record larger than a second's allowance passes when the bucket is full.
        let needed = bytes.min(SHARD_WRITE_BYTES_PER_SECOND);
        if !buckets.write_records.has(1) || !buckets.write_bytes.has(needed) {
            return Err(Throttled);
        }
        buckets.write_records.spend(1);
        buckets.write_bytes.spend(bytes);
        Ok(())
    }

    /// Begins a GetRecords call: refused when five were made within a second or earlier answers are not
    /// paid for yet.
    pub(super) fn begin_read(&self, shard: LogShard, now_ms: u64) -> Result<(), Throttled> {
        self.of_call(shard, now_ms, |buckets| {
            buckets.read_bytes.refill(now_ms);
            if !buckets.read_bytes.has(1) {
                return Err(Throttled);
            }
            buckets.read_calls.take(now_ms)
        })
    }

    /// Begins a GetShardIterator call: refused when five were made within a second.
    pub(super) fn begin_iterator(&self, shard: LogShard, now_ms: u64) -> Result<(), Throttled> {
        self.of_call(shard, now_ms, |buckets| buckets.iterator_calls.take(now_ms))
    }

    fn of_call(
        &self,
        shard: LogShard,
        now_ms: u64,
        take: impl FnOnce(&mut ShardBuckets) -> Result<(), Throttled>,
    ) -> Result<(), Throttled> {
        if self.faults.strikes() {
            return Err(Throttled);
        }
        if self.limits == Limits::Off {
            return Ok(());
        }
        let mut shards = self.shards();
        let buckets = shards.entry(shard);
        take(buckets.or_insert_with(|| ShardBuckets::full(now_ms)))
    }

    /// Charges the bytes of an answer. One larger than a second's allowance is paid for in full by the time
    /// after it: ten mebibytes in five seconds (model: `GetRecords`).
    pub(super) fn end_read(&self, shard: LogShard, bytes: u64) {
        if self.limits == Limits::Off {
            return;
        }
        if let Some(buckets) = self.shards().get_mut(&shard) {
            if bytes > SHARD_READ_BYTES_PER_SECOND {
                buckets.read_bytes.save_nothing();
            }
            buckets.read_bytes.spend(bytes);
        }
    }

    /// Forgets shards that `keep` does not name, so that the map stays as small as the catalog.
    pub(super) fn retain(&self, keep: impl Fn(LogShard) -> bool) {
        self.shards().retain(|shard, _| keep(*shard));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Probability;

    const SHARD: LogShard = LogShard(1);

    #[test]
    fn a_thousand_records_a_second() {
        let throttle = Throttle::new(Limits::Aws, Faults::default());
        for _ in 0..1_000 {
            assert_eq!(throttle.write(SHARD, 10, 0), Ok(()));
        }
        assert_eq!(throttle.write(SHARD, 10, 0), Err(Throttled));
        assert_eq!(throttle.write(SHARD, 10, 1), Ok(()));
        assert_eq!(throttle.write(SHARD, 10, 1), Err(Throttled));
    }

    #[test]
    fn a_mebibyte_a_second_and_the_largest_record_passes() {
        let throttle = Throttle::new(Limits::Aws, Faults::default());
        assert_eq!(throttle.write(SHARD, 1_048_576, 0), Ok(()));
        assert_eq!(throttle.write(SHARD, 1, 0), Err(Throttled));
        assert_eq!(throttle.write(SHARD, 1_048_576, 1_000), Ok(()));
    }

    #[test]
    fn a_ten_mebibyte_answer_is_paid_for_by_the_next_calls() {
        let throttle = Throttle::new(Limits::Aws, Faults::default());
        assert_eq!(throttle.begin_read(SHARD, 0), Ok(()));
        throttle.end_read(SHARD, 10 * 1_048_576);
        assert_eq!(throttle.begin_read(SHARD, 4_900), Err(Throttled));
        assert_eq!(throttle.begin_read(SHARD, 5_001), Ok(()));
    }

    #[test]
    fn five_reads_a_second() {
        let throttle = Throttle::new(Limits::Aws, Faults::default());
        for _ in 0..5 {
            assert_eq!(throttle.begin_read(SHARD, 0), Ok(()));
        }
        assert_eq!(throttle.begin_read(SHARD, 100), Err(Throttled));
        assert_eq!(throttle.begin_read(SHARD, 200), Ok(()));
    }

    #[test]
    fn five_iterators_a_second_beside_five_reads() {
        let throttle = Throttle::new(Limits::Aws, Faults::default());
        for _ in 0..5 {
            assert_eq!(throttle.begin_read(SHARD, 0), Ok(()));
            assert_eq!(throttle.begin_iterator(SHARD, 0), Ok(()));
        }
        assert_eq!(throttle.begin_iterator(SHARD, 100), Err(Throttled));
        assert_eq!(throttle.begin_iterator(SHARD, 200), Ok(()));
    }

    #[test]
    fn faults_strike_even_without_limits() {
        let certain = Faults::new(Probability::new(1.0).unwrap(), 7);
        let throttle = Throttle::new(Limits::Off, certain);
        assert_eq!(throttle.begin_read(SHARD, 0), Err(Throttled));
        assert_eq!(throttle.begin_iterator(SHARD, 0), Err(Throttled));
        assert!(throttle.considered(5) < 5);
    }

    #[test]
    fn no_limit_when_off() {
        let throttle = Throttle::new(Limits::Off, Faults::default());
        assert!((0..10_000).all(|_| throttle.write(SHARD, 1_048_576, 0).is_ok()));
    }
}
