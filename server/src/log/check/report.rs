//! What a check finds, as data: for the plan of a repair, and for whoever prints it.

use crate::log::LogShard;
use crate::log::segment;

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file's name in the directory.
    pub file: String,
    /// The segment's number, where it is one.
    pub segment: Option<u64>,
    /// Where in the file it begins.
    pub offset: u64,
    /// Where it ends, as far as that can be told; the same as `offset` where nothing is there.
    pub end: u64,
    /// What does not hold.
    pub problem: String,
    /// Records that cannot be read because of it.
    pub lost: Vec<Lost>,
    /// More records may be lost with it, of shards of which nothing comes later.
    pub is_open: bool,
    /// What it means for streams, shards and settings.
    pub changes: Changes,
    /// What can be done.
    pub remedy: Remedy,
}

/// Records of a shard that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Whose.
    pub shard: LogShard,
    /// The first counter.
    pub first: u64,
    /// One more than the last.
    pub end: u64,
    /// How many; `None` if only the bounds are known, between which there may have been none.
    pub records: Option<u64>,
}

/// Whether a change of metadata may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    /// No: what was changed here is known from elsewhere.
    Kept,
    /// It cannot be excluded.
    MayBeLost,
    /// Changes are lost.
    Lost,
}

/// What can be done about a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// A repair makes it good and loses nothing.
    Mend,
    /// A repair goes on without what is lost.
    Drop,
    /// The file has another segment's name; under its own nothing is lost.
    Rename {
        /// What it should be called.
        to: String,
    },
    /// Only a copy helps.
    Restore {
        /// Why a repair cannot.
        why: &'static str,
    },
}

/// Something worth knowing that is no damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The file's name in the directory.
    pub file: String,
    /// Where in the file.
    pub offset: u64,
    /// What it is, and what the next start does about it.
    pub text: String,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Segments with a number.
    pub segments: u64,
    /// Those of them that were rewritten.
    pub rewritten: u64,
    /// Shards that there are at the end of the log.
    pub shards: u64,
    /// Records whose checksums hold.
    pub records: u64,
    /// Transactions whose checksums hold.
    pub transactions: u64,
    /// Bytes that were read.
    pub bytes: u64,
}

impl Finding {
    /// One that costs nothing, until something is added.
    pub(crate) fn new(number: u64, offset: u64, end: u64, problem: impl Into<String>) -> Finding {
        Finding {
            file: segment::name(number),
            segment: Some(number),
            offset,
            end,
            problem: problem.into(),
            lost: Vec::new(),
            is_open: false,
            changes: Changes::Kept,
            remedy: Remedy::Mend,
        }
    }

    pub(crate) fn lose(&mut self, lost: Lost) {
        self.lost.push(lost);
        if self.remedy == Remedy::Mend {
            self.remedy = Remedy::Drop;
        }
    }

    pub(crate) fn lose_changes(&mut self, changes: Changes) {
        if self.changes != Changes::Lost {
            self.changes = changes;
        }
        if self.remedy == Remedy::Mend {
            self.remedy = Remedy::Drop;
        }
    }
}
