//! The list of bugs of other client libraries (docs/0007-regressions.md) names tests: each of them is in the tree, where the list says.

use crate::root;
use std::fs;
use std::path::{Path, PathBuf};

/// The tests that the rows of the tables name: `kcl::module::name` or `suite::module::name` between backquotes, in their last cells.
fn named(list: &str) -> Vec<&str> {
    list.lines()
        .filter_map(|line| {
            let row = line.trim().strip_prefix('|')?.strip_suffix('|')?;
            row.rsplit('|').next()
        })
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect()
}

/// The rows without a test.
fn without_test(list: &str) -> Vec<&str> {
    let rows = list.lines().filter(|line| line.starts_with("| "));
    let rows = rows.filter(|line| !line.starts_with("| bug |"));
    rows.filter(|line| named(line).is_empty()).collect()
}

/// The files a test of this path can be in.
fn files(root: &Path, test: &str) -> Vec<PathBuf> {
    let mut modules: Vec<&str> = test.split("::").collect();
    modules.pop();
    let folder = match modules.first() {
        Some(&"kcl") => root.join("kcl/src").join(modules[1..].join("/")),
        _ => root.join("tests").join(modules.join("/")),
    };
    let mut files = vec![folder.with_extension("rs"), folder.join("mod.rs")];
    // A module `tests` may be written inside its file.
    if modules.last() == Some(&"tests")
        && let Some(outer) = folder.parent()
    {
        files.push(outer.with_extension("rs"));
        files.push(outer.join("mod.rs"));
    }
    files
}

fn exists(root: &Path, test: &str) -> bool {
    let name = test.rsplit("::").next().unwrap_or(test);
    let definition = format!("fn {name}(");
    let texts = files(root, test).into_iter().map(fs::read_to_string);
    texts.flatten().any(|text| text.contains(&definition))
}

#[test]
fn every_test_in_the_list_of_regressions_is_in_the_tree() {
    let list = fs::read_to_string(root().join("docs/0007-regressions.md")).unwrap();
    let tests = named(&list);
    assert!(tests.len() > 80, "{} tests found in the list", tests.len());
    let missing: Vec<_> = tests.iter().filter(|test| !exists(&root(), test)).collect();
    assert!(
        missing.is_empty(),
        "docs/0007-regressions.md names tests that are not there: {missing:#?}"
    );
    assert_eq!(without_test(&list), Vec::<&str>::new());
}

/// Every regression test of `kcl` is in the list.
#[test]
fn every_regression_test_is_in_the_list() {
    let list = fs::read_to_string(root().join("docs/0007-regressions.md")).unwrap();
    let folder = root().join("kcl/src/worker/tests/regressions");
    let mut unlisted = Vec::new();
    for (path, text) in crate::rust_files(&folder) {
        let tests = text.split("#[tokio::test(start_paused = true)]\nasync fn ");
        for test in tests.skip(1).filter_map(|rest| rest.split('(').next()) {
            let module = path.file_stem().unwrap().to_string_lossy();
            let full = format!("`kcl::worker::tests::regressions::{module}::{test}`");
            if !list.contains(&full) {
                unlisted.push(full);
            }
        }
    }
    assert!(
        unlisted.is_empty(),
        "add them to docs/0007-regressions.md: {unlisted:#?}"
    );
}

#[test]
fn a_test_that_is_gone_and_a_row_without_one_are_noticed() {
    let list = "| bug | what | here | test |\n|---|---|---|---|\n\
        | #1 | `x` | yes | `repo::regressions::exists` `kcl::gone::k1_gone` |\n| #2 | y | yes | |\n";
    let tests = named(list);
    assert_eq!(tests, ["repo::regressions::exists", "kcl::gone::k1_gone"]);
    assert!(exists(&root(), tests[0]));
    assert!(!exists(&root(), tests[1]));
    assert!(
        !exists(&root(), "repo::layering::exists"),
        "in another file"
    );
    assert_eq!(without_test(list), ["| #2 | y | yes | |"]);
}
