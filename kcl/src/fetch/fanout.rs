//! Reads a shard by enhanced fan-out: one subscription after the other, each from where the last record was handed over; and by polling for as
//! long as there is none, so that a shard stands still only when neither works (K10).
//!
//! The [`Poller`] keeps the place for both, so going from one to the other loses and repeats nothing (K4, K5, K6).

use crate::checkpoint::Position;
use crate::client::retry::backoff;
use crate::client::{KinesisApi, SubscribeRequest, Subscription, SubscriptionEvent};
use crate::clock::{self, Instant};
use crate::config::PAGE_RESERVATION_BYTES;
use crate::error::{Error, ErrorKind};
use crate::fetch::polling::{PollSettings, Polled, Poller};
use crate::fetch::registration::{Absent, Consumer};
use crate::metrics::ShardMetrics;
use crate::status::{Retrieving, Standing};
use std::sync::Arc;
use std::time::Duration;

/// A subscription that pushed nothing for so long is broken: servers push an event every five seconds at least.
pub(crate) const SILENCE: Duration = Duration::from_secs(12);
/// The rest of an event that has begun may take this long.
const EVENT_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a subscription may take to begin.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(5);
/// A subscription that lived this long was sound: what failed before it does not count any more.
const SOUND: Duration = Duration::from_secs(30);
/// Failures in a row that are routine: a subscription just ended is in the way of the next for five seconds.
const ROUTINE_FAILURES: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_ROUTINE_PAUSE: Duration = Duration::from_secs(5);
/// A pause so short is not worth a poll.
const BRIEF: Duration = Duration::from_millis(200);
/// A poll that takes longer, on a connection that is half-open perhaps, keeps the shard from no subscription.
const POLL_TIMEOUT: Duration = Duration::from_secs(3);
/// The pause after more failures than that, or after one that trying again does not mend; doubled for every one after it.
const FALL_BACK_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_mins(10);

/// The reading end of one shard.
#[derive(Debug)]
pub(crate) struct FanOut {
    client: Arc<dyn KinesisApi>,
    shard_id: String,
    consumer: Arc<Consumer>,
    /// Keeps the place, and reads while there is no subscription.
    poller: Poller,
    open: Option<Open>,
    failures: u32,
    /// No subscription is tried for before.
    retry_at: Instant,
    standing: Arc<Standing>,
}

/// A subscription at work.
#[derive(Debug)]
struct Open {
    subscription: Box<dyn Subscription>,
    since: Instant,
    /// When the last event was taken.
    heard: Instant,
}

/// Why there is no subscription.
enum Refused {
    /// There is no consumer to subscribe with.
    Absent(Absent),
    Failed(Error),
}

impl FanOut {
    /// Reads what comes after `start`.
    pub(crate) fn new(
        client: Arc<dyn KinesisApi>,
        settings: PollSettings,
        start: Position,
        consumer: Arc<Consumer>,
    ) -> Self {
        FanOut {
            shard_id: settings.shard_id.clone(),
            poller: Poller::new(Arc::clone(&client), settings, start),
            client,
            consumer,
            open: None,
            failures: 0,
            retry_at: clock::now(),
            standing: Arc::default(),
        }
    }

    /// Counts what is read.
    pub(crate) fn measured(self, metrics: ShardMetrics) -> Self {
        let poller = self.poller.measured(metrics);
        FanOut { poller, ..self }
    }

    pub(crate) fn standing(&self) -> Arc<Standing> {
        Arc::clone(&self.standing)
    }

    /// Waits until an event begins to arrive, if there is a subscription; gives the bytes that what is read next takes at most, about.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn ready(&mut self) -> u32 {
        match &mut self.open {
            // A subscription found broken is seen to when it is polled, and has nothing to read.
            Some(open) => u32::try_from(open.begun().await.unwrap_or(0)).unwrap_or(u32::MAX),
            None => PAGE_RESERVATION_BYTES,
        }
    }

    /// The next event, or, without a subscription, the next page.
    pub(crate) async fn poll(&mut self) -> Polled {
        if self.open.is_none() && self.retry_at <= clock::now() {
            self.subscribe().await;
        }
        match self.open.take() {
            Some(open) => self.listen(open).await,
            None => self.poll_instead().await,
        }
    }

    /// The end of the shard turned out not to be one: read on, after a pause.
    pub(crate) fn restart(&mut self, error: Error) -> Polled {
        self.open = None;
        self.failed(&error);
        self.poller.restart(error)
    }

    async fn poll_instead(&mut self) -> Polled {
        let left = self.retry_at.saturating_duration_since(clock::now());
        if left < BRIEF {
            return Polled::Nothing(left);
        }
        // A poll that is given up has changed nothing.
        let poll = tokio::time::timeout(left.max(POLL_TIMEOUT), self.poller.poll());
        let Ok(polled) = poll.await else {
            return Polled::Nothing(Duration::ZERO);
        };
        let left = self.retry_at.saturating_duration_since(clock::now());
        match polled {
            // The pause at the tip may be longer than that before a subscription is worth a try.
            Polled::Page(page, pause) => Polled::Page(page, pause.min(left)),
            Polled::Nothing(pause) => Polled::Nothing(pause.min(left)),
            Polled::Failed(error, pause) => Polled::Failed(error, pause),
        }
    }

    async fn subscribe(&mut self) {
        match self.begin().await {
            Ok(subscription) => {
                let now = clock::now();
                self.open = Some(Open {
                    subscription,
                    since: now,
                    heard: now,
                });
                if self.failures > ROUTINE_FAILURES {
                    tracing::info!(shard = self.shard_id, "read by enhanced fan-out again");
                }
                self.standing.set(Retrieving::FanOut);
            }
            Err(Refused::Absent(Absent { reason, again_at })) => {
                self.retry_at = again_at;
                self.standing.set(Retrieving::PollingInstead { reason });
            }
            Err(Refused::Failed(error)) => self.failed(&error),
        }
    }

    async fn begin(&mut self) -> Result<Box<dyn Subscription>, Refused> {
        let start = self.poller.place().map_err(Refused::Failed)?;
        let arn = self.consumer.arn().await.map_err(Refused::Absent)?;
        let request = SubscribeRequest {
            consumer_arn: &arn,
            shard_id: &self.shard_id,
            start,
        };
        let begun = tokio::time::timeout(SUBSCRIBE_TIMEOUT, self.client.subscribe(request)).await;
        let begun = begun.unwrap_or_else(|_| {
            let message = format!("no subscription within {SUBSCRIBE_TIMEOUT:?}");
            Err(Error::new(ErrorKind::Unavailable, message))
        });
        begun.map_err(|error| {
            if error.kind() == ErrorKind::NotFound {
                self.consumer.doubt(&arn);
            }
            Refused::Failed(error)
        })
    }

    async fn listen(&mut self, mut open: Open) -> Polled {
        match open.next().await {
            Some(Ok(event)) => {
                let ends = event.continuation.is_none();
                match self.poller.take_pushed(event) {
                    Ok(page) => {
                        if !ends {
                            self.open = Some(open);
                        }
                        Polled::Page(page, Duration::ZERO)
                    }
                    Err(error) => self.over(&open, Some(error)),
                }
            }
            Some(Err(error)) => self.over(&open, Some(error)),
            None => self.over(&open, None),
        }
    }

    /// A subscription is over, in order or with an error: the next one is tried for at once, or after a pause if one after the other ends early.
    fn over(&mut self, open: &Open, error: Option<Error>) -> Polled {
        let now = clock::now();
        let was_sound = now - open.since >= SOUND;
        if was_sound {
            self.failures = 0;
        }
        match error {
            None if was_sound => self.retry_at = now,
            error => {
                let early = || Error::new(ErrorKind::Unavailable, "a subscription ended early");
                self.failed(&error.unwrap_or_else(early));
                if self.failures == 1 {
                    self.retry_at = now;
                }
            }
        }
        Polled::Nothing(Duration::ZERO)
    }

    /// Plans the next try; tells when it will be a while.
    fn failed(&mut self, error: &Error) {
        let was_routine = self.failures <= ROUTINE_FAILURES;
        self.failures = self.failures.saturating_add(1);
        if !is_passing(error.kind()) {
            self.failures = self.failures.max(ROUTINE_FAILURES + 1);
        }
        let pause = match self.failures.saturating_sub(ROUTINE_FAILURES) {
            0 => backoff(FIRST_PAUSE, LONGEST_ROUTINE_PAUSE, self.failures),
            beyond => backoff(FALL_BACK_PAUSE, LONGEST_PAUSE, beyond),
        };
        let pause = pause.mul_f64(0.5 + 0.5 * fastrand::f64());
        self.retry_at = clock::now() + pause;
        let shard = &self.shard_id;
        if self.failures <= ROUTINE_FAILURES {
            tracing::debug!(%error, shard, ?pause, "no subscription to the shard, it is polled meanwhile");
        } else if was_routine {
            tracing::warn!(%error, shard, ?pause, "enhanced fan-out does not work, the shard is polled; it is tried again");
        }
        let reason = error.to_string();
        self.standing.set(Retrieving::PollingInstead { reason });
    }
}

/// Whether trying again soon may help.
fn is_passing(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::Unavailable | ErrorKind::Throttled | ErrorKind::Expired => true,
        // A consumer or a shard that is gone, a caller who may not, an answer that makes no sense, a client that cannot.
        _ => false,
    }
}

impl Open {
    /// Waits for the next event to begin; the bytes it takes, or `None` if the subscription has been silent for too long.
    async fn begun(&mut self) -> Option<usize> {
        // What has arrived counts, however late it is looked at.
        let begun = tokio::time::timeout_at(self.heard + SILENCE, self.subscription.begun());
        begun.await.ok()
    }

    async fn next(&mut self) -> Option<Result<SubscriptionEvent, Error>> {
        let silent = |span: Duration| {
            let message = format!("a subscription pushed nothing for {span:?}");
            Some(Err(Error::new(ErrorKind::Unavailable, message)))
        };
        if self.begun().await.is_none() {
            return silent(SILENCE);
        }
        let event = tokio::time::timeout(EVENT_TIMEOUT, self.subscription.next()).await;
        self.heard = clock::now();
        event.unwrap_or_else(|_| silent(EVENT_TIMEOUT))
    }
}

#[cfg(test)]
mod tests;
