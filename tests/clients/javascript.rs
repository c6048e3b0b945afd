//! Packages from npm: the SDK for JavaScript, over HTTP/2 plain and with TLS, and libraries on it.

use crate::{SERVER, node, shown};
use serde_json::json;
use std::time::Duration;
use support::ServerProcess;

const LIMIT: Duration = Duration::from_mins(3);

#[tokio::test(flavor = "multi_thread")]
async fn the_javascript_sdk_has_every_operation_over_http2() {
    let mut server = ServerProcess::start(SERVER).await;
    let certificate = server.data().join("tls-certificate.pem");
    let certificate = certificate.display().to_string();
    let trusting = [("NODE_EXTRA_CA_CERTS", certificate.as_str())];
    let plain = server.url();
    let tls = plain.replace("http://", "https://");
    for (endpoint, stream) in [(&plain, "plain"), (&tls, "tls")] {
        let arguments = [endpoint.as_str(), stream];
        let output = node::script("js", "sdk.mjs", &arguments, &trusting, LIMIT).await;
        let done = shown::done(&output);
        assert_eq!(done["records"], json!(3_000));
        assert_eq!(done["takeovers"], json!(1));
    }
    shown::still_serves(&mut server);
    shown::works(
        "AWS SDK for JavaScript 3",
        &node::version("js", "@aws-sdk/client-kinesis").await,
        "every operation it has, SubscribeToShard with resumption and takeover, a split and a merge; HTTP/2 by prior \
         knowledge, and by ALPN over TLS",
    );
}

/// The comparison of the scripts is given records that were lost, doubled, altered and reordered.
#[tokio::test]
async fn javascript_comparison_notices_tampering() {
    node::script("js", "records.mjs", &[], &[], LIMIT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_kinesis_agg_for_javascript_unpacks_what_it_packed() {
    let mut server = ServerProcess::start(SERVER).await;
    let arguments = [&server.url(), "aggregated"];
    let output = node::script("js", "aggregation.mjs", &arguments, &[], LIMIT).await;
    assert_eq!(shown::done(&output)["userRecords"], json!(6_000));
    shown::still_serves(&mut server);
    shown::works(
        "aws-kinesis-agg (JavaScript)",
        &node::version("js", "aws-kinesis-agg").await,
        "aggregate, put, get, unpack with checksums",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lifion_kinesis_polls_and_is_pushed_through_splits_and_a_merge() {
    let mut server = ServerProcess::start(SERVER).await;
    let arguments = [&server.url(), "lifion"];
    let output = node::script("js", "lifion.mjs", &arguments, &[], LIMIT).await;
    let done = shown::done(&output);
    for way in ["polling", "fanout"] {
        assert_eq!(done[way]["records"], json!(3_000), "{way}");
    }
    shown::still_serves(&mut server);
    shown::works_but(
        "lifion-kinesis (JavaScript)",
        &node::version("js", "lifion-kinesis").await,
        "a group of consumers, polling and by enhanced fan-out, take-over at checkpoints, splits and a merge; its \
         state in dynalite",
        "its fan-out has no setting for an endpoint, and its parser takes one frame at a time: both are helped from \
         outside",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn serverless_offline_kinesis_calls_a_function_with_every_record() {
    let mut server = ServerProcess::start(SERVER).await;
    let arguments = [&server.url(), "serverless"];
    let script = "serverless_offline.mjs";
    let output = node::script("js/serverless", script, &arguments, &[], LIMIT).await;
    assert_eq!(shown::done(&output)["records"], json!(3_000));
    shown::still_serves(&mut server);
    shown::works_but(
        "serverless-offline-kinesis (JavaScript)",
        &node::version("js/serverless", "serverless-offline-kinesis").await,
        "a function is called with every record, and again with what it refused",
        "it never looks for new shards, so none are split",
    );
}
