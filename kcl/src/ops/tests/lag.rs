//! How far an application is behind.

use super::*;
use crate::config::InitialPosition;

fn of(report: &LagReport, shard: usize) -> &ShardLag {
    let mut shards = report.shards.iter();
    shards.find(|lag| lag.shard_id == shard_id(shard)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn lag_counts_what_is_after_the_checkpoint_up_to_a_bound() {
    let (kinesis, store) = (FakeKinesis::new(3), MemoryLeaseStore::new());
    let journal = Journal::default();
    kinesis.put_many(0, 5);
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    tokio::time::sleep(SECOND * 5).await;
    worker.stop().await;
    kinesis.put_many(0, 7);
    kinesis.put_many(1, 100);
    let app = app(&kinesis, store);
    let report = app.lag(50).await.unwrap();
    let counted = |shard: usize| {
        let lag = of(&report, shard);
        (lag.records, lag.or_more, lag.behind_ms)
    };
    assert_eq!(counted(0), (Some(7), false, Some(1)));
    assert_eq!(counted(1), (Some(50), true, Some(1)));
    assert_eq!(counted(2), (Some(0), false, Some(0)));
    assert_eq!(
        (report.records, report.or_more, report.not_judged),
        (57, true, 0)
    );
    assert!(of(&report, 1).oldest.is_some() && of(&report, 2).oldest.is_none());
    // Exactly as many as are counted are not "or more".
    let report = app.lag(100).await.unwrap();
    assert_eq!((report.records, report.or_more), (107, false));
    let report = app.lag(0).await.unwrap();
    assert_eq!(
        (of(&report, 1).records, of(&report, 1).behind_ms),
        (None, Some(1))
    );
}

/// Goal: what cannot be judged is named with the reason, and holds up nothing else.
#[tokio::test(start_paused = true)]
async fn lag_names_shards_without_a_lease_and_those_that_cannot_be_read() {
    let (kinesis, store) = (FakeKinesis::new(3), MemoryLeaseStore::new());
    let journal = Journal::default();
    kinesis.put_many(2, 5);
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    tokio::time::sleep(SECOND * 5).await;
    worker.stop().await;
    store.tear_out("app", &shard_id(0));
    kinesis.fail_shard(1, Some(ErrorKind::Throttled));
    kinesis.put_many(2, 2);
    let (lower, _) = kinesis.split(2);
    kinesis.hide([0]);
    let app = app(&kinesis, store.clone());
    let report = app.lag(10).await.unwrap();
    let note = |shard: usize| of(&report, shard).note.clone().unwrap_or_default();
    assert!(report.shards.iter().all(|lag| lag.shard_id != shard_id(0)));
    assert!(note(1).contains("cannot be read"), "{}", note(1));
    assert_eq!(note(lower), "no lease");
    let closed = of(&report, 2);
    assert_eq!(
        (closed.state, closed.records),
        (ShardState::Closed, Some(2))
    );
    assert_eq!(report.not_judged, 3);
    kinesis.show_all();
    kinesis.hide([2]);
    let report = app.lag(10).await.unwrap();
    let gone = of(&report, 2);
    assert_eq!((gone.state, gone.behind_ms), (ShardState::NotListed, None));
    kinesis.recreate();
    let error = app.lag(10).await.unwrap_err();
    assert!(error.to_string().contains("earlier stream"), "{error}");
}

/// Goal: a lease that waits for its first record under LATEST is not behind by what came before.
#[tokio::test(start_paused = true)]
async fn lag_under_latest_begins_with_the_application() {
    let (kinesis, store) = (FakeKinesis::new(1), MemoryLeaseStore::new());
    kinesis.put_many(0, 5);
    tokio::time::sleep(SECOND * 5).await;
    let journal = Journal::default();
    let latest = builder(&kinesis, store.clone(), "w").initial_position(InitialPosition::Latest);
    let worker = launch(latest, &journal, "w").await;
    tokio::time::sleep(SECOND * 3).await;
    worker.stop().await;
    let app = app(&kinesis, store);
    assert_eq!(app.lag(10).await.unwrap().records, 0);
    kinesis.put_many(0, 2);
    assert_eq!(app.lag(10).await.unwrap().records, 2);
}
