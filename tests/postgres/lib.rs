//! Real PostgreSQL 18 servers for tests. They come from PyPI, so that a machine needs python3 and nothing else, and none of
//! them outlives the process that started it, however that ends.
//!
//! A test that cannot get its server fails; it is never skipped.

mod account;
mod cluster;
mod install;
mod log;
mod server;
#[cfg(test)]
mod tests;

pub use cluster::{Cluster, Durability};
