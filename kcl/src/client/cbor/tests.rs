//! Answers as AWS writes them, as others may, and as nobody should.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "these numbers are the tests' own"
)]

use super::*;
use crate::client::json::RecordsAnswer;
use millstream_wire::Encoding;
use millstream_wire::shapes::{
    ChildShard, GetRecordsResponse, KeyRange, SubscribeToShardEvent, Timestamp,
};
use minicbor::Encoder;
use proptest::prelude::*;

fn json(response: &GetRecordsResponse) -> RecordsPage {
    let text = Encoding::Json.encode(response).unwrap();
    let answer: RecordsAnswer<'_> = serde_json::from_slice(&text).unwrap();
    answer.page().unwrap()
}

fn cbor(response: &GetRecordsResponse) -> RecordsPage {
    let body = Bytes::from(Encoding::Cbor.encode(response).unwrap());
    records_page(&body).unwrap()
}

fn parts(page: &RecordsPage) -> (&[Record], u64, Option<&str>, &[Shard]) {
    let next = page.next_iterator.as_deref();
    let RecordsPage {
        records,
        millis_behind_latest,
        children,
        ..
    } = page;
    (records, *millis_behind_latest, next, children)
}

prop_compose! {
    fn record()(
        number in 0_u64..,
        seconds in prop::option::of(0_u64..4_000_000_000_000),
        data in prop::collection::vec(any::<u8>(), 0..40),
        partition_key in ".{0,12}",
    ) -> millstream_wire::shapes::Record {
        millstream_wire::shapes::Record {
            sequence_number: number.to_string().parse().unwrap(),
            approximate_arrival_timestamp: seconds.map(Timestamp::from_millis),
            data: data.into(),
            partition_key,
            encryption_type: None,
        }
    }
}

prop_compose! {
    fn response()(
        records in prop::collection::vec(record(), 0..8),
        next_shard_iterator in prop::option::of(".{1,20}"),
        millis_behind_latest in prop::option::of(0_u64..),
        children in prop::option::of(prop::collection::vec(("[a-z]{1,5}", any::<u128>()), 0..3)),
    ) -> GetRecordsResponse {
        let child = |(shard_id, end): (String, u128)| ChildShard {
            parent_shards: vec![shard_id.clone(), "p".to_owned()],
            shard_id,
            hash_key_range: KeyRange {
                starting_hash_key: "0".parse().unwrap(),
                ending_hash_key: end.to_string().parse().unwrap(),
            },
        };
        GetRecordsResponse {
            records,
            next_shard_iterator,
            millis_behind_latest,
            child_shards: children.map(|all| all.into_iter().map(child).collect()),
        }
    }
}

prop_compose! {
    fn pushed()(
        page in response(),
        continuation in prop::option::of(0_u64..),
    ) -> SubscribeToShardEvent {
        SubscribeToShardEvent {
            records: page.records,
            continuation_sequence_number: continuation.map(|number| number.to_string()),
            millis_behind_latest: page.millis_behind_latest.unwrap_or_default(),
            child_shards: page.child_shards,
        }
    }
}

proptest! {
    #[test]
    fn both_encodings_of_an_event_are_the_same(pushed in pushed()) {
        let text = Encoding::Json.encode(&pushed).unwrap();
        let answer: RecordsAnswer<'_> = serde_json::from_slice(&text).unwrap();
        let text = answer.event().unwrap();
        let body = Bytes::from(Encoding::Cbor.encode(&pushed).unwrap());
        let binary = event(&body).unwrap();
        let parts = |event: SubscriptionEvent| {
            (event.records, event.continuation, event.millis_behind_latest, event.children)
        };
        prop_assert_eq!(parts(binary), parts(text));
        for cut in 0..body.len() {
            prop_assert!(event(&body.slice(..cut)).is_err(), "cut at {}", cut);
        }
    }

    #[test]
    fn both_encodings_of_an_answer_are_the_same_page(response in response()) {
        let (binary, text) = (cbor(&response), json(&response));
        prop_assert_eq!(parts(&binary), parts(&text));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = (records_page(&bytes), event(&bytes));
    }

    /// Goal: an answer that was damaged anywhere is an error or another page, and never worse. Method: bytes are replaced, or the end is cut off.
    #[test]
    fn no_damage_makes_it_panic(
        response in response(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut body = Encoding::Cbor.encode(&response).unwrap();
        let whole = body.len();
        body.truncate(whole - cut.index(whole) / 4);
        for (place, byte) in damage {
            let place = place.index(body.len());
            body[place] = byte;
        }
        let body = Bytes::from(body);
        let _ = (records_page(&body), event(&body));
    }
}

/// Goal: payloads and keys are not copied. Method: their addresses lie within the answer.
#[test]
fn payloads_and_keys_stay_where_they_are_in_the_answer() {
    let response = GetRecordsResponse {
        records: vec![millstream_wire::shapes::Record {
            sequence_number: "5".parse().unwrap(),
            approximate_arrival_timestamp: None,
            data: Bytes::from_static(b"payload"),
            partition_key: "key".to_owned(),
            encryption_type: None,
        }],
        ..GetRecordsResponse::default()
    };
    let body = Bytes::from(Encoding::Cbor.encode(&response).unwrap());
    let page = records_page(&body).unwrap();
    let within = |part: &[u8]| body.as_ptr_range().contains(&part.as_ptr());
    let record = &page.records[0];
    assert!(within(record.data()) && within(record.partition_key().as_bytes()));
    assert_eq!(
        (&record.data()[..], record.partition_key()),
        (&b"payload"[..], "key")
    );
}

/// One record, written by hand: `write` makes its members, of which there are `count`.
fn one(
    count: u64,
    write: impl FnOnce(&mut Encoder<Vec<u8>>),
) -> Result<RecordsPage, crate::error::Error> {
    let mut encoder = Encoder::new(Vec::new());
    encoder.map(1).unwrap().str("Records").unwrap();
    encoder.array(1).unwrap().map(count + 2).unwrap();
    encoder.str("SequenceNumber").unwrap().str("7").unwrap();
    encoder.str("Data").unwrap().bytes(b"x").unwrap();
    write(&mut encoder);
    records_page(&Bytes::from(encoder.into_writer()))
}

#[test]
fn times_are_milliseconds_or_seconds_with_a_fraction() {
    let time = |write: fn(&mut Encoder<Vec<u8>>)| {
        let page = one(1, |encoder| {
            encoder.str("ApproximateArrivalTimestamp").unwrap();
            write(encoder);
        });
        page.map(|page| page.records[0].arrival_ms())
    };
    let tag = minicbor::data::Tag::new;
    let tagged = time(|encoder| {
        encoder
            .tag(minicbor::data::Tag::new(1))
            .unwrap()
            .u64(1_700_000_000_123)
            .unwrap();
    });
    assert_eq!(tagged.unwrap(), 1_700_000_000_123);
    let bare = time(|encoder| {
        encoder.u64(1_700_000_000_123).unwrap();
    });
    assert_eq!(bare.unwrap(), 1_700_000_000_123);
    let seconds = time(|encoder| {
        encoder
            .tag(minicbor::data::Tag::new(1))
            .unwrap()
            .f64(1_700_000_000.123)
            .unwrap();
    });
    assert_eq!(seconds.unwrap(), 1_700_000_000_123);
    let early = time(|encoder| {
        encoder.i64(-5).unwrap();
    });
    assert_eq!(early.unwrap(), 0);
    let none = time(|encoder| {
        encoder.null().unwrap();
    });
    assert_eq!(none.unwrap(), 0);
    let other = one(1, |encoder| {
        encoder.str("ApproximateArrivalTimestamp").unwrap();
        encoder.tag(tag(2)).unwrap().u64(5).unwrap();
    });
    assert_eq!(other.unwrap_err().kind(), ErrorKind::Protocol);
}

#[test]
fn strings_in_pieces_are_put_together() {
    let page = one(1, |encoder| {
        encoder.str("PartitionKey").unwrap();
        encoder
            .begin_str()
            .unwrap()
            .str("ke")
            .unwrap()
            .str("y")
            .unwrap();
        encoder.end().unwrap();
    });
    assert_eq!(page.unwrap().records[0].partition_key(), "key");
    let mut encoder = Encoder::new(Vec::new());
    encoder.begin_map().unwrap().str("Records").unwrap();
    encoder.begin_array().unwrap().begin_map().unwrap();
    encoder.str("SequenceNumber").unwrap().str("7").unwrap();
    encoder.str("Data").unwrap().begin_bytes().unwrap();
    encoder
        .bytes(b"pay")
        .unwrap()
        .bytes(b"load")
        .unwrap()
        .end()
        .unwrap();
    encoder.end().unwrap().end().unwrap().end().unwrap();
    let page = records_page(&Bytes::from(encoder.into_writer())).unwrap();
    assert_eq!(&page.records[0].data()[..], b"payload");
}

#[test]
fn what_is_not_known_is_passed_over_within_bounds() {
    let nested = |depth: usize| {
        one(1, |encoder| {
            encoder.str("Newer").unwrap();
            for _ in 0..depth {
                encoder.begin_array().unwrap();
            }
            encoder
                .map(1)
                .unwrap()
                .bool(true)
                .unwrap()
                .undefined()
                .unwrap();
            for _ in 0..depth {
                encoder.end().unwrap();
            }
        })
    };
    assert_eq!(nested(10).unwrap().records.len(), 1);
    let error = nested(100_000).unwrap_err();
    assert!(error.to_string().contains("nested deeper"), "{error}");
}

#[test]
fn what_lacks_something_or_has_more_is_refused() {
    let refused = |body: &[u8], text: &str| {
        let error = records_page(&Bytes::copy_from_slice(body)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(error.to_string().contains(text), "{error}");
    };
    refused(b"\xa1\x67Records\x81\xa0", "SequenceNumber is missing");
    refused(
        b"\xa1\x67Records\x81\xa1\x6eSequenceNumber\x615",
        "Data is missing",
    );
    refused(
        b"\xa1\x67Records\x81\xa1\x6eSequenceNumber\x61x",
        "not a sequence number",
    );
    refused(b"\xa0\x00", "something follows");
    refused(b"\xbf\x61x\xff", "break");
    refused(b"{}", "");
    let mut many = b"\xbf\x67Records\x9f".to_vec();
    for _ in 0..=10_000 {
        many.extend_from_slice(b"\xa2\x6eSequenceNumber\x615\x64Data\x40");
    }
    many.extend_from_slice(b"\xff\xff");
    refused(&many, "more than 10000 records");
}
