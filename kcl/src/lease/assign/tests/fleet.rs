//! Workers that plan in rounds over a real store until nothing moves any more.

use crate::Position;
use crate::clock::Instant;
use crate::lease::assign::{Plan, Situation, plan};
use crate::lease::expiry::Observer;
use crate::lease::{
    LeaseKey, LeaseStore, LeaseToken, Load, Loads, MemoryLeaseStore, NewLease, Registration,
    Release, Snapshot, WorkerProfile,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const APP: &str = "app";
const STREAMS: [&str; 3] = ["s", "t", "u"];
const FAILOVER: Duration = Duration::from_secs(9);
/// Rounds until all loads are known after a change.
const ROUNDS_TO_SETTLE: usize = 10;
/// Three rounds to a fail-over time, as heartbeats are sent.
const ROUND: Duration = Duration::from_secs(3);
/// Fail-over, patience for those who do not come, and a few rounds to hand over.
const ROUNDS_TO_REST: usize = 10;

#[derive(Debug, Clone, Copy)]
enum Event {
    Join,
    Leave(usize),
    Crash(usize),
    Pass(usize),
}

/// Whether all plan from one snapshot or each from the state its predecessor left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Together,
    InTurn,
}

#[derive(Debug)]
struct Member {
    registration: Registration,
    observer: Observer,
    max_leases: usize,
    streams: BTreeSet<String>,
}

#[derive(Debug)]
struct Fleet {
    store: MemoryLeaseStore,
    members: Vec<Member>,
    joined: usize,
    now: Instant,
    pace: Pace,
    taken: usize,
    handed_over: usize,
    /// How busy the shards are, by their ids.
    loads: BTreeMap<String, Load>,
}

impl Fleet {
    /// Members that all serve the one stream.
    async fn new(members: usize, leases: usize, pace: Pace) -> Self {
        let mut fleet = Fleet::with_streams(1, leases, pace).await;
        for _ in 0..members {
            fleet.join(usize::MAX).await;
        }
        fleet
    }

    /// Nobody, and leases of so many streams in turn.
    async fn with_streams(streams: usize, leases: usize, pace: Pace) -> Self {
        let store = MemoryLeaseStore::new();
        let new = |index: usize| NewLease {
            key: LeaseKey {
                stream: STREAMS[index % streams].to_owned(),
                shard_id: format!("shard-{index:03}"),
            },
            checkpoint: Position::TrimHorizon,
            parents: Vec::new(),
            hash_key_range: None,
        };
        store
            .create_leases(APP, &(0..leases).map(new).collect::<Vec<_>>())
            .await
            .unwrap();
        let now = crate::clock::now();
        Fleet {
            store,
            members: Vec::new(),
            joined: 0,
            now,
            pace,
            taken: 0,
            handed_over: 0,
            loads: BTreeMap::new(),
        }
    }

    async fn join(&mut self, max_leases: usize) {
        let streams = BTreeSet::from([STREAMS[0].to_owned()]);
        self.join_for(streams, max_leases).await;
    }

    async fn join_for(&mut self, streams: BTreeSet<String>, max_leases: usize) {
        self.joined += 1;
        let id = format!("worker-{}", self.joined);
        let profile = WorkerProfile {
            streams: Some(streams.clone()),
            ..WorkerProfile::default()
        };
        let registration = self.store.register(APP, &id, &profile).await.unwrap();
        self.members.push(Member {
            registration,
            observer: Observer::new(FAILOVER),
            max_leases,
            streams,
        });
    }

    async fn happen(&mut self, event: Event) {
        match event {
            Event::Join => self.join(usize::MAX).await,
            Event::Leave(index) if self.members.len() > 1 => {
                let member = self.members.remove(index % self.members.len());
                self.store
                    .deregister(APP, &member.registration)
                    .await
                    .unwrap();
            }
            Event::Crash(index) if self.members.len() > 1 => {
                self.members.remove(index % self.members.len());
            }
            Event::Leave(_) | Event::Crash(_) => {}
            Event::Pass(rounds) => {
                for _ in 0..rounds {
                    self.round().await;
                }
            }
        }
    }

    /// Everybody sends a heartbeat, plans and acts; then owners hand over. Says whether anybody planned anything.
    async fn round(&mut self) -> bool {
        self.now += ROUND;
        for member in &self.members {
            let loads = self.loads_of(member).await;
            self.store
                .heartbeat(APP, &member.registration, &loads, &[])
                .await
                .unwrap();
        }
        let start = self.store.snapshot(APP).await.unwrap();
        let mut active = false;
        for index in 0..self.members.len() {
            let snapshot = match self.pace {
                Pace::Together => start.clone(),
                Pace::InTurn => self.store.snapshot(APP).await.unwrap(),
            };
            let plan = self.members[index].plan(&snapshot, self.now);
            active |= !plan.is_empty();
            let me = &self.members[index].registration;
            self.taken += self.store.take(APP, me, &plan.take).await.unwrap().len();
            self.store.ask(APP, me, &plan.ask).await.unwrap();
        }
        self.hand_over().await;
        active
    }

    /// What a member has measured.
    async fn loads_of(&self, member: &Member) -> Loads {
        let me = &member.registration.worker_id;
        let leases = self.store.snapshot(APP).await.unwrap().leases;
        let mine = leases
            .into_iter()
            .filter(|lease| lease.owner.as_ref() == Some(me));
        let of_stream = mine.filter_map(|lease| {
            let load = self.loads.get(&lease.key.shard_id)?;
            Some((lease.key.shard_id, *load))
        });
        Loads::from([(STREAMS[0].to_owned(), of_stream.collect())])
    }

    /// The bytes per second of the busiest member, and of the average one.
    async fn busiest(&self) -> (u64, u64) {
        let mut bytes = Vec::new();
        for member in &self.members {
            let loads = self.loads_of(member).await;
            bytes.push(
                loads
                    .values()
                    .flat_map(BTreeMap::values)
                    .map(|load| load.bytes_per_second)
                    .sum::<u64>(),
            );
        }
        let average = bytes.iter().sum::<u64>() / u64::try_from(bytes.len()).unwrap();
        (bytes.into_iter().max().unwrap(), average)
    }

    async fn hand_over(&mut self) {
        let snapshot = self.store.snapshot(APP).await.unwrap();
        for lease in snapshot.leases {
            let (Some(owner), Some(asker)) = (lease.owner, lease.wanted_by) else {
                continue;
            };
            if self
                .members
                .iter()
                .all(|member| member.registration.worker_id != owner)
            {
                continue;
            }
            let token = LeaseToken {
                key: lease.key,
                owner,
                counter: lease.counter,
            };
            let release = Release {
                token,
                checkpoint: None,
                to: Some(asker),
            };
            self.handed_over += self.store.release(APP, &[release]).await.unwrap();
        }
    }

    async fn rest(&mut self) {
        for _ in 0..ROUNDS_TO_REST {
            self.round().await;
        }
        let before = self.store.snapshot(APP).await.unwrap().leases;
        for _ in 0..4 {
            assert!(
                !self.round().await,
                "still moving after {ROUNDS_TO_REST} rounds: {self:#?}"
            );
        }
        assert_eq!(self.store.snapshot(APP).await.unwrap().leases, before);
    }

    /// Loads of the living; every lease must be held by one of them.
    async fn loads(&self) -> Vec<usize> {
        let leases = self.store.snapshot(APP).await.unwrap().leases;
        let load = |member: &Member| {
            let id = Some(member.registration.worker_id.as_str());
            leases
                .iter()
                .filter(|lease| lease.owner.as_deref() == id)
                .count()
        };
        let loads: Vec<usize> = self.members.iter().map(load).collect();
        assert_eq!(
            loads.iter().sum::<usize>(),
            leases.len(),
            "a lease is held by nobody alive"
        );
        loads
    }

    async fn assert_balanced(&self) {
        let loads = self.loads().await;
        let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
        assert!(most - least <= 1, "unbalanced: {loads:?}");
    }
}

impl Member {
    fn plan(&mut self, snapshot: &Snapshot, now: Instant) -> Plan {
        self.observer.observe(snapshot, now);
        plan(&Situation {
            snapshot,
            streams: &self.streams,
            me: &self.registration.worker_id,
            expired: &self.observer.expired(now),
            overdue: &self.observer.overdue(now),
            unsettled: &self.observer.unsettled(now),
            max_leases: self.max_leases,
        })
    }
}

fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(test);
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => Just(Event::Join),
        1 => (0usize..8).prop_map(Event::Leave),
        1 => (0usize..8).prop_map(Event::Crash),
        3 => (0usize..5).prop_map(Event::Pass),
    ]
}

fn pace() -> impl Strategy<Value = Pace> {
    prop_oneof![Just(Pace::Together), Just(Pace::InTurn)]
}

proptest! {
    #[test]
    fn comes_to_rest_balanced_whatever_happens(
        members in 1usize..5,
        leases in 0usize..24,
        events in prop::collection::vec(event(), 0..12),
        pace in pace(),
    ) {
        block_on(async {
            let mut fleet = Fleet::new(members, leases, pace).await;
            for event in events {
                fleet.happen(event).await;
            }
            fleet.rest().await;
            fleet.assert_balanced().await;
        });
    }

    /// Goal: workers that serve different streams come to rest as well. Every lease is held by somebody who serves its stream, if there is anybody, and workers
    /// with the same streams have the same number of leases but for one.
    #[test]
    fn workers_of_different_streams_come_to_rest(
        members in prop::collection::vec(1usize..8, 1..6),
        leases in 0usize..24,
        crash in any::<Option<prop::sample::Index>>(),
        pace in pace(),
    ) {
        block_on(async {
            let mut fleet = Fleet::with_streams(3, leases, pace).await;
            for streams in &members {
                let of = (0..3).filter(|bit| streams & (1 << bit) != 0).map(|bit| STREAMS[bit].to_owned());
                fleet.join_for(of.collect(), usize::MAX).await;
            }
            for _ in 0..ROUNDS_TO_REST {
                fleet.round().await;
            }
            if let Some(index) = crash {
                fleet.happen(Event::Crash(index.index(members.len()))).await;
            }
            fleet.rest().await;
            let mut held: BTreeMap<&str, usize> = BTreeMap::new();
            let leases = fleet.store.snapshot(APP).await.unwrap().leases;
            for lease in &leases {
                let serves = |member: &&Member| member.streams.contains(&lease.key.stream);
                let owner = fleet.members.iter().filter(serves).find(|member| {
                    lease.owner.as_ref() == Some(&member.registration.worker_id)
                });
                match owner {
                    Some(owner) => *held.entry(&owner.registration.worker_id).or_default() += 1,
                    None => assert_eq!(fleet.members.iter().find(serves).map(|m| &m.streams), None, "{lease:?}"),
                }
            }
            let count = |member: &Member| held.get(member.registration.worker_id.as_str()).copied().unwrap_or(0);
            for (one, other) in fleet.members.iter().zip(fleet.members.iter().skip(1)) {
                if one.streams == other.streams {
                    assert!(count(one).abs_diff(count(other)) <= 1, "{held:?} {fleet:#?}");
                }
            }
        });
    }

    #[test]
    fn moves_no_more_than_one_change_needs(
        members in 1usize..7,
        leases in 0usize..40,
        event in prop_oneof![Just(Event::Join), Just(Event::Leave(0)), Just(Event::Crash(0))],
        pace in pace(),
    ) {
        block_on(async {
            let mut fleet = Fleet::new(members, leases, pace).await;
            // One round is enough to take everything: free leases do not wait for anybody.
            fleet.round().await;
            fleet.assert_balanced().await;
            assert_eq!((fleet.taken, fleet.handed_over), (leases, 0));
            let first_load = fleet.loads().await[0];
            fleet.happen(event).await;
            fleet.rest().await;
            fleet.assert_balanced().await;
            let (taken, handed_over) = (fleet.taken - leases, fleet.handed_over);
            match event {
                Event::Join => assert_eq!((taken, handed_over), (0, leases / (members + 1))),
                Event::Leave(_) | Event::Crash(_) if members > 1 => {
                    assert_eq!((taken, handed_over), (first_load, 0));
                }
                Event::Leave(_) | Event::Crash(_) | Event::Pass(_) => {
                    assert_eq!((taken, handed_over), (0, 0));
                }
            }
        });
    }

    /// Goal: however busy the shards are, moving them comes to an end, with even numbers, and with nobody much busier than the
    /// average unless no single exchange would help.
    #[test]
    fn busy_shards_are_spread_and_come_to_rest(
        members in 1usize..6,
        rates in prop::collection::vec(prop_oneof![Just(0u64), 1u64..100, 100u64..2000], 0..24),
        pace in pace(),
    ) {
        block_on(async {
            let mut fleet = Fleet::new(members, rates.len(), pace).await;
            fleet.loads = rates.iter().enumerate().map(|(index, rate)| {
                let load = Load { bytes_per_second: rate * 1024, behind_ms: 0 };
                (format!("shard-{index:03}"), load)
            }).collect();
            let mut quiet = 0;
            for _ in 0..ROUNDS_TO_SETTLE * (rates.len() + 3) {
                quiet = if fleet.round().await { 0 } else { quiet + 1 };
                if quiet > ROUNDS_TO_SETTLE {
                    break;
                }
            }
            assert!(quiet > ROUNDS_TO_SETTLE, "still moving: {fleet:#?}");
            fleet.assert_balanced().await;
            let (most, average) = fleet.busiest().await;
            let heaviest = rates.iter().max().copied().unwrap_or(0) * 1024;
            let bytes = rates.iter().sum::<u64>() * 1024;
            assert!(
                bytes < 256 * 1024 || most <= average + average / 4 + heaviest,
                "the busiest has {most} of an average {average}, the heaviest shard {heaviest}"
            );
        });
    }

    /// Some members are capped and tell nobody. What they leave goes to the others, who must not be thrashing.
    #[test]
    fn caps_hold_and_nothing_stays_free(
        members in 1usize..4,
        caps in prop::collection::vec(0usize..4, 1..4),
        leases in 0usize..24,
        pace in pace(),
    ) {
        block_on(async {
            let mut fleet = Fleet::new(members, leases, pace).await;
            for cap in &caps {
                fleet.join(*cap).await;
            }
            fleet.rest().await;
            let loads = fleet.loads().await;
            for (load, cap) in loads[members..].iter().zip(&caps) {
                assert!(load <= cap, "{loads:?} exceeds {caps:?}");
            }
        });
    }
}
