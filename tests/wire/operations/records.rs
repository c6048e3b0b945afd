//! Records: put one by one or together, read from an iterator on.

use super::stage::{ANY, Seen, Stage, arn, shard_id};
use crate::exchange::Encoding;
use serde_json::{Value, json};
use support::client::encode_base64;

/// The hash key at which the second of two shards begins.
const HALF: &str = "170141183460469231731687303715884105728";
const DRY_RUN: &str = "DryRunOperation";

pub(crate) async fn play(encoding: Encoding) -> Seen {
    let mut stage = Stage::process(encoding, &["--limits", "off"]).await;
    stage.create("orders", 2).await;
    let put = put_one(&mut stage).await;
    put_many(&mut stage).await;
    iterators(&mut stage, &put).await;
    read(&mut stage, &put).await;
    read_encrypted(&mut stage).await;
    read_to_the_end(&mut stage).await;
    stage.seen
}

/// A request with another member.
fn with(input: &Value, name: &str, value: Value) -> Value {
    let mut input = input.clone();
    input[name] = value;
    input
}

/// Refusals that every operation on records has: no such stream, and a dry run that would have succeeded.
async fn refused(stage: &mut Stage, operation: &str, input: &Value) {
    let unknown = with(input, "StreamName", json!("nobody"));
    stage.refuses(operation, "ResourceNotFound", unknown).await;
    let dry = with(input, "DryRun", json!(true));
    stage.refuses(operation, DRY_RUN, dry).await;
}

async fn put_one(stage: &mut Stage) -> Value {
    let operation = "PutRecord";
    let input = json!({
        "StreamName": "orders", "PartitionKey": "customer-7", "ExplicitHashKey": "0",
        "Data": encode_base64(b"a\0\xff"),
    });
    let pattern = json!({"ShardId": shard_id(0), "SequenceNumber": ANY});
    let put = stage.answers(operation, input.clone(), pattern).await;
    refused(stage, operation, &input).await;
    let too_large = with(&input, "ExplicitHashKey", json!("9".repeat(39)));
    stage.refuses(operation, "InvalidArgument", too_large).await;
    put
}

async fn put_many(stage: &mut Stage) {
    let operation = "PutRecords";
    let record = |key: &str, at: &str| json!({"PartitionKey": key, "ExplicitHashKey": at, "Data": encode_base64(key.as_bytes())});
    let records = json!([record("a", HALF), record("b", HALF)]);
    let input = json!({"StreamName": "orders", "Records": records});
    let placed = json!({"ShardId": shard_id(1), "SequenceNumber": ANY});
    let pattern = json!({"FailedRecordCount": 0, "Records": [placed, placed]});
    stage.answers(operation, input.clone(), pattern).await;
    refused(stage, operation, &input).await;
    let too_large = with(&input, "Records", json!([record("a", &"9".repeat(39))]));
    stage.refuses(operation, "InvalidArgument", too_large).await;
}

async fn iterators(stage: &mut Stage, put: &Value) {
    let operation = "GetShardIterator";
    let input = |kind: &str| json!({"StreamName": "orders", "ShardId": shard_id(0), "ShardIteratorType": kind});
    let number = &put["SequenceNumber"];
    for input in [
        input("TRIM_HORIZON"),
        input("LATEST"),
        with(
            &input("AT_SEQUENCE_NUMBER"),
            "StartingSequenceNumber",
            number.clone(),
        ),
        with(
            &input("AFTER_SEQUENCE_NUMBER"),
            "StartingSequenceNumber",
            number.clone(),
        ),
        with(&input("AT_TIMESTAMP"), "Timestamp", json!(1_600_000_000.5)),
    ] {
        let pattern = json!({"ShardIterator": ANY});
        stage.answers(operation, input, pattern).await;
    }
    refused(stage, operation, &input("LATEST")).await;
    let numberless = input("AT_SEQUENCE_NUMBER");
    stage
        .refuses(operation, "InvalidArgument", numberless)
        .await;
}

async fn read(stage: &mut Stage, put: &Value) {
    let operation = "GetRecords";
    let iterator = stage.trim_horizon("orders", 0).await;
    let input = json!({"ShardIterator": iterator, "Limit": 10});
    let pattern = json!({
        "Records": [{
            "SequenceNumber": put["SequenceNumber"], "ApproximateArrivalTimestamp": ANY,
            "Data": encode_base64(b"a\0\xff"), "PartitionKey": "customer-7",
        }],
        "NextShardIterator": ANY,
        "MillisBehindLatest": 0,
    });
    let page = stage.answers(operation, input.clone(), pattern).await;
    let next = json!({"ShardIterator": page["NextShardIterator"]});
    let nothing = json!({"Records": [], "NextShardIterator": ANY, "MillisBehindLatest": 0});
    stage.answers(operation, next, nothing).await;
    let dry = with(&input, "DryRun", json!(true));
    stage.refuses(operation, DRY_RUN, dry).await;
    let unknown = json!({"ShardIterator": "nothing"});
    stage.refuses(operation, "InvalidArgument", unknown).await;
    stage.create("gone", 1).await;
    let iterator = stage.trim_horizon("gone", 0).await;
    stage
        .done("DeleteStream", json!({"StreamName": "gone"}))
        .await;
    let gone = json!({"ShardIterator": iterator});
    stage.refuses(operation, "ResourceNotFound", gone).await;
}

/// What is put into an encrypted stream says so, then and when it is read.
async fn read_encrypted(stage: &mut Stage) {
    stage.create("sealed", 1).await;
    let key = json!({
        "StreamARN": arn("sealed"), "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis",
    });
    stage.done("StartStreamEncryption", key).await;
    let record = json!({"PartitionKey": "k", "Data": ""});
    let one = json!({"StreamName": "sealed", "PartitionKey": "k", "Data": ""});
    let placed = json!({"ShardId": shard_id(0), "SequenceNumber": ANY});
    let pattern = with(&placed, "EncryptionType", json!("KMS"));
    stage.answers("PutRecord", one, pattern).await;
    let many = json!({"StreamName": "sealed", "Records": [record]});
    let pattern = json!({"FailedRecordCount": 0, "Records": [placed], "EncryptionType": "KMS"});
    stage.answers("PutRecords", many, pattern).await;
    let iterator = stage.trim_horizon("sealed", 0).await;
    let read = json!({
        "SequenceNumber": ANY, "ApproximateArrivalTimestamp": ANY, "Data": "", "PartitionKey": "k",
        "EncryptionType": "KMS",
    });
    let pattern =
        json!({"Records": [read, read], "NextShardIterator": ANY, "MillisBehindLatest": 0});
    stage
        .answers("GetRecords", json!({"ShardIterator": iterator}), pattern)
        .await;
}

/// At the end of a closed shard there is no further iterator, but there are its children.
async fn read_to_the_end(stage: &mut Stage) {
    stage.create("split", 1).await;
    let input = json!({
        "StreamName": "split", "ShardToSplit": shard_id(0), "NewStartingHashKey": HALF,
    });
    stage.done("SplitShard", input).await;
    let iterator = stage.trim_horizon("split", 0).await;
    let child = |number: u32| {
        json!({
            "ShardId": shard_id(number), "ParentShards": [shard_id(0)],
            "HashKeyRange": {"StartingHashKey": ANY, "EndingHashKey": ANY},
        })
    };
    let pattern = json!({
        "Records": [], "MillisBehindLatest": 0, "ChildShards": [child(1), child(2)],
    });
    stage
        .answers("GetRecords", json!({"ShardIterator": iterator}), pattern)
        .await;
}
