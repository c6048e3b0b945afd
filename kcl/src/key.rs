//! The text of a partition key, kept where it arrived: a slice of the answer that it was read with, or a text that several records share.
//!
//! A page has up to 10,000 of them, and most applications look at few: so none has memory of its own.

use bytes::Bytes;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// A partition key.
#[derive(Clone)]
pub(crate) enum Key {
    /// A text that others have too.
    Shared(Arc<str>),
    /// A part of an answer.
    Slice(Bytes),
}

impl Key {
    /// A part of an answer, which was text when it was read. What is none is empty.
    pub(crate) fn slice(text: Bytes) -> Self {
        debug_assert!(std::str::from_utf8(&text).is_ok());
        Key::Slice(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Key::Shared(text) => text,
            // Looked at again, which is cheaper for those who look than a copy for all, and needs no promise.
            Key::Slice(text) => std::str::from_utf8(text).unwrap_or_default(),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Key::Shared(text) => text.as_bytes(),
            Key::Slice(text) => text,
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Key::Shared(text) => text.len(),
            Key::Slice(text) => text.len(),
        }
    }
}

impl From<Arc<str>> for Key {
    fn from(text: Arc<str>) -> Self {
        Key::Shared(text)
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Key::Shared(text.into())
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Key::Shared(text.into())
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As texts are ordered.
impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_text_wherever_that_lies() {
        let answer = Bytes::from_static("…schlüssel…".as_bytes());
        let slice = Key::slice(answer.slice(3..answer.len() - 3));
        let shared = Key::from("schlüssel");
        assert_eq!((&slice, slice.len()), (&shared, shared.len()));
        assert_eq!(slice.as_str(), "schlüssel");
        assert_ne!(slice, Key::from(String::new()));
    }
}
