//! Puts: bodies made beforehand, sent one after the other by each connection.

use crate::body::{self, Entry};
use crate::client::{Endpoint, Request};
use crate::measure::{Moved, Recorder};
use crate::pace::Pacer;
use crate::scan;
use std::io;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Different bodies of one record. A server sees as many keys, the client does not spend its time making them.
const RECORDS_PREPARED: usize = 1024;
/// Different bodies of many records.
const BATCHES_PREPARED: usize = 16;

/// What is put.
#[derive(Debug, Clone)]
pub struct Puts {
    /// Where to.
    pub stream: String,
    /// Requests in flight at most.
    pub connections: usize,
    /// Records of one request.
    pub records: usize,
    /// Bytes of one record.
    pub record_bytes: usize,
    /// Requests a second of all connections together; otherwise each sends the next when the last is answered.
    pub rate: Option<f64>,
}

impl Puts {
    /// Puts for as long as the recorder's window lasts.
    pub async fn run(&self, endpoint: &Endpoint, recorder: &Recorder) -> io::Result<()> {
        let requests: Arc<[Request]> = self.requests(endpoint)?.into();
        let mut tasks = JoinSet::new();
        for place in 0..self.connections {
            let mut connection = endpoint.connect().await?;
            let mut pacer = Pacer::if_rated(self.rate, place, self.connections)?;
            let (requests, recorder) = (Arc::clone(&requests), recorder.clone());
            let (operation, encoding) = (body::operation(self.records), endpoint.encoding);
            let moved = Moved::records(self.records, self.record_bytes);
            tasks.spawn(async move {
                let mut free = Instant::now();
                for request in requests.iter().cycle().skip(place) {
                    let since = match &mut pacer {
                        Some(pacer) => pacer.due().await?,
                        None => free,
                    };
                    let answer = connection.send(request).await?.success(operation)?;
                    free = Instant::now();
                    if !recorder.answered(since, free, moved) {
                        break;
                    }
                    if moved.records > 1 {
                        check(answer, encoding)?;
                    }
                }
                Ok(())
            });
        }
        join(tasks).await
    }

    fn requests(&self, endpoint: &Endpoint) -> io::Result<Vec<Request>> {
        let prepared = match self.records {
            1 => RECORDS_PREPARED,
            _ => BATCHES_PREPARED,
        };
        let request = |_| {
            let entries: Vec<Entry> = (0..self.records)
                .map(|_| Entry::random(self.record_bytes))
                .collect();
            let body = body::put(endpoint.encoding, &self.stream, &entries);
            endpoint.request(body::operation(self.records), body)
        };
        (0..prepared).map(request).collect()
    }
}

/// An answer to PutRecords tells of each record whether it was refused.
pub(super) fn check(answer: &[u8], encoding: crate::client::Encoding) -> io::Result<()> {
    match scan::number(answer, encoding, "FailedRecordCount") {
        // kinesis-mock and others leave it out, or null, when none failed.
        Some(0) | None => Ok(()),
        Some(failed) => {
            let why = scan::text(answer, encoding, "ErrorMessage");
            let why = why.as_deref().unwrap_or("no reason is given");
            Err(io::Error::other(format!(
                "{failed} records of a PutRecords were refused: {why} (limits? start the server with --limits off; or is the disk full?)"
            )))
        }
    }
}

/// Waits for all; the first error ends the others.
pub(super) async fn join(mut tasks: JoinSet<io::Result<()>>) -> io::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(io::Error::other)??;
    }
    Ok(())
}

/// Fills a stream with at least so many records, 500 at a time on four connections; gives how many there are.
pub async fn fill(
    endpoint: &Endpoint,
    stream: &str,
    records: usize,
    record_bytes: usize,
) -> io::Result<u64> {
    const CONNECTIONS: usize = 4;
    const BATCH: usize = 500;
    let puts = Puts {
        stream: stream.to_owned(),
        connections: CONNECTIONS,
        records: BATCH,
        record_bytes,
        rate: None,
    };
    let requests: Arc<[Request]> = puts.requests(endpoint)?.into();
    let batches = records.div_ceil(BATCH).div_ceil(CONNECTIONS);
    let mut tasks = JoinSet::new();
    for place in 0..CONNECTIONS {
        let mut connection = endpoint.connect().await?;
        let (requests, encoding) = (Arc::clone(&requests), endpoint.encoding);
        tasks.spawn(async move {
            for request in requests.iter().cycle().skip(place).take(batches) {
                let answer = connection.send(request).await?;
                check(answer.success("PutRecords")?, encoding)?;
            }
            Ok(())
        });
    }
    join(tasks).await?;
    Ok(u64::try_from(batches * CONNECTIONS * BATCH).unwrap_or(u64::MAX))
}
