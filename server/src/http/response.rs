//! An outcome becomes status, headers and body. The only encoder of errors.

use bytes::Bytes;
use http_body_util::Either;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode};
use millstream_wire::{Encoding, ErrorCode, b64};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::event_stream::{self, EventBody};
use super::unwritten::Pieces;
use crate::api::RequestId;
use crate::error::ApiError;

/// An answer.
pub(super) type Answer = Response<Either<Whole, EventBody>>;

pub(super) const PLAIN_JSON: &str = "application/json";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const ID_2: HeaderName = HeaderName::from_static("x-amz-id-2");
const EXPOSED: &str = "x-amzn-RequestId,x-amzn-ErrorType,x-amz-request-id,x-amz-id-2,\
                       x-amzn-ErrorMessage,Date";

/// What every answer to one request has in common.
#[derive(Debug)]
pub(super) struct Head {
    /// The id in `x-amzn-RequestId`.
    pub(super) request_id: RequestId,
    /// How the request is encoded, as far as it says so.
    encoding: Encoding,
    has_origin: bool,
}

impl Head {
    /// For a request with these headers.
    pub(super) fn new(headers: &HeaderMap) -> Head {
        Head {
            request_id: RequestId::random(),
            encoding: Encoding::from_content_type(content_type(headers)).unwrap_or_default(),
            has_origin: headers.contains_key(header::ORIGIN),
        }
    }

    fn bare(&self, status: StatusCode, body: impl Into<Bytes>) -> Answer {
        let body = Pieces::uncounted(body.into());
        let mut answer = Response::new(Either::Left(Whole(body)));
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        insert(headers, REQUEST_ID, self.request_id.as_str());
        let mut id_2 = [0; 72];
        fastrand::fill(&mut id_2);
        insert(headers, ID_2, &b64::encode(&id_2));
        if self.has_origin {
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_ORIGIN,
                HeaderValue::from_static("*"),
            );
            headers.insert(
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static(EXPOSED),
            );
        }
        answer
    }

    fn typed(&self, status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
        let mut answer = self.bare(status, body);
        answer
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        answer
    }

    /// An operator's answer.
    pub(super) fn json(&self, status: StatusCode, body: &'static str) -> Answer {
        self.typed(status, PLAIN_JSON, body)
    }

    /// An operation's answer.
    pub(super) fn output(&self, body: Pieces) -> Answer {
        let mut answer = self.typed(StatusCode::OK, self.encoding.content_type(), "");
        *answer.body_mut() = Either::Left(Whole(body));
        answer
    }

    /// A failure, in AWS's envelope and the request's encoding.
    pub(super) fn error(&self, error: &ApiError) -> Answer {
        self.error_in(self.encoding, error)
    }

    /// Events as they come.
    pub(super) fn events(&self, events: EventBody) -> Answer {
        let mut answer = self.typed(StatusCode::OK, event_stream::CONTENT_TYPE, "");
        *answer.body_mut() = Either::Right(events);
        answer
    }

    /// A failure, in AWS's envelope.
    pub(super) fn error_in(&self, encoding: Encoding, error: &ApiError) -> Answer {
        let status =
            StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Two texts: both encodings have them.
        let body = encoding.encode(&Envelope(error)).unwrap_or_default();
        self.typed(status, encoding.content_type(), body)
    }

    /// The older envelope of `application/json`, in which nothing ever succeeds.
    pub(super) fn wrapped_error(&self, code: ErrorCode) -> Answer {
        let status = match code {
            ErrorCode::UnknownOperation => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_REQUEST,
        };
        let body = format!(
            r#"{{"Output":{{"__type":"com.amazon.coral.service#{code}"}},"Version":"1.0"}}"#
        );
        self.typed(status, PLAIN_JSON, body)
    }

    /// What is not a request to the service at all.
    pub(super) fn not_authorized(&self) -> Answer {
        self.bare(
            StatusCode::FORBIDDEN,
            "<AccessDeniedException>\n  <Message>Unable to determine service/operation name to be \
             authorized</Message>\n</AccessDeniedException>\n",
        )
    }

    /// A request of a content type that is not served.
    pub(super) fn unknown_operation_xml(&self) -> Answer {
        self.bare(StatusCode::NOT_FOUND, "<UnknownOperationException/>\n")
    }

    /// A browser's question whether it may ask.
    pub(super) fn preflight(&self, request: &HeaderMap) -> Answer {
        let mut answer = self.bare(StatusCode::OK, "");
        let headers = answer.headers_mut();
        headers.remove(ID_2);
        headers.remove(header::ACCESS_CONTROL_EXPOSE_HEADERS);
        for (asked, allowed) in [
            (
                header::ACCESS_CONTROL_REQUEST_HEADERS,
                header::ACCESS_CONTROL_ALLOW_HEADERS,
            ),
            (
                header::ACCESS_CONTROL_REQUEST_METHOD,
                header::ACCESS_CONTROL_ALLOW_METHODS,
            ),
        ] {
            if let Some(value) = request.get(asked) {
                headers.insert(allowed, value.clone());
            }
        }
        headers.insert(
            header::ACCESS_CONTROL_MAX_AGE,
            HeaderValue::from_static("172800"),
        );
        answer
    }

    /// The body is too large (413) or took too long (408); the rest of it is not read, so the
    /// connection ends here.
    pub(super) fn body_refused(&self, status: StatusCode) -> Answer {
        let mut answer = self.bare(status, "");
        answer
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
        answer
    }

    /// Whether this is a browser's question whether it may ask.
    pub(super) fn is_preflight(&self, method: &Method) -> bool {
        self.has_origin && method == Method::OPTIONS
    }
}

/// An answer that is there as a whole, handed out as the connection has room for it.
#[derive(Debug)]
pub(super) struct Whole(Pieces);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

/// What an error is to a client: `{"__type": CODE, "message": TEXT}`.
struct Envelope<'e>(&'e ApiError);

impl Serialize for Envelope<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Envelope(error) = self;
        let mut members = serializer.serialize_map(None)?;
        members.serialize_entry("__type", error.code.name())?;
        if !error.message.is_empty() {
            members.serialize_entry(message_key(error.code), &error.message)?;
        }
        members.end()
    }
}

/// The `Content-Type` of a request without its parameters.
pub(super) fn content_type(headers: &HeaderMap) -> &str {
    let given = headers.get(header::CONTENT_TYPE);
    let given = given.and_then(|value| value.to_str().ok());
    let given = given.unwrap_or_default();
    given.split(';').next().unwrap_or_default().trim()
}

/// What AWS calls the message: with a capital for this one code.
fn message_key(code: ErrorCode) -> &'static str {
    if code == ErrorCode::Serialization {
        "Message"
    } else {
        "message"
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
