//! Tags and policies: of streams by name and by ARN, of consumers by ARN.

use super::stage::{Seen, Stage, arn};
use crate::exchange::Encoding;
use serde_json::{Value, json};

const POLICY: &str = "{\"Version\":\"2012-10-17\",\"Statement\":[]}";

pub(crate) async fn play(encoding: Encoding) -> Seen {
    let mut stage = Stage::process(encoding, &["--limits", "off"]).await;
    stage.create("orders", 1).await;
    tag_by_name(&mut stage).await;
    tag_by_arn(&mut stage).await;
    policies(&mut stage).await;
    consumers(&mut stage).await;
    stage.seen
}

async fn tag_by_name(stage: &mut Stage) {
    let input = |name: &str, value: Value| json!({"StreamName": "orders", name: value});
    let all = json!({"StreamName": "orders"});
    stage
        .done("AddTagsToStream", input("Tags", json!({"a": "1", "b": ""})))
        .await;
    let first = json!({"Tags": [{"Key": "a", "Value": "1"}], "HasMoreTags": true});
    stage
        .answers("ListTagsForStream", input("Limit", json!(1)), first)
        .await;
    stage
        .done(
            "RemoveTagsFromStream",
            input("TagKeys", json!(["a", "none"])),
        )
        .await;
    let rest = json!({"Tags": [{"Key": "b", "Value": ""}], "HasMoreTags": false});
    stage.answers("ListTagsForStream", all.clone(), rest).await;
    for (operation, mut input) in [
        ("AddTagsToStream", input("Tags", json!({"a": "1"}))),
        ("RemoveTagsFromStream", input("TagKeys", json!(["a"]))),
        ("ListTagsForStream", all),
    ] {
        input["StreamName"] = json!("nobody");
        stage
            .refuses(operation, "ResourceNotFound", input.clone())
            .await;
        input.as_object_mut().unwrap().remove("StreamName");
        stage.refuses(operation, "InvalidArgument", input).await;
    }
}

/// An operation by ARN: of a stream that is not there, and of nothing that could be.
async fn not_found(stage: &mut Stage, operation: &str, mut input: Value) {
    for (error, name) in [
        ("ResourceNotFound", "nobody"),
        ("InvalidArgument", "no$name"),
    ] {
        input["ResourceARN"] = json!(arn(name));
        stage.refuses(operation, error, input.clone()).await;
    }
}

async fn tag_by_arn(stage: &mut Stage) {
    let input = |name: &str, value: Value| json!({"ResourceARN": arn("orders"), name: value});
    let all = json!({"ResourceARN": arn("orders")});
    let set = input("Tags", json!({"b": "2", "c": "3"}));
    stage.done("TagResource", set.clone()).await;
    let unset = input("TagKeys", json!(["b"]));
    stage.done("UntagResource", unset.clone()).await;
    let tags = json!({"Tags": [{"Key": "c", "Value": "3"}]});
    stage
        .answers("ListTagsForResource", all.clone(), tags)
        .await;
    for (operation, input) in [
        ("TagResource", set),
        ("UntagResource", unset),
        ("ListTagsForResource", all),
    ] {
        not_found(stage, operation, input).await;
    }
}

async fn policies(stage: &mut Stage) {
    let resource = json!({"ResourceARN": arn("orders")});
    let put = json!({"ResourceARN": arn("orders"), "Policy": POLICY});
    stage.done("PutResourcePolicy", put.clone()).await;
    let policy = json!({"Policy": POLICY});
    stage
        .answers("GetResourcePolicy", resource.clone(), policy)
        .await;
    stage.done("DeleteResourcePolicy", resource.clone()).await;
    let none = json!({"Policy": "{}"});
    stage
        .answers("GetResourcePolicy", resource.clone(), none)
        .await;
    let mut bad = put.clone();
    bad["Policy"] = json!("no JSON");
    stage
        .refuses("PutResourcePolicy", "InvalidArgument", bad)
        .await;
    for (operation, input) in [
        ("PutResourcePolicy", put),
        ("GetResourcePolicy", resource.clone()),
        ("DeleteResourcePolicy", resource),
    ] {
        not_found(stage, operation, input).await;
    }
}

async fn consumers(stage: &mut Stage) {
    let consumer = stage.register("orders", "tagged").await;
    let with = |more: Value| {
        let mut input = json!({"ResourceARN": consumer});
        input
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        input
    };
    stage
        .done("TagResource", with(json!({"Tags": {"a": "1", "b": "2"}})))
        .await;
    stage
        .done("UntagResource", with(json!({"TagKeys": ["a"]})))
        .await;
    let tags = json!({"Tags": [{"Key": "b", "Value": "2"}]});
    stage
        .answers("ListTagsForResource", with(json!({})), tags)
        .await;
    stage
        .done("PutResourcePolicy", with(json!({"Policy": POLICY})))
        .await;
    let policy = json!({"Policy": POLICY});
    stage
        .answers("GetResourcePolicy", with(json!({})), policy)
        .await;
    stage.done("DeleteResourcePolicy", with(json!({}))).await;
    let named = json!({"ConsumerARN": consumer});
    stage.done("DeregisterStreamConsumer", named).await;
    for operation in [
        "ListTagsForResource",
        "GetResourcePolicy",
        "DeleteResourcePolicy",
    ] {
        stage
            .refuses(operation, "ResourceNotFound", with(json!({})))
            .await;
    }
}
