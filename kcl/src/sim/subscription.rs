//! Enhanced fan-out of the simulated stream: its consumer, and subscriptions whose events are messages like all others, late, lost and cut off.
//!
//! What a dead or hanging process leaves behind stays in the way of its successor for five seconds, and is then taken over.

use super::kinesis::{ARN, Kinesis};
use super::world::Link;
use crate::client::{IteratorStart, RecordsPage, StreamConsumer, Subscription, SubscriptionEvent};
use crate::clock::{self, Instant};
use crate::error::{Error, ErrorKind};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a new consumer is CREATING.
const CREATING: Duration = Duration::from_secs(2);
const LIFETIME: Duration = Duration::from_mins(5);
const PROTECTED: Duration = Duration::from_secs(5);
const EVENT_INTERVAL: Duration = Duration::from_secs(5);
/// How often the server looks whether there is something to push.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A stream's consumer and who is subscribed with it.
#[derive(Debug, Default)]
pub(super) struct Subscribed {
    /// The consumer's ARN, and when it was registered.
    consumer: Option<(String, Duration)>,
    /// The newest subscription to each shard, and when it began.
    newest: BTreeMap<usize, (u64, Duration)>,
}

/// A subscription, as the server knows it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    created_ms: u64,
    shard: usize,
    at: usize,
    id: u64,
    began: Duration,
}

fn unavailable<T>(what: &str) -> Result<T, Error> {
    Err(Error::new(ErrorKind::Unavailable, what.to_owned()))
}

impl Kinesis {
    pub(super) fn register(&mut self, now: Duration) -> Result<StreamConsumer, Error> {
        let now_ms = self.now_ms(now);
        let is_creating = now < self.creating_until;
        let stream = self.existing(now)?;
        if is_creating {
            return unavailable("the stream is being created");
        }
        let new = || (format!("{ARN}/consumer/app:{}", now_ms / 1000), now);
        let (arn, registered) = stream.subscribed.consumer.get_or_insert_with(new);
        let is_active = *registered + CREATING <= now;
        Ok(StreamConsumer {
            arn: arn.clone(),
            status: if is_active { "ACTIVE" } else { "CREATING" }.to_owned(),
        })
    }

    pub(super) fn consumer(&mut self, now: Duration, arn: &str) -> Result<StreamConsumer, Error> {
        let stream = self.existing(now)?;
        let known = &stream.subscribed.consumer;
        if known.as_ref().is_some_and(|(known, _)| known == arn) {
            return self.register(now);
        }
        Err(Error::new(
            ErrorKind::NotFound,
            format!("no consumer {arn}"),
        ))
    }

    pub(super) fn subscribe(
        &mut self,
        now: Duration,
        arn: &str,
        (shard_id, start): (&str, IteratorStart),
    ) -> Result<Place, Error> {
        if !self.consumer(now, arn)?.is_active() {
            return unavailable("the consumer is not active");
        }
        let iterator = self.iterator(now, shard_id, start)?;
        let mut parts = iterator.split('|').map(|part| part.parse().unwrap());
        let mut part = || usize::try_from(parts.next().unwrap_or(0_u64)).unwrap();
        let (_, shard, at) = (part(), part(), part());
        self.next_subscription += 1;
        let id = self.next_subscription;
        let stream = self.existing(now)?;
        let newest = &mut stream.subscribed.newest;
        if newest
            .get(&shard)
            .is_some_and(|(_, began)| now < *began + PROTECTED)
        {
            return unavailable("there is a subscription to the shard");
        }
        newest.insert(shard, (id, now));
        Ok(Place {
            created_ms: stream.created_ms,
            shard,
            at,
            id,
            began: now,
        })
    }

    /// What there is for a subscription, and where it goes on; nothing when its time is over.
    fn push(
        &mut self,
        now: Duration,
        place: &Place,
    ) -> Result<Option<(RecordsPage, usize)>, Error> {
        let gone = |what: &str| Err(Error::new(ErrorKind::NotFound, what.to_owned()));
        let stream = self.existing(now)?;
        if stream.created_ms != place.created_ms {
            return gone("the stream of the subscription is gone");
        }
        let newest = stream.subscribed.newest.get(&place.shard);
        if newest.is_none_or(|(id, _)| *id != place.id) {
            return unavailable("another subscription took over");
        }
        if place.began + LIFETIME <= now {
            stream.subscribed.newest.remove(&place.shard);
            return Ok(None);
        }
        let page = self.page(now, place.shard, place.at, usize::MAX)?;
        let next = page.next_iterator.as_ref().map(|at| at.parse().unwrap());
        Ok(Some((page, next.unwrap_or(place.at))))
    }
}

/// A subscription as a host sees it.
#[derive(Debug)]
pub(super) struct SimSubscription {
    link: Link,
    place: Place,
    /// When the last event was taken.
    heard: Instant,
    /// What is to be told; no event at the end.
    ready: Option<Result<Option<SubscriptionEvent>, Error>>,
}

impl SimSubscription {
    pub(super) fn new(link: Link, place: Place) -> Self {
        SimSubscription {
            link,
            place,
            heard: clock::now(),
            ready: None,
        }
    }

    async fn look(&mut self) -> Option<Result<Option<SubscriptionEvent>, Error>> {
        let place = self.place.clone();
        let pushed = self
            .link
            .ask(move |world| world.kinesis.push(world.now, &place))
            .await;
        let (page, at) = match pushed {
            Ok(Some(pushed)) => pushed,
            Ok(None) => return Some(Ok(None)),
            Err(error) => return Some(Err(error)),
        };
        let goes_on = page.next_iterator.is_some();
        if page.records.is_empty() && goes_on && clock::now() < self.heard + EVENT_INTERVAL {
            return None;
        }
        self.place.at = at;
        Some(Ok(Some(SubscriptionEvent {
            records: page.records,
            continuation: goes_on.then(|| "1".parse().unwrap()),
            millis_behind_latest: page.millis_behind_latest,
            children: page.children,
        })))
    }
}

#[async_trait]
impl Subscription for SimSubscription {
    async fn begun(&mut self) -> usize {
        while self.ready.is_none() {
            self.ready = self.look().await;
            if self.ready.is_none() {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        }
        1000
    }

    async fn next(&mut self) -> Option<Result<SubscriptionEvent, Error>> {
        self.begun().await;
        self.heard = clock::now();
        self.ready.take()?.transpose()
    }
}
