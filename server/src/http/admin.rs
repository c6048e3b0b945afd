//! What an operator asks: is it alive, is it ready.

use hyper::{Method, StatusCode};

use super::response::{Answer, Head};
use crate::api::Dispatch;

/// The answer to an operator's request; `None` where it is not one.
pub(super) fn answer<D: Dispatch>(
    method: &Method,
    path: &str,
    dispatch: &D,
    head: &Head,
) -> Option<Answer> {
    if method != Method::GET {
        return None;
    }
    match path {
        "/health" => Some(head.json(StatusCode::OK, r#"{"status":"ok"}"#)),
        "/ready" if dispatch.is_ready() => Some(head.json(StatusCode::OK, r#"{"status":"ready"}"#)),
        "/ready" => Some(head.json(StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"not ready"}"#)),
        _ => None,
    }
}
