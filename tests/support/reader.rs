//! Reading a stream from end to end: every shard, parents before children, through raw calls.

use crate::client::{CallError, RawClient, decode_base64, text};
use crate::history::{ReadRecord, ReadShard, Sequence, Written};
use serde_json::{Value, json};

/// A shard from `ListShards`, without its records.
pub fn shard_of(listed: &Value) -> ReadShard {
    let parents = ["ParentShardId", "AdjacentParentShardId"].iter();
    ReadShard {
        shard: text(listed, "ShardId"),
        parents: parents
            .filter_map(|name| listed[name].as_str().map(str::to_owned))
            .collect(),
        closed: is_closed(listed),
        records: Vec::new(),
    }
}

/// Whether a listed shard takes no more records.
pub fn is_closed(listed: &Value) -> bool {
    listed["SequenceNumberRange"]["EndingSequenceNumber"].is_string()
}

/// A listed shard's hash keys, both ends included.
pub fn range_of(listed: &Value) -> (u128, u128) {
    let range = &listed["HashKeyRange"];
    let key = |name: &str| {
        text(range, name)
            .parse()
            .expect("a hash key is a number below 2^128")
    };
    (key("StartingHashKey"), key("EndingHashKey"))
}

/// Everything the stream holds, parents before children (shard ids rise from parent to child). A closed
/// shard is read to its end, an open one to its tip.
pub async fn read_stream(client: &RawClient, stream: &str) -> Result<Vec<ReadShard>, CallError> {
    let mut listed = client.list_shards(stream).await?;
    listed.sort_by_key(|shard| text(shard, "ShardId"));
    let mut shards = Vec::new();
    for shard in &listed {
        let mut shard = shard_of(shard);
        shard.records = read_shard(client, stream, &shard.shard, shard.closed).await?;
        shards.push(shard);
    }
    Ok(shards)
}

/// The records of one shard from the trim horizon, to the end of a closed one or to the tip.
pub async fn read_shard(
    client: &RawClient,
    stream: &str,
    shard: &str,
    closed: bool,
) -> Result<Vec<ReadRecord>, CallError> {
    let iterator = client.trim_horizon(stream, shard).await?;
    read_on(client, iterator, closed).await
}

/// The records from an iterator on, to the end of a closed shard or to the tip of an open one.
pub async fn read_on(
    client: &RawClient,
    iterator: String,
    closed: bool,
) -> Result<Vec<ReadRecord>, CallError> {
    let mut records = Vec::new();
    let mut iterator = Some(iterator);
    while let Some(at) = iterator {
        let page = client
            .call("GetRecords", &json!({"ShardIterator": at}))
            .await?;
        records.extend(records_of(&page));
        iterator = page["NextShardIterator"].as_str().map(str::to_owned);
        if !closed && page["MillisBehindLatest"] == 0 {
            break;
        }
    }
    Ok(records)
}

/// The records of an answer to `GetRecords`.
pub fn records_of(page: &Value) -> Vec<ReadRecord> {
    let records = page["Records"]
        .as_array()
        .unwrap_or_else(|| panic!("no Records in {page}"));
    records
        .iter()
        .map(|record| {
            let written = Written::parse(&decode_base64(&text(record, "Data")));
            assert_eq!(
                record["PartitionKey"], written.writer,
                "key and payload of one record"
            );
            ReadRecord {
                written,
                sequence: Sequence::new(&text(record, "SequenceNumber")),
            }
        })
        .collect()
}
