//! The encodings a body can have, and what differs between them.

use serde::Serialize;
use serde::de::IgnoredAny;

use crate::cbor;

/// How a request's body is encoded; its answer is encoded alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// AWS JSON 1.1.
    #[default]
    Json,
    /// CBOR, which the Java SDKs use.
    Cbor,
}

/// A value that has no form in the encoding; no shape is one.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EncodeError(String);

impl EncodeError {
    pub(crate) fn new(reason: impl std::fmt::Display) -> EncodeError {
        EncodeError(reason.to_string())
    }
}

impl Encoding {
    /// The value of `Content-Type` that stands for it.
    pub fn content_type(self) -> &'static str {
        match self {
            Encoding::Json => "application/x-amz-json-1.1",
            Encoding::Cbor => "application/x-amz-cbor-1.1",
        }
    }

    /// The encoding of a `Content-Type` without its parameters.
    pub fn from_content_type(content_type: &str) -> Option<Encoding> {
        [Encoding::Json, Encoding::Cbor]
            .into_iter()
            .find(|encoding| encoding.content_type() == content_type)
    }

    /// Whether `body` is a structure and nothing else, whatever its members.
    pub fn is_structure(self, body: &[u8]) -> bool {
        match self {
            Encoding::Json => {
                body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
                    && serde_json::from_slice::<IgnoredAny>(body).is_ok()
            }
            Encoding::Cbor => cbor::is_map(body),
        }
    }

    /// The bytes of `value`.
    ///
    /// # Errors
    /// For values that no shape has.
    pub fn encode<T: Serialize + ?Sized>(self, value: &T) -> Result<Vec<u8>, EncodeError> {
        match self {
            Encoding::Json => serde_json::to_vec(value).map_err(EncodeError::new),
            Encoding::Cbor => cbor::to_vec(value).map_err(EncodeError::new),
        }
    }
}
