//! HTTPS on the port of HTTP, with the server's own certificate and with a given one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use millstream_server::log::{Error, RealDisk};
use millstream_server::{Config, DataLocation, Server, StartError, TlsSource};
use reqwest::{Certificate, Client, Version};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn config(data: DataLocation) -> Config {
    Config {
        port: 0,
        data,
        region: "eu-west-1".parse().unwrap(),
        ..Config::default()
    }
}

fn on_disk(directory: &Path) -> Config {
    config(DataLocation::Directory(directory.to_owned()))
}

/// A client that trusts this certificate and no other.
fn client(certificate_pem: &str) -> reqwest::ClientBuilder {
    let certificate = Certificate::from_pem(certificate_pem.as_bytes()).unwrap();
    Client::builder().tls_certs_only([certificate])
}

async fn list(client: &Client, url: &str) -> reqwest::Result<(Version, String)> {
    let authorization = "AWS4-HMAC-SHA256 Credential=A/d/eu-west-1/kinesis/aws4_request, SignedHeaders=h, \
                         Signature=s";
    let reply = client
        .post(url)
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", "Kinesis_20131202.ListStreams")
        .header("x-amz-date", "20150101T000000Z")
        .header("authorization", authorization)
        .body("{}")
        .send()
        .await?;
    let version = reply.version();
    Ok((version, reply.error_for_status()?.text().await?))
}

const EMPTY: &str = r#"{"StreamNames":[],"HasMoreStreams":false,"StreamSummaries":[]}"#;

#[tokio::test]
async fn one_port_serves_plain_and_tls_and_both_versions_of_http() {
    let server = Server::start(config(DataLocation::Ephemeral))
        .await
        .unwrap();
    let trusting = || client(server.certificate_pem());
    let http_2 = trusting().build().unwrap();
    let http_1 = trusting().http1_only().build().unwrap();
    let secure = server.url().replace("http://", "https://");
    let (by_alpn, body) = list(&http_2, &secure).await.unwrap();
    assert_eq!((by_alpn, body.as_str()), (Version::HTTP_2, EMPTY));
    let (version, body) = list(&http_1, &secure).await.unwrap();
    assert_eq!((version, body.as_str()), (Version::HTTP_11, EMPTY));
    let (version, body) = list(&http_1, &server.url()).await.unwrap();
    assert_eq!((version, body.as_str()), (Version::HTTP_11, EMPTY));
    // A client of another server does not take it for its own.
    let other = Server::start(config(DataLocation::Ephemeral))
        .await
        .unwrap();
    let mistaken = client(other.certificate_pem()).build().unwrap();
    assert!(list(&mistaken, &secure).await.unwrap_err().is_connect());
    server.shutdown().await;
    other.shutdown().await;
}

#[tokio::test]
async fn the_certificate_is_for_every_name_of_the_server() {
    let server = Server::start(config(DataLocation::Ephemeral))
        .await
        .unwrap();
    let address = server.local_addr();
    for name in [
        "localhost",
        "millstream",
        "kinesis",
        "host.docker.internal",
        "kinesis.eu-west-1.amazonaws.com",
    ] {
        let client = client(server.certificate_pem()).resolve(name, address);
        let url = format!("https://{name}:{}/", address.port());
        let (_, body) = list(&client.build().unwrap(), &url).await.unwrap();
        assert_eq!(body, EMPTY, "{name}");
    }
    let name = "kinesis.eu-west-2.amazonaws.com";
    let client = client(server.certificate_pem()).resolve(name, address);
    let url = format!("https://{name}:{}/", address.port());
    assert!(
        list(&client.build().unwrap(), &url).await.is_err(),
        "{name}"
    );
    server.shutdown().await;
}

#[tokio::test]
async fn the_certificate_and_the_data_outlive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let first = Server::start(on_disk(directory.path())).await.unwrap();
    let certificate = first.certificate_pem().to_owned();
    first.shutdown().await;
    let kept = std::fs::read_to_string(directory.path().join("tls-certificate.pem")).unwrap();
    assert_eq!(kept, certificate);
    let second = Server::start(on_disk(directory.path())).await.unwrap();
    let url = second.url().replace("http://", "https://");
    assert_eq!(
        list(&client(&kept).build().unwrap(), &url).await.unwrap().1,
        EMPTY
    );
    second.shutdown().await;
}

/// Goal: a start that nobody waits for any more keeps others out of the data directory for as long as it may still write its certificate there.
/// Method: the certificate is a pipe, so that reading it takes until something is written into that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s8_a_start_that_was_given_up_keeps_the_directory_until_it_is_done_there() {
    let directory = tempfile::tempdir().unwrap();
    drop(RealDisk::open(directory.path()).unwrap());
    let pipe = directory.path().join("tls-certificate.pem");
    mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
    std::fs::write(directory.path().join("tls-key.pem"), "no key").unwrap();
    let starting = tokio::spawn(Server::start(on_disk(directory.path())));
    // It can be opened for writing once somebody reads it.
    let read = async {
        loop {
            let mut options = OpenOptions::new();
            options
                .write(true)
                .custom_flags(OFlags::NONBLOCK.bits().cast_signed());
            match options.open(&pipe) {
                Ok(opened) => return opened,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(30), read).await;
    let mut certificate = read.expect("the start reads the certificate");
    starting.abort();
    starting.await.unwrap_err();
    for _ in 0..30 {
        let refused = RealDisk::open(directory.path());
        assert!(matches!(refused, Err(Error::InUse { .. })), "{refused:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    certificate.write_all(b"no certificate").unwrap();
    drop(certificate);
    let free = async {
        while RealDisk::open(directory.path()).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), free)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_given_certificate_is_shown_and_a_wrong_one_leaves_no_data_directory() {
    let directory = tempfile::tempdir().unwrap();
    let made = directory.path().join("made");
    let first = Server::start(on_disk(&made)).await.unwrap();
    let certificate = first.certificate_pem().to_owned();
    first.shutdown().await;
    let given = |certificate: &str| Config {
        tls: TlsSource::Files {
            certificate: made.join(certificate),
            key: made.join("tls-key.pem"),
        },
        ..on_disk(&directory.path().join("data"))
    };
    let refused = Server::start(given("nowhere.pem")).await;
    assert!(matches!(refused, Err(StartError::Tls(_))), "{refused:?}");
    assert!(!directory.path().join("data").exists());
    let server = Server::start(given("tls-certificate.pem")).await.unwrap();
    assert_eq!(server.certificate_pem(), certificate);
    assert!(!directory.path().join("data/tls-key.pem").exists());
    let url = server.url().replace("http://", "https://");
    assert_eq!(
        list(&client(&certificate).build().unwrap(), &url)
            .await
            .unwrap()
            .1,
        EMPTY
    );
    server.shutdown().await;
}

/// What the server sends until it closes the connection, within ten seconds.
async fn until_closed(address: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(sent).await.unwrap();
    let mut received = Vec::new();
    let read = async {
        let mut buffer = [0; 1024];
        // A reset is an end like any other.
        while let Ok(len @ 1..) = stream.read(&mut buffer).await {
            received.extend_from_slice(&buffer[..len]);
        }
    };
    tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .expect("the connection is closed");
    received
}

#[tokio::test]
async fn s9_garbage_after_the_first_byte_of_tls_is_closed_and_the_next_client_served() {
    let server = Server::start(config(DataLocation::Ephemeral))
        .await
        .unwrap();
    let mut state = 1_u64;
    let mut random = |len: usize| -> Vec<u8> {
        let bytes = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        });
        bytes.take(len).collect()
    };
    for header in [
        b"\x16\x03\x01\x02\x00\x01".as_slice(),
        b"\x16\x03\x01\xff\xff",
        b"\x16\x16\x16\x16\x16",
        b"\x16POST / HTTP/1.1\r\n\r\n",
    ] {
        let answer = until_closed(server.local_addr(), &[header, &random(70_000)].concat()).await;
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
    let secure = server.url().replace("http://", "https://");
    let trusting = client(server.certificate_pem()).build().unwrap();
    assert_eq!(list(&trusting, &secure).await.unwrap().1, EMPTY);
    server.shutdown().await;
}

#[tokio::test]
async fn a_handshake_that_has_begun_does_not_hold_up_the_end() {
    let server = Server::start(config(DataLocation::Ephemeral))
        .await
        .unwrap();
    let mut silent = TcpStream::connect(server.local_addr()).await.unwrap();
    let mut begun = TcpStream::connect(server.local_addr()).await.unwrap();
    begun.write_all(b"\x16\x03\x01").await.unwrap();
    // Served after both, so both were accepted.
    let plain = Client::new();
    assert_eq!(list(&plain, &server.url()).await.unwrap().1, EMPTY);
    tokio::time::timeout(Duration::from_secs(5), server.shutdown())
        .await
        .expect("nobody is waited for");
    for stream in [&mut silent, &mut begun] {
        assert!(matches!(stream.read(&mut [0; 8]).await, Ok(0) | Err(_)));
    }
}
