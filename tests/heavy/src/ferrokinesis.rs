//! The same random requests to this server and to ferrokinesis; each difference has an explanation
//! (docs/0005-differential.md).

use crate::sdk;
use millstream_server::Config;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process;
use tokio::time::{sleep, timeout};

const FERROKINESIS: &str = "0.7.0";
/// Just fewer than a full run, which would also fail for an explanation that was never needed: a busy machine, where
/// answers come too late to be judged, can cause that.
const REQUESTS: &str = "2900";

/// The program, built from the registry if it is not there yet.
fn program() -> PathBuf {
    // TARGET/debug/deps/this-program
    let this = std::env::current_exe().expect("a path");
    let target = this.ancestors().nth(3).expect("a target directory");
    let root = target.join(format!("ferrokinesis-{FERROKINESIS}"));
    let program = root.join("bin/ferrokinesis");
    if !program.exists() {
        let mut install = Command::new(env!("CARGO"));
        install.args([
            "install",
            "--locked",
            "--quiet",
            "ferrokinesis",
            "--version",
            FERROKINESIS,
        ]);
        install.arg("--root").arg(&root);
        install
            .arg("--target-dir")
            .arg(target.join("ferrokinesis-build"));
        let installed = install.stdin(Stdio::null()).status();
        assert!(
            installed.expect("cargo").success(),
            "could not install ferrokinesis"
        );
    }
    program
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

async fn listens(port: u16) {
    let connected = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = timeout(Duration::from_secs(20), connected).await;
    waited.expect("ferrokinesis listens");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_difference_from_ferrokinesis_is_explained() {
    let config = Config {
        state_delay_ms: 200,
        ..sdk::config()
    };
    let server = sdk::start(config).await;
    let program = tokio::task::spawn_blocking(program)
        .await
        .expect("a program");
    let port = free_port();
    let mut ferrokinesis = process::Command::new(program);
    ferrokinesis.args(["--port", &port.to_string(), "--shard-limit", "10000"]);
    for delay in [
        "--create-stream-ms",
        "--delete-stream-ms",
        "--update-stream-ms",
    ] {
        ferrokinesis.args([delay, "200"]);
    }
    ferrokinesis
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let _ferrokinesis = ferrokinesis.spawn().expect("ferrokinesis starts");
    listens(port).await;

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients/differential.py");
    let peer = format!("http://127.0.0.1:{port}");
    let mut python = process::Command::new("python3");
    python
        .arg(script)
        .args([&server.url(), "ferrokinesis", &peer, "1", REQUESTS]);
    python.stdout(Stdio::piped()).kill_on_drop(true);
    let mut running = python.spawn().expect("python3");
    let output = running.stdout.take().expect("its output");
    let mut lines = BufReader::new(output).lines();
    let judged = async {
        while let Ok(Some(line)) = lines.next_line().await {
            println!("{line}");
        }
        running.wait().await.expect("an end").success()
    };
    let judged = timeout(Duration::from_mins(3), judged).await;
    assert!(
        judged.expect("an end in time"),
        "there are differences without an explanation"
    );
    server.shutdown().await;
}
