//! What AWS says of wrong requests, word for word and byte for byte.
//!
//! Source of the texts: kinesalite's tests, which were run against AWS. Where the service model has changed
//! since (who names the stream, lengths, patterns with anchors), the request or the text follows the model.

mod arguments;
mod violations;

use crate::SERVER;
use serde_json::{Value, json};
use support::ServerProcess;
use support::client::AUTHORIZATION;

const STREAM: &str = "three";
const UNKNOWN: &str = "no-such-stream";
const UNDER: &str = "under account 000000000000";
/// Where the first of three shards ends.
const FIRST_END: &str = "113427455640312821154458202477256070484";

/// A request, its answer's code, and the answer's text.
struct Golden {
    operation: &'static str,
    body: Value,
    code: &'static str,
    text: String,
}

/// Goldens that share a code.
struct Goldens(Vec<Golden>);

impl Goldens {
    fn add(
        &mut self,
        operation: &'static str,
        body: Value,
        code: &'static str,
        text: impl Into<String>,
    ) {
        let text = text.into();
        self.0.push(Golden {
            operation,
            body,
            code,
            text,
        });
    }

    fn invalid(&mut self, operation: &'static str, body: Value, text: impl Into<String>) {
        self.add(operation, body, "InvalidArgumentException", text);
    }

    fn missing(&mut self, operation: &'static str, body: Value, text: impl Into<String>) {
        self.add(operation, body, "ResourceNotFoundException", text);
    }

    /// A `ValidationException` of these violations in this order, each `VALUE at PLACE: RULE`.
    fn violated(&mut self, operation: &'static str, body: Value, violations: &[String]) {
        let count = violations.len();
        let plural = if count == 1 { "" } else { "s" };
        let all = violations.join("; ");
        let text = format!("{count} validation error{plural} detected: {all}");
        self.add(operation, body, "ValidationException", text);
    }

    /// Compares them with what a server answers, and tells all differences at once.
    async fn compare(self, server: &ServerProcess) {
        let http = reqwest::Client::new();
        let mut differences = Vec::new();
        let count = self.0.len();
        for golden in self.0 {
            let Golden {
                operation,
                body,
                code,
                text,
            } = golden;
            let key = if code == "SerializationException" {
                "Message"
            } else {
                "message"
            };
            let expected = format!(r#"{{"__type":"{code}","{key}":{}}}"#, json!(text));
            let reply = http
                .post(server.url())
                .header("content-type", "application/x-amz-json-1.1")
                .header("x-amz-target", format!("Kinesis_20131202.{operation}"))
                .header("x-amz-date", "20260101T000000Z")
                .header("authorization", AUTHORIZATION)
                .body(body.to_string())
                .send()
                .await
                .unwrap();
            let status = reply.status().as_u16();
            let found = reply.text().await.unwrap();
            if (status, &found) != (400, &expected) {
                let body: String = body.to_string().chars().take(200).collect();
                differences.push(format!(
                    "{operation} {body}\n  {status} {found}\n  400 {expected}"
                ));
            }
        }
        println!("{count} goldens");
        assert!(
            differences.is_empty(),
            "{} differ:\n{}",
            differences.len(),
            differences.join("\n")
        );
    }
}

async fn server() -> ServerProcess {
    let server = ServerProcess::start(SERVER).await;
    server.client().create_stream(STREAM, 3).await;
    server
}

/// Each member of an operation by its type, and what is said of a value of another type.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_another_type_are_named_as_java_names_them() {
    const MEMBERS: [(&str, &str, &str); 41] = [
        ("AddTagsToStream", "Tags", "Map"),
        ("AddTagsToStream", "Tags.a", "String"),
        ("AddTagsToStream", "StreamName", "String"),
        ("CreateStream", "StreamName", "String"),
        ("CreateStream", "ShardCount", "Integer"),
        (
            "DecreaseStreamRetentionPeriod",
            "RetentionPeriodHours",
            "Integer",
        ),
        ("DecreaseStreamRetentionPeriod", "StreamName", "String"),
        ("DeleteStream", "StreamName", "String"),
        ("DeleteStream", "EnforceConsumerDeletion", "Boolean"),
        ("DescribeStream", "StreamName", "String"),
        ("DescribeStream", "Limit", "Integer"),
        ("DescribeStream", "ExclusiveStartShardId", "String"),
        ("DescribeStreamSummary", "StreamName", "String"),
        ("GetRecords", "Limit", "Integer"),
        ("GetRecords", "ShardIterator", "String"),
        ("GetShardIterator", "ShardId", "String"),
        ("GetShardIterator", "ShardIteratorType", "String"),
        ("GetShardIterator", "StartingSequenceNumber", "String"),
        ("GetShardIterator", "StreamName", "String"),
        ("GetShardIterator", "Timestamp", "Timestamp"),
        (
            "IncreaseStreamRetentionPeriod",
            "RetentionPeriodHours",
            "Integer",
        ),
        ("ListShards", "ExclusiveStartShardId", "String"),
        ("ListShards", "MaxResults", "Integer"),
        ("ListStreams", "Limit", "Integer"),
        ("ListStreams", "ExclusiveStartStreamName", "String"),
        ("ListTagsForStream", "Limit", "Integer"),
        ("ListTagsForStream", "ExclusiveStartTagKey", "String"),
        ("MergeShards", "AdjacentShardToMerge", "String"),
        ("MergeShards", "ShardToMerge", "String"),
        ("PutRecord", "Data", "Blob"),
        ("PutRecord", "ExplicitHashKey", "String"),
        ("PutRecord", "PartitionKey", "String"),
        ("PutRecord", "SequenceNumberForOrdering", "String"),
        ("PutRecords", "Records", "List"),
        ("PutRecords", "Records.0", "Structure"),
        ("PutRecords", "Records.0.Data", "Blob"),
        ("PutRecords", "Records.0.ExplicitHashKey", "String"),
        ("RemoveTagsFromStream", "TagKeys", "List"),
        ("RemoveTagsFromStream", "TagKeys.0", "String"),
        ("SplitShard", "NewStartingHashKey", "String"),
        ("SplitShard", "ShardToSplit", "String"),
    ];
    let mut goldens = Goldens(Vec::new());
    for (operation, member, kind) in MEMBERS {
        for (value, text) in mistyped(kind) {
            goldens.add(
                operation,
                placed(member, value),
                "SerializationException",
                text,
            );
        }
    }
    goldens.compare(&server().await).await;
}

/// A body that is nothing but the value at this place.
fn placed(place: &str, value: Value) -> Value {
    place.rsplit('.').fold(value, |inner, name| match name {
        "0" => json!([inner]),
        _ => json!({ name: inner }),
    })
}

fn mistyped(kind: &str) -> Vec<(Value, String)> {
    let article = if kind == "Blob" { "a" } else { "an" };
    let class = |class: &str| match kind {
        "Timestamp" => format!("class {class} can not be converted to milliseconds since epoch"),
        _ => format!("class {class} can not be converted to {article} {kind}"),
    };
    let number = "com.amazon.coral.value.json.numbers.TruncatingBigNumber";
    let numbers = [
        json!(23),
        json!(-2_147_483_648_i64),
        json!(2_147_483_648_i64),
        json!(34.56),
    ];
    let list = (
        json!([]),
        "Start of list found where not expected".to_owned(),
    );
    let map = (
        json!({}),
        "Start of structure or map found where not expected.".to_owned(),
    );
    let expected = match kind {
        "List" => Some("Expected list or null"),
        "Map" => Some("Expected map or null"),
        "Structure" => Some("Expected null"),
        _ => None,
    };
    let mut found = Vec::new();
    if let Some(expected) = expected {
        let others = numbers.into_iter().chain([json!(true), json!("a")]);
        found.extend(others.map(|value| (value, expected.to_owned())));
        found.push(if kind == "List" { map } else { list });
        return found;
    }
    found.extend([list, map]);
    if kind != "Boolean" {
        found.push((json!(true), class("java.lang.Boolean")));
    }
    match kind {
        "Integer" | "Timestamp" => found.push((json!("23"), class("java.lang.String"))),
        _ => found.extend(numbers.map(|value| (value, class(number)))),
    }
    let blob = |text: &str, why: &str| {
        (
            json!(text),
            format!("'{text}' can not be converted to a Blob: {why}"),
        )
    };
    match kind {
        "Boolean" => found.push((
            json!("hellowtf"),
            "'HELLOWTF' can not be converted to an Boolean".to_owned(),
        )),
        "Blob" => found.extend([
            blob(
                "23456",
                "Base64 encoded length is expected a multiple of 4 bytes but found: 5",
            ),
            blob("=+/=", "Invalid Base64 character: '='"),
            blob("+/+=", "Invalid last non-pad Base64 character dectected"),
            blob("\u{e9}\u{e9}A=", "Invalid Base64 character: '\u{e9}'"),
        ]),
        _ => {}
    }
    found
}
