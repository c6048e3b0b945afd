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

use super::rules::{self, Outcome};
use super::{
    Ask, Claim, Lease, LeaseKey, LeaseStore, LeaseToken, Loads, NewLease, PendingCheckpoint,
    Registration, Release, Snapshot, WorkerProfile, WorkerRow,
};
use crate::checkpoint::Position;
use crate::error::{Error, ErrorKind};
use async_trait::async_trait;
use queue::Queue;
use sqlx::sqlite::{SqliteConnectOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};
use transaction::{Run, Transaction};

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
        let busy_timeout = busy_timeout.max(Duration::from_millis(1));
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .busy_timeout(busy_timeout)
            .synchronous(SqliteSynchronous::Full);
        let reading = options.clone().create_if_missing(false);
        let database = Database {
            path: path.to_owned(),
            writing: reading.clone().busy_timeout(Duration::ZERO),
            reading,
            writer: Mutex::new(None),
            pulse: Mutex::new(None),
            reader: Mutex::new(None),
        };
        schema::prepare(&options, path, busy_timeout).await?;
        Ok(SqliteLeaseStore {
            database: Arc::new(database),
            queue: Arc::new(Queue::new(busy_timeout)),
        })
    }
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

    /// The connection, anew if it has ended.
    async fn connection<'a>(
        &'a self,
        place: &'a Mutex<Option<SqliteConnection>>,
        options: &SqliteConnectOptions,
    ) -> Result<MappedMutexGuard<'a, SqliteConnection>, Error> {
        let mut guard = place.lock().await;
        let works = match guard.as_mut() {
            Some(connection) => connection.ping().await.is_ok(),
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

impl Transaction<'_> {
    async fn require(&mut self, worker: &Registration) -> Result<(), Error> {
        match self.current(worker).await? {
            Some(_) => Ok(()),
            None => Err(rules::replaced(worker)),
        }
    }

    async fn forget(&mut self, worker_id: &str) -> Result<(), Error> {
        for key in self.leases_of(worker_id).await? {
            if let Some(lease) = self.lease(&key).await?
                && let Some(without) = rules::forget_worker(&lease, worker_id)
            {
                self.replace(&lease, &without).await?;
            }
        }
        Ok(())
    }

    async fn holds_any(&mut self, worker_id: &str) -> Result<bool, Error> {
        for key in self.leases_of(worker_id).await? {
            if let Some(lease) = self.lease(&key).await?
                && lease.owner.as_deref() == Some(worker_id)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The verbs of [`LeaseStore`], each one transaction, or `Unavailable` if the file is locked.
impl Database {
    async fn register(
        &self,
        application: &str,
        worker_id: &str,
        profile: &WorkerProfile,
    ) -> Result<Registration, Error> {
        let incarnation = rules::new_incarnation()?;
        let mut writer = self.writer().await?;
        let mut transaction = Transaction::write(&mut writer, self.path(), application).await?;
        let earlier = transaction.run(worker_id).await?.map(|run| run.heartbeat);
        let heartbeat = rules::first_heartbeat(earlier, incarnation);
        transaction.forget(worker_id).await?;
        let run = Run {
            incarnation,
            heartbeat,
        };
        transaction.put_run(worker_id, run, profile).await?;
        transaction.commit().await?;
        Ok(Registration {
            worker_id: worker_id.to_owned(),
            incarnation,
        })
    }

    async fn heartbeat(
        &self,
        application: &str,
        worker: &Registration,
        loads: &Loads,
    ) -> Result<(), Error> {
        let mut pulse = self.pulse().await?;
        let mut transaction = Transaction::write(&mut pulse, self.path(), application).await?;
        let Some(run) = transaction.current(worker).await? else {
            return Err(rules::replaced(worker));
        };
        let next = run.heartbeat.wrapping_add(1);
        transaction.beat(&worker.worker_id, next, loads).await?;
        transaction.commit().await
    }

    async fn deregister(&self, application: &str, worker: &Registration) -> Result<(), Error> {
        let mut writer = self.writer().await?;
        let mut transaction = Transaction::write(&mut writer, self.path(), application).await?;
        if transaction.current(worker).await?.is_none() {
            return Ok(());
        }
        transaction.forget(&worker.worker_id).await?;
        transaction.delete_run(&worker.worker_id).await?;
        transaction.commit().await
    }

    async fn forget_workers(&self, application: &str, dead: &[WorkerRow]) -> Result<(), Error> {
        let mut writer = self.writer().await?;
        let mut transaction = Transaction::write(&mut writer, self.path(), application).await?;
        for row in dead {
            let run = transaction.run(&row.worker_id).await?;
            let unchanged = run.is_some_and(|run| run.heartbeat == row.heartbeat);
            if unchanged && !transaction.holds_any(&row.worker_id).await? {
                transaction.forget(&row.worker_id).await?;
                transaction.delete_run(&row.worker_id).await?;
            }
        }
        transaction.commit().await
    }

    async fn snapshot(&self, application: &str) -> Result<Snapshot, Error> {
        let mut reader = self.reader().await?;
        let mut transaction = Transaction::read(&mut reader, self.path(), application).await?;
        let (leases, damaged) = transaction.leases().await?;
        let workers = transaction.workers().await?;
        transaction.commit().await?;
        Ok(Snapshot {
            leases,
            workers,
            damaged,
        })
    }

    async fn lease(&self, application: &str, key: &LeaseKey) -> Result<Option<Lease>, Error> {
        let mut reader = self.reader().await?;
        let mut transaction = Transaction::read(&mut reader, self.path(), application).await?;
        let lease = transaction.lease(key).await?;
        transaction.commit().await?;
        Ok(lease)
    }

    async fn create_leases(&self, application: &str, leases: &[NewLease]) -> Result<usize, Error> {
        let mut writer = self.writer().await?;
        let mut transaction = Transaction::write(&mut writer, self.path(), application).await?;
        let mut created = 0;
        for new in leases {
            created += usize::from(transaction.create(new).await?);
        }
        transaction.commit().await?;
        Ok(created)
    }

    async fn take(
        &self,
        application: &str,
        worker: &Registration,
        claims: &[Claim],
    ) -> Result<Vec<Lease>, Error> {
        let mut writer = self.writer().await?;
        let mut transaction = Transaction::write(&mut writer, self.path(), application).await?;
        transaction.require(worker).await?;
        let mut taken = Vec::new();
        let mut seen = BTreeSet::new();
        for claim in claims.iter().filter(|claim| seen.insert(&claim.key)) {
            let Some(lease) = transaction.lease(&claim.key).await? else {
                continue;
            };
            let around = transaction.surroundings(&lease).await?;
            match rules::take(&lease, claim, &worker.worker_id, around) {
                Outcome::Write(won) => {
                    transaction.replace(&lease, &won).await?;
                    taken.push(won);
                }
                Outcome::Done => taken.push(lease),
                Outcome::Refused => {}
            }
        }
        transaction.commit().await?;
        Ok(taken)
    }

    async fn ask(
        &self,
        application: &str,
        worker: &Registration,
        asks: &[Ask],
    ) -> Result<usize, Error> {
        let mut writer = self.writer().await?;
        let mut transaction = Transaction::write(&mut writer, self.path(), application).await?;
        transaction.require(worker).await?;
        let mut asked = 0;
        for ask in asks {
            let Some(lease) = transaction.lease(&ask.key).await? else {
                continue;
            };
            match rules::ask(&lease, ask, &worker.worker_id) {
                Outcome::Write(wanted) => transaction.replace(&lease, &wanted).await?,
                Outcome::Done => {}
                Outcome::Refused => continue,
            }
            asked += 1;
        }
        transaction.commit().await?;
        Ok(asked)
    }

    async fn checkpoint(
        &self,
        application: &str,
        token: &LeaseToken,
        position: &Position,
    ) -> Result<(), Error> {
        let mut writer = self.writer().await?;
        let mut transaction = Transaction::write(&mut writer, self.path(), application).await?;
        let Some(lease) = transaction.lease(&token.key).await? else {
            return Err(rules::lost(token, None));
        };
        let moved = rules::checkpoint(&lease, token, position)?;
        transaction.replace(&lease, &moved).await?;
        transaction.commit().await
    }

    async fn prepare(
        &self,
        application: &str,
        token: &LeaseToken,
        pending: &PendingCheckpoint,
    ) -> Result<(), Error> {
        let mut writer = self.writer().await?;
        let mut transaction = Transaction::write(&mut writer, self.path(), application).await?;
        let Some(lease) = transaction.lease(&token.key).await? else {
            return Err(rules::lost(token, None));
        };
        let noted = rules::prepare(&lease, token, pending)?;
        transaction.replace(&lease, &noted).await?;
        transaction.commit().await
    }

    async fn end_shard(
        &self,
        application: &str,
        token: &LeaseToken,
        children: &[NewLease],
    ) -> Result<(), Error> {
        let mut writer = self.writer().await?;
        let mut transaction = Transaction::write(&mut writer, self.path(), application).await?;
        let Some(lease) = transaction.lease(&token.key).await? else {
            return Err(rules::lost(token, None));
        };
        let Outcome::Write(ended) = rules::end_shard(&lease, token)? else {
            return Ok(());
        };
        transaction.replace(&lease, &ended).await?;
        for child in children {
            transaction.create(child).await?;
        }
        transaction.commit().await
    }

    async fn release(&self, application: &str, releases: &[Release]) -> Result<usize, Error> {
        let mut writer = self.writer().await?;
        let mut transaction = Transaction::write(&mut writer, self.path(), application).await?;
        let mut released = 0;
        for release in releases {
            let Some(lease) = transaction.lease(&release.token.key).await? else {
                continue;
            };
            let to = match &release.to {
                Some(to) => transaction.run(to).await?.and(Some(to.as_str())),
                None => None,
            };
            if let Outcome::Write(given_up) = rules::release(&lease, release, to)? {
                transaction.replace(&lease, &given_up).await?;
                released += 1;
            }
        }
        transaction.commit().await?;
        Ok(released)
    }

    async fn delete_ended(&self, application: &str, keys: &[LeaseKey]) -> Result<usize, Error> {
        let mut writer = self.writer().await?;
        let mut transaction = Transaction::write(&mut writer, self.path(), application).await?;
        let mut deleted = 0;
        for key in keys {
            if transaction
                .lease(key)
                .await?
                .as_ref()
                .is_some_and(rules::is_ended)
            {
                transaction.delete_lease(key).await?;
                deleted += 1;
            }
        }
        transaction.commit().await?;
        Ok(deleted)
    }
}

#[async_trait]
impl LeaseStore for SqliteLeaseStore {
    async fn register(
        &self,
        application: &str,
        worker_id: &str,
        profile: &WorkerProfile,
    ) -> Result<Registration, Error> {
        self.queue
            .in_turn(|| self.database.register(application, worker_id, profile))
            .await
    }

    async fn heartbeat(
        &self,
        application: &str,
        worker: &Registration,
        loads: &Loads,
    ) -> Result<(), Error> {
        self.queue
            .at_once(|| self.database.heartbeat(application, worker, loads))
            .await
    }

    async fn deregister(&self, application: &str, worker: &Registration) -> Result<(), Error> {
        self.queue
            .in_turn(|| self.database.deregister(application, worker))
            .await
    }

    async fn forget_workers(&self, application: &str, dead: &[WorkerRow]) -> Result<(), Error> {
        self.queue
            .in_turn(|| self.database.forget_workers(application, dead))
            .await
    }

    async fn snapshot(&self, application: &str) -> Result<Snapshot, Error> {
        self.database.snapshot(application).await
    }

    async fn lease(&self, application: &str, key: &LeaseKey) -> Result<Option<Lease>, Error> {
        self.database.lease(application, key).await
    }

    async fn create_leases(&self, application: &str, leases: &[NewLease]) -> Result<usize, Error> {
        self.queue
            .in_turn(|| self.database.create_leases(application, leases))
            .await
    }

    async fn take(
        &self,
        application: &str,
        worker: &Registration,
        claims: &[Claim],
    ) -> Result<Vec<Lease>, Error> {
        self.queue
            .in_turn(|| self.database.take(application, worker, claims))
            .await
    }

    async fn ask(
        &self,
        application: &str,
        worker: &Registration,
        asks: &[Ask],
    ) -> Result<usize, Error> {
        self.queue
            .in_turn(|| self.database.ask(application, worker, asks))
            .await
    }

    async fn checkpoint(
        &self,
        application: &str,
        token: &LeaseToken,
        position: &Position,
    ) -> Result<(), Error> {
        self.queue
            .in_turn(|| self.database.checkpoint(application, token, position))
            .await
    }

    async fn prepare(
        &self,
        application: &str,
        token: &LeaseToken,
        pending: &PendingCheckpoint,
    ) -> Result<(), Error> {
        self.queue
            .in_turn(|| self.database.prepare(application, token, pending))
            .await
    }

    async fn end_shard(
        &self,
        application: &str,
        token: &LeaseToken,
        children: &[NewLease],
    ) -> Result<(), Error> {
        self.queue
            .in_turn(|| self.database.end_shard(application, token, children))
            .await
    }

    async fn release(&self, application: &str, releases: &[Release]) -> Result<usize, Error> {
        self.queue
            .in_turn(|| self.database.release(application, releases))
            .await
    }

    async fn delete_ended(&self, application: &str, keys: &[LeaseKey]) -> Result<usize, Error> {
        self.queue
            .in_turn(|| self.database.delete_ended(application, keys))
            .await
    }
}
