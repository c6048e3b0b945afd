//! What commands say: results on standard output, progress and errors on standard error.

use std::io::Write;

/// A line of a result.
pub fn say(line: &str) {
    // Whoever reads it may have gone.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// A line of progress, or an error.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
