//! Leases in one SQLite file that several processes share.
//!
//! WAL with `synchronous=FULL`: a checkpoint that was answered survives power loss. Every writing transaction begins
//! IMMEDIATE and waits for others no longer than the busy timeout ([`queue`]). SQLite runs on threads of its own, one per
//! connection; callers of one store queue in fair order and never block the runtime.

mod fault;
mod offered;
mod queue;
mod schema;
#[cfg(test)]
mod tests;
mod transaction;

use super::sql::{Scope, SqlStore, Verb};
use crate::error::{Error, ErrorKind};
use queue::Queue;
use sqlx::sqlite::{SqliteConnectOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};
use transaction::Transaction;

/// How long a write waits for the writes of other processes. A third of the default fail-over time: a heartbeat that
/// waits longer is overdue anyway.
const BUSY_TIMEOUT: Duration = Duration::from_secs(3);

/// A lease store in an SQLite file. Clones share its connections; other processes may open the same file.
#[derive(Debug, Clone)]
pub struct SqliteLeaseStore {
    database: Arc<Database>,
    queue: Arc<Queue>,
}

/// The connections to the file. A write that finds it locked fails at once: waiting is the queue's business.
#[derive(Debug)]
struct Database {
    path: PathBuf,
    /// How connections that write are opened: without SQLite's own waiting.
    writing: SqliteConnectOptions,
    reading: SqliteConnectOptions,
    /// The one connection that writes all but heartbeats; tokio's lock, because it is held for a transaction.
    writer: Mutex<Option<SqliteConnection>>,
    /// The one that writes heartbeats, which nothing in this process may hold up.
    pulse: Mutex<Option<SqliteConnection>>,
    /// The one that reads snapshots: in WAL a reader waits for nobody.
    reader: Mutex<Option<SqliteConnection>>,
}

impl SqliteLeaseStore {
    /// Opens the lease store at `path` and creates it if it is not there. An older schema is migrated.
    ///
    /// # Errors
    /// `Store` if the file is not an SQLite database, cannot be written, or has a schema this version does not know
    /// (then nothing was touched); `Unavailable` if another process keeps it locked for three seconds;
    /// `Configuration` if the path is empty.
    pub async fn open(path: impl AsRef<Path>) -> Result<SqliteLeaseStore, Error> {
        Self::open_with_busy_timeout(path, BUSY_TIMEOUT).await
    }

    /// The same with another bound on the wait for other processes, at least a millisecond. Change it when processes
    /// share the file with long transactions of an application.
    pub async fn open_with_busy_timeout(
        path: impl AsRef<Path>,
        busy_timeout: Duration,
    ) -> Result<SqliteLeaseStore, Error> {
        let path = path.as_ref();
        let options = file(path)?.busy_timeout(busy_timeout.max(Duration::from_millis(1)));
        let create = options.clone().create_if_missing(true);
        schema::prepare(&create, path, busy_timeout.max(Duration::from_millis(1))).await?;
        Ok(Self::opened(path, options, busy_timeout))
    }

    /// Opens the lease store at `path` for those who look at it and steer it: it must be there, and of this version. Nothing is created
    /// and nothing is migrated.
    ///
    /// # Errors
    /// `NotFound` if there is no such file, or no leases are in it; else as for [`SqliteLeaseStore::open`].
    pub async fn open_existing(path: impl AsRef<Path>) -> Result<SqliteLeaseStore, Error> {
        let path = path.as_ref();
        let options = file(path)?.busy_timeout(BUSY_TIMEOUT);
        schema::look(&options, path).await?;
        Ok(Self::opened(path, options, BUSY_TIMEOUT))
    }

    fn opened(path: &Path, options: SqliteConnectOptions, busy_timeout: Duration) -> Self {
        let database = Database {
            path: path.to_owned(),
            writing: options.clone().busy_timeout(Duration::ZERO),
            reading: options,
            writer: Mutex::new(None),
            pulse: Mutex::new(None),
            reader: Mutex::new(None),
        };
        SqliteLeaseStore {
            database: Arc::new(database),
            queue: Arc::new(Queue::new(busy_timeout.max(Duration::from_millis(1)))),
        }
    }
}

/// How the file at `path` is opened; it is not created.
fn file(path: &Path) -> Result<SqliteConnectOptions, Error> {
    if path.as_os_str().is_empty() {
        return Err(Error::new(
            ErrorKind::Configuration,
            "the path of the lease store is empty; give the name of a file, or use MemoryLeaseStore",
        ));
    }
    // SQLite reads `:memory:` and `file:...` as something else than a file of that name.
    let file = if path.is_absolute() {
        path.to_owned()
    } else {
        Path::new(".").join(path)
    };
    Ok(SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(false)
        .synchronous(SqliteSynchronous::Full))
}

impl Database {
    async fn writer(&self) -> Result<MappedMutexGuard<'_, SqliteConnection>, Error> {
        self.connection(&self.writer, &self.writing).await
    }

    async fn pulse(&self) -> Result<MappedMutexGuard<'_, SqliteConnection>, Error> {
        self.connection(&self.pulse, &self.writing).await
    }

    async fn reader(&self) -> Result<MappedMutexGuard<'_, SqliteConnection>, Error> {
        self.connection(&self.reader, &self.reading).await
    }

    /// The connection, anew if it has ended or is stuck in a transaction: on a full disk SQLite rolls back by itself, and the driver
    /// waits for a rollback that never succeeds.
    async fn connection<'a>(
        &'a self,
        place: &'a Mutex<Option<SqliteConnection>>,
        options: &SqliteConnectOptions,
    ) -> Result<MappedMutexGuard<'a, SqliteConnection>, Error> {
        let mut guard = place.lock().await;
        let works = match guard.as_mut() {
            Some(connection) => connection.ping().await.is_ok() && !connection.is_in_transaction(),
            None => false,
        };
        if !works {
            let opened = options.connect().await;
            *guard = Some(opened.map_err(|fault| fault::explain(self.path(), fault))?);
        }
        MutexGuard::try_map(guard, Option::as_mut).map_err(|_| {
            Error::new(
                ErrorKind::Unavailable,
                "the lease store's connection has just ended",
            )
        })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Database {
    /// Performs a verb in a transaction of its own, or fails with `Unavailable` if the file is locked.
    async fn perform<V: Verb>(
        &self,
        mut connection: MappedMutexGuard<'_, SqliteConnection>,
        application: &str,
        verb: &V,
    ) -> Result<V::Answer, Error> {
        let mut transaction = match V::SCOPE {
            Scope::Look => Transaction::look(&mut connection, self.path(), application).await?,
            Scope::Heartbeat | Scope::Lease | Scope::Application => {
                Transaction::write(&mut connection, self.path(), application).await?
            }
        };
        let answer = verb.perform(&mut transaction).await?;
        transaction.commit().await?;
        Ok(answer)
    }
}

impl SqlStore for SqliteLeaseStore {
    async fn perform<V: Verb>(&self, application: &str, verb: &V) -> Result<V::Answer, Error> {
        let database = &self.database;
        match V::SCOPE {
            Scope::Look => {
                let reader = database.reader().await?;
                database.perform(reader, application, verb).await
            }
            Scope::Heartbeat => {
                let beat = || async {
                    let pulse = database.pulse().await?;
                    database.perform(pulse, application, verb).await
                };
                self.queue.at_once(beat).await
            }
            Scope::Lease | Scope::Application => {
                let write = || async {
                    let writer = database.writer().await?;
                    database.perform(writer, application, verb).await
                };
                self.queue.in_turn(write).await
            }
        }
    }
}
