//! Frames as servers send them, whole, cut, too long and senseless; and how subscriptions are spread over connections.

use super::*;
use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue};
use millstream_wire::shapes::SubscribeToShardEvent;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn frame(headers: &[(&'static str, &'static str)], payload: impl AsRef<[u8]>) -> Vec<u8> {
    let mut message = Message::new(payload.as_ref().to_vec());
    for (name, value) in headers {
        let value = HeaderValue::String((*value).into());
        message = message.add_header(Header::new(*name, value));
    }
    let mut bytes = Vec::new();
    write_message_to(&message, &mut bytes).unwrap();
    bytes
}

fn initial() -> Vec<u8> {
    let headers = [
        (":message-type", "event"),
        (":event-type", "initial-response"),
    ];
    frame(&headers, "{}")
}

fn event(payload: impl AsRef<[u8]>) -> Vec<u8> {
    let headers = [
        (":message-type", "event"),
        (":event-type", "SubscribeToShardEvent"),
    ];
    frame(&headers, payload)
}

/// The subscription that a whole answer makes.
fn subscription(body: Vec<u8>) -> HttpSubscription {
    HttpSubscription {
        response: http::Response::new(body).into(),
        received: BytesMut::new(),
        over: None,
        first: None,
        _place: Arc::new(()),
    }
}

#[tokio::test(start_paused = true)]
async fn events_are_read_in_order_and_the_end_is_no_error() {
    let records = r#"{"Records":[{"SequenceNumber":"5","PartitionKey":"k","Data":"aGVsbG8="}],
        "ContinuationSequenceNumber":"6","MillisBehindLatest":7}"#;
    let end = r#"{"Records":[],"MillisBehindLatest":0,"ChildShards":[{"ShardId":"c","ParentShards":["a"],
        "HashKeyRange":{"StartingHashKey":"0","EndingHashKey":"9"}}]}"#;
    let other = frame(&[(":message-type", "event"), (":event-type", "Newer")], "?");
    let body = [initial(), event(records), other, event(end)].concat();
    let mut subscription = subscription(body);
    subscription.settle().await.unwrap();
    assert_eq!(subscription.begun().await, event(records).len());
    let first = subscription.next().await.unwrap().unwrap();
    assert_eq!(&first.records[0].data[..], b"hello");
    assert_eq!(first.continuation, Some("6".parse().unwrap()));
    assert_eq!(first.millis_behind_latest, 7);
    let last = subscription.next().await.unwrap().unwrap();
    assert_eq!((last.continuation, last.children.len()), (None, 1));
    assert_eq!(subscription.begun().await, 0);
    assert!(subscription.next().await.is_none());
}

/// Goal: a server's encoding is known from its first frame, and each event is read in its own.
#[tokio::test(start_paused = true)]
async fn events_are_read_in_the_encoding_that_they_come_in() {
    let pushed = SubscribeToShardEvent {
        records: vec![millstream_wire::shapes::Record {
            sequence_number: "5".parse().unwrap(),
            approximate_arrival_timestamp: Some(Timestamp::from_millis(1_700_000_000_123)),
            data: Bytes::from_static(b"hello"),
            partition_key: "k".to_owned(),
            encryption_type: None,
        }],
        continuation_sequence_number: Some("6".to_owned()),
        millis_behind_latest: 7,
        child_shards: None,
    };
    let accepted = |payload: &[u8]| {
        let headers = [
            (":message-type", "event"),
            (":event-type", "initial-response"),
        ];
        frame(&headers, payload)
    };
    let table = [
        (accepted(b"{}"), Some(Encoding::Json)),
        (accepted(b"\xa0"), Some(Encoding::Cbor)),
        (accepted(b"\xbf\xff"), Some(Encoding::Cbor)),
        (accepted(b""), None),
    ];
    for (initial, spoken) in table {
        let both = [Encoding::Cbor, Encoding::Json];
        let events = both.map(|encoding| event(encoding.encode(&pushed).unwrap()));
        let body = [initial, events.concat()].concat();
        let mut subscription = subscription(body);
        assert_eq!(subscription.settle().await.unwrap(), spoken);
        for _ in both {
            let event = subscription.next().await.unwrap().unwrap();
            assert_eq!(&event.records[0].data[..], b"hello");
            assert_eq!(event.records[0].arrival_ms, 1_700_000_000_123);
            assert_eq!(event.continuation, Some("6".parse().unwrap()));
            assert_eq!(event.millis_behind_latest, 7);
        }
        assert!(subscription.next().await.is_none());
    }
}

/// Goal: no event is left out where a server sends one before it says that it has accepted.
#[tokio::test(start_paused = true)]
async fn an_event_before_the_initial_response_counts() {
    let mut subscription = subscription([event(r#"{"MillisBehindLatest":3}"#), initial()].concat());
    subscription.settle().await.unwrap();
    assert_eq!(subscription.begun().await, 0);
    let first = subscription.next().await.unwrap().unwrap();
    assert_eq!(first.millis_behind_latest, 3);
    assert!(subscription.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn exceptions_are_errors_of_their_kind() {
    let table = [
        ("ResourceNotFoundException", ErrorKind::NotFound),
        ("ResourceInUseException", ErrorKind::Unavailable),
        ("InternalFailureException", ErrorKind::Unavailable),
        ("KMSAccessDeniedException", ErrorKind::Protocol),
    ];
    for (name, kind) in table {
        let headers = [(":message-type", "exception"), (":exception-type", name)];
        let payloads = [
            &br#"{"message":"for a reason"}"#[..],
            b"\xbf\x67message\x6cfor a reason\xff",
        ];
        for payload in payloads {
            let mut subscription = subscription([initial(), frame(&headers, payload)].concat());
            subscription.settle().await.unwrap();
            let error = subscription.next().await.unwrap().unwrap_err();
            assert_eq!(error.kind(), kind);
            let told = format!("a subscription was ended with {name}: for a reason");
            assert_eq!(error.to_string(), told);
        }
    }
}

/// Goal: what is cut, too long or damaged is an error, found before it is waited for or kept.
#[tokio::test(start_paused = true)]
async fn senseless_frames_are_errors() {
    let whole = event(r#"{"MillisBehindLatest":0}"#);
    let cut = whole[..whole.len() - 1].to_vec();
    let mut damaged = whole.clone();
    damaged[40] ^= 1;
    let long = (24 * 1024 * 1024_u32 + 1).to_be_bytes().to_vec();
    let short = 15_u32.to_be_bytes().to_vec();
    let table = [
        (cut, ErrorKind::Unavailable),
        (damaged, ErrorKind::Protocol),
        (long, ErrorKind::Protocol),
        (short, ErrorKind::Protocol),
        (event("[]"), ErrorKind::Protocol),
        (vec![0], ErrorKind::Unavailable),
    ];
    for (bytes, kind) in table {
        let mut subscription = subscription([initial(), bytes].concat());
        subscription.settle().await.unwrap();
        subscription.begun().await;
        let error = subscription.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    let ended = subscription(Vec::new()).settle().await.unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::Unavailable);
}

proptest! {
    /// Goal: no bytes make it panic or go on for ever, and what it gives before them is not touched. Method: whole events, then bytes of any kind,
    /// or an event with a byte of it changed.
    #[test]
    fn any_bytes_end_in_an_event_or_an_error(
        whole in 0..3usize,
        rest in prop::collection::vec(any::<u8>(), 0..200),
        damage in prop::option::of((any::<prop::sample::Index>(), 1..=255u8)),
    ) {
        let mut bytes = initial();
        for _ in 0..whole {
            bytes.extend(event(r#"{"MillisBehindLatest":7}"#));
        }
        match damage {
            None => bytes.extend(rest),
            Some((at, by)) => {
                let mut damaged = event(r#"{"MillisBehindLatest":8}"#);
                let at = at.index(damaged.len());
                damaged[at] ^= by;
                bytes.extend(damaged);
            }
        }
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut subscription = subscription(bytes);
            subscription.settle().await.unwrap();
            let mut sound = 0;
            while let Some(Ok(event)) = subscription.next().await {
                assert_eq!(event.millis_behind_latest, 7);
                sound += 1;
            }
            assert_eq!(sound, whole);
        });
    }
}

/// Goal: a thousand shards have connections enough, and no connection more than it can carry; what ends makes room.
#[test]
fn subscriptions_are_spread_over_connections() {
    let connections = Connections::new(true, Duration::from_secs(10), Vec::new());
    let held: Vec<Arc<()>> = (0..1000).map(|_| connections.place().unwrap().1).collect();
    let distinct: BTreeSet<_> = held.iter().map(Arc::as_ptr).collect();
    assert_eq!(distinct.len(), 20);
    drop(held);
    let again: Vec<Arc<()>> = (0..100).map(|_| connections.place().unwrap().1).collect();
    assert_eq!(connections.made.lock().unwrap().len(), 20);
    let distinct: BTreeSet<_> = again.iter().map(Arc::as_ptr).collect();
    assert_eq!(distinct.len(), 2);
}

#[test]
fn requests_say_what_the_api_expects() {
    let start = |encoding: Encoding, start| {
        let request = SubscribeRequest {
            consumer_arn: "c",
            shard_id: "s",
            start,
        };
        encoding.encode(&body(request)).unwrap()
    };
    let json = |place| String::from_utf8(start(Encoding::Json, place)).unwrap();
    let rest = r#"{"ConsumerARN":"c","ShardId":"s","StartingPosition":"#;
    assert_eq!(
        json(IteratorStart::TrimHorizon),
        format!(r#"{rest}{{"Type":"TRIM_HORIZON"}}}}"#)
    );
    assert_eq!(
        json(IteratorStart::AtTimestamp(1_500)),
        format!(r#"{rest}{{"Type":"AT_TIMESTAMP","Timestamp":1.5}}}}"#)
    );
    let five = "5".parse().unwrap();
    assert_eq!(
        json(IteratorStart::AfterSequence(five)),
        format!(r#"{rest}{{"Type":"AFTER_SEQUENCE_NUMBER","SequenceNumber":"5"}}}}"#)
    );
    assert_eq!(
        start(Encoding::Cbor, IteratorStart::AtTimestamp(1_500)),
        b"\xbf\x6bConsumerARN\x61c\x67ShardId\x61s\x70StartingPosition\xbf\x64Type\x6cAT_TIMESTAMP\x69Timestamp\xc1\x19\x05\xdc\xff\xff"
    );
    let named = serde_json::to_string(&ConsumerRequest::named("s", "n")).unwrap();
    assert_eq!(named, r#"{"StreamARN":"s","ConsumerName":"n"}"#);
    let of = serde_json::to_string(&ConsumerRequest::of("c")).unwrap();
    assert_eq!(of, r#"{"ConsumerARN":"c"}"#);
}
