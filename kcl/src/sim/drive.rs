//! Drives a scenario: time, tick by tick, and what happens in it.

use super::check::Facts;
use super::history::Event;
use super::host::{Host, Settings};
use super::kinesis::Kinesis;
use super::processor::Mood;
use super::scenario::{Happening, Phase, Scenario};
use super::trouble::Action;
use super::world::{Cuts, Shared, World};
use fastrand::Rng;
use std::collections::BTreeMap;
use std::time::Duration;

/// A place for a process, which may stand empty.
pub(super) struct Slot {
    pub(super) host: Option<Host>,
    name: String,
    generation: u32,
    /// Its process was replaced by one in another slot.
    pub(super) retired: bool,
}

pub(super) struct Simulation {
    pub(super) scenario: Scenario,
    pub(super) world: Shared,
    pub(super) slots: Vec<Slot>,
    /// For what happens.
    pub(super) rng: Rng,
    agenda: BTreeMap<(Duration, u64), Action>,
    scheduled: u64,
    feed: Feed,
    next_put: Duration,
}

/// Which shards get records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feed {
    /// One of them, now and then.
    Any,
    /// All, all the time.
    All,
    None,
}

const SECOND: Duration = Duration::from_secs(1);
/// In calm times every shard gets a record this often.
const STEADY: Duration = Duration::from_millis(200);

impl Simulation {
    pub(super) fn new(scenario: Scenario) -> Self {
        let seed = scenario.seed;
        // What kcl draws comes from the thread's own generator.
        fastrand::seed(seed ^ 0x6b63_6c00_0000_0000);
        super::INCARNATIONS.set(true);
        let kinesis = Kinesis::new(scenario.shards, scenario.quirks.clone());
        let mut world = World::new(seed, kinesis, scenario.calm_weather(), Mood::kind());
        let identity = world.kinesis.current().identity();
        world.event(Event::StreamCreated { identity });
        Simulation {
            world: Shared::new(world),
            slots: Vec::new(),
            rng: Rng::with_seed(seed ^ 0x7363_7269_7074_0000),
            agenda: BTreeMap::new(),
            scheduled: 0,
            feed: Feed::Any,
            next_put: Duration::ZERO,
            scenario,
        }
    }

    /// What is to be judged.
    pub(super) fn into_facts(self) -> Facts {
        let Simulation {
            scenario,
            world,
            slots,
            ..
        } = self;
        // Processes hold on to the world.
        drop(slots);
        let mut world = world.lock();
        Facts {
            scenario,
            history: std::mem::take(&mut world.history),
            kinesis: std::mem::take(&mut world.kinesis),
            beginnings: std::mem::take(&mut world.beginnings),
            clock_stepped: world.clock_stepped,
        }
    }

    /// The whole scenario, from the first start to the last shutdown.
    pub(super) fn run(&mut self) {
        for slot in 0..self.scenario.hosts {
            self.add_slot(format!("w{slot}"));
            let at = SECOND.mul_f64(5.0 * self.rng.f64());
            self.at(at, Action::Start { slot, anew: false });
        }
        let pause = self.seconds(0.0, 5.0);
        self.run_for(pause);
        for phase in self.scenario.phases.clone() {
            match phase {
                Phase::Storm(length) => self.storm(length),
                Phase::Calm(happening) => self.calm(happening),
            }
        }
        self.finish();
    }

    pub(super) fn now(&self) -> Duration {
        self.world.lock().now
    }

    pub(super) fn event(&self, event: Event) {
        self.world.lock().event(event);
    }

    pub(super) fn add_slot(&mut self, name: String) -> usize {
        self.world.lock().cuts.push(Cuts::default());
        self.slots.push(Slot {
            host: None,
            name,
            generation: 0,
            retired: false,
        });
        self.slots.len() - 1
    }

    pub(super) fn at(&mut self, when: Duration, action: Action) {
        self.scheduled += 1;
        self.agenda.insert((when, self.scheduled), action);
    }

    pub(super) fn after(&mut self, pause: Duration, action: Action) {
        self.at(self.now() + pause, action);
    }

    /// Starts a process in an empty slot.
    pub(super) fn start(&mut self, slot: usize, anew: bool) {
        if self.slots[slot].host.is_some() || self.slots[slot].retired {
            return;
        }
        let place = &mut self.slots[slot];
        place.generation += u32::from(anew);
        let worker = match place.generation {
            0 => place.name.clone(),
            generation => format!("{}-{generation}", place.name),
        };
        let rate = 1.0 + self.scenario.drift * (2.0 * self.rng.f64() - 1.0);
        let settings = Settings::of(&self.scenario, slot, rate);
        self.slots[slot].host = Some(Host::start(&self.world, slot, worker, settings));
    }

    fn seconds(&mut self, from: f64, to: f64) -> Duration {
        SECOND.mul_f64(from + (to - from) * self.rng.f64())
    }

    pub(super) fn run_for(&mut self, length: Duration) {
        let end = self.now() + length;
        while self.now() < end {
            self.step();
        }
    }

    /// One tick: what is due arrives, what is planned happens, and every host lives for as long.
    fn step(&mut self) {
        self.world.lock().deliver_due();
        let now = self.now();
        while let Some(first) = self
            .agenda
            .first_entry()
            .filter(|first| first.key().0 <= now)
        {
            let action = first.remove();
            self.act(action);
        }
        self.put_records();
        let tick = self.scenario.tick;
        let mut order: Vec<usize> = (0..self.slots.len()).collect();
        self.rng.shuffle(&mut order);
        for slot in order {
            self.run_host(slot, now + tick);
        }
        self.world.lock().now = now + tick;
    }

    fn run_host(&mut self, slot: usize, until: Duration) {
        let Some(host) = self.slots[slot].host.as_mut().filter(|host| !host.paused) else {
            return;
        };
        host.run(&self.world, until, self.scenario.tick);
        let Some(panicked) = host.is_over() else {
            return;
        };
        let worker = host.worker.clone();
        self.slots[slot].host = None;
        if panicked {
            self.event(Event::Panicked { host: slot, worker });
        }
    }

    fn put_records(&mut self) {
        let mut world = self.world.lock();
        if world.now < self.next_put || self.feed == Feed::None {
            return;
        }
        let mut open = world.kinesis.current().open();
        let pause = if self.feed == Feed::All {
            STEADY
        } else {
            self.scenario.put_every
        };
        self.next_put = world.now + pause;
        if self.feed == Feed::Any {
            open = vec![open[self.rng.usize(..open.len())]];
        }
        for shard in open {
            let users = if self.rng.f64() < self.scenario.aggregates {
                self.rng.u64(1..5)
            } else {
                0
            };
            world.put(shard, users);
        }
    }

    fn storm(&mut self, length: Duration) {
        self.feed = Feed::Any;
        self.event(Event::FaultsBegin);
        let end = self.now() + length;
        {
            let mut world = self.world.lock();
            world.weather = self.scenario.stormy_weather(&mut self.rng);
            world.mood = self.scenario.bad_mood(&mut self.rng);
            world.kinesis.quirks = self.scenario.odd_server(&mut self.rng);
        }
        while self.now() < end {
            let pause = SECOND.mul_f64(0.1 + 2.5 * self.rng.f64());
            self.run_for(pause.min(end.saturating_sub(self.now())));
            self.trouble();
        }
        self.heal();
    }

    /// Ends every fault, and starts every process that should run.
    fn heal(&mut self) {
        while let Some((_, action)) = self.agenda.pop_first() {
            self.act(action);
        }
        for slot in 0..self.slots.len() {
            self.act(Action::Resume(slot));
            self.act(Action::Mend(slot));
            self.act(Action::Start { slot, anew: false });
        }
        let mut world = self.world.lock();
        world.weather = self.scenario.calm_weather();
        world.mood = Mood::kind();
        world.kinesis.quirks = self.scenario.quirks.clone();
        world.mend_clock();
        world.event(Event::FaultsEnd);
    }

    fn calm(&mut self, happening: Happening) {
        self.heal();
        self.feed = Feed::All;
        if !self.settle() {
            return;
        }
        self.event(Event::Calm);
        let pause = self.seconds(0.5, 1.5);
        self.run_for(pause);
        let slot = self.rng.usize(..self.slots.len());
        match happening {
            Happening::Crash => {
                self.crash(slot);
                self.run_for(self.scenario.failover_of(slot) + SECOND * 3);
            }
            Happening::Exit => {
                self.stop(slot);
                self.run_for(SECOND * 3);
            }
            Happening::TearOut => {
                self.tear_out();
                self.run_for(SECOND * 5);
            }
            Happening::Reshard => {
                self.reshard();
                self.run_for(SECOND);
                self.reshard();
                self.run_for(SECOND * 2);
            }
        }
        self.event(Event::FaultsEnd);
        self.start(slot, false);
    }

    /// Waits until everything is in its place, and stays so for a while.
    fn settle(&mut self) -> bool {
        let deadline = self.now() + self.scenario.patience();
        let lasting = self.scenario.longest_failover().max(SECOND * 2);
        let mut since = None;
        let mut why = String::new();
        while self.now() < deadline {
            for slot in 0..self.slots.len() {
                self.start(slot, false);
            }
            self.run_for(Duration::from_millis(250));
            match self.unsettled() {
                None if since.is_some_and(|since| self.now() >= since + lasting) => {
                    self.event(Event::Settled);
                    return true;
                }
                None => since = since.or(Some(self.now())),
                Some(reason) => (why, since) = (reason, None),
            }
        }
        self.event(Event::NeverQuiet { why });
        false
    }

    /// What is not in its place, if anything is.
    fn unsettled(&self) -> Option<String> {
        let hosts = self.slots.iter().filter_map(|slot| slot.host.as_ref());
        let cap = |index| self.scenario.cap_of(index).unwrap_or(usize::MAX);
        let workers: BTreeMap<String, usize> = hosts
            .map(|host| (host.worker.clone(), cap(host.index)))
            .collect();
        let fresh = if self.feed == Feed::None {
            Duration::ZERO
        } else {
            SECOND
        };
        self.world.lock().unsettled(&workers, &self.scenario, fresh)
    }

    /// Nothing fails any more and nothing comes in: everything must be processed. Then all shut down.
    fn finish(&mut self) {
        self.heal();
        self.feed = Feed::None;
        if !self.settle() {
            return;
        }
        self.event(Event::Quiet);
        for slot in 0..self.slots.len() {
            self.stop(slot);
            if self.rng.bool() {
                let pause = self.seconds(0.0, 1.0);
                self.run_for(pause);
            }
        }
        let deadline = self.now() + SECOND * 30;
        while self.slots.iter().any(|slot| slot.host.is_some()) {
            if self.now() > deadline {
                let why = "not all workers have shut down".to_owned();
                return self.event(Event::NeverQuiet { why });
            }
            self.step();
        }
    }
}
