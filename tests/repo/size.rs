//! A file has one subject and a length that can be read.

use crate::{root, rust_files};

/// Where a file is split, whatever it holds.
const MOST_LINES: usize = 800;

#[test]
fn no_file_is_too_long() {
    let files = rust_files(&root());
    assert!(files.len() > 50, "only {} files found", files.len());
    let too_long: Vec<String> = files
        .iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > MOST_LINES)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert_eq!(too_long, Vec::<String>::new(), "split them by subject");
}

#[test]
fn every_file_says_what_it_owns() {
    let silent: Vec<String> = rust_files(&root())
        .iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert_eq!(
        silent,
        Vec::<String>::new(),
        "line 1 is //! and what the file owns"
    );
}
