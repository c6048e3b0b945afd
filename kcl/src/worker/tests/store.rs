//! K2 (owner window), K11 and K12: lease stores that are slow, out of reach, or lose replies.

use super::*;
use crate::fake::recorder::Event;
use crate::fake::store::FaultyStore;
use crate::lease::MemoryLeaseStore;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// Goal: whatever the delay of replies, no delivery by two holders. Method: the first worker's store delays requests and replies
/// by up to three fail-over times while another worker waits with a sound one.
#[tokio::test(start_paused = true)]
async fn k2_no_delivery_by_two_holders_whatever_the_delay_of_replies() {
    for tenths in [1, 3, 6, 8, 9, 10, 12, 20, 30] {
        deliver_with_delays(FAILOVER * tenths / 10, true).await;
        // Without checkpoints nothing but the owner window stops the slow worker.
        deliver_with_delays(FAILOVER * tenths / 10, false).await;
    }
}

async fn deliver_with_delays(delay: Duration, checkpoints: bool) {
    let (kinesis, memory, journal) = (
        FakeKinesis::new(2),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    journal.behave(|behaviour| behaviour.checkpoints = checkpoints);
    let slow = FaultyStore::new(memory.clone());
    let a = start(&kinesis, slow.clone(), &journal, "a").await;
    tokio::time::sleep(SECOND).await;
    let b = start(&kinesis, memory.clone(), &journal, "b").await;
    tokio::time::sleep(SECOND * 2).await;
    slow.set(|faults| faults.reply_takes = delay);
    for step in 0..400u64 {
        kinesis.put(0, "x");
        kinesis.put(1, "x");
        tokio::time::sleep(Duration::from_millis(100)).await;
        if step == 200 {
            slow.set(|faults| {
                faults.reply_takes = Duration::ZERO;
                faults.request_takes = delay;
            });
        }
    }
    slow.set(|faults| faults.request_takes = Duration::ZERO);
    until_processed(&kinesis, &journal, FAILOVER * 5).await;
    journal
        .check_no_overlap()
        .unwrap_or_else(|error| panic!("delay {delay:?}: {error}"));
    a.stop().await.unwrap();
    b.stop().await.unwrap();
}

/// Goal: a worker whose heartbeats do not get through stops before its shards go to another.
#[tokio::test(start_paused = true)]
async fn k2_stops_before_the_leases_can_be_taken() {
    let (kinesis, memory, journal) = (
        FakeKinesis::new(1),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    let faulty = FaultyStore::new(memory.clone());
    let a = start(&kinesis, faulty.clone(), &journal, "a").await;
    tokio::time::sleep(SECOND).await;
    let b = start(&kinesis, memory, &journal, "b").await;
    tokio::time::sleep(SECOND).await;
    faulty.set(|faults| faults.no_heartbeats = true);
    for _ in 0..100 {
        kinesis.put(0, "x");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    until_processed(&kinesis, &journal, SECOND * 5).await;
    let of = |worker: &str| -> Vec<Instant> {
        let entries = journal.entries();
        let theirs = entries.iter().filter(|e| e.worker == worker);
        theirs
            .filter(|e| matches!(e.event, Event::Delivered(_)))
            .map(|e| e.at)
            .collect()
    };
    let (last_of_a, first_of_b) = (*of("a").last().unwrap(), *of("b").first().unwrap());
    assert!(
        first_of_b - last_of_a >= FAILOVER / 20,
        "a stops with a margin before b begins"
    );
    journal.check_no_overlap().unwrap();
    a.task.abort();
    b.stop().await.unwrap();
}

/// Goal: with the store out of reach processing pauses when the owner window lapses, and goes on without loss or duplicates
/// when it is back.
#[tokio::test(start_paused = true)]
async fn k2_processing_pauses_while_the_store_is_out_of_reach() {
    let (kinesis, journal) = (FakeKinesis::new(2), Journal::default());
    let store = FaultyStore::new(MemoryLeaseStore::new());
    journal.behave(|behaviour| behaviour.checkpoints = false);
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    tokio::time::sleep(SECOND).await;
    store.set(|faults| faults.unreachable = true);
    tokio::time::sleep(FAILOVER).await;
    kinesis.put_many(0, 10);
    kinesis.put_many(1, 10);
    let lapsed = journal.entries().len();
    tokio::time::sleep(SECOND * 60).await;
    assert_eq!(
        journal.entries().len(),
        lapsed,
        "nothing is delivered outside the window"
    );
    store.set(|faults| faults.unreachable = false);
    until_processed(&kinesis, &journal, SECOND * 5).await;
    worker.stop().await.unwrap();
    journal.check_no_duplicates().unwrap();
}

/// Goal: lost replies and failed calls cost nothing but time: no lease is believed lost, none believed held that is not, no record is lost.
async fn unreliable(change: impl Fn(&mut crate::fake::store::Faults)) {
    let (kinesis, memory, journal) = (
        FakeKinesis::new(3),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    let store = FaultyStore::new(memory.clone());
    store.set(|faults| change(faults));
    let a = start(&kinesis, store.clone(), &journal, "a").await;
    let b = start(&kinesis, memory.clone(), &journal, "b").await;
    for round in 0..100 {
        for shard in 0..3 {
            kinesis.put(shard, "x");
        }
        if round == 50 {
            let (lower, upper) = kinesis.split(2);
            kinesis.put_many(lower, 5);
            kinesis.put_many(upper, 5);
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    until_processed(&kinesis, &journal, FAILOVER * 5).await;
    journal.check_order().unwrap();
    journal.check_no_overlap().unwrap();
    assert_eq!(
        journal.count(&Event::LeaseLost),
        0,
        "a lost reply is not a lost lease"
    );
    assert_eq!(journal.count(&Event::ShardEnded), 1);
    a.stop().await.unwrap();
    b.stop().await.unwrap();
    let leases = memory.snapshot("app").await.unwrap().leases;
    assert!(
        leases.iter().all(|lease| lease.owner.is_none()),
        "{leases:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn k11_failed_calls_leave_everything_as_it_was() {
    unreliable(|faults| faults.fail_every = Some(3)).await;
}

#[tokio::test(start_paused = true)]
async fn k12_a_lost_reply_is_not_a_lost_lease() {
    unreliable(|faults| faults.lose_reply_every = Some(3)).await;
}

/// Goal: when the store was out of reach for everybody, nobody takes the others for dead when it is back: they had no way to
/// show that they live. Method: an outage of several fail-over times, many times, with either worker first to come back.
#[tokio::test(start_paused = true)]
async fn an_outage_of_the_store_moves_no_lease() {
    let (kinesis, memory, journal) = (
        FakeKinesis::new(4),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    let store = FaultyStore::new(memory.clone());
    let a = start(&kinesis, store.clone(), &journal, "a").await;
    let b = start(&kinesis, store.clone(), &journal, "b").await;
    tokio::time::sleep(SECOND * 5).await;
    let before = memory.snapshot("app").await.unwrap().leases;
    for outage in 1..20u32 {
        store.set(|faults| faults.unreachable = true);
        tokio::time::sleep(FAILOVER * outage / 3).await;
        store.set(|faults| faults.unreachable = false);
        kinesis.put(0, "x");
        tokio::time::sleep(FAILOVER * 2).await;
        let after = memory.snapshot("app").await.unwrap().leases;
        let tokens = |leases: &[crate::lease::Lease]| -> Vec<_> {
            leases
                .iter()
                .map(|l| (l.owner.clone(), l.counter))
                .collect()
        };
        assert_eq!(tokens(&before), tokens(&after), "outage {outage}");
    }
    until_processed(&kinesis, &journal, SECOND).await;
    a.stop().await.unwrap();
    b.stop().await.unwrap();
}

/// Goal: a worker that comes back after another has taken its shard and ended it delivers nothing of it any more (K2). Method: its batch
/// fails because the store is out of its reach, until the other one is done.
#[tokio::test(start_paused = true)]
async fn k2_a_shard_that_another_worker_ended_is_not_delivered_again() {
    let (kinesis, inner, journal) = (
        FakeKinesis::new(1),
        MemoryLeaseStore::new(),
        Journal::default(),
    );
    let cut = FaultyStore::new(inner.clone());
    let a = start(&kinesis, cut.clone(), &journal, "a").await;
    tokio::time::sleep(SECOND).await;
    cut.set(|faults| faults.unreachable = true);
    kinesis.put_many(0, 5);
    tokio::time::sleep(SECOND).await;
    kinesis.split(0);
    let b = start(&kinesis, inner.clone(), &journal, "b").await;
    until("b ends the shard", FAILOVER * 3, || {
        journal.count(&Event::ShardEnded) == 1
    })
    .await;
    tokio::time::sleep(SECOND).await;
    cut.set(|faults| faults.unreachable = false);
    tokio::time::sleep(FAILOVER * 2).await;
    journal.check_no_overlap().unwrap();
    assert_eq!(journal.count(&Event::LeaseLost), 1, "a was told");
    a.stop().await.unwrap();
    b.stop().await.unwrap();
}
