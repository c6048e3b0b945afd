//! How often operations may be called. The clock stands, so no allowance is refilled meanwhile.

use super::stage::{Seen, Stage, arn, shard_id};
use crate::exchange::Encoding;
use millstream_server::Limits;
use serde_json::{Value, json};

/// More calls than any operation may be called in a second.
const CALLS: u32 = 1_010;
const LIMIT: &str = "LimitExceeded";

pub(crate) async fn play(encoding: Encoding) -> Seen {
    let mut stage = Stage::driven(encoding, Limits::Aws).await;
    stage.create("orders", 2).await;
    for n in 0..6 {
        stage.register("orders", &format!("c{n}")).await;
    }
    for (operation, allowed, input) in calls() {
        let calls = overrun(&mut stage, operation, LIMIT, |_| input.clone()).await;
        assert_eq!(calls, allowed, "{operation} is called in a second");
    }
    let consumer = |n: u32| json!({"StreamARN": arn("orders"), "ConsumerName": format!("c{n}")});
    let calls = overrun(&mut stage, "DeregisterStreamConsumer", LIMIT, consumer).await;
    assert_eq!(calls, 5);
    let iterator = json!({
        "StreamName": "orders", "ShardId": shard_id(0), "ShardIteratorType": "LATEST",
    });
    let error = "ProvisionedThroughputExceeded";
    let calls = overrun(&mut stage, "GetShardIterator", error, |_| iterator.clone()).await;
    assert_eq!(calls, 5);
    stage.seen
}

/// Calls an operation until it is refused with this error; how often it was not. What it says of a request
/// that comes in time does not matter here.
async fn overrun(
    stage: &mut Stage,
    operation: &str,
    error: &str,
    input: impl Fn(u32) -> Value,
) -> u32 {
    for calls in 0..CALLS {
        let input = input(calls);
        let answer = stage.exchange.call(operation, &input).await;
        if answer
            .as_ref()
            .is_err_and(|refused| refused.to_string().contains("Rate exceeded"))
        {
            stage.refused(operation, error, &input, answer);
            return calls;
        }
    }
    panic!("{operation} is not refused after {CALLS} calls");
}

/// Operations, how often they may be called in a second, and a request.
fn calls() -> Vec<(&'static str, u32, Value)> {
    let stream = json!({"StreamName": "orders"});
    let by_arn = json!({"StreamARN": arn("orders")});
    let resource = json!({"ResourceARN": arn("orders")});
    let hours = json!({"StreamName": "orders", "RetentionPeriodHours": 24});
    let metrics = json!({"StreamName": "orders", "ShardLevelMetrics": ["ALL"]});
    let pair = json!({
        "StreamName": "orders", "ShardToMerge": shard_id(8), "AdjacentShardToMerge": shard_id(9),
    });
    let policy = json!({"ResourceARN": arn("orders"), "Policy": "{\"Statement\":[]}"});
    let status = json!({"MinimumThroughputBillingCommitment": {"Status": "DISABLED"}});
    let consumer = json!({"StreamARN": arn("orders"), "ConsumerName": "c5"});
    vec![
        (
            "AddTagsToStream",
            5,
            json!({"StreamName": "orders", "Tags": {"a": "b"}}),
        ),
        ("DecreaseStreamRetentionPeriod", 5, hours.clone()),
        ("DeleteResourcePolicy", 5, resource.clone()),
        ("DescribeAccountSettings", 5, json!({})),
        ("DescribeLimits", 1, json!({})),
        ("DescribeStream", 10, stream.clone()),
        ("DescribeStreamConsumer", 20, consumer),
        ("DescribeStreamSummary", 20, stream.clone()),
        ("DisableEnhancedMonitoring", 5, metrics.clone()),
        ("EnableEnhancedMonitoring", 5, metrics),
        ("GetResourcePolicy", 5, resource),
        ("IncreaseStreamRetentionPeriod", 5, hours),
        ("ListShards", 1_000, stream.clone()),
        ("ListStreamConsumers", 5, by_arn),
        ("ListStreams", 5, json!({})),
        ("ListTagsForStream", 5, stream),
        ("MergeShards", 5, pair),
        ("PutResourcePolicy", 5, policy),
        (
            "RemoveTagsFromStream",
            5,
            json!({"StreamName": "orders", "TagKeys": ["a"]}),
        ),
        ("UpdateAccountSettings", 5, status),
    ]
}
