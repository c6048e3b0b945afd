//! The PostgreSQL store alone: what it must refuse, rows it must survive, and servers that go away.

mod collisions;
mod offered;
mod opening;
mod outages;
mod rows;
mod tls;

use super::*;
use crate::checkpoint::Position;
use crate::lease::contract::{APP, at, claim, key, new_lease, token};
use crate::lease::{
    Claim, ExpiredOwner, Lease, LeaseStore, LeaseToken, Loads, NewLease, Registration, Release,
    Reset, ResetCondition, WorkerProfile,
};
use millstream_test_postgres::{Cluster, Durability};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, ConnectOptions};

/// A bound that tests wait for, shorter than a session may stand still in a transaction.
const SHORT: Duration = Duration::from_millis(800);

/// A database that nobody else has.
async fn place() -> String {
    Cluster::shared().await.database().await
}

async fn open(url: &str) -> PostgresLeaseStore {
    PostgresLeaseStore::connect(url).await.unwrap()
}

fn options(url: &str) -> PgConnectOptions {
    url.parse().unwrap()
}

/// One whose calls are bounded more tightly.
async fn open_hasty(url: &str) -> PostgresLeaseStore {
    PostgresLeaseStore::connect_with(options(url), SHORT)
        .await
        .unwrap()
}

/// A connection of another program.
async fn outsider(url: &str) -> PgConnection {
    options(url).connect().await.unwrap()
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .unwrap();
}

async fn text(connection: &mut PgConnection, sql: &str) -> String {
    sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_one(connection)
        .await
        .unwrap()
}

async fn join(store: &PostgresLeaseStore, worker_id: &str) -> Registration {
    let profile = WorkerProfile::default();
    store.register(APP, worker_id, &profile).await.unwrap()
}

async fn create(store: &PostgresLeaseStore, shards: &[&str]) {
    let new: Vec<NewLease> = shards.iter().map(|shard| new_lease(shard, &[])).collect();
    store.create_leases(APP, &new).await.unwrap();
}

/// A worker that has created and taken the shards.
async fn holder(
    store: &PostgresLeaseStore,
    worker_id: &str,
    shards: &[&str],
) -> (Registration, Vec<LeaseToken>) {
    let worker = join(store, worker_id).await;
    create(store, shards).await;
    let claims: Vec<Claim> = shards.iter().map(|shard| claim(shard, 0)).collect();
    let taken = store.take(APP, &worker, &claims).await.unwrap();
    assert_eq!(taken.len(), shards.len());
    (worker, taken.iter().map(token).collect())
}

/// A claim of a lease whose owner is taken for dead.
async fn as_expired(store: &PostgresLeaseStore, lease: &Lease) -> Claim {
    let workers = store.snapshot(APP).await.unwrap().workers;
    let owner = lease.owner.clone().unwrap();
    let heartbeat = workers.iter().find(|row| row.worker_id == owner);
    Claim {
        expired: Some(ExpiredOwner {
            heartbeat: heartbeat.map(|row| row.heartbeat),
            worker_id: owner,
        }),
        key: lease.key.clone(),
        counter: lease.counter,
    }
}

async fn lease(store: &PostgresLeaseStore, shard_id: &str) -> Lease {
    store.lease(APP, &key(shard_id)).await.unwrap().unwrap()
}

fn give_up(token: &LeaseToken, checkpoint: Option<Position>) -> Release {
    Release {
        token: token.clone(),
        checkpoint,
        to: None,
    }
}
