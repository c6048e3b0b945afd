//! What a tenure noticed about aggregated records: counted, and told in the log.

use crate::fetch::expand::Findings;
use crate::lease::LeaseKey;

/// What was noticed so far.
#[derive(Debug, Default)]
pub(crate) struct Noticed {
    /// User records of other shards that were dropped.
    foreign: u64,
    /// Whether an unsound aggregate was told of; one is enough.
    unsound: bool,
}

impl Noticed {
    /// Adds what was noticed about a page, and tells it.
    pub(crate) fn tell(&mut self, lease: &LeaseKey, findings: Findings) {
        if findings.foreign > 0 {
            self.foreign = self.foreign.saturating_add(findings.foreign);
            tracing::warn!(
                %lease, dropped = findings.foreign, total = self.foreign,
                "user records that belong to another shard were dropped: their producer must have sent them again"
            );
        }
        if let Some((sequence, flaw)) = findings.unsound
            && !std::mem::replace(&mut self.unsound, true)
        {
            tracing::warn!(
                %lease, %sequence, %flaw,
                "a record has the form of an aggregate and is none: it is delivered as it is, like all others of the kind"
            );
        }
    }
}
