//! The plan by table, and a fleet that plans in rounds until it comes to rest.

mod fleet;

use super::*;
use crate::checkpoint::Position;
use crate::lease::{Load, NewLease, WorkerRow, rules};

const STREAM: &str = "s";

fn key(shard_id: &str) -> LeaseKey {
    LeaseKey {
        stream: STREAM.to_owned(),
        shard_id: shard_id.to_owned(),
    }
}

fn lease(shard_id: &str, owner: Option<&str>) -> Lease {
    let (key, checkpoint) = (key(shard_id), Position::TrimHorizon);
    let new = NewLease {
        key,
        checkpoint,
        parents: Vec::new(),
        hash_key_range: None,
    };
    Lease {
        owner: owner.map(str::to_owned),
        counter: 7,
        ..rules::create(&new)
    }
}

fn leases(prefix: &str, count: usize, owner: Option<&str>) -> Vec<Lease> {
    (0..count)
        .map(|index| lease(&format!("{prefix}{index:02}"), owner))
        .collect()
}

/// A state of the rows with what an observer makes of it.
#[derive(Debug, Clone)]
struct State {
    snapshot: Snapshot,
    expired: Expired,
    overdue: Overdue,
    unsettled: BTreeSet<String>,
    max_leases: usize,
}

impl State {
    fn new(workers: &[&str], leases: Vec<Lease>) -> Self {
        let row = |worker: &&str| WorkerRow {
            worker_id: (*worker).to_owned(),
            heartbeat: 3,
            ..WorkerRow::default()
        };
        let workers = workers.iter().map(row).collect();
        State {
            snapshot: Snapshot {
                leases,
                workers,
                damaged: Vec::new(),
            },
            expired: Expired::new(),
            overdue: Overdue::new(),
            unsettled: BTreeSet::new(),
            max_leases: usize::MAX,
        }
    }

    fn with_expired(mut self, worker: &str, heartbeat: Option<u64>) -> Self {
        self.expired.insert(worker.to_owned(), heartbeat);
        self
    }

    fn plan(&self, me: &str) -> Plan {
        plan(&Situation {
            snapshot: &self.snapshot,
            streams: &BTreeSet::from([STREAM.to_owned()]),
            me,
            expired: &self.expired,
            overdue: &self.overdue,
            unsettled: &self.unsettled,
            max_leases: self.max_leases,
        })
    }

    fn takes(&self, me: &str) -> Vec<String> {
        self.plan(me)
            .take
            .into_iter()
            .map(|claim| claim.key.shard_id)
            .collect()
    }
}

#[test]
fn a_lone_worker_takes_everything_that_is_free_or_expired() {
    let mut state =
        State::new(&["me", "dead"], leases("free", 3, None)).with_expired("dead", Some(3));
    state
        .snapshot
        .leases
        .extend(leases("left", 2, Some("dead")));
    let plan = state.plan("me");
    assert_eq!(
        (plan.take.len(), plan.ask.len(), plan.eligible, plan.quota),
        (5, 0, 5, 5)
    );
    let expired = Some(ExpiredOwner {
        worker_id: "dead".to_owned(),
        heartbeat: Some(3),
    });
    assert!(plan.take.contains(&Claim {
        key: key("left00"),
        counter: 7,
        expired
    }));
    assert!(plan.take.contains(&Claim {
        key: key("free00"),
        counter: 7,
        expired: None
    }));
}

#[test]
fn workers_with_one_view_compete_for_nothing_and_leave_nothing() {
    let workers = ["a", "b", "c", "d"];
    for count in 0..30 {
        let state = State::new(&workers, leases("free", count, None));
        let mut taken: Vec<String> = Vec::new();
        for worker in workers {
            let mine = state.takes(worker);
            assert!(mine.len() <= count.div_ceil(workers.len()));
            taken.extend(mine);
        }
        taken.sort();
        let all: Vec<String> = state
            .snapshot
            .leases
            .iter()
            .map(|lease| lease.key.shard_id.clone())
            .collect();
        assert_eq!(taken, all);
    }
}

#[test]
fn only_leases_that_can_be_worked_on_count() {
    let with_parents = |shard: &str, parents: &[&str]| Lease {
        parents: parents.iter().map(|parent| (*parent).to_owned()).collect(),
        ..lease(shard, None)
    };
    let mut ended = lease("ended", None);
    ended.checkpoint = Position::ShardEnd;
    let mut elsewhere = lease("elsewhere", None);
    elsewhere.key.stream = "another".to_owned();
    let mut state = State::new(
        &["me"],
        vec![
            ended,
            elsewhere,
            lease("open", None),
            with_parents("after-ended", &["ended"]),
            with_parents("after-absent", &["absent"]),
            with_parents("after-open", &["ended", "open"]),
            with_parents("after-damaged", &["damaged"]),
        ],
    );
    state.snapshot.damaged = vec![key("damaged")];
    let mut takes = state.takes("me");
    takes.sort();
    assert_eq!(takes, ["after-absent", "after-ended", "open"]);
    assert_eq!(state.plan("me").eligible, 3);
}

#[test]
fn a_lease_whose_owner_may_still_live_is_left_alone() {
    // An owner without a row, not silent for long enough yet; then long enough.
    let state = State::new(&["me"], vec![lease("a", Some("gone"))]);
    assert!(state.plan("me").is_empty());
    let state = state.with_expired("gone", None);
    let expired = Some(ExpiredOwner {
        worker_id: "gone".to_owned(),
        heartbeat: None,
    });
    assert_eq!(
        state.plan("me").take,
        [Claim {
            key: key("a"),
            counter: 7,
            expired
        }]
    );
    // The planner itself is alive, whatever its own observer says.
    let mine = State::new(&["me"], vec![lease("a", Some("me"))]).with_expired("me", Some(3));
    assert!(mine.plan("me").is_empty());
}

#[test]
fn surplus_is_asked_for_only_where_that_evens_loads_out() {
    for (theirs, mine, asks) in [
        (0, 0, 0),
        (1, 0, 0),
        (2, 0, 1),
        (5, 4, 0),
        (5, 5, 0),
        (6, 4, 1),
        (9, 0, 4),
        (3, 7, 0),
    ] {
        let mut all = leases("theirs", theirs, Some("other"));
        all.extend(leases("mine", mine, Some("me")));
        let plan = State::new(&["me", "other"], all).plan("me");
        assert_eq!(
            (plan.take.len(), plan.ask.len()),
            (0, asks),
            "{theirs} to {mine}"
        );
        assert!(
            plan.ask
                .iter()
                .all(|ask| ask.key.shard_id.starts_with("theirs") && ask.counter == 7)
        );
    }
}

#[test]
fn workers_that_join_together_ask_for_different_leases() {
    let state = State::new(&["a", "b", "c"], leases("l", 9, Some("a")));
    let (b, c) = (state.plan("b").ask, state.plan("c").ask);
    assert_eq!((b.len(), c.len()), (3, 3));
    assert!(
        b.iter()
            .all(|ask| c.iter().all(|other| other.key != ask.key))
    );
}

#[test]
fn requests_count_as_their_askers() {
    let mut all = leases("l", 6, Some("other"));
    for lease in &mut all[..3] {
        lease.wanted_by = Some("me".to_owned());
    }
    assert!(
        State::new(&["me", "other"], all.clone())
            .plan("me")
            .is_empty()
    );
    // Of a third worker's point of view: 3 to 3, and nothing to spare but one of each two.
    let plan = State::new(&["me", "other", "third"], all.clone()).plan("third");
    assert_eq!(plan.quota, 2);
    assert!(
        plan.ask
            .iter()
            .all(|ask| ask.key.shard_id.as_str() >= "l03"),
        "wanted already"
    );
    assert_eq!(plan.ask.len(), 1);
    // A dead asker's request is replaced.
    let state = State::new(&["new", "other"], all).with_expired("me", Some(3));
    let plan = state.plan("new");
    assert_eq!(plan.ask.len(), 3);
    for ask in plan.ask {
        let was_wanted = ask.key.shard_id.as_str() < "l03";
        assert_eq!(ask.replace_wanted_by, was_wanted.then(|| "me".to_owned()));
    }
}

#[test]
fn max_leases_is_a_hard_cap_for_taking_and_asking() {
    let mut all = leases("free", 4, None);
    all.extend(leases("mine", 1, Some("me")));
    all.extend(leases("theirs", 9, Some("other")));
    all[4].wanted_by = None;
    for (max_leases, takes, asks) in [(0, 0, 0), (1, 0, 0), (3, 2, 0), (6, 4, 1), (100, 4, 2)] {
        let mut state = State::new(&["me", "other"], all.clone());
        state.max_leases = max_leases;
        let plan = state.plan("me");
        assert_eq!(
            (plan.take.len(), plan.ask.len()),
            (takes, asks),
            "at most {max_leases}"
        );
    }
}

#[test]
fn leases_nobody_came_for_are_taken_beyond_the_share() {
    let mut state = State::new(&["a", "b", "full"], leases("l", 12, None));
    let meant_for_full: BTreeSet<String> = state.takes("full").into_iter().collect();
    assert_eq!(meant_for_full.len(), 4);
    let before = (state.takes("a"), state.takes("b"));
    assert!(
        before
            .0
            .iter()
            .chain(&before.1)
            .all(|shard| !meant_for_full.contains(shard))
    );
    let waiting = |waits| {
        meant_for_full
            .iter()
            .map(|shard| (key(shard), waits))
            .collect()
    };
    state.overdue = waiting(1);
    let (a, b) = (state.takes("a"), state.takes("b"));
    assert_eq!(
        (a.len(), b.len()),
        (6, 6),
        "shared evenly by those who come"
    );
    let all: BTreeSet<String> = a.into_iter().chain(b).collect();
    assert_eq!(all.len(), 12, "and all of them");
    // Whoever did not come then is full, too: now both try.
    state.overdue = waiting(2);
    assert_eq!((state.takes("a").len(), state.takes("b").len()), (8, 8));
}

/// A state in which every worker says how many KiB per second and seconds behind its shards are.
fn busy(owned: &[(&str, &[(u64, u64)])]) -> State {
    let workers: Vec<&str> = owned.iter().map(|(worker, _)| *worker).collect();
    let mut state = State::new(&workers, Vec::new());
    for (row, (worker, shards)) in owned.iter().enumerate() {
        for (index, (kib, seconds)) in shards.iter().enumerate() {
            let shard = format!("{worker}{index}");
            state.snapshot.leases.push(lease(&shard, Some(worker)));
            let load = Load {
                bytes_per_second: kib * 1024,
                behind_ms: seconds * 1000,
            };
            let loads = &mut state.snapshot.workers[row].loads;
            loads
                .entry(STREAM.to_owned())
                .or_default()
                .insert(shard, load);
        }
    }
    state
}

impl State {
    fn asks(&self, me: &str) -> Vec<String> {
        let asks = self.plan(me).ask.into_iter();
        asks.map(|ask| ask.key.shard_id).collect()
    }
}

/// Name, the busier worker's shards, and what the other asks for.
type Case<'a> = (&'a str, &'a [(u64, u64)], &'a [&'a str]);

#[test]
fn the_idlest_worker_asks_the_busiest_for_a_shard() {
    let idle: &[(u64, u64)] = &[(10, 0), (20, 0)];
    let cases: [Case<'_>; 8] = [
        ("two busy shards are parted", &[(900, 0), (800, 0)], &["a1"]),
        (
            "one busy shard is not moved about",
            &[(900, 0), (5, 0)],
            &[],
        ),
        (
            "a little more than others is no reason",
            &[(20, 0), (300, 0)],
            &[],
        ),
        (
            "two lagging shards are parted",
            &[(10, 60), (10, 70)],
            &["a0"],
        ),
        ("shards that keep up have no lag", &[(10, 9), (10, 9)], &[]),
        ("one lag is not moved about", &[(10, 600), (10, 9)], &[]),
        ("little traffic is no reason", &[(90, 0), (80, 0)], &[]),
        ("an idle fleet rests", &[(0, 0), (0, 0)], &[]),
    ];
    for (name, of_a, expected) in cases {
        let mut state = busy(&[("a", of_a), ("b", idle)]);
        assert_eq!(state.asks("b"), expected, "{name}");
        assert_eq!(state.asks("a"), [""; 0], "{name}");
        state.unsettled = BTreeSet::from(["a".to_owned()]);
        assert_eq!(state.asks("b"), [""; 0], "{name}: not known long enough");
    }
}

/// Goal: what comes for a busy shard goes the other way at once, and it is the lightest; then all rest.
#[test]
fn an_exchange_leaves_the_numbers_even() {
    let mut state = busy(&[("a", &[(900, 0), (800, 0)]), ("b", &[(10, 0), (20, 0)])]);
    state.snapshot.leases[1].wanted_by = Some("b".to_owned());
    assert_eq!(state.asks("a"), ["b0"]);
    assert_eq!(state.asks("b"), [""; 0]);
    state.snapshot.leases[2].wanted_by = Some("a".to_owned());
    assert_eq!((state.asks("a"), state.asks("b")), (vec![], vec![]));
}

#[test]
fn a_full_worker_asks_for_no_busy_shard() {
    let mut state = busy(&[("a", &[(900, 0), (800, 0)]), ("b", &[(10, 0), (20, 0)])]);
    state.max_leases = 2;
    assert_eq!(state.asks("b"), [""; 0]);
}

#[test]
fn caps_that_are_known_leave_their_shares_to_others() {
    let mut state = State::new(&["a", "b", "c"], leases("l", 12, None));
    state.snapshot.workers[2].profile.max_leases = Some(2);
    let quota = |worker: &str| state.plan(worker).quota;
    assert_eq!((quota("a"), quota("b")), (5, 5));
    assert_eq!(state.takes("a").len() + state.takes("b").len(), 10);
    state.max_leases = 2;
    assert_eq!(state.takes("c").len(), 2);
}

#[test]
fn a_worker_of_another_stream_is_given_nothing() {
    let mut state = State::new(&["a", "b"], leases("l", 4, None));
    state.snapshot.workers[1].profile.streams = Some(BTreeSet::from(["another".to_owned()]));
    assert_eq!(state.takes("a").len(), 4);
}
