//! The records of all shards of a worker as one stream, each acknowledged by itself.
//!
//! An adapter over [`RecordProcessor`](crate::RecordProcessor): a batch is in work until each of its deliveries is acknowledged, and fails when one of them has failed.
//! Invariants: a checkpoint lies before the first record of its shard that is not done (K4); a record that is done is not given again in the same tenure (K5);
//! none is given when the lease cannot be proven (K2).

use crate::checkpoint::Checkpointer;
use crate::closures::{Adapter, Cadence, Done, InWork, Saver, Work};
use crate::error::{Error, ErrorKind};
use crate::processor::{ProcessorError, Record, RecordBatch, RecordProcessorFactory, ShardInfo};
use crate::worker::{WorkerBuilder, WorkerHandle};
use async_trait::async_trait;
use futures_core::Stream;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};

/// Deliveries that wait to be taken; the others of a batch wait with its shard.
const QUEUE_MAX_DELIVERIES: usize = 256;

/// Acknowledgements of a batch that wait to be taken: no batch has more records.
const REPORTS_MAX: usize = 10_000;

/// What a shard fails with whose delivery was dropped without [`done`](Delivery::done) or [`failed`](Delivery::failed): for example by an early return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the delivery was dropped: call done() when its record is handled")]
pub struct Dropped;

/// A record to be handled, and acknowledged: by [`done`](Delivery::done), in any order and from any task, or [`failed`](Delivery::failed).
#[derive(Debug)]
#[must_use = "a delivery that is dropped has failed"]
pub struct Delivery {
    record: Record,
    ends_batch: bool,
    ticket: Ticket,
}

/// What a delivery is acknowledged with; once.
#[derive(Debug)]
struct Ticket {
    shard: Arc<ShardInfo>,
    index: usize,
    checkpointer: Checkpointer,
    report: Option<mpsc::Sender<Outcome>>,
}

type Outcome = (usize, Result<(), ProcessorError>);

impl Ticket {
    fn report(&mut self, outcome: Result<(), ProcessorError>) {
        if let Some(report) = self.report.take() {
            // There is room for each of a batch. Nobody listens when the tenure is over; then the record comes again elsewhere.
            drop(report.try_send((self.index, outcome)));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.report(Err(Dropped.into()));
    }
}

impl Delivery {
    /// The record.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The shard it came from.
    pub fn shard_id(&self) -> &str {
        &self.ticket.shard.shard_id
    }

    /// The stream it came from, where a worker processes several.
    pub fn stream_name(&self) -> &str {
        &self.ticket.shard.stream_name
    }

    /// Whether nothing else of its shard was there when it was given out. Who gathers deliveries to handle them together should do that now, or after a
    /// while at the latest: when a batch is full, the shard gives no other record before all of it are done.
    pub fn ends_batch(&self) -> bool {
        self.ends_batch
    }

    /// The record is handled. What is done up to the first record that is not is checkpointed, each second and when the batch is done.
    pub fn done(mut self) {
        self.ticket.report(Ok(()));
    }

    /// The record could not be handled; what becomes of it is for the [`ErrorPolicy`](crate::ErrorPolicy) to say, when the others of its batch are
    /// done or have failed. By default it comes again after a pause.
    pub fn failed(mut self, error: impl Into<ProcessorError>) {
        self.ticket.report(Err(error.into()));
    }

    /// Whether it may still be given out (K2).
    fn is_current(&mut self) -> bool {
        let proven = self.ticket.checkpointer.prove();
        let is_awaited = self
            .ticket
            .report
            .as_ref()
            .is_some_and(|report| !report.is_closed());
        match proven {
            Ok(()) => is_awaited,
            Err(error) => {
                self.ticket.report(Err(error.into()));
                false
            }
        }
    }
}

/// The records of a worker; made by [`WorkerBuilder::stream`].
///
/// The worker runs in a task of its own. The stream ends after a [`shutdown`](WorkerHandle::shutdown), when what was in work is done, or with the error that ended
/// the worker.
///
/// **Dropping it is like a crash**: the worker is cancelled, nothing is lost, what was not checkpointed is delivered again when the leases have
/// expired. To end without duplicates and at once, ask for a shutdown and take what still comes, until `None`.
pub struct RecordStream {
    deliveries: mpsc::Receiver<Delivery>,
    /// `None` once its end was told.
    worker: Option<JoinHandle<Result<(), Error>>>,
    handle: WorkerHandle,
}

impl fmt::Debug for RecordStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordStream")
            .field("ended", &self.worker.is_none())
            .finish_non_exhaustive()
    }
}

impl RecordStream {
    /// The next record of any shard; those of one shard come in order. `None` when the worker has shut down.
    ///
    /// # Errors
    /// What [`Worker::run`](crate::Worker::run) ended with; then comes `None`.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Option<Result<Delivery, Error>> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    /// Stops the worker, and tells of it.
    pub fn handle(&self) -> &WorkerHandle {
        &self.handle
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Delivery, Error>>> {
        while let Some(mut delivery) = ready!(self.deliveries.poll_recv(context)) {
            if delivery.is_current() {
                return Poll::Ready(Some(Ok(delivery)));
            }
        }
        let Some(worker) = &mut self.worker else {
            return Poll::Ready(None);
        };
        let ended = ready!(Pin::new(worker).poll(context));
        self.worker = None;
        let ended = ended.unwrap_or_else(|error: JoinError| {
            let message = "the worker's task did not end by itself";
            Err(Error::with_source(ErrorKind::Protocol, message, error))
        });
        Poll::Ready(ended.err().map(Err))
    }
}

impl Stream for RecordStream {
    type Item = Result<Delivery, Error>;

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Delivery, Error>>> {
        self.get_mut().poll(context)
    }
}

impl Drop for RecordStream {
    fn drop(&mut self) {
        if let Some(worker) = &self.worker {
            worker.abort();
        }
    }
}

impl WorkerBuilder {
    /// Builds a worker that gives its records as a stream, and starts it: for programs that are loops.
    ///
    /// Each shard gives records while others are in work, until a batch has [`max_records`](WorkerBuilder::max_records) or
    /// [`max_batch_bytes`](WorkerBuilder::max_batch_bytes); the next one begins when all of it are done. So these bound what is in work.
    ///
    /// ```no_run
    /// # async fn handle(record: &kcl::Record) -> std::io::Result<()> { Ok(()) }
    /// # async fn example() -> Result<(), kcl::Error> {
    /// use kcl::{MemoryLeaseStore, Worker};
    ///
    /// let mut records = Worker::builder("my-app", "orders")
    ///     .lease_store(MemoryLeaseStore::new())
    ///     .stream()
    ///     .await?;
    /// while let Some(delivery) = records.next().await {
    ///     let delivery = delivery?;
    ///     match handle(delivery.record()).await {
    ///         Ok(()) => delivery.done(),
    ///         Err(error) => delivery.failed(error), // it comes again, unless the error policy says otherwise
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`build`](WorkerBuilder::build).
    ///
    /// # Cancel safety
    /// Dropped, no worker is started.
    pub async fn stream(self) -> Result<RecordStream, Error> {
        let (queue, deliveries) = mpsc::channel(QUEUE_MAX_DELIVERIES);
        let worker = self.build(Streamed { queue }).await?;
        let handle = worker.handle();
        Ok(RecordStream {
            deliveries,
            worker: Some(tokio::spawn(worker.run())),
            handle,
        })
    }
}

/// Makes the processors that feed a stream.
struct Streamed {
    queue: mpsc::Sender<Delivery>,
}

impl RecordProcessorFactory for Streamed {
    type Processor = Adapter<StreamedShard>;

    fn create(&self, shard: &ShardInfo) -> Adapter<StreamedShard> {
        let shard = StreamedShard {
            queue: self.queue.clone(),
            shard: Arc::new(shard.clone()),
            done: Done::default(),
        };
        Adapter::new(shard, Cadence::default())
    }
}

/// Gives the records of one shard to the stream, and waits for them to be acknowledged.
struct StreamedShard {
    queue: mpsc::Sender<Delivery>,
    shard: Arc<ShardInfo>,
    done: Done,
}

#[async_trait]
impl Work for StreamedShard {
    async fn work(
        &mut self,
        batch: &RecordBatch,
        saver: &mut Saver,
        checkpointer: &Checkpointer,
    ) -> Result<usize, ProcessorError> {
        let records = batch.records();
        let mut open: VecDeque<usize> = self.done.begin(records).into();
        let mut in_work = InWork::new(records, &self.done);
        let (report, mut reports) = mpsc::channel(REPORTS_MAX.max(open.len()));
        let mut given = 0usize;
        while given > 0 || !open.is_empty() {
            let mark = in_work.mark().cloned();
            tokio::select! {
                biased;
                Some((index, outcome)) = reports.recv(), if given > 0 => {
                    given -= 1;
                    in_work.take_in(index, outcome, &mut self.done);
                }
                room = self.queue.reserve(), if !open.is_empty() => {
                    let room = room.map_err(|_| Error::new(ErrorKind::Shutdown, "the stream of records was dropped"));
                    match checkpointer.prove().and(room) {
                        Ok(room) => {
                            let Some(index) = open.pop_front() else { continue };
                            let Some(record) = in_work.record(index).cloned() else { continue };
                            let ticket = Ticket {
                                shard: Arc::clone(&self.shard),
                                index,
                                checkpointer: checkpointer.clone(),
                                report: Some(report.clone()),
                            };
                            given += 1;
                            room.send(Delivery { record, ends_batch: open.is_empty(), ticket });
                        }
                        Err(error) => {
                            open.clear();
                            in_work.cut_short(error);
                        }
                    }
                }
                more = checkpointer.more(), if open.is_empty() && in_work.is_sound() => {
                    open.extend(in_work.grow(more));
                }
                () = saver.in_between(mark.as_ref(), checkpointer) => {}
            }
        }
        in_work.end(saver, checkpointer).await
    }
}

#[cfg(test)]
mod tests;
