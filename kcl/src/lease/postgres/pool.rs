//! A few connections: opened when they are needed, used again after a call that went well, closed after any other.
//!
//! A call that is dropped half-way leaves its connection in a state that nobody knows, so that one is closed too, and the server
//! ends its transaction.

use super::fault::Place;
use crate::error::{Error, ErrorKind};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The options with which this store opens its connections.
pub(super) fn ours(options: PgConnectOptions) -> PgConnectOptions {
    let options = options.disable_statement_logging();
    match options.get_application_name() {
        Some(_) => options,
        None => options.application_name("millstream kcl"),
    }
}

/// Opens a connection.
pub(super) async fn open(options: &PgConnectOptions, place: &Place) -> Result<PgConnection, Error> {
    let opened = options.connect().await;
    opened.map_err(|fault| place.explain(fault))
}

/// Connections to one database.
pub(super) struct Pool {
    options: PgConnectOptions,
    place: Place,
    size: Semaphore,
    /// Those that are not in use; a std mutex around plain data, never held across an await.
    idle: Mutex<Vec<PgConnection>>,
}

impl Pool {
    pub(super) fn new(options: PgConnectOptions, place: Place, size: usize) -> Self {
        Pool {
            options,
            place,
            size: Semaphore::new(size),
            idle: Mutex::default(),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<PgConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection, in fair order if all are in use.
    pub(super) async fn connection(&self) -> Result<Borrowed<'_>, Error> {
        let permit =
            self.size.acquire().await.map_err(|_| {
                Error::new(ErrorKind::Unavailable, "the lease store has been closed")
            })?;
        let used = self.idle().pop();
        let is_used = used.is_some();
        let inner = match used {
            Some(connection) => connection,
            None => open(&self.options, &self.place).await?,
        };
        Ok(Borrowed {
            inner,
            is_used,
            pool: self,
            _permit: permit,
        })
    }

    /// Connections that could be had at once.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.size.available_permits()
    }

    /// Closes what is not in use.
    pub(super) fn forget(&self) {
        self.idle().clear();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("place", &self.place)
            .field("idle", &self.idle().len())
            .finish_non_exhaustive()
    }
}

/// A connection in use; closed unless it is given back.
pub(super) struct Borrowed<'a> {
    pub(super) inner: PgConnection,
    /// It has come through an earlier call, and may have ended since.
    pub(super) is_used: bool,
    pool: &'a Pool,
    _permit: SemaphorePermit<'a>,
}

impl Borrowed<'_> {
    pub(super) fn give_back(self) {
        self.pool.idle().push(self.inner);
    }
}
