//! What makes a server as inconvenient as the real one: rates of calls, faults that are asked for.

use super::Service;
use crate::api::{Answer, Api, Call, Caller, Dispatch, Latency};
use crate::clock::ManualClock;
use crate::engine::tests::{MemoryDisk, NOW_MS, engine_with};
use crate::engine::{Limits, Probability, Settings};
use millstream_wire::{Encoding, ErrorCode, Operation};
use serde_json::{Value, json};
use std::sync::Arc;

fn service(settings: Settings) -> Service {
    let (clock, disk) = (ManualClock::at(NOW_MS), MemoryDisk::new());
    let engine = engine_with(&clock, &disk, settings);
    Service {
        api: Api::new(engine.clone(), Latency::default()),
        engine,
        clock,
        disk,
    }
}

/// How many calls are answered before the first that is refused, and how that is.
async fn until_refused(
    service: &Service,
    operation: Operation,
    body: &Value,
) -> (usize, ErrorCode, String) {
    for answered in 0..2_000 {
        if let Err(error) = service.call(operation, body.clone()).await {
            return (answered, error.code, error.message);
        }
    }
    panic!("{operation} was never refused");
}

async fn aws_with_stream() -> Service {
    let service = service(Settings::default());
    let stream = json!({"StreamName": "orders", "ShardCount": 1});
    service.ok(Operation::CreateStream, stream).await;
    service.clock.advance_ms(1_000);
    service
}

#[tokio::test]
async fn accounts_and_streams_have_rates_of_calls() {
    let service = aws_with_stream().await;
    let (none, stream) = (json!({}), json!({"StreamName": "orders"}));
    let arn = json!({"StreamARN": "arn:aws:kinesis:us-east-1:000000000000:stream/orders"});
    let of_account =
        |operation| format!("Rate exceeded for {operation} under account 000000000000.");
    for (operation, body, rate) in [
        (Operation::DescribeLimits, &none, 1),
        (Operation::ListStreams, &none, 5),
        (Operation::ListTagsForStream, &stream, 5),
        (Operation::DescribeStream, &stream, 10),
        (Operation::DescribeStreamSummary, &stream, 20),
    ] {
        let refused = until_refused(&service, operation, body).await;
        let expected = (rate, ErrorCode::LimitExceeded, of_account(operation));
        assert_eq!(refused, expected);
        // A second later there is as much again.
        service.clock.advance_ms(1_000);
        assert_eq!(until_refused(&service, operation, body).await.0, rate);
    }
    let of_stream = "Rate exceeded for stream orders under account 000000000000.".to_owned();
    for (operation, body, rate) in [
        (Operation::ListStreamConsumers, &arn, 5),
        (Operation::ListShards, &stream, 1_000),
    ] {
        let refused = until_refused(&service, operation, body).await;
        assert_eq!(refused, (rate, ErrorCode::LimitExceeded, of_stream.clone()));
    }
}

#[tokio::test]
async fn an_invalid_call_counts_for_nothing() {
    let service = aws_with_stream().await;
    for _ in 0..10 {
        let (code, _) = service
            .refused(Operation::ListStreams, json!({"Limit": 0}))
            .await;
        assert_eq!(code, ErrorCode::Validation);
    }
    let refused = until_refused(&service, Operation::ListStreams, &json!({})).await;
    assert_eq!(refused.0, 5);
}

#[tokio::test]
async fn a_shard_has_rates_of_reads_and_iterators() {
    let service = aws_with_stream().await;
    let iterator = json!({
        "StreamName": "orders", "ShardId": "0", "ShardIteratorType": "LATEST",
    });
    let minted = service
        .ok(Operation::GetShardIterator, iterator.clone())
        .await;
    let read = json!({"ShardIterator": minted["ShardIterator"]});
    let message = "Rate exceeded for shard shardId-000000000000 in stream orders under account \
                   000000000000.";
    for (operation, body, left) in [
        (Operation::GetShardIterator, iterator, 4),
        (Operation::GetRecords, read, 5),
    ] {
        let (answered, code, text) = until_refused(&service, operation, &body).await;
        assert_eq!((answered, text.as_str()), (left, message), "{operation}");
        assert_eq!(code, ErrorCode::ProvisionedThroughputExceeded);
    }
}

async fn put(service: &Service, records: usize) -> Result<Value, crate::error::ApiError> {
    let record = |n| json!({"Data": "eA==", "PartitionKey": format!("{n}")});
    let records: Vec<Value> = (0..records).map(record).collect();
    let body = json!({"StreamName": "orders", "Records": records});
    service.call(Operation::PutRecords, body).await
}

/// Records that are refused are told, those that are not are stored: nothing is lost between.
#[tokio::test]
async fn faults_refuse_a_share_of_the_calls_and_nothing_else() {
    let service = service(Settings {
        limits: Limits::Off,
        error_probability: Probability::new(0.3).unwrap(),
        ..Settings::default()
    });
    let stream = json!({"StreamName": "orders", "ShardCount": 2});
    service.ok(Operation::CreateStream, stream).await;
    let (mut whole, mut stored) = (0, 0);
    for _ in 0..300 {
        let answer = put(&service, 10).await.unwrap();
        let records = answer["Records"].as_array().unwrap();
        let refused =
            |record: &&Value| record["ErrorCode"] == "ProvisionedThroughputExceededException";
        let refused = records.iter().filter(refused).count();
        assert_eq!(answer["FailedRecordCount"], json!(refused));
        whole += usize::from(refused == 0);
        stored += records.len() - refused;
    }
    // Both shards of a request are spared in about half of all cases.
    assert!(
        (90..210).contains(&whole),
        "{whole} of 300 were taken whole"
    );
    let mut read = 0;
    for shard in ["0", "1"] {
        let start = json!({
            "StreamName": "orders", "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON",
        });
        let (mut minted, mut answer) = (None, None);
        for _ in 0..1_000 {
            if minted.is_none() {
                minted = service
                    .call(Operation::GetShardIterator, start.clone())
                    .await
                    .ok();
            } else if let Some(minted) = &minted {
                let body = json!({"ShardIterator": minted["ShardIterator"]});
                answer = service.call(Operation::GetRecords, body).await.ok();
            }
            if answer.is_some() {
                break;
            }
        }
        read += answer.unwrap()["Records"].as_array().unwrap().len();
    }
    assert_eq!(read, stored);
}

#[tokio::test(start_paused = true)]
async fn latency_comes_before_the_call() {
    let plain = service(Settings::default());
    let slow = Service {
        api: Api::new(plain.engine.clone(), Latency::new(200, 200).unwrap()),
        engine: plain.engine.clone(),
        clock: Arc::clone(&plain.clock),
        disk: plain.disk.clone(),
    };
    let begun = tokio::time::Instant::now();
    slow.ok(Operation::ListStreams, json!({})).await;
    assert!(begun.elapsed().as_millis() >= 200);
}

/// Who asks decides what a name means; an ARN means the same to everybody.
#[tokio::test]
async fn each_account_and_region_has_streams_of_its_own_and_an_arn_names_any() {
    let service = service(Settings {
        limits: Limits::Off,
        ..Settings::default()
    });
    let callers = [
        ("000000000000", "us-east-1", 1),
        ("000000000000", "eu-west-1", 2),
        ("123456789012", "us-east-1", 3),
    ];
    let ask = async |at: usize, operation: Operation, body: Value| {
        let (account, region, _) = callers[at];
        let call = Call {
            operation,
            encoding: Encoding::Json,
            body: body.to_string().into(),
            caller: Caller {
                account: account.parse().unwrap(),
                region: region.parse().unwrap(),
            },
            request_id: crate::api::RequestId::random(),
            patience: crate::patience::Patience::default(),
        };
        match service.api.dispatch(call).await.unwrap() {
            Answer::Body(body) => match &body.encode().unwrap().into_bytes()[..] {
                [] => Value::Null,
                json => serde_json::from_slice(json).unwrap(),
            },
            Answer::Events(_) => panic!("{operation} gave events"),
        }
    };
    for (at, (_, _, shards)) in callers.iter().enumerate() {
        let create = json!({"StreamName": "orders", "ShardCount": shards});
        ask(at, Operation::CreateStream, create).await;
    }
    for (at, (account, region, shards)) in callers.iter().enumerate() {
        let listed = ask(at, Operation::ListStreams, json!({})).await;
        assert_eq!(listed["StreamNames"], json!(["orders"]));
        let arn = format!("arn:aws:kinesis:{region}:{account}:stream/orders");
        let named = json!({"StreamName": "orders"});
        for (asks, body) in [(at, named), (0, json!({"StreamARN": arn}))] {
            let listed = ask(asks, Operation::ListShards, body.clone()).await;
            assert_eq!(listed["Shards"].as_array().unwrap().len(), *shards);
            let described = ask(asks, Operation::DescribeStreamSummary, body).await;
            let summary = &described["StreamDescriptionSummary"];
            assert_eq!(summary["StreamARN"], json!(arn));
        }
    }
}
