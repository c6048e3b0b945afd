//! Many workers racing for the leases of one database through two stores.

use super::*;
use std::collections::BTreeMap;
use std::sync::Mutex;

const WORKERS: usize = 8;
const ROUNDS: usize = 25;
const SHARDS: [&str; 3] = ["s0", "s1", "s2"];

/// What the winners saw: every token handed out with the checkpoint it started from, and every checkpoint that was accepted.
#[derive(Debug, Default)]
struct History {
    tokens: BTreeMap<(LeaseKey, u64), (String, Position)>,
    checkpoints: BTreeMap<LeaseKey, Vec<(u64, Position)>>,
}

async fn race(store: Arc<dyn LeaseStore>, id: usize, history: Arc<Mutex<History>>) {
    let worker = join(&store, &format!("w{id}")).await;
    for round in 0..ROUNDS {
        store
            .heartbeat(APP, &worker, &Loads::new(), &[])
            .await
            .unwrap();
        let snapshot = store.snapshot(APP).await.unwrap();
        // Half of the claims go for held leases whose owner is taken for dead, as a paused worker would have it.
        let claim = |lease: &Lease| Claim {
            key: lease.key.clone(),
            counter: lease.counter,
            expired: lease.owner.as_ref().map(|owner| ExpiredOwner {
                worker_id: owner.clone(),
                heartbeat: snapshot
                    .workers
                    .iter()
                    .find(|row| row.worker_id == *owner)
                    .map(|row| row.heartbeat),
            }),
        };
        let wanted = &snapshot.leases[(id + round) % snapshot.leases.len()];
        let taken = store.take(APP, &worker, &[claim(wanted)]).await.unwrap();
        for lease in taken {
            let entry = (
                (lease.key.clone(), lease.counter),
                (worker.worker_id.clone(), lease.checkpoint),
            );
            let twin = history.lock().unwrap().tokens.insert(entry.0, entry.1);
            assert_eq!(twin, None, "K1: one token was handed out twice");
            work(&store, &lease, round, &history).await;
        }
    }
}

/// Checkpoints under a token, then gives it up, unless somebody took the lease.
async fn work(store: &Arc<dyn LeaseStore>, lease: &Lease, round: usize, history: &Mutex<History>) {
    let mine = token(lease);
    let before = match lease.checkpoint {
        Position::Sequence { sequence, .. } => sequence.to_string().parse::<u64>().unwrap(),
        _ => 0,
    };
    for step in 1..3 {
        let position = at(before + step);
        match store.checkpoint(APP, &mine, &position).await {
            Ok(()) => {
                let mut history = history.lock().unwrap();
                history
                    .checkpoints
                    .entry(mine.key.clone())
                    .or_default()
                    .push((mine.counter, position));
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}");
                return;
            }
        }
    }
    if round.is_multiple_of(2) {
        store
            .release(APP, &[give_up(&mine, None, None)])
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn k1_fenced_racing_workers_never_share_a_token() {
    race_through(two_processes().await).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn k1_fenced_racing_workers_never_share_a_token_in_postgres() {
    race_through(two_postgres_processes().await).await;
}

async fn race_through(stores: Stores) {
    let leases = SHARDS.map(|shard| new_lease(shard, &[]));
    stores.one.create_leases(APP, &leases).await.unwrap();
    let history = Arc::new(Mutex::new(History::default()));
    let mut tasks = tokio::task::JoinSet::new();
    for id in 0..WORKERS {
        let store = if id % 2 == 0 {
            &stores.one
        } else {
            &stores.other
        };
        tasks.spawn(race(Arc::clone(store), id, Arc::clone(&history)));
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let history = history.lock().unwrap();
    assert!(
        history.tokens.len() > SHARDS.len(),
        "leases changed hands: {history:?}"
    );
    assert!(!history.checkpoints.is_empty());
    for (key, accepted) in &history.checkpoints {
        // Accepted checkpoints, ordered by the token they were stored under, never move back, whoever stored them.
        let mut accepted = accepted.clone();
        accepted.sort_by_key(|(counter, _)| *counter);
        for pair in accepted.windows(2) {
            let ((_, earlier), (_, later)) = (pair[0], pair[1]);
            assert!(earlier.may_advance_to(&later), "K3: {earlier} then {later}");
        }
        // Nothing was stored under a token after a later one had been handed out.
        for ((_, token), (_, start)) in history.tokens.iter().filter(|((of, _), _)| of == key) {
            for (_, position) in accepted.iter().filter(|(counter, _)| counter < token) {
                assert!(
                    position.may_advance_to(start),
                    "K1: {position} was stored behind token {token}"
                );
            }
        }
    }
}
