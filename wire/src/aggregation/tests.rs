//! The format against blobs that other libraries made, by properties, and against hostile bytes.

#![allow(clippy::arithmetic_side_effects)]

use super::*;
use proptest::prelude::*;
use serde::Deserialize;

/// What other libraries packed, and what they were given.
const FIXTURES: &str = include_str!("../../../tests/fixtures/aggregated.json");

#[derive(Deserialize)]
struct Fixture {
    name: String,
    made_by: String,
    data: String,
    user_records: Vec<FixtureRecord>,
}

#[derive(Deserialize)]
struct FixtureRecord {
    partition_key: String,
    explicit_hash_key: Option<String>,
    data: String,
}

impl Fixture {
    fn all() -> Vec<Fixture> {
        serde_json::from_str(FIXTURES).unwrap()
    }

    fn blob(&self) -> Bytes {
        crate::b64::decode(&self.data).unwrap()
    }

    fn contents(&self) -> Vec<UserRecord> {
        let record = |given: &FixtureRecord| UserRecord {
            partition_key: given.partition_key.as_str().into(),
            explicit_hash_key: given.explicit_hash_key.as_deref().map(Arc::from),
            data: crate::b64::decode(&given.data).unwrap(),
        };
        self.user_records.iter().map(record).collect()
    }
}

fn user_record(partition_key: &str, data: &'static str) -> UserRecord {
    UserRecord {
        partition_key: partition_key.into(),
        explicit_hash_key: None,
        data: Bytes::from_static(data.as_bytes()),
    }
}

fn entry(partition_key_index: u64) -> Entry {
    Entry {
        partition_key_index: Some(partition_key_index),
        explicit_hash_key_index: None,
        data: Some(Bytes::from_static(b"x")),
    }
}

fn aggregate(partition_keys: &[&str], records: Vec<Entry>) -> AggregatedRecord {
    AggregatedRecord {
        partition_key_table: partition_keys.iter().map(ToString::to_string).collect(),
        explicit_hash_key_table: Vec::new(),
        records,
    }
}

fn flaw_of(data: &Bytes) -> Flaw {
    match decode(data.clone()) {
        Decoded::Plain {
            data: given,
            flaw: Some(flaw),
        } => {
            assert_eq!(given, *data, "byte for byte");
            flaw
        }
        other => panic!("{other:?}"),
    }
}

fn assert_plain(data: &Bytes) {
    let plain = Decoded::Plain {
        data: data.clone(),
        flaw: None,
    };
    assert_eq!(decode(data.clone()), plain);
}

#[test]
fn reads_what_other_libraries_packed() {
    for fixture in Fixture::all() {
        let expected = Decoded::Aggregate(fixture.contents());
        let (name, made_by) = (&fixture.name, &fixture.made_by);
        assert_eq!(decode(fixture.blob()), expected, "{name} of {made_by}");
    }
}

/// Goal: what is packed here is read by others. Method: it is, byte for byte, what they pack; tags apart.
#[test]
fn packs_what_other_libraries_pack() {
    let mut compared = 0;
    for fixture in Fixture::all() {
        if fixture.name != "tags" {
            let (name, made_by) = (&fixture.name, &fixture.made_by);
            let packed = encode(&fixture.contents());
            assert_eq!(packed, fixture.blob(), "{name} of {made_by}");
            compared += 1;
        }
    }
    assert!(compared >= 6);
}

#[test]
fn payloads_are_slices_and_keys_are_shared() {
    let packed = encode(&[user_record("k", "one"), user_record("k", "two")]);
    let Decoded::Aggregate(records) = decode(packed.clone()) else {
        panic!("no aggregate")
    };
    let whole = packed.as_ptr_range();
    for record in &records {
        assert!(whole.contains(&record.data.as_ptr()), "copied");
    }
    assert!(Arc::ptr_eq(
        &records[0].partition_key,
        &records[1].partition_key
    ));
}

#[test]
fn the_hash_key_is_the_explicit_one_or_that_of_the_partition_key() {
    let mut record = user_record("a", "");
    assert_eq!(record.hash_key(), Some(HashKey::of_partition_key("a")));
    for (text, expected) in [
        ("0", Some(0)),
        ("007", Some(7)),
        ("340282366920938463463374607431768211455", Some(u128::MAX)),
        ("340282366920938463463374607431768211456", None),
        ("", None),
        ("-1", None),
        ("a", None),
    ] {
        record.explicit_hash_key = Some(text.into());
        assert_eq!(record.hash_key(), expected.map(HashKey), "{text:?}");
    }
}

/// Goal: nothing in a sound envelope is lost or half taken: what cannot be taken apart as a whole is a plain record that
/// says why.
#[test]
fn an_unsound_aggregate_is_a_plain_record() {
    let lacking = |change: fn(&mut Entry)| {
        let mut last = entry(0);
        change(&mut last);
        seal(&aggregate(&["key"], vec![entry(0), last]))
    };
    let table = [
        (seal(&aggregate(&["key"], Vec::new())), Flaw::Empty),
        (encode(&[]), Flaw::Empty),
        (
            seal(&aggregate(&["key"], vec![entry(0), entry(1)])),
            Flaw::Index { index: 1, keys: 1 },
        ),
        (
            seal(&aggregate(&[], vec![entry(0)])),
            Flaw::Index { index: 0, keys: 0 },
        ),
        (
            lacking(|entry| entry.partition_key_index = Some(u64::MAX)),
            Flaw::Index {
                index: u64::MAX,
                keys: 1,
            },
        ),
        (
            lacking(|entry| entry.explicit_hash_key_index = Some(0)),
            Flaw::Index { index: 0, keys: 0 },
        ),
        (
            lacking(|entry| entry.partition_key_index = None),
            Flaw::Incomplete,
        ),
        (lacking(|entry| entry.data = None), Flaw::Incomplete),
    ];
    for (data, expected) in table {
        assert_eq!(flaw_of(&data), expected);
    }
    let text = seal_bytes(b"no protocol buffer");
    assert!(matches!(flaw_of(&text), Flaw::Protobuf(_)));
}

fn seal_bytes(message: &[u8]) -> Bytes {
    Bytes::from([&MAGIC[..], message, &Md5::digest(message)[..]].concat())
}

/// Goal: entries of no content, which would take sixty times their size in memory, are refused before they are taken in.
#[test]
fn entries_of_nothing_are_refused_by_their_number() {
    let data = seal_bytes(&[0x1a, 0x00].repeat(1_000_000));
    assert_eq!(flaw_of(&data), Flaw::Incomplete);
}

#[test]
fn what_has_not_the_form_is_plain_and_has_no_flaw() {
    let packed = encode(&[user_record("k", "one")]);
    let oversized = [&MAGIC[..], &vec![0; DATA_MAX_BYTES]].concat();
    for data in [
        Bytes::new(),
        Bytes::from_static(b"plain"),
        Bytes::copy_from_slice(&MAGIC),
        Bytes::from([&MAGIC[..], &[0; DIGEST_BYTES - 1]].concat()),
        packed.slice(..packed.len() - 1),
        packed.slice(1..),
        Bytes::from(oversized),
    ] {
        assert_plain(&data);
    }
}

/// Text of one-byte and longer characters.
fn text(most: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<char>(), 0..most).prop_map(String::from_iter)
}

fn records() -> impl Strategy<Value = Vec<UserRecord>> {
    let keys = prop_oneof![text(20), "[ab]"];
    let hash_key = proptest::option::of(any::<u128>().prop_map(|key| key.to_string()));
    let data = proptest::collection::vec(any::<u8>(), 0..200);
    let record = (keys, hash_key, data).prop_map(|(key, hash_key, data)| UserRecord {
        partition_key: key.into(),
        explicit_hash_key: hash_key.map(Arc::from),
        data: data.into(),
    });
    proptest::collection::vec(record, 1..40)
}

proptest! {
    #[test]
    fn what_is_packed_is_unpacked(records in records()) {
        prop_assert_eq!(decode(encode(&records)), Decoded::Aggregate(records));
    }

    #[test]
    fn a_changed_byte_makes_an_aggregate_plain(records in records(), place: prop::sample::Index, change in 1..=u8::MAX) {
        let mut data = encode(&records).to_vec();
        let place = place.index(data.len());
        data[place] ^= change;
        let data = Bytes::from(data);
        prop_assert_eq!(decode(data.clone()), Decoded::Plain { data, flaw: None });
    }

    #[test]
    fn any_bytes_are_taken(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        assert_plain(&Bytes::from(data));
    }

    /// In a sound envelope too, and when they are nearly a protocol buffer.
    #[test]
    fn any_message_is_taken_whole_or_not_at_all(
        message in proptest::collection::vec(prop_oneof![Just(0x0a), Just(0x12), Just(0x1a), Just(0x08), 0..8u8, any::<u8>()], 0..60),
    ) {
        let data = seal_bytes(&message);
        match decode(data.clone()) {
            Decoded::Plain { data: given, .. } => prop_assert_eq!(given, data),
            Decoded::Aggregate(records) => prop_assert!(!records.is_empty()),
        }
    }

    /// A sound aggregate whose message was changed and sealed again.
    #[test]
    fn a_changed_message_is_taken_whole_or_not_at_all(records in records(), place: prop::sample::Index, byte: u8) {
        let packed = encode(&records);
        let mut message = packed[MAGIC.len()..packed.len() - DIGEST_BYTES].to_vec();
        let place = place.index(message.len());
        message[place] = byte;
        let data = seal_bytes(&message);
        match decode(data.clone()) {
            Decoded::Plain { data: given, .. } => prop_assert_eq!(given, data),
            Decoded::Aggregate(changed) => prop_assert!(!changed.is_empty()),
        }
    }
}
