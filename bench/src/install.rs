//! Installs what is measured beside this workspace's own from PyPI into a directory, once.

use crate::Failure;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// The slowest is a peer that is compiled.
const LIMIT: Duration = Duration::from_mins(20);

/// Runs a command to its end; its output if it succeeds.
pub async fn run(command: &mut Command) -> Result<String, Failure> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(LIMIT, output).await;
    let shown = command.as_std().get_program().display().to_string();
    let output = output.map_err(|_| format!("{shown} takes more than {LIMIT:?}"))?;
    let output = output.map_err(|error| format!("{shown}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let mut said: Vec<&str> = said.lines().rev().take(3).collect();
    said.reverse();
    Err(format!(
        "{command:?} ended with {}: {}",
        output.status,
        said.join(" | ")
    )
    .into())
}

/// A virtual environment with the packages; what they depend on is left out where it is not needed.
pub async fn environment(
    at: &Path,
    packages: &[&str],
    dependencies: bool,
) -> Result<PathBuf, Failure> {
    let (python, complete) = (at.join("bin/python"), at.join("complete"));
    if !complete.exists() {
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(at))
        .await?;
        let mut pip = Command::new(&python);
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]);
        if !dependencies {
            pip.arg("--no-deps");
        }
        run(pip.args(packages)).await?;
        std::fs::write(complete, "")?;
    }
    Ok(python)
}

/// The folder in which an environment's packages lie.
pub async fn packages(python: &Path) -> Result<PathBuf, Failure> {
    let told = "import sysconfig; print(sysconfig.get_path('purelib'))";
    let told = run(Command::new(python).args(["-c", told])).await?;
    Ok(PathBuf::from(told.trim()))
}
