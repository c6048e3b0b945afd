//! The AWS SDK for Java 2, which sends CBOR unless told otherwise. Needs a JDK of version 17 or later.

use crate::{SERVER, python};
use std::path::Path;
use std::time::Duration;
use support::ServerProcess;

#[tokio::test(flavor = "multi_thread")]
async fn the_java_sdk_speaks_cbor_over_every_kind_of_connection() {
    let jars = python::jars().await;
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
