//! How often operations may be called, as AWS has it: calls per second of an account in a region, or on a
//! stream. What a shard takes is in `throttle`.
//!
//! Source: the service model, which says it with most operations; UpdateShardCount: "TPS over 10". For those on
//! policies, retention and monitoring it is the developer guide's page of quotas.

use crate::engine::throttle::{Bucket, Throttled};
use crate::engine::{Engine, Limits};
use millstream_wire::{AccountId, Operation, Region, StreamArn};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Callers remembered at most, by operation. Those that have not called for a second are forgotten first;
/// if so many call within a second, more are refused: a bound on memory.
const CALLERS_MAX: usize = 10_000;

/// Whose calls come too fast.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// An account's.
    #[error("{operation} is called too often by account {account}")]
    Account {
        /// The operation.
        operation: Operation,
        /// The account.
        account: AccountId,
    },
    /// Those on a stream.
    #[error("calls on stream {0} come too fast")]
    Stream(StreamArn),
}

/// Who shares an allowance.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Scope {
    Account(AccountId, Region),
    Stream(StreamArn),
}

/// Calls per second of one account in one region; `None` if AWS names no such limit.
fn per_account(operation: Operation) -> Option<u64> {
    use Operation as Op;
    match operation {
        Op::DescribeLimits => Some(1),
        Op::AddTagsToStream
        | Op::CreateStream
        | Op::DeleteResourcePolicy
        | Op::DeleteStream
        | Op::DescribeAccountSettings
        | Op::GetResourcePolicy
        | Op::ListStreams
        | Op::ListTagsForStream
        | Op::MergeShards
        | Op::PutResourcePolicy
        | Op::RegisterStreamConsumer
        | Op::RemoveTagsFromStream
        | Op::SplitShard
        | Op::UpdateAccountSettings
        | Op::UpdateStreamWarmThroughput => Some(5),
        Op::DescribeStream | Op::UpdateShardCount => Some(10),
        Op::DescribeStreamSummary => Some(20),
        _ => None,
    }
}

/// Calls per second on one stream; `None` if AWS names no such limit.
fn per_stream(operation: Operation) -> Option<u64> {
    use Operation as Op;
    match operation {
        Op::DecreaseStreamRetentionPeriod
        | Op::DeregisterStreamConsumer
        | Op::DisableEnhancedMonitoring
        | Op::EnableEnhancedMonitoring
        | Op::IncreaseStreamRetentionPeriod
        | Op::ListStreamConsumers => Some(5),
        Op::DescribeStreamConsumer => Some(20),
        Op::ListShards => Some(1_000),
        _ => None,
    }
}

/// The allowances of everybody who called lately.
#[derive(Debug)]
pub(super) struct CallRates {
    limits: Limits,
    /// A std mutex: held for arithmetic only, never across an await.
    buckets: Mutex<HashMap<(Operation, Scope), Bucket>>,
}

impl CallRates {
    pub(super) fn new(limits: Limits) -> CallRates {
        CallRates {
            limits,
            buckets: Mutex::default(),
        }
    }

    fn take(
        &self,
        operation: Operation,
        per_second: Option<u64>,
        scope: impl FnOnce() -> Scope,
        now_ms: impl FnOnce() -> u64,
    ) -> Result<(), Throttled> {
        let (Limits::Aws, Some(per_second)) = (self.limits, per_second) else {
            return Ok(());
        };
        let now_ms = now_ms();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (operation, scope());
        if buckets.len() >= CALLERS_MAX && !buckets.contains_key(&key) {
            buckets.retain(|_, bucket| !bucket.is_full(now_ms));
            if buckets.len() >= CALLERS_MAX {
                return Err(Throttled);
            }
        }
        let bucket = buckets.entry(key);
        bucket
            .or_insert_with(|| Bucket::full(per_second, now_ms))
            .take(now_ms)
    }
}

impl Engine {
    /// Counts a call against the allowance of its account in its region.
    ///
    /// # Errors
    /// [`RateError::Account`]: too many within a second.
    pub fn count_call(
        &self,
        operation: Operation,
        account: &AccountId,
        region: &Region,
    ) -> Result<(), RateError> {
        let scope = || Scope::Account(account.clone(), region.clone());
        let per_second = per_account(operation);
        let rates = &self.inner.call_rates;
        rates
            .take(operation, per_second, scope, || self.now_ms())
            .map_err(|Throttled| RateError::Account {
                operation,
                account: account.clone(),
            })
    }

    /// Counts a call against the allowance of its stream, which exists.
    ///
    /// # Errors
    /// [`RateError::Stream`]: too many within a second.
    pub fn count_call_on(&self, operation: Operation, arn: &StreamArn) -> Result<(), RateError> {
        let scope = || Scope::Stream(arn.clone());
        let rates = &self.inner.call_rates;
        rates
            .take(operation, per_stream(operation), scope, || self.now_ms())
            .map_err(|Throttled| RateError::Stream(arn.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(name: &str) -> Scope {
        let arn = format!("arn:aws:kinesis:us-east-1:000000000000:stream/{name}");
        Scope::Stream(arn.parse().unwrap())
    }

    fn listed(rates: &CallRates, name: &str, now_ms: u64) -> Result<(), Throttled> {
        let operation = Operation::ListStreamConsumers;
        rates.take(operation, per_stream(operation), || stream(name), || now_ms)
    }

    #[test]
    fn each_stream_has_an_allowance_of_its_own() {
        let rates = CallRates::new(Limits::Aws);
        assert!((0..5).all(|_| listed(&rates, "a", 0).is_ok()));
        assert_eq!(listed(&rates, "a", 0), Err(Throttled));
        assert_eq!(listed(&rates, "b", 0), Ok(()));
        assert_eq!(listed(&rates, "a", 200), Ok(()));
        let off = CallRates::new(Limits::Off);
        assert!((0..100).all(|_| listed(&off, "a", 0).is_ok()));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten_after_a_second() {
        let rates = CallRates::new(Limits::Aws);
        for n in 0..CALLERS_MAX {
            listed(&rates, &format!("s{n}"), 0).unwrap();
        }
        assert_eq!(listed(&rates, "one-more", 0), Err(Throttled));
        assert_eq!(listed(&rates, "s0", 0), Ok(()));
        assert_eq!(listed(&rates, "one-more", 1_000), Ok(()));
        assert!(rates.buckets.lock().unwrap().len() < CALLERS_MAX);
    }
}
