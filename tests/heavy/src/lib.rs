//! The AWS SDK for Rust, as it comes from the registry, against a server in this process: plain and over TLS, every
//! record through a split and a merge by GetRecords, and pushed by SubscribeToShard; errors by their types. And the
//! same random requests to ferrokinesis, another stand-in.

#[cfg(test)]
mod fanout;
#[cfg(test)]
mod ferrokinesis;
#[cfg(test)]
#[path = "../../support/generated.rs"]
#[expect(dead_code, reason = "the other suites use all of it")]
mod generated;
#[cfg(test)]
mod records;
#[cfg(test)]
mod sdk;
