//! What the demo shows while it runs, on standard error: one line that is refreshed on a terminal, a line now and then
//! elsewhere, and a line per event.

use crate::demo::results::{Results, Share};
use crate::demo::verify::{count, seconds};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

const LIVE_INTERVAL: Duration = Duration::from_millis(300);
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);
/// Back to the start of the line and clear it; long lines are cut at the edge instead of wrapped.
const REFRESH: &str = "\r\x1b[2K\x1b[?7l";
const WRAP_AGAIN: &str = "\x1b[?7h";

/// Standard error, as a terminal or not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Display {
    live: bool,
    started: Instant,
}

impl Display {
    pub(crate) fn new() -> Display {
        Display {
            live: std::io::stderr().is_terminal(),
            started: Instant::now(),
        }
    }

    /// Time since the demo began.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Shows a line that stays.
    pub(crate) fn event(&self, text: &str) {
        let start = if self.live { REFRESH } else { "" };
        let end = if self.live { WRAP_AGAIN } else { "" };
        // Nobody may be watching; that does not stop the show.
        let _ = writeln!(
            std::io::stderr(),
            "{start}{:>7}  {text}{end}",
            seconds(self.elapsed_ms())
        );
    }

    fn status(&self, text: &str) {
        if self.live {
            let mut out = std::io::stderr();
            let time = seconds(self.elapsed_ms());
            let _ =
                write!(out, "{REFRESH}{time:>7}  {text}{WRAP_AGAIN}").and_then(|()| out.flush());
        } else {
            self.event(text);
        }
    }

    /// Ends the refreshed line.
    pub(crate) fn clear(&self) {
        if self.live {
            let _ = write!(std::io::stderr(), "{REFRESH}{WRAP_AGAIN}");
        }
    }

    /// Shows how far things are until it is dropped.
    pub(crate) async fn follow(
        &self,
        results: &Results,
        acknowledged: &watch::Receiver<usize>,
        total: usize,
    ) {
        let interval = if self.live {
            LIVE_INTERVAL
        } else {
            PLAIN_INTERVAL
        };
        loop {
            tokio::time::sleep(interval).await;
            // The database may be busy for a moment; the next look succeeds.
            if let (Ok(processed), Ok(shares)) =
                (results.lines_processed().await, results.shares().await)
            {
                let put = *acknowledged.borrow();
                self.status(&status(put, processed, total, &shares));
            }
        }
    }
}

/// `put 1,200 of 26,115, processed 1,100; worker-1: 600 (shards 0, 3); ...`
fn status(put: usize, processed: usize, total: usize, shares: &[Share]) -> String {
    let mut text = format!(
        "put {} of {}, processed {}",
        count(put),
        count(total),
        count(processed)
    );
    let mut workers: BTreeMap<&str, (u64, Vec<String>)> = BTreeMap::new();
    for share in shares {
        let worker = workers.entry(&share.worker).or_default();
        worker.0 += share.processed;
        if latest_worker(shares, &share.shard) == Some(share.worker.as_str()) {
            worker.1.push(short(&share.shard).to_owned());
        }
    }
    for (worker, (processed, shards)) in workers {
        let processed = count(usize::try_from(processed).unwrap_or(usize::MAX));
        text.extend(["; ", worker, ": ", &processed]);
        if !shards.is_empty() {
            text.extend([" (shard ", &shards.join(", "), ")"]);
        }
    }
    text
}

/// Who processed the latest batch of a shard.
pub(crate) fn latest_worker<'a>(shares: &'a [Share], shard: &str) -> Option<&'a str> {
    let of_shard = shares.iter().filter(|share| share.shard == shard);
    of_shard
        .max_by_key(|share| share.last_batch)
        .map(|share| share.worker.as_str())
}

/// `shardId-000000000007` is `7`.
pub(crate) fn short(shard: &str) -> &str {
    let digits = shard
        .rsplit('-')
        .next()
        .unwrap_or(shard)
        .trim_start_matches('0');
    if digits.is_empty() { "0" } else { digits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_names_each_worker_with_the_shards_it_worked_on_last() {
        let share = |worker: &str, shard: &str, processed, last_batch| Share {
            worker: worker.into(),
            shard: shard.into(),
            processed,
            redelivered: 0,
            last_batch,
        };
        let shares = [
            share("worker-1", "shardId-000000000000", 1_000, 5),
            share("worker-1", "shardId-000000000010", 200, 9),
            share("worker-2", "shardId-000000000000", 30, 7),
        ];
        assert_eq!(
            status(1_500, 1_230, 26_115, &shares),
            "put 1,500 of 26,115, processed 1,230; worker-1: 1,200 (shard 10); worker-2: 30 (shard 0)"
        );
        assert_eq!(latest_worker(&shares, "shardId-000000000003"), None);
    }
}
