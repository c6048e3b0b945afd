//! README's table of clients: a row for each, written by the test that ran it.

use serde_json::Value;
use support::{ServerProcess, generated};

/// The client did what `done` says, and everything it was asked to show was right.
pub(crate) fn works(client: &str, version: &str, done: &str) {
    generated::row("clients", client, &[version, done, "works"]);
}

/// As [`works`], but for something that the client itself gets wrong.
pub(crate) fn works_but(client: &str, version: &str, done: &str, but: &str) {
    generated::row(
        "clients",
        client,
        &[version, done, &format!("works, but {but}")],
    );
}

/// What a script says it did, in one line of JSON.
pub(crate) fn done(output: &str) -> Value {
    let line = output.trim();
    println!("{line}");
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))
}

/// The server is still there, and nothing in it panicked.
pub(crate) fn still_serves(server: &mut ServerProcess) {
    assert!(server.is_running());
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
