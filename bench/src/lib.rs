//! Loads for Kinesis endpoints, ceilings to measure them against, and the comparison with other servers.

pub mod body;
pub mod ceiling;
pub mod client;
pub mod clock;
pub mod compare;
pub mod growth;
pub mod install;
pub mod load;
pub mod measure;
pub mod pace;
pub mod page;
mod page_cache;
pub mod process;
pub mod raw_disk;
pub mod report;
pub mod scan;
pub mod stream;
pub mod workload;

use std::io;
use std::num::NonZeroUsize;
use tokio::runtime::{Builder, Runtime};

/// What a command fails with: a sentence for whoever started it.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A runtime of so many threads; of one, without the cost of several.
pub fn runtime(threads: NonZeroUsize) -> io::Result<Runtime> {
    let mut builder = match threads.get() {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(threads.get()).enable_all().build()
}
