//! Writers: put records one after another and note what was acknowledged, through kills and restarts.

use crate::client::{CallError, RawClient, text};
use crate::history::{Acked, Sequence, Written};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Concurrent writers, each with its own partition key and running number.
#[derive(Debug)]
pub struct Load {
    acked: Arc<Mutex<Vec<Acked>>>,
    refusals: Arc<Mutex<Vec<CallError>>>,
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
}

/// How a load is made.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// How many writers.
    pub writers: usize,
    /// How long each waits from one put to the next.
    pub pause: Duration,
    /// How many records every second put carries; the others carry one.
    pub batch: u64,
    /// How much longer a record of such a batch is than it need be.
    pub padding_bytes: usize,
}

impl Load {
    /// Starts writing to `stream`.
    pub fn start(client: &RawClient, stream: &str, shape: Shape) -> Load {
        let mut load = Load {
            acked: Arc::default(),
            refusals: Arc::default(),
            stop: Arc::default(),
            writers: Vec::new(),
        };
        for index in 0..shape.writers {
            let writer = Writer {
                client: client.clone(),
                stream: stream.to_owned(),
                name: format!("writer-{index}"),
                next: 1,
                acked: Arc::clone(&load.acked),
                refusals: Arc::clone(&load.refusals),
            };
            load.writers
                .push(tokio::spawn(writer.run(shape, Arc::clone(&load.stop))));
        }
        load
    }

    /// What was acknowledged so far.
    pub fn acked(&self) -> Vec<Acked> {
        self.acked.lock().unwrap().clone()
    }

    /// What was acknowledged after the first `from`.
    pub fn acked_since(&self, from: usize) -> Vec<Acked> {
        self.acked.lock().unwrap()[from..].to_vec()
    }

    /// How much was acknowledged so far.
    pub fn acked_count(&self) -> usize {
        self.acked.lock().unwrap().len()
    }

    /// Stops every writer after its put; what was acknowledged, and the errors the server answered.
    pub async fn stop(self) -> (Vec<Acked>, Vec<CallError>) {
        self.stop.store(true, Ordering::SeqCst);
        for writer in self.writers {
            writer.await.unwrap();
        }
        let refusals = self.refusals.lock().unwrap().clone();
        let acked = self.acked.lock().unwrap().clone();
        (acked, refusals)
    }
}

struct Writer {
    client: RawClient,
    stream: String,
    name: String,
    next: u64,
    acked: Arc<Mutex<Vec<Acked>>>,
    refusals: Arc<Mutex<Vec<CallError>>>,
}

impl Writer {
    async fn run(mut self, shape: Shape, stop: Arc<AtomicBool>) {
        let mut turn = 0u64;
        while !stop.load(Ordering::SeqCst) {
            turn += 1;
            let count = if turn.is_multiple_of(2) {
                shape.batch
            } else {
                1
            };
            match self.put(count, shape.padding_bytes).await {
                Ok(acked) => self.acked.lock().unwrap().extend(acked),
                Err(error @ CallError::Refused { .. }) => self.refusals.lock().unwrap().push(error),
                // Nobody there: the server is being restarted. The numbers are not used again.
                Err(CallError::Unanswered(_)) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            tokio::time::sleep(shape.pause).await;
        }
    }

    /// Puts the next `count` records in one call; what was acknowledged of them.
    async fn put(&mut self, count: u64, padding_bytes: usize) -> Result<Vec<Acked>, CallError> {
        let writer = self.name.clone();
        let batch: Vec<Written> = (self.next..self.next + count)
            .map(|n| Written {
                writer: writer.clone(),
                n,
            })
            .collect();
        self.next += count;
        if let [one] = batch.as_slice() {
            let (shard, sequence) = self
                .client
                .put(&self.stream, &writer, one.payload().as_bytes())
                .await?;
            return Ok(vec![Acked {
                written: one.clone(),
                shard,
                sequence: Sequence::new(&sequence),
            }]);
        }
        let records: Vec<Value> = batch
            .iter()
            .map(|one| {
                json!({
                    "PartitionKey": writer,
                    "Data": crate::client::encode_base64(one.padded(padding_bytes).as_bytes()),
                })
            })
            .collect();
        let input = json!({"StreamName": self.stream, "Records": records});
        let output = self.client.call("PutRecords", &input).await?;
        let results = output["Records"].as_array().cloned().unwrap_or_default();
        assert_eq!(
            results.len(),
            batch.len(),
            "one result for each record: {output}"
        );
        for failed in results
            .iter()
            .filter(|result| result["ErrorCode"].is_string())
        {
            self.refusals.lock().unwrap().push(CallError::Refused {
                status: 200,
                code: text(failed, "ErrorCode"),
                message: failed["ErrorMessage"].to_string(),
            });
        }
        let stored = batch
            .into_iter()
            .zip(&results)
            .filter(|(_, one)| one["ShardId"].is_string());
        Ok(stored
            .map(|(written, one)| Acked {
                written,
                shard: text(one, "ShardId"),
                sequence: Sequence::new(&text(one, "SequenceNumber")),
            })
            .collect())
    }
}
