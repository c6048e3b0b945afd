//! Frames of an event stream, and the body that sends them as they come.
//!
//! A frame: total length u32 | headers' length u32 | CRC-32 of both | headers | payload | CRC-32 of all
//! before. The first one says that the call has succeeded; clients wait for it.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::Bytes;
use hyper::body::{Body, Frame};
use millstream_wire::Encoding;
use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::peer::Peer;
use super::response::held;
use crate::api::{Event, Events};

/// The content type of the whole answer.
pub(super) const CONTENT_TYPE: &str = "application/vnd.amazon.eventstream";

/// The body of a subscription. An event is made when the connection has room for it, so a client that
/// takes nothing holds one event at most beside the connection's own buffer. The body ends with the
/// subscription, or when the server shuts down.
pub(super) struct EventBody(State);

type Next = dyn Future<Output = Option<(Box<Source>, Bytes)>> + Send;

enum State {
    Begin(Box<Source>),
    Waiting(Pin<Box<Next>>),
    Ended,
}

/// Where frames come from.
struct Source {
    events: Events,
    /// Bytes of all answers not yet written.
    budget: Arc<Semaphore>,
    budget_bytes: usize,
    /// Who may go away without the connection seeing it.
    peer: Option<Peer>,
    shutdown: CancellationToken,
}

impl EventBody {
    /// The frames of `events`, each within `budget`, until `peer` is gone or `shutdown`.
    pub(super) fn new(
        events: Events,
        (budget, budget_bytes): (Arc<Semaphore>, usize),
        peer: Option<Peer>,
        shutdown: CancellationToken,
    ) -> Self {
        EventBody(State::Begin(Box::new(Source {
            events,
            budget,
            budget_bytes,
            peer,
            shutdown,
        })))
    }
}

impl fmt::Debug for EventBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBody").finish_non_exhaustive()
    }
}

impl Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match std::mem::replace(&mut self.0, State::Ended) {
            State::Begin(source) => {
                let (encoding, payload) = (source.events.encoding(), source.events.initial());
                let first = frame(encoding, "event", "initial-response", payload);
                self.0 = State::Waiting(Box::pin(next_frame(source)));
                Poll::Ready(Some(Ok(Frame::data(Bytes::from(first)))))
            }
            State::Waiting(mut next) => match next.as_mut().poll(cx) {
                Poll::Pending => {
                    self.0 = State::Waiting(next);
                    Poll::Pending
                }
                Poll::Ready(None) => Poll::Ready(None),
                Poll::Ready(Some((source, bytes))) => {
                    self.0 = State::Waiting(Box::pin(next_frame(source)));
                    Poll::Ready(Some(Ok(Frame::data(bytes))))
                }
            },
            State::Ended => Poll::Ready(None),
        }
    }
}

async fn next_frame(mut source: Box<Source>) -> Option<(Box<Source>, Bytes)> {
    let (peer, shutdown) = (source.peer.clone(), source.shutdown.clone());
    let gone = async {
        match peer {
            Some(peer) => peer.gone().await,
            None => pending().await,
        }
    };
    let next = async {
        source.events.wait().await;
        // The share of memory is taken before anything is read.
        let mut permit = source.admit().await?;
        let encoding = source.events.encoding();
        let bytes = match source.events.next().await? {
            Event::Event(name, payload) => frame(encoding, "event", name, payload),
            Event::Exception(name, payload) => frame(encoding, "exception", name, payload),
        };
        let unused = permit.num_permits().saturating_sub(bytes.len());
        drop(permit.split(unused));
        Some(held(bytes, permit))
    };
    let bytes = tokio::select! {
        () = shutdown.cancelled() => None,
        () = gone => None,
        bytes = next => bytes,
    };
    bytes.map(|bytes| (source, bytes))
}

impl Source {
    /// A share of the budget for one event.
    async fn admit(&self) -> Option<OwnedSemaphorePermit> {
        // Never more than there is, or its subscriber would wait forever.
        let bytes = self.events.event_max_bytes().min(self.budget_bytes);
        let count = u32::try_from(bytes).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.budget).acquire_many_owned(count);
        // Never closed, so this only waits.
        permit.await.ok()
    }
}

/// A frame whose message is of this type (`event` or `exception`) and name.
fn frame(
    encoding: Encoding,
    message_type: &'static str,
    name: &'static str,
    payload: Vec<u8>,
) -> Vec<u8> {
    let name_header = match message_type {
        "exception" => ":exception-type",
        _ => ":event-type",
    };
    let text = |value: &'static str| HeaderValue::String(value.into());
    let message = Message::new(payload)
        .add_header(Header::new(":message-type", text(message_type)))
        .add_header(Header::new(name_header, text(name)))
        .add_header(Header::new(":content-type", text(encoding.content_type())));
    let mut bytes = Vec::with_capacity(message.payload().len() + 128);
    if let Err(error) = write_message_to(&message, &mut bytes) {
        // Only a message beyond 4 GiB has no frame, and an event is far below.
        tracing::error!(%error, "an event could not be framed");
        bytes.clear();
    }
    bytes
}
