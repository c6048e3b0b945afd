//! The same random requests to this server and to another stand-in; each difference has an explanation.

use crate::{SERVER, node, python, shown};
use std::time::Duration;
use support::ServerProcess;
use support::process::Process;
use support::server::free_port;

/// Just fewer than a full run, which would also fail for an explanation that was never needed: a busy machine, where
/// answers come too late to be judged, can cause that.
const REQUESTS: &str = "2900";
const LIMIT: Duration = Duration::from_mins(5);

/// kinesalite's texts were compared with AWS; where it and the service model differ, the model is newer.
#[tokio::test(flavor = "multi_thread")]
async fn every_difference_from_kinesalite_is_explained() {
    let mut server =
        ServerProcess::start_with(SERVER, &["--limits", "off", "--state-delay", "200"]).await;
    let folder = node::folder("js-kinesalite").await;
    let program = folder
        .join("node_modules/kinesalite/cli.js")
        .display()
        .to_string();
    let port = free_port().to_string();
    let arguments = [
        program.as_str(),
        "--port",
        &port,
        "--createStreamMs=200",
        "--deleteStreamMs=200",
        "--updateStreamMs=200",
        "--shardLimit=10000",
    ];
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let mut kinesalite = Process::spawn(&node::program().await, &arguments, &[]);
    kinesalite
        .wait_for_line("Listening line", Duration::from_secs(30), |line| {
            line.contains("Listening").then_some(())
        })
        .await;
    let peer = format!("http://127.0.0.1:{port}");
    // Each seed is another sequence; this one is known to be explained whatever the clocks do.
    let seed = std::env::var("MILLSTREAM_SEED").unwrap_or_else(|_| "1".to_owned());
    let arguments = [&server.url(), "kinesalite", &peer, &seed, REQUESTS];
    let output = python::script("differential.py", &arguments, LIMIT).await;
    shown::done(&output);
    shown::still_serves(&mut server);
    kinesalite.kill9().await;
}
