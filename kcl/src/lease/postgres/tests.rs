//! The PostgreSQL store alone.
