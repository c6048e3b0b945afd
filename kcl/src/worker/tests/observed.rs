//! What a worker tells of itself: its health and its metrics.

use super::*;
use crate::fake::shard_id;
use crate::fake::store::FaultyStore;
use crate::health::HealthState;
use crate::lease::MemoryLeaseStore;
use crate::metrics::recorded::Recorded;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn health_goes_from_starting_to_stopped() {
    let (kinesis, journal) = (FakeKinesis::new(2), Journal::default());
    let built = builder(&kinesis, MemoryLeaseStore::new(), "w")
        .build(journal.factory("w"))
        .await
        .unwrap();
    let handle = built.handle();
    let health = handle.health();
    assert_eq!(health.state, HealthState::Starting);
    assert!(health.is_live() && !health.is_ready());
    let task = tokio::spawn(built.run());
    tokio::time::sleep(SECOND * 30).await;
    let health = handle.health();
    assert_eq!(health.to_string(), "serving, 2 shards held");
    assert!(health.is_live() && health.is_ready());
    journal.behave(|behaviour| behaviour.takes = SECOND * 10);
    kinesis.put(0, "x");
    tokio::time::sleep(SECOND).await;
    handle.shutdown();
    tokio::time::sleep(SECOND).await;
    let health = handle.health();
    assert_eq!(health.state, HealthState::Stopping, "{health}");
    assert!(health.is_live() && !health.is_ready());
    task.await.unwrap().unwrap();
    let health = handle.health();
    assert_eq!(health.to_string(), "stopped, 0 shards held");
    assert!(!health.is_live() && !health.is_ready());
}

/// Goal: K10, what keeps a worker from working is a reason, and goes when it does. Method: a lease store out of reach, a shard that fails,
/// a stream that vanishes.
#[tokio::test(start_paused = true)]
async fn k10_what_keeps_a_worker_from_working_is_a_reason() {
    let (kinesis, journal) = (FakeKinesis::new(2), Journal::default());
    let store = FaultyStore::new(MemoryLeaseStore::new());
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    let health = || worker.handle.health();
    tokio::time::sleep(SECOND * 5).await;
    assert!(health().is_ready());

    store.set(|faults| faults.unreachable = true);
    tokio::time::sleep(SECOND * 60).await;
    let degraded = health();
    assert_eq!(degraded.state, HealthState::Degraded);
    let text = degraded.to_string();
    assert!(text.contains("cannot be renewed in time"), "{text}");
    assert!(text.contains("the leases cannot be managed for"), "{text}");
    assert!(degraded.is_live(), "a new process would not help");
    store.set(|faults| faults.unreachable = false);
    tokio::time::sleep(SECOND * 40).await;
    assert!(health().is_ready(), "{}", health());

    journal.behave(|behaviour| behaviour.failures = u32::MAX);
    kinesis.put(1, "x");
    tokio::time::sleep(SECOND * 60).await;
    let text = health().to_string();
    assert!(
        text.starts_with("degraded, 2 shards held: shardId-000000000001 of orders for"),
        "{text}"
    );
    journal.behave(|behaviour| behaviour.failures = 0);
    tokio::time::sleep(SECOND * 60).await;
    assert!(health().is_ready(), "{}", health());

    kinesis.recreate();
    let handle = worker.handle.clone();
    worker.task.await.unwrap().unwrap_err();
    let text = handle.health().to_string();
    assert!(
        text.starts_with("stopped, 0 shards held: the worker cannot go on"),
        "{text}"
    );
}

/// Goal: what is counted is what happened. Method: records of two shards, a batch that fails once, a shard end, a store out of reach.
#[tokio::test(start_paused = true)]
async fn metrics_count_what_happened() {
    let recorded = Recorded::default();
    let _guard = metrics::set_default_local_recorder(&recorded);
    let (kinesis, journal) = (FakeKinesis::new(2), Journal::default());
    let store = FaultyStore::new(MemoryLeaseStore::new());
    journal.behave(|behaviour| {
        behaviour.failures = 1;
        behaviour.only_shard = Some(shard_id(1));
    });
    kinesis.put_many(0, 25);
    kinesis.put_many(1, 5);
    let worker = start(&kinesis, store.clone(), &journal, "w").await;
    until_processed(&kinesis, &journal, SECOND * 30).await;
    tokio::time::sleep(SECOND * 5).await;
    let of =
        |name: &str, shard: usize| format!("{name}{{stream=orders,shard={}}}", shard_id(shard));
    let shard = |name: &str, number: usize| recorded.counter(&of(name, number));
    assert_eq!(shard("kcl_records_delivered_total", 0), 25);
    assert_eq!(shard("kcl_batches_total", 0), 3);
    assert_eq!(shard("kcl_records_delivered_total", 1), 5);
    assert_eq!(shard("kcl_batch_failures_total", 1), 1);
    assert_eq!(shard("kcl_retries_total", 1), 1);
    assert_eq!(shard("kcl_checkpoints_total", 0), 3);
    assert_eq!(recorded.samples(&of("kcl_process_seconds", 1)), 2);
    assert!(shard("kcl_bytes_delivered_total", 0) > 0);
    let reads = (
        shard("kcl_reads_total", 0),
        shard("kcl_empty_reads_total", 0),
    );
    assert_eq!(reads.0 - reads.1, 3, "{reads:?}");
    assert!(recorded.gauge(&of("kcl_behind_latest_seconds", 0)).abs() < f64::EPSILON);
    assert!((recorded.gauge("kcl_leases_held{}") - 2.0).abs() < f64::EPSILON);
    assert_eq!(recorded.counter("kcl_leases_taken_total{}"), 2);
    assert!(recorded.counter("kcl_heartbeats_total{}") >= 4);
    store.set(|faults| faults.unreachable = true);
    tokio::time::sleep(SECOND * 10).await;
    store.set(|faults| faults.unreachable = false);
    tokio::time::sleep(SECOND * 5).await;
    assert!(recorded.counter("kcl_heartbeat_failures_total{}") >= 2);
    let closed = recorded.counter("kcl_owner_window_closed_milliseconds_total{}");
    assert!((6_000..10_500).contains(&closed), "{closed} ms");
    worker.stop().await.unwrap();
    assert!(recorded.gauge("kcl_leases_held{}").abs() < f64::EPSILON);
}

/// Goal: throttled reads are counted as such.
#[tokio::test(start_paused = true)]
async fn throttled_reads_are_counted() {
    let recorded = Recorded::default();
    let _guard = metrics::set_default_local_recorder(&recorded);
    let (kinesis, journal) = (FakeKinesis::new(1), Journal::default());
    kinesis.put_many(0, 500);
    kinesis.limit_reads(true);
    let worker = start(&kinesis, MemoryLeaseStore::new(), &journal, "w").await;
    until_processed(&kinesis, &journal, SECOND * 60).await;
    let name = format!(
        "kcl_throttled_reads_total{{stream=orders,shard={}}}",
        shard_id(0)
    );
    assert_eq!(recorded.counter(&name), kinesis.throttled());
    assert!(kinesis.throttled() > 0);
    worker.stop().await.unwrap();
}
