//! Credentials, region and endpoint from where AWS's own tools look, each in a process of its own, whose environment is the test's.
//!
//! A listener on this machine plays everybody: Kinesis, which tells by the signature who asked, the metadata of an EC2 machine, and a container's agent.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use kcl::client::{HttpClient, KinesisApi};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the child's one call is answered with.
const SUMMARY: &str = r#"{"StreamDescriptionSummary":{"StreamARN":"arn:x","StreamName":"orders","StreamStatus":"ACTIVE","StreamCreationTimestamp":1.7E9}}"#;

/// Set in the child, which is the test run again in its environment.
const IS_CHILD: &str = "KCL_TEST_IS_CHILD";

/// What a test does as the child: describes a stream as its environment says. `false` in the test proper.
async fn is_child() -> bool {
    if std::env::var_os(IS_CHILD).is_none() {
        return false;
    }
    let mut builder = HttpClient::builder("orders");
    if let Ok(endpoint) = std::env::var("TEST_ENDPOINT") {
        builder = builder.endpoint(endpoint);
    }
    let client = builder.load().await.unwrap();
    for _ in 0..3 {
        client.describe_stream("orders").await.unwrap();
    }
    true
}

/// Everybody, and the signatures that Kinesis got.
struct Listener {
    url: String,
    signatures: Arc<Mutex<Vec<String>>>,
    /// How often credentials were given out.
    given: Arc<Mutex<u32>>,
}

async fn request(socket: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        match socket.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let head = head.to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.map_or(0, |length| length.trim().parse().unwrap()) {
            return Some(text);
        }
    }
}

/// Credentials as IMDS and container agents give them, valid for a day.
fn credentials(id: &str) -> String {
    format!(
        r#"{{"Code":"Success","Type":"AWS-HMAC","LastUpdated":"2020-01-01T00:00:00Z","AccessKeyId":"{id}","SecretAccessKey":"s","Token":"t","Expiration":"2099-01-01T00:00:00Z"}}"#
    )
}

impl Listener {
    async fn start() -> Listener {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let this = Listener {
            url: format!("http://{}", listener.local_addr().unwrap()),
            signatures: Arc::default(),
            given: Arc::default(),
        };
        let (signatures, given) = (Arc::clone(&this.signatures), Arc::clone(&this.given));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&signatures), Arc::clone(&given)));
            }
        });
        this
    }

    /// Runs the test of this name as the child; gives the credential scopes of its calls.
    async fn run(&self, test: &str, environment: &[(&str, &str)]) -> Vec<String> {
        let folder = TempDir::new().unwrap();
        let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", test, "--nocapture"])
            .env_clear()
            .env(IS_CHILD, "1")
            .env("HOME", folder.path())
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let ran = tokio::time::timeout(Duration::from_secs(30), command.output()).await;
        let ran = ran.unwrap().unwrap();
        let text = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{text}");
        self.signatures.lock().unwrap().drain(..).collect()
    }
}

async fn serve(mut socket: TcpStream, signatures: Arc<Mutex<Vec<String>>>, given: Arc<Mutex<u32>>) {
    while let Some(request) = request(&mut socket).await {
        let path = request.split(' ').nth(1).unwrap_or_default();
        let body = match path {
            "/" => {
                let (_, rest) = request.split_once("Credential=").unwrap();
                signatures
                    .lock()
                    .unwrap()
                    .push(rest.split(',').next().unwrap().to_owned());
                SUMMARY.to_owned()
            }
            "/latest/api/token" => "token".to_owned(),
            "/latest/meta-data/placement/region" => "eu-north-1".to_owned(),
            "/latest/meta-data/iam/security-credentials/" => "role".to_owned(),
            "/latest/meta-data/iam/security-credentials/role" | "/container" => {
                *given.lock().unwrap() += 1;
                credentials(if path == "/container" {
                    "CONTAINER"
                } else {
                    "MACHINE"
                })
            }
            _ => String::new(),
        };
        let status = if body.is_empty() {
            "404 Not Found"
        } else {
            "200 OK"
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\nx-aws-ec2-metadata-token-ttl-seconds: 21600\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if socket.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Whose key signed, and for which region; the same for all calls.
fn signer(scopes: &[String]) -> (String, String) {
    assert_eq!(scopes.len(), 3);
    let parts: Vec<&str> = scopes[0].split('/').collect();
    assert_eq!(parts[3..], ["kinesis", "aws4_request"]);
    (parts[0].to_owned(), parts[2].to_owned())
}

fn of(key: &str, region: &str) -> (String, String) {
    (key.to_owned(), region.to_owned())
}

#[tokio::test]
async fn a_profile_gives_keys_region_and_endpoint() {
    if is_child().await {
        return;
    }
    let listener = Listener::start().await;
    let folder = TempDir::new().unwrap();
    let (config, keys) = (
        folder.path().join("config"),
        folder.path().join("credentials"),
    );
    let url = &listener.url;
    std::fs::write(
        &config,
        format!(
            "[default]\nregion = us-west-2\n[profile prod]\nregion = eu-west-1\nservices = local\n[services local]\nkinesis =\n  endpoint_url = {url}\n[profile plain]\nregion = ap-south-1\nendpoint_url = {url}\n"
        ),
    )
    .unwrap();
    let text = "[prod]\naws_access_key_id = PROD\naws_secret_access_key = s\n[plain]\naws_access_key_id = PLAIN\naws_secret_access_key = s\n";
    std::fs::write(&keys, text).unwrap();
    let files = [
        ("AWS_CONFIG_FILE", config.to_str().unwrap()),
        ("AWS_SHARED_CREDENTIALS_FILE", keys.to_str().unwrap()),
    ];
    let with = |more: &[(&'static str, &str)]| {
        let all: Vec<(String, String)> = files
            .iter()
            .chain(more)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        all
    };
    for (environment, expected) in [
        (with(&[("AWS_PROFILE", "prod")]), of("PROD", "eu-west-1")),
        (with(&[("AWS_PROFILE", "plain")]), of("PLAIN", "ap-south-1")),
        (
            with(&[("AWS_PROFILE", "prod"), ("AWS_REGION", "ca-central-1")]),
            of("PROD", "ca-central-1"),
        ),
        (
            with(&[
                ("AWS_PROFILE", "prod"),
                ("AWS_ACCESS_KEY_ID", "ENV"),
                ("AWS_SECRET_ACCESS_KEY", "s"),
            ]),
            of("ENV", "eu-west-1"),
        ),
        // An endpoint of one's own, and no profile: nobody is asked for credentials.
        (
            with(&[("TEST_ENDPOINT", url)]),
            of("millstream", "us-west-2"),
        ),
    ] {
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            signer(
                &listener
                    .run("a_profile_gives_keys_region_and_endpoint", &environment)
                    .await
            ),
            expected,
            "{environment:?}"
        );
    }
}

#[tokio::test]
async fn a_container_gives_credentials_once_for_all_calls() {
    if is_child().await {
        return;
    }
    let listener = Listener::start().await;
    let container = format!("{}/container", listener.url);
    let scopes = listener
        .run(
            "a_container_gives_credentials_once_for_all_calls",
            &[
                ("TEST_ENDPOINT", &listener.url),
                ("AWS_REGION", "eu-west-3"),
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &container),
            ],
        )
        .await;
    assert_eq!(signer(&scopes), of("CONTAINER", "eu-west-3"));
    assert_eq!(*listener.given.lock().unwrap(), 1);
}

/// The endpoint is named by a profile without keys, so that the chain goes on to the machine.
#[tokio::test]
async fn a_machine_gives_the_credentials_of_its_role() {
    if is_child().await {
        return;
    }
    let listener = Listener::start().await;
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("config");
    let text = format!(
        "[default]\nendpoint_url = {}\nregion = eu-north-1\n",
        listener.url
    );
    std::fs::write(&config, text).unwrap();
    let scopes = listener
        .run(
            "a_machine_gives_the_credentials_of_its_role",
            &[
                ("AWS_CONFIG_FILE", config.to_str().unwrap()),
                ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &listener.url),
            ],
        )
        .await;
    assert_eq!(signer(&scopes), of("MACHINE", "eu-north-1"));
}
