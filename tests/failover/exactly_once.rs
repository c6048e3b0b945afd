//! Exactly once: sums by key, kept in one transaction with the checkpoint, and what kills, zombies, usurpers and failing
//! batches do to them.

use crate::books::Books;
use crate::scene::{PATIENCE, Scene, Setup};
use millstream_test_postgres::Cluster;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use support::history::{Event, EventKind, noted, refusals};
use support::process::Signal;
use support::{Store, WorkerProcess};
use tokio::time::Instant;

const FAILOVER: Duration = Duration::from_secs(1);
/// What a transaction that comes too late may be refused with.
const REFUSALS: [&str; 2] = ["LeaseLost", "InvalidPosition"];

struct Trial {
    scene: Scene,
    books: Books,
    workers: Vec<WorkerProcess>,
    /// While it is there, every third batch goes wrong in one way or another.
    mishaps: PathBuf,
    random: fastrand::Rng,
}

impl Trial {
    async fn start(store: Option<Store>) -> Trial {
        let random = support::seeded("exactly_once");
        let mut scene = Scene::with(Setup {
            delay: Duration::from_millis(30),
            failover: FAILOVER,
            store,
            ..Setup::default()
        })
        .await;
        let mishaps = scene.fleet.file("mishaps");
        fs::write(&mishaps, "").unwrap();
        scene.fleet = scene
            .fleet
            .with("--sums", &1)
            .with("--mishaps-while", &mishaps.display());
        let books = Books::open(scene.fleet.store().clone()).await;
        let mut workers = Vec::new();
        for _ in 0..3 {
            workers.push(scene.fleet.start().await);
        }
        Trial {
            scene,
            books,
            workers,
            mishaps,
            random,
        }
    }

    fn events(&self) -> Vec<Event> {
        self.scene.fleet.history(&self.workers)
    }

    /// Any worker, which is still at work: none ends by itself.
    fn any(&mut self) -> usize {
        let index = self.random.usize(..self.workers.len());
        let worker = &mut self.workers[index];
        assert!(worker.is_running(), "it ended by itself: {}", worker.log());
        index
    }

    async fn kill(&mut self) {
        let index = self.any();
        let mut victim = self.workers.swap_remove(index);
        victim.kill9().await;
        self.scene.fleet.retire(&victim);
        self.workers.push(self.scene.fleet.start().await);
    }

    /// A worker is suspended until others have its shards, and goes on where it was. In SQLite it may be in the middle of a
    /// transaction; then nobody gets any further until it wakes up.
    async fn make_zombie(&mut self) {
        let index = self.any();
        self.workers[index].signal(Signal::Stop).await;
        tokio::time::sleep(FAILOVER + Duration::from_millis(800)).await;
        self.workers[index].signal(Signal::Cont).await;
    }

    /// A shard that some worker has just got records of.
    fn busy_shard(&mut self) -> Option<String> {
        let index = self.any();
        self.workers[index].hear(|events| {
            let mut latest = events.iter().rev();
            let delivered =
                latest.find(|event| matches!(event.kind, EventKind::Delivered { .. }))?;
            delivered.kind.shard().map(str::to_owned)
        })
    }

    /// Takes a lease from a worker that has every reason to believe in it, until a transaction was refused for that: by the
    /// database, as the worker cannot know.
    async fn usurp(&mut self) {
        let refused = |trial: &Trial| refusals(&trial.events()).get("LeaseLost").copied();
        let before = refused(self);
        let deadline = Instant::now() + PATIENCE;
        let mut database = self.scene.fleet.store().connect().await.unwrap();
        while refused(self) == before {
            assert!(Instant::now() < deadline, "no transaction was refused");
            tokio::time::sleep(Duration::from_millis(20)).await;
            let Some(busy) = self.busy_shard() else {
                continue;
            };
            let free = format!(
                "UPDATE leases SET lease_owner = NULL, lease_counter = lease_counter + 1, wanted_by = NULL
                 WHERE lease_key = '{busy}' AND lease_owner IS NOT NULL AND checkpoint <> 'SHARD_END'"
            );
            database.change(free).await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Nothing goes wrong any more, everything is done, the workers end: the sums are right, and stay so.
    async fn end(mut self) -> Vec<Event> {
        fs::remove_file(&self.mishaps).unwrap();
        // A worker that believed in a commit notices with the next batch.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let acked = self.scene.stop_writers().await.to_vec();
        self.books.complete(&acked).await.unwrap();
        for worker in &mut self.workers {
            assert_eq!(worker.terminate().await.code, Some(0), "{}", worker.log());
        }
        self.books.complete(&acked).await.unwrap();
        let events = self.scene.end(&self.workers).await;
        println!("{} records; mishaps {:?}", acked.len(), noted(&events));
        events
    }
}

async fn sums_are_right(store: Option<Store>, kills: usize) {
    let mut trial = Trial::start(store).await;
    for kill in 1..=kills {
        let pause = trial.random.u64(100..800);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        match kill % 20 {
            4 => trial.scene.split_widest().await,
            11 => trial.scene.merge_narrowest().await,
            _ => {}
        }
        match kill % 6 {
            2 => trial.make_zombie().await,
            5 => trial.usurp().await,
            _ => {}
        }
        trial.kill().await;
        trial.books.audit().await;
    }
    let events = trial.end().await;
    let refusals = refusals(&events);
    println!("refused transactions: {refusals:?}");
    let strange = refusals
        .keys()
        .find(|kind| !REFUSALS.contains(&kind.as_str()));
    assert_eq!(strange, None, "{refusals:?}");
    assert!(refusals.contains_key("LeaseLost"), "K1: {refusals:?}");
}

/// Records with keys and amounts are added up by key in the leases' own database, while workers are killed at any moment,
/// suspended beyond the fail-over time, robbed of leases, and while batches fail half-way and commits are not believed: after
/// each kill and at the end every record counts exactly once.
#[tokio::test(flavor = "multi_thread")]
async fn exactly_once_sums_are_right_after_every_kill() {
    let _alone = support::alone().await;
    sums_are_right(None, support::scaled(12, 200)).await;
}

/// The same in PostgreSQL, where a zombie in the middle of a transaction delays only its shard.
#[tokio::test(flavor = "multi_thread")]
async fn exactly_once_sums_are_right_after_every_kill_in_postgres() {
    let _alone = support::alone().await;
    let url = Cluster::shared().await.database().await;
    sums_are_right(Some(Store::Postgres(url)), support::scaled(6, 200)).await;
}
