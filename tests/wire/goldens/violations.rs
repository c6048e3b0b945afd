//! What is said of members that are missing, empty, too long, too many or out of range, and in which order.

use super::{Goldens, STREAM, server};
use serde_json::{Value, json};

fn violation(value: &str, place: &str, rule: &str) -> String {
    let value = if value == "null" {
        value.to_owned()
    } else {
        format!("'{value}'")
    };
    format!("Value {value} at '{place}' failed to satisfy constraint: Member must {rule}")
}

fn null(place: &str) -> String {
    violation("null", place, "not be null")
}

fn at_least(value: &str, place: &str, kind: &str, min: u32) -> String {
    violation(
        value,
        place,
        &format!("have {kind} greater than or equal to {min}"),
    )
}

fn at_most(value: &str, place: &str, kind: &str, max: u32) -> String {
    violation(
        value,
        place,
        &format!("have {kind} less than or equal to {max}"),
    )
}

fn pattern(value: &str, place: &str, pattern: &str) -> String {
    violation(
        value,
        place,
        &format!("satisfy regular expression pattern: {pattern}"),
    )
}

/// An empty name, or an id of a shard: both rules are broken.
fn empty(place: &str) -> [String; 2] {
    [
        pattern("", place, "[a-zA-Z0-9_.-]+"),
        at_least("", place, "length", 1),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn violations_are_listed_in_the_words_and_the_order_of_aws() {
    let mut goldens = Goldens(Vec::new());
    missing_and_empty(&mut goldens);
    empty_members(&mut goldens);
    too_long(&mut goldens);
    too_long_with_others(&mut goldens);
    odd_members(&mut goldens);
    goldens.compare(&server().await).await;
}

fn missing_and_empty(goldens: &mut Goldens) {
    goldens.violated("AddTagsToStream", json!({}), &[null("tags")]);
    goldens.violated("GetRecords", json!({}), &[null("shardIterator")]);
    goldens.violated(
        "GetShardIterator",
        json!({}),
        &[null("shardId"), null("shardIteratorType")],
    );
    goldens.violated(
        "MergeShards",
        json!({}),
        &[null("shardToMerge"), null("adjacentShardToMerge")],
    );
    goldens.violated("PutRecord", json!({}), &[null("data")]);
    goldens.violated("PutRecords", json!({}), &[null("records")]);
    goldens.violated("RemoveTagsFromStream", json!({}), &[null("tagKeys")]);
    goldens.violated(
        "SplitShard",
        json!({}),
        &[null("newStartingHashKey"), null("shardToSplit")],
    );
    goldens.violated("CreateStream", json!({}), &[null("streamName")]);
    let name = empty("streamName").to_vec();
    let with = |mut first: Vec<String>| {
        first.extend(name.clone());
        first
    };
    let body = json!({"StreamName": "", "Tags": {}});
    goldens.violated(
        "AddTagsToStream",
        body,
        &with(vec![at_least("{}", "tags", "length", 1)]),
    );
    let body = json!({"StreamName": "", "ShardCount": 0});
    goldens.violated(
        "CreateStream",
        body,
        &with(vec![at_least("0", "shardCount", "value", 1)]),
    );
    for operation in ["DeleteStream", "DescribeStreamSummary"] {
        goldens.violated(operation, json!({"StreamName": ""}), &name);
    }
    let body = json!({"StreamName": "", "Limit": 0, "ExclusiveStartShardId": ""});
    let mut violations = vec![at_least("0", "limit", "value", 1)];
    violations.extend(empty("exclusiveStartShardId"));
    goldens.violated("DescribeStream", body, &with(violations));
    let body = json!({"ShardIterator": "", "Limit": 0});
    let violations = [
        at_least("0", "limit", "value", 1),
        at_least("", "shardIterator", "length", 1),
    ];
    goldens.violated("GetRecords", body, &violations);
    let body = json!({"StreamName": "", "ShardIteratorType": "", "ShardId": "", "StartingSequenceNumber": ""});
    let kinds = "satisfy enum value set: [AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON]";
    let mut violations = empty("shardId").to_vec();
    violations.push(violation("", "shardIteratorType", kinds));
    violations.push(pattern(
        "",
        "startingSequenceNumber",
        r"^(0|([1-9]\d{0,128}))$",
    ));
    goldens.violated("GetShardIterator", body, &with(violations));
    let body = json!({"StreamName": "", "ShardToMerge": "", "AdjacentShardToMerge": ""});
    let mut violations = empty("shardToMerge").to_vec();
    violations.extend(empty("adjacentShardToMerge"));
    goldens.violated("MergeShards", body, &with(violations));
}

fn empty_members(goldens: &mut Goldens) {
    let name = empty("streamName").to_vec();
    let with = |mut first: Vec<String>| {
        first.extend(name.clone());
        first
    };
    let body = json!({"StreamName": "", "Records": []});
    goldens.violated(
        "PutRecords",
        body,
        &with(vec![at_least("[]", "records", "length", 1)]),
    );
    let body = json!({"StreamName": "", "TagKeys": []});
    goldens.violated(
        "RemoveTagsFromStream",
        body,
        &with(vec![at_least("[]", "tagKeys", "length", 1)]),
    );
    let body = json!({"StreamName": "", "ExclusiveStartTagKey": "", "Limit": 0});
    let violations = vec![
        at_least("0", "limit", "value", 1),
        at_least("", "exclusiveStartTagKey", "length", 1),
    ];
    goldens.violated("ListTagsForStream", body, &with(violations));
    let body = json!({"StreamName": "", "ShardToSplit": "", "NewStartingHashKey": ""});
    let mut violations = with(vec![pattern(
        "",
        "newStartingHashKey",
        r"^(0|([1-9]\d{0,38}))$",
    )]);
    violations.extend(empty("shardToSplit"));
    goldens.violated("SplitShard", body, &violations);
    let body = json!({"StreamName": "", "PartitionKey": "", "Data": "", "ExplicitHashKey": "",
        "SequenceNumberForOrdering": ""});
    let violations = vec![
        pattern("", "sequenceNumberForOrdering", r"^(0|([1-9]\d{0,128}))$"),
        at_least("", "partitionKey", "length", 1),
        pattern("", "explicitHashKey", r"^(0|([1-9]\d{0,38}))$"),
    ];
    goldens.violated("PutRecord", body, &with(violations));
}

fn too_long(goldens: &mut Goldens) {
    let long = "a".repeat(129);
    let name = |place| at_most(&long, place, "length", 128);
    goldens.violated(
        "AddTagsToStream",
        json!({"StreamName": long, "Tags": {"a": "b"}}),
        &[name("streamName")],
    );
    goldens.violated(
        "CreateStream",
        json!({"StreamName": long, "ShardCount": 1e11}),
        &[name("streamName")],
    );
    let body = json!({"StreamName": long, "Limit": 100_000, "ExclusiveStartShardId": long});
    let limit = at_most("100000", "limit", "value", 10_000);
    goldens.violated(
        "DescribeStream",
        body,
        &[
            limit.clone(),
            name("exclusiveStartShardId"),
            name("streamName"),
        ],
    );
    let body = json!({"ExclusiveStartStreamName": long, "Limit": 1e10});
    let largest = at_most("2147483647", "limit", "value", 10_000);
    goldens.violated(
        "ListStreams",
        body,
        &[largest, name("exclusiveStartStreamName")],
    );
    let body = json!({"ShardIterator": "a".repeat(513), "Limit": 100_000});
    let iterator = at_most(&"a".repeat(513), "shardIterator", "length", 512);
    goldens.violated("GetRecords", body, &[limit, iterator]);
    let body = json!({"StreamName": long, "ShardId": long, "ShardIteratorType": "LATEST"});
    goldens.violated(
        "GetShardIterator",
        body,
        &[name("shardId"), name("streamName")],
    );
}

fn too_long_with_others(goldens: &mut Goldens) {
    let long = "a".repeat(129);
    let name = |place| at_most(&long, place, "length", 128);
    let body = json!({"StreamName": long, "ShardToMerge": long, "AdjacentShardToMerge": long});
    let violations = [
        name("shardToMerge"),
        name("adjacentShardToMerge"),
        name("streamName"),
    ];
    goldens.violated("MergeShards", body, &violations);
    let body = json!({"StreamName": long, "ShardToSplit": long, "NewStartingHashKey": "0"});
    goldens.violated(
        "SplitShard",
        body,
        &[name("streamName"), name("shardToSplit")],
    );
    let body = json!({"StreamName": long, "ExclusiveStartTagKey": long, "Limit": 100});
    let violations = [
        at_most("100", "limit", "value", 50),
        name("exclusiveStartTagKey"),
        name("streamName"),
    ];
    goldens.violated("ListTagsForStream", body, &violations);
    let body = json!({"StreamName": long, "PartitionKey": "k".repeat(257), "Data": "", "ExplicitHashKey": ""});
    let violations = [
        at_most(&"k".repeat(257), "partitionKey", "length", 256),
        pattern("", "explicitHashKey", r"^(0|([1-9]\d{0,38}))$"),
        name("streamName"),
    ];
    goldens.violated("PutRecord", body, &violations);
    // One byte more than a stream takes that says nothing else.
    let body = json!({"StreamName": STREAM, "PartitionKey": "k", "Data": format!("{}AAA=", "A".repeat(1_398_100))});
    let shown = "java.nio.HeapByteBuffer[pos=0 lim=1048577 cap=1048577]";
    goldens.violated(
        "PutRecord",
        body,
        &[at_most(shown, "data", "length", 1_048_576)],
    );
}

fn odd_members(goldens: &mut Goldens) {
    let keys = |which: &str, max: u32, min: u32, value: &str| {
        format!(
            "Value '{value}' at 'tags' failed to satisfy constraint: Map {which} must satisfy constraint: \
             [Member must have length less than or equal to {max}, \
             Member must have length greater than or equal to {min}]"
        )
    };
    let tags = |tags: Value| json!({"StreamName": STREAM, "Tags": tags});
    let long = "a".repeat(129);
    goldens.violated(
        "AddTagsToStream",
        tags(json!({"": "a"})),
        &[keys("keys", 128, 1, "{=a}")],
    );
    let shown = format!("{{{long}=}}");
    goldens.violated(
        "AddTagsToStream",
        tags(json!({&long: ""})),
        &[keys("keys", 128, 1, &shown)],
    );
    let value = "v".repeat(257);
    let shown = format!("{{a={value}}}");
    goldens.violated(
        "AddTagsToStream",
        tags(json!({"a": value})),
        &[keys("value", 256, 0, &shown)],
    );
    let body = json!({"StreamName": STREAM, "TagKeys": ["a", ""]});
    let lens = "satisfy constraint: [Member must have length less than or equal to 128, \
                Member must have length greater than or equal to 1]";
    goldens.violated(
        "RemoveTagsFromStream",
        body,
        &[violation("[a, ]", "tagKeys", lens)],
    );
    let data = "records.1.member.data";
    let body = json!({"StreamName": STREAM, "Records": [{"PartitionKey": "k"}]});
    goldens.violated("PutRecords", body, &[null(data)]);
    let record = json!({"PartitionKey": "", "ExplicitHashKey": "x", "Data": ""});
    let body =
        json!({"StreamName": STREAM, "Records": [{"PartitionKey": "k", "Data": ""}, record]});
    let violations = [
        at_least("", "records.2.member.partitionKey", "length", 1),
        pattern(
            "x",
            "records.2.member.explicitHashKey",
            r"^(0|([1-9]\d{0,38}))$",
        ),
    ];
    goldens.violated("PutRecords", body, &violations);
    // Ten are listed, whatever else is wrong.
    let body = json!({"StreamName": STREAM, "Records": vec![json!({}); 501]});
    let entry = "com.amazonaws.kinesis.v20131202.PutRecordsRequestEntry@c965e310";
    // What is echoed is cut.
    let shown: String = format!("[{}", [entry; 501].join(", "))
        .chars()
        .take(4_097)
        .collect();
    let mut violations = vec![at_most(&format!("{shown}]"), "records", "length", 500)];
    violations.extend((1..=9).map(|n| null(&format!("records.{n}.member.data"))));
    goldens.violated("PutRecords", body, &violations);
}
