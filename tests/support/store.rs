//! Where a fleet's leases live, and plain connections to it: beside the product, not through it.

use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{
    AssertSqlSafe, ColumnIndex, ConnectOptions, Decode, PgConnection, Row, SqliteConnection, Type,
};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A lease store, as `worker-child --leases` takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// A file.
    Sqlite(PathBuf),
    /// A URL, `postgres://...`.
    Postgres(String),
}

/// A connection to the database of a store.
#[derive(Debug)]
pub enum Connection {
    /// To a file.
    Sqlite(SqliteConnection),
    /// To a server.
    Postgres(PgConnection),
}

/// How long a server may take to accept a connection.
const ANSWER: Duration = Duration::from_secs(5);
/// A file that nobody writes to who stands still is free by then.
const FREE_WITHIN: Duration = Duration::from_secs(1);

impl Store {
    /// What `text` names: a URL, or else a path.
    pub fn parse(text: &str) -> Store {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Store::Postgres(text.to_owned());
        }
        Store::Sqlite(PathBuf::from(text))
    }

    /// A connection for an application's own reading and writing.
    pub async fn connect(&self) -> Result<Connection, sqlx::Error> {
        match self {
            Store::Sqlite(path) => {
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .busy_timeout(Duration::from_secs(20));
                Ok(Connection::Sqlite(options.connect().await?))
            }
            Store::Postgres(url) => Ok(Connection::Postgres(postgres(url).await?)),
        }
    }

    /// A connection that only looks; `None` if there is nothing yet, or nobody answers.
    pub async fn look(&self) -> Option<Connection> {
        match self {
            Store::Sqlite(path) => {
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .busy_timeout(Duration::from_secs(5));
                let connection = options.read_only(true).connect().await.ok()?;
                Some(Connection::Sqlite(connection))
            }
            Store::Postgres(url) => postgres(url).await.ok().map(Connection::Postgres),
        }
    }
}

impl Store {
    /// Whether others can write now. PostgreSQL locks rows only, and ends who stands still with some.
    pub async fn is_free(&self) -> bool {
        let Store::Sqlite(path) = self else {
            return true;
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(FREE_WITHIN);
        let Ok(connection) = options.connect().await else {
            return false;
        };
        let mut connection = Connection::Sqlite(connection);
        let taken = connection.change("BEGIN IMMEDIATE".to_owned()).await;
        taken.is_ok() && connection.change("ROLLBACK".to_owned()).await.is_ok()
    }
}

async fn postgres(url: &str) -> Result<PgConnection, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    // An application's tables are in its own schema, the leases in theirs.
    let options = options.options([("search_path", "public,millstream")]);
    tokio::time::timeout(ANSWER, options.connect())
        .await
        .unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Store::Sqlite(path) => path.display().fmt(f),
            Store::Postgres(url) => f.write_str(url),
        }
    }
}

impl Connection {
    /// The rows of a query of both databases, each as `each` reads it; an error as well if it takes longer than `limit`.
    pub async fn rows<T>(
        &mut self,
        query: &'static str,
        limit: Duration,
        each: impl Fn(&dyn Columns) -> T,
    ) -> Result<Vec<T>, sqlx::Error> {
        let read = async {
            match self {
                Connection::Sqlite(connection) => {
                    let rows = sqlx::query(query).fetch_all(connection).await?;
                    Ok(rows.iter().map(|row| each(row)).collect())
                }
                Connection::Postgres(connection) => {
                    let rows = sqlx::query(query).fetch_all(connection).await?;
                    Ok(rows.iter().map(|row| each(row)).collect())
                }
            }
        };
        tokio::time::timeout(limit, read)
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// Changes rows by a statement of both databases; how many.
    pub async fn change(&mut self, statement: String) -> Result<u64, sqlx::Error> {
        let query = AssertSqlSafe(statement);
        match self {
            Connection::Sqlite(connection) => {
                let done = sqlx::query(query).execute(connection).await?;
                Ok(done.rows_affected())
            }
            Connection::Postgres(connection) => {
                let done = sqlx::query(query).execute(connection).await?;
                Ok(done.rows_affected())
            }
        }
    }
}

/// A row's columns, whichever database it is of.
pub trait Columns {
    /// A text column.
    fn text(&self, name: &str) -> Option<String>;
    /// A number.
    fn number(&self, name: &str) -> i64;
}

impl<R> Columns for R
where
    R: Row,
    for<'n> &'n str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
{
    fn text(&self, name: &str) -> Option<String> {
        self.get(name)
    }

    fn number(&self, name: &str) -> i64 {
        self.get(name)
    }
}
