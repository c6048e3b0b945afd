//! Loads for Kinesis endpoints, ceilings to measure them against, and the comparison with other servers.

pub mod client;
pub mod clock;
pub mod load;
pub mod process;
pub mod report;
pub mod workload;

/// What a command fails with: a sentence for whoever started it.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
