//! What streams and consumers refuse in their states: they were made at once, and then a state lasts longer
//! than the test.

use super::stage::{Seen, Stage, arn, shard_id};
use crate::exchange::Encoding;
use serde_json::{Value, json};

const IN_USE: &str = "ResourceInUse";
const HALF: &str = "170141183460469231731687303715884105728";

pub(crate) async fn play(encoding: Encoding) -> Seen {
    let mut stage = Stage::process(encoding, &["--limits", "off"]).await;
    stage.create("updating", 2).await;
    stage.create("deleting", 1).await;
    let slow = ["--limits", "off", "--state-delay", "600000"];
    stage.restart_with(&slow).await;
    stage.create("creating", 1).await;
    let longer = json!({"StreamName": "updating", "RetentionPeriodHours": 48});
    stage.done("IncreaseStreamRetentionPeriod", longer).await;
    stage
        .done("DeleteStream", json!({"StreamName": "deleting"}))
        .await;
    statuses(&mut stage).await;
    for stream in ["creating", "updating", "deleting"] {
        for (operation, input) in changes(stream) {
            stage.refuses(operation, IN_USE, input).await;
        }
    }
    unfit_arguments(&mut stage).await;
    for stream in ["creating", "deleting"] {
        for (operation, input) in [
            ("ListShards", json!({"StreamName": stream})),
            ("ListStreamConsumers", json!({"StreamARN": arn(stream)})),
            (
                "RegisterStreamConsumer",
                json!({"StreamARN": arn(stream), "ConsumerName": "early"}),
            ),
        ] {
            stage.refuses(operation, IN_USE, input).await;
        }
    }
    consumers(&mut stage).await;
    stage.seen
}

async fn statuses(stage: &mut Stage) {
    for (stream, status, shards) in [
        ("creating", "CREATING", 0),
        ("updating", "UPDATING", 2),
        ("deleting", "DELETING", 1),
    ] {
        for (operation, description) in [
            ("DescribeStream", "StreamDescription"),
            ("DescribeStreamSummary", "StreamDescriptionSummary"),
        ] {
            let input = json!({"StreamName": stream});
            let answer = stage.looks(operation, input).await;
            let described = &answer[description];
            assert_eq!(described["StreamStatus"], status);
            let listed = described["Shards"]
                .as_array()
                .map(|shards| json!(shards.len()));
            let count = listed.unwrap_or_else(|| described["OpenShardCount"].clone());
            assert_eq!(count, shards, "{operation} of {stream}");
        }
    }
}

/// What needs a stream that is ACTIVE.
fn changes(stream: &str) -> Vec<(&'static str, Value)> {
    let (by_name, by_arn) = (
        json!({"StreamName": stream}),
        json!({"StreamARN": arn(stream)}),
    );
    let resource = json!({"ResourceARN": arn(stream)});
    let with = |base: &Value, more: Value| {
        let mut input = base.clone();
        input
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        input
    };
    let named = |more: Value| with(&by_name, more);
    let key = json!({"EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"});
    let metrics = json!({"ShardLevelMetrics": ["ALL"]});
    let hours = json!({"RetentionPeriodHours": 24});
    let count = json!({"TargetShardCount": 2, "ScalingType": "UNIFORM_SCALING"});
    let mode = json!({"StreamModeDetails": {"StreamMode": "ON_DEMAND"}});
    vec![
        ("AddTagsToStream", named(json!({"Tags": {"a": "b"}}))),
        ("DecreaseStreamRetentionPeriod", named(hours.clone())),
        ("DeleteResourcePolicy", resource.clone()),
        ("DisableEnhancedMonitoring", named(metrics.clone())),
        ("EnableEnhancedMonitoring", named(metrics)),
        ("IncreaseStreamRetentionPeriod", named(hours)),
        (
            "MergeShards",
            named(json!({"ShardToMerge": shard_id(0), "AdjacentShardToMerge": shard_id(0)})),
        ),
        (
            "PutResourcePolicy",
            with(&resource, json!({"Policy": "{\"Statement\":[]}"})),
        ),
        ("RemoveTagsFromStream", named(json!({"TagKeys": ["a"]}))),
        (
            "SplitShard",
            named(json!({"ShardToSplit": shard_id(0), "NewStartingHashKey": HALF})),
        ),
        ("StartStreamEncryption", named(key.clone())),
        ("StopStreamEncryption", named(key)),
        ("TagResource", with(&resource, json!({"Tags": {"a": "b"}}))),
        ("UntagResource", with(&resource, json!({"TagKeys": ["a"]}))),
        (
            "UpdateMaxRecordSize",
            with(&by_arn, json!({"MaxRecordSizeInKiB": 2_048})),
        ),
        ("UpdateShardCount", named(count)),
        ("UpdateStreamMode", with(&by_arn, mode)),
        (
            "UpdateStreamRecordDistributionStrategy",
            with(&by_arn, json!({"RecordDistributionStrategy": "AUTO"})),
        ),
        (
            "UpdateStreamWarmThroughput",
            named(json!({"WarmThroughputMiBps": 6})),
        ),
    ]
}

/// The state is looked at before the shard, the key and the sequence number that fit nothing.
async fn unfit_arguments(stage: &mut Stage) {
    let too_large = "340282366920938463463374607431768211456";
    for stream in ["creating", "updating", "deleting"] {
        for (shard, key) in [(99, HALF), (0, "0"), (0, too_large), (99, too_large)] {
            let input = json!({
                "StreamName": stream, "ShardToSplit": shard_id(shard), "NewStartingHashKey": key,
            });
            stage.refuses("SplitShard", IN_USE, input).await;
        }
        for (first, second) in [(99, 0), (0, 99)] {
            let input = json!({
                "StreamName": stream, "ShardToMerge": shard_id(first),
                "AdjacentShardToMerge": shard_id(second),
            });
            stage.refuses("MergeShards", IN_USE, input).await;
        }
    }
    for stream in ["creating", "deleting"] {
        let after = json!({"StreamName": stream, "ExclusiveStartShardId": "none"});
        stage.refuses("ListShards", IN_USE, after).await;
    }
    // It has no shards yet.
    for kind in ["AT_SEQUENCE_NUMBER", "AT_TIMESTAMP", "LATEST"] {
        let input = json!({
            "StreamName": "creating", "ShardId": shard_id(0), "ShardIteratorType": kind,
        });
        stage
            .refuses("GetShardIterator", "ResourceNotFound", input)
            .await;
    }
    // Records find no stream while it is CREATING or DELETING.
    let record = json!({"PartitionKey": "a", "Data": "", "ExplicitHashKey": too_large});
    for stream in ["creating", "deleting"] {
        for (operation, input) in [
            (
                "PutRecord",
                json!({
                    "StreamName": stream, "PartitionKey": "a", "Data": "",
                    "SequenceNumberForOrdering": too_large,
                }),
            ),
            (
                "PutRecord",
                json!({
                    "StreamName": stream, "PartitionKey": "a", "Data": "",
                    "ExplicitHashKey": too_large,
                }),
            ),
            ("PutRecord", json!({"StreamName": stream, "Data": ""})),
            (
                "PutRecords",
                json!({"StreamName": stream, "Records": [record]}),
            ),
            (
                "PutRecords",
                json!({"StreamName": stream, "Records": [{"Data": ""}]}),
            ),
        ] {
            stage.refuses(operation, "ResourceNotFound", input).await;
        }
    }
}

/// A consumer that is CREATING is not pushed to and gets no policy, and one that is DELETING is still described.
async fn consumers(stage: &mut Stage) {
    let consumer = stage.register("updating", "late").await;
    let input = json!({
        "ConsumerARN": consumer, "ShardId": shard_id(0), "StartingPosition": {"Type": "LATEST"},
    });
    stage.refuses("SubscribeToShard", IN_USE, input).await;
    let policy = json!({"ResourceARN": consumer, "Policy": "{\"Statement\":[]}"});
    stage.refuses("PutResourcePolicy", IN_USE, policy).await;
    let named = json!({"ConsumerARN": consumer});
    stage.done("DeregisterStreamConsumer", named.clone()).await;
    let mut description = super::stage::consumer("late", "DELETING");
    description["StreamARN"] = json!(arn("updating"));
    let pattern = json!({"ConsumerDescription": description});
    stage
        .answers("DescribeStreamConsumer", named, pattern)
        .await;
}
