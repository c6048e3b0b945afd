//! What a client sees: JSON in, JSON or AWS's error out, over an engine in memory.

use crate::api::{Answer, Api, Call, Caller, Dispatch, Encoded, Latency};
use crate::clock::ManualClock;
use crate::engine::tests::{MemoryDisk, engine_that_reads_files, engine_with};
use crate::engine::{Engine, Limits, Settings};
use crate::error::ApiError;
use millstream_wire::{ErrorCode, HashKey, HashKeyRange, Operation, hash_key};
use serde_json::{Value, json};
use std::sync::Arc;

mod clock_steps;
mod consumer;
mod realism;
mod settings;

const NOW_MS: u64 = 1_750_000_000_000;
const HOUR_MS: u64 = 3_600_000;

struct Service {
    api: Api,
    engine: Engine,
    clock: Arc<ManualClock>,
    disk: MemoryDisk,
}

impl Service {
    fn new() -> Service {
        Service::with_delay(0)
    }

    fn with_delay(state_delay_ms: u64) -> Service {
        Service::new_with(Limits::Off, state_delay_ms)
    }

    fn new_with(limits: Limits, state_delay_ms: u64) -> Service {
        let (clock, disk) = (ManualClock::at(NOW_MS), MemoryDisk::new());
        let settings = Settings {
            limits,
            state_delay_ms,
            ..Settings::default()
        };
        let engine = engine_with(&clock, &disk, settings);
        Service {
            api: Api::new(engine.clone(), Latency::default()),
            engine,
            clock,
            disk,
        }
    }

    async fn with_stream(shards: u32) -> Service {
        let service = Service::new();
        let request = json!({"StreamName": "orders", "ShardCount": shards});
        service.ok(Operation::CreateStream, request).await;
        service
    }

    async fn call(&self, operation: Operation, body: Value) -> Result<Value, ApiError> {
        Ok(
            match &self.answer(operation, body).await?.into_bytes()[..] {
                [] => Value::Null,
                json => serde_json::from_slice(json).unwrap(),
            },
        )
    }

    async fn answer(&self, operation: Operation, body: Value) -> Result<Encoded, ApiError> {
        let call = Call {
            operation,
            encoding: millstream_wire::Encoding::Json,
            body: body.to_string().into(),
            caller: Caller {
                account: "000000000000".parse().unwrap(),
                region: "us-east-1".parse().unwrap(),
            },
            request_id: crate::api::RequestId::random(),
            patience: crate::patience::Patience::default(),
        };
        let answer = self.api.dispatch(call).await?;
        let Answer::Body(body) = answer else {
            panic!("{operation} gave events");
        };
        body.encode()
    }

    async fn ok(&self, operation: Operation, body: Value) -> Value {
        self.call(operation, body).await.unwrap()
    }

    async fn refused(&self, operation: Operation, body: Value) -> (ErrorCode, String) {
        let error = self.call(operation, body).await.unwrap_err();
        (error.code, error.message)
    }

    async fn split(&self, shard: &str, key: u128) {
        let request = json!({
            "StreamName": "orders", "ShardToSplit": shard, "NewStartingHashKey": key.to_string(),
        });
        self.ok(Operation::SplitShard, request).await;
    }
}

fn ranges(answer: &Value) -> Vec<HashKeyRange> {
    let key = |shard: &Value, end: &str| -> HashKey {
        shard["HashKeyRange"][end]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    };
    let shards = answer["Shards"].as_array().unwrap();
    shards
        .iter()
        .map(|shard| HashKeyRange {
            start: key(shard, "StartingHashKey"),
            end: key(shard, "EndingHashKey"),
        })
        .collect()
}

/// A child's sequence numbers begin a second or more after its parent's end, but it is there at once:
/// at every time since the creation the listed shards cover every hash key once.
#[tokio::test]
async fn s4_shards_listed_at_a_time_tile_the_space() {
    let service = Service::with_stream(1).await;
    service.clock.advance_ms(10_500);
    let split_ms = NOW_MS + 10_500;
    service.split("0", 1 << 127).await;
    service.split("1", 1 << 100).await;
    let list = |filter: Value| {
        let request = json!({"StreamName": "orders", "ShardFilter": filter});
        service.ok(Operation::ListShards, request)
    };
    for at_ms in [
        NOW_MS - HOUR_MS,
        NOW_MS,
        split_ms - 1,
        split_ms,
        split_ms + 400,
        split_ms + 2_000,
        split_ms + 5_000,
    ] {
        #[allow(clippy::cast_precision_loss)]
        let seconds = at_ms as f64 / 1_000.0;
        let listed = list(json!({"Type": "AT_TIMESTAMP", "Timestamp": seconds})).await;
        assert!(hash_key::tiles(&ranges(&listed)), "{at_ms}: {listed}");
    }
    for step_ms in [24 * HOUR_MS - 1, 1, 1, 500, 5_000] {
        service.clock.advance_ms(step_ms);
        service.engine.sweep().await.unwrap();
        let listed = list(json!({"Type": "AT_TRIM_HORIZON"})).await;
        assert!(hash_key::tiles(&ranges(&listed)), "{step_ms}: {listed}");
    }
}

/// Model: "If you specify a value greater than 100, at most 100 results are returned."
#[tokio::test]
async fn describe_stream_and_list_streams_give_a_hundred_at_most() {
    let service = Service::with_stream(150).await;
    let request = json!({"StreamName": "orders", "Limit": 10_000});
    let described = service.ok(Operation::DescribeStream, request).await;
    let description = &described["StreamDescription"];
    assert_eq!(description["Shards"].as_array().unwrap().len(), 100);
    assert_eq!(description["HasMoreShards"], json!(true));
    for n in 0..101 {
        let request = json!({"StreamName": format!("s{n}"), "ShardCount": 1});
        service.ok(Operation::CreateStream, request).await;
    }
    let listed = service
        .ok(Operation::ListStreams, json!({"Limit": 10_000}))
        .await;
    assert_eq!(listed["StreamNames"].as_array().unwrap().len(), 100);
    assert_eq!(listed["HasMoreStreams"], json!(true));
}

#[tokio::test]
async fn tags_have_the_characters_that_aws_takes() {
    const CHARACTERS: &str = "Some tags contain invalid characters. Valid characters: Unicode letters, \
                              digits, white space, _ . / = + - % @ :.";
    let service = Service::with_stream(1).await;
    let add = |tags: Value| {
        let request = json!({"StreamName": "orders", "Tags": tags});
        service.call(Operation::AddTagsToStream, request)
    };
    for tags in [
        json!({"a;b": "c"}),
        json!({"a": "ü ☃"}),
        json!({"\u{1f600}": ""}),
    ] {
        let error = add(tags).await.unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (ErrorCode::InvalidArgument, CHARACTERS)
        );
    }
    let error = add(json!({"a": "100%"})).await.unwrap_err();
    assert_eq!(
        error.message,
        "Failed to add tags to stream orders under account 000000000000 because some tags contained \
         illegal characters. The allowed characters are Unicode letters, white-spaces, \
         '_',',','/','=','+','-','@',':'."
    );
    let error = add(json!({"aws:owner": "me"})).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArgument);
    add(json!({"Team 1_.:/=+-@ü東": "ok"})).await.unwrap();
    let remove = json!({"StreamName": "orders", "TagKeys": ["a%"]});
    let (code, message) = service
        .refused(Operation::RemoveTagsFromStream, remove)
        .await;
    assert_eq!(code, ErrorCode::InvalidArgument);
    assert!(
        message.starts_with("Failed to remove tags from stream orders"),
        "{message}"
    );
    let create = json!({"StreamName": "other", "ShardCount": 1, "Tags": {"a;b": ""}});
    let (_, message) = service.refused(Operation::CreateStream, create).await;
    assert_eq!(message, CHARACTERS);
}

#[tokio::test]
async fn shard_iterators_are_refused_in_the_words_of_aws() {
    let service = Service::with_stream(2).await;
    let iterator = |stream: &str, shard: &str, sequence: &str| {
        let request = json!({
            "StreamName": stream, "ShardId": shard, "ShardIteratorType": "AT_SEQUENCE_NUMBER",
            "StartingSequenceNumber": sequence,
        });
        service.refused(Operation::GetShardIterator, request)
    };
    assert_eq!(
        iterator("orders", "shardId-x", "0").await,
        (
            ErrorCode::ResourceNotFound,
            "Could not find shard shardId-x in stream orders under account 000000000000."
                .to_owned()
        )
    );
    for (stream, shard) in [("orders", "9"), ("absent", "shardId-000000000009")] {
        assert_eq!(
            iterator(stream, shard, "0").await,
            (
                ErrorCode::ResourceNotFound,
                format!(
                    "Shard shardId-000000000009 in stream {stream} under account 000000000000 does \
                     not exist"
                )
            )
        );
    }
    let shards = json!({"StreamName": "orders"});
    let listed = service.ok(Operation::ListShards, shards).await;
    let sequence = listed["Shards"][1]["SequenceNumberRange"]["StartingSequenceNumber"]
        .as_str()
        .unwrap();
    assert_eq!(
        iterator("orders", "0", sequence).await,
        (
            ErrorCode::InvalidArgument,
            "Invalid StartingSequenceNumber. It encodes shardId-000000000001, while it was used in a \
             call to a shard with shardId-000000000000"
                .to_owned()
        )
    );
}

#[tokio::test]
async fn reshards_are_refused_in_the_words_of_aws() {
    let service = Service::with_stream(1).await;
    let too_large = "340282366920938463463374607431768211456";
    let split = json!({
        "StreamName": "orders", "ShardToSplit": "0", "NewStartingHashKey": too_large,
    });
    let (_, message) = service.refused(Operation::SplitShard, split).await;
    assert_eq!(
        message,
        format!(
            "NewStartingHashKey {too_large} used in SplitShard() on shard shardId-000000000000 in \
             stream orders under account 000000000000 is not both greater than one plus the shard's \
             StartingHashKey 0 and less than the shard's EndingHashKey \
             340282366920938463463374607431768211455."
        )
    );
    service.split("0", 1 << 127).await;
    let merge = json!({"StreamName": "orders", "ShardToMerge": "1", "AdjacentShardToMerge": "2"});
    service.ok(Operation::MergeShards, merge.clone()).await;
    let (code, message) = service.refused(Operation::MergeShards, merge).await;
    assert_eq!(
        (code, message.as_str()),
        (
            ErrorCode::InvalidArgument,
            "Shards shardId-000000000001 and shardId-000000000002 in stream orders under account \
             000000000000 are not an adjacent pair of shards eligible for merging"
        )
    );
}

/// API reference, `PutRecordsResultEntry`: a record's code is one of two.
#[tokio::test]
async fn a_record_that_failed_has_one_of_two_codes() {
    let service = Service::with_stream(1).await;
    service.disk.fail_syncs(Some(std::io::ErrorKind::Other));
    let request = json!({
        "StreamName": "orders", "Records": [{"PartitionKey": "a", "Data": "YQ=="}],
    });
    for _ in 0..2 {
        let answer = service.ok(Operation::PutRecords, request.clone()).await;
        assert_eq!(answer["FailedRecordCount"], json!(1));
        assert_eq!(
            answer["Records"][0]["ErrorCode"],
            json!("InternalFailure"),
            "{answer}"
        );
        assert_ne!(answer["Records"][0]["ErrorMessage"], json!(""));
    }
}

/// An iterator of a stream that was deleted, recreated or not, says that its shard is gone.
#[tokio::test]
async fn an_iterator_outlives_its_stream() {
    for name in ["orders".to_owned(), "n".repeat(128)] {
        let service = Service::new();
        let stream = json!({"StreamName": name, "ShardCount": 1});
        service.ok(Operation::CreateStream, stream.clone()).await;
        let request = json!({
            "StreamName": name, "ShardId": "0", "ShardIteratorType": "LATEST",
        });
        let token = service.ok(Operation::GetShardIterator, request).await["ShardIterator"].clone();
        let read = json!({"ShardIterator": token});
        service.ok(Operation::GetRecords, read.clone()).await;
        let gone = (
            ErrorCode::ResourceNotFound,
            format!(
                "Shard shardId-000000000000 in stream {name} under account 000000000000 does not exist"
            ),
        );
        let delete = json!({"StreamName": name});
        service.ok(Operation::DeleteStream, delete).await;
        assert_eq!(
            service.refused(Operation::GetRecords, read.clone()).await,
            gone
        );
        service.ok(Operation::CreateStream, stream).await;
        assert_eq!(service.refused(Operation::GetRecords, read).await, gone);
    }
}

/// A stream shows its shards once it is ACTIVE.
#[tokio::test]
async fn a_stream_that_is_created_has_no_shards_yet() {
    let service = Service::with_delay(500);
    let create = json!({"StreamName": "orders", "ShardCount": 2});
    service.ok(Operation::CreateStream, create).await;
    for (status, shards) in [("CREATING", 0), ("ACTIVE", 2)] {
        let stream = json!({"StreamName": "orders"});
        let described = service.ok(Operation::DescribeStream, stream.clone()).await;
        let description = &described["StreamDescription"];
        assert_eq!(description["StreamStatus"], json!(status));
        assert_eq!(description["Shards"].as_array().unwrap().len(), shards);
        let summary = service
            .ok(Operation::DescribeStreamSummary, stream.clone())
            .await;
        assert_eq!(
            summary["StreamDescriptionSummary"]["OpenShardCount"],
            json!(shards)
        );
        let listed = service.call(Operation::ListShards, stream).await;
        match listed {
            Ok(listed) => assert_eq!(listed["Shards"].as_array().unwrap().len(), shards),
            Err(error) => assert_eq!((error.code, shards), (ErrorCode::ResourceInUse, 0)),
        }
        let iterator = json!({
            "StreamName": "orders", "ShardId": "0", "ShardIteratorType": "LATEST",
        });
        let minted = service.call(Operation::GetShardIterator, iterator).await;
        assert_eq!(minted.is_ok(), shards > 0, "{minted:?}");
        service.clock.advance_ms(500);
    }
}

/// Tags and policies change once the stream is ACTIVE.
#[tokio::test]
async fn a_stream_that_is_created_is_not_tagged_yet() {
    let service = Service::with_delay(500);
    let create = json!({"StreamName": "orders", "ShardCount": 1});
    service.ok(Operation::CreateStream, create).await;
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";
    let policy = json!({"ResourceARN": arn, "Policy": "{\"Statement\":[]}"});
    let changes = [
        (
            Operation::AddTagsToStream,
            json!({"StreamName": "orders", "Tags": {"a": "b"}}),
        ),
        (
            Operation::RemoveTagsFromStream,
            json!({"StreamName": "orders", "TagKeys": ["a"]}),
        ),
        (Operation::PutResourcePolicy, policy),
    ];
    let message = "Stream orders under account 000000000000 not ACTIVE, instead in state CREATING";
    let refused = (ErrorCode::ResourceInUse, message.to_owned());
    for (operation, request) in &changes {
        assert_eq!(service.refused(*operation, request.clone()).await, refused);
    }
    service.clock.advance_ms(500);
    for (operation, request) in changes {
        service.ok(operation, request).await;
    }
}

/// Five streams may be CREATING or DELETING at a time.
#[tokio::test]
async fn few_streams_come_and_go_at_a_time() {
    let service = Service::new_with(Limits::Aws, 10_000);
    let named = |n: usize| json!({"StreamName": format!("s{n}"), "ShardCount": 1});
    service.ok(Operation::CreateStream, named(0)).await;
    service.clock.advance_ms(10_000);
    for n in 1..=5 {
        service.ok(Operation::CreateStream, named(n)).await;
        // No faster than calls may come.
        service.clock.advance_ms(1_000);
    }
    let message = "This request would have exceed the limit on the number  of streams that can \
        simultaneously be in CREATING or DELETING for the account 000000000000. Limit: 5.";
    let refused = (ErrorCode::LimitExceeded, message.to_owned());
    assert_eq!(
        service.refused(Operation::CreateStream, named(6)).await,
        refused
    );
    let delete = |n: usize| json!({"StreamName": format!("s{n}")});
    assert_eq!(
        service.refused(Operation::DeleteStream, delete(0)).await,
        refused
    );
    // One that counts already does not count twice.
    service.ok(Operation::DeleteStream, delete(5)).await;
    service.clock.advance_ms(5_000);
    service.ok(Operation::DeleteStream, delete(0)).await;
}

/// A page token of ListStreams lives for 300 seconds.
#[tokio::test]
async fn a_page_of_streams_expires() {
    let service = Service::with_stream(1).await;
    let other = json!({"StreamName": "returns", "ShardCount": 1});
    service.ok(Operation::CreateStream, other).await;
    let listed = service
        .ok(Operation::ListStreams, json!({"Limit": 1}))
        .await;
    let next = json!({"NextToken": listed["NextToken"]});
    service.clock.advance_ms(300_000);
    let page = service.ok(Operation::ListStreams, next.clone()).await;
    assert_eq!(page["StreamNames"], json!(["returns"]));
    service.clock.advance_ms(1);
    let (code, _) = service.refused(Operation::ListStreams, next).await;
    assert_eq!(code, ErrorCode::ExpiredNextToken);
}

/// A full disk is told from full memory.
#[tokio::test]
async fn a_full_disk_is_named() {
    let service = Service::with_stream(1).await;
    let data = "A".repeat(1_000_000);
    let put = json!({"StreamName": "orders", "PartitionKey": "a", "Data": data});
    service.disk.set_capacity(Some(4 << 20));
    let error = loop {
        if let Err(error) = service.call(Operation::PutRecord, put.clone()).await {
            break error;
        }
    };
    assert_eq!(error, ApiError::no_space());
}

/// S9: an answer that is left where it is has a share of its own, and keeps nobody from reading what it was made of.
/// Method: answers of 2 MB that nobody takes, from files, with room for one read at a time.
#[tokio::test]
async fn s9_answers_that_wait_keep_nobody_from_reading() {
    let (clock, disk) = (ManualClock::at(NOW_MS), MemoryDisk::new());
    let settings = Settings {
        limits: Limits::Off,
        ..Settings::default()
    };
    let engine = engine_that_reads_files(&clock, &disk, settings, 3_000_000);
    let service = Service {
        api: Api::new(engine.clone(), Latency::default()),
        engine,
        clock,
        disk,
    };
    let create = json!({"StreamName": "orders", "ShardCount": 1});
    service.ok(Operation::CreateStream, create).await;
    for n in 0..4 {
        let data = millstream_wire::b64::encode(&vec![n; 500_000]);
        let put = json!({"StreamName": "orders", "PartitionKey": "a", "Data": data});
        service.ok(Operation::PutRecord, put).await;
    }
    let from = json!({"StreamName": "orders", "ShardId": "0", "ShardIteratorType": "TRIM_HORIZON"});
    let iterator = service.ok(Operation::GetShardIterator, from).await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let read = json!({"ShardIterator": iterator["ShardIterator"]});
        let answer = service.answer(Operation::GetRecords, read).await;
        waiting.push(answer.unwrap());
    }
    for answer in waiting {
        let page: Value = serde_json::from_slice(&answer.into_bytes()).unwrap();
        assert_eq!(page["Records"].as_array().unwrap().len(), 4);
    }
}
