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
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio_util::sync::CancellationToken;

use super::budget::AnswerBudget;
use super::request::Client;
use super::unwritten::Pieces;
use crate::api::{Encoded, Event, Events};

/// The content type of the whole answer.
pub(super) const CONTENT_TYPE: &str = "application/vnd.amazon.eventstream";

/// The body of a subscription. An event is made when the connection has room for it, so a client that
/// takes nothing holds one event at most beside the connection's own buffer. The body ends with the
/// subscription, or when the server shuts down.
pub(super) struct EventBody(State);

type Next = dyn Future<Output = Option<(Box<Source>, Pieces)>> + Send;

enum State {
    Waiting(Pin<Box<Next>>),
    Sending(Pieces, Box<Source>),
    Ended,
}

/// Where frames come from.
struct Source {
    events: Events,
    client: Client,
    /// Bytes of all answers not yet written.
    budget: Arc<AnswerBudget>,
    shutdown: CancellationToken,
}

impl EventBody {
    /// The frames of `events`, each within `budget`, until `client` is gone or `shutdown`.
    pub(super) fn new(
        events: Events,
        client: Client,
        budget: Arc<AnswerBudget>,
        shutdown: CancellationToken,
    ) -> Self {
        let first = frame(
            events.encoding(),
            "event",
            "initial-response",
            events.initial(),
        );
        let source = Source {
            events,
            client,
            budget,
            shutdown,
        };
        let first = Pieces::uncounted(Bytes::from(first));
        EventBody(State::Sending(first, Box::new(source)))
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
        loop {
            match std::mem::replace(&mut self.0, State::Ended) {
                State::Sending(mut pieces, source) => match pieces.next() {
                    Some(piece) => {
                        self.0 = State::Sending(pieces, source);
                        return Poll::Ready(Some(Ok(Frame::data(piece))));
                    }
                    None => self.0 = State::Waiting(Box::pin(next_frame(source))),
                },
                State::Waiting(mut next) => match next.as_mut().poll(cx) {
                    Poll::Pending => {
                        self.0 = State::Waiting(next);
                        return Poll::Pending;
                    }
                    Poll::Ready(Some((source, pieces))) => self.0 = State::Sending(pieces, source),
                    Poll::Ready(None) => return Poll::Ready(None),
                },
                State::Ended => return Poll::Ready(None),
            }
        }
    }
}

async fn next_frame(mut source: Box<Source>) -> Option<(Box<Source>, Pieces)> {
    let (peer, shutdown) = (source.client.peer.clone(), source.shutdown.clone());
    let is_watched = source.client.is_watched;
    let next = async {
        source.events.wait().await;
        // The share of memory is taken before anything is read.
        let most = source.events.event_max_bytes();
        let mut permit = source.budget.wait(most).await?;
        let encoding = source.events.encoding();
        let bytes = match source.events.next().await? {
            Event::Event(name, payload) => frame(encoding, "event", name, payload),
            Event::Exception(name, payload) => frame(encoding, "exception", name, payload),
        };
        let unused = permit.num_permits().saturating_sub(bytes.len());
        drop(permit.split(unused));
        Some(
            source
                .client
                .peer
                .unwritten
                .hold(Encoded::whole(bytes), permit),
        )
    };
    let pieces = tokio::select! {
        () = shutdown.cancelled() => None,
        () = peer.gone(), if is_watched => None,
        pieces = next => pieces,
    };
    pieces.map(|pieces| (source, pieces))
}

/// A frame whose message is of this type (`event` or `exception`) and name.
fn frame(
    encoding: Encoding,
    message_type: &'static str,
    name: &'static str,
    payload: impl Into<Bytes>,
) -> Vec<u8> {
    let name_header = match message_type {
        "exception" => ":exception-type",
        _ => ":event-type",
    };
    let text = |value: &'static str| HeaderValue::String(value.into());
    let message = Message::new(payload.into())
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
