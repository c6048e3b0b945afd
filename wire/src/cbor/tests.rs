//! Bytes by hand in, shapes out, and back; a second encoder written from RFC 8949; random bytes.

use bytes::Bytes;
use proptest::prelude::*;
use std::fmt::Write as _;

use super::*;
use crate::Encoding;
use crate::shapes::{self, *};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn shown(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A value and how it is to be written: pieces of a string or the declared length left out.
#[derive(Debug, Clone)]
enum Item {
    Unsigned(u64),
    Float(f64),
    Bool(bool),
    Null,
    Bytes(Vec<u8>),
    ByteParts(Vec<Vec<u8>>),
    Text(String),
    TextParts(Vec<String>),
    List(Vec<Item>, bool),
    Map(Vec<(Item, Item)>, bool),
    Tagged(u64, Box<Item>),
}

impl Item {
    fn text(text: &str) -> Item {
        Item::Text(text.to_owned())
    }

    fn head(major: u8, value: u64, out: &mut Vec<u8>) {
        let major = major << 5;
        match value {
            0..24 => out.push(major | u8::try_from(value).unwrap()),
            24..0x100 => out.extend([major | 0x18, u8::try_from(value).unwrap()]),
            0x100..0x1_0000 => {
                out.push(major | 0x19);
                out.extend(u16::try_from(value).unwrap().to_be_bytes());
            }
            0x1_0000..0x1_0000_0000 => {
                out.push(major | 0x1a);
                out.extend(u32::try_from(value).unwrap().to_be_bytes());
            }
            _ => {
                out.push(major | 0x1b);
                out.extend(value.to_be_bytes());
            }
        }
    }

    fn string(major: u8, bytes: &[u8], out: &mut Vec<u8>) {
        Item::head(major, bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }

    fn parts<'p>(major: u8, parts: impl Iterator<Item = &'p [u8]>, out: &mut Vec<u8>) {
        out.push(major << 5 | 0x1f);
        for part in parts {
            Item::string(major, part, out);
        }
        out.push(0xff);
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Item::Unsigned(value) => Item::head(0, *value, out),
            Item::Float(value) => {
                out.push(0xfb);
                out.extend(value.to_be_bytes());
            }
            Item::Bool(value) => out.push(0xf4 + u8::from(*value)),
            Item::Null => out.push(0xf6),
            Item::Bytes(bytes) => Item::string(2, bytes, out),
            Item::ByteParts(parts) => Item::parts(2, parts.iter().map(Vec::as_slice), out),
            Item::Text(text) => Item::string(3, text.as_bytes(), out),
            Item::TextParts(parts) => Item::parts(3, parts.iter().map(String::as_bytes), out),
            Item::List(items, endless) => {
                if *endless {
                    out.push(0x9f);
                } else {
                    Item::head(4, items.len() as u64, out);
                }
                for item in items {
                    item.write(out);
                }
                out.extend(endless.then_some(0xff));
            }
            Item::Map(entries, endless) => {
                if *endless {
                    out.push(0xbf);
                } else {
                    Item::head(5, entries.len() as u64, out);
                }
                for (key, value) in entries {
                    key.write(out);
                    value.write(out);
                }
                out.extend(endless.then_some(0xff));
            }
            Item::Tagged(tag, item) => {
                Item::head(6, *tag, out);
                item.write(out);
            }
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }
}

fn map(entries: &[(&str, Item)]) -> Item {
    let entries = entries
        .iter()
        .map(|(key, value)| (Item::text(key), value.clone()));
    Item::Map(entries.collect(), false)
}

fn parse<'de, R: Request + serde::Deserialize<'de>>(body: &'de [u8]) -> Result<R, Refused> {
    shapes::parse_as(Encoding::Cbor, body)
}

#[test]
fn a_put_borrows_from_the_body() {
    // {"Data": h'68656c6c6f', "PartitionKey": "k", "StreamName": "s"}, indefinite as Jackson writes it.
    let body = hex(
        "bf 64 44617461 45 68656c6c6f 6c 506172746974696f6e4b6579 61 6b 6a 53747265616d4e616d65 61 73 ff",
    );
    let request: PutRecordRequest<'_> = parse(&body).unwrap();
    let data = request.data.unwrap();
    assert!(data.is_borrowed());
    assert_eq!(
        (data.decoded_len(), data.to_bytes()),
        (5, Bytes::from("hello"))
    );
    assert!(request.partition_key.as_ref().unwrap().is_borrowed());
    let at = |text: &str| body.as_ptr_range().contains(&text.as_ptr());
    assert!(at(&request.partition_key.unwrap()) && at(&request.stream_name.unwrap()));
    // In pieces: (_ h'6865', h'', h'6c6c6f'), and the key (_ "k", "ey").
    let body = hex(
        "a2 64 44617461 5f 42 6865 40 43 6c6c6f ff 6c 506172746974696f6e4b6579 7f 61 6b 62 6579 ff",
    );
    let request: PutRecordRequest<'_> = parse(&body).unwrap();
    assert_eq!(request.data.unwrap().to_bytes(), "hello");
    assert_eq!(request.partition_key.unwrap().as_str(), "key");
}

#[test]
fn timestamps_are_tagged_milliseconds_both_ways() {
    let with = |time: &str| {
        let mut body = vec![0xa3];
        for text in [
            "ShardId",
            "0",
            "ShardIteratorType",
            "AT_TIMESTAMP",
            "Timestamp",
        ] {
            Item::text(text).write(&mut body);
        }
        body.extend(hex(time));
        parse::<GetShardIteratorRequest>(&body).map(|request| request.timestamp.map(|t| t.millis))
    };
    // 1_700_000_000_123 = 0x18bcfe5687b.
    assert_eq!(with("c1 1b 0000018bcfe5687b"), Ok(Some(1_700_000_000_123)));
    assert_eq!(with("1b 0000018bcfe5687b"), Ok(Some(1_700_000_000_123)));
    assert_eq!(with("c1 1b ffffffffffffffff"), Ok(Some(i64::MAX)));
    assert_eq!(with("c1 20"), Ok(Some(-1)));
    assert_eq!(with("c1 fb 41d954fc4007df3b"), Ok(Some(1_700_000_000_123)));
    assert_eq!(with("f6"), Ok(None));
    for wrong in [
        "c0 1a 65000000",
        "c2 41 01",
        "c1 61 31",
        "c1 c1 01",
        "d8 20 01",
        "c1",
    ] {
        assert!(
            matches!(with(wrong), Err(Refused::Malformed | Refused::Type(_))),
            "{wrong}"
        );
    }
    assert_eq!(
        with("c1 61 31"),
        Err(Refused::Type(
            "class java.lang.String can not be converted to milliseconds since epoch".to_owned()
        ))
    );
}

#[test]
fn an_answer_is_written_as_aws_writes_it() {
    let response = GetRecordsResponse {
        records: vec![Record {
            sequence_number: "49545115243490985018280067714973144582180062593244200961"
                .parse()
                .unwrap(),
            approximate_arrival_timestamp: Some(Timestamp {
                millis: 1_700_000_000_123,
            }),
            data: Bytes::from_static(b"\x00\xffhi"),
            partition_key: "a".to_owned(),
            encryption_type: None,
        }],
        next_shard_iterator: None,
        millis_behind_latest: Some(0),
        child_shards: None,
    };
    let bytes = to_vec(&response).unwrap();
    let expected = [
        "bf 67 5265636f726473 9f bf 6e 53657175656e63654e756d626572 78 38",
        &shown(b"49545115243490985018280067714973144582180062593244200961"),
        "78 1b",
        &shown(b"ApproximateArrivalTimestamp"),
        "c1 1b 0000018bcfe5687b 64 44617461 44 00ff6869 6c 506172746974696f6e4b6579 61 61 ff ff",
        "72",
        &shown(b"MillisBehindLatest"),
        "00 ff",
    ];
    assert_eq!(shown(&bytes), shown(&hex(&expected.concat())));
    assert_eq!(from_slice::<GetRecordsResponse>(&bytes), Ok(response));
    assert_eq!(to_vec(&Empty {}).unwrap(), b"\xbf\xff");
}

#[test]
fn a_type_that_differs_is_named() {
    let refused = |member: &str, value: Item| match parse::<PutRecordRequest<'_>>(
        &map(&[(member, value)]).bytes(),
    ) {
        Err(Refused::Type(message)) => message,
        other => panic!("{other:?}"),
    };
    let converted = |what: &str, to: &str| format!("class {what} can not be converted to {to}");
    let number = "com.amazon.coral.value.json.numbers.TruncatingBigNumber";
    let tagged = Item::Tagged(1, Box::new(Item::Unsigned(1)));
    for (member, value, message) in [
        (
            "StreamName",
            Item::Bool(true),
            converted("java.lang.Boolean", "an String"),
        ),
        (
            "StreamName",
            Item::Unsigned(1),
            converted(number, "an String"),
        ),
        (
            "StreamName",
            Item::Bytes(vec![]),
            converted("java.nio.HeapByteBuffer", "an String"),
        ),
        (
            "StreamName",
            tagged.clone(),
            converted("java.util.Date", "an String"),
        ),
        (
            "Data",
            Item::text("aGVsbG8="),
            converted("java.lang.String", "a Blob"),
        ),
        ("Data", Item::Float(0.5), converted(number, "a Blob")),
        ("Data", tagged, converted("java.util.Date", "a Blob")),
        ("DryRun", Item::Unsigned(1), converted(number, "an Boolean")),
    ] {
        assert_eq!(refused(member, value), message);
    }
    assert_eq!(
        refused("Data", Item::List(vec![], true)),
        "Start of list found where not expected"
    );
    let body = map(&[(
        "Records",
        Item::List(vec![Item::List(vec![], false)], false),
    )])
    .bytes();
    assert_eq!(
        parse::<PutRecordsRequest<'_>>(&body),
        Err(Refused::Type(
            "Start of list found where not expected".to_owned()
        ))
    );
}

#[test]
fn what_is_no_map_has_no_message() {
    let deep = |open: &str, levels: usize| {
        let mut body = Item::head_of("Unknown");
        body.extend(hex(open).repeat(levels));
        body
    };
    for body in [
        hex(""),
        hex("f6"),
        hex("80"),
        hex("9f ff"),
        hex("61 61"),
        hex("bf"),
        hex("a1"),
        hex("a1 61 61"),
        // A name that is a number; bytes after the value; a break alone; a reserved head.
        hex("a1 01 01"),
        hex("a0 00"),
        hex("ff"),
        hex("a1 61 61 1c"),
        // Lengths without the bytes: text, bytes, list, map of 2^64 - 1 and the like.
        hex("a1 6a 53747265616d4e616d65 7b ffffffffffffffff 61"),
        hex("a1 64 44617461 5b 7fffffffffffffff 61"),
        hex("a1 67 5265636f726473 9b ffffffffffffffff a0 a0"),
        hex("bb ffffffffffffffff"),
        // Not UTF-8; pieces of another kind; pieces within pieces.
        hex("a1 6a 53747265616d4e616d65 61 ff"),
        hex("a1 64 44617461 5f 61 61 ff"),
        hex("a1 64 44617461 5f 5f 41 61 ff ff"),
        // Tag 2 around a text, and tag 1 without anything.
        hex("a1 6a 53747265616d4e616d65 c2 61 61"),
        hex("a1 6a 53747265616d4e616d65 c1"),
        deep("9f", 100_000),
        deep("81", 100_000),
        deep("bf 61 61", 100_000),
        deep("c1", 100_000),
        deep("d8 20", 100_000),
    ] {
        let refused = parse::<PutRecordsRequest<'_>>(&body);
        assert_eq!(refused, Err(Refused::Malformed), "{:.40}", shown(&body));
        let refused = parse::<PutRecordRequest<'_>>(&body).err();
        let refused = matches!(refused, Some(Refused::Malformed | Refused::Constraint(_)));
        assert!(refused, "{:.40}", shown(&body));
    }
}

impl Item {
    /// A map of one entry up to its name.
    fn head_of(name: &str) -> Vec<u8> {
        let mut out = vec![0xa1];
        Item::text(name).write(&mut out);
        out
    }
}

#[test]
fn what_is_not_known_is_skipped() {
    let ignored = [
        Item::Tagged(
            55_799,
            Box::new(Item::Tagged(2, Box::new(Item::Bytes(vec![1])))),
        ),
        Item::List(vec![Item::Map(vec![], true), Item::Null], true),
        Item::Float(1.5),
    ];
    for value in ignored {
        let body = map(&[("Unknown", value), ("Limit", Item::Unsigned(7))]).bytes();
        let request: ListStreamsRequest = parse(&body).unwrap();
        assert_eq!(request.limit, Some(7));
    }
    // A simple value without a meaning, undefined, and half and single floats.
    for value in ["e5", "f820", "f7", "f93c00", "fa3f800000"] {
        let mut body = hex("a2 61 78");
        body.extend(hex(value));
        body.extend(hex("65 4c696d6974 f9 4900"));
        let request: ListStreamsRequest = parse(&body).unwrap();
        assert_eq!(request.limit, Some(10), "{value}");
    }
    // As deep as is allowed, and one deeper.
    let nested = |levels: usize| {
        let mut body = Item::head_of("Unknown");
        body.extend([0x81].repeat(levels));
        body.push(0);
        is_map(&body)
    };
    assert!(nested(MAX_DEPTH - 1));
    assert!(!nested(MAX_DEPTH));
}

#[test]
fn a_flood_of_items_is_cut_and_refused() {
    let body = map(&[("Records", Item::List(vec![map(&[]); 100_000], true))]).bytes();
    let Err(Refused::Constraint(message)) = parse::<PutRecordsRequest<'_>>(&body) else {
        panic!("accepted")
    };
    assert!(
        message.starts_with("10 validation errors detected: "),
        "{message:.300}"
    );
}

/// A put, and the same put as a JSON text.
fn puts() -> impl Strategy<Value = (Item, String)> {
    let pieces = || proptest::collection::vec("[a-z0-9é]{0,30}", 1..4);
    let record = (
        pieces(),
        proptest::collection::vec(any::<Vec<u8>>(), 0..4),
        any::<[bool; 3]>(),
    );
    let records = proptest::collection::vec(record, 1..5);
    (pieces(), records, any::<[bool; 3]>()).prop_map(|(name, records, style)| {
        let text = |pieces: Vec<String>, split: bool| {
            if split {
                Item::TextParts(pieces)
            } else {
                Item::Text(pieces.concat())
            }
        };
        let mut json = Vec::new();
        let records = records
            .into_iter()
            .map(|(key, data, [endless, split, halved])| {
                json.push(serde_json::json!({
                    "PartitionKey": key.concat(), "Data": crate::b64::encode(&data.concat())
                }));
                let data = if halved {
                    Item::ByteParts(data)
                } else {
                    Item::Bytes(data.concat())
                };
                let entries = vec![
                    (Item::text("Data"), data),
                    (
                        text(vec!["Partition".into(), "Key".into()], split),
                        text(key, split),
                    ),
                    (Item::text("Unknown"), Item::Null),
                ];
                Item::Map(entries, endless)
            });
        let records = Item::List(records.collect(), style[0]);
        let body = serde_json::json!({"StreamName": name.concat(), "Records": json}).to_string();
        let entries = vec![
            (Item::text("StreamName"), text(name, style[1])),
            (Item::text("Records"), records),
        ];
        (Item::Map(entries, style[2]), body)
    })
}

fn plain(request: PutRecordsRequest<'_>) -> (Option<String>, Vec<(String, Bytes)>) {
    let records = request
        .records
        .unwrap_or_default()
        .into_iter()
        .map(|record| {
            let data = record.data.map(|data| data.to_bytes());
            let key = record.partition_key.map(shapes::Text::into_owned);
            (key.unwrap_or_default(), data.unwrap_or_default())
        });
    (
        request.stream_name.map(shapes::Text::into_owned),
        records.collect(),
    )
}

proptest! {
    #[test]
    fn cbor_and_json_say_the_same((item, json) in puts()) {
        let body = item.bytes();
        let decoded: PutRecordsRequest<'_> = shapes::decode_as(Encoding::Cbor, &body).unwrap();
        let same: PutRecordsRequest<'_> = shapes::decode(json.as_bytes()).unwrap();
        prop_assert!(is_map(&body));
        let written = to_vec(&decoded).unwrap();
        let again: PutRecordsRequest<'_> = shapes::decode_as(Encoding::Cbor, &written).unwrap();
        prop_assert_eq!(plain(again), plain(decoded.clone()));
        prop_assert_eq!(plain(decoded), plain(same));
    }

    #[test]
    fn s9_a_cut_body_is_refused((item, _) in puts(), at in any::<proptest::sample::Index>()) {
        let body = item.bytes();
        let cut = &body[..at.index(body.len())];
        prop_assert!(!is_map(cut));
        let refused = shapes::decode_as::<PutRecordsRequest<'_>>(Encoding::Cbor, cut);
        prop_assert!(refused.is_err());
    }

    #[test]
    fn s9_a_changed_byte_never_panics(
        (item, _) in puts(), at in any::<proptest::sample::Index>(), byte: u8
    ) {
        let mut body = item.bytes();
        let at = at.index(body.len());
        body[at] = byte;
        let _ = parse::<PutRecordsRequest<'_>>(&body);
        let _ = parse::<GetShardIteratorRequest>(&body);
    }

    #[test]
    fn s9_random_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let body = [b"\xbf".as_slice(), &body].concat();
        let _ = parse::<PutRecordsRequest<'_>>(&body);
        let _ = parse::<AddTagsToStreamRequest>(&body);
        let _ = is_map(&body);
    }

    #[test]
    fn numbers_and_times_round_trip(limit: i32, millis: i64) {
        let request = ListShardsRequest {
            max_results: Some(limit.into()),
            stream_creation_timestamp: Some(Timestamp { millis }),
            ..ListShardsRequest::default()
        };
        let bytes = to_vec(&request).unwrap();
        prop_assert_eq!(from_slice::<ListShardsRequest>(&bytes), Ok(request));
    }
}
