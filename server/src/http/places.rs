//! How many connections there may be, and how many of them at work: what they take in memory before any request is read.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::HttpConfig;

/// What a connection at rest takes, about: a task, a socket, a timer. It is the unit of places.
pub(crate) const REST_BYTES: usize = 4 * 1024;
/// What an HTTP/1.1 connection at work takes on top: two buffers of 8 KiB, the call's future, and a reserve for a buffer that
/// grew with a body.
pub(crate) const WORK_BYTES: usize = 40 * 1024;
/// Places that TLS takes more, for its buffers and keys.
const TLS_PLACES: usize = 3;
/// Places that HTTP/2 takes more, which never rests.
const HTTP_2_PLACES: usize = 15;

/// Places for connections. A fair semaphore gives them in the order they are asked for.
#[derive(Debug)]
pub(super) struct Places {
    /// For connections, at rest or not.
    all: Arc<Semaphore>,
    max: usize,
    /// For those at work.
    at_work: Arc<Semaphore>,
    /// How long one waits for a place beside the first.
    patience: Duration,
}

impl Places {
    pub(super) fn new(config: &HttpConfig) -> Places {
        let max = config.max_connections.clamp(1, Semaphore::MAX_PERMITS);
        let at_work = config.max_connections_at_work.clamp(1, max);
        Places {
            all: Arc::new(Semaphore::new(max)),
            max,
            at_work: Arc::new(Semaphore::new(at_work)),
            patience: config.header_read_timeout,
        }
    }

    /// A place for the next connection, as soon as there is one.
    pub(super) async fn accept(&self) -> Option<OwnedSemaphorePermit> {
        // Never closed, so this only waits.
        Arc::clone(&self.all).acquire_owned().await.ok()
    }

    /// Whether all places are taken, so that the next connection waits.
    pub(super) fn are_taken(&self) -> bool {
        self.all.available_permits() == 0
    }

    /// Whether all places for those at work are taken, so that others may wait.
    pub(super) fn is_crowded(&self) -> bool {
        self.at_work.available_permits() == 0
    }

    async fn more(&self, places: usize) -> Option<OwnedSemaphorePermit> {
        // Never more than there could be, or it would be waited for in vain.
        let count = u32::try_from(places.min(self.max / 2)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.all).acquire_many_owned(count);
        timeout(self.patience, permit)
            .await
            .ok()
            .and_then(Result::ok)
    }
}

/// A connection's places, and the word when to stop. What it holds comes back when it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    taken: Option<OwnedSemaphorePermit>,
    pub(super) places: Arc<Places>,
    pub(super) shutdown: CancellationToken,
}

impl Held {
    pub(super) fn new(
        taken: Option<OwnedSemaphorePermit>,
        places: Arc<Places>,
        shutdown: CancellationToken,
    ) -> Held {
        Held {
            taken,
            places,
            shutdown,
        }
    }

    /// Takes what TLS takes more; `false` if there is no room.
    pub(super) async fn add_tls(&mut self) -> bool {
        self.add(TLS_PLACES).await
    }

    /// Takes what HTTP/2 takes more; `false` if there is no room.
    pub(super) async fn add_http_2(&mut self) -> bool {
        self.add(HTTP_2_PLACES).await
    }

    async fn add(&mut self, places: usize) -> bool {
        let more = tokio::select! {
            more = self.places.more(places) => more,
            () = self.shutdown.cancelled() => None,
        };
        let is_there = more.is_some();
        match (&mut self.taken, more) {
            (Some(taken), Some(more)) => taken.merge(more),
            (taken, more) => *taken = taken.take().or(more),
        }
        is_there
    }

    /// A place among those at work, within the time there is for the head of a request.
    pub(super) async fn work(&self) -> Option<OwnedSemaphorePermit> {
        let Places {
            at_work, patience, ..
        } = &*self.places;
        if let Ok(place) = Arc::clone(at_work).try_acquire_owned() {
            return Some(place);
        }
        let place = timeout(*patience, Arc::clone(at_work).acquire_owned());
        tokio::select! {
            place = place => place.ok().and_then(Result::ok),
            () = self.shutdown.cancelled() => None,
        }
    }
}
