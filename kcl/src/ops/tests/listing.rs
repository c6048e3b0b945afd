//! What is listed: leases, workers, applications.

use super::*;
use crate::lease::WorkerProfile;

#[tokio::test(start_paused = true)]
async fn leases_and_workers_are_listed_with_what_they_do() {
    let (kinesis, store) = (FakeKinesis::new(2), MemoryLeaseStore::new());
    let journal = Journal::default();
    journal.behave(|behaviour| {
        behaviour.failures = u32::MAX;
        behaviour.only_shard = Some(shard_id(0));
    });
    kinesis.put_many(0, 3);
    kinesis.put_many(1, 3);
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    let app = app(&kinesis, store.clone());
    tokio::time::sleep(SECOND * 5).await;
    let report = app.leases(PATIENCE).await.unwrap();
    let [first, second] = &report.leases[..] else {
        panic!("{report:?}")
    };
    assert_eq!(first.owner.as_deref(), Some("w"));
    assert!(first.owned_since.is_some() && !first.ended);
    assert_eq!(first.checkpoint, "TRIM_HORIZON");
    let trouble = first.trouble.as_deref().unwrap();
    assert!(trouble.contains("a failure on demand"), "{trouble}");
    assert_eq!((&second.trouble, second.checkpoint.as_str()), (&None, "6"));
    assert_eq!(second.stream_name, "orders");
    let [line] = &report.workers[..] else {
        panic!("{report:?}")
    };
    assert_eq!((line.state, line.leases), (WorkerState::Alive, 2));
    assert_eq!((line.failover_ms, line.max_leases), (3000, None));
    assert_eq!(line.streams, ["orders"]);
    worker.kill().await;
    let silent = app.leases(SECOND).await.unwrap().workers.remove(0);
    assert_eq!(silent.state, WorkerState::Silent);
    let began = tokio::time::Instant::now();
    let dead = app.leases(PATIENCE).await.unwrap().workers.remove(0);
    assert_eq!(dead.state, WorkerState::Dead);
    let took = began.elapsed();
    assert!((FAILOVER..FAILOVER + SECOND).contains(&took), "{took:?}");
    assert!(dead.last_heard().contains("dead"), "{}", dead.last_heard());
    let other = app.stream("payments").leases(SECOND).await.unwrap();
    assert!(other.leases.is_empty());
    let names = applications(&store).await.unwrap();
    assert_eq!(names, ["app"]);
}

/// Goal: a worker with a long fail-over time is not taken for dead before it, and no worker is waited for in vain.
#[tokio::test(start_paused = true)]
async fn a_worker_is_dead_after_its_own_failover_time_only() {
    let store = MemoryLeaseStore::new();
    for (id, seconds) in [("quick", 1), ("slow", 3600)] {
        let profile = WorkerProfile {
            failover: Some(SECOND * seconds),
            ..WorkerProfile::default()
        };
        store.register("app", id, &profile).await.unwrap();
    }
    let report = Operations::new(store, "app").leases(SECOND * 20).await;
    let states: Vec<_> = report
        .unwrap()
        .workers
        .iter()
        .map(|line| line.state)
        .collect();
    assert_eq!(states, [WorkerState::Dead, WorkerState::Silent]);
}

#[test]
fn spans_and_positions_are_readable() {
    let spans = [
        (5, "5 ms"),
        (90_000, "90 s"),
        (185_000, "3 min 5 s"),
        (7_800_000, "2 h 10 min"),
        (273_600_000, "3 d 4 h"),
    ];
    for (ms, words) in spans {
        assert_eq!(span(Duration::from_millis(ms)), words);
    }
    let number = "49680697608967129591508926601648723160777352848024272914";
    let position: Position = number.parse().unwrap();
    assert_eq!(
        readable(&position),
        "after ...848024272914 (2026-11-30T05:37:44Z)"
    );
    assert_eq!(
        readable(&Position::AtTimestamp(0)),
        "from 1970-01-01T00:00:00Z"
    );
    assert_eq!(
        readable(&"7:2".parse().unwrap()),
        "after user record 2 of 7"
    );
}
