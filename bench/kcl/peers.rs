//! What the peers need: their programs, and a store for their tables.

use crate::Failure;
use crate::command::System;
use millstream_bench::install::{environment, packages, run};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// Where the peers' programs are. Of a system that takes no part, the fields are empty.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    pub(crate) java: PathBuf,
    /// The class path.
    pub(crate) java_classes: String,
    pub(crate) kcl_rs_python: PathBuf,
    pub(crate) kcl_rs_worker: PathBuf,
    /// The endpoint of `DynamoDB` and `CloudWatch`.
    pub(crate) store: String,
    /// What serves it.
    moto: Option<Child>,
}

const MOTO: [&str; 3] = ["moto[server]==5.2.5", "boto3==1.44.5", "botocore==1.44.5"];
const MOTO_STARTS_WITHIN: Duration = Duration::from_secs(30);

impl Peers {
    /// Installs what the systems need, and starts their store.
    pub(crate) async fn install(systems: &[System], directory: &Path) -> Result<Peers, Failure> {
        let mut peers = Peers::default();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("kcl");
        if systems.contains(&System::Java) {
            let at = directory.join("java");
            let python = environment(&at, &["kclpy-ext==3.1.3.post4"], false).await?;
            let jars = packages(&python).await?.join("amazon_kclpy/jars/*");
            let classes = directory.join("classes");
            std::fs::create_dir_all(&classes)?;
            let mut javac = Command::new("javac");
            javac.arg("-cp").arg(&jars).arg("-d").arg(&classes);
            run(javac.arg(sources.join("BenchWorker.java"))).await?;
            peers.java = "java".into();
            peers.java_classes = format!("{}:{}", jars.display(), classes.display());
        }
        if systems.contains(&System::KclRs) {
            let at = directory.join("kcl-rs");
            peers.kcl_rs_python = environment(&at, &["kcl-rs==0.1.4"], true).await?;
            peers.kcl_rs_worker = sources.join("kcl_rs_worker.py");
        }
        let needs_store = |system: &System| matches!(system, System::Java | System::KclRs);
        if systems.iter().any(needs_store) {
            let python = environment(&directory.join("moto"), &MOTO, true).await?;
            peers.start_store(&python, directory).await?;
        }
        Ok(peers)
    }

    async fn start_store(&mut self, python: &Path, directory: &Path) -> Result<(), Failure> {
        let port = {
            let free = std::net::TcpListener::bind("127.0.0.1:0")?;
            free.local_addr()?.port()
        };
        let log = std::fs::File::create(directory.join("moto.log"))?;
        let mut command = Command::new(python.with_file_name("moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?);
        self.moto = Some(command.stderr(log).kill_on_drop(true).spawn()?);
        self.store = format!("http://127.0.0.1:{port}");
        let up = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(MOTO_STARTS_WITHIN, up).await?;
        Ok(())
    }
}
