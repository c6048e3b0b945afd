//! The product's binary, built with the suites so that they drive exactly it.

fn main() -> std::process::ExitCode {
    millstream_cli::main()
}
