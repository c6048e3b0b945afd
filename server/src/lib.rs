//! A durable, Kinesis-compatible stream server.
//!
//! A request travels one way: `http` turns bytes into a typed call, `api` runs the operation against
//! the `engine`, which orders it through the `log`, and the answer is the return value of each step:
//!
//! ```text
//! http/request -> api/put -> engine/put -> log/writer -> (return) -> http/response
//! ```
//!
//! `http` is the only layer that knows HTTP; `log` knows no streams. ARCHITECTURE.md has the map.

pub mod api;
pub mod clock;
pub mod config;
pub mod engine;
pub mod error;
pub mod http;
pub mod log;
mod memory;
pub mod offline;
pub mod patience;
mod start;
pub mod tls;

pub use api::{LATENCY_MAX_MS, Latency};
pub use config::{Config, DataLocation, StartStream, TlsSource};
pub use engine::{Limits, Probability};
pub use log::{Compression, Durability};
pub use memory::Memory;
pub use start::{Server, StartError};
