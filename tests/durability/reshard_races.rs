//! S4 and S5 under everything at once: splits, merges and changes of the shard count race with each other and with writers,
//! and the server is killed amid them.

use crate::SERVER;
use crate::reshard::{Reshard, open_ranges, reshards_hold};
use crate::sealed::ends_hold;
use crate::witness::Witness;
use md5::{Digest, Md5};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::check::{Violation, extends, stream_is_whole, tiles};
use support::client::{CallError, RawClient, encode_base64, text};
use support::history::{Acked, Sequence, Written};
use support::load::{Load, Shape};
use support::reader::{is_closed, range_of, read_stream};
use support::{ServerProcess, alone, scaled, seeded};

const STREAM: &str = "races";
/// Who reshards at the same time.
const RACERS: u64 = 3;
/// About how many shards are open.
const OPEN_SHARDS: std::ops::RangeInclusive<usize> = 3..=10;
/// The longest pause from one reshard of a racer to its next.
const PAUSE: Duration = Duration::from_millis(40);
/// What a reshard is told that came too late or too early.
const LOST_RACE: &str = "InvalidArgumentException";

/// What the racers did and were told.
#[derive(Debug, Default)]
struct Races {
    acked: Vec<Reshard>,
    scalings: usize,
    lost: usize,
    /// Records put into children at once, with their hash keys.
    probes: Vec<(Acked, u128)>,
    next_probe: u64,
}

impl Races {
    fn done(&self) -> usize {
        self.acked.len() + self.scalings
    }
}

/// One who splits, merges and scales at random, whatever the others do.
#[derive(Debug, Clone)]
struct Racer {
    client: RawClient,
    races: Arc<Mutex<Races>>,
}

impl Racer {
    /// Goes on until the server does not answer.
    async fn run(self, mut random: fastrand::Rng) {
        loop {
            match self.step(&mut random).await {
                Ok(()) => {}
                Err(CallError::Unanswered(_)) => return,
                Err(CallError::Refused { code, message, .. }) => {
                    assert_eq!(code, LOST_RACE, "{message}");
                    self.races.lock().unwrap().lost += 1;
                }
            }
            tokio::time::sleep(PAUSE.mul_f64(random.f64())).await;
        }
    }

    async fn step(&self, random: &mut fastrand::Rng) -> Result<(), CallError> {
        let input = json!({"StreamName": STREAM, "ShardFilter": {"Type": "AT_LATEST"}});
        let page = self.client.call("ListShards", &input).await?;
        let mut open = page["Shards"].as_array().cloned().unwrap_or_default();
        open.sort_by_key(range_of);
        // The others do the same with the same picture: many of these come too late.
        let (few, many) = (
            open.len() <= *OPEN_SHARDS.start(),
            open.len() >= *OPEN_SHARDS.end(),
        );
        match random.u8(0..6) {
            0 => {
                let (least, most) = (open.len().div_ceil(2).max(2), (open.len() * 2).min(8));
                let target = random.usize(least..=most.max(least));
                let input = json!({"StreamName": STREAM, "TargetShardCount": target,
                                   "ScalingType": "UNIFORM_SCALING"});
                self.client.call("UpdateShardCount", &input).await?;
                self.races.lock().unwrap().scalings += 1;
                Ok(())
            }
            1..=3 if !many => self.split(&open, random).await,
            4..=5 if few => self.split(&open, random).await,
            _ => self.merge(&open, random).await,
        }
    }

    async fn split(&self, open: &[Value], random: &mut fastrand::Rng) -> Result<(), CallError> {
        let shard = random.choice(open).expect("open shards");
        let (start, end) = range_of(shard);
        let at = random.u128(start + 2..end);
        let shard = text(shard, "ShardId");
        let input = json!({"StreamName": STREAM, "ShardToSplit": shard,
                           "NewStartingHashKey": at.to_string()});
        self.client.call("SplitShard", &input).await?;
        let reshard = Reshard::Split {
            shard: shard.clone(),
            at,
        };
        self.races.lock().unwrap().acked.push(reshard);
        self.probe(&shard, if random.bool() { at } else { start })
            .await
    }

    async fn merge(&self, open: &[Value], random: &mut fastrand::Rng) -> Result<(), CallError> {
        let first = random.usize(..open.len() - 1);
        let shards = [first, first + 1].map(|at| text(&open[at], "ShardId"));
        let input = json!({"StreamName": STREAM, "ShardToMerge": shards[0],
                           "AdjacentShardToMerge": shards[1]});
        self.client.call("MergeShards", &input).await?;
        let reshard = Reshard::Merge {
            shards: shards.clone(),
        };
        self.races.lock().unwrap().acked.push(reshard);
        self.probe(&shards[1], range_of(&open[first + 1]).0).await
    }

    /// Puts a record where a parent was; when it is there, the parent has ended, and says who goes on.
    async fn probe(&self, parent: &str, hash_key: u128) -> Result<(), CallError> {
        let n = {
            let mut races = self.races.lock().unwrap();
            races.next_probe += 1;
            races.next_probe
        };
        let writer = format!("probe-{n}");
        let written = Written { writer, n: 1 };
        let data = encode_base64(written.payload().as_bytes());
        let input = json!({"StreamName": STREAM, "PartitionKey": written.writer, "Data": data,
                           "ExplicitHashKey": hash_key.to_string()});
        let put = self.client.call("PutRecord", &input).await?;
        let (shard, sequence) = (text(&put, "ShardId"), text(&put, "SequenceNumber"));
        assert_ne!(
            shard, parent,
            "S5: a record was put into a shard that was closed"
        );
        let acked = Acked {
            written,
            shard,
            sequence: Sequence::new(&sequence),
        };
        self.races.lock().unwrap().probes.push((acked, hash_key));
        let children = ending(&self.client, parent).await?;
        assert!(!children.is_empty(), "{parent} ends without children");
        Ok(())
    }
}

/// The children that a closed shard names at its end; panics if there is more to come.
async fn ending(client: &RawClient, shard: &str) -> Result<Vec<String>, CallError> {
    let input = json!({"StreamName": STREAM, "ShardId": shard, "ShardIteratorType": "LATEST"});
    let output = client.call("GetShardIterator", &input).await?;
    let input = json!({"ShardIterator": text(&output, "ShardIterator")});
    let page = client.call("GetRecords", &input).await?;
    assert!(
        page["NextShardIterator"].is_null() && page["Records"] == json!([]),
        "{shard} is closed and goes on: {page}"
    );
    let children = page["ChildShards"].as_array().into_iter().flatten();
    Ok(children.map(|child| text(child, "ShardId")).collect())
}

/// Every shard but the first ones comes from closed parents whose hash keys it took over, and the children of a closed shard
/// have all of its hash keys, once; an open one has no children. So every key had one owner at every time.
fn lineage_is_complete(listed: &[Value], first_shards: usize) -> Result<(), Violation> {
    let by_id: HashMap<String, &Value> = listed
        .iter()
        .map(|shard| (text(shard, "ShardId"), shard))
        .collect();
    let mut children: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    let mut orphans = 0;
    for shard in listed {
        let parents = parents_of(shard);
        orphans += usize::from(parents.is_empty());
        for parent in parents {
            children.entry(parent).or_default().push(shard);
        }
    }
    if orphans != first_shards {
        return Err(format!(
            "S4: {orphans} shards without a parent, not {first_shards}"
        ));
    }
    for parent in children.keys() {
        let closed = by_id.get(parent).is_some_and(|shard| is_closed(shard));
        if !closed {
            return Err(format!("S5: {parent} has children and is not closed"));
        }
    }
    for shard in listed.iter().filter(|shard| is_closed(shard)) {
        let id = text(shard, "ShardId");
        let (start, end) = range_of(shard);
        let mut next = Some(start);
        let mut taken: Vec<(u128, u128)> = children
            .get(&id)
            .into_iter()
            .flatten()
            .map(|child| range_of(child))
            .map(|(from, to)| (from.max(start), to.min(end)))
            .collect();
        taken.sort_unstable();
        for (from, to) in &taken {
            if next != Some(*from) || to < from {
                return Err(format!("S4: the children of {id} have {taken:?} of it"));
            }
            next = to.checked_add(1);
        }
        if taken.last().map(|(_, to)| *to) != Some(end) {
            return Err(format!("S4: the children of {id} have {taken:?} of it"));
        }
    }
    Ok(())
}

fn parents_of(shard: &Value) -> Vec<String> {
    let parents = ["ParentShardId", "AdjacentParentShardId"].iter();
    let parents = parents.filter_map(|name| shard[name].as_str());
    parents.map(str::to_owned).collect()
}

/// Every acknowledged record went to a shard that has its hash key.
fn went_home(acked: &[(Acked, u128)], listed: &[Value]) -> Result<(), Violation> {
    let ranges: HashMap<String, (u128, u128)> = listed
        .iter()
        .map(|shard| (text(shard, "ShardId"), range_of(shard)))
        .collect();
    for (ack, hash_key) in acked {
        match ranges.get(&ack.shard) {
            Some((start, end)) if (start..=end).contains(&hash_key) => {}
            range => return Err(format!("S4: {ack:?} of {hash_key} is in {range:?}")),
        }
    }
    Ok(())
}

fn with_hash_keys(acked: Vec<Acked>) -> Vec<(Acked, u128)> {
    let hash_key = |ack: &Acked| {
        let digest: [u8; 16] = Md5::digest(ack.written.writer.as_bytes()).into();
        u128::from_be_bytes(digest)
    };
    let with = acked.into_iter().map(|ack| {
        let hash_key = hash_key(&ack);
        (ack, hash_key)
    });
    with.collect()
}

/// Each closed shard ends, and names the children that the listing gives it.
async fn every_end_names_its_children(client: &RawClient, listed: &[Value]) {
    let mut children: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for shard in listed {
        for parent in parents_of(shard) {
            children
                .entry(parent)
                .or_default()
                .insert(text(shard, "ShardId"));
        }
    }
    for shard in listed.iter().filter(|shard| is_closed(shard)) {
        let id = text(shard, "ShardId");
        let named = ending(client, &id).await.unwrap();
        let named: BTreeSet<String> = named.into_iter().collect();
        assert_eq!(Some(&named), children.get(&id), "the children of {id}");
    }
}

/// What holds after every life of the server.
fn verdict(witness: &Witness, new: &[Acked], races: &Races, listed: &[Value]) {
    let verdict = witness
        .has(new)
        .and_then(|()| tiles(&open_ranges(listed)))
        .and_then(|()| reshards_hold(&races.acked, listed))
        .and_then(|()| lineage_is_complete(listed, 2));
    verdict.unwrap_or_else(|wrong| panic!("after {} reshards: {wrong}", races.done()));
}

/// Sixteen writers and three resharders until so many reshards were acknowledged; every 40 to 400 ms the server is killed. After
/// each start the open shards tile, the lineage is complete and every acknowledged record and reshard is there; what was read
/// from a closed shard once is all it ever holds. As soon as a reshard is acknowledged, a record goes to a child and the parent
/// has ended. At the end every record is there once, on the shard that has its hash key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_s5_races_of_reshards_under_load_and_kills() {
    let _alone = alone().await;
    let goal = scaled(40, 1000);
    let mut random = seeded("s4_s5_races");
    let mut server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 2).await;
    let shape = Shape {
        writers: 16,
        pause: Duration::from_millis(4),
        batch: 4,
        padding_bytes: 0,
    };
    let load = Load::start(&client, STREAM, shape);
    let races: Arc<Mutex<Races>> = Arc::default();
    let mut witness = Witness::of(STREAM);
    let (mut kills, mut checked) = (0, 0);
    while races.lock().unwrap().done() < goal {
        let racers = (0..RACERS).map(|_| {
            let (client, races) = (client.clone(), Arc::clone(&races));
            tokio::spawn(Racer { client, races }.run(random.fork()))
        });
        let racers: Vec<_> = racers.collect();
        tokio::time::sleep(Duration::from_millis(random.u64(40..400))).await;
        server.kill9().await;
        for racer in racers {
            racer.await.unwrap();
        }
        kills += 1;
        server.restart().await;
        let new = load.acked_since(checked);
        checked += new.len();
        witness.read_on(&client).await.unwrap();
        let listed = client.list_shards(STREAM).await.unwrap();
        verdict(&witness, &new, &races.lock().unwrap(), &listed);
    }
    let (acked, refusals) = load.stop().await;
    assert_eq!(refusals, [], "a reshard is nothing a writer sees");

    let listed = client.list_shards(STREAM).await.unwrap();
    let whole = read_stream(&client, STREAM).await.unwrap();
    let races = std::mem::take(&mut *races.lock().unwrap());
    let mut all = with_hash_keys(acked);
    all.extend(races.probes.iter().cloned());
    went_home(&all, &listed).unwrap();
    let acked: Vec<Acked> = all.into_iter().map(|(ack, _)| ack).collect();
    stream_is_whole(&acked, &whole).unwrap();
    extends(&witness.shards(), &whole).unwrap();
    ends_hold(&listed, &whole).unwrap();
    every_end_names_its_children(&client, &listed).await;
    let (splits_and_merges, scalings) = (races.acked.len(), races.scalings);
    println!(
        "races: {splits_and_merges} splits and merges, {scalings} scalings, {kills} kills, {} shards, {} records \
         acknowledged, {} of them into children at once; {} races lost",
        listed.len(),
        acked.len(),
        races.probes.len(),
        races.lost
    );
    assert!(races.lost > 0, "nobody raced");
    assert!(acked.len() >= goal * 5, "hardly a load");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(id: &str, parents: &[&str], range: (u128, u128), closed: bool) -> Value {
        let mut shard = json!({
            "ShardId": id,
            "HashKeyRange": {"StartingHashKey": range.0.to_string(), "EndingHashKey": range.1.to_string()},
            "SequenceNumberRange": {"StartingSequenceNumber": "1"},
        });
        if closed {
            shard["SequenceNumberRange"]["EndingSequenceNumber"] = json!("2");
        }
        let names = ["ParentShardId", "AdjacentParentShardId"];
        for (name, parent) in names.iter().zip(parents) {
            shard[*name] = json!(parent);
        }
        shard
    }

    /// A split of 0..=99 at 40, and half of it merged with the neighbour 100..=199.
    fn sound() -> Vec<Value> {
        vec![
            shard("a", &[], (0, 99), true),
            shard("b", &[], (100, 199), true),
            shard("c", &["a"], (0, 39), false),
            shard("d", &["a"], (40, 99), true),
            shard("e", &["d", "b"], (40, 199), false),
        ]
    }

    #[test]
    fn a_lineage_with_a_hole_a_double_or_a_loss_is_noticed() {
        lineage_is_complete(&sound(), 2).unwrap();
        let with = |at: usize, shard: Value| {
            let mut listed = sound();
            listed[at] = shard;
            lineage_is_complete(&listed, 2)
        };
        for (what, at, changed) in [
            ("a hole", 2, shard("c", &["a"], (0, 38), false)),
            ("a double", 2, shard("c", &["a"], (0, 40), false)),
            ("a parent open", 3, shard("d", &["a"], (40, 99), false)),
            (
                "an edge that is gone",
                4,
                shard("e", &["d"], (40, 199), false),
            ),
            ("an orphan", 4, shard("e", &[], (40, 199), false)),
        ] {
            assert!(with(at, changed).is_err(), "{what}");
        }
        assert!(
            lineage_is_complete(&sound()[..4], 2).is_err(),
            "no children"
        );
    }

    #[test]
    fn a_record_in_the_wrong_shard_is_noticed() {
        let written = Written {
            writer: "w".to_owned(),
            n: 1,
        };
        let ack = |shard: &str| Acked {
            written: written.clone(),
            shard: shard.to_owned(),
            sequence: Sequence::new("7"),
        };
        went_home(&[(ack("c"), 39), (ack("d"), 40)], &sound()).unwrap();
        assert!(went_home(&[(ack("c"), 40)], &sound()).is_err());
        assert!(went_home(&[(ack("x"), 40)], &sound()).is_err());
    }
}
