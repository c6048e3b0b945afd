//! Golden answers of the operations on consumers: a JSON body in, the exact JSON or error out.

use crate::api::{Answer, Api, Call, Caller, Dispatch, Event, Latency};
use crate::clock::ManualClock;
use crate::engine::{Limits, tests::engine};
use crate::error::ApiError;
use bytes::Bytes;
use millstream_wire::shapes::{
    ShardIteratorType, StartingPosition, SubscribeToShardEvent, SubscribeToShardRequest,
};
use millstream_wire::{Encoding, ErrorCode, Operation, cbor};
use std::sync::Arc;

const STREAM: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";

struct Fixture {
    api: Api,
    clock: Arc<ManualClock>,
}

impl Fixture {
    async fn new(limits: Limits) -> Fixture {
        let (engine, clock) = engine(limits);
        let api = Api::new(engine, Latency::default());
        let fixture = Fixture { api, clock };
        let create = r#"{"StreamName":"orders","ShardCount":1}"#;
        assert_eq!(fixture.call("CreateStream", create).await.unwrap(), "");
        fixture
    }

    async fn call(&self, operation: &str, body: &str) -> Result<String, ApiError> {
        let call = Call {
            operation: Operation::from_name(operation).expect(operation),
            encoding: Encoding::Json,
            body: Bytes::copy_from_slice(body.as_bytes()),
            caller: Caller {
                account: "000000000000".parse().unwrap(),
                region: "us-east-1".parse().unwrap(),
            },
            request_id: crate::api::RequestId::random(),
            patience: crate::patience::Patience::default(),
        };
        match self.api.dispatch(call).await? {
            Answer::Body(body) => {
                Ok(String::from_utf8(body.encode()?.into_bytes().to_vec()).unwrap())
            }
            Answer::Events(_) => panic!("{operation} gave events"),
        }
    }

    #[track_caller]
    fn refused(answer: Result<String, ApiError>, code: ErrorCode, message: &str) {
        let error = answer.unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (code, message));
    }
}

#[tokio::test]
async fn consumers_are_registered_described_and_taken_away() {
    let on = Fixture::new(Limits::Aws).await;
    let by_name = format!(r#"{{"StreamARN":"{STREAM}","ConsumerName":"a"}}"#);
    let arn = format!("{STREAM}/consumer/a:1750000000");
    assert_eq!(
        on.call("RegisterStreamConsumer", &by_name).await.unwrap(),
        format!(
            r#"{{"Consumer":{{"ConsumerName":"a","ConsumerARN":"{arn}","ConsumerStatus":"CREATING","ConsumerCreationTimestamp":1750000000.0}}}}"#
        )
    );
    let described = format!(
        r#"{{"ConsumerDescription":{{"ConsumerName":"a","ConsumerARN":"{arn}","ConsumerStatus":"ACTIVE","ConsumerCreationTimestamp":1750000000.0,"StreamARN":"{STREAM}"}}}}"#
    );
    let by_arn = format!(r#"{{"ConsumerARN":"{arn}"}}"#);
    let by_both = format!(r#"{{"StreamARN":"{STREAM}","ConsumerName":"a","ConsumerARN":"{arn}"}}"#);
    for body in [&by_name, &by_arn, &by_both] {
        let answer = on.call("DescribeStreamConsumer", body).await;
        assert_eq!(answer.unwrap(), described);
    }
    let summary = on
        .call("DescribeStreamSummary", r#"{"StreamName":"orders"}"#)
        .await
        .unwrap();
    assert!(summary.contains(r#""ConsumerCount":1"#), "{summary}");
    Fixture::refused(
        on.call("RegisterStreamConsumer", &by_name).await,
        ErrorCode::ResourceInUse,
        "Consumer a in stream orders under account 000000000000 already exists.",
    );
    Fixture::refused(
        on.call("DeleteStream", r#"{"StreamName":"orders"}"#).await,
        ErrorCode::ResourceInUse,
        "DeleteStream can't delete 000000000000:orders because there are consumers associated with this \
         data stream. To delete orders anyway, set the EnforceConsumerDeletion parameter to true to force \
         the deletion of all the consumers that are associated with it.",
    );
    let earlier = format!(r#"{{"ConsumerARN":"{STREAM}/consumer/a:1749999999"}}"#);
    let answer = on.call("DeregisterStreamConsumer", &by_arn).await;
    assert_eq!(answer.unwrap(), "");
    for body in [&by_name, &by_arn, &earlier] {
        Fixture::refused(
            on.call("DeregisterStreamConsumer", body).await,
            ErrorCode::ResourceNotFound,
            "Consumer a in stream orders under account 000000000000 not found.",
        );
    }
}

#[tokio::test]
async fn an_arn_of_an_earlier_consumer_of_that_name_finds_nothing() {
    let on = Fixture::new(Limits::Aws).await;
    let body = format!(r#"{{"StreamARN":"{STREAM}","ConsumerName":"a"}}"#);
    on.call("RegisterStreamConsumer", &body).await.unwrap();
    let earlier = format!(r#"{{"ConsumerARN":"{STREAM}/consumer/a:1749999999"}}"#);
    Fixture::refused(
        on.call("DescribeStreamConsumer", &earlier).await,
        ErrorCode::ResourceNotFound,
        "Consumer a in stream orders under account 000000000000 not found.",
    );
    let other = format!(
        r#"{{"StreamARN":"{STREAM}","ConsumerName":"b","ConsumerARN":"{STREAM}/consumer/a:1750000000"}}"#
    );
    Fixture::refused(
        on.call("DescribeStreamConsumer", &other).await,
        ErrorCode::InvalidArgument,
        "ConsumerARN, StreamARN and ConsumerName must name the same consumer.",
    );
    Fixture::refused(
        on.call(
            "DescribeStreamConsumer",
            &format!(r#"{{"StreamARN":"{STREAM}"}}"#),
        )
        .await,
        ErrorCode::InvalidArgument,
        "Either ConsumerARN or both StreamARN and ConsumerName should be provided.",
    );
}

#[tokio::test]
async fn consumers_are_listed_page_by_page() {
    let on = Fixture::new(Limits::Aws).await;
    for name in ["c", "a", "b"] {
        let body = format!(r#"{{"StreamARN":"{STREAM}","ConsumerName":"{name}"}}"#);
        on.call("RegisterStreamConsumer", &body).await.unwrap();
    }
    let list = |more: String| format!(r#"{{"StreamARN":"{STREAM}"{more}}}"#);
    let names = |answer: &str| -> (Vec<String>, Option<String>) {
        let value: serde_json::Value = serde_json::from_str(answer).unwrap();
        let consumers = value["Consumers"].as_array().unwrap().iter();
        let name = |one: &serde_json::Value| one["ConsumerName"].as_str().unwrap().to_owned();
        let token = value
            .get("NextToken")
            .map(|t| t.as_str().unwrap().to_owned());
        (consumers.map(name).collect(), token)
    };
    let all = on.call("ListStreamConsumers", &list(String::new())).await;
    assert_eq!(
        names(&all.unwrap()),
        (vec!["a".into(), "b".into(), "c".into()], None)
    );
    let page = on
        .call("ListStreamConsumers", &list(r#","MaxResults":2"#.into()))
        .await;
    let (page, token) = names(&page.unwrap());
    assert_eq!(page, ["a", "b"]);
    let token = token.unwrap();
    let next = list(format!(r#","NextToken":"{token}""#));
    let rest = on.call("ListStreamConsumers", &next).await.unwrap();
    assert_eq!(names(&rest), (vec!["c".into()], None));
    let both = list(format!(
        r#","NextToken":"{token}","StreamCreationTimestamp":1750000000"#
    ));
    Fixture::refused(
        on.call("ListStreamConsumers", &both).await,
        ErrorCode::InvalidArgument,
        "NextToken and StreamCreationTimestamp cannot be provided together.",
    );
    let other = list(r#","StreamCreationTimestamp":1749999999"#.into());
    Fixture::refused(
        on.call("ListStreamConsumers", &other).await,
        ErrorCode::ResourceNotFound,
        "Stream orders under account 000000000000 not found.",
    );
    // Five calls a second are allowed.
    on.clock.advance_ms(1_000);
    Fixture::refused(
        on.call("ListStreamConsumers", &list(r#","NextToken":"x""#.into()))
            .await,
        ErrorCode::InvalidArgument,
        "Invalid NextToken.",
    );
    on.clock.advance_ms(300_001);
    let expired = on.call("ListStreamConsumers", &next).await.unwrap_err();
    assert_eq!(expired.code, ErrorCode::ExpiredNextToken);
}

#[tokio::test]
async fn consumer_requests_are_validated() {
    let on = Fixture::new(Limits::Aws).await;
    for (operation, body, message) in [
        (
            "RegisterStreamConsumer",
            "{}",
            "2 validation errors detected: Value null at 'streamARN' failed to satisfy constraint: Member must \
             not be null; Value null at 'consumerName' failed to satisfy constraint: Member must not be null",
        ),
        (
            "DeregisterStreamConsumer",
            r#"{"ConsumerARN":"x"}"#,
            "1 validation error detected: Value 'x' at 'consumerARN' failed to satisfy constraint: Member must \
             satisfy regular expression pattern: ^(arn):aws.*:kinesis:.*:\\d{12}:.*stream\\/[a-zA-Z0-9_.-]+\\/consumer\\/[a-zA-Z0-9_.-]+:[0-9]+",
        ),
        (
            "ListStreamConsumers",
            r#"{"StreamARN":"arn:aws:kinesis:us-east-1:000000000000:stream/orders","MaxResults":0}"#,
            "1 validation error detected: Value '0' at 'maxResults' failed to satisfy constraint: Member must \
             have value greater than or equal to 1",
        ),
    ] {
        Fixture::refused(
            on.call(operation, body).await,
            ErrorCode::Validation,
            message,
        );
    }
}

#[tokio::test]
async fn events_come_in_the_encoding_of_the_request() {
    let on = Fixture::new(Limits::Aws).await;
    let register = format!(r#"{{"StreamARN":"{STREAM}","ConsumerName":"a"}}"#);
    on.call("RegisterStreamConsumer", &register).await.unwrap();
    on.call("DescribeStreamConsumer", &register).await.unwrap();
    let put = r#"{"StreamName":"orders","PartitionKey":"k","Data":"YWJj"}"#;
    on.call("PutRecord", put).await.unwrap();
    let request = SubscribeToShardRequest {
        consumer_arn: Some(format!("{STREAM}/consumer/a:1750000000")),
        shard_id: Some("shardId-000000000000".to_owned()),
        starting_position: Some(StartingPosition {
            position_type: Some(ShardIteratorType::TrimHorizon),
            ..StartingPosition::default()
        }),
        ..SubscribeToShardRequest::default()
    };
    let call = Call {
        operation: Operation::SubscribeToShard,
        encoding: Encoding::Cbor,
        body: cbor::to_vec(&request).unwrap().into(),
        caller: Caller {
            account: "000000000000".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
        },
        request_id: crate::api::RequestId::random(),
        patience: crate::patience::Patience::default(),
    };
    let Answer::Events(mut events) = on.api.dispatch(call).await.unwrap() else {
        panic!("a body");
    };
    assert_eq!(events.encoding(), Encoding::Cbor);
    assert!(cbor::is_map(&events.initial()));
    let Some(Event::Event(_, payload)) = events.next().await else {
        panic!("no event");
    };
    // A byte string of three bytes, not their Base64.
    assert!(payload.windows(4).any(|bytes| bytes == b"\x43abc"));
    let event: SubscribeToShardEvent = cbor::from_slice(&payload).unwrap();
    assert_eq!(event.records.len(), 1);
}

#[tokio::test]
async fn a_consumer_has_tags_and_a_policy_of_its_own() {
    let on = Fixture::new(Limits::Aws).await;
    let new = format!(r#"{{"StreamARN":"{STREAM}","ConsumerName":"a","Tags":{{"k":"v"}}}}"#);
    on.call("RegisterStreamConsumer", &new).await.unwrap();
    let arn = format!("{STREAM}/consumer/a:1750000000");
    let of = |arn: &str, more: &str| format!(r#"{{"ResourceARN":"{arn}"{more}}}"#);
    let tag = of(&arn, r#","Tags":{"l":"w","m":"x"}"#);
    assert_eq!(on.call("TagResource", &tag).await.unwrap(), "");
    let untag = of(&arn, r#","TagKeys":["m","none"]"#);
    assert_eq!(on.call("UntagResource", &untag).await.unwrap(), "");
    let listed = on.call("ListTagsForResource", &of(&arn, "")).await;
    let both = r#"{"Tags":[{"Key":"k","Value":"v"},{"Key":"l","Value":"w"}]}"#;
    assert_eq!(listed.unwrap(), both);
    let of_stream = on.call("ListTagsForResource", &of(STREAM, "")).await;
    assert_eq!(of_stream.unwrap(), r#"{"Tags":[]}"#);
    let many: Vec<String> = (0..49).map(|n| format!(r#""t{n}":"""#)).collect();
    let many = of(&arn, &format!(r#","Tags":{{{}}}"#, many.join(",")));
    let refused = on.call("TagResource", &many).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidArgument);

    let put = of(&arn, r#","Policy":"{\"Statement\":[]}""#);
    assert_eq!(on.call("PutResourcePolicy", &put).await.unwrap(), "");
    let policy = on.call("GetResourcePolicy", &of(&arn, "")).await;
    assert_eq!(policy.unwrap(), r#"{"Policy":"{\"Statement\":[]}"}"#);
    let of_stream = on.call("GetResourcePolicy", &of(STREAM, "")).await;
    assert_eq!(of_stream.unwrap(), r#"{"Policy":"{}"}"#);
    let gone = on.call("DeleteResourcePolicy", &of(&arn, "")).await;
    assert_eq!(gone.unwrap(), "");

    let earlier = format!("{STREAM}/consumer/a:1749999999");
    let policy = r#","Policy":"{\"Statement\":[]}""#;
    for (operation, more) in [
        ("TagResource", r#","Tags":{"k":"v"}"#),
        ("UntagResource", r#","TagKeys":["k"]"#),
        ("ListTagsForResource", ""),
        ("PutResourcePolicy", policy),
        ("GetResourcePolicy", ""),
        ("DeleteResourcePolicy", ""),
    ] {
        Fixture::refused(
            on.call(operation, &of(&earlier, more)).await,
            ErrorCode::ResourceNotFound,
            "Consumer a in stream orders under account 000000000000 not found.",
        );
    }
}
