//! Calls of user code: a panic is an error like any other, and the call is tried again after a pause.

use crate::client::retry::backoff;
use crate::processor::ProcessorError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A panic of user code.
#[derive(Debug, thiserror::Error)]
#[error("panicked: {0}")]
pub(crate) struct Panicked(String);

/// Runs user code; a panic becomes an error, [`Panicked`].
pub(crate) async fn guarded<T>(
    call: impl Future<Output = Result<T, ProcessorError>>,
) -> Result<T, ProcessorError> {
    let mut call = pin!(call);
    std::future::poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context))) {
            Ok(poll) => poll,
            Err(panic) => Poll::Ready(Err(Panicked(panic_text(&*panic)).into())),
        }
    })
    .await
}

/// The last call of a processor: one that does not return within `limit` is cancelled, so that it cannot keep a lease whose worker lives (K10).
pub(crate) async fn guarded_within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, ProcessorError>>,
) -> Result<T, ProcessorError> {
    let answer = tokio::time::timeout(limit, guarded(call)).await;
    answer.unwrap_or_else(|_| Err(format!("did not return within {limit:?}, cancelled").into()))
}

/// The text of a panic, where it has one.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

/// The pause before failed attempt number `attempt` (from 1) is repeated.
pub(crate) fn retry_pause(attempt: u32) -> Duration {
    backoff(FIRST_PAUSE, LONGEST_PAUSE, attempt).mul_f64(0.5 + 0.5 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let answer = guarded(async {
            tokio::task::yield_now().await;
            assert!(fastrand::u8(..1) != 0, "at the disco");
            Ok(())
        });
        assert_eq!(
            answer.await.unwrap_err().to_string(),
            "panicked: at the disco"
        );
        assert_eq!(guarded(async { Ok(3) }).await.unwrap(), 3);
    }
}
