//! The SQLite store alone: files it must refuse, and rows it must survive.
