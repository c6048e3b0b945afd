//! A start that cannot succeed says within a second why, and what to do: against endpoints that are wrong in every way.

use super::tests::{SUMMARY, answer, read_request, serve};
use super::*;
use crate::lease::{MemoryLeaseStore, SqliteLeaseStore};
use crate::processor::{ProcessorError, RecordBatch, RecordProcessor, ShardInfo};
use crate::{Checkpointer, Worker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

struct Nothing;

#[async_trait]
impl RecordProcessor for Nothing {
    async fn process_records(
        &mut self,
        _: RecordBatch,
        _: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        Ok(())
    }
}

/// What a worker of an application is built with.
#[derive(Clone, Default)]
struct Setup {
    endpoint: Option<String>,
    region: Option<&'static str>,
    env: Vec<(&'static str, String)>,
}

fn at(url: &str) -> Setup {
    Setup {
        endpoint: Some(url.to_owned()),
        ..Setup::default()
    }
}

/// Builds a worker as the builder does, with these variables in the place of the process's.
async fn start(setup: &Setup, stream: &str) -> Result<(), Error> {
    let env = |name: &str| {
        let found = setup.env.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| value.clone())
    };
    let mut builder = HttpClient::builder(stream);
    if let Some(endpoint) = &setup.endpoint {
        builder = builder.endpoint(endpoint);
    }
    if let Some(region) = setup.region {
        builder = builder.region(region);
    }
    let client = builder.build_with(&env)?;
    Worker::builder("app", stream)
        .client(Arc::new(client))
        .lease_store(MemoryLeaseStore::new())
        .build(|_: &ShardInfo| Nothing)
        .await
        .map(drop)
}

/// Fails within a second, with an error of this kind that says all of this.
async fn fails(setup: Setup, kind: ErrorKind, texts: &[&str]) {
    let began = clock::now();
    let error = start(&setup, "ordres").await.unwrap_err();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?} for {error}");
    assert_eq!(error.kind(), kind, "{error}");
    for text in texts {
        assert!(
            error.to_string().contains(text),
            "{text:?} is not in: {error}"
        );
    }
}

fn refusal(code: &str, message: &str) -> String {
    answer(
        "400 X",
        &format!(r#"{{"__type":"{code}","message":"{message}"}}"#),
    )
}

/// Goal: what an endpoint refuses for good is told at once, with the call, the stream, the endpoint and the region, and what to do.
#[tokio::test]
async fn refusals_that_last_are_told_at_once() {
    let denied =
        "User: arn:aws:iam::1:user/x is not authorized to perform: kinesis:DescribeStreamSummary";
    let streams = r#"{"StreamNames":["clicks","orders"],"HasMoreStreams":false}"#;
    let not_found = refusal(
        "ResourceNotFoundException",
        "Stream ordres under account 000000000000 not found.",
    );
    let table = [
        (
            vec![refusal("AccessDeniedException", denied)],
            ErrorKind::AccessDenied,
            &[
                denied,
                "allow kinesis:DescribeStreamSummary on arn:aws:kinesis:us-east-1:*:stream/ordres",
            ][..],
        ),
        (
            vec![not_found.clone(), answer("200 OK", streams)],
            ErrorKind::NotFound,
            &[
                "ordres",
                "http://127.0.0.1",
                "region us-east-1",
                r#"did you mean "orders"?"#,
            ],
        ),
        (
            vec![not_found],
            ErrorKind::NotFound,
            &["ordres", "not found"],
        ),
        (
            vec![refusal(
                "UnrecognizedClientException",
                "The security token included in the request is invalid.",
            )],
            ErrorKind::AccessDenied,
            &["access key millstream", "security token"],
        ),
        (
            vec![refusal(
                "ExpiredTokenException",
                "The security token included in the request is expired",
            )],
            ErrorKind::AccessDenied,
            &["get new credentials"],
        ),
        (
            vec![refusal("InvalidSignatureException", "Signature expired")],
            ErrorKind::AccessDenied,
            &["access key millstream and its secret"],
        ),
    ];
    for (answers, kind, texts) in table {
        let canned = serve(answers).await;
        fails(at(&canned.url), kind, texts).await;
    }
}

/// Goal: what is no endpoint of Kinesis is told to be none.
#[tokio::test]
async fn something_else_at_the_endpoint_is_told_at_once() {
    let html = |status: &str| answer(status, "<html>welcome</html>");
    let table = [
        (
            vec![html("404 Not Found")],
            ErrorKind::Protocol,
            &["an endpoint of Kinesis?", "status 404"][..],
        ),
        (
            vec![html("403 Forbidden")],
            ErrorKind::AccessDenied,
            &["an endpoint of Kinesis?"],
        ),
        (
            vec![html("200 OK")],
            ErrorKind::Protocol,
            &["an endpoint of Kinesis?"],
        ),
        (
            vec![answer("301 Moved", "")],
            ErrorKind::Protocol,
            &["status 301"],
        ),
    ];
    for (answers, kind, texts) in table {
        let canned = serve(answers).await;
        fails(at(&canned.url), kind, texts).await;
    }
}

#[tokio::test]
async fn settings_that_cannot_be_right_are_refused_before_anything_is_sent() {
    let env = |name: &'static str, value: &str| (name, value.to_owned());
    let keys = [
        env("AWS_ACCESS_KEY_ID", "a"),
        env("AWS_SECRET_ACCESS_KEY", "b"),
    ];
    let aws = |region: Option<&'static str>, env: &[(&'static str, String)]| Setup {
        endpoint: None,
        region,
        env: env.to_vec(),
    };
    let own = |name: &'static str, value: &str| Setup {
        env: vec![env(name, value)],
        ..at("http://127.0.0.1:1")
    };
    let table = [
        (aws(None, &keys), "no region"),
        (aws(Some("eu west 1"), &keys), "eu west 1"),
        (
            aws(Some("eu-west-1"), &keys[..1]),
            "AWS_SECRET_ACCESS_KEY is not",
        ),
        (aws(Some("eu-west-1"), &[]), "no credentials"),
        (own("AWS_MAX_ATTEMPTS", "often"), "often"),
        (own("AWS_CA_BUNDLE", "/nowhere.pem"), "/nowhere.pem"),
        (own("AWS_CA_BUNDLE", "/dev/null"), "no certificate"),
    ];
    for (setup, text) in table {
        fails(setup, ErrorKind::Configuration, &[text]).await;
    }
}

#[tokio::test]
async fn an_endpoint_that_nobody_listens_at_is_told_after_a_few_attempts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    fails(
        at(&url),
        ErrorKind::Unavailable,
        &["is it running?", &url, "refused"],
    )
    .await;
}

/// A server with a certificate of its own, which answers every request alike; and that certificate.
async fn serve_tls(reply: String) -> (String, String) {
    let _ = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]);
    let made = made.unwrap();
    let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, reply) = (acceptor.clone(), reply.clone());
            tokio::spawn(async move {
                let Ok(mut socket) = acceptor.accept(socket).await else {
                    return;
                };
                let mut request = [0; 4096];
                while socket.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let _ = socket.write_all(reply.as_bytes()).await;
                }
            });
        }
    });
    (url, made.cert.pem())
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_told_at_once_and_may_be_named() {
    let (url, certificate) = serve_tls(answer("200 OK", SUMMARY)).await;
    let texts = ["is not trusted", "AWS_CA_BUNDLE", "tls-certificate.pem"];
    fails(at(&url), ErrorKind::Configuration, &texts).await;
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bundle.pem");
    std::fs::write(&bundle, certificate).unwrap();
    let trusting = Setup {
        env: vec![("AWS_CA_BUNDLE", bundle.display().to_string())],
        ..at(&url)
    };
    start(&trusting, "orders").await.unwrap();
    let plain = url.replace("https://", "http://");
    fails(
        at(&plain),
        ErrorKind::Configuration,
        &["begin with https://?"],
    )
    .await;
}

#[tokio::test]
async fn tls_to_a_port_without_it_is_told_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket
                .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                .await;
            let _ = read_request(&mut socket).await;
        }
    });
    fails(at(&url), ErrorKind::Configuration, &["begin with http://?"]).await;
}

#[tokio::test]
async fn a_lease_store_that_cannot_be_opened_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.db");
    std::fs::write(&text, "this is not a database, however long it may be").unwrap();
    let paths = [
        folder.path().join("no/such/leases.db"),
        folder.path().to_owned(),
        text,
    ];
    for path in paths {
        let began = clock::now();
        let error = SqliteLeaseStore::open(&path).await.unwrap_err();
        let took = began.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?} for {error}");
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_lease_database_that_nobody_serves_is_told_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://x@{}/leases", listener.local_addr().unwrap());
    drop(listener);
    let began = clock::now();
    let error = crate::PostgresLeaseStore::connect(&url).await.unwrap_err();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?} for {error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}
