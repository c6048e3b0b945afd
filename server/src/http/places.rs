//! How many connections there may be, and how many of them at work: what they take in memory before any request is read.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
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

/// Those who refuse, as a part of those at work: a refusal takes microseconds, if the client sends what it has begun.
const REFUSING_PART: usize = 16;
/// How long a connection waits in line for a place at work while others get theirs. By then SDKs still wait.
const TURN_WAIT: Duration = Duration::from_secs(1);

/// Places for connections. A fair semaphore gives them in the order they are asked for.
#[derive(Debug)]
pub(super) struct Places {
    /// For connections, at rest or not.
    all: Arc<Semaphore>,
    max: usize,
    /// For those at work.
    at_work: Arc<Semaphore>,
    /// How many of those were given so far.
    given: AtomicUsize,
    /// For those who are at work only to refuse.
    refusing: Arc<Semaphore>,
    /// Rung for those at work who have nothing to do.
    room_is_wanted: Notify,
    /// How long one waits for a place at work while nobody gets one.
    admission_wait: Duration,
    /// How long one waits for a place beside the first.
    patience: Duration,
}

/// A place among those at work, until dropped.
#[derive(Debug)]
pub(super) enum Place {
    Serves {
        #[expect(dead_code, reason = "held, and given back when dropped")]
        place: OwnedSemaphorePermit,
        /// How long it was waited for.
        waited: Duration,
    },
    /// There was none to serve in. What comes is refused.
    Refuses(
        #[expect(dead_code, reason = "held, and given back when dropped")] OwnedSemaphorePermit,
    ),
}

impl Place {
    /// How long one to serve in was waited for.
    pub(super) fn waited(&self) -> Option<Duration> {
        match self {
            Place::Serves { waited, .. } => Some(*waited),
            Place::Refuses(_) => None,
        }
    }
}

impl Places {
    pub(super) fn new(config: &HttpConfig) -> Places {
        let max = config.max_connections.clamp(1, Semaphore::MAX_PERMITS);
        let at_work = config.max_connections_at_work.clamp(1, max);
        let refusing = (at_work / REFUSING_PART).max(1);
        Places {
            all: Arc::new(Semaphore::new(max)),
            max,
            at_work: Arc::new(Semaphore::new(at_work.saturating_sub(refusing).max(1))),
            given: AtomicUsize::new(0),
            refusing: Arc::new(Semaphore::new(refusing)),
            room_is_wanted: Notify::new(),
            admission_wait: config.admission_wait,
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

    /// Waits until somebody has waited for a place at work for a while.
    pub(super) async fn room_is_wanted(&self) {
        self.room_is_wanted.notified().await;
    }

    /// A place to serve in when it is this one's turn. If nobody had a turn for as long as a request waits for room, or it does
    /// not come in a second, also one to refuse in.
    async fn turn(&self) -> Option<Place> {
        let began = Instant::now();
        let mut place = pin!(Arc::clone(&self.at_work).acquire_owned());
        while began.elapsed() < TURN_WAIT {
            let given = self.given.load(Ordering::Relaxed);
            if let Ok(place) = timeout(self.admission_wait / 2, place.as_mut()).await {
                return self.serves(place.ok(), began.elapsed());
            }
            if self.given.load(Ordering::Relaxed) != given {
                continue;
            }
            // Nobody leaves: those without anything to do are asked to.
            self.room_is_wanted.notify_waiters();
            if let Ok(place) = timeout(self.admission_wait / 2, place.as_mut()).await {
                return self.serves(place.ok(), began.elapsed());
            }
            if self.given.load(Ordering::Relaxed) == given {
                break;
            }
        }
        tokio::select! {
            place = place => self.serves(place.ok(), began.elapsed()),
            place = Arc::clone(&self.refusing).acquire_owned() => place.ok().map(Place::Refuses),
        }
    }

    fn serves(&self, place: Option<OwnedSemaphorePermit>, waited: Duration) -> Option<Place> {
        self.given.fetch_add(1, Ordering::Relaxed);
        place.map(|place| Place::Serves { place, waited })
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
    pub(super) async fn work(&self) -> Option<Place> {
        let places = &*self.places;
        if let Ok(place) = Arc::clone(&places.at_work).try_acquire_owned() {
            return places.serves(Some(place), Duration::ZERO);
        }
        tokio::select! {
            place = timeout(places.patience, places.turn()) => place.ok().flatten(),
            () = self.shutdown.cancelled() => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::config;
    use tokio::time::sleep;

    /// So many places at work, one of them to refuse in.
    fn held(max_connections_at_work: usize) -> Held {
        let places = Places::new(&HttpConfig {
            max_connections_at_work,
            ..config()
        });
        Held::new(None, Arc::new(places), CancellationToken::new())
    }

    /// Nobody gets a place: who waits is told so in less than 50 ms. One refuses at a time; the others come to a place to
    /// serve in if there is one first, in the order they came.
    #[tokio::test(start_paused = true)]
    async fn s6_who_waits_while_nobody_gets_a_place_is_refused_in_time() {
        let held = held(2);
        let first = held.work().await.unwrap();
        assert_eq!(first.waited(), Some(Duration::ZERO));
        let began = Instant::now();
        let second = held.work().await.unwrap();
        assert!(matches!(second, Place::Refuses(_)));
        assert!(began.elapsed() < Duration::from_millis(50));
        let leaves = async {
            sleep(Duration::from_secs(3)).await;
            drop(first);
        };
        let (third, ()) = tokio::join!(held.work(), leaves);
        let waited = third.as_ref().and_then(Place::waited);
        assert!(waited >= Some(Duration::from_secs(3)), "{waited:?}");
        drop(second);
        assert!(matches!(held.work().await, Some(Place::Refuses(_))));
    }

    /// While others get their places one waits in line, but no longer than a second.
    #[tokio::test(start_paused = true)]
    async fn s6_who_waits_in_a_line_that_moves_is_not_refused_before_a_second() {
        // Each has its place for 30 ms. So many come in time.
        const EACH: Duration = Duration::from_millis(30);
        let held = Arc::new(held(2));
        let began = Instant::now();
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let held = Arc::clone(&held);
            clients.spawn(async move {
                let place = held.work().await.unwrap();
                let waited = began.elapsed();
                let is_served = place.waited().is_some();
                if is_served {
                    sleep(EACH).await;
                }
                (is_served, waited)
            });
        }
        let mut served = 0;
        while let Some(client) = clients.join_next().await.transpose().unwrap() {
            let (is_served, waited) = client;
            served += u32::from(is_served);
            let in_time = TURN_WAIT + Duration::from_millis(50);
            assert!(waited <= in_time, "{waited:?}");
            assert!(is_served || waited >= TURN_WAIT, "{waited:?}");
        }
        assert!((30..40).contains(&served), "{served}");
    }
}
