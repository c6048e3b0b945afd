//! The plan by tables, and by properties over random shard histories.

use super::*;
use millstream_wire::{HashKey, HashKeyRange};
use proptest::prelude::*;
use std::collections::BTreeMap;

const NOW: u64 = 5_000;

fn shard(id: &str, parents: &[&str], closed: bool) -> Shard {
    Shard {
        shard_id: id.to_owned(),
        parents: parents.iter().map(|id| (*id).to_owned()).collect(),
        hash_key_range: HashKeyRange::ALL,
        closed,
    }
}

fn lease(id: &str, checkpoint: Position) -> Lease {
    Lease {
        key: LeaseKey {
            stream: "s".to_owned(),
            shard_id: id.to_owned(),
        },
        owner: None,
        counter: 0,
        wanted_by: None,
        checkpoint,
        pending: None,
        owner_switches: 0,
        parents: Vec::new(),
        hash_key_range: None,
    }
}

fn planned(shards: &[Shard], leases: &[Lease], initial: InitialPosition) -> SyncPlan {
    planned_beside(&[], shards, leases, initial)
}

fn planned_beside(
    damaged: &[&str],
    shards: &[Shard],
    leases: &[Lease],
    initial: InitialPosition,
) -> SyncPlan {
    let key = |id: &&str| lease(id, HORIZON).key;
    let damaged: Vec<LeaseKey> = damaged.iter().map(key).collect();
    plan(SyncInput {
        stream: "s",
        shards,
        leases,
        damaged: &damaged,
        initial,
        started_ms: NOW,
        open_at_start: &std::collections::BTreeSet::new(),
    })
}

fn created(plan: &SyncPlan) -> BTreeMap<String, Position> {
    plan.create
        .iter()
        .map(|new| (new.key.shard_id.clone(), new.checkpoint))
        .collect()
}

fn expected(table: &[(&str, Position)]) -> BTreeMap<String, Position> {
    table
        .iter()
        .map(|(id, position)| ((*id).to_owned(), *position))
        .collect()
}

const HORIZON: Position = Position::TrimHorizon;

/// Shards 0 and 1 merged into 6, 2 and 3 into 7; 6 and 7 into 8; 5 split into 9 and 10; 4 stayed as it was.
fn family() -> Vec<Shard> {
    vec![
        shard("0", &[], true),
        shard("1", &[], true),
        shard("2", &[], true),
        shard("3", &[], true),
        shard("4", &[], false),
        shard("5", &[], true),
        shard("6", &["0", "1"], true),
        shard("7", &["2", "3"], true),
        shard("8", &["6", "7"], false),
        shard("9", &["5"], false),
        shard("10", &["5"], false),
    ]
}

#[test]
fn the_first_sync_starts_at_the_initial_position() {
    let family = family();
    let all: Vec<&str> = family.iter().map(|shard| shard.shard_id.as_str()).collect();
    let everywhere = |position| all.iter().map(|id| ((*id).to_owned(), position)).collect();
    let horizon = planned(&family, &[], InitialPosition::TrimHorizon);
    assert_eq!(created(&horizon), everywhere(HORIZON));
    assert_eq!(horizon.create[8].parents, ["6", "7"]);
    let at = planned(&family, &[], InitialPosition::AtTimestamp(200));
    assert_eq!(created(&at), everywhere(Position::AtTimestamp(200)));
    // Only what is open, and as a time: LATEST itself is never stored (K4).
    let now = Position::AtTimestamp(NOW);
    let latest = planned(&family, &[], InitialPosition::Latest);
    assert_eq!(
        created(&latest),
        expected(&[("4", now), ("8", now), ("9", now), ("10", now)])
    );
}

/// The worked example of the Java library (docs/lease-lifecycle.md): leases 4, 5 and 7 make it create 6 under `LATEST`, 0 and 1 under
/// `TRIM_HORIZON` and `AT_TIMESTAMP(200)`, and the others once their parents have ended. Here all missing generations are created at once; parents are
/// finished first all the same (K6).
#[test]
fn the_worked_example() {
    let leases = [
        lease("4", HORIZON),
        lease("5", HORIZON),
        lease("7", HORIZON),
    ];
    let children = [("8", HORIZON), ("9", HORIZON), ("10", HORIZON)];
    let with = |more: &[(&str, Position)]| {
        let mut all = expected(&children);
        all.extend(expected(more));
        all
    };
    let latest = planned(&family(), &leases, InitialPosition::Latest);
    assert_eq!(created(&latest), with(&[("6", Position::AtTimestamp(NOW))]));
    let horizon = planned(&family(), &leases, InitialPosition::TrimHorizon);
    assert_eq!(
        created(&horizon),
        with(&[("0", HORIZON), ("1", HORIZON), ("6", HORIZON)])
    );
    let at = Position::AtTimestamp(200);
    let timestamp = planned(&family(), &leases, InitialPosition::AtTimestamp(200));
    assert_eq!(
        created(&timestamp),
        with(&[("0", at), ("1", at), ("6", at)])
    );
}

#[test]
fn k4_a_descendant_of_a_lease_starts_at_its_beginning() {
    let shards = [
        shard("a", &[], true),
        shard("b", &["a"], true),
        shard("c", &["b"], false),
    ];
    let sequence = Position::after("7".parse().unwrap());
    let at = Position::AtTimestamp(900);
    let starts = [
        (HORIZON, HORIZON),
        (sequence, HORIZON),
        (Position::ShardEnd, HORIZON),
        // Nothing of the parent was wanted yet: the child's records may be too early as well.
        (at, at),
    ];
    for (parent, child) in starts {
        let initial = InitialPosition::AtTimestamp(4_000);
        let plan = planned(&shards, &[lease("a", parent)], initial);
        let both = expected(&[("b", child), ("c", child)]);
        assert_eq!(created(&plan), both, "{parent}");
        // What descends from a lease was created after the application began.
        let plan = planned(&shards, &[lease("a", parent)], InitialPosition::Latest);
        let both = expected(&[("b", HORIZON), ("c", HORIZON)]);
        assert_eq!(created(&plan), both, "{parent}");
    }
    let merged = [
        shard("a", &[], true),
        shard("b", &[], true),
        shard("c", &["a", "b"], false),
    ];
    let earliest = [lease("a", at), lease("b", Position::AtTimestamp(300))];
    let plan = planned(&merged, &earliest, InitialPosition::TrimHorizon);
    assert_eq!(
        created(&plan),
        expected(&[("c", Position::AtTimestamp(300))])
    );
    let one_began = [lease("a", at), lease("b", sequence)];
    let plan = planned(&merged, &one_began, InitialPosition::Latest);
    assert_eq!(created(&plan), expected(&[("c", HORIZON)]));
}

/// Goal: a row that nobody can read is a lease all the same: what comes after it starts at its beginning, what came before it is done with,
/// and it is neither created again nor does it let go what its children need.
#[test]
fn k4_a_damaged_lease_counts_as_a_lease() {
    let shards = [
        shard("a", &[], true),
        shard("b", &["a"], true),
        shard("c", &["b"], false),
    ];
    for initial in [InitialPosition::Latest, InitialPosition::AtTimestamp(4_000)] {
        let plan = planned_beside(&["a"], &shards, &[], initial);
        assert_eq!(created(&plan), expected(&[("b", HORIZON), ("c", HORIZON)]));
    }
    let horizon = InitialPosition::TrimHorizon;
    let plan = planned_beside(&["c"], &shards, &[], horizon);
    assert_eq!(plan, SyncPlan::default(), "c is in work already");
    let ended = [lease("a", Position::ShardEnd)];
    let plan = planned_beside(&["b"], &shards[1..], &ended, horizon);
    assert_eq!(created(&plan), expected(&[("c", HORIZON)]));
    assert_eq!(plan.delete, [], "b may have to be created again");
    let gap = [
        shard("a", &[], true),
        shard("b", &[], true),
        shard("c", &["a", "b"], false),
    ];
    let plan = planned_beside(&["a"], &gap, &[], InitialPosition::Latest);
    let now = Position::AtTimestamp(NOW);
    assert_eq!(created(&plan), expected(&[("b", now), ("c", HORIZON)]));
}

#[test]
fn ended_leases_of_shards_no_longer_listed_are_deleted_unless_a_child_needs_them() {
    let shards = [shard("b", &["a"], false)];
    let ended = lease("a", Position::ShardEnd);
    let both = [ended.clone(), lease("b", HORIZON)];
    let plan = planned(&shards, &both, InitialPosition::Latest);
    assert_eq!(plan.delete, std::slice::from_ref(&ended.key));
    let plan = planned(
        &shards,
        std::slice::from_ref(&ended),
        InitialPosition::Latest,
    );
    assert_eq!(
        (created(&plan), plan.delete),
        (expected(&[("b", HORIZON)]), vec![])
    );
    // Neither a listed nor an unfinished one.
    let listed = [shard("a", &[], true), shard("b", &["a"], false)];
    assert_eq!(
        planned(&listed, &both, InitialPosition::Latest),
        SyncPlan::default()
    );
    let unfinished = [lease("a", HORIZON), lease("b", HORIZON)];
    let plan = planned(&shards, &unfinished, InitialPosition::Latest);
    assert_eq!((plan.delete, plan.vanished), (vec![], vec![ended.key]));
}

#[test]
fn leases_of_other_streams_and_an_empty_listing_mean_nothing() {
    let mut other = lease("a", HORIZON);
    other.key.stream = "another".to_owned();
    let plan = planned(
        &[shard("b", &["a"], false)],
        &[other],
        InitialPosition::Latest,
    );
    assert_eq!(
        created(&plan),
        expected(&[("b", Position::AtTimestamp(NOW))])
    );
    let plan = planned(
        &[],
        &[lease("a", Position::ShardEnd)],
        InitialPosition::Latest,
    );
    assert_eq!(plan, SyncPlan::default());
}

/// A random history of splits and merges of a stream that begins with one shard.
fn history() -> impl Strategy<Value = Vec<Shard>> {
    prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..12).prop_map(|moves| {
        let mut shards = vec![shard("0", &[], false)];
        for (split, at) in moves {
            let mut open: Vec<usize> = (0..shards.len()).filter(|i| !shards[*i].closed).collect();
            open.sort_by_key(|index| shards[*index].hash_key_range.start);
            let first = at.index(open.len());
            let chosen = match open.get(first + 1) {
                Some(next) if !split => vec![open[first], *next],
                _ => vec![open[first]],
            };
            reshard(&mut shards, &chosen);
        }
        shards
    })
}

fn reshard(shards: &mut Vec<Shard>, parents: &[usize]) {
    let start = shards[parents[0]].hash_key_range.start;
    let end = shards[parents[parents.len() - 1]].hash_key_range.end;
    let ranges = if parents.len() == 2 {
        vec![HashKeyRange { start, end }]
    } else {
        let middle = start.0 + (end.0 - start.0) / 2;
        vec![
            HashKeyRange {
                start,
                end: HashKey(middle),
            },
            HashKeyRange {
                start: HashKey(middle + 1),
                end,
            },
        ]
    };
    for hash_key_range in ranges {
        let child = Shard {
            shard_id: shards.len().to_string(),
            parents: parents
                .iter()
                .map(|index| shards[*index].shard_id.clone())
                .collect(),
            hash_key_range,
            closed: false,
        };
        shards.push(child);
    }
    for parent in parents {
        shards[*parent].closed = true;
    }
}

proptest! {
    /// K7: after a sync every open shard has a lease, whatever leases there were before.
    #[test]
    fn k7_every_open_shard_has_a_lease_after_a_sync(
        shards in history(),
        leased in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        latest: bool,
    ) {
        let leases: Vec<Lease> = leased
            .iter()
            .map(|index| lease(&shards[index.index(shards.len())].shard_id, HORIZON))
            .collect();
        let initial = if latest { InitialPosition::Latest } else { InitialPosition::TrimHorizon };
        let plan = planned(&shards, &leases, initial);
        let new = created(&plan);
        for open in shards.iter().filter(|shard| !shard.closed) {
            let has = leases.iter().any(|lease| lease.key.shard_id == open.shard_id);
            prop_assert!(has || new.contains_key(&open.shard_id), "{} has none", open.shard_id);
        }
        prop_assert!(plan.delete.is_empty());
        prop_assert!(new.keys().all(|id| leases.iter().all(|lease| lease.key.shard_id != *id)));
    }

    /// A second sync of the same listing finds nothing to do.
    #[test]
    fn a_sync_is_complete(shards in history(), latest: bool) {
        let initial = if latest { InitialPosition::Latest } else { InitialPosition::TrimHorizon };
        let first = planned(&shards, &[], initial);
        let leases: Vec<Lease> = first
            .create
            .iter()
            .map(|new| lease(&new.key.shard_id, new.checkpoint))
            .collect();
        prop_assert_eq!(planned(&shards, &leases, initial), SyncPlan::default());
    }

    /// K4: under LATEST, nothing that is resharded after the start begins later than its beginning once its parent was in work.
    #[test]
    fn k4_children_of_shards_in_work_start_at_their_beginning(
        shards in history(),
        began in any::<prop::sample::Index>(),
    ) {
        // The application began when only the first shards were there; all their leases have got somewhere.
        let count = 1 + began.index(shards.len());
        let mut then: Vec<Shard> = shards[..count].to_vec();
        for index in 0..then.len() {
            let id = then[index].shard_id.clone();
            then[index].closed = then.iter().any(|shard| shard.parents.contains(&id));
        }
        let leases: Vec<Lease> = planned(&then, &[], InitialPosition::Latest)
            .create
            .iter()
            .map(|new| lease(&new.key.shard_id, Position::after("7".parse().unwrap())))
            .collect();
        // A split adds two children in one step; a listing never shows only one of them.
        let whole: Vec<_> = then.iter().filter(|s| !s.closed).map(|s| s.hash_key_range).collect();
        prop_assume!(millstream_wire::hash_key::tiles(&whole));
        for (id, position) in created(&planned(&shards, &leases, InitialPosition::Latest)) {
            prop_assert_eq!(position, HORIZON, "{}", id);
        }
    }
}

/// Goal: a listing that leaves a shard out for a moment does not end it. Method: its ancestor is still listed, and is the
/// first of its line, too.
#[test]
fn an_ancestor_is_no_heir() {
    let gone = ShardInfo {
        stream_name: "orders".to_owned(),
        shard_id: "c".to_owned(),
        position: HORIZON,
        hash_key_range: Some(HashKeyRange::ALL),
        parents: vec!["b".to_owned()],
        pending: None,
    };
    let ancestors = [shard("a", &["expired"], true), shard("b", &["a"], true)];
    assert_eq!(heirs(&ancestors, &gone), []);
    let heir = shard("e", &["d"], false);
    assert_eq!(heirs(&[ancestors[1].clone(), heir.clone()], &gone), [heir]);
}
