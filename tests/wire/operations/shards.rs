//! Shards: listed, split, merged, scaled.

use super::stage::{ANY, Seen, Stage, arn, shard_id};
use crate::exchange::Encoding;
use serde_json::{Value, json};

const QUARTER: &str = "85070591730234615865843651857942052864";
const HALF: &str = "170141183460469231731687303715884105728";

pub(crate) async fn play(encoding: Encoding) -> Seen {
    let mut stage = Stage::process(encoding, &["--limits", "off"]).await;
    stage.create("orders", 2).await;
    stage
        .done("CreateStream", json!({"StreamName": "clicks"}))
        .await;
    split(&mut stage).await;
    merge(&mut stage).await;
    list(&mut stage).await;
    scale(&mut stage).await;
    stage.seen
}

async fn split(stage: &mut Stage) {
    let operation = "SplitShard";
    let at = |stream: &str, shard: u32, key: &str| json!({"StreamName": stream, "ShardToSplit": shard_id(shard), "NewStartingHashKey": key});
    stage.done(operation, at("orders", 0, QUARTER)).await;
    for (error, input) in [
        ("ResourceNotFound", at("nobody", 0, QUARTER)),
        ("ResourceNotFound", at("orders", 9, QUARTER)),
        ("InvalidArgument", at("orders", 1, HALF)),
        // Of an on-demand stream.
        ("Validation", at("clicks", 0, "5")),
    ] {
        stage.refuses(operation, error, input).await;
    }
}

async fn merge(stage: &mut Stage) {
    let operation = "MergeShards";
    let pair = |stream: &str, shard: u32, adjacent: u32| {
        json!({
            "StreamName": stream, "ShardToMerge": shard_id(shard),
            "AdjacentShardToMerge": shard_id(adjacent),
        })
    };
    stage.done(operation, pair("orders", 3, 1)).await;
    for (error, input) in [
        ("ResourceNotFound", pair("nobody", 0, 1)),
        ("InvalidArgument", pair("orders", 4, 2)),
        ("Validation", pair("clicks", 0, 1)),
    ] {
        stage.refuses(operation, error, input).await;
    }
}

/// A shard of a list; closed ones have an end.
fn listed(number: u32, parents: &[u32], closed: bool) -> Value {
    let mut shard = json!({
        "ShardId": shard_id(number),
        "HashKeyRange": {"StartingHashKey": ANY, "EndingHashKey": ANY},
        "SequenceNumberRange": {"StartingSequenceNumber": ANY},
    });
    for (name, parent) in ["ParentShardId", "AdjacentParentShardId"]
        .iter()
        .zip(parents)
    {
        shard[*name] = json!(shard_id(*parent));
    }
    if closed {
        shard["SequenceNumberRange"]["EndingSequenceNumber"] = json!(ANY);
    }
    shard
}

async fn list(stage: &mut Stage) {
    let operation = "ListShards";
    let first = [
        listed(0, &[], true),
        listed(1, &[], true),
        listed(2, &[0], false),
    ];
    let rest = [listed(3, &[0], true), listed(4, &[3, 1], false)];
    let input = json!({"StreamName": "orders", "MaxResults": 3});
    let pattern = json!({"Shards": first, "NextToken": ANY});
    let page = stage.answers(operation, input, pattern).await;
    let next = json!({"NextToken": page["NextToken"]});
    stage
        .answers(operation, next, json!({"Shards": rest}))
        .await;
    let open = json!({"StreamARN": arn("orders"), "ShardFilter": {"Type": "AT_LATEST"}});
    let shards = json!({"Shards": [listed(2, &[0], false), listed(4, &[3, 1], false)]});
    stage.answers(operation, open, shards).await;
    let described = stage
        .looks("DescribeStream", json!({"StreamName": "orders"}))
        .await;
    let all = stage
        .looks(operation, json!({"StreamName": "orders"}))
        .await;
    assert_eq!(described["StreamDescription"]["Shards"], all["Shards"]);
    let unknown = json!({"StreamName": "nobody"});
    stage.refuses(operation, "ResourceNotFound", unknown).await;
    stage.refuses(operation, "InvalidArgument", json!({})).await;
}

async fn scale(stage: &mut Stage) {
    let operation = "UpdateShardCount";
    let to = |stream: Option<&str>, target: u32| {
        let mut input = json!({"TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"});
        if let Some(stream) = stream {
            input["StreamName"] = json!(stream);
        }
        input
    };
    let pattern = json!({
        "StreamName": "orders", "CurrentShardCount": 2, "TargetShardCount": 4,
        "StreamARN": arn("orders"),
    });
    stage
        .answers(operation, to(Some("orders"), 4), pattern)
        .await;
    for (error, input) in [
        ("ResourceNotFound", to(Some("nobody"), 4)),
        ("InvalidArgument", to(None, 4)),
        ("Validation", to(Some("clicks"), 4)),
    ] {
        stage.refuses(operation, error, input).await;
    }
}
