//! Puts the lines into the stream, in order, each until it is acknowledged.
//!
//! One request is in flight at a time, and what was refused goes again before anything later. Within a request the
//! server refuses every record of a shard after the first refused one, so the order per key holds.

use crate::Failure;
use crate::demo::client::{CallError, Client, Receipt};
use crate::demo::input::Line;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Records per request at most; few, so that a crash hits the middle of the file and not the end of a request.
const BATCH_RECORDS: usize = 100;
/// Bytes of lines per request at most; PutRecords takes 10 MiB in all.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Pause before a request is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What the producer knows at the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    /// For each line where it was acknowledged to be.
    pub(crate) receipts: Vec<Option<Receipt>>,
    /// Lines that were put again because the outcome of a put was not known: they may be stored twice.
    pub(crate) uncertain: BTreeSet<usize>,
    /// Records that the server refused for the moment.
    pub(crate) throttled: u64,
}

/// What to put, where, and how fast.
#[derive(Debug)]
pub(crate) struct Production<'a> {
    pub(crate) client: &'a Client,
    pub(crate) stream: &'a str,
    pub(crate) lines: &'a [Line],
    /// Time per record.
    pub(crate) pace: Duration,
}

/// A record's payload: the number of its line, a tab, the line.
pub(crate) fn payload(ordinal: usize, line: &str) -> Vec<u8> {
    format!("{ordinal}\t{line}").into_bytes()
}

/// The number of a line and the line.
pub(crate) fn read_payload(data: &[u8]) -> Option<(i64, &str)> {
    let (ordinal, line) = std::str::from_utf8(data).ok()?.split_once('\t')?;
    Some((ordinal.parse().ok()?, line))
}

impl Production<'_> {
    /// Puts every line and reports how many were acknowledged on `acknowledged`.
    pub(crate) async fn run(&self, acknowledged: &watch::Sender<usize>) -> Result<Ledger, Failure> {
        let mut ledger = Ledger {
            receipts: vec![None; self.lines.len()],
            ..Ledger::default()
        };
        let started = Instant::now();
        let mut next = 0;
        while next < self.lines.len() {
            let end = self.batch_end(next);
            let mut pending: Vec<usize> = (next..end).collect();
            while !pending.is_empty() {
                pending = self.put(pending, &mut ledger).await?;
                if !pending.is_empty() {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
            next = end;
            acknowledged.send_replace(next);
            tokio::time::sleep_until(started + self.due(next)).await;
        }
        Ok(ledger)
    }

    /// When `records` should have been put, from the start.
    fn due(&self, records: usize) -> Duration {
        self.pace
            .saturating_mul(u32::try_from(records).unwrap_or(u32::MAX))
    }

    fn batch_end(&self, start: usize) -> usize {
        // About a hundred requests at least, however short the file is.
        let most = (self.lines.len() / 100).clamp(1, BATCH_RECORDS);
        let mut bytes = 0;
        let fits = |line: &&Line| {
            bytes += line.text.len() + line.key.len();
            bytes <= BATCH_BYTES
        };
        let count = self.lines[start..]
            .iter()
            .take(most)
            .take_while(fits)
            .count();
        start + count.max(1)
    }

    /// Puts lines once; gives those that have to go again, in order.
    async fn put(&self, lines: Vec<usize>, ledger: &mut Ledger) -> Result<Vec<usize>, Failure> {
        let record = |&ordinal: &usize| {
            let line = &self.lines[ordinal];
            (line.key.as_str(), payload(ordinal, &line.text))
        };
        let records: Vec<_> = lines.iter().map(record).collect();
        match self.client.put_records(self.stream, &records).await {
            Ok(results) => Ok(note(&lines, results, ledger)),
            Err(CallError::Unreached(..)) => Ok(lines),
            Err(CallError::Unanswered(..)) => {
                ledger.uncertain.extend(&lines);
                Ok(lines)
            }
            Err(CallError::Refused { code, .. }) if is_throttle(&code) => {
                ledger.throttled += u64::try_from(lines.len()).unwrap_or(u64::MAX);
                Ok(lines)
            }
            Err(error @ CallError::Refused { .. }) => Err(Failure::runtime(error)),
        }
    }
}

/// Notes the results of a put; gives the lines that have to go again, in order.
fn note(lines: &[usize], results: Vec<Result<Receipt, String>>, ledger: &mut Ledger) -> Vec<usize> {
    let mut again = Vec::new();
    for (&ordinal, result) in lines.iter().zip(results) {
        match result {
            Ok(receipt) => ledger.receipts[ordinal] = Some(receipt),
            Err(code) => {
                again.push(ordinal);
                if is_throttle(&code) {
                    ledger.throttled += 1;
                } else {
                    ledger.uncertain.insert(ordinal);
                }
            }
        }
    }
    again
}

fn is_throttle(code: &str) -> bool {
    code == "ProvisionedThroughputExceededException"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(sequence: &str) -> Receipt {
        Receipt {
            shard: "s".into(),
            sequence: sequence.into(),
        }
    }

    #[test]
    fn what_was_refused_goes_again_in_order_and_only_doubt_counts_as_doubt() {
        let mut ledger = Ledger {
            receipts: vec![None; 6],
            ..Ledger::default()
        };
        let results = vec![
            Ok(receipt("1")),
            Err("ProvisionedThroughputExceededException".to_owned()),
            Ok(receipt("2")),
            Err("InternalFailure".to_owned()),
        ];
        assert_eq!(note(&[2, 3, 4, 5], results, &mut ledger), [3, 5]);
        assert_eq!(ledger.receipts[2], Some(receipt("1")));
        assert_eq!(ledger.receipts[3], None);
        assert_eq!(ledger.throttled, 1);
        assert_eq!(ledger.uncertain, BTreeSet::from([5]));
    }

    #[test]
    fn batches_cover_every_line_once_within_the_limits_of_a_request() {
        let client = Client::new("http://127.0.0.1:9".into()).unwrap();
        for (count, bytes) in [(1, 10), (99, 10), (250, 10), (26_115, 40), (120, 900_000)] {
            let text = "x".repeat(bytes);
            let lines = vec![
                Line {
                    text,
                    key: "k".into()
                };
                count
            ];
            let production = Production {
                client: &client,
                stream: "s",
                lines: &lines,
                pace: Duration::ZERO,
            };
            let mut next = 0;
            while next < count {
                let end = production.batch_end(next);
                assert!(end > next && end <= count && end - next <= BATCH_RECORDS);
                assert!(end - next == 1 || (end - next) * (bytes + 1) <= BATCH_BYTES);
                next = end;
            }
        }
    }

    #[test]
    fn a_payload_is_read_back_whole() {
        assert_eq!(read_payload(&payload(7, "a\tb")), Some((7, "a\tb")));
        assert_eq!(read_payload(b"no tab"), None);
        assert_eq!(read_payload(b"x\ty"), None);
    }
}
