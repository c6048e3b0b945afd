//! Records put in batches, through a split and a merge, and read back by GetRecords; errors by their types.

use crate::generated;
use crate::sdk::{Carrier, client, create, server};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};
use std::collections::{BTreeMap, HashSet, VecDeque};

const RECORDS: usize = 3_000;
const KEYS: usize = 40;

/// Data of the `n`th record: its number, then bytes that are no text.
fn data(n: usize) -> Vec<u8> {
    let mut data = n.to_be_bytes().to_vec();
    data.extend((0..64).map(|byte| byte ^ 0xff));
    data
}

pub(crate) fn number(data: &[u8]) -> usize {
    let (number, rest) = data.split_first_chunk().expect("a number");
    assert_eq!(rest.len(), 64);
    usize::from_be_bytes(*number)
}

/// Puts records `from..to`, 100 at a time.
pub(crate) async fn put(client: &Client, stream: &str, from: usize, to: usize) {
    for batch in (from..to).collect::<Vec<_>>().chunks(100) {
        let entries = batch.iter().map(|&n| {
            PutRecordsRequestEntry::builder()
                .partition_key(format!("key-{}", n % KEYS))
                .data(Blob::new(data(n)))
                .build()
                .expect("an entry")
        });
        let put = client.put_records().stream_name(stream);
        let put = put.set_records(Some(entries.collect())).send().await;
        assert_eq!(put.expect("put").failed_record_count, Some(0));
    }
}

/// Splits the first open shard in half, then merges the last two.
pub(crate) async fn reshard(client: &Client, stream: &str) {
    let open = open_shards(client, stream).await;
    let (first, start, end) = &open[0];
    let middle = start + (end - start) / 2;
    let split = client.split_shard().stream_name(stream);
    let split = split
        .shard_to_split(first)
        .new_starting_hash_key(middle.to_string());
    split.send().await.expect("split");
    let open = open_shards(client, stream).await;
    let merge = client.merge_shards().stream_name(stream);
    let merge = merge.shard_to_merge(&open[open.len() - 2].0);
    let merge = merge.adjacent_shard_to_merge(&open[open.len() - 1].0);
    merge.send().await.expect("merged");
}

/// Open shards with their ranges, in the ranges' order.
async fn open_shards(client: &Client, stream: &str) -> Vec<(String, u128, u128)> {
    let listed = client.list_shards().stream_name(stream).send().await;
    let listed = listed.expect("listed").shards.expect("shards").into_iter();
    let open = listed.filter(|shard| {
        let numbers = shard.sequence_number_range.as_ref().expect("numbers");
        numbers.ending_sequence_number.is_none()
    });
    let mut open: Vec<_> = open
        .map(|shard| {
            let range = shard.hash_key_range.expect("a range");
            let key = |text: &str| text.parse().expect("a hash key");
            (
                shard.shard_id,
                key(&range.starting_hash_key),
                key(&range.ending_hash_key),
            )
        })
        .collect();
    open.sort_by_key(|(_, start, _)| *start);
    open
}

/// What arrived, by key; asserts that each record came once and in its key's order.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    by_key: BTreeMap<String, Vec<usize>>,
}

impl Arrived {
    pub(crate) fn add(&mut self, key: Option<&str>, data: &[u8]) {
        let key = key.expect("a partition key");
        let number = number(data);
        assert_eq!(key, format!("key-{}", number % KEYS));
        self.by_key.entry(key.to_owned()).or_default().push(number);
    }

    pub(crate) fn count(&self) -> usize {
        self.by_key.values().map(Vec::len).sum()
    }

    pub(crate) fn assert_whole(&self, records: usize) {
        assert_eq!(self.count(), records);
        for (key, numbers) in &self.by_key {
            assert!(numbers.is_sorted_by(|a, b| a < b), "{key}: {numbers:?}");
        }
    }
}

/// Reads every shard to its end or its tip, children after their parents.
async fn read_all(client: &Client, stream: &str) -> Arrived {
    let listed = client.list_shards().stream_name(stream).send().await;
    let mut arrived = Arrived::default();
    let mut seen = HashSet::new();
    let roots = listed.expect("listed").shards.expect("shards").into_iter();
    let mut waiting: VecDeque<String> = roots
        .filter(|shard| shard.parent_shard_id.is_none())
        .map(|shard| shard.shard_id)
        .collect();
    let mut ended = HashSet::new();
    while let Some(shard) = waiting.pop_front() {
        if !seen.insert(shard.clone()) {
            continue;
        }
        let iterator = client.get_shard_iterator().stream_name(stream);
        let iterator = iterator.shard_id(&shard);
        let iterator = iterator.shard_iterator_type(ShardIteratorType::TrimHorizon);
        let mut iterator = iterator.send().await.expect("an iterator").shard_iterator;
        while let Some(token) = iterator {
            let page = client.get_records().shard_iterator(token).limit(700);
            let page = page.send().await.expect("records");
            for record in &page.records {
                arrived.add(record.partition_key(), record.data.as_ref());
                assert!(record.approximate_arrival_timestamp.is_some());
            }
            iterator = page.next_shard_iterator;
            if iterator.is_some() && page.millis_behind_latest == Some(0) {
                break;
            }
            if iterator.is_none() {
                ended.insert(shard.clone());
                let children = page.child_shards.expect("children at the end of a shard");
                let ready = children
                    .into_iter()
                    .filter(|child| child.parent_shards.iter().all(|one| ended.contains(one)));
                waiting.extend(ready.map(|child| child.shard_id));
            }
        }
    }
    arrived
}

async fn every_record_through_a_split_and_a_merge(carrier: Carrier) {
    let server = server().await;
    let client = client(&server, carrier);
    let arn = create(&client, "orders", 2).await;
    assert_eq!(
        arn,
        "arn:aws:kinesis:eu-central-1:000000000000:stream/orders"
    );
    put(&client, "orders", 0, RECORDS / 2).await;
    reshard(&client, "orders").await;
    put(&client, "orders", RECORDS / 2, RECORDS).await;
    read_all(&client, "orders").await.assert_whole(RECORDS);
    let delete = client.delete_stream().stream_name("orders").send();
    delete.await.expect("deleted");
    server.shutdown().await;
}

#[tokio::test]
async fn every_record_comes_back_over_http() {
    every_record_through_a_split_and_a_merge(Carrier::Plain).await;
}

#[tokio::test]
async fn every_record_comes_back_over_tls() {
    every_record_through_a_split_and_a_merge(Carrier::Tls).await;
}

/// README's table of clients has the version that is locked here.
#[test]
fn readme_has_a_row_of_this_version() {
    let lock = include_str!("../Cargo.lock");
    let package = lock
        .split("[[package]]")
        .find(|one| one.contains("\"aws-sdk-kinesis\""));
    let version = package.and_then(|package| package.split("version = \"").nth(1));
    let version = version
        .and_then(|rest| rest.split('"').next())
        .expect("a version");
    let done = "streams, records and errors by their types, SubscribeToShard, a split and a merge; plain and over TLS";
    generated::row("clients", "AWS SDK for Rust", &[version, done, "works"]);
}

#[tokio::test]
async fn errors_have_their_types() {
    let server = server().await;
    let client = client(&server, Carrier::Plain);
    let missing = client.describe_stream_summary().stream_name("none").send();
    let missing = missing.await.expect_err("no stream").into_service_error();
    assert!(missing.is_resource_not_found_exception(), "{missing:?}");
    assert_eq!(
        missing.meta().message(),
        Some("Stream none under account 000000000000 not found.")
    );
    create(&client, "orders", 1).await;
    let again = client.create_stream().stream_name("orders").shard_count(1);
    let again = again.send().await.expect_err("exists").into_service_error();
    assert!(again.is_resource_in_use_exception(), "{again:?}");
    let odd = client.get_records().shard_iterator("odd").send();
    let odd = odd.await.expect_err("no iterator").into_service_error();
    assert!(odd.is_invalid_argument_exception(), "{odd:?}");
    let put = client.put_record().stream_name("orders").partition_key("");
    let put = put.data(Blob::new("x")).send().await;
    let put = put.expect_err("no key").into_service_error();
    assert_eq!(put.meta().code(), Some("ValidationException"), "{put:?}");
    server.shutdown().await;
}
