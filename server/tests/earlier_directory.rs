//! Data directories that earlier versions of the server left are opened as they were left: streams, shards, consumers, settings and records. Each
//! version keeps one in `fixtures/server-VERSION`, made once, by `MILLSTREAM_BLESS=1` where it is missing, and never changed. The log's own
//! formats, damage and all, have their directories in `fixtures/log-*`.

#![allow(clippy::unwrap_used, reason = "in helpers of tests, too")]

mod by_http;

use by_http::must;
use millstream_server::clock::ManualClock;
use millstream_server::log::LogConfig;
use millstream_server::{Config, DataLocation, Limits, Server};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// When the directories were left, by their clock.
const LEFT_AT_MS: u64 = 1_780_000_000_000;
/// What a server said when it left its directory, beside that.
const SAID: &str = "said.json";
/// What goes into the directory that is kept; the lock and the key are not of the data.
const KEPT: [&str; 2] = ["FORMAT", ".segment"];
/// So small that there are sealed and rewritten segments, too.
const SEGMENT_BYTES: u64 = 64 << 10;
const ACCOUNT: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/";
/// What is asked before and after; of what is answered nothing depends on when.
const QUESTIONS: [(&str, &str); 9] = [
    ("ListStreams", "{}"),
    ("DescribeStreamSummary", r#"{"StreamName":"orders"}"#),
    ("ListShards", r#"{"StreamName":"orders"}"#),
    ("ListTagsForStream", r#"{"StreamName":"orders"}"#),
    ("DescribeStreamSummary", r#"{"StreamName":"on-demand"}"#),
    ("ListShards", r#"{"StreamName":"on-demand"}"#),
    ("DescribeStream", r#"{"StreamName":"large"}"#),
    (
        "ListStreamConsumers",
        r#"{"StreamARN":"arn:aws:kinesis:us-east-1:000000000000:stream/orders"}"#,
    ),
    (
        "GetResourcePolicy",
        r#"{"ResourceARN":"arn:aws:kinesis:us-east-1:000000000000:stream/orders"}"#,
    ),
];

struct Served {
    server: Server,
    http: reqwest::Client,
}

impl Served {
    async fn start(data: &Path) -> Served {
        let config = Config {
            port: 0,
            data: DataLocation::Directory(data.to_owned()),
            limits: Limits::Off,
            log: LogConfig {
                segment_bytes: SEGMENT_BYTES,
                rewrite_bytes_per_second: 0,
                ..LogConfig::default()
            },
            ..Config::default()
        };
        let clock = ManualClock::at(LEFT_AT_MS);
        let server = Server::start_with_clock(config, Arc::clone(&clock) as _).await;
        Served {
            server: server.unwrap(),
            http: reqwest::Client::new(),
        }
    }

    async fn call(&self, operation: &str, input: &str) -> Value {
        must(&self.http, self.server.url(), (operation, input.to_owned())).await
    }

    async fn must(&self, operation: &str, input: Value) -> Value {
        self.call(operation, &input.to_string()).await
    }

    /// Leaves something of everything: streams of all kinds, one of them resharded, settings, consumers, a stream that was deleted, and more records
    /// than a segment holds.
    async fn fill(&self) {
        let orders = format!("{ACCOUNT}orders");
        self.must(
            "CreateStream",
            json!({"StreamName": "orders", "ShardCount": 2}),
        )
        .await;
        let on_demand =
            json!({"StreamName": "on-demand", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}});
        self.must("CreateStream", on_demand).await;
        let large = json!({"StreamName": "large", "ShardCount": 1, "MaxRecordSizeInKiB": 2048});
        self.must("CreateStream", large).await;
        self.must(
            "CreateStream",
            json!({"StreamName": "gone", "ShardCount": 1}),
        )
        .await;
        self.put("gone", 0..3).await;
        self.put("orders", 0..200).await;
        let split = json!({"StreamName": "orders", "ShardToSplit": "shardId-000000000000",
            "NewStartingHashKey": "85070591730234615865843651857942052864"});
        self.must("SplitShard", split).await;
        let merge = json!({"StreamName": "orders", "ShardToMerge": "shardId-000000000003",
            "AdjacentShardToMerge": "shardId-000000000001"});
        self.must("MergeShards", merge).await;
        self.put("orders", 200..300).await;
        self.put("on-demand", 0..20).await;
        self.put("large", 0..5).await;
        self.must("DeleteStream", json!({"StreamName": "gone"}))
            .await;
        let tags = json!({"StreamName": "orders", "Tags": {"team": "a", "cost": "1 2"}});
        self.must("AddTagsToStream", tags).await;
        let hours = json!({"StreamName": "orders", "RetentionPeriodHours": 48});
        self.must("IncreaseStreamRetentionPeriod", hours).await;
        let key =
            json!({"StreamName": "orders", "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"});
        self.must("StartStreamEncryption", key).await;
        let levels = json!({"StreamName": "orders", "ShardLevelMetrics": ["IncomingBytes"]});
        self.must("EnableEnhancedMonitoring", levels).await;
        for name in ["first", "second"] {
            let consumer = json!({"StreamARN": orders, "ConsumerName": name});
            self.must("RegisterStreamConsumer", consumer).await;
        }
        let policy = json!({"ResourceARN": orders, "Policy": "{\"Version\":\"2012-10-17\",\"Statement\":[]}"});
        self.must("PutResourcePolicy", policy).await;
        // Rewritten where that pays.
        self.server.engine().sweep().await.unwrap();
        self.server.engine().rewrite().await.unwrap();
        self.put("orders", 300..320).await;
    }

    async fn put(&self, stream: &str, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let data = format!("{number:0400}");
            let record = json!({"StreamName": stream, "PartitionKey": format!("key-{}", number % 17), "Data": data});
            self.must("PutRecord", record).await;
        }
    }

    /// The answers to all questions, and all records.
    async fn said(&self) -> Value {
        let mut said = Map::new();
        for (operation, input) in QUESTIONS {
            said.insert(
                format!("{operation} {input}"),
                self.call(operation, input).await,
            );
        }
        for stream in ["orders", "on-demand", "large"] {
            let listed = self.must("ListShards", json!({"StreamName": stream})).await;
            for shard in listed["Shards"].as_array().unwrap() {
                let id = shard["ShardId"].as_str().unwrap();
                said.insert(
                    format!("records {stream} {id}"),
                    self.records(stream, id).await,
                );
            }
        }
        Value::Object(said)
    }

    async fn records(&self, stream: &str, shard: &str) -> Value {
        let horizon =
            json!({"StreamName": stream, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"});
        let mut at = self.must("GetShardIterator", horizon).await["ShardIterator"].take();
        let mut records = Vec::new();
        while at.is_string() {
            let mut page = self.must("GetRecords", json!({"ShardIterator": at})).await;
            let found = page["Records"].as_array_mut().unwrap();
            if found.is_empty() && page["MillisBehindLatest"] == 0 {
                break;
            }
            records.append(page["Records"].as_array_mut().unwrap());
            at = page["NextShardIterator"].take();
        }
        records.into()
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if KEPT.iter().any(|end| name.ends_with(end)) {
            fs::copy(from.join(&name), to.join(&name)).unwrap();
        }
    }
}

/// Makes the directory of this version, where there is none.
async fn keep_one(kept: &Path) {
    let data = tempfile::tempdir().unwrap();
    let served = Served::start(data.path()).await;
    served.fill().await;
    let said = served.said().await;
    served.server.shutdown().await;
    copy(data.path(), kept);
    let said = serde_json::to_string(&said).unwrap();
    fs::write(kept.join(SAID), said + "\n").unwrap();
}

/// Whether an answer has all that was said before; later versions may say more.
fn holds(now: &Value, before: &Value) -> Result<(), String> {
    match (now, before) {
        (Value::Object(now), Value::Object(before)) => {
            before.iter().try_for_each(|(name, value)| {
                let found = now.get(name).unwrap_or(&Value::Null);
                holds(found, value).map_err(|at| format!("{name}: {at}"))
            })
        }
        (Value::Array(now), Value::Array(before)) if now.len() == before.len() => {
            let mut pairs = now.iter().zip(before);
            pairs.try_for_each(|(now, before)| holds(now, before))
        }
        _ if now == before => Ok(()),
        _ => Err(format!("{now} instead of {before}")),
    }
}

/// Goal: what a version acknowledged, later ones have. Method: directories that were left are copied and served; everything is asked again.
#[tokio::test]
async fn s8_a_directory_that_an_earlier_version_left_is_opened_as_it_was() {
    let own = fixtures().join(concat!("server-", env!("CARGO_PKG_VERSION")));
    if !own.exists() && std::env::var_os("MILLSTREAM_BLESS").is_some() {
        keep_one(&own).await;
    }
    assert!(
        own.exists(),
        "{}: this version keeps no data directory yet; run this test with MILLSTREAM_BLESS=1 and commit what it makes",
        own.display()
    );
    let mut opened = 0;
    for entry in fs::read_dir(fixtures()).unwrap() {
        let kept = entry.unwrap().path();
        let Ok(said) = fs::read_to_string(kept.join(SAID)) else {
            continue;
        };
        let said: Value = serde_json::from_str(&said).unwrap();
        let data = tempfile::tempdir().unwrap();
        copy(&kept, data.path());
        let served = Served::start(data.path()).await;
        let now = served.said().await;
        for (question, answer) in said.as_object().unwrap() {
            holds(&now[question], answer)
                .unwrap_or_else(|at| panic!("{} {question}: {at}", kept.display()));
        }
        // It goes on: new numbers are above those that were given out.
        let last = |records: &Value| {
            let records = records.as_array().unwrap();
            let last = records.last().unwrap()["SequenceNumber"].as_str();
            // All are of the same length.
            last.unwrap().to_owned()
        };
        let before = last(&served.records("large", "shardId-000000000000").await);
        served.put("large", 5..6).await;
        assert!(last(&served.records("large", "shardId-000000000000").await) > before);
        served.server.shutdown().await;
        let report = millstream_server::offline::check(data.path()).unwrap();
        assert!(report.sound, "{report:?}");
        opened += 1;
    }
    assert!(opened > 0);
}
