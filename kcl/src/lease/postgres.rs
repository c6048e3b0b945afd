//! Leases in a PostgreSQL database that any number of processes share.
//!
//! Transactions are READ COMMITTED. A verb that may touch any row of its application has the application's lock, so that those run one after
//! the other, as in SQLite; checkpoints and heartbeats lock one row. Every call is bounded: what waits longer ends with
//! `Unavailable`, and its connection is closed.

mod fault;
mod offered;
mod pool;
mod schema;
#[cfg(test)]
mod tests;
mod transaction;

use super::sql::{Scope, SqlStore, Verb};
use crate::clock;
use crate::error::{Error, ErrorKind};
use fault::Place;
use pool::Pool;
use sqlx::postgres::PgConnectOptions;
use std::sync::Arc;
use std::time::Duration;
use transaction::{Begin, Transaction};

/// How long a call may take. A third of the default fail-over time: a heartbeat that takes longer is overdue anyway.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Connections for all calls but heartbeats. Most calls wait for each other in the database anyway.
const CONNECTIONS: usize = 4;
/// Pause before a call that collided with another transaction is made again; at random, so that two do not stay in step.
const AGAIN_MS: std::ops::RangeInclusive<u64> = 1..=10;

/// A lease store in a PostgreSQL database, in the tables of its schema `millstream`. Clones share their connections.
///
/// One database serves any number of applications and processes; PostgreSQL 12 or newer. Where `synchronous_commit` is off,
/// the store turns it on for its own transactions: a checkpoint that was answered survives a crash of the server. What it
/// sets, it sets for one transaction, so that a pooler may give its sessions to others.
#[derive(Debug, Clone)]
pub struct PostgresLeaseStore {
    place: Place,
    timeout: Duration,
    begin: Begin,
    /// For heartbeats, which nothing in this process may hold up.
    pulse: Arc<Pool>,
    /// For everything else.
    rest: Arc<Pool>,
}

impl PostgresLeaseStore {
    /// Connects to the database that `url` names and creates the tables if they are not there. Older tables are migrated.
    ///
    /// The form is `postgres://user:password@host:port/database?sslmode=verify-full&sslrootcert=ca.pem`. `sslmode` is `prefer` unless given:
    /// encrypted if the server can, but without a look at its certificate; across a network use `verify-full`. What the URL leaves out
    /// comes from `PGHOST`, `PGUSER`, `PGPASSWORD` and the like, and from `~/.pgpass`.
    /// A pooler that gives sessions to others after each transaction must know prepared statements, as `PgBouncer` does since version
    /// 1.21 (`max_prepared_statements`).
    ///
    /// # Errors
    /// `Configuration` if the URL is not one, there is no such database, or TLS does not come about; `AccessDenied` if the user may not
    /// come in or may not create the tables; `Unavailable` if the server does not answer within three seconds; `Store` if the tables are not
    /// of a version that this program knows (then nothing was touched).
    pub async fn connect(url: &str) -> Result<PostgresLeaseStore, Error> {
        Self::connect_with(options_of(url)?, TIMEOUT).await
    }

    /// Connects for those who look at a lease store and steer it: its tables must be there, and of this version. Nothing is created and
    /// nothing is migrated.
    ///
    /// # Errors
    /// `NotFound` if no leases are in the database; else as for [`PostgresLeaseStore::connect`].
    pub async fn connect_existing(url: &str) -> Result<PostgresLeaseStore, Error> {
        let options = options_of(url)?;
        let place = Place::of(&options);
        let (options, begin) = (pool::ours(options), Begin::with(TIMEOUT));
        schema::look(&options, &place, &begin, TIMEOUT).await?;
        Ok(Self::connected(options, place, begin, TIMEOUT))
    }

    /// The same with options of the SQL library, and with another bound on how long a call may take, at least ten milliseconds. It should be
    /// well below the fail-over time. Change it for fail-over times far from ten seconds, or for databases that are far away.
    ///
    /// # Errors
    /// As for [`PostgresLeaseStore::connect`].
    pub async fn connect_with(
        options: PgConnectOptions,
        timeout: Duration,
    ) -> Result<PostgresLeaseStore, Error> {
        let timeout = timeout.max(Duration::from_millis(10));
        let place = Place::of(&options);
        let (options, begin) = (pool::ours(options), Begin::with(timeout));
        schema::prepare(&options, &place, &begin, timeout).await?;
        Ok(Self::connected(options, place, begin, timeout))
    }

    fn connected(options: PgConnectOptions, place: Place, begin: Begin, timeout: Duration) -> Self {
        let pool = |size| Arc::new(Pool::new(options.clone(), place.clone(), size));
        PostgresLeaseStore {
            begin,
            pulse: pool(1),
            rest: pool(CONNECTIONS),
            place,
            timeout,
        }
    }

    fn pool(&self, scope: Scope) -> &Pool {
        match scope {
            Scope::Heartbeat => &self.pulse,
            Scope::Look | Scope::Lease | Scope::Application => &self.rest,
        }
    }

    /// Performs a verb in one transaction; a connection that came through it is used again.
    async fn attempt<V: Verb>(&self, application: &str, verb: &V) -> Result<V::Answer, Failure> {
        let mut connection = self.pool(V::SCOPE).connection().await?;
        let is_used = connection.is_used;
        let failed = |error: Error| Failure {
            again: fault::left_no_trace(&error) || is_used && fault::is_gone(&error),
            error,
        };
        let begun = Transaction::begin(
            &mut connection.inner,
            &self.begin,
            V::SCOPE,
            &self.place,
            application,
        )
        .await;
        let mut transaction = begun.map_err(failed)?;
        match verb.perform(&mut transaction).await {
            Ok(answer) => {
                // Whether a commit whose answer was lost has happened nobody knows; the caller may find out by repeating it (K12).
                transaction.commit().await.map_err(|error| Failure {
                    again: fault::left_no_trace(&error),
                    error,
                })?;
                connection.give_back();
                Ok(answer)
            }
            Err(error) => {
                let failure = failed(error);
                // Locks are held until the server has read the end of the transaction, so this waits for it.
                if transaction.rollback().await.is_ok() {
                    connection.give_back();
                }
                Err(failure)
            }
        }
    }

    async fn again_and_again<V: Verb>(
        &self,
        application: &str,
        verb: &V,
    ) -> Result<V::Answer, Error> {
        loop {
            match self.attempt(application, verb).await {
                Ok(answer) => return Ok(answer),
                Err(Failure { error, again: true }) => {
                    tracing::debug!(%error, "a call on the lease store is made again");
                    if fault::is_gone(&error) {
                        self.pool(V::SCOPE).forget();
                    }
                }
                Err(Failure {
                    error,
                    again: false,
                }) => return Err(error),
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(AGAIN_MS))).await;
        }
    }
}

fn options_of(url: &str) -> Result<PgConnectOptions, Error> {
    // The text of a URL may hold a password and goes nowhere.
    url.parse().map_err(|source: sqlx::Error| {
        Error::with_source(
            ErrorKind::Configuration,
            "the URL of the lease store is not one of PostgreSQL; write it as postgres://user:password@host:port/database",
            source,
        )
    })
}

/// An attempt that failed.
struct Failure {
    error: Error,
    /// Nothing has happened, and the next attempt may go better.
    again: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure {
            error,
            again: false,
        }
    }
}

impl SqlStore for PostgresLeaseStore {
    async fn perform<V: Verb>(&self, application: &str, verb: &V) -> Result<V::Answer, Error> {
        let deadline = clock::now() + self.timeout;
        let call = self.again_and_again(application, verb);
        if let Ok(ended) = tokio::time::timeout_at(deadline, call).await {
            return ended;
        }
        // Whatever holds up one connection may hold up all: the next call opens a new one.
        self.pulse.forget();
        self.rest.forget();
        Err(self.place.late(self.timeout))
    }
}
