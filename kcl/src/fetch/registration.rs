//! The consumer that all shards of a worker are subscribed with: registered once, and asked for again when it is not usable.
//!
//! No task of its own: the shards that need it ask, and one question serves them all. It is never deregistered.

use crate::client::retry::backoff;
use crate::client::same_stream::SameStream;
use crate::client::{KinesisApi, StreamConsumer, StreamSummary};
use crate::clock::{self, Instant};
use crate::error::{Error, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long one question may take: shards are polled meanwhile, but the one that asks waits for it.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two looks at a consumer that is being created; longer when it takes long.
const CREATING_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_CREATING_PAUSE: Duration = Duration::from_secs(30);
/// Pause after a refusal; doubled for every one after it.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_REFUSED_PAUSE: Duration = Duration::from_mins(10);
/// How long a shard waits while another one asks.
const ASKED_PAUSE: Duration = Duration::from_millis(200);

/// A registered consumer, or one to be.
#[derive(Debug)]
pub(crate) struct Consumer {
    client: SameStream,
    stream_arn: String,
    name: String,
    /// One short lock around plain data; never held across an await.
    known: Mutex<Known>,
    /// Held by whoever asks. An async mutex because it is held across the call; nobody waits for it.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Known {
    /// Its ARN, once it is registered.
    arn: Option<String>,
    is_active: bool,
    /// Why it cannot be used.
    reason: String,
    /// Not to be asked for before.
    ask_at: Instant,
    /// Questions in a row that did not give an active consumer.
    asked: u32,
}

/// There is no consumer to subscribe with.
#[derive(Debug)]
pub(crate) struct Absent {
    pub(crate) reason: String,
    /// When it is worth another try.
    pub(crate) again_at: Instant,
}

impl Consumer {
    /// Registers the consumer with the stream, or finds it registered; where neither succeeds, later tries will.
    pub(crate) async fn register(
        client: &Arc<dyn KinesisApi>,
        stream: &StreamSummary,
        name: &str,
    ) -> Arc<Consumer> {
        let consumer = Consumer {
            client: SameStream::new(Arc::clone(client), stream.identity()),
            stream_arn: stream.arn.clone(),
            name: name.to_owned(),
            known: Mutex::new(Known {
                arn: None,
                is_active: false,
                reason: "the consumer has not been asked for".to_owned(),
                ask_at: clock::now(),
                asked: 0,
            }),
            asking: tokio::sync::Mutex::default(),
        };
        // What came of it is logged, and known to the shards.
        let _registered = consumer.arn().await;
        Arc::new(consumer)
    }

    /// The ARN of the consumer if it is active. It is asked for where it is not known to be, and the time has come.
    pub(crate) async fn arn(&self) -> Result<String, Absent> {
        if let Some(known) = self.look() {
            return known;
        }
        let Ok(_asking) = self.asking.try_lock() else {
            return Err(Absent {
                reason: "the consumer is being asked for".to_owned(),
                again_at: clock::now() + ASKED_PAUSE,
            });
        };
        let arn = self.known().arn.clone();
        let question = async {
            match &arn {
                None => {
                    let (stream, name) = (&self.stream_arn, &self.name);
                    self.client.register_consumer(stream, name).await
                }
                Some(arn) => self.client.describe_consumer(arn).await,
            }
        };
        let answer = tokio::time::timeout(ASK_TIMEOUT, question).await;
        let answer = answer.unwrap_or_else(|_| {
            let message = format!("no answer within {ASK_TIMEOUT:?}");
            Err(Error::new(ErrorKind::Unavailable, message))
        });
        self.learn(answer);
        self.look().unwrap_or_else(|| {
            Err(Absent {
                reason: self.known().reason.clone(),
                again_at: clock::now() + ASKED_PAUSE,
            })
        })
    }

    /// A subscription was refused because something was not found: perhaps it is the consumer.
    pub(crate) fn doubt(&self, arn: &str) {
        let mut known = self.known();
        if known.arn.as_deref() == Some(arn) && known.is_active {
            known.is_active = false;
            known.ask_at = clock::now() + CREATING_PAUSE;
            "it may be gone".clone_into(&mut known.reason);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known, unless it is time to ask.
    fn look(&self) -> Option<Result<String, Absent>> {
        let known = self.known();
        match &known.arn {
            Some(arn) if known.is_active => Some(Ok(arn.clone())),
            _ if clock::now() < known.ask_at => Some(Err(Absent {
                reason: known.reason.clone(),
                again_at: known.ask_at,
            })),
            _ => None,
        }
    }

    fn learn(&self, answer: Result<StreamConsumer, Error>) {
        let mut known = self.known();
        let (stream, name) = (&self.stream_arn, &self.name);
        known.asked = known.asked.saturating_add(1);
        let pause = match answer {
            Ok(found) if found.is_active() => {
                tracing::info!(consumer = %found.arn, "shards are read by enhanced fan-out");
                known.arn = Some(found.arn);
                known.is_active = true;
                known.asked = 0;
                return;
            }
            Ok(found) => {
                let StreamConsumer { arn, status } = found;
                tracing::info!(consumer = %arn, status, "the consumer is not active yet, shards are polled meanwhile");
                known.reason = format!("consumer {name} is {status}");
                known.arn = Some(arn);
                backoff(CREATING_PAUSE, LONGEST_CREATING_PAUSE, known.asked)
            }
            Err(error) => {
                known.reason = format!("consumer {name} cannot be registered: {error}");
                if error.kind() == ErrorKind::NotFound {
                    // Deregistered, by whomever: to be registered again.
                    known.arn = None;
                }
                let first = match error.kind() {
                    ErrorKind::NotFound => CREATING_PAUSE,
                    kind if kind.is_retryable() => CREATING_PAUSE,
                    _ => REFUSED_PAUSE,
                };
                let pause = backoff(first, LONGEST_REFUSED_PAUSE, known.asked);
                tracing::warn!(%error, stream, consumer = name, ?pause, "no enhanced fan-out: the consumer cannot be registered; shards are polled, and it is tried again");
                pause
            }
        };
        known.ask_at = clock::now() + pause.mul_f64(0.5 + 0.5 * fastrand::f64());
    }
}
