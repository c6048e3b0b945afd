//! Libraries and tools from PyPI that people read and write streams with.

use crate::python::{Environment, program_of, script_in, version};
use crate::{SERVER, shown};
use serde_json::json;
use std::time::Duration;
use support::ServerProcess;

const LIMIT: Duration = Duration::from_mins(3);

#[tokio::test(flavor = "multi_thread")]
async fn async_kinesis_produces_consumes_and_goes_on_at_its_checkpoints() {
    let mut server = ServerProcess::start(SERVER).await;
    let program = program_of(Environment::Aio, "async-kinesis").await;
    let program = program.display().to_string();
    let arguments = [&server.url(), "async", &program];
    let output = script_in(
        Environment::Aio,
        "async_kinesis_client.py",
        &arguments,
        LIMIT,
    )
    .await;
    shown::done(&output);
    shown::still_serves(&mut server);
    shown::works(
        "async-kinesis (Python)",
        &version(Environment::Aio, "async-kinesis").await,
        "produce and consume through a split, go on at checkpoints, every processor, its command line",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn aiokpl_aggregates_through_a_split() {
    let mut server = ServerProcess::start(SERVER).await;
    let arguments = [&server.url(), "aiokpl"];
    let output = script_in(Environment::Aio, "aiokpl_client.py", &arguments, LIMIT).await;
    shown::done(&output);
    shown::still_serves(&mut server);
    shown::works_but(
        "aiokpl (Python)",
        &version(Environment::Aio, "aiokpl").await,
        "user records aggregated through a split, unpacked and compared",
        "after a split it sends again what a child shard took",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_kinesis_agg_unpacks_what_it_packed() {
    let mut server = ServerProcess::start(SERVER).await;
    let arguments = [&server.url(), "agg"];
    let output = script_in(Environment::Aio, "kinesis_agg.py", &arguments, LIMIT).await;
    shown::done(&output);
    shown::still_serves(&mut server);
    shown::works(
        "aws-kinesis-agg (Python)",
        &version(Environment::Aio, "aws-kinesis-agg").await,
        "aggregate, put, get, unpack; explicit hash keys",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_kinesis_consumer_shows_every_record() {
    let mut server = ServerProcess::start(SERVER).await;
    let program = program_of(Environment::Consumer, "aws-kinesis-consumer").await;
    let program = program.display().to_string();
    let arguments = [&server.url(), "consumer", &program];
    let output = script_in(
        Environment::Consumer,
        "kinesis_consumer.py",
        &arguments,
        LIMIT,
    )
    .await;
    let done = shown::done(&output);
    assert_ne!(done, json!({}));
    shown::still_serves(&mut server);
    shown::works_but(
        "aws-kinesis-consumer (Python)",
        &version(Environment::Consumer, "aws-kinesis-consumer").await,
        "every record from the trim horizon and from the tip, on the command line",
        "it looks for shards only when it starts",
    );
}
