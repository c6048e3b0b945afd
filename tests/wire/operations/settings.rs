//! Settings of streams: encryption, monitoring, mode, warm throughput, record size and distribution.

use super::stage::{Seen, Stage, arn};
use crate::exchange::Encoding;
use serde_json::{Value, json};

pub(crate) async fn play(encoding: Encoding) -> Seen {
    let mut stage = Stage::process(encoding, &["--limits", "off"]).await;
    stage.create("orders", 1).await;
    stage
        .done("CreateStream", json!({"StreamName": "clicks"}))
        .await;
    encrypt(&mut stage).await;
    monitor(&mut stage).await;
    warm(&mut stage).await;
    resize(&mut stage).await;
    distribute(&mut stage).await;
    switch_mode(&mut stage).await;
    stage.seen
}

/// A member of a stream's summary.
async fn summary(stage: &mut Stage, stream: &str, member: &str) -> Value {
    let input = json!({"StreamName": stream});
    let answer = stage.looks("DescribeStreamSummary", input).await;
    answer["StreamDescriptionSummary"][member].clone()
}

/// Another stream's ARN in place of this one, and none.
async fn not_found(stage: &mut Stage, operation: &str, mut input: Value) {
    let members = input.as_object_mut().unwrap();
    members.remove("StreamName");
    members.remove("StreamARN");
    stage
        .refuses(operation, "InvalidArgument", input.clone())
        .await;
    input["StreamARN"] = json!(arn("nobody"));
    stage.refuses(operation, "ResourceNotFound", input).await;
}

async fn encrypt(stage: &mut Stage) {
    let key = "alias/aws/kinesis";
    let input = json!({"StreamName": "orders", "EncryptionType": "KMS", "KeyId": key});
    for (operation, kind, key) in [
        ("StartStreamEncryption", "KMS", json!(key)),
        ("StopStreamEncryption", "NONE", Value::Null),
    ] {
        stage.done(operation, input.clone()).await;
        assert_eq!(summary(stage, "orders", "EncryptionType").await, kind);
        assert_eq!(summary(stage, "orders", "KeyId").await, key);
        let described = json!({"StreamName": "orders"});
        let described = stage.looks("DescribeStream", described).await;
        assert_eq!(described["StreamDescription"]["KeyId"], key);
        not_found(stage, operation, input.clone()).await;
    }
}

async fn monitor(stage: &mut Stage) {
    let (bytes, records) = ("IncomingBytes", "IncomingRecords");
    let answer = |before: &[&str], after: &[&str]| {
        json!({
            "StreamName": "orders", "StreamARN": arn("orders"),
            "CurrentShardLevelMetrics": before, "DesiredShardLevelMetrics": after,
        })
    };
    for (operation, metrics, pattern) in [
        (
            "EnableEnhancedMonitoring",
            [bytes, records],
            answer(&[], &[bytes, records]),
        ),
        (
            "DisableEnhancedMonitoring",
            [bytes, bytes],
            answer(&[bytes, records], &[records]),
        ),
    ] {
        let input = json!({"StreamName": "orders", "ShardLevelMetrics": metrics});
        stage.answers(operation, input.clone(), pattern).await;
        not_found(stage, operation, input).await;
    }
    let monitored = summary(stage, "orders", "EnhancedMonitoring").await;
    assert_eq!(monitored, json!([{"ShardLevelMetrics": [records]}]));
}

async fn warm(stage: &mut Stage) {
    let operation = "UpdateStreamWarmThroughput";
    let input = json!({"StreamName": "clicks", "WarmThroughputMiBps": 6});
    // Without the account's commitment.
    stage
        .refuses(operation, "InvalidArgument", input.clone())
        .await;
    let status = json!({"MinimumThroughputBillingCommitment": {"Status": "ENABLED"}});
    stage.looks("UpdateAccountSettings", status).await;
    let pattern = json!({
        "StreamARN": arn("clicks"), "StreamName": "clicks",
        "WarmThroughput": {"TargetMiBps": 6, "CurrentMiBps": 6},
    });
    stage.answers(operation, input.clone(), pattern).await;
    let shown = summary(stage, "clicks", "WarmThroughput").await;
    assert_eq!(shown, json!({"TargetMiBps": 6, "CurrentMiBps": 6}));
    assert_eq!(summary(stage, "clicks", "OpenShardCount").await, 6);
    let too_much = json!({"StreamName": "clicks", "WarmThroughputMiBps": 10_241});
    stage.refuses(operation, "LimitExceeded", too_much).await;
    not_found(stage, operation, input).await;
}

async fn resize(stage: &mut Stage) {
    let operation = "UpdateMaxRecordSize";
    let input = json!({"StreamARN": arn("orders"), "MaxRecordSizeInKiB": 10_240});
    stage.done(operation, input.clone()).await;
    assert_eq!(summary(stage, "orders", "MaxRecordSizeInKiB").await, 10_240);
    not_found(stage, operation, input).await;
}

async fn distribute(stage: &mut Stage) {
    let operation = "UpdateStreamRecordDistributionStrategy";
    let input =
        |stream: &str| json!({"StreamARN": arn(stream), "RecordDistributionStrategy": "AUTO"});
    stage.done(operation, input("clicks")).await;
    assert_eq!(
        summary(stage, "clicks", "RecordDistributionStrategy").await,
        "AUTO"
    );
    // Of a provisioned stream.
    stage
        .refuses(operation, "InvalidArgument", input("orders"))
        .await;
    stage
        .refuses(operation, "ResourceNotFound", input("nobody"))
        .await;
}

async fn switch_mode(stage: &mut Stage) {
    let operation = "UpdateStreamMode";
    let input = |stream: &str, mode: &str| json!({"StreamARN": arn(stream), "StreamModeDetails": {"StreamMode": mode}});
    stage.done(operation, input("orders", "ON_DEMAND")).await;
    let details = summary(stage, "orders", "StreamModeDetails").await;
    assert_eq!(details, json!({"StreamMode": "ON_DEMAND"}));
    let mut warm = input("orders", "PROVISIONED");
    warm["WarmThroughputMiBps"] = json!(6);
    stage.refuses(operation, "InvalidArgument", warm).await;
    let unknown = input("nobody", "ON_DEMAND");
    stage.refuses(operation, "ResourceNotFound", unknown).await;
}
