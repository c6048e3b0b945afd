//! Calls of a server by their names, in JSON, each of which must be done.

use serde_json::Value;

/// What a server answers; null, if nothing.
pub(crate) async fn must(
    http: &reqwest::Client,
    url: String,
    (operation, input): (&str, String),
) -> Value {
    let shown: String = input.chars().take(200).collect();
    let sent = http
        .post(url)
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", format!("Kinesis_20131202.{operation}"))
        .header("x-amz-date", "20260101T000000Z")
        .header(
            "authorization",
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-east-1/kinesis/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature=00",
        )
        .body(input)
        .send()
        .await
        .unwrap();
    let status = sent.status();
    let body = sent.bytes().await.unwrap();
    let text = String::from_utf8_lossy(&body);
    assert!(status.is_success(), "{operation} {shown}: {status} {text}");
    serde_json::from_slice(&body).unwrap_or(Value::Null)
}
