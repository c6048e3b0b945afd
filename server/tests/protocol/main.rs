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

mod bodies;
#[path = "../by_hand/mod.rs"]
mod by_hand;
mod cbor_bodies;
mod deaf_subscribers;
#[path = "../../../tests/support/events.rs"]
#[allow(unreachable_pub, reason = "another suite shares it")]
mod events;
#[path = "../../../tests/support/frames.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "another suite shares it, and uses all of it"
)]
mod frames;
mod http1;
mod http2;
mod order_of_checks;
mod raw;
mod slow_clients;
mod subscriptions;
