//! The table of flights through boto3 and back, and bad input through boto3.

use crate::{SERVER, carriers, python, shown};
use serde_json::Value;
use std::time::Duration;
use support::ServerProcess;

/// All 336,776 rows are put by four producers while a shard is split and two are merged, and read back
/// following `ChildShards`: none missing, none doubled, none altered, each tail number's rows in order. Then
/// two workers count flights by carrier, and one of them is killed half-way.
#[tokio::test(flavor = "multi_thread")]
async fn every_flight_arrives_and_a_killed_worker_loses_none() {
    let _alone = support::alone().await;
    let server = ServerProcess::start(SERVER).await;
    let limit = Duration::from_mins(4);
    let output = python::script("flights.py", &[&server.url(), "flights"], limit).await;
    let done: Value = serde_json::from_str(output.trim()).unwrap();
    println!("boto3: {done}");
    assert_eq!(done["rows"], 336_776);
    carriers::count_with_a_killed_worker(&server, "flights", &done["carriers"]).await;
    shown::works(
        "boto3",
        &python::version(python::Environment::Clients, "boto3").await,
        "336,776 records through a split and a merge, compared one by one; 38 kinds of bad input raise its own exceptions",
    );
}

/// The comparison that judges the test above is given rows that were lost, doubled, altered and reordered.
#[tokio::test]
async fn flights_comparison_notices_tampering() {
    let output = python::script(
        "flights.py",
        &["--check-the-checker"],
        Duration::from_secs(30),
    )
    .await;
    assert_eq!(output.lines().count(), 7, "{output}");
}

/// Each kind of bad input is answered with AWS's code, and the request after it is served.
#[tokio::test(flavor = "multi_thread")]
async fn boto3_errors_have_aws_codes() {
    let mut server = ServerProcess::start(SERVER).await;
    let output = python::script("errors.py", &[&server.url()], Duration::from_secs(90)).await;
    println!("{output}");
    assert!(server.is_running());
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
