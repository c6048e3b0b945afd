//! Raw JSON in, exact messages out; and what borrows, what is bounded, what never panics.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::b64;

fn refused<'de, R: Request + Deserialize<'de> + std::fmt::Debug>(body: &'de str) -> Refused {
    parse::<R>(body.as_bytes()).expect_err(body)
}

fn constraint<'de, R: Request + Deserialize<'de> + std::fmt::Debug>(body: &'de str) -> String {
    match refused::<R>(body) {
        Refused::Constraint(message) => message,
        other => panic!("{body} gave {other:?}"),
    }
}

fn type_error<'de, R: Request + Deserialize<'de> + std::fmt::Debug>(body: &'de str) -> String {
    match refused::<R>(body) {
        Refused::Type(message) => message,
        other => panic!("{body} gave {other:?}"),
    }
}

#[test]
fn one_violation_reads_as_aws_writes_it() {
    assert_eq!(
        constraint::<CreateStreamRequest>(r#"{"ShardCount":1}"#),
        "1 validation error detected: Value null at 'streamName' failed to satisfy constraint: \
         Member must not be null"
    );
    let long = "a".repeat(129);
    assert_eq!(
        constraint::<DeleteStreamRequest>(&format!(r#"{{"StreamName":"{long}"}}"#)),
        format!(
            "1 validation error detected: Value '{long}' at 'streamName' failed to satisfy \
             constraint: Member must have length less than or equal to 128"
        )
    );
}

#[test]
fn several_violations_are_joined() {
    let body =
        r#"{"StreamName":"","ShardIteratorType":"","ShardId":"","StartingSequenceNumber":""}"#;
    assert_eq!(
        constraint::<GetShardIteratorRequest>(body),
        "6 validation errors detected: \
         Value '' at 'shardId' failed to satisfy constraint: \
         Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+; \
         Value '' at 'shardId' failed to satisfy constraint: \
         Member must have length greater than or equal to 1; \
         Value '' at 'shardIteratorType' failed to satisfy constraint: Member must satisfy enum \
         value set: [AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON]; \
         Value '' at 'startingSequenceNumber' failed to satisfy constraint: \
         Member must satisfy regular expression pattern: ^(0|([1-9]\\d{0,128}))$; \
         Value '' at 'streamName' failed to satisfy constraint: \
         Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+; \
         Value '' at 'streamName' failed to satisfy constraint: \
         Member must have length greater than or equal to 1"
    );
}

#[test]
fn members_of_a_list_are_named_by_their_place() {
    let body = r#"{"StreamName":"s","Records":[
        {"PartitionKey":"a","Data":""},{"PartitionKey":"","Data":"","ExplicitHashKey":"01"},{"PartitionKey":"a"}]}"#;
    assert_eq!(
        constraint::<PutRecordsRequest<'_>>(body),
        "3 validation errors detected: \
         Value '' at 'records.2.member.partitionKey' failed to satisfy constraint: \
         Member must have length greater than or equal to 1; \
         Value '01' at 'records.2.member.explicitHashKey' failed to satisfy constraint: \
         Member must satisfy regular expression pattern: ^(0|([1-9]\\d{0,38}))$; \
         Value null at 'records.3.member.data' failed to satisfy constraint: Member must not be null"
    );
}

#[test]
fn at_most_ten_violations_are_listed() {
    let records = vec![json!({}); 20];
    let body = json!({"Records": records}).to_string();
    let message = constraint::<PutRecordsRequest<'_>>(&body);
    assert!(
        message.starts_with("10 validation errors detected: "),
        "{message}"
    );
    assert_eq!(message.matches("; ").count(), 9);
}

#[test]
fn numbers_blobs_lists_and_maps_are_shown_as_java_does() {
    assert_eq!(
        constraint::<GetRecordsRequest>(r#"{"ShardIterator":"a","Limit":10001.9}"#),
        "1 validation error detected: Value '10001' at 'limit' failed to satisfy constraint: \
         Member must have value less than or equal to 10000"
    );
    let too_long = b64::encode(&vec![0; 10_485_761]);
    assert_eq!(
        constraint::<PutRecordRequest<'_>>(&format!(
            r#"{{"PartitionKey":"a","Data":"{too_long}"}}"#
        )),
        "1 validation error detected: Value 'java.nio.HeapByteBuffer[pos=0 lim=10485761 cap=10485761]' \
         at 'data' failed to satisfy constraint: Member must have length less than or equal to 10485760"
    );
    assert_eq!(
        constraint::<PutRecordsRequest<'_>>(r#"{"Records":[]}"#),
        "1 validation error detected: Value '[]' at 'records' failed to satisfy constraint: \
         Member must have length greater than or equal to 1"
    );
    let long = "k".repeat(129);
    assert_eq!(
        constraint::<RemoveTagsFromStreamRequest>(&json!({"TagKeys": ["a", &long]}).to_string()),
        format!(
            "1 validation error detected: Value '[a, {long}]' at 'tagKeys' failed to satisfy \
             constraint: Member must satisfy constraint: [Member must have length less than or equal \
             to 128, Member must have length greater than or equal to 1]"
        )
    );
    assert_eq!(
        constraint::<AddTagsToStreamRequest>(r#"{"Tags":{"a":"b","":"d"}}"#),
        "1 validation error detected: Value '{=d, a=b}' at 'tags' failed to satisfy constraint: Map \
         keys must satisfy constraint: [Member must have length less than or equal to 128, Member \
         must have length greater than or equal to 1]"
    );
    assert_eq!(
        constraint::<ListShardsRequest>(r#"{"ShardFilter":{}}"#),
        "1 validation error detected: Value null at 'shardFilter.type' failed to satisfy constraint: \
         Member must not be null"
    );
}

#[test]
fn a_type_that_differs_is_answered_in_the_words_of_aws() {
    let number = "class com.amazon.coral.value.json.numbers.TruncatingBigNumber";
    let list = "Start of list found where not expected";
    let structure = "Start of structure or map found where not expected.";
    let converted = |what: &str, to: &str| format!("{what} can not be converted to {to}");
    for (value, text, blob, items) in [
        (
            "true",
            converted("class java.lang.Boolean", "an String"),
            converted("class java.lang.Boolean", "a Blob"),
            "Expected list or null",
        ),
        (
            "23",
            converted(number, "an String"),
            converted(number, "a Blob"),
            "Expected list or null",
        ),
        (
            "34.56",
            converted(number, "an String"),
            converted(number, "a Blob"),
            "Expected list or null",
        ),
        ("{}", structure.to_owned(), structure.to_owned(), structure),
    ] {
        let of = |member: &str| format!(r#"{{"Unknown":[{{}}],"{member}":{value}}}"#);
        assert_eq!(type_error::<PutRecordRequest<'_>>(&of("StreamName")), text);
        assert_eq!(type_error::<PutRecordRequest<'_>>(&of("Data")), blob);
        assert_eq!(type_error::<PutRecordsRequest<'_>>(&of("Records")), items);
    }
    for (value, message) in [
        ("[]", list),
        ("23", "Expected null"),
        ("\"a\"", "Expected null"),
    ] {
        let body = format!(r#"{{"Records":[{{}},{value}]}}"#);
        assert_eq!(type_error::<PutRecordsRequest<'_>>(&body), message);
    }
    assert_eq!(
        type_error::<AddTagsToStreamRequest>(r#"{"Tags":"a"}"#),
        "Expected map or null"
    );
    assert_eq!(type_error::<AddTagsToStreamRequest>(r#"{"Tags":[]}"#), list);
    assert_eq!(
        type_error::<AddTagsToStreamRequest>(r#"{"Tags":{"a":true}}"#),
        "class java.lang.Boolean can not be converted to an String"
    );
    assert_eq!(
        type_error::<GetRecordsRequest>(r#"{"Limit":"23"}"#),
        "class java.lang.String can not be converted to an Integer"
    );
    assert_eq!(
        type_error::<DeleteStreamRequest>(r#"{"EnforceConsumerDeletion":"maybe"}"#),
        "'MAYBE' can not be converted to an Boolean"
    );
    assert_eq!(
        type_error::<PutRecordRequest<'_>>(r#"{"Data":"23456"}"#),
        "'23456' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 \
         bytes but found: 5"
    );
}

#[test]
fn what_is_not_an_object_has_no_message() {
    let deep = "[".repeat(10_000);
    let nested = format!(r#"{{"Records":{}"#, "[".repeat(10_000));
    let unknown = format!(
        r#"{{"Unknown":{}{}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    for body in [
        "",
        "null",
        "[]",
        "true",
        "hello",
        "{",
        r#"{"StreamName":"a"} x"#,
        &deep,
    ] {
        assert_eq!(
            refused::<DeleteStreamRequest>(body),
            Refused::Malformed,
            "{body:.20}"
        );
    }
    assert!(decode::<PutRecordsRequest<'_>>(nested.as_bytes()).is_err());
    // Skipping an unknown member needs no stack.
    let skipped = decode::<DeleteStreamRequest>(unknown.as_bytes());
    assert!(matches!(skipped, Ok(_) | Err(Refused::Malformed)));
}

#[test]
fn nulls_are_members_that_are_not_given() {
    let request: PutRecordRequest<'_> =
        parse(br#"{"StreamName":null,"DryRun":null,"PartitionKey":"a","Data":""}"#).unwrap();
    assert_eq!((request.stream_name, request.dry_run), (None, None));
    let request: GetRecordsRequest = decode(br#"{"Limit":null,"ShardIterator":null}"#).unwrap();
    assert_eq!(request, GetRecordsRequest::default());
}

#[test]
fn five_hundred_records_borrow_from_the_body() {
    let data = b64::encode(&[7; 1024]);
    let record = json!({"PartitionKey": "key", "ExplicitHashKey": "1", "Data": data});
    let body = json!({"StreamName": "s", "Records": vec![record; 500]}).to_string();
    let request: PutRecordsRequest<'_> = parse(body.as_bytes()).unwrap();
    let records = request.records.unwrap();
    assert_eq!(records.len(), 500);
    for record in &records {
        assert!(record.partition_key.as_ref().unwrap().is_borrowed());
        assert!(record.explicit_hash_key.as_ref().unwrap().is_borrowed());
        let (data, mut buffer) = (record.data.as_ref().unwrap(), Vec::new());
        assert!(data.is_borrowed());
        data.append_to(&mut buffer).unwrap();
        assert_eq!(buffer, [7; 1024]);
    }
}

#[test]
fn a_flood_of_items_is_cut_and_refused() {
    let body = format!(
        r#"{{"Records":[{}{{}}]}}"#,
        r#"{"PartitionKey":"a","Data":""},"#.repeat(100_000)
    );
    let request: PutRecordsRequest<'_> = decode(body.as_bytes()).unwrap();
    assert_eq!(request.records.as_ref().map(Vec::len), Some(501));
    let Err(Refused::Constraint(message)) = validate(&request) else {
        panic!("accepted")
    };
    assert!(message.contains("at 'records' failed to satisfy constraint: Member must have length less than or equal to 500"), "{message:.300}");
    assert!(message.len() < 5_000);
    let tags: std::collections::BTreeMap<_, _> =
        (0..300).map(|n: u32| (n.to_string(), "v")).collect();
    let body = json!({ "Tags": tags }).to_string();
    let message = constraint::<AddTagsToStreamRequest>(&body);
    assert!(
        message.contains("Member must have length less than or equal to 200"),
        "{message}"
    );
}

#[test]
fn a_client_writes_what_a_server_reads() {
    let request = PutRecordsRequest {
        records: Some(vec![PutRecordsRequestEntry {
            partition_key: Some("a".into()),
            data: Some(Blob::from(&b"hello"[..])),
            explicit_hash_key: None,
        }]),
        stream_name: Some("orders".into()),
        ..PutRecordsRequest::default()
    };
    assert_eq!(
        serde_json::to_string(&request).unwrap(),
        r#"{"Records":[{"PartitionKey":"a","Data":"aGVsbG8="}],"StreamName":"orders"}"#
    );
    let filter = ShardFilter {
        filter_type: Some(ShardFilterType::AtLatest),
        ..ShardFilter::default()
    };
    let request = ListShardsRequest {
        shard_filter: Some(filter),
        stream_arn: Some("arn:aws:kinesis:us-east-1:000000000000:stream/a".to_owned()),
        ..ListShardsRequest::default()
    };
    let text = serde_json::to_string(&request).unwrap();
    assert_eq!(
        text,
        r#"{"ShardFilter":{"Type":"AT_LATEST"},"StreamARN":"arn:aws:kinesis:us-east-1:000000000000:stream/a"}"#
    );
    assert_eq!(parse::<ListShardsRequest>(text.as_bytes()), Ok(request));
}

#[test]
fn a_server_writes_what_a_client_reads() {
    let response = GetRecordsResponse {
        records: vec![Record {
            sequence_number: "49545115243490985018280067714973144582180062593244200961"
                .parse()
                .unwrap(),
            approximate_arrival_timestamp: Some(Timestamp {
                millis: 1_700_000_000_123,
            }),
            data: bytes::Bytes::from_static(b"hello"),
            partition_key: "a".to_owned(),
            encryption_type: None,
        }],
        next_shard_iterator: None,
        millis_behind_latest: Some(0),
        child_shards: None,
    };
    let text = serde_json::to_string(&response).unwrap();
    assert_eq!(
        text,
        r#"{"Records":[{"SequenceNumber":"49545115243490985018280067714973144582180062593244200961","ApproximateArrivalTimestamp":1700000000.123,"Data":"aGVsbG8=","PartitionKey":"a"}],"MillisBehindLatest":0}"#
    );
    assert_eq!(
        serde_json::from_str::<GetRecordsResponse>(&text).unwrap(),
        response
    );
    // Other stand-ins send nulls and values this version does not know.
    let summary = r#"{"StreamName":"s","StreamARN":"a","StreamStatus":"RESTING","StreamId":null,
        "RetentionPeriodHours":24,"StreamCreationTimestamp":1,"OpenShardCount":1,"KeyId":null}"#;
    let summary: StreamDescriptionSummary = serde_json::from_str(summary).unwrap();
    assert_eq!(
        summary.stream_status,
        StreamStatus::Other("RESTING".to_owned())
    );
}

proptest! {
    #[test]
    fn s9_random_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse::<PutRecordsRequest<'_>>(&body);
        let _ = parse::<ListShardsRequest>(&body);
    }

    #[test]
    fn s9_random_json_never_panics(body in r#"\{("(Records|Data|StreamName|StreamARN|PartitionKey|x)":(\[|\{|"[:a-z=/\\\\é]{0,6}"|1|-2.5e9|true|null|\]|\})[,\]\}]?){0,8}"#) {
        let _ = parse::<PutRecordRequest<'_>>(body.as_bytes());
        let _ = parse::<PutRecordsRequest<'_>>(body.as_bytes());
        let _ = parse::<AddTagsToStreamRequest>(body.as_bytes());
    }
}
