//! Workers whose wall clocks are wrong and are set while they run: libfaketime stands between them and the machine's clock.

use crate::scene::{PATIENCE, Scene, Setup};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::history::{EventKind, deliveries, first_delivery, outstanding, outstanding_at_losses};
use support::{WorkerProcess, check, clock::now_us, wait_until};

/// Clocks are at most this much before or behind the machine's.
const WRONG_BY_SECONDS: i64 = 600;
/// How often they are set.
const JUMP: Duration = Duration::from_millis(250);

/// Where Debian and others keep the library.
fn library() -> PathBuf {
    let shelves = ["/usr/lib", "/usr/lib64", "/usr/local/lib"];
    let below = |shelf: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(shelf).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let folders = shelves
        .into_iter()
        .flat_map(|shelf| [vec![PathBuf::from(shelf)], below(shelf)].concat());
    let found = folders
        .flat_map(|folder| {
            let name = "libfaketimeMT.so.1";
            [folder.join("faketime").join(name), folder.join(name)]
        })
        .find(|path| path.exists());
    found.unwrap_or_else(|| {
        panic!("libfaketimeMT.so.1 is not in {shelves:?} or below: install faketime (Debian and Ubuntu: apt-get install faketime)")
    })
}

/// What the library leaves in shared memory when its process is killed.
#[derive(Default)]
struct Leavings(Vec<u32>);

impl Drop for Leavings {
    fn drop(&mut self) {
        for id in &self.0 {
            let _ = fs::remove_file(format!("/dev/shm/faketime_shm_{id}"));
            let _ = fs::remove_file(format!("/dev/shm/sem.faketime_sem_{id}"));
        }
    }
}

/// Sets the clock of the process that looks at `file`. At once: it may look at any moment.
fn set(file: &Path, seconds: i64) {
    let new = file.with_extension("new");
    fs::write(&new, format!("{seconds:+}\n")).unwrap();
    fs::rename(&new, file).unwrap();
}

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

async fn owners(scene: &Scene) -> BTreeMap<String, (Option<String>, i64)> {
    let mut connection = scene.fleet.store().look().await.unwrap();
    let table = support::leases::look(&mut connection).await.unwrap();
    let owners = table
        .into_iter()
        .map(|(shard, row)| (shard, (row.owner, row.counter)));
    owners.collect()
}

/// Three workers whose clocks are up to ten minutes off, each its own way, and jump back and forth all the time. While nobody dies no lease
/// changes hands; when one dies, its shards go on within the bound (K8). The server takes their signatures, nothing is lost
/// (K4), repeated without cause (K5), out of order (K6), or done by two at a time (K1, K2, K3).
#[tokio::test(flavor = "multi_thread")]
async fn k1_to_k8_hold_whatever_wall_clocks_say() {
    let _alone = support::alone().await;
    let mut random = support::seeded("wall_clocks");
    let library = library().display().to_string();
    let failover = Duration::from_millis(1500);
    let mut scene = Scene::with(Setup {
        failover,
        ..Setup::default()
    })
    .await;
    let mut leavings = Leavings::default();
    let mut workers = Vec::new();
    let mut clocks = Vec::new();
    for off in [-WRONG_BY_SECONDS, 0, WRONG_BY_SECONDS] {
        let clock = scene.fleet.file(&format!("clock{off}"));
        set(&clock, off);
        let path = clock.display().to_string();
        let environment = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", path.as_str()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            // Its older name.
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        let worker = scene.fleet.start_in(&environment).await;
        leavings.0.extend(worker.process_id());
        workers.push(worker);
        clocks.push(clock);
    }
    let jumping = tokio::spawn(async move {
        loop {
            tokio::time::sleep(JUMP).await;
            for clock in &clocks {
                set(clock, random.i64(-WRONG_BY_SECONDS..=WRONG_BY_SECONDS));
            }
        }
    });
    wait_until("all have their share", PATIENCE, || async {
        let owners = owners(&scene).await;
        let holds = |id: &str| {
            owners
                .values()
                .any(|(owner, _)| owner.as_deref() == Some(id))
        };
        workers.iter().all(|one| holds(one.id())).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let before = owners(&scene).await;
    let rounds = u32::try_from(support::scaled(12, 200)).unwrap();
    tokio::time::sleep(JUMP * rounds).await;
    assert_eq!(owners(&scene).await, before, "nobody died, nothing moves");

    let mut victim = workers.pop().unwrap();
    let orphans: Vec<_> = before
        .iter()
        .filter(|(_, (owner, _))| owner.as_deref() == Some(victim.id()))
        .map(|(shard, _)| shard.clone())
        .collect();
    let killed_us = now_us();
    victim.kill9().await;
    for shard in &orphans {
        let gone_on_us = wait_until("a survivor goes on", PATIENCE, || async {
            let first = |one: &WorkerProcess| {
                one.hear(|events| first_delivery(events, one.id(), shard, killed_us))
            };
            workers.iter().filter_map(first).min()
        })
        .await;
        let took = Duration::from_micros(gone_on_us - killed_us);
        assert!(took <= failover + Duration::from_secs(2), "K8: {took:?}");
    }
    let mut lost = vec![outstanding(&victim.events(), victim.id())];
    let start = start_wall_us();
    let seen: Vec<i64> = workers.iter().flat_map(|one| errors(one, start)).collect();
    let (least, most) = (seen.iter().min().unwrap(), seen.iter().max().unwrap());
    println!("clocks were {least} to {most} s off");
    assert!(*least < -WRONG_BY_SECONDS / 2, "no clock was behind");
    assert!(*most > WRONG_BY_SECONDS / 2, "no clock was before");
    for worker in &workers {
        let mut of = errors(worker, start);
        of.dedup();
        assert!(
            of.len() > 5,
            "the clock of {} was not set: {of:?}",
            worker.id()
        );
    }
    jumping.abort();
    assert!(jumping.await.unwrap_err().is_cancelled());
    scene.fleet.retire(&victim);
    let running: Vec<_> = workers.iter().collect();
    let (expected, parents, events) = scene.finish(&running).await;
    let counts = deliveries(&events);
    check::all_delivered(&expected, &counts).unwrap();
    lost.extend(outstanding_at_losses(&events));
    check::duplicates_bounded(&counts, &lost).unwrap();
    check::order_kept(&events, &parents).unwrap();
    check::one_owner(&events).unwrap();
    let refused =
        |event: &&support::history::Event| matches!(event.kind, EventKind::Refused { .. });
    assert_eq!(events.iter().find(refused), None);
}
