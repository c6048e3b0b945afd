//! AWS's limits: throughput of shards, quotas of streams and accounts.

use super::stage::{ANY, Seen, Stage, arn, shard_id};
use crate::events::Subscription;
use crate::exchange::Encoding;
use serde_json::json;
use support::client::{CallError, encode_base64};

const LIMIT: &str = "LimitExceeded";
const THROUGHPUT: &str = "ProvisionedThroughputExceeded";
const HALF: &str = "170141183460469231731687303715884105728";

pub(crate) async fn play(encoding: Encoding) -> Seen {
    let mut stage = Stage::process(encoding, &["--limits", "aws"]).await;
    stage.create("orders", 1).await;
    throughput(&mut stage).await;
    subscriptions(&mut stage).await;
    scaling(&mut stage).await;
    modes(&mut stage).await;
    encryption(&mut stage).await;
    shards(&mut stage).await;
    let slow = ["--limits", "aws", "--state-delay", "600000"];
    stage.restart_with(&slow).await;
    states(&mut stage).await;
    stage.seen
}

async fn throughput(stage: &mut Stage) {
    // A MiB with its key, as much as a shard takes in a second.
    let full = encode_base64(&vec![b'x'; 1_048_575]);
    let one = json!({"StreamName": "orders", "PartitionKey": "k", "Data": full});
    stage.refuses_soon("PutRecord", THROUGHPUT, &one).await;
    let record = json!({"PartitionKey": "k", "Data": full});
    let many = json!({"StreamName": "orders", "Records": [record, record]});
    // Said record by record, in the order given: the first may pass, the second cannot.
    let refused =
        json!({"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": ANY});
    let answer = stage.exchange.call("PutRecords", &many).await.unwrap();
    let failed = &answer["FailedRecordCount"];
    let first = match failed.as_u64() {
        Some(2) => refused.clone(),
        _ => json!({"ShardId": shard_id(0), "SequenceNumber": ANY}),
    };
    let pattern = json!({"FailedRecordCount": failed, "Records": [first, refused]});
    stage.fits("PutRecords", &answer, &pattern);
    stage.seen.note("PutRecords", THROUGHPUT);
    let iterator = stage.trim_horizon("orders", 0).await;
    let read = json!({"ShardIterator": iterator});
    stage.refuses_soon("GetRecords", THROUGHPUT, &read).await;
}

/// A call a second for each consumer and shard, once the last subscription has ended.
async fn subscriptions(stage: &mut Stage) {
    let consumer = stage.register("orders", "hasty").await;
    let input = json!({
        "ConsumerARN": consumer, "ShardId": shard_id(0), "StartingPosition": {"Type": "LATEST"},
    });
    for _ in 0..5_000 {
        let begun = Subscription::begin(&stage.exchange, &input).await;
        match &begun {
            // Dropped at once, which the server notices a moment later.
            Ok(_) => {}
            Err(CallError::Refused { code, .. }) if code == "ResourceInUseException" => {}
            Err(_) => return stage.refused("SubscribeToShard", LIMIT, &input, begun),
        }
    }
    panic!("subscriptions never came too fast");
}

async fn scaling(stage: &mut Stage) {
    let input = json!({
        "StreamName": "orders", "TargetShardCount": 3, "ScalingType": "UNIFORM_SCALING",
    });
    stage.refuses("UpdateShardCount", LIMIT, input).await;
}

async fn modes(stage: &mut Stage) {
    let input =
        |mode: &str| json!({"StreamARN": arn("orders"), "StreamModeDetails": {"StreamMode": mode}});
    stage.done("UpdateStreamMode", input("ON_DEMAND")).await;
    stage.done("UpdateStreamMode", input("PROVISIONED")).await;
    stage
        .refuses("UpdateStreamMode", LIMIT, input("ON_DEMAND"))
        .await;
}

async fn encryption(stage: &mut Stage) {
    let input = |key: usize| {
        let key = format!("alias/key-{key}");
        json!({"StreamName": "orders", "EncryptionType": "KMS", "KeyId": key})
    };
    for key in 0..25 {
        stage.done("StartStreamEncryption", input(key)).await;
    }
    stage
        .refuses("StartStreamEncryption", LIMIT, input(25))
        .await;
}

async fn shards(stage: &mut Stage) {
    let rest = json!({"StreamName": "rest", "ShardCount": 500});
    stage.refuses("CreateStream", LIMIT, rest).await;
    stage.create("rest", 499).await;
    let split = json!({
        "StreamName": "orders", "ShardToSplit": shard_id(0), "NewStartingHashKey": HALF,
    });
    stage.refuses("SplitShard", LIMIT, split).await;
    stage
        .done("DeleteStream", json!({"StreamName": "rest"}))
        .await;
}

/// Few streams and consumers may be on their way at a time.
async fn states(stage: &mut Stage) {
    for n in 0..5 {
        stage.register("orders", &format!("c{n}")).await;
    }
    let sixth = json!({"StreamARN": arn("orders"), "ConsumerName": "c5"});
    stage.refuses("RegisterStreamConsumer", LIMIT, sixth).await;
    for n in 0..5 {
        stage.create(&format!("s{n}"), 1).await;
    }
    let sixth = json!({"StreamName": "s5", "ShardCount": 1});
    stage.refuses("CreateStream", LIMIT, sixth).await;
    let enforced = json!({"StreamName": "orders", "EnforceConsumerDeletion": true});
    stage.refuses("DeleteStream", LIMIT, enforced).await;
}
