//! The worker: registers, takes its share of the leases, runs a shard consumer for each, and gives them up in order.
//!
//! Three tasks: the loop that decides, the heartbeat, which nothing may delay (K2), and the listing of the shards, which may
//! be slow. Whoever drops the future of [`Worker::run`] ends them all.

mod builder;
mod held;
mod run;
#[cfg(test)]
mod tests;

pub use builder::WorkerBuilder;

use crate::client::{KinesisApi, StreamSummary};
use crate::config::{InitialPosition, WorkerConfig};
use crate::error::Error;
use crate::fetch::registration::Consumer;
use crate::lease::LeaseStore;
use crate::processor::RecordProcessorFactory;
use crate::shard::deliver::{FailureHandling, GivenUp};
use crate::status::{Board, ShardStatus};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Processes the shards of one stream together with the other workers of the application.
pub struct Worker<F> {
    config: WorkerConfig,
    components: Components,
    factory: Arc<F>,
    beginning: Beginning,
    handle: WorkerHandle,
    /// Tells the handles when the worker is gone, whether it ran or not.
    done: DropGuard,
}

/// What a worker works with, beside its settings and the user's code.
struct Components {
    client: Arc<dyn KinesisApi>,
    store: Arc<dyn LeaseStore>,
    failures: FailureHandling,
    board: Arc<Board>,
}

/// The stream as it was when the worker was built.
struct Beginning {
    stream: StreamSummary,
    /// Under LATEST the shards that were open before `stream.server_time_ms`: each may hold records that came after it,
    /// even if it is closed by the time the shards are listed (K4).
    open: BTreeSet<String>,
    /// The consumer to read by, under enhanced fan-out.
    consumer: Option<Arc<Consumer>>,
}

impl Beginning {
    async fn of(client: &Arc<dyn KinesisApi>, config: &WorkerConfig) -> Result<Self, Error> {
        let stream = client.describe_stream(&config.stream).await?;
        let consumer = match config.consumer_name() {
            Some(name) => Some(Consumer::register(client, &stream, name).await),
            None => None,
        };
        if config.initial_position != InitialPosition::Latest || stream.status == "CREATING" {
            let open = BTreeSet::new();
            return Ok(Beginning {
                stream,
                open,
                consumer,
            });
        }
        let shards = client.list_shards(&config.stream).await?;
        let open = shards.into_iter().filter(|shard| !shard.closed);
        let open = open.map(|shard| shard.shard_id).collect();
        let stream = client.describe_stream(&config.stream).await?;
        Ok(Beginning {
            stream,
            open,
            consumer,
        })
    }
}

impl<F> fmt::Debug for Worker<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Worker<()> {
    /// A worker of `application` on a stream, given by name or ARN.
    pub fn builder(application: impl Into<String>, stream: impl Into<String>) -> WorkerBuilder {
        WorkerBuilder::new(application, stream)
    }
}

impl<F: RecordProcessorFactory> Worker<F> {
    /// A handle to stop the worker with.
    pub fn handle(&self) -> WorkerHandle {
        self.handle.clone()
    }

    /// Works until it is told to shut down, or cannot go on.
    ///
    /// # Errors
    /// `WorkerReplaced`: another process registered under this worker id. `NotFound`: the stream is gone or was created
    /// anew. `Processor`: a record processor failed and the [`ErrorPolicy`](crate::ErrorPolicy) says to stop; the text names the shard, the records and how often they failed, and the
    /// source is the processor's error. The leases are released, that one before the records that failed. `Store`, `AccessDenied` and others of the start: the worker could not begin. A store or endpoint that is out of reach later is waited for.
    ///
    /// # Cancel safety
    /// Dropping the future is like a crash: no callback runs, the leases expire, and what was not checkpointed is delivered again
    /// elsewhere. Nothing is lost. Use [`WorkerHandle::shutdown`] to hand over without duplicates.
    pub async fn run(self) -> Result<(), Error> {
        let Worker {
            config,
            components,
            factory,
            beginning,
            handle,
            done,
        } = self;
        let running = run::Run::start(config, components, factory, beginning).await?;
        let ended = running.until(handle.asked).await;
        drop(done);
        ended
    }
}

/// Records that a worker gave up since it was built, as its [`ErrorPolicy`](crate::ErrorPolicy) said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Records skipped.
    pub skipped: u64,
    /// Records that the dead letter queue accepted.
    pub dead_letters: u64,
}

/// Stops a worker from elsewhere, and tells of it; clones are of the same one.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    asked: CancellationToken,
    done: CancellationToken,
    given_up: Arc<GivenUp>,
    board: Arc<Board>,
}

impl WorkerHandle {
    fn new() -> Self {
        WorkerHandle {
            asked: CancellationToken::new(),
            done: CancellationToken::new(),
            given_up: Arc::default(),
            board: Arc::default(),
        }
    }

    /// Asks for a graceful shutdown: every shard finishes its batch, `shutdown_requested` is called, and the leases are released with
    /// their last checkpoints. Returns at once; [`Worker::run`] returns when it is done.
    pub fn shutdown(&self) {
        self.asked.cancel();
    }

    /// How many records were given up so far.
    pub fn counts(&self) -> Counts {
        Counts {
            skipped: self.given_up.skipped.load(Ordering::Relaxed),
            dead_letters: self.given_up.dead_lettered.load(Ordering::Relaxed),
        }
    }

    /// What each shard that this worker holds is doing, and for how long: why one does not move. In order of the shards' ids. Of a shard that it
    /// does not hold, [`why`](crate::lease::why::why) tells.
    pub fn shards(&self) -> Vec<ShardStatus> {
        self.board.read()
    }

    /// Asks for a graceful shutdown and waits until the worker is gone.
    ///
    /// # Cancel safety
    /// The shutdown goes on when the future is dropped.
    pub async fn shutdown_and_wait(&self) {
        self.asked.cancel();
        self.done.cancelled().await;
    }
}
