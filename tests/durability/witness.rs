//! A reader that goes on where it was after each of the server's lives, and judges by what it has seen.

use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use support::check::Violation;
use support::client::{CallError, RawClient, text};
use support::history::{Acked, ReadShard, Sequence, Written};
use support::reader::{read_on, shard_of};

/// Everything read so far. After each cycle it reads on from where it was, so that a check costs what
/// the cycle wrote, and whatever was read once must still be there at the end.
#[derive(Debug)]
pub(crate) struct Witness {
    stream: &'static str,
    shards: BTreeMap<String, ReadShard>,
    places: HashMap<Written, (String, Sequence)>,
}

impl Witness {
    /// Has read nothing yet.
    pub(crate) fn of(stream: &'static str) -> Witness {
        Witness {
            stream,
            shards: BTreeMap::new(),
            places: HashMap::new(),
        }
    }

    /// Reads what has come since; panics if a record is there a second time.
    pub(crate) async fn read_on(&mut self, client: &RawClient) -> Result<(), CallError> {
        for listed in client.list_shards(self.stream).await? {
            let now = shard_of(&listed);
            let known = self.shards.entry(now.shard.clone()).or_insert(ReadShard {
                closed: false,
                ..now.clone()
            });
            if known.closed {
                continue;
            }
            let mut input = json!({"StreamName": self.stream, "ShardId": now.shard});
            match known.records.last() {
                None => input["ShardIteratorType"] = json!("TRIM_HORIZON"),
                Some(last) => {
                    input["ShardIteratorType"] = json!("AFTER_SEQUENCE_NUMBER");
                    input["StartingSequenceNumber"] = json!(last.sequence.as_str());
                }
            }
            let output = client.call("GetShardIterator", &input).await?;
            let new = read_on(client, text(&output, "ShardIterator"), now.closed).await?;
            for record in &new {
                let place = (now.shard.clone(), record.sequence.clone());
                let before = self.places.insert(record.written.clone(), place);
                assert_eq!(before, None, "S2: {record:?} is there twice");
            }
            known.records.extend(new);
            known.closed = now.closed;
        }
        Ok(())
    }

    /// S1: all of these were read, each at the place it was acknowledged with.
    pub(crate) fn has(&self, acked: &[Acked]) -> Result<(), Violation> {
        for ack in acked {
            let expected = (ack.shard.clone(), ack.sequence.clone());
            match self.places.get(&ack.written) {
                Some(found) if *found == expected => {}
                found => return Err(format!("S1: {ack:?} is at {found:?}")),
            }
        }
        Ok(())
    }

    /// All that was read.
    pub(crate) fn shards(&self) -> Vec<ReadShard> {
        self.shards.values().cloned().collect()
    }
}
