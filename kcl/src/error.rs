//! The one public error: what went wrong and what the caller can do about it.

use std::fmt;

/// What a caller would do differently about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is missing or out of range: fix the configuration.
    Configuration,
    /// The stream, shard or table does not exist.
    NotFound,
    /// The caller may not do this: fix credentials or permissions.
    AccessDenied,
    /// The endpoint or the store is busy or out of reach for the moment: try again later.
    Unavailable,
    /// A shard was read or written faster than its limits allow: go on, but more slowly.
    Throttled,
    /// A shard iterator or page token has expired: get a new one.
    Expired,
    /// The lease belongs to another worker or a later tenure: stop working on the shard.
    LeaseLost,
    /// The position lies outside what was delivered, or before the stored checkpoint.
    InvalidPosition,
    /// Another process registered under the same worker id.
    WorkerReplaced,
    /// The application is at work or has leases: stop its workers first, or say that it does not matter.
    InUse,
    /// The lease store is not usable: unknown schema, read-only, damaged.
    Store,
    /// The endpoint refused the request or answered something that makes no sense.
    Protocol,
    /// A record processor failed and its policy says to stop.
    Processor,
    /// The worker is shutting down.
    Shutdown,
}

impl ErrorKind {
    /// Whether the same call may succeed later without any change.
    pub fn is_retryable(self) -> bool {
        match self {
            ErrorKind::Unavailable | ErrorKind::Throttled | ErrorKind::Expired => true,
            ErrorKind::Configuration
            | ErrorKind::NotFound
            | ErrorKind::AccessDenied
            | ErrorKind::LeaseLost
            | ErrorKind::InvalidPosition
            | ErrorKind::WorkerReplaced
            | ErrorKind::InUse
            | ErrorKind::Store
            | ErrorKind::Protocol
            | ErrorKind::Processor
            | ErrorKind::Shutdown => false,
        }
    }
}

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// An error of this crate. [`Error::kind`] is API, the text is for people.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Source>,
}

impl Error {
    /// An error of `kind`; `message` says what was wrong, with what value, and what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// The same with the error that caused it.
    pub fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Source>,
    ) -> Self {
        Error {
            kind,
            message: message.into(),
            source: Some(source.into()),
        }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later without any change.
    pub fn is_retryable(&self) -> bool {
        self.kind.is_retryable()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
