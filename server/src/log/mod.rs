//! Durable bytes in one order; knows no streams. Format and invariants: `docs/0001-log.md`.
