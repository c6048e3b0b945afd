//! What an operation can fail with, as AWS says it. The only module with message texts; those about
//! consumers, and about settings of streams and accounts, are in its own modules.
//!
//! Source: kinesalite's texts, which were compared with AWS. A text without such a source says so.

mod consumer;

use crate::engine::{self, Refusal, RetentionChange};
use crate::log;
use millstream_wire::hash_key::HashKeyRange;
use millstream_wire::limits::{RETENTION_MAX_HOURS, RETENTION_MIN_HOURS, TAGS_PER_STREAM};
use millstream_wire::shapes::{Refused, ShardIteratorType, StreamStatus};
use millstream_wire::{
    AccountId, ErrorCode, Region, SequenceNumber, ShardId, StreamArn, StreamName,
};
use std::fmt;

mod settings;

/// A failure on its way to the client: a code and its message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// AWS's code.
    pub code: ErrorCode,
    /// AWS's message; empty where AWS gives none.
    pub message: String,
}

/// A stream, as messages name it: `stream NAME under account ACCOUNT`.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// Its name.
    pub stream: &'a StreamName,
    /// Its owner.
    pub account: &'a AccountId,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {} under account {}", self.stream, self.account)
    }
}

/// How a sequence number given to `GetShardIterator` is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceFault {
    /// Not a sequence number of any version.
    Malformed,
    /// A sequence number of another stream, or of an earlier one of this name.
    Foreign,
}

/// What was to happen to tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagChange {
    /// Adding.
    Add,
    /// Removing.
    Remove,
}

/// A request for more shards than an account may have.
#[derive(Debug, Clone, Copy)]
pub struct ShardQuota<'a> {
    /// The account.
    pub account: &'a AccountId,
    /// The region.
    pub region: &'a Region,
    /// Shards it has.
    pub current: usize,
    /// Shards it may have.
    pub limit: usize,
    /// Shards the request would add.
    pub additional: usize,
}

const TIMESTAMP_CHOICE: &str = "Must either specify (1) AT_SEQUENCE_NUMBER or \
    AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no \
    StartingSequenceNumber.";
const TAG_CHARACTERS: &str = "The allowed characters are Unicode letters, white-spaces, \
    '_',',','/','=','+','-','@',':'.";

impl ApiError {
    /// An error with a message of its own.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> ApiError {
        ApiError {
            code,
            message: message.into(),
        }
    }

    fn invalid(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorCode::InvalidArgument, message)
    }

    fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorCode::ResourceNotFound, message)
    }

    /// Something went wrong inside; the log says what, under the request's id.
    pub fn internal() -> ApiError {
        ApiError::new(ErrorCode::InternalFailure, "")
    }

    /// More is under way than the configured memory allows. The text is ours.
    pub fn overloaded() -> ApiError {
        ApiError::new(
            ErrorCode::ServiceUnavailable,
            "The server is handling as much as its memory limit allows. Try again.",
        )
    }

    /// Nothing is written any more, because a write to disk failed. The text is ours.
    pub fn writes_refused() -> ApiError {
        ApiError::new(
            ErrorCode::ServiceUnavailable,
            "A write to the disk failed, so writes are refused until the server is restarted. \
             Reads go on.",
        )
    }

    /// The disk, or what an ephemeral server may keep, is full. The text is ours.
    pub fn no_space() -> ApiError {
        ApiError::new(
            ErrorCode::ServiceUnavailable,
            "There is no space for more records. Free disk space or shorten a retention; reads go on.",
        )
    }

    /// The body is not a structure.
    pub fn malformed_body() -> ApiError {
        ApiError::new(ErrorCode::Serialization, "")
    }

    /// No such operation.
    pub fn unknown_operation() -> ApiError {
        ApiError::new(ErrorCode::UnknownOperation, "")
    }

    /// No credentials at all.
    pub fn missing_token() -> ApiError {
        ApiError::new(
            ErrorCode::MissingAuthenticationToken,
            "Missing Authentication Token",
        )
    }

    /// Credentials in the header and in the query.
    pub fn two_signatures() -> ApiError {
        ApiError::new(
            ErrorCode::InvalidSignature,
            "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.",
        )
    }

    /// The `Authorization` header lacks parts; `parts` are complaints in AWS's order.
    pub fn incomplete_header(missing: &[&str], no_date: bool, header: &str) -> ApiError {
        let mut message: String = missing
            .iter()
            .flat_map(|name| ["Authorization header requires '", name, "' parameter. "])
            .collect();
        if no_date {
            message.push_str(
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' \
                 header. ",
            );
        }
        message.push_str("Authorization=");
        message.extend(header.chars().take(millstream_wire::limits::ECHO_MAX_CHARS));
        ApiError::new(ErrorCode::IncompleteSignature, message)
    }

    /// The query string lacks parts of a signature.
    pub fn incomplete_query(missing: &[&str]) -> ApiError {
        let mut message: String = missing
            .iter()
            .flat_map(|name| ["AWS query-string parameters must include '", name, "'. "])
            .collect();
        message.push_str("Re-examine the query-string parameters.");
        ApiError::new(ErrorCode::IncompleteSignature, message)
    }

    /// No such stream.
    pub fn stream_not_found(named: Named<'_>) -> ApiError {
        ApiError::not_found(format!(
            "Stream {} under account {} not found.",
            named.stream, named.account
        ))
    }

    /// A stream of that name is there already.
    pub fn stream_exists(named: Named<'_>) -> ApiError {
        ApiError::new(
            ErrorCode::ResourceInUse,
            format!(
                "Stream {} under account {} already exists.",
                named.stream, named.account
            ),
        )
    }

    /// The stream must be `ACTIVE` for this.
    pub fn stream_not_active(named: Named<'_>, status: &StreamStatus) -> ApiError {
        ApiError::new(
            ErrorCode::ResourceInUse,
            format!(
                "Stream {} under account {} not ACTIVE, instead in state {status}",
                named.stream, named.account
            ),
        )
    }

    /// Neither the stream's name nor its ARN was given. The text is ours: AWS's is not recorded.
    pub fn stream_not_named() -> ApiError {
        ApiError::invalid("Either StreamName or StreamARN should be provided.")
    }

    /// Name and ARN name different streams. The text is ours: AWS's is not recorded.
    pub fn stream_named_twice() -> ApiError {
        ApiError::invalid("StreamName and StreamARN must name the same stream.")
    }

    /// The shard id is none, or the stream never had that shard; `shard` is the id as it was given,
    /// or as it reads once parsed.
    pub fn shard_not_found(shard: &str, named: Named<'_>) -> ApiError {
        let shard: String = shard.chars().take(128).collect();
        ApiError::not_found(format!("Could not find shard {shard} in {named}."))
    }

    /// As [`ApiError::shard_not_found`], where `GetShardIterator` and `GetRecords` say it; they say
    /// it of an unknown stream too.
    pub fn shard_does_not_exist(shard: ShardId, named: Named<'_>) -> ApiError {
        ApiError::not_found(format!("Shard {shard} in {named} does not exist"))
    }

    /// The split key is at an end of the shard or outside, of all shards even.
    pub fn bad_split_key(
        key: impl fmt::Display,
        shard: ShardId,
        named: Named<'_>,
        range: HashKeyRange,
    ) -> ApiError {
        ApiError::invalid(format!(
            "NewStartingHashKey {key} used in SplitShard() on shard {shard} in {named} is not both \
             greater than one plus the shard's StartingHashKey {} and less than the shard's \
             EndingHashKey {}.",
            range.start, range.end
        ))
    }

    /// The shards do not lie side by side in that order, or one of them is closed.
    pub fn not_adjacent(shard: ShardId, adjacent: ShardId, named: Named<'_>) -> ApiError {
        ApiError::invalid(format!(
            "Shards {shard} and {adjacent} in {named} are not an adjacent pair of shards eligible \
             for merging"
        ))
    }

    /// The shard to split is closed. The text is ours: AWS's is not recorded.
    pub fn shard_closed(shard: ShardId, named: Named<'_>) -> ApiError {
        ApiError::invalid(format!(
            "Shard {shard} in {named} is closed and cannot be split."
        ))
    }

    /// The account would have too many shards.
    pub fn too_many_shards(quota: ShardQuota<'_>) -> ApiError {
        let ShardQuota {
            account,
            region,
            current,
            limit,
            additional,
        } = quota;
        ApiError::new(
            ErrorCode::LimitExceeded,
            format!(
                "This request would exceed the shard limit for the account {account} in {region}. \
                 Current shard count for the account: {current}. Limit: {limit}. Number of \
                 additional shards that would have resulted from this request: {additional}. Refer \
                 to the AWS Service Limits page \
                 (http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current \
                 limits and how to request higher limits."
            ),
        )
    }

    /// The shard's throughput is used up for the moment.
    pub fn throttled(shard: ShardId, named: Named<'_>) -> ApiError {
        ApiError::new(
            ErrorCode::ProvisionedThroughputExceeded,
            format!("Rate exceeded for shard {shard} in {named}."),
        )
    }

    /// The shard iterator is not one of ours.
    pub fn invalid_iterator() -> ApiError {
        ApiError::invalid("Invalid ShardIterator.")
    }

    /// The shard iterator is older than 300 seconds.
    pub fn expired_iterator(created_ms: u64, now_ms: u64) -> ApiError {
        ApiError::new(
            ErrorCode::ExpiredIterator,
            format!(
                "Iterator expired. The iterator was created at time {} while right now it is {} \
                 which is further in the future than the tolerated delay of 300000 milliseconds.",
                java_date(created_ms),
                java_date(now_ms)
            ),
        )
    }

    /// The kind of iterator needs a sequence number and has none.
    pub fn iterator_needs_sequence(kind: &ShardIteratorType) -> ApiError {
        ApiError::invalid(format!(
            "{TIMESTAMP_CHOICE} Request specified {kind} and no StartingSequenceNumber."
        ))
    }

    /// The kind of iterator takes no sequence number and has one.
    pub fn iterator_takes_no_sequence(kind: &ShardIteratorType) -> ApiError {
        ApiError::invalid(format!(
            "{TIMESTAMP_CHOICE} Request specified {kind} and also a StartingSequenceNumber."
        ))
    }

    /// `AT_TIMESTAMP` without a time.
    pub fn iterator_needs_timestamp() -> ApiError {
        ApiError::invalid(
            "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current \
             request has no timestamp parameter.",
        )
    }

    /// `AT_TIMESTAMP` with a time to come.
    pub fn timestamp_in_future(timestamp_ms: i64, now_ms: u64) -> ApiError {
        ApiError::invalid(format!(
            "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. \
             timestampInMillis: {timestamp_ms}, currentTimestampInMillis: {now_ms}"
        ))
    }

    /// A starting sequence number that is none, or is not of this stream.
    pub fn bad_starting_sequence(
        number: &str,
        shard: ShardId,
        named: Named<'_>,
        fault: SequenceFault,
    ) -> ApiError {
        ApiError::bad_sequence_in("GetShardIterator", number, shard, named, fault)
    }

    /// As [`ApiError::bad_starting_sequence`], in another operation.
    pub fn bad_sequence_in(
        used_in: &str,
        number: &str,
        shard: ShardId,
        named: Named<'_>,
        fault: SequenceFault,
    ) -> ApiError {
        let why = match fault {
            SequenceFault::Malformed => ".",
            SequenceFault::Foreign => " because it did not come from this stream.",
        };
        ApiError::invalid(format!(
            "StartingSequenceNumber {number} used in {used_in} on shard {shard} in {named} \
             is invalid{why}"
        ))
    }

    /// A starting sequence number of another shard. One of an index that no shard has is printed as Java
    /// prints it, with its sign.
    pub fn sequence_of_other_shard(encoded: i32, used: ShardId) -> ApiError {
        ApiError::invalid(format!(
            "Invalid StartingSequenceNumber. It encodes shardId-{encoded:012}, while it was used in a call to \
             a shard with {used}"
        ))
    }

    /// A `SequenceNumberForOrdering` that is none, or lies in the future.
    pub fn bad_ordering_sequence(number: &str, named: Named<'_>) -> ApiError {
        ApiError::invalid(format!(
            "ExclusiveMinimumSequenceNumber {number} used in PutRecord on {named} is invalid."
        ))
    }

    /// An explicit hash key of 2^128 or more.
    pub fn explicit_hash_key_too_large(key: &str) -> ApiError {
        ApiError::invalid(format!(
            "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. \
             Specified value was {key}"
        ))
    }

    /// Data and partition key are larger than the stream takes; `path` is where the data stands,
    /// `data` or `records.1.member.data`.
    pub fn record_too_large(path: &str, data_len: usize, max_bytes: usize) -> ApiError {
        ApiError::new(
            ErrorCode::Validation,
            format!(
                "1 validation error detected: Value 'java.nio.HeapByteBuffer[pos=0 lim={data_len} \
                 cap={data_len}]' at '{path}' failed to satisfy constraint: Member must have length \
                 less than or equal to {max_bytes}"
            ),
        )
    }

    /// The records of one request are larger together than 10 MiB. The text is ours.
    pub fn records_too_large(bytes: usize, max_bytes: usize) -> ApiError {
        ApiError::invalid(format!(
            "Records size {bytes} exceeds the limit of {max_bytes} bytes for one request."
        ))
    }

    /// A retention below the least.
    pub fn retention_too_short(hours: i64, min_hours: u32) -> ApiError {
        ApiError::invalid(format!(
            "Minimum allowed retention period is {min_hours} hours. Requested retention period \
             ({hours} hours) is too short."
        ))
    }

    /// A retention above the greatest.
    pub fn retention_too_long(hours: i64, max_hours: u32) -> ApiError {
        ApiError::invalid(format!(
            "Maximum allowed retention period is {max_hours} hours. Requested retention period \
             ({hours} hours) is too long."
        ))
    }

    /// An increase to less than there is.
    pub fn retention_would_shrink(stream: &StreamName, hours: i64, existing: u32) -> ApiError {
        ApiError::invalid(format!(
            "Requested retention period ({hours} hours) for stream {stream} can not be shorter than \
             existing retention period ({existing} hours). Use DecreaseRetentionPeriod API."
        ))
    }

    /// A decrease to more than there is.
    pub fn retention_would_grow(stream: &StreamName, hours: i64, existing: u32) -> ApiError {
        ApiError::invalid(format!(
            "Requested retention period ({hours} hours) for stream {stream} can not be longer than \
             existing retention period ({existing} hours). Use IncreaseRetentionPeriod API."
        ))
    }

    /// Tags with characters that no tag may have.
    pub fn tag_characters() -> ApiError {
        ApiError::invalid(
            "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white \
             space, _ . / = + - % @ :.",
        )
    }

    /// Tags with `%`, which the message of [`ApiError::tag_characters`] allows and AWS does not.
    pub fn tag_percent(change: TagChange, named: Named<'_>) -> ApiError {
        let what = match change {
            TagChange::Add => "add tags to",
            TagChange::Remove => "remove tags from",
        };
        ApiError::invalid(format!(
            "Failed to {what} {named} because some tags contained illegal characters. \
             {TAG_CHARACTERS}"
        ))
    }

    /// A tag of a name that AWS keeps to itself. The text is ours: AWS's is not recorded.
    pub fn tag_reserved(named: Named<'_>) -> ApiError {
        ApiError::invalid(format!(
            "Failed to add tags to {named} because tag keys that begin with 'aws:' are reserved."
        ))
    }

    /// The stream would have more tags than it may.
    pub fn too_many_tags(named: Named<'_>, max: usize) -> ApiError {
        ApiError::invalid(format!(
            "Failed to add tags to {named} because a given stream cannot have more than {max} tags \
             associated with it."
        ))
    }

    /// `ListShards` without a stream and without a token.
    pub fn list_shards_needs_stream() -> ApiError {
        ApiError::invalid("Either NextToken or StreamName should be provided.")
    }

    /// `ListShards` with a stream and a token.
    pub fn list_shards_token_and_stream() -> ApiError {
        ApiError::invalid("NextToken and StreamName cannot be provided together.")
    }

    /// A page token that is none of ours. The text is ours: AWS's is not recorded.
    pub fn invalid_next_token() -> ApiError {
        ApiError::invalid("Invalid NextToken.")
    }

    /// A page token older than 300 seconds. The text is ours: AWS's is not recorded.
    pub fn expired_next_token() -> ApiError {
        ApiError::new(
            ErrorCode::ExpiredNextToken,
            "The NextToken is older than 300 seconds. List from the beginning.",
        )
    }

    /// A combination of arguments that has no constructor of its own.
    pub fn invalid_argument(message: impl Into<String>) -> ApiError {
        ApiError::invalid(message)
    }

    /// A dry run that would have succeeded. The text is ours: AWS's is not recorded.
    pub fn dry_run() -> ApiError {
        ApiError::new(
            ErrorCode::DryRunOperation,
            "The request would have succeeded, but the DryRun parameter is set.",
        )
    }

    /// Why one record was not taken.
    pub fn of_record(refusal: &Refusal, named: Named<'_>) -> ApiError {
        match refusal {
            Refusal::Throttled(shard) | Refusal::Overloaded(shard) => {
                ApiError::throttled(*shard, named)
            }
            Refusal::Failed(error) => ApiError::of_log(error),
        }
    }

    fn of_log(error: &log::Error) -> ApiError {
        match error {
            log::Error::Poisoned { .. } => ApiError::writes_refused(),
            log::Error::NoSpace { .. } => ApiError::no_space(),
            log::Error::Overloaded { .. } | log::Error::Closed => ApiError::overloaded(),
            log::Error::Sealed(_)
            | log::Error::Unknown(_)
            | log::Error::Exists(_)
            | log::Error::TooLarge { .. }
            | log::Error::Corrupt { .. }
            | log::Error::InUse { .. }
            | log::Error::NewerFormat { .. }
            | log::Error::NotADataDirectory { .. }
            | log::Error::Io { .. }
            | log::Error::Metadata(_) => {
                tracing::error!(%error, "the log failed");
                ApiError::internal()
            }
        }
    }
}

impl From<engine::Error> for ApiError {
    fn from(error: engine::Error) -> Self {
        use engine::Error;
        match error {
            Error::StreamNotFound(arn) => Self::stream_not_found(Named::from(&arn)),
            Error::StreamExists(arn) => Self::stream_exists(Named::from(&arn)),
            Error::StreamNotActive { arn, status } => {
                Self::stream_not_active(Named::from(&arn), &StreamStatus::from(status.name()))
            }
            Error::ShardNotFound { arn, shard } => Self::shard_not_found(&shard, Named::from(&arn)),
            Error::ShardClosed { arn, shard } => Self::shard_closed(shard, Named::from(&arn)),
            Error::BadSplitKey {
                arn,
                shard,
                key,
                range,
            } => Self::bad_split_key(key, shard, Named::from(&arn), range),
            Error::NotAdjacent { arn, first, second } => {
                Self::not_adjacent(first, second, Named::from(&arn))
            }
            Error::ShardLimit {
                arn,
                current,
                requested,
                limit,
            } => shard_limit(&arn, current, requested, limit),
            Error::ComingAndGoing { arn, limit } => {
                Self::too_many_coming_and_going(&arn.account, limit)
            }
            Error::TooManyTags { arn, .. } => {
                Self::too_many_tags(Named::from(&arn), TAGS_PER_STREAM)
            }
            Error::BadRetention {
                arn,
                current,
                requested,
                direction,
            } => bad_retention(&arn.name, current, requested, direction),
            Error::ForeignSequence {
                arn,
                shard,
                sequence,
            } => foreign_sequence(sequence, shard, &arn),
            Error::SequenceOfOtherShard { encoded, used } => {
                Self::sequence_of_other_shard(encoded, used)
            }
            Error::ShardGone {
                account,
                stream,
                shard,
            } => shard_gone(shard, &stream, &account),
            Error::FutureTimestamp { given_ms, now_ms } => {
                Self::timestamp_in_future(i64::try_from(given_ms).unwrap_or(i64::MAX), now_ms)
            }
            Error::InvalidIterator => Self::invalid_iterator(),
            Error::ExpiredIterator { minted_ms, now_ms } => {
                Self::expired_iterator(minted_ms, now_ms)
            }
            Error::RecordTooLarge { given, limit, .. } => {
                Self::record_too_large("data", given, limit)
            }
            Error::Throttled { arn, shard } => Self::throttled(shard, Named::from(&arn)),
            Error::Rate(error) => error.into(),
            Error::Setting { arn, refused } => Self::of_setting(&refused, Named::from(&arn)),
            Error::Consumer(error) => error.into(),
            Error::Overloaded => Self::overloaded(),
            Error::Log(error) => Self::of_log(&error),
        }
    }
}

fn shard_limit(arn: &StreamArn, current: usize, additional: usize, limit: usize) -> ApiError {
    ApiError::too_many_shards(ShardQuota {
        account: &arn.account,
        region: &arn.region,
        current,
        limit,
        additional,
    })
}

fn shard_gone(shard: ShardId, stream: &StreamName, account: &AccountId) -> ApiError {
    ApiError::shard_does_not_exist(shard, Named { stream, account })
}

fn foreign_sequence(sequence: SequenceNumber, shard: ShardId, arn: &StreamArn) -> ApiError {
    let text = sequence.normalized().to_string();
    let fault = SequenceFault::Foreign;
    ApiError::bad_starting_sequence(&text, shard, Named::from(arn), fault)
}

fn bad_retention(
    stream: &StreamName,
    current: u32,
    requested: i64,
    direction: RetentionChange,
) -> ApiError {
    match direction {
        _ if requested < i64::from(RETENTION_MIN_HOURS) => {
            ApiError::retention_too_short(requested, RETENTION_MIN_HOURS)
        }
        _ if requested > i64::from(RETENTION_MAX_HOURS) => {
            ApiError::retention_too_long(requested, RETENTION_MAX_HOURS)
        }
        RetentionChange::Increase => ApiError::retention_would_shrink(stream, requested, current),
        RetentionChange::Decrease => ApiError::retention_would_grow(stream, requested, current),
    }
}

impl<'a> From<&'a StreamArn> for Named<'a> {
    fn from(arn: &'a StreamArn) -> Self {
        Named {
            stream: &arn.name,
            account: &arn.account,
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Malformed => ApiError::malformed_body(),
            Refused::Type(message) => ApiError::new(ErrorCode::Serialization, message),
            Refused::Constraint(message) => ApiError::new(ErrorCode::Validation, message),
        }
    }
}

/// A time as Java's `Date` prints it: `Thu Jan 22 01:22:02 UTC 2015`.
fn java_date(ms: u64) -> String {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let seconds = ms / 1000;
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Counted in eras of 400 years that begin on 1 March, so that the leap day comes last.
    let from_march = days + 719_468;
    let (era, day_of_era) = (from_march / 146_097, from_march % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    let name = |names: &[&'static str], index: u64| {
        usize::try_from(index)
            .ok()
            .and_then(|index| names.get(index))
            .copied()
            .unwrap_or("?")
    };
    format!(
        "{} {} {day:02} {:02}:{:02}:{:02} UTC {year}",
        name(&WEEKDAYS, days % 7),
        name(&MONTHS, month),
        time / 3600,
        time / 60 % 60,
        time % 60,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_wire::HashKey;

    fn named<'a>(stream: &'a StreamName, account: &'a AccountId) -> Named<'a> {
        Named { stream, account }
    }

    #[test]
    fn messages_read_as_on_aws() {
        let (stream, account) = ("foo".parse().unwrap(), "000000000000".parse().unwrap());
        let foo = named(&stream, &account);
        let message = |error: ApiError| error.message;
        assert_eq!(
            message(ApiError::stream_not_found(foo)),
            "Stream foo under account 000000000000 not found."
        );
        assert_eq!(
            message(ApiError::shard_not_found("shardId-000000000009", foo)),
            "Could not find shard shardId-000000000009 in stream foo under account 000000000000."
        );
        assert_eq!(
            message(ApiError::stream_not_active(foo, &StreamStatus::Updating)),
            "Stream foo under account 000000000000 not ACTIVE, instead in state UPDATING"
        );
        assert_eq!(
            message(ApiError::throttled(ShardId(1), foo)),
            "Rate exceeded for shard shardId-000000000001 in stream foo under account 000000000000."
        );
        assert_eq!(
            message(ApiError::bad_split_key(
                HashKey(1),
                ShardId(0),
                foo,
                HashKeyRange::ALL
            )),
            "NewStartingHashKey 1 used in SplitShard() on shard shardId-000000000000 in stream foo \
             under account 000000000000 is not both greater than one plus the shard's \
             StartingHashKey 0 and less than the shard's EndingHashKey \
             340282366920938463463374607431768211455."
        );
        assert_eq!(
            message(ApiError::bad_starting_sequence(
                "5",
                ShardId(0),
                foo,
                SequenceFault::Foreign
            )),
            "StartingSequenceNumber 5 used in GetShardIterator on shard shardId-000000000000 in \
             stream foo under account 000000000000 is invalid because it did not come from this \
             stream."
        );
        assert_eq!(
            message(ApiError::iterator_needs_sequence(
                &ShardIteratorType::AtSequenceNumber
            )),
            "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and \
             StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. \
             Request specified AT_SEQUENCE_NUMBER and no StartingSequenceNumber."
        );
    }

    #[test]
    fn an_expired_iterator_names_both_times_as_java_prints_them() {
        assert_eq!(
            ApiError::expired_iterator(1_421_889_722_000, 1_456_790_399_999).message,
            "Iterator expired. The iterator was created at time Thu Jan 22 01:22:02 UTC 2015 while \
             right now it is Mon Feb 29 23:59:59 UTC 2016 which is further in the future than the \
             tolerated delay of 300000 milliseconds."
        );
        assert_eq!(java_date(0), "Thu Jan 01 00:00:00 UTC 1970");
        assert_eq!(java_date(4_107_542_400_000), "Mon Mar 01 00:00:00 UTC 2100");
        assert!(!java_date(u64::MAX).contains('?'));
    }
}
