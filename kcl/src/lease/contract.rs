//! What every lease store must do, run on each of them: memory, SQLite and PostgreSQL, and two stores on one database as two
//! processes would have it.

mod differential;
mod membership;
mod progress;
mod race;
mod steering;
mod tenure;

use super::*;
use crate::error::ErrorKind;
use membership::*;
#[cfg(feature = "postgres")]
use millstream_test_postgres::Cluster;
use progress::*;
use std::sync::Arc;
use steering::*;
use tenure::*;

pub(super) const APP: &str = "app";
pub(super) const STREAM: &str =
    "arn:aws:kinesis:us-east-1:000000000000:stream/orders@1700000000000";

/// Two handles on the same leases.
struct Stores {
    one: Arc<dyn LeaseStore>,
    other: Arc<dyn LeaseStore>,
    _directory: Option<tempfile::TempDir>,
}

fn memory() -> Stores {
    let store = MemoryLeaseStore::new();
    Stores {
        one: Arc::new(store.clone()),
        other: Arc::new(store),
        _directory: None,
    }
}

async fn sqlite() -> Stores {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteLeaseStore::open(directory.path().join("leases.db"))
        .await
        .unwrap();
    let other = Arc::new(store.clone());
    Stores {
        one: Arc::new(store),
        other,
        _directory: Some(directory),
    }
}

async fn two_processes() -> Stores {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.db");
    let one = Arc::new(SqliteLeaseStore::open(&path).await.unwrap());
    let other = Arc::new(SqliteLeaseStore::open(&path).await.unwrap());
    Stores {
        one,
        other,
        _directory: Some(directory),
    }
}

#[cfg(feature = "postgres")]
async fn postgres_store(url: &str) -> Arc<PostgresLeaseStore> {
    Arc::new(PostgresLeaseStore::connect(url).await.unwrap())
}

#[cfg(feature = "postgres")]
async fn postgres() -> Stores {
    let url = Cluster::shared().await.database().await;
    let store = postgres_store(&url).await;
    let other = store.clone();
    Stores {
        one: store,
        other,
        _directory: None,
    }
}

#[cfg(feature = "postgres")]
async fn two_postgres_processes() -> Stores {
    let url = Cluster::shared().await.database().await;
    Stores {
        one: postgres_store(&url).await,
        other: postgres_store(&url).await,
        _directory: None,
    }
}

macro_rules! contract {
    ($($case:ident),* $(,)?) => {
        mod in_memory { $( #[tokio::test] async fn $case() { super::$case(super::memory()).await } )* }
        mod in_sqlite { $( #[tokio::test] async fn $case() { super::$case(super::sqlite().await).await } )* }
        mod in_sqlite_of_two_processes {
            $( #[tokio::test] async fn $case() { super::$case(super::two_processes().await).await } )*
        }
        #[cfg(feature = "postgres")]
        mod in_postgres { $( #[tokio::test] async fn $case() { super::$case(super::postgres().await).await } )* }
        #[cfg(feature = "postgres")]
        mod in_postgres_of_two_processes {
            $( #[tokio::test] async fn $case() { super::$case(super::two_postgres_processes().await).await } )*
        }
    };
}

contract!(
    leases_are_created_once_and_listed_in_order,
    applications_and_streams_are_kept_apart,
    a_worker_is_known_with_its_profile_and_loads,
    k1_fenced_a_take_ends_every_earlier_token,
    k1_fenced_of_two_claims_one_wins,
    k1_fenced_an_owner_that_moved_its_heartbeat_keeps_its_lease,
    k1_fenced_an_owner_with_a_row_is_not_one_without,
    k1_fenced_a_new_run_releases_what_the_earlier_one_held,
    k1_fenced_a_replaced_run_takes_and_asks_for_nothing,
    k3_monotonic_checkpoints_move_forward_only,
    k3_a_pending_checkpoint_stays_until_it_is_covered,
    k3_monotonic_an_ended_shard_is_final,
    k6_a_child_is_not_taken_before_its_parents_end,
    k6_ending_a_shard_creates_its_children,
    k9_a_release_stores_the_last_checkpoint,
    k9_a_hand_over_gives_the_asker_the_lease,
    k11_failed_write_leaves_everything_as_it_was,
    k12_repeated_writes_succeed,
    k12_a_repeated_end_does_not_bring_finished_children_back,
    a_request_stands_until_its_asker_is_named_dead,
    a_departed_worker_leaves_nothing_behind,
    only_silent_workers_that_hold_nothing_are_forgotten,
    only_ended_leases_are_deleted,
    applications_are_named_in_order,
    k10_operators_see_since_when_a_lease_is_owned_and_what_troubles_it,
    k3_only_a_reset_lowers_a_checkpoint,
    k1_fenced_a_reset_ends_every_tenure,
    k3_a_reset_ends_and_reopens_shards,
    k11_a_reset_is_refused_while_workers_live,
    k11_a_reset_of_a_stream_misses_no_lease,
    a_reset_of_a_new_application_finds_no_leases,
    the_last_resets_are_noted,
);

pub(super) fn key(shard_id: &str) -> LeaseKey {
    LeaseKey {
        stream: STREAM.to_owned(),
        shard_id: shard_id.to_owned(),
    }
}

pub(super) fn new_lease(shard_id: &str, parents: &[&str]) -> NewLease {
    NewLease {
        key: key(shard_id),
        checkpoint: Position::TrimHorizon,
        parents: parents.iter().map(|parent| (*parent).to_owned()).collect(),
        hash_key_range: Some(HashKeyRange::ALL),
    }
}

pub(super) fn at(sequence: u64) -> Position {
    Position::after(sequence.to_string().parse().unwrap())
}

pub(super) fn claim(shard_id: &str, counter: u64) -> Claim {
    Claim {
        key: key(shard_id),
        counter,
        expired: None,
    }
}

fn expired_claim(shard_id: &str, counter: u64, owner: &str, heartbeat: Option<u64>) -> Claim {
    let expired = Some(ExpiredOwner {
        worker_id: owner.to_owned(),
        heartbeat,
    });
    Claim {
        expired,
        ..claim(shard_id, counter)
    }
}

pub(super) fn token(lease: &Lease) -> LeaseToken {
    LeaseToken {
        key: lease.key.clone(),
        owner: lease.owner.clone().unwrap(),
        counter: lease.counter,
    }
}

fn ask_for(shard_id: &str, counter: u64, replace: Option<&str>) -> Ask {
    Ask {
        key: key(shard_id),
        counter,
        replace_wanted_by: replace.map(str::to_owned),
    }
}

fn give_up(token: &LeaseToken, checkpoint: Option<Position>, to: Option<&str>) -> Release {
    Release {
        token: token.clone(),
        checkpoint,
        to: to.map(str::to_owned),
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

async fn lease(store: &Arc<dyn LeaseStore>, shard_id: &str) -> Lease {
    let snapshot = store.snapshot(APP).await.unwrap();
    snapshot
        .leases
        .into_iter()
        .find(|lease| lease.key == key(shard_id))
        .unwrap()
}

async fn heartbeat_of(store: &Arc<dyn LeaseStore>, worker_id: &str) -> Option<u64> {
    let snapshot = store.snapshot(APP).await.unwrap();
    snapshot
        .workers
        .iter()
        .find(|row| row.worker_id == worker_id)
        .map(|row| row.heartbeat)
}

/// A worker that says nothing of itself.
async fn join(store: &Arc<dyn LeaseStore>, worker_id: &str) -> Registration {
    let profile = WorkerProfile::default();
    store.register(APP, worker_id, &profile).await.unwrap()
}

/// A worker that has created and taken the shards.
async fn holder(store: &Arc<dyn LeaseStore>, worker_id: &str, shards: &[&str]) -> Registration {
    let worker = join(store, worker_id).await;
    let new: Vec<NewLease> = shards.iter().map(|shard| new_lease(shard, &[])).collect();
    store.create_leases(APP, &new).await.unwrap();
    let claims: Vec<Claim> = shards.iter().map(|shard| claim(shard, 0)).collect();
    assert_eq!(
        store.take(APP, &worker, &claims).await.unwrap().len(),
        shards.len()
    );
    worker
}
