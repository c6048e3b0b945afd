//! Subscriptions of registered consumers to shards: who holds one, and the events it gets.
//!
//! A subscription has no task of its own. Who holds it asks for the next event, and nothing is read
//! before that; while it waits it is a few timers and a place among those the shard wakes.

use crate::engine::catalog::{Catalog, Shard, Status, Stream};
use crate::engine::consumers::find;
use crate::engine::error::ConsumerError;
use crate::engine::put::sequence_number;
use crate::engine::read::{ReadRecord, Slice};
use crate::engine::{Engine, Error, Limits, Start};
use crate::log::{LogShard, ReadLimit, ReadShare};
use crate::patience::Patience;
use millstream_wire::limits::{
    SHARD_READ_BYTES_PER_SECOND, SUBSCRIBE_CALLS_PER_SECOND, SUBSCRIPTION_EVENT_MAX_BYTES,
    SUBSCRIPTION_EVENT_MAX_RECORDS, SUBSCRIPTION_EVENT_SECONDS, SUBSCRIPTION_SECONDS,
    SUBSCRIPTION_TAKEOVER_SECONDS,
};
use millstream_wire::{ConsumerArn, ConsumerName, SequenceNumber, ShardId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

const LIFETIME: Duration = Duration::from_secs(SUBSCRIPTION_SECONDS);
const PROTECTED: Duration = Duration::from_secs(SUBSCRIPTION_TAKEOVER_SECONDS);
const EVENT_INTERVAL: Duration = Duration::from_secs(SUBSCRIPTION_EVENT_SECONDS);
const CALL_INTERVAL: Duration = Duration::from_millis(1_000 / SUBSCRIBE_CALLS_PER_SECOND);

/// What a subscription pushes.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// Records in order; none while there is nothing new.
    pub records: Vec<ReadRecord>,
    /// After the last record and before the next: where another subscription goes on, at or after it.
    /// `None` at the end of a closed shard.
    pub continuation: Option<SequenceNumber>,
    /// How far its end is behind the tip, milliseconds.
    pub millis_behind_latest: u64,
    /// The children of a closed shard, at its end.
    pub children: Vec<Shard>,
    /// What the records take of the memory for reading, to be kept until they are encoded.
    pub share: ReadShare,
}

/// What a subscription would be for: consumer, shard and place, all found.
#[derive(Debug)]
pub struct Target {
    consumer: ConsumerArn,
    registered_ms: u64,
    shard: ShardId,
    log_shard: LogShard,
    counter: u64,
}

/// An active subscription; dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    engine: Engine,
    target: Target,
    /// `None` once it is over: the place is free.
    place: Option<Place>,
    ends_at: Instant,
    /// When an event is sent even if there is nothing new.
    due_at: Instant,
    /// When what was pushed is paid for, at AWS's bytes per second.
    paid_at: Instant,
}

impl Engine {
    /// Finds what a subscription would be for, and changes nothing.
    pub async fn subscription_target(
        &self,
        consumer: &ConsumerArn,
        shard: &str,
        start: Start,
    ) -> Result<Target, Error> {
        let catalog = self.catalog();
        let now_ms = self.now_ms();
        let (stream, registered) = find(&catalog, &consumer.stream, &consumer.name, now_ms)?;
        let is_same = registered.created_ms / 1_000 == consumer.created_seconds;
        match registered.status(now_ms) {
            Some(Status::Active) if is_same => {}
            Some(status) if is_same => {
                let consumer = consumer.clone();
                return Err(ConsumerError::NotActive { consumer, status }.into());
            }
            _ => return Err(not_found(consumer)),
        }
        let shard_not_found = || Error::ShardNotFound {
            arn: consumer.stream.clone(),
            shard: shard.to_owned(),
        };
        let id: ShardId = shard.parse().map_err(|_| shard_not_found())?;
        let shard = self.readable_shard(stream, id, now_ms);
        let shard = shard.ok_or_else(shard_not_found)?;
        Ok(Target {
            consumer: consumer.clone(),
            registered_ms: registered.created_ms,
            shard: id,
            log_shard: shard.log_shard(),
            counter: self.position(stream, shard, start).await?,
        })
    }

    /// Begins a subscription; one of the same consumer to the same shard that is old enough ends.
    pub fn subscribe(&self, target: Target) -> Result<Subscription, Error> {
        let limits = self.inner.settings.limits;
        let key = (target.log_shard, target.consumer.name.clone());
        let subscriptions = Arc::clone(&self.inner.subscriptions);
        let place = subscriptions.claim(key, limits).map_err(|refused| {
            let (consumer, shard) = (target.consumer.clone(), target.shard);
            match refused {
                Refused::Young => ConsumerError::Subscribed { consumer, shard },
                Refused::TooFast => ConsumerError::SubscribesTooFast { consumer, shard },
            }
        })?;
        let now = Instant::now();
        Ok(Subscription {
            // Each event waits anew, as it belongs to no request.
            engine: self.within(Patience::default()),
            target,
            place: Some(place),
            ends_at: now + LIFETIME,
            due_at: now,
            paid_at: now,
        })
    }
}

impl Subscription {
    /// Bytes of data and keys in one event at most.
    pub fn event_max_bytes(&self) -> usize {
        let stream = self.engine.stream(&self.target.consumer.stream);
        stream.map_or(SUBSCRIPTION_EVENT_MAX_BYTES, |stream| {
            SUBSCRIPTION_EVENT_MAX_BYTES.max(stream.max_record_bytes)
        })
    }

    /// Waits until there is something to push, or to say.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn wait(&mut self) {
        let Some(place) = &mut self.place else {
            return;
        };
        let (log, target) = (&self.engine.inner.log, &self.target);
        let records = async {
            sleep_until(self.paid_at).await;
            log.wait_for(target.log_shard, target.counter).await;
        };
        tokio::select! {
            // Fails only without a sender, which is an end as well.
            _ = place.ended.wait_for(Option::is_some) => {}
            () = sleep_until(self.ends_at.min(self.due_at.max(self.paid_at))) => {}
            () = records => {}
        }
    }

    /// The next event; after an error, or the end of a closed shard, or five minutes, `None`.
    ///
    /// # Cancel safety
    /// Dropped early, nothing was taken: the next call gives the same records.
    pub async fn next(&mut self) -> Option<Result<Pushed, Error>> {
        let ended = *self.place.as_ref()?.ended.borrow();
        let outcome = match ended {
            None => self.push().await,
            Some(ended) => Err(self.ended(ended)),
        };
        let goes_on = matches!(&outcome, Ok(Some(pushed)) if pushed.continuation.is_some());
        if !goes_on {
            self.place = None;
        }
        outcome.transpose()
    }

    async fn push(&mut self) -> Result<Option<Pushed>, Error> {
        if Instant::now() >= self.ends_at {
            return Ok(None);
        }
        let slice = self.read().await?;
        let catalog = self.engine.catalog();
        let (_, shard) = self.found(&catalog)?;
        // The end comes by itself: there are clients that look for records only where a continuation is.
        let ends = slice.at_end && slice.records.is_empty();
        let continuation = (!ends).then(|| continuation(shard, &slice));
        self.target.counter = slice.next;
        let now = Instant::now();
        self.due_at = if slice.at_end {
            now
        } else {
            now + EVENT_INTERVAL
        };
        if self.engine.inner.settings.limits == Limits::Aws {
            let micros = slice.bytes.saturating_mul(1_000_000) / SHARD_READ_BYTES_PER_SECOND;
            self.paid_at = self.paid_at.max(now) + Duration::from_micros(micros);
        }
        Ok(Some(Pushed {
            records: slice.records,
            continuation,
            millis_behind_latest: slice.millis_behind_latest,
            children: if ends { slice.children } else { Vec::new() },
            share: slice.share,
        }))
    }

    fn ended(&self, ended: Ended) -> Error {
        match ended {
            Ended::TakenOver => {
                let (consumer, shard) = (self.target.consumer.clone(), self.target.shard);
                ConsumerError::Subscribed { consumer, shard }.into()
            }
            Ended::ConsumerGone => not_found(&self.target.consumer),
        }
    }

    async fn read(&self) -> Result<Slice, Error> {
        let catalog = self.engine.catalog();
        let (stream, shard) = self.found(&catalog)?;
        let limit = ReadLimit {
            records: SUBSCRIPTION_EVENT_MAX_RECORDS,
            bytes: SUBSCRIPTION_EVENT_MAX_BYTES,
        };
        let read = self.engine.slice(stream, shard, self.target.counter, limit);
        let read = read.await;
        read.map_err(|error| error.if_shard_is_gone(|| self.shard_not_found()))
    }

    /// The stream and the shard, if both and the consumer are still those of the beginning.
    fn found<'a>(&self, catalog: &'a Catalog) -> Result<(&'a Stream, &'a Shard), Error> {
        let consumer = &self.target.consumer;
        let now_ms = self.engine.now_ms();
        let (stream, registered) = find(catalog, &consumer.stream, &consumer.name, now_ms)?;
        if registered.created_ms != self.target.registered_ms {
            return Err(not_found(consumer));
        }
        let shard = stream.shards.get(&self.target.shard.0);
        let shard = shard.filter(|shard| shard.log_shard() == self.target.log_shard);
        Ok((stream, shard.ok_or_else(|| self.shard_not_found())?))
    }

    fn shard_not_found(&self) -> Error {
        Error::ShardNotFound {
            arn: self.target.consumer.stream.clone(),
            shard: self.target.shard.to_string(),
        }
    }
}

fn not_found(consumer: &ConsumerArn) -> Error {
    let (stream, name) = (consumer.stream.clone(), consumer.name.clone());
    ConsumerError::NotFound { stream, name }.into()
}

/// A number greater than that of the last record before `slice.next` and less than that of any record
/// after it: the last one's counter, and a later second than its own.
fn continuation(shard: &Shard, slice: &Slice) -> SequenceNumber {
    let counter = slice.next.saturating_sub(1);
    let created_ms = shard.created_seconds.saturating_mul(1_000);
    let time_ms = slice.last_time_ms.max(created_ms).saturating_add(1_000);
    sequence_number(shard, counter, time_ms)
}

/// Every subscription of the server, by shard and consumer.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// A std mutex: held for a look-up only, never across an await.
    held: Mutex<HashMap<Key, Held>>,
}

type Key = (LogShard, ConsumerName);

/// Why a subscription ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Another one of the same consumer to the same shard.
    TakenOver,
    /// The consumer was deregistered.
    ConsumerGone,
}

/// Why a subscription cannot begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// There is another one that is too young to be taken over.
    Young,
    /// The last one began within the second.
    TooFast,
}

/// The latest subscription of a consumer to a shard.
#[derive(Debug)]
struct Held {
    began_at: Instant,
    /// Whose receivers are gone once the subscription has ended.
    end: watch::Sender<Option<Ended>>,
}

/// A subscription's hold on its consumer and shard.
#[derive(Debug)]
struct Place {
    ended: watch::Receiver<Option<Ended>>,
}

impl Held {
    fn is_active(&self) -> bool {
        self.end.receiver_count() > 0
    }
}

impl Subscriptions {
    fn held(&self) -> MutexGuard<'_, HashMap<Key, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim(&self, key: Key, limits: Limits) -> Result<Place, Refused> {
        let now = Instant::now();
        let mut held = self.held();
        if let Some(other) = held.get(&key) {
            let age = now.saturating_duration_since(other.began_at);
            if other.is_active() && age < PROTECTED {
                return Err(Refused::Young);
            }
            if limits == Limits::Aws && age < CALL_INTERVAL {
                return Err(Refused::TooFast);
            }
            other.end.send_replace(Some(Ended::TakenOver));
        }
        let (end, ended) = watch::channel(None);
        let began_at = now;
        held.insert(key, Held { began_at, end });
        Ok(Place { ended })
    }

    /// Ends the subscriptions of a consumer that is deregistered.
    pub(super) fn end_consumer(&self, shards: &[LogShard], name: &ConsumerName) {
        let held = self.held();
        for shard in shards {
            if let Some(held) = held.get(&(*shard, name.clone())) {
                held.end.send_replace(Some(Ended::ConsumerGone));
            }
        }
    }

    /// Forgets those that have ended, so that the map stays as small as what is active.
    pub(super) fn forget_old(&self) {
        let now = Instant::now();
        self.held().retain(|_, held| {
            held.is_active() || now.saturating_duration_since(held.began_at) < CALL_INTERVAL
        });
    }
}

#[cfg(test)]
mod tests;
