//! Leases in memory: for tests, and for applications that may start over with every process.

use super::rules::{self, Outcome, Surroundings};
use super::{
    Ask, Claim, Glance, Inspection, Lease, LeaseKey, LeaseStore, LeaseToken, Loads, Mark, NewLease,
    PendingCheckpoint, RESETS_KEPT, Registration, Release, Reset, ResetChange, ResetNote, Snapshot,
    Trouble, WorkerProfile, WorkerRow,
};
use crate::checkpoint::Position;
use crate::clock;
use crate::error::Error;
#[cfg(test)]
use crate::seeded_bug::{Bug, made};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

/// A lease store that lives and dies with the process. Clones share their content.
#[derive(Debug, Clone, Default)]
pub struct MemoryLeaseStore {
    /// One short lock around plain data; never held across an await.
    applications: Arc<Mutex<BTreeMap<String, Application>>>,
}

#[derive(Debug, Default)]
struct Application {
    leases: BTreeMap<LeaseKey, Lease>,
    workers: BTreeMap<String, Run>,
    /// Since when each lease has its owner: with the counter of that tenure.
    owned_since: BTreeMap<LeaseKey, (u64, u64)>,
    resets: Vec<ResetNote>,
}

#[derive(Debug, Clone)]
struct Run {
    incarnation: u64,
    row: WorkerRow,
    troubles: Vec<Trouble>,
}

impl MemoryLeaseStore {
    /// An empty store.
    pub fn new() -> Self {
        MemoryLeaseStore::default()
    }

    fn with<T>(&self, application: &str, act: impl FnOnce(&mut Application) -> T) -> T {
        let mut applications = self
            .applications
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        act(applications.entry(application.to_owned()).or_default())
    }
}

#[cfg(test)]
impl MemoryLeaseStore {
    /// Deletes a lease as somebody could by hand.
    pub(crate) fn tear_out(&self, application: &str, shard_id: &str) {
        self.with(application, |app| {
            app.leases.retain(|key, _| key.shard_id != shard_id);
        });
    }

    /// The leases as they are.
    pub(crate) fn leases(&self, application: &str) -> Vec<Lease> {
        self.with(application, |app| app.leases.values().cloned().collect())
    }

    /// Notes that a worker asks for a lease, whatever the division says.
    pub(crate) fn want(&self, application: &str, shard_id: &str, worker_id: &str) {
        self.with(application, |app| {
            let mut leases = app.leases.values_mut();
            let lease = leases.find(|lease| lease.key.shard_id == shard_id);
            lease.unwrap().wanted_by = Some(worker_id.to_owned());
        });
    }
}

impl Application {
    /// A lease with another owner, or none.
    fn set_owner(&mut self, lease: Lease) {
        if lease.owner.is_some() {
            let tenure = (lease.counter, wall_ms());
            self.owned_since.insert(lease.key.clone(), tenure);
        }
        self.leases.insert(lease.key.clone(), lease);
    }

    /// Since when each lease that is owned has its owner.
    fn owned_since_ms(&self) -> BTreeMap<LeaseKey, u64> {
        let since = |lease: &Lease| {
            lease.owner.as_ref()?;
            let (counter, since) = self.owned_since.get(&lease.key)?;
            (*counter == lease.counter).then(|| (lease.key.clone(), *since))
        };
        self.leases.values().filter_map(since).collect()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            leases: self.leases.values().cloned().collect(),
            workers: self.rows(),
            damaged: Vec::new(),
        }
    }

    fn rows(&self) -> Vec<WorkerRow> {
        self.workers.values().map(|run| run.row.clone()).collect()
    }

    fn mark(&self) -> Mark {
        let mut hasher = DefaultHasher::new();
        for lease in self.leases.values() {
            let ended = lease.checkpoint == Position::ShardEnd;
            (
                &lease.key,
                &lease.owner,
                lease.counter,
                &lease.wanted_by,
                ended,
            )
                .hash(&mut hasher);
        }
        Mark::new(hasher.finish().to_string())
    }

    fn is_current(&self, worker: &Registration) -> bool {
        self.workers
            .get(&worker.worker_id)
            .is_some_and(|run| run.incarnation == worker.incarnation)
    }

    fn require(&self, worker: &Registration) -> Result<(), Error> {
        if self.is_current(worker) {
            Ok(())
        } else {
            Err(rules::replaced(worker))
        }
    }

    fn forget(&mut self, worker_id: &str) {
        for lease in self.leases.values_mut() {
            if let Some(without) = rules::forget_worker(lease, worker_id) {
                *lease = without;
            }
        }
    }

    fn holds_any(&self, worker_id: &str) -> bool {
        self.leases
            .values()
            .any(|lease| lease.owner.as_deref() == Some(worker_id))
    }

    fn surroundings(&self, lease: &Lease) -> Surroundings {
        let ended = |shard_id: &String| {
            let key = LeaseKey {
                stream: lease.key.stream.clone(),
                shard_id: shard_id.clone(),
            };
            self.leases
                .get(&key)
                .is_none_or(|parent| parent.checkpoint == Position::ShardEnd)
        };
        Surroundings {
            owner_heartbeat: lease
                .owner
                .as_ref()
                .and_then(|owner| self.workers.get(owner))
                .map(|run| run.row.heartbeat),
            parents_ended: lease.parents.iter().all(ended),
        }
    }

    fn note(&mut self, reset: &Reset, changes: &[ResetChange]) {
        self.resets.push(ResetNote {
            number: self.resets.last().map_or(1, |last| last.number + 1),
            at_ms: wall_ms(),
            by: reset.by.clone(),
            asked: reset.asked.clone(),
            changes: changes.to_vec(),
        });
        let kept = usize::try_from(RESETS_KEPT).unwrap_or(usize::MAX);
        let surplus = self.resets.len().saturating_sub(kept);
        self.resets.drain(..surplus);
    }

    fn create(&mut self, leases: &[NewLease]) -> usize {
        let before = self.leases.len();
        for new in leases {
            self.leases
                .entry(new.key.clone())
                .or_insert_with(|| rules::create(new));
        }
        self.leases.len() - before
    }
}

#[async_trait]
impl LeaseStore for MemoryLeaseStore {
    async fn register(
        &self,
        application: &str,
        worker_id: &str,
        profile: &WorkerProfile,
    ) -> Result<Registration, Error> {
        let incarnation = rules::new_incarnation()?;
        self.with(application, |app| {
            let earlier = app.workers.get(worker_id).map(|run| run.row.heartbeat);
            let heartbeat = rules::first_heartbeat(earlier, incarnation);
            app.forget(worker_id);
            let row = WorkerRow {
                worker_id: worker_id.to_owned(),
                heartbeat,
                profile: profile.clone(),
                loads: Loads::new(),
            };
            let run = Run {
                incarnation,
                row,
                troubles: Vec::new(),
            };
            app.workers.insert(worker_id.to_owned(), run);
        });
        Ok(Registration {
            worker_id: worker_id.to_owned(),
            incarnation,
        })
    }

    async fn announce(
        &self,
        application: &str,
        worker: &Registration,
        profile: &WorkerProfile,
    ) -> Result<(), Error> {
        self.with(application, |app| {
            match app.workers.get_mut(&worker.worker_id) {
                Some(run) if run.incarnation == worker.incarnation => {
                    run.row.profile.clone_from(profile);
                    Ok(())
                }
                Some(_) | None => Err(rules::replaced(worker)),
            }
        })
    }

    async fn heartbeat(
        &self,
        application: &str,
        worker: &Registration,
        loads: &Loads,
        troubles: &[Trouble],
    ) -> Result<(), Error> {
        self.with(application, |app| {
            match app.workers.get_mut(&worker.worker_id) {
                Some(run) if run.incarnation == worker.incarnation => {
                    run.row.heartbeat = run.row.heartbeat.wrapping_add(1);
                    run.row.loads.clone_from(loads);
                    run.troubles = troubles.to_vec();
                    Ok(())
                }
                Some(_) | None => Err(rules::replaced(worker)),
            }
        })
    }

    async fn deregister(&self, application: &str, worker: &Registration) -> Result<(), Error> {
        self.with(application, |app| {
            if app.is_current(worker) {
                app.forget(&worker.worker_id);
                app.workers.remove(&worker.worker_id);
            }
        });
        Ok(())
    }

    async fn forget_workers(&self, application: &str, dead: &[WorkerRow]) -> Result<(), Error> {
        self.with(application, |app| {
            for row in dead {
                let unchanged = app
                    .workers
                    .get(&row.worker_id)
                    .is_some_and(|run| run.row.heartbeat == row.heartbeat);
                if unchanged && !app.holds_any(&row.worker_id) {
                    app.forget(&row.worker_id);
                    app.workers.remove(&row.worker_id);
                }
            }
        });
        Ok(())
    }

    async fn snapshot(&self, application: &str) -> Result<Snapshot, Error> {
        Ok(self.with(application, |app| app.snapshot()))
    }

    async fn glance(&self, application: &str, seen: Option<&Mark>) -> Result<Glance, Error> {
        Ok(self.with(application, |app| {
            let mark = app.mark();
            if seen == Some(&mark) {
                let workers = app.rows();
                return Glance::Same { workers };
            }
            Glance::Changed {
                mark: Some(mark),
                snapshot: app.snapshot(),
            }
        }))
    }

    async fn lease(&self, application: &str, key: &LeaseKey) -> Result<Option<Lease>, Error> {
        Ok(self.with(application, |app| app.leases.get(key).cloned()))
    }

    async fn create_leases(&self, application: &str, leases: &[NewLease]) -> Result<usize, Error> {
        Ok(self.with(application, |app| app.create(leases)))
    }

    async fn take(
        &self,
        application: &str,
        worker: &Registration,
        claims: &[Claim],
    ) -> Result<Vec<Lease>, Error> {
        self.with(application, |app| {
            app.require(worker)?;
            let mut taken = Vec::new();
            let mut seen = BTreeSet::new();
            for claim in claims.iter().filter(|claim| seen.insert(&claim.key)) {
                let Some(lease) = app.leases.get(&claim.key) else {
                    continue;
                };
                let around = app.surroundings(lease);
                let won = match rules::take(lease, claim, &worker.worker_id, around) {
                    Outcome::Write(won) => {
                        app.set_owner(won.clone());
                        won
                    }
                    Outcome::Done => lease.clone(),
                    Outcome::Refused => continue,
                };
                taken.push(won);
            }
            Ok(taken)
        })
    }

    async fn ask(
        &self,
        application: &str,
        worker: &Registration,
        asks: &[Ask],
    ) -> Result<usize, Error> {
        self.with(application, |app| {
            app.require(worker)?;
            let mut asked = 0;
            for ask in asks {
                let Some(lease) = app.leases.get_mut(&ask.key) else {
                    continue;
                };
                match rules::ask(lease, ask, &worker.worker_id) {
                    Outcome::Write(wanted) => *lease = wanted,
                    Outcome::Done => {}
                    Outcome::Refused => continue,
                }
                asked += 1;
            }
            Ok(asked)
        })
    }

    async fn checkpoint(
        &self,
        application: &str,
        token: &LeaseToken,
        position: &Position,
    ) -> Result<(), Error> {
        self.with(application, |app| {
            let lease = app
                .leases
                .get_mut(&token.key)
                .ok_or_else(|| rules::lost(token, None))?;
            *lease = rules::checkpoint(lease, token, position)?;
            Ok(())
        })
    }

    async fn prepare(
        &self,
        application: &str,
        token: &LeaseToken,
        pending: &PendingCheckpoint,
    ) -> Result<(), Error> {
        self.with(application, |app| {
            let lease = app
                .leases
                .get_mut(&token.key)
                .ok_or_else(|| rules::lost(token, None))?;
            *lease = rules::prepare(lease, token, pending)?;
            Ok(())
        })
    }

    async fn end_shard(
        &self,
        application: &str,
        token: &LeaseToken,
        children: &[NewLease],
    ) -> Result<(), Error> {
        self.with(application, |app| {
            let lease = app
                .leases
                .get_mut(&token.key)
                .ok_or_else(|| rules::lost(token, None))?;
            if let Outcome::Write(ended) = rules::end_shard(lease, token)? {
                *lease = ended;
                #[cfg(test)]
                let children = if made(Bug::NoChildren) { &[] } else { children };
                app.create(children);
            }
            Ok(())
        })
    }

    async fn release(&self, application: &str, releases: &[Release]) -> Result<usize, Error> {
        self.with(application, |app| {
            let mut released = 0;
            // All or nothing: nothing is written before every position has been found good.
            let mut staged: BTreeMap<LeaseKey, Lease> = BTreeMap::new();
            for release in releases {
                let key = &release.token.key;
                let Some(lease) = staged.get(key).or_else(|| app.leases.get(key)) else {
                    continue;
                };
                let to = release
                    .to
                    .as_deref()
                    .filter(|to| app.workers.contains_key(*to));
                if let Outcome::Write(given_up) = rules::release(lease, release, to)? {
                    staged.insert(key.clone(), given_up);
                    released += 1;
                }
            }
            for lease in staged.into_values() {
                app.set_owner(lease);
            }
            Ok(released)
        })
    }

    async fn delete_ended(&self, application: &str, keys: &[LeaseKey]) -> Result<usize, Error> {
        Ok(self.with(application, |app| {
            let before = app.leases.len();
            for key in keys {
                if app.leases.get(key).is_some_and(rules::is_ended) {
                    app.leases.remove(key);
                    app.owned_since.remove(key);
                }
            }
            before - app.leases.len()
        }))
    }

    async fn applications(&self) -> Result<Vec<String>, Error> {
        let applications = self.applications.lock();
        let applications = applications.unwrap_or_else(PoisonError::into_inner);
        let in_use = |app: &Application| !app.leases.is_empty() || !app.workers.is_empty();
        let named = applications.iter().filter(|(_, app)| in_use(app));
        Ok(named.map(|(name, _)| name.clone()).collect())
    }

    async fn inspect(&self, application: &str) -> Result<Inspection, Error> {
        Ok(self.with(application, |app| Inspection {
            snapshot: app.snapshot(),
            owned_since_ms: app.owned_since_ms(),
            troubles: app
                .workers
                .iter()
                .filter(|(_, run)| !run.troubles.is_empty())
                .map(|(id, run)| (id.clone(), run.troubles.clone()))
                .collect(),
        }))
    }

    async fn reset(&self, application: &str, reset: &Reset) -> Result<Vec<ResetChange>, Error> {
        self.with(application, |app| {
            let planned = reset.plan(application, &app.snapshot())?;
            let replaced = planned.replace.into_iter().map(|(_, after)| after);
            for lease in planned.create.into_iter().chain(replaced) {
                app.leases.insert(lease.key.clone(), lease);
            }
            if !planned.changes.is_empty() {
                app.note(reset, &planned.changes);
            }
            Ok(planned.changes)
        })
    }

    async fn resets(&self, application: &str) -> Result<Vec<ResetNote>, Error> {
        Ok(self.with(application, |app| {
            app.resets.iter().rev().cloned().collect()
        }))
    }
}

fn wall_ms() -> u64 {
    let since_epoch = clock::wall().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since_epoch.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
