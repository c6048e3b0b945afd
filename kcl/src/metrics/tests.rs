//! The table is what is recorded, and nothing of it costs without a recorder.

use super::recorded::Recorded;
use super::*;

fn key() -> LeaseKey {
    LeaseKey {
        stream: "arn:aws:kinesis:us-east-1:000000000000:stream/orders@1700000000000".to_owned(),
        shard_id: "shardId-000000000003".to_owned(),
    }
}

#[test]
fn every_metric_is_in_the_table_and_described() {
    let recorded = Recorded::default();
    metrics::with_local_recorder(&recorded, || {
        let _handles = (ShardMetrics::new("app", &key()), WorkerMetrics::new("app"));
        describe();
    });
    assert_eq!(recorded.names(), recorded.described());
    assert!(recorded.names().len() > 20);
}

#[test]
fn a_shard_is_named_by_its_stream_and_id() {
    let recorded = Recorded::default();
    let shard = metrics::with_local_recorder(&recorded, || ShardMetrics::new("app", &key()));
    shard.processed(3, 300, Duration::from_millis(5), true);
    shard.processed(3, 300, Duration::from_millis(5), false);
    let labels = "{stream=orders,shard=shardId-000000000003}";
    let counter = |name: &str| recorded.counter(&format!("{name}{labels}"));
    assert_eq!(counter("kcl_records_delivered_total"), 3);
    assert_eq!(counter("kcl_bytes_delivered_total"), 300);
    assert_eq!(
        (
            counter("kcl_batches_total"),
            counter("kcl_batch_failures_total")
        ),
        (1, 1)
    );
    assert_eq!(recorded.samples(&format!("kcl_process_seconds{labels}")), 2);
}

/// Goal: a shard that is caught up says so though no records come, and one that is not is not said to be. Method: pages without records, while the
/// processor waits and while it does not.
#[test]
fn the_lag_follows_empty_pages_only_while_the_processor_waits() {
    let recorded = Recorded::default();
    let shard = metrics::with_local_recorder(&recorded, || ShardMetrics::new("app", &key()));
    let lag =
        || recorded.gauge("kcl_behind_latest_seconds{stream=orders,shard=shardId-000000000003}");
    shard.behind(5_000);
    shard.read(0, 0);
    assert!((lag() - 5.0).abs() < f64::EPSILON, "{}", lag());
    shard.waits(true);
    shard.read(7, 60_000);
    assert!(
        (lag() - 5.0).abs() < f64::EPSILON,
        "these are not processed yet"
    );
    shard.read(0, 0);
    assert!(lag().abs() < f64::EPSILON);
}
