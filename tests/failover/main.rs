//! Workers as processes that are killed, suspended and stopped while records keep coming: guarantees K1 to
//! K9 of `kcl`, each test named after the ones it is about.

mod aggregates;
mod books;
mod exactly_once;
mod fan_out;
mod full_disk;
mod kills;
mod limits;
mod operations;
mod postgres;
mod refusals;
mod scene;
mod takeover;
mod thousand_shards;
mod traffic;
mod two_phases;
mod wall_clocks;
mod zombie;

/// The product's binary.
const SERVER: &str = env!("CARGO_BIN_EXE_millstream-under-test");
/// A worker process.
const WORKER: &str = env!("CARGO_BIN_EXE_worker-child");
