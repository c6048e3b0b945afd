//! The boundary between `http` and the operations: a typed call in, a body or an error out.

use bytes::Bytes;
use millstream_wire::{AccountId, Operation, Region};

use crate::error::ApiError;

/// A request whose operation and caller are known; its body has not been looked at yet.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is asked for.
    pub operation: Operation,
    /// The JSON body, as it was sent. Memory that is accounted for is held as long as this is.
    pub body: Bytes,
    /// Who asks.
    pub caller: Caller,
    /// The id in the answer's `x-amzn-RequestId`, for the log.
    pub request_id: String,
}

/// Who asks, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The account the request is on.
    pub account: AccountId,
    /// The region the request was signed for, or the configured one.
    pub region: Region,
}

/// Runs calls.
pub trait Dispatch: Send + Sync + 'static {
    /// The JSON body of the answer, empty where the operation has nothing to say.
    ///
    /// # Errors
    /// What the operation failed with.
    ///
    /// # Cancel safety
    /// The future is dropped when the client goes away. What it has handed on must finish, or not
    /// happen at all, without it.
    fn dispatch(&self, call: Call) -> impl Future<Output = Result<Vec<u8>, ApiError>> + Send;

    /// Whether calls can succeed at the moment, for `GET /ready`.
    fn is_ready(&self) -> bool {
        true
    }
}

impl<F, Answer> Dispatch for F
where
    F: Fn(Call) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<Vec<u8>, ApiError>> + Send,
{
    fn dispatch(&self, call: Call) -> impl Future<Output = Result<Vec<u8>, ApiError>> + Send {
        self(call)
    }
}
