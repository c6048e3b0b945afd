//! What a repair does about the findings of a check, and doing it: one file after the other, each written whole under another name
//! first. Why and how: `docs/0012-check-and-repair.md`.

use std::io;

use crate::log::check::{Checked, Remedy};
use crate::log::disk::Disk;
use crate::log::entry::TRAILER_BYTES;
use crate::log::extent::Index;
use crate::log::frame::{HEADER_BYTES, Magic, Place};
use crate::log::index::Sealed;
use crate::log::pace::Pace;
use crate::log::packed::Compression;
use crate::log::packed_index::PackedIndex;
use crate::log::plan::SeededBug;
use crate::log::recovery::read_whole;
use crate::log::rewrite::Rewrite;
use crate::log::segment::{self, REWRITE, SPARE, as_u64};
use crate::log::spare;
use crate::log::{Error, Format, Metadata};

/// A segment that goes on after a damaged one has room for a while.
const NEXT_SEGMENT_BYTES: u64 = if cfg!(test) { 4 << 10 } else { 1 << 20 };

/// One step of a repair.
#[derive(Debug)]
pub(crate) enum Action {
    /// A file that is a copy of another one under a wrong number.
    Remove { number: u64 },
    /// Bytes that cover nothing.
    Zero {
        number: u64,
        ranges: Vec<(usize, usize)>,
    },
    /// Becomes a rewritten segment with what holds.
    Rebuild {
        number: u64,
        index: Index,
        place: Place,
    },
    /// Is missing, and becomes a rewritten segment without records.
    Fill {
        number: u64,
        index: PackedIndex,
        place: Place,
    },
    /// The log goes on in a segment that begins with this snapshot.
    Continue { number: u64, frames: Vec<u8> },
}

impl Action {
    /// The segment, and what becomes of it.
    fn describe(&self) -> (u64, Step) {
        match self {
            Action::Remove { number } => (*number, Step::Remove),
            Action::Zero { number, .. } => (*number, Step::Clean),
            Action::Rebuild { number, .. } => (*number, Step::Rewrite),
            Action::Fill { number, .. } => (*number, Step::Fill),
            Action::Continue { number, .. } => (*number, Step::Begin),
        }
    }
}

/// What becomes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is a copy of another one, and is taken away.
    Remove,
    /// Padding is zeroed.
    Clean,
    /// It is rewritten with what holds of it.
    Rewrite,
    /// It is missing; one without records takes its place.
    Fill,
    /// The log goes on in it.
    Begin,
}

impl<M: Metadata> Checked<M> {
    /// What a repair would do, segment by segment.
    pub fn steps(&self) -> Vec<(u64, Step)> {
        self.actions.iter().map(Action::describe).collect()
    }

    /// Whether there is something that a repair cannot make good: then it does nothing at all.
    pub fn is_beyond_repair(&self) -> bool {
        let beyond =
            |remedy: &Remedy| matches!(remedy, Remedy::Restore { .. } | Remedy::Rename { .. });
        self.more_findings > 0 || self.findings.iter().any(|finding| beyond(&finding.remedy))
    }
}

/// Keeps a copy of a file, by its name, before it is replaced or removed.
pub type Keep<'a> = &'a mut dyn FnMut(&str) -> io::Result<()>;

/// Does what was planned. What it did before it fails stays done, and each file is either as it was or as it should be:
/// a check tells what is left.
///
/// # Errors
/// [`Error::Io`] and [`Error::NoSpace`] if the disk or `keep` refuses.
pub fn repair<M: Metadata>(
    disk: &dyn Disk,
    checked: &Checked<M>,
    keep: Keep<'_>,
) -> Result<(), Error> {
    assert!(
        !checked.is_beyond_repair(),
        "what is lost by it must have been told"
    );
    let Some(magic) = checked.magic else {
        return Ok(());
    };
    // Where the log goes on must be there before the segment before is sealed.
    let (first, then): (Vec<_>, Vec<_>) = checked
        .actions
        .iter()
        .partition(|action| matches!(action, Action::Remove { .. } | Action::Continue { .. }));
    for action in first.into_iter().chain(then) {
        apply(disk, action, magic, &mut *keep)?;
    }
    Ok(())
}

fn apply(disk: &dyn Disk, action: &Action, magic: Magic, keep: Keep<'_>) -> Result<(), Error> {
    let (number, _) = action.describe();
    let name = segment::name(number);
    let io = |operation| {
        let name = name.clone();
        move |source| Error::io(operation, &name, source)
    };
    let draft = match action {
        Action::Remove { .. } => {
            keep(&name).map_err(io("keeping a copy"))?;
            disk.remove(&name).map_err(io("removing"))?;
            return disk
                .sync_directory()
                .map_err(io("syncing the directory of"));
        }
        Action::Continue { frames, .. } => {
            begin(disk, frames)?;
            SPARE
        }
        Action::Fill { index, place, .. } => {
            let footer = segment::packed_footer(0, index, *place, magic);
            disk.raise_format(Format::Rewritten)
                .map_err(io("raising the format for"))?;
            write(disk, &footer).map_err(io("writing"))?;
            REWRITE
        }
        Action::Zero { ranges, .. } => {
            let (_, bytes) = read_whole(disk, number)?;
            write(disk, &zeroed(bytes, ranges)).map_err(io("writing"))?;
            REWRITE
        }
        Action::Rebuild { index, place, .. } => {
            rebuild(disk, (number, index), *place, magic)?;
            REWRITE
        }
    };
    if !matches!(action, Action::Fill { .. } | Action::Continue { .. }) {
        keep(&name).map_err(io("keeping a copy of"))?;
    }
    disk.rename(draft, &name).map_err(io("renaming"))?;
    disk.sync_directory()
        .map_err(io("syncing the directory of"))
}

fn write(disk: &dyn Disk, bytes: &[u8]) -> io::Result<()> {
    let file = disk.create(REWRITE, 0)?;
    file.write_at(bytes, 0)?;
    file.sync()
}

fn zeroed(mut bytes: Vec<u8>, ranges: &[(usize, usize)]) -> Vec<u8> {
    for (at, end) in ranges {
        if let Some(range) = bytes.get_mut(*at..*end) {
            range.fill(0);
        }
    }
    bytes
}

fn begin(disk: &dyn Disk, frames: &[u8]) -> Result<(), Error> {
    // Room for what is written at every start, and for the end.
    let least = as_u64(frames.len() + 4 * HEADER_BYTES + 2 * TRAILER_BYTES);
    let bytes = least.max(NEXT_SEGMENT_BYTES);
    let created = disk.create(SPARE, bytes);
    let file = created.map_err(|source| spare::refused(bytes, source.into()))?;
    let written = file.write_at(frames, 0).and_then(|()| file.sync());
    written.map_err(|source| Error::io("writing", SPARE, source))
}

fn rebuild(
    disk: &dyn Disk,
    (number, index): (u64, &Index),
    place: Place,
    magic: Magic,
) -> Result<(), Error> {
    let name = segment::name(number);
    let file = disk.open(&name);
    let file = file.map_err(|source| Error::io("opening", &name, source))?;
    let source = Sealed {
        number,
        file,
        index: index.clone(),
    };
    let rewrite = Rewrite {
        disk,
        magic,
        pace: &Pace::new(0),
        is_committing: &|| false,
        compression: Compression::Zstd,
        bug: SeededBug::default(),
    };
    rewrite.write(&source, place, &|_| Some(0)).map(drop)
}
