//! What PostgreSQL reports, as this crate's error: which database, and what to do about it.
//!
//! Source of the codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>; the first two characters are the class.

use crate::error::{Error, ErrorKind};
use sqlx::error::DatabaseError;
use sqlx::postgres::PgConnectOptions;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

/// Which database errors are about: host, port and name, without user and password.
#[derive(Debug, Clone)]
pub(super) struct Place(Arc<str>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Place {
    pub(super) fn of(options: &PgConnectOptions) -> Self {
        let database = options.get_database().unwrap_or(options.get_username());
        let server = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        Place(format!("lease store postgres://{server}/{database}").into())
    }

    /// The database of an application's own transaction.
    pub(super) fn of_transaction() -> Self {
        Place("lease store in the transaction's database".into())
    }

    /// The error of an operation.
    pub(super) fn explain(&self, fault: sqlx::Error) -> Error {
        let (kind, advice) = match fault.as_database_error().and_then(DatabaseError::code) {
            Some(code) => advice(&code),
            None => connection_advice(&fault),
        };
        Error::with_source(kind, format!("{self}: {advice}"), fault)
    }

    /// A call took too long.
    pub(super) fn late(&self, timeout: Duration) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            format!(
                "{self}: no answer within {timeout:?}, it may have done the call or not; it is out of reach or busy, or another transaction holds what the call needs; the next call opens a new connection"
            ),
        )
    }
}

fn cause(error: &Error) -> Option<&sqlx::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

fn code(error: &Error) -> Option<String> {
    let code = cause(error)?.as_database_error()?.code()?;
    Some(code.into_owned())
}

/// Whether the transaction collided with another one and was undone: could not be serialized, a deadlock, a lock not to be had.
pub(super) fn left_no_trace(error: &Error) -> bool {
    matches!(code(error).as_deref(), Some("40001" | "40P01" | "55P03"))
}

/// Whether the connection has ended, or the server behind it is about to. A call that had not yet committed has not happened.
pub(super) fn is_gone(error: &Error) -> bool {
    match code(error) {
        // Shut down, crashed, or ended because it was idle; a standby that was the primary once.
        Some(code) => {
            code.starts_with("08") || code.starts_with("57P") || code == "25P03" || code == "25006"
        }
        None => matches!(
            cause(error),
            Some(sqlx::Error::Io(_) | sqlx::Error::Protocol(_))
        ),
    }
}

fn connection_advice(fault: &sqlx::Error) -> (ErrorKind, &'static str) {
    const TLS: (ErrorKind, &str) = (
        ErrorKind::Configuration,
        "no TLS connection came about; check sslmode and sslrootcert in the URL, and the server's certificate",
    );
    match fault {
        // What rustls makes of a handshake that it refuses.
        sqlx::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => TLS,
        sqlx::Error::Tls(_) => TLS,
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::BeginFailed => (
            ErrorKind::Unavailable,
            "the server is out of reach or has closed the connection; the next call opens a new one",
        ),
        sqlx::Error::Configuration(_) => (
            ErrorKind::Configuration,
            "the options of the connection cannot be used",
        ),
        _ => (
            ErrorKind::Store,
            "a row or a table is not as this version writes it",
        ),
    }
}

fn advice(code: &str) -> (ErrorKind, &'static str) {
    match code {
        "42501" => (
            ErrorKind::AccessDenied,
            "the user may not do this; let an administrator run CREATE SCHEMA millstream AUTHORIZATION with the user's name, or grant the user the schema and its tables",
        ),
        "55P03" => (
            ErrorKind::Unavailable,
            "another transaction holds the lease; if it is one of the application, end it sooner",
        ),
        "57014" | "25P03" | "25P04" => (
            ErrorKind::Unavailable,
            "it took too long and was ended; the server is busy, or another transaction holds what the call needs",
        ),
        "25006" => (
            ErrorKind::Unavailable,
            "the server only reads, as a standby does; connect to the primary",
        ),
        "26000" | "42P05" => (
            ErrorKind::Configuration,
            "a pooler gives this connection sessions with other prepared statements; have it know them (PgBouncer: max_prepared_statements), or connect past it",
        ),
        _ => class_advice(code.get(..2).unwrap_or(code)),
    }
}

fn class_advice(class: &str) -> (ErrorKind, &'static str) {
    match class {
        "08" | "57" => (
            ErrorKind::Unavailable,
            "the server is starting, stopping or out of reach; the next call opens a new connection",
        ),
        "40" => (
            ErrorKind::Unavailable,
            "the transaction collided with another one; try again",
        ),
        "53" | "55" | "58" => (
            ErrorKind::Unavailable,
            "the server could not do it for want of connections, memory or disk; see the cause",
        ),
        "28" => (
            ErrorKind::AccessDenied,
            "the server does not let this user in; check user and password in the URL, and the server's pg_hba.conf",
        ),
        "3D" => (
            ErrorKind::Configuration,
            "there is no such database; create it, or name another one in the URL",
        ),
        "22" => (
            ErrorKind::Configuration,
            "a name holds characters that the database cannot store; use a database with encoding UTF8, and names without NUL characters",
        ),
        "3F" | "42" => (
            ErrorKind::Store,
            "the tables of the schema millstream are not there, or not as this version made them",
        ),
        "XX" => (
            ErrorKind::Store,
            "the database is damaged; restore it from a backup",
        ),
        _ => (ErrorKind::Store, "PostgreSQL refused; see the cause"),
    }
}
