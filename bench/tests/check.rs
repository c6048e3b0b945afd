//! The check mode against a sound server, and against servers that lose, repeat or damage one record: it must tell them apart.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by failing"
)]

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use millstream_bench::client::{Encoding, Endpoint};
use millstream_bench::measure::Window;
use millstream_bench::stream;
use millstream_bench::workload::{Check, Verdicts};
use millstream_server::{Config, DataLocation, Limits, Server};
use serde_json::Value;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;

/// Which PutRecord goes wrong: one of the first, for machines on which a put takes long.
const STRUCK: u32 = 3;

async fn server() -> Server {
    let config = Config {
        port: 0,
        data: DataLocation::Ephemeral,
        limits: Limits::Off,
        ..Config::default()
    };
    Server::start(config).await.unwrap()
}

async fn check(url: &str, encoding: Encoding) -> Verdicts {
    let endpoint = Endpoint {
        encoding,
        ..Endpoint::parse(url).unwrap()
    };
    let check = Check {
        stream: stream::create(&endpoint, 3).await.unwrap(),
        connections: 4,
        record_bytes: 100,
        rate: None,
        patience: Duration::from_millis(300),
    };
    let window = Window::after(Duration::ZERO, Duration::from_millis(500));
    check.run(&endpoint, window).await.unwrap()
}

/// Goal: a sound server passes, in both encodings.
#[tokio::test]
async fn a_sound_server_passes() {
    let server = server().await;
    for encoding in [Encoding::Json, Encoding::Cbor] {
        let verdicts = check(&server.url(), encoding).await;
        assert!(verdicts.is_sound(), "{verdicts:?}");
        assert!(verdicts.again.acknowledged > 10, "{verdicts:?}");
        assert_eq!(verdicts.again.read, verdicts.again.acknowledged);
        assert_eq!(verdicts.failed, 0);
    }
    server.shutdown().await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sabotage {
    Lose,
    Repeat,
    Damage,
}

/// What stands between the check and a sound server, and does one thing wrong.
struct Saboteur {
    behind: Endpoint,
    sabotage: Sabotage,
    puts: AtomicU32,
}

impl Saboteur {
    async fn start(behind: &str, sabotage: Sabotage) -> String {
        let saboteur = Arc::new(Saboteur {
            behind: Endpoint::parse(behind).unwrap(),
            sabotage,
            puts: AtomicU32::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let saboteur = Arc::clone(&saboteur);
                let service = service_fn(move |request| {
                    let saboteur = Arc::clone(&saboteur);
                    async move { saboteur.answer(request).await }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        url
    }

    async fn answer(&self, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
        let target = request.headers()["x-amz-target"]
            .to_str()
            .unwrap()
            .to_owned();
        let operation = target.split('.').nth(1).unwrap().to_owned();
        let body = request
            .into_body()
            .collect()
            .await
            .map_err(io::Error::other)?;
        let mut body = body.to_bytes();
        let is_struck =
            operation == "PutRecord" && self.puts.fetch_add(1, Ordering::Relaxed) == STRUCK;
        if is_struck && self.sabotage == Sabotage::Damage {
            let mut put: Value = serde_json::from_slice(&body)?;
            put["Data"] = base64_simd::STANDARD.encode_to_string([7; 100]).into();
            body = Bytes::from(put.to_string());
        }
        if is_struck && self.sabotage == Sabotage::Lose {
            let number = "49600000000000000000000000000000000000000000000000000000";
            let lie =
                format!(r#"{{"ShardId":"shardId-000000000000","SequenceNumber":"{number}"}}"#);
            return Ok(Response::new(Full::from(lie)));
        }
        let answer = self.forward(&operation, body.clone()).await?;
        if is_struck && self.sabotage == Sabotage::Repeat {
            self.forward(&operation, body).await?;
        }
        Ok(Response::new(Full::from(answer)))
    }

    async fn forward(&self, operation: &str, body: Bytes) -> io::Result<Bytes> {
        let request = self.behind.request(operation, body)?;
        let mut connection = self.behind.connect().await?;
        let answer = connection.send(&request).await?.success(operation)?;
        Ok(Bytes::copy_from_slice(answer))
    }
}

/// Goal: the check can fail. Method: one record goes wrong in each of the ways that a server can get wrong.
#[tokio::test]
async fn one_record_that_goes_wrong_is_found() {
    for sabotage in [Sabotage::Lose, Sabotage::Repeat, Sabotage::Damage] {
        let server = server().await;
        let url = Saboteur::start(&server.url(), sabotage).await;
        let verdicts = check(&url, Encoding::Json).await;
        assert!(!verdicts.is_sound(), "{sabotage:?}: {verdicts:?}");
        for verdict in [verdicts.tailing, verdicts.again] {
            let found = (verdict.missing, verdict.repeated, verdict.damaged);
            let expected = match sabotage {
                Sabotage::Lose => (1, 0, 0),
                Sabotage::Repeat => (0, 1, 0),
                Sabotage::Damage => (1, 0, 1),
            };
            assert_eq!(found, expected, "{sabotage:?}: {verdict:?}");
        }
        server.shutdown().await;
    }
}
