//! Runs every example as a user would and checks the result it prints.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tokio::time::timeout;

/// No example needs more than a few seconds; a machine that is busy building may be slow.
const LIMIT: Duration = Duration::from_secs(60);

/// The example's binary: `cargo test` puts it next to this test's directory. It is built if it is not there.
fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    let path = profile
        .join("examples")
        .join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    if !path.exists() {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let arguments = [
            "build",
            "--package",
            "millstream-examples",
            "--example",
            name,
        ];
        let built = Command::new(cargo).args(arguments).status().unwrap();
        assert!(
            built.success() && path.exists(),
            "{name} was not built at {}",
            path.display()
        );
    }
    path
}

/// The last line that the example prints.
async fn result(name: &str) -> String {
    let mut command = tokio::process::Command::new(binary(name));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let ran = timeout(LIMIT, command.output()).await;
    let Output {
        status,
        stdout,
        stderr,
    } = ran.expect("the example ends by itself").unwrap();
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    assert!(
        status.success(),
        "{status}\n{stdout}\n{}",
        String::from_utf8_lossy(&stderr)
    );
    stdout.lines().last().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn smallest_worker_processes_every_record() {
    assert_eq!(
        result("smallest_worker").await,
        "result: 10 records processed"
    );
}

#[tokio::test]
async fn shared_stream_leaves_no_worker_idle_and_no_record_out() {
    let result = result("shared_stream").await;
    assert!(result.starts_with("result: 3 workers shared "), "{result}");
    assert!(result.ends_with(" records, none is missing"), "{result}");
}

#[tokio::test]
async fn failover_loses_no_record() {
    let result = result("failover").await;
    assert!(
        result.starts_with("result: all 200 records processed, "),
        "{result}"
    );
}

#[tokio::test]
async fn replay_starts_at_the_moment_asked_for() {
    assert_eq!(
        result("replay_from_timestamp").await,
        "result: 4 of 10 records replayed"
    );
}

#[tokio::test]
async fn reshard_keeps_the_order_per_key() {
    let expected = "result: 120 records over 3 shards, each key in order";
    assert_eq!(result("reshard_while_processing").await, expected);
}

#[tokio::test]
async fn exactly_once_is_exact_through_crashes_and_lost_answers() {
    let expected = "result: 19900 of 19900 paid, each once";
    assert_eq!(result("exactly_once").await, expected);
}

#[tokio::test]
async fn error_policies_retry_the_flaky_and_put_the_poison_aside() {
    let expected = "result: 99 of 100 amounts processed, 1 dead letter";
    assert_eq!(result("error_policies").await, expected);
}

#[tokio::test]
async fn parallel_by_key_keeps_each_key_in_order() {
    let expected = "result: 60 records of 6 keys, each key in order, 6 at once";
    assert_eq!(result("parallel_by_key").await, expected);
}

#[tokio::test]
async fn typed_records_tell_what_is_no_order() {
    let expected = "result: 19 orders worth 190, 1 refused";
    assert_eq!(result("typed_records").await, expected);
}

#[tokio::test]
async fn records_as_a_stream_are_each_done() {
    let expected = "result: 40 records done, 1 of them at the second attempt";
    assert_eq!(result("records_as_a_stream").await, expected);
}

#[tokio::test]
async fn testing_a_processor_takes_no_time() {
    let expected = "result: 100 records processed, a crash and 10 s of fail-over included";
    assert_eq!(result("testing_a_processor").await, expected);
}

#[tokio::test]
async fn many_streams_are_processed_by_one_worker() {
    assert_eq!(
        result("many_streams").await,
        "result: {\"clicks\": 5, \"orders\": 10, \"returns\": 7}, and clicks and orders are left"
    );
}

#[tokio::test]
async fn health_and_metrics_tell_what_happened() {
    let expected = "result: ready true, 10 records delivered, 2 batches failed once";
    assert_eq!(result("health_and_metrics").await, expected);
}

#[tokio::test]
async fn fan_out_pushes_every_record() {
    let expected = "result: 50 records pushed as they arrived";
    assert_eq!(result("fan_out").await, expected);
}

#[tokio::test]
async fn operations_tell_why_and_deliver_again() {
    let expected = "result: 25 orders shipped again by 1 reset; applications: audit, shop";
    assert_eq!(result("operations").await, expected);
}
