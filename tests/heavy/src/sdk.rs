//! A server and clients of it.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::types::StreamStatus;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use millstream_server::{Config, DataLocation, Limits, Server};
use std::time::Duration;

/// How a client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// HTTP/1.1.
    Plain,
    /// HTTP/2 by ALPN, the server's own certificate trusted.
    Tls,
}

/// Settings of a server in memory, on any free port, without limits.
pub(crate) fn config() -> Config {
    Config {
        port: 0,
        data: DataLocation::Ephemeral,
        limits: Limits::Off,
        ..Config::default()
    }
}

pub(crate) async fn start(config: Config) -> Server {
    Server::start(config).await.expect("a server")
}

/// A server of these settings.
pub(crate) async fn server() -> Server {
    start(config()).await
}

/// A client that tries once.
pub(crate) fn client(server: &Server, carrier: Carrier) -> Client {
    let (scheme, trusted) = match carrier {
        Carrier::Plain => ("http", TrustStore::empty()),
        Carrier::Tls => {
            let pem = server.certificate_pem().as_bytes();
            ("https", TrustStore::empty().with_pem_certificate(pem))
        }
    };
    let tls = TlsContext::builder().with_trust_store(trusted).build();
    let http = Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(tls.expect("a certificate"))
        .build_https();
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .endpoint_url(format!("{scheme}://{}", server.local_addr()))
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("any", "any", None, None, "tests"))
        .retry_config(aws_sdk_kinesis::config::retry::RetryConfig::disabled())
        .build();
    Client::from_conf(config)
}

/// Creates a stream and waits until it is active.
pub(crate) async fn create(client: &Client, name: &str, shards: i32) -> String {
    let create = client.create_stream().stream_name(name);
    create.shard_count(shards).send().await.expect("created");
    for _ in 0..100 {
        let described = client.describe_stream_summary().stream_name(name).send();
        let described = described.await.expect("described");
        let summary = described.stream_description_summary.expect("a summary");
        if summary.stream_status == StreamStatus::Active {
            return summary.stream_arn;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{name} does not become active");
}
