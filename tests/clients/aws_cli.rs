//! The AWS command line, as a user types it.

use crate::{SERVER, python, shown};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use support::ServerProcess;
use support::client::decode_base64;
use support::process::Ended;

struct Aws {
    program: PathBuf,
    endpoint: String,
}

impl Aws {
    async fn run(&self, command: &str) -> Ended {
        let mut arguments = vec![
            "--endpoint-url",
            &self.endpoint,
            "--output",
            "json",
            "kinesis",
        ];
        arguments.extend(command.split_whitespace());
        let environment = [
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_MAX_ATTEMPTS", "1"),
            ("AWS_PAGER", ""),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ];
        python::run(
            &self.program,
            &arguments,
            &environment,
            Duration::from_mins(1),
        )
        .await
    }

    /// Runs a command that must succeed; what it printed, as JSON.
    async fn must(&self, command: &str) -> Value {
        let ended = self.run(command).await;
        assert_eq!(
            ended.code,
            Some(0),
            "aws kinesis {command}: {}{}",
            ended.stdout,
            ended.stderr
        );
        match ended.stdout.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}")),
        }
    }
}

/// A stream from its creation to its end by command: records in and out, shards page by page, tags, waiting.
#[tokio::test(flavor = "multi_thread")]
async fn aws_cli_runs_the_life_of_a_stream() {
    let server = ServerProcess::start(SERVER).await;
    let aws = Aws {
        program: python::program("aws").await,
        endpoint: server.url(),
    };

    aws.must("create-stream --stream-name orders --shard-count 5")
        .await;
    aws.must("wait stream-exists --stream-name orders").await;
    let summary = aws
        .must("describe-stream-summary --stream-name orders")
        .await;
    let summary = &summary["StreamDescriptionSummary"];
    assert_eq!(summary["StreamName"], "orders");
    assert_eq!(summary["StreamStatus"], "ACTIVE");
    assert_eq!(summary["OpenShardCount"], 5);
    assert_eq!(
        summary["StreamARN"],
        "arn:aws:kinesis:us-east-1:000000000000:stream/orders"
    );

    shards_page_by_page(&aws, 5).await;
    records_in_and_out(&aws).await;
    tags(&aws).await;

    aws.must("split-shard --stream-name orders --shard-to-split shardId-000000000000 --new-starting-hash-key 7").await;
    aws.must("wait stream-exists --stream-name orders").await;
    shards_page_by_page(&aws, 7).await;

    let refused = aws
        .run("describe-stream-summary --stream-name nobody")
        .await;
    assert_ne!(refused.code, Some(0));
    assert!(
        refused.stderr.contains("ResourceNotFoundException"),
        "{}",
        refused.stderr
    );

    aws.must("delete-stream --stream-name orders").await;
    aws.must("wait stream-not-exists --stream-name orders")
        .await;
    assert_eq!(aws.must("list-streams").await["StreamNames"], json!([]));
    shown::works(
        "AWS CLI 1",
        &python::version(python::Environment::Clients, "awscli").await,
        "the life of a stream as one types it: shards page by page, records in and out, tags",
    );
}

/// Both operations that list shards, two a page: by token, and by the last shard seen.
async fn shards_page_by_page(aws: &Aws, count: usize) {
    let expected: Vec<Value> = (0..count)
        .map(|n| json!(format!("shardId-{n:012}")))
        .collect();
    let mut listed = Vec::new();
    // `--page-size` would send name and token together, which AWS refuses.
    let mut command = "list-shards --stream-name orders --max-results 2".to_owned();
    loop {
        let page = aws.must(&command).await;
        let shards = page["Shards"].as_array().unwrap();
        assert!(shards.len() <= 2, "{page}");
        listed.extend(shards.iter().map(|shard| shard["ShardId"].clone()));
        match page["NextToken"].as_str() {
            Some(token) => command = format!("list-shards --max-results 2 --next-token {token}"),
            None => break,
        }
    }
    assert_eq!(listed, expected);
    let all = aws
        .must("describe-stream --stream-name orders --page-size 2")
        .await;
    let shards = all["StreamDescription"]["Shards"].as_array().unwrap();
    let described: Vec<Value> = shards
        .iter()
        .map(|shard| shard["ShardId"].clone())
        .collect();
    assert_eq!(described, expected);
}

async fn records_in_and_out(aws: &Aws) {
    // Version 1 of the command takes the bytes as they are, and prints Base64.
    let put = "put-record --stream-name orders --partition-key customer-1 --data first-order";
    let first = aws.must(put).await;
    let shard = first["ShardId"].as_str().unwrap();
    let second = aws.must(put).await;
    let iterator = aws
        .must(&format!(
            "get-shard-iterator --stream-name orders --shard-id {shard} --shard-iterator-type TRIM_HORIZON"
        ))
        .await;
    let iterator = iterator["ShardIterator"].as_str().unwrap();
    let page = aws
        .must(&format!("get-records --shard-iterator {iterator}"))
        .await;
    let records = page["Records"].as_array().unwrap();
    let numbers: Vec<&Value> = records
        .iter()
        .map(|record| &record["SequenceNumber"])
        .collect();
    assert_eq!(
        numbers,
        [&first["SequenceNumber"], &second["SequenceNumber"]]
    );
    for record in records {
        assert_eq!(record["PartitionKey"], "customer-1");
        assert_eq!(
            decode_base64(record["Data"].as_str().unwrap()),
            b"first-order"
        );
    }
    let next = page["NextShardIterator"].as_str().unwrap();
    let rest = aws
        .must(&format!("get-records --shard-iterator {next}"))
        .await;
    assert_eq!(rest["Records"], json!([]));
}

async fn tags(aws: &Aws) {
    aws.must("add-tags-to-stream --stream-name orders --tags team=billing,stage=test")
        .await;
    let tags = aws.must("list-tags-for-stream --stream-name orders").await;
    let expected = json!([{"Key": "stage", "Value": "test"}, {"Key": "team", "Value": "billing"}]);
    let mut listed = tags["Tags"].as_array().unwrap().clone();
    listed.sort_by_key(|tag| tag["Key"].as_str().unwrap().to_owned());
    assert_eq!(json!(listed), expected);
    aws.must("remove-tags-from-stream --stream-name orders --tag-keys stage")
        .await;
    let tags = aws.must("list-tags-for-stream --stream-name orders").await;
    assert_eq!(tags["Tags"], json!([{"Key": "team", "Value": "billing"}]));
}
