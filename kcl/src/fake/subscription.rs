//! Enhanced fan-out of the fake Kinesis: registered consumers and subscriptions that push, end after five minutes, are taken over, and go wrong on
//! demand.

use super::{FakeKinesis, State, not_found, shard_id};
use crate::client::{
    RecordsPage, StreamConsumer, SubscribeRequest, Subscription, SubscriptionEvent,
};
use crate::clock::{self, Instant};
use crate::error::{Error, ErrorKind};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::watch;

const LIFETIME: Duration = Duration::from_mins(5);
const EVENT_INTERVAL: Duration = Duration::from_secs(5);
/// A subscription younger than this is not taken over.
const PROTECTED: Duration = Duration::from_secs(5);
/// Records in an event at most.
const EVENT_RECORDS: usize = 10;

#[derive(Debug, Default)]
pub(super) struct Pushing {
    /// By ARN, and when each is active.
    pub(super) consumers: BTreeMap<String, Instant>,
    /// How long a new consumer is CREATING.
    creating: Duration,
    refused_registration: Option<ErrorKind>,
    /// How the next subscriptions are refused, the last one first.
    refusals: Vec<ErrorKind>,
    /// How every subscription is refused.
    refused: Option<ErrorKind>,
    /// The newest subscription of each consumer to each shard.
    held: BTreeMap<(String, usize), Held>,
    /// Subscriptions that push nothing any more, and whose end the server does not see.
    silent: BTreeSet<u64>,
    /// Subscriptions whose connection breaks.
    cut: BTreeSet<u64>,
    /// Each subscription begins with the record before its start.
    repeats: bool,
    begun: u64,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    id: u64,
    began: Instant,
}

impl State {
    pub(super) fn register(
        &mut self,
        stream_arn: &str,
        name: &str,
    ) -> Result<StreamConsumer, Error> {
        if let Some(kind) = self.pushing.refused_registration {
            return Err(Error::new(kind, "a registration refused on demand"));
        }
        let prefix = format!("{stream_arn}/consumer/{name}:");
        let consumers = &mut self.pushing.consumers;
        let known = consumers.keys().find(|arn| arn.starts_with(&prefix));
        let arn = known.cloned().unwrap_or_else(|| {
            let arn = format!("{prefix}{}", self.created_ms / 1000);
            consumers.insert(arn.clone(), clock::now() + self.pushing.creating);
            arn
        });
        self.consumer(&arn)
    }

    pub(super) fn consumer(&self, arn: &str) -> Result<StreamConsumer, Error> {
        let active_at = self.pushing.consumers.get(arn);
        let active_at = active_at.ok_or_else(|| not_found("consumer"))?;
        let is_active = *active_at <= clock::now();
        Ok(StreamConsumer {
            arn: arn.to_owned(),
            status: if is_active { "ACTIVE" } else { "CREATING" }.to_owned(),
        })
    }
}

impl FakeKinesis {
    pub(super) fn begin(
        &self,
        request: SubscribeRequest<'_>,
    ) -> Result<Box<dyn Subscription>, Error> {
        let mut state = self.lock();
        let demanded = state.pushing.refusals.pop();
        if let Some(kind) = demanded.or(state.pushing.refused) {
            return Err(Error::new(kind, "a subscription refused on demand"));
        }
        let busy = |text: &str| Err(Error::new(ErrorKind::Unavailable, text.to_owned()));
        if !state.consumer(request.consumer_arn)?.is_active() {
            return busy("the consumer is not active");
        }
        let mut shards = state.shards.iter();
        let is_it = |id: &str, outlived: bool| id == request.shard_id && !outlived;
        let shard = shards
            .position(|found| is_it(&found.shard.shard_id, found.outlived))
            .ok_or_else(|| not_found("shard"))?;
        let now = clock::now();
        let key = (request.consumer_arn.to_owned(), shard);
        if let Some(held) = state.pushing.held.get(&key)
            && now < held.began + PROTECTED
        {
            return busy("there is a subscription to the shard");
        }
        let at = state.shards[shard].place(request.start);
        let at = at.saturating_sub(usize::from(state.pushing.repeats));
        state.pushing.begun += 1;
        let id = state.pushing.begun;
        state
            .pushing
            .held
            .insert(key.clone(), Held { id, began: now });
        state.wake();
        Ok(Box::new(FakeSubscription {
            kinesis: self.clone(),
            created_ms: state.created_ms,
            changed: state.changed.subscribe(),
            key,
            id,
            at,
            ends_at: now + LIFETIME,
            due_at: now,
        }))
    }

    /// How long a consumer is CREATING that is registered from now on.
    pub(crate) fn create_consumers_in(&self, creating: Duration) {
        self.lock().pushing.creating = creating;
    }

    /// Sets how registrations are refused, if they are.
    pub(crate) fn refuse_registration(&self, refused: Option<ErrorKind>) {
        self.lock().pushing.refused_registration = refused;
    }

    /// Sets how every subscription is refused, if it is, and ends those there are; or refuses none any more.
    pub(crate) fn refuse_subscriptions(&self, refused: Option<ErrorKind>) {
        {
            let pushing = &mut self.lock().pushing;
            pushing.refused = refused;
            pushing.refusals.clear();
        }
        if refused.is_some() {
            self.cut_subscriptions();
        }
    }

    /// The next subscriptions are refused like this, the last one first.
    pub(crate) fn refuse_next(&self, refusals: &[ErrorKind]) {
        self.lock().pushing.refusals.extend_from_slice(refusals);
    }

    /// Connections of the subscriptions there are become half-open.
    pub(crate) fn silence_subscriptions(&self) {
        let mut state = self.lock();
        let ids: Vec<u64> = state.pushing.held.values().map(|held| held.id).collect();
        state.pushing.silent.extend(ids);
    }

    /// Connections of the subscriptions there are break.
    pub(crate) fn cut_subscriptions(&self) {
        let mut state = self.lock();
        let ids: Vec<u64> = state.pushing.held.values().map(|held| held.id).collect();
        state.pushing.cut.extend(ids);
        state.pushing.held.clear();
        state.wake();
    }

    /// Somebody else takes every subscription over that is old enough, and goes away at once.
    pub(crate) fn take_over_subscriptions(&self) {
        let mut state = self.lock();
        let now = clock::now();
        let is_young = |_: &(String, usize), held: &mut Held| now < held.began + PROTECTED;
        state.pushing.held.retain(is_young);
        state.wake();
    }

    /// Somebody deregisters all consumers.
    pub(crate) fn deregister_consumers(&self) {
        let mut state = self.lock();
        state.pushing.consumers.clear();
        state.wake();
    }

    /// Each subscription begins with the record before its start.
    pub(crate) fn repeat_a_record(&self) {
        self.lock().pushing.repeats = true;
    }

    /// Subscriptions begun so far.
    pub(crate) fn subscriptions(&self) -> u64 {
        self.lock().pushing.begun
    }
}

#[derive(Debug)]
struct FakeSubscription {
    kinesis: FakeKinesis,
    created_ms: u64,
    changed: watch::Receiver<u64>,
    key: (String, usize),
    id: u64,
    at: usize,
    ends_at: Instant,
    due_at: Instant,
}

impl FakeSubscription {
    /// Why it is over, if it is.
    fn end(&self, state: &State) -> Option<Result<(), Error>> {
        let is_held = |held: &Held| held.id == self.id;
        let is_held = state.pushing.held.get(&self.key).is_some_and(is_held);
        let gone = |text: &str| Some(Err(Error::new(ErrorKind::Unavailable, text.to_owned())));
        if state.missing || state.created_ms != self.created_ms {
            return Some(Err(not_found("stream")));
        }
        if !state.pushing.consumers.contains_key(&self.key.0) {
            return Some(Err(not_found("consumer")));
        }
        if state.shards[self.key.1].outlived {
            return Some(Err(not_found("shard")));
        }
        if state.pushing.cut.contains(&self.id) {
            return gone("the connection broke");
        }
        if !is_held {
            return gone("another subscription took over");
        }
        (self.ends_at <= clock::now()).then_some(Ok(()))
    }

    /// Whether there is something to say.
    fn is_ready(&self) -> bool {
        let state = self.kinesis.lock();
        if state.pushing.silent.contains(&self.id) {
            return state.pushing.cut.contains(&self.id);
        }
        let found = &state.shards[self.key.1];
        let has_more = self.at < found.records.len() || found.shard.closed;
        has_more || self.due_at <= clock::now() || self.end(&state).is_some()
    }

    fn event(&mut self) -> Option<Result<SubscriptionEvent, Error>> {
        let mut state = self.kinesis.lock();
        match self.end(&state) {
            None => {}
            Some(Ok(())) => return None,
            Some(Err(error)) => return Some(Err(error)),
        }
        let shard = self.key.1;
        let found = &state.shards[shard];
        let from = self.at.min(found.records.len());
        let end = found.records.len().min(from + EVENT_RECORDS);
        let records = found.records[from..end].to_vec();
        // The end comes by itself, as with the server.
        let over = found.shard.closed && records.is_empty();
        let children = state.shards.iter().map(|other| &other.shard);
        let children = children.filter(|other| other.parents.contains(&shard_id(shard)));
        let named = over && state.names_children;
        let page = RecordsPage {
            millis_behind_latest: u64::from(end < found.records.len()),
            records,
            next_iterator: (!over).then(String::new),
            children: children.filter(|_| named).cloned().collect(),
        };
        let page = state.trouble.page(shard, page);
        self.at = end;
        self.due_at = clock::now() + EVENT_INTERVAL;
        Some(Ok(SubscriptionEvent {
            records: page.records,
            continuation: page.next_iterator.map(|_| "1".parse().unwrap()),
            millis_behind_latest: page.millis_behind_latest,
            children: page.children,
        }))
    }
}

#[async_trait]
impl Subscription for FakeSubscription {
    async fn begun(&mut self) -> usize {
        loop {
            self.changed.mark_unchanged();
            if self.is_ready() {
                return 1000;
            }
            let is_silent = self.kinesis.lock().pushing.silent.contains(&self.id);
            let next = if is_silent {
                self.ends_at + LIFETIME
            } else {
                self.due_at.min(self.ends_at)
            };
            tokio::select! {
                biased;
                _ = self.changed.changed() => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    async fn next(&mut self) -> Option<Result<SubscriptionEvent, Error>> {
        self.begun().await;
        self.event()
    }
}

impl Drop for FakeSubscription {
    fn drop(&mut self) {
        let mut state = self.kinesis.lock();
        let pushing = &mut state.pushing;
        let is_own = pushing
            .held
            .get(&self.key)
            .is_some_and(|held| held.id == self.id);
        // Of a half-open connection nobody hears that it was closed.
        if is_own && !pushing.silent.contains(&self.id) {
            pushing.held.remove(&self.key);
        }
    }
}
