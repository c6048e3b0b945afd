//! AWS's limits, which are on unless a server is told otherwise, through boto3.

use crate::{SERVER, python, shown};
use std::time::Duration;
use support::ServerProcess;

/// Records, bytes and calls per second of a shard, partial failures, the largest requests; what was refused is sent
/// again, and everything is there once.
#[tokio::test(flavor = "multi_thread")]
async fn boto3_meets_awss_limits_and_loses_nothing() {
    let _alone = support::alone().await;
    let mut server = ServerProcess::start_with(SERVER, &[]).await;
    let limit = Duration::from_mins(3);
    let output = python::script("limits.py", &[&server.url(), "limits"], limit).await;
    shown::done(&output);
    shown::still_serves(&mut server);
    shown::works(
        "boto3, with AWS's limits",
        &python::version(python::Environment::Clients, "boto3").await,
        "throughput of shards in and out, partial failures sent again, the largest records and requests",
    );
}
