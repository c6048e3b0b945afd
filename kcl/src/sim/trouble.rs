//! What happens to the hosts, the network, the store and the stream.

use super::drive::Simulation;
use super::history::Event;
use super::scenario::{MOST_SLOTS, pick};
use super::world::{Cuts, World};
use crate::config::InitialPosition;
use std::time::Duration;

/// Something that goes on with a trouble, or ends it, later.
#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    Start { slot: usize, anew: bool },
    Resume(usize),
    Cut(usize, Cuts),
    Mend(usize),
    StoreUp,
    KinesisUp,
    Soothe,
    CreateStream { shards: u32, takes: Duration },
}

const MOST_SHARDS: usize = 24;
const MOST_OPEN: usize = 10;
const TEN_MINUTES_MS: i64 = 600_000;

impl Simulation {
    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Start { slot, anew } => self.start(slot, anew),
            Action::Resume(slot) => self.resume(slot),
            Action::Mend(slot) => self.act(Action::Cut(slot, Cuts::default())),
            Action::Cut(slot, cuts) => {
                let mut world = self.world.lock();
                if world.cuts[slot] != cuts {
                    world.cuts[slot] = cuts;
                    world.fault(format!("host {slot} has {cuts:?}"));
                }
            }
            Action::StoreUp => {
                let mut world = self.world.lock();
                world.weather.store_down = false;
                world.fault("the store is up");
            }
            Action::KinesisUp => {
                let mut world = self.world.lock();
                world.weather.kinesis_down = false;
                world.fault("the endpoint is up");
            }
            Action::Soothe => self.world.lock().mood.poisoned = None,
            Action::CreateStream { shards, takes } => {
                let mut world = self.world.lock();
                let now = world.now;
                let identity = world.kinesis.create(shards, now, takes);
                world.event(Event::StreamCreated { identity });
            }
        }
    }

    /// One thing goes wrong.
    pub(super) fn trouble(&mut self) {
        match self.rng.u8(..100) {
            0..12 => self.crash_for_a_while(),
            12..22 => self.pause_for_a_while(),
            22..30 => self.stop_for_a_while(),
            30..42 => self.cut(),
            42..48 => self.lag(),
            48..54 => self.take_down(),
            54..68 => self.reshard(),
            68..74 => self.step_clock(),
            74..78 => {
                let mut world = self.world.lock();
                world.kinesis.generation += 1;
                world.fault("all iterators expire");
            }
            78..84 => self.retain(),
            84..90 => {
                let mood = self.scenario.bad_mood(&mut self.rng);
                self.world.lock().mood = mood;
            }
            90..94 => self.poison(),
            94..96 => self.recreate(),
            96 => self.replace(),
            97 => self.tear_out(),
            98 => self.pause_all(),
            _ => {
                let weather = self.scenario.stormy_weather(&mut self.rng);
                let mut world = self.world.lock();
                let (store_down, kinesis_down) =
                    (world.weather.store_down, world.weather.kinesis_down);
                world.weather = super::world::Weather {
                    store_down,
                    kinesis_down,
                    ..weather
                };
            }
        }
    }

    /// A length of time around the fail-over time.
    fn while_(&mut self, most: f64) -> Duration {
        self.scenario.failover.mul_f64(0.05 + most * self.rng.f64())
    }

    fn running(&mut self) -> Option<usize> {
        let running = |slot: &usize| {
            self.slots[*slot]
                .host
                .as_ref()
                .is_some_and(|host| !host.paused)
        };
        let running: Vec<usize> = (0..self.slots.len()).filter(running).collect();
        (!running.is_empty()).then(|| *pick(&mut self.rng, &running))
    }

    pub(super) fn crash(&mut self, slot: usize) {
        if let Some(host) = self.slots[slot].host.take() {
            self.event(Event::Crashed {
                host: slot,
                worker: host.worker.clone(),
                failover: self.scenario.failover_of(slot),
            });
        }
    }

    /// A graceful shutdown.
    pub(super) fn stop(&mut self, slot: usize) {
        if let Some(host) = &self.slots[slot].host {
            self.event(Event::ShutdownAsked {
                host: slot,
                worker: host.worker.clone(),
            });
            host.ask_to_stop();
        }
    }

    fn resume(&mut self, slot: usize) {
        if let Some(host) = self.slots[slot].host.as_mut().filter(|host| host.paused) {
            host.paused = false;
            self.event(Event::Resumed { host: slot });
        }
    }

    fn crash_for_a_while(&mut self) {
        let Some(slot) = self.running() else { return };
        self.crash(slot);
        let pause = self.while_(2.5);
        let anew = self.rng.bool();
        self.after(pause, Action::Start { slot, anew });
    }

    fn pause_for_a_while(&mut self) {
        let Some(slot) = self.running() else { return };
        if let Some(host) = &mut self.slots[slot].host {
            host.paused = true;
        }
        self.event(Event::Paused { host: slot });
        let pause = self.while_(3.0);
        self.after(pause, Action::Resume(slot));
    }

    /// As when the machine below is suspended.
    fn pause_all(&mut self) {
        let pause = self.while_(3.0);
        for slot in 0..self.slots.len() {
            if let Some(host) = self.slots[slot].host.as_mut().filter(|host| !host.paused) {
                host.paused = true;
                self.event(Event::Paused { host: slot });
                self.after(pause, Action::Resume(slot));
            }
        }
    }

    /// Somebody deletes a lease, and so tells the application to begin anew with its shard. Of a closed shard that would mean that it is
    /// done with, and under LATEST that what came until now is not wanted.
    pub(super) fn tear_out(&mut self) {
        let mut world = self.world.lock();
        let open = world.kinesis.current().open();
        if self.scenario.initial != InitialPosition::TrimHorizon || !world.kinesis.exists {
            return;
        }
        let shard = *pick(&mut self.rng, &open);
        let id = world.kinesis.current().shards[shard].shard.shard_id.clone();
        world.tear_out(&id);
    }

    fn stop_for_a_while(&mut self) {
        let Some(slot) = self.running() else { return };
        self.stop(slot);
        let pause = self.while_(1.5) + Duration::from_secs(1);
        let anew = self.rng.bool();
        self.after(pause, Action::Start { slot, anew });
    }

    fn cut(&mut self) {
        let slot = self.rng.usize(..self.slots.len());
        let rng = &mut self.rng;
        let cuts = match rng.u8(..4) {
            0 => Cuts {
                to_store: true,
                from_store: true,
                ..Cuts::default()
            },
            1 => Cuts {
                to_kinesis: true,
                from_kinesis: true,
                ..Cuts::default()
            },
            2 => Cuts {
                to_store: true,
                from_store: true,
                to_kinesis: true,
                from_kinesis: true,
                ..Cuts::default()
            },
            _ => Cuts {
                to_store: rng.bool(),
                from_store: rng.bool(),
                to_kinesis: rng.bool(),
                from_kinesis: rng.bool(),
                ..Cuts::default()
            },
        };
        self.act(Action::Cut(slot, cuts));
        let pause = self.while_(2.5);
        self.after(pause, Action::Mend(slot));
    }

    /// One host hears from the store ever later, and then is not heard any more: as long as it counts on its leases from when it heard,
    /// it delivers while others take them.
    fn lag(&mut self) {
        let Some(slot) = self.running() else { return };
        let lag = self.while_(0.8);
        let (first, then) = (self.while_(2.0), self.while_(1.5));
        let cuts = Cuts {
            lag,
            ..Cuts::default()
        };
        self.act(Action::Cut(slot, cuts));
        let cuts = Cuts {
            to_store: true,
            ..cuts
        };
        self.after(first, Action::Cut(slot, cuts));
        self.after(first + then, Action::Mend(slot));
    }

    fn take_down(&mut self) {
        let store = self.rng.bool();
        let pause = self.while_(2.0);
        let mut world = self.world.lock();
        if store {
            world.weather.store_down = true;
            world.fault("the store is down");
        } else {
            world.weather.kinesis_down = true;
            world.fault("the endpoint is down");
        }
        drop(world);
        self.after(
            pause,
            if store {
                Action::StoreUp
            } else {
                Action::KinesisUp
            },
        );
    }

    pub(super) fn reshard(&mut self) {
        let mut world = self.world.lock();
        let now = world.now;
        let stream = world.kinesis.current();
        let open = stream.open();
        if !world.kinesis.exists || stream.shards.len() >= MOST_SHARDS {
            return;
        }
        let neighbours = world.kinesis.neighbours(&mut self.rng);
        let splits = open.len() < MOST_OPEN && (neighbours.is_none() || self.rng.bool());
        let (closed, opened) = match neighbours {
            Some((lower, upper)) if !splits => world.kinesis.merge(lower, upper, now),
            _ => world.kinesis.split(*pick(&mut self.rng, &open), now),
        };
        world.event(Event::Reshard { closed, opened });
    }

    fn step_clock(&mut self) {
        let skew_ms = match self.rng.u8(..4) {
            0 => TEN_MINUTES_MS,
            1 => -TEN_MINUTES_MS,
            2 => self.rng.i64(-5000..5000),
            _ => 0,
        };
        self.world.lock().set_clock(skew_ms);
    }

    /// Records outlive the retention, mostly those that were processed.
    fn retain(&mut self) {
        let any = self.rng.u8(..6) == 0;
        let mut world = self.world.lock();
        let shards = world.kinesis.current().shards.len();
        let shard = self.rng.usize(..shards);
        let found = &world.kinesis.current().shards[shard];
        let read = found
            .records
            .iter()
            .take_while(|put| put.is_in(&world.handled))
            .count();
        let count = if any { found.records.len() } else { read };
        let id = found.shard.shard_id.clone();
        world.kinesis.trim(shard, count);
        world.fault(format!(
            "the first {count} records of {id} are not retained"
        ));
    }

    fn poison(&mut self) {
        let mut world = self.world.lock();
        let stream = world.kinesis.current();
        let shard = pick(&mut self.rng, &stream.shards).shard.shard_id.clone();
        world.fault(format!("{shard} is poisoned"));
        world.mood.poisoned = Some(shard);
        drop(world);
        let pause = self.while_(3.0);
        self.after(pause, Action::Soothe);
    }

    fn recreate(&mut self) {
        let shards = self.rng.u32(1..=8);
        let pause = self.while_(1.0);
        let takes = Duration::from_millis(self.rng.u64(..2000));
        let mut world = self.world.lock();
        if !world.kinesis.exists {
            return;
        }
        let identity = world.kinesis.delete();
        world.event(Event::StreamDeleted { identity });
        drop(world);
        self.after(pause, Action::CreateStream { shards, takes });
    }

    /// A process that stands still is replaced by another under its worker id, and comes back later.
    fn replace(&mut self) {
        let Some(slot) = self.running() else { return };
        if self.slots.len() >= MOST_SLOTS || self.slots[slot].retired {
            return;
        }
        let Some(host) = &mut self.slots[slot].host else {
            return;
        };
        host.paused = true;
        let worker = host.worker.clone();
        self.slots[slot].retired = true;
        self.event(Event::Paused { host: slot });
        let successor = self.add_slot(worker);
        let (pause, missed) = (self.while_(0.5), self.while_(1.5));
        self.after(
            pause,
            Action::Start {
                slot: successor,
                anew: false,
            },
        );
        self.after(pause + missed, Action::Resume(slot));
    }
}

impl World {
    pub(super) fn put(&mut self, shard: usize, users: u64) {
        let (now, after) = (self.now, self.history.entries.len());
        let Some(sequence) = self.kinesis.put(shard, users, now, after) else {
            return;
        };
        let stream = self.kinesis.current();
        let shard = crate::lease::LeaseKey {
            stream: stream.identity(),
            shard_id: stream.shards[shard].shard.shard_id.clone(),
        };
        self.event(Event::Put {
            shard,
            sequence,
            users,
        });
    }

    /// Puts the server's clock where it shows no time that it has shown before. A shard of which nothing was read yet is asked for from
    /// a time on; while that time lies in the future, because the clock went back, the server refuses, and nobody can do anything but wait.
    pub(super) fn mend_clock(&mut self) {
        self.set_clock(self.most_skew_ms);
    }

    pub(super) fn set_clock(&mut self, skew_ms: i64) {
        if self.kinesis.skew_ms != skew_ms {
            self.kinesis.skew_ms = skew_ms;
            self.most_skew_ms = self.most_skew_ms.max(skew_ms);
            self.clock_stepped = true;
            self.event(Event::ClockStepped { skew_ms });
        }
    }
}
