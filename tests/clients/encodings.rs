//! CBOR by a third party's encoder, and boto3 over TLS with the server's own certificate.

use crate::{SERVER, python, shown};
use std::time::Duration;
use support::ServerProcess;

#[tokio::test(flavor = "multi_thread")]
async fn cbor_of_another_make_and_boto3_over_tls() {
    let server = ServerProcess::start(SERVER).await;
    let certificate = server.data().join("tls-certificate.pem");
    let certificate = certificate.display().to_string();
    let arguments = [server.url(), certificate];
    let arguments = [arguments[0].as_str(), arguments[1].as_str()];
    let said = python::script("encodings.py", &arguments, Duration::from_mins(2)).await;
    assert_eq!(said.trim(), "ok");
    let version = async |package| python::version(python::Environment::Clients, package).await;
    shown::works(
        "boto3 over TLS",
        &version("boto3").await,
        "with the server's own certificate as its trust",
    );
    shown::works(
        "cbor2 (Python)",
        &version("cbor2").await,
        "CBOR of another make: streams, records and errors, every kind of length",
    );
}
