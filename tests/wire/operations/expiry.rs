//! What needs minutes or hours to pass, against a server whose clock is driven.

use super::stage::{ANY, Seen, Stage, arn, consumer};
use crate::exchange::Encoding;
use millstream_server::Limits;
use serde_json::json;
use std::time::Duration;

/// A moment longer than iterators and page tokens live.
const TOO_LONG: Duration = Duration::from_millis(300_001);
const HOUR: Duration = Duration::from_hours(1);

pub(crate) async fn play(encoding: Encoding) -> Seen {
    let mut stage = Stage::driven(encoding, Limits::Aws).await;
    stage.create("orders", 2).await;
    stage.create("returns", 1).await;
    tokens(&mut stage).await;
    encryption(&mut stage).await;
    stage.seen
}

async fn tokens(stage: &mut Stage) {
    stage.register("orders", "a").await;
    stage.register("orders", "b").await;
    let iterator = stage.trim_horizon("orders", 0).await;
    let shard = json!({
        "ShardId": ANY,
        "HashKeyRange": {"StartingHashKey": ANY, "EndingHashKey": ANY},
        "SequenceNumberRange": {"StartingSequenceNumber": ANY},
    });
    let listed = json!({
        "StreamNames": ["orders"], "HasMoreStreams": true, "NextToken": ANY, "StreamSummaries": ANY,
    });
    let mut expired = vec![(
        "GetRecords",
        "ExpiredIterator",
        json!({"ShardIterator": iterator}),
    )];
    for (operation, input, pattern) in [
        ("ListStreams", json!({"Limit": 1}), listed),
        (
            "ListShards",
            json!({"StreamName": "orders", "MaxResults": 1}),
            json!({"Shards": [shard], "NextToken": ANY}),
        ),
        (
            "ListStreamConsumers",
            json!({"StreamARN": arn("orders"), "MaxResults": 1}),
            json!({"Consumers": [consumer("a", "ACTIVE")], "NextToken": ANY}),
        ),
    ] {
        let page = stage.answers(operation, input.clone(), pattern).await;
        let mut next = json!({"NextToken": page["NextToken"]});
        if operation == "ListStreamConsumers" {
            next["StreamARN"] = input["StreamARN"].clone();
        }
        expired.push((operation, "ExpiredNextToken", next));
    }
    stage.advance(TOO_LONG);
    for (operation, error, input) in expired {
        stage.refuses(operation, error, input).await;
    }
}

/// Encryption may end 25 times in 24 hours, and begin as often: the first beginning is forgotten before the
/// first end is.
async fn encryption(stage: &mut Stage) {
    let input = json!({
        "StreamName": "orders", "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis",
    });
    stage.done("StartStreamEncryption", input.clone()).await;
    stage.advance(HOUR);
    for _ in 1..25 {
        stage.done("StopStreamEncryption", input.clone()).await;
        stage.done("StartStreamEncryption", input.clone()).await;
    }
    stage.done("StopStreamEncryption", input.clone()).await;
    stage.advance(23 * HOUR);
    stage.done("StartStreamEncryption", input.clone()).await;
    stage
        .refuses("StopStreamEncryption", "LimitExceeded", input)
        .await;
}
