//! One request: its body, AWS's order of checks, the call, the answer.
//!
//! Source of the order: kinesalite's `index.js` and connection tests, compared with AWS.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONNECTION, EXPECT, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode, Version};
use millstream_wire::{Encoding, ErrorCode, Operation};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::budget::AnswerBudget;
use super::event_stream::EventBody;
use super::peer::Peer;
use super::response::{Answer, Head, PLAIN_JSON, content_type};
use super::unwritten::Pieces;
use super::{HttpConfig, admin, auth};
use crate::api::{self, Call, Caller, Dispatch, Unencoded};
use crate::error::ApiError;
use crate::patience::Patience;

/// The largest body that counts as small, and what small ones have for themselves as a part of what there is for all.
const SMALL_BYTES: usize = 16 * 1024;
const SMALL_SHARE: usize = 8;
/// How long a refused body is still read.
const DISCARD_TIME: Duration = Duration::from_secs(1);
/// How long what a client has begun is waited for where it will be refused in any case: others wait for a refusal, too.
pub(super) const REFUSAL_TIME: Duration = Duration::from_millis(100);

/// An answer that may be larger and is encoded at once is encoded on a thread of its own: it takes milliseconds, and
/// other connections wait for the threads that serve them.
const ENCODED_ASIDE_BYTES: usize = 1024 * 1024;

/// What all requests of a server share.
#[derive(Debug)]
pub(super) struct Shared<D> {
    pub(super) dispatch: D,
    pub(super) config: HttpConfig,
    pub(super) answers: Arc<AnswerBudget>,
    request_bytes: Arc<Semaphore>,
    /// For small bodies, on top: those who send large ones do not keep others from putting a record.
    small_request_bytes: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl<D: Dispatch> Shared<D> {
    pub(super) fn new(dispatch: D, config: HttpConfig, shutdown: CancellationToken) -> Self {
        let least = HttpConfig::request_bytes(config.max_body_bytes);
        let request_bytes = config.max_request_bytes.max(least);
        Shared {
            dispatch,
            answers: Arc::new(AnswerBudget::new(config.max_response_bytes)),
            request_bytes: Arc::new(Semaphore::new(request_bytes.min(Semaphore::MAX_PERMITS))),
            small_request_bytes: Arc::new(Semaphore::new(request_bytes / SMALL_SHARE)),
            shutdown,
            config,
        }
    }

    /// Answers one request, whose connection waited so long for its turn.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        peer: Peer,
        waited: Duration,
    ) -> Answer {
        let (parts, body) = request.into_parts();
        let mut body = Unfinished::of(body);
        let patience = self.patience_after(waited);
        let answer = self.answer_to(&parts, &mut body, peer, patience).await;
        ended_in_order(answer, &parts, &body)
    }

    /// What a request may still wait for room: who waited long for a turn is served if there is room, and refused at once if not.
    fn patience_after(&self, waited: Duration) -> Patience {
        Patience::of(self.config.admission_wait.saturating_sub(waited))
    }

    /// Refuses one request, whose connection found no place at work. Operators are answered all the same.
    pub(super) async fn refuse(&self, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let mut body = Unfinished::of(body);
        let head = Head::new(&parts.headers);
        let answer = self.without_body(&parts, &body.body, &head);
        let answer = answer.unwrap_or_else(|| head.error(&ApiError::overloaded()));
        if is_sent(&parts) {
            let discarded = discard(&mut body, self.config.max_body_bytes);
            // Either way the answer is sent now.
            let _ = timeout(REFUSAL_TIME, discarded).await;
        }
        ended_in_order(answer, &parts, &body)
    }

    async fn answer_to(
        &self,
        parts: &Parts,
        incoming: &mut Unfinished,
        peer: Peer,
        patience: Patience,
    ) -> Answer {
        let head = Head::new(&parts.headers);
        let is_sent = is_sent(parts);
        if let Some(answer) = self.without_body(parts, &incoming.body, &head) {
            if is_sent {
                discard(incoming, self.config.max_body_bytes).await;
            }
            return answer;
        }
        let client = Client {
            // In HTTP/2 the connection is read all the time, and ends its streams itself.
            is_watched: parts.version < Version::HTTP_2,
            peer,
        };
        let body = match self.read_body(incoming, &patience).await {
            Ok(body) => body,
            Err(Unread::Refused(status)) => {
                if status == StatusCode::PAYLOAD_TOO_LARGE {
                    discard(incoming, self.config.max_body_bytes).await;
                }
                return head.body_refused(status);
            }
            Err(Unread::Overloaded) => {
                if is_sent && client.is_watched {
                    discard(incoming, self.config.max_body_bytes).await;
                }
                return head.error(&ApiError::overloaded());
            }
        };
        match self.call(&head, parts, body, patience) {
            Ok(call) => self.run(&head, call, client).await,
            Err(answer) => *answer,
        }
    }

    /// The answer to what is answered whatever its body says.
    fn without_body(&self, parts: &Parts, body: &Incoming, head: &Head) -> Option<Answer> {
        if body.size_hint().lower() > self.config.max_body_bytes as u64 {
            return Some(head.body_refused(StatusCode::PAYLOAD_TOO_LARGE));
        }
        if head.is_preflight(&parts.method) {
            return Some(head.preflight(&parts.headers));
        }
        let path = parts.uri.path();
        let answer = admin::answer(&parts.method, path, &self.dispatch, head);
        answer.or_else(|| (parts.method != Method::POST).then(|| head.not_authorized()))
    }

    async fn read_body(&self, body: &mut Unfinished, patience: &Patience) -> Result<Bytes, Unread> {
        let max = self.config.max_body_bytes;
        // A body of unknown length is counted as the longest there may be.
        let exact = body
            .body
            .size_hint()
            .exact()
            .and_then(|len| usize::try_from(len).ok());
        let expected = exact.unwrap_or(max);
        if expected == 0 {
            return Ok(Bytes::new());
        }
        let count = HttpConfig::request_bytes(expected);
        let count = u32::try_from(count).map_err(|_| Unread::Overloaded)?;
        let permit = self.admitted(expected, count, patience).await;
        let permit = permit.ok_or(Unread::Overloaded)?;
        let read = async {
            let mut bytes = Vec::with_capacity(exact.unwrap_or_default());
            while let Some(frame) = body.frame().await {
                // The client went away; nobody reads this answer.
                let frame = frame.map_err(|_| Unread::Refused(StatusCode::BAD_REQUEST))?;
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                if data.len() > max - bytes.len() {
                    return Err(Unread::Refused(StatusCode::PAYLOAD_TOO_LARGE));
                }
                bytes.extend_from_slice(&data);
            }
            Ok(bytes)
        };
        let mut read = pin!(read);
        // Most bodies came with their heads, and need no timer.
        let there = std::future::poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await;
        let bytes = match there {
            Poll::Ready(bytes) => bytes?,
            Poll::Pending => timeout(self.config.body_read_timeout, read)
                .await
                .map_err(|_| Unread::Refused(StatusCode::REQUEST_TIMEOUT))??,
        };
        Ok(held(bytes, permit))
    }

    /// A share of the budget of bodies, soon or not at all.
    async fn admitted(
        &self,
        body_bytes: usize,
        count: u32,
        patience: &Patience,
    ) -> Option<OwnedSemaphorePermit> {
        if body_bytes <= SMALL_BYTES
            && let Ok(permit) = Arc::clone(&self.small_request_bytes).try_acquire_many_owned(count)
        {
            return Some(permit);
        }
        if let Ok(permit) = Arc::clone(&self.request_bytes).try_acquire_many_owned(count) {
            return Some(permit);
        }
        let permit = Arc::clone(&self.request_bytes).acquire_many_owned(count);
        patience.wait_for(permit).await.and_then(Result::ok)
    }

    /// AWS's checks in AWS's order; an answer is the first that fails.
    fn call(
        &self,
        head: &Head,
        parts: &Parts,
        body: Bytes,
        patience: Patience,
    ) -> Result<Call, Box<Answer>> {
        let (headers, query) = (&parts.headers, parts.uri.query());
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let content_type = content_type(headers);
        let target = text("x-amz-target").unwrap_or_default();
        let operation = Operation::from_target(target);
        if body.is_empty() {
            let code = match operation {
                Some(_) => ErrorCode::Serialization,
                None => ErrorCode::UnknownOperation,
            };
            // To a client of no encoding that is known, AWS answers in CBOR.
            let encoding = Encoding::from_content_type(content_type).unwrap_or(Encoding::Cbor);
            return Err(Box::new(head.error_in(encoding, &ApiError::new(code, ""))));
        }
        let encoding = match (Encoding::from_content_type(content_type), content_type) {
            (Some(encoding), _) => encoding,
            (None, PLAIN_JSON) if Encoding::Json.is_structure(&body) => {
                return Err(Box::new(head.wrapped_error(ErrorCode::UnknownOperation)));
            }
            (None, PLAIN_JSON) => {
                return Err(Box::new(head.wrapped_error(ErrorCode::Serialization)));
            }
            (None, _) if names_an_operation(target) => {
                return Err(Box::new(head.unknown_operation_xml()));
            }
            (None, _) => return Err(Box::new(head.not_authorized())),
        };
        let named = operation.ok_or_else(ApiError::unknown_operation);
        let signed = named
            .and_then(|operation| auth::signer(headers, query).map(|signer| (operation, signer)));
        let (operation, signer) = signed.map_err(|error| {
            // A body that is no structure comes first; on the way to success the operation finds out.
            let first = if encoding.is_structure(&body) {
                error
            } else {
                ApiError::malformed_body()
            };
            Box::new(head.error(&first))
        })?;
        let config = &self.config;
        let caller = Caller {
            account: signer.account.unwrap_or_else(|| config.account.clone()),
            region: signer.region.unwrap_or_else(|| config.region.clone()),
        };
        Ok(Call {
            operation,
            encoding,
            body,
            caller,
            request_id: head.request_id,
            patience,
        })
    }

    async fn run(&self, head: &Head, call: Call, client: Client) -> Answer {
        let (operation, patience) = (call.operation, call.patience.clone());
        let faulty = || {
            tracing::error!(request_id = %head.request_id, %operation, "the operation panicked");
            ApiError::internal()
        };
        let outcome = caught(async { self.dispatch.dispatch(call).await }).await;
        match outcome.unwrap_or_else(|| Err(faulty())) {
            Ok(api::Answer::Events(events)) => {
                let (budget, shutdown) = (Arc::clone(&self.answers), self.shutdown.clone());
                head.events(EventBody::new(*events, client, budget, shutdown))
            }
            Ok(api::Answer::Body(body)) => {
                let written = caught(self.written(body, &client, &patience)).await;
                match written.unwrap_or_else(|| Err(faulty())) {
                    Ok(pieces) => head.output(pieces),
                    Err(error) => head.error(&error),
                }
            }
            Err(error) => head.error(&error),
        }
    }

    /// An encoded answer within the budget: its share is taken before it is encoded.
    async fn written(
        &self,
        body: Unencoded,
        client: &Client,
        patience: &Patience,
    ) -> Result<Pieces, ApiError> {
        let most = body.max_bytes();
        let aside = most > ENCODED_ASIDE_BYTES && body.is_encoded_at_once();
        let permit = self.answers.admit(most, patience).await;
        let mut permit = permit.ok_or_else(ApiError::overloaded)?;
        let encode = move || {
            let bytes = body.encode()?;
            let unused = permit.num_permits().saturating_sub(bytes.held_bytes());
            drop(permit.split(unused));
            Ok((bytes, permit))
        };
        let (bytes, permit) = if aside {
            let encoded = tokio::task::spawn_blocking(encode).await;
            // It panicked, which the log has seen.
            encoded.unwrap_or_else(|_| Err(ApiError::internal()))?
        } else {
            encode()?
        };
        Ok(client.peer.unwritten.hold(bytes, permit))
    }
}

/// Whether the body is on its way: one that asked first has sent nothing yet.
fn is_sent(parts: &Parts) -> bool {
    !parts.headers.contains_key(EXPECT)
}

/// The answer; the last on its connection where what follows may be the rest of this request's body, which must never be
/// taken for a request.
fn ended_in_order(mut answer: Answer, parts: &Parts, body: &Unfinished) -> Answer {
    if parts.version < Version::HTTP_2 && !body.is_at_its_end() {
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(CONNECTION, close);
    }
    answer
}

/// Whom an answer is for.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) peer: Peer,
    /// Whether an answer has to see for itself that the client is gone.
    pub(super) is_watched: bool,
}

/// A request's body, and whether all of it was taken from the connection.
struct Unfinished {
    body: Incoming,
    ended: bool,
}

impl Unfinished {
    fn of(body: Incoming) -> Unfinished {
        Unfinished { body, ended: false }
    }

    async fn frame(&mut self) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        let frame = self.body.frame().await;
        self.ended |= frame.is_none();
        frame
    }

    fn is_at_its_end(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }
}

/// Why there is no body.
enum Unread {
    Refused(StatusCode),
    Overloaded,
}

/// Reads a refused body for a moment: a connection that is closed with bytes unread is reset, and the
/// client would not see why.
async fn discard(body: &mut Unfinished, max_bytes: usize) {
    let read = async {
        let mut left = max_bytes;
        while let Some(Ok(frame)) = body.frame().await {
            let len = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(len) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // Either way the answer is sent now.
    let _ = timeout(DISCARD_TIME, read).await;
}

/// Bytes that keep their share of a budget until the last user drops them.
fn held(bytes: Vec<u8>, permit: OwnedSemaphorePermit) -> Bytes {
    struct Held {
        bytes: Vec<u8>,
        _permit: OwnedSemaphorePermit,
    }
    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    Bytes::from_owner(Held {
        bytes,
        _permit: permit,
    })
}

/// Whether a target has the form `SERVICE.OPERATION`.
fn names_an_operation(target: &str) -> bool {
    target
        .split_once('.')
        .is_some_and(|(service, name)| !service.is_empty() && !name.is_empty())
}

/// The future's output, or `None` where it panicked. A panic is a fault of one request; the
/// connection carries others.
async fn caught<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    // Unwind safety: the future is not polled again, and what it shared is what the dispatcher
    // shares between requests anyway.
    std::future::poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Some),
            Err(_) => Poll::Ready(None),
        },
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::{config, fake};
    use std::future::pending;
    use tokio::time::{Instant, sleep};

    /// A request that waits for a turn, for the budget of bodies, for something below, and for the budget of answers, until it is
    /// refused: all of it takes less than 50 ms.
    #[tokio::test(start_paused = true)]
    async fn s6_all_waits_of_a_request_together_are_less_than_50_ms() {
        let config = config();
        let shared = Arc::new(Shared::new(fake, config, CancellationToken::new()));
        let ms = Duration::from_millis;
        let size = u32::try_from(shared.request_bytes.available_permits()).unwrap();
        let bodies = Arc::clone(&shared.request_bytes).acquire_many_owned(size);
        let (bodies, none) = (bodies.await.unwrap(), Patience::default());
        let _answers = shared.answers.admit(usize::MAX, &none).await.unwrap();
        tokio::spawn(async move {
            sleep(ms(25)).await;
            drop(bodies);
        });
        let began = Instant::now();
        sleep(ms(12)).await;
        let patience = shared.patience_after(began.elapsed());
        let body = shared.admitted(1 << 20, 1 << 20, &patience).await;
        assert!(body.is_some(), "there was room in time");
        assert_eq!(patience.wait_for(sleep(ms(10))).await, Some(()));
        // No small answer, which would have room of its own.
        assert!(shared.answers.admit(1 << 20, &patience).await.is_none());
        assert_eq!(patience.wait_for(pending::<()>()).await, None);
        assert!(began.elapsed() < ms(50), "{:?}", began.elapsed());
        // What is there is given, however long the turn took.
        assert_eq!(
            shared
                .patience_after(ms(900))
                .wait_for(std::future::ready(1))
                .await,
            Some(1)
        );
    }
}
