//! What lease stores cost: `cargo bench -p kcl --bench leases` prints a line per verb and store.
//!
//! SQLite in a file of the temporary folder, PostgreSQL in a server on this machine, both writing through to the disk.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench may talk and panic"
)]

use kcl::lease::{Claim, LeaseKey, LeaseToken, Loads, NewLease, Release, WorkerProfile};
use kcl::{LeaseStore, MemoryLeaseStore, Position, PostgresLeaseStore, SqliteLeaseStore};
use millstream_test_postgres::{Cluster, Durability};
use std::time::Duration;
use tokio::time::Instant;

const APP: &str = "bench";
const LEASES: usize = 1_000;
/// Calls measured one after the other for a verb that is quick.
const CALLS: u64 = 500;

fn key(number: usize) -> LeaseKey {
    LeaseKey {
        stream: "arn:aws:kinesis:us-east-1:000000000000:stream/orders@1700000000000".to_owned(),
        shard_id: format!("shardId-{number:012}"),
    }
}

fn new_lease(number: usize) -> NewLease {
    NewLease {
        key: key(number),
        checkpoint: Position::TrimHorizon,
        parents: vec![key(number + LEASES).shard_id],
        hash_key_range: None,
    }
}

fn print(store: &str, verb: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |share: usize| took[(took.len() - 1) * share / 100];
    let ms = |took: Duration| took.as_secs_f64() * 1_000.0;
    println!(
        "{store:10} {verb:24} p50 {:9.3} ms  p99 {:9.3} ms  worst {:9.3} ms",
        ms(at(50)),
        ms(at(99)),
        ms(at(100))
    );
}

/// How long the calls take, one after the other.
async fn timed<T, C: Future<Output = T>>(
    count: u64,
    mut call: impl FnMut(u64) -> C,
) -> Vec<Duration> {
    let mut took = Vec::new();
    for number in 1..=count {
        let begun = Instant::now();
        call(number).await;
        took.push(begun.elapsed());
    }
    took
}

async fn measure(name: &str, store: &dyn LeaseStore) {
    let new: Vec<NewLease> = (0..LEASES).map(new_lease).collect();
    let profile = WorkerProfile::default();
    let worker = store.register(APP, "w", &profile).await.unwrap();
    let took = timed(1, async |_| {
        assert_eq!(store.create_leases(APP, &new).await.unwrap(), LEASES);
    });
    print(name, "create 1000", took.await);
    let claims: Vec<Claim> = new
        .iter()
        .map(|new| Claim {
            key: new.key.clone(),
            counter: 0,
            expired: None,
        })
        .collect();
    let took = timed(1, async |_| {
        let taken = store.take(APP, &worker, &claims).await.unwrap();
        assert_eq!(taken.len(), LEASES);
    });
    print(name, "take 1000", took.await);
    let took = timed(20, async |_| {
        assert_eq!(store.snapshot(APP).await.unwrap().leases.len(), LEASES);
    });
    print(name, "snapshot of 1000", took.await);
    let token = |number: usize| LeaseToken {
        key: key(number),
        owner: "w".to_owned(),
        counter: 1,
    };
    let mine = token(7);
    let took = timed(CALLS, async |number| {
        let position = Position::after(number.to_string().parse().unwrap());
        store.checkpoint(APP, &mine, &position).await.unwrap();
    });
    print(name, "checkpoint", took.await);
    let took = timed(CALLS, async |_| {
        store
            .heartbeat(APP, &worker, &Loads::new(), &[])
            .await
            .unwrap();
    });
    print(name, "heartbeat", took.await);
    let releases: Vec<Release> = (0..LEASES)
        .map(|number| Release {
            token: token(number),
            checkpoint: None,
            to: None,
        })
        .collect();
    let took = timed(1, async |_| {
        assert_eq!(store.release(APP, &releases).await.unwrap(), LEASES);
    });
    print(name, "release 1000", took.await);
}

#[tokio::main]
async fn main() {
    measure("memory", &MemoryLeaseStore::new()).await;
    let folder = tempfile::tempdir().unwrap();
    let sqlite = SqliteLeaseStore::open(folder.path().join("leases.db"))
        .await
        .unwrap();
    measure("sqlite", &sqlite).await;
    let cluster = Cluster::start(Durability::Disk).await;
    let postgres = PostgresLeaseStore::connect(&cluster.database().await)
        .await
        .unwrap();
    measure("postgres", &postgres).await;
}
