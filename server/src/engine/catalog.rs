//! The catalog: streams, shards, consumers and tags as a fold over metadata events. Pure; owns no clock and no I/O.
//!
//! Invariant S4: after every event the open shards of a stream tile the hash key space. It is asserted
//! before an event is written (by the plan) and after it is read (here).

mod open;
mod owners;
mod stored;

use crate::engine::options::{Commitment, Options, Setting};
use crate::log::{LogShard, Metadata, MetadataError};
use millstream_wire::{
    AccountId, ConsumerArn, ConsumerName, HashKey, HashKeyRange, Region, ShardId, StreamArn,
    hash_key,
};
pub(super) use open::{OpenShard, OpenShards};
use owners::Owners;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use stored::{decode, encode, stream_list, text};

/// All streams of all accounts and regions.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Catalog {
    #[serde(with = "stream_list")]
    streams: BTreeMap<Arc<StreamArn>, Arc<Stream>>,
    /// The next log shard; numbers are never reused, so one names a shard of one incarnation of a stream.
    next_log_shard: u64,
    /// Settings of accounts that have any, by [`account_key`].
    #[serde(default)]
    accounts: BTreeMap<String, Commitment>,
    #[serde(skip)]
    owners: Owners,
}

impl PartialEq for Catalog {
    fn eq(&self, other: &Catalog) -> bool {
        // The owners follow from the streams.
        self.streams == other.streams
            && self.next_log_shard == other.next_log_shard
            && self.accounts == other.accounts
    }
}

/// One incarnation of a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    /// Its name, account and region.
    #[serde(with = "text")]
    pub arn: StreamArn,
    /// When it was created, milliseconds since 1970.
    pub created_ms: u64,
    /// A state change that takes time, if one was begun.
    pub change: Option<Change>,
    /// Hours its records stay readable.
    pub retention_hours: u32,
    /// Whether shards are managed by the caller or by the service.
    pub mode: StreamMode,
    /// Data plus partition key of one record at most, in bytes.
    pub max_record_bytes: usize,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Every shard that is not expired, by index.
    pub shards: BTreeMap<u32, Shard>,
    /// The index of the next shard.
    pub next_shard: u32,
    /// Its other settings.
    #[serde(default)]
    pub options: Options,
    /// Its registered consumers, by name.
    #[serde(default)]
    pub consumers: BTreeMap<String, Consumer>,
    /// Open shards in the order of their ranges.
    #[serde(skip)]
    pub(super) open: OpenShards,
}

/// A state that ends by itself at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The state until then.
    pub status: Status,
    /// Milliseconds since 1970.
    pub until_ms: u64,
}

/// A stream's state (model: `StreamStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are AWS's")]
pub enum Status {
    Creating,
    Updating,
    Deleting,
    Active,
}

impl Status {
    /// AWS's name.
    pub fn name(self) -> &'static str {
        match self {
            Status::Creating => "CREATING",
            Status::Updating => "UPDATING",
            Status::Deleting => "DELETING",
            Status::Active => "ACTIVE",
        }
    }
}

/// Who decides on the number of shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamMode {
    /// The caller.
    Provisioned,
    /// The service.
    OnDemand,
}

/// A shard: a range of hash keys for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Its index in the stream.
    pub index: u32,
    /// Where its records are.
    pub log_shard: u64,
    /// First hash key.
    #[serde(with = "text")]
    pub start: HashKey,
    /// Last hash key.
    #[serde(with = "text")]
    pub end: HashKey,
    /// Shard it was split or merged from.
    pub parent: Option<u32>,
    /// The other shard it was merged from.
    pub adjacent_parent: Option<u32>,
    /// When it was created, seconds since 1970; later than its parents (S2).
    pub created_seconds: u64,
    /// When it was closed, milliseconds since 1970.
    pub closed_ms: Option<u64>,
}

impl Shard {
    /// Its id.
    pub fn id(&self) -> ShardId {
        ShardId(self.index)
    }
    /// Its share of the space.
    pub fn range(&self) -> HashKeyRange {
        HashKeyRange {
            start: self.start,
            end: self.end,
        }
    }
    /// What putting a record needs of it.
    pub(super) fn opened(&self) -> OpenShard {
        OpenShard {
            index: self.index,
            log_shard: self.log_shard(),
            created_seconds: self.created_seconds,
        }
    }
    /// Where its records are.
    pub fn log_shard(&self) -> LogShard {
        LogShard(self.log_shard)
    }
    /// Whether it takes records.
    pub fn is_open(&self) -> bool {
        self.closed_ms.is_none()
    }
    /// Shards it was split or merged from.
    pub fn parents(&self) -> impl Iterator<Item = u32> {
        self.parent.into_iter().chain(self.adjacent_parent)
    }
    /// Whether it was split or merged from `index`.
    pub fn is_child_of(&self, index: u32) -> bool {
        self.parent == Some(index) || self.adjacent_parent == Some(index)
    }
}

/// A registered consumer of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumer {
    /// Its name.
    #[serde(with = "text")]
    pub name: ConsumerName,
    /// When it was registered, milliseconds since 1970.
    pub created_ms: u64,
    /// A state change that takes time, if one was begun.
    pub change: Option<Change>,
    /// Its tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Its resource policy.
    #[serde(default)]
    pub policy: Option<String>,
}

impl Consumer {
    /// Its state at `now_ms`; `None` once it is gone.
    pub fn status(&self, now_ms: u64) -> Option<Status> {
        status(self.change, now_ms)
    }

    /// Its ARN, as a consumer of `stream`.
    pub fn arn(&self, stream: &StreamArn) -> ConsumerArn {
        ConsumerArn {
            stream: stream.clone(),
            name: self.name.clone(),
            created_seconds: self.created_ms / 1_000,
        }
    }
}

/// The state at `now_ms` of what is ACTIVE unless a change says otherwise; `None` once it is gone.
fn status(change: Option<Change>, now_ms: u64) -> Option<Status> {
    match change {
        Some(change) if now_ms < change.until_ms => Some(change.status),
        Some(Change {
            status: Status::Deleting,
            ..
        }) => None,
        _ => Some(Status::Active),
    }
}

/// What changes the catalog; persisted, so variants and fields are only ever added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// A stream came to be.
    StreamCreated(Box<Stream>),
    /// A stream is going away; it is gone when its change is over.
    StreamDeleting {
        /// The stream.
        #[serde(with = "text")]
        arn: StreamArn,
        /// When it is gone.
        gone_ms: u64,
    },
    /// A stream is gone.
    StreamRemoved {
        /// The stream.
        #[serde(with = "text")]
        arn: StreamArn,
    },
    /// Shards were closed and others opened in their place.
    Resharded {
        /// The stream.
        #[serde(with = "text")]
        arn: StreamArn,
        /// Shards closed.
        parents: Vec<u32>,
        /// Shards opened.
        children: Vec<Shard>,
        /// When the parents were closed.
        closed_ms: u64,
        /// When the stream is ACTIVE again.
        active_ms: u64,
    },
    /// The retention changed.
    RetentionSet {
        /// The stream.
        #[serde(with = "text")]
        arn: StreamArn,
        /// The new retention.
        hours: u32,
        /// When the stream is ACTIVE again.
        active_ms: u64,
    },
    /// Tags were set and removed.
    TagsChanged {
        /// The stream.
        #[serde(with = "text")]
        arn: StreamArn,
        /// Tags to set.
        set: BTreeMap<String, String>,
        /// Keys to remove.
        remove: Vec<String>,
    },
    /// Settings of a stream changed.
    StreamSet {
        /// The stream.
        #[serde(with = "text")]
        arn: StreamArn,
        /// The new settings.
        settings: Vec<Setting>,
        /// When the stream is ACTIVE again, if it says that it is being changed.
        active_ms: Option<u64>,
    },
    /// An account's commitment changed.
    AccountSet {
        /// The account.
        #[serde(with = "text")]
        account: AccountId,
        /// The region.
        #[serde(with = "text")]
        region: Region,
        /// The commitment.
        commitment: Commitment,
    },
    /// Several events at once.
    Several(Vec<Event>),
    /// Closed shards left the retention.
    ShardsExpired {
        /// The stream.
        #[serde(with = "text")]
        arn: StreamArn,
        /// Shards that are gone.
        shards: Vec<u32>,
    },
    /// A consumer was registered, in place of one of its name that was gone.
    ConsumerRegistered {
        /// Its stream.
        #[serde(with = "text")]
        arn: StreamArn,
        /// The consumer.
        consumer: Consumer,
    },
    /// A consumer was given other tags or another policy.
    ConsumerSet {
        /// Its stream.
        #[serde(with = "text")]
        arn: StreamArn,
        /// Its name.
        #[serde(with = "text")]
        name: ConsumerName,
        /// All its tags from now on.
        tags: BTreeMap<String, String>,
        /// Its policy from now on.
        policy: Option<String>,
    },
    /// A consumer is going away; it is gone when its change is over.
    ConsumerDeregistering {
        /// Its stream.
        #[serde(with = "text")]
        arn: StreamArn,
        /// Its name.
        #[serde(with = "text")]
        name: ConsumerName,
        /// When it is gone.
        gone_ms: u64,
    },
    /// A consumer is gone.
    ConsumerRemoved {
        /// Its stream.
        #[serde(with = "text")]
        arn: StreamArn,
        /// Its name.
        #[serde(with = "text")]
        name: ConsumerName,
    },
}

impl Event {
    /// The stored form: a version byte, then JSON.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }
}

fn deleting(gone_ms: u64) -> Change {
    Change {
        status: Status::Deleting,
        until_ms: gone_ms,
    }
}

impl Stream {
    fn register(&mut self, consumer: Consumer) {
        self.consumers.insert(consumer.name.to_string(), consumer);
    }

    fn registered(&mut self, name: &ConsumerName) -> Result<&mut Consumer, MetadataError> {
        let unknown = || MetadataError(format!("{} has no consumer {name}", self.arn));
        self.consumers.get_mut(name.as_str()).ok_or_else(unknown)
    }

    fn retain_hours(&mut self, hours: u32, active_ms: u64) {
        self.retention_hours = hours;
        self.change = Some(Change {
            status: Status::Updating,
            until_ms: active_ms,
        });
    }

    /// Its state at `now_ms`; `None` once it is gone.
    pub fn status(&self, now_ms: u64) -> Option<Status> {
        status(self.change, now_ms)
    }

    /// The consumer of that name, unless it is gone at `now_ms`.
    pub fn consumer(&self, name: &ConsumerName, now_ms: u64) -> Option<&Consumer> {
        let stored = self.consumers.get(name.as_str());
        stored.filter(|consumer| consumer.status(now_ms).is_some())
    }

    /// The consumers that are there at `now_ms`, by name.
    pub fn listed_consumers(&self, now_ms: u64) -> impl Iterator<Item = &Consumer> {
        self.consumers
            .values()
            .filter(move |consumer| consumer.status(now_ms).is_some())
    }

    /// The open shard that owns `key`.
    pub fn shard_of(&self, key: HashKey) -> Option<&Shard> {
        let open = self.open.get(self.open.place_of(key)?)?;
        self.shards.get(&open.index)
    }

    /// Since when a shard takes records: since its parents were closed, though its sequence numbers begin with a later
    /// second.
    pub fn opened_ms(&self, shard: &Shard) -> u64 {
        if shard.parents().next().is_none() {
            return shard.created_seconds.saturating_mul(1_000);
        }
        let parents = shard.parents().filter_map(|p| self.shards.get(&p));
        // A parent that is not there any more left the retention: the shard was there all the time.
        let closed_ms = parents.filter_map(|parent| parent.closed_ms);
        closed_ms.max().unwrap_or_default()
    }

    /// Open shards in the order of their ranges.
    pub fn open_shards(&self) -> impl Iterator<Item = &Shard> {
        let open = self.open.iter();
        open.filter_map(|open| self.shards.get(&open.index))
    }

    /// How many shards are open.
    pub fn open_shard_count(&self) -> usize {
        self.open.len()
    }

    /// The oldest time whose records are still served, milliseconds since 1970.
    pub fn trim_horizon_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(u64::from(self.retention_hours) * 3_600_000)
    }

    /// Shards whose records may still be served at `now_ms`, by index: none while it is CREATING.
    pub fn listed_shards(&self, now_ms: u64) -> impl Iterator<Item = &Shard> {
        let horizon = self.trim_horizon_ms(now_ms);
        let shards = (!self.is_creating(now_ms)).then(|| self.shards.values());
        shards
            .into_iter()
            .flatten()
            .filter(move |shard| shard.closed_ms.is_none_or(|closed| closed >= horizon))
    }

    /// Whether it does not show its shards yet.
    pub fn is_creating(&self, now_ms: u64) -> bool {
        self.status(now_ms) == Some(Status::Creating)
    }

    /// Shards that were split or merged from `index`.
    pub fn children_of(&self, index: u32) -> impl Iterator<Item = &Shard> {
        self.shards
            .values()
            .filter(move |shard| shard.is_child_of(index))
    }

    /// Every log shard of the stream.
    pub fn log_shards(&self) -> Vec<LogShard> {
        self.shards.values().map(Shard::log_shard).collect()
    }

    fn reindex(&mut self) -> Result<(), MetadataError> {
        let open = self.shards.values().filter(|shard| shard.is_open());
        self.open = OpenShards::new(open.map(|shard| (shard.start, shard.opened())));
        let ranges: Vec<_> = self.open_shards().map(Shard::range).collect();
        if hash_key::tiles(&ranges) {
            Ok(())
        } else {
            Err(MetadataError(format!(
                "the open shards of {} do not tile the hash key space",
                self.arn
            )))
        }
    }
}

impl Catalog {
    /// The stream of that name, unless it is gone at `now_ms`.
    pub fn stream(&self, arn: &StreamArn, now_ms: u64) -> Option<&Arc<Stream>> {
        self.streams
            .get(arn)
            .filter(|stream| stream.status(now_ms).is_some())
    }

    /// The stream of that name even if it is gone and only waits to be removed.
    pub fn stored_stream(&self, arn: &StreamArn) -> Option<&Arc<Stream>> {
        self.streams.get(arn)
    }

    /// Every stored stream, ordered by ARN.
    pub fn stored_streams(&self) -> impl Iterator<Item = &Arc<Stream>> {
        self.streams.values()
    }

    /// The streams of an account in a region that are there at `now_ms`, ordered by name.
    pub fn streams_of<'a>(
        &'a self,
        account: &'a AccountId,
        region: &'a Region,
        now_ms: u64,
    ) -> impl Iterator<Item = &'a Arc<Stream>> {
        self.streams.values().filter(move |stream| {
            stream.arn.account == *account
                && stream.arn.region == *region
                && stream.status(now_ms).is_some()
        })
    }

    /// The stream and shard whose records are in `log_shard`.
    pub fn owner_of(&self, log_shard: LogShard) -> Option<(&Arc<Stream>, ShardId)> {
        let (arn, index) = self.owners.find(log_shard)?;
        let stream = self.streams.get(arn)?;
        let shard = stream.shards.get(&index)?;
        (shard.log_shard() == log_shard).then(|| (stream, shard.id()))
    }

    /// The commitment of an account in a region.
    pub fn commitment(&self, account: &AccountId, region: &Region) -> Commitment {
        let stored = self.accounts.get(&account_key(account, region));
        stored.copied().unwrap_or_default()
    }

    /// Accounts and regions that have settings.
    pub fn account_count(&self) -> usize {
        self.accounts.len()
    }

    /// The number the next new log shard gets.
    pub fn next_log_shard(&self) -> u64 {
        self.next_log_shard
    }

    fn existing(&mut self, arn: &StreamArn) -> Result<&mut Stream, MetadataError> {
        match self.streams.get_mut(arn) {
            Some(stream) => Ok(Arc::make_mut(stream)),
            None => Err(MetadataError(format!(
                "event for {arn}, which does not exist"
            ))),
        }
    }

    fn adopt<'s>(&mut self, arn: &Arc<StreamArn>, shards: impl Iterator<Item = &'s Shard> + Clone) {
        let last = shards.clone().map(|shard| shard.log_shard + 1).max();
        self.next_log_shard = self.next_log_shard.max(last.unwrap_or_default());
        self.owners.adopt(arn, shards);
    }

    fn fold(&mut self, event: Event) -> Result<(), MetadataError> {
        match event {
            Event::StreamCreated(stream) => self.create(*stream),
            Event::StreamDeleting { arn, gone_ms } => {
                self.existing(&arn)?.change = Some(deleting(gone_ms));
                Ok(())
            }
            Event::StreamRemoved { arn } => self.remove(&arn),
            Event::Resharded {
                arn,
                parents,
                children,
                closed_ms,
                active_ms,
            } => self.reshard(&arn, &parents, children, closed_ms, active_ms),
            Event::RetentionSet {
                arn,
                hours,
                active_ms,
            } => {
                self.existing(&arn)?.retain_hours(hours, active_ms);
                Ok(())
            }
            Event::TagsChanged { arn, set, remove } => {
                let stream = self.existing(&arn)?;
                stream.tags.extend(set);
                stream.tags.retain(|key, _| !remove.contains(key));
                Ok(())
            }
            Event::StreamSet {
                arn,
                settings,
                active_ms,
            } => self.set(&arn, settings, active_ms),
            Event::AccountSet {
                account,
                region,
                commitment,
            } => {
                self.accounts
                    .insert(account_key(&account, &region), commitment);
                Ok(())
            }
            Event::Several(events) => events.into_iter().try_for_each(|one| self.fold(one)),
            Event::ConsumerRegistered { arn, consumer } => {
                self.existing(&arn).map(|stream| stream.register(consumer))
            }
            Event::ConsumerDeregistering { arn, name, gone_ms } => {
                self.existing(&arn)?.registered(&name)?.change = Some(deleting(gone_ms));
                Ok(())
            }
            Event::ConsumerSet {
                arn,
                name,
                tags,
                policy,
            } => {
                let consumer = self.existing(&arn)?.registered(&name)?;
                (consumer.tags, consumer.policy) = (tags, policy);
                Ok(())
            }
            Event::ConsumerRemoved { arn, name } => {
                self.existing(&arn)?.consumers.remove(name.as_str());
                Ok(())
            }
            Event::ShardsExpired { arn, shards } => self.expire(&arn, &shards),
        }
    }

    fn set(
        &mut self,
        arn: &StreamArn,
        settings: Vec<Setting>,
        active_ms: Option<u64>,
    ) -> Result<(), MetadataError> {
        let stream = self.existing(arn)?;
        for setting in settings {
            stream.set(setting);
        }
        if let Some(until_ms) = active_ms {
            let status = Status::Updating;
            stream.change = Some(Change { status, until_ms });
        }
        Ok(())
    }

    fn remove(&mut self, arn: &StreamArn) -> Result<(), MetadataError> {
        self.existing(arn)?;
        self.streams.remove(arn);
        self.owners.forget(arn);
        Ok(())
    }

    fn expire(&mut self, arn: &StreamArn, shards: &[u32]) -> Result<(), MetadataError> {
        let stream = self.existing(arn)?;
        let gone: BTreeSet<u32> = shards.iter().copied().collect();
        stream.shards.retain(|index, _| !gone.contains(index));
        stream.reindex()?;
        if let Some(stream) = self.streams.get(arn) {
            self.owners.forget_expired(stream);
        }
        Ok(())
    }

    fn create(&mut self, mut stream: Stream) -> Result<(), MetadataError> {
        if self.streams.contains_key(&stream.arn) {
            return Err(MetadataError(format!("{} was created twice", stream.arn)));
        }
        stream.reindex()?;
        let arn = Arc::new(stream.arn.clone());
        self.adopt(&arn, stream.shards.values());
        self.streams.insert(arn, Arc::new(stream));
        Ok(())
    }

    fn reshard(
        &mut self,
        arn: &StreamArn,
        parents: &[u32],
        children: Vec<Shard>,
        closed_ms: u64,
        active_ms: u64,
    ) -> Result<(), MetadataError> {
        let key = self.streams.get_key_value(arn);
        if let Some(arn) = key.map(|(arn, _)| Arc::clone(arn)) {
            self.adopt(&arn, children.iter());
        }
        let stream = self.existing(arn)?;
        for parent in parents {
            let unknown = || MetadataError(format!("shard {parent} of {arn} does not exist"));
            stream.shards.get_mut(parent).ok_or_else(unknown)?.closed_ms = Some(closed_ms);
        }
        for child in children {
            stream.next_shard = stream.next_shard.max(child.index + 1);
            stream.shards.insert(child.index, child);
        }
        stream.change = Some(Change {
            status: Status::Updating,
            until_ms: active_ms,
        });
        stream.reindex()
    }
}

fn account_key(account: &AccountId, region: &Region) -> String {
    format!("{account}/{region}")
}

impl Metadata for Catalog {
    fn apply(&mut self, event: &[u8]) -> Result<(), MetadataError> {
        self.fold(decode(event)?)
    }

    fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, MetadataError> {
        let mut catalog: Catalog = decode(bytes)?;
        for (arn, stream) in &mut catalog.streams {
            let stream = Arc::make_mut(stream);
            stream.reindex()?;
            catalog.owners.adopt(arn, stream.shards.values());
        }
        Ok(catalog)
    }
}
