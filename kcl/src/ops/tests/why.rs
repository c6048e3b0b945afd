//! Every situation of a shard has one answer (K10).

use super::*;
use crate::fake::store::FaultyStore;
use crate::lease::Trouble;

async fn ask(app: &Operations, shard: usize) -> Why {
    app.why(&shard.to_string(), PATIENCE).await.unwrap()
}

#[track_caller]
fn is(why: &Why, reason: Reason, words: &[&str]) {
    assert_eq!(why.reason, reason, "{why}");
    for word in words {
        assert!(why.to_string().contains(word), "{word:?} is not in {why}");
    }
}

#[tokio::test(start_paused = true)]
async fn k10_why_tells_what_the_owner_has_trouble_with() {
    let (kinesis, store) = (FakeKinesis::new(3), MemoryLeaseStore::new());
    let journal = Journal::default();
    let app = app(&kinesis, store.clone()).stream("orders");
    is(&ask(&app, 0).await, Reason::NoLease, &["no worker runs"]);
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    tokio::time::sleep(SECOND * 5).await;
    is(
        &ask(&app, 0).await,
        Reason::KeepingUp,
        &["\"w\" holds it since 20", "keeps up"],
    );

    journal.behave(|behaviour| {
        behaviour.failures = u32::MAX;
        behaviour.only_shard = Some(shard_id(0));
    });
    kinesis.put_many(0, 3);
    let (lower, _) = kinesis.split(0);
    tokio::time::sleep(SECOND * 60).await;
    let failing = ask(&app, 0).await;
    let words = [
        "process_records",
        "a failure on demand",
        "in trouble for",
        "failed",
        "the next record arrived",
    ];
    is(&failing, Reason::Failing, &words);
    is(&ask(&app, 1).await, Reason::KeepingUp, &[]);
    let waiting = ask(&app, lower).await;
    is(
        &waiting,
        Reason::WaitsForParents,
        &[&shard_id(0), "a failure on demand"],
    );

    journal.behave(|behaviour| behaviour.failures = 0);
    tokio::time::sleep(SECOND * 60).await;
    is(&ask(&app, 0).await, Reason::Ended, &["is done"]);
    is(&ask(&app, lower).await, Reason::KeepingUp, &[]);

    journal.behave(|behaviour| {
        behaviour.takes = SECOND * 600;
        behaviour.only_shard = Some(shard_id(1));
    });
    kinesis.put_many(1, 5);
    tokio::time::sleep(SECOND * 60).await;
    is(
        &ask(&app, 1).await,
        Reason::Failing,
        &["processing 5 records"],
    );
    worker.kill().await;
}

#[tokio::test(start_paused = true)]
async fn k10_why_tells_who_is_missing() {
    let (kinesis, store) = (FakeKinesis::new(2), MemoryLeaseStore::new());
    let journal = Journal::default();
    let app = app(&kinesis, store.clone());
    let modest = builder(&kinesis, store.clone(), "modest").max_leases(1);
    let modest = launch(modest, &journal, "modest").await;
    tokio::time::sleep(SECOND * 5).await;
    let both = [ask(&app, 0).await, ask(&app, 1).await];
    let free = both.iter().find(|why| why.reason != Reason::KeepingUp);
    is(free.unwrap(), Reason::NoRoom, &["modest", "max_leases"]);
    modest.kill().await;
    let held = app.stream("orders").leases(SECOND).await.unwrap();
    let held = held.leases.iter().position(|line| line.owner.is_some());
    let app = super::app(&kinesis, store.clone());
    let silent = app.why(&shard_id(held.unwrap()), SECOND).await.unwrap();
    is(&silent, Reason::OwnerSilent, &["it may live"]);
    let dead = ask(&app, held.unwrap()).await;
    is(
        &dead,
        Reason::OwnerDead,
        &[
            "\"modest\"",
            "is dead",
            "fail-over time is 3 s",
            "no other worker runs",
        ],
    );

    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    tokio::time::sleep(SECOND * 10).await;
    is(
        &ask(&app, held.unwrap()).await,
        Reason::KeepingUp,
        &["\"w\""],
    );
    worker.stop().await;
    is(&ask(&app, 0).await, Reason::NobodyRuns, &["dead"]);
    is(&ask(&app, 77).await, Reason::NoSuchShard, &["orders"]);
}

#[tokio::test(start_paused = true)]
async fn k10_k13_why_tells_what_became_of_the_stream() {
    let kinesis = FakeKinesis::new(2);
    let store = FaultyStore::new(MemoryLeaseStore::new());
    let journal = Journal::default();
    let app = app(&kinesis, store.clone());
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    tokio::time::sleep(SECOND * 5).await;
    store.damage(&[shard_id(1)]);
    is(
        &ask(&app, 1).await,
        Reason::DamagedRow,
        &["repaired or deleted"],
    );
    store.damage(&[]);
    tokio::time::sleep(SECOND * 5).await;
    kinesis.hide([1]);
    is(
        &ask(&app, 1).await,
        Reason::ShardExpired,
        &["outlived the retention"],
    );
    kinesis.show_all();
    worker.stop().await;
    kinesis.recreate();
    is(
        &ask(&app, 0).await,
        Reason::StreamRecreated,
        &["created anew", "start the workers again"],
    );
    kinesis.set_missing(true);
    is(&ask(&app, 0).await, Reason::StreamGone, &["does not exist"]);
}

/// Goal: a processor that never checkpoints is found out, and so is one that works off a backlog.
#[tokio::test(start_paused = true)]
async fn k10_why_tells_whether_the_checkpoint_moves() {
    let (kinesis, store) = (FakeKinesis::new(1), MemoryLeaseStore::new());
    let journal = Journal::default();
    journal.behave(|behaviour| behaviour.checkpoints = false);
    kinesis.put_many(0, 5);
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    tokio::time::sleep(SECOND * 30).await;
    let app = app(&kinesis, store.clone());
    is(
        &ask(&app, 0).await,
        Reason::Behind,
        &["did not move", "does not checkpoint", "behind"],
    );
    journal.behave(|behaviour| {
        behaviour.checkpoints = true;
        behaviour.takes = SECOND;
    });
    kinesis.put_many(0, 500);
    tokio::time::sleep(SECOND * 15).await;
    is(&ask(&app, 0).await, Reason::Behind, &["moved while"]);
    worker.kill().await;
}

/// Goal: what trouble there is comes with a heartbeat, bounded, and goes with it.
#[tokio::test(start_paused = true)]
async fn k10_troubles_are_told_with_heartbeats_and_bounded() {
    let (kinesis, store) = (FakeKinesis::new(80), MemoryLeaseStore::new());
    let journal = Journal::default();
    journal.behave(|behaviour| behaviour.failures = u32::MAX);
    for shard in 0..80 {
        kinesis.put(shard, "x");
    }
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    let troubles = async || -> Vec<Trouble> {
        let inspection = store.inspect("app").await.unwrap();
        inspection.troubles.get("w").cloned().unwrap_or_default()
    };
    assert!(troubles().await.is_empty());
    tokio::time::sleep(SECOND * 20).await;
    let told = troubles().await;
    assert_eq!(told.len(), crate::lease::TROUBLES_MAX);
    assert!(
        told.iter().all(|trouble| trouble.for_ms >= 1000),
        "{told:?}"
    );
    let longest = told
        .iter()
        .map(|trouble| trouble.what.chars().count())
        .max();
    assert!(
        longest <= Some(crate::lease::TROUBLE_MAX_CHARS),
        "{longest:?}"
    );
    journal.behave(|behaviour| behaviour.failures = 0);
    tokio::time::sleep(SECOND * 70).await;
    assert_eq!(troubles().await, []);
    worker.stop().await;
}
