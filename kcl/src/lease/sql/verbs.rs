//! The verbs of [`LeaseStore`](crate::lease::LeaseStore) over rows in a database. What each does to one lease is
//! [`rules`]'; here is what it reads and writes, in few statements however many leases it is about.

use super::{Change, Glance, Hold, Leases, Mark, Rows, Run, Scope, Signs, Verb};
use crate::checkpoint::Position;
use crate::error::{Error, ErrorKind};
use crate::lease::rules::{self, Outcome, Surroundings};
use crate::lease::{
    Ask, Claim, Inspection, Lease, LeaseKey, LeaseToken, NewLease, PendingCheckpoint, Registration,
    Release, Reset, ResetChange, ResetCondition, ResetNote, Snapshot, WorkerProfile, WorkerRow,
};
use std::collections::{BTreeMap, BTreeSet};

/// Leases read, and what has become of them since.
struct Working {
    now: Leases,
    /// As they were, those that have changed.
    before: Leases,
}

impl Working {
    fn new(leases: Leases) -> Self {
        Working {
            now: leases,
            before: Leases::new(),
        }
    }

    fn set(&mut self, after: Lease) {
        let key = after.key.clone();
        if let Some(before) = self.now.insert(key.clone(), after) {
            self.before.entry(key).or_insert(before);
        }
    }

    async fn write<R: Rows>(mut self, rows: &mut R) -> Result<(), Error> {
        let changes: Vec<Change> = self
            .before
            .into_iter()
            .filter_map(|(key, before)| {
                let after = self.now.remove(&key)?;
                Some(Change { before, after })
            })
            .collect();
        if changes.is_empty() {
            return Ok(());
        }
        rows.replace(&changes).await
    }
}

fn keys<'a>(keys: impl IntoIterator<Item = &'a LeaseKey>) -> BTreeSet<LeaseKey> {
    keys.into_iter().cloned().collect()
}

async fn one<R: Rows>(rows: &mut R, key: &LeaseKey, hold: Hold) -> Result<Option<Lease>, Error> {
    Ok(rows.leases(&keys([key]), hold).await?.remove(key))
}

/// The lease that a token is about.
async fn held<R: Rows>(rows: &mut R, token: &LeaseToken) -> Result<Lease, Error> {
    let lease = one(rows, &token.key, Hold::Wait).await?;
    lease.ok_or_else(|| rules::lost(token, None))
}

async fn replace<R: Rows>(rows: &mut R, before: Lease, after: Lease) -> Result<(), Error> {
    rows.replace(&[Change { before, after }]).await
}

/// The run of the registration, if it is the current one.
fn current(runs: &BTreeMap<String, Run>, worker: &Registration) -> Option<Run> {
    let run = runs.get(&worker.worker_id).copied();
    run.filter(|run| run.incarnation == worker.incarnation)
}

fn require(runs: &BTreeMap<String, Run>, worker: &Registration) -> Result<(), Error> {
    match current(runs, worker) {
        Some(_) => Ok(()),
        None => Err(rules::replaced(worker)),
    }
}

/// Takes workers out of the leases they hold or ask for.
fn forget(leases: &mut Working, worker_ids: &BTreeSet<&str>) {
    for worker_id in worker_ids {
        let without: Vec<Lease> = leases
            .now
            .values()
            .filter_map(|lease| rules::forget_worker(lease, worker_id))
            .collect();
        for lease in without {
            leases.set(lease);
        }
    }
}

pub(in crate::lease) struct Register<'a> {
    worker_id: &'a str,
    profile: &'a WorkerProfile,
    incarnation: u64,
}

impl<'a> Register<'a> {
    pub(in crate::lease) fn new(
        worker_id: &'a str,
        profile: &'a WorkerProfile,
    ) -> Result<Self, Error> {
        Ok(Register {
            worker_id,
            profile,
            incarnation: rules::new_incarnation()?,
        })
    }
}

impl Verb for Register<'_> {
    type Answer = Registration;
    const SCOPE: Scope = Scope::Application;

    async fn perform<R: Rows>(&self, rows: &mut R) -> Result<Registration, Error> {
        let me = BTreeSet::from([self.worker_id]);
        let mut leases = Working::new(rows.leases_of(&me).await?);
        forget(&mut leases, &me);
        leases.write(rows).await?;
        let runs = rows.runs(&me).await?;
        let earlier = runs.get(self.worker_id).map(|run| run.heartbeat);
        let run = Run {
            incarnation: self.incarnation,
            heartbeat: rules::first_heartbeat(earlier, self.incarnation),
        };
        rows.put_run(self.worker_id, run, self.profile).await?;
        Ok(Registration {
            worker_id: self.worker_id.to_owned(),
            incarnation: self.incarnation,
        })
    }
}

pub(in crate::lease) struct Announce<'a> {
    pub(in crate::lease) worker: &'a Registration,
    pub(in crate::lease) profile: &'a WorkerProfile,
}

impl Verb for Announce<'_> {
    type Answer = ();
    const SCOPE: Scope = Scope::Heartbeat;

    async fn perform<R: Rows>(&self, rows: &mut R) -> Result<(), Error> {
        let worker_id = self.worker.worker_id.as_str();
        let runs = rows.runs(&BTreeSet::from([worker_id])).await?;
        require(&runs, self.worker)?;
        rows.put_profile(worker_id, self.profile).await
    }
}

pub(in crate::lease) struct Heartbeat<'a> {
    pub(in crate::lease) worker: &'a Registration,
    pub(in crate::lease) signs: Signs<'a>,
}

impl Verb for Heartbeat<'_> {
    type Answer = ();
    const SCOPE: Scope = Scope::Heartbeat;

    async fn perform<R: Rows>(&self, rows: &mut R) -> Result<(), Error> {
        let worker_id = self.worker.worker_id.as_str();
        let runs = rows.runs(&BTreeSet::from([worker_id])).await?;
        let Some(run) = current(&runs, self.worker) else {
            return Err(rules::replaced(self.worker));
        };
        let next = run.heartbeat.wrapping_add(1);
        rows.beat(worker_id, next, self.signs).await
    }
}

pub(in crate::lease) struct Deregister<'a> {
    pub(in crate::lease) worker: &'a Registration,
}

impl Verb for Deregister<'_> {
    type Answer = ();
    const SCOPE: Scope = Scope::Application;

    async fn perform<R: Rows>(&self, rows: &mut R) -> Result<(), Error> {
        let me = BTreeSet::from([self.worker.worker_id.as_str()]);
        let mut leases = Working::new(rows.leases_of(&me).await?);
        let runs = rows.runs(&me).await?;
        if current(&runs, self.worker).is_none() {
            return Ok(());
        }
        forget(&mut leases, &me);
        leases.write(rows).await?;
        rows.delete_runs(&me).await
    }
}

pub(in crate::lease) struct ForgetWorkers<'a> {
    pub(in crate::lease) dead: &'a [WorkerRow],
}

impl Verb for ForgetWorkers<'_> {
    type Answer = ();
    const SCOPE: Scope = Scope::Application;

    async fn perform<R: Rows>(&self, rows: &mut R) -> Result<(), Error> {
        let named: BTreeSet<&str> = self.dead.iter().map(|row| &*row.worker_id).collect();
        let leases = rows.leases_of(&named).await?;
        let holders: BTreeSet<&str> = leases
            .values()
            .filter_map(|lease| lease.owner.as_deref())
            .collect();
        let runs = rows.runs(&named).await?;
        let unchanged = |row: &&WorkerRow| {
            let run = runs.get(&row.worker_id);
            run.is_some_and(|run| run.heartbeat == row.heartbeat)
        };
        let gone: BTreeSet<&str> = self
            .dead
            .iter()
            .filter(unchanged)
            .map(|row| &*row.worker_id)
            .filter(|worker_id| !holders.contains(worker_id))
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        let mut leases = Working::new(leases);
        forget(&mut leases, &gone);
        leases.write(rows).await?;
        rows.delete_runs(&gone).await
    }
}

pub(in crate::lease) struct TakeSnapshot;

impl Verb for TakeSnapshot {
    type Answer = Snapshot;
    const SCOPE: Scope = Scope::Look;

    async fn perform<R: Rows>(&self, rows: &mut R) -> Result<Snapshot, Error> {
        rows.everything().await
    }
}

pub(in crate::lease) struct TakeGlance<'a> {
    pub(in crate::lease) seen: Option<&'a Mark>,
}

impl Verb for TakeGlance<'_> {
    type Answer = Glance;
    const SCOPE: Scope = Scope::Look;

    async fn perform<R: Rows>(&self, rows: &mut R) -> Result<Glance, Error> {
        // What is read after it is no older: so the mark may stand for less than was read, never for more.
        let mark = rows.mark().await?;
        if mark.is_some() && mark.as_ref() == self.seen {
            let workers = rows.workers().await?;
            return Ok(Glance::Same { workers });
        }
        let snapshot = rows.everything().await?;
        Ok(Glance::Changed { mark, snapshot })
    }
}

pub(in crate::lease) struct Look<'a> {
    pub(in crate::lease) key: &'a LeaseKey,
}

impl Verb for Look<'_> {
    type Answer = Option<Lease>;
    const SCOPE: Scope = Scope::Look;

    async fn perform<R: Rows>(&self, rows: &mut R) -> Result<Option<Lease>, Error> {
        one(rows, self.key, Hold::Not).await
    }
}

pub(in crate::lease) struct Create<'a> {
    pub(in crate::lease) leases: &'a [NewLease],
}

impl Verb for Create<'_> {
    type Answer = usize;
    const SCOPE: Scope = Scope::Application;

    async fn perform<R: Rows>(&self, rows: &mut R) -> Result<usize, Error> {
        create(rows, self.leases).await
    }
}

async fn create<R: Rows>(rows: &mut R, new: &[NewLease]) -> Result<usize, Error> {
    if new.is_empty() {
        return Ok(0);
    }
    let leases: Vec<Lease> = new.iter().map(rules::create).collect();
    rows.create(&leases).await
}

pub(in crate::lease) struct Take<'a> {
    pub(in crate::lease) worker: &'a Registration,
    pub(in crate::lease) claims: &'a [Claim],
}

impl Take<'_> {
    /// What the claim of a lease depends on.
    fn around(
        lease: &Lease,
        runs: &BTreeMap<String, Run>,
        unended: &BTreeSet<LeaseKey>,
    ) -> Surroundings {
        let owner = lease.owner.as_ref().and_then(|owner| runs.get(owner));
        Surroundings {
            owner_heartbeat: owner.map(|run| run.heartbeat),
            parents_ended: parents(lease).all(|parent| !unended.contains(&parent)),
        }
    }
}

fn parents(lease: &Lease) -> impl Iterator<Item = LeaseKey> {
    lease.parents.iter().map(|shard_id| LeaseKey {
        stream: lease.key.stream.clone(),
        shard_id: shard_id.clone(),
    })
}

impl Verb for Take<'_> {
    type Answer = Vec<Lease>;
    const SCOPE: Scope = Scope::Application;

    async fn perform<R: Rows>(&self, rows: &mut R) -> Result<Vec<Lease>, Error> {
        let me = self.worker.worker_id.as_str();
        let wanted = keys(self.claims.iter().map(|claim| &claim.key));
        // A lease in whose row somebody writes is not as it was observed, or soon will not be.
        let leases = rows.leases(&wanted, Hold::Skip).await?;
        let mut living: BTreeSet<&str> = leases
            .values()
            .filter_map(|lease| lease.owner.as_deref())
            .collect();
        living.insert(me);
        let runs = rows.runs(&living).await?;
        require(&runs, self.worker)?;
        let parents: BTreeSet<LeaseKey> = leases.values().flat_map(parents).collect();
        let unended = if parents.is_empty() {
            BTreeSet::new()
        } else {
            rows.unended(&parents).await?
        };
        let (mut taken, mut changes, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for claim in self.claims.iter().filter(|claim| seen.insert(&claim.key)) {
            let Some(lease) = leases.get(&claim.key) else {
                continue;
            };
            let around = Take::around(lease, &runs, &unended);
            match rules::take(lease, claim, me, around) {
                Outcome::Write(won) => {
                    let before = lease.clone();
                    let after = won.clone();
                    changes.push(Change { before, after });
                    taken.push(won);
                }
                Outcome::Done => taken.push(lease.clone()),
                Outcome::Refused => {}
            }
        }
        if !changes.is_empty() {
            rows.replace(&changes).await?;
        }
        Ok(taken)
    }
}

pub(in crate::lease) struct AskFor<'a> {
    pub(in crate::lease) worker: &'a Registration,
    pub(in crate::lease) asks: &'a [Ask],
}

impl Verb for AskFor<'_> {
    type Answer = usize;
    const SCOPE: Scope = Scope::Application;

    async fn perform<R: Rows>(&self, rows: &mut R) -> Result<usize, Error> {
        let me = self.worker.worker_id.as_str();
        let wanted = keys(self.asks.iter().map(|ask| &ask.key));
        let mut leases = Working::new(rows.leases(&wanted, Hold::Skip).await?);
        require(&rows.runs(&BTreeSet::from([me])).await?, self.worker)?;
        let mut asked = 0;
        for ask in self.asks {
            let Some(lease) = leases.now.get(&ask.key) else {
                continue;
            };
            match rules::ask(lease, ask, me) {
                Outcome::Write(wanted) => leases.set(wanted),
                Outcome::Done => {}
                Outcome::Refused => continue,
            }
            asked += 1;
        }
        leases.write(rows).await?;
        Ok(asked)
    }
}

pub(in crate::lease) struct Checkpoint<'a> {
    pub(in crate::lease) token: &'a LeaseToken,
    pub(in crate::lease) position: &'a Position,
}

impl Verb for Checkpoint<'_> {
    type Answer = ();
    const SCOPE: Scope = Scope::Lease;

    async fn perform<R: Rows>(&self, rows: &mut R) -> Result<(), Error> {
        let lease = held(rows, self.token).await?;
        let moved = rules::checkpoint(&lease, self.token, self.position)?;
        replace(rows, lease, moved).await
    }
}

pub(in crate::lease) struct Prepare<'a> {
    pub(in crate::lease) token: &'a LeaseToken,
    pub(in crate::lease) pending: &'a PendingCheckpoint,
}

impl Verb for Prepare<'_> {
    type Answer = ();
    const SCOPE: Scope = Scope::Lease;

    async fn perform<R: Rows>(&self, rows: &mut R) -> Result<(), Error> {
        let lease = held(rows, self.token).await?;
        rules::prepare(&lease, self.token, self.pending)?;
        rows.note(&lease, self.pending).await
    }
}

pub(in crate::lease) struct EndShard<'a> {
    pub(in crate::lease) token: &'a LeaseToken,
    pub(in crate::lease) children: &'a [NewLease],
}

impl Verb for EndShard<'_> {
    type Answer = ();
    const SCOPE: Scope = Scope::Application;

    async fn perform<R: Rows>(&self, rows: &mut R) -> Result<(), Error> {
        let lease = held(rows, self.token).await?;
        let Outcome::Write(ended) = rules::end_shard(&lease, self.token)? else {
            return Ok(());
        };
        replace(rows, lease, ended).await?;
        create(rows, self.children).await.map(drop)
    }
}

pub(in crate::lease) struct GiveUp<'a> {
    pub(in crate::lease) releases: &'a [Release],
}

impl Verb for GiveUp<'_> {
    type Answer = usize;
    const SCOPE: Scope = Scope::Application;

    async fn perform<R: Rows>(&self, rows: &mut R) -> Result<usize, Error> {
        let given = keys(self.releases.iter().map(|release| &release.token.key));
        let mut leases = Working::new(rows.leases(&given, Hold::Wait).await?);
        let heirs: BTreeSet<&str> = self
            .releases
            .iter()
            .filter_map(|release| release.to.as_deref())
            .collect();
        let runs = if heirs.is_empty() {
            BTreeMap::new()
        } else {
            rows.runs(&heirs).await?
        };
        let mut released = 0;
        for release in self.releases {
            let Some(lease) = leases.now.get(&release.token.key) else {
                continue;
            };
            let to = release.to.as_deref().filter(|to| runs.contains_key(*to));
            if let Outcome::Write(given_up) = rules::release(lease, release, to)? {
                leases.set(given_up);
                released += 1;
            }
        }
        leases.write(rows).await?;
        Ok(released)
    }
}

pub(in crate::lease) struct DeleteEnded<'a> {
    pub(in crate::lease) keys: &'a [LeaseKey],
}

impl Verb for DeleteEnded<'_> {
    type Answer = usize;
    const SCOPE: Scope = Scope::Application;

    async fn perform<R: Rows>(&self, rows: &mut R) -> Result<usize, Error> {
        let leases = rows.leases(&keys(self.keys), Hold::Skip).await?;
        let ended: BTreeSet<LeaseKey> = leases
            .into_values()
            .filter(rules::is_ended)
            .map(|lease| lease.key)
            .collect();
        if !ended.is_empty() {
            rows.delete(&ended).await?;
        }
        Ok(ended.len())
    }
}

pub(in crate::lease) struct NameApplications;

impl Verb for NameApplications {
    type Answer = Vec<String>;
    const SCOPE: Scope = Scope::Look;

    async fn perform<R: Rows>(&self, rows: &mut R) -> Result<Vec<String>, Error> {
        rows.applications().await
    }
}

pub(in crate::lease) struct Inspect;

impl Verb for Inspect {
    type Answer = Inspection;
    const SCOPE: Scope = Scope::Look;

    async fn perform<R: Rows>(&self, rows: &mut R) -> Result<Inspection, Error> {
        let snapshot = rows.everything().await?;
        let details = rows.details().await?;
        Ok(Inspection {
            snapshot,
            owned_since_ms: details.owned_since_ms,
            troubles: details.troubles,
        })
    }
}

pub(in crate::lease) struct ResetLeases<'a> {
    pub(in crate::lease) application: &'a str,
    pub(in crate::lease) reset: &'a Reset,
}

impl Verb for ResetLeases<'_> {
    type Answer = Vec<ResetChange>;
    const SCOPE: Scope = Scope::Application;

    async fn perform<R: Rows>(&self, rows: &mut R) -> Result<Vec<ResetChange>, Error> {
        let named = self.reset.keys();
        let mut stored = rows.everything().await?;
        // Held from here on: no checkpoint comes between the look and the write.
        let held = rows.leases(&named, Hold::Wait).await?;
        stored.leases.retain(|lease| !named.contains(&lease.key));
        stored.leases.extend(held.into_values());
        if let ResetCondition::NobodyLives { .. } = self.reset.condition {
            // Held, too: no heartbeat comes between either, and one that is under way is waited for.
            let workers = stored.workers.iter();
            let runs = rows
                .runs(&workers.map(|row| row.worker_id.as_str()).collect())
                .await?;
            stored.workers.retain_mut(|row| {
                let run = runs.get(&row.worker_id);
                row.heartbeat = run.map_or(row.heartbeat, |run| run.heartbeat);
                run.is_some()
            });
        }
        let planned = self.reset.plan(self.application, &stored)?;
        if !planned.create.is_empty() {
            let created = rows.create(&planned.create).await?;
            if created != planned.create.len() {
                return Err(Error::new(
                    ErrorKind::Store,
                    format!(
                        "{created} of {} leases could be created: the rows of the others are there and make no sense; repair or delete them, nothing was changed",
                        planned.create.len()
                    ),
                ));
            }
        }
        let changes: Vec<Change> = planned
            .replace
            .into_iter()
            .map(|(before, after)| Change { before, after })
            .collect();
        if !changes.is_empty() {
            rows.replace(&changes).await?;
        }
        if !planned.changes.is_empty() {
            rows.note_reset(self.reset, &planned.changes).await?;
        }
        Ok(planned.changes)
    }
}

pub(in crate::lease) struct ListResets;

impl Verb for ListResets {
    type Answer = Vec<ResetNote>;
    const SCOPE: Scope = Scope::Look;

    async fn perform<R: Rows>(&self, rows: &mut R) -> Result<Vec<ResetNote>, Error> {
        rows.resets().await
    }
}
