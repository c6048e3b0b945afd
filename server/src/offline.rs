//! What an operator does with a data directory that nobody serves: have it checked, have it repaired. Puts the names of streams to what
//! `log` finds, and keeps copies; what is damaged and what becomes of it is decided there.

use crate::engine;
use crate::engine::catalog::Catalog;
use crate::log::{self, Changes, Checked, Finding, Lost, ReadDisk, RealDisk, Remedy, Step};
use crate::tls;
use serde::Serialize;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What a check found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The directory.
    pub directory: PathBuf,
    /// Nothing is damaged.
    pub sound: bool,
    /// Segments with a number.
    pub segments: u64,
    /// Those of them that were rewritten.
    pub rewritten: u64,
    /// Streams at the end of the log.
    pub streams: usize,
    /// Shards at the end of the log.
    pub shards: u64,
    /// Records whose checksums hold.
    pub records: u64,
    /// Changes of streams, shards and settings whose checksums hold.
    pub transactions: u64,
    /// Bytes of segments.
    pub bytes: u64,
    /// What is damaged.
    pub findings: Vec<Damage>,
    /// How many findings there are beside these.
    pub more_findings: u64,
    /// What is no damage, but worth knowing.
    pub notes: Vec<Remark>,
    /// What a repair would do.
    pub plan: Vec<PlanLine>,
    /// Something cannot be made good: a repair does nothing.
    pub beyond_repair: bool,
}

/// Something that is damaged.
#[derive(Debug, Serialize)]
pub struct Damage {
    /// The file in the directory.
    pub file: String,
    /// The segment, where it is one.
    pub segment: Option<u64>,
    /// Where in the file.
    pub offset: u64,
    /// Where it ends.
    pub end: u64,
    /// What does not hold.
    pub problem: String,
    /// Records that cannot be read because of it.
    pub lost: Vec<LostRecords>,
    /// More records may be lost, of shards of which nothing comes later.
    pub more_may_be_lost: bool,
    /// Changes of streams, shards or settings: `kept`, `may be lost` or `lost`.
    pub changes: &'static str,
    /// What to do.
    pub remedy: String,
}

/// Records of one shard.
#[derive(Debug, Serialize)]
pub struct LostRecords {
    /// The stream's ARN; `None` if it is not known, or gone.
    pub stream: Option<String>,
    /// The shard's id.
    pub shard: Option<String>,
    /// The shard's number in the log.
    pub log_shard: u64,
    /// The first counter.
    pub first: u64,
    /// One more than the last.
    pub end: u64,
    /// Their sequence numbers are at least this.
    pub from_sequence: Option<String>,
    /// And less than this.
    pub before_sequence: Option<String>,
    /// How many; `None` if only the bounds are known.
    pub records: Option<u64>,
}

/// Something that is no damage.
#[derive(Debug, Serialize)]
pub struct Remark {
    /// The file in the directory.
    pub file: String,
    /// Where in the file.
    pub offset: u64,
    /// What it is.
    pub text: String,
}

/// What becomes of a file.
#[derive(Debug, Serialize)]
pub struct PlanLine {
    /// The file.
    pub file: String,
    /// What is done.
    pub step: &'static str,
}

/// What a repair did, or would do.
#[derive(Debug, Serialize)]
pub struct Repair {
    /// What was found.
    #[serde(flatten)]
    pub report: Report,
    /// It was done.
    pub done: bool,
    /// Where the files are kept as they were.
    pub kept_in: PathBuf,
}

/// Why nothing could be said, or done.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The directory cannot be used.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// The folder for copies cannot be used.
    #[error(
        "the folder for copies {folder} cannot be made: {source}; nothing was changed, choose another with --copy-to"
    )]
    Copies {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Checks a data directory; changes nothing. Blocks.
///
/// # Errors
/// [`OfflineError::Log`] if it is in use, no data directory, of a newer version, or cannot be read.
pub fn check(directory: &Path) -> Result<Report, OfflineError> {
    check_opened(ReadDisk::open(directory)?, directory)
}

fn check_opened(disk: ReadDisk, directory: &Path) -> Result<Report, OfflineError> {
    let checked = log::check::<Catalog>(&disk);
    if !disk.is_still_alone()? {
        // A server began, and ended, while its files were read. There is a lock now, so this happens once.
        drop(disk);
        return check(directory);
    }
    let checked = checked?;
    let format = disk.check_format(checked.totals.rewritten > 0);
    Ok(report(directory, &checked, format.as_ref()))
}

/// Says what a repair would do; changes nothing. Blocks.
///
/// # Errors
/// As [`check`].
pub fn plan(directory: &Path, copy_to: Option<&Path>) -> Result<Repair, OfflineError> {
    Ok(Repair {
        report: check(directory)?,
        done: false,
        kept_in: folder(directory, copy_to),
    })
}

/// Repairs a data directory, after the files that change were kept in a new folder. Does nothing if nothing is damaged, or if something is beyond
/// repair. Blocks.
///
/// # Errors
/// As [`check`], and [`OfflineError::Copies`]. What was repaired by then stays so; a check tells what is left.
pub fn repair(directory: &Path, copy_to: Option<&Path>) -> Result<Repair, OfflineError> {
    let kept_in = folder(directory, copy_to);
    // What is no data directory is refused, and not touched.
    drop(ReadDisk::open(directory)?);
    let (disk, formatted) = RealDisk::open_damaged(directory)?;
    let checked = log::check::<Catalog>(&disk)?;
    let rewritten = checked.totals.rewritten > 0;
    let format = formatted.finding(rewritten);
    let mends_format = format.is_some();
    let report = report(directory, &checked, format.as_ref());
    if report.sound || report.beyond_repair {
        let done = false;
        return Ok(Repair {
            report,
            done,
            kept_in,
        });
    }
    let copies = Copies::begin(directory, &kept_in)?;
    log::repair(&disk, &checked, &mut |name| copies.keep(name))?;
    let failed = |name: &'static str| move |source| log::Error::io("repairing", name, source);
    if mends_format {
        copies.keep(log::FORMAT).map_err(failed(log::FORMAT))?;
        disk.mend_format(rewritten).map_err(failed(log::FORMAT))?;
    }
    if tls_damage(directory).is_some() {
        for name in [tls::CERTIFICATE_FILE, tls::KEY_FILE] {
            copies.keep(name).map_err(failed(name))?;
            fs::remove_file(directory.join(name)).map_err(failed(name))?;
        }
    }
    let done = true;
    Ok(Repair {
        report,
        done,
        kept_in,
    })
}

/// Where copies go.
fn folder(directory: &Path, copy_to: Option<&Path>) -> PathBuf {
    if let Some(given) = copy_to {
        return given.to_owned();
    }
    // What ends in a slash or in dots has no name to add to.
    let whole = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    let mut name = whole.into_os_string();
    name.push(".before-repair");
    PathBuf::from(name)
}

/// Files as they were before the repair.
struct Copies<'a> {
    from: &'a Path,
    to: &'a Path,
}

impl<'a> Copies<'a> {
    fn begin(from: &'a Path, to: &'a Path) -> Result<Copies<'a>, OfflineError> {
        // As the data directory: its owner's alone.
        let made = fs::DirBuilder::new().mode(0o700).create(to);
        made.map_err(|source| OfflineError::Copies {
            folder: to.to_owned(),
            source,
        })?;
        Ok(Copies { from, to })
    }

    /// Links a file, or copies it where that cannot be: nothing changes it in its place.
    fn keep(&self, name: &str) -> io::Result<()> {
        let (from, to) = (self.from.join(name), self.to.join(name));
        match fs::hard_link(&from, &to) {
            Ok(()) => {}
            // There is nothing to be kept of a file that is missing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) => {
                fs::copy(&from, &to)?;
                File::open(&to)?.sync_all()?;
            }
        }
        File::open(self.to)?.sync_all()
    }
}

/// What is wrong with the certificate that is kept in the directory.
fn tls_damage(directory: &Path) -> Option<Damage> {
    let (certificate, key) = (
        directory.join(tls::CERTIFICATE_FILE),
        directory.join(tls::KEY_FILE),
    );
    if !certificate.exists() || !key.exists() {
        // Made anew by the next start.
        return None;
    }
    let error = tls::Identity::from_files(&certificate, &key).err()?;
    Some(Damage {
        file: tls::CERTIFICATE_FILE.to_owned(),
        segment: None,
        offset: 0,
        end: 0,
        problem: error.to_string(),
        lost: Vec::new(),
        more_may_be_lost: false,
        changes: changes(Changes::Kept),
        remedy: "a repair takes certificate and key away, and the next start makes new ones: clients that were given the old one need the new one".to_owned(),
    })
}

fn report(directory: &Path, checked: &Checked<Catalog>, format: Option<&Finding>) -> Report {
    let catalog = checked.metadata.clone().unwrap_or_default();
    let mut findings: Vec<Damage> = format
        .into_iter()
        .chain(&checked.findings)
        .map(|finding| damage(finding, &catalog))
        .collect();
    let tls = tls_damage(directory);
    let mut plan: Vec<PlanLine> = checked.steps().into_iter().map(plan_line).collect();
    if format.is_some() {
        plan.push(PlanLine {
            file: log::FORMAT.to_owned(),
            step: "written anew",
        });
    }
    if tls.is_some() {
        plan.push(PlanLine {
            file: tls::CERTIFICATE_FILE.to_owned(),
            step: "removed with its key; the next start makes new ones",
        });
    }
    findings.extend(tls);
    let totals = checked.totals;
    let notes = checked.notes.iter().map(|note| Remark {
        file: note.file.clone(),
        offset: note.offset,
        text: note.text.clone(),
    });
    let beyond_repair = checked.is_beyond_repair();
    Report {
        directory: directory.to_owned(),
        sound: findings.is_empty() && checked.more_findings == 0,
        segments: totals.segments,
        rewritten: totals.rewritten,
        streams: catalog.stored_streams().count(),
        shards: totals.shards,
        records: totals.records,
        transactions: totals.transactions,
        bytes: totals.bytes,
        findings,
        more_findings: checked.more_findings,
        notes: notes.collect(),
        plan: if beyond_repair { Vec::new() } else { plan },
        beyond_repair,
    }
}

fn plan_line((number, step): (u64, Step)) -> PlanLine {
    PlanLine {
        file: log::segment_name(number),
        step: match step {
            Step::Remove => "removed: a copy of another segment",
            Step::Clean => "written anew with its padding zeroed",
            Step::Rewrite => "rewritten with the records that hold",
            Step::Fill => "made anew without records",
            Step::Begin => "begun: the log goes on here",
        },
    }
}

fn damage(finding: &Finding, catalog: &Catalog) -> Damage {
    let lost = finding.lost.iter().map(|lost| lost_records(lost, catalog));
    Damage {
        file: finding.file.clone(),
        segment: finding.segment,
        offset: finding.offset,
        end: finding.end,
        problem: finding.problem.clone(),
        lost: lost.collect(),
        more_may_be_lost: finding.is_open,
        changes: changes(finding.changes),
        remedy: match &finding.remedy {
            Remedy::Mend => "a repair makes it good and loses nothing".to_owned(),
            Remedy::Drop => {
                "restore the file from a copy, or let a repair go on without what is lost"
                    .to_owned()
            }
            Remedy::Rename { to } => format!("rename the file to {to}: nothing is lost then"),
            Remedy::Restore { why } => {
                format!("restore the directory from a copy; a repair cannot help: {why}")
            }
        },
    }
}

fn changes(changes: Changes) -> &'static str {
    match changes {
        Changes::Kept => "kept",
        Changes::MayBeLost => "may be lost",
        Changes::Lost => "lost",
    }
}

fn lost_records(lost: &Lost, catalog: &Catalog) -> LostRecords {
    let owner = catalog.owner_of(lost.shard);
    let shard = owner.and_then(|(stream, id)| stream.shards.get(&id.0));
    let sequence = |counter| Some(engine::least_sequence(shard?, counter).to_string());
    LostRecords {
        stream: owner.map(|(stream, _)| stream.arn.to_string()),
        shard: owner.map(|(_, id)| id.to_string()),
        log_shard: lost.shard.0,
        first: lost.first,
        end: lost.end,
        from_sequence: sequence(lost.first),
        before_sequence: sequence(lost.end),
        records: lost.records,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::log::{Log, LogConfig};
    use std::sync::Arc;

    /// Goal: a server that begins on a copy of a data directory while that is checked is told, and not taken for damage. Method: a
    /// copy has no lock to hold; the server begins once the files were opened.
    #[test]
    fn s8_a_start_while_a_copy_is_checked_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let serve = || {
            let disk = Arc::new(RealDisk::open(path).unwrap());
            let config = LogConfig {
                segment_bytes: 1 << 20,
                ..LogConfig::default()
            };
            Log::open(disk, config, ManualClock::at(1), Catalog::default()).unwrap()
        };
        drop(serve());
        fs::remove_file(path.join("LOCK")).unwrap();
        let (first, second) = (ReadDisk::open(path).unwrap(), ReadDisk::open(path).unwrap());
        let served = serve();
        let told = check_opened(first, path).unwrap_err();
        assert!(
            matches!(told, OfflineError::Log(log::Error::InUse { .. })),
            "{told}"
        );
        drop(served);
        // It has gone: its files are read anew, under its lock.
        assert!(check_opened(second, path).unwrap().sound);
    }
}
