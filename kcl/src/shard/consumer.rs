//! One shard under one lease: initialize, read, deliver, until the shard ends, the lease is lost, or it is to be given up.
//!
//! One task, one loop. Invariants: nothing is delivered outside the owner window (K2); records are delivered in strictly
//! increasing order (K6); what is given up goes with its last checkpoint (K9). [`deliver`](super::deliver) has what happens to a batch.

use crate::checkpoint::{Checkpointer, Position};
use crate::client::Shard;
use crate::config::{ForeignRecords, InitialPosition};
use crate::error::{Error, ErrorKind};
use crate::fetch::Page;
use crate::fetch::collect::{Batching, Collector};
use crate::fetch::expand::{Batch, Selection};
use crate::fetch::polling::PollSettings;
use crate::fetch::reader::Reader;
use crate::fetch::source::Source;
use crate::lease::renew::{OwnerWindow, bounded};
use crate::lease::{LeaseKey, LeaseStore, LeaseToken, NewLease, Release};
use crate::metrics::ShardMetrics;
use crate::policy::Callback;
use crate::processor::{
    ProcessorError, RecordBatch, RecordProcessor, RecordProcessorFactory, ShardInfo,
};
#[cfg(test)]
use crate::seeded_bug::{Bug, made};
use crate::shard::ahead::Ahead;
use crate::shard::callback::{guarded, guarded_within, retry_pause};
use crate::shard::deliver::{Call, FailureHandling};
use crate::shard::meter::Meters;
use crate::shard::noticed::Noticed;
use crate::shard::served::ServedStream;
use crate::shard::sync::heirs;
use crate::status::{Activity, Board, Posted};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tracing::Instrument;

/// What the worker wants of a shard consumer; only ever moves down this list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Directive {
    /// Go on.
    Run,
    /// Finish the batch and give the lease up, to the worker named.
    GiveUp(Option<String>),
    /// The lease is another's.
    Lost,
}

/// How a tenure ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The shard is done and its lease ended.
    Ended,
    /// The lease went to another worker.
    Lost,
    /// To be given up, with the last checkpoint.
    GiveUp(Release),
    /// To be given up, and the worker is to end with this error.
    Failed(Release, Error),
}

/// What all shard consumers of a worker share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) application: String,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) window: OwnerWindow,
    pub(crate) read_ahead: Arc<Semaphore>,
    /// How long the last call of a processor may take.
    pub(crate) grace: Duration,
    pub(crate) meters: Arc<Meters>,
    pub(crate) board: Arc<Board>,
}

/// One tenure: the lease and how to read its shard.
#[derive(Debug)]
pub(crate) struct Tenure {
    pub(crate) token: LeaseToken,
    pub(crate) stream: Arc<ServedStream>,
    pub(crate) shard: ShardInfo,
    pub(crate) directive: watch::Receiver<Directive>,
}

/// Why a step of the loop stops the consumer.
pub(super) enum Stop {
    Lost,
    GiveUp(Option<String>),
    /// What the processor said to be done is not stored: to be begun anew from what is.
    Forsake,
    /// The error policy ends the worker.
    Failed(Error),
}

pub(super) struct Consumer<P> {
    pub(super) shared: Arc<Shared>,
    pub(super) stream: Arc<ServedStream>,
    pub(super) processor: P,
    pub(super) token: LeaseToken,
    pub(super) shard: ShardInfo,
    pub(super) directive: watch::Receiver<Directive>,
    pub(super) checkpointer: Checkpointer,
    pub(super) reader: Reader,
    pub(super) collector: Collector,
    pub(super) ahead: Ahead,
    /// What of a page is delivered, apart from where it begins.
    pub(super) selection: Selection,
    pub(super) noticed: Noticed,
    pub(super) posted: Posted,
}

/// Processes one shard until its tenure ends, in a span that says which: what the user's code logs carries it.
pub(crate) async fn run<F: RecordProcessorFactory>(
    shared: Arc<Shared>,
    factory: Arc<F>,
    tenure: Tenure,
) -> Outcome {
    let span = tracing::info_span!(
        "shard",
        application = %shared.application,
        stream = %tenure.shard.stream_name,
        shard = %tenure.shard.shard_id,
        counter = tenure.token.counter,
    );
    serve(shared, factory, tenure).instrument(span).await
}

async fn serve<F: RecordProcessorFactory>(
    shared: Arc<Shared>,
    factory: Arc<F>,
    tenure: Tenure,
) -> Outcome {
    let Tenure {
        token,
        stream,
        shard,
        mut directive,
    } = tenure;
    let bare = |token, to| Release {
        token,
        checkpoint: None,
        to,
    };
    let metrics = ShardMetrics::new(&shared.application, &token.key);
    let posted = shared.board.post(&stream.name, &token.key, shard.position);
    let posted = posted.measured(metrics.clone());
    let making = Making {
        handling: &stream.failures,
        shard: &shard,
        lease: &token.key,
        posted: &posted,
    };
    let processor = match making.create(&*factory, &mut directive).await {
        Ok(processor) => processor,
        Err(Stop::Lost | Stop::Forsake) => return Outcome::Lost,
        Err(Stop::GiveUp(to)) => return Outcome::GiveUp(bare(token, to)),
        Err(Stop::Failed(error)) => return Outcome::Failed(bare(token, None), error),
    };
    let checkpointer = Checkpointer::new(
        Arc::clone(&shared.store),
        &shared.application,
        token.clone(),
        shard.position,
        shared.window.clone(),
    )
    .measured(&metrics);
    let reading = &stream.reading;
    let batching = Batching::of(reading);
    let selection = selection(&shard, reading.foreign_records, batching);
    let poll = PollSettings {
        stream: stream.called.clone(),
        shard_id: shard.shard_id.clone(),
        poll_interval: reading.poll_interval,
        max_records: reading.max_records,
        consumer: stream.consumer.clone(),
    };
    let source = Source::new(Arc::clone(&stream.client), poll, shard.position).measured(metrics);
    posted.follow(source.standing());
    let reader = Reader::new(source, Arc::clone(&shared.read_ahead));
    let collector = Collector::new(batching);
    let consumer = Consumer {
        shared,
        stream,
        processor,
        token,
        shard,
        directive,
        checkpointer,
        reader,
        collector,
        ahead: Ahead::default(),
        selection,
        noticed: Noticed::default(),
        posted,
    };
    let (shared, key) = (Arc::clone(&consumer.shared), consumer.token.key.clone());
    let outcome = consumer.live().await;
    shared.meters.forget(&key);
    outcome
}

/// What of a shard's records is delivered, and in which portions.
fn selection(shard: &ShardInfo, foreign: ForeignRecords, batching: Batching) -> Selection {
    Selection {
        done: shard.position,
        own: match foreign {
            ForeignRecords::Deliver => None,
            ForeignRecords::Drop => shard.hash_key_range,
        },
        most: batching.most,
        most_bytes: batching.most_bytes,
    }
}

/// What a processor is made with.
struct Making<'a> {
    handling: &'a FailureHandling,
    shard: &'a ShardInfo,
    lease: &'a LeaseKey,
    posted: &'a Posted,
}

impl Making<'_> {
    /// A processor from the user's factory; a panic there is a failure like any other.
    async fn create<F: RecordProcessorFactory>(
        &self,
        factory: &F,
        directive: &mut watch::Receiver<Directive>,
    ) -> Result<F::Processor, Stop> {
        let call = Call {
            shard: self.shard,
            callback: Callback::Create,
            records: &[],
        };
        let mut failures = 0;
        for attempt in 1.. {
            match guarded(async { Ok(factory.create(self.shard)) }).await {
                Ok(processor) => return Ok(processor),
                Err(error) => {
                    let error = self.handling.judge_bare(&call, error, &mut failures)?;
                    self.posted.retrying(&call.callback, attempt, &error);
                    pause_after(directive, self.lease, &call.callback, attempt, &error).await?;
                }
            }
        }
        Err(Stop::Lost)
    }
}

impl<P: RecordProcessor> Consumer<P> {
    async fn live(mut self) -> Outcome {
        match self.process().await {
            Ok(()) => {
                self.checkpointer.end("the shard has ended");
                Outcome::Ended
            }
            Err(Stop::Lost) => {
                self.checkpointer.end("the lease has another owner");
                self.say_farewell().await;
                Outcome::Lost
            }
            Err(Stop::GiveUp(to)) => Outcome::GiveUp(self.release(to).await),
            Err(Stop::Failed(error)) => Outcome::Failed(self.release(None).await, error),
            Err(Stop::Forsake) => {
                self.checkpointer
                    .end("a transaction that a batch relied on was not committed");
                self.say_farewell().await;
                Outcome::GiveUp(Release {
                    token: self.token,
                    checkpoint: None,
                    to: None,
                })
            }
        }
    }

    /// Gives the lease up with the last checkpoint.
    async fn release(mut self, to: Option<String>) -> Release {
        self.posted.note(Activity::Releasing);
        self.checkpointer.begin_release();
        let call = self.processor.shutdown_requested(&self.checkpointer);
        let answer = guarded_within(self.shared.grace, call).await;
        log_failure("shutdown_requested", &self.token, answer);
        let checkpoint = self.checkpointer.finish_release().await;
        Release {
            token: self.token,
            checkpoint,
            to,
        }
    }

    async fn say_farewell(&mut self) {
        let farewell = async {
            self.processor.lease_lost().await;
            Ok(())
        };
        let answer = guarded_within(self.shared.grace, farewell).await;
        log_failure("lease_lost", &self.token, answer);
    }

    async fn process(&mut self) -> Result<(), Stop> {
        self.initialize().await?;
        loop {
            let page = self.next_page().await?;
            let behind = page.millis_behind_latest;
            let meters = &self.shared.meters;
            meters.read(&self.token.key, page.size_bytes(), behind);
            self.deliver_all(page).await?;
            let handled = self.checkpointer.handled();
            self.posted
                .progress(handled, self.ahead.millis_behind_latest);
            if let Some(children) = self.ahead.take_end()
                && let Some(children) = self.confirm_end(children).await?
            {
                return self.end(children).await;
            }
        }
    }

    async fn initialize(&mut self) -> Result<(), Stop> {
        let mut failures = 0;
        for attempt in 1.. {
            self.may_act().await?;
            match guarded(self.processor.initialize(&self.shard)).await {
                Ok(()) => break,
                Err(error) => {
                    let callback = Callback::Initialize;
                    self.failed(callback, error, attempt, &mut failures).await?;
                }
            }
        }
        Ok(())
    }

    /// A call without records failed: waits before the next attempt, or ends the worker.
    async fn failed(
        &mut self,
        callback: Callback,
        error: ProcessorError,
        attempt: u32,
        failures: &mut u32,
    ) -> Result<(), Stop> {
        let call = Call {
            shard: &self.shard,
            callback,
            records: &[],
        };
        let error = self.stream.failures.judge_bare(&call, error, failures)?;
        self.pause_after(&callback, attempt, &error).await
    }

    async fn next_page(&mut self) -> Result<Page, Stop> {
        self.posted.note(Activity::Reading);
        let mut failures = 0u32;
        loop {
            let read = tokio::select! {
                biased;
                stop = stopped(&mut self.directive) => return Err(stop),
                read = self.collector.next(&mut self.reader) => read,
            };
            match read {
                Ok(page) => return Ok(page),
                Err(error) => {
                    tracing::warn!(%error, lease = %self.token.key, "reading the shard failed, it is repeated");
                    failures = failures.saturating_add(1);
                    self.posted.retrying(&"reading the shard", failures, &error);
                    // A missing shard says nothing about its end (K13); the listing of the shards tells.
                    if error.kind() == ErrorKind::NotFound {
                        self.stream.sync.notify_one();
                        if let Some(children) = self.outlived().await? {
                            return Ok(Page::read(Vec::new(), 0, Some(children)));
                        }
                    }
                }
            }
        }
    }

    /// Delivers what is new of a page, batch by batch; and of pages after it that were read for a batch in work.
    async fn deliver_all(&mut self, page: Page) -> Result<(), Stop> {
        // Where a starting time has led is stored before anything is delivered, so that no later start asks a clock again (K4).
        if let (Position::AtTimestamp(_), Some(first)) =
            (self.checkpointer.handled(), page.records.first())
        {
            self.pin(Position::AtSequence(first.sequence_number()))
                .await?;
        }
        let selection = Selection {
            done: self.checkpointer.handled(),
            ..self.selection
        };
        self.ahead = Ahead::of(page, selection);
        while let Some(Batch { records, end }) = self.ahead.next() {
            self.noticed
                .tell(&self.token.key, self.ahead.take_findings());
            if records.is_empty() {
                self.checkpointer.pass(end);
                continue;
            }
            debug_assert!(
                records.is_sorted_by(|a, b| a.position() < b.position()),
                "K6"
            );
            let batch = RecordBatch {
                records: Arc::new(records),
                millis_behind_latest: self.ahead.millis_behind_latest,
            };
            self.deliver(batch, end).await?;
        }
        Ok(())
    }

    /// Stores where a starting time has led, so that no later start asks a clock again (K4).
    async fn pin(&mut self, first: Position) -> Result<(), Stop> {
        for attempt in 1.. {
            self.may_act().await?;
            match self.checkpointer.pin(first).await {
                Ok(()) => break,
                Err(_) if self.checkpointer.is_over() => return Err(Stop::Lost),
                Err(error) => {
                    self.pause_after(&"storing the first position", attempt, &error.into())
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// Waits until the lease is provably held (K2).
    pub(super) async fn may_act(&mut self) -> Result<(), Stop> {
        if !self.shared.window.is_open() {
            self.posted.note(Activity::WaitingForRenewal);
        }
        tokio::select! {
            biased;
            stop = stopped(&mut self.directive) => Err(stop),
            () = self.shared.window.opened() => Ok(()),
        }
    }

    pub(super) async fn pause_after(
        &mut self,
        callback: &(dyn Display + Sync),
        attempt: u32,
        error: &ProcessorError,
    ) -> Result<(), Stop> {
        self.posted.retrying(callback, attempt, error);
        let key = &self.token.key;
        pause_after(&mut self.directive, key, callback, attempt, error).await
    }

    /// The children to end the shard with, or `None` if it is not closed after all. An end without children is believed only
    /// of a shard that is listed as closed.
    async fn confirm_end(&mut self, children: Vec<Shard>) -> Result<Option<Vec<Shard>>, Stop> {
        if !children.is_empty() {
            return Ok(Some(children));
        }
        #[cfg(test)]
        if made(Bug::GoneIsEnded) {
            return Ok(Some(children));
        }
        for attempt in 1.. {
            let listed = tokio::select! {
                biased;
                stop = stopped(&mut self.directive) => return Err(stop),
                listed = self.stream.client.list_shards(&self.stream.called) => listed,
            };
            let shards = match listed {
                Ok(shards) => shards,
                Err(error) => {
                    self.pause_after(
                        &"listing the shards at the shard's end",
                        attempt,
                        &error.into(),
                    )
                    .await?;
                    continue;
                }
            };
            let id = &self.shard.shard_id;
            if shards
                .iter()
                .any(|shard| shard.shard_id == *id && shard.closed)
            {
                let is_child = |shard: &Shard| shard.parents.contains(id);
                return Ok(Some(shards.into_iter().filter(is_child).collect()));
            }
            break;
        }
        let message = format!(
            "{} gave no next iterator, but it is not listed as a closed shard",
            self.shard.shard_id
        );
        self.reader
            .restart(Error::new(ErrorKind::Protocol, message));
        self.stream.sync.notify_one();
        Ok(None)
    }

    /// The heirs of a shard whose last records are older than the retention: the stream is the same, lists the shard no
    /// more, and lists shards that came from it. Nothing less proves that there is nothing left to read.
    async fn outlived(&mut self) -> Result<Option<Vec<Shard>>, Stop> {
        #[cfg(test)]
        if made(Bug::GoneIsEnded) {
            return Ok(Some(Vec::new()));
        }
        let (client, called) = (&self.stream.client, &self.stream.called);
        // The description comes last: what was listed before it is of the same stream if it is.
        let look = async {
            let shards = client.list_shards(called).await?;
            let summary = client.describe_stream(called).await?;
            Ok::<_, Error>((summary.identity(), shards))
        };
        let looked = tokio::select! {
            biased;
            stop = stopped(&mut self.directive) => return Err(stop),
            looked = look => looked,
        };
        let Ok((identity, shards)) = looked else {
            return Ok(None);
        };
        let id = &self.shard.shard_id;
        let listed = shards.iter().any(|shard| shard.shard_id == *id);
        let children = heirs(&shards, &self.shard);
        if identity != self.token.key.stream || listed || children.is_empty() {
            return Ok(None);
        }
        tracing::error!(lease = %self.token.key, checkpoint = %self.checkpointer.handled(), "the shard's last records outlived the retention before they were read");
        Ok(Some(children))
    }

    /// Everything of a closed shard was handled: tell the processor, then store it with the children's leases.
    async fn end(&mut self, children: Vec<Shard>) -> Result<(), Stop> {
        self.posted.note(Activity::Ending);
        let mut failures = 0;
        let children = self.whole_families(children).await?;
        for attempt in 1.. {
            self.may_act().await?;
            match guarded(self.processor.shard_ended(&self.checkpointer)).await {
                Ok(()) => break,
                Err(error) => {
                    let callback = Callback::ShardEnded;
                    self.failed(callback, error, attempt, &mut failures).await?;
                }
            }
        }
        // The end is final: nothing that a transaction should have stored may be missing behind it.
        if self.checkpointer.has_offered() {
            self.look_up().await?;
        }
        let children = self.new_leases(children);
        for attempt in 1.. {
            // An end that the processor has accepted is stored, if it can be at once, though the lease was to be given up.
            if attempt > 1 || !self.shared.window.is_open() {
                self.may_act().await?;
            }
            let Shared {
                store,
                application,
                window,
                ..
            } = &*self.shared;
            let write = store.end_shard(application, &self.token, &children);
            match bounded(window.length(), write).await {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::LeaseLost => return Err(Stop::Lost),
                Err(error) => {
                    self.pause_after(&"storing the shard's end", attempt, &error.into())
                        .await?;
                }
            }
        }
        self.stream.sync.notify_one();
        Ok(())
    }

    /// The children whose other parents have leases as well. A parent without one would not hold back its child (K6), but perhaps only its own parents
    /// have not ended yet: such a child is left to the next listing, which creates what is missing of a family in one transaction.
    async fn whole_families(&mut self, children: Vec<Shard>) -> Result<Vec<Shard>, Stop> {
        let mut whole = Vec::with_capacity(children.len());
        for child in children {
            let mut is_whole = true;
            for parent in &child.parents {
                is_whole =
                    is_whole && (*parent == self.shard.shard_id || self.is_leased(parent).await?);
            }
            if is_whole {
                whole.push(child);
            }
        }
        Ok(whole)
    }

    async fn is_leased(&mut self, shard_id: &str) -> Result<bool, Stop> {
        let key = LeaseKey {
            stream: self.token.key.stream.clone(),
            shard_id: shard_id.to_owned(),
        };
        for attempt in 1.. {
            self.may_act().await?;
            let Shared {
                store,
                application,
                window,
                ..
            } = &*self.shared;
            match bounded(window.length(), store.lease(application, &key)).await {
                Ok(lease) => return Ok(lease.is_some()),
                Err(error) => {
                    self.pause_after(&"looking up a parent's lease", attempt, &error.into())
                        .await?;
                }
            }
        }
        Ok(false)
    }

    /// Children begin at their start; or, where nothing of the parent was wanted yet, at the time the parent began. Under LATEST everything in a
    /// child came after the application began, whatever a clock that was set back says (K4).
    fn new_leases(&self, children: Vec<Shard>) -> Vec<NewLease> {
        let checkpoint = match self.checkpointer.handled() {
            Position::AtTimestamp(ms) if self.stream.reading.initial != InitialPosition::Latest => {
                Position::AtTimestamp(ms)
            }
            Position::AtTimestamp(_)
            | Position::TrimHorizon
            | Position::AtSequence(_)
            | Position::Sequence { .. }
            | Position::ShardEnd => Position::TrimHorizon,
        };
        let new = |child: Shard| NewLease {
            key: LeaseKey {
                stream: self.token.key.stream.clone(),
                shard_id: child.shard_id,
            },
            checkpoint,
            parents: child.parents,
            hash_key_range: Some(child.hash_key_range),
        };
        children.into_iter().map(new).collect()
    }
}

fn log_failure(callback: &str, token: &LeaseToken, answer: Result<(), ProcessorError>) {
    if let Err(error) = answer {
        tracing::warn!(%error, callback, lease = %token.key, "the record processor failed");
    }
}

/// Says what failed, and waits before it is tried again.
async fn pause_after(
    directive: &mut watch::Receiver<Directive>,
    lease: &LeaseKey,
    callback: &(dyn Display + Sync),
    attempt: u32,
    error: &ProcessorError,
) -> Result<(), Stop> {
    let pause = retry_pause(attempt);
    tracing::warn!(%error, attempt, %lease, ?pause, "{callback} failed, it is repeated");
    tokio::select! {
        biased;
        stop = stopped(directive) => Err(stop),
        () = tokio::time::sleep(pause) => Ok(()),
    }
}

/// Waits until the worker wants something else than to go on.
async fn stopped(directive: &mut watch::Receiver<Directive>) -> Stop {
    match directive
        .wait_for(|wish| *wish != Directive::Run)
        .await
        .as_deref()
    {
        Ok(Directive::GiveUp(to)) => Stop::GiveUp(to.clone()),
        // A worker that is gone renews nothing any more.
        Ok(Directive::Lost | Directive::Run) | Err(_) => Stop::Lost,
    }
}
