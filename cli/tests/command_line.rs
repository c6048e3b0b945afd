//! The binary as scripts see it: the `Ready` line, exit codes, and the demo on a file of one's own.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn millstream(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A server that is ready, killed when dropped; with its `Ready` line.
struct Server(Child, String);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(data: &Path, more: &[&str]) -> Server {
    let mut command = millstream(&["serve", "--port", "0", "--data-dir"]);
    let mut child = command.arg(data).args(more).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.starts_with("Ready http://127.0.0.1:"), "{line:?}");
    Server(child, line)
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn s10_serve_says_when_it_is_ready_and_stops_with_zero_when_asked() {
    for stop in ["TERM", "INT"] {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let mut server = serve(&data, &["--durability", "interval=50"]);
        let expected = format!("(data {}, durability interval=50)\n", data.display());
        assert!(server.1.ends_with(&expected), "{}", server.1);
        signal(&server.0, stop);
        assert_eq!(server.0.wait().unwrap().code(), Some(0), "{stop}");
    }
}

#[test]
fn serve_stops_with_its_standard_input_when_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = serve(directory.path(), &["--stop-with-stdin"]);
    drop(server.0.stdin.take());
    assert_eq!(server.0.wait().unwrap().code(), Some(0));
}

#[test]
fn s8_a_second_server_on_the_same_data_is_refused_with_code_3() {
    let directory = tempfile::tempdir().unwrap();
    let _first = serve(directory.path(), &[]);
    let second = millstream(&["serve", "--port", "0", "--data-dir"])
        .arg(directory.path())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(3), "{}", said(&second));
    assert!(
        said(&second).contains(&directory.path().display().to_string()),
        "{}",
        said(&second)
    );
}

#[test]
fn wrong_settings_end_with_code_2_and_a_taken_port_with_code_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let cases: [(&[&str], i32, &str); 6] = [
        (&["serve", "--durability", "sometimes"], 2, "sometimes"),
        (
            &["serve", "--ephemeral", "--host", "0.0.0.0"],
            2,
            "--allow-public",
        ),
        (&["serve", "--config", "/nowhere.toml"], 2, "/nowhere.toml"),
        (&["unknown"], 2, "unknown"),
        (&["demo", "--input", "/nowhere.csv"], 2, "/nowhere.csv"),
        (
            &["serve", "--ephemeral", "--port", &port],
            1,
            "cannot listen",
        ),
    ];
    for (arguments, code, text) in cases {
        let output = millstream(arguments).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            said(&output)
        );
        assert!(
            said(&output).contains(text),
            "{arguments:?}: {}",
            said(&output)
        );
        assert!(output.stdout.is_empty(), "standard output is for results");
    }
    assert_eq!(
        millstream(&["serve", "--help"])
            .output()
            .unwrap()
            .status
            .code(),
        Some(0)
    );
}

/// What operators mistype is said, with what to do, and nothing is made by looking.
#[test]
fn app_refuses_what_is_wrong_and_creates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.db");
    let store = path.display().to_string();
    let about = ["--application", "shop", "--store", &store];
    let cases: [(&[&str], i32, &str); 7] = [
        (&["leases"], 1, "no such file"),
        (&["reset", "--to", "trim-horizon"], 1, "no such file"),
        (&["reset"], 2, "--to"),
        (
            &["reset", "--to", "latest", "--to-sequence", "5"],
            2,
            "cannot be used with",
        ),
        (&["reset", "--to-sequence", "5"], 2, "--shard"),
        (&["reset", "--to", "soon"], 2, "2026-01-31T08:00:00Z"),
        (&["why"], 2, "SHARD"),
    ];
    for (arguments, code, text) in cases {
        let mut command = millstream(&["app"]);
        let output = command.args(arguments).args(about).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            said(&output)
        );
        assert!(
            said(&output).contains(text),
            "{arguments:?}: {}",
            said(&output)
        );
        assert!(output.stdout.is_empty());
    }
    assert!(!path.exists());
    let mut command = millstream(&["app", "applications"]);
    let output = command.env("MILLSTREAM_LEASE_STORE", "").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let secret = "postgres://me:hush@127.0.0.1:1/db";
    let help = millstream(&["app", "leases", "--help"])
        .env("MILLSTREAM_LEASE_STORE", secret)
        .output();
    assert!(!String::from_utf8_lossy(&help.unwrap().stdout).contains("hush"));
}

/// The whole demo, shortened, on JSON lines from standard input: exit code 0 only if its own proof holds.
#[test]
fn k4_demo_proves_itself_on_json_lines() {
    let mut demo = millstream(&[
        "demo", "--input", "-", "--key", "user.id", "--value", "amount",
    ]);
    let mut demo = demo.args(["--seconds", "12"]).spawn().unwrap();
    let mut stdin = demo.stdin.take().unwrap();
    for number in 0..2_000 {
        let user = number * 7 % 40;
        writeln!(
            stdin,
            "{{\"user\":{{\"id\":{user}}},\"amount\":{}.25}}",
            number % 100
        )
        .unwrap();
    }
    drop(stdin);
    // Standard error first: it closes at the end, and standard output is short.
    let mut progress = String::new();
    demo.stderr
        .take()
        .unwrap()
        .read_to_string(&mut progress)
        .unwrap();
    let output = demo.wait_with_output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{report}\n{progress}");
    assert!(report.contains("40 of 40"), "{report}");
    assert!(!report.contains("FAILED"), "{report}");
    for event in ["KILLED worker-", "KILLED the server", "SPLIT shard"] {
        assert!(progress.contains(event), "{event:?} is not in {progress}");
    }
}
