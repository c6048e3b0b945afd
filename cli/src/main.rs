//! The `millstream` binary; everything is in the library, so that test suites run the same code.

use std::process::ExitCode;

fn main() -> ExitCode {
    millstream_cli::main()
}
