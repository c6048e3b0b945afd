//! The AWS SDK for Java 2, which sends CBOR unless told otherwise. Needs a JDK of version 17 or later.

use crate::{SERVER, python};
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::ServerProcess;

/// The package with the jars; what its own Python needs is not needed to read them.
const JARS: &str = "kclpy-ext==3.1.3.post4";
/// The package holds some 30 MB.
const INSTALL_LIMIT: Duration = Duration::from_mins(5);

/// The directory of the jars, installed if they are not there yet.
async fn jars() -> PathBuf {
    let python = python::program("python").await;
    let install = ["-m", "pip", "install", "--quiet", "--no-deps", JARS];
    let where_packages_are = "import sysconfig; print(sysconfig.get_path('purelib'))";
    let installed = python::run(&python, &install, &[], INSTALL_LIMIT).await;
    assert_eq!(
        installed.code,
        Some(0),
        "could not install {JARS}: {}",
        installed.stderr
    );
    let told = python::run(&python, &["-c", where_packages_are], &[], INSTALL_LIMIT).await;
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    Path::new(told.stdout.trim()).join("amazon_kclpy/jars")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_java_sdk_speaks_cbor_over_every_kind_of_connection() {
    let jars = jars().await;
    let server = ServerProcess::start(SERVER).await;
    let certificate = server.data().join("tls-certificate.pem");
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/JavaSdk.java");
    let [jars, certificate, program] =
        [jars.join("*"), certificate, program].map(|path| path.display().to_string());
    let arguments = ["-cp", &jars, &program, &server.url(), &certificate];
    let java = Path::new("java");
    let ended = python::run(java, &arguments, &[], Duration::from_mins(3)).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let ways: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(
        ways,
        ["http-HTTP1_1", "http-HTTP2", "https-HTTP1_1", "https-HTTP2"]
    );
}
