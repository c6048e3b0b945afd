//! The stream service as plain Rust: streams, shards and records, usable without HTTP.
//!
//! Metadata changes are planned from the catalog by pure functions and applied as one log transaction
//! each, one at a time. Records go straight to the log; its committer orders them and decides races with
//! a reshard (S5).

mod call_rates;
pub mod catalog;
mod consumers;
mod error;
mod faults;
mod iterator;
pub mod options;
mod pages;
mod put;
mod read;
mod reshard;
mod retention;
mod scale;
mod settings;
mod streams;
mod subscription;
#[cfg(test)]
pub(crate) mod tests;
mod throttle;

pub use call_rates::RateError;
pub use consumers::NewConsumer;
pub use error::{ConsumerError, Error, RetentionChange};
pub use faults::Probability;
pub use pages::PageShare;
pub(crate) use pages::{PAGE_MAX_BYTES, RECORD_COST_BYTES};
pub(crate) use put::least_sequence;
pub use put::{Placed, PutEntry, Refusal};
pub use read::{Page, ReadRecord, Start};
pub use settings::{
    AccountLimits, MetricsChange, SettingError, ShardBound, WarmThroughput, shards_for,
    shards_when_new,
};
pub use streams::NewStream;
pub use subscription::{Pushed, Subscription, Target};
pub use throttle::Limits;

use crate::clock::SharedClock;
use crate::log::{Log, Transaction};
use crate::patience::Patience;
use call_rates::CallRates;
use catalog::{Catalog, Shard, Status, Stream};
use faults::Faults;
use millstream_wire::StreamArn;
use pages::Pages;
use reshard::Moment;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use subscription::Subscriptions;
use throttle::Throttle;

/// Settings of the engine.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Whether AWS's limits on shards, calls and accounts hold.
    pub limits: Limits,
    /// How long a stream stays CREATING, UPDATING or DELETING, milliseconds.
    pub state_delay_ms: u64,
    /// How often calls on shards are refused for no reason but to see what clients do.
    pub error_probability: Probability,
    /// What the records of all pages may take beside their data, from when they are read until they are encoded, bytes.
    pub page_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            limits: Limits::default(),
            state_delay_ms: 0,
            error_probability: Probability::default(),
            page_bytes: 64 << 20,
        }
    }
}

/// The stream service. Cheap to clone. With it goes the patience of who uses it: how long a call waits for room.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
    patience: Patience,
}

#[derive(Debug)]
struct Inner {
    log: Log<Catalog>,
    clock: SharedClock,
    settings: Settings,
    throttle: Throttle,
    call_rates: CallRates,
    pages: Pages,
    /// Records that the service spreads over shards, counted.
    spread: AtomicU64,
    subscriptions: Arc<Subscriptions>,
    /// Held from the plan of a metadata change until it is durable, so that plans never race. A tokio
    /// mutex because it is held across the commit.
    metadata_turn: Arc<tokio::sync::Mutex<()>>,
}

impl Engine {
    /// The service over an open log.
    pub fn new(log: Log<Catalog>, clock: SharedClock, settings: Settings) -> Engine {
        // Which calls are struck differs from start to start.
        let faults = Faults::new(settings.error_probability, fastrand::u64(..));
        let inner = Inner {
            log,
            clock,
            settings,
            throttle: Throttle::new(settings.limits, faults),
            call_rates: CallRates::new(settings.limits),
            pages: Pages::new(settings.page_bytes),
            spread: AtomicU64::new(0),
            subscriptions: Arc::default(),
            metadata_turn: Arc::default(),
        };
        Engine {
            inner: Arc::new(inner),
            patience: Patience::default(),
        }
    }

    /// The service for a request with this patience.
    #[must_use]
    pub fn within(&self, patience: Patience) -> Engine {
        Engine {
            inner: Arc::clone(&self.inner),
            patience,
        }
    }

    /// The log, with the patience of who uses this.
    fn log(&self) -> Log<Catalog> {
        self.inner.log.within(&self.patience)
    }

    /// Now, milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.inner.clock.now_ms()
    }

    /// The catalog as of the last durable change.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.inner.log.metadata()
    }

    /// Whether writes are refused because a write or sync failed.
    pub fn is_poisoned(&self) -> bool {
        self.inner.log.is_poisoned()
    }

    /// The stream, in whatever state.
    pub fn stream(&self, arn: &StreamArn) -> Result<Arc<Stream>, Error> {
        let found = self.catalog().stream(arn, self.now_ms()).cloned();
        found.ok_or_else(|| Error::StreamNotFound(arn.clone()))
    }

    /// The stream, if its shards and consumers can be listed: in any state but CREATING and DELETING.
    pub fn ready_stream(&self, arn: &StreamArn) -> Result<Arc<Stream>, Error> {
        let stream = self.stream(arn)?;
        check_ready(&stream, self.now_ms())?;
        Ok(stream)
    }

    /// The stream, if it is ACTIVE and can be changed.
    pub fn active_stream(&self, arn: &StreamArn) -> Result<Arc<Stream>, Error> {
        active(&self.catalog(), arn, self.moment()).cloned()
    }

    /// Finishes what was accepted and closes the log.
    pub async fn close(&self) {
        self.inner.log.close().await;
    }

    fn moment(&self) -> Moment {
        let now_ms = self.now_ms();
        Moment {
            now_ms,
            state_delay_ms: self.inner.settings.state_delay_ms,
            closing_ms: now_ms,
        }
    }

    /// The moment, for a change that closes shards of the stream.
    fn closing(&self, stream: &Stream, moment: Moment) -> Moment {
        let newest_ms = |shard: &Shard| {
            let tail = self.inner.log.tail(shard.log_shard());
            let newest_ms = tail.map_or(0, |tail| tail.last_time_ms);
            newest_ms.max(stream.opened_ms(shard))
        };
        let latest_ms = stream.open_shards().map(newest_ms).max();
        Moment {
            closing_ms: moment.now_ms.max(latest_ms.unwrap_or_default()),
            ..moment
        }
    }

    /// Plans from the current catalog and applies the plan; `None` changes nothing. Once the plan is
    /// made the change happens even if the caller goes away.
    async fn transact(
        &self,
        plan: impl FnOnce(&Catalog, Moment) -> Result<Option<Transaction>, Error>,
    ) -> Result<Arc<Catalog>, Error> {
        let turn = Arc::clone(&self.inner.metadata_turn).lock_owned().await;
        let catalog = self.catalog();
        let Some(transaction) = plan(&catalog, self.moment())? else {
            return Ok(catalog);
        };
        let log = self.log();
        let commit = tokio::spawn(async move {
            let result = log.commit(transaction).await;
            drop(turn);
            result
        });
        match commit.await {
            Ok(result) => result.map_err(Error::from),
            Err(_) => Err(Error::Log(crate::log::Error::Closed)),
        }
    }
}

/// Whether a stream is ready for its readers, which it is while it is UPDATING as well.
fn check_ready(stream: &Stream, now_ms: u64) -> Result<(), Error> {
    match stream.status(now_ms) {
        Some(Status::Active | Status::Updating) => Ok(()),
        Some(status) => Err(Error::StreamNotActive {
            arn: stream.arn.clone(),
            status,
        }),
        None => Err(Error::StreamNotFound(stream.arn.clone())),
    }
}

/// The stream if it is ACTIVE.
fn active<'a>(
    catalog: &'a Catalog,
    arn: &StreamArn,
    moment: Moment,
) -> Result<&'a Arc<Stream>, Error> {
    let not_found = || Error::StreamNotFound(arn.clone());
    let stream = catalog.stream(arn, moment.now_ms).ok_or_else(not_found)?;
    match stream.status(moment.now_ms).ok_or_else(not_found)? {
        Status::Active => Ok(stream),
        status => Err(Error::StreamNotActive {
            arn: arn.clone(),
            status,
        }),
    }
}
