//! The calls of a worker over HTTP: AWS JSON 1.1, and CBOR for data; signed, with a time limit on every request and bounded answers.

mod builder;

pub use builder::HttpClientBuilder;

use crate::client::cbor;
use crate::client::credentials::Signer;
use crate::client::dialect::{Dialect, encoding_of};
use crate::client::gate::Gates;
use crate::client::json::{
    IteratorAnswer, PutAnswer, PutRequest, RecordsAnswer, RecordsRequest, ShardsAnswer,
    StreamRequest, StreamsAnswer, StreamsRequest, SummaryAnswer, http_date_ms,
};
use crate::client::refusal::{Failure, Refused, Remedy, ahead_of, unreached};
use crate::client::retry::RetryPolicy;
use crate::client::sign::SigningKeys;
use crate::client::subscribe::{
    Connections, ConsumerRequest, DescribedConsumer, RegisteredConsumer,
};
use crate::client::target::Target;
use crate::client::{
    IteratorStart, KinesisApi, PutRecord, RecordsPage, Shard, StreamConsumer, StreamSummary,
    SubscribeRequest, Subscription,
};
use crate::clock;
use crate::error::{Error, ErrorKind};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use millstream_wire::operation::TARGET_PREFIX;
use millstream_wire::{Encoding, Operation, SequenceNumber};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

/// Bytes of an answer at most: 10 MiB of data in base64, and 10,000 records' other members with room to spare.
const ANSWER_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Pages of ListShards at most: far more than any account's shards.
const PAGES_MAX: usize = 1_000;
/// How long the names of streams are waited for that an error could mention.
const SUGGESTION_TIMEOUT: Duration = Duration::from_millis(300);
/// Streams that are looked at for that.
const SUGGESTIONS_FROM: u32 = 1_000;

/// A Kinesis endpoint over HTTP.
#[derive(Debug)]
pub struct HttpClient {
    http: reqwest::Client,
    signer: Signer,
    retry: RetryPolicy,
    subscriptions: Connections,
    dialect: Dialect,
    /// The same of the events of subscriptions.
    events: Dialect,
    gates: Gates,
    keys: SigningKeys,
    /// How far the endpoint's clock is ahead of this machine's where it refused a signature for that, milliseconds.
    clock_ahead_ms: AtomicI64,
}

/// A successful answer.
struct Answer {
    body: Bytes,
    /// The server's clock, milliseconds since 1970.
    date_ms: Option<u64>,
}

/// What was tried of one call.
#[derive(Default)]
struct Tries {
    failed: u32,
    throttled: u32,
    /// Credentials or clock were put right.
    mended: bool,
}

impl HttpClient {
    /// A client for `endpoint` in `region`, both completed from the environment: `AWS_ENDPOINT_URL_KINESIS`, `AWS_ENDPOINT_URL`,
    /// `AWS_REGION`, `AWS_DEFAULT_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`. An endpoint of one's own
    /// without credentials gets the access key and secret `millstream`. [`HttpClient::builder`] has more.
    ///
    /// # Errors
    /// `Configuration` when a setting is missing or senseless.
    pub fn new(
        endpoint: Option<&str>,
        region: Option<&str>,
        stream: &str,
        request_timeout: Duration,
    ) -> Result<HttpClient, Error> {
        let mut builder = HttpClient::builder(stream).request_timeout(request_timeout);
        if let Some(endpoint) = endpoint {
            builder = builder.endpoint(endpoint);
        }
        if let Some(region) = region {
            builder = builder.region(region);
        }
        builder.build()
    }

    /// The region that requests are signed for.
    pub(crate) fn region(&self) -> &str {
        &self.signer.place().region
    }

    /// Sends a call in JSON until it succeeds, fails for good, or the attempts are used up; gives the server's clock as well.
    async fn call<A: DeserializeOwned>(
        &self,
        operation: Operation,
        request: &(impl Serialize + Sync),
    ) -> Result<(A, Option<u64>), Error> {
        let body = json(request)?;
        let sent = self.exchange(operation, Encoding::Json, body).await;
        let answer = sent.map_err(|failure| failure.error)?;
        let read = serde_json::from_slice(&answer.body);
        let read = read.map_err(|error| self.unreadable(operation, error))?;
        Ok((read, answer.date_ms))
    }

    async fn exchange(
        &self,
        operation: Operation,
        encoding: Encoding,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let mut tries = Tries::default();
        loop {
            self.gates.pass(operation).await;
            let target = self.signer.target().await;
            let target = target.map_err(|error| Failure {
                error,
                remedy: Remedy::Never,
            })?;
            let failure = match self.send(&target, operation, encoding, &body).await {
                Ok(answer) => {
                    if tries.throttled > 0 {
                        self.gates.accepted(operation);
                    }
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            let remedy = failure.remedy;
            if !self
                .may_repeat(operation, &target, remedy, &mut tries)
                .await
            {
                return Err(failure);
            }
            tracing::debug!(error = %failure.error, %operation, ?remedy, "the request is repeated");
        }
    }

    /// Waits, or puts right what the request failed for; `false` if there is nothing to be done.
    async fn may_repeat(
        &self,
        operation: Operation,
        target: &Arc<Target>,
        remedy: Remedy,
        tries: &mut Tries,
    ) -> bool {
        let mended = std::mem::replace(&mut tries.mended, true);
        match remedy {
            Remedy::Credentials => return !mended && self.signer.renew(target).await,
            Remedy::Clock(ahead_ms) => {
                if !mended {
                    tracing::warn!(
                        ahead_ms,
                        "the endpoint's clock differs from this machine's: requests are signed by the endpoint's"
                    );
                    self.clock_ahead_ms.fetch_add(ahead_ms, Ordering::Relaxed);
                }
                return !mended;
            }
            _ => tries.mended = mended,
        }
        match remedy {
            Remedy::Slower => {
                tries.throttled += 1;
                self.gates.refused(operation, tries.throttled)
            }
            Remedy::Encoding if !self.dialect.is_decided() => false,
            // A gateway's answer to what was understood before.
            Remedy::Encoding | Remedy::Wait => {
                tries.failed += 1;
                let pause = self.retry.pause(tries.failed);
                if let Some(pause) = pause {
                    tokio::time::sleep(pause).await;
                }
                pause.is_some()
            }
            Remedy::Never | Remedy::Credentials | Remedy::Clock(_) => false,
        }
    }

    /// The clock that requests are signed by.
    fn signing_time(&self) -> SystemTime {
        let ahead_ms = self.clock_ahead_ms.load(Ordering::Relaxed);
        let ahead = Duration::from_millis(ahead_ms.unsigned_abs());
        let now = clock::wall();
        let set = if ahead_ms < 0 {
            now.checked_sub(ahead)
        } else {
            now.checked_add(ahead)
        };
        set.unwrap_or(now)
    }

    /// Sends one request.
    async fn send(
        &self,
        target: &Target,
        operation: Operation,
        encoding: Encoding,
        body: &Bytes,
    ) -> Result<Answer, Failure> {
        let name = format!("{TARGET_PREFIX}.{operation}");
        let headers = [
            ("content-type", encoding.content_type()),
            ("x-amz-target", name.as_str()),
        ];
        let time = self.signing_time();
        let signed = self.keys.signature(target, &headers, body, time);
        let signed = signed.map_err(|error| Failure {
            error,
            remedy: Remedy::Never,
        })?;
        let mut request = self.http.post(target.endpoint.clone()).body(body.clone());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        for (name, value) in &signed {
            request = request.header(name, value);
        }
        let unreached = |error| unreached(target, operation, error);
        let mut response = request.send().await.map_err(unreached)?;
        let status = response.status();
        let date = response.headers().get("date");
        let date_ms = date
            .and_then(|value| value.to_str().ok())
            .and_then(http_date_ms);
        let answer = collect(&mut response, target, operation).await?;
        if status.is_success() {
            return Ok(Answer {
                body: answer,
                date_ms,
            });
        }
        let refused = Refused {
            operation,
            status: status.as_u16(),
            body: &answer,
            request: (encoding, body),
            clock_ahead_ms: date_ms.and_then(|date| ahead_of(time, date)),
        };
        Err(refused.failure(target))
    }

    fn unreadable(
        &self,
        operation: Operation,
        error: impl std::error::Error + Send + Sync + 'static,
    ) -> Error {
        let endpoint = &self.signer.place().endpoint;
        Error::with_source(
            ErrorKind::Protocol,
            format!(
                "the answer to {operation} is not what the API says; is {endpoint} an endpoint of Kinesis?"
            ),
            error,
        )
    }

    /// Records in the encoding that the endpoint speaks; which it is shows at the first page.
    async fn page(&self, request: &RecordsRequest<'_>) -> Result<RecordsPage, Error> {
        let operation = Operation::GetRecords;
        if self.dialect.preferred() == Encoding::Cbor {
            let body = Bytes::from(cbor::records_request(request)?);
            match self.exchange(operation, Encoding::Cbor, body).await {
                Ok(answer) => match self.read_page(&answer.body) {
                    Ok(page) => {
                        self.dialect.decide(encoding_of(&answer.body), operation);
                        return Ok(page);
                    }
                    Err(error) if self.dialect.is_decided() => return Err(error),
                    Err(_) => {}
                },
                Err(failure)
                    if failure.remedy == Remedy::Encoding && !self.dialect.is_decided() => {}
                Err(failure) => return Err(failure.error),
            }
        }
        let body = json(request)?;
        let sent = self.exchange(operation, Encoding::Json, body).await;
        let page = self.read_page(&sent.map_err(|failure| failure.error)?.body)?;
        self.dialect.decide(Encoding::Json, operation);
        Ok(page)
    }

    /// A subscription in the encoding that the endpoint speaks; which it is shows at the first that begins.
    async fn subscription(
        &self,
        target: &Target,
        request: SubscribeRequest<'_>,
    ) -> Result<Box<dyn Subscription>, Failure> {
        let operation = Operation::SubscribeToShard;
        let begin = |encoding| {
            let signing = (&self.keys, self.signing_time());
            self.subscriptions
                .subscribe(target, signing, request, encoding)
        };
        let is_decided = self.events.is_decided();
        let preferred = if is_decided {
            self.events.preferred()
        } else {
            // Who reads pages in JSON only will hardly push CBOR.
            self.dialect.preferred()
        };
        if preferred == Encoding::Cbor {
            match begin(Encoding::Cbor).await {
                Ok((subscription, spoken)) => {
                    self.events.decide(spoken, operation);
                    return Ok(subscription);
                }
                Err(failure) if failure.remedy == Remedy::Encoding && !is_decided => {}
                Err(failure) => return Err(failure),
            }
        }
        let (subscription, _) = begin(Encoding::Json).await?;
        self.events.decide(Encoding::Json, operation);
        Ok(subscription)
    }

    fn read_page(&self, body: &Bytes) -> Result<RecordsPage, Error> {
        match encoding_of(body) {
            Encoding::Cbor => cbor::records_page(body),
            Encoding::Json => {
                let read = serde_json::from_slice::<RecordsAnswer<'_>>(body);
                read.map_err(|error| self.unreadable(Operation::GetRecords, error))?
                    .page()
            }
        }
    }

    /// Says which stream may have been meant by one that is not there, if the endpoint tells quickly.
    async fn with_suggestion(&self, stream: &str, error: Error) -> Error {
        let request = StreamsRequest {
            limit: SUGGESTIONS_FROM,
        };
        let call = self.call::<StreamsAnswer>(Operation::ListStreams, &request);
        let Ok(Ok((answer, _))) = tokio::time::timeout(SUGGESTION_TIMEOUT, call).await else {
            return error;
        };
        let name = stream
            .rsplit_once("stream/")
            .map_or(stream, |(_, name)| name);
        let text = crate::client::suggest::suggestion(name, &answer.stream_names);
        Error::new(error.kind(), format!("{error}; {text}"))
    }
}

fn json(request: &impl Serialize) -> Result<Bytes, Error> {
    let body = serde_json::to_vec(request).map_err(|error| {
        let message = "a request cannot be written as JSON";
        Error::with_source(ErrorKind::Protocol, message, error)
    })?;
    Ok(Bytes::from(body))
}

/// The whole body in one piece: in one allocation where its length is announced, and without a copy where it comes in one piece.
async fn collect(
    response: &mut reqwest::Response,
    target: &Target,
    operation: Operation,
) -> Result<Bytes, Failure> {
    let too_long = || {
        let message = format!("the answer to {operation} is longer than {ANSWER_MAX_BYTES} bytes");
        Err(Failure::lasting(ErrorKind::Protocol, message))
    };
    let announced = response.content_length().unwrap_or(0);
    let announced = usize::try_from(announced).unwrap_or(usize::MAX);
    if announced > ANSWER_MAX_BYTES {
        return too_long();
    }
    let mut whole = BytesMut::new();
    loop {
        let chunk = response.chunk().await;
        let chunk = chunk.map_err(|error| unreached(target, operation, error))?;
        let Some(chunk) = chunk else {
            return Ok(whole.freeze());
        };
        if whole.is_empty() {
            if chunk.len() == announced {
                return Ok(chunk);
            }
            whole.reserve(announced.max(chunk.len()));
        }
        if whole.len() + chunk.len() > ANSWER_MAX_BYTES {
            return too_long();
        }
        whole.extend_from_slice(&chunk);
    }
}

#[async_trait]
impl KinesisApi for HttpClient {
    async fn describe_stream(&self, stream: &str) -> Result<StreamSummary, Error> {
        let request = StreamRequest::of(stream);
        let call = self.call(Operation::DescribeStreamSummary, &request).await;
        let (answer, date): (SummaryAnswer, _) = match call {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(self.with_suggestion(stream, error).await);
            }
            call => call?,
        };
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
        self.page(&request).await
    }

    async fn put_record(&self, record: PutRecord<'_>) -> Result<SequenceNumber, Error> {
        let request = PutRequest::of(record);
        let (answer, _): (PutAnswer, _) = self.call(Operation::PutRecord, &request).await?;
        answer.sequence_number()
    }

    /// Asks for it first: most workers are not the first of their application, and may be asked for more often.
    async fn register_consumer(
        &self,
        stream_arn: &str,
        name: &str,
    ) -> Result<StreamConsumer, Error> {
        let request = ConsumerRequest::named(stream_arn, name);
        let described: Result<(DescribedConsumer, _), _> =
            self.call(Operation::DescribeStreamConsumer, &request).await;
        match described {
            Ok((found, _)) => return Ok(found.consumer()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let (answer, _): (RegisteredConsumer, _) = self
            .call(Operation::RegisterStreamConsumer, &request)
            .await?;
        Ok(answer.consumer())
    }

    async fn describe_consumer(&self, consumer_arn: &str) -> Result<StreamConsumer, Error> {
        let request = ConsumerRequest::of(consumer_arn);
        let (answer, _): (DescribedConsumer, _) = self
            .call(Operation::DescribeStreamConsumer, &request)
            .await?;
        Ok(answer.consumer())
    }

    async fn subscribe(
        &self,
        request: SubscribeRequest<'_>,
    ) -> Result<Box<dyn Subscription>, Error> {
        let operation = Operation::SubscribeToShard;
        let mut tries = Tries::default();
        loop {
            let target = self.signer.target().await?;
            let failure = match self.subscription(&target, request).await {
                Ok(subscription) => return Ok(subscription),
                Err(failure) => failure,
            };
            // Anything else is left to the caller, who has another way to read the shard.
            let remedy = failure.remedy;
            let is_mended = matches!(remedy, Remedy::Credentials | Remedy::Clock(_))
                && self
                    .may_repeat(operation, &target, remedy, &mut tries)
                    .await;
            if !is_mended {
                return Err(failure.error);
            }
        }
    }
}

#[cfg(test)]
mod events;
#[cfg(test)]
mod startup;
#[cfg(test)]
mod tests;
