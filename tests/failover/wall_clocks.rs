//! Workers whose wall clocks are wrong and are set while they run: libfaketime stands between them and the machine's clock.

use crate::scene::{FAILOVER, PATIENCE, Scene};
use std::collections::BTreeSet;
use std::time::Duration;
use support::clock::now_us;
use support::fake_clock::{FakeClock, Leavings};
use support::history::{Event, EventKind, Place, deliveries, first_delivery, holders, outstanding};
use support::{WorkerProcess, check, wait_until};
use tokio::task::JoinHandle;

/// Clocks are at most this much before or behind the machine's.
const WRONG_BY_SECONDS: i64 = 600;
/// How often they are set.
const JUMP: Duration = Duration::from_millis(250);

/// How far a worker's wall clock was from the true one at each thing it said, in seconds.
fn errors(worker: &WorkerProcess, start_wall_us: i64) -> Vec<i64> {
    let lines = worker.said();
    let error = |line: &serde_json::Value| {
        let (wall, at) = (line["wall_us"].as_i64()?, line["at_us"].as_i64()?);
        Some((wall - at - start_wall_us) / 1_000_000)
    };
    lines.iter().filter_map(error).collect()
}

/// The wall clock's time at the zero of [`now_us`].
#[expect(
    clippy::disallowed_methods,
    reason = "what faked clocks are compared with"
)]
fn start_wall_us() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.unwrap().as_micros()).unwrap() - i64::try_from(now_us()).unwrap()
}

struct Trial {
    scene: Scene,
    workers: Vec<WorkerProcess>,
    clocks: Vec<FakeClock>,
    /// Last, so that the workers are gone before.
    leavings: Leavings,
}

impl Trial {
    /// Three workers, one ten minutes behind, one right, one ten minutes ahead.
    async fn start() -> Trial {
        let mut trial = Trial {
            scene: Scene::start(Duration::from_millis(5)).await,
            workers: Vec::new(),
            clocks: Vec::new(),
            leavings: Leavings::default(),
        };
        for off in [-WRONG_BY_SECONDS, 0, WRONG_BY_SECONDS] {
            let file = trial.scene.fleet.file(&format!("clock{off}"));
            let clock = FakeClock::at(file, off);
            let environment = clock.environment();
            let environment: Vec<_> = environment.iter().map(|(n, v)| (*n, v.as_str())).collect();
            let worker = trial.scene.fleet.start_in(&environment).await;
            trial.leavings.of(worker.process_id());
            trial.workers.push(worker);
            trial.clocks.push(clock);
        }
        trial
    }

    /// Sets all clocks again and again.
    fn make_clocks_jump(&self) -> JoinHandle<()> {
        let clocks = self.clocks.clone();
        let mut random = support::seeded("wall_clocks");
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(JUMP).await;
                for clock in &clocks {
                    clock.set(random.i64(-WRONG_BY_SECONDS..=WRONG_BY_SECONDS));
                }
            }
        })
    }

    /// The shards that a worker holds.
    fn held_by(&self, id: &str) -> Vec<String> {
        let holders = holders(&self.scene.fleet.history(&self.workers));
        let held = holders.into_iter().filter(|(_, holder)| holder == id);
        held.map(|(shard, _)| shard).collect()
    }

    async fn all_have_their_share(&self) {
        wait_until("all have their share", PATIENCE, || async {
            let holds = |one: &WorkerProcess| !self.held_by(one.id()).is_empty();
            self.workers.iter().all(holds).then_some(())
        })
        .await;
    }

    /// One dies, and the others go on with its shards in time; what may come again for that.
    async fn kill_one(&mut self) -> BTreeSet<Place> {
        let id = self.workers.last().unwrap().id().to_owned();
        let orphans = self.held_by(&id);
        let mut victim = self.workers.pop().unwrap();
        let killed_us = now_us();
        victim.kill9().await;
        for shard in &orphans {
            let gone_on_us = wait_until("a survivor goes on", PATIENCE, || async {
                let first = |one: &WorkerProcess| {
                    one.hear(|events| first_delivery(events, one.id(), shard, killed_us))
                };
                self.workers.iter().filter_map(first).min()
            })
            .await;
            let took = Duration::from_micros(gone_on_us - killed_us);
            assert!(took <= FAILOVER + Duration::from_secs(2), "K8: {took:?}");
        }
        self.scene.fleet.retire(&victim);
        outstanding(&victim.events(), victim.id())
    }

    /// The clocks were wrong, and each was set while its worker ran.
    fn clocks_were_wrong(&self) {
        let start = start_wall_us();
        let errors: Vec<_> = self.workers.iter().map(|one| errors(one, start)).collect();
        let (least, most) = (errors.iter().flatten().min(), errors.iter().flatten().max());
        let (least, most) = (*least.unwrap(), *most.unwrap());
        println!("clocks were {least} to {most} s off");
        assert!(least < -WRONG_BY_SECONDS / 2, "no clock was behind");
        assert!(most > WRONG_BY_SECONDS / 2, "no clock was ahead");
        for mut of_one in errors {
            of_one.dedup();
            assert!(of_one.len() > 5, "a clock was not set: {of_one:?}");
        }
    }
}

/// Three workers whose clocks are up to ten minutes off, each its own way, and jump back and forth all the time. While nobody dies nobody
/// is taken for dead; when one dies, its shards go on within the bound (K8). The server takes their signatures, nothing is lost
/// (K4), repeated without cause (K5), out of order (K6), or done by two at a time (K1, K2, K3).
#[tokio::test(flavor = "multi_thread")]
async fn k1_to_k8_hold_whatever_wall_clocks_say() {
    let _alone = support::alone().await;
    let mut trial = Trial::start().await;
    let jumping = trial.make_clocks_jump();
    trial.all_have_their_share().await;
    let rounds = u32::try_from(support::scaled(12, 200)).unwrap();
    tokio::time::sleep(JUMP * rounds).await;
    let open = trial.kill_one().await;
    trial.clocks_were_wrong();
    jumping.abort();
    assert!(jumping.await.unwrap_err().is_cancelled());
    let running: Vec<_> = trial.workers.iter().collect();
    let (expected, parents, events) = trial.scene.finish(&running).await;
    let given_up = |event: &&Event| {
        matches!(
            event.kind,
            EventKind::LeaseLost { .. } | EventKind::Refused { .. }
        )
    };
    assert_eq!(
        events.iter().find(given_up),
        None,
        "nobody was dead and lost a lease"
    );
    let counts = deliveries(&events);
    check::all_delivered(&expected, &counts).unwrap();
    check::duplicates_bounded(&counts, &[open]).unwrap();
    check::order_kept(&events, &parents).unwrap();
    check::one_owner(&events).unwrap();
}
