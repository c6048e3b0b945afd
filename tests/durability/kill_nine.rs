//! S1 and S2: kill -9 at any instant loses nothing that was acknowledged and reuses no number.

use crate::SERVER;
use crate::reshard::{Resharder, open_ranges, reshards_hold};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use support::check::{Violation, extends, stream_is_whole, tiles};
use support::client::{CallError, RawClient, text};
use support::history::{Acked, ReadShard, Sequence, Written};
use support::load::{Load, Shape};
use support::reader::{read_on, read_stream, shard_of};
use support::{ServerProcess, alone, scaled, seeded};
use tokio::time::Instant;

const STREAM: &str = "kill-nine";
/// The resharder works in every third cycle.
const RESHARD_EVERY: usize = 3;

/// Everything read so far. After each cycle it reads on from where it was, so that a check costs what
/// the cycle wrote, and whatever was read once must still be there at the end.
#[derive(Debug, Default)]
struct Witness {
    shards: BTreeMap<String, ReadShard>,
    places: HashMap<Written, (String, Sequence)>,
}

impl Witness {
    async fn read_on(&mut self, client: &RawClient) -> Result<(), CallError> {
        for listed in client.list_shards(STREAM).await? {
            let now = shard_of(&listed);
            let known = self.shards.entry(now.shard.clone()).or_insert(ReadShard {
                closed: false,
                ..now.clone()
            });
            if known.closed {
                continue;
            }
            let mut input = json!({"StreamName": STREAM, "ShardId": now.shard});
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

    fn has(&self, acked: &[Acked]) -> Result<(), Violation> {
        for ack in acked {
            let expected = (ack.shard.clone(), ack.sequence.clone());
            match self.places.get(&ack.written) {
                Some(found) if *found == expected => {}
                found => return Err(format!("S1: {ack:?} is at {found:?}")),
            }
        }
        Ok(())
    }

    fn shards(&self) -> Vec<ReadShard> {
        self.shards.values().cloned().collect()
    }
}

/// One life of the server under load and its end by kill -9; how long the next start took.
async fn life(
    server: &mut ServerProcess,
    resharder: Option<Resharder>,
    length: Duration,
) -> (Option<Resharder>, Duration) {
    let resharding = resharder.map(|resharder| tokio::spawn(resharder.until_unanswered()));
    tokio::time::sleep(length).await;
    server.kill9().await;
    let resharder = match resharding {
        Some(task) => Some(task.await.unwrap()),
        None => None,
    };
    let began = Instant::now();
    server.restart().await;
    (resharder, began.elapsed())
}

/// Kills the server again and again under 16 writers, some of the time amid splits and merges. After
/// every restart what was acknowledged since the last one is read back; at the end all of it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_s2_kill_nine() {
    let _alone = alone().await;
    let mut random = seeded("s1_s2_kill_nine");
    let cycles = scaled(25, 1000);
    let mut server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 4).await;
    let shape = Shape {
        writers: 16,
        pause: Duration::from_millis(10),
        batch: 4,
    };
    let load = Load::start(&client, STREAM, shape);
    let mut resharder = Some(Resharder::new(&client, STREAM, random.fork()));
    let mut witness = Witness::default();
    let mut checked = 0;
    let mut restarts = Vec::new();

    for cycle in 0..cycles {
        let length = Duration::from_millis(random.u64(50..500));
        let resharding = if cycle % RESHARD_EVERY == 1 {
            resharder.take()
        } else {
            None
        };
        let (back, restart) = life(&mut server, resharding, length).await;
        resharder = resharder.or(back);
        restarts.push(restart);

        let new = load.acked_since(checked);
        checked += new.len();
        witness.read_on(&client).await.unwrap();
        witness
            .has(&new)
            .unwrap_or_else(|wrong| panic!("cycle {cycle}: {wrong}"));
        let listed = client.list_shards(STREAM).await.unwrap();
        tiles(&open_ranges(&listed)).unwrap();
        let acked_reshards = resharder.as_ref().map_or(&[][..], Resharder::acked);
        reshards_hold(acked_reshards, &listed)
            .unwrap_or_else(|wrong| panic!("cycle {cycle}: {wrong}"));
    }

    let (acked, refusals) = load.stop().await;
    assert_eq!(refusals, [], "nothing but the kills came in between");
    let whole = read_stream(&client, STREAM).await.unwrap();
    stream_is_whole(&acked, &whole).unwrap();
    extends(&witness.shards(), &whole).unwrap();
    let reshards = resharder.map_or(0, |resharder| resharder.acked().len());
    assert!(
        acked.len() >= cycles * 16,
        "{} acknowledged: hardly a load",
        acked.len()
    );
    assert!(
        reshards >= cycles / RESHARD_EVERY,
        "{reshards} reshards: hardly any"
    );
    restarts.sort_unstable();
    println!(
        "kill -9: {cycles} cycles, {} records acknowledged, lost 0, {reshards} reshards, {} shards; \
         restart median {:?}, longest {:?}",
        acked.len(),
        whole.len(),
        restarts[restarts.len() / 2],
        restarts[restarts.len() - 1],
    );
}
