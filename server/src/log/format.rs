//! The file `FORMAT` of a data directory: which versions can read what lies beside it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

use crate::log::disk::LOCK;
use crate::log::{Error, Finding, Remedy};

pub(crate) const FORMAT: &str = "FORMAT";
pub(crate) const FORMAT_DRAFT: &str = "FORMAT.new";
const FAMILY: &str = "millstream-log ";

/// What there may be in a data directory that earlier versions cannot read. Each has what those before it have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Format {
    /// Segments as they were committed.
    #[default]
    Plain,
    /// Segments that were rewritten.
    Rewritten,
    /// Segments in files of earlier ones, of which something is left behind what was written last.
    Recycled,
}

impl Format {
    /// What this version writes at most.
    pub(crate) const LATEST: Format = Format::Recycled;
    const ALL: [Format; 3] = [Format::Plain, Format::Rewritten, Format::Recycled];

    /// What `FORMAT` says, without the end of the line. No two differ in one bit only, which is why there is no 3.
    pub(crate) fn line(self) -> &'static str {
        match self {
            Format::Plain => "millstream-log 1",
            Format::Rewritten => "millstream-log 2",
            Format::Recycled => "millstream-log 4",
        }
    }

    fn of_line(line: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|format| format.line() == line)
    }
}

/// What `FORMAT` says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Formatted {
    As(Format),
    /// There is none.
    No,
    /// Something else, or not exactly that.
    Garbled(String),
}

impl Formatted {
    /// The format it says, or the first.
    pub(crate) fn format(&self) -> Format {
        match self {
            Formatted::As(format) => *format,
            Formatted::No | Formatted::Garbled(_) => Format::Plain,
        }
    }

    /// What is wrong with `FORMAT`, if some segments, or none, have been rewritten.
    pub(crate) fn finding(&self, any_rewritten: bool) -> Option<Finding> {
        let problem = match self {
            Formatted::As(Format::Plain) if any_rewritten => {
                "it says 1, but segments have been rewritten: earlier versions would take them for damaged"
                    .to_owned()
            }
            Formatted::As(_) => return None,
            Formatted::No => "it is missing".to_owned(),
            Formatted::Garbled(line) => format!("it says {line:?}"),
        };
        Some(Finding {
            file: FORMAT.to_owned(),
            segment: None,
            remedy: Remedy::Mend,
            ..Finding::new(0, 0, 0, problem)
        })
    }
}

/// Reads `FORMAT`.
pub(crate) fn read_format(directory: &Path) -> Result<Formatted, Error> {
    let shown = directory.display().to_string();
    let bytes = match fs::read(directory.join(FORMAT)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Formatted::No),
        Err(source) => return Err(Error::io("reading FORMAT of", &shown, source)),
    };
    let text = String::from_utf8_lossy(bytes.get(..100).unwrap_or(&bytes)).into_owned();
    let exact = text.strip_suffix('\n').and_then(Format::of_line);
    if let Some(format) = exact {
        return Ok(Formatted::As(format));
    }
    let line = text.trim_end();
    if line.starts_with(FAMILY) && Format::of_line(line).is_none() {
        let (found, known) = (line.to_owned(), Format::LATEST.line().to_owned());
        return Err(Error::NewerFormat {
            name: shown,
            found,
            known,
        });
    }
    Ok(Formatted::Garbled(text))
}

/// `FORMAT` of a directory that is to be served.
pub(crate) fn check_format(directory: &Path) -> Result<Formatted, Error> {
    let shown = directory.display().to_string();
    let foreign = |reason: String| Error::NotADataDirectory {
        directory: shown.clone(),
        reason,
    };
    // Listed before it is read: who writes FORMAT meanwhile did so before the first segment.
    let strange = stranger(directory).map_err(|source| Error::io("listing", &shown, source))?;
    let formatted = read_format(directory)?;
    match (&formatted, strange) {
        (Formatted::Garbled(text), _) => {
            let said = text.trim_end();
            // Written by hand, or by an editor.
            let format = Format::of_line(said).map(Formatted::As);
            format.ok_or_else(|| foreign(format!("its FORMAT file says {said:?}")))
        }
        (Formatted::No, Some(name)) => Err(foreign(format!(
            "it holds {} and no FORMAT file",
            name.display()
        ))),
        (Formatted::As(_), _) | (Formatted::No, None) => Ok(formatted),
    }
}

/// A file that a start that was cut short does not leave in a directory.
fn stranger(directory: &Path) -> io::Result<Option<OsString>> {
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if name != LOCK && name != FORMAT_DRAFT {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
