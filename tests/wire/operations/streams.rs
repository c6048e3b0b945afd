//! Streams: created, described, listed, retained, deleted.

use super::stage::{ANY, Seen, Stage, arn, consumer, shard_id};
use crate::exchange::Encoding;
use serde_json::{Value, json};

/// Half of the space of hash keys, and its end.
const HALF: &str = "170141183460469231731687303715884105728";
const BELOW_HALF: &str = "170141183460469231731687303715884105727";
const LAST: &str = "340282366920938463463374607431768211455";

pub(crate) async fn play(encoding: Encoding) -> Seen {
    let mut stage = Stage::process(encoding, &["--limits", "off"]).await;
    create(&mut stage).await;
    describe(&mut stage).await;
    summarise(&mut stage).await;
    list(&mut stage).await;
    retain(&mut stage).await;
    delete(&mut stage).await;
    stage.seen
}

async fn create(stage: &mut Stage) {
    let input = json!({
        "StreamName": "orders", "ShardCount": 2, "StreamModeDetails": {"StreamMode": "PROVISIONED"},
        "Tags": {"team": "sales"},
    });
    stage.done("CreateStream", input.clone()).await;
    stage.refuses("CreateStream", "ResourceInUse", input).await;
    let input = json!({
        "StreamName": "clicks", "RecordDistributionStrategy": "AUTO", "MaxRecordSizeInKiB": 2_048,
    });
    stage.done("CreateStream", input).await;
    let countless = json!({
        "StreamName": "countless", "StreamModeDetails": {"StreamMode": "PROVISIONED"},
    });
    stage
        .refuses("CreateStream", "InvalidArgument", countless)
        .await;
    let tags = stage.answers(
        "ListTagsForStream",
        json!({"StreamName": "orders"}),
        json!({"Tags": [{"Key": "team", "Value": "sales"}], "HasMoreTags": false}),
    );
    tags.await;
}

fn shard(number: u32, start: &str, end: &str) -> Value {
    json!({
        "ShardId": shard_id(number),
        "HashKeyRange": {"StartingHashKey": start, "EndingHashKey": end},
        "SequenceNumberRange": {"StartingSequenceNumber": ANY},
    })
}

fn description(shards: &[Value], more: bool) -> Value {
    json!({"StreamDescription": {
        "StreamName": "orders",
        "StreamARN": arn("orders"),
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": {"StreamMode": "PROVISIONED"},
        "Shards": shards,
        "HasMoreShards": more,
        "RetentionPeriodHours": 24,
        "StreamCreationTimestamp": ANY,
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE",
    }})
}

async fn describe(stage: &mut Stage) {
    let operation = "DescribeStream";
    let shards = [shard(0, "0", BELOW_HALF), shard(1, HALF, LAST)];
    let named = json!({"StreamName": "orders"});
    stage
        .answers(operation, named, description(&shards, false))
        .await;
    let first = json!({"StreamARN": arn("orders"), "Limit": 1});
    stage
        .answers(operation, first, description(&shards[..1], true))
        .await;
    let rest = json!({"StreamName": "orders", "ExclusiveStartShardId": shard_id(0)});
    stage
        .answers(operation, rest, description(&shards[1..], false))
        .await;
    not_found(stage, operation, json!({})).await;
}

/// An operation on a stream by name: the stream is not there, or not named at all.
async fn not_found(stage: &mut Stage, operation: &str, mut input: Value) {
    stage
        .refuses(operation, "InvalidArgument", input.clone())
        .await;
    input["StreamName"] = json!("nobody");
    stage.refuses(operation, "ResourceNotFound", input).await;
}

async fn summarise(stage: &mut Stage) {
    let operation = "DescribeStreamSummary";
    let mut provisioned = json!({
        "StreamName": "orders",
        "StreamARN": arn("orders"),
        "StreamId": ANY,
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": {"StreamMode": "PROVISIONED"},
        "RetentionPeriodHours": 24,
        "StreamCreationTimestamp": ANY,
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE",
        "OpenShardCount": 2,
        "ConsumerCount": 0,
        "MaxRecordSizeInKiB": 1_024,
        "ChannelCount": 0,
        "QueueCount": 0,
    });
    let pattern = json!({"StreamDescriptionSummary": provisioned});
    stage
        .answers(operation, json!({"StreamName": "orders"}), pattern)
        .await;
    let on_demand = provisioned.as_object_mut().unwrap();
    on_demand.extend([
        ("StreamName".to_owned(), json!("clicks")),
        ("StreamARN".to_owned(), json!(arn("clicks"))),
        (
            "StreamModeDetails".to_owned(),
            json!({"StreamMode": "ON_DEMAND"}),
        ),
        ("OpenShardCount".to_owned(), json!(4)),
        ("MaxRecordSizeInKiB".to_owned(), json!(2_048)),
        ("RecordDistributionStrategy".to_owned(), json!("AUTO")),
    ]);
    let pattern = json!({"StreamDescriptionSummary": provisioned});
    stage
        .answers(operation, json!({"StreamARN": arn("clicks")}), pattern)
        .await;
    not_found(stage, operation, json!({})).await;
}

async fn list(stage: &mut Stage) {
    let operation = "ListStreams";
    let listed = |name: &str, mode: &str| {
        json!({
            "StreamName": name, "StreamARN": arn(name), "StreamStatus": "ACTIVE",
            "StreamModeDetails": {"StreamMode": mode}, "StreamCreationTimestamp": ANY,
        })
    };
    let first = json!({
        "StreamNames": ["clicks"], "HasMoreStreams": true, "NextToken": ANY,
        "StreamSummaries": [listed("clicks", "ON_DEMAND")],
    });
    let answer = stage.answers(operation, json!({"Limit": 1}), first).await;
    let rest = json!({
        "StreamNames": ["orders"], "HasMoreStreams": false,
        "StreamSummaries": [listed("orders", "PROVISIONED")],
    });
    for input in [
        json!({"NextToken": answer["NextToken"]}),
        json!({"ExclusiveStartStreamName": "clicks"}),
    ] {
        stage.answers(operation, input, rest.clone()).await;
    }
    let unknown = json!({"NextToken": "nothing"});
    stage.refuses(operation, "InvalidArgument", unknown).await;
}

async fn retain(stage: &mut Stage) {
    let hours = |hours: u32| json!({"StreamName": "orders", "RetentionPeriodHours": hours});
    for (operation, to, wrong) in [
        ("IncreaseStreamRetentionPeriod", 48, 47),
        ("DecreaseStreamRetentionPeriod", 24, 25),
    ] {
        stage.done(operation, hours(to)).await;
        let named = json!({"StreamName": "orders"});
        let described = stage.looks("DescribeStream", named).await;
        let retained = &described["StreamDescription"]["RetentionPeriodHours"];
        assert_eq!(*retained, json!(to));
        stage
            .refuses(operation, "InvalidArgument", hours(wrong))
            .await;
        not_found(stage, operation, json!({"RetentionPeriodHours": 48})).await;
    }
}

async fn delete(stage: &mut Stage) {
    let operation = "DeleteStream";
    stage.register("orders", "kept").await;
    let input = json!({"StreamName": "orders"});
    stage
        .refuses(operation, "ResourceInUse", input.clone())
        .await;
    let consumers = json!({"Consumers": [consumer("kept", "ACTIVE")]});
    stage
        .answers(
            "ListStreamConsumers",
            json!({"StreamARN": arn("orders")}),
            consumers,
        )
        .await;
    let enforced = json!({"StreamName": "orders", "EnforceConsumerDeletion": true});
    stage.done(operation, enforced).await;
    stage
        .refuses("DescribeStream", "ResourceNotFound", input)
        .await;
    not_found(stage, operation, json!({})).await;
}
