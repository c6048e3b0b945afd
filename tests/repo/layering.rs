//! A request goes one way: `http` -> `api` -> `engine` -> `log`. And `server` and `kcl` do not know each other.

use crate::{root, rust_files};
use std::fs;

/// What of its own crate a source text names: the first segment of every `crate::` path, groups included.
fn modules_named(source: &str) -> Vec<String> {
    let code: String = source
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` and `other_crate::` are not this crate's.
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || "_$".contains(before)) {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.push(first_segment(rest)),
            Some(group) => found.extend(group_members(group).iter().map(|one| first_segment(one))),
        }
    }
    // A group may end in a comma.
    found.retain(|name| !name.is_empty());
    found
}

fn first_segment(path: &str) -> String {
    path.trim_start()
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// The members of a `{...}` group whose opening brace was taken off, nested groups left whole.
fn group_members(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut members) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                members.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                members.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    members
}

/// `crate::name` for every module that the files of a layer name and may not.
fn breaches(layer: &str, forbidden: &[&str]) -> Vec<String> {
    let server = root().join("server/src");
    let mut files = rust_files(&server.join(layer));
    let file = server.join(format!("{layer}.rs"));
    if file.exists() {
        files.push((file.clone(), fs::read_to_string(&file).unwrap()));
    }
    assert!(!files.is_empty(), "no files in server/src/{layer}");
    let mut found = Vec::new();
    for (path, text) in files {
        let named = modules_named(&text);
        for name in named
            .iter()
            .filter(|name| forbidden.contains(&name.as_str()))
        {
            found.push(format!("{} names crate::{name}", path.display()));
        }
    }
    found
}

#[test]
fn paths_into_the_own_crate_are_found() {
    let source = "
        use crate::engine::Engine;
        use crate::{api, log::{Log, engine}, clock};
        use crate::{
            http::Call,
        };
        fn f() { crate::error::g(); millstream_crate::not_this(); }
        // crate::in_a_comment
    ";
    let expected = ["engine", "api", "log", "clock", "http", "error"];
    assert_eq!(modules_named(source), expected);
}

/// Invariant 1: http turns bytes into calls; what the calls do is not its business.
#[test]
fn http_does_not_know_engine_or_log() {
    assert_eq!(breaches("http", &["engine", "log"]), Vec::<String>::new());
}

/// Invariant 2: log keeps bytes in one order and knows no streams.
#[test]
fn log_does_not_know_what_is_above_it() {
    assert_eq!(
        breaches("log", &["engine", "api", "http", "error"]),
        Vec::<String>::new()
    );
}

/// The engine is usable without HTTP.
#[test]
fn engine_does_not_know_http_or_api() {
    assert_eq!(breaches("engine", &["http", "api"]), Vec::<String>::new());
}

/// An operation is plain: typed input, engine call, typed output.
#[test]
fn api_does_not_know_log_or_http() {
    assert_eq!(breaches("api", &["log", "http"]), Vec::<String>::new());
}

fn dependencies(package: &str) -> Vec<String> {
    let path = root().join(package).join("Cargo.toml");
    let manifest: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
    ["dependencies", "dev-dependencies", "build-dependencies"]
        .iter()
        .filter_map(|section| manifest.get(*section)?.as_table())
        .flat_map(|section| section.keys().cloned())
        .collect()
}

#[test]
fn server_and_kcl_do_not_depend_on_each_other() {
    let (server, kcl) = (dependencies("server"), dependencies("kcl"));
    for of in [&server, &kcl] {
        assert!(
            of.contains(&"millstream-wire".to_owned()),
            "both speak through wire"
        );
        assert!(
            !of.contains(&"millstream".to_owned()),
            "the command line is above both"
        );
    }
    assert!(!server.contains(&"kcl".to_owned()));
    assert!(!kcl.contains(&"millstream-server".to_owned()));
    let wire = dependencies("wire");
    assert!(
        !wire
            .iter()
            .any(|name| name == "kcl" || name.starts_with("millstream")),
        "{wire:?}"
    );
}
