//! What every lease store must do, run on each of them: memory, one SQLite store, and two SQLite stores on one file
//! as two processes would have it.

mod differential;
mod race;

use super::*;
use crate::error::ErrorKind;
use std::sync::Arc;

pub(super) const APP: &str = "app";
pub(super) const STREAM: &str =
    "arn:aws:kinesis:us-east-1:000000000000:stream/orders@1700000000000";

/// Two handles on the same leases.
struct Stores {
    one: Arc<dyn LeaseStore>,
    other: Arc<dyn LeaseStore>,
    _directory: Option<tempfile::TempDir>,
}

fn memory() -> Stores {
    let store = MemoryLeaseStore::new();
    Stores {
        one: Arc::new(store.clone()),
        other: Arc::new(store),
        _directory: None,
    }
}

async fn sqlite() -> Stores {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteLeaseStore::open(directory.path().join("leases.db"))
        .await
        .unwrap();
    let other = Arc::new(store.clone());
    Stores {
        one: Arc::new(store),
        other,
        _directory: Some(directory),
    }
}

async fn two_processes() -> Stores {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.db");
    let one = Arc::new(SqliteLeaseStore::open(&path).await.unwrap());
    let other = Arc::new(SqliteLeaseStore::open(&path).await.unwrap());
    Stores {
        one,
        other,
        _directory: Some(directory),
    }
}

macro_rules! contract {
    ($($case:ident),* $(,)?) => {
        mod in_memory { $( #[tokio::test] async fn $case() { super::$case(super::memory()).await } )* }
        mod in_sqlite { $( #[tokio::test] async fn $case() { super::$case(super::sqlite().await).await } )* }
        mod in_sqlite_of_two_processes {
            $( #[tokio::test] async fn $case() { super::$case(super::two_processes().await).await } )*
        }
    };
}

contract!(
    leases_are_created_once_and_listed_in_order,
    applications_and_streams_are_kept_apart,
    k1_fenced_a_take_ends_every_earlier_token,
    k1_fenced_of_two_claims_one_wins,
    k1_fenced_an_owner_that_moved_its_heartbeat_keeps_its_lease,
    k1_fenced_an_owner_with_a_row_is_not_one_without,
    k1_fenced_a_new_run_releases_what_the_earlier_one_held,
    k1_fenced_a_replaced_run_takes_and_asks_for_nothing,
    k3_monotonic_checkpoints_move_forward_only,
    k3_monotonic_an_ended_shard_is_final,
    k6_a_child_is_not_taken_before_its_parents_end,
    k6_ending_a_shard_creates_its_children,
    k9_a_release_stores_the_last_checkpoint,
    k9_a_hand_over_gives_the_asker_the_lease,
    k11_failed_write_leaves_everything_as_it_was,
    k12_repeated_writes_succeed,
    k12_a_repeated_end_does_not_bring_finished_children_back,
    a_request_stands_until_its_asker_is_named_dead,
    a_departed_worker_leaves_nothing_behind,
    only_silent_workers_that_hold_nothing_are_forgotten,
    only_ended_leases_are_deleted,
);

pub(super) fn key(shard_id: &str) -> LeaseKey {
    LeaseKey {
        stream: STREAM.to_owned(),
        shard_id: shard_id.to_owned(),
    }
}

pub(super) fn new_lease(shard_id: &str, parents: &[&str]) -> NewLease {
    NewLease {
        key: key(shard_id),
        checkpoint: Position::TrimHorizon,
        parents: parents.iter().map(|parent| (*parent).to_owned()).collect(),
        hash_key_range: Some(HashKeyRange::ALL),
    }
}

pub(super) fn at(sequence: u64) -> Position {
    Position::after(sequence.to_string().parse().unwrap())
}

pub(super) fn claim(shard_id: &str, counter: u64) -> Claim {
    Claim {
        key: key(shard_id),
        counter,
        expired: None,
    }
}

fn expired_claim(shard_id: &str, counter: u64, owner: &str, heartbeat: Option<u64>) -> Claim {
    let expired = Some(ExpiredOwner {
        worker_id: owner.to_owned(),
        heartbeat,
    });
    Claim {
        expired,
        ..claim(shard_id, counter)
    }
}

pub(super) fn token(lease: &Lease) -> LeaseToken {
    LeaseToken {
        key: lease.key.clone(),
        owner: lease.owner.clone().unwrap(),
        counter: lease.counter,
    }
}

fn ask_for(shard_id: &str, counter: u64, replace: Option<&str>) -> Ask {
    Ask {
        key: key(shard_id),
        counter,
        replace_wanted_by: replace.map(str::to_owned),
    }
}

fn give_up(token: &LeaseToken, checkpoint: Option<Position>, to: Option<&str>) -> Release {
    Release {
        token: token.clone(),
        checkpoint,
        to: to.map(str::to_owned),
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

async fn lease(store: &Arc<dyn LeaseStore>, shard_id: &str) -> Lease {
    let snapshot = store.snapshot(APP).await.unwrap();
    snapshot
        .leases
        .into_iter()
        .find(|lease| lease.key == key(shard_id))
        .unwrap()
}

async fn heartbeat_of(store: &Arc<dyn LeaseStore>, worker_id: &str) -> Option<u64> {
    let snapshot = store.snapshot(APP).await.unwrap();
    snapshot
        .workers
        .iter()
        .find(|row| row.worker_id == worker_id)
        .map(|row| row.heartbeat)
}

/// A worker that has created and taken the shards.
async fn holder(store: &Arc<dyn LeaseStore>, worker_id: &str, shards: &[&str]) -> Registration {
    let worker = store.register(APP, worker_id).await.unwrap();
    let new: Vec<NewLease> = shards.iter().map(|shard| new_lease(shard, &[])).collect();
    store.create_leases(APP, &new).await.unwrap();
    let claims: Vec<Claim> = shards.iter().map(|shard| claim(shard, 0)).collect();
    assert_eq!(
        store.take(APP, &worker, &claims).await.unwrap().len(),
        shards.len()
    );
    worker
}

async fn leases_are_created_once_and_listed_in_order(stores: Stores) {
    let mut with_time = new_lease("b", &["a", "x"]);
    with_time.checkpoint = Position::AtTimestamp(1_700_000_000_123);
    with_time.hash_key_range = None;
    let first = [with_time.clone(), new_lease("a", &[])];
    assert_eq!(stores.one.create_leases(APP, &first).await.unwrap(), 2);
    let again = [new_lease("c", &[]), new_lease("b", &[])];
    assert_eq!(stores.other.create_leases(APP, &again).await.unwrap(), 1);

    let snapshot = stores.one.snapshot(APP).await.unwrap();
    assert_eq!(snapshot, stores.other.snapshot(APP).await.unwrap());
    let expected =
        [new_lease("a", &[]), with_time, new_lease("c", &[])].map(|new| rules::create(&new));
    assert_eq!(snapshot.leases, expected);
    assert_eq!((snapshot.workers.len(), snapshot.damaged.len()), (0, 0));
}

async fn applications_and_streams_are_kept_apart(stores: Stores) {
    let recreated = LeaseKey {
        stream: STREAM.replace("@17", "@18"),
        shard_id: "a".to_owned(),
    };
    let twin = NewLease {
        key: recreated.clone(),
        ..new_lease("a", &[])
    };
    assert_eq!(
        stores
            .one
            .create_leases(APP, &[new_lease("a", &[]), twin])
            .await
            .unwrap(),
        2
    );
    stores
        .one
        .create_leases("other", &[new_lease("a", &[])])
        .await
        .unwrap();
    let worker = stores.one.register(APP, "w").await.unwrap();
    stores.one.register("other", "w").await.unwrap();
    stores.one.heartbeat(APP, &worker).await.unwrap();

    let taken = stores
        .other
        .take(APP, &worker, &[claim("a", 0)])
        .await
        .unwrap();
    assert_eq!(taken[0].key, key("a"));
    let snapshot = stores.one.snapshot(APP).await.unwrap();
    let owners: Vec<_> = snapshot
        .leases
        .iter()
        .map(|lease| lease.owner.as_deref())
        .collect();
    assert_eq!(owners, [Some("w"), None]);
    assert_eq!(snapshot.leases[1].key, recreated);
    let elsewhere = stores.one.snapshot("other").await.unwrap();
    assert_eq!(elsewhere.leases, [rules::create(&new_lease("a", &[]))]);
}

async fn k1_fenced_a_take_ends_every_earlier_token(stores: Stores) {
    let first = holder(&stores.one, "w1", &["a"]).await;
    let taken = lease(&stores.one, "a").await;
    assert_eq!(
        (taken.counter, taken.owner_switches, taken.owner.as_deref()),
        (1, 1, Some("w1"))
    );
    let old = token(&taken);
    let observed = heartbeat_of(&stores.other, "w1").await;

    let second = stores.other.register(APP, "w2").await.unwrap();
    let claims = [expired_claim("a", 1, "w1", observed)];
    let won = stores.other.take(APP, &second, &claims).await.unwrap();
    assert_eq!((won[0].counter, won[0].owner_switches), (2, 2));

    assert_eq!(
        kind(stores.one.checkpoint(APP, &old, &at(5)).await),
        ErrorKind::LeaseLost
    );
    assert_eq!(
        kind(stores.one.end_shard(APP, &old, &[]).await),
        ErrorKind::LeaseLost
    );
    assert_eq!(
        stores
            .one
            .release(APP, &[give_up(&old, Some(at(5)), None)])
            .await
            .unwrap(),
        0
    );
    assert_eq!(lease(&stores.one, "a").await, won[0]);
    // The same owner with a later counter is another tenure, too.
    stores
        .other
        .release(APP, &[give_up(&token(&won[0]), None, None)])
        .await
        .unwrap();
    let back = stores
        .one
        .take(APP, &first, &[claim("a", 3)])
        .await
        .unwrap();
    assert_eq!(back[0].counter, 4);
    assert_eq!(
        kind(stores.one.checkpoint(APP, &old, &at(5)).await),
        ErrorKind::LeaseLost
    );
    stores
        .one
        .checkpoint(APP, &token(&back[0]), &at(5))
        .await
        .unwrap();
}

async fn k1_fenced_of_two_claims_one_wins(stores: Stores) {
    stores
        .one
        .create_leases(APP, &[new_lease("a", &[])])
        .await
        .unwrap();
    let first = stores.one.register(APP, "w1").await.unwrap();
    let second = stores.other.register(APP, "w2").await.unwrap();
    let claims = [claim("a", 0)];
    let (one, two) = tokio::join!(
        stores.one.take(APP, &first, &claims),
        stores.other.take(APP, &second, &claims)
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.len() + two.len(), 1);
    assert_eq!(
        lease(&stores.one, "a").await,
        one.into_iter().chain(two).next().unwrap()
    );
    // Naming a free lease expired, or a held one free, is not what there is to see.
    let wrong = [claim("a", 1), expired_claim("a", 1, "w3", None)];
    assert_eq!(stores.one.take(APP, &first, &wrong).await.unwrap(), []);
}

async fn k1_fenced_an_owner_that_moved_its_heartbeat_keeps_its_lease(stores: Stores) {
    let alive = holder(&stores.one, "w1", &["a"]).await;
    let thief = stores.other.register(APP, "w2").await.unwrap();
    let observed = heartbeat_of(&stores.other, "w1").await;
    stores.one.heartbeat(APP, &alive).await.unwrap();

    let stale = [
        expired_claim("a", 1, "w1", observed),
        expired_claim("a", 1, "w1", None),
    ];
    assert_eq!(stores.other.take(APP, &thief, &stale).await.unwrap(), []);
    let moved = heartbeat_of(&stores.other, "w1").await;
    assert_eq!(moved, observed.map(|heartbeat| heartbeat + 1));
    let too_new = [expired_claim("a", 0, "w1", moved)];
    assert_eq!(stores.other.take(APP, &thief, &too_new).await.unwrap(), []);
    let right = [expired_claim("a", 1, "w1", moved)];
    assert_eq!(
        stores.other.take(APP, &thief, &right).await.unwrap().len(),
        1
    );
}

async fn k1_fenced_an_owner_with_a_row_is_not_one_without(stores: Stores) {
    holder(&stores.one, "w1", &["a"]).await;
    let heir = stores.other.register(APP, "w2").await.unwrap();
    let none = [expired_claim("a", 1, "w1", None)];
    assert_eq!(stores.other.take(APP, &heir, &none).await.unwrap(), []);
    assert_eq!(lease(&stores.one, "a").await.owner.as_deref(), Some("w1"));
}

async fn k1_fenced_a_new_run_releases_what_the_earlier_one_held(stores: Stores) {
    let earlier = holder(&stores.one, "w1", &["a", "b"]).await;
    let held = token(&lease(&stores.one, "a").await);
    let before = heartbeat_of(&stores.one, "w1").await;
    let later = stores.other.register(APP, "w1").await.unwrap();
    assert_ne!(earlier.incarnation, later.incarnation);
    // Observers of the earlier run see a sign of life.
    assert_ne!(heartbeat_of(&stores.one, "w1").await, before);
    for shard in ["a", "b"] {
        let free = lease(&stores.one, shard).await;
        assert_eq!(
            (free.owner, free.counter, free.owner_switches),
            (None, 2, 1)
        );
    }
    assert_eq!(
        kind(stores.one.checkpoint(APP, &held, &at(1)).await),
        ErrorKind::LeaseLost
    );
    assert_eq!(
        kind(stores.one.heartbeat(APP, &earlier).await),
        ErrorKind::WorkerReplaced
    );
    stores.other.heartbeat(APP, &later).await.unwrap();
    // The replaced run goes away without harm.
    stores.one.deregister(APP, &earlier).await.unwrap();
    stores.other.heartbeat(APP, &later).await.unwrap();
}

async fn k1_fenced_a_replaced_run_takes_and_asks_for_nothing(stores: Stores) {
    let earlier = stores.one.register(APP, "w1").await.unwrap();
    holder(&stores.one, "w2", &["b"]).await;
    stores
        .one
        .create_leases(APP, &[new_lease("a", &[])])
        .await
        .unwrap();
    let later = stores.other.register(APP, "w1").await.unwrap();
    let before = stores.one.snapshot(APP).await.unwrap();
    let claims = [claim("a", 0)];
    assert_eq!(
        kind(stores.one.take(APP, &earlier, &claims).await),
        ErrorKind::WorkerReplaced
    );
    let asks = [ask_for("b", 1, None)];
    assert_eq!(
        kind(stores.one.ask(APP, &earlier, &asks).await),
        ErrorKind::WorkerReplaced
    );
    assert_eq!(stores.one.snapshot(APP).await.unwrap(), before);
    assert_eq!(
        stores.other.take(APP, &later, &claims).await.unwrap().len(),
        1
    );
}

async fn k3_monotonic_checkpoints_move_forward_only(stores: Stores) {
    holder(&stores.one, "w1", &["a"]).await;
    let mine = token(&lease(&stores.one, "a").await);
    let within = |sequence: u64, sub_sequence| Position::Sequence {
        sequence: sequence.to_string().parse().unwrap(),
        sub_sequence,
    };
    let steps = [
        (Position::TrimHorizon, true),
        (Position::AtTimestamp(5), false),
        (within(9, 3), true),
        (within(9, 2), false),
        (within(9, 3), true),
        (at(9), true),
        (within(9, 4), false),
        (at(10), true),
        (at(9), false),
        (Position::TrimHorizon, false),
        (Position::ShardEnd, false),
        (at(100), true),
    ];
    let mut stored = Position::TrimHorizon;
    for (position, good) in steps {
        let result = stores.other.checkpoint(APP, &mine, &position).await;
        if good {
            result.unwrap();
            stored = position;
        } else {
            assert_eq!(kind(result), ErrorKind::InvalidPosition, "{position}");
        }
        assert_eq!(
            lease(&stores.one, "a").await.checkpoint,
            stored,
            "after {position}"
        );
    }
    // A checkpoint changes nothing else.
    assert_eq!(token(&lease(&stores.one, "a").await), mine);
}

async fn k3_monotonic_an_ended_shard_is_final(stores: Stores) {
    let worker = holder(&stores.one, "w1", &["a"]).await;
    let mine = token(&lease(&stores.one, "a").await);
    stores.one.checkpoint(APP, &mine, &at(7)).await.unwrap();
    stores.one.end_shard(APP, &mine, &[]).await.unwrap();
    let ended = lease(&stores.other, "a").await;
    assert_eq!(
        (ended.checkpoint, &ended.owner, ended.counter),
        (Position::ShardEnd, &None, 2)
    );

    for position in [at(8), Position::TrimHorizon, Position::ShardEnd] {
        let result = stores.one.checkpoint(APP, &mine, &position).await;
        assert_eq!(kind(result), ErrorKind::LeaseLost);
    }
    for counter in [1, 2] {
        assert_eq!(
            stores
                .one
                .take(APP, &worker, &[claim("a", counter)])
                .await
                .unwrap(),
            []
        );
    }
    assert_eq!(
        stores
            .one
            .create_leases(APP, &[new_lease("a", &[])])
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        stores
            .one
            .release(APP, &[give_up(&mine, Some(at(9)), None)])
            .await
            .unwrap(),
        0
    );
    assert_eq!(lease(&stores.other, "a").await, ended);
}

async fn k6_a_child_is_not_taken_before_its_parents_end(stores: Stores) {
    let worker = holder(&stores.one, "w1", &["p1", "p2"]).await;
    let children = [new_lease("child", &["p1", "p2", "absent"])];
    stores.one.create_leases(APP, &children).await.unwrap();
    let child = [claim("child", 0)];
    for parent in ["p1", "p2"] {
        assert_eq!(stores.other.take(APP, &worker, &child).await.unwrap(), []);
        let parent = token(&lease(&stores.one, parent).await);
        stores.one.end_shard(APP, &parent, &[]).await.unwrap();
    }
    assert_eq!(
        stores.other.take(APP, &worker, &child).await.unwrap().len(),
        1
    );
}

async fn k6_ending_a_shard_creates_its_children(stores: Stores) {
    holder(&stores.one, "w1", &["p"]).await;
    stores
        .one
        .create_leases(APP, &[new_lease("c2", &["p"])])
        .await
        .unwrap();
    let kept = lease(&stores.one, "c2").await;
    let parent = token(&lease(&stores.one, "p").await);
    let children = [new_lease("c1", &["p"]), new_lease("c2", &["p", "q"])];
    stores.one.end_shard(APP, &parent, &children).await.unwrap();
    assert_eq!(
        lease(&stores.other, "c1").await,
        rules::create(&children[0])
    );
    assert_eq!(
        lease(&stores.other, "c2").await,
        kept,
        "a lease that is there is left alone"
    );
}

async fn k9_a_release_stores_the_last_checkpoint(stores: Stores) {
    holder(&stores.one, "w1", &["a", "b"]).await;
    let (a, b) = (lease(&stores.one, "a").await, lease(&stores.one, "b").await);
    stores
        .one
        .checkpoint(APP, &token(&b), &at(3))
        .await
        .unwrap();
    let mut gone = token(&a);
    gone.counter += 1;
    let releases = [
        give_up(&token(&a), Some(at(12)), None),
        give_up(&gone, Some(at(99)), None),
        give_up(&token(&b), None, None),
    ];
    assert_eq!(stores.one.release(APP, &releases).await.unwrap(), 2);
    for (shard, position) in [("a", at(12)), ("b", at(3))] {
        let free = lease(&stores.other, shard).await;
        assert_eq!(
            (free.owner, free.counter, free.checkpoint),
            (None, 2, position)
        );
    }
    let next = stores.other.register(APP, "w2").await.unwrap();
    assert_eq!(
        stores
            .other
            .take(APP, &next, &[claim("a", 2)])
            .await
            .unwrap()
            .len(),
        1
    );
}

async fn k9_a_hand_over_gives_the_asker_the_lease(stores: Stores) {
    holder(&stores.one, "w1", &["a", "b"]).await;
    let asker = stores.other.register(APP, "w2").await.unwrap();
    let asks = [ask_for("a", 1, None), ask_for("b", 1, None)];
    assert_eq!(stores.other.ask(APP, &asker, &asks).await.unwrap(), 2);
    let a = lease(&stores.one, "a").await;
    assert_eq!(a.wanted_by.as_deref(), Some("w2"));
    // Being asked does not touch the tenure.
    stores
        .one
        .checkpoint(APP, &token(&a), &at(4))
        .await
        .unwrap();
    let release = give_up(&token(&a), Some(at(5)), Some("w2"));
    assert_eq!(stores.one.release(APP, &[release]).await.unwrap(), 1);
    let given = lease(&stores.other, "a").await;
    assert_eq!(
        (given.owner.as_deref(), given.counter, given.owner_switches),
        (Some("w2"), 2, 2)
    );
    assert_eq!((given.wanted_by.clone(), given.checkpoint), (None, at(5)));
    assert_eq!(
        kind(stores.one.checkpoint(APP, &token(&a), &at(6)).await),
        ErrorKind::LeaseLost
    );
    stores
        .other
        .checkpoint(APP, &token(&given), &at(6))
        .await
        .unwrap();

    // An asker that has left gets nothing: nobody would find out before the fail-over time.
    let b = lease(&stores.one, "b").await;
    stores.other.deregister(APP, &asker).await.unwrap();
    stores
        .one
        .release(APP, &[give_up(&token(&b), None, Some("w2"))])
        .await
        .unwrap();
    assert_eq!(lease(&stores.one, "b").await.owner, None);
}

async fn k11_failed_write_leaves_everything_as_it_was(stores: Stores) {
    let worker = holder(&stores.one, "w1", &["a", "b"]).await;
    let (a, b) = (lease(&stores.one, "a").await, lease(&stores.one, "b").await);
    stores
        .one
        .checkpoint(APP, &token(&b), &at(10))
        .await
        .unwrap();
    let stale = LeaseToken {
        counter: 0,
        ..token(&a)
    };
    let impostor = Registration {
        incarnation: worker.incarnation ^ 1,
        ..worker.clone()
    };
    let before = stores.one.snapshot(APP).await.unwrap();

    let half_bad = [
        give_up(&token(&a), Some(at(1)), None),
        give_up(&token(&b), Some(at(9)), None),
    ];
    let result = stores.one.release(APP, &half_bad).await;
    assert_eq!(kind(result), ErrorKind::InvalidPosition);
    let with_end = [give_up(&token(&a), Some(Position::ShardEnd), None)];
    assert_eq!(
        kind(stores.one.release(APP, &with_end).await),
        ErrorKind::InvalidPosition
    );
    let children = [new_lease("child", &["a"])];
    let result = stores.one.end_shard(APP, &stale, &children).await;
    assert_eq!(kind(result), ErrorKind::LeaseLost);
    assert_eq!(
        kind(stores.one.checkpoint(APP, &stale, &at(2)).await),
        ErrorKind::LeaseLost
    );
    assert_eq!(
        kind(stores.one.heartbeat(APP, &impostor).await),
        ErrorKind::WorkerReplaced
    );
    stores.one.deregister(APP, &impostor).await.unwrap();
    let missing = LeaseToken {
        key: key("nowhere"),
        ..token(&a)
    };
    let result = stores.one.end_shard(APP, &missing, &children).await;
    assert_eq!(kind(result), ErrorKind::LeaseLost);
    assert_eq!(stores.other.snapshot(APP).await.unwrap(), before);
}

async fn k12_repeated_writes_succeed(stores: Stores) {
    let worker = holder(&stores.one, "w1", &["a", "b"]).await;
    let claims = [claim("a", 0), claim("b", 0)];
    let again = stores.other.take(APP, &worker, &claims).await.unwrap();
    assert_eq!(again, stores.one.snapshot(APP).await.unwrap().leases);
    let twice = [claim("a", 0), claim("a", 0)];
    assert_eq!(
        stores.other.take(APP, &worker, &twice).await.unwrap(),
        again[..1]
    );

    let (a, b) = (token(&again[0]), token(&again[1]));
    for _ in 0..2 {
        stores.one.checkpoint(APP, &a, &at(5)).await.unwrap();
    }
    let asker = stores.other.register(APP, "w2").await.unwrap();
    for _ in 0..2 {
        assert_eq!(
            stores
                .other
                .ask(APP, &asker, &[ask_for("a", 1, None)])
                .await
                .unwrap(),
            1
        );
    }
    // A claim by which another run might have taken the lease is none of the asker's.
    assert_eq!(stores.other.take(APP, &asker, &claims).await.unwrap(), []);
    let release = [give_up(&a, Some(at(6)), None)];
    assert_eq!(stores.one.release(APP, &release).await.unwrap(), 1);
    assert_eq!(stores.one.release(APP, &release).await.unwrap(), 0);
    assert_eq!(lease(&stores.one, "a").await.counter, 2);
    for _ in 0..2 {
        stores
            .one
            .end_shard(APP, &b, &[new_lease("child", &["b"])])
            .await
            .unwrap();
        assert_eq!(lease(&stores.one, "b").await.counter, 2);
    }
    // Only for the token that ended it.
    let stale = LeaseToken { counter: 0, ..b };
    assert_eq!(
        kind(stores.one.end_shard(APP, &stale, &[]).await),
        ErrorKind::LeaseLost
    );
    for _ in 0..2 {
        stores.one.deregister(APP, &worker).await.unwrap();
    }
}

async fn k12_a_repeated_end_does_not_bring_finished_children_back(stores: Stores) {
    let worker = holder(&stores.one, "w1", &["p"]).await;
    let parent = token(&lease(&stores.one, "p").await);
    let children = [new_lease("c", &["p"])];
    stores.one.end_shard(APP, &parent, &children).await.unwrap();
    let child = stores
        .one
        .take(APP, &worker, &[claim("c", 0)])
        .await
        .unwrap();
    stores
        .one
        .end_shard(APP, &token(&child[0]), &[])
        .await
        .unwrap();
    assert_eq!(stores.one.delete_ended(APP, &[key("c")]).await.unwrap(), 1);
    stores
        .other
        .end_shard(APP, &parent, &children)
        .await
        .unwrap();
    assert_eq!(stores.one.snapshot(APP).await.unwrap().leases.len(), 1);
}

async fn a_request_stands_until_its_asker_is_named_dead(stores: Stores) {
    let owner = holder(&stores.one, "w1", &["a"]).await;
    stores
        .one
        .create_leases(APP, &[new_lease("free", &[])])
        .await
        .unwrap();
    let two = stores.one.register(APP, "w2").await.unwrap();
    let three = stores.other.register(APP, "w3").await.unwrap();
    let ask = |counter, replace| [ask_for("a", counter, replace)];
    assert_eq!(
        stores.one.ask(APP, &two, &ask(0, None)).await.unwrap(),
        0,
        "stale counter"
    );
    assert_eq!(
        stores.one.ask(APP, &owner, &ask(1, None)).await.unwrap(),
        0,
        "its own lease"
    );
    assert_eq!(
        stores
            .one
            .ask(APP, &two, &[ask_for("free", 0, None)])
            .await
            .unwrap(),
        0
    );
    assert_eq!(stores.one.ask(APP, &two, &ask(1, None)).await.unwrap(), 1);
    assert_eq!(
        stores.other.ask(APP, &three, &ask(1, None)).await.unwrap(),
        0
    );
    assert_eq!(
        stores
            .other
            .ask(APP, &three, &ask(1, Some("w9")))
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        lease(&stores.one, "a").await.wanted_by.as_deref(),
        Some("w2")
    );
    assert_eq!(
        stores
            .other
            .ask(APP, &three, &ask(1, Some("w2")))
            .await
            .unwrap(),
        1
    );
    let wanted = lease(&stores.one, "a").await;
    assert_eq!(
        (wanted.wanted_by.as_deref(), wanted.counter),
        (Some("w3"), 1)
    );
    // The request was made to this tenure and ends with it.
    stores
        .one
        .release(APP, &[give_up(&token(&wanted), None, None)])
        .await
        .unwrap();
    assert_eq!(lease(&stores.one, "a").await.wanted_by, None);
}

async fn a_departed_worker_leaves_nothing_behind(stores: Stores) {
    let leaver = holder(&stores.one, "w1", &["a", "b"]).await;
    holder(&stores.one, "w2", &["c"]).await;
    assert_eq!(
        stores
            .one
            .ask(APP, &leaver, &[ask_for("c", 1, None)])
            .await
            .unwrap(),
        1
    );
    stores.one.deregister(APP, &leaver).await.unwrap();
    let snapshot = stores.other.snapshot(APP).await.unwrap();
    let rows: Vec<_> = snapshot
        .leases
        .iter()
        .map(|lease| {
            (
                lease.owner.as_deref(),
                lease.counter,
                lease.wanted_by.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        rows,
        [(None, 2, None), (None, 2, None), (Some("w2"), 1, None)]
    );
    assert_eq!(snapshot.workers.len(), 1);
    assert_eq!(
        kind(stores.one.heartbeat(APP, &leaver).await),
        ErrorKind::WorkerReplaced
    );
}

async fn only_silent_workers_that_hold_nothing_are_forgotten(stores: Stores) {
    holder(&stores.one, "busy", &["a"]).await;
    let moving = stores.one.register(APP, "moving").await.unwrap();
    let silent = stores.one.register(APP, "silent").await.unwrap();
    assert_eq!(
        stores
            .one
            .ask(APP, &silent, &[ask_for("a", 1, None)])
            .await
            .unwrap(),
        1
    );
    let observed = stores.other.snapshot(APP).await.unwrap().workers;
    stores.one.heartbeat(APP, &moving).await.unwrap();
    stores.other.forget_workers(APP, &observed).await.unwrap();
    let left = stores.one.snapshot(APP).await.unwrap();
    let ids: Vec<_> = left
        .workers
        .iter()
        .map(|row| row.worker_id.as_str())
        .collect();
    assert_eq!(ids, ["busy", "moving"]);
    assert_eq!(
        left.leases[0].wanted_by, None,
        "a forgotten worker asks for nothing"
    );
    assert_eq!(
        kind(stores.one.heartbeat(APP, &silent).await),
        ErrorKind::WorkerReplaced
    );
}

async fn only_ended_leases_are_deleted(stores: Stores) {
    holder(&stores.one, "w1", &["held", "ended"]).await;
    stores
        .one
        .create_leases(APP, &[new_lease("free", &[])])
        .await
        .unwrap();
    let ended = token(&lease(&stores.one, "ended").await);
    stores.one.end_shard(APP, &ended, &[]).await.unwrap();
    let keys = ["held", "ended", "free", "absent", "ended"].map(key);
    assert_eq!(stores.other.delete_ended(APP, &keys).await.unwrap(), 1);
    let left = stores.one.snapshot(APP).await.unwrap().leases;
    assert_eq!(
        left.iter()
            .map(|lease| lease.key.shard_id.as_str())
            .collect::<Vec<_>>(),
        ["free", "held"]
    );
    // Its token ended it, but nothing is left to tell by.
    assert_eq!(
        kind(stores.one.end_shard(APP, &ended, &[]).await),
        ErrorKind::LeaseLost
    );
}
