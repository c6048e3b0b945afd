//! The calls that the demo makes itself: a stream, its shards, a split, and puts. Reading is the workers' part.

use millstream_wire::operation::TARGET_PREFIX;
use millstream_wire::{HashKey, HashKeyRange, Operation};
use serde_json::{Value, json};
use std::time::Duration;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A client of one server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    endpoint: String,
}

/// A call that gave no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The server was not reached: nothing happened.
    #[error("{0} did not reach the server: {1}")]
    Unreached(Operation, reqwest::Error),
    /// The server did not answer: whatever was asked for may have happened.
    #[error("{0} has no answer: {1}")]
    Unanswered(Operation, String),
    /// The server refused.
    #[error("{operation} was refused: {code}: {message}")]
    Refused {
        /// What was asked for.
        operation: Operation,
        /// AWS's code.
        code: String,
        /// AWS's text.
        message: String,
    },
}

/// A shard that takes records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenShard {
    /// Its id.
    pub(crate) id: String,
    /// Its hash keys.
    pub(crate) range: HashKeyRange,
}

/// Where a record was stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Receipt {
    /// The shard.
    pub(crate) shard: String,
    /// The sequence number.
    pub(crate) sequence: String,
}

impl Client {
    /// A client for `endpoint`.
    pub(crate) fn new(endpoint: String) -> Result<Client, reqwest::Error> {
        let http = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .no_proxy()
            .build()?;
        Ok(Client { http, endpoint })
    }

    /// CreateStream.
    pub(crate) async fn create_stream(&self, stream: &str, shards: u32) -> Result<(), CallError> {
        let request = json!({ "StreamName": stream, "ShardCount": shards });
        self.call(Operation::CreateStream, &request).await.map(drop)
    }

    /// Whether the stream is there and not in transition.
    pub(crate) async fn is_active(&self, stream: &str) -> Result<bool, CallError> {
        let request = json!({ "StreamName": stream });
        let answer = self
            .call(Operation::DescribeStreamSummary, &request)
            .await?;
        Ok(answer["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE")
    }

    /// The shards that take records.
    pub(crate) async fn open_shards(&self, stream: &str) -> Result<Vec<OpenShard>, CallError> {
        let answer = self
            .call(Operation::ListShards, &json!({ "StreamName": stream }))
            .await?;
        let open = |shard: &Value| {
            let closed = !shard["SequenceNumberRange"]["EndingSequenceNumber"].is_null();
            let key = |name: &str| -> Option<HashKey> {
                shard["HashKeyRange"][name].as_str()?.parse().ok()
            };
            let range = HashKeyRange {
                start: key("StartingHashKey")?,
                end: key("EndingHashKey")?,
            };
            let id = shard["ShardId"].as_str()?.to_owned();
            (!closed).then_some(OpenShard { id, range })
        };
        Ok(answer["Shards"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(open)
            .collect())
    }

    /// SplitShard in the middle.
    pub(crate) async fn split(&self, stream: &str, shard: &OpenShard) -> Result<(), CallError> {
        let middle =
            HashKey(shard.range.start.0 + (shard.range.end.0 - shard.range.start.0) / 2 + 1);
        let request = json!({
            "StreamName": stream,
            "ShardToSplit": shard.id,
            "NewStartingHashKey": middle.to_string(),
        });
        self.call(Operation::SplitShard, &request).await.map(drop)
    }

    /// PutRecords: for each `(key, data)` where it went, or the code it was refused with.
    pub(crate) async fn put_records(
        &self,
        stream: &str,
        records: &[(&str, Vec<u8>)],
    ) -> Result<Vec<Result<Receipt, String>>, CallError> {
        let entry = |(key, data): &(&str, Vec<u8>)| {
            json!({
                "PartitionKey": key,
                "Data": base64_simd::STANDARD.encode_to_string(data),
            })
        };
        let entries: Vec<Value> = records.iter().map(entry).collect();
        let request = json!({ "StreamName": stream, "Records": entries });
        let answer = self.call(Operation::PutRecords, &request).await?;
        let results = answer["Records"]
            .as_array()
            .filter(|results| results.len() == records.len());
        let Some(results) = results else {
            let text = "the answer has not one result per record".to_owned();
            return Err(CallError::Unanswered(Operation::PutRecords, text));
        };
        Ok(results.iter().map(receipt).collect())
    }

    async fn call(&self, operation: Operation, request: &Value) -> Result<Value, CallError> {
        let unanswered = |error: reqwest::Error| {
            if error.is_connect() {
                CallError::Unreached(operation, error)
            } else {
                CallError::Unanswered(operation, error.to_string())
            }
        };
        // The server reads the region out of the credential and checks no signature.
        let answer = self
            .http
            .post(&self.endpoint)
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("{TARGET_PREFIX}.{operation}"))
            .header("x-amz-date", "20130101T000000Z")
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=demo/20130101/us-east-1/kinesis/aws4_request, \
                 SignedHeaders=host;x-amz-date, Signature=demo",
            )
            .body(request.to_string())
            .send()
            .await
            .map_err(unanswered)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(unanswered)?;
        let value: Value = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&body)
                .map_err(|error| CallError::Unanswered(operation, error.to_string()))?
        };
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        match status.as_u16() {
            200 => Ok(value),
            500.. => Err(CallError::Unanswered(
                operation,
                format!("{status} {}", text("__type")),
            )),
            _ => Err(CallError::Refused {
                operation,
                code: text("__type"),
                message: text("message"),
            }),
        }
    }
}

fn receipt(result: &Value) -> Result<Receipt, String> {
    match (
        result["ShardId"].as_str(),
        result["SequenceNumber"].as_str(),
    ) {
        (Some(shard), Some(sequence)) => Ok(Receipt {
            shard: shard.to_owned(),
            sequence: sequence.to_owned(),
        }),
        _ => Err(result["ErrorCode"].as_str().unwrap_or("no code").to_owned()),
    }
}
