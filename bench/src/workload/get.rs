//! Reads: each connection drains a shard from its trim horizon to its tip, again and again.

use super::put::join;
use crate::body;
use crate::client::{Connection, Encoding, Endpoint};
use crate::measure::{Moved, Recorder};
use crate::page;
use crate::scan;
use crate::stream;
use std::io;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// How long a reader waits whom a server was too busy for.
const BUSY_PAUSE: Duration = Duration::from_millis(5);
/// So many empty pages in a row are the end of a shard, whatever the server says of the time behind.
const EMPTY_PAGES_MAX: u32 = 3;

/// What is done with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Its records are counted.
    Counted,
    /// It is read in full, its data decoded, and the order of its records checked.
    Verified,
}

/// What is read.
#[derive(Debug, Clone)]
pub struct Gets {
    /// Where from.
    pub stream: String,
    /// Readers; they are spread over the shards.
    pub connections: usize,
    /// Bytes of one record.
    pub record_bytes: usize,
    /// What is done with an answer.
    pub reading: Reading,
}

impl Gets {
    /// Reads for as long as the recorder's window lasts.
    pub async fn run(&self, endpoint: &Endpoint, recorder: &Recorder) -> io::Result<()> {
        let shards = stream::shards(endpoint, &self.stream).await?;
        let mut tasks = JoinSet::new();
        for shard in shards.iter().cycle().take(self.connections) {
            let mut reader = Reader {
                connection: endpoint.connect().await?,
                endpoint: endpoint.clone(),
                gets: self.clone(),
                shard: shard.clone(),
                recorder: recorder.clone(),
            };
            tasks.spawn(async move {
                while reader.drain().await? {}
                Ok(())
            });
        }
        join(tasks).await
    }

    /// What to know of an answer: how many records, where to go on, and whether the tip is reached.
    fn look(&self, answer: &[u8], encoding: Encoding) -> io::Result<(usize, Option<String>, bool)> {
        if self.reading == Reading::Verified {
            let page = page::read(answer, encoding)?;
            let number = |at: usize| page::order(&page.records[at].sequence_number);
            if (1..page.records.len()).any(|at| number(at - 1) >= number(at)) {
                return Err(io::Error::other("records of a page are out of order"));
            }
            let at_tip = page.millis_behind_latest.unwrap_or(0) == 0;
            return Ok((page.records.len(), page.next_shard_iterator, at_tip));
        }
        let next = scan::text(answer, encoding, "NextShardIterator");
        let behind = scan::number(answer, encoding, "MillisBehindLatest");
        Ok((scan::records(answer), next, behind.unwrap_or(0) == 0))
    }
}

struct Reader {
    connection: Connection,
    endpoint: Endpoint,
    gets: Gets,
    shard: String,
    recorder: Recorder,
}

impl Reader {
    /// Reads the shard once; whether the load goes on.
    async fn drain(&mut self) -> io::Result<bool> {
        let stream = &self.gets.stream;
        let iterator =
            stream::iterator(&self.endpoint, stream, &self.shard, "TRIM_HORIZON").await?;
        let (mut iterator, mut empty_pages, mut any) = (Some(iterator), 0, false);
        while let Some(token) = iterator.take() {
            let body = body::get_records(self.endpoint.encoding, &token);
            let request = self.endpoint.request("GetRecords", body)?;
            let sent = Instant::now();
            let answer = self.connection.send(&request).await?;
            let at = Instant::now();
            if answer.is_busy() {
                // So many large answers at once are more than it lets lie in memory.
                sleep(BUSY_PAUSE).await;
                iterator = Some(token);
                continue;
            }
            let answer = answer.success("GetRecords")?;
            let (records, next, is_at_tip) = self.gets.look(answer, self.endpoint.encoding)?;
            if records == 0 {
                empty_pages += 1;
                if is_at_tip || empty_pages >= EMPTY_PAGES_MAX {
                    break;
                }
            } else {
                (empty_pages, any) = (0, true);
                let moved = Moved::records(records, self.gets.record_bytes);
                if !self.recorder.answered(sent, at, moved) {
                    return Ok(false);
                }
            }
            iterator = next;
        }
        if any {
            return Ok(true);
        }
        let message = format!("shard {} of {stream} has no records", self.shard);
        Err(io::Error::other(message))
    }
}
