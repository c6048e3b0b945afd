//! What the engine can refuse or fail at, with the values involved. AWS's words for it are in
//! `crate::error`.

use crate::engine::RateError;
use crate::engine::catalog::Status;
use crate::log;
use millstream_wire::{
    AccountId, ConsumerArn, ConsumerName, HashKey, HashKeyRange, SequenceNumber, ShardId,
    StreamArn, StreamName,
};

/// Why an operation did not happen. Unless it says otherwise, nothing has changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No such stream.
    #[error("stream {0} does not exist")]
    StreamNotFound(StreamArn),
    /// A stream of that name exists.
    #[error("stream {0} exists already")]
    StreamExists(StreamArn),
    /// The stream's state does not allow it.
    #[error("stream {arn} is {}, not ACTIVE", status.name())]
    StreamNotActive {
        /// The stream.
        arn: StreamArn,
        /// Its state.
        status: Status,
    },
    /// No such shard in the stream.
    #[error("stream {arn} has no shard {shard}")]
    ShardNotFound {
        /// The stream.
        arn: StreamArn,
        /// The shard as it was asked for.
        shard: String,
    },
    /// The shard is closed and cannot be resharded.
    #[error("shard {shard} of stream {arn} is closed")]
    ShardClosed {
        /// The stream.
        arn: StreamArn,
        /// The shard.
        shard: ShardId,
    },
    /// The new starting hash key is not strictly inside the shard.
    #[error("{key} does not split shard {shard} of stream {arn}")]
    BadSplitKey {
        /// The stream.
        arn: StreamArn,
        /// The shard.
        shard: ShardId,
        /// The key.
        key: HashKey,
        /// The shard's range.
        range: HashKeyRange,
    },
    /// The shards are not neighbours in the order given.
    #[error("shards {first} and {second} of stream {arn} are not adjacent")]
    NotAdjacent {
        /// The stream.
        arn: StreamArn,
        /// The shard to merge.
        first: ShardId,
        /// The shard that should begin where the first ends.
        second: ShardId,
    },
    /// The account would have more open shards than it may.
    #[error("{requested} more shards on top of {current} would exceed the limit of {limit}")]
    ShardLimit {
        /// The stream whose account and region it is about.
        arn: StreamArn,
        /// Open shards now.
        current: usize,
        /// Open shards that the request would add.
        requested: usize,
        /// The limit.
        limit: usize,
    },
    /// As many streams are CREATING or DELETING as may be at a time.
    #[error("{limit} streams of the account of {arn} are being created or deleted")]
    ComingAndGoing {
        /// The stream whose account and region it is about.
        arn: StreamArn,
        /// The limit.
        limit: usize,
    },
    /// The stream would have more tags than it may.
    #[error("stream {arn} would have {count} tags")]
    TooManyTags {
        /// The stream.
        arn: StreamArn,
        /// Tags it would have.
        count: usize,
    },
    /// The retention is outside what is allowed, or moves the wrong way.
    #[error("{requested} hours is not a valid new retention for stream {arn} with {current} hours")]
    BadRetention {
        /// The stream.
        arn: StreamArn,
        /// Hours now.
        current: u32,
        /// Hours asked for.
        requested: i64,
        /// Which way the operation moves it.
        direction: RetentionChange,
    },
    /// The sequence number was never given out by this shard.
    #[error("sequence number {sequence} did not come from shard {shard} of stream {arn}")]
    ForeignSequence {
        /// The stream.
        arn: StreamArn,
        /// The shard.
        shard: ShardId,
        /// The number.
        sequence: SequenceNumber,
    },
    /// The sequence number was given out by another shard.
    #[error("the sequence number came from the shard of index {encoded} and was used for {used}")]
    SequenceOfOtherShard {
        /// The index of the shard it came from.
        encoded: i32,
        /// The shard it was used for.
        used: ShardId,
    },
    /// The iterator's stream was deleted, or its shard expired.
    #[error("shard {shard} of stream {stream} under account {account} is gone")]
    ShardGone {
        /// Whose stream it was.
        account: AccountId,
        /// The stream.
        stream: StreamName,
        /// The shard.
        shard: ShardId,
    },
    /// A timestamp to start from lies in the future.
    #[error("timestamp {given_ms} ms lies after now, {now_ms} ms")]
    FutureTimestamp {
        /// The timestamp, milliseconds since 1970.
        given_ms: u64,
        /// Now.
        now_ms: u64,
    },
    /// Not an iterator of this server.
    #[error("the shard iterator was not made by this server")]
    InvalidIterator,
    /// The iterator is too old.
    #[error("the shard iterator was made at {minted_ms} ms, now is {now_ms} ms")]
    ExpiredIterator {
        /// When it was made.
        minted_ms: u64,
        /// Now.
        now_ms: u64,
    },
    /// A record of this stream may not be this large.
    #[error("a record of {given} bytes is larger than the {limit} bytes of stream {arn}")]
    RecordTooLarge {
        /// The stream.
        arn: StreamArn,
        /// Bytes of data and partition key.
        given: usize,
        /// The stream's limit.
        limit: usize,
    },
    /// The shard's throughput is used up for the moment.
    #[error("rate exceeded for shard {shard} of stream {arn}")]
    Throttled {
        /// The stream.
        arn: StreamArn,
        /// The shard.
        shard: ShardId,
    },
    /// Calls come too fast.
    #[error(transparent)]
    Rate(#[from] RateError),
    /// A setting cannot be changed like this.
    #[error("stream {arn}: {refused}")]
    Setting {
        /// The stream.
        arn: StreamArn,
        /// Why.
        refused: crate::engine::SettingError,
    },
    /// A consumer or a subscription stands in the way.
    #[error(transparent)]
    Consumer(#[from] ConsumerError),
    /// The server has as much queued as it may hold.
    #[error("the server's write queue is full")]
    Overloaded,
    /// The log failed.
    #[error("log: {0}")]
    Log(#[source] log::Error),
}

/// What can be wrong with a consumer or its subscriptions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConsumerError {
    /// The stream has no such consumer.
    #[error("stream {stream} has no consumer {name}")]
    NotFound {
        /// The stream.
        stream: StreamArn,
        /// The consumer.
        name: ConsumerName,
    },
    /// The stream has a consumer of that name.
    #[error("stream {stream} has a consumer {name} already")]
    Exists {
        /// The stream.
        stream: StreamArn,
        /// The consumer.
        name: ConsumerName,
    },
    /// The consumer's state does not allow it.
    #[error("consumer {consumer} is {}, not ACTIVE", status.name())]
    NotActive {
        /// The consumer.
        consumer: ConsumerArn,
        /// Its state.
        status: Status,
    },
    /// The stream would have more consumers than it may.
    #[error("stream {stream} has {limit} consumers and may not have more")]
    Limit {
        /// The stream.
        stream: StreamArn,
        /// The limit.
        limit: usize,
    },
    /// The stream would have more consumers in CREATING than it may.
    #[error("stream {stream} has {limit} consumers in CREATING and may not have more")]
    Creating {
        /// The stream.
        stream: StreamArn,
        /// The limit.
        limit: usize,
    },
    /// The stream has consumers, which keep it from being deleted.
    #[error("stream {0} has registered consumers")]
    KeepStream(StreamArn),
    /// Another subscription of the consumer to the shard is too young to be taken over, or has taken
    /// this one over.
    #[error("consumer {consumer} has another subscription to shard {shard}")]
    Subscribed {
        /// The consumer.
        consumer: ConsumerArn,
        /// The shard.
        shard: ShardId,
    },
    /// Subscriptions of the consumer to the shard come too fast.
    #[error("consumer {consumer} subscribes to shard {shard} too often")]
    SubscribesTooFast {
        /// The consumer.
        consumer: ConsumerArn,
        /// The shard.
        shard: ShardId,
    },
}

/// The two operations on the retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetentionChange {
    /// IncreaseStreamRetentionPeriod.
    Increase,
    /// DecreaseStreamRetentionPeriod.
    Decrease,
}

impl Error {
    /// What to say instead, if this is that the log knows the shard no longer: it went away with its stream, or after its records had left the
    /// retention, between a look at the catalog and the log.
    pub(crate) fn if_shard_is_gone(self, gone: impl FnOnce() -> Error) -> Error {
        match self {
            Error::Log(log::Error::Unknown(_)) => gone(),
            error => error,
        }
    }
}

impl From<log::Error> for Error {
    fn from(error: log::Error) -> Self {
        match error {
            log::Error::Overloaded { .. } => Error::Overloaded,
            other => Error::Log(other),
        }
    }
}
