//! An application of `kcl` in processes of its own: flights by carrier, counted in SQLite.

use crate::WORKER;
use serde_json::{Map, Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Row};
use std::collections::BTreeMap;
use std::time::Duration;
use support::history::{deliveries, outstanding};
use support::worker::Fleet;
use support::{ServerProcess, check, wait_until};

const FLIGHTS: usize = 336_776;

/// Two workers count; one is killed with a batch in its hands when a fifth is done, and the other finishes.
/// The totals must be the table's (K4), with duplicates only of what was outstanding at the kill (K5).
pub(crate) async fn count_with_a_killed_worker(
    server: &ServerProcess,
    stream: &str,
    expected: &Value,
) {
    let failover = Duration::from_secs(2);
    let fleet = Fleet::new(WORKER, &server.url(), stream, failover);
    let results = fleet.results();
    // The payload is the row's number and the row, whose tenth column is the carrier.
    let mut fleet = fleet
        .with("--count-into", &results.display())
        .with("--count-column", &10)
        .with("--max-records", &2000)
        .with("--delay-ms", &20);
    let mut dies = fleet.start().await;
    let survives = fleet.start().await;
    let patience = Duration::from_secs(90);
    let seen = |events: &[_]| deliveries(events).len();
    wait_until(
        "a fifth of the flights was delivered, by both workers",
        patience,
        || async {
            let both = [&dies, &survives]
                .into_iter()
                .all(|one| seen(&one.events()) > 0);
            (both && seen(&fleet.history([&dies, &survives])) > FLIGHTS / 5).then_some(())
        },
    )
    .await;
    wait_until(
        "the worker to be killed has a batch in its hands",
        patience,
        || async { (!outstanding(&dies.events(), dies.id()).is_empty()).then_some(()) },
    )
    .await;
    dies.kill9().await;
    let open = outstanding(&dies.events(), dies.id());
    wait_until("the survivor delivered the rest", patience, || async {
        (seen(&fleet.history([&dies, &survives])) >= FLIGHTS).then_some(())
    })
    .await;
    wait_until("the survivor checkpointed everything", patience, || async {
        outstanding(&survives.events(), survives.id())
            .is_empty()
            .then_some(())
    })
    .await;
    let events = fleet.history([&dies, &survives]);
    let counts = deliveries(&events);
    let doubled = counts.values().filter(|count| **count > 1).count();
    println!(
        "killed with {} records outstanding, {doubled} came again",
        open.len()
    );
    check::duplicates_bounded(&counts, &[open]).unwrap();
    check::order_kept(&events, &BTreeMap::new()).unwrap();
    check::one_owner(&events).unwrap();
    assert_eq!(counts.len(), FLIGHTS);
    assert_eq!(&totals(&results).await, expected, "flights by carrier");
}

async fn totals(results: &std::path::Path) -> Value {
    let mut database = SqliteConnectOptions::new()
        .filename(results)
        .read_only(true)
        .connect()
        .await
        .unwrap();
    let rows = sqlx::query("SELECT value, count(*) AS flights FROM counted GROUP BY value")
        .fetch_all(&mut database)
        .await
        .unwrap();
    let pairs = rows.iter().map(|row| {
        (
            row.get::<String, _>("value"),
            json!(row.get::<i64, _>("flights")),
        )
    });
    Value::Object(pairs.collect::<Map<String, Value>>())
}
