//! Channels of a stream: what is asked, so that it can be checked; nothing of it is served yet.

use std::collections::BTreeMap;

use super::constraint::{
    BOOLEAN, Constraint, KEY_ID, Kind, NEXT_TOKEN, STREAM_ARN, TAG_MAP, TIMESTAMP,
};
use super::lenient;
use super::pattern;
use super::tags::KEEP_TAGS;
use super::validate::Declared;
use super::value::Timestamp;

/// Keeps one item more than the model allows.
const KEEP_11: usize = 11;
/// Keeps one item more than the model allows.
const KEEP_10001: usize = 10001;

/// Model: `ChannelName`.
static CHANNEL_NAME: Constraint = Constraint::new(Kind::Text)
    .len(1, 128)
    .pattern(r"[a-zA-Z0-9_.-]+", pattern::is_name);
/// Model: `RoleARN`.
static ROLE_ARN: Constraint = Constraint::new(Kind::Text).len(1, 512).pattern(
    r"arn:aws[-a-z0-9]*:iam::\d{12}:role/[a-zA-Z_0-9+=,.@\-_/]+",
    pattern::is_role_arn,
);
/// Model: `ChannelStreamConfigurationList`.
static CHANNEL_STREAM_CONFIGURATION_LIST: Constraint =
    Constraint::new(Kind::List(&CHANNEL_STREAM_CONFIGURATION)).len(1, 10000);
/// Model: `ChannelStreamConfiguration`.
static CHANNEL_STREAM_CONFIGURATION: Constraint =
    Constraint::structure(ChannelStreamConfiguration::MEMBERS);
/// Model: `RecordConfiguration`.
static RECORD_CONFIGURATION: Constraint = Constraint::structure(RecordConfiguration::MEMBERS);
/// Model: `RecordFormatType`.
static RECORD_FORMAT_TYPE: Constraint =
    Constraint::one_of(&["GSR_JSON", "JSON", "STRING", "BYTE_ARRAY"]);
/// Model: `GSRSchemaARN`.
static GSR_SCHEMA_ARN: Constraint = Constraint::new(Kind::Text).len(1, 512).pattern(
    r"arn:aws[-a-z0-9]*:glue:[-a-z0-9]+:\d{12}:schema/[-a-zA-Z0-9_$#.]+/[-a-zA-Z0-9_$#.]+",
    pattern::is_schema_arn,
);
/// Model: `S3DestinationConfiguration`.
static S3_DESTINATION_CONFIGURATION: Constraint =
    Constraint::structure(S3DestinationConfiguration::MEMBERS);
/// Model: `DataFreshnessInSeconds`.
static DATA_FRESHNESS_IN_SECONDS: Constraint = Constraint::new(Kind::Integer);
/// Model: `DeadLetterQueueS3Configuration`.
static DEAD_LETTER_QUEUE_S3_CONFIGURATION: Constraint =
    Constraint::structure(DeadLetterQueueS3Configuration::MEMBERS);
/// Model: `BucketARN`.
static BUCKET_ARN: Constraint = Constraint::new(Kind::Text).len(1, 2048).pattern(
    r"arn:aws[-a-z0-9]*:s3:::[a-z0-9._-]{3,63}",
    pattern::is_bucket_arn,
);
/// Model: `ExpectedBucketOwner`.
static EXPECTED_BUCKET_OWNER: Constraint = Constraint::new(Kind::Text)
    .len(12, 12)
    .pattern(r"\d{12}", pattern::is_account);
/// Model: `S3ErrorOutputPrefix`.
static S3_ERROR_OUTPUT_PREFIX: Constraint = Constraint::new(Kind::Text)
    .len(1, 512)
    .pattern(r"[0-9A-Za-z!\-_'.*()\/]+", pattern::is_prefix);
/// Model: `S3StorageConfiguration`.
static S3_STORAGE_CONFIGURATION: Constraint =
    Constraint::structure(S3StorageConfiguration::MEMBERS);
/// Model: `S3OutputKeyTemplate`.
static S3_OUTPUT_KEY_TEMPLATE: Constraint = Constraint::new(Kind::Text)
    .len(1, 1024)
    .pattern(r"[0-9A-Za-z!\-_'.*()\/=:{}]+", pattern::is_key_template);
/// Model: `S3StorageClass`.
static S3_STORAGE_CLASS: Constraint =
    Constraint::one_of(&["STANDARD", "INTELLIGENT_TIERING", "GLACIER_IR"]);
/// Model: `S3CompressionType`.
static S3_COMPRESSION_TYPE: Constraint = Constraint::one_of(&["NONE", "GZIP", "ZSTD"]);
/// Model: `S3TablesDestinationConfiguration`.
static S3_TABLES_DESTINATION_CONFIGURATION: Constraint =
    Constraint::structure(S3TablesDestinationConfiguration::MEMBERS);
/// Model: `S3TablesConfigurationList`.
static S3_TABLES_CONFIGURATION_LIST: Constraint =
    Constraint::new(Kind::List(&S3_TABLES_CONFIGURATION)).len(1, 10000);
/// Model: `S3TablesConfiguration`.
static S3_TABLES_CONFIGURATION: Constraint = Constraint::structure(S3TablesConfiguration::MEMBERS);
/// Model: `TableBucketARN`.
static TABLE_BUCKET_ARN: Constraint = Constraint::new(Kind::Text).len(1, 2048).pattern(
    r"arn:aws[-a-z0-9]*:s3tables:[-a-z0-9]+:\d{12}:bucket/[a-z0-9_-]{3,63}",
    pattern::is_table_bucket_arn,
);
/// Model: `S3TablesNamespace`.
static S3_TABLES_NAMESPACE: Constraint = Constraint::new(Kind::Text)
    .len(1, 255)
    .pattern(r"[0-9a-z_]+", pattern::is_table_name);
/// Model: `S3TablesTableName`.
static S3_TABLES_TABLE_NAME: Constraint = Constraint::new(Kind::Text)
    .len(1, 255)
    .pattern(r"[0-9a-z_]+", pattern::is_table_name);
/// Model: `S3TablesCompressionType`.
static S3_TABLES_COMPRESSION_TYPE: Constraint = Constraint::one_of(&["NONE", "ZSTD", "SNAPPY"]);
/// Model: `PartitionSpec`.
static PARTITION_SPEC: Constraint = Constraint::structure(PartitionSpec::MEMBERS);
/// Model: `PartitionFieldList`.
static PARTITION_FIELD_LIST: Constraint = Constraint::new(Kind::List(&PARTITION_FIELD)).len(1, 10);
/// Model: `PartitionField`.
static PARTITION_FIELD: Constraint = Constraint::structure(PartitionField::MEMBERS);
/// Model: `PartitionTransform`.
static PARTITION_TRANSFORM: Constraint = Constraint::one_of(&["TIME_HOUR"]);
/// Model: `PartitionSourceName`.
static PARTITION_SOURCE_NAME: Constraint = Constraint::new(Kind::Text)
    .len(1, 255)
    .pattern(r"[a-zA-Z0-9\.\_]+", pattern::is_source_name);
/// Model: `ChannelEncryptionConfiguration`.
static CHANNEL_ENCRYPTION_CONFIGURATION: Constraint =
    Constraint::structure(ChannelEncryptionConfiguration::MEMBERS);
/// Model: `ChannelEncryptionType`.
static CHANNEL_ENCRYPTION_TYPE: Constraint = Constraint::one_of(&["KMS"]);
/// Model: `ChannelLoggingConfiguration`.
static CHANNEL_LOGGING_CONFIGURATION: Constraint =
    Constraint::structure(ChannelLoggingConfiguration::MEMBERS);
/// Model: `CloudWatchLogs`.
static CLOUDWATCH_LOGS: Constraint = Constraint::structure(CloudWatchLogs::MEMBERS);
/// Model: `CloudWatchLogGroupName`.
static CLOUDWATCH_LOG_GROUP_NAME: Constraint = Constraint::new(Kind::Text)
    .len(1, 512)
    .pattern(r"[\.\-_/#A-Za-z0-9]+", pattern::is_log_group);
/// Model: `CloudWatchLogStreamName`.
static CLOUDWATCH_LOG_STREAM_NAME: Constraint = Constraint::new(Kind::Text)
    .len(1, 512)
    .pattern(r"[^:*]*", pattern::is_log_stream);
/// Model: `ChannelARN`.
static CHANNEL_ARN: Constraint = Constraint::new(Kind::Text).len(1, 2048).pattern(
    r"arn:aws.*:kinesis:.*:\d{12}:channel/\S+",
    pattern::is_channel_arn,
);
/// Model: `StreamFilterList`.
static STREAM_FILTER_LIST: Constraint = Constraint::new(Kind::List(&STREAM_FILTER)).len(1, 10000);
/// Model: `StreamFilter`.
static STREAM_FILTER: Constraint = Constraint::structure(StreamFilter::MEMBERS);
/// Model: `ListChannelsInputLimit`.
static LIST_CHANNELS_INPUT_LIMIT: Constraint = Constraint::new(Kind::Integer).range(1, 10000);
/// Model: `S3DestinationUpdateInput`.
static S3_DESTINATION_UPDATE_INPUT: Constraint =
    Constraint::structure(S3DestinationUpdateInput::MEMBERS);
/// Model: `S3TablesDestinationUpdateInput`.
static S3_TABLES_DESTINATION_UPDATE_INPUT: Constraint =
    Constraint::structure(S3TablesDestinationUpdateInput::MEMBERS);
/// Model: `ChannelLoggingUpdateInput`.
static CHANNEL_LOGGING_UPDATE_INPUT: Constraint =
    Constraint::structure(ChannelLoggingUpdateInput::MEMBERS);
/// Model: `CloudWatchLogsUpdateInput`.
static CLOUDWATCH_LOGS_UPDATE_INPUT: Constraint =
    Constraint::structure(CloudWatchLogsUpdateInput::MEMBERS);

shape! {
    /// Asks for `CreateChannel`.
    CreateChannelRequest {
        /// Its name.
        channel_name: String = "ChannelName", required CHANNEL_NAME;
        /// The role it acts as.
        service_execution_role_arn: String = "ServiceExecutionRoleARN", required ROLE_ARN;
        /// What it reads.
        #[serde(deserialize_with = "lenient::structures::<_, _, KEEP_10001>")]
        stream_configuration_list: Vec<ChannelStreamConfiguration> = "StreamConfigurationList", required CHANNEL_STREAM_CONFIGURATION_LIST;
        /// Objects to deliver to.
        #[serde(deserialize_with = "lenient::structure")]
        s3_destination_configuration: S3DestinationConfiguration = "S3DestinationConfiguration", optional S3_DESTINATION_CONFIGURATION;
        /// Tables to deliver to.
        #[serde(deserialize_with = "lenient::structure")]
        s3_tables_destination_configuration: S3TablesDestinationConfiguration = "S3TablesDestinationConfiguration", optional S3_TABLES_DESTINATION_CONFIGURATION;
        /// How what it delivers is encrypted.
        #[serde(deserialize_with = "lenient::structure")]
        encryption_configuration: ChannelEncryptionConfiguration = "EncryptionConfiguration", optional CHANNEL_ENCRYPTION_CONFIGURATION;
        /// Its first tags.
        #[serde(deserialize_with = "lenient::map::<_, KEEP_TAGS>")]
        tags: BTreeMap<String, String> = "Tags", optional TAG_MAP;
        /// Where it logs.
        #[serde(deserialize_with = "lenient::structure")]
        logging_configuration: ChannelLoggingConfiguration = "LoggingConfiguration", optional CHANNEL_LOGGING_CONFIGURATION;
    }
}

shape! {
    /// Model: `ChannelStreamConfiguration`.
    ChannelStreamConfiguration {
        /// The stream.
        stream_arn: String = "StreamARN", required STREAM_ARN;
        /// How records are read.
        #[serde(deserialize_with = "lenient::structure")]
        record_configuration: RecordConfiguration = "RecordConfiguration", required RECORD_CONFIGURATION;
    }
}

shape! {
    /// Model: `RecordConfiguration`.
    RecordConfiguration {
        /// Their format.
        record_format_type: String = "RecordFormatType", required RECORD_FORMAT_TYPE;
        /// Their schema.
        gsr_schema_arn: String = "GSRSchemaARN", optional GSR_SCHEMA_ARN;
    }
}

shape! {
    /// Model: `S3DestinationConfiguration`.
    S3DestinationConfiguration {
        /// Seconds until records are delivered.
        #[serde(deserialize_with = "lenient::integer")]
        data_freshness_in_seconds: i64 = "DataFreshnessInSeconds", optional DATA_FRESHNESS_IN_SECONDS;
        /// Where what cannot be delivered goes.
        #[serde(deserialize_with = "lenient::structure")]
        dead_letter_queue_s3_configuration: DeadLetterQueueS3Configuration = "DeadLetterQueueS3Configuration", optional DEAD_LETTER_QUEUE_S3_CONFIGURATION;
        /// How objects are stored.
        #[serde(deserialize_with = "lenient::structure")]
        storage_configuration: S3StorageConfiguration = "StorageConfiguration", required S3_STORAGE_CONFIGURATION;
    }
}

shape! {
    /// Model: `DeadLetterQueueS3Configuration`.
    DeadLetterQueueS3Configuration {
        /// The bucket.
        bucket_arn: String = "BucketARN", required BUCKET_ARN;
        /// The account that owns it.
        expected_bucket_owner: String = "ExpectedBucketOwner", required EXPECTED_BUCKET_OWNER;
        /// What object names begin with.
        error_output_prefix: String = "ErrorOutputPrefix", optional S3_ERROR_OUTPUT_PREFIX;
    }
}

shape! {
    /// Model: `S3StorageConfiguration`.
    S3StorageConfiguration {
        /// The bucket.
        bucket_arn: String = "BucketARN", required BUCKET_ARN;
        /// The account that owns it.
        expected_bucket_owner: String = "ExpectedBucketOwner", required EXPECTED_BUCKET_OWNER;
        /// How objects are named.
        output_key_template: String = "OutputKeyTemplate", optional S3_OUTPUT_KEY_TEMPLATE;
        /// The storage class.
        storage_class: String = "StorageClass", optional S3_STORAGE_CLASS;
        /// How they are compressed.
        compression_type: String = "CompressionType", required S3_COMPRESSION_TYPE;
    }
}

shape! {
    /// Model: `S3TablesDestinationConfiguration`.
    S3TablesDestinationConfiguration {
        /// Seconds until records are delivered.
        #[serde(deserialize_with = "lenient::integer")]
        data_freshness_in_seconds: i64 = "DataFreshnessInSeconds", optional DATA_FRESHNESS_IN_SECONDS;
        /// Where what cannot be delivered goes.
        #[serde(deserialize_with = "lenient::structure")]
        dead_letter_queue_s3_configuration: DeadLetterQueueS3Configuration = "DeadLetterQueueS3Configuration", required DEAD_LETTER_QUEUE_S3_CONFIGURATION;
        /// The tables.
        #[serde(deserialize_with = "lenient::structures::<_, _, KEEP_10001>")]
        s3_tables_configuration_list: Vec<S3TablesConfiguration> = "S3TablesConfigurationList", required S3_TABLES_CONFIGURATION_LIST;
    }
}

shape! {
    /// Model: `S3TablesConfiguration`.
    S3TablesConfiguration {
        /// The table bucket.
        table_bucket_arn: String = "TableBucketARN", required TABLE_BUCKET_ARN;
        /// The namespace.
        namespace: String = "Namespace", required S3_TABLES_NAMESPACE;
        /// The table.
        table_name: String = "TableName", required S3_TABLES_TABLE_NAME;
        /// How they are compressed.
        compression_type: String = "CompressionType", required S3_TABLES_COMPRESSION_TYPE;
        /// How the table is partitioned.
        #[serde(deserialize_with = "lenient::structure")]
        partition_spec: PartitionSpec = "PartitionSpec", optional PARTITION_SPEC;
    }
}

shape! {
    /// Model: `PartitionSpec`.
    PartitionSpec {
        /// By which fields.
        #[serde(deserialize_with = "lenient::structures::<_, _, KEEP_11>")]
        partition_fields: Vec<PartitionField> = "PartitionFields", required PARTITION_FIELD_LIST;
    }
}

shape! {
    /// Model: `PartitionField`.
    PartitionField {
        /// How a field is transformed.
        transform: String = "Transform", required PARTITION_TRANSFORM;
        /// The field.
        source_name: String = "SourceName", required PARTITION_SOURCE_NAME;
    }
}

shape! {
    /// Model: `ChannelEncryptionConfiguration`.
    ChannelEncryptionConfiguration {
        /// With what.
        encryption_type: String = "EncryptionType", required CHANNEL_ENCRYPTION_TYPE;
        /// The key.
        key_id: String = "KeyId", required KEY_ID;
    }
}

shape! {
    /// Model: `ChannelLoggingConfiguration`.
    ChannelLoggingConfiguration {
        /// The log group and stream.
        #[serde(deserialize_with = "lenient::structure")]
        cloudwatch_logs: CloudWatchLogs = "CloudWatchLogs", required CLOUDWATCH_LOGS;
    }
}

shape! {
    /// Model: `CloudWatchLogs`.
    CloudWatchLogs {
        /// Whether it logs.
        #[serde(deserialize_with = "lenient::boolean")]
        enabled: bool = "Enabled", required BOOLEAN;
        /// The log group.
        log_group_name: String = "LogGroupName", optional CLOUDWATCH_LOG_GROUP_NAME;
        /// The log stream.
        log_stream_name: String = "LogStreamName", optional CLOUDWATCH_LOG_STREAM_NAME;
    }
}

shape! {
    /// Asks for `DeleteChannel`.
    DeleteChannelRequest {
        /// The channel.
        channel_arn: String = "ChannelARN", required CHANNEL_ARN;
    }
}

shape! {
    /// Asks for `DescribeChannel`.
    DescribeChannelRequest {
        /// The channel.
        channel_arn: String = "ChannelARN", required CHANNEL_ARN;
    }
}

shape! {
    /// Asks for `ListChannels`.
    ListChannelsRequest {
        /// Of which streams.
        #[serde(deserialize_with = "lenient::structures::<_, _, KEEP_10001>")]
        stream_filter: Vec<StreamFilter> = "StreamFilter", optional STREAM_FILTER_LIST;
        /// How many at most.
        #[serde(deserialize_with = "lenient::integer")]
        max_results: i64 = "MaxResults", optional LIST_CHANNELS_INPUT_LIMIT;
        /// Where the previous page ended.
        next_token: String = "NextToken", optional NEXT_TOKEN;
    }
}

shape! {
    /// Model: `StreamFilter`.
    StreamFilter {
        /// The stream.
        stream_arn: String = "StreamARN", required STREAM_ARN;
        /// Which of the streams that ever had this name.
        stream_creation_timestamp: Timestamp = "StreamCreationTimestamp", optional TIMESTAMP;
    }
}

shape! {
    /// Asks for `UpdateChannel`.
    UpdateChannelRequest {
        /// The channel.
        channel_arn: String = "ChannelARN", required CHANNEL_ARN;
        /// Objects to deliver to.
        #[serde(deserialize_with = "lenient::structure")]
        s3_destination_configuration: S3DestinationUpdateInput = "S3DestinationConfiguration", optional S3_DESTINATION_UPDATE_INPUT;
        /// Tables to deliver to.
        #[serde(deserialize_with = "lenient::structure")]
        s3_tables_destination_configuration: S3TablesDestinationUpdateInput = "S3TablesDestinationConfiguration", optional S3_TABLES_DESTINATION_UPDATE_INPUT;
        /// Where it logs.
        #[serde(deserialize_with = "lenient::structure")]
        logging_configuration: ChannelLoggingUpdateInput = "LoggingConfiguration", optional CHANNEL_LOGGING_UPDATE_INPUT;
    }
}

shape! {
    /// Model: `S3DestinationUpdateInput`.
    S3DestinationUpdateInput {
        /// Seconds until records are delivered.
        #[serde(deserialize_with = "lenient::integer")]
        data_freshness_in_seconds: i64 = "DataFreshnessInSeconds", required DATA_FRESHNESS_IN_SECONDS;
    }
}

shape! {
    /// Model: `S3TablesDestinationUpdateInput`.
    S3TablesDestinationUpdateInput {
        /// Seconds until records are delivered.
        #[serde(deserialize_with = "lenient::integer")]
        data_freshness_in_seconds: i64 = "DataFreshnessInSeconds", required DATA_FRESHNESS_IN_SECONDS;
    }
}

shape! {
    /// Model: `ChannelLoggingUpdateInput`.
    ChannelLoggingUpdateInput {
        /// The log group and stream.
        #[serde(deserialize_with = "lenient::structure")]
        cloudwatch_logs: CloudWatchLogsUpdateInput = "CloudWatchLogs", required CLOUDWATCH_LOGS_UPDATE_INPUT;
    }
}

shape! {
    /// Model: `CloudWatchLogsUpdateInput`.
    CloudWatchLogsUpdateInput {
        /// Whether it logs.
        #[serde(deserialize_with = "lenient::boolean")]
        enabled: bool = "Enabled", required BOOLEAN;
        /// The log group.
        log_group_name: String = "LogGroupName", optional CLOUDWATCH_LOG_GROUP_NAME;
        /// The log stream.
        log_stream_name: String = "LogStreamName", optional CLOUDWATCH_LOG_STREAM_NAME;
    }
}
