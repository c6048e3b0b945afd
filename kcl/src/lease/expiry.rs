//! Who has stopped: remembers when each heartbeat was first seen, on the observer's own monotonic clock.
//!
//! Clocks of different machines are never compared. The first sight starts the clock, so an observer that has just
//! started lets the whole fail-over time pass before it calls anybody expired.

use super::{LeaseKey, Snapshot, WorkerRow};
use crate::checkpoint::Position;
use crate::clock::Instant;
#[cfg(test)]
use crate::seeded_bug::{Bug, made};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Expired workers and the heartbeat observed, `None` for an owner that has no row.
pub type Expired = BTreeMap<String, Option<u64>>;

/// Leases nobody came for, and how many times half the fail-over time they have waited: at least once.
pub type Overdue = BTreeMap<LeaseKey, u32>;

/// How long a worker must have been silent before its row is removed. A worker that was only paused is refused after
/// that, while a row costs next to nothing; so this is far beyond any fail-over time.
pub const FORGET_AFTER: Duration = Duration::from_hours(24);

/// How many fail-over times after a change of its leases a worker's load is taken for what it will be.
const SETTLED_AFTER: u32 = 3;

/// What an observer remembers from one snapshot to the next. Bounded by the workers and leases of the last one.
#[derive(Debug, Clone)]
pub struct Observer {
    failover: Duration,
    /// When the last snapshot was noted.
    observed: Option<Instant>,
    workers: BTreeMap<String, Seen<Option<u64>>>,
    /// Free leases by counter.
    free: BTreeMap<LeaseKey, Seen<u64>>,
    /// Owners of the other leases.
    owners: BTreeMap<LeaseKey, String>,
    /// Workers that give their leases up one by one, and when they last did.
    leaving: BTreeMap<String, Instant>,
    /// When each worker last won or lost a lease, or was seen first.
    changed: BTreeMap<String, Instant>,
    /// The fail-over times of those workers that say theirs.
    failovers: BTreeMap<String, Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Seen<T> {
    value: T,
    since: Instant,
}

impl Observer {
    /// An observer that has seen nothing; a worker that does not move its heartbeat for its fail-over time has expired.
    /// `failover` is that of a worker whose row does not say it.
    pub fn new(failover: Duration) -> Self {
        Observer {
            failover,
            observed: None,
            workers: BTreeMap::new(),
            free: BTreeMap::new(),
            owners: BTreeMap::new(),
            leaving: BTreeMap::new(),
            changed: BTreeMap::new(),
            failovers: BTreeMap::new(),
        }
    }

    /// Takes note of a snapshot. `now` is read *after* the snapshot was, so that a heartbeat never counts as older than
    /// it is.
    ///
    /// While nobody could look, nobody could be seen to live: a pause between two snapshots counts for no more than a
    /// third of the fail-over time, the longest that a live worker goes without a heartbeat. So when a store comes back that
    /// was out of reach for all, or when all were paused, workers do not take each other for dead.
    pub fn observe(&mut self, snapshot: &Snapshot, now: Instant) {
        if let Some(last) = self.observed.replace(now) {
            let gap = now.saturating_duration_since(last);
            let (failovers, own) = (&self.failovers, self.failover);
            for (worker, seen) in &mut self.workers {
                let failover = failovers.get(worker).copied().unwrap_or(own);
                seen.since += gap.saturating_sub(failover / 3);
            }
            let unseen = gap.saturating_sub(own / 3);
            self.free.values_mut().for_each(|seen| seen.since += unseen);
        }
        let stated = |row: &WorkerRow| Some((row.worker_id.clone(), row.profile.failover?));
        self.failovers = snapshot.workers.iter().filter_map(stated).collect();
        let open = snapshot
            .leases
            .iter()
            .filter(|lease| lease.checkpoint != Position::ShardEnd);
        let owned = open
            .clone()
            .filter_map(|lease| Some((lease.key.clone(), lease.owner.clone()?)));
        let before = std::mem::replace(&mut self.owners, owned.collect());
        self.note_leaving(&before, snapshot, now);
        self.note_changes(&before, snapshot, now);
        let mut present: BTreeMap<String, Option<u64>> = self
            .owners
            .values()
            .map(|owner| (owner.clone(), None))
            .collect();
        present.extend(
            snapshot
                .workers
                .iter()
                .map(|row| (row.worker_id.clone(), Some(row.heartbeat))),
        );
        self.workers = note(&self.workers, present, now);
        let free = open.filter(|lease| lease.owner.is_none());
        let free = free
            .map(|lease| (lease.key.clone(), lease.counter))
            .collect();
        self.free = note(&self.free, free, now);
    }

    /// A worker that gives a lease up to nobody while it holds others is shutting down. One that is registered anew gives all up
    /// at once, and one that gets a lease is there to stay.
    fn note_leaving(
        &mut self,
        before: &BTreeMap<LeaseKey, String>,
        snapshot: &Snapshot,
        now: Instant,
    ) {
        for lease in &snapshot.leases {
            match (before.get(&lease.key), &lease.owner) {
                (Some(former), None)
                    if lease.checkpoint != Position::ShardEnd
                        && self.owners.values().any(|owner| owner == former) =>
                {
                    self.leaving.insert(former.clone(), now);
                }
                (former, Some(owner)) if former != Some(owner) => {
                    self.leaving.remove(owner);
                }
                _ => {}
            }
        }
        self.leaving
            .retain(|_, since| now.saturating_duration_since(*since) < self.failover);
    }

    /// Who has won or lost a lease since the last look.
    fn note_changes(
        &mut self,
        before: &BTreeMap<LeaseKey, String>,
        snapshot: &Snapshot,
        now: Instant,
    ) {
        let differ = |this: &BTreeMap<LeaseKey, String>, other: &BTreeMap<LeaseKey, String>| {
            let moved = this
                .iter()
                .filter(|(key, owner)| other.get(*key) != Some(*owner));
            moved.map(|(_, owner)| owner.clone()).collect::<Vec<_>>()
        };
        let moved = [differ(before, &self.owners), differ(&self.owners, before)].concat();
        for row in &snapshot.workers {
            self.changed.entry(row.worker_id.clone()).or_insert(now);
        }
        self.changed
            .extend(moved.into_iter().map(|worker| (worker, now)));
        let rows = snapshot.workers.iter();
        let registered: BTreeSet<&str> = rows.map(|row| row.worker_id.as_str()).collect();
        self.changed
            .retain(|worker, _| registered.contains(worker.as_str()));
    }

    /// The workers that have won or lost a lease within three fail-over times: how busy they are is not known yet.
    pub fn unsettled(&self, now: Instant) -> BTreeSet<String> {
        let recent = self.changed.iter().filter(|(_, since)| {
            now.saturating_duration_since(**since) < self.failover * SETTLED_AFTER
        });
        recent.map(|(worker, _)| worker.clone()).collect()
    }

    fn failover_of(&self, worker: &str) -> Duration {
        self.failovers.get(worker).copied().unwrap_or(self.failover)
    }

    /// Whether the worker is shutting down: what it gave up is not for it to take.
    pub fn is_leaving(&self, worker_id: &str) -> bool {
        self.leaving.contains_key(worker_id)
    }

    /// The workers whose heartbeat has not moved for the fail-over time.
    pub fn expired(&self, now: Instant) -> Expired {
        let silent = self
            .workers
            .iter()
            .filter(|(worker_id, seen)| seen.age(now) >= self.failover_of(worker_id));
        #[cfg(test)]
        let silent = silent.filter(|(worker_id, seen)| {
            !made(Bug::SlowExpiry) || seen.age(now) >= self.failover_of(worker_id) * 2
        });
        silent
            .map(|(worker_id, seen)| (worker_id.clone(), seen.value))
            .collect()
    }

    /// The leases that could have been taken for half the fail-over time or longer, and for how many such halves:
    /// whoever they are meant for does not come.
    pub fn overdue(&self, now: Instant) -> Overdue {
        let halves = |age: Duration| {
            let patience = (self.failover / 2).max(Duration::from_millis(1));
            u32::try_from(age.as_nanos() / patience.as_nanos()).unwrap_or(u32::MAX)
        };
        let free = self.free.iter().map(|(key, seen)| (key, seen.age(now)));
        let silent = |owner: &String| {
            self.workers
                .get(owner)
                .map(|seen| seen.age(now).saturating_sub(self.failover_of(owner)))
        };
        let owned = self
            .owners
            .iter()
            .filter_map(|(key, owner)| Some((key, silent(owner)?)));
        free.chain(owned)
            .map(|(key, age)| (key.clone(), halves(age)))
            .filter(|(_, halves)| *halves > 0)
            .collect()
    }

    /// The rows of workers that hold nothing and have been silent for [`FORGET_AFTER`].
    pub fn forgettable(&self, now: Instant) -> Vec<WorkerRow> {
        let silent = self
            .workers
            .iter()
            .filter(|(_, seen)| seen.age(now) >= FORGET_AFTER)
            .filter(|(worker_id, _)| self.owners.values().all(|owner| owner != *worker_id));
        silent
            .filter_map(|(worker_id, seen)| {
                seen.value.map(|heartbeat| WorkerRow {
                    worker_id: worker_id.clone(),
                    heartbeat,
                    ..WorkerRow::default()
                })
            })
            .collect()
    }
}

impl<T> Seen<T> {
    /// Zero for an instant before the first sight.
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}

/// What is present now; values that have not changed keep the time of their first sight.
fn note<K: Ord, T: Copy + PartialEq>(
    before: &BTreeMap<K, Seen<T>>,
    present: BTreeMap<K, T>,
    now: Instant,
) -> BTreeMap<K, Seen<T>> {
    present
        .into_iter()
        .map(|(key, value)| {
            let unchanged = before.get(&key).filter(|seen| seen.value == value);
            let since = unchanged.map_or(now, |seen| seen.since);
            (key, Seen { value, since })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::{Lease, NewLease, rules};

    const FAILOVER: Duration = Duration::from_secs(10);

    fn row(worker_id: &str, heartbeat: u64) -> WorkerRow {
        WorkerRow {
            worker_id: worker_id.to_owned(),
            heartbeat,
            ..WorkerRow::default()
        }
    }

    fn lease(shard_id: &str, owner: Option<&str>, counter: u64) -> Lease {
        let key = LeaseKey {
            stream: "s".to_owned(),
            shard_id: shard_id.to_owned(),
        };
        let checkpoint = Position::TrimHorizon;
        let new = NewLease {
            key,
            checkpoint,
            parents: Vec::new(),
            hash_key_range: None,
        };
        Lease {
            owner: owner.map(str::to_owned),
            counter,
            ..rules::create(&new)
        }
    }

    fn workers(rows: &[WorkerRow]) -> Snapshot {
        Snapshot {
            workers: rows.to_vec(),
            ..Snapshot::default()
        }
    }

    /// What is seen (second, snapshot), the second asked at, and the expired workers then.
    type Case = (&'static str, Vec<(u64, Snapshot)>, u64, Expired);

    #[expect(clippy::too_many_lines, reason = "a table")]
    fn cases() -> Vec<Case> {
        let one = |heartbeat| workers(&[row("w", heartbeat)]);
        let orphan = Snapshot {
            leases: vec![lease("a", Some("w"), 3)],
            ..Snapshot::default()
        };
        vec![
            ("never seen", vec![], 100, Expired::new()),
            (
                "first sight starts the clock",
                vec![(50, one(7))],
                59,
                Expired::new(),
            ),
            (
                "unchanged",
                vec![(0, one(7)), (5, one(7))],
                10,
                [("w".into(), Some(7))].into(),
            ),
            ("not yet", vec![(0, one(7)), (5, one(7))], 9, Expired::new()),
            (
                "moved on",
                vec![(0, one(7)), (9, one(8))],
                18,
                Expired::new(),
            ),
            (
                "moved on, then stopped",
                vec![(0, one(7)), (9, one(8))],
                19,
                [("w".into(), Some(8))].into(),
            ),
            (
                "restarted under its id with a lower value",
                vec![(0, one(7)), (9, one(2))],
                18,
                Expired::new(),
            ),
            (
                "restarted unseen in between",
                vec![(0, one(7)), (4, workers(&[])), (9, one(7))],
                18,
                Expired::new(),
            ),
            (
                "gone and holding nothing",
                vec![(0, one(7)), (5, workers(&[]))],
                50,
                Expired::new(),
            ),
            (
                "an owner without a row",
                vec![(0, orphan.clone())],
                10,
                [("w".into(), None)].into(),
            ),
            (
                "an owner without a row, not yet",
                vec![(1, orphan.clone())],
                10,
                Expired::new(),
            ),
            (
                "the row came back",
                vec![(0, orphan.clone()), (9, one(7))],
                18,
                Expired::new(),
            ),
            (
                "the row went away",
                vec![(0, one(7)), (9, orphan)],
                18,
                Expired::new(),
            ),
            (
                "asked about a time before the sighting",
                vec![(50, one(7))],
                0,
                Expired::new(),
            ),
        ]
    }

    /// Sees the same every second.
    fn look_on(
        observer: &mut Observer,
        snapshot: &Snapshot,
        start: Instant,
        seconds: std::ops::Range<u64>,
    ) {
        for second in seconds {
            observer.observe(snapshot, start + Duration::from_secs(second));
        }
    }

    /// Goal: what happened while nobody looked is held against nobody; but a worker that stands still expires however
    /// rarely the observer gets to look.
    #[test]
    fn time_without_looks_counts_for_a_heartbeat_interval_at_most() {
        let start = crate::clock::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let still = workers(&[row("w", 7)]);
        let mut observer = Observer::new(FAILOVER);
        observer.observe(&still, start);
        observer.observe(&still, at(1000));
        assert_eq!(observer.expired(at(1000)), Expired::new());
        observer.observe(&still, at(2000));
        observer.observe(&still, at(3000));
        assert_eq!(observer.expired(at(3000)), Expired::new());
        observer.observe(&still, at(4000));
        assert_eq!(observer.expired(at(4000)), [("w".into(), Some(7))].into());
    }

    #[test]
    fn a_worker_expires_when_its_heartbeat_stands_still_for_the_failover_time() {
        let start = crate::clock::now();
        for (name, sightings, at, expected) in cases() {
            let mut observer = Observer::new(FAILOVER);
            let mut before: Option<(u64, Snapshot)> = None;
            for (second, snapshot) in sightings {
                if let Some((since, before)) = before {
                    look_on(&mut observer, &before, start, since..second);
                }
                observer.observe(&snapshot, start + Duration::from_secs(second));
                before = Some((second + 1, snapshot));
            }
            let found = observer.expired(start + Duration::from_secs(at));
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn workers_are_told_apart() {
        let start = crate::clock::now();
        let mut observer = Observer::new(FAILOVER);
        let both = workers(&[row("a", 1), row("b", 1)]);
        look_on(&mut observer, &both, start, 0..5);
        observer.observe(&workers(&[row("a", 1), row("b", 2)]), start + FAILOVER / 2);
        let expired = observer.expired(start + FAILOVER);
        assert_eq!(expired, Expired::from([("a".to_owned(), Some(1))]));
    }

    #[test]
    fn a_lease_is_overdue_when_it_stays_free_under_one_counter() {
        let start = crate::clock::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let state = |leases: Vec<Lease>| Snapshot {
            leases,
            ..Snapshot::default()
        };
        let mut ended = lease("ended", None, 1);
        ended.checkpoint = Position::ShardEnd;
        let mut observer = Observer::new(FAILOVER);
        observer.observe(
            &state(vec![
                lease("a", None, 1),
                lease("b", None, 1),
                ended.clone(),
            ]),
            at(0),
        );
        // b was taken and given back in between.
        observer.observe(
            &state(vec![lease("a", None, 1), lease("b", None, 3), ended]),
            at(2),
        );
        let keys = |seconds| -> Vec<String> {
            let overdue = observer.overdue(at(seconds));
            overdue.into_keys().map(|key| key.shard_id).collect()
        };
        assert_eq!(keys(4), Vec::<String>::new());
        assert_eq!(keys(5), ["a"]);
        assert_eq!(keys(7), ["a", "b"]);
        let waits = |seconds| {
            observer
                .overdue(at(seconds))
                .into_values()
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (waits(9), waits(10), waits(27)),
            (vec![1, 1], vec![2, 1], vec![5, 5])
        );
    }

    #[test]
    fn a_lease_of_an_expired_owner_is_overdue_later_by_the_same_patience() {
        let start = crate::clock::now();
        let mut observer = Observer::new(FAILOVER);
        let leases = vec![lease("a", Some("w"), 1), lease("b", Some("v"), 1)];
        let snapshot = |v| Snapshot {
            leases: leases.clone(),
            workers: vec![row("v", v), row("w", 1)],
            ..Snapshot::default()
        };
        look_on(&mut observer, &snapshot(1), start, 0..10);
        observer.observe(&snapshot(2), start + FAILOVER);
        assert!(observer.overdue(start + FAILOVER).is_empty());
        let overdue = observer.overdue(start + FAILOVER + FAILOVER / 2);
        assert_eq!(
            overdue
                .into_keys()
                .map(|key| key.shard_id)
                .collect::<Vec<_>>(),
            ["a"]
        );
    }

    #[test]
    fn a_row_is_forgotten_only_long_after_its_worker_fell_silent() {
        let start = crate::clock::now();
        let mut observer = Observer::new(FAILOVER);
        observer.observe(&workers(&[row("a", 4)]), start);
        assert_eq!(observer.forgettable(start + FAILOVER * 100), []);
        assert_eq!(observer.forgettable(start + FORGET_AFTER), [row("a", 4)]);
    }

    /// Goal: a row that cannot be removed yet, because its worker still holds a lease, is not tried again with every look.
    #[test]
    fn a_row_whose_worker_still_holds_a_lease_is_not_forgotten() {
        let start = crate::clock::now();
        let mut observer = Observer::new(FAILOVER);
        let snapshot = Snapshot {
            leases: vec![lease("a", Some("w"), 1)],
            workers: vec![row("v", 1), row("w", 1)],
            ..Snapshot::default()
        };
        observer.observe(&snapshot, start);
        assert_eq!(observer.forgettable(start + FORGET_AFTER), [row("v", 1)]);
    }

    fn of_failover(worker_id: &str, heartbeat: u64, failover: Duration) -> WorkerRow {
        let mut row = row(worker_id, heartbeat);
        row.profile.failover = Some(failover);
        row
    }

    /// Goal: in a fleet of different fail-over times each worker is judged by its own (K2), also by one that looks more rarely than
    /// the other's heartbeats come.
    #[test]
    fn k2_a_worker_is_judged_by_its_own_failover_time() {
        let start = crate::clock::now();
        let mut observer = Observer::new(FAILOVER);
        let patient = of_failover("patient", 1, FAILOVER * 6);
        let quick = of_failover("quick", 1, FAILOVER / 10);
        let still = workers(&[patient, quick]);
        observer.observe(&still, start);
        observer.observe(&still, start + FAILOVER / 10);
        assert_eq!(
            observer.expired(start + FAILOVER / 10),
            Expired::new(),
            "nobody looked in between"
        );
        look_on(&mut observer, &still, start + FAILOVER / 10, 0..10);
        let expired = observer.expired(start + FAILOVER);
        assert_eq!(expired, [("quick".into(), Some(1))].into());
        look_on(&mut observer, &still, start + FAILOVER, 1..60);
        let expired = observer.expired(start + FAILOVER * 7);
        assert!(expired.contains_key("patient"), "{expired:?}");
    }

    #[test]
    fn a_worker_is_settled_when_its_leases_have_not_changed_for_a_while() {
        let start = crate::clock::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let held = |owner| Snapshot {
            leases: vec![lease("a", Some(owner), 1)],
            ..workers(&[row("v", 1), row("w", 1), row("x", 1)])
        };
        let mut observer = Observer::new(FAILOVER);
        observer.observe(&held("v"), start);
        assert_eq!(
            observer.unsettled(at(29)).len(),
            3,
            "seen for the first time"
        );
        assert_eq!(observer.unsettled(at(30)).len(), 0);
        observer.observe(&held("w"), at(40));
        let unsettled: Vec<String> = observer.unsettled(at(69)).into_iter().collect();
        assert_eq!(unsettled, ["v", "w"]);
        assert_eq!(observer.unsettled(at(70)).len(), 0);
    }
}
