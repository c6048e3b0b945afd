//! A look at the leases that costs little while nothing has changed: the store tells whether they are as they were.

use super::{Snapshot, WorkerRow};

/// Stands for a state of an application's leases, checkpoints left out. Only the store that gave it can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(pub(crate) String);

impl Mark {
    /// A mark of a store of your own: two states that differ in anything but checkpoints and workers must have different ones.
    pub fn new(state: impl Into<String>) -> Self {
        Mark(state.into())
    }
}

/// What a look has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Glance {
    /// The leases are those that the mark was given with, but for checkpoints that have moved on.
    Same {
        /// The workers as they are now.
        workers: Vec<WorkerRow>,
    },
    /// They are others, or the store does not know.
    Changed {
        /// Stands for them in the next look; `None` if the store knows no marks.
        mark: Option<Mark>,
        /// All of it.
        snapshot: Snapshot,
    },
}
