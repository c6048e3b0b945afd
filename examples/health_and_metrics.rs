//! What a worker tells those who run it: its health for probes, and its metrics in the text format of Prometheus.

use async_trait::async_trait;
use kcl::{
    Checkpointer, MemoryLeaseStore, ProcessorError, RecordBatch, RecordProcessor, ShardInfo, Worker,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use millstream_examples::{Failure, put, serve};
use std::time::Duration;

const RECORDS: usize = 10;

/// The first batch of each shard fails once: retries to be seen in the metrics.
struct Flaky {
    failed: bool,
}

#[async_trait]
impl RecordProcessor for Flaky {
    async fn process_records(
        &mut self,
        _batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        if !std::mem::replace(&mut self.failed, true) {
            return Err("the database is busy".into());
        }
        Ok(checkpointer.checkpoint().await?)
    }
}

/// The sum of a counter over all shards.
fn total(metrics: &PrometheusHandle, name: &str) -> usize {
    let text = metrics.render();
    let lines = text.lines().filter(|line| line.starts_with(name));
    let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok());
    values.sum()
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    // Before the worker is built. A service would serve `metrics.render()` at /metrics.
    let metrics = PrometheusBuilder::new().install_recorder()?;
    let server = serve("measured", 2).await?;
    for number in 0..RECORDS {
        put(&server.url(), "measured", &number.to_string(), "hello").await?;
    }
    let worker = Worker::builder("observed", "measured")
        .endpoint(server.url())
        .lease_store(MemoryLeaseStore::new())
        .build(|_shard: &ShardInfo| Flaky { failed: false })
        .await?;
    let handle = worker.handle();
    println!("built:   {}", handle.health());
    let running = tokio::spawn(worker.run());

    while total(&metrics, "kcl_records_delivered_total") < RECORDS {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What a liveness and a readiness probe would answer with.
    let health = handle.health();
    println!(
        "running: {health}, live {}, ready {}",
        health.is_live(),
        health.is_ready()
    );
    let ready = health.is_ready();
    handle.shutdown_and_wait().await;
    running.await??;
    server.shutdown().await;
    println!("ended:   {}", handle.health());
    for line in metrics
        .render()
        .lines()
        .filter(|line| line.starts_with("kcl_"))
    {
        println!("{line}");
    }
    println!(
        "result: ready {ready}, {} records delivered, {} batches failed once",
        total(&metrics, "kcl_records_delivered_total"),
        total(&metrics, "kcl_batch_failures_total")
    );
    Ok(())
}
