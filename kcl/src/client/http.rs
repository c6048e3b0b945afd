//! The calls of a worker over HTTP: AWS JSON 1.1, signed, with a time limit on every request and bounded answers.

use crate::client::json::{
    ErrorAnswer, IteratorAnswer, PutAnswer, PutRequest, RecordsAnswer, RecordsRequest,
    ShardsAnswer, StreamRequest, SummaryAnswer, http_date_ms, kind_of,
};
use crate::client::retry::RetryPolicy;
use crate::client::sign::signature;
use crate::client::target::Target;
use crate::client::{IteratorStart, KinesisApi, PutRecord, RecordsPage, Shard, StreamSummary};
use crate::clock;
use crate::error::{Error, ErrorKind};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use millstream_wire::operation::TARGET_PREFIX;
use millstream_wire::{ErrorCode, Operation, SequenceNumber};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Bytes of an answer at most: 10 MiB of data in base64, and 10,000 records' other members with room to spare.
const ANSWER_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Pages of ListShards at most: far more than any account's shards.
const PAGES_MAX: usize = 1_000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A whole answer may take this many times as long as the endpoint may be silent: ten megabytes over a slow line.
const WHOLE_ANSWER: u32 = 10;
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// A Kinesis endpoint over HTTP.
#[derive(Debug)]
pub struct HttpClient {
    http: reqwest::Client,
    target: Target,
    retry: RetryPolicy,
}

/// A failed request, and whether it is worth another.
struct Failure {
    error: Error,
    again: bool,
}

impl HttpClient {
    /// A client for `endpoint` in `region`, both completed from the environment: `AWS_ENDPOINT_URL_KINESIS`, `AWS_ENDPOINT_URL`,
    /// `AWS_REGION`, `AWS_DEFAULT_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`. An endpoint of one's own
    /// without credentials gets the access key and secret `millstream`.
    ///
    /// # Errors
    /// `Configuration` when a setting is missing or senseless.
    pub fn new(
        endpoint: Option<&str>,
        region: Option<&str>,
        stream: &str,
        request_timeout: Duration,
    ) -> Result<HttpClient, Error> {
        let target = Target::resolve(endpoint, region, stream, &|name| std::env::var(name).ok())?;
        HttpClient::to_target(target, request_timeout)
    }

    /// The region that requests are signed for.
    pub(crate) fn region(&self) -> &str {
        &self.target.region
    }

    fn to_target(target: Target, request_timeout: Duration) -> Result<HttpClient, Error> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT.min(request_timeout))
            .read_timeout(request_timeout)
            .timeout(request_timeout.saturating_mul(WHOLE_ANSWER))
            .pool_idle_timeout(IDLE_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never());
        if target.is_loopback() {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| {
            Error::with_source(
                ErrorKind::Configuration,
                "no HTTP client can be made",
                error,
            )
        })?;
        Ok(HttpClient {
            http,
            target,
            retry: RetryPolicy::default(),
        })
    }

    /// Sends a call until it succeeds, fails for good, or the attempts are used up.
    async fn call<A: DeserializeOwned>(
        &self,
        operation: Operation,
        request: &(impl Serialize + Sync),
    ) -> Result<(A, Option<u64>), Error> {
        let body = Bytes::from(serde_json::to_vec(request).map_err(|error| {
            Error::with_source(
                ErrorKind::Protocol,
                "a request cannot be written as JSON",
                error,
            )
        })?);
        let mut attempt = 1;
        loop {
            let failure = match self.send(operation, body.clone()).await {
                Ok((answer, date)) => return Ok((read(operation, &answer)?, date)),
                Err(failure) => failure,
            };
            let pause = self.retry.pause(attempt).filter(|_| failure.again);
            let Some(pause) = pause else {
                return Err(failure.error);
            };
            tracing::debug!(error = %failure.error, %operation, attempt, "request is repeated");
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// Sends one request; gives the body and the server's clock.
    async fn send(
        &self,
        operation: Operation,
        body: Bytes,
    ) -> Result<(Bytes, Option<u64>), Failure> {
        let target = format!("{TARGET_PREFIX}.{operation}");
        let headers = [
            ("content-type", CONTENT_TYPE),
            ("x-amz-target", target.as_str()),
        ];
        let signed =
            signature(&self.target, &headers, &body, clock::wall()).map_err(|error| Failure {
                error,
                again: false,
            })?;
        let mut request = self.http.post(self.target.endpoint.clone()).body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        for (name, value) in &signed {
            request = request.header(name, value);
        }
        let mut answer = request
            .send()
            .await
            .map_err(|error| self.unreached(operation, error))?;
        let status = answer.status();
        let date = answer
            .headers()
            .get("date")
            .and_then(|value| value.to_str().ok())
            .and_then(http_date_ms);
        let mut bytes = BytesMut::new();
        while let Some(chunk) = answer
            .chunk()
            .await
            .map_err(|error| self.unreached(operation, error))?
        {
            if bytes.len() + chunk.len() > ANSWER_MAX_BYTES {
                let message =
                    format!("the answer to {operation} is longer than {ANSWER_MAX_BYTES} bytes");
                return Err(Failure {
                    error: Error::new(ErrorKind::Protocol, message),
                    again: false,
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok((bytes.freeze(), date));
        }
        Err(refusal(operation, status.as_u16(), &bytes))
    }

    fn unreached(&self, operation: Operation, error: reqwest::Error) -> Failure {
        let endpoint = &self.target.endpoint;
        let what = if error.is_timeout() {
            "did not answer in time"
        } else {
            "could not be reached"
        };
        Failure {
            error: Error::with_source(
                ErrorKind::Unavailable,
                format!("{endpoint} {what} for {operation}"),
                deepest(error),
            ),
            again: true,
        }
    }
}

/// The innermost cause as text: "connection refused" rather than "error sending request".
fn deepest(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn read<A: DeserializeOwned>(operation: Operation, body: &[u8]) -> Result<A, Error> {
    serde_json::from_slice(body).map_err(|error| {
        Error::with_source(
            ErrorKind::Protocol,
            format!("the answer to {operation} is not what the API says"),
            error,
        )
    })
}

/// An error answer as an error. A throttled read or put is left to the caller, who knows how urgent the shard is.
fn refusal(operation: Operation, status: u16, body: &[u8]) -> Failure {
    let answer: ErrorAnswer = serde_json::from_slice(body).unwrap_or_default();
    let code = ErrorCode::from_name(&answer.code);
    let (kind, again) = match code {
        Some(code @ ErrorCode::ProvisionedThroughputExceeded) => (kind_of(code), false),
        Some(code) => (kind_of(code), code.is_retryable()),
        None if status >= 500 || status == 429 => (ErrorKind::Unavailable, true),
        None if status == 403 => (ErrorKind::AccessDenied, false),
        None => (ErrorKind::Protocol, false),
    };
    let name = if answer.code.is_empty() {
        "no error code"
    } else {
        answer.code.as_str()
    };
    let message = format!(
        "{operation} was refused with status {status}, {name}: {}",
        answer.message
    );
    Failure {
        error: Error::new(kind, message),
        again,
    }
}

#[async_trait]
impl KinesisApi for HttpClient {
    async fn describe_stream(&self, stream: &str) -> Result<StreamSummary, Error> {
        let request = StreamRequest::of(stream);
        let (answer, date): (SummaryAnswer, _) = self
            .call(Operation::DescribeStreamSummary, &request)
            .await?;
        let server_time_ms = date.ok_or_else(|| {
            Error::new(
                ErrorKind::Protocol,
                "the endpoint's answer has no readable Date header",
            )
        })?;
        Ok(answer.summary(server_time_ms))
    }

    async fn list_shards(&self, stream: &str) -> Result<Vec<Shard>, Error> {
        let mut shards = Vec::new();
        let mut token: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let request = match &token {
                None => StreamRequest::of(stream),
                Some(token) => StreamRequest::of(stream).next_page(token),
            };
            let (answer, _): (ShardsAnswer, _) = self.call(Operation::ListShards, &request).await?;
            for listed in answer.shards {
                shards.push(listed.shard()?);
            }
            token = answer.next_token;
            if token.is_none() {
                return Ok(shards);
            }
        }
        Err(Error::new(
            ErrorKind::Protocol,
            format!("ListShards has more than {PAGES_MAX} pages"),
        ))
    }

    async fn shard_iterator(
        &self,
        stream: &str,
        shard_id: &str,
        start: IteratorStart,
    ) -> Result<String, Error> {
        let request = StreamRequest::of(stream).iterator(shard_id, start);
        let (answer, _): (IteratorAnswer, _) =
            self.call(Operation::GetShardIterator, &request).await?;
        Ok(answer.shard_iterator)
    }

    async fn get_records(&self, iterator: &str, limit: u32) -> Result<RecordsPage, Error> {
        let request = RecordsRequest {
            shard_iterator: iterator,
            limit,
        };
        let (answer, _): (RecordsAnswer, _) = self.call(Operation::GetRecords, &request).await?;
        answer.page()
    }

    async fn put_record(&self, record: PutRecord<'_>) -> Result<SequenceNumber, Error> {
        let request = PutRequest::of(record);
        let (answer, _): (PutAnswer, _) = self.call(Operation::PutRecord, &request).await?;
        answer.sequence_number()
    }
}

#[cfg(test)]
mod tests;
