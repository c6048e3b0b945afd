//! Damaged files: refused with their place named, or harmless; never served, never dropped.

use std::collections::BTreeMap;

use crate::log::frame::HEADER_BYTES;
use crate::log::plan::SeededBug;
use crate::log::tests::{
    EVERYTHING, Events, batch, create, is_rewritten, open, open_with, read_all, seal, texts, tiny,
};
use crate::log::{Error, LogConfig, LogShard, MemoryDisk, RecordBatch, check, segment};

pub(super) type Contents = BTreeMap<String, Vec<u8>>;

pub(super) const SHARDS: [u64; 2] = [1, 2];

/// A small log of several segments, closed cleanly.
async fn small_log() -> (Contents, Events, Vec<Vec<(u64, String)>>) {
    log_of(Sealed::Left).await
}

/// What is done about its sealed segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sealed {
    Left,
    Rewritten,
    /// Rewritten all the while, so that their files become the next segments.
    UsedAgain,
}

pub(super) async fn log_of(sealed: Sealed) -> (Contents, Events, Vec<Vec<(u64, String)>>) {
    let disk = MemoryDisk::new();
    let config = LogConfig {
        segment_bytes: 900,
        ..tiny()
    };
    let log = open_with(&disk, config, SeededBug::None).unwrap();
    log.commit(create("create", &SHARDS)).await.unwrap();
    for number in 0..14 {
        let text = format!("{number}{}", "z".repeat(30));
        log.append(LogShard(1 + number % 2), batch(&[&text, "second"]))
            .await
            .unwrap();
        if sealed == Sealed::UsedAgain {
            log.rewrite(|_| Some(0)).await.unwrap();
        }
    }
    log.commit(seal("seal", &[2])).await.unwrap();
    if sealed == Sealed::Rewritten {
        assert!(log.rewrite(|_| Some(0)).await.unwrap().segments > 1);
    }
    let mut records = Vec::new();
    for shard in SHARDS {
        records.push(read_all(&log, LogShard(shard), EVERYTHING).await.unwrap());
    }
    let metadata = Events::clone(&log.metadata());
    log.close().await;
    let mut contents = disk.contents();
    contents.retain(|name, _| segment::number(name).is_some());
    (contents, metadata, records)
}

/// Opens damaged contents: `true` if the damage was told with the segment it is in, `false` if
/// everything is as it was.
async fn is_told(
    damaged: Contents,
    number: u64,
    metadata: &Events,
    records: &[Vec<(u64, String)>],
    case: &str,
) -> bool {
    let told = |error: Error| match error {
        Error::Corrupt { segment, .. } => assert_eq!(segment, number, "{case}: {error}"),
        _ => panic!("{case}: {error}"),
    };
    let log = match open(&MemoryDisk::with_contents(damaged)) {
        Ok(log) => log,
        Err(error) => {
            told(error);
            return true;
        }
    };
    assert_eq!(&*log.metadata(), metadata, "{case}");
    let mut any = false;
    for (shard, expected) in SHARDS.iter().zip(records) {
        match read_all(&log, LogShard(*shard), EVERYTHING).await {
            Ok(found) => assert_eq!(&found, expected, "{case}"),
            Err(error) => {
                told(error);
                any = true;
            }
        }
    }
    any
}

/// Flips a bit of every byte of every segment of a cleanly closed log.
#[tokio::test]
async fn s8_flipped_bit_is_refused() {
    let (contents, metadata, records) = small_log().await;
    assert!(
        contents.len() >= 3,
        "several segments: {:?}",
        contents.keys()
    );
    let mut told = 0;
    for (name, bytes) in &contents {
        let number = segment::number(name).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = contents.clone();
            damaged.get_mut(name).unwrap()[at] ^= 1 << (at % 8);
            let case = format!("{name} byte {at}");
            let refused = is_told(damaged, number, &metadata, &records, &case).await;
            told += usize::from(refused);
            let text = bytes[..=at].ends_with(b"zz");
            assert!(
                refused || !text,
                "{case}: record data was flipped and nobody said so"
            );
        }
    }
    let all: usize = contents.values().map(Vec::len).sum();
    assert!(told > all / 3, "{told} of {all} flips were told");
}

/// In a file that an earlier segment left, what the last one wrote is told from what was there: damage to the one is refused, to the
/// other it is none. The last frame says that the log was closed; without it nothing is lost.
#[tokio::test]
async fn s8_flipped_bit_of_a_file_that_is_used_again_is_told() {
    let (contents, metadata, records) = log_of(Sealed::UsedAgain).await;
    let disk = MemoryDisk::with_contents(contents.clone());
    let notes = check::<Events>(&disk).unwrap().notes;
    let left = notes
        .iter()
        .find(|note| note.text.contains("left by an earlier segment"));
    let left = left.unwrap_or_else(|| panic!("nothing is left: {notes:?}"));
    let (name, bytes) = contents.last_key_value().unwrap();
    assert_eq!(left.file, *name);
    let ends = usize::try_from(left.offset).unwrap();
    assert!(ends + 200 < bytes.len(), "hardly anything is left");
    let number = segment::number(name).unwrap();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = contents.clone();
            damaged.get_mut(name).unwrap()[at] ^= 1 << bit;
            let case = format!("{name} byte {at} bit {bit} of {ends} bytes");
            let refused = is_told(damaged, number, &metadata, &records, &case).await;
            let matters = at < ends - HEADER_BYTES && is_covered(&bytes[..ends], at);
            assert_eq!(refused, matters, "{case}");
        }
    }
}

/// Where frames have their bytes; what lies between them is padding.
fn is_covered(bytes: &[u8], at: usize) -> bool {
    let mut begins = 0;
    while begins + 16 < bytes.len() {
        let length = bytes[begins + 4..begins + 8].try_into().unwrap();
        let end = begins + 40 + usize::try_from(u32::from_be_bytes(length)).unwrap();
        if at < end {
            return true;
        }
        begins = end.next_multiple_of(8);
        if at < begins {
            return false;
        }
    }
    true
}

/// Flips a bit of every byte of every rewritten segment: each is told, with the segment it is in.
#[tokio::test]
async fn s8_flipped_bit_of_a_rewritten_segment_is_refused() {
    let (contents, metadata, records) = log_of(Sealed::Rewritten).await;
    let mut segments = 0;
    for (name, bytes) in &contents {
        if !is_rewritten(name, bytes) {
            continue;
        }
        segments += 1;
        let number = segment::number(name).unwrap();
        for at in 0..bytes.len() {
            for bit in [0, at % 8] {
                let mut damaged = contents.clone();
                damaged.get_mut(name).unwrap()[at] ^= 1 << bit;
                let case = format!("{name} byte {at} bit {bit}");
                let refused = is_told(damaged, number, &metadata, &records, &case).await;
                assert_eq!(refused, is_covered(bytes, at), "{case}");
            }
        }
        for length in 0..bytes.len() {
            let mut damaged = contents.clone();
            damaged.get_mut(name).unwrap().truncate(length);
            let case = format!("{name} cut at {length}");
            assert!(
                is_told(damaged, number, &metadata, &records, &case).await,
                "{case}"
            );
        }
    }
    assert!(segments > 1);
}

/// A segment that is damaged is not rewritten: its readers must still be told. The others are.
#[tokio::test]
async fn s8_a_damaged_segment_is_left_as_it_is() {
    let (contents, _, _) = small_log().await;
    let (name, bytes) = contents.iter().nth(1).unwrap();
    let at = bytes.windows(2).rposition(|pair| pair == b"zz").unwrap();
    let mut damaged = contents.clone();
    damaged.get_mut(name).unwrap()[at] ^= 1;
    let disk = MemoryDisk::with_contents(damaged.clone());
    let log = open(&disk).unwrap();
    for _ in 0..2 {
        log.rewrite(|_| Some(0)).await.unwrap();
    }
    let left = disk.contents();
    assert_eq!(left[name], damaged[name]);
    let rewritten = left.iter().filter(|(name, file)| is_rewritten(name, file));
    assert!(rewritten.count() > 0);
    assert!(!left.contains_key(segment::REWRITE));
    let mut told = 0;
    for shard in SHARDS {
        let read = read_all(&log, LogShard(shard), EVERYTHING).await;
        told += usize::from(matches!(read, Err(Error::Corrupt { segment: 2, .. })));
    }
    assert_eq!(told, 1);
}

/// A log that is refused is left as it was found, the space laid out for its next segment included.
#[tokio::test]
async fn s8_what_is_refused_is_left_as_it_was() {
    let (mut contents, _, _) = small_log().await;
    contents.insert(segment::SPARE.to_owned(), vec![0; 900]);
    contents.insert(segment::LARGE.to_owned(), vec![0; 2000]);
    contents.insert(segment::REWRITE.to_owned(), vec![1; 20]);
    let last = contents
        .keys()
        .rfind(|name| segment::number(name).is_some());
    let last = last.unwrap().clone();
    contents.get_mut(&last).unwrap()[50] ^= 1;
    let disk = MemoryDisk::with_contents(contents.clone());
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(disk.contents() == contents, "files were changed");

    // What is opened needs none of it: it lays out its own.
    contents.get_mut(&last).unwrap()[50] ^= 1;
    let disk = MemoryDisk::with_contents(contents);
    drop(open(&disk).unwrap());
    for name in [segment::LARGE, segment::REWRITE] {
        assert!(!disk.contents().contains_key(name));
    }
}

/// Cutting a file short, or taking one away.
#[tokio::test]
async fn s8_missing_and_shortened_segments_are_refused() {
    let (contents, metadata, records) = small_log().await;
    let names: Vec<_> = contents.keys().cloned().collect();
    assert!(names.len() >= 3, "several segments: {names:?}");
    for name in &names[1..] {
        let mut damaged = contents.clone();
        damaged.remove(name);
        let number = segment::number(name).unwrap();
        assert!(is_told(damaged, number, &metadata, &records, "a segment removed").await);
    }
    for keep in [0, 8, 15, 16, 100] {
        let mut damaged = contents.clone();
        damaged.get_mut(&names[1]).unwrap().truncate(keep);
        assert!(is_told(damaged, 2, &metadata, &records, "segment 2 cut").await);
    }
}

/// The last write is cut at every byte: what was answered before it is there, and it is gone.
#[tokio::test]
async fn s8_torn_tail_is_cut() {
    let disk = MemoryDisk::crashable();
    let log = open(&disk).unwrap();
    log.commit(create("create", &[1])).await.unwrap();
    log.append(LogShard(1), batch(&["one", "two"]))
        .await
        .unwrap();
    let before = disk.contents();
    log.append(LogShard(1), batch(&["three", "four"]))
        .await
        .unwrap();
    let after = disk.contents();
    let name = segment::name(1);
    let (before, after) = (&before[&name], &after[&name]);
    let last = after.iter().rposition(|byte| *byte != 0).unwrap();
    let first = (0..before.len())
        .find(|at| before[*at] != after[*at])
        .unwrap();
    for cut in first..=last {
        let mut torn = after.clone();
        torn[cut..].fill(0);
        let disk = MemoryDisk::with_contents(BTreeMap::from([(name.clone(), torn)]));
        for _ in 0..2 {
            let log = open(&disk).unwrap();
            assert_eq!(texts(&log, 1).await, ["one", "two"], "cut at {cut}");
        }
        let log = open(&disk).unwrap();
        log.append(LogShard(1), batch(&["five"])).await.unwrap();
        assert_eq!(texts(&log, 1).await, ["one", "two", "five"], "cut at {cut}");
    }
}

/// A frame of a newer version is not taken for damage.
#[tokio::test]
async fn s8_a_newer_frame_is_named_as_such() {
    let disk = MemoryDisk::new();
    let log = open(&disk).unwrap();
    log.close().await;
    let mut contents = disk.contents();
    let bytes = contents.get_mut(&segment::name(1)).unwrap();
    bytes[12] = 2;
    let body_bytes = usize::try_from(u32::from_be_bytes(bytes[4..8].try_into().unwrap())).unwrap();
    let crc = crc32c::crc32c(&bytes[12..40 + body_bytes]);
    bytes[8..12].copy_from_slice(&crc.to_be_bytes());
    let error = open(&MemoryDisk::with_contents(contents)).unwrap_err();
    assert!(matches!(error, Error::NewerFormat { .. }), "{error}");
}

/// A client stores bytes of the log's own segment as a record, and the power fails while it is
/// written: they are not mistaken for frames that say the commit before them was durable.
#[tokio::test]
async fn s8_record_data_that_looks_like_frames_is_not_believed() {
    let config = LogConfig {
        segment_bytes: 1 << 16,
        ..tiny()
    };
    let name = segment::name(1);
    let other = MemoryDisk::new();
    let forger = open_with(&other, config, SeededBug::None).unwrap();
    forger.commit(create("create", &[1])).await.unwrap();
    for _ in 0..12 {
        forger.append(LogShard(1), batch(&["x"])).await.unwrap();
    }
    let forged = other.contents().remove(&name).unwrap();
    let used = forged.iter().rposition(|byte| *byte != 0).unwrap();
    // At each alignment: where the data lies in its frame is not the client's to choose.
    for shift in 0..8 {
        let disk = MemoryDisk::new();
        let log = open_with(&disk, config, SeededBug::None).unwrap();
        log.commit(create("create", &[1])).await.unwrap();
        log.append(LogShard(1), batch(&["one"])).await.unwrap();
        let before = disk.contents().remove(&name).unwrap();
        let mut records = RecordBatch::new();
        records.push("k", &[&vec![0; shift], &forged[..used]].concat());
        log.append(LogShard(1), records).await.unwrap();
        let mut torn = disk.contents().remove(&name).unwrap();
        let at = (0..torn.len()).find(|at| torn[*at] != before[*at]).unwrap();
        torn[at..at + 8].fill(0);
        let disk = MemoryDisk::with_contents(BTreeMap::from([(name.clone(), torn)]));
        let log = open(&disk).unwrap_or_else(|error| panic!("shift {shift}: {error}"));
        assert_eq!(texts(&log, 1).await, ["one"], "shift {shift}");
    }
}
