//! Delivers one batch to the processor: repeated, bisected, and its poison records given up, as the error policy says.
//!
//! Invariants: a record counts as handled only when its part of the batch was processed, or when it failed alone and was skipped or accepted as a
//! dead letter (K4); parts are delivered in order, none before the one before it is handled (K6).

use super::ahead::{Beside, Room};
use super::bisect::Plan;
use super::callback::{Panicked, guarded};
use super::consumer::{Consumer, Stop};
use crate::checkpoint::{Position, Settled};
use crate::clock;
use crate::dead_letter::{DeadLetter, DeadLetterQueue, ERROR_MAX_CHARS};
use crate::error::{Error, ErrorKind};
use crate::fetch::expand::Batch;
use crate::policy::{Callback, ErrorAction, ErrorPolicy, Failure, describe, is_blameless};
use crate::processor::{ProcessorError, Record, RecordBatch, RecordProcessor, ShardInfo};
#[cfg(test)]
use crate::seeded_bug::{Bug, made};
use crate::status::Activity;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::Instrument;

/// What a worker does about failures of its processors.
pub(crate) struct FailureHandling {
    pub(crate) policy: ErrorPolicy,
    pub(crate) dead_letters: Option<Arc<dyn DeadLetterQueue>>,
    pub(crate) given_up: Arc<GivenUp>,
}

/// Counts the records that a worker gave up.
#[derive(Debug, Default)]
pub(crate) struct GivenUp {
    pub(crate) skipped: AtomicU64,
    pub(crate) dead_lettered: AtomicU64,
}

/// A call of the processor that failed.
pub(super) struct Call<'a> {
    pub(super) shard: &'a ShardInfo,
    pub(super) callback: Callback,
    pub(super) records: &'a [Record],
}

impl FailureHandling {
    /// Counts a failure among those that are the processor's own, and says what to do about it.
    pub(super) fn judge(
        &self,
        call: &Call<'_>,
        error: &ProcessorError,
        failures: &mut u32,
    ) -> ErrorAction {
        if is_blameless(error) {
            return ErrorAction::Retry;
        }
        *failures = failures.saturating_add(1);
        let failure = Failure {
            shard: call.shard,
            callback: call.callback,
            records: call.records,
            attempt: *failures,
            error,
            panicked: error.is::<Panicked>(),
        };
        self.policy.judge(&failure, self.dead_letters.is_some())
    }

    /// The same for a call without records: gives the error back if the call is to be repeated.
    pub(super) fn judge_bare(
        &self,
        call: &Call<'_>,
        error: ProcessorError,
        failures: &mut u32,
    ) -> Result<ProcessorError, Stop> {
        match self.judge(call, &error, failures) {
            ErrorAction::Stop => Err(Stop::Failed(call.stopped(error, *failures))),
            ErrorAction::Retry | ErrorAction::DeadLetter | ErrorAction::Skip => Ok(error),
        }
    }
}

impl fmt::Debug for FailureHandling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailureHandling")
            .field("policy", &self.policy)
            .field("dead_letters", &self.dead_letters.is_some())
            .field("given_up", &self.given_up)
            .finish()
    }
}

impl Call<'_> {
    /// What the worker ends with when the policy says so.
    pub(super) fn stopped(&self, error: ProcessorError, failures: u32) -> Error {
        let ShardInfo {
            stream_name,
            shard_id,
            ..
        } = self.shard;
        let records = match self.records {
            [] => String::new(),
            [only] => format!(" at record {}", only.place()),
            [first, .., last] => format!(
                " at {} records from {} to {}",
                self.records.len(),
                first.place(),
                last.place()
            ),
        };
        let message = format!(
            "{} failed {failures} times for {shard_id} of {stream_name}{records}, and the error policy says to stop",
            self.callback
        );
        Error::with_source(ErrorKind::Processor, message, error)
    }
}

impl<P: RecordProcessor> Consumer<P> {
    /// Delivers a batch until each of its records is handled, and with the last of them everything up to `end`.
    pub(super) async fn deliver(
        &mut self,
        mut batch: RecordBatch,
        mut end: Position,
    ) -> Result<(), Stop> {
        let mut plan = Plan::whole(batch.records().len());
        let mut retries = 0;
        while let Some(part) = plan.next().cloned() {
            let following = batch.records().get(part.records.end);
            let records = batch.part(part.records.clone());
            let part_end = match (following, records.records().last()) {
                (Some(_), Some(last)) => last.position(),
                _ => end,
            };
            // A batch that has failed is dealt with before anything is added to it.
            let room = match following {
                None if part.failures == 0 => Room::beside(batch.records(), &self.selection),
                _ => Room::none(),
            };
            let (answer, taken) = self.process_part(records, part_end, room).await?;
            for more in taken {
                plan.grow(more.records.len());
                batch.grow(more.records);
                end = more.end;
            }
            if let Err(error) = &answer
                && self.checkpointer.is_in_doubt()
            {
                self.settle(error).await?;
            }
            plan.handled_to(batch.done_at(self.checkpointer.handled()));
            let rest = plan
                .next()
                .filter(|rest| rest.records.start < part.records.end);
            let (Some(rest), Err(error)) = (rest.cloned(), answer) else {
                retries = 0;
                continue;
            };
            if rest.records.start > part.records.start {
                // Some of it turned out to be stored. What is left has not failed by itself yet.
                retries = 1;
                self.pause_after(&Callback::ProcessRecords, retries, &error)
                    .await?;
                continue;
            }
            let (part, mut failures) = (batch.part(rest.records), rest.failures);
            let call = Call {
                shard: &self.shard,
                callback: Callback::ProcessRecords,
                records: part.records(),
            };
            match self.stream.failures.judge(&call, &error, &mut failures) {
                ErrorAction::Retry => {
                    retries += 1;
                    plan.retry(failures);
                    self.pause_after(&call.callback, retries, &error).await?;
                }
                ErrorAction::Stop => return Err(Stop::Failed(call.stopped(error, failures))),
                action @ (ErrorAction::DeadLetter | ErrorAction::Skip) => {
                    retries = 0;
                    if plan.split(failures) {
                        let (lease, records) = (&self.token.key, part.records().len());
                        tracing::warn!(%lease, %error, records, failures, ?action, "the batch is halved to find the records that fail");
                        continue;
                    }
                    self.give_up(action, &part, (failures, &error)).await?;
                    self.checkpointer.begin_batch(part_end);
                    self.checkpointer.batch_succeeded();
                    plan.handled_to(batch.done_at(self.checkpointer.handled()));
                }
            }
        }
        Ok(())
    }

    /// One call of the processor; gives what it took beside the part. A failure leaves the checkpointer as if it had not been made.
    async fn process_part(
        &mut self,
        part: RecordBatch,
        end: Position,
        room: Room,
    ) -> Result<(Result<(), ProcessorError>, Vec<Batch>), Stop> {
        self.may_act().await?;
        let records = part.records().len();
        let bytes = part.records().iter().map(|record| record.data.len()).sum();
        let (first, last) = (part.records().first(), part.records().last());
        let span = tracing::info_span!(
            "batch",
            first = first.map(Record::place),
            last = last.map(Record::place),
            records,
        );
        self.posted.note(Activity::Processing { records });
        self.checkpointer.begin_batch(end);
        let began = clock::now();
        let work = self.processor.process_records(part, &self.checkpointer);
        let beside = Beside {
            ahead: &mut self.ahead,
            reader: &mut self.reader,
            collector: &mut self.collector,
            noticed: &mut self.noticed,
            checkpointer: &self.checkpointer,
            directive: &self.directive,
            lease: &self.token.key,
            meters: &self.shared.meters,
            selection: self.selection,
            room,
        };
        let answer = tokio::select! {
            biased;
            () = beside.run() => Err("reading ahead never ends".into()),
            answer = guarded(work).instrument(span) => answer,
        };
        let took = clock::now().saturating_duration_since(began);
        let metrics = &self.posted.metrics;
        metrics.processed(records, bytes, took, answer.is_ok());
        let (taken, returned) = self.checkpointer.end_growth();
        if returned.is_some() {
            self.ahead.put_back(returned);
        }
        if self.checkpointer.is_over() {
            return Err(Stop::Lost);
        }
        #[cfg(test)]
        let answer = match answer {
            Err(_) if made(Bug::SkipFailedBatch) => Ok(()),
            answer => answer,
        };
        match answer {
            Ok(()) => self.checkpointer.batch_succeeded(),
            Err(_) => self.checkpointer.batch_failed(),
        }
        Ok((answer, taken))
    }

    /// After a failure with a transaction of the application: whether that was committed, the store tells.
    async fn settle(&mut self, error: &ProcessorError) -> Result<(), Stop> {
        let lease = &self.token.key;
        tracing::debug!(%lease, %error, "a batch with a transaction of its own failed, what is stored is looked up");
        self.look_up().await
    }

    /// Learns what the store holds after transactions of the application.
    pub(super) async fn look_up(&mut self) -> Result<(), Stop> {
        for attempt in 1.. {
            match self.checkpointer.settle().await {
                Ok(Settled::Here) => break,
                Ok(Settled::Behind) => return Err(Stop::Forsake),
                Err(_) if self.checkpointer.is_over() => return Err(Stop::Lost),
                Err(error) => {
                    self.pause_after(&"looking up what is stored", attempt, &error.into())
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// Gives up what failed alone: never silently, and not before its letter was accepted.
    async fn give_up(
        &mut self,
        action: ErrorAction,
        part: &RecordBatch,
        (failures, error): (u32, &ProcessorError),
    ) -> Result<(), Stop> {
        // While the fate of an earlier transaction is open, nothing after it may count as handled: a checkpoint would be stored though
        // that transaction may have been rolled back.
        if self.checkpointer.has_offered() {
            self.settle(error).await?;
        }
        for record in part.records() {
            self.put_aside(action, record, (failures, error)).await?;
        }
        Ok(())
    }

    async fn put_aside(
        &mut self,
        action: ErrorAction,
        record: &Record,
        (failures, error): (u32, &ProcessorError),
    ) -> Result<(), Stop> {
        let stream = Arc::clone(&self.stream);
        let given_up = &stream.failures.given_up;
        match &stream.failures.dead_letters {
            Some(queue) if action == ErrorAction::DeadLetter => {
                let letter = DeadLetter {
                    application: self.shared.application.clone(),
                    stream: self.shard.stream_name.clone(),
                    shard_id: self.shard.shard_id.clone(),
                    record: record.clone(),
                    attempts: failures,
                    error: describe(error, ERROR_MAX_CHARS),
                };
                self.put(&**queue, &letter).await?;
                given_up.dead_lettered.fetch_add(1, Ordering::Relaxed);
                self.posted.metrics.dead_letters.increment(1);
            }
            _ => {
                given_up.skipped.fetch_add(1, Ordering::Relaxed);
                self.posted.metrics.skipped.increment(1);
            }
        }
        let (lease, record_at) = (&self.token.key, record.place());
        tracing::error!(%lease, record = record_at, failures, %error, ?action, "the record is given up");
        Ok(())
    }

    /// Puts a letter until it is accepted.
    async fn put(&mut self, queue: &dyn DeadLetterQueue, letter: &DeadLetter) -> Result<(), Stop> {
        for attempt in 1.. {
            self.may_act().await?;
            let put = tokio::select! {
                biased;
                put = guarded(queue.put(letter)) => put,
                () = self.reader.ahead() => Err("reading ahead never ends".into()),
            };
            match put {
                Ok(()) => break,
                Err(error) => {
                    self.pause_after(&"the dead letter queue", attempt, &error)
                        .await?;
                }
            }
        }
        Ok(())
    }
}
