//! Where a shard's pages come from: polling, or subscriptions.

use crate::checkpoint::Position;
use crate::client::KinesisApi;
use crate::config::PAGE_RESERVATION_BYTES;
use crate::error::Error;
use crate::fetch::fanout::FanOut;
use crate::fetch::polling::{PollSettings, Polled, Poller};
use crate::metrics::ShardMetrics;
use crate::status::Standing;
use std::sync::Arc;

/// The source of one shard's pages.
#[derive(Debug)]
pub(crate) enum Source {
    Polling(Box<Poller>),
    FanOut(Box<FanOut>),
}

impl From<Poller> for Source {
    fn from(poller: Poller) -> Self {
        Source::Polling(Box::new(poller))
    }
}

impl Source {
    /// Reads what comes after `start`, by the settings' consumer if there is one.
    pub(crate) fn new(
        client: Arc<dyn KinesisApi>,
        settings: PollSettings,
        start: Position,
    ) -> Self {
        match settings.consumer.clone() {
            None => Poller::new(client, settings, start).into(),
            Some(consumer) => {
                let fan_out = FanOut::new(client, settings, start, consumer);
                Source::FanOut(Box::new(fan_out))
            }
        }
    }

    /// Counts what is read.
    pub(crate) fn measured(self, metrics: ShardMetrics) -> Self {
        match self {
            Source::Polling(poller) => poller.measured(metrics).into(),
            Source::FanOut(fan_out) => Source::FanOut(Box::new(fan_out.measured(metrics))),
        }
    }

    /// How the shard is read, for as long as the source lives.
    pub(crate) fn standing(&self) -> Arc<Standing> {
        match self {
            Source::Polling(_) => Arc::default(),
            Source::FanOut(fan_out) => fan_out.standing(),
        }
    }

    /// Waits until something can be read, where that is known beforehand; gives the bytes it takes at most, about.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn ready(&mut self) -> u32 {
        match self {
            Source::Polling(_) => PAGE_RESERVATION_BYTES,
            Source::FanOut(fan_out) => fan_out.ready().await,
        }
    }

    /// The next thing that comes of reading.
    pub(crate) async fn poll(&mut self) -> Polled {
        match self {
            Source::Polling(poller) => poller.poll().await,
            Source::FanOut(fan_out) => fan_out.poll().await,
        }
    }

    /// What came of it when the shard's end turned out not to be one.
    pub(crate) fn restart(&mut self, error: Error) -> Polled {
        match self {
            Source::Polling(poller) => poller.restart(error),
            Source::FanOut(fan_out) => fan_out.restart(error),
        }
    }
}
