//! K4 (no loss) and K5 (bounded duplicates) inside aggregated records: whoever goes on begins with exactly the next user record.

use super::*;
use crate::checkpoint::{Checkpointer, Position};
use crate::config::{ForeignRecords, Retrieval};
use crate::error::ErrorKind;
use crate::lease::MemoryLeaseStore;
use crate::processor::{ProcessorError, Record, RecordBatch, RecordProcessor, ShardInfo};
use crate::seeded_bug::{Bug, make};
use async_trait::async_trait;
use bytes::Bytes;
use millstream_wire::SequenceNumber;
use millstream_wire::aggregation::{UserRecord, encode};
use std::sync::Mutex;

const SECOND: Duration = Duration::from_secs(1);

/// Where a user record is.
type Place = (SequenceNumber, u64);

/// What the processors of a test do, and what they have seen.
#[derive(Debug, Clone, Default)]
struct Desk {
    state: Arc<Mutex<DeskState>>,
}

#[derive(Debug, Default)]
struct DeskState {
    /// The size of each batch.
    batches: Vec<usize>,
    /// User records handed over, with the worker they were handed to; a batch is taken record by record.
    delivered: Vec<(String, Place)>,
    /// User records whose checkpoint succeeded.
    acknowledged: Vec<Place>,
    /// Children that began, and shards that ended, in order.
    began: Vec<String>,
    ended: Vec<String>,
    /// A processor stops for ever once so many are acknowledged.
    stop_after: Option<usize>,
    /// A processor fails at this record.
    poison: Option<Place>,
    failures: usize,
    /// Each batch is checkpointed as a whole, and not record by record.
    whole_batches: bool,
    /// Nothing is checkpointed.
    careless: bool,
    batch_takes: Duration,
}

impl Desk {
    fn set(&self, change: impl FnOnce(&mut DeskState)) {
        change(&mut self.state.lock().unwrap());
    }

    fn get<T>(&self, read: impl FnOnce(&DeskState) -> T) -> T {
        read(&self.state.lock().unwrap())
    }

    fn delivered_to(&self, worker: &str) -> Vec<Place> {
        self.get(|state| {
            let theirs = state.delivered.iter().filter(|(to, _)| to == worker);
            theirs.map(|(_, place)| *place).collect()
        })
    }

    async fn launch(&self, builder: WorkerBuilder, id: &str) -> Started {
        let (desk, id) = (self.clone(), id.to_owned());
        let worker = builder
            .build(move |shard: &ShardInfo| Clerk {
                desk: desk.clone(),
                worker: id.clone(),
                shard: shard.shard_id.clone(),
            })
            .await
            .unwrap();
        Started {
            handle: worker.handle(),
            task: tokio::spawn(worker.run()),
        }
    }

    async fn until_acknowledged(&self, count: usize) {
        until("user records are acknowledged", SECOND * 60, || {
            self.get(|state| state.acknowledged.len() >= count)
        })
        .await;
    }
}

/// Checkpoints user record by user record.
struct Clerk {
    desk: Desk,
    worker: String,
    shard: String,
}

impl Clerk {
    async fn take(
        &self,
        record: &Record,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        let place = (record.sequence_number(), record.sub_sequence_number());
        let stops = self.desk.get(|state| {
            let acknowledged = state.acknowledged.len();
            state.stop_after.is_some_and(|after| acknowledged >= after)
        });
        self.desk
            .set(|state| state.delivered.push((self.worker.clone(), place)));
        if stops {
            std::future::pending::<()>().await;
        }
        if self.desk.get(|state| state.poison == Some(place)) {
            self.desk.set(|state| state.failures += 1);
            return Err("poison".into());
        }
        let (whole_batches, careless) =
            self.desk.get(|state| (state.whole_batches, state.careless));
        if !whole_batches && !careless {
            checkpointer.checkpoint_at(record).await?;
            self.desk.set(|state| state.acknowledged.push(place));
        }
        Ok(())
    }
}

#[async_trait]
impl RecordProcessor for Clerk {
    async fn initialize(&mut self, shard: &ShardInfo) -> Result<(), ProcessorError> {
        self.desk
            .set(|state| state.began.push(shard.shard_id.clone()));
        Ok(())
    }

    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        self.desk
            .set(|state| state.batches.push(batch.records().len()));
        for record in batch.records() {
            self.take(record, checkpointer).await?;
        }
        tokio::time::sleep(self.desk.get(|state| state.batch_takes)).await;
        if self.desk.get(|state| state.whole_batches) {
            checkpointer.checkpoint().await?;
            let place = |record: &Record| (record.sequence_number(), record.sub_sequence_number());
            self.desk.set(|state| {
                state.acknowledged.extend(batch.records().iter().map(place));
            });
        }
        Ok(())
    }

    async fn shard_ended(&mut self, _checkpointer: &Checkpointer) -> Result<(), ProcessorError> {
        self.desk.set(|state| state.ended.push(self.shard.clone()));
        Ok(())
    }
}

fn users(count: usize) -> Bytes {
    let user = |index: usize| UserRecord {
        partition_key: format!("key {}", index % 2).into(),
        explicit_hash_key: None,
        data: Bytes::from(format!("user record {index}")),
    };
    encode(&(0..count).map(user).collect::<Vec<_>>())
}

/// User records of the given hash keys.
fn users_at(hash_keys: &[u128]) -> Bytes {
    let user = |hash_key: &u128| UserRecord {
        partition_key: "key".into(),
        explicit_hash_key: Some(hash_key.to_string().into()),
        data: Bytes::from_static(b"user record"),
    };
    encode(&hash_keys.iter().map(user).collect::<Vec<_>>())
}

/// Puts a record for each number: a plain one for 0, else an aggregate of so many; gives the places of all user records.
fn fill(kinesis: &FakeKinesis, shard: usize, shape: &[usize]) -> Vec<Place> {
    let mut places = Vec::new();
    for count in shape {
        let number = match count {
            0 => kinesis.put(shard, "plain"),
            count => kinesis.put_data(shard, users(*count)),
        };
        places.extend((0..(*count).max(1) as u64).map(|sub| (number, sub)));
    }
    places
}

/// What the next owner meets before its first page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    ExpiredIterators,
    Failures,
    Throttling,
    /// Nothing, and records are pushed.
    Pushed,
    /// Subscriptions are refused for a while.
    PushedLate,
}

impl Trouble {
    const ALL: [Trouble; 6] = [
        Trouble::None,
        Trouble::ExpiredIterators,
        Trouble::Failures,
        Trouble::Throttling,
        Trouble::Pushed,
        Trouble::PushedLate,
    ];

    fn retrieval(self) -> Retrieval {
        match self {
            Trouble::Pushed | Trouble::PushedLate => Retrieval::FanOut {
                consumer_name: None,
            },
            _ => Retrieval::Polling,
        }
    }

    /// The last failure comes first.
    fn befall(self, kinesis: &FakeKinesis) {
        use ErrorKind::{AccessDenied, Expired, NotFound, Protocol, Throttled, Unavailable};
        if self == Trouble::PushedLate {
            // For long enough that the shard is polled meanwhile.
            kinesis.refuse_next(&[Unavailable; 6]);
        }
        kinesis.fail(match self {
            Trouble::None | Trouble::Pushed => &[],
            Trouble::PushedLate => &[Unavailable, Expired],
            Trouble::ExpiredIterators => &[Expired, Expired, Unavailable, Expired],
            Trouble::Failures => &[AccessDenied, Unavailable, NotFound, Protocol, Unavailable],
            Trouble::Throttling => &[Throttled, Expired, Throttled, Throttled],
        });
    }
}

/// One worker acknowledges `count` user records and dies, another goes on through some trouble.
async fn change_of_owner(shape: &[usize], count: usize, trouble: Trouble) -> Result<(), String> {
    let (kinesis, store, desk) = (
        FakeKinesis::new(1),
        MemoryLeaseStore::new(),
        Desk::default(),
    );
    let places = fill(&kinesis, 0, shape);
    desk.set(|state| state.stop_after = Some(count));
    let first = desk
        .launch(
            builder(&kinesis, store.clone(), "a").retrieval(trouble.retrieval()),
            "a",
        )
        .await;
    desk.until_acknowledged(count).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    first.task.abort();
    desk.set(|state| state.stop_after = None);
    trouble.befall(&kinesis);
    let second = builder(&kinesis, store, "b").retrieval(trouble.retrieval());
    let second = desk.launch(second, "b").await;
    tokio::time::sleep(SECOND * 30).await;
    second.stop().await.unwrap();

    let (expected, delivered) = (&places[count..], desk.delivered_to("b"));
    if delivered != expected {
        return Err(format!("expected {expected:?}, delivered {delivered:?}"));
    }
    let acknowledged = desk.get(|state| state.acknowledged.clone());
    if acknowledged != places {
        return Err(format!("put {places:?}, acknowledged {acknowledged:?}"));
    }
    Ok(())
}

const MIXED: &[usize] = &[0, 4, 0, 1, 3];

/// Goal: wherever an owner dies, inside an aggregate or between records, the next one begins with exactly the next user record, also
/// when its first reads fail and it needs other iterators. Method: checkpoints at every user record, a crash at every one.
#[tokio::test(start_paused = true)]
async fn k4_k5_the_next_owner_begins_with_the_next_user_record() {
    for trouble in Trouble::ALL {
        for count in 0..=10 {
            let judged = change_of_owner(MIXED, count, trouble).await;
            judged.unwrap_or_else(|what| panic!("{count} acknowledged, {trouble:?}: {what}"));
        }
    }
}

/// A test that cannot fail proves nothing: a reader that gets its second iterator after the record it was to begin in loses
/// the rest of that.
#[tokio::test(start_paused = true)]
async fn k4_the_test_catches_a_reader_that_restarts_after_the_aggregate() {
    let making = make(Bug::RestartAfterTheRecord);
    let undisturbed = change_of_owner(MIXED, 3, Trouble::None).await;
    let expired = change_of_owner(MIXED, 3, Trouble::ExpiredIterators).await;
    let failed = change_of_owner(MIXED, 3, Trouble::Failures).await;
    let pushed = change_of_owner(MIXED, 3, Trouble::PushedLate).await;
    drop(making);
    undisturbed.unwrap();
    assert!(expired.unwrap_err().starts_with("expected"));
    assert!(failed.unwrap_err().starts_with("expected"));
    assert!(pushed.unwrap_err().starts_with("expected"));
}

/// Goal: the same when every owner dies after one user record.
#[tokio::test(start_paused = true)]
async fn k4_k5_each_owner_acknowledges_one_user_record_and_dies() {
    let (kinesis, store, desk) = (
        FakeKinesis::new(1),
        MemoryLeaseStore::new(),
        Desk::default(),
    );
    let places = fill(&kinesis, 0, MIXED);
    for count in 1..=places.len() {
        desk.set(|state| state.stop_after = Some(count));
        kinesis.expire_iterators();
        let id = count.to_string();
        let owner = desk
            .launch(builder(&kinesis, store.clone(), &id), &id)
            .await;
        desk.until_acknowledged(count).await;
        owner.task.abort();
        assert_eq!(desk.delivered_to(&id)[0], places[count - 1]);
    }
    assert_eq!(desk.get(|state| state.acknowledged.clone()), places);
}

/// Goal: what was read is not read again when iterators expire, nor left out, with pages read ahead of a slow processor.
#[tokio::test(start_paused = true)]
async fn k4_k5_iterators_that_expire_while_pages_are_read_ahead_change_nothing() {
    let (kinesis, desk) = (FakeKinesis::new(1), Desk::default());
    let shape: Vec<_> = (0..120).map(|index| index % 5).collect();
    let places = fill(&kinesis, 0, &shape);
    desk.set(|state| state.batch_takes = Duration::from_millis(50));
    let worker = desk
        .launch(builder(&kinesis, MemoryLeaseStore::new(), "a"), "a")
        .await;
    let mut random = fastrand::Rng::with_seed(7);
    let deadline = tokio::time::Instant::now() + SECOND * 300;
    while desk.get(|state| state.acknowledged.len()) < places.len() {
        assert!(tokio::time::Instant::now() < deadline, "it goes on");
        tokio::time::sleep(Duration::from_millis(random.u64(1..40))).await;
        kinesis.expire_iterators();
    }
    worker.stop().await.unwrap();
    assert_eq!(desk.delivered_to("a"), places);
}

/// Goal: a user record that cannot be processed is not passed, within a tenure or after it. Method: poison in the middle of
/// an aggregate, a crash, then the cure.
#[tokio::test(start_paused = true)]
async fn k4_a_poison_in_an_aggregate_is_not_passed() {
    let (kinesis, store, desk) = (
        FakeKinesis::new(1),
        MemoryLeaseStore::new(),
        Desk::default(),
    );
    let places = fill(&kinesis, 0, MIXED);
    desk.set(|state| state.poison = Some(places[3]));
    let first = desk
        .launch(builder(&kinesis, store.clone(), "a"), "a")
        .await;
    tokio::time::sleep(SECOND * 30).await;
    first.task.abort();
    assert!(desk.get(|state| state.failures) > 3);
    let lease = store.snapshot("app").await.unwrap().leases.remove(0);
    let (sequence, sub_sequence) = places[2];
    let before = Position::Sequence {
        sequence,
        sub_sequence,
    };
    assert_eq!(lease.checkpoint, before);
    assert_eq!(desk.delivered_to("a").iter().max(), Some(&places[3]));

    let second = desk.launch(builder(&kinesis, store, "b"), "b").await;
    tokio::time::sleep(SECOND * 10).await;
    assert_eq!(
        desk.delivered_to("b")[0],
        places[3],
        "right with the poison"
    );
    desk.set(|state| state.poison = None);
    tokio::time::sleep(SECOND * 30).await;
    second.stop().await.unwrap();
    let mut after_the_cure = desk.delivered_to("b");
    after_the_cure.dedup_by_key(|place| *place);
    assert_eq!(after_the_cure, places[3..]);
}

/// Goal: an aggregate as the last record of a shard: the shard ends once its last user record is done, whoever dies in it, and
/// the children begin then.
#[tokio::test(start_paused = true)]
async fn k4_k6_a_shard_ends_after_the_last_user_record() {
    for count in 0..=4 {
        let (kinesis, store, desk) = (
            FakeKinesis::new(1),
            MemoryLeaseStore::new(),
            Desk::default(),
        );
        let mut places = fill(&kinesis, 0, &[0, 3]);
        let (lower, upper) = kinesis.split(0);
        places.extend(fill(&kinesis, lower, &[2]));
        places.extend(fill(&kinesis, upper, &[2]));
        desk.set(|state| state.stop_after = Some(count));
        let first = desk
            .launch(builder(&kinesis, store.clone(), "a"), "a")
            .await;
        desk.until_acknowledged(count).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        first.task.abort();
        desk.set(|state| state.stop_after = None);
        Trouble::ExpiredIterators.befall(&kinesis);
        let second = desk.launch(builder(&kinesis, store, "b"), "b").await;
        desk.until_acknowledged(places.len()).await;
        second.stop().await.unwrap();
        let mut acknowledged = desk.get(|state| state.acknowledged.clone());
        assert_eq!(acknowledged[..4], places[..4], "{count}: parent first");
        acknowledged.sort_unstable();
        assert_eq!(acknowledged, places, "{count}");
        assert_eq!(desk.get(|state| state.ended.len()), 1, "{count}");
    }
}

/// Goal: an aggregate of more user records than a batch holds comes in several batches; a hand-over or a crash between
/// them goes on right there.
#[tokio::test(start_paused = true)]
async fn k5_k9_an_aggregate_larger_than_a_batch_comes_in_pieces() {
    for graceful in [true, false] {
        let (kinesis, store, desk) = (
            FakeKinesis::new(1),
            MemoryLeaseStore::new(),
            Desk::default(),
        );
        let places = fill(&kinesis, 0, &[0, 35, 0]);
        desk.set(|state| {
            state.whole_batches = true;
            state.batch_takes = SECOND;
        });
        let first = desk
            .launch(builder(&kinesis, store.clone(), "a"), "a")
            .await;
        desk.until_acknowledged(20).await;
        let resumes_at = if graceful {
            first.stop().await.unwrap();
            30
        } else {
            tokio::time::sleep(SECOND / 2).await;
            first.task.abort();
            20
        };
        let second = desk.launch(builder(&kinesis, store, "b"), "b").await;
        desk.until_acknowledged(37).await;
        second.stop().await.unwrap();
        assert_eq!(desk.get(|state| state.acknowledged.clone()), places);
        assert_eq!(desk.delivered_to("b"), places[resumes_at..]);
        let most = desk.get(|state| state.batches.iter().max().copied());
        assert_eq!(most, Some(10), "what max_records allows");
    }
}

/// Goal: a starting time is pinned to the aggregate that it led to, and all of that is delivered after a crash.
#[tokio::test(start_paused = true)]
async fn k4_no_loss_under_latest_when_the_first_record_is_an_aggregate() {
    let (kinesis, store, desk) = (
        FakeKinesis::new(1),
        MemoryLeaseStore::new(),
        Desk::default(),
    );
    desk.set(|state| state.careless = true);
    let first = desk
        .launch(latest(builder(&kinesis, store.clone(), "a")), "a")
        .await;
    tokio::time::sleep(SECOND * 2).await;
    let places = fill(&kinesis, 0, &[3, 0]);
    tokio::time::sleep(SECOND).await;
    first.task.abort();
    assert_eq!(desk.delivered_to("a"), places);
    let lease = store.snapshot("app").await.unwrap().leases.remove(0);
    assert_eq!(lease.checkpoint, Position::AtSequence(places[0].0));
    desk.set(|state| state.careless = false);
    Trouble::ExpiredIterators.befall(&kinesis);
    let second = desk.launch(builder(&kinesis, store, "b"), "b").await;
    desk.until_acknowledged(places.len()).await;
    second.stop().await.unwrap();
    assert_eq!(desk.delivered_to("b"), places);
}

const FOREIGN: u128 = u128::MAX;

/// Goal: what arrived on the wrong shard is delivered unless it is to be dropped; then the rest of its aggregate is
/// delivered all the same.
#[tokio::test(start_paused = true)]
async fn user_records_of_another_shard_are_delivered_unless_they_are_to_be_dropped() {
    for (setting, expected) in [
        (ForeignRecords::Deliver, vec![0, 1, 2, 3]),
        (ForeignRecords::Drop, vec![0, 2]),
    ] {
        let (kinesis, desk) = (FakeKinesis::new(2), Desk::default());
        let number = kinesis.put_data(0, users_at(&[1, FOREIGN, 2, FOREIGN]));
        let with = builder(&kinesis, MemoryLeaseStore::new(), "a").foreign_records(setting);
        let worker = desk.launch(with, "a").await;
        desk.until_acknowledged(expected.len()).await;
        tokio::time::sleep(SECOND).await;
        worker.stop().await.unwrap();
        let expected: Vec<_> = expected.into_iter().map(|sub| (number, sub)).collect();
        assert_eq!(desk.delivered_to("a"), expected, "{setting:?}");
    }
}

/// Goal: pages of which everything is dropped are passed, and a hand-over stores that; nothing comes again, and what comes after
/// them is delivered.
#[tokio::test(start_paused = true)]
async fn pages_of_which_all_is_dropped_do_not_hold_up_the_checkpoint() {
    let (kinesis, store, desk) = (
        FakeKinesis::new(2),
        MemoryLeaseStore::new(),
        Desk::default(),
    );
    let with = |id: &str| {
        builder(&kinesis, store.clone(), id)
            .foreign_records(ForeignRecords::Drop)
            .initial_position(InitialPosition::AtTimestamp(0))
    };
    let mut last = kinesis.put_data(0, users_at(&[FOREIGN, FOREIGN]));
    for _ in 0..24 {
        last = kinesis.put_data(0, users_at(&[FOREIGN]));
    }
    let first = desk.launch(with("a"), "a").await;
    tokio::time::sleep(SECOND).await;
    first.stop().await.unwrap();
    assert_eq!(desk.delivered_to("a"), []);
    let stored = store.snapshot("app").await.unwrap().leases[0].checkpoint;
    assert_eq!(stored, Position::after(last));

    let number = kinesis.put_data(0, users_at(&[FOREIGN, 1, FOREIGN]));
    let second = desk.launch(with("b"), "b").await;
    desk.until_acknowledged(1).await;
    second.task.abort();
    assert_eq!(desk.delivered_to("b"), [(number, 1)]);
    let stored = store.snapshot("app").await.unwrap().leases[0].checkpoint;
    assert_eq!(stored, Position::after(number), "what follows is dropped");
}
