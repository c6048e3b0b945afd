//! Servers that are stopped, killed, paused and started again.

use super::*;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Goal: nothing that was acknowledged is lost when the server is killed, and the store finds the server again by itself. Method: several
/// workers checkpoint without pause on a server that writes through, and it is killed in the middle, three times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k11_what_was_acknowledged_outlives_a_killed_server() {
    let cluster = Cluster::start(Durability::Disk).await;
    let url = cluster.database().await;
    let store = open(&url).await;
    let shards = ["a", "b", "c", "d"];
    let (worker, held) = holder(&store, "w", &shards).await;
    let acknowledged = Arc::new(Mutex::new(BTreeMap::new()));
    for round in 1..=3u64 {
        let (tell, mut heard) = tokio::sync::watch::channel(0);
        let mut tasks = tokio::task::JoinSet::new();
        for mine in held.clone() {
            let (store, acknowledged) = (store.clone(), Arc::clone(&acknowledged));
            let tell = tell.clone();
            tasks.spawn(async move {
                // Until the server is gone.
                for number in 0.. {
                    let position = round * 1_000_000 + number;
                    match store.checkpoint(APP, &mine, &at(position)).await {
                        Ok(()) => {
                            let mut acknowledged = acknowledged.lock().unwrap();
                            acknowledged.insert(mine.key.clone(), position);
                            tell.send_modify(|count| *count += 1);
                        }
                        Err(error) => return error,
                    }
                }
                unreachable!("the server is killed")
            });
        }
        heard.wait_for(|count| *count > 100).await.unwrap();
        cluster.kill().await;
        while let Some(ended) = tasks.join_next().await {
            let error = ended.unwrap();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        }
        cluster.start_again().await;
        for stored in store.snapshot(APP).await.unwrap().leases {
            let last = acknowledged.lock().unwrap()[&stored.key];
            assert!(
                at(last).may_advance_to(&stored.checkpoint),
                "{last} was acknowledged, {} is stored",
                stored.checkpoint
            );
            assert_eq!(stored.owner.as_deref(), Some("w"));
        }
        store
            .heartbeat(APP, &worker, &Loads::new(), &[])
            .await
            .unwrap();
    }
}

/// Goal: a server that was restarted costs no call: dead connections are replaced before anybody notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_is_found_again() {
    let cluster = Cluster::start(Durability::System).await;
    let store = open(&cluster.database().await).await;
    let (worker, held) = holder(&store, "w", &["a"]).await;
    // All connections are open.
    let many = || async {
        let snapshots = (0..2 * CONNECTIONS).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.snapshot(APP).await })
        });
        for snapshot in snapshots.collect::<Vec<_>>() {
            snapshot.await.unwrap().unwrap();
        }
    };
    many().await;
    store
        .heartbeat(APP, &worker, &Loads::new(), &[])
        .await
        .unwrap();
    cluster.restart().await;
    store.checkpoint(APP, &held[0], &at(1)).await.unwrap();
    store
        .heartbeat(APP, &worker, &Loads::new(), &[])
        .await
        .unwrap();
    many().await;

    cluster.stop().await;
    let begun = clock::now();
    for error in [
        store.checkpoint(APP, &held[0], &at(2)).await.unwrap_err(),
        store
            .heartbeat(APP, &worker, &Loads::new(), &[])
            .await
            .unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("out of reach"), "{error}");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "nothing to wait for"
    );
    cluster.start_again().await;
    store.checkpoint(APP, &held[0], &at(2)).await.unwrap();
    store
        .heartbeat(APP, &worker, &Loads::new(), &[])
        .await
        .unwrap();
}

/// Goal: calls on a server that hangs end within their bound, and work when it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k10_a_server_that_hangs_is_unavailable_and_works_afterwards() {
    let cluster = Cluster::start(Durability::System).await;
    let url = cluster.database().await;
    let store = open_hasty(&url).await;
    let (worker, held) = holder(&store, "w", &["a"]).await;
    store
        .heartbeat(APP, &worker, &Loads::new(), &[])
        .await
        .unwrap();
    let before = store.snapshot(APP).await.unwrap();
    cluster.pause().await;
    // The second round has no open connection left.
    for _ in 0..2 {
        let begun = clock::now();
        let (loads, position) = (Loads::new(), at(1));
        let (beat, moved, seen, created) = tokio::join!(
            store.heartbeat(APP, &worker, &loads, &[]),
            store.checkpoint(APP, &held[0], &position),
            store.snapshot(APP),
            PostgresLeaseStore::connect_with(options(&url), SHORT),
        );
        let took = begun.elapsed();
        assert!(took < SHORT * 3, "{took:?}");
        for error in [
            beat.unwrap_err(),
            moved.unwrap_err(),
            seen.map(drop).unwrap_err(),
            created.map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(error.to_string().contains("800ms"), "{error}");
        }
    }
    cluster.resume().await;
    let patient = open(&url).await;
    patient
        .heartbeat(APP, &worker, &Loads::new(), &[])
        .await
        .unwrap();
    patient.checkpoint(APP, &held[0], &at(2)).await.unwrap();
    store
        .heartbeat(APP, &worker, &Loads::new(), &[])
        .await
        .unwrap();
    store.checkpoint(APP, &held[0], &at(3)).await.unwrap();
    let after = store.snapshot(APP).await.unwrap();
    assert_eq!(after.leases[0].owner, before.leases[0].owner);
}
