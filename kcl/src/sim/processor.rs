//! The application: a record processor that writes down what it is told, fails, panics, takes its time and checkpoints as it likes.

use super::history::{Event, RecordId, Step, Tenure, What};
use super::world::{Shared, World};
use crate::checkpoint::{Checkpointer, Position, PreparedCheckpoint};
use crate::dead_letter::{DeadLetter, DeadLetterQueue};
use crate::error::Error;
use crate::processor::{
    ProcessorError, Record, RecordBatch, RecordProcessor, RecordProcessorFactory, ShardInfo,
};
use async_trait::async_trait;
use std::time::Duration;

/// How processors behave, as probabilities.
#[derive(Debug, Clone)]
pub(super) struct Mood {
    /// A callback fails, or the factory does.
    pub(super) fails: f64,
    /// A failure is a panic.
    pub(super) panics: f64,
    /// A batch takes its time.
    pub(super) slow: f64,
    pub(super) slowest: Duration,
    /// A batch is checkpointed.
    pub(super) checkpoints: f64,
    /// A batch is checkpointed in the middle.
    pub(super) halfway: f64,
    /// A batch is checkpointed in two phases.
    pub(super) prepares: f64,
    /// A checkpointer is used later, by a task of the application's own.
    pub(super) stray: f64,
    /// This shard's batches fail.
    pub(super) poisoned: Option<String>,
}

impl Mood {
    /// Nothing fails, and all is checkpointed.
    pub(super) fn kind() -> Self {
        Mood {
            fails: 0.0,
            panics: 0.0,
            slow: 0.0,
            slowest: Duration::ZERO,
            checkpoints: 1.0,
            halfway: 0.0,
            prepares: 0.0,
            stray: 0.0,
            poisoned: None,
        }
    }
}

/// The factory of one worker.
#[derive(Clone)]
pub(super) struct Application {
    pub(super) world: Shared,
    pub(super) host: usize,
    pub(super) worker: String,
}

impl RecordProcessorFactory for Application {
    type Processor = SimProcessor;

    fn create(&self, shard: &ShardInfo) -> SimProcessor {
        let mut world = self.world.lock();
        let fails = world.draws(|mood| mood.fails * 0.3);
        let tenure = world.history.tenures.len();
        world.history.tenures.push(Tenure {
            host: self.host,
            worker: self.worker.clone(),
            shard_id: shard.shard_id.clone(),
            position: shard.position,
            pending: shard.pending.clone(),
            token: None,
        });
        world.step(tenure, Step::Created);
        drop(world);
        if fails {
            blow_up();
        }
        SimProcessor {
            world: self.world.clone(),
            tenure,
            shard_id: shard.shard_id.clone(),
            handled: None,
        }
    }
}

/// Where records are put that nobody can process.
pub(super) struct Letters(pub(super) Shared);

#[async_trait]
impl DeadLetterQueue for Letters {
    async fn put(&self, letter: &DeadLetter) -> Result<(), ProcessorError> {
        let mut world = self.0.lock();
        if world.draws(|mood| mood.fails) {
            return Err("simulated".into());
        }
        let record = &letter.record;
        let id = (record.sequence_number(), record.sub_sequence_number());
        world.handled.insert(id);
        world.event(Event::Letter { record: id });
        Ok(())
    }
}

/// Panics without the hook that prints.
fn blow_up() -> ! {
    std::panic::resume_unwind(Box::new("simulated"))
}

impl World {
    fn draws(&mut self, odds: impl Fn(&Mood) -> f64) -> bool {
        let odds = odds(&self.mood);
        odds > 0.0 && self.mood_rng.f64() < odds
    }

    fn step(&mut self, tenure: usize, step: Step) {
        if let Step::Handled(ids) = &step {
            self.handled.extend(ids);
        }
        let at = self.time();
        self.history.note(at, What::Step { tenure, step });
    }
}

pub(super) struct SimProcessor {
    world: Shared,
    tenure: usize,
    shard_id: String,
    /// The last record that was declared done.
    handled: Option<Record>,
}

/// What is to be done with a batch.
struct Plan {
    takes: Duration,
    /// Checkpoint after so many records first.
    halfway: Option<usize>,
    outcome: Result<(), Failure>,
    checkpoints: bool,
    prepares: bool,
    /// The whole batch, without naming a record.
    bare: bool,
    stray: Option<Duration>,
}

#[derive(Clone, Copy)]
enum Failure {
    Error,
    Panic,
}

impl Plan {
    fn draw(world: &mut World, shard_id: &str, records: usize) -> Plan {
        let poisoned = world.mood.poisoned.as_deref() == Some(shard_id);
        let fails = world.draws(|mood| mood.fails) || poisoned;
        let failure = if world.draws(|mood| mood.panics) {
            Failure::Panic
        } else {
            Failure::Error
        };
        let slowest = world.mood.slowest;
        let takes = if world.draws(|mood| mood.slow) {
            slowest.mul_f64(world.mood_rng.f64())
        } else {
            Duration::from_millis(world.mood_rng.u64(..4))
        };
        let halfway = world.draws(|mood| mood.halfway) && records > 1;
        Plan {
            takes,
            halfway: halfway.then(|| world.mood_rng.usize(1..records.max(2))),
            outcome: if fails { Err(failure) } else { Ok(()) },
            checkpoints: world.draws(|mood| mood.checkpoints),
            prepares: world.draws(|mood| mood.prepares),
            bare: world.mood_rng.bool(),
            stray: world
                .draws(|mood| mood.stray)
                .then(|| slowest.mul_f64(2.0 * world.mood_rng.f64())),
        }
    }
}

fn ids(records: &[Record]) -> Vec<RecordId> {
    records
        .iter()
        .map(|record| (record.sequence_number(), record.sub_sequence_number()))
        .collect()
}

impl SimProcessor {
    fn note(&self, step: Step) {
        self.world.lock().step(self.tenure, step);
    }

    fn fails(&self) -> bool {
        self.world.lock().draws(|mood| mood.fails)
    }

    async fn checkpoint(
        &self,
        checkpointer: &Checkpointer,
        at: Option<&Record>,
    ) -> Result<(), Error> {
        let position = match at.or(self.handled.as_ref()) {
            Some(record) => record.position(),
            None => Position::TrimHorizon,
        };
        self.note(Step::Asked(position));
        let answer = match at {
            Some(record) => checkpointer.checkpoint_at(record).await,
            None => checkpointer.checkpoint().await,
        };
        self.note(Step::Answered(
            position,
            answer.as_ref().err().map(Error::kind),
        ));
        answer
    }

    /// The first of two phases.
    async fn prepare(
        &self,
        checkpointer: &Checkpointer,
        last: Option<&Record>,
    ) -> Result<PreparedCheckpoint, Error> {
        let state = self.tenure.to_be_bytes();
        let answer = checkpointer.prepare(state).await;
        let position = last.map_or(Position::TrimHorizon, Record::position);
        let kind = answer.as_ref().err().map(Error::kind);
        self.note(Step::Prepared(position, kind));
        answer
    }

    /// The second.
    async fn commit(&self, prepared: &PreparedCheckpoint) -> Result<(), Error> {
        let position = prepared.position();
        self.note(Step::Asked(position));
        let answer = prepared.commit().await;
        let kind = answer.as_ref().err().map(Error::kind);
        self.note(Step::Answered(position, kind));
        answer
    }

    /// A task of the application's own that checkpoints what was done by now, later.
    fn stray(&self, checkpointer: &Checkpointer, pause: Duration) {
        let Some(record) = self.handled.clone() else {
            return;
        };
        let (world, tenure, checkpointer) = (self.world.clone(), self.tenure, checkpointer.clone());
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let position = record.position();
            world.lock().step(tenure, Step::Asked(position));
            let answer = checkpointer.checkpoint_at(&record).await;
            let kind = answer.as_ref().err().map(Error::kind);
            world.lock().step(tenure, Step::Answered(position, kind));
        });
    }
}

#[async_trait]
impl RecordProcessor for SimProcessor {
    async fn initialize(&mut self, _shard: &ShardInfo) -> Result<(), ProcessorError> {
        if self.fails() {
            return Err("simulated".into());
        }
        self.note(Step::Initialized);
        Ok(())
    }

    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        let records = batch.records();
        let plan = {
            let mut world = self.world.lock();
            world.history.tenures[self.tenure].token = Some(checkpointer.token().clone());
            world.step(self.tenure, Step::Began(ids(records)));
            Plan::draw(&mut world, &self.shard_id, records.len())
        };
        tokio::time::sleep(plan.takes).await;
        if let Some(half) = plan.halfway {
            self.note(Step::Handled(ids(&records[..half])));
            self.handled = records.get(half - 1).cloned();
            let _whatever = self.checkpoint(checkpointer, self.handled.as_ref()).await;
        }
        let prepared = if plan.prepares {
            Some(self.prepare(checkpointer, records.last()).await)
        } else {
            None
        };
        if let Err(failure) = plan.outcome {
            self.note(Step::Failed);
            match failure {
                Failure::Error => return Err("simulated".into()),
                Failure::Panic => blow_up(),
            }
        }
        self.note(Step::Handled(ids(records)));
        self.handled = records.last().cloned();
        let at = self.handled.as_ref().filter(|_| !plan.bare);
        let answer = match prepared {
            Some(Ok(prepared)) => self.commit(&prepared).await,
            Some(Err(error)) => Err(error),
            None if plan.checkpoints => self.checkpoint(checkpointer, at).await,
            None => Ok(()),
        };
        if let Err(error) = answer {
            self.note(Step::Failed);
            return Err(error.into());
        }
        if let Some(pause) = plan.stray {
            self.stray(checkpointer, pause);
        }
        self.note(Step::Succeeded);
        Ok(())
    }

    async fn lease_lost(&mut self) {
        self.note(Step::LeaseLost);
    }

    async fn shard_ended(&mut self, _checkpointer: &Checkpointer) -> Result<(), ProcessorError> {
        if self.fails() {
            return Err("simulated".into());
        }
        self.note(Step::ShardEnded);
        Ok(())
    }

    async fn shutdown_requested(
        &mut self,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        self.note(Step::ShutdownRequested);
        if self.fails() {
            self.note(Step::ShutdownAnswered(false));
            return Err("simulated".into());
        }
        let answer = checkpointer.checkpoint().await;
        self.note(Step::ShutdownAnswered(answer.is_ok()));
        Ok(answer?)
    }
}
