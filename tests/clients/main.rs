//! Unmodified third-party clients against the real binary: boto3 with a whole table of data, boto3 with
//! bad input, the AWS command line, CBOR by another encoder, boto3 over TLS, and, behind
//! the feature `all-clients`, the Java SDK, which needs a JDK.
//!
//! They are installed into a virtual environment under the target directory. What cannot be installed
//! fails the tests and says why; nothing is skipped.

mod aws_cli;
mod carriers;
mod encodings;
mod fanout;
mod flights;
#[cfg(feature = "all-clients")]
mod java;
mod python;

/// The product's binary.
const SERVER: &str = env!("CARGO_BIN_EXE_millstream-under-test");
/// A worker process.
const WORKER: &str = env!("CARGO_BIN_EXE_worker-child");
