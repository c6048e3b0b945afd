//! The streams of a running worker, as its handle shows and changes them.

use super::opening::Opened;
use crate::error::Error;
use crate::shard::served::ServedStream;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::oneshot;

/// Streams that are gone and still shown, at most.
const GONE_MAX: usize = 100;

/// What a worker does with a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamState {
    /// It takes its share of the stream's shards.
    Serving,
    /// It gives its shards up: the stream is being removed.
    Removing,
    /// The stream was deleted, or deleted and created anew; its shards were given up. Add it again to begin with the new stream.
    Gone {
        /// What was found.
        error: String,
    },
}

/// A stream of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamStatus {
    /// Its name.
    pub name: String,
    /// `ARN@creation-milliseconds`: what its leases are filed under.
    pub identity: String,
    /// What the worker does with it.
    pub state: StreamState,
}

/// What the handle asks of the running worker.
pub(super) enum Order {
    /// Serve this stream, too.
    Add(Opened, Reply),
    /// Serve the stream of this name, ARN or identity no more. Answered when its last lease is released.
    Remove(String, Reply),
}

pub(super) type Reply = oneshot::Sender<Result<(), Error>>;

/// The streams of a worker, for its handles to see.
#[derive(Debug, Default)]
pub(super) struct StreamBoard {
    /// By identity. One short lock around plain data, never held across an await.
    streams: Mutex<BTreeMap<String, StreamStatus>>,
}

impl StreamBoard {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<String, StreamStatus>) -> T) -> T {
        act(&mut self.streams.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// It is served; what was known of earlier streams of its name is of no use any more.
    pub(super) fn serving(&self, stream: &ServedStream) {
        let status = StreamStatus {
            name: stream.name.clone(),
            identity: stream.identity.clone(),
            state: StreamState::Serving,
        };
        self.with(|streams| {
            streams.retain(|_, known| {
                known.name != stream.name || !matches!(known.state, StreamState::Gone { .. })
            });
            streams.insert(stream.identity.clone(), status);
        });
    }

    pub(super) fn removing(&self, identity: &str) {
        self.set(identity, StreamState::Removing);
    }

    pub(super) fn gone(&self, identity: &str, error: &Error) {
        let error = error.to_string();
        self.set(identity, StreamState::Gone { error });
        self.with(|streams| {
            let is_gone = |status: &&StreamStatus| matches!(status.state, StreamState::Gone { .. });
            let gone: Vec<String> = streams
                .values()
                .filter(is_gone)
                .map(|status| status.identity.clone())
                .collect();
            for oldest in gone.iter().take(gone.len().saturating_sub(GONE_MAX)) {
                streams.remove(oldest);
            }
        });
    }

    fn set(&self, identity: &str, state: StreamState) {
        self.with(|streams| {
            if let Some(status) = streams.get_mut(identity) {
                status.state = state;
            }
        });
    }

    /// It is not served any more, as was asked for.
    pub(super) fn removed(&self, identity: &str) {
        self.with(|streams| {
            if let Some(status) = streams.get(identity)
                && status.state == StreamState::Removing
            {
                streams.remove(identity);
            }
        });
    }

    pub(super) fn read(&self) -> Vec<StreamStatus> {
        let mut all: Vec<StreamStatus> = self.with(|streams| streams.values().cloned().collect());
        all.sort_by(|one, other| (&one.name, &one.identity).cmp(&(&other.name, &other.identity)));
        all
    }
}
