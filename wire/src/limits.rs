//! Every numeric limit of the API, with its unit and the page or model shape it comes from.
//!
//! Sources: the Kinesis service model `kinesis/2013-12-02` ("model") and the developer guide's page
//! *Quotas and limits* ("quotas").

/// Characters in a partition key: 1 to this many (model: `PartitionKey`).
pub const PARTITION_KEY_MAX_CHARS: usize = 256;
/// Bytes in a record's data at most (model: `Data`, 10 MiB).
pub const DATA_MAX_BYTES: usize = 10_485_760;
/// Bytes of data plus partition key that a stream accepts in one record unless its
/// `MaxRecordSizeInKiB` says otherwise (quotas: 1 MiB).
pub const RECORD_DEFAULT_MAX_BYTES: usize = 1_048_576;
/// Records in one PutRecords request at most (model: `PutRecordsRequestEntryList`).
pub const PUT_RECORDS_MAX_COUNT: usize = 500;
/// Bytes of data and partition keys in one PutRecords request at most (quotas: 10 MiB).
pub const PUT_RECORDS_MAX_BYTES: usize = 10_485_760;
/// Records in one GetRecords answer at most (model: `GetRecordsInputLimit`).
pub const GET_RECORDS_MAX_COUNT: usize = 10_000;
/// Bytes in one GetRecords answer at most (quotas: 10 MiB).
pub const GET_RECORDS_MAX_BYTES: usize = 10_485_760;
/// Seconds a shard iterator lives (API reference: `GetShardIterator`).
pub const SHARD_ITERATOR_TTL_SECONDS: u64 = 300;
/// Seconds a ListShards page token lives (model: `ListShardsInput`).
pub const LIST_SHARDS_TOKEN_TTL_SECONDS: u64 = 300;
/// Shards in one ListShards page: default and cap (quotas).
pub const LIST_SHARDS_MAX_COUNT: usize = 1_000;
/// Bytes per second written to one shard (quotas: 1 MiB/s).
pub const SHARD_WRITE_BYTES_PER_SECOND: u64 = 1_048_576;
/// Records per second written to one shard (quotas).
pub const SHARD_WRITE_RECORDS_PER_SECOND: u64 = 1_000;
/// Bytes per second read from one shard by all GetRecords callers (quotas: 2 MiB/s).
pub const SHARD_READ_BYTES_PER_SECOND: u64 = 2_097_152;
/// GetRecords calls per second on one shard (quotas).
pub const SHARD_READ_CALLS_PER_SECOND: u64 = 5;
/// GetShardIterator calls per second on one shard (model: `GetShardIterator`).
pub const SHARD_ITERATOR_CALLS_PER_SECOND: u64 = 5;
/// Hours a new stream retains its records (API reference: `CreateStream`).
pub const RETENTION_DEFAULT_HOURS: u32 = 24;
/// Hours a stream may retain its records at least (API reference).
pub const RETENTION_MIN_HOURS: u32 = 24;
/// Hours a stream may retain its records at most, 365 days (API reference).
pub const RETENTION_MAX_HOURS: u32 = 8_760;
/// Open shards of one account in one region (quotas; 200 outside the three largest regions).
pub const SHARDS_PER_ACCOUNT: usize = 500;
/// Streams of one account in one region that may be CREATING or DELETING at a time (model: `CreateStream`;
/// that those being deleted count is in AWS's message).
pub const STREAMS_COMING_AND_GOING: usize = 5;
/// On-demand streams of one account in one region (quotas).
pub const ON_DEMAND_STREAMS_PER_ACCOUNT: usize = 50;
/// Shards UpdateShardCount scales a stream to at most (API reference).
pub const SCALED_SHARDS_MAX: usize = 10_000;
/// UpdateShardCount calls on one stream in 24 hours (API reference).
pub const SCALINGS_PER_DAY: usize = 10;
/// Changes of one stream's mode in 24 hours (API reference: `UpdateStreamMode`).
pub const MODE_CHANGES_PER_DAY: usize = 2;
/// Times encryption of one stream may begin in 24 hours, and as often end (API reference).
pub const ENCRYPTION_CHANGES_PER_DAY: usize = 25;
/// Warm throughput of one stream at most, MiB per second (API reference: 10 GiB/s).
pub const WARM_THROUGHPUT_MAX_MIBPS: u32 = 10_240;
/// Bytes of a resource policy at most (IAM quotas: resource policies of 20 KB).
pub const POLICY_MAX_BYTES: usize = 20_480;
/// Tags on one stream at most (quotas).
pub const TAGS_PER_STREAM: usize = 50;
/// Shards of a stream created without `ShardCount` (on-demand mode; recorded on AWS).
pub const ON_DEMAND_INITIAL_SHARDS: u32 = 4;
/// Open shards in one account and region where AWS's limits are switched off: a bound on memory.
pub const SHARDS_PER_NODE: usize = 10_000;
/// Shards of all accounts and regions together, those closed but not expired included, that a server
/// keeps: a bound on memory whatever regions the signatures name and however often is resharded.
pub const SHARDS_STORED_PER_NODE: usize = 50_000;
/// Characters of a refused value that an error message repeats at most. AWS repeats it whole; the
/// bound keeps an answer small whatever was sent.
pub const ECHO_MAX_CHARS: usize = 4_096;
/// Tags in one request at most (model: `TagMap`).
pub const TAG_MAP_MAX_COUNT: usize = 200;
/// Tag keys in one request at most (model: `TagKeyList`).
pub const TAG_KEYS_MAX_COUNT: usize = 50;
/// Consumers registered with one stream at most (quotas).
pub const CONSUMERS_PER_STREAM: usize = 20;
/// Consumers of one stream that may be CREATING at a time (model: `RegisterStreamConsumer`).
pub const CONSUMERS_CREATING: usize = 5;
/// Consumers of one stream where AWS's limits are switched off: a bound on memory.
pub const CONSUMERS_PER_STREAM_UNLIMITED: usize = 10_000;
/// Seconds a subscription to a shard lasts (model: `SubscribeToShard`).
pub const SUBSCRIPTION_SECONDS: u64 = 300;
/// Seconds for which a new subscription cannot be taken over (model: `SubscribeToShard`).
pub const SUBSCRIPTION_TAKEOVER_SECONDS: u64 = 5;
/// Seconds between two events of a subscription at most (observed on AWS).
pub const SUBSCRIPTION_EVENT_SECONDS: u64 = 5;
/// SubscribeToShard calls per second for one consumer and shard (model).
pub const SUBSCRIBE_CALLS_PER_SECOND: u64 = 1;
/// Bytes of records in one event of a subscription at most; one record may be larger. The number is
/// ours: it is what one subscriber may hold in memory.
pub const SUBSCRIPTION_EVENT_MAX_BYTES: usize = 1_048_576;
/// Records in one event of a subscription at most; ours as well, for the same reason.
pub const SUBSCRIPTION_EVENT_MAX_RECORDS: usize = 2_000;
/// Seconds a ListStreams page token lives. The model says that it expires; how soon is ours, as elsewhere.
pub const LIST_STREAMS_TOKEN_TTL_SECONDS: u64 = 300;
/// Seconds a ListStreamConsumers page token lives (model: `ListStreamConsumersInput`).
pub const LIST_CONSUMERS_TOKEN_TTL_SECONDS: u64 = 300;
