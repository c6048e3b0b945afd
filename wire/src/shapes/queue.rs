//! Queues over a stream: what is asked, so that it can be checked; nothing of it is served yet.

use std::collections::BTreeMap;

use super::constraint::{Constraint, Kind, NEXT_TOKEN, STREAM_ARN, TAG_MAP, TIMESTAMP};
use super::lenient;
use super::pattern;
use super::tags::KEEP_TAGS;
use super::validate::Declared;
use super::value::Timestamp;

/// Keeps one item more than the model allows.
const KEEP_11: usize = 11;
/// Keeps one item more than the model allows.
const KEEP_10001: usize = 10001;

/// Model: `QueueARN`.
static QUEUE_ARN: Constraint = Constraint::new(Kind::Text).len(1, 2048).pattern(
    r"arn:aws.*:kinesis:.*:\d{12}:queue/\S+",
    pattern::is_queue_arn,
);
/// Model: `AcknowledgeDeadLetterQueueRecordsRequestEntryList`.
static ACKNOWLEDGE_DEAD_LETTER_QUEUE_RECORDS_REQUEST_ENTRY_LIST: Constraint = Constraint::new(
    Kind::List(&ACKNOWLEDGE_DEAD_LETTER_QUEUE_RECORDS_REQUEST_ENTRY),
)
.len(1, 10);
/// Model: `AcknowledgeDeadLetterQueueRecordsRequestEntry`.
static ACKNOWLEDGE_DEAD_LETTER_QUEUE_RECORDS_REQUEST_ENTRY: Constraint =
    Constraint::structure(AcknowledgeDeadLetterQueueRecordsRequestEntry::MEMBERS);
/// Model: `ReceiptHandle`.
static RECEIPT_HANDLE: Constraint = Constraint::new(Kind::Text).len(1, 1024);
/// Model: `AcknowledgeQueueRecordsRequestEntryList`.
static ACKNOWLEDGE_QUEUE_RECORDS_REQUEST_ENTRY_LIST: Constraint =
    Constraint::new(Kind::List(&ACKNOWLEDGE_QUEUE_RECORDS_REQUEST_ENTRY)).len(1, 10);
/// Model: `AcknowledgeQueueRecordsRequestEntry`.
static ACKNOWLEDGE_QUEUE_RECORDS_REQUEST_ENTRY: Constraint =
    Constraint::structure(AcknowledgeQueueRecordsRequestEntry::MEMBERS);
/// Model: `QueueName`.
static QUEUE_NAME: Constraint = Constraint::new(Kind::Text)
    .len(1, 128)
    .pattern(r"[a-zA-Z0-9_.-]+", pattern::is_name);
/// Model: `QueueStreamConfigurationList`.
static QUEUE_STREAM_CONFIGURATION_LIST: Constraint =
    Constraint::new(Kind::List(&QUEUE_STREAM_CONFIGURATION)).len(1, 10000);
/// Model: `QueueStreamConfiguration`.
static QUEUE_STREAM_CONFIGURATION: Constraint =
    Constraint::structure(QueueStreamConfiguration::MEMBERS);
/// Model: `QueueStartingPosition`.
static QUEUE_STARTING_POSITION: Constraint = Constraint::structure(QueueStartingPosition::MEMBERS);
/// Model: `QueueStartingPositionType`.
static QUEUE_STARTING_POSITION_TYPE: Constraint =
    Constraint::one_of(&["TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"]);
/// Model: `QueueAttributes`.
static QUEUE_ATTRIBUTES: Constraint = Constraint::structure(QueueAttributes::MEMBERS);
/// Model: `VisibilityTimeoutSeconds`.
static VISIBILITY_TIMEOUT_SECONDS: Constraint = Constraint::new(Kind::Integer).range(0, 43200);
/// Model: `DeadLetterConfiguration`.
static DEAD_LETTER_CONFIGURATION: Constraint =
    Constraint::structure(DeadLetterConfiguration::MEMBERS);
/// Model: `TargetType`.
static TARGET_TYPE: Constraint = Constraint::one_of(&["BUILT_IN", "NONE"]);
/// Model: `MaxReceiveCount`.
static MAX_RECEIVE_COUNT: Constraint = Constraint::new(Kind::Integer).range(1, 1000);
/// Model: `ListQueuesInputLimit`.
static LIST_QUEUES_INPUT_LIMIT: Constraint = Constraint::new(Kind::Integer).range(1, 10000);
/// Model: `QueueStreamFilterList`.
static QUEUE_STREAM_FILTER_LIST: Constraint =
    Constraint::new(Kind::List(&QUEUE_STREAM_FILTER)).len(1, 10000);
/// Model: `QueueStreamFilter`.
static QUEUE_STREAM_FILTER: Constraint = Constraint::structure(QueueStreamFilter::MEMBERS);
/// Model: `ReceiveQueueRecordsInputLimit`.
static RECEIVE_QUEUE_RECORDS_INPUT_LIMIT: Constraint = Constraint::new(Kind::Integer).range(1, 10);
/// Model: `ReceiveQueueRecordsWaitTimeSeconds`.
static RECEIVE_QUEUE_RECORDS_WAIT_TIME_SECONDS: Constraint =
    Constraint::new(Kind::Integer).range(1, 20);
/// Model: `RestoreDeadLetterQueueRecordsRequestEntryList`.
static RESTORE_DEAD_LETTER_QUEUE_RECORDS_REQUEST_ENTRY_LIST: Constraint =
    Constraint::new(Kind::List(&RESTORE_DEAD_LETTER_QUEUE_RECORDS_REQUEST_ENTRY)).len(1, 10);
/// Model: `RestoreDeadLetterQueueRecordsRequestEntry`.
static RESTORE_DEAD_LETTER_QUEUE_RECORDS_REQUEST_ENTRY: Constraint =
    Constraint::structure(RestoreDeadLetterQueueRecordsRequestEntry::MEMBERS);
/// Model: `UpdateDeadLetterQueueRecordsVisibilityRequestEntryList`.
static UPDATE_DEAD_LETTER_QUEUE_RECORDS_VISIBILITY_REQUEST_ENTRY_LIST: Constraint =
    Constraint::new(Kind::List(
        &UPDATE_DEAD_LETTER_QUEUE_RECORDS_VISIBILITY_REQUEST_ENTRY,
    ))
    .len(1, 10);
/// Model: `UpdateDeadLetterQueueRecordsVisibilityRequestEntry`.
static UPDATE_DEAD_LETTER_QUEUE_RECORDS_VISIBILITY_REQUEST_ENTRY: Constraint =
    Constraint::structure(UpdateDeadLetterQueueRecordsVisibilityRequestEntry::MEMBERS);
/// Model: `UpdateQueueRecordsVisibilityRequestEntryList`.
static UPDATE_QUEUE_RECORDS_VISIBILITY_REQUEST_ENTRY_LIST: Constraint =
    Constraint::new(Kind::List(&UPDATE_QUEUE_RECORDS_VISIBILITY_REQUEST_ENTRY)).len(1, 10);
/// Model: `UpdateQueueRecordsVisibilityRequestEntry`.
static UPDATE_QUEUE_RECORDS_VISIBILITY_REQUEST_ENTRY: Constraint =
    Constraint::structure(UpdateQueueRecordsVisibilityRequestEntry::MEMBERS);

shape! {
    /// Asks for `AcknowledgeDeadLetterQueueRecords`.
    AcknowledgeDeadLetterQueueRecordsRequest {
        /// The queue.
        queue_arn: String = "QueueARN", required QUEUE_ARN;
        /// Which records.
        #[serde(deserialize_with = "lenient::structures::<_, _, KEEP_11>")]
        entries: Vec<AcknowledgeDeadLetterQueueRecordsRequestEntry> = "Entries", required ACKNOWLEDGE_DEAD_LETTER_QUEUE_RECORDS_REQUEST_ENTRY_LIST;
    }
}

shape! {
    /// Model: `AcknowledgeDeadLetterQueueRecordsRequestEntry`.
    AcknowledgeDeadLetterQueueRecordsRequestEntry {
        /// What a receive gave for the record.
        receipt_handle: String = "ReceiptHandle", required RECEIPT_HANDLE;
    }
}

shape! {
    /// Asks for `AcknowledgeQueueRecords`.
    AcknowledgeQueueRecordsRequest {
        /// The queue.
        queue_arn: String = "QueueARN", required QUEUE_ARN;
        /// Which records.
        #[serde(deserialize_with = "lenient::structures::<_, _, KEEP_11>")]
        entries: Vec<AcknowledgeQueueRecordsRequestEntry> = "Entries", required ACKNOWLEDGE_QUEUE_RECORDS_REQUEST_ENTRY_LIST;
    }
}

shape! {
    /// Model: `AcknowledgeQueueRecordsRequestEntry`.
    AcknowledgeQueueRecordsRequestEntry {
        /// What a receive gave for the record.
        receipt_handle: String = "ReceiptHandle", required RECEIPT_HANDLE;
    }
}

shape! {
    /// Asks for `CreateQueue`.
    CreateQueueRequest {
        /// Its name.
        queue_name: String = "QueueName", required QUEUE_NAME;
        /// What it reads.
        #[serde(deserialize_with = "lenient::structures::<_, _, KEEP_10001>")]
        stream_configuration_list: Vec<QueueStreamConfiguration> = "StreamConfigurationList", required QUEUE_STREAM_CONFIGURATION_LIST;
        /// How it hands out records.
        #[serde(deserialize_with = "lenient::structure")]
        queue_attributes: QueueAttributes = "QueueAttributes", optional QUEUE_ATTRIBUTES;
        /// Its first tags.
        #[serde(deserialize_with = "lenient::map::<_, KEEP_TAGS>")]
        tags: BTreeMap<String, String> = "Tags", optional TAG_MAP;
    }
}

shape! {
    /// Model: `QueueStreamConfiguration`.
    QueueStreamConfiguration {
        /// The stream.
        stream_arn: String = "StreamARN", required STREAM_ARN;
        /// Where it begins.
        #[serde(deserialize_with = "lenient::structure")]
        starting_position: QueueStartingPosition = "StartingPosition", optional QUEUE_STARTING_POSITION;
    }
}

shape! {
    /// Model: `QueueStartingPosition`.
    QueueStartingPosition {
        /// The kind of place.
        kind: String = "Type", required QUEUE_STARTING_POSITION_TYPE;
        /// The place, for `AT_TIMESTAMP`.
        timestamp: Timestamp = "Timestamp", optional TIMESTAMP;
    }
}

shape! {
    /// Model: `QueueAttributes`.
    QueueAttributes {
        /// Seconds a received record stays hidden.
        #[serde(deserialize_with = "lenient::integer")]
        visibility_timeout_seconds: i64 = "VisibilityTimeoutSeconds", optional VISIBILITY_TIMEOUT_SECONDS;
        /// What becomes of records that were received in vain.
        #[serde(deserialize_with = "lenient::structure")]
        dead_letter_configuration: DeadLetterConfiguration = "DeadLetterConfiguration", optional DEAD_LETTER_CONFIGURATION;
    }
}

shape! {
    /// Model: `DeadLetterConfiguration`.
    DeadLetterConfiguration {
        /// Where they go.
        target_type: String = "TargetType", required TARGET_TYPE;
        /// Receives before they go there.
        #[serde(deserialize_with = "lenient::integer")]
        max_receive_count: i64 = "MaxReceiveCount", optional MAX_RECEIVE_COUNT;
    }
}

shape! {
    /// Asks for `DeleteQueue`.
    DeleteQueueRequest {
        /// The queue.
        queue_arn: String = "QueueARN", required QUEUE_ARN;
    }
}

shape! {
    /// Asks for `DescribeQueue`.
    DescribeQueueRequest {
        /// The queue.
        queue_arn: String = "QueueARN", required QUEUE_ARN;
    }
}

shape! {
    /// Asks for `ListQueues`.
    ListQueuesRequest {
        /// How many at most.
        #[serde(deserialize_with = "lenient::integer")]
        max_results: i64 = "MaxResults", optional LIST_QUEUES_INPUT_LIMIT;
        /// Where the previous page ended.
        next_token: String = "NextToken", optional NEXT_TOKEN;
        /// Of which streams.
        #[serde(deserialize_with = "lenient::structures::<_, _, KEEP_10001>")]
        stream_filter: Vec<QueueStreamFilter> = "StreamFilter", optional QUEUE_STREAM_FILTER_LIST;
    }
}

shape! {
    /// Model: `QueueStreamFilter`.
    QueueStreamFilter {
        /// The stream.
        stream_arn: String = "StreamARN", required STREAM_ARN;
        /// Which of the streams that ever had this name.
        stream_creation_timestamp: Timestamp = "StreamCreationTimestamp", optional TIMESTAMP;
    }
}

shape! {
    /// Asks for `ReceiveDeadLetterQueueRecords`.
    ReceiveDeadLetterQueueRecordsRequest {
        /// The queue.
        queue_arn: String = "QueueARN", required QUEUE_ARN;
        /// How many records at most.
        #[serde(deserialize_with = "lenient::integer")]
        limit: i64 = "Limit", optional RECEIVE_QUEUE_RECORDS_INPUT_LIMIT;
        /// Seconds to wait for a record.
        #[serde(deserialize_with = "lenient::integer")]
        wait_time_seconds: i64 = "WaitTimeSeconds", optional RECEIVE_QUEUE_RECORDS_WAIT_TIME_SECONDS;
        /// Seconds a received record stays hidden.
        #[serde(deserialize_with = "lenient::integer")]
        visibility_timeout_seconds: i64 = "VisibilityTimeoutSeconds", optional VISIBILITY_TIMEOUT_SECONDS;
    }
}

shape! {
    /// Asks for `ReceiveQueueRecords`.
    ReceiveQueueRecordsRequest {
        /// The queue.
        queue_arn: String = "QueueARN", required QUEUE_ARN;
        /// How many records at most.
        #[serde(deserialize_with = "lenient::integer")]
        limit: i64 = "Limit", optional RECEIVE_QUEUE_RECORDS_INPUT_LIMIT;
        /// Seconds to wait for a record.
        #[serde(deserialize_with = "lenient::integer")]
        wait_time_seconds: i64 = "WaitTimeSeconds", optional RECEIVE_QUEUE_RECORDS_WAIT_TIME_SECONDS;
        /// Seconds a received record stays hidden.
        #[serde(deserialize_with = "lenient::integer")]
        visibility_timeout_seconds: i64 = "VisibilityTimeoutSeconds", optional VISIBILITY_TIMEOUT_SECONDS;
    }
}

shape! {
    /// Asks for `RestoreDeadLetterQueueRecords`.
    RestoreDeadLetterQueueRecordsRequest {
        /// The queue.
        queue_arn: String = "QueueARN", required QUEUE_ARN;
        /// Which records.
        #[serde(deserialize_with = "lenient::structures::<_, _, KEEP_11>")]
        entries: Vec<RestoreDeadLetterQueueRecordsRequestEntry> = "Entries", required RESTORE_DEAD_LETTER_QUEUE_RECORDS_REQUEST_ENTRY_LIST;
    }
}

shape! {
    /// Model: `RestoreDeadLetterQueueRecordsRequestEntry`.
    RestoreDeadLetterQueueRecordsRequestEntry {
        /// What a receive gave for the record.
        receipt_handle: String = "ReceiptHandle", required RECEIPT_HANDLE;
    }
}

shape! {
    /// Asks for `UpdateDeadLetterQueueRecordsVisibility`.
    UpdateDeadLetterQueueRecordsVisibilityRequest {
        /// The queue.
        queue_arn: String = "QueueARN", required QUEUE_ARN;
        /// Which records.
        #[serde(deserialize_with = "lenient::structures::<_, _, KEEP_11>")]
        entries: Vec<UpdateDeadLetterQueueRecordsVisibilityRequestEntry> = "Entries", required UPDATE_DEAD_LETTER_QUEUE_RECORDS_VISIBILITY_REQUEST_ENTRY_LIST;
    }
}

shape! {
    /// Model: `UpdateDeadLetterQueueRecordsVisibilityRequestEntry`.
    UpdateDeadLetterQueueRecordsVisibilityRequestEntry {
        /// What a receive gave for the record.
        receipt_handle: String = "ReceiptHandle", required RECEIPT_HANDLE;
        /// Seconds a received record stays hidden.
        #[serde(deserialize_with = "lenient::integer")]
        visibility_timeout_seconds: i64 = "VisibilityTimeoutSeconds", required VISIBILITY_TIMEOUT_SECONDS;
    }
}

shape! {
    /// Asks for `UpdateQueue`.
    UpdateQueueRequest {
        /// The queue.
        queue_arn: String = "QueueARN", required QUEUE_ARN;
        /// How it hands out records.
        #[serde(deserialize_with = "lenient::structure")]
        queue_attributes: QueueAttributes = "QueueAttributes", required QUEUE_ATTRIBUTES;
    }
}

shape! {
    /// Asks for `UpdateQueueRecordsVisibility`.
    UpdateQueueRecordsVisibilityRequest {
        /// The queue.
        queue_arn: String = "QueueARN", required QUEUE_ARN;
        /// Which records.
        #[serde(deserialize_with = "lenient::structures::<_, _, KEEP_11>")]
        entries: Vec<UpdateQueueRecordsVisibilityRequestEntry> = "Entries", required UPDATE_QUEUE_RECORDS_VISIBILITY_REQUEST_ENTRY_LIST;
    }
}

shape! {
    /// Model: `UpdateQueueRecordsVisibilityRequestEntry`.
    UpdateQueueRecordsVisibilityRequestEntry {
        /// What a receive gave for the record.
        receipt_handle: String = "ReceiptHandle", required RECEIPT_HANDLE;
        /// Seconds a received record stays hidden.
        #[serde(deserialize_with = "lenient::integer")]
        visibility_timeout_seconds: i64 = "VisibilityTimeoutSeconds", required VISIBILITY_TIMEOUT_SECONDS;
    }
}
