//! Data directories that earlier versions wrote must open, and hold what was put into them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::ManualClock;
use crate::log::tests::{
    EVERYTHING, Events, NOW_MS, TestLog, batch, create, read_all, seal, texts, tiny,
};
use crate::log::{Log, LogConfig, LogShard, ReadDisk, RealDisk};

/// Set to a directory that does not exist, this lets the last test write a new fixture there.
const WRITE: &str = "MILLSTREAM_WRITE_LOG_FIXTURE";
const SHARDS: u64 = 3;
/// What the first two were written with, and the last one.
const APPENDS: u64 = 30;
const MORE_APPENDS: u64 = 92;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn open_at(directory: &Path, clock: &Arc<ManualClock>) -> TestLog {
    let disk = Arc::new(RealDisk::open(directory).unwrap());
    let clock = Arc::clone(clock);
    let config = LogConfig {
        // Two pages: what is written ends with one.
        segment_bytes: 8192,
        ..tiny()
    };
    Log::open(disk, config, clock, Events::default()).unwrap()
}

fn text(number: u64) -> String {
    format!(
        "{number} {}",
        "f".repeat(usize::try_from(number * 53 % 300).unwrap())
    )
}

fn expected(shard: u64, appends: u64) -> Vec<String> {
    let of_shard = (0..appends).filter(|number| 1 + number % SHARDS == shard);
    of_shard
        .flat_map(|number| [text(number), "second".to_owned()])
        .collect()
}

/// Three shards over several segments, with a restart in the middle; shard 2 is sealed at the end. What is rewritten leaves
/// files that later segments are written into.
async fn write(directory: &Path) {
    let clock = ManualClock::at(NOW_MS);
    let mut log = open_at(directory, &clock);
    log.commit(create("create", &[1, 2, 3])).await.unwrap();
    for number in 0..MORE_APPENDS {
        if number == MORE_APPENDS / 2 {
            log.close().await;
            drop(log);
            log = open_at(directory, &clock);
        }
        log.rewrite(|_| Some(0)).await.unwrap();
        clock.set_ms(NOW_MS + 1000 * number);
        let shard = LogShard(1 + number % SHARDS);
        log.append(shard, batch(&[&text(number), "second"]))
            .await
            .unwrap();
    }
    log.commit(seal("seal", &[2])).await.unwrap();
    log.rewrite(|_| Some(0)).await.unwrap();
    log.close().await;
}

async fn check(log: &TestLog, appends: u64) {
    assert_eq!(log.metadata().0, ["create", "seal"]);
    for shard in 1..=SHARDS {
        assert_eq!(
            texts(log, shard).await,
            expected(shard, appends),
            "shard {shard}"
        );
        assert_eq!(log.tail(LogShard(shard)).unwrap().sealed, shard == 2);
    }
}

fn copy_of(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

fn is_sound(directory: &Path) {
    let disk = ReadDisk::open(directory).unwrap();
    let checked = crate::log::check::<Events>(&disk).unwrap();
    assert_eq!(checked.findings, []);
    assert_eq!(disk.check_format(checked.totals.rewritten > 0), None);
}

fn format(directory: &Path) -> String {
    fs::read_to_string(directory.join("FORMAT")).unwrap()
}

/// It holds what was put into it, and can be written to and rewritten.
async fn opens(name: &str, appends: u64) -> tempfile::TempDir {
    let directory = copy_of(name);
    let clock = ManualClock::at(NOW_MS + 1_000_000);
    let before = format(directory.path());
    is_sound(directory.path());
    let log = open_at(directory.path(), &clock);
    check(&log, appends).await;
    assert_eq!(format(directory.path()), before, "opening changes nothing");
    log.rewrite(|_| Some(0)).await.unwrap();
    check(&log, appends).await;
    log.append(LogShard(1), batch(&["later"])).await.unwrap();
    log.close().await;
    drop(log);
    let log = open_at(directory.path(), &clock);
    let found = read_all(&log, LogShard(1), EVERYTHING).await.unwrap();
    assert_eq!(found.last().unwrap().1, "later");
    assert_eq!(found.len(), expected(1, appends).len() + 1);
    log.close().await;
    drop(log);
    is_sound(directory.path());
    directory
}

#[tokio::test]
async fn s8_a_directory_of_the_first_format_opens() {
    assert_eq!(format(&fixture("log-1")), "millstream-log 1\n");
    let directory = opens("log-1", APPENDS).await;
    assert_eq!(format(directory.path()), "millstream-log 2\n");
}

#[tokio::test]
async fn s8_a_directory_with_rewritten_segments_opens() {
    assert_eq!(format(&fixture("log-2")), "millstream-log 2\n");
    opens("log-2", APPENDS).await;
}

#[tokio::test]
async fn s8_a_directory_with_files_of_earlier_segments_opens() {
    if let Some(directory) = std::env::var_os(WRITE) {
        write(Path::new(&directory)).await;
    }
    let path = fixture("log-4");
    assert_eq!(format(&path), "millstream-log 4\n");
    let disk = ReadDisk::open(&path).unwrap();
    let notes = crate::log::check::<Events>(&disk).unwrap().notes;
    assert!(
        notes
            .iter()
            .any(|note| note.text.contains("left by an earlier segment")),
        "{notes:?}"
    );
    opens("log-4", MORE_APPENDS).await;
}
