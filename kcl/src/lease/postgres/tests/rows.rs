//! Rows that make no sense, and writes that fail half-way.

use super::*;

/// Damages one column of lease `bad` at a time; the others work, and `bad` goes to nobody and ends nothing.
#[tokio::test]
async fn k10_a_corrupt_row_stalls_no_other() {
    let damages = [
        "checkpoint = 'LATEST'",
        "checkpoint = ''",
        "lease_counter = -1",
        "lease_counter = 9223372036854775807",
        "owner_switches = -7",
        "parents = 'not json'",
        "parents = '[1]'",
        "hash_range_start = NULL",
        "hash_range_end = '340282366920938463463374607431768211456'",
        "hash_range_start = '5', hash_range_end = '4'",
        "pending_checkpoint = 'SOMEWHERE'",
    ];
    let url = place().await;
    let store = open(&url).await;
    let mut raw = outsider(&url).await;
    for damage in damages {
        run(&mut raw, "TRUNCATE millstream.leases, millstream.workers").await;
        let (worker, held) = holder(&store, "w", &["bad"]).await;
        let leases = [
            new_lease("bad", &[]),
            new_lease("child", &["bad"]),
            new_lease("good", &[]),
        ];
        store.create_leases(APP, &leases).await.unwrap();
        let sql = format!("UPDATE millstream.leases SET {damage} WHERE lease_key = 'bad'");
        run(&mut raw, &sql).await;

        let snapshot = store.snapshot(APP).await.unwrap();
        let keys = snapshot.leases.iter().map(|lease| &*lease.key.shard_id);
        let seen: Vec<&str> = keys.collect();
        assert_eq!(
            (seen, snapshot.damaged),
            (vec!["child", "good"], vec![key("bad")]),
            "{damage}"
        );
        let claims = [
            claim("bad", 0),
            claim("bad", 1),
            claim("child", 0),
            claim("good", 0),
        ];
        let taken = store.take(APP, &worker, &claims).await.unwrap();
        assert_eq!(taken.len(), 1, "{damage}");
        assert_eq!(taken[0].key, key("good"));
        // Its holder stops; release and cleanup pass it by.
        let lost = store.checkpoint(APP, &held[0], &at(1)).await.unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::LeaseLost, "{damage}");
        let releases = [&held[0], &token(&taken[0])].map(|token| give_up(token, Some(at(4))));
        assert_eq!(store.release(APP, &releases).await.unwrap(), 1, "{damage}");
        assert_eq!(store.delete_ended(APP, &[key("bad")]).await.unwrap(), 0);
        assert_eq!(
            store.create_leases(APP, &leases).await.unwrap(),
            0,
            "the row is still there"
        );
        store.deregister(APP, &worker).await.unwrap();
    }
}

/// What a worker says of itself is advice: nonsense there stops nobody.
#[tokio::test]
async fn k10_nonsense_in_a_workers_profile_counts_as_not_said() {
    let url = place().await;
    let store = open(&url).await;
    let worker = join(&store, "w").await;
    run(
        &mut outsider(&url).await,
        "UPDATE millstream.workers SET failover_ms = -5, max_leases = -1, loads = 'busy', heartbeat = 9223372036854775807",
    )
    .await;
    let row = store.snapshot(APP).await.unwrap().workers.remove(0);
    assert_eq!(
        (row.profile, row.loads),
        (WorkerProfile::default(), Loads::new())
    );
    store
        .heartbeat(APP, &worker, &Loads::new(), &[])
        .await
        .unwrap();
    let next = store.snapshot(APP).await.unwrap().workers.remove(0);
    assert_eq!(next.heartbeat, row.heartbeat + 1);
}

/// The last statement of a transaction fails: nothing of it is there, and the store goes on working.
#[tokio::test]
async fn k11_failed_write_leaves_everything_as_it_was_when_the_server_fails_half_way() {
    let url = place().await;
    let store = open(&url).await;
    let (worker, held) = holder(&store, "w", &["a", "b"]).await;
    let mut raw = outsider(&url).await;
    run(
        &mut raw,
        "CREATE FUNCTION burn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'disk on fire'; END $$;
         CREATE TRIGGER no_child BEFORE INSERT ON millstream.leases FOR EACH ROW WHEN (NEW.lease_key = 'child2') EXECUTE FUNCTION burn();
         CREATE TRIGGER no_b BEFORE UPDATE ON millstream.leases FOR EACH ROW WHEN (NEW.lease_key = 'b') EXECUTE FUNCTION burn();",
    )
    .await;
    let before = store.snapshot(APP).await.unwrap();
    let children = [new_lease("child1", &["a"]), new_lease("child2", &["a"])];
    let releases = [&held[0], &held[1]].map(|token| give_up(token, Some(at(1))));
    let profile = WorkerProfile::default();
    for error in [
        store.end_shard(APP, &held[0], &children).await.unwrap_err(),
        store.release(APP, &releases).await.map(drop).unwrap_err(),
        store.deregister(APP, &worker).await.unwrap_err(),
        store
            .register(APP, "w", &profile)
            .await
            .map(drop)
            .unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Store, "{error}");
        assert!(error.to_string().contains("disk on fire"), "{error}");
        assert_eq!(store.snapshot(APP).await.unwrap(), before);
    }
    let drop = "DROP TRIGGER no_child ON millstream.leases; DROP TRIGGER no_b ON millstream.leases";
    run(&mut raw, drop).await;
    store
        .heartbeat(APP, &worker, &Loads::new(), &[])
        .await
        .unwrap();
    store.end_shard(APP, &held[0], &children).await.unwrap();
    assert_eq!(store.snapshot(APP).await.unwrap().leases.len(), 4);
}

/// A caller that gives up at any point leaves either the whole write or nothing, and no lock behind.
#[tokio::test]
async fn k11_a_cancelled_write_happens_wholly_or_not_at_all() {
    let url = place().await;
    let (store, other) = (open(&url).await, open(&url).await);
    let worker = join(&store, "w").await;
    for index in 0..60u64 {
        let shard = format!("s{index:02}");
        create(&store, &[&shard]).await;
        let taken = store.take(APP, &worker, &[claim(&shard, 0)]).await.unwrap();
        let mine = token(&taken[0]);
        let end = [new_lease(&format!("{shard}-child"), &[&shard])];
        let patience = Duration::from_micros(index * 100);
        let write = store.end_shard(APP, &mine, &end);
        let finished = tokio::time::timeout(patience, write).await;

        // The next write waits for what may be left of the one before.
        other.create_leases(APP, &[]).await.unwrap();
        let leases = other.snapshot(APP).await.unwrap().leases;
        let find = |key: &crate::lease::LeaseKey| leases.iter().find(|lease| lease.key == *key);
        let ended = find(&mine.key).unwrap().checkpoint == Position::ShardEnd;
        assert_eq!(
            ended,
            find(&end[0].key).is_some(),
            "half a transaction after {patience:?}"
        );
        assert!(ended || finished.is_err());
        store.end_shard(APP, &mine, &end).await.unwrap();
    }
}

/// Goal: names that the database cannot hold are the configuration's fault, and said so.
#[tokio::test]
async fn a_name_that_cannot_be_stored_is_refused() {
    let store = open(&place().await).await;
    let profile = WorkerProfile::default();
    let error = store.register(APP, "w\0", &profile).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(error.to_string().contains("NUL"), "{error}");
}
