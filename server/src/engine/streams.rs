//! Changes to streams: create, delete, split, merge, retention, tags.

use crate::engine::catalog::{
    Catalog, Change, Event, OpenShards, Shard, Status, Stream, StreamMode,
};
use crate::engine::error::ConsumerError;
use crate::engine::options::Options;
use crate::engine::reshard::{self, Moment};
use crate::engine::{Engine, Error, Limits, RetentionChange, active, settings};
use crate::log::Transaction;
use millstream_wire::limits::{
    RETENTION_MAX_HOURS, RETENTION_MIN_HOURS, SHARDS_PER_ACCOUNT, SHARDS_PER_NODE,
    SHARDS_STORED_PER_NODE, STREAMS_COMING_AND_GOING, TAGS_PER_STREAM,
};
use millstream_wire::{HashKey, ShardId, StreamArn};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

/// A stream to be created.
#[derive(Debug, Clone)]
pub struct NewStream {
    /// Its name, account and region.
    pub arn: StreamArn,
    /// Its first shards.
    pub shards: NonZeroU32,
    /// Who decides on the number of shards.
    pub mode: StreamMode,
    /// Hours its records stay readable.
    pub retention_hours: u32,
    /// Data plus partition key of one record at most, bytes.
    pub max_record_bytes: usize,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl Engine {
    /// Creates a stream.
    pub async fn create_stream(&self, new: NewStream) -> Result<(), Error> {
        self.create_stream_with(new, Options::default()).await
    }

    /// Creates a stream with settings of its own.
    pub async fn create_stream_with(&self, new: NewStream, options: Options) -> Result<(), Error> {
        // A deleted stream whose DELETING time is over may still be stored under this name.
        self.remove_if_gone(&new.arn).await?;
        let limits = self.inner.settings.limits;
        self.transact(move |catalog, moment| {
            if catalog.stored_stream(&new.arn).is_some() {
                return Err(Error::StreamExists(new.arn));
            }
            check_coming_and_going(catalog, limits, &new.arn, moment)?;
            let requested = usize::try_from(new.shards.get()).unwrap_or(usize::MAX);
            settings::check_new(catalog, limits, &new, &options, moment)?;
            check_shard_limit(catalog, limits, (&new.arn, new.mode), requested, moment)?;
            check_stored_shards(catalog, &new.arn, requested)?;
            check_tags(&new.arn, new.tags.len())?;
            Ok(Some(creation(catalog, new, options, moment)))
        })
        .await?;
        Ok(())
    }

    async fn remove_if_gone(&self, arn: &StreamArn) -> Result<(), Error> {
        let now_ms = self.now_ms();
        let is_gone = |s: &Stream| s.status(now_ms).is_none();
        if !self
            .catalog()
            .stored_stream(arn)
            .is_some_and(|stream| is_gone(stream))
        {
            return Ok(());
        }
        let plan = |catalog: &Catalog, moment: Moment| {
            let stored = catalog.stored_stream(arn);
            Ok(stored
                .filter(|s| s.status(moment.now_ms).is_none())
                .map(|s| removal(s)))
        };
        self.transact(plan).await?;
        Ok(())
    }

    /// Removes every deleted stream whose DELETING time is over.
    pub(super) async fn remove_gone_streams(&self) -> Result<(), Error> {
        let now_ms = self.now_ms();
        let catalog = self.catalog();
        for stream in catalog
            .stored_streams()
            .filter(|s| s.status(now_ms).is_none())
        {
            self.remove_if_gone(&stream.arn).await?;
        }
        Ok(())
    }

    /// Deletes a stream in any state but DELETING. Its registered consumers keep it.
    pub async fn delete_stream(&self, arn: &StreamArn) -> Result<(), Error> {
        self.delete(arn, |stream, now_ms| {
            stream.listed_consumers(now_ms).next().is_none()
        })
        .await
    }

    /// Deletes a stream and its consumers.
    pub async fn delete_stream_and_consumers(&self, arn: &StreamArn) -> Result<(), Error> {
        self.delete(arn, |_, _| true).await
    }

    async fn delete(
        &self,
        arn: &StreamArn,
        may_go: impl Fn(&Stream, u64) -> bool,
    ) -> Result<(), Error> {
        let limits = self.inner.settings.limits;
        self.transact(|catalog, moment| {
            let not_found = || Error::StreamNotFound(arn.clone());
            let stream = catalog.stream(arn, moment.now_ms).ok_or_else(not_found)?;
            match stream.status(moment.now_ms) {
                // Deleting a stream that is being deleted already changes nothing.
                Some(Status::Deleting) | None => Ok(None),
                Some(_) if !may_go(stream, moment.now_ms) => {
                    Err(ConsumerError::KeepStream(arn.clone()).into())
                }
                Some(_) if moment.state_delay_ms == 0 => Ok(Some(removal(stream))),
                Some(status) => {
                    // One that is CREATING counts already.
                    if status != Status::Creating {
                        check_coming_and_going(catalog, limits, arn, moment)?;
                    }
                    let gone_ms = moment.settled_ms();
                    Ok(Some(change_only(&Event::StreamDeleting {
                        arn: arn.clone(),
                        gone_ms,
                    })))
                }
            }
        })
        .await?;
        Ok(())
    }

    /// Splits a shard in two at `new_start`.
    pub async fn split_shard(
        &self,
        arn: &StreamArn,
        shard: ShardId,
        new_start: HashKey,
    ) -> Result<(), Error> {
        let limits = self.inner.settings.limits;
        self.transact(|catalog, moment| {
            let stream = active(catalog, arn, moment)?;
            let moment = self.closing(stream, moment);
            settings::check_provisioned(stream)?;
            let plan = reshard::split(catalog, stream, shard, new_start, moment)
                .map_err(|refused| refusal(arn, shard, refused))?;
            check_shard_limit(catalog, limits, (arn, stream.mode), 1, moment)?;
            check_stored_shards(catalog, arn, 2)?;
            Ok(Some(plan))
        })
        .await?;
        Ok(())
    }

    /// Merges a shard with the one whose range begins where its own ends.
    pub async fn merge_shards(
        &self,
        arn: &StreamArn,
        shards: (ShardId, ShardId),
    ) -> Result<(), Error> {
        self.transact(|catalog, moment| {
            let stream = active(catalog, arn, moment)?;
            let moment = self.closing(stream, moment);
            settings::check_provisioned(stream)?;
            let plan =
                reshard::merge(catalog, stream, shards, moment).map_err(
                    |refused| match refused {
                        // AWS has no other words for a closed shard here.
                        reshard::Refused::Closed(_) => Error::NotAdjacent {
                            arn: arn.clone(),
                            first: shards.0,
                            second: shards.1,
                        },
                        refused => refusal(arn, shards.0, refused),
                    },
                )?;
            check_stored_shards(catalog, arn, 1)?;
            Ok(Some(plan))
        })
        .await?;
        Ok(())
    }

    /// Raises or lowers the retention; setting the current value again changes nothing.
    pub async fn set_retention(
        &self,
        arn: &StreamArn,
        requested: i64,
        direction: RetentionChange,
    ) -> Result<(), Error> {
        self.transact(|catalog, moment| {
            let stream = active(catalog, arn, moment)?;
            let current = stream.retention_hours;
            let refused = Error::BadRetention {
                arn: arn.clone(),
                current,
                requested,
                direction,
            };
            let in_range = u32::try_from(requested)
                .ok()
                .filter(|hours| (RETENTION_MIN_HOURS..=RETENTION_MAX_HOURS).contains(hours));
            match (in_range, direction) {
                (Some(hours), _) if hours == current => Ok(None),
                (Some(hours), RetentionChange::Increase) if hours > current => {
                    Ok(Some(retention_change(arn, hours, moment)))
                }
                (Some(hours), RetentionChange::Decrease) if hours < current => {
                    Ok(Some(retention_change(arn, hours, moment)))
                }
                _ => Err(refused),
            }
        })
        .await?;
        Ok(())
    }

    /// Sets tags and removes others. The model: "you can't make any updates to the tags until the stream is
    /// in ACTIVE state".
    pub async fn change_tags(
        &self,
        arn: &StreamArn,
        set: BTreeMap<String, String>,
        remove: Vec<String>,
    ) -> Result<(), Error> {
        self.transact(move |catalog, moment| {
            let stream = active(catalog, arn, moment)?;
            check_added_tags(arn, &stream.tags, &set)?;
            Ok(Some(change_only(&Event::TagsChanged {
                arn: arn.clone(),
                set,
                remove,
            })))
        })
        .await?;
        Ok(())
    }
}

fn creation(catalog: &Catalog, new: NewStream, options: Options, moment: Moment) -> Transaction {
    let shards = reshard::first_shards(catalog, new.shards, moment.now_ms);
    let create = shards.iter().map(Shard::log_shard).collect();
    let mut event = creation_event(new, shards, moment);
    if let Event::StreamCreated(stream) = &mut event {
        stream.options = options;
    }
    Transaction {
        create,
        ..change_only(&event)
    }
}

/// The event that brings a stream with `shards` to be.
pub(super) fn creation_event(new: NewStream, shards: Vec<Shard>, moment: Moment) -> Event {
    let change = Change {
        status: Status::Creating,
        until_ms: moment.settled_ms(),
    };
    Event::StreamCreated(Box::new(Stream {
        arn: new.arn,
        created_ms: moment.now_ms,
        change: Some(change),
        retention_hours: new.retention_hours,
        mode: new.mode,
        max_record_bytes: new.max_record_bytes,
        tags: new.tags,
        shards: shards
            .into_iter()
            .map(|shard| (shard.index, shard))
            .collect(),
        next_shard: new.shards.get(),
        options: Options::default(),
        consumers: BTreeMap::new(),
        open: OpenShards::default(),
    }))
}

fn removal(stream: &Stream) -> Transaction {
    let event = Event::StreamRemoved {
        arn: stream.arn.clone(),
    };
    Transaction {
        drop: stream.log_shards(),
        ..change_only(&event)
    }
}

fn retention_change(arn: &StreamArn, hours: u32, moment: Moment) -> Transaction {
    let active_ms = moment.settled_ms();
    change_only(&Event::RetentionSet {
        arn: arn.clone(),
        hours,
        active_ms,
    })
}

/// A transaction that changes the catalog and no shard.
pub(super) fn change_only(event: &Event) -> Transaction {
    let event = event.encode().into();
    Transaction {
        event,
        create: Vec::new(),
        seal: Vec::new(),
        drop: Vec::new(),
    }
}

/// AWS has few streams of an account appear and disappear at a time.
fn check_coming_and_going(
    catalog: &Catalog,
    limits: Limits,
    arn: &StreamArn,
    moment: Moment,
) -> Result<(), Error> {
    let limit = STREAMS_COMING_AND_GOING;
    let passing = |stream: &&Arc<Stream>| {
        let status = stream.status(moment.now_ms);
        matches!(status, Some(Status::Creating | Status::Deleting))
    };
    let streams = catalog.streams_of(&arn.account, &arn.region, moment.now_ms);
    if limits == Limits::Aws && streams.filter(passing).count() >= limit {
        let arn = arn.clone();
        return Err(Error::ComingAndGoing { arn, limit });
    }
    Ok(())
}

/// AWS's quota is about shards of provisioned streams; a node has a bound for all of them.
pub(super) fn check_shard_limit(
    catalog: &Catalog,
    limits: Limits,
    (arn, mode): (&StreamArn, StreamMode),
    requested: usize,
    moment: Moment,
) -> Result<(), Error> {
    let (limit, quota) = match (limits, mode) {
        (Limits::Aws, StreamMode::Provisioned) => (SHARDS_PER_ACCOUNT, true),
        _ => (SHARDS_PER_NODE, false),
    };
    let streams = catalog.streams_of(&arn.account, &arn.region, moment.now_ms);
    let counted = streams.filter(|stream| !quota || stream.mode == StreamMode::Provisioned);
    let current: usize = counted.map(|stream| stream.open_shard_count()).sum();
    if current.saturating_add(requested) > limit {
        return Err(Error::ShardLimit {
            arn: arn.clone(),
            current,
            requested,
            limit,
        });
    }
    Ok(())
}

/// Bounds what the catalog keeps in memory: closed shards count, and so do those of every region.
pub(super) fn check_stored_shards(
    catalog: &Catalog,
    arn: &StreamArn,
    requested: usize,
) -> Result<(), Error> {
    let streams = catalog.stored_streams();
    let current: usize = streams.map(|stream| stream.shards.len()).sum();
    if current.saturating_add(requested) > SHARDS_STORED_PER_NODE {
        return Err(Error::ShardLimit {
            arn: arn.clone(),
            current,
            requested,
            limit: SHARDS_STORED_PER_NODE,
        });
    }
    Ok(())
}

pub(super) fn check_tags(arn: &StreamArn, count: usize) -> Result<(), Error> {
    if count > TAGS_PER_STREAM {
        return Err(Error::TooManyTags {
            arn: arn.clone(),
            count,
        });
    }
    Ok(())
}

/// Whether what has these tags may be given more.
pub(super) fn check_added_tags(
    arn: &StreamArn,
    tags: &BTreeMap<String, String>,
    added: &BTreeMap<String, String>,
) -> Result<(), Error> {
    let new = added.keys().filter(|key| !tags.contains_key(*key)).count();
    check_tags(arn, tags.len() + new)
}

fn refusal(arn: &StreamArn, shard: ShardId, refused: reshard::Refused) -> Error {
    let arn = arn.clone();
    match refused {
        reshard::Refused::UnknownShard(id) => Error::ShardNotFound {
            arn,
            shard: id.to_string(),
        },
        reshard::Refused::Closed(shard) => Error::ShardClosed { arn, shard },
        reshard::Refused::BadSplitKey(key, range) => Error::BadSplitKey {
            arn,
            shard,
            key,
            range,
        },
        reshard::Refused::NotAdjacent(first, second) => Error::NotAdjacent { arn, first, second },
    }
}
