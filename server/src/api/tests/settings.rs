//! Golden tests of settings, resources and accounts: raw JSON in, raw JSON out, no types of `wire` in between.

use crate::api::{Asked, Body, Caller, run};
use crate::clock::ManualClock;
use crate::engine::tests::{MemoryDisk, engine_with};
use crate::engine::{Engine, Limits, Settings};
use millstream_wire::{Encoding, Operation};
use serde_json::{Value, json};
use std::sync::Arc;

const NOW_MS: u64 = 1_750_000_000_000;
const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/s";

struct Api {
    engine: Engine,
    clock: Arc<ManualClock>,
    caller: Caller,
}

fn api(limits: Limits, state_delay_ms: u64) -> Api {
    let clock = ManualClock::at(NOW_MS);
    let settings = Settings {
        limits,
        state_delay_ms,
        ..Settings::default()
    };
    Api {
        engine: engine_with(&clock, &MemoryDisk::new(), settings),
        clock,
        caller: Caller {
            account: "000000000000".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
        },
    }
}

impl Api {
    async fn call(&self, operation: &str, body: Value) -> Result<String, String> {
        let operation = Operation::from_name(operation).expect("an operation");
        let body = body.to_string();
        let encoding = Encoding::Json;
        let bytes = body.as_bytes();
        let (engine, caller) = (&self.engine, &self.caller);
        let asked = Asked {
            engine,
            operation,
            caller,
        };
        let body = Body {
            encoding,
            bytes,
            asked,
        };
        let answer = run(engine, operation, caller, body);
        let encoded = answer.await.and_then(|output| output.encode(encoding));
        encoded
            .map(|body| String::from_utf8(body.into_bytes().to_vec()).unwrap())
            .map_err(|error| error.to_string())
    }

    async fn created(&self, shards: u32) {
        let body = json!({"StreamName": "s", "ShardCount": shards});
        assert_eq!(self.call("CreateStream", body).await.unwrap(), "");
    }

    async fn summary(&self) -> Value {
        let body = json!({"StreamName": "s"});
        let text = self.call("DescribeStreamSummary", body).await.unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["StreamDescriptionSummary"].take()
    }
}

#[tokio::test]
async fn update_shard_count_answers_as_aws() {
    let api = api(Limits::Aws, 0);
    api.created(2).await;
    let scale = |target: u32| {
        let body = json!({"StreamName": "s", "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"});
        api.call("UpdateShardCount", body)
    };
    assert_eq!(
        scale(4).await.unwrap(),
        format!(
            r#"{{"StreamName":"s","CurrentShardCount":2,"TargetShardCount":4,"StreamARN":"{ARN}"}}"#
        )
    );
    assert_eq!(
        scale(9).await.unwrap_err(),
        "LimitExceededException: UpdateShardCount cannot scale up over double your current open shard \
         count. Current open shard count: 4, Target shard count: 9"
    );
    assert_eq!(
        scale(1).await.unwrap_err(),
        "LimitExceededException: UpdateShardCount cannot scale down below half your current open shard \
         count. Current open shard count: 4, Target shard count: 1"
    );
    assert_eq!(
        scale(501).await.unwrap_err(),
        "LimitExceededException: Target shard count or number of open shards cannot be greater than \
         500. Current open shard count: 4, Target shard count: 501"
    );
    assert_eq!(
        api.call(
            "UpdateShardCount",
            json!({"TargetShardCount": 0, "ScalingType": "x"})
        )
        .await
        .unwrap_err(),
        "ValidationException: 2 validation errors detected: Value 'x' at 'scalingType' failed to satisfy \
         constraint: Member must satisfy enum value set: [UNIFORM_SCALING]; Value '0' at \
         'targetShardCount' failed to satisfy constraint: Member must have value greater than or equal to 1"
    );
    let on_demand = json!({"StreamARN": ARN, "StreamModeDetails": {"StreamMode": "ON_DEMAND"}});
    assert_eq!(api.call("UpdateStreamMode", on_demand).await.unwrap(), "");
    assert_eq!(
        scale(5).await.unwrap_err(),
        "ValidationException: Request is invalid. Stream s under account 000000000000 is in On-Demand mode."
    );
}

#[tokio::test]
async fn a_stream_says_that_it_is_being_updated() {
    let api = api(Limits::Aws, 500);
    api.created(1).await;
    let encrypt = json!({"StreamName": "s", "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"});
    assert_eq!(
        api.call("StartStreamEncryption", encrypt.clone())
            .await
            .unwrap_err(),
        "ResourceInUseException: Stream s under account 000000000000 not ACTIVE, instead in state CREATING"
    );
    api.clock.advance_ms(500);
    assert_eq!(
        api.call("StartStreamEncryption", encrypt).await.unwrap(),
        ""
    );
    let during = api.summary().await;
    assert_eq!(during["StreamStatus"], "UPDATING");
    assert_eq!(during["KeyId"], "alias/aws/kinesis");
    api.clock.advance_ms(500);
    assert_eq!(api.summary().await["StreamStatus"], "ACTIVE");
}

#[tokio::test]
async fn encryption_is_shown_where_aws_shows_it() {
    let api = api(Limits::Aws, 0);
    api.created(1).await;
    let record = json!({"StreamName": "s", "PartitionKey": "a", "Data": "eA=="});
    assert!(
        !api.call("PutRecord", record.clone())
            .await
            .unwrap()
            .contains("Encryption")
    );
    let encrypt =
        |kind: &str, key: &str| json!({"StreamARN": ARN, "EncryptionType": kind, "KeyId": key});
    assert_eq!(
        api.call("StartStreamEncryption", encrypt("NONE", "alias/a"))
            .await
            .unwrap_err(),
        "InvalidArgumentException: EncryptionType must be KMS."
    );
    for bad in [
        "a",
        "alias/",
        "12345678",
        "arn:aws:s3:us-east-1:123456789012:key/a",
    ] {
        let error = api
            .call("StartStreamEncryption", encrypt("KMS", bad))
            .await
            .unwrap_err();
        assert!(
            error.starts_with("InvalidArgumentException: KeyId "),
            "{error}"
        );
    }
    api.clock.advance_ms(1);
    let key = "arn:aws:kms:us-east-1:123456789012:key/12345678-1234-1234-1234-123456789012";
    api.call("StartStreamEncryption", encrypt("KMS", key))
        .await
        .unwrap();
    api.clock.advance_ms(1);
    let put = api.call("PutRecord", record.clone()).await.unwrap();
    assert!(put.ends_with(r#","EncryptionType":"KMS"}"#), "{put}");
    let records = json!({"StreamName": "s", "Records": [{"PartitionKey": "a", "Data": "eA=="}]});
    let put = api.call("PutRecords", records).await.unwrap();
    assert!(put.ends_with(r#","EncryptionType":"KMS"}"#), "{put}");
    let start = json!({"StreamName": "s", "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"});
    let start = api.call("GetShardIterator", start).await.unwrap();
    let start: Value = serde_json::from_str(&start).unwrap();
    let read = api
        .call(
            "GetRecords",
            json!({"ShardIterator": start["ShardIterator"]}),
        )
        .await
        .unwrap();
    assert_eq!(
        read.matches(r#""EncryptionType":"KMS""#).count(),
        2,
        "{read}"
    );
    let described = api
        .call("DescribeStream", json!({"StreamName": "s"}))
        .await
        .unwrap();
    let shown = format!(r#""EncryptionType":"KMS","KeyId":"{key}""#);
    assert!(described.contains(&shown), "{described}");
    api.call("StopStreamEncryption", encrypt("KMS", key))
        .await
        .unwrap();
    assert_eq!(api.summary().await["EncryptionType"], "NONE");
}

#[tokio::test]
async fn monitoring_lists_metrics_before_and_after() {
    let api = api(Limits::Aws, 0);
    api.created(1).await;
    let body = |metrics: &[&str]| json!({"StreamName": "s", "ShardLevelMetrics": metrics});
    assert_eq!(
        api.call(
            "EnableEnhancedMonitoring",
            body(&["OutgoingBytes", "IncomingBytes"])
        )
        .await
        .unwrap(),
        format!(
            r#"{{"StreamName":"s","CurrentShardLevelMetrics":[],"DesiredShardLevelMetrics":["IncomingBytes","OutgoingBytes"],"StreamARN":"{ARN}"}}"#
        )
    );
    let all = api
        .call("EnableEnhancedMonitoring", body(&["ALL"]))
        .await
        .unwrap();
    assert!(all.contains(
        r#""DesiredShardLevelMetrics":["IncomingBytes","OutgoingRecords","IteratorAgeMilliseconds","IncomingRecords","ReadProvisionedThroughputExceeded","WriteProvisionedThroughputExceeded","OutgoingBytes"]"#
    ));
    api.call("DisableEnhancedMonitoring", body(&["IncomingBytes"]))
        .await
        .unwrap();
    let shown = api.summary().await["EnhancedMonitoring"][0]["ShardLevelMetrics"].take();
    assert_eq!(shown.as_array().unwrap().len(), 6);
    let none = api
        .call("DisableEnhancedMonitoring", body(&["ALL"]))
        .await
        .unwrap();
    assert!(none.contains(r#""DesiredShardLevelMetrics":[]"#), "{none}");
    let error = api
        .call("EnableEnhancedMonitoring", body(&["x"]))
        .await
        .unwrap_err();
    assert!(
        error.starts_with(
            "ValidationException: 1 validation error detected: Value '[x]' at 'shardLevelMetrics' failed \
             to satisfy constraint: Member must satisfy constraint: [Member must satisfy enum value set: ["
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_summary_has_the_newest_members_where_aws_sends_them() {
    let api = api(Limits::Aws, 0);
    api.created(1).await;
    let summary = api.summary().await;
    let id = summary["StreamId"].as_str().unwrap().to_owned();
    assert_eq!(
        summary,
        json!({
            "StreamName": "s", "StreamARN": ARN, "StreamId": id, "StreamStatus": "ACTIVE",
            "StreamModeDetails": {"StreamMode": "PROVISIONED"}, "RetentionPeriodHours": 24,
            "StreamCreationTimestamp": 1_750_000_000.0, "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
            "EncryptionType": "NONE", "OpenShardCount": 1, "ConsumerCount": 0,
            "MaxRecordSizeInKiB": 1024, "ChannelCount": 0, "QueueCount": 0,
        })
    );
    // The id is accepted where it is given back, and it is of the model's form.
    let body = json!({"StreamName": "s", "StreamId": id});
    api.call("DescribeStreamSummary", body).await.unwrap();
    let commit = |status: &str| json!({"MinimumThroughputBillingCommitment": {"Status": status}});
    assert_eq!(
        api.call("UpdateAccountSettings", commit("ENABLED"))
            .await
            .unwrap(),
        r#"{"MinimumThroughputBillingCommitment":{"Status":"ENABLED","StartedAt":1750000000.0,"EarliestAllowedEndAt":1750086400.0}}"#
    );
    let warm = json!({"StreamARN": ARN, "StreamModeDetails": {"StreamMode": "ON_DEMAND"}, "WarmThroughputMiBps": 6});
    assert_eq!(api.call("UpdateStreamMode", warm).await.unwrap(), "");
    let auto = json!({"StreamARN": ARN, "RecordDistributionStrategy": "AUTO"});
    assert_eq!(
        api.call("UpdateStreamRecordDistributionStrategy", auto)
            .await
            .unwrap(),
        ""
    );
    let size = json!({"StreamARN": ARN, "MaxRecordSizeInKiB": 10240});
    assert_eq!(api.call("UpdateMaxRecordSize", size).await.unwrap(), "");
    let summary = api.summary().await;
    assert_eq!(
        summary["WarmThroughput"],
        json!({"TargetMiBps": 6, "CurrentMiBps": 6})
    );
    assert_eq!(summary["RecordDistributionStrategy"], "AUTO");
    assert_eq!(summary["MaxRecordSizeInKiB"], 10240);
    assert_eq!(summary["StreamId"], id.as_str());
    assert_eq!(
        api.call("UpdateAccountSettings", commit("DISABLED"))
            .await
            .unwrap(),
        r#"{"MinimumThroughputBillingCommitment":{"Status":"ENABLED_UNTIL_EARLIEST_ALLOWED_END","StartedAt":1750000000.0,"EarliestAllowedEndAt":1750086400.0}}"#
    );
    api.clock.advance_ms(24 * 3_600_000);
    assert_eq!(
        api.call("DescribeAccountSettings", json!({}))
            .await
            .unwrap(),
        r#"{"MinimumThroughputBillingCommitment":{"Status":"DISABLED","StartedAt":1750000000.0,"EndedAt":1750086400.0}}"#
    );
    assert_eq!(
        api.call("DescribeLimits", json!({})).await.unwrap(),
        r#"{"ShardLimit":500,"OpenShardCount":6,"OnDemandStreamCount":1,"OnDemandStreamCountLimit":50,"ChannelCount":0,"ChannelCountLimit":0}"#
    );
}

#[tokio::test]
async fn a_record_needs_no_key_where_the_stream_spreads_records() {
    let api = api(Limits::Aws, 0);
    let body = json!({"StreamName": "s", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}, "RecordDistributionStrategy": "AUTO"});
    assert_eq!(api.call("CreateStream", body).await.unwrap(), "");
    let records = json!({"StreamName": "s", "Records": [{"Data": "eA=="}, {"Data": "eA==", "PartitionKey": "a"}]});
    let put = api.call("PutRecords", records.clone()).await.unwrap();
    assert!(put.starts_with(r#"{"FailedRecordCount":0,"#), "{put}");
    api.call("PutRecord", json!({"StreamName": "s", "Data": "eA=="}))
        .await
        .unwrap();
    let mut read = String::new();
    for shard in 0..4 {
        let start = json!({"StreamName": "s", "ShardId": shard.to_string(), "ShardIteratorType": "TRIM_HORIZON"});
        let start = api.call("GetShardIterator", start).await.unwrap();
        let start: Value = serde_json::from_str(&start).unwrap();
        read += &api
            .call(
                "GetRecords",
                json!({"ShardIterator": start["ShardIterator"]}),
            )
            .await
            .unwrap();
    }
    assert_eq!(
        (
            read.matches("Data").count(),
            read.matches("PartitionKey").count()
        ),
        (3, 1),
        "{read}"
    );
    let strategy = json!({"StreamARN": ARN, "RecordDistributionStrategy": "USER_PARTITION_KEY"});
    api.call("UpdateStreamRecordDistributionStrategy", strategy)
        .await
        .unwrap();
    assert_eq!(
        api.call("PutRecords", records).await.unwrap_err(),
        "ValidationException: 1 validation error detected: Value null at \
         'records.1.member.partitionKey' failed to satisfy constraint: Member must not be null"
    );
}

#[tokio::test]
async fn tags_go_by_arn() {
    let api = api(Limits::Aws, 0);
    api.created(1).await;
    let tags = |arn: &str, tags: Value| json!({"ResourceARN": arn, "Tags": tags});
    assert_eq!(
        api.call("TagResource", tags(ARN, json!({"a": "1", "b": "2"})))
            .await
            .unwrap(),
        ""
    );
    let keys = json!({"ResourceARN": ARN, "TagKeys": ["a"]});
    assert_eq!(api.call("UntagResource", keys).await.unwrap(), "");
    let named = json!({"ResourceARN": ARN});
    assert_eq!(
        api.call("ListTagsForResource", named.clone())
            .await
            .unwrap(),
        r#"{"Tags":[{"Key":"b","Value":"2"}]}"#
    );
    assert_eq!(
        api.call("TagResource", tags(ARN, json!({"a": "!"})))
            .await
            .unwrap_err(),
        "InvalidArgumentException: Some tags contain invalid characters. Valid characters: Unicode \
         letters, digits, white space, _ . / = + - % @ :."
    );
    let other = ARN.replace("stream/s", "stream/t");
    for operation in [
        "ListTagsForResource",
        "GetResourcePolicy",
        "DeleteResourcePolicy",
    ] {
        assert_eq!(
            api.call(operation, json!({"ResourceARN": other}))
                .await
                .unwrap_err(),
            "ResourceNotFoundException: Stream t under account 000000000000 not found."
        );
    }
    let consumer = format!("{ARN}/consumer/c:1");
    let error = api
        .call("ListTagsForResource", json!({"ResourceARN": consumer}))
        .await
        .unwrap_err();
    assert!(error.starts_with("ResourceNotFoundException: "), "{error}");
}

#[tokio::test]
async fn policies_go_by_arn() {
    let api = api(Limits::Aws, 0);
    api.created(1).await;
    let named = json!({"ResourceARN": ARN});
    assert_eq!(
        api.call("GetResourcePolicy", named.clone()).await.unwrap(),
        r#"{"Policy":"{}"}"#
    );
    let policy = r#"{"Version":"2012-10-17","Statement":[]}"#;
    let put = |policy: &str| json!({"ResourceARN": ARN, "Policy": policy});
    assert_eq!(
        api.call("PutResourcePolicy", put(policy)).await.unwrap(),
        ""
    );
    assert_eq!(
        api.call("GetResourcePolicy", named.clone()).await.unwrap(),
        json!({ "Policy": policy }).to_string()
    );
    for bad in ["", "{", "[]", "{}"] {
        let error = api.call("PutResourcePolicy", put(bad)).await.unwrap_err();
        assert!(
            error.starts_with("InvalidArgumentException: Policy is invalid"),
            "{error}"
        );
    }
    assert_eq!(
        api.call("DeleteResourcePolicy", named.clone())
            .await
            .unwrap(),
        ""
    );
    assert_eq!(
        api.call("GetResourcePolicy", named).await.unwrap(),
        r#"{"Policy":"{}"}"#
    );
}

#[tokio::test]
async fn queues_and_channels_are_checked_and_refused() {
    let api = api(Limits::Aws, 0);
    let body = json!({"QueueName": "q", "StreamConfigurationList": [{"StreamARN": ARN}]});
    assert_eq!(
        api.call("CreateQueue", body).await.unwrap_err(),
        "InvalidArgumentException: CreateQueue is not supported by this server."
    );
    assert_eq!(
        api.call("AcknowledgeQueueRecords", json!({"Entries": [{}]}))
            .await
            .unwrap_err(),
        "ValidationException: 2 validation errors detected: Value null at 'queueARN' failed to satisfy \
         constraint: Member must not be null; Value null at 'entries.1.member.receiptHandle' failed to \
         satisfy constraint: Member must not be null"
    );
    assert_eq!(
        api.call("ListChannels", json!({"MaxResults": "1"}))
            .await
            .unwrap_err(),
        "SerializationException: class java.lang.String can not be converted to an Integer"
    );
}
