//! Which shards need a lease and which leases are over: a pure plan from a listing and the leases, and the step that applies it.
//!
//! The union of the leases that are not ended covers the hash key space after every sync (K7). Leases for children are created by the end of their
//! parents (`consumer`); here they are created too, in case that end was lost or the listing was late.

use crate::checkpoint::Position;
use crate::client::same_stream::other;
use crate::client::{KinesisApi, Shard};
use crate::config::InitialPosition;
use crate::error::Error;
use crate::lease::renew::bounded;
use crate::lease::{Lease, LeaseKey, LeaseStore, NewLease};
use crate::processor::ShardInfo;
#[cfg(test)]
use crate::seeded_bug::{Bug, made};
use millstream_wire::HashKeyRange;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What to create and delete.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SyncPlan {
    pub(crate) create: Vec<NewLease>,
    pub(crate) delete: Vec<LeaseKey>,
    /// Leases whose shard is not listed any more before they ended: its records outlived the retention.
    pub(crate) vanished: Vec<LeaseKey>,
}

/// What the plan is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SyncInput<'a> {
    /// The stream's identity.
    pub(crate) stream: &'a str,
    /// All shards listed.
    pub(crate) shards: &'a [Shard],
    /// The leases, read *after* the shards were listed; those of other streams are ignored.
    pub(crate) leases: &'a [Lease],
    /// Leases whose rows make no sense: they are there, and nobody knows how far they have got.
    pub(crate) damaged: &'a [LeaseKey],
    pub(crate) initial: InitialPosition,
    /// What LATEST means: the stream server's clock when the worker started, *before* the shards were listed.
    pub(crate) started_ms: u64,
    /// The shards that were open then, as far as LATEST needs to know.
    pub(crate) open_at_start: &'a BTreeSet<String>,
}

/// The shards as a family tree, with the leases they have.
struct Family<'a> {
    shards: BTreeMap<&'a str, &'a Shard>,
    children: BTreeMap<&'a str, Vec<&'a str>>,
    leases: BTreeMap<&'a str, &'a Lease>,
    damaged: BTreeSet<&'a str>,
}

/// The nearest leases on the lines of descent of a shard.
#[derive(Default)]
struct Ancestors<'a> {
    leases: Vec<&'a Lease>,
    /// Whether there are damaged ones among them.
    damaged: bool,
}

impl Ancestors<'_> {
    fn is_empty(&self) -> bool {
        self.leases.is_empty() && !self.damaged
    }
}

/// Plans a sync. `LATEST` is turned into the server's time here and never stored (K4).
pub(crate) fn plan(input: SyncInput<'_>) -> SyncPlan {
    if input.shards.is_empty() {
        return SyncPlan::default();
    }
    let family = Family::of(input);
    let key = |id: &str| LeaseKey {
        stream: input.stream.to_owned(),
        shard_id: id.to_owned(),
    };
    let create = input
        .shards
        .iter()
        .filter(|shard| !family.is_leased(&shard.shard_id))
        .filter_map(|shard| {
            Some(NewLease {
                key: key(&shard.shard_id),
                checkpoint: family.start_of(shard, input)?,
                parents: shard.parents.clone(),
                hash_key_range: Some(shard.hash_key_range),
            })
        })
        .collect();
    let unlisted = |lease: &&&Lease| !family.shards.contains_key(lease.key.shard_id.as_str());
    let (ended, alive): (Vec<&Lease>, Vec<&Lease>) = family
        .leases
        .values()
        .filter(unlisted)
        .partition(|lease| lease.checkpoint == Position::ShardEnd);
    let mut delete: Vec<LeaseKey> = ended
        .into_iter()
        // The end of a parent is what says where an unleased child starts.
        .filter(|lease| family.every_child_is_leased(&lease.key.shard_id))
        .map(|lease| lease.key.clone())
        .collect();
    let mut vanished: Vec<LeaseKey> = alive.into_iter().map(|lease| lease.key.clone()).collect();
    delete.sort();
    vanished.sort();
    SyncPlan {
        create,
        delete,
        vanished,
    }
}

impl<'a> Family<'a> {
    fn of(input: SyncInput<'a>) -> Self {
        let mut children: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for shard in input.shards {
            for parent in &shard.parents {
                children.entry(parent).or_default().push(&shard.shard_id);
            }
        }
        let own = |lease: &&Lease| lease.key.stream == input.stream;
        Family {
            shards: input
                .shards
                .iter()
                .map(|shard| (shard.shard_id.as_str(), shard))
                .collect(),
            children,
            leases: input
                .leases
                .iter()
                .filter(own)
                .map(|lease| (lease.key.shard_id.as_str(), lease))
                .collect(),
            damaged: input
                .damaged
                .iter()
                .filter(|key| key.stream == input.stream)
                .map(|key| key.shard_id.as_str())
                .collect(),
        }
    }

    /// Whether there is a lease, sound or not.
    fn is_leased(&self, id: &str) -> bool {
        self.leases.contains_key(id) || self.damaged.contains(id)
    }

    /// Where a shard without a lease starts; `None` if it needs none.
    fn start_of(&self, shard: &Shard, input: SyncInput<'_>) -> Option<Position> {
        #[cfg(test)]
        if made(Bug::NoChildren) && !shard.parents.is_empty() {
            return None;
        }
        let ancestors = self.leased_ancestors(shard);
        if !ancestors.is_empty() {
            return Some(start_after(&ancestors, input.initial));
        }
        // Its children are in work already: it was done with, or began before the application.
        if self.has_leased_descendant(&shard.shard_id) {
            return None;
        }
        match input.initial {
            InitialPosition::TrimHorizon => Some(Position::TrimHorizon),
            InitialPosition::AtTimestamp(ms) => Some(Position::AtTimestamp(ms)),
            InitialPosition::Latest => {
                let wanted = !shard.closed
                    || self.was_open(shard, input.open_at_start)
                    || self.is_gap(&shard.shard_id);
                wanted.then_some(Position::AtTimestamp(input.started_ms))
            }
        }
    }

    /// The nearest leased shard on every line of descent. Where a line leads to a shard that is not listed any more and never had a
    /// lease, the leases of its range whose shards are not listed either: the application was away for longer than the retention.
    fn leased_ancestors(&self, shard: &'a Shard) -> Ancestors<'a> {
        let mut found = Ancestors::default();
        let mut seen = BTreeSet::new();
        let mut open: Vec<&str> = shard.parents.iter().map(String::as_str).collect();
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            if let Some(lease) = self.leases.get(id) {
                found.leases.push(*lease);
            } else if self.damaged.contains(id) {
                found.damaged = true;
            } else if let Some(parent) = self.shards.get(id) {
                open.extend(parent.parents.iter().map(String::as_str));
            } else {
                let forebear = |lease: &&&Lease| {
                    !self.shards.contains_key(lease.key.shard_id.as_str())
                        && lease
                            .hash_key_range
                            .is_none_or(|range| overlap(range, shard.hash_key_range))
                };
                found.leases.extend(
                    self.leases
                        .values()
                        .copied()
                        .filter(|lease| forebear(&lease)),
                );
            }
        }
        found
    }

    /// Whether a shard was open at the start, or came from one that was.
    fn was_open(&self, shard: &'a Shard, open_at_start: &BTreeSet<String>) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = vec![shard.shard_id.as_str()];
        while let Some(id) = open.pop() {
            if open_at_start.contains(id) {
                return true;
            }
            if seen.insert(id)
                && let Some(shard) = self.shards.get(id)
            {
                open.extend(shard.parents.iter().map(String::as_str));
            }
        }
        false
    }

    fn has_leased_descendant(&self, id: &'a str) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            for child in self.children.get(id).into_iter().flatten() {
                if self.is_leased(child) {
                    return true;
                }
                if seen.insert(*child) {
                    open.push(child);
                }
            }
        }
        false
    }

    /// Whether a shard was merged with one that has a lease, or with a descendant of one.
    fn is_gap(&self, id: &str) -> bool {
        self.children
            .get(id)
            .into_iter()
            .flatten()
            .filter_map(|child| self.shards.get(child))
            .any(|child| !self.leased_ancestors(child).is_empty())
    }

    fn every_child_is_leased(&self, id: &str) -> bool {
        self.children
            .get(id)
            .into_iter()
            .flatten()
            .all(|child| self.leases.contains_key(child))
    }
}

/// Those of the listed shards that carry on a shard which is not listed any more: its children or, if they are not listed
/// either, the first of their descendants.
pub(crate) fn heirs(listed: &[Shard], gone: &ShardInfo) -> Vec<Shard> {
    let by_id: BTreeMap<&str, &Shard> = listed
        .iter()
        .map(|shard| (shard.shard_id.as_str(), shard))
        .collect();
    let mut ancestors = BTreeSet::new();
    let mut open: Vec<&str> = gone.parents.iter().map(String::as_str).collect();
    while let Some(id) = open.pop() {
        if ancestors.insert(id)
            && let Some(shard) = by_id.get(id)
        {
            open.extend(shard.parents.iter().map(String::as_str));
        }
    }
    let overlaps = |shard: &Shard| {
        gone.hash_key_range
            .is_some_and(|range| overlap(range, shard.hash_key_range))
    };
    let is_heir = |shard: &&Shard| {
        let of_unlisted = |id: &String| !by_id.contains_key(id.as_str());
        shard.parents.contains(&gone.shard_id)
            || (!ancestors.contains(shard.shard_id.as_str())
                && shard.parents.iter().any(of_unlisted)
                && overlaps(shard))
    };
    listed.iter().filter(is_heir).cloned().collect()
}

fn overlap(one: HashKeyRange, other: HashKeyRange) -> bool {
    one.start <= other.end && other.start <= one.end
}

/// A descendant starts at its beginning; or at the time its ancestors wait for, if they have come across no record yet.
fn start_after(ancestors: &Ancestors<'_>, initial: InitialPosition) -> Position {
    // Nobody can tell what a damaged lease waited for. And under LATEST everything in a descendant came after the application
    // began, whatever a clock that was set back says (K4).
    if ancestors.damaged || initial == InitialPosition::Latest {
        return Position::TrimHorizon;
    }
    let mut earliest: Option<u64> = None;
    for lease in &ancestors.leases {
        match lease.checkpoint {
            Position::AtTimestamp(ms) => {
                earliest = Some(earliest.map_or(ms, |earliest| earliest.min(ms)));
            }
            Position::TrimHorizon
            | Position::AtSequence(_)
            | Position::Sequence { .. }
            | Position::ShardEnd => {
                return Position::TrimHorizon;
            }
        }
    }
    earliest.map_or(Position::TrimHorizon, Position::AtTimestamp)
}

/// Lists the shards of one stream and brings the leases up to date.
#[derive(Debug, Clone)]
pub(crate) struct Syncer {
    pub(crate) client: Arc<dyn KinesisApi>,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) application: String,
    /// Name or ARN, as configured.
    pub(crate) stream: String,
    /// The identity found at the start (K13).
    pub(crate) identity: String,
    pub(crate) initial: InitialPosition,
    /// The stream server's clock when the worker started.
    pub(crate) started_ms: u64,
    /// The shards that were open then, as far as LATEST needs to know.
    pub(crate) open_at_start: BTreeSet<String>,
    /// Limit on one call of the store.
    pub(crate) store_timeout: Duration,
}

/// What a sync found.
#[derive(Debug, Default)]
pub(crate) struct SyncReport {
    /// Shards listed; none while a stream is being created.
    pub(crate) shards: usize,
    pub(crate) vanished: Vec<LeaseKey>,
}

impl Syncer {
    /// Brings the leases up to date once.
    ///
    /// # Errors
    /// `NotFound`: the stream is gone or was created anew, and the leases mean nothing any more (K13). Others are worth
    /// another try.
    pub(crate) async fn sync(&self) -> Result<SyncReport, Error> {
        let summary = self.client.describe_stream(&self.stream).await?;
        if summary.identity() != self.identity {
            return Err(other(&self.stream, &summary.identity(), &self.identity));
        }
        if summary.status == "CREATING" {
            return Ok(SyncReport::default());
        }
        let shards = self.client.list_shards(&self.stream).await?;
        let snapshot = bounded(self.store_timeout, self.store.snapshot(&self.application)).await?;
        let plan = plan(SyncInput {
            stream: &self.identity,
            shards: &shards,
            leases: &snapshot.leases,
            damaged: &snapshot.damaged,
            initial: self.initial,
            started_ms: self.started_ms,
            open_at_start: &self.open_at_start,
        });
        if !plan.create.is_empty() {
            let create = self.store.create_leases(&self.application, &plan.create);
            let created = bounded(self.store_timeout, create).await?;
            tracing::info!(created, stream = %self.identity, "leases created");
        }
        if !plan.delete.is_empty() {
            let delete = self.store.delete_ended(&self.application, &plan.delete);
            let deleted = bounded(self.store_timeout, delete).await?;
            tracing::info!(deleted, stream = %self.identity, "leases of expired shards deleted");
        }
        Ok(SyncReport {
            shards: shards.len(),
            vanished: plan.vanished,
        })
    }
}

#[cfg(test)]
mod tests;
