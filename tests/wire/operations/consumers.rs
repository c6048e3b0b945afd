//! Registered consumers, and what they are pushed.

use super::stage::{ANY, SUCCESS, Seen, Stage, arn, consumer, shard_id};
use crate::events::Subscription;
use crate::exchange::Encoding;
use serde_json::{Value, json};
use std::time::Duration;
use support::client::encode_base64;
use support::wait_until;

const SUBSCRIBE: &str = "SubscribeToShard";
const EVENT: &str = "SubscribeToShardEvent";

pub(crate) async fn play(encoding: Encoding) -> Seen {
    let mut stage = Stage::process(encoding, &["--limits", "off"]).await;
    stage.create("orders", 2).await;
    register(&mut stage).await;
    describe(&mut stage).await;
    list(&mut stage).await;
    let consumer = stage.register("orders", "pushed").await;
    subscribe(&mut stage, &consumer).await;
    subscribe_to_the_end(&mut stage, &consumer).await;
    subscribe_encrypted(&mut stage).await;
    take_over(&mut stage, &consumer).await;
    deregister(&mut stage, &consumer).await;
    stage.seen
}

async fn register(stage: &mut Stage) {
    let operation = "RegisterStreamConsumer";
    let input = |stream: &str| json!({"StreamARN": arn(stream), "ConsumerName": "first"});
    stage.register("orders", "first").await;
    for (error, stream) in [
        ("ResourceInUse", "orders"),
        ("ResourceNotFound", "nobody"),
        ("InvalidArgument", "no$name"),
    ] {
        stage.refuses(operation, error, input(stream)).await;
    }
}

/// A consumer by name or by ARN: one that is not there, one not named at all.
async fn not_found(stage: &mut Stage, operation: &str) {
    let unknown = json!({"StreamARN": arn("orders"), "ConsumerName": "nobody"});
    stage.refuses(operation, "ResourceNotFound", unknown).await;
    let stream_only = json!({"StreamARN": arn("orders")});
    stage
        .refuses(operation, "InvalidArgument", stream_only)
        .await;
}

async fn describe(stage: &mut Stage) {
    let operation = "DescribeStreamConsumer";
    let mut description = consumer("first", "ACTIVE");
    description["StreamARN"] = json!(arn("orders"));
    let pattern = json!({"ConsumerDescription": description});
    let named = json!({"StreamARN": arn("orders"), "ConsumerName": "first"});
    let answer = stage.answers(operation, named, pattern.clone()).await;
    let by_arn = json!({"ConsumerARN": answer["ConsumerDescription"]["ConsumerARN"]});
    stage.answers(operation, by_arn, pattern).await;
    not_found(stage, operation).await;
}

async fn list(stage: &mut Stage) {
    let operation = "ListStreamConsumers";
    stage.register("orders", "second").await;
    let input = json!({"StreamARN": arn("orders"), "MaxResults": 1});
    let pattern = json!({"Consumers": [consumer("first", "ACTIVE")], "NextToken": ANY});
    let page = stage.answers(operation, input, pattern).await;
    let next = json!({"StreamARN": arn("orders"), "NextToken": page["NextToken"]});
    let pattern = json!({"Consumers": [consumer("second", "ACTIVE")]});
    stage.answers(operation, next, pattern).await;
    let unknown = json!({"StreamARN": arn("nobody")});
    stage.refuses(operation, "ResourceNotFound", unknown).await;
    let token = json!({"StreamARN": arn("orders"), "NextToken": "nothing"});
    stage.refuses(operation, "InvalidArgument", token).await;
}

fn subscription(consumer: &str, shard: u32) -> Value {
    json!({
        "ConsumerARN": consumer, "ShardId": shard_id(shard),
        "StartingPosition": {"Type": "TRIM_HORIZON"},
    })
}

async fn begin(stage: &mut Stage, input: &Value) -> Subscription {
    let begun = Subscription::begin(&stage.exchange, input).await;
    let begun = begun.unwrap_or_else(|error| panic!("{SUBSCRIBE} {input}: {error}"));
    stage.seen.note(SUBSCRIBE, SUCCESS);
    begun
}

/// The next event, which must have this name and content.
async fn pushed(stage: &mut Stage, from: &mut Subscription, name: &str, pattern: Value) {
    let (found, content) = from.next().await.expect("another event");
    assert_eq!(found, name);
    let event = json!({"EventStream": {name: content}});
    stage.fits(SUBSCRIBE, &event, &json!({"EventStream": {name: pattern}}));
}

async fn subscribe(stage: &mut Stage, consumer: &str) {
    let put = json!({
        "StreamName": "orders", "PartitionKey": "k", "ExplicitHashKey": "0",
        "Data": encode_base64(b"pushed"),
    });
    let pattern = json!({"ShardId": shard_id(0), "SequenceNumber": ANY});
    let put = stage.answers("PutRecord", put, pattern).await;
    let input = subscription(consumer, 0);
    let mut subscribed = begin(stage, &input).await;
    let event = json!({
        "Records": [{
            "SequenceNumber": put["SequenceNumber"], "ApproximateArrivalTimestamp": ANY,
            "Data": encode_base64(b"pushed"), "PartitionKey": "k",
        }],
        "ContinuationSequenceNumber": ANY,
        "MillisBehindLatest": 0,
    });
    pushed(stage, &mut subscribed, EVENT, event).await;
    stage
        .refuses(SUBSCRIBE, "ResourceInUse", input.clone())
        .await;
    for (error, name, value) in [
        ("ResourceNotFound", "ShardId", json!(shard_id(9))),
        (
            "InvalidArgument",
            "StartingPosition",
            json!({"Type": "AT_SEQUENCE_NUMBER"}),
        ),
        ("DryRunOperation", "DryRun", json!(true)),
    ] {
        let mut input = subscription(consumer, 1);
        input[name] = value;
        stage.refuses(SUBSCRIBE, error, input).await;
    }
}

/// The last event of a closed shard names its children and no place to go on.
async fn subscribe_to_the_end(stage: &mut Stage, consumer: &str) {
    let split = json!({
        "StreamName": "orders", "ShardToSplit": shard_id(1),
        "NewStartingHashKey": "255211775190703847597530955573826158592",
    });
    stage.done("SplitShard", split).await;
    let mut subscribed = begin(stage, &subscription(consumer, 1)).await;
    let child = |number: u32| {
        json!({
            "ShardId": shard_id(number), "ParentShards": [shard_id(1)],
            "HashKeyRange": {"StartingHashKey": ANY, "EndingHashKey": ANY},
        })
    };
    let event = json!({
        "Records": [], "MillisBehindLatest": 0, "ChildShards": [child(2), child(3)],
    });
    pushed(stage, &mut subscribed, EVENT, event).await;
    assert_eq!(subscribed.next().await, None);
}

/// Records of an encrypted stream say so when they are pushed.
async fn subscribe_encrypted(stage: &mut Stage) {
    stage.create("sealed", 1).await;
    let key = json!({
        "StreamARN": arn("sealed"), "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis",
    });
    stage.done("StartStreamEncryption", key).await;
    let put = json!({"StreamName": "sealed", "PartitionKey": "k", "Data": ""});
    let pattern = json!({"ShardId": shard_id(0), "SequenceNumber": ANY, "EncryptionType": "KMS"});
    stage.answers("PutRecord", put, pattern).await;
    let consumer = stage.register("sealed", "pushed").await;
    let mut subscribed = begin(stage, &subscription(&consumer, 0)).await;
    let event = json!({
        "Records": [{
            "SequenceNumber": ANY, "ApproximateArrivalTimestamp": ANY, "Data": "",
            "PartitionKey": "k", "EncryptionType": "KMS",
        }],
        "ContinuationSequenceNumber": ANY,
        "MillisBehindLatest": 0,
    });
    pushed(stage, &mut subscribed, EVENT, event).await;
}

/// The exceptions within the stream: another subscription takes over, then the consumer goes away.
async fn take_over(stage: &mut Stage, consumer: &str) {
    let input = subscription(consumer, 2);
    let mut first = begin(stage, &input).await;
    let nothing = json!({
        "Records": [], "ContinuationSequenceNumber": ANY, "MillisBehindLatest": 0,
    });
    pushed(stage, &mut first, EVENT, nothing.clone()).await;
    let exchange = stage.exchange.clone();
    let limit = Duration::from_secs(15);
    let mut second = wait_until("the subscription may be taken over", limit, || async {
        Subscription::begin(&exchange, &input).await.ok()
    })
    .await;
    // On the way there is an event for every five seconds.
    let (name, content) = loop {
        match first.next().await.expect("an exception") {
            (name, _) if name == EVENT => {}
            exception => break exception,
        }
    };
    let event = json!({"EventStream": {&name: content}});
    let pattern = json!({"EventStream": {"ResourceInUseException": {"message": ANY}}});
    stage.fits(SUBSCRIBE, &event, &pattern);
    pushed(stage, &mut second, EVENT, nothing).await;
    let named = json!({"ConsumerARN": consumer});
    stage.done("DeregisterStreamConsumer", named).await;
    let gone = json!({"message": ANY});
    pushed(stage, &mut second, "ResourceNotFoundException", gone).await;
    assert_eq!(second.next().await, None);
}

async fn deregister(stage: &mut Stage, gone: &str) {
    let operation = "DeregisterStreamConsumer";
    let named = json!({"StreamARN": arn("orders"), "ConsumerName": "first"});
    stage.done(operation, named).await;
    let gone = json!({"ConsumerARN": gone});
    stage.refuses(operation, "ResourceNotFound", gone).await;
    not_found(stage, operation).await;
}
