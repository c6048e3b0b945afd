//! Transactions that meet: heartbeats and takes, and an application's transaction that stands still.

use super::*;

/// A transaction of another program that holds the row of a lease, as `checkpoint_in` does.
async fn holds(url: &str, shard_id: &str) -> PgConnection {
    let mut raw = outsider(url).await;
    let sql = format!(
        "BEGIN; UPDATE millstream.leases SET checkpoint = checkpoint WHERE lease_key = '{shard_id}'"
    );
    run(&mut raw, &sql).await;
    raw
}

/// Goal: an owner whose heartbeat is being written when its lease is claimed keeps it. Method: another connection holds the
/// heartbeat's transaction open until the take waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k1_fenced_a_take_waits_for_the_heartbeat_under_way() {
    let url = place().await;
    let store = open(&url).await;
    holder(&store, "w1", &["a"]).await;
    let thief = join(&store, "w2").await;
    let claims = [as_expired(&store, &lease(&store, "a").await).await];
    let mut beating = outsider(&url).await;
    let beat =
        "BEGIN; UPDATE millstream.workers SET heartbeat = heartbeat + 1 WHERE worker_id = 'w1'";
    run(&mut beating, beat).await;
    let taking = {
        let store = store.clone();
        tokio::spawn(async move { store.take(APP, &thief, &claims).await })
    };
    let mut raw = outsider(&url).await;
    waiting(&mut raw).await;
    run(&mut beating, "COMMIT").await;
    assert_eq!(taking.await.unwrap().unwrap(), []);
    assert_eq!(lease(&store, "a").await.owner.as_deref(), Some("w1"));
}

/// Goal: a worker whose heartbeat is being written when its leases are to be reset, if nobody lives, keeps them. Method: as above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k11_a_reset_waits_for_the_heartbeat_under_way() {
    let url = place().await;
    let store = open(&url).await;
    holder(&store, "w1", &["a"]).await;
    let workers = store.snapshot(APP).await.unwrap().workers;
    let silent = workers
        .into_iter()
        .map(|row| (row.worker_id, row.heartbeat))
        .collect();
    let reset = Reset {
        by: "an operator".to_owned(),
        asked: "to 1".to_owned(),
        condition: ResetCondition::NobodyLives { silent },
        whole_stream: None,
        starts: vec![NewLease {
            checkpoint: at(1),
            ..new_lease("a", &[])
        }],
    };
    let mut beating = outsider(&url).await;
    let beat =
        "BEGIN; UPDATE millstream.workers SET heartbeat = heartbeat + 1 WHERE worker_id = 'w1'";
    run(&mut beating, beat).await;
    let resetting = {
        let store = store.clone();
        tokio::spawn(async move { store.reset(APP, &reset).await })
    };
    let mut raw = outsider(&url).await;
    waiting(&mut raw).await;
    run(&mut beating, "COMMIT").await;
    let refused = resetting.await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InUse, "{refused}");
    assert_eq!(lease(&store, "a").await.owner.as_deref(), Some("w1"));
}

/// Waits until some session of the database waits for a lock.
pub(super) async fn waiting(raw: &mut PgConnection) {
    let count = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let seen = async {
        while text(raw, count).await == "0" {
            tokio::task::yield_now().await;
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(10), seen).await;
    seen.expect("nobody waits for the lock");
}

/// A take that is half-way: a trigger makes it slow between its look and its end.
async fn slow_take(
    url: &str,
    store: &PostgresLeaseStore,
    worker: Registration,
    claims: [Claim; 1],
) -> tokio::task::JoinHandle<Result<Vec<Lease>, Error>> {
    let mut raw = outsider(url).await;
    run(
        &mut raw,
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.5); RETURN NEW; END $$;
         CREATE TRIGGER slow BEFORE UPDATE ON millstream.leases FOR EACH ROW EXECUTE FUNCTION dawdle();",
    )
    .await;
    let store = store.clone();
    let taking = tokio::spawn(async move { store.take(APP, &worker, &claims).await });
    let asleep = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    while text(&mut raw, asleep).await == "0" {}
    taking
}

/// Goal: a new run of a worker releases also what the earlier run is just taking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k1_fenced_a_new_run_waits_for_the_take_of_the_earlier_one() {
    let url = place().await;
    let store = open(&url).await;
    create(&store, &["a"]).await;
    let earlier = join(&store, "w").await;
    let taking = slow_take(&url, &store, earlier, [claim("a", 0)]).await;
    join(&store, "w").await;
    assert_eq!(taking.await.unwrap().unwrap().len(), 1);
    let free = lease(&store, "a").await;
    assert_eq!((free.owner, free.counter), (None, 2));
}

/// Goal: a call that was refused leaves no lock behind for as long as its connection rests.
#[tokio::test]
async fn a_refused_call_leaves_no_lock_behind() {
    let url = place().await;
    let (store, other) = (open(&url).await, open_hasty(&url).await);
    let (_, held) = holder(&store, "w", &["a"]).await;
    store.checkpoint(APP, &held[0], &at(5)).await.unwrap();
    let back = store.release(APP, &[give_up(&held[0], Some(at(4)))]).await;
    assert_eq!(back.unwrap_err().kind(), ErrorKind::InvalidPosition);
    create(&other, &["b"]).await;
    let back = store.checkpoint(APP, &held[0], &at(4)).await;
    assert_eq!(back.unwrap_err().kind(), ErrorKind::InvalidPosition);
    other.checkpoint(APP, &held[0], &at(6)).await.unwrap();
}

/// Goal: once a take has looked at a heartbeat, the owner's next one comes after the take, so the owner learns that it lost its lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k1_fenced_a_heartbeat_waits_for_the_take_that_looked_at_it() {
    let url = place().await;
    let store = open(&url).await;
    let (owner, _) = holder(&store, "w1", &["a"]).await;
    let thief = join(&store, "w2").await;
    let claims = [as_expired(&store, &lease(&store, "a").await).await];
    let taking = slow_take(&url, &store, thief, claims).await;
    store
        .heartbeat(APP, &owner, &Loads::new(), &[])
        .await
        .unwrap();
    assert_eq!(lease(&store, "a").await.owner.as_deref(), Some("w2"));
    assert_eq!(taking.await.unwrap().unwrap().len(), 1);
}

/// Goal: an application's transaction that stands still holds up its own shard and nothing else (K10).
#[tokio::test]
async fn k10_a_transaction_that_stands_still_delays_its_own_shard_only() {
    let url = place().await;
    let store = open_hasty(&url).await;
    let (owner, held) = holder(&store, "w1", &["a", "b", "c"]).await;
    let other = join(&store, "w2").await;
    let claims = [
        as_expired(&store, &lease(&store, "a").await).await,
        as_expired(&store, &lease(&store, "b").await).await,
    ];
    let mut stuck = holds(&url, "a").await;

    let taken = store.take(APP, &other, &claims).await.unwrap();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].key, key("b"));
    let ask = |shard| crate::lease::Ask {
        key: key(shard),
        counter: 1,
        replace_wanted_by: None,
    };
    assert_eq!(
        store.ask(APP, &other, &[ask("a"), ask("c")]).await.unwrap(),
        1
    );
    store.checkpoint(APP, &held[2], &at(1)).await.unwrap();
    store
        .heartbeat(APP, &owner, &Loads::new(), &[])
        .await
        .unwrap();
    create(&store, &["d"]).await;
    assert_eq!(store.snapshot(APP).await.unwrap().leases.len(), 4);
    // What needs that row waits for it, but not for ever, and holds up nobody meanwhile.
    let (stuck_one, free_one) = ([give_up(&held[0], None)], [give_up(&held[2], None)]);
    let (late, beside) = tokio::join!(
        store.release(APP, &stuck_one),
        store.release(APP, &free_one)
    );
    let late = late.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Unavailable, "{late}");
    assert_eq!(beside.unwrap(), 1);
    let late = store.checkpoint(APP, &held[0], &at(1)).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Unavailable, "{late}");

    run(&mut stuck, "COMMIT").await;
    let again = [as_expired(&store, &lease(&store, "a").await).await];
    assert_eq!(store.take(APP, &other, &again).await.unwrap().len(), 1);
}

/// Goal: a call that meets a transaction of an application waits and succeeds once that has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_is_held_for_a_moment_is_waited_for() {
    let url = place().await;
    let store = open(&url).await;
    let (_, held) = holder(&store, "w", &["a"]).await;
    let mut short = holds(&url, "a").await;
    let ending = {
        let (store, mine) = (store.clone(), held[0].clone());
        tokio::spawn(async move { store.end_shard(APP, &mine, &[]).await })
    };
    let mut raw = outsider(&url).await;
    // Longer than the wait for one row, so that it tries again.
    for _ in 0..3 {
        waiting(&mut raw).await;
        run(&mut raw, "SELECT pg_sleep(0.15)").await;
    }
    run(&mut short, "COMMIT").await;
    ending.await.unwrap().unwrap();
    assert_eq!(lease(&store, "a").await.checkpoint, Position::ShardEnd);
}

/// Goal: a process that is held in the middle of a transaction gives up its locks. Method: a transaction of the store's own that goes no further.
#[tokio::test]
async fn k10_a_process_that_stops_in_a_transaction_holds_up_nobody_for_long() {
    let url = place().await;
    let (stopped, store) = (open(&url).await, open(&url).await);
    let (worker, _) = holder(&store, "w", &["a"]).await;
    let mut connection = stopped.rest.connection().await.unwrap();
    let begun = Transaction::begin(
        &mut connection.inner,
        &stopped.begin,
        Scope::Application,
        &stopped.place,
        APP,
    );
    let _held = begun.await.unwrap();
    let begun = clock::now();
    create(&store, &["b"]).await;
    store.deregister(APP, &worker).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(2_500));
}

/// Goal: heartbeats go through while everything else of the process waits.
#[tokio::test]
async fn heartbeats_wait_for_nothing_in_their_process() {
    let url = place().await;
    let store = open_hasty(&url).await;
    let (worker, held) = holder(&store, "w", &["a"]).await;
    let _stuck = holds(&url, "a").await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..3 * CONNECTIONS {
        let (store, mine) = (store.clone(), held[0].clone());
        waiting.spawn(async move { store.checkpoint(APP, &mine, &at(1)).await });
    }
    tokio::task::yield_now().await;
    assert_eq!(store.rest.free(), 0, "all connections are in use");
    // They are free again after the bound, which is a heartbeat's bound too.
    store
        .heartbeat(APP, &worker, &Loads::new(), &[])
        .await
        .unwrap();
    while let Some(ended) = waiting.join_next().await {
        assert_eq!(ended.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert_eq!(store.snapshot(APP).await.unwrap().leases.len(), 1);
}
