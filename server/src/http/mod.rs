//! HTTP: connections, bodies, AWS's order of checks, answers. Knows nothing of shards.
//!
//! A request becomes a [`Call`](crate::api::Call), the [`Dispatch`](crate::api::Dispatch) runs it,
//! and the bytes or the error it gives become the answer. Whatever waits in memory is counted: the
//! bodies under way and the answers not yet written each have a budget in bytes.

mod admin;
mod alarm;
mod auth;
mod budget;
mod connection;
mod event_stream;
mod listener;
mod peer;
mod places;
mod request;
mod response;
mod rewound;
mod stall;
#[cfg(test)]
mod tests;
mod unwritten;

use millstream_wire::{AccountId, Region};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_rustls::rustls;

use crate::patience::ROOM_WAIT;

pub use listener::serve;
pub(crate) use places::{REST_BYTES, WORK_BYTES};

/// What clients that speak TLS are shown. Making a key takes longer than all else that a first start does, so it may come when the
/// first clients are served already; those that speak TLS wait for it.
pub type LateTls = watch::Receiver<Option<Arc<rustls::ServerConfig>>>;

/// What the HTTP layer is given of the configuration.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// The account of a caller whose access key id names none.
    pub account: AccountId,
    /// The region of a caller whose credentials name none.
    pub region: Region,
    /// Connections at a time; more wait to be accepted. One that speaks TLS counts as four, HTTP/2 as sixteen.
    pub max_connections: usize,
    /// HTTP/1.1 connections at work at a time; more wait for one that rests. A sixteenth of them only refuse.
    pub max_connections_at_work: usize,
    /// How long an HTTP/1.1 connection must have had nothing to do to rest.
    pub rest_after: Duration,
    /// Bytes of one body at most; a larger one is answered with 413.
    pub max_body_bytes: usize,
    /// Bytes of all bodies under way and of what is made of them at most; beyond it requests are answered with 503.
    pub max_request_bytes: usize,
    /// Bytes of all answers not yet written at most; beyond it requests are answered with 503. Small
    /// answers have an eighth of it on top.
    pub max_response_bytes: usize,
    /// How long a request waits for room, in all places together: for its share of these bytes, and for what it needs of the
    /// engine. And how long a connection waits for a place at work while nobody gets one.
    pub admission_wait: Duration,
    /// What clients that speak TLS are shown; without it there is no TLS.
    pub tls: Option<LateTls>,
    /// How long a TLS handshake may take.
    pub tls_handshake_timeout: Duration,
    /// How long a connection may take to send a request's head, and how long it may be silent before its first one.
    pub header_read_timeout: Duration,
    /// How long an HTTP/1.1 connection may rest between two requests.
    pub idle_timeout: Duration,
    /// How long a body may take to arrive.
    pub body_read_timeout: Duration,
    /// How long a client may take nothing of an answer.
    pub write_stall_timeout: Duration,
    /// How long requests under way have to finish once the server shuts down.
    pub drain_timeout: Duration,
}

const MIB: usize = 1024 * 1024;
/// What is made of a body until it is answered, beside the records, which have a budget of their own: entries, outcomes and
/// results, no more than so many times the body, and no more than so much.
const MADE_OF_BODY: usize = 12;
const MADE_OF_BODY_MAX_BYTES: usize = 400 * 1024;

impl HttpConfig {
    /// What a request with such a body takes of [`HttpConfig::max_request_bytes`].
    pub(crate) fn request_bytes(body_bytes: usize) -> usize {
        let made = body_bytes.saturating_mul(MADE_OF_BODY);
        body_bytes.saturating_add(made.min(MADE_OF_BODY_MAX_BYTES))
    }

    /// Sound values for a machine with a few hundred megabytes to spare.
    pub fn new(account: AccountId, region: Region) -> HttpConfig {
        HttpConfig {
            account,
            region,
            max_connections: 8_192,
            max_connections_at_work: 1_024,
            // Bringing one back takes microseconds, and others may wait for its place.
            rest_after: Duration::from_millis(100),
            // 10 MiB of records are 13.4 MiB of Base64, and keys and quotes come on top.
            max_body_bytes: 16 * MIB,
            max_request_bytes: 128 * MIB,
            max_response_bytes: 128 * MIB,
            admission_wait: ROOM_WAIT,
            tls: None,
            tls_handshake_timeout: Duration::from_secs(10),
            header_read_timeout: Duration::from_secs(10),
            // As load balancers have it: clients keep connections in pools, and find out late that one is gone.
            idle_timeout: Duration::from_mins(1),
            body_read_timeout: Duration::from_secs(30),
            write_stall_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
        }
    }
}
