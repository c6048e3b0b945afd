//! A durable, Kinesis-compatible stream server.
//!
//! A request travels one way: `http` turns bytes into a typed call, `api` runs the operation against
//! the `engine`, which orders it through the `log`, and the answer is the return value of each step.

pub mod api;
pub mod clock;
pub mod error;
pub mod http;
pub mod log;
