//! A cluster: a data folder, a port, and a server that runs on them, or not.

use crate::account::Account;
use crate::install;
use crate::server::{Server, Start};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// Below the ports that systems give to outgoing connections, so that a cluster finds its port free when it starts again.
const PORTS: std::ops::Range<u16> = 15_000..32_000;
/// Ports tried for a new cluster.
const TRIES: usize = 20;

/// What a crash of the machine would leave. A crash of the server alone leaves everything, either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Written through to the disk, as in earnest.
    Disk,
    /// Left to the operating system: much faster.
    System,
}

/// A PostgreSQL cluster of a test's own. Clones are the same one; it ends with the last.
#[derive(Debug, Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Dropped before the folder that it writes to.
    server: Mutex<Option<Server>>,
    folder: TempDir,
    account: Account,
    port: u16,
    durability: Durability,
    databases: AtomicU64,
}

impl Cluster {
    /// A new cluster with its server running.
    ///
    /// # Panics
    /// If it does not start: with the end of its log.
    pub async fn start(durability: Durability) -> Cluster {
        blocking(move || {
            for _ in 0..TRIES {
                let port = fastrand::u16(PORTS);
                if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                    return Cluster::on(port, durability);
                }
            }
            panic!("{TRIES} ports of {PORTS:?} were all taken");
        })
        .await
    }

    /// The one that all tests of this process share, for those that want no more than a database; quick, not durable.
    pub async fn shared() -> &'static Cluster {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        SHARED
            .get_or_init(|| Cluster::start(Durability::System))
            .await
    }

    pub(crate) fn on(port: u16, durability: Durability) -> Cluster {
        let account = Account::choose();
        let programs = install::programs(account);
        let folder = tempfile::Builder::new()
            .prefix("millstream-postgres-")
            .tempdir()
            .unwrap();
        account.give(folder.path());
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        create(account, &programs, folder.path());
        let cluster = Cluster {
            inner: Arc::new(Inner {
                server: Mutex::new(None),
                folder,
                account,
                port,
                durability,
                databases: AtomicU64::new(0),
            }),
        };
        cluster.inner.run();
        cluster
    }

    /// Where the server is, with the database `postgres`.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The same with another database.
    pub fn url_of(&self, database: &str) -> String {
        format!(
            "postgres://postgres@127.0.0.1:{}/{database}",
            self.inner.port
        )
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.inner.port
    }

    /// The URL of a database that nobody else has.
    pub async fn database(&self) -> String {
        let number = self.inner.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        let options: sqlx::postgres::PgConnectOptions = self.url().parse().unwrap();
        let mut connection = options.connect().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
        self.url_of(&name)
    }

    /// Ends the server in order. Nothing happens if it does not run.
    pub async fn stop(&self) {
        self.act(|inner| {
            if let Some(server) = inner.take() {
                server.stop();
            }
        })
        .await;
    }

    /// Ends all processes of the server with SIGKILL: what was not yet written down is gone.
    pub async fn kill(&self) {
        self.act(|inner| {
            if let Some(server) = inner.take() {
                server.kill();
            }
        })
        .await;
    }

    /// Starts the server again on its data and its port: after [`Cluster::kill`] it recovers first.
    ///
    /// # Panics
    /// If it does not start: with the end of its log.
    pub async fn start_again(&self) {
        self.act(Inner::run).await;
    }

    /// Stops the server in order and starts it again.
    pub async fn restart(&self) {
        self.stop().await;
        self.start_again().await;
    }

    /// Holds all processes of the server: connections stay, new ones are taken by the system, and nobody answers.
    pub async fn pause(&self) {
        self.act(|inner| inner.with(Server::pause)).await;
    }

    /// Lets a paused server go on.
    pub async fn resume(&self) {
        self.act(|inner| inner.with(Server::resume)).await;
    }

    /// The process id of the server's first process.
    ///
    /// # Panics
    /// If it does not run.
    pub fn postmaster(&self) -> u32 {
        self.inner.with(Server::postmaster)
    }

    async fn act(&self, act: impl FnOnce(&Inner) + Send + 'static) {
        let inner = Arc::clone(&self.inner);
        blocking(move || act(&inner)).await;
    }
}

impl Inner {
    fn take(&self) -> Option<Server> {
        self.server.lock().unwrap().take()
    }

    fn with<T>(&self, act: impl FnOnce(&Server) -> T) -> T {
        let server = self.server.lock().unwrap();
        act(server.as_ref().expect("the server does not run"))
    }

    fn run(&self) {
        let mut server = self.server.lock().unwrap();
        if server.is_some() {
            return;
        }
        let start = Start {
            account: self.account,
            program: install::programs(self.account).join("postgres"),
            folder: self.folder.path(),
            settings: settings(self.port, self.durability),
        };
        let started = Server::start(&start);
        *server = Some(started.unwrap_or_else(|error| {
            panic!("PostgreSQL on port {} did not start: {error}", self.port)
        }));
    }
}

fn settings(port: u16, durability: Durability) -> Vec<(String, String)> {
    let through = match durability {
        Durability::Disk => "on",
        Durability::System => "off",
    };
    let port = port.to_string();
    [
        ("listen_addresses", "127.0.0.1"),
        ("port", port.as_str()),
        ("unix_socket_directories", ""),
        ("max_connections", "200"),
        ("shared_buffers", "16MB"),
        ("fsync", through),
        ("full_page_writes", through),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// Creates the data folder. Texts sort by bytes, and everybody who reaches 127.0.0.1 may come in.
fn create(account: Account, programs: &Path, folder: &Path) {
    let mut command = Command::new(programs.join("initdb"));
    command
        .arg("--pgdata")
        .arg(folder.join("data"))
        .args(["--username=postgres", "--auth=trust", "--no-sync"])
        .args(["--encoding=UTF8", "--locale=C"])
        .env("LC_ALL", "C")
        .current_dir(folder);
    account.apply(&mut command);
    let ended = command
        .output()
        .unwrap_or_else(|error| panic!("could not start initdb: {error}"));
    assert!(
        ended.status.success(),
        "initdb failed: {}{}",
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr)
    );
}

async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(act).await {
        Ok(done) => done,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}
