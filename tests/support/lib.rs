//! What the suites share: real processes that die with the test, a client that speaks raw JSON, and
//! checkers that judge a history. Nothing here goes through the product's own types where a test
//! asserts on them: shared types hide shared mistakes.

pub mod check;
pub mod client;
pub mod clock;
pub mod events;
pub mod fake_clock;
pub mod frames;
pub mod generated;
pub mod history;
pub mod leases;
pub mod load;
pub mod process;
pub mod reader;
pub mod server;
pub mod store;
pub mod sums;
pub mod worker;

pub use client::RawClient;
pub use clock::wait_until;
pub use server::ServerProcess;
pub use store::Store;
pub use worker::WorkerProcess;

use std::sync::{LazyLock, OnceLock};
use tokio::sync::{Mutex, MutexGuard};

/// Runs the heavy tests of one binary one at a time: the bounds they assert are about one load, not
/// about the neighbour's. Hold the guard for the whole test.
pub async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: LazyLock<Mutex<()>> = LazyLock::new(|| Mutex::new(()));
    ALONE.lock().await
}

/// `normal`, or `long` when `MILLSTREAM_LONG=1` asks for the long variants.
pub fn scaled(normal: usize, long: usize) -> usize {
    static LONG: OnceLock<bool> = OnceLock::new();
    let is_long = *LONG.get_or_init(|| std::env::var("MILLSTREAM_LONG").is_ok_and(|v| v == "1"));
    if is_long { long } else { normal }
}

/// The seed of this run's random choices: `MILLSTREAM_SEED` if given, else a new one; printed, so that a
/// failure can be tried again.
pub fn seeded(test: &str) -> fastrand::Rng {
    let given = std::env::var("MILLSTREAM_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("{test}: MILLSTREAM_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}
