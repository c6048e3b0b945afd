//! Random sequences of verbs by three workers: every store answers as memory does, and ends up alike.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const WORKERS: [&str; 3] = ["w0", "w1", "w2"];
const SHARDS: [&str; 4] = ["s0", "s1", "s2", "s3"];

/// A verb; small numbers are picked so that counters and positions are often, but not always, right.
#[derive(Debug, Clone)]
enum Verb {
    Register {
        worker: usize,
    },
    Heartbeat {
        worker: usize,
    },
    Deregister {
        worker: usize,
    },
    Forget {
        worker: usize,
        stale: bool,
    },
    Create {
        shard: usize,
        parent: Option<usize>,
    },
    Take {
        worker: usize,
        shards: Vec<usize>,
        as_expired: bool,
        off: u64,
    },
    Ask {
        worker: usize,
        shard: usize,
        replace: Option<usize>,
    },
    Checkpoint {
        shard: usize,
        position: u64,
        off: u64,
    },
    Prepare {
        shard: usize,
        position: u64,
        off: u64,
    },
    End {
        shard: usize,
        child: Option<usize>,
        off: u64,
    },
    Release {
        shards: Vec<usize>,
        position: Option<u64>,
        to: Option<usize>,
        off: u64,
    },
    Delete {
        shard: usize,
    },
    Reset {
        shards: Vec<usize>,
        /// The end if there is none.
        position: Option<u64>,
        whole: bool,
        empty: bool,
    },
}

fn verb() -> impl Strategy<Value = Verb> {
    let worker = || 0..WORKERS.len();
    let shard = || 0..SHARDS.len();
    let shards = || prop::collection::vec(0..SHARDS.len(), 1..4);
    let off = || prop_oneof![4 => Just(0u64), 1 => 1u64..3];
    prop_oneof![
        2 => worker().prop_map(|worker| Verb::Register { worker }),
        2 => worker().prop_map(|worker| Verb::Heartbeat { worker }),
        1 => worker().prop_map(|worker| Verb::Deregister { worker }),
        1 => (worker(), any::<bool>()).prop_map(|(worker, stale)| Verb::Forget { worker, stale }),
        2 => (shard(), prop::option::of(shard()))
            .prop_map(|(shard, parent)| Verb::Create { shard, parent }),
        6 => (worker(), shards(), any::<bool>(), off())
            .prop_map(|(worker, shards, as_expired, off)| Verb::Take { worker, shards, as_expired, off }),
        3 => (worker(), shard(), prop::option::of(worker()))
            .prop_map(|(worker, shard, replace)| Verb::Ask { worker, shard, replace }),
        4 => (shard(), 0u64..6, off())
            .prop_map(|(shard, position, off)| Verb::Checkpoint { shard, position, off }),
        2 => (shard(), 0u64..6, off())
            .prop_map(|(shard, position, off)| Verb::Prepare { shard, position, off }),
        1 => (shard(), prop::option::of(shard()), off())
            .prop_map(|(shard, child, off)| Verb::End { shard, child, off }),
        3 => (shards(), prop::option::of(0u64..6), prop::option::of(worker()), off())
            .prop_map(|(shards, position, to, off)| Verb::Release { shards, position, to, off }),
        1 => shard().prop_map(|shard| Verb::Delete { shard }),
        2 => (shards(), prop::option::of(0u64..6), any::<bool>(), any::<bool>())
            .prop_map(|(shards, position, whole, empty)| Verb::Reset { shards, position, whole, empty }),
    ]
}

/// One store under test. Incarnations and first heartbeats are random, so each store has its own registrations, and
/// heartbeats are compared by how far they have moved.
struct Subject {
    store: Arc<dyn LeaseStore>,
    registrations: BTreeMap<usize, Registration>,
    first_heartbeats: BTreeMap<String, u64>,
}

impl Subject {
    fn new(store: Arc<dyn LeaseStore>) -> Self {
        Subject {
            store,
            registrations: BTreeMap::new(),
            first_heartbeats: BTreeMap::new(),
        }
    }

    fn registration(&self, worker: usize) -> Registration {
        let none = Registration {
            worker_id: WORKERS[worker].to_owned(),
            incarnation: 0,
        };
        self.registrations.get(&worker).cloned().unwrap_or(none)
    }

    /// The current token, or one that is off by some tenures.
    fn token(snapshot: &Snapshot, shard: usize, off: u64) -> LeaseToken {
        let lease = snapshot
            .leases
            .iter()
            .find(|lease| lease.key == key(SHARDS[shard]));
        LeaseToken {
            key: key(SHARDS[shard]),
            owner: lease
                .and_then(|lease| lease.owner.clone())
                .unwrap_or_else(|| "w0".to_owned()),
            counter: lease.map_or(0, |lease| lease.counter.saturating_sub(off)),
        }
    }

    fn claim(snapshot: &Snapshot, shard: usize, as_expired: bool, off: u64) -> Claim {
        let token = Self::token(snapshot, shard, off);
        let row = snapshot
            .workers
            .iter()
            .find(|row| row.worker_id == token.owner);
        let expired = as_expired.then(|| ExpiredOwner {
            worker_id: token.owner,
            heartbeat: row.map(|row| row.heartbeat.wrapping_sub(off)),
        });
        Claim {
            key: token.key,
            counter: token.counter,
            expired,
        }
    }

    /// Does it; the answer as text without what is random.
    async fn perform(&mut self, verb: &Verb) -> String {
        let store = Arc::clone(&self.store);
        let snapshot = store.snapshot(APP).await.unwrap();
        match verb {
            Verb::Register { worker } => {
                let registration = store
                    .register(APP, WORKERS[*worker], &WorkerProfile::default())
                    .await
                    .unwrap();
                self.registrations.insert(*worker, registration);
                "registered".to_owned()
            }
            Verb::Heartbeat { worker } => answer(
                store
                    .heartbeat(APP, &self.registration(*worker), &Loads::new(), &[])
                    .await,
            ),
            Verb::Deregister { worker } => {
                answer(store.deregister(APP, &self.registration(*worker)).await)
            }
            Verb::Forget { worker, stale } => {
                let rows = snapshot
                    .workers
                    .iter()
                    .filter(|row| row.worker_id == WORKERS[*worker]);
                let observed = |row: &WorkerRow| WorkerRow {
                    heartbeat: row.heartbeat.wrapping_sub(u64::from(*stale)),
                    ..row.clone()
                };
                let dead: Vec<WorkerRow> = rows.map(observed).collect();
                answer(store.forget_workers(APP, &dead).await)
            }
            Verb::Create { shard, parent } => {
                let parents: Vec<&str> = parent.iter().map(|parent| SHARDS[*parent]).collect();
                answer(
                    store
                        .create_leases(APP, &[new_lease(SHARDS[*shard], &parents)])
                        .await,
                )
            }
            other => self.perform_on_leases(&snapshot, other).await,
        }
    }

    async fn perform_on_leases(&self, snapshot: &Snapshot, verb: &Verb) -> String {
        let store = Arc::clone(&self.store);
        match verb {
            Verb::Take {
                worker,
                shards,
                as_expired,
                off,
            } => {
                let claim = |shard: &usize| Self::claim(snapshot, *shard, *as_expired, *off);
                let claims: Vec<Claim> = shards.iter().map(claim).collect();
                answer(store.take(APP, &self.registration(*worker), &claims).await)
            }
            Verb::Ask {
                worker,
                shard,
                replace,
            } => {
                let counter = Self::token(snapshot, *shard, 0).counter;
                let ask = ask_for(
                    SHARDS[*shard],
                    counter,
                    replace.map(|worker| WORKERS[worker]),
                );
                answer(store.ask(APP, &self.registration(*worker), &[ask]).await)
            }
            Verb::Checkpoint {
                shard,
                position,
                off,
            } => {
                let token = Self::token(snapshot, *shard, *off);
                answer(store.checkpoint(APP, &token, &at(*position)).await)
            }
            Verb::Prepare {
                shard,
                position,
                off,
            } => {
                let token = Self::token(snapshot, *shard, *off);
                let pending = PendingCheckpoint {
                    position: at(*position),
                    state: vec![u8::try_from(*position).unwrap()],
                };
                answer(store.prepare(APP, &token, &pending).await)
            }
            Verb::End { shard, child, off } => {
                let token = Self::token(snapshot, *shard, *off);
                let children: Vec<NewLease> = child
                    .iter()
                    .map(|child| new_lease(SHARDS[*child], &[SHARDS[*shard]]))
                    .collect();
                answer(store.end_shard(APP, &token, &children).await)
            }
            Verb::Release {
                shards,
                position,
                to,
                off,
            } => {
                let token = |shard: &usize| Self::token(snapshot, *shard, *off);
                let tokens: Vec<LeaseToken> = shards.iter().map(token).collect();
                let releases = releases(&tokens, *position, to.map(|worker| WORKERS[worker]));
                answer(store.release(APP, &releases).await)
            }
            Verb::Reset {
                shards,
                position,
                whole,
                empty,
            } => {
                let start = |shard: &usize| NewLease {
                    checkpoint: position.map_or(Position::ShardEnd, at),
                    ..new_lease(SHARDS[*shard], &[])
                };
                let condition = match (whole, empty) {
                    (false, true) => ResetCondition::NoLeases,
                    _ => ResetCondition::Forced,
                };
                let reset = Reset {
                    by: "somebody".to_owned(),
                    asked: "something".to_owned(),
                    condition,
                    whole_stream: whole.then(|| STREAM.to_owned()),
                    starts: shards.iter().map(start).collect(),
                };
                answer(store.reset(APP, &reset).await)
            }
            Verb::Delete { shard } => answer(store.delete_ended(APP, &[key(SHARDS[*shard])]).await),
            other => unreachable!("{other:?} is about workers"),
        }
    }

    async fn state(&mut self) -> Snapshot {
        let mut snapshot = self.store.snapshot(APP).await.unwrap();
        let workers = &snapshot.workers;
        self.first_heartbeats
            .retain(|id, _| workers.iter().any(|row| row.worker_id == *id));
        for row in &mut snapshot.workers {
            let first = *self
                .first_heartbeats
                .entry(row.worker_id.clone())
                .or_insert(row.heartbeat);
            row.heartbeat = row.heartbeat.wrapping_sub(first);
        }
        snapshot
    }
}

/// Positions fall within the list, so that some lists are half good.
fn releases(tokens: &[LeaseToken], position: Option<u64>, to: Option<&str>) -> Vec<Release> {
    let release = |(index, token): (usize, &LeaseToken)| {
        let position = position.map(|position| at(position.saturating_sub(index as u64)));
        give_up(token, position, to)
    };
    tokens.iter().enumerate().map(release).collect()
}

fn answer<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{error:?}"),
    }
}

async fn compare(with: Stores, verbs: &[Verb]) {
    let mut subjects = [Subject::new(memory().one), Subject::new(with.one)];
    let mut counters: BTreeMap<LeaseKey, u64> = BTreeMap::new();
    for (step, verb) in verbs.iter().enumerate() {
        let [memory, other] = &mut subjects;
        let expected = memory.perform(verb).await;
        assert_eq!(other.perform(verb).await, expected, "step {step}: {verb:?}");
        let state = memory.state().await;
        assert_eq!(other.state().await, state, "after step {step}: {verb:?}");
        let held = counters.clone();
        counters.retain(|key, _| state.leases.iter().any(|lease| lease.key == *key));
        for lease in &state.leases {
            let before = held.get(&lease.key).copied().unwrap_or(0);
            assert!(lease.counter >= before, "K1: {verb:?} moved a counter back");
            counters.insert(lease.key.clone(), lease.counter);
        }
    }
}

fn on_a_runtime(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn k1_fenced_memory_and_sqlite_agree(verbs in prop::collection::vec(verb(), 1..60)) {
        on_a_runtime(async { compare(two_processes().await, &verbs).await });
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn k1_fenced_memory_and_postgres_agree(verbs in prop::collection::vec(verb(), 1..60)) {
        on_a_runtime(async { compare(postgres().await, &verbs).await });
    }
}
