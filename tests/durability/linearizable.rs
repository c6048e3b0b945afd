//! Linearizability of a stream over the wire, kills included: what concurrent clients are told about its shards and its records is
//! what they would have been told one call at a time, each at some moment between its request and its answer. A call that a kill left
//! without an answer happened before the kill or never.
//!
//! The log has a suite of its own for its shards (`log/tests/linearizable.rs` in the server); here the object is the whole stream,
//! so that a put, a reshard, a listing and a read must agree about each other. Histories are judged by stateright's tester.

use crate::SERVER;
use serde_json::{Value, json};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};
use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::client::{CallError, RawClient, decode_base64, encode_base64, text};
use support::history::Sequence;
use support::{ServerProcess, alone, scaled, seeded};
use tokio::time::Instant;

const STREAM: &str = "linearizable";
const CALLERS: usize = 4;
/// How long the tester may look for an order. It finds one in milliseconds, and may look for ever if there is none.
const PATIENCE: Duration = Duration::from_mins(1);

/// A record: its place if that is known, and the number that was its data.
type Kept = (Option<Sequence>, u64);

/// What is asked of the stream. `life` counts the starts of the server: what was asked in one life happens in it.
#[derive(Debug, Clone, PartialEq)]
enum Call {
    Put {
        life: u64,
        hash_key: u128,
        number: u64,
    },
    Split {
        life: u64,
        shard: u32,
        at: u128,
    },
    Merge {
        life: u64,
        shards: [u32; 2],
    },
    OpenShards,
    Read {
        shard: u32,
    },
    Restart,
}

#[derive(Debug, Clone, PartialEq)]
enum Answer {
    Placed(u32, Sequence),
    Done,
    /// A reshard that is not possible.
    Refused,
    Shards(Arc<[u32]>),
    /// All records, and the children if this is the end.
    Records(Arc<[Kept]>, Option<Arc<[u32]>>),
    /// What a call that was never answered would be told.
    Nothing,
}

#[derive(Debug, Clone)]
struct Shard {
    range: (u128, u128),
    parents: Vec<u32>,
    open: bool,
    kept: Vec<Kept>,
}

/// The stream, one call at a time.
#[derive(Debug, Clone)]
struct Spec {
    life: u64,
    shards: BTreeMap<u32, Shard>,
}

impl Spec {
    fn new() -> Spec {
        let mut spec = Spec {
            life: 0,
            shards: BTreeMap::new(),
        };
        spec.open((0, u128::MAX), &[]);
        spec
    }

    fn open(&mut self, range: (u128, u128), parents: &[u32]) {
        for parent in parents {
            self.shards.get_mut(parent).expect("it is open").open = false;
        }
        let index = u32::try_from(self.shards.len()).unwrap();
        let shard = Shard {
            range,
            parents: parents.to_vec(),
            open: true,
            kept: Vec::new(),
        };
        self.shards.insert(index, shard);
    }

    fn open_shard(&self, index: u32) -> Option<&Shard> {
        self.shards.get(&index).filter(|shard| shard.open)
    }

    fn owner(&mut self, hash_key: u128) -> (u32, &mut Shard) {
        let owns = |shard: &Shard| (shard.range.0..=shard.range.1).contains(&hash_key);
        let found = self
            .shards
            .iter_mut()
            .find(|(_, shard)| shard.open && owns(shard));
        let (index, shard) = found.expect("S4: a key has an open shard");
        (*index, shard)
    }

    fn split(&mut self, shard: u32, at: u128) -> Answer {
        let Some((start, end)) = self.open_shard(shard).map(|shard| shard.range) else {
            return Answer::Refused;
        };
        self.open((start, at - 1), &[shard]);
        self.open((at, end), &[shard]);
        Answer::Done
    }

    fn merge(&mut self, shards: [u32; 2]) -> Answer {
        let [first, second] = shards.map(|shard| self.open_shard(shard).map(|shard| shard.range));
        match (first, second) {
            (Some((start, before)), Some((after, end))) if before.checked_add(1) == Some(after) => {
                self.open((start, end), &shards);
                Answer::Done
            }
            _ => Answer::Refused,
        }
    }

    fn children(&self, parent: u32) -> Vec<u32> {
        let is_child = |(_, shard): &(&u32, &Shard)| shard.parents.contains(&parent);
        self.shards
            .iter()
            .filter(is_child)
            .map(|(index, _)| *index)
            .collect()
    }

    /// Whether these may be the records of the shard; then their places are known.
    fn learn(&mut self, shard: u32, records: &[Kept]) -> bool {
        let Some(shard) = self.shards.get_mut(&shard) else {
            return false;
        };
        let same = |(kept, read): (&Kept, &Kept)| {
            kept.1 == read.1 && (kept.0.is_none() || kept.0 == read.0)
        };
        let all = shard.kept.len() == records.len() && shard.kept.iter().zip(records).all(same);
        if all {
            shard.kept = records.to_vec();
        }
        all && records.is_sorted_by(|one, next| one.0 < next.0)
    }
}

impl SequentialSpec for Spec {
    type Op = Call;
    type Ret = Answer;

    fn invoke(&mut self, call: &Call) -> Answer {
        match call {
            Call::Put { life, .. } | Call::Split { life, .. } | Call::Merge { life, .. }
                if *life != self.life =>
            {
                Answer::Nothing
            }
            // Where it is, somebody may find out.
            Call::Put {
                hash_key, number, ..
            } => {
                self.owner(*hash_key).1.kept.push((None, *number));
                Answer::Nothing
            }
            Call::Split { shard, at, .. } => self.split(*shard, *at),
            Call::Merge { shards, .. } => self.merge(*shards),
            Call::OpenShards => {
                let open = self.shards.iter().filter(|(_, shard)| shard.open);
                Answer::Shards(open.map(|(index, _)| *index).collect())
            }
            Call::Read { .. } => Answer::Nothing,
            Call::Restart => {
                self.life += 1;
                Answer::Done
            }
        }
    }

    fn is_valid_step(&mut self, call: &Call, answer: &Answer) -> bool {
        match (call, answer) {
            (
                Call::Put {
                    life,
                    hash_key,
                    number,
                },
                Answer::Placed(index, sequence),
            ) => {
                let is_now = *life == self.life;
                let (owner, shard) = self.owner(*hash_key);
                let last = shard
                    .kept
                    .iter()
                    .rev()
                    .find_map(|(sequence, _)| sequence.as_ref());
                let rises = last.is_none_or(|last| last < sequence);
                shard.kept.push((Some(sequence.clone()), *number));
                is_now && owner == *index && rises
            }
            (Call::Read { shard }, Answer::Records(records, children)) => {
                let is_open = self.open_shard(*shard).is_some();
                let ended = children
                    .as_ref()
                    .is_none_or(|named| named[..] == self.children(*shard));
                is_open == children.is_none() && ended && self.learn(*shard, records)
            }
            _ => self.invoke(call) == *answer,
        }
    }
}

#[derive(Debug, Clone)]
enum Moment {
    Called(Call),
    Answered(Answer),
}

/// Who, and what of it, in the order it happened.
type History = Vec<(u64, Moment)>;

/// Looks for an order of the calls that explains every answer.
fn explain(history: &History) -> Result<(), String> {
    let mut tester = LinearizabilityTester::new(Spec::new());
    for (caller, moment) in history {
        match moment {
            Moment::Called(call) => tester.on_invoke(*caller, call.clone())?,
            Moment::Answered(answer) => tester.on_return(*caller, answer.clone())?,
        };
    }
    let (tell, verdict) = sync_channel(1);
    std::thread::spawn(move || tell.send(tester.is_consistent()));
    match verdict.recv_timeout(PATIENCE) {
        Ok(true) => Ok(()),
        Ok(false) => Err("no order of calls explains the answers".to_owned()),
        Err(_) => Err(format!("no order of calls was found in {PATIENCE:?}")),
    }
}

fn index_of(shard: &str) -> u32 {
    let number = shard
        .strip_prefix("shardId-")
        .and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("{shard} is no shard id"))
}

fn shard_id(index: u32) -> String {
    format!("shardId-{index:012}")
}

struct Caller {
    id: u64,
    life: u64,
    client: RawClient,
    random: fastrand::Rng,
    history: Arc<Mutex<History>>,
    next_number: u64,
}

impl Caller {
    fn note(&self, moment: Moment) {
        self.history.lock().unwrap().push((self.id, moment));
    }

    /// Asks one thing after another until there is no answer.
    async fn run(mut self, calls: usize) {
        for _ in 0..calls {
            let Ok(call) = self.next().await else { return };
            self.note(Moment::Called(call.clone()));
            match self.ask(&call).await {
                Ok(answer) => self.note(Moment::Answered(answer)),
                Err(CallError::Unanswered(_)) => return,
                Err(refused) => panic!("{call:?}: {refused}"),
            }
        }
    }

    async fn next(&mut self) -> Result<Call, CallError> {
        let life = self.life;
        let shards = self.client.list_shards(STREAM).await?;
        let shard = self.random.choice(&shards).expect("shards");
        let index = index_of(&text(shard, "ShardId"));
        let (start, end) = support::reader::range_of(shard);
        Ok(match self.random.u8(0..16) {
            0 if end - start > 1 << 100 => Call::Split {
                life,
                shard: index,
                at: self.random.u128(start + 2..end),
            },
            1 => {
                let follows =
                    |next: &&Value| Some(support::reader::range_of(next).0) == end.checked_add(1);
                let next = shards.iter().find(follows).unwrap_or(shard);
                let shards = [index, index_of(&text(next, "ShardId"))];
                Call::Merge { life, shards }
            }
            2..=3 => Call::OpenShards,
            4..=7 => Call::Read { shard: index },
            _ => {
                self.next_number += 1;
                Call::Put {
                    life,
                    hash_key: self.random.u128(..),
                    number: self.id * 1_000 + self.next_number,
                }
            }
        })
    }

    async fn ask(&self, call: &Call) -> Result<Answer, CallError> {
        let reshard =
            async |operation: &str, input: Value| match self.client.call(operation, &input).await {
                Ok(_) => Ok(Answer::Done),
                Err(CallError::Refused { status: 400, .. }) => Ok(Answer::Refused),
                Err(error) => Err(error),
            };
        match call {
            Call::Put {
                hash_key, number, ..
            } => {
                let input = json!({"StreamName": STREAM, "PartitionKey": "k", "ExplicitHashKey": hash_key.to_string(),
                                   "Data": encode_base64(number.to_string().as_bytes())});
                let put = self.client.call("PutRecord", &input).await?;
                let sequence = Sequence::new(&text(&put, "SequenceNumber"));
                Ok(Answer::Placed(index_of(&text(&put, "ShardId")), sequence))
            }
            Call::Split { shard, at, .. } => {
                let input = json!({"StreamName": STREAM, "ShardToSplit": shard_id(*shard),
                                   "NewStartingHashKey": at.to_string()});
                reshard("SplitShard", input).await
            }
            Call::Merge { shards, .. } => {
                let input = json!({"StreamName": STREAM, "ShardToMerge": shard_id(shards[0]),
                                   "AdjacentShardToMerge": shard_id(shards[1])});
                reshard("MergeShards", input).await
            }
            Call::OpenShards => {
                let filter = json!({"Type": "AT_LATEST"});
                let input = json!({"StreamName": STREAM, "ShardFilter": filter});
                let listed = self.client.call("ListShards", &input).await?;
                Ok(Answer::Shards(ids(&listed["Shards"]).into()))
            }
            Call::Read { shard } => self.read(*shard).await,
            Call::Restart => unreachable!("nobody asks for it"),
        }
    }

    /// Reads every shard, alone.
    async fn read_all(&self) {
        for shard in self.client.list_shards(STREAM).await.unwrap() {
            let call = Call::Read {
                shard: index_of(&text(&shard, "ShardId")),
            };
            self.note(Moment::Called(call.clone()));
            self.note(Moment::Answered(self.ask(&call).await.unwrap()));
        }
    }

    /// The last page says that it is the last: what came until then is all there is.
    async fn read(&self, shard: u32) -> Result<Answer, CallError> {
        let mut at = self.client.trim_horizon(STREAM, &shard_id(shard)).await?;
        let mut records: Vec<Kept> = Vec::new();
        loop {
            let input = json!({"ShardIterator": at});
            let page = self.client.call("GetRecords", &input).await?;
            records.extend(
                page["Records"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|record| {
                        let data = decode_base64(&text(record, "Data"));
                        let number = String::from_utf8(data)
                            .unwrap()
                            .parse()
                            .expect("a number was put");
                        (Some(Sequence::new(&text(record, "SequenceNumber"))), number)
                    }),
            );
            match page["NextShardIterator"].as_str() {
                None => {
                    let children = ids(&page["ChildShards"]);
                    return Ok(Answer::Records(records.into(), Some(children.into())));
                }
                Some(_) if page["MillisBehindLatest"] == 0 => {
                    return Ok(Answer::Records(records.into(), None));
                }
                Some(next) => next.clone_into(&mut at),
            }
        }
    }
}

fn ids(shards: &Value) -> Vec<u32> {
    let shards = shards.as_array().into_iter().flatten();
    let mut ids: Vec<u32> = shards
        .map(|shard| index_of(&text(shard, "ShardId")))
        .collect();
    ids.sort_unstable();
    ids
}

/// A stream of its own, clients at work, a kill amid it or not, and everything read at the end.
async fn play(server: &mut ServerProcess, random: &mut fastrand::Rng) -> History {
    let client = server.client();
    client.create_stream(STREAM, 1).await;
    let history: Arc<Mutex<History>> = Arc::default();
    let lives = random.u64(1..=2);
    let mut next_caller = 1;
    for life in 0..lives {
        let begun = history.lock().unwrap().len();
        let calls = random.usize(50..120) / CALLERS / usize::try_from(lives).unwrap();
        let callers = (0..CALLERS).map(|_| {
            next_caller += 1;
            let caller = Caller {
                id: next_caller,
                life,
                client: client.clone(),
                random: random.fork(),
                history: Arc::clone(&history),
                next_number: 0,
            };
            tokio::spawn(caller.run(calls))
        });
        let callers: Vec<_> = callers.collect();
        if life + 1 < lives {
            // Somewhere amid the calls: each is noted twice.
            let moments = begun + random.usize(calls..calls * CALLERS * 2);
            let until = Instant::now() + Duration::from_secs(2);
            while history.lock().unwrap().len() < moments && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            server.kill9().await;
        }
        for caller in callers {
            caller.await.unwrap();
        }
        if life + 1 < lives {
            server.restart().await;
            let mut history = history.lock().unwrap();
            history.push((0, Moment::Called(Call::Restart)));
            history.push((0, Moment::Answered(Answer::Done)));
        }
        // Right after a kill this says what became of what was under way; else the tester would have to try both until the end.
        let one = Caller {
            id: 0,
            life,
            client: client.clone(),
            random: random.fork(),
            history: Arc::clone(&history),
            next_number: 0,
        };
        one.read_all().await;
    }
    client
        .must("DeleteStream", json!({"StreamName": STREAM}))
        .await;
    std::mem::take(&mut *history.lock().unwrap())
}

/// Four clients and a kill in every second history, 50 to 120 calls each.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s3_s5_what_clients_are_told_of_a_stream_is_linearizable() {
    let _alone = alone().await;
    let mut random = seeded("linearizable");
    let mut server = ServerProcess::start(SERVER).await;
    let histories = scaled(12, 200);
    let (mut calls, mut unanswered, mut reshards) = (0, 0, 0);
    for number in 0..histories {
        let history = play(&mut server, &mut random).await;
        let asked = |moment: &Moment| matches!(moment, Moment::Called(_));
        let called = history.iter().filter(|(_, moment)| asked(moment)).count();
        calls += called;
        unanswered += 2 * called - history.len();
        let done = |moment: &Moment| matches!(moment, Moment::Answered(Answer::Done));
        reshards += history.iter().filter(|(_, moment)| done(moment)).count();
        if let Err(wrong) = explain(&history) {
            panic!("history {number}: {wrong}: {history:#?}");
        }
    }
    println!(
        "linearizable: {histories} histories, {calls} calls, {unanswered} without an answer, {reshards} reshards and restarts"
    );
    assert!(reshards > histories, "hardly any reshards");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(number: u64) -> Call {
        Call::Put {
            life: 0,
            hash_key: 7,
            number,
        }
    }

    fn kept(records: &[(&str, u64)]) -> Arc<[Kept]> {
        let kept = records
            .iter()
            .map(|(at, number)| (Some(Sequence::new(at)), *number));
        kept.collect()
    }

    fn placed(shard: u32, at: &str) -> Answer {
        Answer::Placed(shard, Sequence::new(at))
    }

    fn split() -> Call {
        Call::Split {
            life: 0,
            shard: 0,
            at: 1 << 127,
        }
    }

    fn one_by_one(calls: Vec<(Call, Answer)>) -> History {
        let both = |(call, answer)| [(1, Moment::Called(call)), (1, Moment::Answered(answer))];
        calls.into_iter().flat_map(both).collect()
    }

    /// The tester and the model of a stream, by hand: a sound history is explained, each wrong one is not.
    #[test]
    fn wrong_histories_of_a_stream_are_not_explained() {
        let read = |shard| Call::Read { shard };
        let first = || (put(1), placed(0, "10"));
        let done = || (split(), Answer::Done);
        let ended = |records: &[(&str, u64)], children: &[u32]| {
            Answer::Records(kept(records), Some(children.into()))
        };
        let sound = vec![
            first(),
            (read(0), Answer::Records(kept(&[("10", 1)]), None)),
            done(),
            (split(), Answer::Refused),
            (Call::OpenShards, Answer::Shards([1, 2].into())),
            (put(2), placed(1, "20")),
            (read(0), ended(&[("10", 1)], &[1, 2])),
            (Call::Restart, Answer::Done),
            (read(1), Answer::Records(kept(&[("20", 2)]), None)),
        ];
        explain(&one_by_one(sound)).unwrap();
        let wrong = [
            (
                "a put after a seal",
                vec![done(), (put(1), placed(0, "10"))],
            ),
            (
                "a stale read",
                vec![first(), (read(0), Answer::Records(kept(&[]), None))],
            ),
            (
                "a stale listing",
                vec![done(), (Call::OpenShards, Answer::Shards([0].into()))],
            ),
            (
                "an end that is none",
                vec![first(), (read(0), ended(&[("10", 1)], &[]))],
            ),
            (
                "no end",
                vec![done(), (read(0), Answer::Records(kept(&[]), None))],
            ),
            (
                "an end without a child",
                vec![done(), (read(0), ended(&[], &[1]))],
            ),
            ("a number twice", vec![first(), (put(2), placed(0, "10"))]),
            ("a put elsewhere", vec![done(), (put(1), placed(2, "10"))]),
            ("split twice", vec![done(), done()]),
            (
                "a refusal without a reason",
                vec![(split(), Answer::Refused)],
            ),
            (
                "lost by a restart",
                vec![
                    first(),
                    (Call::Restart, Answer::Done),
                    (read(0), Answer::Records(kept(&[]), None)),
                ],
            ),
        ];
        for (what, calls) in wrong {
            assert!(explain(&one_by_one(calls)).is_err(), "{what}");
        }
    }

    /// A put that a kill left unanswered is there afterwards or not; not first here and then gone.
    #[test]
    fn an_unanswered_put_happened_before_the_kill_or_never() {
        let alone = |caller, call: Call, answer| {
            vec![
                (caller, Moment::Called(call)),
                (caller, Moment::Answered(answer)),
            ]
        };
        let (with, without) = (|| kept(&[("10", 1)]), || kept(&[]));
        let judged = |before: Arc<[Kept]>, after: [Arc<[Kept]>; 2]| {
            let read = |caller, records| {
                alone(
                    caller,
                    Call::Read { shard: 0 },
                    Answer::Records(records, None),
                )
            };
            let [one, other] = after;
            let parts = [
                vec![(9, Moment::Called(put(1)))],
                read(2, before),
                alone(0, Call::Restart, Answer::Done),
                read(3, one),
                read(4, other),
            ];
            explain(&parts.concat()).is_ok()
        };
        assert!(judged(without(), [without(), without()]));
        assert!(judged(without(), [with(), with()]));
        assert!(judged(with(), [with(), with()]));
        assert!(!judged(with(), [without(), without()]), "seen and lost");
        assert!(!judged(without(), [without(), with()]), "after the kill");
    }
}
