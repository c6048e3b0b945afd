//! Writers and tailing readers at once, then a second reading: every acknowledged record is there exactly once, in order, whole.
//!
//! [`verdict`] decides; what runs here only keeps the books. A server that goes away and comes back is written to and read from again.

use super::book::{Book, Id, Place, Seen, Verdict, verdict};
use super::put::join;
use crate::body::{self, Entry};
use crate::client::{Connection, Endpoint};
use crate::measure::Window;
use crate::pace::Pacer;
use crate::page;
use crate::stream;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Records of the batches that every second writer puts.
const BATCH: usize = 10;
/// Records that a check may put: each is remembered.
const RECORDS_MAX: usize = 1_000_000;
/// How long a reader at the tip waits.
const TIP_PAUSE: Duration = Duration::from_millis(2);
/// How long is waited after a call that failed.
const FAILURE_PAUSE: Duration = Duration::from_millis(20);

/// What is put and read.
#[derive(Debug, Clone)]
pub struct Check {
    /// Where.
    pub stream: String,
    /// Writers; every second one puts ten records at a time.
    pub connections: usize,
    /// Bytes of one record, 8 or more.
    pub record_bytes: usize,
    /// Calls a second of all writers together; otherwise as many as the server answers.
    pub rate: Option<f64>,
    /// How long readers look for what was acknowledged and is not there, or for a server that is not there.
    pub patience: Duration,
}

/// Both readings judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Verdicts {
    /// Calls that failed, and records that were refused: they may be there or not.
    pub failed: usize,
    /// Of the readers that followed the writers.
    pub tailing: Verdict,
    /// Of those that read everything afterwards.
    pub again: Verdict,
}

impl Verdicts {
    /// Whether something was put and nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.tailing.acknowledged > 0 && self.tailing.is_sound() && self.again.is_sound()
    }
}

/// The book, and whether it is closed; a handle.
#[derive(Debug, Clone, Default)]
struct Books(Arc<Mutex<Written>>);

#[derive(Debug, Default)]
struct Written {
    book: Book,
    failed: usize,
    /// Nothing more will be put.
    is_closed: bool,
}

impl Books {
    fn open(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a reader that has read so much of a shard has all of it.
    fn has_all(&self, seen: &Seen) -> bool {
        let written = self.open();
        written.is_closed && seen.records.len() >= written.book.acknowledged_in(&seen.shard)
    }
}

impl Check {
    /// Writes until the window ends, reads, and judges.
    pub async fn run(&self, endpoint: &Endpoint, window: Window) -> io::Result<Verdicts> {
        let books = Books::default();
        let shards = stream::shards(endpoint, &self.stream).await?;
        let mut tailing = self.readers(endpoint, &shards, &books);
        self.write(endpoint, window, &books).await?;
        books.open().is_closed = true;
        let tailing = all(&mut tailing).await?;
        let again = all(&mut self.readers(endpoint, &shards, &books)).await?;
        let written = books.open();
        Ok(Verdicts {
            failed: written.failed,
            tailing: verdict(&written.book, &tailing),
            again: verdict(&written.book, &again),
        })
    }

    /// One for each shard.
    fn readers(
        &self,
        endpoint: &Endpoint,
        shards: &[String],
        books: &Books,
    ) -> JoinSet<io::Result<Seen>> {
        let mut readers = JoinSet::new();
        for shard in shards {
            let reader = Reader {
                endpoint: endpoint.clone(),
                stream: self.stream.clone(),
                record_bytes: self.record_bytes,
                patience: self.patience,
                seen: Seen {
                    shard: shard.clone(),
                    records: Vec::new(),
                },
            };
            readers.spawn(reader.follow(books.clone()));
        }
        readers
    }

    async fn write(&self, endpoint: &Endpoint, window: Window, books: &Books) -> io::Result<()> {
        let mut tasks = JoinSet::new();
        for place in 0..self.connections {
            let mut writer = Writer {
                endpoint: endpoint.clone(),
                connection: Some(endpoint.connect().await?),
                stream: self.stream.clone(),
                number: u32::try_from(place).map_err(io::Error::other)?,
                records: if place % 2 == 0 { 1 } else { BATCH },
                record_bytes: self.record_bytes,
                next: 0,
            };
            let mut pacer = Pacer::if_rated(self.rate, place, self.connections)?;
            let books = books.clone();
            tasks.spawn(async move {
                while Instant::now() < window.ends && books.open().book.records() < RECORDS_MAX {
                    if let Some(pacer) = &mut pacer {
                        pacer.due().await?;
                    }
                    if writer.put(&books).await.is_err() {
                        // Counted as failed. A server that is busy, or away, is left in peace for a moment.
                        sleep(FAILURE_PAUSE).await;
                    }
                }
                Ok(())
            });
        }
        join(tasks).await
    }
}

async fn all(readers: &mut JoinSet<io::Result<Seen>>) -> io::Result<Vec<Seen>> {
    let mut seen = Vec::new();
    while let Some(ended) = readers.join_next().await {
        seen.push(ended.map_err(io::Error::other)??);
    }
    Ok(seen)
}

struct Writer {
    endpoint: Endpoint,
    /// Nothing after a failure: what is under way on it is unknown.
    connection: Option<Connection>,
    stream: String,
    /// Which of the writers it is.
    number: u32,
    records: usize,
    record_bytes: usize,
    next: u32,
}

/// What is said of one record that was put.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Put {
    shard_id: Option<String>,
    sequence_number: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Puts {
    records: Vec<Put>,
}

impl Writer {
    async fn put(&mut self, books: &Books) -> io::Result<()> {
        let records = self.records;
        let mut ids = Vec::with_capacity(records);
        ids.resize_with(records, || self.id());
        let answered = self.call(&ids).await;
        let mut written = books.open();
        let results = answered.as_deref().unwrap_or_default();
        for (at, id) in ids.iter().enumerate() {
            if let Some(Put {
                shard_id: Some(shard),
                sequence_number: Some(sequence),
            }) = results.get(at)
            {
                let (shard, sequence) = (shard.clone(), sequence.clone());
                written.book.acknowledge(*id, Place { shard, sequence });
            } else {
                written.failed += 1;
                written.book.lose_sight(*id);
            }
        }
        answered.map(drop)
    }

    fn id(&mut self) -> Id {
        let (writer, number) = (self.number, self.next);
        self.next += 1;
        Id { writer, number }
    }

    async fn call(&mut self, ids: &[Id]) -> io::Result<Vec<Put>> {
        let entry = |id: &Id| Entry {
            key: body::random_key(),
            data: id.data(self.record_bytes),
        };
        let entries: Vec<Entry> = ids.iter().map(entry).collect();
        let body = body::put(self.endpoint.encoding, &self.stream, &entries);
        let operation = body::operation(ids.len());
        let request = self.endpoint.request(operation, body)?;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.endpoint.connect().await?,
        };
        let answer = connection.send(&request).await?.success(operation);
        let results = answer.and_then(|answer| {
            if ids.len() == 1 {
                return Ok(vec![page::decode(answer, self.endpoint.encoding)?]);
            }
            let puts: Puts = page::decode(answer, self.endpoint.encoding)?;
            Ok(puts.records)
        });
        self.connection = Some(connection);
        results
    }
}

struct Reader {
    endpoint: Endpoint,
    stream: String,
    record_bytes: usize,
    patience: Duration,
    seen: Seen,
}

impl Reader {
    /// Reads from the trim horizon until all that was acknowledged is there, or patience ends.
    async fn follow(mut self, books: Books) -> io::Result<Seen> {
        let mut progress = Instant::now();
        loop {
            let before = self.seen.records.len();
            let read = self.read(&books).await;
            if read.is_ok() {
                return Ok(self.seen);
            }
            if self.seen.records.len() > before {
                progress = Instant::now();
            }
            if progress.elapsed() > self.patience {
                read?;
            }
            sleep(FAILURE_PAUSE).await;
        }
    }

    /// Goes on after the last record read.
    async fn read(&mut self, books: &Books) -> io::Result<()> {
        let mut connection = self.endpoint.connect().await?;
        let mut iterator = self.iterator().await?;
        let mut progress = Instant::now();
        loop {
            let is_closed = books.open().is_closed;
            let body = body::get_records(self.endpoint.encoding, &iterator);
            let request = self.endpoint.request("GetRecords", body)?;
            let answer = connection.send(&request).await?.success("GetRecords")?;
            let page = page::read(answer, self.endpoint.encoding)?;
            let is_empty = page.records.is_empty();
            let records = page.records.into_iter();
            let id = |data: &[u8]| Id::of(data, self.record_bytes);
            let read = records.map(|record| (record.sequence_number, id(&record.data.0)));
            self.seen.records.extend(read);
            if is_empty {
                let waited = is_closed && progress.elapsed() > self.patience;
                if waited || books.has_all(&self.seen) {
                    return Ok(());
                }
                sleep(TIP_PAUSE).await;
            } else {
                progress = Instant::now();
            }
            let next = page.next_shard_iterator;
            iterator = next.ok_or_else(|| io::Error::other("GetRecords gave no next iterator"))?;
        }
    }

    async fn iterator(&self) -> io::Result<String> {
        let mut body = json!({ "StreamName": self.stream, "ShardId": self.seen.shard });
        match self.seen.records.last() {
            None => body["ShardIteratorType"] = json!("TRIM_HORIZON"),
            Some((sequence, _)) => {
                body["ShardIteratorType"] = json!("AFTER_SEQUENCE_NUMBER");
                body["StartingSequenceNumber"] = json!(sequence);
            }
        }
        let answer = self.endpoint.control("GetShardIterator", &body).await?;
        let iterator = answer["ShardIterator"].as_str().map(str::to_owned);
        iterator.ok_or_else(|| io::Error::other("GetShardIterator gave no iterator"))
    }
}
