//! README tells users what there is: every operation and every setting has a row in its tables.

use crate::root;
use millstream_wire::Operation;
use std::fs;
use std::process::Command;

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

/// What `serve --help` names and README's table of settings does not, and the other way round.
#[test]
fn every_setting_is_in_readme_with_its_variable() {
    let binary = env!("CARGO_BIN_EXE_millstream-under-test");
    let help = Command::new(binary).args(["serve", "--help"]).output();
    let help = String::from_utf8(help.unwrap().stdout).unwrap();
    let flags = help.lines().map(str::trim_start);
    let flags = flags.filter_map(|line| line.strip_prefix("--")?.split([' ', '[', '=']).next());
    let mut flags: Vec<&str> = flags.filter(|flag| *flag != "help").collect();
    flags.sort_unstable();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let table = readme.split("## Settings of").nth(1).unwrap();
    let table = table.split("\n### ").next().unwrap();
    let rows = table.lines().filter_map(|line| {
        let (flag, rest) = line.strip_prefix("| `--")?.split_once([' ', '`'])?;
        let variable = format!("`MILLSTREAM_{}`", flag.replace('-', "_").to_uppercase());
        assert!(rest.contains(&variable), "{variable} is not in: {line}");
        Some(flag)
    });
    let mut rows: Vec<&str> = rows.collect();
    rows.sort_unstable();
    assert!(flags.len() > 10, "{help}");
    assert_eq!(rows, flags);
}
