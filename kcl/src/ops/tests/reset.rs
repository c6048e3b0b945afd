//! Resets and replays: what they refuse, what they change, and what they leave alone.

use super::*;
use crate::fake::recorder::Event;

fn horizon() -> ResetRequest {
    ResetRequest::new(StartAt::TrimHorizon, "anna")
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_refused_while_workers_live_unless_forced() {
    let (kinesis, store) = (FakeKinesis::new(2), MemoryLeaseStore::new());
    let journal = Journal::default();
    kinesis.put_many(0, 5);
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    tokio::time::sleep(SECOND * 5).await;
    let app = app(&kinesis, store.clone());
    let before = store.inspect("app").await.unwrap().snapshot.leases;
    let planned = app.plan_reset(&horizon()).await.unwrap();
    let refusal = planned.refusal.clone().unwrap();
    assert!(!planned.done && planned.changes.len() == 2, "{planned:?}");
    let refused = app.reset(&horizon()).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.to_string()),
        (ErrorKind::InUse, refusal)
    );
    assert!(refused.to_string().contains("\"w\""), "{refused}");
    assert_eq!(store.leases("app"), before, "nothing was changed");
    assert_eq!(app.history().await.unwrap(), []);

    let forced = app
        .reset(&horizon().force(Force::TakeFromTheLiving))
        .await
        .unwrap();
    assert_eq!(forced.changes, planned.changes);
    let taken: Vec<_> = forced
        .changes
        .iter()
        .map(|line| line.taken_from.as_deref())
        .collect();
    assert_eq!(taken, [Some("w"), Some("w")]);
    tokio::time::sleep(SECOND * 5).await;
    assert!(journal.deliveries().values().all(|count| *count == 2));
    assert_eq!(journal.count(&Event::LeaseLost), 2);
    let [note] = &app.history().await.unwrap()[..] else {
        panic!("one reset, one note")
    };
    assert_eq!((note.number, note.by.as_str()), (1, "anna"));
    assert_eq!(note.asked, "stream orders to trim horizon");
    assert_eq!(note.changes, forced.changes);
    worker.stop().await;
}

/// Goal: a worker that was killed does not hold up a reset for longer than its fail-over time.
#[tokio::test(start_paused = true)]
async fn a_reset_needs_no_force_when_the_workers_are_dead() {
    let (kinesis, store) = (FakeKinesis::new(1), MemoryLeaseStore::new());
    let journal = Journal::default();
    kinesis.put_many(0, 5);
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    tokio::time::sleep(SECOND * 5).await;
    worker.kill().await;
    let app = app(&kinesis, store.clone());
    let hasty = app.reset(&horizon().patience(SECOND)).await.unwrap_err();
    assert!(hasty.to_string().contains("may live"), "{hasty}");
    let began = tokio::time::Instant::now();
    assert_eq!(app.reset(&horizon()).await.unwrap().changes.len(), 1);
    assert!(began.elapsed() < FAILOVER + SECOND);
    // What is there already is left alone, and no note is kept of nothing.
    assert_eq!(app.reset(&horizon()).await.unwrap().changes, []);
    assert_eq!(app.history().await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_shard_is_reset_to_a_sequence_number() {
    let (kinesis, store) = (FakeKinesis::new(2), MemoryLeaseStore::new());
    let journal = Journal::default();
    kinesis.put_many(0, 5);
    kinesis.put_many(1, 5);
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    tokio::time::sleep(SECOND * 5).await;
    worker.stop().await;
    let app = app(&kinesis, store.clone());
    let third = kinesis.put_so_far()[2];
    let whole = ResetRequest::new(StartAt::Sequence(third), "anna");
    let error = app.reset(&whole).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    let other = app
        .reset(&whole.clone().shard("shardId-9"))
        .await
        .unwrap_err();
    assert_eq!(other.kind(), ErrorKind::NotFound, "{other}");
    let report = app.reset(&whole.shard(shard_id(0))).await.unwrap();
    assert_eq!(report.changes.len(), 1);
    assert_eq!(report.changes[0].to, format!("AT_SEQUENCE_NUMBER:{third}"));
    let worker = start(&kinesis, store, &journal, "w").await;
    tokio::time::sleep(SECOND * 5).await;
    worker.stop().await;
    let counts: Vec<usize> = journal.deliveries().into_values().collect();
    assert_eq!(counts, [1, 1, 2, 2, 2, 1, 1, 1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_is_refused_with_what_to_do() {
    let (kinesis, store) = (FakeKinesis::new(1), MemoryLeaseStore::new());
    let app = app(&kinesis, store.clone());
    let unknown = app.reset(&horizon()).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    assert!(unknown.to_string().contains("has no leases"), "{unknown}");
    let named = app
        .clone()
        .stream("orders")
        .reset(&horizon())
        .await
        .unwrap_err();
    assert_eq!(named.kind(), ErrorKind::NotFound, "{named}");
    let journal = Journal::default();
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    tokio::time::sleep(SECOND).await;
    worker.stop().await;
    let to_come = StartAt::Time(crate::fake::EPOCH_MS + 3_600_000);
    let error = app
        .reset(&ResetRequest::new(to_come, "anna"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("still to come"), "{error}");
    kinesis.recreate();
    let error = app.reset(&horizon()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("earlier stream"), "{error}");
}

/// Goal: closed shards come out right. Method: a split and an expired parent; to latest nothing of them comes again, to the horizon all.
#[tokio::test(start_paused = true)]
async fn k7_closed_shards_are_ended_by_latest_and_begun_anew_by_the_horizon() {
    let (kinesis, store) = (FakeKinesis::new(1), MemoryLeaseStore::new());
    let journal = Journal::default();
    journal.behave(|behaviour| behaviour.failures = u32::MAX);
    kinesis.put_many(0, 3);
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    tokio::time::sleep(SECOND * 2).await;
    worker.kill().await;
    let (lower, upper) = kinesis.split(0);
    kinesis.put_many(lower, 3);
    tokio::time::sleep(SECOND * 5).await;
    let app = app(&kinesis, store.clone());
    let latest = ResetRequest::new(StartAt::Latest, "anna");
    app.reset(&latest).await.unwrap();
    let leases = store.leases("app");
    assert_eq!(leases[0].checkpoint, Position::ShardEnd);
    for child in [lower, upper] {
        let Position::AtTimestamp(ms) = leases[child].checkpoint else {
            panic!("{leases:?}")
        };
        assert!(ms > crate::fake::EPOCH_MS, "{ms}");
    }
    app.reset(&horizon()).await.unwrap();
    assert!(
        store
            .leases("app")
            .iter()
            .all(|lease| lease.checkpoint == Position::TrimHorizon)
    );
    let journal = Journal::default();
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    tokio::time::sleep(SECOND * 10).await;
    worker.stop().await;
    journal.check_no_loss(&kinesis.put_so_far()).unwrap();
    journal.check_order().unwrap();
    journal.check_no_duplicates().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_replay_leaves_the_first_application_alone() {
    let (kinesis, store) = (FakeKinesis::new(2), MemoryLeaseStore::new());
    let journal = Journal::default();
    kinesis.put_many(0, 5);
    tokio::time::sleep(SECOND * 10).await;
    let moment = crate::fake::EPOCH_MS + 8_000;
    kinesis.put_many(1, 5);
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    tokio::time::sleep(SECOND * 5).await;
    let app = app(&kinesis, store.clone());
    let before = store.leases("app");
    let planned = app
        .plan_replay("again", StartAt::Time(moment), "anna")
        .await
        .unwrap();
    assert!(!planned.done && planned.changes.len() == 2);
    assert!(store.leases("again").is_empty(), "a plan changes nothing");
    let replay = app
        .replay("again", StartAt::Time(moment), "anna")
        .await
        .unwrap();
    assert_eq!((&replay.changes, replay.done), (&planned.changes, true));
    assert_eq!(store.leases("app"), before);
    let twice = app
        .replay("again", StartAt::TrimHorizon, "anna")
        .await
        .unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::InUse);
    let error = app
        .replay("", StartAt::TrimHorizon, "anna")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);

    let other = Journal::default();
    let client: Arc<dyn KinesisApi> = Arc::new(kinesis.clone());
    let again = Worker::builder("again", "orders")
        .client(client)
        .lease_store(store.clone());
    let again = launch(again, &other, "r").await;
    tokio::time::sleep(SECOND * 5).await;
    again.stop().await;
    worker.stop().await;
    let expected: Vec<_> = kinesis.put_so_far()[5..].to_vec();
    let replayed: Vec<_> = other.deliveries().into_keys().collect();
    assert_eq!(replayed, expected);
    journal.check_no_duplicates().unwrap();
    let notes = Operations::new(store, "again").history().await.unwrap();
    assert!(
        notes[0]
            .asked
            .starts_with("replay of app: stream orders to 20"),
        "{notes:?}"
    );
}
