//! What log lines of user code carry. In a process of its own: a span that other threads come to first, without a subscriber, is never shown.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use async_trait::async_trait;
use kcl::testing::InMemoryKinesis;
use kcl::{
    Checkpointer, MemoryLeaseStore, ProcessorError, RecordBatch, RecordProcessor, ShardInfo, Worker,
};
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

struct Logging;

#[async_trait]
impl RecordProcessor for Logging {
    async fn process_records(
        &mut self,
        _: RecordBatch,
        _: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        tokio::time::sleep(SECOND).await;
        tracing::info!("hello from the application");
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Goal: a line that user code logs says whose batch it is about, and nothing of the data.
#[tokio::test(start_paused = true)]
async fn log_lines_of_a_processor_carry_shard_and_batch() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let kinesis = InMemoryKinesis::new(1);
    let first = kinesis.put_to(0, "key", "a secret");
    let last = kinesis.put_to(0, "key", "another secret");
    let worker = Worker::builder("app", "orders")
        .client(kinesis.client())
        .lease_store(MemoryLeaseStore::new())
        .build(|_: &ShardInfo| Logging)
        .await
        .unwrap();
    let handle = worker.handle();
    let task = tokio::spawn(worker.run());
    tokio::time::sleep(SECOND * 5).await;
    handle.shutdown();
    task.await.unwrap().unwrap();
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let line = text
        .lines()
        .find(|line| line.contains("hello from"))
        .unwrap();
    for part in [
        "shard{application=app stream=orders",
        &format!("shard={} counter=1}}", kinesis.shard_id(0)),
        &format!("batch{{first=\"{first}\" last=\"{last}\" records=2}}"),
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(!text.contains("secret"), "{text}");
}
