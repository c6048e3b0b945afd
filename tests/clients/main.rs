//! Unmodified third-party clients against the real binary: boto3, the AWS command line, CBOR by another encoder,
//! the SDKs for JavaScript and Java, the Java KCL, and libraries from PyPI and npm; and the same requests to other
//! stand-ins. README's table of clients is what these tests show.
//!
//! All of them are installed from their registries into folders under the target directory. What cannot be
//! installed fails the tests and says why; nothing is skipped. The SDK for Rust is in tests/heavy.

mod aws_cli;
mod carriers;
mod encodings;
mod fanout;
mod flights;
mod java;
mod javascript;
mod libraries;
mod limits;
mod node;
mod peers;
mod python;
mod shown;

/// The product's binary.
const SERVER: &str = env!("CARGO_BIN_EXE_millstream-under-test");
/// A worker process.
const WORKER: &str = env!("CARGO_BIN_EXE_worker-child");
