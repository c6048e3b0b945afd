//! A client that speaks the wire format itself: JSON in, JSON out, no SDK and no product types.

use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// The parts of a signature the server asks for; it does not verify them.
pub const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 \
    Credential=AKIDEXAMPLE/20260101/us-east-1/kinesis/aws4_request, \
    SignedHeaders=content-type;host;x-amz-date;x-amz-target, \
    Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";

/// Why a call did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// The server answered an error.
    Refused {
        /// HTTP status.
        status: u16,
        /// The `__type`, without a namespace.
        code: String,
        /// The message.
        message: String,
    },
    /// No answer: nobody there, or cut off in the middle. The call may or may not have happened.
    Unanswered(String),
}

impl CallError {
    /// What reqwest says when there is no answer.
    #[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
    pub fn unanswered(error: reqwest::Error) -> CallError {
        CallError::Unanswered(format!("{error:?}"))
    }

    /// The AWS code, if the server answered one.
    pub fn code(&self) -> Option<&str> {
        match self {
            CallError::Refused { code, .. } => Some(code),
            CallError::Unanswered(_) => None,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Refused {
                status,
                code,
                message,
            } => write!(f, "{status} {code}: {message}"),
            CallError::Unanswered(why) => write!(f, "no answer: {why}"),
        }
    }
}

/// One connection pool to one endpoint.
#[derive(Debug, Clone)]
pub struct RawClient {
    url: String,
    http: reqwest::Client,
}

impl RawClient {
    /// A client of the endpoint at `url`.
    pub fn new(url: &str) -> RawClient {
        let http = reqwest::Client::builder()
            .http1_only()
            .connect_timeout(Duration::from_secs(2))
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        RawClient {
            url: url.to_owned(),
            http,
        }
    }

    /// Sends a request whose body is encoded already; the answer as it comes.
    pub async fn send(
        &self,
        operation: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<reqwest::Response, CallError> {
        self.http
            .post(&self.url)
            .header("content-type", content_type)
            .header("x-amz-target", format!("Kinesis_20131202.{operation}"))
            .header("x-amz-date", "20260101T000000Z")
            .header("authorization", AUTHORIZATION)
            .body(body)
            .send()
            .await
            .map_err(CallError::unanswered)
    }

    /// Calls an operation.
    pub async fn call(&self, operation: &str, input: &Value) -> Result<Value, CallError> {
        let body = input.to_string().into_bytes();
        let response = self
            .send(operation, "application/x-amz-json-1.1", body)
            .await?;
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(CallError::unanswered)?;
        let json: Value = if body.is_empty() {
            json!({})
        } else {
            serde_json::from_slice(&body).unwrap_or(Value::Null)
        };
        if status == 200 {
            return Ok(json);
        }
        let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        let code = text("__type");
        Err(CallError::Refused {
            status,
            code: code.rsplit('#').next().unwrap_or_default().to_owned(),
            message: if json["message"].is_string() {
                text("message")
            } else {
                text("Message")
            },
        })
    }

    /// Calls an operation that must succeed.
    pub async fn must(&self, operation: &str, input: Value) -> Value {
        match self.call(operation, &input).await {
            Ok(output) => output,
            Err(error) => panic!("{operation} {input}: {error}"),
        }
    }

    /// Creates a stream and waits until it is active.
    pub async fn create_stream(&self, name: &str, shards: u32) {
        self.must(
            "CreateStream",
            json!({"StreamName": name, "ShardCount": shards}),
        )
        .await;
        self.wait_active(name).await;
    }

    /// Waits until a stream is `ACTIVE`.
    pub async fn wait_active(&self, name: &str) {
        crate::wait_until("the stream is ACTIVE", Duration::from_secs(10), || async {
            let input = json!({"StreamName": name});
            let summary = self.call("DescribeStreamSummary", &input).await.ok()?;
            (summary["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE").then_some(())
        })
        .await;
    }

    /// Puts one record; its shard and sequence number.
    pub async fn put(
        &self,
        stream: &str,
        partition_key: &str,
        data: &[u8],
    ) -> Result<(String, String), CallError> {
        let input = json!({
            "StreamName": stream, "PartitionKey": partition_key, "Data": encode_base64(data),
        });
        let output = self.call("PutRecord", &input).await?;
        Ok((text(&output, "ShardId"), text(&output, "SequenceNumber")))
    }

    /// All shards, every page.
    pub async fn list_shards(&self, stream: &str) -> Result<Vec<Value>, CallError> {
        let mut shards = Vec::new();
        let mut input = json!({"StreamName": stream});
        loop {
            let page = self.call("ListShards", &input).await?;
            shards.extend(page["Shards"].as_array().cloned().unwrap_or_default());
            match page["NextToken"].as_str() {
                Some(token) => input = json!({"NextToken": token}),
                None => return Ok(shards),
            }
        }
    }

    /// An iterator at the oldest record of a shard.
    pub async fn trim_horizon(&self, stream: &str, shard: &str) -> Result<String, CallError> {
        let input = json!({
            "StreamName": stream, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON",
        });
        let output = self.call("GetShardIterator", &input).await?;
        Ok(text(&output, "ShardIterator"))
    }
}

/// A member that must be text.
pub fn text(json: &Value, member: &str) -> String {
    match json[member].as_str() {
        Some(text) => text.to_owned(),
        None => panic!("no {member} in {json}"),
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with padding.
pub fn encode_base64(data: &[u8]) -> String {
    let mut out = String::with_capacity(data.len().div_ceil(3) * 4);
    for chunk in data.chunks(3) {
        let padded = [
            0,
            chunk[0],
            *chunk.get(1).unwrap_or(&0),
            *chunk.get(2).unwrap_or(&0),
        ];
        let bits = u32::from_be_bytes(padded);
        for position in 0..4 {
            let index = usize::try_from(bits >> (18 - 6 * position) & 63).unwrap();
            let real = position <= u32::try_from(chunk.len()).unwrap();
            out.push(if real {
                char::from(ALPHABET[index])
            } else {
                '='
            });
        }
    }
    out
}

/// The bytes of padded base64; panics on anything else, as no server may answer it.
pub fn decode_base64(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for group in text.as_bytes().chunks(4) {
        let mut bits = 0u32;
        let mut count = 0;
        for byte in group.iter().take_while(|byte| **byte != b'=') {
            let value = match *byte {
                upper @ b'A'..=b'Z' => upper - b'A',
                lower @ b'a'..=b'z' => lower - b'a' + 26,
                digit @ b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                other => panic!("byte {other} in base64 {text:?}"),
            };
            bits |= u32::from(value) << (18 - 6 * count);
            count += 1;
        }
        out.extend(bits.to_be_bytes()[1..].iter().take(count.max(1) - 1));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_standard_one() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(encode_base64(bytes.as_bytes()), text);
            assert_eq!(decode_base64(text), bytes.as_bytes());
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode_base64(&encode_base64(&all)), all);
    }
}
