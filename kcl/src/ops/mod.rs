//! Seeing and steering an application from outside: leases, lag, why a shard does not move, reset and replay, over any lease store.
//!
//! Nothing here needs a worker. It reads what workers write anyway, asks the endpoint, and changes leases in one way only:
//! [`LeaseStore::reset`], which takes them from whoever holds them (K1, K3).
//!
//! ```no_run
//! use kcl::SqliteLeaseStore;
//! use kcl::ops::{Force, Operations, ResetRequest, StartAt};
//! use std::time::Duration;
//!
//! # async fn example() -> Result<(), kcl::Error> {
//! let store = SqliteLeaseStore::open_existing("leases.db").await?;
//! let app = Operations::new(store, "my-app").endpoint("http://127.0.0.1:4567");
//! for lease in app.leases(Duration::from_secs(5)).await?.leases {
//!     println!("{} {:?} {}", lease.shard_id, lease.owner, lease.checkpoint);
//! }
//! println!("{}", app.why("shardId-000000000000", Duration::from_secs(15)).await?);
//! let yesterday = StartAt::Time(kcl::ops::parse_time("2026-01-31T08:00:00Z")?);
//! let request = ResetRequest::new(yesterday, "anna");
//! let planned = app.plan_reset(&request).await?; // changes nothing
//! println!("{} leases would be moved", planned.changes.len());
//! app.reset(&request.force(Force::OnlyIfNobodyLives)).await?;
//! # Ok(())
//! # }
//! ```

mod lag;
mod leases;
mod reset;
#[cfg(test)]
mod tests;
mod time;
mod watch;
mod why;

pub use lag::{LagReport, ShardLag, ShardState};
pub use leases::{LeaseLine, LeaseReport, WorkerLine, WorkerState};
pub use reset::{ChangeLine, Force, NoteLine, ResetReport, ResetRequest, StartAt};
pub use time::{parse_time, rfc3339};
pub use watch::Life;
pub use why::{Reason, Why};

use crate::checkpoint::Position;
use crate::client::{HttpClient, KinesisApi};
use crate::error::{Error, ErrorKind};
use crate::lease::renew::bounded;
use crate::lease::{LeaseStore, Snapshot};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use watch::STORE_LIMIT;

/// Limit on one request to the endpoint.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// One application, as its operators see it.
#[derive(Debug, Clone)]
pub struct Operations {
    store: Arc<dyn LeaseStore>,
    application: String,
    stream: Option<String>,
    endpoint: Option<String>,
    region: Option<String>,
    client: Option<Arc<dyn KinesisApi>>,
}

/// The names of the applications in a store.
///
/// # Errors
/// Those of the store.
pub async fn applications(store: &dyn LeaseStore) -> Result<Vec<String>, Error> {
    bounded(STORE_LIMIT, store.applications()).await
}

impl Operations {
    /// The application of that name in the store.
    pub fn new(store: impl LeaseStore, application: impl Into<String>) -> Self {
        Operations::shared(Arc::new(store), application)
    }

    /// The same in a store that others use, too.
    pub fn shared(store: Arc<dyn LeaseStore>, application: impl Into<String>) -> Self {
        Operations {
            store,
            application: application.into(),
            stream: None,
            endpoint: None,
            region: None,
            client: None,
        }
    }

    /// Only this stream, by name or ARN. Without it: the one that the application has leases of.
    #[must_use]
    pub fn stream(mut self, stream: impl Into<String>) -> Self {
        self.stream = Some(stream.into());
        self
    }

    /// The endpoint's URL; default as for a [`Worker`](crate::Worker).
    #[must_use]
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// The region requests are signed for; default the one in the stream's ARN.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// A client to use instead of one made for the endpoint.
    #[must_use]
    pub fn client(mut self, client: Arc<dyn KinesisApi>) -> Self {
        self.client = Some(client);
        self
    }

    /// Whether leases of that identity are asked for.
    fn concerns(&self, identity: &str) -> bool {
        let Some(wanted) = &self.stream else {
            return true;
        };
        let arn = arn_of(identity);
        arn == wanted || name_of(arn) == wanted
    }

    /// The stream to ask the endpoint about: as named, or the one of the leases.
    fn stream_asked(&self, snapshot: &Snapshot) -> Result<String, Error> {
        if let Some(stream) = &self.stream {
            return Ok(stream.clone());
        }
        let streams: BTreeSet<&str> = snapshot
            .leases
            .iter()
            .map(|lease| arn_of(&lease.key.stream))
            .chain(snapshot.damaged.iter().map(|key| arn_of(&key.stream)))
            .collect();
        let mut streams = streams.into_iter();
        match (streams.next(), streams.next()) {
            (Some(only), None) => Ok(only.to_owned()),
            (None, _) => Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "application {:?} has no leases in this store: check its name, or name the stream",
                    self.application
                ),
            )),
            (Some(one), Some(other)) => Err(Error::new(
                ErrorKind::Configuration,
                format!(
                    "application {:?} has leases of several streams ({}, {}, ...): name one of them",
                    self.application,
                    name_of(one),
                    name_of(other)
                ),
            )),
        }
    }

    fn client_for(&self, stream: &str) -> Result<Arc<dyn KinesisApi>, Error> {
        if let Some(client) = &self.client {
            return Ok(Arc::clone(client));
        }
        let (endpoint, region) = (self.endpoint.as_deref(), self.region.as_deref());
        let client = HttpClient::new(endpoint, region, stream, REQUEST_TIMEOUT)?;
        Ok(Arc::new(client))
    }
}

/// The ARN within a stream's identity.
fn arn_of(identity: &str) -> &str {
    identity.rsplit_once('@').map_or(identity, |(arn, _)| arn)
}

fn name_of(arn: &str) -> &str {
    arn.rsplit_once('/').map_or(arn, |(_, name)| name)
}

/// A position for people: numbers shortened to their last digits, with the time they tell of. [`Position`]'s own text is the stored one.
pub fn readable(position: &Position) -> String {
    let short = |number: &millstream_wire::SequenceNumber| {
        let text = number.to_string();
        let tail = text.len().saturating_sub(12);
        let tail = text.get(tail..).unwrap_or(&text);
        let shown = if tail.len() < text.len() { "..." } else { "" };
        let at = number.origin().and_then(|origin| origin.record_seconds);
        match at {
            Some(seconds) => format!("{shown}{tail} ({})", rfc3339(seconds.saturating_mul(1000))),
            None => format!("{shown}{tail}"),
        }
    };
    match position {
        Position::TrimHorizon => "trim horizon".to_owned(),
        Position::AtTimestamp(ms) => format!("from {}", rfc3339(*ms)),
        Position::AtSequence(number) => format!("at {}", short(number)),
        Position::Sequence {
            sequence,
            sub_sequence: u64::MAX,
        } => format!("after {}", short(sequence)),
        Position::Sequence {
            sequence,
            sub_sequence,
        } => format!("after user record {sub_sequence} of {}", short(sequence)),
        Position::ShardEnd => "end".to_owned(),
    }
}

/// A span for people: `850 ms`, `12 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`.
pub fn span(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0 => format!("{} ms", length.as_millis()),
        1..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min {} s", seconds / 60, seconds % 60),
        7200..=172_799 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}
