//! What SQLite reports, as this crate's error: which file, and what to do about it.
//!
//! Source of the codes: <https://www.sqlite.org/rescode.html>; the low byte is the primary code.

use crate::error::{Error, ErrorKind};
use sqlx::error::DatabaseError;
use std::path::Path;

const PRIMARY_CODE: i32 = 0xff;

/// The error of an operation on the lease store at `path`.
pub(super) fn explain(path: &Path, fault: sqlx::Error) -> Error {
    let code = fault
        .as_database_error()
        .and_then(DatabaseError::code)
        .and_then(|code| code.parse::<i32>().ok());
    let (kind, advice) = match code {
        Some(code) => advice(code & PRIMARY_CODE),
        None => match &fault {
            sqlx::Error::WorkerCrashed => (
                ErrorKind::Unavailable,
                "its connection has ended; the next call opens a new one",
            ),
            sqlx::Error::Io(_) => (
                ErrorKind::Configuration,
                "the path cannot be given to SQLite; use one that is valid UTF-8 without NUL bytes",
            ),
            _ => (
                ErrorKind::Store,
                "a row or a table is not as this version writes it",
            ),
        },
    };
    Error::with_source(
        kind,
        format!("lease store {}: {advice}", path.display()),
        fault,
    )
}

/// Whether the file was locked by another connection, so that nothing was done.
pub(super) fn is_busy(error: &Error) -> bool {
    let fault = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    let code = fault
        .and_then(sqlx::Error::as_database_error)
        .and_then(DatabaseError::code)
        .and_then(|code| code.parse::<i32>().ok());
    matches!(code.map(|code| code & PRIMARY_CODE), Some(5 | 6))
}

fn advice(primary_code: i32) -> (ErrorKind, &'static str) {
    match primary_code {
        5 | 6 => (
            ErrorKind::Unavailable,
            "another process kept it locked for longer than the busy timeout; end that process's transaction or try again",
        ),
        13 => (ErrorKind::Unavailable, "the disk is full; free some space"),
        10 => (
            ErrorKind::Unavailable,
            "reading or writing failed; check the disk",
        ),
        7 | 9 | 15 => (ErrorKind::Unavailable, "SQLite could not finish; try again"),
        3 | 8 | 23 => (
            ErrorKind::Store,
            "it cannot be written; give this user write access to the file and its directory, and do not move the file while it is open",
        ),
        14 => (
            ErrorKind::Store,
            "it cannot be opened; check that the directory exists, that the path is a file, and that this user may write both",
        ),
        26 => (
            ErrorKind::Store,
            "it is not an SQLite database; nothing was touched; use another path",
        ),
        11 => (
            ErrorKind::Store,
            "the database is damaged; restore it from a backup or use another path",
        ),
        _ => (ErrorKind::Store, "SQLite refused; see the cause"),
    }
}
