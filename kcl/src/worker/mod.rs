//! The worker: registers, takes its share of the leases, runs a shard consumer for each, and gives them up in order.
//!
//! Three tasks: the loop that decides, the heartbeat, which nothing may delay (K2), and the listing of the shards, which may
//! be slow. Whoever drops the future of [`Worker::run`] ends them all.

mod builder;
mod held;
mod opening;
mod run;
mod stream_config;
mod streams;
#[cfg(test)]
mod tests;

pub use builder::WorkerBuilder;
pub use stream_config::StreamConfig;
pub use streams::{StreamState, StreamStatus};

use crate::error::{Error, ErrorKind};
use crate::processor::RecordProcessorFactory;
use crate::shard::deliver::GivenUp;
use crate::status::{Board, ShardStatus};
use opening::{Found, Opener};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use streams::{Order, StreamBoard};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Processes the shards of streams together with the other workers of the application.
pub struct Worker<F> {
    opener: Arc<Opener>,
    factory: Arc<F>,
    found: Vec<Found>,
    ordered: mpsc::Receiver<Order>,
    handle: WorkerHandle,
    /// Tells the handles when the worker is gone, whether it ran or not.
    done: DropGuard,
}

impl<F> fmt::Debug for Worker<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("config", &self.opener.config)
            .finish_non_exhaustive()
    }
}

impl Worker<()> {
    /// A worker of `application` on a stream, given by name or ARN. [`WorkerBuilder::also_stream`] adds more.
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
    /// anew (of several streams: the last that was left; see [`WorkerHandle::streams`]). `Processor`: a record processor failed and the [`ErrorPolicy`](crate::ErrorPolicy) says to stop; the text names the shard, the records and how often they failed, and the
    /// source is the processor's error. The leases are released, that one before the records that failed. `Store`, `AccessDenied` and others of the start: the worker could not begin. A store or endpoint that is out of reach later is waited for.
    ///
    /// # Cancel safety
    /// Dropping the future is like a crash: no callback runs, the leases expire, and what was not checkpointed is delivered again
    /// elsewhere. Nothing is lost. Use [`WorkerHandle::shutdown`] to hand over without duplicates.
    pub async fn run(self) -> Result<(), Error> {
        let Worker {
            opener,
            factory,
            found,
            ordered,
            handle,
            done,
        } = self;
        let boards = Boards {
            shards: Arc::clone(&handle.board),
            streams: Arc::clone(&handle.streams),
        };
        let mut running = run::Run::start(opener, factory, found, boards).await?;
        running.take_orders(ordered);
        let ended = running.until(handle.asked).await;
        drop(done);
        ended
    }
}

/// Where a worker shows what it does.
struct Boards {
    shards: Arc<Board>,
    streams: Arc<StreamBoard>,
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

/// Stops a worker from elsewhere, tells of it, and changes its streams; clones are of the same one.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    asked: CancellationToken,
    done: CancellationToken,
    given_up: Arc<GivenUp>,
    board: Arc<Board>,
    streams: Arc<StreamBoard>,
    opener: Arc<Opener>,
    orders: mpsc::Sender<Order>,
}

impl WorkerHandle {
    fn new(opener: Arc<Opener>, orders: mpsc::Sender<Order>) -> Self {
        WorkerHandle {
            asked: CancellationToken::new(),
            done: CancellationToken::new(),
            given_up: Arc::clone(&opener.given_up),
            board: Arc::default(),
            streams: Arc::default(),
            opener,
            orders,
        }
    }

    /// Serves one more stream from now on, and waits until its leases are there. It begins with what the application has checkpointed, else at the
    /// initial position. Every worker that is to share its shards has to be told; until then those that were have them all.
    ///
    /// # Errors
    /// `Configuration`: a setting is out of range, the stream is served already, or there are too many. `NotFound`: there is no such stream.
    /// `Shutdown`: the worker is gone. Others as for [`WorkerBuilder::build`]. The worker goes on as before.
    ///
    /// # Cancel safety
    /// When the future is dropped, the stream may or may not be served; [`streams`](WorkerHandle::streams) tells. A worker that
    /// was built and not run yet takes it up when it runs.
    pub async fn add_stream(&self, stream: impl Into<StreamConfig>) -> Result<(), Error> {
        let found = self.opener.find(&stream.into()).await?;
        let opened = self.opener.open(found).await?;
        self.order(|reply| Order::Add(opened, reply)).await
    }

    /// Serves a stream no more: its shards finish their batches and are released with their last checkpoints, as in a graceful shutdown; then
    /// this returns. The leases stay, so that other workers go on with them, and this one if the stream is added again.
    ///
    /// `stream` is a name, an ARN, or an identity as [`streams`](WorkerHandle::streams) shows it.
    ///
    /// # Errors
    /// `NotFound`: the worker serves no such stream. `Shutdown`: it is gone.
    ///
    /// # Cancel safety
    /// The removal goes on when the future is dropped.
    pub async fn remove_stream(&self, stream: &str) -> Result<(), Error> {
        self.order(|reply| Order::Remove(stream.to_owned(), reply))
            .await
    }

    async fn order(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<(), Error>>) -> Order,
    ) -> Result<(), Error> {
        let gone = || Error::new(ErrorKind::Shutdown, "the worker is gone");
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// The streams of this worker in order of their names, those that have gone included.
    pub fn streams(&self) -> Vec<StreamStatus> {
        self.streams.read()
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

    /// What each shard that this worker holds is doing, and for how long: why one does not move. In order of streams and shards' ids. Of a shard that it
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
