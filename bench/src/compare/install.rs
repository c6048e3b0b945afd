//! Gets the programs: builds what is of this repository, installs peers from their registries into a directory, once.

use super::systems::System;
use crate::install::{environment, run};
use crate::{Failure, report};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokio::process::Command;

const KINESALITE: &str = "kinesalite@3.3.3";
const KINESIS_LOCAL: &str = "kinesis-local@0.6.2";
const MOTO: &str = "moto[server]==5.2.5";
const FERROKINESIS: [&str; 3] = ["ferrokinesis", "--version", "0.7.0"];

/// Where programs are.
#[derive(Debug, Default)]
pub(super) struct Programs {
    executables: BTreeMap<System, PathBuf>,
    pub(super) kinesalite: PathBuf,
    pub(super) kinesis_local: PathBuf,
    pub(super) kinesis_local_certificate: PathBuf,
    /// Why systems take no part.
    pub(super) missing: BTreeMap<System, String>,
}

impl Programs {
    /// Whatever of `systems` can be had.
    pub(super) async fn get(
        systems: &[System],
        millstream: Option<&Path>,
        directory: &Path,
    ) -> Result<Programs, Failure> {
        let mut programs = Programs::default();
        for system in systems {
            if let Err(error) = programs.install(*system, millstream, directory).await {
                report::note(&format!("{}: takes no part: {error}", system.name()));
                programs.missing.insert(*system, error.to_string());
            }
        }
        Ok(programs)
    }

    /// What is started for a system.
    pub(super) fn of(&self, system: System) -> Result<&Path, Failure> {
        let found = self.executables.get(&system);
        found.map(PathBuf::as_path).ok_or_else(|| {
            let name = system.name();
            format!("{name} is not installed").into()
        })
    }

    async fn install(
        &mut self,
        system: System,
        millstream: Option<&Path>,
        directory: &Path,
    ) -> Result<(), Failure> {
        let executable = match system {
            System::Millstream => self::millstream(millstream).await?,
            System::None | System::Parse | System::Durable | System::Get => {
                std::env::current_exe()?
            }
            System::Ferrokinesis | System::FerrokinesisWal => {
                let root = directory.join("ferrokinesis");
                let executable = root.join("bin/ferrokinesis");
                if !executable.exists() {
                    let mut cargo = Command::new("cargo");
                    cargo
                        .args(["install", "--quiet", "--locked", "--root"])
                        .arg(&root);
                    run(cargo.args(FERROKINESIS)).await?;
                }
                executable
            }
            System::Kinesalite => {
                let package = npm(directory, KINESALITE, "kinesalite").await?;
                self.kinesalite = package.join("cli.js");
                "node".into()
            }
            System::KinesisLocal => {
                let package = npm(directory, KINESIS_LOCAL, "kinesis-local").await?;
                self.kinesis_local = package.join("main.js");
                self.kinesis_local_certificate = package.join("server.json");
                "node".into()
            }
            System::Moto => {
                let python = environment(&directory.join("moto"), &[MOTO], true).await?;
                python.with_file_name("moto_server")
            }
        };
        self.executables.insert(system, executable);
        Ok(())
    }
}

/// The server of this repository, built as it is released, beside this program.
/// The server's program: the given one, or what is built now.
pub(crate) async fn millstream(given: Option<&Path>) -> Result<PathBuf, Failure> {
    match given {
        Some(given) => {
            let found = given.canonicalize();
            Ok(found.map_err(|error| format!("{}: {error}", given.display()))?)
        }
        None => build_millstream().await,
    }
}

async fn build_millstream() -> Result<PathBuf, Failure> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("Cargo.toml");
    let own = std::env::current_exe()?;
    let mut cargo = Command::new("cargo");
    cargo.args([
        "build",
        "--release",
        "--quiet",
        "-p",
        "millstream",
        "--manifest-path",
    ]);
    run(cargo.arg(manifest)).await?;
    let built = own.with_file_name("millstream");
    if !built.exists() {
        let built = built.display();
        return Err(format!(
            "{built} is not there after a build; build in release mode, or say --millstream FILE"
        )
        .into());
    }
    Ok(built)
}

/// A package of npm; where it lies.
async fn npm(directory: &Path, package: &str, name: &str) -> Result<PathBuf, Failure> {
    let prefix = directory.join(name);
    let installed = prefix.join("node_modules").join(name);
    if !installed.exists() {
        std::fs::create_dir_all(&prefix)?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]);
        run(npm.arg(&prefix).arg(package)).await?;
    }
    Ok(installed)
}
