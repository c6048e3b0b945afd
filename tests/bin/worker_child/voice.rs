//! What the worker reports: a line of JSON for every callback, on standard output.

use kcl::RecordBatch;
use serde_json::{Value, json};
use std::io::Write;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use support::clock::now_us;

/// Writes one line at once: a torn line can only be the last of a killed process.
pub(crate) fn report(worker: &str, event: &str, shard: Option<&str>, extra: &[(&str, Value)]) {
    let mut line = json!({
        "at_us": now_us(), "wall_us": wall_us(), "worker": worker, "event": event,
    });
    if let Some(shard) = shard {
        line["shard"] = json!(shard);
    }
    for (name, value) in extra {
        line[*name] = value.clone();
    }
    let mut stdout = std::io::stdout().lock();
    // The parent may be gone; then nobody is interested.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// The wall clock as this process sees it, which may be faked.
#[expect(
    clippy::disallowed_methods,
    reason = "tests that fake it look at it here"
)]
fn wall_us() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since_epoch.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

/// Speaks for one shard of a worker.
#[derive(Debug, Clone)]
pub(crate) struct Voice {
    pub(crate) worker: Arc<str>,
    pub(crate) shard: String,
}

impl Voice {
    pub(crate) fn report(&self, event: &str, extra: &[(&str, Value)]) {
        report(&self.worker, event, Some(&self.shard), extra);
    }

    pub(crate) fn delivered(&self, batch: &RecordBatch) {
        let records = batch.records().iter();
        let sequences: Vec<String> = records
            .map(|record| record.sequence_number().to_string())
            .collect();
        self.report("delivered", &[("sequences", json!(sequences))]);
    }

    /// A checkpoint was refused.
    pub(crate) fn refused(&self, error: &kcl::Error) {
        self.report("refused", &[("error", json!(format!("{error:?}")))]);
    }

    /// Something of this program's own.
    pub(crate) fn note(&self, what: &str) {
        self.report("noted", &[("what", json!(what))]);
    }
}
