//! The `millstream` binary; everything is in the library, so that test suites run the same code.

use std::process::ExitCode;

/// Requests allocate and free some dozens of small pieces on several threads; docs/0009-performance.md has the comparison.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    millstream_cli::main()
}
