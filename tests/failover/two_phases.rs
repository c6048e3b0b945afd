//! Exactly once into another system: workers die between the phases of a prepared checkpoint, and the next owner finishes or
//! undoes what they left.

use crate::books::Books;
use crate::scene::{PATIENCE, Scene, Setup};
use millstream_test_postgres::Cluster;
use std::collections::BTreeMap;
use std::time::Duration;
use support::history::{Event, EventKind, noted, refusals};
use support::process::Signal;
use support::{Store, WorkerProcess, wait_until};

const FAILOVER: Duration = Duration::from_secs(1);
/// How long a worker stands still after each phase, to be killed there.
const PAUSE: Duration = Duration::from_millis(80);

/// Where each shard of a worker stands by its own account: the last thing said about it.
fn phases(events: &[Event]) -> BTreeMap<String, String> {
    let mut last = BTreeMap::new();
    for event in events {
        let Some(shard) = event.kind.shard() else {
            continue;
        };
        let phase = match &event.kind {
            EventKind::Noted { what, .. } => what.clone(),
            _ => String::new(),
        };
        last.insert(shard.to_owned(), phase);
    }
    last.retain(|_, phase| phase == "prepared" || phase == "applied");
    last
}

/// How often a worker found what another had left of a shard.
fn inherited(events: &[Event], shard: &str) -> usize {
    let of = |event: &&Event| matches!(&event.kind, EventKind::Noted { shard: of, what } if of == shard && what == "inherited");
    events.iter().filter(of).count()
}

/// How often somebody began with a shard.
fn tenures(events: &[Event], shard: &str) -> usize {
    let begins =
        |event: &&Event| matches!(&event.kind, EventKind::Initialized { shard: of } if of == shard);
    events.iter().filter(begins).count()
}

/// Whether the latest thing said of a shard comes from somebody who has got records of it.
fn is_at_work(events: &[Event], shard: &str) -> bool {
    let of_shard = events.iter().rev().map(|event| &event.kind);
    of_shard
        .filter(|kind| kind.shard() == Some(shard))
        .take_while(|kind| !matches!(kind, EventKind::Initialized { .. }))
        .any(|kind| matches!(kind, EventKind::Delivered { .. }))
}

struct Trial {
    scene: Scene,
    books: Books,
    workers: Vec<WorkerProcess>,
}

impl Trial {
    async fn start(store: Option<Store>) -> Trial {
        let mut scene = Scene::with(Setup {
            failover: FAILOVER,
            store,
            ..Setup::default()
        })
        .await;
        let other = scene.fleet.results();
        let books = Books::open(Store::Sqlite(other.clone())).await;
        scene.fleet = scene
            .fleet
            .with("--other", &other.display())
            .with("--pause-ms", &PAUSE.as_millis());
        let mut workers = Vec::new();
        for _ in 0..3 {
            workers.push(scene.fleet.start().await);
        }
        Trial {
            scene,
            books,
            workers,
        }
    }

    fn events(&self) -> Vec<Event> {
        self.scene.fleet.history(&self.workers)
    }

    /// Waits until some worker has just finished a phase; which worker.
    async fn caught_after(&self, phase: &str) -> usize {
        wait_until("a worker is between the phases", PATIENCE, || async {
            self.workers.iter().position(|worker| {
                worker.hear(|events| phases(events).values().any(|found| found == phase))
            })
        })
        .await
    }

    /// Whatever `left` names was left open by a worker: the next owner finds it. `before` are the events before that. What was applied
    /// may have been committed in the last moment; then there is nothing to find. How much was found.
    async fn taken_over(&self, left: &BTreeMap<String, String>, before: &[Event]) -> usize {
        let mut found = 0;
        for (shard, phase) in left {
            let (known, begun) = (inherited(before, shard), tenures(before, shard));
            found += wait_until("the next owner goes on", PATIENCE, || async {
                let events = self.events();
                let is_found = inherited(&events, shard) > known;
                let goes_on = tenures(&events, shard) > begun && is_at_work(&events, shard);
                assert!(
                    is_found || !goes_on || phase == "applied",
                    "nobody finds what was prepared of {shard}"
                );
                (is_found || goes_on).then_some(usize::from(is_found))
            })
            .await;
        }
        found
    }

    /// Kills a worker that has just finished `phase`; how many shards others found between the phases.
    async fn kill_after(&mut self, phase: &str) -> usize {
        let index = self.caught_after(phase).await;
        let mut victim = self.workers.swap_remove(index);
        victim.kill9().await;
        let left = victim.hear(phases);
        self.scene.fleet.retire(&victim);
        let before = self.events();
        self.workers.push(self.scene.fleet.start().await);
        let found = self.taken_over(&left, &before).await;
        self.books.audit().await;
        found
    }

    /// Suspends a worker that has just prepared, until others have finished or undone what it was about to do. It may have gone on
    /// before it was; then another one is.
    async fn make_zombie(&mut self) -> usize {
        for _ in 0..5 {
            let found = self.suspend_one().await;
            if found > 0 {
                return found;
            }
        }
        0
    }

    async fn suspend_one(&mut self) -> usize {
        let index = self.caught_after("prepared").await;
        let results = Store::Sqlite(self.scene.fleet.results());
        let stores = [self.scene.fleet.store(), &results];
        self.workers[index].suspend(&stores).await;
        // What it said before it stopped must have arrived.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let left = self.workers[index].hear(phases);
        let found = self.taken_over(&left, &self.events()).await;
        self.workers[index].signal(Signal::Cont).await;
        tokio::time::sleep(PAUSE * 4).await;
        self.books.audit().await;
        found
    }

    async fn end(mut self) -> Vec<Event> {
        let acked = self.scene.stop_writers().await.to_vec();
        self.books.complete(&acked).await.unwrap();
        for worker in &mut self.workers {
            assert_eq!(worker.terminate().await.code, Some(0), "{}", worker.log());
        }
        self.books.complete(&acked).await.unwrap();
        let mut leases = self.scene.fleet.store().connect().await.unwrap();
        let query = "SELECT lease_key, pending_checkpoint FROM leases";
        let pending = leases.rows(query, PATIENCE, |row| row.text("pending_checkpoint"));
        let pending: Vec<String> = pending.await.unwrap().into_iter().flatten().collect();
        assert_eq!(pending, [] as [&str; 0], "every checkpoint is whole");
        self.scene.end(&self.workers).await
    }
}

async fn next_owner_finishes_or_undoes(store: Option<Store>, rounds: usize) {
    let mut trial = Trial::start(store).await;
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for round in 0..rounds {
        let phase = if round % 2 == 0 {
            "prepared"
        } else {
            "applied"
        };
        *found.entry(phase).or_default() += trial.kill_after(phase).await;
        if round % 6 == 1 {
            *found.entry("zombie").or_default() += trial.make_zombie().await;
        }
    }
    let events = trial.end().await;
    let (notes, refusals) = (noted(&events), refusals(&events));
    println!("found {found:?}; {notes:?}; refused {refusals:?}");
    assert_eq!(found.len(), 3);
    assert!(found.values().all(|count| *count > 0), "{found:?}");
    let resolved = |how: &str| notes.get(how).copied().unwrap_or_default();
    assert!(resolved("finished") + resolved("undone") >= found.values().sum());
}

/// Workers are killed right after they have prepared, and right after the other system has their batch, and are suspended in between
/// until others have their shards: the other system's sums have every record exactly once.
#[tokio::test(flavor = "multi_thread")]
async fn exactly_once_in_two_phases_is_finished_or_undone_by_the_next_owner() {
    let _alone = support::alone().await;
    next_owner_finishes_or_undoes(None, support::scaled(5, 60)).await;
}

/// The long variant: the same with the leases in PostgreSQL.
#[tokio::test(flavor = "multi_thread")]
async fn exactly_once_in_two_phases_with_leases_in_postgres() {
    let rounds = support::scaled(0, 60);
    if rounds > 0 {
        let _alone = support::alone().await;
        let url = Cluster::shared().await.database().await;
        next_owner_finishes_or_undoes(Some(Store::Postgres(url)), rounds).await;
    }
}
