//! Rows that come and go: leases, workers and requests.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// Goal: everybody reads what a worker says of itself, as of its last run and heartbeat.
pub(super) async fn a_worker_is_known_with_its_profile_and_loads(stores: Stores) {
    let profile = WorkerProfile {
        streams: Some(BTreeSet::from([STREAM.to_owned()])),
        failover: Some(std::time::Duration::from_millis(1500)),
        max_leases: Some(u64::from(u32::MAX)),
    };
    let worker = stores.one.register(APP, "w", &profile).await.unwrap();
    let load = Load {
        bytes_per_second: 5,
        behind_ms: 7,
    };
    let of_stream = BTreeMap::from([("shardId-000000000001".to_owned(), load)]);
    let loads = Loads::from([(STREAM.to_owned(), of_stream)]);
    stores
        .one
        .heartbeat(APP, &worker, &loads, &[])
        .await
        .unwrap();
    let rows = || async { stores.other.snapshot(APP).await.unwrap().workers };
    let row = rows().await.remove(0);
    assert_eq!((row.profile, row.loads), (profile.clone(), loads.clone()));
    let changed = WorkerProfile {
        streams: Some(BTreeSet::from([
            "a \"stream\"".to_owned(),
            STREAM.to_owned(),
        ])),
        max_leases: None,
        ..profile
    };
    stores.one.announce(APP, &worker, &changed).await.unwrap();
    let row = rows().await.remove(0);
    assert_eq!((row.profile, row.loads), (changed.clone(), loads));
    stores
        .one
        .heartbeat(APP, &worker, &Loads::new(), &[])
        .await
        .unwrap();
    assert_eq!(rows().await[0].loads, Loads::new());
    let later = join(&stores.one, "w").await;
    assert_eq!(rows().await[0].profile, WorkerProfile::default());
    assert_eq!(
        kind(stores.other.announce(APP, &worker, &changed).await),
        ErrorKind::WorkerReplaced
    );
    assert_eq!(rows().await[0].profile, WorkerProfile::default());
    stores.one.deregister(APP, &later).await.unwrap();
    assert_eq!(
        kind(stores.one.announce(APP, &later, &changed).await),
        ErrorKind::WorkerReplaced
    );
    assert_eq!(rows().await, []);
}

pub(super) async fn leases_are_created_once_and_listed_in_order(stores: Stores) {
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

pub(super) async fn applications_and_streams_are_kept_apart(stores: Stores) {
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
    let worker = join(&stores.one, "w").await;
    stores
        .one
        .register("other", "w", &WorkerProfile::default())
        .await
        .unwrap();
    stores
        .one
        .heartbeat(APP, &worker, &Loads::new(), &[])
        .await
        .unwrap();

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

pub(super) async fn a_request_stands_until_its_asker_is_named_dead(stores: Stores) {
    let owner = holder(&stores.one, "w1", &["a"]).await;
    stores
        .one
        .create_leases(APP, &[new_lease("free", &[])])
        .await
        .unwrap();
    let two = join(&stores.one, "w2").await;
    let three = join(&stores.other, "w3").await;
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

pub(super) async fn a_departed_worker_leaves_nothing_behind(stores: Stores) {
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
        kind(stores.one.heartbeat(APP, &leaver, &Loads::new(), &[]).await),
        ErrorKind::WorkerReplaced
    );
}

pub(super) async fn only_silent_workers_that_hold_nothing_are_forgotten(stores: Stores) {
    holder(&stores.one, "busy", &["a"]).await;
    let moving = join(&stores.one, "moving").await;
    let silent = join(&stores.one, "silent").await;
    assert_eq!(
        stores
            .one
            .ask(APP, &silent, &[ask_for("a", 1, None)])
            .await
            .unwrap(),
        1
    );
    let observed = stores.other.snapshot(APP).await.unwrap().workers;
    stores
        .one
        .heartbeat(APP, &moving, &Loads::new(), &[])
        .await
        .unwrap();
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
        kind(stores.one.heartbeat(APP, &silent, &Loads::new(), &[]).await),
        ErrorKind::WorkerReplaced
    );
}

pub(super) async fn only_ended_leases_are_deleted(stores: Stores) {
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
