//! Whole workers that read by enhanced fan-out: K4 to K6 through reshards and changes of owner, K10, and a start that nothing delays.

use super::*;
use crate::config::Retrieval;
use crate::error::ErrorKind;
use crate::fake::recorder::Event;
use crate::fake::shard_id;
use crate::lease::MemoryLeaseStore;
use crate::status::Retrieving;

const SECOND: Duration = Duration::from_secs(1);

fn pushed(builder: WorkerBuilder) -> WorkerBuilder {
    builder.retrieval(Retrieval::FanOut {
        consumer_name: None,
    })
}

/// Workers on a stream of their own.
#[derive(Default)]
struct Stage {
    store: MemoryLeaseStore,
    journal: Journal,
}

impl Stage {
    async fn start(&self, kinesis: &FakeKinesis, id: &str) -> Started {
        let builder = pushed(builder(kinesis, self.store.clone(), id));
        launch(builder, &self.journal, id).await
    }

    fn check(&self, kinesis: &FakeKinesis) {
        self.journal.check_no_loss(&kinesis.put_so_far()).unwrap();
        self.journal.check_no_duplicates().unwrap();
        self.journal.check_order().unwrap();
    }
}

/// Goal: a split and a merge are followed by subscription alone, each record once, children after their parents.
#[tokio::test(start_paused = true)]
async fn k4_k6_a_split_and_a_merge_are_followed() {
    let (kinesis, stage) = (FakeKinesis::new(2), Stage::default());
    let worker = stage.start(&kinesis, "w").await;
    kinesis.put_many(0, 25);
    kinesis.put_many(1, 25);
    tokio::time::sleep(SECOND).await;
    let (lower, upper) = kinesis.split(0);
    kinesis.put_many(lower, 25);
    kinesis.put_many(upper, 25);
    tokio::time::sleep(SECOND).await;
    let child = kinesis.merge(lower, upper);
    kinesis.put_many(child, 25);
    until_processed(&kinesis, &stage.journal, SECOND * 5).await;
    worker.stop().await.unwrap();
    stage.check(&kinesis);
    assert_eq!(stage.journal.count(&Event::ShardEnded), 3);
    assert_eq!(kinesis.reads(), 0, "nothing was polled");
}

/// Goal: an endpoint that names no children ends a shard as well.
#[tokio::test(start_paused = true)]
async fn k6_children_that_are_not_named_are_listed() {
    let (kinesis, stage) = (FakeKinesis::new(1), Stage::default());
    kinesis.name_no_children();
    kinesis.put_many(0, 25);
    let worker = stage.start(&kinesis, "w").await;
    tokio::time::sleep(SECOND).await;
    let (lower, upper) = kinesis.split(0);
    kinesis.put_many(lower, 5);
    kinesis.put_many(upper, 5);
    until_processed(&kinesis, &stage.journal, SECOND * 5).await;
    worker.stop().await.unwrap();
    stage.check(&kinesis);
}

/// Goal: owners change without a record lost or repeated, whatever subscription the last one left behind. Method: hand-overs by shutdown and
/// balancing all the time, with troubled subscriptions.
#[tokio::test(start_paused = true)]
async fn k4_k5_owners_change_without_loss_or_duplicates() {
    let (kinesis, stage) = (FakeKinesis::new(4), Stage::default());
    let mut worker = stage.start(&kinesis, "w0").await;
    for round in 1..12 {
        for shard in 0..4 {
            kinesis.put_many(shard, 7);
        }
        match round % 4 {
            1 => kinesis.silence_subscriptions(),
            2 => kinesis.take_over_subscriptions(),
            3 => kinesis.refuse_next(&[ErrorKind::Unavailable; 6]),
            _ => kinesis.cut_subscriptions(),
        }
        let next = stage.start(&kinesis, &format!("w{round}")).await;
        tokio::time::sleep(SECOND * 3).await;
        worker.stop().await.unwrap();
        worker = next;
    }
    until_processed(&kinesis, &stage.journal, SECOND * 30).await;
    worker.stop().await.unwrap();
    stage.check(&kinesis);
    stage.journal.check_no_overlap().unwrap();
}

/// Goal: K8, a crash is followed by the survivor's subscription within the fail-over time and 2 s, though the dead worker's is not ended.
#[tokio::test(start_paused = true)]
async fn k8_a_survivor_subscribes_in_time() {
    let (kinesis, stage) = (FakeKinesis::new(2), Stage::default());
    let dying = stage.start(&kinesis, "a").await;
    tokio::time::sleep(SECOND * 7).await;
    kinesis.silence_subscriptions();
    dying.task.abort();
    kinesis.put_many(0, 5);
    kinesis.put_many(1, 5);
    let survivor = stage.start(&kinesis, "b").await;
    until_processed(&kinesis, &stage.journal, FAILOVER + SECOND * 2).await;
    survivor.stop().await.unwrap();
    stage.check(&kinesis);
}

/// Goal: a processor that is stuck holds up its own shard only.
#[tokio::test(start_paused = true)]
async fn k10_one_stuck_processor_holds_up_no_other_shard() {
    let (kinesis, stage) = (FakeKinesis::new(3), Stage::default());
    stage.journal.behave(|behaviour| {
        behaviour.takes = SECOND * 3600;
        behaviour.only_shard = Some(shard_id(0));
    });
    let worker = stage.start(&kinesis, "w").await;
    kinesis.put_many(0, 500);
    for _ in 0..100 {
        let expected = [kinesis.put(1, "x"), kinesis.put(2, "x")];
        until("the others go on", SECOND / 10, || {
            let processed = stage.journal.processed();
            expected.iter().all(|number| processed.contains(number))
        })
        .await;
        tokio::time::sleep(SECOND * 7).await;
    }
    worker.task.abort();
}

/// Goal: neither a consumer that is being created nor one that may not be registered delays or fails the start, and the reason is to be seen.
#[tokio::test(start_paused = true)]
async fn k10_no_consumer_is_no_reason_not_to_start() {
    let (kinesis, stage) = (FakeKinesis::new(1), Stage::default());
    kinesis.put_many(0, 25);
    kinesis.refuse_registration(Some(ErrorKind::AccessDenied));
    kinesis.create_consumers_in(SECOND * 20);
    let worker = stage.start(&kinesis, "w").await;
    until_processed(&kinesis, &stage.journal, SECOND).await;
    let retrieving = || worker.handle.shards().remove(0).retrieving;
    let told = retrieving().to_string();
    assert!(told.contains("a registration refused on demand"), "{told}");
    kinesis.refuse_registration(None);
    until("the consumer is being created", SECOND * 60, || {
        retrieving().to_string().contains("CREATING")
    })
    .await;
    until("the shard is pushed", SECOND * 60, || {
        retrieving() == Retrieving::FanOut
    })
    .await;
    kinesis.put_many(0, 25);
    until_processed(&kinesis, &stage.journal, SECOND).await;
    worker.stop().await.unwrap();
    stage.check(&kinesis);
}

/// Goal: K13, a stream created anew is noticed by whoever is subscribed to the old one, and nothing of it is taken for that one's.
#[tokio::test(start_paused = true)]
async fn k13_a_stream_created_anew_is_noticed() {
    let (kinesis, stage) = (FakeKinesis::new(1), Stage::default());
    let worker = stage.start(&kinesis, "w").await;
    tokio::time::sleep(SECOND * 7).await;
    assert_eq!(kinesis.subscriptions(), 1);
    kinesis.recreate();
    let new = kinesis.put(0, "of another stream");
    let ended = tokio::time::timeout(SECOND * 60, worker.task).await;
    let error = ended.expect("it ends").unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(!stage.journal.processed().contains(&new));
}
