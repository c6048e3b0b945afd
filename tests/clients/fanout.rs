//! Enhanced fan-out through boto3.

use crate::{SERVER, python, shown};
use serde_json::Value;
use std::time::Duration;
use support::ServerProcess;

/// Two consumers subscribe to every shard with boto3 while records are put, a shard is split and two are
/// merged; they leave and resume at and after continuation numbers, follow `ChildShards`, and each gets
/// every record once, in its key's order.
#[tokio::test(flavor = "multi_thread")]
async fn boto3_consumers_are_pushed_every_record_across_a_split_and_a_merge() {
    let mut server = ServerProcess::start(SERVER).await;
    let limit = Duration::from_mins(2);
    let output = python::script("fanout.py", &[&server.url(), "fanout"], limit).await;
    let done: Value = serde_json::from_str(output.trim()).unwrap();
    println!("boto3 fan-out: {done}");
    assert_eq!(done["shards"], 5);
    assert!(
        done["resumed"].as_u64().is_some_and(|resumed| resumed > 0),
        "{done}"
    );
    shown::still_serves(&mut server);
    shown::works(
        "boto3, enhanced fan-out",
        &python::version(python::Environment::Clients, "boto3").await,
        "two consumers subscribe through a split and a merge, resume at and after continuation numbers",
    );
}
