//! S8, an honest start: what is wrong with a data directory is said and nothing is touched; what a power
//! cut leaves is repaired silently, because it was never acknowledged as durable.

use crate::{SERVER, STREAM};
use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use support::history::{ReadShard, Written};
use support::process::Ended;
use support::reader::read_stream;
use support::server::refused;
use support::{RawClient, ServerProcess};

/// What the command line promises for a data directory it cannot use.
const UNUSABLE_DATA: Option<i32> = Some(3);

async fn with_records(count: u64) -> (ServerProcess, RawClient, Vec<ReadShard>) {
    let server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 1).await;
    put(&client, 1..=count).await;
    let whole = read_stream(&client, STREAM).await.unwrap();
    assert_eq!(numbers(&whole), (1..=count).collect::<Vec<_>>());
    (server, client, whole)
}

async fn put(client: &RawClient, numbers: impl Iterator<Item = u64>) {
    for n in numbers {
        let written = Written {
            writer: "writer".into(),
            n,
        };
        client
            .put(STREAM, "writer", written.payload().as_bytes())
            .await
            .unwrap();
    }
}

fn numbers(whole: &[ReadShard]) -> Vec<u64> {
    whole
        .iter()
        .flat_map(|shard| &shard.records)
        .map(|record| record.written.n)
        .collect()
}

fn segment(server: &ServerProcess) -> PathBuf {
    let path = server.data().join("0000000000000001.segment");
    assert!(path.exists(), "{}", path.display());
    path
}

/// Every file of a directory with its length and a hash of its content, except for the segment laid out
/// beforehand, which holds nothing and is made anew at every start.
fn content(directory: &Path) -> BTreeMap<PathBuf, (usize, u64)> {
    let entries = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| !path.ends_with("spare.segment"))
        .map(|path| {
            let bytes = fs::read(&path).unwrap();
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            (path, (bytes.len(), hasher.finish()))
        })
        .collect()
}

fn assert_refused(ended: &Ended, words: &[&str]) {
    assert_eq!(
        ended.code, UNUSABLE_DATA,
        "{}{}",
        ended.stdout, ended.stderr
    );
    assert!(!ended.stdout.contains("Ready"), "{}", ended.stdout);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    for word in words {
        assert!(
            ended.stderr.contains(word),
            "{word:?} is not in: {}",
            ended.stderr
        );
    }
}

/// Two processes on one directory would write over each other: the second is refused and says why, the first
/// goes on.
#[tokio::test(flavor = "multi_thread")]
async fn s8_second_process_on_a_directory_is_refused() {
    let (server, client, before) = with_records(5).await;
    let directory = server.data().display().to_string();
    assert_refused(&server.second_process().await, &["in use", &directory]);
    put(&client, 6..=6).await;
    let after = read_stream(&client, STREAM).await.unwrap();
    support::check::extends(&before, &after).unwrap();
}

/// One bit of a record that was acknowledged, with others after it: nothing is served, the message names
/// segment and offset, and the files are left for whoever repairs them.
#[tokio::test(flavor = "multi_thread")]
async fn s8_flipped_bit_is_refused_naming_segment_and_offset() {
    let (mut server, _, _) = with_records(50).await;
    server.terminate().await;
    let path = segment(&server);
    let mut bytes = fs::read(&path).unwrap();
    let marker = b"writer:25";
    let at = bytes
        .windows(marker.len())
        .position(|window| window == marker)
        .unwrap();
    bytes[at] ^= 0b100;
    fs::write(&path, &bytes).unwrap();
    let before = content(server.data());
    let ended = server.restart_refused().await;
    assert_refused(&ended, &["segment 1", "damaged"]);
    let words = ended.stderr.split(|c: char| !c.is_ascii_digit());
    let offsets: Vec<usize> = words.filter_map(|word| word.parse().ok()).collect();
    // The frame that holds the record begins less than one small frame before it.
    let near = |offset: &usize| (at.saturating_sub(256)..=at).contains(offset);
    assert!(
        offsets.iter().any(near),
        "damage is at {at}: {}",
        ended.stderr
    );
    assert_eq!(
        content(server.data()),
        before,
        "a refused start changes nothing"
    );
}

/// Where the written part of a segment, zeros from there on, ends.
fn written_end(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

/// A power cut in the middle of a write leaves part of a frame that nobody was answered for. It is cut, all
/// else is served, and the numbers go on above everything read before.
#[tokio::test(flavor = "multi_thread")]
async fn s8_torn_tail_is_cut_and_served() {
    let (mut server, client, before) = with_records(20).await;
    server.kill9().await;
    let path = segment(&server);
    let mut bytes = fs::read(&path).unwrap();
    let end = written_end(&bytes);
    // The beginning of a frame as docs/0001-log.md has it: header, and a body that is not all there.
    let start = end.next_multiple_of(8);
    let begun = [b"MSF\x01", &1000u32.to_be_bytes()[..], &[0x5a; 100]].concat();
    bytes[start..start + begun.len()].copy_from_slice(&begun);
    fs::write(&path, &bytes).unwrap();
    server.restart().await;
    let now = read_stream(&client, STREAM).await.unwrap();
    assert_eq!(now, before);

    // Half of the last frame, zeros after it: the record in it was not durable.
    server.kill9().await;
    let mut bytes = fs::read(&path).unwrap();
    let marker = b"writer:20";
    let at = bytes
        .windows(marker.len())
        .position(|window| window == marker)
        .unwrap();
    bytes[at + 3..].fill(0);
    fs::write(&path, &bytes).unwrap();
    server.restart().await;
    put(&client, 100..=100).await;
    let mut expected: Vec<u64> = (1..20).collect();
    expected.push(100);
    let now = read_stream(&client, STREAM).await.unwrap();
    assert_eq!(numbers(&now), expected);
    let (lost, next) = (&before[0].records[19], &now[0].records[19]);
    assert!(
        next.sequence > lost.sequence,
        "S2: {next:?} does not reuse the number of {lost:?}"
    );
}

/// A directory of a newer version is refused by name and not touched.
#[tokio::test(flavor = "multi_thread")]
async fn s8_newer_format_is_refused_and_nothing_touched() {
    let (mut server, _, _) = with_records(5).await;
    server.terminate().await;
    let format = server.data().join("FORMAT");
    assert_eq!(fs::read_to_string(&format).unwrap(), "millstream-log 1\n");
    fs::write(&format, "millstream-log 2\n").unwrap();
    let before = content(server.data());
    let directory = server.data().display().to_string();
    assert_refused(
        &server.restart_refused().await,
        &[&directory, "millstream-log 2"],
    );
    assert_eq!(content(server.data()), before);
}

/// A directory that is none, or that holds something else, is refused and not touched.
#[tokio::test(flavor = "multi_thread")]
async fn s8_unusable_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a-file");
    fs::write(&file, "not a directory").unwrap();
    let named = file.display().to_string();
    assert_refused(&refused(Path::new(SERVER), &file).await, &[&named]);
    assert_refused(
        &refused(Path::new(SERVER), &file.join("below")).await,
        &[&named],
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "not a directory");

    let before = content(directory.path());
    let named = directory.path().display().to_string();
    assert_refused(
        &refused(Path::new(SERVER), directory.path()).await,
        &[&named],
    );
    let after = content(directory.path());
    assert_eq!(after.get(&file), before.get(&file));
}
