//! What the examples need besides `kcl`: a server of their own, and a way to put records.

use base64_simd::STANDARD as BASE64;
use millstream_server::{Config, DataLocation, Server, StartStream};
use serde_json::{Value, json};

/// What an example fails with.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Starts a server in this process, on any free port, in memory, with one stream.
pub async fn serve(stream: &str, shards: u32) -> Result<Server, Failure> {
    let streams = vec![StartStream::new(stream.parse()?, shards.try_into()?)];
    let config = Config {
        port: 0,
        data: DataLocation::Ephemeral,
        streams,
        ..Config::default()
    };
    Ok(Server::start(config).await?)
}

/// Puts one text.
pub async fn put(url: &str, stream: &str, key: &str, text: &str) -> Result<(), Failure> {
    let data = BASE64.encode_to_string(text);
    let request = json!({ "StreamName": stream, "PartitionKey": key, "Data": data });
    call(url, "PutRecord", &request).await.map(drop)
}

/// Any operation of the Kinesis API. The server reads the region out of the credential and checks no signature.
pub async fn call(url: &str, operation: &str, request: &Value) -> Result<Value, Failure> {
    let credential = "Credential=any/20240101/us-east-1/kinesis/aws4_request";
    let signature = format!("AWS4-HMAC-SHA256 {credential}, SignedHeaders=host, Signature=any");
    let answer = reqwest::Client::builder()
        .no_proxy()
        .build()?
        .post(url)
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", format!("Kinesis_20131202.{operation}"))
        .header("x-amz-date", "20240101T000000Z")
        .header("authorization", signature)
        .body(request.to_string())
        .send()
        .await?;
    let status = answer.status();
    let body = answer.text().await?;
    match (status.is_success(), body.is_empty()) {
        (true, true) => Ok(Value::Null),
        (true, false) => Ok(serde_json::from_str(&body)?),
        (false, _) => Err(format!("{operation}: {status}: {body}").into()),
    }
}
