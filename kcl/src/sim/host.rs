//! One simulated process: a tokio runtime of its own on a clock of its own, and the supervisor that starts its worker again.
//!
//! A crash drops the runtime, and nothing of it runs any more. A pause does not drive it; then its clock leaps by what it
//! missed, as the monotonic clock does when a stopped process is continued.

use super::history::Event;
use super::kinesis::SimKinesis;
use super::processor::{Application, Letters};
use super::scenario::{Policy, Scenario};
use super::store::SimStore;
use super::world::{APPLICATION, Link, Shared};
use crate::clock::Instant;
use crate::config::{InitialPosition, Retrieval};
use crate::error::{Error, ErrorKind};
use crate::policy::ErrorPolicy;
use crate::worker::{Worker, WorkerHandle};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// What a worker is started with.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) initial: InitialPosition,
    pub(super) failover: Duration,
    pub(super) poll_interval: Duration,
    pub(super) retrieval: Retrieval,
    pub(super) sync_interval: Duration,
    pub(super) max_records: u32,
    pub(super) shutdown_grace: Duration,
    pub(super) request_timeout: Duration,
    pub(super) max_leases: usize,
    pub(super) batch_window: Duration,
    pub(super) max_batch_bytes: usize,
    pub(super) policy: Policy,
    /// How fast the clock runs.
    pub(super) rate: f64,
}

impl Settings {
    pub(super) fn of(scenario: &Scenario, slot: usize, rate: f64) -> Self {
        Settings {
            rate,
            policy: scenario.policy,
            max_leases: scenario.cap_of(slot).unwrap_or(usize::MAX),
            initial: scenario.initial,
            failover: scenario.failover_of(slot),
            poll_interval: scenario.poll_interval,
            retrieval: if scenario.fan_out {
                Retrieval::FanOut {
                    consumer_name: None,
                }
            } else {
                Retrieval::Polling
            },
            sync_interval: scenario.sync_interval,
            max_records: scenario.max_records,
            shutdown_grace: scenario.shutdown_grace,
            request_timeout: scenario.request_timeout,
            batch_window: scenario.batch_window,
            max_batch_bytes: scenario.max_batch_bytes,
        }
    }
}

pub(super) struct Host {
    pub(super) index: usize,
    pub(super) worker: String,
    runtime: Runtime,
    supervisor: JoinHandle<()>,
    control: Arc<Control>,
    /// Its clock when it started, and the world's.
    base: Instant,
    born: Duration,
    /// How fast its clock runs.
    rate: f64,
    pub(super) paused: bool,
}

/// How a worker is told to stop.
#[derive(Default)]
struct Control(Mutex<Wish>);

#[derive(Default)]
struct Wish {
    handle: Option<WorkerHandle>,
    stop: bool,
}

impl Control {
    fn stop(&self) {
        let mut wish = self.0.lock().unwrap();
        wish.stop = true;
        if let Some(handle) = &wish.handle {
            handle.shutdown();
        }
    }

    /// Takes the handle of a worker about to run; whether it is to run at all.
    fn admit(&self, handle: WorkerHandle) -> bool {
        let mut wish = self.0.lock().unwrap();
        wish.handle = Some(handle);
        !wish.stop
    }

    fn stopped(&self) -> bool {
        self.0.lock().unwrap().stop
    }
}

impl Host {
    pub(super) fn start(world: &Shared, index: usize, worker: String, settings: Settings) -> Self {
        let rate = settings.rate;
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let born = {
            let mut world = world.lock();
            world.event(Event::Started {
                host: index,
                worker: worker.clone(),
            });
            world.now
        };
        let base = runtime.block_on(async { crate::clock::now() });
        let control = Arc::new(Control::default());
        let link = Link {
            world: world.clone(),
            host: index,
            request_timeout: settings.request_timeout,
        };
        let application = Application {
            world: world.clone(),
            host: index,
            worker: worker.clone(),
        };
        let supervisor =
            runtime.spawn(supervise(link, application, settings, Arc::clone(&control)));
        Host {
            index,
            worker,
            runtime,
            supervisor,
            control,
            base,
            born,
            rate,
            paused: false,
        }
    }

    /// Lives until the world's clock says `until`.
    pub(super) fn run(&mut self, world: &Shared, until: Duration, tick: Duration) {
        let lived = until.saturating_sub(self.born).mul_f64(self.rate);
        let target = self.base + Duration::from_millis(u64::try_from(lived.as_millis()).unwrap());
        self.runtime.block_on(async {
            let behind = target.saturating_duration_since(crate::clock::now());
            world.lock().begin_turn(crate::clock::now());
            // A whole pause passes at once: all timers that were due in it are due now.
            if behind > tick * 2 {
                let missed = behind.saturating_sub(tick);
                world.lock().begin_turn(crate::clock::now() + missed);
                tokio::time::advance(missed).await;
            }
            tokio::time::sleep_until(target).await;
        });
        world.lock().end_turn();
    }

    pub(super) fn ask_to_stop(&self) {
        self.control.stop();
    }

    /// Whether it has nothing more to do; whether that came of a panic.
    pub(super) fn is_over(&mut self) -> Option<bool> {
        if !self.supervisor.is_finished() {
            return None;
        }
        Some(self.runtime.block_on(&mut self.supervisor).is_err())
    }
}

/// Runs a worker, and another after it, until it is asked to stop.
async fn supervise(
    link: Link,
    application: Application,
    settings: Settings,
    control: Arc<Control>,
) {
    let (world, host, worker) = (link.world.clone(), link.host, application.worker.clone());
    while !control.stopped() {
        let ended = work(&link, &application, &settings, &control).await;
        let event = Event::Ended {
            host,
            worker: worker.clone(),
            error: ended.as_ref().err().map(Error::kind),
            text: ended
                .as_ref()
                .err()
                .map(ToString::to_string)
                .unwrap_or_default(),
        };
        world.lock().event(event);
        // Whoever started another process under this id does not start this one again.
        if ended.is_err_and(|error| error.kind() == ErrorKind::WorkerReplaced) {
            return;
        }
        let pause = Duration::from_millis(fastrand::u64(100..1500));
        tokio::time::sleep(pause).await;
    }
}

async fn work(
    link: &Link,
    application: &Application,
    settings: &Settings,
    control: &Control,
) -> Result<(), Error> {
    let policy = match settings.policy {
        Policy::Retry => ErrorPolicy::retry(),
        Policy::Stop(attempts) => ErrorPolicy::stop().after(attempts),
        Policy::DeadLetter(attempts) => ErrorPolicy::dead_letter().after(attempts),
    };
    let worker = Worker::builder(APPLICATION, "orders")
        .on_error(policy)
        .dead_letters(Letters(application.world.clone()))
        .client(Arc::new(SimKinesis(link.clone())))
        .lease_store(SimStore(link.clone()))
        .worker_id(application.worker.clone())
        .initial_position(settings.initial)
        .failover_time(settings.failover)
        .poll_interval(settings.poll_interval)
        .retrieval(settings.retrieval.clone())
        .max_records(settings.max_records)
        .batch_window(settings.batch_window)
        .max_batch_bytes(settings.max_batch_bytes)
        .max_leases(settings.max_leases)
        .shard_sync_interval(settings.sync_interval)
        .shutdown_grace(settings.shutdown_grace)
        .build(application.clone())
        .await?;
    if control.admit(worker.handle()) {
        worker.run().await
    } else {
        Ok(())
    }
}
