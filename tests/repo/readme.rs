//! README tells users what is served: every operation has a row in its table.

use crate::root;
use millstream_wire::Operation;
use std::fs;

/// Operations without a row of their own: a line of a table whose first cell names it.
fn without_row(readme: &str) -> Vec<&'static str> {
    let first_cells: Vec<&str> = readme
        .lines()
        .filter_map(|line| line.trim().strip_prefix('|')?.split('|').next())
        .collect();
    let named = |name: &str| {
        first_cells.iter().any(|cell| {
            cell.split(|c: char| !c.is_alphanumeric())
                .any(|word| word == name)
        })
    };
    Operation::ALL
        .iter()
        .map(|operation| operation.name())
        .filter(|name| !named(name))
        .collect()
}

#[test]
fn a_missing_row_is_noticed() {
    let rows = Operation::ALL
        .iter()
        .map(|one| format!("| `{}` | yes |", one.name()));
    let all = rows.collect::<Vec<_>>().join("\n");
    assert_eq!(without_row(&all), Vec::<&str>::new());
    let fewer = all.replace("| `PutRecord` | yes |", "PutRecord is served.");
    assert_eq!(
        without_row(&fewer),
        ["PutRecord"],
        "PutRecords is another operation"
    );
}

#[test]
fn every_operation_is_in_readme() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert_eq!(
        without_row(&readme),
        Vec::<&str>::new(),
        "add a row to README's table of operations"
    );
}
