//! A data directory and its segments as bytes, read by docs/0001-log.md and not by the product's code.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Bytes before a frame's body.
const HEADER_BYTES: usize = 40;
/// A frame's kind: a run of records.
pub(crate) const RECORDS: u8 = 2;

/// A frame as its header says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    /// Where it begins.
    pub at: usize,
    /// Header and body, without the padding.
    pub bytes: usize,
    /// What it holds.
    pub kind: u8,
    /// Its commit.
    pub commit: u64,
    /// The commit up to which it says that all was durable.
    pub durable: u64,
}

impl Frame {
    /// Where the next frame begins.
    pub(crate) fn end(&self) -> usize {
        self.at + self.bytes.next_multiple_of(8)
    }
}

/// The active segment of a small log: its first.
pub(crate) fn first_segment(data: &Path) -> PathBuf {
    data.join("0000000000000001.segment")
}

/// The segments with a number, in order.
pub(crate) fn segments(data: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(data)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut found: Vec<(u64, PathBuf)> = entries
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "segment")
        })
        .filter_map(|path| Some((path.file_stem()?.to_str()?.parse().ok()?, path)))
        .collect();
    found.sort();
    found
}

/// The frames of a segment, to where it was only laid out.
pub(crate) fn frames(segment: &[u8]) -> Vec<Frame> {
    let u32_at = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_be_bytes(segment[at..at + 8].try_into().unwrap());
    let mut frames: Vec<Frame> = Vec::new();
    let mut at = 0;
    while at + HEADER_BYTES <= segment.len() && u32_at(at) != 0 {
        let body_bytes = usize::try_from(u32_at(at + 4)).unwrap();
        let frame = Frame {
            at,
            bytes: HEADER_BYTES + body_bytes,
            kind: segment[at + 13],
            commit: u64_at(at + 24),
            durable: u64_at(at + 32),
        };
        at = frame.end();
        frames.push(frame);
    }
    assert!(!frames.is_empty(), "a segment begins with its snapshot");
    frames
}

/// Cuts the last segment's space off behind its last frame, all but a little: a segment is as large as its
/// file, so that the next life soon needs another one.
pub(crate) fn leave_little_room(data: &Path, room: usize) {
    let (_, path) = segments(data).pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    let all = frames(&bytes);
    let end = all[all.len() - 1].end() + room;
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(u64::try_from(end.min(bytes.len())).unwrap())
        .unwrap();
}

/// Every file of a directory with its content.
pub(crate) fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let content = |path: PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read(&path).unwrap())
    };
    entries.map(content).collect()
}

/// Asserts that nothing in a directory has changed, naming what has.
pub(crate) fn assert_unchanged(directory: &Path, before: &BTreeMap<String, Vec<u8>>) {
    let now = contents(directory);
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        names(&now),
        names(before),
        "files of {}",
        directory.display()
    );
    for (name, bytes) in before {
        assert!(now[name] == *bytes, "{name} has changed");
    }
}
