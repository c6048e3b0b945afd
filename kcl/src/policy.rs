//! What becomes of records whose processing fails: the policy, and what it is told. It only decides; the shard consumer acts.
//!
//! Invariant: records are given up only for what is wrong with *them*. An error of this library's own (a checkpoint that could not be stored, a
//! lease that cannot be proven) says nothing about the records: the call is repeated, whatever the policy (K4).

use crate::error::{Error, ErrorKind};
use crate::processor::{ProcessorError, Record, ShardInfo};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// What to do about a failure of a record processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorAction {
    /// Call again with the same records after a pause, 0.1 s at first and 10 s at most. Only this shard waits.
    Retry,
    /// End the worker in order: the other shards finish their batches, every lease is released with its last checkpoint (what failed is not
    /// in it), and [`Worker::run`](crate::Worker::run) returns an error of kind `Processor`. The next worker begins with the records that failed.
    Stop,
    /// Find the records that fail by bisection, hand each to the [dead letter queue](crate::DeadLetterQueue), and go on.
    DeadLetter,
    /// Find the records that fail by bisection, log each as an error, and go on without them.
    Skip,
}

/// A call of the record processor that may fail and be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Callback {
    /// The factory, which can only panic.
    Create,
    /// `initialize`.
    Initialize,
    /// `process_records`: the only one with records.
    ProcessRecords,
    /// `shard_ended`.
    ShardEnded,
}

impl fmt::Display for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Callback::Create => "the record processor factory",
            Callback::Initialize => "initialize",
            Callback::ProcessRecords => "process_records",
            Callback::ShardEnded => "shard_ended",
        })
    }
}

/// A failure that a policy judges.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Failure<'a> {
    /// The shard.
    pub shard: &'a ShardInfo,
    /// The call that failed.
    pub callback: Callback,
    /// The records of the call, in order; none unless it is `process_records`.
    pub records: &'a [Record],
    /// How often these records have failed by now, from 1, the larger batches counted in which bisection began.
    pub attempt: u32,
    /// What the processor failed with; `downcast_ref` tells the type.
    pub error: &'a ProcessorError,
    /// Whether it panicked; `error` has the message.
    pub panicked: bool,
}

type Decide = dyn Fn(&Failure<'_>) -> ErrorAction + Send + Sync;

/// Decides what becomes of a failure. One for all shards of a worker, given with [`on_error`](crate::WorkerBuilder::on_error).
///
/// ```
/// use kcl::{ErrorAction, ErrorPolicy};
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("not a valid order")]
/// struct Invalid;
///
/// // An invalid order stays invalid; anything else (a database that is down) passes.
/// let policy = ErrorPolicy::decide(|failure| match failure.error.downcast_ref::<Invalid>() {
///     Some(Invalid) => ErrorAction::DeadLetter,
///     None if failure.panicked && failure.attempt >= 5 => ErrorAction::Stop,
///     None => ErrorAction::Retry,
/// });
/// ```
///
/// # Bisection
///
/// When the answer for a batch of several records is `DeadLetter` or `Skip`, the batch is halved and each half is delivered as a batch of its own,
/// in order, and so on down to single records: only what fails alone is given up, everything else is processed. Every failure on the
/// way is judged anew, so that a half that fails for another reason may still be retried. With k records that fail for good among n, that is at
/// most 2 k log2(n) more calls. A record that a half succeeded with is not delivered again; while the whole batch was
/// retried before, its good records may have been seen several times.
///
/// `DeadLetter` and `Skip` mean `Retry` for calls without records.
#[derive(Clone)]
pub struct ErrorPolicy {
    rule: Rule,
    /// Attempts before the rule is asked; failures before that are retried.
    attempts: u32,
}

#[derive(Clone)]
enum Rule {
    Always(ErrorAction),
    Decide(Arc<Decide>),
}

/// Attempts of the fixed policies, unless [`ErrorPolicy::after`] says otherwise.
const DEFAULT_ATTEMPTS: u32 = 3;

impl ErrorPolicy {
    /// Retries for ever: no record is given up, and one that never succeeds holds its shard up. The default.
    #[must_use]
    pub fn retry() -> Self {
        ErrorPolicy::fixed(ErrorAction::Retry)
    }

    /// Ends the worker after three attempts. A record that always fails ends every worker that gets its shard: for programs
    /// that are watched and mended.
    #[must_use]
    pub fn stop() -> Self {
        ErrorPolicy::fixed(ErrorAction::Stop)
    }

    /// Hands records that failed three times to the dead letter queue, whatever the reason. Where failures may be the fault of others (a
    /// database that is down), tell them apart with [`decide`](ErrorPolicy::decide), or every record goes there.
    #[must_use]
    pub fn dead_letter() -> Self {
        ErrorPolicy::fixed(ErrorAction::DeadLetter)
    }

    /// Leaves records out that failed three times, whatever the reason; see [`dead_letter`](ErrorPolicy::dead_letter). They are
    /// logged as errors and [counted](crate::WorkerHandle::counts).
    #[must_use]
    pub fn skip() -> Self {
        ErrorPolicy::fixed(ErrorAction::Skip)
    }

    /// Asks `decide` about every failure. It must not block. If it panics, that is logged and means `Retry`.
    #[must_use]
    pub fn decide(decide: impl Fn(&Failure<'_>) -> ErrorAction + Send + Sync + 'static) -> Self {
        ErrorPolicy {
            rule: Rule::Decide(Arc::new(decide)),
            attempts: 1,
        }
    }

    /// Acts at the earliest when `attempts` attempts have failed; each before that is retried. Bisection gives every part one attempt.
    #[must_use]
    pub fn after(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    fn fixed(action: ErrorAction) -> Self {
        ErrorPolicy {
            rule: Rule::Always(action),
            attempts: DEFAULT_ATTEMPTS,
        }
    }

    /// Whether it will certainly ask for a dead letter queue one day.
    pub(crate) fn needs_dead_letters(&self) -> bool {
        matches!(self.rule, Rule::Always(ErrorAction::DeadLetter))
    }

    /// What to do about a failure, as far as it can be done.
    pub(crate) fn judge(&self, failure: &Failure<'_>, has_dead_letters: bool) -> ErrorAction {
        if failure.attempt < self.attempts {
            return ErrorAction::Retry;
        }
        let shard = &failure.shard.shard_id;
        let action = match &self.rule {
            Rule::Always(action) => *action,
            Rule::Decide(decide) => catch_unwind(AssertUnwindSafe(|| decide(failure)))
                .unwrap_or_else(|_| {
                    tracing::error!(%shard, error = %failure.error, "the error policy panicked, the call is repeated");
                    ErrorAction::Retry
                }),
        };
        match action {
            ErrorAction::DeadLetter | ErrorAction::Skip if failure.records.is_empty() => {
                ErrorAction::Retry
            }
            ErrorAction::DeadLetter if !has_dead_letters => {
                tracing::error!(%shard, error = %failure.error, "the error policy asks for a dead letter and there is no queue, the call is repeated: call .dead_letters(...) on the builder");
                ErrorAction::Retry
            }
            action => action,
        }
    }
}

impl Default for ErrorPolicy {
    fn default() -> Self {
        ErrorPolicy::retry()
    }
}

impl fmt::Debug for ErrorPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule: &dyn fmt::Debug = match &self.rule {
            Rule::Always(action) => action,
            Rule::Decide(_) => &"decide",
        };
        f.debug_struct("ErrorPolicy")
            .field("rule", rule)
            .field("attempts", &self.attempts)
            .finish()
    }
}

/// Errors looked through for the cause of one.
const LONGEST_CHAIN: usize = 16;

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source()).take(LONGEST_CHAIN)
}

/// Whether an error comes from this library: a checkpoint that was not stored, or refused. No record is at fault.
pub(crate) fn is_blameless(error: &ProcessorError) -> bool {
    chain(error.as_ref())
        .filter_map(|cause| cause.downcast_ref::<Error>())
        .any(|error| match error.kind() {
            ErrorKind::Unavailable
            | ErrorKind::Throttled
            | ErrorKind::Expired
            | ErrorKind::LeaseLost
            | ErrorKind::InvalidPosition
            | ErrorKind::WorkerReplaced
            | ErrorKind::InUse
            | ErrorKind::Store
            | ErrorKind::Shutdown => true,
            ErrorKind::Configuration
            | ErrorKind::NotFound
            | ErrorKind::AccessDenied
            | ErrorKind::Protocol
            | ErrorKind::Processor => false,
        })
}

/// An error and its causes in one line of at most `most` characters. Causes that the text names already are not repeated.
pub(crate) fn describe(error: &ProcessorError, most: usize) -> String {
    let mut text = String::new();
    for cause in chain(error.as_ref()) {
        let part = cause.to_string();
        if !text.contains(&part) {
            let separator = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{separator}{part}");
        }
    }
    if text.chars().nth(most).is_none() {
        return text;
    }
    let kept = text.chars().take(most.saturating_sub(1));
    kept.chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Position;
    use ErrorAction::{DeadLetter, Retry, Skip, Stop};
    use bytes::Bytes;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Error);

    fn shard() -> ShardInfo {
        ShardInfo {
            stream_name: "orders".to_owned(),
            shard_id: "shardId-000000000000".to_owned(),
            position: Position::TrimHorizon,
            hash_key_range: None,
            parents: Vec::new(),
            pending: None,
        }
    }

    fn record() -> Record {
        Record::stored("7".parse().unwrap(), "k", Bytes::new(), 0)
    }

    /// What a policy says to attempts 1 to 4 at a record.
    fn answers(
        policy: &ErrorPolicy,
        records: &[Record],
        has_dead_letters: bool,
    ) -> [ErrorAction; 4] {
        let (shard, error) = (shard(), ProcessorError::from("bad"));
        [1, 2, 3, 4].map(|attempt| {
            let failure = Failure {
                shard: &shard,
                callback: Callback::ProcessRecords,
                records,
                attempt,
                error: &error,
                panicked: false,
            };
            policy.judge(&failure, has_dead_letters)
        })
    }

    #[test]
    fn policies_retry_first_and_then_act() {
        let records = [record()];
        let of = |policy: ErrorPolicy| answers(&policy, &records, true);
        assert_eq!(of(ErrorPolicy::default()), [Retry; 4]);
        assert_eq!(of(ErrorPolicy::stop()), [Retry, Retry, Stop, Stop]);
        assert_eq!(of(ErrorPolicy::skip().after(0)), [Skip; 4]);
        assert_eq!(of(ErrorPolicy::skip().after(1)), [Skip; 4]);
        let late = ErrorPolicy::dead_letter().after(4);
        assert_eq!(of(late), [Retry, Retry, Retry, DeadLetter]);
        assert_eq!(of(ErrorPolicy::decide(|_| Stop)), [Stop; 4]);
        let decide = ErrorPolicy::decide(|failure| if failure.attempt > 3 { Stop } else { Skip });
        assert_eq!(of(decide.after(2)), [Retry, Skip, Skip, Stop]);
    }

    #[test]
    fn what_cannot_be_done_is_retried() {
        let records = [record()];
        let none = answers(&ErrorPolicy::dead_letter().after(1), &records, false);
        assert_eq!(none, [Retry; 4], "there is no queue");
        for policy in [ErrorPolicy::dead_letter(), ErrorPolicy::skip()] {
            let bare = answers(&policy.after(1), &[], true);
            assert_eq!(bare, [Retry; 4], "there are no records");
        }
        assert_eq!(answers(&ErrorPolicy::stop().after(1), &[], true), [Stop; 4]);
        let broken = ErrorPolicy::decide(|failure| {
            assert!(failure.attempt > 2, "a panic on demand");
            Skip
        });
        assert_eq!(answers(&broken, &records, true), [Retry, Retry, Skip, Skip]);
    }

    #[test]
    fn k4_errors_of_this_library_blame_no_record() {
        let ours = |kind| Error::new(kind, "the lease store is out of reach");
        assert!(is_blameless(&ours(ErrorKind::Unavailable).into()));
        assert!(is_blameless(&ours(ErrorKind::LeaseLost).into()));
        assert!(is_blameless(&Outer(ours(ErrorKind::Store)).into()));
        assert!(is_blameless(&ours(ErrorKind::InvalidPosition).into()));
        assert!(!is_blameless(&ours(ErrorKind::Protocol).into()));
        assert!(!is_blameless(&"the lease store is out of reach".into()));
    }

    #[test]
    fn errors_are_described_with_their_causes_once_and_briefly() {
        let error = Error::with_source(ErrorKind::Protocol, "inner", "cause");
        let error: ProcessorError = Outer(error).into();
        assert_eq!(describe(&error, 100), "outer: inner: cause");
        assert_eq!(describe(&error, 8), "outer: …");
        assert_eq!(describe(&"äöü".into(), 3), "äöü");
        assert_eq!(describe(&"äöü".into(), 2), "ä…");
    }
}
