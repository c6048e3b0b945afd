//! The protocol over real sockets, byte for byte: what is answered to which bytes, in which order things are
//! checked, and that no bytes stop the server. Requests are written and answers are read by hand.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::format_collect,
    clippy::format_push_string,
    clippy::match_bool,
    reason = "a test says what is wrong by failing, and puts bytes together as they are read"
)]

mod http1;
mod order_of_checks;
mod raw;
mod slow_clients;
